/**
 * Decimal and ASCII adjustments and SALC, which 64-bit mode does not have (SDM vol. 2: AAA, AAD, AAM, AAS, DAA, DAS).
 *
 * Where the SDM leaves flags undefined they are 0 (OF), keep their values (AAA, AAS: all but AF and CF), or are those of
 * a logical operation (AAD, AAM).
 *
 * Room: `hw/isa/`; rows of the instruction table, imports only the row's own vocabulary.
 *
 * @module
 */
import type { Builder, Semantic } from "./builder.ts";
import { type Row, row } from "./form.ts";
import { R } from "../state.ts";
import { isZero } from "./integer_common.ts";

const DE = 0;

/** The low digit of AL is above 9, or the last operation carried out of it. */
function lowDigitOff<I, C, X>(b: Builder<I, C, X>, al: I): C {
  return b.orC(b.ltU(b.imm(9), b.and(al, b.imm(15))), b.flag("AF"));
}

/** AAA and AAS: AX +/- 106H, and the low digit alone stays in AL. */
function asciiAdjust(operation: "add" | "sub"): Semantic {
  return (b) => {
    const ax = b.reg(16, R.RAX);
    const off = lowDigitOff(b, b.zx(8, ax));
    const adjusted = b.select(off, b[operation](16, ax, b.imm(0x106)), ax);
    b.setFlags({ AF: off, CF: off });
    b.setReg(16, R.RAX, b.and(adjusted, b.imm(0xff0f)));
  };
}

/** DAA and DAS. */
function decimalAdjust(operation: "add" | "sub"): Semantic {
  return (b) => {
    const old = b.reg(8, R.RAX), oldCarry = b.flag("CF");
    const low = lowDigitOff(b, old);
    const six = b.imm(6), sixty = b.imm(0x60);
    const high = b.orC(b.ltU(b.imm(0x99), old), oldCarry);
    const first = b.select(low, b[operation](8, old, six), old);
    const r = b.select(high, b[operation](8, first, sixty), first);
    // DAS keeps a borrow out of the first step; after DAA's first step a carry implies that the second is due.
    const carry = operation === "sub" ? b.orC(high, b.andC(low, b.ltU(old, six))) : high;
    b.flagsResult(8, r, carry, b.always(false), low);
    b.setReg(8, R.RAX, r);
  };
}

/** Rows that 64-bit mode lacks. */
export const legacyRows: readonly Row[] = [
  row("AAA", ["37"], { no64: true }, asciiAdjust("add")),
  row("AAS", ["3F"], { no64: true }, asciiAdjust("sub")),
  row("DAA", ["27"], { no64: true }, decimalAdjust("add")),
  row("DAS", ["2F"], { no64: true }, decimalAdjust("sub")),
  row("AAM", ["D4 Ib"], { no64: true }, (b, o) => {
    const base = b.read(o[0]!);
    b.faultIf(isZero(b, base), DE);
    const al = b.reg(8, R.RAX);
    const low = b.remU(al, base);
    b.flagsLogic(8, low);
    b.setReg(16, R.RAX, b.or(b.shl(16, b.divU(al, base), b.imm(8)), low));
  }),
  row("AAD", ["D5 Ib"], { no64: true }, (b, o) => {
    const ax = b.reg(16, R.RAX);
    const al = b.zx(8, b.add(64, ax, b.mul(64, b.shr(16, ax, b.imm(8)), b.read(o[0]!))));
    b.flagsLogic(8, al);
    b.setReg(16, R.RAX, al);
  }),
  row("SALC", ["D6"], { no64: true }, (b) => b.setReg(8, R.RAX, b.neg(8, b.toInt(b.flag("CF"))))),
];
