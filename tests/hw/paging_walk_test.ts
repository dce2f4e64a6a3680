/**
 * The walker: formats, page sizes, accessed and dirty flags, reserved bits, error codes (SDM vol. 3A, "Paging").
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { cpuModels, customModel } from "../../hw/cpuid.ts";
import { explainWalk } from "../../hw/explain_walk.ts";
import {
  ACCESS,
  CR0_PG,
  CR4_LA57,
  CR4_PGE,
  CR4_PSE,
  CR4_SMEP,
  EFER_LMA,
  loadPdptes,
  PAGING_FORMATS,
  Walker,
} from "../../hw/paging.ts";
import { S } from "../../hw/state.ts";
import { Bench } from "./paging_fixture.ts";

const A = 0x20n, D = 0x40n, G = 0x100n;

function walkerOf(bench: Bench, pure = false): Walker {
  return new Walker(bench.cpu, bench.access.features, { pure, storeSlow: () => {} });
}
function walk(bench: Bench, walker: Walker, linear: bigint, access = 0): number {
  const code = walker.walk(Number(linear & 0xffff_ffffn), Number(BigInt.asUintN(64, linear) >> 32n), access);
  // The told walk must agree with the real one, whatever the case.
  const told = explainWalk(bench.cpu, BigInt.asUintN(64, linear), {
    write: (access & ACCESS.WRITE) !== 0,
    fetch: (access & ACCESS.FETCH) !== 0,
    user: (access & ACCESS.USER) !== 0,
    smap: false,
  }).outcome;
  if (told.kind === "mapped") {
    assertEquals([code, walker.page + Number(linear & 0xfffn)], [-1, told.physical]);
    assertEquals(2 ** walker.shift, told.pageBytes);
  } else if (told.kind === "page fault") assertEquals(code, told.errorCode);
  return code;
}

describe("translation", () => {
  it("is the identity without paging", () => {
    const bench = new Bench();
    bench.cr0(0, CR0_PG);
    bench.cpu.set32(S.EFER, 0);
    const walker = walkerOf(bench);
    assertEquals([walk(bench, walker, 0x12_3456n), walker.page, walker.references], [-1, 0x12_3000, 0]);
  });

  it("reads 4, 3 and 2 entries for pages of 4 KiB, 2 MiB and 1 GiB, and one more with 5 levels", () => {
    for (const five of [false, true]) {
      const bench = new Bench();
      if (five) bench.fiveLevel();
      bench.map(0x1234_5000n, 0x20_0000, 7n, 1);
      bench.map(0x4020_0000n, 0x20_0000, 7n, 2);
      bench.map(0x8000_0000n, 0x4000_0000, 7n, 3);
      const walker = walkerOf(bench), more = five ? 1 : 0;
      assertEquals([walk(bench, walker, 0x1234_5678n), walker.page, walker.shift], [-1, 0x20_0000, 12]);
      assertEquals(walker.references, 4 + more);
      assertEquals([walk(bench, walker, 0x4023_4567n), walker.page, walker.shift], [-1, 0x23_4000, 21]);
      assertEquals(walker.references, 3 + more);
      assertEquals([walk(bench, walker, 0x8123_4567n), walker.page, walker.shift], [-1, 0x4123_4000, 30]);
      assertEquals(walker.references, 2 + more);
      assertEquals(bench.cpu.counters.references, 9 + 3 * more);
      assertEquals([...bench.cpu.counters.referencesByLevel], [0, 1, 2, 3, 3, 3 * more]);
    }
  });

  it("uses bits 47:12, and bits 56:48 with 5 levels", () => {
    const bench = new Bench();
    const high = 0xffff_8765_4321_0000n;
    bench.map(high, 0x20_1000, 3n);
    const walker = walkerOf(bench);
    assertEquals([walk(bench, walker, high), walker.page], [-1, 0x20_1000]);
    const wide = new Bench();
    wide.fiveLevel();
    wide.map(0x00ab_8765_4321_0000n, 0x20_2000, 3n);
    const five = walkerOf(wide);
    assertEquals([walk(wide, five, 0x00ab_8765_4321_0000n), five.page], [-1, 0x20_2000]);
    assertEquals(walk(wide, five, 0x00ac_8765_4321_0000n), 0);
  });

  it("reaches physical addresses above 4 GiB, in leaves and in tables", () => {
    const bench = new Bench();
    const entries = bench.map(0x40_0000n, 0x3_1234_5000, 7n);
    const walker = walkerOf(bench);
    assertEquals([walk(bench, walker, 0x40_0000n), walker.page], [-1, 0x3_1234_5000]);
    // A table where nothing is reads as all ones: a present entry with reserved bits.
    bench.poke64(entries[2]!, 0x3_1234_5000n | 7n);
    assertEquals(walk(bench, walker, 0x40_0000n), 9);
  });

  it("has 4-KiB and 4-MiB pages with PSE-36 in 32-bit paging", () => {
    const bench = new Bench();
    bench.protectedMode(false);
    const table = bench.page();
    bench.poke32(bench.root + 1 * 4, table | 7);
    bench.poke32(table + 5 * 4, 0x20_0000 | 7);
    bench.poke32(bench.root + 2 * 4, 0x87 | (0x5 << 13));
    const walker = walkerOf(bench);
    assertEquals([walk(bench, walker, 0x40_5123n), walker.page, walker.references], [-1, 0x20_0000, 2]);
    assertEquals([walk(bench, walker, 0x87_6543n), walker.page, walker.shift], [-1, 0x5_0007_6000, 22]);
    assertEquals(bench.peek32(bench.root + 4) & 0x20, 0x20, "A of the PDE");
    bench.cr4(0, CR4_PSE);
    // Without PSE bit 7 means nothing, and the PDE leads to a table.
    assertEquals(walk(bench, walker, 0x87_6543n), 0);
  });

  it("takes the PDPTEs of PAE paging from their registers", () => {
    const bench = new Bench();
    bench.protectedMode(true);
    bench.map(0xc012_3000n, 0x20_0000, 7n);
    const walker = walkerOf(bench);
    assertEquals([walk(bench, walker, 0xc012_3456n, ACCESS.USER), walker.page], [-1, 0x20_0000]);
    assertEquals(walker.references, 2);
    assertEquals(walk(bench, walker, 0x4012_3456n), 0, "PDPTE 1 is not present");
  });
});

describe("loading PDPTEs", () => {
  it("takes four entries from CR3[31:5] and refuses reserved bits of present ones, changing nothing", () => {
    const bench = new Bench();
    const table = bench.page() + 0x20;
    bench.poke64(table, 0x1_0001n);
    bench.poke64(table + 8, 0x1e6n);
    assertEquals(loadPdptes(bench.cpu, table | 0x1f, bench.access.features), true);
    assertEquals([bench.cpu.get64(S.PDPTE), bench.cpu.get64(S.PDPTE + 8)], [0x1_0001n, 0x1e6n]);
    for (const bit of [1n, 2n, 5n, 6n, 7n, 8n, 46n, 62n, 63n]) {
      bench.poke64(table, 0x2_0001n | (1n << bit));
      assertEquals(loadPdptes(bench.cpu, table, bench.access.features), false, `bit ${bit}`);
    }
    assertEquals(bench.cpu.get64(S.PDPTE), 0x1_0001n);
  });
});

describe("accessed and dirty flags", () => {
  it("set A in every entry on a read, and D in the leaf alone on a write", () => {
    const bench = new Bench();
    const entries = bench.map(0x40_0000n, 0x20_0000, 7n);
    const walker = walkerOf(bench);
    walk(bench, walker, 0x40_0000n);
    assertEquals([4, 3, 2, 1].map((l) => bench.peek64(entries[l]!) & (A | D)), [A, A, A, A]);
    assertEquals(walker.dirty, false);
    walk(bench, walker, 0x40_0000n, ACCESS.WRITE);
    assertEquals([4, 3, 2, 1].map((l) => bench.peek64(entries[l]!) & (A | D)), [A, A, A, A | D]);
    assertEquals(walker.dirty, true);
    assertEquals([bench.cpu.counters.accessedSet, bench.cpu.counters.dirtySet], [4, 1]);
  });

  it("set A on the way when a lower entry is not present, and not in a leaf that refuses the access", () => {
    const bench = new Bench();
    const entries = bench.map(0x40_0000n, 0x20_0000, 5n);
    const walker = walkerOf(bench);
    assertEquals(walk(bench, walker, 0x40_0000n, ACCESS.WRITE | ACCESS.USER), 7);
    assertEquals([4, 3, 2, 1].map((l) => bench.peek64(entries[l]!) & (A | D)), [A, A, A, 0n]);
    const other = bench.map(0x8000_0000n, 0x20_0000, 0n);
    assertEquals(walk(bench, walker, 0x8000_0000n), 0);
    assertEquals([4, 3, 2].map((l) => bench.peek64(other[l]!) & A), [A, A, A]);
  });

  it("are left alone by a pure walk, which counts nothing", () => {
    const bench = new Bench();
    const entries = bench.map(0x40_0000n, 0x20_0000, 7n);
    const walker = walkerOf(bench, true);
    assertEquals(walk(bench, walker, 0x40_0000n, ACCESS.WRITE), -1);
    assertEquals([4, 3, 2, 1].map((l) => bench.peek64(entries[l]!) & (A | D)), [0n, 0n, 0n, 0n]);
    assertEquals(bench.cpu.counters.references, 0);
  });

  it("go through the slow store when the table is not plain RAM", () => {
    const bench = new Bench();
    const entries = bench.map(0x40_0000n, 0x20_0000, 7n);
    bench.bus.setPageFlags(entries[1]!, 1, 2); // PAGE_ROM
    const stores: [number, number][] = [];
    const walker = new Walker(bench.cpu, bench.access.features, {
      pure: false,
      storeSlow: (at, value) => stores.push([at, value]),
    });
    assertEquals(walk(bench, walker, 0x40_0000n), -1);
    assertEquals(stores, [[entries[1]!, 0x20_0027]]);
    assertEquals(bench.peek64(entries[1]!) & A, 0n);
  });
});

describe("global pages", () => {
  it("exist with CR4.PGE only", () => {
    const bench = new Bench();
    bench.map(0x40_0000n, 0x20_0000, 7n | G);
    const walker = walkerOf(bench);
    walk(bench, walker, 0x40_0000n);
    assertEquals(walker.global, false);
    bench.cr4(CR4_PGE);
    walk(bench, walker, 0x40_0000n);
    assertEquals(walker.global, true);
  });
});

describe("reserved bits", () => {
  /** Bits that are reserved in a present entry of a level and kind, by the SDM's tables, for MAXPHYADDR = 46 and NXE = 1. */
  const addressBits = [46, 47, 48, 49, 50, 51];
  const expected = (level: number, leaf: boolean): number[] => [
    ...(level >= 4 ? [7] : []),
    ...(leaf && level === 2 ? [13, 14, 15, 16, 17, 18, 19, 20] : []),
    ...(leaf && level === 3 ? Array.from({ length: 17 }, (_, i) => 13 + i) : []),
    ...addressBits,
  ];

  it("fault with P and RSVD at every level, and no other bit does", () => {
    for (const mode of ["4-level", "5-level"] as const) {
      for (const leafLevel of [1, 2, 3]) {
        const bench = new Bench();
        if (mode === "5-level") bench.fiveLevel();
        const entries = bench.map(0x0n, 0, 7n, leafLevel);
        const walker = walkerOf(bench);
        for (const { level } of PAGING_FORMATS[mode].levels.filter((l) => l.level >= leafLevel)) {
          const found: number[] = [];
          const clean = bench.peek64(entries[level]!);
          for (let bit = 7; bit < 64; bit++) {
            // Bit 7 of a PDPTE or PDE makes another kind of entry.
            if (bit === 7 && (level === 2 || level === 3)) continue;
            bench.poke64(entries[level]!, clean ^ (1n << BigInt(bit)));
            const code = walk(bench, walker, 0x0n);
            // An address bit may lead to a table in the void, which faults one level below.
            if (code === 9 && walker.lastLevel === level) found.push(bit);
          }
          bench.poke64(entries[level]!, clean);
          assertEquals(
            found,
            expected(level, level === leafLevel),
            `${mode} leaf ${leafLevel} level ${level}`,
          );
        }
      }
    }
  });

  it("include bit 63 without NXE, and say W, U as the access", () => {
    const bench = new Bench();
    bench.cpu.set32(S.EFER, EFER_LMA);
    const entries = bench.map(0x0n, 0, 7n);
    const walker = walkerOf(bench);
    for (const level of [4, 3, 2, 1]) {
      const clean = bench.peek64(entries[level]!);
      bench.poke64(entries[level]!, clean | (1n << 63n));
      assertEquals(walk(bench, walker, 0x0n, ACCESS.WRITE | ACCESS.USER), 15);
      bench.poke64(entries[level]!, clean);
    }
  });

  it("include PS of a PDPTE where there are no 1-GiB pages", () => {
    const model = customModel(cpuModels["icelake"]!, { remove: ["pdpe1gb"] });
    const bench = new Bench({ model });
    bench.map(0x4000_0000n, 0, 7n, 3);
    assertEquals(walk(bench, walkerOf(bench), 0x4000_0000n), 9);
  });

  it("cover bits 62:52 in PAE paging, and PSE-36 bits beyond MAXPHYADDR", () => {
    const bench = new Bench();
    bench.protectedMode(true);
    const entries = bench.map(0x1000n, 0, 7n);
    const walker = walkerOf(bench);
    for (const bit of [46n, 52n, 58n, 59n, 62n]) {
      bench.poke64(entries[1]!, 7n | (1n << bit));
      assertEquals(walk(bench, walker, 0x1000n), 9, `bit ${bit}`);
    }
    const small = new Bench({ model: cpuModels["penryn"]! });
    small.protectedMode(false);
    const old = walkerOf(small);
    small.poke32(small.root, 0x87 | (0xf << 13));
    assertEquals([walk(small, old, 0n), old.page], [-1, 0xf_0000_0000]);
    for (const bit of [17, 20, 21]) {
      small.poke32(small.root, 0x87 | (1 << bit));
      assertEquals(walk(small, old, 0n), 9, `bit ${bit}`);
    }
  });

  it("do not matter in entries that are not present, and outrank missing rights", () => {
    const bench = new Bench();
    const entries = bench.map(0x0n, 0, 7n);
    const walker = walkerOf(bench);
    bench.poke64(entries[1]!, 0xffff_ffff_ffff_fffen);
    assertEquals(walk(bench, walker, 0x0n, ACCESS.USER), 4);
    bench.poke64(entries[1]!, 1n | (1n << 51n));
    assertEquals(walk(bench, walker, 0x0n, ACCESS.USER | ACCESS.WRITE), 15);
  });
});

describe("page-fault error codes", () => {
  it("report a fetch only with SMEP, or NXE and PAE", () => {
    const bench = new Bench();
    const walker = walkerOf(bench);
    assertEquals(walk(bench, walker, 0n, ACCESS.FETCH | ACCESS.USER), 0x14);
    bench.cpu.set32(S.EFER, EFER_LMA);
    assertEquals(walk(bench, walker, 0n, ACCESS.FETCH | ACCESS.USER), 4);
    bench.cr4(CR4_SMEP);
    assertEquals(walk(bench, walker, 0n, ACCESS.FETCH), 0x10);
    bench.protectedMode(false);
    bench.cpu.set32(S.EFER, 0x800);
    assertEquals(walk(bench, walker, 0n, ACCESS.FETCH), 0, "NXE means nothing without PAE");
  });
});

describe("events", () => {
  it("tell each reference of a walk", () => {
    const bench = new Bench();
    const entries = bench.map(0x40_0000n, 0x20_0000, 7n);
    const seen: [number, number][] = [];
    const stop = bench.cpu.trace.on(["reference"], (e) => seen.push([e.level, e.physical]));
    const walker = walkerOf(bench);
    walker.walk(0x40_0000, 0, 0);
    assertEquals(seen, [4, 3, 2, 1].map((l): [number, number] => [l, entries[l]!]));
    stop();
    walker.walk(0x40_0000, 0, 0);
    assertEquals(seen.length, 4);
    assertEquals(bench.cpu.trace.wants, 0);
  });
});

describe("explainWalk", () => {
  it("says why, in words", () => {
    const bench = new Bench();
    bench.map(0x40_0000n, 0x20_0000, 3n);
    const { entries, outcome } = explainWalk(bench.cpu, 0x40_0000n, { user: true, write: true });
    assertEquals(entries.map((e) => e.name), ["PML4E", "PDPTE", "PDE", "PTE"]);
    assertEquals(outcome, { kind: "page fault", errorCode: 7, reason: "user access to a supervisor page" });
    assertEquals(explainWalk(bench.cpu, 0x8000_0000_0000n).outcome.kind, "not canonical");
    bench.cr4(CR4_LA57);
    assertEquals(explainWalk(bench.cpu, 0x8000_0000_0000n).outcome.kind, "page fault");
  });
});
