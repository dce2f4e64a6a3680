/**
 * Every combination of permission bits, levels, kinds of access, flags and control bits, in one and in two dimensions, against the plain
 * model of ept_model.ts: the outcome, the exit qualification, the guest-physical address, and every flag in every entry.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { EptFeatures } from "../../hw/ept_format.ts";
import { explainWalk } from "../../hw/explain_walk.ts";
import { GuestPhysicalTranslator } from "../../hw/ept_translate.ts";
import {
  ACCESS,
  CR0_WP,
  CR4_LA57,
  CR4_SMEP,
  EFER_LMA,
  EFER_NXE,
  REFUSED_BY_EPT,
  Walker,
} from "../../hw/paging.ts";
import { RAM_BASE, S } from "../../hw/state.ts";
import { PROC2 } from "../../hw/vmx/contract.ts";
import { GuestBench, type GuestOptions, RWX, WB } from "./ept_fixture.ts";
import { type ModelAccess, type ModelOutcome, type ModelState, translate } from "./ept_model.ts";

const FEATURES: EptFeatures = {
  maxPhysicalBits: 46,
  executeOnly: true,
  fiveLevel: true,
  largePages: true,
  hugePages: true,
  accessedDirty: true,
  advancedInformation: true,
};
const NOTHING = 0xffff_ffff_ffff_ffffn;
const KINDS = ["read", "write", "fetch"] as const;
const both = [false, true];

/** A machine beside the model: entries are poked, both translate, and everything is compared. */
class Twins {
  readonly bench: GuestBench;
  readonly second: GuestPhysicalTranslator;
  readonly walker: Walker;
  readonly #features: EptFeatures;
  readonly #ad: boolean;
  readonly #levels: number;
  readonly #modeBased: boolean;
  /** Entries that a walk may touch: host addresses, and what stands there before each case. */
  readonly #watched = new Map<number, bigint>();
  /** Whether entries may lead anywhere: then what the model writes beside the watched entries is compared, too. */
  anywhere = false;
  cases = 0;
  readonly seen = new Map<string, number>();

  constructor(
    options: GuestOptions & { readonly ept?: Partial<EptFeatures>; readonly modeBased?: boolean } = {},
  ) {
    this.#features = { ...FEATURES, ...options.ept };
    this.#ad = options.ad ?? false;
    this.#levels = options.levels ?? 4;
    this.#modeBased = options.modeBased ?? false;
    const proc2 = this.#modeBased ? PROC2.MODE_BASED_EXECUTE : 0;
    this.bench = new GuestBench({ ...options, proc2, eptFeatures: this.#features });
    this.second = new GuestPhysicalTranslator(this.bench.cpu, this.#features, {});
    const { features } = this.bench.access;
    this.walker = new Walker(this.bench.cpu, features, {
      pure: false,
      storeSlow: () => {},
      second: this.second,
    });
  }

  /** Puts a value in an entry, from now on. */
  poke(at: number, value: bigint): void {
    this.bench.poke64(at & ~7, value);
    this.#watched.set(at & ~7, value);
  }
  /** Puts a value in a 4-byte entry. */
  poke32(at: number, value: number): void {
    this.bench.poke32(at, value);
    this.#watched.set(at & ~7, this.bench.peek64(at & ~7));
  }
  watch(entries: Iterable<number | undefined>): void {
    for (const at of entries) if (at !== undefined) this.#watched.set(at & ~7, this.bench.peek64(at & ~7));
  }
  /** Watches the EPT entries of a guest-physical address, as far as they are tables. */
  watchEpt(gpa: bigint, level = 1): void {
    for (let l = this.#levels; l >= level; l--) this.watch([this.bench.eptEntry(gpa, l)]);
  }

  state(smapApplies: boolean): ModelState {
    const { cpu } = this.bench;
    const cr0 = cpu.get32(S.CR0) | 0, cr4 = cpu.get32(S.CR4), efer = cpu.get32(S.EFER);
    return {
      paging: cr0 >= 0
        ? "none"
        : !(cr4 & 0x20)
        ? "32-bit"
        : !(efer & EFER_LMA)
        ? "PAE"
        : cr4 & CR4_LA57
        ? "5-level"
        : "4-level",
      cr3: cpu.get64(S.CR3),
      pdptes: [0, 1, 2, 3].map((i) => cpu.get64(S.PDPTE + i * 8)),
      wp: (cr0 & CR0_WP) !== 0,
      smep: (cr4 & CR4_SMEP) !== 0,
      smap: smapApplies,
      nxe: (efer & EFER_NXE) !== 0,
      maxPhysical: 46,
      ept: {
        root: BigInt(this.bench.eptRoot),
        levels: this.#levels,
        ad: this.#ad,
        modeBased: this.#modeBased,
        executeOnly: this.#features.executeOnly,
        advanced: this.#features.advancedInformation,
      },
    };
  }

  /** What `explainWalk` says of the access; it must change nothing. */
  #told(linear: bigint, access: ModelAccess, smap: boolean): ModelOutcome {
    const { outcome } = explainWalk(this.bench.cpu, linear, {
      write: access.kind === "write",
      fetch: access.kind === "fetch",
      user: access.user,
      smap,
    });
    switch (outcome.kind) {
      case "mapped":
        return { kind: "mapped", physical: BigInt(outcome.physical) };
      case "page fault":
        return { kind: "page fault", code: outcome.errorCode };
      case "EPT violation":
        return {
          kind: "violation",
          qualification: outcome.qualification,
          guestPhysical: BigInt(outcome.guestPhysical),
        };
      case "EPT misconfiguration":
        return { kind: "misconfiguration", guestPhysical: BigInt(outcome.guestPhysical) };
      case "not canonical":
        throw new Error("the addresses of this test are canonical");
    }
  }

  /** Carries out one case; entries are as they were afterwards. */
  compare(linear: bigint, access: ModelAccess, what: () => unknown, smapApplies = false): void {
    const { bench, walker, second } = this;
    const { u64 } = bench.memory;
    const overlay = new Map<bigint, bigint>();
    const want = translate(
      {
        // Outside RAM there is nothing: all ones.
        read: (at) => overlay.get(at) ?? u64[(RAM_BASE + Number(at)) / 8] ?? NOTHING,
        write: (at, value) => void overlay.set(at, value),
      },
      this.state(smapApplies),
      linear,
      access,
    );
    const bits = (access.user ? ACCESS.USER : smapApplies && access.kind !== "fetch" ? ACCESS.SMAP : 0) |
      (access.kind === "write" ? ACCESS.WRITE : access.kind === "fetch" ? ACCESS.FETCH : 0);
    if (this.cases % 5 === 0) {
      const told = this.#told(linear, access, smapApplies);
      if (!sameOutcome(told, want)) assertEquals(told, want, `explained: ${JSON.stringify(what())}`);
    }
    const strays = new Map<number, bigint>();
    if (this.anywhere) {
      for (const at of overlay.keys()) {
        if (!this.#watched.has(Number(at))) strays.set(Number(at), bench.peek64(Number(at)));
      }
    }
    const low = Number(linear & 0xffff_ffffn) | 0, high = Number(linear >> 32n) | 0;
    second.begin(low, high);
    const code = walker.walk(low, high, bits);
    let got: ModelOutcome;
    const gpa = (BigInt(second.gpaHigh >>> 0) << 32n) | BigInt(second.gpaLow >>> 0);
    if (code >= 0) got = { kind: "page fault", code };
    else if (code !== REFUSED_BY_EPT) {
      got = { kind: "mapped", physical: BigInt(walker.page) + (linear & 0xfffn) };
    } else if (second.reason === 49) got = { kind: "misconfiguration", guestPhysical: gpa };
    else {
      assertEquals(second.reason, 48);
      const qualification = second.qualification(true, walker.rights);
      got = { kind: "violation", qualification, guestPhysical: gpa };
    }
    if (!sameOutcome(got, want)) assertEquals(got, want, JSON.stringify(what()));
    for (const [at, before] of this.#watched) {
      const now = bench.peek64(at), expected = overlay.get(BigInt(at)) ?? before;
      if (now !== expected) {
        assertEquals(
          now.toString(16),
          expected.toString(16),
          `entry at ${at.toString(16)}: ${JSON.stringify(what())}`,
        );
      }
      if (now !== before) bench.poke64(at, before);
      overlay.delete(BigInt(at));
    }
    for (const [at, before] of strays) {
      assertEquals(
        bench.peek64(at),
        overlay.get(BigInt(at)),
        `entry at ${at.toString(16)}: ${JSON.stringify(what())}`,
      );
      bench.poke64(at, before);
      overlay.delete(BigInt(at));
    }
    assertEquals(overlay.size, 0, "the model touched an entry that is not watched");
    this.cases++;
    this.seen.set(want.kind, (this.seen.get(want.kind) ?? 0) + 1);
  }
}

function sameOutcome(a: ModelOutcome, b: ModelOutcome): boolean {
  if (a.kind !== b.kind) return false;
  switch (a.kind) {
    case "mapped":
      return a.physical === (b as typeof a).physical;
    case "page fault":
      return a.code === (b as typeof a).code;
    case "violation":
      return a.qualification === (b as typeof a).qualification &&
        a.guestPhysical === (b as typeof a).guestPhysical;
    default:
      return a.guestPhysical === (b as typeof a).guestPhysical;
  }
}

function* product(levels: number, values: readonly bigint[]): Generator<readonly bigint[]> {
  if (levels === 0) return yield [];
  for (const rest of product(levels - 1, values)) for (const value of values) yield [...rest, value];
}

const RIGHTS = [0n, 1n, 2n, 3n, 4n, 5n, 6n, 7n];

Deno.test("EPT alone: all rights at all levels, for each kind of access, page size, with and without A/D and execute-only", () => {
  let total = 0;
  for (const ad of both) {
    for (const executeOnly of both) {
      const twins = new Twins({
        ad,
        ept: { executeOnly, advancedInformation: executeOnly },
        offset: 0n,
      });
      const { bench } = twins;
      bench.enter();
      bench.pagingOff();
      for (const leaf of [1, 2, 3]) {
        const gpa = 0xc000_0000n + BigInt(leaf) * 0x4000_0000n & 0xffff_ffffn;
        const entries = bench.eptMap(gpa, 0, RWX | WB, leaf);
        twins.watch(entries);
        const values = entries.map((at) => at === undefined ? 0n : bench.peek64(at));
        // All four levels at once for 4-KiB pages; execute-only changes little below that.
        for (
          const rights of product(
            5 - leaf,
            leaf === 1 && executeOnly === ad ? RIGHTS : [0n, 1n, 2n, 3n, 4n, 7n],
          )
        ) {
          rights.forEach((r, i) => twins.poke(entries[4 - i]!, (values[4 - i]! & ~7n) | r));
          for (const kind of KINDS) {
            twins.compare(gpa + 0x123n, { kind, user: false }, () => ({ leaf, rights: rights.join(), kind }));
          }
        }
        for (let l = leaf; l <= 4; l++) twins.poke(entries[l]!, values[l]!);
      }
      total += twins.cases;
      for (const kind of ["mapped", "violation", "misconfiguration"]) {
        assert((twins.seen.get(kind) ?? 0) > 10, kind);
      }
    }
  }
  assert(total > 25_000, `${total}`);
});

Deno.test("EPT alone: every bit of an entry of every level that is not a right is reserved or ignored as the manual says", () => {
  for (const largePages of both) {
    for (const ad of both) {
      const twins = new Twins({ ad, offset: 0n });
      const { bench } = twins;
      bench.enter();
      bench.pagingOff();
      for (const leaf of largePages ? [1, 2, 3] : [1]) {
        const gpa = 0xc000_0000n + BigInt(leaf) * 0x4000_0000n & 0xffff_ffffn;
        const entries = bench.eptMap(gpa, 0, RWX | WB, leaf);
        twins.watch(entries);
        for (let level = leaf; level <= 4; level++) {
          const at = entries[level]!, value = bench.peek64(at);
          for (let n = 3; n < 64; n++) {
            // Address bits that exist lead elsewhere; PS of an upper entry makes another page of it: both are other cases.
            if (n >= 12 && n < 46 && (level > leaf || n >= 12 + 9 * (level - 1))) continue;
            if (n === 7 && level > leaf && level < 4) continue;
            twins.poke(at, value ^ (1n << BigInt(n)));
            for (const kind of KINDS) {
              twins.compare(gpa, { kind, user: false }, () => ({ leaf, level, n, kind }));
            }
          }
          for (let type = 0n; type < 8n; type++) {
            twins.poke(at, (value & ~0x38n) | (type << 3n));
            twins.compare(gpa, { kind: "read", user: false }, () => ({ leaf, level, type: Number(type) }));
          }
          twins.poke(at, value);
        }
      }
      assert(twins.seen.get("misconfiguration")! > 100);
    }
  }
});

/** Rights of the guest's path: one is missing at the leaf, at an upper level, or at none. */
const LACKING = [[], [1], [3]];

/** Sets the rights of a guest path in tables of 8-byte entries: the levels named lack them. */
function guestRights(
  twins: Twins,
  entries: readonly (number | undefined)[],
  clean: readonly bigint[],
  lacks: { readonly w: readonly number[]; readonly u: readonly number[]; readonly x: readonly number[] },
): void {
  entries.forEach((at, level) => {
    if (at === undefined) return;
    let value = clean[level]!;
    if (lacks.w.includes(level)) value &= ~2n;
    if (lacks.u.includes(level)) value &= ~4n;
    if (lacks.x.includes(level)) value |= 1n << 63n;
    twins.poke(at, value);
  });
}

Deno.test("two dimensions: guest rights, EPT rights of the page, kind of access, U/S, WP, SMEP, SMAP, NX, A/D, mode-based execute", () => {
  let total = 0;
  for (const ad of both) {
    for (const modeBased of both) {
      const twins = new Twins({ ad, modeBased });
      const { bench } = twins, { cpu } = bench;
      const linear = 0x7f12_3456_7000n, page = bench.gpa(0x20_0000);
      const entries = bench.guestMap(linear, page, 7n);
      const clean = entries.map((at) => at === undefined ? 0n : bench.peek64(at));
      bench.enter();
      twins.watch(entries);
      const leaf = bench.eptEntry(page), value = bench.peek64(leaf);
      twins.watchEpt(page);
      for (const at of entries) if (at !== undefined) twins.watchEpt(bench.gpa(at));
      const eptRights = modeBased ? [1n, 2n, 3n, 7n, 0x401n, 0x403n, 0x407n, 0x400n] : RIGHTS;
      for (const w of LACKING) {
        for (const u of LACKING) {
          for (const x of LACKING) {
            guestRights(twins, entries, clean, { w, u, x });
            for (let control = 0; control < 16; control++) {
              const nxe = (control & 8) !== 0, smap = (control & 4) !== 0;
              if (modeBased && w.length + x.length > 0 && control !== 15) continue;
              cpu.set32(S.CR0, (cpu.get32(S.CR0) & ~CR0_WP) | (control & 1 ? CR0_WP : 0));
              cpu.set32(S.CR4, (cpu.get32(S.CR4) & ~CR4_SMEP) | (control & 2 ? CR4_SMEP : 0));
              cpu.set32(S.EFER, EFER_LMA | (nxe ? EFER_NXE : 0));
              for (const kind of KINDS) {
                for (const user of both) {
                  for (const rights of eptRights) {
                    twins.poke(leaf, (value & ~0x407n) | rights);
                    const smapApplies = smap && !user && kind !== "fetch";
                    twins.compare(
                      linear + 0x21n,
                      { kind, user },
                      () => ({ w, u, x, control, kind, user, rights: Number(rights) }),
                      smapApplies,
                    );
                  }
                }
              }
            }
          }
        }
      }
      total += twins.cases;
      for (const kind of ["mapped", "page fault", "violation", "misconfiguration"]) {
        assert((twins.seen.get(kind) ?? 0) > 100, `${kind} ad ${ad} modeBased ${modeBased}`);
      }
    }
  }
  assert(total > 45_000, `${total}`);
});

Deno.test("two dimensions: EPT rights of the page of each guest table, the guest's own A and D flags, kind of access, page size, A/D", () => {
  for (const ad of both) {
    for (const leaf of [1, 2, 3]) {
      for (const guestRightsLack of [[], [leaf]]) {
        const twins = new Twins({ ad });
        const { bench } = twins;
        const linear = 0xffff_8123_4567_8000n;
        const page = leaf === 1 ? bench.gpa(0x20_0000) : leaf === 2 ? bench.gpa(0x20_0000) : bench.offset;
        const entries = bench.guestMap(linear, page, 7n, leaf);
        const clean = entries.map((at) => at === undefined ? 0n : bench.peek64(at));
        const inside = page + (linear & ((1n << BigInt(3 + 9 * leaf)) - 1n) & ~0xfffn);
        if (leaf > 1) bench.eptMap(inside, 0x20_0000, RWX | WB);
        bench.enter();
        twins.watch(entries);
        twins.watchEpt(inside);
        const tables = entries.map((at) => at === undefined ? undefined : bench.eptEntry(bench.gpa(at)));
        for (const at of entries) if (at !== undefined) twins.watchEpt(bench.gpa(at));
        for (let level = leaf; level <= 4; level++) {
          const table = tables[level]!, value = bench.peek64(table);
          for (const rights of [0n, 1n, 3n, 4n, 5n, 7n, 2n]) {
            twins.poke(table, (value & ~7n) | rights);
            // Each entry with A clear, all set, D set in the leaf, and all but one set.
            for (const flags of ["none", "A", "A and D", "all but this A", "all but the leaf's D"]) {
              guestRights(twins, entries, clean, { w: guestRightsLack, u: [], x: [] });
              for (let l = leaf; l <= 4; l++) {
                let set = 0n;
                if (flags !== "none" && !(flags === "all but this A" && l === level)) set = 0x20n;
                if (l === leaf && flags === "A and D") set |= 0x40n;
                twins.poke(entries[l]!, bench.peek64(entries[l]!) | set);
              }
              for (const kind of KINDS) {
                for (const user of both) {
                  twins.compare(
                    linear,
                    { kind, user },
                    () => ({ ad, leaf, level, rights: Number(rights), flags, kind, user }),
                  );
                }
              }
            }
          }
          twins.poke(table, value);
        }
        for (const kind of ["mapped", "violation", "misconfiguration"]) {
          assert((twins.seen.get(kind) ?? 0) > 5, kind);
        }
      }
    }
  }
});

/** The guest paging modes: how a bench gets there, the linear address, the levels that may map a page. */
const MODES: readonly {
  readonly name: string;
  readonly offset: bigint;
  readonly linear: bigint;
  readonly leaves: readonly number[];
  readonly levels?: 5;
  readonly set: (bench: GuestBench) => void;
}[] = [
  { name: "none", offset: 0x8000_0000n, linear: 0x8020_0000n, leaves: [0], set: (b) => b.pagingOff() },
  {
    name: "32-bit",
    offset: 0x8000_0000n,
    linear: 0xdead_b000n,
    leaves: [1, 2],
    set: (b) => b.protectedMode(false),
  },
  {
    name: "PAE",
    offset: 0x40_0000_0000n,
    linear: 0xdead_b000n,
    leaves: [1, 2],
    set: (b) => b.protectedMode(true),
  },
  { name: "4-level", offset: 0x40_0000_0000n, linear: 0x7fff_dead_b000n, leaves: [1, 2, 3], set: () => {} },
  {
    name: "5-level",
    offset: 0x40_0000_0000n,
    linear: 0xff12_7fff_dead_b000n,
    leaves: [1, 2, 3],
    set: (b) => b.fiveLevel(),
  },
];

Deno.test("two dimensions: every guest paging mode and page size over every EPT page size, 4- and 5-level EPT", () => {
  for (const mode of MODES) {
    for (const levels of [4, 5] as const) {
      for (const leaf of mode.leaves) {
        for (const eptLeaf of [1, 2, 3]) {
          for (const ad of both) {
            const twins = new Twins({ ad, levels, offset: mode.offset });
            const { bench } = twins;
            const root = bench.cpu.get64(S.CR3);
            bench.enter(bench.gpa(Number(root)));
            mode.set(bench);
            // Large EPT pages over what was mapped in small ones: all of the bench's memory lies in one of 1 GiB.
            const size = 1n << BigInt(3 + 9 * eptLeaf);
            for (let at = 0; eptLeaf > 1 && at < 0x40_0000; at += 0x20_0000) {
              bench.eptMap(bench.gpa(at) & ~(size - 1n), at & ~Number(size - 1n), RWX | WB, eptLeaf);
            }
            const guestSize = leaf === 0
              ? 0n
              : mode.name === "32-bit"
              ? (leaf === 2 ? 1n << 22n : 1n << 12n)
              : 1n << BigInt(3 + 9 * leaf);
            // Large guest pages begin where the bench's memory does; the byte that is asked for lies in it.
            const page = leaf <= 1 ? bench.gpa(0x20_0000) : bench.gpa(0);
            const linear = leaf === 0
              ? mode.linear
              : leaf === 1
              ? mode.linear
              : (mode.linear & ~(guestSize - 1n)) + 0x20_0000n % guestSize;
            const entries = leaf === 0 ? [] : bench.guestMap(linear, page, 7n, leaf);
            const gpa = leaf === 0 ? linear : leaf === 1 ? page : page + (linear & (guestSize - 1n));
            twins.watch(entries);
            for (const at of entries) if (at !== undefined) twins.watchEpt(bench.gpa(at), eptLeaf);
            twins.watchEpt(gpa, eptLeaf);
            const last = bench.eptEntry(gpa, eptLeaf), value = bench.peek64(last);
            for (const kind of KINDS) {
              for (const user of both) {
                const what = () => ({ mode: mode.name, levels, leaf, eptLeaf, ad, kind, user });
                twins.compare(linear + 0x10n, { kind, user }, what);
                if (eptLeaf > 1) continue;
                for (const rights of RIGHTS) {
                  twins.poke(last, (value & ~7n) | rights);
                  twins.compare(
                    linear + 0x10n,
                    { kind, user },
                    () => ({ ...what(), rights: Number(rights) }),
                  );
                }
                twins.poke(last, value);
              }
            }
            for (const [level, at] of entries.entries()) {
              if (at === undefined) continue;
              const wide = mode.name !== "32-bit";
              const old = wide ? bench.peek64(at) : BigInt(bench.peek32(at));
              const put = (v: bigint) => wide ? twins.poke(at, v) : twins.poke32(at, Number(v));
              for (
                const changed of [
                  old & ~1n,
                  old & ~2n,
                  old & ~4n,
                  wide ? old | (1n << 51n) : leaf === 2 ? old | 0x20_0000n : 0n,
                ]
              ) {
                put(changed);
                for (const kind of KINDS) {
                  twins.compare(
                    linear,
                    { kind, user: true },
                    () => ({ mode: mode.name, leaf, level, changed: `${changed}` }),
                  );
                }
              }
              put(old);
            }
            assert(twins.seen.get("mapped")! >= 6);
            if (eptLeaf === 1) assert(twins.seen.get("violation")! >= 6);
          }
        }
      }
    }
  }
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

Deno.test("two dimensions: random bits of random entries of both dimensions, in every guest paging mode", () => {
  const seen = new Map<string, number>();
  for (const mode of MODES.filter((m) => m.name !== "none")) {
    for (const ad of both) {
      for (const modeBased of both) {
        const next = generator(mode.name.length * 8 + (ad ? 2 : 0) + (modeBased ? 1 : 0));
        const twins = new Twins({ ad, modeBased, offset: mode.offset, ept: { executeOnly: modeBased } });
        twins.anywhere = true;
        const { bench } = twins, { cpu } = bench;
        const root = cpu.get64(S.CR3);
        bench.enter(bench.gpa(Number(root)));
        mode.set(bench);
        const page = bench.gpa(0x20_0000);
        const guest = bench.guestMap(mode.linear, page, 7n).filter((at) => at !== undefined);
        const ept = [...guest.map((at) => bench.gpa(at)), page].flatMap((gpa) =>
          [1, 2, 3, 4].map((level) => bench.eptEntry(gpa, level))
        );
        twins.watch(guest);
        twins.watch(ept);
        const wide = mode.name !== "32-bit";
        for (let n = 0; n < 2500; n++) {
          const changed: [number, bigint][] = [];
          for (let k = next(3); k >= 0; k--) {
            // The bits that mean something more often than the address.
            const inGuest = next(2) === 0, list = inGuest ? guest : ept;
            const at = list[next(list.length)]! & ~7;
            const draw = next(8);
            const bit = draw < 5 ? next(12) : draw === 5 ? 52 + next(12) : next(64);
            changed.push([at, bench.peek64(at)]);
            twins.poke(at, bench.peek64(at) ^ (1n << BigInt(!wide && inGuest ? bit % 32 : bit)));
          }
          const control = next(8), kind = KINDS[next(3)]!, user = next(2) === 0;
          cpu.set32(S.CR0, (cpu.get32(S.CR0) & ~CR0_WP) | (control & 1 ? CR0_WP : 0));
          cpu.set32(S.CR4, (cpu.get32(S.CR4) & ~CR4_SMEP) | (control & 2 ? CR4_SMEP : 0));
          if (wide) cpu.set32(S.EFER, (cpu.get32(S.EFER) & ~EFER_NXE) | (control & 4 ? EFER_NXE : 0));
          const smap = !user && kind !== "fetch" && next(4) === 0;
          twins.compare(mode.linear + 0x18n, { kind, user }, () => ({
            mode: mode.name,
            ad,
            modeBased,
            n,
            control,
            kind,
            user,
            changed: changed.map(([at, old]) =>
              `${at.toString(16)}: ${old.toString(16)} ${bench.peek64(at).toString(16)}`
            ),
          }), smap);
          for (const [at, old] of changed.reverse()) twins.poke(at, old);
        }
        for (const [kind, count] of twins.seen) seen.set(kind, (seen.get(kind) ?? 0) + count);
      }
    }
  }
  for (const kind of ["mapped", "page fault", "violation", "misconfiguration"]) {
    assert((seen.get(kind) ?? 0) > 2000, `${kind}: ${seen.get(kind)}`);
  }
});
