/**
 * The floating-point half of the vector part of the wasm builder.
 *
 * Room: `hw/engine/wasm/`; imports lanes.ts and the description language.
 *
 * Every operation has an exact form, the procedure `sse.fp`. Most have a fast form before it: the host's instruction,
 * used when it must give the same result *and* leave MXCSR as it is. That is so when
 *
 * - MXCSR has the default controls (nearest, everything masked, no DAZ, no FZ) and PE is already sticky, so that an inexact
 *   result changes nothing (operations that are exact here, and comparisons, do not need this);
 * - no operand is a denormal (DE) or a NaN;
 * - the result is finite and neither tiny nor a zero that underflow may have made.
 *
 * @module
 */
import type { FpOp } from "../../isa/vector.ts";
import { FP_OPS } from "../../isa/vector.ts";
import { S } from "../../state.ts";
import { type WasmCond, type WasmInt, type WasmVec } from "./base.ts";
import { OP, T } from "./emit.ts";
import { WasmLanes } from "./lanes.ts";
import { F, V } from "./simd.ts";

/** MXCSR without its five other flags, and what the fast forms want there: all masked, nearest, PE sticky. */
const MXCSR_CONTROLS = 0xffe0;
const MXCSR_ORDINARY = 0x1fa0;

type Fmt = "f32" | "f64";
type Arithmetic = "add" | "sub" | "mul" | "div" | "sqrt";
type Shape = "PS" | "PD" | "SS" | "SD";

/** Numbers of a format. `one` is the exponent's unit in a pattern shifted left by one (which drops the sign), `infinity` infinity there. */
const FORMAT = {
  f32: {
    type: T.f32,
    smallestNormal: 2 ** -126,
    one: 1n << 24n,
    infinity: 0xffn << 24n,
    exactIntegers: 1n << 24n,
  },
  f64: {
    type: T.f64,
    smallestNormal: 2 ** -1022,
    one: 1n << 53n,
    infinity: 0x7ffn << 53n,
    exactIntegers: 1n << 53n,
  },
} as const;

/** Sources that put lane 0 of a second vector into a first. */
const MERGE_LOW = {
  f32: [16, 17, 18, 19, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
  f64: [16, 17, 18, 19, 20, 21, 22, 23, 8, 9, 10, 11, 12, 13, 14, 15],
} as const;
/** The low half and zero. */
const LOW_HALF = [0, 1, 2, 3, 4, 5, 6, 7, 32, 32, 32, 32, 32, 32, 32, 32];

/** Dwords 0 and 2, and zero. */
const DWORDS_0_2 = [0, 1, 2, 3, 8, 9, 10, 11, 32, 32, 32, 32, 32, 32, 32, 32];

/** A vector and when it is right; outside that the exact form is taken. */
interface Fast {
  readonly result: WasmVec;
  readonly valid: WasmCond;
}

/** Floating point; see the module's comment. */
export abstract class WasmVector extends WasmLanes {
  /** As in Builder. */
  abstract if(c: WasmCond, then: () => void, otherwise?: () => void): void;
  /** As in Builder. */
  abstract call(name: string, ...args: WasmInt[]): void;

  /** As in VectorBuilder. */
  fp(op: FpOp, a: WasmVec, b: WasmVec, imm?: WasmInt): WasmVec {
    const exact = this.#exactConversion(op, a, b);
    if (exact) return exact;
    const fast = this.#fast(op, a, b, imm);
    const result = this.newLocal(T.v128);
    const slow = () => {
      this.setStateX(S.VTEMP, a);
      this.setStateX(S.VTEMP + 16, b);
      this.call("sse.fp", this.constant(BigInt(FP_OPS.indexOf(op))), imm ?? this.constant(0n));
      this.pushBase();
      this.w.simdMemory(V.load, S.VTEMP);
      this.w.localSet(result);
    };
    if (fast) {
      this.pushX(fast.result);
      this.w.localSet(result);
      this.pushC(fast.valid);
      this.w.op(OP.i32_eqz);
      this.if(this.takeC(), slow);
    } else slow();
    return { local: result };
  }

  /** The fast form of an operation, or undefined when it has none. */
  #fast(op: FpOp, a: WasmVec, b: WasmVec, imm: WasmInt | undefined): Fast | undefined {
    const match = /^(ADD|SUB|MUL|DIV|SQRT|MIN|MAX|CMP|ROUND)(PS|PD|SS|SD)$/.exec(op);
    if (match) {
      const shape = match[2] as Shape;
      const fmt: Fmt = shape.endsWith("S") ? "f32" : "f64";
      const packed = shape.startsWith("P");
      switch (match[1]) {
        case "MIN":
        case "MAX":
          return this.#minMax(match[1], fmt, packed, a, b);
        case "CMP":
          return this.#compare(fmt, packed, a, b, imm!);
        case "ROUND":
          return this.#round(fmt, packed, a, b, imm!);
        default: {
          const name = match[1]!.toLowerCase() as Arithmetic;
          return packed ? this.#packed(name, fmt, a, b) : this.#scalar(name, fmt, a, b);
        }
      }
    }
    switch (op) {
      case "COMISS":
      case "UCOMISS":
        return this.#compareFlags("f32", a, b);
      case "COMISD":
      case "UCOMISD":
        return this.#compareFlags("f64", a, b);
      case "CVTSI2SS32":
      case "CVTSI2SS64":
        return this.#fromInteger("f32", op === "CVTSI2SS64", a, b);
      case "CVTSI2SD64":
        return this.#fromInteger("f64", true, a, b);
      case "CVTSS2SI32":
      case "CVTSS2SI64":
      case "CVTTSS2SI32":
      case "CVTTSS2SI64":
        return this.#toInteger("f32", op.endsWith("64"), op.startsWith("CVTT"), b);
      case "CVTSD2SI32":
      case "CVTSD2SI64":
      case "CVTTSD2SI32":
      case "CVTTSD2SI64":
        return this.#toInteger("f64", op.endsWith("64"), op.startsWith("CVTT"), b);
      case "CVTSS2SD":
        return this.#promoteScalar(a, b);
      case "CVTSD2SS":
        return this.#demoteScalar(a, b);
      case "CVTDQ2PS":
        return { result: this.simd1(V.f32.convertI32, b), valid: this.#ordinaryMxcsr() };
      case "CVTPS2PD": {
        const low = this.shuffle(b, b, LOW_HALF);
        return {
          result: this.simd1(V.f64.promote, low),
          valid: this.#allTrue("f32", this.#ordinary("f32", low)),
        };
      }
      case "CVTPD2PS":
        return this.#demotePacked(b);
      case "CVTPS2DQ":
      case "CVTTPS2DQ":
        return this.#toIntegers("f32", op === "CVTTPS2DQ", b);
      case "CVTPD2DQ":
      case "CVTTPD2DQ":
        return this.#toIntegers("f64", op === "CVTTPD2DQ", b);
      default:
        return undefined;
    }
  }

  /** Conversions that are exact for every operand and touch no flag. */
  #exactConversion(op: FpOp, a: WasmVec, b: WasmVec): WasmVec | undefined {
    if (op === "CVTDQ2PD") return this.simd1(V.f64.convertI32, b);
    if (op !== "CVTSI2SD32") return undefined;
    this.pushX(a);
    this.pushX(b);
    this.#lane(V.i32.extract);
    this.w.op(F.f64.fromI32);
    this.#lane(V.f64.replace);
    return this.takeX();
  }

  // ---- pieces

  /** A lane instruction of lane 0. */
  #lane(code: number): void {
    this.w.simd(code);
    this.w.byte(0);
  }
  /** Pushes a constant of the format. */
  #float(fmt: Fmt, value: number): void {
    const view = new DataView(new ArrayBuffer(8));
    if (fmt === "f32") view.setFloat32(0, value, true);
    else view.setFloat64(0, value, true);
    this.w.op(fmt === "f32" ? F.constF32 : F.constF64);
    for (let i = 0; i < (fmt === "f32" ? 4 : 8); i++) this.w.byte(view.getUint8(i));
  }
  /** The constant in every lane. */
  #floats(fmt: Fmt, value: number): WasmVec {
    const view = new DataView(new ArrayBuffer(8));
    if (fmt === "f64") view.setFloat64(0, value, true);
    else {
      view.setFloat32(0, value, true);
      view.setFloat32(4, value, true);
    }
    const bits = view.getBigUint64(0, true);
    return this.immX(bits, bits);
  }
  /** Takes lane 0 as a scalar local. */
  #scalarOf(fmt: Fmt, a: WasmVec): number {
    const local = this.newLocal(FORMAT[fmt].type);
    this.pushX(a);
    this.#lane(V[fmt].extract);
    this.w.localSet(local);
    return local;
  }
  /** `a` with lane 0 replaced by a scalar local. */
  #withScalar(fmt: Fmt, a: WasmVec, value: number): WasmVec {
    this.pushX(a);
    this.w.localGet(value);
    this.#lane(V[fmt].replace);
    return this.takeX();
  }
  #pushMxcsr(mask: number): void {
    this.pushBase();
    this.w.memory(OP.i32_load, S.MXCSR);
    this.w.i32Const(mask);
    this.w.op(OP.i32_and);
  }
  /** True when MXCSR is as the fast forms want it. */
  #ordinaryMxcsr(): WasmCond {
    this.#pushMxcsr(MXCSR_CONTROLS);
    this.w.i32Const(MXCSR_ORDINARY);
    this.w.op(OP.i32_eq);
    return this.takeC();
  }
  /** Pushes the pattern of a scalar local, shifted left by one, minus `less`. */
  #pushShifted(fmt: Fmt, value: number, less: bigint): void {
    const w = this.w;
    w.localGet(value);
    if (fmt === "f32") {
      w.op(OP.i32_reinterpret_f32);
      w.i32Const(1);
      w.op(OP.i32_shl);
      w.i32Const(Number(BigInt.asIntN(32, less)));
      w.op(OP.i32_sub);
    } else {
      w.op(OP.i64_reinterpret_f64);
      w.i64Const(1n);
      w.op(OP.i64_shl);
      w.i64Const(less);
      w.op(OP.i64_sub);
    }
  }
  /** Compares the pattern on the stack with an unsigned constant. */
  #compareShifted(fmt: Fmt, relation: "lt" | "ge", limit: bigint): void {
    const w = this.w;
    if (fmt === "f32") {
      w.i32Const(Number(BigInt.asIntN(32, limit)));
      w.op(relation === "lt" ? OP.i32_lt_u : OP.i32_ge_u);
    } else {
      w.i64Const(limit);
      w.op(relation === "lt" ? OP.i64_lt_u : OP.i64_ge_u);
    }
  }
  /** Pushes 1 unless the scalar is denormal. Zero wraps to the top of the range. */
  #pushNotDenormal(fmt: Fmt, value: number): void {
    this.#pushShifted(fmt, value, 1n);
    this.#compareShifted(fmt, "ge", FORMAT[fmt].one - 1n);
  }
  /** Pushes 1 if the scalar is finite. */
  #pushFinite(fmt: Fmt, value: number): void {
    this.#pushShifted(fmt, value, 0n);
    this.#compareShifted(fmt, "lt", FORMAT[fmt].infinity);
  }
  /** Pushes 1 if the scalar is finite and its magnitude above the smallest normal number (which rounding may have made of a tiny result). */
  #pushNormal(fmt: Fmt, value: number): void {
    this.#pushShifted(fmt, value, FORMAT[fmt].one + 2n);
    this.#compareShifted(fmt, "lt", FORMAT[fmt].infinity - FORMAT[fmt].one - 2n);
  }
  /** Pushes 1 if the scalar is +0 or −0. */
  #pushZero(fmt: Fmt, value: number): void {
    this.w.localGet(value);
    this.#float(fmt, 0);
    this.w.op(F[fmt].eq);
  }
  /** ANDs what each function pushes. */
  #all(...parts: readonly (() => void)[]): WasmCond {
    parts.forEach((part, n) => {
      part();
      if (n > 0) this.w.op(OP.i32_and);
    });
    return this.takeC();
  }
  /** Pushes the OR of what the functions push. */
  #pushAny(...parts: readonly (() => void)[]): void {
    parts.forEach((part, n) => {
      part();
      if (n > 0) this.w.op(OP.i32_or);
    });
  }
  /** Lanes that are zero or at least the smallest normal number: neither denormal nor NaN. */
  #ordinary(fmt: Fmt, a: WasmVec): WasmVec {
    const magnitude = this.simd1(V[fmt].abs, a);
    const normal = this.simd2(V[fmt].ge, magnitude, this.#floats(fmt, FORMAT[fmt].smallestNormal));
    return this.bits("or", normal, this.#zeroLanes(fmt, a));
  }
  #zeroLanes(fmt: Fmt, a: WasmVec): WasmVec {
    return this.simd2(V[fmt].eq, a, this.#floats(fmt, 0));
  }
  /** Lanes that are finite. */
  #finite(fmt: Fmt, a: WasmVec): WasmVec {
    return this.simd2(V[fmt].lt, this.simd1(V[fmt].abs, a), this.#floats(fmt, Infinity));
  }
  /** Lanes that are finite and above the smallest normal number. */
  #normal(fmt: Fmt, a: WasmVec): WasmVec {
    const magnitude = this.simd1(V[fmt].abs, a);
    return this.bits(
      "and",
      this.simd2(V[fmt].gt, magnitude, this.#floats(fmt, FORMAT[fmt].smallestNormal)),
      this.simd2(V[fmt].lt, magnitude, this.#floats(fmt, Infinity)),
    );
  }
  #allTrue(fmt: Fmt, mask: WasmVec): WasmCond {
    this.pushX(mask);
    this.w.simd(fmt === "f32" ? V.i32.allTrue : V.i64.allTrue);
    return this.takeC();
  }
  #and(...masks: readonly WasmVec[]): WasmVec {
    return masks.reduce((x, y) => this.bits("and", x, y));
  }

  // ---- arithmetic

  #scalar(name: Arithmetic, fmt: Fmt, a: WasmVec, b: WasmVec): Fast {
    const w = this.w;
    const x = name === "sqrt" ? -1 : this.#scalarOf(fmt, a), y = this.#scalarOf(fmt, b);
    const r = this.newLocal(FORMAT[fmt].type);
    if (x >= 0) w.localGet(x);
    w.localGet(y);
    w.op(F[fmt][name]);
    w.localSet(r);
    const mxcsr = this.#ordinaryMxcsr();
    const valid = this.#all(
      () => this.pushC(mxcsr),
      () => this.#pushNotDenormal(fmt, y),
      ...(x >= 0 ? [() => this.#pushNotDenormal(fmt, x)] : []),
      () => {
        // A sum that is tiny is exact; the other operations must not come near to that.
        if (name === "add" || name === "sub") this.#pushFinite(fmt, r);
        else {
          this.#pushAny(() => this.#pushNormal(fmt, r), () => {
            this.#pushZero(fmt, r);
            if (name === "sqrt") return;
            this.#pushZero(fmt, x);
            if (name === "mul") {
              this.#pushZero(fmt, y);
              w.op(OP.i32_or);
            }
            w.op(OP.i32_and);
          });
        }
      },
    );
    return { result: this.#withScalar(fmt, a, r), valid };
  }

  #packed(name: Arithmetic, fmt: Fmt, a: WasmVec, b: WasmVec): Fast {
    const unary = name === "sqrt";
    const result = unary ? this.simd1(V[fmt].sqrt, b) : this.simd2(V[fmt][name], a, b);
    let good: WasmVec;
    if (name === "add" || name === "sub") good = this.#finite(fmt, result);
    else {
      let zero = this.#zeroLanes(fmt, result);
      if (name === "mul") {
        zero = this.#and(zero, this.bits("or", this.#zeroLanes(fmt, a), this.#zeroLanes(fmt, b)));
      } else if (name === "div") zero = this.#and(zero, this.#zeroLanes(fmt, a));
      good = this.bits("or", this.#normal(fmt, result), zero);
    }
    good = this.#and(good, this.#ordinary(fmt, b));
    if (!unary) good = this.#and(good, this.#ordinary(fmt, a));
    const mxcsr = this.#ordinaryMxcsr(), lanes = this.#allTrue(fmt, good);
    return { result, valid: this.#all(() => this.pushC(mxcsr), () => this.pushC(lanes)) };
  }

  /** 1 if lane 0 (or every lane) of both operands is neither denormal nor NaN: then minima and comparisons raise nothing. */
  #comparable(fmt: Fmt, packed: boolean, a: WasmVec, b: WasmVec): WasmCond {
    const good = this.#and(this.#ordinary(fmt, a), this.#ordinary(fmt, b));
    if (packed) return this.#allTrue(fmt, good);
    this.pushX(good);
    this.#lane(V.i32.extract);
    this.w.i32Const(1);
    this.w.op(OP.i32_and);
    return this.takeC();
  }
  /** A packed result, or its lane 0 within `a`. */
  #merge(fmt: Fmt, packed: boolean, a: WasmVec, result: WasmVec): WasmVec {
    return packed ? result : this.shuffle(a, result, MERGE_LOW[fmt]);
  }

  #minMax(name: "MIN" | "MAX", fmt: Fmt, packed: boolean, a: WasmVec, b: WasmVec): Fast {
    // pmin(x, y) is y < x ? y : x, so that of two zeros the source is the result, as MINPS wants.
    const result = this.simd2(name === "MIN" ? V[fmt].pmin : V[fmt].pmax, b, a);
    return { result: this.#merge(fmt, packed, a, result), valid: this.#comparable(fmt, packed, a, b) };
  }

  /** CMPxx: for ordered operands the predicate is (EQ, LT, LE, never)[imm & 3], inverted by bit 2. */
  #compare(fmt: Fmt, packed: boolean, a: WasmVec, b: WasmVec, imm: WasmInt): Fast {
    const w = this.w;
    /** All ones when `imm & 3` is `one` or `other`. */
    const maskFor = (one: number, other: number): WasmVec => {
      const predicate = this.newLocal(T.i32);
      this.push32(imm);
      w.i32Const(3);
      w.op(OP.i32_and);
      w.localTee(predicate);
      w.i32Const(one);
      w.op(OP.i32_eq);
      w.localGet(predicate);
      w.i32Const(other);
      w.op(OP.i32_eq);
      w.op(OP.i32_or);
      return this.#splatBit();
    };
    const equal = this.#and(this.simd2(V[fmt].eq, a, b), maskFor(0, 2));
    const less = this.#and(this.simd2(V[fmt].lt, a, b), maskFor(1, 2));
    this.push32(imm);
    w.i32Const(2);
    w.op(OP.i32_shr_u);
    w.i32Const(1);
    w.op(OP.i32_and);
    const result = this.bits("xor", this.bits("or", equal, less), this.#splatBit());
    return { result: this.#merge(fmt, packed, a, result), valid: this.#comparable(fmt, packed, a, b) };
  }
  /** Takes an i32 of 0 or 1: all lanes zero or all ones. */
  #splatBit(): WasmVec {
    const bit = this.newLocal(T.i32);
    this.w.localSet(bit);
    this.w.i32Const(0);
    this.w.localGet(bit);
    this.w.op(OP.i32_sub);
    this.w.simd(V.i32.splat);
    return this.takeX();
  }

  /** COMISx: ZF = equal (bit 6), CF = less (bit 0) of ordered operands. */
  #compareFlags(fmt: Fmt, a: WasmVec, b: WasmVec): Fast {
    const w = this.w;
    const x = this.#scalarOf(fmt, a), y = this.#scalarOf(fmt, b);
    const compare = (relation: "eq" | "lt" | "ge") => {
      w.localGet(x);
      w.localGet(y);
      w.op(F[fmt][relation]);
    };
    const valid = this.#all(
      () => this.#pushNotDenormal(fmt, x),
      () => this.#pushNotDenormal(fmt, y),
      () => this.#pushAny(() => compare("lt"), () => compare("ge")),
    );
    w.v128Const(0n, 0n);
    compare("eq");
    w.i32Const(6);
    w.op(OP.i32_shl);
    compare("lt");
    w.op(OP.i32_or);
    this.#lane(V.i32.replace);
    return { result: this.takeX(), valid };
  }

  /** ROUNDxx: by imm[1:0], or (bit 2) by MXCSR.RC; bit 3 says that an inexact result is not reported. */
  #round(fmt: Fmt, packed: boolean, a: WasmVec, b: WasmVec, imm: WasmInt): Fast {
    const w = this.w;
    const mode = this.newLocal(T.i32);
    this.push32(imm);
    w.i32Const(7);
    w.op(OP.i32_and);
    w.localSet(mode);
    let result = this.simd1(V[fmt].nearest, b);
    for (const [n, code] of [[1, V[fmt].floor], [2, V[fmt].ceil], [3, V[fmt].trunc]] as const) {
      this.pushX(this.simd1(code, b));
      this.pushX(result);
      w.localGet(mode);
      w.i32Const(n);
      w.op(OP.i32_eq);
      w.op(OP.select);
      result = this.takeX();
    }
    const mxcsr = this.#ordinaryMxcsr();
    const comparable = this.#comparable(fmt, packed, b, b);
    const valid = this.#all(() => this.pushC(comparable), () =>
      this.#pushAny(() => this.pushC(mxcsr), () => {
        // Own rounding mode and silent: MXCSR does not matter.
        this.push32(imm);
        w.i32Const(0xc);
        w.op(OP.i32_and);
        w.i32Const(8);
        w.op(OP.i32_eq);
      }));
    return { result: this.#merge(fmt, packed, a, result), valid };
  }

  // ---- conversions

  #fromInteger(fmt: Fmt, wide: boolean, a: WasmVec, b: WasmVec): Fast {
    const w = this.w;
    const value = this.newLocal(T.i64);
    this.pushX(b);
    this.#lane(wide ? V.i64.extract : V.i32.extract);
    if (!wide) w.op(OP.i64_extend_i32_s);
    w.localSet(value);
    const r = this.newLocal(FORMAT[fmt].type);
    w.localGet(value);
    w.op(F[fmt].fromI64);
    w.localSet(r);
    const mxcsr = this.#ordinaryMxcsr();
    this.#pushAny(() => this.pushC(mxcsr), () => {
      const limit = FORMAT[fmt].exactIntegers;
      w.localGet(value);
      w.i64Const(limit);
      w.op(OP.i64_add);
      w.i64Const(2n * limit);
      w.op(OP.i64_le_u);
    });
    return { valid: this.takeC(), result: this.#withScalar(fmt, a, r) };
  }

  #toInteger(fmt: Fmt, wide: boolean, truncate: boolean, b: WasmVec): Fast {
    const w = this.w;
    const x = this.#scalarOf(fmt, b);
    const rounded = this.newLocal(FORMAT[fmt].type);
    w.localGet(x);
    w.op(truncate ? F[fmt].trunc : F[fmt].nearest);
    w.localSet(rounded);
    const limit = wide ? 2 ** 63 : 2 ** 31;
    const mxcsr = this.#ordinaryMxcsr();
    const valid = this.#all(
      () => {
        w.localGet(rounded);
        this.#float(fmt, -limit);
        w.op(F[fmt].ge);
      },
      () => {
        w.localGet(rounded);
        this.#float(fmt, limit);
        w.op(F[fmt].lt);
      },
      () =>
        this.#pushAny(() => this.pushC(mxcsr), () => {
          w.localGet(rounded);
          w.localGet(x);
          w.op(F[fmt].eq);
        }),
    );
    w.v128Const(0n, 0n);
    w.localGet(rounded);
    w.op(F.saturating);
    w.u32(wide ? F[fmt].toI64 : F[fmt].toI32);
    this.#lane(wide ? V.i64.replace : V.i32.replace);
    return { result: this.takeX(), valid };
  }

  #promoteScalar(a: WasmVec, b: WasmVec): Fast {
    const w = this.w;
    const x = this.#scalarOf("f32", b);
    const valid = this.#all(() => this.#pushNotDenormal("f32", x), () => {
      w.localGet(x);
      w.localGet(x);
      w.op(F.f32.eq);
    });
    this.pushX(a);
    w.localGet(x);
    w.op(F.promote);
    this.#lane(V.f64.replace);
    return { result: this.takeX(), valid };
  }

  #demoteScalar(a: WasmVec, b: WasmVec): Fast {
    const w = this.w;
    const x = this.#scalarOf("f64", b);
    const r = this.newLocal(T.f32);
    w.localGet(x);
    w.op(F.demote);
    w.localSet(r);
    const mxcsr = this.#ordinaryMxcsr();
    const valid = this.#all(
      () => this.pushC(mxcsr),
      () => this.#pushAny(() => this.#pushNormal("f32", r), () => this.#pushZero("f64", x)),
    );
    return { result: this.#withScalar("f32", a, r), valid };
  }

  #demotePacked(b: WasmVec): Fast {
    const result = this.simd1(V.f32.demote, b);
    // The unused upper lanes are zero; where a lane of the result is zero its source must be.
    const zeros = this.#zeroLanes("f64", b);
    const isZeroSource = this.shuffle(zeros, zeros, DWORDS_0_2);
    const upper = this.immX(0n, -1n);
    const good = this.bits("or", this.bits("or", this.#normal("f32", result), isZeroSource), upper);
    const mxcsr = this.#ordinaryMxcsr(), lanes = this.#allTrue("f32", good);
    return { result, valid: this.#all(() => this.pushC(mxcsr), () => this.pushC(lanes)) };
  }

  /** Packed conversions to 32-bit integers; all lanes must be in range. */
  #toIntegers(fmt: Fmt, truncate: boolean, b: WasmVec): Fast {
    const rounded = this.simd1(truncate ? V[fmt].trunc : V[fmt].nearest, b);
    const good = this.#and(
      this.simd2(V[fmt].ge, rounded, this.#floats(fmt, -(2 ** 31))),
      this.simd2(V[fmt].lt, rounded, this.#floats(fmt, 2 ** 31)),
    );
    const result = this.simd1(fmt === "f32" ? V.i32.truncF32 : V.i32.truncF64, rounded);
    const mxcsr = this.#ordinaryMxcsr(), lanes = this.#allTrue(fmt, good);
    return { result, valid: this.#all(() => this.pushC(mxcsr), () => this.pushC(lanes)) };
  }
}
