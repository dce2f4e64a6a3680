/**
 * Published figures about two-dimensional walks that a machine which counts references can reproduce, each with its paper; they are
 * collected in the project's notes on paging costs. What papers measured in cycles or in percent of run time is not here: the machine
 * has no caches and no cycles.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { GEOMETRIES, type NestedGeometry, type TlbGeometry } from "../../hw/tlb_geometry.ts";
import { GuestBench, RWX, WB } from "./ept_fixture.ts";

const DATA = 0x20_0000;
/** Page `i` of the working set: linear, and guest-physical for a set that is identity-mapped at 1 TiB. */
const LINEAR = 0x10_0000_0000n, SET = 0x100_0000_0000n;

/** A geometry with no TLB (each access walks) and these structure caches. */
function caches(guest: TlbGeometry["structures"], nested?: NestedGeometry): TlbGeometry {
  return { ...GEOMETRIES["none"]!, structures: guest, ...(nested === undefined ? {} : { nested }) };
}

/** A guest with `pages` pages, each with its own guest-physical page and EPT entry. */
function guest(geometry: TlbGeometry | string, pages: number, eptLevel = 1): GuestBench {
  const bench = new GuestBench({ tlb: "geometry", geometry, ad: true });
  for (let i = 0; i < pages; i++) {
    const offset = BigInt(i) * 0x1000n;
    const entries = bench.guestMap(LINEAR + offset, SET + offset, 0x67n);
    for (const at of [2, 3, 4]) bench.poke64(entries[at]!, bench.peek64(entries[at]!) | 0x20n);
    if (eptLevel === 1) bench.eptMap(SET + offset, DATA, RWX | WB);
    else if (i % 512 === 0) bench.eptMap(SET + offset, 0, RWX | WB, 2);
  }
  bench.enter();
  return bench;
}
function references(bench: GuestBench): number {
  return bench.cpu.counters.references + bench.cpu.counters.eptReferences;
}
/** References of one access. */
function cost(bench: GuestBench, page: number): number {
  bench.cpu.counters.reset();
  bench.read(LINEAR + BigInt(page) * 0x1000n);
  return references(bench);
}

const NONE = [0, 0, 0, 0] as const;

describe("Bhargava, Serebrin, Spadini, Manne: Accelerating two-dimensional page walks for virtualized systems (ASPLOS 2008)", () => {
  it("a two-dimensional walk makes up to 24 references, against 4 native; 20 of them to nested tables", () => {
    const bench = guest(caches(NONE), 1);
    assertEquals(cost(bench, 0), 24);
    assertEquals(bench.cpu.counters.eptReferences, 20);
    const native = new GuestBench({ tlb: "geometry", geometry: caches(NONE) });
    native.map(LINEAR, DATA, 7n);
    native.read(LINEAR);
    assertEquals(references(native), 4);
  });

  it("a page-walk cache of the guest's upper levels that holds guest-physical addresses leaves 9: the leaf entry and two nested walks", () => {
    const bench = guest(caches([24, 24, 24, 0], { pages: 0, structures: NONE, combined: "guest" }), 2);
    assertEquals(cost(bench, 0), 24);
    // (e + 1) for the guest's leaf entry and e for the page, with e = 4.
    assertEquals(cost(bench, 1), 9);
  });

  it("extended to nested entries it leaves the two leaves of each dimension", () => {
    const bench = guest(
      caches([24, 24, 24, 0], { pages: 0, structures: [24, 24, 24, 0], combined: "guest" }),
      2,
    );
    cost(bench, 0);
    // Nested leaf for the guest's table, guest leaf, nested leaf for the page.
    assertEquals(cost(bench, 1), 3);
  });

  it("a nested TLB in addition takes away nested walks of guest tables: gL1 and nL1 remain", () => {
    const bench = guest(
      caches([24, 24, 24, 0], { pages: 16, structures: [24, 24, 24, 0], combined: "guest" }),
      2,
    );
    cost(bench, 0);
    assertEquals(cost(bench, 1), 2);
    const slots = bench.cpu.counters.eptReferencesBySlot;
    assertEquals([bench.cpu.counters.referencesByLevel[1], slots[0 * 6 + 1]], [1, 1]);
  });

  it("large nested pages take one reference from each nested walk, and widen the reach of the nested TLB", () => {
    const small = guest(caches(NONE), 1), large = guest(caches(NONE), 1, 2);
    assertEquals(
      cost(small, 0) - cost(large, 0),
      1,
      "only the data is in large pages here: one nested walk of five",
    );
    const bench = guest(
      caches([24, 24, 24, 0], { pages: 16, structures: [24, 24, 24, 0], combined: "guest" }),
      2,
      2,
    );
    cost(bench, 0);
    assertEquals(cost(bench, 1), 1, "the page's nested translation is there already");
  });
});

describe("Barr, Cox, Rixner: Translation caching: skip, don't walk (ISCA 2010)", () => {
  it("translation caches bring a four-reference walk close to one reference", () => {
    for (const name of ["nehalem", "haswell", "skylake"]) {
      const bench = new GuestBench({ tlb: "geometry", geometry: caches(GEOMETRIES[name]!.structures) });
      for (let i = 0; i < 2048; i++) bench.map(LINEAR + BigInt(i) * 0x1000n, DATA, 0x67n);
      bench.cpu.counters.reset();
      for (let i = 0; i < 2048; i++) bench.read(LINEAR + BigInt((i * 797) % 2048) * 0x1000n);
      const average = references(bench) / 2048;
      assert(average >= 1 && average < 1.01, `${name}: ${average}`);
    }
  });

  it("and in two dimensions, with combined entries that hold host addresses as the SDM has them, 24 become 1 + 4", () => {
    const bench = guest(caches([32, 4, 1, 0], { pages: 0, structures: NONE, combined: "host" }), 2);
    assertEquals([cost(bench, 0), cost(bench, 1)], [24, 5]);
  });

  it("a hit that skips k guest levels saves k (e + 1) references, and e more where the entry holds the host address", () => {
    for (const [structures, skipped] of [[[0, 0, 1, 0], 1], [[0, 1, 0, 0], 2], [[1, 0, 0, 0], 3]] as const) {
      for (const combined of ["guest", "host"] as const) {
        const bench = guest(caches(structures, { pages: 0, structures: NONE, combined }), 2);
        cost(bench, 0);
        assertEquals(
          cost(bench, 1),
          24 - skipped * 5 - (combined === "host" ? 4 : 0),
          `${skipped} ${combined}`,
        );
      }
    }
  });
});

describe("Gandhi, Basu, Hill, Swift: Efficient memory virtualization (MICRO 2014)", () => {
  it("base virtualized 24 references in the worst case; one dimension switched off 4", () => {
    assertEquals(cost(guest(caches(NONE), 1), 0), 24);
    // "Guest Direct": the guest does not page. ("VMM Direct" and "Dual Direct" need segments, which x86 has not.)
    const bench = new GuestBench({ tlb: "geometry", geometry: caches(NONE), offset: 0n });
    bench.enter();
    bench.pagingOff();
    bench.cpu.counters.reset();
    bench.read(BigInt(DATA));
    assertEquals(references(bench), 4);
  });
});

describe("Gandhi, Hill, Swift: Agile paging (ISCA 2016)", () => {
  it("the two ends: a shadow table costs 4 references a walk, full nesting 24", () => {
    const shadow = new GuestBench({ tlb: "geometry", geometry: caches(NONE) });
    shadow.map(LINEAR, DATA, 0x67n);
    shadow.read(LINEAR);
    assertEquals(references(shadow), 4);
    assertEquals(cost(guest(caches(NONE), 1), 0), 24);
  });

  it("under EPT the guest changes its tables without leaving the guest, where shadow paging would trap each time", () => {
    const bench = guest(caches(NONE), 2);
    const entry = bench.guestMap(LINEAR, SET, 0x67n)[1]!;
    const table = LINEAR + 0x20_0000n;
    bench.guestMap(table, bench.gpa(entry & ~0xfff), 0x67n);
    const outcome = bench.outcome(() => {
      for (let i = 0; i < 8; i++) bench.write(table + BigInt(entry & 0xfff), i % 2 === 0 ? 0 : 0x67);
    });
    assertEquals(outcome.kind, "done");
  });
});

describe("Park, Vougioukas, Sandberg, Black-Schaffer: Every walk's a hit (ASPLOS 2022)", () => {
  /** Average references a walk over a working set, each page once in a scattered order, after a first round. */
  function average(bench: GuestBench, pages: number): number {
    let at = 1;
    const touch = (times: number) => {
      for (let i = 0; i < times; i++) {
        // A full-period generator: its low bits would repeat soon, so the upper ones choose.
        at = (Math.imul(at, 1664525) + 1013904223) >>> 0;
        bench.read(LINEAR + BigInt((at >>> 8) % pages) * 0x1000n);
      }
    };
    touch(3000);
    bench.cpu.counters.reset();
    touch(12_000);
    return references(bench) / bench.cpu.counters.walks;
  }

  it("with page-walk caches an average walk makes about 1.5 references native, and 4.4 virtualized (within a fifth)", () => {
    // A working set of 128 MiB: twice what 32 PDE-cache entries reach, so that every second walk reads a PDE.
    const pages = 32_768;
    const native = new GuestBench({ tlb: "geometry", geometry: "skylake" });
    for (let i = 0; i < pages; i++) native.map(LINEAR + BigInt(i) * 0x1000n, DATA, 0x67n);
    const one = average(native, pages);
    const two = average(guest("skylake", pages), pages);
    assert(Math.abs(one - 1.5) < 0.1, `native ${one}`);
    // The sizes of the caches of guest-physical mappings are not published: with those assumed here it is 3.8.
    assert(Math.abs(two - 4.4) < 4.4 / 5, `virtualized ${two}`);
  });
});
