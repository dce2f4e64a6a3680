/**
 * `deno task lab vkernel`: the measurement that the project of 2013 promised. The same operations on the host kernel and in the three kinds of vkernel.
 *
 * Room: `lab/vkernel/`; its command line.
 *
 * @module
 */
import {
  choice,
  describeOptions,
  flag,
  integer,
  type OptionSpec,
  type OptionValues,
  parseArguments,
  text,
  texts,
  UsageError,
} from "../cli/args.ts";
import { userArchive } from "../cli/root_archive.ts";
import { cpio } from "../../kernel/vfs/cpio.ts";
import { cpuModels } from "../../hw/cpuid.ts";
import { GENERATIONS, generationsFor } from "./costs.ts";
import { COUNTS } from "./counts.ts";
import { estimate, singleRowOf } from "./estimate.ts";
import { DESIGNS, type Kind, KIND_NAMES, KINDS, needsEpt } from "./kinds.ts";
import {
  eptAdOf,
  type Job,
  type MeasureOptions,
  measureRows,
  modelOf,
  type Place,
  type Row,
  RowError,
} from "./measure.ts";
import { compareWithModel } from "./model.ts";
import { plots } from "./plots.ts";
import { alignedLines, figure, kindName, renderExits, renderTable, workloadName } from "./table.ts";
import { type Workload, workloadOf, WORKLOADS } from "./workloads.ts";

/** Debian's busybox-static, from the package of that name. */
const BUSYBOX = "/usr/bin/busybox";

/** Some of a few words, with commas between. */
function listOf<T extends string>(words: readonly T[], help: string): OptionSpec<T[]> {
  const one = choice(words, help);
  return { value: `${one.value},…`, help, parse: (text) => text.split(",").map(one.parse) };
}

/** The models that there are, each behind the same without accessed and dirty flags in EPT. */
const MODELS = Object.keys(cpuModels).flatMap((name) => [`${name}-noad`, name]);

const specs = {
  only: listOf(WORKLOADS.map(({ name }) => name), "workloads; default: all"),
  kinds: listOf(KINDS, "where they run; default: all"),
  models: {
    ...listOf(
      MODELS,
      "CPU models, -noad: without accessed and dirty flags in EPT; default: nehalem,haswell-noad,haswell",
    ),
    value: "MODEL,…",
  },
  cpus: listOf(
    ["1", "2", "4", "8"],
    "processors of the machine and of the guest; default: all, more than one on the last model",
  ),
  quick: flag("few operations, nehalem and haswell, 1 and 2 processors"),
  seed: integer("N", "seed of the machines; default: 1", 0, 2 ** 32 - 1),
  from: texts(
    "FILE",
    "show rows that were kept with --json, and measure nothing; may be given several times",
  ),
  json: text("FILE", "also write everything as JSON"),
  plots: text("DIR", "also write figures (SVG)"),
  costs: flag("show the prices and where they are from"),
  counts: flag("show what is counted"),
  help: flag("show this help"),
} as const;

const USAGE = `usage: deno task lab vkernel [options]

Measures user/'s vkbench on the host kernel, and inside vkernels on software page tables (vpte), on VMX with EPT in ring 3
(vmm) and in ring 0 (ring0). Prints counts per operation, and an estimated time from published prices.

${describeOptions(specs)}

${alignedLines(WORKLOADS.map(({ name, about }) => [`  ${name}`, about]), 2).join("\n")}`;

/** Sizes of the pointer chase that the figure shows, MiB. */
const CHASE_MIB = [1, 2, 4, 6, 8, 12] as const;

/** The files of the host's root: user/'s, and busybox if the host has it. */
export async function measurementArchives(): Promise<{ archives: Uint8Array[]; busybox: boolean }> {
  const archives: Uint8Array[] = [await userArchive()];
  try {
    const data = await Deno.readFile(BUSYBOX);
    archives.push(cpio([{ path: "bin/busybox", mode: 0o100755, data }]));
    return { archives, busybox: true };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return { archives, busybox: false };
  }
}

/** Rows that one machine gives. */
export interface Group {
  readonly place: Place;
  readonly jobs: readonly Job[];
}

/** The machines of a measurement. */
export function planGroups(
  workloads: readonly Workload[],
  kinds: readonly Kind[],
  models: readonly string[],
  cpus: readonly number[],
): Group[] {
  const groups: Group[] = [];
  const add = (place: Place, jobs: readonly Job[]) => {
    if (jobs.length > 0) groups.push({ place, jobs });
  };
  for (const model of models) {
    const isLast = model === models.at(-1);
    const able = kinds.filter((kind) => !needsEpt(kind) || eptAdOf(modelOf(model)) !== undefined);
    // More processors cost the same whatever the model's tables look like: one model shows it.
    for (const n of cpus.filter((n) => n === 1 || isLast)) {
      const jobs: Job[] = workloads.filter(({ single }) => n === 1 || !single).map((workload) => ({
        workload,
      }));
      const chase = workloads.find(({ name }) => name === "chase");
      if (chase !== undefined && n === 1 && isLast) {
        jobs.push(...CHASE_MIB.map((argument) => ({ workload: chase, argument })));
      }
      for (const kind of able) add({ kind, model, cpus: n }, jobs);
    }
    if (!isLast || !able.includes("vmm") || !cpus.includes(1)) continue;
    const jobs = workloads.filter(({ name }) => name !== "chase").map((workload) => ({ workload }));
    for (const { label, vmm } of DESIGNS) add({ kind: "vmm", model, cpus: 1, label, kernel: { vmm } }, jobs);
  }
  return groups;
}

/** Measures a group; a workload that does not come to its end is told to `failed`, and the others go on without it. */
function measureGroup(
  { place, jobs }: Group,
  options: Omit<MeasureOptions, keyof Place>,
  done: (row: Row) => void,
  failed: (error: RowError) => void,
): void {
  const open = new Set(jobs);
  while (open.size > 0) {
    try {
      measureRows([...open], { ...place, ...options }, (row) => {
        for (const job of open) {
          if (job.workload.name === row.workload && job.argument === row.argument) open.delete(job);
        }
        done(row);
      });
    } catch (error) {
      if (!(error instanceof RowError)) throw error;
      failed(error);
      // The kind itself does not get going: neither would it with the next workload.
      if (open.size === jobs.length) return;
      for (const job of open) {
        if (job.workload.name === error.workload) open.delete(job);
      }
    }
  }
}

/** Rows in the order of the table: by model, workload, processors, kind. */
export function sortRows(rows: readonly Row[], models: readonly string[]): Row[] {
  const workload = (row: Row) => WORKLOADS.findIndex(({ name }) => name === row.workload);
  const design = (row: Row) => DESIGNS.findIndex(({ label }) => label === row.label);
  const keys = (row: Row) => [
    models.indexOf(row.model),
    workload(row),
    row.argument ?? -1,
    row.cpus,
    KINDS.indexOf(row.kind),
    design(row),
  ];
  return [...rows].sort((a, b) => {
    const other = keys(b);
    return keys(a).map((key, i) => key - other[i]!).find((difference) => difference !== 0) ?? 0;
  });
}

function describePrices(): string {
  return GENERATIONS.map((generation) => {
    const lines = Object.entries(generation.costs).map(([name, { cycles, trust, source }]) => [
      `  ${name}`,
      String(cycles),
      trust,
      source,
    ]);
    return [
      `${generation.name}: ${generation.about} (${generation.year}, ${generation.gigahertz} GHz), cycles`,
      ...alignedLines(lines, 4),
    ].join("\n");
  }).join("\n\n");
}

/** The rows as JSON: also the estimates, in nanoseconds. */
export function reportOf(rows: readonly Row[], seed: number): string {
  const estimates = (row: Row) =>
    generationsFor(row.model).map((generation) => estimate(row, generation, singleRowOf(row, rows)));
  const report = { seed, counts: COUNTS, rows: rows.map((row) => ({ ...row, estimates: estimates(row) })) };
  return JSON.stringify(report, null, 1) + "\n";
}

/** The comparison with section 22's model, as text. */
export function renderModel(rows: readonly Row[]): string {
  const lines = compareWithModel(rows).map(({ row, predicted, found }) => {
    const pair = (name: keyof typeof predicted) => `${figure(predicted[name])} / ${figure(found[name])}`;
    return [
      workloadName(row),
      kindName(row),
      row.model,
      String(row.cpus),
      pair("crossings"),
      pair("exits"),
      pair("vpteWalks"),
    ];
  });
  if (lines.length === 0) return "";
  return alignedLines([["workload", "kind", "CPU model", "CPUs", "C", "X", "W"], ...lines], 3).join("\n");
}

/** The options, parsed. */
type Options = OptionValues<typeof specs>;

/** Measures what the options say. */
async function measureAll(options: Options): Promise<{ rows: Row[]; failed: number }> {
  const { archives, busybox } = await measurementArchives();
  const quick = options.quick ?? false, seed = options.seed ?? 1;
  const workloads = (options.only?.map(workloadOf) ?? WORKLOADS).filter((w) => busybox || !w.busybox);
  if (workloads.length === 0 || (!busybox && options.only === undefined)) {
    console.log(`There is no ${BUSYBOX} (Debian's busybox-static): the build is left out`);
  }
  const models = options.models ?? (quick ? ["nehalem", "haswell"] : ["nehalem", "haswell-noad", "haswell"]);
  const cpus = options.cpus?.map(Number) ?? (quick ? [1, 2] : [1, 2, 4, 8]);
  const groups = planGroups(workloads, options.kinds ?? KINDS, models, cpus);
  const measured: Row[] = [];
  let failed = 0;
  for (const [i, group] of groups.entries()) {
    const { kind, label, model, cpus } = group.place;
    const where = `machine ${i + 1} of ${groups.length}: ${kind}${
      label === undefined ? "" : ` ${label}`
    }, ${model}`;
    progress(`${where}, ${cpus} CPUs`);
    measureGroup(group, { archives, quick, seed }, (row) => {
      measured.push(row);
      progress(`${where}, ${cpus} CPUs: ${row.workload}`);
    }, (error) => {
      failed++;
      progress("");
      console.error(error.message);
    });
    if (options.json !== undefined) {
      await Deno.writeTextFile(options.json, reportOf(sortRows(measured, models), seed));
    }
  }
  progress("");
  return { rows: sortRows(measured, models), failed };
}

/**
 * Rows of earlier measurements; of the same row the last one.
 *
 * @throws {UsageError} when a file cannot be read.
 */
async function keptRows(files: readonly string[]): Promise<Row[]> {
  const rows = new Map<string, Row>();
  for (const file of files) {
    try {
      const { rows: read }: { rows: Row[] } = JSON.parse(await Deno.readTextFile(file));
      for (const row of read) {
        rows.set([row.model, row.workload, row.argument, row.cpus, row.kind, row.label].join(" "), row);
      }
    } catch (error) {
      throw new UsageError(`Cannot read --from ${file}: ${error instanceof Error ? error.message : error}`);
    }
  }
  return sortRows([...rows.values()], MODELS);
}

/** Carries the experiment out. Gives the exit status. */
export async function vkernelExperiment(args: readonly string[]): Promise<number> {
  const { options, positional, rest } = parseArguments(specs, args);
  const stray = positional[0] ?? rest[0];
  if (stray !== undefined) throw new UsageError(`What is "${stray}"? Workloads are given as --only ${stray}`);
  if (options.help) console.log(USAGE);
  if (options.costs) console.log(describePrices());
  if (options.counts) {
    console.log(alignedLines(Object.entries(COUNTS).map(([name, about]) => [name, about]), 2).join("\n"));
  }
  if (options.help || options.costs || options.counts) return 0;

  const kept = options.from === undefined ? undefined : await keptRows(options.from);
  const { rows, failed } = kept === undefined ? await measureAll(options) : { rows: kept, failed: 0 };
  const seed = options.seed ?? 1;
  if (kept !== undefined && options.json !== undefined) {
    await Deno.writeTextFile(options.json, reportOf(rows, seed));
  }
  console.log(["Per operation:", renderTable(rows)].join("\n"));
  const exits = renderExits(rows), model = renderModel(rows);
  if (exits !== "") console.log(`\n${exits}`);
  if (model !== "") {
    console.log(`\nThe model / what was found (C crossings, X VM exits, W VPTE walks):\n${model}`);
  }
  for (const { name, kind } of KINDS.map((kind) => ({ name: KIND_NAMES[kind], kind }))) {
    if (rows.some((row) => row.kind === kind)) console.log(`\n${kind}: ${name}`);
  }
  for (const { label, about } of DESIGNS) {
    if (rows.some((row) => row.label === label)) console.log(`\nvmm ${label}: ${about}`);
  }
  if (options.plots !== undefined) {
    await Deno.mkdir(options.plots, { recursive: true });
    for (const { name, svg } of plots(rows)) {
      await Deno.writeTextFile(`${options.plots}/${name}.svg`, svg);
      console.log(`${options.plots}/${name}.svg`);
    }
  }
  return failed === 0 ? 0 : 1;
}

/** One line that the next one takes the place of, on a terminal. */
function progress(line: string): void {
  if (!Deno.stderr.isTerminal()) return;
  Deno.stderr.writeSync(new TextEncoder().encode(`\r\x1b[K${line}`));
}
