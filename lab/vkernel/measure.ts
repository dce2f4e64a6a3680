/**
 * Measures one row: a workload on the host kernel, or in a vkernel on it, on a machine of its own.
 *
 * Room: `lab/vkernel/`; imports the machine, the kernel, and the lab's archive of user/.
 *
 * A fresh machine boots the host kernel, with the CPU model's TLB geometry. The operation is carried out `count` times to warm up, `count` times,
 * and `2 · count` times, each time by a process of its own; vkbench says on the console when it begins and when it is done. What the last run counted between
 * these marks, less what the one before counted, divided by `count`, is what one operation costs. Marks, starts and ends of programs, and of
 * the vkernel, cancel out. Clock interrupts do not: they belong to the time that an operation takes. The same options give the same figures.
 *
 * @module
 */
import { Machine, type MachineOptions } from "../../hw/machine.ts";
import { type CpuModel, cpuModels, customModel } from "../../hw/cpuid.ts";
import { bootKernel } from "../../kernel/boot.ts";
import type { Kernel, KernelOptions } from "../../kernel/kernel.ts";
import { CountReader, type Counts, grown, perOperation } from "./counts.ts";
import { GUEST_MEMORY, type Kind, rowCommands } from "./kinds.ts";
import { type Mark, MarkReader } from "./marks.ts";
import { commandOf, countOf, type Workload } from "./workloads.ts";

/** Bytes of the host's RAM. */
const HOST_MEMORY = 96 << 20;
/**
 * Slices of several processors: short, so that one that waits for another does not wait longer than on a real machine. (With the usual
 * slices of thousands of instructions, an IPI would take tens of microseconds.)
 */
const QUANTUM: readonly [number, number] = [20, 100];
/** A row that takes more instructions than this hangs. */
const STEPS_MAX = 4e9;

/** What is measured. */
export interface RowOptions {
  readonly workload: Workload;
  readonly kind: Kind;
  /** Name of one of `cpuModels`, or such a name and `-noad`. */
  readonly model: string;
  /** Processors of the machine, and virtual processors of the guest. */
  readonly cpus: number;
  /** vkbench's ARG, instead of the workload's own. */
  readonly argument?: number;
  /** What tells this row from another of the same workload, kind and model: the design that the host was told to use. */
  readonly label?: string;
  /** Fewer operations. */
  readonly quick?: boolean;
  /** Seed of the machine. Default: 1. */
  readonly seed?: number;
  /** The files of the host's root. */
  readonly archives: readonly Uint8Array[];
  /** Further options of the host kernel: designs to compare. */
  readonly kernel?: Partial<KernelOptions>;
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

/**
 * Measures.
 *
 * @throws {RowError} when the workload did not come to its end.
 */
export function measureRow(options: RowOptions): Row {
  const { workload, kind, cpus } = options;
  const model = modelOf(options.model);
  const count = countOf(workload, cpus, options.quick ?? false);
  const commands = ([1, 1, 2] as const).map((times) =>
    commandOf(workload, cpus, count, times, options.argument)
  );
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
    commands: rowCommands(kind, cpus, workload.memory ?? GUEST_MEMORY, commands, !workload.cold),
    verbose: false,
    faultReports: false,
    ...options.kernel,
  });
  kernel.vmMap.vkernelEnable = kind !== "host";
  const counts = new CountReader(machine, kernel, guests);
  const runs: Counts[] = [];
  let begun: Counts | undefined;
  const marks = new MarkReader((mark: Mark) => {
    if (mark.workload !== (workload.program ?? workload.name)) return;
    const now = counts.read();
    if (mark.what === "begin") begun = now;
    else if (begun !== undefined) {
      runs.push(grown(begun, now));
      begun = undefined;
      // What comes after the last mark nobody looks at.
      if (runs.length === commands.length) machine.interrupt();
    }
  });
  machine.trace.on(["port"], ({ port, write, value }) => {
    if (port === 0x3f8 && write) marks.take(value);
  });
  const stop = machine.run({ steps: STEPS_MAX });
  if (runs.length !== commands.length) {
    const what = `${workload.name} in ${kind} on ${model.name}, ${cpus} processors`;
    const error = stop.reason === "panic" && stop.error instanceof Error ? `\n${stop.error.stack}` : "";
    throw new RowError(
      `${what}: ended with "${stop.reason}" after ${runs.length} of ${commands.length} runs:${error}\n${
        marks.text.slice(-2000)
      }`,
    );
  }
  return {
    workload: workload.name,
    kind,
    model: model.name,
    eptAd: eptAdOf(model),
    cpus,
    ...(options.argument === undefined ? {} : { argument: options.argument }),
    ...(options.label === undefined ? {} : { label: options.label }),
    operations: count,
    counts: perOperation(runs[1]!, runs[2]!, count),
  };
}
