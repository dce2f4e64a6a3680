/**
 * System calls about signals (`sys/kern/kern_sig.c`).
 *
 * Room: `kernel/proc/`; imports the senders, the takers and copy.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, copyout } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { ERESTART, type SyscallArgs, type SyscallResult, type SyscallTable } from "../kern/sysent.ts";
import { hz } from "../lwkt/callout.ts";
import { PCATCH, tsleep } from "../lwkt/sleep.ts";
import { takeSignal } from "./kern_sig.ts";
import { ksignal, lwpsignal, signotifyCpu } from "./kern_sig_send.ts";
import { type Lwp, LWP_OLDMASK, P_SYSTEM, type Pgrp, type Proc, SZOMB } from "./proc.ts";
import { encodeSiginfo, encodeStack, sigonstack } from "./sendsig.ts";
import {
  MINSIGSTKSZ,
  NSIG,
  SA_NOCLDSTOP,
  SA_NOCLDWAIT,
  SI_USER,
  SIG_BLOCK,
  SIG_CANTMASK,
  SIG_DFL,
  SIG_IGN,
  SIG_SETMASK,
  SIG_UNBLOCK,
  type Sigaction,
  SIGCHLD,
  SIGCONT,
  siginfo,
  sigismember,
  SIGKILL,
  sigmask,
  type Sigset,
  SIGSTOP,
  SS_DISABLE,
} from "./signal.ts";
import type { Ucred } from "./ucred.ts";
import { decodeTrapframe, TF_BYTES } from "../platform/pc64/frame.ts";
import type { Gva } from "../../hw/address.ts";

const OK: SyscallResult = { value: 0n };
const FAULT: SyscallResult = { error: ERRNO.EFAULT };
const INVALID: SyscallResult = { error: ERRNO.EINVAL };

/** Bytes of `sigset_t`. */
const SIGSET_BYTES = 16;
/** Bytes of `struct sigaction`: handler 0, flags 8, mask 12. */
const SIGACTION_BYTES = 32;
/** Bytes of `stack_t`. */
const STACK_BYTES = 24;

/** Whether a number is a signal's. */
function isSignal(sig: number): boolean {
  return sig > 0 && sig <= NSIG;
}

function* copyinSigset(cx: Cx, at: bigint): Exec<Sigset | undefined> {
  const bytes = yield* copyin(cx, at, SIGSET_BYTES);
  return bytes === undefined ? undefined : new DataView(bytes.buffer).getBigUint64(0, true);
}

function copyoutSigset(cx: Cx, at: bigint, set: Sigset): Exec<number> {
  const bytes = new Uint8Array(SIGSET_BYTES);
  new DataView(bytes.buffer).setBigUint64(0, set, true);
  return copyout(cx, at, bytes);
}

/** Sets an action (`kern_sigaction`); pending signals that are ignored now are dropped. */
export function setSigaction(p: Proc, sig: number, action: Sigaction): void {
  const { pSigacts } = p;
  pSigacts.set(sig, { ...action, mask: action.mask & ~SIG_CANTMASK });
  if (sig === SIGCHLD) {
    pSigacts.psNocldstop = (action.flags & SA_NOCLDSTOP) !== 0;
    pSigacts.psNocldwait = (action.flags & SA_NOCLDWAIT) !== 0 || action.handler === SIG_IGN;
  }
  if (!sigismember(pSigacts.pSigignore, sig)) return;
  p.pSiglist &= ~sigmask(sig);
  for (const lp of p.pLwps.values()) lp.lwpSiglist &= ~sigmask(sig);
}

/** sigaction(sig, act, oact) (342). */
function* sysSigaction(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const sig = uap.int(0), act = uap.arg(1), oact = uap.arg(2), p = cx.proc!;
  if (!isSignal(sig)) return INVALID;
  let next: Sigaction | undefined;
  if (act !== 0n) {
    const bytes = yield* copyin(cx, act, SIGACTION_BYTES);
    if (bytes === undefined) return FAULT;
    const view = new DataView(bytes.buffer);
    next = {
      handler: view.getBigUint64(0, true),
      flags: view.getInt32(8, true),
      mask: view.getBigUint64(12, true),
    };
    if ((sig === SIGKILL || sig === SIGSTOP) && next.handler !== SIG_DFL) return INVALID;
  }
  if (oact !== 0n) {
    const old = p.pSigacts.psAction[sig]!;
    const bytes = new Uint8Array(SIGACTION_BYTES), view = new DataView(bytes.buffer);
    view.setBigUint64(0, old.handler, true);
    view.setInt32(8, old.flags, true);
    view.setBigUint64(12, old.mask, true);
    if ((yield* copyout(cx, oact, bytes)) !== 0) return FAULT;
  }
  if (next !== undefined) setSigaction(p, sig, next);
  return OK;
}

/** Changes a thread's mask; signals that it lets through now are looked at on the way to user mode. */
export function setSigmask(cx: Cx, lp: Lwp, set: Sigset): void {
  lp.lwpSigmask = set & ~SIG_CANTMASK;
  if (((lp.lwpProc.pSiglist | lp.lwpSiglist) & ~lp.lwpSigmask) !== 0n) signotifyCpu(cx, cx.gd);
}

/** sigprocmask(how, set, oset) (340). */
function* sysSigprocmask(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const how = uap.int(0), lp = cx.lwp!, old = lp.lwpSigmask;
  if (uap.arg(1) !== 0n) {
    const set = yield* copyinSigset(cx, uap.arg(1));
    if (set === undefined) return FAULT;
    if (how === SIG_BLOCK) setSigmask(cx, lp, old | set);
    else if (how === SIG_UNBLOCK) setSigmask(cx, lp, old & ~set);
    else if (how === SIG_SETMASK) setSigmask(cx, lp, set);
    else return INVALID;
  }
  if (uap.arg(2) !== 0n && (yield* copyoutSigset(cx, uap.arg(2), old)) !== 0) return FAULT;
  return OK;
}

/** sigpending(set) (343). */
function* sysSigpending(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const lp = cx.lwp!;
  return (yield* copyoutSigset(cx, uap.arg(0), lp.lwpProc.pSiglist | lp.lwpSiglist)) === 0 ? OK : FAULT;
}

/** Sleeps under another mask until a signal has come (`kern_sigsuspend`); the old mask is back after its handler. */
export function* kernSigsuspend(cx: Cx, set: Sigset): Exec<SyscallResult> {
  const lp = cx.lwp!;
  lp.lwpOldsigmask = lp.lwpSigmask;
  lp.lwpFlags |= LWP_OLDMASK;
  lp.lwpSigmask = set & ~SIG_CANTMASK;
  while ((yield* tsleep(cx, lp.lwpSigstk, PCATCH, "pause", 0)) === 0);
  // Not restarted: the call has done what it is for.
  return { error: ERRNO.EINTR };
}

/** sigsuspend(set) (341). */
function* sysSigsuspend(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const set = yield* copyinSigset(cx, uap.arg(0));
  return set === undefined ? FAULT : yield* kernSigsuspend(cx, set);
}

/** Takes a pending signal of `set`, waiting up to `timo` ticks (0: without end; undefined: not at all) (`kern_sigtimedwait`). */
function* waitFor(cx: Cx, set: Sigset, infop: bigint, timo: number | undefined): Exec<SyscallResult> {
  const lp = cx.lwp!, wanted = set & ~SIG_CANTMASK;
  const until = timo === undefined ? 0 : cx.k.ticks + timo;
  for (;;) {
    const here = (lp.lwpProc.pSiglist | lp.lwpSiglist) & wanted;
    if (here !== 0n) {
      let sig = 1;
      while ((here & sigmask(sig)) === 0n) sig++;
      const info = takeSignal(lp, sig);
      if (infop !== 0n && (yield* copyout(cx, infop, encodeSiginfo(info))) !== 0) return FAULT;
      return { value: BigInt(sig) };
    }
    if (timo === undefined || (timo > 0 && cx.k.ticks >= until)) return { error: ERRNO.EAGAIN };
    // While it sleeps the wanted ones are let through, so that they end the sleep; nothing is delivered before they are blocked again.
    const mask = lp.lwpSigmask;
    lp.lwpSigmask = mask & ~wanted;
    const error = yield* tsleep(cx, lp, PCATCH, "sigwt", timo === 0 ? 0 : until - cx.k.ticks);
    lp.lwpSigmask = mask;
    const came = ((lp.lwpProc.pSiglist | lp.lwpSiglist) & wanted) !== 0n;
    if (!came && (error === ERRNO.EINTR || error === ERESTART)) return { error: ERRNO.EINTR };
  }
}

/** sigtimedwait(set, info, timeout) (345). */
function* sysSigtimedwait(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const set = yield* copyinSigset(cx, uap.arg(0));
  if (set === undefined) return FAULT;
  let timo: number | undefined = 0;
  if (uap.arg(2) !== 0n) {
    const bytes = yield* copyin(cx, uap.arg(2), 16);
    if (bytes === undefined) return FAULT;
    const view = new DataView(bytes.buffer);
    const sec = Number(view.getBigInt64(0, true)), nsec = Number(view.getBigInt64(8, true));
    if (sec < 0 || nsec < 0 || nsec >= 1e9) return INVALID;
    timo = sec === 0 && nsec === 0 ? undefined : Math.ceil(sec * hz + nsec * hz / 1e9);
  }
  return yield* waitFor(cx, set, uap.arg(1), timo);
}

/** sigwaitinfo(set, info) (346). */
function* sysSigwaitinfo(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const set = yield* copyinSigset(cx, uap.arg(0));
  return set === undefined ? FAULT : yield* waitFor(cx, set, uap.arg(1), 0);
}

/** sigaltstack(ss, oss) (53). */
function* sysSigaltstack(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const lp = cx.lwp!;
  const frame = decodeTrapframe(yield* cx.cpu.loadBytes(lp.lwpMdRegs as Gva, TF_BYTES));
  const onstack = sigonstack(lp, frame.rsp), old = encodeStack(lp, onstack);
  if (uap.arg(0) !== 0n) {
    const bytes = yield* copyin(cx, uap.arg(0), STACK_BYTES);
    if (bytes === undefined) return FAULT;
    const view = new DataView(bytes.buffer);
    const ssFlags = view.getInt32(16, true), ssSize = view.getBigUint64(8, true);
    if (onstack) return { error: ERRNO.EPERM };
    if (ssFlags & ~SS_DISABLE) return INVALID;
    if ((ssFlags & SS_DISABLE) === 0 && ssSize < BigInt(MINSIGSTKSZ)) return { error: ERRNO.ENOMEM };
    lp.lwpSigstk = { ssSp: view.getBigUint64(0, true), ssSize, ssFlags };
  }
  if (uap.arg(1) !== 0n && (yield* copyout(cx, uap.arg(1), old)) !== 0) return FAULT;
  return OK;
}

/** Whether one process may signal another (`CANSIGNAL`): root, the same user, or SIGCONT in the own session. */
export function canSignal(from: Proc, to: Proc, sig: number): boolean {
  const a: Ucred = from.pUcred, b: Ucred = to.pUcred;
  if (a.crUid === 0) return true;
  const same = [a.crUid, a.crRuid].some((uid) => uid === b.crRuid || uid === b.crSvuid);
  return same || (sig === SIGCONT && from.pSession === to.pSession);
}

/** Sends `sig` to all of `targets` that it may be sent to: 0, EPERM if to none of some, ESRCH if there is none. */
function signalAll(cx: Cx, targets: Iterable<Proc>, sig: number): number {
  const from = cx.proc!;
  let found = 0, sent = 0;
  for (const p of [...targets]) {
    if (p.pPid <= 1 || p.pFlags & P_SYSTEM || p.pStat === SZOMB) continue;
    found++;
    if (!canSignal(from, p, sig)) continue;
    sent++;
    if (sig !== 0) ksignal(cx, p, sig, userInfo(cx, sig));
  }
  return sent > 0 ? 0 : found > 0 ? ERRNO.EPERM : ERRNO.ESRCH;
}

function userInfo(cx: Cx, sig: number) {
  const p = cx.proc!;
  return siginfo(sig, { siCode: SI_USER, siPid: p.pPid, siUid: p.pUcred.crRuid });
}

/**
 * kill (`kern_kill`).
 *
 * @param pid > 0 that process; 0 the own group; −1 everybody but itself; else group −pid.
 */
export function kernKill(cx: Cx, pid: number, sig: number): number {
  if (sig !== 0 && !isSignal(sig)) return ERRNO.EINVAL;
  const { procs } = cx.k, self = cx.proc!;
  if (pid > 0) {
    const p = procs.allproc.get(pid);
    if (p === undefined) return ERRNO.ESRCH;
    if (!canSignal(self, p, sig)) return ERRNO.EPERM;
    if (sig !== 0) ksignal(cx, p, sig, userInfo(cx, sig));
    return 0;
  }
  if (pid === -1) {
    return signalAll(cx, [...procs.allproc.values()].filter((p) => p !== self), sig);
  }
  const pgrp: Pgrp | undefined = pid === 0 ? self.pPgrp : procs.pgfind(-pid);
  return pgrp === undefined ? ERRNO.ESRCH : signalAll(cx, pgrp.pgMembers, sig);
}

/** kill(pid, sig) (37). */
function* sysKill(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const error = kernKill(cx, uap.int(0), uap.int(1));
  return error === 0 ? OK : { error };
}

/** lwp_kill(pid, tid, sig) (497): to one thread, or with tid −1 as kill. */
function* sysLwpKill(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const pid = uap.int(0), tid = uap.int(1), sig = uap.int(2);
  if (sig !== 0 && !isSignal(sig)) return INVALID;
  if (tid < -1) return INVALID;
  if (tid === -1) {
    const error = kernKill(cx, pid, sig);
    return error === 0 ? OK : { error };
  }
  const p = pid === -1 ? cx.proc : cx.k.procs.pfind(pid);
  if (p === undefined) return { error: ERRNO.ESRCH };
  if (!canSignal(cx.proc!, p, sig)) return { error: ERRNO.EPERM };
  const lp = p.pLwps.get(tid);
  if (lp === undefined) return { error: ERRNO.ESRCH };
  if (sig !== 0) lwpsignal(cx, p, lp, sig, userInfo(cx, sig));
  return OK;
}

/** System calls of this file. */
export const sigSyscalls: SyscallTable = [
  [37, "kill", 2, sysKill],
  [53, "sigaltstack", 2, sysSigaltstack],
  [340, "sigprocmask", 3, sysSigprocmask],
  [341, "sigsuspend", 1, sysSigsuspend],
  [342, "sigaction", 3, sysSigaction],
  [343, "sigpending", 1, sysSigpending],
  [345, "sigtimedwait", 3, sysSigtimedwait],
  [346, "sigwaitinfo", 2, sysSigwaitinfo],
  [497, "lwp_kill", 3, sysLwpKill],
];
