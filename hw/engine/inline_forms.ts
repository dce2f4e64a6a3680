/**
 * Which forms stand in the interpreter's switch: those that compilers emit most in 64-bit code, found by decoding one
 * example of each. Everything else is a called handler, made when first met. fused_forms.ts says which of them are fused.
 *
 * Room: `hw/engine/`; imports the decoder. A form listed here or not changes speed, never meaning.
 *
 * @module
 */
import type { CpuModel } from "../cpuid.ts";
import { decode, isDecoded } from "../isa/decode.ts";
import type { Form } from "../isa/form.ts";
import { S } from "../state.ts";

/** One handler to be: a form, with or without an index register in its memory operand. */
export interface InlineForm {
  readonly form: Form;
  readonly hasIndex: boolean;
}

/** ModRM bytes of the three shapes: register; base + disp8; base + index + disp8 (SIB follows). */
const REGISTER = "c1", MEMORY = "4140", INDEXED = "440840";

/** Examples of the inline forms, in hexadecimal; `m` stands for a ModRM operand in the shapes named. */
function examples(): string[] {
  const out: string[] = [];
  /** `prefix opcode` with reg field `digit` for the shapes r, m, x; `tail` is the immediate. */
  const add = (head: string, shapes: string, digit = 0, tail = "") => {
    for (const shape of shapes) {
      const bytes = shape === "r" ? REGISTER : shape === "m" ? MEMORY : INDEXED;
      const modrm = parseInt(bytes.slice(0, 2), 16) | (digit << 3);
      out.push(head + modrm.toString(16).padStart(2, "0") + bytes.slice(2) + tail);
    }
  };
  const wide = ["", "48"];
  for (const rex of wide) {
    for (const alu of [0, 1, 4, 5, 6, 7]) { // ADD OR AND SUB XOR CMP
      add(rex + hex(alu * 8 + 1), "rmx");
      add(rex + hex(alu * 8 + 3), "rmx");
      add(rex + "83", "rmx", alu, "01");
      add(rex + "81", "rm", alu, "01000000");
    }
    for (const alu of [2, 3]) { // ADC SBB
      add(rex + hex(alu * 8 + 1), "r");
      add(rex + hex(alu * 8 + 3), "rm");
      add(rex + "83", "r", alu, "01");
    }
    add(rex + "85", "rmx"); // TEST
    add(rex + "f7", "rm", 0, "01000000");
    add(rex + "89", "rmx"); // MOV
    add(rex + "8b", "rmx");
    add(rex + "c7", "rmx", 0, "01000000");
    add(rex + "8d", "mx"); // LEA
    add(rex + "ff", "rm", 0); // INC DEC
    add(rex + "ff", "rm", 1);
    add(rex + "f7", "r", 2); // NOT NEG MUL IMUL DIV IDIV
    add(rex + "f7", "r", 3);
    add(rex + "f7", "r", 4);
    add(rex + "f7", "r", 5);
    add(rex + "f7", "r", 6);
    add(rex + "0faf", "rmx");
    add(rex + "69", "rm", 0, "01000000");
    add(rex + "6b", "rm", 0, "01");
    for (const shift of [0, 1, 4, 5, 7]) { // ROL ROR SHL SHR SAR
      add(rex + "c1", "r", shift, "03");
      add(rex + "d3", "r", shift);
    }
    add(rex + "d1", "r", 4);
    add(rex + "d1", "r", 5);
    add(rex + "d1", "r", 7);
    for (const extend of ["0fb6", "0fb7", "0fbe", "0fbf"]) add(rex + extend, "rmx");
    out.push(rex + "98", rex + "99");
    out.push(rex + "87c1"); // XCHG
    for (let cc = 2; cc < 16; cc++) if (cc !== 10 && cc !== 11) add(rex + "0f" + hex(0x40 + cc), "r");
    add(rex + "0fa3", "r"); // BT
    add(rex + "0fba", "r", 4, "03");
    out.push(rex + "0fc8"); // BSWAP
  }
  add("4863", "rmx"); // MOVSXD
  for (const alu of [0, 1, 4, 5, 6, 7]) {
    add(hex(alu * 8), "r");
    add(hex(alu * 8 + 2), "rmx");
    add("80", "rmx", alu, "01");
  }
  add("38", "mx");
  add("84", "rm");
  add("f6", "rmx", 0, "01");
  add("88", "rmx");
  add("8a", "rmx");
  add("c6", "mx", 0, "01");
  add("6689", "mx");
  add("668b", "mx");
  add("66c7", "m", 0, "0100");
  add("6639", "rm");
  add("663b", "m");
  add("6683", "rm", 7, "01");
  out.push("b801000000", "b001", "48b80100000000000000", "04" + "01", "0501000000", "480501000000");
  out.push("a801", "a901000000", "3c01", "3d01000000", "483d01000000", "2501000000", "2d01000000");
  out.push(
    "50",
    "58",
    "6a01",
    "6801000000",
    "c3",
    "c9",
    "90",
    "f30f1efa",
    "0f1f4000",
    "0f1f440000",
    "660f1f440000",
    "6690",
  );
  add("ff", "mx", 6); // PUSH m
  out.push("e800000000", "e900000000", "eb00");
  add("ff", "rmx", 2);
  add("ff", "rmx", 4);
  for (let cc = 0; cc < 16; cc++) {
    out.push(hex(0x70 + cc) + "00", "0f" + hex(0x80 + cc) + "00000000");
    if (cc > 1 && cc !== 10 && cc !== 11) add("0f" + hex(0x90 + cc), "r");
  }
  for (const string of ["a4", "a5", "48a5", "aa", "ab", "48ab"]) out.push("f3" + string);
  return out;
}

/** The inline form of one example, or undefined when the model has not that instruction. */
export function inlineExample(model: CpuModel, text: string): InlineForm | undefined {
  const bytes = new Uint8Array(16);
  for (let i = 0; i < text.length / 2; i++) bytes[i] = parseInt(text.slice(i * 2, i * 2 + 2), 16);
  const decoded = decode(bytes, 0, 16, 2, model.features);
  return isDecoded(decoded) ? { form: decoded.form, hasIndex: decoded.index !== S.ZERO } : undefined;
}

/** The inline forms for a processor model. */
export function inlineForms(model: CpuModel): readonly InlineForm[] {
  const forms = new Map<string, InlineForm>();
  for (const text of examples()) {
    const entry = inlineExample(model, text);
    if (entry !== undefined) forms.set(entry.form.key + (entry.hasIndex ? "|i" : ""), entry);
  }
  return [...forms.values()];
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, "0");
}
