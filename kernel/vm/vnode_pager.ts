/**
 * Files as memory objects, the VM system's side (`sys/vm/vnode_pager.c`).
 *
 * Room: `kernel/vm/`; imports objects and vnodes. The vnode's side is in `vfs/vfs_vm.ts`; where the bytes come from and go to, the
 * file system says (`vopGetpage`, `vopPutpages`).
 *
 * Each reference to the object (a mapping) counts as a reference to the vnode.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { vrele } from "../vfs/vfs_subr.ts";
import { type Vnode, vref, VTEXT } from "../vfs/vnode.ts";
import type { VmObject } from "./vm_object.ts";
import type { VmPage } from "./vm_page.ts";
import { type PagerOps, VM_PAGER_PUT_SYNC } from "./vm_pager.ts";

/** The vnode of a VNODE object. */
function vnodeOf(object: VmObject): Vnode {
  return object.handle as Vnode;
}

/**
 * One more reference to the file's object, and with it to the vnode (`vnode_pager_reference`): what mmap and exec do. Undefined if the vnode
 * is not a regular file. The caller has a reference to the vnode.
 */
export function vnodePagerReference(_cx: Cx, vp: Vnode): VmObject | undefined {
  const object = vp.vObject;
  if (object === undefined) return undefined;
  object.refCount++;
  vref(vp);
  return object;
}

/** The pager of VNODE objects (`vnodepagerops`). */
export const vnodePagerOps: PagerOps = {
  *dealloc(_cx: Cx, object: VmObject): Exec<void> {
    object.handle = undefined;
  },
  *getpage(cx: Cx, object: VmObject, m: VmPage, _seqaccess: boolean): Exec<number> {
    const vp = vnodeOf(object);
    return yield* vp.vOps.vopGetpage(cx, vp, m);
  },
  *putpages(cx: Cx, object: VmObject, pages: readonly VmPage[], flags: number): Exec<number[]> {
    const vp = vnodeOf(object);
    return yield* vp.vOps.vopPutpages(cx, vp, pages, (flags & VM_PAGER_PUT_SYNC) !== 0);
  },
  haspage(_cx: Cx, object: VmObject, pindex: number): boolean {
    return pindex < object.size;
  },
  ref(_cx: Cx, object: VmObject): void {
    vref(vnodeOf(object));
  },
  *unref(cx: Cx, object: VmObject): Exec<void> {
    const vp = vnodeOf(object);
    // Not executed or mapped by anybody any more: it may be written again.
    if (object.refCount === 0) vp.vFlag &= ~VTEXT;
    yield* vrele(cx, vp);
  },
};
