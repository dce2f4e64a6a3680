/**
 * What a sequence begins with and what it leaves, in one flat form for the host's processor and the simulated ones.
 *
 * Room: `lab/silicon/`; imports nothing.
 *
 * @module
 */

/** Word (u32) offsets in {@link Registers.words}. */
export const W = {
  /** 16 × 2 words. */
  gpr: 0,
  flags: 32,
  mxcsr: 33,
  fcw: 34,
  fsw: 35,
  /** Abridged: bit i says that physical register i is not empty. */
  ftw: 36,
  /** 8 × 3 words: ST(0) … ST(7), the third word 16 bits. */
  st: 37,
  /** 16 × 4 words. */
  xmm: 61,
} as const;
/** Words in all. */
export const REGISTER_WORDS = W.xmm + 64;

/** Registers, as one array of words. */
export type Registers = Uint32Array<ArrayBuffer>;

/** How a sequence ended. */
export interface Ending {
  /** Exception vector, or −1 when the end of the sequence was reached. */
  readonly vector: number;
  /** Error code; 0 where the exception has none. */
  readonly code: number;
  /** Address of the faulting instruction (of the end, without a fault). */
  readonly rip: number;
  /** CR2 after a page fault, else 0. */
  readonly cr2: number;
}

/** What a sequence left. */
export interface Outcome {
  ending: Ending;
  readonly registers: Registers;
  /** The writable memory. */
  readonly data: Uint32Array<ArrayBuffer>;
}

/** Copies registers out of an FXSAVE image: `at` is a word offset. General registers and flags are not in it. */
export function fromFx(words: Uint32Array, at: number, to: Registers): void {
  to[W.fcw] = words[at]! & 0xffff;
  to[W.fsw] = words[at]! >>> 16;
  to[W.ftw] = words[at + 1]! & 0xff;
  to[W.mxcsr] = words[at + 6]!;
  for (let i = 0; i < 8; i++) {
    to[W.st + 3 * i] = words[at + 8 + 4 * i]!;
    to[W.st + 3 * i + 1] = words[at + 9 + 4 * i]!;
    to[W.st + 3 * i + 2] = words[at + 10 + 4 * i]! & 0xffff;
  }
  for (let i = 0; i < 64; i++) to[W.xmm + i] = words[at + 40 + i]!;
}

/** The other way; the rest of the image is zeros. */
export function toFx(from: Registers, words: Uint32Array, at: number): void {
  words.fill(0, at, at + 128);
  words[at] = from[W.fcw]! | (from[W.fsw]! << 16);
  words[at + 1] = from[W.ftw]!;
  words[at + 6] = from[W.mxcsr]!;
  for (let i = 0; i < 8; i++) {
    words[at + 8 + 4 * i] = from[W.st + 3 * i]!;
    words[at + 9 + 4 * i] = from[W.st + 3 * i + 1]!;
    words[at + 10 + 4 * i] = from[W.st + 3 * i + 2]!;
  }
  for (let i = 0; i < 64; i++) words[at + 40 + i] = from[W.xmm + i]!;
}
