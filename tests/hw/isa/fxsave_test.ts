import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { Bus } from "../../../hw/bus.ts";
import { Cpu } from "../../../hw/cpu.ts";
import { cpuModels } from "../../../hw/cpuid.ts";
import { fxsaveProcedures } from "../../../hw/isa/fxsave_proc.ts";
import { setAbridgedTags, setWords, writePhysical } from "../../../hw/isa/x87_state.ts";
import { S } from "../../../hw/state.ts";
import { DATA, FlatMachine } from "./flat_machine.ts";

const OSXSAVE = 1 << 18, TS = 8;
const PKRU_AT = 0xa80;

/** A 64-bit machine with recognizable state, XCR0 = x87 | SSE, CR4.OSXSAVE set, [RDX] = DATA. */
function machine(mode: 0 | 1 | 2 = 2): FlatMachine {
  const m = new FlatMachine(mode, fxsaveProcedures), { cpu } = m;
  cpu.set32(S.CR0, 0x21);
  cpu.set32(S.CR4, OSXSAVE);
  cpu.set64(S.XCR0, 3n);
  cpu.set32(S.MXCSR, 0x1fa0);
  fill(m);
  m.set({ rdx: DATA, rsi: DATA, rax: 3 });
  return m;
}
function fill({ cpu }: FlatMachine): void {
  setWords(cpu, 0x27f, 0x3800 | 0x21);
  setAbridgedTags(cpu, 0x81);
  for (let n = 0; n < 8; n++) writePhysical(cpu, n, (BigInt(n + 1) << 64n) | BigInt(0x1111 * (n + 1)));
  for (let n = 0; n < 32; n++) cpu.set64(S.XMM + n * 8, BigInt(n + 1) * 0x0101_0101n);
  cpu.memory.u16[(cpu.base + S.FOP) >>> 1] = 0x123;
  cpu.set64(S.FIP, 0x1_2345_6789n);
  cpu.set32(S.FCS, 0x33);
  cpu.set64(S.FDP, 0x2_abcd_ef01n);
  cpu.set32(S.FDS, 0x2b);
}
/** Everything that FXSAVE saves, as a string. */
function snapshot({ cpu }: FlatMachine): string {
  const part = (from: number, bytes: number) =>
    cpu.memory.u8.slice(cpu.base + from, cpu.base + from + bytes).toHex();
  return [part(S.MXCSR, 4), part(S.FCW, 32), part(S.FPR, 128), part(S.XMM, 256)].join(" ");
}
function clear({ cpu }: FlatMachine): void {
  cpu.memory.u8.fill(0, cpu.base + S.MXCSR, cpu.base + S.FCW + 32);
  cpu.memory.u8.fill(0, cpu.base + S.FPR, cpu.base + S.XMM + 256);
}
function header(m: FlatMachine): string {
  return m.peek(DATA + 512, 64);
}

const FXSAVE = "0f ae 02", FXRSTOR = "0f ae 0a", XSAVE = "0f ae 22", XRSTOR = "0f ae 2a";
const W = "48 ";

describe("FXSAVE and FXRSTOR", () => {
  it("lay the state out as the SDM's table has it", () => {
    const m = machine().poke(DATA, "aa".repeat(512));
    assertEquals(m.run(FXSAVE), undefined);
    assertEquals(
      m.peek(DATA, 32),
      "7f022138 81002301 89674523 33000000 01efcdab 2b000000 a01f0000 ffff0000".replaceAll(" ", ""),
    );
    // TOP = 7: ST0 is R7, ST1 is R0
    assertEquals(
      m.peek(DATA + 32, 32),
      "8888000000000000 0800 000000000000 1111000000000000 0100 000000000000".replaceAll(" ", ""),
    );
    assertEquals(m.peek(DATA + 160, 8), "0101010100000000");
    assertEquals(m.peek(DATA + 408, 8), "2020202000000000");
    assertEquals(m.peek(DATA + 416, 96), "aa".repeat(96), "nothing behind XMM15 is written");
  });

  it("REX.W: 64-bit pointers in place of the selectors", () => {
    const m = machine();
    assertEquals(m.run(W + FXSAVE), undefined);
    assertEquals(m.peek(DATA + 8, 16), "8967452301000000 01efcdab02000000".replace(" ", ""));
  });

  it("a round trip restores every bit", () => {
    const m = machine();
    m.cpu.set32(S.FCS, 0);
    m.cpu.set32(S.FDS, 0);
    const before = snapshot(m);
    assertEquals(m.run(W + FXSAVE), undefined);
    clear(m);
    assertEquals(m.run(W + FXRSTOR), undefined);
    assertEquals(snapshot(m), before);
  });

  it("outside 64-bit mode XMM8 to XMM15 are left alone", () => {
    const m = machine(1).poke(DATA, "aa".repeat(512));
    assertEquals(m.run(FXSAVE), undefined);
    assertEquals(m.peek(DATA + 280, 16), "1010101000000000" + "aa".repeat(8));
    const before = m.cpu.get64(S.XMM + 16 * 8);
    assertEquals(m.run(FXRSTOR), undefined);
    assertEquals(m.cpu.get64(S.XMM + 16 * 8), before);
  });

  it("faults: alignment, MXCSR, FPUTRAP, a missing page; nothing changes", () => {
    const m = machine();
    const before = snapshot(m);
    assertEquals(m.set({ rdx: DATA + 8 }).run(FXSAVE), { vector: 13, code: 0 });
    assertEquals(m.run(FXRSTOR), { vector: 13, code: 0 });
    m.set({ rdx: DATA }).poke(DATA, "00".repeat(512)).poke(DATA + 24, "00000100");
    assertEquals(m.run(FXRSTOR), { vector: 13, code: 0 });
    m.set({ rdx: 0x10_0000 - 256 }); // the second half is not there
    assertEquals(m.run(FXSAVE)?.vector, 14);
    assertEquals(m.run(FXRSTOR)?.vector, 14);
    assertEquals(m.peek(0x10_0000 - 256, 256), "00".repeat(256));
    m.cpu.set32(S.FPUTRAP, 7);
    assertEquals(m.set({ rdx: DATA }).run(FXSAVE), { vector: 7, code: -1 });
    assertEquals(snapshot(m), before);
  });

  it("the exception summary is made anew from flags and masks", () => {
    const m = machine().poke(DATA, "7e030100" + "00".repeat(508));
    assertEquals(m.run(FXRSTOR), undefined);
    assertEquals(m.cpu.memory.u16[(m.cpu.base + S.FSW) >>> 1], 0x8081);
  });
});

describe("XSAVE and XRSTOR", () => {
  it("save what EDX:EAX and XCR0 both name, and say so in XSTATE_BV", () => {
    const m = machine().poke(DATA, "aa".repeat(512)).poke(DATA + 512, "00".repeat(64));
    m.set({ rax: 0xffff_fffdn });
    assertEquals(m.run(XSAVE), undefined);
    assertEquals(m.peek(DATA + 24, 8), "aa".repeat(8), "no MXCSR without SSE");
    assertEquals(m.peek(DATA + 160, 256), "aa".repeat(256));
    assertEquals(header(m), "01" + "00".repeat(63));
    m.set({ rax: 2 });
    assertEquals(m.run(XSAVE), undefined);
    assertEquals(header(m), "03" + "00".repeat(63), "bits that were not asked for stay");
    assertEquals(m.peek(DATA + 24, 4), "a01f0000");
  });

  it("a component in its initial state gives a clear bit, and its bytes all the same", () => {
    const m = machine().poke(DATA, "aa".repeat(512)).poke(DATA + 512, "03" + "00".repeat(63));
    m.cpu.memory.u8.fill(0, m.cpu.base + S.XMM, m.cpu.base + S.XMM + 256);
    assertEquals(m.run(XSAVE), undefined);
    assertEquals(header(m), "01" + "00".repeat(63));
    assertEquals(m.peek(DATA + 160, 256), "00".repeat(256));
  });

  it("a round trip; absent components are initialized, MXCSR comes from memory all the same", () => {
    const m = machine().poke(DATA + 512, "00".repeat(64));
    m.cpu.set32(S.FCS, 0);
    m.cpu.set32(S.FDS, 0);
    const before = snapshot(m);
    assertEquals(m.run(W + XSAVE), undefined);
    clear(m);
    assertEquals(m.run(W + XRSTOR), undefined);
    assertEquals(snapshot(m), before);

    m.poke(DATA + 512, "00");
    assertEquals(m.run(W + XRSTOR), undefined);
    assertEquals(m.cpu.get64(S.XMM + 8), 0n);
    assertEquals(m.cpu.get32(S.FCW), 0x37f);
    assertEquals(m.cpu.get64(S.FPR), 0n);
    assertEquals(m.cpu.get32(S.MXCSR), 0x1fa0);
  });

  it("bad headers, bad MXCSR, bad alignment: #GP(0), nothing changes", () => {
    const m = machine();
    const before = snapshot(m);
    const gp = { vector: 13, code: 0 };
    for (
      const [at, byte] of [[512, "04"], [513, "02"], [516, "01"], [520, "01"], [527, "80"], [
        535,
        "01",
      ]] as const
    ) {
      m.poke(DATA + 512, "03" + "00".repeat(63)).poke(DATA + at, byte);
      assertEquals(m.run(XRSTOR), gp, `byte ${at}`);
    }
    m.poke(DATA + 512, "01" + "00".repeat(63)).poke(DATA + 24, "00000100");
    assertEquals(m.run(XRSTOR), gp);
    m.poke(DATA + 24, "00000000").set({ rdx: DATA + 16 });
    assertEquals(m.run(XRSTOR), gp);
    assertEquals(m.run(XSAVE), gp);
    assertEquals(snapshot(m), before);
    m.set({ rdx: DATA }).poke(DATA + 536, "ff".repeat(40)); // bytes 63:24 of the header are not looked at
    assertEquals(m.run(XRSTOR), undefined);
  });

  it("#UD without CR4.OSXSAVE, #NM with CR0.TS", () => {
    const m = machine();
    m.cpu.set32(S.CR0, 0x21 | TS);
    for (const hex of [XSAVE, XRSTOR]) assertEquals(m.run(hex), { vector: 7, code: -1 });
    m.cpu.set32(S.CR4, 0);
    for (const hex of [XSAVE, XRSTOR, "0f 01 d0", "0f 01 d1"]) {
      assertEquals(m.run(hex), { vector: 6, code: -1 });
    }
  });

  it("PKRU stands at its own offset", () => {
    const m = machine().poke(DATA, "00".repeat(0xb00));
    m.cpu.set64(S.XCR0, 0x203n);
    m.cpu.set32(S.PKRU, 0x5555_5554);
    m.set({ rax: 0x200 });
    assertEquals(m.run(XSAVE), undefined);
    assertEquals([header(m).slice(0, 6), m.peek(DATA + PKRU_AT, 8)], ["000200", "5455555500000000"]);
    m.cpu.set32(S.PKRU, 0);
    assertEquals(m.run(XRSTOR), undefined);
    assertEquals(m.cpu.get32(S.PKRU), 0x5555_5554);
    m.poke(DATA + 512, "0000");
    assertEquals(m.run(XRSTOR), undefined);
    assertEquals(m.cpu.get32(S.PKRU), 0);
  });

  it("XSAVEC compacts: header, initial components left out, PKRU right behind the header", () => {
    const m = machine().poke(DATA, "aa".repeat(640)).poke(DATA + 512, "00".repeat(64));
    const { cpu } = m;
    cpu.set64(S.XCR0, 0x203n);
    cpu.set32(S.PKRU, 4);
    cpu.memory.u8.fill(0, cpu.base + S.XMM, cpu.base + S.XMM + 256);
    cpu.set32(S.MXCSR, 0x1f80);
    const call = (name: string) => {
      cpu.set64(S.ARG, BigInt(DATA));
      cpu.set64(S.ARG + 8, 3n);
      cpu.set64(S.ARG + 16, 1n);
      fxsaveProcedures[name]!(cpu);
    };
    m.set({ rax: 0x203 });
    call("xsavec");
    assertEquals(header(m).slice(0, 32), "0102000000000000 0302000000000080".replace(" ", ""));
    assertEquals(m.peek(DATA + 160, 256), "aa".repeat(256));
    assertEquals(m.peek(DATA + 576, 8), "0400000000000000");
    m.poke(DATA + 512, "00".repeat(64));
    call("xsaveopt");
    assertEquals(header(m).slice(0, 32), "0102000000000000" + "00".repeat(8));
    assertEquals(m.peek(DATA + 160, 256), "aa".repeat(256));
    assertEquals(m.peek(DATA + PKRU_AT, 4), "04000000");
  });
});

describe("XGETBV and XSETBV", () => {
  it("XCR0 reads and writes; only what the model has, x87 always", () => {
    const m = machine();
    m.set({ rcx: 0 });
    assertEquals(m.run("0f 01 d0"), undefined);
    assertEquals([m.get("rax"), m.get("rdx")], [3n, 0n]);
    assertEquals(m.set({ rax: 1, rdx: 0 }).run("0f 01 d1"), undefined);
    assertEquals(m.cpu.get64(S.XCR0), 1n);
    const bad: [rcx: number, rax: number, rdx: number][] = [[0, 2, 0], [0, 7, 0], [1, 1, 0], [0, 1, 1], [
      0,
      0,
      0,
    ]];
    for (const [rcx, rax, rdx] of bad) {
      assertEquals(m.set({ rcx, rax, rdx }).run("0f 01 d1"), { vector: 13, code: 0 });
    }
    assertEquals(m.set({ rcx: 5 }).run("0f 01 d0"), { vector: 13, code: 0 });
    m.cpu.set32(S.CPL, 3);
    assertEquals(m.set({ rcx: 0, rax: 3, rdx: 0 }).run("0f 01 d1"), { vector: 13, code: 0 });
    assertEquals(m.cpu.get64(S.XCR0), 1n);
  });

  it("PKRU may be enabled where the model has protection keys", () => {
    const m = machine();
    const model = cpuModels["icelake"]!;
    const cpu = new Cpu({ id: 1, memory: m.cpu.memory, bus: new Bus(m.cpu.memory), model });
    cpu.setGpr(0, 0x203n);
    fxsaveProcedures["xsetbv"]!(cpu);
    assertEquals(cpu.get64(S.XCR0), 0x203n);
  });
});
