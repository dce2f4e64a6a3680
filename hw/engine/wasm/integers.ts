/**
 * Values, integer arithmetic and conditions of the wasm builder.
 *
 * Room: `hw/engine/wasm/`; a layer of {@link ./builder.ts}'s class, above the vector part.
 *
 * @module
 */
import type { Variable, Width } from "../../isa/builder.ts";
import { S } from "../../state.ts";
import { type WasmCond, type WasmInt } from "./base.ts";
import { OP, T } from "./emit.ts";
import { WasmVector } from "./vector.ts";

/** Load instruction, zero-extending, by width. */
export const LOAD: Readonly<Record<Width, number>> = {
  8: OP.i64_load8_u,
  16: OP.i64_load16_u,
  32: OP.i64_load32_u,
  64: OP.i64_load,
};
/** Store instruction by width. */
export const STORE: Readonly<Record<Width, number>> = {
  8: OP.i64_store8,
  16: OP.i64_store16,
  32: OP.i64_store32,
  64: OP.i64_store,
};

/** See the module's comment. */
export abstract class WasmIntegers extends WasmVector {
  // ---- values

  imm(value: bigint | number): WasmInt {
    return this.constant(BigInt(value));
  }
  variable(initial: WasmInt): Variable<WasmInt> {
    const local = this.newLocal(T.i64);
    this.push(initial);
    this.w.localSet(local);
    return {
      get: () => {
        this.w.localGet(local);
        return this.take();
      },
      set: (value) => {
        this.push(value);
        this.w.localSet(local);
      },
    };
  }

  reg(width: Width, n: number): WasmInt {
    this.pushBase();
    this.w.memory(LOAD[width], S.GPR + n * 8);
    return this.take();
  }
  setReg(width: Width, n: number, value: WasmInt): void {
    this.setState(S.GPR + n * 8, width === 32 ? 64 : width, value);
  }
  state(offset: number, width: Width): WasmInt {
    this.pushBase();
    this.w.memory(LOAD[width], offset);
    return this.take();
  }
  setState(offset: number, width: Width, value: WasmInt): void {
    this.pushBase();
    this.push(value);
    this.w.memory(STORE[width], offset);
  }

  // ---- arithmetic

  protected binary(code: number, a: WasmInt, b: WasmInt): WasmInt {
    this.push(a);
    this.push(b);
    this.w.op(code);
    return this.take();
  }
  protected unary(code: number, a: WasmInt): WasmInt {
    this.push(a);
    this.w.op(code);
    return this.take();
  }
  /** Cuts the i64 on the stack to `width` bits. */
  protected cut(width: number): void {
    const w = this.w;
    if (width === 32) {
      w.op(OP.i32_wrap_i64);
      w.op(OP.i64_extend_i32_u);
    } else if (width < 64) {
      w.i64Const((1n << BigInt(width)) - 1n);
      w.op(OP.i64_and);
    }
  }
  /** Sign-extends the i64 on the stack from `width` bits. */
  protected signExtend(width: number): void {
    if (width === 32) this.w.op(OP.i64_extend32_s);
    else if (width === 16) this.w.op(OP.i64_extend16_s);
    else if (width === 8) this.w.op(OP.i64_extend8_s);
  }
  protected modular(code: number, width: Width, a: WasmInt, b: WasmInt): WasmInt {
    this.push(a);
    this.push(b);
    this.w.op(code);
    this.cut(width);
    return this.take();
  }
  add(width: Width, a: WasmInt, b: WasmInt): WasmInt {
    return this.modular(OP.i64_add, width, a, b);
  }
  sub(width: Width, a: WasmInt, b: WasmInt): WasmInt {
    return this.modular(OP.i64_sub, width, a, b);
  }
  mul(width: Width, a: WasmInt, b: WasmInt): WasmInt {
    return this.modular(OP.i64_mul, width, a, b);
  }
  mulHighU(a: WasmInt, b: WasmInt): WasmInt {
    // Schoolbook on 32-bit halves.
    const w = this.w;
    const low = (v: WasmInt) => {
      this.push(v);
      this.cut(32);
      return this.take();
    };
    const high = (v: WasmInt) => this.shr(64, v, this.imm(32));
    const al = low(a), ah = high(a), bl = low(b), bh = high(b);
    const ll = this.binary(OP.i64_mul, al, bl);
    const hl = this.binary(OP.i64_mul, ah, bl);
    const lh = this.binary(OP.i64_mul, al, bh);
    const hh = this.binary(OP.i64_mul, ah, bh);
    // middle = hl + (ll >> 32) never overflows; then lh + low32(middle) does not either.
    const middle = this.binary(OP.i64_add, hl, high(ll));
    const second = this.binary(OP.i64_add, lh, low(middle));
    this.push(hh);
    this.push(high(middle));
    w.op(OP.i64_add);
    this.push(high(second));
    w.op(OP.i64_add);
    return this.take();
  }
  mulHighS(a: WasmInt, b: WasmInt): WasmInt {
    // high(a·b signed) = high(unsigned) − (a < 0 ? b : 0) − (b < 0 ? a : 0)
    const unsigned = this.mulHighU(a, b);
    const w = this.w;
    this.push(unsigned);
    for (const [x, y] of [[a, b], [b, a]] as const) {
      this.push(x);
      w.i64Const(63n);
      w.op(OP.i64_shr_s);
      this.push(y);
      w.op(OP.i64_and);
      w.op(OP.i64_sub);
    }
    return this.take();
  }
  divU(a: WasmInt, b: WasmInt): WasmInt {
    return this.binary(OP.i64_div_u, a, b);
  }
  remU(a: WasmInt, b: WasmInt): WasmInt {
    return this.binary(OP.i64_rem_u, a, b);
  }
  divS(a: WasmInt, b: WasmInt): WasmInt {
    return this.binary(OP.i64_div_s, a, b);
  }
  remS(a: WasmInt, b: WasmInt): WasmInt {
    return this.binary(OP.i64_rem_s, a, b);
  }
  and(a: WasmInt, b: WasmInt): WasmInt {
    return this.binary(OP.i64_and, a, b);
  }
  or(a: WasmInt, b: WasmInt): WasmInt {
    return this.binary(OP.i64_or, a, b);
  }
  xor(a: WasmInt, b: WasmInt): WasmInt {
    return this.binary(OP.i64_xor, a, b);
  }
  not(width: Width, a: WasmInt): WasmInt {
    return this.binary(OP.i64_xor, a, this.imm((1n << BigInt(width)) - 1n));
  }
  neg(width: Width, a: WasmInt): WasmInt {
    return this.sub(width, this.imm(0), a);
  }
  shl(width: Width, a: WasmInt, n: WasmInt): WasmInt {
    // For n ≥ width the bits leave through the cut, as n ≤ 63.
    return this.modular(OP.i64_shl, width, a, n);
  }
  shr(_width: Width, a: WasmInt, n: WasmInt): WasmInt {
    return this.binary(OP.i64_shr_u, a, n);
  }
  sar(width: Width, a: WasmInt, n: WasmInt): WasmInt {
    this.push(a);
    this.signExtend(width);
    this.push(n);
    this.w.op(OP.i64_shr_s);
    this.cut(width);
    return this.take();
  }
  rotl(width: Width, a: WasmInt, n: WasmInt): WasmInt {
    if (width === 64) return this.binary(OP.i64_rotl, a, n);
    return this.#rotate(width, a, n, OP.i64_shl, OP.i64_shr_u);
  }
  rotr(width: Width, a: WasmInt, n: WasmInt): WasmInt {
    if (width === 64) return this.binary(OP.i64_rotr, a, n);
    return this.#rotate(width, a, n, OP.i64_shr_u, OP.i64_shl);
  }
  #rotate(width: Width, a: WasmInt, n: WasmInt, one: number, other: number): WasmInt {
    const w = this.w;
    this.push(a);
    this.push(n);
    w.op(one);
    this.push(a);
    w.i64Const(BigInt(width));
    this.push(n);
    w.op(OP.i64_sub);
    w.op(other);
    w.op(OP.i64_or);
    this.cut(width);
    return this.take();
  }
  bswap(width: 32 | 64, a: WasmInt): WasmInt {
    const w = this.w;
    const swapPairs = (v: WasmInt, mask: bigint, by: number): WasmInt => {
      this.push(v);
      w.i64Const(BigInt(by));
      w.op(OP.i64_shr_u);
      w.i64Const(mask);
      w.op(OP.i64_and);
      this.push(v);
      w.i64Const(mask);
      w.op(OP.i64_and);
      w.i64Const(BigInt(by));
      w.op(OP.i64_shl);
      w.op(OP.i64_or);
      return this.take();
    };
    const bytes = swapPairs(a, 0x00ff_00ff_00ff_00ffn, 8);
    const words = swapPairs(bytes, 0x0000_ffff_0000_ffffn, 16);
    this.push(words);
    w.i64Const(32n);
    w.op(OP.i64_rotl);
    if (width === 32) {
      w.i64Const(32n);
      w.op(OP.i64_shr_u);
    }
    return this.take();
  }
  popcnt(a: WasmInt): WasmInt {
    return this.unary(OP.i64_popcnt, a);
  }
  clz(width: Width, a: WasmInt): WasmInt {
    this.push(a);
    this.w.op(OP.i64_clz);
    if (width < 64) {
      this.w.i64Const(BigInt(64 - width));
      this.w.op(OP.i64_sub);
    }
    return this.take();
  }
  ctz(width: Width, a: WasmInt): WasmInt {
    this.push(a);
    if (width < 64) {
      this.w.i64Const(1n << BigInt(width));
      this.w.op(OP.i64_or);
    }
    this.w.op(OP.i64_ctz);
    return this.take();
  }
  zx(width: Width, a: WasmInt): WasmInt {
    if (width === 64) return a;
    this.push(a);
    this.cut(width);
    return this.take();
  }
  sx(from: Width, to: Width, a: WasmInt): WasmInt {
    this.push(a);
    this.signExtend(from);
    this.cut(to);
    return this.take();
  }

  // ---- conditions

  protected compare(code: number, a: WasmInt, b: WasmInt): WasmCond {
    this.push(a);
    this.push(b);
    this.w.op(code);
    return this.takeC();
  }
  eq(a: WasmInt, b: WasmInt): WasmCond {
    return this.compare(OP.i64_eq, a, b);
  }
  ne(a: WasmInt, b: WasmInt): WasmCond {
    return this.compare(OP.i64_ne, a, b);
  }
  ltU(a: WasmInt, b: WasmInt): WasmCond {
    return this.compare(OP.i64_lt_u, a, b);
  }
  leU(a: WasmInt, b: WasmInt): WasmCond {
    return this.compare(OP.i64_le_u, a, b);
  }
  ltS(width: Width, a: WasmInt, b: WasmInt): WasmCond {
    return this.signedCompare(OP.i64_lt_s, width, a, b);
  }
  protected signedCompare(code: number, width: Width, a: WasmInt, b: WasmInt): WasmCond {
    this.push(a);
    this.signExtend(width);
    this.push(b);
    this.signExtend(width);
    this.w.op(code);
    return this.takeC();
  }
  bit(a: WasmInt, n: number): WasmCond {
    const w = this.w;
    this.push(a);
    w.i64Const(BigInt(n));
    w.op(OP.i64_shr_u);
    w.op(OP.i32_wrap_i64);
    w.i32Const(1);
    w.op(OP.i32_and);
    return this.takeC();
  }
  notC(c: WasmCond): WasmCond {
    if (c.constant !== undefined) return this.always(!c.constant);
    this.pushC(c);
    this.w.op(OP.i32_eqz);
    return this.takeC();
  }
  protected binaryC(code: number, a: WasmCond, b: WasmCond): WasmCond {
    this.pushC(a);
    this.pushC(b);
    this.w.op(code);
    return this.takeC();
  }
  andC(a: WasmCond, b: WasmCond): WasmCond {
    return this.binaryC(OP.i32_and, a, b);
  }
  orC(a: WasmCond, b: WasmCond): WasmCond {
    return this.binaryC(OP.i32_or, a, b);
  }
  xorC(a: WasmCond, b: WasmCond): WasmCond {
    return this.binaryC(OP.i32_xor, a, b);
  }
  always(value: boolean): WasmCond {
    return { local: -1, constant: value };
  }
  toInt(c: WasmCond): WasmInt {
    this.pushC(c);
    this.w.op(OP.i64_extend_i32_u);
    return this.take();
  }
  select(c: WasmCond, a: WasmInt, b: WasmInt): WasmInt {
    this.push(a);
    this.push(b);
    this.pushC(c);
    this.w.op(OP.select);
    return this.take();
  }
}
