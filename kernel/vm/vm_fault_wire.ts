/**
 * Pages that must stay: wiring and unwiring a mapping's pages, and copying them at fork (`vm_fault_wire`, `vm_fault_unwire`,
 * `vm_fault_copy_entry` of `sys/vm/vm_fault.c`).
 *
 * Room: `kernel/vm/`; imports faults, objects, pages.
 *
 * DragonFly finds the pages to unwire through the page tables, and so forgets those whose mapping has gone meanwhile (mprotect to NONE).
 * Here they are found where the fault found them, in the entry's object chain. That is the same page, because while an entry is wired no
 * fault through it copies a page that it has wired: a change of protection that would lead to that wires anew ({@link "./vm_map_wire.ts"}).
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { pmapRemove } from "../pmap/pmap_remove.ts";
import { VM_FAULT_CHANGE_WIRING, VM_FAULT_USER_WIRE, vmFault } from "./vm_fault.ts";
import { type VmMap, vmMapLock, vmMapUnlock } from "./vm_map.ts";
import type { VmMapEntry } from "./vm_map_entry.ts";
import {
  OBJT_DEFAULT,
  type VmObject,
  vmObjectAllocate,
  vmObjectChainAcquire,
  vmObjectChainRelease,
  vmObjectDrop,
  vmObjectHold,
} from "./vm_object.ts";
import {
  VM_ALLOC_NORMAL,
  VM_PAGE_BITS_ALL,
  type VmPage,
  vmPageActivate,
  vmPageDirty,
  vmPageLookupBusyWait,
  vmPageUnwire,
  vmPageWakeup,
} from "./vm_page.ts";
import { vmPageAlloc, vmWait } from "./vm_page_alloc.ts";
import { vmPageCopy } from "./vm_page_valid.ts";
import {
  atop,
  KERN_SUCCESS,
  MAP_ENTRY_KSTACK,
  MAP_ENTRY_NEEDS_COPY,
  offToIdx,
  PAGE_SIZE,
  VM_PROT_NONE,
  VM_PROT_RW,
} from "./vm_param.ts";

/**
 * Brings in and wires the pages of an entry that says wired and is in transition (`vm_fault_wire`).
 *
 * Preconditions: the map is locked exclusively. It is let go meanwhile; the entry may have been cut when it is locked again.
 *
 * @param userWire For mlock; else for the kernel, which wants to write.
 * @returns KERN_SUCCESS, or why a page could not be had; then none of the range is wired.
 */
export function* vmFaultWire(cx: Cx, map: VmMap, entry: VmMapEntry, userWire: boolean): Exec<number> {
  const page = BigInt(PAGE_SIZE);
  const start: bigint = (entry.eflags & MAP_ENTRY_KSTACK) !== 0 ? entry.start + page : entry.start;
  const { end } = entry;
  yield* vmMapUnlock(cx, map);
  let rv = KERN_SUCCESS;
  let va: bigint = start;
  for (; va < end && rv === KERN_SUCCESS; va += page) {
    // The lookup of a wired entry asks for all that the entry allows, so mlock need not ask for anything itself.
    rv = userWire
      ? yield* vmFault(cx, map, va, VM_PROT_NONE, VM_FAULT_USER_WIRE)
      : yield* vmFault(cx, map, va, VM_PROT_RW, VM_FAULT_CHANGE_WIRING);
  }
  yield* vmMapLock(cx, map);
  // The last page tried is the one that failed.
  if (rv !== KERN_SUCCESS) {
    yield* unwirePages(cx, map, entry.object, start, va - page, (at) => indexOf(entry, at));
  }
  return rv;
}

function indexOf(entry: VmMapEntry, va: bigint): number {
  return offToIdx(entry.offset + Number(va - entry.start));
}

/**
 * Unwires the pages of an entry (`vm_fault_unwire`). Their mappings go: they say wired.
 *
 * Preconditions: the map is locked exclusively.
 */
export function* vmFaultUnwire(cx: Cx, map: VmMap, entry: VmMapEntry): Exec<void> {
  const first = (entry.eflags & MAP_ENTRY_KSTACK) !== 0 ? entry.start + BigInt(PAGE_SIZE) : entry.start;
  yield* unwirePages(cx, map, entry.object, first, entry.end, (at) => indexOf(entry, at));
}

function* unwirePages(
  cx: Cx,
  map: VmMap,
  object: VmObject | undefined,
  start: bigint,
  end: bigint,
  index: (va: bigint) => number,
): Exec<void> {
  if (object === undefined || start >= end) return;
  yield* pmapRemove(cx, map.pmap, start as Gva, end as Gva);
  for (let va = start; va < end; va += BigInt(PAGE_SIZE)) {
    yield* withPage(cx, object, index(va), function* (m) {
      if (m.wireCount > 0) vmPageUnwire(cx, m, true);
    });
  }
}

/** Shows `body` the busy page that an object chain has at an index, if there is one. */
function* withPage(
  cx: Cx,
  top: VmObject,
  pindex: number,
  body: (m: VmPage) => Exec<void>,
): Exec<void> {
  const held: VmObject[] = [];
  let object: VmObject | undefined = top;
  let at = pindex;
  while (object !== undefined) {
    yield* vmObjectHold(cx, object);
    yield* vmObjectChainAcquire(cx, object, true);
    held.push(object);
    const m: VmPage | undefined = yield* vmPageLookupBusyWait(cx, object, at, true, "vmwirp");
    if (m !== undefined) {
      yield* body(m);
      vmPageWakeup(cx, m);
      break;
    }
    at += offToIdx(object.backingObjectOffset);
    object = object.backingObject;
  }
  for (const each of held.reverse()) {
    vmObjectChainRelease(cx, each);
    vmObjectDrop(cx, each);
  }
}

/**
 * Gives `dst` a copy of the pages of `src`, which are wired (`vm_fault_copy_entry`).
 *
 * Preconditions: both maps are locked exclusively; `dst` has no object.
 */
export function* vmFaultCopyEntry(cx: Cx, dst: VmMapEntry, src: VmMapEntry): Exec<void> {
  const pages = atop(dst.end - dst.start);
  const object = vmObjectAllocate(cx, OBJT_DEFAULT, pages);
  dst.object = object;
  dst.offset = 0;
  dst.eflags &= ~MAP_ENTRY_NEEDS_COPY;
  const from = src.object;
  if (from === undefined) return;
  for (let i = 0; i < pages; i++) {
    yield* withPage(cx, from, offToIdx(src.offset) + i, function* (m) {
      if (m.valid !== VM_PAGE_BITS_ALL) return;
      yield* vmObjectHold(cx, object);
      let copy = vmPageAlloc(cx, object, i, VM_ALLOC_NORMAL);
      while (copy === undefined) {
        yield* vmWait(cx);
        copy = vmPageAlloc(cx, object, i, VM_ALLOC_NORMAL);
      }
      yield* vmPageCopy(cx, m, copy);
      vmPageDirty(cx, copy);
      vmPageActivate(cx, copy);
      vmPageWakeup(cx, copy);
      vmObjectDrop(cx, object);
    });
  }
}
