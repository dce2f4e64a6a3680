/**
 * The builder of descriptions for compiled regions: operands are constants from decoding, general-purpose registers are wasm locals,
 * flags stay undone until somebody looks.
 *
 * Room: `hw/engine/compiled/`; a subclass of the interpreter's builder, from which it has arithmetic, vectors and the flags' formulas.
 * region_code.ts drives it, instruction by instruction, and says through {@link Flow} where control goes.
 *
 * Registers: each has a local that is right at every instruction boundary; a value read or written is remembered, so that the next
 * read costs nothing. Flags: `fk` says which operation set them last (see {@link FLAG_KIND}) and `fa`, `fb`, `fr` hold its operands;
 * within a block that is known while writing, and the locals are only set where control leaves or joins.
 *
 * @module
 */
import * as state from "../../state.ts";
import type { FlagName, Width } from "../../isa/builder.ts";
import { ripRelativeDisplacement } from "../../isa/decode.ts";
import type { Decoded, Form, Operand } from "../../isa/form.ts";
import { type Effects, type Exits, P, RECORD_SHIFT, type WasmCond, type WasmInt } from "../wasm/base.ts";
import { bulkInfo, WasmBuilder } from "../wasm/builder.ts";
import { CodeWriter, type ModuleWriter, OP, T } from "../wasm/emit.ts";
import type { LastFlags } from "../wasm/status_flags.ts";

const { EXIT_RETRY, FTLB_READ, FTLB_WRITE, R, S, SEG } = state;

/** Parameters of a region's function, as of a called handler: record, limit, fast TLB context, processor's block. */
export const REGION_PARAMETERS = [T.i32, T.i32, T.i32, T.i32] as const;

/** Values of the local `fk`: what `fa`, `fb`, `fr` hold. To the base add 0 … 3 for 8, 16, 32, 64 bits. */
export const FLAG_KIND = {
  /** `fa` is FCV, `fr` is FRES (see flags.ts). */
  stored: 0,
  /** fr = fa + fb (+ carry), fr = fa − fb (− borrow). */
  add: 1,
  sub: 5,
  /** fr = something ± 1; bit 63 of `fa` is CF. */
  inc: 9,
  dec: 13,
  count: 17,
} as const;

/** How a region is left at an instruction known beforehand. */
export const EXIT_KIND = {
  /** Go on there in the interpreter, or in another region. */
  jump: 0,
  /** S.EXIT says why: a fault, or an access that must be stepped. */
  fault: 1,
  /** Too little is left of the slice. */
  budget: 2,
} as const;

/** Where the instructions' control goes. */
export interface Flow {
  /** Goes to an offset from the page's first byte; flags are in their locals if `flagsLive` says that they must be. */
  edge(offset: number): void;
  /** Whether flags matter to what goes on there. */
  flagsLiveAt(offset: number): boolean;
  /** Goes to an IP that is only known when the region runs. */
  indirect(target: WasmInt): void;
  /** Goes to an IP outside the page. */
  outside(target: WasmInt): void;
}

/** Fixed locals of a region's function. */
export interface RegionLocals {
  readonly gprs: readonly number[];
  /** i64: IP of the page's first byte. */
  readonly page: number;
  /** i32: instructions left in the slice behind this block. */
  readonly left: number;
  /** i32: entry to go to next. */
  readonly selector: number;
  /** i32: place and way of a static exit, see {@link RegionBuilder.exitAt}. */
  readonly packed: number;
  /** i64: where to go on. */
  readonly ip: number;
  /** i32: what the function returns. */
  readonly code: number;
  readonly fk: number;
  readonly fa: number;
  readonly fb: number;
  readonly fr: number;
}

/** Operation that set the flags last, not yet done. `carry` has CF in bit 63. */
type Pending =
  | {
    readonly kind: "add" | "sub";
    readonly w: Width;
    readonly a: WasmInt;
    readonly b: WasmInt;
    readonly r: WasmInt;
  }
  | { readonly kind: "inc" | "dec"; readonly w: Width; readonly r: WasmInt; readonly carry: WasmInt }
  | { readonly kind: "logic"; readonly w: Width; readonly r: WasmInt }
  | {
    readonly kind: "result";
    readonly w: Width;
    readonly r: WasmInt;
    readonly cf: WasmCond;
    readonly of: WasmCond;
    readonly af: WasmCond | undefined;
  }
  /** CF and OF are new, the rest as `under` (undefined: as the locals) says. */
  | {
    readonly kind: "patch";
    readonly under: Pending | undefined;
    readonly underStored: boolean;
    readonly cf: WasmCond;
    readonly of: WasmCond;
  };

/** What is known about flags while writing. */
interface FlagState {
  pending: Pending | undefined;
  /** Nothing is pending and `fk` is `stored`. */
  stored: boolean;
  last: LastFlags | undefined;
}

const WIDTH_INDEX: Readonly<Record<Width, number>> = { 8: 0, 16: 1, 32: 2, 64: 3 };
const MASK64 = (1n << 64n) - 1n;
const EMPTY = { reads: false, kills: false, sets: false, exits: false } as const;

/** One branch of an `if`, written apart. */
interface Branch {
  readonly code: CodeWriter;
  readonly left: boolean;
  readonly written: number;
  readonly changedFlags: boolean;
}

/** See the module's comment. */
export class RegionBuilder extends WasmBuilder {
  /** Fixed locals. */
  readonly l: RegionLocals;
  /** Where control goes; set by the writer of the region. */
  flow: Flow = { edge: () => {}, flagsLiveAt: () => true, indirect: () => {}, outside: () => {} };
  /** Labels of the exits: static ones, and those with `ip` and `code` set. */
  staticLabel = 0;
  leaveLabel = 0;
  /** Why the instruction can't be compiled, if it can't. */
  unsupported: string | undefined;
  /** GPRs that were read or written, as bits, and those that were written. */
  touched = 0;
  written = 0;
  /** Indices of the module's functions that work out flags from `fk`, `fa`, `fb`, `fr`: FCV, FRES. */
  flagFunctions: readonly [fcv: number, fres: number] = [0, 0];

  decoded!: Decoded;
  /** Offset of the instruction in its page. */
  offset = 0;
  /** Instructions of the block from this one on: what `left` lacks here. */
  behind = 0;

  #bound: (WasmInt | undefined)[] = [];
  #bound32: (WasmInt | undefined)[] = [];
  readonly #relative = new Map<WasmInt, number>();
  #pending: Pending | undefined;
  #stored = false;
  /** What pushFlagWord(FCV) gives while an INC or DEC is worked out. */
  #carry: WasmInt | undefined;

  constructor(module: ModuleWriter) {
    super(module, REGION_PARAMETERS.length);
    const i32 = () => this.newLocal(T.i32), i64 = () => this.newLocal(T.i64);
    this.l = {
      gprs: Array.from({ length: 16 }, i64),
      page: i64(),
      left: i32(),
      selector: i32(),
      packed: i32(),
      ip: i64(),
      code: i32(),
      fk: i32(),
      fa: i64(),
      fb: i64(),
      fr: i64(),
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
    this.#pending = undefined;
    this.#stored = false;
    this.last = undefined;
  }
  /** Starts an instruction. */
  beginInstruction(w: CodeWriter, decoded: Decoded, offset: number, behind: number): void {
    this.w = w;
    this.decoded = decoded;
    this.offset = offset;
    this.behind = behind;
    this.unsupported = undefined;
    this.beginDescription(decoded.form, decoded.index !== S.ZERO, this.#exits);
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
    const before = this.#flags();
    this.canonicalize();
    this.w.i32Const(offset | (uncounted << 13) | (kind << 19));
    this.w.localSet(this.l.packed);
    this.w.branch(OP.br, this.staticLabel);
    this.#setFlags(before);
  }
  /** Leaves at the IP in the local `ip`. Flags must be in their locals. */
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
    return super.modular(code, width, a, b);
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
    if (o?.fixed !== undefined) return this.reg(aw, o.fixed);
    if (o?.slot === "imm") return this.#immediate(aw);
    const { decoded } = this;
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
  #pushSlow(linear: WasmInt, bytes: number, seg: number): void {
    const w = this.w;
    this.#pushPlace();
    this.push32(linear);
    this.push(linear);
    w.i64Const(32n);
    w.op(OP.i64_shr_u);
    w.op(OP.i32_wrap_i64);
    w.i32Const(bytes | (seg << 8));
  }
  #translate(linear: WasmInt, bytes: number, seg: number, table: number, slow: string): number {
    const w = this.w;
    const address = this.newLocal(T.i32);
    const entry = this.#probe(linear, bytes, table);
    w.open(OP.if);
    this.#pushHit(linear, entry, table);
    w.localSet(address);
    w.op(OP.else);
    this.#pushSlow(linear, bytes, seg);
    w.call(this.host(slow));
    w.localTee(address);
    w.op(OP.i32_eqz);
    this.exits.faultIf(w);
    w.close();
    return address;
  }
  override hostAddressRead(linear: WasmInt, bytes: number, seg: number): number {
    return this.#translate(linear, bytes, seg, FTLB_READ, "regionLoad");
  }
  override hostAddressWrite(linear: WasmInt, bytes: number, seg: number): number {
    return this.#translate(linear, bytes, seg, FTLB_WRITE, "regionRmw");
  }
  override storeLinear(
    linear: WasmInt,
    bytes: number,
    seg: number,
    emitStore: (pushAddress: () => void, offset: number) => void,
  ): void {
    const w = this.w;
    const entry = this.#probe(linear, bytes, FTLB_WRITE);
    w.open(OP.if);
    emitStore(() => this.#pushHit(linear, entry, FTLB_WRITE), 0);
    w.op(OP.else);
    emitStore(() => this.pushBase(), S.SPILL);
    this.#pushSlow(linear, bytes, seg);
    w.call(this.host("regionStore"));
    this.exits.faultIf(w);
    w.close();
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

  #flags(): FlagState {
    return { pending: this.#pending, stored: this.#stored, last: this.last };
  }
  #setFlags(flags: FlagState): void {
    this.#pending = flags.pending;
    this.#stored = flags.stored;
    this.last = flags.last;
  }
  #defer(pending: Pending): void {
    if (this.flagsAreDead) return;
    this.#pending = pending;
    this.#stored = false;
    // With a carry in, comparing the operands does not tell.
    const { mnemonic } = this.form.row;
    this.last = mnemonic === "ADC" || mnemonic === "SBB" ? undefined : lastOf(pending);
  }
  #setsAll(): void {
    this.effects.sets = true;
    if (this.flagsEpoch === 0) this.effects.kills = true;
  }
  override flagsAdd(w: Width, a: WasmInt, b: WasmInt, r: WasmInt): void {
    this.#setsAll();
    this.#defer({ kind: "add", w, a, b, r });
  }
  override flagsSub(w: Width, a: WasmInt, b: WasmInt, r: WasmInt): void {
    this.#setsAll();
    this.#defer({ kind: "sub", w, a, b, r });
  }
  override flagsLogic(w: Width, r: WasmInt): void {
    this.#setsAll();
    this.#defer({ kind: "logic", w, r });
  }
  override flagsInc(w: Width, r: WasmInt): void {
    this.effects.sets = true;
    if (!this.flagsAreDead) this.#defer({ kind: "inc", w, r, carry: this.#carryWord() });
  }
  override flagsDec(w: Width, r: WasmInt): void {
    this.effects.sets = true;
    if (!this.flagsAreDead) this.#defer({ kind: "dec", w, r, carry: this.#carryWord() });
  }
  /** CF as bit 63 of a value. */
  #carryWord(): WasmInt {
    const w = this.w, { l } = this;
    if (this.#pending !== undefined || this.#stored) {
      const pending = this.#pending;
      if (pending?.kind === "inc" || pending?.kind === "dec") return pending.carry;
      const reads = this.effects.reads;
      const cf = this.condition(2);
      this.effects.reads = reads;
      if (cf.constant !== undefined) return this.imm(cf.constant ? 1n << 63n : 0n);
      return this.shl(64, this.toInt(cf), this.imm(63));
    }
    const carry = this.newLocal(T.i64);
    w.localGet(l.fa);
    w.localSet(carry);
    w.localGet(l.fk);
    w.i32Const(FLAG_KIND.add);
    w.op(OP.i32_sub);
    w.i32Const(FLAG_KIND.inc - FLAG_KIND.add);
    w.op(OP.i32_lt_u);
    w.open(OP.if);
    this.#callFlags(0);
    w.localSet(carry);
    w.close();
    w.localGet(carry);
    w.i64Const(1n << 63n);
    w.op(OP.i64_and);
    return this.take();
  }
  #callFlags(which: 0 | 1): void {
    const w = this.w, { l } = this;
    w.localGet(l.fk);
    w.localGet(l.fa);
    w.localGet(l.fb);
    w.localGet(l.fr);
    w.call(this.flagFunctions[which]);
  }
  override flagsResult(w: Width, r: WasmInt, cf: WasmCond, of: WasmCond, af?: WasmCond): void {
    this.#setsAll();
    this.#defer({ kind: "result", w, r, cf, of, af });
  }
  override setFlags(flags: { readonly [name in FlagName]?: WasmCond }): void {
    const { CF, OF } = flags;
    this.effects.sets = true;
    if (this.flagsAreDead) {
      if (CF && OF && flags.ZF && flags.SF && flags.PF && flags.AF) this.#setsAll();
      return;
    }
    if (CF && OF && !flags.ZF && !flags.SF && !flags.PF && !flags.AF) {
      const pending = this.#pending;
      const [under, underStored] = pending?.kind === "patch"
        ? [pending.under, pending.underStored]
        : [pending, this.#stored];
      this.#defer({ kind: "patch", under, underStored, cf: CF, of: OF });
      return;
    }
    super.setFlags(flags);
  }
  protected override storeFlagWord(offset: number, push: () => void): void {
    push();
    if (offset === S.FRES) {
      this.w.localSet(this.l.fr);
      return;
    }
    this.w.localSet(this.l.fa);
    this.w.i32Const(FLAG_KIND.stored);
    this.w.localSet(this.l.fk);
    this.#pending = undefined;
    this.#stored = true;
  }
  protected override pushFlagWord(offset: number): void {
    if (this.#carry !== undefined && offset === S.FCV) return this.push(this.#carry);
    this.#materialize();
    this.w.localGet(offset === S.FRES ? this.l.fr : this.l.fa);
  }
  /** Works FRES and FCV out, into their locals. */
  #materialize(): void {
    if (this.#stored) return;
    const w = this.w, { l } = this;
    const last = this.last, dead = this.flagsAreDead, pending = this.#pending;
    if (pending === undefined) {
      const fcv = this.newLocal(T.i64);
      this.#callFlags(0);
      w.localSet(fcv);
      this.#callFlags(1);
      w.localSet(l.fr);
      w.localGet(fcv);
      w.localSet(l.fa);
      w.i32Const(FLAG_KIND.stored);
      w.localSet(l.fk);
      this.#stored = true;
      return;
    }
    const effects: Effects = { ...this.effects };
    this.flagsAreDead = false;
    switch (pending.kind) {
      case "add":
        super.flagsAdd(pending.w, pending.a, pending.b, pending.r);
        break;
      case "sub":
        super.flagsSub(pending.w, pending.a, pending.b, pending.r);
        break;
      case "logic":
        super.flagsLogic(pending.w, pending.r);
        break;
      case "inc":
      case "dec":
        this.#carry = pending.carry;
        if (pending.kind === "inc") super.flagsInc(pending.w, pending.r);
        else super.flagsDec(pending.w, pending.r);
        this.#carry = undefined;
        break;
      case "result":
        super.flagsResult(pending.w, pending.r, pending.cf, pending.of, pending.af);
        break;
      case "patch":
        this.#pending = pending.under;
        this.#stored = pending.underStored;
        this.last = undefined;
        this.#materialize();
        super.setFlags({ CF: pending.cf, OF: pending.of });
    }
    this.effects = effects;
    this.flagsAreDead = dead;
    this.last = last;
  }
  /** Brings what is pending into the locals, in whatever form is cheapest. */
  canonicalize(): void {
    const pending = this.#pending;
    if (pending === undefined) return;
    const w = this.w, { l } = this;
    const set = (local: number, value: WasmInt) => {
      this.push(value);
      w.localSet(local);
    };
    switch (pending.kind) {
      case "add":
      case "sub":
        set(l.fa, pending.a);
        set(l.fb, pending.b);
        set(l.fr, pending.r);
        break;
      case "inc":
      case "dec":
        set(l.fa, pending.carry);
        set(l.fr, pending.r);
        break;
      default:
        this.#materialize();
        return;
    }
    w.i32Const(FLAG_KIND[pending.kind] + WIDTH_INDEX[pending.w]);
    w.localSet(l.fk);
    this.#pending = undefined;
    this.#stored = false;
  }
  protected override fusedCondition(cc: number): WasmCond | undefined {
    const pending = this.#pending;
    if (pending?.kind === "result") {
      if (cc === 0) return pending.of;
      if (cc === 2) return pending.cf;
      if (cc === 4) return this.eq(pending.r, this.imm(0));
      if (cc === 8) return this.ltS(pending.w, pending.r, this.imm(0));
      return undefined;
    }
    if (pending?.kind === "patch") {
      if (cc === 0) return pending.of;
      if (cc === 2) return pending.cf;
      return undefined;
    }
    if ((pending?.kind === "inc" || pending?.kind === "dec") && cc === 2) {
      return this.bit(pending.carry, 63);
    }
    if (pending !== undefined && this.last === undefined) {
      if (cc === 4) return this.eq(pending.r, this.imm(0));
      if (cc === 8) return this.ltS(pending.w, pending.r, this.imm(0));
      return undefined;
    }
    return super.fusedCondition(cc);
  }
  /** Works out FCV (0) or FRES (1) from the locals' form: the body of the module's flag functions, whose parameters are fk, fa, fb, fr. */
  static flagFunction(module: ModuleWriter, which: 0 | 1): number {
    const b = new RegionBuilder(module);
    const w = new CodeWriter();
    b.w = w;
    const { l } = b;
    // The parameters have the types of fk, fa, fb, fr.
    const fa = 1, fb = 2, fr = 3;
    const value = (local: number): WasmInt => ({ local, constant: undefined });
    w.open(OP.block);
    for (let k = FLAG_KIND.count - 1; k >= 0; k--) w.open(OP.block);
    w.localGet(0);
    w.op(OP.br_table);
    w.u32(FLAG_KIND.count - 1);
    for (let k = 0; k < FLAG_KIND.count; k++) w.u32(k);
    for (let k = 0; k < FLAG_KIND.count; k++) {
      w.close();
      if (k === FLAG_KIND.stored) {
        w.localGet(which === 0 ? fa : fr);
        w.op(OP.return);
        continue;
      }
      const width = ([8, 16, 32, 64] as const)[(k - 1) & 3]!;
      const kind = (["add", "sub", "inc", "dec"] as const)[(k - 1) >> 2]!;
      b.beginBlock();
      b.#pending = kind === "add" || kind === "sub"
        ? { kind, w: width, a: value(fa), b: value(fb), r: value(fr) }
        : { kind, w: width, r: value(fr), carry: value(fa) };
      b.effects = { ...EMPTY };
      b.#materialize();
      w.localGet(which === 0 ? l.fa : l.fr);
      w.op(OP.return);
    }
    w.close();
    w.op(OP.unreachable);
    w.op(OP.end);
    const type = module.type([T.i32, T.i64, T.i64, T.i64], [T.i64]);
    return module.define(type, b.locals, w.bytes().slice());
  }

  // ---- control

  #branchWritten = 0;

  /** Writes one branch apart, so that what it changes is known before the `if` is written. */
  #branch(outer: CodeWriter, body: () => void): Branch {
    const code = new CodeWriter();
    code.depth = outer.depth + 1;
    const bound = this.#bound.slice(), bound32 = this.#bound32.slice();
    const flags = this.#flags(), left = this.left, writtenBefore = this.#branchWritten;
    this.w = code;
    this.left = false;
    this.#branchWritten = 0;
    this.flagsEpoch++;
    body();
    this.flagsEpoch--;
    const changedFlags = this.#pending !== flags.pending || this.#stored !== flags.stored;
    if (!this.left && changedFlags) this.canonicalize();
    const result = { code, left: this.left, written: this.#branchWritten, changedFlags };
    this.w = outer;
    this.left = left;
    this.#branchWritten = writtenBefore;
    this.#bound = bound;
    this.#bound32 = bound32;
    this.#setFlags(flags);
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
    if (changedFlags) this.canonicalize();
    this.pushC(c);
    w.open(OP.if);
    w.append(branches[0]!.code.bytes());
    if (otherwise) {
      w.op(OP.else);
      w.append(branches[1]!.code.bytes());
    }
    w.close();
    for (const { written } of joining) this.#forget(written);
    if (changedFlags) this.#setFlags({ pending: undefined, stored: false, last: undefined });
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
      this.canonicalize();
      this.#setFlags({ pending: undefined, stored: false, last: undefined });
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
    if (offset !== undefined && offset >= 0 && offset < 4096) return;
    this.effects.exits = true;
    super.checkTarget(target);
  }
  override jump(target: WasmInt): void {
    this.effects.exits = true;
    const offset = this.#relative.get(target);
    if (offset === undefined) this.flow.indirect(target);
    else if (offset >= 0 && offset < 4096) this.#edge(offset);
    else this.flow.outside(target);
    this.left = true;
  }
  #edge(offset: number): void {
    const flags = this.#flags();
    if (this.flow.flagsLiveAt(offset)) this.canonicalize();
    this.flow.edge(offset);
    this.#setFlags(flags);
  }
  /** The straight way on, behind the block's last instruction. */
  fallThrough(offset: number): void {
    this.#edge(offset);
  }
  override jumpRel(o: Operand): void {
    this.effects.exits = true;
    const offset = this.#targetOffset();
    const target = this.relTarget(o);
    if (offset < 0 || offset >= 4096) {
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
    this.#edge(this.offset);
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

  // ---- procedures: not yet; the interpreter has them

  override call(name: string, ..._args: WasmInt[]): void {
    this.effects.exits = true;
    this.effects.reads = true;
    this.#refuse(name);
  }
  override callResult(name: string, ...args: WasmInt[]): WasmInt {
    this.call(name, ...args);
    return this.imm(0);
  }
  override callEnd(name: string, ...args: WasmInt[]): void {
    this.call(name, ...args);
    this.left = true;
  }

  override flagsImage(): WasmInt {
    this.#materialize();
    return super.flagsImage();
  }
}

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

function lastOf(pending: Pending): LastFlags | undefined {
  switch (pending.kind) {
    case "add":
    case "sub":
      return pending;
    case "logic":
    case "inc":
    case "dec":
      return { kind: pending.kind, w: pending.w, r: pending.r };
    default:
      return undefined;
  }
}
