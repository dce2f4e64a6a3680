/**
 * The decoder against iced-x86: validity, length, mnemonic, operands, addressing, segments. Loaded by iced_test.ts where iced-x86 may be read.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { Decoder, Instruction, InstructionInfoFactory, OpAccess, OpKind } from "iced-x86";
import { decode, isDecoded } from "../../../hw/isa/decode.ts";
import type { CodeMode, OperandAccess } from "../../../hw/isa/form.ts";
import { ALL_FEATURES } from "./all_features.ts";
import { Witness } from "./iced_witness.ts";

const MODES: readonly CodeMode[] = [2, 1, 0];
/** Opcode maps: one byte, 0F, 0F 38, 0F 3A. */
const MAPS = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]] as const;
/** What stands behind the ModRM byte: a SIB byte, displacements and immediates of no special shape. */
const TAIL = [0x8c, 0x81, 0x12, 0x93, 0x04, 0x45, 0x86, 0x77, 0x88, 0x5a, 0x21] as const;

/** Seeded generator (xorshift32); `next(n)` is 0 … n − 1. */
function random(seed: number): (n: number) => number {
  let x = seed | 1;
  return (n) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % n;
  };
}

/** Instructions laid out one after the other, each with room behind it. */
class Corpus {
  readonly #bytes: number[] = [];
  readonly #starts: number[] = [];

  add(instruction: readonly number[]): void {
    this.#starts.push(this.#bytes.length);
    for (const byte of instruction) this.#bytes.push(byte);
    for (const byte of TAIL) this.#bytes.push(byte);
  }

  /** All differences from iced, each with the bytes of one example. */
  differences(mode: CodeMode): string[] {
    const bytes = new Uint8Array([...this.#bytes, ...new Uint8Array(16)]);
    const witness = new Witness(bytes, mode);
    const found = new Map<string, string>();
    for (const at of this.#starts) {
      const difference = witness.difference(at);
      if (difference === undefined || found.has(difference)) continue;
      const hex = [...bytes.subarray(at, at + 12)].map((b) => b.toString(16).padStart(2, "0")).join(" ");
      found.set(difference, `mode ${mode}, ${hex}: ${difference}`);
    }
    witness.free();
    return [...found.values()].slice(0, 20);
  }
}

/** ModRM bytes that matter for one opcode: each /digit with a memory and a register operand, all for the odd opcodes. */
function modrmBytes(map: number, opcode: number): readonly number[] {
  const isOdd = map === 0
    ? opcode >= 0xd8 && opcode <= 0xdf
    : map === 1 && [0x01, 0xae, 0xc7, 0x1e].includes(opcode);
  const all = Array.from({ length: 256 }, (_, modrm) => modrm);
  return isOdd ? all : all.filter((modrm) => (modrm & 0xc7) === 0x01 || (modrm & 0xc7) === 0xc3);
}

/** Every opcode of the four maps behind each of `prefixes`. */
function sweep(mode: CodeMode, prefixes: readonly (readonly number[])[]): string[] {
  return prefixes.flatMap((prefix) => {
    const corpus = new Corpus();
    MAPS.forEach((escape, map) => {
      for (let opcode = 0; opcode < 256; opcode++) {
        for (const modrm of modrmBytes(map, opcode)) corpus.add([...prefix, ...escape, opcode, modrm]);
      }
    });
    return corpus.differences(mode);
  });
}

const LEGACY = [[], [0x66], [0xf2], [0xf3], [0x67], [0xf0], [0x66, 0xf2], [0x36]];

for (const mode of MODES) {
  Deno.test(`decoder and iced agree on every opcode behind every legacy prefix, code mode ${mode}`, () => {
    assertEquals(sweep(mode, LEGACY), []);
  });
}

Deno.test("decoder and iced agree on every opcode behind REX, alone and with mandatory prefixes", () => {
  const prefixes = [0x40, 0x48, 0x45, 0x4f].flatMap((rex) => [[rex], [0x66, rex], [0xf3, rex], [0xf2, rex]]);
  assertEquals(sweep(2, prefixes), []);
});

for (const mode of MODES) {
  Deno.test(`decoder and iced agree on all ModRM, SIB and displacement forms, code mode ${mode}`, () => {
    const corpus = new Corpus();
    const rexes = mode === 2 ? [[], [0x41], [0x42], [0x44], [0x48]] : [[]];
    for (const address of [[], [0x67], [0x65], [0x3e]]) {
      for (const rex of rexes) {
        for (let modrm = 0; modrm < 256; modrm++) {
          const sibs = (modrm & 7) === 4 ? Array.from({ length: 256 }, (_, sib) => sib) : [0x25];
          for (const sib of sibs) corpus.add([...address, ...rex, 0x8b, modrm, sib, 0x80, 0xff, 0x7f, 0x81]);
        }
      }
    }
    assertEquals(corpus.differences(mode), []);
  });

  Deno.test(`decoder and iced agree on VEX-encoded instructions, code mode ${mode}`, () => {
    const corpus = new Corpus();
    for (let map = 0; map < 5; map++) {
      for (let pp = 0; pp < 8; pp++) {
        for (let opcode = 0; opcode < 256; opcode++) {
          for (const modrm of [0x11, 0xca, 0x5d]) {
            for (const w of [0, 0x80]) {
              for (const vvvv of [0x78, 0x48]) corpus.add([0xc4, 0xe0 | map, w | vvvv | pp, opcode, modrm]);
            }
            if (map === 0) corpus.add([0xc5, 0xf8 | pp, opcode, modrm]);
          }
        }
      }
    }
    assertEquals(corpus.differences(mode), []);
  });

  Deno.test(`decoder and iced agree on a random corpus, code mode ${mode}`, () => {
    const next = random(0x5eed_0001 + mode);
    const prefixes = [0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x26, 0x3e, 0x64, 0x65];
    const corpus = new Corpus();
    for (let n = 0; n < 100_000; n++) {
      const bytes: number[] = [];
      for (let p = next(4); p > 0 && next(3) > 0; p--) bytes.push(prefixes[next(prefixes.length)]!);
      if (mode === 2 && next(3) === 0) bytes.push(0x40 | next(16));
      bytes.push(...MAPS[next(4)]!);
      for (let i = 0; i < 12; i++) bytes.push(next(256));
      corpus.add(bytes);
    }
    assertEquals(corpus.differences(mode), []);
  });
}

Deno.test("decoder and iced agree that 15 bytes is the limit", () => {
  const corpus = new Corpus();
  for (let count = 0; count < 16; count++) {
    const prefixes = new Array<number>(count).fill(0x66);
    corpus.add([...prefixes, 0x90]);
    corpus.add([...prefixes, 0x81, 0x84, 0x25, 1, 2, 3, 4, 5, 6, 7, 8]);
  }
  for (const mode of MODES) assertEquals(corpus.differences(mode), []);
});

Deno.test("a memory operand is read and written as iced says", () => {
  /** Rows whose operand is only an address to the description, or that have two memory operands. */
  const exempt = new Set(["MOVS", "XLAT"]);
  const access: Readonly<Record<number, OperandAccess>> = {
    [OpAccess.None]: "none",
    [OpAccess.Read]: "r",
    [OpAccess.CondRead]: "r",
    [OpAccess.Write]: "w",
    [OpAccess.CondWrite]: "w",
    [OpAccess.ReadWrite]: "rw",
    [OpAccess.ReadCondWrite]: "rw",
    [OpAccess.NoMemAccess]: "none",
  };
  const factory = new InstructionInfoFactory();
  const instruction = new Instruction();
  const seen = new Set<string>();
  const wrong: string[] = [];
  for (const prefix of [[], [0x66], [0xf2], [0xf3], [0x48]]) {
    for (const escape of MAPS) {
      for (let opcode = 0; opcode < 256; opcode++) {
        for (let digit = 0; digit < 8; digit++) {
          const bytes = new Uint8Array([...prefix, ...escape, opcode, (digit << 3) | 1, ...TAIL]);
          const decoded = decode(bytes, 0, 15, 2, ALL_FEATURES);
          if (!isDecoded(decoded) || seen.has(decoded.form.key)) continue;
          seen.add(decoded.form.key);
          const operand = decoded.form.operands.find((o) => o.kind === "mem");
          // An operand of access "none" is one that the description handles by itself.
          if (operand === undefined || operand.access === "none" || exempt.has(decoded.form.row.mnemonic)) {
            continue;
          }
          const decoder = new Decoder(64, bytes, 0);
          decoder.decodeOut(instruction);
          const info = factory.info(instruction);
          for (let op = 0; op < instruction.opCount; op++) {
            if (instruction.opKind(op) < OpKind.MemorySegSI) continue;
            const theirs = access[info.opAccess(op)];
            if (theirs !== operand.access) {
              wrong.push(`${decoded.form.row.mnemonic} ${operand.access}, not ${theirs}`);
            }
          }
          info.free();
          decoder.free();
        }
      }
    }
  }
  instruction.free();
  factory.free();
  assertEquals(wrong, []);
});
