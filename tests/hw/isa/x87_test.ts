import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import {
  F32,
  F64,
  F80,
  FP_DE,
  FP_IE,
  FP_OE,
  FP_PE,
  FP_UE,
  FP_ZE,
  fpConvert,
  fpEnv,
  fpFromInt,
  fpInfinity,
} from "../../../hw/isa/softfloat.ts";
import { x87Procedures } from "../../../hw/isa/x87_proc.ts";
import {
  abridgedTags,
  controlWord,
  FSW,
  INDEFINITE,
  readPhysical,
  readSt,
  setAbridgedTags,
  setWords,
  statusWord,
  writePhysical,
} from "../../../hw/isa/x87_state.ts";
import { RFLAGS, S } from "../../../hw/state.ts";
import { CODE, DATA, type Fault, FlatMachine } from "./flat_machine.ts";

const view = new DataView(new ArrayBuffer(8));
function f80(x: number): bigint {
  view.setFloat64(0, x);
  return fpConvert(F64, F80, view.getBigUint64(0), fpEnv());
}
function number(a: bigint): number {
  view.setBigUint64(0, fpConvert(F80, F64, a, fpEnv()));
  return view.getFloat64(0);
}

const INFINITY = fpInfinity(F80, false);
const SNAN = 0x7fffn << 64n | 0x8000_0000_0000_0001n;
const QNAN = 0x7fffn << 64n | 0xc000_0000_0000_0001n;
const UNNORMAL = 0x3fffn << 64n | 1n;
const DENORMAL = 1n;
const MASKED = 0x37f;
const CR0_NE = 0x20, CR0_PE = 1;

/** A machine after FNINIT whose stack holds `stack` (ST0 first). CR0.NE = 1. */
function machine(stack: bigint[] = [], control = MASKED): FlatMachine {
  const m = new FlatMachine(2, x87Procedures);
  m.cpu.set32(S.CR0, CR0_PE | CR0_NE);
  const top = (8 - stack.length) & 7;
  setWords(m.cpu, control, top << 11);
  setAbridgedTags(m.cpu, (0xff << (8 - stack.length)) & 0xff);
  stack.forEach((value, i) => writePhysical(m.cpu, (top + i) & 7, value));
  m.set({ rdx: DATA });
  return m;
}
/** The stack, ST0 first, as far as it is not empty. */
function stackOf(m: FlatMachine): bigint[] {
  const list: bigint[] = [];
  const top = (statusWord(m.cpu) & FSW.TOP) >> 11;
  for (let i = 0; i < 8 && (abridgedTags(m.cpu) >> ((top + i) & 7)) & 1; i++) list.push(readSt(m.cpu, i));
  return list;
}
function flagsOf(m: FlatMachine): number {
  return statusWord(m.cpu) & 0x7f;
}
function ok(fault: Fault | undefined): void {
  assertEquals(fault, undefined);
}
function runs(m: FlatMachine, ...hex: string[]): FlatMachine {
  for (const h of hex) ok(m.run(h));
  return m;
}

describe("arithmetic on the stack", () => {
  it("the eight orders of subtraction and division", () => {
    const rows: [hex: string, want: number[]][] = [
      ["d8 e1", [10 - 4, 4]], // FSUB ST0, ST1
      ["d8 e9", [4 - 10, 4]], // FSUBR ST0, ST1
      ["dc e9", [10, 4 - 10]], // FSUB ST1, ST0
      ["dc e1", [10, 10 - 4]], // FSUBR ST1, ST0
      ["de e9", [4 - 10]], // FSUBP
      ["de e1", [10 - 4]], // FSUBRP
      ["d8 f1", [10 / 4, 4]], // FDIV ST0, ST1
      ["d8 f9", [4 / 10, 4]], // FDIVR ST0, ST1
      ["de f9", [4 / 10]], // FDIVP
      ["de f1", [10 / 4]], // FDIVRP
      ["de c1", [14]], // FADDP
      ["dc c9", [10, 40]], // FMUL ST1, ST0
    ];
    for (const [hex, want] of rows) {
      const m = runs(machine([f80(10), f80(4)]), hex);
      assertEquals(stackOf(m).map(number), want, hex);
    }
  });

  it("memory operands of all four forms", () => {
    const m = machine([f80(100)]);
    m.poke(DATA, "0000c0bf"); // -1.5 as f32
    runs(m, "d8 02");
    m.poke(DATA, "000000000000 0440"); // 2.5 as f64
    runs(m, "dc 0a");
    m.poke(DATA, "ffff"); // -1 as i16
    runs(m, "de 02");
    m.poke(DATA, "03000000"); // 3 as i32
    runs(m, "da 22");
    assertEquals(stackOf(m).map(number), [98.5 * 2.5 - 1 - 3]);
  });

  it("rounding and precision control", () => {
    const third: [control: number, bits: bigint][] = [
      [0x37f, 0xaaaa_aaaa_aaaa_aaabn], // nearest
      [0x77f, 0xaaaa_aaaa_aaaa_aaaan], // down
      [0xb7f, 0xaaaa_aaaa_aaaa_aaabn], // up
      [0xf7f, 0xaaaa_aaaa_aaaa_aaaan], // toward zero
      [0x27f, 0xaaaa_aaaa_aaaa_a800n], // 53 bits
      [0x07f, 0xaaaa_ab00_0000_0000n], // 24 bits
    ];
    for (const [control, bits] of third) {
      const m = runs(machine([f80(1), f80(3)], control), "d8 f1");
      assertEquals(readSt(m.cpu, 0), 0x3ffdn << 64n | bits, control.toString(16));
      assertEquals(flagsOf(m), FP_PE);
      assertEquals(
        (statusWord(m.cpu) & FSW.C1) !== 0,
        (bits & 1n) !== 0n || control === 0x07f,
        "C1: rounded up",
      );
    }
  });

  it("a denormal memory operand raises DE, a signaling NaN IE", () => {
    const m = machine([f80(1)]);
    m.poke(DATA, "01000000");
    runs(m, "d8 02");
    assertEquals(flagsOf(m), FP_DE | FP_PE);
    m.poke(DATA, "0100807f");
    runs(m, "d8 02");
    assertEquals(flagsOf(m), FP_DE | FP_PE | FP_IE);
    assertEquals(readSt(m.cpu, 0), 0x7fffn << 64n | 0xc000_0100_0000_0000n);
  });

  it("division by zero and invalid operations give infinity and the indefinite", () => {
    let m = runs(machine([f80(-1), 0n]), "d8 f1");
    assertEquals([readSt(m.cpu, 0), flagsOf(m)], [fpInfinity(F80, true), FP_ZE]);
    m = runs(machine([0n, 0n]), "d8 f1");
    assertEquals([readSt(m.cpu, 0), flagsOf(m)], [INDEFINITE, FP_IE]);
    m = runs(machine([f80(-4)]), "d9 fa"); // FSQRT
    assertEquals([readSt(m.cpu, 0), flagsOf(m)], [INDEFINITE, FP_IE]);
    m = runs(machine([UNNORMAL, f80(1)]), "d8 c1");
    assertEquals([readSt(m.cpu, 0), flagsOf(m)], [INDEFINITE, FP_IE]);
  });
});

describe("the stack's own faults", () => {
  it("pushing on a full stack: C1 = 1, the indefinite where masked, nothing where not", () => {
    const full = Array.from({ length: 8 }, (_, n) => f80(n));
    let m = runs(machine(full), "d9 e8"); // FLD1
    assertEquals(flagsOf(m), FP_IE | FSW.SF);
    assertEquals(statusWord(m.cpu) & (FSW.C1 | FSW.TOP), FSW.C1 | 7 << 11);
    assertEquals(readSt(m.cpu, 0), INDEFINITE);
    m = runs(machine(full, MASKED & ~FP_IE), "d9 e8");
    assertEquals(statusWord(m.cpu) & (FSW.ES | FSW.B | FSW.TOP), FSW.ES | FSW.B);
    assertEquals(stackOf(m), full);
  });

  it("using an empty register: C1 = 0", () => {
    let m = runs(machine([f80(1)]), "d8 c1"); // FADD ST0, ST1
    assertEquals(stackOf(m), [INDEFINITE]);
    assertEquals(statusWord(m.cpu) & (FSW.SF | FSW.C1 | FP_IE), FSW.SF | FP_IE);
    m = runs(machine([]), "d9 c9"); // FXCH fills both
    assertEquals([readSt(m.cpu, 0), readSt(m.cpu, 1)], [INDEFINITE, INDEFINITE]);
    m = runs(machine([]), "dd 1a"); // FSTP m64 stores the indefinite and pops
    assertEquals(m.peek(DATA, 8), "000000000000f8ff");
    assertEquals((statusWord(m.cpu) & FSW.TOP) >> 11, 1);
    m = machine([], MASKED & ~FP_IE).poke(DATA, "11".repeat(8));
    runs(m, "dd 1a");
    assertEquals(m.peek(DATA, 8), "11".repeat(8));
    assertEquals((statusWord(m.cpu) & FSW.TOP) >> 11, 0);
  });

  it("FINCSTP, FDECSTP, FFREE move TOP and tags only", () => {
    const m = runs(machine([f80(1), f80(2)]), "d9 f7");
    assertEquals((statusWord(m.cpu) & FSW.TOP) >> 11, 7);
    runs(m, "d9 f6");
    assertEquals(stackOf(m).map(number), [1, 2]);
    runs(m, "dd c0");
    assertEquals(abridgedTags(m.cpu), 0x80);
  });
});

describe("unmasked exceptions wait for the next waiting instruction", () => {
  it("#MF with CR0.NE, and nothing has happened to the operands", () => {
    const m = runs(machine([f80(1), 0n], MASKED & ~FP_ZE), "d8 f1");
    assertEquals(stackOf(m), [f80(1), 0n]);
    assertEquals(statusWord(m.cpu) & (FSW.ES | FSW.B | FP_ZE), FSW.ES | FSW.B | FP_ZE);
    for (const hex of ["d9 e8", "9b", "d9 2a", "dd 22", "db 2a"]) {
      assertEquals(m.run(hex), { vector: 16, code: -1 }, hex);
    }
    runs(m, "df e0"); // FNSTSW AX does not wait
    assertEquals(m.get("rax") & 0xffffn, BigInt(statusWord(m.cpu)));
    runs(m, "db e2", "d9 e8"); // FNCLEX, FLD1
    assertEquals(stackOf(m), [f80(1), f80(1), 0n]);
  });

  it("#MF comes before a memory fault, a memory fault before any change", () => {
    const m = runs(machine([f80(1), 0n], MASKED & ~FP_ZE), "d8 f1");
    m.set({ rdx: 0x1000_0000 });
    assertEquals(m.run("d8 02")?.vector, 16);
    runs(m, "db e2");
    const before = statusWord(m.cpu);
    m.cpu.set64(S.FIP, 0x77n);
    for (const hex of ["d8 02", "dd 1a", "db 3a", "df 32", "d9 32", "dd 32", "dd 22", "db 2a", "df 22"]) {
      assertEquals(m.run(hex)?.vector, 14, hex);
    }
    assertEquals([statusWord(m.cpu), stackOf(m), m.cpu.get64(S.FIP)], [before, [f80(1), 0n], 0x77n]);
  });

  it("CR0.NE = 0 behaves as with IGNNE# asserted", () => {
    const m = runs(machine([f80(1), 0n], MASKED & ~FP_ZE), "d8 f1");
    m.cpu.set32(S.CR0, CR0_PE);
    runs(m, "d9 e8");
  });

  it("FLDCW may make an old flag pending", () => {
    const m = runs(machine([f80(1), f80(3)]), "d8 f1");
    m.poke(DATA, "5f03"); // PE unmasked
    runs(m, "d9 2a");
    assertEquals(controlWord(m.cpu), 0x35f);
    assertEquals(m.run("9b")?.vector, 16);
  });

  it("unmasked overflow: the exponent is moved in a register; memory is not written", () => {
    const huge = 0x7ffen << 64n | 1n << 63n;
    let m = runs(machine([huge, huge], MASKED & ~FP_OE), "d8 c1");
    assertEquals(readSt(m.cpu, 0), (0x7fffn - 24576n) << 64n | 1n << 63n);
    m = machine([f80(1e300)], MASKED & ~FP_OE).poke(DATA, "22222222");
    runs(m, "d9 1a"); // FSTP m32
    assertEquals([m.peek(DATA, 4), flagsOf(m), stackOf(m)], ["22222222", FP_OE, [f80(1e300)]]);
  });

  it("pointers: FIP and FDP name the last instruction that was not a control one; FOP the one that failed", () => {
    const m = machine([f80(1), 0n], MASKED & ~FP_ZE);
    m.poke(CODE, "d8 f1");
    runs(m, "d8 f1");
    assertEquals(m.cpu.get64(S.FIP), BigInt(CODE));
    assertEquals(m.cpu.memory.u16[(m.cpu.base + S.FOP) >>> 1], 0x0f1);
    ok(m.run("db e2", CODE + 0x100));
    ok(m.run("d9 02", CODE + 0x200));
    assertEquals([m.cpu.get64(S.FIP), m.cpu.get64(S.FDP)], [BigInt(CODE) + 0x200n, BigInt(DATA)]);
  });
});

describe("#NM and #UD", () => {
  it("CR0.EM and TS reach the rows through FPUTRAP; FWAIT needs MP and TS", () => {
    const m = machine([f80(1)]);
    m.cpu.set32(S.FPUTRAP, 7);
    assertEquals(m.run("d9 e8"), { vector: 7, code: -1 });
    assertEquals(m.run("db e3"), { vector: 7, code: -1 });
    m.cpu.set32(S.CR0, 0x29);
    ok(m.run("9b"));
    m.cpu.set32(S.CR0, 0x2b);
    assertEquals(m.run("9b"), { vector: 7, code: -1 });
  });

  it("holes in the map are undefined", () => {
    const holes =
      "d9d1 d9e2 d9e6 d9ef dae0 dae8 daf8 dbe5 dbf8 ddf0 ddf8 ded8 deda dfe1 dff8 d90a db22 db32 dd2a";
    for (const hex of holes.split(" ")) assertEquals(machine().run(hex)?.vector, 6, hex);
  });
});

describe("comparisons", () => {
  const CONDITIONS = FSW.C3 | FSW.C2 | FSW.C0;
  it("condition bits, and flags of FCOMI", () => {
    const rows: [bigint, bigint, number, number, number][] = [
      [f80(2), f80(1), 0, 0, 0],
      [f80(1), f80(2), FSW.C0, RFLAGS.CF, 0],
      [0n, 1n << 79n, FSW.C3, RFLAGS.ZF, 0],
      [f80(1), QNAN, CONDITIONS, RFLAGS.ZF | RFLAGS.PF | RFLAGS.CF, FP_IE],
    ];
    for (const [a, b, conditions, flags, raised] of rows) {
      let m = runs(machine([a, b]), "d8 d9"); // FCOMP
      assertEquals([statusWord(m.cpu) & CONDITIONS, flagsOf(m)], [conditions, raised]);
      assertEquals(stackOf(m), [b]);
      m = machine([a, b]);
      m.flags = 0x8d5;
      runs(m, "db f1"); // FCOMI
      assertEquals([m.flags, flagsOf(m)], [flags, raised]);
      m = runs(machine([a, b]), "da e9"); // FUCOMPP
      assertEquals([statusWord(m.cpu) & CONDITIONS, flagsOf(m), stackOf(m)], [conditions, 0, []]);
    }
    const m = runs(machine([f80(1), SNAN]), "df e9"); // FUCOMIP: a signaling NaN raises IE all the same
    assertEquals([flagsOf(m), stackOf(m)], [FP_IE, [SNAN]]);
  });

  it("FTST, FICOM", () => {
    let m = runs(machine([f80(-1)]), "d9 e4");
    assertEquals(statusWord(m.cpu) & CONDITIONS, FSW.C0);
    m = machine([f80(7)]).poke(DATA, "0700");
    runs(m, "de 1a"); // FICOMP m16
    assertEquals([statusWord(m.cpu) & CONDITIONS, stackOf(m)], [FSW.C3, []]);
  });

  it("FXAM classes and sign", () => {
    const minus = 1n << 79n;
    const rows: [bigint, number][] = [
      [UNNORMAL, 0],
      [QNAN, FSW.C0],
      [SNAN | minus, FSW.C0 | FSW.C1],
      [f80(1), FSW.C2],
      [INFINITY, FSW.C2 | FSW.C0],
      [minus, FSW.C3 | FSW.C1],
      [DENORMAL, FSW.C3 | FSW.C2],
    ];
    for (const [a, want] of rows) {
      const m = runs(machine([a]), "d9 e5");
      assertEquals(statusWord(m.cpu) & (CONDITIONS | FSW.C1), want, a.toString(16));
    }
    const m = machine([f80(-1)]);
    runs(m, "dd c0", "d9 e5"); // empty, the register still holds -1
    assertEquals(statusWord(m.cpu) & (CONDITIONS | FSW.C1), FSW.C3 | FSW.C0 | FSW.C1);
  });

  it("FCMOVcc follows the flags", () => {
    const rows: [string, number, boolean][] = [
      ["da c1", RFLAGS.CF, true],
      ["da c9", RFLAGS.ZF, true],
      ["da d1", RFLAGS.CF, true],
      ["da d9", RFLAGS.PF, true],
      ["db c1", RFLAGS.CF, false],
      ["db c9", 0, true],
      ["db d1", RFLAGS.ZF, false],
      ["db d9", 0, true],
    ];
    for (const [hex, flags, moves] of rows) {
      const m = machine([f80(1), f80(2)]);
      m.flags = flags;
      runs(m, hex);
      assertEquals(number(readSt(m.cpu, 0)), moves ? 2 : 1, hex);
    }
  });
});

describe("loads and stores", () => {
  it("every integer form, rounding and truncating", () => {
    const rows: [string, number, string][] = [
      ["df 1a", -2.5, "feff"], // FISTP m16
      ["db 1a", -2.5, "feffffff"], // FISTP m32
      ["df 3a", 2 ** 62, "0000000000000040"], // FISTP m64
      ["df 0a", -2.75, "feff"], // FISTTP m16
      ["db 0a", 2.75, "02000000"],
      ["dd 0a", -2.75, "feffffffffffffff"],
      ["df 1a", 40000, "0080"], // does not fit: indefinite
      ["db 1a", 3e9, "00000080"],
      ["d9 1a", 1.5, "0000c03f"], // FSTP m32
      ["dd 1a", 1.5, "000000000000f83f"],
      ["db 3a", 1.5, "00000000000000c0ff3f"], // FSTP m80
    ];
    for (const [hex, x, want] of rows) {
      const m = runs(machine([f80(x)]), hex);
      assertEquals(m.peek(DATA, want.length / 2), want, hex);
      assertEquals(stackOf(m), [], hex);
    }
    const m = runs(machine([f80(40000)]), "df 1a");
    assertEquals(flagsOf(m), FP_IE);
  });

  it("FLD m80 raises nothing, FLD m32 quiets and raises", () => {
    let m = machine().poke(DATA, "0100000000000080ff7f");
    runs(m, "db 2a");
    assertEquals([stackOf(m), flagsOf(m)], [[SNAN], 0]);
    m = machine().poke(DATA, "0100807f");
    runs(m, "d9 02");
    assertEquals(flagsOf(m), FP_IE);
    m = machine().poke(DATA, "00000000000000 80");
    runs(m, "df 2a"); // FILD m64
    assertEquals(stackOf(m).map(number), [-(2 ** 63)]);
  });

  it("packed decimal", () => {
    const m = machine([fpFromInt(F80, -123456789012345678n, fpEnv())]);
    runs(m, "df 32"); // FBSTP
    assertEquals(m.peek(DATA, 10), "78563412907856341280");
    runs(m, "df 22"); // FBLD
    assertEquals(stackOf(m), [fpFromInt(F80, -123456789012345678n, fpEnv())]);
    for (const x of [f80(1e18), QNAN, INFINITY]) {
      const invalid = runs(machine([x]), "df 32");
      assertEquals([invalid.peek(DATA, 10), flagsOf(invalid)], [
        "000000000000 00c0ffff".replace(" ", ""),
        FP_IE,
      ]);
    }
    const rounded = runs(machine([f80(0.5)]), "df 32");
    assertEquals([rounded.peek(DATA, 10), flagsOf(rounded)], ["00".repeat(10), FP_PE]);
  });

  it("constants are rounded as RC says, without PE", () => {
    const rows: [string, bigint, bigint][] = [
      ["d9 e9", 0x4000_d49a_784b_cd1b_8afen, 0x4000_d49a_784b_cd1b_8affn], // log2(10): down, up
      ["d9 ea", 0x3fff_b8aa_3b29_5c17_f0bbn, 0x3fff_b8aa_3b29_5c17_f0bcn], // log2(e)
      ["d9 eb", 0x4000_c90f_daa2_2168_c234n, 0x4000_c90f_daa2_2168_c235n], // pi
      ["d9 ec", 0x3ffd_9a20_9a84_fbcf_f798n, 0x3ffd_9a20_9a84_fbcf_f799n], // log10(2)
      ["d9 ed", 0x3ffe_b172_17f7_d1cf_79abn, 0x3ffe_b172_17f7_d1cf_79acn], // ln(2)
      ["d9 e8", f80(1), f80(1)],
      ["d9 ee", 0n, 0n],
    ];
    for (const [hex, down, up] of rows) {
      const low = runs(machine([], 0x77f), hex), high = runs(machine([], 0xb7f), hex);
      assertEquals([stackOf(low), stackOf(high)], [[down], [up]], hex);
      assertEquals(flagsOf(low), 0);
    }
  });
});

describe("FPREM, FSCALE, FXTRACT, FRNDINT", () => {
  it("remainders and quotient bits", () => {
    const rows: [string, number, number, number, number][] = [
      ["d9 f8", 17, 5, 2, FSW.C3 | FSW.C1], // quotient 3
      ["d9 f8", -17, 5, -2, FSW.C3 | FSW.C1],
      ["d9 f5", 18, 5, -2, FSW.C0], // quotient rounds to 4
      ["d9 f5", 7.5, 5, -2.5, FSW.C3], // tie: 1.5 to the even 2
      ["d9 f8", 5.25, 1.5, 0.75, FSW.C3 | FSW.C1],
      ["d9 f8", 3, 5, 3, 0],
    ];
    for (const [hex, a, b, want, conditions] of rows) {
      const m = runs(machine([f80(a), f80(b)]), hex);
      assertEquals(number(readSt(m.cpu, 0)), want, `${hex} ${a} ${b}`);
      assertEquals(statusWord(m.cpu) & (FSW.C0 | FSW.C1 | FSW.C2 | FSW.C3), conditions, `${hex} ${a} ${b}`);
    }
  });

  it("a large gap takes several rounds, each with C2 = 1, and ends with the exact remainder", () => {
    const a = 0x7000n << 64n | 0xdead_beef_1234_5677n, b = 0x3fffn << 64n | 0xc000_0000_0000_0001n;
    const m = machine([a, b]);
    let rounds = 0;
    do {
      runs(m, "d9 f8");
      rounds++;
    } while (statusWord(m.cpu) & FSW.C2 && rounds < 1000);
    assert(rounds > 100 && rounds < 500);
    const shift = 0x7000 - 0x3fff;
    const exact = (0xdead_beef_1234_5677n << BigInt(shift)) % 0xc000_0000_0000_0001n;
    const want = fpFromInt(F80, exact, fpEnv()) - (63n << 64n);
    assertEquals(readSt(m.cpu, 0), want);
  });

  it("FSCALE truncates its scale; FXTRACT takes apart; FRNDINT obeys RC", () => {
    let m = runs(machine([f80(1.5), f80(-3.9)]), "d9 fd");
    assertEquals(number(readSt(m.cpu, 0)), 1.5 / 8);
    m = runs(machine([f80(1), f80(1e9)]), "d9 fd");
    assertEquals([readSt(m.cpu, 0), flagsOf(m)], [INFINITY, FP_OE | FP_PE]);
    m = runs(machine([f80(1), f80(-1e9)]), "d9 fd");
    assertEquals([readSt(m.cpu, 0), flagsOf(m)], [0n, FP_UE | FP_PE]);
    m = runs(machine([f80(-40)]), "d9 f4");
    assertEquals(stackOf(m).map(number), [-1.25, 5]);
    m = runs(machine([0n]), "d9 f4");
    assertEquals([stackOf(m), flagsOf(m)], [[0n, fpInfinity(F80, true)], FP_ZE]);
    for (const [control, want] of [[0x37f, -2], [0x77f, -3], [0xb7f, -2], [0xf7f, -2]]) {
      assertEquals(number(readSt(runs(machine([f80(-2.5)], control), "d9 fc").cpu, 0)), want);
    }
  });
});

describe("transcendental functions", () => {
  /** Within two units in the last place of a double: the host's Math is not exact either. */
  function near(got: bigint, want: number): void {
    const x = number(got);
    assert(Math.abs(x - want) <= 4 * Number.EPSILON * Math.abs(want), `${x} is not ${want}`);
  }
  const arguments_ = [1e-30, 1e-5, 0.1, 0.5, 0.7853981, 0.785399, 1, 1.5707963267948966, 2, 3, 10, 1000];

  it("sine, cosine, tangent", () => {
    for (const x of [...arguments_, ...arguments_.map((a) => -a)]) {
      near(readSt(runs(machine([f80(x)]), "d9 fe").cpu, 0), Math.sin(x));
      const m = runs(machine([f80(x)]), "d9 fb");
      near(readSt(m.cpu, 1), Math.sin(x));
      assertEquals(flagsOf(m), FP_PE);
      if (Math.abs(x) !== 1.5707963267948966) {
        near(readSt(runs(machine([f80(x)]), "d9 ff").cpu, 0), Math.cos(x));
        const tangent = runs(machine([f80(x)]), "d9 f2");
        near(readSt(tangent.cpu, 1), Math.tan(x));
        assertEquals(readSt(tangent.cpu, 0), f80(1));
      }
    }
  });

  it("reduction is by the 66-bit pi: the sine of the 64-bit pi is what is missing to it", () => {
    const pi64 = 0x4000n << 64n | 0xc90f_daa2_2168_c235n;
    const m = runs(machine([pi64]), "d9 fe");
    // pi66 - pi64 = (0.C - 1) units of 2^-62 = -2^-64
    assertEquals(readSt(m.cpu, 0), (0xbfffn - 64n) << 64n | 1n << 63n);
  });

  it("out of range: C2 = 1 and nothing changes", () => {
    for (const hex of ["d9 fe", "d9 ff", "d9 f2", "d9 fb"]) {
      const m = runs(machine([f80(2 ** 63)]), hex);
      assertEquals([stackOf(m), statusWord(m.cpu) & FSW.C2], [[f80(2 ** 63)], FSW.C2]);
      const inside = runs(machine([f80(2 ** 62)]), hex);
      assertEquals(statusWord(inside.cpu) & FSW.C2, 0);
    }
  });

  it("logarithms and exponentials", () => {
    for (const x of [0.001, 0.5, 0.9999999, 1.0000001, 1.5, 2, 10, 1e300, 5e-324]) {
      near(readSt(runs(machine([f80(x), f80(3)]), "d9 f1").cpu, 0), 3 * Math.log2(x));
    }
    for (const x of [1e-40, -1e-10, 0.1, -0.25, 0.4]) {
      near(readSt(runs(machine([f80(x), f80(1)]), "d9 f9").cpu, 0), Math.log1p(x) / Math.LN2);
      near(readSt(runs(machine([f80(x)]), "d9 f0").cpu, 0), Math.expm1(x * Math.LN2));
    }
    assertEquals(readSt(runs(machine([f80(-1)]), "d9 f0").cpu, 0), f80(-0.5));
    let m = runs(machine([0n, f80(2)]), "d9 f1");
    assertEquals([stackOf(m), flagsOf(m)], [[fpInfinity(F80, true)], FP_ZE]);
    m = runs(machine([f80(-2), f80(2)]), "d9 f1");
    assertEquals([stackOf(m), flagsOf(m)], [[INDEFINITE], FP_IE]);
  });

  it("arc tangent in every quadrant, and its special cases", () => {
    const axis = [-Infinity, -1e30, -2, -1, -1e-30, -0, 0, 1e-30, 1, 3, Infinity];
    for (const y of axis) {
      for (const x of axis) {
        const m = runs(machine([f80(x), f80(y)]), "d9 f3");
        const got = number(stackOf(m)[0]!), want = Math.atan2(y, x);
        assert(
          Object.is(got, want) || Math.abs(got - want) <= 4 * Number.EPSILON * Math.abs(want),
          `${y} ${x}: ${got}`,
        );
      }
    }
  });
});

describe("environment and state images", () => {
  it("FNSTENV writes the layout of the mode and masks everything; FLDENV brings it back", () => {
    for (const prefix of ["", "66"]) {
      const m = machine([f80(1), 0n, INFINITY], 0x37e);
      m.cpu.set32(S.FCS, 0x33);
      m.cpu.set64(S.FIP, 0x1234_5678n);
      const before = statusWord(m.cpu);
      runs(m, `${prefix} d9 32`);
      assertEquals(controlWord(m.cpu), 0x37f);
      // tags: R5 valid, R6 zero, R7 special (infinity), the others empty
      const head = prefix ? "7e030028ff93 7856 3300" : "7e03ffff0028ffffff93ffff 78563412 33000000";
      assertEquals(m.peek(DATA, head.replaceAll(" ", "").length / 2), head.replaceAll(" ", ""));
      runs(m, "db e3", `${prefix} d9 22`); // FNINIT, FLDENV
      assertEquals([controlWord(m.cpu), statusWord(m.cpu), abridgedTags(m.cpu)], [0x37e, before, 0xe0]);
    }
  });

  it("real-address mode: pointers are linear addresses, the opcode stands beside them", () => {
    const m = new FlatMachine(0, x87Procedures);
    m.cpu.set32(S.CR0, CR0_NE);
    setWords(m.cpu, MASKED, 0);
    m.cpu.set32(S.FCS, 0x1000);
    m.cpu.set64(S.FIP, 0x2345n);
    m.cpu.memory.u16[(m.cpu.base + S.FOP) >>> 1] = 0x5f1;
    m.set({ rsi: DATA });
    ok(m.run("d9 34")); // FNSTENV [SI], 16-bit
    assertEquals(m.peek(DATA, 14), "7f030000ffff4523f11500000000");
    ok(m.run("66 d9 34"));
    assertEquals(m.peek(DATA + 12, 8), "4523fffff1150000");
    ok(m.run("db e3"));
    ok(m.run("66 d9 24")); // FLDENV
    assertEquals(m.cpu.get64(S.FIP), 0x1_2345n);
  });

  it("FNSAVE stores the stack in its order and initializes; FRSTOR is its inverse", () => {
    const values = [f80(1), SNAN, 0n, INFINITY, DENORMAL];
    for (const [prefix, head] of [["", 28], ["66", 14]] as const) {
      const m = machine(values, 0x27a);
      runs(m, `${prefix} dd 32`);
      assertEquals([controlWord(m.cpu), statusWord(m.cpu), abridgedTags(m.cpu)], [0x37f, 0, 0]);
      assertEquals(m.peek(DATA + head, 10), "0000000000000080ff3f");
      runs(m, `${prefix} dd 22`);
      assertEquals([controlWord(m.cpu), stackOf(m)], [0x27a, values]);
    }
  });

  it("loading an image with an unmasked flag makes it pending", () => {
    const m = machine();
    m.poke(DATA, "7e030000 01000000 ffff0000".replaceAll(" ", "") + "00".repeat(16));
    runs(m, "d9 22");
    assertEquals(statusWord(m.cpu) & (FSW.ES | FSW.B), FSW.ES | FSW.B);
    assertEquals(m.run("9b")?.vector, 16);
  });

  it("FNSTCW, FNSTSW, reserved control bits", () => {
    const m = machine().poke(DATA, "ffff");
    runs(m, "d9 2a", "d9 3a");
    assertEquals(m.peek(DATA, 2), "7f1f");
    runs(m, "dd 3a");
    assertEquals(m.peek(DATA, 2), "0000");
  });

  it("MMX registers are the significands of the physical registers", () => {
    const m = machine([f80(1)]);
    assertEquals(m.cpu.get64(S.FPR + 7 * 16), 1n << 63n);
    assertEquals(readPhysical(m.cpu, 7), f80(1));
    assertEquals(fpConvert(F80, F32, readPhysical(m.cpu, 7), fpEnv()), 0x3f80_0000n);
  });
});
