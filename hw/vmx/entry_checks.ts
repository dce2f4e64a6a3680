/**
 * The checks of VM entry as they are carried out: all of them in order, or, when a VMCS comes again, only those that look at something
 * that has changed since it passed.
 *
 * A rule's list of fields says what it looks at (a test holds it to that). What passed is kept as a copy of the region's fields, and
 * compared word by word: so it does not matter how a field was changed. Rules that look at memory or at the processor are always asked. The
 * copies are a cache: they decide nothing.
 *
 * Room: `hw/vmx/`; imports the tables of rules. entry.ts is its user.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import * as state from "../state.ts";
import type { EntryContext, Rule } from "./check.ts";
import { controlRules } from "./checks_controls.ts";
import { guestRules } from "./checks_guest.ts";
import { hostRules } from "./checks_host.ts";
import { F, fieldNames, fieldOffset } from "./fields.ts";

const { PAGE_FLAGS_BASE, PAGE_RAM, RAM_BASE, S } = state;

/** Rules that look beyond the VMCS's fields: at memory, or at the processor's state. */
const ALWAYS_ASKED: ReadonlySet<string> = new Set([
  "tprThresholdAboveVtpr",
  "hostSizeIsProcessors",
  "ia32eGuestNeedsLongMode",
  "pendingDebugSingleStep",
  "linkPointerRevision",
  "linkPointerShadow",
  "linkPointerNotCurrent",
  "guestPdpte0",
  "guestPdpte1",
  "guestPdpte2",
  "guestPdpte3",
]);

/** Fields that nearly every rule may depend on: when one has changed, all are asked. */
const DECISIVE: ReadonlySet<number> = new Set([
  F.PIN_BASED_CONTROLS,
  F.PROCESSOR_BASED_CONTROLS,
  F.SECONDARY_CONTROLS,
  F.EXIT_CONTROLS,
  F.ENTRY_CONTROLS,
]);

const FIRST = fieldOffset[F[fieldNames[0]!]]! >>> 2;
const WORDS = fieldNames.length * 2;

const allRules: readonly Rule[] = [...controlRules, ...hostRules, ...guestRules];
const always: readonly Rule[] = allRules.filter((rule) => ALWAYS_ASKED.has(rule.name));
/** By field: null for a decisive one, else the rules that look at it. */
const rulesByField: readonly (readonly Rule[] | null)[] = fieldNames.map((name) =>
  DECISIVE.has(F[name])
    ? null
    : allRules.filter((rule) => rule.fields.includes(name) && !ALWAYS_ASKED.has(rule.name))
);

/** The first rule of a table that does not hold. */
export function firstFailure(rules: readonly Rule[], c: EntryContext): Rule | undefined {
  for (let i = 0; i < rules.length; i++) if (!rules[i]!.holds(c)) return rules[i];
  return undefined;
}

/** Copies of the fields of VMCSs that passed, by the lower half of their addresses. */
const PASSED_MAX = 16;
const passed = new WeakMap<Cpu, Map<number, Int32Array>>();

/** Index of the first field's word in memory, or −1 where the current VMCS is not in plain RAM. */
function firstWord(cpu: Cpu): number {
  const low = cpu.get32(S.VMX_POINTER);
  if (cpu.get32(S.VMX_POINTER + 4) !== 0 || !(cpu.memory.u8[PAGE_FLAGS_BASE + (low >>> 12)]! & PAGE_RAM)) {
    return -1;
  }
  return ((RAM_BASE + low) >>> 2) + FIRST;
}

/** True when the current VMCS certainly passes all checks, because it did before and nothing that matters has changed. */
export function passesAgain(cpu: Cpu, c: EntryContext): boolean {
  const copy = passed.get(cpu)?.get(cpu.get32(S.VMX_POINTER)), first = firstWord(cpu);
  if (copy === undefined || first < 0) return false;
  const i32 = cpu.memory.i32;
  for (let i = 0; i < WORDS; i++) {
    if (i32[first + i] === copy[i]) continue;
    const rules = rulesByField[i >>> 1];
    if (rules === null || rules === undefined) return false;
    for (let r = 0; r < rules.length; r++) if (!rules[r]!.holds(c)) return false;
    // A field of two words is asked about once.
    copy[i | 1] = i32[first + (i | 1)]!;
    copy[i & ~1] = i32[first + (i & ~1)]!;
  }
  for (let r = 0; r < always.length; r++) if (!always[r]!.holds(c)) return false;
  return true;
}

/** The current VMCS has passed all checks. */
export function notePassed(cpu: Cpu): void {
  const first = firstWord(cpu);
  if (first < 0) return;
  let copies = passed.get(cpu);
  if (copies === undefined) passed.set(cpu, copies = new Map());
  if (copies.size >= PASSED_MAX) copies.clear();
  copies.set(cpu.get32(S.VMX_POINTER), cpu.memory.i32.slice(first, first + WORDS));
}
