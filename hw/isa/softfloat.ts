/**
 * IEEE 754 arithmetic as x86 does it: binary32, binary64 and the x87's 80-bit format, correctly rounded in every
 * mode, with the processor's exception flags.
 *
 * Values are bit patterns in bigints. Every operation computes exactly (bigints have no width) and rounds once, in
 * {@link roundAndPack}; that is what makes it slow and easy to believe. The engines do ordinary float arithmetic with the
 * host's instructions where these give the same bits and come here for the rest.
 *
 * Rules that differ between the two instruction sets follow the format: binary32 and binary64 have the NaN rules of SSE,
 * the 80-bit format those of the x87 (SDM vol. 1, "Operating on SNaNs and QNaNs", and appendix "Masked responses").
 * A conversion follows its *source* format.
 *
 * Room: `hw/isa/`; imports softfloat_format.ts, whose public part it passes on.
 *
 * @module
 */
import {
  bitLength,
  FP_DE,
  FP_IE,
  FP_PE,
  FP_ZE,
  fpDefaultNaN,
  type FpEnv,
  type FpFormat,
  fpInfinity,
  type FpParts,
  fpQuiet,
  type FpRounding,
  fpUnpack,
  fpZero,
  roundAndPack,
  type Rounded,
  roundShift,
} from "./softfloat_format.ts";

export {
  bitLength,
  F32,
  F64,
  F80,
  FP_ALL,
  FP_DE,
  FP_IE,
  FP_OE,
  FP_PE,
  FP_UE,
  FP_ZE,
  type FpClass,
  fpDefaultNaN,
  type FpEnv,
  fpEnv,
  type FpFormat,
  fpInfinity,
  type FpParts,
  fpQuiet,
  type FpRounding,
  fpUnpack,
  fpZero,
  roundAndPack,
} from "./softfloat_format.ts";

// ---- operands -------------------------------------------------------------------------------------------

/** Takes an operand apart with denormals-are-zeros applied. */
function operand(fmt: FpFormat, a: bigint, env: FpEnv): FpParts {
  const parts = fpUnpack(fmt, a);
  if (env.daz && parts.kind === "denormal" && !fmt.explicitInteger) {
    return { kind: "zero", sign: parts.sign, significand: 0n, exponent: 0 };
  }
  return parts;
}

function isNaN(a: FpParts): boolean {
  return a.kind === "qnan" || a.kind === "snan";
}

/** Reports an invalid operation: sets IE, clears C1, gives the default NaN. */
export function fpInvalid(fmt: FpFormat, env: FpEnv): bigint {
  env.flags |= FP_IE;
  env.c1 = false;
  return fpDefaultNaN(fmt);
}

/** The result if an operand is a NaN or unsupported (with its flags set), else undefined. */
export function fpNaNResult(
  fmt: FpFormat,
  a: bigint,
  pa: FpParts,
  b: bigint,
  pb: FpParts,
  env: FpEnv,
): bigint | undefined {
  if (pa.kind === "unsupported" || pb.kind === "unsupported") return fpInvalid(fmt, env);
  const aNaN = isNaN(pa), bNaN = isNaN(pb);
  if (!aNaN && !bNaN) return undefined;
  if (pa.kind === "snan" || pb.kind === "snan") env.flags |= FP_IE;
  env.c1 = false;
  if (!bNaN) return fpQuiet(fmt, a);
  if (!aNaN) return fpQuiet(fmt, b);
  if (!fmt.explicitInteger) return fpQuiet(fmt, a);
  // x87: a quiet NaN beats a signaling one; else the larger significand wins; if equal, the positive one.
  if (pa.kind !== pb.kind) return pa.kind === "qnan" ? a : b;
  if (pa.significand !== pb.significand) return fpQuiet(fmt, pa.significand > pb.significand ? a : b);
  return fpQuiet(fmt, pa.sign ? b : a);
}

/** Sets DE if an operand is denormal. True if that stops the operation before its computation (DE unmasked). */
export function fpDenormalStops(env: FpEnv, a: FpParts, b: FpParts = a): boolean {
  if (a.kind !== "denormal" && b.kind !== "denormal") return false;
  env.flags |= FP_DE;
  return (env.masks & FP_DE) === 0;
}

function precisionOf(fmt: FpFormat, env: FpEnv): number {
  return fmt.explicitInteger ? env.precision ?? 64 : fmt.precision;
}

// ---- arithmetic -------------------------------------------------------------------------------------------

/** a + b. When an unmasked IE or DE is reported, the value is meaningless and no later flag is set; so for all operations. */
export function fpAdd(fmt: FpFormat, a: bigint, b: bigint, env: FpEnv): bigint {
  return addSigned(fmt, a, b, false, env);
}

/** a - b. */
export function fpSub(fmt: FpFormat, a: bigint, b: bigint, env: FpEnv): bigint {
  return addSigned(fmt, a, b, true, env);
}

function addSigned(fmt: FpFormat, a: bigint, b: bigint, negate: boolean, env: FpEnv): bigint {
  const pa = operand(fmt, a, env), pb = operand(fmt, b, env);
  const nan = fpNaNResult(fmt, a, pa, b, pb, env);
  if (nan !== undefined) return nan;
  const signB = pb.sign !== negate;
  const infA = pa.kind === "infinity", infB = pb.kind === "infinity";
  if (infA && infB && pa.sign !== signB) return fpInvalid(fmt, env);
  env.c1 = false;
  if (fpDenormalStops(env, pa, pb)) return 0n;
  if (infA) return a;
  if (infB) return fpInfinity(fmt, signB);
  const low = Math.min(pa.exponent, pb.exponent);
  if (pa.kind === "zero" && pb.kind === "zero") {
    return fpZero(fmt, pa.sign === signB ? signB : env.rounding === 1);
  }
  // A zero contributes nothing; do not align the other one to its exponent.
  if (pa.kind === "zero") return exact(fmt, signB, pb, env);
  if (pb.kind === "zero") return exact(fmt, pa.sign, pa, env);
  // Far apart, the smaller operand only matters as "a little more" or "a little less".
  const gap = pa.exponent - pb.exponent;
  if (Math.abs(gap) > 200) {
    const big = gap > 0 ? pa : pb, bigSign = gap > 0 ? pa.sign : signB;
    const smallSign = gap > 0 ? signB : pa.sign;
    let significand = big.significand << 140n;
    if (smallSign !== bigSign) significand -= 1n;
    return roundAndPack(fmt, precisionOf(fmt, env), bigSign, significand, big.exponent - 140, true, env);
  }
  const ia = pa.significand << BigInt(pa.exponent - low), ib = pb.significand << BigInt(pb.exponent - low);
  const sum = (pa.sign ? -ia : ia) + (signB ? -ib : ib);
  if (sum === 0n) return fpZero(fmt, env.rounding === 1);
  const sign = sum < 0n;
  return roundAndPack(fmt, precisionOf(fmt, env), sign, sign ? -sum : sum, low, false, env);
}

function exact(fmt: FpFormat, sign: boolean, p: FpParts, env: FpEnv): bigint {
  return roundAndPack(fmt, precisionOf(fmt, env), sign, p.significand, p.exponent, false, env);
}

/** a * b. */
export function fpMul(fmt: FpFormat, a: bigint, b: bigint, env: FpEnv): bigint {
  const pa = operand(fmt, a, env), pb = operand(fmt, b, env);
  const nan = fpNaNResult(fmt, a, pa, b, pb, env);
  if (nan !== undefined) return nan;
  const sign = pa.sign !== pb.sign;
  const infinite = pa.kind === "infinity" || pb.kind === "infinity";
  const zero = pa.kind === "zero" || pb.kind === "zero";
  if (infinite && zero) return fpInvalid(fmt, env);
  env.c1 = false;
  if (fpDenormalStops(env, pa, pb)) return 0n;
  if (infinite) return fpInfinity(fmt, sign);
  if (zero) return fpZero(fmt, sign);
  const product = pa.significand * pb.significand;
  return roundAndPack(
    fmt,
    precisionOf(fmt, env),
    sign,
    product,
    pa.exponent + pb.exponent,
    false,
    env,
  );
}

/** a / b. */
export function fpDiv(fmt: FpFormat, a: bigint, b: bigint, env: FpEnv): bigint {
  const pa = operand(fmt, a, env), pb = operand(fmt, b, env);
  const nan = fpNaNResult(fmt, a, pa, b, pb, env);
  if (nan !== undefined) return nan;
  const sign = pa.sign !== pb.sign;
  const infA = pa.kind === "infinity", infB = pb.kind === "infinity";
  const zeroA = pa.kind === "zero", zeroB = pb.kind === "zero";
  if ((infA && infB) || (zeroA && zeroB)) return fpInvalid(fmt, env);
  env.c1 = false;
  if (zeroB && !infA) {
    env.flags |= FP_ZE;
    return fpInfinity(fmt, sign);
  }
  if (fpDenormalStops(env, pa, pb)) return 0n;
  if (infA) return fpInfinity(fmt, sign);
  if (infB || zeroA) return fpZero(fmt, sign);
  // Enough quotient bits for any precision, whatever the lengths of the significands.
  const shift = Math.max(0, 70 + bitLength(pb.significand) - bitLength(pa.significand));
  const numerator = pa.significand << BigInt(shift);
  const quotient = numerator / pb.significand;
  const sticky = quotient * pb.significand !== numerator;
  const exponent = pa.exponent - pb.exponent - shift;
  return roundAndPack(fmt, precisionOf(fmt, env), sign, quotient, exponent, sticky, env);
}

/** Largest integer whose square is at most `n`. */
export function integerSqrt(n: bigint): bigint {
  if (n < 2n) return n;
  let x = 1n << BigInt((bitLength(n) + 1) >> 1);
  for (;;) { // Newton from above: falls strictly until it is right
    const next = (x + n / x) >> 1n;
    if (next >= x) return x;
    x = next;
  }
}

/** Square root. */
export function fpSqrt(fmt: FpFormat, a: bigint, env: FpEnv): bigint {
  const p = operand(fmt, a, env);
  const nan = fpNaNResult(fmt, a, p, a, p, env);
  if (nan !== undefined) return nan;
  if (p.kind !== "zero" && p.sign) return fpInvalid(fmt, env);
  env.c1 = false;
  if (fpDenormalStops(env, p)) return 0n;
  if (p.kind === "zero") return fpZero(fmt, p.sign);
  if (p.kind === "infinity") return a;
  let shift = Math.max(0, 140 - bitLength(p.significand));
  if ((p.exponent - shift) & 1) shift++;
  const n = p.significand << BigInt(shift);
  const root = integerSqrt(n);
  return roundAndPack(
    fmt,
    precisionOf(fmt, env),
    false,
    root,
    (p.exponent - shift) / 2,
    root * root !== n,
    env,
  );
}

// ---- comparison -----------------------------------------------------------------------------------------------

/**
 * Compares: -1 less, 0 equal, 1 greater, 2 unordered.
 *
 * @param quiet Only signaling NaNs (and unsupported patterns) raise IE; else every NaN does.
 */
export function fpCompare(fmt: FpFormat, a: bigint, b: bigint, env: FpEnv, quiet: boolean): -1 | 0 | 1 | 2 {
  const pa = operand(fmt, a, env), pb = operand(fmt, b, env);
  if (pa.kind === "unsupported" || pb.kind === "unsupported") {
    env.flags |= FP_IE;
    return 2;
  }
  if (isNaN(pa) || isNaN(pb)) {
    if (!quiet || pa.kind === "snan" || pb.kind === "snan") env.flags |= FP_IE;
    return 2;
  }
  fpDenormalStops(env, pa, pb);
  if (pa.kind === "zero" && pb.kind === "zero") return 0;
  if (pa.sign !== pb.sign) return pa.sign ? -1 : 1;
  const magnitude = compareMagnitude(pa, pb);
  return (pa.sign ? -magnitude || 0 : magnitude) as -1 | 0 | 1;
}

function compareMagnitude(a: FpParts, b: FpParts): -1 | 0 | 1 {
  const rankA = a.kind === "zero" ? 0 : a.kind === "infinity" ? 2 : 1;
  const rankB = b.kind === "zero" ? 0 : b.kind === "infinity" ? 2 : 1;
  if (rankA !== rankB) return rankA < rankB ? -1 : 1;
  if (rankA !== 1) return 0;
  const topA = a.exponent + bitLength(a.significand), topB = b.exponent + bitLength(b.significand);
  if (topA !== topB) return topA < topB ? -1 : 1;
  const low = Math.min(a.exponent, b.exponent);
  const ia = a.significand << BigInt(a.exponent - low), ib = b.significand << BigInt(b.exponent - low);
  return ia < ib ? -1 : ia > ib ? 1 : 0;
}

// ---- conversions ------------------------------------------------------------------------------------------------

/**
 * Converts between formats. A denormal source raises DE, but not when the source is F80: x87 stores do not (SDM vol. 2,
 * "FST/FSTP"). The result is rounded to the target's full precision (precision control does not apply).
 */
export function fpConvert(from: FpFormat, to: FpFormat, a: bigint, env: FpEnv): bigint {
  const p = operand(from, a, env);
  if (p.kind === "unsupported") return fpInvalid(to, env);
  env.c1 = false;
  if (p.kind === "qnan" || p.kind === "snan") {
    if (p.kind === "snan") env.flags |= FP_IE;
    const payload = p.significand & ((1n << BigInt(from.precision - 1)) - 1n);
    const delta = to.precision - from.precision;
    const moved = delta >= 0 ? payload << BigInt(delta) : payload >> BigInt(-delta);
    return fpQuiet(to, fpInfinity(to, p.sign) | moved);
  }
  if (p.kind === "infinity") return fpInfinity(to, p.sign);
  if (p.kind === "zero") return fpZero(to, p.sign);
  if (!from.explicitInteger && fpDenormalStops(env, p)) return 0n;
  return roundAndPack(to, to.precision, p.sign, p.significand, p.exponent, false, env);
}

/**
 * Converts to a signed integer of `bits` bits, as an unsigned bit pattern. NaN, infinity and what does not fit raise
 * IE and give the integer indefinite (only the sign bit set).
 *
 * @param truncate Round toward zero whatever the environment says.
 */
export function fpToInt(
  fmt: FpFormat,
  a: bigint,
  bits: 16 | 32 | 64,
  env: FpEnv,
  truncate: boolean,
): bigint {
  const p = operand(fmt, a, env);
  const indefinite = 1n << BigInt(bits - 1);
  env.c1 = false;
  if (p.kind === "zero") return 0n;
  if (
    (p.kind !== "normal" && p.kind !== "denormal") || p.exponent + bitLength(p.significand) > bits + 1
  ) {
    env.flags |= FP_IE;
    return indefinite;
  }
  const { q, inexact, up } = integral(p, truncate ? 3 : env.rounding);
  if (q > indefinite || (q === indefinite && !p.sign)) {
    env.flags |= FP_IE;
    return indefinite;
  }
  if (inexact) env.flags |= FP_PE;
  env.c1 = up;
  return BigInt.asUintN(bits, p.sign ? -q : q);
}

/** Magnitude of a finite value rounded to an integer. */
function integral(p: FpParts, rounding: FpRounding): Rounded {
  // Any shift beyond the significand gives the same answer as one just beyond it.
  const shift = Math.min(-p.exponent, bitLength(p.significand) + 2);
  return roundShift(p.significand, shift, false, rounding, p.sign);
}

/** Converts a signed integer; may raise PE. The result is rounded to the format's full precision. */
export function fpFromInt(fmt: FpFormat, value: bigint, env: FpEnv): bigint {
  env.c1 = false;
  if (value === 0n) return 0n;
  const sign = value < 0n;
  return roundAndPack(fmt, fmt.precision, sign, sign ? -value : value, 0, false, env);
}

/**
 * Rounds to an integral value in the same format; a zero result keeps the sign. Raises DE only in F80 (SDM vol. 2: "FRNDINT";
 * "ROUNDPS" does not).
 */
export function fpRoundToInt(
  fmt: FpFormat,
  a: bigint,
  env: FpEnv,
  rounding: FpRounding,
  suppressInexact: boolean,
): bigint {
  const p = operand(fmt, a, env);
  const nan = fpNaNResult(fmt, a, p, a, p, env);
  if (nan !== undefined) return nan;
  env.c1 = false;
  if (p.kind === "infinity") return a;
  if (p.kind === "zero") return fpZero(fmt, p.sign);
  if (fmt.explicitInteger && fpDenormalStops(env, p)) return 0n;
  if (p.exponent >= 0) return a;
  const { q, inexact, up } = integral(p, rounding);
  if (inexact && !suppressInexact) env.flags |= FP_PE;
  env.c1 = up;
  if (q === 0n) return fpZero(fmt, p.sign);
  return roundAndPack(fmt, fmt.precision, p.sign, q, 0, false, { ...env, flags: 0 });
}
