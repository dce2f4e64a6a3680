/** Debug registers, breakpoints, single-stepping (SDM vol. 3B, "Debug Registers", "Debug Exceptions"). */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { RFLAGS, S } from "../../../hw/state.ts";
import { setDr7 } from "../../../hw/sys/debug.ts";
import { CR4, updateMode } from "../../../hw/sys/mode.ts";
import { AT, onBothEngines, SEL, SystemFixture } from "./system_fixture.ts";

const DR6 = S.DR + 48, DR7 = S.DR + 56;
const BS = 0x4000, BD = 0x2000;

/** Low word of DR6 without the bits that always read 1. */
function dr6(f: SystemFixture): number {
  return f.cpu.get32(DR6) & 0xe00f;
}

describe("single step", () => {
  it("traps after the instruction with DR6.BS", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine).setFlags(RFLAGS.TF);
      f.run("90 90", 3);
      assertEquals([f.caught, f.stack(0), dr6(f)], [1, BigInt(AT.CODE + 1), BS]);
      assertEquals(Number(f.stack(2)) & RFLAGS.TF, RFLAGS.TF);
    });
  });

  it("traps after the instruction behind the POPF that sets TF", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      f.run("6802010000 9d 90 90", 6); // push $0x102; popf; nop; nop
      assertEquals([f.caught, f.stack(0)], [1, BigInt(AT.CODE + 7)]);
    });
  });

  it("traps between iterations of a repeated string instruction", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine).setFlags(RFLAGS.TF);
      f.cpu.setGpr(1, 3n);
      f.cpu.setGpr(7, BigInt(AT.DATA));
      f.run("f3aa", 2);
      assertEquals([f.caught, f.stack(0), f.cpu.gpr(1)], [1, BigInt(AT.CODE), 2n]);
    });
  });

  it("is held back over MOV SS", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine).setFlags(RFLAGS.TF);
      f.cpu.setGpr(0, BigInt(SEL.DATA));
      f.run("8ed0 90 90", 4); // mov %eax,%ss
      assertEquals([f.caught, f.stack(0)], [1, BigInt(AT.CODE + 3)]);
    });
  });

  it("does not follow INT n into its handler", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine).setFlags(RFLAGS.TF);
      f.run("cd40", 3);
      assertEquals([f.caught, dr6(f)], [0x40, 0]);
    });
  });
});

describe("breakpoints", () => {
  it("stop before the instruction, as a fault with RF clear; RF lets it through once", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      f.cpu.set64(S.DR + 8, BigInt(AT.CODE + 1));
      setDr7(f.cpu, 4); // L1
      f.run("90 90 90", 3);
      assertEquals([f.caught, f.stack(0), dr6(f)], [1, BigInt(AT.CODE + 1), 2]);
      assertEquals(Number(f.stack(2)) & RFLAGS.RF, 0);
      // IRET with RF set passes the breakpoint.
      f.cpu.set32(S.ACTIVITY, 0);
      f.view.setBigUint64(Number(f.cpu.gpr(4)) + 16, BigInt(2 | RFLAGS.RF), true);
      f.run("48cf", 2, 0x9000);
      assertEquals([f.cpu.rip, f.cpu.rflags & RFLAGS.RF], [BigInt(AT.CODE + 2), 0]);
    });
  });

  it("on data trap after the access", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      f.cpu.set64(S.DR, BigInt(AT.DATA + 4));
      setDr7(f.cpu, 1 | (1 << 16) | (3 << 18)); // L0, write, four bytes
      f.cpu.setGpr(3, BigInt(AT.DATA));
      f.run("8b4304 894300 668943 06 90", 6); // mov 4(%rbx),%eax; mov %eax,0(%rbx); mov %ax,6(%rbx)
      assertEquals([f.caught, f.stack(0), dr6(f)], [1, BigInt(AT.CODE + 10), 1]);
    });
  });

  it("on reads and writes trap on reads", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      f.cpu.set64(S.DR + 16, BigInt(AT.DATA));
      setDr7(f.cpu, (2 << 4) | (3 << 24)); // G2, read or write, one byte
      f.cpu.setGpr(3, BigInt(AT.DATA - 3));
      f.run("8b03 90", 4);
      assertEquals([f.caught, f.stack(0), dr6(f)], [1, BigInt(AT.CODE + 2), 4]);
    });
  });

  it("on ports need CR4.DE", () => {
    const f = new SystemFixture();
    f.cpu.set32(S.CR4, f.cpu.get32(S.CR4) | CR4.DE);
    f.cpu.set64(S.DR, 0x80n);
    setDr7(f.cpu, 1 | (2 << 16));
    f.run("e680 90", 4); // out %al,$0x80
    assertEquals([f.caught, f.stack(0), dr6(f)], [1, BigInt(AT.CODE + 2), 1]);
  });
});

describe("MOV DR", () => {
  it("keeps reserved bits of DR6 and DR7", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      f.cpu.setGpr(0, 0xffff_ffffn);
      f.cpu.setGpr(3, 0n);
      f.run("0f23f3 0f23fb 0f21f1 0f21fa", 4); // mov %rbx→dr6, dr7; dr6→%rcx, dr7→%rdx
      assertEquals([f.cpu.gpr(1), f.cpu.gpr(2)], [0xffff_0ff0n, 0x400n]);
      f.run("0f23f0 0f21f1", 2);
      assertEquals(f.cpu.gpr(1), 0xffff_efffn);
    });
  });

  it("takes DR4 and DR5 for DR6 and DR7 unless CR4.DE", () => {
    const f = new SystemFixture();
    f.run("0f21e0 0f21eb", 2);
    assertEquals([f.cpu.gpr(0), f.cpu.gpr(3)], [0xffff_0ff0n, 0x400n]);
    f.cpu.set32(S.CR4, f.cpu.get32(S.CR4) | CR4.DE);
    updateMode(f.cpu);
    assertEquals(f.run("0f21e0", 2).caught, 6);
  });

  it("raises #GP(0) for upper halves of DR6 and DR7, and outside CPL 0", () => {
    const f = new SystemFixture();
    f.cpu.setGpr(0, 1n << 40n);
    assertEquals(f.run("0f23f8", 2).caught, 13);
    assertEquals(new SystemFixture().setRing(3).run("0f21f8", 2, AT.USER_CODE).caught, 13);
  });

  it("faults with DR6.BD under general detect, which the delivery clears", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      setDr7(f.cpu, 0x2000);
      f.run("0f21f8", 2);
      assertEquals([f.caught, f.stack(0), dr6(f), f.cpu.get32(DR7)], [1, BigInt(AT.CODE), BD, 0x400]);
    });
  });
});
