/**
 * Every encoding of the vector rows on both engines from many states: each bit that the instruction leaves must be the same.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { FP_OPS, PERMUTE, permuteSources } from "../../../hw/isa/vector.ts";
import { makeInstructions, VectorMachine, type VectorState, vectorState } from "./vector_fixture.ts";

/** Deterministic 32-bit numbers. */
class Chance {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  next(): number {
    this.#state = (this.#state + 0x9e37_79b9) >>> 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 16), 0x85eb_ca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2_ae35);
    return (z ^ (z >>> 16)) >>> 0;
  }
  pick<T>(from: readonly T[]): T {
    return from[this.next() % from.length]!;
  }
}

/** Bit patterns at the seams of the formats: zeros, infinities, NaNs, smallest and largest, limits of integers. */
const SEAMS32 = [
  0,
  0x8000_0000,
  0x3f80_0000,
  0x7f80_0000,
  0xff80_0000,
  0x7fc0_0000,
  0x7f80_0001,
  1,
  0x007f_ffff,
  0x0080_0000,
  0x0080_0001,
  0x7f7f_ffff,
  0x4f00_0000,
  0xcf00_0000,
  0x5f00_0000,
  0x4b00_0001,
  0x3f00_0000,
  0x1f80_0000,
];
const SEAMS64 = [
  0n,
  1n << 63n,
  0x3ff0_0000_0000_0000n,
  0x7ff0_0000_0000_0000n,
  0xfff0_0000_0000_0000n,
  0x7ff8_0000_0000_0000n,
  0x7ff0_0000_0000_0001n,
  1n,
  0x000f_ffff_ffff_ffffn,
  0x0010_0000_0000_0000n,
  0x0010_0000_0000_0001n,
  0x7fef_ffff_ffff_ffffn,
  0x41e0_0000_0000_0000n,
  0xc1e0_0000_0020_0000n,
  0x43e0_0000_0000_0000n,
  0xc3e0_0000_0000_0000n,
  0x3810_0000_0000_0000n,
  0x380f_ffff_ffff_ffffn,
  0x47ef_ffff_f000_0000n,
  0x3fe0_0000_0000_0000n,
  0x1ff0_0000_0000_0000n,
];

function vector(chance: Chance): Uint8Array {
  const bytes = new Uint8Array(16), view = new DataView(bytes.buffer);
  for (let at = 0; at < 16; at += 4) view.setUint32(at, chance.next(), true);
  switch (chance.next() % 5) {
    case 0:
      return bytes;
    case 1:
      return bytes.map((value) => chance.pick([0, 1, 0x61, 0x62, 0x7f, 0x80, 0xff, value]));
    case 2:
    case 3:
      for (let at = 0; at < 16; at += 8) {
        const ordinary = (BigInt(0x3e0 + chance.next() % 0x40) << 52n) | (view.getBigUint64(at, true) >> 12n);
        view.setBigUint64(at, chance.next() & 1 ? ordinary : chance.pick(SEAMS64), true);
      }
      return bytes;
    default:
      for (let at = 0; at < 16; at += 4) {
        const ordinary = ((0x60 + chance.next() % 0x40) << 23) | (chance.next() >>> 9);
        view.setUint32(at, chance.next() & 1 ? ordinary : chance.pick(SEAMS32), true);
      }
      return bytes;
  }
}

function randomState(chance: Chance): VectorState {
  const low = () => new BigUint64Array(vector(chance).buffer)[0]!;
  const hex = () => vector(chance).toHex();
  // Default controls, the same with PE sticky, another rounding with DAZ and FZ, anything.
  const mxcsr = chance.pick([0x1f80, 0x1fa0, 0x1f80 | (chance.next() & 0xe040), chance.next() & 0xffff]);
  return vectorState({
    xmm: [hex(), hex(), hex()],
    mm: [low(), low(), low()],
    rax: low(),
    rcx: low(),
    rdx: chance.pick([0n, 3n, 16n, 0xffff_fffcn, low()]),
    mxcsr,
    flags: chance.next() & 0x8d5,
    memory: hex() + hex() + hex() + hex(),
  });
}

describe("generated code does what the reference does", () => {
  for (const trap of ["sse", "mmx"] as const) {
    it(`for every ${trap.toUpperCase()} encoding`, () => {
      const chance = new Chance(trap.length * 77 + trap.charCodeAt(0));
      const reference = new VectorMachine("reference"), wasm = new VectorMachine("wasm");
      let faults = 0, runs = 0;
      for (const imm of [0x00, 0x1b, 0x47, 0xe9]) {
        for (const { mnemonic, hex } of makeInstructions(trap, imm)) {
          for (let n = 0; n < 6; n++) {
            const state = randomState(chance);
            const expected = reference.run(hex, state);
            assertEquals(wasm.run(hex, state), expected, `${mnemonic} ${hex} ${JSON.stringify(state, show)}`);
            runs++;
            if (expected.fault >= 0) faults++;
          }
        }
      }
      assert(runs > 1000);
      if (trap === "sse") assert(faults > 10, "some states must raise #XM");
    });
  }
});

/** Shows bigints in JSON. */
function show(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? value.toString(16) : value;
}

describe("the tables of vector.ts", () => {
  it("name each operation once", () => assertEquals(new Set(FP_OPS).size, FP_OPS.length));
  it("give every permutation sixteen sources below 33", () => {
    for (const kind of Object.keys(PERMUTE) as (keyof typeof PERMUTE)[]) {
      for (let imm = 0; imm < 256; imm++) {
        const sources = permuteSources(kind, imm);
        assertEquals(sources.length, 16);
        assert(
          sources.every((source) => Number.isInteger(source) && source >= 0 && source <= 32),
          `${kind} ${imm}`,
        );
        if ("single" in PERMUTE[kind]) assert(sources.every((source) => source < 16 || source === 32), kind);
      }
    }
  });
});
