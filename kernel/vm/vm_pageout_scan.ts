/**
 * How the pageout daemon chooses pages: the scans of the INACTIVE, ACTIVE and CACHE queues (`sys/vm/vm_pageout.c`).
 *
 * Room: `kernel/vm/`; imports vm_pageout.ts and pages.
 *
 *     ACTIVE ──act_count falls to 0──► INACTIVE ──clean──► CACHE ──► FREE
 *        ▲                               │  ▲
 *        └────────── referenced ─────────┘  └── dirty: once around (WINATCFLS), then written, then around again
 *
 * Every scan holds its place on a queue with a marker page and looks at the page next to it again after anything that lets others run.
 *
 * @module
 */
import { hpa } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { pmapClearReference, pmapTsReferenced } from "../pmap/pmap_protect.ts";
import { OBJ_DEAD, OBJT_DEFAULT, OBJT_SWAP, type VmObject, vmObjectDrop, vmObjectHold } from "./vm_object.ts";
import {
  ACT_ADVANCE,
  ACT_DECLINE,
  ACT_MAX,
  PG_BUSY,
  PG_MAPPED,
  PG_MARKER,
  PG_NEED_COMMIT,
  PG_REFERENCED,
  PG_UNMANAGED,
  PG_WINATCFLS,
  VM_PAGE_BITS_ALL,
  VmPage,
  vmPageActivate,
  vmPageBusyTry,
  vmPageDeactivate,
  vmPageDirty,
  vmPageFree,
  vmPageRequeue,
  vmPageUnqueueNowakeup,
  vmPageWakeup,
} from "./vm_page.ts";
import { vmPageCache } from "./vm_page_cache.ts";
import { vmPageProtect, vmPageTestDirty } from "./vm_page_valid.ts";
import { vmPageoutClean } from "./vm_pageout.ts";
import { PQ_ACTIVE, PQ_CACHE, PQ_INACTIVE, PQ_L2_MASK } from "./vm_pageq.ts";
import { VM_PROT_NONE } from "./vm_param.ts";

/** Pages that one pass may launder; a pass after a failed one may launder any number (`vm_max_launder`). */
export const VM_MAX_LAUNDER = 4096;
const ALL_OUT = 10_000;
/** What `act_count` of file pages loses at a time (`vm_filemem_decline`); anonymous ones lose 1. */
const FILEMEM_DECLINE = 2;
/** Step from colour to colour in the CACHE scan: odd, so that it meets all (`PQ_PRIME2`). */
const PQ_PRIME2 = 23;

/** What the scans of one pass share. */
export interface PageoutPass {
  /** Passes before this one that did not reach the target. */
  readonly pass: number;
  /** Pages that may still be laundered. */
  maxLaunder: number;
  /** Pages that were recycled from ACTIVE although it was not their turn. */
  recycleCount: number;
}

/** Begins a pass. */
export function makePageoutPass(pass: number): PageoutPass {
  return { pass, maxLaunder: pass === 0 ? VM_MAX_LAUNDER : ALL_OUT, recycleCount: 0 };
}

/** Whether an object's pages go to swap: then nothing can be written while swap is full. */
function isAnonymous({ type }: VmObject): boolean {
  return type === OBJT_DEFAULT || type === OBJT_SWAP;
}

/** Makes a page that holds a place. */
function makeMarker(queue: number): VmPage {
  const marker = new VmPage(hpa(0));
  marker.flags = PG_MARKER | PG_BUSY;
  marker.queue = queue;
  marker.wireCount = 1;
  return marker;
}

/**
 * Visits the pages of a queue, each busy. `visit` lets the page go, one way or another. Stops when `more` says so or after as many pages as
 * were there at the start.
 */
function* scanQueue(
  cx: Cx,
  queue: number,
  more: () => boolean,
  visit: (m: VmPage) => Exec<void>,
): Exec<void> {
  const pq = cx.k.vmPages.vmPageQueues[queue]!;
  if (pq.lcnt === 0) return;
  const marker = makeMarker(queue);
  pq.insertHead(marker);
  for (let maxscan = pq.lcnt; maxscan > 0 && more();) {
    const m = marker.pageqNext;
    if (m === undefined) break;
    pq.remove(marker);
    pq.insertAfter(m, marker);
    if (m.flags & PG_MARKER) continue;
    maxscan--;
    cx.k.vmmeter.vPdpages++;
    if (vmPageBusyTry(cx, m, true)) continue;
    yield* visit(m);
  }
  pq.remove(marker);
}

/** Frees a busy page for the daemon (`vm_pageout_page_free`). False: it turned out to be in use, and is let go. */
function* pageFree(cx: Cx, m: VmPage): Exec<boolean> {
  const { object } = m;
  if (object !== undefined) yield* vmObjectHold(cx, object);
  yield* vmPageProtect(cx, m, VM_PROT_NONE);
  const free = m.holdCount === 0 && m.wireCount === 0 && (m.dirty === 0 || m.valid === 0);
  if (free) vmPageFree(cx, m);
  else vmPageWakeup(cx, m);
  if (object !== undefined) vmObjectDrop(cx, object);
  return free;
}

/**
 * Looks through the INACTIVE pages of one colour (`vm_pageout_scan_inactive`). Gives how many became available, or will when they are written.
 *
 * @param shortage Pages that are wanted from this queue.
 */
export function* vmPageoutScanInactive(
  cx: Cx,
  p: PageoutPass,
  color: number,
  shortage: number,
): Exec<number> {
  let delta = 0;
  yield* scanQueue(cx, PQ_INACTIVE + color, () => shortage - delta > 0, function* (m) {
    if (m.queue - m.pc !== PQ_INACTIVE) return vmPageWakeup(cx, m);
    const { object } = m;
    // Wired pages are on no queue; a page without an object is nobody's business.
    if (m.wireCount !== 0 || object === undefined || (m.flags & PG_UNMANAGED) !== 0) {
      vmPageUnqueueNowakeup(cx, m);
      return vmPageWakeup(cx, m);
    }
    if (m.holdCount !== 0) {
      vmPageRequeue(cx, m);
      return vmPageWakeup(cx, m);
    }
    if (object.refCount === 0) {
      m.flags &= ~PG_REFERENCED;
      yield* pmapClearReference(cx, m);
    } else {
      const hinted = (m.flags & PG_REFERENCED) !== 0;
      const actcount = yield* tsReferenced(cx, m);
      if (hinted || actcount > 0) {
        // In use after all. It counts for more than usual, so that it does not come back at once.
        m.flags &= ~PG_REFERENCED;
        vmPageActivate(cx, m);
        m.actCount = Math.min(ACT_MAX, m.actCount + actcount + ACT_ADVANCE + (hinted ? 1 : 0));
        cx.k.vmmeter.vReactivated++;
        return vmPageWakeup(cx, m);
      }
    }
    if (m.dirty === 0) yield* vmPageTestDirty(cx, m);
    else vmPageDirty(cx, m);
    if (m.valid === 0 && (m.flags & PG_NEED_COMMIT) === 0) {
      if (yield* pageFree(cx, m)) {
        cx.k.vmmeter.vDfree++;
        delta++;
      }
    } else if (m.dirty === 0 && (m.flags & PG_NEED_COMMIT) === 0) {
      yield* vmPageCache(cx, m);
      delta++;
    } else if ((m.flags & PG_WINATCFLS) === 0 && p.pass === 0) {
      // The two-pass rule: writing costs far more than dropping a clean page, so dirty pages go around the queue once more.
      m.flags |= PG_WINATCFLS;
      vmPageRequeue(cx, m);
      vmPageWakeup(cx, m);
    } else if (
      p.maxLaunder > 0 && (object.flags & OBJ_DEAD) === 0 && m.valid === VM_PAGE_BITS_ALL &&
      (!cx.k.swap.swapPagerFull || !isAnonymous(object))
    ) {
      const before = m.queue;
      const count = yield* vmPageoutClean(cx, m, 0);
      p.maxLaunder -= count;
      delta += count;
      // Could not be written: others first.
      if (count === 0 && m.queue === before) vmPageRequeue(cx, m);
    } else {
      vmPageRequeue(cx, m);
      vmPageWakeup(cx, m);
    }
  });
  return delta;
}

/** What a scan of ACTIVE did. */
export interface ActiveScan {
  /** Pages taken off ACTIVE. */
  readonly deactivated: number;
  /** Of these, pages that became available at once. */
  readonly cached: number;
}

/**
 * Looks through the ACTIVE pages of one colour (`vm_pageout_scan_active`).
 *
 * @param availShortage Pages that are still wanted. @param inactiveShortage Pages that INACTIVE should get.
 */
export function* vmPageoutScanActive(
  cx: Cx,
  p: PageoutPass,
  color: number,
  availShortage: number,
  inactiveShortage: number,
): Exec<ActiveScan> {
  let deactivated = 0, cached = 0;
  const more = () => availShortage - cached > 0 || inactiveShortage - deactivated > 0;
  yield* scanQueue(cx, PQ_ACTIVE + color, more, function* (m) {
    if (m.queue - m.pc !== PQ_ACTIVE) return vmPageWakeup(cx, m);
    if (m.wireCount !== 0 || (m.flags & PG_UNMANAGED) !== 0) {
      vmPageUnqueueNowakeup(cx, m);
      return vmPageWakeup(cx, m);
    }
    if (m.holdCount !== 0) {
      vmPageRequeue(cx, m);
      return vmPageWakeup(cx, m);
    }
    const { object } = m, used = object !== undefined && object.refCount !== 0;
    const actcount = used ? yield* countReferences(cx, m) : 0;
    m.flags &= ~PG_REFERENCED;
    if (actcount > 0) {
      m.actCount = Math.min(ACT_MAX, m.actCount + ACT_ADVANCE + actcount);
      vmPageRequeue(cx, m);
      return vmPageWakeup(cx, m);
    }
    m.actCount -= Math.min(
      m.actCount,
      object !== undefined && isAnonymous(object) ? ACT_DECLINE : FILEMEM_DECLINE,
    );
    if (used && m.actCount >= p.pass + 1) {
      vmPageRequeue(cx, m);
      return vmPageWakeup(cx, m);
    }
    deactivated++;
    if (availShortage - cached > 0 || !used) {
      if (availShortage - cached > 0) p.recycleCount++;
      yield* vmPageProtect(cx, m, VM_PROT_NONE);
      if (m.dirty === 0 && (m.flags & PG_NEED_COMMIT) === 0 && availShortage - cached > 0 && m.valid !== 0) {
        cached++;
        return yield* vmPageCache(cx, m);
      }
    }
    vmPageDeactivate(cx, m);
    vmPageWakeup(cx, m);
  });
  return { deactivated, cached };
}

/** References that the page and its mappings show. */
function* countReferences(cx: Cx, m: VmPage): Exec<number> {
  return (m.flags & PG_REFERENCED ? 1 : 0) + (yield* tsReferenced(cx, m));
}

const NOTHING: Iterable<void, number, void> = {
  [Symbol.iterator]: () => ({ next: () => ({ done: true, value: 0 }) }),
};

/** References that the mappings show, without a question where there are none. */
function tsReferenced(cx: Cx, m: VmPage): Exec<number> {
  return m.flags & PG_MAPPED ? pmapTsReferenced(cx, m) : NOTHING;
}

/** Frees CACHE pages until there are enough that are really free, for those who cannot recycle one (`vm_pageout_scan_cache`). */
export function* vmPageoutScanCache(cx: Cx): Exec<void> {
  const { vmmeter: v, vmPages } = cx.k;
  while (v.vFreeCount < (v.vFreeMin + v.vFreeTarget) / 2) {
    const m = nextCachePage(cx);
    if (m === undefined) return;
    if (vmPageBusyTry(cx, m, true)) {
      vmPageDeactivate(cx, m);
      continue;
    }
    if ((m.flags & (PG_UNMANAGED | PG_NEED_COMMIT)) !== 0 || m.holdCount !== 0 || m.wireCount !== 0) {
      vmPageDeactivate(cx, m);
      vmPageWakeup(cx, m);
      continue;
    }
    kassert(
      (m.flags & PG_MAPPED) === 0 && m.dirty === 0,
      "vm_pageout_scan: page on CACHE is mapped or dirty",
    );
    vmPages.cacheRover = (vmPages.cacheRover + PQ_PRIME2) & PQ_L2_MASK;
    if (yield* pageFree(cx, m)) v.vDfree++;
  }
}

function nextCachePage(cx: Cx): VmPage | undefined {
  const { vmPageQueues, cacheRover } = cx.k.vmPages;
  for (let i = 0; i <= PQ_L2_MASK; i++) {
    const m = vmPageQueues[PQ_CACHE + (cacheRover ^ i)]!.head;
    if (m !== undefined) return m;
  }
  return undefined;
}

/** Ages the ACTIVE pages of one colour while nobody is short of memory, so that there is something to go by when somebody is (`vm_pageout_page_stats`). */
export function* vmPageoutPageStats(cx: Cx, color: number): Exec<void> {
  yield* scanQueue(cx, PQ_ACTIVE + color, () => true, function* (m) {
    if (m.queue - m.pc !== PQ_ACTIVE) return vmPageWakeup(cx, m);
    if (m.holdCount !== 0 || m.wireCount !== 0) {
      vmPageRequeue(cx, m);
      return vmPageWakeup(cx, m);
    }
    const actcount = yield* countReferences(cx, m);
    m.flags &= ~PG_REFERENCED;
    if (actcount > 0) {
      m.actCount = Math.min(ACT_MAX, m.actCount + ACT_ADVANCE + actcount);
      vmPageRequeue(cx, m);
    } else if (m.actCount === 0) {
      // Its mappings go too, so that resident sizes stay true.
      yield* vmPageProtect(cx, m, VM_PROT_NONE);
      vmPageDeactivate(cx, m);
    } else {
      m.actCount -= ACT_DECLINE;
      vmPageRequeue(cx, m);
    }
    vmPageWakeup(cx, m);
  });
}
