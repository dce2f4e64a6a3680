/** Rules of the decoder that have a name of their own; iced_test.ts compares the rest by the million. */
import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import {
  decode,
  type DecodeFault,
  isDecoded,
  NEED_BYTES,
  ripRelativeDisplacement,
  TOO_LONG,
  UNDEFINED,
} from "../../../hw/isa/decode.ts";
import type { CodeMode, Decoded } from "../../../hw/isa/form.ts";
import { parseEncoding } from "../../../hw/isa/encoding.ts";
import { row } from "../../../hw/isa/form.ts";
import { S, SEG } from "../../../hw/state.ts";
import { ALL_FEATURES } from "./all_features.ts";

/** Decodes hexadecimal; zeros follow it. */
function tryDecode(hex: string, mode: CodeMode = 2, features = ALL_FEATURES): Decoded | DecodeFault {
  const bytes = new Uint8Array(32);
  bytes.set(Uint8Array.fromHex(hex.replaceAll(" ", "")));
  return decode(bytes, 0, 15, mode, features);
}
function decoded(hex: string, mode: CodeMode = 2, features = ALL_FEATURES): Decoded {
  const result = tryDecode(hex, mode, features);
  assert(isDecoded(result), `${hex} does not decode`);
  return result;
}
const gpr = (n: number) => S.GPR + n * 8;

describe("length", () => {
  it("asks for more bytes at every cut of an instruction, and never when 15 are there", () => {
    const instruction = Uint8Array.fromHex("66480f3a0f8c8112345678ff");
    const whole = decode(instruction, 0, instruction.length, 2, ALL_FEATURES);
    assert(isDecoded(whole));
    for (let cut = 0; cut < whole.length; cut++) {
      assertEquals(decode(instruction, 0, cut, 2, ALL_FEATURES), NEED_BYTES);
    }
  });
  it("knows an undefined opcode without its ModRM byte", () => {
    assertEquals(decode(new Uint8Array([0x0f, 0x04]), 0, 2, 2, ALL_FEATURES), UNDEFINED);
  });
  it("is at most 15 bytes: beyond that is #GP, not #UD", () => {
    assertEquals(decoded("66".repeat(14) + "90").length, 15);
    assertEquals(tryDecode("66".repeat(15) + "90"), TOO_LONG);
    assertEquals(tryDecode("66".repeat(13) + "0fff00"), TOO_LONG);
    assertEquals(tryDecode("2e".repeat(9) + "81 05 00000000 00000000"), TOO_LONG);
  });
  it("starts at the offset given", () => {
    const bytes = new Uint8Array(40);
    bytes.set([0x48, 0x01, 0xd8], 20);
    const result = decode(bytes, 20, 15, 2, ALL_FEATURES);
    assert(isDecoded(result));
    assertEquals([result.form.row.mnemonic, result.length], ["ADD", 3]);
  });
});

describe("forms", () => {
  it("are one object for instructions that differ in registers, displacement and immediate only", () => {
    assertStrictEquals(decoded("01 d8").form, decoded("41 01 c1").form);
    assertStrictEquals(decoded("81 40 10 01000000").form, decoded("81 83 00010000 ff000000").form);
    assertStrictEquals(decoded("00 c4").form, decoded("00 d8").form);
  });
  it("are one object for two opcodes of a row with the same operands", () => {
    assertStrictEquals(decoded("03 c1").form.row, decoded("01 c1").form.row);
    assertStrictEquals(decoded("81 c0 01000000").form.key, decoded("83 c0 01").form.key);
  });
  it("differ by operand size, memory, LOCK, repeat, segment, address size and mode", () => {
    const keys = ["01 d8", "66 01 d8", "48 01 d8", "01 18", "f0 01 18", "64 01 18", "67 01 18", "01 1c 24"];
    const all = keys.map((hex) => decoded(hex).form.key);
    all.push(decoded("01 d8", 1).form.key, decoded("01 d8", 0).form.key);
    all.push(decoded("aa").form.key, decoded("f3 aa").form.key);
    assertEquals(new Set(all).size, all.length);
  });
  it("have the operand size of the mode and prefixes", () => {
    const sizes = [["90", 2], ["6601d8", 2], ["6601d8", 1], ["6601d8", 0], ["01d8", 0], [
      "664801d8",
      2,
    ]] as const;
    assertEquals(sizes.map(([hex, mode]) => decoded(hex, mode).form.w), [32, 16, 16, 32, 16, 64]);
  });
  it("of stack instructions are 64 bits wide in 64-bit mode, 16 with 66H", () => {
    assertEquals([decoded("50").form.w, decoded("66 50").form.w, decoded("50", 1).form.w], [64, 16, 32]);
  });
  it("of near branches are 64 bits wide in 64-bit mode even with 66H", () => {
    assertEquals([decoded("66 e9 00000000").form.w, decoded("66 e9 00000000").length], [64, 6]);
    assertEquals([decoded("66 e9 0000", 1).form.w, decoded("66 e9 0000", 1).length], [16, 4]);
  });
});

describe("registers", () => {
  it("4 to 7 are AH to BH without REX and SPL to DIL with it", () => {
    assertEquals([decoded("88 e7").r0, decoded("88 e7").r1], [S.GPR + 3 * 8 + 1, S.GPR + 1]);
    assertEquals([decoded("40 88 e7").r0, decoded("40 88 e7").r1], [gpr(7), gpr(4)]);
    assertEquals(decoded("b4 01").r0, S.GPR + 1);
    assertEquals(decoded("41 b4 01").r0, gpr(12));
  });
  it("are extended by REX.R, X, B, and only by a REX that comes last", () => {
    const all = decoded("4f 8b 84 c1 00000000");
    assertEquals([all.r0, all.base, all.index, all.scale], [gpr(8), gpr(9), gpr(8), 3]);
    const early = decoded("4f 66 8b c1");
    assertEquals([early.form.w, early.r0, early.r1], [16, gpr(0), gpr(1)]);
  });
  it("in vector operands are XMM or, without 66H, MMX, which REX does not extend", () => {
    assertEquals(decoded("66 45 0f ef c1").r0, S.XMM + 8 * 16);
    assertEquals([decoded("45 0f ef c1").r0, decoded("45 0f ef c1").r1], [S.FPR, S.FPR + 16]);
  });
  it("of segment and control operands are numbers, and #UD where there is none", () => {
    assertEquals(decoded("8e d8").r0, SEG.DS);
    assertEquals(tryDecode("8e c8"), UNDEFINED, "MOV to CS");
    assertEquals(tryDecode("8c f0"), UNDEFINED, "segment register 6");
  });
});

describe("memory operands", () => {
  it("RIP-relative ones have the page's IP as base and the raw displacement", () => {
    const d = decoded("48 8b 05 10000000");
    assertEquals([d.base, d.index, d.disp], [S.RIPPAGE, S.ZERO, 16]);
    assertEquals(ripRelativeDisplacement(d, 0x123), 16 + 0x123 + 7);
    assertEquals(decoded("8b 05 10000000", 1).base, S.ZERO);
  });
  it("without base or index stand on the zero field", () => {
    const d = decoded("8b 04 25 44332211");
    assertEquals([d.base, d.index, d.disp], [S.ZERO, S.ZERO, 0x11223344]);
  });
  it("use SS where the base is rSP or rBP, not R12 or R13, and not for an index", () => {
    const segments = ["8b 04 24", "8b 45 00", "41 8b 04 24", "41 8b 45 00", "8b 04 28", "8b 04 2d 00000000"];
    assertEquals(segments.map((hex) => decoded(hex).form.segment), [2, 2, 3, 3, 3, 3]);
  });
  it("obey FS and GS in 64-bit mode, where the other overrides say nothing", () => {
    assertEquals([decoded("64 8b 00").segment, decoded("65 8b 00").segment], [
      S.SEGBASE + SEG.FS * 8,
      S.SEGBASE + SEG.GS * 8,
    ]);
    assertEquals([decoded("26 8b 00").segment, decoded("26 8b 00").form.segment], [S.ZERO, SEG.DS]);
    assertEquals(decoded("64 3e 8b 00").form.segment, SEG.FS);
    assertEquals(decoded("26 8b 00", 1).segment, S.SEGBASE + SEG.ES * 8);
  });
  it("of 16 bits combine BX, BP, SI and DI", () => {
    const d = decoded("8b 42 fe", 0);
    assertEquals([d.base, d.index, d.disp, d.form.segment, d.form.aw], [gpr(5), gpr(6), -2, SEG.SS, 16]);
    const absolute = decoded("8b 06 34 12", 0);
    assertEquals([absolute.base, absolute.disp, absolute.form.segment], [S.ZERO, 0x1234, SEG.DS]);
  });
  it("of MOV with an absolute address keep all 64 bits of it", () => {
    const d = decoded("a1 8877665544332211");
    assertEquals([d.immLow >>> 0, d.immHigh, d.length], [0x55667788, 0x11223344, 9]);
    assertEquals(d.form.operands[1]!.slot, "imm");
    assertEquals(decoded("67 a1 44332211").length, 6);
  });
});

describe("prefixes", () => {
  it("F2 and F3 beat 66 as mandatory prefixes, the last of the two counts", () => {
    assertEquals(decoded("66 f3 0f 58 c1").form.row.mnemonic, "ADDSS");
    assertEquals(decoded("f3 f2 0f 58 c1").form.row.mnemonic, "ADDSD");
    assertEquals(tryDecode("f3 66 0f d4 c1"), UNDEFINED, "PADDQ has no F3 form");
  });
  it("66 beside F2 is CRC32's operand size", () => {
    const d = decoded("66 f2 0f 38 f1 c1");
    assertEquals([d.form.row.mnemonic, d.form.operands[1]!.width], ["CRC32", 16]);
  });
  it("F3 is ignored where it selects nothing", () => {
    assertEquals(decoded("f3 01 d8").form, decoded("01 d8").form);
  });
  it("repeat string rows, F2 like F3 where nothing is compared", () => {
    const reps = ["a4", "f3 a4", "f2 a4", "a6", "f3 a6", "f2 a6"].map((hex) => decoded(hex).form.rep);
    assertEquals(reps, [0, 3, 3, 0, 3, 2]);
  });
  it("LOCK is #UD unless the row allows it and the destination is memory", () => {
    assertEquals(decoded("f0 01 18").form.lock, true);
    for (const hex of ["f0 01 d8", "f0 03 18", "f0 89 18", "f0 90", "f0 0f a3 18", "f0 0f ba 20 01"]) {
      assertEquals(tryDecode(hex), UNDEFINED, hex);
    }
    assertEquals(decoded("f0 0f ba 28 01").form.row.mnemonic, "BTS");
  });
  it("REX.B tells XCHG R8 from NOP", () => {
    const names = ["90", "f3 90", "41 90", "48 90"].map((hex) => decoded(hex).form.row.mnemonic);
    assertEquals(names, ["NOP", "PAUSE", "XCHG", "NOP"]);
  });
});

describe("features", () => {
  const without = (name: string) => new Set([...ALL_FEATURES].filter((f) => f !== name));
  it("that are absent leave what the bytes meant before", () => {
    assertEquals(decoded("f3 0f bd c1").form.row.mnemonic, "LZCNT");
    assertEquals(decoded("f3 0f bd c1", 2, without("lzcnt")).form.row.mnemonic, "BSR");
    assertEquals(decoded("f3 0f bc c1", 2, without("bmi1")).form.row.mnemonic, "BSF");
  });
  it("that are absent leave #UD where nothing was", () => {
    assertEquals(tryDecode("f3 0f b8 c1", 2, without("popcnt")), UNDEFINED);
  });
});

describe("modes", () => {
  it("have LES and LDS with memory and VEX without, outside 64-bit mode", () => {
    assertEquals(decoded("c4 e2 70 f2 c2", 1).form.row.mnemonic, "ANDN");
    assertEquals(decoded("c4 e2 70 f2 c2").form.row.mnemonic, "ANDN");
    assertEquals(decoded("c4 02", 1).form.row.mnemonic, "LES");
  });
  it("lose INC r32 to REX and PUSHA to nothing in 64-bit mode", () => {
    assertEquals(decoded("40", 1).form.row.mnemonic, "INC");
    assertEquals(tryDecode("60"), UNDEFINED);
    assertEquals(decoded("60", 1).form.row.mnemonic, "PUSHA");
  });
  it("VEX after 66, F2, F3, LOCK or REX is #UD", () => {
    for (const prefix of ["66", "f2", "f3", "f0", "40"]) {
      assertEquals(tryDecode(`${prefix} c4 e2 70 f2 c2`), UNDEFINED);
    }
  });
});

describe("immediates", () => {
  it("are sign-extended into both halves", () => {
    assertEquals([decoded("83 c0 ff").immLow, decoded("83 c0 ff").immHigh], [-1, -1]);
    assertEquals([decoded("48 b8 8877665544332211").immLow, decoded("48 b8 8877665544332211").immHigh], [
      0x55667788,
      0x11223344,
    ]);
  });
  it("of ENTER and far pointers: the second is in r2", () => {
    assertEquals([decoded("c8 3412 05").immLow, decoded("c8 3412 05").r2], [0x1234, 5]);
  });
});

describe("encoding strings", () => {
  const parse = (text: string) => parseEncoding(row("TEST", [text], {}, () => {}), 0, text);
  it("give opcode map, prefix, ModRM rule and operands", () => {
    const e = parse("66 W1 0F 3A 16 /r:reg Eq:w Vdq Ib");
    assertEquals([e.prefix, e.rexW, e.map, e.opcode, e.mod, e.operands.length], [0x66, 1, 3, 0x16, "reg", 3]);
    assertEquals(e.operands.map((o) => o.access), ["w", "r", "r"]);
  });
  it("with a mistake name the row", () => {
    for (
      const text of ["0F", "0F AF Gv Ev", "01 /r Ev:x Gv", "01 /r Ek", "01 /9 Ev", "VEX.L9.0F38.W0 F2 /r Gy"]
    ) {
      let message = "";
      try {
        parse(text);
      } catch (error) {
        assert(error instanceof SyntaxError);
        message = error.message;
      }
      assert(message.includes(`"${text}" of TEST`), `${text}: ${message}`);
    }
  });
});
