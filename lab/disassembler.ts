/**
 * Disassembly for people, by iced-x86. Loaded on demand: nothing imports it statically.
 *
 * Room: `lab/`; imports npm's iced-x86.
 *
 * @module
 */
import { Decoder, DecoderOptions, Formatter, FormatterSyntax } from "iced-x86";

/** Most instructions that a piece of code is shown as, unless the caller says otherwise. */
const INSTRUCTIONS_MAX = 4;

/** Lines of disassembly of code that stands at `rip`: address, bytes, text; at most `most` of them. */
export function disassemble(code: Uint8Array, rip: bigint, most = INSTRUCTIONS_MAX): string[] {
  const decoder = new Decoder(64, code, DecoderOptions.None);
  const formatter = new Formatter(FormatterSyntax.Intel);
  const lines: string[] = [];
  try {
    decoder.ip = rip;
    while (decoder.canDecode && lines.length < most) {
      const at = decoder.position;
      const instruction = decoder.decode();
      // The last bytes may be the beginning of an instruction whose end was not read.
      const cut = instruction.isInvalid && code.length - at < 15 && lines.length > 0;
      if (!cut) {
        lines.push(
          describe(
            code.subarray(at, at + instruction.length),
            rip + BigInt(at),
            formatter.format(instruction),
          ),
        );
      }
      instruction.free();
      if (cut) break;
    }
  } finally {
    formatter.free();
    decoder.free();
  }
  return lines;
}

function describe(bytes: Uint8Array, address: bigint, text: string): string {
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  return `${address.toString(16).padStart(16, "0")}  ${hex.padEnd(24)}  ${text}`;
}
