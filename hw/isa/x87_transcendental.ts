/**
 * The x87's transcendental functions and constants on 80-bit patterns: special cases as the SDM's tables have them
 * (vol. 2, each instruction's "Results Obtained" table), the rest from x87_math.ts rounded once.
 *
 * Rounding control applies, precision control does not (SDM vol. 1, "Transcendental Instruction Accuracy" allows one unit in
 * the last place; here the result is the correctly rounded one, see x87_math.ts). Trigonometric arguments are reduced
 * with the 66-bit pi that the SDM documents ("Approximation of Pi"), exactly; arguments of 2^63 and up are not
 * reduced at all, and the functions return undefined for them (C2 = 1).
 *
 * Room: `hw/isa/`; imports softfloat and x87_math.
 *
 * @module
 */
import {
  bitLength,
  F80,
  FP_PE,
  FP_ZE,
  fpDenormalStops,
  type FpEnv,
  fpInfinity,
  fpInvalid,
  fpNaNResult,
  type FpParts,
  fpUnpack,
  fpZero,
  roundAndPack,
} from "./softfloat.ts";
import {
  arcTangent,
  CONSTANT_BITS,
  constantTo,
  expMinusOne,
  LN2,
  LOG10_2,
  LOG2_10,
  LOG2_E,
  logOnePlus,
  PI,
  sinCos,
} from "./x87_math.ts";

/** Bits behind the point in the working format. */
const BITS = 320;
/** Below 2^TINY the first term of a series decides, with the rest as "a little more" or "a little less". */
const TINY = -80;
/** 1.0. */
export const ONE = 0x3fffn << 64n | 1n << 63n;
/** -1.0 and -0.5. */
const MINUS_ONE = 0xbfffn << 64n | 1n << 63n, MINUS_HALF = 0xbffen << 64n | 1n << 63n;
/** Half of the documented 66-bit pi, and how many of its bits stand behind the point. */
const HALF_PI_66 = 0xc90f_daa2_2168_c234_cn, HALF_PI_66_BITS = 67;
/** Trigonometric arguments must be below 2^63. */
const REDUCIBLE_EXPONENT = 63;
/** More than a significand's bits: room for "a little more". */
const SPREAD = 70;

/** Exponent of the leading bit of a finite nonzero value. */
function leading(p: FpParts): number {
  return p.exponent + bitLength(p.significand) - 1;
}

/** Magnitude in fixed point, truncated. */
function fixed(p: FpParts): bigint {
  const shift = p.exponent + BITS;
  return shift >= 0 ? p.significand << BigInt(shift) : p.significand >> BigInt(-shift);
}

/** Rounds a positive irrational fixed-point value. */
function rounded(sign: boolean, value: bigint, env: FpEnv, exponent = -BITS): bigint {
  return roundAndPack(F80, 64, sign, value, exponent, true, env);
}

/** Rounds a value a little below or above the magnitude of `p`. */
function nearly(sign: boolean, p: FpParts, below: boolean, env: FpEnv): bigint {
  const wide = p.significand << BigInt(SPREAD);
  return roundAndPack(F80, 64, sign, below ? wide - 1n : wide, p.exponent - SPREAD, true, env);
}

/** A constant rounded as the rounding control says. Raises nothing. */
export type ConstantName = "one" | "log2_10" | "log2_e" | "pi" | "log10_2" | "ln_2" | "zero";

/** FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ. */
export function loadConstant(name: ConstantName, env: FpEnv): bigint {
  if (name === "zero") return 0n;
  if (name === "one") return ONE;
  const value = { log2_10: LOG2_10, log2_e: LOG2_E, pi: PI, log10_2: LOG10_2, ln_2: LN2 }[name];
  return rounded(false, value, { ...env, flags: 0 }, -CONSTANT_BITS);
}

// ---- exponentials and logarithms ----------------------------------------------------------------------------

/**
 * 2^a - 1. The SDM leaves |a| > 1 undefined; here such finite arguments come back unchanged with PE, as silicon has it.
 */
export function exp2MinusOne(a: bigint, env: FpEnv): bigint {
  const p = fpUnpack(F80, a);
  const nan = fpNaNResult(F80, a, p, a, p, env);
  if (nan !== undefined) return nan;
  env.c1 = false;
  if (p.kind === "zero") return a;
  if (p.kind === "infinity") return p.sign ? MINUS_ONE : a;
  if (fpDenormalStops(env, p)) return 0n;
  const top = leading(p);
  if (top >= 0) {
    if (a === ONE) return ONE;
    if (a === MINUS_ONE) return MINUS_HALF;
    env.flags |= FP_PE;
    return a;
  }
  if (top < TINY) {
    return rounded(p.sign, p.significand * LN2, env, p.exponent - CONSTANT_BITS);
  }
  const argument = (fixed(p) * constantTo(LN2, BITS)) >> BigInt(BITS);
  const result = expMinusOne(p.sign ? -argument : argument, BITS);
  return rounded(p.sign, p.sign ? -result : result, env);
}

/** log2 of significand * 2^exponent: an integer part, and in fixed point the rest, which is 0 or irrational. */
function log2(significand: bigint, exponent: number): { readonly whole: number; readonly rest: bigint } {
  let whole = exponent + bitLength(significand) - 1;
  const shift = BITS - (bitLength(significand) - 1);
  let mantissa = shift >= 0 ? significand << BigInt(shift) : significand >> BigInt(-shift);
  const unit = 1n << BigInt(BITS);
  if (mantissa * 5n > unit * 7n) { // keep the series' argument within (-0.3, 0.4]
    whole++;
    mantissa >>= 1n;
  }
  const rest = (logOnePlus(mantissa - unit, BITS) * constantTo(LOG2_E, BITS)) >> BigInt(BITS);
  return { whole, rest: mantissa === unit ? 0n : rest };
}

/** y * log2(significand * 2^exponent), y finite and nonzero. */
function timesLog2(y: FpParts, significand: bigint, exponent: number, env: FpEnv): bigint {
  const { whole, rest } = log2(significand, exponent);
  const value = (BigInt(whole) << BigInt(BITS)) + rest;
  if (value === 0n) return fpZero(F80, y.sign);
  const negative = value < 0n;
  const product = (negative ? -value : value) * y.significand;
  env.flags |= FP_PE; // silicon reports it even where the logarithm is an integer
  return roundAndPack(F80, 64, y.sign !== negative, product, y.exponent - BITS, rest !== 0n, env);
}

/** FYL2X: y * log2(x). */
export function yLog2X(x: bigint, y: bigint, env: FpEnv): bigint {
  const px = fpUnpack(F80, x), py = fpUnpack(F80, y);
  const nan = fpNaNResult(F80, x, px, y, py, env);
  if (nan !== undefined) return nan;
  env.c1 = false;
  if (px.kind === "zero") {
    if (py.kind === "zero") return fpInvalid(F80, env);
    if (py.kind !== "infinity") {
      env.flags |= FP_ZE;
      return fpInfinity(F80, !py.sign);
    }
    return fpInfinity(F80, !py.sign);
  }
  if (px.sign) return fpInvalid(F80, env);
  if (px.kind === "infinity") {
    if (py.kind === "zero") return fpInvalid(F80, env);
    if (fpDenormalStops(env, py)) return 0n;
    return fpInfinity(F80, py.sign);
  }
  if (py.kind === "infinity" && x === ONE) return fpInvalid(F80, env);
  if (fpDenormalStops(env, px, py)) return 0n;
  const below = leading(px) < 0;
  if (py.kind === "infinity") return fpInfinity(F80, py.sign !== below);
  if (py.kind === "zero") return fpZero(F80, py.sign !== below);
  return timesLog2(py, px.significand, px.exponent, env);
}

/**
 * FYL2XP1: y * log2(x + 1). The SDM defines it for |x| up to 1 - sqrt(2)/2; here it holds for all x above -1, and finite
 * x at or below -1 comes back unchanged with PE, as silicon has it.
 */
export function yLog2XPlus1(x: bigint, y: bigint, env: FpEnv): bigint {
  const px = fpUnpack(F80, x), py = fpUnpack(F80, y);
  const nan = fpNaNResult(F80, x, px, y, py, env);
  if (nan !== undefined) return nan;
  env.c1 = false;
  if (px.sign && px.kind === "infinity") return fpInvalid(F80, env);
  if (px.kind === "infinity" && py.kind === "zero") return fpInvalid(F80, env);
  if (py.kind === "infinity" && px.kind === "zero") return fpInvalid(F80, env);
  if (fpDenormalStops(env, px, py)) return 0n;
  const sign = px.sign !== py.sign;
  if (px.kind === "infinity" || py.kind === "infinity") return fpInfinity(F80, sign);
  if (px.kind === "zero" || py.kind === "zero") return fpZero(F80, sign);
  if (px.sign && leading(px) >= 0) {
    env.flags |= FP_PE;
    return x;
  }
  if (leading(px) < TINY) {
    const product = px.significand * py.significand * LOG2_E;
    return rounded(sign, product, env, px.exponent + py.exponent - CONSTANT_BITS);
  }
  if (px.exponent >= 0) {
    return timesLog2(py, (px.significand << BigInt(px.exponent)) + 1n, 0, env);
  }
  const unit = 1n << BigInt(-px.exponent);
  return timesLog2(py, px.sign ? unit - px.significand : unit + px.significand, px.exponent, env);
}

// ---- trigonometry ---------------------------------------------------------------------------------------------

/** FPATAN: the angle of the point (x, y), from -pi to pi. */
export function arcTangent2(x: bigint, y: bigint, env: FpEnv): bigint {
  const px = fpUnpack(F80, x), py = fpUnpack(F80, y);
  const nan = fpNaNResult(F80, y, py, x, px, env);
  if (nan !== undefined) return nan;
  env.c1 = false;
  if (fpDenormalStops(env, px, py)) return 0n;
  const sign = py.sign;
  const flat = py.kind === "zero" || (px.kind === "infinity" && py.kind !== "infinity");
  if (flat) return px.sign ? rounded(sign, PI, env, -CONSTANT_BITS) : fpZero(F80, sign);
  if (py.kind === "infinity" && px.kind === "infinity") {
    return rounded(sign, px.sign ? 3n * PI : PI, env, -CONSTANT_BITS - 2);
  }
  if (px.kind === "zero" || py.kind === "infinity") return rounded(sign, PI, env, -CONSTANT_BITS - 1);

  const gap = leading(py) - leading(px);
  if (gap < -100 && !px.sign) return smallAngle(px, py, env);
  const pi = constantTo(PI, BITS);
  if (gap < -100) return rounded(sign, pi, env);
  if (gap > 100) return rounded(sign, pi >> 1n, env);
  const low = Math.min(px.exponent, py.exponent);
  const ix = px.significand << BigInt(px.exponent - low), iy = py.significand << BigInt(py.exponent - low);
  let angle = iy <= ix
    ? arcTangent((iy << BigInt(BITS)) / ix, BITS)
    : (pi >> 1n) - arcTangent((ix << BigInt(BITS)) / iy, BITS);
  if (px.sign) angle = pi - angle;
  return rounded(sign, angle, env);
}

/** y / x, a little less. */
function smallAngle(px: FpParts, py: FpParts, env: FpEnv): bigint {
  const shift = 2 * SPREAD + 64;
  const numerator = py.significand << BigInt(shift);
  const quotient = (numerator - 1n) / px.significand;
  return rounded(py.sign, quotient, env, py.exponent - px.exponent - shift);
}

/** What a trigonometric instruction delivers; undefined when its argument is out of range (C2 = 1). */
export type Trigonometric = { readonly sin: bigint; readonly cos: bigint; readonly tan: bigint } | undefined;

/** Which results are wanted: only their exceptions are reported. */
export type TrigonometricWant = "sin" | "cos" | "tan" | "sincos";

/** FSIN, FCOS, FPTAN, FSINCOS. Results that are not wanted are 0. */
export function trigonometric(a: bigint, want: TrigonometricWant, env: FpEnv): Trigonometric {
  const p = fpUnpack(F80, a);
  const nan = fpNaNResult(F80, a, p, a, p, env);
  if (nan !== undefined) return { sin: nan, cos: nan, tan: nan };
  if (p.kind === "infinity") {
    const indefinite = fpInvalid(F80, env);
    return { sin: indefinite, cos: indefinite, tan: indefinite };
  }
  env.c1 = false;
  if (p.kind === "zero") return { sin: a, cos: ONE, tan: a };
  const top = leading(p);
  if (top >= REDUCIBLE_EXPONENT) return undefined;
  if (fpDenormalStops(env, p)) return { sin: 0n, cos: 0n, tan: 0n };
  const wantSin = want === "sin" || want === "sincos", wantCos = want === "cos" || want === "sincos";
  if (top < TINY) {
    return {
      sin: wantSin ? nearly(p.sign, p, true, env) : 0n,
      tan: want === "tan" ? nearly(p.sign, p, false, env) : 0n,
      cos: wantCos ? nearly(false, fpUnpack(F80, ONE), true, env) : 0n,
    };
  }
  const halfPi = HALF_PI_66 << BigInt(BITS - HALF_PI_66_BITS);
  const x = fixed(p);
  const quadrant = (x + (halfPi >> 1n)) / halfPi;
  const { sin: s, cos: c } = sinCos(x - quadrant * halfPi, BITS);
  // Angles grow by a quarter turn: (cos, sin) -> (-sin, cos)
  const [cos, sin] = [[c, s], [-s, c], [-c, -s], [s, -c]][Number(quadrant & 3n)] as [bigint, bigint];
  const deliver = (value: bigint, odd: boolean) =>
    rounded((value < 0n) !== (odd && p.sign), value < 0n ? -value : value, env);
  return {
    sin: wantSin ? deliver(sin, true) : 0n,
    cos: wantCos ? deliver(cos, false) : 0n,
    tan: want === "tan" ? deliver((sin << BigInt(BITS)) / cos, true) : 0n,
  };
}
