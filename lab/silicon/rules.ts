/**
 * What is left out of the comparison, and why: instructions, and flags that the SDM calls undefined.
 *
 * Room: `lab/silicon/`; imports the instruction table's types.
 *
 * @module
 */
import { RFLAGS } from "../../hw/state.ts";
import type { Encoding } from "../../hw/isa/encoding.ts";
import type { Decoded } from "../../hw/isa/form.ts";
import { gateRows } from "../../hw/isa/gate_rows.ts";
import { systemRows } from "../../hw/isa/system_rows.ts";
import { system2Rows } from "../../hw/isa/system2_rows.ts";
import type { Row } from "../../hw/isa/form.ts";

const SYSTEM: ReadonlySet<Row> = new Set([...systemRows, ...system2Rows, ...gateRows]);

/** Mnemonics that are never generated. */
const EXCLUDED: Readonly<Record<string, string>> = {
  RDRAND: "its result is chance",
  RDSEED: "its result is chance",
  RDPID: "tells which of the host's processors this is",
  JMP: "only as part of a template, with a target inside the sequence",
  CALL: "only as part of a template",
  RET: "only as part of a template",
  LEAVE: "only as part of a template: it loads RBP, which addresses are made of",
  PAUSE: "a hypervisor may count it; AMD takes F3 90 with REX.B as XCHG, Intel as PAUSE",
  F2XM1: "the last bit of a transcendental function is the processor's own",
  FYL2X: "the last bit of a transcendental function is the processor's own",
  FYL2XP1: "the last bit of a transcendental function is the processor's own",
  FPTAN: "the last bit of a transcendental function is the processor's own",
  FPATAN: "the last bit of a transcendental function is the processor's own",
  FSIN: "the last bit of a transcendental function is the processor's own",
  FCOS: "the last bit of a transcendental function is the processor's own",
  FSINCOS: "the last bit of a transcendental function is the processor's own",
  RCPPS: "an approximation, different in every model",
  RCPSS: "an approximation, different in every model",
  RSQRTPS: "an approximation, different in every model",
  RSQRTSS: "an approximation, different in every model",
  FNSTENV: "stores FIP, FDP and FOP, which AMD keeps only after an exception",
  FNSAVE: "stores FIP, FDP and FOP, which AMD keeps only after an exception",
  FXSAVE: "stores FIP, FDP and FOP, which AMD keeps only after an exception",
  FXSAVE64: "stores FIP, FDP and FOP, which AMD keeps only after an exception",
  XSAVE: "the host has more state components",
  XSAVE64: "the host has more state components",
  XRSTOR: "the host has more state components",
  XRSTOR64: "the host has more state components",
  XSAVEOPT: "the host has more state components",
  XSAVEOPT64: "the host has more state components",
  XSAVEC: "the host has more state components",
  XSAVEC64: "the host has more state components",
  XSAVES: "the host has more state components",
  XSAVES64: "the host has more state components",
  XRSTORS: "the host has more state components",
  XRSTORS64: "the host has more state components",
  XGETBV: "the host has more state components",
  XSETBV: "belongs to the system",
};

/** Why an encoding is not generated on a host with `features`, or undefined. */
export function reasonToExclude(e: Encoding, features: ReadonlySet<string>): string | undefined {
  if (SYSTEM.has(e.row)) return "belongs to the system: its result is the operating system's";
  if (e.flags.no64) return "not there in 64-bit mode";
  if (e.flags.cpuid !== undefined && !features.has(e.flags.cpuid)) return `the host lacks ${e.flags.cpuid}`;
  if (e.row.mnemonic === "NOP" && e.text.startsWith("0F 0D")) {
    return "AMD makes 0F 0D with a register #UD, Intel a NOP";
  }
  return EXCLUDED[e.row.mnemonic];
}

/** Why a form that was decoded is not compared, or undefined. */
export function reasonToDrop(decoded: Decoded): string | undefined {
  const { row: { mnemonic }, operands } = decoded.form;
  const hasMemory = operands.some((o) => o.kind === "mem");
  if (mnemonic === "CVTPI2PS" && hasMemory) {
    return "AMD leaves the x87 alone, as CVTPI2PD does; Intel goes to MMX state";
  }
  if (mnemonic === "MOVSXD" && hasMemory && operands[0]?.width === 16) return "AMD reads 32 bits, Intel 16";
  return undefined;
}

/**
 * Instructions that leave x87 bits which no two vendors agree on, and code that brings those back to what everybody says.
 * FCOMI and its like: Intel clears C1, AMD leaves it; FINCSTP, FDECSTP clears it.
 */
export function settlingCode(decoded: Decoded): readonly number[] {
  return /^FU?COMIP?$/.test(decoded.form.row.mnemonic) ? [0xd9, 0xf7, 0xd9, 0xf6] : [];
}

/**
 * Instructions whose x87 state is not compared when they fault: on AMD the MMX conversions have gone to MMX state by
 * the time they raise #XM; and those with {@link settlingCode} may fault in it.
 */
export function x87IsLoose(decoded: Decoded): boolean {
  return /^CVTT?P[SD]2PI$|^CVTPI2P[SD]$|^FU?COMIP?$/.test(decoded.form.row.mnemonic);
}

/**
 * True for operands whose alignment check is each model's own: 16 bytes and more (Intel checks the alignment of 2-, 4- and
 * 8-byte accesses, AMD of these too), and FXRSTOR (where the SDM says that it may vary). ENTER has pushed by then on AMD.
 */
export function alignmentIsLoose(decoded: Decoded): boolean {
  return /^ENTER$|^MASKMOV/.test(decoded.form.row.mnemonic) ||
    decoded.form.operands.some((o) => o.kind === "mem" && (o.width === 0 || o.width >= 128));
}

/**
 * True for masked stores: whether the bytes that are not stored can fault is, says the SDM, each model's own. AMD faults as
 * if all were stored, at the first. And for ENTER, which has pushed by then on AMD.
 */
export function faultsAreLoose(decoded: Decoded): boolean {
  return /^MASKMOV|^ENTER$/.test(decoded.form.row.mnemonic);
}

/** AMD's MXCSR.MM, which makes misaligned operands legal; reserved elsewhere. A sequence that has set it is not compared. */
export const MXCSR_MM = 0x2_0000;

/** True for operands read in pieces in an order that is not architectural: which page faults first may differ. */
export function orderIsLoose(decoded: Decoded): boolean {
  return /^FLDENV$|^FRSTOR$|^FXRSTOR/.test(decoded.form.row.mnemonic);
}

const { CF, PF, AF, ZF, SF, OF } = RFLAGS;
const ALL = CF | PF | AF | ZF | SF | OF;

/**
 * Flags that are undefined after an instruction.
 *
 * @param count The shift count where it is a constant, or −1.
 */
export function undefinedFlags(decoded: Decoded, count: number): number {
  const { w, row: { mnemonic } } = decoded.form;
  const masked = count < 0 ? -1 : count & (w === 64 ? 63 : 31);
  switch (mnemonic) {
    case "AND":
    case "OR":
    case "XOR":
    case "TEST":
      return AF;
    case "SHL":
    case "SHR":
    case "SAR":
      if (masked === 0) return 0;
      return AF | (masked === 1 ? 0 : OF) | (mnemonic !== "SAR" && (masked < 0 || masked > w) ? CF : 0);
    case "ROL":
    case "ROR":
    case "RCL":
    case "RCR":
      return masked === 0 || masked === 1 ? 0 : OF;
    case "SHLD":
    case "SHRD":
      return masked === 0 ? 0 : AF | (masked === 1 ? 0 : OF);
    case "MUL":
    case "IMUL":
      return SF | ZF | AF | PF;
    case "DIV":
    case "IDIV":
      return ALL;
    case "LZCNT":
    case "TZCNT":
      return OF | SF | AF | PF;
    case "ANDN":
    case "BLSI":
    case "BLSMSK":
    case "BLSR":
    case "BZHI":
      return AF | PF;
    case "BEXTR":
      return AF | SF | PF;
    default:
      return 0;
  }
}
