/**
 * Which sequences of inline forms have a handler of their own: those that stand next to each other most often in what compilers
 * emit, so that the interpreter looks once where it would look two or three times.
 *
 * Room: `hw/engine/`; imports inline_forms.ts. A sequence listed here or not changes speed, never meaning.
 *
 * @module
 */
import type { CpuModel } from "../cpuid.ts";
import { inlineExample, type InlineForm } from "./inline_forms.ts";

/** One instruction of a sequence. */
export interface FusedPart extends InlineForm {
  /** Nobody sees the flags that it sets: they are not stored. */
  readonly flagsAreDead: boolean;
}

/** Forms by name, each as an example. 64 and 32 are operand sizes; i an immediate; load, store and lea take base + displacement. */
const FORMS: Readonly<Record<string, string>> = {
  mov64: "4889c1",
  mov32: "89c1",
  load64: "488b4140",
  load32: "8b4140",
  store64: "48894140",
  store32: "894140",
  store8: "884140",
  store8i: "c6414001",
  loadx64: "488b440840",
  movzx8: "0fb64140",
  lea64: "488d4140",
  leax64: "488d440840",
  mov32i: "b801000000",
  push: "50",
  pop: "58",
  ret: "c3",
  call: "e800000000",
  jmp8: "eb00",
  jmp32: "e900000000",
  jmpx: "ff640840",
  add64: "4801c1",
  sub64: "4829c1",
  and64: "4821c1",
  or64: "4809c1",
  xor64: "4831c1",
  add32: "01c1",
  sub32: "29c1",
  and32: "21c1",
  or32: "09c1",
  xor32: "31c1",
  add64i: "4883c101",
  sub64i: "4883e901",
  and64i: "4883e101",
  add32i: "83c101",
  sub32i: "83e901",
  and32i: "83e101",
  shl64i: "48c1e103",
  shr64i: "48c1e903",
  shr64one: "48d1e9",
  shl32i: "c1e103",
  shr32i: "c1e903",
  rol64i: "48c1c103",
  rol32i: "c1c103",
  ror32i: "c1c903",
  cmp64: "4839c1",
  cmp32: "39c1",
  cmp64i: "4883f901",
  cmp32i: "83f901",
  test64: "4885c1",
  test32: "85c1",
};

/** Pairs that are fused as they stand, and the same with a stroke where the flags of an instruction are dead. */
const PAIRS = `
  pop pop, pop ret, push push, push mov64, mov64 push, push sub64i, add64i pop, add64i ret
  mov64 mov64, mov64 mov32, mov32 mov64, mov32 mov32, mov64 mov32i, mov32i mov64, mov32i mov32i
  mov64 call, mov32 call, mov32i call, lea64 call, load64 call, store64 call, xor32 call
  mov64 jmp8, mov32i jmp8, xor32 jmp8, store64 jmp8, mov64 jmp32, mov32i jmp32
  load64 load64, load64 load32, load32 load64, load32 load32, load64 mov64, mov64 load64, load32 mov64, mov64 load32
  load64 store64, store64 load64, store64 store64, store64 mov64, mov64 store64, lea64 store64, load64 lea64, lea64 load64
  lea64 lea64, lea64 mov64, mov64 lea64, lea64 mov32i, mov32i lea64, store32 load64, store32 store32, movzx8 jmpx
  xor32' mov64, xor32' mov32i, xor32' xor32', mov64 xor32', mov64 xor32, load64 xor32', xor32' load64
  load64 add64i', add64i' load64, store64 add64i', add64i' store64, store8 add64i', store8i add64i', add64i' movzx8
  lea64 sub64i, lea64 add64i', leax64 xor64', leax64 pop, and32i pop
  mov64 add64', mov64 sub64', mov64 and64', mov64 or64', mov64 xor64', mov64 shl64i', mov64 shr64i'
  mov32 add32', mov32 sub32', mov32 and32', mov32 or32', mov32 xor32', mov32 shl32i', mov32 shr32i', mov32 rol32i', mov32 ror32i'
  add64' mov64, sub64' mov64, xor64' mov64, or64' mov64, and64' mov64, shl64i' mov64
  add32' mov32, sub32' mov32, xor32' mov32, or32' mov32, and32' mov32, add32' load32
  add64' add64', add64' xor64', xor64' add64', xor64' xor64', xor64' rol64i', rol64i' xor64', rol64i' sub64', sub64' leax64
  add32' add32', add32' xor32', xor32' add32', and32' xor32', or32' add32', xor32' and32'
  ror32i' ror32i', ror32i' xor32', rol32i' xor32', xor32' ror32i', xor32' rol32i', shl64i' add64', shr64i' and64i', shr64one' add64i'
`;

/** First instructions (with dead flags or none) fused with a comparison and a conditional jump, and which comparisons. */
const BEFORE_JUMPS:
  readonly (readonly [first: string, comparisons: readonly string[], conditions: readonly number[]])[] = [
    ["add64i'", ["cmp64", "cmp64i", "cmp32", "cmp32i"], [2, 4, 5, 6, 7, 12, 14, 15]],
    ["add32i'", ["cmp32", "cmp32i"], [2, 4, 5, 6, 7, 12, 14, 15]],
    ["sub64i'", ["cmp64i", "test64"], [4, 5]],
    ["add64'", ["cmp64", "cmp64i", "cmp32i"], [2, 4, 5, 7, 14]],
    ["load64", ["cmp64", "cmp64i", "test64"], [4, 5]],
    ["load32", ["cmp32", "cmp32i", "test32"], [4, 5]],
    ["movzx8", ["cmp32i"], [4, 5]],
    ["store64", ["cmp64", "cmp64i"], [5]],
    ["store32", ["cmp64"], [5]],
    ["mov64", ["test64", "cmp64"], [4, 5]],
    ["mov32", ["test32", "cmp32i"], [4, 5]],
  ];

/** Mnemonics whose register and immediate forms are fused with a conditional jump behind them. */
const FUSED_WITH_JUMP = new Set(["CMP", "TEST", "SUB", "ADD", "AND", "DEC", "INC"]);
/** Conditions that are fused: B AE E NE BE A S NS L GE LE G. */
const FUSED_CONDITIONS: Readonly<Record<string, readonly number[]>> = {
  CMP: [2, 3, 4, 5, 6, 7, 12, 13, 14, 15],
  TEST: [4, 5, 8, 9, 14, 15],
  SUB: [2, 3, 4, 5],
  ADD: [4, 5],
  AND: [4, 5],
  DEC: [4, 5, 9],
  INC: [4, 5],
};

/** The sequences for a processor model; what follows the first instruction of a longer one is a sequence itself, and stands before it. */
export function fusedSequences(model: CpuModel, singles: readonly InlineForm[]): (readonly FusedPart[])[] {
  const out: (readonly FusedPart[])[] = [];
  const asPart = (entry: InlineForm, flagsAreDead = false): FusedPart => ({ ...entry, flagsAreDead });
  const jumps = singles.filter((entry) => entry.form.row.mnemonic === "J");
  for (const first of singles) {
    const { mnemonic } = first.form.row;
    if (!FUSED_WITH_JUMP.has(mnemonic) || !isFusable(first)) continue;
    for (const second of jumps) {
      if (FUSED_CONDITIONS[mnemonic]!.includes(second.form.cc)) out.push([asPart(first), asPart(second)]);
    }
  }
  const named = (name: string): FusedPart => {
    const example = FORMS[name.replace("'", "")];
    const found = example === undefined ? undefined : inlineExample(model, example);
    if (found === undefined) throw new Error(`No inline form is named "${name}"`);
    return asPart(found, name.endsWith("'"));
  };
  for (const pair of PAIRS.split(/[,\n]/)) {
    const names = pair.trim().split(" ");
    if (names.length === 2) out.push(names.map(named));
  }
  for (const [first, comparisons, conditions] of BEFORE_JUMPS) {
    for (const comparison of comparisons) {
      for (const jump of jumps) {
        // Short jumps only: longer ones leave a loop's body seldom.
        const isShort = jump.form.operands[0]!.width === 8;
        if (isShort && conditions.includes(jump.form.cc)) {
          out.push([named(first), named(comparison), asPart(jump)]);
        }
      }
    }
  }
  return out;
}

/** CMP and TEST with memory are fused too; other operations only on registers. */
function isFusable(entry: InlineForm): boolean {
  const { form } = entry;
  const destination = form.operands[0]!;
  if (form.w === 16) return false;
  if (form.row.mnemonic === "CMP" || form.row.mnemonic === "TEST") {
    return !entry.hasIndex && !(form.operands.some((o) => o.kind === "mem") && form.row.mnemonic === "TEST");
  }
  return destination.kind === "reg" && form.w > 8 && form.operands.every((o) => o.kind !== "mem");
}
