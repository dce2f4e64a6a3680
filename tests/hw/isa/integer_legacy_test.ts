import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { RFLAGS } from "../../../hw/state.ts";
import { FlatMachine } from "./flat_machine.ts";

const { CF, PF, AF, ZF, SF } = RFLAGS;

/** The two-digit packed decimal of `n` modulo 100. */
const packed = (n: number) => ((Math.floor(n / 10) % 10) << 4) | (n % 10);

describe("Decimal adjustments", () => {
  it("DAA after ADD and DAS after SUB give packed decimal sums and differences", () => {
    const m = new FlatMachine(1);
    for (let a = 0; a < 100; a++) {
      for (let c = 0; c < 100; c += 3) {
        m.set({ rax: packed(a), rcx: packed(c) });
        m.run("00 c8");
        m.run("27");
        assertEquals([Number(m.get("rax")), m.flags & CF], [packed(a + c), a + c > 99 ? CF : 0]);
        m.set({ rax: packed(a), rcx: packed(c) });
        m.run("28 c8");
        m.run("2f");
        assertEquals([Number(m.get("rax")), m.flags & CF], [packed((a - c + 100) % 100), a < c ? CF : 0]);
      }
    }
  });

  it("DAS keeps the borrow of its first step", () => {
    const m = new FlatMachine(1).set({ rax: 3 });
    m.flags = AF;
    m.run("2f");
    assertEquals([m.get("rax"), m.flags], [0xfdn, CF | AF | SF]);
  });

  it("AAA and AAS carry into AH", () => {
    const m = new FlatMachine(1).set({ rax: 0x020b });
    m.flags = 0;
    m.run("37");
    assertEquals([m.get("rax"), m.flags & (CF | AF)], [0x0301n, CF | AF]);
    m.set({ rax: 0x02f9 });
    m.flags = 0;
    m.run("37");
    assertEquals([m.get("rax"), m.flags & (CF | AF)], [0x0209n, 0]);
    m.set({ rax: 0x0203 });
    m.flags = AF;
    m.run("3f");
    assertEquals([m.get("rax"), m.flags & (CF | AF)], [0x000dn, CF | AF]);
  });

  it("AAM divides by its immediate, 0 is #DE; AAD is its inverse", () => {
    const m = new FlatMachine(1).set({ rax: 0xff4f });
    m.run("d4 0a");
    assertEquals([m.get("rax"), m.flags & (ZF | SF | PF)], [0x0709n, PF]);
    m.run("d5 0a");
    assertEquals(m.get("rax"), 0x4fn);
    assertEquals(m.run("d4 00"), { vector: 0, code: -1 });
  });

  it("SALC spreads CF over AL", () => {
    const m = new FlatMachine(1).set({ rax: 0x1234 });
    m.flags = CF;
    m.run("d6");
    assertEquals([m.get("rax"), m.flags], [0x12ffn, CF]);
  });

  it("none of them is there in 64-bit mode", () => {
    for (const code of ["27", "2f", "37", "3f", "d4 0a", "d5 0a", "d6", "60", "61"]) {
      assertEquals(new FlatMachine().run(code), { vector: 6, code: -1 });
    }
  });
});
