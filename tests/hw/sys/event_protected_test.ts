/** Event delivery, call gates and returns in 32-bit protected, virtual-8086 and real mode. */
import type { EngineKind } from "../../../hw/machine.ts";
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { RFLAGS, S, SEG } from "../../../hw/state.ts";
import { setVirtual8086Segment } from "../../../hw/sys/segments.ts";
import { updateMode } from "../../../hw/sys/mode.ts";
import { AT, onBothEngines, SEL, SystemFixture } from "./system_fixture.ts";

describe("delivery in protected mode", () => {
  it("pushes EFLAGS, CS, EIP through a 32-bit gate at the same privilege, and IRETD takes them back", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("protected", engine).setFlags(RFLAGS.IF);
      f.run("cd40", 2);
      assertEquals(f.caught, 0x40);
      assertEquals(f.cpu.gpr(4), BigInt(AT.STACK0 - 12));
      assertEquals([f.stack(0, 4), f.stack(1, 4), f.stack(2, 4)], [
        BigInt(AT.CODE + 2),
        BigInt(SEL.CODE32),
        BigInt(RFLAGS.IF | 2),
      ]);
      f.cpu.set32(S.ACTIVITY, 0);
      f.run("cf", 1);
      assertEquals([f.cpu.rip, f.cpu.gpr(4), f.cpu.rflags], [
        BigInt(AT.CODE + 2),
        BigInt(AT.STACK0),
        RFLAGS.IF | 2,
      ]);
    });
  });

  it("switches to SS0:ESP0 from ring 3 and back", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("protected", engine).setRing(3, "protected");
      f.gate(0x42, SEL.CODE32, AT.HANDLERS + 0x42, 0xee);
      f.cpu.setGpr(4, BigInt(AT.USER_STACK));
      f.run("cd42", 2, AT.USER_CODE);
      assertEquals(f.caught, 0x42);
      assertEquals([f.cpu.segSel(SEG.SS), f.cpu.gpr(4)], [SEL.DATA, BigInt(AT.RSP0 - 20)]);
      assertEquals([f.stack(3, 4), f.stack(4, 4)], [BigInt(AT.USER_STACK), BigInt(SEL.USER_DATA)]);
      f.cpu.set32(S.ACTIVITY, 0);
      f.run("cf", 1);
      assertEquals([f.cpu.cpl, f.cpu.segSel(SEG.SS), f.cpu.gpr(4)], [
        3,
        SEL.USER_DATA,
        BigInt(AT.USER_STACK),
      ]);
    });
  });

  it("pushes words through a 16-bit gate", () => {
    const f = new SystemFixture("protected");
    f.gate(0x43, SEL.CODE32, AT.HANDLERS + 0x43, 0x86);
    f.run("cd43", 2);
    assertEquals(f.caught, 0x43);
    assertEquals(f.cpu.gpr(4), BigInt(AT.STACK0 - 6));
  });

  it("pushes an error code for #GP and none for INT 13", () => {
    const f = new SystemFixture("protected");
    f.run("66b80800 668ed0", 4); // mov $8,%ax; mov %ax,%ss: a 64-bit code descriptor is no stack
    assertEquals([f.caught, f.stack(0, 4)], [13, 8n]);
    const g = new SystemFixture("protected");
    g.run("cd0d", 2);
    assertEquals([g.caught, g.stack(0, 4)], [13, BigInt(AT.CODE + 2)]);
  });

  it("raises #TS when SS0 is no good", () => {
    const f = new SystemFixture("protected").setRing(3, "protected");
    f.view.setUint32(AT.TSS + 8, SEL.USER_DATA, true);
    f.gate(0x42, SEL.CODE32, AT.HANDLERS + 0x42, 0xee);
    f.gate(10, SEL.CONFORMING, AT.HANDLERS + 10, 0x8e);
    f.descriptor(SEL.CONFORMING, 0, 0xf_ffff, 0x9f, 0xc);
    f.cpu.setGpr(4, BigInt(AT.USER_STACK));
    f.run("cd42", 2, AT.USER_CODE);
    // A conforming handler stays at CPL 3 and uses the stack as it is; its HLT is #GP, which cannot be delivered either.
    assertEquals(f.view.getUint32(AT.USER_STACK - 16, true), SEL.USER_DATA & ~3);
    assertEquals(f.cpu.cpl, 3);
  });
});

describe("virtual-8086 mode", () => {
  /** A processor in virtual-8086 mode at 2000H:0. */
  function virtual(iopl: number, engine: EngineKind): SystemFixture {
    const f = new SystemFixture("protected", engine);
    for (let seg = 0; seg < 6; seg++) setVirtual8086Segment(f.cpu, seg, seg === SEG.CS ? 0x2000 : 0x2800);
    f.cpu.set32(S.CPL, 3);
    f.cpu.set32(S.RFLAGS, 2 | RFLAGS.VM | RFLAGS.IF | (iopl << 12));
    updateMode(f.cpu);
    f.cpu.setGpr(4, 0x100n);
    f.gate(0x42, SEL.CODE32, AT.HANDLERS + 0x42, 0xee);
    f.cpu.rip = 0n;
    return f;
  }

  it("goes to ring 0 with nine doublewords, data segments null, and comes back by IRETD", () => {
    onBothEngines((engine) => {
      const f = virtual(3, engine);
      f.place(AT.USER_CODE, "cd42").step(2);
      assertEquals(f.caught, 0x42);
      assertEquals(f.cpu.gpr(4), BigInt(AT.RSP0 - 36));
      const frame = [0, 1, 2, 3, 4, 5, 6, 7, 8].map((i) => Number(f.stack(i, 4)));
      assertEquals(frame, [
        2,
        0x2000,
        2 | RFLAGS.VM | RFLAGS.IF | 0x3000,
        0x100,
        0x2800,
        0x2800,
        0x2800,
        0x2800,
        0x2800,
      ]);
      assertEquals([f.cpu.segSel(SEG.DS), f.cpu.segAr(SEG.DS)], [0, 0x1_0000]);
      f.cpu.set32(S.ACTIVITY, 0);
      f.run("cf", 1);
      assertEquals(f.cpu.rflags & RFLAGS.VM, RFLAGS.VM);
      assertEquals([f.cpu.rip, f.cpu.gpr(4), f.cpu.segBase(SEG.DS), f.cpu.cpl], [2n, 0x100n, 0x2_8000n, 3]);
    });
  });

  it("raises #GP(0) for INT n, PUSHF, POPF, CLI, STI and IRET with IOPL < 3", () => {
    for (const code of ["cd42", "9c", "9d", "fa", "fb", "cf"]) {
      onBothEngines((engine) => {
        const f = virtual(0, engine);
        f.place(AT.USER_CODE, code).step(2);
        assertEquals([f.caught, f.stack(0, 4), f.stack(1, 4)], [13, 0n, 0n]);
      });
    }
  });

  it("lets INT3 through with IOPL 0", () => {
    const f = virtual(0, "interpreter");
    f.gate(3, SEL.CODE32, AT.HANDLERS + 3, 0xee);
    f.place(AT.USER_CODE, "cc").step(2);
    assertEquals(f.caught, 3);
  });

  it("loads segments as the 8086 did", () => {
    const f = virtual(3, "interpreter");
    f.place(AT.USER_CODE, "b83412 8ed8").step(2); // mov $0x1234,%ax; mov %ax,%ds
    assertEquals([f.cpu.segBase(SEG.DS), f.cpu.segLimit(SEG.DS)], [0x1_2340n, 0xffff]);
  });
});

describe("call gates and far returns", () => {
  /** A 32-bit call gate of DPL 3 to ring 0 that copies two parameters. */
  function withGate(engine: EngineKind): SystemFixture {
    const f = new SystemFixture("protected", engine).setRing(3, "protected");
    f.view.setUint32(AT.GDT + SEL.GATE, ((AT.HANDLERS + 0x99) & 0xffff) | (SEL.CODE32 << 16), true);
    f.view.setUint32(AT.GDT + SEL.GATE + 4, 0xec02, true);
    f.cpu.setGpr(4, BigInt(AT.USER_STACK));
    return f;
  }

  it("copies parameters to the inner stack and RET n releases both", () => {
    onBothEngines((engine) => {
      const f = withGate(engine);
      f.run("6a11 6a22 9a00000000 7000", 4, AT.USER_CODE); // push 0x11; push 0x22; lcall $0x70,$0
      assertEquals(f.caught, 0x99);
      assertEquals([0, 1, 2, 3, 4, 5].map((i) => Number(f.stack(i, 4))), [
        AT.USER_CODE + 11,
        SEL.USER_CODE32,
        0x22,
        0x11,
        AT.USER_STACK - 8,
        SEL.USER_DATA,
      ]);
      f.cpu.set32(S.ACTIVITY, 0);
      f.run("ca0800", 1); // lret $8
      assertEquals([f.cpu.cpl, f.cpu.rip, f.cpu.gpr(4)], [
        3,
        BigInt(AT.USER_CODE + 11),
        BigInt(AT.USER_STACK),
      ]);
    });
  });

  it("refuses a gate of lower DPL, and JMP to an inner level", () => {
    const f = withGate("interpreter");
    f.view.setUint32(AT.GDT + SEL.GATE + 4, 0x8c02, true);
    f.run("9a00000000 7000", 2, AT.USER_CODE);
    assertEquals([f.caught, f.stack(0, 4)], [13, BigInt(SEL.GATE)]);
    const g = withGate("interpreter");
    g.run("ea00000000 7000", 2, AT.USER_CODE);
    assertEquals([g.caught, g.stack(0, 4)], [13, BigInt(SEL.CODE32)]);
  });

  it("jumps between 16- and 32-bit code", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("protected", engine);
      f.place(0x9000, "b83412 66ea00000100 4000"); // in 16-bit code: mov $0x1234,%ax; ljmpl $0x40,$0x10000
      f.cpu.setGpr(0, 0n);
      f.run("ea00900000 4800", 3); // ljmp $0x48,$0x9000
      assertEquals([f.cpu.rip, f.cpu.segSel(SEG.CS), f.cpu.gpr(0)], [BigInt(AT.CODE), SEL.CODE32, 0x1234n]);
    });
  });

  it("goes from ring 3 through a 64-bit call gate with a null SS, and back by RETFQ", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine).setRing(3);
      f.view.setUint32(AT.GDT + SEL.GATE, ((AT.HANDLERS + 0x99) & 0xffff) | (SEL.CODE64 << 16), true);
      f.view.setUint32(AT.GDT + SEL.GATE + 4, 0xec00, true);
      f.view.setBigUint64(AT.GDT + SEL.GATE + 8, 0n, true);
      f.view.setBigUint64(AT.DATA, 0x70_0000_0000n, true);
      f.cpu.setGpr(4, BigInt(AT.USER_STACK));
      f.cpu.setGpr(3, BigInt(AT.DATA));
      f.run("ff1b", 2, AT.USER_CODE); // lcall *(%rbx)
      assertEquals(f.caught, 0x99);
      assertEquals([0, 1, 2, 3].map((i) => Number(f.stack(i))), [
        AT.USER_CODE + 2,
        SEL.USER_CODE64,
        AT.USER_STACK,
        SEL.USER_DATA,
      ]);
      assertEquals([f.cpu.segSel(SEG.SS), f.cpu.cpl], [0, 0]);
      f.cpu.set32(S.ACTIVITY, 0);
      f.run("48cb", 1);
      assertEquals([f.cpu.cpl, f.cpu.rip, f.cpu.gpr(4)], [
        3,
        BigInt(AT.USER_CODE + 2),
        BigInt(AT.USER_STACK),
      ]);
    });
  });
});

describe("real mode", () => {
  it("delivers through the vector table and IRET returns", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("real", engine).setFlags(RFLAGS.IF);
      f.cpu.setGpr(4, 0x8000n);
      f.place(AT.CODE, "cd21 90").step(2);
      assertEquals(f.caught, 0x21);
      assertEquals([f.stack(0, 2), f.stack(1, 2), f.stack(2, 2)], [2n, 0x1000n, BigInt(RFLAGS.IF | 2)]);
      assertEquals(f.cpu.rflags & RFLAGS.IF, 0);
      f.cpu.set32(S.ACTIVITY, 0);
      f.place(AT.HANDLERS + 0x22, "cf").step(1);
      assertEquals([f.cpu.rip, f.cpu.segBase(SEG.CS), f.cpu.gpr(4)], [2n, BigInt(AT.CODE), 0x8000n]);
      assertEquals(f.cpu.rflags, RFLAGS.IF | 2);
    });
  });

  it("pushes no error code, and shuts down when there is no vector table", () => {
    const f = new SystemFixture("real");
    f.cpu.setGpr(4, 0x8000n);
    f.place(AT.CODE, "a1ffff").step(2); // mov 0xffff,%ax: beyond the limit
    assertEquals([f.caught, f.cpu.gpr(4)], [13, 0x7ffan]);
    const g = new SystemFixture("real");
    g.cpu.set32(S.IDTR + 8, 0);
    g.place(AT.CODE, "cd21").step(3);
    assertEquals(g.cpu.get32(S.ACTIVITY), 2);
  });

  it("keeps the limits of protected mode (unreal mode)", () => {
    const f = new SystemFixture("real");
    f.cpu.set32(S.SEGLIMIT + SEG.DS * 4, 0xffff_ffff);
    updateMode(f.cpu);
    f.place(AT.CODE, "b80030 8ed8 66bb00000200 67668b03").step(4); // mov $0x3000,%ax; mov %ax,%ds; mov $0x20000,%ebx; mov (%ebx),%eax
    f.view.setUint32(0x5_0000, 0, true);
    assertEquals([f.cpu.segBase(SEG.DS), f.cpu.segLimit(SEG.DS)], [0x3_0000n, 0xffff_ffff]);
    assertEquals(f.caught, -1);
  });

  it("makes far calls and returns", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("real", engine);
      f.cpu.setGpr(4, 0x8000n);
      f.place(AT.CODE, "9a0000 0020").place(0x2_0000, "cb").step(1);
      assertEquals([f.cpu.rip, f.cpu.segBase(SEG.CS), f.cpu.gpr(4)], [0n, 0x2_0000n, 0x7ffcn]);
      f.step(1);
      assertEquals([f.cpu.rip, f.cpu.segBase(SEG.CS), f.cpu.gpr(4)], [5n, 0x1_0000n, 0x8000n]);
    });
  });
});
