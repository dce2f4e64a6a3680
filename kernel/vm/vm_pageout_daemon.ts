/**
 * The pageout daemon (`vm_pageout_thread` of `sys/vm/vm_pageout.c`): sleeps until memory is short, makes passes over the queues until it is
 * not, and when neither memory nor swap is left, has the largest process killed.
 *
 * Room: `kernel/vm/`; the top of the VM system: imports the scans, and signals.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kprintf } from "../kern/subr_prf.ts";
import { tsleep, wakeup } from "../lwkt/sleep.ts";
import { kthreadCreate, TDF } from "../lwkt/thread.ts";
import { killproc } from "../proc/kern_sig_send.ts";
import { P_LOWMEMKILL, P_SYSTEM, P_WEXIT, type Proc, SACTIVE, SSTOP } from "../proc/proc.ts";
import { vmspaceAnonymousCount, vmspaceSwapCount } from "./vm_meter.ts";
import { vmPageCountMin, vmPageCountTarget, vmPagingNeeded, vmPagingTarget } from "./vm_page2.ts";
import {
  makePageoutPass,
  type PageoutPass,
  vmPageoutPageStats,
  vmPageoutScanActive,
  vmPageoutScanCache,
  vmPageoutScanInactive,
} from "./vm_pageout_scan.ts";
import { PQ_L2_MASK, PQ_L2_SIZE } from "./vm_pageq.ts";

const HZ = 100;
/** Seconds without need after which the ACTIVE pages are aged (`vm_pageout_stats_interval`). */
const STATS_INTERVAL = 5;
/** Passes after which the daemon no longer retries at once. */
const PASSES_MAX = 10;
/** Ticks that a killed process has to go away before another is killed; more if it still goes. */
const VICTIM_TICKS = 3 * HZ;

/** Starts the daemon. */
export function* vmPageoutStart(cx: Cx): Exec<void> {
  yield* kthreadCreate(cx, vmPageoutThread, "pagedaemon");
}

/** The daemon's thread. */
function* vmPageoutThread(cx: Cx): Exec<void> {
  const { k } = cx, s = k.vmPages;
  s.pagethread = cx.td;
  cx.td.tdFlags |= TDF.SYSTHREAD;
  let pass = 0;
  for (;;) {
    if (s.vmPagesNeeded === 0) {
      const error = yield* tsleep(cx, s.pagesNeededIdent, 0, "psleep", STATS_INTERVAL * HZ);
      if (error !== 0 && s.vmPagesNeeded === 0 && !vmPagingNeeded(k)) {
        for (let color = 0; color < PQ_L2_SIZE; color++) yield* vmPageoutPageStats(cx, color);
        continue;
      }
      if (s.vmPagesNeeded === 0) s.vmPagesNeeded = 1;
    }
    k.vmmeter.vPdwakeups++;
    const shortage = yield* vmPageoutPass(cx, pass);
    if (shortage <= 0) {
      // The passes that others still wait for: woken whether or not a page was freed just now.
      pass = 0;
      s.vmPagesNeeded = 0;
      s.vmPagesWaiting = 0;
      wakeup(cx, s.freeCountIdent);
      continue;
    }
    pass++;
    yield* backOff(cx, pass);
  }
}

/** How long to wait after a pass that did not reach its target. */
function* backOff(cx: Cx, pass: number): Exec<void> {
  const { k } = cx, s = k.vmPages;
  const full = k.swap.swapPagerFull;
  if (pass >= PASSES_MAX) {
    // Too many passes; with swap used up only somebody's exit can help.
    yield* tsleep(cx, s.pagesNeededIdent, 0, "pdelay", full ? HZ : HZ / 10);
  } else if (s.vmPagesNeeded > 1) {
    // Others have asked meanwhile: at once.
    if (full) yield* tsleep(cx, s.pagesNeededIdent, 0, "pdelay", HZ / 5);
    else yield;
  } else {
    s.vmPagesNeeded = 0;
    yield* tsleep(cx, s.pagesNeededIdent, 0, "pdelay", HZ / 10);
    s.vmPagesNeeded = 1;
  }
}

/** A queue's share of a shortage (`PQAVERAGE`). */
function share(shortage: number): number {
  return shortage > 0 ? Math.floor((shortage + PQ_L2_SIZE - 1) / PQ_L2_SIZE) + 1 : shortage;
}

/** One pass over the queues; gives the pages that are still missing. */
function* vmPageoutPass(cx: Cx, number: number): Exec<number> {
  const { k } = cx, s = k.vmPages, v = k.vmmeter;
  const p = makePageoutPass(number);
  let avail = vmPagingTarget(k) + s.vmPageoutDeficit;
  s.vmPageoutDeficit = 0;
  if (avail > 0) avail -= yield* scanInactive(cx, p, avail);

  // A queue of candidates, a little more of them if there were too few just now.
  let inactive = v.vInactiveTarget - v.vInactiveCount;
  if (avail > 0) inactive += Math.min(avail * 2, Math.floor(v.vInactiveTarget / 10));
  if (inactive > 0) avail -= yield* scanActive(cx, p, avail, inactive);

  yield* vmPageoutScanCache(cx);
  avail = Math.min(avail, vmPagingTarget(k));
  if (avail > 0) vmPageoutOom(cx, p);
  return avail;
}

/** All colours of INACTIVE, beginning with another one each time. */
function* scanInactive(cx: Cx, p: PageoutPass, avail: number): Exec<number> {
  const s = cx.k.vmPages;
  const each = share(avail);
  let delta = 0, q = 0;
  for (; q < PQ_L2_SIZE && avail - delta > 0; q++) {
    delta += yield* vmPageoutScanInactive(cx, p, (q + s.q1iterator) & PQ_L2_MASK, each);
  }
  s.q1iterator = (s.q1iterator + q) & PQ_L2_MASK;
  return delta;
}

/** All colours of ACTIVE; gives the pages that became available at once. */
function* scanActive(cx: Cx, p: PageoutPass, avail: number, inactive: number): Exec<number> {
  const s = cx.k.vmPages;
  const eachAvail = share(avail), eachInactive = share(inactive);
  let cached = 0, q = 0;
  for (; q < PQ_L2_SIZE && (inactive > 0 || avail - cached > 0); q++) {
    const color = (q + s.q2iterator) & PQ_L2_MASK;
    const done = yield* vmPageoutScanActive(cx, p, color, eachAvail, eachInactive);
    cached += done.cached;
    inactive -= done.deactivated;
  }
  s.q2iterator = (s.q2iterator + q) & PQ_L2_MASK;
  return cached;
}

/**
 * Has the largest process killed when memory and swap are used up: swap is full, memory is below its minimum, and either all that is left
 * lies on INACTIVE (four times as much as on ACTIVE), where it cannot be written, or many passes have brought nothing.
 *
 * Deviation: also with room on swap, if many passes have brought nothing because there is nothing on the queues: memory is wired then, and
 * only somebody's exit can help.
 */
function vmPageoutOom(cx: Cx, p: PageoutPass): void {
  const { k } = cx, v = k.vmmeter, s = k.vmPages;
  const nothingLeft = p.pass >= PASSES_MAX && v.vActiveCount + v.vInactiveCount === 0;
  if (!k.swap.swapPagerFull && !nothingLeft) return;
  if (!vmPageCountTarget(k) || !vmPageCountMin(k, p.recycleCount)) return;
  if (v.vInactiveCount <= 4 * v.vActiveCount && p.pass < PASSES_MAX) return;
  if (s.oomTicks !== 0 && k.ticks - s.oomTicks < VICTIM_TICKS) return;
  s.oomTicks = k.ticks;
  const victim = largestProcess(cx);
  if (victim === undefined) {
    kprintf(
      cx,
      `Warning: system low on memory+swap, shortage ${vmPagingTarget(k)} pages, and no process to kill\n`,
    );
    return;
  }
  v.vOomkills++;
  killproc(cx, victim, "out of swap space");
  // It may itself be waiting for memory.
  wakeup(cx, s.freeCountIdent);
}

/** Whether a process can be killed for its memory: a living one, not the system's, not init. */
function isCandidate(p: Proc): boolean {
  return (p.pStat === SACTIVE || p.pStat === SSTOP) && p.pPid > 1 && (p.pFlags & (P_SYSTEM | P_WEXIT)) === 0;
}

/** The process with the most anonymous memory, resident or on swap (`vm_pageout_scan_callback`). Of equals the one made last. */
function largestProcess(cx: Cx): Proc | undefined {
  let largest: Proc | undefined, size = -1;
  for (const p of cx.k.procs.allproc.values()) {
    if (!isCandidate(p) || (p.pFlags & P_LOWMEMKILL) !== 0 || p.pVmspace === undefined) continue;
    const pages = memoryOf(p);
    if (pages >= size) {
      largest = p;
      size = pages;
    }
  }
  return largest;
}

/** Pages that the end of a process would free, in memory and on swap, about: a vkernel's with what its processes have. */
function memoryOf(p: Proc): number {
  let pages = 0;
  for (const vm of [p.pVmspace, ...[...p.pVkernel?.root.values() ?? []].map((ve) => ve.vmspace)]) {
    if (vm !== undefined) pages += vmspaceAnonymousCount(vm) + vmspaceSwapCount(vm);
  }
  return pages;
}
