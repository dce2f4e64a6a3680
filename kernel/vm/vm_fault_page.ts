/**
 * Pages behind user addresses for the kernel's own use, without a mapping (`vm_fault_page`, `vm_fault_page_quick`, `vm_fault_object_page` of
 * `sys/vm/vm_fault.c`).
 *
 * Room: `kernel/vm/`; imports faults and the pmap.
 *
 * These never enter a mapping: the space may not be active on this processor. The page comes held (it may lose its identity, but its frame
 * is not used for anything else), or busy for those who will change it: since January 2017 (`dc039ae0ab`), because a held page that
 * somebody else cleans meanwhile loses the change.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { lwktGettoken, lwktReltoken } from "../lwkt/token.ts";
import { pmapFaultPageQuick } from "../pmap/pmap_extract.ts";
import {
  faultEnter,
  faultLeave,
  Faultstate,
  type SharedChoice,
  VM_FAULT_DIRTY,
  vmFaultObject,
} from "./vm_fault_object.ts";
import { vmFaultVpagetable, vpteInterlock } from "./vm_fault_vpagetable.ts";
import type { VmMap } from "./vm_map.ts";
import { vmMapLookup, vmMapLookupDone } from "./vm_map_lookup.ts";
import type { VmObject } from "./vm_object.ts";
import { PG_REFERENCED, type VmPage, vmPageFlagSet, vmPageHold, vmPageWakeup } from "./vm_page.ts";
import {
  KERN_INVALID_ADDRESS,
  KERN_PROTECTION_FAILURE,
  KERN_SUCCESS,
  KERN_TRY_AGAIN,
  truncPage,
  VM_MAPTYPE_VPAGETABLE,
  VM_PROT_ALL,
  VM_PROT_WRITE,
  type VmProt,
} from "./vm_param.ts";

/** How the page shall come. */
export interface FaultPageOptions {
  /** Busy instead of held; give it back with vmPageWakeup. For those who write. */
  readonly busy?: boolean;
}

/**
 * The page at `va` of an address space, made ready for `faultType` (`vm_fault_page`); or KERN_* if there is none.
 *
 * @param faultFlags VM_FAULT_*; VM_FAULT_DIRTY goes with writes.
 */
export function* vmFaultPage(
  cx: Cx,
  map: VmMap,
  va: bigint,
  faultType: VmProt,
  faultFlags: number,
  options: FaultPageOptions = {},
): Exec<VmPage | number> {
  const address = truncPage(va);
  // Without a busy page the mapping that there is will do, unless somebody counts on a page that nobody changes meanwhile.
  if (options.busy !== true) {
    const quick = yield* pmapFaultPageQuick(cx, map.pmap, address, faultType & VM_PROT_ALL);
    if (quick !== undefined) return quick;
  }
  cx.k.vmmeter.vVmFaults++;
  yield* lwktGettoken(cx, map.token);
  const shared: SharedChoice = { firstShared: true, shared: true };
  let grow = true;
  let result: VmPage | number;
  for (;;) {
    result = yield* attempt(cx, map, address, faultType, faultFlags, shared, options);
    if (result === KERN_INVALID_ADDRESS && grow && !cx.k.bug("fault-page-no-growstack")) {
      // As a store by the program itself would (`b443039b5d`, 2017).
      grow = false;
      const { proc } = cx;
      const vm = proc?.pVmspace;
      if (
        proc !== undefined && vm?.vmMap === map &&
        (yield* cx.k.vmMap.growstack(cx, proc, vm, address)) === KERN_SUCCESS
      ) {
        continue;
      }
    }
    if (result !== KERN_TRY_AGAIN) break;
  }
  lwktReltoken(cx, map.token);
  return result;
}

function* attempt(
  cx: Cx,
  map: VmMap,
  address: bigint,
  faultType: VmProt,
  faultFlags: number,
  shared: SharedChoice,
  options: FaultPageOptions,
): Exec<VmPage | number> {
  const found = yield* vmMapLookup(cx, map, truncPage(address), faultType);
  if (typeof found === "number") return found;
  const { object } = found;
  if (object === undefined) {
    yield* vmMapLookupDone(cx, found.map);
    return KERN_INVALID_ADDRESS;
  }
  const type = found.wired ? found.prot : faultType & VM_PROT_ALL;
  const fs = new Faultstate({ ...found, object }, faultFlags, shared);
  fs.byPage = true;
  yield* vpteInterlock(cx, fs, truncPage(address));
  return yield* resolve(cx, fs, found.pindex, type, shared, options);
}

/** From the object to the page. */
function* resolve(
  cx: Cx,
  fs: Faultstate,
  pindex: number,
  type: VmProt,
  shared: SharedChoice,
  options: FaultPageOptions,
): Exec<VmPage | number> {
  const walks = fs.entry?.maptype === VM_MAPTYPE_VPAGETABLE;
  if ((type & VM_PROT_WRITE) !== 0 || walks) fs.firstShared = shared.firstShared = false;
  yield* faultEnter(cx, fs);
  if (walks) {
    const walked = yield* vmFaultVpagetable(cx, fs, pindex, type, shared);
    if (walked !== KERN_SUCCESS) return walked;
  }
  const rv = yield* vmFaultObject(cx, fs, walks ? fs.vptePindex : pindex, type, shared);
  if (rv !== KERN_SUCCESS) return rv;
  const m = fs.m!;
  fs.m = undefined;
  const denied = (type & VM_PROT_WRITE) !== 0 && (fs.prot & VM_PROT_WRITE) === 0;
  vmPageFlagSet(m, PG_REFERENCED);
  if (denied) vmPageWakeup(cx, m);
  else if (options.busy !== true) {
    vmPageHold(m);
    vmPageWakeup(cx, m);
  }
  yield* faultLeave(cx, fs);
  return denied ? KERN_PROTECTION_FAILURE : m;
}

/** The same for an address of the current process (`vm_fault_page_quick`). */
export function* vmFaultPageQuick(cx: Cx, va: bigint, faultType: VmProt): Exec<VmPage | number> {
  const vm = cx.lwp?.lwpVmspace ?? cx.proc?.pVmspace;
  if (vm === undefined) return KERN_INVALID_ADDRESS;
  const flags = (faultType & VM_PROT_WRITE) !== 0 ? VM_FAULT_DIRTY : 0;
  return yield* vmFaultPage(cx, vm.vmMap, va, faultType, flags);
}

/**
 * A page of an object, held (`vm_fault_object_page`); or KERN_*.
 *
 * Preconditions: the caller has a reference to the object, and no lock.
 */
export function* vmFaultObjectPage(
  cx: Cx,
  object: VmObject,
  pindex: number,
  faultType: VmProt,
  faultFlags: number,
): Exec<VmPage | number> {
  const shared: SharedChoice = { firstShared: true, shared: true };
  for (;;) {
    const fs = new Faultstate(
      { map: undefined, entry: undefined, object, prot: faultType & VM_PROT_ALL, wired: false },
      faultFlags,
      shared,
    );
    const result = yield* resolve(cx, fs, pindex, faultType & VM_PROT_ALL, shared, {});
    if (result !== KERN_TRY_AGAIN) return result;
  }
}
