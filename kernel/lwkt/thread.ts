/**
 * LWKT threads (`sys/kern/lwkt_thread.c`): what a thread is, the run queues, switching, critical sections.
 *
 * Room: `kernel/lwkt/`; imports globaldata, tokens and IPI queues by their types, and the platform through the context.
 *
 * A thread's kernel code is a continuation (hw/gates.ts) on a kernel stack of its own. Switching is machine code of the platform
 * (`cpu_heavy_switch`): it saves the stack pointer and the continuation's id of one thread and loads those of another. A thread
 * runs on the processor that owns it ({@link Thread.tdGd}) and on no other; only that processor's code changes its run queue, others
 * send it a message. A thread leaves its processor only by {@link lwktSetcpuSelf}, while it does not run.
 *
 * The kernel is not preempted: an interrupt that comes in kernel mode runs its handler and goes back. A thread gives the processor up
 * when it sleeps, when it yields, and on its way to user mode.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import { R } from "../../hw/state.ts";
import type { Cx } from "../context.ts";
import { kassert, panic } from "../kern/panic.ts";
import type { Lwp, Proc } from "../proc/proc.ts";
import { type Globaldata, RQF, RQF_IDLECHECK_MASK } from "./globaldata.ts";
import { ipiqEnqueue, lwktProcessIpiq } from "./ipiq.ts";
import { dropRef, lwktGetalltokens, lwktRelalltokens, type LwktTokref } from "./tokref.ts";

/** `td_pri`: larger is more urgent (`sys/sys/thread.h`). */
export const TDPRI = {
  IDLE_THREAD: 0,
  IDLE_WORK: 1,
  USER_SCHEDULER: 2,
  USER_IDLE: 4,
  USER_NORM: 6,
  USER_REAL: 8,
  KERN_LPSCHED: 9,
  KERN_USER: 10,
  KERN_DAEMON: 12,
  SOFT_NORM: 14,
  SOFT_TIMER: 16,
  EXITING: 19,
  INT_SUPPORT: 20,
  INT_LOW: 27,
  INT_MED: 28,
  INT_HIGH: 29,
  MAX: 31,
} as const;

/** `td_flags`. */
export const TDF = {
  /** On a processor now, or not yet looked after by the one that follows. */
  RUNNING: 0x1,
  /** On a run queue. */
  RUNQ: 0x2,
  /** Between two processors. */
  MIGRATING: 0x10,
  /** A signal ends its sleep. */
  SINTR: 0x20,
  /** On a sleep queue. */
  TSLEEPQ: 0x40,
  /** Told to be ready before it slept (`tsleep_interlock`). */
  TSLEEP_DESCHEDULED: 0x80,
  /** Waits for tokens and has none: {@link lwktWaitTokens}. */
  TOKWAIT: 0x200,
  /** Has called {@link lwktExit}. */
  EXITING: 0x400,
  /** Belongs to the kernel alone. */
  KERNTHREAD: 0x800,
  /** vm_fault fails rather than sleeps. */
  NOFAULT: 0x1000,
  /** May go below `vFreeReserved`: it makes memory free (`TDF_SYSTHREAD`). */
  SYSTHREAD: 0x2000,
} as const;

/** One thread (`struct thread`). */
export class Thread {
  /** `td_comm`. */
  tdComm: string;
  /** The processor that owns it. */
  tdGd!: Globaldata;
  /** `td_pri`: a TDPRI_ number. */
  tdPri: number;
  /** `td_flags`. */
  tdFlags = 0;
  /** `td_critcount`: critical sections entered. A thread that does not run is in one. */
  tdCritcount = 1;
  /** `td_cscount`: rendezvous that it is the master of. */
  tdCscount = 0;
  /** Spinlocks held. */
  tdSpinlocks = 0;
  /** `td_toks`: tokens held, in the order in which they were taken; while it does not run, tokens that it needs. */
  readonly tdToks: LwktTokref[] = [];
  /** The continuation in which it called {@link lwktExit}. */
  tdGate = 0n;
  /** `td_lwp`. */
  tdLwp: Lwp | undefined = undefined;
  /** `td_proc`. */
  tdProc: Proc | undefined = undefined;
  /** `td_pcb`: where its registers are kept while it does not run. */
  readonly tdPcb: Gva;
  /** Lowest address of its kernel stack. */
  readonly tdKstack: Gva;
  /** What it does; undefined for an lwp, which goes to user mode. May be changed until the thread first runs. */
  tdFn: ((cx: Cx) => Exec<void>) | undefined;
  /** `td_wchan`: what it sleeps on. */
  tdWchan: object | undefined = undefined;
  /** `td_wmesg`: why it sleeps, for people. */
  tdWmesg = "";
  /** What the sleep that just ended gives. */
  tdWakeError = 0;
  /** Where the thread is wanted, while it is MIGRATING. */
  tdMigrateGd: Globaldata | undefined = undefined;
  /** `td_uticks`, `td_sticks`, `td_iticks`: clock ticks seen in user mode, in the kernel, in an interrupt. */
  tdUticks = 0;
  tdSticks = 0;
  tdIticks = 0;
  /** Switches to it: of its own will, and because its time was over. */
  tdVcsw = 0;
  tdIvcsw = 0;
  /** `td_release`: called when the thread gives the processor up without being on its way to user mode: it gives its seat up too. */
  tdRelease: ((cx: Cx, td: Thread) => void) | undefined = undefined;
  /** Cleared when its stack may be given away (`lwkt_reaper`). */
  tdAlive = true;

  /** Made by {@link lwktCreate} and the platform. */
  constructor(
    options: {
      readonly name: string;
      readonly pri: number;
      readonly pcb: Gva;
      readonly kstack: Gva;
      readonly fn: ((cx: Cx) => Exec<void>) | undefined;
    },
  ) {
    this.tdComm = options.name;
    this.tdPri = options.pri;
    this.tdPcb = options.pcb;
    this.tdKstack = options.kstack;
    this.tdFn = options.fn;
  }
}

/** State of this part of a kernel. */
export class LwktState {
  /** Every thread that has not ended, in the order of their making. */
  readonly allThreads = new Set<Thread>();
  /** `smp_active_mask`: processors that take part. */
  smpActiveMask = 0;
  /** By processor. */
  readonly gds: Globaldata[] = [];
  /** Ended threads whose stacks wait to be taken back. */
  readonly reap: Thread[] = [];
  /** Switches from one thread to another. */
  switches = 0;
}

/** How a thread is made. */
export interface LwktCreateOptions {
  readonly name: string;
  /** Default: TDPRI.KERN_DAEMON. */
  readonly pri?: number;
  /** Default: the processor at hand. */
  readonly gd?: Globaldata;
  readonly lwp?: Lwp;
}

/** Makes a thread that will run `fn`; it is not scheduled yet (`lwkt_create` with TDF_STOPREQ). Without `fn` the platform's trampoline goes to user mode. */
export function* lwktCreate(
  cx: Cx,
  fn: ((cx: Cx) => Exec<void>) | undefined,
  options: LwktCreateOptions,
): Exec<Thread> {
  yield* lwktReapAll(cx);
  const { pcb, kstack } = yield* cx.k.platform.allocKstack(cx);
  const td = new Thread({ name: options.name, pri: options.pri ?? TDPRI.KERN_DAEMON, pcb, kstack, fn });
  td.tdGd = options.gd ?? cx.gd;
  td.tdLwp = options.lwp;
  if (options.lwp === undefined) td.tdFlags |= TDF.KERNTHREAD;
  yield* cx.k.platform.cpuInitThread(cx, td);
  cx.k.lwkt.allThreads.add(td);
  return td;
}

/** Makes and schedules a kernel thread (`kthread_create`). */
export function* kthreadCreate(
  cx: Cx,
  fn: (cx: Cx) => Exec<void>,
  name: string,
  gd?: Globaldata,
): Exec<Thread> {
  const td = yield* lwktCreate(cx, fn, gd === undefined ? { name } : { name, gd });
  lwktSchedule(cx, td);
  return td;
}

// ---- critical sections

/** `crit_enter`. */
export function critEnter(cx: Cx): void {
  cx.td.tdCritcount++;
}

/** `crit_exit`: what came meanwhile runs when the last section ends. */
export function* critExit(cx: Cx): Exec<void> {
  const td = cx.td;
  if (--td.tdCritcount === 0 && cx.gd.gdReqflags & RQF_IDLECHECK_MASK) yield* splz(cx);
}

/** `crit_exit_noyield`: as {@link critExit}; what came meanwhile waits for the next one. */
export function critExitNoyield(cx: Cx): void {
  cx.td.tdCritcount--;
}

/** Runs what interrupts left behind while they could not (`splz`). */
export function* splz(cx: Cx): Exec<void> {
  for (;;) {
    const gd = cx.gd;
    if ((gd.gdReqflags & RQF_IDLECHECK_MASK) === 0) return;
    cx.td.tdCritcount++;
    if (gd.gdReqflags & RQF.IPIQ) yield* lwktProcessIpiq(cx);
    else {
      gd.gdReqflags &= ~(RQF.INTPEND | RQF.TIMER);
      yield* cx.k.platform.runPending(cx);
    }
    cx.td.tdCritcount--;
  }
}

// ---- run queues

/** Puts a thread of this processor on its run queue: behind those of its priority, or before them. */
function lwktEnqueue(td: Thread, first: boolean): void {
  kassert((td.tdFlags & TDF.RUNQ) === 0, "lwkt_enqueue: the thread is queued already");
  td.tdFlags |= TDF.RUNQ;
  const queue = td.tdGd.gdTdrunq;
  let at = queue.length;
  while (at > 0 && (queue[at - 1]!.tdPri < td.tdPri || (first && queue[at - 1]!.tdPri === td.tdPri))) at--;
  queue.splice(at, 0, td);
}

function lwktDequeue(td: Thread): void {
  if ((td.tdFlags & TDF.RUNQ) === 0) return;
  td.tdFlags &= ~TDF.RUNQ;
  const queue = td.tdGd.gdTdrunq;
  queue.splice(queue.indexOf(td), 1);
}

/** Makes a thread runnable (`lwkt_schedule`); one of another processor by a message to it. */
export function lwktSchedule(cx: Cx, td: Thread): void {
  const gd = cx.gd;
  if (td.tdGd !== gd) {
    ipiqEnqueue(cx, td.tdGd, lwktScheduleRemote, td);
    return;
  }
  if (td.tdFlags & (TDF.RUNQ | TDF.MIGRATING) || !td.tdAlive || td === gd.gdIdlethread) return;
  if (td === gd.gdCurthread) {
    // It is on its way into lwkt_switch, or did not leave: it stays runnable.
    lwktEnqueue(td, false);
    return;
  }
  lwktEnqueue(td, false);
  if (td.tdPri > gd.gdCurthread.tdPri) gd.gdReqflags |= RQF.AST_LWKT_RESCHED;
}

function lwktScheduleRemote(cx: Cx, arg: unknown): void {
  lwktSchedule(cx, arg as Thread);
}

/** Takes a thread off its run queue (`lwkt_deschedule`); of this processor only. */
export function lwktDeschedule(cx: Cx, td: Thread): void {
  kassert(td.tdGd === cx.gd, "lwkt_deschedule: the thread belongs to another processor");
  lwktDequeue(td);
}

/** Changes a thread's priority (`lwkt_setpri`); of this processor only. */
export function lwktSetpri(cx: Cx, td: Thread, pri: number): void {
  kassert(td.tdGd === cx.gd, "lwkt_setpri: the thread belongs to another processor");
  if (td.tdPri === pri) return;
  const queued = (td.tdFlags & TDF.RUNQ) !== 0;
  lwktDequeue(td);
  td.tdPri = pri;
  if (queued) lwktEnqueue(td, false);
}

// ---- switching

/**
 * Gives the processor to the most urgent runnable thread that can have the tokens it needs (`lwkt_switch`). The caller comes back when it
 * has been scheduled and its turn comes, with its tokens; whatever they protect may have changed.
 */
export function* lwktSwitch(cx: Cx): Exec<void> {
  const td = cx.td;
  if (td.tdSpinlocks !== 0) panic(cx, `lwkt_switch: "${td.tdComm}" holds a spinlock`);
  if (td.tdCscount !== 0) panic(cx, `lwkt_switch: "${td.tdComm}" is the master of a rendezvous`);
  td.tdCritcount++;
  // Who only yields keeps its seat in user mode, and its priority.
  if ((td.tdFlags & TDF.RUNQ) === 0) td.tdRelease?.(cx, td);
  if (td.tdFlags & TDF.TOKWAIT) td.tdFlags &= ~TDF.TOKWAIT;
  else lwktRelalltokens(td);
  const enabled = cx.interruptsEnabled;
  for (;;) {
    const gd = cx.gd;
    if (gd.gdReqflags & RQF_IDLECHECK_MASK) {
      // Handlers want to be outside a critical section; nothing here minds them.
      td.tdCritcount--;
      yield* splz(cx);
      td.tdCritcount++;
    }
    yield* cx.k.platform.flushIpis(cx);
    cx.setInterrupts(false);
    const next = chooseThread(gd);
    if (next === td) {
      lwktDequeue(td);
      cx.setInterrupts(enabled);
      break;
    }
    if (next === undefined) {
      // Somebody else has the tokens that the runnable threads need, and this is the idle thread.
      cx.setInterrupts(enabled);
      yield* cx.pause();
      continue;
    }
    gd.gdReqflags &= ~RQF.AST_LWKT_RESCHED;
    lwktDequeue(next);
    gd.gdPrevthread = td;
    gd.gdCurthread = next;
    next.tdFlags |= TDF.RUNNING;
    cx.k.lwkt.switches++;
    cx.k.vmmeter.vSwtch++;
    if (td.tdFlags & TDF.RUNQ) td.tdIvcsw++;
    else td.tdVcsw++;
    yield* cx.k.platform.cpuSwitch(cx, td, next);
    lwktSwitchReturn(cx);
    cx.setInterrupts(enabled);
    break;
  }
  yield* critExit(cx);
}

/** The thread to run: the most urgent one whose tokens are free (it has them then), else the idle thread. */
function chooseThread(gd: Globaldata): Thread | undefined {
  let contended = false;
  for (const td of gd.gdTdrunq) {
    if (lwktGetalltokens(td)) return td;
    contended = true;
  }
  const idle = gd.gdIdlethread;
  if (contended) gd.gdReqflags |= RQF.SPINNING;
  if (gd.gdCurthread !== idle) return idle;
  return contended ? undefined : idle;
}

/** First thing that a thread does when it has the processor: looks after the one before it (`lwkt_switch_return`). */
export function lwktSwitchReturn(cx: Cx): void {
  const gd = cx.gd;
  const prev = gd.gdPrevthread;
  gd.gdPrevthread = undefined;
  if (prev === undefined) return;
  // Only now are its registers saved: another processor may take it (dfly_select_curproc).
  prev.tdFlags &= ~TDF.RUNNING;
  cx.k.platform.switchedFrom(cx, prev);
  if (prev.tdFlags & TDF.MIGRATING) {
    const target = prev.tdMigrateGd!;
    prev.tdMigrateGd = undefined;
    prev.tdGd = target;
    prev.tdFlags &= ~TDF.MIGRATING;
    ipiqEnqueue(cx, target, lwktScheduleRemote, prev);
  }
  if (prev.tdFlags & TDF.EXITING) {
    prev.tdAlive = false;
    cx.k.lwkt.allThreads.delete(prev);
    cx.k.lwkt.reap.push(prev);
  }
}

/** Lets threads of the same or higher priority run (`lwkt_yield`). */
export function* lwktYield(cx: Cx): Exec<void> {
  const td = cx.td;
  if (td === cx.gd.gdIdlethread) return yield* lwktSwitch(cx);
  if ((td.tdFlags & TDF.RUNQ) === 0) lwktEnqueue(td, false);
  yield* lwktSwitch(cx);
}

/**
 * Waits for tokens, the newest of which the thread does not have yet: the others are let go, and the thread is on a run queue until all can be
 * had.
 */
export function* lwktWaitTokens(cx: Cx, newest: LwktTokref): Exec<void> {
  const td = cx.td;
  // lwkt_switch would release all that are listed.
  for (const ref of td.tdToks) if (ref !== newest) dropRef(ref);
  td.tdFlags |= TDF.TOKWAIT;
  if ((td.tdFlags & TDF.RUNQ) === 0) lwktEnqueue(td, false);
  yield* lwktSwitch(cx);
}

/** Lets threads of user level run too (`lwkt_user_yield`): for long work on behalf of a process. */
export function* lwktUserYield(cx: Cx): Exec<void> {
  const gd = cx.gd;
  if (gd.gdReqflags & RQF_IDLECHECK_MASK && cx.td.tdCritcount === 0) yield* splz(cx);
  if (cx.gd.gdReqflags & RQF.AST_LWKT_RESCHED || cx.gd.gdTdrunq.some((td) => td.tdPri > cx.td.tdPri)) {
    yield* lwktYield(cx);
  } else yield;
}

/** Moves the running thread to another processor (`lwkt_setcpu_self`). */
export function* lwktSetcpuSelf(cx: Cx, target: Globaldata): Exec<void> {
  if (cx.gd === target) return;
  const td = cx.td;
  kassert(td.tdSpinlocks === 0, "lwkt_setcpu_self: a spinlock is held");
  critEnter(cx);
  td.tdFlags |= TDF.MIGRATING;
  td.tdMigrateGd = target;
  lwktDequeue(td);
  yield* lwktSwitch(cx);
  yield* critExit(cx);
}

/** Ends the running thread (`lwkt_exit`). */
export function* lwktExit(cx: Cx): Exec<never> {
  const td = cx.td;
  kassert(td.tdToks.length === 0, `lwkt_exit: "${td.tdComm}" holds tokens`);
  cx.setInterrupts(false);
  td.tdFlags |= TDF.EXITING;
  td.tdGate = cx.cpu.gpr(R.R15);
  td.tdLwp = undefined;
  td.tdProc = undefined;
  lwktDequeue(td);
  yield* lwktSwitch(cx);
  return panic(cx, `lwkt_exit: "${td.tdComm}" came back`);
}

/** Gives the stacks of ended threads back. Called by whoever makes threads, and by the idle threads. */
export function* lwktReapAll(cx: Cx): Exec<void> {
  for (let td = cx.k.lwkt.reap.pop(); td !== undefined; td = cx.k.lwkt.reap.pop()) {
    // Nobody will take it up again. (What ran in a process's own space ends with that; this is for the kernel's.)
    cx.cpu.gates.drop(td.tdGate);
    yield* cx.k.platform.freeKstack(cx, td);
  }
}

/** What an idle thread does (`cpu_idle`). */
export function* lwktIdle(cx: Cx): Exec<never> {
  const { platform } = cx.k;
  cx.td.tdCritcount = 0;
  for (;;) {
    cx.setInterrupts(true);
    if (cx.gd.gdReqflags & RQF_IDLECHECK_MASK) yield* splz(cx);
    yield* platform.consoleDrain(cx);
    yield* platform.flushIpis(cx);
    const gd = cx.gd;
    if (gd.gdTdrunq.length > 0) {
      gd.gdReqflags &= ~RQF.SPINNING;
      yield* lwktSwitch(cx);
      yield;
      continue;
    }
    cx.setInterrupts(false);
    if (gd.gdReqflags & RQF_IDLECHECK_MASK || gd.gdTdrunq.length > 0) continue;
    yield* platform.cpuHalt(cx);
  }
}
