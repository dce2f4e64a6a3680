/**
 * The sanitizer and the three kinds of cached mapping; and a hypervisor at random: with every invalidation in place the TLB choices behave
 * the same and the sanitizer is silent, with some forgotten it is caught.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { CR4_PCIDE, CR4_PGE } from "../../hw/paging.ts";
import { Sanitizer, type StaleUse } from "../../hw/sanitizer.ts";
import { S } from "../../hw/state.ts";
import type { TlbChoice } from "../../hw/tlb.ts";
import { GuestBench, RWX, WB } from "./ept_fixture.ts";

const OLD = 0x20_0000, NEW = 0x21_0000;
const PAGE = 0x40_0000n, OTHER = 0x40_1000n;
const P = 7n;

function watched(): { bench: GuestBench; uses: StaleUse[] } {
  const sanitizer = new Sanitizer();
  const bench = new GuestBench({ tlb: "sticky", sanitizer });
  const uses: StaleUse[] = [];
  sanitizer.on((use) => uses.push(use));
  bench.guestMap(PAGE, bench.gpa(OLD), P);
  bench.guestMap(OTHER, bench.gpa(OLD), P);
  bench.enter();
  return { bench, uses };
}
/** A store of the hypervisor's, which the sanitizer sees. */
function store(bench: GuestBench, at: number, value: bigint): void {
  bench.access.writePhysical(at, 4, Number(value & 0xffff_ffffn));
  bench.access.writePhysical(at + 4, 4, Number(value >> 32n));
}

describe("the sanitizer", () => {
  it("reports a combined mapping that EPT no longer grants, with the store that an INVEPT should have followed", () => {
    const { bench, uses } = watched();
    bench.read(PAGE);
    const leaf = bench.eptEntry(bench.gpa(OLD));
    bench.leave();
    store(bench, leaf, BigInt(NEW) | RWX | WB);
    bench.enter();
    bench.read(PAGE);
    assertEquals(uses.length, 1);
    const [use] = uses;
    assertEquals([use!.mapping, use!.cached, use!.linear, use!.physical], ["combined", "page", PAGE, OLD]);
    assertEquals([use!.entry.vpid, use!.entry.eptp], [1, bench.eptRoot]);
    assertEquals(Math.floor(use!.change!.physical / 8) * 8, leaf);
    assertEquals(use!.tables.ept?.entries.length, 4, "both walks are told");
  });

  it("reports a combined mapping that the guest's tables no longer grant", () => {
    const { bench, uses } = watched();
    bench.read(PAGE);
    const entry = bench.guestMap(PAGE, bench.gpa(OLD), P)[1]!;
    store(bench, entry, bench.gpa(NEW) | P);
    bench.read(PAGE);
    assertEquals([uses.length, uses[0]?.mapping, uses[0]?.change?.physical], [1, "combined", entry + 4]);
  });

  it("reports a guest-physical mapping: another linear address, the same guest-physical page", () => {
    const { bench, uses } = watched();
    bench.read(PAGE);
    store(bench, bench.eptEntry(bench.gpa(OLD)), BigInt(NEW) | RWX | WB);
    // OTHER has no combined mapping yet; the page's guest-physical mapping is stale.
    bench.read(OTHER);
    assertEquals(uses.map((u) => [u.mapping, u.linear, u.physical]), [["guest-physical", OTHER, OLD]]);
    assertEquals(uses[0]!.entry.linear, bench.gpa(OLD));
  });

  it("reports a guest-physical paging-structure entry", () => {
    const { bench, uses } = watched();
    bench.read(PAGE);
    const far = 0x1_0000n;
    // The EPT page table of the bench's second 2 MiB is replaced by another.
    const pde = bench.eptEntry(bench.gpa(OLD), 2), table = bench.page();
    bench.poke64(table + Number(far >> 12n) * 8, BigInt(NEW + 0x1000) | RWX | WB);
    store(bench, pde, BigInt(table) | RWX);
    bench.guestMap(OTHER, bench.gpa(OLD) + far, P);
    bench.access.tlb.flushAll();
    bench.read(OTHER);
    assertEquals(uses.map((u) => [u.mapping, u.cached]), [["guest-physical", "structure"]]);
  });

  it("is silent after INVEPT, and about linear mappings of root operation when EPT changes", () => {
    const { bench, uses } = watched();
    bench.read(PAGE);
    bench.leave();
    store(bench, bench.eptEntry(bench.gpa(OLD)), BigInt(NEW) | RWX | WB);
    bench.access.tlb.invept(1, Number(bench.eptp), 0);
    bench.enter();
    bench.poke32(NEW, 77);
    assertEquals(bench.read(PAGE), 77);
    assertEquals(uses, []);
  });
});

/** A small generator: the tests of a seed are always the same. */
function generator(seed: number): (below: number) => number {
  let x = seed * 2654435761 >>> 0 || 1;
  return (below) => {
    x ^= x << 13;
    x >>>= 0;
    x ^= x >>> 17;
    x ^= x << 5;
    x >>>= 0;
    return x % below;
  };
}

const PAGES = 12, FRAMES = 8, FRAME_BASE = 0x20_0000;

/** A hypervisor with two guests (VPIDs) on two EPT roots: it edits EPT, they edit their tables; all of them invalidate. */
function run(seed: number, tlb: TlbChoice, forget: boolean, ad: boolean): { seen: number[]; stale: number } {
  const sanitizer = new Sanitizer();
  const sanitized = tlb === "sticky";
  const bench = new GuestBench({ tlb, ad, ...(sanitized ? { sanitizer } : {}) });
  const { cpu } = bench, { tlb: caches } = bench.access;
  bench.cr4(CR4_PCIDE | CR4_PGE);
  const roots = [bench.eptRoot, bench.page()];
  for (let page = 0x10_000; page < 0x40_0000; page += 4096) {
    bench.eptMap(bench.gpa(page), page, RWX | WB, 1, roots[1]);
  }
  const spaces = [bench.root, bench.page()];
  const next = generator(seed);
  const seen: number[] = [];
  const linear = (i: number) => [0x40_0000n, 0x80_0000_0000n][i % 2]! + BigInt(i) * 0x1000n;
  const frame = (i: number) => FRAME_BASE + i * 4096;
  for (let f = 0; f < FRAMES; f++) bench.poke32(frame(f), f * 1000);
  const editGuest = (space: number, i: number) => {
    const global = i >= PAGES - 2;
    const bits = [1n, 3n, 5n, 7n][next(4)]! | (global ? 0x100n : 0n);
    const target = bench.gpa(frame(next(FRAMES)));
    for (const s of global ? [0, 1] : [space]) bench.guestMap(linear(i), target, bits, 1, spaces[s]);
    if (forget && next(4) === 0) return;
    // The hypervisor does it for its guests, in root operation.
    for (const vpid of [1, 2]) {
      caches.invvpid(0, vpid, Number(linear(i) & 0xffff_ffffn), Number(linear(i) >> 32n));
    }
  };
  const editEpt = (root: number, f: number) => {
    const bits = [1n, 3n, 5n, 7n, 7n][next(5)]!;
    bench.eptMap(bench.gpa(frame(f)), frame(next(FRAMES)), bits | WB, 1, roots[root]);
    if (forget && next(4) === 0) return;
    if (next(3) === 0) caches.invept(2, 0, 0);
    else caches.invept(1, roots[root]!, 0);
  };
  for (let i = 0; i < PAGES; i++) for (const s of [0, 1]) editGuest(s, i);
  for (let step = 0; step < 400; step++) {
    const op = next(10);
    if (op < 2) editGuest(next(2), next(PAGES));
    else if (op < 4) editEpt(next(2), next(FRAMES));
    // A stay in one guest.
    const which = next(2), space = next(2);
    bench.vpid = which + 1;
    bench.eptp = bench.pointerTo(roots[next(4) === 0 ? 1 - which : which]!);
    bench.enter(bench.gpa(spaces[space]!) | BigInt(space + 1));
    for (let k = next(8); k >= 0; k--) {
      bench.cpl(next(2) * 3);
      const at = linear(next(PAGES)), how = next(10);
      const outcome = bench.outcome(() =>
        how < 5 ? bench.read(at) : how < 8 ? bench.write(at, step * 16 + k) : bench.fetch(at)
      );
      if (outcome.kind === "done") seen.push(outcome.value);
      else if (outcome.kind === "fault") seen.push(-1 - outcome.code);
      else seen.push(-1000 - outcome.qualification, Number(outcome.physical - bench.offset));
    }
    bench.cpl(0);
    bench.leave();
  }
  for (let f = 0; f < FRAMES; f++) seen.push(bench.peek32(frame(f)));
  assertEquals(cpu.get32(S.VMX_MODE), 1);
  return { seen, stale: sanitizer.count };
}

describe("a hypervisor with two guests, at random", () => {
  it("sees the same on every TLB choice, and the sanitizer is silent, when all invalidations are in place", () => {
    for (let seed = 1; seed <= 6; seed++) {
      for (const ad of [false, true]) {
        const sticky = run(seed, "sticky", false, ad);
        assertEquals(sticky.stale, 0, `seed ${seed} ad ${ad}`);
        for (const tlb of ["fast", "geometry"] as const) {
          assertEquals(run(seed, tlb, false, ad).seen, sticky.seen, `seed ${seed} ad ${ad}: ${tlb}`);
        }
        assert(sticky.seen.some((v) => v <= -1000) && sticky.seen.some((v) => v > 0));
        assert(sticky.seen.some((v) => v < 0 && v > -1000));
      }
    }
  });

  it("is caught by the sanitizer when it forgets one in four", () => {
    for (let seed = 1; seed <= 6; seed++) assert(run(seed, "sticky", true, true).stale > 0, `seed ${seed}`);
  });
});
