/**
 * The interpreter's switch for a processor model: which handlers stand in it, what each does to the flags, and the compiled module.
 *
 * Room: `hw/engine/`; imports `wasm/` and the decoder. Made once for a model and used by every machine that has it: compiling
 * the switch is the dear part of building a machine.
 *
 * @module
 */
import type { CpuModel } from "../cpuid.ts";
import type { Form } from "../isa/form.ts";
import { SEG } from "../state.ts";
import { type FusedPart, fusedSequences } from "./fused_forms.ts";
import { type InlineForm, inlineForms } from "./inline_forms.ts";
import type { Effects } from "./wasm/base.ts";
import { type InlineHandler, PSEUDO, writeCalled, writeInterpreter } from "./wasm/interpreter_module.ts";

/** What the code cache must know of a handler to see which flags are dead, as bits of {@link Handlers.traits}. */
export const TRAIT = {
  /** Others may see the flags as they are before this instruction: it reads them, or may leave the line. */
  needsFlags: 1,
  /** It sets all six flags whatever happens. */
  killsFlags: 2,
} as const;

/** A compiled switch. */
export interface CompiledSwitch {
  /** Exports `run`. */
  readonly module: WebAssembly.Module;
  /** Procedures that it imports. */
  readonly procedures: readonly string[];
}

/** The switch of one model. */
export interface HandlerPlan {
  /** The switch for memories of so many pages of 64 KiB and the processor whose block is at `base`. Made when first asked for. */
  compiled(memoryPages: number, base: number): CompiledSwitch;
  /** Handler number by {@link handlerKey}. */
  readonly byKey: ReadonlyMap<string, number>;
  /** Fused handler by first × 65536 + what stands behind it, which may be fused itself. */
  readonly fused: ReadonlyMap<number, number>;
  /** For a fused handler, the handler of its first instruction alone; for one without flags, that with; otherwise the handler itself. */
  readonly plain: Uint16Array;
  /** By handler: the variant that stores no flags, or the handler itself. */
  readonly flagless: Uint16Array;
  /** By handler: {@link TRAIT} bits. */
  readonly traits: Uint8Array;
}

const plans = new WeakMap<CpuModel, HandlerPlan>();

/** The plan for a model. */
export function handlerPlan(model: CpuModel): HandlerPlan {
  const known = plans.get(model);
  if (known) return known;
  const plan = makePlan(model);
  plans.set(model, plan);
  return plan;
}

function makePlan(model: CpuModel): HandlerPlan {
  const singles = inlineForms(model);
  const handlers: InlineHandler[] = singles.map((part) => ({ parts: [part] }));
  const first = PSEUDO.first;
  const byKey = new Map(singles.map((part, i) => [handlerKey(part.form, part.hasIndex), first + i]));
  const plain = Array.from({ length: first + singles.length }, (_, i) => i);
  const add = (handler: InlineHandler, alone: number): number => {
    plain.push(alone);
    return first + handlers.push(handler) - 1;
  };
  const effects = singles.map(effectsOf);
  const flagless = plain.slice();
  singles.forEach((part, i) => {
    if (!effects[i]!.sets || effects[i]!.reads) return;
    flagless[first + i] = add({ parts: [{ ...part, flagsAreDead: true }] }, first + i);
  });
  const numberOf = (part: FusedPart): number => {
    const number = byKey.get(handlerKey(part.form, part.hasIndex))!;
    return part.flagsAreDead ? flagless[number]! : number;
  };
  const fused = new Map<number, number>();
  for (const parts of fusedSequences(model, singles)) {
    const numbers = parts.map(numberOf);
    const rest = numbers.slice(1).reduceRight((behind, number) => fused.get(number * 0x1_0000 + behind)!);
    const key = numbers[0]! * 0x1_0000 + rest;
    if (!fused.has(key)) fused.set(key, add({ parts }, plain[numbers[0]!]!));
  }
  for (let i = flagless.length; i < plain.length; i++) flagless.push(i);
  const traits = new Uint8Array(plain.length).fill(TRAIT.needsFlags);
  effects.forEach((e, i) => {
    traits[first + i] = (e.reads || e.exits ? TRAIT.needsFlags : 0) | (e.kills ? TRAIT.killsFlags : 0);
  });
  const switches = new Map<string, CompiledSwitch>();
  return {
    compiled: (memoryPages, base) => {
      const key = `${memoryPages} ${base}`;
      let found = switches.get(key);
      if (found === undefined) {
        const { bytes, procedures } = writeInterpreter(memoryPages, base, handlers);
        switches.set(key, found = { module: new WebAssembly.Module(bytes), procedures });
      }
      return found;
    },
    byKey,
    fused,
    plain: Uint16Array.from(plain),
    flagless: Uint16Array.from(flagless),
    traits,
  };
}

/** What the description of an inline form does, found by writing it once. */
function effectsOf(part: InlineForm): Effects {
  return writeCalled([{ parts: [part] }]).effects[0]!;
}

/** Which word of a form's key is the segment (decode.ts makes the keys). */
const SEGMENT_IN_KEY = 7;

/**
 * Forms with equal keys share a handler. In 64-bit mode ES, CS, SS and DS differ only in the exception for a non-canonical
 * address, which the access's slow path finds out ({@link segmentOfRecord}).
 */
export function handlerKey(form: Form, hasIndex: boolean): string {
  let { key } = form;
  if (form.mode === 2 && form.segment >= 0 && form.segment < SEG.FS) {
    const parts = key.split(" ");
    parts[SEGMENT_IN_KEY] = String(SEG.DS);
    key = parts.join(" ");
  }
  return hasIndex ? `${key}|i` : key;
}
