/**
 * The translation sanitizer finds a missing invalidation, says what it should, and is silent about kernels that do it right.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { CR4_PCIDE, CR4_PGE } from "../../hw/paging.ts";
import { Sanitizer, type StaleUse } from "../../hw/sanitizer.ts";
import { S } from "../../hw/state.ts";
import type { TlbChoice } from "../../hw/tlb.ts";
import { Bench } from "./paging_fixture.ts";

const RAM = 0x20_0000, OTHER = 0x21_0000, PAGE = 0x40_0000n;
/** Where the page tables can be written by the simulated kernel. */
const TABLES = 0xffff_8000_0000_0000n;

interface Watched {
  readonly bench: Bench;
  readonly uses: StaleUse[];
  readonly entries: number[];
  /** The kernel stores to a page-table entry, at an RIP and time of its own. */
  store(physical: number, value: bigint, rip: bigint): void;
}

function watched(tlb: TlbChoice = "sticky", bits = 7n): Watched {
  const sanitizer = new Sanitizer();
  const bench = new Bench({ tlb, sanitizer });
  const uses: StaleUse[] = [];
  sanitizer.on((use) => uses.push(use));
  const entries = bench.map(PAGE, RAM, bits);
  bench.map(TABLES, 0, 0x63n, 2);
  let time = 0;
  bench.cpu.now = () => time;
  const store = (physical: number, value: bigint, rip: bigint) => {
    time += 100;
    bench.cpu.rip = rip;
    const at = TABLES + BigInt(physical);
    bench.access.write(
      Number(at & 0xffff_ffffn),
      Number(at >> 32n),
      8,
      Number(value & 0xffff_ffffn),
      Number(value >> 32n),
    );
    time += 100;
  };
  bench.cpu.rip = 0x1000n;
  return { bench, uses, entries, store };
}

describe("the sanitizer", () => {
  it("reports a write through a translation that was made read-only without INVLPG", () => {
    const { bench, uses, entries, store } = watched();
    bench.write(PAGE, 1);
    store(entries[1]!, (bench.peek64(entries[1]!)) & ~2n, 0x2000n);
    bench.cpu.rip = 0x3000n;
    assertEquals(bench.read(PAGE), 1);
    assertEquals(uses.length, 0, "reading is still granted");
    bench.write(PAGE + 8n, 2);
    assertEquals(uses.length, 1);
    const use = uses[0]!;
    assertEquals([use.linear, use.access, use.user, use.rip, use.physical], [
      PAGE + 8n,
      "write",
      false,
      0x3000n,
      RAM,
    ]);
    assertEquals([use.cached, use.entry.linear, use.entry.physical, use.entry.bytes], [
      "page",
      PAGE,
      RAM,
      4096,
    ]);
    assertEquals([use.entry.birth?.rip, use.entry.birth?.time], [0x1000n, 0]);
    assertEquals([use.change?.physical, use.change?.rip, use.change?.cpu, use.change?.time], [
      entries[1],
      0x2000n,
      0,
      100,
    ]);
    assertEquals(use.tables.outcome, {
      kind: "page fault",
      errorCode: 3,
      reason: "write to a read-only page",
    });
    bench.write(PAGE + 16n, 3);
    assertEquals(uses.length, 1, "once for each entry and kind of access");
    assertEquals(bench.access.sanitizer?.count, 1);
  });

  it("is silent when INVLPG follows, and the access faults as the tables say", () => {
    const { bench, uses, entries, store } = watched();
    bench.write(PAGE, 1);
    store(entries[1]!, bench.peek64(entries[1]!) & ~2n, 0x2000n);
    bench.invlpg(PAGE);
    assertEquals(bench.fault(() => bench.write(PAGE, 2))?.code, 3);
    assertEquals(uses, []);
  });

  it("reports a page that was unmapped or given another frame, on reads, writes and fetches", () => {
    for (const change of [0n, BigInt(OTHER) | 7n]) {
      const { bench, uses, entries, store } = watched();
      bench.write(PAGE, 1);
      store(entries[1]!, change, 0x2000n);
      bench.read(PAGE);
      bench.write(PAGE, 1);
      bench.fetch(PAGE);
      assertEquals(uses.map((u) => u.access), ["read", "write", "fetch"]);
    }
  });

  it("names the level that changed, and a structure entry that a walk began from", () => {
    const { bench, uses, entries, store } = watched();
    bench.map(PAGE + 0x1000n, RAM + 0x1000, 7n);
    bench.read(PAGE);
    store(entries[2]!, 0n, 0x2000n);
    bench.read(PAGE + 0x1000n);
    assertEquals([uses.length, uses[0]?.cached, uses[0]?.entry.bytes], [1, "structure", 0x20_0000]);
    assertEquals(uses[0]?.change?.physical, entries[2]);
    bench.read(PAGE);
    assertEquals(uses[1]?.cached, "page");
  });

  it("does not mind accessed and dirty flags, wider rights, other sizes over the same bytes", () => {
    const { bench, uses, entries, store } = watched();
    bench.write(PAGE, 1);
    store(entries[1]!, bench.peek64(entries[1]!) & ~0x60n, 0x2000n);
    bench.write(PAGE, 2);
    store(entries[1]!, bench.peek64(entries[1]!) | (1n << 58n), 0x2000n);
    bench.read(PAGE);
    store(entries[2]!, BigInt(RAM) | 0x87n, 0x2000n);
    bench.read(PAGE);
    assertEquals(uses, []);
  });

  it("tells processors apart: one changes the tables, the other is not told", () => {
    const sanitizer = new Sanitizer();
    const uses: StaleUse[] = [];
    sanitizer.on((use) => uses.push(use));
    const first = new Bench({ tlb: "sticky", sanitizer });
    const second = new Bench({ tlb: "sticky", sanitizer, beside: first, id: 1 });
    const entries = first.map(PAGE, RAM, 7n);
    first.map(TABLES, 0, 0x63n, 2);
    second.read(PAGE);
    const at = TABLES + BigInt(entries[1]!);
    first.cpu.rip = 0x2222n;
    first.access.write(Number(at & 0xffff_ffffn), Number(at >> 32n), 8, 0, 0);
    first.invlpg(PAGE);
    second.read(PAGE);
    assertEquals([uses.length, uses[0]?.cpu, uses[0]?.change?.cpu, uses[0]?.change?.rip], [1, 1, 0, 0x2222n]);
  });

  it("sees stores of every kind: read-modify-write, blocks, physical", () => {
    const kinds: ((w: Watched, at: bigint) => void)[] = [
      ({ bench }, at) => {
        const host = bench.access.rmwSlow(Number(at & 0xffff_ffffn), Number(at >> 32n), 8, 3);
        bench.memory.u32[host / 4] = 0;
        bench.access.spillFlush();
      },
      ({ bench }, at) => {
        bench.memory.u8.fill(0, bench.cpu.base + S.VTEMP, bench.cpu.base + S.VTEMP + 16);
        bench.access.writeBytes(Number(at & 0xffff_ffffn), Number(at >> 32n), bench.cpu.base + S.VTEMP, 16);
      },
      ({ bench, entries }) => bench.access.writePhysical(entries[1]!, 4, 0),
      ({ bench }, at) => bench.access.write(Number(at & 0xffff_ffffn), Number(at >> 32n), 1, 0, 0),
    ];
    for (const kind of kinds) {
      const w = watched();
      w.bench.read(PAGE);
      w.bench.cpu.rip = 0x4444n;
      kind(w, TABLES + BigInt(w.entries[1]!));
      w.bench.read(PAGE);
      assertEquals([w.uses.length, w.uses[0]?.change?.rip], [1, 0x4444n]);
    }
  });

  it("gives both stacks that software tells it", () => {
    const sanitizer = new Sanitizer();
    const uses: StaleUse[] = [];
    sanitizer.on((use) => uses.push(use));
    let where = "birth";
    sanitizer.context = () => where;
    const bench = new Bench({ tlb: "sticky", sanitizer });
    const entries = bench.map(PAGE, RAM, 7n);
    bench.read(PAGE);
    where = "change";
    bench.access.writePhysical(entries[1]!, 4, 0);
    where = "use";
    bench.read(PAGE);
    assertEquals([uses[0]?.entry.birth?.context, uses[0]?.change?.context, uses[0]?.context], [
      "birth",
      "change",
      "use",
    ]);
  });

  it("judges a PCID's entries by its own tables, and a load of CR3 that keeps them is fine", () => {
    const { bench, uses } = watched();
    bench.cr4(CR4_PCIDE | CR4_PGE);
    bench.read(PAGE);
    const kept = bench.cpu.get64(S.CR3);
    bench.loadCr3(BigInt(bench.root) | 7n | (1n << 63n));
    bench.read(PAGE);
    bench.loadCr3(kept | (1n << 63n));
    bench.read(PAGE);
    assertEquals(uses, []);
    // Another address space under the same PCID, without invalidation: the classic mistake.
    const other = bench.page();
    bench.loadCr3(BigInt(other) | (1n << 63n));
    bench.read(PAGE);
    assertEquals(uses.length, 1);
    assertEquals(uses[0]?.change, undefined, "no store is to blame");
  });

  it("works with the geometry TLB, and makes a fast one sticky", () => {
    for (const tlb of ["geometry", "fast"] as const) {
      const { bench, uses, entries, store } = watched(tlb);
      bench.read(PAGE);
      store(entries[1]!, 0n, 0x2000n);
      bench.read(PAGE);
      assertEquals(uses.length, 1, tlb);
    }
  });

  it("is a trace event as well", () => {
    const { bench, entries, store } = watched();
    const seen: string[] = [];
    bench.cpu.trace.on(["stale"], (e) => seen.push(`${e.access} ${e.linear.toString(16)}`));
    bench.read(PAGE);
    store(entries[1]!, 0n, 0x2000n);
    bench.read(PAGE);
    assertEquals(seen, ["read 400000"]);
  });
});
