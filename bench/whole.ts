/**
 * `deno task bench whole`: whole systems on the engines and on QEMU: a boot, memtest86+'s pass, BusyBox on our kernel and on Linux.
 *
 * Room: `bench/`; its third command line. README.md beside it says what the rows are.
 *
 * @module
 */
import { choice, describeOptions, flag, integer, parseArguments, text, UsageError } from "../lab/cli/args.ts";
import { type EngineKind, ENGINES } from "../hw/machine.ts";
import { CLOCKS, hasClock } from "./clock.ts";
import { median } from "./measure.ts";
import { listOf, number } from "./options.ts";
import { SYSTEMS, type WholeOptions, type WholeRun, type WholeSystem } from "./whole_runs.ts";

const NAMES: readonly string[] = SYSTEMS.map((system) => system.name);
/** The figures that were kept last. */
const KEPT = new URL("whole_figures.json", import.meta.url);
/** A run that takes this much longer than the kept one is marked. */
const SLOWER = 1 / 0.9;

const OPTIONS = {
  only: listOf(NAMES, false, "systems to run; default: all"),
  engines: listOf(ENGINES, false, "engines, the first for the ratio; default: the machine's own choice"),
  peers: listOf(["qemu"], true, "peers, or none; default: qemu"),
  runs: integer("N", "runs of which the median counts; default: 1", 1, 99),
  megabytes: integer("N", "text for BusyBox to work on; default: 16", 1, 128),
  limit: integer("S", "seconds after which a run is given up; default: 900", 10, 100_000),
  clock: choice(CLOCKS, "time on the wall, or processor time (Linux); default: wall"),
  json: text("FILE", "also write the times as JSON"),
  keep: text("DESCRIPTION", "keep the times in bench/whole_figures.json, with this description of the host"),
  help: flag("print this"),
};

/** Seconds of one part of a system. */
interface WholeRow {
  readonly system: string;
  readonly part: string;
  /** Seconds by runner. */
  readonly seconds: Readonly<Record<string, number>>;
}

/** What `--json` and `--keep` write. */
interface WholeReport {
  readonly about: string;
  readonly clock: string;
  readonly runs: number;
  readonly megabytes: number;
  readonly rows: readonly WholeRow[];
}

async function keptReport(): Promise<WholeReport | undefined> {
  try {
    return JSON.parse(await Deno.readTextFile(KEPT));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Which engine a machine has when nobody chooses. */
function defaultEngine(): EngineKind {
  return ENGINES.find((name) => name === ("auto" as string)) ?? "interpreter";
}

/** Runs one system on all who can, in turn; the median seconds of its parts, and whether check values agree. */
async function measureSystem(
  system: WholeSystem,
  engines: readonly EngineKind[],
  withQemu: boolean,
  runs: number,
  options: WholeOptions,
): Promise<{ readonly rows: readonly WholeRow[]; readonly agree: boolean }> {
  const results = new Map<string, WholeRun[]>();
  const attempt = async (name: string, run: () => Promise<WholeRun>) => {
    try {
      const result = await run();
      results.set(name, [...results.get(name) ?? [], result]);
    } catch (error) {
      console.log(`  ${system.name} on ${name}: ${error instanceof Error ? error.message : error}`);
    }
  };
  for (let i = 0; i < runs; i++) {
    for (const engine of engines) await attempt(engine, () => system.onEngine(engine, options));
    if (withQemu && system.onQemu !== undefined) await attempt("qemu", () => system.onQemu!(options));
  }
  const all = [...results.values()].flat();
  const checks = new Set(all.map(({ check }) => check));
  if (checks.size > 1) {
    for (const [name, [first]] of results) {
      console.log(`  DISAGREEMENT: ${system.name} on ${name}: ${first!.check}`);
    }
  }
  const parts = all[0]?.marks.map(({ name }) => name) ?? [];
  const secondsOf = (part: string) =>
    Object.fromEntries(
      [...results].map(([name, list]) => [
        name,
        median(list.map(({ marks }) => marks.find((mark) => mark.name === part)!.seconds)),
      ]),
    );
  return {
    rows: parts.map((part) => ({ system: system.name, part, seconds: secondsOf(part) })),
    agree: checks.size <= 1,
  };
}

/** Measures, prints, writes; true if all agreed. */
export async function benchWhole(args: readonly string[]): Promise<boolean> {
  const { options, positional, rest } = parseArguments(OPTIONS, args);
  if (options.help) {
    console.log(`deno task bench whole [options]\n\n${describeOptions(OPTIONS)}\n`);
    for (const { name, about } of SYSTEMS) console.log(`  ${name.padEnd(10)}${about}`);
    return true;
  }
  const stray = positional[0] ?? rest[0];
  if (stray !== undefined) throw new UsageError(`"${stray}" is no option`);
  const clock = options.clock ?? "wall";
  if (!hasClock(clock)) {
    throw new UsageError(`This host does not tell processor times: leave "--clock ${clock}" out`);
  }
  const engines = options.engines ?? [defaultEngine()], runs = options.runs ?? 1;
  const setting = { clock, limit: options.limit ?? 900, megabytes: options.megabytes ?? 16 };
  const withQemu = options.peers?.includes("qemu") ?? true;
  const kept = await keptReport();
  if (kept !== undefined) console.log(`Kept times: ${kept.about}, ${kept.megabytes} MB`);
  const names = [...engines, ...(withQemu ? ["qemu"] : [])];
  const widths = [9, 10, ...names.map((name) => Math.max(11, name.length)), 8, 8];
  const line = (cells: readonly string[]) =>
    console.log(
      cells.map((cell, i) => i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)).join("  ")
        .trimEnd(),
    );
  line([
    "system",
    "part",
    ...names.map((name) => `${name} (s)`),
    "to qemu",
    kept === undefined ? "" : "to kept",
  ]);
  const rows: WholeRow[] = [];
  let agree = true;
  for (const system of SYSTEMS) {
    if (!(options.only?.includes(system.name) ?? true)) continue;
    const missing = await system.missing();
    if (missing !== undefined) {
      console.log(`${system.name}: left out: ${missing}`);
      continue;
    }
    const result = await measureSystem(system, engines, withQemu, runs, setting);
    agree &&= result.agree;
    for (const row of result.rows) {
      rows.push(row);
      const { seconds } = row, ours = seconds[engines[0]!];
      const before = kept?.megabytes === setting.megabytes || row.part === "boot" || row.part === "memtest"
        ? kept?.rows.find((one) => one.system === row.system && one.part === row.part)?.seconds
        : undefined;
      line([
        row.system,
        row.part,
        ...names.map((name) => seconds[name] === undefined ? "-" : number(seconds[name])),
        ours === undefined || seconds.qemu === undefined ? "-" : number(seconds.qemu / ours),
        ours === undefined ? "" : toKept(seconds, before, engines[0]!),
      ]);
    }
  }
  const report: WholeReport = {
    about: options.keep ?? "not described",
    clock,
    runs,
    megabytes: setting.megabytes,
    rows: [
      ...rows,
      ...(kept?.rows ?? []).filter((row) =>
        !rows.some((one) => one.system === row.system && one.part === row.part)
      ),
    ],
  };
  const written = JSON.stringify(report, null, 2) + "\n";
  if (options.json !== undefined) await Deno.writeTextFile(options.json, written);
  if (options.keep !== undefined) await Deno.writeTextFile(KEPT, written);
  return agree;
}

/** Speed to the kept one, relative to QEMU's where that ran both times. */
function toKept(
  seconds: Readonly<Record<string, number>>,
  before: Readonly<Record<string, number>> | undefined,
  engine: string,
): string {
  const was = before?.[engine], is = seconds[engine];
  if (before === undefined || was === undefined || is === undefined) return "";
  const host = seconds.qemu === undefined || before.qemu === undefined ? 1 : seconds.qemu / before.qemu;
  const longer = is / was / host;
  return number(1 / longer) + (longer > SLOWER ? " SLOWER" : "");
}
