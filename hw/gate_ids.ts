/**
 * Names of continuations: 64-bit numbers that nobody who sees some of them can tell the next of.
 *
 * Room: leaf of `hw/`; imports nothing. The stream is ChaCha with 8 rounds under a key made from the machine's seed, so a run
 * repeats bit for bit, while a guest that has seen ids (or anything else that the machine drew, which is
 * another generator) learns nothing about the others.
 *
 * @module
 */

/** "expand 32-byte k", the constants of ChaCha. */
const CONSTANTS = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574] as const;
/** Words in a block. */
const BLOCK_WORDS = 16;
/** Double rounds: 8 rounds in all. */
const DOUBLE_ROUNDS = 4;

/** A stream of unguessable 64-bit numbers, drawn as pairs of 32-bit halves. */
export class GateIds {
  readonly #state = new Uint32Array(BLOCK_WORDS);
  readonly #block = new Uint32Array(BLOCK_WORDS);
  #used = BLOCK_WORDS;
  /** Halves of the number that {@link draw} drew last, unsigned. */
  low = 0;
  high = 0;

  /** @param key Up to eight 32-bit words. Missing ones are zero. */
  constructor(key: readonly number[]) {
    this.#state.set(CONSTANTS);
    for (let i = 0; i < 8; i++) this.#state[4 + i] = key[i] ?? 0;
  }

  /** Draws the next number into {@link low} and {@link high}; never zero. */
  draw(): void {
    do {
      if (this.#used === BLOCK_WORDS) this.#refill();
      this.low = this.#block[this.#used]!;
      this.high = this.#block[this.#used + 1]!;
      this.#used += 2;
    } while ((this.low | this.high) === 0);
  }

  #refill(): void {
    const state = this.#state, x = this.#block;
    x.set(state);
    for (let i = 0; i < DOUBLE_ROUNDS; i++) {
      for (let c = 0; c < 4; c++) quarterRound(x, c, c + 4, c + 8, c + 12);
      for (let c = 0; c < 4; c++) {
        quarterRound(x, c, 4 + ((c + 1) & 3), 8 + ((c + 2) & 3), 12 + ((c + 3) & 3));
      }
    }
    for (let i = 0; i < BLOCK_WORDS; i++) x[i] = x[i]! + state[i]!;
    state[12] = state[12]! + 1;
    if (state[12] === 0) state[13] = state[13]! + 1;
    this.#used = 0;
  }
}

function quarterRound(x: Uint32Array, a: number, b: number, c: number, d: number): void {
  x[a] = x[a]! + x[b]!;
  x[d] = rotate(x[d]! ^ x[a]!, 16);
  x[c] = x[c]! + x[d]!;
  x[b] = rotate(x[b]! ^ x[c]!, 12);
  x[a] = x[a]! + x[b]!;
  x[d] = rotate(x[d]! ^ x[a]!, 8);
  x[c] = x[c]! + x[d]!;
  x[b] = rotate(x[b]! ^ x[c]!, 7);
}

function rotate(word: number, n: number): number {
  return (word << n) | (word >>> (32 - n));
}
