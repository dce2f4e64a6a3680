/**
 * Pagers: where pages come from and go to (`sys/vm/vm_pager.c`, `struct pagerops`).
 *
 * Room: `kernel/vm/`; imports types. Each pager puts its operations into the table with {@link vmPagerRegister} when the VM system starts
 * (`vm_init.ts`), so this file knows none of them.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { type ObjType, type VmObject } from "./vm_object.ts";
import type { VmPage } from "./vm_page.ts";

/** The page is there (`VM_PAGER_OK`). */
export const VM_PAGER_OK = 0;
/** It cannot be had from here: out of range. */
export const VM_PAGER_BAD = 1;
/** The pager has no such page. */
export const VM_PAGER_FAIL = 2;
/** I/O is on its way. */
export const VM_PAGER_PEND = 3;
/** The device says no. */
export const VM_PAGER_ERROR = 4;
/** Try later: the pager lacks something. */
export const VM_PAGER_AGAIN = 5;

/** vm_pager_put_pages: wait for the writes. */
export const VM_PAGER_PUT_SYNC = 0x1;
/** vm_pager_put_pages: forget the pages afterwards. */
export const VM_PAGER_PUT_INVAL = 0x2;
/** vm_pager_put_pages: hints for clustering. */
export const VM_PAGER_CLUSTER_OK = 0x8;
/** Advice to the reader: sequential access. */
export const VM_PAGER_SEQ = 1;

/** A kind of pager (`struct pagerops`). */
export interface PagerOps {
  /** Ends the object's use of the pager. The object is held exclusively and has no paging in progress. */
  dealloc(cx: Cx, object: VmObject): Exec<void>;
  /**
   * Fills the busy page `m` with its data, waiting for it. VM_PAGER_OK: the page with this pindex is valid. **It may be another page**:
   * look it up again; it is still busy for the caller. Others: `m` is still the caller's, busy, to free.
   */
  getpage(cx: Cx, object: VmObject, m: VmPage, seqaccess: boolean): Exec<VmPagerResult>;
  /**
   * Writes pages that are soft-busy (`vm_page_io_start`) and no longer hard-busy. One VM_PAGER_* for each page: PEND means that the pager
   * itself ends the I/O later; for all others the caller does.
   */
  putpages(cx: Cx, object: VmObject, pages: readonly VmPage[], flags: number): Exec<number[]>;
  /** Whether the pager has data for the page. */
  haspage(cx: Cx, object: VmObject, pindex: number): boolean;
  /** A reference to the object was made, for pagers that count something along (the vnode's references). */
  ref?(cx: Cx, object: VmObject): void;
  /** Such a reference was dropped. */
  unref?(cx: Cx, object: VmObject): Exec<void>;
}

/** VM_PAGER_*. */
export type VmPagerResult = number;

/** The pagers of a kernel. */
export class VmPagerState {
  /** By OBJT_*. */
  readonly ops: (PagerOps | undefined)[] = [];
}

/** Enters a pager into the table. */
export function vmPagerRegister(
  cx: { readonly k: { readonly vmPager: VmPagerState } },
  type: ObjType,
  ops: PagerOps,
): void {
  cx.k.vmPager.ops[type] = ops;
}

/** The pager of an object. */
export function vmPagerOps(cx: Cx, object: VmObject): PagerOps {
  const ops = cx.k.vmPager.ops[object.type];
  if (ops === undefined) throw new Error(`Objects of type ${object.type} have no pager`);
  return ops;
}

/** `vm_pager_deallocate`. */
export function vmPagerDeallocate(cx: Cx, object: VmObject): Exec<void> {
  return vmPagerOps(cx, object).dealloc(cx, object);
}
/** `vm_pager_get_page`: see {@link PagerOps.getpage}. */
export function vmPagerGetPage(cx: Cx, object: VmObject, m: VmPage, seqaccess: boolean): Exec<VmPagerResult> {
  return vmPagerOps(cx, object).getpage(cx, object, m, seqaccess);
}
/** `vm_pager_put_pages`: see {@link PagerOps.putpages}. */
export function vmPagerPutPages(
  cx: Cx,
  object: VmObject,
  pages: readonly VmPage[],
  flags: number,
): Exec<number[]> {
  return vmPagerOps(cx, object).putpages(cx, object, pages, flags);
}
/** `vm_pager_has_page`. */
export function vmPagerHasPage(cx: Cx, object: VmObject, pindex: number): boolean {
  return vmPagerOps(cx, object).haspage(cx, object, pindex);
}
