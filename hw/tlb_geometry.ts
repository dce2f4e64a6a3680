/**
 * A TLB with the sets and ways of a named processor: first-level TLBs for instructions and data, a shared second level, and
 * paging-structure caches; replacement is least-recently-used everywhere, so that a run repeats exactly.
 *
 * Sizes come from Intel's optimisation manual and CPUID leaf 2 as collected in the project's notes on paging costs; those of
 * the paging-structure caches from measurements (van Schaik et al., "Reverse engineering hardware page table caches", 2017).
 * Deviation: real replacement is an approximation of LRU that differs by model; threads don't share here.
 *
 * A page whose size a first-level TLB has no place for is kept there in pieces of the largest size that it has; INVLPG removes
 * all pieces of the page.
 *
 * Guest-physical mappings (made of EPT alone) have a small array of their own, the "nested TLB" of Bhargava et al. (ASPLOS 2008), and
 * EPT paging-structure caches. Intel has published no sizes for them; those of the Intel models here are assumptions that the
 * published averages do not contradict.
 *
 * Room: `hw/`; imports tlb_rules.ts, and cpu.ts by its type.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import {
  type GuestPhysicalEntry,
  type GuestPhysicalStore,
  type GuestPhysicalStructure,
  sameRegion,
  type Selection,
  selectsEntry,
  selectsGuestPhysical,
  selectsStructure,
  type StructureEntry,
  structureShift,
  type TlbContext,
  type TlbEntry,
  type TlbStore,
} from "./tlb_rules.ts";

/** One set-associative array. */
export interface TlbArrayShape {
  /** Entries read, root first. */
  readonly entries: number;
  /** Equal to `entries` when fully associative. */
  readonly ways: number;
  /** log2 of the page sizes that it holds: 12, 21 (and 22, 4-MiB pages), 30. */
  readonly shifts: readonly number[];
}

/** The translation caches of a processor. */
export interface TlbGeometry {
  /** The SDM's name of an entry of this level. */
  readonly name: string;
  /** First level, instructions. */
  readonly instruction: readonly TlbArrayShape[];
  /** First level, data. */
  readonly data: readonly TlbArrayShape[];
  /** Second level, for both; a page of a size that no array has is not kept. */
  readonly second: readonly TlbArrayShape[];
  /** Entries of the paging-structure caches: PDE cache, PDPTE cache, PML4E cache, PML5E cache; 0 for none. */
  readonly structures: readonly [pde: number, pdpte: number, pml4e: number, pml5e: number];
  /** Caches of guest-physical mappings; none when left out. */
  readonly nested?: NestedGeometry;
}

/** Caches of guest-physical mappings. */
export interface NestedGeometry {
  /** Entries of the nested TLB (guest-physical page to host-physical page), fully associative, any page size. */
  readonly pages: number;
  /** Entries of the EPT paging-structure caches, as {@link TlbGeometry.structures}. */
  readonly structures: readonly [pde: number, pdpte: number, pml4e: number, pml5e: number];
  /**
   * What a combined paging-structure entry holds of its table: the host-physical address, as the SDM has it, or the guest-physical one, as in
   * the page-walk cache of Bhargava et al.
   */
  readonly combined: "host" | "guest";
}

/** What the Intel models are taken to have. */
const NESTED: NestedGeometry = { pages: 16, structures: [16, 4, 1, 1], combined: "host" };

const SMALL = [12], LARGE = [21, 22], HUGE = [30];

function array(entries: number, ways: number, shifts: readonly number[]): TlbArrayShape {
  return { entries, ways, shifts };
}

/** The geometries by name; the CPU models of cpuid.ts have theirs under their own names. */
export const GEOMETRIES: Readonly<Record<string, TlbGeometry>> = {
  penryn: {
    name: "penryn",
    instruction: [array(128, 4, SMALL), array(8, 4, LARGE)],
    data: [array(16, 4, SMALL), array(16, 4, LARGE)],
    second: [array(256, 4, SMALL), array(32, 4, LARGE)],
    structures: [32, 4, 1, 0],
  },
  nehalem: {
    name: "nehalem",
    instruction: [array(64, 4, SMALL), array(7, 7, LARGE)],
    data: [array(64, 4, SMALL), array(32, 4, LARGE)],
    second: [array(512, 4, SMALL)],
    structures: [32, 4, 1, 0],
    nested: NESTED,
  },
  haswell: {
    name: "haswell",
    instruction: [array(128, 4, SMALL), array(8, 8, LARGE)],
    data: [array(64, 4, SMALL), array(32, 4, LARGE), array(4, 4, HUGE)],
    second: [array(1024, 8, [...SMALL, ...LARGE])],
    structures: [32, 4, 2, 0],
    nested: NESTED,
  },
  broadwell: {
    name: "broadwell",
    instruction: [array(128, 4, SMALL), array(8, 8, LARGE)],
    data: [array(64, 4, SMALL), array(32, 4, LARGE), array(4, 4, HUGE)],
    second: [array(1536, 6, [...SMALL, ...LARGE]), array(16, 4, HUGE)],
    structures: [32, 4, 2, 0],
    nested: NESTED,
  },
  skylake: {
    name: "skylake",
    instruction: [array(128, 8, SMALL), array(8, 8, LARGE)],
    data: [array(64, 4, SMALL), array(32, 4, LARGE), array(4, 4, HUGE)],
    second: [array(1536, 12, [...SMALL, ...LARGE]), array(16, 4, HUGE)],
    structures: [32, 4, 2, 0],
    nested: NESTED,
  },
  icelake: {
    name: "icelake",
    instruction: [array(128, 8, SMALL), array(8, 8, LARGE)],
    data: [array(64, 4, SMALL), array(32, 4, LARGE), array(8, 8, HUGE)],
    second: [array(1024, 8, [...SMALL, ...LARGE]), array(1024, 8, [...SMALL, ...HUGE])],
    structures: [32, 4, 2, 1],
    nested: NESTED,
  },
  none: {
    name: "none",
    instruction: [],
    data: [],
    second: [],
    structures: [0, 0, 0, 0],
  },
};

/** A set-associative array of entries with exact LRU. */
class LruArray {
  readonly shifts: readonly number[];
  readonly #sets: number;
  readonly #ways: number;
  readonly #slots: (TlbEntry | undefined)[];
  readonly #used: Float64Array;
  #clock = 0;

  constructor(shape: TlbArrayShape) {
    this.shifts = shape.shifts;
    this.#ways = shape.ways;
    this.#sets = Math.floor(shape.entries / shape.ways);
    this.#slots = Array.from({ length: this.#sets * this.#ways }, () => undefined);
    this.#used = new Float64Array(this.#sets * this.#ways);
  }

  find(low: number, high: number, context: Readonly<TlbContext>): TlbEntry | undefined {
    for (const shift of this.shifts) {
      const from = this.#set(low, high, shift);
      for (let i = from; i < from + this.#ways; i++) {
        const e = this.#slots[i];
        if (
          e !== undefined && e.shift === shift && sameRegion(low, high, e.low, e.high, shift) &&
          (e.global || e.pcid === context.pcid) && e.vpid === context.vpid && e.ep4ta === context.ep4ta
        ) {
          this.#used[i] = ++this.#clock;
          return e;
        }
      }
    }
    return undefined;
  }

  insert(entry: TlbEntry): void {
    const from = this.#set(entry.low, entry.high, entry.shift);
    let victim = from;
    for (let i = from; i < from + this.#ways; i++) {
      const e = this.#slots[i];
      if (
        e === undefined ||
        (e.shift === entry.shift && sameRegion(entry.low, entry.high, e.low, e.high, e.shift) &&
          (e.global || entry.global || e.pcid === entry.pcid) && e.vpid === entry.vpid &&
          e.ep4ta === entry.ep4ta)
      ) {
        victim = i;
        break;
      }
      if (this.#used[i]! < this.#used[victim]!) victim = i;
    }
    this.#slots[victim] = entry;
    this.#used[victim] = ++this.#clock;
  }

  drop(selection: Selection, dropped: Set<TlbEntry>): void {
    for (let i = 0; i < this.#slots.length; i++) {
      const e = this.#slots[i];
      if (e === undefined || !selectsEntry(selection, e)) continue;
      this.#slots[i] = undefined;
      this.#used[i] = 0;
      dropped.add(e);
    }
  }

  entries(): TlbEntry[] {
    return this.#slots.filter((e) => e !== undefined);
  }

  #set(low: number, high: number, shift: number): number {
    if (this.#sets === 1) return 0;
    const page = (high >>> 0) * 2 ** (32 - shift) + ((low >>> 0) >>> shift);
    return (page % this.#sets) * this.#ways;
  }
}

/** The modelled TLB of the `geometry` choice. Every access goes through it: nothing bypasses it. */
export class GeometryStore implements TlbStore {
  readonly bypass = false;
  readonly combinedHoldHost: boolean;
  readonly guestPhysical: GuestPhysicalStore;
  /** The sizes. */
  readonly geometry: TlbGeometry;
  readonly #cpu: Cpu;
  readonly #instruction: readonly LruArray[];
  readonly #data: readonly LruArray[];
  readonly #second: readonly LruArray[];
  /** By level that the entries lead to (1 … 4): most recently used first. */
  readonly #structures: StructureEntry[][] = [[], [], [], [], []];

  /** @param cpu Whose counters count. */
  constructor(cpu: Cpu, geometry: TlbGeometry) {
    this.#cpu = cpu;
    this.geometry = geometry;
    const { nested } = geometry;
    this.combinedHoldHost = nested?.combined !== "guest";
    this.guestPhysical = new GeometryGuestPhysical(nested?.pages ?? 0, nested?.structures ?? [0, 0, 0, 0]);
    this.#instruction = geometry.instruction.map((shape) => new LruArray(shape));
    this.#data = geometry.data.map((shape) => new LruArray(shape));
    this.#second = geometry.second.map((shape) => new LruArray(shape));
  }

  /** The entry that translates an address, if there is one. */
  find(low: number, high: number, context: Readonly<TlbContext>, fetch: boolean): TlbEntry | undefined {
    const first = fetch ? this.#instruction : this.#data;
    for (const arrays of first) {
      const found = arrays.find(low, high, context);
      if (found !== undefined) {
        this.#cpu.counters.firstLevelHits++;
        return found;
      }
    }
    for (const arrays of this.#second) {
      const found = arrays.find(low, high, context);
      if (found !== undefined) {
        this.#cpu.counters.secondLevelHits++;
        insertFirst(first, found, low);
        return found;
      }
    }
    return undefined;
  }

  insert(entry: TlbEntry, fetch: boolean, low: number): void {
    insertFirst(fetch ? this.#instruction : this.#data, entry, low);
    for (const arrays of this.#second) {
      if (arrays.shifts.includes(entry.shift)) {
        arrays.insert(entry);
        return;
      }
    }
  }

  findStructure(low: number, high: number, context: Readonly<TlbContext>): StructureEntry | undefined {
    const { vpid, pcid, ep4ta } = context;
    for (let level = 1; level <= 4; level++) {
      const found = takeFirst(
        this.#structures[level]!,
        (e) =>
          e.pcid === pcid && e.vpid === vpid && e.ep4ta === ep4ta &&
          sameRegion(low, high, e.low, e.high, structureShift(level)),
      );
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Takes in a paging-structure entry. */
  insertStructure(entry: StructureEntry): void {
    const list = this.#structures[entry.level]!;
    const most = this.geometry.structures[entry.level - 1]!;
    putFirst(
      list,
      entry,
      most,
      (e) =>
        e.pcid === entry.pcid && e.vpid === entry.vpid && e.ep4ta === entry.ep4ta &&
        sameRegion(entry.low, entry.high, e.low, e.high, structureShift(e.level)),
    );
  }

  drop(selection: Selection): number {
    const dropped = new Set<TlbEntry>();
    for (const arrays of [...this.#instruction, ...this.#data, ...this.#second]) {
      arrays.drop(selection, dropped);
    }
    this.#structures.forEach((list, level) => {
      this.#structures[level] = list.filter((e) => !selectsStructure(selection, e));
    });
    return dropped.size;
  }

  entries(): readonly TlbEntry[] {
    return [
      ...new Set(
        [...this.#instruction, ...this.#data, ...this.#second].flatMap((arrays) => arrays.entries()),
      ),
    ];
  }

  structures(): readonly StructureEntry[] {
    return this.#structures.flat();
  }
}

/** Guest-physical mappings in lists of fixed lengths, most recently used first. */
class GeometryGuestPhysical implements GuestPhysicalStore {
  readonly #most: number;
  readonly #mostStructures: readonly number[];
  #pages: GuestPhysicalEntry[] = [];
  /** By level that the entries lead to (1 … 4). */
  readonly #structures: GuestPhysicalStructure[][] = [[], [], [], [], []];

  constructor(pages: number, structures: readonly number[]) {
    this.#most = pages;
    this.#mostStructures = structures;
  }

  find(low: number, high: number, ep4ta: number): GuestPhysicalEntry | undefined {
    return takeFirst(
      this.#pages,
      (e) => e.ep4ta === ep4ta && sameRegion(low, high, e.low, e.high, e.shift),
    );
  }

  insert(entry: GuestPhysicalEntry): void {
    putFirst(
      this.#pages,
      entry,
      this.#most,
      (e) =>
        e.ep4ta === entry.ep4ta && e.shift === entry.shift &&
        sameRegion(entry.low, entry.high, e.low, e.high, e.shift),
    );
  }

  findStructure(low: number, high: number, ep4ta: number): GuestPhysicalStructure | undefined {
    for (let level = 1; level <= 4; level++) {
      const found = takeFirst(
        this.#structures[level]!,
        (e) => e.ep4ta === ep4ta && sameRegion(low, high, e.low, e.high, structureShift(level)),
      );
      if (found !== undefined) return found;
    }
    return undefined;
  }

  insertStructure(entry: GuestPhysicalStructure): void {
    putFirst(
      this.#structures[entry.level]!,
      entry,
      this.#mostStructures[entry.level - 1]!,
      (e) =>
        e.ep4ta === entry.ep4ta &&
        sameRegion(entry.low, entry.high, e.low, e.high, structureShift(e.level)),
    );
  }

  drop(selection: Selection): number {
    if (selection.rule.guestPhysical === "none") return 0;
    const before = this.#pages.length;
    this.#pages = this.#pages.filter((e) =>
      !selectsGuestPhysical(selection, e.ep4ta, e.low, e.high, e.shift)
    );
    this.#structures.forEach((list, level) => {
      this.#structures[level] = list.filter((e) =>
        !selectsGuestPhysical(selection, e.ep4ta, e.low, e.high, structureShift(e.level))
      );
    });
    return before - this.#pages.length;
  }

  entries(): readonly GuestPhysicalEntry[] {
    return [...this.#pages];
  }

  structures(): readonly GuestPhysicalStructure[] {
    return this.#structures.flat();
  }
}

/** The first of the list that fits, moved to the front. */
function takeFirst<T>(list: T[], fits: (item: T) => boolean): T | undefined {
  const i = list.findIndex(fits);
  if (i < 0) return undefined;
  const found = list[i]!;
  if (i > 0) {
    list.copyWithin(1, 0, i);
    list[0] = found;
  }
  return found;
}

/** Puts an item in front, in place of the one that is the same; the last goes when there are too many. */
function putFirst<T>(list: T[], item: T, most: number, same: (item: T) => boolean): void {
  const i = list.findIndex(same);
  if (i >= 0) list.splice(i, 1);
  list.unshift(item);
  if (list.length > most) list.length = most;
}

/** Puts an entry, or the piece of it that holds the linear address with low half `low`, in the array for its size. */
function insertFirst(arrays: readonly LruArray[], entry: TlbEntry, low: number): void {
  let best: LruArray | undefined, bestShift = 0;
  for (const candidate of arrays) {
    for (const shift of candidate.shifts) {
      // 4-MiB pages are those of 32-bit paging: nothing else comes in such pieces.
      if (shift > bestShift && (shift === entry.shift || (shift < entry.shift && shift !== 22))) {
        best = candidate;
        bestShift = shift;
      }
    }
  }
  if (best === undefined) return;
  best.insert(bestShift === entry.shift ? entry : piece(entry, low, bestShift));
}

/** The piece of size 2^shift of a larger page. */
function piece(entry: TlbEntry, low: number, shift: number): TlbEntry {
  const start = low & (-1 << shift);
  const skipped = (start - entry.low) >>> 0;
  const guest = entry.guest && { ...entry.guest, physical: entry.guest.physical + skipped };
  return { ...entry, low: start, base: entry.base + skipped, shift, guest };
}
