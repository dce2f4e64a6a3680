/**
 * Taking signals (`sys/kern/kern_sig.c`: issignal, postsig, sigexit, trapsignal, tstop).
 *
 * Room: `kernel/proc/`; imports the senders, the exit and sendsig. The system calls are in sig_syscalls.ts.
 *
 *     userret ─ tstop while stopped ─ issignal: which one now? ─ postsig: ends the process, or sendsig builds a frame
 *     tsleep(PCATCH) ─ sigSignalled: EINTR or ERESTART instead of sleeping on
 *     a fault in user mode ─ trapsignal: to the thread that faulted
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { ERRNO } from "../kern/errno.ts";
import { kprintf } from "../kern/subr_prf.ts";
import { ERESTART } from "../kern/sysent.ts";
import { tsleep } from "../lwkt/sleep.ts";
import { vkernelBeforeSignal } from "../vm/vkernel_trap.ts";
import { exit1, lwpExit } from "./kern_exit.ts";
import { isOrphaned, lwpsignal, lwpStopped, procStop, stopIdent } from "./kern_sig_send.ts";
import { type Lwp, LWP_MP_WEXIT, LWP_OLDMASK, P_PPWAIT, type Proc, SSTOP } from "./proc.ts";
import {
  SA_CORE,
  SA_IGNORE,
  SA_NODEFER,
  SA_RESETHAND,
  SA_RESTART,
  SA_STOP,
  SA_TTYSTOP,
  SIG_CANTMASK,
  SIG_DFL,
  SIG_IGN,
  SIG_STOPSIGS,
  SIGILL,
  type Siginfo,
  siginfo,
  sigismember,
  SIGKILL,
  sigmask,
  sigprop,
  type Sigset,
} from "./signal.ts";

/** Signals that wait for a thread and that it does not block. */
function pending(lp: Lwp): Sigset {
  const { lwpProc: p } = lp;
  const set = (p.pSiglist | lp.lwpSiglist) & ~lp.lwpSigmask;
  return p.pFlags & P_PPWAIT ? set & ~SIG_STOPSIGS : set;
}

/** Whether there may be something for `procUserret` to do. */
export function sigPending(lp: Lwp): boolean {
  const { lwpProc: p } = lp;
  return lp.lwpMpflags & LWP_MP_WEXIT || p.pStat === SSTOP ? true : pending(lp) !== 0n;
}

/** Lowest signal of a set that is not empty; SIGKILL before all others. */
function firstSignal(set: Sigset): number {
  if (sigismember(set, SIGKILL)) return SIGKILL;
  let sig = 1;
  for (let rest = set; (rest & 1n) === 0n; rest >>= 1n) sig++;
  return sig;
}

/**
 * The signal that the current thread must act on now, or 0 (`CURSIG`, `issignal`). It stays pending: {@link postsig} takes it. Those
 * that do nothing are dropped on the way; one that stops the process by default does so, and the thread stops when it next
 * reaches {@link tstop}.
 */
export function issignal(cx: Cx, lp: Lwp): number {
  const { lwpProc: p } = lp;
  if (lp.lwpMpflags & LWP_MP_WEXIT) return SIGKILL;
  for (;;) {
    const set = pending(lp);
    if (set === 0n) return 0;
    const sig = firstSignal(set), prop = sigprop(sig);
    const { handler } = p.pSigacts.psAction[sig]!;
    if (handler !== SIG_DFL && handler !== SIG_IGN) return sig;
    if (handler === SIG_IGN || prop & SA_IGNORE || p.pPid <= 1) {
      takeSignal(lp, sig);
      continue;
    }
    if ((prop & SA_STOP) === 0) return sig;
    takeSignal(lp, sig);
    if (prop & SA_TTYSTOP && isOrphaned(p.pPgrp)) continue;
    p.pXstat = sig;
    procStop(cx, p);
    return 0;
  }
}

/** Removes a pending signal; gives what is known of it. */
export function takeSignal(lp: Lwp, sig: number): Siginfo {
  const { lwpProc: p } = lp;
  const own = sigismember(lp.lwpSiglist, sig);
  const info = (own ? lp.lwpSiginfo : p.pSiginfo).get(sig) ?? siginfo(sig);
  (own ? lp.lwpSiginfo : p.pSiginfo).delete(sig);
  if (own) lp.lwpSiglist &= ~sigmask(sig);
  else p.pSiglist &= ~sigmask(sig);
  return info;
}

/**
 * What tsleep(PCATCH) asks (given to SleepState.signalled): 0, or why it must not sleep. A thread that goes to sleep while its process is
 * stopped counts as stopped where it sleeps.
 */
export function sigSignalled(cx: Cx): number {
  const { lwp: lp } = cx;
  if (lp === undefined) return 0;
  if (lp.lwpMpflags & LWP_MP_WEXIT) return ERRNO.EINTR;
  const sig = issignal(cx, lp);
  if (sig !== 0) {
    const { handler, flags } = lp.lwpProc.pSigacts.psAction[sig]!;
    return handler !== SIG_DFL && (flags & SA_RESTART) === 0 ? ERRNO.EINTR : ERESTART;
  }
  if (lp.lwpProc.pStat === SSTOP) lwpStopped(cx, lp);
  return 0;
}

function isStopped(p: Proc): boolean {
  return p.pStat === SSTOP;
}

/** Stands still while the process is stopped (`tstop`). */
export function* tstop(cx: Cx): Exec<void> {
  const lp = cx.lwp!, p = lp.lwpProc;
  while (p.pStat === SSTOP && (lp.lwpMpflags & LWP_MP_WEXIT) === 0) {
    lwpStopped(cx, lp);
    yield* tsleep(cx, stopIdent(lp), 0, "stop", 0);
  }
}

/**
 * Everything that signals want of a thread on its way to user mode (the signal part of `userret`): to end, to stop, to run a handler. When
 * it returns none is left, and the frame at lwpMdRegs is the one to enter user mode with.
 */
export function* procUserret(cx: Cx): Exec<void> {
  const lp = cx.lwp!, p = lp.lwpProc;
  for (;;) {
    if (lp.lwpMpflags & LWP_MP_WEXIT) yield* lwpExit(cx);
    if (isStopped(p)) {
      yield* tstop(cx);
      continue;
    }
    const sig = issignal(cx, lp);
    if (sig !== 0) yield* postsig(cx, sig);
    else if (!isStopped(p)) break;
  }
  // sigsuspend's mask goes once there was nothing to deliver under it.
  if (lp.lwpFlags & LWP_OLDMASK) {
    lp.lwpFlags &= ~LWP_OLDMASK;
    lp.lwpSigmask = lp.lwpOldsigmask;
    if (pending(lp) !== 0n) yield* procUserret(cx);
  }
}

/** Acts on a signal that {@link issignal} gave: the default action is the end, else the handler's frame is built (`postsig`). */
export function* postsig(cx: Cx, sig: number): Exec<void> {
  const lp = cx.lwp!, p = lp.lwpProc;
  if (lp.lwpMpflags & LWP_MP_WEXIT) return yield* lwpExit(cx);
  const info = takeSignal(lp, sig);
  const action = p.pSigacts.psAction[sig]!;
  if (action.handler === SIG_DFL || sig === SIGKILL) return yield* sigexit(cx, sig);
  const returnmask = lp.lwpFlags & LWP_OLDMASK ? lp.lwpOldsigmask : lp.lwpSigmask;
  lp.lwpFlags &= ~LWP_OLDMASK;
  yield* deliver(cx, sig, info, returnmask);
}

/** Blocks what the handler wants blocked and builds its frame; a stack that cannot take it ends the process with SIGILL, as in `sendsig`. */
function* deliver(cx: Cx, sig: number, info: Siginfo, returnmask: Sigset): Exec<void> {
  const lp = cx.lwp!, { pSigacts } = lp.lwpProc;
  const action = pSigacts.psAction[sig]!;
  // Handlers are the vkernel's, never run in a guest's space.
  yield* vkernelBeforeSignal(cx);
  if (lp.lwpVmm?.full !== undefined) {
    // A kernel in ring 0 has no signal frames: its virtual interrupt tells it.
    lp.lwpVmm.full.signal(sig);
    lp.lwpSigmask = returnmask;
    lp.lwpRu.ruNsignals++;
    return;
  }
  lp.lwpSigmask |= action.mask & ~SIG_CANTMASK;
  if ((action.flags & SA_NODEFER) === 0) lp.lwpSigmask |= sigmask(sig);
  if (action.flags & SA_RESETHAND) pSigacts.set(sig, { handler: SIG_DFL, mask: 0n, flags: 0 });
  lp.lwpRu.ruNsignals++;
  if (yield* lp.lwpProc.pSysent!.svSendsig(cx, { sig, info, returnmask, action })) return;
  pSigacts.set(SIGILL, { handler: SIG_DFL, mask: 0n, flags: 0 });
  lp.lwpSigmask &= ~sigmask(SIGILL);
  lwpsignal(cx, lp.lwpProc, lp, SIGILL);
}

/**
 * A fault in user mode (`trapsignal`): the thread that faulted takes the signal now. If it blocks or ignores it, running on would only fault
 * again: the action is set to the default, which ends the process (`forcesigexit` of FreeBSD; DragonFly 3.6 loops).
 *
 * @param code si_code. @param addr si_addr. @param trapno si_trapno.
 */
export function* trapsignal(cx: Cx, sig: number, code: number, addr: bigint, trapno = 0): Exec<void> {
  const lp = cx.lwp!, { pSigacts } = lp.lwpProc;
  const info = siginfo(sig, { siCode: code, siAddr: addr, siTrapno: trapno });
  const { handler } = pSigacts.psAction[sig]!;
  if (handler === SIG_IGN || sigismember(lp.lwpSigmask, sig)) {
    lp.lwpSigmask &= ~sigmask(sig);
    pSigacts.set(sig, { handler: SIG_DFL, mask: 0n, flags: 0 });
  } else if (handler !== SIG_DFL) return yield* deliver(cx, sig, info, lp.lwpSigmask);
  // Signals do not end init, but it cannot go on either.
  if (lp.lwpProc.pPid === 1) return yield* sigexit(cx, sig);
  lwpsignal(cx, lp.lwpProc, lp, sig, info);
}

/**
 * Ends the current process by a signal (`sigexit`), and says so if it is one of a fault. No core file is written: RLIMIT_CORE counts as 0,
 * so wait4 never gives the core flag.
 */
export function* sigexit(cx: Cx, sig: number): Exec<never> {
  const p = cx.proc as Proc;
  if (sigprop(sig) & SA_CORE) {
    kprintf(cx, `pid ${p.pPid} (${p.pComm}), uid ${p.pUcred.crUid}: exited on signal ${sig}\n`);
  }
  return yield* exit1(cx, sig & 0x7f);
}
