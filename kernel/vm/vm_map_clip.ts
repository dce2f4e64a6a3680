/**
 * Cutting entries and joining them again (`vm_map_clip_start`, `vm_map_clip_end`, `vm_map_simplify_entry`, `vm_map_clip_range` of
 * `sys/vm/vm_map.c`).
 *
 * Room: `kernel/vm/`; imports maps and objects. Preconditions of all: the map is locked exclusively.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { PINTERLOCKED, tsleep, tsleepInterlock, wakeup } from "../lwkt/sleep.ts";
import {
  type VmMap,
  vmMapEntryCreate,
  vmMapEntryDispose,
  vmMapEntryLink,
  vmMapEntryUnlink,
  vmMapLock,
  vmMapLookupEntry,
  vmMapUnlock,
} from "./vm_map.ts";
import type { MapCount, VmMapEntry } from "./vm_map_entry.ts";
import { vmMapEntryAllocateObject } from "./vm_map_lookup.ts";
import { vmObjectReferenceQuick } from "./vm_object.ts";
import { vmObjectDeallocate } from "./vm_object_terminate.ts";
import {
  MAP_ENTRY_IN_TRANSITION,
  MAP_ENTRY_NEEDS_WAKEUP,
  MAP_ENTRY_STACK,
  VM_MAPTYPE_SUBMAP,
  VM_MAPTYPE_VPAGETABLE,
} from "./vm_param.ts";

/** Makes sure that no entry crosses `start`: `entry`, which contains it, begins there afterwards. */
export function vmMapClipStart(cx: Cx, map: VmMap, entry: VmMapEntry, start: bigint, count: MapCount): void {
  if (start <= entry.start) return;
  allocateBeforeCut(cx, map, entry);
  const lower = vmMapEntryCreate(cx, count);
  lower.assign(entry);
  lower.end = start as typeof lower.end;
  entry.offset += Number(start - entry.start);
  entry.start = start as typeof entry.start;
  vmMapEntryLink(map, entry.prev, lower);
  if (entry.object !== undefined) vmObjectReferenceQuick(cx, entry.object);
}

/** Makes sure that no entry crosses `end`: `entry`, which contains it, ends there afterwards. */
export function vmMapClipEnd(cx: Cx, map: VmMap, entry: VmMapEntry, end: bigint, count: MapCount): void {
  if (end >= entry.end) return;
  allocateBeforeCut(cx, map, entry);
  const upper = vmMapEntryCreate(cx, count);
  upper.assign(entry);
  upper.start = end as typeof upper.start;
  upper.offset += Number(end - entry.start);
  entry.end = end as typeof entry.end;
  // Only the lowest piece of a stack can grow.
  if (entry.eflags & MAP_ENTRY_STACK) upper.aux = 0n;
  vmMapEntryLink(map, entry, upper);
  if (entry.object !== undefined) vmObjectReferenceQuick(cx, entry.object);
}

/** Both halves must use one object, so it has to exist before the cut. Kernel mappings have theirs or need none. */
function allocateBeforeCut(cx: Cx, map: VmMap, entry: VmMapEntry): void {
  if (entry.object === undefined && !map.systemMap && entry.maptype !== VM_MAPTYPE_SUBMAP) {
    vmMapEntryAllocateObject(cx, entry);
  }
}

/**
 * Whether two neighbours say the same of adjacent parts of one object. `aux` is compared only where it is the root of a software page table; in
 * DragonFly it is not, and one of two roots is lost.
 */
function mergeable(lower: VmMapEntry, upper: VmMapEntry): boolean {
  return lower.end === upper.start && lower.maptype === upper.maptype && lower.object === upper.object &&
    (lower.object === undefined || lower.offset + Number(lower.end - lower.start) === upper.offset) &&
    lower.eflags === upper.eflags && lower.protection === upper.protection &&
    lower.maxProtection === upper.maxProtection && lower.inheritance === upper.inheritance &&
    lower.wiredCount === upper.wiredCount &&
    (lower.maptype !== VM_MAPTYPE_VPAGETABLE || lower.aux === upper.aux);
}

/** Joins an entry with its neighbours where they are of one kind (`vm_map_simplify_entry`). `entry` survives. */
export function* vmMapSimplifyEntry(cx: Cx, map: VmMap, entry: VmMapEntry, count: MapCount): Exec<void> {
  if ((entry.eflags & MAP_ENTRY_IN_TRANSITION) !== 0 || entry.maptype === VM_MAPTYPE_SUBMAP) return;
  const { prev } = entry;
  if (prev !== map.header && mergeable(prev, entry)) {
    forget(map, prev, entry);
    vmMapEntryUnlink(map, prev);
    entry.start = prev.start;
    entry.offset = prev.offset;
    // How far a stack may grow, its lowest piece knows.
    if (entry.eflags & MAP_ENTRY_STACK) entry.aux = prev.aux;
    vmMapEntryDispose(cx, count);
    if (prev.object !== undefined) yield* vmObjectDeallocate(cx, prev.object);
  }
  const { next } = entry;
  if (next !== map.header && mergeable(entry, next)) {
    forget(map, next, entry);
    vmMapEntryUnlink(map, next);
    entry.end = next.end;
    vmMapEntryDispose(cx, count);
    if (next.object !== undefined) yield* vmObjectDeallocate(cx, next.object);
  }
}

function forget(map: VmMap, gone: VmMapEntry, instead: VmMapEntry): void {
  if (map.hint === gone) map.hint = instead;
  if (map.firstFree === gone) map.firstFree = instead;
}

/** Sleeps until somebody's entry is out of transition; the map is unlocked meanwhile (`vm_map_transition_wait`). Look everything up again. */
export function* vmMapTransitionWait(cx: Cx, map: VmMap): Exec<void> {
  cx.k.vmmeter.vIntrans++;
  tsleepInterlock(cx, map, 0);
  yield* vmMapUnlock(cx, map);
  yield* tsleep(cx, map, PINTERLOCKED, "vment", 0);
  yield* vmMapLock(cx, map);
}

/**
 * Cuts out `[start, end)` and marks its entries IN_TRANSITION, so that they stay as they are while the map is unlocked
 * (`vm_map_clip_range`). Undefined if there is a hole; then nothing is marked.
 */
export function* vmMapClipRange(
  cx: Cx,
  map: VmMap,
  start: bigint,
  end: bigint,
  count: MapCount,
): Exec<VmMapEntry | undefined> {
  for (;;) {
    const { found, entry: first } = vmMapLookupEntry(map, start);
    if (!found || !coversRange(map, first, end)) return undefined;
    const busy = inTransition(map, first, end);
    if (busy !== undefined) {
      busy.eflags |= MAP_ENTRY_NEEDS_WAKEUP;
      yield* vmMapTransitionWait(cx, map);
      continue;
    }
    vmMapClipStart(cx, map, first, start, count);
    for (let entry = first; entry !== map.header && entry.start < end; entry = entry.next) {
      vmMapClipEnd(cx, map, entry, end, count);
      entry.eflags |= MAP_ENTRY_IN_TRANSITION;
    }
    return first;
  }
}

function coversRange(map: VmMap, first: VmMapEntry, end: bigint): boolean {
  let entry = first;
  while (entry.end < end) {
    if (entry.next === map.header || entry.next.start !== entry.end) return false;
    entry = entry.next;
  }
  return true;
}

function inTransition(map: VmMap, first: VmMapEntry, end: bigint): VmMapEntry | undefined {
  for (let entry = first; entry !== map.header && entry.start < end; entry = entry.next) {
    if (entry.eflags & MAP_ENTRY_IN_TRANSITION) return entry;
  }
  return undefined;
}

/** Ends {@link vmMapClipRange}: the entries are nobody's again, sleepers wake, neighbours join (`vm_map_unclip_range`). */
export function* vmMapUnclipRange(
  cx: Cx,
  map: VmMap,
  start: bigint,
  end: bigint,
  count: MapCount,
): Exec<void> {
  let entry = vmMapLookupEntry(map, start).entry;
  let wake = false;
  for (let at = entry; at !== map.header && at.start < end; at = at.next) {
    if (at.end <= start) continue;
    wake ||= (at.eflags & MAP_ENTRY_NEEDS_WAKEUP) !== 0;
    at.eflags &= ~(MAP_ENTRY_IN_TRANSITION | MAP_ENTRY_NEEDS_WAKEUP);
  }
  if (wake) wakeup(cx, map);
  while (entry !== map.header && entry.start < end) {
    yield* vmMapSimplifyEntry(cx, map, entry, count);
    entry = entry.next;
  }
}
