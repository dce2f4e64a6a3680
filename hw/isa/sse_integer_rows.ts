/**
 * Packed integer instructions on XMM registers: SSE2, SSSE3, SSE4.1, SSE4.2. SDM vol. 1, chapters on SSE2 to SSE4.
 *
 * Room: `hw/isa/`. What exists with MMX registers too is described in packed.ts.
 *
 * @module
 */
import { S } from "../state.ts";
import type { Builder } from "./builder.ts";
import type { Operand, Row, RowFlags } from "./form.ts";
import { row } from "./form.ts";
import { imm8, PACKED, PACKED_SHIFTS, readSource, zeroX } from "./packed.ts";
import type { Lane, PermuteKind } from "./vector.ts";

/** Row flags of an SSE instruction of one feature. */
function sse(cpuid: string): RowFlags {
  return { trap: "sse", cpuid };
}

/** dst := permutation of (dst, src) or, when `single`, of src alone. */
function permuteRow(kind: PermuteKind, encoding: string, cpuid: string, single: boolean): Row {
  return row(kind, [encoding], sse(cpuid), (b, [dst, src, imm]) => {
    const source = readSource(b, src!);
    b.writeX(dst!, b.permute(kind, single ? source : b.readX(dst!), source, imm8(b, imm!)));
  });
}

/** Shift of the whole register by an immediate number of bytes. */
function byteShiftRow(kind: "PSRLDQ" | "PSLLDQ", encoding: string): Row {
  return row(kind, [encoding], sse("sse2"), (b, [dst, imm]) => {
    const value = b.readX(dst!);
    b.writeX(dst!, b.permute(kind, value, value, imm8(b, imm!)));
  });
}

/** PMOVSX*, PMOVZX*: the low lanes of `from` bits widened to `to` bits by interleaving with themselves or with zero. */
function extendRow(mnemonic: string, opcode: string, width: string, from: Lane, to: Lane): Row {
  const signed = mnemonic.startsWith("PMOVSX");
  return row(mnemonic, [`66 0F 38 ${opcode} /r Vdq:w W${width}`], sse("sse4_1"), (b, [dst, src]) => {
    let value = b.readX(src!);
    const zero = zeroX(b);
    for (let w = from; w < to; w = w * 2 as Lane) {
      value = signed ? b.lanes("unpackLow", w, zero, value) : b.lanes("unpackLow", w, value, zero);
    }
    b.writeX(dst!, signed ? b.shift("sar", to, value, b.imm(to - from)) : value);
  });
}

/** Lanes of `w` bits from src where the mask's lane has its top bit set, else from dst. */
function blendByMask<I, C, X>(b: Builder<I, C, X>, w: Lane, dst: X, src: X, mask: X): X {
  const ones = b.shift("sar", w, mask, b.imm(w - 1));
  return b.bits("or", b.bits("and", ones, src), b.bits("andnot", ones, dst));
}

/** BLENDVPS, BLENDVPD, PBLENDVB: blends by the sign bits of XMM0. */
function blendVariableRow(mnemonic: string, opcode: string, w: Lane): Row {
  return row(mnemonic, [`66 0F 38 ${opcode} /r Vdq:rw Wdq XMM0`], sse("sse4_1"), (b, [dst, src, mask]) => {
    const source = readSource(b, src!);
    b.writeX(dst!, blendByMask(b, w, b.readX(dst!), source, b.readX(mask!)));
  });
}

/** Inserts an integer (register or memory) as a lane chosen by an immediate. */
function insertRow(kind: PermuteKind, encodings: readonly string[], cpuid: string): Row {
  return row(kind, encodings, sse(cpuid), (b, [dst, src, imm]) => {
    const value = b.insert(64, zeroX(b), 0, b.read(src!));
    b.writeX(dst!, b.permute(kind, b.readX(dst!), value, imm8(b, imm!)));
  });
}

/** The lane of `w` bits whose number is `n` modulo the number of lanes. */
function extractAt<I, C, X>(b: Builder<I, C, X>, w: Lane, value: X, n: I): I {
  const bytes = b.mul(64, b.and(n, b.imm(128 / w - 1)), b.imm(w / 8));
  return b.extract(w, b.permute("PSRLDQ", value, value, bytes), 0);
}

/** Extracts a lane chosen by an immediate to a register (zero-extended) or memory. */
function extractRow(mnemonic: string, encodings: readonly string[], cpuid: string, w?: Lane): Row {
  return row(mnemonic, encodings, sse(cpuid), (b, [dst, src, imm]) => {
    b.write(dst!, extractAt(b, w ?? dst!.width as Lane, b.readX(src!), imm8(b, imm!)));
  });
}

/**
 * PCMPESTRx and PCMPISTRx: the comparison is a procedure (operands in VTEMP), result in VTEMP, flags in the returned image.
 * REX.W (`w`) says how wide the explicit lengths are.
 */
function stringCompareRow(
  mnemonic: string,
  opcode: string,
  mask: boolean,
  explicit: boolean,
  w: 32 | 64 = 32,
): Row {
  const prefix = explicit ? `66 W${w === 64 ? 1 : 0}` : "66";
  return row(
    mnemonic,
    [`${prefix} 0F 3A ${opcode} /r Vdq Wdq Ib`],
    sse("sse4_2"),
    (b, [first, second, imm]) => {
      const source = b.readX(second!);
      b.setStateX(S.VTEMP, b.readX(first!));
      b.setStateX(S.VTEMP + 16, source);
      const flags = explicit
        ? b.callResult("sse.pcmpestr", imm8(b, imm!), b.sx(w, 64, b.reg(w, 0)), b.sx(w, 64, b.reg(w, 2)))
        : b.callResult("sse.pcmpistr", imm8(b, imm!));
      if (mask) b.setStateX(S.XMM, b.stateX(S.VTEMP + 16));
      else b.setReg(32, 1, b.state(S.VTEMP, 32));
      b.setFlags({
        CF: b.bit(flags, 0),
        PF: b.always(false),
        AF: b.always(false),
        ZF: b.bit(flags, 6),
        SF: b.bit(flags, 7),
        OF: b.bit(flags, 11),
      });
    },
  );
}

/** dst := procedure(dst, src, imm), operands and result in VTEMP. */
function procedureRow(mnemonic: string, encoding: string, procedure: string): Row {
  return row(mnemonic, [encoding], sse("sse4_1"), (b, [dst, src, imm]) => {
    const source = readSource(b, src!);
    b.setStateX(S.VTEMP, b.readX(dst!));
    b.setStateX(S.VTEMP + 16, source);
    b.call(procedure, imm ? imm8(b, imm) : b.imm(0));
    b.writeX(dst!, b.stateX(S.VTEMP));
  });
}

/** Bitwise instruction of the floating-point domain. */
function logicRow(
  mnemonic: string,
  encoding: string,
  cpuid: string,
  op: "and" | "or" | "xor" | "andnot",
): Row {
  return row(mnemonic, [encoding], sse(cpuid), (b, [dst, src]) => {
    const source = readSource(b, src!);
    b.writeX(dst!, b.bits(op, b.readX(dst!), source));
  });
}

/** dst := unpack(dst, src) in the floating-point domain. */
function unpackRow(
  mnemonic: string,
  encoding: string,
  cpuid: string,
  op: "unpackLow" | "unpackHigh",
  w: Lane,
): Row {
  return row(mnemonic, [encoding], sse(cpuid), (b, [dst, src]) => {
    const source = readSource(b, src!);
    b.writeX(dst!, b.lanes(op, w, b.readX(dst!), source));
  });
}

/** True when all bits of `value` are zero. */
function isZero<I, C, X>(b: Builder<I, C, X>, value: X): C {
  return b.eq(b.or(b.extract(64, value, 0), b.extract(64, value, 1)), b.imm(0));
}

/** PTEST: ZF = (src AND dst = 0), CF = (src AND NOT dst = 0), the others cleared. */
function ptest<I, C, X>(b: Builder<I, C, X>, [dst, src]: readonly Operand[]): void {
  const source = readSource(b, src!), value = b.readX(dst!);
  b.setFlags({
    ZF: isZero(b, b.bits("and", source, value)),
    CF: isZero(b, b.bits("andnot", value, source)),
    PF: b.always(false),
    AF: b.always(false),
    SF: b.always(false),
    OF: b.always(false),
  });
}

/** Packed integer rows on XMM registers, and the shuffles and logic of the floating-point domain. */
export const sseIntegerRows: readonly Row[] = [
  ...PACKED.map((p) =>
    row(p.mnemonic, [`66 0F ${p.opcode} /r Vdq:rw Wdq`], sse(p.sse), (b, [dst, src]) => {
      const source = readSource(b, src!);
      b.writeX(dst!, p.compute(b, b.readX(dst!), source, false));
    })
  ),
  ...PACKED_SHIFTS.map(([mnemonic, opcode, op, w]) =>
    row(mnemonic, [`66 0F ${opcode} Udq:rw Ib`], sse("sse2"), (b, [dst, imm]) => {
      b.writeX(dst!, b.shift(op, w, b.readX(dst!), imm8(b, imm!)));
    })
  ),
  byteShiftRow("PSRLDQ", "66 0F 73 /3:reg Udq:rw Ib"),
  byteShiftRow("PSLLDQ", "66 0F 73 /7:reg Udq:rw Ib"),

  permuteRow("PSHUFD", "66 0F 70 /r Vdq:w Wdq Ib", "sse2", true),
  permuteRow("PSHUFHW", "F3 0F 70 /r Vdq:w Wdq Ib", "sse2", true),
  permuteRow("PSHUFLW", "F2 0F 70 /r Vdq:w Wdq Ib", "sse2", true),
  permuteRow("SHUFPS", "NP 0F C6 /r Vdq:rw Wdq Ib", "sse", false),
  permuteRow("SHUFPD", "66 0F C6 /r Vdq:rw Wdq Ib", "sse2", false),
  permuteRow("BLENDPS", "66 0F 3A 0C /r Vdq:rw Wdq Ib", "sse4_1", false),
  permuteRow("BLENDPD", "66 0F 3A 0D /r Vdq:rw Wdq Ib", "sse4_1", false),
  permuteRow("PBLENDW", "66 0F 3A 0E /r Vdq:rw Wdq Ib", "sse4_1", false),
  row("PALIGNR", ["66 0F 3A 0F /r Vdq:rw Wdq Ib"], sse("ssse3"), (b, [dst, src, imm]) => {
    const source = readSource(b, src!);
    b.writeX(dst!, b.permute("PALIGNR", source, b.readX(dst!), imm8(b, imm!)));
  }),
  row("INSERTPS", ["66 0F 3A 21 /r Vdq:rw Wd Ib"], sse("sse4_1"), (b, [dst, src, imm]) => {
    const source = b.readX(src!), selector = imm8(b, imm!);
    // A memory source is one dword: the field that would choose a source lane is not looked at.
    const lanes = src!.kind === "mem" ? b.and(selector, b.imm(0x3f)) : selector;
    b.writeX(dst!, b.permute("INSERTPS", b.readX(dst!), source, lanes));
  }),
  blendVariableRow("PBLENDVB", "10", 8),
  blendVariableRow("BLENDVPS", "14", 32),
  blendVariableRow("BLENDVPD", "15", 64),

  insertRow("PINSRB", ["66 0F 3A 20 /r:reg Vdq:rw Rd Ib", "66 0F 3A 20 /r:mem Vdq:rw Mb Ib"], "sse4_1"),
  insertRow("PINSRW", ["66 0F C4 /r:reg Vdq:rw Rd Ib", "66 0F C4 /r:mem Vdq:rw Mw Ib"], "sse2"),
  insertRow("PINSRD", ["66 W0 0F 3A 22 /r Vdq:rw Ed Ib"], "sse4_1"),
  insertRow("PINSRQ", ["66 W1 0F 3A 22 /r Vdq:rw Eq Ib"], "sse4_1"),
  extractRow("PEXTRB", ["66 0F 3A 14 /r:reg Rd:w Vdq Ib", "66 0F 3A 14 /r:mem Mb:w Vdq Ib"], "sse4_1", 8),
  extractRow("PEXTRW", ["66 0F C5 /r:reg Gd:w Udq Ib"], "sse2", 16),
  extractRow("PEXTRW", ["66 0F 3A 15 /r:reg Rd:w Vdq Ib", "66 0F 3A 15 /r:mem Mw:w Vdq Ib"], "sse4_1", 16),
  extractRow("PEXTRD", ["66 W0 0F 3A 16 /r Ed:w Vdq Ib"], "sse4_1", 32),
  extractRow("PEXTRQ", ["66 W1 0F 3A 16 /r Eq:w Vdq Ib"], "sse4_1", 64),
  extractRow("EXTRACTPS", ["66 0F 3A 17 /r Ed:w Vdq Ib"], "sse4_1", 32),
  row("PMOVMSKB", ["66 0F D7 /r:reg Gd:w Udq"], sse("sse2"), (b, [dst, src]) => {
    b.write(dst!, b.signMask(8, b.readX(src!)));
  }),
  row("MOVMSKPS", ["NP 0F 50 /r:reg Gd:w Udq"], sse("sse"), (b, [dst, src]) => {
    b.write(dst!, b.signMask(32, b.readX(src!)));
  }),
  row("MOVMSKPD", ["66 0F 50 /r:reg Gd:w Udq"], sse("sse2"), (b, [dst, src]) => {
    b.write(dst!, b.signMask(64, b.readX(src!)));
  }),

  extendRow("PMOVSXBW", "20", "q", 8, 16),
  extendRow("PMOVSXBD", "21", "d", 8, 32),
  extendRow("PMOVSXBQ", "22", "w", 8, 64),
  extendRow("PMOVSXWD", "23", "q", 16, 32),
  extendRow("PMOVSXWQ", "24", "d", 16, 64),
  extendRow("PMOVSXDQ", "25", "q", 32, 64),
  extendRow("PMOVZXBW", "30", "q", 8, 16),
  extendRow("PMOVZXBD", "31", "d", 8, 32),
  extendRow("PMOVZXBQ", "32", "w", 8, 64),
  extendRow("PMOVZXWD", "33", "q", 16, 32),
  extendRow("PMOVZXWQ", "34", "d", 16, 64),
  extendRow("PMOVZXDQ", "35", "q", 32, 64),

  row("PTEST", ["66 0F 38 17 /r Vdq Wdq"], sse("sse4_1"), ptest),
  procedureRow("PHMINPOSUW", "66 0F 38 41 /r Vdq:rw Wdq", "sse.phminposuw"),
  procedureRow("MPSADBW", "66 0F 3A 42 /r Vdq:rw Wdq Ib", "sse.mpsadbw"),
  stringCompareRow("PCMPESTRM", "60", true, true, 32),
  stringCompareRow("PCMPESTRM", "60", true, true, 64),
  stringCompareRow("PCMPESTRI", "61", false, true, 32),
  stringCompareRow("PCMPESTRI", "61", false, true, 64),
  stringCompareRow("PCMPISTRM", "62", true, false),
  stringCompareRow("PCMPISTRI", "63", false, false),

  logicRow("ANDPS", "NP 0F 54 /r Vdq:rw Wdq", "sse", "and"),
  logicRow("ANDPD", "66 0F 54 /r Vdq:rw Wdq", "sse2", "and"),
  logicRow("ANDNPS", "NP 0F 55 /r Vdq:rw Wdq", "sse", "andnot"),
  logicRow("ANDNPD", "66 0F 55 /r Vdq:rw Wdq", "sse2", "andnot"),
  logicRow("ORPS", "NP 0F 56 /r Vdq:rw Wdq", "sse", "or"),
  logicRow("ORPD", "66 0F 56 /r Vdq:rw Wdq", "sse2", "or"),
  logicRow("XORPS", "NP 0F 57 /r Vdq:rw Wdq", "sse", "xor"),
  logicRow("XORPD", "66 0F 57 /r Vdq:rw Wdq", "sse2", "xor"),
  unpackRow("UNPCKLPS", "NP 0F 14 /r Vdq:rw Wdq", "sse", "unpackLow", 32),
  unpackRow("UNPCKLPD", "66 0F 14 /r Vdq:rw Wdq", "sse2", "unpackLow", 64),
  unpackRow("UNPCKHPS", "NP 0F 15 /r Vdq:rw Wdq", "sse", "unpackHigh", 32),
  unpackRow("UNPCKHPD", "66 0F 15 /r Vdq:rw Wdq", "sse2", "unpackHigh", 64),
];
