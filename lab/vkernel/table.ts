/**
 * The measurement as text.
 *
 * Room: `lab/vkernel/`; imports rows and estimates.
 *
 * @module
 */
import { generationsFor } from "./costs.ts";
import { crossings } from "./counts.ts";
import { estimate, singleRowOf } from "./estimate.ts";
import type { Row } from "./measure.ts";

/** A number of events an operation: exact where it is whole, else two digits. */
export function figure(value: number): string {
  if (Math.abs(value) < 0.005) return "0";
  if (Number.isInteger(value)) return String(value);
  return value.toFixed(Math.abs(value) >= 1000 ? 0 : Math.abs(value) >= 100 ? 1 : 2);
}

/** A time: three digits. */
export function time(microseconds: number): string {
  return microseconds >= 100 ? microseconds.toFixed(0) : String(Number(microseconds.toPrecision(3)));
}

/** What a row measures, with the argument that was chosen for it. */
export function workloadName(row: Row): string {
  return row.argument === undefined ? row.workload : `${row.workload} ${row.argument}`;
}

/** Where, with the design that the host was told to use. */
export function kindName(row: Row): string {
  return row.label === undefined ? row.kind : `${row.kind} ${row.label}`;
}

/** A column: its head, and what stands in it. */
type Column = readonly [head: string, of: (row: Row) => string];

const total = (head: string, name: keyof Row["counts"]["totals"]): Column => [
  head,
  (row) => figure(row.counts.totals[name]),
];

const COLUMNS: readonly Column[] = [
  ["workload", workloadName],
  ["kind", kindName],
  ["CPU model", (row) => row.model],
  ["CPUs", (row) => String(row.cpus)],
  ["crossings", (row) => figure(crossings(row.counts))],
  total("syscalls", "syscalls"),
  total("traps", "traps"),
  total("intr", "interrupts"),
  total("exits", "exits"),
  total("vtraps", "vkernelTraps"),
  total("gsys", "guestSyscalls"),
  total("gflt", "guestFaults"),
  total("walks", "walks"),
  total("refs", "references"),
  total("EPT refs", "eptReferences"),
  total("VPTE walks", "vpteWalks"),
  total("INVLPG", "invlpg"),
  total("CR3", "cr3Loads"),
  total("INVEPT", "invept"),
  total("IPIs", "ipis"),
  total("switches", "switches"),
  total("instr", "instructions"),
];

/** Estimated microseconds of a row in each generation that its model fits. */
export function estimatedTimes(
  row: Row,
  rows: readonly Row[],
): { generation: string; microseconds: number }[] {
  return generationsFor(row.model).map((generation) => ({
    generation: generation.name,
    microseconds: estimate(row, generation, singleRowOf(row, rows)).total / 1000,
  }));
}

/** Lines of cells, as wide as they must be; the first `left` columns to the left. */
export function alignedLines(lines: readonly (readonly string[])[], left: number): string[] {
  const widths = lines[0]!.map((_, i) => Math.max(...lines.map((cells) => cells[i]?.length ?? 0)));
  return lines.map((cells) =>
    cells.map((cell, i) => i < left ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)).join("  ")
      .trimEnd()
  );
}

/** The table: figures per operation, one line a row, and the estimated microseconds. */
export function renderTable(rows: readonly Row[]): string {
  const lines = rows.map((row) => {
    const times = estimatedTimes(row, rows);
    const shown = times.map(({ generation, microseconds }) =>
      times.length > 1 && generation !== row.model
        ? `${generation} ${time(microseconds)}`
        : time(microseconds)
    );
    return [...COLUMNS.map(([, of]) => of(row)), shown.join(", ")];
  });
  return alignedLines([[...COLUMNS.map(([head]) => head), "est. µs"], ...lines], 3).join("\n");
}

/** VM exits by reason, one line a row that has any. */
export function renderExits(rows: readonly Row[]): string {
  const lines = rows.filter((row) => row.counts.totals.exits > 0).map((row) => {
    const reasons = Object.entries(row.counts.exits).filter(([, count]) => Math.abs(count) >= 0.005)
      .sort((a, b) => b[1] - a[1]);
    const shown = reasons.map(([name, n]) => `${name} ${figure(n)}`).join(", ");
    return [workloadName(row), kindName(row), row.model, String(row.cpus), shown];
  });
  if (lines.length === 0) return "";
  return alignedLines([["workload", "kind", "CPU model", "CPUs", "VM exits by reason"], ...lines], 5).join(
    "\n",
  );
}
