/**
 * Elementary functions on fixed-point numbers: integers that stand for themselves times 2^-bits. They are what the x87's
 * transcendental instructions are made of.
 *
 * Error: each result is within 2^(8 - bits) of the true value (a few dozen truncated terms); the callers choose `bits` at least 64 above
 * what the result's last place needs, so that an x87 result is the true one correctly rounded, except where the true
 * value lies within 2^-64 units in the last place of a rounding boundary.
 *
 * Room: leaf of `hw/isa/`; imports softfloat for the integer square root.
 *
 * @module
 */
import { integerSqrt } from "./softfloat.ts";

/** Bits behind the point of the constants below. */
export const CONSTANT_BITS = 320;

/** Sum over odd k of sign^((k-1)/2) z^k / k; artanh for sign +1, arctan for sign -1. */
function oddSeries(z: bigint, bits: number, alternating: boolean): bigint {
  const n = BigInt(bits), square = (z * z) >> n;
  let power = z, sum = z;
  for (let k = 3n;; k += 2n) { // |z| < 1/2: at most `bits` rounds
    power = (power * square) >> n;
    if (power === 0n || power === -1n) return sum;
    const term = power / k;
    sum += alternating && (k & 2n) !== 0n ? -term : term;
  }
}

/** 1 in fixed point. */
function one(bits: number): bigint {
  return 1n << BigInt(bits);
}

const GUARD = 32;

function computePi(): bigint {
  const bits = CONSTANT_BITS + GUARD;
  const machin = 4n * oddSeries(one(bits) / 5n, bits, true) - oddSeries(one(bits) / 239n, bits, true);
  return (4n * machin) >> BigInt(GUARD);
}

function computeLn2(): bigint {
  const bits = CONSTANT_BITS + GUARD;
  return (2n * oddSeries(one(bits) / 3n, bits, false)) >> BigInt(GUARD);
}

function computeLn10(ln2: bigint): bigint {
  const bits = CONSTANT_BITS + GUARD;
  const lnFiveFourths = (2n * oddSeries(one(bits) / 9n, bits, false)) >> BigInt(GUARD);
  return 3n * ln2 + lnFiveFourths;
}

/** Pi. */
export const PI: bigint = computePi();
/** Natural logarithm of 2. */
export const LN2: bigint = computeLn2();
const LN10 = computeLn10(LN2);
/** log2(e). */
export const LOG2_E: bigint = one(2 * CONSTANT_BITS) / LN2;
/** log2(10). */
export const LOG2_10: bigint = (LN10 << BigInt(CONSTANT_BITS)) / LN2;
/** log10(2). */
export const LOG10_2: bigint = (LN2 << BigInt(CONSTANT_BITS)) / LN10;

/** A constant of {@link CONSTANT_BITS} bits with `bits` behind the point; more bits than there are read as zeros. */
export function constantTo(value: bigint, bits: number): bigint {
  const shift = CONSTANT_BITS - bits;
  return shift >= 0 ? value >> BigInt(shift) : value << BigInt(-shift);
}

/** Sine and cosine. Precondition: |x| < 1. */
export function sinCos(x: bigint, bits: number): { readonly sin: bigint; readonly cos: bigint } {
  const n = BigInt(bits), square = (x * x) >> n;
  let sin = x, cos = one(bits), sinTerm = x, cosTerm = cos;
  for (let k = 1n; sinTerm !== 0n || cosTerm !== 0n; k += 2n) {
    cosTerm = -((cosTerm * square) >> n) / (k * (k + 1n));
    sinTerm = -((sinTerm * square) >> n) / ((k + 1n) * (k + 2n));
    cos += cosTerm;
    sin += sinTerm;
  }
  return { sin, cos };
}

/** Arc tangent of a ratio. Precondition: 0 <= x <= 1. */
export function arcTangent(x: bigint, bits: number): bigint {
  const n = BigInt(bits), unit = one(bits);
  let reduced = x, doublings = 0n;
  // atan(x) = 2 atan(x / (1 + sqrt(1 + x^2))), until the series is short
  while (reduced >> (n - 4n) !== 0n) {
    const root = integerSqrt((unit << n) + reduced * reduced);
    reduced = (reduced << n) / (unit + root);
    doublings++;
  }
  return oddSeries(reduced, bits, true) << doublings;
}

/** ln(1 + x). Precondition: -0.3 < x < 0.5. */
export function logOnePlus(x: bigint, bits: number): bigint {
  const ratio = (x << BigInt(bits)) / ((2n << BigInt(bits)) + x);
  return 2n * oddSeries(ratio, bits, false);
}

/** e^x - 1. Precondition: |x| < 1. */
export function expMinusOne(x: bigint, bits: number): bigint {
  const n = BigInt(bits);
  let sum = x, term = x;
  for (let k = 2n; term !== 0n; k++) {
    term = ((term * x) >> n) / k; // rounds toward zero in the end: reaches 0
    sum += term;
  }
  return sum;
}
