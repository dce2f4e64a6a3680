/** Instructions of a guest: which cause VM exits under which controls, with what information; and that they don't without. */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { S } from "../../../hw/state.ts";
import { PROC, PROC2 } from "../../../hw/vmx/contract.ts";
import { AT, onBothEngines } from "../sys/system_fixture.ts";
import { everything, VM, VmxFixture } from "./vmx_fixture.ts";

interface Exit {
  readonly name: string;
  /** The guest's code; the exit is at its instruction that begins at `at`. */
  readonly code: string;
  readonly at?: number;
  readonly prepare?: (m: VmxFixture) => void;
  readonly reason: number;
  readonly qualification?: bigint | number;
  readonly length: number;
  readonly information?: number;
  readonly linear?: number;
}

const proc = (bits: number) => (m: VmxFixture) => m.or("PROCESSOR_BASED_CONTROLS", bits);
const proc2 = (bits: number) => (m: VmxFixture) => m.secondary(bits);
/** Memory part of the instruction information: [30000h] in 64-bit mode, no base, no index, DS. */
const ABSOLUTE = (2 << 7) | (3 << 15) | (1 << 22) | (1 << 27);

const exits: readonly Exit[] = [
  { name: "CPUID", code: "0fa2", reason: 10, length: 2 },
  { name: "HLT", code: "f4", prepare: proc(PROC.HLT), reason: 12, length: 1 },
  { name: "INVD", code: "0f08", reason: 13, length: 2 },
  {
    name: "INVLPG",
    code: "0f013c2500000300",
    prepare: proc(PROC.INVLPG),
    reason: 14,
    qualification: 0x3_0000,
    length: 8,
  },
  { name: "RDPMC", code: "0f33", prepare: proc(PROC.RDPMC), reason: 15, length: 2 },
  { name: "RDTSC", code: "0f31", prepare: proc(PROC.RDTSC), reason: 16, length: 2 },
  { name: "VMCALL", code: "0f01c1", reason: 18, length: 3 },
  {
    name: "VMCLEAR",
    code: "660fc73500100000",
    reason: 19,
    qualification: VM.GUEST + 8 + 0x1000,
    length: 8,
    information: ABSOLUTE,
  },
  { name: "VMLAUNCH", code: "0f01c2", reason: 20, length: 3 },
  {
    name: "VMPTRLD",
    code: "0fc7342500000300",
    reason: 21,
    qualification: 0x3_0000,
    length: 8,
    information: ABSOLUTE,
  },
  {
    name: "VMPTRST",
    code: "640fc77c8bf8",
    reason: 22,
    qualification: 0xffff_ffff_ffff_fff8n,
    length: 6,
    // fs:[rbx + rcx*4 - 8]
    information: 2 | (2 << 7) | (4 << 15) | (1 << 18) | (3 << 23),
  },
  { name: "VMREAD", code: "0f78cb", reason: 23, length: 3, information: (3 << 3) | (1 << 10) | (1 << 28) },
  { name: "VMRESUME", code: "0f01c3", reason: 24, length: 3 },
  {
    name: "VMWRITE",
    code: "0f790c2500000300",
    reason: 25,
    qualification: 0x3_0000,
    length: 8,
    information: ABSOLUTE | (1 << 28),
  },
  { name: "VMXOFF", code: "0f01c4", reason: 26, length: 3 },
  {
    name: "VMXON",
    code: "f30fc7342500000300",
    reason: 27,
    qualification: 0x3_0000,
    length: 9,
    information: ABSOLUTE,
  },
  {
    name: "MOV to CR0",
    code: "0f22c1",
    prepare: (m) => {
      m.set("CR0_MASK", 8).set("CR0_READ_SHADOW", 8);
      m.cpu.setGpr(1, BigInt(m.cpu.get32(S.CR0)));
    },
    reason: 28,
    qualification: 0x100,
    length: 3,
  },
  {
    name: "MOV to CR3",
    code: "0f22da",
    prepare: (m) => {
      proc(PROC.CR3_LOAD)(m);
      m.set("CR3_TARGET_COUNT", 1).set("CR3_TARGET_0", 0x1000);
      m.cpu.setGpr(2, BigInt(AT.PML4));
    },
    reason: 28,
    qualification: 0x203,
    length: 3,
  },
  {
    name: "MOV from CR3",
    code: "0f20df",
    prepare: proc(PROC.CR3_STORE),
    reason: 28,
    qualification: 0x713,
    length: 3,
  },
  {
    name: "MOV to CR4",
    code: "0f22e0",
    prepare: (m) => m.set("CR4_MASK", 4).set("CR4_READ_SHADOW", 4),
    reason: 28,
    qualification: 4,
    length: 3,
  },
  {
    name: "MOV to CR8",
    code: "440f22c0",
    prepare: proc(PROC.CR8_LOAD),
    reason: 28,
    qualification: 8,
    length: 4,
  },
  {
    name: "MOV from CR8",
    code: "440f20c1",
    prepare: proc(PROC.CR8_STORE),
    reason: 28,
    qualification: 0x118,
    length: 4,
  },
  {
    name: "CLTS",
    code: "0f06",
    prepare: (m) => m.set("CR0_MASK", 8).set("CR0_READ_SHADOW", 8),
    reason: 28,
    qualification: 0x20,
    length: 2,
  },
  {
    name: "LMSW r16",
    code: "b80a000000 0f01f0",
    at: 5,
    prepare: (m) => m.set("CR0_MASK", 8),
    reason: 28,
    qualification: 0x000a_0030,
    length: 3,
  },
  {
    name: "LMSW m16",
    code: "0f01342500000300",
    prepare: (m) => {
      m.set("CR0_MASK", 8);
      m.view.setUint16(AT.DATA, 9, true);
    },
    reason: 28,
    qualification: 0x0009_0070,
    length: 8,
    linear: 0x3_0000,
  },
  {
    name: "MOV to DR",
    code: "0f23f9",
    prepare: proc(PROC.MOV_DR),
    reason: 29,
    qualification: 0x107,
    length: 3,
  },
  {
    name: "MOV from DR",
    code: "410f21f0",
    prepare: proc(PROC.MOV_DR),
    reason: 29,
    qualification: 0x816,
    length: 4,
  },
  {
    name: "IN AL, imm8",
    code: "e471",
    prepare: proc(PROC.UNCONDITIONAL_IO),
    reason: 30,
    qualification: 0x0071_0048,
    length: 2,
  },
  {
    name: "OUT DX, EAX",
    code: "66ba3412 ef",
    at: 4,
    prepare: proc(PROC.UNCONDITIONAL_IO),
    reason: 30,
    qualification: 0x1234_0003,
    length: 1,
  },
  {
    name: "REP OUTSB",
    code: "66ba3412 b902000000 be00000300 f36e",
    at: 14,
    prepare: proc(PROC.UNCONDITIONAL_IO),
    reason: 30,
    qualification: 0x1234_0030,
    length: 2,
    information: (2 << 7) | (3 << 15),
    linear: 0x3_0000,
  },
  {
    name: "INSW",
    code: "66ba3412 bf10000300 666d",
    at: 9,
    prepare: proc(PROC.UNCONDITIONAL_IO),
    reason: 30,
    qualification: 0x1234_0019,
    length: 2,
    information: 2 << 7,
    linear: 0x3_0010,
  },
  { name: "RDMSR", code: "0f32", reason: 31, length: 2 },
  { name: "WRMSR", code: "0f30", reason: 32, length: 2 },
  { name: "MWAIT", code: "0f01c9", prepare: proc(PROC.MWAIT), reason: 36, length: 3 },
  { name: "MONITOR", code: "0f01c8", prepare: proc(PROC.MONITOR), reason: 39, length: 3 },
  { name: "PAUSE", code: "f390", prepare: proc(PROC.PAUSE), reason: 40, length: 2 },
  {
    name: "LGDT",
    code: "0f01142500000300",
    prepare: proc2(PROC2.DESCRIPTOR_TABLE),
    reason: 46,
    qualification: 0x3_0000,
    length: 8,
    information: (ABSOLUTE | (2 << 28)) >>> 0,
  },
  {
    name: "SIDT",
    code: "0f010c2500000300",
    prepare: proc2(PROC2.DESCRIPTOR_TABLE),
    reason: 46,
    qualification: 0x3_0000,
    length: 8,
    information: ABSOLUTE | (1 << 28),
  },
  {
    name: "LTR",
    code: "0f00d9",
    prepare: proc2(PROC2.DESCRIPTOR_TABLE),
    reason: 47,
    length: 3,
    information: (1 << 3) | (1 << 10) | (3 << 28),
  },
  {
    name: "SLDT",
    code: "0f00042500000300",
    prepare: proc2(PROC2.DESCRIPTOR_TABLE),
    reason: 47,
    qualification: 0x3_0000,
    length: 8,
    information: ABSOLUTE,
  },
  {
    name: "INVEPT",
    code: "660f38801c2500000300",
    reason: 50,
    qualification: 0x3_0000,
    length: 10,
    information: ABSOLUTE | (3 << 28),
  },
  {
    name: "RDTSCP",
    code: "0f01f9",
    prepare: (m) => {
      proc(PROC.RDTSC)(m);
      proc2(PROC2.RDTSCP)(m);
    },
    reason: 51,
    length: 3,
  },
  {
    name: "INVVPID",
    code: "660f38811c2500000300",
    reason: 53,
    qualification: 0x3_0000,
    length: 10,
    information: ABSOLUTE | (3 << 28),
  },
  { name: "WBINVD", code: "0f09", prepare: proc2(PROC2.WBINVD), reason: 54, length: 2 },
  {
    name: "XSETBV",
    code: "0f01d1",
    prepare: (m) => m.or("GUEST_CR4", 0x4_0000),
    reason: 55,
    length: 3,
  },
  {
    name: "RDRAND",
    code: "480fc7f3",
    prepare: proc2(PROC2.RDRAND),
    reason: 57,
    length: 4,
    information: (3 << 3) | (2 << 11),
  },
  {
    name: "RDSEED",
    code: "660fc7fb",
    prepare: proc2(PROC2.RDSEED),
    reason: 61,
    length: 4,
    information: 3 << 3,
  },
  {
    name: "INVPCID",
    code: "660f38821c2500000300",
    prepare: (m) => {
      proc(PROC.INVLPG)(m);
      proc2(PROC2.INVPCID)(m);
    },
    reason: 58,
    qualification: 0x3_0000,
    length: 10,
    information: ABSOLUTE | (3 << 28),
  },
  { name: "VMFUNC", code: "0f01d4", prepare: (m) => m.secondary(PROC2.VM_FUNCTIONS), reason: 59, length: 3 },
];

describe("instructions that cause VM exits", () => {
  for (const exit of exits) {
    it(exit.name, () => {
      onBothEngines((engine) => {
        const m = new VmxFixture(everything, engine).start();
        exit.prepare?.(m);
        m.guest(exit.code).exited(exit.reason, exit.qualification ?? 0);
        assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST + (exit.at ?? 0)), "RIP");
        assertEquals(m.get("EXIT_INSTRUCTION_LENGTH"), BigInt(exit.length), "length");
        assertEquals(
          m.get("EXIT_INSTRUCTION_INFORMATION"),
          BigInt((exit.information ?? 0) >>> 0),
          "information",
        );
        if (exit.linear !== undefined) assertEquals(m.get("GUEST_LINEAR_ADDRESS"), BigInt(exit.linear));
        assertEquals(m.get("EXIT_INTERRUPTION_INFORMATION") >> 31n, 0n);
        assertEquals(m.get("IDT_VECTORING_INFORMATION") >> 31n, 0n);
      });
    });
  }
});

/** Instructions that without their control do what they always do. The code ends in a VMCALL. */
const harmless: readonly (readonly [name: string, code: string, prepare?: (m: VmxFixture) => void])[] = [
  ["INVLPG", "0f013c2500000300"],
  ["RDTSC", "0f31"],
  ["RDTSCP with its control", "0f01f9", proc2(PROC2.RDTSCP)],
  ["PAUSE", "f390"],
  ["WBINVD", "0f09"],
  ["MONITOR and MWAIT", "b800000300 31c9 0f01c8 31c9 0f01c9"],
  ["MOV from CR0, CR2, CR3, CR4", "0f20c0 0f20d0 0f20d8 0f20e0"],
  ["MOV to CR3 of a target value", "0f20d8 0f22d8", (m) => {
    proc(PROC.CR3_LOAD)(m);
    m.set("CR3_TARGET_COUNT", 2).set("CR3_TARGET_1", AT.PML4);
  }],
  ["MOV to and from DR", "0f21f0 0f23f0"],
  ["CLTS without TS in the shadow", "0f06", (m) => m.set("CR0_MASK", 8)],
  ["LMSW that changes nothing", "b801000000 0f01f0", (m) => m.set("CR0_MASK", 0xf).set("CR0_READ_SHADOW", 1)],
  ["IN and OUT", "e480 e680"],
  ["SGDT and STR", "0f01042500000300 0f00c8"],
  ["RDRAND", "480fc7f0"],
  ["INVPCID with its control", "b802000000 660f38820425 00000300", (m) => {
    proc2(PROC2.INVPCID)(m);
    m.view.setBigUint64(AT.DATA, 0n, true);
  }],
  [
    "RDMSR with a clear bitmap",
    "b980000 0c0 0f32 0f30".replace(" ", ""),
    (m) => m.or("PROCESSOR_BASED_CONTROLS", PROC.MSR_BITMAPS).set("MSR_BITMAPS", VM.MSR),
  ],
];

describe("instructions that cause no VM exit without their controls", () => {
  for (const [name, code, prepare] of harmless) {
    it(name, () => {
      onBothEngines((engine) => {
        const m = new VmxFixture(everything, engine).start();
        m.clear("PROCESSOR_BASED_CONTROLS", PROC.CR3_LOAD | PROC.CR3_STORE);
        prepare?.(m);
        m.guest(code + "0f01c1").exited(18);
      });
    });
  }
});

describe("instructions that a control enables", () => {
  for (
    const [name, code] of [
      ["RDTSCP", "0f01f9"],
      ["RDPID", "f30fc7f8"],
      ["INVPCID", "660f38820425 00000300".replace(" ", "")],
      ["VMFUNC", "0f01d4"],
    ] as const
  ) {
    it(`${name} is #UD without it`, () => {
      const m = new VmxFixture().start().set("EXCEPTION_BITMAP", 1 << 6);
      m.guest(code).exited(0);
      assertEquals(m.get("EXIT_INTERRUPTION_INFORMATION"), 0x8000_0306n);
    });
  }
});

describe("faults that come before the exit", () => {
  const user = (m: VmxFixture) => {
    m.set("GUEST_CS_SELECTOR", 0x2b).set("GUEST_SS_SELECTOR", 0x23);
    m.set("GUEST_CS_ACCESS_RIGHTS", 0xa0fb).set("GUEST_SS_ACCESS_RIGHTS", 0xc0f3);
    m.set("EXCEPTION_BITMAP", 1 << 13);
  };
  it("privilege: HLT, MOV CR, LGDT, RDMSR at CPL 3 are #GP(0)", () => {
    for (const code of ["f4", "0f20c0", "0f01142500000300", "0f32", "0f09"]) {
      const m = new VmxFixture().start();
      proc(PROC.HLT)(m);
      user(m);
      m.guest(code).exited(0);
      assertEquals(m.get("EXIT_INTERRUPTION_INFORMATION"), 0x8000_0b0dn, code);
      assertEquals(m.get("EXIT_INTERRUPTION_ERROR_CODE"), 0n);
    }
  });
  it("but VMX instructions and MOV DR exit at CPL 3", () => {
    for (const [code, reason] of [["0f01c1", 18], ["0f01c2", 20], ["0f21c0", 29]] as const) {
      const m = new VmxFixture().start();
      proc(PROC.MOV_DR)(m);
      user(m);
      m.guest(code).exited(reason);
    }
  });
  it("ports that the TSS does not allow", () => {
    const m = new VmxFixture().start();
    proc(PROC.UNCONDITIONAL_IO)(m);
    user(m);
    m.view.setUint8(AT.TSS + 0x68 + 0x10, 0xff);
    m.guest("e480").exited(0);
  });
});

describe("CR0 and CR4 masks", () => {
  it("a guest reads host-owned bits from the shadow and changes only its own", () => {
    onBothEngines((engine) => {
      const m = new VmxFixture(everything, engine).start();
      m.set("CR4_MASK", 0x2000).set("CR0_MASK", 0x21).set("CR0_READ_SHADOW", 1);
      // mov rax, cr4; mov rbx, cr0; smsw ecx; or al, 4; mov cr4, rax; vmcall
      m.guest("0f20e0 0f20c3 0f01e1 4889c2 4883ca04 0f22e2 0f01c1").exited(18);
      assertEquals(m.cpu.gpr(0) & 0x2000n, 0n);
      assertEquals([m.cpu.gpr(3) & 0x21n, m.cpu.gpr(1) & 0x21n], [1n, 1n]);
      assertEquals(m.get("GUEST_CR4") & 0x2004n, 0x2004n);
    });
  });
});

describe("I/O bitmaps", () => {
  const run = (port: number, code: string, bit: (m: VmxFixture) => void): number => {
    const m = new VmxFixture().start();
    m.or("PROCESSOR_BASED_CONTROLS", PROC.IO_BITMAPS | PROC.UNCONDITIONAL_IO).set("IO_BITMAP_A", VM.IO_A).set(
      "IO_BITMAP_B",
      VM.IO_B,
    );
    bit(m);
    const hex = port.toString(16).padStart(4, "0");
    m.guest(`66ba${hex.slice(2)}${hex.slice(0, 2)} ${code} 0f01c1`);
    return m.reason;
  };
  const inAl = "ec", inEax = "ed";
  it("exit for a set bit only, in either page", () => {
    assertEquals(run(0x80, inAl, () => {}), 18);
    assertEquals(run(0x80, inAl, (m) => m.view.setUint8(VM.IO_A + 0x10, 1)), 30);
    assertEquals(run(0x81, inAl, (m) => m.view.setUint8(VM.IO_A + 0x10, 1)), 18);
    assertEquals(run(0x8000, inAl, (m) => m.view.setUint8(VM.IO_B, 1)), 30);
  });
  it("look at every port of an access, also from one page to the other; one past FFFFH always exits", () => {
    assertEquals(run(0x7d, inEax, (m) => m.view.setUint8(VM.IO_A + 0x10, 1)), 30);
    assertEquals(run(0x7ffe, inEax, (m) => m.view.setUint8(VM.IO_B, 2)), 30);
    assertEquals(run(0xfffe, inEax, () => {}), 30);
  });
});

describe("MSR bitmaps", () => {
  const run = (msr: number, write: boolean, at: number): number => {
    const m = new VmxFixture().start().or("PROCESSOR_BASED_CONTROLS", PROC.MSR_BITMAPS).set(
      "MSR_BITMAPS",
      VM.MSR,
    );
    if (at >= 0) m.view.setUint8(VM.MSR + (at >>> 3), 1 << (at & 7));
    m.cpu.setGpr(1, BigInt(msr));
    m.cpu.setGpr(0, 0n);
    m.cpu.setGpr(2, 0n);
    m.guest((write ? "0f30" : "0f32") + "0f01c1");
    return m.reason;
  };
  it("have a quarter for each range and direction; other MSRs always exit", () => {
    assertEquals(run(0x174, false, -1), 18);
    assertEquals(run(0x174, false, 0x174), 31);
    assertEquals(run(0xc000_0103, false, 0x400 * 8 + 0x103), 31);
    assertEquals(run(0x174, true, 0x800 * 8 + 0x174), 32);
    assertEquals(run(0xc000_0103, true, 0xc00 * 8 + 0x103), 32);
    assertEquals(run(0xc000_0103, true, 0x400 * 8 + 0x103), 18);
    assertEquals(run(0x4000_0000, false, -1), 31);
    assertEquals(run(0x2000, true, -1), 32);
  });
});

describe("the guest's time-stamp counter", () => {
  it("is scaled, then offset; by RDMSR too", () => {
    const m = new VmxFixture().start().or("PROCESSOR_BASED_CONTROLS", PROC.TSC_OFFSETTING | PROC.MSR_BITMAPS);
    m.secondary(PROC2.TSC_SCALING).set("TSC_MULTIPLIER", 3n << 48n).set("TSC_OFFSET", 1_000_000n).set(
      "MSR_BITMAPS",
      VM.MSR,
    );
    m.cpu.now = () => 500;
    m.guest("0f31 89c3 b910000000 0f32 0f01c1").exited(18);
    assertEquals([m.cpu.gpr(3), m.cpu.gpr(0)], [1_001_500n, 1_001_500n]);
  });
});

describe("PAUSE-loop exiting", () => {
  it("exits when PAUSEs follow each other for longer than the window", () => {
    const m = new VmxFixture().start().secondary(PROC2.PAUSE_LOOP).set("PLE_GAP", 10).set("PLE_WINDOW", 100);
    let now = 0;
    m.cpu.now = () => now += 5;
    m.guest("f390 ebfc", 300).exited(40);
    const slow = new VmxFixture().start().secondary(PROC2.PAUSE_LOOP).set("PLE_GAP", 10).set(
      "PLE_WINDOW",
      100,
    );
    slow.cpu.now = () => now += 50;
    slow.guest("f390 ebfc", 300);
    assertEquals(slow.cpu.get32(S.VMX_MODE), 2);
  });
});
