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
  syscalls: "system calls that the host kernel got by SYSCALL",
  traps: "exceptions in user mode that the host kernel got by its IDT",
  interrupts: "interrupts that the host kernel got, IPIs and clock included",
  exits: "VM exits",
  exitSyscalls: "of these, system calls of the host",
  exitTraps: "of these, exceptions of a guest",
  vkernelTraps: "ways back from guest user mode to the vkernel (vkernel_trap)",
  guestSyscalls: "system calls that the guest's kernel got",
  guestFaults: "exceptions in user mode that the guest's kernel got",
  guestInterrupts: "interrupts that the guest's kernel got",
  guestSwitches: "context switches of the guest's kernel",
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
  adEmulated: "EPT violations that only set an emulated accessed or dirty bit",
  guestWalks: "walks of guest page tables by the host's software, for copies from and to a guest",
  twinCopies: "such copies by the process's own addresses instead (design twin)",
  twinUpdates: "changes of a map applied to its second tables (design twin)",
  syncAddrs: "vmm_guest_sync_addr: changes of an entry that other virtual processors may use",
  vmcsAccesses: "VMREADs and VMWRITEs",
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
  readonly vkernelTraps: Readonly<Record<string, number>>;
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
  readonly #guests: readonly Kernel[];
  readonly #exits = new Map<string, number>();
  readonly #invalidations = { invlpg: 0, cr3Loads: 0, invept: 0, flushes: 0 };

  /**
   * Begins to listen.
   *
   * @param guests The kernels of the vkernels on it; they may come later.
   */
  constructor(machine: Machine, kernel: Kernel, guests: readonly Kernel[] = []) {
    this.#machine = machine;
    this.#kernel = kernel;
    this.#guests = guests;
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
    const { vmmeter, vkernel, vmm } = this.#kernel;
    const all = cpus.map((cpu) => cpu.counters);
    const sum = (of: (counters: typeof all[number]) => number) => all.reduce((total, c) => total + of(c), 0);
    const ofGuests = (name: "vSyscall" | "vTrap" | "vIntr" | "vSwtch") =>
      this.#guests.reduce((total, { vmmeter }) => total + vmmeter[name], 0);
    const exits = Object.fromEntries(this.#exits);
    const exitSyscalls = vmm.counters.syscalls;
    // A system call at ring 3 is an exception (#UD); at ring 0 it is VMCALL.
    const exceptions = vmm.counters.exceptions.reduce((a, b) => a + b, 0);
    const byException = Math.max(0, exitSyscalls + vmm.counters.hypercalls - (exits["vmcall"] ?? 0));
    const exitTraps = exceptions - byException;
    // What the processor whose instruction is being carried out has done of its slice is not in the total yet.
    const running = scheduler.current === null ? 0 : processors[scheduler.current.id]!.elapsed();
    return {
      totals: {
        // What came by a VM exit the kernel counts as what it is, too.
        syscalls: vmmeter.vSyscall - exitSyscalls,
        traps: vmmeter.vTrap - exitTraps,
        interrupts: vmmeter.vIntr,
        exits: Object.values(exits).reduce((a, b) => a + b, 0),
        exitSyscalls,
        exitTraps,
        vkernelTraps: vkernel.traps,
        guestSyscalls: ofGuests("vSyscall"),
        guestFaults: ofGuests("vTrap"),
        guestInterrupts: ofGuests("vIntr"),
        guestSwitches: ofGuests("vSwtch"),
        vpteWalks: vkernel.vpteWalks,
        walks: sum((c) => c.walks),
        references: sum((c) => c.references),
        eptReferences: sum((c) => c.eptReferences),
        pageFaults: sum((c) => c.pageFaults),
        eptViolations: sum((c) => c.eptViolations),
        ...this.#invalidations,
        adEmulated: vmm.counters.adEmulated,
        guestWalks: vmm.counters.guestWalks,
        twinCopies: vmm.counters.twinCopies,
        twinUpdates: vmm.counters.twinUpdates,
        syncAddrs: vmm.counters.syncAddrs,
        vmcsAccesses: vmm.counters.vmreads + vmm.counters.vmwrites,
        madvInvals: vkernel.invals,
        ipis: vmmeter.vIpi,
        switches: vmmeter.vSwtch,
        steps: gates?.counters.gateSteps ?? 0,
        instructions: scheduler.instructions + running,
        ticks: now,
      },
      exits,
      vkernelTraps: Object.fromEntries([...vkernel.trapsByNumber].map(([n, count]) => [String(n), count])),
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
    vkernelTraps: combine(a.vkernelTraps, b.vkernelTraps, of),
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
