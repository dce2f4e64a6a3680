/** Segment registers, descriptor tables, and the instructions that look at descriptors. */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { RFLAGS, S, SEG } from "../../../hw/state.ts";
import { CR4 } from "../../../hw/sys/mode.ts";
import { AT, onBothEngines, SEL, SystemFixture } from "./system_fixture.ts";

/** MOV AX to DS; [vector, error code] or [−1, 0]. */
function loadDs(f: SystemFixture, selector: number, at: number = AT.CODE): [number, number] {
  f.cpu.setGpr(0, BigInt(selector));
  f.run("8ed8 90", 2, at);
  return f.caught < 0 ? [-1, 0] : [f.caught, Number(f.stack(0, f.cpu.is64 ? 8 : 4))];
}

describe("MOV to a data segment", () => {
  it("loads base, limit and rights, and sets the accessed bit in memory", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("protected", engine);
      f.descriptor(SEL.GATE, 0x12_3456, 0x7_ffff, 0x92, 0x4);
      assertEquals(loadDs(f, SEL.GATE), [-1, 0]);
      assertEquals([f.cpu.segBase(SEG.DS), f.cpu.segLimit(SEG.DS), f.cpu.segAr(SEG.DS)], [
        0x12_3456n,
        0x7_ffff,
        0x4093,
      ]);
      assertEquals(f.view.getUint8(AT.GDT + SEL.GATE + 5), 0x93);
    });
  });

  it("checks presence, type, privilege and the table's limit", () => {
    const f = () => new SystemFixture("protected");
    assertEquals(loadDs(f(), SEL.ABSENT), [11, SEL.ABSENT]);
    assertEquals(loadDs(f(), SEL.TSS), [13, SEL.TSS]);
    assertEquals(loadDs(f(), 0xfff8), [13, 0xfff8]);
    assertEquals(loadDs(f(), SEL.DATA | 3), [13, SEL.DATA]);
    assertEquals(loadDs(f(), 4), [13, 4]); // no LDT
    const user = f().setRing(3, "protected");
    assertEquals(loadDs(user, SEL.DATA, AT.USER_CODE), [13, SEL.DATA]);
    assertEquals(loadDs(f().setRing(3, "protected"), SEL.USER_DATA, AT.USER_CODE), [-1, 0]);
  });

  it("makes a null selector unusable: the next access is #GP(0)", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("protected", engine);
      f.cpu.setGpr(0, 3n);
      f.run("8ed8 a000000300", 3); // mov %ax,%ds; mov 0x30000,%al
      assertEquals([f.caught, f.stack(0, 4), f.stack(1, 4)], [13, 0n, BigInt(AT.CODE + 2)]);
    });
  });

  it("honours limits, write protection and expand-down segments", () => {
    onBothEngines((engine) => {
      const make = (limit: number, access: number, code: string): number => {
        const f = new SystemFixture("protected", engine);
        f.descriptor(SEL.GATE, 0, limit, access, 0x4);
        f.cpu.setGpr(0, BigInt(SEL.GATE));
        return f.run(`8ed8 ${code} 90`, 3).caught;
      };
      assertEquals(make(0xfff, 0x92, "a0ff0f0000"), -1); // the last byte
      assertEquals(make(0xfff, 0x92, "a1fd0f0000"), 13); // one beyond
      assertEquals(make(0xfff, 0x90, "a2000f0000"), 13); // read-only
      assertEquals(make(0xfff, 0x96, "a0ff0f0000"), 13); // expand-down: below
      assertEquals(make(0xfff, 0x96, "a000100000"), -1); // above
      assertEquals(make(0xffff, 0x9a, "a000100000"), -1); // readable code
      assertEquals(make(0xffff, 0x9a, "a200100000"), 13);
      assertEquals(make(0xffff, 0x98, ""), 13); // execute-only
    });
  });

  it("uses the LDT", () => {
    const f = new SystemFixture("protected");
    f.descriptor(SEL.LDT, 0x7000, 0xf, 0x82, 0);
    f.view.setUint32(0x7008, 0x0000_ffff, true);
    f.view.setUint32(0x700c, 0x00cf_9300, true);
    f.cpu.setGpr(0, BigInt(SEL.LDT));
    f.run("0f00d0 b80c000000 8ed8 0f00c3", 4); // lldt %ax; mov $0xc,%eax; mov %ax,%ds; sldt %ebx
    assertEquals([f.caught, f.cpu.segSel(SEG.DS), f.cpu.gpr(3)], [-1, 0xc, BigInt(SEL.LDT)]);
  });
});

describe("stack segment", () => {
  it("must be writable data of exactly this privilege", () => {
    for (
      const [selector, expected] of [[0, [13, 0n]], [SEL.CODE32, [13, BigInt(SEL.CODE32)]], [
        SEL.USER_DATA,
        [13, BigInt(SEL.USER_DATA & ~3)],
      ]] as const
    ) {
      const f = new SystemFixture("protected");
      f.cpu.setGpr(0, BigInt(selector));
      f.run("8ed0", 2);
      assertEquals([f.caught, f.stack(0, 4)], [...expected]);
    }
  });

  it("may be null in 64-bit mode below CPL 3", () => {
    const f = new SystemFixture();
    f.cpu.setGpr(0, 0n);
    f.run("8ed0 50", 2);
    assertEquals([f.caught, f.cpu.gpr(4)], [-1, BigInt(AT.STACK0 - 8)]);
  });

  it("POP SS uses the old stack size and holds interrupts back", () => {
    const f = new SystemFixture("protected");
    f.cpu.setGpr(4, BigInt(AT.STACK0 - 4));
    f.view.setUint32(AT.STACK0 - 4, SEL.DATA16, true);
    f.run("17", 1);
    assertEquals([f.cpu.segSel(SEG.SS), f.cpu.get32(S.STACKMODE), f.cpu.gpr(4)], [
      SEL.DATA16,
      0,
      BigInt(AT.STACK0),
    ]);
    assertEquals(f.cpu.get32(S.BLOCKING), 2);
    f.place(AT.CODE + 1, "50").step(1);
    assertEquals([f.cpu.get32(S.BLOCKING), f.cpu.gpr(4)], [0, BigInt(AT.STACK0 - 4)]);
  });

  it("PUSH of a segment in 32-bit code writes two bytes", () => {
    const f = new SystemFixture("protected");
    f.view.setUint32(AT.STACK0 - 4, 0xaaaa_aaaa, true);
    f.run("1e", 1);
    assertEquals(f.stack(0, 4), 0xaaaa_0000n | BigInt(SEL.DATA));
  });

  it("LSS loads both and changes neither on a fault", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("protected", engine);
      f.view.setUint32(AT.DATA, 0x1_4000, true);
      f.view.setUint16(AT.DATA + 4, SEL.DATA, true);
      f.run("0fb22500000300", 1); // lss 0x30000,%esp
      assertEquals([f.cpu.gpr(4), f.cpu.segSel(SEG.SS)], [0x1_4000n, SEL.DATA]);
      f.view.setUint16(AT.DATA + 4, SEL.CODE32, true);
      f.run("0fb22500000300", 2);
      assertEquals([f.caught, f.cpu.gpr(4)], [13, 0x1_4000n - 16n]);
    });
  });
});

describe("descriptor tables", () => {
  it("LGDT and SGDT, LIDT and SIDT carry ten bytes in 64-bit mode", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      f.view.setUint16(AT.DATA, 0x1ff, true);
      f.view.setBigUint64(AT.DATA + 2, 0xffff_8000_0000_2000n, true);
      f.cpu.setGpr(3, BigInt(AT.DATA));
      f.run("0f011b 0f014b10", 2); // lidt (%rbx); sidt 0x10(%rbx)
      assertEquals([f.cpu.get32(S.IDTR + 8), f.cpu.get64(S.IDTR)], [0x1ff, 0xffff_8000_0000_2000n]);
      assertEquals([f.view.getUint16(AT.DATA + 16, true), f.view.getBigUint64(AT.DATA + 18, true)], [
        0x1ff,
        0xffff_8000_0000_2000n,
      ]);
    });
  });

  it("LGDT takes 24 bits of base with a 16-bit operand size", () => {
    const f = new SystemFixture("protected");
    f.view.setUint16(AT.DATA, 0xfff, true);
    f.view.setUint32(AT.DATA + 2, 0x1200_1000, true);
    f.run("660f011500000300", 1);
    assertEquals(f.cpu.get64(S.GDTR), 0x1000n);
  });

  it("refuses a base that is not canonical, and CPL 3", () => {
    const f = new SystemFixture();
    f.view.setBigUint64(AT.DATA + 2, 0x8000_0000_0000n, true);
    f.cpu.setGpr(3, BigInt(AT.DATA));
    assertEquals(f.run("0f0113", 2).caught, 13);
    assertEquals(new SystemFixture().setRing(3).run("0f0113", 2, AT.USER_CODE).caught, 13);
  });

  it("LTR makes the TSS busy and refuses a busy one", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      f.descriptor(SEL.TSS2, AT.TSS2, 0x67, 0x89, 0);
      f.cpu.setGpr(0, BigInt(SEL.TSS2));
      f.run("0f00d8 0f00cb", 2); // ltr %ax; str %ebx
      assertEquals([f.cpu.segBase(SEG.TR), f.cpu.segAr(SEG.TR), f.cpu.gpr(3)], [
        BigInt(AT.TSS2),
        0x8b,
        BigInt(SEL.TSS2),
      ]);
      assertEquals(f.view.getUint8(AT.GDT + SEL.TSS2 + 5), 0x8b);
      f.run("0f00d8", 2);
      assertEquals([f.caught, f.stack(0)], [13, BigInt(SEL.TSS2)]);
    });
  });

  it("UMIP keeps SGDT, SIDT, SLDT, STR and SMSW for CPL 0", () => {
    for (const code of ["0f0103", "0f010b", "0f00c0", "0f00c8", "0f01e0"]) {
      const f = new SystemFixture("long", "interpreter", "icelake").setRing(3);
      f.cpu.setGpr(3, BigInt(AT.DATA));
      assertEquals(f.run(`${code} 90`, 2, AT.USER_CODE).caught, -1);
      f.cpu.set32(S.CR4, f.cpu.get32(S.CR4) | CR4.UMIP);
      assertEquals(f.run(code, 2, AT.USER_CODE).caught, 13);
    }
  });
});

describe("LAR, LSL, VERR, VERW, ARPL", () => {
  /** Runs code with AX = selector; [ZF, RBX]. */
  function look(code: string, selector: number, mode: "long" | "protected" = "protected"): [boolean, bigint] {
    const f = new SystemFixture(mode);
    f.cpu.setGpr(0, BigInt(selector));
    f.cpu.setGpr(3, 0x77n);
    f.run(code, 1);
    return [(f.cpu.rflags & RFLAGS.ZF) !== 0, f.cpu.gpr(3)];
  }

  it("LAR gives the rights, and leaves the destination when it may not", () => {
    assertEquals(look("0f02d8", SEL.DATA), [true, 0x00cf_9300n]);
    assertEquals(look("0f02d8", 0), [false, 0x77n]);
    assertEquals(look("0f02d8", SEL.DATA | 3), [false, 0x77n]);
    assertEquals(look("0f02d8", 0xfff8), [false, 0x77n]);
    assertEquals(look("660f02d8", SEL.DATA), [true, 0x9300n]);
  });

  it("LSL gives the limit in bytes", () => {
    assertEquals(look("0f03d8", SEL.DATA), [true, 0xffff_ffffn]);
    assertEquals(look("0f03d8", SEL.TSS, "long"), [true, 0x2067n]);
    assertEquals(look("0f03d8", SEL.CODE16), [true, 0xffffn]);
  });

  it("VERR and VERW ask for readable and writable", () => {
    assertEquals(look("0f00e0", SEL.CODE32)[0], true);
    assertEquals(look("0f00e8", SEL.CODE32)[0], false);
    assertEquals(look("0f00e8", SEL.DATA)[0], true);
    assertEquals(look("0f00e0", SEL.TSS)[0], false);
  });

  it("ARPL raises the RPL", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("protected", engine);
      f.cpu.setGpr(0, 0x1_0011n);
      f.cpu.setGpr(3, 0x23n);
      f.run("63d8", 1); // arpl %bx,%ax
      assertEquals([f.cpu.gpr(0), f.cpu.rflags & RFLAGS.ZF], [0x1_0013n, RFLAGS.ZF]);
    });
  });

  it("are #UD in real mode", () => {
    const f = new SystemFixture("real");
    f.cpu.setGpr(4, 0x8000n);
    assertEquals(f.place(AT.CODE, "0f02d8").step(2).caught, 6);
  });
});
