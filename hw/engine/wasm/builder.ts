/**
 * The builder of descriptions (hw/isa/builder.ts) that writes wasm: values are locals, operands come from the decoded record.
 *
 * Room: `hw/engine/wasm/`; imports its base, the vector part and the types of `hw/isa/`.
 *
 * Status flags are kept as flags.ts says. Within one handler the builder also remembers which operation set them last, so
 * that in a fused handler (CMP + Jcc) a condition is a comparison of the operands.
 *
 * @module
 */
import { EXIT_FAULT, REC, RFLAGS_STATUS, S, SEG } from "../../state.ts";
import type { Builder, FlagName, Variable, Width } from "../../isa/builder.ts";
import type { Form, Operand } from "../../isa/form.ts";
import { OP, T } from "./emit.ts";
import { P, slotOffset, type WasmCond, type WasmInt, type WasmVec } from "./base.ts";
import { WasmVector } from "./vector.ts";

const LOAD: Readonly<Record<Width, number>> = {
  8: OP.i64_load8_u,
  16: OP.i64_load16_u,
  32: OP.i64_load32_u,
  64: OP.i64_load,
};
const STORE: Readonly<Record<Width, number>> = {
  8: OP.i64_store8,
  16: OP.i64_store16,
  32: OP.i64_store32,
  64: OP.i64_store,
};

/** What an imported procedure gives: go on. */
export const PROCEDURE_DONE = 0;
/** It did not complete; why stands in S.EXIT. */
export const PROCEDURE_FAULT = 1;
/** It completed, and the run loop must look before the next instruction. */
export const PROCEDURE_END = 2;

/** What set the flags last within this handler. */
type LastFlags =
  | {
    readonly kind: "add" | "sub";
    readonly w: Width;
    readonly a: WasmInt;
    readonly b: WasmInt;
    readonly r: WasmInt;
  }
  | { readonly kind: "logic" | "inc" | "dec"; readonly w: Width; readonly r: WasmInt };

/** Writes wasm for descriptions; one per module being written. */
export class WasmBuilder extends WasmVector implements Builder<WasmInt, WasmCond, WasmVec> {
  #last: LastFlags | undefined;
  /** Open branches; flags known at the join are those known before and unchanged. */
  #flagsEpoch = 0;

  /** Names of procedures that the module's handlers call, each imported as `proc:NAME`. */
  readonly procedures = new Set<string>();

  /** Forgets what set the flags: a new handler begins. */
  forgetFlags(): void {
    this.#last = undefined;
  }

  get dataSegment(): number {
    return this.form.segment >= 0 ? this.form.segment : SEG.DS;
  }
  /** True once the description has left the instruction on its straight path. */
  get hasLeft(): boolean {
    return this.left;
  }

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

  read(o: Operand): WasmInt {
    const w = this.w;
    const width = o.width as Width;
    switch (o.kind) {
      case "reg": {
        const offset = this.pushRegisterAddress(o);
        w.memory(LOAD[width], offset);
        return this.take();
      }
      case "mem": {
        if (o.access === "rw") {
          const linear = this.operandAddress(o, width / 8, true);
          const address = this.hostAddressWrite(linear, width / 8, this.segmentNumber(o));
          this.hold(o, address);
          w.localGet(address);
          w.memory(LOAD[width]);
          return this.take();
        }
        return this.#loadLinear(this.operandAddress(o, width / 8, false), width, this.segmentNumber(o));
      }
      case "imm":
        if (o.fixed !== undefined) return this.imm(o.fixed);
        w.localGet(P.ptr);
        if (o.slot === "imm2") w.memory(OP.i64_load16_u, REC.r2);
        else w.memory(LOAD[width], REC.imm);
        return this.take();
      case "rel":
        return this.relTarget(o);
      case "far":
        w.localGet(P.ptr);
        w.memory(OP.i64_load, REC.imm);
        return this.take();
      case "xmm":
      case "mm": {
        const offset = this.pushRegisterAddress(o);
        w.memory(width >= 64 ? OP.i64_load : LOAD[width], offset);
        return this.take();
      }
      default: // st, seg, cr, dr
        return this.registerNumber(o);
    }
  }

  write(o: Operand, value: WasmInt): void {
    const w = this.w;
    const width = o.width as Width;
    if (o.kind === "reg") {
      const offset = this.pushRegisterAddress(o);
      this.push(value);
      w.memory(width === 32 ? OP.i64_store : STORE[width], offset);
      return;
    }
    if (o.kind === "xmm" || o.kind === "mm") {
      const offset = this.pushRegisterAddress(o);
      this.push(value);
      w.memory(width >= 64 ? OP.i64_store : STORE[width], offset);
      return;
    }
    if (o.kind !== "mem") throw new Error(`Cannot write operand ${o.index} of ${this.form.key}`);
    const held = this.held(o);
    if (held !== undefined) {
      w.localGet(held);
      this.push(value);
      w.memory(STORE[width]);
      this.finishWrite(held);
      return;
    }
    this.#storeLinear(this.operandAddress(o, width / 8, true), width, this.segmentNumber(o), value);
  }

  reg(width: Width, n: number): WasmInt {
    this.w.localGet(P.base);
    this.w.memory(LOAD[width], S.GPR + n * 8);
    return this.take();
  }
  setReg(width: Width, n: number, value: WasmInt): void {
    this.setState(S.GPR + n * 8, width === 32 ? 64 : width, value);
  }
  state(offset: number, width: Width): WasmInt {
    this.w.localGet(P.base);
    this.w.memory(LOAD[width], offset);
    return this.take();
  }
  setState(offset: number, width: Width, value: WasmInt): void {
    this.w.localGet(P.base);
    this.push(value);
    this.w.memory(STORE[width], offset);
  }

  // ---- arithmetic

  #binary(code: number, a: WasmInt, b: WasmInt): WasmInt {
    this.push(a);
    this.push(b);
    this.w.op(code);
    return this.take();
  }
  #unary(code: number, a: WasmInt): WasmInt {
    this.push(a);
    this.w.op(code);
    return this.take();
  }
  /** Cuts the i64 on the stack to `width` bits. */
  #cut(width: number): void {
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
  #signExtend(width: number): void {
    if (width === 32) this.w.op(OP.i64_extend32_s);
    else if (width === 16) this.w.op(OP.i64_extend16_s);
    else if (width === 8) this.w.op(OP.i64_extend8_s);
  }
  #modular(code: number, width: Width, a: WasmInt, b: WasmInt): WasmInt {
    this.push(a);
    this.push(b);
    this.w.op(code);
    this.#cut(width);
    return this.take();
  }
  add(width: Width, a: WasmInt, b: WasmInt): WasmInt {
    return this.#modular(OP.i64_add, width, a, b);
  }
  sub(width: Width, a: WasmInt, b: WasmInt): WasmInt {
    return this.#modular(OP.i64_sub, width, a, b);
  }
  mul(width: Width, a: WasmInt, b: WasmInt): WasmInt {
    return this.#modular(OP.i64_mul, width, a, b);
  }
  mulHighU(a: WasmInt, b: WasmInt): WasmInt {
    // Schoolbook on 32-bit halves.
    const w = this.w;
    const low = (v: WasmInt) => {
      this.push(v);
      this.#cut(32);
      return this.take();
    };
    const high = (v: WasmInt) => this.shr(64, v, this.imm(32));
    const al = low(a), ah = high(a), bl = low(b), bh = high(b);
    const ll = this.#binary(OP.i64_mul, al, bl);
    const hl = this.#binary(OP.i64_mul, ah, bl);
    const lh = this.#binary(OP.i64_mul, al, bh);
    const hh = this.#binary(OP.i64_mul, ah, bh);
    // middle = hl + (ll >> 32) never overflows; then lh + low32(middle) does not either.
    const middle = this.#binary(OP.i64_add, hl, high(ll));
    const second = this.#binary(OP.i64_add, lh, low(middle));
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
    return this.#binary(OP.i64_div_u, a, b);
  }
  remU(a: WasmInt, b: WasmInt): WasmInt {
    return this.#binary(OP.i64_rem_u, a, b);
  }
  divS(a: WasmInt, b: WasmInt): WasmInt {
    return this.#binary(OP.i64_div_s, a, b);
  }
  remS(a: WasmInt, b: WasmInt): WasmInt {
    return this.#binary(OP.i64_rem_s, a, b);
  }
  and(a: WasmInt, b: WasmInt): WasmInt {
    return this.#binary(OP.i64_and, a, b);
  }
  or(a: WasmInt, b: WasmInt): WasmInt {
    return this.#binary(OP.i64_or, a, b);
  }
  xor(a: WasmInt, b: WasmInt): WasmInt {
    return this.#binary(OP.i64_xor, a, b);
  }
  not(width: Width, a: WasmInt): WasmInt {
    return this.#binary(OP.i64_xor, a, this.imm((1n << BigInt(width)) - 1n));
  }
  neg(width: Width, a: WasmInt): WasmInt {
    return this.sub(width, this.imm(0), a);
  }
  shl(width: Width, a: WasmInt, n: WasmInt): WasmInt {
    // For n ≥ width the bits leave through the cut, as n ≤ 63.
    return this.#modular(OP.i64_shl, width, a, n);
  }
  shr(_width: Width, a: WasmInt, n: WasmInt): WasmInt {
    return this.#binary(OP.i64_shr_u, a, n);
  }
  sar(width: Width, a: WasmInt, n: WasmInt): WasmInt {
    this.push(a);
    this.#signExtend(width);
    this.push(n);
    this.w.op(OP.i64_shr_s);
    this.#cut(width);
    return this.take();
  }
  rotl(width: Width, a: WasmInt, n: WasmInt): WasmInt {
    if (width === 64) return this.#binary(OP.i64_rotl, a, n);
    return this.#rotate(width, a, n, OP.i64_shl, OP.i64_shr_u);
  }
  rotr(width: Width, a: WasmInt, n: WasmInt): WasmInt {
    if (width === 64) return this.#binary(OP.i64_rotr, a, n);
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
    this.#cut(width);
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
    return this.#unary(OP.i64_popcnt, a);
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
    this.#cut(width);
    return this.take();
  }
  sx(from: Width, to: Width, a: WasmInt): WasmInt {
    this.push(a);
    this.#signExtend(from);
    this.#cut(to);
    return this.take();
  }

  // ---- conditions

  #compare(code: number, a: WasmInt, b: WasmInt): WasmCond {
    this.push(a);
    this.push(b);
    this.w.op(code);
    return this.takeC();
  }
  eq(a: WasmInt, b: WasmInt): WasmCond {
    return this.#compare(OP.i64_eq, a, b);
  }
  ne(a: WasmInt, b: WasmInt): WasmCond {
    return this.#compare(OP.i64_ne, a, b);
  }
  ltU(a: WasmInt, b: WasmInt): WasmCond {
    return this.#compare(OP.i64_lt_u, a, b);
  }
  leU(a: WasmInt, b: WasmInt): WasmCond {
    return this.#compare(OP.i64_le_u, a, b);
  }
  ltS(width: Width, a: WasmInt, b: WasmInt): WasmCond {
    return this.#signedCompare(OP.i64_lt_s, width, a, b);
  }
  #signedCompare(code: number, width: Width, a: WasmInt, b: WasmInt): WasmCond {
    this.push(a);
    this.#signExtend(width);
    this.push(b);
    this.#signExtend(width);
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
  #binaryC(code: number, a: WasmCond, b: WasmCond): WasmCond {
    this.pushC(a);
    this.pushC(b);
    this.w.op(code);
    return this.takeC();
  }
  andC(a: WasmCond, b: WasmCond): WasmCond {
    return this.#binaryC(OP.i32_and, a, b);
  }
  orC(a: WasmCond, b: WasmCond): WasmCond {
    return this.#binaryC(OP.i32_or, a, b);
  }
  xorC(a: WasmCond, b: WasmCond): WasmCond {
    return this.#binaryC(OP.i32_xor, a, b);
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

  // ---- status flags

  /** FRES := r sign-extended; then FCV := the i64 that `vector` pushes. */
  #storeFlags(width: Width, r: WasmInt, vector: () => void): void {
    const w = this.w;
    this.effects.sets = true;
    if (this.flagsAreDead) return;
    w.localGet(P.base);
    this.push(r);
    this.#signExtend(width);
    w.memory(OP.i64_store, S.FRES);
    w.localGet(P.base);
    vector();
    w.memory(OP.i64_store, S.FCV);
  }
  /** Turns the carry vector in `vector` into FCV's form and pushes it. */
  #pushCarryForm(width: Width, vector: WasmInt): void {
    const w = this.w;
    this.push(vector);
    if (width === 64) {
      w.i64Const(0xc000_0000_0000_0008n);
      w.op(OP.i64_and);
      return;
    }
    w.i64Const(BigInt(64 - width));
    w.op(OP.i64_shl);
    w.i64Const(0xc000_0000_0000_0000n);
    w.op(OP.i64_and);
    this.push(vector);
    w.i64Const(8n);
    w.op(OP.i64_and);
    w.op(OP.i64_or);
  }
  /** All six flags are set here; certain only outside any branch. */
  #setsAll(): void {
    this.effects.sets = true;
    if (this.#flagsEpoch === 0) this.effects.kills = true;
  }
  #known(last: LastFlags): void {
    this.#last = this.#flagsEpoch === 0 ? last : undefined;
  }
  flagsAdd(width: Width, a: WasmInt, b: WasmInt, r: WasmInt): void {
    this.#setsAll();
    if (this.flagsAreDead) return;
    // carry out of each bit: (a & b) | ((a | b) & ~r)
    const w = this.w;
    this.push(a);
    this.push(b);
    w.op(OP.i64_and);
    this.push(a);
    this.push(b);
    w.op(OP.i64_or);
    this.push(r);
    w.i64Const(-1n);
    w.op(OP.i64_xor);
    w.op(OP.i64_and);
    w.op(OP.i64_or);
    const vector = this.take();
    this.#storeFlags(width, r, () => this.#pushCarryForm(width, vector));
    this.#known({ kind: "add", w: width, a, b, r });
  }
  flagsSub(width: Width, a: WasmInt, b: WasmInt, r: WasmInt): void {
    this.#setsAll();
    if (this.flagsAreDead) return;
    // borrow into the next bit: (~a & b) | (~(a ^ b) & r)
    const w = this.w;
    this.push(a);
    w.i64Const(-1n);
    w.op(OP.i64_xor);
    this.push(b);
    w.op(OP.i64_and);
    this.push(a);
    this.push(b);
    w.op(OP.i64_xor);
    w.i64Const(-1n);
    w.op(OP.i64_xor);
    this.push(r);
    w.op(OP.i64_and);
    w.op(OP.i64_or);
    const vector = this.take();
    this.#storeFlags(width, r, () => this.#pushCarryForm(width, vector));
    this.#known({ kind: "sub", w: width, a, b, r });
  }
  flagsLogic(width: Width, r: WasmInt): void {
    this.#setsAll();
    if (this.flagsAreDead) return;
    this.#storeFlags(width, r, () => this.w.i64Const(0n));
    this.#known({ kind: "logic", w: width, r });
  }
  flagsInc(width: Width, r: WasmInt): void {
    this.#flagsStep(width, r, 1n << BigInt(width - 1), 0n);
    this.#known({ kind: "inc", w: width, r });
  }
  flagsDec(width: Width, r: WasmInt): void {
    this.#flagsStep(width, r, (1n << BigInt(width - 1)) - 1n, 15n);
    this.#known({ kind: "dec", w: width, r });
  }
  /** INC and DEC: CF stays; OF if r is `overflow`; AF if the low four bits of r are `half`. */
  #flagsStep(width: Width, r: WasmInt, overflow: bigint, half: bigint): void {
    const w = this.w;
    this.effects.sets = true;
    if (this.flagsAreDead) return;
    const carry = this.and(this.state(S.FCV, 64), this.imm(1n << 63n));
    this.#storeFlags(width, r, () => {
      this.push(carry);
      this.push(carry);
      w.i64Const(1n);
      w.op(OP.i64_shr_u);
      w.op(OP.i64_or);
      this.push(r);
      w.i64Const(overflow);
      w.op(OP.i64_eq);
      w.op(OP.i64_extend_i32_u);
      w.i64Const(62n);
      w.op(OP.i64_shl);
      w.op(OP.i64_xor);
      this.push(r);
      w.i64Const(15n);
      w.op(OP.i64_and);
      w.i64Const(half);
      w.op(OP.i64_eq);
      w.op(OP.i64_extend_i32_u);
      w.i64Const(3n);
      w.op(OP.i64_shl);
      w.op(OP.i64_or);
    });
  }
  /** Pushes `c` as a 64-bit value shifted left by `n`. */
  #pushBit(c: WasmCond, n: number): void {
    this.pushC(c);
    this.w.op(OP.i64_extend_i32_u);
    this.w.i64Const(BigInt(n));
    this.w.op(OP.i64_shl);
  }
  flagsResult(width: Width, r: WasmInt, cf: WasmCond, of: WasmCond, af?: WasmCond): void {
    this.#setsAll();
    if (this.flagsAreDead) return;
    const w = this.w;
    this.#storeFlags(width, r, () => {
      this.#pushBit(cf, 63);
      this.#pushBit(cf, 62);
      w.op(OP.i64_or);
      this.#pushBit(of, 62);
      w.op(OP.i64_xor);
      if (af) {
        this.#pushBit(af, 3);
        w.op(OP.i64_or);
      }
    });
    this.#last = undefined;
  }
  setFlags(flags: { readonly [name in FlagName]?: WasmCond }): void {
    const w = this.w;
    this.#last = undefined;
    this.effects.sets = true;
    if (flags.CF && flags.PF && flags.AF && flags.ZF && flags.SF && flags.OF) this.#setsAll();
    if (this.flagsAreDead) return;
    const result = flags.ZF || flags.SF || flags.PF;
    const of = flags.OF ?? (flags.CF ? this.#flag("OF") : undefined);
    const cf = flags.CF ?? (flags.OF || result ? this.#flag("CF") : undefined);
    if (!result) {
      // CF, OF and AF have bits of their own.
      const fcv = this.variable(this.state(S.FCV, 64));
      if (cf && of) {
        w.localGet(P.base);
        this.push(fcv.get());
        w.i64Const(0x3fff_ffff_ffff_ffffn);
        w.op(OP.i64_and);
        this.#pushBit(cf, 63);
        w.op(OP.i64_or);
        this.#pushBit(cf, 62);
        this.#pushBit(of, 62);
        w.op(OP.i64_xor);
        w.op(OP.i64_or);
        w.memory(OP.i64_store, S.FCV);
      }
      if (flags.AF) {
        w.localGet(P.base);
        w.localGet(P.base);
        w.memory(OP.i64_load, S.FCV);
        w.i64Const(-9n);
        w.op(OP.i64_and);
        this.#pushBit(flags.AF, 3);
        w.op(OP.i64_or);
        w.memory(OP.i64_store, S.FCV);
      }
      return;
    }
    const zf = flags.ZF ?? this.#flag("ZF");
    const sf = flags.SF ?? this.#flag("SF");
    const pf = flags.PF ?? this.#flag("PF");
    const af = flags.AF ?? this.#flag("AF");
    const carry = cf ?? this.#flag("CF");
    const overflow = of ?? this.#flag("OF");
    // FRES := ZF ? 0 : 1, whose natural SF is 0 and natural PF is ZF; the deltas say the rest.
    w.localGet(P.base);
    this.pushC(zf);
    w.op(OP.i32_eqz);
    w.op(OP.i64_extend_i32_u);
    w.memory(OP.i64_store, S.FRES);
    w.localGet(P.base);
    this.#pushBit(carry, 63);
    this.#pushBit(carry, 62);
    this.#pushBit(overflow, 62);
    w.op(OP.i64_xor);
    w.op(OP.i64_or);
    this.#pushBit(af, 3);
    w.op(OP.i64_or);
    this.#pushBit(sf, 0);
    w.op(OP.i64_or);
    this.#pushBit(pf, 8);
    this.#pushBit(zf, 8);
    w.op(OP.i64_xor);
    w.op(OP.i64_or);
    w.memory(OP.i64_store, S.FCV);
  }

  flag(name: FlagName): WasmCond {
    this.effects.reads = true;
    return this.#flag(name);
  }
  /** A flag that is only carried over. */
  #flag(name: FlagName): WasmCond {
    switch (name) {
      case "OF":
        return this.#condition(0);
      case "CF":
        return this.#condition(2);
      case "ZF":
        return this.#condition(4);
      case "SF":
        return this.#condition(8);
      case "PF":
        return this.#condition(10);
      case "AF": {
        this.w.localGet(P.base);
        this.w.memory(OP.i32_load, S.FCV);
        this.w.i32Const(3);
        this.w.op(OP.i32_shr_u);
        this.w.i32Const(1);
        this.w.op(OP.i32_and);
        return this.takeC();
      }
    }
  }
  condition(cc: number): WasmCond {
    this.effects.reads = true;
    return this.#condition(cc);
  }
  #condition(cc: number): WasmCond {
    const positive = this.#fusedCondition(cc & ~1) ?? this.#storedCondition(cc & ~1);
    return cc & 1 ? this.notC(positive) : positive;
  }
  /** The condition from the operation that set the flags in this handler, if that is simpler. */
  #fusedCondition(cc: number): WasmCond | undefined {
    const last = this.#last;
    if (!last) return undefined;
    const zero = this.imm(0);
    if (cc === 4) return this.eq(last.r, zero);
    if (cc === 8) return this.ltS(last.w, last.r, zero);
    if (last.kind === "sub") {
      if (cc === 2) return this.ltU(last.a, last.b);
      if (cc === 6) return this.leU(last.a, last.b);
      if (cc === 12) return this.ltS(last.w, last.a, last.b);
      if (cc === 14) return this.#signedCompare(OP.i64_le_s, last.w, last.a, last.b);
    }
    if (last.kind === "add" && cc === 2) return this.ltU(last.r, last.b);
    if (last.kind === "logic") {
      if (cc === 0 || cc === 2) return this.always(false);
      if (cc === 6) return this.eq(last.r, zero);
      if (cc === 12) return this.ltS(last.w, last.r, zero);
      if (cc === 14) return this.#signedCompare(OP.i64_le_s, last.w, last.r, zero);
    }
    return undefined;
  }
  #storedCondition(cc: number): WasmCond {
    const w = this.w;
    const fres = () => {
      w.localGet(P.base);
      w.memory(OP.i64_load, S.FRES);
    };
    const fcv = () => {
      w.localGet(P.base);
      w.memory(OP.i64_load, S.FCV);
    };
    const negative = () => {
      w.i64Const(0n);
      w.op(OP.i64_lt_s);
    };
    /** Pushes a word whose top bit is OF, resp. SF. */
    const overflowWord = () => {
      fcv();
      fcv();
      w.i64Const(1n);
      w.op(OP.i64_shl);
      w.op(OP.i64_xor);
    };
    const signWord = () => {
      fres();
      fcv();
      w.i64Const(63n);
      w.op(OP.i64_shl);
      w.op(OP.i64_xor);
    };
    const orZero = () => {
      fres();
      w.op(OP.i64_eqz);
      w.op(OP.i32_or);
    };
    switch (cc) {
      case 0:
        overflowWord();
        negative();
        break;
      case 2:
        fcv();
        negative();
        break;
      case 4:
        fres();
        w.op(OP.i64_eqz);
        break;
      case 6:
        fcv();
        negative();
        orZero();
        break;
      case 8:
        signWord();
        negative();
        break;
      case 10:
        fres();
        fcv();
        w.i64Const(8n);
        w.op(OP.i64_shr_u);
        w.op(OP.i64_xor);
        w.op(OP.i32_wrap_i64);
        w.i32Const(0xff);
        w.op(OP.i32_and);
        w.op(OP.i32_popcnt);
        w.i32Const(1);
        w.op(OP.i32_and);
        w.op(OP.i32_eqz);
        break;
      default:
        signWord();
        overflowWord();
        w.op(OP.i64_xor);
        negative();
        if (cc === 14) orZero();
    }
    return this.takeC();
  }
  flagsImage(): WasmInt {
    const w = this.w;
    const shifts: readonly (readonly [FlagName, number])[] = [
      ["CF", 0],
      ["PF", 2],
      ["AF", 4],
      ["ZF", 6],
      ["SF", 7],
      ["OF", 11],
    ];
    let image = this.and(
      this.state(S.RFLAGS, 32),
      this.imm(BigInt(0xffff_ffff & ~RFLAGS_STATUS) & 0xffff_ffffn),
    );
    for (const [name, shift] of shifts) {
      const c = this.flag(name);
      this.push(image);
      this.#pushBit(c, shift);
      w.op(OP.i64_or);
      image = this.take();
    }
    return this.or(image, this.imm(2));
  }

  // ---- memory

  ea(o: Operand): WasmInt {
    return this.effectiveAddress(o);
  }
  baseIs(_o: Operand, n: number): WasmCond {
    const w = this.w;
    w.localGet(P.ptr);
    w.memory(OP.i32_load16_u, REC.base);
    w.i32Const(S.GPR + n * 8);
    w.op(OP.i32_eq);
    return this.takeC();
  }
  registerNumber(o: Operand): WasmInt {
    if (o.fixed !== undefined) return this.imm(o.fixed);
    this.w.localGet(P.ptr);
    this.w.memory(OP.i64_load16_u, slotOffset(o));
    return this.take();
  }
  farSelector(_o: Operand): WasmInt {
    this.w.localGet(P.ptr);
    this.w.memory(OP.i64_load16_u, REC.r2);
    return this.take();
  }
  #loadLinear(linear: WasmInt, width: Width, seg: number): WasmInt {
    const address = this.hostAddressRead(linear, width / 8, seg);
    this.w.localGet(address);
    this.w.memory(LOAD[width]);
    return this.take();
  }
  #storeLinear(linear: WasmInt, width: Width, seg: number, value: WasmInt): void {
    this.storeLinear(linear, width / 8, seg, (pushAddress, offset) => {
      pushAddress();
      this.push(value);
      this.w.memory(STORE[width], offset);
    });
  }
  load(seg: number, offset: WasmInt, width: Width): WasmInt {
    return this.#loadLinear(this.linearAddress(seg, offset, width / 8, false), width, seg);
  }
  store(seg: number, offset: WasmInt, width: Width, value: WasmInt): void {
    this.#storeLinear(this.linearAddress(seg, offset, width / 8, true), width, seg, value);
  }
  probeWrite(seg: number, offset: WasmInt, width: Width): void {
    this.hostAddressWrite(this.linearAddress(seg, offset, width / 8, true), width / 8, seg);
  }
  #stackOffset(delta: number): WasmInt {
    const w = this.w;
    w.localGet(P.base);
    w.memory(OP.i64_load, S.GPR + 4 * 8);
    if (delta !== 0) {
      w.i64Const(BigInt(delta));
      w.op(OP.i64_add);
    }
    if (this.form.mode !== 2) {
      w.i64Const(0xffff_ffffn);
      w.i64Const(0xffffn);
      w.localGet(P.base);
      w.memory(OP.i32_load, S.STACKMODE);
      w.op(OP.select);
      w.op(OP.i64_and);
    }
    return this.take();
  }
  stackLoad(width: Width, delta: number): WasmInt {
    return this.load(SEG.SS, this.#stackOffset(delta), width);
  }
  stackStore(width: Width, delta: number, value: WasmInt): void {
    this.store(SEG.SS, this.#stackOffset(delta), width, value);
  }
  stackAdjust(delta: WasmInt): void {
    const w = this.w;
    if (this.form.mode === 2) {
      this.setReg(64, 4, this.add(64, this.reg(64, 4), delta));
      return;
    }
    const sum = this.add(32, this.reg(32, 4), delta);
    w.localGet(P.base);
    w.memory(OP.i32_load, S.STACKMODE);
    w.open(OP.if);
    this.setReg(32, 4, sum);
    w.op(OP.else);
    this.setReg(16, 4, sum);
    w.close();
  }

  // ---- control

  if(c: WasmCond, then: () => void, otherwise?: () => void): void {
    const w = this.w;
    if (c.constant !== undefined) {
      if (c.constant) then();
      else otherwise?.();
      return;
    }
    this.pushC(c);
    w.open(OP.if);
    const before = this.#last;
    const leftBefore = this.left;
    this.#flagsEpoch++;
    then();
    const leftThen = this.left;
    let changed = this.#last !== before;
    let leftOtherwise = leftBefore;
    if (otherwise) {
      w.op(OP.else);
      this.#last = before;
      this.left = leftBefore;
      otherwise();
      changed ||= this.#last !== before;
      leftOtherwise = this.left;
    }
    this.#flagsEpoch--;
    this.#last = changed ? undefined : before;
    this.left = leftBefore || (leftThen && leftOtherwise);
    w.close();
  }
  while(c: () => WasmCond, body: () => void): void {
    const w = this.w;
    this.#last = undefined;
    this.#flagsEpoch++;
    const out = w.open(OP.block);
    const again = w.open(OP.loop);
    this.pushC(c());
    w.op(OP.i32_eqz);
    w.branch(OP.br_if, out);
    body();
    w.branch(OP.br, again);
    w.close();
    w.close();
    this.#flagsEpoch--;
    this.#last = undefined;
  }
  /** Pushes IP of this instruction (with `advance`, of the next one). */
  #pushIp(advance: boolean): void {
    const w = this.w;
    w.localGet(P.base);
    w.memory(OP.i64_load, S.RIPPAGE);
    w.localGet(P.ptr);
    w.memory(OP.i64_load16_u, REC.pageOffset);
    w.op(OP.i64_add);
    if (advance) {
      w.localGet(P.ptr);
      w.memory(OP.i64_load8_u, REC.length);
      w.op(OP.i64_add);
    }
    if (this.form.mode !== 2) this.#cut(32);
  }
  nextIp(): WasmInt {
    this.#pushIp(true);
    return this.take();
  }
  relTarget(_o: Operand): WasmInt {
    const w = this.w;
    w.localGet(P.base);
    w.memory(OP.i64_load, S.RIPPAGE);
    w.localGet(P.ptr);
    w.memory(OP.i64_load, REC.imm);
    w.op(OP.i64_add);
    this.#cut(this.form.mode === 2 ? 64 : this.form.w === 16 ? 16 : 32);
    return this.take();
  }
  checkTarget(target: WasmInt): void {
    const w = this.w;
    if (this.form.mode === 2) {
      // Canonical: bits 63:47 equal; with CR4.LA57 = 1 bits 63:56 are enough.
      const outside = (shift: number) => {
        this.push(target);
        w.i64Const(BigInt(shift));
        w.op(OP.i64_shr_s);
        w.i64Const(1n);
        w.op(OP.i64_add);
        w.i64Const(1n);
        w.op(OP.i64_gt_u);
        return this.takeC();
      };
      this.if(outside(47), () => {
        const narrow = this.notC(this.bit(this.state(S.CR4, 64), 12));
        this.faultIf(this.orC(narrow, outside(56)), 13, 0);
      });
      return;
    }
    this.faultIf(this.ltU(this.state(S.SEGLIMIT + SEG.CS * 4, 32), target), 13, 0);
  }
  jump(target: WasmInt): void {
    this.effects.exits = true;
    this.push(target);
    this.exits.jump(this.w);
    this.left = true;
  }
  jumpRel(o: Operand): void {
    this.effects.exits = true;
    if (this.form.mode !== 2) {
      const target = this.relTarget(o);
      this.checkTarget(target);
      return this.jump(target);
    }
    // A direct target is checked where it is looked up: the fetch there raises #GP(0) for a non-canonical address.
    this.exits.jumpDirect(this.w);
    this.left = true;
  }
  jumpRelIf(c: WasmCond, o: Operand): void {
    this.if(c, () => this.jumpRel(o));
    this.left = false;
  }
  again(): void {
    this.effects.exits = true;
    this.exits.again(this.w);
    this.left = true;
  }
  bulk(f: Form): void {
    // A called handler has only a copy of the budget, which the iterations would have to change.
    if (!this.exits.inline) return;
    const w = this.w;
    this.pushContext();
    w.i32Const(bulkInfo(f));
    w.call(this.host("bulk"));
    const count = this.newLocal(T.i32);
    w.localSet(count);
    w.localGet(P.budget);
    w.localGet(count);
    w.op(OP.i32_sub);
    w.localSet(P.budget);
  }
  fault(vector: number, errorCode = -1): void {
    this.effects.exits = true;
    const w = this.w;
    const set = (offset: number, value: number) => {
      w.localGet(P.base);
      w.i32Const(value);
      w.memory(OP.i32_store, offset);
    };
    set(S.FAULTVECTOR, vector);
    set(S.FAULTCODE, errorCode);
    set(S.EXIT, EXIT_FAULT);
    this.exits.fault(w);
    this.left = true;
  }
  faultIf(c: WasmCond, vector: number, errorCode = -1): void {
    this.if(c, () => this.fault(vector, errorCode));
  }

  // ---- procedures

  #callProcedure(name: string, args: readonly WasmInt[], advance: boolean): void {
    const w = this.w;
    this.effects.exits = true;
    this.effects.reads = true;
    args.forEach((value, i) => this.setState(S.ARG + i * 8, 64, value));
    w.localGet(P.base);
    this.#pushIp(advance);
    w.memory(OP.i64_store, S.RIP);
    w.localGet(P.base);
    w.localGet(P.ptr);
    w.memory(OP.i32_load8_u, REC.length);
    w.memory(OP.i32_store, S.ILEN);
    w.localGet(P.base);
    w.localGet(P.budget);
    w.localGet(P.ptr);
    w.localGet(P.entry);
    w.op(OP.i32_sub);
    w.i32Const(5);
    w.op(OP.i32_shr_u);
    w.op(OP.i32_sub);
    w.memory(OP.i32_store, S.REMAINING);
    w.localGet(P.base);
    this.procedures.add(name);
    w.call(this.module.importFunction(`proc:${name}`, [T.i32], [T.i32]));
  }
  call(name: string, ...args: WasmInt[]): void {
    this.#callProcedure(name, args, false);
    this.#last = undefined;
    this.w.i32Const(PROCEDURE_FAULT);
    this.w.op(OP.i32_eq);
    this.exits.faultIf(this.w);
  }
  callResult(name: string, ...args: WasmInt[]): WasmInt {
    this.call(name, ...args);
    return this.state(S.ARG, 64);
  }
  callEnd(name: string, ...args: WasmInt[]): void {
    const w = this.w;
    this.#callProcedure(name, args, true);
    this.#last = undefined;
    const code = this.newLocal(T.i32);
    w.localTee(code);
    w.open(OP.if);
    w.localGet(code);
    w.i32Const(PROCEDURE_FAULT);
    w.op(OP.i32_eq);
    this.exits.faultIf(w);
    this.exits.end(w);
    w.close();
    this.exits.resync(w);
    this.left = true;
  }
  linear(o: Operand): WasmInt {
    const offset = this.ea(o);
    const seg = this.segmentNumber(o);
    if (this.form.mode === 2 && seg < SEG.FS) return offset;
    const sum = this.add(64, offset, this.state(S.SEGBASE + seg * 8, 64));
    return this.form.mode === 2 ? sum : this.zx(32, sum);
  }
  segmentOf(o: Operand): WasmInt {
    return this.imm(this.segmentNumber(o));
  }
}

/** What the bulk function must know of a repeated string form: width, address size, segment, mode, kind, in one i32. */
export function bulkInfo(f: Form): number {
  const kind = f.row.mnemonic.startsWith("MOVS") ? 1 : f.row.mnemonic.startsWith("STOS") ? 2 : 0;
  return (f.w / 8) | (f.aw << 4) | ((f.segment < 0 ? 0 : f.segment) << 12) | (f.mode << 16) | (kind << 20);
}
