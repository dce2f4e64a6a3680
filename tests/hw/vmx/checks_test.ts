/** Each check of VM entry: a valid VMCS with what the case makes wrong fails on exactly that rule, with the manual's number. */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { type CpuModel, cpuModels, customModel } from "../../../hw/cpuid.ts";
import { S } from "../../../hw/state.ts";
import { SHADOW } from "../../../hw/vmcs.ts";
import type { EntryContext, Rule } from "../../../hw/vmx/check.ts";
import { controlRules } from "../../../hw/vmx/checks_controls.ts";
import { guestRules } from "../../../hw/vmx/checks_guest.ts";
import { hostRules } from "../../../hw/vmx/checks_host.ts";
import { PIN, PROC, PROC2 } from "../../../hw/vmx/contract.ts";
import { ENTRY, EXIT } from "../../../hw/vmx/controls.ts";
import { entryContext } from "../../../hw/vmx/entry.ts";
import { firstFailure } from "../../../hw/vmx/entry_checks.ts";
import { type FieldName, fieldName } from "../../../hw/vmx/fields.ts";
import { AT } from "../sys/system_fixture.ts";
import { everything, VM, VmxFixture } from "./vmx_fixture.ts";

/** What a case does to a valid VMCS. */
type Wrong = (m: VmxFixture) => void;
/** How a valid VMCS is prepared before one field is made wrong, so that it stays valid. */
interface Case {
  readonly prepare?: Wrong;
  readonly wrong: Wrong;
  readonly model?: CpuModel;
}

const HIGH = 1n << 60n;

/** The fixture's EPT pointer: write-back, four levels. */
function ept(m: VmxFixture): void {
  m.secondary(PROC2.EPT).set("EPT_POINTER", VM.EPT | 0x1e);
}
function tprShadow(m: VmxFixture): void {
  m.or("PROCESSOR_BASED_CONTROLS", PROC.TPR_SHADOW).set("VIRTUAL_APIC_ADDRESS", VM.VIRTUAL_APIC);
}
function virtualInterrupts(m: VmxFixture): void {
  tprShadow(m);
  m.or("PIN_BASED_CONTROLS", PIN.EXTERNAL_INTERRUPT).secondary(PROC2.VIRTUAL_INTERRUPTS);
}
function posted(m: VmxFixture): void {
  virtualInterrupts(m);
  m.or("PIN_BASED_CONTROLS", PIN.POSTED_INTERRUPTS).or("EXIT_CONTROLS", EXIT.ACKNOWLEDGE_INTERRUPT)
    .set("POSTED_INTERRUPT_DESCRIPTOR", VM.POSTED).set("POSTED_INTERRUPT_VECTOR", 0xf2);
}
function unrestricted(m: VmxFixture): void {
  ept(m);
  m.secondary(PROC2.UNRESTRICTED_GUEST);
}
function inject(information: number): Wrong {
  return (m) => m.set("ENTRY_INTERRUPTION_INFORMATION", 0x8000_0000 + information);
}
/** A guest in virtual-8086 mode. */
function virtual8086(m: VmxFixture): void {
  legacy(m);
  m.set("GUEST_RFLAGS", 0x2_0002).set("GUEST_RIP", 0);
  for (const name of ["CS", "SS", "DS", "ES", "FS", "GS"] as const) {
    m.set(`GUEST_${name}_SELECTOR`, 0x1000).set(`GUEST_${name}_BASE`, 0x1_0000).set(
      `GUEST_${name}_LIMIT`,
      0xffff,
    )
      .set(`GUEST_${name}_ACCESS_RIGHTS`, 0xf3);
  }
}
/** A guest in protected mode with 32-bit paging (or PAE paging). */
function legacy(m: VmxFixture, pae = false): void {
  m.clear("ENTRY_CONTROLS", ENTRY.IA32E_GUEST).set("GUEST_CR4", pae ? 0x2020 : 0x2000);
  m.set("GUEST_CS_ACCESS_RIGHTS", 0xc09b).set("GUEST_CR3", AT.DATA);
}
function usable(m: VmxFixture): void {
  m.set("GUEST_FS_ACCESS_RIGHTS", 0xc093).set("GUEST_GS_ACCESS_RIGHTS", 0xc093);
  m.set("GUEST_LDTR_ACCESS_RIGHTS", 0x82).set("GUEST_LDTR_LIMIT", 0xff);
}
function msrArea(count: FieldName, address: FieldName): Case {
  return { wrong: (m) => m.set(count, 1).set(address, VM.AREA + 8) };
}

const noMtf = customModel(everything, { name: "no-mtf", remove: ["vmx-mtf"] });
const noActivity = customModel(everything, { name: "no-hlt", remove: ["vmx-activity-hlt"] });

const controlCases: Readonly<Record<string, Case>> = {
  pinBasedReserved: { wrong: (m) => m.clear("PIN_BASED_CONTROLS", 2) },
  primaryReserved: { wrong: (m) => m.clear("PROCESSOR_BASED_CONTROLS", 2) },
  secondaryReserved: { wrong: (m) => m.secondary(1 << 27) },
  cr3TargetCount: { wrong: (m) => m.set("CR3_TARGET_COUNT", 5) },
  ioBitmapA: {
    wrong: (m) => m.or("PROCESSOR_BASED_CONTROLS", PROC.IO_BITMAPS).set("IO_BITMAP_A", VM.IO_A + 1),
  },
  ioBitmapB: { wrong: (m) => m.or("PROCESSOR_BASED_CONTROLS", PROC.IO_BITMAPS).set("IO_BITMAP_B", HIGH) },
  msrBitmaps: {
    wrong: (m) => m.or("PROCESSOR_BASED_CONTROLS", PROC.MSR_BITMAPS).set("MSR_BITMAPS", VM.MSR + 8),
  },
  virtualApicAddress: {
    prepare: tprShadow,
    wrong: (m) => m.set("VIRTUAL_APIC_ADDRESS", VM.VIRTUAL_APIC + 16),
  },
  tprThresholdReserved: { prepare: tprShadow, wrong: (m) => m.set("TPR_THRESHOLD", 0x10) },
  tprThresholdAboveVtpr: { prepare: tprShadow, wrong: (m) => m.set("TPR_THRESHOLD", 1) },
  virtualNmisNeedNmiExiting: { wrong: (m) => m.or("PIN_BASED_CONTROLS", PIN.VIRTUAL_NMIS) },
  nmiWindowNeedsVirtualNmis: { wrong: (m) => m.or("PROCESSOR_BASED_CONTROLS", PROC.NMI_WINDOW) },
  apicAccessAddress: {
    wrong: (m) => m.secondary(PROC2.VIRTUALIZE_APIC_ACCESSES).set("APIC_ACCESS_ADDRESS", VM.APIC_ACCESS + 4),
  },
  apicVirtualizationNeedsTprShadow: { wrong: (m) => m.secondary(PROC2.X2APIC) },
  x2apicExcludesApicAccesses: {
    prepare: tprShadow,
    wrong: (m) => m.secondary(PROC2.X2APIC | PROC2.VIRTUALIZE_APIC_ACCESSES),
  },
  virtualInterruptsNeedInterruptExiting: {
    prepare: virtualInterrupts,
    wrong: (m) => m.clear("PIN_BASED_CONTROLS", PIN.EXTERNAL_INTERRUPT),
  },
  postedInterruptsNeedVirtualInterrupts: {
    prepare: posted,
    wrong: (m) => m.clear("SECONDARY_CONTROLS", PROC2.VIRTUAL_INTERRUPTS),
  },
  postedInterruptsNeedAcknowledge: {
    prepare: posted,
    wrong: (m) => m.clear("EXIT_CONTROLS", EXIT.ACKNOWLEDGE_INTERRUPT),
  },
  postedInterruptVector: { prepare: posted, wrong: (m) => m.set("POSTED_INTERRUPT_VECTOR", 0x100) },
  postedInterruptDescriptor: {
    prepare: posted,
    wrong: (m) => m.set("POSTED_INTERRUPT_DESCRIPTOR", VM.POSTED + 32),
  },
  vpid: { wrong: (m) => m.secondary(PROC2.VPID) },
  eptPointer: { prepare: ept, wrong: (m) => m.set("EPT_POINTER", VM.EPT | 0x1d) },
  pmlNeedsEpt: { wrong: (m) => m.secondary(PROC2.PML).set("PML_ADDRESS", VM.EXTRA) },
  pmlAddress: { prepare: ept, wrong: (m) => m.secondary(PROC2.PML).set("PML_ADDRESS", VM.EXTRA + 1) },
  unrestrictedGuestNeedsEpt: { wrong: (m) => m.secondary(PROC2.UNRESTRICTED_GUEST) },
  modeBasedExecuteNeedsEpt: { wrong: (m) => m.secondary(PROC2.MODE_BASED_EXECUTE) },
  vmFunctionControls: {
    prepare: ept,
    wrong: (m) => m.secondary(PROC2.VM_FUNCTIONS).set("VM_FUNCTION_CONTROLS", 2),
  },
  eptpSwitchingNeedsEpt: {
    wrong: (m) =>
      m.secondary(PROC2.VM_FUNCTIONS).set("VM_FUNCTION_CONTROLS", 1).set("EPTP_LIST_ADDRESS", VM.LIST),
  },
  eptpListAddress: {
    prepare: ept,
    wrong: (m) => m.secondary(PROC2.VM_FUNCTIONS).set("VM_FUNCTION_CONTROLS", 1).set("EPTP_LIST_ADDRESS", 8),
  },
  vmreadBitmap: { wrong: (m) => m.secondary(PROC2.VMCS_SHADOWING).set("VMREAD_BITMAP", 1) },
  vmwriteBitmap: { wrong: (m) => m.secondary(PROC2.VMCS_SHADOWING).set("VMWRITE_BITMAP", 1) },
  veInformationAddress: {
    prepare: ept,
    wrong: (m) => m.secondary(PROC2.EPT_VIOLATION_VE).set("VE_INFORMATION_ADDRESS", 64),
  },
  tscMultiplier: { wrong: (m) => m.secondary(PROC2.TSC_SCALING) },
  exitReserved: { wrong: (m) => m.clear("EXIT_CONTROLS", 1) },
  saveTimerNeedsTimer: { wrong: (m) => m.or("EXIT_CONTROLS", EXIT.SAVE_PREEMPTION_TIMER) },
  exitMsrStoreArea: msrArea("EXIT_MSR_STORE_COUNT", "EXIT_MSR_STORE_ADDRESS"),
  exitMsrLoadArea: msrArea("EXIT_MSR_LOAD_COUNT", "EXIT_MSR_LOAD_ADDRESS"),
  entryReserved: { wrong: (m) => m.or("ENTRY_CONTROLS", 1 << 10) },
  eventType: { wrong: inject(0x100) },
  eventVector: { wrong: inject(0x203) },
  eventDeliverErrorCode: { wrong: inject(0x30d) },
  eventReserved: { wrong: inject(0x1303) },
  eventErrorCode: {
    wrong: (m) => {
      inject(0xb0d)(m);
      m.set("ENTRY_EXCEPTION_ERROR_CODE", 0x1_0000);
    },
  },
  eventInstructionLength: {
    wrong: (m) => {
      inject(0x480)(m);
      m.set("ENTRY_INSTRUCTION_LENGTH", 16);
    },
  },
  entryMsrLoadArea: msrArea("ENTRY_MSR_LOAD_COUNT", "ENTRY_MSR_LOAD_ADDRESS"),
};

/** The exit and entry controls of a 32-bit host cannot pass: the processor is in IA-32e mode. So these are asked out of order. */
const host32: Wrong = (m) =>
  m.clear("EXIT_CONTROLS", EXIT.HOST_64).clear("ENTRY_CONTROLS", ENTRY.IA32E_GUEST);
/** Rules that an earlier one always hides on a processor in IA-32e mode; they are asked alone. */
const HIDDEN = new Set([
  "hostSsNull",
  "host32Pcide",
  "host32Rip",
  "ia32eGuestNeedsLongMode",
]);

const hostCases: Readonly<Record<string, Case>> = {
  hostCr0: { wrong: (m) => m.clear("HOST_CR0", 0x20) },
  hostCr4: { wrong: (m) => m.clear("HOST_CR4", 0x2000) },
  hostCr3: { wrong: (m) => m.or("HOST_CR3", 0).set("HOST_CR3", HIGH) },
  hostSysenterEsp: { wrong: (m) => m.set("HOST_SYSENTER_ESP", HIGH) },
  hostSysenterEip: { wrong: (m) => m.set("HOST_SYSENTER_EIP", HIGH) },
  hostPat: { wrong: (m) => m.or("EXIT_CONTROLS", EXIT.LOAD_PAT).set("HOST_PAT", 0x0202n) },
  hostEferReserved: { wrong: (m) => m.or("EXIT_CONTROLS", EXIT.LOAD_EFER).or("HOST_EFER", 2) },
  hostEferLongMode: { wrong: (m) => m.or("EXIT_CONTROLS", EXIT.LOAD_EFER).clear("HOST_EFER", 0x100) },
  ...Object.fromEntries(
    (["ES", "CS", "SS", "DS", "FS", "GS", "TR"] as const).map((name) => [
      `host${name}Selector`,
      { wrong: (m: VmxFixture) => m.set(`HOST_${name}_SELECTOR`, 0x13) },
    ]),
  ),
  hostCsNull: { wrong: (m) => m.set("HOST_CS_SELECTOR", 0) },
  hostTrNull: { wrong: (m) => m.set("HOST_TR_SELECTOR", 0) },
  hostSsNull: { prepare: host32, wrong: (m) => m.set("HOST_SS_SELECTOR", 0) },
  hostFsBase: { wrong: (m) => m.set("HOST_FS_BASE", HIGH) },
  hostGsBase: { wrong: (m) => m.set("HOST_GS_BASE", HIGH) },
  hostGdtrBase: { wrong: (m) => m.set("HOST_GDTR_BASE", HIGH) },
  hostIdtrBase: { wrong: (m) => m.set("HOST_IDTR_BASE", HIGH) },
  hostTrBase: { wrong: (m) => m.set("HOST_TR_BASE", HIGH) },
  hostSizeIsProcessors: { wrong: host32 },
  ia32eGuestNeedsLongMode: { wrong: (m) => m.clear("EXIT_CONTROLS", EXIT.HOST_64) },
  host32Pcide: { prepare: host32, wrong: (m) => m.or("HOST_CR4", 0x2_0000) },
  host32Rip: { prepare: host32, wrong: (m) => m.set("HOST_RIP", 1n << 32n) },
  host64Pae: { wrong: (m) => m.clear("HOST_CR4", 0x20) },
  host64Rip: { wrong: (m) => m.set("HOST_RIP", HIGH) },
};

const SEGMENTS = ["CS", "SS", "DS", "ES", "FS", "GS"] as const;

/** One case for each of the six segment registers. */
function sixCases(suffix: string, make: (name: typeof SEGMENTS[number]) => Case): Record<string, Case> {
  return Object.fromEntries(SEGMENTS.map((name) => [`guest${name}${suffix}`, make(name)]));
}

const segmentCases: Readonly<Record<string, Case>> = {
  guestTrSelector: { wrong: (m) => m.set("GUEST_TR_SELECTOR", 0x34) },
  guestLdtrSelector: { prepare: usable, wrong: (m) => m.set("GUEST_LDTR_SELECTOR", 4) },
  guestSsSelector: { wrong: (m) => m.set("GUEST_SS_SELECTOR", 0x13) },
  ...sixCases("BaseVirtual8086", (name) => ({
    prepare: virtual8086,
    wrong: (m) => m.set(`GUEST_${name}_BASE`, 0x1_0010),
  })),
  guestTRBaseCanonical: { wrong: (m) => m.set("GUEST_TR_BASE", HIGH) },
  guestFSBaseCanonical: { wrong: (m) => m.set("GUEST_FS_BASE", HIGH) },
  guestGSBaseCanonical: { wrong: (m) => m.set("GUEST_GS_BASE", HIGH) },
  guestLdtrBaseCanonical: { prepare: usable, wrong: (m) => m.set("GUEST_LDTR_BASE", HIGH) },
  guestCsBaseHigh: { wrong: (m) => m.set("GUEST_CS_BASE", 1n << 32n) },
  guestSSBaseHigh: { wrong: (m) => m.set("GUEST_SS_BASE", 1n << 32n) },
  guestDSBaseHigh: { wrong: (m) => m.set("GUEST_DS_BASE", 1n << 32n) },
  guestESBaseHigh: { wrong: (m) => m.set("GUEST_ES_BASE", 1n << 32n) },
  ...sixCases("LimitVirtual8086", (name) => ({
    prepare: virtual8086,
    wrong: (m) => m.set(`GUEST_${name}_LIMIT`, 0xfffe),
  })),
  ...sixCases("RightsVirtual8086", (name) => ({
    prepare: virtual8086,
    wrong: (m) => m.set(`GUEST_${name}_ACCESS_RIGHTS`, 0xfb),
  })),
  guestCSType: { wrong: (m) => m.set("GUEST_CS_ACCESS_RIGHTS", 0xa09a) },
  guestSSType: { wrong: (m) => m.set("GUEST_SS_ACCESS_RIGHTS", 0xc091) },
  ...Object.fromEntries(
    (["DS", "ES", "FS", "GS"] as const).flatMap((name) => [
      [`guest${name}TypeAccessed`, {
        prepare: usable,
        wrong: (m: VmxFixture) => m.set(`GUEST_${name}_ACCESS_RIGHTS`, 0xc092),
      }],
      [`guest${name}TypeReadable`, {
        prepare: usable,
        wrong: (m: VmxFixture) => m.set(`GUEST_${name}_ACCESS_RIGHTS`, 0xc099),
      }],
      [`guest${name}Dpl`, {
        prepare: usable,
        wrong: (m: VmxFixture) => m.set(`GUEST_${name}_SELECTOR`, 0x13),
      }],
    ]),
  ),
  ...sixCases("DescriptorType", (name) => ({
    prepare: usable,
    wrong: (m) => m.clear(`GUEST_${name}_ACCESS_RIGHTS`, 0x10),
  })),
  guestCSDplData: {
    prepare: (m) => {
      unrestricted(m);
      m.set("GUEST_CS_ACCESS_RIGHTS", 0xc093);
    },
    wrong: (m) => m.set("GUEST_CS_ACCESS_RIGHTS", 0xc0b3),
  },
  guestCSDplNonconforming: { wrong: (m) => m.set("GUEST_CS_ACCESS_RIGHTS", 0xa0fb) },
  guestCSDplConforming: { wrong: (m) => m.set("GUEST_CS_ACCESS_RIGHTS", 0xa0ff) },
  guestSSDplRpl: {
    wrong: (m) => m.set("GUEST_SS_ACCESS_RIGHTS", 0xc0f3).set("GUEST_CS_ACCESS_RIGHTS", 0xa0fb),
  },
  guestSSDplReal: {
    prepare: (m) => {
      unrestricted(m);
      m.set("GUEST_CS_ACCESS_RIGHTS", 0xc093);
    },
    wrong: (m) => m.set("GUEST_SS_ACCESS_RIGHTS", 0xc0f3),
  },
  ...sixCases("Present", (name) => ({
    prepare: usable,
    wrong: (m) => m.clear(`GUEST_${name}_ACCESS_RIGHTS`, 0x80),
  })),
  ...sixCases("RightsReserved", (name) => ({
    prepare: usable,
    wrong: (m) => m.or(`GUEST_${name}_ACCESS_RIGHTS`, 0x100),
  })),
  guestCSDefaultSize: { wrong: (m) => m.or("GUEST_CS_ACCESS_RIGHTS", 0x4000) },
  ...sixCases("Granularity", (name) => ({
    prepare: usable,
    wrong: (m) => m.set(`GUEST_${name}_LIMIT`, 0xffff_0000),
  })),
  guestTRType: { wrong: (m) => m.set("GUEST_TR_ACCESS_RIGHTS", 0x89) },
  guestTRDescriptorType: { wrong: (m) => m.or("GUEST_TR_ACCESS_RIGHTS", 0x10) },
  guestTRPresent: { wrong: (m) => m.clear("GUEST_TR_ACCESS_RIGHTS", 0x80) },
  guestTRRightsReserved: { wrong: (m) => m.or("GUEST_TR_ACCESS_RIGHTS", 0x200) },
  guestTRGranularity: { wrong: (m) => m.or("GUEST_TR_ACCESS_RIGHTS", 0x8000) },
  guestTRUsable: { wrong: (m) => m.or("GUEST_TR_ACCESS_RIGHTS", 0x1_0000) },
  guestLDTRType: { prepare: usable, wrong: (m) => m.set("GUEST_LDTR_ACCESS_RIGHTS", 0x83) },
  guestLDTRDescriptorType: { prepare: usable, wrong: (m) => m.or("GUEST_LDTR_ACCESS_RIGHTS", 0x10) },
  guestLDTRPresent: { prepare: usable, wrong: (m) => m.clear("GUEST_LDTR_ACCESS_RIGHTS", 0x80) },
  guestLDTRRightsReserved: { prepare: usable, wrong: (m) => m.or("GUEST_LDTR_ACCESS_RIGHTS", 0x2_0000) },
  guestLDTRGranularity: {
    prepare: usable,
    wrong: (m) => m.or("GUEST_LDTR_ACCESS_RIGHTS", 0x8000).set("GUEST_LDTR_LIMIT", 0xfe),
  },
};

function link(m: VmxFixture): void {
  m.set("VMCS_LINK_POINTER", VM.VMCS2);
}

const guestCases: Readonly<Record<string, Case>> = {
  guestCr0: { wrong: (m) => m.clear("GUEST_CR0", 0x20) },
  guestPagingNeedsProtection: { prepare: unrestricted, wrong: (m) => m.clear("GUEST_CR0", 1) },
  guestCr4: { wrong: (m) => m.or("GUEST_CR4", 1 << 14) },
  guestDebugctl: { wrong: (m) => m.or("ENTRY_CONTROLS", ENTRY.LOAD_DEBUG).set("GUEST_DEBUGCTL", 4) },
  ia32eGuestNeedsPaging: { prepare: unrestricted, wrong: (m) => m.clear("GUEST_CR0", 0x8000_0000) },
  ia32eGuestNeedsPae: { wrong: (m) => m.clear("GUEST_CR4", 0x20) },
  guestPcideNeedsIa32e: { prepare: (m) => legacy(m), wrong: (m) => m.or("GUEST_CR4", 0x2_0000) },
  guestCr3: { wrong: (m) => m.set("GUEST_CR3", HIGH) },
  guestDr7: { wrong: (m) => m.or("ENTRY_CONTROLS", ENTRY.LOAD_DEBUG).set("GUEST_DR7", 1n << 32n) },
  guestSysenterEsp: { wrong: (m) => m.set("GUEST_SYSENTER_ESP", HIGH) },
  guestSysenterEip: { wrong: (m) => m.set("GUEST_SYSENTER_EIP", HIGH) },
  guestPat: { wrong: (m) => m.or("ENTRY_CONTROLS", ENTRY.LOAD_PAT).set("GUEST_PAT", 3) },
  guestEferReserved: { wrong: (m) => m.or("ENTRY_CONTROLS", ENTRY.LOAD_EFER).or("GUEST_EFER", 2) },
  guestEferLma: { wrong: (m) => m.or("ENTRY_CONTROLS", ENTRY.LOAD_EFER).clear("GUEST_EFER", 0x500) },
  guestEferLme: { wrong: (m) => m.or("ENTRY_CONTROLS", ENTRY.LOAD_EFER).clear("GUEST_EFER", 0x100) },
  ...segmentCases,
  guestGdtrBase: { wrong: (m) => m.set("GUEST_GDTR_BASE", HIGH) },
  guestIdtrBase: { wrong: (m) => m.set("GUEST_IDTR_BASE", HIGH) },
  guestGdtrLimit: { wrong: (m) => m.set("GUEST_GDTR_LIMIT", 0x1_0000) },
  guestIdtrLimit: { wrong: (m) => m.set("GUEST_IDTR_LIMIT", 0x1_0000) },
  guestRip32: { prepare: (m) => legacy(m), wrong: (m) => m.set("GUEST_RIP", 1n << 32n) },
  guestRip64: { wrong: (m) => m.set("GUEST_RIP", HIGH) },
  guestRflagsReserved: { wrong: (m) => m.set("GUEST_RFLAGS", 0) },
  guestVirtual8086: {
    prepare: virtual8086,
    wrong: (m) => m.or("ENTRY_CONTROLS", ENTRY.IA32E_GUEST).or("GUEST_CR4", 0x20),
  },
  guestInterruptFlag: { wrong: inject(0x20) },
  activityState: { wrong: (m) => m.set("GUEST_ACTIVITY", 1), model: noActivity },
  haltNeedsPrivilege: {
    wrong: (m) =>
      m.set("GUEST_ACTIVITY", 1).set("GUEST_SS_ACCESS_RIGHTS", 0xc0f3).set("GUEST_SS_SELECTOR", 0x13)
        .set("GUEST_CS_ACCESS_RIGHTS", 0xa0fb).set("GUEST_CS_SELECTOR", 0xb),
  },
  blockingNeedsActive: { wrong: (m) => m.set("GUEST_ACTIVITY", 1).set("GUEST_INTERRUPTIBILITY", 2) },
  injectableInActivity: {
    wrong: (m) => {
      inject(0xb0d)(m);
      m.set("GUEST_ACTIVITY", 1);
    },
  },
  interruptibilityReserved: { wrong: (m) => m.set("GUEST_INTERRUPTIBILITY", 0x20) },
  stiAndMovSs: { wrong: (m) => m.set("GUEST_INTERRUPTIBILITY", 3).set("GUEST_RFLAGS", 0x202) },
  stiNeedsInterruptFlag: { wrong: (m) => m.set("GUEST_INTERRUPTIBILITY", 1) },
  interruptNotBlocked: {
    wrong: (m) => {
      inject(0x20)(m);
      m.set("GUEST_INTERRUPTIBILITY", 1).set("GUEST_RFLAGS", 0x202);
    },
  },
  nmiNotBlockedByMovSs: {
    wrong: (m) => {
      inject(0x202)(m);
      m.set("GUEST_INTERRUPTIBILITY", 2);
    },
  },
  noSmiBlocking: { wrong: (m) => m.set("GUEST_INTERRUPTIBILITY", 4) },
  nmiNotBlockedBySti: {
    wrong: (m) => {
      inject(0x202)(m);
      m.set("GUEST_INTERRUPTIBILITY", 1).set("GUEST_RFLAGS", 0x202);
    },
  },
  nmiNotBlockedByNmi: {
    wrong: (m) => {
      inject(0x202)(m);
      m.or("PIN_BASED_CONTROLS", PIN.NMI | PIN.VIRTUAL_NMIS).set("GUEST_INTERRUPTIBILITY", 8);
    },
  },
  pendingDebugReserved: { wrong: (m) => m.set("GUEST_PENDING_DEBUG", 0x10) },
  pendingDebugSingleStep: {
    wrong: (m) => m.set("GUEST_INTERRUPTIBILITY", 2).set("GUEST_RFLAGS", 0x102),
  },
  linkPointerAddress: { wrong: (m) => m.set("VMCS_LINK_POINTER", VM.VMCS2 + 8) },
  linkPointerRevision: { prepare: link, wrong: (m) => m.view.setUint32(VM.VMCS2, 0x77, true) },
  linkPointerShadow: {
    prepare: link,
    wrong: (m) => m.view.setUint32(VM.VMCS2, (m.capability.revision | SHADOW) >>> 0, true),
  },
  linkPointerNotCurrent: { wrong: (m) => m.set("VMCS_LINK_POINTER", VM.VMCS) },
  guestPdpte0: { prepare: (m) => legacy(m, true), wrong: (m) => m.view.setUint32(AT.DATA, 3, true) },
  guestPdpte1: { prepare: (m) => legacy(m, true), wrong: (m) => m.view.setUint32(AT.DATA + 8, 3, true) },
  guestPdpte2: {
    prepare: (m) => {
      ept(m);
      legacy(m, true);
    },
    wrong: (m) => m.set("GUEST_PDPTE2", 3),
  },
  guestPdpte3: {
    prepare: (m) => legacy(m, true),
    wrong: (m) => m.view.setUint32(AT.DATA + 28, 0x8000_0000, true),
  },
};
// The last one needs a present PDPTE, whose lower half the case leaves to this:
const pdpte3 = guestCases["guestPdpte3"]!.wrong;
const allGuestCases: Readonly<Record<string, Case>> = {
  ...guestCases,
  guestPdpte3: {
    prepare: (m) => legacy(m, true),
    wrong: (m) => {
      m.view.setUint32(AT.DATA + 24, 1, true);
      pdpte3(m);
    },
  },
};

/** A machine with a prepared VMCS that no rule objects to. */
function prepared(name: string, c: Case): VmxFixture {
  const m = new VmxFixture(c.model ?? everything).start();
  m.view.setBigUint64(AT.DATA, 0n, true);
  m.view.setBigUint64(AT.DATA + 8, 0n, true);
  c.prepare?.(m);
  if (!HIDDEN.has(name)) {
    for (const rules of [controlRules, hostRules, guestRules]) {
      assertEquals(firstFailure(rules, entryContext(m.cpu))?.name, undefined, `${name}: the prepared VMCS`);
    }
  }
  return m;
}

/** Shows that each rule of a table has a case, that its case breaks it and none before it, and what comes of the entry. */
function showAll(
  rules: readonly Rule[],
  cases: Readonly<Record<string, Case>>,
  outcome: (m: VmxFixture, rule: Rule) => void,
): void {
  for (const rule of rules) {
    it(rule.name, () => {
      const c = cases[rule.name];
      assert(c !== undefined, `The rule "${rule.name}" has no test`);
      const m = prepared(rule.name, c);
      assert(rule.holds(entryContext(m.cpu)));
      c.wrong(m);
      assert(!rule.holds(entryContext(m.cpu)));
      if (HIDDEN.has(rule.name)) return;
      assertEquals(firstFailure(rules, entryContext(m.cpu))?.name, rule.name);
      outcome(m.enter(), rule);
    });
  }
  it("no case is for a rule that does not exist", () => {
    assertEquals(Object.keys(cases).filter((name) => !rules.some((rule) => rule.name === name)), []);
  });
}

describe("checks on VMX controls: VMfailValid(7)", () => {
  showAll(controlRules, controlCases, (m) => {
    assertEquals(m.status, 7);
    assertEquals(m.cpu.get32(S.VMX_MODE), 1);
  });
  it("an event of type 7 needs the monitor trap flag", () => {
    const m = new VmxFixture(noMtf).start();
    inject(0x700)(m);
    assertEquals(m.enter().status, 7);
  });
});

describe("checks on host state: VMfailValid(8)", () => {
  showAll(hostRules, hostCases, (m) => {
    assertEquals(m.status, 8);
    assertEquals(m.cpu.get32(S.VMX_MODE), 1);
  });
});

describe("checks on guest state: exit reason 33", () => {
  showAll(guestRules, allGuestCases, (m, rule) => {
    m.exited(0x8000_0021, rule.qualification ?? 0);
    assertEquals(m.cpu.rip, BigInt(VM.EXIT), "the host state is loaded");
  });
});

describe("what a rule looks at", () => {
  /** The fields that `rule` reads from a VMCS. */
  function fieldsRead(rule: Rule, m: VmxFixture): Set<string> {
    const read = new Set<string>();
    const context: EntryContext = new Proxy(entryContext(m.cpu), {
      get(target, key, receiver) {
        if (key === "event") read.add("ENTRY_INTERRUPTION_INFORMATION");
        if (key === "low" || key === "high") {
          return (field: number) => {
            read.add(fieldName(field)!);
            return key === "low" ? target.low(field) : target.high(field);
          };
        }
        return Reflect.get(target, key, receiver);
      },
    });
    rule.holds(context);
    return read;
  }
  it("is what its list of fields says, so that it need not be asked again before one of them changes", () => {
    const unsaid = new Set<string>();
    const cases: Readonly<Record<string, Case>> = { ...controlCases, ...hostCases, ...allGuestCases };
    for (const rule of [...controlRules, ...hostRules, ...guestRules]) {
      const m = new VmxFixture(cases[rule.name]!.model ?? everything).start();
      const before = fieldsRead(rule, m);
      cases[rule.name]!.prepare?.(m);
      const prepared = fieldsRead(rule, m);
      cases[rule.name]!.wrong(m);
      for (const name of [...before, ...prepared, ...fieldsRead(rule, m)]) {
        if (!rule.fields.includes(name as FieldName)) unsaid.add(`${rule.name} reads ${name}`);
      }
    }
    assertEquals([...unsaid], []);
  });
  it("a VMCS that passed is refused as soon as a field is wrong", () => {
    for (
      const [rules, cases] of [[controlRules, controlCases], [hostRules, hostCases], [
        guestRules,
        allGuestCases,
      ]] as const
    ) {
      for (const rule of rules) {
        if (HIDDEN.has(rule.name)) continue;
        const c = cases[rule.name]!;
        const m = prepared(rule.name, c);
        m.place(VM.GUEST, "0fa2");
        m.enter();
        if (m.cpu.get32(S.VMX_MODE) === 2) m.step(50);
        if (m.cpu.get32(S.VMX_MODE) !== 1) continue;
        // What the first guest left behind is made valid again, then the case.
        m.set("GUEST_INTERRUPTIBILITY", 0).set("GUEST_PENDING_DEBUG", 0).set("GUEST_ACTIVITY", 0);
        c.wrong(m);
        m.cpu.set32(S.ACTIVITY, 0);
        m.enter(true);
        assert(m.cpu.get32(S.VMX_MODE) === 1, rule.name);
        assert(m.status !== "ok" || m.reason >= 0x8000_0000, rule.name);
      }
    }
  });
});

describe("names of rules", () => {
  it("are unique, and all fields exist", () => {
    const names = [...controlRules, ...hostRules, ...guestRules].map((rule) => rule.name);
    assertEquals(new Set(names).size, names.length);
  });
});

describe("a model refuses controls that it does not offer", () => {
  const refused: readonly (readonly [model: string, bit: number])[] = [
    ["penryn", PROC2.EPT],
    ["nehalem", PROC2.UNRESTRICTED_GUEST],
    ["haswell", PROC2.PML],
    ["skylake", PROC2.VIRTUAL_INTERRUPTS],
  ];
  for (const [name, bit] of refused) {
    it(`${name}: secondary control ${bit}`, () => {
      const m = new VmxFixture(cpuModels[name]!).start();
      ept(m);
      if (name === "penryn") m.set("SECONDARY_CONTROLS", bit);
      else m.secondary(bit);
      assertEquals(m.enter().status, 7);
    });
  }
});
