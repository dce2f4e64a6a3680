/**
 * The pager of anonymous memory that was never paged out (`sys/vm/default_pager.c`). It has nothing; the first page-out makes the object a
 * SWAP one.
 *
 * Room: `kernel/vm/`; imports the swap pager.
 *
 * @module
 */
import { swapPagerPutpages } from "./swap_pager.ts";
import { type PagerOps, VM_PAGER_FAIL } from "./vm_pager.ts";

/** `defaultpagerops`. */
export const defaultPagerOps: PagerOps = {
  *dealloc() {},
  *getpage() {
    return VM_PAGER_FAIL;
  },
  putpages: swapPagerPutpages,
  haspage: () => false,
};
