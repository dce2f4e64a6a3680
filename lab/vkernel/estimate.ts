/**
 * From counts to time: each count times its price. Processor time of all processors together; busy waiting is not in it.
 *
 * Room: `lab/vkernel/`; imports counts and prices.
 *
 * What a kernel does between its entry and its exit is TypeScript here and has no instructions. On the host it stands in the prices of
 * crossings (`syscallBody`, `faultBody` …). A guest's kernel does the same work for the same operation, so a guest's row takes it from the
 * host's row for that operation; what the host does besides, to serve the guest, is in the guest row's own crossings.
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
  walks: "page walks",
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

/** A row's counterpart on the host: the same operation, model and processors. */
export function hostRowOf(row: Row, rows: readonly Row[]): Row | undefined {
  return rows.find((other) => other.kind === "host" && sameButKind(row, other));
}

/** The same row on one processor: its instructions are the operation's own, without those of threads that only keep processors busy. */
export function singleRowOf(row: Row, rows: readonly Row[]): Row | undefined {
  return rows.find((other) =>
    other.kind === row.kind && other.cpus === 1 && other.model === row.model &&
    other.workload === row.workload && other.argument === row.argument
  );
}

function sameButKind(a: Row, b: Row): boolean {
  return a.workload === b.workload && a.model === b.model && a.cpus === b.cpus && a.label === b.label &&
    a.argument === b.argument;
}

/**
 * Estimates.
 *
 * @param host The host's row for the same operation; its own for a row of the host.
 * @param single The row on one processor, if there is one.
 */
export function estimate(row: Row, generation: Generation, host: Row, single: Row = row): Estimate {
  const price = (name: CostName, count: number) => generation.costs[name].cycles * count;
  const { totals, guestTraps } = row.counts;
  const own = host.counts.totals;
  const isGuest = row.kind !== "host";
  /** Faults that the host hands to the vkernel: it gets no page for them, it copies out a frame. */
  const handedOn = row.kind === "vpte" ? Math.min(totals.traps, guestTraps[T_PAGEFLT] ?? 0) : 0;
  const cycles: Record<PartName, number> = {
    program: price("instruction", single.counts.totals.instructions),
    guestKernel: isGuest ? guestKernel(row.kind, price, own) : 0,
    crossings: price("syscallTransition", totals.syscalls) +
      price("syscallBody", totals.syscalls + handedOn) +
      price("faultTransition", totals.traps + totals.interrupts) +
      price("faultBody", totals.traps - handedOn) + price("interruptBody", totals.interrupts),
    vm: price("vmTransition", totals.exits) + price("exitBody", totals.exits) +
      price("faultBody", totals.eptViolations),
    walks: price("reference", totals.references + totals.eptReferences) + price("vpteWalk", totals.vpteWalks),
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

/** The guest kernel's work for the operation. Where it runs in ring 0, its system calls and faults are hardware's, and nobody outside counts them. */
function guestKernel(
  kind: Kind,
  price: (name: CostName, count: number) => number,
  own: Row["counts"]["totals"],
): number {
  const bodies = price("syscallBody", own.syscalls) + price("faultBody", own.traps) +
    price("contextSwitch", own.switches);
  if (kind !== "ring0") return bodies;
  return bodies + price("syscallTransition", own.syscalls) + price("faultTransition", own.traps);
}
