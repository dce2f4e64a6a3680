/**
 * SSE moves, alignment, masked stores, MXCSR, and the transition to MMX state, on both engines.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { S, SEG } from "../../../hw/state.ts";
import {
  DATA,
  type EngineKind,
  makeInstructions,
  VectorMachine,
  type VectorState,
  vectorState,
} from "./vector_fixture.ts";

const ENGINES: readonly EngineKind[] = ["reference", "wasm"];
const machines = { reference: new VectorMachine("reference"), wasm: new VectorMachine("wasm") };

const A = "000102030405060708090a0b0c0d0e0f", B = "101112131415161718191a1b1c1d1e1f", ZERO = "00".repeat(16);
const MEMORY = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf".repeat(4);
const GP = 13, MF = 16, NM = 7, UD = 6;

/** Runs on both engines, which must agree, with XMM1 = A, XMM2 = B. */
function run(hex: string, changes: Partial<VectorState> = {}, offset = 0) {
  const state = vectorState({ xmm: [ZERO, A, B], memory: MEMORY, ...changes });
  const [reference, wasm] = ENGINES.map((engine) => machines[engine].run(hex, state, offset));
  assertEquals(wasm, reference, "engines differ");
  return reference!;
}

describe("moves", () => {
  const cases: readonly (readonly [string, string, string])[] = [
    ["MOVAPS from memory", "0F280E", MEMORY.slice(0, 32)],
    ["MOVSS from a register keeps the upper lanes", "F30F10CA", B.slice(0, 8) + A.slice(8)],
    ["MOVSS from memory clears them", "F30F100E", MEMORY.slice(0, 8) + "00".repeat(12)],
    ["MOVSD from a register keeps the upper half", "F20F10CA", B.slice(0, 16) + A.slice(16)],
    ["MOVSD from memory clears it", "F20F100E", MEMORY.slice(0, 16) + "00".repeat(8)],
    ["MOVLPS replaces the low half", "0F120E", MEMORY.slice(0, 16) + A.slice(16)],
    ["MOVHPD replaces the high half", "660F160E", A.slice(0, 16) + MEMORY.slice(0, 16)],
    ["MOVHLPS", "0F12CA", B.slice(16) + A.slice(16)],
    ["MOVLHPS", "0F16CA", A.slice(0, 16) + B.slice(0, 16)],
    ["MOVDDUP", "F20F12CA", B.slice(0, 16).repeat(2)],
    ["MOVSLDUP", "F30F12CA", B.slice(0, 8).repeat(2) + B.slice(16, 24).repeat(2)],
    ["MOVSHDUP", "F30F16CA", B.slice(8, 16).repeat(2) + B.slice(24).repeat(2)],
    ["MOVQ clears the upper half", "F30F7ECA", B.slice(0, 16) + "00".repeat(8)],
    ["MOVD from a register", "660F6ECA", "78563412" + "00".repeat(12)],
    ["MOVQ from a register", "66480F6ECA", "7856341200000080" + "00".repeat(8)],
  ];
  for (const [name, hex, result] of cases) {
    it(name, () => assertEquals(run(hex, { rdx: 0x8000_0000_1234_5678n }).xmm[1], result));
  }
  it("stores touch their operand's bytes and no more", () => {
    assertEquals(run("0F290E").memory, A + MEMORY.slice(32));
    assertEquals(run("F30F110E").memory, A.slice(0, 8) + MEMORY.slice(8));
    assertEquals(run("F20F110E").memory, A.slice(0, 16) + MEMORY.slice(16));
    assertEquals(run("0F170E").memory, A.slice(16) + MEMORY.slice(16));
    assertEquals(run("660FD60E").memory, A.slice(0, 16) + MEMORY.slice(16));
    assertEquals(run("660F7E0E").memory, A.slice(0, 8) + MEMORY.slice(8));
    assertEquals(run("0F2B0E").memory, A + MEMORY.slice(32));
  });
  it("MOVD to a register clears the upper half", () => {
    assertEquals(run("660F7ECA", { rdx: ~0n & 0xffff_ffff_ffff_ffffn }).rdx, 0x0302_0100n);
  });
});

describe("alignment", () => {
  it("128-bit memory operands off 16 bytes are #GP(0), but not of the unaligned moves", () => {
    const unaligned = /^(MOVUP[SD]|MOVDQU|LDDQU|PCMP.STR.)$/;
    for (const { mnemonic, encoding, hex, memory } of makeInstructions("sse", 0)) {
      if (!memory || !/[WM]dq/.test(encoding)) continue;
      assertEquals(run(hex, {}, 8).fault, unaligned.test(mnemonic) ? -1 : GP, `${mnemonic} ${hex}`);
    }
  });
  it("smaller memory operands may stand anywhere", () => {
    for (
      const { mnemonic, encoding, hex, memory } of [
        ...makeInstructions("sse", 0),
        ...makeInstructions("mmx", 0),
      ]
    ) {
      if (!memory || /[WM]dq/.test(encoding) || mnemonic === "LDMXCSR") continue;
      assertEquals(run(hex, {}, 3).fault, -1, `${mnemonic} ${hex}`);
    }
  });
  it("a faulting store changes nothing", () => {
    const after = run("0F290E", {}, 8);
    assertEquals([after.fault, after.memory], [GP, MEMORY]);
  });
  it("MOVUPS may cross a page", () => {
    const offset = 0x1000 - 7;
    for (const engine of ENGINES) {
      const { u8 } = machines[engine].cpu.memory;
      const at = 0x0400_0000 + DATA + offset;
      machines[engine].run("0F110E", vectorState({ xmm: [ZERO, A, B] }), offset);
      assertEquals(u8.slice(at, at + 16).toHex(), A, engine);
      assertEquals(machines[engine].run("0F100E", vectorState(), offset).xmm[1], A, engine);
    }
  });
});

describe("masked stores", () => {
  it("MASKMOVDQU stores the bytes whose mask bit 7 is set", () => {
    const after = run("660FF7CA", { xmm: [ZERO, A, "80007fff" + "00".repeat(11) + "80"] });
    assertEquals(after.memory, "00a1a203" + MEMORY.slice(8, 30) + "0f" + MEMORY.slice(32));
  });
  it("a segment override moves the target", () => {
    for (const engine of ENGINES) {
      const { cpu } = machines[engine];
      cpu.set64(S.SEGBASE + SEG.FS * 8, 0x10n);
      const after = machines[engine].run(
        "64660FF7CA",
        vectorState({ xmm: [ZERO, A, "80".repeat(16)], memory: MEMORY }),
      );
      cpu.set64(S.SEGBASE + SEG.FS * 8, 0n);
      assertEquals(after.memory, MEMORY.slice(0, 32) + A + MEMORY.slice(64), engine);
    }
  });
  it("MASKMOVQ looks at eight bytes", () => {
    const after = run("0FF7CA", { mm: [0n, 0x1716_1514_1312_1110n, 0x8000_0000_0000_ff00n] });
    assertEquals(after.memory, "a011a2a3a4a5a617" + MEMORY.slice(16));
  });
});

describe("MXCSR", () => {
  it("LDMXCSR and STMXCSR move it", () => {
    assertEquals(run("0FAE16", { memory: "bfff0000" + MEMORY.slice(8) }).mxcsr, 0xffbf);
    assertEquals(run("0FAE1E", { mxcsr: 0x1fa0 }).memory, "a01f0000" + MEMORY.slice(8));
  });
  it("reserved bits are #GP(0)", () => {
    const after = run("0FAE16", { memory: "80 1f 01 00".replaceAll(" ", "") + MEMORY.slice(8) });
    assertEquals([after.fault, after.mxcsr], [GP, 0x1f80]);
  });
});

describe("MMX state", () => {
  it("every MMX instruction sets TOP to 0 and all tags valid; EMMS empties them", () => {
    for (const { mnemonic, hex } of makeInstructions("mmx", 0)) {
      const { fsw, ftw } = run(hex);
      if (mnemonic === "EMMS") assertEquals([fsw, ftw], [0, 0]);
      else assertEquals([fsw, ftw], [0, 0xff], `${mnemonic} ${hex}`);
    }
  });
  it("a write sets the exponent of the register beneath to ones", () => {
    run("0FEFCA", { mm: [1n, 5n, 6n] });
    for (const engine of ENGINES) {
      const { cpu } = machines[engine];
      assertEquals(cpu.memory.u16[(cpu.base + S.FPR + 16 + 8) >>> 1], 0xffff);
    }
  });
  it("the conversions between MMX and XMM registers enter MMX state, CVTPI2PD from memory does not", () => {
    for (const hex of ["0F2ACA", "0F2A0E", "660F2ACA", "0F2CCA", "660F2DCA", "F30FD6CA", "F20FD6CA"]) {
      assertEquals(run(hex).ftw, 0xff, hex);
    }
    assertEquals(run("660F2A0E").ftw, 0);
  });
  it("a pending x87 exception is #MF before anything else", () => {
    for (const engine of ENGINES) {
      const machine = machines[engine];
      for (const hex of ["0FFCCA", "0F6F0E", "0F77", "0F2ACA", "F20FD6CA"]) {
        const after = machine.run(hex, vectorState({ mm: [1n, 2n, 3n] }), 0, { fsw: 0xb880 });
        assertEquals([after.fault, after.mm, after.fsw], [MF, [1n, 2n, 3n], 0xb880], `${engine} ${hex}`);
      }
    }
  });
});

describe("availability", () => {
  it("the trap words make every instruction of their group fault", () => {
    for (const engine of ENGINES) {
      const machine = machines[engine];
      for (const [word, trap] of [[S.SSETRAP, "sse"], [S.MMXTRAP, "mmx"]] as const) {
        for (const vector of [UD, NM]) {
          const before = machine.cpu.get32(word);
          machine.cpu.set32(word, vector);
          const { hex } = makeInstructions(trap, 0)[0]!;
          assertEquals(machine.run(hex, vectorState()).fault, vector, engine);
          machine.cpu.set32(word, before);
        }
      }
    }
  });
});
