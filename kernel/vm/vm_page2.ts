/**
 * How short memory is, and who is woken when that changes (`sys/vm/vm_page2.h`, `vm_page_free_wakeup` and `pagedaemon_wakeup` of
 * `vm_page.c`).
 *
 * Room: `kernel/vm/`; imports tsleep's wakeup; reads the kernel's counters.
 *
 *     reserved < severe < min < target < paging target        (pages; computed by vmPageoutFreePageCalc)
 *
 * @module
 */
import type { Cx } from "../context.ts";
import type { Kernel } from "../kernel.ts";
import { wakeup, wakeupOne } from "../lwkt/sleep.ts";

/**
 * Sets the limits from the pages that there are (`vm_pageout_free_page_calc` and the start of `vm_pageout_thread`). Runs once, when all pages
 * are free.
 */
export function vmPageoutFreePageCalc(k: Kernel): void {
  const v = k.vmmeter;
  v.vFreeMin = v.vPageCount > 1024 ? 64 + Math.floor((v.vPageCount - 1024) / 200) : 64;
  v.vFreeReserved = Math.floor(v.vFreeMin / 2) + 7;
  v.vFreeSevere = Math.floor(v.vFreeMin / 2);
  v.vPageoutFreeMin = Math.floor(v.vFreeMin / 4) + 7;
  v.vInterruptFreeMin = Math.floor(v.vFreeMin / 8) + 7;
  // Hysteresis; less of it on very small machines.
  v.vFreeTarget = (v.vFreeCount > 6144 ? 4 : 2) * v.vFreeMin + v.vFreeReserved;
  v.vInactiveTarget = Math.floor(v.vFreeCount / 4);
  if (v.vFreeCount > 2048) {
    v.vCacheMin = v.vFreeTarget;
    v.vCacheMax = 2 * v.vCacheMin;
  } else {
    v.vCacheMin = 0;
    v.vCacheMax = Math.floor(v.vFreeCount / 2);
  }
  k.vmPages.vmPageMaxWired = Math.floor(v.vFreeCount / 3);
}

/** Memory is so short that a fault should wait before it takes anything (`vm_page_count_severe`). */
export function vmPageCountSevere(k: Kernel): boolean {
  const v = k.vmmeter;
  return v.vFreeSevere > v.vFreeCount + v.vCacheCount || v.vFreeReserved > v.vFreeCount;
}

/**
 * Below the minimum (`vm_page_count_min`).
 *
 * @param donotcount Pages by which the minimum counts as higher.
 */
export function vmPageCountMin(k: Kernel, donotcount = 0): boolean {
  const v = k.vmmeter;
  return v.vFreeMin + donotcount > v.vFreeCount + v.vCacheCount || v.vFreeReserved > v.vFreeCount;
}

/** Below what the daemon tries to keep free; between this and the paging target lies the hysteresis (`vm_page_count_target`). */
export function vmPageCountTarget(k: Kernel): boolean {
  const v = k.vmmeter;
  return v.vFreeTarget > v.vFreeCount + v.vCacheCount || v.vFreeReserved > v.vFreeCount;
}

/** Pages that are missing to the daemon's target; negative when there are more (`vm_paging_target`). */
export function vmPagingTarget(k: Kernel): number {
  const v = k.vmmeter;
  return v.vFreeTarget + v.vCacheMin - (v.vFreeCount + v.vCacheCount);
}

/** The daemon should run (`vm_paging_needed`). */
export function vmPagingNeeded(k: Kernel): boolean {
  const v = k.vmmeter;
  return v.vFreeMin + v.vCacheMin > v.vFreeCount + v.vCacheCount || v.vFreeMin > v.vFreeCount;
}

/** Wakes the pageout daemon when it has something to do (`pagedaemon_wakeup`). */
export function pagedaemonWakeup(cx: Cx): void {
  const { k } = cx, s = k.vmPages;
  if (!vmPagingNeeded(k) || cx.td === s.pagethread) return;
  if (s.vmPagesNeeded === 0) {
    s.vmPagesNeeded = 1;
    wakeup(cx, s.pagesNeededIdent);
  } else if (vmPageCountMin(k)) s.vmPagesNeeded++;
}

/** Wakes those who wait for memory, after a page became free or cached (`vm_page_free_wakeup`). */
export function vmPageFreeWakeup(cx: Cx): void {
  const { k } = cx, s = k.vmPages, v = k.vmmeter;
  // The daemon itself waits for a few pages to work with.
  if (s.vmPageoutPagesNeeded && v.vCacheCount + v.vFreeCount >= v.vPageoutFreeMin) {
    s.vmPageoutPagesNeeded = false;
    wakeup(cx, s.pageoutPagesNeededIdent);
  }
  if (s.vmPagesWaiting === 0) return;
  if (!vmPageCountTarget(k)) {
    s.vmPagesWaiting = 0;
    wakeup(cx, s.freeCountIdent);
  } else if (!vmPageCountMin(k)) {
    // Some pages: somebody, but not everybody, so that they do not all fail again.
    s.vmPagesWaiting--;
    wakeupOne(cx, s.freeCountIdent);
  }
}
