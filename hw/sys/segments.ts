/**
 * Descriptors and segment registers: reading a descriptor from the GDT or LDT, the checks of each kind of load, the
 * accessed bit, null selectors, real-mode and virtual-8086 loads.
 *
 * Room: `hw/sys/`; imports state.ts, mode.ts, and the processor. SDM vol. 3A, "Protection"; vol. 2, "MOV".
 *
 * @module
 */
import { type Cpu, type Procedures, VECTOR } from "../cpu.ts";
import * as state from "../state.ts";
import {
  AR,
  isCpuCanonical,
  isLongMode,
  isRealOrVirtual8086,
  isVirtual8086,
  setSegment,
  updateCodeAndStackMode,
} from "./mode.ts";
import { quickWords } from "./quick.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const { EXIT_END, EXIT_NONE, S, SEG } = state;

/** `how` of an access by the processor itself to GDT, LDT, IDT or TSS: implicit supervisor. */
export const IMPLICIT = 1;

/** A descriptor as read from memory. Instances are reused; nothing keeps one over a procedure's end. */
export class Descriptor {
  selector = 0;
  /** The eight bytes, as signed halves. */
  low = 0;
  high = 0;
  /** Linear address of the descriptor. */
  linearLow = 0;
  linearHigh = 0;
  /** Upper half of the base (or of a gate's offset), from the second eight bytes of a system descriptor in IA-32e mode. */
  upper = 0;

  /** Type field, 0 … 15. */
  get type(): number {
    return (this.high >>> 8) & 15;
  }
  /** True for code and data segments, false for system descriptors. */
  get isSegment(): boolean {
    return (this.high & 0x1000) !== 0;
  }
  get isCode(): boolean {
    return (this.high & 0x1800) === 0x1800;
  }
  get isConforming(): boolean {
    return (this.high & 0x400) !== 0;
  }
  /** A data segment that may be written. */
  get isWritableData(): boolean {
    return (this.high & 0x1a00) === 0x1200;
  }
  get dpl(): number {
    return (this.high >>> 13) & 3;
  }
  get isPresent(): boolean {
    return (this.high & 0x8000) !== 0;
  }
  get isLong(): boolean {
    return (this.high & 0x20_0000) !== 0;
  }
  get isBig(): boolean {
    return (this.high & 0x40_0000) !== 0;
  }
  /** Lower half of the base. */
  get base(): number {
    return (this.low >>> 16) | ((this.high & 0xff) << 16) | (this.high & 0xff00_0000);
  }
  /** Limit in bytes, unsigned, granularity applied. */
  get limit(): number {
    const limit = (this.low & 0xffff) | (this.high & 0xf_0000);
    return (this.high & 0x80_0000 ? (limit << 12) | 0xfff : limit) >>> 0;
  }
  /** Access rights in the VMCS format. */
  get ar(): number {
    return (this.high >>> 8) & 0xf0ff;
  }
}

/** Selector without its RPL: what error codes carry. */
export function selectorCode(selector: number): number {
  return selector & 0xfffc;
}
/** True for the four null selectors. */
export function isNull(selector: number): boolean {
  return (selector & 0xfffc) === 0;
}

/**
 * Reads the descriptor that `selector` names into `d`.
 *
 * @returns false when the selector is null or beyond its table's limit. May raise a page fault.
 */
export function findDescriptor(cpu: Cpu, selector: number, d: Descriptor): boolean {
  d.selector = selector;
  const i32 = cpu.memory.i32, at = cpu.base >>> 2;
  const offset = selector & 0xfff8;
  let table: number, limit: number;
  if (selector & 4) {
    if (i32[at + (S.SEGAR >>> 2) + SEG.LDTR]! & AR.UNUSABLE) return false;
    table = at + (S.SEGBASE >>> 2) + SEG.LDTR * 2;
    limit = i32[at + (S.SEGLIMIT >>> 2) + SEG.LDTR]! >>> 0;
  } else {
    if (offset === 0) return false;
    table = at + (S.GDTR >>> 2);
    limit = i32[at + ((S.GDTR + 8) >>> 2)]! & 0xffff;
  }
  if (offset + 7 > limit) return false;
  const baseLow = i32[table]!;
  const linearLow = (baseLow + offset) | 0;
  const long = (i32[at + (S.EFER >>> 2)]! & 0x400) !== 0;
  const carry = (linearLow >>> 0) < (baseLow >>> 0) ? 1 : 0;
  const linearHigh = long ? (i32[table + 1]! + carry) | 0 : 0;
  d.linearLow = linearLow;
  d.linearHigh = linearHigh;
  d.upper = 0;
  const words = quickWords(cpu, linearLow, linearHigh, 8, false, true);
  if (words !== 0) {
    d.low = i32[words]!;
    d.high = i32[words + 1]!;
    return true;
  }
  const access = cpu.access;
  d.low = access.read(linearLow, linearHigh, 8, IMPLICIT) | 0;
  d.high = access.high | 0;
  return true;
}

/** {@link findDescriptor}, which raises `vector`(selector) when there is no descriptor. `ext` is the EXT bit of the error code. */
export function readDescriptor(
  cpu: Cpu,
  selector: number,
  d: Descriptor,
  vector: number = VECTOR.GP,
  ext = 0,
): void {
  if (!findDescriptor(cpu, selector, d)) cpu.raise(vector, selectorCode(selector) | ext);
}

/**
 * In IA-32e mode, reads the second eight bytes of a system descriptor in the GDT or LDT into `d.upper`; outside it does nothing.
 *
 * @returns false when they are beyond the table's limit, or the type field in them is not 0.
 */
export function readUpperDescriptor(cpu: Cpu, d: Descriptor): boolean {
  if (!isLongMode(cpu)) return true;
  const limit = d.selector & 4 ? cpu.get32(S.SEGLIMIT + SEG.LDTR * 4) : cpu.get32(S.GDTR + 8) & 0xffff;
  if ((d.selector & 0xfff8) + 15 > limit) return false;
  const low = (d.linearLow + 8) | 0;
  const high = (d.linearHigh + ((low >>> 0) < 8 ? 1 : 0)) | 0;
  d.upper = cpu.access.read(low, high, 8, IMPLICIT) | 0;
  return (cpu.access.high & 0x1f00) === 0;
}

/** Sets bits of the descriptor's upper dword in memory, as the accessed and the busy bit are set. */
export function writeDescriptorHigh(cpu: Cpu, d: Descriptor, high: number): void {
  const low = (d.linearLow + 4) | 0;
  cpu.access.write(low, d.linearHigh + ((low >>> 0) < 4 ? 1 : 0), 4, high, 0, IMPLICIT);
  d.high = high | 0;
}

/** Sets the accessed bit of a code or data segment, in memory and in `d`, unless it is set. */
export function markAccessed(cpu: Cpu, d: Descriptor): void {
  if ((d.high & 0x100) === 0) writeDescriptorHigh(cpu, d, d.high | 0x100);
}

/** Loads a segment register from a checked descriptor. */
export function setFromDescriptor(cpu: Cpu, seg: number, selector: number, d: Descriptor): void {
  setSegment(cpu, seg, selector, d.base, d.upper, d.limit, d.ar);
}

/** Loads a null selector: the register becomes unusable, its base 0. */
export function setNull(cpu: Cpu, seg: number, selector: number): void {
  const dpl = seg === SEG.SS ? (cpu.get32(S.CPL) & 3) << 5 : 0;
  setSegment(cpu, seg, selector, 0, 0, 0, AR.UNUSABLE | dpl);
}

/** Loads a segment register in real mode: base and selector change, limit and rights stay, but CS becomes plain. */
export function setRealSegment(cpu: Cpu, seg: number, selector: number): void {
  const ar = cpu.get32(S.SEGAR + seg * 4);
  let limit = cpu.get32(S.SEGLIMIT + seg * 4), rights = ar;
  if (ar & AR.UNUSABLE) {
    limit = 0xffff;
    rights = 0x93;
  } else if (seg === SEG.CS) rights = (ar & ~0xff) | 0x93;
  setSegment(cpu, seg, selector, (selector & 0xffff) << 4, 0, limit, rights);
}

/** Loads a segment register as virtual-8086 mode has it. */
export function setVirtual8086Segment(cpu: Cpu, seg: number, selector: number): void {
  setSegment(cpu, seg, selector, (selector & 0xffff) << 4, 0, 0xffff, 0xf3);
}

/** Loads a segment register in real or virtual-8086 mode. */
export function set8086Segment(cpu: Cpu, seg: number, selector: number): void {
  if (isVirtual8086(cpu)) setVirtual8086Segment(cpu, seg, selector);
  else setRealSegment(cpu, seg, selector);
}

const loaded = new Descriptor();

/**
 * MOV, POP, LxS to a segment register other than CS, with every check. Raises #GP, #SS, #NP or a page fault with nothing changed.
 * CODEMODE and STACKMODE follow.
 */
export function loadSegment(cpu: Cpu, seg: number, selector: number): void {
  selector &= 0xffff;
  if (isRealOrVirtual8086(cpu)) {
    set8086Segment(cpu, seg, selector);
    if (seg === SEG.SS) updateCodeAndStackMode(cpu);
    return;
  }
  if (seg === SEG.SS) {
    loadStackSegment(cpu, selector);
    return;
  }
  if (isNull(selector)) {
    setNull(cpu, seg, selector);
    return;
  }
  const d = loaded, cpl = cpu.get32(S.CPL), rpl = selector & 3;
  readDescriptor(cpu, selector, d);
  // Data, or readable code; the privilege check spares conforming code.
  const readable = d.isSegment && (!d.isCode || (d.high & 0x200) !== 0);
  if (!readable) cpu.raise(VECTOR.GP, selectorCode(selector));
  if (!(d.isCode && d.isConforming) && (d.dpl < cpl || d.dpl < rpl)) {
    cpu.raise(VECTOR.GP, selectorCode(selector));
  }
  if (!d.isPresent) cpu.raise(VECTOR.NP, selectorCode(selector));
  markAccessed(cpu, d);
  setFromDescriptor(cpu, seg, selector, d);
}

function loadStackSegment(cpu: Cpu, selector: number): void {
  const cpl = cpu.get32(S.CPL), rpl = selector & 3;
  if (isNull(selector)) {
    if (!cpu.is64 || cpl === 3 || rpl !== cpl) cpu.raise(VECTOR.GP, 0);
    setNull(cpu, SEG.SS, selector);
  } else {
    checkStackSegment(cpu, selector, cpl, loaded, VECTOR.GP, 0);
    markAccessed(cpu, loaded);
    setFromDescriptor(cpu, SEG.SS, selector, loaded);
  }
  updateCodeAndStackMode(cpu);
}

/** Reads and checks the descriptor of a stack segment for privilege `cpl`; `vector` is #GP or (for stacks from a TSS) #TS. */
export function checkStackSegment(
  cpu: Cpu,
  selector: number,
  cpl: number,
  d: Descriptor,
  vector: number,
  ext: number,
): void {
  readDescriptor(cpu, selector, d, vector, ext);
  if ((selector & 3) !== cpl || !d.isWritableData || d.dpl !== cpl) {
    cpu.raise(vector, selectorCode(selector) | ext);
  }
  if (!d.isPresent) cpu.raise(VECTOR.SS, selectorCode(selector) | ext);
}

/** Sets CS and with it CPL; the caller updates modes. */
export function setCodeSegment(cpu: Cpu, selector: number, d: Descriptor, cpl: number): void {
  setSegment(cpu, SEG.CS, (selector & 0xfffc) | cpl, d.base, 0, d.limit, d.ar);
  cpu.set32(S.CPL, cpl);
}

/** {@link setCodeSegment} for 64-bit code, which has no limits to check. */
export function setCodeSegment64(cpu: Cpu, selector: number, d: Descriptor, cpl: number): void {
  const i32 = cpu.memory.i32, at = cpu.base >>> 2;
  i32[at + (S.SEGSEL >>> 2) + SEG.CS] = (selector & 0xfffc) | cpl;
  i32[at + (S.SEGBASE >>> 2) + SEG.CS * 2] = d.base;
  i32[at + (S.SEGBASE >>> 2) + SEG.CS * 2 + 1] = 0;
  i32[at + (S.SEGLIMIT >>> 2) + SEG.CS] = d.limit;
  i32[at + (S.SEGAR >>> 2) + SEG.CS] = d.ar;
  i32[at + (S.CPL >>> 2)] = cpl;
  i32[at + (S.CODEMODE >>> 2)] = 2;
  i32[at + (S.STACKMODE >>> 2)] = 2;
}

/** After a return to an outer level: data segment registers that the new level may not use become null. */
export function dropPrivilegedSegments(cpu: Cpu, cpl: number): void {
  const i32 = cpu.memory.i32, ars = (cpu.base + S.SEGAR) >>> 2;
  for (let seg = 0; seg < 6; seg++) {
    if (seg === SEG.CS || seg === SEG.SS) continue;
    const ar = i32[ars + seg]!;
    if (ar & AR.UNUSABLE) continue;
    const conforming = (ar & 0xc) === 0xc;
    if (!conforming && ((ar >>> 5) & 3) < cpl) setNull(cpu, seg, 0);
  }
}

// ---- LLDT, LTR, LAR, LSL, VERR, VERW

/** LLDT: #GP unless the selector names an LDT in the GDT. */
function loadLdt(cpu: Cpu, selector: number): void {
  if (isNull(selector)) {
    setNull(cpu, SEG.LDTR, selector);
    return;
  }
  const d = loaded, code = selectorCode(selector);
  if (selector & 4) cpu.raise(VECTOR.GP, code);
  readDescriptor(cpu, selector, d);
  if (d.isSegment || d.type !== 2 || !readUpperDescriptor(cpu, d)) cpu.raise(VECTOR.GP, code);
  if (!d.isPresent) cpu.raise(VECTOR.NP, code);
  if (isLongMode(cpu) && !isCpuCanonical(cpu, d.upper)) cpu.raise(VECTOR.GP, code);
  setFromDescriptor(cpu, SEG.LDTR, selector, d);
}

/** LTR: loads an available TSS and marks it busy. */
function loadTaskRegister(cpu: Cpu, selector: number): void {
  const d = loaded, code = selectorCode(selector);
  if (isNull(selector)) cpu.raise(VECTOR.GP, 0);
  if (selector & 4) cpu.raise(VECTOR.GP, code);
  readDescriptor(cpu, selector, d);
  const ok = !d.isSegment && (d.type === 9 || (d.type === 1 && !isLongMode(cpu)));
  if (!ok || !readUpperDescriptor(cpu, d)) cpu.raise(VECTOR.GP, code);
  if (!d.isPresent) cpu.raise(VECTOR.NP, code);
  if (isLongMode(cpu) && !isCpuCanonical(cpu, d.upper)) cpu.raise(VECTOR.GP, code);
  writeDescriptorHigh(cpu, d, d.high | 0x200);
  setFromDescriptor(cpu, SEG.TR, selector, d);
}

/** System descriptor types that LAR accepts, as a bit set: legacy and IA-32e mode. */
const LAR_TYPES = 0b0001_1010_0011_1110, LAR_TYPES_LONG = 0b0001_1010_0000_0100;
/** The same for LSL: no gates. */
const LSL_TYPES = 0b0000_1010_0000_1110, LSL_TYPES_LONG = 0b0000_1010_0000_0100;

/** True when the descriptor may be seen by LAR or LSL at the current privilege. */
function visible(cpu: Cpu, selector: number, d: Descriptor, types: number, typesLong: number): boolean {
  if (isNull(selector) || !findDescriptor(cpu, selector, d)) return false;
  if (!d.isSegment) {
    const allowed = isLongMode(cpu) ? typesLong : types;
    if (((allowed >>> d.type) & 1) === 0) return false;
    if (!readUpperDescriptor(cpu, d)) return false;
  }
  if (d.isCode && d.isConforming) return true;
  return d.dpl >= cpu.get32(S.CPL) && d.dpl >= (selector & 3);
}

/** True when VERR (or VERW) finds the segment readable (writable) at the current privilege. */
function verify(cpu: Cpu, selector: number, write: boolean): boolean {
  const d = loaded;
  if (isNull(selector) || !findDescriptor(cpu, selector, d) || !d.isSegment) return false;
  const privileged = d.dpl < cpu.get32(S.CPL) || d.dpl < (selector & 3);
  if (write) return d.isWritableData && !privileged;
  if (d.isCode) return (d.high & 0x200) !== 0 && (d.isConforming || !privileged);
  return !privileged;
}

/** Leaves a value and whether it is valid, for the row to write and set ZF. */
function setOptional(cpu: Cpu, value: number, valid: boolean): number {
  cpu.setResult(value, 0);
  cpu.set64Halves(S.ARG + 8, valid ? 1 : 0, 0);
  return EXIT_NONE;
}

/** Adds `bytes` to rSP in the stack-address size `mode` (0 = 16, 1 = 32, 2 = 64 bits). */
export function adjustStack(cpu: Cpu, mode: number, bytes: number): void {
  const i32 = cpu.memory.i32, at = (cpu.base + S.GPR + 4 * 8) >>> 2;
  const old = i32[at]!;
  if (mode === 0) i32[at] = (old & ~0xffff) | ((old + bytes) & 0xffff);
  else {
    i32[at] = (old + bytes) | 0;
    if (mode === 1) i32[at + 1] = 0;
    else if (bytes >= 0 ? (i32[at]! >>> 0) < (old >>> 0) : (i32[at]! >>> 0) > (old >>> 0)) {
      i32[at + 1] = (i32[at + 1]! + (bytes >= 0 ? 1 : -1)) | 0;
    }
  }
}

/** Interrupts and debug traps wait until after the next instruction; the run loop ends the shadow. */
function blockByMovSs(cpu: Cpu): void {
  cpu.set32(S.BLOCKING, cpu.get32(S.BLOCKING) | 2);
}

/** Procedures of this file. */
export const segmentProcedures: Procedures = {
  /** (seg, selector): DS, ES, FS, GS, or SS for LSS. */
  loadSegment(cpu) {
    loadSegment(cpu, cpu.argLow(0), cpu.argLow(1));
    return EXIT_NONE;
  },
  /** (selector): MOV SS. */
  movSs(cpu) {
    loadSegment(cpu, SEG.SS, cpu.argLow(0));
    blockByMovSs(cpu);
    return EXIT_END;
  },
  /** (selector, bytes): POP SS; the pop uses the old stack size. */
  popSs(cpu) {
    const mode = cpu.get32(S.STACKMODE), bytes = cpu.argLow(1);
    loadSegment(cpu, SEG.SS, cpu.argLow(0));
    adjustStack(cpu, mode, bytes);
    blockByMovSs(cpu);
    return EXIT_END;
  },
  lldt(cpu) {
    loadLdt(cpu, cpu.argLow(0) & 0xffff);
    return EXIT_NONE;
  },
  ltr(cpu) {
    loadTaskRegister(cpu, cpu.argLow(0) & 0xffff);
    return EXIT_NONE;
  },
  /** (selector): result, validity in the next slot. */
  lar(cpu) {
    const selector = cpu.argLow(0) & 0xffff;
    const valid = visible(cpu, selector, loaded, LAR_TYPES, LAR_TYPES_LONG);
    return setOptional(cpu, loaded.high & 0x00ff_ff00, valid);
  },
  lsl(cpu) {
    const selector = cpu.argLow(0) & 0xffff;
    const valid = visible(cpu, selector, loaded, LSL_TYPES, LSL_TYPES_LONG);
    return setOptional(cpu, loaded.limit, valid);
  },
  verr(cpu) {
    return setOptional(cpu, 0, verify(cpu, cpu.argLow(0) & 0xffff, false));
  },
  verw(cpu) {
    return setOptional(cpu, 0, verify(cpu, cpu.argLow(0) & 0xffff, true));
  },
};
