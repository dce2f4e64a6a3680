/**
 * Procedures of the SSE rows: floating point exactly as MXCSR says, string comparison, and the few integer
 * operations that are no lane operation.
 *
 * Room: `hw/isa/`; knows the processor and softfloat.ts. Operands stand in S.VTEMP (first 16 bytes: destination
 * operand, next 16: source); the result replaces the first. Nothing else changes but MXCSR.
 *
 * @module
 */
import { type Cpu, type Procedures, VECTOR } from "../cpu.ts";
import { EXIT_NONE, RFLAGS, S } from "../state.ts";
import {
  F32,
  F64,
  fpAdd,
  fpCompare,
  fpConvert,
  fpDiv,
  type FpEnv,
  type FpFormat,
  fpFromInt,
  fpMul,
  type FpRounding,
  fpRoundToInt,
  fpSqrt,
  fpSub,
  fpToInt,
  fpUnpack,
  fpZero,
} from "./softfloat.ts";
import { reciprocal, reciprocalRoot } from "./sse_approximation.ts";
import { quickArithmetic } from "./sse_quick.ts";
import { FP_OPS, type FpOp } from "./vector.ts";

/** MXCSR fields. SDM vol. 1, "MXCSR Control and Status Register". */
export const MXCSR = { FLAGS: 0x3f, DAZ: 0x40, MASKS_SHIFT: 7, RC_SHIFT: 13, FZ: 0x8000 } as const;
/** Invalid, denormal, divide by zero: known before the computation. */
const PRE_COMPUTATION = 0x7;
/** CR4.OSXMMEXCPT: unmasked exceptions are #XM, not #UD. */
const CR4_OSXMMEXCPT = 0x400;

/** Operands and result of one operation. */
class Frame {
  readonly #u32: Uint32Array;
  readonly #u64: BigUint64Array;
  /** Byte address of VTEMP. */
  readonly #at: number;

  constructor(cpu: Cpu) {
    this.#u32 = cpu.memory.u32;
    this.#u64 = cpu.memory.u64;
    this.#at = cpu.base + S.VTEMP;
    this.#move(32, 0);
  }
  #move(to: number, from: number): void {
    this.#u64[(this.#at + to) >>> 3] = this.#u64[(this.#at + from) >>> 3]!;
    this.#u64[(this.#at + to + 8) >>> 3] = this.#u64[(this.#at + from + 8) >>> 3]!;
  }
  /** Lane `n` of 16 bytes at `from`. */
  #lane(bits: 32 | 64, from: number, n: number): bigint {
    return bits === 64
      ? this.#u64[((this.#at + from) >>> 3) + n]!
      : BigInt(this.#u32[((this.#at + from) >>> 2) + n]!);
  }
  /** Lane of the destination operand. */
  a(bits: 32 | 64, n: number): bigint {
    return this.#lane(bits, 0, n);
  }
  /** Lane of the source operand. */
  b(bits: 32 | 64, n: number): bigint {
    return this.#lane(bits, 16, n);
  }
  /** Sets a lane of the result, which began as the destination operand. */
  set(bits: 32 | 64, n: number, value: bigint): void {
    if (bits === 64) this.#u64[((this.#at + 32) >>> 3) + n] = value;
    else this.#u32[((this.#at + 32) >>> 2) + n] = Number(value);
  }
  /** Clears the result. */
  clear(): void {
    this.set(64, 0, 0n);
    this.set(64, 1, 0n);
  }
  /** Hands the result over. */
  finish(): void {
    this.#move(0, 32);
  }
}

/** One operation: sets the lanes of the result. `stage` checks for exceptions between dependent steps. */
type Operation = (x: Frame, env: FpEnv, imm: number, stage: () => void) => void;

/** Bits of a format that SSE has. */
function bitsOf(fmt: FpFormat): 32 | 64 {
  return fmt.bits === 32 ? 32 : 64;
}

/** Applies `compute` to `lanes` lanes of both operands. */
function laneByLane(
  fmt: FpFormat,
  lanes: number,
  compute: (a: bigint, b: bigint, env: FpEnv, imm: number, n: number) => bigint,
): Operation {
  const bits = bitsOf(fmt);
  return (x, env, imm) => {
    for (let n = 0; n < lanes; n++) x.set(bits, n, compute(x.a(bits, n), x.b(bits, n), env, imm, n));
  };
}

/** An operand as computation sees it: under DAZ a denormal is a zero of its sign. */
function operand(fmt: FpFormat, a: bigint, env: FpEnv): bigint {
  if (!env.daz) return a;
  const parts = fpUnpack(fmt, a);
  return parts.kind === "denormal" ? fpZero(fmt, parts.sign) : a;
}

/** CMPxx's predicate `imm & 7` as a mask. LT, LE and their negations raise IE for quiet NaNs too. */
function compareMask(fmt: FpFormat, a: bigint, b: bigint, env: FpEnv, imm: number): bigint {
  const predicate = imm & 3;
  const quiet = predicate === 0 || predicate === 3;
  const order = fpCompare(fmt, a, b, env, quiet);
  const holds = [order === 0, order === -1, order === -1 || order === 0, order === 2][predicate]!;
  return holds !== ((imm & 4) !== 0) ? (1n << BigInt(fmt.bits)) - 1n : 0n;
}

/** The four shapes of an arithmetic operation. */
function shaped<N extends string>(
  name: N,
  make: (fmt: FpFormat, lanes: number) => Operation,
): Record<`${N}PS` | `${N}PD` | `${N}SS` | `${N}SD`, Operation> {
  return {
    [`${name}PS`]: make(F32, 4),
    [`${name}PD`]: make(F64, 2),
    [`${name}SS`]: make(F32, 1),
    [`${name}SD`]: make(F64, 1),
  } as Record<`${N}PS` | `${N}PD` | `${N}SS` | `${N}SD`, Operation>;
}

/** Flags of a comparison as an RFLAGS image in lane 0. */
function compareFlags(fmt: FpFormat, quiet: boolean): Operation {
  const bits = bitsOf(fmt);
  return (x, env) => {
    const order = fpCompare(fmt, x.a(bits, 0), x.b(bits, 0), env, quiet);
    const image = order === 2
      ? RFLAGS.ZF | RFLAGS.PF | RFLAGS.CF
      : order === 0
      ? RFLAGS.ZF
      : order < 0
      ? RFLAGS.CF
      : 0;
    x.clear();
    x.set(32, 0, BigInt(image));
  };
}

/** Signed integers of `bits` bits to floats: `lanes` lanes. */
function fromIntegers(bits: 32 | 64, fmt: FpFormat, lanes: number): Operation {
  return (x, env) => {
    for (let n = 0; n < lanes; n++) {
      x.set(bitsOf(fmt), n, fpFromInt(fmt, BigInt.asIntN(bits, x.b(bits, n)), env));
    }
  };
}

/** Floats to signed integers; the rest of the result is zero. */
function toIntegers(fmt: FpFormat, bits: 32 | 64, lanes: number, truncate: boolean): Operation {
  return (x, env) => {
    x.clear();
    for (let n = 0; n < lanes; n++) {
      x.set(bits, n, fpToInt(fmt, x.b(bitsOf(fmt), n), bits, env, truncate));
    }
  };
}

/** Floats to floats of another format. `clear`: the rest of the result is zero, else as the destination was. */
function convert(from: FpFormat, to: FpFormat, lanes: number, clear: boolean): Operation {
  return (x, env) => {
    if (clear) x.clear();
    for (let n = 0; n < lanes; n++) x.set(bitsOf(to), n, fpConvert(from, to, x.b(bitsOf(from), n), env));
  };
}

/** DPPS, DPPD: products of the lanes in imm[7:4], their sum to the lanes in imm[3:0]. SDM vol. 2, "DPPS". */
function dotProduct(fmt: FpFormat, lanes: 2 | 4): Operation {
  const bits = bitsOf(fmt);
  return (x, env, imm, stage) => {
    let terms = Array.from(
      { length: lanes },
      (_, n) => (imm >> (4 + n)) & 1 ? fpMul(fmt, x.a(bits, n), x.b(bits, n), env) : 0n,
    );
    while (terms.length > 1) {
      stage();
      terms = Array.from(
        { length: terms.length / 2 },
        (_, n) => fpAdd(fmt, terms[2 * n]!, terms[2 * n + 1]!, env),
      );
    }
    for (let n = 0; n < lanes; n++) x.set(bits, n, (imm >> n) & 1 ? terms[0]! : 0n);
  };
}

/** Every operation by name. */
const OPERATIONS: Readonly<Record<FpOp, Operation>> = {
  ...shaped("ADD", (fmt, lanes) => laneByLane(fmt, lanes, (a, b, env) => fpAdd(fmt, a, b, env))),
  ...shaped("SUB", (fmt, lanes) => laneByLane(fmt, lanes, (a, b, env) => fpSub(fmt, a, b, env))),
  ...shaped("MUL", (fmt, lanes) => laneByLane(fmt, lanes, (a, b, env) => fpMul(fmt, a, b, env))),
  ...shaped("DIV", (fmt, lanes) => laneByLane(fmt, lanes, (a, b, env) => fpDiv(fmt, a, b, env))),
  ...shaped("SQRT", (fmt, lanes) => laneByLane(fmt, lanes, (_, b, env) => fpSqrt(fmt, b, env))),
  // The source when the operands are unordered or equal (two zeros).
  ...shaped(
    "MIN",
    (fmt, lanes) =>
      laneByLane(
        fmt,
        lanes,
        (a, b, env) => operand(fmt, fpCompare(fmt, a, b, env, false) === -1 ? a : b, env),
      ),
  ),
  ...shaped(
    "MAX",
    (fmt, lanes) =>
      laneByLane(
        fmt,
        lanes,
        (a, b, env) => operand(fmt, fpCompare(fmt, a, b, env, false) === 1 ? a : b, env),
      ),
  ),
  ...shaped(
    "CMP",
    (fmt, lanes) => laneByLane(fmt, lanes, (a, b, env, imm) => compareMask(fmt, a, b, env, imm)),
  ),
  ...shaped("ROUND", (fmt, lanes) =>
    laneByLane(fmt, lanes, (_, b, env, imm) => {
      const rounding = imm & 4 ? env.rounding : (imm & 3) as FpRounding;
      return fpRoundToInt(fmt, b, env, rounding, (imm & 8) !== 0);
    })),
  ADDSUBPS: laneByLane(F32, 4, (a, b, env, _, n) => n & 1 ? fpAdd(F32, a, b, env) : fpSub(F32, a, b, env)),
  ADDSUBPD: laneByLane(F64, 2, (a, b, env, _, n) => n & 1 ? fpAdd(F64, a, b, env) : fpSub(F64, a, b, env)),
  DPPS: dotProduct(F32, 4),
  DPPD: dotProduct(F64, 2),
  COMISS: compareFlags(F32, false),
  COMISD: compareFlags(F64, false),
  UCOMISS: compareFlags(F32, true),
  UCOMISD: compareFlags(F64, true),
  CVTSI2SS32: fromIntegers(32, F32, 1),
  CVTSI2SS64: fromIntegers(64, F32, 1),
  CVTSI2SD32: fromIntegers(32, F64, 1),
  CVTSI2SD64: fromIntegers(64, F64, 1),
  CVTSS2SI32: toIntegers(F32, 32, 1, false),
  CVTSS2SI64: toIntegers(F32, 64, 1, false),
  CVTSD2SI32: toIntegers(F64, 32, 1, false),
  CVTSD2SI64: toIntegers(F64, 64, 1, false),
  CVTTSS2SI32: toIntegers(F32, 32, 1, true),
  CVTTSS2SI64: toIntegers(F32, 64, 1, true),
  CVTTSD2SI32: toIntegers(F64, 32, 1, true),
  CVTTSD2SI64: toIntegers(F64, 64, 1, true),
  CVTSS2SD: convert(F32, F64, 1, false),
  CVTSD2SS: convert(F64, F32, 1, false),
  CVTPS2PD: convert(F32, F64, 2, true),
  CVTPD2PS: convert(F64, F32, 2, true),
  CVTDQ2PS: fromIntegers(32, F32, 4),
  CVTDQ2PD: fromIntegers(32, F64, 2),
  CVTPS2DQ: toIntegers(F32, 32, 4, false),
  CVTTPS2DQ: toIntegers(F32, 32, 4, true),
  CVTPD2DQ: toIntegers(F64, 32, 2, false),
  CVTTPD2DQ: toIntegers(F64, 32, 2, true),
  CVTPI2PS: fromIntegers(32, F32, 2),
  CVTPS2PI: toIntegers(F32, 32, 2, false),
  CVTTPS2PI: toIntegers(F32, 32, 2, true),
  RCPPS: laneByLane(F32, 4, (_, b) => reciprocal(b)),
  RCPSS: laneByLane(F32, 1, (_, b) => reciprocal(b)),
  RSQRTPS: laneByLane(F32, 4, (_, b) => reciprocalRoot(b)),
  RSQRTSS: laneByLane(F32, 1, (_, b) => reciprocalRoot(b)),
};

/** The operations by number (argument 0 of `sse.fp`). */
const BY_NUMBER: readonly Operation[] = FP_OPS.map((op) => OPERATIONS[op]);

/**
 * Merges the flags of `env` into MXCSR and raises #XM for an unmasked one (#UD without CR4.OSXMMEXCPT). When an
 * unmasked exception was known before the computation, flags of rounding are not reported at all. SDM vol. 1, "SIMD
 * Floating-Point Exception Conditions".
 */
function report(cpu: Cpu, env: FpEnv): void {
  const before = env.flags & PRE_COMPUTATION;
  const flags = before & ~env.masks ? before : env.flags;
  cpu.set32(S.MXCSR, cpu.get32(S.MXCSR) | flags);
  if (flags & ~env.masks) cpu.raise(cpu.get32(S.CR4) & CR4_OSXMMEXCPT ? VECTOR.XM : VECTOR.UD);
}

/** `sse.fp`: argument 0 the number in FP_OPS, argument 1 the immediate. */
function floatingPoint(cpu: Cpu): number {
  const number = cpu.argLow(0);
  if (quickArithmetic(cpu, number)) return EXIT_NONE;
  const mxcsr = cpu.get32(S.MXCSR);
  const env: FpEnv = {
    rounding: ((mxcsr >> MXCSR.RC_SHIFT) & 3) as FpRounding,
    flags: 0,
    daz: (mxcsr & MXCSR.DAZ) !== 0,
    ftz: (mxcsr & MXCSR.FZ) !== 0,
    masks: (mxcsr >> MXCSR.MASKS_SHIFT) & MXCSR.FLAGS,
  };
  const frame = new Frame(cpu);
  BY_NUMBER[number]!(frame, env, cpu.argLow(1), () => report(cpu, env));
  report(cpu, env);
  frame.finish();
  return EXIT_NONE;
}

// ---- string comparison --------------------------------------------------------------------------------------

/** Elements of 16 bytes as imm[1:0] says: bytes or words, unsigned or signed. Puts them into `into`; gives how many they are. */
function elements(cpu: Cpu, offset: number, imm: number, into: Int32Array): number {
  const at = cpu.base + offset;
  const { u8, u16 } = cpu.memory;
  const signed = (imm & 2) !== 0;
  if (imm & 1) {
    for (let n = 0; n < 8; n++) {
      const value = u16[(at >>> 1) + n]!;
      into[n] = signed ? (value << 16) >> 16 : value;
    }
    return 8;
  }
  for (let n = 0; n < 16; n++) {
    const value = u8[at + n]!;
    into[n] = signed ? (value << 24) >> 24 : value;
  }
  return 16;
}
/** The operands of the comparison that is being carried out. */
const first = new Int32Array(16), second = new Int32Array(16);

/** Length given in a register: its magnitude, at most all elements. */
function explicitLength(value: bigint, count: number): number {
  const signed = BigInt.asIntN(64, value);
  const magnitude = signed < 0n ? -signed : signed;
  return magnitude > BigInt(count) ? count : Number(magnitude);
}

/** Length up to the first zero element. */
function implicitLength(values: Int32Array, count: number): number {
  for (let n = 0; n < count; n++) if (values[n] === 0) return n;
  return count;
}

/** Element `j` of IntRes1 of the SDM, by the aggregation imm[3:2], elements past the end overridden as the SDM's table says. */
function compareElement(j: number, count: number, la: number, lb: number, imm: number): boolean {
  const value = second[j]!;
  switch ((imm >> 2) & 3) {
    case 0: // equal any
      if (j >= lb) return false;
      for (let i = 0; i < la; i++) if (first[i] === value) return true;
      return false;
    case 1: // ranges
      if (j >= lb) return false;
      for (let i = 0; i + 1 < la; i += 2) if (first[i]! <= value && value <= first[i + 1]!) return true;
      return false;
    case 2: // equal each
      return j < la && j < lb ? first[j] === value : j >= la && j >= lb;
    default: // equal ordered
      for (let i = 0; i < la && i + j < count; i++) {
        if (i + j >= lb || first[i] !== second[i + j]) return false;
      }
      return true;
  }
}

/** The common part, of the elements in `first` and `second`: leaves the index in VTEMP, the mask in VTEMP + 16, gives the flags. SDM vol. 2, "PCMPxSTRx". */
function stringCompare(cpu: Cpu, imm: number, count: number, la: number, lb: number): number {
  const all = (1 << count) - 1;
  let bits = 0;
  for (let j = 0; j < count; j++) if (compareElement(j, count, la, lb, imm)) bits |= 1 << j;
  const polarity = (imm >> 4) & 3;
  if (polarity === 1) bits ^= all;
  else if (polarity === 3) bits ^= (1 << lb) - 1;
  const byElement = (imm & 0x40) !== 0;
  const index = bits === 0 ? count : byElement ? 31 - Math.clz32(bits) : 31 - Math.clz32(bits & -bits);
  cpu.set32(S.VTEMP, index);
  const { u8 } = cpu.memory, at = cpu.base + S.VTEMP + 16;
  for (let n = 0; n < 16; n++) {
    u8[at + n] = byElement
      ? (bits >> (count === 8 ? n >> 1 : n)) & 1 ? 0xff : 0
      : n < 2
      ? (bits >> (8 * n)) & 0xff
      : 0;
  }
  const flags = (bits ? RFLAGS.CF : 0) | (lb < count ? RFLAGS.ZF : 0) | (la < count ? RFLAGS.SF : 0) |
    (bits & 1 ? RFLAGS.OF : 0);
  cpu.setResult(flags, 0);
  return EXIT_NONE;
}

/** `sse.pcmpestr`: arguments imm, RAX and RDX (sign-extended lengths of the first and second operand). */
function compareExplicit(cpu: Cpu): number {
  const imm = cpu.argLow(0);
  const count = elements(cpu, S.VTEMP, imm, first);
  elements(cpu, S.VTEMP + 16, imm, second);
  return stringCompare(cpu, imm, count, explicitLength(cpu.arg(1), count), explicitLength(cpu.arg(2), count));
}

/** `sse.pcmpistr`: argument imm. */
function compareImplicit(cpu: Cpu): number {
  const imm = cpu.argLow(0);
  const count = elements(cpu, S.VTEMP, imm, first);
  elements(cpu, S.VTEMP + 16, imm, second);
  return stringCompare(cpu, imm, count, implicitLength(first, count), implicitLength(second, count));
}

// ---- integers ---------------------------------------------------------------------------------------------------

/** `sse.phminposuw`: the smallest word of the source and the index of its first occurrence. */
function minimumPosition(cpu: Cpu): number {
  const source = Array.from(second.subarray(0, elements(cpu, S.VTEMP + 16, 1, second)));
  const smallest = Math.min(...source);
  cpu.set64(S.VTEMP, BigInt(smallest | (source.indexOf(smallest) << 16)) & 0xffff_ffffn);
  cpu.set64(S.VTEMP + 8, 0n);
  return EXIT_NONE;
}

/** `sse.mpsadbw`: sums of four absolute differences, of eight windows of the destination with one block of the source. */
function multipleSums(cpu: Cpu): number {
  const imm = cpu.argLow(0);
  const a = first, b = second;
  elements(cpu, S.VTEMP, 0, a);
  elements(cpu, S.VTEMP + 16, 0, b);
  const window = imm & 4, block = (imm & 3) * 4;
  for (let i = 0; i < 8; i++) {
    let sum = 0;
    for (let k = 0; k < 4; k++) sum += Math.abs(a[window + i + k]! - b[block + k]!);
    cpu.memory.u16[((cpu.base + S.VTEMP) >>> 1) + i] = sum;
  }
  return EXIT_NONE;
}

/** The procedures of the SSE rows. */
export const sseProcedures: Procedures = {
  "sse.fp": floatingPoint,
  "sse.pcmpestr": compareExplicit,
  "sse.pcmpistr": compareImplicit,
  "sse.phminposuw": minimumPosition,
  "sse.mpsadbw": multipleSums,
};
