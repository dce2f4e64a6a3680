/**
 * Memory objects: what can be mapped (`sys/vm/vm_object.c`, the structure and its locks).
 *
 * Room: `kernel/vm/`; imports lwkt. What an object's pages go through stands in `vm_object_pages.ts`, the end of an object in
 * `vm_object_terminate.ts`, shortening of shadow chains in `vm_object_collapse.ts`.
 *
 * An object is a window of pages, some resident, the others with its pager (swap, a file) or, when it *shadows* another object, there.
 *
 *     entry A ──► shadow A ──┐
 *                            ├──► backing object (pages as they were at the fork)
 *     entry B ──► shadow B ──┘
 *
 * Three things keep an object alive or still, and they are not the same:
 *
 * 1. `refCount`: map entries and shadows that use it. At 0 the object is terminated.
 * 2. `holdCount` and the token: a short hold; the structure stays valid, and while the token is held and nobody sleeps, nothing changes.
 *    The token is lost over a sleep.
 * 3. the chain lock `chainlk`: kept over sleeps. Who holds it (a fault on its way down) finds the same `backingObject` afterwards; who
 *    wants to re-plumb the chain (collapse) takes it exclusively. Taken from the top of a chain down.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { RbTree } from "../libkern/rbtree.ts";
import { tsleep, wakeup } from "../lwkt/sleep.ts";
import {
  assertToken,
  assertTokenHeld,
  lwktGettoken,
  lwktGettokenShared,
  lwktReltoken,
  LwktToken,
  lwktTokenSwap,
  lwktTrytoken,
} from "../lwkt/token.ts";
import type { SwblockTree } from "./swap_meta.ts";
import type { VmPage } from "./vm_page.ts";

/** What an object's pages come from (`objtype_t`). */
export type ObjType = number;
/** Anonymous memory that was never paged out. */
export const OBJT_DEFAULT: ObjType = 0;
/** Anonymous memory with swap metadata. */
export const OBJT_SWAP: ObjType = 1;
/** A file. */
export const OBJT_VNODE: ObjType = 2;
/** Memory of a device: fictitious pages. */
export const OBJT_DEVICE: ObjType = 3;
/** Memory of a device whose pages the driver manages. */
export const OBJT_MGTDEVICE: ObjType = 4;
/** Wired pages without a pager. */
export const OBJT_PHYS: ObjType = 5;
/** Terminated. */
export const OBJT_DEAD: ObjType = 6;

/** On its backing object's shadow list. */
export const OBJ_ONSHADOW = 0x0002;
/** Active (unused, as in DragonFly). */
export const OBJ_ACTIVE = 0x0004;
/** Being or been terminated. */
export const OBJ_DEAD = 0x0008;
/** Must not be split. */
export const OBJ_NOSPLIT = 0x0010;
/** Has been made writable. */
export const OBJ_WRITEABLE = 0x0080;
/** A file whose mappings may have dirtied pages. */
export const OBJ_MIGHTBEDIRTY = 0x0100;
/** Being cleaned. */
export const OBJ_CLEANING = 0x0200;
/** Somebody waits for its death. */
export const OBJ_DEADWNT = 0x1000;
/** Each page is mapped by at most one entry: removing that entry may free the pages. */
export const OBJ_ONEMAPPING = 0x2000;
/** The syncer leaves it alone. */
export const OBJ_NOMSYNC = 0x4000;

/** `chainlk`: held exclusively. */
export const CHAINLK_EXCL = 0x8000_0000;
/** `chainlk`: somebody sleeps for it. */
export const CHAINLK_WAIT = 0x4000_0000;
/** `chainlk`: somebody wants it exclusively; no new sharers. */
export const CHAINLK_EXCLREQ = 0x2000_0000;
/** `chainlk`: count of sharers. */
export const CHAINLK_MASK = 0x1fff_ffff;

/** A memory object (`struct vm_object`). Fields change with the token held exclusively unless said otherwise. */
export class VmObject {
  /** For people and reports: numbers objects in the order of their making. */
  readonly id: number;
  /** `type`. */
  type: ObjType;
  /** `size` in pages. */
  size: number;
  /** `ref_count`: map entries, shadows, and for files the vnode's users. Rises also without the token for a caller that has a reference. */
  refCount = 1;
  /** `hold_count`. Changes without the token. */
  holdCount = 0;
  /** `token`. */
  readonly token: LwktToken;
  /** `flags`, OBJ_*. */
  flags = 0;
  /** `handle`: the vnode, device or other owner that knows it by name; undefined for anonymous memory. */
  handle: object | undefined = undefined;
  /** `rb_memq`: resident pages by pindex. */
  readonly rbMemq: RbTree<VmPage> = new RbTree<VmPage>((m) => m.pindex);
  /** `resident_page_count`. */
  residentPageCount = 0;
  /** `generation`: changes when pages come or go. */
  generation = 0;
  /** `paging_in_progress`: operations that rely on the object over sleeps. Changes without the token. */
  pagingInProgress = 0;
  /** `backing_object`: where to look for pages that this object does not have. Guarded by the chain lock too. */
  backingObject: VmObject | undefined = undefined;
  /** `backing_object_offset` in bytes, page aligned. */
  backingObjectOffset = 0;
  /** `shadow_head`: objects that shadow this one, oldest first. Not kept for files. */
  readonly shadowHead: Set<VmObject> = new Set<VmObject>();
  /** `shadow_count`. */
  shadowCount = 0;
  /** `chainlk`, CHAINLK_*. Changes without the token. */
  chainlk = 0;
  /** `pg_color`: added to the pindex to choose a page's colour. */
  pgColor: number;
  /** `memattr`: PAT index of its pages; write-back. */
  memattr = 6;
  /** `swblock_root`: the swap pager's metadata; made by it. */
  swblockRoot: SwblockTree | undefined = undefined;
  /** `swblock_count`. */
  swblockCount = 0;
  /** `agg_pv_list_count`: pv entries of its pages. */
  aggPvListCount = 0;
  /** `un_pager.vnp.vnp_size`: bytes of the file. */
  vnpSize = 0;
  /** `un_pager.devp`: what the device pager's owner needs. */
  unPager: unknown = undefined;

  /** Made by {@link vmObjectAllocate}. */
  constructor(id: number, type: ObjType, size: number, pgColor: number) {
    this.id = id;
    this.type = type;
    this.size = size;
    this.pgColor = pgColor;
    this.token = new LwktToken("vmobj");
  }
}

/** Whether an object is anonymous memory that the collapse and coalesce rules may touch: DEFAULT or SWAP, and no handle. */
export function vmObjectIsAnonymous(object: VmObject): boolean {
  return (object.type === OBJT_DEFAULT || object.type === OBJT_SWAP) && object.handle === undefined;
}

/** All objects of a kernel. */
export class VmObjectState {
  /** `vm_object_list`: objects that are not terminated, oldest first. */
  readonly objectList: Set<VmObject> = new Set<VmObject>();
  /** Structures that exist: on the list, or dead and still held. */
  objectCount = 0;
  /** Objects made so far. */
  made = 0;
  /** Colour of the next object (`next_index`). */
  nextIndex = 0;
  /** `object_collapses`: backing objects merged away. */
  objectCollapses = 0;
  /** `object_bypasses`: backing objects bypassed. */
  objectBypasses = 0;
}

/** Makes an object with one reference (`vm_object_allocate`). @param size Pages. */
export function vmObjectAllocate(cx: Cx, type: ObjType, size: number): VmObject {
  const state = cx.k.vmObject;
  const object = new VmObject(++state.made, type, size, state.nextIndex);
  // Neighbouring objects start at different colours, so that their first pages do not fight for the same cache sets.
  state.nextIndex = (state.nextIndex + (size > 85 ? 85 : size)) & 255;
  if (type === OBJT_DEFAULT || type === OBJT_SWAP) object.flags |= OBJ_ONEMAPPING;
  state.objectList.add(object);
  state.objectCount++;
  return object;
}

/** Makes an object and holds it exclusively (`vm_object_allocate_hold`). */
export function* vmObjectAllocateHold(cx: Cx, type: ObjType, size: number): Exec<VmObject> {
  const object = vmObjectAllocate(cx, type, size);
  yield* vmObjectHold(cx, object);
  return object;
}

// ---- token and hold

/** Holds the object and takes its token exclusively (`vm_object_hold`). May sleep; check again what was known of the object. */
export function* vmObjectHold(cx: Cx, object: VmObject): Exec<void> {
  object.holdCount++;
  yield* lwktGettoken(cx, object.token);
}

/** Holds the object and takes its token shared (`vm_object_hold_shared`). */
export function* vmObjectHoldShared(cx: Cx, object: VmObject): Exec<void> {
  object.holdCount++;
  yield* lwktGettokenShared(cx, object.token);
}

/** Holds the object if its token can be had at once (`vm_object_hold_try`). */
export function vmObjectHoldTry(cx: Cx, object: VmObject): boolean {
  if (!lwktTrytoken(cx, object.token)) return false;
  object.holdCount++;
  return true;
}

/** Lets go of token and hold (`vm_object_drop`); the last drop of a dead object frees the structure. */
export function vmObjectDrop(cx: Cx, object: VmObject): void {
  kassert(object.holdCount > 0, "vm_object_drop: object is not held");
  object.holdCount--;
  if (object.holdCount === 0 && object.refCount === 0 && (object.flags & OBJ_DEAD) !== 0) {
    kassert(object.type === OBJT_DEAD, "vm_object_drop: dead object has a pager");
    cx.k.vmObject.objectCount--;
  }
  lwktReltoken(cx, object.token);
}

/** Exchanges the two newest tokens, so that the older object can be dropped first (`vm_object_lock_swap`). */
export function vmObjectLockSwap(cx: Cx): void {
  lwktTokenSwap(cx);
}

/** Asserts that the current thread has the object's token (`vm_object_assert_held`). */
export function vmObjectAssertHeld(cx: Cx, object: VmObject): void {
  assertToken(cx, object.token);
}

// ---- references

/** A reference more, for a caller that holds the object (`vm_object_reference_locked`). */
export function vmObjectReferenceLocked(cx: Cx, object: VmObject): void {
  assertTokenHeld(cx, object.token);
  vmObjectReferenceQuick(cx, object);
}

/** A reference more, for a caller that has one already and therefore needs no token (`vm_object_reference_quick`). */
export function vmObjectReferenceQuick(cx: Cx, object: VmObject): void {
  kassert((object.flags & OBJ_DEAD) === 0, "vm_object_reference: object is dead");
  object.refCount++;
  // A reference to a file's object is one to its vnode.
  cx.k.vmPager.ops[object.type]?.ref?.(cx, object);
}

// ---- flags

/** Sets OBJ_* flags. */
export function vmObjectSetFlag(object: VmObject, bits: number): void {
  object.flags |= bits;
}
/** Clears OBJ_* flags. */
export function vmObjectClearFlag(object: VmObject, bits: number): void {
  object.flags &= ~bits;
}

// ---- paging in progress

/** An operation begins that needs the object to stay over sleeps (`vm_object_pip_add`). */
export function vmObjectPipAdd(object: VmObject, count: number): void {
  object.pagingInProgress += count;
}

/** Such an operation ends (`vm_object_pip_wakeup`). */
export function vmObjectPipWakeup(cx: Cx, object: VmObject): void {
  vmObjectPipWakeupN(cx, object, 1);
}

/** `count` such operations end (`vm_object_pip_wakeup_n`). */
export function vmObjectPipWakeupN(cx: Cx, object: VmObject, count: number): void {
  kassert(object.pagingInProgress >= count, "vm_object_pip_wakeup: count below zero");
  object.pagingInProgress -= count;
  if (object.pagingInProgress === 0) wakeup(cx, object);
}

/** Sleeps until no operation is on its way (`vm_object_pip_wait`). */
export function* vmObjectPipWait(cx: Cx, object: VmObject, wmesg: string): Exec<void> {
  assertTokenHeld(cx, object.token);
  while (object.pagingInProgress !== 0) yield* tsleep(cx, object, 0, wmesg, 0);
}

// ---- chain lock

/** What sleepers for the chain lock wait on: not the object itself, whose sleepers wait for paging. */
function chainIdent(object: VmObject): object {
  return object.shadowHead;
}

/** Takes the chain lock (`vm_object_chain_acquire`); the object is held. May sleep. */
export function* vmObjectChainAcquire(cx: Cx, object: VmObject, shared: boolean): Exec<void> {
  assertTokenHeld(cx, object.token);
  for (;;) {
    const chainlk = object.chainlk;
    if (shared) {
      if ((chainlk & (CHAINLK_EXCL | CHAINLK_EXCLREQ)) === 0) {
        object.chainlk = (chainlk + 1) >>> 0;
        return;
      }
      object.chainlk = (chainlk | CHAINLK_WAIT) >>> 0;
    } else {
      if ((chainlk & (CHAINLK_EXCL | CHAINLK_MASK)) === 0) {
        object.chainlk = CHAINLK_EXCL;
        if (chainlk & CHAINLK_WAIT) wakeup(cx, chainIdent(object));
        return;
      }
      object.chainlk = (chainlk | CHAINLK_WAIT | CHAINLK_EXCLREQ) >>> 0;
    }
    yield* tsleep(cx, chainIdent(object), 0, shared ? "objchns" : "objchnx", 0);
  }
}

/** Sleeps until the chain lock could be had (`vm_object_chain_wait`), without taking it. */
export function* vmObjectChainWait(cx: Cx, object: VmObject, shared: boolean): Exec<void> {
  assertTokenHeld(cx, object.token);
  const inTheWay = shared ? CHAINLK_EXCL | CHAINLK_EXCLREQ : CHAINLK_EXCL | CHAINLK_MASK;
  while (object.chainlk & inTheWay) {
    object.chainlk = (object.chainlk | CHAINLK_WAIT) >>> 0;
    yield* tsleep(cx, chainIdent(object), 0, "objchnw", 0);
  }
}

/** Lets the chain lock go (`vm_object_chain_release`). */
export function vmObjectChainRelease(cx: Cx, object: VmObject): void {
  const chainlk = object.chainlk;
  if (chainlk & CHAINLK_MASK) {
    // EXCLREQ goes with the last sharer: whoever asked for it sets it again if it must sleep once more.
    if ((chainlk & CHAINLK_MASK) === 1) {
      object.chainlk = 0;
      if (chainlk & CHAINLK_WAIT) wakeup(cx, chainIdent(object));
    } else {
      object.chainlk = (chainlk - 1) >>> 0;
    }
    return;
  }
  kassert((chainlk & CHAINLK_EXCL) !== 0, "vm_object_chain_release: not locked");
  object.chainlk = 0;
  if (chainlk & CHAINLK_WAIT) wakeup(cx, chainIdent(object));
}

/**
 * Undoes a walk down a chain (`vm_object_chain_release_all`): the chain locks from `first` to just above `stop` are released, top
 * first. The caller holds `first` and `stop`. The objects between are held alive by the chain itself, which the locks below keep as it is.
 */
export function vmObjectChainReleaseAll(cx: Cx, first: VmObject, stop: VmObject): void {
  let object: VmObject | undefined = first;
  while (object !== stop) {
    if (object === undefined) {
      throw new Error("vm_object_chain_release_all: the chain does not lead to its end");
    }
    // Read before the release: a collapse may run as soon as the lock is free. (Nothing runs between here and there.)
    const backing: VmObject | undefined = object.backingObject;
    vmObjectChainRelease(cx, object);
    object = backing;
  }
}
