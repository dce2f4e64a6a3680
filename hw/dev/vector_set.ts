/**
 * A 256-bit register of the local APIC: IRR, ISR or TMR.
 *
 * Room: leaf of `hw/dev/`; imports nothing.
 *
 * @module
 */

/** A set of interrupt vectors. */
export class VectorSet {
  /** Eight words; vector v is bit v mod 32 of word v / 32. */
  readonly words: Int32Array = new Int32Array(8);

  /** The highest vector in the set, or −1. */
  get highest(): number {
    for (let i = 7; i >= 0; i--) {
      if (this.words[i] !== 0) return i * 32 + 31 - Math.clz32(this.words[i]!);
    }
    return -1;
  }
  /** Whether a vector is in the set. */
  has(vector: number): boolean {
    return (this.words[vector >>> 5]! & (1 << (vector & 31))) !== 0;
  }
  /** Puts a vector in. */
  add(vector: number): void {
    this.words[vector >>> 5] = this.words[vector >>> 5]! | (1 << (vector & 31));
  }
  /** Takes a vector out. */
  delete(vector: number): void {
    this.words[vector >>> 5] = this.words[vector >>> 5]! & ~(1 << (vector & 31));
  }
  /** Takes all vectors out. */
  clear(): void {
    this.words.fill(0);
  }
}
