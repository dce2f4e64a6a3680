/**
 * Shortening shadow chains (`vm_object_collapse`, `vm_object_backing_scan`, `vm_object_qcollapse` of `sys/vm/vm_object.c`).
 *
 * Room: `kernel/vm/`; imports objects, pages, the swap pager.
 *
 * Each fork puts a shadow on top of what both sides share; when one side ends, the object in the middle serves one chain only.
 *
 *     merge     the backing object has one reference: its pages move up, it goes
 *     bypass    it has more, but the parent has every page of it: the parent uses the object below it instead
 *
 *         parent ─► backing ─► bb       merge:  parent+backing ─► bb
 *                   ▲                   bypass: parent ─► bb,  other ─► backing ─► bb
 *         other ────┘ (bypass only)
 *
 * The pages stay mapped where they are: a page belongs to an object, its mappings to address spaces, and the byte that an address shows does
 * not change.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import {
  OBJ_DEAD,
  OBJ_ONSHADOW,
  OBJT_DEAD,
  OBJT_DEFAULT,
  OBJT_SWAP,
  OBJT_VNODE,
  type VmObject,
  vmObjectAssertHeld,
  vmObjectChainAcquire,
  vmObjectChainRelease,
  vmObjectChainWait,
  vmObjectDrop,
  vmObjectHold,
  vmObjectIsAnonymous,
  vmObjectPipAdd,
  vmObjectPipWait,
  vmObjectPipWakeup,
  vmObjectReferenceQuick,
} from "./vm_object.ts";
import { vmPagerDeallocate, vmPagerHasPage } from "./vm_pager.ts";
import {
  PG_SWAPPED,
  type VmPage,
  vmPageBusyTry,
  vmPageFlagClear,
  vmPageFree,
  vmPageLookup,
  vmPageRename,
  vmPageSleepBusy,
  vmPageWakeup,
} from "./vm_page.ts";
import { vmPageProtect } from "./vm_page_valid.ts";
import { offToIdx, VM_PROT_NONE } from "./vm_param.ts";
import { swapPagerCopy, swapPagerFreespace } from "./swap_pager.ts";

/**
 * Shortens the chain below an object as far as it can (`vm_object_collapse`).
 *
 * Preconditions: the object is held and chain-locked exclusively, and the caller has a reference.
 *
 * @param dlist Gets the objects that were bypassed. The caller deallocates them (`vmObjectDeallocateList`) once it has released the chain
 *   lock: a deallocation may want the chain locks of other shadows, whose holders may want this one.
 */
export function* vmObjectCollapse(cx: Cx, object: VmObject, dlist: VmObject[]): Exec<void> {
  vmObjectAssertHeld(cx, object);
  for (;;) {
    const backing = object.backingObject;
    if (backing === undefined || !vmObjectIsAnonymous(backing)) return;
    yield* vmObjectHold(cx, backing);
    // The chain lock on object keeps the pair together; the types may have changed (DEFAULT becomes SWAP) while the token was taken.
    kassert(backing === object.backingObject, "vm_object_collapse: the chain changed under its lock");
    yield* vmObjectChainAcquire(cx, backing, false);
    const next = yield* collapseOne(cx, object, backing, dlist);
    if (next !== "again") {
      vmObjectChainRelease(cx, backing);
      vmObjectDrop(cx, backing);
      return;
    }
  }
}

/** One step: "again" when `backing` is out of the chain, and neither held nor locked any more. */
function* collapseOne(
  cx: Cx,
  object: VmObject,
  backing: VmObject,
  dlist: VmObject[],
): Exec<"again" | "stop"> {
  if (!vmObjectIsAnonymous(object) || !vmObjectIsAnonymous(backing)) return "stop";
  if ((object.flags & OBJ_DEAD) !== 0 || (backing.flags & OBJ_DEAD) !== 0) return "stop";
  if (object.pagingInProgress !== 0 || backing.pagingInProgress !== 0) {
    yield* qcollapse(cx, object, backing);
    return "stop";
  }
  if (backing.refCount === 1) {
    yield* merge(cx, object, backing);
    return "again";
  }
  if (!allShadowed(cx, object, backing)) return "stop";
  yield* bypass(cx, object, backing, dlist);
  return "again";
}

/** Moves what `backing`, which only `object` uses, has into `object`, and ends it. */
function* merge(cx: Cx, object: VmObject, backing: VmObject): Exec<void> {
  // From here on the scan may sleep: DEAD keeps everybody who only holds the object from doing anything with it.
  backing.flags |= OBJ_DEAD;
  do {
    yield* moveUp(cx, object, backing, true);
    // The pageout daemon may have begun to write a page that had not moved yet.
    yield* vmObjectPipWait(cx, backing, "vmocol");
  } while (backing.residentPageCount > 0);
  if (backing.type === OBJT_SWAP) {
    vmObjectPipAdd(backing, 1);
    vmObjectPipAdd(object, 1);
    swapPagerCopy(cx, backing, object, offToIdx(object.backingObjectOffset), true);
    vmObjectPipWakeup(cx, object);
    vmObjectPipWakeup(cx, backing);
  }
  // object now shadows what backing did.
  kassert(backing.shadowHead.delete(object), "vm_object_collapse: not on the shadow list");
  backing.shadowCount--;
  object.flags &= ~OBJ_ONSHADOW;
  const bbobj = backing.backingObject;
  if (bbobj !== undefined && bbobj.type !== OBJT_VNODE) {
    yield* vmObjectHold(cx, bbobj);
    bbobj.shadowHead.delete(backing);
    bbobj.shadowHead.add(object);
    bbobj.generation++;
    object.flags |= OBJ_ONSHADOW;
    vmObjectDrop(cx, bbobj);
  }
  backing.flags &= ~OBJ_ONSHADOW;
  backing.backingObject = undefined;
  object.backingObject = bbobj;
  object.backingObjectOffset = bbobj === undefined
    ? 0
    : object.backingObjectOffset + backing.backingObjectOffset;
  kassert(backing.refCount === 1, "vm_object_collapse: backing object got a reference");
  kassert(backing.residentPageCount === 0, "vm_object_collapse: backing object still has pages");
  backing.refCount = 0;
  yield* vmPagerDeallocate(cx, backing);
  backing.type = OBJT_DEAD;
  cx.k.vmObject.objectList.delete(backing);
  cx.k.vmObject.objectCollapses++;
  vmObjectChainRelease(cx, backing);
  vmObjectDrop(cx, backing);
}

/** Lets `object`, which has every page of `backing`, use the object below it. */
function* bypass(cx: Cx, object: VmObject, backing: VmObject, dlist: VmObject[]): Exec<void> {
  const bbobj = backing.backingObject;
  if (bbobj !== undefined) {
    if (bbobj.type === OBJT_VNODE) {
      vmObjectReferenceQuick(cx, bbobj);
    } else {
      yield* vmObjectHold(cx, bbobj);
      yield* vmObjectChainWait(cx, bbobj, false);
      vmObjectReferenceQuick(cx, bbobj);
      bbobj.shadowHead.add(object);
      bbobj.shadowCount++;
      bbobj.generation++;
      vmObjectDrop(cx, bbobj);
    }
  }
  kassert(backing.shadowHead.delete(object), "vm_object_collapse: not on the shadow list");
  backing.shadowCount--;
  backing.generation++;
  if (bbobj === undefined || bbobj.type === OBJT_VNODE) object.flags &= ~OBJ_ONSHADOW;
  object.backingObject = bbobj;
  object.backingObjectOffset = bbobj === undefined
    ? 0
    : object.backingObjectOffset + backing.backingObjectOffset;
  cx.k.vmObject.objectBypasses++;
  // Our reference to backing is the list's now.
  dlist.push(backing);
  vmObjectChainRelease(cx, backing);
  vmObjectDrop(cx, backing);
}

/** Whether `object` has a page, or swap, for every page of `backing` that it can see. */
function allShadowed(cx: Cx, object: VmObject, backing: VmObject): boolean {
  // Pages of backing that are on swap are not looked at, so an object that has any does not qualify.
  if (backing.type !== OBJT_DEFAULT) return false;
  const offset = offToIdx(object.backingObjectOffset);
  for (const p of backing.rbMemq) {
    const pindex = p.pindex - offset;
    if (pindex < 0 || pindex >= object.size) continue;
    const pp = vmPageLookup(cx, object, pindex);
    if ((pp === undefined || pp.valid === 0) && !vmPagerHasPage(cx, object, pindex)) return false;
  }
  return true;
}

/** Paging runs: move what can be moved without waiting, if nobody else uses `backing`. */
function* qcollapse(cx: Cx, object: VmObject, backing: VmObject): Exec<void> {
  if (backing.refCount !== 1) return;
  vmObjectPipAdd(backing, 1);
  yield* moveUp(cx, object, backing, false);
  vmObjectPipWakeup(cx, backing);
}

/** Moves the pages of `backing` up; those that `object` has already, or cannot see, are freed. */
function* moveUp(cx: Cx, object: VmObject, backing: VmObject, wait: boolean): Exec<void> {
  const offset = offToIdx(object.backingObjectOffset);
  for (let p = backing.rbMemq.min(); p !== undefined;) {
    if (vmPageBusyTry(cx, p, true)) {
      if (!wait) {
        p = backing.rbMemq.lookupGT(p.pindex);
        continue;
      }
      yield* vmPageSleepBusy(cx, p, true, "vmocol");
      p = backing.rbMemq.min();
      continue;
    }
    const at = p.pindex;
    yield* moveUpPage(cx, object, backing, p, at - offset);
    p = backing.rbMemq.lookupGT(at);
  }
}

/** One page of {@link moveUp}, which is busy. */
function* moveUpPage(cx: Cx, object: VmObject, backing: VmObject, p: VmPage, pindex: number): Exec<void> {
  // What it has on swap is its own content; the page is renamed as dirty, or not needed.
  if (backing.type === OBJT_SWAP) swapPagerFreespace(cx, backing, p.pindex, 1);
  const seen = pindex >= 0 && pindex < object.size;
  if (seen && vmPageLookup(cx, object, pindex) === undefined && !vmPagerHasPage(cx, object, pindex)) {
    vmPageFlagClear(p, PG_SWAPPED);
    vmPageRename(cx, p, object, pindex);
    vmPageWakeup(cx, p);
    return;
  }
  yield* vmPageProtect(cx, p, VM_PROT_NONE);
  vmPageFree(cx, p);
}
