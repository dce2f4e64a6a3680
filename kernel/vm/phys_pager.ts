/**
 * Memory that is never paged (`sys/vm/phys_pager.c`): zeroed on first use, wired, without pv entries.
 *
 * Room: `kernel/vm/`; imports objects and pages.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { OBJT_PHYS, type VmObject, vmObjectAllocate } from "./vm_object.ts";
import { PG_ZERO, VM_PAGE_BITS_ALL, type VmPage, vmPageFlagClear, vmPageUnmanage } from "./vm_page.ts";
import { vmPageZeroFill } from "./vm_page_valid.ts";
import { type PagerOps, VM_PAGER_OK } from "./vm_pager.ts";

/** Such memory as an object with one reference (`phys_pager_alloc`). @param size Pages. */
export function physPagerAlloc(cx: Cx, size: number): VmObject {
  return vmObjectAllocate(cx, OBJT_PHYS, size);
}

/** `physpagerops`. */
export const physPagerOps: PagerOps = {
  *dealloc() {},
  *getpage(cx: Cx, _object: VmObject, m: VmPage): Exec<number> {
    yield* vmPageZeroFill(cx, m);
    vmPageFlagClear(m, PG_ZERO);
    m.valid = VM_PAGE_BITS_ALL;
    vmPageUnmanage(cx, m);
    return VM_PAGER_OK;
  },
  /** There is nowhere to write to, and nobody asks: its pages are on no queue. */
  *putpages(_cx: Cx, _object: VmObject, pages: readonly VmPage[]): Exec<number[]> {
    return pages.map(() => VM_PAGER_OK);
  },
  haspage: (_cx, object, pindex) => pindex < object.size,
};
