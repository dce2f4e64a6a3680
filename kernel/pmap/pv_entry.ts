/**
 * pv entries (`struct pv_entry`): the tree in a pmap that is at once the shape of its page table and the reverse map.
 *
 * Room: `kernel/pmap/`; imports spinlocks, sleep and panic. Reference: section 4.3.
 *
 * Every page-table page (PT, PD, PDP, PML4) and every managed mapping has one, named by (pmap, pindex).
 *
 *     pvHold = LOCKED | WAITING | count of holds
 *
 * 1. A pv that is in a tree has one hold for that (its association).
 * 2. A hold is taken only with pmSpin (found in the tree) or the page's spinlock (found on its list).
 * 3. Whoever had to wait for the lock looks at pvPmap and pvPindex (tree) or pvM (list) again: structures are used again (`pvzone`), and
 *    it may be another's by now.
 * 4. Locks are taken bottom up: pte, pt, pd, pdp, pml4. Who goes top down uses {@link pvGetTry}, and on failure lets everything go,
 *    waits for the child, and starts again.
 *
 * Each of the plain functions is what one `atomic_cmpset_int` is in C: nothing runs in between.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { PINTERLOCKED, tsleep, tsleepInterlock, wakeup } from "../lwkt/sleep.ts";
import { spinLock, spinLockShared, spinUnlock, spinUnlockShared } from "../lwkt/spinlock.ts";
import type { VmPage } from "../vm/vm_page.ts";
import { pindexLevel, type Pmap } from "./pmap.ts";

/** `pv_hold`: the pv is locked. */
export const PV_HOLD_LOCKED = 0x8000_0000;
/** `pv_hold`: somebody sleeps for the lock. */
export const PV_HOLD_WAITING = 0x4000_0000;
/** `pv_hold`: number of holds. */
export const PV_HOLD_MASK = 0x1fff_ffff;

/** Ticks that a sleep for a lock lasts at most, before it looks again: a second. */
const PV_WAIT_TICKS = 100;

/** One pv entry. */
export class PvEntry {
  /** Its pmap; undefined once it is out of the tree. Changes with pmSpin and the pv's lock. */
  pvPmap: Pmap | undefined = undefined;
  /** Its name in the pmap (section 4.2). */
  pvPindex = 0;
  /** The page that it maps, or the page-table page. Changes with the pv's lock and, for a mapped page, the page's spinlock. */
  pvM: VmPage | undefined = undefined;
  /** Lock and holds. */
  pvHold = 0;
  /** Next on the page's list of mappings. */
  pvListNext: PvEntry | undefined = undefined;
  /** Previous on the page's list of mappings. */
  pvListPrev: PvEntry | undefined = undefined;
}

/** Whether somebody has the pv locked. */
export function pvLocked(pv: PvEntry): boolean {
  return pv.pvHold >= PV_HOLD_LOCKED;
}

/** Holds on the pv. */
export function pvHolds(pv: PvEntry): number {
  return pv.pvHold & PV_HOLD_MASK;
}

/** `zalloc(pvzone)`: the structure that was freed last, or a new one. */
function zalloc(cx: Cx): PvEntry {
  const state = cx.k.pmap;
  state.pvCount++;
  const pv = state.pvzone.pop() ?? new PvEntry();
  kassert(pv.pvPmap === undefined && pv.pvHold === 0, "pv_alloc: pvzone gives out a pv entry that is in use");
  return pv;
}

/** `zfree(pvzone)`. */
function zfree(cx: Cx, pv: PvEntry): void {
  kassert(pv.pvPmap === undefined, "pv_free: pv entry is freed, but a pmap has it");
  kassert(pv.pvM === undefined, "pv_free: pv entry is freed, but maps a page");
  const state = cx.k.pmap;
  pv.pvHold = 0;
  state.pvCount--;
  state.pvzone.push(pv);
}

/**
 * Historical bug (`8e2efb11e5`, October 2013): the association has no hold, so the last hold of a pv that is in a tree may end. Who ended it
 * looks at pvPmap afterwards, and frees the structure if there is none: somebody else may have taken it out of the tree and freed it meanwhile.
 *
 * Here "afterwards" is the thread's next operation on pv entries: no step fits into a plain function.
 */
function lateCheck(cx: Cx): void {
  const { pvDropped } = cx.k.pmap;
  if (pvDropped.size === 0) return;
  const { td } = cx;
  const pv = pvDropped.get(td);
  if (pv === undefined) return;
  pvDropped.delete(td);
  if (pv.pvPmap === undefined && pv.pvM === undefined) zfree(cx, pv);
}

/** Takes a hold (`pv_hold`). Preconditions: rule 2. */
export function pvHold(pv: PvEntry): void {
  pv.pvHold++;
}

/** Takes hold and lock in one step, or the hold alone and gives false (`pv_hold_try`). Preconditions: rule 2. */
export function pvHoldTry(pv: PvEntry): boolean {
  if (pvLocked(pv)) {
    pv.pvHold++;
    return false;
  }
  pv.pvHold += PV_HOLD_LOCKED + 1;
  return true;
}

/** Gives a hold back (`pv_drop`); the last one frees the structure. */
export function pvDrop(cx: Cx, pv: PvEntry): void {
  const holds = pvHolds(pv);
  kassert(holds > 0, "pv_drop: pv entry is not held");
  kassert(!(pvLocked(pv) && holds === 1), "pv_drop: last hold of a locked pv entry");
  pv.pvHold--;
  if (holds !== 1) return;
  if (pv.pvPmap !== undefined && cx.k.bug("pv-association-hold")) {
    lateCheck(cx);
    cx.k.pmap.pvDropped.set(cx.td, pv);
  } else zfree(cx, pv);
}

/** Waits for the lock of a pv that the caller holds (`pv_lock`). Rule 3 applies. */
export function* pvLock(cx: Cx, pv: PvEntry): Exec<void> {
  kassert(pvHolds(pv) > 0, "pv_lock: pv entry is not held");
  while (pvLocked(pv)) {
    tsleepInterlock(cx, pv, 0);
    if (pv.pvHold < PV_HOLD_LOCKED + PV_HOLD_WAITING) pv.pvHold += PV_HOLD_WAITING;
    yield* tsleep(cx, pv, PINTERLOCKED, "pvwait", PV_WAIT_TICKS);
  }
  pv.pvHold += PV_HOLD_LOCKED;
}

/** Unlocks and wakes those who wait (`pv_unlock`); the hold stays. */
export function pvUnlock(cx: Cx, pv: PvEntry): void {
  kassert(pvLocked(pv) && pvHolds(pv) > 0, "pv_unlock: pv entry is not locked and held");
  const waited = pv.pvHold >= PV_HOLD_LOCKED + PV_HOLD_WAITING;
  pv.pvHold -= PV_HOLD_LOCKED + (waited ? PV_HOLD_WAITING : 0);
  if (waited) wakeup(cx, pv);
}

/** Unlocks and drops (`pv_put`). */
export function pvPut(cx: Cx, pv: PvEntry): void {
  pvUnlock(cx, pv);
  pvDrop(cx, pv);
}

/** Looks in hint and tree (`pm_pvhint`). Preconditions: pmSpin. */
function lookup(pmap: Pmap, pindex: number): PvEntry | undefined {
  const hint = pmap.pmPvhint;
  return hint?.pvPindex === pindex ? hint : pmap.pmPvroot.find(pindex);
}

/** Remembers a PT page's pv as the hint (`pv_cache`). Preconditions: pmSpin exclusively, or nothing runs in between. */
function cache(pmap: Pmap, pv: PvEntry): void {
  if (pindexLevel(pv.pvPindex) === 1) pmap.pmPvhint = pv;
}

/** Finds a pv and takes a hold (`pv_find`); it is not locked. */
export function* pvFind(cx: Cx, pmap: Pmap, pindex: number): Exec<PvEntry | undefined> {
  yield* spinLockShared(cx, pmap.pmSpin);
  const pv = lookup(pmap, pindex);
  if (pv !== undefined) {
    pvHold(pv);
    cache(pmap, pv);
  }
  spinUnlockShared(cx, pmap.pmSpin);
  return pv;
}

/**
 * Finds a pv, or makes one and puts it into the tree (`pv_alloc`). It comes locked and held; a new one has no page yet, and has the hold of
 * its association besides (rule 1).
 */
export function* pvAlloc(
  cx: Cx,
  pmap: Pmap,
  pindex: number,
): Exec<{ readonly pv: PvEntry; readonly isnew: boolean }> {
  for (;;) {
    yield* spinLock(cx, pmap.pmSpin);
    lateCheck(cx);
    const pv = lookup(pmap, pindex);
    if (pv === undefined) {
      const fresh = zalloc(cx);
      fresh.pvPmap = pmap;
      fresh.pvPindex = pindex;
      fresh.pvHold = PV_HOLD_LOCKED + (cx.k.bug("pv-association-hold") ? 1 : 2);
      pmap.pmPvroot.insert(fresh);
      pmap.pmGeneration++;
      pmap.pmStats.residentCount++;
      spinUnlock(cx, pmap.pmSpin);
      return { pv: fresh, isnew: true };
    }
    if (pvHoldTry(pv)) {
      spinUnlock(cx, pmap.pmSpin);
      return { pv, isnew: false };
    }
    spinUnlock(cx, pmap.pmSpin);
    yield* pvLock(cx, pv);
    if (stillNamed(cx, pv, pmap, pindex)) return { pv, isnew: false };
    pvPut(cx, pv);
  }
}

/** After a wait for the lock: whether the pv still is what was looked for (rule 3). */
function stillNamed(cx: Cx, pv: PvEntry, pmap: Pmap, pindex: number): boolean {
  return (pv.pvPmap === pmap && pv.pvPindex === pindex) || cx.k.bug("pv-revalidate");
}

/** Finds a pv, locked and held, or undefined (`pv_get`). May sleep. */
export function* pvGet(cx: Cx, pmap: Pmap, pindex: number): Exec<PvEntry | undefined> {
  for (;;) {
    yield* spinLock(cx, pmap.pmSpin);
    lateCheck(cx);
    const pv = lookup(pmap, pindex);
    if (pv === undefined) {
      spinUnlock(cx, pmap.pmSpin);
      return undefined;
    }
    const locked = pvHoldTry(pv);
    if (locked) cache(pmap, pv);
    spinUnlock(cx, pmap.pmSpin);
    if (locked) return pv;
    yield* pvLock(cx, pv);
    if (stillNamed(cx, pv, pmap, pindex)) return pv;
    pvPut(cx, pv);
  }
}

/**
 * Finds a pv and tries to lock it (`pv_get_try`). Three results: nothing; a pv with `busy` false, locked and held; a pv with `busy`
 * true, held only: the caller lets its other locks go, waits with {@link pvWait}, and starts again.
 */
export function* pvGetTry(
  cx: Cx,
  pmap: Pmap,
  pindex: number,
): Exec<{ readonly pv: PvEntry | undefined; readonly busy: boolean }> {
  yield* spinLock(cx, pmap.pmSpin);
  const pv = lookup(pmap, pindex);
  if (pv === undefined) {
    spinUnlock(cx, pmap.pmSpin);
    return { pv, busy: false };
  }
  const locked = pvHoldTry(pv);
  if (locked) cache(pmap, pv);
  spinUnlock(cx, pmap.pmSpin);
  return { pv, busy: !locked };
}

/** Waits until nobody has a held pv locked, and drops the hold. */
export function* pvWait(cx: Cx, pv: PvEntry): Exec<void> {
  yield* pvLock(cx, pv);
  pvPut(cx, pv);
}

/**
 * Takes a pv out of its pmap's tree and gives back the caller's lock and hold, and the association's hold (`pv_free`).
 *
 * Preconditions: locked and held by the caller; it maps no page any more.
 */
export function* pvFree(cx: Cx, pv: PvEntry): Exec<void> {
  kassert(pv.pvM === undefined, "pv_free: pv entry maps a page");
  const pmap = pv.pvPmap;
  if (pmap !== undefined) {
    yield* spinLock(cx, pmap.pmSpin);
    const removed = pmap.pmPvroot.remove(pv);
    kassert(removed, "pv_free: pv entry is not in its pmap's tree");
    pmap.pmGeneration++;
    if (pmap.pmPvhint === pv) pmap.pmPvhint = undefined;
    pmap.pmStats.residentCount--;
    pv.pvPmap = undefined;
    pv.pvPindex = 0;
    spinUnlock(cx, pmap.pmSpin);
    if (!cx.k.bug("pv-association-hold")) pvDrop(cx, pv);
  }
  pvPut(cx, pv);
}
