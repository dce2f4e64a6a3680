/**
 * Floating-point formats as bit patterns: taking apart, rounding, packing. The ground floor of softfloat.ts.
 *
 * Room: leaf of `hw/isa/`; imports nothing.
 *
 * @module
 */

/** A floating-point format. `precision` counts the integer bit. */
export interface FpFormat {
  /** Short name. */
  readonly name: "f32" | "f64" | "f80";
  /** Bits of the whole pattern. */
  readonly bits: 32 | 64 | 80;
  /** Bits of the significand, integer bit included. */
  readonly precision: 24 | 53 | 64;
  /** Exponent of the smallest normal number's leading bit. */
  readonly emin: number;
  /** Exponent of the largest finite number's leading bit. */
  readonly emax: number;
  /** Width of the exponent field. */
  readonly exponentBits: number;
  /** The integer bit is stored (x87). */
  readonly explicitInteger: boolean;
}

/** binary32. */
export const F32: FpFormat = {
  name: "f32",
  bits: 32,
  precision: 24,
  emin: -126,
  emax: 127,
  exponentBits: 8,
  explicitInteger: false,
};
/** binary64. */
export const F64: FpFormat = {
  name: "f64",
  bits: 64,
  precision: 53,
  emin: -1022,
  emax: 1023,
  exponentBits: 11,
  explicitInteger: false,
};
/** The x87's double extended format, 80 bits. */
export const F80: FpFormat = {
  name: "f80",
  bits: 80,
  precision: 64,
  emin: -16382,
  emax: 16383,
  exponentBits: 15,
  explicitInteger: true,
};

/** RC encoding of a rounding mode: to nearest even, down, up, toward zero. */
export type FpRounding = 0 | 1 | 2 | 3;

/** Exception flags, in the order that MXCSR and the x87 status word share. */
export const FP_IE = 1, FP_DE = 2, FP_ZE = 4, FP_OE = 8, FP_UE = 16, FP_PE = 32;
/** All six exception flags. */
export const FP_ALL = 0x3f;

/** What an operation reads of its surroundings and what it reports. */
export interface FpEnv {
  /** RC. */
  rounding: FpRounding;
  /** Accumulates FP_IE .. FP_PE. Operations only ever set bits. */
  flags: number;
  /** Denormal operands are zeros (SSE only). */
  daz: boolean;
  /** Tiny results are zeros while underflow is masked (SSE only). */
  ftz: boolean;
  /** 1 = masked, in the order of `flags`. */
  masks: number;
  /** x87 precision control, for add, subtract, multiply, divide and square root in F80; 64 when absent. */
  precision?: 24 | 53 | 64;
  /** Set by each operation that rounds: the result was rounded away from zero (x87 C1). */
  c1?: boolean;
}

/** An environment with everything masked, round to nearest, no flags. */
export function fpEnv(overrides: Partial<FpEnv> = {}): FpEnv {
  return { rounding: 0, flags: 0, daz: false, ftz: false, masks: FP_ALL, ...overrides };
}

/** What a bit pattern is. `unsupported`: the x87's unnormals, pseudo-NaNs and pseudo-infinities. */
export type FpClass = "zero" | "normal" | "denormal" | "infinity" | "qnan" | "snan" | "unsupported";

/** A bit pattern taken apart. For finite values the magnitude is significand * 2^exponent exactly. */
export interface FpParts {
  /** Its class. */
  readonly kind: FpClass;
  /** The sign bit: negative. */
  readonly sign: boolean;
  /** For NaNs the significand field (with integer bit in F80). */
  readonly significand: bigint;
  /** Power of two of the significand's lowest bit. */
  readonly exponent: number;
}

const FRACTION_MASK = { f32: (1n << 23n) - 1n, f64: (1n << 52n) - 1n, f80: (1n << 64n) - 1n } as const;
const INTEGER_BIT_80 = 1n << 63n;

/** Takes a bit pattern apart. A pseudo-denormal of the x87 (exponent 0, integer bit 1) counts as a denormal. */
export function fpUnpack(fmt: FpFormat, a: bigint): FpParts {
  const fieldBits = fmt.explicitInteger ? 64 : fmt.precision - 1;
  const field = a & FRACTION_MASK[fmt.name];
  const special = (1 << fmt.exponentBits) - 1;
  const biased = Number(a >> BigInt(fieldBits)) & special;
  const sign = ((a >> BigInt(fmt.bits - 1)) & 1n) !== 0n;
  const lowest = fmt.emin - (fmt.precision - 1);
  if (biased === 0) {
    return { kind: field === 0n ? "zero" : "denormal", sign, significand: field, exponent: lowest };
  }
  if (fmt.explicitInteger && (field & INTEGER_BIT_80) === 0n) {
    return { kind: "unsupported", sign, significand: field, exponent: 0 };
  }
  if (biased === special) {
    const payload = fmt.explicitInteger ? field & ~INTEGER_BIT_80 : field;
    if (payload === 0n) return { kind: "infinity", sign, significand: 0n, exponent: 0 };
    const quiet = (field >> BigInt(fmt.precision - 2)) & 1n;
    return { kind: quiet ? "qnan" : "snan", sign, significand: field, exponent: 0 };
  }
  const significand = fmt.explicitInteger ? field : field | (1n << BigInt(fieldBits));
  return { kind: "normal", sign, significand, exponent: lowest + biased - 1 };
}

function signBit(fmt: FpFormat, sign: boolean): bigint {
  return sign ? 1n << BigInt(fmt.bits - 1) : 0n;
}

/** Zero of a sign. */
export function fpZero(fmt: FpFormat, sign: boolean): bigint {
  return signBit(fmt, sign);
}

/** Infinity of a sign. */
export function fpInfinity(fmt: FpFormat, sign: boolean): bigint {
  const special = (1n << BigInt(fmt.exponentBits)) - 1n;
  if (fmt.explicitInteger) return signBit(fmt, sign) | (special << 64n) | INTEGER_BIT_80;
  return signBit(fmt, sign) | (special << BigInt(fmt.precision - 1));
}

/** The default NaN ("real indefinite"): negative, quiet, no payload. */
export function fpDefaultNaN(fmt: FpFormat): bigint {
  return fpInfinity(fmt, true) | (1n << BigInt(fmt.precision - 2));
}

/** The quiet form of a NaN. */
export function fpQuiet(fmt: FpFormat, a: bigint): bigint {
  return a | (1n << BigInt(fmt.precision - 2));
}

/** Number of bits of a positive integer (0 for 0). */
export function bitLength(a: bigint): number {
  if (a < 0x1_0000_0000n) return 32 - Math.clz32(Number(a));
  if (a < 0x1_0000_0000_0000_0000n) return 64 - Math.clz32(Number(a >> 32n));
  const hex = a.toString(16);
  return (hex.length - 1) * 4 + 32 - Math.clz32(parseInt(hex[0]!, 16));
}

// ---- rounding -----------------------------------------------------------------------------------------

/** What {@link roundShift} gives. */
export interface Rounded {
  /** The integer. */
  readonly q: bigint;
  /** Something was lost. */
  readonly inexact: boolean;
  /** The magnitude was rounded up. */
  readonly up: boolean;
}

/** Rounds (significand + eps) / 2^shift to an integer, where 0 < eps < 1 if `sticky`, else eps = 0. */
export function roundShift(
  significand: bigint,
  shift: number,
  sticky: boolean,
  mode: FpRounding,
  sign: boolean,
): Rounded {
  let q: bigint, inexact = sticky, above = false, tie = false;
  if (shift <= 0) q = significand << BigInt(-shift);
  else {
    const n = BigInt(shift);
    q = significand >> n;
    const rest = significand - (q << n);
    const half = 1n << (n - 1n);
    inexact = sticky || rest !== 0n;
    above = rest > half || (rest === half && sticky);
    tie = rest === half && !sticky;
  }
  const up = inexact &&
    (mode === 0 ? above || (tie && (q & 1n) !== 0n) : mode === 1 ? sign : mode === 2 ? !sign : false);
  return { q: up ? q + 1n : q, inexact, up };
}

/**
 * How far the x87 moves the exponent of a result whose unmasked overflow or underflow it reports. What is out of range even
 * then (FSCALE) becomes infinity or zero, and counts as inexact.
 */
const BIAS_ADJUST = 24576;

/** Builds a finite pattern from a significand of at most `precision` bits whose lowest bit weighs 2^exponent. */
function pack(fmt: FpFormat, sign: boolean, significand: bigint, exponent: number): bigint {
  const biased = significand >> BigInt(fmt.precision - 1) ? exponent + fmt.precision - fmt.emin : 0;
  const field = fmt.explicitInteger ? significand : significand & FRACTION_MASK[fmt.name];
  const fieldBits = fmt.explicitInteger ? 64n : BigInt(fmt.precision - 1);
  return signBit(fmt, sign) | (BigInt(biased) << fieldBits) | field;
}

/**
 * The one rounding routine: the value (significand + eps) * 2^exponent, 0 < eps < 1 if `sticky`, in format `fmt` with
 * `precision` significant bits, with overflow, underflow and inexact as the environment wants them.
 *
 * Preconditions: significand > 0; if `sticky`, it has more bits than `precision`.
 */
export function roundAndPack(
  fmt: FpFormat,
  precision: number,
  sign: boolean,
  significand: bigint,
  exponent: number,
  sticky: boolean,
  env: FpEnv,
): bigint {
  const length = bitLength(significand);
  const widen = fmt.precision - precision;
  // First with an unbounded exponent: this decides whether the result is tiny (x86 detects tininess after rounding).
  const shift = length - precision;
  let { q, inexact, up } = roundShift(significand, shift, sticky, env.rounding, sign);
  let lowest = exponent + shift;
  if (bitLength(q) > precision) {
    q >>= 1n;
    lowest++;
  }
  const leading = lowest + precision - 1;

  if (leading > fmt.emax) {
    if (env.masks & FP_OE) {
      env.flags |= FP_OE | FP_PE;
      const toInfinity = env.rounding === 0 || env.rounding === (sign ? 1 : 2);
      env.c1 = toInfinity;
      if (toInfinity) return fpInfinity(fmt, sign);
      const ones = ((1n << BigInt(precision)) - 1n) << BigInt(widen);
      return pack(fmt, sign, ones, fmt.emax - fmt.precision + 1);
    }
    const massive = fmt.explicitInteger && leading - BIAS_ADJUST > fmt.emax;
    env.flags |= FP_OE | (inexact || massive ? FP_PE : 0);
    env.c1 = up || massive;
    if (!fmt.explicitInteger || massive) return fpInfinity(fmt, sign);
    return pack(fmt, sign, q << BigInt(widen), lowest - widen - BIAS_ADJUST);
  }

  if (exponent + length - 1 < fmt.emin) {
    const tiny = leading < fmt.emin;
    if (tiny && !(env.masks & FP_UE)) {
      const massive = fmt.explicitInteger && leading + BIAS_ADJUST < fmt.emin;
      env.flags |= FP_UE | (inexact || massive ? FP_PE : 0);
      env.c1 = up && !massive;
      if (!fmt.explicitInteger || massive) return fpZero(fmt, sign);
      return pack(fmt, sign, q << BigInt(widen), lowest - widen + BIAS_ADJUST);
    }
    if (tiny && env.ftz && !fmt.explicitInteger) {
      env.flags |= FP_UE | FP_PE;
      env.c1 = false;
      return fpZero(fmt, sign);
    }
    lowest = fmt.emin - precision + 1;
    ({ q, inexact, up } = roundShift(significand, lowest - exponent, sticky, env.rounding, sign));
    if (inexact && tiny) env.flags |= FP_UE;
  }
  if (inexact) env.flags |= FP_PE;
  env.c1 = up;
  return pack(fmt, sign, q << BigInt(widen), lowest - widen);
}
