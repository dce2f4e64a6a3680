/**
 * What the kernel's operations cost: user/'s `kbench` on a booted kernel, with exact counts of what the machine did for each operation.
 *
 * Room: `bench/`; imports the machine, the kernel and the lab's archive of user/.
 *
 * A row is a test of kbench. It runs twice in a process of its own, once only preparing (`-p`) and once whole; the difference, divided by
 * the operations, is what one operation costs. Starting the program, its preparation and its end cancel out; what remains of them is the
 * phase of the clock interrupt, a few events in all. All counts follow from the seed alone, only the seconds are the host's.
 *
 * @module
 */
import { MemoryDisk } from "../hw/dev/virtio_blk.ts";
import { type EngineKind, Machine } from "../hw/machine.ts";
import { bootKernel } from "../kernel/boot.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { userArchive } from "../lab/cli/root_archive.ts";
import { type ClockName, seconds } from "./clock.ts";
import { median } from "./measure.ts";

/** One row: a test of kbench. */
export interface KernelRow {
  /** Its name in kbench. */
  readonly name: string;
  /** What one operation is. */
  readonly about: string;
  /** Operations of a run; 0 leaves the choice to kbench. */
  readonly count: number;
  /** The same on more than one processor, where that is much slower. */
  readonly countSmp?: number;
  /** Needs a disk to swap to. */
  readonly swaps?: boolean;
}

/** The rows. */
export const KERNEL_ROWS: readonly KernelRow[] = [
  { name: "syscall", about: "getppid", count: 20_000 },
  { name: "zfod", about: "first write to a page of new memory", count: 4000 },
  { name: "cow", about: "first write to a page shared since fork", count: 1000 },
  { name: "mmap", about: "mmap of 4 pages, a write, munmap", count: 1000 },
  { name: "fork", about: "fork, exit of the child, wait4", count: 100 },
  { name: "forkexec", about: "fork, execve, exit, wait4", count: 50 },
  { name: "pingpong", about: "a byte to another process and one back, by pipes", count: 1000 },
  {
    name: "mprotect",
    about: "the right to write a page taken away and given back, a write",
    count: 200,
    countSmp: 20,
  },
  { name: "swapin", about: "a read of a page that is on the disk", count: 0, swaps: true },
];

/** What is counted; all per operation. */
export const COUNTS = [
  "instructions",
  "steps",
  "faults",
  "walks",
  "references",
  "invalidations",
  "ipis",
  "switches",
  "pagesIn",
] as const;
/** Name of a count. */
export type CountName = (typeof COUNTS)[number];
/** Counts by name. */
export type Counts = Readonly<Record<CountName, number>>;

/** How {@link measureKernel} runs. */
export interface KernelBenchOptions {
  /** Processors. */
  readonly cpus: number;
  /** Times that each row runs, in turns with the others. */
  readonly runs: number;
  /** Which seconds count. */
  readonly clock: ClockName;
  /** Little RAM, and a disk. */
  readonly swaps: boolean;
  /** Default: the machine's. */
  readonly engine?: EngineKind;
}

/** What was measured of a row. */
export interface KernelFigure {
  /** What was run. */
  readonly row: KernelRow;
  /** Operations of each run. */
  readonly operations: number;
  /** Per operation, of the last run: earlier ones fill caches and pools. */
  readonly counts: Counts;
  /** Operations a second of the host, median; 0 where the run was too short to tell. */
  readonly perSecond: number;
}

/** The present state of all counters. */
function readCounts(machine: Machine, k: Kernel): Counts {
  const sum = (of: (counters: Machine["cpus"][number]["counters"]) => number) =>
    machine.cpus.reduce((total, cpu) => total + of(cpu.counters), 0);
  return {
    instructions: machine.instructions,
    steps: machine.gates!.counters.gateSteps,
    faults: sum((c) => c.pageFaults),
    walks: sum((c) => c.walks),
    references: sum((c) => c.references),
    invalidations: sum((c) => c.invalidations),
    ipis: k.vmmeter.vIpi,
    switches: k.vmmeter.vSwtch,
    pagesIn: k.vmmeter.vSwappgsin,
  };
}

/** Counts of one command, and the host's seconds for it. */
interface Sample {
  readonly counts: Counts;
  readonly seconds: number;
}

/** Per operation, to the hundredth. */
function perOperation(whole: Counts, prepared: Counts, operations: number): Counts {
  const of = (name: CountName) => Math.round((whole[name] - prepared[name]) / operations * 100) / 100 + 0;
  return Object.fromEntries(COUNTS.map((name) => [name, of(name)])) as unknown as Counts;
}

/**
 * Boots one machine and measures rows on it.
 *
 * @throws {Error} when a test of kbench fails or the machine does not come to its end.
 */
export async function measureKernel(
  rows: readonly KernelRow[],
  options: KernelBenchOptions,
): Promise<KernelFigure[]> {
  const { cpus, runs, clock, swaps, engine } = options;
  const countOf = (row: KernelRow) => cpus > 1 ? row.countSmp ?? row.count : row.count;
  const commands: (readonly string[])[] = [["/bin/kbench", "nothing"]];
  for (let run = 0; run < runs; run++) {
    for (const row of rows) {
      const count = countOf(row);
      const test = [row.name, ...(count > 0 ? [String(count)] : [])];
      commands.push(["/bin/kbench", "-p", ...test], ["/bin/kbench", ...test]);
    }
  }
  let text = "";
  const samples: Sample[] = [];
  let last: { counts: Counts; at: number } | undefined;
  const machine = new Machine({
    memory: (swaps ? 16 : 64) << 20,
    cpus,
    gates: true,
    ...(engine === undefined ? {} : { engine }),
    ...(swaps ? { disk: new MemoryDisk(new Uint8Array(32 << 20)) } : {}),
    serial: { output: (bytes) => text += new TextDecoder().decode(bytes) },
  });
  bootKernel(machine, {
    archives: [await userArchive()],
    commands,
    verbose: false,
    onCommandEnd(k, status) {
      if (status !== 0) throw new Error(`"${commands[samples.length]!.join(" ")}" ended with ${status}`);
      const now = { counts: readCounts(machine, k), at: seconds(clock) };
      if (last !== undefined) {
        const { counts, at } = last;
        const grown = COUNTS.map((name) => [name, now.counts[name] - counts[name]]);
        samples.push({ counts: Object.fromEntries(grown), seconds: now.at - at });
      }
      last = now;
    },
  });
  const stop = machine.run();
  if (stop.reason !== "poweroff" || samples.length !== commands.length - 1) {
    throw new Error(`The machine ended with "${stop.reason}" after ${samples.length} commands:\n${text}`);
  }
  return rows.map((row, i) => {
    const pairs = Array.from({ length: runs }, (_, run) => {
      const at = 2 * (run * rows.length + i);
      return { prepared: samples[at]!, whole: samples[at + 1]! };
    });
    const operations = countOf(row) || printedOperations(text, row.name);
    const { prepared, whole } = pairs.at(-1)!;
    const spent = median(pairs.map((pair) => pair.whole.seconds - pair.prepared.seconds));
    return {
      row,
      operations,
      counts: perOperation(whole.counts, prepared.counts, operations),
      perSecond: spent > 0 ? operations / spent : 0,
    };
  });
}

/** How often kbench says that it has carried out a test whose count it chose itself. */
function printedOperations(text: string, name: string): number {
  const found = [...text.matchAll(new RegExp(`^${name} operations=(\\d+)`, "gm"))].at(-1);
  if (found === undefined) throw new Error(`kbench says nothing of ${name}:\n${text}`);
  return Number(found[1]);
}
