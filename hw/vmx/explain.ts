/**
 * Why did it fail? VM entries by their rules, VMX instructions by their error numbers, VM exits by their reasons, triple faults by what
 * led to them. Everything here only looks: no field, flag, cache or time changes.
 *
 * Room: `hw/vmx/`; imports the rules, the names of the fields and the trace. For tools and people. Page faults and EPT are
 * explained by explain_walk.ts and explain_ept.ts.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import type { EventOf, Trace } from "../trace.ts";
import * as vmcs from "../vmcs.ts";
import type { EntryContext, Rule } from "./check.ts";
import { controlRules } from "./checks_controls.ts";
import { guestRules } from "./checks_guest.ts";
import { hostRules } from "./checks_host.ts";
import { REASON } from "./contract.ts";
import { entryContext } from "./entry.ts";
import { F, type FieldName, fieldWidth } from "./fields.ts";

/** A field as a rule saw it. */
export interface SeenField {
  /** Its name. */
  readonly name: FieldName;
  /** Encoding for VMREAD. */
  readonly encoding: number;
  /** Its value now. */
  readonly value: bigint;
}

/** A rule that the current VMCS breaks. */
export interface BrokenRule {
  /** Name of the check. */
  readonly rule: string;
  /** Title of the SDM's section. */
  readonly section: string;
  /** The fields that it looks at, with their values. */
  readonly fields: readonly SeenField[];
  /** What would satisfy it. */
  readonly satisfied: string;
  /** What comes of it. */
  readonly outcome: "VMfailValid(7)" | "VMfailValid(8)" | "exit reason 33";
  /** Exit qualification; only with exit reason 33. */
  readonly qualification: number;
}

/** Digits of a field's value, by its width. */
const DIGITS = [4, 16, 8, 16] as const;

/** Reads a field of the current VMCS, unsigned. */
function valueOf(cpu: Cpu, name: FieldName): bigint {
  const width = fieldWidth(F[name]);
  return width === 0 || width === 2 ? BigInt(vmcs.get32(cpu, F[name]) >>> 0) : vmcs.get64(cpu, F[name]);
}

function broken(c: EntryContext, rule: Rule, outcome: BrokenRule["outcome"]): BrokenRule {
  return {
    rule: rule.name,
    section: rule.section,
    fields: rule.fields.map((name) => ({ name, encoding: F[name], value: valueOf(c.cpu, name) })),
    satisfied: rule.satisfied,
    outcome,
    qualification: rule.qualification ?? 0,
  };
}

/**
 * Every rule that a VM entry with the current VMCS would break now, in the manual's order: the first is the one that decides. Empty when
 * the entry would pass its checks (the MSR-load area is not among them: it is carried out, not checked).
 *
 * @throws {Error} when there is no current VMCS.
 */
export function explainEntry(cpu: Cpu): readonly BrokenRule[] {
  if (!vmcs.hasCurrent(cpu)) throw new Error("Cannot explain a VM entry: there is no current VMCS");
  const c = entryContext(cpu);
  const tables = [
    [controlRules, "VMfailValid(7)"],
    [hostRules, "VMfailValid(8)"],
    [guestRules, "exit reason 33"],
  ] as const;
  return tables.flatMap(([rules, outcome]) =>
    rules.filter((rule) => !rule.holds(c)).map((rule) => broken(c, rule, outcome))
  );
}

/** One broken rule as text: the rule, its section, the fields with their values, what would satisfy it. */
export function describeBrokenRule(b: BrokenRule): string {
  const fields = b.fields.map((f) => {
    const digits = DIGITS[fieldWidth(f.encoding)]!;
    return `    ${f.name} (${f.encoding.toString(16).padStart(4, "0").toUpperCase()}H) = ${
      f.value.toString(16).padStart(digits, "0").toUpperCase()
    }H`;
  });
  const qualification = b.outcome === "exit reason 33" ? `, qualification ${b.qualification}` : "";
  return [
    `${b.outcome}${qualification}: ${b.rule}`,
    `    SDM vol. 3C, "${b.section}"`,
    ...fields,
    `    wanted: ${b.satisfied}`,
  ].join("\n");
}

/** Texts of the VM-instruction error numbers (SDM vol. 3C, "VM Instruction Error Numbers"), in short. */
const ERRORS: Readonly<Record<number, string>> = {
  1: "VMCALL in VMX root operation",
  2: "VMCLEAR with an invalid physical address",
  3: "VMCLEAR with the VMXON pointer",
  4: "VMLAUNCH with a VMCS that is not clear",
  5: "VMRESUME with a VMCS that is not launched",
  7: "VM entry with invalid control fields",
  8: "VM entry with invalid host-state fields",
  9: "VMPTRLD with an invalid physical address",
  10: "VMPTRLD with the VMXON pointer",
  11: "VMPTRLD with a wrong revision identifier (or a shadow VMCS where there are none)",
  12: "VMREAD or VMWRITE of a field that the processor has not",
  13: "VMWRITE of a read-only field",
  15: "VMXON in VMX root operation",
  26: "VM entry with events blocked by MOV SS",
  28: "INVEPT or INVVPID with an invalid operand",
};

/** What a VMfail means; for 7 and 8 with the rules that are broken now. */
export function explainFailure(cpu: Cpu): string {
  if (!vmcs.hasCurrent(cpu)) return "VMfailInvalid: there is no current VMCS";
  const error = vmcs.get32(cpu, F.INSTRUCTION_ERROR);
  const text = `VMfailValid(${error}): ${ERRORS[error] ?? "no such error"}`;
  if (error !== 7 && error !== 8) return text;
  const rules = explainEntry(cpu).filter((b) => b.outcome === `VMfailValid(${error})`);
  return [text, ...rules.map(describeBrokenRule)].join("\n");
}

const REASON_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(REASON).map(([name, number]) => [number, name.toLowerCase().replaceAll("_", " ")]),
);

/** Name of a basic exit reason. */
export function exitReasonName(reason: number): string {
  return REASON_NAMES.get(reason & 0xffff) ?? `reason ${reason & 0xffff}`;
}

/** The exit information of the current VMCS as text; of a failed entry the rules that are broken now. */
export function explainExit(cpu: Cpu): string {
  const reason = vmcs.get32(cpu, F.EXIT_REASON);
  const lines = [
    `${reason < 0 ? "VM-entry failure" : "VM exit"} ${reason & 0xffff}: ${
      exitReasonName(reason)
    }, qualification ${hex(valueOf(cpu, "EXIT_QUALIFICATION"))}`,
  ];
  if (reason < 0) {
    if ((reason & 0xffff) === REASON.ENTRY_GUEST_STATE) {
      lines.push(...explainEntry(cpu).filter((b) => b.outcome === "exit reason 33").map(describeBrokenRule));
    }
    return lines.join("\n");
  }
  lines.push(`    guest RIP ${hex(valueOf(cpu, "GUEST_RIP"))}`);
  const interruption = vmcs.get32(cpu, F.EXIT_INTERRUPTION_INFORMATION);
  const vectoring = vmcs.get32(cpu, F.IDT_VECTORING_INFORMATION);
  if (interruption < 0) {
    lines.push(`    ${event(interruption, vmcs.get32(cpu, F.EXIT_INTERRUPTION_ERROR_CODE))}`);
  }
  if (vectoring < 0) {
    lines.push(`    while delivering ${event(vectoring, vmcs.get32(cpu, F.IDT_VECTORING_ERROR_CODE))}`);
  }
  return lines.join("\n");
}

const TYPES = [
  "external interrupt",
  "reserved",
  "NMI",
  "exception",
  "software interrupt",
  "INT1",
  "software exception",
  "other event",
] as const;

function event(information: number, code: number): string {
  const text = `${TYPES[(information >>> 8) & 7]} ${information & 0xff}`;
  return information & 0x800 ? `${text}, error code ${hex(BigInt(code >>> 0))}` : text;
}
function hex(value: bigint): string {
  return `${value.toString(16).toUpperCase()}H`;
}

/** How a triple fault came about: the exceptions whose delivery failed, the first one first. */
export class FaultChain {
  readonly #chains = new Map<number, EventOf<"exception">[]>();

  /** Listens to the exceptions of a machine from now on. */
  constructor(trace: Trace) {
    trace.on(["exception"], (e) => {
      const chain = this.#chains.get(e.cpu);
      // Exceptions that follow from each other's delivery have one time: no instruction lies between them.
      if (chain !== undefined && chain[0]!.time === e.time && chain[0]!.rip === e.rip) chain.push(e);
      else this.#chains.set(e.cpu, [e]);
    });
  }

  /** The latest exceptions of a processor that followed from one another. */
  of(cpu: number): readonly EventOf<"exception">[] {
    return this.#chains.get(cpu) ?? [];
  }

  /** The same as text. */
  describe(cpu: number): string {
    return this.of(cpu).map((e, i) =>
      `${i === 0 ? "" : "its delivery raised "}#${e.vector}${
        e.errorCode < 0 ? "" : `(${hex(BigInt(e.errorCode))})`
      } at RIP ${hex(e.rip)}`
    ).join("\n");
  }
}
