/**
 * Taking mappings away, and writing what they changed to files (`vm_map_delete`, `vm_map_remove`, `vm_map_clean` of `sys/vm/vm_map.c`).
 *
 * Room: `kernel/vm/`; imports maps, objects, pmap.
 *
 * The order of a removal matters:
 *
 * 1. unwire: it looks the pages up through the entry;
 * 2. pmap_remove: the last modified bits become `dirty` on the pages;
 * 3. drop the object: pages may be freed and reused from here on, so no translation may be left.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { pmapRemove } from "../pmap/pmap_remove.ts";
import {
  type VmMap,
  vmMapEntryDispose,
  vmMapEntryUnlink,
  vmMapLock,
  vmMapLockRead,
  vmMapLookupEntry,
  vmMapUnlock,
  vmMapUnlockRead,
} from "./vm_map.ts";
import { vmMapClipEnd, vmMapClipStart, vmMapTransitionWait } from "./vm_map_clip.ts";
import {
  MAP_RESERVE_COUNT,
  type MapCount,
  type VmMapEntry,
  vmMapEntryRelease,
  vmMapEntryReserve,
} from "./vm_map_entry.ts";
import { vmMapRangeCheck } from "./vm_map_protect.ts";
import { vmMapEntryUnwire } from "./vm_map_wire.ts";
import {
  OBJ_NOMSYNC,
  OBJ_NOSPLIT,
  OBJ_ONEMAPPING,
  OBJT_DEVICE,
  OBJT_VNODE,
  type VmObject,
  vmObjectChainAcquire,
  vmObjectChainRelease,
  vmObjectDrop,
  vmObjectHold,
  vmObjectIsAnonymous,
  vmObjectReferenceQuick,
} from "./vm_object.ts";
import { vmObjectCollapse } from "./vm_object_collapse.ts";
import { OBJPC_INVAL, OBJPC_SYNC, vmObjectPageClean, vmObjectPageRemove } from "./vm_object_pages.ts";
import { vmObjectDeallocate, vmObjectDeallocateList } from "./vm_object_terminate.ts";
import {
  KERN_INVALID_ADDRESS,
  KERN_INVALID_ARGUMENT,
  KERN_SUCCESS,
  MAP_ENTRY_IN_TRANSITION,
  MAP_ENTRY_NEEDS_WAKEUP,
  offToIdx,
  PAGE_SIZE,
  VM_MAPTYPE_NORMAL,
  VM_MAPTYPE_SUBMAP,
  VM_MAPTYPE_VPAGETABLE,
  VM_PROT_WRITE,
} from "./vm_param.ts";

/** Removes everything in `[start, end)` (`vm_map_remove`). */
export function* vmMapRemove(cx: Cx, map: VmMap, from: bigint, to: bigint): Exec<number> {
  const { start, end } = vmMapRangeCheck(map, from, to);
  const count = vmMapEntryReserve(MAP_RESERVE_COUNT);
  yield* vmMapLock(cx, map);
  const rv = yield* vmMapDelete(cx, map, start, end, count);
  yield* vmMapUnlock(cx, map);
  vmMapEntryRelease(count);
  return rv;
}

/**
 * Removes everything in `[start, end)` (`vm_map_delete`).
 *
 * Preconditions: the map is locked exclusively. It is let go while somebody has one of the entries in transition.
 */
export function* vmMapDelete(cx: Cx, map: VmMap, from: bigint, end: bigint, count: MapCount): Exec<number> {
  let start = from;
  again: for (;;) {
    const at = vmMapLookupEntry(map, start);
    let entry: VmMapEntry;
    if (at.found) {
      entry = at.entry;
      if (entry.eflags & MAP_ENTRY_IN_TRANSITION) {
        entry.eflags |= MAP_ENTRY_NEEDS_WAKEUP;
        yield* vmMapTransitionWait(cx, map);
        continue;
      }
      vmMapClipStart(cx, map, entry, start, count);
      map.hint = entry.prev;
    } else {
      map.hint = at.entry;
      entry = at.entry.next;
    }
    // A gap opens at start: it may be the first.
    if (map.firstFree !== map.header && map.firstFree.start >= start) map.firstFree = entry.prev;
    while (entry !== map.header && entry.start < end) {
      if (entry.eflags & MAP_ENTRY_IN_TRANSITION) {
        entry.eflags |= MAP_ENTRY_NEEDS_WAKEUP;
        start = entry.start;
        yield* vmMapTransitionWait(cx, map);
        continue again;
      }
      vmMapClipEnd(cx, map, entry, end, count);
      const next: VmMapEntry = entry.next;
      yield* deleteEntry(cx, map, entry, count);
      entry = next;
    }
    return KERN_SUCCESS;
  }
}

/** One entry of {@link vmMapDelete} (with `vm_map_entry_delete`). */
function* deleteEntry(cx: Cx, map: VmMap, entry: VmMapEntry, count: MapCount): Exec<void> {
  const { start, end, object } = entry;
  if (entry.wiredCount !== 0) yield* vmMapEntryUnwire(cx, map, entry);
  yield* pmapRemove(cx, map.pmap, start, end);
  // Which pages a software page table shows cannot be told from addresses.
  if (object !== undefined && entry.maptype === VM_MAPTYPE_NORMAL) {
    yield* removePages(cx, object, offToIdx(entry.offset), Number((end - start) / BigInt(PAGE_SIZE)));
  }
  if (map.firstFree === entry) map.firstFree = entry.prev;
  if (map.hint === entry) map.hint = entry.prev;
  vmMapEntryUnlink(map, entry);
  map.size -= end - start;
  vmMapEntryDispose(cx, count);
  if (object !== undefined && entry.maptype !== VM_MAPTYPE_SUBMAP) yield* vmObjectDeallocate(cx, object);
}

/** Frees the pages behind an entry that goes, where the object stays for other entries and none of these can see them. */
function* removePages(cx: Cx, object: VmObject, first: number, pages: number): Exec<void> {
  if (object === cx.k.kernelObject) {
    yield* vmObjectHold(cx, object);
    yield* vmObjectPageRemove(cx, object, first, first + pages, false);
    vmObjectDrop(cx, object);
    return;
  }
  if (!vmObjectIsAnonymous(object) || object.refCount === 1) return;
  const dlist: VmObject[] = [];
  yield* vmObjectHold(cx, object);
  yield* vmObjectChainAcquire(cx, object, false);
  const mine = object.refCount !== 1 && vmObjectIsAnonymous(object) &&
    (object.flags & (OBJ_NOSPLIT | OBJ_ONEMAPPING)) === OBJ_ONEMAPPING;
  if (mine) {
    yield* vmObjectCollapse(cx, object, dlist);
    yield* vmObjectPageRemove(cx, object, first, first + pages, false);
    // Nobody maps what is behind the new end, so the object may grow there again.
    if (first + pages >= object.size && first < object.size) object.size = first;
  }
  vmObjectChainRelease(cx, object);
  vmObjectDrop(cx, object);
  yield* vmObjectDeallocateList(cx, dlist);
}

/**
 * Writes what mappings of files in `[start, end)` changed (`vm_map_clean`, msync).
 *
 * @param syncio Wait for the writes.
 * @param invalidate Forget cached pages afterwards.
 * @returns KERN_SUCCESS; KERN_INVALID_ADDRESS when there is a hole; KERN_INVALID_ARGUMENT for a submap.
 */
export function* vmMapClean(
  cx: Cx,
  map: VmMap,
  from: bigint,
  to: bigint,
  syncio: boolean,
  invalidate: boolean,
): Exec<number> {
  const { start, end } = vmMapRangeCheck(map, from, to);
  const targets: { object: VmObject; first: number; last: number; write: boolean }[] = [];
  yield* vmMapLockRead(cx, map);
  const rv = cleanTargets(cx, map, start, end, targets);
  yield* vmMapUnlockRead(cx, map);
  // The references keep the objects; the map may change meanwhile.
  for (const { object, first, last, write } of targets) {
    if (rv === KERN_SUCCESS) yield* cleanObject(cx, object, first, last, write, syncio, invalidate);
    yield* vmObjectDeallocate(cx, object);
  }
  return rv;
}

/** Finds the files behind a range, through shadows; each with a reference. */
function cleanTargets(
  cx: Cx,
  map: VmMap,
  start: bigint,
  end: bigint,
  targets: { object: VmObject; first: number; last: number; write: boolean }[],
): number {
  let { found, entry } = vmMapLookupEntry(map, start);
  if (!found) return start < end ? KERN_INVALID_ADDRESS : KERN_SUCCESS;
  const first = entry;
  for (; entry.end < end; entry = entry.next) {
    if (entry.maptype === VM_MAPTYPE_SUBMAP) return KERN_INVALID_ARGUMENT;
    if (entry.next === map.header || entry.next.start !== entry.end) return KERN_INVALID_ADDRESS;
  }
  if (entry.maptype === VM_MAPTYPE_SUBMAP) return KERN_INVALID_ARGUMENT;
  for (entry = first; entry !== map.header && entry.start < end; entry = entry.next) {
    let object = entry.object;
    if (object === undefined) continue;
    const from = entry.start < start ? start : entry.start;
    const to = entry.end > end ? end : entry.end;
    let offset = entry.offset + Number(from - entry.start);
    while (object.backingObject !== undefined) {
      offset += object.backingObjectOffset;
      object = object.backingObject;
    }
    if (object.type !== OBJT_VNODE && object.type !== OBJT_DEVICE) continue;
    vmObjectReferenceQuick(cx, object);
    const whole = entry.maptype === VM_MAPTYPE_VPAGETABLE;
    targets.push({
      object,
      first: whole ? 0 : offToIdx(offset),
      last: whole ? object.size : offToIdx(offset) + Number((to - from) / BigInt(PAGE_SIZE)),
      write: (entry.protection & VM_PROT_WRITE) !== 0 && (object.flags & OBJ_NOMSYNC) === 0,
    });
  }
  return KERN_SUCCESS;
}

function* cleanObject(
  cx: Cx,
  object: VmObject,
  first: number,
  last: number,
  write: boolean,
  syncio: boolean,
  invalidate: boolean,
): Exec<void> {
  yield* vmObjectHold(cx, object);
  if (object.type === OBJT_VNODE && write) {
    const flags = (syncio || invalidate ? OBJPC_SYNC : 0) | (invalidate ? OBJPC_INVAL : 0);
    yield* vmObjectPageClean(cx, object, first, last, flags);
  }
  if (invalidate) yield* vmObjectPageRemove(cx, object, first, last, object.type !== OBJT_DEVICE);
  vmObjectDrop(cx, object);
}
