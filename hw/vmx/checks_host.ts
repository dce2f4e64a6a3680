/**
 * Checks on the host-state area, in the manual's order (SDM vol. 3C, "Checks on Host-State Area"). A failure is VMfailValid(8).
 *
 * Room: `hw/vmx/`; imports check.ts and what the controls are.
 *
 * @module
 */
import { S } from "../state.ts";
import { eferMask } from "../sys/control_registers.ts";
import { type EntryContext, isPat, type Rule, rule } from "./check.ts";
import { ENTRY, EXIT } from "./controls.ts";
import { F, type FieldName } from "./fields.ts";

const REGISTERS = "Checks on Host Control Registers, MSRs, and SSP";
const SEGMENTS = "Checks on Host Segment and Descriptor-Table Registers";
const SIZE = "Checks Related to Address-Space Size";

const EFER_LME = 0x100, EFER_LMA = 0x400;
const CR4_PAE = 0x20, CR4_PCIDE = 0x2_0000;

/** Whether a CR0 or CR4 has all bits that must and only bits that may be set. */
export function isFixed(low: number, high: number, fixed0: number, fixed1: number): boolean {
  return (fixed0 & ~low) === 0 && (low & ~fixed1) === 0 && high === 0;
}

function host64(c: EntryContext): boolean {
  return (c.exit & EXIT.HOST_64) !== 0;
}

function selector(name: "ES" | "CS" | "SS" | "DS" | "FS" | "GS" | "TR"): Rule {
  const field = `HOST_${name}_SELECTOR` as const;
  return rule(SEGMENTS, `host${name}Selector`, [field], "RPL 0 and TI 0", (c) => (c.low(F[field]) & 7) === 0);
}

function canonical(section: string, name: string, field: FieldName): Rule {
  return rule(section, name, [field], "a canonical address", (c) => c.isCanonical(F[field]));
}

/** All checks on the host state, in order. */
export const hostRules: readonly Rule[] = [
  rule(
    REGISTERS,
    "hostCr0",
    ["HOST_CR0"],
    "bits as IA32_VMX_CR0_FIXED0 and FIXED1 say",
    (c) => isFixed(c.low(F.HOST_CR0), c.high(F.HOST_CR0), c.capability.cr0Fixed0, c.capability.cr0Fixed1),
  ),
  rule(
    REGISTERS,
    "hostCr4",
    ["HOST_CR4"],
    "bits as IA32_VMX_CR4_FIXED0 and FIXED1 say",
    (c) => isFixed(c.low(F.HOST_CR4), c.high(F.HOST_CR4), c.capability.cr4Fixed0, c.capability.cr4Fixed1),
  ),
  rule(
    REGISTERS,
    "hostCr3",
    ["HOST_CR3"],
    "no bit at or above MAXPHYADDR",
    (c) => c.isPhysical(F.HOST_CR3),
  ),
  canonical(REGISTERS, "hostSysenterEsp", "HOST_SYSENTER_ESP"),
  canonical(REGISTERS, "hostSysenterEip", "HOST_SYSENTER_EIP"),
  rule(
    REGISTERS,
    "hostPat",
    ["EXIT_CONTROLS", "HOST_PAT"],
    'memory types 0, 1, 4, 5, 6 or 7 in all bytes, with "load IA32_PAT"',
    (c) => !(c.exit & EXIT.LOAD_PAT) || isPat(c.low(F.HOST_PAT), c.high(F.HOST_PAT)),
  ),
  rule(
    REGISTERS,
    "hostEferReserved",
    ["EXIT_CONTROLS", "HOST_EFER"],
    'reserved bits clear, with "load IA32_EFER"',
    (c) =>
      !(c.exit & EXIT.LOAD_EFER) ||
      ((c.low(F.HOST_EFER) & ~(eferMask(c.cpu.model) | EFER_LMA)) === 0 && c.high(F.HOST_EFER) === 0),
  ),
  rule(
    REGISTERS,
    "hostEferLongMode",
    ["EXIT_CONTROLS", "HOST_EFER"],
    'LMA and LME both equal to "host address-space size", with "load IA32_EFER"',
    (c) =>
      !(c.exit & EXIT.LOAD_EFER) ||
      (c.low(F.HOST_EFER) & (EFER_LMA | EFER_LME)) === (host64(c) ? EFER_LMA | EFER_LME : 0),
  ),
  selector("ES"),
  selector("CS"),
  selector("SS"),
  selector("DS"),
  selector("FS"),
  selector("GS"),
  selector("TR"),
  rule(
    SEGMENTS,
    "hostCsNull",
    ["HOST_CS_SELECTOR"],
    "a selector other than 0000H",
    (c) => (c.low(F.HOST_CS_SELECTOR) & 0xffff) !== 0,
  ),
  rule(
    SEGMENTS,
    "hostTrNull",
    ["HOST_TR_SELECTOR"],
    "a selector other than 0000H",
    (c) => (c.low(F.HOST_TR_SELECTOR) & 0xffff) !== 0,
  ),
  rule(
    SEGMENTS,
    "hostSsNull",
    ["EXIT_CONTROLS", "HOST_SS_SELECTOR"],
    "a selector other than 0000H for a 32-bit host",
    (c) => host64(c) || (c.low(F.HOST_SS_SELECTOR) & 0xffff) !== 0,
  ),
  canonical(SEGMENTS, "hostFsBase", "HOST_FS_BASE"),
  canonical(SEGMENTS, "hostGsBase", "HOST_GS_BASE"),
  canonical(SEGMENTS, "hostGdtrBase", "HOST_GDTR_BASE"),
  canonical(SEGMENTS, "hostIdtrBase", "HOST_IDTR_BASE"),
  canonical(SEGMENTS, "hostTrBase", "HOST_TR_BASE"),
  rule(
    SIZE,
    "hostSizeIsProcessors",
    ["EXIT_CONTROLS"],
    '"host address-space size" as IA32_EFER.LMA is at VM entry',
    (c) => host64(c) === ((c.cpu.get32(S.EFER) & EFER_LMA) !== 0),
  ),
  rule(
    SIZE,
    "ia32eGuestNeedsLongMode",
    ["ENTRY_CONTROLS", "EXIT_CONTROLS"],
    '"IA-32e mode guest" only from IA-32e mode, with "host address-space size"',
    (c) => !(c.entry & ENTRY.IA32E_GUEST) || (host64(c) && (c.cpu.get32(S.EFER) & EFER_LMA) !== 0),
  ),
  rule(
    SIZE,
    "host32Pcide",
    ["EXIT_CONTROLS", "HOST_CR4"],
    "CR4.PCIDE clear for a 32-bit host",
    (c) => host64(c) || (c.low(F.HOST_CR4) & CR4_PCIDE) === 0,
  ),
  rule(
    SIZE,
    "host32Rip",
    ["EXIT_CONTROLS", "HOST_RIP"],
    "RIP of 32 bits for a 32-bit host",
    (c) => host64(c) || c.high(F.HOST_RIP) === 0,
  ),
  rule(
    SIZE,
    "host64Pae",
    ["EXIT_CONTROLS", "HOST_CR4"],
    "CR4.PAE set for a 64-bit host",
    (c) => !host64(c) || (c.low(F.HOST_CR4) & CR4_PAE) !== 0,
  ),
  rule(
    SIZE,
    "host64Rip",
    ["EXIT_CONTROLS", "HOST_RIP"],
    "a canonical RIP for a 64-bit host",
    (c) => !host64(c) || c.isCanonical(F.HOST_RIP),
  ),
];
