/**
 * The VMX capability MSRs, computed from what a CPU model offers (SDM vol. 3D, appendix A).
 *
 * Room: `hw/vmx/`; imports the names of features and fields, and the CPU model by its type.
 *
 * @module
 */
import type { CpuModel } from "../cpuid.ts";
import { CR4_FEATURES } from "../cr4_features.ts";
import { effectiveVmxFeatures, VMX_FEATURES, type VmxFeature } from "./features.ts";
import { F, fieldExists, type FieldName, fieldNames, fieldOffset } from "./fields.ts";

/** What a control word may be. All words are signed 32-bit numbers. */
export interface ControlRange {
  /** Bits that must be 1, as the old MSR reports it (default1 included). */
  readonly mustBeOne: number;
  /** Bits that must be 1 in truth: what VM entry checks. */
  readonly trueMustBeOne: number;
  /** Bits that may be 1. */
  readonly mayBeOne: number;
}

/** All that a model says of VMX. */
export interface VmxCapability {
  /** The VMX features that the model has, with all that each requires. */
  readonly features: ReadonlySet<string>;
  /** Pin-based controls. */
  readonly pin: ControlRange;
  /** Primary processor-based controls. */
  readonly proc: ControlRange;
  /** Secondary processor-based controls. */
  readonly proc2: ControlRange;
  /** VM-exit controls. */
  readonly exit: ControlRange;
  /** VM-entry controls. */
  readonly entry: ControlRange;
  /** IA32_VMX_BASIC. */
  readonly basic: bigint;
  /** IA32_VMX_MISC. */
  readonly misc: bigint;
  /** IA32_VMX_VMCS_ENUM. */
  readonly vmcsEnum: bigint;
  /** IA32_VMX_EPT_VPID_CAP. */
  readonly eptVpid: bigint;
  /** IA32_VMX_VMFUNC, low half. */
  readonly functions: number;
  /** Bits that CR0 must have in VMX operation. */
  readonly cr0Fixed0: number;
  /** Bits that CR0 may have in VMX operation. */
  readonly cr0Fixed1: number;
  /** Bits that CR4 must have in VMX operation. */
  readonly cr4Fixed0: number;
  /** Bits that CR4 may have in VMX operation. */
  readonly cr4Fixed1: number;
  /** Revision identifier of VMXON and VMCS regions. */
  readonly revision: number;
  /** CR3-target values. */
  readonly cr3Targets: number;
  /** log2 of time-stamp counter ticks to a tick of the preemption timer. */
  readonly timerRate: number;
  /**
   * By encoding (bit 0 clear): where VMREAD and VMWRITE find the field in a region, 0 for one that the processor has not.
   */
  readonly fields: Uint16Array;
}

/** Bytes of a VMXON or VMCS region. */
export const REGION_BYTES = 4096;
/** Memory type write-back, for VMCS accesses. */
const WRITE_BACK = 6;
const CR3_TARGETS = 4;
/** Bits of the control words that are 1 by default, and those of them that the TRUE MSRs let software clear. */
const DEFAULT1 = {
  pin: { all: 0x16, clearable: 0 },
  proc: { all: 0x0401_e172, clearable: 0x0001_8000 },
  proc2: { all: 0, clearable: 0 },
  exit: { all: 0x0003_6dff, clearable: 4 },
  entry: { all: 0x0000_11ff, clearable: 4 },
} as const;
/** Any other bits of IA32_VMX_MISC: IA32_SMBASE cannot be read, no processor trace. */
const HIGH = 32n;

/** CR0 in VMX operation: PG, NE and PE are 1. */
const CR0_FIXED0 = 0x8000_0021 | 0;
const CR4_VMXE = 0x2000;

const capabilities = new WeakMap<CpuModel, VmxCapability>();

/** What `model` says of VMX. A model without VMX offers nothing. */
export function vmxCapability(model: CpuModel): VmxCapability {
  let found = capabilities.get(model);
  if (found === undefined) capabilities.set(model, found = compute(model));
  return found;
}

/** Bits of CR4 that `model` has, as MOV to CR4 takes them. */
export function cr4Bits(model: CpuModel): number {
  let mask = 0;
  for (const [bit, feature] of CR4_FEATURES) if (model.features.has(feature)) mask |= bit;
  return mask;
}

function compute(model: CpuModel): VmxCapability {
  const features = effectiveVmxFeatures(model.features);
  const trueControls = features.has("vmx-true-ctls");
  const bits = (group: string): number => {
    let mask = 0;
    for (const name of features) if (VMX_FEATURES[name][0] === group) mask |= 1 << VMX_FEATURES[name][1];
    return mask;
  };
  const wide = (group: string): bigint => {
    let mask = 0n;
    for (const name of features) {
      if (VMX_FEATURES[name][0] === group) mask |= 1n << BigInt(VMX_FEATURES[name][1]);
    }
    return mask;
  };
  const range = (group: keyof typeof DEFAULT1): ControlRange => {
    const { all, clearable } = DEFAULT1[group];
    return {
      mustBeOne: all,
      trueMustBeOne: trueControls ? all & ~clearable : all,
      mayBeOne: bits(group) | all,
    };
  };
  const fields = new Uint16Array(0x8000);
  let highest = 0;
  const exists = (name: FieldName): boolean => fieldExists(name, features);
  for (const name of fieldNames) {
    const encoding = F[name];
    if (!exists(name)) continue;
    fields[encoding] = fieldOffset[encoding]!;
    highest = Math.max(highest, (encoding >>> 1) & 0x1ff);
  }
  const misc = BigInt(model.vmx.timerRate) | wide("misc") | BigInt(CR3_TARGETS) << 16n;
  return {
    features,
    pin: range("pin"),
    proc: range("proc"),
    proc2: range("proc2"),
    exit: range("exit"),
    entry: range("entry"),
    basic: BigInt(model.vmx.revision) | BigInt(REGION_BYTES) << HIGH | BigInt(WRITE_BACK) << 50n |
      wide("basic"),
    misc,
    vmcsEnum: BigInt(highest) << 1n,
    eptVpid: wide("ept"),
    functions: bits("function"),
    cr0Fixed0: CR0_FIXED0,
    cr0Fixed1: -1,
    cr4Fixed0: CR4_VMXE,
    cr4Fixed1: cr4Bits(model),
    revision: model.vmx.revision,
    cr3Targets: CR3_TARGETS,
    timerRate: model.vmx.timerRate,
    fields,
  };
}

/** A control word's range as its MSR says it. */
function rangeMsr(mustBeOne: number, mayBeOne: number): bigint {
  return BigInt(mustBeOne >>> 0) | BigInt(mayBeOne >>> 0) << HIGH;
}

/** One capability MSR. */
export interface CapabilityMsr {
  readonly number: number;
  readonly name: string;
  /** Feature without which the MSR does not exist, if there is one beside "vmx". */
  readonly needs?: VmxFeature;
  readonly value: (capability: VmxCapability) => bigint;
}

/** The capability MSRs in the order of their numbers. */
export const capabilityMsrs: readonly CapabilityMsr[] = [
  { number: 0x480, name: "IA32_VMX_BASIC", value: (c) => c.basic },
  { number: 0x481, name: "IA32_VMX_PINBASED_CTLS", value: (c) => rangeMsr(c.pin.mustBeOne, c.pin.mayBeOne) },
  {
    number: 0x482,
    name: "IA32_VMX_PROCBASED_CTLS",
    value: (c) => rangeMsr(c.proc.mustBeOne, c.proc.mayBeOne),
  },
  { number: 0x483, name: "IA32_VMX_EXIT_CTLS", value: (c) => rangeMsr(c.exit.mustBeOne, c.exit.mayBeOne) },
  { number: 0x484, name: "IA32_VMX_ENTRY_CTLS", value: (c) => rangeMsr(c.entry.mustBeOne, c.entry.mayBeOne) },
  { number: 0x485, name: "IA32_VMX_MISC", value: (c) => c.misc },
  { number: 0x486, name: "IA32_VMX_CR0_FIXED0", value: (c) => BigInt(c.cr0Fixed0 >>> 0) },
  { number: 0x487, name: "IA32_VMX_CR0_FIXED1", value: (c) => BigInt(c.cr0Fixed1 >>> 0) },
  { number: 0x488, name: "IA32_VMX_CR4_FIXED0", value: (c) => BigInt(c.cr4Fixed0 >>> 0) },
  { number: 0x489, name: "IA32_VMX_CR4_FIXED1", value: (c) => BigInt(c.cr4Fixed1 >>> 0) },
  { number: 0x48a, name: "IA32_VMX_VMCS_ENUM", value: (c) => c.vmcsEnum },
  {
    number: 0x48b,
    name: "IA32_VMX_PROCBASED_CTLS2",
    needs: "vmx-secondary-ctls",
    value: (c) => rangeMsr(0, c.proc2.mayBeOne),
  },
  // Exists with either of EPT and VPID; no model has VPID alone.
  { number: 0x48c, name: "IA32_VMX_EPT_VPID_CAP", needs: "vmx-ept", value: (c) => c.eptVpid },
  {
    number: 0x48d,
    name: "IA32_VMX_TRUE_PINBASED_CTLS",
    needs: "vmx-true-ctls",
    value: (c) => rangeMsr(c.pin.trueMustBeOne, c.pin.mayBeOne),
  },
  {
    number: 0x48e,
    name: "IA32_VMX_TRUE_PROCBASED_CTLS",
    needs: "vmx-true-ctls",
    value: (c) => rangeMsr(c.proc.trueMustBeOne, c.proc.mayBeOne),
  },
  {
    number: 0x48f,
    name: "IA32_VMX_TRUE_EXIT_CTLS",
    needs: "vmx-true-ctls",
    value: (c) => rangeMsr(c.exit.trueMustBeOne, c.exit.mayBeOne),
  },
  {
    number: 0x490,
    name: "IA32_VMX_TRUE_ENTRY_CTLS",
    needs: "vmx-true-ctls",
    value: (c) => rangeMsr(c.entry.trueMustBeOne, c.entry.mayBeOne),
  },
  { number: 0x491, name: "IA32_VMX_VMFUNC", needs: "vmx-vmfunc", value: (c) => BigInt(c.functions >>> 0) },
];

/** Whether a model has a capability MSR. */
export function hasCapabilityMsr(model: CpuModel, msr: CapabilityMsr): boolean {
  if (!model.features.has("vmx")) return false;
  if (msr.number === 0x48c && model.features.has("vmx-vpid")) return true;
  return msr.needs === undefined || vmxCapability(model).features.has(msr.needs);
}
