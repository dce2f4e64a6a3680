/**
 * Copies of address spaces (`vmspace_fork`, `vmspace_unshare`, `vm_map_copy_entry` of `sys/vm/vm_map.c`).
 *
 * Room: `kernel/vm/`; imports maps, objects, the pmap.
 *
 * No page table is copied: the child faults everything in. What is inherited as a copy becomes copy on write on both sides, and that
 * takes three things, in this order:
 *
 * 1. The parent's mappings are write-protected, on every processor that runs in it.
 * 2. Both entries say NEEDS_COPY.
 * 3. The map's timestamp changes, so that a fault of the parent that had begun before (and has let the lock go for I/O) does not
 *    install a writable mapping afterwards. Holding the lock exclusively has changed it already.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert, panic } from "../kern/panic.ts";
import { lwktGettoken, lwktReltoken } from "../lwkt/token.ts";
import { pmapPinit2 } from "../pmap/pmap_pinit.ts";
import { pmapProtect } from "../pmap/pmap_protect.ts";
import { pmapReplacevm } from "../pmap/pmap_switch.ts";
import type { Proc } from "../proc/proc.ts";
import { vmFaultCopyEntry } from "./vm_fault_wire.ts";
import { type VmMap, vmMapEntryCreate, vmMapEntryLink, vmMapLock, vmMapUnlock } from "./vm_map.ts";
import {
  MAP_RESERVE_COUNT,
  type MapCount,
  type VmMapEntry,
  vmMapEntryRelease,
  vmMapEntryReserve,
} from "./vm_map_entry.ts";
import { vmMapEntryAllocateObject, vmMapEntryShadow } from "./vm_map_lookup.ts";
import { vmObjectCollapse } from "./vm_object_collapse.ts";
import {
  OBJ_ONEMAPPING,
  type VmObject,
  vmObjectChainAcquire,
  vmObjectChainRelease,
  vmObjectClearFlag,
  vmObjectDrop,
  vmObjectHold,
  vmObjectIsAnonymous,
  vmObjectReferenceLocked,
} from "./vm_object.ts";
import { vmObjectDeallocateList } from "./vm_object_terminate.ts";
import {
  MAP_ENTRY_COW,
  MAP_ENTRY_IN_TRANSITION,
  MAP_ENTRY_NEEDS_COPY,
  MAP_ENTRY_NEEDS_WAKEUP,
  MAP_ENTRY_USER_WIRED,
  VM_INHERIT_COPY,
  VM_INHERIT_NONE,
  VM_MAPTYPE_SUBMAP,
  VM_PROT_NOSYNC,
  VM_PROT_WRITE,
} from "./vm_param.ts";
import { type Vmspace, vmspaceAlloc, vmspaceRel } from "./vmspace.ts";

/** A copy of an address space as its entries' inheritance says (`vmspace_fork`). Before it is used: pmapPinit2. */
export function* vmspaceFork(cx: Cx, vm1: Vmspace): Exec<Vmspace> {
  const old = vm1.vmMap;
  yield* lwktGettoken(cx, old.token);
  yield* vmMapLock(cx, old);
  const vm2 = yield* vmspaceAlloc(cx, old.min, old.max);
  const map = vm2.vmMap;
  yield* lwktGettoken(cx, map.token);
  // `vm_startcopy` … `vm_endcopy`.
  vm2.vmTsize = vm1.vmTsize;
  vm2.vmDsize = vm1.vmDsize;
  vm2.vmSsize = vm1.vmSsize;
  vm2.vmTaddr = vm1.vmTaddr;
  vm2.vmDaddr = vm1.vmDaddr;
  vm2.vmMaxsaddr = vm1.vmMaxsaddr;
  vm2.vmMinsaddr = vm1.vmMinsaddr;
  map.timestamp = 1;
  yield* vmMapLock(cx, map);
  const count = vmMapEntryReserve(old.nentries + MAP_RESERVE_COUNT);
  for (const entry of old.entries()) yield* forkEntry(cx, entry, old, map, count);
  old.timestamp++;
  yield* vmMapUnlock(cx, old);
  yield* vmMapUnlock(cx, map);
  vmMapEntryRelease(count);
  lwktReltoken(cx, map.token);
  lwktReltoken(cx, old.token);
  return vm2;
}

/** One entry of {@link vmspaceFork} (`vmspace_fork_normal_entry`). Both maps are locked exclusively. */
function* forkEntry(cx: Cx, old: VmMapEntry, oldMap: VmMap, map: VmMap, count: MapCount): Exec<void> {
  if (old.maptype === VM_MAPTYPE_SUBMAP) panic(cx, "vmspace_fork: encountered a submap");
  if (old.inheritance === VM_INHERIT_NONE) return;
  const shared = old.inheritance !== VM_INHERIT_COPY;
  if (shared) {
    // Sharing needs an object to share: the one the parent would have got at its first fault, or its first write.
    if (old.object === undefined) vmMapEntryAllocateObject(cx, old);
    const object = old.object;
    kassert(object !== undefined, "vmspace_fork: no object to share");
    if (old.eflags & MAP_ENTRY_NEEDS_COPY) {
      yield* vmMapEntryShadow(cx, old, true);
    } else if (object !== undefined) {
      yield* vmObjectHold(cx, object);
      vmObjectReferenceLocked(cx, object);
      vmObjectClearFlag(object, OBJ_ONEMAPPING);
      vmObjectDrop(cx, object);
    }
  }
  const entry = vmMapEntryCreate(cx, count);
  entry.assign(old);
  entry.eflags &= ~(MAP_ENTRY_USER_WIRED | MAP_ENTRY_IN_TRANSITION | MAP_ENTRY_NEEDS_WAKEUP);
  entry.wiredCount = 0;
  if (!shared) entry.object = undefined;
  vmMapEntryLink(map, map.header.prev, entry);
  map.size += entry.end - entry.start;
  if (!shared) yield* vmMapCopyEntry(cx, oldMap, old, entry);
}

/** Makes `dst`, an entry without an object, a copy of `src` (`vm_map_copy_entry`). */
function* vmMapCopyEntry(
  cx: Cx,
  srcMap: VmMap,
  src: VmMapEntry,
  dst: VmMapEntry,
): Exec<void> {
  if (src.wiredCount !== 0 && (src.eflags & MAP_ENTRY_NEEDS_COPY) === 0) {
    // Wired pages cannot become copy on write under their users: the child gets a copy at once. (What needs a copy still is not written.)
    yield* vmFaultCopyEntry(cx, dst, src);
    return;
  }
  // An entry that needs a copy is write-protected already.
  if ((src.eflags & MAP_ENTRY_NEEDS_COPY) === 0) {
    // Not DragonFly's, the simplest mistake at fork: no other CPU is told that the pages are read only now.
    const nosync = cx.k.bug("fork-no-flush") ? VM_PROT_NOSYNC : 0;
    yield* pmapProtect(cx, srcMap.pmap, src.start, src.end, src.protection & ~VM_PROT_WRITE | nosync);
  }
  const object = src.object;
  if (object === undefined) {
    dst.offset = 0;
    return;
  }
  yield* vmObjectHold(cx, object);
  yield* vmObjectChainAcquire(cx, object, false);
  // A chain that is too long grows by one with every fork: shorten it where it is about to be pinned.
  const dlist: VmObject[] = [];
  if (vmObjectIsAnonymous(object)) yield* vmObjectCollapse(cx, object, dlist);
  vmObjectReferenceLocked(cx, object);
  vmObjectClearFlag(object, OBJ_ONEMAPPING);
  vmObjectChainRelease(cx, object);
  vmObjectDrop(cx, object);
  yield* vmObjectDeallocateList(cx, dlist);
  dst.object = object;
  dst.offset = src.offset;
  src.eflags |= MAP_ENTRY_COW | MAP_ENTRY_NEEDS_COPY;
  dst.eflags |= MAP_ENTRY_COW | MAP_ENTRY_NEEDS_COPY;
}

/** Gives a process that shares its address space one of its own (`vmspace_unshare`). */
export function* vmspaceUnshare(cx: Cx, p: Proc): Exec<void> {
  const old = p.pVmspace;
  if (old === undefined || old.vmRefcnt === 1) return;
  const vm = yield* vmspaceFork(cx, old);
  pmapPinit2(cx, vm.vmPmap);
  yield* pmapReplacevm(cx, p, vm);
  yield* vmspaceRel(cx, old);
}
