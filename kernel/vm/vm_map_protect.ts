/**
 * Changing what mappings allow and how they are used (`vm_map_protect`, `vm_map_inherit`, `vm_map_madvise`, `vm_map_check_protection` of
 * `sys/vm/vm_map.c`).
 *
 * Room: `kernel/vm/`; imports maps, objects, pmap.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { pmapObjectInitPt } from "../pmap/pmap_extract.ts";
import { pmapProtect } from "../pmap/pmap_protect.ts";
import { pmapRemove } from "../pmap/pmap_remove.ts";
import {
  type VmMap,
  vmMapLock,
  vmMapLockRead,
  vmMapLookupEntry,
  vmMapUnlock,
  vmMapUnlockRead,
} from "./vm_map.ts";
import {
  vmMapClipEnd,
  vmMapClipStart,
  vmMapSimplifyEntry,
  vmMapTransitionWait,
  vmMapUnclipRange,
} from "./vm_map_clip.ts";
import {
  MAP_RESERVE_COUNT,
  type MapCount,
  type VmMapEntry,
  vmMapEntryRelease,
  vmMapEntryReserve,
} from "./vm_map_entry.ts";
import { vmMapDeinterlock, vmMapInterlock } from "./vm_map_interlock.ts";
import { vmMapRewire } from "./vm_map_wire.ts";
import { OBJT_VNODE, vmObjectDrop, vmObjectHold, vmObjectHoldShared } from "./vm_object.ts";
import { vmObjectMadvise } from "./vm_object_pages.ts";
import {
  atop,
  KERN_INVALID_ARGUMENT,
  KERN_PROTECTION_FAILURE,
  KERN_SUCCESS,
  MADV_AUTOSYNC,
  MADV_CORE,
  MADV_DONTNEED,
  MADV_FREE,
  MADV_INVAL,
  MADV_NOCORE,
  MADV_NORMAL,
  MADV_NOSYNC,
  MADV_RANDOM,
  MADV_SEQUENTIAL,
  MADV_SETMAP,
  MADV_WILLNEED,
  MAP_ENTRY_BEHAV_MASK,
  MAP_ENTRY_BEHAV_NORMAL,
  MAP_ENTRY_BEHAV_RANDOM,
  MAP_ENTRY_BEHAV_SEQUENTIAL,
  MAP_ENTRY_COW,
  MAP_ENTRY_IN_TRANSITION,
  MAP_ENTRY_NEEDS_WAKEUP,
  MAP_ENTRY_NOCOREDUMP,
  MAP_ENTRY_NOSYNC,
  MAP_PREFAULT_MADVISE,
  offToIdx,
  VM_INHERIT_NONE,
  VM_INHERIT_SHARE,
  VM_MAPTYPE_SUBMAP,
  VM_MAPTYPE_VPAGETABLE,
  VM_PROT_WRITE,
  type VmProt,
} from "./vm_param.ts";

/** Start and end within the map (`VM_MAP_RANGE_CHECK`). */
export function vmMapRangeCheck(map: VmMap, start: bigint, end: bigint): { start: bigint; end: bigint } {
  const from = start < map.min ? map.min : start;
  const to = end > map.max ? map.max : end;
  return { start: from > to ? to : from, end: to };
}

/** The first entry of `[start, end)`, cut at `start`; the header if there is none behind. The map is locked exclusively. */
function firstEntry(cx: Cx, map: VmMap, start: bigint, count: MapCount): VmMapEntry {
  const { found, entry } = vmMapLookupEntry(map, start);
  if (!found) return entry.next;
  vmMapClipStart(cx, map, entry, start, count);
  return entry;
}

/** Locks the map exclusively and waits until nobody has entries of the range in transition. */
function* lockRange(cx: Cx, map: VmMap, start: bigint, end: bigint): Exec<void> {
  yield* vmMapLock(cx, map);
  for (;;) {
    let { found, entry } = vmMapLookupEntry(map, start);
    if (!found) entry = entry.next;
    let busy: VmMapEntry | undefined;
    for (; entry !== map.header && entry.start < end && busy === undefined; entry = entry.next) {
      if (entry.eflags & MAP_ENTRY_IN_TRANSITION) busy = entry;
    }
    if (busy === undefined) return;
    busy.eflags |= MAP_ENTRY_NEEDS_WAKEUP;
    yield* vmMapTransitionWait(cx, map);
  }
}

/**
 * Sets the rights of `[start, end)` (`vm_map_protect`): first everything is checked, then everything is changed. Holes are skipped.
 *
 * @param setMax Lower what the rights may become, and the rights with it.
 * @returns KERN_SUCCESS, KERN_PROTECTION_FAILURE (more than maxProtection), KERN_INVALID_ARGUMENT (a submap).
 */
export function* vmMapProtect(
  cx: Cx,
  map: VmMap,
  from: bigint,
  to: bigint,
  prot: VmProt,
  setMax: boolean,
): Exec<number> {
  const { start, end } = vmMapRangeCheck(map, from, to);
  const count = vmMapEntryReserve(MAP_RESERVE_COUNT);
  yield* lockRange(cx, map, start, end);
  const gained: VmMapEntry[] = [];
  const rv = yield* protect(cx, map, start, end, prot, setMax, count, gained);
  // The entries, in transition, stay as they are while the map is unlocked.
  for (const range of gained.map((entry) => ({ entry, start: entry.start, end: entry.end }))) {
    yield* vmMapRewire(cx, map, range.entry);
    yield* vmMapUnclipRange(cx, map, range.start, range.end, count);
  }
  yield* vmMapUnlock(cx, map);
  vmMapEntryRelease(count);
  return rv;
}

function* protect(
  cx: Cx,
  map: VmMap,
  start: bigint,
  end: bigint,
  prot: VmProt,
  setMax: boolean,
  count: MapCount,
  gained: VmMapEntry[],
): Exec<number> {
  const first = firstEntry(cx, map, start, count);
  for (let entry = first; entry !== map.header && entry.start < end; entry = entry.next) {
    if (entry.maptype === VM_MAPTYPE_SUBMAP) return KERN_INVALID_ARGUMENT;
    if ((prot & entry.maxProtection) !== prot && !setMax) return KERN_PROTECTION_FAILURE;
  }
  for (let entry = first; entry !== map.header && entry.start < end; entry = entry.next) {
    vmMapClipEnd(cx, map, entry, end, count);
    const old = entry.protection;
    if (setMax) {
      entry.maxProtection &= prot;
      entry.protection = prot & old;
    } else entry.protection = prot;
    if (entry.protection !== old) {
      if (entry.wiredCount !== 0 && (entry.protection & ~old) !== 0) {
        // Wired again below, which unlocks the map: nobody else may change the entry meanwhile.
        entry.eflags |= MAP_ENTRY_IN_TRANSITION;
        gained.push(entry);
      }
      // A private mapping becomes writable page by page, at the faults that copy.
      const mask = (entry.eflags & MAP_ENTRY_COW) !== 0 ? ~VM_PROT_WRITE : ~0;
      yield* pmapProtect(cx, map.pmap, entry.start, entry.end, entry.protection & mask);
    }
    yield* vmMapSimplifyEntry(cx, map, entry, count);
  }
  return KERN_SUCCESS;
}

/** Sets what a child gets of `[start, end)` (`vm_map_inherit`). */
export function* vmMapInherit(
  cx: Cx,
  map: VmMap,
  from: bigint,
  to: bigint,
  inheritance: number,
): Exec<number> {
  if (inheritance < VM_INHERIT_SHARE || inheritance > VM_INHERIT_NONE) return KERN_INVALID_ARGUMENT;
  const { start, end } = vmMapRangeCheck(map, from, to);
  const count = vmMapEntryReserve(MAP_RESERVE_COUNT);
  yield* lockRange(cx, map, start, end);
  for (
    let entry = firstEntry(cx, map, start, count);
    entry !== map.header && entry.start < end;
    entry = entry.next
  ) {
    vmMapClipEnd(cx, map, entry, end, count);
    entry.inheritance = inheritance;
    yield* vmMapSimplifyEntry(cx, map, entry, count);
  }
  yield* vmMapUnlock(cx, map);
  vmMapEntryRelease(count);
  return KERN_SUCCESS;
}

/** Advice that changes entries: new eflags from the old ones. */
const ADVICE: ReadonlyMap<number, (eflags: number) => number> = new Map([
  [MADV_NORMAL, (eflags) => (eflags & ~MAP_ENTRY_BEHAV_MASK) | MAP_ENTRY_BEHAV_NORMAL],
  [MADV_SEQUENTIAL, (eflags) => (eflags & ~MAP_ENTRY_BEHAV_MASK) | MAP_ENTRY_BEHAV_SEQUENTIAL],
  [MADV_RANDOM, (eflags) => (eflags & ~MAP_ENTRY_BEHAV_MASK) | MAP_ENTRY_BEHAV_RANDOM],
  [MADV_NOSYNC, (eflags) => eflags | MAP_ENTRY_NOSYNC],
  [MADV_AUTOSYNC, (eflags) => eflags & ~MAP_ENTRY_NOSYNC],
  [MADV_NOCORE, (eflags) => eflags | MAP_ENTRY_NOCOREDUMP],
  [MADV_CORE, (eflags) => eflags & ~MAP_ENTRY_NOCOREDUMP],
]);

/**
 * Takes advice on `[start, end)` (`vm_map_madvise`).
 *
 * @param value Of MADV_SETMAP: the root of the software page table.
 * @returns KERN_SUCCESS; KERN_INVALID_ARGUMENT for advice that there is not, or SETMAP on an ordinary mapping.
 */
export function* vmMapMadvise(
  cx: Cx,
  map: VmMap,
  from: bigint,
  to: bigint,
  behav: number,
  value: bigint,
): Exec<number> {
  const { start, end } = vmMapRangeCheck(map, from, to);
  if (behav === MADV_WILLNEED || behav === MADV_DONTNEED || behav === MADV_FREE) {
    yield* vmMapLockRead(cx, map);
    yield* adviseOnPages(cx, map, start, end, behav);
    yield* vmMapUnlockRead(cx, map);
    return KERN_SUCCESS;
  }
  if (behav === MADV_INVAL) {
    yield* vmMapLockRead(cx, map);
    yield* invalidate(cx, map, start, end);
    yield* vmMapUnlockRead(cx, map);
    return KERN_SUCCESS;
  }
  const change = ADVICE.get(behav);
  if (change === undefined && behav !== MADV_SETMAP) return KERN_INVALID_ARGUMENT;
  const count = vmMapEntryReserve(MAP_RESERVE_COUNT);
  yield* lockRange(cx, map, start, end);
  let rv = KERN_SUCCESS;
  for (
    let entry = firstEntry(cx, map, start, count);
    entry !== map.header && entry.start < end;
    entry = entry.next
  ) {
    if (entry.maptype === VM_MAPTYPE_SUBMAP) continue;
    vmMapClipEnd(cx, map, entry, end, count);
    if (change !== undefined) {
      entry.eflags = change(entry.eflags);
    } else if (entry.maptype === VM_MAPTYPE_VPAGETABLE) {
      // A fault that had walked the old tables holds the map's lock until its mapping is entered, or finds that the timestamp has changed.
      entry.aux = value;
      cx.k.vkernel.setmaps++;
      yield* pmapRemove(cx, map.pmap, entry.start, entry.end);
    } else {
      rv = KERN_INVALID_ARGUMENT;
    }
    yield* vmMapSimplifyEntry(cx, map, entry, count);
  }
  yield* vmMapUnlock(cx, map);
  vmMapEntryRelease(count);
  return rv;
}

/**
 * INVAL: every mapping of the range goes, from all processors. The map is locked shared (January 2017), and a fault that has walked a software page
 * table and not entered its mapping yet has the page interlocked (February 2017, `fc531fbc3f`).
 */
function* invalidate(cx: Cx, map: VmMap, start: bigint, end: bigint): Exec<void> {
  cx.k.vkernel.invals++;
  let { found, entry } = vmMapLookupEntry(map, start);
  if (!found) entry = entry.next;
  for (; entry !== map.header && entry.start < end; entry = entry.next) {
    if (entry.maptype === VM_MAPTYPE_SUBMAP) continue;
    const from = entry.start < start ? start : entry.start;
    const to = entry.end > end ? end : entry.end;
    const ilock = cx.k.bug("vpte-inval-race") ? undefined : yield* vmMapInterlock(cx, map, from, to);
    yield* pmapRemove(cx, map.pmap, from as Gva, to as Gva);
    if (ilock !== undefined) vmMapDeinterlock(cx, map, ilock);
  }
}

/** WILLNEED, DONTNEED, FREE: nothing of the map changes, it is locked shared. */
function* adviseOnPages(cx: Cx, map: VmMap, start: bigint, end: bigint, behav: number): Exec<void> {
  let { found, entry } = vmMapLookupEntry(map, start);
  if (!found) entry = entry.next;
  for (; entry !== map.header && entry.start < end; entry = entry.next) {
    if (entry.maptype === VM_MAPTYPE_SUBMAP) continue;
    const from = entry.start < start ? start : entry.start;
    const to = entry.end > end ? end : entry.end;
    const pindex = offToIdx(entry.offset + Number(from - entry.start));
    const pages = atop(to - from);
    if (pages === 0) continue;
    if (entry.maptype === VM_MAPTYPE_VPAGETABLE) continue;
    // A NEEDS_COPY entry looks at an object that is others' too: what they have is not this mapping's to forget.
    yield* vmObjectMadvise(cx, entry.object, pindex, pages, behav);
    if (behav !== MADV_WILLNEED || entry.object === undefined) continue;
    const { object } = entry;
    if (object.type === OBJT_VNODE) yield* vmObjectHoldShared(cx, object);
    else yield* vmObjectHold(cx, object);
    yield* pmapObjectInitPt(
      cx,
      map.pmap,
      from as Gva,
      entry.protection,
      object,
      pindex,
      Number(to - from),
      MAP_PREFAULT_MADVISE,
    );
    vmObjectDrop(cx, object);
  }
}

/** Whether `[start, end)` is mapped without holes and allows `prot` everywhere (`vm_map_check_protection`). */
export function* vmMapCheckProtection(
  cx: Cx,
  map: VmMap,
  start: bigint,
  end: bigint,
  prot: VmProt,
): Exec<boolean> {
  yield* vmMapLockRead(cx, map);
  const ok = checkProtection(map, start, end, prot);
  yield* vmMapUnlockRead(cx, map);
  return ok;
}

function checkProtection(map: VmMap, start: bigint, end: bigint, prot: VmProt): boolean {
  let { found, entry } = vmMapLookupEntry(map, start);
  if (!found) return false;
  for (let at = start; at < end; entry = entry.next) {
    if (entry === map.header || at < entry.start || (entry.protection & prot) !== prot) return false;
    at = entry.end;
  }
  return true;
}
