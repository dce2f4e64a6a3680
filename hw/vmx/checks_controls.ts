/**
 * Checks on VMX controls, in the manual's order (SDM vol. 3C, "Checks on VMX Controls"). A failure is VMfailValid(7).
 *
 * Room: `hw/vmx/`; imports check.ts and what the controls are.
 *
 * @module
 */
import * as vmcs from "../vmcs.ts";
import { isValidEptp } from "../ept.ts";
import type { ControlRange } from "./capability.ts";
import { type EntryContext, isMsrArea, type Rule, rule } from "./check.ts";
import { EVENT, EXIT } from "./controls.ts";
import { PIN, PROC, PROC2 } from "./contract.ts";
import { F, type FieldName } from "./fields.ts";

const EXECUTION = "VM-Execution Control Fields";
const EXITS = "VM-Exit Control Fields";
const ENTRIES = "VM-Entry Control Fields";

/** Offset of VTPR in the virtual-APIC page. */
const VTPR = 0x80;

function isInRange(value: number, range: ControlRange): boolean {
  return (range.trueMustBeOne & ~value) === 0 && (value & ~range.mayBeOne) === 0;
}

/** The TPR threshold may not exceed bits 7:4 of VTPR. */
function thresholdHolds(c: EntryContext): boolean {
  if (!(c.proc & PROC.TPR_SHADOW) || c.has2(PROC2.VIRTUALIZE_APIC_ACCESSES | PROC2.VIRTUAL_INTERRUPTS)) {
    return true;
  }
  const vtpr = vmcs.readPhysical32(
    c.cpu,
    (c.low(F.VIRTUAL_APIC_ADDRESS) & ~0xfff) | VTPR,
    c.high(F.VIRTUAL_APIC_ADDRESS),
  );
  return (c.low(F.TPR_THRESHOLD) & 0xf) <= ((vtpr >>> 4) & 0xf);
}

/** An execution control. */
function execution(
  name: string,
  fields: readonly FieldName[],
  satisfied: string,
  holds: (c: EntryContext) => boolean,
): Rule {
  return rule(EXECUTION, name, fields, satisfied, holds);
}

/** Checks on the VM-execution control fields. */
export const executionRules: readonly Rule[] = [
  execution(
    "pinBasedReserved",
    ["PIN_BASED_CONTROLS"],
    "reserved bits as IA32_VMX_(TRUE_)PINBASED_CTLS says",
    (c) => isInRange(c.pin, c.capability.pin),
  ),
  execution(
    "primaryReserved",
    ["PROCESSOR_BASED_CONTROLS"],
    "reserved bits as IA32_VMX_(TRUE_)PROCBASED_CTLS says",
    (c) => isInRange(c.proc, c.capability.proc),
  ),
  execution(
    "secondaryReserved",
    ["PROCESSOR_BASED_CONTROLS", "SECONDARY_CONTROLS"],
    "reserved bits as IA32_VMX_PROCBASED_CTLS2 says",
    (c) => isInRange(c.proc2, c.capability.proc2),
  ),
  execution(
    "cr3TargetCount",
    ["CR3_TARGET_COUNT"],
    "at most as many CR3-target values as IA32_VMX_MISC says",
    (c) => c.low(F.CR3_TARGET_COUNT) >>> 0 <= c.capability.cr3Targets,
  ),
  execution(
    "ioBitmapA",
    ["PROCESSOR_BASED_CONTROLS", "IO_BITMAP_A"],
    'an aligned physical address, with "use I/O bitmaps"',
    (c) => !(c.proc & PROC.IO_BITMAPS) || c.isAligned(F.IO_BITMAP_A, 12),
  ),
  execution(
    "ioBitmapB",
    ["PROCESSOR_BASED_CONTROLS", "IO_BITMAP_B"],
    'an aligned physical address, with "use I/O bitmaps"',
    (c) => !(c.proc & PROC.IO_BITMAPS) || c.isAligned(F.IO_BITMAP_B, 12),
  ),
  execution(
    "msrBitmaps",
    ["PROCESSOR_BASED_CONTROLS", "MSR_BITMAPS"],
    'an aligned physical address, with "use MSR bitmaps"',
    (c) => !(c.proc & PROC.MSR_BITMAPS) || c.isAligned(F.MSR_BITMAPS, 12),
  ),
  execution(
    "virtualApicAddress",
    ["PROCESSOR_BASED_CONTROLS", "VIRTUAL_APIC_ADDRESS"],
    'an aligned physical address, with "use TPR shadow"',
    (c) => !(c.proc & PROC.TPR_SHADOW) || c.isAligned(F.VIRTUAL_APIC_ADDRESS, 12),
  ),
  execution(
    "tprThresholdReserved",
    ["PROCESSOR_BASED_CONTROLS", "SECONDARY_CONTROLS", "TPR_THRESHOLD"],
    'bits 31:4 clear, with "use TPR shadow" and without "virtual-interrupt delivery"',
    (c) =>
      !(c.proc & PROC.TPR_SHADOW) || c.has2(PROC2.VIRTUAL_INTERRUPTS) ||
      (c.low(F.TPR_THRESHOLD) & ~0xf) === 0,
  ),
  execution(
    "tprThresholdAboveVtpr",
    ["PROCESSOR_BASED_CONTROLS", "SECONDARY_CONTROLS", "TPR_THRESHOLD", "VIRTUAL_APIC_ADDRESS"],
    "a threshold not above bits 7:4 of VTPR, where TPR accesses are only shadowed",
    thresholdHolds,
  ),
  execution(
    "virtualNmisNeedNmiExiting",
    ["PIN_BASED_CONTROLS"],
    '"virtual NMIs" only with "NMI exiting"',
    (c) => !(c.pin & PIN.VIRTUAL_NMIS) || (c.pin & PIN.NMI) !== 0,
  ),
  execution(
    "nmiWindowNeedsVirtualNmis",
    ["PIN_BASED_CONTROLS", "PROCESSOR_BASED_CONTROLS"],
    '"NMI-window exiting" only with "virtual NMIs"',
    (c) => !(c.proc & PROC.NMI_WINDOW) || (c.pin & PIN.VIRTUAL_NMIS) !== 0,
  ),
  execution(
    "apicAccessAddress",
    ["SECONDARY_CONTROLS", "APIC_ACCESS_ADDRESS"],
    'an aligned physical address, with "virtualize APIC accesses"',
    (c) => !c.has2(PROC2.VIRTUALIZE_APIC_ACCESSES) || c.isAligned(F.APIC_ACCESS_ADDRESS, 12),
  ),
  execution(
    "apicVirtualizationNeedsTprShadow",
    ["PROCESSOR_BASED_CONTROLS", "SECONDARY_CONTROLS"],
    'x2APIC mode, APIC-register virtualization and virtual-interrupt delivery only with "use TPR shadow"',
    (c) =>
      (c.proc & PROC.TPR_SHADOW) !== 0 ||
      !c.has2(PROC2.X2APIC | PROC2.APIC_REGISTERS | PROC2.VIRTUAL_INTERRUPTS),
  ),
  execution(
    "x2apicExcludesApicAccesses",
    ["SECONDARY_CONTROLS"],
    'not both "virtualize x2APIC mode" and "virtualize APIC accesses"',
    (c) => !(c.has2(PROC2.X2APIC) && c.has2(PROC2.VIRTUALIZE_APIC_ACCESSES)),
  ),
  execution(
    "virtualInterruptsNeedInterruptExiting",
    ["PIN_BASED_CONTROLS", "SECONDARY_CONTROLS"],
    '"virtual-interrupt delivery" only with "external-interrupt exiting"',
    (c) => !c.has2(PROC2.VIRTUAL_INTERRUPTS) || (c.pin & PIN.EXTERNAL_INTERRUPT) !== 0,
  ),
  execution(
    "postedInterruptsNeedVirtualInterrupts",
    ["PIN_BASED_CONTROLS", "SECONDARY_CONTROLS"],
    '"process posted interrupts" only with "virtual-interrupt delivery"',
    (c) => !(c.pin & PIN.POSTED_INTERRUPTS) || c.has2(PROC2.VIRTUAL_INTERRUPTS),
  ),
  execution(
    "postedInterruptsNeedAcknowledge",
    ["PIN_BASED_CONTROLS", "EXIT_CONTROLS"],
    '"process posted interrupts" only with "acknowledge interrupt on exit"',
    (c) => !(c.pin & PIN.POSTED_INTERRUPTS) || (c.exit & EXIT.ACKNOWLEDGE_INTERRUPT) !== 0,
  ),
  execution(
    "postedInterruptVector",
    ["PIN_BASED_CONTROLS", "POSTED_INTERRUPT_VECTOR"],
    "a notification vector of 8 bits",
    (c) => !(c.pin & PIN.POSTED_INTERRUPTS) || (c.low(F.POSTED_INTERRUPT_VECTOR) & 0xff00) === 0,
  ),
  execution(
    "postedInterruptDescriptor",
    ["PIN_BASED_CONTROLS", "POSTED_INTERRUPT_DESCRIPTOR"],
    "a physical address aligned to 64 bytes",
    (c) => !(c.pin & PIN.POSTED_INTERRUPTS) || c.isAligned(F.POSTED_INTERRUPT_DESCRIPTOR, 6),
  ),
  execution(
    "vpid",
    ["SECONDARY_CONTROLS", "VPID"],
    'a VPID other than 0000H, with "enable VPID"',
    (c) => !c.has2(PROC2.VPID) || (c.low(F.VPID) & 0xffff) !== 0,
  ),
  execution(
    "eptPointer",
    ["SECONDARY_CONTROLS", "EPT_POINTER"],
    "a supported memory type and walk length, A/D only where there is, reserved bits clear",
    (c) => !c.has2(PROC2.EPT) || isValidEptp(c.cpu.model, c.low(F.EPT_POINTER), c.high(F.EPT_POINTER)),
  ),
  execution(
    "pmlNeedsEpt",
    ["SECONDARY_CONTROLS"],
    '"enable PML" only with "enable EPT"',
    (c) => !c.has2(PROC2.PML) || c.has2(PROC2.EPT),
  ),
  execution(
    "pmlAddress",
    ["SECONDARY_CONTROLS", "PML_ADDRESS"],
    'an aligned physical address, with "enable PML"',
    (c) => !c.has2(PROC2.PML) || c.isAligned(F.PML_ADDRESS, 12),
  ),
  execution(
    "unrestrictedGuestNeedsEpt",
    ["SECONDARY_CONTROLS"],
    '"unrestricted guest" only with "enable EPT"',
    (c) => !c.unrestricted || c.has2(PROC2.EPT),
  ),
  execution(
    "modeBasedExecuteNeedsEpt",
    ["SECONDARY_CONTROLS"],
    '"mode-based execute control for EPT" only with "enable EPT"',
    (c) => !c.has2(PROC2.MODE_BASED_EXECUTE) || c.has2(PROC2.EPT),
  ),
  execution(
    "vmFunctionControls",
    ["SECONDARY_CONTROLS", "VM_FUNCTION_CONTROLS"],
    "VM functions that IA32_VMX_VMFUNC has",
    (c) =>
      !c.has2(PROC2.VM_FUNCTIONS) ||
      ((c.low(F.VM_FUNCTION_CONTROLS) & ~c.capability.functions) === 0 &&
        c.high(F.VM_FUNCTION_CONTROLS) === 0),
  ),
  execution(
    "eptpSwitchingNeedsEpt",
    ["SECONDARY_CONTROLS", "VM_FUNCTION_CONTROLS"],
    '"EPTP switching" only with "enable EPT"',
    (c) => !switchesEptp(c) || c.has2(PROC2.EPT),
  ),
  execution(
    "eptpListAddress",
    ["SECONDARY_CONTROLS", "VM_FUNCTION_CONTROLS", "EPTP_LIST_ADDRESS"],
    'an aligned physical address, with "EPTP switching"',
    (c) => !switchesEptp(c) || c.isAligned(F.EPTP_LIST_ADDRESS, 12),
  ),
  execution(
    "vmreadBitmap",
    ["SECONDARY_CONTROLS", "VMREAD_BITMAP"],
    'an aligned physical address, with "VMCS shadowing"',
    (c) => !c.has2(PROC2.VMCS_SHADOWING) || c.isAligned(F.VMREAD_BITMAP, 12),
  ),
  execution(
    "vmwriteBitmap",
    ["SECONDARY_CONTROLS", "VMWRITE_BITMAP"],
    'an aligned physical address, with "VMCS shadowing"',
    (c) => !c.has2(PROC2.VMCS_SHADOWING) || c.isAligned(F.VMWRITE_BITMAP, 12),
  ),
  execution(
    "veInformationAddress",
    ["SECONDARY_CONTROLS", "VE_INFORMATION_ADDRESS"],
    'an aligned physical address, with "EPT-violation #VE"',
    (c) => !c.has2(PROC2.EPT_VIOLATION_VE) || c.isAligned(F.VE_INFORMATION_ADDRESS, 12),
  ),
  execution(
    "tscMultiplier",
    ["SECONDARY_CONTROLS", "TSC_MULTIPLIER"],
    'a TSC multiplier other than 0, with "use TSC scaling"',
    (c) => !c.has2(PROC2.TSC_SCALING) || (c.low(F.TSC_MULTIPLIER) | c.high(F.TSC_MULTIPLIER)) !== 0,
  ),
];

function switchesEptp(c: EntryContext): boolean {
  return c.has2(PROC2.VM_FUNCTIONS) && (c.low(F.VM_FUNCTION_CONTROLS) & 1) !== 0;
}

/** Checks on the VM-exit control fields. */
export const exitRules: readonly Rule[] = [
  rule(
    EXITS,
    "exitReserved",
    ["EXIT_CONTROLS"],
    "reserved bits as IA32_VMX_(TRUE_)EXIT_CTLS says",
    (c) => isInRange(c.exit, c.capability.exit),
  ),
  rule(
    EXITS,
    "saveTimerNeedsTimer",
    ["PIN_BASED_CONTROLS", "EXIT_CONTROLS"],
    '"save VMX-preemption timer value" only with "activate VMX-preemption timer"',
    (c) => !(c.exit & EXIT.SAVE_PREEMPTION_TIMER) || (c.pin & PIN.PREEMPTION_TIMER) !== 0,
  ),
  rule(
    EXITS,
    "exitMsrStoreArea",
    ["EXIT_MSR_STORE_COUNT", "EXIT_MSR_STORE_ADDRESS"],
    "a 16-byte aligned area inside the physical address space",
    (c) => isMsrArea(c, F.EXIT_MSR_STORE_COUNT, F.EXIT_MSR_STORE_ADDRESS),
  ),
  rule(
    EXITS,
    "exitMsrLoadArea",
    ["EXIT_MSR_LOAD_COUNT", "EXIT_MSR_LOAD_ADDRESS"],
    "a 16-byte aligned area inside the physical address space",
    (c) => isMsrArea(c, F.EXIT_MSR_LOAD_COUNT, F.EXIT_MSR_LOAD_ADDRESS),
  ),
];

/** Vectors whose exceptions push an error code, as a bit set: 8, 10 … 14, 17. */
const WITH_ERROR_CODE = (1 << 8) | (0x1f << 10) | (1 << 17);

/** Type of the event, given that there is one. */
function typeHolds(c: EntryContext): boolean {
  return c.eventType !== EVENT.RESERVED && (c.eventType !== EVENT.OTHER || c.features.has("vmx-mtf"));
}

function vectorHolds(c: EntryContext): boolean {
  if (c.eventType === EVENT.NMI) return c.eventVector === 2;
  if (c.eventType === EVENT.HARDWARE_EXCEPTION) return c.eventVector <= 31;
  return c.eventType !== EVENT.OTHER || c.eventVector === 0;
}

/** Bit 11: an error code goes with hardware exceptions that have one, and never into real mode. */
function deliverCodeHolds(c: EntryContext): boolean {
  const delivers = (c.event & EVENT.DELIVER_CODE) !== 0;
  if (c.eventType !== EVENT.HARDWARE_EXCEPTION) return !delivers;
  if (c.unrestricted && !(c.low(F.GUEST_CR0) & 1)) return !delivers;
  if (c.features.has("vmx-any-errcode")) return true;
  return delivers === (((WITH_ERROR_CODE >>> c.eventVector) & 1) === 1);
}

function lengthHolds(c: EntryContext): boolean {
  const software = c.eventType === EVENT.SOFTWARE_INTERRUPT || c.eventType === EVENT.SOFTWARE_EXCEPTION ||
    c.eventType === EVENT.PRIVILEGED_SOFTWARE_EXCEPTION;
  if (!software) return true;
  const length = c.low(F.ENTRY_INSTRUCTION_LENGTH) >>> 0;
  return length <= 15 && (length > 0 || c.features.has("vmx-zero-len-inject"));
}

/** Checks on the VM-entry control fields. */
export const entryRules: readonly Rule[] = [
  rule(
    ENTRIES,
    "entryReserved",
    ["ENTRY_CONTROLS"],
    "reserved bits as IA32_VMX_(TRUE_)ENTRY_CTLS says (entry to SMM and dual-monitor treatment among them)",
    (c) => isInRange(c.entry, c.capability.entry),
  ),
  rule(
    ENTRIES,
    "eventType",
    ["ENTRY_INTERRUPTION_INFORMATION"],
    "an interruption type other than 1, and 7 only where there is the monitor trap flag",
    (c) => !c.injects || typeHolds(c),
  ),
  rule(
    ENTRIES,
    "eventVector",
    ["ENTRY_INTERRUPTION_INFORMATION"],
    "vector 2 for an NMI, at most 31 for a hardware exception, 0 for other events",
    (c) => !c.injects || vectorHolds(c),
  ),
  rule(
    ENTRIES,
    "eventDeliverErrorCode",
    ["ENTRY_INTERRUPTION_INFORMATION", "SECONDARY_CONTROLS", "GUEST_CR0"],
    "an error code exactly for hardware exceptions that have one, none in real mode",
    (c) => !c.injects || deliverCodeHolds(c),
  ),
  rule(
    ENTRIES,
    "eventReserved",
    ["ENTRY_INTERRUPTION_INFORMATION"],
    "bits 30:12 clear",
    (c) => !c.injects || (c.event & 0x7fff_f000) === 0,
  ),
  rule(
    ENTRIES,
    "eventErrorCode",
    ["ENTRY_INTERRUPTION_INFORMATION", "ENTRY_EXCEPTION_ERROR_CODE"],
    "an error code of 16 bits",
    (c) =>
      !c.injects || !(c.event & EVENT.DELIVER_CODE) ||
      (c.low(F.ENTRY_EXCEPTION_ERROR_CODE) & 0xffff_0000) === 0,
  ),
  rule(
    ENTRIES,
    "eventInstructionLength",
    ["ENTRY_INTERRUPTION_INFORMATION", "ENTRY_INSTRUCTION_LENGTH"],
    "an instruction length of 1 to 15 for software interrupts and exceptions (0 too where IA32_VMX_MISC says so)",
    (c) => !c.injects || lengthHolds(c),
  ),
  rule(
    ENTRIES,
    "entryMsrLoadArea",
    ["ENTRY_MSR_LOAD_COUNT", "ENTRY_MSR_LOAD_ADDRESS"],
    "a 16-byte aligned area inside the physical address space",
    (c) => isMsrArea(c, F.ENTRY_MSR_LOAD_COUNT, F.ENTRY_MSR_LOAD_ADDRESS),
  ),
];

/** All checks on controls, in order. */
export const controlRules: readonly Rule[] = [...executionRules, ...exitRules, ...entryRules];
