/**
 * What the MMX and SSE rows share: reading operands, the transition to MMX state, and the packed integer operations
 * that exist with 64-bit and with 128-bit registers, described once for both.
 *
 * Room: `hw/isa/`; imports the description language and constants of the processor.
 *
 * @module
 */
import { VECTOR } from "../cpu.ts";
import { S } from "../state.ts";
import type { Builder } from "./builder.ts";
import type { Operand } from "./form.ts";
import type { Lane, LaneOp, ShiftOp } from "./vector.ts";

/** Reads a source operand under the legacy SSE rule: 128-bit memory must be 16-byte aligned, less need not be. */
export function readSource<I, C, X>(b: Builder<I, C, X>, o: Operand): X {
  return b.readX(o, o.width === 128);
}

/** An imm8 operand as a number 0 … 255. */
export function imm8<I, C, X>(b: Builder<I, C, X>, o: Operand): I {
  return b.and(b.read(o), b.imm(0xff));
}

/** 128 zero bits. */
export function zeroX<I, C, X>(b: Builder<I, C, X>): X {
  return b.immX(0n, 0n);
}

/** The low 64 bits of `a`, zero-extended. */
export function lowHalf<I, C, X>(b: Builder<I, C, X>, a: X): X {
  return b.shuffle(a, a, LOW_HALF);
}

/** The low halves of `a` and `c` as one vector, `a`'s first. */
export function joinHalves<I, C, X>(b: Builder<I, C, X>, a: X, c: X): X {
  return b.lanes("unpackLow", 64, a, c);
}

const LOW_HALF = [0, 1, 2, 3, 4, 5, 6, 7, 32, 32, 32, 32, 32, 32, 32, 32];
const HIGH_HALF = [8, 9, 10, 11, 12, 13, 14, 15, 32, 32, 32, 32, 32, 32, 32, 32];

/** FSW bit 7: an unmasked x87 exception is pending. */
const FSW_ES = 7;
/** FSW without TOP. */
const FSW_NO_TOP = 0xc7ff;

/** #MF when an x87 exception is pending: the first thing every MMX instruction does. SDM vol. 3A, "System Programming for MMX". */
export function checkMmx<I, C, X>(b: Builder<I, C, X>): void {
  b.faultIf(b.bit(b.state(S.FSW, 16), FSW_ES), VECTOR.MF);
}

/** The transition to MMX state: TOP = 0, all x87 tags valid. Comes when nothing can fault any more. */
export function enterMmx<I, C, X>(b: Builder<I, C, X>): void {
  b.setState(S.FSW, 16, b.and(b.state(S.FSW, 16), b.imm(FSW_NO_TOP)));
  b.setState(S.FTW, 16, b.imm(0xff));
}

/** Computes a packed operation; `half` says that only the low 64 bits of operands and result matter (MMX). */
export type PackedCompute = <I, C, X>(b: Builder<I, C, X>, dst: X, src: X, half: boolean) => X;

/** A packed integer operation `dst := compute(dst, src)`. */
export interface Packed {
  /** The SDM's name. */
  readonly mnemonic: string;
  /** Opcode bytes behind 0F. */
  readonly opcode: string;
  /** CPUID feature of the MMX form; absent when there is none. */
  readonly mmx?: string;
  /** CPUID feature of the XMM form. */
  readonly sse: string;
  /** The MMX form reads only 32 bits of memory. */
  readonly narrow?: boolean;
  /** What it computes. */
  readonly compute: PackedCompute;
}

/** A lane operation that means the same for both register sizes. */
function laneOp(op: LaneOp, w: Lane): PackedCompute {
  return (b, dst, src) => b.lanes(op, w, dst, src);
}

/** PACK*: an MMX result has four bytes (or two words) of each operand. */
function pack(op: "packS" | "packU", w: 16 | 32): PackedCompute {
  return (b, dst, src, half) =>
    half ? b.lanes(op, w, joinHalves(b, dst, src), zeroX(b)) : b.lanes(op, w, dst, src);
}

/** PUNPCKH*: with MMX the high half of what the low halves interleaved give. */
function unpackHigh(w: Lane): PackedCompute {
  return (b, dst, src, half) => {
    if (!half) return b.lanes("unpackHigh", w, dst, src);
    const both = b.lanes("unpackLow", w, dst, src);
    return b.shuffle(both, both, HIGH_HALF);
  };
}

/** Sixteen byte sources: the even (`odd` = 0) or odd lanes of `bytes` bytes of the two operands. */
export function alternateLanes(bytes: number, odd: 0 | 1): number[] {
  return Array.from({ length: 16 }, (_, n) => (Math.floor(n / bytes) * 2 + odd) * bytes + n % bytes);
}

/** PHADD*, PHSUB*: even lanes with odd lanes of the two operands. */
function horizontal(op: "add" | "sub" | "addSatS" | "subSatS", w: 16 | 32): PackedCompute {
  const even = alternateLanes(w / 8, 0), odd = alternateLanes(w / 8, 1);
  return (b, dst, src, half) => {
    const low = half ? joinHalves(b, dst, src) : dst;
    const high = half ? low : src;
    return b.lanes(op, w, b.shuffle(low, high, even), b.shuffle(low, high, odd));
  };
}

/** A packed shift by the low 64 bits of the source. */
function shiftBy(op: ShiftOp, w: Lane): PackedCompute {
  return (b, dst, src) => b.shift(op, w, dst, b.extract(64, src, 0));
}

/** Operation with MMX form of one feature and XMM form of SSE2. */
function both(mnemonic: string, opcode: string, compute: PackedCompute, mmx = "mmx", sse = "sse2"): Packed {
  return { mnemonic, opcode, mmx, sse, compute };
}

/** Operation with an XMM form only. */
function wide(mnemonic: string, opcode: string, compute: PackedCompute, sse = "sse4_1"): Packed {
  return { mnemonic, opcode, sse, compute };
}

/** The packed integer operations of two operands. */
export const PACKED: readonly Packed[] = [
  { ...both("PUNPCKLBW", "60", laneOp("unpackLow", 8)), narrow: true },
  { ...both("PUNPCKLWD", "61", laneOp("unpackLow", 16)), narrow: true },
  { ...both("PUNPCKLDQ", "62", laneOp("unpackLow", 32)), narrow: true },
  both("PACKSSWB", "63", pack("packS", 16)),
  both("PCMPGTB", "64", laneOp("gtS", 8)),
  both("PCMPGTW", "65", laneOp("gtS", 16)),
  both("PCMPGTD", "66", laneOp("gtS", 32)),
  both("PACKUSWB", "67", pack("packU", 16)),
  both("PUNPCKHBW", "68", unpackHigh(8)),
  both("PUNPCKHWD", "69", unpackHigh(16)),
  both("PUNPCKHDQ", "6A", unpackHigh(32)),
  both("PACKSSDW", "6B", pack("packS", 32)),
  wide("PUNPCKLQDQ", "6C", laneOp("unpackLow", 64), "sse2"),
  wide("PUNPCKHQDQ", "6D", laneOp("unpackHigh", 64), "sse2"),
  both("PCMPEQB", "74", laneOp("eq", 8)),
  both("PCMPEQW", "75", laneOp("eq", 16)),
  both("PCMPEQD", "76", laneOp("eq", 32)),
  both("PSRLW", "D1", shiftBy("shr", 16)),
  both("PSRLD", "D2", shiftBy("shr", 32)),
  both("PSRLQ", "D3", shiftBy("shr", 64)),
  both("PADDQ", "D4", laneOp("add", 64), "sse2"),
  both("PMULLW", "D5", laneOp("mulLow", 16)),
  both("PSUBUSB", "D8", laneOp("subSatU", 8)),
  both("PSUBUSW", "D9", laneOp("subSatU", 16)),
  both("PMINUB", "DA", laneOp("minU", 8), "sse"),
  both("PAND", "DB", (b, dst, src) => b.bits("and", dst, src)),
  both("PADDUSB", "DC", laneOp("addSatU", 8)),
  both("PADDUSW", "DD", laneOp("addSatU", 16)),
  both("PMAXUB", "DE", laneOp("maxU", 8), "sse"),
  both("PANDN", "DF", (b, dst, src) => b.bits("andnot", dst, src)),
  both("PAVGB", "E0", laneOp("avgU", 8), "sse"),
  both("PSRAW", "E1", shiftBy("sar", 16)),
  both("PSRAD", "E2", shiftBy("sar", 32)),
  both("PAVGW", "E3", laneOp("avgU", 16), "sse"),
  both("PMULHUW", "E4", laneOp("mulHighU", 16), "sse"),
  both("PMULHW", "E5", laneOp("mulHighS", 16)),
  both("PSUBSB", "E8", laneOp("subSatS", 8)),
  both("PSUBSW", "E9", laneOp("subSatS", 16)),
  both("PMINSW", "EA", laneOp("minS", 16), "sse"),
  both("POR", "EB", (b, dst, src) => b.bits("or", dst, src)),
  both("PADDSB", "EC", laneOp("addSatS", 8)),
  both("PADDSW", "ED", laneOp("addSatS", 16)),
  both("PMAXSW", "EE", laneOp("maxS", 16), "sse"),
  both("PXOR", "EF", (b, dst, src) => b.bits("xor", dst, src)),
  both("PSLLW", "F1", shiftBy("shl", 16)),
  both("PSLLD", "F2", shiftBy("shl", 32)),
  both("PSLLQ", "F3", shiftBy("shl", 64)),
  both("PMULUDQ", "F4", laneOp("mulEvenU", 64), "sse2"),
  both("PMADDWD", "F5", laneOp("maddS", 32)),
  both("PSADBW", "F6", laneOp("sadU", 64), "sse"),
  both("PSUBB", "F8", laneOp("sub", 8)),
  both("PSUBW", "F9", laneOp("sub", 16)),
  both("PSUBD", "FA", laneOp("sub", 32)),
  both("PSUBQ", "FB", laneOp("sub", 64), "sse2"),
  both("PADDB", "FC", laneOp("add", 8)),
  both("PADDW", "FD", laneOp("add", 16)),
  both("PADDD", "FE", laneOp("add", 32)),
  both(
    "PSHUFB",
    "38 00",
    (b, dst, src, half) =>
      // Deviation from the wide form: the MMX one looks at three bits of each index.
      b.swizzle(dst, half ? b.bits("and", src, b.immX(0x8787878787878787n, 0n)) : src),
    "ssse3",
    "ssse3",
  ),
  both("PHADDW", "38 01", horizontal("add", 16), "ssse3", "ssse3"),
  both("PHADDD", "38 02", horizontal("add", 32), "ssse3", "ssse3"),
  both("PHADDSW", "38 03", horizontal("addSatS", 16), "ssse3", "ssse3"),
  both("PMADDUBSW", "38 04", laneOp("maddUS", 16), "ssse3", "ssse3"),
  both("PHSUBW", "38 05", horizontal("sub", 16), "ssse3", "ssse3"),
  both("PHSUBD", "38 06", horizontal("sub", 32), "ssse3", "ssse3"),
  both("PHSUBSW", "38 07", horizontal("subSatS", 16), "ssse3", "ssse3"),
  both("PSIGNB", "38 08", laneOp("sign", 8), "ssse3", "ssse3"),
  both("PSIGNW", "38 09", laneOp("sign", 16), "ssse3", "ssse3"),
  both("PSIGND", "38 0A", laneOp("sign", 32), "ssse3", "ssse3"),
  both("PMULHRSW", "38 0B", laneOp("mulRoundS", 16), "ssse3", "ssse3"),
  both("PABSB", "38 1C", (b, _dst, src) => b.abs(8, src), "ssse3", "ssse3"),
  both("PABSW", "38 1D", (b, _dst, src) => b.abs(16, src), "ssse3", "ssse3"),
  both("PABSD", "38 1E", (b, _dst, src) => b.abs(32, src), "ssse3", "ssse3"),
  wide("PMULDQ", "38 28", laneOp("mulEvenS", 64)),
  wide("PCMPEQQ", "38 29", laneOp("eq", 64)),
  wide("PACKUSDW", "38 2B", pack("packU", 32)),
  wide("PCMPGTQ", "38 37", laneOp("gtS", 64), "sse4_2"),
  wide("PMINSB", "38 38", laneOp("minS", 8)),
  wide("PMINSD", "38 39", laneOp("minS", 32)),
  wide("PMINUW", "38 3A", laneOp("minU", 16)),
  wide("PMINUD", "38 3B", laneOp("minU", 32)),
  wide("PMAXSB", "38 3C", laneOp("maxS", 8)),
  wide("PMAXSD", "38 3D", laneOp("maxS", 32)),
  wide("PMAXUW", "38 3E", laneOp("maxU", 16)),
  wide("PMAXUD", "38 3F", laneOp("maxU", 32)),
  wide("PMULLD", "38 40", laneOp("mulLow", 32)),
];

/** Shifts by an imm8: mnemonic, opcode and ModRM.reg extension, operation, lane width. */
export const PACKED_SHIFTS: readonly (readonly [string, string, ShiftOp, Lane])[] = [
  ["PSRLW", "71 /2:reg", "shr", 16],
  ["PSRAW", "71 /4:reg", "sar", 16],
  ["PSLLW", "71 /6:reg", "shl", 16],
  ["PSRLD", "72 /2:reg", "shr", 32],
  ["PSRAD", "72 /4:reg", "sar", 32],
  ["PSLLD", "72 /6:reg", "shl", 32],
  ["PSRLQ", "73 /2:reg", "shr", 64],
  ["PSLLQ", "73 /6:reg", "shl", 64],
];
