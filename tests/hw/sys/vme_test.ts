/** CR4.VME and CR4.PVI: the virtual interrupt flag, and the redirection of INT n. */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { EngineKind } from "../../../hw/machine.ts";
import { RFLAGS, S, SEG } from "../../../hw/state.ts";
import { setVirtual8086Segment } from "../../../hw/sys/segments.ts";
import { CR4, updateMode } from "../../../hw/sys/mode.ts";
import { AT, onBothEngines, SystemFixture } from "./system_fixture.ts";

const CODE = 0x2_0000;

/** A processor in virtual-8086 mode at 2000H:0 with VME and this IOPL; the redirection bitmap is all zeros. */
function virtual8086(engine: EngineKind, iopl: number): SystemFixture {
  const f = new SystemFixture("protected", engine);
  f.cpu.set32(S.CR4, f.cpu.get32(S.CR4) | CR4.VME);
  f.view.setUint16(AT.TSS + 0x66, 0x88, true);
  f.setFlags(RFLAGS.VM | (iopl << 12) | RFLAGS.IF | 2);
  for (let seg = 0; seg < 6; seg++) setVirtual8086Segment(f.cpu, seg, seg === SEG.CS ? 0x2000 : 0x2800);
  f.cpu.set32(S.CPL, 3);
  f.cpu.setGpr(4, 0x800n);
  updateMode(f.cpu);
  return f;
}
const flags = (f: SystemFixture, mask: number) => f.cpu.rflags & mask;

describe("virtual-8086 mode extensions", () => {
  it("CLI and STI change VIF where IOPL is below 3; STI with VIP is #GP(0)", () => {
    onBothEngines((engine) => {
      const f = virtual8086(engine, 0);
      f.place(CODE, "fb fa fb");
      f.cpu.rip = 0n;
      f.step(1);
      assertEquals(flags(f, RFLAGS.VIF | RFLAGS.IF), RFLAGS.VIF | RFLAGS.IF);
      f.step(1);
      assertEquals(flags(f, RFLAGS.VIF | RFLAGS.IF), RFLAGS.IF);
      f.cpu.set32(S.RFLAGS, f.cpu.get32(S.RFLAGS) | RFLAGS.VIP);
      assertEquals(f.step(2).caught, 13);
    });
  });
  it("PUSHF and POPF show VIF as IF and IOPL as 3; with 32 bits they are #GP(0)", () => {
    onBothEngines((engine) => {
      const f = virtual8086(engine, 0);
      f.place(CODE, "9c 6800 02 9d");
      f.cpu.rip = 0n;
      f.step(1);
      assertEquals(f.stack(0, 2) & 0x3200n, 0x3000n);
      f.step(2);
      assertEquals(flags(f, RFLAGS.VIF | RFLAGS.IOPL), RFLAGS.VIF);
      const wide = virtual8086(engine, 0);
      wide.place(CODE, "669c");
      wide.cpu.rip = 0n;
      assertEquals(wide.step(2).caught, 13);
    });
  });
  it("INT n goes through the program's own table where the bitmap has a 0, and IRET comes back", () => {
    onBothEngines((engine) => {
      for (const iopl of [0, 3]) {
        const f = virtual8086(engine, iopl);
        f.view.setUint32(0x21 * 4, 0x2000_0100, true);
        f.place(CODE, "cd21").place(CODE + 0x100, "cf");
        f.cpu.rip = 0n;
        f.step(1);
        assertEquals([f.cpu.rip, f.stack(0, 2), f.stack(1, 2)], [0x100n, 2n, 0x2000n]);
        assertEquals(flags(f, RFLAGS.VM), RFLAGS.VM);
        assertEquals(flags(f, iopl === 3 ? RFLAGS.IF : RFLAGS.VIF), 0);
        f.step(1);
        assertEquals([f.cpu.rip, f.cpu.gpr(4)], [2n, 0x800n]);
        assertEquals(flags(f, RFLAGS.IF), RFLAGS.IF);
      }
    });
  });
  it("where it has a 1 the monitor gets it: #GP(0) below IOPL 3", () => {
    onBothEngines((engine) => {
      const f = virtual8086(engine, 0);
      f.view.setUint8(AT.TSS + 0x68 + 4, 2);
      f.place(CODE, "cd21");
      f.cpu.rip = 0n;
      assertEquals(f.step(2).caught, 13);
    });
  });
});

describe("protected-mode virtual interrupts", () => {
  it("CLI and STI of ring 3 change VIF", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("protected", engine).setRing(3, "protected");
      f.cpu.set32(S.CR4, f.cpu.get32(S.CR4) | CR4.PVI);
      f.run("fb", 1, AT.USER_CODE);
      assertEquals(flags(f, RFLAGS.VIF), RFLAGS.VIF);
      f.run("fa", 1, AT.USER_CODE);
      assertEquals(flags(f, RFLAGS.VIF), 0);
      const without = new SystemFixture("protected", engine).setRing(3, "protected");
      assertEquals(without.run("fa", 2, AT.USER_CODE).caught, 13);
    });
  });
});
