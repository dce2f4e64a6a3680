import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { S } from "../../../hw/state.ts";
import { DATA, FlatMachine, STACK } from "./flat_machine.ts";

describe("PUSH and POP", () => {
  it("PUSH rSP pushes the old value, POP rSP leaves the popped one", () => {
    const m = new FlatMachine();
    m.run("54");
    assertEquals([m.get("rsp"), m.peek(STACK - 8, 8)], [BigInt(STACK - 8), "0070000000000000"]);
    m.poke(STACK - 8, "8877665544332211");
    m.run("5c");
    assertEquals(m.get("rsp"), 0x1122334455667788n);
  });

  it("immediates are sign-extended to what is pushed", () => {
    const m = new FlatMachine();
    m.run("6a ff");
    assertEquals([m.get("rsp"), m.peek(STACK - 8, 8)], [BigInt(STACK - 8), "ffffffffffffffff"]);
    m.run("66 68 3412");
    assertEquals([m.get("rsp"), m.peek(STACK - 10, 2)], [BigInt(STACK - 10), "3412"]);
  });

  it("POP to memory through rSP uses the incremented pointer", () => {
    const m = new FlatMachine().poke(STACK, "8877665544332211");
    m.run("8f 44 24 10");
    assertEquals([m.peek(STACK + 0x18, 8), m.get("rsp")], ["8877665544332211", BigInt(STACK + 8)]);
  });

  it("POP to memory that refuses the write leaves rSP", () => {
    const m = new FlatMachine().set({ rbx: DATA });
    m.access.readOnly.add(DATA >> 12);
    assertEquals(m.run("8f 03"), { vector: 14, code: 3 });
    assertEquals(m.get("rsp"), BigInt(STACK));
  });

  it("a non-canonical stack is #SS(0)", () => {
    const m = new FlatMachine().set({ rsp: 0x8000_0000_0000_0000n });
    assertEquals(m.run("50"), { vector: 12, code: 0 });
    assertEquals(m.run("58"), { vector: 12, code: 0 });
    assertEquals(m.run("c3"), { vector: 12, code: 0 });
  });

  it("a 16-bit stack wraps SP and keeps the upper half of ESP", () => {
    const m = new FlatMachine(1).set({ rsp: 0x1234_0000, rax: 0xaabb_ccdd });
    m.cpu.set32(S.STACKMODE, 0);
    m.run("50");
    assertEquals([m.get("rsp"), m.peek(0xfffc, 4)], [0x1234_fffcn, "ddccbbaa"]);
    m.run("59");
    assertEquals([m.get("rsp"), m.get("rcx")], [0x1234_0000n, 0xaabb_ccddn]);
  });

  it("PUSHA pushes the old SP, POPA skips it", () => {
    const m = new FlatMachine(1).set({ rax: 1, rcx: 2, rdx: 3, rbx: 4, rbp: 6, rsi: 7, rdi: 8 });
    m.run("60");
    const words = [8, 7, 6, STACK, 4, 3, 2, 1].map((n) => n.toString(16).padStart(4, "0"));
    assertEquals(m.peek(STACK - 32, 32), words.map((n) => n.slice(2) + n.slice(0, 2) + "0000").join(""));
    m.set({ rax: 0, rcx: 0, rdx: 0, rbx: 0, rbp: 0, rsi: 0, rdi: 0 }).poke(STACK - 20, "ffffffff");
    m.run("61");
    assertEquals([m.get("rax"), m.get("rdi"), m.get("rsp")], [1n, 8n, BigInt(STACK)]);
  });
});

describe("ENTER and LEAVE", () => {
  it("level 0 makes a plain frame, and LEAVE undoes it", () => {
    const m = new FlatMachine().set({ rbp: 0x1234 });
    m.run("c8 2000 00");
    assertEquals([m.get("rbp"), m.get("rsp")], [BigInt(STACK - 8), BigInt(STACK - 40)]);
    m.run("c9");
    assertEquals([m.get("rbp"), m.get("rsp")], [0x1234n, BigInt(STACK)]);
  });

  it("level 3 copies two outer frame pointers and adds its own", () => {
    const m = new FlatMachine().set({ rbp: DATA + 0x100 });
    m.poke(DATA + 0x100 - 16, "2222000000000000 1111000000000000");
    m.run("c8 1000 03");
    const frame = STACK - 8;
    assertEquals([m.get("rbp"), m.get("rsp")], [BigInt(frame), BigInt(frame - 24 - 16)]);
    assertEquals(m.peek(frame - 24, 24), "f86f000000000000" + "2222000000000000" + "1111000000000000");
  });

  it("level counts modulo 32", () => {
    const m = new FlatMachine().set({ rbp: DATA });
    m.run("c8 0000 20");
    assertEquals(m.get("rsp"), BigInt(STACK - 8));
  });

  it("faults if the new top of the stack is not writable", () => {
    const m = new FlatMachine().set({ rbp: DATA });
    m.access.readOnly.add((STACK - 0x2000) >> 12);
    assertEquals(m.run("c8 0008 00"), undefined);
    m.set({ rsp: STACK, rbp: DATA });
    assertEquals(m.run("c8 0010 00"), { vector: 14, code: 3 });
    assertEquals([m.get("rsp"), m.get("rbp")], [BigInt(STACK), BigInt(DATA)]);
  });

  it("16-bit operands change BP alone", () => {
    const m = new FlatMachine().set({ rbp: 0x1122_3344_5566_7788n });
    m.run("66 c8 0400 00");
    assertEquals([m.get("rbp"), m.get("rsp")], [0x1122_3344_5566_6ffen, BigInt(STACK - 6)]);
  });
});
