/**
 * Procedures of FXSAVE, FXRSTOR and the XSAVE family, for the state components x87 (bit 0), SSE (bit 1) and PKRU (bit 9)
 * (SDM vol. 1, "Programming with Intel MMX Technology" for the FXSAVE image, "Managing State Using the XSAVE Feature Set").
 *
 * An image is gathered from memory to S.XTEMP, changed there, and written back in one piece, so that the parts that the
 * architecture leaves alone keep their bytes and nothing is half written when a page is missing. PKRU stands apart, at its
 * own offset.
 *
 * A component counts as in use (XINUSE) exactly if its contents differ from the initial ones. FCS and FDS are saved where the
 * format has them. Where CR4.OSFXSR = 0 FXSAVE and FXRSTOR handle the XMM registers and MXCSR all the same (the SDM leaves it open).
 *
 * Room: `hw/isa/`; imports x87_state and the CPU model's sizes; the processor as a type.
 *
 * @module
 */
import { isNonRoot, REASON, requestExit } from "../vmx/contract.ts";
import { type Cpu, type Procedure, type Procedures, VECTOR } from "../cpu.ts";
import { xcr0Mask, XSAVE_PKRU_OFFSET } from "../cpuid.ts";
import { EXIT_NONE, R, S } from "../state.ts";
import { initialize } from "./x87_env.ts";
import {
  abridgedTags,
  controlWord,
  FCW_INIT,
  readPhysical,
  setAbridgedTags,
  setWords,
  statusWord,
  top,
  writePhysical,
} from "./x87_state.ts";

/** State components (bits of XCR0 and XSTATE_BV). */
export const COMPONENT = { X87: 1, SSE: 2, PKRU: 0x200 } as const;

/** MXCSR after reset. */
const MXCSR_INIT = 0x1f80;
/** Writable bits of MXCSR; what FXSAVE reports as MXCSR_MASK. */
const MXCSR_MASK = 0xffff;

/** Offsets in the legacy region (SDM vol. 2, "FXSAVE", table "Layout of the 512-byte area"). */
const AT = {
  FCW: 0,
  FSW: 2,
  FTW: 4,
  FOP: 6,
  FIP: 8,
  FCS: 12,
  FDP: 16,
  FDS: 20,
  MXCSR: 24,
  MXCSR_MASK: 28,
  ST: 32,
  XMM: 160,
  /** Behind XMM15: nothing from here to byte 511 is written. */
  XMM_END: 416,
  HEADER: 512,
} as const;
/** Offsets in the XSAVE header. */
const HEADER = { XSTATE_BV: AT.HEADER, XCOMP_BV: AT.HEADER + 8, RESERVED: AT.HEADER + 16 } as const;
/** Bytes of the legacy region and the header. */
const AREA_BYTES = AT.HEADER + 64;
/** Where the compacted format has PKRU: the first and only component behind the header. */
const COMPACT_PKRU_OFFSET = AREA_BYTES;
const PKRU_BYTES = 8;
/** Bytes of the header that must be zero. */
const STANDARD_RESERVED = { from: HEADER.XCOMP_BV, to: HEADER.XSTATE_BV + 24 } as const;
const COMPACT_RESERVED = { from: HEADER.RESERVED, to: AREA_BYTES } as const;
/** XCOMP_BV bit 63, in the upper half. */
const COMPACTED = 0x8000_0000;

const SLOT = 16, REGISTERS = 8, XMM_BYTES = 16, XMM_LEGACY = 8, XMM_ALL = 16;

/** Writes a 32-bit field of the image. */
function put32(cpu: Cpu, at: number, value: number): void {
  cpu.set32(S.XTEMP + at, value);
}

function get32(cpu: Cpu, at: number): number {
  return cpu.get32(S.XTEMP + at);
}

/** XMM registers that the mode has. */
function xmmCount(cpu: Cpu): number {
  return cpu.is64 ? XMM_ALL : XMM_LEGACY;
}

// ---- components to and from the image ------------------------------------------------------------------------

/** x87 words, pointers and registers; `wide` is the format of REX.W: 64-bit FIP and FDP without selectors. */
function saveX87(cpu: Cpu, wide: boolean): void {
  put32(cpu, AT.FCW, controlWord(cpu) | (statusWord(cpu) << 16));
  put32(cpu, AT.FTW, abridgedTags(cpu) | (cpu.memory.u16[(cpu.base + S.FOP) >>> 1]! << 16));
  put32(cpu, AT.FIP, cpu.get32(S.FIP));
  put32(cpu, AT.FCS, wide ? cpu.get32(S.FIP + 4) : cpu.get32(S.FCS) & 0xffff);
  put32(cpu, AT.FDP, cpu.get32(S.FDP));
  put32(cpu, AT.FDS, wide ? cpu.get32(S.FDP + 4) : cpu.get32(S.FDS) & 0xffff);
  for (let i = 0; i < REGISTERS; i++) {
    const from = S.FPR + ((top(cpu) + i) & 7) * SLOT, to = AT.ST + i * SLOT;
    put32(cpu, to, cpu.get32(from));
    put32(cpu, to + 4, cpu.get32(from + 4));
    put32(cpu, to + 8, cpu.get32(from + 8) & 0xffff);
    put32(cpu, to + 12, 0);
  }
}

function restoreX87(cpu: Cpu, wide: boolean): void {
  const words = get32(cpu, AT.FCW), tags = get32(cpu, AT.FTW);
  setWords(cpu, words & 0xffff, words >>> 16);
  setAbridgedTags(cpu, tags & 0xff);
  cpu.memory.u16[(cpu.base + S.FOP) >>> 1] = (tags >>> 16) & 0x7ff;
  const second = get32(cpu, AT.FCS), fourth = get32(cpu, AT.FDS);
  cpu.set64Halves(S.FIP, get32(cpu, AT.FIP), wide ? second : 0);
  cpu.set32(S.FCS, wide ? 0 : second & 0xffff);
  cpu.set64Halves(S.FDP, get32(cpu, AT.FDP), wide ? fourth : 0);
  cpu.set32(S.FDS, wide ? 0 : fourth & 0xffff);
  for (let i = 0; i < REGISTERS; i++) {
    const from = AT.ST + i * SLOT;
    const value = cpu.get64(S.XTEMP + from) | (BigInt(get32(cpu, from + 8) & 0xffff) << 64n);
    writePhysical(cpu, (top(cpu) + i) & 7, value);
  }
}

function initX87(cpu: Cpu): void {
  initialize(cpu);
  for (let n = 0; n < REGISTERS; n++) writePhysical(cpu, n, 0n);
}

function isX87InUse(cpu: Cpu): boolean {
  if (controlWord(cpu) !== FCW_INIT || statusWord(cpu) !== 0 || abridgedTags(cpu) !== 0) return true;
  if (cpu.memory.u16[(cpu.base + S.FOP) >>> 1] !== 0 || cpu.get64(S.FIP) !== 0n || cpu.get64(S.FDP) !== 0n) {
    return true;
  }
  for (let n = 0; n < REGISTERS; n++) if (readPhysical(cpu, n) !== 0n) return true;
  return cpu.get32(S.FCS) !== 0 || cpu.get32(S.FDS) !== 0;
}

function saveMxcsr(cpu: Cpu): void {
  put32(cpu, AT.MXCSR, cpu.get32(S.MXCSR));
  put32(cpu, AT.MXCSR_MASK, MXCSR_MASK);
}

function saveXmm(cpu: Cpu): void {
  const from = cpu.base + S.XMM;
  cpu.memory.u8.copyWithin(cpu.base + S.XTEMP + AT.XMM, from, from + xmmCount(cpu) * XMM_BYTES);
}

function restoreXmm(cpu: Cpu): void {
  const from = cpu.base + S.XTEMP + AT.XMM;
  cpu.memory.u8.copyWithin(cpu.base + S.XMM, from, from + xmmCount(cpu) * XMM_BYTES);
}

function initXmm(cpu: Cpu): void {
  const from = cpu.base + S.XMM;
  cpu.memory.u8.fill(0, from, from + xmmCount(cpu) * XMM_BYTES);
}

function isXmmInUse(cpu: Cpu): boolean {
  for (let n = 0; n < xmmCount(cpu) * 2; n++) if (cpu.get64(S.XMM + n * 8) !== 0n) return true;
  return false;
}

/** XINUSE. */
function inUse(cpu: Cpu): number {
  return (isX87InUse(cpu) ? COMPONENT.X87 : 0) | (isXmmInUse(cpu) ? COMPONENT.SSE : 0) |
    (cpu.get32(S.PKRU) !== 0 ? COMPONENT.PKRU : 0);
}

function setPkru(cpu: Cpu, value: number): void {
  if (cpu.get32(S.PKRU) === value >>> 0) return;
  cpu.set32(S.PKRU, value);
  cpu.access.tlb.flushFast(); // permissions are part of the fast entries
}

// ---- memory -----------------------------------------------------------------------------------------------------

/** Checks segment, limit and alignment of the area; its linear address is in access.linLow and linHigh. Arguments: effective address, segment. */
function locate(cpu: Cpu, bytes: number, alignment: number, write: boolean): void {
  const { access } = cpu;
  access.segment(cpu.argLow(1), cpu.argLow(0), cpu.argHigh(0), bytes, write);
  if (access.linLow & (alignment - 1)) cpu.raise(VECTOR.GP, 0);
}

interface Linear {
  readonly low: number;
  readonly high: number;
}

function located(cpu: Cpu): Linear {
  return { low: cpu.access.linLow, high: cpu.access.linHigh };
}

/** `base` + `offset`, both halves unsigned. */
function at(base: Linear, offset: number): Linear {
  const low = (base.low >>> 0) + offset;
  const carry = low > 0xffff_ffff ? 1 : 0;
  return { low: low >>> 0, high: (base.high + carry) >>> 0 };
}

function readImage(cpu: Cpu, base: Linear, bytes: number): void {
  cpu.access.readBytes(base.low, base.high, cpu.base + S.XTEMP, bytes);
}

function writeImage(cpu: Cpu, base: Linear, bytes: number): void {
  cpu.access.writeBytes(base.low, base.high, cpu.base + S.XTEMP, bytes);
}

// ---- FXSAVE, FXRSTOR -----------------------------------------------------------------------------------------------

const LEGACY_BYTES = 512, LEGACY_ALIGNMENT = 16, XSAVE_ALIGNMENT = 64;

/** Arguments: effective address, segment, 1 for the 64-bit format. */
function fxsave(cpu: Cpu): number {
  const wide = cpu.argLow(2) !== 0;
  locate(cpu, LEGACY_BYTES, LEGACY_ALIGNMENT, true);
  const base = located(cpu);
  readImage(cpu, base, AT.XMM_END);
  saveX87(cpu, wide);
  saveMxcsr(cpu);
  saveXmm(cpu);
  writeImage(cpu, base, AT.XMM_END);
  return EXIT_NONE;
}

/** Arguments as for FXSAVE. */
function fxrstor(cpu: Cpu): number {
  const wide = cpu.argLow(2) !== 0;
  locate(cpu, LEGACY_BYTES, LEGACY_ALIGNMENT, false);
  readImage(cpu, located(cpu), LEGACY_BYTES);
  const mxcsr = get32(cpu, AT.MXCSR);
  if (mxcsr & ~MXCSR_MASK) cpu.raise(VECTOR.GP, 0);
  restoreX87(cpu, wide);
  cpu.set32(S.MXCSR, mxcsr);
  restoreXmm(cpu);
  return EXIT_NONE;
}

// ---- XSAVE ----------------------------------------------------------------------------------------------------------

/** The components asked for: XCR0 & EDX:EAX (no component stands in the upper half). */
function requested(cpu: Cpu): number {
  return cpu.get32(S.XCR0) & cpu.get32(S.GPR + R.RAX * 8);
}

/** How the three saving instructions differ. */
interface SaveKind {
  /** Components in their initial state are not written. */
  readonly optimized: boolean;
  /** The compacted format. */
  readonly compacted: boolean;
}

/** XSAVE, XSAVEOPT, XSAVEC. Arguments: effective address, segment, 1 for 64-bit pointers. */
function saver({ optimized, compacted }: SaveKind): Procedure {
  return (cpu) => {
    const wide = cpu.argLow(2) !== 0, components = requested(cpu);
    const pkruAt = compacted ? COMPACT_PKRU_OFFSET : XSAVE_PKRU_OFFSET;
    const withPkru = (components & COMPONENT.PKRU) !== 0;
    locate(cpu, withPkru ? pkruAt + PKRU_BYTES : AREA_BYTES, XSAVE_ALIGNMENT, true);
    const base = located(cpu), pkru = at(base, pkruAt);
    readImage(cpu, base, AREA_BYTES);
    cpu.access.probe(base.low, base.high, AREA_BYTES, true);
    if (withPkru) cpu.access.probe(pkru.low, pkru.high, PKRU_BYTES, true);

    let used = inUse(cpu);
    // Compacted, MXCSR is part of the SSE component.
    if (compacted && cpu.get32(S.MXCSR) !== MXCSR_INIT) used |= COMPONENT.SSE;
    const written = optimized ? components & used : components;
    if (written & COMPONENT.X87) saveX87(cpu, wide);
    if (compacted ? written & COMPONENT.SSE : components & COMPONENT.SSE) saveMxcsr(cpu);
    if (written & COMPONENT.SSE) saveXmm(cpu);
    if (compacted) {
      put32(cpu, HEADER.XSTATE_BV, components & used);
      put32(cpu, HEADER.XSTATE_BV + 4, 0);
      put32(cpu, HEADER.XCOMP_BV, components);
      put32(cpu, HEADER.XCOMP_BV + 4, COMPACTED);
    } else {
      put32(cpu, HEADER.XSTATE_BV, (get32(cpu, HEADER.XSTATE_BV) & ~components) | (components & used));
    }
    if (written & COMPONENT.PKRU) {
      cpu.access.write(pkru.low, pkru.high, PKRU_BYTES, cpu.get32(S.PKRU), 0);
    }
    writeImage(cpu, base, AREA_BYTES);
    return EXIT_NONE;
  };
}

function isZero(cpu: Cpu, { from, to }: { readonly from: number; readonly to: number }): boolean {
  for (let offset = from; offset < to; offset += 4) if (get32(cpu, offset) !== 0) return false;
  return true;
}

/**
 * XRSTOR, and XRSTORS, which takes the compacted format only. Arguments: effective address, segment, 1 for 64-bit pointers.
 *
 * There are no supervisor state components (IA32_XSS is 0), so that this is all that XRSTORS is.
 */
function restore(cpu: Cpu, supervisor: boolean): number {
  const wide = cpu.argLow(2) !== 0, components = requested(cpu), supported = cpu.get32(S.XCR0);
  locate(cpu, AREA_BYTES, XSAVE_ALIGNMENT, false);
  const base = located(cpu);
  readImage(cpu, base, AREA_BYTES);
  const present = get32(cpu, HEADER.XSTATE_BV), layout = get32(cpu, HEADER.XCOMP_BV);
  const compacted = (supervisor || cpu.model.features.has("xsavec")) &&
    (get32(cpu, HEADER.XCOMP_BV + 4) & COMPACTED) !== 0;
  if (supervisor && !compacted) cpu.raise(VECTOR.GP, 0);
  const valid = get32(cpu, HEADER.XSTATE_BV + 4) === 0 &&
    (compacted
      ? (get32(cpu, HEADER.XCOMP_BV + 4) >>> 0) === COMPACTED && (layout & ~supported) === 0 &&
        (present & ~layout) === 0 && isZero(cpu, COMPACT_RESERVED)
      : (present & ~supported) === 0 && isZero(cpu, STANDARD_RESERVED));
  if (!valid) cpu.raise(VECTOR.GP, 0);

  const loaded = components & present;
  let pkruValue = 0;
  if (loaded & COMPONENT.PKRU) {
    const offset = compacted ? COMPACT_PKRU_OFFSET : XSAVE_PKRU_OFFSET;
    locate(cpu, offset + PKRU_BYTES, XSAVE_ALIGNMENT, false);
    const pkru = at(base, offset);
    pkruValue = cpu.access.read(pkru.low, pkru.high, 4);
  }
  // Standard format: MXCSR comes from memory whenever SSE is asked for, even if SSE itself is initialized.
  const mxcsrLoaded = ((compacted ? loaded : components) & COMPONENT.SSE) !== 0;
  const mxcsr = mxcsrLoaded ? get32(cpu, AT.MXCSR) : MXCSR_INIT;
  if (mxcsr & ~MXCSR_MASK) cpu.raise(VECTOR.GP, 0);

  if (loaded & COMPONENT.X87) restoreX87(cpu, wide);
  else if (components & COMPONENT.X87) initX87(cpu);
  if (components & COMPONENT.SSE) cpu.set32(S.MXCSR, mxcsr);
  if (loaded & COMPONENT.SSE) restoreXmm(cpu);
  else if (components & COMPONENT.SSE) initXmm(cpu);
  if (components & COMPONENT.PKRU) setPkru(cpu, pkruValue);
  return EXIT_NONE;
}

// ---- XCR0 ------------------------------------------------------------------------------------------------------------

/** XGETBV: ECX = 0 gives XCR0; ECX = 1, where CPUID offers it, XCR0 & XINUSE. */
function xgetbv(cpu: Cpu): number {
  const index = cpu.get32(S.GPR + R.RCX * 8);
  const isOffered = index === 0 || (index === 1 && cpu.model.features.has("xgetbv1"));
  if (!isOffered) cpu.raise(VECTOR.GP, 0);
  const value = index === 0 ? cpu.get32(S.XCR0) : cpu.get32(S.XCR0) & inUse(cpu);
  cpu.set64Halves(S.GPR + R.RAX * 8, value, 0);
  cpu.set64Halves(S.GPR + R.RDX * 8, 0, 0);
  return EXIT_NONE;
}

/** XSETBV: x87 must stay enabled, and only what CPUID reports may be. */
function xsetbv(cpu: Cpu): number {
  if (isNonRoot(cpu)) return requestExit(cpu, REASON.XSETBV);
  const index = cpu.get32(S.GPR + R.RCX * 8);
  const value = cpu.get32(S.GPR + R.RAX * 8), upper = cpu.get32(S.GPR + R.RDX * 8);
  const isValid = index === 0 && upper === 0 && (value & COMPONENT.X87) !== 0 &&
    (value & ~xcr0Mask(cpu.model)) === 0;
  if (!isValid) cpu.raise(VECTOR.GP, 0);
  cpu.set64Halves(S.XCR0, value, 0);
  return EXIT_NONE;
}

/** Procedures of this file, by name. */
export const fxsaveProcedures: Procedures = {
  fxsave,
  fxrstor,
  xsave: saver({ optimized: false, compacted: false }),
  xsaveopt: saver({ optimized: true, compacted: false }),
  xsavec: saver({ optimized: true, compacted: true }),
  // XSAVES saves as XSAVEC does: there are no supervisor state components.
  xsaves: saver({ optimized: true, compacted: true }),
  xrstor: (cpu) => restore(cpu, false),
  xrstors: (cpu) => restore(cpu, true),
  xgetbv,
  xsetbv,
};
