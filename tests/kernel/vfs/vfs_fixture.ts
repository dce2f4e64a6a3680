/**
 * A program of system calls in TypeScript, as the only process of a booted kernel: what the tests of files are made of.
 *
 * @module
 */
import { type Gva, gva } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import { Machine, type MachineOptions } from "../../../hw/machine.ts";
import { bootKernel } from "../../../kernel/boot.ts";
import type { Kernel, KernelOptions } from "../../../kernel/kernel.ts";
import { userSyscall } from "../../../kernel/proc/user_gate.ts";
import { type ArchiveEntry, cpio } from "../../../kernel/vfs/cpio.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** System call numbers that the tests use. */
export const SYS = {
  exit: 1,
  fork: 2,
  read: 3,
  write: 4,
  open: 5,
  close: 6,
  link: 9,
  unlink: 10,
  chdir: 12,
  fchdir: 13,
  mknod: 14,
  chmod: 15,
  chown: 16,
  getpid: 20,
  mount: 21,
  unmount: 22,
  setuid: 23,
  access: 33,
  kill: 37,
  dup: 41,
  pipe: 42,
  ioctl: 54,
  symlink: 57,
  readlink: 58,
  umask: 60,
  chroot: 61,
  munmap: 73,
  dup2: 90,
  fcntl: 92,
  select: 93,
  readv: 120,
  writev: 121,
  rename: 128,
  mkfifo: 132,
  mkdir: 136,
  rmdir: 137,
  utimes: 138,
  statfs: 157,
  extpread: 173,
  extpwrite: 174,
  setrlimit: 195,
  mmap: 197,
  lseek: 199,
  truncate: 200,
  ftruncate: 201,
  poll: 209,
  getcwd: 326,
  stat: 475,
  fstat: 476,
  lstat: 477,
  getdirentries: 479,
  openat: 504,
  unlinkat: 508,
  pipe2: 538,
} as const;

/** A TypeScript program's system calls, with a piece of its stack to keep arguments in. */
export class User {
  readonly u: GateCpu;
  readonly #base: bigint;
  #next: bigint;

  constructor(u: GateCpu) {
    this.u = u;
    this.#base = (u.gpr(4) & ~0xfffn) - 0x4_0000n;
    this.#next = this.#base;
  }

  /** Room for `bytes` bytes; reused from the start when it is used up. */
  room(bytes: number): Gva {
    if (this.#next + BigInt(bytes) > this.#base + 0x3_8000n) this.#next = this.#base;
    const at = this.#next;
    this.#next += BigInt((bytes + 15) & ~15);
    return gva(at);
  }
  /** Puts bytes into its memory. */
  *bytes(data: Uint8Array): Exec<Gva> {
    const at = this.room(data.length);
    yield* this.u.storeBytes(at, data);
    return at;
  }
  /** Puts a string into its memory. */
  text(value: string): Exec<Gva> {
    return this.bytes(encoder.encode(`${value}\0`));
  }
  /** A system call: its value, or the negated error number. Strings and bytes are put into memory first. */
  *sys(number: number, ...args: readonly (number | bigint | string | Uint8Array)[]): Exec<number> {
    const words: (number | bigint)[] = [];
    for (const arg of args) {
      if (typeof arg === "string") words.push(yield* this.text(arg));
      else if (arg instanceof Uint8Array) words.push(yield* this.bytes(arg));
      else words.push(arg);
    }
    // The seventh argument stands behind the return address.
    if (words.length > 6) yield* this.u.store64(gva(this.u.gpr(4)), BigInt.asUintN(64, BigInt(words[6]!)));
    const { errno, value } = yield* userSyscall(this.u, number, ...words.slice(0, 6));
    return errno !== 0 ? -errno : Number(value);
  }
  /** Reads up to `bytes` bytes from a descriptor. */
  *read(fd: number, bytes: number): Exec<Uint8Array | number> {
    const at = this.room(bytes);
    const n = yield* this.sys(SYS.read, fd, at, bytes);
    return n < 0 ? n : yield* this.u.loadBytes(at, n);
  }
  /** The same as text. */
  *readText(fd: number, bytes: number): Exec<string | number> {
    const data = yield* this.read(fd, bytes);
    return typeof data === "number" ? data : decoder.decode(data);
  }
  /** Writes text to a descriptor. */
  write(fd: number, value: string): Exec<number> {
    const data = encoder.encode(value);
    return this.sys(SYS.write, fd, data, data.length);
  }
  /** Makes a file with some text. */
  *put(path: string, value: string, mode = 0o644): Exec<number> {
    const fd = yield* this.sys(SYS.open, path, 0x601, mode);
    if (fd < 0) return fd;
    const n = yield* this.write(fd, value);
    yield* this.sys(SYS.close, fd);
    return n;
  }
  /** A file's text. */
  *get(path: string): Exec<string | number> {
    const fd = yield* this.sys(SYS.open, path, 0);
    if (fd < 0) return fd;
    let all = "";
    for (;;) {
      const piece = yield* this.readText(fd, 8192);
      if (typeof piece === "number") return piece;
      if (piece === "") break;
      all += piece;
    }
    yield* this.sys(SYS.close, fd);
    return all;
  }
  /** `struct stat` of a path, or the negated error number. */
  *stat(path: string, call: number = SYS.stat): Exec<DataView | number> {
    const at = this.room(128);
    const n = yield* this.sys(call, path, at);
    return n < 0 ? n : new DataView((yield* this.u.loadBytes(at, 128)).buffer);
  }
  /** Names in a directory, or the negated error number. */
  *list(path: string, bytes = 1024): Exec<string[] | number> {
    const fd = yield* this.sys(SYS.open, path, 0);
    if (fd < 0) return fd;
    const names: string[] = [];
    for (;;) {
      const at = this.room(bytes);
      const n = yield* this.sys(SYS.getdirentries, fd, at, bytes, 0);
      if (n < 0) return n;
      if (n === 0) break;
      const data = yield* this.u.loadBytes(at, n);
      const view = new DataView(data.buffer);
      for (let i = 0; i < n;) {
        const length = view.getUint16(i + 8, true);
        names.push(decoder.decode(data.subarray(i + 16, i + 16 + length)));
        i += (16 + length + 1 + 7) & ~7;
      }
    }
    yield* this.sys(SYS.close, fd);
    return names;
  }
}

/** What came of a program. */
export interface Ran {
  readonly kernel: Kernel;
  readonly console: string;
}

/** How a program is run. */
export type ProgramOptions = MachineOptions & {
  readonly kernel?: Partial<KernelOptions>;
  readonly files?: readonly ArchiveEntry[];
  readonly steps?: number;
  /** Further programs, `/NAME` each. */
  readonly programs?: Readonly<Record<string, (user: User) => Exec<number | void>>>;
  /** Bytes typed at the console from the start. */
  readonly input?: string;
  /** Bytes typed as soon as the console has shown a text. */
  readonly inputAfter?: readonly [shown: string, typed: string];
};

/** A regular file of an archive. */
export function archiveFile(path: string, data: string | Uint8Array, mode = 0o644): ArchiveEntry {
  return { path, mode: 0o100000 | mode, data: typeof data === "string" ? encoder.encode(data) : data };
}

/** Steps after which the console is looked at. */
const PIECE_STEPS = 500_000;

/** Runs a program as the kernel's only command; its failed assertions come out of here. */
export function runProgram(options: ProgramOptions, main: (user: User) => Exec<number | void>): Ran {
  const { kernel: kernelOptions, files = [], steps, programs = {}, input, inputAfter, ...machineOptions } =
    options;
  const bytes: number[] = [];
  let failure: unknown;
  let awaited = inputAfter;
  const gate = (body: (user: User) => Exec<number | void>) =>
    function* (u: GateCpu): Exec<number> {
      try {
        return (yield* body(new User(u))) ?? 0;
      } catch (error) {
        failure ??= error;
        return 99;
      }
    };
  const all = { main, ...programs };
  const machine = new Machine({
    memory: 16 << 20,
    gates: true,
    serial: { output: (piece) => bytes.push(...piece) },
    ...machineOptions,
  });
  const scripts = Object.keys(all).map((name) => archiveFile(name, `#!gate ${name}\n`, 0o755));
  const kernel = bootKernel(machine, {
    archives: [cpio([...scripts, ...files])],
    verbose: false,
    commands: [["/main"]],
    ...kernelOptions,
    userGates: Object.fromEntries(Object.entries(all).map(([name, body]) => [name, gate(body)])),
  });
  if (input !== undefined) machine.serialInput(encoder.encode(input));
  let left = steps ?? 100_000_000;
  let stop = machine.run({ steps: Math.min(left, awaited === undefined ? left : PIECE_STEPS) });
  while (stop.reason === "steps" && (left -= PIECE_STEPS) > 0) {
    if (awaited !== undefined && decoder.decode(Uint8Array.from(bytes)).includes(awaited[0])) {
      machine.serialInput(encoder.encode(awaited[1]));
      awaited = undefined;
    }
    stop = machine.run({ steps: PIECE_STEPS });
  }
  const console = decoder.decode(Uint8Array.from(bytes)).replaceAll("\r\n", "\n");
  if (failure !== undefined) throw failure;
  if (stop.reason === "panic") throw stop.error;
  if (stop.reason !== "poweroff") throw new Error(`The machine stopped by ${stop.reason}: ${console}`);
  return { kernel, console };
}
