/**
 * References to objects, and their end (`vm_object_deallocate`, `vm_object_terminate` of `sys/vm/vm_object.c`).
 *
 * Room: `kernel/vm/`; imports objects, pages, pagers, collapse.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import {
  OBJ_DEAD,
  OBJ_ONEMAPPING,
  OBJ_ONSHADOW,
  OBJT_DEAD,
  OBJT_VNODE,
  type VmObject,
  vmObjectAssertHeld,
  vmObjectChainAcquire,
  vmObjectChainRelease,
  vmObjectDrop,
  vmObjectHold,
  vmObjectIsAnonymous,
  vmObjectLockSwap,
  vmObjectPipWait,
} from "./vm_object.ts";
import { vmObjectCollapse } from "./vm_object_collapse.ts";
import { OBJPC_SYNC, vmObjectPageClean } from "./vm_object_pages.ts";
import { vmPagerDeallocate } from "./vm_pager.ts";
import {
  PG_MAPPED,
  vmPageBusyTry,
  vmPageFree,
  vmPageRemove,
  vmPageSleepBusy,
  vmPageWakeup,
} from "./vm_page.ts";
import { vmPageProtect } from "./vm_page_valid.ts";
import { VM_PROT_NONE } from "./vm_param.ts";

/**
 * Drops a reference (`vm_object_deallocate`).
 *
 * What the last reference frees is freed iteratively: the object, then its reference to the object below it, and so on. A reference
 * whose end leaves a chain where it could be shorter shortens it.
 *
 * Preconditions: the caller holds no token of the object's chain.
 */
export function* vmObjectDeallocate(cx: Cx, first: VmObject): Exec<void> {
  let object: VmObject | undefined = first;
  while (object !== undefined) object = yield* deallocateOne(cx, object);
}

/** Drops a reference of each object of a list ({@link vmObjectCollapse} made it; `vm_object_deallocate_list`). */
export function* vmObjectDeallocateList(cx: Cx, dlist: readonly VmObject[]): Exec<void> {
  for (const object of dlist) yield* vmObjectDeallocate(cx, object);
}

/** Drops one reference; gives the object whose reference is to be dropped next. */
function* deallocateOne(cx: Cx, object: VmObject): Exec<VmObject | undefined> {
  yield* vmObjectHold(cx, object);
  for (;;) {
    kassert(object.refCount > 0, "vm_object_deallocate: object deallocated too many times");
    if (object.type === OBJT_VNODE) {
      yield* vndeallocate(cx, object);
      return undefined;
    }
    if (object.refCount === 2 && object.shadowCount === 1 && vmObjectIsAnonymous(object)) {
      // What remains is one shadow: object may be merged into it.
      const next = yield* collapseParent(cx, object);
      if (next !== undefined) return next;
      // The parent cannot take it, or things have changed while its token was taken.
      if (object.refCount !== 2 || object.shadowCount !== 1) continue;
      object.refCount--;
      vmObjectDrop(cx, object);
      return undefined;
    }
    if (object.refCount > 1) {
      object.refCount--;
      // One reference and no shadow: a single map entry.
      if (object.refCount === 1 && object.shadowCount === 0 && vmObjectIsAnonymous(object)) {
        object.flags |= OBJ_ONEMAPPING;
      }
      vmObjectDrop(cx, object);
      return undefined;
    }
    yield* vmObjectChainAcquire(cx, object, false);
    const last = yield* lastReference(cx, object);
    if (last.done) return last.backing;
    vmObjectChainRelease(cx, object);
  }
}

/**
 * Drops a reference to `object` whose other reference is its only shadow, and collapses that shadow. Gives the shadow, whose reference that
 * was taken meanwhile is to be dropped; undefined, with `object` still held, if the shadow is not of the kind, or not the one any more.
 */
function* collapseParent(cx: Cx, object: VmObject): Exec<VmObject | undefined> {
  const [robject] = object.shadowHead;
  if (robject === undefined) return undefined;
  yield* vmObjectHold(cx, robject);
  const same = object.refCount === 2 && object.shadowCount === 1 && object.shadowHead.has(robject);
  if (!same || (robject.flags & OBJ_DEAD) !== 0 || robject.refCount === 0 || !vmObjectIsAnonymous(robject)) {
    vmObjectDrop(cx, robject);
    return undefined;
  }
  object.refCount--;
  robject.refCount++;
  // Chain locks are taken from the top: object's token must not be in the way of whoever has robject's lock and comes down.
  vmObjectLockSwap(cx);
  vmObjectDrop(cx, object);
  yield* vmObjectChainAcquire(cx, robject, false);
  const dlist: VmObject[] = [];
  yield* vmObjectCollapse(cx, robject, dlist);
  vmObjectChainRelease(cx, robject);
  vmObjectDrop(cx, robject);
  yield* vmObjectDeallocateList(cx, dlist);
  return robject;
}

/** What {@link lastReference} did. */
type Last = { readonly done: false } | { readonly done: true; readonly backing: VmObject | undefined };

/**
 * The last reference goes. The object is held and chain-locked exclusively; when done, it is neither. Gives the object below, whose
 * reference goes next. Not done: it was not the last reference any more.
 */
function* lastReference(cx: Cx, object: VmObject): Exec<Last> {
  const backing = object.backingObject;
  const listed = backing !== undefined && backing.type !== OBJT_VNODE;
  if (listed) yield* vmObjectHold(cx, backing);
  // Whoever collapses the chain from the object below may have taken a reference until here; from here on nothing sleeps.
  if (object.refCount !== 1) {
    if (listed) vmObjectDrop(cx, backing);
    return { done: false };
  }
  kassert(object.shadowCount === 0, "vm_object_deallocate: the last reference is not a shadow's");
  object.refCount = 0;
  object.flags |= OBJ_DEAD;
  if (listed) {
    vmObjectShadowUnlink(object, backing);
    vmObjectDrop(cx, backing);
  }
  object.backingObject = undefined;
  yield* vmObjectTerminate(cx, object);
  vmObjectChainRelease(cx, object);
  vmObjectDrop(cx, object);
  return { done: true, backing };
}

/** Takes `object` off its backing object's shadow list. Both are held exclusively. */
export function vmObjectShadowUnlink(object: VmObject, backing: VmObject): void {
  kassert(backing.shadowHead.delete(object), "vm_object: not on the shadow list of its backing object");
  backing.shadowCount--;
  backing.generation++;
  object.flags &= ~OBJ_ONSHADOW;
}

/** Drops a reference to a file's object and the vnode's with it (`vm_object_vndeallocate`). The object stays with the vnode. */
function* vndeallocate(cx: Cx, object: VmObject): Exec<void> {
  const { unref } = cx.k.vmPager.ops[object.type] ?? {};
  object.refCount--;
  vmObjectDrop(cx, object);
  if (unref !== undefined) yield* unref(cx, object);
}

/**
 * Ends an object (`vm_object_terminate`): its pages go, then its pager.
 *
 * Preconditions: held and chain-locked exclusively, no reference, off its backing object. From OBJ_DEAD on it may sleep: nobody can make a
 * reference any more.
 */
export function* vmObjectTerminate(cx: Cx, object: VmObject): Exec<void> {
  vmObjectAssertHeld(cx, object);
  object.flags |= OBJ_DEAD;
  yield* vmObjectPipWait(cx, object, "objtrm1");
  if (object.type === OBJT_VNODE) {
    yield* vmObjectPageClean(cx, object, 0, object.size, OBJPC_SYNC);
    yield* vmObjectPipWait(cx, object, "objtrm2");
  }
  kassert(object.refCount === 0, "vm_object_terminate: object with references");
  yield* freePages(cx, object);
  yield* vmPagerDeallocate(cx, object);
  // The pager may have slept with I/O that brought pages back.
  yield* freePages(cx, object);
  kassert(object.residentPageCount === 0, "vm_object_terminate: object has pages");
  object.type = OBJT_DEAD;
  object.handle = undefined;
  cx.k.vmObject.objectList.delete(object);
}

/** Frees all pages; wired ones only leave the object, their owner frees them. */
function* freePages(cx: Cx, object: VmObject): Exec<void> {
  for (let m = object.rbMemq.min(); m !== undefined; m = object.rbMemq.min()) {
    if (vmPageBusyTry(cx, m, true)) {
      yield* vmPageSleepBusy(cx, m, true, "vmotrm");
      continue;
    }
    if (m.flags & PG_MAPPED) yield* vmPageProtect(cx, m, VM_PROT_NONE);
    if (m.wireCount === 0) {
      cx.k.vmmeter.vPfree++;
      vmPageFree(cx, m);
    } else {
      vmPageRemove(cx, m);
      vmPageWakeup(cx, m);
    }
  }
}
