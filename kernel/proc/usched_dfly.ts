/**
 * The user scheduler (`sys/kern/usched_dfly.c`): which thread may be in user mode on which processor.
 *
 * Room: `kernel/proc/`; imports lwkt. Plain functions but for the acquisition, which switches.
 *
 * lwkt schedules threads in the kernel. Of those that want to user mode each processor admits one, `uschedcp`; the others stand, not
 * runnable for lwkt, on the processor's run queues here: 32 of them by priority. A thread acquires the seat on its way to user mode
 * and gives it up when it sleeps (the passive release: {@link "../lwkt/thread.ts"} calls tdRelease at a switch that it does not come
 * back from by itself), when its time slice is over, or to a better one.
 *
 *     priority = base by nice (0 … 80) + recent use (0 … 47);   lower is better;   queue = priority / 4
 *
 * What is left out of DragonFly's: the real-time and idle classes, the topology of cores, and weights by memory use.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { type Globaldata, RQF } from "../lwkt/globaldata.ts";
import {
  lwktDeschedule,
  lwktSchedule,
  lwktSetcpuSelf,
  lwktSetpri,
  lwktSwitch,
  TDF,
  TDPRI,
  type Thread,
} from "../lwkt/thread.ts";
import { type Lwp, LWP_ONRUNQ } from "./proc.ts";

/** Run queues (`NQS`). */
export const NQS = 32;
/** Priorities in a queue (`PPQ`). */
export const PPQ = 4;
/** Ticks of a time slice (`usched_dfly_rrinterval`). */
export const RRINTERVAL = 10;
/** Largest recent use. */
export const ESTCPUMAX = 470;
/** Ticks between two decays of the recent use. */
const DECAY_TICKS = 100;
/** What a tick of user or system time adds to the recent use. */
const ESTCPU_TICK = 4;

/** A processor's share (`struct usched_dfly_pcpu`). */
export class UschedPcpu {
  /** The thread that has the seat. */
  uschedcp: Lwp | undefined = undefined;
  /** Its priority. */
  upri = 127;
  /** Threads that want it, by queue, first come first served. */
  readonly queues: Lwp[][] = Array.from({ length: NQS }, () => []);
  /** How many they are (`runqcount`). */
  runqcount = 0;
}

/** The scheduler of a kernel. */
export class UschedState {
  /** By processor. */
  readonly pcpu: UschedPcpu[] = [];
  /** Given out by rotation to new threads. */
  nextCpu = 0;
}

function pcpuOf(cx: Cx, gd: Globaldata): UschedPcpu {
  const { pcpu } = cx.k.usched;
  // All up to this one: pull() looks at every processor, also at one that nobody has used yet.
  while (pcpu.length <= gd.gdCpuid) pcpu.push(new UschedPcpu());
  return pcpu[gd.gdCpuid]!;
}

/** Computes a thread's priority anew (`dfly_resetpriority`). */
export function resetpriority(lp: Lwp): void {
  const ud = lp.lwpUsdata;
  const base = (lp.lwpProc.pNice + 20) * 2;
  ud.priority = Math.min(127, base + Math.floor(ud.estcpu / 10));
}

/**
 * Waits until the current thread has the seat of its processor (`dfly_acquire_curproc`). Called on the way to user mode, interrupts on, no
 * token held.
 */
export function* acquireCurproc(cx: Cx): Exec<void> {
  const lp = cx.lwp!, td = cx.td;
  decay(cx, lp);
  if (cx.gd.gdReqflags & RQF.AST_USER_RESCHED) {
    cx.gd.gdReqflags &= ~RQF.AST_USER_RESCHED;
    const dd = pcpuOf(cx, cx.gd);
    if (dd.uschedcp === lp && better(dd, lp)) releaseCurproc(cx, lp);
  }
  for (;;) {
    const gd = cx.gd, dd = pcpuOf(cx, gd);
    const holder = dd.uschedcp;
    if (holder === lp) break;
    if (holder === undefined ? !better(dd, lp) : lp.lwpUsdata.priority + PPQ <= dd.upri) {
      // A holder that is displaced is in the kernel, since this thread runs: it comes here again before it leaves it.
      dd.uschedcp = lp;
      if (holder !== undefined) displace(cx, holder.lwpThread!);
      break;
    }
    const idle = idleCpu(cx);
    if (idle !== undefined) {
      yield* lwktSetcpuSelf(cx, idle);
      continue;
    }
    lwktDeschedule(cx, td);
    enqueue(dd, lp);
    if (holder === undefined) selectCurproc(cx, gd);
    yield* lwktSwitch(cx);
  }
  const dd = pcpuOf(cx, cx.gd);
  dd.upri = lp.lwpUsdata.priority;
  lp.lwpUsdata.qcpu = cx.gd.gdCpuid;
  td.tdRelease = passiveRelease;
  lwktSetpri(cx, td, TDPRI.USER_NORM);
}

/** A thread in the kernel loses its seat: it finishes there before anybody's user mode. */
function displace(cx: Cx, td: Thread): void {
  td.tdRelease = undefined;
  lwktSetpri(cx, td, TDPRI.KERN_USER);
}

/** A thread that has the seat blocks (`lwkt_passive_release`): it gets a kernel priority, and the seat goes on. */
function passiveRelease(cx: Cx, td: Thread): void {
  td.tdRelease = undefined;
  lwktSetpri(cx, td, TDPRI.KERN_USER);
  if (td.tdLwp !== undefined) releaseCurproc(cx, td.tdLwp);
}

/** Gives the seat up if the thread has it (`dfly_release_curproc`), to the best one that waits. */
export function releaseCurproc(cx: Cx, lp: Lwp): void {
  const gd = lp.lwpThread!.tdGd, dd = pcpuOf(cx, gd);
  if (dd.uschedcp !== lp) return;
  dd.uschedcp = undefined;
  dd.upri = 127;
  selectCurproc(cx, gd);
}

/** Gives a free seat to the best waiting thread of this processor, else of another one that has too many (`dfly_select_curproc`). */
function selectCurproc(cx: Cx, gd: Globaldata): void {
  const dd = pcpuOf(cx, gd);
  kassert(dd.uschedcp === undefined, "dfly_select_curproc: the seat is taken");
  const next = dequeueBest(dd) ?? pull(cx, gd);
  if (next === undefined) return;
  dd.uschedcp = next;
  dd.upri = next.lwpUsdata.priority;
  next.lwpUsdata.rrcount = 0;
  lwktSchedule(cx, next.lwpThread!);
}

/** Takes a waiting thread from the processor that has most of them. */
function pull(cx: Cx, gd: Globaldata): Lwp | undefined {
  let from: UschedPcpu | undefined;
  for (const dd of cx.k.usched.pcpu) if (dd.runqcount > (from?.runqcount ?? 0)) from = dd;
  for (const queue of from?.queues ?? []) {
    for (const lp of queue) {
      const td = lp.lwpThread!;
      // One that is still on its way off its processor, or about to be awake, stays.
      if (td.tdFlags & (TDF.RUNNING | TDF.RUNQ | TDF.MIGRATING | TDF.TSLEEPQ)) continue;
      remove(from!, lp);
      td.tdGd = gd;
      return lp;
    }
  }
  return undefined;
}

/** Whether somebody waits for the seat whose queue is at least as good as the thread's. */
function better(dd: UschedPcpu, lp: Lwp): boolean {
  if (dd.runqcount === 0) return false;
  const own = Math.floor(lp.lwpUsdata.priority / PPQ);
  for (let q = 0; q <= own; q++) if (dd.queues[q]!.length > 0) return true;
  return false;
}

/** A processor other than this one whose seat is free and wanted by nobody. */
function idleCpu(cx: Cx): Globaldata | undefined {
  for (const gd of cx.k.lwkt.gds) {
    if (gd === cx.gd || (cx.k.lwkt.smpActiveMask & gd.gdCpumask) === 0) continue;
    const dd = pcpuOf(cx, gd);
    if (dd.uschedcp === undefined && dd.runqcount === 0 && gd.gdCurthread === gd.gdIdlethread) return gd;
  }
  return undefined;
}

function enqueue(dd: UschedPcpu, lp: Lwp): void {
  kassert((lp.lwpFlags & LWP_ONRUNQ) === 0, "dfly_setrunqueue: the thread is queued already");
  lp.lwpFlags |= LWP_ONRUNQ;
  lp.lwpUsdata.rqindex = Math.floor(lp.lwpUsdata.priority / PPQ);
  dd.queues[lp.lwpUsdata.rqindex]!.push(lp);
  dd.runqcount++;
}

function remove(dd: UschedPcpu, lp: Lwp): void {
  const queue = dd.queues[lp.lwpUsdata.rqindex]!;
  queue.splice(queue.indexOf(lp), 1);
  dd.runqcount--;
  lp.lwpFlags &= ~LWP_ONRUNQ;
  lp.lwpUsdata.rqindex = -1;
}

function dequeueBest(dd: UschedPcpu): Lwp | undefined {
  if (dd.runqcount === 0) return undefined;
  for (const queue of dd.queues) {
    const lp = queue[0];
    if (lp === undefined) continue;
    remove(dd, lp);
    return lp;
  }
  return undefined;
}

/** The processor for a new thread: an idle one, else by turns. */
export function chooseCpu(cx: Cx): Globaldata {
  const { usched, lwkt } = cx.k;
  const here = pcpuOf(cx, cx.gd);
  const idle = idleCpu(cx);
  if (idle !== undefined) return idle;
  if (here.runqcount === 0) return cx.gd;
  const active = lwkt.gds.filter((gd) => lwkt.smpActiveMask & gd.gdCpumask);
  return active[usched.nextCpu++ % active.length] ?? cx.gd;
}

/** A new thread starts with its parent's recent use, so that forking is no way around it (`dfly_heuristic_forking`). */
export function heuristicForking(from: Lwp, lp: Lwp): void {
  lp.lwpUsdata.estcpu = from.lwpUsdata.estcpu;
  resetpriority(lp);
}

/** The clock's tick on a processor (`dfly_schedulerclock`): the running thread has used it; its slice may be over. */
export function schedulerclock(cx: Cx): void {
  const lp = cx.gd.gdCurthread.tdLwp;
  if (lp === undefined) return;
  const ud = lp.lwpUsdata;
  ud.cpticks++;
  ud.estcpu = Math.min(ESTCPUMAX, ud.estcpu + ESTCPU_TICK);
  resetpriority(lp);
  const { gd } = cx, dd = pcpuOf(cx, gd);
  if (dd.uschedcp === lp) dd.upri = ud.priority;
  // A thread that lost its seat, or a tie: lwkt's queue gets its turn on the way to user mode (`lwkt_schedulerclock`).
  const first = gd.gdTdrunq[0];
  if (first !== undefined && first.tdPri >= gd.gdCurthread.tdPri) gd.gdReqflags |= RQF.AST_LWKT_RESCHED;
  if (++ud.rrcount < RRINTERVAL) return;
  ud.rrcount = 0;
  if (dd.runqcount > 0) gd.gdReqflags |= RQF.AST_USER_RESCHED;
}

/** Recent use fades: by a third each second, whether the thread ran or slept (`dfly_recalculate_estcpu`). */
function decay(cx: Cx, lp: Lwp): void {
  const ud = lp.lwpUsdata;
  const periods = Math.floor((cx.k.ticks - ud.cpbase) / DECAY_TICKS);
  if (periods <= 0) return;
  lp.lwpPctcpu = Math.floor(ud.cpticks * 2048 / (periods * DECAY_TICKS));
  ud.cpticks = 0;
  ud.cpbase += periods * DECAY_TICKS;
  ud.estcpu = Math.floor(ud.estcpu * (2 / 3) ** Math.min(periods, 32));
  resetpriority(lp);
}

/** sched_yield: behind the others of the same queue (`dfly_yield`), and behind those who are on their way to it (`lwkt_yield`). */
export function uschedYield(cx: Cx): void {
  cx.gd.gdReqflags |= RQF.AST_USER_RESCHED | RQF.AST_LWKT_RESCHED;
}

/** The thread ends: nothing here knows it any more (`dfly_exiting`). */
export function uschedExiting(cx: Cx, lp: Lwp): void {
  const td = lp.lwpThread!;
  td.tdRelease = undefined;
  for (const dd of cx.k.usched.pcpu) {
    if (lp.lwpFlags & LWP_ONRUNQ && dd.queues[lp.lwpUsdata.rqindex]?.includes(lp)) remove(dd, lp);
  }
  releaseCurproc(cx, lp);
}
