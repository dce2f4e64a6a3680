/**
 * Measures rows: workloads on the host kernel, or in a vkernel on it, on a machine of their own.
 *
 * Room: `lab/vkernel/`; imports the machine, the kernel, and the lab's archive of user/.
 *
 * A fresh machine boots the host kernel, with the CPU model's TLB geometry, and perhaps one vkernel on it. Each operation is carried out `count`
 * times to warm up, `count` times, and `2 · count` times, each time by a process of its own; vkbench says on the console when it begins and when it is done. What
 * the last run counted between these marks, less what the one before counted, divided by `count`, is what one operation costs. Marks, starts and
 * ends of programs cancel out. Clock interrupts do not: they belong to the time that an operation takes. The same options give the same figures.
 *
 * @module
 */
import { Machine, type MachineOptions } from "../../hw/machine.ts";
import { type CpuModel, cpuModels, customModel } from "../../hw/cpuid.ts";
import { bootKernel } from "../../kernel/boot.ts";
import type { Kernel, KernelOptions } from "../../kernel/kernel.ts";
import { CountReader, type Counts, grown, perOperation } from "./counts.ts";
import { type Kind, rowCommands } from "./kinds.ts";
import { type Mark, MarkReader } from "./marks.ts";
import { commandOf, countOf, programOf, type Workload } from "./workloads.ts";

/** Bytes of the host's RAM. */
const HOST_MEMORY = 96 << 20;
/**
 * Slices of several processors: short, so that one that waits for another does not wait longer than on a real machine. (With the usual
 * slices of thousands of instructions, an IPI would take tens of microseconds.)
 */
const QUANTUM: readonly [number, number] = [20, 100];
/** A machine that takes more instructions than this hangs. */
const STEPS_MAX = 4e9;
/** Lines of the console that an error shows. */
const TAIL_LINES = 12;

/** One workload to measure. */
export interface Job {
  readonly workload: Workload;
  /** vkbench's ARG, instead of the workload's own. */
  readonly argument?: number;
}

/** Where, and on what. */
export interface Place {
  readonly kind: Kind;
  /** Name of one of `cpuModels`, or such a name and `-noad`. */
  readonly model: string;
  /** Processors of the machine, and virtual processors of the guest. */
  readonly cpus: number;
  /** What tells these rows from others of the same kind and model: the design that the host was told to use. */
  readonly label?: string;
  /** Further options of the host kernel: that design. */
  readonly kernel?: Partial<KernelOptions>;
}

/** What is measured. */
export interface MeasureOptions extends Place {
  /** The files of the host's root. */
  readonly archives: readonly Uint8Array[];
  /** Fewer operations. */
  readonly quick?: boolean;
  /** Seed of the machine. Default: 1. */
  readonly seed?: number;
  /** Further options of the machine. */
  readonly machine?: MachineOptions;
}

/** A row of the table. */
export interface Row {
  readonly workload: string;
  readonly kind: Kind;
  readonly model: string;
  /** Whether the model has accessed and dirty flags for EPT; undefined where it has no EPT. */
  readonly eptAd: boolean | undefined;
  readonly cpus: number;
  /** vkbench's ARG, where it was chosen. */
  readonly argument?: number;
  /** The design that the host was told to use, where it was. */
  readonly label?: string;
  /** Operations that the figures are the mean of. */
  readonly operations: number;
  /** Per operation. */
  readonly counts: Counts;
}

/** Why there is no row: the guest does not exist there, or did not get through. */
export class RowError extends Error {
  override name = "RowError";
  /** The workload that did not come to its end. */
  readonly workload: string;

  /** @param workload The workload that did not come to its end. */
  constructor(workload: string, message: string) {
    super(message);
    this.workload = workload;
  }
}

/** Whether a model can run a kind of guest, and with accessed and dirty flags for EPT: by what its capability MSRs will say. */
export function eptAdOf(model: CpuModel): boolean | undefined {
  if (!model.features.has("vmx-ept")) return undefined;
  return model.features.has("vmx-ept-ad");
}

/** Ends the name of a model whose EPT has had its accessed and dirty flags taken away: what they alone make of a row can then be seen. */
const NO_AD = "-noad";

/** A model by its name. */
export function modelOf(name: string): CpuModel {
  if (name.endsWith(NO_AD)) {
    return customModel(modelOf(name.slice(0, -NO_AD.length)), { name, remove: ["vmx-ept-ad"] });
  }
  const model = cpuModels[name];
  if (model === undefined) {
    throw new RangeError(`There is no CPU model "${name}" (there are ${Object.keys(cpuModels).join(", ")})`);
  }
  return model;
}

/** Translation caches of a model, by their name in hw/tlb_geometry.ts. */
function geometryOf(name: string): string {
  return name.endsWith(NO_AD) ? name.slice(0, -NO_AD.length) : name;
}

/** One run of vkbench. */
interface Run {
  readonly job: Job;
  readonly words: readonly string[];
}

/**
 * Measures workloads one after the other on one machine.
 *
 * @param done Told of each row.
 * @throws {RowError} when one did not come to its end; the rows before it have been told.
 */
export function measureRows(jobs: readonly Job[], options: MeasureOptions, done: (row: Row) => void): void {
  const { kind, cpus } = options;
  const model = modelOf(options.model);
  const countFor = ({ workload }: Job) => countOf(workload, cpus, options.quick ?? false);
  // Those that want a guest's memory unused come first.
  const sorted = [...jobs].sort((a, b) =>
    Number(b.workload.cold ?? false) - Number(a.workload.cold ?? false)
  );
  const runs: Run[] = sorted.flatMap((job) =>
    ([1, 1, 2] as const).map((times) => ({
      job,
      words: commandOf(job.workload, cpus, countFor(job), times, job.argument),
    }))
  );
  const cold = runs.filter(({ job }) => job.workload.cold).length;
  const words = runs.map((run) => run.words);
  const machine = new Machine({
    memory: HOST_MEMORY,
    cpus,
    cpuModel: model,
    tlb: "geometry",
    geometry: geometryOf(options.model),
    gates: true,
    seed: options.seed ?? 1,
    ...(cpus > 1 ? { quantum: QUANTUM } : {}),
    ...options.machine,
  });
  const guests: Kernel[] = [];
  const kernel = bootKernel(machine, {
    archives: options.archives,
    guest: { onKernel: (k) => guests.push(k) },
    commands: rowCommands(kind, cpus, words.slice(0, cold), words.slice(cold)),
    verbose: false,
    faultReports: false,
    ...options.kernel,
  });
  kernel.vmMap.vkernelEnable = kind !== "host";
  const reader = new CountReader(machine, kernel, guests);
  const found: Counts[] = [];
  let begun: Counts | undefined;
  const marks = new MarkReader(({ workload, what }: Mark) => {
    const run = runs[found.length];
    if (run === undefined || workload !== programOf(run.job.workload)) return;
    const now = reader.read();
    if (what === "begin") begun = now;
    else if (begun !== undefined) {
      found.push(grown(begun, now));
      begun = undefined;
      if (found.length % 3 === 0) done(rowOf(run.job, found.at(-2)!, found.at(-1)!));
      // What comes after the last mark nobody looks at.
      if (found.length === runs.length) machine.interrupt();
    }
  });
  const rowOf = (job: Job, once: Counts, twice: Counts): Row => ({
    workload: job.workload.name,
    kind,
    model: model.name,
    eptAd: eptAdOf(model),
    cpus,
    ...(job.argument === undefined ? {} : { argument: job.argument }),
    ...(options.label === undefined ? {} : { label: options.label }),
    operations: countFor(job),
    counts: perOperation(once, twice, countFor(job)),
  });
  machine.trace.on(["port"], ({ port, write, value }) => {
    if (port === 0x3f8 && write) marks.take(value);
  });
  const stop = machine.run({ steps: STEPS_MAX });
  if (found.length === runs.length) return;
  const { job } = runs[found.length]!;
  const error = stop.reason === "panic" && stop.error instanceof Error ? `\n${stop.error.stack}` : "";
  throw new RowError(
    job.workload.name,
    `${job.workload.name} in ${kind} on ${model.name}, ${cpus} processors: ended with "${stop.reason}":${error}\n` +
      marks.text.split("\n").slice(-TAIL_LINES).join("\n"),
  );
}

/**
 * Measures one workload.
 *
 * @throws {RowError} when it did not come to its end.
 */
export function measureRow(job: Job, options: MeasureOptions): Row {
  const rows: Row[] = [];
  measureRows([job], options, (row) => rows.push(row));
  return rows[0]!;
}
