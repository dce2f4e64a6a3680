import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { bitRows } from "../../../hw/isa/bit_rows.ts";
import { controlRows } from "../../../hw/isa/control_rows.ts";
import { type Encoding, parseEncoding } from "../../../hw/isa/encoding.ts";
import type { CodeMode, Row } from "../../../hw/isa/form.ts";
import { hintRows } from "../../../hw/isa/hint_rows.ts";
import { integerRows } from "../../../hw/isa/integer_rows.ts";
import { legacyRows } from "../../../hw/isa/legacy_rows.ts";
import { moveRows } from "../../../hw/isa/move_rows.ts";
import { shiftRows } from "../../../hw/isa/shift_rows.ts";
import { stackRows } from "../../../hw/isa/stack_rows.ts";
import { stringRows } from "../../../hw/isa/string_rows.ts";
import { DATA, FlatMachine } from "./flat_machine.ts";

const rows: readonly Row[] = [
  ...bitRows,
  ...controlRows,
  ...hintRows,
  ...integerRows,
  ...legacyRows,
  ...moveRows,
  ...shiftRows,
  ...stackRows,
  ...stringRows,
];

const byte = (n: number) => n.toString(16).padStart(2, "0");

/** One instruction of `e`; the register operands are 3 and 1, memory is [rBX + 10H] ([BX + DI + 10H] with 16-bit addresses). */
function assemble(
  e: Encoding,
  choice: { memory: boolean; wide: boolean; address16: boolean; prefixes: string },
): string {
  const reg = e.digit >= 0 ? e.digit : 1;
  const rm = choice.memory ? (choice.address16 ? 0x41 : 0x43) : 0xc3;
  const modrm = !e.hasModrm
    ? ""
    : byte(e.modrm >= 0 ? e.modrm : rm | (reg << 3)) + (choice.memory ? "10" : "");
  const tail = "0100000000000000";
  const prefix = e.prefix === 0x66 || e.prefix === 0xf2 || e.prefix === 0xf3 ? e.prefix : 0;
  if (e.map > 3) {
    const pp = prefix === 0x66 ? 1 : prefix === 0xf3 ? 2 : prefix === 0xf2 ? 3 : 0;
    const vvvv = e.usesVvvv ? 2 : 0;
    const w = choice.wide ? 0x80 : 0;
    return `${choice.prefixes} c4 ${byte(0xe0 | (e.map - 3))} ${byte(w | ((vvvv ^ 15) << 3) | pp)} ${
      byte(e.opcode)
    } ${modrm} ${tail}`;
  }
  const map = ["", "0f", "0f38", "0f3a"][e.map]!;
  const rex = choice.wide ? "48" : "";
  return `${choice.prefixes} ${prefix ? byte(prefix) : ""} ${rex} ${map} ${byte(e.opcode)} ${modrm} ${tail}`;
}

describe("The rows of the general-purpose instructions", () => {
  it("all parse, and every encoding runs at every size in every mode that has it", () => {
    const features = new FlatMachine().cpu.model.features;
    const missing: string[] = [];
    rows.forEach((row, index) => {
      for (const text of row.encodings) {
        const e = parseEncoding(row, index, text);
        for (const mode of [0, 1, 2] as CodeMode[]) {
          if (mode === 2 ? row.flags.no64 : row.flags.only64 || e.rexW === 1 || e.operandSize === 64) {
            continue;
          }
          if (row.flags.cpuid !== undefined && !features.has(row.flags.cpuid)) continue;
          const m = new FlatMachine(mode);
          // A divisor, and bounds of 16 bits.
          for (const at of [DATA + 0x10, 2 * DATA + 0x10]) m.poke(at, "01000300");
          let ran = 0;
          const shapes = !e.hasModrm || e.mod === "reg" ? [false] : e.mod === "mem" ? [true] : [false, true];
          for (const memory of shapes) {
            for (const wide of mode === 2 ? [false, true] : [false]) {
              for (const prefixes of ["", "66", "67", "6667", ...(row.flags.string ? ["f3", "f2"] : [])]) {
                const address16 = mode === 0
                  ? !prefixes.includes("67")
                  : mode === 1 && prefixes.includes("67");
                m.set({ rbx: DATA, rcx: 3, rdx: 0, rsi: DATA, rdi: DATA, rbp: DATA, rax: 1, rsp: 0x7000 });
                const fault = m.run(assemble(e, { memory, wide, address16, prefixes }));
                if (fault === undefined || row.mnemonic.startsWith("UD")) ran++;
              }
            }
          }
          if (ran === 0) missing.push(`${row.mnemonic} "${text}" in mode ${mode}`);
        }
      }
    });
    assertEquals(missing, []);
  });
});
