/**
 * Model-specific registers: which there are, what they hold, what may be written.
 *
 * Room: `hw/`; imports the processor, control registers and mode.ts. SDM vol. 4. An MSR that is not in the table is #GP(0).
 *
 * @module
 */
import { type Cpu, type Procedures, VECTOR } from "./cpu.ts";
import { EXIT_FAULT, EXIT_NONE, S, SEG } from "./state.ts";
import { readVirtualMsr, virtualMsr, WRITE, writeVirtualMsr } from "./vmx/apic_virtualization.ts";
import { capabilityMsrs, hasCapabilityMsr, vmxCapability } from "./vmx/capability.ts";
import { isNonRoot } from "./vmx/contract.ts";
import { guestTimeStamp, msrExits } from "./vmx/intercepts.ts";
import { TSC_HZ } from "./cpuid.ts";
import { writeEfer } from "./sys/control_registers.ts";
import { afterTransfer } from "./sys/attention.ts";
import { timeStamp } from "./sys/time_stamp.ts";
import { isCpuCanonical } from "./sys/mode.ts";

/** One MSR. */
export interface Msr {
  readonly name: string;
  /** The feature without which it does not exist. */
  readonly feature?: string;
  read(cpu: Cpu): bigint;
  /** Writes halves (signed); false is #GP(0) with nothing changed. Absent: read-only. */
  readonly write?: (cpu: Cpu, low: number, high: number) => boolean;
}

/** Numbers of the MSRs that others name. */
export const MSR = {
  TSC: 0x10,
  APIC_BASE: 0x1b,
  FEATURE_CONTROL: 0x3a,
  TSC_ADJUST: 0x3b,
  BIOS_UPDATE: 0x79,
  BIOS_SIGN_ID: 0x8b,
  PLATFORM_INFO: 0xce,
  MTRRCAP: 0xfe,
  SYSENTER_CS: 0x174,
  SYSENTER_ESP: 0x175,
  SYSENTER_EIP: 0x176,
  MCG_CAP: 0x179,
  MCG_STATUS: 0x17a,
  MISC_ENABLE: 0x1a0,
  DEBUGCTL: 0x1d9,
  PAT: 0x277,
  MTRR_DEF_TYPE: 0x2ff,
  TSC_DEADLINE: 0x6e0,
  XSS: 0xda0,
  EFER: 0xc000_0080,
  STAR: 0xc000_0081,
  LSTAR: 0xc000_0082,
  CSTAR: 0xc000_0083,
  FMASK: 0xc000_0084,
  FS_BASE: 0xc000_0100,
  GS_BASE: 0xc000_0101,
  KERNEL_GS_BASE: 0xc000_0102,
  TSC_AUX: 0xc000_0103,
} as const;

/** Variable-range MTRR pairs. */
export const MTRR_VARIABLE_COUNT = 10;
/** Numbers of the fixed-range MTRRs. */
const MTRR_FIXED = [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f] as const;
/** IA32_FEATURE_CONTROL: once locked it cannot be written. */
const FEATURE_CONTROL_LOCK = 1, FEATURE_CONTROL_VMXON = 4;
/** Bits of IA32_MISC_ENABLE that software can change: fast strings, MONITOR, limit CPUID; in the upper half XD disable. */
const MISC_ENABLE_LOW = 1 | (1 << 18) | (1 << 22), MISC_ENABLE_HIGH = 1 << 2;

/** Bits that read 1: neither branch trace storage nor event-based sampling. */
const MISC_ENABLE_FIXED = 0x1800;

/** Memory types 0, 1, 4, 5, 6; PAT has 7 (UC−) too. */
function isMemoryType(type: number): boolean {
  return type === 0 || type === 1 || (type >= 4 && type <= 6);
}
/** Whether every byte of both halves is a memory type; `pat` allows UC−. */
function areMemoryTypes(low: number, high: number, pat: boolean): boolean {
  for (let shift = 0; shift < 32; shift += 8) {
    for (const half of [low, high]) {
      const type = (half >>> shift) & 0xff;
      if (!isMemoryType(type) && !(pat && type === 7)) return false;
    }
  }
  return true;
}

/** Bits from MAXPHYADDR up in an upper half. */
function physicalReserved(cpu: Cpu): number {
  return -1 << (cpu.model.maxPhysicalBits - 32);
}

/** An MSR that is a field of the processor's block; `check` says whether a value may be written. */
function field(
  name: string,
  at: number,
  check: (cpu: Cpu, low: number, high: number) => boolean = () => true,
  feature?: string,
): Msr {
  return {
    name,
    ...(feature === undefined ? {} : { feature }),
    read: (cpu) => cpu.get64(at),
    write: (cpu, low, high) => {
      if (!check(cpu, low, high)) return false;
      cpu.set64Halves(at, low, high);
      return true;
    },
  };
}

const canonical = (cpu: Cpu, _low: number, high: number): boolean => isCpuCanonical(cpu, high);
const lowOnly = (_cpu: Cpu, _low: number, high: number): boolean => high === 0;

/** An MSR that always reads the same and ignores writes. */
function constant(name: string, value: bigint, writable = false): Msr {
  return { name, read: () => value, ...(writable ? { write: () => true } : {}) };
}

/** An MSR that the local APIC keeps. */
function apicMsr(name: string, index: number, feature?: string): Msr {
  return {
    name,
    ...(feature === undefined ? {} : { feature }),
    read: (cpu) => {
      if (!cpu.apic.readMsr(index)) cpu.raise(VECTOR.GP, 0);
      return (BigInt(cpu.apic.msrHigh >>> 0) << 32n) | BigInt(cpu.apic.msrLow >>> 0);
    },
    write: (cpu, low, high) => cpu.apic.writeMsr(index, low, high),
  };
}

const table = new Map<number, Msr>([
  [MSR.TSC, {
    name: "IA32_TIME_STAMP_COUNTER",
    read: timeStamp,
    // Writing the counter moves the adjustment by the same amount (SDM vol. 3B, "Time-Stamp Counter Adjustment").
    write: (cpu, low, high) => {
      const value = (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
      cpu.set64(S.TSC_ADJUST, BigInt.asUintN(64, cpu.get64(S.TSC_ADJUST) + value - timeStamp(cpu)));
      return true;
    },
  }],
  [0x17, constant("IA32_PLATFORM_ID", 0n)],
  [MSR.APIC_BASE, apicMsr("IA32_APIC_BASE", MSR.APIC_BASE)],
  [MSR.FEATURE_CONTROL, {
    name: "IA32_FEATURE_CONTROL",
    read: (cpu) => cpu.get64(S.FEATURE_CONTROL),
    // Bit 0 locks. Of the VMXON enables there is the one outside SMX; inside it (bit 1) there is nothing, for there is no SMX.
    write: (cpu, low, high) => {
      if (cpu.get32(S.FEATURE_CONTROL) & FEATURE_CONTROL_LOCK) return false;
      const writable = FEATURE_CONTROL_LOCK | (cpu.model.features.has("vmx") ? FEATURE_CONTROL_VMXON : 0);
      if (high !== 0 || (low & ~writable)) return false;
      cpu.set64Halves(S.FEATURE_CONTROL, low, high);
      return true;
    },
  }],
  [MSR.TSC_ADJUST, field("IA32_TSC_ADJUST", S.TSC_ADJUST, () => true, "tsc_adjust")],
  [MSR.BIOS_UPDATE, {
    name: "IA32_BIOS_UPDT_TRIG",
    read: (cpu) => cpu.raise(VECTOR.GP, 0),
    write: () => true,
  }],
  [MSR.BIOS_SIGN_ID, field("IA32_BIOS_SIGN_ID", S.BIOS_SIGN_ID)],
  [
    MSR.PLATFORM_INFO,
    constant("MSR_PLATFORM_INFO", BigInt(TSC_HZ / 100_000_000) << 8n | BigInt(TSC_HZ / 100_000_000) << 40n),
  ],
  // Ten variable ranges, fixed ranges, write-combining.
  [MSR.MTRRCAP, { ...constant("IA32_MTRRCAP", BigInt(MTRR_VARIABLE_COUNT | 0x500)), feature: "mtrr" }],
  [MSR.SYSENTER_CS, field("IA32_SYSENTER_CS", S.SYSENTER_CS, () => true, "sep")],
  [MSR.SYSENTER_ESP, field("IA32_SYSENTER_ESP", S.SYSENTER_ESP, canonical, "sep")],
  [MSR.SYSENTER_EIP, field("IA32_SYSENTER_EIP", S.SYSENTER_EIP, canonical, "sep")],
  // No error-reporting banks.
  [MSR.MCG_CAP, { ...constant("IA32_MCG_CAP", 0n), feature: "mca" }],
  [
    MSR.MCG_STATUS,
    field("IA32_MCG_STATUS", S.MCG_STATUS, (_c, low, high) => high === 0 && (low & ~7) === 0, "mca"),
  ],
  [MSR.MISC_ENABLE, {
    name: "IA32_MISC_ENABLE",
    read: (cpu) => cpu.get64(S.MISC_ENABLE),
    write: (cpu, low, high) => {
      cpu.set64Halves(S.MISC_ENABLE, (low & MISC_ENABLE_LOW) | MISC_ENABLE_FIXED, high & MISC_ENABLE_HIGH);
      return true;
    },
  }],
  // LBR and BTF. There are no branch records to be had, and single-stepping does not stop at branches only.
  [MSR.DEBUGCTL, field("IA32_DEBUGCTL", S.DEBUGCTL, (_c, low, high) => ((low & ~3) | high) === 0)],
  [MSR.PAT, field("IA32_PAT", S.PAT, (_c, low, high) => areMemoryTypes(low, high, true), "pat")],
  [
    MSR.MTRR_DEF_TYPE,
    field(
      "IA32_MTRR_DEF_TYPE",
      S.MTRR_DEF_TYPE,
      (_c, low, high) => high === 0 && (low & ~0xcff) === 0 && isMemoryType(low & 0xff),
      "mtrr",
    ),
  ],
  [MSR.XSS, {
    name: "IA32_XSS",
    feature: "xsaves",
    read: () => 0n,
    // No supervisor state component can be enabled.
    write: (_cpu, low, high) => (low | high) === 0,
  }],
  [MSR.TSC_DEADLINE, apicMsr("IA32_TSC_DEADLINE", MSR.TSC_DEADLINE, "tsc_deadline")],
  [MSR.EFER, {
    name: "IA32_EFER",
    read: (cpu) => cpu.get64(S.EFER),
    write: (cpu, low, high) => {
      writeEfer(cpu, low, high);
      return true;
    },
  }],
  [MSR.STAR, field("IA32_STAR", S.STAR, () => true, "syscall")],
  [MSR.LSTAR, field("IA32_LSTAR", S.LSTAR, canonical, "syscall")],
  [MSR.CSTAR, field("IA32_CSTAR", S.CSTAR, canonical, "syscall")],
  [MSR.FMASK, field("IA32_FMASK", S.FMASK, lowOnly, "syscall")],
  [MSR.FS_BASE, field("IA32_FS_BASE", S.SEGBASE + SEG.FS * 8, canonical, "lm")],
  [MSR.GS_BASE, field("IA32_GS_BASE", S.SEGBASE + SEG.GS * 8, canonical, "lm")],
  [MSR.KERNEL_GS_BASE, field("IA32_KERNEL_GS_BASE", S.KERNEL_GS_BASE, canonical, "lm")],
  [MSR.TSC_AUX, field("IA32_TSC_AUX", S.TSC_AUX, lowOnly, "rdtscp")],
]);
for (const msr of capabilityMsrs) {
  table.set(msr.number, {
    name: msr.name,
    feature: "vmx",
    read: (cpu) =>
      hasCapabilityMsr(cpu.model, msr) ? msr.value(vmxCapability(cpu.model)) : cpu.raise(VECTOR.GP, 0),
  });
}
for (let i = 0; i < MTRR_VARIABLE_COUNT; i++) {
  table.set(
    0x200 + i * 2,
    field(
      `IA32_MTRR_PHYSBASE${i}`,
      S.MTRR_VAR + i * 16,
      (cpu, low, high) => !(low & 0xf00) && isMemoryType(low & 0xff) && !(high & physicalReserved(cpu)),
      "mtrr",
    ),
  );
  table.set(
    0x201 + i * 2,
    field(
      `IA32_MTRR_PHYSMASK${i}`,
      S.MTRR_VAR + i * 16 + 8,
      (cpu, low, high) => !(low & 0x7ff) && !(high & physicalReserved(cpu)),
      "mtrr",
    ),
  );
}
MTRR_FIXED.forEach((number, i) =>
  table.set(
    number,
    field(
      `IA32_MTRR_FIX_${number.toString(16).toUpperCase()}`,
      S.MTRR_FIX + i * 8,
      (_c, low, high) => areMemoryTypes(low, high, false),
      "mtrr",
    ),
  )
);

/** The MSR with this number, if `cpu` has it. 800H … 8FFH belong to the local APIC and are not here. */
export function findMsr(cpu: Cpu, number: number): Msr | undefined {
  const msr = table.get(number);
  return msr?.feature === undefined || cpu.model.features.has(msr.feature) ? msr : undefined;
}

/** True for the x2APIC registers. */
function isX2apic(number: number): boolean {
  return number >= 0x800 && number <= 0x8ff;
}

/** RDMSR, all 64 bits. Raises #GP(0) for an MSR that is not there. */
export function readMsr(cpu: Cpu, number: number): bigint {
  const msr = isX2apic(number) ? apicMsr("x2APIC", number, "x2apic") : findMsr(cpu, number);
  return msr === undefined ? cpu.raise(VECTOR.GP, 0) : msr.read(cpu);
}

/** WRMSR with signed halves. Raises #GP(0) for an MSR that is not there or a value that it does not take. */
export function writeMsr(cpu: Cpu, number: number, low: number, high: number): void {
  const ok = isX2apic(number)
    ? cpu.apic.writeMsr(number, low, high)
    : findMsr(cpu, number)?.write?.(cpu, low, high) ?? false;
  if (!ok) cpu.raise(VECTOR.GP, 0);
}

/** Procedures of this file. The rows have checked CPL. */
export const msrProcedures: Procedures = {
  /** (ECX) → value. */
  rdmsr(cpu) {
    const number = cpu.argLow(0);
    if (isNonRoot(cpu)) {
      if (msrExits(cpu, number, false)) return EXIT_FAULT;
      if (isX2apic(number) && readVirtualMsr(cpu, number)) {
        cpu.setResult(virtualMsr.low, virtualMsr.high);
        return EXIT_NONE;
      }
      if (number === MSR.TSC) {
        const value = guestTimeStamp(cpu, timeStamp(cpu));
        cpu.setResult(Number(value & 0xffff_ffffn), Number(value >> 32n));
        return EXIT_NONE;
      }
    }
    if (isX2apic(number)) {
      if (!cpu.apic.readMsr(number)) return cpu.setFault(VECTOR.GP, 0);
      cpu.setResult(cpu.apic.msrLow, cpu.apic.msrHigh);
      return EXIT_NONE;
    }
    const value = readMsr(cpu, number);
    cpu.setResult(Number(value & 0xffff_ffffn), Number(value >> 32n));
    return EXIT_NONE;
  },
  /** (ECX, EDX:EAX). */
  wrmsr(cpu) {
    if (isNonRoot(cpu)) {
      const number = cpu.argLow(0);
      if (msrExits(cpu, number, true)) return EXIT_FAULT;
      if (isX2apic(number)) {
        const outcome = writeVirtualMsr(cpu, number, cpu.argLow(1) | 0, cpu.argHigh(1) | 0);
        if (outcome !== WRITE.NOT_VIRTUAL) {
          return outcome === WRITE.FAULT ? cpu.setFault(VECTOR.GP, 0) : afterTransfer(cpu);
        }
      }
    }
    writeMsr(cpu, cpu.argLow(0), cpu.argLow(1) | 0, cpu.argHigh(1) | 0);
    return afterTransfer(cpu);
  },
};
