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
import { loadStatusFlags, storeStatusFlags } from "../flags.ts";
import type { Builder, FlagName, Variable, Width } from "../isa/builder.ts";
import type { Decoded, Form, Operand } from "../isa/form.ts";
import { describe } from "../isa/prologue.ts";
import { EXIT_END, EXIT_FAULT, EXIT_NONE, EXIT_RETRY, R, RFLAGS, RFLAGS_STATUS, S, SEG } from "../state.ts";
import { ReferenceVector } from "./reference_vector.ts";

/** Thrown where a description ends inside a branch, and caught in {@link ReferenceEngine.step}. */
const ENDED: unique symbol = Symbol("ended");

/** `access` flag of a stack reference: a non-canonical address gives #SS(0). */
const HOW_STACK = 2;
/** CR4.LA57 is bit 12. */
const CR4_LA57_BIT = 12n;

const FLAG_BIT: Readonly<Record<FlagName, number>> = {
  CF: RFLAGS.CF,
  PF: RFLAGS.PF,
  AF: RFLAGS.AF,
  ZF: RFLAGS.ZF,
  SF: RFLAGS.SF,
  OF: RFLAGS.OF,
};

/** Low half of a 64-bit value. */
function low(value: bigint): number {
  return Number(value & 0xffff_ffffn);
}
/** High half of a 64-bit value. */
function high(value: bigint): number {
  return Number((value >> 32n) & 0xffff_ffffn);
}
/** `value` cut to `w` bits. */
function cut(w: number, value: bigint): bigint {
  return BigInt.asUintN(w, value);
}
/** `value` as a signed number of `w` bits. */
function signed(w: number, value: bigint): bigint {
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

/** The builder whose values are bigints: each operation happens when it is called. */
class ReferenceBuilder extends ReferenceVector implements Builder<bigint, boolean, bigint> {
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

  imm(value: bigint | number): bigint {
    return cut(64, BigInt(value));
  }

  read(o: Operand): bigint {
    switch (o.kind) {
      case "reg":
      case "xmm":
      case "mm":
        return this.state(this.#slot(o), Math.min(o.width, 64) as Width);
      case "mem": {
        const w = o.width as Width, seg = this.#segment(o), offset = this.ea(o);
        // A later write must not fault, so the right to write is asked for first.
        if (o.access === "rw") this.probeWrite(seg, offset, w);
        return this.load(seg, offset, w);
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
