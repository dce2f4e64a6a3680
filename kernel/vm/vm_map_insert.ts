/**
 * New mappings: finding room and taking it (`vm_map_insert`, `vm_map_findspace`, `vm_map_find`, `vm_map_fixed` of `sys/vm/vm_map.c`).
 *
 * Room: `kernel/vm/`; imports maps and objects. Stacks stand in `vm_map_stack.ts`.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { pmapObjectInitPt } from "../pmap/pmap_extract.ts";
import {
  type VmMap,
  vmMapEntryCreate,
  vmMapEntryLink,
  vmMapLock,
  vmMapLookupEntry,
  vmMapUnlock,
} from "./vm_map.ts";
import {
  MAP_RESERVE_COUNT,
  type MapCount,
  type VmMapEntry,
  vmMapEntryRelease,
  vmMapEntryReserve,
} from "./vm_map_entry.ts";
import { vmMapSimplifyEntry } from "./vm_map_clip.ts";
import {
  OBJ_ONEMAPPING,
  type VmObject,
  vmObjectClearFlag,
  vmObjectDrop,
  vmObjectHold,
  vmObjectReferenceQuick,
} from "./vm_object.ts";
import { vmObjectCoalesce } from "./vm_object_grow.ts";
import { vmMapDelete } from "./vm_map_remove.ts";
import {
  atop,
  KERN_INVALID_ADDRESS,
  KERN_NO_SPACE,
  KERN_SUCCESS,
  MAP_COPY_ON_WRITE,
  MAP_DISABLE_COREDUMP,
  MAP_DISABLE_SYNCER,
  MAP_ENTRY_COW,
  MAP_ENTRY_KSTACK,
  MAP_ENTRY_NEEDS_COPY,
  MAP_ENTRY_NOCOREDUMP,
  MAP_ENTRY_NOFAULT,
  MAP_ENTRY_NOSYNC,
  MAP_ENTRY_STACK,
  MAP_IS_KSTACK,
  MAP_IS_STACK,
  MAP_NOFAULT,
  MAP_PREFAULT,
  MAP_PREFAULT_MADVISE,
  MAP_PREFAULT_PARTIAL,
  MAP_STACK,
  offToIdx,
  PAGE_SIZE,
  VM_INHERIT_DEFAULT,
  VM_MAPTYPE_NORMAL,
  VM_MAPTYPE_VPAGETABLE,
  type VmProt,
} from "./vm_param.ts";

/** What a new mapping shall be; what is left out has DragonFly's usual value. */
export interface MapInsert {
  /** Its object, whose reference the mapping takes over; undefined: anonymous memory. */
  readonly object?: VmObject | undefined;
  /** Offset into the object, bytes, page aligned. */
  readonly offset?: number;
  /** First address. */
  readonly start: bigint;
  /** First address behind it. */
  readonly end: bigint;
  /** VM_MAPTYPE_*. */
  readonly maptype?: number;
  /** Rights. */
  readonly prot: VmProt;
  /** What the rights may become. */
  readonly max: VmProt;
  /** MAP_COPY_ON_WRITE, MAP_NOFAULT, … */
  readonly cow?: number;
  /** VM_INHERIT_*, what a child gets. */
  readonly inheritance?: number;
}

/** `protoeflags`: entry flags by the `cow` argument. */
const EFLAGS_OF_COW: readonly (readonly [cow: number, eflags: number])[] = [
  [MAP_COPY_ON_WRITE, MAP_ENTRY_COW | MAP_ENTRY_NEEDS_COPY],
  [MAP_NOFAULT, MAP_ENTRY_NOFAULT],
  [MAP_DISABLE_SYNCER, MAP_ENTRY_NOSYNC],
  [MAP_DISABLE_COREDUMP, MAP_ENTRY_NOCOREDUMP],
  [MAP_IS_STACK, MAP_ENTRY_STACK],
  [MAP_IS_KSTACK, MAP_ENTRY_KSTACK],
];

/**
 * Enters a mapping at its address (`vm_map_insert`). On success it has taken over the caller's reference to the object.
 *
 * Preconditions: the map is locked exclusively; addresses are page aligned.
 *
 * @returns KERN_SUCCESS, KERN_INVALID_ADDRESS (outside the map), KERN_NO_SPACE (something is there).
 */
export function* vmMapInsert(cx: Cx, map: VmMap, count: MapCount, what: MapInsert): Exec<number> {
  const { start, end, prot, max, cow = 0, maptype = VM_MAPTYPE_NORMAL, inheritance = VM_INHERIT_DEFAULT } =
    what;
  if (start < map.min || end > map.max || start >= end) return KERN_INVALID_ADDRESS;
  const { found, entry: prev } = vmMapLookupEntry(map, start);
  if (found) return KERN_NO_SPACE;
  if (prev.next !== map.header && prev.next.start < end) return KERN_NO_SPACE;
  let eflags = 0;
  for (const [bit, flags] of EFLAGS_OF_COW) if (cow & bit) eflags |= flags;

  let { object, offset = 0 } = what;
  if (object !== undefined) {
    yield* vmObjectHold(cx, object);
    if (object.refCount > 1 || object.shadowCount !== 0) vmObjectClearFlag(object, OBJ_ONEMAPPING);
    vmObjectDrop(cx, object);
  } else if (yield* extend(cx, map, prev, start, end, eflags, maptype)) {
    // prev's object covers the new range too; perhaps its entry can.
    if (prev.inheritance === inheritance && prev.protection === prot && prev.maxProtection === max) {
      map.size += end - prev.end;
      prev.end = end as Gva;
      yield* vmMapSimplifyEntry(cx, map, prev, count);
      return KERN_SUCCESS;
    }
    object = prev.object;
    offset = object === undefined ? 0 : prev.offset + Number(prev.end - prev.start);
    if (object !== undefined) vmObjectReferenceQuick(cx, object);
  }

  const entry = vmMapEntryCreate(cx, count);
  entry.start = start as Gva;
  entry.end = end as Gva;
  entry.object = object;
  entry.offset = offset;
  entry.eflags = eflags;
  entry.maptype = maptype;
  entry.protection = prot;
  entry.maxProtection = max;
  entry.inheritance = inheritance;
  vmMapEntryLink(map, prev, entry);
  map.size += end - start;
  // first_free moves up only over memory without a gap.
  if (map.firstFree === prev && entry.start === (prev === map.header ? map.min : prev.end)) {
    map.firstFree = entry;
  }

  if (
    (cow & (MAP_PREFAULT | MAP_PREFAULT_PARTIAL)) !== 0 && maptype !== VM_MAPTYPE_VPAGETABLE &&
    object !== undefined
  ) {
    const limit = (cow & MAP_PREFAULT_PARTIAL) !== 0 ? MAP_PREFAULT_PARTIAL : MAP_PREFAULT_MADVISE;
    yield* pmapObjectInitPt(
      cx,
      map.pmap,
      entry.start,
      prot,
      object,
      offToIdx(offset),
      Number(end - start),
      limit,
    );
  }
  return KERN_SUCCESS;
}

/** Whether anonymous memory that ends at `start` could be made to reach `end`: its object covers it afterwards. */
function* extend(
  cx: Cx,
  map: VmMap,
  prev: VmMapEntry,
  start: bigint,
  end: bigint,
  eflags: number,
  maptype: number,
): Exec<boolean> {
  if (prev === map.header || prev.eflags !== eflags || prev.end !== start) return false;
  if (prev.wiredCount !== 0 || prev.maptype !== maptype || prev.subMap !== undefined) return false;
  // A new mapping has no software page table yet.
  if (maptype === VM_MAPTYPE_VPAGETABLE) return false;
  // A stack has a size of its own, and kernel memory without an object is never faulted in.
  if ((eflags & (MAP_ENTRY_STACK | MAP_ENTRY_KSTACK)) !== 0 || (map.systemMap && prev.object === undefined)) {
    return false;
  }
  return yield* vmObjectCoalesce(
    cx,
    prev.object,
    offToIdx(prev.offset),
    atop(prev.end - prev.start),
    atop(end - start),
  );
}

/**
 * An address at or above `start` where `length` bytes are free (`vm_map_findspace`); undefined if there is none. What a stack may still grow
 * into counts as taken.
 *
 * Preconditions: the map is locked.
 *
 * @param align Power of two, at least a page.
 * @param flags MAP_STACK: a stack may go where others could grow.
 */
export function vmMapFindspace(
  map: VmMap,
  start: bigint,
  length: bigint,
  align = BigInt(PAGE_SIZE),
  flags = 0,
): Gva | undefined {
  if (length <= 0n || length > map.max - map.min) return undefined;
  const mask = align - 1n;
  let at: bigint = start < map.min ? map.min : start;
  // Below first_free there are no gaps.
  let entry: VmMapEntry;
  if (at === map.min && map.firstFree !== map.header) {
    entry = map.firstFree;
    if (entry.end > at) at = entry.end;
  } else {
    const below = vmMapLookupEntry(map, at);
    entry = below.entry;
    if (below.found) at = entry.end;
  }
  for (;; entry = entry.next) {
    if (entry !== map.header && entry.end > at) at = entry.end;
    at = (at + mask) & ~mask;
    const end = at + length;
    if (end > map.max) return undefined;
    const { next } = entry;
    if (next === map.header) return at as Gva;
    if (next.start < end) continue;
    if ((next.eflags & MAP_ENTRY_STACK) === 0 || (flags & MAP_STACK) !== 0 || next.start - next.aux >= end) {
      return at as Gva;
    }
  }
}

/** What {@link vmMapFind} shall map, and where. */
export interface MapFind extends Omit<MapInsert, "start" | "end"> {
  /** Address wanted, or where the search begins. */
  readonly addr: bigint;
  /** Bytes. */
  readonly length: bigint;
  /** Alignment of the address, bytes. */
  readonly align?: bigint;
  /** Look for room from `addr` on; else exactly there. */
  readonly fitit: boolean;
  /** What is there goes first (MAP_FIXED), in one locking: no other thread can map in between. */
  readonly replace?: boolean;
}

/** An address, or why there is none. */
export type MapAt = { readonly rv: typeof KERN_SUCCESS; readonly addr: Gva } | {
  readonly rv: number;
  readonly addr: undefined;
};

/** Locks the map, finds room and maps (`vm_map_find`). */
export function* vmMapFind(cx: Cx, map: VmMap, what: MapFind): Exec<MapAt> {
  const { addr, length, align, fitit, replace } = what;
  const count = vmMapEntryReserve(MAP_RESERVE_COUNT);
  yield* vmMapLock(cx, map);
  if (replace && addr >= map.min && addr + length <= map.max) {
    yield* vmMapDelete(cx, map, addr, addr + length, count);
  }
  const start = fitit ? vmMapFindspace(map, addr, length, align) : (addr as Gva);
  const rv = start === undefined
    ? KERN_NO_SPACE
    : yield* vmMapInsert(cx, map, count, { ...what, start, end: start + length });
  yield* vmMapUnlock(cx, map);
  vmMapEntryRelease(count);
  return rv === KERN_SUCCESS ? { rv, addr: start! } : { rv, addr: undefined };
}
