/**
 * What each operation must remove, on each TLB choice, and (sticky) that nothing else goes: SDM vol. 3A, "Operations that
 * Invalidate TLBs and Paging-Structure Caches".
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { CR0_PG, CR4_PCIDE, CR4_PGE, CR4_SMAP } from "../../hw/paging.ts";
import { RFLAGS, S } from "../../hw/state.ts";
import type { TlbChoice } from "../../hw/tlb.ts";
import { INVALIDATION_RULES } from "../../hw/tlb_rules.ts";
import { Bench } from "./paging_fixture.ts";

const OLD = 0x20_0000, NEW = 0x21_0000;
const PAGE = 0x40_0000n, OTHER = 0x40_1000n, GLOBAL = 0x50_0000n;
const P = 7n, G = 0x100n;

/** Operation on a bench whose current PCID is 5; the PCIDs 5 and 6 have the pages cached. */
type Operation = (bench: Bench) => void;

const operations: Readonly<Record<string, Operation>> = {
  "INVLPG": (b) => b.invlpg(PAGE + 0x123n),
  "MOV CR3": (b) => b.loadCr3(b.cpu.get64(S.CR3)),
  "MOV CR3, no invalidation": (b) => b.loadCr3(b.cpu.get64(S.CR3) | (1n << 63n)),
  "INVPCID 0": (b) => b.access.tlb.invpcid(0, 5, Number(PAGE), 0),
  "INVPCID 1": (b) => b.access.tlb.invpcid(1, 5, 0, 0),
  "INVPCID 0, other PCID": (b) => b.access.tlb.invpcid(0, 6, Number(PAGE), 0),
  "INVPCID 1, other PCID": (b) => b.access.tlb.invpcid(1, 6, 0, 0),
  "INVPCID 2": (b) => b.access.tlb.invpcid(2, 0, 0, 0),
  "INVPCID 3": (b) => b.access.tlb.invpcid(3, 0, 0, 0),
  "flush all": (b) => b.access.tlb.flushAll(),
  "flush current PCID": (b) => b.access.tlb.flushCurrent(),
  "page fault": (b) => b.access.translator.pageFault(Number(PAGE), 0, 0),
  "flush of the fast TLB alone": (b) => b.access.tlb.flushFast(),
};

/** Translations that must be gone after each: own page, own other page, own global page, PCID 6's page, its other page. */
const mustGo: Readonly<Record<string, readonly [boolean, boolean, boolean, boolean, boolean]>> = {
  "INVLPG": [true, false, false, false, false],
  "MOV CR3": [true, true, false, false, false],
  "MOV CR3, no invalidation": [false, false, false, false, false],
  "INVPCID 0": [true, false, false, false, false],
  "INVPCID 1": [true, true, false, false, false],
  "INVPCID 0, other PCID": [false, false, false, true, false],
  "INVPCID 1, other PCID": [false, false, false, true, true],
  "INVPCID 2": [true, true, true, true, true],
  "INVPCID 3": [true, true, false, true, true],
  "flush all": [true, true, true, true, true],
  "flush current PCID": [true, true, true, false, false],
  "page fault": [true, false, false, false, false],
  "flush of the fast TLB alone": [false, false, false, false, false],
};

interface Prepared {
  readonly bench: Bench;
  readonly leaves: readonly number[];
}

/** Both PCIDs have cached the pages; then the tables change without an invalidation. */
function prepare(tlb: TlbChoice): Prepared {
  const bench = new Bench({ tlb });
  bench.cr4(CR4_PCIDE | CR4_PGE);
  const leaves = [PAGE, OTHER].map((page) => bench.map(page, OLD, P)[1]!);
  leaves.push(bench.map(GLOBAL, OLD, P | G)[1]!);
  for (const pcid of [6n, 5n]) {
    bench.cpu.set64(S.CR3, BigInt(bench.root) | pcid);
    bench.access.tlb.flushFast();
    for (const page of [PAGE, OTHER, GLOBAL]) bench.read(page);
  }
  for (const leaf of leaves) bench.poke64(leaf, (bench.peek64(leaf) & 0xfffn) | BigInt(NEW));
  bench.poke32(OLD, 1);
  bench.poke32(NEW, 2);
  return { bench, leaves };
}

/** For each translation, whether the old page is still read. */
function kept({ bench }: Prepared): boolean[] {
  const seen: boolean[] = [];
  bench.access.tlb.flushFast();
  for (const page of [PAGE, OTHER, GLOBAL]) seen.push(bench.read(page) === 1);
  bench.cpu.set64(S.CR3, BigInt(bench.root) | 6n);
  bench.access.tlb.flushFast();
  for (const page of [PAGE, OTHER]) seen.push(bench.read(page) === 1);
  return seen;
}

describe("invalidation", () => {
  for (const [name, operation] of Object.entries(operations)) {
    const gone = mustGo[name]!;
    it(`${name} removes exactly what it must from the sticky TLB`, () => {
      const prepared = prepare("sticky");
      operation(prepared.bench);
      assertEquals(kept(prepared), gone.map((g) => !g));
    });
    for (const tlb of ["geometry", "fast"] as const) {
      it(`${name} removes at least what it must from the ${tlb} TLB`, () => {
        const prepared = prepare(tlb);
        operation(prepared.bench);
        // What the fast TLB alone holds of the current PCID must be gone without any flush.
        const now = [PAGE, OTHER, GLOBAL].map((page) => prepared.bench.read(page) === 1);
        gone.slice(0, 3).forEach((g, i) => assert(!(g && now[i]), `${name} left translation ${i}`));
        kept(prepared).forEach((k, i) => assert(!(gone[i] && k), `${name} left translation ${i}`));
      });
    }
  }

  it("of a global page by INVLPG or a page fault works from any PCID", () => {
    for (const tlb of ["sticky", "geometry", "fast"] as const) {
      for (const how of ["invlpg", "fault"]) {
        const { bench } = prepare(tlb);
        bench.cpu.set64(S.CR3, BigInt(bench.root) | 9n);
        if (how === "invlpg") bench.invlpg(GLOBAL);
        else bench.access.translator.pageFault(Number(GLOBAL), 0, 0);
        assertEquals(bench.read(GLOBAL), 2, `${tlb} ${how}`);
      }
    }
  });

  it("by INVPCID 0 and 1 leaves global pages", () => {
    for (const type of [0, 1]) {
      const { bench } = prepare("sticky");
      bench.access.tlb.invpcid(type, 5, Number(GLOBAL), 0);
      assertEquals(bench.read(GLOBAL), 1);
    }
  });

  it("removes a large page whole, whichever of its bytes is named", () => {
    for (const tlb of ["sticky", "geometry", "fast"] as const) {
      for (const level of [2, 3]) {
        const bench = new Bench({ tlb, geometry: "nehalem" });
        const [from, size] = level === 2 ? [0x60_0000n, 0x20_0000] : [0x4000_0000n, 0x4000_0000];
        const leaf = bench.map(from, 0, P, level)[level]!;
        bench.poke32(OLD, 1);
        const inside = from + BigInt(OLD % size);
        const target = bench.peek32(OLD % size);
        bench.read(inside);
        bench.poke64(leaf, 0n);
        assertEquals(bench.read(inside), target, "still cached");
        bench.invlpg(from + BigInt(size) - 1n);
        assertEquals(bench.fault(() => bench.read(inside))?.code, 0, `${tlb} level ${level}`);
      }
    }
  });

  it("without PCIDE concerns PCID 0, whatever CR3[11:0] says", () => {
    const bench = new Bench({ tlb: "sticky" });
    const leaf = bench.map(PAGE, OLD, P)[1]!;
    bench.read(PAGE);
    bench.poke64(leaf, 0n);
    bench.loadCr3(BigInt(bench.root) | 0x18n);
    assertEquals(bench.fault(() => bench.read(PAGE))?.code, 0);
    assertEquals(bench.access.tlb.pcid, 0);
  });

  it("is counted and told", () => {
    const { bench } = prepare("sticky");
    const seen: string[] = [];
    bench.cpu.trace.on(
      ["invalidate"],
      (e) => seen.push(`${e.operation} ${e.linear ?? ""} ${e.pcid ?? ""} ${e.dropped}`),
    );
    bench.invlpg(PAGE);
    bench.access.tlb.flushAll();
    assertEquals(seen, [`INVLPG ${PAGE} 5 1`, "everything   4"]);
    assertEquals(bench.cpu.counters.invalidations, 2);
    assertEquals(bench.cpu.counters.dropped, 5);
  });

  it("has a reference to the manual for each rule", () => {
    for (const rule of Object.values(INVALIDATION_RULES)) assert(rule.ref.length > 0);
  });
});

describe("paging-structure caches", () => {
  /** The page table of PAGE is replaced by another, in the PDE alone. */
  function replaced(tlb: TlbChoice): { bench: Bench; entries: number[] } {
    const bench = new Bench({ tlb });
    const entries = bench.map(PAGE, OLD, P);
    bench.map(OTHER, OLD, P);
    bench.read(PAGE);
    const table = bench.page();
    bench.poke64(table + 8, BigInt(NEW) | P);
    bench.poke64(entries[2]!, BigInt(table) | P);
    bench.poke32(OLD, 1);
    bench.poke32(NEW, 2);
    return { bench, entries };
  }

  it("keep leading to the old table until INVLPG of any address, or a load of CR3", () => {
    for (const tlb of ["sticky", "geometry"] as const) {
      const { bench } = replaced(tlb);
      assertEquals(bench.read(OTHER), 1, "through the cached PDE");
      assertEquals(bench.cpu.counters.structureHits[1], 1);
      bench.invlpg(0x7000_0000_0000n);
      bench.invlpg(OTHER);
      assertEquals(bench.read(OTHER), 2);
      const again = replaced(tlb).bench;
      again.loadCr3(again.cpu.get64(S.CR3));
      assertEquals(again.read(OTHER), 2);
    }
  });

  it("save references: a second page of the same table costs one", () => {
    for (const tlb of ["sticky", "geometry"] as const) {
      const bench = new Bench({ tlb });
      bench.map(PAGE, OLD, P);
      bench.map(OTHER, OLD, P);
      bench.read(PAGE);
      assertEquals(bench.cpu.counters.references, 4);
      bench.read(OTHER);
      assertEquals(bench.cpu.counters.references, 5);
    }
  });

  it("never hold an entry that is not present; making it present needs no invalidation", () => {
    for (const tlb of ["sticky", "geometry", "fast"] as const) {
      const bench = new Bench({ tlb });
      const entries = bench.map(PAGE, OLD, P);
      for (const level of [1, 2, 3, 4]) {
        const value = bench.peek64(entries[level]!);
        bench.access.tlb.flushAll();
        bench.poke64(entries[level]!, value & ~1n);
        assertEquals(bench.fault(() => bench.read(PAGE))?.code, 0);
        bench.poke64(entries[level]!, value);
        assertEquals(bench.fault(() => bench.read(PAGE)), undefined, `${tlb} level ${level}`);
      }
    }
  });

  it("carry the rights gathered above, and a fault removes those used for its address", () => {
    const bench = new Bench({ tlb: "sticky" });
    const entries = bench.map(PAGE, OLD, P);
    bench.poke64(entries[2]!, bench.peek64(entries[2]!) & ~2n);
    bench.map(OTHER, OLD, P);
    bench.read(PAGE);
    bench.poke64(entries[2]!, bench.peek64(entries[2]!) | 2n);
    // Spurious, once: the cached PDE is narrower than the table.
    assertEquals(bench.fault(() => bench.write(OTHER, 1))?.code, 3);
    assertEquals(bench.fault(() => bench.write(OTHER, 1)), undefined);
    assertEquals(bench.cpu.counters.cachedFaults, 1);
  });
});

describe("stale rights", () => {
  it("that are narrower than the tables fault once: the fault removes the entry", () => {
    const bench = new Bench({ tlb: "sticky" });
    const leaf = bench.map(PAGE, OLD, 5n)[1]!;
    bench.read(PAGE);
    bench.poke64(leaf, bench.peek64(leaf) | 2n);
    assertEquals(bench.fault(() => bench.write(PAGE, 1)), { vector: 14, code: 3, cr2: PAGE });
    assertEquals(bench.fault(() => bench.write(PAGE, 1)), undefined);
  });

  it("that are wider stay usable until invalidated", () => {
    const bench = new Bench({ tlb: "sticky" });
    const leaf = bench.map(PAGE, OLD, P)[1]!;
    bench.write(PAGE, 1);
    bench.poke64(leaf, bench.peek64(leaf) & ~2n);
    bench.access.tlb.flushFast();
    bench.write(PAGE, 2);
    bench.invlpg(PAGE);
    assertEquals(bench.fault(() => bench.write(PAGE, 3))?.code, 3);
    assertEquals(bench.peek32(OLD), 2);
  });

  it("with D = 0 make a write walk again and obey the tables", () => {
    for (const tlb of ["sticky", "geometry", "fast"] as const) {
      const bench = new Bench({ tlb });
      const leaf = bench.map(PAGE, OLD, P)[1]!;
      bench.read(PAGE);
      bench.poke64(leaf, BigInt(NEW) | P);
      bench.write(PAGE, 7);
      assertEquals([bench.peek32(NEW), bench.peek32(OLD)], [7, 0], tlb);
      assertEquals(bench.peek64(leaf) & 0x60n, 0x60n);
      bench.poke64(leaf, BigInt(NEW) | 5n);
      bench.access.tlb.flushAll();
      bench.read(PAGE);
      assertEquals(bench.fault(() => bench.write(PAGE, 8))?.code, 3);
    }
  });
});

describe("cached translations are judged by the state of the moment", () => {
  it("CR0.WP, SMAP and AC need no invalidation of the modelled TLB", () => {
    const bench = new Bench({ tlb: "sticky" });
    bench.map(PAGE, OLD, 0x67n & ~2n);
    bench.read(PAGE);
    assertEquals(bench.fault(() => bench.write(PAGE, 1))?.code, 3);
    bench.read(PAGE);
    bench.cr0(0, 0x1_0000);
    assertEquals(bench.fault(() => bench.write(PAGE, 1)), undefined);
    bench.cr4(CR4_SMAP);
    assertEquals(bench.fault(() => bench.read(PAGE))?.code, 1);
    bench.cpu.set32(S.RFLAGS, RFLAGS.AC | 2);
    bench.update();
    assertEquals(bench.fault(() => bench.read(PAGE)), undefined);
    assertEquals(bench.fault(() => bench.read(PAGE, 4, 1))?.code, 1, "implicit accesses are not excused");
  });

  it("turning paging off makes them unused", () => {
    const bench = new Bench({ tlb: "sticky" });
    bench.map(PAGE, OLD, P);
    bench.poke32(OLD, 1);
    bench.read(PAGE);
    bench.cr0(0, CR0_PG);
    assertEquals(bench.read(0x20_0000n), 1);
  });
});
