/**
 * A kernel that invalidates what it must can't tell the TLB choices apart, and the sanitizer has nothing to say about it; one that
 * forgets is caught. Random operations from a seed on two processors, against the tables themselves.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { CR4_PCIDE, CR4_PGE } from "../../hw/paging.ts";
import { Sanitizer } from "../../hw/sanitizer.ts";
import { RAM_BASE, S } from "../../hw/state.ts";
import type { TlbChoice } from "../../hw/tlb.ts";
import { Bench } from "./paging_fixture.ts";

const PAGES = 24, FRAMES = 16, FRAME_BASE = 0x20_0000;
const PRESENT = 1n, WRITABLE = 2n, USER = 4n, GLOBAL = 0x100n;

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

interface Outcome {
  /** What each access gave: the value, or the fault's error code, negative. */
  readonly seen: number[];
  readonly stale: number;
}

/** Linear address of page `i`: three regions, so that structure entries matter. The last pages are global. */
function pageAt(i: number): bigint {
  return [0x40_0000n, 0x80_0000_0000n, 0xffff_8000_0020_0000n][i % 3]! + BigInt(i) * 0x1000n;
}

function run(seed: number, tlb: TlbChoice, forget: boolean, steps = 1500): Outcome {
  const sanitizer = new Sanitizer();
  const sanitized = tlb === "sticky" || forget;
  const first = new Bench({ tlb, ...(sanitized ? { sanitizer } : {}) });
  const second = new Bench({ tlb, ...(sanitized ? { sanitizer } : {}), beside: first, id: 1 });
  const cpus = [first, second];
  const spaces = [first.root, first.page()];
  for (const bench of cpus) bench.cr4(CR4_PCIDE | CR4_PGE);
  const next = generator(seed);
  const seen: number[] = [];
  const space = [0, 0];
  // Each frame starts with its own number.
  for (let f = 0; f < FRAMES; f++) first.poke32(FRAME_BASE + f * 4096, f * 1000);
  for (const bench of cpus) bench.loadCr3(BigInt(spaces[0]!) | 1n);

  const edit = (which: number, i: number): void => {
    const global = i >= PAGES - 4;
    const bits = [0n, PRESENT, PRESENT | WRITABLE, PRESENT | USER, PRESENT | WRITABLE | USER][next(5)]!;
    const frame = FRAME_BASE + next(FRAMES) * 4096;
    // Global pages are the same in both spaces.
    for (const s of global ? [0, 1] : [which]) {
      first.root = spaces[s]!;
      first.map(pageAt(i), frame, global ? bits | GLOBAL : bits);
    }
    if (forget && next(4) === 0) return;
    for (const [n, bench] of cpus.entries()) {
      if (global || space[n] === which) bench.invlpg(pageAt(i));
      else bench.access.tlb.invpcid(1, which + 1, 0, 0);
    }
  };
  for (let i = 0; i < PAGES; i++) {
    edit(0, i);
    edit(1, i);
  }
  for (let step = 0; step < steps; step++) {
    const n = next(2), bench = cpus[n]!;
    const op = next(20);
    if (op < 3) edit(next(2), next(PAGES));
    else if (op === 3) {
      space[n] = next(2);
      const keep = next(3) > 0 ? 1n << 63n : 0n;
      bench.loadCr3(BigInt(spaces[space[n]]!) | BigInt(space[n] + 1) | keep);
    } else {
      bench.cpl(next(2) * 3);
      const at = pageAt(next(PAGES));
      let value = 0;
      const fault = bench.fault(() => {
        if (op < 12) value = bench.read(at);
        else if (op < 17) bench.write(at, step);
        else value = bench.fetch(at);
      });
      if (fault !== undefined) value = -1 - fault.code;
      seen.push(value);
    }
  }
  for (let f = 0; f < FRAMES; f++) seen.push(first.memory.u32[(RAM_BASE + FRAME_BASE + f * 4096) / 4]!);
  assertEquals(second.cpu.get32(S.CR0), first.cpu.get32(S.CR0));
  return { seen, stale: sanitizer.count };
}

Deno.test("with every invalidation in place all TLB choices behave the same, and the sanitizer is silent", () => {
  for (let seed = 1; seed <= 6; seed++) {
    const sticky = run(seed, "sticky", false);
    assertEquals(sticky.stale, 0, `seed ${seed}`);
    assertEquals(run(seed, "fast", false).seen, sticky.seen, `seed ${seed}: fast`);
    assertEquals(run(seed, "geometry", false).seen, sticky.seen, `seed ${seed}: geometry`);
    assert(sticky.seen.some((v) => v < 0) && sticky.seen.some((v) => v > 0));
  }
});

Deno.test("a kernel that forgets one invalidation in four is caught within 1500 steps", () => {
  for (let seed = 1; seed <= 6; seed++) assert(run(seed, "sticky", true).stale > 0, `seed ${seed}`);
});
