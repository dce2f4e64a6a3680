/**
 * Values worth computing with: integers near the edges, floating-point numbers of every class, and memory full of both.
 *
 * Room: `lab/silicon/`; imports the seeded generator.
 *
 * @module
 */
import { Random } from "../../hw/random.ts";

/** Chance, in the forms that a generator of tests wants it. */
export class Chance {
  readonly #random: Random;
  constructor(seed: number, stream: number) {
    this.#random = new Random(seed, stream);
  }
  /** 32 bits. */
  word(): number {
    return this.#random.next();
  }
  /** A whole number from 0 to `n` − 1. */
  below(n: number): number {
    return this.#random.next() % n;
  }
  /** True one time in `n`. */
  oneIn(n: number): boolean {
    return this.#random.next() % n === 0;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.#random.next() % list.length]!;
  }
}

/** A 64-bit integer: often small, a power of two, or near one. */
export function integer64(c: Chance): bigint {
  const random = () => (BigInt(c.word()) << 32n) | BigInt(c.word());
  const bit = 1n << BigInt(c.below(64));
  switch (c.below(9)) {
    case 0:
      return BigInt(c.below(3));
    case 1:
      return BigInt.asUintN(64, -1n - BigInt(c.below(3)));
    case 2:
      return bit;
    case 3:
      return bit - 1n;
    case 4:
      return BigInt.asUintN(64, -bit);
    case 5:
      return BigInt(c.below(256));
    case 6:
      return BigInt(c.word());
    case 7:
      return random() & random();
    default:
      return random();
  }
}

/** Fractions of `bits` bits: zero, its ends, halves, random. */
function fraction(c: Chance, bits: number): bigint {
  const all = (1n << BigInt(bits)) - 1n, high = 1n << BigInt(bits - 1);
  switch (c.below(8)) {
    case 0:
      return 0n;
    case 1:
      return all;
    case 2:
      return high;
    case 3:
      return 1n;
    case 4:
      return 1n << BigInt(c.below(bits));
    case 5:
      return all ^ ((1n << BigInt(c.below(bits))) - 1n);
    default:
      return BigInt.asUintN(bits, integer64(c) * 0x9e37_79b9_7f4a_7c15n);
  }
}

/** Biased exponents: special ones, those of small numbers, near the ends, random. */
function exponent(c: Chance, bits: number): bigint {
  const top = (1 << bits) - 1, bias = top >> 1;
  switch (c.below(8)) {
    case 0:
      return 0n;
    case 1:
      return BigInt(top);
    case 2:
      return BigInt(c.below(3));
    case 3:
      return BigInt(top - 1 - c.below(3));
    case 4:
    case 5:
      return BigInt(bias + c.below(9) - 4);
    case 6:
      return BigInt(Math.min(top, bias + c.below(70)));
    default:
      return BigInt(c.below(top + 1));
  }
}

/** A float of 32 or 64 bits. */
export function float(c: Chance, bits: 32 | 64): bigint {
  const e = bits === 32 ? 8 : 11, f = bits - 1 - e;
  return (BigInt(c.below(2)) << BigInt(bits - 1)) | (exponent(c, e) << BigInt(f)) | fraction(c, f);
}

/** A double-extended number. A few have the forms that processors since the 387 refuse. */
export function extended(c: Chance): bigint {
  const e = exponent(c, 15);
  let whole = e === 0n ? 0n : 1n;
  if (c.oneIn(16)) whole ^= 1n;
  return (BigInt(c.below(2)) << 79n) | (e << 64n) | (whole << 63n) | fraction(c, 63);
}

/** 64 bits for memory or half an XMM register. */
function quad(c: Chance): bigint {
  switch (c.below(4)) {
    case 0:
      return float(c, 64);
    case 1:
      return (float(c, 32) << 32n) | float(c, 32);
    default:
      return integer64(c);
  }
}

const QUADS = 4096, EXTENDEDS = 2048;

/** Ready-made values, so that a sequence costs little to set up. */
export class Pool {
  /** Two words each. */
  readonly quads = new Uint32Array(QUADS * 2);
  /** Three words each. */
  readonly extendeds = new Uint32Array(EXTENDEDS * 3);
  /** Memory contents; sequences take a window. */
  readonly memory = new Uint32Array(1 << 16);

  constructor(seed: number) {
    const c = new Chance(seed, 1);
    const put = (to: Uint32Array, at: number, value: bigint, words: number) => {
      for (let n = 0; n < words; n++) to[at + n] = Number((value >> BigInt(32 * n)) & 0xffff_ffffn);
    };
    for (let i = 0; i < QUADS; i++) put(this.quads, 2 * i, quad(c), 2);
    for (let i = 0; i < EXTENDEDS; i++) put(this.extendeds, 3 * i, extended(c), 3);
    for (let i = 0; i < this.memory.length; i += 2) put(this.memory, i, quad(c), 2);
    // Here and there an extended number, at 16-byte boundaries as those who store them like it.
    for (let i = 0; i < this.memory.length; i += 4) if (c.oneIn(4)) put(this.memory, i, extended(c), 3);
  }

  /** Copies a random 64-bit value to `to[at]`. */
  quad(c: Chance, to: Uint32Array, at: number): void {
    const i = 2 * c.below(QUADS);
    to[at] = this.quads[i]!;
    to[at + 1] = this.quads[i + 1]!;
  }
  /** Copies a random 80-bit value to `to[at]`. */
  extended(c: Chance, to: Uint32Array, at: number): void {
    const i = 3 * c.below(EXTENDEDS);
    for (let n = 0; n < 3; n++) to[at + n] = this.extendeds[i + n]!;
  }
  /** Fills `to` with a window of memory contents. */
  fill(c: Chance, to: Uint32Array): void {
    const at = c.below((this.memory.length - to.length) / 4) * 4;
    to.set(this.memory.subarray(at, at + to.length));
  }
}
