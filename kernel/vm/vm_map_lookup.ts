/**
 * From an address to the object behind it (`vm_map_lookup`, `vm_map_entry_shadow`, `vm_map_entry_allocate_object` of `sys/vm/vm_map.c`).
 *
 * Room: `kernel/vm/`; imports maps and objects.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { PMAP_EMULATE_AD_BITS } from "../pmap/pmap_bits.ts";
import {
  type VmMap,
  vmMapLock,
  vmMapLockDowngrade,
  vmMapLockRead,
  vmMapLockUpgrade,
  vmMapLookupEntry,
  vmMapUnlock,
  vmMapUnlockRead,
} from "./vm_map.ts";
import type { VmMapEntry } from "./vm_map_entry.ts";
import { OBJT_DEFAULT, type VmObject, vmObjectAllocate } from "./vm_object.ts";
import { vmObjectShadow } from "./vm_object_grow.ts";
import {
  atop,
  KERN_INVALID_ADDRESS,
  KERN_PROTECTION_FAILURE,
  MAP_ENTRY_NEEDS_COPY,
  PAGE_SIZE,
  VM_MAPTYPE_SUBMAP,
  VM_MAPTYPE_VPAGETABLE,
  VM_PROT_ALL,
  VM_PROT_NONE,
  VM_PROT_OVERRIDE_WRITE,
  VM_PROT_WRITE,
  type VmProt,
} from "./vm_param.ts";

/** Pages of the object of a software page table: its entries may name any page (`0x7FFFFFFF`). */
export const VPAGETABLE_OBJECT_PAGES = 0x7fff_ffff;

/** Pages that an object for this entry must have. */
function objectPages(entry: VmMapEntry): number {
  return entry.maptype === VM_MAPTYPE_VPAGETABLE ? VPAGETABLE_OBJECT_PAGES : atop(entry.end - entry.start);
}

/** Gives a private mapping the object that it writes to (`vm_map_entry_shadow`). The map is locked exclusively. */
export function* vmMapEntryShadow(cx: Cx, entry: VmMapEntry, addref: boolean): Exec<void> {
  const { object, offset } = yield* vmObjectShadow(
    cx,
    entry.object,
    entry.offset,
    objectPages(entry),
    addref,
  );
  entry.object = object;
  entry.offset = offset;
  entry.eflags &= ~MAP_ENTRY_NEEDS_COPY;
}

/** Gives anonymous memory its object (`vm_map_entry_allocate_object`). The map is locked exclusively. */
export function vmMapEntryAllocateObject(cx: Cx, entry: VmMapEntry): void {
  entry.object = vmObjectAllocate(cx, OBJT_DEFAULT, objectPages(entry));
  entry.offset = 0;
}

/** What {@link vmMapLookup} found; the map it names is locked shared. */
export interface MapLookup {
  /** The map that has the entry: the one asked, or a submap. */
  readonly map: VmMap;
  /** The entry. */
  readonly entry: VmMapEntry;
  /** Its object; undefined only in the kernel's maps. */
  readonly object: VmObject | undefined;
  /** Page in the object. */
  readonly pindex: number;
  /** Rights that a mapping may have. */
  readonly prot: VmProt;
  /** The entry is wired: the fault must be good for all accesses. */
  readonly wired: boolean;
}

/**
 * Finds what is mapped at an address and makes it ready for an access (`vm_map_lookup`): the shadow of a private mapping exists before a
 * write.
 *
 * @param faultType Rights needed, with VM_PROT_OVERRIDE_WRITE perhaps.
 * @returns The mapping, with its map locked shared ({@link vmMapLookupDone}); or KERN_INVALID_ADDRESS or KERN_PROTECTION_FAILURE, with no
 *   lock.
 */
export function* vmMapLookup(cx: Cx, start: VmMap, va: Gva, faultType: VmProt): Exec<MapLookup | number> {
  let map = start;
  let useread = true;
  for (;;) {
    if (useread) yield* vmMapLockRead(cx, map);
    else yield* vmMapLock(cx, map);
    const { found, entry } = vmMapLookupEntry(map, va);
    if (!found) {
      yield* unlock(cx, map);
      return KERN_INVALID_ADDRESS;
    }
    if (entry.maptype === VM_MAPTYPE_SUBMAP && entry.subMap !== undefined) {
      yield* unlock(cx, map);
      map = entry.subMap;
      useread = true;
      continue;
    }
    let prot = (faultType & VM_PROT_OVERRIDE_WRITE) !== 0 ? entry.maxProtection : entry.protection;
    let need = faultType & VM_PROT_ALL;
    if ((need & prot) !== need) {
      yield* unlock(cx, map);
      return KERN_PROTECTION_FAILURE;
    }
    const wired = entry.wiredCount !== 0;
    if (wired) prot = need = entry.protection;
    // Walks write to the tables, whatever the program may do: they must never be somebody else's that are still to be copied.
    if (entry.maptype === VM_MAPTYPE_VPAGETABLE) need |= VM_PROT_WRITE;
    // As in DragonFly (section 9.4, step 6): the test is of the running thread's pmap, and looks inverted.
    if (emulatesAdBits(cx) && (prot & VM_PROT_WRITE) === VM_PROT_NONE) need |= VM_PROT_WRITE;
    const shadow = (entry.eflags & MAP_ENTRY_NEEDS_COPY) !== 0 && (need & VM_PROT_WRITE) !== 0;
    const allocate = entry.object === undefined && !map.systemMap;
    if ((shadow || allocate) && useread) {
      if (!(yield* vmMapLockUpgrade(cx, map))) {
        useread = false;
        continue;
      }
      useread = false;
    }
    if (shadow) yield* vmMapEntryShadow(cx, entry, false);
    else if (entry.eflags & MAP_ENTRY_NEEDS_COPY) prot &= ~VM_PROT_WRITE;
    if (entry.object === undefined && !map.systemMap) vmMapEntryAllocateObject(cx, entry);
    const pindex = Math.floor((Number(va - entry.start) + entry.offset) / PAGE_SIZE);
    const { object } = entry;
    if (!useread) yield* vmMapLockDowngrade(cx, map);
    return { map, entry, object, pindex, prot, wired };
  }
}

function emulatesAdBits(cx: Cx): boolean {
  const vm = cx.lwp?.lwpVmspace;
  return vm !== undefined && (vm.vmPmap.pmFlags & PMAP_EMULATE_AD_BITS) !== 0;
}

function* unlock(cx: Cx, map: VmMap): Exec<void> {
  yield* vmMapUnlock(cx, map);
}

/** Unlocks what {@link vmMapLookup} locked (`vm_map_lookup_done`). */
export function* vmMapLookupDone(cx: Cx, map: VmMap): Exec<void> {
  yield* vmMapUnlockRead(cx, map);
}
