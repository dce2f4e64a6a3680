/**
 * The clock interrupt (`hardclock`, `statclock` in `sys/kern/kern_clock.c`).
 *
 * Room: `kernel/kern/`; imports callouts and the user scheduler.
 *
 * @module
 */
import type { Cx } from "../context.ts";
import { softclock } from "../lwkt/callout.ts";
import { schedulerclock } from "../proc/usched_dfly.ts";

/** One tick on one processor; `user` says that it came in user mode. The first processor keeps the time. */
export function hardclock(cx: Cx, user: boolean): void {
  const gd = cx.gd, td = gd.gdCurthread;
  gd.gdTicks++;
  if (user) td.tdUticks++;
  else td.tdSticks++;
  if (gd.gdCpuid === 0) {
    cx.k.ticks++;
    softclock(cx);
  }
  schedulerclock(cx);
  for (const hook of cx.k.hardclockHooks) hook(cx, user);
}
