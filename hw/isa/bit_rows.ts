/**
 * Bit instructions: BT and its sisters, scans and counts, BMI1 and BMI2, CRC32 (SDM vol. 2).
 *
 * Where the SDM leaves flags undefined they keep their values (BT, BSF, BSR, LZCNT, TZCNT), or are those of a
 * logical operation (BEXTR, BZHI, BLSI ...).
 *
 * Room: `hw/isa/`; rows of the instruction table, imports only the row's own vocabulary.
 *
 * @module
 */
import type { Builder, Semantic, Width } from "./builder.ts";
import { type Form, type Operand, type Row, row } from "./form.ts";
import { isZero, widthOf } from "./integer_common.ts";

/** What BTS, BTR and BTC do to the word with the one bit in `mask`; undefined for BT. */
type Change = (<I, C, X>(b: Builder<I, C, X>, w: Width, a: I, mask: I) => I) | undefined;

/** The offset of the word that holds bit `index` (signed, any size) of the string of bits at the memory operand. */
function bitWordOffset<I, C, X>(b: Builder<I, C, X>, f: Form, dst: Operand, index: I): I {
  const w = widthOf(dst);
  const logBits = w === 64 ? 6 : w === 32 ? 5 : 4;
  const words = b.sar(64, b.sx(w, 64, index), b.imm(logBits));
  const bytes = b.shl(64, words, b.imm(logBits - 3));
  return b.add(f.aw, b.ea(dst), b.zx(f.aw, bytes));
}

/** A register index reaches memory beyond the operand; an immediate one, and one into a register, is taken modulo w. */
function bitTest(change: Change): Semantic {
  return (b, o, f) => {
    const dst = o[0]!, w = widthOf(dst);
    const index = b.read(o[1]!);
    const n = b.and(index, b.imm(w - 1));
    const mask = b.shl(w, b.imm(1), n);
    if (dst.kind === "mem" && o[1]!.kind === "reg") {
      const offset = bitWordOffset(b, f, dst, index);
      if (change) b.probeWrite(f.segment, offset, w);
      const a = b.load(f.segment, offset, w);
      if (change) b.store(f.segment, offset, w, change(b, w, a, mask));
      b.setFlags({ CF: b.bit(b.shr(w, a, n), 0) });
    } else {
      const a = b.read(dst);
      b.setFlags({ CF: b.bit(b.shr(w, a, n), 0) });
      if (change) b.write(dst, change(b, w, a, mask));
    }
  };
}

function bitTestRow(mnemonic: string, group: number, opcode: string, change: Change): Row {
  const access = change ? "rw" : "r";
  return row(
    mnemonic,
    [`0F ${opcode} /r Ev:${access} Gv`, `0F BA /${group} Ev:${access} Ib`],
    { lock: change !== undefined },
    bitTest(change),
  );
}

/** BSF and BSR. A source of 0 leaves the destination as it was. */
function scan(forward: boolean): Semantic {
  return (b, o) => {
    const dst = o[0]!, w = widthOf(dst);
    const a = b.read(o[1]!);
    const zero = isZero(b, a);
    b.setFlags({ ZF: zero });
    b.if(b.notC(zero), () => {
      b.write(dst, forward ? b.ctz(w, a) : b.sub(w, b.imm(w - 1), b.clz(w, a)));
    });
  };
}

/** LZCNT and TZCNT. */
function zeroCount(which: "clz" | "ctz"): Semantic {
  return (b, o) => {
    const w = widthOf(o[0]!);
    const a = b.read(o[1]!), r = b[which](w, a);
    b.setFlags({ CF: isZero(b, a), ZF: isZero(b, r) });
    b.write(o[0]!, r);
  };
}

const population: Semantic = (b, o) => {
  const r = b.popcnt(b.read(o[1]!)), no = b.always(false);
  b.setFlags({ CF: no, PF: no, AF: no, ZF: isZero(b, r), SF: no, OF: no });
  b.write(o[0]!, r);
};

/** `a` without its bits from `n` up; all of it when n >= w (n may be up to 255). */
function lowBits<I, C, X>(b: Builder<I, C, X>, w: Width, a: I, n: I): I {
  const mask = b.sub(w, b.shl(w, b.imm(1), b.and(n, b.imm(63))), b.imm(1));
  return b.select(b.ltU(n, b.imm(w)), b.and(a, mask), a);
}

const bextr: Semantic = (b, o) => {
  const w = widthOf(o[0]!);
  const a = b.read(o[1]!), control = b.read(o[2]!);
  const start = b.zx(8, control), length = b.zx(8, b.shr(w, control, b.imm(8)));
  const shifted = b.shr(w, a, b.and(start, b.imm(63)));
  const r = lowBits(b, w, b.select(b.ltU(start, b.imm(w)), shifted, b.imm(0)), length);
  b.flagsLogic(w, r);
  b.write(o[0]!, r);
};

const bzhi: Semantic = (b, o) => {
  const w = widthOf(o[0]!);
  const a = b.read(o[1]!), n = b.zx(8, b.read(o[2]!));
  const r = lowBits(b, w, a, n);
  b.flagsResult(w, r, b.leU(b.imm(w), n), b.always(false));
  b.write(o[0]!, r);
};

/** BLSI, BLSMSK, BLSR: one operand; CF says whether it was 0 (BLSI: was not). */
function lowestBit(operation: "isolate" | "mask" | "reset"): Semantic {
  return (b, o) => {
    const w = widthOf(o[0]!);
    const a = b.read(o[1]!), zero = isZero(b, a);
    const below = b.sub(w, a, b.imm(1));
    const r = operation === "isolate"
      ? b.and(a, b.neg(w, a))
      : operation === "mask"
      ? b.xor(a, below)
      : b.and(a, below);
    b.flagsResult(w, r, operation === "isolate" ? b.notC(zero) : zero, b.always(false));
    b.write(o[0]!, r);
  };
}

/** PDEP and PEXT: one round for each bit of the mask, at most 64. */
function parallelBits(deposit: boolean): Semantic {
  return (b, o) => {
    const a = b.read(o[1]!);
    const mask = b.variable(b.read(o[2]!)), dense = b.variable(b.imm(1)), result = b.variable(b.imm(0));
    b.while(() => b.notC(isZero(b, mask.get())), () => {
      const m = mask.get(), d = dense.get();
      const low = b.and(m, b.neg(64, m));
      const from = deposit ? d : low, to = deposit ? low : d;
      result.set(b.or(result.get(), b.select(isZero(b, b.and(a, from)), b.imm(0), to)));
      mask.set(b.xor(m, low));
      dense.set(b.shl(64, d, b.imm(1)));
    });
    b.write(o[0]!, result.get());
  };
}

/** CRC32: polynomial 11EDC6F41H (iSCSI), reflected; one round for each bit of the source. */
const crc32: Semantic = (b, o) => {
  const dst = o[0]!, src = o[1]!, polynomial = b.imm(0x82f6_3b78);
  const value = b.variable(b.xor(b.zx(32, b.read(dst)), b.read(src)));
  const rounds = b.variable(b.imm(src.width));
  b.while(() => b.notC(isZero(b, rounds.get())), () => {
    const v = value.get(), half = b.shr(64, v, b.imm(1));
    value.set(b.select(b.bit(v, 0), b.xor(half, polynomial), half));
    rounds.set(b.sub(64, rounds.get(), b.imm(1)));
  });
  b.write(dst, value.get());
};

const bmi1 = { cpuid: "bmi1", protectedOnly: true } as const;
const bmi2 = { cpuid: "bmi2", protectedOnly: true } as const;

/** Bit rows. */
export const bitRows: readonly Row[] = [
  bitTestRow("BT", 4, "A3", undefined),
  bitTestRow("BTS", 5, "AB", (b, _w, a, mask) => b.or(a, mask)),
  bitTestRow("BTR", 6, "B3", (b, w, a, mask) => b.and(a, b.not(w, mask))),
  bitTestRow("BTC", 7, "BB", (b, _w, a, mask) => b.xor(a, mask)),
  row("BSF", ["0F BC /r Gv:rw Ev"], {}, scan(true)),
  row("BSR", ["0F BD /r Gv:rw Ev"], {}, scan(false)),
  // A processor without these two executes BSF and BSR.
  row("TZCNT", ["F3 0F BC /r Gv:w Ev"], { cpuid: "bmi1" }, zeroCount("ctz")),
  row("LZCNT", ["F3 0F BD /r Gv:w Ev"], { cpuid: "lzcnt" }, zeroCount("clz")),
  row("POPCNT", ["F3 0F B8 /r Gv:w Ev"], { cpuid: "popcnt" }, population),
  row("CRC32", ["F2 0F 38 F0 /r Gy:rw Eb", "F2 0F 38 F1 /r Gy:rw Ev"], { cpuid: "sse4_2" }, crc32),
  row("ANDN", ["VEX.L0.0F38 F2 /r Gy:w By Ey"], bmi1, (b, o) => {
    const w = widthOf(o[0]!);
    const r = b.and(b.not(w, b.read(o[1]!)), b.read(o[2]!));
    b.flagsLogic(w, r);
    b.write(o[0]!, r);
  }),
  row("BEXTR", ["VEX.L0.0F38 F7 /r Gy:w Ey By"], bmi1, bextr),
  row("BLSR", ["VEX.L0.0F38 F3 /1 By:w Ey"], bmi1, lowestBit("reset")),
  row("BLSMSK", ["VEX.L0.0F38 F3 /2 By:w Ey"], bmi1, lowestBit("mask")),
  row("BLSI", ["VEX.L0.0F38 F3 /3 By:w Ey"], bmi1, lowestBit("isolate")),
  row("BZHI", ["VEX.L0.0F38 F5 /r Gy:w Ey By"], bmi2, bzhi),
  row("PDEP", ["VEX.L0.F2.0F38 F5 /r Gy:w By Ey"], bmi2, parallelBits(true)),
  row("PEXT", ["VEX.L0.F3.0F38 F5 /r Gy:w By Ey"], bmi2, parallelBits(false)),
];
