/**
 * Plots as SVG: panels of stacked bars or of lines, side by side, with one legend for all.
 *
 * Room: `lab/vkernel/`; imports nothing. What a person would put in a paper: no frame, few lines, colours that the colour-blind can tell
 * apart (Okabe and Ito's), lines that differ in dash and marker too. The same figures give the same bytes.
 *
 * @module
 */

/** One colour a series. */
export const PALETTE: readonly string[] = [
  "#56b4e9",
  "#e69f00",
  "#0072b2",
  "#d55e00",
  "#009e73",
  "#cc79a7",
  "#f0e442",
  "#999999",
];

/** What all panels of a figure have in common. */
export interface Figure {
  /** For a reader who does not see it, and the tooltip. */
  readonly description: string;
  /** Names of the series, in the order of {@link PALETTE}. */
  readonly series: readonly string[];
  readonly panels: readonly Panel[];
  /** Panels in a row. */
  readonly columns: number;
  /** Width and height of a panel's plotting area. Default: 150 by 120. */
  readonly size?: readonly [width: number, height: number];
}

/** Bars, stacked from the series. */
export interface BarPanel {
  readonly kind: "bars";
  readonly title: string;
  /** What the vertical axis shows. */
  readonly unit: string;
  readonly bars: readonly {
    readonly name: string;
    /** By series; a missing one is 0. */
    readonly values: readonly number[];
    /** Stands above the bar; default: the sum. */
    readonly label?: string;
  }[];
}

/** Lines over a few named points. */
export interface LinePanel {
  readonly kind: "lines";
  readonly title: string;
  readonly unit: string;
  /** What the horizontal axis shows. */
  readonly across: string;
  readonly points: readonly string[];
  /** By series, by point; undefined where nothing was measured. */
  readonly values: readonly (readonly (number | undefined)[])[];
  /** Logarithmic vertical axis. */
  readonly logarithmic?: boolean;
}

/** A panel. */
export type Panel = BarPanel | LinePanel;

const FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif";
const MARGIN = { left: 46, right: 10, top: 24, bottom: 34 } as const;
const LEGEND_LINE = 18;
const DASHES = ["", "6 3", "2 2", "8 3 2 3", "4 2", "1 3"] as const;

const escape = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");

const round = (value: number): number => Math.round(value * 100) / 100;

function element(name: string, attributes: Readonly<Record<string, string | number>>, inside = ""): string {
  const written = Object.entries(attributes).map(([key, value]) =>
    ` ${key}="${typeof value === "number" ? round(value) : escape(value)}"`
  ).join("");
  return inside === "" ? `<${name}${written}/>` : `<${name}${written}>${inside}</${name}>`;
}

interface TextStyle {
  readonly anchor?: "start" | "middle" | "end";
  readonly size?: number;
  readonly weight?: "normal" | "bold";
  readonly fill?: string;
  readonly rotate?: number;
}

function text(x: number, y: number, what: string, style: TextStyle = {}): string {
  return element("text", {
    x,
    y,
    "font-size": style.size ?? 9,
    ...(style.anchor === undefined ? {} : { "text-anchor": style.anchor }),
    ...(style.weight === undefined ? {} : { "font-weight": style.weight }),
    ...(style.fill === undefined ? {} : { fill: style.fill }),
    ...(style.rotate === undefined ? {} : { transform: `rotate(${style.rotate} ${round(x)} ${round(y)})` }),
  }, escape(what));
}

function line(x1: number, y1: number, x2: number, y2: number, stroke: string, width = 1): string {
  return element("line", { x1, y1, x2, y2, stroke, "stroke-width": width });
}

/** A number as axes and labels show it: three digits at most, thousands as k. */
export function shortNumber(value: number): string {
  const size = Math.abs(value);
  if (size >= 999_500) return `${trim(value / 1e6)}M`;
  if (size >= 9995) return `${trim(value / 1000)}k`;
  return trim(value);
}

function trim(value: number): string {
  const size = Math.abs(value);
  return String(Number(size >= 100 ? value.toFixed(0) : value.toPrecision(size >= 1 || size < 0.1 ? 3 : 2)));
}

/** Where the ticks of an axis from 0 stand: at round numbers, the last at or above `most`. */
export function linearTicks(most: number, wanted = 4): number[] {
  if (!(most > 0)) return [0, 1];
  const rough = most / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999)! * power;
  return Array.from(
    { length: Math.ceil(most / step - 1e-9) + 1 },
    (_, i) => Number((i * step).toPrecision(6)),
  );
}

/** Powers of ten around a range. */
function logarithmicTicks(least: number, most: number): number[] {
  const first = Math.floor(Math.log10(least)), last = Math.max(first + 1, Math.ceil(Math.log10(most)));
  return Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i));
}

/** The vertical axis: grid, tick labels, and what is where. */
interface Axis {
  readonly drawn: string;
  readonly y: (value: number) => number;
}

function verticalAxis(
  ticks: readonly number[],
  logarithmic: boolean,
  width: number,
  height: number,
  unit: string,
): Axis {
  const least = ticks[0]!, most = ticks.at(-1)!;
  const share = (value: number) =>
    logarithmic
      ? (Math.log10(Math.max(value, least)) - Math.log10(least)) / (Math.log10(most) - Math.log10(least))
      : value / most;
  const y = (value: number) => height - share(value) * height;
  const drawn = ticks.map((tick) =>
    line(0, y(tick), width, y(tick), tick === least ? "#444444" : "#e4e4e4") +
    text(-5, y(tick) + 3, shortNumber(tick), { anchor: "end" })
  );
  return {
    y,
    drawn: drawn.join("") +
      text(-36, height / 2, unit, { anchor: "middle", rotate: -90, fill: "#444444" }),
  };
}

function bars(panel: BarPanel, width: number, height: number): string {
  const sums = panel.bars.map(({ values }) => values.reduce((a, b) => a + b, 0));
  // Room for the label above the highest bar.
  const ticks = linearTicks(Math.max(...sums, 0) * 1.08);
  const { drawn, y } = verticalAxis(ticks, false, width, height, panel.unit);
  const place = width / panel.bars.length, thick = Math.min(place * 0.62, 34);
  const parts = panel.bars.map(({ name, values, label }, i) => {
    const x = (i + 0.5) * place;
    let below = 0;
    const pieces = values.map((value, series) => {
      const from = below;
      below += value;
      if (value <= 0) return "";
      return element("rect", {
        x: x - thick / 2,
        y: y(below),
        width: thick,
        height: y(from) - y(below),
        fill: PALETTE[series % PALETTE.length]!,
      });
    });
    return pieces.join("") +
      text(x, y(below) - 3, label ?? shortNumber(sums[i]!), { anchor: "middle", size: 8 }) +
      text(x, height + 13, name, { anchor: "middle" });
  });
  return drawn + parts.join("");
}

/** A small shape, different for each series. */
function marker(series: number, x: number, y: number): string {
  const fill = PALETTE[series % PALETTE.length]!, r = 3.2;
  const polygon = (points: readonly (readonly [number, number])[]) =>
    element("polygon", {
      points: points.map(([dx, dy]) => `${round(x + dx)},${round(y + dy)}`).join(" "),
      fill,
    });
  switch (series % 4) {
    case 0:
      return element("circle", { cx: x, cy: y, r, fill });
    case 1:
      return element("rect", { x: x - r, y: y - r, width: 2 * r, height: 2 * r, fill });
    case 2:
      return polygon([[0, -r * 1.2], [r * 1.1, r], [-r * 1.1, r]]);
    default:
      return polygon([[0, -r * 1.3], [r * 1.3, 0], [0, r * 1.3], [-r * 1.3, 0]]);
  }
}

function lines(panel: LinePanel, width: number, height: number): string {
  const values = panel.values.flat().filter((value) => value !== undefined);
  const positive = values.filter((value) => value > 0);
  const logarithmic = panel.logarithmic === true && positive.length > 0;
  const ticks = logarithmic
    ? logarithmicTicks(Math.min(...positive), Math.max(...positive))
    : linearTicks(Math.max(...values, 0));
  const { drawn, y } = verticalAxis(ticks, logarithmic, width, height, panel.unit);
  const place = width / panel.points.length;
  const x = (point: number) => (point + 0.5) * place;
  const names = panel.points.map((name, i) => text(x(i), height + 13, name, { anchor: "middle" })).join("");
  const curves = panel.values.map((row, series) => {
    const known = row.flatMap((value, i) => value === undefined ? [] : [[x(i), y(value)] as const]);
    const dash = DASHES[series % DASHES.length]!;
    const curve = known.length < 2 ? "" : element("polyline", {
      points: known.map(([px, py]) => `${round(px)},${round(py)}`).join(" "),
      fill: "none",
      stroke: PALETTE[series % PALETTE.length]!,
      "stroke-width": 1.6,
      ...(dash === "" ? {} : { "stroke-dasharray": dash }),
    });
    return curve + known.map(([px, py]) => marker(series, px, py)).join("");
  });
  return drawn + names + text(width / 2, height + 26, panel.across, { anchor: "middle", fill: "#444444" }) +
    curves.join("");
}

/** The legend, in as many lines as the width asks for. */
function legend(figure: Figure, width: number): { readonly drawn: string; readonly height: number } {
  const isLines = figure.panels[0]?.kind === "lines";
  const room = 28 + Math.max(...figure.series.map(({ length }) => length)) * 5;
  const columns = Math.max(1, Math.min(figure.series.length, Math.floor(width / room)));
  const drawn = figure.series.map((name, series) => {
    const x = series % columns * room, y = Math.floor(series / columns) * LEGEND_LINE;
    const dash = DASHES[series % DASHES.length]!, stroke = PALETTE[series % PALETTE.length]!;
    const key = isLines
      ? element("line", {
        x1: x,
        y1: y + 8,
        x2: x + 18,
        y2: y + 8,
        stroke,
        "stroke-width": 1.6,
        ...(dash === "" ? {} : { "stroke-dasharray": dash }),
      }) + marker(series, x + 9, y + 8)
      : element("rect", { x: x + 4, y: y + 3, width: 10, height: 10, fill: stroke });
    return key + text(x + 22, y + 11, name);
  });
  return { drawn: drawn.join(""), height: Math.ceil(figure.series.length / columns) * LEGEND_LINE };
}

/** Draws a figure. */
export function renderFigure(figure: Figure): string {
  const [width, height] = figure.size ?? [150, 120];
  const cell = {
    width: MARGIN.left + width + MARGIN.right,
    height: MARGIN.top + height + MARGIN.bottom,
  };
  const columns = Math.min(figure.columns, figure.panels.length);
  const total = cell.width * columns;
  const key = legend(figure, total - MARGIN.left - MARGIN.right);
  const rows = Math.ceil(figure.panels.length / columns);
  const full = key.height + 6 + rows * cell.height;
  const panels = figure.panels.map((panel, i) => {
    const x = i % columns * cell.width + MARGIN.left;
    const y = key.height + 6 + Math.floor(i / columns) * cell.height + MARGIN.top;
    const inside = text(0, -9, panel.title, { weight: "bold", size: 10 }) +
      (panel.kind === "bars" ? bars(panel, width, height) : lines(panel, width, height));
    return element("g", { transform: `translate(${x} ${y})` }, inside);
  });
  return element(
    "svg",
    {
      xmlns: "http://www.w3.org/2000/svg",
      viewBox: `0 0 ${total} ${full}`,
      width: total,
      height: full,
      "font-family": FONT,
      fill: "#111111",
      role: "img",
    },
    [
      element("title", {}, escape(figure.description)),
      element("rect", { width: total, height: full, fill: "#ffffff" }),
      element("g", { transform: `translate(${MARGIN.left} 4)` }, key.drawn),
      ...panels,
    ].join("\n"),
  ) + "\n";
}
