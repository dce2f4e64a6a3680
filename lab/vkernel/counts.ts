/**
 * What a row counts, and where each count comes from: the machine's counters and trace events, the host kernel's counters.
 *
 * Room: `lab/vkernel/`; imports the machine's and the kernel's types.
 *
 * @module
 */
import type { Machine } from "../../hw/machine.ts";
import { exitReasonName } from "../../hw/vmx/explain.ts";
import type { Kernel } from "../../kernel/kernel.ts";

/** The counts, each with what it is. A host is the kernel on the machine itself; a guest, where there is one, is a vkernel on it. */
export const COUNTS = {
  syscalls: "system calls that the host kernel got",
  traps: "exceptions in user mode that the host kernel got",
  interrupts: "interrupts that the host kernel got, IPIs and clock included",
  exits: "VM exits",
  guestTraps: "ways back from guest user mode to the vkernel (vkernel_trap)",
  vpteWalks: "software walks of VPTE tables",
  walks: "page walks by hardware",
  references: "entries of ordinary page tables that hardware walks read",
  eptReferences: "entries of EPT tables that hardware walks read",
  pageFaults: "page faults that processors raised, in whatever mode",
  eptViolations: "EPT violations",
  invlpg: "INVLPG and INVPCID of one address",
  cr3Loads: "loads of CR3 by MOV",
  invept: "INVEPT and INVVPID",
  flushes: "other invalidations of whole contexts",
  madvInvals: "MADV_INVAL: invalidations that a vkernel asked its host for",
  ipis: "messages between processors that a host processor handled (TLB shootdown, wakeup)",
  switches: "context switches of the host",
  steps: "steps of TypeScript code, of every kernel",
  instructions: "instructions of machine code: programs, and the kernels' entry and exit code",
  ticks: "time of the machine's clock: instructions of the busiest processor, and idle time",
} as const;

/** Name of a count. */
export type CountName = keyof typeof COUNTS;
/** All names, in the order of the table. */
export const COUNT_NAMES = Object.keys(COUNTS) as CountName[];

/** Counts at one moment, or their growth. */
export interface Counts {
  readonly totals: Readonly<Record<CountName, number>>;
  /** VM exits by the SDM's name of the basic exit reason. */
  readonly exits: Readonly<Record<string, number>>;
  /** Ways back to the vkernel by trap number. */
  readonly guestTraps: Readonly<Record<string, number>>;
}

/** Which count an operation of `INVALIDATION_RULES` (hw/tlb_rules.ts) belongs to. */
function invalidationKind(operation: string): "invlpg" | "cr3Loads" | "invept" | "flushes" | undefined {
  if (operation === "INVLPG" || operation === "INVPCID address") return "invlpg";
  if (operation === "MOV CR3") return "cr3Loads";
  if (operation.startsWith("INVEPT") || operation.startsWith("INVVPID")) return "invept";
  // A processor drops these by itself on the way through: what such a transition costs is in its price.
  if (operation === "page fault" || /^(VM |EPT violation)/.test(operation)) return undefined;
  return "flushes";
}

/** Reads a machine's counts. One for each machine, made before it runs: it listens from then on. */
export class CountReader {
  readonly #machine: Machine;
  readonly #kernel: Kernel;
  readonly #exits = new Map<string, number>();
  readonly #invalidations = { invlpg: 0, cr3Loads: 0, invept: 0, flushes: 0 };

  /** Begins to listen. */
  constructor(machine: Machine, kernel: Kernel) {
    this.#machine = machine;
    this.#kernel = kernel;
    machine.trace.on(["vmx"], (event) => {
      if (event.what !== "exit") return;
      const name = exitReasonName(event.number);
      this.#exits.set(name, (this.#exits.get(name) ?? 0) + 1);
    });
    machine.trace.on(["invalidate"], (event) => {
      const kind = invalidationKind(event.operation);
      if (kind !== undefined) this.#invalidations[kind]++;
    });
  }

  /** The present state. */
  read(): Counts {
    const { cpus, gates, processors, scheduler, now } = this.#machine;
    const { vmmeter, vkernel } = this.#kernel;
    const all = cpus.map((cpu) => cpu.counters);
    const sum = (of: (counters: typeof all[number]) => number) => all.reduce((total, c) => total + of(c), 0);
    const exits = Object.fromEntries(this.#exits);
    // What the processor whose instruction is being carried out has done of its slice is not in the total yet.
    const running = scheduler.current === null ? 0 : processors[scheduler.current.id]!.elapsed();
    return {
      totals: {
        syscalls: vmmeter.vSyscall,
        traps: vmmeter.vTrap,
        interrupts: vmmeter.vIntr,
        exits: Object.values(exits).reduce((a, b) => a + b, 0),
        guestTraps: vkernel.traps,
        vpteWalks: vkernel.vpteWalks,
        walks: sum((c) => c.walks),
        references: sum((c) => c.references),
        eptReferences: sum((c) => c.eptReferences),
        pageFaults: sum((c) => c.pageFaults),
        eptViolations: sum((c) => c.eptViolations),
        ...this.#invalidations,
        madvInvals: vkernel.invals,
        ipis: vmmeter.vIpi,
        switches: vmmeter.vSwtch,
        steps: gates?.counters.gateSteps ?? 0,
        instructions: scheduler.instructions + running,
        ticks: now,
      },
      exits,
      guestTraps: Object.fromEntries([...vkernel.trapsByNumber].map(([n, count]) => [String(n), count])),
    };
  }
}

function combine(
  a: Readonly<Record<string, number>>,
  b: Readonly<Record<string, number>>,
  of: (a: number, b: number) => number,
): Record<string, number> {
  const names = new Set([...Object.keys(a), ...Object.keys(b)]);
  return Object.fromEntries([...names].sort().map((name) => [name, of(a[name] ?? 0, b[name] ?? 0)]));
}

/** Applies a function to each count of two. */
function zip(a: Counts, b: Counts, of: (a: number, b: number) => number): Counts {
  const totals = Object.fromEntries(COUNT_NAMES.map((name) => [name, of(a.totals[name], b.totals[name])]));
  return {
    totals: totals as Record<CountName, number>,
    exits: combine(a.exits, b.exits, of),
    guestTraps: combine(a.guestTraps, b.guestTraps, of),
  };
}

/** By how much they grew. */
export function grown(before: Counts, after: Counts): Counts {
  return zip(after, before, (a, b) => a - b);
}

/** What one operation costs, given `count` operations and twice as many: to the thousandth. */
export function perOperation(once: Counts, twice: Counts, count: number): Counts {
  return zip(twice, once, (a, b) => Math.round((a - b) / count * 1000) / 1000 + 0);
}

/** Host kernel crossings: every way into the host kernel but VM exits. */
export function crossings({ totals }: Counts): number {
  return totals.syscalls + totals.traps + totals.interrupts;
}
