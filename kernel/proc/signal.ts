/**
 * Signal numbers, sets and actions (`sys/sys/signal.h`, `signalvar.h`).
 *
 * Room: leaf of `kernel/proc/`; imports nothing.
 *
 * A set is a bigint of 64 bits: bit n − 1 for signal n. In user memory it is `sigset_t`: four 32-bit words, of which the last two
 * are zero.
 *
 * @module
 */

/** The terminal is gone. */
export const SIGHUP = 1;
/** Interrupt: ^C. */
export const SIGINT = 2;
/** Quit: ^\. */
export const SIGQUIT = 3;
/** Illegal instruction. */
export const SIGILL = 4;
/** Breakpoint or single step. */
export const SIGTRAP = 5;
/** abort(). */
export const SIGABRT = 6;
/** Emulated instruction. */
export const SIGEMT = 7;
/** Arithmetic. */
export const SIGFPE = 8;
/** The end; cannot be caught or ignored. */
export const SIGKILL = 9;
/** Memory that is mapped and cannot be had. */
export const SIGBUS = 10;
/** Memory that is not mapped, or not so. */
export const SIGSEGV = 11;
/** Bad system call. */
export const SIGSYS = 12;
/** Write to a pipe that nobody reads. */
export const SIGPIPE = 13;
/** The real timer. */
export const SIGALRM = 14;
/** Please end. */
export const SIGTERM = 15;
/** Urgent data on a socket. */
export const SIGURG = 16;
/** Stop; cannot be caught or ignored. */
export const SIGSTOP = 17;
/** Stop from the terminal: ^Z. */
export const SIGTSTP = 18;
/** Go on. */
export const SIGCONT = 19;
/** A child stopped or ended. */
export const SIGCHLD = 20;
/** Background read from the terminal. */
export const SIGTTIN = 21;
/** Background write to the terminal. */
export const SIGTTOU = 22;
/** A descriptor is ready. */
export const SIGIO = 23;
/** Time limit. */
export const SIGXCPU = 24;
/** File size limit. */
export const SIGXFSZ = 25;
/** The virtual timer. */
export const SIGVTALRM = 26;
/** The profiling timer. */
export const SIGPROF = 27;
/** The window has another size. */
export const SIGWINCH = 28;
/** Status request: ^T. */
export const SIGINFO = 29;
/** For programs. */
export const SIGUSR1 = 30;
/** For programs. */
export const SIGUSR2 = 31;
/** Thread library. */
export const SIGTHR = 32;
/** Checkpoint. */
export const SIGCKPT = 33;
/** Checkpoint and end. */
export const SIGCKPTEXIT = 34;
/** One more than the highest number (`NSIG`, `_SIG_MAXSIG`). */
export const NSIG = 64;

/** Names without "SIG", by number. */
export const SIGNAL_NAMES: readonly string[] = (
  "? HUP INT QUIT ILL TRAP ABRT EMT FPE KILL BUS SEGV SYS PIPE ALRM TERM URG STOP TSTP CONT CHLD TTIN TTOU IO XCPU XFSZ " +
  "VTALRM PROF WINCH INFO USR1 USR2 THR CKPT CKPTEXIT"
).split(" ");

/** Texts of `sys_siglist` for the common ends, as a shell or the kernel says them. */
export function signalName(sig: number): string {
  return `SIG${SIGNAL_NAMES[sig] ?? sig}`;
}

/** A set of signals. */
export type Sigset = bigint;

/** The set with one signal. */
export function sigmask(sig: number): Sigset {
  return 1n << BigInt(sig - 1);
}
/** Whether `sig` is in the set. */
export function sigismember(set: Sigset, sig: number): boolean {
  return (set & sigmask(sig)) !== 0n;
}
/** A set of some. */
export function sigsetOf(...signals: readonly number[]): Sigset {
  return signals.reduce((set, sig) => set | sigmask(sig), 0n);
}

/** Every signal. */
export const SIG_ALL: Sigset = (1n << BigInt(NSIG)) - 1n;
/** Signals that nobody may block, ignore or catch (`sigcantmask`). */
export const SIG_CANTMASK: Sigset = sigsetOf(SIGKILL, SIGSTOP);
/** `stopsigmask`. */
export const SIG_STOPSIGS: Sigset = sigsetOf(SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU);
/** `contsigmask`. */
export const SIG_CONTSIGS: Sigset = sigsetOf(SIGCONT);

/** Handler address: the default happens. */
export const SIG_DFL = 0n;
/** Nothing happens. */
export const SIG_IGN = 1n;

/** `sa_flags`: run on the alternate stack. */
export const SA_ONSTACK = 0x0001;
/** System calls go on after the handler. */
export const SA_RESTART = 0x0002;
/** The action is the default one from the first delivery on. */
export const SA_RESETHAND = 0x0004;
/** No SIGCHLD when children stop. */
export const SA_NOCLDSTOP = 0x0008;
/** The signal itself is not blocked while its handler runs. */
export const SA_NODEFER = 0x0010;
/** Children leave no zombies. */
export const SA_NOCLDWAIT = 0x0020;
/** The handler takes a siginfo and a context. */
export const SA_SIGINFO = 0x0040;

/** `how` of sigprocmask: add to the mask. */
export const SIG_BLOCK = 1;
/** Take away from the mask. */
export const SIG_UNBLOCK = 2;
/** Replace the mask. */
export const SIG_SETMASK = 3;

/** `ss_flags` of sigaltstack: it runs there now. */
export const SS_ONSTACK = 1;
/** No alternate stack. */
export const SS_DISABLE = 4;
/** Smallest alternate stack: a signal frame with its FPU state fits. */
export const MINSIGSTKSZ = 2048;

/** `si_code`: illegal opcode. */
export const ILL_ILLOPC = 1;
/** Privileged instruction. */
export const ILL_PRVOPC = 5;
/** Integer overflow. */
export const FPE_INTOVF = 1;
/** Integer division by zero. */
export const FPE_INTDIV = 2;
/** Division by zero. */
export const FPE_FLTDIV = 3;
/** Overflow. */
export const FPE_FLTOVF = 4;
/** Underflow. */
export const FPE_FLTUND = 5;
/** Inexact. */
export const FPE_FLTRES = 6;
/** Invalid operation. */
export const FPE_FLTINV = 7;
/** Subscript out of range. */
export const FPE_FLTSUB = 8;
/** Nothing is mapped. */
export const SEGV_MAPERR = 1;
/** The mapping does not allow it. */
export const SEGV_ACCERR = 2;
/** Misaligned. */
export const BUS_ADRALN = 1;
/** No such memory. */
export const BUS_ADRERR = 2;
/** The object failed. */
export const BUS_OBJERR = 3;
/** Breakpoint. */
export const TRAP_BRKPT = 1;
/** Single step. */
export const TRAP_TRACE = 2;
/** The child exited. */
export const CLD_EXITED = 1;
/** A signal ended it. */
export const CLD_KILLED = 2;
/** The same, with a core file. */
export const CLD_DUMPED = 3;
/** It is traced. */
export const CLD_TRAPPED = 4;
/** It stopped. */
export const CLD_STOPPED = 5;
/** It goes on. */
export const CLD_CONTINUED = 6;
/** Sent by kill. */
export const SI_USER = 0;
/** Sent by sigqueue. */
export const SI_QUEUE = -1;
/** A timer. */
export const SI_TIMER = -2;

/** What a signal does when its action is SIG_DFL (`sigproptbl` of kern_sig.c): ends the process. */
export const SA_KILL = 0x01;
/** Ends with a core file. */
export const SA_CORE = 0x02;
/** Stops. */
export const SA_STOP = 0x04;
/** Stops, from the terminal. */
export const SA_TTYSTOP = 0x08;
/** Nothing. */
export const SA_IGNORE = 0x10;
/** Continues. */
export const SA_CONT = 0x20;
/** Cannot be blocked. */
export const SA_CANTMASK = 0x40;

const properties = new Uint8Array(NSIG + 1).fill(SA_KILL);
for (const sig of [SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGEMT, SIGFPE, SIGBUS, SIGSEGV, SIGSYS]) {
  properties[sig] = SA_KILL | SA_CORE;
}
for (const sig of [SIGURG, SIGCHLD, SIGIO, SIGWINCH, SIGINFO, SIGTHR]) properties[sig] = SA_IGNORE;
for (const sig of [SIGTSTP, SIGTTIN, SIGTTOU]) properties[sig] = SA_STOP | SA_TTYSTOP;
properties[SIGSTOP] = SA_STOP;
properties[SIGCONT] = SA_IGNORE | SA_CONT;

/** `sigprop`: what the signal does by default. */
export function sigprop(sig: number): number {
  return properties[sig] ?? 0;
}

/** One signal's action. */
export interface Sigaction {
  /** SIG_DFL, SIG_IGN or the handler's address. */
  readonly handler: bigint;
  /** Signals blocked while the handler runs. */
  readonly mask: Sigset;
  readonly flags: number;
  /** Where the handler returns to, for personalities that say so (Linux `sa_restorer`). */
  readonly restorer?: bigint;
}

const DEFAULT_ACTION: Sigaction = { handler: SIG_DFL, mask: 0n, flags: 0 };

/** The actions of a process (`struct sigacts`). Shared between processes by rfork(RFSIGSHARE): then {@link psRefcnt} > 1. */
export class Sigacts {
  /** By signal number. */
  readonly psAction: Sigaction[];
  /** Signals whose action is to ignore them, explicitly or by default (`p_sigignore`). */
  pSigignore: Sigset = 0n;
  /** Signals that have a handler (`p_sigcatch`). */
  pSigcatch: Sigset = 0n;
  /** `PS_NOCLDWAIT`: children become no zombies. */
  psNocldwait = false;
  /** `PS_NOCLDSTOP`: no SIGCHLD when children stop. */
  psNocldstop = false;
  /** Processes that use it. */
  psRefcnt = 1;

  constructor(from?: Sigacts) {
    this.psAction = from === undefined
      ? Array.from({ length: NSIG + 1 }, () => DEFAULT_ACTION)
      : [...from.psAction];
    if (from !== undefined) {
      this.pSigignore = from.pSigignore;
      this.pSigcatch = from.pSigcatch;
      this.psNocldwait = from.psNocldwait;
      this.psNocldstop = from.psNocldstop;
    } else for (let sig = 1; sig <= NSIG; sig++) this.#resetIgnore(sig);
  }

  /** Signals that are ignored by default count as ignored, except SIGCONT (as `siginit`). */
  #resetIgnore(sig: number): void {
    if ((sigprop(sig) & SA_IGNORE) !== 0 && sig !== SIGCONT) this.pSigignore |= sigmask(sig);
    else this.pSigignore &= ~sigmask(sig);
  }

  /** Sets one action and keeps the two sets in step with it. */
  set(sig: number, action: Sigaction): void {
    this.psAction[sig] = action;
    const bit = sigmask(sig);
    this.pSigcatch &= ~bit;
    if (action.handler === SIG_DFL) this.#resetIgnore(sig);
    else if (action.handler === SIG_IGN) this.pSigignore |= bit;
    else {
      this.pSigignore &= ~bit;
      this.pSigcatch |= bit;
    }
  }

  /** exec: caught signals go back to the default, ignored ones stay ignored (`execsigs`). */
  execsigs(): void {
    for (let sig = 1; sig <= NSIG; sig++) if (sigismember(this.pSigcatch, sig)) this.set(sig, DEFAULT_ACTION);
    this.psNocldstop = false;
    this.psNocldwait = false;
  }
}

/** What a handler is told of a signal (`siginfo_t`), as much as the kernel knows. */
export interface Siginfo {
  readonly siSigno: number;
  readonly siCode: number;
  /** Faulting address, or 0. */
  readonly siAddr: bigint;
  /** Sender, or child. */
  readonly siPid: number;
  readonly siUid: number;
  /** Child's exit status or signal. */
  readonly siStatus: number;
  /** Trap number of a fault (`si_trapno`), else 0. */
  readonly siTrapno: number;
}

/** A siginfo with zeros where nothing is given. */
export function siginfo(siSigno: number, more: Partial<Siginfo> = {}): Siginfo {
  return { siSigno, siCode: 0, siAddr: 0n, siPid: 0, siUid: 0, siStatus: 0, siTrapno: 0, ...more };
}

/** A signal on its way to its handler. */
export interface SigDelivery {
  readonly sig: number;
  readonly info: Siginfo;
  /** Mask that sigreturn puts back. */
  readonly returnmask: Sigset;
  readonly action: Sigaction;
}
