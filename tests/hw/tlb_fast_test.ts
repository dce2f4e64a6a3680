/**
 * The fast TLB: what fills it, what empties it, and that it grants nothing that its context may not do.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { CR0_AM, CR4_PGE, CR4_SMAP } from "../../hw/paging.ts";
import { FTLB_FETCH, FTLB_READ, FTLB_WRITE, PAGE_CODE, PAGE_WATCH, RFLAGS, S } from "../../hw/state.ts";
import { CONTEXT, dataBreakpoints, dropWrite, fastContext } from "../../hw/tlb_fast.ts";
import { Bench } from "./paging_fixture.ts";

const RAM = 0x20_0000, PAGE = 0x40_0000n;

function counts(bench: Bench, context: number): number[] {
  return [FTLB_READ, FTLB_WRITE, FTLB_FETCH].map((t) =>
    bench.access.tlb.fast.count(context, t as typeof FTLB_READ)
  );
}

describe("filling", () => {
  it("a read of a clean page grants reads, of a dirty one writes too; a write grants both", () => {
    const bench = new Bench();
    bench.map(PAGE, RAM, 7n);
    bench.read(PAGE);
    assertEquals(counts(bench, CONTEXT.SUPERVISOR), [1, 0, 0]);
    bench.write(PAGE, 1);
    assertEquals(counts(bench, CONTEXT.SUPERVISOR), [1, 1, 0]);
    bench.access.tlb.flushFast();
    bench.read(PAGE);
    assertEquals(counts(bench, CONTEXT.SUPERVISOR), [1, 1, 0]);
  });

  it("serves the next access without a walk", () => {
    const bench = new Bench();
    bench.map(PAGE, RAM, 7n);
    bench.poke32(RAM + 8, 0x8765_4321);
    bench.read(PAGE);
    const { walks } = bench.cpu.counters;
    assertEquals([bench.read(PAGE + 8n), bench.read(PAGE + 10n, 2), bench.read(PAGE + 11n, 1)], [
      0x8765_4321,
      0x8765,
      0x87,
    ]);
    assertEquals(bench.cpu.counters.walks, walks);
  });

  it("serves a copy between pages of one index without walks: each kind of access keeps its entry", () => {
    const bench = new Bench();
    const from = PAGE, to = PAGE + 0x20_0000n;
    bench.map(from, RAM, 0x67n);
    bench.map(to, RAM + 0x1000, 0x67n);
    for (let round = 0; round < 2; round++) {
      bench.write(to, bench.read(from));
      bench.read(from);
    }
    const { walks } = bench.cpu.counters;
    bench.poke32(RAM, 0x1357_9bdf);
    bench.write(to, bench.read(from));
    assertEquals([bench.cpu.counters.walks, bench.peek32(RAM + 0x1000)], [walks, 0x1357_9bdf]);
  });

  it("keeps the contexts apart", () => {
    const bench = new Bench();
    bench.map(PAGE, RAM, 3n);
    bench.read(PAGE);
    bench.cpl(3);
    assertEquals(bench.fault(() => bench.read(PAGE))?.code, 5);
    bench.read(PAGE, 4, 1);
    assertEquals(
      bench.fault(() => bench.read(PAGE))?.code,
      5,
      "an implicit access grants nothing to the user",
    );
  });

  it("under SMAP never holds user pages for a supervisor with AC = 0", () => {
    const bench = new Bench();
    bench.map(PAGE, RAM, 7n);
    bench.cr4(CR4_SMAP);
    bench.cpu.set32(S.RFLAGS, 2 | RFLAGS.AC);
    bench.update();
    bench.read(PAGE);
    assertEquals(counts(bench, CONTEXT.SUPERVISOR)[0], 1);
    bench.cpu.set32(S.RFLAGS, 2);
    bench.cpl(0);
    assertEquals(fastContext(bench.cpu), CONTEXT.SUPERVISOR_SMAP);
    assertEquals(bench.fault(() => bench.read(PAGE))?.code, 1);
  });

  it("does not take watched pages at all, and pages of decoded code not for writes", () => {
    const bench = new Bench();
    bench.map(PAGE, RAM, 7n);
    bench.bus.setPageFlags(RAM, 1, PAGE_CODE);
    bench.write(PAGE, 1);
    assertEquals(counts(bench, CONTEXT.SUPERVISOR), [1, 0, 0]);
    bench.bus.setPageFlags(RAM, 1, PAGE_WATCH);
    assertEquals(counts(bench, CONTEXT.SUPERVISOR), [0, 0, 0], "the bus's change of the map empties it");
    bench.write(PAGE, 1);
    bench.read(PAGE);
    assertEquals(counts(bench, CONTEXT.SUPERVISOR), [0, 0, 0]);
  });

  it("stays empty for data while alignment is checked or data breakpoints are armed", () => {
    const bench = new Bench();
    bench.map(PAGE, RAM, 7n);
    bench.cpl(3);
    bench.read(PAGE);
    assertEquals(counts(bench, CONTEXT.USER)[0], 1);
    bench.cr0(CR0_AM);
    bench.cpu.set32(S.RFLAGS, 2 | RFLAGS.AC);
    bench.update();
    assertEquals(fastContext(bench.cpu), CONTEXT.USER_CHECKED);
    bench.read(PAGE);
    for (let context = 0; context < 5; context++) assertEquals(counts(bench, context).slice(0, 2), [0, 0]);
    bench.cpl(0);
    bench.cpu.set64(S.DR + 56, 0x0001_0401n);
    bench.update();
    assertEquals(fastContext(bench.cpu), CONTEXT.SUPERVISOR_CHECKED);
    bench.read(PAGE);
    bench.read(PAGE, 4, 1);
    for (let context = 0; context < 5; context++) assertEquals(counts(bench, context).slice(0, 2), [0, 0]);
  });

  it("of fetches takes what the engine gives for the page just fetched", () => {
    const bench = new Bench();
    bench.map(PAGE, RAM, 7n);
    assertEquals(bench.fetch(PAGE), RAM);
    bench.access.fillFetch(Number(PAGE) + 0x1000, 0, 0x1234);
    assertEquals(counts(bench, CONTEXT.SUPERVISOR)[2], 0, "another page than the one fetched");
    bench.access.fillFetch(Number(PAGE) + 0x10, 0, 0x1234);
    assertEquals(counts(bench, CONTEXT.SUPERVISOR)[2], 1);
  });

  it("holds a single fetch entry where translations are counted", () => {
    const bench = new Bench({ tlb: "geometry" });
    for (const page of [PAGE, PAGE + 0x1000n]) {
      bench.map(page, RAM, 7n);
      bench.fetch(page);
      bench.access.fillFetch(Number(page), 0, 0x1234);
      assertEquals(counts(bench, CONTEXT.SUPERVISOR), [0, 0, 1]);
    }
  });
});

describe("emptying", () => {
  it("keeps global pages through a load of CR3, and nothing through a full flush", () => {
    const bench = new Bench();
    bench.cr4(CR4_PGE);
    bench.map(PAGE, RAM, 0x67n);
    bench.map(PAGE + 0x1000n, RAM, 0x167n);
    bench.read(PAGE);
    bench.read(PAGE + 0x1000n);
    bench.loadCr3(BigInt(bench.root));
    assertEquals(counts(bench, CONTEXT.SUPERVISOR), [1, 1, 0]);
    bench.access.tlb.flushAll();
    assertEquals(counts(bench, CONTEXT.SUPERVISOR), [0, 0, 0]);
  });

  it("works again and again on the same entries", () => {
    const bench = new Bench();
    bench.cr4(CR4_PGE);
    for (let i = 0n; i < 600n; i++) bench.map(PAGE + i * 0x1000n, RAM, i % 2n ? 0x67n : 0x167n);
    for (let round = 0; round < 3; round++) {
      for (let i = 0n; i < 600n; i++) bench.read(PAGE + i * 0x1000n);
      assertEquals(counts(bench, CONTEXT.SUPERVISOR), [512, 512, 0]);
      bench.invlpg(PAGE + 0x5_0000n);
      assertEquals(counts(bench, CONTEXT.SUPERVISOR), [512, 511, 0], "for reads another page stands there");
      bench.invlpg(PAGE + 0x10_0000n);
      assertEquals(counts(bench, CONTEXT.SUPERVISOR), [511, 510, 0]);
      bench.loadCr3(BigInt(bench.root));
      assertEquals(counts(bench, CONTEXT.SUPERVISOR), [255, 254, 0]);
      bench.access.tlb.flushFast();
      assertEquals(counts(bench, CONTEXT.SUPERVISOR), [0, 0, 0]);
    }
  });

  it("by INVLPG takes every piece of a large page in every context, and no piece of another", () => {
    const bench = new Bench();
    bench.map(0x60_0000n, 0, 7n, 2);
    bench.map(0x80_0000n, 0, 7n, 2);
    for (const level of [0, 3]) {
      bench.cpl(level);
      for (let i = 0n; i < 8n; i++) {
        bench.read(0x60_0000n + i * 0x1000n);
        bench.read(0x80_8000n + i * 0x1000n);
      }
    }
    bench.invlpg(0x7f_f000n);
    assertEquals(counts(bench, CONTEXT.SUPERVISOR)[0], 8);
    assertEquals(counts(bench, CONTEXT.USER)[0], 8);
  });

  it("of writes alone when a page comes to hold decoded code", () => {
    const bench = new Bench();
    bench.map(PAGE, RAM, 0x67n);
    bench.map(PAGE + 0x1000n, RAM + 0x1000, 0x67n);
    bench.map(PAGE + 0x2000n, RAM, 0x67n);
    for (let i = 0n; i < 3n; i++) bench.write(PAGE + i * 0x1000n, 1);
    dropWrite([bench.cpu], RAM);
    assertEquals(counts(bench, CONTEXT.SUPERVISOR), [3, 1, 0]);
  });

  it("reaches the entries of every processor when the memory map changes", () => {
    const first = new Bench();
    const second = new Bench({ beside: first, id: 1 });
    first.map(PAGE, RAM, 0x67n);
    for (const bench of [first, second]) bench.write(PAGE, 1);
    first.bus.setPageFlags(RAM, 1, PAGE_WATCH);
    for (const bench of [first, second]) assertEquals(counts(bench, CONTEXT.SUPERVISOR), [0, 0, 0]);
  });
});

describe("dataBreakpoints", () => {
  it("is about enabled breakpoints on data alone", () => {
    assertEquals(dataBreakpoints(0x400), false);
    assertEquals(dataBreakpoints(0x401), false, "an instruction breakpoint");
    assertEquals(dataBreakpoints(0x0001_0400), false, "not enabled");
    assertEquals(dataBreakpoints(0x0001_0401), true);
    assertEquals(dataBreakpoints(0x3000_0480), true, "breakpoint 3, global, reads and writes");
    assertEquals(dataBreakpoints(0x2000_0480), false, "I/O");
  });
});
