import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { RFLAGS, S, SEG } from "../../../hw/state.ts";
import { DATA, FlatMachine, STACK } from "./flat_machine.ts";

const { ZF } = RFLAGS;

describe("Near branches", () => {
  it("JMP and Jcc count from the next instruction", () => {
    const m = new FlatMachine();
    m.run("eb fe", 0x9000);
    assertEquals(m.cpu.rip, 0x9000n);
    m.flags = ZF;
    m.run("74 10", 0x9000);
    assertEquals(m.cpu.rip, 0x9012n);
    m.run("75 10", 0x9000);
    assertEquals(m.cpu.rip, 0x9002n);
    m.run("0f 84 00ffffff", 0x9000);
    assertEquals(m.cpu.rip, 0x8f06n);
  });

  it("a 16-bit operand truncates the target to 16 bits, a 32-bit one does not", () => {
    const m = new FlatMachine(0);
    m.run("e9 0070", 0x9000);
    assertEquals(m.cpu.rip, 0x3n);
    assertEquals(m.run("66 e9 00700000", 0x9000), { vector: 13, code: 0 });
  });

  it("a target beyond the limit of CS, or not canonical, faults before anything changes", () => {
    const m = new FlatMachine(1);
    m.cpu.set32(S.SEGLIMIT + SEG.CS * 4, 0x9fff);
    assertEquals(m.run("e8 00100000", 0x9000), { vector: 13, code: 0 });
    assertEquals([m.get("rsp"), m.peek(STACK - 4, 4)], [BigInt(STACK), "00000000"]);
    const wide = new FlatMachine().set({ rax: 0x8000_0000_0000n });
    assertEquals(wide.run("ff e0"), { vector: 13, code: 0 });
    assertEquals(wide.run("ff d0"), { vector: 13, code: 0 });
  });

  it("CALL pushes the return address and RET takes it and its parameters", () => {
    const m = new FlatMachine();
    m.run("e8 00010000", 0x9000);
    assertEquals([m.cpu.rip, m.get("rsp"), m.peek(STACK - 8, 8)], [
      0x9105n,
      BigInt(STACK - 8),
      "0590000000000000",
    ]);
    m.run("c2 1000", 0x9105);
    assertEquals([m.cpu.rip, m.get("rsp")], [0x9005n, BigInt(STACK + 16)]);
  });

  it("CALL through rSP reads the old stack pointer", () => {
    const m = new FlatMachine().poke(STACK, "3412000000000000");
    m.run("ff 14 24");
    assertEquals([m.cpu.rip, m.get("rsp")], [0x1234n, BigInt(STACK - 8)]);
  });

  it("66H does not narrow near branches in 64-bit mode", () => {
    const m = new FlatMachine();
    m.run("66 e8 00000000", 0x9000);
    assertEquals([m.cpu.rip, m.get("rsp")], [0x9006n, BigInt(STACK - 8)]);
  });

  it("LOOP, LOOPE, LOOPNE and JRCXZ by the address size", () => {
    const m = new FlatMachine().set({ rcx: 1 });
    m.run("e2 10", 0x9000);
    assertEquals([m.cpu.rip, m.get("rcx")], [0x9002n, 0n]);
    m.run("e2 10", 0x9000);
    assertEquals([m.cpu.rip, m.get("rcx")], [0x9012n, 0xffff_ffff_ffff_ffffn]);
    m.set({ rcx: 0x1_0000_0000n });
    m.run("67 e3 10", 0x9000);
    assertEquals(m.cpu.rip, 0x9013n);
    m.run("e3 10", 0x9000);
    assertEquals(m.cpu.rip, 0x9002n);
    m.set({ rcx: 5 });
    m.flags = ZF;
    m.run("e1 10", 0x9000);
    assertEquals(m.cpu.rip, 0x9012n);
    m.run("e0 10", 0x9000);
    assertEquals([m.cpu.rip, m.get("rcx")], [0x9002n, 3n]);
  });

  it("LOOP that faults keeps its count", () => {
    const m = new FlatMachine(1).set({ rcx: 5 });
    m.cpu.set32(S.SEGLIMIT + SEG.CS * 4, 0x9003);
    assertEquals(m.run("e2 10", 0x9000), { vector: 13, code: 0 });
    assertEquals(m.get("rcx"), 5n);
  });

  it("BOUND compares signed, and is not there in 64-bit mode", () => {
    const m = new FlatMachine(1).set({ rax: -5, rbx: DATA }).poke(DATA, "f6ffffff 0a000000");
    assertEquals(m.run("62 03"), undefined);
    m.set({ rax: 11 });
    assertEquals(m.run("62 03"), { vector: 5, code: -1 });
    m.set({ rax: -11 });
    assertEquals(m.run("62 03"), { vector: 5, code: -1 });
    assertEquals(new FlatMachine().set({ rbx: DATA }).run("62 03")?.vector, 6);
  });
});
