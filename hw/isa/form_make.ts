/**
 * Makes forms: from an encoding and what prefixes and ModRM say, the widths, kinds and slots of the operands. Equal keys give
 * one object.
 *
 * Room: `hw/isa/`; imports types. Only the decoder uses it.
 *
 * @module
 */
import type { Width } from "./builder.ts";
import type { Encoding, OperandSpec } from "./encoding.ts";
import type { CodeMode, Form, Operand, OperandKind } from "./form.ts";

const internedForms = new Map<string, Form>();

/** Bits of an operand of size letter `size`. */
function widthOf(size: string, operandSize: number, wide: boolean, mode: CodeMode): number {
  switch (size) {
    case "b":
      return 8;
    case "w":
      return 16;
    case "d":
    case "ss":
      return 32;
    case "q":
    case "sd":
    case "pi":
      return 64;
    case "v":
    case "bs":
      return operandSize;
    case "y":
      return wide ? 64 : 32;
    case "z":
      return operandSize > 32 ? 32 : operandSize;
    case "dq":
    case "ps":
    case "pd":
    case "x":
      return 128;
    case "t":
      return 80;
    case "p":
      return operandSize + 16;
    case "s":
      return mode === 2 ? 80 : 48;
    case "a":
      return 2 * operandSize;
    default:
      return 0;
  }
}

/** `Form.w`. */
function formWidth(e: Encoding, operandSize: number, wide: boolean, mode: CodeMode): Width {
  switch (e.sizing) {
    case "byte":
      return 8;
    case "word":
      return 16;
    case "dword":
      return 32;
    case "qword":
      return 64;
    case "y":
      return wide ? 64 : 32;
    case "z":
      return operandSize === 16 ? 16 : 32;
    case "native":
      return mode === 2 ? 64 : 32;
    default:
      return operandSize as Width;
  }
}

/** Kind of the operand `spec` where ModRM.rm is memory or not. */
export function kindOf(spec: OperandSpec, isMemory: boolean): OperandKind {
  return isMemory && "EWQ".includes(spec.source) ? "mem" : spec.kind;
}

const REGISTER_SLOTS = ["r0", "r1", "r2"] as const;

/** Makes (or finds) the form. */
export function makeForm(
  e: Encoding,
  isMemory: boolean,
  operandSize: number,
  wide: boolean,
  aw: 16 | 32 | 64,
  mode: CodeMode,
  cc: number,
  rep: 0 | 2 | 3,
  lock: boolean,
  segment: number,
): Form {
  const w = formWidth(e, operandSize, wide, mode);
  const operands: Operand[] = [];
  let registers = 0, immediates = 0;
  e.operands.forEach((spec, index) => {
    const kind = kindOf(spec, isMemory);
    let width = widthOf(spec.size, operandSize, wide, mode);
    if (e.modIgnored && spec.source !== "I") width = w;
    // An immediate of the operand size is given to the description sign-extended to it.
    if (spec.source === "I" && spec.size === "z") width = operandSize;
    let slot: Operand["slot"];
    if (kind === "mem") slot = spec.source === "O" ? "imm" : "mem";
    else if (kind === "imm" || kind === "rel" || kind === "far") {
      slot = spec.source === "fixed" ? "imm" : immediates++ === 0 ? "imm" : "imm2";
    } else {
      const register = REGISTER_SLOTS[registers++];
      if (register === undefined) throw new SyntaxError(`${e.row.mnemonic} "${e.text}": too many registers`);
      slot = register;
    }
    const base = { index, kind, width, access: spec.access, slot };
    operands.push(spec.fixed >= 0 ? { ...base, fixed: spec.fixed } : base);
  });
  const key = `${e.rowIndex} ${w} ${aw} ${mode} ${cc} ${rep} ${lock ? 1 : 0} ${segment}` +
    operands.map((o) => ` ${o.kind}${o.width}${o.access}${o.slot}${o.fixed ?? ""}`).join("");
  const known = internedForms.get(key);
  if (known !== undefined) return known;
  const form: Form = { key, row: e.row, w, aw, mode, cc, rep, lock, segment, operands };
  internedForms.set(key, form);
  return form;
}
