/**
 * The 128-bit part of the language of descriptions: what SSE and MMX rows say. Lane operations are named as data so
 * that an engine maps each name to a native operation or composes it.
 *
 * A vector value `X` has 128 bits. An MMX value is one whose upper half is zero or of no interest: most 64-bit
 * operations are the low half of the 128-bit ones. Bytes and lanes are numbered from the least significant end.
 *
 * Room: `hw/isa/`; imports only types.
 *
 * @module
 */
import type { Operand } from "./form.ts";

/** Lane width in bits. */
export type Lane = 8 | 16 | 32 | 64;

/**
 * Operations on lanes of `w` bits, lane by lane unless said otherwise. Those that exist only for some widths say so.
 *
 * - `add` `sub`: modulo 2^w; `addSatS` … `subSatU`: saturating signed or unsigned (8, 16)
 * - `mulLow` (16, 32), `mulHighS` `mulHighU` (16); `mulRoundS` (16): PMULHRSW's (a*b >> 14) + 1 >> 1
 * - `mulEvenU` `mulEvenS` (64): product of the low 32 bits of each 64-bit lane
 * - `maddS` (32): PMADDWD; `maddUS` (16): PMADDUBSW, unsigned bytes of `a` by signed bytes of `b`, saturating sum
 * - `sadU` (64): PSADBW, sum of absolute byte differences
 * - `avgU` (8, 16): (a + b + 1) >> 1; `minS` … `maxU` (8, 16, 32)
 * - `eq` `gtS`: all ones or zero; `sign` (8, 16, 32): PSIGN
 * - `packS` `packU` (16, 32): signed lanes of `w` narrowed to w/2 with signed or unsigned saturation; `a` gives the low half
 * - `unpackLow` `unpackHigh`: interleaves the low or high halves, `a`'s lane first
 */
export type LaneOp =
  | "add"
  | "sub"
  | "addSatS"
  | "addSatU"
  | "subSatS"
  | "subSatU"
  | "mulLow"
  | "mulHighS"
  | "mulHighU"
  | "mulRoundS"
  | "mulEvenU"
  | "mulEvenS"
  | "maddS"
  | "maddUS"
  | "sadU"
  | "avgU"
  | "minS"
  | "minU"
  | "maxS"
  | "maxU"
  | "eq"
  | "gtS"
  | "sign"
  | "packS"
  | "packU"
  | "unpackLow"
  | "unpackHigh";

/** Bitwise operations; `andnot` is ~a & b as in PANDN. */
export type BitOp = "and" | "or" | "xor" | "andnot";

/** Shifts of each lane by one count; a count of `w` or more gives zero, for `sar` the sign. */
export type ShiftOp = "shl" | "shr" | "sar";

// ---- Permutations by an immediate ------------------------------------------------------------------------

/** How an immediate selects bytes. */
interface PermuteRule {
  /** Number of different immediates. */
  readonly count: number;
  /** Immediates of `count` and above mean `count` − 1; otherwise the immediate is taken modulo `count`, a power of two. */
  readonly clamp?: boolean;
  /** Only `a` is looked at. */
  readonly single?: boolean;
  /** Where result byte `byte` comes from: 0 … 15 `a`, 16 … 31 `b`, 32 zero. */
  readonly source: (imm: number, byte: number) => number;
}

/** The byte of a 4-way selection of dwords: fields of two bits, the upper two from `b` when `second`. */
function dwordSource(imm: number, byte: number, second: boolean): number {
  const lane = byte >> 2;
  return ((imm >> (lane * 2)) & 3) * 4 + (byte & 3) + (second && lane >= 2 ? 16 : 0);
}

/** The byte of a blend of lanes of `bytes` bytes: a set bit takes `b`. */
function blendSource(imm: number, byte: number, bytes: number): number {
  return (imm >> Math.floor(byte / bytes)) & 1 ? byte + 16 : byte;
}

/** The byte of an insertion of `b`'s lane 0 into `a`'s lane `imm`. */
function insertSource(imm: number, byte: number, bytes: number): number {
  return Math.floor(byte / bytes) === imm ? 16 + byte % bytes : byte;
}

/**
 * The permutations that an imm8 chooses, under the name of the instruction that has them. `PINSR*` inserts lane 0 of
 * `b`; `PSRLDQ` and `PSLLDQ` shift `a` by bytes; `PALIGNR` takes `a` as the low and `b` as the high 16 bytes.
 */
export const PERMUTE = {
  PSHUFD: { count: 256, single: true, source: (imm, byte) => dwordSource(imm, byte, false) },
  SHUFPS: { count: 256, source: (imm, byte) => dwordSource(imm, byte, true) },
  SHUFPD: {
    count: 4,
    source: (imm, byte) => byte < 8 ? (imm & 1) * 8 + byte : 16 + (imm >> 1) * 8 + (byte & 7),
  },
  PSHUFLW: {
    count: 256,
    single: true,
    source: (imm, byte) => byte < 8 ? ((imm >> ((byte >> 1) * 2)) & 3) * 2 + (byte & 1) : byte,
  },
  PSHUFHW: {
    count: 256,
    single: true,
    source: (imm, byte) => byte < 8 ? byte : 8 + ((imm >> (((byte >> 1) - 4) * 2)) & 3) * 2 + (byte & 1),
  },
  PBLENDW: { count: 256, source: (imm, byte) => blendSource(imm, byte, 2) },
  BLENDPS: { count: 16, source: (imm, byte) => blendSource(imm, byte, 4) },
  BLENDPD: { count: 4, source: (imm, byte) => blendSource(imm, byte, 8) },
  PALIGNR: { count: 33, clamp: true, source: (imm, byte) => Math.min(imm + byte, 32) },
  PSRLDQ: { count: 17, clamp: true, single: true, source: (imm, byte) => imm + byte < 16 ? imm + byte : 32 },
  PSLLDQ: { count: 17, clamp: true, single: true, source: (imm, byte) => byte >= imm ? byte - imm : 32 },
  PINSRB: { count: 16, source: (imm, byte) => insertSource(imm, byte, 1) },
  PINSRW: { count: 8, source: (imm, byte) => insertSource(imm, byte, 2) },
  PINSRD: { count: 4, source: (imm, byte) => insertSource(imm, byte, 4) },
  PINSRQ: { count: 2, source: (imm, byte) => insertSource(imm, byte, 8) },
  INSERTPS: {
    count: 256,
    source: (imm, byte) => {
      const lane = byte >> 2;
      if ((imm >> lane) & 1) return 32;
      return lane === ((imm >> 4) & 3) ? 16 + (imm >> 6) * 4 + (byte & 3) : byte;
    },
  },
} as const satisfies Readonly<Record<string, PermuteRule>>;

/** Name of a permutation. */
export type PermuteKind = keyof typeof PERMUTE;

/** The index among the `count` permutations of `kind` that immediate `imm` (0 … 255) means. */
export function permuteIndex(kind: PermuteKind, imm: number): number {
  const rule: PermuteRule = PERMUTE[kind];
  return rule.clamp ? Math.min(imm, rule.count - 1) : imm & (rule.count - 1);
}

/** The sixteen byte sources (0 … 15 `a`, 16 … 31 `b`, 32 zero) of permutation `kind` by immediate `imm` (0 … 255). */
export function permuteSources(kind: PermuteKind, imm: number): number[] {
  const index = permuteIndex(kind, imm);
  return Array.from({ length: 16 }, (_, byte) => PERMUTE[kind].source(index, byte));
}

/** Byte offset of each permutation's table within the tables that {@link installPermuteTables} writes. */
export const PERMUTE_OFFSETS: Readonly<Record<PermuteKind, number>> = (() => {
  const offsets: Partial<Record<PermuteKind, number>> = {};
  let next = 0;
  for (const kind of Object.keys(PERMUTE) as PermuteKind[]) {
    offsets[kind] = next;
    next += PERMUTE[kind].count * 16;
  }
  return offsets as Record<PermuteKind, number>;
})();

/**
 * Writes the byte sources of every permutation by every immediate to the linear memory at VECTOR_TABLES_BASE (state.ts), where
 * generated code looks them up. Whoever makes a memory for a wasm engine calls this once.
 */
export function installPermuteTables(u8: Uint8Array, base: number): void {
  for (const kind of Object.keys(PERMUTE) as PermuteKind[]) {
    for (let imm = 0; imm < PERMUTE[kind].count; imm++) {
      u8.set(permuteSources(kind, imm), base + PERMUTE_OFFSETS[kind] + imm * 16);
    }
  }
}

// ---- Floating point ---------------------------------------------------------------------------------------

/**
 * Floating-point operations, under the SDM's names; each obeys MXCSR, sets its flags, and may raise #XM.
 *
 * `a` is the destination operand (and the lanes that the operation leaves alone), `b` the source. Scalar integers
 * stand in lane 0: of `b` for `CVTSI2*`, of the result for `*2SI*` (zero-extended). `COMIS*` and `UCOMIS*` give the
 * RFLAGS image of ZF, PF and CF in lane 0. `CMP*`, `ROUND*` and `DPP*` take an immediate. MMX values are low halves.
 * The index in this list is the number of the operation in the procedure `sse.fp`.
 */
export const FP_OPS = [
  ...lanesOf("ADD"),
  ...lanesOf("SUB"),
  ...lanesOf("MUL"),
  ...lanesOf("DIV"),
  ...lanesOf("MIN"),
  ...lanesOf("MAX"),
  ...lanesOf("SQRT"),
  ...lanesOf("CMP"),
  ...lanesOf("ROUND"),
  "ADDSUBPS",
  "ADDSUBPD",
  "DPPS",
  "DPPD",
  "COMISS",
  "COMISD",
  "UCOMISS",
  "UCOMISD",
  "CVTSI2SS32",
  "CVTSI2SS64",
  "CVTSI2SD32",
  "CVTSI2SD64",
  "CVTSS2SI32",
  "CVTSS2SI64",
  "CVTSD2SI32",
  "CVTSD2SI64",
  "CVTTSS2SI32",
  "CVTTSS2SI64",
  "CVTTSD2SI32",
  "CVTTSD2SI64",
  "CVTSS2SD",
  "CVTSD2SS",
  "CVTPS2PD",
  "CVTPD2PS",
  "CVTDQ2PS",
  "CVTDQ2PD",
  "CVTPS2DQ",
  "CVTTPS2DQ",
  "CVTPD2DQ",
  "CVTTPD2DQ",
  "CVTPI2PS",
  "CVTPS2PI",
  "CVTTPS2PI",
  "RCPPS",
  "RCPSS",
  "RSQRTPS",
  "RSQRTSS",
] as const;

/** Name of a floating-point operation. */
export type FpOp = (typeof FP_OPS)[number];

function lanesOf<N extends string>(name: N): readonly [`${N}PS`, `${N}PD`, `${N}SS`, `${N}SD`] {
  return [`${name}PS`, `${name}PD`, `${name}SS`, `${name}SD`];
}

/** The 128-bit members of {@link ./builder.ts}'s Builder. */
export interface VectorBuilder<I, _C, X> {
  /**
   * Reads a vector operand. A register gives all its bits (MMX: 64, zero-extended), whatever the operand's width;
   * memory gives the operand's 128, 64 or 32 bits (or 16), zero-extended. `aligned`: #GP(0) unless a memory address is 16-byte aligned.
   */
  readX(o: Operand, aligned?: boolean): X;
  /**
   * Writes a vector operand: all 128 bits of an XMM register; the low 64 of an MMX register, with ones in bits 79:64
   * of the x87 register beneath; the operand's width of memory. May fault when it is memory.
   */
  writeX(o: Operand, value: X, aligned?: boolean): void;
  /** Reads 128 bits at a 16-aligned byte offset of the processor's block. */
  stateX(offset: number): X;
  /** Writes 128 bits at a 16-aligned byte offset of the processor's block. */
  setStateX(offset: number, value: X): void;
  /** The constant with these two 64-bit halves. */
  immX(low: bigint, high: bigint): X;
  /** Lane `n` (a constant) of lanes of `w` bits, zero-extended. */
  extract(w: Lane, a: X, n: number): I;
  /** `a` with lane `n` (a constant) replaced by the low `w` bits of `value`. */
  insert(w: Lane, a: X, n: number, value: I): X;
  /** Lane operation, see {@link LaneOp}. */
  lanes(op: LaneOp, w: Lane, a: X, b: X): X;
  /** Bitwise operation. */
  bits(op: BitOp, a: X, b: X): X;
  /** Absolute value of each signed lane; the most negative one stays. */
  abs(w: Lane, a: X): X;
  /** Shifts each lane by `count`, a full 64-bit unsigned number. */
  shift(op: ShiftOp, w: Lane, a: X, count: I): X;
  /** Byte i of the result is byte control[i] & 15 of `a`, or zero when control[i] has bit 7 (PSHUFB). */
  swizzle(a: X, control: X): X;
  /** Byte i of the result is byte `sources[i]` of a (0 … 15) or b (16 … 31), or zero (32); `sources` has 16 entries. */
  shuffle(a: X, b: X, sources: readonly number[]): X;
  /** Permutation chosen by an immediate (0 … 255), see {@link PERMUTE}. */
  permute(kind: PermuteKind, a: X, b: X, imm: I): X;
  /** The sign bits of the lanes, lane 0 in bit 0. */
  signMask(w: Lane, a: X): I;
  /** Floating-point operation under MXCSR, see {@link FP_OPS}; may fault (#XM, or #UD when CR4.OSXMMEXCPT = 0). */
  fp(op: FpOp, a: X, b: X, imm?: I): X;
}
