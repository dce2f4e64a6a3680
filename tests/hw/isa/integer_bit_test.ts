import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { RFLAGS } from "../../../hw/state.ts";
import { DATA, FlatMachine } from "./flat_machine.ts";

const { CF, PF, AF, ZF, SF, OF } = RFLAGS;
const ALL = CF | PF | AF | ZF | SF | OF;

describe("BT, BTS, BTR, BTC", () => {
  it("a register index reaches memory on both sides of the operand", () => {
    const m = new FlatMachine().set({ rbx: DATA, rcx: 100 });
    m.run("48 0f ab 0b"); // bts [rbx], rcx: bit 36 of the quadword behind
    assertEquals(m.peek(DATA + 8, 8), "0000000010000000");
    m.set({ rcx: -1 });
    m.run("0f ab 0b"); // the top bit of the doubleword before
    assertEquals([m.peek(DATA - 4, 4), m.flags & CF], ["00000080", 0]);
    m.run("0f a3 0b");
    assertEquals(m.flags & CF, CF);
    m.run("0f bb 0b");
    assertEquals([m.peek(DATA - 4, 4), m.flags & CF], ["00000000", CF]);
  });

  it("an index into a register, and an immediate one, count modulo the width", () => {
    const m = new FlatMachine().set({ rax: 0, rcx: 33, rbx: DATA });
    m.run("0f ab c8");
    assertEquals(m.get("rax"), 2n);
    m.run("0f ba 2b 41"); // bts dword [rbx], 65
    assertEquals(m.peek(DATA, 4), "02000000");
    m.run("0f ba 33 01"); // btr
    assertEquals([m.peek(DATA, 4), m.flags & CF], ["00000000", CF]);
  });

  it("a 16-bit index is signed in 16 bits", () => {
    const m = new FlatMachine().set({ rbx: DATA, rcx: 0xffff });
    m.run("66 0f ab 0b");
    assertEquals(m.peek(DATA - 2, 2), "0080");
  });

  it("leave the other flags alone", () => {
    const m = new FlatMachine().set({ rax: 0 });
    m.flags = ALL;
    m.run("0f ba e0 00");
    assertEquals(m.flags, ALL & ~CF);
  });

  it("BTS of a read-only word faults as a write even if the bit is set", () => {
    const m = new FlatMachine().set({ rbx: DATA, rcx: 0 }).poke(DATA, "01");
    m.access.readOnly.add(DATA >> 12);
    assertEquals(m.run("0f ab 0b"), { vector: 14, code: 3 });
    assertEquals(m.run("0f a3 0b"), undefined);
  });
});

describe("Scans and counts", () => {
  it("BSF and BSR of 0 set ZF and keep the whole destination", () => {
    const m = new FlatMachine().set({ rax: -1, rcx: 0 });
    m.run("0f bc c1");
    assertEquals([m.get("rax"), m.flags & ZF], [0xffff_ffff_ffff_ffffn, ZF]);
    m.set({ rcx: 0x4010 });
    m.run("66 0f bd c1");
    assertEquals([m.get("rax"), m.flags & ZF], [0xffff_ffff_ffff_000en, 0]);
    m.run("0f bc c1");
    assertEquals(m.get("rax"), 4n);
  });

  it("TZCNT and LZCNT of 0 give the width and CF", () => {
    const m = new FlatMachine().set({ rcx: 0 });
    for (const [w, prefix] of [[16, "66"], [32, ""], [64, ""]] as const) {
      const rex = w === 64 ? "48" : "";
      for (const opcode of ["bc", "bd"]) {
        m.set({ rax: 0 });
        m.run(`${prefix} f3 ${rex} 0f ${opcode} c1`);
        assertEquals([m.get("rax"), m.flags & (CF | ZF)], [BigInt(w), CF]);
      }
    }
    m.set({ rcx: 1 });
    m.run("f3 48 0f bd c1");
    assertEquals([m.get("rax"), m.flags & (CF | ZF)], [63n, 0]);
    m.run("f3 48 0f bc c1");
    assertEquals([m.get("rax"), m.flags & (CF | ZF)], [0n, ZF]);
  });

  it("POPCNT clears all flags but ZF", () => {
    const m = new FlatMachine().set({ rcx: 0xf0f0 });
    m.flags = ALL;
    m.run("f3 0f b8 c1");
    assertEquals([m.get("rax"), m.flags], [8n, 0]);
    m.set({ rcx: 0 });
    m.run("f3 0f b8 c1");
    assertEquals([m.get("rax"), m.flags], [0n, ZF]);
  });
});

describe("BMI", () => {
  it("PEXT gathers what PDEP scatters", () => {
    const m = new FlatMachine().set({ rbx: 0xabcd, rcx: 0xf0f0_0000_00f0_f000n });
    m.run("c4 e2 e3 f5 c1"); // pdep rax, rbx, rcx
    assertEquals(m.get("rax"), 0xa0b0_0000_00c0_d000n);
    m.set({ rbx: 0xa5b5_5555_55c5_d555n });
    m.run("c4 e2 e2 f5 c1"); // pext rax, rbx, rcx
    assertEquals(m.get("rax"), 0xabcdn);
    m.set({ rcx: 0 });
    m.run("c4 e2 e2 f5 c1");
    assertEquals(m.get("rax"), 0n);
  });

  it("BZHI and BEXTR with a start or length past the width", () => {
    const m = new FlatMachine().set({ rbx: 0xffff_ffff_ffff_ffffn, rcx: 64 });
    m.run("c4 e2 f0 f5 c3"); // bzhi rax, rbx, rcx
    assertEquals([m.get("rax"), m.flags & (CF | SF)], [0xffff_ffff_ffff_ffffn, CF | SF]);
    m.set({ rcx: 0x108 });
    m.run("c4 e2 f0 f5 c3");
    assertEquals([m.get("rax"), m.flags & CF], [0xffn, 0]);
    m.set({ rcx: 0x0440 });
    m.run("c4 e2 f0 f7 c3"); // bextr rax, rbx, rcx: start 64
    assertEquals([m.get("rax"), m.flags & ZF], [0n, ZF]);
    m.set({ rcx: 0xff3c });
    m.run("c4 e2 f0 f7 c3"); // start 60, length 255
    assertEquals(m.get("rax"), 15n);
  });

  it("BLSI, BLSMSK, BLSR and their CF", () => {
    const m = new FlatMachine().set({ rbx: 0x58 });
    m.run("c4 e2 f8 f3 db");
    assertEquals([m.get("rax"), m.flags & CF], [0x8n, CF]);
    m.run("c4 e2 f8 f3 d3");
    assertEquals([m.get("rax"), m.flags & CF], [0xfn, 0]);
    m.run("c4 e2 f8 f3 cb");
    assertEquals([m.get("rax"), m.flags & CF], [0x50n, 0]);
    m.set({ rbx: 0 });
    m.run("c4 e2 f8 f3 db");
    assertEquals([m.get("rax"), m.flags & (CF | ZF)], [0n, ZF]);
    m.run("c4 e2 f8 f3 cb");
    assertEquals([m.get("rax"), m.flags & (CF | ZF)], [0n, CF | ZF]);
  });

  it("VEX forms are #UD in real mode", () => {
    const m = new FlatMachine(0);
    m.cpu.set32(0x220, 0); // CR0.PE = 0
    assertEquals(m.run("c4 e2 78 f3 db")?.vector, 6);
  });
});

describe("CRC32", () => {
  it("of the digits 1 to 9 is the check value of CRC-32C, in steps of any width", () => {
    const m = new FlatMachine().set({ rax: 0xffff_ffff, rbx: DATA }).poke(DATA, "313233343536373839");
    m.run("f2 48 0f 38 f1 03"); // crc32 rax, qword [rbx]
    m.run("f2 0f 38 f0 43 08"); // crc32 eax, byte [rbx + 8]
    assertEquals(m.get("rax") ^ 0xffff_ffffn, 0xe306_9283n);
    m.set({ rax: -1 });
    m.run("f2 0f 38 f1 03");
    m.run("66 f2 0f 38 f1 43 04");
    m.run("66 f2 0f 38 f1 43 06");
    m.run("f2 48 0f 38 f0 43 08");
    assertEquals(m.get("rax") ^ 0xffff_ffffn, 0xe306_9283n);
  });
});
