/**
 * Physical pages and the rules of owning them (`sys/vm/vm_page.c`, `vm_page.h`).
 *
 * Room: `kernel/vm/`; imports lwkt and the queues; knows objects, pv entries and the pmap by type only, so that all of them can
 * import this. What needs a pmap stands above it, in vm_page_valid.ts and vm_page_cache.ts; allocation in vm_page_alloc.ts.
 *
 * ## The four ways to own a page
 *
 * | word      | field                       | means                                                                     |
 * |-----------|-----------------------------|---------------------------------------------------------------------------|
 * | busy      | `PG_BUSY`, `busyTd`         | exclusive: identity (object, pindex), mappings and content are the owner's |
 * | soft busy | `busy` count, `PG_SBUSY`    | I/O runs; others may read the data, nobody may busy the page with `also_m_busy` |
 * | hold      | `holdCount`                 | the frame is not recycled; the page may lose its identity meanwhile (PQ_HOLD) |
 * | wire      | `wireCount`                 | the page is on no queue, so nobody pages it out                           |
 *
 * ## The rules
 *
 * 1. To put a page into an object or take it out: the object's token, exclusively, and the page busy. To look one up: the token.
 * 2. Whoever finds a page busy sleeps (`vmPageSleepBusy`) and then **starts again at the look-up**: the page may be another's now.
 * 3. FREE and CACHE pages are never mapped and never dirty.
 * 4. Before a page is freed nothing may map it (`vmPageProtect(cx, m, VM_PROT_NONE)`); `PG_MAPPED` says so.
 * 5. A page that is wired is on no queue; a page on a queue has `wireCount` 0.
 *
 * Plain functions here happen within one step: DragonFly's page spinlock, which makes the same things one step there, is only taken
 * where something can run in between ({@link vmPageSpinLock}: the pv lists).
 *
 * @module
 */
import { type Hpa, PAGE_SIZE } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import type { Kernel } from "../kernel.ts";
import { kassert } from "../kern/panic.ts";
import { PINTERLOCKED, tsleep, tsleepInterlock, wakeup } from "../lwkt/sleep.ts";
import { Spinlock, spinLock, spinUnlock } from "../lwkt/spinlock.ts";
import type { Thread } from "../lwkt/thread.ts";
import { assertToken, assertTokenHeld } from "../lwkt/token.ts";
import { MdPage } from "../pmap/md_page.ts";
import type { VmObject } from "./vm_object.ts";
import { pagedaemonWakeup, vmPageFreeWakeup } from "./vm_page2.ts";
import {
  makePageQueues,
  PQ_ACTIVE,
  PQ_CACHE,
  PQ_FREE,
  PQ_HOLD,
  PQ_INACTIVE,
  PQ_L2_MASK,
  PQ_NONE,
  type VmPageQueue,
} from "./vm_pageq.ts";

// ---- flags (PG_*)

/** One owner; see `busyTd`. */
export const PG_BUSY = 0x1;
/** Somebody sleeps on the page. */
export const PG_WANTED = 0x2;
/** The pageout daemon has seen it dirty on the INACTIVE queue once. */
export const PG_WINATCFLS = 0x4;
/** Not a page of RAM that the VM system manages (device memory). */
export const PG_FICTITIOUS = 0x8;
/** Some mapping may allow writing. Set before there is one; cleared when there can be none. */
export const PG_WRITEABLE = 0x10;
/** Some mapping may exist. */
export const PG_MAPPED = 0x20;
/** Known to be all zeros. */
export const PG_ZERO = 0x40;
/** Hint: accessed. */
export const PG_REFERENCED = 0x80;
/** Write clustering has looked at it. */
export const PG_CLEANCHK = 0x100;
/** Swap I/O runs. */
export const PG_SWAPINPROG = 0x200;
/** The syncer leaves it alone. */
export const PG_NOSYNC = 0x400;
/** No pv entries, no queue. */
export const PG_UNMANAGED = 0x800;
/** Not a page: holds a scan's place on a queue. */
export const PG_MARKER = 0x1000;
/** Read-ahead goes on when this page is used. */
export const PG_RAM = 0x2000;
/** What is on swap for it equals its content. */
export const PG_SWAPPED = 0x4000;
/** Not cached on swap. */
export const PG_NOTMETA = 0x8000;
/** Event hooks exist. */
export const PG_ACTIONLIST = 0x1_0000;
/** Soft busy. */
export const PG_SBUSY = 0x2_0000;
/** Clean, but the server has yet to commit it. */
export const PG_NEED_COMMIT = 0x4_0000;

/** What a page keeps through an allocation. */
export const PG_KEEP_NEWPAGE_MASK: number = PG_BUSY | PG_SBUSY | PG_WANTED;

/** Bytes that one bit of `valid` and `dirty` stands for. */
export const DEV_BSIZE = 512;
/** All bits of `valid` and `dirty`. */
export const VM_PAGE_BITS_ALL = 0xff;

/** `act_count` of a page that becomes active. */
export const ACT_INIT = 5;
/** What `act_count` gains with each reference that a scan finds. */
export const ACT_ADVANCE = 3;
/** What it loses without one. */
export const ACT_DECLINE = 1;
/** Its most. */
export const ACT_MAX = 64;

// ---- requests (VM_ALLOC_*)

/** May use CACHE pages; stops at `vFreeReserved`. */
export const VM_ALLOC_NORMAL = 0x01;
/** May go down to `vInterruptFreeMin`. */
export const VM_ALLOC_SYSTEM = 0x02;
/** May take the last page. */
export const VM_ALLOC_INTERRUPT = 0x04;
/** A page known to be zero is preferred; PG_ZERO says whether it is. */
export const VM_ALLOC_ZERO = 0x08;
/** Like NORMAL, without recycling CACHE pages. */
export const VM_ALLOC_QUICK = 0x10;
/** vmPageGrab: the page comes zeroed. */
export const VM_ALLOC_FORCE_ZERO = 0x20;
/** The page may exist already; then the result is undefined instead of a panic. */
export const VM_ALLOC_NULL_OK = 0x40;
/** vmPageGrab: wait as long as it takes. */
export const VM_ALLOC_RETRY = 0x80;

/** Spinlocks that the pages share; a power of two. */
const PAGE_SPINS = 1024;

/** A page (`struct vm_page`). */
export class VmPage {
  /** Links of `pageq`; changed by the queues only. */
  pageqNext: VmPage | undefined = undefined;
  /** See `pageqNext`. */
  pageqPrev: VmPage | undefined = undefined;
  /** The object whose page it is. Changed with the object's token held exclusively and the page busy. */
  object: VmObject | undefined = undefined;
  /** Index in the object, in pages. Changed with `object`. */
  pindex = 0;
  /** Address of the frame. */
  readonly physAddr: Hpa;
  /** `md`: mappings; the pmap's. */
  readonly md: MdPage = new MdPage();
  /** Queue it is on: PQ_NONE, or kind + colour. */
  queue: number = PQ_NONE;
  /** Colour, 0 … PQ_L2_MASK; fixed by the frame. */
  readonly pc: number;
  /** How much in use it seems: 0 … ACT_MAX. */
  actCount = 0;
  /** Soft-busy count. */
  busy = 0;
  /** Cache attribute of its mappings (`pat_mode`): an index into `pmapCacheBits`, PAT_*; write back. */
  patMode = 6;
  /** PG_*. */
  flags = 0;
  /** Reasons not to page it out. */
  wireCount = 0;
  /** Reasons not to recycle the frame. */
  holdCount = 0;
  /** Valid blocks of 512 bytes. */
  valid = 0;
  /** Dirty blocks of 512 bytes, as far as is known here: hardware's modified bits are transferred when mappings go away. */
  dirty = 0;
  /** Threads with user-kernel mappings of it. */
  kuPagecnt = 0;
  /** Owner while PG_BUSY is set, for the rules and for people. */
  busyTd: Thread | undefined = undefined;

  /** Made by vmPageStartup, and for fictitious and marker pages. */
  constructor(physAddr: Hpa) {
    this.physAddr = physAddr;
    this.pc = Math.floor(physAddr / PAGE_SIZE) & PQ_L2_MASK;
  }
}

/** The pages of a kernel. */
export class VmPageState {
  /** Frame number of the first entry of `vmPageArray`. */
  firstPage = 0;
  /** `vm_page_array`: by frame number minus `firstPage`; holes where there is no RAM that the VM system has. */
  readonly vmPageArray: (VmPage | undefined)[] = [];
  /** `vm_page_queues`: by kind + colour. */
  readonly vmPageQueues: VmPageQueue[] = makePageQueues();
  /** Spinlocks of pages, shared by those whose frame numbers are equal modulo their count. */
  readonly spins: Spinlock[] = Array.from({ length: PAGE_SPINS }, () => new Spinlock("vmpage"));
  /** `vm_pages_needed`: somebody asked the pageout daemon for pages. */
  vmPagesNeeded = 0;
  /** What the daemon sleeps on. */
  readonly pagesNeededIdent: object = {};
  /** `vm_pages_waiting`: threads that wait for memory. */
  vmPagesWaiting = 0;
  /** What they sleep on. */
  readonly freeCountIdent: object = {};
  /** `vm_pageout_pages_needed`: the daemon itself waits for memory. */
  vmPageoutPagesNeeded = false;
  /** What it then sleeps on. */
  readonly pageoutPagesNeededIdent: object = {};
  /** `vm_pageout_deficit`: allocations that failed since the daemon's last pass. */
  vmPageoutDeficit = 0;
  /** `vm_page_max_wired`: most pages that users may wire. */
  vmPageMaxWired = 0;
  /** Calls of vmPageDontneed so far; its choices follow from them. */
  dontneeds = 0;
  /** `q1iterator`: colour at which the next scan of INACTIVE begins. */
  q1iterator = 0;
  /** `q2iterator`: colour at which the next scan of ACTIVE begins. */
  q2iterator = 0;
  /** Tick at which a process was killed last for want of memory. */
  oomTicks = 0;
  /** `cache_rover`: colour at which the next scan of CACHE begins. */
  cacheRover = 0;
  /** `pagethread`: the pageout daemon. */
  pagethread: Thread | undefined;
  /** Tells the object that a page of it became dirty (`vm_object_set_writeable_dirty`); set by the part that knows vnodes. */
  objectDirtied: (cx: Cx, object: VmObject) => void = () => {};
}

// ---- finding pages

/** The page of a physical address, if the VM system has it (`PHYS_TO_VM_PAGE`). */
export function physToVmPage(k: Kernel, pa: Hpa): VmPage | undefined {
  return k.vmPages.vmPageArray[Math.floor(pa / PAGE_SIZE) - k.vmPages.firstPage];
}

/** Physical address of a page (`VM_PAGE_TO_PHYS`). */
export function vmPageToPhys(m: VmPage): Hpa {
  return m.physAddr;
}

/** A page that stands for memory that the VM system does not manage (`vm_page_initfake`): busy, valid, wired, unmanaged by queues. */
export function vmPageInitfake(cx: Cx, pa: Hpa, patMode: number): VmPage {
  const m = new VmPage(pa);
  m.flags = PG_BUSY | PG_FICTITIOUS;
  m.busyTd = cx.td;
  m.valid = VM_PAGE_BITS_ALL;
  m.wireCount = 1;
  m.patMode = patMode;
  return m;
}

/** The resident page of an object at an index (`vm_page_lookup`). Preconditions: the object's token is held, at least shared. */
export function vmPageLookup(cx: Cx, object: VmObject, pindex: number): VmPage | undefined {
  assertTokenHeld(cx, object.token);
  return object.rbMemq.find(pindex);
}

/** What {@link vmPageLookupBusyTry} found. */
export interface BusyTry {
  /** The page, if it is resident. */
  readonly m: VmPage | undefined;
  /** It is resident, but somebody else's: it was not busied. */
  readonly error: boolean;
}

/**
 * Finds a page and makes it busy in one step (`vm_page_lookup_busy_try`).
 *
 * @param alsoMBusy A soft-busy page counts as somebody else's too.
 */
export function vmPageLookupBusyTry(cx: Cx, object: VmObject, pindex: number, alsoMBusy: boolean): BusyTry {
  const m = vmPageLookup(cx, object, pindex);
  return { m, error: m !== undefined && vmPageBusyTry(cx, m, alsoMBusy) };
}

/** Finds a page and makes it busy, waiting for whoever has it (`vm_page_lookup_busy_wait`). Undefined when it is not resident. */
export function* vmPageLookupBusyWait(
  cx: Cx,
  object: VmObject,
  pindex: number,
  alsoMBusy: boolean,
  wmesg: string,
): Exec<VmPage | undefined> {
  for (;;) {
    const m = vmPageLookup(cx, object, pindex);
    if (m === undefined || !vmPageBusyTry(cx, m, alsoMBusy)) return m;
    // After the sleep the page may be another's, or gone: look it up again.
    yield* vmPageSleepBusy(cx, m, alsoMBusy, wmesg);
  }
}

// ---- busy

/** Tries to make a page busy (`vm_page_busy_try`). **True means that it failed**, as in DragonFly. */
export function vmPageBusyTry(cx: Cx, m: VmPage, alsoMBusy: boolean): boolean {
  if ((m.flags & PG_BUSY) !== 0 || (alsoMBusy && m.busy !== 0)) return true;
  m.flags |= PG_BUSY;
  m.busyTd = cx.td;
  return false;
}

/**
 * Makes a page busy, waiting for whoever has it (`vm_page_busy_wait`). The page may have changed its identity meanwhile: for callers
 * whose page cannot, or who look again.
 */
export function* vmPageBusyWait(cx: Cx, m: VmPage, alsoMBusy: boolean, wmesg: string): Exec<void> {
  while (vmPageBusyTry(cx, m, alsoMBusy)) yield* vmPageSleepBusy(cx, m, alsoMBusy, wmesg);
}

/** Sleeps while a page is busy (`vm_page_sleep_busy`); gives whether it slept. Never makes it busy: start again at the look-up. */
export function* vmPageSleepBusy(cx: Cx, m: VmPage, alsoMBusy: boolean, wmesg: string): Exec<boolean> {
  if ((m.flags & PG_BUSY) === 0 && !(alsoMBusy && m.busy !== 0)) return false;
  m.flags |= PG_WANTED;
  tsleepInterlock(cx, m, 0);
  yield* tsleep(cx, m, PINTERLOCKED, wmesg, 0);
  return true;
}

/** The owner lets a page go and wakes those who wait (`vm_page_wakeup`). */
export function vmPageWakeup(cx: Cx, m: VmPage): void {
  kassert((m.flags & PG_BUSY) !== 0, "vm_page_wakeup: page not busy");
  m.busyTd = undefined;
  m.flags &= ~PG_BUSY;
  vmPageFlash(cx, m);
}

/** Wakes those who wait for a page (`vm_page_flash`); they look again. */
export function vmPageFlash(cx: Cx, m: VmPage): void {
  if ((m.flags & PG_WANTED) === 0) return;
  m.flags &= ~PG_WANTED;
  wakeup(cx, m);
}

/** I/O begins: soft busy (`vm_page_io_start`). Preconditions: the page is busy. */
export function vmPageIoStart(m: VmPage): void {
  kassert((m.flags & PG_BUSY) !== 0, "vm_page_io_start: page not busy");
  m.busy++;
  m.flags |= PG_SBUSY;
}

/** I/O ends (`vm_page_io_finish`). */
export function vmPageIoFinish(cx: Cx, m: VmPage): void {
  kassert(m.busy > 0, "vm_page_io_finish: page not soft busy");
  if (--m.busy > 0) return;
  m.flags &= ~PG_SBUSY;
  vmPageFlash(cx, m);
}

// ---- flags

/** Sets PG_* flags (`vm_page_flag_set`). */
export function vmPageFlagSet(m: VmPage, bits: number): void {
  m.flags |= bits;
}
/** Clears PG_* flags (`vm_page_flag_clear`). */
export function vmPageFlagClear(m: VmPage, bits: number): void {
  m.flags &= ~bits;
}

/**
 * The whole page is dirty (`vm_page_dirty`).
 *
 * Preconditions: it is not on FREE or CACHE; a page leaves CACHE before there can be a writable mapping.
 */
export function vmPageDirty(cx: Cx, m: VmPage): void {
  const kind = m.queue - m.pc;
  kassert(kind !== PQ_CACHE && kind !== PQ_FREE, "vm_page_dirty: page in cache or free");
  if (m.dirty === VM_PAGE_BITS_ALL) return;
  m.dirty = VM_PAGE_BITS_ALL;
  if (m.object !== undefined) cx.k.vmPages.objectDirtied(cx, m.object);
}

/** The page is clean as far as is known here; the hardware's bits are not looked at (`vm_page_undirty`). */
export function vmPageUndirty(m: VmPage): void {
  m.dirty = 0;
}

/** Takes the page's spinlock (`vm_page_spin_lock`), which guards `md`. At most one at a time, never over a switch. */
export function vmPageSpinLock(cx: Cx, m: VmPage): Exec<void> {
  return spinLock(cx, spinOf(cx.k, m));
}
/** Gives the page's spinlock back (`vm_page_spin_unlock`). */
export function vmPageSpinUnlock(cx: Cx, m: VmPage): void {
  spinUnlock(cx, spinOf(cx.k, m));
}
function spinOf(k: Kernel, m: VmPage): Spinlock {
  return k.vmPages.spins[Math.floor(m.physAddr / PAGE_SIZE) & (PAGE_SPINS - 1)]!;
}

// ---- hold and wire

/** Keeps the frame from being recycled (`vm_page_hold`). The page may lose its identity all the same. */
export function vmPageHold(m: VmPage): void {
  kassert(m.queue - m.pc !== PQ_FREE, "vm_page_hold: page is free");
  m.holdCount++;
}

/** Ends a hold (`vm_page_unhold`); the last one lets a page go that was freed meanwhile. */
export function vmPageUnhold(cx: Cx, m: VmPage): void {
  kassert(m.holdCount > 0, "vm_page_unhold: page not held");
  if (--m.holdCount > 0 || m.queue - m.pc !== PQ_HOLD) return;
  // Freed while held, so there is no object that others could find it by.
  kassert((m.flags & PG_BUSY) === 0 && m.object === undefined, "vm_page_unhold: page on HOLD has an owner");
  remQueue(cx.k, m);
  addQueue(cx.k, m, PQ_FREE + m.pc, false);
  vmPageFreeWakeup(cx);
}

/** Keeps a page off the queues (`vm_page_wire`). Preconditions: the page is busy, or its mappings' owner keeps it from changing. */
export function vmPageWire(cx: Cx, m: VmPage): void {
  if (m.flags & PG_FICTITIOUS) {
    m.wireCount++;
    return;
  }
  if (m.wireCount++ === 0) {
    if ((m.flags & PG_UNMANAGED) === 0) remQueue(cx.k, m);
    cx.k.vmmeter.vWireCount++;
  }
}

/**
 * Undoes a wiring; the last one puts the page back on a queue (`vm_page_unwire`).
 *
 * @param activate On ACTIVE; else INACTIVE.
 */
export function vmPageUnwire(cx: Cx, m: VmPage, activate: boolean): void {
  kassert(m.wireCount > 0, "vm_page_unwire: page not wired");
  if (m.flags & PG_FICTITIOUS) {
    m.wireCount--;
    return;
  }
  if (--m.wireCount > 0) return;
  cx.k.vmmeter.vWireCount--;
  if (m.flags & PG_UNMANAGED) return;
  if (activate) {
    if (m.actCount < ACT_INIT) m.actCount = ACT_INIT;
    addQueue(cx.k, m, PQ_ACTIVE + m.pc, false);
  } else {
    m.flags &= ~PG_WINATCFLS;
    addQueue(cx.k, m, PQ_INACTIVE + m.pc, false);
    // Wired because somebody was using it: whoever needs memory may have waited for that.
    pagedaemonWakeup(cx);
  }
}

/** Takes a page that the kernel uses by its address alone out of the daemon's sight (`vm_page_unmanage`). */
export function vmPageUnmanage(cx: Cx, m: VmPage): void {
  kassert((m.flags & PG_BUSY) !== 0, "vm_page_unmanage: page not busy");
  if ((m.flags & PG_UNMANAGED) === 0) vmPageUnqueue(cx, m);
  m.flags |= PG_UNMANAGED;
}

// ---- objects

/**
 * Puts a page into an object (`vm_page_insert`). False, and nothing has changed, when there is a page already.
 *
 * Preconditions: the object's token is held exclusively; the page is busy and belongs to no object.
 */
export function vmPageInsert(cx: Cx, m: VmPage, object: VmObject, pindex: number): boolean {
  assertToken(cx, object.token);
  kassert(m.object === undefined, "vm_page_insert: page belongs to an object already");
  kassert((m.flags & PG_BUSY) !== 0, "vm_page_insert: page not busy");
  const before = m.pindex;
  m.pindex = pindex;
  if (object.rbMemq.insert(m) !== undefined) {
    m.pindex = before;
    return false;
  }
  m.object = object;
  object.residentPageCount++;
  object.generation++;
  // A page may come with a modified bit that nobody has transferred; from here on the object must know.
  if (m.dirty !== 0) cx.k.vmPages.objectDirtied(cx, object);
  return true;
}

/**
 * Takes a page out of its object, if it has one (`vm_page_remove`). It stays busy.
 *
 * Preconditions: the page is busy; the object's token is held exclusively. Mappings of the page are not touched.
 */
export function vmPageRemove(cx: Cx, m: VmPage): void {
  const { object } = m;
  if (object === undefined) return;
  kassert((m.flags & PG_BUSY) !== 0, "vm_page_remove: page not busy");
  assertToken(cx, object.token);
  kassert(object.rbMemq.remove(m), "vm_page_remove: page is not in its object");
  object.residentPageCount--;
  object.generation++;
  m.object = undefined;
}

/**
 * Moves a page to another object (`vm_page_rename`). It is dirty afterwards: what the old object's backing store has is not the new
 * one's.
 *
 * Preconditions: busy; both tokens held exclusively; no page at the new index.
 */
export function vmPageRename(cx: Cx, m: VmPage, newObject: VmObject, newPindex: number): void {
  vmPageRemove(cx, m);
  if (!vmPageInsert(cx, m, newObject, newPindex)) {
    throw new Error(`vm_page_rename: there is a page at index ${newPindex} already`);
  }
  if (m.queue - m.pc === PQ_CACHE) vmPageDeactivate(cx, m);
  vmPageDirty(cx, m);
}

// ---- queues

/** Takes a page off its queue (`_vm_page_rem_queue_spinlocked`). */
function remQueue(k: Kernel, m: VmPage): void {
  const { queue } = m;
  if (queue === PQ_NONE) return;
  const pq = k.vmPages.vmPageQueues[queue]!;
  pq.remove(m);
  pq.lcnt--;
  countQueue(k, queue - m.pc, -1);
  m.queue = PQ_NONE;
}

/** Puts a page on a queue (`_vm_page_add_queue_spinlocked`). @param atHead In front: FREE pages, except those known to be zero. */
function addQueue(k: Kernel, m: VmPage, queue: number, atHead: boolean): void {
  kassert(m.queue === PQ_NONE, "page is on two queues");
  const pq = k.vmPages.vmPageQueues[queue]!;
  if (atHead) pq.insertHead(m);
  else pq.insertTail(m);
  pq.lcnt++;
  m.queue = queue;
  countQueue(k, queue - m.pc, 1);
}

function countQueue(k: Kernel, kind: number, change: number): void {
  const v = k.vmmeter;
  if (kind === PQ_FREE) v.vFreeCount += change;
  else if (kind === PQ_INACTIVE) v.vInactiveCount += change;
  else if (kind === PQ_ACTIVE) v.vActiveCount += change;
  else if (kind === PQ_CACHE) v.vCacheCount += change;
}

/**
 * Takes a page off its queue (`vm_page_unqueue`). Losing a CACHE page is losing memory that could be had at once, so the daemon hears of
 * it.
 */
export function vmPageUnqueue(cx: Cx, m: VmPage): void {
  const wasCache = m.queue - m.pc === PQ_CACHE;
  remQueue(cx.k, m);
  if (wasCache) pagedaemonWakeup(cx);
}

/** Takes a page off its queue and wakes nobody (`vm_page_unqueue_nowakeup`). */
export function vmPageUnqueueNowakeup(cx: Cx, m: VmPage): void {
  remQueue(cx.k, m);
}

/** To the end of its queue (`vm_page_requeue`). */
export function vmPageRequeue(cx: Cx, m: VmPage): void {
  const { queue } = m;
  if (queue === PQ_NONE) return;
  const pq = cx.k.vmPages.vmPageQueues[queue]!;
  pq.remove(m);
  pq.insertTail(m);
}

/** To the ACTIVE queue (`vm_page_activate`). */
export function vmPageActivate(cx: Cx, m: VmPage): void {
  const kind = m.queue - m.pc;
  if (kind === PQ_ACTIVE) {
    if (m.actCount < ACT_INIT) m.actCount = ACT_INIT;
    return;
  }
  kassert(kind !== PQ_FREE && kind !== PQ_HOLD, "vm_page_activate: page is free");
  if (kind === PQ_CACHE) cx.k.vmmeter.vReactivated++;
  remQueue(cx.k, m);
  if (m.wireCount === 0 && (m.flags & PG_UNMANAGED) === 0) {
    if (m.actCount < ACT_INIT) m.actCount = ACT_INIT;
    addQueue(cx.k, m, PQ_ACTIVE + m.pc, false);
  }
  if (kind === PQ_CACHE) pagedaemonWakeup(cx);
}

/** To the INACTIVE queue (`vm_page_deactivate`). */
export function vmPageDeactivate(cx: Cx, m: VmPage): void {
  deactivate(cx, m, false);
}

/** The same, at the head of the queue: the next scan meets it first (`_vm_page_deactivate_locked` with athead). */
export function vmPageDeactivateHead(cx: Cx, m: VmPage): void {
  deactivate(cx, m, true);
}

function deactivate(cx: Cx, m: VmPage, atHead: boolean): void {
  const kind = m.queue - m.pc;
  if (kind === PQ_INACTIVE) return;
  kassert(kind !== PQ_FREE && kind !== PQ_HOLD, "vm_page_deactivate: page is free");
  if (m.wireCount !== 0 || (m.flags & PG_UNMANAGED) !== 0) return;
  if (kind === PQ_CACHE) cx.k.vmmeter.vReactivated++;
  m.flags &= ~PG_WINATCFLS;
  remQueue(cx.k, m);
  addQueue(cx.k, m, PQ_INACTIVE + m.pc, atHead);
}

/**
 * To the CACHE queue. The caller (`vmPageCache`) has made sure that nothing maps it and that it is clean; it is still busy.
 *
 * @internal
 */
export function vmPageEnqueueCache(cx: Cx, m: VmPage): void {
  kassert((m.flags & (PG_BUSY | PG_MAPPED)) === PG_BUSY, "vm_page_cache: page not busy, or mapped");
  kassert(
    m.dirty === 0 && m.wireCount === 0 && m.holdCount === 0,
    "vm_page_cache: page dirty, wired or held",
  );
  remQueue(cx.k, m);
  addQueue(cx.k, m, PQ_CACHE + m.pc, false);
  vmPageFreeWakeup(cx);
}

/**
 * Takes the page off FREE and makes it the caller's.
 *
 * @internal
 */
export function vmPageTakeFree(cx: Cx, m: VmPage): void {
  kassert(m.queue - m.pc === PQ_FREE && (m.flags & PG_BUSY) === 0, "vm_page_alloc: page is not free");
  kassert(m.wireCount === 0 && m.holdCount === 0 && m.busy === 0, "vm_page_alloc: free page is in use");
  remQueue(cx.k, m);
  m.flags = (m.flags & (PG_KEEP_NEWPAGE_MASK | PG_ZERO)) | PG_BUSY;
  m.busyTd = cx.td;
  m.actCount = 0;
  m.valid = 0;
  m.dirty = 0;
  m.patMode = 6;
}

/**
 * Frees a page (`vm_page_free`, `vm_page_free_toq`): out of its object, content forgotten, to FREE or, while held, to HOLD.
 *
 * Preconditions: busy, not soft busy, not wired more than once, not mapped; if it belongs to an object, whose token is held
 * exclusively.
 */
export function vmPageFree(cx: Cx, m: VmPage): void {
  freeToq(cx, m, false);
}

/** Frees a page that is known to be all zeros (`vm_page_free_zero`). */
export function vmPageFreeZero(cx: Cx, m: VmPage): void {
  freeToq(cx, m, true);
}

function freeToq(cx: Cx, m: VmPage, zero: boolean): void {
  const { k } = cx;
  kassert((m.flags & PG_MAPPED) === 0, "vm_page_free: page is mapped");
  kassert((m.flags & PG_BUSY) !== 0 && m.busy === 0, "vm_page_free: page not busy, or I/O runs");
  kassert(m.queue - m.pc !== PQ_FREE, "vm_page_free: page is free already");
  k.vmmeter.vTfree++;
  vmPageRemove(cx, m);
  if (m.flags & PG_FICTITIOUS) {
    vmPageWakeup(cx, m);
    return;
  }
  remQueue(k, m);
  m.valid = 0;
  m.dirty = 0;
  kassert(m.wireCount <= 1, "vm_page_free: page is wired more than once");
  if (m.wireCount === 1) {
    m.wireCount = 0;
    k.vmmeter.vWireCount--;
  }
  m.flags &= PG_BUSY | PG_WANTED;
  if (m.holdCount !== 0) {
    addQueue(k, m, PQ_HOLD + m.pc, false);
  } else {
    // Zeroed pages wait at the other end, for those who ask for them.
    if (zero) m.flags |= PG_ZERO;
    addQueue(k, m, PQ_FREE + m.pc, !zero);
  }
  vmPageWakeup(cx, m);
  vmPageFreeWakeup(cx);
}

/**
 * Puts a frame on FREE for the first time.
 *
 * @internal
 */
export function vmPageAddFree(k: Kernel, m: VmPage): void {
  addQueue(k, m, PQ_FREE + m.pc, false);
  k.vmmeter.vPageCount++;
}
