/**
 * Status flags of the wasm builder, kept lazily as `hw/flags.ts` says.
 *
 * Room: `hw/engine/wasm/`; a layer of {@link ./builder.ts}'s class, above the integers.
 *
 * Within one handler the builder remembers which operation set the flags last, so that in a fused handler (CMP + Jcc) a
 * condition is a comparison of the operands.
 *
 * @module
 */
import type { FlagName, Width } from "../../isa/builder.ts";
import { RFLAGS_STATUS, S } from "../../state.ts";
import { type WasmCond, type WasmInt } from "./base.ts";
import { OP } from "./emit.ts";
import { WasmIntegers } from "./integers.ts";

/** What set the flags last within this handler. */
export type LastFlags =
  | {
    readonly kind: "add" | "sub";
    readonly w: Width;
    readonly a: WasmInt;
    readonly b: WasmInt;
    readonly r: WasmInt;
  }
  | { readonly kind: "logic" | "inc" | "dec"; readonly w: Width; readonly r: WasmInt };

/** See the module's comment. */
export abstract class WasmFlags extends WasmIntegers {
  /** The operation whose operands tell the flags now; undefined where that is not certain. */
  protected last: LastFlags | undefined;
  /** Open branches; flags known at the join are those known before and unchanged. */
  protected flagsEpoch = 0;

  /** Forgets what set the flags: a new handler begins. */
  forgetFlags(): void {
    this.last = undefined;
  }

  // ---- status flags

  /** FRES := r sign-extended; then FCV := the i64 that `vector` pushes. */
  #storeFlags(width: Width, r: WasmInt, vector: () => void): void {
    this.effects.sets = true;
    if (this.flagsAreDead) return;
    this.storeFlagWord(S.FRES, () => {
      this.push(r);
      this.signExtend(width);
    });
    this.storeFlagWord(S.FCV, vector);
  }
  /** Sets S.FRES or S.FCV to the i64 that `push` pushes. */
  protected storeFlagWord(offset: number, push: () => void): void {
    this.pushBase();
    push();
    this.w.memory(OP.i64_store, offset);
  }
  /** Pushes S.FRES or S.FCV as i64. */
  protected pushFlagWord(offset: number): void {
    this.pushBase();
    this.w.memory(OP.i64_load, offset);
  }
  #flagWord(offset: number): WasmInt {
    this.pushFlagWord(offset);
    return this.take();
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
    if (this.flagsEpoch === 0) this.effects.kills = true;
  }
  #known(last: LastFlags): void {
    this.last = this.flagsEpoch === 0 ? last : undefined;
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
    const carry = this.and(this.#flagWord(S.FCV), this.imm(1n << 63n));
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
    this.last = undefined;
  }
  setFlags(flags: { readonly [name in FlagName]?: WasmCond }): void {
    const w = this.w;
    this.last = undefined;
    this.effects.sets = true;
    if (flags.CF && flags.PF && flags.AF && flags.ZF && flags.SF && flags.OF) this.#setsAll();
    if (this.flagsAreDead) return;
    const result = flags.ZF || flags.SF || flags.PF;
    const of = flags.OF ?? (flags.CF ? this.#flag("OF") : undefined);
    const cf = flags.CF ?? (flags.OF || result ? this.#flag("CF") : undefined);
    if (!result) {
      // CF, OF and AF have bits of their own.
      const fcv = this.variable(this.#flagWord(S.FCV));
      if (cf && of) {
        this.storeFlagWord(S.FCV, () => {
          this.push(fcv.get());
          w.i64Const(0x3fff_ffff_ffff_ffffn);
          w.op(OP.i64_and);
          this.#pushBit(cf, 63);
          w.op(OP.i64_or);
          this.#pushBit(cf, 62);
          this.#pushBit(of, 62);
          w.op(OP.i64_xor);
          w.op(OP.i64_or);
        });
      }
      const { AF } = flags;
      if (AF) {
        this.storeFlagWord(S.FCV, () => {
          this.pushFlagWord(S.FCV);
          w.i64Const(-9n);
          w.op(OP.i64_and);
          this.#pushBit(AF, 3);
          w.op(OP.i64_or);
        });
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
    this.storeFlagWord(S.FRES, () => {
      this.pushC(zf);
      w.op(OP.i32_eqz);
      w.op(OP.i64_extend_i32_u);
    });
    this.storeFlagWord(S.FCV, () => {
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
    });
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
        this.pushFlagWord(S.FCV);
        this.w.op(OP.i32_wrap_i64);
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
    const positive = this.fusedCondition(cc & ~1) ?? this.storedCondition(cc & ~1);
    return cc & 1 ? this.notC(positive) : positive;
  }
  /** The condition from the operation that set the flags in this handler, if that is simpler. */
  protected fusedCondition(cc: number): WasmCond | undefined {
    const last = this.last;
    if (!last) return undefined;
    const zero = this.imm(0);
    if (cc === 4) return this.eq(last.r, zero);
    if (cc === 8) return this.ltS(last.w, last.r, zero);
    if (last.kind === "sub") {
      if (cc === 2) return this.ltU(last.a, last.b);
      if (cc === 6) return this.leU(last.a, last.b);
      if (cc === 12) return this.ltS(last.w, last.a, last.b);
      if (cc === 14) return this.signedCompare(OP.i64_le_s, last.w, last.a, last.b);
    }
    if (last.kind === "add" && cc === 2) return this.ltU(last.r, last.b);
    if (last.kind === "logic") {
      if (cc === 0 || cc === 2) return this.always(false);
      if (cc === 6) return this.eq(last.r, zero);
      if (cc === 12) return this.ltS(last.w, last.r, zero);
      if (cc === 14) return this.signedCompare(OP.i64_le_s, last.w, last.r, zero);
    }
    return undefined;
  }
  protected storedCondition(cc: number): WasmCond {
    const w = this.w;
    const fres = () => this.pushFlagWord(S.FRES);
    const fcv = () => this.pushFlagWord(S.FCV);
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
}
