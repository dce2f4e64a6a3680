/**
 * Page faults (`vm_fault` of `sys/vm/vm_fault.c`).
 *
 * Room: `kernel/vm/`; imports maps, objects, pmap. The page itself is found by `vm_fault_object.ts`; pages for the kernel's own use without
 * a mapping by `vm_fault_page.ts`; neighbours by `vm_prefault.ts`; wiring by `vm_fault_wire.ts`.
 *
 *     lookup ── map locked shared ──► object, pindex, rights
 *        ▲                              │
 *        │ TRY_AGAIN                    ▼
 *        └────────────────────── page, busy ──► pmap_enter ──► page let go ──► neighbours ──► map unlocked
 *
 * The mapping is entered with the map still (or again) locked and unchanged since the lookup, and the page busy: so whoever takes rights away
 * (fork, mprotect, munmap, pageout) does so before, and the fault sees it, or after, and takes this mapping away too.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert, panic } from "../kern/panic.ts";
import { lwktGettoken, lwktReltoken } from "../lwkt/token.ts";
import { pmapEnter } from "../pmap/pmap_enter.ts";
import {
  faultEnter,
  faultLeave,
  Faultstate,
  type SharedChoice,
  VM_FAULT_BURST,
  VM_FAULT_BURST_QUICK,
  VM_FAULT_DIRTY,
  VM_FAULT_UNSWAP,
  VM_FAULT_WIRE_MASK,
  vmFaultObject,
} from "./vm_fault_object.ts";
import { vmFaultVpagetable, vpteInterlock } from "./vm_fault_vpagetable.ts";
import { type VmMap, vmMapUnlockRead } from "./vm_map.ts";
import { type MapLookup, vmMapLookup, vmMapLookupDone } from "./vm_map_lookup.ts";
import type { VmObject } from "./vm_object.ts";
import { PG_REFERENCED, vmPageFlagSet, vmPageWakeup, vmPageWire } from "./vm_page.ts";
import {
  KERN_INVALID_ADDRESS,
  KERN_SUCCESS,
  KERN_TRY_AGAIN,
  MAP_ENTRY_KSTACK,
  MAP_ENTRY_NOFAULT,
  PAGE_SIZE,
  truncPage,
  VM_MAPTYPE_VPAGETABLE,
  VM_PROT_NONE,
  VM_PROT_WRITE,
  type VmProt,
} from "./vm_param.ts";
import { vmPrefault } from "./vm_prefault.ts";
import type { Vmspace } from "./vmspace.ts";

export {
  VM_FAULT_BURST,
  VM_FAULT_BURST_QUICK,
  VM_FAULT_CHANGE_WIRING,
  VM_FAULT_DIRTY,
  VM_FAULT_NORMAL,
  VM_FAULT_UNSWAP,
  VM_FAULT_USER_WIRE,
  VM_FAULT_WIRE_MASK,
} from "./vm_fault_object.ts";

/**
 * Handles a fault at `va`: afterwards the access, tried again, works, or at least makes progress (`vm_fault`).
 *
 * @param faultType VM_PROT_READ, WRITE or EXECUTE: what was tried.
 * @param faultFlags VM_FAULT_*.
 * @returns KERN_SUCCESS; KERN_INVALID_ADDRESS (nothing is mapped), KERN_PROTECTION_FAILURE (not allowed, or behind the end of the object),
 *   KERN_FAILURE (the data cannot be read).
 */
export function* vmFault(
  cx: Cx,
  map: VmMap,
  va: bigint,
  faultType: VmProt,
  faultFlags: number,
): Exec<number> {
  const address = truncPage(va);
  cx.k.vmmeter.vVmFaults++;
  yield* lwktGettoken(cx, map.token);
  const shared: SharedChoice = { firstShared: true, shared: true };
  const wanted: Wanted = { address, faultType, faultFlags, growstack: true };
  let rv: number;
  do rv = yield* attempt(cx, map, wanted, shared); while (rv === KERN_TRY_AGAIN);
  lwktReltoken(cx, map.token);
  return rv;
}

/** What a fault is about. */
interface Wanted {
  readonly address: Gva;
  readonly faultType: VmProt;
  readonly faultFlags: number;
  /** A stack may still be grown for it. */
  growstack: boolean;
}

/** From the lookup to the mapping, once. */
function* attempt(cx: Cx, map: VmMap, wanted: Wanted, shared: SharedChoice): Exec<number> {
  const { address, faultFlags } = wanted;
  const found = yield* vmMapLookup(cx, map, address, wanted.faultType);
  if (typeof found === "number") {
    if (found !== KERN_INVALID_ADDRESS || !wanted.growstack) return found;
    wanted.growstack = false;
    return (yield* growStack(cx, map, address)) ? KERN_TRY_AGAIN : found;
  }
  const object = yield* usableObject(cx, found, address);
  if (object === undefined) return KERN_INVALID_ADDRESS;
  const faultType = found.wired ? found.prot : wanted.faultType;
  const dirties = (faultType & VM_PROT_WRITE) !== 0 || found.entry.maptype === VM_MAPTYPE_VPAGETABLE;
  chooseShared(cx, object, faultFlags | (dirties ? VM_FAULT_DIRTY : 0), shared);
  const fs = new Faultstate({ ...found, object }, faultFlags, shared);
  yield* vpteInterlock(cx, fs, address);
  yield* faultEnter(cx, fs);
  const writing = (wanted.faultType & VM_PROT_WRITE) !== 0;
  let { pindex } = found;
  if (found.entry.maptype === VM_MAPTYPE_VPAGETABLE) {
    const walked = yield* vmFaultVpagetable(cx, fs, pindex, faultType, shared);
    if (walked !== KERN_SUCCESS) return walked;
    pindex = fs.vptePindex;
  }
  const rv = yield* vmFaultObject(cx, fs, pindex, faultType, shared);
  if (rv !== KERN_SUCCESS) return rv;
  const { m } = fs;
  kassert(m !== undefined && fs.lookupStillValid, "vm_fault: no page, or the map is not locked");
  vmPageFlagSet(m, PG_REFERENCED);
  // Memory that is wired but may not be used at all is brought in and not mapped.
  if (fs.prot !== VM_PROT_NONE) {
    yield* pmapEnter(cx, found.map.pmap, address, m, fs.prot, found.wired, found.entry);
  }
  if (faultFlags & VM_FAULT_WIRE_MASK) {
    kassert(found.wired, "vm_fault: the entry to wire is not wired");
    vmPageWire(cx, m);
  }
  vmPageWakeup(cx, m);
  fs.m = undefined;
  // The objects are let go, the map is not: prefault looks at the entry.
  fs.lookupStillValid = false;
  yield* faultLeave(cx, fs);
  if ((faultFlags & (VM_FAULT_BURST | VM_FAULT_BURST_QUICK)) !== 0 && !found.wired) {
    yield* vmPrefault(cx, found.map.pmap, address, found.entry, fs.prot, writing);
  }
  yield* vmMapLookupDone(cx, found.map);
  if (cx.lwp !== undefined) countFault(cx, fs.hardfault);
  return KERN_SUCCESS;
}

/** The object of a mapping that may fault; undefined, with the map unlocked, if there is none (memory of the kernel that is not there). */
function* usableObject(cx: Cx, found: MapLookup, address: Gva): Exec<VmObject | undefined> {
  const { entry, object, map } = found;
  const where = `0x${address.toString(16)}`;
  if (entry.eflags & MAP_ENTRY_NOFAULT) panic(cx, `vm_fault: fault on nofault entry, addr: ${where}`);
  if ((entry.eflags & MAP_ENTRY_KSTACK) !== 0 && address < entry.start + BigInt(PAGE_SIZE)) {
    panic(cx, `vm_fault: fault on stack guard, addr: ${where}`);
  }
  if (object === undefined) yield* vmMapUnlockRead(cx, map);
  return object;
}

/**
 * Which of the objects may be held shared. Exclusively from the start where it will be needed anyway: for a write (it dirties, and may
 * copy), and for a private chain that nobody else walks.
 */
function chooseShared(cx: Cx, object: VmObject, faultFlags: number, shared: SharedChoice): void {
  if (faultFlags & (VM_FAULT_DIRTY | VM_FAULT_UNSWAP)) shared.firstShared = false;
  const alone = object.backingObject !== undefined && object.shadowCount === 0 && cx.proc !== undefined &&
    cx.proc.pNthreads === 1;
  if (alone) shared.firstShared = shared.shared = false;
}

/** Grows the stack of the space that the map belongs to; whether the lookup is worth another try. */
function* growStack(cx: Cx, map: VmMap, address: Gva): Exec<boolean> {
  const { proc, lwp } = cx;
  if (proc === undefined) return false;
  const isIts = (vm: Vmspace | undefined): vm is Vmspace => vm !== undefined && vm.vmMap === map;
  const vm = [lwp?.lwpVmspace, proc.pVmspace].find(isIts);
  return vm !== undefined && (yield* cx.k.vmMap.growstack(cx, proc, vm, address)) === KERN_SUCCESS;
}

function countFault(cx: Cx, hardfault: number): void {
  const ru = cx.lwp?.lwpRu;
  if (ru === undefined) return;
  if (hardfault > 0) ru.ruMajflt++;
  else ru.ruMinflt++;
}
