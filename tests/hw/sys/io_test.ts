/** Ports and their permission bitmap, INS and OUTS; time-stamp counter, random numbers, invalidation, protection keys. */
import type { EngineKind } from "../../../hw/machine.ts";
import { assertEquals, assertNotEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { PortDevice } from "../../../hw/bus.ts";
import { RFLAGS, S } from "../../../hw/state.ts";
import { CR4 } from "../../../hw/sys/mode.ts";
import { AT, onBothEngines, SystemFixture } from "./system_fixture.ts";

const PORT = 0x5658;

/** A port that gives 1, 2, 3 … and remembers what was written. */
class Recorder implements PortDevice {
  readonly portWidth = 4;
  readonly written: [port: number, size: number, value: number][] = [];
  reads = 0;
  readPort(): number {
    return ++this.reads;
  }
  writePort(port: number, size: number, value: number): void {
    this.written.push([port, size, value]);
  }
}

function withPort(engine: EngineKind, mode: "long" | "protected" | "real" = "long") {
  const f = new SystemFixture(mode, engine);
  const device = new Recorder();
  f.machine.bus.addPorts(PORT, 8, device);
  f.cpu.setGpr(2, BigInt(PORT));
  return { f, device };
}

describe("IN and OUT", () => {
  it("move 8, 16 and 32 bits; 32 bits clear the upper half of RAX", () => {
    onBothEngines((engine) => {
      const { f, device } = withPort(engine);
      f.cpu.setGpr(0, -1n);
      f.run("ec 66ed ed ee ef", 1);
      assertEquals(f.cpu.gpr(0), 0xffff_ffff_ffff_ff01n);
      f.step(1);
      assertEquals(f.cpu.gpr(0), 0xffff_ffff_ffff_0002n);
      f.step(1);
      assertEquals(f.cpu.gpr(0), 3n);
      f.step(2);
      assertEquals(device.written, [[PORT, 1, 3], [PORT, 4, 3]]);
    });
  });

  it("in ring 3 ask IOPL, then the bitmap of the TSS", () => {
    onBothEngines((engine) => {
      const map = AT.TSS + 0x68 + (PORT >> 3);
      const attempt = (allow: number, flags: number, code: string): number => {
        const { f } = withPort(engine);
        f.setRing(3).setFlags(flags);
        f.view.setUint16(map, ~allow & 0xffff, true);
        f.cpu.setGpr(4, BigInt(AT.USER_STACK));
        return f.run(`${code} 90`, 2, AT.USER_CODE).caught;
      };
      assertEquals(attempt(0, 0, "ec"), 13);
      assertEquals(attempt(0, RFLAGS.IOPL, "ec"), -1);
      assertEquals(attempt(1, 0, "ec"), -1);
      assertEquals(attempt(1, 0, "ed"), 13);
      assertEquals(attempt(0xf, 0, "ed"), -1);
    });
  });

  it("in ring 3 fail beyond the limit of the TSS", () => {
    const { f } = withPort("interpreter");
    f.setRing(3);
    f.cpu.set32(S.SEGLIMIT + 7 * 4, 0x68 + (PORT >> 3));
    assertEquals(f.run("ec", 2, AT.USER_CODE).caught, 13);
  });
});

describe("INS and OUTS", () => {
  it("repeat, count down RCX and move the pointer", () => {
    onBothEngines((engine) => {
      const { f, device } = withPort(engine);
      f.cpu.setGpr(1, 3n);
      f.cpu.setGpr(7, BigInt(AT.DATA));
      f.run("f36d 90", 4); // rep insl
      assertEquals([f.cpu.gpr(1), f.cpu.gpr(7), device.reads], [0n, BigInt(AT.DATA + 12), 3]);
      assertEquals([0, 4, 8].map((at) => f.view.getUint32(AT.DATA + at, true)), [1, 2, 3]);
      f.cpu.setGpr(1, 2n);
      f.cpu.setGpr(6, BigInt(AT.DATA + 4));
      f.run("fd f36f 90", 4, 0x9000); // std; rep outsl
      assertEquals(device.written, [[PORT, 4, 2], [PORT, 4, 1]]);
      assertEquals([f.cpu.gpr(1), f.cpu.gpr(6)], [0n, BigInt(AT.DATA - 4)]);
    });
  });

  it("INS reads no port when its destination cannot be written", () => {
    onBothEngines((engine) => {
      const { f, device } = withPort(engine);
      f.cpu.setGpr(7, 0x1_0000_0000n);
      f.run("6c", 2);
      assertEquals([f.caught, device.reads], [14, 0]);
    });
  });

  it("do nothing with a count of 0", () => {
    const { f, device } = withPort("interpreter");
    f.cpu.setGpr(1, 0n);
    f.run("f36c", 1);
    assertEquals([device.reads, f.cpu.rip], [0, BigInt(AT.CODE + 2)]);
  });
});

describe("time-stamp counter", () => {
  it("counts ticks, one for each instruction, the same on both engines", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      f.place(AT.CODE, "0f31 89c3 90 0f31 29d8"); // rdtsc; mov %eax,%ebx; nop; rdtsc; sub %ebx,%eax
      f.machine.run({ steps: 5 });
      assertEquals(f.cpu.gpr(0), 3n);
    });
  });

  it("RDTSCP gives IA32_TSC_AUX; CR4.TSD keeps both for CPL 0", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      f.cpu.set64(S.TSC_AUX, 7n);
      f.run("0f01f9", 1);
      assertEquals(f.cpu.gpr(1), 7n);
      const g = new SystemFixture("long", engine).setRing(3);
      g.cpu.set32(S.CR4, g.cpu.get32(S.CR4) | CR4.TSD);
      assertEquals(g.run("0f31", 2, AT.USER_CODE).caught, 13);
    });
  });

  it("TSC_ADJUST moves it", () => {
    const f = new SystemFixture();
    f.cpu.set64(S.TSC_ADJUST, 0xffff_ffffn);
    f.place(AT.CODE, "90 0f31");
    f.machine.run({ steps: 2 });
    assertEquals([f.cpu.gpr(0), f.cpu.gpr(2)], [0n, 1n]);
  });
});

describe("random numbers", () => {
  it("differ from each other, set CF, and repeat with the seed", () => {
    const draw = (engine: EngineKind): bigint[] => {
      const f = new SystemFixture("long", engine);
      f.run("480fc7f0 480fc7f3", 2); // rdrand %rax; rdrand %rbx
      assertEquals(f.cpu.rflags & RFLAGS.CF, RFLAGS.CF);
      return [f.cpu.gpr(0), f.cpu.gpr(3)];
    };
    const [a, b] = draw("interpreter");
    assertNotEquals(a, b);
    assertEquals(draw("reference"), [a, b]);
  });
});

describe("INVLPG and INVPCID", () => {
  it("INVLPG makes a changed page-table entry visible", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      f.cpu.setGpr(3, 0x20_0000n);
      f.run("8b03", 1);
      // Map the second 2-MiB page onto the first: visible after INVLPG.
      f.view.setUint32(AT.PML4 + 0x2008, 0x87, true);
      f.view.setUint32(0x10, 0x1234_5678, true);
      f.cpu.setGpr(3, 0x20_0010n);
      f.run("0f013b 8b03", 2);
      assertEquals(f.cpu.gpr(0), 0x1234_5678n);
    });
  });

  it("are #GP(0) outside CPL 0", () => {
    assertEquals(new SystemFixture().setRing(3).run("0f013b", 2, AT.USER_CODE).caught, 13);
  });

  it("INVPCID checks its type and descriptor", () => {
    const attempt = (type: number, pcid: bigint, address: bigint): number => {
      const f = new SystemFixture();
      f.cpu.setGpr(0, BigInt(type));
      f.cpu.setGpr(3, BigInt(AT.DATA));
      f.view.setBigUint64(AT.DATA, pcid, true);
      f.view.setBigUint64(AT.DATA + 8, address, true);
      return f.run("660f388203 90", 2).caught;
    };
    assertEquals(attempt(0, 0n, 0n), -1);
    assertEquals(attempt(2, 0n, 0n), -1);
    assertEquals(attempt(4, 0n, 0n), 13);
    assertEquals(attempt(1, 0x1000n, 0n), 13);
    assertEquals(attempt(1, 5n, 0n), 13); // CR4.PCIDE is clear
    assertEquals(attempt(0, 0n, 0x8000_0000_0000n), 13);
  });
});

describe("protection keys", () => {
  it("WRPKRU and RDPKRU need CR4.PKE and zeros in ECX and EDX", () => {
    const make = (): SystemFixture => {
      const f = new SystemFixture("long", "interpreter", "icelake");
      f.cpu.setGpr(0, 0x54n);
      f.cpu.setGpr(2, 0n);
      return f;
    };
    assertEquals(make().run("0f01ef", 2).caught, 6);
    const f = make();
    f.cpu.set32(S.CR4, f.cpu.get32(S.CR4) | CR4.PKE);
    f.run("0f01ef 31c0 0f01ee", 3);
    assertEquals([f.cpu.get32(S.PKRU), f.cpu.gpr(0)], [0x54, 0x54n]);
    f.cpu.setGpr(2, 1n);
    assertEquals(f.run("0f01ef", 2).caught, 13);
  });
});
