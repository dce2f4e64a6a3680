/**
 * Packed integer rows against small models on typed arrays, on both engines, with XMM and (where it exists) MMX registers.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { type EngineKind, makeInstructions, VectorMachine, vectorState } from "./vector_fixture.ts";

const ENGINES: readonly EngineKind[] = ["reference", "wasm"];
const machines = { reference: new VectorMachine("reference"), wasm: new VectorMachine("wasm") };

/** A small generator of test bytes: xorshift with a bias to the ends of the ranges. */
function* vectors(count: number): Generator<[Uint8Array, Uint8Array]> {
  let seed = 0x2545_f491;
  const next = () => {
    seed ^= seed << 13;
    seed ^= seed >>> 17;
    seed ^= seed << 5;
    return seed >>> 0;
  };
  const edges = [0x00, 0x01, 0x7f, 0x80, 0x81, 0xfe, 0xff];
  const one = () =>
    Uint8Array.from({ length: 16 }, () => next() % 3 === 0 ? edges[next() % edges.length]! : next() & 0xff);
  for (let n = 0; n < count; n++) {
    const a = one(), b = one();
    // Equal lanes would otherwise be rare.
    if (n % 4 === 0) b.set(a.subarray(4, 12), 4);
    yield [a, b];
  }
}

type Small = Int8Array | Uint8Array | Int16Array | Uint16Array | Int32Array | Uint32Array;
type SmallConstructor = new (buffer: ArrayBufferLike) => Small;
type Model = (a: Uint8Array, b: Uint8Array) => Uint8Array;

/** A model that computes lane by lane; the typed array's store wraps. */
function lanes(type: SmallConstructor, compute: (x: number, y: number) => number): Model {
  return (a, b) => {
    const x = new type(a.slice().buffer), y = new type(b.slice().buffer);
    for (let n = 0; n < x.length; n++) x[n] = compute(x[n]!, y[n]!);
    return new Uint8Array(x.buffer);
  };
}
function wideLanes(compute: (x: bigint, y: bigint) => bigint): Model {
  return (a, b) => {
    const x = new BigInt64Array(a.slice().buffer), y = new BigInt64Array(b.slice().buffer);
    for (let n = 0; n < x.length; n++) x[n] = compute(x[n]!, y[n]!);
    return new Uint8Array(x.buffer);
  };
}
const clamp = (low: number, high: number) => (value: number) => Math.max(low, Math.min(high, value));
const s8 = clamp(-128, 127), s16 = clamp(-32768, 32767), u8 = clamp(0, 255), u16 = clamp(0, 65535);
const mask = (holds: boolean) => holds ? -1 : 0;

/** Interleaves lanes of `bytes` bytes, from the lower or upper half of the operands. */
function unpack(bytes: number, upper: boolean): Model {
  return (a, b) => {
    const result: number[] = [];
    const first = upper ? a.length / 2 : 0;
    for (let at = first; at < first + a.length / 2; at += bytes) {
      result.push(...a.subarray(at, at + bytes), ...b.subarray(at, at + bytes));
    }
    return Uint8Array.from(result);
  };
}
/** Narrows the lanes of both operands, first operand first. */
function pack(from: SmallConstructor, to: SmallConstructor, saturate: (value: number) => number): Model {
  return (a, b) => {
    const values = [...new from(a.slice().buffer), ...new from(b.slice().buffer)].map(saturate);
    const result = new to(new ArrayBuffer(a.length));
    values.forEach((value, n) => result[n] = value);
    return new Uint8Array(result.buffer);
  };
}
/** Neighbouring lanes of both operands, first operand first. */
function horizontal(type: SmallConstructor, compute: (x: number, y: number) => number): Model {
  return (a, b) => {
    const values = [...new type(a.slice().buffer), ...new type(b.slice().buffer)];
    const result = new type(new ArrayBuffer(a.length));
    for (let n = 0; n < result.length; n++) result[n] = compute(values[2 * n]!, values[2 * n + 1]!);
    return new Uint8Array(result.buffer);
  };
}

const MODELS: Readonly<Record<string, Model>> = {
  PADDB: lanes(Int8Array, (x, y) => x + y),
  PADDW: lanes(Int16Array, (x, y) => x + y),
  PADDD: lanes(Int32Array, (x, y) => x + y),
  PADDQ: wideLanes((x, y) => x + y),
  PSUBB: lanes(Int8Array, (x, y) => x - y),
  PSUBW: lanes(Int16Array, (x, y) => x - y),
  PSUBD: lanes(Int32Array, (x, y) => x - y),
  PSUBQ: wideLanes((x, y) => x - y),
  PADDSB: lanes(Int8Array, (x, y) => s8(x + y)),
  PADDSW: lanes(Int16Array, (x, y) => s16(x + y)),
  PADDUSB: lanes(Uint8Array, (x, y) => u8(x + y)),
  PADDUSW: lanes(Uint16Array, (x, y) => u16(x + y)),
  PSUBSB: lanes(Int8Array, (x, y) => s8(x - y)),
  PSUBSW: lanes(Int16Array, (x, y) => s16(x - y)),
  PSUBUSB: lanes(Uint8Array, (x, y) => u8(x - y)),
  PSUBUSW: lanes(Uint16Array, (x, y) => u16(x - y)),
  PMULLW: lanes(Int16Array, (x, y) => x * y),
  PMULLD: lanes(Int32Array, (x, y) => Math.imul(x, y)),
  PMULHW: lanes(Int16Array, (x, y) => (x * y) >> 16),
  PMULHUW: lanes(Uint16Array, (x, y) => (x * y) / 65536),
  PMULHRSW: lanes(Int16Array, (x, y) => ((x * y >> 14) + 1) >> 1),
  PMULUDQ: wideLanes((x, y) => BigInt.asUintN(32, x) * BigInt.asUintN(32, y)),
  PMULDQ: wideLanes((x, y) => BigInt.asIntN(32, x) * BigInt.asIntN(32, y)),
  PMADDWD: lanes(Int32Array, (x, y) => (x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16)),
  PMADDUBSW: lanes(Int16Array, (x, y) => s16((x & 0xff) * (y << 24 >> 24) + (x >> 8 & 0xff) * (y >> 8))),
  PSADBW: wideLanes((x, y) => {
    let sum = 0n;
    for (let n = 0n; n < 64n; n += 8n) {
      const d = (x >> n & 0xffn) - (y >> n & 0xffn);
      sum += d < 0n ? -d : d;
    }
    return sum;
  }),
  PAVGB: lanes(Uint8Array, (x, y) => (x + y + 1) >> 1),
  PAVGW: lanes(Uint16Array, (x, y) => (x + y + 1) >> 1),
  PMINUB: lanes(Uint8Array, Math.min),
  PMINSB: lanes(Int8Array, Math.min),
  PMINUW: lanes(Uint16Array, Math.min),
  PMINSW: lanes(Int16Array, Math.min),
  PMINUD: lanes(Uint32Array, Math.min),
  PMINSD: lanes(Int32Array, Math.min),
  PMAXUB: lanes(Uint8Array, Math.max),
  PMAXSB: lanes(Int8Array, Math.max),
  PMAXUW: lanes(Uint16Array, Math.max),
  PMAXSW: lanes(Int16Array, Math.max),
  PMAXUD: lanes(Uint32Array, Math.max),
  PMAXSD: lanes(Int32Array, Math.max),
  PCMPEQB: lanes(Int8Array, (x, y) => mask(x === y)),
  PCMPEQW: lanes(Int16Array, (x, y) => mask(x === y)),
  PCMPEQD: lanes(Int32Array, (x, y) => mask(x === y)),
  PCMPEQQ: wideLanes((x, y) => BigInt(mask(x === y))),
  PCMPGTB: lanes(Int8Array, (x, y) => mask(x > y)),
  PCMPGTW: lanes(Int16Array, (x, y) => mask(x > y)),
  PCMPGTD: lanes(Int32Array, (x, y) => mask(x > y)),
  PCMPGTQ: wideLanes((x, y) => BigInt(mask(x > y))),
  PSIGNB: lanes(Int8Array, (x, y) => Math.sign(y) * x),
  PSIGNW: lanes(Int16Array, (x, y) => Math.sign(y) * x),
  PSIGND: lanes(Int32Array, (x, y) => Math.sign(y) * x),
  PABSB: lanes(Int8Array, (_, y) => Math.abs(y)),
  PABSW: lanes(Int16Array, (_, y) => Math.abs(y)),
  PABSD: lanes(Int32Array, (_, y) => Math.abs(y)),
  PAND: lanes(Int32Array, (x, y) => x & y),
  PANDN: lanes(Int32Array, (x, y) => ~x & y),
  POR: lanes(Int32Array, (x, y) => x | y),
  PXOR: lanes(Int32Array, (x, y) => x ^ y),
  ANDPS: lanes(Int32Array, (x, y) => x & y),
  ANDNPD: lanes(Int32Array, (x, y) => ~x & y),
  ORPD: lanes(Int32Array, (x, y) => x | y),
  XORPS: lanes(Int32Array, (x, y) => x ^ y),
  PUNPCKLBW: unpack(1, false),
  PUNPCKLWD: unpack(2, false),
  PUNPCKLDQ: unpack(4, false),
  PUNPCKLQDQ: unpack(8, false),
  PUNPCKHBW: unpack(1, true),
  PUNPCKHWD: unpack(2, true),
  PUNPCKHDQ: unpack(4, true),
  PUNPCKHQDQ: unpack(8, true),
  UNPCKLPS: unpack(4, false),
  UNPCKHPD: unpack(8, true),
  PACKSSWB: pack(Int16Array, Int8Array, s8),
  PACKUSWB: pack(Int16Array, Uint8Array, u8),
  PACKSSDW: pack(Int32Array, Int16Array, s16),
  PACKUSDW: pack(Int32Array, Uint16Array, u16),
  PHADDW: horizontal(Int16Array, (x, y) => x + y),
  PHADDD: horizontal(Int32Array, (x, y) => x + y),
  PHADDSW: horizontal(Int16Array, (x, y) => s16(x + y)),
  PHSUBW: horizontal(Int16Array, (x, y) => x - y),
  PHSUBD: horizontal(Int32Array, (x, y) => x - y),
  PHSUBSW: horizontal(Int16Array, (x, y) => s16(x - y)),
  PSHUFB: (a, b) => a.map((_, n) => b[n]! & 0x80 ? 0 : a[b[n]! & (a.length - 1)]!),
  PHMINPOSUW: (_, b) => {
    const words = [...new Uint16Array(b.slice().buffer)];
    const smallest = Math.min(...words);
    const result = new Uint16Array(8);
    result.set([smallest, words.indexOf(smallest)]);
    return new Uint8Array(result.buffer);
  },
};

/** A little-endian number as bytes, and back. */
function bytesOf(value: bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.of(value).buffer);
}
function numberOf(bytes: Uint8Array): bigint {
  return new BigUint64Array(bytes.slice(0, 8).buffer)[0]!;
}

describe("packed integers on XMM registers", () => {
  const instructions = makeInstructions("sse", 0).filter((i) => !i.memory);
  for (const [mnemonic, model] of Object.entries(MODELS)) {
    it(mnemonic, () => {
      const { hex } = instructions.find((i) => i.mnemonic === mnemonic && !i.encoding.includes("Ib"))!;
      for (const [a, b] of vectors(24)) {
        for (const engine of ENGINES) {
          const after = machines[engine].run(
            hex,
            vectorState({ xmm: ["00".repeat(16), a.toHex(), b.toHex()] }),
          );
          assertEquals(after.xmm[1], model(a, b).toHex(), `${engine}: ${a.toHex()} ${b.toHex()}`);
          assertEquals(after.xmm[2], b.toHex());
        }
      }
    });
  }
});

describe("packed integers on MMX registers", () => {
  const instructions = makeInstructions("mmx", 0).filter((i) => !i.memory && !i.encoding.includes("Ib"));
  for (const { mnemonic, hex } of instructions) {
    const model = MODELS[mnemonic];
    if (!model) continue;
    it(mnemonic, () => {
      for (const [a, b] of vectors(12)) {
        const x = a.slice(0, 8), y = b.slice(0, 8);
        for (const engine of ENGINES) {
          const after = machines[engine].run(hex, vectorState({ mm: [0n, numberOf(x), numberOf(y)] }));
          assertEquals(
            bytesOf(after.mm[1]).toHex(),
            model(x, y).toHex(),
            `${engine}: ${x.toHex()} ${y.toHex()}`,
          );
        }
      }
    });
  }
});

describe("packed shifts", () => {
  const value = 0x8123_4567_89ab_cdefn;
  const rows = [
    ["PSLLW", "660FF1CA", "660F71F1", 16, "left"],
    ["PSLLD", "660FF2CA", "660F72F1", 32, "left"],
    ["PSLLQ", "660FF3CA", "660F73F1", 64, "left"],
    ["PSRLW", "660FD1CA", "660F71D1", 16, "right"],
    ["PSRLD", "660FD2CA", "660F72D1", 32, "right"],
    ["PSRLQ", "660FD3CA", "660F73D1", 64, "right"],
    ["PSRAW", "660FE1CA", "660F71E1", 16, "sign"],
    ["PSRAD", "660FE2CA", "660F72E1", 32, "sign"],
  ] as const;
  const expected = (w: number, how: string, count: bigint): bigint => {
    let result = 0n;
    for (let at = 0; at < 64; at += w) {
      const lane = BigInt.asUintN(w, value >> BigInt(at));
      // A count past the width shifts everything out, for the sign kind all but the sign.
      const by = count > BigInt(w) ? BigInt(w) : count;
      const shifted = how === "left"
        ? lane << by
        : how === "right"
        ? lane >> by
        : BigInt.asIntN(w, lane) >> by;
      result |= BigInt.asUintN(w, shifted) << BigInt(at);
    }
    return result;
  };
  for (const [mnemonic, byRegister, byImmediate, w, how] of rows) {
    it(`${mnemonic} by register, counts past the width included`, () => {
      for (const count of [0n, 1n, BigInt(w - 1), BigInt(w), BigInt(w + 1), 0x100n, 1n << 32n, 1n << 63n]) {
        const xmm: [string, string, string] = [
          "00".repeat(16),
          bytesOf(value).toHex().repeat(2),
          // The upper half of the count operand is not looked at.
          bytesOf(count).toHex() + "ff".repeat(8),
        ];
        for (const engine of ENGINES) {
          const after = machines[engine].run(byRegister, vectorState({ xmm }));
          assertEquals(
            after.xmm[1],
            bytesOf(expected(w, how, count)).toHex().repeat(2),
            `${engine} ${count}`,
          );
        }
      }
    });
    it(`${mnemonic} by immediate`, () => {
      for (const count of [0, 1, w - 1, w, 255]) {
        const xmm: [string, string, string] = [
          "00".repeat(16),
          bytesOf(value).toHex().repeat(2),
          "00".repeat(16),
        ];
        for (const engine of ENGINES) {
          const after = machines[engine].run(
            byImmediate + count.toString(16).padStart(2, "0"),
            vectorState({ xmm }),
          );
          assertEquals(
            after.xmm[1],
            bytesOf(expected(w, how, BigInt(count))).toHex().repeat(2),
            `${engine} ${count}`,
          );
        }
      }
    });
  }
});

describe("permutations by an immediate", () => {
  const a = "000102030405060708090a0b0c0d0e0f", b = "101112131415161718191a1b1c1d1e1f";
  const cases: readonly (readonly [name: string, hex: string, result: string])[] = [
    ["PSHUFD reverses dwords", "660F70CA1B", "1c1d1e1f18191a1b1415161710111213"],
    ["PSHUFLW reverses the low words", "F20F70CA1B", "161714151213101118191a1b1c1d1e1f"],
    ["PSHUFHW reverses the high words", "F30F70CA1B", "10111213141516171e1f1c1d1a1b1819"],
    ["SHUFPS takes two from each", "0FC6CAE4", "000102030405060718191a1b1c1d1e1f"],
    ["SHUFPD takes one from each", "660FC6CA01", "08090a0b0c0d0e0f1011121314151617"],
    ["PALIGNR shifts the pair right", "660F3A0FCA05", "15161718191a1b1c1d1e1f0001020304"],
    ["PALIGNR by 20 reaches zeros", "660F3A0FCA14", "0405060708090a0b0c0d0e0f00000000"],
    ["PALIGNR by 32 is zero", "660F3A0FCA20", "00".repeat(16)],
    ["PALIGNR by 255 is zero", "660F3A0FCAFF", "00".repeat(16)],
    ["PSRLDQ by 3", "660F73D903", "030405060708090a0b0c0d0e0f000000"],
    ["PSLLDQ by 3", "660F73F903", "000000000102030405060708090a0b0c"],
    ["PSLLDQ by 16 is zero", "660F73F910", "00".repeat(16)],
    ["PBLENDW takes set words", "660F3A0ECA81", "101102030405060708090a0b0c0d1e1f"],
    ["BLENDPS takes set dwords", "660F3A0CCA06", "000102031415161718191a1b0c0d0e0f"],
    ["BLENDPD takes set quadwords", "660F3A0DCA02", "000102030405060718191a1b1c1d1e1f"],
    ["INSERTPS moves lane 3 to lane 1 and clears lane 0", "660F3A21CAD1", "000000001c1d1e1f08090a0b0c0d0e0f"],
  ];
  for (const [name, hex, result] of cases) {
    it(name, () => {
      for (const engine of ENGINES) {
        const after = machines[engine].run(hex, vectorState({ xmm: ["00".repeat(16), a, b] }));
        assertEquals(after.xmm[1], result, engine);
      }
    });
  }

  it("every immediate of every permutation is the same on both engines", () => {
    for (
      const opcode of ["660F70CA", "F20F70CA", "F30F70CA", "0FC6CA", "660F3A0FCA", "660F3A0ECA", "660F3A21CA"]
    ) {
      for (let imm = 0; imm < 256; imm++) {
        const hex = opcode + imm.toString(16).padStart(2, "0");
        const state = vectorState({ xmm: ["00".repeat(16), a, b] });
        assertEquals(machines.wasm.run(hex, state).xmm, machines.reference.run(hex, state).xmm, hex);
      }
    }
  });
});

describe("inserts, extracts and masks", () => {
  const a = "80018203840586078809a00bc00de00f";
  const run = (hex: string, changes = {}) =>
    ENGINES.map((engine) =>
      machines[engine].run(
        hex,
        vectorState({
          xmm: ["00".repeat(16), a, a],
          rcx: ~0n & 0xffffffffffffffffn,
          rdx: 0x1122334455667788n,
          ...changes,
        }),
      )
    );
  it("PINSRB takes the low byte of a register, the index modulo 16", () => {
    for (const after of run("660F3A20CA1F")) assertEquals(after.xmm[1], a.slice(0, 30) + "88");
  });
  it("PINSRQ", () => {
    for (const after of run("66480F3A22CA01")) {
      assertEquals(after.xmm[1], a.slice(0, 16) + "8877665544332211");
    }
  });
  it("PEXTRW clears the rest of a 64-bit register", () => {
    for (const after of run("660FC5CA02")) assertEquals(after.rcx, 0x0584n);
  });
  it("PEXTRB stores one byte to memory", () => {
    for (const after of run("660F3A140E0F")) assertEquals(after.memory.slice(0, 4), "0f00");
  });
  it("PMOVMSKB, MOVMSKPS, MOVMSKPD", () => {
    for (const after of run("660FD7CA")) assertEquals(after.rcx, 0b0101_0101_0101_0101n);
    for (const after of run("0F50CA")) assertEquals(after.rcx, 0b0000n);
    for (
      const after of run("660F50CA", {
        xmm: ["", "00".repeat(16), "00".repeat(15) + "80"].map((x) => x || a),
      })
    ) {
      assertEquals(after.rcx, 0b10n);
    }
  });
  it("PMOVSXBD and PMOVZXBD widen the low four bytes", () => {
    for (const after of run("660F3821CA")) assertEquals(after.xmm[1], "80ffffff0100000082ffffff03000000");
    for (const after of run("660F3831CA")) assertEquals(after.xmm[1], "80000000010000008200000003000000");
  });
  it("PBLENDVB chooses by the sign of XMM0's bytes", () => {
    const xmm = ["ff7f".repeat(8), "aa".repeat(16), "bb".repeat(16)];
    for (const after of run("660F3810CA", { xmm })) assertEquals(after.xmm[1], "bbaa".repeat(8));
  });
  it("PTEST sets ZF for disjoint operands, CF when the source is within the destination", () => {
    const flags = (x: string, y: string) =>
      run("660F3817CA", { xmm: ["00".repeat(16), x, y], flags: 0x8d5 }).map((s) => s.flags);
    assertEquals(flags("0f".repeat(16), "f0".repeat(16)), [0x40, 0x40]);
    assertEquals(flags("ff".repeat(16), "f0".repeat(16)), [0x01, 0x01]);
    assertEquals(flags("ff".repeat(16), "00".repeat(16)), [0x41, 0x41]);
    assertEquals(flags("f0".repeat(16), "ff".repeat(16)), [0x00, 0x00]);
  });
  it("MPSADBW sums four differences in eight windows", () => {
    const x = "0102030405060708090a0b0c0d0e0f10", y = "00000000000000000000000001010101";
    const words = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => ((i + 4) * 4 + 6).toString(16).padStart(2, "0") + "00");
    for (const after of run("660F3A42CA07", { xmm: ["00".repeat(16), x, y] })) {
      assertEquals(after.xmm[1], words.join(""));
    }
  });
});

describe("string comparison", () => {
  const text = (s: string) => new TextEncoder().encode(s.padEnd(16, "\0").slice(0, 16)).toHex();
  const compare = (hex: string, first: string, second: string, rax = 0n, rdx = 0n) =>
    ENGINES.map((engine) =>
      machines[engine].run(hex, vectorState({ xmm: ["00".repeat(16), text(first), text(second)], rax, rdx }))
    );
  it("finds a character of a set (equal any), least significant", () => {
    for (const after of compare("660F3A63CA00", "xyl", "hello")) {
      assertEquals(after.rcx, 2n);
      assertEquals(after.flags, 0x01 | 0x40 | 0x80);
    }
  });
  it("finds the most significant match with imm bit 6", () => {
    for (const after of compare("660F3A63CA40", "xyl", "hello")) assertEquals(after.rcx, 3n);
  });
  it("finds the first character out of ranges (negated, within the string only)", () => {
    for (const after of compare("660F3A63CA34", "azAZ", "word9x")) assertEquals(after.rcx, 4n);
  });
  it("finds a substring (equal ordered)", () => {
    for (const after of compare("660F3A63CA0C", "llo", "hello world hi")) assertEquals(after.rcx, 2n);
  });
  it("says 16 when nothing matches", () => {
    for (const after of compare("660F3A63CA0C", "zzz", "hello world, hi!")) {
      assertEquals(after.rcx, 16n);
      assertEquals(after.flags, 0x80);
    }
  });
  it("compares for equality (equal each, masked negation): no difference leaves CF clear", () => {
    for (const after of compare("660F3A63CA18", "same", "same")) assertEquals(after.flags & 0x1, 0);
    for (const after of compare("660F3A63CA18", "same", "sane")) assertEquals(after.rcx, 2n);
  });
  it("takes explicit lengths by magnitude, saturated", () => {
    for (const after of compare("660F3A61CA00", "lo", "hello", 1n, 0xffff_fffbn)) assertEquals(after.rcx, 2n);
    for (const after of compare("660F3A61CA00", "q", "hello", 1n, 0x8000_0000n)) assertEquals(after.rcx, 16n);
  });
  it("writes a byte mask to XMM0", () => {
    for (const after of compare("660F3A62CA40", "l", "hello")) {
      assertEquals(after.xmm[0], "0000ffff" + "00".repeat(12));
    }
    for (const after of compare("660F3A62CA00", "l", "hello")) {
      assertEquals(after.xmm[0], "0c" + "00".repeat(15));
    }
  });
});
