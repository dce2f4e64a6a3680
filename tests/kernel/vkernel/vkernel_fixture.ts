/**
 * Vkernels of a few lines: TypeScript programs at ring 3 that make address spaces, build software page tables by hand in a file, and run small
 * machine code in them, one host call after the other.
 *
 * @module
 */
import { type Gva, gva } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import { Assembler } from "../../../kernel/platform/pc64/assembler.ts";
import {
  decodeTrapframe,
  encodeTrapframe,
  TF_BYTES,
  type Trapframe,
} from "../../../kernel/platform/pc64/frame.ts";
import { VM_MAX_USER_ADDRESS } from "../../../kernel/platform/pc64/vmparam.ts";
import { USER_GATE_PAGE, userSyscall } from "../../../kernel/proc/user_gate.ts";
import type { Booted, BootOptions } from "../kernel_fixture.ts";
import { call, type GateProgram, runGates, text } from "../proc/gate_program.ts";

/** System calls that these programs make. */
export const SYS = {
  exit: 1,
  fork: 2,
  write: 4,
  open: 5,
  close: 6,
  wait4: 7,
  unlink: 10,
  getpid: 20,
  kill: 37,
  execve: 59,
  munmap: 73,
  mprotect: 74,
  setitimer: 83,
  mmap: 197,
  ftruncate: 201,
  sysctl: 202,
  mlock: 203,
  nanosleep: 240,
  sigprocmask: 340,
  rfork: 251,
  sigaction: 342,
  umtxSleep: 469,
  umtxWakeup: 470,
  mcontrol: 485,
  create: 486,
  destroy: 487,
  ctl: 488,
  vmmap: 489,
  vmunmap: 490,
  vmcontrol: 491,
  vmpread: 492,
  vmpwrite: 493,
  extexit: 494,
  lwpCreate: 495,
  lwpKill: 497,
} as const;

/** mmap's and mcontrol's words. */
export const PROT_RWX = 7, SHARED = 1, PRIVATE = 2, FIXED = 0x10, ANON = 0x1000, VPAGETABLE = 0x2000;
/** Advice. */
export const MADV_INVAL = 10, MADV_SETMAP = 11;
/** Bits of an entry. */
export const V = 1n, RW = 2n, U = 4n, A = 0x20n, M = 0x40n, PS = 0x80n, NX = 1n << 63n;
/** An entry that allows everything. */
export const VRWU: bigint = V | RW | U;
/** Where the vkernel has its memory, byte by byte. */
export const DMAP = 0x200_0000_0000n;
/** A page for frames, in the vkernel's own anonymous memory. */
export const SCRATCH = 0x3000_0000n;
/** vmspace_ctl's command. */
export const RUN = 1;

/** Stacks of threads. */
const STACKS = 0x3100_0000n;
const PAGE = 4096n, RDI = 7;

/** A frame for guest code: where it begins, and what registers it has. */
export function guestFrame(fields: Partial<Trapframe>): Uint8Array<ArrayBuffer> {
  return encodeTrapframe({ rflags: 0x202n, ...fields });
}

/** Machine code for a guest, as if it stood at `at`. */
export function guestCode(at: bigint, build: (a: Assembler) => void): Uint8Array<ArrayBuffer> {
  const a = new Assembler(Number(at), at);
  build(a);
  return a.finish();
}

/** A vkernel that has its memory: a file, mapped at {@link DMAP}. */
export class Vkernel {
  readonly u: GateCpu;
  readonly fd: number;
  /** What its threads run. */
  readonly threads: ((vk: Vkernel) => Exec<void>)[] = [];
  /** Next frame of its memory that is free; the first thread's counts. */
  #next = 0n;
  readonly #first: Vkernel;

  constructor(u: GateCpu, fd: number, first?: Vkernel) {
    this.u = u;
    this.fd = fd;
    this.#first = first ?? this;
  }

  /** Opens and maps so many pages of memory. */
  static *start(u: GateCpu, pages = 256): Exec<Vkernel> {
    const stack = gva((u.gpr(4) & ~0xfffn) - 0x4000n);
    const fd = yield* call(u, SYS.open, yield* text(u, stack, "/memimg"), 0x602, 0o600);
    const vk = new Vkernel(u, fd);
    yield* vk.ok(SYS.ftruncate, fd, 0, pages * 4096);
    // Gone with the program.
    yield* vk.ok(SYS.unlink, stack);
    yield* vk.ok(SYS.mmap, DMAP, pages * 4096, 3, SHARED | FIXED, fd, 0, 0);
    yield* vk.ok(SYS.mmap, SCRATCH, 0x4000, PROT_RWX, PRIVATE | ANON | FIXED, -1, 0, 0);
    return vk;
  }

  /** A host call: its value, or minus the error number. */
  sys(number: number, ...args: readonly (bigint | number)[]): Exec<number> {
    return call(this.u, number, ...args);
  }
  /** A host call that must work. */
  *ok(number: number, ...args: readonly (bigint | number)[]): Exec<bigint> {
    const { errno, value } = yield* userSyscall(this.u, number, ...args);
    if (errno !== 0) throw new Error(`system call ${number} gives error ${errno}`);
    return value;
  }

  /** Starts a thread; gives its number. */
  *thread(body: (vk: Vkernel) => Exec<void>): Exec<number> {
    const number = this.threads.push(body) - 1;
    const stack = STACKS + BigInt(number) * 0x1_0000n, params = gva(stack + 0x8000n);
    yield* this.ok(SYS.mmap, stack, 0x1_0000, 3, PRIVATE | ANON | FIXED, -1, 0, 0);
    const words = [USER_GATE_PAGE, BigInt(number), stack + 0x8000n, params + 40n, params + 44n];
    for (const [i, word] of words.entries()) yield* this.u.store64(gva(params + BigInt(8 * i)), word);
    yield* this.ok(SYS.lwpCreate, params);
    return yield* this.u.load32(gva(params + 40n));
  }
  /** Waits until something holds, letting others run. */
  *until(holds: () => boolean): Exec<void> {
    while (!holds()) yield* this.sys(SYS.umtxSleep, SCRATCH + 0x3ff0n, 0, 1000);
  }
  /** Has a signal handled by code that counts its calls in a word. @returns Address of the word. */
  *handler(sig: number, flags = 0): Exec<Gva> {
    const count = gva(SCRATCH + 0x2800n + BigInt(sig) * 8n), action = SCRATCH + 0x2000n;
    const code = SCRATCH + 0x2100n + BigInt(sig) * 32n;
    yield* this.u.storeBytes(
      gva(code),
      guestCode(code, (a) => a.movImmediate("rax", count).db(0x48, 0xff, 0x00).ret()),
    );
    yield* this.u.storeBytes(gva(action), new Uint8Array(32));
    yield* this.u.store64(gva(action), code);
    yield* this.u.store64(gva(action + 8n), BigInt(flags));
    yield* this.ok(SYS.sigaction, sig, action, 0);
    return count;
  }

  /** A page that nobody has looked at yet: its physical address. */
  take(): bigint {
    const pa = this.#first.#next;
    this.#first.#next += PAGE;
    return pa;
  }
  /** A page of zeros: its physical address. */
  *page(): Exec<bigint> {
    const pa = this.take();
    yield* this.u.zeroBytes(this.at(pa), 4096);
    return pa;
  }
  /** The vkernel's address of a physical one. */
  at(pa: bigint): Gva {
    return gva(DMAP + pa);
  }
  /** Address of the entry for `va` in the tables under `root`, of a level (0: the page's own); tables in between are made, with `bits`. */
  *entry(root: bigint, va: bigint, level = 0, bits = VRWU): Exec<Gva> {
    let table = root;
    for (let at = 3;; at--) {
      const slot = this.at(table + ((va >> BigInt(12 + 9 * at)) & 511n) * 8n);
      if (at === level) return slot;
      let pte = yield* this.u.load64(slot);
      if ((pte & V) === 0n) {
        pte = (yield* this.page()) | bits;
        yield* this.u.store64(slot, pte);
      }
      table = pte & 0x000f_ffff_ffff_f000n;
    }
  }
  /** Maps a page of its memory into the tables under `root`. */
  *map(root: bigint, va: bigint, pa: bigint, bits = VRWU): Exec<Gva> {
    const slot = yield* this.entry(root, va);
    yield* this.u.store64(slot, pa | bits);
    return slot;
  }
  /** An address space for guests, with tables of its own: its id is their physical address. */
  *space(): Exec<bigint> {
    const root = yield* this.page();
    yield* this.ok(SYS.create, root, 0, 0);
    yield* this.attach(root, root);
    return root;
  }
  /** Maps the memory into a space, as tables under `root` say. */
  *attach(id: bigint, root: bigint): Exec<void> {
    const flags = SHARED | FIXED | VPAGETABLE;
    yield* this.ok(SYS.vmmap, id, 0, VM_MAX_USER_ADDRESS, PROT_RWX, flags, this.fd, 0);
    yield* this.ok(SYS.vmcontrol, id, 0, VM_MAX_USER_ADDRESS, MADV_SETMAP, root | VRWU);
  }
  /** Puts machine code into a fresh page that a space has at `va`. */
  *code(root: bigint, va: bigint, build: (a: Assembler) => void): Exec<bigint> {
    const pa = yield* this.page();
    yield* this.u.storeBytes(this.at(pa), guestCode(va, build));
    yield* this.map(root, va, pa);
    return pa;
  }
  /** Writes a frame and segment bases at `at`. */
  *setFrame(frame: Uint8Array, at = SCRATCH, bases: readonly [bigint, bigint] = [0n, 0n]): Exec<void> {
    yield* this.u.storeBytes(gva(at), frame);
    yield* this.u.store64(gva(at + 0x100n), bases[0]);
    yield* this.u.store64(gva(at + 0x108n), bases[1]);
  }
  /** Runs what {@link setFrame} left; the call's answer. */
  run(id: bigint, at = SCRATCH): Exec<number> {
    return this.sys(SYS.ctl, id, RUN, at, at + 0x100n);
  }
  /** The frame after a run. */
  *frame(at = SCRATCH): Exec<Trapframe> {
    return decodeTrapframe(yield* this.u.loadBytes(gva(at), TF_BYTES));
  }
  /** Runs until something else than a page that is absent in the host comes up: sets a frame, runs, gives the frame. */
  *go(id: bigint, fields: Partial<Trapframe>): Exec<Trapframe> {
    yield* this.setFrame(guestFrame(fields));
    const answer = yield* this.run(id);
    if (answer !== 0) throw new Error(`vmspace_ctl gives ${answer}`);
    return yield* this.frame();
  }
}

/** Threads of a vkernel start where the program does, with a small number where the first one has the address of its arguments. */
const THREADS_MAX = 64n;
/** extexit: the thread alone. */
const EXTEXIT_LWP = 1 << 16;

/** Runs a vkernel on a kernel that allows them. Its threads (see {@link Vkernel.thread}) run `threads`. */
export function runVkernel(
  body: (vk: Vkernel) => Exec<number | void>,
  options: BootOptions = {},
  others: Readonly<Record<string, GateProgram>> = {},
): Booted {
  let first: Vkernel | undefined;
  let failure: unknown;
  const program = function* (u: GateCpu): Exec<number> {
    try {
      return yield* main(u);
    } catch (error) {
      failure ??= error;
      throw error;
    }
  };
  const main = function* (u: GateCpu): Exec<number> {
    const number = u.gpr(RDI);
    if (first !== undefined && number < THREADS_MAX) {
      const vk = new Vkernel(u, first.fd, first);
      yield* first.threads[Number(number)]!(vk);
      yield* call(u, SYS.extexit, EXTEXIT_LWP, 0, 0);
      throw new Error("A thread outlived its exit");
    }
    first = yield* Vkernel.start(u);
    return (yield* body(first)) ?? 0;
  };
  const booted = runGates({ vk: program, ...others }, {
    memory: 24 << 20,
    ...options,
    prepare(machine, kernel) {
      kernel.vmMap.vkernelEnable = true;
      options.prepare?.(machine, kernel);
    },
  });
  // What went wrong in a program is the test's failure, whatever the kernel makes of it.
  if (failure !== undefined) throw failure;
  return booted;
}
