/** Event delivery and IRET in IA-32e mode (SDM vol. 3A, "Exception and Interrupt Handling in 64-bit Mode"). */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { RFLAGS, S, SEG } from "../../../hw/state.ts";
import { deliverEvent } from "../../../hw/sys/event.ts";
import { AT, onBothEngines, SEL, SystemFixture } from "./system_fixture.ts";

const IF = RFLAGS.IF;

describe("delivery in IA-32e mode", () => {
  it("pushes SS, RSP, RFLAGS, CS, RIP on the aligned stack and clears IF in an interrupt gate", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine).setFlags(IF | RFLAGS.CF | 2);
      f.cpu.setGpr(4, BigInt(AT.STACK0 - 3));
      f.run("cd40", 2); // int $0x40
      assertEquals(f.caught, 0x40);
      assertEquals(f.cpu.gpr(4), BigInt(AT.STACK0 - 16 - 40));
      assertEquals(f.stack(0), BigInt(AT.CODE + 2));
      assertEquals(f.stack(1), BigInt(SEL.CODE64));
      assertEquals(f.stack(2), BigInt(IF | RFLAGS.CF | 2));
      assertEquals(f.stack(3), BigInt(AT.STACK0 - 3));
      assertEquals(f.stack(4), BigInt(SEL.DATA));
      assertEquals(f.cpu.rflags & IF, 0);
    });
  });

  it("leaves IF alone in a trap gate and clears TF", () => {
    const f = new SystemFixture().setFlags(IF);
    f.gate(0x41, SEL.CODE64, AT.HANDLERS + 0x41, 0x8f);
    f.run("cd41", 2);
    assertEquals(f.caught, 0x41);
    assertEquals(f.cpu.rflags & (IF | RFLAGS.TF), IF);
  });

  it("switches from CPL 3 to RSP0 with a null SS and returns with IRETQ", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine).setRing(3).setFlags(IF);
      f.gate(0x42, SEL.CODE64, AT.HANDLERS + 0x42, 0xee);
      f.cpu.setGpr(4, BigInt(AT.USER_STACK));
      f.run("cd42", 2, AT.USER_CODE);
      assertEquals(f.caught, 0x42);
      assertEquals(f.cpu.cpl, 0);
      assertEquals(f.cpu.gpr(4), BigInt(AT.RSP0 - 40));
      assertEquals(f.cpu.segSel(SEG.SS), 0);
      assertEquals([f.stack(1), f.stack(3), f.stack(4)], [
        BigInt(SEL.USER_CODE64),
        BigInt(AT.USER_STACK),
        BigInt(SEL.USER_DATA),
      ]);
      f.cpu.set32(S.ACTIVITY, 0);
      f.run("48cf", 1); // iretq
      assertEquals(f.cpu.cpl, 3);
      assertEquals(f.cpu.rip, BigInt(AT.USER_CODE + 2));
      assertEquals(f.cpu.gpr(4), BigInt(AT.USER_STACK));
      assertEquals(f.cpu.segSel(SEG.SS), SEL.USER_DATA);
      assertEquals(f.cpu.rflags, IF | 2);
    });
  });

  it("uses the IST stack without a change of SS when the privilege stays", () => {
    const f = new SystemFixture();
    f.gate(0x43, SEL.CODE64, AT.HANDLERS + 0x43, 0x8e, 1);
    f.run("cd43", 2);
    assertEquals(f.caught, 0x43);
    assertEquals(f.cpu.gpr(4), BigInt(AT.IST1 - 40));
    assertEquals(f.cpu.segSel(SEG.SS), SEL.DATA);
  });

  it("refuses INT n through a gate of lower DPL with #GP(vector × 8 + 2), RIP at the INT", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine).setRing(3);
      f.cpu.setGpr(4, BigInt(AT.USER_STACK));
      f.run("cd44", 2, AT.USER_CODE);
      assertEquals(f.caught, 13);
      assertEquals(f.stack(0), BigInt(0x44 * 8 + 2));
      assertEquals(f.stack(1), BigInt(AT.USER_CODE));
    });
  });

  it("lets an external interrupt through a gate of DPL 0 from CPL 3", () => {
    const f = new SystemFixture().setRing(3);
    f.cpu.setGpr(4, BigInt(AT.USER_STACK));
    f.cpu.rip = BigInt(AT.USER_CODE);
    deliverEvent(f.cpu, 0x44, "external", -1);
    f.step(1);
    assertEquals(f.caught, 0x44);
    assertEquals(f.stack(0), BigInt(AT.USER_CODE));
  });

  it("delivers #UD with RF set in the image and RIP at the instruction", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine).run("90 0f0b", 3);
      assertEquals(f.caught, 6);
      assertEquals(f.stack(0), BigInt(AT.CODE + 1));
      assertEquals(f.stack(2), BigInt(RFLAGS.RF | 2));
    });
  });

  it("delivers a page fault with its error code and CR2", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      f.run("48 a1 1000000001000000", 2); // mov 0x100000010, %rax: beyond the mapped part
      assertEquals(f.caught, 14);
      assertEquals(f.cpu.get64(S.CR2), 0x1_0000_0010n);
      assertEquals(f.stack(0), 0n);
    });
  });

  it("delivers #NP with EXT set when the gate of an exception is not present", () => {
    const f = new SystemFixture();
    f.gate(6, SEL.CODE64, AT.HANDLERS + 6, 0x0e);
    f.run("0f0b", 3);
    assertEquals(f.caught, 11);
    assertEquals(f.stack(0), BigInt(6 * 8 + 3));
  });

  it("turns a contributory fault during the delivery of another into #DF with code 0", () => {
    const f = new SystemFixture();
    f.gate(13, SEL.CODE64, AT.HANDLERS + 13, 0x0e);
    f.run("0f33", 3); // rdpmc: #GP
    assertEquals(f.caught, 8);
    assertEquals(f.stack(0), 0n);
    assertEquals(f.stack(1), BigInt(AT.CODE));
  });

  it("turns a fault during the delivery of a page fault into #DF", () => {
    const f = new SystemFixture();
    f.cpu.setGpr(4, 0x1_0000_0000n);
    f.gate(8, SEL.CODE64, AT.HANDLERS + 8, 0x8e, 1);
    f.run("50", 3); // push on an absent page; so is the handler's frame
    assertEquals(f.caught, 8);
  });

  it("shuts down when #DF cannot be delivered", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      f.cpu.set32(S.IDTR + 8, 0);
      f.run("0f0b", 3);
      assertEquals(f.cpu.get32(S.ACTIVITY), 2);
    });
  });

  it("raises #SS for a stack that is not canonical", () => {
    const f = new SystemFixture();
    f.cpu.setGpr(4, 0x8000_0000_0000_0000n);
    f.gate(12, SEL.CODE64, AT.HANDLERS + 12, 0x8e, 1);
    f.run("cd40", 3);
    assertEquals(f.caught, 12);
    assertEquals(f.stack(0), 0n);
  });

  it("keeps memory unchanged when the frame crosses into an absent page", () => {
    const f = new SystemFixture();
    // The frame would end at 2 MiB + …: page at 0 is present, the one below the stack is not.
    f.view.setUint32(AT.PML4 + 0x2008, 0, true);
    f.cpu.setGpr(4, 0x20_0010n);
    f.gate(14, SEL.CODE64, AT.HANDLERS + 14, 0x8e, 1);
    f.view.setBigUint64(0x1f_fff0, 0x1234n, true);
    f.run("cd40", 3);
    assertEquals(f.caught, 14);
    assertEquals(f.view.getBigUint64(0x1f_fff0, true), 0x1234n);
    assertEquals(f.stack(1), BigInt(AT.CODE));
  });

  it("blocks NMIs until IRET", () => {
    const f = new SystemFixture();
    f.cpu.rip = BigInt(AT.CODE);
    deliverEvent(f.cpu, 2, "nmi", -1);
    assertEquals(f.cpu.get32(S.BLOCKING), 8);
    f.run("48cf", 1, AT.CODE + 0x100);
    assertEquals(f.cpu.get32(S.BLOCKING), 0);
    assertEquals(f.cpu.rip, BigInt(AT.CODE));
  });
});

describe("IRETQ", () => {
  /** Pushes a frame for IRETQ. */
  function frame(f: SystemFixture, rip: bigint, cs: number, flags: number, rsp: bigint, ss: number): void {
    const at = AT.STACK0 - 40;
    [rip, BigInt(cs), BigInt(flags), rsp, BigInt(ss)].forEach((v, i) =>
      f.view.setBigUint64(at + i * 8, v, true)
    );
    f.cpu.setGpr(4, BigInt(at));
  }

  it("refuses NT in 64-bit mode", () => {
    const f = new SystemFixture().setFlags(RFLAGS.NT);
    frame(f, BigInt(AT.CODE), SEL.CODE64, 2, 0n, SEL.DATA);
    f.run("48cf", 2);
    assertEquals(f.caught, 13);
  });

  it("refuses a RIP that is not canonical, with RIP at the IRETQ", () => {
    const f = new SystemFixture();
    frame(f, 0x8000_0000_0000n, SEL.USER_CODE64, 2, BigInt(AT.USER_STACK), SEL.USER_DATA);
    f.run("48cf", 2);
    assertEquals(f.caught, 13);
    assertEquals(f.stack(0), 0n);
    assertEquals(f.stack(1), BigInt(AT.CODE));
  });

  it("refuses an inner level, a null CS, a null SS for ring 3", () => {
    for (
      const [cs, ss, code] of [
        [0, SEL.DATA, 0],
        [SEL.USER_CODE64, 0, 0],
        [SEL.USER_CODE64, 3, 0],
        [SEL.USER_CODE64, SEL.DATA, SEL.DATA],
        [SEL.DATA, SEL.DATA, SEL.DATA],
      ] as const
    ) {
      const f = new SystemFixture();
      frame(f, BigInt(AT.USER_CODE), cs, 2, BigInt(AT.USER_STACK), ss);
      f.run("48cf", 2);
      assertEquals([f.caught, f.stack(0)], [13, BigInt(code)]);
    }
  });

  it("returns to compatibility mode", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      f.gate(0x45, SEL.CODE64, AT.HANDLERS + 0x45, 0xee);
      frame(f, BigInt(AT.USER_CODE), SEL.USER_CODE32, IF | 2, BigInt(AT.USER_STACK), SEL.USER_DATA);
      f.place(AT.USER_CODE, "b8ffffffff 40 6a07 cd45"); // mov $-1,%eax; inc %eax; push $7; int $0x45
      f.run("48cf", 6);
      assertEquals(f.caught, 0x45);
      assertEquals(f.cpu.gpr(0), 0n);
      assertEquals(f.stack(3), BigInt(AT.USER_STACK - 4));
      assertEquals(f.stack(1), BigInt(SEL.USER_CODE32));
      assertEquals(f.view.getUint32(AT.USER_STACK - 4, true), 7);
    });
  });

  it("lets only CPL 0 change IOPL, and only CPL ≤ IOPL change IF", () => {
    const f = new SystemFixture().setRing(3).setFlags(IF);
    frame(f, BigInt(AT.USER_CODE), SEL.USER_CODE64, RFLAGS.IOPL | 2, BigInt(AT.USER_STACK), SEL.USER_DATA);
    f.run("48cf", 1);
    assertEquals(f.cpu.rip, BigInt(AT.USER_CODE));
    assertEquals(f.cpu.rflags, IF | 2);
  });

  it("makes data segments null that the outer level may not use, and keeps the base of a null FS", () => {
    const f = new SystemFixture();
    f.cpu.set64(S.SEGBASE + SEG.FS * 8, 0x1234_5678_9abcn);
    frame(f, BigInt(AT.USER_CODE), SEL.USER_CODE64, 2, BigInt(AT.USER_STACK), SEL.USER_DATA);
    f.run("48cf", 1);
    assertEquals(f.cpu.segSel(SEG.DS), 0);
    assertEquals(f.cpu.segAr(SEG.DS), 0x1_0000);
    assertEquals(f.cpu.segBase(SEG.FS), 0x1234_5678_9abcn);
  });
});
