/**
 * Pages of tmpfs files (`vfs/tmpfs/tmpfs_subr.c`: tmpfs_reg_resize, tmpfs_move_pages; the paging half of `tmpfs_vnops.c`). Where a page
 * can be is said in {@link "./tmpfs.ts"}.
 *
 * Room: `kernel/vfs/tmpfs/`; imports objects, pages, swap.
 *
 * Order of tokens: the vnode's object, then the node's anonymous one.
 *
 * Deviation: DragonFly writes a file's dirty page through a buffer to the anonymous object's swap. Here the page itself moves to that object
 * (`vm_page_rename`), from where it is paged out like any anonymous page; reading it moves it back. That takes no memory, which there is
 * none of when pages are written out.
 *
 * @module
 */
import { gva, hpa } from "../../../hw/address.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import { ERRNO } from "../../kern/errno.ts";
import { physToDmap } from "../../platform/layout.ts";
import { swapPagerAlloc, swapPagerFreespace, swapPagerUnswapped } from "../../vm/swap_pager.ts";
import { OBJT_SWAP, type VmObject, vmObjectDrop, vmObjectHold } from "../../vm/vm_object.ts";
import { vmObjectPageRemove } from "../../vm/vm_object_pages.ts";
import { vmObjectDeallocate } from "../../vm/vm_object_terminate.ts";
import {
  PG_SWAPPED,
  VM_ALLOC_NORMAL,
  VM_ALLOC_NULL_OK,
  VM_PAGE_BITS_ALL,
  type VmPage,
  vmPageBusyTry,
  vmPageDeactivate,
  vmPageFree,
  vmPageLookupBusyTry,
  vmPageRename,
  vmPageSleepBusy,
  vmPageUndirty,
  vmPageWakeup,
} from "../../vm/vm_page.ts";
import { vmPageAlloc, vmWait } from "../../vm/vm_page_alloc.ts";
import { vmPageProtect, vmPageTestDirty } from "../../vm/vm_page_valid.ts";
import { VM_PAGER_AGAIN, VM_PAGER_OK, vmPagerGetPage, vmPagerHasPage } from "../../vm/vm_pager.ts";
import { PAGE_SIZE, VM_PROT_NONE } from "../../vm/vm_param.ts";
import { pagesOfBytes, vnodePagerSetsize, vnodePagerUse } from "../vfs_vm.ts";
import type { Vnode } from "../vnode.ts";
import { type TmpfsNode, tmpfsPagesMax, vfsToTmpfs, vpToTmpfsNode } from "./tmpfs.ts";

/** The anonymous object of a node; made when first needed. */
function aobjOf(cx: Cx, node: TmpfsNode): VmObject {
  node.tnAobj ??= swapPagerAlloc(cx, pagesOfBytes(node.tnSize));
  return node.tnAobj;
}

/** Whether swap has the page of an anonymous object. */
function onSwap(cx: Cx, aobj: VmObject, pindex: number): boolean {
  return aobj.type === OBJT_SWAP && vmPagerHasPage(cx, aobj, pindex);
}

/**
 * Fills page `m` of a file: busy, in the vnode's object, which is held exclusively. The page may be replaced by another, busy for the caller
 * as `m` was.
 */
export function* tmpfsGetpage(cx: Cx, vp: Vnode, m: VmPage): Exec<number> {
  const node = vpToTmpfsNode(vp);
  const { pindex } = m;
  const object = m.object!;
  if (node.tnAobj !== undefined) {
    const found = yield* fromAobj(cx, node.tnAobj, object, m);
    if (found !== undefined) return found;
  }
  const va = physToDmap(cx.k, m.physAddr);
  const offset = pindex * PAGE_SIZE;
  const archive = node.tnArchive;
  const bytes = archive === undefined ? 0 : Math.max(0, Math.min(PAGE_SIZE, archive.bytes - offset));
  if (bytes > 0) {
    cx.k.vmmeter.vVnodein++;
    cx.k.vmmeter.vVnodepgsin++;
    yield* cx.cpu.copyBytes(va, physToDmap(cx.k, hpa(archive!.pa + offset)), bytes);
  }
  if (bytes < PAGE_SIZE) yield* cx.cpu.zeroBytes(gva(va + BigInt(bytes)), PAGE_SIZE - bytes);
  m.valid = VM_PAGE_BITS_ALL;
  vmPageUndirty(m);
  return VM_PAGER_OK;
}

/** Moves the page back from the anonymous object, if it is there or on its swap; undefined if it is not. */
function* fromAobj(cx: Cx, aobj: VmObject, object: VmObject, m: VmPage): Exec<number | undefined> {
  const { pindex } = m;
  yield* vmObjectHold(cx, aobj);
  let p: VmPage | undefined;
  for (;;) {
    const found = vmPageLookupBusyTry(cx, aobj, pindex, true);
    if (found.error) {
      yield* vmPageSleepBusy(cx, found.m!, true, "tmpfsg");
      continue;
    }
    p = found.m;
    if (p !== undefined && p.valid === VM_PAGE_BITS_ALL) break;
    if (!onSwap(cx, aobj, pindex)) {
      if (p !== undefined) vmPageFree(cx, p);
      vmObjectDrop(cx, aobj);
      return undefined;
    }
    p ??= vmPageAlloc(cx, aobj, pindex, VM_ALLOC_NORMAL | VM_ALLOC_NULL_OK);
    if (p === undefined) {
      yield* vmWait(cx);
      continue;
    }
    const rv = yield* vmPagerGetPage(cx, aobj, p, false);
    if (rv !== VM_PAGER_OK) {
      vmPageFree(cx, p);
      vmObjectDrop(cx, aobj);
      return rv;
    }
    break;
  }
  // Clean, and swap keeps its copy: then it stays clean in the file's object, and may be dropped there.
  const clean = p.dirty === 0 && onSwap(cx, aobj, pindex);
  vmPageFree(cx, m);
  if (!clean) swapPagerUnswapped(cx, p);
  vmPageRename(cx, p, object, pindex);
  p.flags &= ~PG_SWAPPED;
  if (clean) vmPageUndirty(p);
  vmObjectDrop(cx, aobj);
  return VM_PAGER_OK;
}

/**
 * Moves a busy page from the file's object to the anonymous one, where it counts as dirty. Both are held exclusively; nothing maps it. It is
 * not busy any more afterwards. Undefined when done; else nothing has changed, and the page to wait for is returned.
 *
 * The anonymous object may have a page there, older or the same: reading a neighbour from swap took it along.
 */
function toAobj(cx: Cx, aobj: VmObject, m: VmPage): VmPage | undefined {
  const { pindex } = m;
  const older = vmPageLookupBusyTry(cx, aobj, pindex, true);
  if (older.error) return older.m;
  if (older.m !== undefined) vmPageFree(cx, older.m);
  if (aobj.size <= pindex) aobj.size = pindex + 1;
  if (onSwap(cx, aobj, pindex)) swapPagerFreespace(cx, aobj, pindex, 1);
  vmPageRename(cx, m, aobj, pindex);
  vmPageDeactivate(cx, m);
  vmPageWakeup(cx, m);
  return undefined;
}

/**
 * The pageout daemon wants dirty pages written: they go to the anonymous object. For anybody else (msync, fsync) there is nothing to do:
 * memory is where the bytes stay.
 */
export function* tmpfsPutpages(cx: Cx, vp: Vnode, pages: readonly VmPage[]): Exec<number[]> {
  if (cx.td !== cx.k.vmPages.pagethread) return pages.map(() => VM_PAGER_OK);
  const node = vpToTmpfsNode(vp);
  const object = vp.vObject!;
  const aobj = aobjOf(cx, node);
  const results: number[] = [];
  yield* vmObjectHold(cx, object);
  yield* vmObjectHold(cx, aobj);
  for (const m of pages) {
    if (m.object !== object || m.wireCount !== 0 || vmPageBusyTry(cx, m, false)) {
      results.push(VM_PAGER_AGAIN);
      continue;
    }
    yield* vmPageProtect(cx, m, VM_PROT_NONE);
    if (toAobj(cx, aobj, m) !== undefined) {
      vmPageWakeup(cx, m);
      results.push(VM_PAGER_AGAIN);
      continue;
    }
    cx.k.vmmeter.vVnodepgsout++;
    results.push(VM_PAGER_OK);
  }
  cx.k.vmmeter.vVnodeout++;
  vmObjectDrop(cx, aobj);
  vmObjectDrop(cx, object);
  return results;
}

/**
 * Empties the file's object (`tmpfs_move_pages`): dirty pages go to the anonymous object, clean ones are freed, for they can be had
 * again. Of a file without a name nothing is kept.
 */
export function* tmpfsMovePages(cx: Cx, vp: Vnode): Exec<void> {
  const node = vpToTmpfsNode(vp);
  const object = vp.vObject;
  if (node.tnLinks === 0) {
    if (object !== undefined) {
      yield* vmObjectHold(cx, object);
      yield* vmObjectPageRemove(cx, object, 0, object.size, false);
      vmObjectDrop(cx, object);
    }
    const aobj = node.tnAobj;
    node.tnAobj = undefined;
    if (aobj !== undefined) yield* vmObjectDeallocate(cx, aobj);
    return;
  }
  if (object === undefined) return;
  yield* vmObjectHold(cx, object);
  for (let m = object.rbMemq.min(); m !== undefined; m = object.rbMemq.min()) {
    if (vmPageBusyTry(cx, m, true)) {
      yield* vmPageSleepBusy(cx, m, true, "tmpfsm");
      continue;
    }
    // Somebody uses the file again: let it be.
    if (object.refCount !== 0 || m.wireCount !== 0) {
      vmPageWakeup(cx, m);
      break;
    }
    yield* vmPageTestDirty(cx, m);
    yield* vmPageProtect(cx, m, VM_PROT_NONE);
    if (m.dirty === 0) {
      vmPageFree(cx, m);
      continue;
    }
    const aobj = aobjOf(cx, node);
    yield* vmObjectHold(cx, aobj);
    const inTheWay = toAobj(cx, aobj, m);
    if (inTheWay !== undefined) {
      vmPageWakeup(cx, m);
      yield* vmPageSleepBusy(cx, inTheWay, true, "tmpfsm");
    }
    vmObjectDrop(cx, aobj);
  }
  vmObjectDrop(cx, object);
}

/** Pages of a file of this size that count against the limit: those that no archive has. */
function countedPages(node: TmpfsNode, size: number): number {
  return Math.max(0, pagesOfBytes(size) - pagesOfBytes(node.tnArchive?.bytes ?? 0));
}

/** The largest size that the file may have now. */
export function tmpfsSizeMax(cx: Cx, vp: Vnode): number {
  const tm = vfsToTmpfs(vp.vMount), node = vpToTmpfsNode(vp);
  const available = Math.max(0, tmpfsPagesMax(cx, tm) - tm.tmPagesUsed);
  return (pagesOfBytes(node.tnSize) + available) * PAGE_SIZE;
}

/** Sets the size of a file (`tmpfs_reg_resize`); the vnode is locked exclusively. ENOSPC. */
export function* tmpfsRegResize(cx: Cx, vp: Vnode, size: number): Exec<number> {
  const tm = vfsToTmpfs(vp.vMount), node = vpToTmpfsNode(vp);
  const old = node.tnSize;
  if (size > old) {
    if (size > tmpfsSizeMax(cx, vp)) return ERRNO.ENOSPC;
  } else if (size < old && size % PAGE_SIZE !== 0) {
    // The last page may be elsewhere: it is brought in, its end made zero while it is wired (from then on it may be paged out again at any
    // time), and it differs from the archive.
    const rest = size % PAGE_SIZE;
    const error = yield* vnodePagerUse(cx, vp, pagesOfBytes(size) - 1, true, function* (m) {
      yield* cx.cpu.zeroBytes(gva(physToDmap(cx.k, m.physAddr) + BigInt(rest)), PAGE_SIZE - rest);
      return 0;
    });
    if (error !== 0) return error;
  }
  if (node.tnArchive !== undefined && size < node.tnArchive.bytes) node.tnArchive.bytes = size;
  const counted = countedPages(node, size);
  tm.tmPagesUsed += counted - node.tnPages;
  node.tnPages = counted;
  node.tnSize = size;
  yield* vnodePagerSetsize(cx, vp, size);
  const aobj = node.tnAobj;
  if (aobj !== undefined) {
    yield* vmObjectHold(cx, aobj);
    const pages = pagesOfBytes(size);
    if (pages < aobj.size) yield* vmObjectPageRemove(cx, aobj, pages, aobj.size, false);
    aobj.size = pages;
    vmObjectDrop(cx, aobj);
  }
  return 0;
}
