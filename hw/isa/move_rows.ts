/**
 * Moves of data between registers, memory and flags: MOV, MOVZX, MOVSX, LEA, XCHG, BSWAP, MOVBE, CMOVcc, SETcc,
 * XLAT, the flag instructions (SDM vol. 2).
 *
 * Room: `hw/isa/`; rows of the instruction table, imports only the row's own vocabulary.
 *
 * @module
 */
import type { Semantic } from "./builder.ts";
import { type Row, row } from "./form.ts";
import { R, RFLAGS, S } from "../state.ts";
import { constant, widthOf } from "./integer_common.ts";

const move: Semantic = (b, o) => b.write(o[0]!, b.read(o[1]!));

const moveZeroExtended: Semantic = (b, o) => b.write(o[0]!, b.read(o[1]!));

const moveSignExtended: Semantic = (b, o) => {
  const from = widthOf(o[1]!), to = widthOf(o[0]!), value = b.read(o[1]!);
  b.write(o[0]!, from === to ? value : b.sx(from, to, value));
};

const exchange: Semantic = (b, o) => {
  const a = b.read(o[0]!), c = b.read(o[1]!);
  b.write(o[0]!, c);
  b.write(o[1]!, a);
};

/** A 16-bit BSWAP is undefined in the SDM; silicon gives 0. */
const bswap: Semantic = (b, o) => {
  const dst = o[0]!, w = widthOf(dst), a = b.read(dst);
  b.write(dst, w === 32 || w === 64 ? b.bswap(w, a) : b.imm(0));
};

const moveSwapped: Semantic = (b, o) => {
  const w = widthOf(o[0]!), a = b.read(o[1]!);
  b.write(o[0]!, w === 32 || w === 64 ? b.bswap(w, a) : b.rotl(16, a, b.imm(8)));
};

/** The source is read, and a 32-bit destination zero-extended, whatever the condition. */
const conditionalMove: Semantic = (b, o, f) => {
  const old = b.read(o[0]!), value = b.read(o[1]!);
  b.write(o[0]!, b.select(b.condition(f.cc), value, old));
};

/** CLD or STD. */
function direction(down: boolean): Semantic {
  return (b) => {
    const old = b.state(S.RFLAGS, 32);
    b.setState(
      S.RFLAGS,
      32,
      down ? b.or(old, b.imm(RFLAGS.DF)) : b.and(old, constant(b, 32, ~RFLAGS.DF)),
    );
  };
}

/** Rows that move data. */
export const moveRows: readonly Row[] = [
  row(
    "MOV",
    [
      "88 /r Eb:w Gb",
      "89 /r Ev:w Gv",
      "8A /r Gb:w Eb",
      "8B /r Gv:w Ev",
      "A0 AL:w Ob",
      "A1 rAX:w Ov",
      "A2 Ob:w AL",
      "A3 Ov:w rAX",
      "B0 +r Zb:w Ib",
      "B8 +r Zv:w Iv",
      "C6 /0 Eb:w Ib",
      "C7 /0 Ev:w Iz",
    ],
    {},
    move,
  ),
  row("MOVNTI", ["NP 0F C3 /r My:w Gy"], { cpuid: "sse2" }, move),
  row("MOVZX", ["0F B6 /r Gv:w Eb", "0F B7 /r Gv:w Ew"], {}, moveZeroExtended),
  row("MOVSX", ["0F BE /r Gv:w Eb", "0F BF /r Gv:w Ew"], {}, moveSignExtended),
  row(
    "MOVSXD",
    ["63 /r o16 Gw:w Ew", "63 /r o32 Gd:w Ed", "63 /r o64 Gq:w Ed"],
    { only64: true },
    moveSignExtended,
  ),
  row("LEA", ["8D /r Gv:w M"], {}, (b, o) => b.write(o[0]!, b.zx(widthOf(o[0]!), b.ea(o[1]!)))),
  // 90H without REX.B is NOP (or PAUSE), below.
  row("XCHG", ["86 /r Eb:rw Gb:rw", "87 /r Ev:rw Gv:rw", "90 +r Zv:rw rAX:rw"], { lock: true }, exchange),
  row("BSWAP", ["0F C8 +r Zv:rw"], {}, bswap),
  row("MOVBE", ["NFx 0F 38 F0 /r Gv:w Mv", "NFx 0F 38 F1 /r Mv:w Gv"], { cpuid: "movbe" }, moveSwapped),
  row("CMOV", ["0F 40 +c /r Gv:rw Ev"], { cpuid: "cmov" }, conditionalMove),
  row("SET", ["0F 90 +c /r Eb:w"], {}, (b, o, f) => b.write(o[0]!, b.toInt(b.condition(f.cc)))),
  // The operand stands for its segment only: the address is rBX + AL.
  row("XLAT", ["D7 Xb:none"], {}, (b, _o, f) => {
    const offset = b.add(f.aw, b.reg(f.aw, R.RBX), b.reg(8, R.RAX));
    b.setReg(8, R.RAX, b.load(f.segment, offset, 8));
  }),
  row("CLC", ["F8"], {}, (b) => b.setFlags({ CF: b.always(false) })),
  row("STC", ["F9"], {}, (b) => b.setFlags({ CF: b.always(true) })),
  row("CMC", ["F5"], {}, (b) => b.setFlags({ CF: b.notC(b.flag("CF")) })),
  row("CLD", ["FC"], {}, direction(false)),
  row("STD", ["FD"], {}, direction(true)),
  row("LAHF", ["9F"], {}, (b) => {
    const low = b.and(b.flagsImage(), b.imm(0xff));
    b.setReg(16, R.RAX, b.or(b.shl(16, low, b.imm(8)), b.reg(8, R.RAX)));
  }),
  row("SAHF", ["9E"], {}, (b) => {
    const ax = b.reg(16, R.RAX);
    b.setFlags({
      CF: b.bit(ax, 8),
      PF: b.bit(ax, 10),
      AF: b.bit(ax, 12),
      ZF: b.bit(ax, 14),
      SF: b.bit(ax, 15),
    });
  }),
];
