/**
 * What is done with ranges of an object's pages: cleaning, removing, advice, growing; and putting a shadow on top of an object
 * (`vm_object_page_clean`, `vm_object_page_remove`, `vm_object_madvise`, `vm_object_coalesce`, `vm_object_shadow` of `sys/vm/vm_object.c`).
 *
 * Room: `kernel/vm/`; imports objects, pages, pagers. `vm_object_grow.ts` has the two that need collapse.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { swapPagerFreespace } from "./swap_pager.ts";
import {
  OBJ_ONEMAPPING,
  OBJT_DEFAULT,
  OBJT_SWAP,
  OBJT_VNODE,
  type VmObject,
  vmObjectAssertHeld,
  vmObjectDrop,
  vmObjectHold,
  vmObjectLockSwap,
  vmObjectPipAdd,
  vmObjectPipWakeup,
} from "./vm_object.ts";
import { VM_PAGER_PUT_INVAL, VM_PAGER_PUT_SYNC } from "./vm_pager.ts";
import {
  PG_NEED_COMMIT,
  PG_UNMANAGED,
  VM_PAGE_BITS_ALL,
  type VmPage,
  vmPageActivate,
  vmPageBusyTry,
  vmPageFree,
  vmPageLookupBusyTry,
  vmPageSleepBusy,
  vmPageUndirty,
  vmPageWakeup,
} from "./vm_page.ts";
import { vmPageoutFlush } from "./vm_pageout.ts";
import { vmPageDontneed } from "./vm_page_cache.ts";
import { vmPageProtect, vmPageTestDirty } from "./vm_page_valid.ts";
import { MADV_DONTNEED, MADV_FREE, MADV_WILLNEED, offToIdx, VM_PROT_NONE, VM_PROT_READ } from "./vm_param.ts";

/** vm_object_page_clean: wait for the writes. */
export const OBJPC_SYNC = 0x1;
/** vm_object_page_clean: forget the pages afterwards. */
export const OBJPC_INVAL = 0x2;
/** Pages in one call of the pager. */
const CLEAN_CLUSTER = 16;

/**
 * Writes the dirty pages of `[start, end)` to where they belong (`vm_object_page_clean`). Only files have such a place.
 *
 * Preconditions: held exclusively.
 */
export function* vmObjectPageClean(
  cx: Cx,
  object: VmObject,
  start: number,
  end: number,
  flags: number,
): Exec<void> {
  vmObjectAssertHeld(cx, object);
  if (object.type !== OBJT_VNODE) return;
  const put = ((flags & OBJPC_SYNC) !== 0 ? VM_PAGER_PUT_SYNC : 0) |
    ((flags & OBJPC_INVAL) !== 0 ? VM_PAGER_PUT_INVAL : 0);
  vmObjectPipAdd(object, 1);
  let cluster: VmPage[] = [];
  for (let m = object.rbMemq.lookupGE(start); m !== undefined && m.pindex < end;) {
    const at = m.pindex;
    if (vmPageBusyTry(cx, m, true)) {
      yield* vmPageoutFlush(cx, cluster, put);
      cluster = [];
      yield* vmPageSleepBusy(cx, m, true, "vpcwai");
      m = object.rbMemq.lookupGE(at);
      continue;
    }
    yield* vmPageTestDirty(cx, m);
    if (m.dirty === 0 || m.valid !== VM_PAGE_BITS_ALL) {
      vmPageWakeup(cx, m);
    } else {
      if (
        cluster.length === CLEAN_CLUSTER ||
        (cluster.length > 0 && cluster[cluster.length - 1]!.pindex + 1 !== at)
      ) {
        yield* vmPageoutFlush(cx, cluster, put);
        cluster = [];
      }
      cluster.push(m);
    }
    m = object.rbMemq.lookupGT(at);
  }
  yield* vmPageoutFlush(cx, cluster, put);
  vmObjectPipWakeup(cx, object);
}

/**
 * Removes the pages of `[start, end)`, and their swap (`vm_object_page_remove`). Wired pages stay, without content.
 *
 * Preconditions: held exclusively.
 *
 * @param cleanOnly Dirty pages stay.
 */
export function* vmObjectPageRemove(
  cx: Cx,
  object: VmObject,
  start: number,
  end: number,
  cleanOnly: boolean,
): Exec<void> {
  vmObjectAssertHeld(cx, object);
  vmObjectPipAdd(object, 1);
  for (let m = object.rbMemq.lookupGE(start); m !== undefined && m.pindex < end;) {
    const at = m.pindex;
    if (vmPageBusyTry(cx, m, true)) {
      yield* vmPageSleepBusy(cx, m, true, "vmopar");
      m = object.rbMemq.lookupGE(at);
      continue;
    }
    yield* removePage(cx, m, cleanOnly);
    m = object.rbMemq.lookupGT(at);
  }
  if (object.type === OBJT_SWAP && !cleanOnly) swapPagerFreespace(cx, object, start, end - start);
  vmObjectPipWakeup(cx, object);
}

/** One page of {@link vmObjectPageRemove}, which is busy. */
function* removePage(cx: Cx, m: VmPage, cleanOnly: boolean): Exec<void> {
  if (m.wireCount !== 0) {
    yield* vmPageProtect(cx, m, VM_PROT_NONE);
    if (!cleanOnly) m.valid = 0;
    vmPageWakeup(cx, m);
    return;
  }
  if (cleanOnly) {
    yield* vmPageTestDirty(cx, m);
    if ((m.valid & m.dirty) !== 0 || (m.flags & PG_NEED_COMMIT) !== 0) {
      vmPageWakeup(cx, m);
      return;
    }
  }
  yield* vmPageProtect(cx, m, VM_PROT_NONE);
  if (cleanOnly && m.dirty !== 0) vmPageWakeup(cx, m);
  else vmPageFree(cx, m);
}

/**
 * Carries out advice on pages (`vm_object_madvise`): WILLNEED activates, DONTNEED makes them candidates, FREE forgets the content of anonymous
 * pages that nobody else maps. Pages are looked for down the shadow chain.
 *
 * @param object May be undefined: then there is nothing to advise on.
 */
export function* vmObjectMadvise(
  cx: Cx,
  object: VmObject | undefined,
  pindex: number,
  count: number,
  advise: number,
): Exec<void> {
  if (object === undefined) return;
  yield* vmObjectHold(cx, object);
  for (let at = pindex; at < pindex + count; at++) {
    while (!(yield* madvisePage(cx, object, at, advise)));
  }
  vmObjectDrop(cx, object);
}

/** One page of {@link vmObjectMadvise}; false when somebody else's page made it sleep: look again. */
function* madvisePage(cx: Cx, object: VmObject, pindex: number, advise: number): Exec<boolean> {
  let tobject = object;
  let tpindex = pindex;
  for (;;) {
    // Besides the top object, whose hold stays, one object of the chain is held at a time.
    const result = yield* madviseIn(cx, tobject, tpindex, advise);
    if (result === "done" || result === "slept") {
      if (tobject !== object) vmObjectDrop(cx, tobject);
      return result === "done";
    }
    const next: VmObject | undefined = tobject.backingObject;
    const offset = offToIdx(tobject.backingObjectOffset);
    // Files further down are not held exclusively for advice; and a top object that shadows nothing is the end.
    if (next === undefined || next.type === OBJT_VNODE) {
      if (tobject !== object) vmObjectDrop(cx, tobject);
      return true;
    }
    // No chain lock: the hold follows the link as it was, and the link is checked again.
    yield* vmObjectHold(cx, next);
    const same: boolean = tobject.backingObject === next && offToIdx(tobject.backingObjectOffset) === offset;
    if (tobject !== object) {
      vmObjectLockSwap(cx);
      vmObjectDrop(cx, tobject);
    }
    if (!same) {
      vmObjectDrop(cx, next);
      return false;
    }
    tobject = next;
    tpindex += offset;
  }
}

/** Advice on the page of one object of the chain. */
function* madviseIn(
  cx: Cx,
  object: VmObject,
  pindex: number,
  advise: number,
): Exec<"done" | "slept" | "below"> {
  const anonymous = object.type === OBJT_DEFAULT || object.type === OBJT_SWAP;
  if (advise === MADV_FREE && (!anonymous || (object.flags & OBJ_ONEMAPPING) === 0)) return "done";
  const { m, error } = vmPageLookupBusyTry(cx, object, pindex, true);
  if (m === undefined) {
    // No page, but swap perhaps.
    if (advise === MADV_FREE && object.type === OBJT_SWAP) swapPagerFreespace(cx, object, pindex, 1);
    return "below";
  }
  if (error) {
    yield* vmPageSleepBusy(cx, m, true, "madvpo");
    return "slept";
  }
  const fit = m.wireCount === 0 && (m.flags & (PG_UNMANAGED | PG_NEED_COMMIT)) === 0 &&
    m.valid === VM_PAGE_BITS_ALL;
  if (fit && advise === MADV_WILLNEED) vmPageActivate(cx, m);
  else if (fit && advise === MADV_DONTNEED) yield* vmPageDontneed(cx, m);
  else if (fit && advise === MADV_FREE) yield* freeContent(cx, object, m);
  vmPageWakeup(cx, m);
  return "done";
}

/**
 * The content of a page may be forgotten: it becomes clean, and what swap has of it goes.
 *
 * DragonFly only clears the modified bits here, without telling any TLB. A processor that still has the translation with its dirty
 * flag set would then write without the page becoming dirty, and what the program wrote *after* the advice could be lost. So the page is
 * write-protected, with an interlock: the next write faults, which is what marks it dirty again.
 */
function* freeContent(cx: Cx, object: VmObject, m: VmPage): Exec<void> {
  yield* vmPageProtect(cx, m, VM_PROT_READ);
  vmPageUndirty(m);
  m.actCount = 0;
  yield* vmPageDontneed(cx, m);
  if (object.type === OBJT_SWAP) swapPagerFreespace(cx, object, m.pindex, 1);
}
