/**
 * Checks on the guest-state area, in the manual's order (SDM vol. 3C, "Checks on the Guest State Area"). A failure is a VM-entry failure
 * with exit reason 33, and the rule's exit qualification.
 *
 * Room: `hw/vmx/`; imports check.ts and what the controls are.
 *
 * @module
 */
import { S } from "../state.ts";
import { eferMask } from "../sys/control_registers.ts";
import * as vmcs from "../vmcs.ts";
import { type EntryContext, isPat, type Rule, rule } from "./check.ts";
import { isFixed } from "./checks_host.ts";
import { guestSegmentRules } from "./checks_segments.ts";
import { ACTIVITY, BLOCKING, ENTRY, EVENT } from "./controls.ts";
import { PIN, PROC2 } from "./contract.ts";
import { F, type FieldName } from "./fields.ts";

const REGISTERS = "Checks on Guest Control Registers, Debug Registers, and MSRs";
const TABLES = "Checks on Guest Descriptor-Table Registers";
const RIP = "Checks on Guest RIP, RFLAGS, and SSP";
const OTHER = "Checks on Guest Non-Register State";
const PDPTES = "Checks on Guest Page-Directory-Pointer-Table Entries";

const CR0_PE = 1, CR0_NW = 0x2000_0000, CR0_CD = 0x4000_0000, CR0_PG = 0x8000_0000 | 0;
const CR4_PAE = 0x20, CR4_PCIDE = 0x2_0000;
const EFER_LME = 0x100, EFER_LMA = 0x400;
const RFLAGS_TF = 0x100, RFLAGS_IF = 0x200, RFLAGS_VM = 0x2_0000;
/** RFLAGS bits that must be 0: 63:22, 15, 5, 3; and the one that must be 1. */
const RFLAGS_RESERVED = 0xffc0_8028 | 0, RFLAGS_ONE = 2;
/** Bits of IA32_DEBUGCTL that WRMSR takes: LBR and BTF. */
const DEBUGCTL_VALID = 3, DEBUGCTL_BTF = 2;
/** Pending debug exceptions: bits that may be set: B0 … B3, enabled breakpoint, BS. */
const PENDING_VALID = 0x500f, PENDING_BS = 0x4000;
/** Exit qualifications of exit reason 33. */
const Q_PDPTE = 2, Q_NMI = 3, Q_LINK = 4;

function ia32e(c: EntryContext): boolean {
  return (c.entry & ENTRY.IA32E_GUEST) !== 0;
}
/** Lower half of CR0. */
function cr0(c: EntryContext): number {
  return c.low(F.GUEST_CR0);
}

/** PAE paging: its PDPTEs are checked. */
function usesPae(c: EntryContext): boolean {
  return (cr0(c) & CR0_PG) !== 0 && (c.low(F.GUEST_CR4) & CR4_PAE) !== 0 && !ia32e(c);
}

/** Bits 2:1 and 8:5 of a PDPTE are reserved, and those at and above MAXPHYADDR. */
function pdpteHolds(c: EntryContext, n: number): boolean {
  if (!usesPae(c)) return true;
  let low: number, high: number;
  if (c.has2(PROC2.EPT)) {
    low = c.low(F.GUEST_PDPTE0 + n * 2);
    high = c.high(F.GUEST_PDPTE0 + n * 2);
  } else {
    const at = (c.low(F.GUEST_CR3) & ~0x1f) + n * 8;
    low = vmcs.readPhysical32(c.cpu, at, 0);
    high = vmcs.readPhysical32(c.cpu, at + 4, 0);
  }
  return !(low & 1) || ((low & 0x1e6) | (high & (-1 << (c.cpu.model.maxPhysicalBits - 32)))) === 0;
}

/** RIP in 64-bit code: bits 63 down to the width of linear addresses are equal. */
function ripHolds(c: EntryContext): boolean {
  const high = c.high(F.GUEST_RIP), bits = c.cpu.model.linearBits - 32;
  return high >> bits === 0 || high >> bits === -1;
}

function canonical(section: string, name: string, field: FieldName): Rule {
  return rule(section, name, [field], "a canonical address", (c) => c.isCanonical(F[field]));
}

/** What may be injected into a processor in this activity state. */
function injectable(c: EntryContext): boolean {
  const type = c.eventType, vector = c.eventVector;
  switch (c.low(F.GUEST_ACTIVITY)) {
    case ACTIVITY.ACTIVE:
      return true;
    case ACTIVITY.HLT:
      return type === EVENT.EXTERNAL_INTERRUPT || type === EVENT.NMI || type === EVENT.OTHER ||
        (type === EVENT.HARDWARE_EXCEPTION && (vector === 1 || vector === 18));
    case ACTIVITY.SHUTDOWN:
      return type === EVENT.NMI || (type === EVENT.HARDWARE_EXCEPTION && vector === 18);
    default:
      return false;
  }
}

/** Activity states other than active need their bit in IA32_VMX_MISC. */
function activityHolds(c: EntryContext): boolean {
  switch (c.low(F.GUEST_ACTIVITY)) {
    case ACTIVITY.ACTIVE:
      return true;
    case ACTIVITY.HLT:
      return c.features.has("vmx-activity-hlt");
    case ACTIVITY.SHUTDOWN:
      return c.features.has("vmx-activity-shutdown");
    case ACTIVITY.WAIT_FOR_SIPI:
      return c.features.has("vmx-activity-wait-sipi");
    default:
      return false;
  }
}

/** With blocking by STI or MOV SS, or in HLT, BS says whether a single-step trap is pending, and must agree with TF and BTF. */
function singleStepHolds(c: EntryContext): boolean {
  const blocked = (c.low(F.GUEST_INTERRUPTIBILITY) & (BLOCKING.STI | BLOCKING.MOV_SS)) !== 0;
  if (!blocked && c.low(F.GUEST_ACTIVITY) !== ACTIVITY.HLT) return true;
  const debugctl = c.entry & ENTRY.LOAD_DEBUG ? c.low(F.GUEST_DEBUGCTL) : c.cpu.get32(S.DEBUGCTL);
  const steps = (c.low(F.GUEST_RFLAGS) & RFLAGS_TF) !== 0 && (debugctl & DEBUGCTL_BTF) === 0;
  return ((c.low(F.GUEST_PENDING_DEBUG) & PENDING_BS) !== 0) === steps;
}

function blocks(c: EntryContext, bits: number): boolean {
  return (c.low(F.GUEST_INTERRUPTIBILITY) & bits) !== 0;
}
function injectsType(c: EntryContext, type: number): boolean {
  return c.injects && c.eventType === type;
}

function hasLink(c: EntryContext): boolean {
  return (c.low(F.VMCS_LINK_POINTER) & c.high(F.VMCS_LINK_POINTER)) !== -1;
}
function linkHeader(c: EntryContext): number {
  return vmcs.readPhysical32(c.cpu, c.low(F.VMCS_LINK_POINTER), c.high(F.VMCS_LINK_POINTER));
}

const registerRules: readonly Rule[] = [
  rule(
    REGISTERS,
    "guestCr0",
    ["GUEST_CR0", "SECONDARY_CONTROLS"],
    "bits as IA32_VMX_CR0_FIXED0 and FIXED1 say; CD and NW as they are; PE and PG too for an unrestricted guest",
    (c) =>
      isFixed(
        cr0(c) & ~(CR0_NW | CR0_CD),
        c.high(F.GUEST_CR0),
        c.unrestricted ? c.capability.cr0Fixed0 & ~(CR0_PE | CR0_PG) : c.capability.cr0Fixed0,
        c.capability.cr0Fixed1,
      ),
  ),
  rule(
    REGISTERS,
    "guestPagingNeedsProtection",
    ["GUEST_CR0"],
    "CR0.PE set where CR0.PG is",
    (c) => !(cr0(c) & CR0_PG) || (cr0(c) & CR0_PE) !== 0,
  ),
  rule(
    REGISTERS,
    "guestCr4",
    ["GUEST_CR4"],
    "bits as IA32_VMX_CR4_FIXED0 and FIXED1 say",
    (c) => isFixed(c.low(F.GUEST_CR4), c.high(F.GUEST_CR4), c.capability.cr4Fixed0, c.capability.cr4Fixed1),
  ),
  rule(
    REGISTERS,
    "guestDebugctl",
    ["ENTRY_CONTROLS", "GUEST_DEBUGCTL"],
    'reserved bits clear, with "load debug controls"',
    (c) =>
      !(c.entry & ENTRY.LOAD_DEBUG) ||
      ((c.low(F.GUEST_DEBUGCTL) & ~DEBUGCTL_VALID) | c.high(F.GUEST_DEBUGCTL)) === 0,
  ),
  rule(
    REGISTERS,
    "ia32eGuestNeedsPaging",
    ["ENTRY_CONTROLS", "GUEST_CR0"],
    "CR0.PG set for an IA-32e mode guest",
    (c) => !ia32e(c) || (cr0(c) & CR0_PG) !== 0,
  ),
  rule(
    REGISTERS,
    "ia32eGuestNeedsPae",
    ["ENTRY_CONTROLS", "GUEST_CR4"],
    "CR4.PAE set for an IA-32e mode guest",
    (c) => !ia32e(c) || (c.low(F.GUEST_CR4) & CR4_PAE) !== 0,
  ),
  rule(
    REGISTERS,
    "guestPcideNeedsIa32e",
    ["ENTRY_CONTROLS", "GUEST_CR4"],
    "CR4.PCIDE clear unless the guest is in IA-32e mode",
    (c) => ia32e(c) || (c.low(F.GUEST_CR4) & CR4_PCIDE) === 0,
  ),
  rule(
    REGISTERS,
    "guestCr3",
    ["GUEST_CR3"],
    "no bit at or above MAXPHYADDR",
    (c) => c.isPhysical(F.GUEST_CR3),
  ),
  rule(
    REGISTERS,
    "guestDr7",
    ["ENTRY_CONTROLS", "GUEST_DR7"],
    'bits 63:32 clear, with "load debug controls"',
    (c) => !(c.entry & ENTRY.LOAD_DEBUG) || c.high(F.GUEST_DR7) === 0,
  ),
  canonical(REGISTERS, "guestSysenterEsp", "GUEST_SYSENTER_ESP"),
  canonical(REGISTERS, "guestSysenterEip", "GUEST_SYSENTER_EIP"),
  rule(
    REGISTERS,
    "guestPat",
    ["ENTRY_CONTROLS", "GUEST_PAT"],
    'memory types 0, 1, 4, 5, 6 or 7 in all bytes, with "load IA32_PAT"',
    (c) => !(c.entry & ENTRY.LOAD_PAT) || isPat(c.low(F.GUEST_PAT), c.high(F.GUEST_PAT)),
  ),
  rule(
    REGISTERS,
    "guestEferReserved",
    ["ENTRY_CONTROLS", "GUEST_EFER"],
    'reserved bits clear, with "load IA32_EFER"',
    (c) =>
      !(c.entry & ENTRY.LOAD_EFER) ||
      ((c.low(F.GUEST_EFER) & ~(eferMask(c.cpu.model) | EFER_LMA)) | c.high(F.GUEST_EFER)) === 0,
  ),
  rule(
    REGISTERS,
    "guestEferLma",
    ["ENTRY_CONTROLS", "GUEST_EFER"],
    'LMA equal to "IA-32e mode guest", with "load IA32_EFER"',
    (c) => !(c.entry & ENTRY.LOAD_EFER) || ((c.low(F.GUEST_EFER) & EFER_LMA) !== 0) === ia32e(c),
  ),
  rule(
    REGISTERS,
    "guestEferLme",
    ["ENTRY_CONTROLS", "GUEST_EFER", "GUEST_CR0"],
    'LME equal to LMA where CR0.PG is set, with "load IA32_EFER"',
    (c) =>
      !(c.entry & ENTRY.LOAD_EFER) || !(cr0(c) & CR0_PG) ||
      ((c.low(F.GUEST_EFER) & EFER_LME) !== 0) === ((c.low(F.GUEST_EFER) & EFER_LMA) !== 0),
  ),
];

const tableRules: readonly Rule[] = [
  canonical(TABLES, "guestGdtrBase", "GUEST_GDTR_BASE"),
  canonical(TABLES, "guestIdtrBase", "GUEST_IDTR_BASE"),
  rule(
    TABLES,
    "guestGdtrLimit",
    ["GUEST_GDTR_LIMIT"],
    "a limit of 16 bits",
    (c) => (c.low(F.GUEST_GDTR_LIMIT) & 0xffff_0000) === 0,
  ),
  rule(
    TABLES,
    "guestIdtrLimit",
    ["GUEST_IDTR_LIMIT"],
    "a limit of 16 bits",
    (c) => (c.low(F.GUEST_IDTR_LIMIT) & 0xffff_0000) === 0,
  ),
];

const ripRules: readonly Rule[] = [
  rule(
    RIP,
    "guestRip32",
    ["ENTRY_CONTROLS", "GUEST_CS_ACCESS_RIGHTS", "GUEST_RIP"],
    "RIP of 32 bits outside 64-bit mode",
    (c) => (ia32e(c) && (c.low(F.GUEST_CS_ACCESS_RIGHTS) & 0x2000) !== 0) || c.high(F.GUEST_RIP) === 0,
  ),
  rule(
    RIP,
    "guestRip64",
    ["ENTRY_CONTROLS", "GUEST_CS_ACCESS_RIGHTS", "GUEST_RIP"],
    "bits 63:N of RIP equal in 64-bit mode, N being the width of linear addresses",
    (c) => !(ia32e(c) && (c.low(F.GUEST_CS_ACCESS_RIGHTS) & 0x2000) !== 0) || ripHolds(c),
  ),
  rule(
    RIP,
    "guestRflagsReserved",
    ["GUEST_RFLAGS"],
    "bits 63:22, 15, 5 and 3 clear, bit 1 set",
    (c) =>
      ((c.low(F.GUEST_RFLAGS) & RFLAGS_RESERVED) | c.high(F.GUEST_RFLAGS)) === 0 &&
      (c.low(F.GUEST_RFLAGS) & RFLAGS_ONE) !== 0,
  ),
  rule(
    RIP,
    "guestVirtual8086",
    ["GUEST_RFLAGS", "ENTRY_CONTROLS", "GUEST_CR0"],
    "VM clear for an IA-32e mode guest and in real mode",
    (c) => !(c.low(F.GUEST_RFLAGS) & RFLAGS_VM) || (!ia32e(c) && (cr0(c) & CR0_PE) !== 0),
  ),
  rule(
    RIP,
    "guestInterruptFlag",
    ["GUEST_RFLAGS", "ENTRY_INTERRUPTION_INFORMATION"],
    "IF set where an external interrupt is injected",
    (c) => !injectsType(c, EVENT.EXTERNAL_INTERRUPT) || (c.low(F.GUEST_RFLAGS) & RFLAGS_IF) !== 0,
  ),
];

const otherRules: readonly Rule[] = [
  rule(OTHER, "activityState", ["GUEST_ACTIVITY"], "an activity state that IA32_VMX_MISC has", activityHolds),
  rule(
    OTHER,
    "haltNeedsPrivilege",
    ["GUEST_ACTIVITY", "GUEST_SS_ACCESS_RIGHTS"],
    "DPL 0 in SS for the HLT state",
    (c) => c.low(F.GUEST_ACTIVITY) !== ACTIVITY.HLT || (c.low(F.GUEST_SS_ACCESS_RIGHTS) & 0x60) === 0,
  ),
  rule(
    OTHER,
    "blockingNeedsActive",
    ["GUEST_ACTIVITY", "GUEST_INTERRUPTIBILITY"],
    "the active state with blocking by STI or MOV SS",
    (c) => !blocks(c, BLOCKING.STI | BLOCKING.MOV_SS) || c.low(F.GUEST_ACTIVITY) === ACTIVITY.ACTIVE,
  ),
  rule(
    OTHER,
    "injectableInActivity",
    ["GUEST_ACTIVITY", "ENTRY_INTERRUPTION_INFORMATION"],
    "an event that a processor in this activity state may take",
    (c) => !c.injects || injectable(c),
  ),
  rule(
    OTHER,
    "interruptibilityReserved",
    ["GUEST_INTERRUPTIBILITY"],
    "bits 31:5 clear, and bit 4 (no enclaves)",
    (c) => (c.low(F.GUEST_INTERRUPTIBILITY) & ~0xf) === 0,
  ),
  rule(
    OTHER,
    "stiAndMovSs",
    ["GUEST_INTERRUPTIBILITY"],
    "not both blocking by STI and by MOV SS",
    (c) => (c.low(F.GUEST_INTERRUPTIBILITY) & 3) !== 3,
  ),
  rule(
    OTHER,
    "stiNeedsInterruptFlag",
    ["GUEST_INTERRUPTIBILITY", "GUEST_RFLAGS"],
    "no blocking by STI where IF is clear",
    (c) => !blocks(c, BLOCKING.STI) || (c.low(F.GUEST_RFLAGS) & RFLAGS_IF) !== 0,
  ),
  rule(
    OTHER,
    "interruptNotBlocked",
    ["GUEST_INTERRUPTIBILITY", "ENTRY_INTERRUPTION_INFORMATION"],
    "no blocking by STI or MOV SS where an external interrupt is injected",
    (c) => !injectsType(c, EVENT.EXTERNAL_INTERRUPT) || !blocks(c, BLOCKING.STI | BLOCKING.MOV_SS),
  ),
  rule(
    OTHER,
    "nmiNotBlockedByMovSs",
    ["GUEST_INTERRUPTIBILITY", "ENTRY_INTERRUPTION_INFORMATION"],
    "no blocking by MOV SS where an NMI is injected",
    (c) => !injectsType(c, EVENT.NMI) || !blocks(c, BLOCKING.MOV_SS),
  ),
  rule(
    OTHER,
    "noSmiBlocking",
    ["GUEST_INTERRUPTIBILITY"],
    "no blocking by SMI outside SMM",
    (c) => !blocks(c, BLOCKING.SMI),
  ),
  rule(
    OTHER,
    "nmiNotBlockedBySti",
    ["GUEST_INTERRUPTIBILITY", "ENTRY_INTERRUPTION_INFORMATION"],
    "no blocking by STI where an NMI is injected (some processors ask this; so do these)",
    (c) => !injectsType(c, EVENT.NMI) || !blocks(c, BLOCKING.STI),
    Q_NMI,
  ),
  rule(
    OTHER,
    "nmiNotBlockedByNmi",
    ["PIN_BASED_CONTROLS", "GUEST_INTERRUPTIBILITY", "ENTRY_INTERRUPTION_INFORMATION"],
    'no blocking by NMI where an NMI is injected under "virtual NMIs"',
    (c) => !injectsType(c, EVENT.NMI) || !(c.pin & PIN.VIRTUAL_NMIS) || !blocks(c, BLOCKING.NMI),
  ),
  rule(
    OTHER,
    "pendingDebugReserved",
    ["GUEST_PENDING_DEBUG"],
    "bits 11:4, 13, 15 and 63:16 clear",
    (c) => ((c.low(F.GUEST_PENDING_DEBUG) & ~PENDING_VALID) | c.high(F.GUEST_PENDING_DEBUG)) === 0,
  ),
  rule(
    OTHER,
    "pendingDebugSingleStep",
    ["GUEST_PENDING_DEBUG", "GUEST_INTERRUPTIBILITY", "GUEST_ACTIVITY", "GUEST_RFLAGS", "GUEST_DEBUGCTL"],
    "BS set exactly where TF is set and BTF clear, with blocking by STI or MOV SS or in the HLT state",
    singleStepHolds,
  ),
  rule(
    OTHER,
    "linkPointerAddress",
    ["VMCS_LINK_POINTER"],
    "all ones, or an aligned physical address",
    (c) => !hasLink(c) || c.isAligned(F.VMCS_LINK_POINTER, 12),
    Q_LINK,
  ),
  rule(
    OTHER,
    "linkPointerRevision",
    ["VMCS_LINK_POINTER"],
    "a region with the processor's revision identifier",
    (c) => !hasLink(c) || (linkHeader(c) & 0x7fff_ffff) === c.capability.revision,
    Q_LINK,
  ),
  rule(
    OTHER,
    "linkPointerShadow",
    ["VMCS_LINK_POINTER", "SECONDARY_CONTROLS"],
    'a region whose shadow-VMCS indicator is "VMCS shadowing"',
    (c) => !hasLink(c) || (linkHeader(c) < 0) === c.has2(PROC2.VMCS_SHADOWING),
    Q_LINK,
  ),
  rule(
    OTHER,
    "linkPointerNotCurrent",
    ["VMCS_LINK_POINTER"],
    "a pointer other than the current-VMCS pointer",
    (c) =>
      !hasLink(c) || c.low(F.VMCS_LINK_POINTER) !== (c.cpu.get32(S.VMX_POINTER) | 0) ||
      c.high(F.VMCS_LINK_POINTER) !== (c.cpu.get32(S.VMX_POINTER + 4) | 0),
    Q_LINK,
  ),
];

const pdpteRules: readonly Rule[] = [0, 1, 2, 3].map((n) =>
  rule(
    PDPTES,
    `guestPdpte${n}`,
    [`GUEST_PDPTE${n}` as FieldName, "GUEST_CR3", "GUEST_CR0", "GUEST_CR4", "ENTRY_CONTROLS"],
    "no reserved bit in a PDPTE that is present, with PAE paging (the field with EPT, else memory)",
    (c) => pdpteHolds(c, n),
    Q_PDPTE,
  )
);

/** All checks on the guest state, in order. */
export const guestRules: readonly Rule[] = [
  ...registerRules,
  ...guestSegmentRules,
  ...tableRules,
  ...ripRules,
  ...otherRules,
  ...pdpteRules,
];
