/**
 * The vector half of the reference engine: 128-bit values as bigints, each lane computed from the definition.
 *
 * Room: `hw/engine/`; knows the description language (`hw/isa/`) and the processor. Floating point is done by the
 * procedure `sse.fp` (hw/isa/sse_proc.ts), the same that the other engines fall back on.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { VECTOR } from "../cpu.ts";
import type { Width } from "../isa/builder.ts";
import type { Operand } from "../isa/form.ts";
import type { BitOp, FpOp, Lane, LaneOp, PermuteKind, ShiftOp, VectorBuilder } from "../isa/vector.ts";
import { FP_OPS, permuteSources } from "../isa/vector.ts";
import { S } from "../state.ts";

/** All ones in 128 bits. */
const ONES = (1n << 128n) - 1n;

/** Lane `n` of `a`, unsigned. */
function lane(w: number, a: bigint, n: number): bigint {
  return BigInt.asUintN(w, a >> BigInt(w * n));
}

/** Lane `n` of `a`, signed. */
function laneS(w: number, a: bigint, n: number): bigint {
  return BigInt.asIntN(w, a >> BigInt(w * n));
}

/** Builds a vector from `f(n)` for each lane, reduced to w bits. */
function build(w: number, f: (n: number) => bigint): bigint {
  let result = 0n;
  for (let n = 128 / w - 1; n >= 0; n--) result = (result << BigInt(w)) | BigInt.asUintN(w, f(n));
  return result;
}

/** Saturates to a signed number of w bits. */
function saturateS(w: number, value: bigint): bigint {
  const limit = 1n << BigInt(w - 1);
  return value >= limit ? limit - 1n : value < -limit ? -limit : value;
}

/** Saturates to an unsigned number of w bits. */
function saturateU(w: number, value: bigint): bigint {
  const limit = 1n << BigInt(w);
  return value >= limit ? limit - 1n : value < 0n ? 0n : value;
}

/** Operations of one lane that look at both lanes as unsigned numbers. */
const UNSIGNED: { readonly [op in LaneOp]?: (x: bigint, y: bigint, w: number) => bigint } = {
  add: (x, y) => x + y,
  sub: (x, y) => x - y,
  addSatU: (x, y, w) => saturateU(w, x + y),
  subSatU: (x, y, w) => saturateU(w, x - y),
  mulLow: (x, y) => x * y,
  mulHighU: (x, y, w) => (x * y) >> BigInt(w),
  mulEvenU: (x, y) => (x & 0xffff_ffffn) * (y & 0xffff_ffffn),
  avgU: (x, y) => (x + y + 1n) >> 1n,
  minU: (x, y) => x < y ? x : y,
  maxU: (x, y) => x > y ? x : y,
  eq: (x, y) => x === y ? -1n : 0n,
  sadU: (x, y) => {
    let sum = 0n;
    for (let n = 0; n < 8; n++) {
      const d = lane(8, x, n) - lane(8, y, n);
      sum += d < 0n ? -d : d;
    }
    return sum;
  },
  maddS: (x, y) => laneS(16, x, 0) * laneS(16, y, 0) + laneS(16, x, 1) * laneS(16, y, 1),
  maddUS: (x, y) => saturateS(16, lane(8, x, 0) * laneS(8, y, 0) + lane(8, x, 1) * laneS(8, y, 1)),
};

/** Operations of one lane that look at both lanes as signed numbers. */
const SIGNED: { readonly [op in LaneOp]?: (x: bigint, y: bigint, w: number) => bigint } = {
  addSatS: (x, y, w) => saturateS(w, x + y),
  subSatS: (x, y, w) => saturateS(w, x - y),
  mulHighS: (x, y, w) => (x * y) >> BigInt(w),
  mulRoundS: (x, y) => (((x * y) >> 14n) + 1n) >> 1n,
  mulEvenS: (x, y) => BigInt.asIntN(32, x) * BigInt.asIntN(32, y),
  minS: (x, y) => x < y ? x : y,
  maxS: (x, y) => x > y ? x : y,
  gtS: (x, y) => x > y ? -1n : 0n,
  sign: (x, y) => y < 0n ? -x : y === 0n ? 0n : x,
};

/** The lane operation `op` on 128-bit numbers, from its definition (see {@link LaneOp}). */
export function referenceLanes(op: LaneOp, w: Lane, a: bigint, b: bigint): bigint {
  const unsigned = UNSIGNED[op];
  if (unsigned) return build(w, (n) => unsigned(lane(w, a, n), lane(w, b, n), w));
  const signed = SIGNED[op];
  if (signed) return build(w, (n) => signed(laneS(w, a, n), laneS(w, b, n), w));
  const count = 128 / w;
  switch (op) {
    case "packS":
    case "packU": {
      const saturate = op === "packS" ? saturateS : saturateU;
      return build(w / 2, (n) => saturate(w / 2, n < count ? laneS(w, a, n) : laneS(w, b, n - count)));
    }
    case "unpackLow":
    case "unpackHigh": {
      const first = op === "unpackLow" ? 0 : count / 2;
      return build(w, (n) => lane(w, n & 1 ? b : a, first + (n >> 1)));
    }
    default:
      throw new Error(`Lane operation ${op} has no definition`);
  }
}

/** Bytes of `a` (0 … 15), `b` (16 … 31) or zero (above) by a list of sixteen sources. */
function shuffleBytes(a: bigint, b: bigint, sources: readonly number[]): bigint {
  return build(8, (n) => {
    const source = sources[n]!;
    return source < 16 ? lane(8, a, source) : source < 32 ? lane(8, b, source - 16) : 0n;
  });
}

/**
 * The vector members of the reference builder. The class that extends it has the rest of the builder; what is used
 * of it here is declared abstract. `fault` must not return.
 */
export abstract class ReferenceVector implements VectorBuilder<bigint, boolean, bigint> {
  /** The processor. */
  abstract readonly cpu: Cpu;
  /** Byte offset in the processor's block of an "xmm" or "mm" register operand. */
  abstract vectorOffset(o: Operand): number;
  /** As in Builder. */
  abstract ea(o: Operand): bigint;
  /** As in Builder: reads w bits at segment:offset, may fault. */
  abstract load(seg: number, offset: bigint, w: Width): bigint;
  /** As in Builder: writes w bits at segment:offset, may fault. */
  abstract store(seg: number, offset: bigint, w: Width, value: bigint): void;
  /** As in Builder: faults when a write would. */
  abstract probeWrite(seg: number, offset: bigint, w: Width): void;
  /** As in Builder. */
  abstract linear(o: Operand): bigint;
  /** As in Builder. */
  abstract segmentOf(o: Operand): bigint;
  /** Bits of an offset of a memory operand: the form's address size. */
  abstract addressWidth(): number;
  /** As in Builder; does not return. */
  abstract fault(vector: number, errorCode?: number): void;
  /** As in Builder. */
  abstract call(name: string, ...args: bigint[]): void;

  /** #GP(0) unless the operand's linear address is a multiple of 16. */
  #checkAlignment(o: Operand): void {
    if ((this.linear(o) & 15n) !== 0n) this.fault(VECTOR.GP, 0);
  }

  /** Offset of the upper eight bytes of a 128-bit memory operand. */
  #upper(offset: bigint): bigint {
    return BigInt.asUintN(this.addressWidth(), offset + 8n);
  }

  readX(o: Operand, aligned = false): bigint {
    if (o.kind === "xmm") return this.stateX(this.vectorOffset(o));
    if (o.kind === "mm") return this.cpu.get64(this.vectorOffset(o));
    const seg = Number(this.segmentOf(o)), offset = this.ea(o);
    if (aligned) this.#checkAlignment(o);
    if (o.width !== 128) return this.load(seg, offset, o.width as Width);
    const low = this.load(seg, offset, 64);
    return (this.load(seg, this.#upper(offset), 64) << 64n) | low;
  }

  writeX(o: Operand, value: bigint, aligned = false): void {
    if (o.kind === "xmm") {
      this.setStateX(this.vectorOffset(o), value);
      return;
    }
    if (o.kind === "mm") {
      const offset = this.vectorOffset(o);
      this.cpu.set64(offset, BigInt.asUintN(64, value));
      this.cpu.memory.u16[(this.cpu.base + offset + 8) >>> 1] = 0xffff;
      return;
    }
    const seg = Number(this.segmentOf(o)), offset = this.ea(o);
    if (aligned) this.#checkAlignment(o);
    if (o.width !== 128) {
      this.store(seg, offset, o.width as Width, BigInt.asUintN(o.width, value));
      return;
    }
    this.probeWrite(seg, offset, 64);
    this.probeWrite(seg, this.#upper(offset), 64);
    this.store(seg, offset, 64, BigInt.asUintN(64, value));
    this.store(seg, this.#upper(offset), 64, value >> 64n);
  }

  stateX(offset: number): bigint {
    return (this.cpu.get64(offset + 8) << 64n) | this.cpu.get64(offset);
  }

  setStateX(offset: number, value: bigint): void {
    this.cpu.set64(offset, BigInt.asUintN(64, value));
    this.cpu.set64(offset + 8, value >> 64n);
  }

  immX(low: bigint, high: bigint): bigint {
    return (BigInt.asUintN(64, high) << 64n) | BigInt.asUintN(64, low);
  }

  extract(w: Lane, a: bigint, n: number): bigint {
    return lane(w, a, n);
  }

  insert(w: Lane, a: bigint, n: number, value: bigint): bigint {
    return build(w, (m) => m === n ? value : lane(w, a, m));
  }

  lanes(op: LaneOp, w: Lane, a: bigint, b: bigint): bigint {
    return referenceLanes(op, w, a, b);
  }

  bits(op: BitOp, a: bigint, b: bigint): bigint {
    switch (op) {
      case "and":
        return a & b;
      case "or":
        return a | b;
      case "xor":
        return a ^ b;
      case "andnot":
        return (a ^ ONES) & b;
    }
  }

  abs(w: Lane, a: bigint): bigint {
    return build(w, (n) => {
      const value = laneS(w, a, n);
      return value < 0n ? -value : value;
    });
  }

  shift(op: ShiftOp, w: Lane, a: bigint, count: bigint): bigint {
    const bits = count < BigInt(w) ? count : BigInt(w);
    return build(w, (n) => {
      if (op === "shl") return lane(w, a, n) << bits;
      return op === "shr" ? lane(w, a, n) >> bits : laneS(w, a, n) >> bits;
    });
  }

  swizzle(a: bigint, control: bigint): bigint {
    return build(8, (n) => {
      const source = Number(lane(8, control, n));
      return source & 0x80 ? 0n : lane(8, a, source & 15);
    });
  }

  shuffle(a: bigint, b: bigint, sources: readonly number[]): bigint {
    return shuffleBytes(a, b, sources);
  }

  permute(kind: PermuteKind, a: bigint, b: bigint, imm: bigint): bigint {
    return shuffleBytes(a, b, permuteSources(kind, Number(imm)));
  }

  signMask(w: Lane, a: bigint): bigint {
    let mask = 0n;
    for (let n = 128 / w - 1; n >= 0; n--) mask = (mask << 1n) | (laneS(w, a, n) < 0n ? 1n : 0n);
    return mask;
  }

  fp(op: FpOp, a: bigint, b: bigint, imm = 0n): bigint {
    this.setStateX(S.VTEMP, a);
    this.setStateX(S.VTEMP + 16, b);
    this.call("sse.fp", BigInt(FP_OPS.indexOf(op)), imm);
    return this.stateX(S.VTEMP);
  }
}
