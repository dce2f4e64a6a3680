/**
 * Interrupts: which handler a vector has, and what a critical section makes of it (`intr_machdep.c`, `apic_vector.S`).
 *
 * Room: `kernel/platform/pc64/`; imports the local APIC, lwkt and the clock's part of the kernel.
 *
 * An interrupt that comes in kernel mode while the thread is in a critical section is only noted; it runs from `splz` when the last section
 * ends. All others run here, with interrupts off, on the stack of whoever was interrupted.
 *
 * @module
 */
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import { hardclock } from "../../kern/kern_clock.ts";
import { RQF } from "../../lwkt/globaldata.ts";
import { lwktProcessIpiq } from "../../lwkt/ipiq.ts";
import { lapicEoi, VECTOR_IPIQ, VECTOR_ISA, VECTOR_SPURIOUS, VECTOR_TIMER } from "./lapic.ts";
import type { Pc64 } from "./pc64.ts";

/** Stands in `gd_ipending` for the clock interrupt. */
const PENDING_TIMER = 1000;

/** Takes an interrupt. */
export function* interrupt(cx: Cx, pc64: Pc64, vector: number, user: boolean): Exec<void> {
  pc64.intrCount[vector]!++;
  if (vector === VECTOR_SPURIOUS) return;
  const gd = cx.k.lwkt.gds[cx.cpu.cpu.id];
  yield* lapicEoi(cx.cpu);
  // Before there are threads: the clock is measured.
  if (gd === undefined) return;
  const td = gd.gdCurthread;
  cx.k.vmmeter.vIntr++;
  if (td.tdCritcount > 0 && !user) {
    if (vector === VECTOR_IPIQ) gd.gdReqflags |= RQF.IPIQ;
    else {
      gd.gdIpending.push(vector === VECTOR_TIMER ? PENDING_TIMER : vector - VECTOR_ISA);
      gd.gdReqflags |= RQF.INTPEND;
    }
    return;
  }
  td.tdCritcount++;
  gd.gdIntrNestingLevel++;
  if (vector === VECTOR_IPIQ) yield* lwktProcessIpiq(cx);
  else if (vector === VECTOR_TIMER) hardclock(cx, user || td.tdLwp?.lwpVmm?.interrupted === true);
  else yield* pc64.runHandlers(cx, vector - VECTOR_ISA);
  gd.gdIntrNestingLevel--;
  td.tdCritcount--;
  yield* cx.k.platform.flushIpis(cx);
}

/** Runs what was noted in `gd_ipending`; the thread is in a critical section. */
export function* runPending(cx: Cx, pc64: Pc64): Exec<void> {
  for (;;) {
    const gd = cx.gd;
    const pending = gd.gdIpending.shift();
    if (pending === undefined) return;
    gd.gdIntrNestingLevel++;
    if (pending === PENDING_TIMER) hardclock(cx, false);
    else yield* pc64.runHandlers(cx, pending);
    gd.gdIntrNestingLevel--;
  }
}
