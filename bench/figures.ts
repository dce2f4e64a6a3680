/**
 * What the bench has measured, as a table of speeds by row and runner; the figures that were kept last (`figures.json`), what has become slower
 * than they say, and which targets are met.
 *
 * Room: `bench/`; imports programs.ts.
 *
 * @module
 */
import type { Target } from "./programs.ts";

/** Speeds of one row. */
export interface RowFigures {
  readonly name: string;
  readonly unit: string;
  /** Instructions in a round, where that is what is counted. */
  readonly instructionsPerRound?: number;
  /** Events or instructions a second, by runner. */
  readonly perSecond: Readonly<Record<string, number>>;
  /** Rounds of each runner's runs. */
  readonly rounds?: Readonly<Record<string, number>>;
}

/** What `--json` and `--keep` write. */
export interface Report {
  /** The host, in its owner's words. */
  readonly about: string;
  readonly runners: readonly { readonly name: string; readonly about: string }[];
  readonly runs: number;
  readonly clock: string;
  readonly rows: readonly RowFigures[];
  readonly disagreements: readonly string[];
}

/** The figures that were kept last. */
export const KEPT: URL = new URL("figures.json", import.meta.url);
/** A figure below this part of the kept one is marked. */
export const SLOWER = 0.9;

/** The kept report; undefined if there is none. */
export async function keptReport(): Promise<Report | undefined> {
  try {
    return JSON.parse(await Deno.readTextFile(KEPT));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** `report` with those rows of `kept` that it has not, in their places. */
export function merged(report: Report, kept: Report | undefined, order: readonly string[]): Report {
  const rows = new Map((kept?.rows ?? []).map((row) => [row.name, row]));
  for (const row of report.rows) {
    // Runners that were left out this time keep their figure.
    const before = rows.get(row.name);
    rows.set(row.name, { ...row, perSecond: { ...before?.perSecond, ...row.perSecond } });
  }
  const runners = new Map((kept?.runners ?? []).map((runner) => [runner.name, runner]));
  for (const runner of report.runners) runners.set(runner.name, runner);
  const sorted = order.map((name) => rows.get(name)).filter((row) => row !== undefined);
  return { ...report, runners: [...runners.values()], rows: sorted };
}

/**
 * What an engine's figure is to the kept one, 1 for equal. Where a peer ran the row then and now, speeds relative to that peer are compared, so
 * that a host that is slower today marks nothing. Undefined where nothing was kept.
 */
export function toKept(
  row: RowFigures,
  engine: string,
  peers: readonly string[],
  kept: Report | undefined,
): number | undefined {
  const before = kept?.rows.find(({ name }) => name === row.name)?.perSecond;
  const was = before?.[engine], is = row.perSecond[engine];
  if (before === undefined || was === undefined || is === undefined) return undefined;
  const peer = peers.find((name) => before[name] !== undefined && row.perSecond[name] !== undefined);
  return is / was / (peer === undefined ? 1 : row.perSecond[peer]! / before[peer]!);
}

/** A target, and what was reached of it. */
export interface Verdict {
  readonly row: string;
  /** Whom the row is compared with, as "qemu" or "qemu syscall". */
  readonly to: string;
  readonly ratio: number;
  readonly target: number;
  readonly isMet: boolean;
}

/** The targets for which this report has both figures, for one engine. */
export function verdicts(
  rows: readonly RowFigures[],
  targets: ReadonlyMap<string, Target>,
  engine: string,
): Verdict[] {
  const found: Verdict[] = [];
  for (const row of rows) {
    const target = targets.get(row.name);
    if (target === undefined) continue;
    const other = rows.find(({ name }) => name === (target.row ?? row.name));
    const ours = row.perSecond[engine];
    const theirs = other?.perSecond[target.runner === "self" ? engine : target.runner];
    if (ours === undefined || theirs === undefined) continue;
    const who = target.runner === "self" ? "itself" : target.runner;
    const ratio = ours / theirs;
    found.push({
      row: row.name,
      to: target.row === undefined ? who : `${who} ${target.row}`,
      ratio,
      target: target.ratio,
      isMet: ratio >= target.ratio,
    });
  }
  return found;
}
