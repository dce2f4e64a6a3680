/**
 * From counts to time: each count times its price. Processor time of all processors together; busy waiting is not in it.
 *
 * Room: `lab/vkernel/`; imports counts and prices.
 *
 * What a kernel does between its entry and its exit is TypeScript here and has no instructions. It stands in the prices of what it was
 * entered for (`syscallBody`, `faultBody` …): for the host in those of its crossings, for a guest's kernel in those of the calls, faults and
 * interrupts that it got, by its own counters.
 *
 * @module
 */
import type { CostName, Generation } from "./costs.ts";
import type { Kind } from "./kinds.ts";
import type { Row } from "./measure.ts";

/** The parts of an estimate, in the order in which plots stack them. */
export const PARTS = {
  program: "program and entry code",
  guestKernel: "guest kernel's own work",
  crossings: "host kernel crossings",
  vm: "VM exits and entries",
  walks: "page walks, by hardware and software",
  invalidations: "invalidations and CR3 loads",
  processors: "IPIs and context switches",
} as const;

/** Name of a part. */
export type PartName = keyof typeof PARTS;
/** All names. */
export const PART_NAMES = Object.keys(PARTS) as PartName[];

/** An estimate: nanoseconds per operation. */
export interface Estimate {
  readonly generation: string;
  readonly parts: Readonly<Record<PartName, number>>;
  readonly total: number;
}

/** `tf_trapno` of a page fault: the vector (kernel/vm/vkernel_trap.ts). */
const T_PAGEFLT = "14";

/** The same row on one processor: its instructions are the operation's own, without those of threads that only keep processors busy. */
export function singleRowOf(row: Row, rows: readonly Row[]): Row | undefined {
  return rows.find((other) =>
    other.kind === row.kind && other.cpus === 1 && other.model === row.model &&
    other.workload === row.workload && other.argument === row.argument && other.label === row.label
  );
}

/**
 * Estimates.
 *
 * @param single The row on one processor, if there is one.
 */
export function estimate(row: Row, generation: Generation, single: Row = row): Estimate {
  const price = (name: CostName, count: number) => generation.costs[name].cycles * count;
  const { totals, vkernelTraps } = row.counts;
  /** Faults that the host hands to the vkernel: it gets no page for them, it copies out a frame. */
  const handedOn = row.kind === "vpte" ? Math.min(totals.traps, vkernelTraps[T_PAGEFLT] ?? 0) : 0;
  const cycles: Record<PartName, number> = {
    program: price("instruction", single.counts.totals.instructions),
    guestKernel: guestKernel(row.kind, price, totals),
    crossings: price("syscallTransition", totals.syscalls) +
      price("syscallBody", totals.syscalls + handedOn) +
      price("faultTransition", totals.traps + totals.interrupts) +
      price("faultBody", totals.traps - handedOn) + price("interruptBody", totals.interrupts),
    vm: price("vmTransition", totals.exits) + price("exitBody", totals.exits) +
      price("faultBody", totals.eptViolations) + price("syscallBody", totals.exitSyscalls + totals.exitTraps),
    walks: price("reference", totals.references + totals.eptReferences) +
      price("vpteWalk", totals.vpteWalks) + price("guestWalk", totals.guestWalks),
    invalidations: price("invlpg", totals.invlpg) + price("cr3Load", totals.cr3Loads) +
      price("invept", totals.invept) + price("flush", totals.flushes),
    processors: price("ipi", totals.ipis) + price("contextSwitch", totals.switches),
  };
  const parts = Object.fromEntries(
    PART_NAMES.map((name) => [name, Math.max(0, cycles[name]) / generation.gigahertz]),
  ) as Record<PartName, number>;
  return {
    generation: generation.name,
    parts,
    total: PART_NAMES.reduce((sum, name) => sum + parts[name], 0),
  };
}

/** The guest kernel's work. Where it runs in ring 0, its system calls, faults and interrupts are hardware's, and stay inside. */
function guestKernel(
  kind: Kind,
  price: (name: CostName, count: number) => number,
  totals: Row["counts"]["totals"],
): number {
  const { guestSyscalls, guestFaults, guestInterrupts, guestSwitches } = totals;
  const bodies = price("syscallBody", guestSyscalls) + price("faultBody", guestFaults) +
    price("interruptBody", guestInterrupts) + price("contextSwitch", guestSwitches);
  if (kind !== "ring0") return bodies;
  return bodies + price("syscallTransition", guestSyscalls) +
    price("faultTransition", guestFaults + guestInterrupts);
}
