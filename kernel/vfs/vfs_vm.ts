/**
 * Files and their memory objects, as file systems use them (`kern/vfs_vm.c`, the vnode's side of `vm/vnode_pager.c`).
 *
 * Room: `kernel/vfs/`; imports objects and pages.
 *
 * A regular file has an object of type VNODE in front, which read, write and mmap all go through, so that they see the same bytes. It belongs to
 * the vnode from {@link vinitvmio} until the vnode is taken apart. With no mapping its `refCount` is 0 and the pages stay: that is the
 * file cache.
 *
 * @module
 */
import { gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { ERRNO } from "../kern/errno.ts";
import { kassert } from "../kern/panic.ts";
import { physToDmap } from "../platform/layout.ts";
import {
  OBJ_NOMSYNC,
  OBJT_VNODE,
  type VmObject,
  vmObjectAllocate,
  vmObjectChainAcquire,
  vmObjectChainRelease,
  vmObjectDrop,
  vmObjectHold,
} from "../vm/vm_object.ts";
import { vmObjectPageRemove } from "../vm/vm_object_pages.ts";
import { vmObjectTerminate } from "../vm/vm_object_terminate.ts";
import {
  VM_ALLOC_NORMAL,
  VM_ALLOC_RETRY,
  VM_PAGE_BITS_ALL,
  type VmPage,
  vmPageDirty,
  vmPageFree,
  vmPageLookup,
  vmPageLookupBusyWait,
  vmPageUnwire,
  vmPageWakeup,
  vmPageWire,
} from "../vm/vm_page.ts";
import { vmPageGrab } from "../vm/vm_page_cache.ts";
import { VM_PAGER_OK } from "../vm/vm_pager.ts";
import { PAGE_SIZE } from "../vm/vm_param.ts";
import { type Vnode, VREG } from "./vnode.ts";

/** Pages that `bytes` bytes take. */
export function pagesOfBytes(bytes: number): number {
  return Math.ceil(bytes / PAGE_SIZE);
}

/** Gives a regular file its object (`vinitvmio`, `vnode_pager_alloc`). It has no references yet. */
export function vinitvmio(cx: Cx, vp: Vnode, size: number): VmObject {
  kassert(vp.vType === VREG, "vinitvmio: not a regular file");
  if (vp.vObject !== undefined) return vp.vObject;
  const object = vmObjectAllocate(cx, OBJT_VNODE, pagesOfBytes(size));
  object.refCount = 0;
  object.handle = vp;
  object.vnpSize = size;
  // All file systems here live in memory: there is no place that msync could write to.
  object.flags |= OBJ_NOMSYNC;
  vp.vObject = object;
  vp.vFilesize = size;
  return object;
}

/**
 * The file has a new size (`vnode_pager_setsize`, `nvtruncbuf`): pages behind the end go, from every address space, and the bytes behind the end in
 * the last page become zero. The vnode is locked exclusively, and `vFilesize` is the new size already where it falls.
 */
export function* vnodePagerSetsize(cx: Cx, vp: Vnode, newSize: number): Exec<void> {
  const object = vp.vObject;
  vp.vFilesize = newSize;
  if (object === undefined) return;
  yield* vmObjectHold(cx, object);
  const oldPages = object.size, newPages = pagesOfBytes(newSize);
  const shrinks = newSize < object.vnpSize;
  object.vnpSize = newSize;
  object.size = newPages;
  if (shrinks) {
    if (newPages < oldPages) yield* vmObjectPageRemove(cx, object, newPages, oldPages, false);
    const rest = newSize % PAGE_SIZE;
    const m = rest === 0 ? undefined : yield* vmPageLookupBusyWait(cx, object, newPages - 1, false, "vsetsz");
    if (m !== undefined) {
      // Programs that have the page mapped see the zeros at once: the frame stays the same.
      yield* cx.cpu.zeroBytes(gva(physToDmap(cx.k, m.physAddr) + BigInt(rest)), PAGE_SIZE - rest);
      vmPageWakeup(cx, m);
    }
  }
  vmObjectDrop(cx, object);
}

/**
 * A page of the file, valid and busy, read in if need be (`vm_page_grab` and the pager). The vnode is locked. Gives an error number if
 * it cannot be had.
 */
export function* vnodePagerGrab(cx: Cx, vp: Vnode, pindex: number): Exec<VmPage | number> {
  const object = vp.vObject!;
  yield* vmObjectHold(cx, object);
  let m = yield* vmPageGrab(cx, object, pindex, VM_ALLOC_NORMAL | VM_ALLOC_RETRY);
  if (m !== undefined && m.valid !== VM_PAGE_BITS_ALL) {
    const rv = yield* vp.vOps.vopGetpage(cx, vp, m);
    if (rv === VM_PAGER_OK) m = vmPageLookup(cx, object, pindex);
    else {
      vmPageFree(cx, m);
      m = undefined;
    }
  }
  vmObjectDrop(cx, object);
  return m ?? ERRNO.EIO;
}

/**
 * Lends a page of the file to `body` while it copies (the role of bread and bdwrite for a file in memory). The page is wired and not busy: the
 * copy may fault on this very page, through a mapping of the file.
 *
 * @param write The page is dirty afterwards, and was not cleaned while the copy went on.
 */
export function* vnodePagerUse(
  cx: Cx,
  vp: Vnode,
  pindex: number,
  write: boolean,
  body: (m: VmPage) => Exec<number>,
): Exec<number> {
  const m = yield* vnodePagerGrab(cx, vp, pindex);
  if (typeof m === "number") return m;
  vmPageWire(cx, m);
  vmPageWakeup(cx, m);
  const error = yield* body(m);
  if (write && m.object !== undefined) vmPageDirty(cx, m);
  vmPageUnwire(cx, m, true);
  return error;
}

/** The vnode has been taken apart: its object, which is empty and not mapped, goes. */
export function* vnodePagerRelease(cx: Cx, vp: Vnode): Exec<void> {
  const object = vp.vObject;
  if (object === undefined) return;
  kassert(object.refCount === 0, "vgone: the file is mapped");
  vp.vObject = undefined;
  yield* vmObjectHold(cx, object);
  yield* vmObjectChainAcquire(cx, object, false);
  yield* vmObjectTerminate(cx, object);
  vmObjectChainRelease(cx, object);
  vmObjectDrop(cx, object);
}
