/**
 * How long things take: rounds chosen so that a run is long enough, engines and peers taking turns, medians of several runs.
 *
 * Room: `bench/`; imports the runners and the rows.
 *
 * @module
 */
import type { EngineKind } from "../hw/machine.ts";
import { type ClockName, seconds as now } from "./clock.ts";
import type { Program } from "./programs.ts";
import type { Micro } from "./micro.ts";
import type { Runner } from "./runner.ts";

/** What was measured of a program on one runner. */
export interface Figure {
  /** Median seconds of a run, less those of one with no rounds (or those of the warm-up alone). */
  readonly seconds: number;
  /** Rounds that took them. */
  readonly rounds: number;
  /** Events (or instructions) a second. */
  readonly perSecond: number;
}

/** What was measured of a program. */
export interface Row {
  readonly program: Program;
  /** Instructions in a round, from our machine. */
  readonly instructionsPerRound: number;
  /** By runner; undefined where it does not run there. */
  readonly figures: Readonly<Record<string, Figure | undefined>>;
  /** What disagrees, in words. */
  readonly disagreements: readonly string[];
}

/** Settings of {@link measure}. */
export interface MeasureOptions {
  /** Runs of which the median is taken. */
  readonly runs: number;
  /** Seconds that a run should take. */
  readonly seconds: number;
  readonly clock: ClockName;
}

/** A run shorter than this says nothing about the speed. */
const SHORTEST = 0.2;
/** A trial that is no longer than this over nothing is mostly noise. */
const NOISE = 0.05;
const ROUNDS_MAX = 1e8;
/** Most that rounds grow by from trial to trial. */
const GROWTH_MAX = 12;
/** How often rounds are chosen anew when a run turns out too short. */
const ATTEMPTS_MAX = 3;

/** The middle of some numbers. */
export function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** Measures one program on all runners. `counter` is the engine that counts instructions. */
export async function measure(
  program: Program,
  runners: readonly Runner[],
  counter: Runner,
  options: MeasureOptions,
): Promise<Row> {
  const { name, checkRounds } = program;
  const able = runners.filter((runner) =>
    !(program.ownOnly && runner.isPeer) && !program.not?.includes(runner.name)
  );
  const empty = await counter.run(program, 0);
  const counted = await counter.run(program, checkRounds);
  const instructionsPerRound = Math.round((counted.instructions! - empty.instructions!) / checkRounds);
  const disagreements: string[] = [];
  const rounds = new Map<Runner, number>();
  for (const runner of able) {
    const checks = [await runner.run(program, checkRounds), await runner.run(program, 0)] as const;
    for (const [i, expected] of [counted, empty].entries()) {
      if (checks[i]!.check !== expected.check) {
        disagreements.push(
          `${name} ${i === 0 ? checkRounds : 0}: ${runner.name} gives ${
            checks[i]!.check
          }, ${counter.name} ${expected.check}`,
        );
      }
    }
    rounds.set(
      runner,
      await chooseRounds(program, runner, checks[0].seconds, checks[1].seconds, options.seconds),
    );
  }
  const figures: Record<string, Figure | undefined> = {};
  let open = able;
  for (let attempt = 0; attempt < ATTEMPTS_MAX && open.length > 0; attempt++) {
    const taken = await takeTurns(program, open, rounds, options.runs);
    for (const [runner, seconds] of taken) {
      const n = rounds.get(runner)! - warmUpOf(runner, rounds);
      const perSecond = n * (program.perRound ?? instructionsPerRound) / seconds;
      // A run with all rounds that is no longer than one with none says nothing: better no figure than that.
      figures[runner.name] = seconds > 0 ? { seconds, rounds: n, perSecond } : undefined;
    }
    // Where the first trials misled, too few rounds were chosen: once more with more.
    open = open.filter((runner) => taken.get(runner)! < options.seconds / 2);
    for (const runner of open) {
      const factor = options.seconds / Math.max(taken.get(runner)!, options.seconds / 8);
      rounds.set(runner, Math.min(ROUNDS_MAX, Math.ceil(rounds.get(runner)! * factor)));
    }
  }
  return { program, instructionsPerRound, figures, disagreements };
}

/** Rounds that are not measured. */
function warmUpOf(runner: Runner, rounds: ReadonlyMap<Runner, number>): number {
  return Math.floor((runner.warmUp ?? 0) * rounds.get(runner)!);
}

/** Runs all in turn, so that what disturbs the host disturbs all; gives seconds, the median without those of no rounds. */
async function takeTurns(
  program: Program,
  runners: readonly Runner[],
  rounds: ReadonlyMap<Runner, number>,
  runs: number,
): Promise<Map<Runner, number>> {
  const full = new Map<Runner, number[]>(runners.map((runner) => [runner, []]));
  const none = new Map<Runner, number[]>(runners.map((runner) => [runner, []]));
  for (let i = 0; i < runs; i++) {
    for (const runner of runners) {
      none.get(runner)!.push((await runner.run(program, warmUpOf(runner, rounds))).seconds);
      full.get(runner)!.push((await runner.run(program, rounds.get(runner)!)).seconds);
    }
  }
  return new Map(runners.map((runner) => [runner, median(full.get(runner)!) - median(none.get(runner)!)]));
}

/** Rounds with which a run takes about `wanted` seconds more than one without any. What compiles is slow at first: trials grow step by step. */
async function chooseRounds(
  program: Program,
  runner: Runner,
  firstSeconds: number,
  emptySeconds: number,
  wanted: number,
): Promise<number> {
  let n = program.checkRounds;
  let seconds = firstSeconds - emptySeconds;
  while (seconds < wanted / 2 && n < ROUNDS_MAX) {
    const factor = seconds > NOISE ? Math.min(GROWTH_MAX, wanted / seconds) : GROWTH_MAX;
    n = Math.min(ROUNDS_MAX, Math.ceil(n * factor));
    seconds = (await runner.run(program, n)).seconds - emptySeconds;
  }
  return Math.max(1, Math.min(ROUNDS_MAX, Math.round(n * wanted / seconds)));
}

/** Measures a row that needs no image: times a second. */
export function measureMicro(micro: Micro, engine: EngineKind, options: MeasureOptions): number {
  const run = micro.make(engine);
  let times = 1000, seconds = 0;
  const time = () => {
    const start = now(options.clock);
    run(times);
    return now(options.clock) - start;
  };
  while ((seconds = time()) < SHORTEST) times *= 4;
  times = Math.ceil(times * options.seconds / seconds);
  return times / median(Array.from({ length: options.runs }, time));
}
