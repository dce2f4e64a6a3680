/**
 * SSE floating point on both engines: results against the host's arithmetic, special values, rounding, flags, and exceptions.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { type EngineKind, VectorMachine, vectorState } from "./vector_fixture.ts";

const ENGINES: readonly EngineKind[] = ["reference", "wasm"];
const machines = { reference: new VectorMachine("reference"), wasm: new VectorMachine("wasm") };

const MASKED = 0x1f80;
const IE = 1, DE = 2, ZE = 4, OE = 8, UE = 0x10, PE = 0x20, DAZ = 0x40, FZ = 0x8000;
const DOWN = 0x2000, UP = 0x4000, TO_ZERO = 0x6000;

const NAN64 = 0x7ff8_0000_0000_0000n, SNAN64 = 0x7ff0_0000_0000_0001n, DEFAULT64 = 0xfff8_0000_0000_0000n;
const INF64 = 0x7ff0_0000_0000_0000n, DENORMAL64 = 1n, MAX64 = 0x7fef_ffff_ffff_ffffn;
const SIGN64 = 1n << 63n;

/** The pattern of a double. */
function d(value: number): bigint {
  return new BigUint64Array(Float64Array.of(value).buffer)[0]!;
}
/** Sixteen bytes from two 64-bit halves. */
function pair(low: bigint, high: bigint): string {
  return new Uint8Array(BigUint64Array.of(low, high).buffer).toHex();
}
/** Sixteen bytes from four floats. */
function singles(values: readonly number[]): string {
  return new Uint8Array(Float32Array.from(values).buffer).toHex();
}
const ZERO = "00".repeat(16);

/** Runs `hex` with XMM1 = a, XMM2 = b on both engines, which must agree. */
function run(hex: string, a: string, b: string, mxcsr = MASKED) {
  const [reference, wasm] = ENGINES.map((engine) =>
    machines[engine].run(hex, vectorState({ xmm: [ZERO, a, b], mxcsr }))
  );
  assertEquals(wasm, reference, "engines differ");
  return reference!;
}

/** Runs a scalar double operation; gives the result's low half and the flags that it added. */
function scalar(hex: string, a: bigint, b: bigint, mxcsr = MASKED): [bigint, number] {
  const after = run(hex, pair(a, 0x55n), pair(b, 0x66n), mxcsr);
  assertEquals(after.fault, -1);
  assertEquals(after.xmm[1].slice(16), pair(0x55n, 0n).slice(0, 16), "the upper half must stay");
  return [new BigUint64Array(Uint8Array.fromHex(after.xmm[1]).buffer)[0]!, after.mxcsr & ~mxcsr];
}

const ADDSD = "F20F58CA", SUBSD = "F20F5CCA", MULSD = "F20F59CA", DIVSD = "F20F5ECA", SQRTSD = "F20F51CA";
const MINSD = "F20F5DCA", MAXSD = "F20F5FCA";

/** Ordinary numbers of many magnitudes, deterministic. */
function* numbers(count: number): Generator<[number, number]> {
  let seed = 12345;
  const next = () => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) / 2 ** 32;
  for (let n = 0; n < count; n++) {
    const one = () => (next() - 0.5) * 2 ** Math.floor(next() * 40 - 20) * (n % 3 === 0 ? 1 : 4096);
    yield n % 5 === 0 ? [Math.floor(next() * 100), Math.floor(next() * 100) + 1] : [one(), one()];
  }
}

describe("scalar and packed arithmetic on ordinary numbers", () => {
  const operations: readonly (readonly [string, string, (a: number, b: number) => number])[] = [
    ["ADD", "58", (a, b) => a + b],
    ["SUB", "5C", (a, b) => a - b],
    ["MUL", "59", (a, b) => a * b],
    ["DIV", "5E", (a, b) => a / b],
    ["SQRT", "51", (_, b) => Math.sqrt(Math.abs(b))],
  ];
  for (const [name, opcode, compute] of operations) {
    // With PE sticky the fast forms run, without it the exact ones.
    for (const mxcsr of [MASKED, MASKED | PE]) {
      it(`${name}PD, MXCSR ${mxcsr.toString(16)}`, () => {
        for (const [a, b] of numbers(40)) {
          const source = name === "SQRT" ? Math.abs(b) : b;
          const after = run(`660F${opcode}CA`, pair(d(a), d(-a)), pair(d(source), d(source)), mxcsr);
          assertEquals(after.xmm[1], pair(d(compute(a, source)), d(compute(-a, source))));
        }
      });
      it(`${name}PS, MXCSR ${mxcsr.toString(16)}`, () => {
        for (const [x, y] of numbers(40)) {
          const a = Math.fround(x), b = Math.fround(name === "SQRT" ? Math.abs(y) : y);
          const after = run(`0F${opcode}CA`, singles([a, -a, 1, a]), singles([b, b, b, 2]), mxcsr);
          // Rounding the correctly rounded double once more gives the correctly rounded single.
          assertEquals(after.xmm[1], singles([compute(a, b), compute(-a, b), compute(1, b), compute(a, 2)]));
        }
      });
    }
  }
  it("PE tells exact results from rounded ones", () => {
    assertEquals(scalar(ADDSD, d(1), d(2 ** -52)), [d(1 + 2 ** -52), 0]);
    assertEquals(scalar(ADDSD, d(1), d(2 ** -53)), [d(1), PE]);
    assertEquals(scalar(MULSD, d(3), d(7)), [d(21), 0]);
    assertEquals(scalar(MULSD, d(1 + 2 ** -52), d(1 + 2 ** -52)), [d(1 + 2 ** -51), PE]);
    assertEquals(scalar(DIVSD, d(21), d(7)), [d(3), 0]);
    assertEquals(scalar(DIVSD, d(1), d(3)), [d(1 / 3), PE]);
    assertEquals(scalar(SQRTSD, 0n, d(49)), [d(7), 0]);
    assertEquals(scalar(SQRTSD, 0n, d(2)), [d(Math.SQRT2), PE]);
  });
});

describe("special values", () => {
  const cases: readonly (readonly [string, string, bigint, bigint, bigint, number])[] = [
    ["inf − inf is invalid", SUBSD, INF64, INF64, DEFAULT64, IE],
    ["0 × inf is invalid", MULSD, 0n, INF64, DEFAULT64, IE],
    ["0 / 0 is invalid", DIVSD, 0n, 0n, DEFAULT64, IE],
    ["1 / −0 divides by zero", DIVSD, d(1), SIGN64, INF64 | SIGN64, ZE],
    ["√−1 is invalid", SQRTSD, 0n, d(-1), DEFAULT64, IE],
    ["√−0 is −0", SQRTSD, 0n, SIGN64, SIGN64, 0],
    ["a quiet NaN passes silently", ADDSD, NAN64 | 5n, d(1), NAN64 | 5n, 0],
    ["the first of two NaNs wins", ADDSD, NAN64 | 5n, NAN64 | 6n, NAN64 | 5n, 0],
    ["a signaling NaN is quieted", ADDSD, d(1), SNAN64, NAN64 | 1n, IE],
    ["the first NaN wins although the second signals", ADDSD, NAN64 | 5n, SNAN64, NAN64 | 5n, IE],
    ["a denormal operand is reported", ADDSD, DENORMAL64, DENORMAL64, 2n, DE],
    ["overflow gives infinity", MULSD, MAX64, d(2), INF64, OE | PE],
    ["inexact underflow", MULSD, 0x0010_0000_0000_0000n, d(0.3), 0x0004_cccc_cccc_cccdn, UE | PE],
    [
      "an exact tiny result is no underflow while masked",
      MULSD,
      0x0010_0000_0000_0000n,
      d(0.5),
      0x0008_0000_0000_0000n,
      0,
    ],
    ["MIN of two zeros is the source", MINSD, 0n, SIGN64, SIGN64, 0],
    ["MAX of two zeros is the source", MAXSD, SIGN64, 0n, 0n, 0],
    ["MIN with a quiet NaN is the source, and invalid", MINSD, NAN64, d(1), d(1), IE],
    ["MAX with a NaN source is that NaN unchanged", MAXSD, d(1), SNAN64, SNAN64, IE],
  ];
  for (const [name, hex, a, b, result, flags] of cases) {
    it(name, () => assertEquals(scalar(hex, a, b), [result, flags]));
  }
  it("DAZ makes denormal operands zeros and reports nothing", () => {
    assertEquals(scalar(ADDSD, DENORMAL64, d(1), MASKED | DAZ), [d(1), 0]);
    assertEquals(scalar(DIVSD, d(1), DENORMAL64, MASKED | DAZ), [INF64, ZE]);
  });
  it("FZ makes tiny results zeros and reports underflow", () => {
    assertEquals(scalar(MULSD, 0x0010_0000_0000_0000n | SIGN64, d(0.5), MASKED | FZ), [SIGN64, UE | PE]);
  });
  it("a result rounded up to the smallest normal number may still be tiny", () => {
    // (1 − 2^−53) × 2^−1022: one bit more than the significand has.
    const [result, flags] = scalar(MULSD, 0x0010_0000_0000_0000n, d(1 - 2 ** -53), MASKED | PE);
    assertEquals(result, 0x0010_0000_0000_0000n);
    assertEquals(flags, UE);
  });
});

describe("rounding modes", () => {
  const third = 1 / 3; // rounds down
  it("direct the result of DIVSD", () => {
    assertEquals(scalar(DIVSD, d(1), d(3), MASKED)[0], d(third));
    assertEquals(scalar(DIVSD, d(1), d(3), MASKED | DOWN)[0], d(third));
    assertEquals(scalar(DIVSD, d(1), d(3), MASKED | UP)[0], d(third) + 1n);
    assertEquals(scalar(DIVSD, d(-1), d(3), MASKED | TO_ZERO)[0], d(-third));
    assertEquals(scalar(DIVSD, d(-1), d(3), MASKED | DOWN)[0], d(-third) + 1n);
  });
  it("x − x is −0 only when rounding down", () => {
    assertEquals(scalar(SUBSD, d(1), d(1), MASKED)[0], 0n);
    assertEquals(scalar(SUBSD, d(1), d(1), MASKED | DOWN)[0], SIGN64);
  });
  it("ROUNDSD by its immediate, by MXCSR, silently", () => {
    const round = (imm: string, x: number, mxcsr = MASKED) => scalar(`660F3A0BCA${imm}`, 0n, d(x), mxcsr);
    assertEquals(round("00", 2.5), [d(2), PE]);
    assertEquals(round("01", -2.5), [d(-3), PE]);
    assertEquals(round("02", -2.5), [d(-2), PE]);
    assertEquals(round("03", 2.9), [d(2), PE]);
    assertEquals(round("08", 3.5), [d(4), 0]);
    assertEquals(round("0b", -0.5), [d(-0), 0]);
    assertEquals(round("04", 2.5, MASKED | UP), [d(3), PE]);
    assertEquals(round("0c", 2.5, MASKED | UP), [d(3), 0]);
    assertEquals(round("00", 7), [d(7), 0]);
  });
});

describe("comparison", () => {
  const predicates = ["EQ", "LT", "LE", "UNORD", "NEQ", "NLT", "NLE", "ORD"] as const;
  const truth: Record<(typeof predicates)[number], (order: "<" | "=" | ">" | "?") => boolean> = {
    EQ: (o) => o === "=",
    LT: (o) => o === "<",
    LE: (o) => o === "<" || o === "=",
    UNORD: (o) => o === "?",
    NEQ: (o) => o !== "=",
    NLT: (o) => o !== "<",
    NLE: (o) => o !== "<" && o !== "=",
    ORD: (o) => o !== "?",
  };
  const operands = [["<", d(1), d(2)], ["=", 0n, SIGN64], [">", d(2), d(1)], ["?", NAN64, d(1)]] as const;
  predicates.forEach((name, imm) => {
    it(`CMP${name}SD`, () => {
      for (const [order, a, b] of operands) {
        const [result, flags] = scalar(`F20FC2CA0${imm}`, a, b);
        assertEquals(result, truth[name](order) ? ~0n & 0xffff_ffff_ffff_ffffn : 0n, order);
        // LT, LE and their negations signal for quiet NaNs.
        assertEquals(flags, order === "?" && [1, 2, 5, 6].includes(imm) ? IE : 0, order);
      }
    });
  });
  it("COMISD and UCOMISD set ZF, PF, CF; only COMISD signals for a quiet NaN", () => {
    const flags = { "<": 0x01, "=": 0x40, ">": 0x00, "?": 0x45 };
    for (const [order, a, b] of operands) {
      const ordered = run("660F2FCA", pair(a, 0n), pair(b, 0n)),
        quiet = run("660F2ECA", pair(a, 0n), pair(b, 0n));
      assertEquals(ordered.flags, flags[order], order);
      assertEquals(quiet.flags, flags[order], order);
      assertEquals(ordered.mxcsr, MASKED | (order === "?" ? IE : 0));
      assertEquals(quiet.mxcsr, MASKED);
    }
  });
});

describe("conversion", () => {
  /** CVT(T)SD2SI ECX, XMM2 (or RCX). */
  const toInteger = (hex: string, x: bigint, mxcsr = MASKED): [bigint, number] => {
    const after = run(hex, ZERO, pair(x, 0n), mxcsr);
    return [after.rcx, after.mxcsr & ~mxcsr];
  };
  it("to 32-bit integers: rounded, truncated, indefinite", () => {
    assertEquals(toInteger("F20F2DCA", d(2.5)), [2n, PE]);
    assertEquals(toInteger("F20F2DCA", d(2.5), MASKED | UP), [3n, PE]);
    assertEquals(toInteger("F20F2CCA", d(-2.9)), [0xffff_fffen, PE]);
    assertEquals(toInteger("F20F2CCA", d(2147483648)), [0x8000_0000n, IE]);
    assertEquals(toInteger("F20F2CCA", d(-2147483648.9)), [0x8000_0000n, PE]);
    assertEquals(toInteger("F20F2DCA", d(2147483647.5)), [0x8000_0000n, IE]);
    assertEquals(toInteger("F20F2CCA", NAN64), [0x8000_0000n, IE]);
    assertEquals(toInteger("F20F2CCA", d(7)), [7n, 0]);
  });
  it("to 64-bit integers", () => {
    assertEquals(toInteger("F2480F2CCA", d(-(2 ** 63))), [1n << 63n, 0]);
    assertEquals(toInteger("F2480F2CCA", d(2 ** 63)), [1n << 63n, IE]);
    assertEquals(toInteger("F2480F2CCA", d(2 ** 62 + 2 ** 20)), [2n ** 62n + 2n ** 20n, 0]);
  });
  it("from integers", () => {
    const from = (hex: string, rdx: bigint) => {
      const [reference, wasm] = ENGINES.map((engine) => machines[engine].run(hex, vectorState({ rdx })));
      assertEquals(wasm, reference);
      return [new BigUint64Array(Uint8Array.fromHex(reference!.xmm[1]).buffer)[0]!, reference!.mxcsr & 0x3f];
    };
    assertEquals(from("F20F2ACA", 0xffff_ffffn), [d(-1), 0]);
    assertEquals(from("F2480F2ACA", 2n ** 53n + 1n), [d(2 ** 53), PE]);
    assertEquals(from("F2480F2ACA", 2n ** 53n), [d(2 ** 53), 0]);
    assertEquals(from("F30F2ACA", 16777217n), [0x4b80_0000n, PE]);
  });
  it("between formats: payloads of NaNs, overflow, denormals", () => {
    const after = run("F20F5ACA", ZERO, pair(SNAN64 | (3n << 40n), 0n));
    assertEquals(after.xmm[1].slice(0, 8), "0018c07f", "CVTSD2SS keeps the top of the payload and quiets");
    assertEquals(after.mxcsr, MASKED | IE);
    assertEquals(run("F20F5ACA", ZERO, pair(d(1e300), 0n)).mxcsr, MASKED | OE | PE);
    assertEquals(scalar("F30F5ACA", 0n, 1n), [d(2 ** -149), DE]);
  });
  it("CVTTPS2DQ and CVTDQ2PS on four lanes", () => {
    const after = run("F30F5BCA", ZERO, singles([1.9, -1.9, 3e9, 0]), MASKED | PE);
    assertEquals(after.xmm[1], "01000000" + "ffffffff" + "00000080" + "00000000");
    assertEquals(after.mxcsr, MASKED | PE | IE);
    assertEquals(run("0F5BCA", ZERO, after.xmm[1], MASKED | PE).xmm[1], singles([1, -1, -(2 ** 31), 0]));
  });
});

describe("horizontal operations and dot products", () => {
  it("HADDPS, HSUBPD, ADDSUBPS", () => {
    assertEquals(
      run("F20F7CCA", singles([1, 2, 3, 4]), singles([5, 6, 7, 8])).xmm[1],
      singles([3, 7, 11, 15]),
    );
    assertEquals(run("660F7DCA", pair(d(5), d(3)), pair(d(1), d(9))).xmm[1], pair(d(2), d(-8)));
    assertEquals(
      run("F20FD0CA", singles([1, 2, 3, 4]), singles([5, 6, 7, 8])).xmm[1],
      singles([-4, 8, -4, 12]),
    );
  });
  it("DPPS and DPPD take the lanes of imm[7:4] and write those of imm[3:0]", () => {
    const a = singles([1, 2, 3, 4]), b = singles([10, 100, 1000, 10000]);
    assertEquals(run("660F3A40CAFF", a, b).xmm[1], singles([43210, 43210, 43210, 43210]));
    assertEquals(run("660F3A40CA52", a, b).xmm[1], singles([0, 3010, 0, 0]));
    assertEquals(run("660F3A41CA31", pair(d(2), d(3)), pair(d(5), d(7))).xmm[1], pair(d(31), 0n));
  });
});

describe("reciprocal approximations", () => {
  it("stay within 1.5 × 2^−12 and raise nothing", () => {
    for (const [x] of numbers(60)) {
      const a = Math.fround(Math.abs(x) + 1e-6);
      const after = run("0F53CA", ZERO, singles([a, -a, a, a]));
      const [r, minus] = new Float32Array(Uint8Array.fromHex(after.xmm[1]).buffer);
      assert(Math.abs(r! * a - 1) < 1.5 * 2 ** -12, `1/${a} is not ${r}`);
      assertEquals(minus, -r!);
      const root = new Float32Array(
        Uint8Array.fromHex(run("0F52CA", ZERO, singles([a, a, a, a])).xmm[1]).buffer,
      )[0]!;
      assert(Math.abs(root * Math.sqrt(a) - 1) < 1.5 * 2 ** -12, `1/√${a} is not ${root}`);
      assertEquals(after.mxcsr, MASKED);
    }
  });
  it("of zeros, infinities, denormals and negative numbers", () => {
    const of = (
      hex: string,
      values: number[],
    ) => [...new Float32Array(Uint8Array.fromHex(run(hex, ZERO, singles(values)).xmm[1]).buffer)];
    assertEquals(of("0F53CA", [0, -Infinity, 2 ** -149, 2 ** 127]), [Infinity, -0, Infinity, 0]);
    assertEquals(of("0F52CA", [-0, Infinity, -1, 2 ** -149]), [-Infinity, 0, NaN, Infinity]);
  });
});

describe("exceptions", () => {
  const XM = 19, UD = 6;
  const unmask = (flags: number) => MASKED & ~(flags << 7);
  it("an unmasked exception sets its flag, raises #XM and leaves the registers", () => {
    const a = pair(d(1), 7n), after = run(DIVSD, a, pair(0n, 0n), unmask(ZE));
    assertEquals(after.fault, XM);
    assertEquals(after.mxcsr, unmask(ZE) | ZE);
    assertEquals(after.xmm[1], a);
  });
  it("without CR4.OSXMMEXCPT it is #UD", () => {
    for (const engine of ENGINES) {
      const machine = machines[engine];
      machine.cpu.set32(0x238, 0x200);
      const after = machine.run(DIVSD, vectorState({ xmm: [ZERO, pair(d(1), 0n), ZERO], mxcsr: unmask(ZE) }));
      machine.cpu.set32(0x238, 0x600);
      assertEquals(after.fault, UD);
      assertEquals(after.mxcsr, unmask(ZE) | ZE);
    }
  });
  it("an unmasked exception before the computation hides those after it", () => {
    // Lane 0 divides by zero, lane 1 is inexact.
    const after = run("660F5ECA", pair(d(1), d(1)), pair(0n, d(3)), unmask(ZE));
    assertEquals([after.fault, after.mxcsr & 0x3f], [XM, ZE]);
    // Masked, both are reported.
    assertEquals(run("660F5ECA", pair(d(1), d(1)), pair(0n, d(3))).mxcsr & 0x3f, ZE | PE);
  });
  it("an unmasked exception after the computation comes with the flags of all lanes", () => {
    const after = run("660F5ECA", pair(d(1), d(1)), pair(0n, d(3)), unmask(PE));
    assertEquals([after.fault, after.mxcsr & 0x3f], [XM, ZE | PE]);
  });
  it("with underflow unmasked, a tiny result counts although it is exact", () => {
    const after = run(MULSD, pair(0x0010_0000_0000_0000n, 0n), pair(d(0.5), 0n), unmask(UE));
    assertEquals([after.fault, after.mxcsr & 0x3f], [XM, UE]);
  });
  it("an old sticky flag does not raise", () => {
    assertEquals(run(ADDSD, pair(d(1), 0n), pair(d(2), 0n), unmask(ZE) | ZE).fault, -1);
  });
});
