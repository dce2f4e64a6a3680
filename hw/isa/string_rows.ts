/**
 * String instructions MOVS, CMPS, SCAS, STOS, LODS with and without repetition (SDM vol. 1, "String Instructions";
 * vol. 2, "REP/REPE/REPZ/REPNE/REPNZ").
 *
 * With a repeat prefix one execution is one iteration; the instruction goes on through `again`, so that interrupts,
 * faults and single steps come between iterations with rCX, rSI and rDI up to date. A count of 0 is one execution that
 * does nothing.
 *
 * Room: `hw/isa/`; rows of the instruction table, imports only the row's own vocabulary.
 *
 * @module
 */
import type { Builder, Semantic, Width } from "./builder.ts";
import { type Form, type Row, row } from "./form.ts";
import { R, RFLAGS, S, SEG } from "../state.ts";
import { constant, isZero, widthOf } from "./integer_common.ts";

const DF_BIT = Math.log2(RFLAGS.DF);

/** Moves rSI or rDI past one element, up or down by DF, in the address size. */
function advance<I, C, X>(b: Builder<I, C, X>, f: Form, w: Width, registers: readonly number[]): void {
  const down = b.bit(b.state(S.RFLAGS, 32), DF_BIT);
  const step = b.select(down, constant(b, f.aw, -w / 8), b.imm(w / 8));
  for (const n of registers) b.setReg(f.aw, n, b.add(f.aw, b.reg(f.aw, n), step));
}

/**
 * Carries out one iteration. `element` does the work and moves the pointers, and says whether a repetition may go on
 * (undefined: always).
 */
function repeat<I, C, X>(b: Builder<I, C, X>, f: Form, element: () => C | undefined): void {
  if (f.rep === 0) {
    element();
    return;
  }
  b.if(b.notC(isZero(b, b.reg(f.aw, R.RCX))), () => {
    const goesOn = element();
    const left = b.sub(f.aw, b.reg(f.aw, R.RCX), b.imm(1));
    b.setReg(f.aw, R.RCX, left);
    const more = b.notC(isZero(b, left));
    b.if(goesOn === undefined ? more : b.andC(more, goesOn), () => b.again());
  });
}

/** A "move" row: F2H repeats like F3H. MOVS and STOS can be done by the page. */
function moving(
  element: <I, C, X>(b: Builder<I, C, X>, o: Parameters<Semantic>[1], f: Form) => void,
  bulk: boolean,
): Semantic {
  return (b, o, f) => {
    if (bulk && f.rep !== 0) b.bulk(f);
    repeat(b, f, () => {
      element(b, o, f);
      return undefined;
    });
  };
}

/** REPE goes on while ZF is set, REPNE while it is clear. */
function goesOn<I, C, X>(b: Builder<I, C, X>, f: Form, equal: C): C {
  return f.rep === 2 ? b.notC(equal) : equal;
}

const movs = moving((b, o, f) => {
  const src = o[0]!, w = widthOf(src);
  b.store(SEG.ES, b.reg(f.aw, R.RDI), w, b.read(src));
  advance(b, f, w, [R.RSI, R.RDI]);
}, true);

const stos = moving((b, o, f) => {
  const w = widthOf(o[0]!);
  b.store(SEG.ES, b.reg(f.aw, R.RDI), w, b.reg(w, R.RAX));
  advance(b, f, w, [R.RDI]);
}, true);

const lods = moving((b, o, f) => {
  const src = o[0]!, w = widthOf(src);
  b.setReg(w, R.RAX, b.read(src));
  advance(b, f, w, [R.RSI]);
}, false);

const cmps: Semantic = (b, o, f) =>
  repeat(b, f, () => {
    const src = o[0]!, w = widthOf(src);
    const a = b.read(src), c = b.load(SEG.ES, b.reg(f.aw, R.RDI), w);
    b.flagsSub(w, a, c, b.sub(w, a, c));
    advance(b, f, w, [R.RSI, R.RDI]);
    return goesOn(b, f, b.eq(a, c));
  });

const scas: Semantic = (b, o, f) =>
  repeat(b, f, () => {
    const w = widthOf(o[0]!);
    const a = b.reg(w, R.RAX), c = b.load(SEG.ES, b.reg(f.aw, R.RDI), w);
    b.flagsSub(w, a, c, b.sub(w, a, c));
    advance(b, f, w, [R.RDI]);
    return goesOn(b, f, b.eq(a, c));
  });

/** String rows. */
export const stringRows: readonly Row[] = [
  row("MOVS", ["A4 Xb", "A5 Xv"], { string: "move", ends: true }, movs),
  row("CMPS", ["A6 Xb", "A7 Xv"], { string: "compare", ends: true }, cmps),
  row("STOS", ["AA AL", "AB rAX"], { string: "move", ends: true }, stos),
  row("LODS", ["AC Xb", "AD Xv"], { string: "move", ends: true }, lods),
  row("SCAS", ["AE AL", "AF rAX"], { string: "compare", ends: true }, scas),
];
