/**
 * Letting pages go, more or less: to CACHE, to INACTIVE with a hint, to FREE; and taking one whatever it costs (`vm_page_cache`,
 * `vm_page_dontneed`, `vm_page_try_to_free`, `vm_page_try_to_cache`, `vm_page_grab` of `sys/vm/vm_page.c`).
 *
 * Room: `kernel/vm/`; imports vm_page*.ts.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { pmapClearReference } from "../pmap/pmap_protect.ts";
import type { VmObject } from "./vm_object.ts";
import {
  PG_NEED_COMMIT,
  PG_REFERENCED,
  PG_UNMANAGED,
  PG_ZERO,
  VM_ALLOC_FORCE_ZERO,
  VM_ALLOC_NULL_OK,
  VM_ALLOC_RETRY,
  VM_ALLOC_ZERO,
  VM_PAGE_BITS_ALL,
  type VmPage,
  vmPageBusyTry,
  vmPageDeactivate,
  vmPageDeactivateHead,
  vmPageEnqueueCache,
  vmPageFlagClear,
  vmPageFree,
  vmPageLookupBusyTry,
  vmPageSleepBusy,
  vmPageWakeup,
} from "./vm_page.ts";
import { vmPageAlloc, vmWait } from "./vm_page_alloc.ts";
import { vmPageProtect, vmPageTestDirty, vmPageZeroFill } from "./vm_page_valid.ts";
import { PQ_CACHE } from "./vm_pageq.ts";
import { VM_PROT_NONE } from "./vm_param.ts";

/**
 * Puts a clean page on CACHE: findable, but taken by whoever needs memory (`vm_page_cache`). A page that turns out dirty goes to INACTIVE;
 * one in use stays where it is. **The page is no longer busy afterwards.**
 *
 * Preconditions: busy, not wired; the object's token held.
 */
export function* vmPageCache(cx: Cx, m: VmPage): Exec<void> {
  if (
    (m.flags & (PG_UNMANAGED | PG_NEED_COMMIT)) !== 0 || m.busy !== 0 || m.wireCount !== 0 ||
    m.holdCount !== 0
  ) return vmPageWakeup(cx, m);
  if (m.queue - m.pc === PQ_CACHE) return vmPageWakeup(cx, m);
  kassert(m.dirty === 0, "vm_page_cache: page is dirty");
  // Taking the mappings away can bring modified bits to light.
  yield* vmPageProtect(cx, m, VM_PROT_NONE);
  if (m.dirty !== 0) {
    vmPageDeactivate(cx, m);
  } else if (m.wireCount === 0 && m.holdCount === 0) {
    vmPageFlagClear(m, PG_REFERENCED);
    vmPageEnqueueCache(cx, m);
  }
  vmPageWakeup(cx, m);
}

/**
 * The page will not be needed soon (`vm_page_dontneed`, madvise DONTNEED): not freed, but made likely to be. Most go to INACTIVE, at its
 * head where they are met first; some stay, so that a program that calls this all the time does not empty memory of its own pages.
 *
 * Preconditions: busy.
 */
export function* vmPageDontneed(cx: Cx, m: VmPage): Exec<void> {
  const turn = ++cx.k.vmPages.dontneeds;
  if ((turn & 0x001f) === 0) return;
  const kind = m.queue - m.pc;
  if (m.wireCount !== 0 || kind === PQ_CACHE || (m.flags & PG_UNMANAGED) !== 0) return;
  yield* pmapClearReference(cx, m);
  vmPageFlagClear(m, PG_REFERENCED);
  yield* vmPageTestDirty(cx, m);
  // A dirty page must be written first: behind the others, most of the time.
  if (m.dirty !== 0 || (turn & 0x0070) === 0) vmPageDeactivate(cx, m);
  else vmPageDeactivateHead(cx, m);
}

/** Frees a page if that loses nothing (`vm_page_try_to_free`). True: it is gone. The page must not be busy; its object's token is held. */
export function* vmPageTryToFree(cx: Cx, m: VmPage): Exec<boolean> {
  if (!(yield* busyAndClean(cx, m))) return false;
  yield* vmPageProtect(cx, m, VM_PROT_NONE);
  if (m.dirty !== 0 || m.holdCount !== 0) {
    vmPageWakeup(cx, m);
    return false;
  }
  vmPageFree(cx, m);
  return true;
}

/** Moves a page to CACHE if that loses nothing (`vm_page_try_to_cache`). The page must not be busy; its object's token is held. */
export function* vmPageTryToCache(cx: Cx, m: VmPage): Exec<boolean> {
  if (!(yield* busyAndClean(cx, m))) return false;
  yield* vmPageCache(cx, m);
  return true;
}

/** Makes the page busy if it is clean, and neither held, wired nor under I/O. */
function* busyAndClean(cx: Cx, m: VmPage): Exec<boolean> {
  if (vmPageBusyTry(cx, m, true)) return false;
  if (
    m.dirty === 0 && m.holdCount === 0 && m.wireCount === 0 &&
    (m.flags & (PG_UNMANAGED | PG_NEED_COMMIT)) === 0
  ) {
    yield* vmPageTestDirty(cx, m);
    if (m.dirty === 0) return true;
  }
  vmPageWakeup(cx, m);
  return false;
}

/**
 * The page of an object at an index, busy; made if it is not there (`vm_page_grab`).
 *
 * With VM_ALLOC_RETRY it waits for a busy page and for memory and always succeeds; without, undefined. With VM_ALLOC_ZERO a page that is not
 * valid is zeroed and made valid; with VM_ALLOC_FORCE_ZERO any page is. Without either, a new page has `valid` 0.
 *
 * Preconditions: the object's token is held exclusively (it is lost while this waits).
 */
export function* vmPageGrab(
  cx: Cx,
  object: VmObject,
  pindex: number,
  allocflags: number,
): Exec<VmPage | undefined> {
  const { k } = cx;
  const retry = (allocflags & VM_ALLOC_RETRY) !== 0;
  let m: VmPage | undefined;
  for (;;) {
    const found = vmPageLookupBusyTry(cx, object, pindex, true);
    if (found.error) {
      if (!retry) return undefined;
      yield* vmPageSleepBusy(cx, found.m!, true, "pgrbwt");
      continue;
    }
    m = found.m ??
      vmPageAlloc(cx, object, pindex, allocflags & ~VM_ALLOC_RETRY | VM_ALLOC_NULL_OK);
    if (m !== undefined) break;
    if (!retry) return undefined;
    yield* vmWait(cx, 0);
  }
  // A page on CACHE may be taken at any time by whoever needs one, once it is not busy.
  if (m.queue - m.pc === PQ_CACHE) vmPageDeactivate(cx, m);
  if (allocflags & (VM_ALLOC_ZERO | VM_ALLOC_FORCE_ZERO)) {
    if ((allocflags & VM_ALLOC_FORCE_ZERO) !== 0 || m.valid === 0) {
      yield* vmPageZeroFill(cx, m);
      m.valid = VM_PAGE_BITS_ALL;
      k.vmmeter.vZfod++;
      if (m.flags & PG_ZERO) k.vmmeter.vOzfod++;
    }
  }
  vmPageFlagClear(m, PG_ZERO);
  return m;
}
