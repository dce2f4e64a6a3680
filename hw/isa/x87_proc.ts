/**
 * Procedures of the x87: one-operand functions here, the rest gathered from x87_arith.ts, x87_move.ts and x87_env.ts into the one
 * table that hw/procedures.ts takes.
 *
 * Room: `hw/isa/`; imports the x87 files; the processor as a type.
 *
 * @module
 */
import type { Cpu, Procedure, Procedures } from "../cpu.ts";
import { EXIT_NONE } from "../state.ts";
import {
  bitLength,
  F80,
  FP_ALL,
  FP_ZE,
  fpDenormalStops,
  type FpEnv,
  fpFromInt,
  fpInfinity,
  fpInvalid,
  fpNaNResult,
  type FpParts,
  fpRoundToInt,
  fpSqrt,
  fpToInt,
  fpUnpack,
  fpZero,
  roundAndPack,
} from "./softfloat.ts";
import { x87ArithmeticProcedures } from "./x87_arith.ts";
import { x87EnvironmentProcedures } from "./x87_env.ts";
import { pushOrOverflow, x87MoveProcedures } from "./x87_move.ts";
import {
  environment,
  FSW,
  INDEFINITE,
  isEmpty,
  isStopped,
  moveTop,
  pointInstruction,
  pop,
  push,
  readSt,
  report,
  reportEnv,
  setStatus,
  stackFault,
  statusWord,
  writeSt,
} from "./x87_state.ts";
import {
  arcTangent2,
  type ConstantName,
  exp2MinusOne,
  loadConstant,
  ONE,
  trigonometric,
  yLog2X,
  yLog2XPlus1,
} from "./x87_transcendental.ts";

/** ST(0) := f(ST(0)). */
function unary(f: (a: bigint, env: FpEnv) => bigint): Procedure {
  return (cpu) => {
    pointInstruction(cpu);
    if (isEmpty(cpu, 0)) {
      if (stackFault(cpu, false)) writeSt(cpu, 0, INDEFINITE);
      return EXIT_NONE;
    }
    const env = environment(cpu);
    const result = f(readSt(cpu, 0), env);
    reportEnv(cpu, env);
    if (!isStopped(env)) writeSt(cpu, 0, result);
    return EXIT_NONE;
  };
}

/** ST(1) := f(ST(0), ST(1)), then pop; or ST(0) := f(ST(0), ST(1)) without a pop. */
function binary(f: (st0: bigint, st1: bigint, env: FpEnv) => bigint, pops: boolean): Procedure {
  return (cpu) => {
    pointInstruction(cpu);
    const target = pops ? 1 : 0;
    if (isEmpty(cpu, 0) || isEmpty(cpu, 1)) {
      if (stackFault(cpu, false)) {
        writeSt(cpu, target, INDEFINITE);
        if (pops) pop(cpu);
      }
      return EXIT_NONE;
    }
    const env = environment(cpu);
    const result = f(readSt(cpu, 0), readSt(cpu, 1), env);
    reportEnv(cpu, env);
    if (isStopped(env)) return EXIT_NONE;
    writeSt(cpu, target, result);
    if (pops) pop(cpu);
    return EXIT_NONE;
  };
}

// ---- FSCALE, FXTRACT --------------------------------------------------------------------------------------------

/** Beyond this the scaled value is far outside the range, even with its exponent adjusted. */
const SCALE_MAX = 1n << 16n;

/** ST(0) * 2^trunc(ST(1)). */
function scale(a: bigint, by: bigint, env: FpEnv): bigint {
  const p = fpUnpack(F80, a), q = fpUnpack(F80, by);
  const nan = fpNaNResult(F80, a, p, by, q, env);
  if (nan !== undefined) return nan;
  env.c1 = false;
  if (q.kind === "infinity") {
    if (q.sign ? p.kind === "infinity" : p.kind === "zero") return fpInvalid(F80, env);
    if (fpDenormalStops(env, p)) return 0n;
    return q.sign ? fpZero(F80, p.sign) : fpInfinity(F80, p.sign);
  }
  if (fpDenormalStops(env, p, q)) return 0n;
  if (p.kind === "infinity" || p.kind === "zero") return a;
  const integer = BigInt.asIntN(64, fpToInt(F80, by, 64, { ...env, flags: 0 }, true));
  const tooLarge = q.kind !== "zero" && q.exponent + bitLength(q.significand) > 17;
  const n = tooLarge ? (q.sign ? -SCALE_MAX : SCALE_MAX) : integer;
  return roundAndPack(F80, 64, p.sign, p.significand, p.exponent + Number(n), false, env);
}

/** FXTRACT: ST(0) := exponent, push significand. */
function extract(cpu: Cpu): number {
  pointInstruction(cpu);
  if (isEmpty(cpu, 0)) {
    if (stackFault(cpu, false)) {
      writeSt(cpu, 0, INDEFINITE);
      push(cpu, INDEFINITE);
    }
    return EXIT_NONE;
  }
  if (!isEmpty(cpu, -1)) {
    if (stackFault(cpu, true)) {
      writeSt(cpu, 0, INDEFINITE);
      push(cpu, INDEFINITE);
    }
    return EXIT_NONE;
  }
  const env = environment(cpu), a = readSt(cpu, 0);
  const { exponent, significand } = extractParts(a, env);
  reportEnv(cpu, env);
  if (isStopped(env)) return EXIT_NONE;
  writeSt(cpu, 0, exponent);
  push(cpu, significand);
  return EXIT_NONE;
}

function extractParts(a: bigint, env: FpEnv): { readonly exponent: bigint; readonly significand: bigint } {
  const p = fpUnpack(F80, a);
  const nan = fpNaNResult(F80, a, p, a, p, env);
  if (nan !== undefined) return { exponent: nan, significand: nan };
  if (p.kind === "infinity") return { exponent: fpInfinity(F80, false), significand: a };
  if (p.kind === "zero") {
    env.flags |= FP_ZE;
    return { exponent: fpInfinity(F80, true), significand: a };
  }
  if (fpDenormalStops(env, p)) return { exponent: 0n, significand: 0n };
  const length = bitLength(p.significand);
  const quiet: FpEnv = { ...env, flags: 0, masks: FP_ALL };
  return {
    exponent: fpFromInt(F80, BigInt(p.exponent + length - 1), quiet),
    significand: roundAndPack(F80, 64, p.sign, p.significand, 1 - length, false, quiet),
  };
}

// ---- FPREM, FPREM1 ----------------------------------------------------------------------------------------------

interface Remainder {
  readonly value: bigint;
  /** Condition bits: quotient bits 2, 1, 0 in C0, C3, C1; C2 if the reduction is not complete; -1 if there is no quotient. */
  readonly conditions: number;
}

/** The reduction is complete when the exponents are less than this apart; else one step takes this much, or a little less. */
const REDUCTION_STEP = 64;

function leading(p: FpParts): number {
  return p.exponent + bitLength(p.significand) - 1;
}

/** a modulo b, truncating the quotient (FPREM) or rounding it to nearest even (FPREM1). Exact. */
function remainder(a: bigint, b: bigint, nearest: boolean, env: FpEnv): Remainder {
  const pa = fpUnpack(F80, a), pb = fpUnpack(F80, b);
  const nan = fpNaNResult(F80, a, pa, b, pb, env);
  if (nan !== undefined) return { value: nan, conditions: -1 };
  if (pa.kind === "infinity" || pb.kind === "zero") return { value: fpInvalid(F80, env), conditions: -1 };
  if (fpDenormalStops(env, pa, pb)) return { value: 0n, conditions: 0 };
  if (pa.kind === "zero") return { value: a, conditions: 0 };
  if (pb.kind === "infinity") return finish(pa.sign, pa.significand, pa.exponent, 0, env);
  const gap = leading(pa) - leading(pb);
  if (gap >= REDUCTION_STEP) {
    // Subtract b * 2^(gap - n) * trunc(...) for an n from 32 to 63: what is left is smaller by n bits.
    const n = (gap & 31) | 32;
    const shifted = pb.exponent + gap - n;
    const low = Math.min(pa.exponent, shifted);
    const ia = pa.significand << BigInt(pa.exponent - low), ib = pb.significand << BigInt(shifted - low);
    const rest = ia % ib;
    const value = rest === 0n ? fpZero(F80, pa.sign) : roundAndPack(F80, 64, pa.sign, rest, low, false, env);
    return { value, conditions: FSW.C2 };
  }
  const low = Math.min(pa.exponent, pb.exponent);
  const ia = pa.significand << BigInt(pa.exponent - low), ib = pb.significand << BigInt(pb.exponent - low);
  let quotient = ia / ib, rest = ia - quotient * ib, sign = pa.sign;
  if (nearest && (2n * rest > ib || (2n * rest === ib && (quotient & 1n) !== 0n))) {
    quotient++;
    rest = ib - rest;
    sign = !sign;
  }
  const q = Number(quotient & 7n);
  const conditions = (q & 4 ? FSW.C0 : 0) | (q & 2 ? FSW.C3 : 0) | (q & 1 ? FSW.C1 : 0);
  return rest === 0n ? { value: fpZero(F80, pa.sign), conditions } : finish(sign, rest, low, conditions, env);
}

function finish(sign: boolean, rest: bigint, exponent: number, conditions: number, env: FpEnv): Remainder {
  return { value: roundAndPack(F80, 64, sign, rest, exponent, false, env), conditions };
}

/** FPREM, FPREM1. C0 and C3 keep their values where there is no quotient (a fault, a NaN, an invalid operation). */
function partialRemainder(nearest: boolean): Procedure {
  return (cpu) => {
    pointInstruction(cpu);
    setStatus(cpu, statusWord(cpu) & ~(FSW.C1 | FSW.C2));
    if (isEmpty(cpu, 0) || isEmpty(cpu, 1)) {
      if (stackFault(cpu, false)) writeSt(cpu, 0, INDEFINITE);
      return EXIT_NONE;
    }
    const env = environment(cpu);
    const { value, conditions } = remainder(readSt(cpu, 0), readSt(cpu, 1), nearest, env);
    report(cpu, env.flags, false);
    if (isStopped(env)) return EXIT_NONE;
    if (conditions >= 0) setStatus(cpu, (statusWord(cpu) & ~(FSW.C0 | FSW.C3)) | conditions);
    writeSt(cpu, 0, value);
    return EXIT_NONE;
  };
}

// ---- trigonometry --------------------------------------------------------------------------------------------------

/** FSIN, FCOS. */
function sine(want: "sin" | "cos"): Procedure {
  return (cpu) => {
    pointInstruction(cpu);
    setStatus(cpu, statusWord(cpu) & ~FSW.C2);
    if (isEmpty(cpu, 0)) {
      if (stackFault(cpu, false)) writeSt(cpu, 0, INDEFINITE);
      return EXIT_NONE;
    }
    const env = environment(cpu);
    const result = trigonometric(readSt(cpu, 0), want, env);
    reportEnv(cpu, env);
    if (result === undefined) setStatus(cpu, statusWord(cpu) | FSW.C2);
    else if (!isStopped(env)) writeSt(cpu, 0, result[want]);
    return EXIT_NONE;
  };
}

/** FPTAN (tangent, then 1.0) and FSINCOS (sine, then cosine). */
function pair(want: "tan" | "sincos"): Procedure {
  return (cpu) => {
    pointInstruction(cpu);
    setStatus(cpu, statusWord(cpu) & ~FSW.C2);
    const overflow = !isEmpty(cpu, -1);
    if (isEmpty(cpu, 0) || overflow) {
      if (stackFault(cpu, !isEmpty(cpu, 0) && overflow)) {
        writeSt(cpu, 0, INDEFINITE);
        push(cpu, INDEFINITE);
      }
      return EXIT_NONE;
    }
    const env = environment(cpu), a = readSt(cpu, 0);
    const result = trigonometric(a, want, env);
    reportEnv(cpu, env);
    if (result === undefined) setStatus(cpu, statusWord(cpu) | FSW.C2);
    else if (!isStopped(env)) {
      writeSt(cpu, 0, want === "tan" ? result.tan : result.sin);
      const kind = fpUnpack(F80, a).kind;
      const special = kind !== "normal" && kind !== "denormal" && kind !== "zero";
      push(cpu, want === "sincos" ? result.cos : special ? result.tan : ONE);
    }
    return EXIT_NONE;
  };
}

// ---- the rest -------------------------------------------------------------------------------------------------------

function constant(name: ConstantName): Procedure {
  return (cpu) => {
    pointInstruction(cpu);
    pushOrOverflow(cpu, loadConstant(name, environment(cpu)));
    return EXIT_NONE;
  };
}

/** FINCSTP, FDECSTP. */
function rotate(delta: number): Procedure {
  return (cpu) => {
    pointInstruction(cpu);
    moveTop(cpu, delta);
    report(cpu, 0, false);
    return EXIT_NONE;
  };
}

/** FNOP and what is a no-operation since the 387. */
function noOperation(cpu: Cpu): number {
  pointInstruction(cpu);
  return EXIT_NONE;
}

/** All x87 procedures, by name. */
export const x87Procedures: Procedures = {
  ...x87ArithmeticProcedures,
  ...x87EnvironmentProcedures,
  ...x87MoveProcedures,
  x87_sqrt: unary((a, env) => fpSqrt(F80, a, env)),
  x87_rndint: unary((a, env) => fpRoundToInt(F80, a, env, env.rounding, false)),
  x87_2xm1: unary(exp2MinusOne),
  x87_yl2x: binary(yLog2X, true),
  x87_yl2xp1: binary(yLog2XPlus1, true),
  x87_patan: binary(arcTangent2, true),
  x87_scale: binary(scale, false),
  x87_xtract: extract,
  x87_prem: partialRemainder(false),
  x87_prem1: partialRemainder(true),
  x87_sin: sine("sin"),
  x87_cos: sine("cos"),
  x87_ptan: pair("tan"),
  x87_sincos: pair("sincos"),
  x87_ld1: constant("one"),
  x87_ldl2t: constant("log2_10"),
  x87_ldl2e: constant("log2_e"),
  x87_ldpi: constant("pi"),
  x87_ldlg2: constant("log10_2"),
  x87_ldln2: constant("ln_2"),
  x87_ldz: constant("zero"),
  x87_incstp: rotate(1),
  x87_decstp: rotate(-1),
  x87_nop: noOperation,
};
