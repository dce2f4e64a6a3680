/**
 * `deno task bench`: how fast the engines are, beside QEMU, v86 and Bochs where they are installed; `bench kernel` and `bench whole` measure other
 * things.
 *
 * Room: `bench/`; the command line of the bench. README.md beside it says what the rows are.
 *
 * @module
 */
import { choice, describeOptions, flag, integer, parseArguments, text, UsageError } from "../lab/cli/args.ts";
import { type EngineKind, ENGINES } from "../hw/machine.ts";
import { type ClockName, CLOCKS, hasClock } from "./clock.ts";
import { benchKernel } from "./kernel.ts";
import {
  KEPT,
  keptReport,
  merged,
  type Report,
  type RowFigures,
  SLOWER,
  toKept,
  verdicts,
} from "./figures.ts";
import { type Figure, measure, measureMicro, type MeasureOptions, type Row } from "./measure.ts";
import { type Micro, MICROS as CORE_MICROS } from "./micro.ts";
import { listOf, number } from "./options.ts";
import { openPeer, type PeerName, PEERS } from "./peers.ts";
import { type Program, PROGRAMS, type Target, unitOf } from "./programs.ts";
import { EngineRunner, type Runner } from "./runner.ts";
import { VMX_MICROS } from "./vmx.ts";
import { benchWhole } from "./whole.ts";

/** Engines in the order of the table. */
const RANK: readonly string[] = ["auto", "compiled", "interpreter"];
const MICROS: readonly Micro[] = [...CORE_MICROS, ...VMX_MICROS];
/** Groups of rows that can be asked for by one word. */
const GROUPS: Readonly<Record<string, readonly string[]>> = {
  vmx: [
    ...PROGRAMS.filter((p) => p.asGuest).flatMap((p) => [p.word!, p.name]),
    ...VMX_MICROS.map((m) => m.name),
  ],
  narrow: PROGRAMS.filter((p) => p.image === "bench32").map((p) => p.name),
  wide: PROGRAMS.filter((p) => p.image === undefined && !p.asGuest).map((p) => p.name),
};
/** Engines that are measured when nobody says which: the first is whom ratios and targets are about. */
const DEFAULT_ENGINES: readonly EngineKind[] = ENGINES.filter((name) => name !== "reference").sort((a, b) =>
  RANK.indexOf(a) - RANK.indexOf(b)
);
const NAMES: readonly string[] = [...PROGRAMS.map((p) => p.name), ...MICROS.map((m) => m.name)];
const OPTIONS = {
  only: listOf(NAMES, false, "rows to measure; default: all"),
  engines: listOf(
    ENGINES,
    false,
    `engines, the first for ratios and targets; default: ${DEFAULT_ENGINES.join(",")}`,
  ),
  peers: listOf(PEERS, true, `peers, or none; default: ${PEERS.join(",")}, those that are installed`),
  runs: integer("N", "runs of which the median counts; default: 3", 1, 99),
  milliseconds: integer("MS", "length that a run should have; default: 1000", 20, 60_000),
  clock: choice(
    CLOCKS,
    "time on the wall, or processor time: for hosts that do other things too (Linux); default: wall",
  ),
  json: text("FILE", "also write the figures as JSON"),
  keep: text("DESCRIPTION", "keep the figures in bench/figures.json, with this description of the host"),
  help: flag("print this"),
};

/** Prints a line of cells; the first is left-aligned, the others right. */
function line(cells: readonly string[], widths: readonly number[]): void {
  console.log(
    cells.map((cell, i) => i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)).join("  ").trimEnd(),
  );
}

async function openRunners(
  engines: readonly EngineKind[],
  peers: readonly PeerName[],
  clock: ClockName,
): Promise<Runner[]> {
  const runners: Runner[] = engines.map((engine) => new EngineRunner(engine, clock));
  for (const name of peers) {
    const peer = await openPeer(name, clock);
    if (typeof peer === "string") console.log(`Without ${name}: ${peer}`);
    else runners.push(peer);
  }
  return runners;
}

/** Measures and prints; true if all agreed. */
async function bench(args: readonly string[]): Promise<boolean> {
  const { options, positional, rest } = parseArguments(OPTIONS, args);
  if (options.help) {
    const groups = Object.keys(GROUPS).join(" ");
    console.log(
      `deno task bench [GROUP] [options], or: deno task bench kernel|whole [options]\n\n${
        describeOptions(OPTIONS)
      }\n\nRows: ${NAMES.join(" ")}\nGroups: ${groups}`,
    );
    return true;
  }
  const group = positional[0] === undefined ? undefined : GROUPS[positional[0]];
  const stray = group === undefined ? positional[0] ?? rest[0] : positional[1] ?? rest[0];
  if (stray !== undefined) {
    throw new UsageError(
      `"${stray}" is no option${NAMES.includes(stray) ? `: did you mean "--only ${stray}"?` : ""}`,
    );
  }
  const only = group === undefined ? options.only : [...group, ...options.only ?? []];
  const wanted = (name: string) => only?.includes(name) ?? true;
  const clock = options.clock ?? "wall";
  if (!hasClock(clock)) {
    throw new UsageError(`This host does not tell processor times: leave "--clock ${clock}" out`);
  }
  const setting = { runs: options.runs ?? 3, seconds: (options.milliseconds ?? 1000) / 1000, clock };
  const engines = options.engines ?? DEFAULT_ENGINES;
  const runners = await openRunners(engines, options.peers ?? PEERS, clock);
  const programs = PROGRAMS.filter((program) => wanted(program.name));
  const micros = MICROS.filter((micro) => wanted(micro.name));
  try {
    for (const runner of runners) console.log(`${runner.name}: ${runner.about}`);
    return await report(runners, programs, micros, setting, options);
  } finally {
    for (const runner of runners) await runner.close();
  }
}

async function report(
  runners: readonly Runner[],
  programs: readonly Program[],
  micros: readonly Micro[],
  setting: MeasureOptions,
  options: { readonly json?: string; readonly keep?: string },
): Promise<boolean> {
  const counter = runners.find((runner) => runner.name === "interpreter") ??
    new EngineRunner("interpreter", setting.clock);
  const engines = runners.filter((runner) => !runner.isPeer).map((runner) => runner.name as EngineKind);
  // Ratios of the first engine to each peer.
  const first = runners.find((runner) => !runner.isPeer)!;
  const peers = runners.filter((runner) => runner.isPeer);
  const peerNames = peers.map((peer) => peer.name);
  const kept = await keptReport();
  if (kept !== undefined) console.log(`Kept figures: ${kept.about}`);
  const heads = [
    "row",
    "unit",
    ...runners.map((r) => r.name),
    ...peers.map((p) => `${first.name}/${p.name}`),
    kept === undefined ? "" : "to kept",
  ];
  const widths = heads.map((head, i) => Math.max(head.length, i === 0 ? 11 : i === 1 ? 23 : 7));
  console.log("");
  line(heads, widths);
  const rows: RowFigures[] = [], disagreements: string[] = [], slower: string[] = [];
  const add = (row: RowFigures, scale: number) => {
    rows.push(row);
    const ratio = toKept(row, first.name, peerNames, kept);
    const mark = ratio === undefined ? "" : number(ratio) + (ratio < SLOWER ? " SLOWER" : "");
    line([...cells(row, scale, runners, first, peers), mark], widths);
    for (const engine of engines) {
      const part = toKept(row, engine, peerNames, kept);
      if (part !== undefined && part < SLOWER) slower.push(`${row.name} on ${engine}: ${number(part)}`);
    }
  };
  for (const program of programs) {
    const row = await measure(program, runners, counter, setting);
    add({
      name: program.name,
      unit: unitOf(program),
      instructionsPerRound: row.instructionsPerRound,
      perSecond: pick(row, (figure) => figure.perSecond),
      rounds: pick(row, (figure) => figure.rounds),
    }, program.scale?.factor ?? 1e6);
    disagreements.push(...row.disagreements);
    for (const sentence of row.disagreements) console.log(`  DISAGREEMENT: ${sentence}`);
  }
  for (const micro of micros) {
    const on = micro.withoutEngine
      ? [first.name as EngineKind]
      : engines.filter((name) => name !== "reference");
    const perSecond = Object.fromEntries(on.map((engine) => [engine, measureMicro(micro, engine, setting)]));
    add({ name: micro.name, unit: `M ${micro.event}/s`, perSecond }, 1e6);
  }
  printVerdicts(rows, first.name, kept);
  if (slower.length > 0) console.log(`\nSlower than the kept figures: ${slower.join("; ")}`);
  const result: Report = {
    about: options.keep ?? "not described",
    runners: runners.map(({ name, about }) => ({ name, about })),
    runs: setting.runs,
    clock: setting.clock,
    rows,
    disagreements,
  };
  if (options.json !== undefined) await writeJson(options.json, result);
  if (options.keep !== undefined) await writeJson(KEPT, merged(result, kept, NAMES));
  if (disagreements.length > 0) console.log("\nThe check values disagree; see above.");
  return disagreements.length === 0;
}

async function writeJson(path: string | URL, value: Report): Promise<void> {
  await Deno.writeTextFile(path, JSON.stringify(value, null, 2) + "\n");
}

/** Targets by row. */
const TARGETS: ReadonlyMap<string, Target> = new Map(
  [...PROGRAMS, ...MICROS].flatMap(({ name, target }) =>
    target === undefined ? [] : [[name, target] as const]
  ),
);

/** The targets of the rows at hand; where a row that is compared with was not measured, its kept figures serve. */
function printVerdicts(rows: readonly RowFigures[], engine: string, kept: Report | undefined): void {
  const others = (kept?.rows ?? []).filter((row) => !rows.some(({ name }) => name === row.name));
  const names = new Set(rows.map(({ name }) => name));
  const found = verdicts([...rows, ...others], TARGETS, engine).filter(({ row }) => names.has(row));
  if (found.length === 0) return;
  const widths = [14, 16, 8, 8, 8];
  console.log(`\nTargets, of ${engine}:`);
  line(["row", "compared with", "ratio", "target", ""], widths);
  for (const { row, to, ratio, target, isMet } of found) {
    line([row, to, number(ratio), `>= ${target}`, isMet ? "met" : "MISSED"], widths);
  }
  console.log(`${found.filter(({ isMet }) => isMet).length} of ${found.length} targets met`);
}

function cells(
  row: RowFigures,
  scale: number,
  runners: readonly Runner[],
  first: Runner,
  peers: readonly Runner[],
): string[] {
  const cell = (value: number | undefined) => value === undefined ? "-" : number(value);
  const one = row.perSecond[first.name];
  return [
    row.name,
    row.unit,
    ...runners.map(({ name }) => {
      const value = row.perSecond[name];
      return cell(value === undefined ? undefined : value / scale);
    }),
    ...peers.map(({ name }) => {
      const other = row.perSecond[name];
      return cell(one === undefined || other === undefined ? undefined : one / other);
    }),
  ];
}

function pick(row: Row, of: (figure: Figure) => number): Record<string, number> {
  return Object.fromEntries(
    Object.entries(row.figures).flatMap(([name, figure]) => figure === undefined ? [] : [[name, of(figure)]]),
  );
}

if (import.meta.main) {
  try {
    const [first, ...others] = Deno.args;
    if (first === "kernel") {
      await benchKernel(others);
      Deno.exit(0);
    }
    if (first === "whole") Deno.exit(await benchWhole(others) ? 0 : 1);
    Deno.exit(await bench(Deno.args) ? 0 : 1);
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    Deno.exit(error instanceof UsageError ? 2 : 1);
  }
}
