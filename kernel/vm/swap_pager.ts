/**
 * The swap pager: anonymous pages to and from swap space (`sys/vm/swap_pager.c`).
 *
 * Room: `kernel/vm/`; imports objects, pages, swap metadata and space. Registered for OBJT_SWAP; the default pager turns to it when a page of
 * an OBJT_DEFAULT object is to go out.
 *
 * ## A page's life with swap
 *
 *     dirty, no block ──putpages──► soft busy, PG_SWAPINPROG ──iodone──► clean, PG_SWAPPED, block has the same bytes
 *           ▲                                  │ write error: dirty again, ACTIVE; the block is retired         │
 *           └──────────────── swapPagerUnswapped (the page is about to be changed: block freed) ◄───────────────┤
 *                                                                                     freed, only the block left │
 *     valid, clean, PG_SWAPPED ◄──iodone── busy, PG_SWAPINPROG ◄──getpage── (fault) ◄────────────────────────────┘
 *
 * A block that belongs to a page that is resident **and dirty** is stale and harmless: the resident page wins, and the next putpages gives
 * the page another block. What must never be is a stale block below a *clean* page.
 *
 * Completion runs in the disk's interrupt thread. It needs neither memory nor a lock that a thread could sleep with, so that the pageout
 * daemon, which waits for it, never waits for itself.
 *
 * Left out: the swap cache (clean file pages on swap), `swapoff`.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { type Bio, biowait } from "../kern/bio.ts";
import { kassert } from "../kern/panic.ts";
import { kprintf } from "../kern/subr_prf.ts";
import { BLIST_MAX_ALLOC, SWAPBLK_NONE } from "../libkern/blist.ts";
import { PINTERLOCKED, tsleep, tsleepInterlock, wakeupOne } from "../lwkt/sleep.ts";
import { assertToken } from "../lwkt/token.ts";
import {
  swpPagerMetaBuild,
  swpPagerMetaConvert,
  swpPagerMetaFree,
  swpPagerMetaFree1,
  swpPagerMetaLookup,
  swpPagerMetaPop,
  swpPagerMetaScan,
} from "./swap_meta.ts";
import {
  OBJT_DEFAULT,
  OBJT_SWAP,
  type VmObject,
  vmObjectAllocate,
  vmObjectDrop,
  vmObjectHold,
  vmObjectPipAdd,
  vmObjectPipWait,
  vmObjectPipWakeupN,
} from "./vm_object.ts";
import {
  PG_RAM,
  PG_REFERENCED,
  PG_SWAPINPROG,
  PG_SWAPPED,
  PG_WANTED,
  PG_ZERO,
  VM_ALLOC_QUICK,
  VM_PAGE_BITS_ALL,
  type VmPage,
  vmPageActivate,
  vmPageDeactivate,
  vmPageDirty,
  vmPageFlash,
  vmPageIoFinish,
  vmPageLookup,
  vmPageLookupBusyTry,
  vmPageUndirty,
  vmPageUnqueueNowakeup,
  vmPageWakeup,
} from "./vm_page.ts";
import { vmPageAlloc } from "./vm_page_alloc.ts";
import { vmPageCountSevere } from "./vm_page2.ts";
import {
  type PagerOps,
  VM_PAGER_ERROR,
  VM_PAGER_FAIL,
  VM_PAGER_OK,
  VM_PAGER_PEND,
  VM_PAGER_PUT_SYNC,
  vmPagerRegister,
} from "./vm_pager.ts";
import { swpPagerGetswapspace, swpPagerRetire, swstrategy } from "./vm_swap.ts";

/** Pages that a read takes along if they lie side by side in the object and on swap (`swap_burst_read`). */
export const SWAP_BURST_READ = 4;
/** Ticks after which a waiting reader says so: 20 seconds. */
const INDEFINITE_WAIT = 2000;

/** Enters the pager into the table (`swap_pager_init`). */
export function swapPagerInit(cx: Cx): void {
  vmPagerRegister(cx, OBJT_SWAP, swapPagerOps);
}

/** Makes anonymous memory that nobody maps yet (`swap_pager_alloc` without a handle), for tmpfs files and the like. One reference. */
export function swapPagerAlloc(cx: Cx, pages: number): VmObject {
  return vmObjectAllocate(cx, OBJT_DEFAULT, pages);
}

/** Ends an object's use of swap (`swap_pager_dealloc`): all its blocks become free. Preconditions: held exclusively. */
export function* swapPagerDealloc(cx: Cx, object: VmObject): Exec<void> {
  // Completions write into the metadata's pages and blocks.
  yield* vmObjectPipWait(cx, object, "swpdea");
  swapPagerFreespaceAll(cx, object);
}

/** Frees the blocks of `count` pages (`swap_pager_freespace`). Preconditions: held exclusively. */
export function swapPagerFreespace(cx: Cx, object: VmObject, start: number, count: number): void {
  swpPagerMetaFree(cx, object, start, count);
}

/** Frees all blocks of an object (`swap_pager_freespace_all`). */
export function swapPagerFreespaceAll(cx: Cx, object: VmObject): void {
  swpPagerMetaFree(cx, object, 0, Number.MAX_SAFE_INTEGER);
}

/** Whether swap has a page (`swap_pager_haspage`). */
export function swapPagerHaspage(_cx: Cx, object: VmObject, pindex: number): boolean {
  return swpPagerMetaLookup(object, pindex) !== SWAPBLK_NONE;
}

/**
 * The page is about to be changed, so what swap has for it is of no more use (`swap_pager_unswapped`): the block is freed.
 *
 * Preconditions: the page is busy, its object held exclusively.
 */
export function swapPagerUnswapped(cx: Cx, m: VmPage): void {
  if ((m.flags & PG_SWAPPED) === 0 || m.object === undefined) return;
  assertToken(cx, m.object.token);
  swpPagerMetaFree1(cx, m.object, m.pindex);
  m.flags &= ~PG_SWAPPED;
}

/**
 * Moves the blocks of an object below another into that one, for collapse (`swap_pager_copy`). Where the upper object has the page, by
 * a block or in memory, the lower one's block is freed.
 *
 * Preconditions: both held exclusively, nobody pages in either.
 *
 * @param offset Index of the upper object's page 0 in the lower one.
 * @param destroysource The lower object goes away: its other blocks are freed too.
 */
export function swapPagerCopy(
  cx: Cx,
  srcobject: VmObject,
  dstobject: VmObject,
  offset: number,
  destroysource: boolean,
): void {
  const last = offset + dstobject.size - 1;
  for (const [index] of [...swpPagerMetaScan(srcobject, offset, last)]) {
    const to = index - offset;
    const resident = vmPageLookup(cx, dstobject, to)?.valid === VM_PAGE_BITS_ALL;
    if (resident || swpPagerMetaLookup(dstobject, to) !== SWAPBLK_NONE) {
      swpPagerMetaFree1(cx, srcobject, index);
    } else {
      swpPagerMetaBuild(cx, dstobject, to, swpPagerMetaPop(srcobject, index));
    }
  }
  if (!destroysource) return;
  swapPagerFreespaceAll(cx, srcobject);
  if (srcobject.type === OBJT_SWAP) srcobject.type = OBJT_DEFAULT;
}

// ---- reading

/**
 * Reads a page, and with it neighbours that lie behind it on swap too (`swap_pager_getpage`). For a page that is valid already (it
 * carried PG_RAM) only the next ones are read, without waiting for them.
 *
 * Preconditions: `mreq` is busy, the object held exclusively. It is still busy, and the same page, when this comes back.
 */
export function* swapPagerGetpage(cx: Cx, object: VmObject, mreq: VmPage): Exec<number> {
  kassert(mreq.object === object, "swap_pager_getpage: page belongs to another object");
  const raonly = mreq.valid === VM_PAGE_BITS_ALL;
  const first = raonly ? readAheadPage(cx, object, mreq.pindex + 1) : mreq;
  if (first === undefined) return VM_PAGER_OK;
  const blk = swpPagerMetaLookup(object, first.pindex);
  if (blk === SWAPBLK_NONE) return VM_PAGER_FAIL;
  const pages = [first];
  while (pages.length < SWAP_BURST_READ && first.pindex + pages.length < object.size) {
    const index = first.pindex + pages.length;
    if (swpPagerMetaLookup(object, index) !== blk + pages.length) break;
    const m = readAheadPage(cx, object, index);
    if (m === undefined) break;
    pages.push(m);
  }
  // Who comes to the last page will want the ones behind it.
  if (pages.length > 1) pages.at(-1)!.flags |= PG_RAM;
  for (const m of pages) {
    m.flags |= PG_SWAPINPROG;
    // Those read along are the I/O's, not this thread's.
    if (m !== mreq) m.busyTd = undefined;
  }
  cx.k.vmmeter.vSwapin++;
  cx.k.vmmeter.vSwappgsin += pages.length;
  vmObjectPipAdd(object, pages.length);
  yield* swstrategy(cx, "read", blk, pages, (cx, bio) => readDone(cx, bio, object, pages, mreq));
  if (raonly) return VM_PAGER_OK;
  while (mreq.flags & PG_SWAPINPROG) {
    mreq.flags |= PG_WANTED | PG_REFERENCED;
    cx.k.vmmeter.vIntrans++;
    tsleepInterlock(cx, mreq, 0);
    if (yield* tsleep(cx, mreq, PINTERLOCKED, "swread", INDEFINITE_WAIT)) {
      kprintf(cx, `swap_pager: indefinite wait for block ${blk}\n`);
    }
  }
  return mreq.valid === VM_PAGE_BITS_ALL ? VM_PAGER_OK : VM_PAGER_ERROR;
}

/** A page to read ahead into, busy, if swap has one for this index, memory has room and nobody uses it. */
function readAheadPage(cx: Cx, object: VmObject, index: number): VmPage | undefined {
  if (index >= object.size || swpPagerMetaLookup(object, index) === SWAPBLK_NONE) return undefined;
  const { m, error } = vmPageLookupBusyTry(cx, object, index, true);
  if (error) return undefined;
  // Not worth recycling a CACHE page for.
  if (m === undefined) return vmPageAlloc(cx, object, index, VM_ALLOC_QUICK);
  if (m.valid !== 0) {
    vmPageWakeup(cx, m);
    return undefined;
  }
  vmPageUnqueueNowakeup(cx, m);
  return m;
}

/** A read has ended (`swp_pager_async_iodone`). */
function* readDone(cx: Cx, bio: Bio, object: VmObject, pages: readonly VmPage[], mreq: VmPage): Exec<void> {
  if (bio.bError !== 0) report(cx, bio);
  for (const m of pages) {
    m.flags &= ~(PG_ZERO | PG_SWAPINPROG);
    if (bio.bError !== 0) {
      m.valid = 0;
      m.flags &= ~PG_RAM;
    } else {
      m.valid = VM_PAGE_BITS_ALL;
      vmPageUndirty(m);
      m.flags |= PG_SWAPPED;
    }
    // The page asked for stays busy: it is the reader's.
    if (m === mreq) vmPageFlash(cx, m);
    else {
      vmPageDeactivate(cx, m);
      vmPageWakeup(cx, m);
    }
  }
  vmObjectPipWakeupN(cx, object, pages.length);
}

// ---- writing

/**
 * Writes pages of an object (`swap_pager_putpages`): gives each a new block, and starts the I/O in runs. The result of each: PEND (iodone ends
 * it), or FAIL: there is no space.
 *
 * Preconditions: the pages are soft-busy and write-protected, consecutive, all of this object; the object's pip has been raised for each.
 *
 * @param flags VM_PAGER_PUT_SYNC: come back when all has been written. Only the pageout daemon may do without.
 */
export function* swapPagerPutpages(
  cx: Cx,
  object: VmObject,
  pages: readonly VmPage[],
  flags: number,
): Exec<number[]> {
  kassert(pages[0]?.object === object, "swap_pager_putpages: pages belong to another object");
  const { k } = cx, results = new Array<number>(pages.length).fill(VM_PAGER_FAIL);
  const sync = (flags & VM_PAGER_PUT_SYNC) !== 0 || cx.td !== k.vmPages.pagethread;
  yield* vmObjectHold(cx, object);
  swpPagerMetaConvert(cx, object);
  const started: Bio[] = [];
  for (let i = 0; i < pages.length;) {
    let n = Math.min(BLIST_MAX_ALLOC, pages.length - i);
    if (!sync) yield* getAsyncSlot(cx);
    let blk = swpPagerGetswapspace(cx, object, n);
    // Smaller pieces rather than none.
    while (blk === SWAPBLK_NONE && n > 1) blk = swpPagerGetswapspace(cx, object, n >>= 1);
    if (blk === SWAPBLK_NONE) {
      if (!sync) putAsyncSlot(cx);
      break;
    }
    const run = pages.slice(i, i + n);
    for (const [j, m] of run.entries()) {
      swpPagerMetaBuild(cx, object, m.pindex, blk + j);
      // Dirty until it is written: whoever looks at it meanwhile must not think that it can go.
      vmPageDirty(cx, m);
      m.flags |= PG_SWAPINPROG;
      results[i + j] = VM_PAGER_PEND;
    }
    k.vmmeter.vSwapout++;
    k.vmmeter.vSwappgsout += n;
    const first = blk;
    started.push(
      yield* swstrategy(cx, "write", blk, run, function* (cx, bio) {
        yield* writeDone(cx, bio, object, run, first);
        if (!sync) putAsyncSlot(cx);
      }),
    );
    i += n;
  }
  vmObjectDrop(cx, object);
  if (sync) { for (const bio of started) yield* biowait(cx, bio); }
  return results;
}

/** Waits until one more asynchronous write may be started. */
function* getAsyncSlot(cx: Cx): Exec<void> {
  const s = cx.k.swap;
  while (s.nswWcountAsync === 0) {
    tsleepInterlock(cx, s.asyncIdent, 0);
    yield* tsleep(cx, s.asyncIdent, PINTERLOCKED, "nswbuf", 0);
  }
  s.nswWcountAsync--;
}
function putAsyncSlot(cx: Cx): void {
  cx.k.swap.nswWcountAsync++;
  wakeupOne(cx, cx.k.swap.asyncIdent);
}

/** A write has ended (`swp_pager_async_iodone`). */
function* writeDone(cx: Cx, bio: Bio, object: VmObject, pages: readonly VmPage[], blk: number): Exec<void> {
  if (bio.bError !== 0) {
    report(cx, bio);
    yield* vmObjectHold(cx, object);
    for (const [i, m] of pages.entries()) {
      // The bytes are in the page alone, as before. The block is never used again: it would fail again, or worse, not at once.
      // Deviation: DragonFly cannot do that in an interrupt and leaves the bad block with the page.
      const was = swpPagerMetaPop(object, m.pindex);
      kassert(was === blk + i, "swp_pager_async_iodone: page has another block than was written");
      swpPagerRetire(cx, was);
      m.flags &= ~(PG_SWAPINPROG | PG_SWAPPED);
      vmPageDirty(cx, m);
      // Not where the daemon would meet it first again.
      vmPageActivate(cx, m);
      vmPageIoFinish(cx, m);
    }
    vmObjectDrop(cx, object);
  } else {
    for (const m of pages) {
      // Modified bits of mappings are clear: the pages were write-protected, and a write fault waits while they are soft-busy.
      vmPageUndirty(m);
      m.flags = m.flags & ~PG_SWAPINPROG | PG_SWAPPED;
      if (vmPageCountSevere(cx.k)) vmPageDeactivate(cx, m);
      vmPageIoFinish(cx, m);
    }
  }
  vmObjectPipWakeupN(cx, object, pages.length);
}

function report(cx: Cx, bio: Bio): void {
  const what = bio.bCmd === "read" ? "pagein" : "pageout";
  kprintf(
    cx,
    `swap_pager: I/O error - ${what} failed; offset ${bio.bioOffset}, size ${bio.bytes}, error ${bio.bError}\n`,
  );
}

/** The pager's operations. */
export const swapPagerOps: PagerOps = {
  dealloc: swapPagerDealloc,
  getpage: swapPagerGetpage,
  putpages: swapPagerPutpages,
  haspage: swapPagerHaspage,
};
