/**
 * The host's system calls as a vkernel uses them.
 *
 * Room: `kernel/platform/vkernel64/`; imports the call stub of TypeScript programs, DragonFly's constants.
 *
 * Every call is one instruction, SYSCALL in the vkernel's process, VMCALL in a vkernel that is a kernel in ring 0; nothing else reaches the host.
 *
 * @module
 */
import { gva } from "../../../hw/address.ts";
import { type Exec, type GateCpu, NOTHING } from "../../../hw/gates.ts";
import { ERRNO } from "../../kern/errno.ts";
import { syscallThrough, USER_GATE_SYSCALL, type UserSyscallResult } from "../../proc/user_gate.ts";
import { HYPERCALL_VA } from "./vmparam.ts";

/** Numbers of DragonFly's system calls. */
export const SYS = {
  exit: 1,
  read: 3,
  write: 4,
  open: 5,
  close: 6,
  unlink: 10,
  getpid: 20,
  ioctl: 54,
  setitimer: 83,
  mkdir: 136,
  extpread: 173,
  extpwrite: 174,
  fstat: 476,
  mmap: 197,
  ftruncate: 201,
  __sysctl: 202,
  clock_gettime: 232,
  sigprocmask: 340,
  sigaction: 342,
  sched_yield: 331,
  umtx_sleep: 469,
  umtx_wakeup: 470,
  set_tls_area: 472,
  mcontrol: 485,
  vmspace_create: 486,
  vmspace_destroy: 487,
  vmspace_ctl: 488,
  vmspace_mmap: 489,
  vmspace_mcontrol: 491,
  lwp_create: 495,
  lwp_gettid: 496,
  lwp_kill: 497,
  vmm_guest_ctl: 534,
  vmm_guest_sync_addr: 535,
} as const;

/** mmap and mcontrol, as DragonFly numbers them. */
export const PROT_ALL = 7,
  MAP_SHARED = 0x0001,
  MAP_FIXED = 0x0010,
  MAP_ANON = 0x1000,
  MAP_VPAGETABLE = 0x2000,
  MADV_INVAL = 10,
  MADV_SETMAP = 11;
/** Signals that stand for interrupts. */
export const SIGALRM = 14, SIGIO = 23, SIGUSR1 = 30;
/** Interrupt requests. */
export const IRQ_CONSOLE = 4, IRQ_DISK = 11;

/** A host call that had to work did not: the vkernel ends with this message. */
export class HostError extends Error {
  /** For printing. */
  override name = "HostError";
  /** The host's error number. */
  readonly errno: number;

  /** Made by {@link must}. */
  constructor(what: string, errno: number) {
    super(`${what}: ${errorName(errno)}`);
    this.errno = errno;
  }
}

/** `ENOMEM` for 12. */
export function errorName(errno: number): string {
  const found = Object.entries(ERRNO).find(([, value]) => value === errno);
  return found === undefined ? `error ${errno}` : found[0];
}

/** Makes a host call; the answer may be an error. */
export function host(
  u: GateCpu,
  number: number,
  ...args: readonly (bigint | number)[]
): Exec<UserSyscallResult> {
  return syscallThrough(u, u.cpu.cpl === 0 ? HYPERCALL_VA : USER_GATE_SYSCALL, number, args);
}

/**
 * Makes a host call that has to work.
 *
 * @throws {HostError} when it does not.
 */
export function* must(
  u: GateCpu,
  what: string,
  number: number,
  ...args: readonly (bigint | number)[]
): Exec<bigint> {
  const { errno, value } = yield* host(u, number, ...args);
  if (errno !== 0) throw new HostError(what, errno);
  return value;
}

/** Rounds of waiting for another processor after which its thread gets a chance to run. */
const PAUSES = 64;

/**
 * A round of waiting for another virtual processor, which may not run at all just now.
 *
 * @param waiter Counts its rounds.
 */
export function cpuPause(u: GateCpu, waiter: { pauses: number }): Exec<void> {
  return ++waiter.pauses % PAUSES === 0 ? schedYield(u) : NOTHING;
}
function* schedYield(u: GateCpu): Exec<void> {
  yield* host(u, SYS.sched_yield);
}

/** Puts a path at `at` for a call; gives the address. */
export function* putString(u: GateCpu, at: bigint, text: string): Exec<bigint> {
  yield* u.storeBytes(gva(at), new TextEncoder().encode(`${text}\0`));
  return at;
}
