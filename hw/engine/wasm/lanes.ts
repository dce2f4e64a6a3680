/**
 * The integer half of the vector part of the wasm builder: operands, lane operations and permutations as WebAssembly
 * vector instructions.
 *
 * Room: `hw/engine/wasm/`; imports its base and the description language. Floating point is in vector.ts.
 *
 * @module
 */
import { VECTOR } from "../../cpu.ts";
import type { Operand } from "../../isa/form.ts";
import type { BitOp, Lane, LaneOp, PermuteKind, ShiftOp } from "../../isa/vector.ts";
import { PERMUTE, PERMUTE_OFFSETS, permuteSources } from "../../isa/vector.ts";
import { VECTOR_TABLES_BASE } from "../../state.ts";
import { WasmBase, type WasmCond, type WasmInt, type WasmVec } from "./base.ts";
import { OP, T } from "./emit.ts";
import { V } from "./simd.ts";

/** Lane operations that are one vector instruction, by width. */
const NATIVE: { readonly [op in LaneOp]?: { readonly [w in Lane]?: number } } = {
  add: { 8: V.i8.add, 16: V.i16.add, 32: V.i32.add, 64: V.i64.add },
  sub: { 8: V.i8.sub, 16: V.i16.sub, 32: V.i32.sub, 64: V.i64.sub },
  addSatS: { 8: V.i8.addSatS, 16: V.i16.addSatS },
  addSatU: { 8: V.i8.addSatU, 16: V.i16.addSatU },
  subSatS: { 8: V.i8.subSatS, 16: V.i16.subSatS },
  subSatU: { 8: V.i8.subSatU, 16: V.i16.subSatU },
  mulLow: { 16: V.i16.mul, 32: V.i32.mul },
  maddS: { 32: V.i32.dot },
  avgU: { 8: V.i8.avgU, 16: V.i16.avgU },
  minS: { 8: V.i8.minS, 16: V.i16.minS, 32: V.i32.minS },
  minU: { 8: V.i8.minU, 16: V.i16.minU, 32: V.i32.minU },
  maxS: { 8: V.i8.maxS, 16: V.i16.maxS, 32: V.i32.maxS },
  maxU: { 8: V.i8.maxU, 16: V.i16.maxU, 32: V.i32.maxU },
  eq: { 8: V.i8.eq, 16: V.i16.eq, 32: V.i32.eq, 64: V.i64.eq },
  gtS: { 8: V.i8.gtS, 16: V.i16.gtS, 32: V.i32.gtS, 64: V.i64.gtS },
  packS: { 16: V.i8.narrowS, 32: V.i16.narrowS },
  packU: { 16: V.i8.narrowU, 32: V.i16.narrowU },
};

/** Instructions of integer lanes of one width. */
const LANE = { 8: V.i8, 16: V.i16, 32: V.i32, 64: V.i64 } as const;

/** Sources of an interleave of lanes of `bytes` bytes, starting at byte `first`. */
function interleave(bytes: number, first: number): number[] {
  return Array.from({ length: 16 }, (_, n) => {
    const lane = Math.floor(n / bytes);
    return first + (lane >> 1) * bytes + n % bytes + (lane & 1) * 16;
  });
}

/** The upper words of the dwords of two vectors. */
const HIGH_WORDS = [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31];
/** Dwords 0 and 2 in the low half. */
const EVEN_DWORDS = [0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11];

/** Vector operands and integer lanes; see the module's comment. */
export abstract class WasmLanes extends WasmBase {
  /** As in Builder. */
  abstract faultIf(c: WasmCond, vector: number, errorCode?: number): void;

  // ---- operands

  /** Linear address of a memory operand, with the alignment rule. */
  #address(o: Operand, write: boolean, aligned: boolean): WasmInt {
    const linear = this.operandAddress(o, o.width / 8, write);
    if (aligned) {
      this.push(linear);
      this.w.i64Const(15n);
      this.w.op(OP.i64_and);
      this.w.i64Const(0n);
      this.w.op(OP.i64_ne);
      this.faultIf(this.takeC(), VECTOR.GP, 0);
    }
    return linear;
  }

  /** As in VectorBuilder. */
  readX(o: Operand, aligned = false): WasmVec {
    const w = this.w;
    if (o.kind !== "mem") {
      const offset = this.pushRegisterAddress(o);
      w.simdMemory(o.kind === "xmm" ? V.load : V.load64Zero, offset);
      return this.takeX();
    }
    const address = this.hostAddressRead(this.#address(o, false, aligned), o.width / 8, this.form.segment);
    if (o.width < 32) {
      w.localGet(address);
      w.memory(o.width === 16 ? OP.i32_load16_u : OP.i32_load8_u);
      const value = this.newLocal(T.i32);
      w.localSet(value);
      w.v128Const(0n, 0n);
      w.localGet(value);
      this.#lane(V.i32.replace, 0);
      return this.takeX();
    }
    w.localGet(address);
    w.simdMemory(o.width === 128 ? V.load : o.width === 64 ? V.load64Zero : V.load32Zero);
    return this.takeX();
  }

  /** As in VectorBuilder. */
  writeX(o: Operand, value: WasmVec, aligned = false): void {
    const w = this.w;
    if (o.kind === "xmm") {
      const offset = this.pushRegisterAddress(o);
      this.pushX(value);
      w.simdMemory(V.store, offset);
      return;
    }
    if (o.kind === "mm") {
      const offset = this.pushRegisterAddress(o);
      this.pushX(value);
      this.#lane(V.i64.extract, 0);
      w.memory(OP.i64_store, offset);
      const upper = this.pushRegisterAddress(o) + 8;
      w.i32Const(0xffff);
      w.memory(OP.i32_store16, upper);
      return;
    }
    this.storeLinear(
      this.#address(o, true, aligned),
      o.width / 8,
      this.form.segment,
      (pushAddress, offset) => {
        pushAddress();
        this.pushX(value);
        if (o.width === 128) w.simdMemory(V.store, offset);
        else {
          w.simdMemory(o.width === 64 ? V.store64Lane : V.store32Lane, offset);
          w.byte(0);
        }
      },
    );
  }

  /** As in VectorBuilder. */
  stateX(offset: number): WasmVec {
    this.pushBase();
    this.w.simdMemory(V.load, offset);
    return this.takeX();
  }
  /** As in VectorBuilder. */
  setStateX(offset: number, value: WasmVec): void {
    this.pushBase();
    this.pushX(value);
    this.w.simdMemory(V.store, offset);
  }
  /** As in VectorBuilder. */
  immX(low: bigint, high: bigint): WasmVec {
    this.w.v128Const(low, high);
    return this.takeX();
  }

  // ---- lanes

  /** A lane instruction with its lane number. */
  #lane(code: number, n: number): void {
    this.w.simd(code);
    this.w.byte(n);
  }
  /** As in VectorBuilder. */
  extract(width: Lane, a: WasmVec, n: number): WasmInt {
    this.pushX(a);
    this.#lane(LANE[width].extract, n);
    if (width !== 64) this.w.op(OP.i64_extend_i32_u);
    return this.take();
  }
  /** As in VectorBuilder. */
  insert(width: Lane, a: WasmVec, n: number, value: WasmInt): WasmVec {
    this.pushX(a);
    if (width === 64) this.push(value);
    else this.push32(value);
    this.#lane(LANE[width].replace, n);
    return this.takeX();
  }

  /** One vector instruction of two operands. */
  protected simd2(code: number, a: WasmVec, b: WasmVec): WasmVec {
    this.pushX(a);
    this.pushX(b);
    this.w.simd(code);
    return this.takeX();
  }
  /** One vector instruction of one operand. */
  protected simd1(code: number, a: WasmVec): WasmVec {
    this.pushX(a);
    this.w.simd(code);
    return this.takeX();
  }
  /** Shifts by a constant below the lane width. */
  #shiftBy(code: number, a: WasmVec, count: number): WasmVec {
    this.pushX(a);
    this.w.i32Const(count);
    this.w.simd(code);
    return this.takeX();
  }
  /** The byte `value` in all bytes, or a longer pattern of 64 bits. */
  #pattern(value: bigint): WasmVec {
    return this.immX(value, value);
  }

  /** As in VectorBuilder. */
  lanes(op: LaneOp, width: Lane, a: WasmVec, b: WasmVec): WasmVec {
    const native = NATIVE[op]?.[width];
    if (native !== undefined) return this.simd2(native, a, b);
    switch (op) {
      case "unpackLow":
        return this.shuffle(a, b, interleave(width / 8, 0));
      case "unpackHigh":
        return this.shuffle(a, b, interleave(width / 8, 8));
      case "mulHighS":
        return this.shuffle(
          this.simd2(V.i32.mulWideLowS, a, b),
          this.simd2(V.i32.mulWideHighS, a, b),
          HIGH_WORDS,
        );
      case "mulHighU":
        return this.shuffle(
          this.simd2(V.i32.mulWideLowU, a, b),
          this.simd2(V.i32.mulWideHighU, a, b),
          HIGH_WORDS,
        );
      case "mulRoundS": {
        // The native operation saturates the one product that does not fit, (-2^15)^2; PMULHRSW wraps it.
        const lowest = this.#pattern(0x8000800080008000n);
        const wraps = this.bits("and", this.simd2(V.i16.eq, a, lowest), this.simd2(V.i16.eq, b, lowest));
        return this.bits("xor", this.simd2(V.i16.mulRoundSat, a, b), wraps);
      }
      case "mulEvenU":
      case "mulEvenS":
        return this.simd2(
          op === "mulEvenU" ? V.i64.mulWideLowU : V.i64.mulWideLowS,
          this.shuffle(a, a, EVEN_DWORDS),
          this.shuffle(b, b, EVEN_DWORDS),
        );
      case "maddUS": {
        const even = this.bits("and", a, this.#pattern(0x00ff00ff00ff00ffn));
        const odd = this.#shiftBy(V.i16.shrU, a, 8);
        const evenB = this.#shiftBy(V.i16.shrS, this.#shiftBy(V.i16.shl, b, 8), 8);
        const oddB = this.#shiftBy(V.i16.shrS, b, 8);
        return this.simd2(
          V.i16.addSatS,
          this.simd2(V.i16.mul, even, evenB),
          this.simd2(V.i16.mul, odd, oddB),
        );
      }
      case "sadU": {
        const difference = this.simd2(V.i8.sub, this.simd2(V.i8.maxU, a, b), this.simd2(V.i8.minU, a, b));
        const sums = this.simd1(V.i32.pairwiseU, this.simd1(V.i16.pairwiseU, difference));
        const both = this.simd2(V.i64.add, sums, this.#shiftBy(V.i64.shrU, sums, 32));
        return this.bits("and", both, this.#pattern(0xffffn));
      }
      case "sign": {
        const negative = this.#shiftBy(LANE[width].shrS, b, width - 1);
        const signed = this.simd2(LANE[width].sub, this.bits("xor", a, negative), negative);
        return this.bits("andnot", this.simd2(LANE[width].eq, b, this.#pattern(0n)), signed);
      }
      default:
        throw new Error(`Lane operation ${op} does not exist for ${width} bits`);
    }
  }

  /** As in VectorBuilder. */
  bits(op: BitOp, a: WasmVec, b: WasmVec): WasmVec {
    return op === "andnot" ? this.simd2(V.andnot, b, a) : this.simd2(V[op], a, b);
  }
  /** As in VectorBuilder. */
  abs(width: Lane, a: WasmVec): WasmVec {
    return this.simd1(LANE[width].abs, a);
  }

  /** As in VectorBuilder. */
  shift(op: ShiftOp, width: Lane, a: WasmVec, count: WasmInt): WasmVec {
    const w = this.w;
    const code = op === "shl" ? LANE[width].shl : op === "shr" ? LANE[width].shrU : LANE[width].shrS;
    if (count.constant !== undefined) {
      const tooFar = count.constant >= BigInt(width);
      if (tooFar && op !== "sar") return this.immX(0n, 0n);
      return this.#shiftBy(code, a, tooFar ? width - 1 : Number(count.constant));
    }
    const inside = () => {
      this.push(count);
      w.i64Const(BigInt(width));
      w.op(OP.i64_lt_u);
    };
    if (op === "sar") {
      this.pushX(a);
      this.push32(count);
      w.i32Const(width - 1);
      inside();
      w.op(OP.select);
      w.simd(code);
    } else {
      this.pushX(a);
      this.push32(count);
      w.simd(code);
      w.v128Const(0n, 0n);
      inside();
      w.op(OP.select);
    }
    return this.takeX();
  }

  /** As in VectorBuilder. */
  signMask(width: Lane, a: WasmVec): WasmInt {
    this.pushX(a);
    this.w.simd(LANE[width].bitmask);
    this.w.op(OP.i64_extend_i32_u);
    return this.take();
  }

  // ---- permutations

  /** As in VectorBuilder. */
  swizzle(a: WasmVec, control: WasmVec): WasmVec {
    return this.simd2(V.swizzle, a, this.bits("and", control, this.#pattern(0x8f8f8f8f8f8f8f8fn)));
  }

  /** As in VectorBuilder. */
  shuffle(a: WasmVec, b: WasmVec, sources: readonly number[]): WasmVec {
    const w = this.w;
    const usesB = sources.some((source) => source >= 16 && source < 32);
    const usesZero = sources.some((source) => source >= 32);
    this.pushX(a);
    if (usesZero && !usesB) w.v128Const(0n, 0n);
    else this.pushX(b);
    w.simd(V.shuffle);
    for (const source of sources) w.byte(source < 32 ? source : 16);
    if (usesZero && usesB) {
      let low = 0n, high = 0n;
      sources.forEach((source, n) => {
        if (source < 32 && n < 8) low |= 0xffn << BigInt(n * 8);
        else if (source < 32) high |= 0xffn << BigInt(n * 8 - 64);
      });
      w.v128Const(low, high);
      w.simd(V.and);
    }
    return this.takeX();
  }

  /** As in VectorBuilder. */
  permute(kind: PermuteKind, a: WasmVec, b: WasmVec, imm: WasmInt): WasmVec {
    if (imm.constant !== undefined) return this.shuffle(a, b, permuteSources(kind, Number(imm.constant)));
    const w = this.w;
    const rule: { readonly count: number; readonly clamp?: boolean; readonly single?: boolean } =
      PERMUTE[kind];
    const index = this.newLocal(T.i32);
    this.push32(imm);
    if (rule.clamp) {
      w.localTee(index);
      w.i32Const(rule.count - 1);
      w.localGet(index);
      w.i32Const(rule.count);
      w.op(OP.i32_lt_u);
      w.op(OP.select);
    } else {
      w.i32Const(rule.count - 1);
      w.op(OP.i32_and);
    }
    w.i32Const(4);
    w.op(OP.i32_shl);
    w.simdMemory(V.load, VECTOR_TABLES_BASE + PERMUTE_OFFSETS[kind]);
    const sources = this.takeX();
    // A swizzle gives zero for an index of 16 and above, so the sources in b and the zeros vanish, and the other way round.
    const fromA = this.simd2(V.swizzle, a, sources);
    if (rule.single) return fromA;
    const indexB = this.simd2(V.i8.sub, sources, this.#pattern(0x1010101010101010n));
    return this.bits("or", fromA, this.simd2(V.swizzle, b, indexB));
  }
}
