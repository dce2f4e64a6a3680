/**
 * What a run prints about itself: how to repeat it, how it ended, what it counted.
 *
 * Room: `lab/cli/`; imports the machine's types. Results are plain records; rendering is separate.
 *
 * @module
 */
import { TICKS_PER_SECOND } from "../../hw/clock.ts";
import type { CounterValues } from "../../hw/counters.ts";
import type { Machine } from "../../hw/machine.ts";
import { shellQuote } from "./args.ts";
import type { DriveEnd } from "./drive.ts";

/** What `--stats json` prints. */
export interface RunStats {
  readonly seed: number;
  readonly engine: string;
  readonly cpuModel: string;
  readonly cpus: number;
  readonly memory: number;
  /** Why the run ended. */
  readonly stop: string;
  readonly exitCode: number;
  /** Instructions of all processors. */
  readonly instructions: number;
  /** The machine's clock: ticks of hw/clock.ts. */
  readonly ticks: number;
  /** Hash of the final state. */
  readonly hash: string;
  /** Sums over the processors. */
  readonly counters: Readonly<Record<string, number | readonly number[]>>;
  /** Counters of the gates, where there are gates. */
  readonly gates?: Readonly<Record<string, number>>;
  /** Counters of the bus. */
  readonly bus: Readonly<Record<string, number>>;
  /** Uses of stale translations that the sanitizer saw, where there is one. */
  readonly staleUses?: number;
}

/** The command that does the same again, with the seed written out. */
export function reproduction(task: string, args: readonly string[], seed: number): string {
  const behind = args.indexOf("--");
  const ours = behind < 0 ? args : args.slice(0, behind);
  const hasSeed = ours.some((word) => word === "--seed" || word.startsWith("--seed="));
  const words = hasSeed ? args : ["--seed", String(seed), ...args];
  return shellQuote(["deno", "task", task, ...words]);
}

/** The exit status of this process for the end of a guest. */
export function exitCode(end: DriveEnd): number {
  switch (end.reason) {
    case "exit":
      return end.code & 0xff;
    case "poweroff":
    case "reset":
    case "idle":
    case "until":
    case "steps":
    case "interrupted":
      return 0;
    case "shutdown":
    case "panic":
      return 1;
    case "quit":
      return 130;
  }
}

/** How a run ended, in words. */
export function describeEnd(end: DriveEnd): string {
  switch (end.reason) {
    case "exit":
      return `exit ${end.code}`;
    case "reset":
      return "the guest asked for a reset";
    case "poweroff":
      return "the guest switched the machine off";
    case "shutdown":
      return `triple fault on cpu${end.cpu}`;
    case "idle":
      return "all processors halted";
    case "steps":
      return "the bound on instructions was reached";
    case "until":
      return "the --until condition holds";
    case "interrupted":
      return "interrupted";
    case "panic": {
      const what = end.error instanceof Error ? `${end.error.name}: ${end.error.message}` : String(end.error);
      return `panic on cpu${end.cpu} in gate "${end.gate}": ${what}`;
    }
    case "quit":
      return "ended by the user";
  }
}

/** A number with a comma before every three digits. By hand: the host's formatter takes a tenth of a second to load. */
function grouped(value: number): string {
  const [whole, fraction] = String(value).split(".");
  const text = whole!.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction === undefined ? text : `${text}.${fraction}`;
}

/** The last line: one, for people. */
export function summary(machine: Machine, end: DriveEnd, milliseconds: number): string {
  const seconds = (machine.now / TICKS_PER_SECOND).toFixed(6);
  const mips = milliseconds > 0 ? (machine.instructions / 1000 / milliseconds).toFixed(1) : "-";
  return `exuvia: ${describeEnd(end)}; ${grouped(machine.instructions)} instructions, ` +
    `${seconds} s on the machine, ${
      (milliseconds / 1000).toFixed(3)
    } s here (${mips} MIPS, ${machine.engine})`;
}

/** Collects what `--stats` prints. Looks through all of RAM for the hash. */
export function collectStats(machine: Machine, end: DriveEnd, code: number): RunStats {
  return {
    seed: machine.seed,
    engine: machine.engine,
    cpuModel: machine.model.name,
    cpus: machine.cpus.length,
    memory: machine.memory.ramBytes,
    stop: describeEnd(end),
    exitCode: code,
    instructions: machine.instructions,
    ticks: machine.now,
    hash: machine.hash(),
    counters: sumCounters(machine.cpus.map((cpu) => cpu.counters.snapshot())),
    ...(machine.gates === undefined ? {} : { gates: { ...machine.gates.counters } }),
    bus: { ...machine.bus.counters },
    ...(machine.sanitizer === undefined ? {} : { staleUses: machine.sanitizer.count }),
  };
}

function sumCounters(all: readonly CounterValues[]): Record<string, number | number[]> {
  const sums: Record<string, number | number[]> = {};
  for (const counters of all) {
    for (const [name, value] of Object.entries(counters) as [string, number | ArrayLike<number>][]) {
      if (typeof value === "number") sums[name] = ((sums[name] as number | undefined) ?? 0) + value;
      else {
        const before = sums[name] as number[] | undefined;
        sums[name] = Array.from(value, (n, i) => n + (before?.[i] ?? 0));
      }
    }
  }
  return sums;
}

/** The statistics as a table. */
export function renderStats(stats: RunStats): string {
  const rows: [string, string][] = [];
  const add = (name: string, value: unknown) => {
    const text = typeof value === "number"
      ? grouped(value)
      : Array.isArray(value)
      ? value.map((n: number) => grouped(n)).join(" ")
      : String(value);
    rows.push([name, text]);
  };
  for (const [name, value] of Object.entries(stats)) {
    if (typeof value !== "object") add(name, value);
    else for (const [inner, n] of Object.entries(value as object)) add(`${name}.${inner}`, n);
  }
  const width = Math.max(...rows.map(([name]) => name.length)) + 2;
  return rows.map(([name, value]) => name.padEnd(width) + value).join("\n");
}
