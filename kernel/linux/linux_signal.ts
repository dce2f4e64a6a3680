/**
 * Linux's signals for DragonFly's and back: numbers, sets, `sa_flags`, `siginfo_t` (`sys/emulation/linux/linux_signal`).
 *
 * Room: `kernel/linux/`; imports DragonFly's signals.
 *
 * Inside the kernel a signal always has DragonFly's number. Both numberings have 1 to 64, and the table is a permutation, so that no set loses
 * a member: Linux's SIGSTKFLT and SIGPWR take the places of SIGEMT and SIGINFO, which Linux does not have (and with them the default
 * action: SIGPWR is ignored, which Linux has end the process). Real-time signals keep their numbers and, unlike Linux's, do not queue.
 *
 * @module
 */
import * as signal from "../proc/signal.ts";

const { NSIG } = signal;

/** Linux numbers 1 … 31 in DragonFly's. */
const NATIVE: readonly number[] = [
  0,
  signal.SIGHUP,
  signal.SIGINT,
  signal.SIGQUIT,
  signal.SIGILL,
  signal.SIGTRAP,
  signal.SIGABRT,
  signal.SIGBUS,
  signal.SIGFPE,
  signal.SIGKILL,
  signal.SIGUSR1,
  signal.SIGSEGV,
  signal.SIGUSR2,
  signal.SIGPIPE,
  signal.SIGALRM,
  signal.SIGTERM,
  signal.SIGEMT,
  signal.SIGCHLD,
  signal.SIGCONT,
  signal.SIGSTOP,
  signal.SIGTSTP,
  signal.SIGTTIN,
  signal.SIGTTOU,
  signal.SIGURG,
  signal.SIGXCPU,
  signal.SIGXFSZ,
  signal.SIGVTALRM,
  signal.SIGPROF,
  signal.SIGWINCH,
  signal.SIGIO,
  signal.SIGINFO,
  signal.SIGSYS,
];
const LINUX: readonly number[] = NATIVE.map((_, sig) => NATIVE.indexOf(sig));

/** DragonFly's number of a Linux signal; what is not one stays as it is, for EINVAL. */
export function nativeSignal(sig: number): number {
  return NATIVE[sig] ?? sig;
}
/** Linux's number of a signal of DragonFly. */
export function linuxSignal(sig: number): number {
  return LINUX[sig] ?? sig;
}

/** The members above 31 are the same in both. */
const HIGH = ~0x7fff_ffffn & signal.SIG_ALL;

function translateSet(set: bigint, table: readonly number[]): bigint {
  let out = set & HIGH;
  for (let sig = 1, rest = set & 0x7fff_ffffn; rest !== 0n; sig++, rest >>= 1n) {
    if (rest & 1n) out |= signal.sigmask(table[sig]!);
  }
  return out;
}

/** A `sigset_t` of Linux (bit n − 1 for signal n) as DragonFly's. */
export function nativeSigset(set: bigint): signal.Sigset {
  return translateSet(set, NATIVE);
}
/** A set as Linux's `sigset_t`. */
export function linuxSigset(set: signal.Sigset): bigint {
  return translateSet(set, LINUX);
}

/** `sa_flags`: {@link signal.Sigaction.restorer} counts. */
export const LINUX_SA_RESTORER = 0x0400_0000;

const SA_FLAGS: readonly (readonly [linux: number, native: number])[] = [
  [0x0000_0001, signal.SA_NOCLDSTOP],
  [0x0000_0002, signal.SA_NOCLDWAIT],
  [0x0000_0004, signal.SA_SIGINFO],
  [0x0800_0000, signal.SA_ONSTACK],
  [0x1000_0000, signal.SA_RESTART],
  [0x4000_0000, signal.SA_NODEFER],
  [0x8000_0000, signal.SA_RESETHAND],
];

/** `sa_flags` of Linux as DragonFly's; unknown ones are dropped, as Linux does. */
export function nativeSaFlags(flags: number): number {
  return SA_FLAGS.reduce((sum, [linux, native]) => flags & linux ? sum | native : sum, 0);
}
/** `sa_flags` as Linux's. */
export function linuxSaFlags(flags: number): number {
  return SA_FLAGS.reduce((sum, [linux, native]) => flags & native ? (sum | linux) >>> 0 : sum, 0);
}

/** Bytes of Linux's `siginfo_t`. */
export const LINUX_SIGINFO_BYTES = 128;
/** `si_code` of a signal that the kernel sends. */
export const SI_KERNEL = 0x80;
/** `si_code` of a signal that tgkill sends. */
export const SI_TKILL: number = -6;

/** `si_code`s that have other numbers: integer overflow and division changed places. */
function linuxCode({ siSigno, siCode }: signal.Siginfo): number {
  if (siSigno !== signal.SIGFPE) return siCode;
  return siCode === signal.FPE_INTOVF ? 2 : siCode === signal.FPE_INTDIV ? 1 : siCode;
}

const FAULTS: ReadonlySet<number> = new Set([
  signal.SIGILL,
  signal.SIGTRAP,
  signal.SIGBUS,
  signal.SIGFPE,
  signal.SIGSEGV,
]);

/** A `siginfo_t` of Linux: the union behind the three words depends on the signal. */
export function encodeLinuxSiginfo(info: signal.Siginfo): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(LINUX_SIGINFO_BYTES), view = new DataView(bytes.buffer);
  view.setInt32(0, linuxSignal(info.siSigno), true);
  view.setInt32(8, linuxCode(info), true);
  if (FAULTS.has(info.siSigno) && info.siCode > 0) {
    if (info.siCode !== SI_KERNEL) view.setBigUint64(16, BigInt.asUintN(64, info.siAddr), true);
    return bytes;
  }
  view.setInt32(16, info.siPid, true);
  view.setUint32(20, info.siUid, true);
  if (info.siSigno === signal.SIGCHLD) {
    const killed = info.siCode !== signal.CLD_EXITED && info.siCode > 0;
    view.setInt32(24, killed ? linuxSignal(info.siStatus) : info.siStatus, true);
  }
  return bytes;
}

/**
 * Signal and code of an exception where Linux (`arch/x86/kernel/traps.c`) has others than DragonFly; undefined: the same.
 *
 * @param vector The exception's vector.
 */
export function linuxTrapSignal(vector: number): readonly [sig: number, code: number] | undefined {
  switch (vector) {
    case 3:
      return [signal.SIGTRAP, SI_KERNEL];
    case 4:
    case 5:
    case 13:
      return [signal.SIGSEGV, SI_KERNEL];
    case 11:
    case 12:
      return [signal.SIGBUS, SI_KERNEL];
    default:
      return undefined;
  }
}

/** A wait4 status as Linux has it: signals by Linux's numbers, and "continued" by itself. */
export function linuxWaitStatus(status: number): number {
  const low = status & 0x7f;
  if (low === 0x7f) return linuxSignal(status >> 8) << 8 | 0x7f;
  // DragonFly's WIFCONTINUED is the bare number of SIGCONT, which ends nobody.
  if (status === signal.SIGCONT) return 0xffff;
  return low === 0 ? status : (status & ~0x7f) | linuxSignal(low);
}

/** Signals that a set can have. */
export const LINUX_NSIG: number = NSIG;
