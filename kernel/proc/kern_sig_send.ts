/**
 * Sending signals (`sys/kern/kern_sig.c`: ksignal, lwpsignal, pgsignal, proc_stop, proc_unstop, setrunnable).
 *
 * Room: `kernel/proc/`; imports proc and lwkt. Taking signals is in kern_sig.ts.
 *
 * Everything here is a plain function: it may be called from an interrupt, and nothing runs between its steps, so the sets need no lock.
 * Deviation: DragonFly holds p_token here, because there another processor may be in the middle of it.
 *
 *     ksignal ─ lwpsignal ─┬ ignored: nothing
 *                          ├ stops by default: procStop; each thread stops when it next looks at its signals
 *                          └ else: a bit in pSiglist or lwpSiglist, and lwpSignotify: an AST, or the end of an interruptible sleep
 *
 * @module
 */
import type { Cx } from "../context.ts";
import { kprintf } from "../kern/subr_prf.ts";
import { type Globaldata, RQF } from "../lwkt/globaldata.ts";
import { ipiqEnqueue } from "../lwkt/ipiq.ts";
import { lwktInterruptSleep, wakeup } from "../lwkt/sleep.ts";
import { TDF } from "../lwkt/thread.ts";
import {
  LSSLEEP,
  type Lwp,
  LWP_MP_WEXIT,
  LWP_MP_WSTOP,
  P_CONTINUED,
  P_CONTROLT,
  P_LOWMEMKILL,
  P_PPWAIT,
  P_SYSTEM,
  P_WAITED,
  P_WEXIT,
  type Pgrp,
  type Proc,
  SACTIVE,
  SIDL,
  SSTOP,
  SZOMB,
} from "./proc.ts";
import {
  CLD_CONTINUED,
  CLD_STOPPED,
  SA_CONT,
  SA_IGNORE,
  SA_STOP,
  SA_TTYSTOP,
  SIG_CONTSIGS,
  SIG_DFL,
  SIG_STOPSIGS,
  SIGCHLD,
  SIGCONT,
  type Siginfo,
  siginfo,
  sigismember,
  SIGKILL,
  sigmask,
  sigprop,
} from "./signal.ts";

/** Sends a signal to a process (`ksignal`); the thread that takes it is found by lwpsignal. */
export function ksignal(cx: Cx, p: Proc, sig: number, info?: Siginfo): void {
  lwpsignal(cx, p, undefined, sig, info);
}

/**
 * Sends a signal to a process or to one of its threads (`lwpsignal`).
 *
 * @param lp The thread that must take it; undefined: any that does not block it.
 * @param info What the handler is told; default: only the number.
 */
export function lwpsignal(cx: Cx, p: Proc, lp: Lwp | undefined, sig: number, info?: Siginfo): void {
  if (p.pStat === SZOMB || p.pFlags & (P_WEXIT | P_SYSTEM)) return;
  const prop = sigprop(sig), { pSigacts } = p;
  // SIGCONT and the stop signals cancel each other, whatever becomes of them otherwise.
  if (prop & SA_CONT) discard(p, SIG_STOPSIGS);
  if (prop & SA_STOP) discard(p, SIG_CONTSIGS);
  const ignored = sigismember(pSigacts.pSigignore, sig);
  const byDefault = pSigacts.psAction[sig]!.handler === SIG_DFL;
  if (ignored && !(prop & SA_CONT && p.pStat === SSTOP)) return;
  if (prop & SA_TTYSTOP && byDefault && isOrphaned(p.pPgrp)) return;

  if (p.pStat === SSTOP) {
    if (prop & SA_CONT) {
      procUnstop(cx, p);
      p.pFlags |= P_CONTINUED;
      notifyParent(cx, p, CLD_CONTINUED, SIGCONT);
      if (ignored || byDefault) return;
    } else if (sig === SIGKILL) procUnstop(cx, p);
    else if (prop & SA_STOP && byDefault) return;
  } else if (prop & SA_CONT && byDefault) return;

  const target = lp ?? findLwpForSignal(cx, p, sig);
  if (prop & SA_STOP && byDefault && target !== undefined && p.pStat !== SIDL) {
    // A child of vfork does not stop: its parent could not be woken.
    if ((p.pFlags & P_PPWAIT) === 0 && !sigismember(target.lwpSigmask, sig)) {
      p.pXstat = sig;
      procStop(cx, p);
      return;
    }
  }
  const told = info ?? siginfo(sig);
  if (lp === undefined) {
    p.pSiglist |= sigmask(sig);
    p.pSiginfo.set(sig, told);
  } else {
    lp.lwpSiglist |= sigmask(sig);
    lp.lwpSiginfo.set(sig, told);
  }
  if (target !== undefined && (sig === SIGKILL || !sigismember(target.lwpSigmask, sig))) {
    if (p.pStat !== SSTOP) lwpSignotify(cx, target);
  }
}

/** Sends to every member of a group (`pgsignal`). @param checkctty Only to those that have the controlling terminal. */
export function pgsignal(
  cx: Cx,
  pgrp: Pgrp | undefined,
  sig: number,
  checkctty = false,
  info?: Siginfo,
): void {
  if (pgrp === undefined) return;
  for (const p of [...pgrp.pgMembers]) {
    if (!checkctty || p.pFlags & P_CONTROLT) ksignal(cx, p, sig, info);
  }
}

/** Sends to a group by its number (`gsignal`). */
export function gsignal(cx: Cx, pgid: number, sig: number): void {
  pgsignal(cx, cx.k.procs.pgfind(pgid), sig);
}

/** Kills a process for the kernel's own reasons, and says so (`killproc`). */
export function killproc(cx: Cx, p: Proc, why: string): void {
  kprintf(cx, `pid ${p.pPid} (${p.pComm}), uid ${p.pUcred.crUid}, was killed: ${why}\n`);
  p.pFlags |= P_LOWMEMKILL;
  ksignal(cx, p, SIGKILL);
}

/** Whether nobody outside a group could continue it (`pg_jobc == 0`). */
export function isOrphaned(pgrp: Pgrp): boolean {
  return pgrp.pgJobc === 0;
}

/** Forgets pending signals. */
function discard(p: Proc, set: bigint): void {
  p.pSiglist &= ~set;
  for (const lp of p.pLwps.values()) lp.lwpSiglist &= ~set;
}

/** The thread that shall look at a signal to the whole process: the running one, else one that can be woken, else any; none if all block it. */
function findLwpForSignal(cx: Cx, p: Proc, sig: number): Lwp | undefined {
  const takes = (lp: Lwp) => sig === SIGKILL || !sigismember(lp.lwpSigmask, sig);
  const own = cx.lwp;
  if (own !== undefined && own.lwpProc === p && takes(own)) return own;
  let found: Lwp | undefined;
  for (const lp of p.pLwps.values()) {
    if (lp.lwpMpflags & LWP_MP_WEXIT || !takes(lp)) continue;
    if (sleepsInterruptibly(lp) || lp.lwpStat !== LSSLEEP) return lp;
    found ??= lp;
  }
  return found;
}

/** Makes a thread look at its signals soon (`lwp_signotify`): by an AST where it runs, or by ending its interruptible sleep. */
export function lwpSignotify(cx: Cx, lp: Lwp): void {
  const td = lp.lwpThread;
  if (td === undefined) return;
  if (td === cx.gd.gdCurthread) cx.gd.gdReqflags |= RQF.AST_SIGNAL;
  else if (sleepsInterruptibly(lp)) setrunnable(cx, lp);
  else if (td.tdGd.gdCurthread === td) signotifyCpu(cx, td.tdGd);
}

/** Sets the AST of a processor; another one is told by a message, since it may be in user mode. */
export function signotifyCpu(cx: Cx, gd: Globaldata): void {
  if (gd === cx.gd) gd.gdReqflags |= RQF.AST_SIGNAL;
  else ipiqEnqueue(cx, gd, signotifyRemote, undefined);
}

function signotifyRemote(cx: Cx): void {
  cx.gd.gdReqflags |= RQF.AST_SIGNAL;
}

/** Ends a thread's interruptible sleep (`setrunnable`). */
export function setrunnable(cx: Cx, lp: Lwp): void {
  if (lp.lwpThread !== undefined) lwktInterruptSleep(cx, lp.lwpThread);
}

/** Whether a thread sleeps so that a signal may wake it (`LWP_SINTR`). */
function sleepsInterruptibly(lp: Lwp): boolean {
  const SLEEPS = TDF.TSLEEPQ | TDF.SINTR;
  return lp.lwpThread !== undefined && (lp.lwpThread.tdFlags & SLEEPS) === SLEEPS;
}

/**
 * Stops a process (`proc_stop`): threads in interruptible sleeps count as stopped where they are, the others stop when they next look. The
 * parent is told when the last one has stopped.
 */
export function procStop(cx: Cx, p: Proc): void {
  if (p.pStat === SSTOP) return;
  p.pStat = SSTOP;
  p.pFlags &= ~(P_WAITED | P_CONTINUED);
  for (const lp of p.pLwps.values()) {
    if (sleepsInterruptibly(lp)) countStopped(lp);
    else lwpSignotify(cx, lp);
  }
  procStopped(cx, p);
}

function countStopped(lp: Lwp): void {
  if (lp.lwpMpflags & LWP_MP_WSTOP) return;
  lp.lwpMpflags |= LWP_MP_WSTOP;
  lp.lwpProc.pNstopped++;
}

/** Counts a thread as stopped: it stands still now, or is about to. */
export function lwpStopped(cx: Cx, lp: Lwp): void {
  countStopped(lp);
  procStopped(cx, lp.lwpProc);
}

/** If all threads have stopped: wakes the parent's wait4 and sends it SIGCHLD. */
export function procStopped(cx: Cx, p: Proc): void {
  if (p.pStat !== SSTOP || p.pNstopped < p.pNthreads) return;
  notifyParent(cx, p, CLD_STOPPED, p.pXstat);
}

/** Lets a stopped process go on (`proc_unstop`). */
export function procUnstop(cx: Cx, p: Proc): void {
  if (p.pStat !== SSTOP) return;
  p.pStat = SACTIVE;
  for (const lp of p.pLwps.values()) {
    if ((lp.lwpMpflags & LWP_MP_WSTOP) === 0) continue;
    lp.lwpMpflags &= ~LWP_MP_WSTOP;
    p.pNstopped--;
    wakeup(cx, stopIdent(lp));
    // What came while it slept and was stopped: it shall look now.
    if (((p.pSiglist | lp.lwpSiglist) & ~lp.lwpSigmask) !== 0n) setrunnable(cx, lp);
  }
}

/** What a stopped thread sleeps on. */
export function stopIdent(lp: Lwp): object {
  return lp.lwpUsdata;
}

/** Tells the parent of a stop or continuation. */
function notifyParent(cx: Cx, p: Proc, siCode: number, siStatus: number): void {
  const parent = p.pPptr;
  if (parent === undefined) return;
  wakeup(cx, parent);
  if (parent.pSigacts.psNocldstop) return;
  ksignal(cx, parent, SIGCHLD, siginfo(SIGCHLD, { siCode, siStatus, siPid: p.pPid, siUid: p.pUcred.crRuid }));
}

/** Whether `prop` says that nothing happens by default. */
export function ignoredByDefault(sig: number): boolean {
  return (sigprop(sig) & SA_IGNORE) !== 0;
}
