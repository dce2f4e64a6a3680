/**
 * The builder of descriptions (hw/isa/builder.ts) that writes wasm: values are locals, operands come from the decoded record.
 *
 * Here: operands, memory, control, procedures. The layers below are integers.ts and status_flags.ts, vector.ts, lanes.ts and base.ts.
 *
 * Room: `hw/engine/wasm/`; imports its layers and the types of `hw/isa/`.
 *
 * @module
 */
import { EXIT_FAULT, REC, S, SEG } from "../../state.ts";
import type { Builder, Width } from "../../isa/builder.ts";
import type { Form, Operand } from "../../isa/form.ts";
import { OP, T } from "./emit.ts";
import { P, RECORD_SHIFT, slotOffset, type WasmCond, type WasmInt, type WasmVec } from "./base.ts";
import { LOAD, STORE } from "./integers.ts";
import { WasmFlags } from "./status_flags.ts";

/** What an imported procedure gives: go on. */
export const PROCEDURE_DONE = 0;
/** It did not complete; why stands in S.EXIT. */
export const PROCEDURE_FAULT = 1;
/** It completed, and the run loop must look before the next instruction. */
export const PROCEDURE_END = 2;

/** Writes wasm for descriptions; one per module being written. */
export class WasmBuilder extends WasmFlags implements Builder<WasmInt, WasmCond, WasmVec> {
  /** Names of procedures that the module's handlers call, each imported as `proc:NAME`. */
  readonly procedures = new Set<string>();

  get dataSegment(): number {
    return this.form.segment >= 0 ? this.form.segment : SEG.DS;
  }
  /** True once the description has left the instruction on its straight path. */
  get hasLeft(): boolean {
    return this.left;
  }

  // ---- operands

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

  // ---- memory

  ea(o: Operand): WasmInt {
    return this.effectiveAddress(o);
  }
  baseIs(_o: Operand, n: number): WasmCond {
    const w = this.w;
    this.pushField16(REC.base);
    w.i32Const(S.GPR + n * 8);
    w.op(OP.i32_eq);
    return this.takeC();
  }
  registerNumber(o: Operand): WasmInt {
    if (o.fixed !== undefined) return this.imm(o.fixed);
    this.pushField16(slotOffset(o));
    this.w.op(OP.i64_extend_i32_u);
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
    this.push(this.reg(64, 4));
    if (delta !== 0) {
      w.i64Const(BigInt(delta));
      w.op(OP.i64_add);
    }
    if (this.form.mode !== 2) {
      w.i64Const(0xffff_ffffn);
      w.i64Const(0xffffn);
      this.pushBase();
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
    this.pushBase();
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
    const before = this.last;
    const leftBefore = this.left;
    this.flagsEpoch++;
    then();
    const leftThen = this.left;
    let changed = this.last !== before;
    let leftOtherwise = leftBefore;
    if (otherwise) {
      w.op(OP.else);
      this.last = before;
      this.left = leftBefore;
      otherwise();
      changed ||= this.last !== before;
      leftOtherwise = this.left;
    }
    this.flagsEpoch--;
    this.last = changed ? undefined : before;
    this.left = leftBefore || (leftThen && leftOtherwise);
    w.close();
  }
  while(c: () => WasmCond, body: () => void): void {
    const w = this.w;
    this.last = undefined;
    this.flagsEpoch++;
    const out = w.open(OP.block);
    const again = w.open(OP.loop);
    this.pushC(c());
    w.op(OP.i32_eqz);
    w.branch(OP.br_if, out);
    body();
    w.branch(OP.br, again);
    w.close();
    w.close();
    this.flagsEpoch--;
    this.last = undefined;
  }
  /** Pushes IP of this instruction (with `advance`, of the next one). */
  protected pushIp(advance: boolean): void {
    const w = this.w;
    this.pushBase();
    w.memory(OP.i64_load, S.RIPPAGE);
    w.localGet(P.ptr);
    w.memory(OP.i64_load16_u, REC.pageOffset);
    w.op(OP.i64_add);
    if (advance) {
      w.localGet(P.ptr);
      w.memory(OP.i64_load8_u, REC.length);
      w.op(OP.i64_add);
    }
    if (this.form.mode !== 2) this.cut(32);
  }
  nextIp(): WasmInt {
    this.pushIp(true);
    return this.take();
  }
  relTarget(_o: Operand): WasmInt {
    const w = this.w;
    this.pushBase();
    w.memory(OP.i64_load, S.RIPPAGE);
    w.localGet(P.ptr);
    w.memory(OP.i64_load, REC.imm);
    w.op(OP.i64_add);
    this.cut(this.form.mode === 2 ? 64 : this.form.w === 16 ? 16 : 32);
    return this.take();
  }
  checkTarget(target: WasmInt): void {
    if (this.form.mode === 2) {
      // Canonical: bits 63:47 equal; with CR4.LA57 = 1 bits 63:56 are enough.
      const outside = (shift: number) => {
        const w = this.w;
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
    // A called handler has only a copy of the limit, which the iterations would have to change.
    if (!this.exits.inline) return;
    const w = this.w;
    this.pushContext();
    w.i32Const(bulkInfo(f));
    w.call(this.host("bulk"));
    const count = this.newLocal(T.i32);
    w.localSet(count);
    w.localGet(P.limit);
    w.localGet(count);
    w.i32Const(RECORD_SHIFT);
    w.op(OP.i32_shl);
    w.op(OP.i32_sub);
    w.localSet(P.limit);
  }
  fault(vector: number, errorCode = -1): void {
    this.effects.exits = true;
    const w = this.w;
    const set = (offset: number, value: number) => {
      this.pushBase();
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
    this.pushBase();
    this.pushIp(advance);
    w.memory(OP.i64_store, S.RIP);
    this.pushBase();
    w.localGet(P.ptr);
    w.memory(OP.i32_load8_u, REC.length);
    w.memory(OP.i32_store, S.ILEN);
    this.pushBase();
    w.localGet(P.limit);
    w.localGet(P.ptr);
    w.op(OP.i32_sub);
    w.i32Const(RECORD_SHIFT);
    w.op(OP.i32_shr_u);
    w.memory(OP.i32_store, S.REMAINING);
    this.pushBase();
    this.procedures.add(name);
    w.call(this.module.importFunction(`proc:${name}`, [T.i32], [T.i32]));
  }
  call(name: string, ...args: WasmInt[]): void {
    this.#callProcedure(name, args, false);
    this.last = undefined;
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
    this.last = undefined;
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
