/**
 * The comparison: batches of sequences on the host, then on every engine; the first difference is narrowed down.
 *
 * Room: `lab/silicon/`; imports the rest of the room.
 *
 * @module
 */
import type { EngineKind } from "../../hw/machine.ts";
import { type Case, Generator } from "./generator.ts";
import { Guest, modelLike } from "./guest.ts";
import { CODE, DATA, DATA_BYTES, FIXED_BYTES, SLOT_BYTES, SLOTS } from "./layout.ts";
import { HostProcessor } from "./native.ts";
import { MXCSR_MM } from "./rules.ts";
import { assemble, type Assembled } from "./sequence.ts";
import { type Outcome, REGISTER_WORDS, W } from "./state.ts";
import { Pool } from "./values.ts";

/** What to compare. */
export interface FuzzOptions {
  readonly seed: number;
  /** Number of the first case, and how many. */
  readonly first: number;
  readonly count: number;
  readonly engines: readonly EngineKind[];
  /** Mnemonics to generate; none for all. */
  readonly only: readonly string[];
  /** CPUID features that the engines' processor lacks though the host has them: for tests of this comparison itself. */
  readonly without?: readonly string[];
  /** Called after each batch with the number of cases done. */
  readonly progress?: (done: number) => void;
}

/** One difference. */
export interface Difference {
  readonly seed: number;
  readonly number: number;
  readonly engine: EngineKind;
  readonly code: Uint8Array;
  readonly address: number;
  /** What differs, host first. */
  readonly lines: readonly string[];
}

interface Wrong {
  readonly number: number;
  readonly guest: Guest;
  readonly lines: readonly string[];
}

/** The flags that are compared: status, DF, AC. */
const FLAGS = 0x4_0cd5;
/** One batch fills all slots once. */
const BATCH = SLOTS;

/** Compares sequences; gives the differences found. */
export class Fuzzer {
  readonly #host = new HostProcessor();
  readonly #guests: readonly Guest[];
  readonly #generator: Generator;
  readonly #options: FuzzOptions;
  /** How often the host ended with each vector; −1 is no fault. */
  readonly endings = new Map<number, number>();

  /** @throws {Error} when the host's address space has no room. */
  constructor(options: FuzzOptions) {
    this.#options = options;
    const model = modelLike((leaf, subleaf) => this.#host.cpuid(leaf, subleaf));
    const pool = new Pool(options.seed);
    this.#generator = new Generator(options.seed, pool, model.features, options.only);
    const features = new Set(model.features);
    for (const feature of options.without ?? []) features.delete(feature);
    this.#guests = options.engines.map((engine) => new Guest(engine, { ...model, features }));
    const fixed = new Uint8Array(pool.memory.buffer.slice(0, FIXED_BYTES));
    this.#host.setFixed(fixed);
    for (const guest of this.#guests) guest.setFixed(fixed);
  }

  /** Number of encodings that sequences are made of. */
  get encodings(): number {
    return this.#generator.encodings;
  }

  /** Runs everything, up to `most` differences. */
  run(most = 1): Difference[] {
    const { first, count } = this.#options;
    const found: Difference[] = [];
    for (let done = 0; done < count && found.length < most; done += BATCH) {
      const size = Math.min(BATCH, count - done);
      for (const { number, guest, lines } of this.#batch(first + done, size)) {
        if (found.length < most) found.push(this.#narrow(number, guest, lines));
      }
      this.#options.progress?.(done + size);
    }
    return found;
  }

  readonly #datas = Array.from({ length: BATCH }, () => new Uint32Array(DATA_BYTES / 4));
  readonly #kept = Array.from({ length: BATCH }, () => ({
    registers: new Uint32Array(REGISTER_WORDS),
    data: new Uint32Array(DATA_BYTES / 4),
  }));

  /** Cases that differ, with the first engine on which they do. */
  #batch(first: number, size: number): Wrong[] {
    const cases: Case[] = [], codes: Assembled[] = [];
    for (let i = 0; i < size; i++) {
      const one = this.#generator.make(first + i, this.#datas[i]!);
      cases.push(one);
      codes.push(assembled(one, addressOf(first + i)));
    }
    const expected: Outcome[] = [];
    this.#host.withSignals(() => {
      for (let i = 0; i < size; i++) {
        const outcome = this.#host.run(
          codes[i]!.code,
          addressOf(first + i),
          cases[i]!.registers,
          cases[i]!.data,
        );
        const kept = this.#kept[i]!;
        kept.registers.set(outcome.registers);
        kept.data.set(outcome.data);
        expected.push({ ending: outcome.ending, ...kept });
      }
    });
    const wrong: Wrong[] = [];
    for (const guest of this.#guests) {
      guest.forget();
      for (let i = 0; i < size; i++) guest.write(codes[i]!.code, addressOf(first + i));
      for (let i = 0; i < size; i++) {
        const outcome = guest.run(addressOf(first + i), cases[i]!.registers, cases[i]!.data);
        level(cases[i]!, codes[i]!, addressOf(first + i), expected[i]!, outcome);
        if (isEqual(expected[i]!, outcome)) continue;
        wrong.push({ number: first + i, guest, lines: explain(cases[i]!, expected[i]!, outcome) });
      }
    }
    for (const { ending } of expected) {
      this.endings.set(ending.vector, (this.endings.get(ending.vector) ?? 0) + 1);
    }
    return wrong;
  }

  /** Leaves out what is not needed for the difference. */
  #narrow(number: number, guest: Guest, before: readonly string[]): Difference {
    const one = this.#generator.make(number, this.#datas[0]!);
    let keep = one.items.map((_, i) => i);
    let lines = this.#differences(one, keep, guest);
    const { engine } = guest, { seed } = this.#options;
    if (lines.length === 0) lines = ["not seen again when the sequence ran alone", ...before];
    else {
      for (let i = keep.length - 1; i >= 0; i--) {
        const fewer = keep.filter((_, n) => n !== i);
        const still = this.#differences(one, fewer, guest);
        if (still.length > 0) [keep, lines] = [fewer, still];
      }
    }
    const { code, offsets } = assemble(one.items, CODE, keep)!;
    return { seed, number, engine, code: code.subarray(0, offsets.at(-1)), address: CODE, lines };
  }

  #differences(one: Case, keep: readonly number[], guest: Guest): string[] {
    const made = assemble(one.items, CODE, keep);
    if (made === undefined) return [];
    let expected!: Outcome;
    this.#host.withSignals(() => {
      const outcome = this.#host.run(made.code, CODE, one.registers, one.data);
      expected = { ending: outcome.ending, registers: outcome.registers.slice(), data: outcome.data.slice() };
    });
    guest.forget();
    guest.write(made.code, CODE);
    const outcome = guest.run(CODE, one.registers, one.data);
    level(one, made, CODE, expected, outcome, keep);
    return explain(one, expected, outcome);
  }

  /** Gives the host's address space back. */
  close(): void {
    this.#host.close();
  }
}

function addressOf(number: number): number {
  return CODE + (number % SLOTS) * SLOT_BYTES;
}

/** Short jumps always reach in a whole sequence, or the item would not have been made. */
function assembled(one: Case, address: number): Assembled {
  const made = assemble(one.items, address);
  if (made !== undefined) return made;
  // A short jump does not reach: leave out the last items.
  for (let n = one.items.length - 1; n >= 0; n--) {
    const less = assemble(one.items, address, one.items.map((_, i) => i).slice(0, n));
    if (less !== undefined) return less;
  }
  throw new Error("An empty sequence cannot be assembled");
}

const ALIGNMENT_CHECK = 17, PAGE_FAULT = 14;

function forget(from: Outcome, to: Outcome): void {
  to.ending = from.ending;
  to.registers.set(from.registers);
  to.data.set(from.data);
}

/** Makes equal what is not compared: `to` is changed. */
function level(
  one: Case,
  made: Assembled,
  address: number,
  from: Outcome,
  to: Outcome,
  keep?: readonly number[],
): void {
  const r = from.registers, s = to.registers;
  let flags = FLAGS;
  if (from.ending.vector >= 0) {
    const offset = from.ending.rip - address;
    let n = made.offsets.length - 2;
    while (n > 0 && made.offsets[n]! > offset) n--;
    const item = one.items[keep?.[n] ?? n];
    if (item !== undefined) {
      flags &= ~item.undefinedFlags;
      if (item.looseX87) s.set(r.subarray(W.fsw, W.xmm), W.fsw);
      if (item.looseOrder && from.ending.vector === PAGE_FAULT) {
        to.ending = { ...to.ending, cr2: from.ending.cr2 };
      }
      const { vector } = from.ending;
      if (
        (item.looseAlignment && vector === ALIGNMENT_CHECK) || (item.looseFaults && vector === PAGE_FAULT)
      ) {
        forget(from, to);
      }
    }
  }
  if (r[W.mxcsr]! & MXCSR_MM) forget(from, to);
  s[W.flags] = (s[W.flags]! & flags) | (r[W.flags]! & ~flags);
  // AMD looks at the alignment before the translation, Intel after it. With either fault nothing has happened.
  if (from.ending.vector === ALIGNMENT_CHECK && to.ending.vector === PAGE_FAULT) to.ending = from.ending;
}

function isEqual(a: Outcome, b: Outcome): boolean {
  const x = a.ending, y = b.ending;
  if (x.vector !== y.vector || x.code !== y.code || x.rip !== y.rip || x.cr2 !== y.cr2) return false;
  const r = a.registers, s = b.registers;
  for (let i = 0; i < REGISTER_WORDS; i++) {
    if (r[i] !== s[i]) return false;
  }
  const d = a.data, e = b.data;
  for (let i = 0; i < d.length; i++) if (d[i] !== e[i]) return false;
  return true;
}

const NAMES = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"] as const;
const hex = (value: number, digits = 8) => (value >>> 0).toString(16).padStart(digits, "0");

/** Says what differs: the host's value, the engine's, and what it was before. */
function explain(one: Case, a: Outcome, b: Outcome): string[] {
  const lines: string[] = [];
  const say = (what: string, host: string, engine: string, before = "") => {
    if (host !== engine) {
      lines.push(`${what}: host ${host}, engine ${engine}${before && `, before ${before}`}`);
    }
  };
  const end = ({ ending: e }: Outcome) =>
    e.vector < 0
      ? e.vector === -1 ? "no fault" : `no end, at ${hex(e.rip)}`
      : `vector ${e.vector} code ${hex(e.code, 1)} rip ${hex(e.rip)} cr2 ${hex(e.cr2)}`;
  say("end", end(a), end(b));
  const [r, s, t] = [a.registers, b.registers, one.registers];
  const words = (from: Uint32Array, at: number, n: number) => {
    let text = "";
    for (let i = n - 1; i >= 0; i--) text += hex(from[at + i]!);
    return text;
  };
  for (let n = 0; n < 16; n++) {
    say(NAMES[n] ?? `r${n}`, words(r, 2 * n, 2), words(s, 2 * n, 2), words(t, 2 * n, 2));
  }
  say("rflags", hex(r[W.flags]!, 1), hex(s[W.flags]!, 1), hex(t[W.flags]!, 1));
  for (const name of ["mxcsr", "fcw", "fsw", "ftw"] as const) {
    say(name, hex(r[W[name]]!, 4), hex(s[W[name]]!, 4), hex(t[W[name]]!, 4));
  }
  for (let i = 0; i < 8; i++) {
    const at = W.st + 3 * i;
    say(`st${i}`, words(r, at, 3).slice(4), words(s, at, 3).slice(4), words(t, at, 3).slice(4));
  }
  for (let i = 0; i < 16; i++) {
    const at = W.xmm + 4 * i;
    say(`xmm${i}`, words(r, at, 4), words(s, at, 4), words(t, at, 4));
  }
  for (let i = 0; i < a.data.length; i++) {
    say(`[${hex(DATA + 4 * i)}]`, hex(a.data[i]!), hex(b.data[i]!), hex(one.data[i]!));
  }
  return lines;
}
