import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { RFLAGS, S } from "../../../hw/state.ts";
import { DATA, FlatMachine } from "./flat_machine.ts";

const { CF, PF, AF, ZF, SF, OF } = RFLAGS;

describe("MOV and extensions", () => {
  it("MOV r64, imm64 and the 64-bit moffs take all eight bytes", () => {
    const m = new FlatMachine();
    m.run("48 b8 8877665544332211");
    assertEquals(m.get("rax"), 0x1122334455667788n);
    m.run("48 a3 0040000000000000");
    assertEquals(m.peek(DATA, 8), "8877665544332211");
    m.set({ rax: 0 });
    m.run("a0 0340000000000000");
    assertEquals(m.get("rax"), 0x55n);
  });

  it("C7H sign-extends its immediate to 64 bits", () => {
    const m = new FlatMachine();
    m.run("48 c7 c1 ffffffff");
    assertEquals(m.get("rcx"), 0xffff_ffff_ffff_ffffn);
  });

  it("MOVZX, MOVSX and MOVSXD extend from the source's width", () => {
    const m = new FlatMachine().set({ rcx: 0x8080_8080n, rax: -1 });
    m.run("0f b6 c1");
    assertEquals(m.get("rax"), 0x80n);
    m.run("66 0f be c1");
    assertEquals(m.get("rax"), 0xff80n);
    m.run("48 0f bf c1");
    assertEquals(m.get("rax"), 0xffff_ffff_ffff_8080n);
    m.run("48 63 c1");
    assertEquals(m.get("rax"), 0xffff_ffff_8080_8080n);
    m.run("63 c1");
    assertEquals(m.get("rax"), 0x8080_8080n);
  });

  it("LEA cuts to the address size, then to the operand size", () => {
    const m = new FlatMachine().set({ rbx: 0xffff_ffffn, rcx: 1 });
    m.run("48 8d 04 0b");
    assertEquals(m.get("rax"), 0x1_0000_0000n);
    m.run("67 48 8d 04 0b");
    assertEquals(m.get("rax"), 0n);
    m.set({ rax: -1 });
    m.run("66 8d 43 02");
    assertEquals(m.get("rax"), 0xffff_ffff_ffff_0001n);
  });

  it("LEA of a RIP-relative operand counts from the next instruction", () => {
    const m = new FlatMachine();
    m.run("48 8d 05 10000000", 0x9000);
    assertEquals(m.get("rax"), 0x9017n);
  });

  it("CMOV with a false condition clears the upper half of a 32-bit destination, and reads its source", () => {
    const m = new FlatMachine().set({ rax: 0x1_0000_0002n, rcx: 7, rbx: 0x20_0000 });
    m.run("0f 44 c1"); // cmovz eax, ecx
    assertEquals(m.get("rax"), 2n);
    assertEquals(m.run("0f 44 03")?.vector, 14);
  });

  it("SET writes 1 or 0 by each of the 16 conditions", () => {
    const conditions: readonly ((f: number) => boolean)[] = [
      (f) => (f & OF) !== 0,
      (f) => (f & CF) !== 0,
      (f) => (f & ZF) !== 0,
      (f) => (f & (CF | ZF)) !== 0,
      (f) => (f & SF) !== 0,
      (f) => (f & PF) !== 0,
      (f) => ((f & SF) !== 0) !== ((f & OF) !== 0),
      (f) => (f & ZF) !== 0 || ((f & SF) !== 0) !== ((f & OF) !== 0),
    ];
    const m = new FlatMachine();
    for (let i = 0; i < 64; i++) {
      const flags = [CF, PF, AF, ZF, SF, OF].reduce((sum, bit, n) => sum | (i >> n & 1 ? bit : 0), 0);
      for (let cc = 0; cc < 16; cc++) {
        m.flags = flags;
        m.run(`0f 9${cc.toString(16)} c0`);
        assertEquals(m.get("rax"), conditions[cc >> 1]!(flags) !== ((cc & 1) === 1) ? 1n : 0n);
      }
    }
  });

  it("90H is no XCHG: RAX keeps its upper half; with REX.B it is one", () => {
    const m = new FlatMachine().set({ rax: -1, r8: 5 });
    m.run("90");
    assertEquals(m.get("rax"), 0xffff_ffff_ffff_ffffn);
    m.run("41 90");
    assertEquals([m.get("rax"), m.get("r8")], [5n, 0xffff_ffffn]);
  });

  it("BSWAP and MOVBE reverse bytes", () => {
    const m = new FlatMachine().set({ rax: 0x1122334455667788n, rbx: DATA });
    m.run("48 0f c8");
    assertEquals(m.get("rax"), 0x8877665544332211n);
    m.run("66 0f 38 f1 03");
    assertEquals(m.peek(DATA, 2), "2211");
    m.run("0f 38 f0 0b");
    assertEquals(m.get("rcx"), 0x22110000n);
  });

  it("XLAT reads DS:[rBX + AL], in the address size, with an override", () => {
    const m = new FlatMachine().set({ rbx: DATA, rax: 0xff10 }).poke(DATA + 0x10, "ab");
    m.run("d7");
    assertEquals(m.get("rax"), 0xffabn);
    m.set({ rax: 0 }).poke(DATA + 0x20, "cd");
    m.cpu.set64(S.SEGBASE + 4 * 8, 0x20n);
    m.run("64 d7");
    assertEquals(m.get("rax"), 0xcdn);
  });

  it("LAHF and SAHF move five flags through AH, and OF stays", () => {
    const m = new FlatMachine().set({ rax: 0x12345678 });
    m.flags = CF | PF | AF | ZF | SF | OF;
    m.run("9f");
    assertEquals(m.get("rax"), 0x1234d778n);
    m.set({ rax: 0 });
    m.run("9e");
    assertEquals(m.flags, OF);
  });

  it("RDRAND gives CF = 1 and the other status flags clear, and not the same number twice", () => {
    const m = new FlatMachine();
    m.cpu.seedRandom(1);
    m.flags = ZF | SF | OF | PF | AF;
    m.run("48 0f c7 f0");
    const first = m.get("rax");
    assertEquals(m.flags, CF);
    m.run("48 0f c7 f0");
    assertEquals(m.get("rax") === first, false);
    m.run("66 0f c7 f1");
    assertEquals(m.get("rcx") < 0x1_0000n, true);
  });

  it("UD1 and UD2 raise #UD; the hint opcodes touch no memory", () => {
    const m = new FlatMachine().set({ rax: 0x8000_0000_0000_0000n });
    assertEquals(m.run("0f 0b"), { vector: 6, code: -1 });
    assertEquals(m.run("0f b9 00"), { vector: 6, code: -1 });
    for (const hint of ["0f 1f 00", "0f 18 00", "0f 0d 08", "0f 1e 00", "f3 0f 1e fa", "f3 90"]) {
      assertEquals(m.run(hint), undefined);
    }
    assertEquals(m.run("0f ae 38")?.vector, 13);
  });
});
