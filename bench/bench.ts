/**
 * `deno task bench`: how fast the engines are, beside QEMU and Bochs where they are installed.
 *
 * Room: `bench/`; the command line of the bench. README.md beside it says what the rows are.
 *
 * @module
 */
import { choice, describeOptions, flag, integer, parseArguments, text, UsageError } from "../lab/cli/args.ts";
import { type EngineKind, ENGINES } from "../hw/machine.ts";
import { type ClockName, CLOCKS, hasClock } from "./clock.ts";
import { benchKernel } from "./kernel.ts";
import { type Figure, measure, measureMicro, type MeasureOptions, type Row } from "./measure.ts";
import { type Micro, MICROS as CORE_MICROS } from "./micro.ts";
import { listOf, number } from "./options.ts";
import { openPeer, type PeerName, PEERS } from "./peers.ts";
import { type Program, PROGRAMS, unitOf } from "./programs.ts";
import { EngineRunner, type Runner } from "./runner.ts";
import { VMX_MICROS } from "./vmx.ts";

const MICROS: readonly Micro[] = [...CORE_MICROS, ...VMX_MICROS];
/** Groups of rows that can be asked for by one word. */
const GROUPS: Readonly<Record<string, readonly string[]>> = { vmx: VMX_MICROS.map((m) => m.name) };
const NAMES: readonly string[] = [...PROGRAMS.map((p) => p.name), ...MICROS.map((m) => m.name)];
const OPTIONS = {
  only: listOf(NAMES, false, "rows to measure; default: all"),
  engines: listOf(ENGINES, false, `engines; default: ${ENGINES.join(",")}`),
  peers: listOf(PEERS, true, `peers, or none; default: ${PEERS.join(",")}, those that are installed`),
  runs: integer("N", "runs of which the median counts; default: 3", 1, 99),
  milliseconds: integer("MS", "length that a run should have; default: 1000", 20, 60_000),
  clock: choice(
    CLOCKS,
    "time on the wall, or processor time: for hosts that do other things too (Linux); default: wall",
  ),
  json: text("FILE", "also write the figures as JSON"),
  help: flag("print this"),
};

/** What `--json` writes. */
interface Report {
  readonly runners: readonly { readonly name: string; readonly about: string }[];
  readonly runs: number;
  readonly clock: ClockName;
  readonly rows: readonly {
    readonly name: string;
    readonly unit: string;
    readonly instructionsPerRound?: number;
    /** Events or instructions a second, by runner. */
    readonly perSecond: Readonly<Record<string, number>>;
    readonly rounds?: Readonly<Record<string, number>>;
  }[];
  readonly disagreements: readonly string[];
}

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
      `deno task bench [GROUP] [options], or: deno task bench kernel [options]\n\n${
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
  const engines = options.engines ?? ENGINES;
  const runners = await openRunners(engines, options.peers ?? PEERS, clock);
  const programs = PROGRAMS.filter((program) => wanted(program.name));
  const micros = MICROS.filter((micro) => wanted(micro.name));
  try {
    for (const runner of runners) console.log(`${runner.name}: ${runner.about}`);
    return await report(runners, programs, micros, setting, options.json);
  } finally {
    for (const runner of runners) await runner.close();
  }
}

async function report(
  runners: readonly Runner[],
  programs: readonly Program[],
  micros: readonly Micro[],
  setting: MeasureOptions,
  json: string | undefined,
): Promise<boolean> {
  const counter = runners.find((runner) => runner.name === "interpreter") ??
    new EngineRunner("interpreter", setting.clock);
  // Ratios of the first engine to each peer.
  const first = runners.find((runner) => !runner.isPeer)!;
  const peers = runners.filter((runner) => runner.isPeer);
  const heads = [
    "row",
    "unit",
    ...runners.map((r) => r.name),
    ...peers.map((p) => `${first.name}/${p.name}`),
  ];
  const widths = heads.map((head, i) => Math.max(head.length, i === 0 ? 9 : i === 1 ? 23 : 7));
  console.log("");
  line(heads, widths);
  const rows: Row[] = [];
  for (const program of programs) {
    const row = await measure(program, runners, counter, setting);
    rows.push(row);
    line(cells(row, runners, first, peers), widths);
    for (const sentence of row.disagreements) console.log(`  DISAGREEMENT: ${sentence}`);
  }
  const walks = micros.map((micro) => {
    const perSecond = measureMicro(micro, setting);
    line([micro.name, `M ${micro.event}/s`, number(perSecond / 1e6)], widths);
    return { name: micro.name, unit: `M ${micro.event}/s`, perSecond: { host: perSecond } };
  });
  const disagreements = rows.flatMap((row) => row.disagreements);
  if (json !== undefined) {
    const result: Report = {
      runners: runners.map(({ name, about }) => ({ name, about })),
      runs: setting.runs,
      clock: setting.clock,
      rows: [
        ...rows.map((row) => ({
          name: row.program.name,
          unit: unitOf(row.program),
          instructionsPerRound: row.instructionsPerRound,
          perSecond: pick(row, (figure) => figure.perSecond),
          rounds: pick(row, (figure) => figure.rounds),
        })),
        ...walks,
      ],
      disagreements,
    };
    await Deno.writeTextFile(json, JSON.stringify(result, null, 2) + "\n");
  }
  if (disagreements.length > 0) console.log("\nThe check values disagree; see above.");
  return disagreements.length === 0;
}

function cells(row: Row, runners: readonly Runner[], first: Runner, peers: readonly Runner[]): string[] {
  const scale = row.program.scale?.factor ?? 1e6;
  const per = (runner: Runner) => row.figures[runner.name]?.perSecond;
  const cell = (value: number | undefined) => value === undefined ? "-" : number(value);
  const scaled = (value: number | undefined) => value === undefined ? undefined : value / scale;
  return [
    row.program.name,
    unitOf(row.program),
    ...runners.map((runner) => cell(scaled(per(runner)))),
    ...peers.map((peer) => {
      const one = per(first), other = per(peer);
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
    Deno.exit(await bench(Deno.args) ? 0 : 1);
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    Deno.exit(error instanceof UsageError ? 2 : 1);
  }
}
