/**
 * The measurement as figures for a paper.
 *
 * Room: `lab/vkernel/`; imports rows, estimates and the drawing.
 *
 * @module
 */
import { GENERATIONS, generationsFor } from "./costs.ts";
import type { CountName } from "./counts.ts";
import { estimate, PART_NAMES, PARTS, singleRowOf } from "./estimate.ts";
import { type Kind, KINDS } from "./kinds.ts";
import type { Row } from "./measure.ts";
import { type BarPanel, type Figure, type LinePanel, renderFigure } from "./svg.ts";
import { WORKLOADS } from "./workloads.ts";

/** A file to write. */
export interface Plot {
  readonly name: string;
  readonly svg: string;
}

/** The model that the figures of one model show: the one that designs or numbers of processors were measured on; else the last that has EPT flags. */
function shownModel(rows: readonly Row[]): string | undefined {
  const special = rows.findLast((row) => row.label !== undefined || row.cpus > 1);
  return (special ?? rows.findLast((row) => row.eptAd === true) ?? rows.at(-1))?.model;
}

/** Rows of one processor on one model, by workload; `only` kinds. */
function panelsOf(
  rows: readonly Row[],
  panel: (title: string, rows: readonly Row[]) => BarPanel,
): BarPanel[] {
  return WORKLOADS.flatMap(({ name }) => {
    const of = rows.filter((row) =>
      row.workload === name && row.argument === undefined && row.label === undefined
    );
    const sorted = KINDS.flatMap((kind) => of.filter((row) => row.kind === kind));
    return sorted.length === 0 ? [] : [panel(name, sorted)];
  });
}

function barFigure(description: string, series: readonly string[], panels: readonly BarPanel[]): Figure {
  return { description, series, panels, columns: 3 };
}

/** How often the host's kernel is entered for an operation. */
function crossingsPlot(rows: readonly Row[]): Plot[] {
  const model = shownModel(rows);
  const shown = rows.filter((row) => row.model === model && row.cpus === 1 && row.label === undefined);
  const panels = panelsOf(shown, (title, of) => ({
    kind: "bars",
    title,
    unit: "per operation",
    bars: of.map((row) => {
      const { syscalls, traps, interrupts, exits } = row.counts.totals;
      return { name: row.kind, values: [syscalls, traps, interrupts, exits] };
    }),
  }));
  if (panels.length === 0) return [];
  const figure = barFigure(
    `Entries of the host kernel for one operation, by kind of kernel that the program runs on, ${model}, one processor`,
    ["host system calls", "host traps", "host interrupts", "VM exits"],
    panels,
  );
  return [{ name: "crossings", svg: renderFigure(figure) }];
}

/** Estimated time, in its parts: a figure for each generation. */
function timePlots(rows: readonly Row[]): Plot[] {
  const model = shownModel(rows);
  if (model === undefined) return [];
  const shown = rows.filter((row) => row.model === model && row.cpus === 1);
  return generationsFor(model).flatMap((generation) => {
    const panels = panelsOf(shown, (title, of) => ({
      kind: "bars",
      title,
      unit: "µs, estimated",
      bars: of.map((row) => {
        const { parts } = estimate(row, generation, singleRowOf(row, rows));
        return { name: row.kind, values: PART_NAMES.map((name) => parts[name] / 1000) };
      }),
    }));
    if (panels.length === 0) return [];
    const figure = barFigure(
      `Estimated processor time of one operation, prices of ${generation.name}`,
      PART_NAMES.map((name) => PARTS[name]),
      panels,
    );
    return [{ name: `time-${generation.name}`, svg: renderFigure(figure) }];
  });
}

/** VM exits by reason. */
function exitsPlot(rows: readonly Row[]): Plot[] {
  const model = shownModel(rows);
  const shown = rows.filter((row) =>
    row.model === model && row.cpus === 1 && row.counts.totals.exits > 0.005
  );
  const sums = new Map<string, number>();
  for (const { counts } of shown) {
    for (const [name, n] of Object.entries(counts.exits)) {
      // By share of its row, so that a row of many does not hide the others' reasons.
      sums.set(name, (sums.get(name) ?? 0) + n / counts.totals.exits);
    }
  }
  const reasons = [...sums].filter(([, n]) => n > 0.005).sort((a, b) => b[1] - a[1]).map(([name]) => name);
  const named = reasons.slice(0, 7), others = reasons.slice(7);
  const panels = panelsOf(shown, (title, of) => ({
    kind: "bars",
    title,
    unit: "exits per operation",
    bars: of.map(({ kind, counts: { exits } }) => ({
      name: kind,
      values: [
        ...named.map((name) => Math.max(0, exits[name] ?? 0)),
        others.reduce((sum, name) => sum + Math.max(0, exits[name] ?? 0), 0),
      ],
    })),
  }));
  if (panels.length === 0) return [];
  const figure = barFigure(`VM exits of one operation by reason, ${model}, one processor`, [
    ...named,
    ...(others.length > 0 ? ["other"] : []),
  ], panels);
  return [{ name: "exits", svg: renderFigure(figure) }];
}

/** Curves by kind: one panel. */
function linePanel<T>(
  title: string,
  unit: string,
  across: string,
  points: readonly T[],
  kinds: readonly Kind[],
  value: (kind: Kind, point: T) => number | undefined,
): LinePanel {
  return {
    kind: "lines",
    title,
    unit,
    across,
    points: points.map(String),
    values: kinds.map((kind) => points.map((point) => value(kind, point))),
  };
}

/** What more processors cost: a right is taken away from a page that a thread on each of them may use. */
function processorsPlot(rows: readonly Row[]): Plot[] {
  const of = rows.filter((row) => row.workload === "mprotect" && row.label === undefined);
  const model = of.findLast((row) => row.cpus > 1)?.model;
  const shown = of.filter((row) => row.model === model);
  const cpus = [...new Set(shown.map((row) => row.cpus))].sort((a, b) => a - b);
  if (cpus.length < 2) return [];
  const kinds = KINDS.filter((kind) => shown.some((row) => row.kind === kind && row.cpus > 1));
  const find = (kind: Kind, n: number) => shown.find((row) => row.kind === kind && row.cpus === n);
  const count = (names: readonly CountName[]) => (kind: Kind, n: number) => {
    const row = find(kind, n);
    return row === undefined ? undefined : names.reduce((sum, name) => sum + row.counts.totals[name], 0);
  };
  const generation = generationsFor(model!)[0];
  const time = (kind: Kind, n: number) => {
    const row = find(kind, n);
    if (row === undefined || generation === undefined) return undefined;
    return estimate(row, generation, singleRowOf(row, rows)).total / 1000;
  };
  const panel = (title: string, unit: string, of: (kind: Kind, n: number) => number | undefined) =>
    linePanel(title, unit, "processors", cpus, kinds, of);
  const figure: Figure = {
    description: `mprotect while a thread runs on each other processor, ${model}`,
    series: kinds,
    columns: 2,
    size: [190, 130],
    panels: [
      panel(
        "host kernel crossings and VM exits",
        "per operation",
        count(["syscalls", "traps", "interrupts", "exits"]),
      ),
      panel("host IPIs", "per operation", count(["ipis"])),
      panel("invalidations", "per operation", count(["invlpg", "cr3Loads", "invept", "flushes"])),
      ...(generation === undefined ? [] : [panel("estimated processor time", "µs", time)]),
    ],
  };
  return [{ name: "processors", svg: renderFigure(figure) }];
}

/** The workloads that the figure of generations shows. */
const BY_GENERATION = ["syscall", "zfod", "pingpong", "build"] as const;

/** The same operations at the prices of one generation of processors after the other, each with the counts of a model of that generation. */
function generationsPlot(rows: readonly Row[]): Plot[] {
  const plain = rows.filter((row) => row.cpus === 1 && row.label === undefined && row.argument === undefined);
  const shown = GENERATIONS.flatMap((generation) => {
    const model = generation.models.find((name) => plain.some((row) => row.model === name));
    return model === undefined ? [] : [{ generation, model }];
  });
  if (shown.length < 2) return [];
  const kinds = KINDS.filter((kind) => plain.some((row) => row.kind === kind));
  const panels = BY_GENERATION.filter((name) => plain.some((row) => row.workload === name)).map((
    name,
  ): LinePanel => ({
    ...linePanel(name, "µs, estimated", "", shown, kinds, (kind, { generation, model }) => {
      const row = plain.find((row) => row.workload === name && row.kind === kind && row.model === model);
      return row === undefined ? undefined : estimate(row, generation).total / 1000;
    }),
    points: shown.map(({ generation }) => generation.name),
  }));
  const figure: Figure = {
    description: "Estimated processor time of one operation by generation of processors, one processor",
    series: kinds,
    columns: 2,
    size: [310, 130],
    panels,
  };
  return [{ name: "generations", svg: renderFigure(figure) }];
}

/** What a TLB miss costs: references of a pointer chase over growing memory. */
function chasePlot(rows: readonly Row[]): Plot[] {
  const of = rows.filter((row) => row.workload === "chase" && row.argument !== undefined && row.cpus === 1);
  const model = of.at(-1)?.model;
  const shown = of.filter((row) => row.model === model);
  const sizes = [...new Set(shown.map((row) => row.argument!))].sort((a, b) => a - b);
  if (sizes.length < 2) return [];
  const kinds = KINDS.filter((kind) => shown.some((row) => row.kind === kind));
  const value = (of: (totals: Row["counts"]["totals"]) => number) => (kind: Kind, size: number) => {
    const row = shown.find((row) => row.kind === kind && row.argument === size);
    return row === undefined ? undefined : of(row.counts.totals);
  };
  const panel = (title: string, of: (totals: Row["counts"]["totals"]) => number) =>
    linePanel(title, "per step", "MiB", sizes, kinds, value(of));
  const figure: Figure = {
    description: `A pointer chase, one pointer in each page, ${model}`,
    series: kinds,
    columns: 2,
    size: [190, 130],
    panels: [
      panel("page walks", (totals) => totals.walks),
      panel("references, both dimensions", (totals) => totals.references + totals.eptReferences),
    ],
  };
  return [{ name: "chase", svg: renderFigure(figure) }];
}

/** What accessed and dirty flags of EPT are worth: the same model with and without. */
function flagsPlot(rows: readonly Row[]): Plot[] {
  const models = [
    ...new Set(rows.filter((row) => row.kind === "vmm" && row.cpus === 1).map((row) => row.model)),
  ];
  if (models.length < 2) return [];
  const kinds: readonly Kind[] = ["vmm", "ring0"];
  const panels = WORKLOADS.flatMap(({ name }) =>
    kinds.flatMap((kind): BarPanel[] => {
      const bars = models.flatMap((model) => {
        const row = rows.find((row) =>
          row.workload === name && row.kind === kind && row.model === model && row.cpus === 1 &&
          row.argument === undefined && row.label === undefined
        );
        if (row === undefined) return [];
        const { exits, eptViolations } = row.counts.totals;
        return [{ name: model, values: [Math.max(0, exits - eptViolations), eptViolations] }];
      });
      // Where a workload has no violations the flags make no difference.
      const differ = bars.some(({ values: [, violations] }) => violations! > 0.005);
      return differ ? [{ kind: "bars", title: `${name}, ${kind}`, unit: "exits per operation", bars }] : [];
    })
  );
  if (panels.length === 0) return [];
  const figure: Figure = {
    description: "VM exits of one operation with and without accessed and dirty flags in EPT",
    series: ["other VM exits", "EPT violations"],
    columns: 2,
    size: [72 * models.length, 110],
    panels,
  };
  return [{ name: "ept-flags", svg: renderFigure(figure) }];
}

/** The designs of the VMM beside each other, in what they differ in at all. */
function designsPlot(rows: readonly Row[]): Plot[] {
  const model = rows.findLast((row) => row.label !== undefined)?.model;
  const shown = rows.filter((row) =>
    row.kind === "vmm" && row.model === model && row.cpus === 1 && row.argument === undefined
  );
  const counts = ["exits", "guestWalks", "twinCopies", "twinUpdates", "adEmulated"] as const;
  const panels = WORKLOADS.flatMap(({ name }): BarPanel[] => {
    const of = shown.filter((row) => row.workload === name);
    const bars = of.map((row) => ({
      name: row.label ?? "default",
      values: counts.map((count) => Math.max(0, row.counts.totals[count])),
    }));
    const differ = bars.some((bar) =>
      bar.values.some((value, i) => Math.abs(value - bars[0]!.values[i]!) > 0.5)
    );
    return differ ? [{ kind: "bars", title: name, unit: "per operation", bars }] : [];
  });
  if (panels.length === 0) return [];
  const figure: Figure = {
    description:
      `What one operation costs by what the host was told to do, kind vmm, ${model}, one processor`,
    series: [
      "VM exits",
      "software walks of guest tables",
      "copies by own addresses",
      "map changes applied twice",
      "A/D bits emulated",
    ],
    columns: 2,
    size: [250, 110],
    panels,
  };
  return [{ name: "designs", svg: renderFigure(figure) }];
}

/** All figures that the rows are enough for. */
export function plots(rows: readonly Row[]): Plot[] {
  return [
    ...crossingsPlot(rows),
    ...timePlots(rows),
    ...exitsPlot(rows),
    ...generationsPlot(rows),
    ...processorsPlot(rows),
    ...chasePlot(rows),
    ...flagsPlot(rows),
    ...designsPlot(rows),
  ];
}
