/**
 * `deno task bench kernel`: what the TypeScript kernel's operations cost the host, and exactly what the machine does for each.
 *
 * Room: `bench/`; its second command line. README.md beside it says what the rows are.
 *
 * @module
 */
import { choice, describeOptions, flag, integer, parseArguments, text, UsageError } from "../lab/cli/args.ts";
import { ENGINES } from "../hw/machine.ts";
import { CLOCKS, hasClock } from "./clock.ts";
import { type CountName, COUNTS, KERNEL_ROWS, type KernelFigure, measureKernel } from "./kernel_rows.ts";
import { listOf, number } from "./options.ts";

const NAMES: readonly string[] = KERNEL_ROWS.map((row) => row.name);
/** The figures that were kept last. */
const KEPT = new URL("kernel_figures.json", import.meta.url);
/** Kept with figures when nobody says anything else. */
const UNKNOWN = "not described";

const OPTIONS = {
  only: listOf(NAMES, false, "rows to measure; default: all"),
  cpus: listOf(["1", "2", "4", "8", "16"], false, "numbers of processors; default: 1,4"),
  runs: integer("N", "runs of which the median counts; default: 3", 1, 99),
  engine: choice(ENGINES, "the machine's engine; default: its own choice"),
  clock: choice(CLOCKS, "time on the wall, or processor time (Linux); default: cpu where there is one"),
  json: text("FILE", "also write the figures as JSON"),
  keep: text("DESCRIPTION", "keep the figures, with this description of the host, for later comparison"),
  help: flag("print this"),
};

/** A row as it is kept. */
export interface KeptRow {
  /** Its name. */
  readonly name: string;
  /** Processors. */
  readonly cpus: number;
  /** Operations a second of the host. */
  readonly perSecond: number;
  /** Exact, per operation. */
  readonly counts: Readonly<Record<CountName, number>>;
}

/** What `--json` and `--keep` write. */
export interface KernelReport {
  /** The host, in its owner's words. */
  readonly about: string;
  /** Whose seconds they are. */
  readonly clock: string;
  /** Runs of which each speed is the median. */
  readonly runs: number;
  /** The rows. */
  readonly rows: readonly KeptRow[];
}

/** The table's columns of counts. */
const HEADS: Readonly<Record<CountName, string>> = {
  instructions: "instr",
  steps: "steps",
  faults: "faults",
  walks: "walks",
  references: "refs",
  invalidations: "inval",
  ipis: "IPIs",
  switches: "switches",
  pagesIn: "pages in",
};

const WIDTHS: readonly number[] = [9, 4, 9, ...COUNTS.map((name) => Math.max(8, HEADS[name].length)), 7];

function line(cells: readonly string[]): void {
  console.log(
    cells.map((cell, i) => i === 0 ? cell.padEnd(WIDTHS[i]!) : cell.padStart(WIDTHS[i]!)).join("  ")
      .trimEnd(),
  );
}

/** The figures that are kept; undefined if there are none. */
export async function keptFigures(): Promise<KernelReport | undefined> {
  try {
    return JSON.parse(await Deno.readTextFile(KEPT));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function print(row: KeptRow, kept: KernelReport | undefined): void {
  const before = kept?.rows.find(({ name, cpus }) => name === row.name && cpus === row.cpus);
  line([
    row.name,
    String(row.cpus),
    row.perSecond > 0 ? row.perSecond.toFixed(0) : "-",
    ...COUNTS.map((name) => number(row.counts[name])),
    before !== undefined && before.perSecond > 0 && row.perSecond > 0
      ? number(row.perSecond / before.perSecond)
      : "",
  ]);
  const changed = before === undefined
    ? []
    : COUNTS.filter((name) =>
      Math.abs(row.counts[name] - before.counts[name]) > 0.05 * before.counts[name] + 0.02
    );
  for (const name of changed) {
    console.log(`  ${HEADS[name]}: ${before!.counts[name]} in the kept figures`);
  }
}

/** Measures, prints, writes. */
export async function benchKernel(args: readonly string[]): Promise<void> {
  const { options, positional, rest } = parseArguments(OPTIONS, args);
  if (options.help) {
    console.log(`deno task bench kernel [options]\n\n${describeOptions(OPTIONS)}\n`);
    for (const row of KERNEL_ROWS) console.log(`  ${row.name.padEnd(10)}${row.about}`);
    return;
  }
  const stray = positional[0] ?? rest[0];
  if (stray !== undefined) {
    throw new UsageError(
      `"${stray}" is no option${NAMES.includes(stray) ? `: did you mean "--only ${stray}"?` : ""}`,
    );
  }
  const clock = options.clock ?? (hasClock("cpu") ? "cpu" : "wall");
  if (!hasClock(clock)) {
    throw new UsageError(`This host does not tell processor times: leave "--clock ${clock}" out`);
  }
  const runs = options.runs ?? 3;
  const kept = await keptFigures();
  if (kept !== undefined) console.log(`Kept figures: ${kept.about}`);
  line(["row", "CPUs", "ops/s", ...COUNTS.map((name) => HEADS[name]), kept === undefined ? "" : "to kept"]);
  const rows: KeptRow[] = [];
  for (const cpus of (options.cpus ?? ["1", "4"]).map(Number)) {
    for (const swaps of [false, true]) {
      const chosen = KERNEL_ROWS.filter((row) =>
        (row.swaps ?? false) === swaps && (options.only?.includes(row.name) ?? true)
      );
      if (chosen.length === 0) continue;
      const figures: KernelFigure[] = await measureKernel(chosen, {
        cpus,
        runs,
        clock,
        swaps,
        ...(options.engine === undefined ? {} : { engine: options.engine }),
      });
      for (const { row: { name }, perSecond, counts } of figures) {
        const row = { name, cpus, perSecond, counts };
        rows.push(row);
        print(row, kept);
      }
    }
  }
  const report: KernelReport = { about: options.keep ?? UNKNOWN, clock, runs, rows };
  const written = JSON.stringify(report, null, 2) + "\n";
  if (options.json !== undefined) await Deno.writeTextFile(options.json, written);
  if (options.keep !== undefined) await Deno.writeTextFile(KEPT, written);
}
