/**
 * The page queues (`struct vpgqueues` and `vm_page_queues[]` of `sys/vm/vm_page.h`): lists of pages by state and colour.
 *
 * Room: `kernel/vm/`; knows the page's type only. Moving pages between queues is vm_page.ts's business.
 *
 *     queue index = kind + colour      kind = PQ_FREE, PQ_INACTIVE … : 1 + n * PQ_L2_SIZE; PQ_NONE = 0
 *
 * In DragonFly each queue has a spinlock, taken after the page's. Here whoever changes a queue does so within one step of its
 * continuation, in which nothing else runs; the lock would never be found taken and is left out. What it does not protect against
 * remains: a scan that lets others run holds its place with a marker page (PG_MARKER) and looks again afterwards.
 *
 * @module
 */
import type { VmPage } from "./vm_page.ts";

/** Number of colours. */
export const PQ_L2_SIZE = 256;
/** Mask of a colour. */
export const PQ_L2_MASK: number = PQ_L2_SIZE - 1;
/** On no queue: wired, busy or between two states. */
export const PQ_NONE = 0;
/** Free: belongs to no object. */
export const PQ_FREE = 1;
/** May be mapped; candidate for being paged out. */
export const PQ_INACTIVE: number = 1 + PQ_L2_SIZE;
/** In use. */
export const PQ_ACTIVE: number = 1 + 2 * PQ_L2_SIZE;
/** Clean and unmapped, still findable by its object, may be taken at once. */
export const PQ_CACHE: number = 1 + 3 * PQ_L2_SIZE;
/** Freed while somebody held it; goes to FREE with the last hold. */
export const PQ_HOLD: number = 1 + 4 * PQ_L2_SIZE;
/** Number of queues, PQ_NONE included. */
export const PQ_COUNT: number = 1 + 5 * PQ_L2_SIZE;

/** One queue: a doubly linked list through the pages' `pageqNext` and `pageqPrev`. */
export class VmPageQueue {
  /** First page: the one that has been there longest, and the first to be taken. */
  head: VmPage | undefined;
  /** Last page. */
  tail: VmPage | undefined;
  /** Pages on it, markers not counted. */
  lcnt = 0;

  /** Puts a page behind all others. */
  insertTail(m: VmPage): void {
    m.pageqNext = undefined;
    m.pageqPrev = this.tail;
    if (this.tail === undefined) this.head = m;
    else this.tail.pageqNext = m;
    this.tail = m;
  }

  /** Puts a page in front of all others. */
  insertHead(m: VmPage): void {
    m.pageqPrev = undefined;
    m.pageqNext = this.head;
    if (this.head === undefined) this.tail = m;
    else this.head.pageqPrev = m;
    this.head = m;
  }

  /** Puts a page right behind `after`, which is on this queue. */
  insertAfter(after: VmPage, m: VmPage): void {
    const next = after.pageqNext;
    if (next === undefined) return this.insertTail(m);
    m.pageqPrev = after;
    m.pageqNext = next;
    after.pageqNext = m;
    next.pageqPrev = m;
  }

  /** Takes a page, which is on this queue, off. */
  remove(m: VmPage): void {
    const { pageqNext: next, pageqPrev: prev } = m;
    if (prev === undefined) this.head = next;
    else prev.pageqNext = next;
    if (next === undefined) this.tail = prev;
    else next.pageqPrev = prev;
    m.pageqNext = m.pageqPrev = undefined;
  }
}

/** Makes all queues, empty. */
export function makePageQueues(): VmPageQueue[] {
  return Array.from({ length: PQ_COUNT }, () => new VmPageQueue());
}
