/**
 * The page behind an address: the walk down a shadow chain, reading, zero-filling and copying (`vm_fault_object` of `sys/vm/vm_fault.c`).
 *
 * Room: `kernel/vm/`; imports objects, pages, pagers. Who calls it, with a map locked, is `vm_fault.ts` and `vm_fault_page.ts`.
 *
 * What is held during the walk:
 *
 *     map lock, shared         until a page has to be read; then let go, and taken again (timestamp!) at the end
 *     chain locks              on every object from the top to the present one
 *     tokens, holds            top object and present object; shared, where nothing has to be allocated or read
 *     paging in progress       top object and present object
 *     busy pages               the found one, and the one allocated in the top object for a copy (firstM)
 *
 * Any of it that has to be given up to wait is given up with all the rest, and the fault starts again at the lookup (KERN_TRY_AGAIN).
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { kprintf } from "../kern/subr_prf.ts";
import { PMAP_EMULATE_AD_BITS } from "../pmap/pmap_bits.ts";
import { swapPagerUnswapped } from "./swap_pager.ts";
import { type VmMap, vmMapLockReadTry, vmMapUnlockRead } from "./vm_map.ts";
import type { VmMapEntry } from "./vm_map_entry.ts";
import { vmMapDeinterlock, type VmMapIlock } from "./vm_map_interlock.ts";
import {
  OBJ_DEAD,
  OBJT_DEFAULT,
  OBJT_SWAP,
  type VmObject,
  vmObjectChainAcquire,
  vmObjectChainRelease,
  vmObjectDrop,
  vmObjectHold,
  vmObjectHoldShared,
  vmObjectIsAnonymous,
  vmObjectLockSwap,
  vmObjectPipAdd,
  vmObjectPipWakeup,
} from "./vm_object.ts";
import {
  PG_NOSYNC,
  PG_RAM,
  PG_SWAPPED,
  PG_ZERO,
  VM_ALLOC_NORMAL,
  VM_ALLOC_NULL_OK,
  VM_ALLOC_ZERO,
  VM_PAGE_BITS_ALL,
  type VmPage,
  vmPageActivate,
  vmPageDeactivate,
  vmPageDirty,
  vmPageFlagClear,
  vmPageFlagSet,
  vmPageFree,
  vmPageLookup,
  vmPageLookupBusyTry,
  vmPageRemove,
  vmPageRename,
  vmPageSleepBusy,
  vmPageUnqueueNowakeup,
  vmPageWakeup,
} from "./vm_page.ts";
import { vmPageCountSevere } from "./vm_page2.ts";
import { vmIsBeingKilled, vmPageAlloc, vmWaitPfault } from "./vm_page_alloc.ts";
import { vmPageCopy, vmPageProtect, vmPageZeroFill } from "./vm_page_valid.ts";
import { PQ_CACHE } from "./vm_pageq.ts";
import { VM_PAGER_BAD, VM_PAGER_FAIL, VM_PAGER_OK, vmPagerGetPage, vmPagerHasPage } from "./vm_pager.ts";
import {
  KERN_FAILURE,
  KERN_PROTECTION_FAILURE,
  KERN_SUCCESS,
  KERN_TRY_AGAIN,
  MAP_ENTRY_BEHAV_MASK,
  MAP_ENTRY_BEHAV_SEQUENTIAL,
  MAP_ENTRY_NOSYNC,
  offToIdx,
  VM_MAPTYPE_VPAGETABLE,
  VM_PROT_ALL,
  VM_PROT_NONE,
  VM_PROT_WRITE,
  type VmProt,
} from "./vm_param.ts";

/** vm_fault: nothing special (`VM_FAULT_NORMAL`). */
export const VM_FAULT_NORMAL = 0x00;
/** The kernel wires the page. */
export const VM_FAULT_CHANGE_WIRING = 0x01;
/** mlock wires the page. */
export const VM_FAULT_USER_WIRE = 0x02;
/** Either. */
export const VM_FAULT_WIRE_MASK: number = VM_FAULT_CHANGE_WIRING | VM_FAULT_USER_WIRE;
/** Map neighbours too. */
export const VM_FAULT_BURST = 0x04;
/** The page is being written now: it becomes dirty at once. */
export const VM_FAULT_DIRTY = 0x08;
/** What swap has of it is forgotten. */
export const VM_FAULT_UNSWAP = 0x10;
/** Map neighbours of the top object only. */
export const VM_FAULT_BURST_QUICK = 0x20;

/** A fault being handled (`struct faultstate`). */
export class Faultstate {
  /** The map; undefined when a fault on an object alone is handled. */
  readonly map: VmMap | undefined;
  /** The entry. Only to be used while `lookupStillValid`. */
  readonly entry: VmMapEntry | undefined;
  /** The map is locked, shared. */
  lookupStillValid: boolean;
  /** The map's timestamp at the lookup. */
  readonly mapGeneration: number;
  /** Rights by the lookup. */
  readonly firstProt: VmProt;
  /** Rights that the mapping may have. */
  prot: VmProt = VM_PROT_NONE;
  /** The entry is wired. */
  readonly wired: boolean;
  /** VM_FAULT_*. */
  readonly faultFlags: number;
  /** The top object. */
  readonly firstObject: VmObject;
  /** The object that is being looked at. */
  object: VmObject;
  /** The busy page: on success the result. */
  m: VmPage | undefined = undefined;
  /** The busy page in the top object that a copy will go to. */
  firstM: VmPage | undefined = undefined;
  /** Objects that are chain-locked, from the top; the last one is `object`. */
  readonly chain: VmObject[] = [];
  /** The top object is held shared. */
  firstShared: boolean;
  /** The others are. */
  shared: boolean;
  /** Pages read. */
  hardfault = 0;
  /** Through a software page table: the object's page that the walk found. */
  vptePindex = 0;
  /** What the table's entries allow; everything where there is none. */
  vpteProt: VmProt = VM_PROT_ALL;
  /** The entry says modified already: the first write need not be seen. */
  vpteModified = false;
  /** The page's address, which no MADV_INVAL may touch meanwhile. */
  ilock: VmMapIlock | undefined;
  /** Historical bug 7a45978d5d may apply: the fault is vm_fault_page's. */
  byPage = false;

  /** @param lookup What the map lookup found. @param shared How the objects are to be held this time. */
  constructor(
    lookup: {
      readonly map: VmMap | undefined;
      readonly entry: VmMapEntry | undefined;
      readonly object: VmObject;
      readonly prot: VmProt;
      readonly wired: boolean;
    },
    faultFlags: number,
    shared: SharedChoice,
  ) {
    this.map = lookup.map;
    this.entry = lookup.entry;
    this.lookupStillValid = lookup.map !== undefined;
    this.mapGeneration = lookup.map?.timestamp ?? 0;
    this.firstProt = lookup.prot;
    this.wired = lookup.wired;
    this.faultFlags = faultFlags;
    this.firstObject = lookup.object;
    this.object = lookup.object;
    this.firstShared = shared.firstShared;
    this.shared = shared.shared;
  }
}

/** How objects are held; a fault that finds that it needs more tries again with less shared. Kept over retries. */
export interface SharedChoice {
  /** The top object. */
  firstShared: boolean;
  /** Those below. */
  shared: boolean;
}

/** Holds and chain-locks the top object: the state in which {@link vmFaultObject} starts. */
export function* faultEnter(cx: Cx, fs: Faultstate): Exec<void> {
  yield* hold(cx, fs.firstObject, fs.firstShared);
  yield* vmObjectChainAcquire(cx, fs.firstObject, fs.firstShared);
  vmObjectPipAdd(fs.firstObject, 1);
  fs.chain.push(fs.firstObject);
}

/** Gives up everything but the busy page `fs.m` (`unlock_things`). */
export function* faultLeave(cx: Cx, fs: Faultstate): Exec<void> {
  if (fs.firstM !== undefined && fs.firstM !== fs.m) freeFirstM(cx, fs.firstM);
  fs.firstM = undefined;
  for (const object of fs.chain.reverse()) vmObjectChainRelease(cx, object);
  fs.chain.length = 0;
  if (fs.object !== fs.firstObject) {
    vmObjectPipWakeup(cx, fs.object);
    vmObjectDrop(cx, fs.object);
    fs.object = fs.firstObject;
  }
  vmObjectPipWakeup(cx, fs.firstObject);
  vmObjectDrop(cx, fs.firstObject);
  if (fs.ilock !== undefined && fs.map !== undefined) vmMapDeinterlock(cx, fs.map, fs.ilock);
  fs.ilock = undefined;
  yield* unlockMap(cx, fs);
}

/** A page allocated for a copy that was not needed. A wired one without content stays. */
function freeFirstM(cx: Cx, m: VmPage): void {
  if (m.wireCount === 0) vmPageFree(cx, m);
  else vmPageWakeup(cx, m);
}

function* unlockMap(cx: Cx, fs: Faultstate): Exec<void> {
  if (!fs.lookupStillValid || fs.map === undefined) return;
  fs.lookupStillValid = false;
  yield* vmMapUnlockRead(cx, fs.map);
}

function hold(cx: Cx, object: VmObject, shared: boolean): Exec<void> {
  return shared ? vmObjectHoldShared(cx, object) : vmObjectHold(cx, object);
}

/** Leaves the busy page to its object (`release_page`). */
function releasePage(cx: Cx, fs: Faultstate): void {
  const { m } = fs;
  fs.m = undefined;
  if (m === undefined) return;
  if (fs.firstM === m) fs.firstM = undefined;
  vmPageDeactivate(cx, m);
  vmPageWakeup(cx, m);
}

/** Everything is given up; the fault starts again, holding less shared from now on if asked. */
function* tryAgain(cx: Cx, fs: Faultstate, choice?: SharedChoice, need?: "first" | "all"): Exec<number> {
  if (choice !== undefined && need !== undefined) {
    choice.firstShared = false;
    if (need === "all") choice.shared = false;
  }
  releasePage(cx, fs);
  yield* faultLeave(cx, fs);
  return KERN_TRY_AGAIN;
}

/** Whether the pager of the present object may have the page (`TRYPAGER`). */
function mayHavePage(cx: Cx, object: VmObject, pindex: number): boolean {
  if (object.type === OBJT_DEFAULT) return false;
  // Swap can tell, and telling saves a page and the exclusive hold.
  return object.type !== OBJT_SWAP || vmPagerHasPage(cx, object, pindex);
}

/**
 * Finds, reads or makes the page of the top object at `firstPindex` (`vm_fault_object`).
 *
 * Preconditions: {@link faultEnter}.
 *
 * @param choice What the next attempt shall hold shared; changed on the way to KERN_TRY_AGAIN.
 * @returns KERN_SUCCESS: `fs.m` is busy, valid, and off or on a queue; `fs.prot` says what a mapping may have; everything is still held.
 *   Others: everything has been given up.
 */
export function* vmFaultObject(
  cx: Cx,
  fs: Faultstate,
  firstPindex: number,
  faultType: VmProt,
  choice: SharedChoice,
): Exec<number> {
  const writing = (faultType & VM_PROT_WRITE) !== 0;
  fs.prot = fs.firstProt & fs.vpteProt;
  if (!writing && mustSeeFirstWrite(cx, fs)) fs.prot &= ~VM_PROT_WRITE;
  let pindex = firstPindex;
  for (;;) {
    const { object } = fs;
    const isFirst = object === fs.firstObject;
    if (object.flags & OBJ_DEAD) return yield* fail(cx, fs, KERN_PROTECTION_FAILURE);
    const found = vmPageLookupBusyTry(cx, object, pindex, true);
    if (found.m !== undefined && found.error) {
      cx.k.vmmeter.vIntrans++;
      yield* faultLeave(cx, fs);
      yield* vmPageSleepBusy(cx, found.m, true, "vmpfw");
      return KERN_TRY_AGAIN;
    }
    fs.m = found.m;
    const inPager = mayHavePage(cx, object, pindex);
    if (fs.m !== undefined) {
      const { m } = fs;
      if (m.queue - m.pc === PQ_CACHE && vmPageCountSevere(cx.k)) {
        // Using it would lower the number of pages that can be had at once.
        vmPageActivate(cx, m);
        vmPageWakeup(cx, m);
        fs.m = undefined;
        yield* faultLeave(cx, fs);
        yield* vmWaitPfault(cx);
        // Who was killed to make memory free does not get any more: back to where the signal is seen.
        return vmIsBeingKilled(cx) ? KERN_PROTECTION_FAILURE : KERN_TRY_AGAIN;
      }
      const readAhead = (m.flags & PG_RAM) !== 0 && object.type === OBJT_SWAP;
      if (m.valid === VM_PAGE_BITS_ALL && !readAhead) {
        vmPageUnqueueNowakeup(cx, m);
        break;
      }
      if (readAhead) vmPageFlagClear(m, PG_RAM);
    } else if (inPager || isFirst) {
      const held = isFirst ? fs.firstShared : fs.shared;
      if (held) return yield* tryAgain(cx, fs, choice, isFirst ? "first" : "all");
      if (pindex >= object.size) return yield* fail(cx, fs, KERN_PROTECTION_FAILURE);
      const zero = object.backingObject === undefined && !inPager ? VM_ALLOC_ZERO : 0;
      fs.m = vmPageCountSevere(cx.k)
        ? undefined
        : vmPageAlloc(cx, object, pindex, VM_ALLOC_NORMAL | VM_ALLOC_NULL_OK | zero);
      if (fs.m === undefined) {
        yield* faultLeave(cx, fs);
        yield* vmWaitPfault(cx);
        // Who was killed to make memory free does not get any more: back to where the signal is seen.
        return vmIsBeingKilled(cx) ? KERN_PROTECTION_FAILURE : KERN_TRY_AGAIN;
      }
    }
    // Read ahead of a valid page, read this one, or throw it away: all of it may insert or remove pages.
    if (fs.m !== undefined && (isFirst ? fs.firstShared : fs.shared)) {
      return yield* tryAgain(cx, fs, choice, isFirst ? "first" : "all");
    }
    if (fs.m !== undefined && (inPager || fs.m.valid === VM_PAGE_BITS_ALL)) {
      const rv = yield* readPage(cx, fs, pindex);
      if (rv === KERN_SUCCESS) break;
      if (rv !== undefined) return rv;
    }
    if (isFirst) fs.firstM = fs.m;
    else if (fs.m !== undefined) dropInvalid(cx, fs.m);
    fs.m = undefined;
    const next = object.backingObject;
    if (next === undefined) {
      yield* zeroFill(cx, fs);
      break;
    }
    pindex += offToIdx(object.backingObjectOffset);
    yield* descend(cx, fs, next);
  }
  return yield* finish(cx, fs, firstPindex, writing);
}

/** The first write through the mapping has to fault, because somebody counts on seeing it. */
function mustSeeFirstWrite(cx: Cx, fs: Faultstate): boolean {
  if (fs.entry?.maptype === VM_MAPTYPE_VPAGETABLE) return !fs.vpteModified;
  const vm = cx.lwp?.lwpVmspace;
  return vm !== undefined && (vm.vmPmap.pmFlags & PMAP_EMULATE_AD_BITS) !== 0;
}

function* fail(cx: Cx, fs: Faultstate, rv: number): Exec<number> {
  releasePage(cx, fs);
  yield* faultLeave(cx, fs);
  return rv;
}

/**
 * Lets the pager fill the busy page. KERN_SUCCESS: it did. Undefined: the pager has no such page, look further down. Others: the fault is
 * over, everything has been given up.
 */
function* readPage(cx: Cx, fs: Faultstate, pindex: number): Exec<number | undefined> {
  const { object, m } = fs;
  kassert(m !== undefined, "vm_fault: no page to read");
  const behaviour = (fs.entry?.eflags ?? 0) & MAP_ENTRY_BEHAV_MASK;
  // The map is not kept locked over I/O: who changes it would wait, and who makes memory free may be among them.
  yield* unlockMap(cx, fs);
  const wasValid = m.valid === VM_PAGE_BITS_ALL;
  const rv = yield* vmPagerGetPage(cx, object, m, behaviour === MAP_ENTRY_BEHAV_SEQUENTIAL);
  if (rv === VM_PAGER_OK || wasValid) {
    // The pager may have put another page in its place.
    fs.m = vmPageLookup(cx, object, pindex);
    if (fs.m === undefined) {
      yield* faultLeave(cx, fs);
      return KERN_TRY_AGAIN;
    }
    if (!wasValid) fs.hardfault++;
    vmPageUnqueueNowakeup(cx, fs.m);
    return KERN_SUCCESS;
  }
  if (rv === VM_PAGER_FAIL) return undefined;
  if (rv !== VM_PAGER_BAD) kprintf(cx, `vm_fault: pager read error, pid ${cx.proc?.pPid ?? 0}\n`);
  fs.m = undefined;
  dropInvalid(cx, m);
  yield* faultLeave(cx, fs);
  return rv === VM_PAGER_BAD ? KERN_PROTECTION_FAILURE : KERN_FAILURE;
}

/** A busy page without content goes; a wired one cannot. */
function dropInvalid(cx: Cx, m: VmPage): void {
  if (m.wireCount === 0) vmPageFree(cx, m);
  else vmPageWakeup(cx, m);
}

/** One object further down. */
function* descend(cx: Cx, fs: Faultstate, next: VmObject): Exec<void> {
  const from = fs.object;
  yield* hold(cx, next, fs.shared);
  yield* vmObjectChainAcquire(cx, next, fs.shared);
  kassert(from.backingObject === next, "vm_fault: the chain changed under its lock");
  if (from !== fs.firstObject) {
    vmObjectPipWakeup(cx, from);
    vmObjectLockSwap(cx);
    vmObjectDrop(cx, from);
  }
  fs.object = next;
  fs.chain.push(next);
  vmObjectPipAdd(next, 1);
}

/** Back to the top object; its own chain lock stays. */
function returnToFirst(cx: Cx, fs: Faultstate): void {
  const { object, firstObject } = fs;
  if (object === firstObject) return;
  while (fs.chain.length > 1) vmObjectChainRelease(cx, fs.chain.pop()!);
  vmObjectPipWakeup(cx, object);
  vmObjectDrop(cx, object);
  fs.object = firstObject;
}

/** Nobody has the page: the one in the top object becomes zeros. */
function* zeroFill(cx: Cx, fs: Faultstate): Exec<void> {
  const m = fs.firstM;
  kassert(m !== undefined, "vm_fault: no page to fill with zeros");
  returnToFirst(cx, fs);
  fs.firstM = undefined;
  fs.m = m;
  cx.k.vmmeter.vZfod++;
  if (m.flags & PG_ZERO) cx.k.vmmeter.vOzfod++;
  yield* vmPageZeroFill(cx, m);
  vmPageFlagClear(m, PG_ZERO);
  m.valid = VM_PAGE_BITS_ALL;
}

/** A valid page has been found: copy it if it must be, make sure that the map is still as it was, and note what is known about the access. */
function* finish(cx: Cx, fs: Faultstate, firstPindex: number, writing: boolean): Exec<number> {
  if (fs.object !== fs.firstObject) {
    if (writing) yield* takeCopy(cx, fs, firstPindex);
    else fs.prot &= ~VM_PROT_WRITE;
  }
  // For the pages that do not have to be copied, the one that was allocated in the top object stands in the way of others.
  if (fs.firstM !== undefined && fs.firstM !== fs.m) {
    freeFirstM(cx, fs.firstM);
    fs.firstM = undefined;
  }
  if (!(yield* relookup(cx, fs))) return yield* tryAgain(cx, fs);
  const { m } = fs;
  kassert(m !== undefined && m.valid === VM_PAGE_BITS_ALL, "vm_fault: the page is not valid");
  vmPageFlagClear(m, PG_ZERO);
  vmPageActivate(cx, m);
  if (fs.prot & VM_PROT_WRITE) {
    if (m.object !== undefined) cx.k.vmPages.objectDirtied(cx, m.object);
    if (m.dirty === 0 && ((fs.entry?.eflags ?? 0) & MAP_ENTRY_NOSYNC) !== 0) vmPageFlagSet(m, PG_NOSYNC);
    else if (((fs.entry?.eflags ?? 0) & MAP_ENTRY_NOSYNC) === 0) vmPageFlagClear(m, PG_NOSYNC);
  }
  if (writing || (fs.faultFlags & VM_FAULT_DIRTY) !== 0) {
    vmPageDirty(cx, m);
    if (m.object !== undefined && vmObjectIsAnonymous(m.object) && !heldShared(fs, m.object)) {
      swapPagerUnswapped(cx, m);
    }
  }
  return KERN_SUCCESS;
}

function heldShared(fs: Faultstate, object: VmObject): boolean {
  return object === fs.firstObject ? fs.firstShared : fs.shared;
}

/** If the map was let go for I/O: locks it again, and whether it has not changed. */
function* relookup(cx: Cx, fs: Faultstate): Exec<boolean> {
  const { map } = fs;
  if (map === undefined) return true;
  // Not waiting: whoever has the lock exclusively may wait for an object of this chain, or for this page.
  if (!fs.lookupStillValid && !(yield* vmMapLockReadTry(cx, map))) return false;
  fs.lookupStillValid = true;
  return map.timestamp === fs.mapGeneration;
}

/**
 * Gives the top object its own copy of the page that was found below (copy on write).
 *
 * If nobody else can ever see the one below, it moves up instead. Otherwise the original is unmapped everywhere: some who change user
 * memory (umtx, procfs, copies through held pages) do so without this pmap, and would leave it showing the old page.
 */
function* takeCopy(cx: Cx, fs: Faultstate, firstPindex: number): Exec<void> {
  const { m, firstM, object, firstObject } = fs;
  kassert(m !== undefined && firstM !== undefined, "vm_fault: no page to copy, or none to copy to");
  const { vmmeter } = cx.k;
  const ours = (): boolean =>
    !fs.firstShared && !fs.shared && vmObjectIsAnonymous(object) && object.shadowCount === 1 &&
    object.refCount === 1 && object === firstObject.backingObject;
  // Taking the map's lock lets others run: look again.
  if (ours() && (yield* relookup(cx, fs)) && ours()) {
    vmPageRemove(cx, firstM);
    vmPageFlagClear(m, PG_SWAPPED);
    vmPageRename(cx, m, firstObject, firstPindex);
    vmPageFree(cx, firstM);
    vmmeter.vCowOptim++;
  } else {
    yield* vmPageCopy(cx, m, firstM);
    vmPageFlagClear(firstM, PG_ZERO);
    vmPageDirty(cx, firstM);
    if (!(fs.byPage && cx.k.bug("fault-page-stale-pte"))) yield* vmPageProtect(cx, m, VM_PROT_NONE);
    vmPageDeactivate(cx, m);
    vmPageWakeup(cx, m);
    fs.m = firstM;
  }
  fs.firstM = undefined;
  vmmeter.vCowFaults++;
  returnToFirst(cx, fs);
}
