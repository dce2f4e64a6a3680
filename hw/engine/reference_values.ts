/**
 * The reference engine's values: integer arithmetic, conditions, status flags and fields of the processor's block, each by
 * its definition on bigints. What depends on the instruction (operands, memory, control) is in reference.ts.
 *
 * Room: `hw/engine/`; knows the description language (`hw/isa/`) and the processor.
 *
 * @module
 */
import { loadStatusFlags, storeStatusFlags } from "../flags.ts";
import type { FlagName, Variable, Width } from "../isa/builder.ts";
import { RFLAGS, RFLAGS_STATUS, S } from "../state.ts";
import { ReferenceVector } from "./reference_vector.ts";

const FLAG_BIT: Readonly<Record<FlagName, number>> = {
  CF: RFLAGS.CF,
  PF: RFLAGS.PF,
  AF: RFLAGS.AF,
  ZF: RFLAGS.ZF,
  SF: RFLAGS.SF,
  OF: RFLAGS.OF,
};

/** Low half of a 64-bit value. */
export function low(value: bigint): number {
  return Number(value & 0xffff_ffffn);
}
/** High half of a 64-bit value. */
export function high(value: bigint): number {
  return Number((value >> 32n) & 0xffff_ffffn);
}
/** `value` cut to `w` bits. */
export function cut(w: number, value: bigint): bigint {
  return BigInt.asUintN(w, value);
}
/** `value` as a signed number of `w` bits. */
export function signed(w: number, value: bigint): bigint {
  return BigInt.asIntN(w, value);
}
/** True if a signed number does not fit in `w` bits. */
function overflows(w: number, value: bigint): boolean {
  return signed(w, value) !== value;
}
/** Even number of ones in the low byte. */
function evenParity(value: bigint): boolean {
  let byte = Number(value & 0xffn), even = true;
  for (; byte !== 0; byte &= byte - 1) even = !even;
  return even;
}

/** The members of the reference builder that do not depend on the instruction. */
export abstract class ReferenceValues extends ReferenceVector {
  // ---- values

  imm(value: bigint | number): bigint {
    return cut(64, BigInt(value));
  }

  reg(w: Width, n: number): bigint {
    return this.state(S.GPR + n * 8, w);
  }
  setReg(w: Width, n: number, value: bigint): void {
    this.setState(S.GPR + n * 8, w === 32 ? 64 : w, cut(w, value));
  }

  state(offset: number, w: Width): bigint {
    const { memory, base } = this.cpu, at = base + offset;
    if (w === 8) return BigInt(memory.u8[at]!);
    if (w === 16) return BigInt(memory.u16[at >>> 1]!);
    if (w === 32) return BigInt(memory.u32[at >>> 2]!);
    return memory.u64[at >>> 3]!;
  }
  setState(offset: number, w: Width, value: bigint): void {
    const { memory, base } = this.cpu, at = base + offset;
    if (w === 8) memory.u8[at] = Number(value & 0xffn);
    else if (w === 16) memory.u16[at >>> 1] = Number(value & 0xffffn);
    else if (w === 32) memory.u32[at >>> 2] = low(value);
    else memory.u64[at >>> 3] = value;
  }

  variable(initial: bigint): Variable<bigint> {
    let value = initial;
    return {
      get: () => value,
      set: (next) => {
        value = next;
      },
    };
  }

  // ---- arithmetic

  add(w: Width, a: bigint, b: bigint): bigint {
    return cut(w, a + b);
  }
  sub(w: Width, a: bigint, b: bigint): bigint {
    return cut(w, a - b);
  }
  mul(w: Width, a: bigint, b: bigint): bigint {
    return cut(w, a * b);
  }
  mulHighU(a: bigint, b: bigint): bigint {
    return (a * b) >> 64n;
  }
  mulHighS(a: bigint, b: bigint): bigint {
    return cut(64, (signed(64, a) * signed(64, b)) >> 64n);
  }
  divU(a: bigint, b: bigint): bigint {
    return a / b;
  }
  remU(a: bigint, b: bigint): bigint {
    return a % b;
  }
  divS(a: bigint, b: bigint): bigint {
    return cut(64, signed(64, a) / signed(64, b));
  }
  remS(a: bigint, b: bigint): bigint {
    return cut(64, signed(64, a) % signed(64, b));
  }
  and(a: bigint, b: bigint): bigint {
    return a & b;
  }
  or(a: bigint, b: bigint): bigint {
    return a | b;
  }
  xor(a: bigint, b: bigint): bigint {
    return a ^ b;
  }
  not(w: Width, a: bigint): bigint {
    return cut(w, ~a);
  }
  neg(w: Width, a: bigint): bigint {
    return cut(w, -a);
  }
  shl(w: Width, a: bigint, n: bigint): bigint {
    return cut(w, a << n);
  }
  shr(w: Width, a: bigint, n: bigint): bigint {
    return cut(w, a) >> n;
  }
  sar(w: Width, a: bigint, n: bigint): bigint {
    return cut(w, signed(w, a) >> n);
  }
  rotl(w: Width, a: bigint, n: bigint): bigint {
    return cut(w, (a << n) | (a >> (BigInt(w) - n)));
  }
  rotr(w: Width, a: bigint, n: bigint): bigint {
    return cut(w, (a >> n) | (a << (BigInt(w) - n)));
  }
  bswap(w: 32 | 64, a: bigint): bigint {
    let result = 0n;
    for (let i = 0; i < w; i += 8) result = (result << 8n) | ((a >> BigInt(i)) & 0xffn);
    return result;
  }
  popcnt(a: bigint): bigint {
    let count = 0n;
    for (let rest = a; rest !== 0n; rest &= rest - 1n) count++;
    return count;
  }
  clz(w: Width, a: bigint): bigint {
    let count = 0;
    while (count < w && ((a >> BigInt(w - 1 - count)) & 1n) === 0n) count++;
    return BigInt(count);
  }
  ctz(w: Width, a: bigint): bigint {
    let count = 0;
    while (count < w && ((a >> BigInt(count)) & 1n) === 0n) count++;
    return BigInt(count);
  }
  zx(w: Width, a: bigint): bigint {
    return cut(w, a);
  }
  sx(from: Width, to: Width, a: bigint): bigint {
    return cut(to, signed(from, a));
  }

  // ---- conditions

  eq(a: bigint, b: bigint): boolean {
    return a === b;
  }
  ne(a: bigint, b: bigint): boolean {
    return a !== b;
  }
  ltU(a: bigint, b: bigint): boolean {
    return a < b;
  }
  leU(a: bigint, b: bigint): boolean {
    return a <= b;
  }
  ltS(w: Width, a: bigint, b: bigint): boolean {
    return signed(w, a) < signed(w, b);
  }
  bit(a: bigint, n: number): boolean {
    return ((a >> BigInt(n)) & 1n) === 1n;
  }
  notC(c: boolean): boolean {
    return !c;
  }
  andC(a: boolean, b: boolean): boolean {
    return a && b;
  }
  orC(a: boolean, b: boolean): boolean {
    return a || b;
  }
  xorC(a: boolean, b: boolean): boolean {
    return a !== b;
  }
  always(value: boolean): boolean {
    return value;
  }
  toInt(c: boolean): bigint {
    return c ? 1n : 0n;
  }
  select(c: boolean, a: bigint, b: bigint): bigint {
    return c ? a : b;
  }

  // ---- status flags, each by its definition (SDM vol. 1, "Status Flags")

  #status(): number {
    return loadStatusFlags(this.cpu.memory.i32, this.cpu.base);
  }
  #setStatus(flags: number): void {
    storeStatusFlags(this.cpu.memory.i32, this.cpu.base, flags);
  }
  /** SF, ZF and PF of a result. */
  #resultBits(w: Width, r: bigint): number {
    return (r === 0n ? RFLAGS.ZF : 0) | (signed(w, r) < 0n ? RFLAGS.SF : 0) | (evenParity(r) ? RFLAGS.PF : 0);
  }
  #setAll(w: Width, r: bigint, cf: boolean, of: boolean, af: boolean): void {
    this.#setStatus(
      this.#resultBits(w, r) | (cf ? RFLAGS.CF : 0) | (of ? RFLAGS.OF : 0) | (af ? RFLAGS.AF : 0),
    );
  }

  flagsAdd(w: Width, a: bigint, b: bigint, r: bigint): void {
    const carryIn = cut(w, r - a - b);
    const cf = a + b + carryIn >= 1n << BigInt(w);
    const of = overflows(w, signed(w, a) + signed(w, b) + carryIn);
    const af = (a & 15n) + (b & 15n) + carryIn > 15n;
    this.#setAll(w, r, cf, of, af);
  }
  flagsSub(w: Width, a: bigint, b: bigint, r: bigint): void {
    const borrowIn = cut(w, a - b - r);
    const cf = a < b + borrowIn;
    const of = overflows(w, signed(w, a) - signed(w, b) - borrowIn);
    const af = (a & 15n) < (b & 15n) + borrowIn;
    this.#setAll(w, r, cf, of, af);
  }
  flagsLogic(w: Width, r: bigint): void {
    this.#setAll(w, r, false, false, false);
  }
  flagsInc(w: Width, r: bigint): void {
    const a = signed(w, r - 1n);
    this.#setAll(w, r, this.flag("CF"), overflows(w, a + 1n), (a & 15n) === 15n);
  }
  flagsDec(w: Width, r: bigint): void {
    const a = signed(w, r + 1n);
    this.#setAll(w, r, this.flag("CF"), overflows(w, a - 1n), (a & 15n) === 0n);
  }
  flagsResult(w: Width, r: bigint, cf: boolean, of: boolean, af = false): void {
    this.#setAll(w, r, cf, of, af);
  }
  setFlags(flags: { readonly [name in FlagName]?: boolean }): void {
    let image = this.#status();
    for (const name of Object.keys(FLAG_BIT) as FlagName[]) {
      const value = flags[name];
      if (value !== undefined) image = value ? image | FLAG_BIT[name] : image & ~FLAG_BIT[name];
    }
    this.#setStatus(image);
  }
  flag(name: FlagName): boolean {
    return (this.#status() & FLAG_BIT[name]) !== 0;
  }
  condition(cc: number): boolean {
    const positive = this.#positiveCondition(cc >> 1);
    return (cc & 1) === 0 ? positive : !positive;
  }
  #positiveCondition(kind: number): boolean {
    switch (kind) {
      case 0:
        return this.flag("OF");
      case 1:
        return this.flag("CF");
      case 2:
        return this.flag("ZF");
      case 3:
        return this.flag("CF") || this.flag("ZF");
      case 4:
        return this.flag("SF");
      case 5:
        return this.flag("PF");
      case 6:
        return this.flag("SF") !== this.flag("OF");
      default:
        return this.flag("ZF") || this.flag("SF") !== this.flag("OF");
    }
  }
  flagsImage(): bigint {
    return BigInt(((this.cpu.get32(S.RFLAGS) & ~RFLAGS_STATUS) | this.#status() | 2) >>> 0);
  }
}
