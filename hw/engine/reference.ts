/**
 * The reference engine: descriptions carried out at once on bigints, one instruction at a time. It is the oracle of the
 * tests and the engine of single steps; everything in it is said the way the manual says it, and speed comes last.
 *
 * Flags are computed from their definitions (not by the lazy formulas of flags.ts, which the generated engines use), and
 * each memory operand goes through `cpu.access`, so that a wrong formula in a generated engine has something to differ from.
 *
 * Room: `hw/engine/`; knows the descriptions (`hw/isa/`), the processor and its `access`. It has no caches and no state
 * of its own between two steps.
 *
 * @module
 */
import type { Cpu, Procedures } from "../cpu.ts";
import { FAULT, VECTOR } from "../cpu.ts";
import type { Builder, Width } from "../isa/builder.ts";
import type { Decoded, Form, Operand } from "../isa/form.ts";
import { describe } from "../isa/prologue.ts";
import { EXIT_END, EXIT_FAULT, EXIT_NONE, EXIT_RETRY, R, S, SEG } from "../state.ts";
import { cut, high, low, ReferenceValues, signed } from "./reference_values.ts";

/** Thrown where a description ends inside a branch, and caught in {@link ReferenceEngine.step}. */
const ENDED: unique symbol = Symbol("ended");

/** `access` flag of a stack reference: a non-canonical address gives #SS(0). */
const HOW_STACK = 2;
/** CR4.LA57 is bit 12. */
const CR4_LA57_BIT = 12n;

/** The builder whose values are bigints: each operation happens when it is called. */
class ReferenceBuilder extends ReferenceValues implements Builder<bigint, boolean, bigint> {
  override cpu: Cpu;
  readonly #procedures: Procedures;
  #decoded!: Decoded;
  #form!: Form;
  #rip = 0n;
  /** Branches that the description is inside of. */
  #depth = 0;
  /** EXIT_ code of the instruction, and where RIP goes. */
  #exit: number = EXIT_NONE;
  #next = 0n;

  constructor(cpu: Cpu, procedures: Procedures) {
    super();
    this.cpu = cpu;
    this.#procedures = procedures;
  }

  /** Carries out `decoded` at RIP; see {@link ReferenceEngine.step}. */
  step(cpu: Cpu, decoded: Decoded): number {
    this.cpu = cpu;
    this.#decoded = decoded;
    this.#form = decoded.form;
    this.#rip = cpu.rip;
    this.#depth = 0;
    this.#exit = EXIT_NONE;
    this.#next = this.nextIp();
    cpu.set32(S.ILEN, decoded.length);
    cpu.set32(S.EXIT, EXIT_NONE);
    try {
      describe(this, decoded.form);
    } catch (thrown) {
      if (thrown === FAULT) {
        cpu.rip = this.#rip;
        const code = cpu.get32(S.EXIT) === EXIT_RETRY ? EXIT_RETRY : EXIT_FAULT;
        cpu.set32(S.EXIT, code);
        return code;
      }
      if (thrown !== ENDED) throw thrown;
    }
    // A procedure that ends the instruction has set RIP by itself.
    if (this.#exit === EXIT_NONE) cpu.rip = this.#next;
    return this.#exit;
  }

  /** The description is over. Inside a branch the code behind the branch must not run. */
  #end(): void {
    if (this.#depth > 0) throw ENDED;
  }

  // ---- operands

  /** What stands in the record for a register operand: a byte offset into the block, or a number. */
  #slot(o: Operand): number {
    return o.slot === "r0" ? this.#decoded.r0 : o.slot === "r1" ? this.#decoded.r1 : this.#decoded.r2;
  }

  override vectorOffset(o: Operand): number {
    return this.#slot(o);
  }

  override addressWidth(): number {
    return this.#form.aw;
  }

  get dataSegment(): number {
    return this.#form.segment >= 0 ? this.#form.segment : SEG.DS;
  }

  #segment(o: Operand): number {
    return o.fixed === R.RDI ? SEG.ES : this.#form.segment;
  }

  override segmentOf(o: Operand): bigint {
    return BigInt(this.#segment(o));
  }

  override ea(o: Operand): bigint {
    const d = this.#decoded, aw = this.#form.aw;
    if (o.fixed !== undefined) return this.cpu.gpr(o.fixed) & ((1n << BigInt(aw)) - 1n);
    if (o.slot === "imm") return cut(aw, this.#immediate());
    let base = this.cpu.get64(d.base);
    if (d.base === S.RIPPAGE) base = this.#rip + BigInt(d.length);
    return cut(aw, base + (this.cpu.get64(d.index) << BigInt(d.scale)) + BigInt(d.disp));
  }

  baseIs(_o: Operand, n: number): boolean {
    return this.#decoded.base === S.GPR + n * 8;
  }

  registerNumber(o: Operand): bigint {
    return BigInt(this.#slot(o));
  }
  farSelector(_o: Operand): bigint {
    return BigInt(this.#decoded.r2);
  }

  override linear(o: Operand): bigint {
    return this.#linear(this.#segment(o), this.ea(o));
  }

  #linear(seg: number, offset: bigint): bigint {
    if (this.#form.mode !== 2) return cut(32, offset + this.cpu.segBase(seg));
    return seg < SEG.FS ? offset : cut(64, offset + this.cpu.segBase(seg));
  }

  #immediate(): bigint {
    const d = this.#decoded;
    return (BigInt(d.immHigh) << 32n) | BigInt(d.immLow >>> 0);
  }

  // ---- values

  read(o: Operand): bigint {
    switch (o.kind) {
      case "reg":
      case "xmm":
      case "mm":
        return this.state(this.#slot(o), Math.min(o.width, 64) as Width);
      case "mem": {
        const w = o.width as Width, seg = this.#segment(o), offset = this.ea(o);
        return o.access === "rw" ? this.#loadToWrite(seg, offset, w) : this.load(seg, offset, w);
      }
      case "imm":
        if (o.fixed !== undefined) return BigInt(o.fixed);
        return cut(o.width, o.slot === "imm2" ? BigInt(this.#decoded.r2) : this.#immediate());
      case "rel":
        return this.relTarget(o);
      case "far":
        return cut(64, this.#immediate());
      default:
        return BigInt(this.#slot(o));
    }
  }

  write(o: Operand, value: bigint): void {
    const w = Math.min(o.width, 64) as Width;
    switch (o.kind) {
      case "reg":
        return this.setState(this.#slot(o), w === 32 ? 64 : w, cut(w, value));
      case "xmm":
      case "mm":
        return this.setState(this.#slot(o), w, value);
      case "mem":
        return this.store(this.#segment(o), this.ea(o), w, value);
      default:
        throw new Error(`Cannot write operand ${o.index} of ${this.#form.key}`);
    }
  }

  // ---- memory

  #how(seg: number): number {
    return seg === SEG.SS ? HOW_STACK : 0;
  }

  /** Segment checks; leaves the linear address in `access.linLow` and `linHigh`. */
  #check(seg: number, offset: bigint, bytes: number, write: boolean): void {
    this.cpu.access.segment(seg, low(offset), high(offset), bytes, write);
  }

  override load(seg: number, offset: bigint, w: Width): bigint {
    const bytes = (w / 8) as 1 | 2 | 4 | 8, access = this.cpu.access;
    this.#check(seg, offset, bytes, false);
    const value = BigInt(access.read(access.linLow, access.linHigh, bytes, this.#how(seg)) >>> 0);
    return bytes === 8 ? (BigInt(access.high >>> 0) << 32n) | value : value;
  }
  /** The read of a read-modify-write: a later write must not fault, and there is one translation for both, that for writes. */
  #loadToWrite(seg: number, offset: bigint, w: Width): bigint {
    const bytes = (w / 8) as 1 | 2 | 4 | 8, access = this.cpu.access;
    this.#check(seg, offset, bytes, true);
    const value = BigInt(access.readToWrite(access.linLow, access.linHigh, bytes, this.#how(seg)) >>> 0);
    return bytes === 8 ? (BigInt(access.high >>> 0) << 32n) | value : value;
  }
  override store(seg: number, offset: bigint, w: Width, value: bigint): void {
    const bytes = (w / 8) as 1 | 2 | 4 | 8, access = this.cpu.access;
    this.#check(seg, offset, bytes, true);
    const v = cut(w, value);
    access.write(access.linLow, access.linHigh, bytes, low(v), high(v), this.#how(seg));
  }
  override probeWrite(seg: number, offset: bigint, w: Width): void {
    const bytes = w / 8, access = this.cpu.access;
    this.#check(seg, offset, bytes, true);
    access.probe(access.linLow, access.linHigh, bytes, true, this.#how(seg));
  }

  #stackWidth(): Width {
    const mode = this.cpu.get32(S.STACKMODE);
    return this.#form.mode === 2 ? 64 : mode === 0 ? 16 : 32;
  }
  #stackOffset(delta: number): bigint {
    return cut(this.#stackWidth(), this.cpu.gpr(R.RSP) + BigInt(delta));
  }
  stackLoad(w: Width, delta: number): bigint {
    return this.load(SEG.SS, this.#stackOffset(delta), w);
  }
  stackStore(w: Width, delta: number, value: bigint): void {
    this.store(SEG.SS, this.#stackOffset(delta), w, value);
  }
  stackAdjust(delta: bigint): void {
    const w = this.#stackWidth();
    this.setReg(w, R.RSP, this.cpu.gpr(R.RSP) + delta);
  }

  // ---- control

  if(c: boolean, then: () => void, otherwise?: () => void): void {
    this.#depth++;
    if (c) then();
    else otherwise?.();
    this.#depth--;
  }
  while(c: () => boolean, body: () => void): void {
    this.#depth++;
    while (c()) body();
    this.#depth--;
  }
  nextIp(): bigint {
    return cut(this.#form.mode === 2 ? 64 : 32, this.#rip + BigInt(this.#decoded.length));
  }
  relTarget(_o: Operand): bigint {
    const form = this.#form;
    const w = form.mode === 2 ? 64 : form.w === 16 ? 16 : 32;
    return cut(w, this.#rip + BigInt(this.#decoded.length) + this.#immediate());
  }
  checkTarget(target: bigint): void {
    if (this.#form.mode !== 2) {
      if (target > BigInt(this.cpu.segLimit(SEG.CS))) this.fault(VECTOR.GP, 0);
      return;
    }
    const width = ((this.cpu.get64(S.CR4) >> CR4_LA57_BIT) & 1n) === 1n ? 57 : 48;
    if (cut(64, signed(width, target)) !== target) this.fault(VECTOR.GP, 0);
  }
  jump(target: bigint): void {
    this.#next = target;
    this.#end();
  }
  jumpRel(o: Operand): void {
    const target = this.relTarget(o);
    this.checkTarget(target);
    this.jump(target);
  }
  jumpRelIf(c: boolean, o: Operand): void {
    if (c) this.jumpRel(o);
    else this.#end();
  }
  again(): void {
    this.#next = this.#rip;
    this.#end();
  }
  bulk(_f: Form): void {
    // One iteration a step: that is what the others are compared with.
  }
  override fault(vector: number, errorCode?: number): never {
    return this.cpu.raise(vector, errorCode);
  }
  faultIf(c: boolean, vector: number, errorCode?: number): void {
    if (c) this.fault(vector, errorCode);
  }

  // ---- procedures

  /** Runs a procedure; gives its EXIT_ code, or throws FAULT. */
  #run(name: string, args: readonly bigint[]): number {
    const procedure = this.#procedures[name];
    if (procedure === undefined) throw new Error(`No procedure "${name}", which ${this.#form.key} calls`);
    args.forEach((value, i) => this.setState(S.ARG + i * 8, 64, value));
    const code = procedure(this.cpu);
    if (code === EXIT_FAULT || code === EXIT_RETRY) {
      this.cpu.set32(S.EXIT, code);
      throw FAULT;
    }
    return code;
  }
  override call(name: string, ...args: bigint[]): void {
    this.#run(name, args);
  }
  callResult(name: string, ...args: bigint[]): bigint {
    this.#run(name, args);
    return this.state(S.ARG, 64);
  }
  callEnd(name: string, ...args: bigint[]): void {
    this.cpu.rip = this.nextIp();
    const code = this.#run(name, args);
    this.#exit = code === EXIT_NONE ? EXIT_END : code;
    this.#end();
  }
}

/** The reference engine. */
export class ReferenceEngine {
  readonly #procedures: Procedures;
  #builder: ReferenceBuilder | undefined;

  /** @param procedures All named procedures that descriptions call (hw/procedures.ts). */
  constructor(procedures: Procedures) {
    this.#procedures = procedures;
  }

  /**
   * Executes the instruction `decoded`, which stands at RIP, once: one iteration if it has a repeat prefix.
   *
   * Preconditions: `decoded` was decoded at RIP for the code mode in force; S.STEPPING is nonzero if accesses that are not
   * plain RAM are to be carried out.
   *
   * @returns
   * - EXIT_NONE: done. RIP is the next instruction's, a jump's target, or unchanged after an iteration that is not the last.
   * - EXIT_END: done by a procedure that may have changed modes or RIP; look at everything afresh.
   * - EXIT_FAULT: FAULTVECTOR and FAULTCODE hold the fault. RIP is this instruction's, and nothing has changed but what the
   *   architecture says (accessed and dirty flags, iterations already done).
   * - EXIT_RETRY: an access needs S.STEPPING; nothing has changed.
   * - any other code that a procedure gave.
   *
   * Counting is the caller's: one retired instruction for every code but EXIT_FAULT and EXIT_RETRY.
   */
  step(cpu: Cpu, decoded: Decoded): number {
    this.#builder ??= new ReferenceBuilder(cpu, this.#procedures);
    return this.#builder.step(cpu, decoded);
  }
}
