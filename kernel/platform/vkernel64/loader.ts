/**
 * What the start of every kind of vkernel needs of the host (`sys/platform/vkernel64/platform/init.c`): memory, archives, clock, signals, console.
 *
 * Room: `kernel/platform/vkernel64/`; imports the host's calls.
 *
 * @module
 */
import { gva } from "../../../hw/address.ts";
import { type Exec, type GateCpu, KernelPanic } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import { panicText } from "../../kern/kern_shutdown.ts";
import type { Kernel, KernelOptions } from "../../kernel.ts";
import { hz } from "../../lwkt/callout.ts";
import type { Cothread } from "./cothread.ts";
import { ERRNO } from "../../kern/errno.ts";
import { host, HostError, MAP_ANON, MAP_FIXED, MAP_SHARED, must, PROT_ALL, putString, SYS } from "./host.ts";
import type { VkernelArgs } from "./options.ts";
import { IO_BYTES, IO_VA, VMM_RAM_VA } from "./vmparam.ts";

const PAGE = 0x1000;
const O_RDONLY = 0;
const MAP_PRIVATE = 0x0002;
const CLOCK_REALTIME = 0, ITIMER_REAL = 0;
const SA_SIGINFO = 0x40;
/** Byte that ends the input of a console. */
const CTRL_D = 0x04;
/** Bytes of a tar block. */
const TAR_BLOCK = 512;
/** Where a tar block says what it is. */
const USTAR_AT = 257;
/** Bytes that tell an archive; none is shorter than the cpio of nothing. */
const ARCHIVE_BYTES_MIN = 124;
/** Archives of the kernel below, as devices. */
const ARCHIVE_DEVICES = 8;
/** Exit status of a vkernel that could not start or has panicked. */
export const EX_FAILED = 1;

/** What a vkernel takes over from the kernel that it runs on. */
export type VkernelEnvironment = Pick<KernelOptions, "bugs" | "userGates" | "disassembler" | "vmm" | "guest">;

/** A vkernel as a process of its host. */
export interface HostProcess {
  /** Bytes for the host calls of the processor that runs. */
  io(u: GateCpu): bigint;
  /** Ends the process. */
  exit(u: GateCpu, status: number): Exec<never>;
}

/** Says something on standard error. @param io Bytes for the call. */
export function* complain(u: GateCpu, io: bigint, text: string): Exec<void> {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length; at += IO_BYTES) {
    const piece = bytes.subarray(at, at + IO_BYTES);
    yield* u.storeBytes(gva(io), piece);
    yield* host(u, SYS.write, 2, io, piece.length);
  }
}

/** Anonymous memory at a place of its own. */
export function* mapFixed(u: GateCpu, va: bigint, bytes: number): Exec<void> {
  yield* must(u, "mmap", SYS.mmap, va, bytes, PROT_ALL, MAP_ANON | MAP_PRIVATE | MAP_FIXED, -1, 0, 0);
}

/** The folder of the host's files that belong to vkernels, if it is not there. */
export function* makeDirectory(u: GateCpu): Exec<void> {
  for (const directory of ["/var", "/var/vkernel"]) {
    yield* host(u, SYS.mkdir, yield* putString(u, IO_VA, directory), 0o700);
  }
}

/** RAM as memory of the process, at {@link VMM_RAM_VA}. */
export function* anonymousRam(u: GateCpu, bytes: number): Exec<void> {
  const flags = MAP_ANON | MAP_SHARED | MAP_FIXED;
  yield* must(u, "mmap of RAM", SYS.mmap, VMM_RAM_VA, bytes, PROT_ALL, flags, -1, 0, 0);
}

/**
 * Reads the archives of the root file system to the start of RAM; gives the first free address behind them.
 *
 * @param from Physical addresses, as `end`.
 * @param memory Address in the process of physical address 0.
 */
export function* loadArchives(
  k: Kernel,
  u: GateCpu,
  from: number,
  end: number,
  args: VkernelArgs,
  memory: bigint,
): Exec<number> {
  let at = from;
  const own = args.roots.length === 0;
  const paths = own ? Array.from({ length: ARCHIVE_DEVICES }, (_, i) => `/dev/md${i}`) : args.roots;
  for (const path of paths) {
    const opened = yield* host(u, SYS.open, yield* putString(u, IO_VA, path), O_RDONLY, 0);
    if (opened.errno !== 0) {
      if (own && at > from) break;
      throw new HostError(path, opened.errno);
    }
    const start = at;
    for (;;) {
      const room = Math.min(end - at, 1 << 20);
      if (room === 0) throw new HostError(`${path} does not fit in ${args.memory >>> 20} MiB`, 12);
      const to = memory + BigInt(at);
      const n = Number(yield* must(u, path, SYS.read, opened.value, to, room));
      if (n === 0) break;
      at += n;
    }
    yield* host(u, SYS.close, opened.value);
    if (!(yield* isArchive(u, memory + BigInt(start), at - start))) {
      throw new HostError(`${path} is neither a cpio (newc) nor a tar archive`, ERRNO.ENOEXEC);
    }
    k.rootArchives.push({ start, end: at });
    at = Math.ceil(at / PAGE) * PAGE;
  }
  return at;
}

/** Whether bytes begin as an archive of either kind does. */
function* isArchive(u: GateCpu, at: bigint, bytes: number): Exec<boolean> {
  if (bytes < ARCHIVE_BYTES_MIN) return false;
  const head = new TextDecoder("latin1").decode(yield* u.loadBytes(gva(at), Math.min(bytes, TAR_BLOCK)));
  return /^07070[12]/.test(head) || head.startsWith("ustar", USTAR_AT);
}

/** `hw.tsc_frequency` of the host. */
export function* tscFrequency(u: GateCpu): Exec<number> {
  const name = new TextEncoder().encode("hw.tsc_frequency");
  const mib = IO_VA, length = IO_VA + 64n, out = IO_VA + 128n, text = IO_VA + 256n;
  yield* u.storeBytes(gva(mib), new Uint8Array(new Uint32Array([0, 3]).buffer));
  yield* u.store64(gva(length), 64n);
  yield* u.storeBytes(gva(text), name);
  yield* must(u, "sysctl name2oid", SYS.__sysctl, mib, 2, out, length, text, name.length);
  const words = Number(yield* u.load64(gva(length))) / 4;
  yield* u.store64(gva(length), 8n);
  yield* must(u, "sysctl hw.tsc_frequency", SYS.__sysctl, out, words, text, length, 0, 0);
  return Number(yield* u.load64(gva(text)));
}

/** Seconds since 1970, from the host. @param io Bytes for the call. */
export function* hostBoottime(u: GateCpu, io: bigint): Exec<number> {
  yield* u.store64(gva(io), 0n);
  yield* must(u, "clock_gettime", SYS.clock_gettime, CLOCK_REALTIME, io);
  return Number(yield* u.load64(gva(io)));
}

/** Has a signal caught. */
export function* sigaction(u: GateCpu, sig: number, handler: bigint, mask: bigint): Exec<void> {
  const bytes = new Uint8Array(28), view = new DataView(bytes.buffer);
  view.setBigUint64(0, handler, true);
  view.setInt32(8, SA_SIGINFO, true);
  view.setBigUint64(12, mask, true);
  yield* u.storeBytes(gva(IO_VA), bytes);
  yield* must(u, "sigaction", SYS.sigaction, sig, IO_VA, 0);
}

/** SIGALRM `hz` times a second. */
export function* startClock(u: GateCpu, io: bigint): Exec<void> {
  const usec = BigInt(1_000_000 / hz);
  yield* u.storeBytes(gva(io), new Uint8Array(new BigUint64Array([0n, usec, 0n, usec]).buffer));
  yield* must(u, "setitimer", SYS.setitimer, ITIMER_REAL, io, 0);
}

/** The cothread of the console: reads standard input; its end is an end of file for whoever reads the console. */
export function* readConsole(u: GateCpu, cothread: Cothread, typed: number[]): Exec<void> {
  for (;;) {
    const { errno, value } = yield* host(u, SYS.read, 0, cothread.io, 512);
    const n = errno === 0 ? Number(value) : 0;
    const bytes = n > 0 ? yield* u.loadBytes(gva(cothread.io), n) : Uint8Array.of(CTRL_D);
    typed.push(...bytes);
    yield* cothread.interrupt(u);
    if (n === 0) { for (;;) yield* host(u, SYS.umtx_sleep, cothread.word, 0, 0); }
  }
}

/** Runs a body; what it throws ends the vkernel with a message, and nothing else. */
export function* guarded<T>(
  cx: Cx,
  platform: HostProcess,
  body: (cx: Cx) => Exec<T>,
): Exec<T> {
  try {
    return yield* body(cx);
  } catch (error) {
    cx.cpu.mayAbort = false;
    const text = error instanceof KernelPanic || error instanceof Error ? error : new Error(String(error));
    yield* complain(cx.cpu, platform.io(cx.cpu), panicText(cx, text));
    return yield* platform.exit(cx.cpu, EX_FAILED);
  }
}
