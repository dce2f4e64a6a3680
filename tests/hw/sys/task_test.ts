/** Hardware task switching (SDM vol. 3A, "Task Management"). */
import type { EngineKind } from "../../../hw/machine.ts";
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { RFLAGS, S, SEG } from "../../../hw/state.ts";
import { CR0 } from "../../../hw/sys/mode.ts";
import { AT, onBothEngines, SEL, SystemFixture } from "./system_fixture.ts";

const TASK_CODE = 0x9000;
const TASK_STACK = 0x1_4000;

/** A machine with a second, available 32-bit TSS. */
function withTask(engine: EngineKind): SystemFixture {
  const f = new SystemFixture("protected", engine);
  f.descriptor(SEL.TSS2, AT.TSS2, 0x67, 0x89, 0);
  const put = (offset: number, value: number) => f.view.setUint32(AT.TSS2 + offset, value, true);
  put(0x20, TASK_CODE);
  put(0x24, 2);
  for (let n = 0; n < 8; n++) put(0x28 + n * 4, 0x100 + n);
  put(0x38, TASK_STACK);
  for (let seg = 0; seg < 6; seg++) put(0x48 + seg * 4, seg === SEG.CS ? SEL.CODE32 : SEL.DATA);
  put(0x60, 0);
  put(0x64, 0x68_0000);
  return f;
}

/** Type field of a descriptor in memory. */
function typeOf(f: SystemFixture, selector: number): number {
  return f.view.getUint8(AT.GDT + selector + 5) & 15;
}

describe("task switch", () => {
  it("by JMP saves the old state, loads the new, moves the busy bit and sets TS", () => {
    onBothEngines((engine) => {
      const f = withTask(engine);
      f.cpu.setGpr(0, 0xabcd_ef01n);
      f.run("ea00000000 5000", 1);
      assertEquals([f.cpu.rip, f.cpu.gpr(0), f.cpu.gpr(4)], [BigInt(TASK_CODE), 0x100n, BigInt(TASK_STACK)]);
      assertEquals([typeOf(f, SEL.TSS), typeOf(f, SEL.TSS2)], [9, 11]);
      assertEquals([f.cpu.segSel(SEG.TR), f.cpu.get32(S.CR0) & CR0.TS], [SEL.TSS2, CR0.TS]);
      assertEquals(f.view.getUint32(AT.TSS + 0x20, true), AT.CODE + 7);
      assertEquals(f.view.getUint32(AT.TSS + 0x28, true), 0xabcd_ef01);
      assertEquals(f.view.getUint16(AT.TSS + 0x4c, true), SEL.CODE32);
      assertEquals(f.cpu.rflags & RFLAGS.NT, 0);
    });
  });

  it("by CALL nests; IRET with NT goes back", () => {
    onBothEngines((engine) => {
      const f = withTask(engine);
      f.cpu.setGpr(3, 0x33n);
      f.place(TASK_CODE, "cf");
      f.run("9a00000000 5000", 1);
      assertEquals(f.cpu.rflags & RFLAGS.NT, RFLAGS.NT);
      assertEquals(f.view.getUint16(AT.TSS2, true), SEL.TSS);
      assertEquals([typeOf(f, SEL.TSS), typeOf(f, SEL.TSS2)], [11, 11]);
      f.step(1);
      assertEquals([f.cpu.rip, f.cpu.gpr(3), f.cpu.segSel(SEG.TR)], [BigInt(AT.CODE + 7), 0x33n, SEL.TSS]);
      assertEquals([typeOf(f, SEL.TSS), typeOf(f, SEL.TSS2)], [11, 9]);
      assertEquals(f.view.getUint32(AT.TSS2 + 0x24, true) & RFLAGS.NT, 0);
    });
  });

  it("by an exception through a task gate pushes the error code on the new stack", () => {
    onBothEngines((engine) => {
      const f = withTask(engine);
      f.gate(13, SEL.TSS2, 0, 0x85);
      f.place(TASK_CODE, "f4");
      f.cpu.setGpr(0, BigInt(SEL.TSS));
      f.run("8ed8", 3); // mov %ax,%ds with a TSS: #GP
      assertEquals([f.cpu.rip, f.cpu.gpr(4)], [BigInt(TASK_CODE + 1), BigInt(TASK_STACK - 4)]);
      assertEquals(f.stack(0, 4), BigInt(SEL.TSS));
      assertEquals(f.view.getUint32(AT.TSS + 0x20, true), AT.CODE);
    });
  });

  it("through a task gate in the GDT", () => {
    const f = withTask("interpreter");
    f.view.setUint32(AT.GDT + SEL.TASK_GATE, SEL.TSS2 << 16, true);
    f.view.setUint32(AT.GDT + SEL.TASK_GATE + 4, 0x8500, true);
    f.run("ea00000000 9800", 1);
    assertEquals(f.cpu.rip, BigInt(TASK_CODE));
  });

  it("refuses a busy TSS, one that is absent, one that is too short, and changes nothing", () => {
    const cases: readonly (readonly [access: number, limit: number, vector: number])[] = [
      [0x8b, 0x67, 13],
      [0x09, 0x67, 11],
      [0x89, 0x66, 10],
    ];
    for (const [access, limit, vector] of cases) {
      const f = withTask("interpreter");
      f.descriptor(SEL.TSS2, AT.TSS2, limit, access, 0);
      f.run("ea00000000 5000", 2);
      assertEquals([f.caught, f.stack(0, 4), f.stack(1, 4)], [vector, BigInt(SEL.TSS2), BigInt(AT.CODE)]);
      assertEquals(typeOf(f, SEL.TSS), 11);
    }
  });

  it("delivers a fault of the new state in the new task", () => {
    onBothEngines((engine) => {
      const f = withTask(engine);
      f.view.setUint32(AT.TSS2 + 0x48 + SEG.DS * 4, SEL.ABSENT, true);
      f.run("ea00000000 5000", 2);
      assertEquals([f.caught, f.stack(0, 4), f.stack(1, 4)], [11, BigInt(SEL.ABSENT), BigInt(TASK_CODE)]);
      assertEquals(f.cpu.segSel(SEG.TR), SEL.TSS2);
      assertEquals(f.cpu.gpr(4), BigInt(TASK_STACK - 16));
    });
  });

  it("traps with DR6.BT when the new TSS asks for it", () => {
    onBothEngines((engine) => {
      const f = withTask(engine);
      f.view.setUint32(AT.TSS2 + 0x64, 0x68_0001, true);
      f.run("ea00000000 5000", 2);
      assertEquals([f.caught, f.stack(0, 4), f.cpu.get32(S.DR + 48) & 0x8000], [
        1,
        BigInt(TASK_CODE),
        0x8000,
      ]);
    });
  });

  it("takes 16-bit TSSs", () => {
    onBothEngines((engine) => {
      const f = withTask(engine);
      f.descriptor(SEL.TSS2, AT.TSS2, 0x2b, 0x81, 0);
      const words = [
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        TASK_CODE,
        2,
        1,
        2,
        3,
        4,
        0x7f00,
        6,
        7,
        8,
        SEL.DATA,
        SEL.CODE32,
        SEL.DATA,
        SEL.DATA,
        0,
      ];
      words.forEach((word, i) => f.view.setUint16(AT.TSS2 + i * 2, word, true));
      f.cpu.setGpr(0, 0x1234_5678n);
      f.run("ea00000000 5000", 1);
      assertEquals([f.cpu.rip, f.cpu.gpr(0), f.cpu.segSel(SEG.SS)], [
        BigInt(TASK_CODE),
        0x1234_0001n,
        SEL.DATA,
      ]);
    });
  });

  it("does not exist in IA-32e mode", () => {
    const f = new SystemFixture("long");
    f.descriptor(SEL.TSS2, AT.TSS2, 0x67, 0x89, 0);
    f.view.setBigUint64(AT.DATA, BigInt(SEL.TSS2) << 32n, true);
    f.cpu.setGpr(3, BigInt(AT.DATA));
    f.run("ff2b", 2); // ljmp *(%rbx)
    assertEquals([f.caught, f.stack(0)], [13, BigInt(SEL.TSS2)]);
  });
});
