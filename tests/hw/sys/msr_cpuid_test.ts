/** MSRs: what they take; CPUID: what it says, and that what it does not say is #UD. */
import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { cpuid, cpuModels, customModel, defaultModel, FEATURES, TSC_HZ } from "../../../hw/cpuid.ts";
import { findMsr, MSR } from "../../../hw/msr.ts";
import { S, SEG } from "../../../hw/state.ts";
import { AT, onBothEngines, SystemFixture } from "./system_fixture.ts";

/** WRMSR; vector of the exception, or −1. */
function write(f: SystemFixture, number: number, value: bigint): number {
  f.cpu.setGpr(1, BigInt(number));
  f.cpu.setGpr(0, value & 0xffff_ffffn);
  f.cpu.setGpr(2, value >> 32n);
  f.run("0f30 90", 2);
  return f.caught;
}
/** RDMSR; the value, or minus the vector. */
function read(f: SystemFixture, number: number): bigint {
  f.cpu.setGpr(1, BigInt(number));
  f.run("0f32 90", 2);
  return f.caught >= 0 ? BigInt(-f.caught) : (f.cpu.gpr(2) << 32n) | f.cpu.gpr(0);
}

describe("MSRs", () => {
  it("read back what was written, through EDX:EAX", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      assertEquals(write(f, MSR.LSTAR, 0xffff_8000_1234_5678n), -1);
      assertEquals(read(f, MSR.LSTAR), 0xffff_8000_1234_5678n);
      assertEquals(write(f, MSR.GS_BASE, 0x7000_0000n), -1);
      assertEquals(f.cpu.segBase(SEG.GS), 0x7000_0000n);
    });
  });

  it("that are not there are #GP(0), and all are in ring 3", () => {
    onBothEngines((engine) => {
      assertEquals(read(new SystemFixture("long", engine), 0x1234), -13n);
      assertEquals(write(new SystemFixture("long", engine), 0x1234, 0n), 13);
      const f = new SystemFixture("long", engine).setRing(3);
      f.cpu.setGpr(1, BigInt(MSR.LSTAR));
      assertEquals(f.run("0f32", 2, AT.USER_CODE).caught, 13);
    });
  });

  it("refuse values that are not canonical", () => {
    for (const number of [MSR.LSTAR, MSR.FS_BASE, MSR.KERNEL_GS_BASE, MSR.SYSENTER_EIP]) {
      assertEquals(write(new SystemFixture(), number, 0x8000_0000_0000n), 13);
    }
    // With 57-bit linear addresses in the model it is canonical enough.
    assertEquals(
      write(new SystemFixture("long", "interpreter", "icelake"), MSR.LSTAR, 0x8000_0000_0000n),
      -1,
    );
  });

  it("EFER refuses reserved bits and a change of LME while paging is on", () => {
    assertEquals(write(new SystemFixture(), MSR.EFER, 0xd01n), -1);
    assertEquals(write(new SystemFixture(), MSR.EFER, 0x1d01n), 13);
    assertEquals(write(new SystemFixture(), MSR.EFER, 0xc01n), 13);
    const f = new SystemFixture();
    write(f, MSR.EFER, 0x101n);
    assertEquals(read(f, MSR.EFER), 0x501n); // LMA is read-only
  });

  it("PAT and MTRRs take valid memory types only", () => {
    assertEquals(write(new SystemFixture(), MSR.PAT, 0x0007_0406_0007_0401n), -1);
    assertEquals(write(new SystemFixture(), MSR.PAT, 0x0002_0406_0007_0406n), 13);
    assertEquals(write(new SystemFixture(), MSR.MTRR_DEF_TYPE, 0xc06n), -1);
    assertEquals(write(new SystemFixture(), MSR.MTRR_DEF_TYPE, 0xc07n), 13);
    assertEquals(write(new SystemFixture(), 0x200, 0x8000_0006n), -1);
    assertEquals(write(new SystemFixture(), 0x200, 1n << 39n), 13);
    assertEquals(write(new SystemFixture(), 0x250, 0x0606_0606_0606_0606n), -1);
    assertEquals(write(new SystemFixture(), 0x250, 7n), 13);
  });

  it("CPUID leaf 1, and no other, leaves the revision of the microcode in BIOS_SIGN_ID", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine, "icelake");
      assertEquals(write(f, MSR.BIOS_SIGN_ID, 0n), -1);
      f.cpu.setGpr(0, 0n);
      f.run("0fa2", 1);
      assertEquals(read(f, MSR.BIOS_SIGN_ID), 0n);
      f.cpu.setGpr(0, 1n);
      f.run("0fa2", 1);
      assertEquals(read(f, MSR.BIOS_SIGN_ID), 0xd00_03e7n << 32n);
    });
  });

  it("FEATURE_CONTROL locks", () => {
    const f = new SystemFixture();
    // Firmware has enabled VMXON outside SMX and locked.
    assertEquals(read(f, MSR.FEATURE_CONTROL), 5n);
    assertEquals(write(f, MSR.FEATURE_CONTROL, 5n), 13);
    const unlocked = new SystemFixture();
    unlocked.cpu.set64(S.FEATURE_CONTROL, 0n);
    assertEquals(write(unlocked, MSR.FEATURE_CONTROL, 4n), -1);
    assertEquals(write(unlocked, MSR.FEATURE_CONTROL, 1n), -1);
    assertEquals(write(unlocked, MSR.FEATURE_CONTROL, 5n), 13);
  });

  it("writing the TSC moves TSC_ADJUST", () => {
    const f = new SystemFixture();
    f.cpu.now = () => 1000;
    assertEquals(read(f, MSR.TSC), 1000n);
    write(f, MSR.TSC, 10n);
    assertEquals(read(f, MSR.TSC), 10n);
    assertEquals(BigInt.asIntN(64, read(f, MSR.TSC_ADJUST)), -990n);
  });

  it("x2APIC registers answer in x2APIC mode", () => {
    const f = new SystemFixture();
    assertEquals(read(f, 0x802), -13n);
    const g = new SystemFixture();
    assertEquals(write(g, MSR.APIC_BASE, 0xfee0_0d00n), -1);
    assertEquals(read(g, 0x802), 0n);
    assertEquals(write(g, MSR.APIC_BASE, 0xfee0_0900n), 13); // not back to xAPIC mode
  });

  it("depend on the model's features", () => {
    const f = new SystemFixture("long", "interpreter", "penryn");
    assertEquals(findMsr(f.cpu, MSR.TSC_AUX), undefined);
    assertEquals(findMsr(f.cpu, MSR.STAR)?.name, "IA32_STAR");
  });
});

describe("CPUID", () => {
  it("answers through the four registers, upper halves cleared", () => {
    onBothEngines((engine) => {
      const f = new SystemFixture("long", engine);
      for (const n of [0, 1, 2, 3]) f.cpu.setGpr(n, n === 0 ? 0n : -1n);
      f.run("0fa2", 1);
      assertEquals([0, 3, 2, 1].map((n) => f.cpu.gpr(n)), [
        0x16n,
        0x756e_6547n,
        0x4965_6e69n,
        0x6c65_746en,
      ]);
    });
  });

  it("reports exactly the model's features", () => {
    for (const model of Object.values(cpuModels)) {
      const { cpu } = new SystemFixture("long", "interpreter", model);
      for (const [name, [leaf, subleaf, register, bit]] of Object.entries(FEATURES)) {
        const set = (cpuid(cpu, leaf, subleaf)[register]! >>> bit) & 1;
        assertEquals([model.name, name, set === 1], [model.name, name, model.features.has(name)]);
      }
    }
  });

  it("gives address sizes, brand, topology and the highest leaf's data beyond the end", () => {
    const { cpu } = new SystemFixture("long", "interpreter", "icelake");
    assertEquals(cpuid(cpu, 0x8000_0008, 0)[0], 46 | (57 << 8));
    const brand = [2, 3, 4].flatMap((n) => cpuid(cpu, 0x8000_0000 + n, 0))
      .map((word) => String.fromCharCode(...[0, 8, 16, 24].map((shift) => (word >>> shift) & 0xff))).join("");
    assertEquals(brand.replaceAll("\0", ""), "Exuvia icelake");
    assertEquals(cpuid(cpu, 0x1234, 0), cpuid(cpu, 0x16, 0));
    assertEquals(cpuid(cpu, 0xb, 0).slice(1), [1, 0x100, 0]);
    assertEquals(cpuid(cpu, 0x15, 0), [1, 1, TSC_HZ, 0]);
  });

  it("shows OSXSAVE and SYSCALL as the mode has them", () => {
    const f = new SystemFixture("protected");
    assertEquals((cpuid(f.cpu, 0x8000_0001, 0)[3] >>> 11) & 1, 0);
    assertEquals((cpuid(f.cpu, 1, 0)[2] >>> 27) & 1, 0);
    f.cpu.set32(S.CR4, 1 << 18);
    assertEquals((cpuid(f.cpu, 1, 0)[2] >>> 27) & 1, 1);
  });

  it("says what works: without the feature the instruction is #UD", () => {
    const cases: readonly (readonly [feature: string, code: string])[] = [
      ["popcnt", "f30fb8c3"],
      ["movbe", "0f38f003"],
      ["rdrand", "0fc7f0"],
      ["rdtscp", "0f01f9"],
      ["sse4_1", "660f3817c1"],
      ["ssse3", "660f3800c1"],
      ["cx16", "480fc70b"],
      ["smap", "0f01cb"],
      ["invpcid", "660f388203"],
      ["adx", "660f38f6c3"],
      ["bmi2", "c4e37bf0c301"],
      ["monitor", "0f01c9"],
    ];
    for (const [feature, code] of cases) {
      const run = (model: typeof defaultModel): number => {
        const f = new SystemFixture("long", "interpreter", model);
        f.cpu.setGpr(3, BigInt(AT.DATA));
        return f.run(`${code} 90`, 2).caught;
      };
      assertEquals([feature, run(defaultModel)], [feature, -1]);
      assertEquals([feature, run(customModel(defaultModel, { remove: [feature] }))], [feature, 6]);
    }
  });

  it("refuses models that cannot be", () => {
    assertThrows(() => customModel(defaultModel, { add: ["avx"] }), RangeError, "avx");
    assertThrows(() => customModel(defaultModel, { maxPhysicalBits: 60 }), RangeError, "36 to 52");
    assertEquals(customModel(defaultModel, { add: ["la57"] }).linearBits, 57);
  });
});
