/**
 * What was expected before anything was measured: the model of section 22 of the reference (derived from DragonFly's sources, not published
 * by anybody), worked out for vkbench's operations, and the comparison with the rows.
 *
 * Room: `lab/vkernel/`; imports rows.
 *
 *     C    host kernel crossings: system calls and traps (clock interrupts are not the operation's)
 *     X    VM exits, each with its entry
 *     W    software walks of VPTE tables
 *
 *     guest event                        vpte            vmm
 *     system call, no fault              2 C             2 X
 *     page fault, page resident          3 C, 2 W        2 X
 *     PTE change, n virtual processors   1 C             1 X, n − 1 forced exits
 *     first touch of a page of RAM       included        1 X
 *     TLB miss                           4 loads         up to 24 loads
 *
 * For vpte the model calls a first touch "included above", which holds where the guest itself makes it: its second fault then finds no page. Here the
 * vkernel makes it, as it zeroes the page: 1 C.
 *
 * @module
 */
import type { Kind } from "./kinds.ts";
import type { Row } from "./measure.ts";

/** What an operation is made of, as the guest's kernel sees it. */
export interface Events {
  readonly syscalls: number;
  readonly faults: number;
  /** Changes of PTEs that TLBs may know. */
  readonly changes: number;
}

/** The operations that are simple enough. */
export const EVENTS: Readonly<Record<string, Events>> = {
  syscall: { syscalls: 1, faults: 0, changes: 0 },
  zfod: { syscalls: 0, faults: 1, changes: 0 },
  fresh: { syscalls: 0, faults: 1, changes: 0 },
  // The page leaves the mappings of both, child and parent, before the child gets its copy. A processor need not hear of a space that it is
  // not in; the host of a vkernel must, since it alone knows what it has made of that space's tables.
  cow: { syscalls: 0, faults: 1, changes: 2 },
  // Writing forbidden: the entry changes. Allowed again: it does not, the fault that follows changes it.
  mprotect: { syscalls: 2, faults: 1, changes: 2 },
};

/** The model's counts for an operation. */
export interface Prediction {
  readonly crossings: number;
  readonly exits: number;
  readonly vpteWalks: number;
}

/** What the first use of a page of a guest's RAM adds: the host's own fault for it, or an EPT violation. */
function firstTouch(workload: string): number {
  return workload === "fresh" ? 1 : 0;
}

/** What the model says of an operation in a kind of guest; undefined where it says nothing. */
export function predict(workload: string, kind: Kind, cpus: number): Prediction | undefined {
  const events = EVENTS[workload];
  if (events === undefined) return undefined;
  const { syscalls, faults, changes } = events;
  // Only mprotect's threads run in the address space whose entries change.
  const others = workload === "mprotect" ? cpus - 1 : 0;
  const first = firstTouch(workload);
  switch (kind) {
    case "host":
      return { crossings: syscalls + faults, exits: 0, vpteWalks: 0 };
    case "vpte":
      return { crossings: 2 * syscalls + 3 * faults + changes + first, exits: 0, vpteWalks: 2 * faults };
    case "vmm":
      return {
        crossings: 0,
        exits: 2 * syscalls + 2 * faults + changes * (1 + others) + first,
        vpteWalks: 0,
      };
    case "ring0":
      // Not in section 22. Faults, system calls and INVLPG stay inside. An IPI to another virtual processor is a signal: a call to send it,
      // an exit there, and a call there to ask what has come. (Calls to yield while it waits are not foreseen.)
      return { crossings: 0, exits: 3 * changes * others + first, vpteWalks: 0 };
  }
}

/** A row beside its prediction. */
export interface Comparison {
  readonly row: Row;
  readonly predicted: Prediction;
  readonly found: Prediction;
}

/** The rows that the model says something of. */
export function compareWithModel(rows: readonly Row[]): Comparison[] {
  return rows.flatMap((row) => {
    const predicted = predict(row.workload, row.kind, row.cpus);
    if (predicted === undefined) return [];
    const { syscalls, traps, exits, vpteWalks } = row.counts.totals;
    return [{ row, predicted, found: { crossings: syscalls + traps, exits, vpteWalks } }];
  });
}
