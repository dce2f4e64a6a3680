/**
 * Interrupts of a kernel in ring 0 under another one: one vector, by which the host says that signals have come.
 *
 * Room: `kernel/platform/ring0/`; imports lwkt, the clock, the host's calls.
 *
 *     SIGALRM   the clock, on processor 0, which tells the others by message
 *     SIGUSR1   another processor has put something into this one's queues
 *     SIGIO     a cothread has something: console input, the end of a disk request
 *
 * @module
 */
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import { hardclock } from "../../kern/kern_clock.ts";
import { RQF } from "../../lwkt/globaldata.ts";
import { ipiqEnqueue, lwktProcessIpiq } from "../../lwkt/ipiq.ts";
import { VMM_GUEST_SIGNALS } from "../../vmm/vmm.ts";
import { runHandlers } from "../vkernel64/devices.ts";
import { host, SIGALRM, SIGIO, SIGUSR1, SYS } from "../vkernel64/host.ts";
import type { Ring0, RingCpu } from "./ring0.ts";
import { VECTOR_SIGNAL } from "./vmparam.ts";

/** Stand in `gd_ipending`. */
const PENDING_TIMER = 1000, PENDING_IO = 1001;
const bit = (sig: number) => 1n << BigInt(sig);

/** Takes an interrupt. */
export function* interrupt(cx: Cx, platform: Ring0, vector: number, user: boolean): Exec<void> {
  if (vector !== VECTOR_SIGNAL) return;
  const { errno, value: signals } = yield* host(cx.cpu, SYS.vmm_guest_ctl, VMM_GUEST_SIGNALS);
  const gd = cx.gd;
  // Before there are threads.
  if (errno !== 0 || gd === undefined) return;
  const td = gd.gdCurthread;
  cx.k.vmmeter.vIntr++;
  if (td.tdCritcount > 0 && !user) {
    if (signals & bit(SIGUSR1)) gd.gdReqflags |= RQF.IPIQ;
    if (signals & bit(SIGALRM)) gd.gdIpending.push(PENDING_TIMER);
    if (signals & bit(SIGIO)) gd.gdIpending.push(PENDING_IO);
    if (signals & (bit(SIGALRM) | bit(SIGIO))) gd.gdReqflags |= RQF.INTPEND;
    return;
  }
  const vcpu = platform.vcpu(cx.cpu);
  td.tdCritcount++;
  gd.gdIntrNestingLevel++;
  vcpu.user = user;
  if (signals & bit(SIGUSR1)) yield* lwktProcessIpiq(cx);
  if (signals & bit(SIGALRM)) clock(cx, platform, user);
  if (signals & bit(SIGIO)) yield* runHandlers(cx, platform);
  vcpu.user = false;
  gd.gdIntrNestingLevel--;
  td.tdCritcount--;
  yield* platform.flushIpis(cx);
}

/** A tick on processor 0, and a message to each of the others. */
function clock(cx: Cx, platform: Ring0, user: boolean): void {
  hardclock(cx, user);
  for (const gd of cx.k.lwkt.gds) {
    if (gd !== cx.gd) ipiqEnqueue(cx, gd, clockHere, platform.vcpus[gd.gdCpuid]);
  }
}

function clockHere(cx: Cx, arg: unknown): void {
  hardclock(cx, (arg as RingCpu).user);
}

/** Runs what was noted in `gd_ipending`; the thread is in a critical section. */
export function* runPending(cx: Cx, platform: Ring0): Exec<void> {
  for (;;) {
    const gd = cx.gd;
    const pending = gd.gdIpending.shift();
    if (pending === undefined) return;
    gd.gdIntrNestingLevel++;
    if (pending === PENDING_TIMER) clock(cx, platform, false);
    else yield* runHandlers(cx, platform);
    gd.gdIntrNestingLevel--;
  }
}
