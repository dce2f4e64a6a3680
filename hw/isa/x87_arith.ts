/**
 * Procedures of the x87's arithmetic and comparisons (SDM vol. 2, the instructions' pages; vol. 1, "x87 FPU
 * Instruction Set").
 *
 * All follow one order: what can fault in memory first; then the pointers; then the stack; then the operation; then
 * flags; then, if no unmasked exception forbids it, the result and the pops.
 *
 * Room: `hw/isa/`; imports softfloat and x87_state; the processor as a type.
 *
 * @module
 */
import type { Cpu, Procedure } from "../cpu.ts";
import { EXIT_NONE, RFLAGS } from "../state.ts";
import {
  F32,
  F64,
  F80,
  FP_ALL,
  FP_DE,
  FP_IE,
  FP_ZE,
  fpAdd,
  fpCompare,
  fpConvert,
  fpDiv,
  type FpEnv,
  type FpFormat,
  fpFromInt,
  fpMul,
  fpSub,
  fpUnpack,
} from "./softfloat.ts";
import {
  environment,
  FSW,
  INDEFINITE,
  isEmpty,
  isStopped,
  pointInstruction,
  pointOperand,
  pop,
  readSt,
  reportEnv,
  setConditions,
  stackFault,
  writeSt,
} from "./x87_state.ts";

/** Forms of a memory operand that x87 arithmetic takes. */
export type MemoryForm = "f32" | "f64" | "i16" | "i32" | "i64";
/** Two-operand arithmetic; `r` says that the operands change places. */
export type ArithmeticName = "add" | "mul" | "sub" | "subr" | "div" | "divr";
/** Names for the table of rows. */
export const ARITHMETIC: readonly ArithmeticName[] = ["add", "mul", "sub", "subr", "div", "divr"];

type Binary = (a: bigint, b: bigint, env: FpEnv) => bigint;

const OPERATIONS: Readonly<Record<ArithmeticName, Binary>> = {
  add: (a, b, env) => fpAdd(F80, a, b, env),
  mul: (a, b, env) => fpMul(F80, a, b, env),
  sub: (a, b, env) => fpSub(F80, a, b, env),
  subr: (a, b, env) => fpSub(F80, b, a, env),
  div: (a, b, env) => fpDiv(F80, a, b, env),
  divr: (a, b, env) => fpDiv(F80, b, a, env),
};

/** A memory operand widened exactly; a signaling NaN stays one. */
export interface Source {
  /** The 80-bit pattern. */
  readonly value: bigint;
  /** It was a denormal of its own format (80 bits hold it as a normal number). */
  readonly denormal: boolean;
}

/** Widens a memory operand without raising anything. */
export function widen(form: MemoryForm, bits: bigint): Source {
  const quiet = { rounding: 0, flags: 0, daz: false, ftz: false, masks: FP_ALL } as FpEnv;
  if (form === "f32" || form === "f64") {
    const fmt: FpFormat = form === "f32" ? F32 : F64;
    const kind = fpUnpack(fmt, bits).kind;
    const value = fpConvert(fmt, F80, bits, quiet);
    const signaling = kind === "snan" ? 1n << 62n : 0n;
    return { value: value & ~signaling, denormal: kind === "denormal" };
  }
  const width = form === "i16" ? 16 : form === "i32" ? 32 : 64;
  return { value: fpFromInt(F80, BigInt.asIntN(width, bits), quiet), denormal: false };
}

function isNaN80(a: bigint): boolean {
  const kind = fpUnpack(F80, a).kind;
  return kind === "qnan" || kind === "snan";
}

/** Runs `operate`; then adds the DE that a widened denormal has lost, with its precedence (below IE, ZE and NaNs, above the rest). */
function withSource<T>(other: bigint, source: Source, env: FpEnv, operate: () => T): T {
  const result = operate();
  if (source.denormal && !(env.flags & (FP_IE | FP_ZE)) && !isNaN80(other)) {
    if (!(env.masks & FP_DE)) {
      env.flags = FP_DE;
      env.c1 = false;
    }
    env.flags |= FP_DE;
  }
  return result;
}

/** ST(target) := result, unless an unmasked exception forbids it; then pops. */
function deliver(cpu: Cpu, env: FpEnv, target: number, result: bigint, pops: boolean): void {
  reportEnv(cpu, env);
  if (isStopped(env)) return;
  writeSt(cpu, target, result);
  if (pops) pop(cpu);
}

/** ST(target) := ST(target) op ST(source), registers only. Arguments: i; 1 if ST(i) is the target; 1 to pop. */
function arithmeticRegister(operation: Binary): Procedure {
  return (cpu) => {
    const i = cpu.argLow(0), toI = cpu.argLow(1) !== 0, pops = cpu.argLow(2) !== 0;
    pointInstruction(cpu);
    const target = toI ? i : 0;
    if (isEmpty(cpu, 0) || isEmpty(cpu, i)) {
      if (stackFault(cpu, false)) {
        writeSt(cpu, target, INDEFINITE);
        if (pops) pop(cpu);
      }
      return EXIT_NONE;
    }
    const env = environment(cpu);
    const result = operation(readSt(cpu, target), readSt(cpu, toI ? 0 : i), env);
    deliver(cpu, env, target, result, pops);
    return EXIT_NONE;
  };
}

/** ST(0) := ST(0) op memory. Arguments: the operand's bits, its effective address, its segment. */
function arithmeticMemory(operation: Binary, form: MemoryForm): Procedure {
  return (cpu) => {
    const source = widen(form, cpu.arg(0));
    pointOperand(cpu, 1);
    if (isEmpty(cpu, 0)) {
      if (stackFault(cpu, false)) writeSt(cpu, 0, INDEFINITE);
      return EXIT_NONE;
    }
    const env = environment(cpu), a = readSt(cpu, 0);
    const result = withSource(a, source, env, () => operation(a, source.value, env));
    deliver(cpu, env, 0, result, false);
    return EXIT_NONE;
  };
}

// ---- comparisons ---------------------------------------------------------------------------------------------

// An unmasked exception only keeps a comparison from popping: the condition codes (FCOMI: the flags) are set all the
// same. Deviation: the SDM's pages say that they are not set then; silicon (AMD family 17H and up) sets them.

const UNORDERED = FSW.C0 | FSW.C2 | FSW.C3;

/** Condition bits of a comparison's result. */
function conditionsOf(order: -1 | 0 | 1 | 2): number {
  return order === 2 ? UNORDERED : order === 0 ? FSW.C3 : order < 0 ? FSW.C0 : 0;
}

/** RFLAGS bits of the results less, equal, greater, unordered. */
const RFLAGS_OF = [RFLAGS.CF, RFLAGS.ZF, 0, RFLAGS.ZF | RFLAGS.PF | RFLAGS.CF];

/** Pops `times` times. */
export function popTimes(cpu: Cpu, times: number): void {
  for (let n = 0; n < times; n++) pop(cpu);
}

/** FCOM, FUCOM and the popping ones. Arguments: i; pops. */
function compareRegister(quiet: boolean): Procedure {
  return (cpu) => {
    const i = cpu.argLow(0), pops = cpu.argLow(1);
    pointInstruction(cpu);
    if (isEmpty(cpu, 0) || isEmpty(cpu, i)) {
      const masked = stackFault(cpu, false);
      setConditions(cpu, UNORDERED);
      if (masked) popTimes(cpu, pops);
      return EXIT_NONE;
    }
    const env = environment(cpu);
    const order = fpCompare(F80, readSt(cpu, 0), readSt(cpu, i), env, quiet);
    reportEnv(cpu, env);
    setConditions(cpu, conditionsOf(order));
    if (!isStopped(env)) popTimes(cpu, pops);
    return EXIT_NONE;
  };
}

/** FCOM, FCOMP, FICOM, FICOMP of memory. Arguments: bits, effective address, segment, pops. */
function compareMemory(form: MemoryForm): Procedure {
  return (cpu) => {
    const source = widen(form, cpu.arg(0)), pops = cpu.argLow(3);
    pointOperand(cpu, 1);
    if (isEmpty(cpu, 0)) {
      const masked = stackFault(cpu, false);
      setConditions(cpu, UNORDERED);
      if (masked) popTimes(cpu, pops);
      return EXIT_NONE;
    }
    const env = environment(cpu), a = readSt(cpu, 0);
    const order = withSource(a, source, env, () => fpCompare(F80, a, source.value, env, false));
    reportEnv(cpu, env);
    setConditions(cpu, conditionsOf(order));
    if (!isStopped(env)) popTimes(cpu, pops);
    return EXIT_NONE;
  };
}

/** FCOMI, FUCOMI and the popping ones. Arguments: i; 1 if quiet; pops. Result: ZF, PF and CF at their places in RFLAGS. */
function compareFlags(cpu: Cpu): number {
  const i = cpu.argLow(0), quiet = cpu.argLow(1) !== 0, pops = cpu.argLow(2);
  pointInstruction(cpu);
  let order: -1 | 0 | 1 | 2 = 2, proceeds: boolean;
  if (isEmpty(cpu, 0) || isEmpty(cpu, i)) proceeds = stackFault(cpu, false);
  else {
    const env = environment(cpu);
    order = fpCompare(F80, readSt(cpu, 0), readSt(cpu, i), env, quiet);
    reportEnv(cpu, env);
    proceeds = !isStopped(env);
  }
  if (proceeds) popTimes(cpu, pops);
  cpu.setResult(RFLAGS_OF[order + 1]!, 0);
  return EXIT_NONE;
}

const SIGN_80 = 1n << 79n;

/** FTST. */
function test(cpu: Cpu): number {
  pointInstruction(cpu);
  if (isEmpty(cpu, 0)) {
    stackFault(cpu, false);
    setConditions(cpu, UNORDERED);
    return EXIT_NONE;
  }
  const env = environment(cpu);
  const order = fpCompare(F80, readSt(cpu, 0), 0n, env, false);
  reportEnv(cpu, env);
  setConditions(cpu, conditionsOf(order));
  return EXIT_NONE;
}

/** Condition bits of FXAM's classes (SDM vol. 2, "FXAM"). */
const XAM = {
  unsupported: 0,
  qnan: FSW.C0,
  snan: FSW.C0,
  normal: FSW.C2,
  infinity: FSW.C2 | FSW.C0,
  zero: FSW.C3,
  denormal: FSW.C3 | FSW.C2,
} as const;

/** FXAM: C1 is the sign even of an empty register. */
function examine(cpu: Cpu): number {
  pointInstruction(cpu);
  const value = readSt(cpu, 0);
  const conditions = isEmpty(cpu, 0) ? FSW.C3 | FSW.C0 : XAM[fpUnpack(F80, value).kind];
  setConditions(cpu, conditions | (value & SIGN_80 ? FSW.C1 : 0));
  return EXIT_NONE;
}

function table(): Record<string, Procedure> {
  const procedures: Record<string, Procedure> = {
    x87_com: compareRegister(false),
    x87_ucom: compareRegister(true),
    x87_comi: compareFlags,
    x87_tst: test,
    x87_xam: examine,
  };
  for (const name of ARITHMETIC) {
    const operation = OPERATIONS[name];
    procedures[`x87_${name}`] = arithmeticRegister(operation);
    for (const form of ["f32", "f64", "i16", "i32"] as const) {
      procedures[`x87_${name}_${form}`] = arithmeticMemory(operation, form);
    }
  }
  for (const form of ["f32", "f64", "i16", "i32"] as const) {
    procedures[`x87_com_${form}`] = compareMemory(form);
  }
  return procedures;
}

/** Procedures of this file, by name. */
export const x87ArithmeticProcedures: Readonly<Record<string, Procedure>> = table();
