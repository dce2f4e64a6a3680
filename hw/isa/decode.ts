/**
 * The instruction decoder (SDM vol. 2, "Instruction Format"): bytes to {@link Decoded}, driven by the rows of the table.
 *
 * The opcode maps are made once, at the first instruction (opcode_map.ts), and each opcode's candidates are sorted by ModRM byte when
 * that byte is first seen. Forms are interned (form_make.ts): two instructions with equal keys have the same `Form` object.
 *
 * What an engine must know beside form.ts:
 *
 * - RIP-relative: `base` is `S.RIPPAGE` and `disp` the raw displacement, so that a record does not depend on where
 *   the page is mapped; {@link ripRelativeDisplacement} gives what to add to RIPPAGE.
 * - A moffs operand (`A0`-`A3`) is a memory operand with slot "imm": its offset is the immediate, zero-extended, because in
 *   64-bit mode it has 64 bits.
 * - `X` and `Y` operands of string rows have `fixed` 6 (RSI) and 7 (RDI). The record's memory fields are those of `X` where
 *   there is one (segment override applied), else those of `Y`.
 * - Fixed registers stand in the record as well as in `fixed`. AH … BH are byte offsets S.GPR + 8 n + 1.
 * - A constant operand (the 1 of `D1 /4`) is an "imm" with `fixed`; the immediate field holds it too unless another operand does.
 *
 * Room: `hw/isa/`; imports the table and the state layout. No engine, no processor: the caller says mode and features.
 *
 * @module
 */
import { S, SEG } from "../state.ts";
import { type MandatoryPrefix, NO_PREFIX, NO_REPEAT, VEX_MAPS } from "./encoding.ts";
import type { CodeMode, Decoded } from "./form.ts";
import { kindOf, makeForm } from "./form_make.ts";
import { buildMaps, type Candidate, narrow, type OpcodeMap } from "./opcode_map.ts";

/** The bytes given end before the instruction does: give more (the next page), or fault on fetching them. */
export const NEED_BYTES = 0;
/** No instruction: #UD. */
export const UNDEFINED = 6;
/** Longer than 15 bytes: #GP(0). */
export const TOO_LONG = 13;

/** Why there is no {@link Decoded}. */
export type DecodeFault = typeof NEED_BYTES | typeof UNDEFINED | typeof TOO_LONG;

/** Longest instruction in bytes. */
export const INSTRUCTION_BYTES_MAX = 15;

/** True if `result` is an instruction. */
export function isDecoded(result: Decoded | DecodeFault): result is Decoded {
  return typeof result !== "number";
}

/**
 * What to add to the IP of the page's first byte to get the effective address of a RIP-relative operand: displacement,
 * plus where the next instruction begins. May exceed 2^31 − 1 by up to 4110.
 *
 * @param pageOffset Offset of the instruction's first byte in its page.
 */
export function ripRelativeDisplacement(decoded: Decoded, pageOffset: number): number {
  return decoded.disp + pageOffset + decoded.length;
}

/** Made at the first instruction: a program that only reads state never pays for it. */
let opcodeMaps: readonly OpcodeMap[] | undefined;

/** Kinds of prefix bytes in {@link PREFIX_OF}; 0 is no prefix. */
const PREFIX_SEGMENT = 1;
const PREFIX_OPERAND = 2;
const PREFIX_ADDRESS = 3;
const PREFIX_LOCK = 4;
const PREFIX_REP = 5;
const PREFIX_REX = 6;

const PREFIX_OF = new Uint8Array(256);
const SEGMENT_OF = new Uint8Array(256);
for (const [byte, segment] of [[0x26, 0], [0x2e, 1], [0x36, 2], [0x3e, 3], [0x64, 4], [0x65, 5]] as const) {
  PREFIX_OF[byte] = PREFIX_SEGMENT;
  SEGMENT_OF[byte] = segment;
}
PREFIX_OF[0x66] = PREFIX_OPERAND;
PREFIX_OF[0x67] = PREFIX_ADDRESS;
PREFIX_OF[0xf0] = PREFIX_LOCK;
PREFIX_OF[0xf2] = PREFIX_OF[0xf3] = PREFIX_REP;
for (let byte = 0x40; byte < 0x50; byte++) PREFIX_OF[byte] = PREFIX_REX;

/** Base and index registers of 16-bit addressing by rm; −1 for none. */
const BASE16 = [3, 3, 5, 5, 6, 7, 5, 3] as const;
const INDEX16 = [6, 7, 6, 7, -1, -1, -1, -1] as const;

/** Offset in the block of general-purpose register `n`. */
function gprOffset(n: number): number {
  return S.GPR + n * 8;
}

/** Offset of byte register `n`: AH … BH are 4 … 7 without REX. */
function byteOffset(n: number, hasRex: boolean): number {
  return n >= 4 && n < 8 && !hasRex ? S.GPR + (n - 4) * 8 + 1 : S.GPR + n * 8;
}

/** True if the prefixes seen (`rep`: the last F2 or F3, or 0) are those that a mandatory prefix asks for. F2 and F3 beat 66. */
function prefixSelects(prefix: MandatoryPrefix, rep: number, has66: boolean): boolean {
  if (prefix === NO_PREFIX) return rep === 0 && !has66;
  if (prefix === NO_REPEAT) return rep === 0;
  if (prefix === 0x66) return rep === 0 && has66;
  return rep === prefix;
}

/** Little-endian signed integer of 1, 2 or 4 bytes. */
function signedAt(bytes: Uint8Array, at: number, size: number): number {
  if (size === 1) return (bytes[at]! << 24) >> 24;
  if (size === 2) return ((bytes[at]! | (bytes[at + 1]! << 8)) << 16) >> 16;
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
}

/**
 * Decodes the instruction at `bytes[offset]`.
 *
 * @param available Bytes that may be read from `offset` on; with 15 or more the answer is never {@link NEED_BYTES}.
 * @param mode Code mode of CS. What depends on more (real and virtual-8086 mode, CPL) is left to the prologue.
 * @param features CPUID feature names of the processor's model; rows that need another one are not there.
 */
export function decode(
  bytes: Uint8Array,
  offset: number,
  available: number,
  mode: CodeMode,
  features: ReadonlySet<string>,
): Decoded | DecodeFault {
  opcodeMaps ??= buildMaps();
  const isShort = available < INSTRUCTION_BYTES_MAX;
  const end = offset + (isShort ? available : INSTRUCTION_BYTES_MAX);
  const short: DecodeFault = isShort ? NEED_BYTES : TOO_LONG;
  let pos = offset;

  // Prefixes. A REX that is not last does not count.
  let override = -1, rep = 0, rex = 0;
  let has66 = false, has67 = false, lock = false;
  let byte = 0;
  for (;;) {
    if (pos >= end) return short;
    byte = bytes[pos++]!;
    const kind = PREFIX_OF[byte]!;
    if (kind === 0) break;
    if (kind === PREFIX_REX) {
      if (mode !== 2) break;
      rex = byte;
      continue;
    }
    rex = 0;
    if (kind === PREFIX_SEGMENT) {
      // In 64-bit mode ES, CS, SS and DS say nothing, not even that FS or GS is off.
      if (mode !== 2 || byte >= 0x64) override = SEGMENT_OF[byte]!;
    } else if (kind === PREFIX_OPERAND) has66 = true;
    else if (kind === PREFIX_ADDRESS) has67 = true;
    else if (kind === PREFIX_LOCK) lock = true;
    else rep = byte;
  }

  // Opcode.
  let map = 0;
  let vexPrefix = -1, vvvv = 15;
  if (byte === 0x0f) {
    if (pos >= end) return short;
    byte = bytes[pos++]!;
    map = 1;
    if (byte === 0x38 || byte === 0x3a) {
      map = byte === 0x38 ? 2 : 3;
      if (pos >= end) return short;
      byte = bytes[pos++]!;
    }
  } else if (byte === 0xc4 || byte === 0xc5) {
    if (pos >= end) return short;
    const first = bytes[pos]!;
    if (mode === 2 || first >= 0xc0) {
      if (rex !== 0 || has66 || rep !== 0 || lock) return UNDEFINED;
      pos++;
      let last = first;
      rex = 0x40 | (first & 0x80 ? 0 : 4);
      map = 1;
      if (byte === 0xc4) {
        if (pos >= end) return short;
        last = bytes[pos++]!;
        rex |= (first & 0x40 ? 0 : 2) | (first & 0x20 ? 0 : 1) | (last & 0x80 ? 8 : 0);
        map = first & 31;
        if (map < 1 || map > 3) return UNDEFINED;
      }
      if ((last & 4) !== 0) return UNDEFINED; // No 256-bit instructions.
      vvvv = (last >> 3) & 15 ^ 15;
      if (mode !== 2) {
        rex = 0x40;
        vvvv &= 7;
      }
      const pp = last & 3;
      vexPrefix = pp === 0 ? NO_PREFIX : pp === 1 ? 0x66 : pp === 2 ? 0xf3 : 0xf2;
      map += VEX_MAPS;
      if (pos >= end) return short;
      byte = bytes[pos++]!;
    }
  }
  const opcode = byte;
  const entry = opcodeMaps[map]![opcode];
  if (entry === undefined) return UNDEFINED;

  let modrm = 0;
  let candidates: readonly Candidate[] = entry.candidates;
  if (entry.hasModrm) {
    if (pos >= end) return short;
    modrm = bytes[pos++]!;
    candidates = entry.byModrm[modrm] ?? narrow(entry, modrm);
  }

  // Which encoding.
  const wide = (rex & 8) !== 0;
  const aw = mode === 2 ? (has67 ? 32 : 64) : (mode === 1) !== has67 ? 32 : 16;
  let e: Candidate | undefined;
  let operandSize = 0;
  for (let i = 0; i < candidates.length; i++) {
    const c = candidates[i]!;
    if (vexPrefix >= 0) {
      if (c.prefix !== vexPrefix) continue;
    } else if (c.prefix !== 0 && !prefixSelects(c.prefix, rep, has66)) continue;
    if (mode === 2 ? c.flags.no64 === true : c.flags.only64 === true) continue;
    const small = has66 && c.prefix !== 0x66;
    if (mode === 2) {
      operandSize = wide || c.force64 ? 64 : small ? 16 : c.default64 ? 64 : 32;
    } else operandSize = (mode === 1) !== small ? 32 : 16;
    if (c.operandSize !== 0 && c.operandSize !== operandSize) continue;
    if (c.addressSize !== 0 && c.addressSize !== aw) continue;
    if (c.rexW >= 0 && c.rexW !== (wide ? 1 : 0)) continue;
    if (c.rexB >= 0 && c.rexB !== (rex & 1)) continue;
    if (c.flags.cpuid !== undefined && !features.has(c.flags.cpuid)) continue;
    e = c;
    break;
  }
  if (e === undefined) return UNDEFINED;
  if (vexPrefix >= 0 && !e.usesVvvv && vvvv !== 0) return UNDEFINED;

  // Memory operand.
  const isMemory = entry.hasModrm && modrm < 0xc0 && !e.modIgnored;
  const rm = modrm & 7;
  let base: number = S.ZERO, index: number = S.ZERO, scale = 0, disp = 0;
  let segment = -1;
  if (isMemory) {
    const mod = modrm >> 6;
    let dispBytes = mod === 1 ? 1 : mod === 2 ? 4 : 0;
    segment = SEG.DS;
    if (aw === 16) {
      if (mod === 2) dispBytes = 2;
      if (mod === 0 && rm === 6) dispBytes = 2;
      else {
        base = gprOffset(BASE16[rm]!);
        if (INDEX16[rm]! >= 0) index = gprOffset(INDEX16[rm]!);
        if (rm === 2 || rm === 3 || rm === 6) segment = SEG.SS;
      }
    } else {
      let baseNumber = rm;
      if (rm === 4) {
        if (pos >= end) return short;
        const sib = bytes[pos++]!;
        scale = sib >> 6;
        const indexNumber = ((sib >> 3) & 7) | ((rex & 2) << 2);
        if (indexNumber !== 4) index = gprOffset(indexNumber);
        else scale = 0;
        baseNumber = sib & 7;
        if (baseNumber === 5 && mod === 0) {
          baseNumber = -1;
          dispBytes = 4;
        }
      } else if (rm === 5 && mod === 0) {
        baseNumber = -1;
        dispBytes = 4;
        if (mode === 2) base = S.RIPPAGE;
      }
      if (baseNumber >= 0) {
        baseNumber |= (rex & 1) << 3;
        base = gprOffset(baseNumber);
        if (baseNumber === 4 || baseNumber === 5) segment = SEG.SS;
      }
    }
    if (dispBytes !== 0) {
      if (pos + dispBytes > end) return short;
      disp = signedAt(bytes, pos, dispBytes);
      pos += dispBytes;
    }
    if (override >= 0) segment = override;
  }

  // The other operands.
  let r0 = 0, r1 = 0, r2 = 0, registers = 0;
  let immLow = 0, immHigh = 0, immediates = 0;
  const specs = e.operands;
  for (let i = 0; i < specs.length; i++) {
    const spec = specs[i]!;
    let value = 0;
    switch (spec.source) {
      case "E":
        if (isMemory) continue;
        value = rm | ((rex & 1) << 3);
        value = spec.size === "b" ? byteOffset(value, rex !== 0) : gprOffset(value);
        break;
      case "R":
        value = rm | ((rex & 1) << 3);
        value = spec.size === "b" ? byteOffset(value, rex !== 0) : gprOffset(value);
        break;
      case "G":
        value = ((modrm >> 3) & 7) | ((rex & 4) << 1);
        value = spec.size === "b" ? byteOffset(value, rex !== 0) : gprOffset(value);
        break;
      case "Z":
        value = (opcode & 7) | ((rex & 1) << 3);
        value = spec.size === "b" ? byteOffset(value, rex !== 0) : gprOffset(value);
        break;
      case "B":
        value = gprOffset(vvvv);
        break;
      case "W":
        if (isMemory) continue;
        value = S.XMM + 16 * (rm | ((rex & 1) << 3));
        break;
      case "U":
        value = S.XMM + 16 * (rm | ((rex & 1) << 3));
        break;
      case "V":
        value = S.XMM + 16 * (((modrm >> 3) & 7) | ((rex & 4) << 1));
        break;
      case "Q":
        if (isMemory) continue;
        value = S.FPR + 16 * rm;
        break;
      case "N":
        value = S.FPR + 16 * rm;
        break;
      case "P":
        value = S.FPR + 16 * ((modrm >> 3) & 7);
        break;
      case "STi":
        value = rm;
        break;
      case "S":
        value = (modrm >> 3) & 7;
        if (value > SEG.GS || (value === SEG.CS && spec.access !== "r")) return UNDEFINED;
        break;
      case "C":
        value = ((modrm >> 3) & 7) | ((rex & 4) << 1);
        if (value !== 0 && value !== 2 && value !== 3 && value !== 4 && value !== 8) return UNDEFINED;
        break;
      case "D":
        value = (modrm >> 3) & 7;
        if ((rex & 4) !== 0) return UNDEFINED;
        break;
      case "M":
        continue;
      case "X":
        segment = override >= 0 ? override : SEG.DS;
        base = gprOffset(6);
        continue;
      case "Y":
        if (segment < 0) {
          segment = SEG.ES;
          base = gprOffset(7);
        }
        continue;
      case "O": {
        const size = aw >> 3;
        if (pos + size > end) return short;
        immLow = size === 2 ? signedAt(bytes, pos, 2) & 0xffff : signedAt(bytes, pos, 4);
        immHigh = size === 8 ? signedAt(bytes, pos + 4, 4) : 0;
        pos += size;
        segment = override >= 0 ? override : SEG.DS;
        continue;
      }
      case "I":
      case "J": {
        const letter = spec.size;
        const size = letter === "b" || letter === "bs"
          ? 1
          : letter === "w"
          ? 2
          : letter === "d"
          ? 4
          : letter === "q"
          ? 8
          : letter === "v"
          ? operandSize >> 3
          : operandSize === 16
          ? 2
          : 4;
        if (pos + size > end) return short;
        const low = signedAt(bytes, pos, size > 4 ? 4 : size);
        if (immediates++ === 0) {
          immLow = low;
          immHigh = size === 8 ? signedAt(bytes, pos + 4, 4) : low >> 31;
        } else r2 = low & (size === 1 ? 0xff : 0xffff);
        pos += size;
        continue;
      }
      case "A": {
        const size = operandSize === 16 ? 2 : 4;
        if (pos + size + 2 > end) return short;
        immLow = size === 2 ? signedAt(bytes, pos, 2) & 0xffff : signedAt(bytes, pos, 4);
        immHigh = 0;
        r2 = signedAt(bytes, pos + size, 2) & 0xffff;
        immediates = 2;
        pos += size + 2;
        continue;
      }
      default: // Fixed.
        switch (spec.kind) {
          case "imm":
            if (immediates === 0) immLow = spec.fixed;
            continue;
          case "xmm":
            value = S.XMM + 16 * spec.fixed;
            break;
          case "reg":
            value = gprOffset(spec.fixed);
            break;
          default:
            value = spec.fixed;
        }
    }
    if (registers === 0) r0 = value;
    else if (registers === 1) r1 = value;
    else r2 = value;
    registers++;
  }

  if (lock && !(e.flags.lock === true && isMemory && kindOf(specs[0]!, true) === "mem")) return UNDEFINED;

  // Form.
  const repeat = e.flags.string === undefined || rep === 0
    ? 0
    : e.flags.string === "compare" && rep === 0xf2
    ? 2
    : 3;
  const cc = e.plusCondition ? opcode & 15 : 0;
  const formKey = (segment + 1) | (mode << 3) | (aw << 5) | (operandSize << 12) | (repeat << 19) |
    (cc << 21) | (lock ? 1 << 25 : 0) | (wide ? 1 << 26 : 0) | (isMemory ? 1 << 27 : 0);
  let form = e.forms.get(formKey);
  if (form === undefined) {
    form = makeForm(e, isMemory, operandSize, wide, aw, mode, cc, repeat, lock, segment);
    e.forms.set(formKey, form);
  }
  return {
    form,
    length: pos - offset,
    r0,
    r1,
    r2,
    base,
    index,
    scale,
    segment: segment < 0 || (mode === 2 && segment < SEG.FS) ? S.ZERO : S.SEGBASE + 8 * segment,
    disp,
    immLow,
    immHigh,
  };
}
