/** SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, FSGSBASE, POPF, STI. */
import type { EngineKind } from "../../../hw/machine.ts";
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { RFLAGS, S, SEG } from "../../../hw/state.ts";
import { CR4, EFER, updateMode } from "../../../hw/sys/mode.ts";
import { AT, onBothEngines, SEL, SystemFixture } from "./system_fixture.ts";

const ENTRY = 0x9000;

/** User code with STAR and LSTAR set up; the kernel's entry is `entry`. */
function withSyscall(engine: EngineKind, entry: string): SystemFixture {
  const f = new SystemFixture("long", engine).setRing(3);
  f.cpu.set64(S.STAR, (BigInt(SEL.USER_CODE32) << 48n) | (BigInt(SEL.CODE64) << 32n));
  f.cpu.set64(S.LSTAR, BigInt(ENTRY));
  f.cpu.set64(S.FMASK, BigInt(RFLAGS.IF | RFLAGS.CF | RFLAGS.TF));
  f.place(ENTRY, entry);
  f.cpu.setGpr(4, BigInt(AT.USER_STACK));
  return f;
}

describe("SYSCALL and SYSRET", () => {
  it("saves RIP and RFLAGS, masks flags, loads flat segments; SYSRETQ puts it back", () => {
    onBothEngines((engine) => {
      const f = withSyscall(engine, "480f07").setFlags(RFLAGS.IF | RFLAGS.CF | RFLAGS.ZF | 2);
      f.run("0f05", 1, AT.USER_CODE);
      assertEquals(f.cpu.rip, BigInt(ENTRY));
      assertEquals(f.cpu.gpr(1), BigInt(AT.USER_CODE + 2));
      assertEquals(f.cpu.gpr(11), BigInt(RFLAGS.IF | RFLAGS.CF | RFLAGS.ZF | 2));
      assertEquals(f.cpu.rflags, RFLAGS.ZF | 2);
      assertEquals([f.cpu.cpl, f.cpu.segSel(SEG.CS), f.cpu.segSel(SEG.SS)], [0, SEL.CODE64, SEL.CODE64 + 8]);
      assertEquals(f.cpu.gpr(4), BigInt(AT.USER_STACK));
      f.step(1);
      assertEquals([f.cpu.cpl, f.cpu.segSel(SEG.CS), f.cpu.segSel(SEG.SS)], [
        3,
        SEL.USER_CODE64,
        SEL.USER_DATA,
      ]);
      assertEquals([f.cpu.rip, f.cpu.rflags], [
        BigInt(AT.USER_CODE + 2),
        RFLAGS.IF | RFLAGS.CF | RFLAGS.ZF | 2,
      ]);
    });
  });

  it("SYSRETL returns to compatibility mode", () => {
    onBothEngines((engine) => {
      const f = withSyscall(engine, "0f07");
      f.cpu.setGpr(0, -1n);
      f.place(AT.USER_CODE + 2, "40"); // inc %eax
      f.run("0f05", 3, AT.USER_CODE);
      assertEquals([f.cpu.segSel(SEG.CS), f.cpu.get32(S.CODEMODE), f.cpu.gpr(0)], [SEL.USER_CODE32, 1, 0n]);
    });
  });

  it("is #UD with EFER.SCE clear and outside 64-bit mode", () => {
    const f = withSyscall("interpreter", "90");
    f.cpu.set32(S.EFER, f.cpu.get32(S.EFER) & ~EFER.SCE);
    assertEquals(f.run("0f05", 2, AT.USER_CODE).caught, 6);
    assertEquals(new SystemFixture("protected").run("0f05", 2).caught, 6);
  });

  it("SYSRET raises #GP(0) in ring 3, and for an RCX that is not canonical", () => {
    assertEquals(withSyscall("interpreter", "90").run("480f07", 2, AT.USER_CODE).caught, 13);
    const f = withSyscall("interpreter", "90").setRing(0);
    f.cpu.setGpr(1, 0x8000_0000_0000n);
    f.run("480f07", 2);
    assertEquals([f.caught, f.stack(1)], [13, BigInt(AT.CODE)]);
  });

  it("does not trap a SYSCALL that masks TF; SYSRET that sets TF traps at once", () => {
    onBothEngines((engine) => {
      const f = withSyscall(engine, "90 90 480f07").setFlags(RFLAGS.TF);
      f.run("0f05 90 90", 3, AT.USER_CODE);
      assertEquals(f.cpu.rip, BigInt(ENTRY + 2));
      f.step(2);
      assertEquals(f.caught, 1);
      assertEquals(f.stack(0), BigInt(AT.USER_CODE + 2));
      assertEquals(f.cpu.get32(S.DR + 48) & 0x4000, 0x4000);
    });
  });
});

describe("SYSENTER and SYSEXIT", () => {
  it("goes in and out in 64-bit mode", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine).setRing(3).setFlags(RFLAGS.IF);
      f.cpu.set64(S.SYSENTER_CS, BigInt(SEL.CODE64));
      f.cpu.set64(S.SYSENTER_ESP, BigInt(AT.RSP0));
      f.cpu.set64(S.SYSENTER_EIP, BigInt(ENTRY));
      f.place(ENTRY, "480f35");
      f.run("0f34", 1, AT.USER_CODE);
      assertEquals([f.cpu.rip, f.cpu.gpr(4), f.cpu.cpl, f.cpu.rflags & RFLAGS.IF], [
        BigInt(ENTRY),
        BigInt(AT.RSP0),
        0,
        0,
      ]);
      f.cpu.setGpr(1, BigInt(AT.USER_STACK));
      f.cpu.setGpr(2, BigInt(AT.USER_CODE));
      f.step(1);
      assertEquals([f.cpu.rip, f.cpu.gpr(4), f.cpu.segSel(SEG.CS)], [
        BigInt(AT.USER_CODE),
        BigInt(AT.USER_STACK),
        SEL.USER_CODE64,
      ]);
    });
  });

  it("raises #GP(0) with a null SYSENTER_CS", () => {
    assertEquals(new SystemFixture("protected").run("0f34", 2).caught, 13);
  });
});

describe("FS, GS and their bases", () => {
  it("SWAPGS exchanges GS.base with KERNEL_GS_BASE, at CPL 0 only", () => {
    const f = new SystemFixture();
    f.cpu.set64(S.KERNEL_GS_BASE, 0xffff_8000_0000_1000n);
    f.cpu.set64(S.SEGBASE + SEG.GS * 8, 0x1234n);
    f.run("0f01f8", 1);
    assertEquals([f.cpu.segBase(SEG.GS), f.cpu.get64(S.KERNEL_GS_BASE)], [0xffff_8000_0000_1000n, 0x1234n]);
    assertEquals(new SystemFixture().setRing(3).run("0f01f8", 2, AT.USER_CODE).caught, 13);
  });

  it("WRFSBASE and RDFSBASE need CR4.FSGSBASE and a canonical value", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine).setRing(3);
      f.cpu.setGpr(0, 0x7f12_3456_7000n);
      assertEquals(f.run("f3480faed0", 2, AT.USER_CODE).caught, 6);
      const g = new SystemFixture("long", engine).setRing(3);
      g.cpu.set32(S.CR4, g.cpu.get32(S.CR4) | CR4.FSGSBASE);
      g.cpu.setGpr(0, 0x7f12_3456_7000n);
      g.run("f3480faed0 f3480faec3", 2, AT.USER_CODE); // wrfsbase %rax; rdfsbase %rbx
      assertEquals([g.cpu.segBase(SEG.FS), g.cpu.gpr(3)], [0x7f12_3456_7000n, 0x7f12_3456_7000n]);
      g.cpu.setGpr(0, 0x8000_0000_0000n);
      assertEquals(g.run("f3480faed0", 2, AT.USER_CODE).caught, 13);
    });
  });
});

describe("flags", () => {
  it("POPF changes IF only at CPL ≤ IOPL, IOPL only at CPL 0", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine).setRing(3).setFlags(2);
      f.cpu.setGpr(4, BigInt(AT.USER_STACK));
      f.run("6800320000 9d", 2, AT.USER_CODE); // push $0x3200; popf
      assertEquals(f.cpu.rflags, 2);
      const g = new SystemFixture("long", engine).setFlags(2);
      g.run("6800320000 9d", 2);
      assertEquals(g.cpu.rflags, 0x3202);
    });
  });

  it("PUSHF leaves VM and RF out of the image", () => {
    const f = new SystemFixture().setFlags(RFLAGS.CF | RFLAGS.AC);
    f.run("9c", 1);
    assertEquals(f.stack(0), BigInt(RFLAGS.CF | RFLAGS.AC | 2));
  });

  it("CLI and STI raise #GP(0) at CPL > IOPL", () => {
    for (const code of ["fa", "fb"]) {
      assertEquals(new SystemFixture().setRing(3).run(code, 2, AT.USER_CODE).caught, 13);
      const f = new SystemFixture().setRing(3).setFlags(RFLAGS.IOPL);
      f.run(code, 1, AT.USER_CODE);
      assertEquals(f.cpu.rflags & RFLAGS.IF, code === "fb" ? RFLAGS.IF : 0);
    }
  });

  it("STI holds interrupts back for one instruction, a second STI does not", () => {
    const f = new SystemFixture();
    f.run("fb fb 90", 1);
    assertEquals(f.cpu.get32(S.BLOCKING), 1);
    f.step(1);
    assertEquals(f.cpu.get32(S.BLOCKING), 0);
  });

  it("STAC and CLAC switch AC and are #UD outside CPL 0", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      f.run("0f01cb", 1);
      assertEquals(f.cpu.rflags & RFLAGS.AC, RFLAGS.AC);
      f.run("0f01ca", 1);
      assertEquals(f.cpu.rflags & RFLAGS.AC, 0);
      assertEquals(new SystemFixture("long", engine).setRing(3).run("0f01cb", 2, AT.USER_CODE).caught, 6);
    });
  });

  it("under SMAP, STAC opens user pages to the supervisor and CLAC closes them", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      // The second 2-MiB page is a user page, the first becomes a supervisor page.
      f.view.setUint32(AT.PML4 + 0x2000, 0x83, true);
      f.view.setUint32(AT.PML4 + 0x2008, 0x87, true);
      f.cpu.set32(S.CR4, f.cpu.get32(S.CR4) | CR4.SMAP);
      f.cpu.access.tlb.flushAll();
      updateMode(f.cpu);
      f.cpu.setGpr(3, 0x20_0000n);
      f.run("0f01cb 8b03 0f01ca 8b03", 5); // stac; mov (%rbx),%eax; clac; mov (%rbx),%eax
      assertEquals([f.caught, f.stack(0), f.stack(1)], [14, 1n, BigInt(AT.CODE + 8)]);
    });
  });
});

describe("HLT", () => {
  it("stops the processor at CPL 0, is #GP(0) elsewhere", () => {
    const f = new SystemFixture().run("f4", 1);
    assertEquals([f.cpu.get32(S.ACTIVITY), f.cpu.rip], [1, BigInt(AT.CODE + 1)]);
    assertEquals(new SystemFixture().setRing(3).run("f4", 2, AT.USER_CODE).caught, 13);
  });
});
