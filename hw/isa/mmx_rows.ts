/**
 * MMX: packed integers in the low 64 bits of the x87 registers. SDM vol. 1, "Programming with Intel MMX Technology"; vol. 3A,
 * "Intel MMX Technology System Programming".
 *
 * Room: `hw/isa/`. Every instruction sets TOP to 0 and all tags valid (EMMS: empty), and a write of a register sets bits
 * 79:64 of the x87 register beneath to ones. A pending x87 exception is taken first (#MF).
 *
 * @module
 */
import { S } from "../state.ts";
import type { Semantic } from "./builder.ts";
import type { Row, RowFlags } from "./form.ts";
import { row } from "./form.ts";
import { checkMmx, enterMmx, imm8, joinHalves, lowHalf, PACKED, PACKED_SHIFTS, zeroX } from "./packed.ts";
import { maskedStore } from "./sse_move_rows.ts";
import type { Lane } from "./vector.ts";

/** Row of an MMX instruction: the #MF check, the instruction itself, the transition to MMX state. */
function mmx(mnemonic: string, encodings: readonly string[], cpuid: string, semantic: Semantic): Row {
  const flags: RowFlags = { trap: "mmx", cpuid };
  return row(mnemonic, encodings, flags, (b, o, f) => {
    checkMmx(b);
    semantic(b, o, f);
    enterMmx(b);
  });
}

/** An integer to the low lane of an MMX register (the rest cleared), or back. */
const moveInteger: Semantic = (b, [dst, src]) => {
  if (dst!.kind === "mm") b.writeX(dst!, b.insert(64, zeroX(b), 0, b.read(src!)));
  else b.write(dst!, b.extract(dst!.width as Lane, b.readX(src!), 0));
};

/** The MMX rows. */
export const mmxRows: readonly Row[] = [
  ...PACKED.filter((p) => p.mmx !== undefined).map((p) =>
    mmx(p.mnemonic, [`NP 0F ${p.opcode} /r Pq:rw ${p.narrow ? "Qd" : "Qq"}`], p.mmx!, (b, [dst, src]) => {
      const source = b.readX(src!);
      b.writeX(dst!, p.compute(b, b.readX(dst!), source, true));
    })
  ),
  ...PACKED_SHIFTS.map(([mnemonic, opcode, op, w]) =>
    mmx(mnemonic, [`NP 0F ${opcode} Nq:rw Ib`], "mmx", (b, [dst, imm]) => {
      b.writeX(dst!, b.shift(op, w, b.readX(dst!), imm8(b, imm!)));
    })
  ),
  mmx("MOVD", ["NP W0 0F 6E /r Pq:w Ed", "NP W0 0F 7E /r Ed:w Pq"], "mmx", moveInteger),
  mmx("MOVQ", ["NP W1 0F 6E /r Pq:w Eq", "NP W1 0F 7E /r Eq:w Pq"], "mmx", moveInteger),
  mmx("MOVQ", ["NP 0F 6F /r Pq:w Qq", "NP 0F 7F /r Qq:w Pq"], "mmx", (b, [dst, src]) => {
    b.writeX(dst!, b.readX(src!));
  }),
  mmx("MOVNTQ", ["NP 0F E7 /r:mem Mq:w Pq"], "sse", (b, [dst, src]) => b.writeX(dst!, b.readX(src!))),
  mmx("MASKMOVQ", ["NP 0F F7 /r:reg Xq:none Pq Nq"], "sse", (b, [_, src, mask], f) => {
    maskedStore(b, b.readX(src!), b.readX(mask!), 8, f.aw);
  }),
  mmx("PMOVMSKB", ["NP 0F D7 /r:reg Gd:w Nq"], "sse", (b, [dst, src]) => {
    b.write(dst!, b.signMask(8, b.readX(src!)));
  }),
  mmx("PSHUFW", ["NP 0F 70 /r Pq:w Qq Ib"], "sse", (b, [dst, src, imm]) => {
    const source = b.readX(src!);
    b.writeX(dst!, b.permute("PSHUFLW", source, source, imm8(b, imm!)));
  }),
  mmx("PALIGNR", ["NP 0F 3A 0F /r Pq:rw Qq Ib"], "ssse3", (b, [dst, src, imm]) => {
    const source = b.readX(src!);
    const both = joinHalves(b, source, b.readX(dst!));
    b.writeX(dst!, lowHalf(b, b.permute("PSRLDQ", both, both, imm8(b, imm!))));
  }),
  mmx(
    "PINSRW",
    ["NP 0F C4 /r:reg Pq:rw Rd Ib", "NP 0F C4 /r:mem Pq:rw Mw Ib"],
    "sse",
    (b, [dst, src, imm]) => {
      const value = b.insert(64, zeroX(b), 0, b.read(src!));
      b.writeX(dst!, b.permute("PINSRW", b.readX(dst!), value, b.and(imm8(b, imm!), b.imm(3))));
    },
  ),
  mmx("PEXTRW", ["NP 0F C5 /r:reg Gd:w Nq Ib"], "sse", (b, [dst, src, imm]) => {
    const value = b.readX(src!);
    const bytes = b.mul(64, b.and(b.read(imm!), b.imm(3)), b.imm(2));
    b.write(dst!, b.extract(16, b.permute("PSRLDQ", value, value, bytes), 0));
  }),
  row("EMMS", ["NP 0F 77"], { trap: "mmx", cpuid: "mmx" }, (b) => {
    checkMmx(b);
    enterMmx(b);
    b.setState(S.FTW, 16, b.imm(0));
  }),
];
