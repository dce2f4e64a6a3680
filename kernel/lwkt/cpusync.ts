/**
 * The two-stage rendezvous (`lwkt_cpusync_interlock`, `lwkt_cpusync_deinterlock` in `sys/kern/lwkt_ipiq.c`).
 *
 * Room: `kernel/lwkt/`; imports IPI queues.
 *
 *     master:   interlock ── all targets are in their IPI handlers ── deinterlock ── all have run the function
 *     target:   sets its bit, stays ───────────────────────────────── runs the function, sets its bit, goes on
 *
 * Between the two, a target executes no user code and no kernel code but IPI handlers: a page-table entry may be changed.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { lwktProcessIpiq, lwktSendIpiqMask } from "./ipiq.ts";
import { critExit } from "./thread.ts";

/** What every processor runs at the end; it must not sleep. */
export type CpusyncFunc = (cx: Cx, data: unknown) => void;

/** A rendezvous (`struct lwkt_cpusync`). */
export class LwktCpusync {
  /** `cs_mask`: who takes part; the master's own bit makes it run the function too. */
  csMask: number;
  /** `cs_mack`: who has answered. */
  csMack = 0;
  /** `cs_func`, `cs_data`. */
  readonly csFunc: CpusyncFunc | undefined;
  readonly csData: unknown;
  /** The processors that were waited for at the interlock. */
  csTargets = 0;

  /** `lwkt_cpusync_init`. */
  constructor(mask: number, func: CpusyncFunc | undefined, data: unknown) {
    this.csMask = mask;
    this.csFunc = func;
    this.csData = data;
  }
}

function remote1(cx: Cx, arg: unknown): void {
  const cs = arg as LwktCpusync;
  const gd = cx.gd;
  cs.csMack |= gd.gdCpumask;
  gd.gdCpusyncq.push(cs);
}

/** Stops the processors of the mask; the caller enters a critical section and does not switch until {@link lwktCpusyncDeinterlock}. */
export function* lwktCpusyncInterlock(cx: Cx, cs: LwktCpusync): Exec<void> {
  const td = cx.td;
  td.tdCritcount++;
  td.tdCscount++;
  const gd = cx.gd;
  cs.csTargets = cs.csMask & ~gd.gdCpumask & cx.k.lwkt.smpActiveMask;
  cs.csMack = 0;
  if (cs.csTargets === 0) return;
  yield* lwktSendIpiqMask(cx, cs.csTargets, remote1, cs);
  while (cs.csMack !== cs.csTargets) {
    yield* lwktProcessIpiq(cx, false);
    yield* cx.pause();
  }
}

/** Lets them go, each through the function; comes back when all have run it. */
export function* lwktCpusyncDeinterlock(cx: Cx, cs: LwktCpusync): Exec<void> {
  const td = cx.td;
  kassert(td.tdCscount > 0, "lwkt_cpusync_deinterlock: no interlock");
  const gd = cx.gd;
  cs.csMack = 0;
  if (cs.csMask & gd.gdCpumask) cs.csFunc?.(cx, cs.csData);
  while (cs.csMack !== cs.csTargets) {
    yield* lwktProcessIpiq(cx, false);
    yield* cx.pause();
  }
  td.tdCscount--;
  yield* critExit(cx);
}

/** Both stages in one (`lwkt_cpusync_simple`). */
export function* lwktCpusyncSimple(cx: Cx, mask: number, func: CpusyncFunc, data: unknown): Exec<void> {
  const cs = new LwktCpusync(mask, func, data);
  yield* lwktCpusyncInterlock(cx, cs);
  yield* lwktCpusyncDeinterlock(cx, cs);
}
