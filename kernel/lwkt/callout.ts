/**
 * Timed calls (`sys/kern/kern_timeout.c`) and the kernel's clocks.
 *
 * Room: `kernel/lwkt/`; imports the context.
 *
 * The first processor's clock interrupt counts `k.ticks` and runs what is due; a call runs in that interrupt and must not sleep.
 *
 * @module
 */
import type { Cx } from "../context.ts";

/** Clock interrupts a second (`hz`). */
export const hz = 100;
/** Microseconds of a tick of the clock. */
export const ustick: number = 1_000_000 / hz;

/** A timed call (`struct callout`). */
export class Callout {
  /** Tick at which it is due. */
  cTime = 0;
  /** What runs; undefined while it is not armed. */
  cFunc: ((cx: Cx) => void) | undefined = undefined;
}

/** Armed calls by tick of a kernel. */
export class CalloutState {
  /** By tick; those of one tick in the order of their arming. */
  readonly wheel = new Map<number, Set<Callout>>();
  /** The next tick that has not been looked at. */
  softticks = 0;
}

/** Arms a call in so many ticks, at least one (`callout_reset`); a pending one is moved. */
export function calloutReset(cx: Cx, c: Callout, ticks: number, fn: (cx: Cx) => void): void {
  calloutStop(cx, c);
  c.cTime = cx.k.ticks + Math.max(1, Math.min(Math.ceil(ticks), 2 ** 40));
  c.cFunc = fn;
  const { wheel } = cx.k.callouts;
  const slot = wheel.get(c.cTime);
  if (slot === undefined) wheel.set(c.cTime, new Set([c]));
  else slot.add(c);
}

/** Disarms a call (`callout_stop`); returns whether it was armed. */
export function calloutStop(cx: Cx, c: Callout): boolean {
  if (c.cFunc === undefined) return false;
  c.cFunc = undefined;
  const { wheel } = cx.k.callouts;
  const slot = wheel.get(c.cTime);
  slot?.delete(c);
  if (slot?.size === 0) wheel.delete(c.cTime);
  return true;
}

/** Runs what is due (`softclock`); called by the first processor's clock interrupt. */
export function softclock(cx: Cx): void {
  const state = cx.k.callouts;
  for (; state.softticks <= cx.k.ticks; state.softticks++) {
    const slot = state.wheel.get(state.softticks);
    if (slot === undefined) continue;
    for (const c of slot) {
      const fn = c.cFunc;
      if (calloutStop(cx, c)) fn!(cx);
    }
  }
}

/** A time (`struct timespec`). */
export interface Timespec {
  readonly sec: number;
  readonly nsec: number;
}

/** Time since the kernel's start, exact (`nanouptime`). */
export function getnanouptime(cx: Cx): Timespec {
  const ns = cx.k.platform.uptimeNs(cx);
  return { sec: Math.floor(ns / 1e9), nsec: Math.floor(ns % 1e9) };
}

/** Time of day (`nanotime`): seconds since 1970. */
export function getnanotime(cx: Cx): Timespec {
  const { sec, nsec } = getnanouptime(cx);
  return { sec: sec + cx.k.boottime, nsec };
}

/** Ticks of the clock that a time takes, rounded up (`tstohz_high`). */
export function tstohz(sec: number, nsec: number): number {
  return Math.ceil(sec * hz + nsec / (1e9 / hz));
}
