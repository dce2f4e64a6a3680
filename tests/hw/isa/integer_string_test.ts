import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { RFLAGS, S, SEG } from "../../../hw/state.ts";
import { DATA, FlatMachine } from "./flat_machine.ts";

const { CF, ZF, DF } = RFLAGS;

describe("String instructions", () => {
  it("without a prefix do one element and leave rCX", () => {
    const m = new FlatMachine().set({ rsi: DATA, rdi: DATA + 0x100, rcx: 5 }).poke(DATA, "0102030405060708");
    m.run("48 a5");
    assertEquals(m.peek(DATA + 0x100, 8), "0102030405060708");
    assertEquals([m.get("rsi"), m.get("rdi"), m.get("rcx")], [BigInt(DATA + 8), BigInt(DATA + 0x108), 5n]);
  });

  it("REP counts one instruction an iteration, and one for a count of 0", () => {
    const m = new FlatMachine().set({ rdi: DATA, rcx: 5, rax: 0x1234 });
    m.run("f3 66 ab");
    assertEquals([m.steps, m.peek(DATA, 12)], [5, "34123412341234123412" + "0000"]);
    m.run("f3 66 ab");
    assertEquals([m.steps, m.get("rdi")], [1, BigInt(DATA + 10)]);
  });

  it("go down with DF", () => {
    const m = new FlatMachine().set({ rsi: DATA + 4, rdi: DATA + 0x104, rcx: 2 }).poke(
      DATA,
      "0102030405060708",
    );
    m.cpu.set32(S.RFLAGS, 2 | DF);
    m.run("f3 a5");
    assertEquals(m.peek(DATA + 0x100, 8), "0102030405060708");
    assertEquals([m.get("rsi"), m.get("rdi")], [BigInt(DATA - 4), BigInt(DATA + 0xfc)]);
  });

  it("overlapping moves repeat a pattern, as byte by byte they must", () => {
    const m = new FlatMachine().set({ rsi: DATA, rdi: DATA + 1, rcx: 7 }).poke(DATA, "ab");
    m.run("f3 a4");
    assertEquals(m.peek(DATA, 9), "abababababababab00");
  });

  it("F2H repeats a move like F3H", () => {
    const m = new FlatMachine().set({ rdi: DATA, rcx: 3, rax: 0x77 });
    m.run("f2 aa");
    assertEquals([m.peek(DATA, 4), m.get("rcx")], ["77777700", 0n]);
  });

  it("REPE CMPS stops behind the first difference with its flags", () => {
    const m = new FlatMachine().set({ rsi: DATA, rdi: DATA + 0x100, rcx: 10 });
    m.poke(DATA, "61626364").poke(DATA + 0x100, "61627a64");
    m.run("f3 a6");
    assertEquals([m.get("rcx"), m.get("rsi"), m.flags & (CF | ZF)], [7n, BigInt(DATA + 3), CF]);
  });

  it("REPNE SCAS finds a byte", () => {
    const m = new FlatMachine().set({ rdi: DATA, rcx: -1, rax: 0 }).poke(DATA, "61626300");
    m.run("f2 ae");
    assertEquals([m.get("rcx"), m.get("rdi"), m.flags & ZF], [BigInt.asUintN(64, -5n), BigInt(DATA + 4), ZF]);
  });

  it("REPE CMPS with a count of 0 keeps the flags", () => {
    const m = new FlatMachine().set({ rcx: 0 });
    m.flags = CF;
    m.run("f3 a6");
    assertEquals(m.flags, CF);
  });

  it("a fault in the middle leaves the registers at the iteration that faulted", () => {
    const m = new FlatMachine().set({ rdi: DATA + 0xffe, rcx: 8, rax: 0x55 });
    m.access.readOnly.add((DATA >> 12) + 1);
    assertEquals(m.run("f3 aa"), { vector: 14, code: 3 });
    assertEquals([m.get("rdi"), m.get("rcx"), m.cpu.rip], [BigInt(DATA + 0x1000), 6n, 0x9000n]);
  });

  it("a 32-bit address size works on ECX, ESI, EDI and clears their upper halves", () => {
    const high = 0xffff_ffff_0000_0000n;
    const m = new FlatMachine().set({
      rsi: high + BigInt(DATA),
      rdi: high + BigInt(DATA + 0x10),
      rcx: high + 2n,
    });
    m.poke(DATA, "1122");
    m.run("67 f3 a4");
    assertEquals([m.peek(DATA + 0x10, 2), m.get("rcx"), m.get("rsi")], ["1122", 0n, BigInt(DATA + 2)]);
    m.set({ rcx: high });
    m.run("67 f3 a4");
    assertEquals(m.get("rcx"), high);
  });

  it("a 16-bit address size wraps SI and DI and keeps the upper halves", () => {
    const m = new FlatMachine(0).set({ rsi: 0xabcd_ffff, rdi: 0x1_4000, rcx: 0x5_0002 }).poke(0xffff, "77")
      .poke(0, "88");
    m.run("f3 a4");
    assertEquals([m.peek(0x4000, 2), m.get("rsi"), m.get("rdi"), m.get("rcx")], [
      "7788",
      0xabcd_0001n,
      0x1_4002n,
      0x5_0000n,
    ]);
  });

  it("an override moves the source side; the ES side stays", () => {
    const m = new FlatMachine(1).set({ rsi: 0, rdi: 0 }).poke(DATA, "12").poke(DATA + 0x100, "34");
    m.cpu.set64(S.SEGBASE + SEG.FS * 8, BigInt(DATA));
    m.cpu.set64(S.SEGBASE + SEG.ES * 8, BigInt(DATA + 0x100));
    m.run("64 a4");
    assertEquals(m.peek(DATA + 0x100, 1), "12");
  });

  it("LODS zero-extends EAX and merges AL", () => {
    const m = new FlatMachine().set({ rsi: DATA, rax: -1 }).poke(DATA, "1122334455");
    m.run("ac");
    assertEquals(m.get("rax"), 0xffff_ffff_ffff_ff11n);
    m.run("ad");
    assertEquals(m.get("rax"), 0x5544_3322n);
  });
});
