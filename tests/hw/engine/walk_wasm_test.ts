/**
 * Walks in wasm do what the walks in TypeScript do: same answers, same flags in memory, same fast TLB, same counts.
 *
 * Two processors see the same random tables and the same accesses; one has the wasm walks in front of the TypeScript ones. Everything that
 * both wrote is compared: their blocks, what is kept beside them, and RAM.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { FETCH_FAULT, FETCH_NOT_RAM, fetchEntry } from "../../../hw/engine/fetch.ts";
import { type HostFunction, missFunctions } from "../../../hw/engine/misses.ts";
import { cpuModels } from "../../../hw/cpuid.ts";
import {
  CR0_PG,
  CR0_WP,
  CR4_LA57,
  CR4_PAE,
  CR4_PGE,
  CR4_PKE,
  CR4_PSE,
  CR4_SMAP,
  CR4_SMEP,
  EFER_LMA,
  EFER_NXE,
} from "../../../hw/paging.ts";
import { Random } from "../../../hw/random.ts";
import {
  AUX_BASE,
  AUX_BYTES,
  CODE_ARENA_BASE,
  CODE_TABLES_BASE,
  CODE_TABLES_STRIDE,
  CPU_BLOCK_BASE,
  CPU_BLOCK_SIZE,
  FTLB_READ,
  FTLB_WRITE,
  PAGE_CODE,
  PAGE_FLAGS_BASE,
  PAGE_ROM,
  PAGE_WATCH,
  RAM_BASE,
  RFLAGS,
  S,
} from "../../../hw/state.ts";
import { GuestBench } from "../ept_fixture.ts";
import { Bench, SEG } from "../paging_fixture.ts";

/** Slot tables of the test stand here; each slot holds a number that says which it is. */
const SLOTS = CODE_ARENA_BASE;

/** What both sides do. */
interface Side {
  readonly bench: Bench;
  data(kind: "load" | "store" | "rmw", linear: bigint, bytes: number): number;
  fetch(linear: bigint): number;
}

function halves(linear: bigint): [number, number] {
  return [Number(BigInt.asIntN(32, linear)), Number(BigInt.asIntN(32, linear >> 32n))];
}

function typescriptSide(bench: Bench): Side {
  const { access, memory } = bench;
  return {
    bench,
    data(kind, linear, bytes) {
      const [low, high] = halves(linear);
      if (kind === "load") return access.loadSlow(low, high, bytes, 3);
      if (kind === "store") return access.storeSlow(low, high, bytes, 3);
      return access.rmwSlow(low, high, bytes, 3);
    },
    fetch(linear) {
      const [low, high] = halves(linear);
      const entry = fetchEntry(bench.cpu, low, high);
      if (entry === FETCH_FAULT || entry === FETCH_NOT_RAM) return entry;
      const page = memory.u32[entry + 3]! >>> 12;
      const mode = bench.cpu.get32(S.CODEMODE);
      const table = memory.u32[(CODE_TABLES_BASE + mode * CODE_TABLES_STRIDE + page * 4) >>> 2]!;
      memory.u32[entry + 2] = table;
      return table === 0 ? 0 : memory.u32[(table + (low & 0xfff) * 4) >>> 2]!;
    },
  };
}

/** Whether the fast TLB serves an access: then no engine calls what is tested here. */
function probe(bench: Bench, table: number, linear: bigint, bytes: number): boolean {
  const entry = bench.cpu.get32(S.TLBCTX) + table + Number((linear >> 12n) & 511n) * 16;
  return bench.memory.u64[entry >>> 3] === (BigInt.asUintN(64, linear + BigInt(bytes - 1)) & ~0xfffn);
}

/** The same through the wasm walks; `taken` counts what they did themselves. */
function wasmSide(bench: Bench, taken: { data: number; fetch: number }): Side {
  const plain = typescriptSide(bench);
  let slow = 0;
  const through =
    (kind: "load" | "store" | "rmw"): HostFunction => (_base, _ptr, _limit, low, high, info) => {
      slow++;
      return plain.data(kind, (BigInt(high!) << 32n) | BigInt(low! >>> 0), info! & 0xff);
    };
  const functions = missFunctions(bench.memory, [bench.cpu], {
    loadSlow: through("load"),
    storeSlow: through("store"),
    rmwSlow: through("rmw"),
  });
  const { base } = bench.cpu;
  return {
    bench,
    data(kind, linear, bytes) {
      if (probe(bench, kind === "load" ? FTLB_READ : FTLB_WRITE, linear, bytes)) {
        return plain.data(kind, linear, bytes);
      }
      const before = slow;
      const [low, high] = halves(linear);
      const result = functions[`${kind}Slow`]!(base, 0, 0, low, high, bytes | (3 << 8)) as number;
      if (slow === before) taken.data++;
      return result;
    },
    fetch(linear) {
      const [low, high] = halves(linear);
      const record = functions["fetchMiss"]!(base, low, high) as number;
      if (record === 0) return plain.fetch(linear);
      taken.fetch++;
      return record;
    },
  };
}

/** Compares what two machines have in memory. */
function assertSameMemory(a: Bench, b: Bench, what: string): void {
  const ranges = [
    [CPU_BLOCK_BASE, CPU_BLOCK_BASE + CPU_BLOCK_SIZE],
    [AUX_BASE, AUX_BASE + 0xce00],
    [AUX_BASE + 0xd000, AUX_BASE + AUX_BYTES],
    [RAM_BASE, RAM_BASE + a.memory.ramBytes],
  ] as const;
  for (const [from, to] of ranges) {
    for (let i = from >>> 2; i < to >>> 2; i++) {
      if (a.memory.i32[i] !== b.memory.i32[i]) {
        // SPILL is scratch.
        const at = i * 4 - a.cpu.base;
        if (at >= S.SPILL && at < S.SPILL + 64) continue;
        throw new Error(
          `${what}: at ${(i * 4).toString(16)} wasm has ${a.memory.u32[i]!.toString(16)}, TypeScript ${
            b.memory.u32[i]!.toString(16)
          }`,
        );
      }
    }
  }
  assertEquals(a.cpu.counters.snapshot(), b.cpu.counters.snapshot(), what);
}

class Chance {
  readonly #random: Random;
  constructor(seed: number) {
    this.#random = new Random(seed);
  }
  below(n: number): number {
    return this.#random.next() % n;
  }
  one(n: number): boolean {
    return this.below(n) === 0;
  }
  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }
}

/** Linear addresses that share tables of all levels, and that share fast-TLB entries. */
const LINEARS = [
  0x0000_0000_0040_0000n,
  0x0000_0000_0040_1000n,
  0x0000_0000_0060_0000n,
  0x0000_0000_4000_0000n,
  0x0000_7fff_ffff_f000n,
  0xffff_8000_0000_0000n,
  0xffff_ffff_8020_0000n,
  0x0000_0080_0040_0000n,
];

/** One run: the same random things on both sides. */
function run(
  seed: number,
  make: () => Bench,
  mode: "long" | "five" | "32" | "guest",
): { data: number; fetch: number } {
  const chance = new Chance(seed);
  const taken = { data: 0, fetch: 0 };
  const wasm = wasmSide(make(), taken), plain = typescriptSide(make());
  const sides = [wasm, plain];
  const each = (action: (bench: Bench) => void) => sides.forEach((side) => action(side.bench));
  const linears = mode === "32" ? [0x40_0000n, 0x40_1000n, 0x80_0000n, 0xffff_f000n, 0x4020_0000n] : LINEARS;
  /** Addresses of all entries made. */
  const entries: number[] = [];
  const setMode = () => {
    const cr0 = 1 | CR0_PG | (chance.one(3) ? 0 : CR0_WP);
    let cr4 = mode === "32" ? (chance.one(4) ? 0 : CR4_PSE) : CR4_PAE | (mode === "five" ? CR4_LA57 : 0);
    for (const bit of [CR4_PGE, CR4_SMEP, CR4_SMAP, CR4_PKE]) if (chance.one(3)) cr4 |= bit;
    const efer = (mode === "32" ? 0 : EFER_LMA) | (chance.one(6) ? 0 : EFER_NXE);
    const cpl = chance.one(2) ? 3 : 0, ac = chance.one(3) ? RFLAGS.AC : 0;
    const pkru = chance.one(2) ? 0 : chance.below(16);
    each((bench) => {
      bench.cpu.set32(S.CR0, cr0);
      bench.cpu.set32(S.CR4, cr4);
      bench.cpu.set32(S.EFER, efer);
      bench.cpu.set32(S.RFLAGS, 2 | ac);
      bench.cpu.set32(S.PKRU, pkru);
      bench.cpl(cpl);
      bench.update();
    });
  };
  const leafBits = (): bigint => {
    let bits = BigInt(chance.pick([7, 7, 7, 3, 5, 1, 0, 7]));
    if (chance.one(2)) bits |= 0x20n;
    if (chance.one(2)) bits |= 0x40n;
    if (chance.one(3)) bits |= 0x100n;
    if (mode !== "32") {
      if (chance.one(4)) bits |= 1n << 63n;
      if (chance.one(12)) bits |= 1n << 51n;
      if (chance.one(4)) bits |= BigInt(chance.below(2)) << 59n;
    }
    return bits;
  };
  setMode();
  const map = () => {
    const linear = chance.pick(linears), bits = leafBits();
    const level = chance.pick(mode === "32" ? [1, 1, 2] : [1, 1, 1, 2, 3]);
    // Large pages lie over page 0; 200000H is a page of RAM in all.
    const physical = level > 1 ? (chance.one(12) ? 0x2000 : 0) : 0x20_0000 + chance.below(8) * 4096;
    if (entries.length < 160) {
      each((bench) => {
        if (mode !== "32" && !leadsToTables(bench, linear, mode === "five" ? 5 : 4, level)) return;
        const made = mode === "32"
          ? map32(bench, linear, physical, Number(bits), level)
          : bench instanceof GuestBench
          ? bench.guestMap(linear & 0xffff_ffff_ffffn, bench.gpa(physical), bits, level)
          : bench.map(
            linear & (mode === "five" ? 0x1ff_ffff_ffff_ffffn : 0xffff_ffff_ffffn),
            physical,
            bits,
            level,
          );
        if (bench === wasm.bench) entries.push(...made.filter((at) => at !== undefined));
      });
    }
  };
  for (let i = 0; i < 6; i++) map();
  for (let n = 0; n < 400; n++) {
    const what = chance.below(24);
    if (what === 0) setMode();
    else if (what === 1) map();
    else if (what === 2) {
      const at = chance.pick(entries), bit = chance.pick([1, 2, 4, 0x20, 0x40, 0x80, 0x100]);
      each((bench) => bench.poke32(at, bench.peek32(at) ^ bit));
    } else if (what === 3) {
      const linear = chance.pick(linears);
      each((bench) => bench.invlpg(linear));
    } else if (what === 4) {
      const all = chance.one(2);
      each((bench) => all ? bench.access.tlb.flushAll() : bench.access.tlb.flushNonGlobal());
    } else if (what === 5) {
      const page = (0x20_0000 >>> 12) + chance.below(8);
      const flag = chance.pick([PAGE_CODE, PAGE_ROM, PAGE_WATCH, 0]);
      const table = chance.one(4) ? 0 : SLOTS;
      each((bench) => {
        const { memory } = bench;
        memory.u8[PAGE_FLAGS_BASE + page] = 1 | flag;
        for (const mode of [1, 2]) {
          memory.u32[(CODE_TABLES_BASE + mode * CODE_TABLES_STRIDE + page * 4) >>> 2] = table;
        }
        bench.access.tlb.flushFastBanks();
      });
    } else {
      const linear = chance.pick(linears) + BigInt(chance.below(4096));
      const kind = chance.pick(["load", "load", "store", "rmw", "fetch"] as const);
      const bytes = chance.pick([1, 2, 4, 8, 16, 10]);
      const word = chance.below(0x1_0000);
      const results = sides.map((side) => {
        side.bench.memory.i32[(side.bench.cpu.base + S.SPILL) >>> 2] = word;
        if (kind === "fetch") return side.fetch(linear);
        const result = side.data(kind, linear, bytes);
        side.bench.access.spillFlush();
        return result;
      });
      assertEquals(
        results[0],
        results[1],
        `seed ${seed}, step ${n}: ${kind} of ${bytes} at ${linear.toString(16)}`,
      );
    }
    if (n % 100 === 99) assertSameMemory(wasm.bench, plain.bench, `seed ${seed}, step ${n}`);
  }
  return taken;
}

/** Whether the entries above `level` that are present lead to tables in RAM. */
function leadsToTables(bench: Bench, linear: bigint, from: number, level: number): boolean {
  let table = bench.root;
  for (let l = from; l > level; l--) {
    const at = table + Number((linear >> BigInt(3 + 9 * l)) & 511n) * 8, entry = bench.peek64(at);
    if (!(entry & 1n)) return true;
    const offset = bench instanceof GuestBench ? bench.offset : 0n;
    const next = (entry & 0xf_ffff_ffff_f000n) - offset;
    if (next < 0n || next >= BigInt(bench.memory.ramBytes)) return false;
    table = Number(next);
  }
  return true;
}

/** Maps a page in tables of 4-byte entries. */
function map32(bench: Bench, linear: bigint, physical: number, bits: number, level: number): number[] {
  const directory = bench.root + Number(linear >> 22n) * 4;
  if (level === 2) {
    bench.poke32(directory, (physical & ~0x3f_ffff) | bits | 0x80);
    return [directory];
  }
  if (!(bench.peek32(directory) & 1) || bench.peek32(directory) & 0x80) {
    bench.poke32(directory, bench.page() | 7);
  }
  const at = (bench.peek32(directory) & ~0xfff) + Number((linear >> 12n) & 0x3ffn) * 4;
  bench.poke32(at, physical | bits);
  return [directory, at];
}

function withSlots<T extends Bench>(bench: T): T {
  for (let page = 0; page < 0x400; page++) {
    for (const mode of [1, 2]) {
      bench.memory.u32[(CODE_TABLES_BASE + mode * CODE_TABLES_STRIDE + page * 4) >>> 2] = SLOTS;
    }
  }
  for (let i = 0; i < 4096; i++) bench.memory.u32[(SLOTS >>> 2) + i] = i % 5 === 0 ? 0 : SLOTS + i * 32;
  return bench;
}

describe("walks in wasm are those in TypeScript", () => {
  for (const mode of ["long", "five", "32"] as const) {
    it(`${mode} paging`, () => {
      const taken = { data: 0, fetch: 0 };
      for (let seed = 1; seed <= 40; seed++) {
        const { data, fetch } = run(seed, () => {
          const bench = withSlots(new Bench({ model: cpuModels["icelake"]! }));
          if (mode === "32") {
            bench.protectedMode(false);
            bench.segment(SEG.CS, 0n, 0xffff_ffff, 0xc09b);
          }
          if (mode === "five") bench.fiveLevel();
          return bench;
        }, mode);
        taken.data += data;
        taken.fetch += fetch;
      }
      // The test means nothing unless wasm does a good part of it.
      assert(taken.data > 500, `only ${taken.data} walks in wasm`);
      assert(taken.fetch > 100, `only ${taken.fetch} fetches in wasm`);
    });
  }

  for (const ad of [false, true]) {
    it(`two dimensions, accessed and dirty flags for EPT ${ad ? "on" : "off"}`, () => {
      const taken = { data: 0, fetch: 0 };
      for (let seed = 101; seed <= 130; seed++) {
        const chance = new Chance(seed);
        const holes = Array.from(
          { length: 3 },
          () => [chance.below(0x3c0), chance.pick([0x30n, 0x35n, 0x33n, 0x37n])] as const,
        );
        const { data, fetch } = run(seed, () => {
          const bench = withSlots(new GuestBench({ model: cpuModels["icelake"]!, offset: 0x4000_0000n, ad }));
          for (const [page, bits] of holes) {
            const at = 0x10_000 + page * 4096;
            bench.eptMap(bench.gpa(at), at, bits);
          }
          bench.enter();
          return bench;
        }, "guest");
        taken.data += data;
        taken.fetch += fetch;
      }
      assert(taken.data > 300, `only ${taken.data} walks in wasm`);
      assert(taken.fetch > 50, `only ${taken.fetch} fetches in wasm`);
    });
  }

  it("leave an access to TypeScript while somebody listens to walks", () => {
    const bench = new Bench();
    bench.map(0x40_0000n, 0x20_0000, 7n);
    const taken = { data: 0, fetch: 0 };
    const side = wasmSide(bench, taken);
    let walks = 0;
    const end = bench.cpu.trace.on(["walk"], () => walks++);
    side.data("load", 0x40_0000n, 8);
    assertEquals([walks, taken.data], [1, 0]);
    end();
    bench.invlpg(0x40_0000n);
    side.data("load", 0x40_0000n, 8);
    assertEquals([walks, taken.data], [1, 1]);
  });
});
