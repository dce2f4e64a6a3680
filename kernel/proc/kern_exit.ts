/**
 * Ending processes and threads, and waiting for them (`sys/kern/kern_exit.c`).
 *
 * Room: `kernel/proc/`; imports proc, the senders of signals, lwkt, the address spaces and the descriptors.
 *
 *     exit1 ─ other threads end (killalllwps) ─ files, address space stage 1 ─ children to init ─ SZOMB, SIGCHLD ─ lwkt_exit
 *     wait4 ─ the zombie's threads have left their processors ─ address space stage 2 ─ out of the tables
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyout } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { fdfree } from "../kern/kern_descrip.ts";
import { kassert, panic } from "../kern/panic.ts";
import { ttySessionLeaderExit } from "../kern/tty_io.ts";
import { type SyscallArgs, type SyscallResult, type SyscallTable } from "../kern/sysent.ts";
import { calloutStop } from "../lwkt/callout.ts";
import { lwktDelay, PCATCH, tsleep, wakeup } from "../lwkt/sleep.ts";
import { lwktExit } from "../lwkt/thread.ts";
import { vrele } from "../vfs/vfs_subr.ts";
import { vkernelLwpExit } from "../vm/vkernel_trap.ts";
import { vkernelExit } from "../vm/vm_vmspace_entry.ts";
import { vmxThreadDestroy } from "../vmm/vmx_vmcs.ts";
import { vmspaceExitfree, vmspaceRelexit } from "../vm/vmspace.ts";
import { fixjobc, procRemove, procReparent } from "./kern_proc.ts";
import { ksignal, lwpSignotify, procStopped, procUnstop, stopIdent } from "./kern_sig_send.ts";
import { umtxWakeWord } from "./kern_umtx.ts";
import {
  type Lwp,
  LWP_MP_WEXIT,
  LWP_MP_WSTOP,
  P_CONTINUED,
  P_PPWAIT,
  P_WAITED,
  P_WEXIT,
  type Proc,
  SACTIVE,
  SSTOP,
  SZOMB,
} from "./proc.ts";
import { Rusage } from "./resource.ts";
import { procRusage, writeRusage } from "./rusage.ts";
import { CLD_EXITED, CLD_KILLED, SIGCHLD, SIGCONT, siginfo } from "./signal.ts";
import { uschedExiting } from "./usched_dfly.ts";

/** wait4 options. */
export const WNOHANG = 1;
/** Report stopped children too. */
export const WUNTRACED = 2;
/** Report continued children too. */
export const WCONTINUED = 4;

/** Exit status of a process that called exit(`code`). */
export function wExitcode(code: number): number {
  return (code & 0xff) << 8;
}
/** Status of a process that a signal stopped. */
export function wStopcode(sig: number): number {
  return sig << 8 | 0x7f;
}

/**
 * Ends the current process (`exit1`). Does not come back.
 *
 * @param status What wait4 will say: {@link wExitcode}, or a signal's number.
 */
export function* exit1(cx: Cx, status: number): Exec<never> {
  const lp = cx.lwp!, p = lp.lwpProc;
  if (p.pPid === 1) return yield* initExits(cx, status);
  // Another thread is ending the process: this one only ends itself.
  if (p.pFlags & P_WEXIT) return yield* lwpExit(cx);
  p.pFlags |= P_WEXIT;
  yield* vkernelLwpExit(cx, lp);
  yield* killalllwps(cx);
  yield* vkernelExit(cx, p);
  if (p.pIthandle !== undefined) calloutStop(cx, p.pIthandle);
  yield* clearTid(cx, lp);
  yield* fdfree(cx, p);
  if (p.pSession.sLeader === p) {
    ttySessionLeaderExit(cx, p.pSession);
    p.pSession.sLeader = undefined;
  }
  fixjobc(cx, p, p.pPgrp, false);
  if (p.pTextvp !== undefined) {
    const vp = p.pTextvp;
    p.pTextvp = undefined;
    yield* vrele(cx, vp);
  }
  p.pRu.add(lp.lwpRu);
  procRusage(p, p.pRu, lp);
  yield* vmxThreadDestroy(cx, lp);
  if (p.pVmspace !== undefined) yield* vmspaceRelexit(cx, p.pVmspace);
  releaseParent(cx, p);
  reparentChildren(cx, p);
  p.pXstat = status;
  yield* becomeZombie(cx, p, lp);
  return yield* lwktExit(cx);
}

/** Process 1 has nobody to wait for it: the machine goes off with its status. */
function* initExits(cx: Cx, status: number): Exec<never> {
  const { k } = cx;
  if ((status & 0x7f) !== 0) {
    panic(cx, `Going nowhere without my init: it was killed by signal ${status & 0x7f}`);
  }
  k.procs.exitStatus = status >> 8;
  k.halted = true;
  return yield* k.platform.powerOff(cx);
}

/** The last steps, of which nothing sleeps: from SZOMB on the parent may take the process apart as soon as this thread is off its processor. */
function* becomeZombie(cx: Cx, p: Proc, lp: Lwp): Exec<void> {
  let parent = p.pPptr!;
  if (parent.pSigacts.psNocldwait) {
    // Nobody will wait: init does, and a parent that waits for its last child learns that there is none.
    const init = cx.k.procs.initproc ?? cx.k.procs.proc0;
    procReparent(p, init);
    if (parent.pChildren.size === 0) wakeup(cx, parent);
    parent = init;
  }
  uschedExiting(cx, lp);
  p.pLwps.delete(lp.lwpTid);
  p.pNthreads = 0;
  p.pDeadThreads.push(cx.td);
  p.pStat = SZOMB;
  const signalled = (p.pXstat & 0x7f) !== 0;
  const info = siginfo(SIGCHLD, {
    siCode: signalled ? CLD_KILLED : CLD_EXITED,
    siStatus: signalled ? p.pXstat & 0x7f : p.pXstat >> 8,
    siPid: p.pPid,
    siUid: p.pUcred.crRuid,
  });
  if (p.pSigparent !== 0) ksignal(cx, parent, p.pSigparent, info);
  wakeup(cx, parent);
}

/** vfork's parent goes on. */
export function releaseParent(cx: Cx, p: Proc): void {
  if ((p.pFlags & P_PPWAIT) === 0) return;
  p.pFlags &= ~P_PPWAIT;
  wakeup(cx, p.pToken);
}

/** Children become init's. */
function reparentChildren(cx: Cx, p: Proc): void {
  const init = cx.k.procs.initproc ?? cx.k.procs.proc0;
  for (const child of [...p.pChildren]) {
    procReparent(child, init);
    child.pSigparent = SIGCHLD;
    if (child.pStat === SZOMB) wakeup(cx, init);
  }
}

/**
 * Ends all other threads of the process (`killalllwps`): each is marked and woken, and ends itself on its way to user mode. Waits until
 * they are off their processors.
 */
export function* killalllwps(cx: Cx, yields = false): Exec<void> {
  const own = cx.lwp!, p = own.lwpProc;
  if (p.pStat === SSTOP) procUnstop(cx, p);
  for (;;) {
    if (yields && p.pFlags & P_WEXIT) return yield* lwpExit(cx);
    let left = 0;
    for (const lp of p.pLwps.values()) {
      if (lp === own) continue;
      left++;
      if (lp.lwpMpflags & LWP_MP_WEXIT) continue;
      lp.lwpMpflags |= LWP_MP_WEXIT;
      lwpSignotify(cx, lp);
      wakeup(cx, stopIdent(lp));
    }
    if (left === 0) break;
    yield* tsleep(cx, p.pLwps, 0, "killlwps", 1);
  }
  yield* waitThreadsGone(cx, p);
}

/** Waits until ended threads have left their processors, whose address space they were in to the last. */
function* waitThreadsGone(cx: Cx, p: Proc): Exec<void> {
  for (let td = p.pDeadThreads[0]; td !== undefined; td = p.pDeadThreads[0]) {
    if (!td.tdAlive) p.pDeadThreads.shift();
    else yield* lwktDelay(cx, "lwpxt", 1);
  }
}

/** Ends the current thread (`lwp_exit`); the last one of a process ends that. */
export function* lwpExit(cx: Cx): Exec<never> {
  const lp = cx.lwp!, p = lp.lwpProc;
  if (p.pNthreads === 1 && (p.pFlags & P_WEXIT) === 0) return yield* exit1(cx, 0);
  yield* vkernelLwpExit(cx, lp);
  yield* clearTid(cx, lp);
  yield* vmxThreadDestroy(cx, lp);
  // Only what does not sleep follows.
  if (lp.lwpMpflags & LWP_MP_WSTOP) p.pNstopped--;
  lp.lwpMpflags &= ~LWP_MP_WSTOP;
  p.pRu.add(lp.lwpRu);
  procRusage(p, p.pRu, lp);
  uschedExiting(cx, lp);
  p.pLwps.delete(lp.lwpTid);
  p.pNthreads--;
  p.pDeadThreads.push(cx.td);
  wakeup(cx, p.pLwps);
  procStopped(cx, p);
  // Signals that were on their way to this thread are the others' now.
  for (const other of p.pLwps.values()) if (p.pSiglist !== 0n) lwpSignotify(cx, other);
  return yield* lwktExit(cx);
}

/** A word in user memory that says whether the thread lives becomes 0, and who waits for it is woken. */
function* clearTid(cx: Cx, lp: Lwp): Exec<void> {
  const at = lp.lwpClearTid;
  if (at === 0n) return;
  lp.lwpClearTid = 0n;
  if ((yield* copyout(cx, at, new Uint8Array(4))) === 0) yield* umtxWakeWord(cx, at, 1);
}

// ---- wait4

/** What wait4 found. */
export interface Waited {
  readonly pid: number;
  readonly status: number;
  /** What the child and its own children used. */
  readonly rusage: Rusage;
}

/**
 * Waits for a child (`kern_wait`).
 *
 * @param pid −1 any; 0 of the own group; < −1 of group −pid; else that one.
 * @returns What it found; 0 with WNOHANG if nothing yet; an error number as `{ error }`.
 */
export function* kernWait(
  cx: Cx,
  pid: number,
  options: number,
): Exec<Waited | 0 | { readonly error: number }> {
  const p = cx.proc!;
  if (options & ~(WNOHANG | WUNTRACED | WCONTINUED)) return { error: ERRNO.EINVAL };
  for (;;) {
    let children = 0;
    for (const child of p.pChildren) {
      if (!matches(p, child, pid)) continue;
      children++;
      if (child.pStat === SZOMB) return yield* reap(cx, p, child);
      const state = reportState(child, options);
      if (state !== undefined) return { pid: child.pPid, status: state, rusage: new Rusage() };
    }
    if (children === 0) return { error: ERRNO.ECHILD };
    if (options & WNOHANG) return 0;
    const error = yield* tsleep(cx, p, PCATCH, "wait", 0);
    if (error !== 0) return { error };
  }
}

function matches(p: Proc, child: Proc, pid: number): boolean {
  if (pid === -1) return true;
  if (pid === 0) return child.pPgrp === p.pPgrp;
  return pid > 0 ? child.pPid === pid : child.pPgrp.pgId === -pid;
}

/** Status of a child that stopped or went on, told once. */
function reportState(child: Proc, options: number): number | undefined {
  if (
    options & WUNTRACED && child.pStat === SSTOP && (child.pFlags & P_WAITED) === 0 &&
    child.pNstopped >= child.pNthreads
  ) {
    child.pFlags |= P_WAITED;
    return wStopcode(child.pXstat);
  }
  if (options & WCONTINUED && child.pStat === SACTIVE && child.pFlags & P_CONTINUED) {
    child.pFlags &= ~P_CONTINUED;
    return SIGCONT;
  }
  return undefined;
}

/** Takes a zombie apart. It leaves the parent's list first, so that no other thread of the parent finds it. */
function* reap(cx: Cx, p: Proc, child: Proc): Exec<Waited> {
  kassert(child.pStat === SZOMB, "kern_wait: the child is not a zombie");
  p.pChildren.delete(child);
  yield* waitThreadsGone(cx, child);
  while (child.pLock > 0) yield* lwktDelay(cx, "reap", 1);
  const rusage = new Rusage();
  rusage.add(child.pRu);
  rusage.add(child.pCru);
  p.pCru.add(rusage);
  yield* vmspaceExitfree(cx, child);
  if (--child.pSigacts.psRefcnt < 0) panic(cx, "kern_wait: signal actions are freed twice");
  procRemove(cx, child);
  return { pid: child.pPid, status: child.pXstat, rusage };
}

// ---- system calls

/** exit(rval) (1). */
function* sysExit(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  return yield* exit1(cx, wExitcode(uap.int(0)));
}

const EXTEXIT_SETINT = 1;
const EXTEXIT_LWP = 1 << 16;

/** extexit(how, status, addr) (494): ends the process or the thread, perhaps after storing `status` at `addr`. */
function* sysExtexit(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const how = uap.int(0), status = uap.int(1), addr = uap.arg(2);
  const action = how & 0xffff, who = how & ~0xffff;
  if (action > EXTEXIT_SETINT || (who !== 0 && who !== EXTEXIT_LWP)) return { error: ERRNO.EINVAL };
  if (action === EXTEXIT_SETINT) {
    const word = new Uint8Array(4);
    new DataView(word.buffer).setInt32(0, status, true);
    const error = yield* copyout(cx, addr, word);
    if (error !== 0) return { error };
  }
  const alone = cx.proc!.pNthreads === 1;
  if (who === EXTEXIT_LWP && !alone) return yield* lwpExit(cx);
  return yield* exit1(cx, wExitcode(status));
}

/** wait4(pid, status, options, rusage) (7). */
function* sysWait4(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const found = yield* kernWait(cx, uap.int(0), uap.int(2));
  if (found === 0) return { value: 0n };
  if ("error" in found) return found;
  const statusp = uap.arg(1), rusagep = uap.arg(3);
  if (statusp !== 0n) {
    const word = new Uint8Array(4);
    new DataView(word.buffer).setInt32(0, found.status, true);
    const error = yield* copyout(cx, statusp, word);
    if (error !== 0) return { error };
  }
  if (rusagep !== 0n) {
    const error = yield* writeRusage(cx, rusagep, found.rusage);
    if (error !== 0) return { error };
  }
  return { value: BigInt(found.pid) };
}

/** System calls of this file. */
export const exitSyscalls: SyscallTable = [
  [1, "exit", 1, sysExit],
  [7, "wait4", 4, sysWait4],
  [494, "extexit", 3, sysExtexit],
];
