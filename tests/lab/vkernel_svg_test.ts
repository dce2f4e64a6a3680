/** Figures of `deno task lab vkernel`: axes at round numbers, everything inside the picture, the same bytes each time. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { type Figure, linearTicks, renderFigure, shortNumber } from "../../lab/vkernel/svg.ts";

const BARS: Figure = {
  description: "a < b & c",
  series: ["one", "two"],
  columns: 2,
  panels: [
    {
      kind: "bars",
      title: "x",
      unit: "u",
      bars: [{ name: "p", values: [1, 2] }, { name: "q", values: [0] }],
    },
    { kind: "bars", title: "y", unit: "u", bars: [{ name: "p", values: [10] }] },
  ],
};

const LINES: Figure = {
  description: "lines",
  series: ["one", "two"],
  columns: 1,
  panels: [{
    kind: "lines",
    title: "z",
    unit: "u",
    across: "n",
    points: ["1", "2", "4"],
    values: [[1, 2, 4], [undefined, 3, 100]],
    logarithmic: true,
  }],
};

describe("an axis", () => {
  it("ends at a round number, at or above the largest value", () => {
    assertEquals(linearTicks(10), [0, 2.5, 5, 7.5, 10]);
    assertEquals(linearTicks(7), [0, 2, 4, 6, 8]);
    assertEquals(linearTicks(0.03).at(-1), 0.03);
    assertEquals(linearTicks(0), [0, 1]);
    for (const most of [0.001, 0.7, 3, 99, 12_345]) assert(linearTicks(most).at(-1)! >= most);
  });
  it("shows three digits", () => {
    assertEquals([0, 0.00567, 1.234, 12.34, 123.4, 12_340, 1_234_000].map(shortNumber), [
      "0",
      "0.00567",
      "1.23",
      "12.3",
      "123",
      "12.3k",
      "1.23M",
    ]);
  });
});

describe("a figure", () => {
  for (const [name, figure] of Object.entries({ bars: BARS, lines: LINES })) {
    it(`of ${name} is one SVG, and the same each time`, () => {
      const svg = renderFigure(figure);
      assertMatch(svg, /^<svg xmlns="[^"]+" viewBox="0 0 [\d.]+ [\d.]+"/);
      assertEquals(svg, renderFigure(figure));
      assertEquals(
        [...svg.matchAll(/<(?:svg|g|title|text)\b/g)].length,
        [...svg.matchAll(/<\/\w+>/g)].length,
      );
      assert(!svg.includes("NaN") && !svg.includes("undefined") && !svg.includes("Infinity"));
    });
  }
  it("escapes what is not its own", () => {
    assert(renderFigure(BARS).includes("<title>a &lt; b &amp; c</title>"));
  });
  it("stacks a bar from the axis upward, and writes its sum above", () => {
    const rects = [
      ...renderFigure(BARS).matchAll(/<rect x="([\d.]+)" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"/g),
    ]
      .map((match) => match.slice(1).map(Number));
    const [first, second] = [rects[2]!, rects[3]!];
    assertEquals(first[0], second[0]);
    assertEquals(first[1]! + first[2]!, 120);
    assertEquals(second[1]! + second[2]!, first[1]);
    assertEquals(second[2]! / first[2]!, 2);
    assertMatch(renderFigure(BARS), />3<\/text>/);
  });
  it("leaves a point out that was not measured", () => {
    const polylines = [...renderFigure(LINES).matchAll(/<polyline points="([^"]+)"/g)].map((match) =>
      match[1]!
    );
    assertEquals(polylines.map((points) => points.split(" ").length), [3, 2]);
  });
});
