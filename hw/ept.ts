/**
 * What VMX operation asks of translation: is this an EPT pointer, INVEPT, INVVPID, VM transitions, EPTP switching, PDPTE loads.
 *
 * The rooms behind this door: ept_format.ts (entries and qualifications as data), ept_walk.ts (the walk), ept_translate.ts (cached
 * guest-physical mappings, violations), explain_ept.ts (for people), tlb.ts (what is invalidated).
 *
 * Room: `hw/`; imports ept_format.ts and the VMX capability, cpu.ts by its type.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import type { CpuModel } from "./cpuid.ts";
import { type EptFeatures, eptFeatures, isEptPointer } from "./ept_format.ts";
import * as state from "./state.ts";
import { vmxCapability } from "./vmx/capability.ts";

const { S } = state;

/** What a CPU model says about EPT. A model without VMX has none, and no state in which it would matter. */
export function modelEptFeatures(model: CpuModel): EptFeatures {
  return eptFeatures(eptCapability(model), model.maxPhysicalBits);
}

const capabilities = new WeakMap<CpuModel, number>();

/** Low half of IA32_VMX_EPT_VPID_CAP. */
function eptCapability(model: CpuModel): number {
  let low = capabilities.get(model);
  if (low === undefined) {
    capabilities.set(model, low = Number(BigInt.asIntN(32, vmxCapability(model).eptVpid)));
  }
  return low;
}

/** Whether VM entry and EPTP switching take an EPT pointer: SDM vol. 3C, "VM-Execution Control Fields" (checks on the EPTP field). */
export function isValidEptp(model: CpuModel, low: number, high: number): boolean {
  return isEptPointer(low, high, eptCapability(model), model.maxPhysicalBits);
}

/**
 * INVEPT, its operands checked.
 *
 * @param type 1 single-context, 2 all-context.
 */
export function invept(cpu: Cpu, type: number, eptpLow: number, eptpHigh: number): void {
  cpu.access.tlb.invept(type, eptpLow, eptpHigh);
}

/**
 * INVVPID, its operands checked.
 *
 * @param type 0 individual address, 1 single-context, 2 all-context, 3 single-context retaining globals.
 */
export function invvpid(cpu: Cpu, type: number, vpid: number, linLow: number, linHigh: number): void {
  cpu.access.tlb.invvpid(type, vpid, linLow, linHigh);
}

/**
 * A VM entry or VM exit is about to change the processor's context: to be called before the first register, so that what the fast TLB
 * holds can be used again afterwards. Forgetting it costs time only.
 */
export function contextChanging(cpu: Cpu): void {
  cpu.access.tlb.leave();
}

/**
 * A VM entry (`entered`) or VM exit has set VMX_MODE, VMX_VPID, VMX_EPT, VMX_EPTP and all control registers. With "enable VPID" = 0
 * it invalidates what is cached for VPID 0000H; otherwise nothing.
 */
export function contextChanged(cpu: Cpu, entered: boolean): void {
  if (entered) cpu.set32(S.TLBVPID, cpu.get32(S.VMX_VPID));
  cpu.access.tlb.arrive(cpu.get32(S.TLBVPID) !== 0);
}

/** VMFUNC has switched the EPT pointer in force. */
export function eptpSwitched(cpu: Cpu): void {
  cpu.access.tlb.eptpSwitched();
}
