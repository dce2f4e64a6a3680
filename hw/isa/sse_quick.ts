/**
 * A short cut of `sse.fp`: arithmetic on ordinary numbers with the host's own arithmetic, the inexact flag included. It
 * serves programs whose results so far were all exact (MXCSR.PE = 0), which the engines' fast forms leave to the procedure.
 *
 * Room: `hw/isa/`. Only the default controls are served; any operand or result that could raise more than PE is
 * left to softfloat.ts.
 *
 * Whether a result is exact is found without more precision than the host has: the error of a sum is itself a number
 * (Knuth's two-sum), that of a product too (Dekker's product), both away from the ends of the exponent range.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { S } from "../state.ts";
import { FP_OPS } from "./vector.ts";

/** MXCSR without its flags: everything masked, nearest, no DAZ, no FZ. */
const CONTROLS = 0xffc0, DEFAULT_CONTROLS = 0x1f80;
const FLAG_PE = 0x20;

/** Magnitudes that two-sum and Dekker's product are safe with, for operands and results. */
const LARGE = 2 ** 450, SMALL = 2 ** -450;
/** Binary32: results in the open range of normal numbers. */
const LARGE_32 = 2 ** 127, SMALL_32 = 2 ** -125;
/** Veltkamp's constant for 53 bits. */
const SPLIT = 2 ** 27 + 1;

/** True when r is exactly x + y (r being the rounded sum). */
function sumIsExact(x: number, y: number, r: number): boolean {
  const part = r - x;
  return (x - (r - part)) + (y - part) === 0;
}

/** True when r is exactly x * y (r being the rounded product). */
function productIsExact(x: number, y: number, r: number): boolean {
  const cx = SPLIT * x, xh = cx - (cx - x), xl = x - xh;
  const cy = SPLIT * y, yh = cy - (cy - y), yl = y - yh;
  return ((xh * yh - r) + xh * yl + xl * yh) + xl * yl === 0;
}

/** Zero, or a magnitude in the safe range. */
function safe(x: number): boolean {
  const magnitude = Math.abs(x);
  return (magnitude > SMALL && magnitude < LARGE) || x === 0;
}

/** A binary64 result and whether it is exact; `undefined` leaves the operation to softfloat. */
function arithmetic64(kind: number, x: number, y: number): number | undefined {
  if (!safe(x) || !safe(y)) return undefined;
  switch (kind) {
    case 0:
    case 1: {
      const b = kind === 0 ? y : -y;
      const r = x + b;
      if (!safe(r)) return undefined;
      inexact ||= !sumIsExact(x, b, r);
      return r;
    }
    case 2: {
      const r = x * y;
      if (x === 0 || y === 0) return r;
      if (!safe(r) || r === 0) return undefined;
      inexact ||= !productIsExact(x, y, r);
      return r;
    }
    case 3: {
      if (y === 0) return undefined;
      const r = x / y;
      if (x === 0) return r;
      if (!safe(r) || r === 0) return undefined;
      inexact ||= r * y !== x || !productIsExact(r, y, x);
      return r;
    }
    default: {
      if (y < 0) return undefined;
      const r = Math.sqrt(y);
      inexact ||= r * r !== y || !productIsExact(r, r, y);
      return r;
    }
  }
}

/** The same for binary32: computed in binary64, which rounds correctly a second time. */
function arithmetic32(kind: number, x: number, y: number): number | undefined {
  if (!safe32(x) || !safe32(y)) return undefined;
  const before = inexact;
  inexact = false;
  const wide = arithmetic64(kind, x, y);
  if (wide === undefined) {
    inexact = before;
    return undefined;
  }
  const r = Math.fround(wide);
  inexact = before || inexact || r !== wide;
  return safe32(r) && (r !== 0 || wide === 0) ? r : undefined;
}

/** Zero, or a normal binary32 number away from both ends. */
function safe32(x: number): boolean {
  const magnitude = Math.abs(x);
  return (magnitude > SMALL_32 && magnitude < LARGE_32) || x === 0;
}

/** Set by the operations of one call when a result was rounded. */
let inexact = false;

const f32 = new Float32Array(4), g32 = new Float32Array(4);
const f64 = new Float64Array(f32.buffer), g64 = new Float64Array(g32.buffer);
const fBits = new BigUint64Array(f32.buffer), gBits = new BigUint64Array(g32.buffer);

/** Per operation number: kind (0 add, 1 sub, 2 mul, 3 div, 4 sqrt) and lanes, or undefined. */
const QUICK:
  readonly ({ readonly kind: number; readonly wide: boolean; readonly lanes: number } | undefined)[] = FP_OPS
    .map((op) => {
      const match = /^(ADD|SUB|MUL|DIV|SQRT)(PS|PD|SS|SD)$/.exec(op);
      if (!match) return undefined;
      const kind = ["ADD", "SUB", "MUL", "DIV", "SQRT"].indexOf(match[1]!);
      const wide = match[2]!.endsWith("D");
      return { kind, wide, lanes: match[2]!.startsWith("S") ? 1 : wide ? 2 : 4 };
    });

/** Carries out operation `number` of FP_OPS on VTEMP if it is an ordinary one; tells whether it did. */
export function quickArithmetic(cpu: Cpu, number: number): boolean {
  const quick = QUICK[number];
  const mxcsr = cpu.get32(S.MXCSR);
  if (!quick || (mxcsr & CONTROLS) !== DEFAULT_CONTROLS) return false;
  const { u64 } = cpu.memory, at = (cpu.base + S.VTEMP) >>> 3;
  fBits[0] = u64[at]!;
  fBits[1] = u64[at + 1]!;
  gBits[0] = u64[at + 2]!;
  gBits[1] = u64[at + 3]!;
  inexact = false;
  const { kind, wide, lanes } = quick;
  for (let n = 0; n < lanes; n++) {
    // The destination of a square root is no operand.
    const y = wide ? g64[n]! : g32[n]!, x = kind === 4 ? 0 : wide ? f64[n]! : f32[n]!;
    const r = wide ? arithmetic64(kind, x, y) : arithmetic32(kind, x, y);
    if (r === undefined) return false;
    if (wide) f64[n] = r;
    else f32[n] = r;
  }
  u64[at] = fBits[0]!;
  u64[at + 1] = fBits[1]!;
  if (inexact) cpu.set32(S.MXCSR, mxcsr | FLAG_PE);
  return true;
}
