/**
 * The sticky TLB: keeps every linear mapping and every paging-structure entry until an operation must remove it. It is the worst
 * hardware that the SDM allows, and so the best at finding invalidations that are missing. Unlimited, and exact about PCIDs and
 * global pages.
 *
 * Where it holds pages of several sizes for one address (software changed the size without invalidating), the smallest answers.
 *
 * Room: `hw/`; imports tlb_rules.ts.
 *
 * @module
 */
import {
  type Selection,
  type StructureEntry,
  structureShift,
  type TlbEntry,
  type TlbStore,
} from "./tlb_rules.ts";

/** Page sizes, smallest first. */
const SHIFTS = [12, 21, 22, 30] as const;
const LEVELS = [1, 2, 3, 4] as const;

/** Entries of one PCID (or the global ones): a map by page number for each size or level. */
class Space<T> {
  readonly maps: readonly Map<number, T>[];
  constructor(kinds: readonly unknown[]) {
    this.maps = kinds.map(() => new Map<number, T>());
  }
  /** Empties all; returns how many there were. */
  clear(): number {
    let dropped = 0;
    for (const map of this.maps) {
      dropped += map.size;
      map.clear();
    }
    return dropped;
  }
}

/** An unlimited TLB and unlimited paging-structure caches. */
export class StickyStore implements TlbStore {
  readonly bypass = true;
  readonly #spaces = new Map<number, Space<TlbEntry>>();
  readonly #globals = new Space<TlbEntry>(SHIFTS);
  readonly #structures = new Map<number, Space<StructureEntry>>();

  /** The entry that translates an address, if there is one. */
  find(low: number, high: number, pcid: number): TlbEntry | undefined {
    const own = this.#spaces.get(pcid);
    return (own === undefined ? undefined : findIn(own, low, high)) ?? findIn(this.#globals, low, high);
  }

  insert(entry: TlbEntry): void {
    const space = entry.global ? this.#globals : spaceOf(this.#spaces, entry.pcid, SHIFTS);
    const kind = SHIFTS.indexOf(entry.shift as typeof SHIFTS[number]);
    space.maps[kind]!.set(regionNumber(entry.low, entry.high, entry.shift), entry);
  }

  findStructure(low: number, high: number, pcid: number): StructureEntry | undefined {
    const space = this.#structures.get(pcid);
    if (space === undefined) return undefined;
    for (const level of LEVELS) {
      const map = space.maps[level - 1]!;
      const found = map.size === 0 ? undefined : map.get(regionNumber(low, high, structureShift(level)));
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Takes in a paging-structure entry. */
  insertStructure(entry: StructureEntry): void {
    const space = spaceOf(this.#structures, entry.pcid, LEVELS);
    space.maps[entry.level - 1]!.set(regionNumber(entry.low, entry.high, structureShift(entry.level)), entry);
  }

  drop(selection: Selection): number {
    const { rule, pcid, low, high } = selection;
    let dropped = 0;
    const dropFrom = (space: Space<TlbEntry>) => {
      if (rule.pages === "all") dropped += space.clear();
      else {
        SHIFTS.forEach((shift, kind) => {
          if (space.maps[kind]!.delete(regionNumber(low, high, shift))) dropped++;
        });
      }
    };
    for (const [owner, space] of this.#spaces) if (pcid < 0 || owner === pcid) dropFrom(space);
    if (rule.globals) dropFrom(this.#globals);
    for (const [owner, space] of this.#structures) {
      if (pcid >= 0 && owner !== pcid) continue;
      if (rule.structures === "all") space.clear();
      else {for (const level of LEVELS) {
          space.maps[level - 1]!.delete(regionNumber(low, high, structureShift(level)));
        }}
    }
    return dropped;
  }

  entries(): readonly TlbEntry[] {
    const spaces = [...[...this.#spaces].sort(([a], [b]) => a - b).map(([, space]) => space), this.#globals];
    return spaces.flatMap((space) => space.maps.flatMap((map) => [...map.values()]));
  }

  structures(): readonly StructureEntry[] {
    return [...this.#structures].sort(([a], [b]) => a - b)
      .flatMap(([, space]) => space.maps.flatMap((map) => [...map.values()]));
  }
}

function findIn(space: Space<TlbEntry>, low: number, high: number): TlbEntry | undefined {
  for (let kind = 0; kind < 4; kind++) {
    const map = space.maps[kind]!;
    if (map.size === 0) continue;
    const found = map.get(regionNumber(low, high, SHIFTS[kind]!));
    if (found !== undefined) return found;
  }
  return undefined;
}

function spaceOf<T>(spaces: Map<number, Space<T>>, pcid: number, kinds: readonly unknown[]): Space<T> {
  let space = spaces.get(pcid);
  if (space === undefined) spaces.set(pcid, space = new Space<T>(kinds));
  return space;
}

/** Number of the region of size 2^shift that holds a linear address; exact, below 2^52. */
function regionNumber(low: number, high: number, shift: number): number {
  if (shift >= 32) return (high >>> 0) >>> (shift - 32);
  return (high >>> 0) * 2 ** (32 - shift) + ((low >>> 0) >>> shift);
}
