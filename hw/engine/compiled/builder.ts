/**
 * The builder of descriptions for compiled regions: operands are constants from decoding, general-purpose registers are wasm locals,
 * flags stay undone until somebody looks.
 *
 * Room: `hw/engine/compiled/`; a subclass of the interpreter's builder, from which it has arithmetic, vectors and the flags' formulas.
 * region_code.ts drives it, instruction by instruction, and says through {@link Flow} where control goes.
 *
 * Registers: each has a local that is right at every instruction boundary; a value read or written is remembered, so that the next
 * read costs nothing. Flags: `fk` says which operation set them last (see {@link FLAG_KIND}), and `fa`, `fb`, `fr`, `fc`, `fo` hold what
 * they are worked out from, by a function of the module, once somebody must know them. Conditions compare the operands.
 *
 * Long: registers, addresses, flags and control of one builder share what is remembered from one instruction to the next.
 *
 * @module
 */
import * as state from "../../state.ts";
import type { FlagName, Width } from "../../isa/builder.ts";
import { ripRelativeDisplacement } from "../../isa/decode.ts";
import type { Decoded, Form, Operand } from "../../isa/form.ts";
import { type Exits, P, RECORD_SHIFT, type WasmCond, type WasmInt } from "../wasm/base.ts";
import { bulkInfo, PROCEDURE_FAULT, WasmBuilder } from "../wasm/builder.ts";
import { CodeWriter, ModuleWriter, OP, T, type ValueType } from "../wasm/emit.ts";
import type { LastFlags } from "../wasm/status_flags.ts";

const { EXIT_RETRY, FTLB_READ, FTLB_WRITE, R, S, SEG } = state;

/** Parameters of a region's function, as of a called handler: record, limit, fast TLB context, processor's block. */
export const REGION_PARAMETERS = [T.i32, T.i32, T.i32, T.i32] as const;
/** Parameters of the functions that work flags out: fk, fa, fb, fr, fc, fo. */
export const FLAG_PARAMETERS = [T.i32, T.i64, T.i64, T.i64, T.i32, T.i32] as const;
/** Parameters of the functions that carry a miss out: linear address, {@link missInfo}, `left`, processor's block. */
export const MISS_PARAMETERS = [T.i64, T.i64, T.i32, T.i32] as const;

/** Values of the local `fk`. To the base add 0 … 3 for 8, 16, 32, 64 bits. */
export const FLAG_KIND = {
  /** `fa` is FCV, `fr` is FRES (see flags.ts). */
  stored: 0,
  /** Of fa + fb, fa − fb. */
  add: 1,
  sub: 5,
  /** fr = fa + fb + carry, fr = fa − fb − borrow. */
  adc: 9,
  sbb: 13,
  /** SF, ZF, PF of fr. */
  logic: 17,
  /** fr = something ± 1; `fc` is CF. */
  inc: 21,
  dec: 25,
  /** SF, ZF, PF of fr; `fc` is CF, `fo` is OF. */
  result: 29,
  count: 33,
  /** Added to one of these: but CF and OF are `fc` and `fo`. */
  patched: 64,
} as const;
/** From this value on, `fc` is CF. */
const CARRY_FROM = FLAG_KIND.inc;

/** Names of the imports that carry misses out: the first ones of a module, in this order. */
export const MISSES = ["regionLoad", "regionStore", "regionRmw"] as const;

/** A function as it stands in every module. */
interface WrittenFunction {
  readonly locals: readonly ValueType[];
  readonly code: Uint8Array;
}
/** Those of {@link ModuleFunctions}, once they are written. */
let written: readonly WrittenFunction[] | undefined;

/** Functions of a module that its regions call, by index. */
export interface ModuleFunctions {
  /** FCV and FRES of the flags. */
  readonly flags: readonly [fcv: number, fres: number];
  /** Host address of an access that missed, or 0 (stores: 0 if done). */
  readonly load: number;
  readonly store: number;
  readonly rmw: number;
}

/** How a region is left at an instruction known beforehand. */
export const EXIT_KIND = {
  /** Go on there in the interpreter, or in another region. */
  jump: 0,
  /** S.EXIT says why: a fault, or an access that must be stepped. */
  fault: 1,
  /** Too little is left of the slice. */
  budget: 2,
} as const;

/** What the local `packed` says at a static exit: the offset in the upper half, below it the kind and the instructions not counted. */
export function packExit(offset: number, uncounted: number, kind: number): bigint {
  return (BigInt(offset) << 32n) | BigInt((kind << 6) | uncounted);
}

/** Where the instructions' control goes. */
export interface Flow {
  /** Goes to an offset from the first page's first byte. */
  edge(offset: number): void;
  /** Goes to an IP that is only known when the region runs. */
  indirect(target: WasmInt): void;
}

/** Fixed locals of a region's function. */
export interface RegionLocals {
  readonly gprs: readonly number[];
  /** i64: IP of the first page's first byte. Offsets count from there. */
  readonly page: number;
  /** i32: instructions left in the slice behind this block. */
  readonly left: number;
  /** i32: entry to go to next. */
  readonly selector: number;
  /** i64: place and way of a static exit, see {@link packExit}. */
  readonly packed: number;
  /** i64: where to go on. */
  readonly ip: number;
  /** i32: what the function returns. */
  readonly code: number;
  readonly fk: number;
  readonly fa: number;
  readonly fb: number;
  readonly fr: number;
  readonly fc: number;
  readonly fo: number;
}

/** Operation that set the flags last, with its values. */
interface Setter {
  readonly kind: "add" | "sub" | "logic" | "inc" | "dec" | "result";
  readonly w: Width;
  readonly r: WasmInt;
  readonly a?: WasmInt;
  readonly b?: WasmInt;
  /** With a carry in, comparing the operands does not tell. */
  readonly carried?: boolean;
}

/** What is known about flags while writing. */
interface FlagState {
  /** Value of `fk`. */
  readonly fk: number | undefined;
  /** Who set them, but for CF and OF where these are newer. */
  readonly setter: Setter | undefined;
  /** CF and OF, where `fc` and `fo` hold them. */
  readonly cf: WasmCond | undefined;
  readonly of: WasmCond | undefined;
}
const UNKNOWN: FlagState = { fk: undefined, setter: undefined, cf: undefined, of: undefined };

const WIDTH_INDEX: Readonly<Record<Width, number>> = { 8: 0, 16: 1, 32: 2, 64: 3 };
const MASK64 = (1n << 64n) - 1n;
/** A page that an access went to, as the fast TLB has it. Whatever may fill the fast TLB makes it unknown. */
interface RememberedPage {
  /** i64: the linear page, or −1. */
  readonly tag: number;
  /** i32: host address − linear address. */
  readonly addend: number;
}

/** Base of a memory operand that is no general-purpose register. */
export const OTHER_BASE = 16;
/** Which page of those remembered is tried first: the one that accesses with the same base register went to. */
export function baseOf(decoded: Decoded): number {
  const n = (decoded.base - S.GPR) >> 3;
  return n >= 0 && n < 16 ? n : OTHER_BASE;
}
/** Key of {@link RegionBuilder.remembered}. */
export function pageKey(base: number, write: boolean): number {
  return base * 2 + (write ? 1 : 0);
}

/** Procedures that see no general-purpose register and no flag, beside those of SSE and the x87. */
const BLIND = new Set(["cpuid", "rdrand", "rdtsc", "rdtscp", "readCr"]);

/** One branch of an `if`, written apart. */
interface Branch {
  readonly code: CodeWriter;
  readonly left: boolean;
  readonly written: number;
  readonly changedFlags: boolean;
}

/** Packs what a miss must know in one i64: the offset in the upper half. */
function missInfo(bytes: number, seg: number, offset: number, behind: number): bigint {
  return (BigInt(offset) << 32n) | BigInt(bytes | (seg << 7) | (behind << 10));
}

/** See the module's comment. */
export class RegionBuilder extends WasmBuilder {
  /** Fixed locals. */
  readonly l: RegionLocals;
  /** Where control goes; set by the writer of the region. */
  flow: Flow = { edge: () => {}, indirect: () => {} };
  /** Labels of the exits: static ones, and those with `ip` and `code` set. */
  staticLabel = 0;
  leaveLabel = 0;
  /** Why the instruction can't be compiled, if it can't. */
  unsupported: string | undefined;
  /** GPRs that were read or written, as bits, and those that were written. */
  touched = 0;
  written = 0;
  /** The module's functions. */
  functions: ModuleFunctions = { flags: [0, 0], load: 0, store: 0, rmw: 0 };

  decoded!: Decoded;
  /** Offset of the instruction from the first page's first byte. */
  offset = 0;
  /** Instructions of the block from this one on: what `left` lacks here. */
  behind = 0;

  /** Pages remembered from one access to the next, by {@link pageKey}. */
  readonly remembered = new Map<number, RememberedPage>();
  /** The instruction is in a loop: remembering pays. */
  isInLoop = false;
  /** Base of the address at hand, as {@link baseOf} says. */
  #base = OTHER_BASE;
  #bound: (WasmInt | undefined)[] = [];
  #bound32: (WasmInt | undefined)[] = [];
  readonly #relative = new Map<WasmInt, number>();
  #flags: FlagState = UNKNOWN;
  /** What pushFlagWord(FCV) gives while an INC or DEC is worked out. */
  #carry: WasmInt | undefined;

  constructor(module: ModuleWriter, parameters: number = REGION_PARAMETERS.length) {
    super(module, parameters);
    const i32 = () => this.newLocal(T.i32), i64 = () => this.newLocal(T.i64);
    this.l = {
      gprs: Array.from({ length: 16 }, i64),
      page: i64(),
      left: i32(),
      selector: i32(),
      packed: i64(),
      ip: i64(),
      code: i32(),
      fk: i32(),
      fa: i64(),
      fb: i64(),
      fr: i64(),
      fc: i32(),
      fo: i32(),
    };
    this.reserveLocals();
  }

  // ---- blocks and instructions

  /** Starts a block of which nothing is known but its locals. */
  beginBlock(): void {
    this.freeLocals();
    this.#bound = [];
    this.#bound32 = [];
    this.#relative.clear();
    this.#flags = UNKNOWN;
    this.last = undefined;
  }
  /** Starts an instruction. */
  beginInstruction(w: CodeWriter, decoded: Decoded, offset: number, behind: number): void {
    this.w = w;
    this.decoded = decoded;
    this.offset = offset;
    this.behind = behind;
    this.unsupported = undefined;
    this.#relative.clear();
    this.#releaseLocals();
    this.beginDescription(decoded.form, decoded.index !== S.ZERO, this.#exits);
  }

  /** Frees the locals of values that are not remembered from one instruction to the next: V8's first compiler pays for each at each branch. */
  #releaseLocals(): void {
    const kept = new Set<number>();
    for (let n = 0; n < 16; n++) {
      const whole = this.#bound[n], low = this.#bound32[n];
      if (whole) kept.add(whole.local);
      if (low) kept.add(low.local);
    }
    const { setter, cf, of } = this.#flags;
    for (const value of [setter?.r, setter?.a, setter?.b, cf, of]) if (value) kept.add(value.local);
    this.keepLocals(kept);
  }

  readonly #exits: Exits = {
    inline: true,
    fault: () => this.exitAt(this.offset, this.behind, EXIT_KIND.fault),
    faultIf: (w) => {
      w.open(OP.if);
      this.exitAt(this.offset, this.behind, EXIT_KIND.fault);
      w.close();
    },
    jump: () => this.#refuse("jump"),
    jumpDirect: () => this.#refuse("jump"),
    end: () => this.#refuse("end"),
    resync: () => this.#refuse("end"),
    again: () => this.#refuse("again"),
    next: () => this.#refuse("next"),
  };
  #refuse(what: string): void {
    this.unsupported ??= what;
  }

  /** Leaves at `offset` of the page, where `uncounted` instructions of the block are still to come. */
  exitAt(offset: number, uncounted: number, kind: number): void {
    this.w.i64Const(packExit(offset, uncounted, kind));
    this.w.localSet(this.l.packed);
    this.w.branch(OP.br, this.staticLabel);
  }
  /** Leaves at the IP in the local `ip`. */
  leave(): void {
    this.w.i32Const(0);
    this.w.localSet(this.l.code);
    this.w.branch(OP.br, this.leaveLabel);
  }
  /** Leaves before the instruction, which has changed nothing, so that it is carried out alone. */
  #retryAlone(): void {
    this.setState(S.EXIT, 32, this.imm(EXIT_RETRY));
    this.exitAt(this.offset, this.behind, EXIT_KIND.fault);
  }

  // ---- constants

  protected override binary(code: number, a: WasmInt, b: WasmInt): WasmInt {
    const folded = fold(code, a.constant, b.constant);
    if (folded !== undefined) return this.constant(folded);
    if (b.constant === 0n && NEUTRAL_ZERO.has(code)) return a;
    return super.binary(code, a, b);
  }
  protected override modular(code: number, width: Width, a: WasmInt, b: WasmInt): WasmInt {
    const folded = fold(code, a.constant, b.constant);
    if (folded !== undefined) return this.constant(folded & ((1n << BigInt(width)) - 1n));
    if (b.constant === 0n && NEUTRAL_ZERO.has(code)) return a;
    if (width === 32) {
      const short = code === OP.i64_shl && (b.constant === undefined || b.constant > 31n)
        ? undefined
        : SHORT.get(code);
      if (short !== undefined) return this.#short(short, a, b);
    }
    return super.modular(code, width, a, b);
  }
  /** An operation on 32 bits, which the machine below has too. */
  #short(code: number, a: WasmInt, b: WasmInt): WasmInt {
    this.push32(a);
    this.push32(b);
    this.w.op(code);
    this.w.op(OP.i64_extend_i32_u);
    return this.take();
  }
  override rotl(width: Width, a: WasmInt, n: WasmInt): WasmInt {
    return width === 32 ? this.#short(OP.i32_rotl, a, n) : super.rotl(width, a, n);
  }
  override rotr(width: Width, a: WasmInt, n: WasmInt): WasmInt {
    return width === 32 ? this.#short(OP.i32_rotr, a, n) : super.rotr(width, a, n);
  }
  protected override compare(code: number, a: WasmInt, b: WasmInt): WasmCond {
    const x = a.constant, y = b.constant;
    if (x !== undefined && y !== undefined) {
      if (code === OP.i64_eq) return this.always(x === y);
      if (code === OP.i64_ne) return this.always(x !== y);
      if (code === OP.i64_lt_u) return this.always(x < y);
      if (code === OP.i64_le_u) return this.always(x <= y);
    }
    if (y === 0n && code === OP.i64_eq) {
      this.push(a);
      this.w.op(OP.i64_eqz);
      return this.takeC();
    }
    return super.compare(code, a, b);
  }
  protected override binaryC(code: number, a: WasmCond, b: WasmCond): WasmCond {
    for (const [x, y] of [[a, b], [b, a]] as const) {
      if (x.constant === undefined) continue;
      if (code === OP.i32_and) return x.constant ? y : x;
      if (code === OP.i32_or) return x.constant ? x : y;
      return x.constant ? this.notC(y) : y;
    }
    return super.binaryC(code, a, b);
  }
  override bit(a: WasmInt, n: number): WasmCond {
    return a.constant === undefined ? super.bit(a, n) : this.always(((a.constant >> BigInt(n)) & 1n) !== 0n);
  }
  override toInt(c: WasmCond): WasmInt {
    return c.constant === undefined ? super.toInt(c) : this.imm(c.constant ? 1 : 0);
  }
  override select(c: WasmCond, a: WasmInt, b: WasmInt): WasmInt {
    return c.constant === undefined ? super.select(c, a, b) : c.constant ? a : b;
  }
  override zx(width: Width, a: WasmInt): WasmInt {
    return a.constant === undefined
      ? super.zx(width, a)
      : this.constant(a.constant & ((1n << BigInt(width)) - 1n));
  }
  override sx(from: Width, to: Width, a: WasmInt): WasmInt {
    if (a.constant === undefined) return super.sx(from, to, a);
    return this.constant(BigInt.asIntN(from, a.constant) & ((1n << BigInt(to)) - 1n));
  }

  // ---- registers

  override reg(width: Width, n: number): WasmInt {
    this.touched |= 1 << n;
    if (width === 32) return this.#bound32[n] ??= this.zx(32, this.#whole(n));
    return this.zx(width, this.#whole(n));
  }
  #whole(n: number): WasmInt {
    const known = this.#bound[n];
    if (known !== undefined) return known;
    this.w.localGet(this.l.gprs[n]!);
    return this.#bound[n] = this.take();
  }
  override setReg(width: Width, n: number, value: WasmInt): void {
    this.touched |= 1 << n;
    this.written |= 1 << n;
    this.#branchWritten |= 1 << n;
    const w = this.w, local = this.l.gprs[n]!;
    let whole = value;
    if (width < 32) {
      const old = this.#whole(n);
      this.push(old);
      w.i64Const(width === 8 ? ~0xffn : ~0xffffn);
      w.op(OP.i64_and);
      this.push(value);
      w.op(OP.i64_or);
      whole = this.take();
    }
    this.push(whole);
    w.localSet(local);
    this.#bound[n] = whole;
    this.#bound32[n] = width === 32 ? whole : undefined;
  }
  /** Number of the general-purpose register at an offset of the processor's block, which may be that of AH … BH. */
  #gprAt(offset: number): number {
    return (offset - S.GPR) >> 3;
  }
  #operandOffset(o: Operand): number {
    if (o.fixed !== undefined) {
      return o.kind === "xmm"
        ? S.XMM + o.fixed * 16
        : o.kind === "mm"
        ? S.FPR + o.fixed * 16
        : S.GPR + o.fixed * 8;
    }
    const { decoded } = this;
    return o.slot === "r0" ? decoded.r0 : o.slot === "r1" ? decoded.r1 : decoded.r2;
  }
  override pushRegisterAddress(o: Operand): number {
    this.pushBase();
    return this.#operandOffset(o);
  }
  #immediate(width: number): WasmInt {
    const { immLow, immHigh } = this.decoded;
    const value = (BigInt(immHigh) << 32n) | BigInt(immLow >>> 0);
    return this.constant(BigInt.asUintN(width, value));
  }

  override read(o: Operand): WasmInt {
    const width = o.width as Width;
    switch (o.kind) {
      case "reg": {
        const at = this.#operandOffset(o), n = this.#gprAt(at);
        if (at & 7) return this.zx(8, this.shr(64, this.reg(64, n), this.imm(8)));
        return this.reg(width, n);
      }
      case "imm":
        if (o.fixed !== undefined) return this.imm(o.fixed);
        return o.slot === "imm2" ? this.imm(this.decoded.r2) : this.#immediate(width);
      case "far":
        return this.#immediate(64);
      default:
        return super.read(o);
    }
  }
  override write(o: Operand, value: WasmInt): void {
    if (o.kind !== "reg") return super.write(o, value);
    const at = this.#operandOffset(o), n = this.#gprAt(at);
    if (!(at & 7)) return this.setReg(o.width as Width, n, value);
    const w = this.w;
    this.push(this.reg(64, n));
    w.i64Const(~0xff00n);
    w.op(OP.i64_and);
    this.push(value);
    w.i64Const(8n);
    w.op(OP.i64_shl);
    w.op(OP.i64_or);
    this.setReg(64, n, this.take());
  }
  override registerNumber(o: Operand): WasmInt {
    return this.imm(o.fixed ?? this.#operandOffset(o));
  }
  override farSelector(_o: Operand): WasmInt {
    return this.imm(this.decoded.r2);
  }
  override baseIs(_o: Operand, n: number): WasmCond {
    return this.always(this.decoded.base === S.GPR + n * 8);
  }

  // ---- addresses

  override effectiveAddress(o?: Operand): WasmInt {
    const { aw } = this.form;
    this.#base = o?.fixed ?? OTHER_BASE;
    if (o?.fixed !== undefined) return this.reg(aw, o.fixed);
    if (o?.slot === "imm") return this.#immediate(aw);
    const { decoded } = this;
    this.#base = baseOf(decoded);
    let sum: WasmInt | undefined;
    let disp = decoded.disp;
    if (decoded.base === S.RIPPAGE) {
      disp = ripRelativeDisplacement(decoded, this.offset);
      this.w.localGet(this.l.page);
      sum = this.take();
    } else if (decoded.base !== S.ZERO) sum = this.reg(64, this.#gprAt(decoded.base));
    if (decoded.index !== S.ZERO) {
      const index = this.shl(64, this.reg(64, this.#gprAt(decoded.index)), this.imm(decoded.scale));
      sum = sum === undefined ? index : this.add(64, sum, index);
    }
    const constant = this.constant(BigInt(disp));
    sum = sum === undefined ? constant : this.add(64, sum, constant);
    return this.zx(aw, sum);
  }
  override linearAddress(seg: number, offset: WasmInt, bytes: number, write: boolean): WasmInt {
    const w = this.w;
    if (this.form.mode === 2) {
      return seg < SEG.FS ? offset : this.add(64, offset, this.state(S.SEGBASE + seg * 8, 64));
    }
    this.push(offset);
    w.i64Const(BigInt(bytes - 1));
    w.op(OP.i64_add);
    this.pushBase();
    w.memory(OP.i64_load, (write ? S.SEGWMAX : S.SEGRMAX) + seg * 8);
    w.op(OP.i64_gt_s);
    w.open(OP.if);
    this.#pushPlace();
    this.push32(offset);
    w.i32Const(seg);
    w.i32Const(bytes | (write ? 0x1_0000 : 0));
    w.call(this.host("regionSegCheck"));
    this.exits.faultIf(w);
    w.close();
    return this.zx(32, this.add(64, offset, this.state(S.SEGBASE + seg * 8, 64)));
  }

  /** Pushes base, the instruction's offset in its page, and what is left of the slice at it. */
  #pushPlace(): void {
    const w = this.w;
    this.pushBase();
    w.i32Const(this.offset);
    w.localGet(this.l.left);
    w.i32Const(this.behind);
    w.op(OP.i32_add);
  }
  /** Pushes 1 if the access hits the fast TLB; gives a local with the entry's address. */
  #probe(linear: WasmInt, bytes: number, table: number): number {
    const w = this.w;
    const entry = this.newLocal(T.i32);
    this.push(linear);
    w.i64Const(8n);
    w.op(OP.i64_shr_u);
    w.op(OP.i32_wrap_i64);
    w.i32Const(0x1ff0);
    w.op(OP.i32_and);
    w.localGet(P.ctx);
    w.op(OP.i32_add);
    w.localTee(entry);
    w.memory(OP.i64_load, table);
    this.push(linear);
    if (bytes > 1) {
      w.i64Const(BigInt(bytes - 1));
      w.op(OP.i64_add);
    }
    w.i64Const(-4096n);
    w.op(OP.i64_and);
    w.op(OP.i64_eq);
    return entry;
  }
  #pushHit(linear: WasmInt, entry: number, table: number): void {
    this.w.localGet(entry);
    this.w.memory(OP.i32_load, table + 8);
    this.push32(linear);
    this.w.op(OP.i32_add);
  }
  /** Calls one of the module's functions for misses. */
  #miss(index: number, linear: WasmInt, bytes: number, seg: number): void {
    const w = this.w;
    this.effects.exits = true;
    this.push(linear);
    w.i64Const(missInfo(bytes, seg, this.offset, this.behind));
    w.localGet(this.l.left);
    this.pushBase();
    w.call(index);
  }
  /** After something that may have filled the fast TLB: what is remembered of it may be gone there. */
  #forgetPages(): void {
    if (this.remembered.size === 0) return;
    const w = this.w;
    w.i64Const(-1n);
    const tags = [...this.remembered.values()].map(({ tag }) => tag);
    tags.forEach((tag, i) => i === tags.length - 1 ? w.localSet(tag) : w.localTee(tag));
  }
  /** Starts a region: remembers the pages of these bases (see {@link baseOf}) from one access to the next. */
  rememberPages(keys: readonly number[]): void {
    for (const key of keys) {
      this.remembered.set(key, { tag: this.newLocal(T.i64), addend: this.newLocal(T.i32) });
    }
    this.reserveLocals();
  }
  #rememberedPage(table: number): RememberedPage | undefined {
    return this.isInLoop ? this.remembered.get(pageKey(this.#base, table === FTLB_WRITE)) : undefined;
  }
  #translate(linear: WasmInt, bytes: number, seg: number, table: number, slow: number): number {
    const w = this.w;
    const address = this.newLocal(T.i32);
    const page = this.#rememberedPage(table);
    if (page !== undefined) {
      const done = w.open(OP.block);
      this.#tryPage(page, linear, bytes, table);
      this.#miss(slow, linear, bytes, seg);
      w.localTee(address);
      w.op(OP.i32_eqz);
      this.exits.faultIf(w);
      this.#forgetPages();
      w.branch(OP.br, done);
      w.close();
      w.localGet(page.addend);
      this.push32(linear);
      w.op(OP.i32_add);
      w.localSet(address);
      w.close();
      return address;
    }
    const entry = this.#probe(linear, bytes, table);
    w.open(OP.if);
    this.#pushHit(linear, entry, table);
    w.localSet(address);
    w.op(OP.else);
    this.#miss(slow, linear, bytes, seg);
    w.localTee(address);
    w.op(OP.i32_eqz);
    this.exits.faultIf(w);
    this.#forgetPages();
    w.close();
    return address;
  }
  /** Opens a block that is left when the page is the remembered one, or the fast TLB has it; else control goes on inside. */
  #tryPage(page: RememberedPage, linear: WasmInt, bytes: number, table: number): void {
    const w = this.w;
    const hit = w.open(OP.block);
    const current = this.newLocal(T.i64), entry = this.newLocal(T.i32);
    this.push(linear);
    if (bytes > 1) {
      w.i64Const(BigInt(bytes - 1));
      w.op(OP.i64_add);
    }
    w.i64Const(-4096n);
    w.op(OP.i64_and);
    w.localTee(current);
    w.localGet(page.tag);
    w.op(OP.i64_eq);
    w.branch(OP.br_if, hit);
    this.push(linear);
    w.i64Const(8n);
    w.op(OP.i64_shr_u);
    w.op(OP.i32_wrap_i64);
    w.i32Const(0x1ff0);
    w.op(OP.i32_and);
    w.localGet(P.ctx);
    w.op(OP.i32_add);
    w.localTee(entry);
    w.memory(OP.i64_load, table);
    w.localGet(current);
    w.op(OP.i64_eq);
    w.open(OP.if);
    w.localGet(current);
    w.localSet(page.tag);
    w.localGet(entry);
    w.memory(OP.i32_load, table + 8);
    w.localSet(page.addend);
    w.branch(OP.br, hit);
    w.close();
  }
  override hostAddressRead(linear: WasmInt, bytes: number, seg: number): number {
    return this.#translate(linear, bytes, seg, FTLB_READ, this.functions.load);
  }
  override hostAddressWrite(linear: WasmInt, bytes: number, seg: number): number {
    return this.#translate(linear, bytes, seg, FTLB_WRITE, this.functions.rmw);
  }
  override storeLinear(
    linear: WasmInt,
    bytes: number,
    seg: number,
    emitStore: (pushAddress: () => void, offset: number) => void,
  ): void {
    const w = this.w;
    const miss = () => {
      emitStore(() => this.pushBase(), S.SPILL);
      this.#miss(this.functions.store, linear, bytes, seg);
      this.exits.faultIf(w);
      this.#forgetPages();
    };
    const page = this.#rememberedPage(FTLB_WRITE);
    if (page !== undefined) {
      const done = w.open(OP.block);
      this.#tryPage(page, linear, bytes, FTLB_WRITE);
      miss();
      w.branch(OP.br, done);
      w.close();
      emitStore(() => {
        w.localGet(page.addend);
        this.push32(linear);
        w.op(OP.i32_add);
      }, 0);
      w.close();
      return;
    }
    const entry = this.#probe(linear, bytes, FTLB_WRITE);
    w.open(OP.if);
    emitStore(() => this.#pushHit(linear, entry, FTLB_WRITE), 0);
    w.op(OP.else);
    miss();
    w.close();
  }
  override stackLoad(width: Width, delta: number): WasmInt {
    this.#base = R.RSP;
    return super.stackLoad(width, delta);
  }
  override stackStore(width: Width, delta: number, value: WasmInt): void {
    this.#base = R.RSP;
    super.stackStore(width, delta, value);
  }
  override stackAdjust(delta: WasmInt): void {
    if (this.form.mode === 2) return super.stackAdjust(delta);
    const sum = this.add(32, this.reg(32, R.RSP), delta);
    this.if(
      this.ne(this.state(S.STACKMODE, 32), this.imm(0)),
      () => this.setReg(32, R.RSP, sum),
      () => this.setReg(16, R.RSP, this.zx(16, sum)),
    );
  }

  // ---- flags

  #set64(local: number, value: WasmInt): void {
    this.push(value);
    this.w.localSet(local);
  }
  #setC(local: number, value: WasmCond): void {
    this.pushC(value);
    this.w.localSet(local);
  }
  #setKind(fk: number): void {
    this.w.i32Const(fk);
    this.w.localSet(this.l.fk);
  }
  #setsAll(): void {
    this.effects.sets = true;
    if (this.flagsEpoch === 0) this.effects.kills = true;
  }
  /** The operation has set the flags; what it does not give is in the locals already. */
  #setBy(setter: Setter, cf?: WasmCond, of?: WasmCond): void {
    const { l } = this;
    if (setter.a) this.#set64(l.fa, setter.a);
    if (setter.b) this.#set64(l.fb, setter.b);
    const kind = setter.carried ? setter.kind === "add" ? "adc" : "sbb" : setter.kind;
    if (kind !== "add" && kind !== "sub") this.#set64(l.fr, setter.r);
    const fk = FLAG_KIND[kind] + WIDTH_INDEX[setter.w];
    this.#setKind(fk);
    this.#know({ fk, setter, cf, of });
  }
  #know(flags: FlagState): void {
    this.#flags = flags;
    const { setter } = flags;
    this.last = setter === undefined || setter.carried || setter.kind === "result" || flags.cf !== undefined
      ? undefined
      : lastOf(setter);
  }
  override flagsAdd(w: Width, a: WasmInt, b: WasmInt, r: WasmInt): void {
    this.#setsAll();
    if (!this.flagsAreDead) {
      this.#setBy({ kind: "add", w, a, b, r, carried: this.form.row.mnemonic === "ADC" });
    }
  }
  override flagsSub(w: Width, a: WasmInt, b: WasmInt, r: WasmInt): void {
    this.#setsAll();
    if (!this.flagsAreDead) {
      this.#setBy({ kind: "sub", w, a, b, r, carried: this.form.row.mnemonic === "SBB" });
    }
  }
  override flagsLogic(w: Width, r: WasmInt): void {
    this.#setsAll();
    if (!this.flagsAreDead) this.#setBy({ kind: "logic", w, r });
  }
  override flagsInc(w: Width, r: WasmInt): void {
    this.#step("inc", w, r);
  }
  override flagsDec(w: Width, r: WasmInt): void {
    this.#step("dec", w, r);
  }
  /** INC and DEC keep CF. */
  #step(kind: "inc" | "dec", w: Width, r: WasmInt): void {
    this.effects.sets = true;
    if (this.flagsAreDead) return;
    const cf = this.#carryInPlace();
    this.#setBy({ kind, w, r }, cf);
  }
  /** Sees to it that `fc` is CF; gives its value if it is known. */
  #carryInPlace(): WasmCond | undefined {
    const w = this.w, { l } = this;
    const { fk, setter, cf } = this.#flags;
    if (fk !== undefined && fk >= CARRY_FROM) return cf;
    if (setter !== undefined || fk === FLAG_KIND.stored) {
      const reads = this.effects.reads;
      const now = this.condition(2);
      this.effects.reads = reads;
      this.#setC(l.fc, now);
      return now;
    }
    w.localGet(l.fk);
    w.i32Const(CARRY_FROM);
    w.op(OP.i32_lt_u);
    w.open(OP.if);
    this.#callFlags(0);
    w.i64Const(63n);
    w.op(OP.i64_shr_u);
    w.op(OP.i32_wrap_i64);
    w.localSet(l.fc);
    w.close();
    w.localGet(l.fc);
    return this.takeC();
  }
  /** Pushes FCV (0) or FRES (1). */
  #callFlags(which: 0 | 1): void {
    const w = this.w, { l } = this;
    for (const local of [l.fk, l.fa, l.fb, l.fr, l.fc, l.fo]) w.localGet(local);
    w.call(this.functions.flags[which]);
  }
  override flagsResult(w: Width, r: WasmInt, cf: WasmCond, of: WasmCond, af?: WasmCond): void {
    this.#setsAll();
    if (this.flagsAreDead) return;
    if (af !== undefined && af.constant !== false) return super.flagsResult(w, r, cf, of, af);
    this.#setC(this.l.fc, cf);
    this.#setC(this.l.fo, of);
    this.#setBy({ kind: "result", w, r }, cf, of);
  }
  override setFlags(flags: { readonly [name in FlagName]?: WasmCond }): void {
    const { CF, OF } = flags;
    this.effects.sets = true;
    if (this.flagsAreDead) {
      if (CF && OF && flags.ZF && flags.SF && flags.PF && flags.AF) this.#setsAll();
      return;
    }
    if (!CF || !OF || flags.ZF || flags.SF || flags.PF || flags.AF) return super.setFlags(flags);
    const w = this.w, { l } = this;
    this.#setC(l.fc, CF);
    this.#setC(l.fo, OF);
    let { fk } = this.#flags;
    if (fk !== undefined) this.#setKind(fk |= FLAG_KIND.patched);
    else {
      w.localGet(l.fk);
      w.i32Const(FLAG_KIND.patched);
      w.op(OP.i32_or);
      w.localSet(l.fk);
    }
    this.#know({ fk, setter: this.#flags.setter, cf: CF, of: OF });
  }
  protected override storeFlagWord(offset: number, push: () => void): void {
    push();
    if (offset === S.FRES) {
      this.w.localSet(this.l.fr);
      return;
    }
    this.w.localSet(this.l.fa);
    this.#setKind(FLAG_KIND.stored);
    this.#flags = { ...UNKNOWN, fk: FLAG_KIND.stored };
    this.last = undefined;
  }
  protected override pushFlagWord(offset: number): void {
    if (this.#carry !== undefined && offset === S.FCV) return this.push(this.#carry);
    this.#materialize();
    this.w.localGet(offset === S.FRES ? this.l.fr : this.l.fa);
  }
  /** Works FRES and FCV out, into their locals. */
  #materialize(): void {
    if (this.#flags.fk === FLAG_KIND.stored) return;
    const w = this.w, { l } = this;
    const fcv = this.newLocal(T.i64);
    this.#callFlags(0);
    w.localSet(fcv);
    this.#callFlags(1);
    w.localSet(l.fr);
    w.localGet(fcv);
    w.localSet(l.fa);
    this.#setKind(FLAG_KIND.stored);
    // Who set them still tells conditions.
    this.#flags = { ...this.#flags, fk: FLAG_KIND.stored };
  }
  protected override fusedCondition(cc: number): WasmCond | undefined {
    const { setter, cf, of } = this.#flags;
    if (cc === 0 && of) return of;
    if (cc === 2 && cf) return cf;
    if (setter === undefined) return undefined;
    const { r, w, a, b } = setter;
    const zero = () => this.eq(r, this.imm(0));
    if (cc === 4) return zero();
    if (cc === 8) return this.ltS(w, r, this.imm(0));
    if (cc === 6 && cf) return this.orC(cf, zero());
    if (setter.carried && cc === 2) {
      // The carry out of the top bit, from both operands and the result.
      const width = this.imm(w - 1);
      const one = setter.kind === "add" ? this.and(a!, b!) : this.and(this.not(64, a!), b!);
      const other = setter.kind === "add"
        ? this.and(this.or(a!, b!), this.not(64, r))
        : this.and(this.not(64, this.xor(a!, b!)), r);
      return this.bit(this.shr(64, this.or(one, other), width), 0);
    }
    return super.fusedCondition(cc);
  }
  /** Writes the module's functions. All its imports must be known, {@link MISSES} the first of them. */
  static moduleFunctions(module: ModuleWriter): ModuleFunctions {
    written ??= [RegionBuilder.#flagFunction(0), RegionBuilder.#flagFunction(1), ...MISSES.map(missFunction)];
    const flagType = module.type(FLAG_PARAMETERS, [T.i64]), missType = module.type(MISS_PARAMETERS, [T.i32]);
    const [fcv, fres, load, store, rmw] = written.map(({ locals, code }, i) =>
      module.define(i < 2 ? flagType : missType, locals, code)
    );
    return { flags: [fcv!, fres!], load: load!, store: store!, rmw: rmw! };
  }
  /** Works out FCV (0) or FRES (1) from fk, fa, fb, fr, fc, fo. */
  static #flagFunction(which: 0 | 1): WrittenFunction {
    const b = new RegionBuilder(new ModuleWriter(false), FLAG_PARAMETERS.length);
    const w = new CodeWriter();
    b.w = w;
    const { l } = b;
    const [fk, fa, fb, fr, fc, fo] = [0, 1, 2, 3, 4, 5];
    const value = (local: number): WasmInt => ({ local, constant: undefined });
    const cond = (local: number): WasmCond => ({ local, constant: undefined });
    w.localGet(fr);
    w.localSet(l.fr);
    const done = w.open(OP.block);
    for (let k = FLAG_KIND.count - 1; k >= 0; k--) w.open(OP.block);
    w.localGet(fk);
    w.i32Const(FLAG_KIND.patched - 1);
    w.op(OP.i32_and);
    w.op(OP.br_table);
    w.u32(FLAG_KIND.count - 1);
    for (let k = 0; k < FLAG_KIND.count; k++) w.u32(k);
    for (let k = 0; k < FLAG_KIND.count; k++) {
      w.close();
      b.beginBlock();
      b.effects = { reads: false, kills: false, sets: false, exits: false };
      b.flagsAreDead = false;
      const width = ([8, 16, 32, 64] as const)[(k - 1) & 3]!;
      switch (k === 0 ? -1 : (k - 1) >> 2) {
        case -1:
          w.localGet(fa);
          w.localSet(l.fa);
          break;
        case 0:
          b.#workOut(() => b.superAdd(width, value(fa), value(fb), b.add(width, value(fa), value(fb))));
          break;
        case 1:
          b.#workOut(() => b.superSub(width, value(fa), value(fb), b.sub(width, value(fa), value(fb))));
          break;
        case 2:
          b.#workOut(() => b.superAdd(width, value(fa), value(fb), value(fr)));
          break;
        case 3:
          b.#workOut(() => b.superSub(width, value(fa), value(fb), value(fr)));
          break;
        case 4:
          b.#workOut(() => b.superLogic(width, value(fr)));
          break;
        case 5:
        case 6:
          w.localGet(fc);
          w.op(OP.i64_extend_i32_u);
          w.i64Const(63n);
          w.op(OP.i64_shl);
          b.#carry = b.take();
          b.#workOut(() => b.superStep(k < FLAG_KIND.dec, width, value(fr)));
          b.#carry = undefined;
          break;
        default:
          b.#workOut(() => b.superResult(width, value(fr), cond(fc), cond(fo)));
      }
      w.branch(OP.br, done);
    }
    w.close();
    if (which === 0) {
      w.localGet(fk);
      w.i32Const(FLAG_KIND.patched);
      w.op(OP.i32_and);
      w.open(OP.if);
      b.#flags = { ...UNKNOWN, fk: FLAG_KIND.stored };
      b.superSetFlags({ CF: cond(fc), OF: cond(fo) });
      w.close();
    }
    w.localGet(which === 0 ? l.fa : l.fr);
    w.op(OP.end);
    return { locals: b.locals, code: w.bytes().slice() };
  }
  #workOut(formula: () => void): void {
    formula();
    this.#flags = UNKNOWN;
  }
  // The formulas of the layer below, which is closed to static members.
  private superAdd(w: Width, a: WasmInt, b: WasmInt, r: WasmInt): void {
    super.flagsAdd(w, a, b, r);
  }
  private superSub(w: Width, a: WasmInt, b: WasmInt, r: WasmInt): void {
    super.flagsSub(w, a, b, r);
  }
  private superLogic(w: Width, r: WasmInt): void {
    super.flagsLogic(w, r);
  }
  private superStep(up: boolean, w: Width, r: WasmInt): void {
    if (up) super.flagsInc(w, r);
    else super.flagsDec(w, r);
  }
  private superResult(w: Width, r: WasmInt, cf: WasmCond, of: WasmCond): void {
    super.flagsResult(w, r, cf, of);
  }
  private superSetFlags(flags: { readonly [name in FlagName]?: WasmCond }): void {
    super.setFlags(flags);
  }

  // ---- control

  #branchWritten = 0;

  /** Writes one branch apart, so that what it changes is known before the `if` is written. */
  #branch(outer: CodeWriter, body: () => void): Branch {
    const code = new CodeWriter();
    code.depth = outer.depth + 1;
    const bound = this.#bound.slice(), bound32 = this.#bound32.slice();
    const flags = this.#flags, last = this.last, left = this.left, writtenBefore = this.#branchWritten;
    this.w = code;
    this.left = false;
    this.#branchWritten = 0;
    this.flagsEpoch++;
    body();
    this.flagsEpoch--;
    const result = {
      code,
      left: this.left,
      written: this.#branchWritten,
      changedFlags: this.#flags !== flags,
    };
    this.w = outer;
    this.left = left;
    this.#branchWritten = writtenBefore;
    this.#bound = bound;
    this.#bound32 = bound32;
    this.#flags = flags;
    this.last = last;
    return result;
  }
  override if(c: WasmCond, then: () => void, otherwise?: () => void): void {
    if (c.constant !== undefined) {
      if (c.constant) then();
      else otherwise?.();
      return;
    }
    const w = this.w;
    const branches = [this.#branch(w, then)];
    if (otherwise) branches.push(this.#branch(w, otherwise));
    const joining = branches.filter((branch) => !branch.left);
    const changedFlags = joining.some((branch) => branch.changedFlags);
    this.pushC(c);
    w.open(OP.if);
    w.append(branches[0]!.code.bytes());
    if (otherwise) {
      w.op(OP.else);
      w.append(branches[1]!.code.bytes());
    }
    w.close();
    for (const { written } of joining) this.#forget(written);
    if (changedFlags) this.#know(UNKNOWN);
    if (otherwise && branches.every((branch) => branch.left)) this.left = true;
  }
  /** The locals of these registers were written in a branch. */
  #forget(written: number): void {
    this.#branchWritten |= written;
    for (let n = 0; n < 16; n++) {
      if (!(written & (1 << n))) continue;
      this.#bound[n] = undefined;
      this.#bound32[n] = undefined;
    }
  }
  override while(c: () => WasmCond, body: () => void): void {
    const w = this.w;
    const settle = () => {
      this.#know(UNKNOWN);
      this.#bound = [];
      this.#bound32 = [];
    };
    settle();
    this.flagsEpoch++;
    const out = w.open(OP.block);
    const again = w.open(OP.loop);
    const condition = c();
    settle();
    this.pushC(condition);
    w.op(OP.i32_eqz);
    w.branch(OP.br_if, out);
    body();
    settle();
    w.branch(OP.br, again);
    w.close();
    w.close();
    this.flagsEpoch--;
    settle();
  }

  protected override pushIp(advance: boolean): void {
    const w = this.w;
    w.localGet(this.l.page);
    w.i64Const(BigInt(this.offset + (advance ? this.decoded.length : 0)));
    w.op(OP.i64_add);
    if (this.form.mode !== 2) this.cut(32);
  }
  /** Whether an offset is in the instruction's own page. */
  #isHere(offset: number): boolean {
    return offset >> 12 === this.offset >> 12;
  }
  #targetOffset(): number {
    const { decoded } = this;
    return this.offset + decoded.length + decoded.immLow;
  }
  override relTarget(_o: Operand): WasmInt {
    const w = this.w;
    if (this.form.mode !== 2 && this.form.w === 16) this.#refuse("16-bit jump");
    const offset = this.#targetOffset();
    w.localGet(this.l.page);
    w.i64Const(BigInt(offset));
    w.op(OP.i64_add);
    if (this.form.mode !== 2) this.cut(32);
    const target = this.take();
    this.#relative.set(target, offset);
    return target;
  }
  override checkTarget(target: WasmInt): void {
    const offset = this.#relative.get(target);
    // In the same page it can't be anything but canonical, or beyond a limit that the page is within.
    if (offset !== undefined && this.#isHere(offset)) return;
    this.effects.exits = true;
    super.checkTarget(target);
  }
  override jump(target: WasmInt): void {
    this.effects.exits = true;
    const offset = this.#relative.get(target);
    if (offset === undefined) this.flow.indirect(target);
    else this.flow.edge(offset);
    this.left = true;
  }
  override jumpRel(o: Operand): void {
    this.effects.exits = true;
    const offset = this.#targetOffset();
    const target = this.relTarget(o);
    if (!this.#isHere(offset)) {
      if (this.form.mode === 2) {
        // Leaving the canonical range faults on the jump, which the interpreter does.
        const crossing = this.shr(64, this.xor(target, this.#page()), this.imm(47));
        this.if(this.ne(crossing, this.imm(0)), () => {
          this.#retryAlone();
          this.left = true;
        });
      } else this.checkTarget(target);
    }
    this.jump(target);
  }
  #page(): WasmInt {
    this.w.localGet(this.l.page);
    return this.take();
  }
  override again(): void {
    this.effects.exits = true;
    this.flow.edge(this.offset);
    this.left = true;
  }
  override bulk(f: Form): void {
    const w = this.w, { l } = this;
    const registers = [R.RAX, R.RCX, R.RSI, R.RDI];
    for (const n of registers) {
      this.touched |= 1 << n;
      this.written |= 1 << n;
      this.#branchWritten |= 1 << n;
      this.pushBase();
      w.localGet(l.gprs[n]!);
      w.memory(OP.i64_store, S.GPR + n * 8);
    }
    this.pushBase();
    w.i32Const(0);
    w.localGet(l.left);
    w.i32Const(this.behind);
    w.op(OP.i32_add);
    w.i32Const(RECORD_SHIFT);
    w.op(OP.i32_shl);
    w.i32Const(bulkInfo(f));
    const count = this.newLocal(T.i32);
    w.call(this.host("bulk"));
    w.localSet(count);
    w.localGet(l.left);
    w.localGet(count);
    w.op(OP.i32_sub);
    w.localSet(l.left);
    for (const n of registers) {
      this.pushBase();
      w.memory(OP.i64_load, S.GPR + n * 8);
      w.localSet(l.gprs[n]!);
      this.#bound[n] = undefined;
      this.#bound32[n] = undefined;
    }
  }

  // ---- procedures: those that see no general-purpose register and no flag; the interpreter has the others

  override call(name: string, ...args: WasmInt[]): void {
    this.effects.exits = true;
    if (!name.startsWith("sse.") && !name.startsWith("x87") && !BLIND.has(name)) {
      this.effects.reads = true;
      if (this.flagsEpoch === 0) return this.#refuse(name);
      // Only sometimes, in this branch; what may fault comes before any change, so the instruction can still be left.
      this.#retryAlone();
      this.left = true;
      return;
    }
    const w = this.w;
    this.procedures.add(name);
    args.forEach((value, i) => this.setState(S.ARG + i * 8, 64, value));
    this.pushBase();
    this.pushIp(false);
    w.memory(OP.i64_store, S.RIP);
    this.setState(S.ILEN, 32, this.imm(this.decoded.length));
    this.pushBase();
    w.localGet(this.l.left);
    w.i32Const(this.behind);
    w.op(OP.i32_add);
    w.memory(OP.i32_store, S.REMAINING);
    this.pushBase();
    w.call(this.module.importFunction(`proc:${name}`, [T.i32], [T.i32]));
    w.i32Const(PROCEDURE_FAULT);
    w.op(OP.i32_eq);
    this.exits.faultIf(w);
    this.#forgetPages();
  }
  override callResult(name: string, ...args: WasmInt[]): WasmInt {
    this.call(name, ...args);
    return this.state(S.ARG, 64);
  }
  override callEnd(name: string, ..._args: WasmInt[]): void {
    this.effects.exits = true;
    this.effects.reads = true;
    this.#refuse(name);
    this.left = true;
  }
}

/** 32-bit forms of 64-bit operations. */
const SHORT: ReadonlyMap<number, number> = new Map([
  [OP.i64_add, OP.i32_add],
  [OP.i64_sub, OP.i32_sub],
  [OP.i64_mul, OP.i32_mul],
  [OP.i64_shl, OP.i32_shl],
]);

/** Operations that leave their first operand alone when the second one is 0. */
const NEUTRAL_ZERO = new Set<number>([
  OP.i64_add,
  OP.i64_sub,
  OP.i64_or,
  OP.i64_xor,
  OP.i64_shl,
  OP.i64_shr_u,
  OP.i64_shr_s,
  OP.i64_rotl,
  OP.i64_rotr,
]);

/** The value of an operation on constants, if it is one of those that descriptions do on constants. */
function fold(code: number, a: bigint | undefined, b: bigint | undefined): bigint | undefined {
  if (a === undefined || b === undefined) return undefined;
  switch (code) {
    case OP.i64_add:
      return (a + b) & MASK64;
    case OP.i64_sub:
      return (a - b) & MASK64;
    case OP.i64_mul:
      return (a * b) & MASK64;
    case OP.i64_and:
      return a & b;
    case OP.i64_or:
      return a | b;
    case OP.i64_xor:
      return a ^ b;
    case OP.i64_shl:
      return (a << (b & 63n)) & MASK64;
    case OP.i64_shr_u:
      return a >> (b & 63n);
    default:
      return undefined;
  }
}

function lastOf(setter: Setter): LastFlags | undefined {
  const { kind, w, r, a, b } = setter;
  if (kind === "result") return undefined;
  if (kind === "add" || kind === "sub") return { kind, w, a: a!, b: b!, r };
  return { kind, w, r };
}

/** A function that unpacks {@link missInfo}, halves the address and calls the import. */
function missFunction(_name: string, target: number): WrittenFunction {
  const w = new CodeWriter();
  const [linear, info, left, base] = [0, 1, 2, 3];
  const field = (shift: number, bits: number) => {
    w.localGet(info);
    w.op(OP.i32_wrap_i64);
    w.i32Const(shift);
    w.op(OP.i32_shr_u);
    w.i32Const((1 << bits) - 1);
    w.op(OP.i32_and);
  };
  w.localGet(base);
  w.localGet(info);
  w.i64Const(32n);
  w.op(OP.i64_shr_s);
  w.op(OP.i32_wrap_i64);
  w.localGet(left);
  field(10, 6);
  w.op(OP.i32_add);
  w.localGet(linear);
  w.op(OP.i32_wrap_i64);
  w.localGet(linear);
  w.i64Const(32n);
  w.op(OP.i64_shr_u);
  w.op(OP.i32_wrap_i64);
  field(0, 7);
  field(7, 3);
  w.i32Const(8);
  w.op(OP.i32_shl);
  w.op(OP.i32_or);
  w.call(target);
  w.op(OP.end);
  return { locals: [], code: w.bytes().slice() };
}
