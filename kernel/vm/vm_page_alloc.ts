/**
 * Taking pages, and waiting for some (`vm_page_startup`, `vm_page_alloc`, `vm_wait`, `vm_wait_pfault` of `sys/vm/vm_page.c`).
 *
 * Room: `kernel/vm/`; imports vm_page.ts, the thresholds, and objects to recycle CACHE pages. Below pmap/: page tables come from here.
 *
 * Three depths of the free pages, by who asks:
 *
 *     vFreeReserved      NORMAL stops here (and then recycles CACHE pages)
 *     vInterruptFreeMin  SYSTEM: kernel threads, page tables
 *     0                  INTERRUPT
 *
 * A failed allocation is an answer, not an error: the caller lets go of every lock, waits ({@link vmWait}, {@link vmWaitPfault}) and starts
 * again.
 *
 * @module
 */
import { type Hpa, hpa, PAGE_SIZE } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import type { Kernel } from "../kernel.ts";
import { kassert } from "../kern/panic.ts";
import { PINTERLOCKED, tsleep, tsleepInterlock, wakeup } from "../lwkt/sleep.ts";
import { lwktYield, TDF } from "../lwkt/thread.ts";
import type { PhysRange } from "../pmap/pmap.ts";
import { P_LOWMEMKILL } from "../proc/proc.ts";
import { type VmObject, vmObjectDrop, vmObjectHoldTry } from "./vm_object.ts";
import {
  PG_BUSY,
  PG_MAPPED,
  PG_ZERO,
  VM_ALLOC_FORCE_ZERO,
  VM_ALLOC_INTERRUPT,
  VM_ALLOC_NORMAL,
  VM_ALLOC_NULL_OK,
  VM_ALLOC_SYSTEM,
  VM_ALLOC_ZERO,
  VmPage,
  vmPageAddFree,
  vmPageBusyTry,
  vmPageDeactivate,
  vmPageFree,
  vmPageInsert,
  vmPageTakeFree,
  vmPageWakeup,
} from "./vm_page.ts";
import {
  pagedaemonWakeup,
  vmPageCountMin,
  vmPageCountSevere,
  vmPageCountTarget,
  vmPageoutFreePageCalc,
} from "./vm_page2.ts";
import { PQ_CACHE, PQ_FREE, PQ_L2_MASK, PQ_L2_SIZE } from "./vm_pageq.ts";

/** Ticks in a second. */
const HZ = 100;

/**
 * Makes a VmPage of every page of RAM in these ranges and frees it (`vm_page_startup`), then sets the limits. Plain: runs before there are threads.
 *
 * @param ranges `phys_avail`: page aligned, ascending, not overlapping.
 */
export function vmPageStartup(k: Kernel, ranges: readonly PhysRange[]): void {
  const { vmPages } = k;
  vmPages.firstPage = Math.floor((ranges[0]?.start ?? 0) / PAGE_SIZE);
  for (const { start, end } of ranges) {
    for (let pa: number = start; pa < end; pa += PAGE_SIZE) {
      const at = pa / PAGE_SIZE - vmPages.firstPage;
      // Every hole is filled in, so that the array stays one without holes.
      while (vmPages.vmPageArray.length < at) vmPages.vmPageArray.push(undefined);
      const m = new VmPage(hpa(pa));
      vmPages.vmPageArray.push(m);
      vmPageAddFree(k, m);
    }
  }
  vmPageoutFreePageCalc(k);
}

/**
 * Takes a page: busy, content unknown, `valid` 0, in the object if there is one (`vm_page_alloc`). Undefined when there is none to be had;
 * the daemon then knows.
 *
 * Preconditions: the object's token is held exclusively. May sleep only between the steps of recycling a CACHE page, with all tokens kept
 * (it never gives up the processor on its own).
 *
 * @param object May be undefined: the page then belongs to the caller alone.
 * @param pageReq VM_ALLOC_*.
 */
export function vmPageAlloc(
  cx: Cx,
  object: VmObject | undefined,
  pindex: number,
  pageReq: number,
): VmPage | undefined {
  const { k } = cx, v = k.vmmeter;
  const color = colorOf(cx, object, pindex);
  let req = pageReq;
  // The pageout daemon and its like may go deeper, and so may a process that is killed for want of memory: they are how memory gets
  // free.
  if ((cx.td.tdFlags & TDF.SYSTHREAD) !== 0 || vmIsBeingKilled(cx)) req |= VM_ALLOC_SYSTEM;
  for (;;) {
    if (mayTakeFree(k, req)) break;
    // Recycling raises the free count; then the limits are looked at again.
    if ((req & VM_ALLOC_NORMAL) !== 0 && recycleCachePage(cx, color)) continue;
    k.vmPages.vmPageoutDeficit++;
    pagedaemonWakeup(cx);
    return undefined;
  }
  const m = selectFree(k, color, (req & (VM_ALLOC_ZERO | VM_ALLOC_FORCE_ZERO)) !== 0);
  kassert(m !== undefined, () => `vm_page_alloc: ${v.vFreeCount} free pages are counted, but none is there`);
  if (m === undefined) return undefined;
  vmPageTakeFree(cx, m);
  if (object === undefined) m.pindex = pindex;
  else if (!vmPageInsert(cx, m, object, pindex)) {
    kassert(
      (req & VM_ALLOC_NULL_OK) !== 0,
      () => `vm_page_alloc: there is a page at index ${pindex} already`,
    );
    vmPageFree(cx, m);
    return undefined;
  }
  // Not only when memory is out: early enough that the daemon is done before it is.
  pagedaemonWakeup(cx);
  return m;
}

/** Whether a request may take a page off FREE now. */
function mayTakeFree(k: Kernel, req: number): boolean {
  const v = k.vmmeter;
  return v.vFreeCount > v.vFreeReserved ||
    ((req & VM_ALLOC_INTERRUPT) !== 0 && v.vFreeCount > 0) ||
    ((req & VM_ALLOC_SYSTEM) !== 0 && v.vCacheCount === 0 && v.vFreeCount > v.vInterruptFreeMin);
}

/** Neighbouring pages of an object get neighbouring colours; each processor has its own share of them. */
function colorOf(cx: Cx, object: VmObject | undefined, pindex: number): number {
  const share = Math.max(1, Math.floor(PQ_L2_SIZE / cx.k.ncpus));
  return (cx.gd.gdCpuid * share + ((pindex + (object?.pgColor ?? 0)) % share)) & PQ_L2_MASK;
}

/** A free page, of this colour if possible (`vm_page_select_free`). */
function selectFree(k: Kernel, color: number, preferZero: boolean): VmPage | undefined {
  for (let i = 0; i < PQ_L2_SIZE; i++) {
    const queue = k.vmPages.vmPageQueues[PQ_FREE + (color ^ i)]!;
    const m = preferZero ? queue.tail : queue.head;
    if (m !== undefined) return m;
  }
  return undefined;
}

/** Frees a CACHE page, of this colour if possible (`vm_page_select_cache` and what follows it). False when there is none. */
function recycleCachePage(cx: Cx, color: number): boolean {
  for (let i = 0; i < PQ_L2_SIZE; i++) {
    const queue = cx.k.vmPages.vmPageQueues[PQ_CACHE + (color ^ i)]!;
    for (let m = queue.head; m !== undefined;) {
      const next: VmPage | undefined = m.pageqNext;
      if (recycle(cx, m)) return true;
      m = next;
    }
  }
  return false;
}

/** Frees this CACHE page; one that cannot be freed right now leaves the queue. */
function recycle(cx: Cx, m: VmPage): boolean {
  if (vmPageBusyTry(cx, m, true)) {
    vmPageDeactivate(cx, m);
    return false;
  }
  kassert(m.dirty === 0 && (m.flags & PG_MAPPED) === 0, "vm_page_alloc: page on CACHE is dirty or mapped");
  const { object } = m;
  if (m.holdCount !== 0 || m.wireCount !== 0 || (object !== undefined && !vmObjectHoldTry(cx, object))) {
    vmPageDeactivate(cx, m);
    vmPageWakeup(cx, m);
    return false;
  }
  vmPageFree(cx, m);
  if (object !== undefined) vmObjectDrop(cx, object);
  return true;
}

/**
 * Takes physically consecutive free pages (`vm_page_alloc_contig`): each busy, wired once, in no object. Undefined when there are none.
 *
 * @param low First address that will do. @param high First that will not. @param alignment Bytes, a power of two.
 */
export function vmPageAllocContig(
  cx: Cx,
  options: { readonly low: Hpa; readonly high: Hpa; readonly alignment: number; readonly pages: number },
): VmPage[] | undefined {
  const { k } = cx, { vmPageArray, firstPage } = k.vmPages;
  const { low, high, alignment, pages } = options;
  if (k.vmmeter.vFreeCount - pages < k.vmmeter.vInterruptFreeMin) return undefined;
  const start = Math.ceil(low / alignment) * alignment;
  for (let pa = start; pa + pages * PAGE_SIZE <= high; pa += Math.max(alignment, PAGE_SIZE)) {
    const at = pa / PAGE_SIZE - firstPage;
    if (at < 0) continue;
    if (at + pages > vmPageArray.length) return undefined;
    const run: VmPage[] = [];
    for (let i = 0; i < pages; i++) {
      const m = vmPageArray[at + i];
      if (m === undefined || m.queue - m.pc !== PQ_FREE) break;
      run.push(m);
    }
    if (run.length < pages) continue;
    for (const m of run) {
      vmPageTakeFree(cx, m);
      m.wireCount = 1;
      k.vmmeter.vWireCount++;
    }
    pagedaemonWakeup(cx);
    return run;
  }
  return undefined;
}

/** Whether the content of a fresh page is known to be zeros. */
export function vmPageIsZero(m: VmPage): boolean {
  return (m.flags & (PG_ZERO | PG_BUSY)) === (PG_ZERO | PG_BUSY);
}

// ---- waiting

/**
 * Waits for memory after a failed allocation (`vm_wait`).
 *
 * Preconditions: no lock held that the pageout daemon could need; tokens are given up by the sleep.
 *
 * @param timo Most ticks to wait; 0 is a second: nobody waits for ever.
 */
export function* vmWait(cx: Cx, timo = 0): Exec<void> {
  const { k } = cx, s = k.vmPages;
  const ticks = timo === 0 ? HZ : timo;
  if (cx.td === s.pagethread) {
    if (!vmPageCountMin(k)) return;
    s.vmPageoutPagesNeeded = true;
    tsleepInterlock(cx, s.pageoutPagesNeededIdent, 0);
    yield* tsleep(cx, s.pageoutPagesNeededIdent, PINTERLOCKED, "VMWait", ticks);
    return;
  }
  if (vmPageCountTarget(k)) yield* waitForFree(cx, "vmwait", ticks);
  // Memory is free again already. Others go first all the same, and interrupts.
  else {
    yield* lwktYield(cx);
    yield;
  }
}

/** The same where no deadlock is at stake: only if memory is below the minimum (`vm_wait_nominal`). */
export function* vmWaitNominal(cx: Cx): Exec<void> {
  while (vmPageCountMin(cx.k)) yield* vmWait(cx, 0);
}

/**
 * Waits in a fault until memory is no longer severely short (`vm_wait_pfault`). A process that is killed to make memory free does not
 * wait: it must go away.
 *
 * Deviation: it sleeps a tick also when memory is not severely short. The allocation has failed, at exactly the reserve, or because the fault
 * holds the one page above it and needs another; trying again at once would fail again, and nothing takes the processor from a thread in
 * the kernel, not even the disk's interrupt thread that the daemon waits for.
 */
export function* vmWaitPfault(cx: Cx): Exec<void> {
  do {
    if (vmIsBeingKilled(cx)) return;
    yield* waitForFree(cx, "pfault", vmPageCountSevere(cx.k) ? HZ : 1);
  } while (vmPageCountSevere(cx.k));
}

/** Asks the daemon for pages and sleeps until it has made some. */
function* waitForFree(cx: Cx, wmesg: string, ticks: number): Exec<void> {
  const s = cx.k.vmPages;
  if (s.vmPagesNeeded === 0) {
    s.vmPagesNeeded = 1;
    wakeup(cx, s.pagesNeededIdent);
  }
  s.vmPagesWaiting++;
  tsleepInterlock(cx, s.freeCountIdent, 0);
  yield* tsleep(cx, s.freeCountIdent, PINTERLOCKED, wmesg, ticks);
}

/** Whether the current process has been killed to make memory free. Its faults then fail rather than wait. */
export function vmIsBeingKilled(cx: Cx): boolean {
  return ((cx.proc?.pFlags ?? 0) & P_LOWMEMKILL) !== 0;
}
