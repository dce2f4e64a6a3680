/**
 * The geometry TLB counts what a processor with these sets and ways would: hits, misses, references.
 *
 * @module
 */
import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { cpuModels } from "../../hw/cpuid.ts";
import { GEOMETRIES } from "../../hw/tlb_geometry.ts";
import { Bench } from "./paging_fixture.ts";

const BASE = 0x4000_0000n;

function touch(bench: Bench, pages: number, rounds: number, step = 0x1000n): void {
  for (let r = 0; r < rounds; r++) for (let i = 0; i < pages; i++) bench.read(BASE + BigInt(i) * step);
}
function mapPages(bench: Bench, pages: number): void {
  for (let i = 0; i < pages; i++) bench.map(BASE + BigInt(i) * 0x1000n, 0x20_0000, 7n);
}

describe("the geometry TLB", () => {
  it("has a geometry for every CPU model, with ways that divide entries", () => {
    for (const name of Object.keys(cpuModels)) assertEquals(GEOMETRIES[name]?.name, name);
    for (const g of Object.values(GEOMETRIES)) {
      for (const a of [...g.instruction, ...g.data, ...g.second]) assertEquals(a.entries % a.ways, 0, g.name);
    }
    assertThrows(() => new Bench({ tlb: "geometry", geometry: "z80" }), RangeError, "z80");
  });

  it("serves 64 pages from the first level, 1024 from the second, and misses beyond (haswell)", () => {
    const inFirst = new Bench({ tlb: "geometry", geometry: "haswell" });
    mapPages(inFirst, 64);
    touch(inFirst, 64, 10);
    assertEquals([inFirst.cpu.counters.tlbMisses, inFirst.cpu.counters.firstLevelHits], [64, 9 * 64]);

    const inSecond = new Bench({ tlb: "geometry", geometry: "haswell" });
    mapPages(inSecond, 512);
    touch(inSecond, 512, 4);
    assertEquals(inSecond.cpu.counters.tlbMisses, 512);
    assertEquals(
      inSecond.cpu.counters.secondLevelHits,
      3 * 512,
      "LRU with 512 pages in turn never hits 64 entries",
    );

    const beyond = new Bench({ tlb: "geometry", geometry: "haswell" });
    mapPages(beyond, 1100);
    touch(beyond, 1100, 3);
    const { tlbMisses } = beyond.cpu.counters;
    // 1100 pages in 128 sets of 8 ways: 76 sets have 9 pages and miss always, 52 have 8 and hit after the first round.
    assertEquals(tlbMisses, 1100 + 2 * (1100 - 52 * 8));
  });

  it("keeps large pages in their own arrays", () => {
    const bench = new Bench({ tlb: "geometry", geometry: "nehalem" });
    for (let i = 0n; i < 32n; i++) bench.map(BASE + i * 0x20_0000n, 0, 7n, 2);
    touch(bench, 32, 5, 0x20_0000n);
    assertEquals([bench.cpu.counters.tlbMisses, bench.cpu.counters.firstLevelHits], [32, 4 * 32]);
  });

  it("breaks a 1-GiB page into pieces where there is no array for it", () => {
    const bench = new Bench({ tlb: "geometry", geometry: "nehalem" });
    bench.map(BASE, 0, 7n, 3);
    touch(bench, 2, 3, 0x20_0000n);
    assertEquals([bench.cpu.counters.tlbMisses, bench.cpu.counters.firstLevelHits], [2, 4]);
    bench.invlpg(BASE + 0x3000_0000n);
    touch(bench, 2, 1, 0x20_0000n);
    assertEquals(bench.cpu.counters.tlbMisses, 4, "INVLPG removed every piece");
  });

  it("has separate first levels for fetches and data", () => {
    const bench = new Bench({ tlb: "geometry", geometry: "haswell" });
    mapPages(bench, 1);
    bench.fetch(BASE);
    bench.read(BASE);
    assertEquals([bench.cpu.counters.secondLevelHits, bench.cpu.counters.tlbMisses], [1, 1]);
    assertEquals(bench.cpu.counters.fetchMisses, 1);
    bench.fetch(BASE);
    assertEquals(bench.cpu.counters.firstLevelHits, 1);
  });

  it("walks with one reference within a table's 2 MiB, with all four when no structure is cached", () => {
    const cached = new Bench({ tlb: "geometry", geometry: "skylake" });
    mapPages(cached, 100);
    touch(cached, 100, 1);
    assertEquals(cached.cpu.counters.references, 4 + 99);
    const bare = new Bench({ tlb: "geometry", geometry: "none" });
    mapPages(bare, 100);
    touch(bare, 100, 2);
    assertEquals(bare.cpu.counters.references, 800);
  });

  it("lets nothing bypass it: every access is a lookup", () => {
    const bench = new Bench({ tlb: "geometry" });
    mapPages(bench, 1);
    touch(bench, 1, 100);
    assertEquals(bench.cpu.counters.lookups, 100);
  });

  it("counts the same in every run", () => {
    const run = () => {
      const bench = new Bench({ tlb: "geometry", geometry: "skylake" });
      mapPages(bench, 300);
      for (let i = 0; i < 5000; i++) bench.read(BASE + BigInt((i * 7919) % 300) * 0x1000n);
      return JSON.stringify(bench.cpu.counters.snapshot());
    };
    assertEquals(run(), run());
  });
});
