/**
 * What every part of the wasm builder stands on: the frame of a handler (parameters, locals), values, access to the
 * record and the processor's block, the inlined TLB probe, and the ways out of a handler.
 *
 * Room: `hw/engine/wasm/`; imports emit.ts, state.ts and the types of `hw/isa/`.
 *
 * A handler runs in a frame with the parameters `base` (processor block), `ptr` (its record), `entry` (first record
 * of the straight line being counted), `budget` (instructions left when the line was entered) and `ctx` (fast TLB context).
 * A handler compiled *inline* stands in the interpreter's switch; a *called* one is a function of its own. They differ only in
 * {@link Exits}.
 *
 * @module
 */
import { FTLB_READ, FTLB_WRITE, REC, S, SEG } from "../../state.ts";
import type { Form, Operand } from "../../isa/form.ts";
import { type CodeWriter, type ModuleWriter, OP, T, type ValueType } from "./emit.ts";

/** An integer: a local of type i64, or a constant. */
export interface WasmInt {
  readonly local: number;
  readonly constant: bigint | undefined;
}
/** A condition: a local of type i32 holding 0 or 1, or a constant. */
export interface WasmCond {
  readonly local: number;
  readonly constant: boolean | undefined;
}
/** A vector: a local of type v128. */
export interface WasmVec {
  readonly local: number;
}

/**
 * Locals of every handler's frame, by index. `limit` is where `ptr` would be with the slice used up, were all records in one line:
 * (limit − ptr) / 32 instructions are left. Called handlers have `base` as well; in the interpreter it is a constant.
 */
export const P = { ptr: 0, limit: 1, ctx: 2, base: 3 } as const;
/** log2 of the bytes in a record. */
export const RECORD_SHIFT = 5;

/** How a handler leaves: the interpreter's switch branches to shared tails, a called handler returns a code. */
export interface Exits {
  /** True in the interpreter's switch, false in a called handler. */
  readonly inline: boolean;
  /** The pending exit in S.EXIT, not counting this instruction. */
  fault(w: CodeWriter): void;
  /** The same if the i32 on the stack is not zero. */
  faultIf(w: CodeWriter): void;
  /** Jump to the IP in the i64 on the stack. */
  jump(w: CodeWriter): void;
  /** Jump to the direct target in the record's immediate, linked if it can be; `recordOffset` as in {@link WasmBase}. */
  jumpDirect(w: CodeWriter): void;
  /** The instruction is done and counted, look at everything afresh; RIP is set. */
  end(w: CodeWriter): void;
  /** The instruction is done and counted, RIP is set, and privilege or translation may have changed; go on there. */
  resync(w: CodeWriter): void;
  /** Count this execution and execute the same record again. */
  again(w: CodeWriter): void;
  /** Go on with the next record. */
  next(w: CodeWriter): void;
}

/** Names and types of the functions that handlers import from TypeScript; all parameters and results are i32. */
export const HOST_FUNCTIONS: Readonly<Record<string, { parameters: number; result: boolean }>> = {
  /** (base, ptr, limit, linLow, linHigh, bytes | seg << 8): host address, or 0 with S.EXIT set. */
  loadSlow: { parameters: 6, result: true },
  /** The same; the value stands in SPILL. Result: 0, or nonzero with S.EXIT set. */
  storeSlow: { parameters: 6, result: true },
  /** As loadSlow, for an access that will be written back. */
  rmwSlow: { parameters: 6, result: true },
  /** (base): finishes a store that went to SPILL. */
  spillFlush: { parameters: 1, result: false },
  /** (base, ptr, limit, offset, seg, bytes | write << 16): 0, or nonzero with S.EXIT set. */
  segCheck: { parameters: 6, result: true },
  /** Of compiled regions, as those above: the instruction's offset in its page and what is left of the slice instead of ptr and limit. */
  regionLoad: { parameters: 6, result: true },
  regionStore: { parameters: 6, result: true },
  regionRmw: { parameters: 6, result: true },
  regionSegCheck: { parameters: 6, result: true },
  /** (base, ptr, limit, info): iterations done. */
  bulk: { parameters: 4, result: true },
};

/** What a description did to the flags and whether it can leave its line; gathered while it is written. */
export interface Effects {
  /** Reads a status flag. */
  reads: boolean;
  /** Sets all six flags whatever happens. */
  kills: boolean;
  /** Sets some flag. */
  sets: boolean;
  /** May fault, jump or end: others can see the state at this point. */
  exits: boolean;
}

/** Frame and helpers; see the module's comment. */
export abstract class WasmBase {
  /** The code being written. */
  w!: CodeWriter;
  /** Types of all locals after the parameters. */
  readonly locals: ValueType[] = [];
  form!: Form;
  exits!: Exits;
  /** The memory operand has an index register. */
  protected hasIndex = false;
  /** What the instruction being written does; see {@link Effects}. */
  effects: Effects = { reads: false, kills: false, sets: false, exits: false };
  /** The flags that this instruction sets are overwritten before anyone can see them: they are not stored. */
  flagsAreDead = false;
  /** Set once the current branch of the description has left the instruction. */
  protected left = false;

  readonly #pools = new Map<ValueType, { indices: number[]; used: number }>();
  /** By operand: a local with its offset in the processor's block, as the record says. */
  readonly #registerOffsets = new Map<number, number>();
  readonly #heldAddresses = new Map<number, number>();

  /** Local with the first eight bytes of the record. */
  #head = -1;

  /**
   * @param fixedBase Address of the processor's block, if the code is for one processor alone: V8 then knows that accesses to it
   * are in bounds, and needs no register for it.
   */
  constructor(
    readonly module: ModuleWriter,
    readonly parameterCount: number,
    readonly fixedBase?: number,
  ) {}

  /** Pushes the address of the processor's block. */
  pushBase(): void {
    if (this.fixedBase === undefined) this.w.localGet(P.base);
    else this.w.i32Const(this.fixedBase);
  }

  /** Starts a new handler: all locals are free again. `head`: a local with the record's first eight bytes, if there is one. */
  begin(code: CodeWriter, form: Form, hasIndex: boolean, exits: Exits, head?: number): void {
    this.w = code;
    this.freeLocals();
    this.continueWith(form, hasIndex, exits, head);
  }
  /** No value made so far is used again: their locals are free. */
  protected freeLocals(): void {
    for (const pool of this.#pools.values()) pool.used = 0;
  }
  /** Of the values made so far, only those in these locals are used again. */
  protected keepLocals(kept: ReadonlySet<number>): void {
    for (const pool of this.#pools.values()) {
      let live = 0;
      for (let i = 0; i < pool.used; i++) {
        const index = pool.indices[i]!;
        if (!kept.has(index)) continue;
        pool.indices[i] = pool.indices[live]!;
        pool.indices[live++] = index;
      }
      pool.used = live;
    }
  }
  /** Starts a description's bookkeeping; the operands are located after it. */
  protected beginDescription(form: Form, hasIndex: boolean, exits: Exits): void {
    this.form = form;
    this.hasIndex = hasIndex;
    this.exits = exits;
    this.left = false;
    this.effects = { reads: false, kills: false, sets: false, exits: false };
    this.flagsAreDead = false;
    this.#registerOffsets.clear();
    this.#heldAddresses.clear();
  }
  /** Starts the next instruction of a fused handler: locals of the previous one stay alive. */
  continueWith(form: Form, hasIndex: boolean, exits: Exits, head?: number): void {
    this.beginDescription(form, hasIndex, exits);
    this.#head = head ?? this.#loadHead();
    for (const o of form.operands) {
      if (o.fixed === undefined && (o.kind === "reg" || o.kind === "xmm" || o.kind === "mm")) {
        const offset = this.newLocal(T.i32);
        this.pushField16(slotOffset(o));
        if (this.fixedBase === undefined) {
          this.pushBase();
          this.w.op(OP.i32_add);
        }
        this.w.localSet(offset);
        this.#registerOffsets.set(o.index, offset);
      }
    }
  }

  #loadHead(): number {
    const head = this.newLocal(T.i64);
    this.w.localGet(P.ptr);
    this.w.memory(OP.i64_load);
    this.w.localSet(head);
    return head;
  }
  /** Pushes the record's 16-bit field at `offset` as i32; fields of the first eight bytes are taken from one load. */
  pushField16(offset: number): void {
    const w = this.w;
    if (offset >= 8) {
      w.localGet(P.ptr);
      w.memory(OP.i32_load16_u, offset);
      return;
    }
    w.localGet(this.#head);
    if (offset >= 4) {
      w.i64Const(32n);
      w.op(OP.i64_shr_u);
    }
    w.op(OP.i32_wrap_i64);
    w.i32Const(offset % 4 === 0 ? 0xffff : 16);
    w.op(offset % 4 === 0 ? OP.i32_and : OP.i32_shr_u);
  }

  /** Keeps the locals made so far out of the handlers' reach. */
  reserveLocals(): void {
    for (const pool of this.#pools.values()) {
      pool.indices.splice(0, pool.used);
      pool.used = 0;
    }
  }

  /** A local of `type` that nothing else in this handler uses. */
  newLocal(type: ValueType): number {
    let pool = this.#pools.get(type);
    if (!pool) this.#pools.set(type, pool = { indices: [], used: 0 });
    if (pool.used === pool.indices.length) {
      this.locals.push(type);
      pool.indices.push(this.parameterCount + this.locals.length - 1);
    }
    return pool.indices[pool.used++]!;
  }

  // ---- values

  /** Pushes an integer as i64. */
  push(value: WasmInt): void {
    if (value.constant !== undefined) this.w.i64Const(value.constant);
    else this.w.localGet(value.local);
  }
  /** Pushes the low 32 bits of an integer as i32. */
  push32(value: WasmInt): void {
    if (value.constant !== undefined) this.w.i32Const(Number(BigInt.asIntN(32, value.constant)));
    else {
      this.w.localGet(value.local);
      this.w.op(OP.i32_wrap_i64);
    }
  }
  pushC(value: WasmCond): void {
    if (value.constant !== undefined) this.w.i32Const(value.constant ? 1 : 0);
    else this.w.localGet(value.local);
  }
  pushX(value: WasmVec): void {
    this.w.localGet(value.local);
  }
  /** Takes the i64 on the stack as a value. */
  take(): WasmInt {
    const local = this.newLocal(T.i64);
    this.w.localSet(local);
    return { local, constant: undefined };
  }
  /** Takes the i32 (0 or 1) on the stack as a condition. */
  takeC(): WasmCond {
    const local = this.newLocal(T.i32);
    this.w.localSet(local);
    return { local, constant: undefined };
  }
  /** Takes the v128 on the stack. */
  takeX(): WasmVec {
    const local = this.newLocal(T.v128);
    this.w.localSet(local);
    return { local };
  }
  constant(value: bigint): WasmInt {
    return { local: -1, constant: BigInt.asUintN(64, value) };
  }

  // ---- operands

  /** Pushes the host address of a register operand (GPR, XMM or MMX); returns the constant offset to add. */
  pushRegisterAddress(o: Operand): number {
    if (o.fixed !== undefined) {
      this.pushBase();
      return fixedOffset(o);
    }
    const offset = this.#registerOffsets.get(o.index);
    if (offset === undefined) throw new Error(`Operand ${o.index} of ${this.form.key} is no register`);
    this.w.localGet(offset);
    return this.fixedBase ?? 0;
  }

  /** Effective address of memory operand `o` (default: the ModRM one), in its address size. */
  effectiveAddress(o?: Operand): WasmInt {
    const w = this.w;
    if (o?.fixed !== undefined) {
      // A string operand: rSI or rDI.
      this.pushBase();
      w.memory(
        this.form.aw === 64 ? OP.i64_load : this.form.aw === 32 ? OP.i64_load32_u : OP.i64_load16_u,
        S.GPR + o.fixed * 8,
      );
      return this.take();
    }
    if (o?.slot === "imm") {
      w.localGet(P.ptr);
      w.memory(OP.i64_load, REC.imm);
      return this.#cutToAddressSize();
    }
    /** Replaces the offset in the processor's block on the stack by the register there. */
    const register = () => {
      if (this.fixedBase === undefined) {
        this.pushBase();
        w.op(OP.i32_add);
      }
      w.memory(OP.i64_load, this.fixedBase ?? 0);
    };
    this.pushField16(REC.base);
    register();
    if (!this.hasIndex) {
      w.localGet(P.ptr);
      w.memory(OP.i64_load32_s, REC.disp);
    } else {
      // Displacement, index and scale in one load; a shift count counts modulo 64, and the length above the scale is no part of it.
      const fields = this.newLocal(T.i64);
      w.localGet(P.ptr);
      w.memory(OP.i64_load, REC.disp);
      w.localTee(fields);
      w.i64Const(32n);
      w.op(OP.i64_shr_u);
      w.op(OP.i32_wrap_i64);
      w.i32Const(0xffff);
      w.op(OP.i32_and);
      register();
      w.localGet(fields);
      w.i64Const(BigInt((REC.scale - REC.disp) * 8));
      w.op(OP.i64_shr_u);
      w.op(OP.i64_shl);
      w.op(OP.i64_add);
      w.localGet(fields);
      w.op(OP.i64_extend32_s);
    }
    w.op(OP.i64_add);
    return this.#cutToAddressSize();
  }
  #cutToAddressSize(): WasmInt {
    if (this.form.aw !== 64) {
      this.w.i64Const(this.form.aw === 32 ? 0xffff_ffffn : 0xffffn);
      this.w.op(OP.i64_and);
    }
    return this.take();
  }
  /** Segment of memory operand `o`. */
  segmentNumber(o: Operand): number {
    return o.fixed === 7 ? SEG.ES : this.form.segment;
  }

  /** Linear address of `bytes` at seg:offset, with the segment's checks outside 64-bit mode. */
  linearAddress(seg: number, offset: WasmInt, bytes: number, write: boolean): WasmInt {
    const w = this.w;
    if (this.form.mode === 2) {
      if (seg < 4) return offset;
      this.push(offset);
      this.pushBase();
      w.memory(OP.i64_load, S.SEGBASE + seg * 8);
      w.op(OP.i64_add);
      return this.take();
    }
    this.push(offset);
    w.i64Const(BigInt(bytes - 1));
    w.op(OP.i64_add);
    this.pushBase();
    w.memory(OP.i64_load, (write ? S.SEGWMAX : S.SEGRMAX) + seg * 8);
    w.op(OP.i64_gt_s);
    w.open(OP.if);
    this.pushContext();
    this.push32(offset);
    w.i32Const(seg);
    w.i32Const(bytes | (write ? 0x1_0000 : 0));
    w.call(this.host("segCheck"));
    this.exits.faultIf(w);
    w.close();
    this.push(offset);
    this.pushBase();
    w.memory(OP.i64_load, S.SEGBASE + seg * 8);
    w.op(OP.i64_add);
    w.i64Const(0xffff_ffffn);
    w.op(OP.i64_and);
    return this.take();
  }

  /** Linear address of a memory operand's `bytes`. */
  operandAddress(o: Operand, bytes: number, write: boolean): WasmInt {
    return this.linearAddress(this.segmentNumber(o), this.effectiveAddress(o), bytes, write);
  }

  /** Pushes 1 if `bytes` at `linear` hit the fast TLB table at `table`; leaves the entry's address in the returned local. */
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
  /** Pushes base, ptr, limit. */
  pushContext(): void {
    this.pushBase();
    this.w.localGet(P.ptr);
    this.w.localGet(P.limit);
  }
  #pushSlowArguments(linear: WasmInt, bytes: number, seg: number): void {
    this.pushContext();
    this.push32(linear);
    this.push(linear);
    this.w.i64Const(32n);
    this.w.op(OP.i64_shr_u);
    this.w.op(OP.i32_wrap_i64);
    this.w.i32Const(bytes | (seg << 8));
  }
  /** Index of an imported host function. */
  host(name: string): number {
    // All host functions belong to accesses, which may fault.
    this.effects.exits = true;
    const signature = HOST_FUNCTIONS[name];
    if (!signature) throw new Error(`No host function ${name}`);
    return this.module.importFunction(
      name,
      Array.from({ length: signature.parameters }, () => T.i32),
      signature.result ? [T.i32] : [],
    );
  }

  /** Translates `bytes` at `linear` for reading; gives a local with the host address. Faults leave the handler. */
  hostAddressRead(linear: WasmInt, bytes: number, seg: number): number {
    return this.#translate(linear, bytes, seg, FTLB_READ, "loadSlow");
  }
  /** Translates for reading and writing back with {@link finishWrite}. */
  hostAddressWrite(linear: WasmInt, bytes: number, seg: number): number {
    return this.#translate(linear, bytes, seg, FTLB_WRITE, "rmwSlow");
  }
  #translate(linear: WasmInt, bytes: number, seg: number, table: number, slow: string): number {
    const w = this.w;
    const address = this.newLocal(T.i32);
    const entry = this.#probe(linear, bytes, table);
    w.open(OP.if);
    this.#pushHit(linear, entry, table);
    w.localSet(address);
    w.op(OP.else);
    this.#pushSlowArguments(linear, bytes, seg);
    w.call(this.host(slow));
    w.localTee(address);
    w.op(OP.i32_eqz);
    this.exits.faultIf(w);
    w.close();
    return address;
  }
  /** After a store through an address of {@link hostAddressWrite}. */
  finishWrite(address: number): void {
    const w = this.w;
    w.localGet(address);
    this.pushBase();
    w.i32Const(S.SPILL);
    w.op(OP.i32_add);
    w.op(OP.i32_eq);
    w.open(OP.if);
    this.pushBase();
    w.call(this.host("spillFlush"));
    w.close();
  }
  /** Stores at `linear`: `emitStore(pushAddress, offset)` pushes the address, then the value, then writes the store with that offset. */
  storeLinear(
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
    this.#pushSlowArguments(linear, bytes, seg);
    w.call(this.host("storeSlow"));
    this.exits.faultIf(w);
    w.close();
  }

  /** Remembers the host address of an operand that is read and will be written. */
  hold(o: Operand, address: number): void {
    this.#heldAddresses.set(o.index, address);
  }
  held(o: Operand): number | undefined {
    return this.#heldAddresses.get(o.index);
  }
}

/** Offset in the record of the field that locates operand `o`. */
export function slotOffset(o: Operand): number {
  switch (o.slot) {
    case "r0":
      return REC.r0;
    case "r1":
      return REC.r1;
    case "r2":
    case "imm2":
      return REC.r2;
    default:
      return REC.imm;
  }
}

/** Offset in the processor's block of a register operand fixed by its row. */
export function fixedOffset(o: Operand): number {
  if (o.kind === "xmm") return S.XMM + o.fixed! * 16;
  if (o.kind === "mm") return S.FPR + o.fixed! * 16;
  return S.GPR + o.fixed! * 8;
}
