/**
 * The language in which instructions are described (DESIGN 2.2). A description is a function of a `Builder`;
 * each engine is an implementation of this interface:
 *
 * - reference: `I` is a bigint, `C` a boolean, everything is evaluated at once, `if` runs one branch;
 * - interpreter: `I`, `C`, `X` stand for wasm locals or constants; calling an operation emits its code;
 * - compiled: as the interpreter, with operands that are constants and registers that are locals.
 *
 * Rules that every description keeps:
 *
 * 1. An integer value of width `w` is zero-extended to 64 bits. Operations that take `w` expect and give such values.
 * 2. All that can fault comes before the first change of architectural state (state is precise). `read`
 *    of an operand that the form says is read and written also checks that it may be written, so a later `write` to
 *    it cannot fault. Two writes to memory in one instruction: call `probeWrite` for the second first.
 * 3. `if` branches emit at once; a value made inside a branch is not used outside it (use a `variable`).
 * 4. After `fault`, `jump`, `again`, `callEnd` the branch is over: no further operation in it.
 *
 * Room: `hw/isa/`; imports only types. Nothing here knows an engine.
 *
 * @module
 */
import type { Form, Operand } from "./form.ts";
import type { VectorBuilder } from "./vector.ts";

/** Operand and operation widths in bits. */
export type Width = 8 | 16 | 32 | 64;

/** The six status flags. */
export type FlagName = "CF" | "PF" | "AF" | "ZF" | "SF" | "OF";

/** A mutable integer inside one description. */
export interface Variable<I> {
  get(): I;
  set(value: I): void;
}

/**
 * What a description may say. `I` integer values up to 64 bits, `C` conditions, `X` 128-bit values.
 */
export interface Builder<I, C, X> extends VectorBuilder<I, C, X> {
  // ---- values
  /** A constant, reduced to 64 bits. */
  imm(value: bigint | number): I;
  /** Reads an integer operand, zero-extended from its width (an immediate is already sign-extended to its form's width). Memory operands may fault. */
  read(o: Operand): I;
  /** Writes an integer operand: 32-bit register writes clear the upper half; 8- and 16-bit ones keep the rest. May fault only if the operand was not read before. */
  write(o: Operand, value: I): void;
  /** Reads general-purpose register `n` (0 … 15, see `R`), zero-extended from `w`. Never AH … BH. */
  reg(w: Width, n: number): I;
  /** Writes general-purpose register `n`; widths as for {@link write}. */
  setReg(w: Width, n: number, value: I): void;
  /** Reads `w` bits at a byte offset of the processor's block (an `S` constant). */
  state(offset: number, w: Width): I;
  /** Writes `w` bits at a byte offset of the processor's block. */
  setState(offset: number, w: Width, value: I): void;
  /** A mutable local. */
  variable(initial: I): Variable<I>;

  // ---- arithmetic: operands and result zero-extended from w
  add(w: Width, a: I, b: I): I;
  sub(w: Width, a: I, b: I): I;
  /** Low half of the product. */
  mul(w: Width, a: I, b: I): I;
  /** High 64 bits of the unsigned 128-bit product. */
  mulHighU(a: I, b: I): I;
  /** High 64 bits of the signed 128-bit product. */
  mulHighS(a: I, b: I): I;
  /** 64-bit quotients and remainders. Precondition: b ≠ 0, and for the signed ones no overflow. */
  divU(a: I, b: I): I;
  remU(a: I, b: I): I;
  divS(a: I, b: I): I;
  remS(a: I, b: I): I;
  and(a: I, b: I): I;
  or(a: I, b: I): I;
  xor(a: I, b: I): I;
  not(w: Width, a: I): I;
  neg(w: Width, a: I): I;
  /** Shifts by `n`, 0 ≤ n ≤ 63; bits shifted out of w are lost; n ≥ w gives 0 (sar: the sign). */
  shl(w: Width, a: I, n: I): I;
  shr(w: Width, a: I, n: I): I;
  sar(w: Width, a: I, n: I): I;
  /** Rotations by `n`, 0 ≤ n < w. */
  rotl(w: Width, a: I, n: I): I;
  rotr(w: Width, a: I, n: I): I;
  bswap(w: 32 | 64, a: I): I;
  popcnt(a: I): I;
  /** Leading zeros in w bits (w when a = 0). */
  clz(w: Width, a: I): I;
  /** Trailing zeros in w bits (w when a = 0). */
  ctz(w: Width, a: I): I;
  /** Keeps the low `w` bits. */
  zx(w: Width, a: I): I;
  /** Sign-extends from `from` bits to `to` bits (zero-extended above `to`). */
  sx(from: Width, to: Width, a: I): I;

  // ---- conditions
  eq(a: I, b: I): C;
  ne(a: I, b: I): C;
  ltU(a: I, b: I): C;
  leU(a: I, b: I): C;
  /** Signed comparison of w-bit values. */
  ltS(w: Width, a: I, b: I): C;
  /** Bit `n` (a constant, 0 … 63) of `a`. */
  bit(a: I, n: number): C;
  notC(c: C): C;
  andC(a: C, b: C): C;
  orC(a: C, b: C): C;
  xorC(a: C, b: C): C;
  always(value: boolean): C;
  /** 1 or 0. */
  toInt(c: C): I;
  select(c: C, a: I, b: I): I;

  // ---- status flags
  /** All six flags of r = a + b (+ carry in). */
  flagsAdd(w: Width, a: I, b: I, r: I): void;
  /** All six flags of r = a − b (− borrow in). */
  flagsSub(w: Width, a: I, b: I, r: I): void;
  /** CF = OF = AF = 0; SF, ZF, PF of r. */
  flagsLogic(w: Width, r: I): void;
  /** Flags of r = a + 1: all but CF. */
  flagsInc(w: Width, r: I): void;
  /** Flags of r = a − 1: all but CF. */
  flagsDec(w: Width, r: I): void;
  /** SF, ZF, PF of r; CF and OF as given; AF = 0 or as given. */
  flagsResult(w: Width, r: I, cf: C, of: C, af?: C): void;
  /** Sets exactly the flags named; the others keep their values. */
  setFlags(flags: { readonly [name in FlagName]?: C }): void;
  flag(name: FlagName): C;
  /** The condition encoded by `cc` 0 … 15 (O NO B AE E NE BE A S NS P NP L GE LE G). */
  condition(cc: number): C;
  /** The whole RFLAGS image, all bits. */
  flagsImage(): I;

  // ---- memory
  /** Effective address (offset in its segment) of a memory operand, zero-extended from the address size. */
  ea(o: Operand): I;
  /** The base register of memory operand `o` is general-purpose register `n` (POP to memory must know whether it is rSP). */
  baseIs(o: Operand, n: number): C;
  /** Reads w bits at seg:offset; `seg` is a `SEG` number, `offset` zero-extended from the form's address size. May fault. */
  load(seg: number, offset: I, w: Width): I;
  /** Writes w bits at seg:offset. May fault. */
  store(seg: number, offset: I, w: Width, value: I): void;
  /** Faults if w bits at seg:offset may not be written; changes nothing but accessed and dirty bits. */
  probeWrite(seg: number, offset: I, w: Width): void;
  /** The segment number of the form's memory operand with its override applied; SEG.DS where the form has none. */
  readonly dataSegment: number;
  /** Reads w bits at SS:rSP + delta (stack-address size applied). May fault. */
  stackLoad(w: Width, delta: number): I;
  /** Writes w bits at SS:rSP + delta. May fault. rSP is unchanged. */
  stackStore(w: Width, delta: number, value: I): void;
  /** rSP := rSP + delta in the stack-address size. */
  stackAdjust(delta: I): void;

  // ---- control
  if(c: C, then: () => void, otherwise?: () => void): void;
  /** While `c()` holds, `body()`. The description states a bound of at most 64 rounds. */
  while(c: () => C, body: () => void): void;
  /** IP of the next instruction, in the code size's width. */
  nextIp(): I;
  /** Target IP of a relative operand (`J`), truncated to the form's operand size. */
  relTarget(o: Operand): I;
  /** Faults #GP(0) if a near transfer to `target` would (non-canonical, beyond CS limit). */
  checkTarget(target: I): void;
  /** Near transfer to `target`, which `checkTarget` has passed. Ends the instruction. */
  jump(target: I): void;
  /** Near transfer to a relative operand, with the check. Ends the instruction. */
  jumpRel(o: Operand): void;
  /** If `c`, jumpRel, else the next instruction. Ends the instruction. */
  jumpRelIf(c: C, o: Operand): void;
  /** Counts this execution and executes the same instruction again (the next iteration of a repeated string operation). */
  again(): void;
  /** Optional short cut of a repeated string instruction: an engine may do several whole iterations at once here, and count them. */
  bulk(f: Form): void;
  /** Raises an exception; ends the instruction, uncounted, with nothing changed. */
  fault(vector: number, errorCode?: number): void;
  /** `if (c) fault(...)`. */
  faultIf(c: C, vector: number, errorCode?: number): void;

  // ---- procedures (hw/sys/, hw/isa/*_proc.ts): named TypeScript functions, the same for all engines
  /** Calls a procedure with up to four integer arguments. It may fault. */
  call(name: string, ...args: I[]): void;
  /** Calls a procedure and gives its result (`ARG` slot 0 after the call). It may fault. */
  callResult(name: string, ...args: I[]): I;
  /**
   * Calls a procedure that may change RIP, modes, privilege, interruptibility or translation. Before the call RIP
   * is set to the *next* instruction if `advance` (default), so that the procedure may overwrite it; on a fault RIP is put back. Ends the instruction.
   */
  callEnd(name: string, ...args: I[]): void;
  /** Linear address of a memory operand (segment base added; limits and canonicality are checked by the access itself). For procedures that access memory by themselves, whose checks must see the segment, pass `ea` and `segmentOf` too. */
  linear(o: Operand): I;
  /** Segment number of a memory operand, as a constant value. */
  segmentOf(o: Operand): I;
  /** Number of the segment, control or debug register that an operand of kind "seg", "cr", "dr" names. */
  registerNumber(o: Operand): I;
  /** Selector of an operand of kind "far" (a 16-bit value, slot "imm2"); `read` gives its offset. */
  farSelector(o: Operand): I;
}

/** One instruction's meaning. */
export type Semantic = <I, C, X>(
  b: Builder<I, C, X>,
  o: readonly Operand[],
  f: Form,
) => void;
