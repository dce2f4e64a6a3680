/**
 * Process numbers, groups and sessions (`sys/kern/kern_proc.c`).
 *
 * Room: `kernel/proc/`; imports proc and the senders of signals. Plain functions: each is one step, so nobody sees a half-made group.
 *
 * @module
 */
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { ttyPgrpGone } from "../kern/tty_io.ts";
import { pgsignal } from "./kern_sig_send.ts";
import { P_CONTROLT, Pgrp, PID_MAX, type Proc, type ProcState, Session, SSTOP, SZOMB } from "./proc.ts";
import { SIGCONT, SIGHUP } from "./signal.ts";

/** The next free number (`proc_getnewpid`): not a process's, nor a living group's or session's. */
export function procGetnewpid(procs: ProcState): number {
  let pid = procs.nextpid;
  do {
    if (++pid > PID_MAX) pid = 100;
  } while (procs.allproc.has(pid) || procs.pgrps.has(pid) || sessionUses(procs, pid));
  procs.nextpid = pid;
  return pid;
}

function sessionUses(procs: ProcState, sid: number): boolean {
  for (const { pgSession } of procs.pgrps.values()) if (pgSession.sSid === sid) return true;
  return false;
}

/** Makes a process known (`proc_add_allproc`) and a child of `parent`. */
export function procAddAllproc(procs: ProcState, p: Proc, parent: Proc | undefined): void {
  procs.allproc.set(p.pPid, p);
  procs.nprocs++;
  p.pPptr = parent;
  parent?.pChildren.add(p);
}

/** Gives a child another parent (`proc_reparent`). */
export function procReparent(child: Proc, parent: Proc): void {
  if (child.pPptr === parent) return;
  child.pPptr?.pChildren.delete(child);
  child.pPptr = parent;
  parent.pChildren.add(child);
}

/** Takes a process that has been waited for out of all tables. */
export function procRemove(cx: Cx, p: Proc): void {
  const { procs } = cx.k;
  leavepgrp(cx, p);
  p.pPptr?.pChildren.delete(p);
  procs.allproc.delete(p.pPid);
  procs.nprocs--;
}

/** Whether `p` is `target` or descends from it (`inferior`). */
export function inferior(p: Proc, target: Proc): boolean {
  for (let at: Proc | undefined = p; at !== undefined; at = at.pPptr) if (at === target) return true;
  return false;
}

/**
 * Moves a process to a group (`enterpgrp`), which is made if it does not exist.
 *
 * @param mksess Make a new session too, whose leader the process becomes; `pgid` is its pid then.
 */
export function enterpgrp(cx: Cx, p: Proc, pgid: number, mksess: boolean): void {
  const { procs } = cx.k;
  let pgrp = procs.pgrps.get(pgid);
  kassert(pgrp === undefined || !mksess, "enterpgrp: setsid into non-empty pgrp");
  if (pgrp === undefined) {
    const session = mksess ? new Session(pgid, p) : p.pSession;
    if (mksess && p.pPgrp !== undefined) session.sLogin = p.pSession.sLogin;
    if (mksess) p.pFlags &= ~P_CONTROLT;
    pgrp = new Pgrp(pgid, session);
    session.sCount++;
    procs.pgrps.set(pgid, pgrp);
  } else if (pgrp === p.pPgrp) return;
  // Entering first keeps the counts of groups that the process and its children hold up from falling to 0 in between.
  fixjobc(cx, p, pgrp, true);
  const old = p.pPgrp as Pgrp | undefined;
  if (old !== undefined) {
    fixjobc(cx, p, old, false);
    leavepgrp(cx, p);
  }
  p.pPgrp = pgrp;
  pgrp.pgMembers.add(p);
}

/** Joins the group of the parent at fork: no count changes but by {@link fixjobc}. */
export function joinpgrp(p: Proc, pgrp: Pgrp): void {
  p.pPgrp = pgrp;
  pgrp.pgMembers.add(p);
}

/** Takes a process out of its group (`leavepgrp`); a group without members goes, and a session without groups. */
export function leavepgrp(cx: Cx, p: Proc): void {
  const pgrp = p.pPgrp as Pgrp | undefined;
  if (pgrp === undefined) return;
  pgrp.pgMembers.delete(p);
  if (pgrp.pgMembers.size === 0) {
    ttyPgrpGone(pgrp, pgrp.pgSession);
    cx.k.procs.pgrps.delete(pgrp.pgId);
    pgrp.pgSession.sCount--;
  }
}

/**
 * Keeps pg_jobc right when `p` enters or leaves `pgrp` (`fixjobc`): it counts members whose parent is in another group of the same
 * session. A group that falls to 0 is orphaned.
 */
export function fixjobc(cx: Cx, p: Proc, pgrp: Pgrp, entering: boolean): void {
  const { pgSession: session } = pgrp;
  const own = p.pPptr?.pPgrp as Pgrp | undefined;
  if (own !== undefined && own !== pgrp && own.pgSession === session) adjust(cx, pgrp, entering);
  for (const child of p.pChildren) {
    const group = child.pPgrp;
    if (group !== pgrp && group.pgSession === session && child.pStat !== SZOMB) adjust(cx, group, entering);
  }
}

function adjust(cx: Cx, pgrp: Pgrp, entering: boolean): void {
  if (entering) pgrp.pgJobc++;
  else if (--pgrp.pgJobc === 0) orphanpg(cx, pgrp);
}

/** A group that has become orphaned and has stopped members gets SIGHUP and SIGCONT (`orphanpg`): nobody else could continue it. */
function orphanpg(cx: Cx, pgrp: Pgrp): void {
  if (![...pgrp.pgMembers].some((p) => p.pStat === SSTOP)) return;
  pgsignal(cx, pgrp, SIGHUP);
  pgsignal(cx, pgrp, SIGCONT);
}
