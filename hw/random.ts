/**
 * The seeded generator that all of a machine's chance comes from: xoshiro128** over 32-bit words, seeded by
 * splitmix32. Plain integer arithmetic, the same on every host.
 *
 * Room: leaf of `hw/`; imports nothing.
 *
 * @module
 */

/** A stream of pseudo-random 32-bit words. */
export class Random {
  readonly #s = new Int32Array(4);

  /**
   * Seeds the generator.
   *
   * @param seed Any number of 32 bits (higher bits are folded in). @param stream Distinguishes streams of one seed.
   */
  constructor(seed: number, stream = 0) {
    let x = (seed ^ Math.floor(seed / 0x1_0000_0000) ^ Math.imul(stream, 0x9e37_79b9)) | 0;
    for (let i = 0; i < 4; i++) {
      x = (x + 0x9e37_79b9) | 0;
      let z = x;
      z = Math.imul(z ^ (z >>> 16), 0x21f0_aaad);
      z = Math.imul(z ^ (z >>> 15), 0x735a_2d97);
      this.#s[i] = z ^ (z >>> 15);
    }
    if ((this.#s[0]! | this.#s[1]! | this.#s[2]! | this.#s[3]!) === 0) this.#s[0] = 1;
  }

  /** The next word, unsigned. */
  next(): number {
    const s = this.#s;
    const product = Math.imul(s[1]!, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9);
    const t = s[1]! << 9;
    s[2] = s[2]! ^ s[0]!;
    s[3] = s[3]! ^ s[1]!;
    s[1] = s[1]! ^ s[2]!;
    s[0] = s[0]! ^ s[3]!;
    s[2] = s[2]! ^ t;
    s[3] = (s[3]! << 11) | (s[3]! >>> 21);
    return result >>> 0;
  }

  /** A whole number in [low, high], evenly distributed up to 2^-32. */
  between(low: number, high: number): number {
    return low + Math.floor((this.next() / 0x1_0000_0000) * (high - low + 1));
  }

  /** Puts `items` in a random order, in place. */
  shuffle<T>(items: T[]): void {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.between(0, i);
      const kept = items[i]!;
      items[i] = items[j]!;
      items[j] = kept;
    }
  }

  /** The state as plain data, for a snapshot. */
  save(): readonly number[] {
    return [...this.#s];
  }
  /** Puts a saved state back. */
  load(state: readonly number[]): void {
    this.#s.set(state);
  }
}
