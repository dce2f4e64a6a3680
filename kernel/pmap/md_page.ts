/**
 * What the pmap keeps in every physical page (`struct md_page`): the list of its mappings.
 *
 * Room: `kernel/pmap/`; leaf, imports types only, so that vm_page.ts can embed it.
 *
 * @module
 */
import type { PvEntry } from "./pv_entry.ts";

/** The `md` of a VmPage: its pv entries, a doubly linked list (`pv_list`), oldest first. Guarded by the page's spinlock. */
export class MdPage {
  /** Oldest mapping. */
  pvHead: PvEntry | undefined;
  /** Newest mapping. */
  pvTail: PvEntry | undefined;
  /** Mappings on the list. */
  pvCount = 0;

  /** `TAILQ_INSERT_TAIL`. */
  insert(pv: PvEntry): void {
    pv.pvListNext = undefined;
    pv.pvListPrev = this.pvTail;
    if (this.pvTail === undefined) this.pvHead = pv;
    else this.pvTail.pvListNext = pv;
    this.pvTail = pv;
    this.pvCount++;
  }

  /** `TAILQ_REMOVE`; `pv` is on this list. */
  remove(pv: PvEntry): void {
    const { pvListNext: next, pvListPrev: prev } = pv;
    if (prev === undefined) this.pvHead = next;
    else prev.pvListNext = next;
    if (next === undefined) this.pvTail = prev;
    else next.pvListPrev = prev;
    pv.pvListNext = pv.pvListPrev = undefined;
    this.pvCount--;
  }
}
