import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import {
  F32,
  F64,
  F80,
  FP_ALL,
  FP_DE,
  FP_IE,
  FP_OE,
  FP_PE,
  FP_UE,
  FP_ZE,
  fpAdd,
  fpCompare,
  fpConvert,
  fpDefaultNaN,
  fpDiv,
  type FpEnv,
  fpEnv,
  type FpFormat,
  fpFromInt,
  fpInfinity,
  fpMul,
  type FpRounding,
  fpRoundToInt,
  fpSqrt,
  fpSub,
  fpToInt,
  fpUnpack,
} from "../../../hw/isa/softfloat.ts";

const view = new DataView(new ArrayBuffer(8));
function bits64(x: number): bigint {
  view.setFloat64(0, x);
  return view.getBigUint64(0);
}
function bits32(x: number): bigint {
  view.setFloat32(0, x);
  return BigInt(view.getUint32(0));
}
function double(a: bigint): number {
  view.setBigUint64(0, a);
  return view.getFloat64(0);
}
function single(a: bigint): number {
  view.setUint32(0, Number(a));
  return view.getFloat32(0);
}

/** xorshift64: the same corpus in every run. */
function generator(seed: bigint): () => bigint {
  let s = seed;
  return () => {
    s = BigInt.asUintN(64, s ^ (s << 13n));
    s ^= s >> 7n;
    s = BigInt.asUintN(64, s ^ (s << 17n));
    return s;
  };
}

/** Patterns that like to sit where something happens: extremes, near 1, neighbours, denormals; no NaNs. */
function corpus(fmt: FpFormat, count: number, seed: bigint): bigint[] {
  const next = generator(seed);
  const fieldBits = BigInt(fmt.precision - 1);
  const special = (1n << BigInt(fmt.exponentBits)) - 1n, bias = special >> 1n;
  const list: bigint[] = [0n, fpInfinity(fmt, false), bias << fieldBits, (1n << fieldBits) - 1n, 1n];
  while (list.length < count) {
    const r = next();
    const pick = r % 8n;
    const exponent = pick === 0n
      ? 0n
      : pick === 1n
      ? 1n + (r >> 8n) % 60n
      : pick === 2n
      ? special - 1n - (r >> 8n) % 60n
      : pick < 6n
      ? bias + (r >> 8n) % 30n - 15n
      : (r >> 8n) % special;
    let fraction = next() & ((1n << fieldBits) - 1n);
    if (next() % 3n === 0n) fraction &= ~((1n << (next() % fieldBits)) - 1n);
    list.push((next() & 1n) << BigInt(fmt.bits - 1) | exponent << fieldBits | fraction);
  }
  return list;
}

function isNaNPattern(fmt: FpFormat, a: bigint): boolean {
  const kind = fpUnpack(fmt, a).kind;
  return kind === "qnan" || kind === "snan";
}

/** A finite value as an exact integer multiple of 2^-3000 (larger than any product or quotient step needs here). */
const SCALE = 3000;
function scaled(fmt: FpFormat, a: bigint): bigint {
  const p = fpUnpack(fmt, a);
  const magnitude = p.significand << BigInt(p.exponent + SCALE);
  return p.sign ? -magnitude : magnitude;
}

const DOUBLES = corpus(F64, 400, 1n);
const FLOATS = corpus(F32, 400, 2n);

describe("round to nearest gives the host's doubles", () => {
  const operations: [string, typeof fpAdd, (a: number, b: number) => number][] = [
    ["add", fpAdd, (a, b) => a + b],
    ["sub", fpSub, (a, b) => a - b],
    ["mul", fpMul, (a, b) => a * b],
    ["div", fpDiv, (a, b) => a / b],
  ];
  for (const [name, op, host] of operations) {
    it(`f64 ${name}`, () => {
      const next = generator(BigInt(name.length) + 77n);
      for (const a of DOUBLES) {
        for (let i = 0; i < 12; i++) {
          const b = DOUBLES[Number(next() % BigInt(DOUBLES.length))]!;
          const got = op(F64, a, b, fpEnv()), want = host(double(a), double(b));
          if (Number.isNaN(want)) assertEquals(got, fpDefaultNaN(F64));
          else assertEquals(got, bits64(want), `${double(a)} ${name} ${double(b)}`);
        }
      }
    });
    // A double holds twice a float's precision and two bits more, so rounding twice is innocuous for these four.
    it(`f32 ${name}`, () => {
      const next = generator(BigInt(name.length) + 99n);
      for (const a of FLOATS) {
        for (let i = 0; i < 12; i++) {
          const b = FLOATS[Number(next() % BigInt(FLOATS.length))]!;
          const got = op(F32, a, b, fpEnv()), want = Math.fround(host(single(a), single(b)));
          if (Number.isNaN(want)) assertEquals(got, fpDefaultNaN(F32));
          else assertEquals(got, bits32(want), `${single(a)} ${name} ${single(b)}`);
        }
      }
    });
  }
  it("f64 sqrt, f64 to f32, integers", () => {
    for (const a of DOUBLES) {
      const x = double(a);
      const root = fpSqrt(F64, a, fpEnv());
      if (x < 0) assertEquals(root, fpDefaultNaN(F64));
      else assertEquals(root, bits64(Math.sqrt(x)));
      assertEquals(fpConvert(F64, F32, a, fpEnv()), bits32(Math.fround(x)));
      const truncated = Math.trunc(x);
      const env = fpEnv();
      const integer = fpToInt(F64, a, 32, env, true);
      if (Math.abs(truncated) <= 0x7fff_ffff) {
        assertEquals(BigInt.asIntN(32, integer), BigInt(truncated));
        assertEquals(env.flags, truncated === x ? 0 : FP_PE);
      } else if (truncated !== -0x8000_0000) assertEquals([integer, env.flags], [0x8000_0000n, FP_IE]);
      const down = fpRoundToInt(F64, a, fpEnv(), 1, false);
      assertEquals(down, bits64(Math.floor(x)));
    }
    for (const n of [1n, -1n, (1n << 53n) + 1n, -(1n << 63n), (1n << 63n) - 1n]) {
      assertEquals(fpFromInt(F64, n, fpEnv()), bits64(Number(n)));
    }
  });
});

describe("directed rounding and flags follow from exact arithmetic", () => {
  /** Checks one finite result against the exact value numerator / denominator. */
  function check(fmt: FpFormat, got: bigint, env: FpEnv, numerator: bigint, denominator: bigint): void {
    const kind = fpUnpack(fmt, got).kind;
    const positive = denominator > 0n ? numerator : -numerator,
      base = denominator > 0n ? denominator : -denominator;
    const largest = scaled(fmt, fpInfinity(fmt, false) - 1n) * base;
    const smallest = scaled(fmt, 1n << BigInt(fmt.precision - 1)) * base;
    const magnitude = positive < 0n ? -positive : positive;
    if (kind === "infinity") {
      assert(magnitude > largest, "infinity only beyond the largest finite number");
      assertEquals(env.flags, FP_OE | FP_PE);
      return;
    }
    const value = scaled(fmt, got) * base;
    const exact = value === positive;
    if (env.rounding === 1) assert(value <= positive, "down");
    if (env.rounding === 2) assert(value >= positive, "up");
    if (env.rounding === 3) assert((value < 0n ? -value : value) <= magnitude, "toward zero");
    // Nobody between: the neighbour on the other side of the exact value is not better.
    if (!exact && magnitude <= largest) {
      const away = (value < 0n ? -value : value) < magnitude;
      const step = away ? 1n : -1n;
      const absolute = got & ~(1n << BigInt(fmt.bits - 1));
      const neighbour = scaled(fmt, absolute + step) * base;
      const own = scaled(fmt, absolute) * base;
      assert(
        away ? neighbour > magnitude : neighbour < magnitude,
        "result is a neighbour of the exact value",
      );
      if (env.rounding === 0) {
        const mine = own > magnitude ? own - magnitude : magnitude - own;
        const other = neighbour > magnitude ? neighbour - magnitude : magnitude - neighbour;
        assert(mine < other || (mine === other && (got & 1n) === 0n), "nearest, ties to even");
      }
    }
    assertEquals((env.flags & FP_PE) !== 0, !exact, "PE");
    assertEquals(
      (env.flags & FP_OE) !== 0,
      magnitude > largest && !exact && value !== 0n && overflowed(),
      "OE",
    );
    if (exact || magnitude >= smallest) assertEquals(env.flags & FP_UE, 0, "no UE");
    else if (kind === "denormal" || kind === "zero") assertEquals(env.flags & FP_UE, FP_UE, "UE");

    /** Rounded at unbounded exponent, the exact value lies beyond the largest number. */
    function overflowed(): boolean {
      const ulp = largest - scaled(fmt, fpInfinity(fmt, false) - 2n) * base;
      const towardZero = env.rounding === 3 || env.rounding === (positive < 0n ? 2 : 1);
      return towardZero
        ? magnitude >= largest + ulp
        : env.rounding !== 0 || 2n * (magnitude - largest) >= ulp;
    }
  }

  for (const fmt of [F32, F64]) {
    it(fmt.name, () => {
      const finite = corpus(fmt, 260, 5n).filter((a) => fpUnpack(fmt, a).kind !== "infinity");
      const one = scaled(fmt, fpFromInt(fmt, 1n, fpEnv()));
      const next = generator(11n);
      for (const a of finite) {
        const b = finite[Number(next() % BigInt(finite.length))]!;
        const sa = scaled(fmt, a), sb = scaled(fmt, b);
        for (const rounding of [0, 1, 2, 3] as FpRounding[]) {
          const run = (op: typeof fpAdd): [bigint, FpEnv] => {
            const env = fpEnv({ rounding });
            const r = op(fmt, a, b, env);
            env.flags &= ~FP_DE;
            return [r, env];
          };
          check(fmt, ...run(fpAdd), sa + sb, 1n);
          check(fmt, ...run(fpSub), sa - sb, 1n);
          check(fmt, ...run(fpMul), sa * sb, one);
          if (sb !== 0n) check(fmt, ...run(fpDiv), sa * one, sb);
        }
      }
    });
  }
});

describe("special rules", () => {
  const one = bits64(1), qnan1 = 0x7ff8_0000_0000_0001n, snan2 = 0x7ff0_0000_0000_0002n;

  it("SSE: the first operand's NaN wins, quieted; a signaling NaN raises IE", () => {
    let env = fpEnv();
    assertEquals(fpAdd(F64, qnan1, snan2, env), qnan1);
    assertEquals(env.flags, FP_IE);
    env = fpEnv();
    assertEquals(fpAdd(F64, snan2, qnan1, env), 0x7ff8_0000_0000_0002n);
    env = fpEnv();
    assertEquals(fpAdd(F64, one, qnan1, env), qnan1);
    assertEquals(env.flags, 0);
  });

  it("x87: quiet beats signaling, then the larger significand, then the positive one", () => {
    const q = (sign: bigint, payload: bigint) => sign << 79n | 0x7fffn << 64n | 3n << 62n | payload;
    const s = (payload: bigint) => 0x7fffn << 64n | 2n << 62n | payload;
    assertEquals(fpAdd(F80, q(0n, 1n), q(0n, 2n), fpEnv()), q(0n, 2n));
    assertEquals(fpAdd(F80, q(0n, 2n), q(1n, 1n), fpEnv()), q(0n, 2n));
    assertEquals(fpAdd(F80, q(1n, 2n), q(0n, 2n), fpEnv()), q(0n, 2n));
    const env = fpEnv();
    assertEquals(fpMul(F80, s(7n), q(0n, 1n), env), q(0n, 1n));
    assertEquals(env.flags, FP_IE);
    assertEquals(fpMul(F80, s(7n), s(9n), fpEnv()), q(0n, 9n));
  });

  it("x87: unnormals and pseudo-infinities are invalid, pseudo-denormals are denormals", () => {
    const unnormal = 0x3fffn << 64n | 1n, pseudoInfinity = 0x7fffn << 64n, pseudoDenormal = 1n << 63n;
    for (const a of [unnormal, pseudoInfinity]) {
      const env = fpEnv();
      assertEquals(fpAdd(F80, a, 0n, env), fpDefaultNaN(F80));
      assertEquals(env.flags, FP_IE);
    }
    const env = fpEnv();
    assertEquals(fpAdd(F80, pseudoDenormal, 0n, env), 1n << 64n | 1n << 63n);
    assertEquals(env.flags, FP_DE);
  });

  it("invalid operations and division by zero", () => {
    const infinity = fpInfinity(F64, false), minusInfinity = fpInfinity(F64, true);
    const rows: [typeof fpAdd, bigint, bigint, bigint, number][] = [
      [fpAdd, infinity, minusInfinity, fpDefaultNaN(F64), FP_IE],
      [fpSub, infinity, infinity, fpDefaultNaN(F64), FP_IE],
      [fpMul, infinity, 0n, fpDefaultNaN(F64), FP_IE],
      [fpDiv, 0n, 0n, fpDefaultNaN(F64), FP_IE],
      [fpDiv, infinity, infinity, fpDefaultNaN(F64), FP_IE],
      [fpDiv, one, 1n << 63n, minusInfinity, FP_ZE],
      [fpDiv, 1n, 0n, infinity, FP_ZE],
      [fpDiv, infinity, 0n, infinity, 0],
    ];
    for (const [op, a, b, want, flags] of rows) {
      const env = fpEnv();
      assertEquals(op(F64, a, b, env), want);
      assertEquals(env.flags, flags);
    }
  });

  it("x - x is -0 only when rounding down", () => {
    for (const rounding of [0, 1, 2, 3] as FpRounding[]) {
      assertEquals(fpSub(F64, one, one, fpEnv({ rounding })), rounding === 1 ? 1n << 63n : 0n);
    }
  });

  it("tininess is detected after rounding", () => {
    // (1 - 2^-24) * 2^-126 is exact with 24 bits at unbounded exponent: tiny, and inexact as a denormal.
    const env = fpEnv();
    const smallest = 1n << 23n;
    const almostOne = bits32(1 - 2 ** -24);
    assertEquals(fpMul(F32, smallest, almostOne, env), smallest);
    assertEquals(env.flags, FP_PE | FP_UE);
    // (1 - 2^-26) * 2^-126 rounds to 2^-126 with 24 bits at unbounded exponent: not tiny.
    const wide = fpEnv();
    assertEquals(fpConvert(F64, F32, bits64(2 ** -126 * (1 - 2 ** -26)), wide), smallest);
    assertEquals(wide.flags, FP_PE);
  });

  it("an exact denormal result sets UE only when underflow is unmasked, and FTZ makes it zero", () => {
    const half = bits32(0.5), smallest = 1n << 23n;
    let env = fpEnv();
    assertEquals(fpMul(F32, smallest, half, env), 1n << 22n);
    assertEquals(env.flags, 0);
    env = fpEnv({ masks: FP_ALL & ~FP_UE });
    fpMul(F32, smallest, half, env);
    assertEquals(env.flags, FP_UE);
    env = fpEnv({ ftz: true });
    assertEquals(fpMul(F32, smallest | 1n << 31n, half, env), 1n << 31n);
    assertEquals(env.flags, FP_UE | FP_PE);
  });

  it("DAZ takes denormals for zeros and raises no DE", () => {
    let env = fpEnv();
    assertEquals(fpAdd(F32, 1n, 0n, env), 1n);
    assertEquals(env.flags, FP_DE);
    env = fpEnv({ daz: true });
    assertEquals(fpAdd(F32, 1n, 0n, env), 0n);
    assertEquals(fpDiv(F32, bits32(1), 1n << 31n | 5n, env), fpInfinity(F32, true));
    assertEquals(env.flags, FP_ZE);
  });

  it("an unmasked denormal stops before the computation: no later flags", () => {
    const env = fpEnv({ masks: FP_ALL & ~FP_DE });
    fpDiv(F32, 1n, bits32(3), env);
    assertEquals(env.flags, FP_DE);
  });

  it("comparison: quiet ones raise IE for signaling NaNs only", () => {
    assertEquals(fpCompare(F64, 0n, 1n << 63n, fpEnv(), true), 0);
    assertEquals(fpCompare(F64, bits64(-2), bits64(-1), fpEnv(), true), -1);
    assertEquals(fpCompare(F64, fpInfinity(F64, false), one, fpEnv(), true), 1);
    for (
      const [a, quiet, flags] of [[qnan1, true, 0], [qnan1, false, FP_IE], [snan2, true, FP_IE]] as const
    ) {
      const env = fpEnv();
      assertEquals(fpCompare(F64, one, a, env, quiet), 2);
      assertEquals(env.flags, flags);
    }
  });

  it("integer conversion at the borders", () => {
    const rows: [number, FpRounding, bigint, number][] = [
      [2147483647, 0, 0x7fff_ffffn, 0],
      [2147483647.5, 0, 0x8000_0000n, FP_IE],
      [2147483647.5, 1, 0x7fff_ffffn, FP_PE],
      [-2147483648.5, 0, 0x8000_0000n, FP_PE],
      [-2147483649, 0, 0x8000_0000n, FP_IE],
      [0.5, 0, 0n, FP_PE],
      [1.5, 0, 2n, FP_PE],
      [1e300, 0, 0x8000_0000n, FP_IE],
      [5e-324, 2, 1n, FP_PE],
    ];
    for (const [x, rounding, want, flags] of rows) {
      const env = fpEnv({ rounding });
      assertEquals(fpToInt(F64, bits64(x), 32, env, false), want, `${x}`);
      assertEquals(env.flags, flags, `${x}`);
    }
  });

  it("x87 precision control rounds to fewer bits and keeps the exponent range", () => {
    const f80 = (x: number) => fpConvert(F64, F80, bits64(x), fpEnv());
    const third24 = fpDiv(F80, f80(1), f80(3), fpEnv({ precision: 24 }));
    assertEquals(third24, f80(Math.fround(1 / 3)));
    const third53 = fpDiv(F80, f80(1), f80(3), fpEnv({ precision: 53 }));
    assertEquals(third53, f80(1 / 3));
    const tiny = fpMul(F80, f80(2 ** -1000), f80(2 ** -1000), fpEnv({ precision: 24 }));
    assertEquals(fpUnpack(F80, tiny).kind, "normal");
  });

  it("x87 unmasked overflow and underflow move the exponent by 24576", () => {
    const largest = fpInfinity(F80, false) - (1n << 64n) | (1n << 64n) - 1n;
    const huge = 0x7ffen << 64n | 1n << 63n;
    let env = fpEnv({ masks: FP_ALL & ~FP_OE });
    assertEquals(fpAdd(F80, huge, huge, env), (0x7fffn - 24576n) << 64n | 1n << 63n);
    assertEquals(env.flags, FP_OE);
    env = fpEnv();
    assertEquals(fpAdd(F80, huge, huge, env), fpInfinity(F80, false));
    assertEquals([env.flags, env.c1], [FP_OE | FP_PE, true]);
    env = fpEnv({ rounding: 3 });
    assertEquals(fpAdd(F80, huge, huge, env), largest);
    assertEquals([env.flags, env.c1], [FP_OE | FP_PE, false]);
    const smallest = 1n << 64n | 1n << 63n, half = 0x3ffen << 64n | 1n << 63n;
    env = fpEnv({ masks: FP_ALL & ~FP_UE });
    assertEquals(fpMul(F80, smallest, half, env), 24576n << 64n | 1n << 63n);
    assertEquals(env.flags, FP_UE);
  });

  it("C1 says that the magnitude was rounded up", () => {
    const f80 = (x: number) => fpConvert(F64, F80, bits64(x), fpEnv());
    for (const [rounding, c1] of [[1, false], [2, true]] as [FpRounding, boolean][]) {
      const env = fpEnv({ rounding });
      fpDiv(F80, f80(1), f80(3), env);
      assertEquals([env.c1, env.flags], [c1, FP_PE]);
    }
  });

  it("conversions move NaN payloads and quiet them", () => {
    const env = fpEnv();
    assertEquals(fpConvert(F32, F64, 0xff80_0001n, env), 0xfff8_0000_2000_0000n);
    assertEquals(env.flags, FP_IE);
    assert(isNaNPattern(F32, fpConvert(F64, F32, qnan1, fpEnv())));
    assertEquals(fpConvert(F80, F64, 0x7fffn << 64n, env), fpDefaultNaN(F64));
  });
});
