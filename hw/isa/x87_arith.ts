/**
 * Procedures of the x87's arithmetic, comparisons, loads and stores (SDM vol. 2, the instructions' pages; vol. 1, "x87 FPU
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
import { EXIT_NONE, RFLAGS, S } from "../state.ts";
import {
  F32,
  F64,
  F80,
  FP_ALL,
  FP_DE,
  FP_IE,
  FP_PE,
  FP_ZE,
  fpAdd,
  fpCompare,
  fpConvert,
  fpDefaultNaN,
  fpDiv,
  type FpEnv,
  type FpFormat,
  fpFromInt,
  fpMul,
  fpSub,
  fpToInt,
  fpUnpack,
} from "./softfloat.ts";
import {
  environment,
  freeSt,
  FSW,
  INDEFINITE,
  isEmpty,
  isStopped,
  isStoreStopped,
  pointInstruction,
  pointOperand,
  pop,
  push,
  readSt,
  report,
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
interface Source {
  readonly value: bigint;
  /** It was a denormal of its own format (80 bits hold it as a normal number). */
  readonly denormal: boolean;
}

/** Widens without raising anything. */
function widen(form: MemoryForm, bits: bigint): Source {
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

function popTimes(cpu: Cpu, times: number): void {
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

// ---- loads --------------------------------------------------------------------------------------------------------

/** Pushes a value, or reports a stack overflow. */
export function pushOrOverflow(cpu: Cpu, value: bigint): void {
  if (!isEmpty(cpu, -1)) {
    if (stackFault(cpu, true)) push(cpu, INDEFINITE);
    return;
  }
  report(cpu, 0, false);
  push(cpu, value);
}

/** FLD and FILD of 16 to 64 bits. Arguments: bits, effective address, segment. */
function loadMemory(form: MemoryForm): Procedure {
  return (cpu) => {
    pointOperand(cpu, 1);
    const bits = cpu.arg(0);
    if (form !== "f32" && form !== "f64") {
      pushOrOverflow(cpu, widen(form, bits).value);
      return EXIT_NONE;
    }
    if (!isEmpty(cpu, -1)) {
      pushOrOverflow(cpu, INDEFINITE);
      return EXIT_NONE;
    }
    const env = environment(cpu);
    const value = fpConvert(form === "f32" ? F32 : F64, F80, bits, env);
    reportEnv(cpu, env);
    if (!isStopped(env)) push(cpu, value);
    return EXIT_NONE;
  };
}

/** FLD ST(i). Argument: i. */
function loadRegister(cpu: Cpu): number {
  const i = cpu.argLow(0);
  pointInstruction(cpu);
  if (isEmpty(cpu, i)) {
    if (stackFault(cpu, false)) push(cpu, INDEFINITE);
  } else pushOrOverflow(cpu, readSt(cpu, i));
  return EXIT_NONE;
}

const BYTES_80 = 10;

/** Copies a memory operand of `bytes` to VTEMP. Arguments: effective address, segment. */
export function gather(cpu: Cpu, bytes: number): void {
  const { access } = cpu;
  access.segment(cpu.argLow(1), cpu.argLow(0), cpu.argHigh(0), bytes, false);
  access.readBytes(access.linLow, access.linHigh, cpu.base + S.VTEMP, bytes);
}

/** Copies `bytes` of VTEMP to a memory operand. Arguments: effective address, segment. */
export function scatter(cpu: Cpu, bytes: number): void {
  const { access } = cpu;
  access.segment(cpu.argLow(1), cpu.argLow(0), cpu.argHigh(0), bytes, true);
  access.writeBytes(access.linLow, access.linHigh, cpu.base + S.VTEMP, bytes);
}

/** The ten bytes at VTEMP. */
export function gathered80(cpu: Cpu): bigint {
  return cpu.get64(S.VTEMP) | (BigInt(cpu.get32(S.VTEMP + 8) & 0xffff) << 64n);
}

function place80(cpu: Cpu, value: bigint): void {
  cpu.set64(S.VTEMP, BigInt.asUintN(64, value));
  cpu.set32(S.VTEMP + 8, Number(value >> 64n));
}

/** FLD m80: raises nothing but a stack fault. Arguments: effective address, segment. */
function load80(cpu: Cpu): number {
  gather(cpu, BYTES_80);
  const value = gathered80(cpu);
  pointOperand(cpu, 0);
  pushOrOverflow(cpu, value);
  return EXIT_NONE;
}

const BCD_DIGITS = 18;

/** FBLD: digits above 9 are taken at their weight (the SDM leaves them undefined). Arguments: effective address, segment. */
function loadBcd(cpu: Cpu): number {
  gather(cpu, BYTES_80);
  const bits = gathered80(cpu);
  pointOperand(cpu, 0);
  let magnitude = 0n;
  for (let n = BCD_DIGITS - 1; n >= 0; n--) magnitude = magnitude * 10n + ((bits >> BigInt(4 * n)) & 15n);
  const quiet = { rounding: 0, flags: 0, daz: false, ftz: false, masks: FP_ALL } as FpEnv;
  const sign = bits & (1n << 79n);
  pushOrOverflow(cpu, fpFromInt(F80, magnitude, quiet) | sign);
  return EXIT_NONE;
}

// ---- stores ------------------------------------------------------------------------------------------------------

/** What a store puts in memory, and how it is computed. */
interface Target {
  readonly bytes: number;
  convert(value: bigint, env: FpEnv): bigint;
  /** What a masked stack underflow stores. */
  readonly indefinite: bigint;
}

function integerTarget(bits: 16 | 32 | 64, truncate: boolean): Target {
  return {
    bytes: bits / 8,
    convert: (value, env) => fpToInt(F80, value, bits, env, truncate),
    indefinite: 1n << BigInt(bits - 1),
  };
}

const BCD_INDEFINITE = 0xffff_c000_0000_0000_0000n;
const BCD_LIMIT = 10n ** BigInt(BCD_DIGITS);

function toBcd(value: bigint, env: FpEnv): bigint {
  const sign = value & (1n << 79n);
  const integer = BigInt.asIntN(64, fpToInt(F80, value, 64, env, false));
  let magnitude = integer < 0n ? -integer : integer;
  if (env.flags & FP_IE || magnitude >= BCD_LIMIT) {
    env.flags = FP_IE;
    env.c1 = false;
    return BCD_INDEFINITE;
  }
  let bits = 0n;
  for (let n = 0n; n < BCD_DIGITS; n++) {
    bits |= (magnitude % 10n) << (4n * n);
    magnitude /= 10n;
  }
  return sign | bits;
}

const TARGETS = {
  f32: { bytes: 4, convert: (value, env) => fpConvert(F80, F32, value, env), indefinite: fpDefaultNaN(F32) },
  f64: { bytes: 8, convert: (value, env) => fpConvert(F80, F64, value, env), indefinite: fpDefaultNaN(F64) },
  f80: { bytes: BYTES_80, convert: (value) => value, indefinite: INDEFINITE },
  i16: integerTarget(16, false),
  i32: integerTarget(32, false),
  i64: integerTarget(64, false),
  t16: integerTarget(16, true),
  t32: integerTarget(32, true),
  t64: integerTarget(64, true),
  bcd: { bytes: BYTES_80, convert: toBcd, indefinite: BCD_INDEFINITE },
} as const satisfies Readonly<Record<string, Target>>;

/** Forms of a store's operand; t16 to t64 truncate (FISTTP). */
export type StoreForm = keyof typeof TARGETS;

/** FST, FSTP, FIST, FISTP, FISTTP, FBSTP. Arguments: effective address, segment, pops. */
function storeMemory({ bytes, convert, indefinite }: Target): Procedure {
  return (cpu) => {
    const env = environment(cpu);
    let flags: number, value = indefinite, stored: boolean;
    if (isEmpty(cpu, 0)) {
      flags = FP_IE | FSW.SF;
      stored = (env.masks & FP_IE) !== 0;
    } else {
      value = convert(readSt(cpu, 0), env);
      flags = env.flags;
      stored = !isStoreStopped(env);
      if (!stored) { // nothing is stored, so nothing was inexact
        flags &= ~FP_PE;
        env.c1 = false;
      }
    }
    if (stored) {
      place80(cpu, value);
      scatter(cpu, bytes);
    }
    pointOperand(cpu, 0);
    report(cpu, flags, env.c1 === true);
    if (stored) popTimes(cpu, cpu.argLow(2));
    return EXIT_NONE;
  };
}

/** FST ST(i), FSTP ST(i). Arguments: i, pops. */
function storeRegister(cpu: Cpu): number {
  const i = cpu.argLow(0), pops = cpu.argLow(1);
  pointInstruction(cpu);
  if (isEmpty(cpu, 0)) {
    if (!stackFault(cpu, false)) return EXIT_NONE;
    writeSt(cpu, i, INDEFINITE);
  } else {
    report(cpu, 0, false);
    writeSt(cpu, i, readSt(cpu, 0));
  }
  popTimes(cpu, pops);
  return EXIT_NONE;
}

/** FSTPNCE: as FSTP ST(i), but an empty ST(0) raises nothing and writes nothing. Argument: i. */
function storeNoException(cpu: Cpu): number {
  pointInstruction(cpu);
  if (!isEmpty(cpu, 0)) writeSt(cpu, cpu.argLow(0), readSt(cpu, 0));
  report(cpu, 0, false);
  pop(cpu);
  return EXIT_NONE;
}

// ---- moves within the stack -----------------------------------------------------------------------------------------

/** FXCH. Argument: i. */
function exchange(cpu: Cpu): number {
  const i = cpu.argLow(0);
  pointInstruction(cpu);
  const emptyI = isEmpty(cpu, i), empty0 = isEmpty(cpu, 0);
  if (emptyI || empty0) {
    if (!stackFault(cpu, false)) return EXIT_NONE;
  } else report(cpu, 0, false);
  const valueI = emptyI ? INDEFINITE : readSt(cpu, i), value0 = empty0 ? INDEFINITE : readSt(cpu, 0);
  writeSt(cpu, i, value0);
  writeSt(cpu, 0, valueI);
  return EXIT_NONE;
}

/** FCMOVcc. Arguments: i; 1 if the condition holds. */
function conditionalMove(cpu: Cpu): number {
  const i = cpu.argLow(0), holds = cpu.argLow(1) !== 0;
  pointInstruction(cpu);
  if (isEmpty(cpu, 0) || isEmpty(cpu, i)) {
    if (stackFault(cpu, false)) writeSt(cpu, 0, INDEFINITE);
    return EXIT_NONE;
  }
  if (holds) writeSt(cpu, 0, readSt(cpu, i));
  return EXIT_NONE;
}

/** FFREE, FFREEP. Arguments: i, pops. */
function free(cpu: Cpu): number {
  pointInstruction(cpu);
  report(cpu, 0, false);
  freeSt(cpu, cpu.argLow(0));
  popTimes(cpu, cpu.argLow(1));
  return EXIT_NONE;
}

const SIGN_80 = 1n << 79n;

/** A one-operand operation on the sign, which raises nothing but a stack fault. */
function signOperation(change: (value: bigint) => bigint): Procedure {
  return (cpu) => {
    pointInstruction(cpu);
    if (isEmpty(cpu, 0)) {
      if (stackFault(cpu, false)) writeSt(cpu, 0, INDEFINITE);
    } else {
      report(cpu, 0, false);
      writeSt(cpu, 0, change(readSt(cpu, 0)));
    }
    return EXIT_NONE;
  };
}

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
    x87_ld: loadRegister,
    x87_ld_f80: load80,
    x87_ld_bcd: loadBcd,
    x87_st: storeRegister,
    x87_st_nce: storeNoException,
    x87_xch: exchange,
    x87_cmov: conditionalMove,
    x87_free: free,
    x87_chs: signOperation((value) => value ^ SIGN_80),
    x87_abs: signOperation((value) => value & ~SIGN_80),
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
  for (const form of ["f32", "f64", "i16", "i32", "i64"] as const) {
    procedures[`x87_ld_${form}`] = loadMemory(form);
  }
  for (const form of Object.keys(TARGETS) as StoreForm[]) {
    procedures[`x87_st_${form}`] = storeMemory(TARGETS[form]);
  }
  return procedures;
}

/** Procedures of this file, by name. */
export const x87ArithmeticProcedures: Readonly<Record<string, Procedure>> = table();
