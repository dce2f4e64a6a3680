/**
 * Procedures of the x87's loads, stores and moves within the stack (SDM vol. 2, the instructions' pages). The order of things
 * is the one of x87_arith.ts.
 *
 * Room: `hw/isa/`; imports softfloat, x87_state and x87_arith; the processor as a type.
 *
 * @module
 */
import type { Cpu, Procedure } from "../cpu.ts";
import { EXIT_NONE, S } from "../state.ts";
import {
  F32,
  F64,
  F80,
  FP_ALL,
  FP_IE,
  FP_PE,
  fpConvert,
  fpDefaultNaN,
  type FpEnv,
  fpFromInt,
  fpToInt,
} from "./softfloat.ts";
import { type MemoryForm, popTimes, widen } from "./x87_arith.ts";
import {
  environment,
  freeSt,
  FSW,
  INDEFINITE,
  isEmpty,
  isStoreStopped,
  pointInstruction,
  pointOperand,
  pop,
  push,
  readSt,
  report,
  reportEnv,
  stackFault,
  writeSt,
} from "./x87_state.ts";

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
    // An unmasked DE does not keep a load from pushing (as on silicon); an unmasked IE does.
    const exact: FpEnv = { ...env, masks: FP_ALL };
    const value = fpConvert(form === "f32" ? F32 : F64, F80, bits, exact);
    env.flags = exact.flags;
    reportEnv(cpu, env);
    if (!(env.flags & ~env.masks & FP_IE)) push(cpu, value);
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

/** Faults where {@link scatter} would. */
function probeWrite(cpu: Cpu, bytes: number): void {
  const { access } = cpu;
  access.segment(cpu.argLow(1), cpu.argLow(0), cpu.argHigh(0), bytes, true);
  access.probe(access.linLow, access.linHigh, bytes, true);
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

/** Forms of a store's operand; t16 to t64 truncate (FISTTP). */
export type StoreForm = "f32" | "f64" | "f80" | "i16" | "i32" | "i64" | "t16" | "t32" | "t64" | "bcd";

const TARGETS: Readonly<Record<StoreForm, Target>> = {
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
};

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
    } else probeWrite(cpu, bytes); // as on silicon, an operand that can't be written comes before the exception
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

function table(): Record<string, Procedure> {
  const procedures: Record<string, Procedure> = {
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
  };
  for (const form of ["f32", "f64", "i16", "i32", "i64"] as const) {
    procedures[`x87_ld_${form}`] = loadMemory(form);
  }
  for (const form of Object.keys(TARGETS) as StoreForm[]) {
    procedures[`x87_st_${form}`] = storeMemory(TARGETS[form]);
  }
  return procedures;
}

/** Procedures of this file, by name. */
export const x87MoveProcedures: Readonly<Record<string, Procedure>> = table();
