/**
 * The opcode maps: all encodings of the table, by map and opcode byte, sorted so that the first that fits is the right one.
 *
 * Room: `hw/isa/`; imports the table and the parser of encodings. Only the decoder uses it.
 *
 * @module
 */
import { type Encoding, MAP_COUNT, parseEncoding } from "./encoding.ts";
import type { Form } from "./form.ts";
import { rows } from "./table.ts";

/** An encoding, with the forms seen so far. */
export interface Candidate extends Encoding {
  /** Forms by the bits that decode.ts packs. */
  readonly forms: Map<number, Form>;
  /** Required REX.B (0 or 1) where it tells XCHG from NOP at 90H, else −1. */
  readonly rexB: number;
}

/** All that one opcode byte of one map may be. */
export interface Opcode {
  readonly hasModrm: boolean;
  readonly candidates: Candidate[];
  /** Candidates by ModRM byte, filled on demand. */
  readonly byModrm: (readonly Candidate[] | undefined)[];
}

/** The opcodes of one map. */
export type OpcodeMap = (Opcode | undefined)[];

/** How much an encoding asks for; the one that asks for most is tried first. */
function specificity(e: Candidate): number {
  return (e.prefix !== 0 ? 16 : 0) + (e.modrm >= 0 ? 8 : 0) + (e.plusRegister ? 0 : 4) +
    (e.rexW >= 0 ? 1 : 0) + (e.operandSize !== 0 ? 1 : 0) + (e.addressSize !== 0 ? 1 : 0) +
    (e.mod !== "" ? 1 : 0) + (e.digit >= 0 ? 1 : 0);
}

/** Parses the table. A mistake in it throws here, with the row's name. */
export function buildMaps(): readonly OpcodeMap[] {
  const maps: OpcodeMap[] = Array.from({ length: MAP_COUNT }, () => new Array<Opcode | undefined>(256));
  rows.forEach((row, rowIndex) => {
    for (const text of row.encodings) {
      const parsed = parseEncoding(row, rowIndex, text);
      const forms = new Map<number, Form>();
      const span = parsed.plusRegister ? 8 : parsed.plusCondition ? 16 : 1;
      const first = parsed.opcode & ~(span - 1);
      for (let n = 0; n < span; n++) {
        const opcode = first + n;
        const map = maps[parsed.map]!;
        const entry = map[opcode] ??= {
          hasModrm: parsed.hasModrm,
          candidates: [],
          byModrm: new Array<undefined>(256),
        };
        if (entry.hasModrm !== parsed.hasModrm) {
          throw new SyntaxError(
            `The encodings "${text}" of ${row.mnemonic} and "${
              entry.candidates[0]?.text
            }" disagree about a ModRM byte`,
          );
        }
        const isNopOrXchg = parsed.map === 0 && opcode === 0x90;
        const rexB = isNopOrXchg && parsed.plusRegister ? 1 : isNopOrXchg && parsed.prefix !== 0xf3 ? 0 : -1;
        entry.candidates.push({ ...parsed, forms, rexB });
      }
    }
  });
  for (const map of maps) {
    for (const entry of map) entry?.candidates.sort((a, b) => specificity(b) - specificity(a));
  }
  return maps;
}

/** The candidates that a ModRM byte leaves. */
export function narrow(entry: Opcode, modrm: number): readonly Candidate[] {
  const isMemory = modrm < 0xc0;
  const left = entry.candidates.filter((e) =>
    (e.modrm < 0 || e.modrm === modrm) && (e.digit < 0 || e.digit === ((modrm >> 3) & 7)) &&
    (e.modIgnored || e.mod === "" || (e.mod === "mem") === isMemory)
  );
  entry.byModrm[modrm] = left;
  return left;
}
