/**
 * Rows, forms and operands: the vocabulary that the instruction table, the decoder and the engines share.
 *
 * A *row* is one mnemonic with all its encodings and its one description. A *form* is a row as decoded with everything
 * static fixed: operand width, address size, operand kinds, condition code, code mode. Engines make code (or a
 * bigint evaluation) per form; what differs between two instructions of one form (which registers, displacement, immediate) is dynamic
 * and stands in the decoded record.
 *
 * Room: `hw/isa/`; imports only types.
 *
 * @module
 */
import type { Semantic, Width } from "./builder.ts";

/** What an operand is once decoded. */
export type OperandKind =
  | "reg" // general-purpose register (or AH … BH)
  | "mem"
  | "imm"
  | "rel" // J: relative target
  | "far" // ptr16:16, ptr16:32
  | "xmm"
  | "mm"
  | "st" // x87 stack register, i relative to TOP
  | "seg"
  | "cr"
  | "dr";

/** How an instruction uses an operand. */
export type OperandAccess = "r" | "w" | "rw" | "none";

/** One operand of a form. */
export interface Operand {
  /** Position in the operand list. */
  readonly index: number;
  readonly kind: OperandKind;
  /** Width in bits. 80 and 128 and up for x87 and vector memory, 0 where only the address matters. */
  readonly width: number;
  readonly access: OperandAccess;
  /**
   * Where a register operand's offset stands in the record ("r0", "r1", "r2"), or for kinds "seg", "cr", "dr", "st" where its number stands.
   * For "mem": the memory fields; slot "imm" is a moffs, whose offset is the immediate; `fixed` 6 or 7 a string operand at rSI or rDI. For "imm", "rel", "far": the immediate field; `slot` "imm2" is a second immediate (ENTER, far pointer selector) in `r2`.
   */
  readonly slot: "r0" | "r1" | "r2" | "mem" | "imm" | "imm2";
  /** A register number fixed by the row (AL, CL, rAX, XMM0 …), or undefined. */
  readonly fixed?: number;
}

/** 0 = 16-bit code, 1 = 32-bit code, 2 = 64-bit code. */
export type CodeMode = 0 | 1 | 2;

/** A row with everything static fixed. */
export interface Form {
  /** Unique; equal keys mean the same code. */
  readonly key: string;
  readonly row: Row;
  /** Operand size in bits (8 for byte rows). */
  readonly w: Width;
  /** Address size in bits. */
  readonly aw: 16 | 32 | 64;
  readonly mode: CodeMode;
  /** Low four bits of the opcode, for rows with a condition. */
  readonly cc: number;
  /** Repeat prefix of a string row: 0 none, 2 REPNE, 3 REP/REPE. */
  readonly rep: 0 | 2 | 3;
  readonly lock: boolean;
  /** Segment number of the memory operand, override applied; −1 without memory operand. String rows have it as well (their DS:rSI side). */
  readonly segment: number;
  readonly operands: readonly Operand[];
}

/** Rules that apply to a whole row, checked by the decoder (static) or by the shared prologue (dynamic). */
export interface RowFlags {
  /** LOCK is allowed if operand 0 is memory. */
  readonly lock?: boolean;
  /** #GP(0) unless CPL = 0 (prologue). */
  readonly cpl0?: boolean;
  /** Trap group: which of the SSETRAP/FPUTRAP/MMXTRAP words the prologue tests. */
  readonly trap?: "sse" | "x87" | "mmx";
  /** Not valid (#UD) in 64-bit mode / outside it / in real and virtual-8086 mode. */
  readonly no64?: boolean;
  readonly only64?: boolean;
  readonly protectedOnly?: boolean;
  /** CPUID feature that the row needs ("sse4_1", "bmi1" …); absent from the CPU model means #UD. */
  readonly cpuid?: string;
  /** A string row: REP means repetition, not a mandatory prefix. "compare" rows end on ZF too. */
  readonly string?: "move" | "compare";
  /** Ends a straight line of records (control transfer, mode change); set where the description uses jump, again or callEnd. */
  readonly ends?: boolean;
}

/** One instruction: all encodings, and what it means. */
export interface Row {
  readonly mnemonic: string;
  readonly encodings: readonly string[];
  readonly flags: RowFlags;
  readonly semantic: Semantic;
}

/** Makes a row of the instruction table. */
export function row(
  mnemonic: string,
  encodings: readonly string[],
  flags: RowFlags,
  semantic: Semantic,
): Row {
  return { mnemonic, encodings, flags, semantic };
}

/** A decoded instruction: its form and its dynamic part, in the shape of the record (see `REC` in state.ts). */
export interface Decoded {
  readonly form: Form;
  /** Length in bytes, 1 … 15. */
  readonly length: number;
  /** Byte offsets into the processor's block, or numbers (segment, control, debug, x87 registers). */
  readonly r0: number;
  readonly r1: number;
  readonly r2: number;
  /** Memory operand: byte offsets into the processor's block; `S.ZERO` where absent; base `S.RIPPAGE` when RIP-relative (displacement then lacks offset and length, see decode.ts). */
  readonly base: number;
  readonly index: number;
  readonly scale: number;
  readonly segment: number;
  readonly disp: number;
  /** Immediate or relative displacement, as signed 64-bit halves. */
  readonly immLow: number;
  readonly immHigh: number;
}
