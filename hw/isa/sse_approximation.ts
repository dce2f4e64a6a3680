/**
 * RCPxS and RSQRTxS: the approximations of 1/x and 1/√x.
 *
 * Room: leaf of `hw/isa/`. The SDM promises a relative error of at most 1.5 × 2^−12 and leaves the bits to the
 * processor. Here the result is the exact value rounded to a significand of 13 bits (error at most 2^−13): no table, the
 * same on every host. No exception is raised and MXCSR does not matter. SDM vol. 2, "RCPPS", "RSQRTPS".
 *
 * @module
 */

const SIGN = 0x8000_0000, INFINITY = 0x7f80_0000, QUIET = 0x0040_0000, DEFAULT_NAN = 0xffc0_0000;
const SMALLEST_NORMAL = 0x0080_0000;
/** Fraction bits that are dropped, and half their unit. */
const DROPPED = 0x7ff, HALF = 0x400;

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** The value of a binary32 pattern. */
function valueOf(pattern: number): number {
  bits[0] = pattern;
  return float[0]!;
}

/** The pattern of a positive value rounded to 13 bits; a tiny one is zero. */
function rounded(value: number): number {
  float[0] = value;
  const pattern = ((bits[0]! + HALF) & ~DROPPED) >>> 0;
  return pattern < SMALLEST_NORMAL ? 0 : pattern;
}

/** RCPSS of a binary32 pattern. Denormals count as zero, tiny results are zero. */
export function reciprocal(x: bigint): bigint {
  const pattern = Number(x), sign = (pattern & SIGN) >>> 0, magnitude = (pattern & ~SIGN) >>> 0;
  if (magnitude > INFINITY) return BigInt((pattern | QUIET) >>> 0);
  if (magnitude < SMALLEST_NORMAL) return BigInt((sign | INFINITY) >>> 0);
  if (magnitude === INFINITY) return BigInt(sign);
  return BigInt((sign | rounded(1 / valueOf(magnitude))) >>> 0);
}

/** RSQRTSS of a binary32 pattern. Denormals count as zero; a negative number gives the default NaN. */
export function reciprocalRoot(x: bigint): bigint {
  const pattern = Number(x), sign = (pattern & SIGN) >>> 0, magnitude = (pattern & ~SIGN) >>> 0;
  if (magnitude > INFINITY) return BigInt((pattern | QUIET) >>> 0);
  if (magnitude < SMALLEST_NORMAL) return BigInt((sign | INFINITY) >>> 0);
  if (sign !== 0) return BigInt(DEFAULT_NAN);
  if (magnitude === INFINITY) return 0n;
  return BigInt(rounded(1 / Math.sqrt(valueOf(magnitude))));
}
