/**
 * Sleeping and waking (`tsleep`, `wakeup` in `sys/kern/kern_synch.c`).
 *
 * Room: `kernel/lwkt/`; imports threads and callouts.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { ERRNO } from "../kern/errno.ts";
import { kassert, panic } from "../kern/panic.ts";
import { Callout, calloutReset, calloutStop } from "./callout.ts";
import { type Spinlock, spinLock, spinUnlock } from "./spinlock.ts";
import { lwktDeschedule, lwktSchedule, lwktSwitch, TDF, type Thread } from "./thread.ts";

/** A signal ends the sleep. */
export const PCATCH = 0x100;
/** {@link tsleepInterlock} has been called for this sleep. */
export const PINTERLOCKED = 0x400;

/** Who sleeps on what. */
export class SleepState {
  /** By what they sleep on; the first sleeper first. */
  readonly queues = new Map<object, Thread[]>();
  /**
   * Whether a signal must end (or keep from starting) a PCATCH sleep of the current process: 0, EINTR or ERESTART. Given by the part that
   * knows signals.
   */
  signalled: (cx: Cx) => number = () => 0;
}

/**
 * Puts the thread on the queue of `ident` before it looks for the last time whether it has to sleep (`tsleep_interlock`): a
 * {@link wakeup} from now on is not lost.
 */
export function tsleepInterlock(cx: Cx, ident: object, flags = 0): void {
  const td = cx.td;
  if (td.tdFlags & TDF.TSLEEPQ) tsleepRemove(cx, td);
  td.tdFlags |= TDF.TSLEEPQ | (flags & PCATCH ? TDF.SINTR : 0);
  td.tdWchan = ident;
  td.tdWakeError = 0;
  const { queues } = cx.k.sleep;
  const queue = queues.get(ident);
  if (queue === undefined) queues.set(ident, [td]);
  else queue.push(td);
}

/** Takes a thread off its sleep queue (`tsleep_remove`). */
export function tsleepRemove(cx: Cx, td: Thread): void {
  if ((td.tdFlags & TDF.TSLEEPQ) === 0) return;
  const ident = td.tdWchan!;
  const { queues } = cx.k.sleep;
  const queue = queues.get(ident)!;
  queue.splice(queue.indexOf(td), 1);
  if (queue.length === 0) queues.delete(ident);
  td.tdFlags &= ~(TDF.TSLEEPQ | TDF.SINTR);
  td.tdWchan = undefined;
}

/**
 * Sleeps until {@link wakeup} of `ident`, for at most `timo` ticks (0: without end).
 *
 * @returns 0; EWOULDBLOCK when the time was over; with PCATCH EINTR or ERESTART when a signal came.
 */
export function* tsleep(cx: Cx, ident: object, flags: number, wmesg: string, timo: number): Exec<number> {
  const td = cx.td;
  if (td === cx.gd.gdIdlethread) panic(cx, `tsleep: the idle thread would sleep ("${wmesg}")`);
  kassert(cx.gd.gdIntrNestingLevel === 0, () => `tsleep: an interrupt handler would sleep ("${wmesg}")`);
  if ((flags & PINTERLOCKED) === 0) tsleepInterlock(cx, ident, flags);
  else {
    if ((td.tdFlags & TDF.TSLEEPQ) === 0) return 0;
    if (flags & PCATCH) td.tdFlags |= TDF.SINTR;
  }
  if (flags & PCATCH && td.tdLwp !== undefined) {
    const error = cx.k.sleep.signalled(cx);
    if (error !== 0) {
      tsleepRemove(cx, td);
      return error;
    }
    // Looking for signals may have slept, and the wakeup come.
    if ((td.tdFlags & TDF.TSLEEPQ) === 0) return 0;
  }
  td.tdWmesg = wmesg;
  td.tdWakeError = 0;
  let timeout: Callout | undefined;
  if (timo > 0) {
    timeout = new Callout();
    calloutReset(cx, timeout, timo, (at) => lwktUnsleep(at, td, ERRNO.EWOULDBLOCK));
  }
  lwktDeschedule(cx, td);
  yield* lwktSwitch(cx);
  if (timeout !== undefined) calloutStop(cx, timeout);
  if (td.tdFlags & TDF.TSLEEPQ) tsleepRemove(cx, td);
  td.tdWmesg = "";
  if (td.tdWakeError === 0 && flags & PCATCH && td.tdLwp !== undefined) return cx.k.sleep.signalled(cx);
  return td.tdWakeError;
}

/** Sleeps with a spinlock let go meanwhile (`ssleep`). */
export function* ssleep(
  cx: Cx,
  ident: object,
  spin: Spinlock,
  flags: number,
  wmesg: string,
  timo: number,
): Exec<number> {
  tsleepInterlock(cx, ident, flags);
  spinUnlock(cx, spin);
  const error = yield* tsleep(cx, ident, flags | PINTERLOCKED, wmesg, timo);
  yield* spinLock(cx, spin);
  return error;
}

/** Ends a thread's sleep with a result, if it sleeps (`setrunnable` from a timeout or a signal). */
export function lwktUnsleep(cx: Cx, td: Thread, error: number): void {
  if ((td.tdFlags & TDF.TSLEEPQ) === 0) return;
  tsleepRemove(cx, td);
  td.tdWakeError = error;
  lwktSchedule(cx, td);
}

/** Ends the sleep of a thread that a signal may wake; returns whether it slept so. */
export function lwktInterruptSleep(cx: Cx, td: Thread): boolean {
  if ((td.tdFlags & (TDF.TSLEEPQ | TDF.SINTR)) !== (TDF.TSLEEPQ | TDF.SINTR)) return false;
  lwktUnsleep(cx, td, 0);
  return true;
}

/** Wakes all that sleep on `ident` (`wakeup`). */
export function wakeup(cx: Cx, ident: object): void {
  const { queues } = cx.k.sleep;
  for (let queue = queues.get(ident); queue !== undefined; queue = queues.get(ident)) {
    lwktUnsleep(cx, queue[0]!, 0);
  }
}

/** Wakes the one that has slept on `ident` longest (`wakeup_one`). */
export function wakeupOne(cx: Cx, ident: object): void {
  const td = cx.k.sleep.queues.get(ident)?.[0];
  if (td !== undefined) lwktUnsleep(cx, td, 0);
}

/** Sleeps a moment for nothing in particular (`tsleep(&dummy)`), for retries. */
export function lwktDelay(cx: Cx, wmesg: string, timo: number): Exec<number> {
  return tsleep(cx, {}, 0, wmesg, Math.max(1, timo));
}
