/**
 * Reads the encoding strings of the instruction table (`"0F AF /r Gv:rw Ev"`, grammar in README.md) into the
 * shape the decoder works with.
 *
 * Room: `hw/isa/`; imports types and the register numbers. A string that does not parse is our own mistake and
 * throws at the first use of the table, with the row named.
 *
 * @module
 */
import { SEG } from "../state.ts";
import type { OperandAccess, OperandKind, Row, RowFlags } from "./form.ts";

/** Where an operand comes from: the SDM's operand letters, and the fixed ones. */
export type Source =
  | "E"
  | "G"
  | "M"
  | "R"
  | "I"
  | "J"
  | "O"
  | "A"
  | "S"
  | "C"
  | "D"
  | "V"
  | "W"
  | "U"
  | "P"
  | "Q"
  | "N"
  | "B"
  | "Z"
  | "X"
  | "Y"
  | "STi"
  | "fixed";

/** One operand as the encoding says it. */
export interface OperandSpec {
  readonly source: Source;
  /** Kind when the operand is a register or is fixed; a ModRM operand may be "mem" instead. */
  readonly kind: OperandKind;
  /** The SDM's width letters. */
  readonly size: string;
  readonly access: OperandAccess;
  /** Register number (or constant) of a fixed operand, −1 otherwise. */
  readonly fixed: number;
}

/** How the operand size of the form (`Form.w`) comes about. */
export type Sizing = "operand" | "byte" | "word" | "dword" | "qword" | "y" | "z" | "native";

/**
 * Mandatory prefix: 0x66, 0xF2, 0xF3, {@link NO_PREFIX} for "none of them", {@link NO_REPEAT} for "neither F2 nor F3", 0 where
 * prefixes do not select.
 */
export type MandatoryPrefix = 0 | 0x66 | 0xf2 | 0xf3 | typeof NO_PREFIX | typeof NO_REPEAT;
/** The `NP` of an encoding. */
export const NO_PREFIX = 1;
/** The `NFx` of an encoding: with F2 or F3 it is #UD, 66 is the operand size. */
export const NO_REPEAT = 2;

/** Opcode maps: one byte, 0F, 0F 38, 0F 3A, then the VEX maps 1 to 3. */
export const MAP_COUNT = 7;
/** Number added to 1, 2, 3 (0F, 0F 38, 0F 3A) for a VEX map. */
export const VEX_MAPS = 3;

/** One parsed encoding. */
export interface Encoding {
  readonly row: Row;
  readonly flags: RowFlags;
  /** Position of the row in the table; part of the form's key. */
  readonly rowIndex: number;
  readonly text: string;
  readonly map: number;
  readonly opcode: number;
  /** `+r` of the opcode byte. */
  readonly plusRegister: boolean;
  /** `+c` of the opcode byte. */
  readonly plusCondition: boolean;
  readonly prefix: MandatoryPrefix;
  readonly hasModrm: boolean;
  /** Required ModRM.reg, or −1. */
  readonly digit: number;
  /** Required whole ModRM byte, or −1. */
  readonly modrm: number;
  /** ModRM.mod must say memory ("mem"), register ("reg"), or either (""). */
  readonly mod: "" | "mem" | "reg";
  /** ModRM.mod is ignored and rm is a register (MOV to and from control and debug registers). */
  readonly modIgnored: boolean;
  /** Required operand size in bits, or 0. */
  readonly operandSize: number;
  /** Required address size in bits, or 0. */
  readonly addressSize: number;
  /** Required REX.W or VEX.W: 0, 1, or −1. */
  readonly rexW: number;
  readonly default64: boolean;
  readonly force64: boolean;
  /** Uses VEX.vvvv; if not, vvvv must be 1111B. */
  readonly usesVvvv: boolean;
  readonly sizing: Sizing;
  readonly operands: readonly OperandSpec[];
}

const GPR_NAMES = ["AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI"] as const;
const BYTE_NAMES = ["AL", "CL", "DL", "BL"] as const;

/** Operands written out by name. */
const FIXED: ReadonlyMap<string, readonly [kind: OperandKind, fixed: number, size: string]> = (() => {
  const names = new Map<string, readonly [OperandKind, number, string]>();
  BYTE_NAMES.forEach((name, n) => names.set(name, ["reg", n, "b"]));
  GPR_NAMES.forEach((name, n) => {
    names.set(name, ["reg", n, "w"]);
    names.set("E" + name, ["reg", n, "d"]);
    names.set("R" + name, ["reg", n, "q"]);
    names.set("r" + name, ["reg", n, "v"]);
    names.set("e" + name, ["reg", n, "z"]);
  });
  for (const [name, n] of Object.entries(SEG)) if (n <= SEG.GS) names.set(name, ["seg", n, "w"]);
  names.set("XMM0", ["xmm", 0, "dq"]);
  names.set("ST0", ["st", 0, "t"]);
  names.set("ST", ["st", 0, "t"]);
  names.set("1", ["imm", 1, "b"]);
  names.set("3", ["imm", 3, "b"]);
  return names;
})();

/** Kind of register that a letter names. */
const KIND: Readonly<Record<string, OperandKind>> = {
  E: "reg",
  G: "reg",
  M: "mem",
  R: "reg",
  I: "imm",
  J: "rel",
  O: "mem",
  A: "far",
  S: "seg",
  C: "cr",
  D: "dr",
  V: "xmm",
  W: "xmm",
  U: "xmm",
  P: "mm",
  Q: "mm",
  N: "mm",
  B: "reg",
  Z: "reg",
  X: "mem",
  Y: "mem",
};

const SIZES: ReadonlySet<string> = new Set(
  ["", "b", "w", "d", "q", "v", "y", "z", "dq", "t", "p", "s", "bs", "a", "ps", "pd", "x", "ss", "sd", "pi"],
);
const ACCESSES: ReadonlySet<string> = new Set(["r", "w", "rw", "none"]);

/** A hexadecimal byte with both digits. */
function isHexByte(token: string): boolean {
  return /^[0-9A-F]{2}$/.test(token);
}

/**
 * Parses one encoding of `row`.
 *
 * @throws {SyntaxError} when the string is not in the language of README.md: a mistake in the table.
 */
export function parseEncoding(row: Row, rowIndex: number, text: string): Encoding {
  const fail = (why: string): never => {
    throw new SyntaxError(`Cannot read the encoding "${text}" of ${row.mnemonic}: ${why}`);
  };
  const tokens = text.trim().split(/\s+/);
  let at = 0;
  let prefix: MandatoryPrefix = 0;
  let map = 0;
  let vex = false, vexMap = 0;
  let rexW = -1;
  const bytes: number[] = [];
  let plusRegister = false, plusCondition = false;
  const setPrefix = (token: string): boolean => {
    if (token === "NP") prefix = NO_PREFIX;
    else if (token === "NFx") prefix = NO_REPEAT;
    else if (token === "66" || token === "F2" || token === "F3") prefix = parseInt(token, 16) as 0x66 | 0xf2;
    else return false;
    return true;
  };

  let operandSize = 0, addressSize = 0, default64 = false, force64 = false;
  const setCondition = (token: string): boolean => {
    if (token === "o16" || token === "o32" || token === "o64") operandSize = Number(token.slice(1));
    else if (token === "a16" || token === "a32" || token === "a64") addressSize = Number(token.slice(1));
    else if (token === "W0" || token === "W1") rexW = Number(token.slice(1));
    else if (token === "d64") default64 = true;
    else if (token === "f64") force64 = true;
    else return false;
    return true;
  };

  // Prefix, conditions, VEX, opcode bytes.
  while (setCondition(tokens[at] ?? "") || setPrefix(tokens[at] ?? "")) at++;
  if (tokens[at]?.startsWith("VEX")) {
    vex = true;
    for (const part of tokens[at++]!.split(".").slice(1)) {
      if (part === "0F") vexMap = 1;
      else if (part === "0F38") vexMap = 2;
      else if (part === "0F3A") vexMap = 3;
      else if (part === "W0") rexW = 0;
      else if (part === "W1") rexW = 1;
      else if (!setPrefix(part) && part !== "WIG" && part !== "L0" && part !== "LZ") fail(`"${part}" in VEX`);
    }
    if (prefix === 0) prefix = NO_PREFIX;
    if (vexMap === 0) fail("no opcode map in VEX");
  }
  for (; at < tokens.length; at++) {
    const token = tokens[at]!;
    const hex = token.slice(0, 2), rest = token.slice(2);
    if (!isHexByte(hex) || (rest !== "" && rest !== "+r" && rest !== "+c")) break;
    bytes.push(parseInt(hex, 16));
    if (rest === "+r") plusRegister = true;
    if (rest === "+c") plusCondition = true;
  }
  if (vex) map = vexMap + VEX_MAPS;
  else if (bytes[0] === 0x0f && bytes.length > 1) {
    if (bytes[1] === 0x38 && bytes.length > 2) map = 2, bytes.splice(0, 2);
    else if (bytes[1] === 0x3a && bytes.length > 2) map = 3, bytes.splice(0, 2);
    else map = 1, bytes.splice(0, 1);
  }
  // A further opcode byte is a whole ModRM byte written without its stroke.
  let modrm = bytes.length === 2 ? bytes[1]! : -1;
  if (bytes.length === 0 || bytes.length > 2 || (map === 0 && bytes[0] === 0x0f)) {
    fail("the opcode does not fit an opcode map");
  }
  const opcode = bytes[0]!;

  // Modifiers.
  let hasModrm = modrm >= 0;
  let digit = -1;
  let mod: "" | "mem" | "reg" = "";
  const operands: OperandSpec[] = [];
  for (; at < tokens.length; at++) {
    const token = tokens[at]!;
    if (token.startsWith("/")) {
      hasModrm = true;
      const [what = "", where = ""] = token.slice(1).split(":");
      if (where === "mem" || where === "reg") mod = where;
      else if (where !== "") fail(`"${token}"`);
      if (/^[0-9A-F]{2}\+[ri]$/.test(what)) {
        digit = (parseInt(what.slice(0, 2), 16) >> 3) & 7;
        mod = "reg";
      } else if (isHexByte(what)) modrm = parseInt(what, 16);
      else if (/^[0-7]$/.test(what)) digit = Number(what);
      else if (what !== "r") fail(`"${token}"`);
    } else if (token === "+r") plusRegister = true;
    else if (token === "+c") plusCondition = true;
    else if (!setCondition(token)) operands.push(parseOperand(token, fail));
  }

  const has = (letters: string) => operands.some((o) => letters.includes(o.source) && o.source !== "fixed");
  const usesModrm = operands.some((o) => o.source.length === 1 && "EGMRSCDVWUPQN".includes(o.source)) ||
    operands.some((o) => o.source === "STi");
  if (usesModrm && !hasModrm) fail("an operand needs a ModRM byte (/r)");
  const modIgnored = has("CD");
  if (mod === "" && !modIgnored) {
    if (has("M")) mod = "mem";
    else if (has("RUN") || operands.some((o) => o.source === "STi")) mod = "reg";
  }
  return {
    row,
    flags: row.flags,
    rowIndex,
    text,
    map,
    opcode,
    plusRegister,
    plusCondition,
    prefix,
    hasModrm,
    digit,
    modrm,
    mod,
    modIgnored,
    operandSize,
    addressSize,
    rexW,
    default64,
    force64,
    usesVvvv: has("B"),
    sizing: sizingOf(operands, default64 || force64),
    operands,
  };
}

/** Parses `Ev:rw`, `AL`, `1`, `STi:w`. */
function parseOperand(token: string, fail: (why: string) => never): OperandSpec {
  const [name = "", accessText] = token.split(":");
  if (accessText !== undefined && !ACCESSES.has(accessText)) fail(`access of "${token}"`);
  const access = accessText as OperandAccess | undefined;
  const fixed = FIXED.get(name);
  if (fixed !== undefined) {
    return { source: "fixed", kind: fixed[0], fixed: fixed[1], size: fixed[2], access: access ?? "r" };
  }
  if (name === "STi") return { source: "STi", kind: "st", size: "t", access: access ?? "r", fixed: -1 };
  const letter = name.slice(0, 1), size = name.slice(1);
  const kind = KIND[letter];
  if (kind === undefined || !SIZES.has(size)) return fail(`operand "${token}"`);
  // `M` alone is an address; nothing is read there by the operand itself.
  return {
    source: letter as Source,
    kind,
    size,
    access: access ?? (size === "" && kind === "mem" ? "none" : "r"),
    fixed: letter === "X" ? 6 : letter === "Y" ? 7 : -1,
  };
}

/** The rule for `Form.w` (see {@link Sizing}): `v` wins, then `y`, then the first integer operand with a fixed width. */
function sizingOf(operands: readonly OperandSpec[], stackSized: boolean): Sizing {
  if (operands.some((o) => o.source === "C" || o.source === "D")) return "native";
  if (operands.some((o) => o.size === "v" || o.size === "bs")) return "operand";
  if (operands.some((o) => o.size === "y")) return "y";
  if (operands.some((o) => o.size === "z" && o.source !== "I" && o.source !== "J")) return "z";
  if (operands.some((o) => o.size === "z" || o.size === "p") || stackSized) return "operand";
  // An AL in `OUT DX, AL` counts, the DX beside it does not.
  const integer = operands.filter((o) =>
    (o.source.length === 1 && "EGMROZXYBS".includes(o.source)) || (o.source === "fixed" && o.kind === "reg")
  );
  if (integer.some((o) => o.size === "b" && (o.source !== "fixed" || o.fixed === 0))) return "byte";
  const width = integer.find((o) => o.source !== "fixed" && /^[wdq]$/.test(o.size));
  const vector = operands.some((o) => o.kind === "xmm" || o.kind === "mm");
  if (width === undefined) return vector ? "dword" : "operand";
  return width.size === "w" ? "word" : width.size === "d" ? "dword" : "qword";
}
