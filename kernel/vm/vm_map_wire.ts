/**
 * Wiring parts of a map (`vm_map_unwire`, which is mlock and munlock; `vm_map_wire`, which is the kernel's; `sys/vm/vm_map.c`).
 *
 * Room: `kernel/vm/`; imports maps and faults.
 *
 * `wiredCount` of an entry counts mlock once (USER_WIRED) and each wiring by the kernel; its pages are wired once while it is not 0.
 * Pages are brought in with the map unlocked; meanwhile the entries are in transition, and everybody who would change them waits.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { vmFaultUnwire, vmFaultWire } from "./vm_fault_wire.ts";
import { MAP_WIREFUTURE, type VmMap, vmMapLock, vmMapLookupEntry, vmMapUnlock } from "./vm_map.ts";
import { vmMapClipRange, vmMapUnclipRange } from "./vm_map_clip.ts";
import { MAP_RESERVE_COUNT, type VmMapEntry, vmMapEntryRelease, vmMapEntryReserve } from "./vm_map_entry.ts";
import { vmMapEntryAllocateObject, vmMapEntryShadow } from "./vm_map_lookup.ts";
import {
  KERN_INVALID_ADDRESS,
  KERN_INVALID_ARGUMENT,
  KERN_SUCCESS,
  MAP_ENTRY_NEEDS_COPY,
  MAP_ENTRY_USER_WIRED,
  PAGE_SIZE,
  VM_MAPTYPE_VPAGETABLE,
  VM_PROT_WRITE,
} from "./vm_param.ts";

/**
 * mlock and munlock (`vm_map_unwire`).
 *
 * @param newPageable True: munlock.
 * @returns KERN_SUCCESS; KERN_INVALID_ADDRESS when there is a hole; or why a page could not be had, and then what this call wired is unwired.
 */
export function* vmMapUnwire(
  cx: Cx,
  map: VmMap,
  start: bigint,
  end: bigint,
  newPageable: boolean,
): Exec<number> {
  const count = vmMapEntryReserve(MAP_RESERVE_COUNT);
  yield* vmMapLock(cx, map);
  let rv = KERN_INVALID_ADDRESS;
  if ((yield* vmMapClipRange(cx, map, start, end, count)) !== undefined) {
    if (newPageable) {
      yield* userUnwire(cx, map, start, end);
      rv = KERN_SUCCESS;
    } else {
      const wired: VmMapEntry[] = [];
      rv = yield* userWire(cx, map, start, end, wired);
      if (rv !== KERN_SUCCESS) { for (const entry of wired) yield* userUnwireEntry(cx, map, entry); }
    }
    yield* vmMapUnclipRange(cx, map, start, end, count);
  }
  yield* vmMapUnlock(cx, map);
  vmMapEntryRelease(count);
  return rv;
}

/** The entries of `[start, end)`, all in transition, so that they stay while the map is unlocked. */
function* entriesOf(map: VmMap, start: bigint, end: bigint): Generator<VmMapEntry, void, void> {
  let { entry } = vmMapLookupEntry(map, start);
  for (; entry !== map.header && entry.start < end; entry = entry.next) yield entry;
}

function* userWire(cx: Cx, map: VmMap, start: bigint, end: bigint, wired: VmMapEntry[]): Exec<number> {
  for (const entry of entriesOf(map, start, end)) {
    // What a software page table shows may change at any moment, and be another page when it is unwired.
    if (entry.maptype === VM_MAPTYPE_VPAGETABLE) return KERN_INVALID_ARGUMENT;
    if (entry.eflags & MAP_ENTRY_USER_WIRED) continue;
    if (entry.wiredCount === 0) yield* prepare(cx, entry);
    entry.eflags |= MAP_ENTRY_USER_WIRED;
    if (entry.wiredCount++ === 0) {
      const rv = yield* vmFaultWire(cx, map, entry, true);
      if (rv !== KERN_SUCCESS) {
        entry.wiredCount--;
        entry.eflags &= ~MAP_ENTRY_USER_WIRED;
        return rv;
      }
    }
    wired.push(entry);
  }
  return KERN_SUCCESS;
}

/** The object that the pages will be in must exist before they are wired. */
function* prepare(cx: Cx, entry: VmMapEntry): Exec<void> {
  if ((entry.eflags & MAP_ENTRY_NEEDS_COPY) !== 0 && (entry.protection & VM_PROT_WRITE) !== 0) {
    yield* vmMapEntryShadow(cx, entry, false);
  } else if (entry.object === undefined) vmMapEntryAllocateObject(cx, entry);
}

function* userUnwire(cx: Cx, map: VmMap, start: bigint, end: bigint): Exec<void> {
  for (const entry of entriesOf(map, start, end)) yield* userUnwireEntry(cx, map, entry);
}

function* userUnwireEntry(cx: Cx, map: VmMap, entry: VmMapEntry): Exec<void> {
  if ((entry.eflags & MAP_ENTRY_USER_WIRED) === 0) return;
  entry.eflags &= ~MAP_ENTRY_USER_WIRED;
  if (--entry.wiredCount === 0) yield* vmFaultUnwire(cx, map, entry);
}

/**
 * Wires for the kernel, or undoes it (`vm_map_wire`).
 *
 * @param unwire Undo.
 */
export function* vmMapWire(cx: Cx, map: VmMap, start: bigint, end: bigint, unwire = false): Exec<number> {
  const count = vmMapEntryReserve(MAP_RESERVE_COUNT);
  yield* vmMapLock(cx, map);
  let rv = KERN_INVALID_ADDRESS;
  if ((yield* vmMapClipRange(cx, map, start, end, count)) !== undefined) {
    rv = KERN_SUCCESS;
    const wired: VmMapEntry[] = [];
    for (const entry of entriesOf(map, start, end)) {
      if (unwire) {
        if (--entry.wiredCount === 0) yield* vmFaultUnwire(cx, map, entry);
        continue;
      }
      if (entry.wiredCount === 0) yield* prepare(cx, entry);
      if (entry.wiredCount++ === 0) rv = yield* vmFaultWire(cx, map, entry, false);
      if (rv !== KERN_SUCCESS) {
        entry.wiredCount--;
        break;
      }
      wired.push(entry);
    }
    if (rv !== KERN_SUCCESS) {
      for (const entry of wired) if (--entry.wiredCount === 0) yield* vmFaultUnwire(cx, map, entry);
    }
    yield* vmMapUnclipRange(cx, map, start, end, count);
  }
  yield* vmMapUnlock(cx, map);
  vmMapEntryRelease(count);
  return rv;
}

/** Makes an entry pageable that is about to go (`vm_map_entry_unwire`). The map is locked exclusively. */
export function* vmMapEntryUnwire(cx: Cx, map: VmMap, entry: VmMapEntry): Exec<void> {
  yield* vmFaultUnwire(cx, map, entry);
  entry.wiredCount = 0;
  entry.eflags &= ~MAP_ENTRY_USER_WIRED;
}

/**
 * Wires the pages of an entry anew, after its protection has gained rights: pages that were wired for reading are not those that a private
 * mapping writes to.
 *
 * Preconditions: the map is locked exclusively, `entry` is wired and cut to the range of the change. The lock is let go meanwhile, with the
 * entry in transition.
 *
 * @returns KERN_SUCCESS, or why a page could not be had; then the entry is not wired any more.
 */
export function* vmMapRewire(cx: Cx, map: VmMap, entry: VmMapEntry): Exec<number> {
  const { wiredCount } = entry;
  yield* vmFaultUnwire(cx, map, entry);
  entry.wiredCount = 0;
  yield* prepare(cx, entry);
  entry.wiredCount = wiredCount;
  const rv = yield* vmFaultWire(cx, map, entry, true);
  if (rv !== KERN_SUCCESS) {
    entry.wiredCount = 0;
    entry.eflags &= ~MAP_ENTRY_USER_WIRED;
  }
  return rv;
}

/**
 * Whether a map may grow: after mlockall(MCL_FUTURE) everything new is wired at once, and the limit of mlock holds for it too. (DragonFly checks
 * none: a program could wire all memory, and nobody could be killed for it, since swap would not be full.)
 */
export function mayWireFuture(cx: Cx, map: VmMap, bytes: bigint): boolean {
  if ((map.flags & MAP_WIREFUTURE) === 0) return true;
  const pages = Number(bytes / BigInt(PAGE_SIZE));
  return pages + cx.k.vmmeter.vWireCount <= cx.k.vmPages.vmPageMaxWired;
}
