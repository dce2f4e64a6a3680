/**
 * The VMX instructions: VMXON, VMXOFF, VMCLEAR, VMPTRLD, VMPTRST, VMREAD, VMWRITE, VMLAUNCH, VMRESUME, VMCALL, VMFUNC, INVEPT, INVVPID;
 * and the intercepts of instructions that do nothing else in TypeScript.
 *
 * Room: `hw/vmx/`; procedures of the instruction table (isa/vmx_rows.ts). SDM vol. 3C, "VMX Instruction Reference". What their operands
 * mean for translation is hw/ept.ts's.
 *
 * @module
 */
import { type Cpu, FAULT, type Procedures, VECTOR } from "../cpu.ts";
import { eptpSwitched, invept, invvpid, isValidEptp } from "../ept.ts";
import { storeStatusFlags } from "../flags.ts";
import * as state from "../state.ts";
import { isCpuCanonical, isLongMode } from "../sys/mode.ts";
import { TRACE } from "../trace.ts";
import * as vmcs from "../vmcs.ts";
import { vmxCapability } from "./capability.ts";
import * as contract from "./contract.ts";
import * as controls from "./controls.ts";
import { vmEntry } from "./entry.ts";
import { F, FIELD_TYPE, FIELD_WIDTH, fieldOffset, fieldType, fieldWidth } from "./fields.ts";
import {
  exitDescriptorTable,
  exitFieldAccess,
  exitInvalidation,
  exitMemoryOperand,
  pauseExits,
} from "./intercepts.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const { EXIT_END, EXIT_FAULT, EXIT_NONE, RFLAGS, S, SEG } = state;
const { isNonRoot, PROC, PROC2, REASON, requestExit, VMX } = contract;
const { BLOCKING } = controls;
const { VMCS } = vmcs;

/** VM-instruction error numbers (SDM vol. 3C, "VM Instruction Error Numbers"). */
export const ERROR = {
  VMCALL_IN_ROOT: 1,
  VMCLEAR_ADDRESS: 2,
  VMCLEAR_VMXON_POINTER: 3,
  VMLAUNCH_NOT_CLEAR: 4,
  VMRESUME_NOT_LAUNCHED: 5,
  VMPTRLD_ADDRESS: 9,
  VMPTRLD_VMXON_POINTER: 10,
  VMPTRLD_REVISION: 11,
  UNSUPPORTED_FIELD: 12,
  READ_ONLY_FIELD: 13,
  VMXON_IN_ROOT: 15,
  BLOCKED_BY_MOV_SS: 26,
  INVALIDATION_OPERAND: 28,
} as const;

const AR_L = 0x2000, CR0_PE = 1;
/** IA32_FEATURE_CONTROL: locked, VMXON outside SMX. */
const LOCKED = 1, OUTSIDE_SMX = 4;

/** #UD conditions that all VMX instructions have in common, VMX operation not among them. */
function isWrongMode(cpu: Cpu): boolean {
  return (cpu.get32(S.CR0) & CR0_PE) === 0 || (cpu.get32(S.RFLAGS) & RFLAGS.VM) !== 0 ||
    (isLongMode(cpu) && (cpu.segAr(SEG.CS) & AR_L) === 0);
}

/** VMsucceed. */
function succeed(cpu: Cpu): number {
  storeStatusFlags(cpu.memory.i32, cpu.base, 0);
  return EXIT_END;
}
/** VMfail: VMfailValid if there is a current VMCS, else VMfailInvalid. */
function fail(cpu: Cpu, error: number): number {
  if (!vmcs.hasCurrent(cpu)) return failInvalid(cpu);
  if (isNonRoot(cpu)) {
    // A shadowed VMREAD or VMWRITE: the guest's own VMCS is the one at the link pointer.
    vmcs.writePhysical32(cpu, (region.low + fieldOffset[F.INSTRUCTION_ERROR]!) | 0, region.high, error);
  } else vmcs.set32(cpu, F.INSTRUCTION_ERROR, error);
  storeStatusFlags(cpu.memory.i32, cpu.base, RFLAGS.ZF);
  tellFailure(cpu, error);
  return EXIT_END;
}
function failInvalid(cpu: Cpu): number {
  storeStatusFlags(cpu.memory.i32, cpu.base, RFLAGS.CF);
  tellFailure(cpu, 0);
  return EXIT_END;
}
function tellFailure(cpu: Cpu, error: number): void {
  if (!(cpu.trace.wants & TRACE.vmx)) return;
  cpu.trace.emit({
    kind: "vmx",
    cpu: cpu.id,
    time: cpu.now(),
    what: "fail",
    vmcs: vmcs.currentAddress(cpu),
    rip: cpu.rip,
    number: error,
    qualification: 0n,
  });
}

/**
 * What comes first in all of them but VMXON, VMCALL and VMFUNC: #UD, VM exit, #GP(0).
 *
 * @param exit Asks for the instruction's VM exit.
 * @throws {typeof FAULT} when one of them comes.
 */
function prologue(cpu: Cpu, exit: () => number): void {
  if (cpu.get32(S.VMX_MODE) === VMX.OFF || isWrongMode(cpu)) cpu.raise(VECTOR.UD);
  if (isNonRoot(cpu)) {
    exit();
    throw FAULT;
  }
  if (cpu.get32(S.CPL) !== 0) cpu.raise(VECTOR.GP, 0);
}

/** Whether an address has a bit at or above MAXPHYADDR, or is not that of a page. */
function isBadPointer(cpu: Cpu, low: number, high: number): boolean {
  return (low & 0xfff) !== 0 || (high & (-1 << (cpu.model.maxPhysicalBits - 32))) !== 0;
}
function isVmxonPointer(cpu: Cpu, low: number, high: number): boolean {
  return cpu.get32(S.VMX_ON_POINTER) === low >>> 0 && cpu.get32(S.VMX_ON_POINTER + 4) === high >>> 0;
}
function isCurrent(cpu: Cpu, low: number, high: number): boolean {
  return cpu.get32(S.VMX_POINTER) === low >>> 0 && cpu.get32(S.VMX_POINTER + 4) === high >>> 0;
}

/** CR0 and CR4 are as VMX operation wants them. */
function hasFixedBits(cpu: Cpu): boolean {
  const c = vmxCapability(cpu.model), cr0 = cpu.get32(S.CR0), cr4 = cpu.get32(S.CR4);
  return (c.cr0Fixed0 & ~cr0) === 0 && (cr0 & ~c.cr0Fixed1) === 0 && (c.cr4Fixed0 & ~cr4) === 0 &&
    (cr4 & ~c.cr4Fixed1) === 0;
}

function enterRoot(cpu: Cpu, low: number, high: number): void {
  cpu.set32(S.VMX_MODE, VMX.ROOT);
  cpu.set64Halves(S.VMX_ON_POINTER, low, high);
  cpu.set64Halves(S.VMX_POINTER, -1, -1);
  cpu.set64Halves(S.VMX_APIC_ACCESS, -1, -1);
  cpu.set64Halves(S.VMX_VIRTUAL_APIC, -1, -1);
  cpu.set32(S.VMX_MONITOR, 0);
}

// ---- VMREAD and VMWRITE

/** Where a field stands in a region; 0 for one that the processor has not. Upper halves are the odd encodings of 64-bit fields. */
function fieldAt(cpu: Cpu, low: number, high: number): number {
  if (high !== 0 || (low & ~0x7fff) !== 0) return 0;
  if (low & 1 && fieldWidth(low) !== FIELD_WIDTH.W64) return 0;
  const at = vmxCapability(cpu.model).fields[low & ~1]!;
  return at === 0 || !(low & 1) ? at : at + 4;
}

/** The region that VMREAD and VMWRITE access: the current VMCS, in non-root operation the one at the link pointer. */
const region = { low: 0, high: 0, exists: false };
function findRegion(cpu: Cpu): void {
  if (isNonRoot(cpu)) {
    region.low = vmcs.get32(cpu, F.VMCS_LINK_POINTER);
    region.high = vmcs.getHigh(cpu, F.VMCS_LINK_POINTER);
  } else {
    region.low = cpu.get32(S.VMX_POINTER) | 0;
    region.high = cpu.get32(S.VMX_POINTER + 4) | 0;
  }
  region.exists = (region.low & region.high) !== -1;
}

/** The status of a VMREAD whose value is on its way: an error number, 0 for success, −1 for VMfailInvalid. */
function readField(cpu: Cpu, low: number, high: number): number {
  findRegion(cpu);
  if (!region.exists) return -1;
  const at = fieldAt(cpu, low, high);
  if (at === 0) return ERROR.UNSUPPORTED_FIELD;
  const width = fieldWidth(low);
  const wide = !(low & 1) && (width === FIELD_WIDTH.W64 || width === FIELD_WIDTH.NATURAL) && cpu.is64;
  const value = vmcs.readPhysical32(cpu, (region.low + at) | 0, region.high);
  cpu.setResult(value, wide ? vmcs.readPhysical32(cpu, (region.low + at + 4) | 0, region.high) : 0);
  return 0;
}

function writeField(cpu: Cpu, low: number, high: number, valueLow: number, valueHigh: number): number {
  findRegion(cpu);
  if (!region.exists) return failInvalid(cpu);
  const at = fieldAt(cpu, low, high);
  if (at === 0) return fail(cpu, ERROR.UNSUPPORTED_FIELD);
  if (fieldType(low) === FIELD_TYPE.READ_ONLY && !cpu.model.features.has("vmx-vmwrite-vmexit-fields")) {
    return fail(cpu, ERROR.READ_ONLY_FIELD);
  }
  const width = fieldWidth(low);
  if (width === FIELD_WIDTH.W16) valueLow &= 0xffff;
  vmcs.writePhysical32(cpu, (region.low + at) | 0, region.high, valueLow);
  if (!(low & 1) && (width === FIELD_WIDTH.W64 || width === FIELD_WIDTH.NATURAL)) {
    vmcs.writePhysical32(cpu, (region.low + at + 4) | 0, region.high, cpu.is64 ? valueHigh : 0);
  }
  return succeed(cpu);
}

/** Whether VMREAD or VMWRITE of a field in non-root operation exits: without shadowing always, with it by the bitmaps. */
function fieldAccessExits(cpu: Cpu, low: number, high: number, write: boolean): boolean {
  if (!(cpu.get32(S.VMX_PROC2) & PROC2.VMCS_SHADOWING)) return true;
  if (high !== 0 || (low & ~0x7fff) !== 0) return true;
  const bitmap = write ? F.VMWRITE_BITMAP : F.VMREAD_BITMAP;
  const word = vmcs.readPhysical32(
    cpu,
    (vmcs.get32(cpu, bitmap) | ((low >>> 3) & ~3)) | 0,
    vmcs.getHigh(cpu, bitmap),
  );
  return ((word >>> (low & 31)) & 1) === 1;
}

/** Prologue of VMREAD and VMWRITE, which shadowing may let a guest execute. */
function fieldPrologue(cpu: Cpu, write: boolean): number {
  const low = cpu.argLow(0) | 0, high = cpu.argHigh(0) | 0;
  if (cpu.get32(S.VMX_MODE) === VMX.OFF || isWrongMode(cpu)) return cpu.setFault(VECTOR.UD);
  if (isNonRoot(cpu) && fieldAccessExits(cpu, low, high, write)) {
    return exitFieldAccess(cpu, write ? REASON.VMWRITE : REASON.VMREAD, false);
  }
  return cpu.get32(S.CPL) !== 0 ? cpu.setFault(VECTOR.GP, 0) : EXIT_NONE;
}

// ---- VMLAUNCH, VMRESUME

function launchOrResume(cpu: Cpu, launch: boolean): number {
  prologue(cpu, () => requestExit(cpu, launch ? REASON.VMLAUNCH : REASON.VMRESUME));
  if (!vmcs.hasCurrent(cpu) || vmcs.wordAt(cpu, VMCS.REVISION) < 0) return failInvalid(cpu);
  if (cpu.get32(S.BLOCKING) & BLOCKING.MOV_SS) return fail(cpu, ERROR.BLOCKED_BY_MOV_SS);
  const launched = vmcs.wordAt(cpu, VMCS.LAUNCH) === vmcs.LAUNCHED;
  if (launch && launched) return fail(cpu, ERROR.VMLAUNCH_NOT_CLEAR);
  if (!launch && !launched) return fail(cpu, ERROR.VMRESUME_NOT_LAUNCHED);
  const error = vmEntry(cpu);
  return error === 0 ? EXIT_END : fail(cpu, error);
}

// ---- INVEPT, INVVPID

/** Bits of IA32_VMX_EPT_VPID_CAP. */
function capability(cpu: Cpu, bit: number): boolean {
  return ((vmxCapability(cpu.model).eptVpid >> BigInt(bit)) & 1n) === 1n;
}

/** #UD where the instruction does not exist; then the prologue. */
function invalidationPrologue(cpu: Cpu, reason: number): number {
  const exists = reason === REASON.INVEPT
    ? cpu.model.features.has("vmx-ept") && capability(cpu, 20)
    : cpu.model.features.has("vmx-vpid") && capability(cpu, 32);
  if (!exists) return cpu.setFault(VECTOR.UD);
  prologue(cpu, () => exitInvalidation(cpu, reason, false));
  return EXIT_NONE;
}

/** VMFUNC leaf 0. */
function switchEptp(cpu: Cpu): number {
  const index = cpu.get32(S.GPR + 1 * 8);
  const exit = (): number => requestExit(cpu, REASON.VMFUNC);
  if (index >= 512) return exit();
  const at = (vmcs.get32(cpu, F.EPTP_LIST_ADDRESS) | (index * 8)) | 0,
    listHigh = vmcs.getHigh(cpu, F.EPTP_LIST_ADDRESS);
  const low = vmcs.readPhysical32(cpu, at, listHigh), high = vmcs.readPhysical32(cpu, at + 4, listHigh);
  if (!isValidEptp(cpu.model, low, high)) return exit();
  vmcs.setHalves(cpu, F.EPT_POINTER, low, high);
  cpu.set64Halves(S.VMX_EPTP, low, high);
  if (cpu.get32(S.VMX_PROC2) & PROC2.EPT_VIOLATION_VE) vmcs.set32(cpu, F.EPTP_INDEX, index);
  eptpSwitched(cpu);
  return EXIT_END;
}

/** Procedures of this file. */
export const vmxProcedures: Procedures = {
  /** → 1 when VMXON is over (it failed in root operation). */
  vmxonPrologue(cpu) {
    if ((cpu.get32(S.CR4) & 0x2000) === 0 || isWrongMode(cpu)) return cpu.setFault(VECTOR.UD);
    if (isNonRoot(cpu)) return exitMemoryOperand(cpu, REASON.VMXON, false);
    if (cpu.get32(S.CPL) !== 0) return cpu.setFault(VECTOR.GP, 0);
    if (cpu.get32(S.VMX_MODE) === VMX.ROOT) {
      fail(cpu, ERROR.VMXON_IN_ROOT);
      cpu.setResult(1, 0);
      return EXIT_NONE;
    }
    const wanted = LOCKED | OUTSIDE_SMX;
    if (!hasFixedBits(cpu) || (cpu.get32(S.FEATURE_CONTROL) & wanted) !== wanted) {
      return cpu.setFault(VECTOR.GP, 0);
    }
    cpu.setResult(0, 0);
    return EXIT_NONE;
  },
  /** (pointer). */
  vmxon(cpu) {
    const low = cpu.argLow(0) | 0, high = cpu.argHigh(0) | 0;
    if (isBadPointer(cpu, low, high)) return failInvalid(cpu);
    if (vmcs.readPhysical32(cpu, low, high) !== vmxCapability(cpu.model).revision) return failInvalid(cpu);
    enterRoot(cpu, low, high);
    return succeed(cpu);
  },
  vmxoff(cpu) {
    prologue(cpu, () => requestExit(cpu, REASON.VMXOFF));
    cpu.set32(S.VMX_MODE, VMX.OFF);
    cpu.set64Halves(S.VMX_POINTER, 0, 0);
    cpu.set64Halves(S.VMX_ON_POINTER, 0, 0);
    cpu.set64Halves(S.VMX_APIC_ACCESS, 0, 0);
    cpu.set64Halves(S.VMX_VIRTUAL_APIC, 0, 0);
    return succeed(cpu);
  },
  vmcall(cpu) {
    if (cpu.get32(S.VMX_MODE) === VMX.OFF) return cpu.setFault(VECTOR.UD);
    if (isNonRoot(cpu)) return requestExit(cpu, REASON.VMCALL);
    if (isWrongMode(cpu)) return cpu.setFault(VECTOR.UD);
    if (cpu.get32(S.CPL) !== 0) return cpu.setFault(VECTOR.GP, 0);
    return fail(cpu, ERROR.VMCALL_IN_ROOT);
  },
  vmlaunch(cpu) {
    return launchOrResume(cpu, true);
  },
  vmresume(cpu) {
    return launchOrResume(cpu, false);
  },
  /** (exit reason): VMCLEAR, VMPTRLD, VMPTRST, before their operand is touched. */
  vmPointerPrologue(cpu) {
    const reason = cpu.argLow(0);
    prologue(cpu, () => exitMemoryOperand(cpu, reason, false));
    return EXIT_NONE;
  },
  /** (pointer). */
  vmclear(cpu) {
    const low = cpu.argLow(0) | 0, high = cpu.argHigh(0) | 0;
    if (isBadPointer(cpu, low, high)) return fail(cpu, ERROR.VMCLEAR_ADDRESS);
    if (isVmxonPointer(cpu, low, high)) return fail(cpu, ERROR.VMCLEAR_VMXON_POINTER);
    vmcs.writePhysical32(cpu, low + VMCS.LAUNCH, high, 0);
    if (isCurrent(cpu, low, high)) cpu.set64Halves(S.VMX_POINTER, -1, -1);
    return succeed(cpu);
  },
  /** (pointer). */
  vmptrld(cpu) {
    const low = cpu.argLow(0) | 0, high = cpu.argHigh(0) | 0;
    if (isBadPointer(cpu, low, high)) return fail(cpu, ERROR.VMPTRLD_ADDRESS);
    if (isVmxonPointer(cpu, low, high)) return fail(cpu, ERROR.VMPTRLD_VMXON_POINTER);
    const c = vmxCapability(cpu.model), header = vmcs.readPhysical32(cpu, low, high);
    if ((header & 0x7fff_ffff) !== c.revision || (header < 0 && !c.features.has("vmx-shadow-vmcs"))) {
      return fail(cpu, ERROR.VMPTRLD_REVISION);
    }
    cpu.set64Halves(S.VMX_POINTER, low, high);
    return succeed(cpu);
  },
  /** VMsucceed of VMPTRST. */
  vmSucceed(cpu) {
    return succeed(cpu);
  },
  /** (encoding). */
  vmreadPrologue(cpu) {
    return fieldPrologue(cpu, false);
  },
  /** (encoding) → value; status in the next slot. */
  vmread(cpu) {
    const status = readField(cpu, cpu.argLow(0) | 0, cpu.argHigh(0) | 0);
    cpu.set64Halves(S.ARG + 8, status, 0);
    return EXIT_NONE;
  },
  /** (status of VMREAD). */
  vmreadStatus(cpu) {
    const status = cpu.argLow(0) | 0;
    return status === 0 ? succeed(cpu) : status < 0 ? failInvalid(cpu) : fail(cpu, status);
  },
  /** (encoding). */
  vmwritePrologue(cpu) {
    return fieldPrologue(cpu, true);
  },
  /** (encoding, value). */
  vmwrite(cpu) {
    return writeField(cpu, cpu.argLow(0) | 0, cpu.argHigh(0) | 0, cpu.argLow(1) | 0, cpu.argHigh(1) | 0);
  },
  inveptPrologue(cpu) {
    return invalidationPrologue(cpu, REASON.INVEPT);
  },
  /** (type, descriptor's first and second eight bytes). */
  invept(cpu) {
    const type = cpu.argLow(0), low = cpu.argLow(1) | 0, high = cpu.argHigh(1) | 0;
    const supported = cpu.argHigh(0) === 0 &&
      ((type === 1 && capability(cpu, 25)) || (type === 2 && capability(cpu, 26)));
    const bad = !supported || (type === 1 && !isValidEptp(cpu.model, low, high));
    if (bad) return fail(cpu, ERROR.INVALIDATION_OPERAND);
    invept(cpu, type, low, high);
    return succeed(cpu);
  },
  invvpidPrologue(cpu) {
    return invalidationPrologue(cpu, REASON.INVVPID);
  },
  /** (type, descriptor's first and second eight bytes). */
  invvpid(cpu) {
    const type = cpu.argLow(0), low = cpu.argLow(1), vpid = low & 0xffff;
    const supported = cpu.argHigh(0) === 0 && type <= 3 && capability(cpu, 40 + type);
    const bad = !supported || low >>> 16 !== 0 || cpu.argHigh(1) !== 0 || (type !== 2 && vpid === 0) ||
      (type === 0 && !isCpuCanonical(cpu, cpu.argHigh(2)));
    if (bad) return fail(cpu, ERROR.INVALIDATION_OPERAND);
    invvpid(cpu, type, vpid, cpu.argLow(2) | 0, cpu.argHigh(2) | 0);
    return succeed(cpu);
  },
  /** #UD outside non-root operation, and without the control or for functions from 64 on. */
  vmfunc(cpu) {
    const leaf = cpu.get32(S.GPR);
    if (!isNonRoot(cpu) || !(cpu.get32(S.VMX_PROC2) & PROC2.VM_FUNCTIONS) || leaf >= 64) {
      return cpu.setFault(VECTOR.UD);
    }
    if (leaf !== 0 || !(cpu.get32(S.VMX_FUNCTIONS) & 1)) return requestExit(cpu, REASON.VMFUNC);
    return switchEptp(cpu);
  },

  // ---- intercepts of instructions that otherwise never leave generated code
  /** SGDT … LTR, where "descriptor-table exiting" is in force. */
  exitDescriptorTable(cpu) {
    return exitDescriptorTable(cpu);
  },
  /** PAUSE in non-root operation. */
  pause(cpu) {
    return pauseExits(cpu) ? EXIT_FAULT : EXIT_NONE;
  },
  /** INVD: always exits in non-root operation; caches are not modelled, there is nothing to do. */
  invd(cpu) {
    return isNonRoot(cpu) ? requestExit(cpu, REASON.INVD) : EXIT_NONE;
  },
  /** WBINVD and WBNOINVD. */
  wbinvd(cpu) {
    return cpu.get32(S.VMX_PROC2) & PROC2.WBINVD ? requestExit(cpu, REASON.WBINVD) : EXIT_NONE;
  },
  /** RDPMC: there are no counters. */
  rdpmc(cpu) {
    if ((cpu.get32(S.CR4) & 0x100) === 0 && cpu.get32(S.CPL) !== 0) return cpu.setFault(VECTOR.GP, 0);
    return cpu.get32(S.VMX_PROC) & PROC.RDPMC ? requestExit(cpu, REASON.RDPMC) : cpu.setFault(VECTOR.GP, 0);
  },
  /** MONITOR, before its operand is looked at. */
  monitorExit(cpu) {
    return cpu.get32(S.VMX_PROC) & PROC.MONITOR ? requestExit(cpu, REASON.MONITOR) : EXIT_NONE;
  },
  /** MONITOR is done: the address range is armed. */
  monitorArm(cpu) {
    cpu.set32(S.VMX_MONITOR, 1);
    return EXIT_NONE;
  },
  /** MWAIT in non-root operation: the qualification says whether a MONITOR is armed. */
  mwaitExit(cpu) {
    return cpu.get32(S.VMX_PROC) & PROC.MWAIT
      ? requestExit(cpu, REASON.MWAIT, cpu.get32(S.VMX_MONITOR))
      : EXIT_NONE;
  },
};
