/** MOV CR, LMSW, CLTS, EFER: the combinations that are allowed, and what they bring about. */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { customModel, defaultModel } from "../../../hw/cpuid.ts";
import { S, SEG } from "../../../hw/state.ts";
import { CR0, CR4, EFER, resetCpu } from "../../../hw/sys/mode.ts";
import { AT, onBothEngines, SystemFixture } from "./system_fixture.ts";

const PG = 0x8000_0000;

/** Vector that MOV RAX to CRn with this value raises, or −1. */
function writeCr(f: SystemFixture, n: number, value: bigint | number): number {
  f.cpu.setGpr(0, BigInt(value));
  f.run(`0f22${(0xc0 | (n << 3)).toString(16)} 90`, 2);
  return f.caught;
}

describe("CR0", () => {
  it("ignores reserved bits and keeps ET", () => {
    const f = new SystemFixture("protected");
    assertEquals(writeCr(f, 0, 1 | 0x40), -1);
    assertEquals(f.cpu.get32(S.CR0), 0x11);
  });

  it("refuses PG without PE and NW without CD", () => {
    assertEquals(writeCr(new SystemFixture("protected"), 0, PG), 13);
    assertEquals(writeCr(new SystemFixture("protected"), 0, CR0.NW | 1), 13);
    assertEquals(writeCr(new SystemFixture(), 0, (1n << 32n) | BigInt(PG | 1)), 13);
  });

  it("cannot leave paging in 64-bit mode", () => {
    assertEquals(writeCr(new SystemFixture(), 0, 1), 13);
  });

  it("goes to IA-32e mode and back in compatibility mode", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      // ljmp to 32-bit code by a far return; there: clear PG, set it again.
      f.place(0x9000, "0f20c0 89c3 25ffffff7f 0f22c0 0f22c3 f4");
      f.cpu.setGpr(4, BigInt(AT.STACK0));
      f.run("6a40 6800900000 48cb", 3);
      assertEquals([f.cpu.get32(S.CODEMODE), f.cpu.rip], [1, 0x9000n]);
      f.step(4);
      assertEquals(f.cpu.get32(S.EFER) & EFER.LMA, 0);
      f.step(2);
      assertEquals([f.cpu.get32(S.EFER) & EFER.LMA, f.cpu.get32(S.ACTIVITY)], [EFER.LMA, 1]);
    });
  });

  it("needs CR4.PAE to activate IA-32e mode", () => {
    const f = new SystemFixture("protected");
    f.cpu.set32(S.EFER, EFER.LME);
    assertEquals(writeCr(f, 0, PG + 1), 13);
  });

  it("MOV from CR0 reads it in full, SMSW too, LMSW sets PE MP EM TS and cannot clear PE", () => {
    const f = new SystemFixture();
    f.run("0f20c0 480f01e3", 2);
    assertEquals([f.cpu.gpr(0), f.cpu.gpr(3)], [0x8001_0031n, 0x8001_0031n]);
    f.cpu.setGpr(0, 0xen);
    f.run("0f01f0", 1);
    assertEquals(f.cpu.get32(S.CR0) & 0xf, 0xf);
    f.run("0f06", 1);
    assertEquals(f.cpu.get32(S.CR0) & 0xf, 7);
  });

  it("TS makes x87 #NM and EM makes SSE #UD", () => {
    const f = new SystemFixture();
    f.cpu.setGpr(0, BigInt(f.cpu.get32(S.CR0) + CR0.TS));
    assertEquals(f.run("0f22c0 d9e8", 3).caught, 7);
    const g = new SystemFixture();
    g.cpu.setGpr(0, BigInt(g.cpu.get32(S.CR0) + CR0.EM));
    assertEquals(g.run("0f22c0 0f57c0", 3).caught, 6);
  });

  it("is #GP(0) outside CPL 0", () => {
    assertEquals(new SystemFixture().setRing(3).run("0f20c0", 2, AT.USER_CODE).caught, 13);
  });
});

describe("CR3", () => {
  it("has reserved bits from MAXPHYADDR up", () => {
    assertEquals(writeCr(new SystemFixture(), 3, (1n << 39n) | BigInt(AT.PML4)), 13);
    assertEquals(writeCr(new SystemFixture(), 3, AT.PML4), -1);
  });

  it("takes bit 63 with PCIDE only, and does not keep it", () => {
    assertEquals(writeCr(new SystemFixture(), 3, (1n << 63n) | BigInt(AT.PML4)), 13);
    const f = new SystemFixture();
    f.cpu.set32(S.CR4, f.cpu.get32(S.CR4) | CR4.PCIDE);
    assertEquals(writeCr(f, 3, (1n << 63n) | BigInt(AT.PML4 + 5)), -1);
    assertEquals(f.cpu.get64(S.CR3), BigInt(AT.PML4 + 5));
  });

  it("loads PDPTEs under PAE paging and refuses reserved bits in them", () => {
    const f = new SystemFixture("protected");
    f.view.setUint32(AT.PML4, 0x5001, true);
    for (let i = 0; i < 512; i++) f.view.setUint32(0x5000 + i * 8, i * 0x20_0000 + 0x83, true);
    assertEquals(writeCr(f, 3, AT.PML4), -1);
    assertEquals(writeCr(f, 4, CR4.PAE), -1);
    assertEquals(writeCr(f, 0, PG + 1), -1);
    assertEquals(f.cpu.get64(S.PDPTE), 0x5001n);
    f.view.setUint32(AT.PML4, 0x5003, true);
    assertEquals(writeCr(f, 3, AT.PML4), 13);
  });
});

describe("CR4", () => {
  it("has the bits of the model's features and no others", () => {
    assertEquals(writeCr(new SystemFixture(), 4, CR4.PAE | CR4.SMXE), 13);
    assertEquals(writeCr(new SystemFixture(), 4, CR4.PAE | CR4.VMXE), -1);
    assertEquals(writeCr(new SystemFixture(), 4, CR4.PAE | CR4.SMEP | CR4.SMAP), -1);
    const bare = customModel(defaultModel, { remove: ["smap"] });
    assertEquals(writeCr(new SystemFixture("long", "interpreter", bare), 4, CR4.PAE | CR4.SMAP), 13);
    assertEquals(writeCr(new SystemFixture("long", "interpreter", "icelake"), 4, CR4.PAE | CR4.PKE), -1);
  });

  it("keeps PAE and LA57 in IA-32e mode", () => {
    assertEquals(writeCr(new SystemFixture(), 4, 0), 13);
    assertEquals(writeCr(new SystemFixture("long", "interpreter", "icelake"), 4, CR4.PAE | CR4.LA57), 13);
  });

  it("takes PCIDE in IA-32e mode with CR3[11:0] = 0 only", () => {
    assertEquals(writeCr(new SystemFixture("protected"), 4, CR4.PAE | CR4.PCIDE), 13);
    assertEquals(writeCr(new SystemFixture(), 4, CR4.PAE | CR4.PCIDE), -1);
    const f = new SystemFixture();
    f.cpu.set32(S.CR3, AT.PML4 | 8);
    assertEquals(writeCr(f, 4, CR4.PAE | CR4.PCIDE), 13);
  });
});

describe("CR8 and others", () => {
  it("CR8 is the task priority, its upper bits are reserved", () => {
    const f = new SystemFixture();
    f.cpu.setGpr(0, 5n);
    f.run("440f22c0 440f20c3", 2); // mov %rax,%cr8; mov %cr8,%rbx
    assertEquals([f.cpu.apic.tpr, f.cpu.gpr(3)], [0x50, 5n]);
    f.cpu.setGpr(0, 0x10n);
    assertEquals(f.run("440f22c0", 2).caught, 13);
  });

  it("CR1, CR5 and up are #UD", () => {
    assertEquals(new SystemFixture().run("0f20c8", 2).caught, 6);
    assertEquals(new SystemFixture().run("0f20e8", 2).caught, 6);
  });
});

describe("reset", () => {
  it("leaves the processor as the SDM's table says", () => {
    const f = new SystemFixture();
    resetCpu(f.cpu);
    const { cpu } = f;
    assertEquals([cpu.rip, cpu.segBase(SEG.CS), cpu.segSel(SEG.CS)], [0xfff0n, 0xffff_0000n, 0xf000]);
    assertEquals([cpu.get32(S.CR0), cpu.rflags, cpu.get32(S.EFER)], [0x6000_0010, 2, 0]);
    assertEquals([cpu.get32(S.DR + 48), cpu.get32(S.DR + 56)], [0xffff_0ff0, 0x400]);
    assertEquals(cpu.gpr(2), 0x506e3n);
    assertEquals([cpu.get32(S.CODEMODE), cpu.get32(S.STACKMODE)], [0, 0]);
  });
});
