/**
 * The sticky TLB: keeps every mapping of the three kinds and every paging-structure entry until an operation must remove it. It is the
 * worst hardware that the SDM allows, and so the best at finding invalidations that are missing. Unlimited, and exact about VPIDs, PCIDs,
 * EP4TAs and global pages.
 *
 * Where it holds pages of several sizes for one address (software changed the size without invalidating), the smallest answers.
 *
 * Room: `hw/`; imports tlb_rules.ts.
 *
 * @module
 */
import {
  type GuestPhysicalEntry,
  type GuestPhysicalStore,
  type GuestPhysicalStructure,
  type Selection,
  selectsGuestPhysical,
  selectsOwner,
  selectsPage,
  type StructureEntry,
  structureShift,
  type TlbContext,
  type TlbEntry,
  type TlbStore,
} from "./tlb_rules.ts";

/** Page sizes, smallest first. */
const SHIFTS = [12, 21, 22, 30] as const;
const LEVELS = [1, 2, 3, 4] as const;

/** Entries of one PCID (or the global ones): a map by page number for each size or level. */
class Space<T> {
  readonly maps: readonly Map<number, T>[];
  /** Whether an entry may be a piece of a larger page: then INVLPG must look at all. */
  pieces = false;
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
    this.pieces = false;
    return dropped;
  }
}

/** What is held of one VPID and EP4TA. */
class Owner {
  readonly vpid: number;
  readonly ep4ta: number;
  readonly spaces = new Map<number, Space<TlbEntry>>();
  readonly globals = new Space<TlbEntry>(SHIFTS);
  readonly structures = new Map<number, Space<StructureEntry>>();
  constructor(vpid: number, ep4ta: number) {
    this.vpid = vpid;
    this.ep4ta = ep4ta;
  }
}

/** An unlimited TLB and unlimited paging-structure caches. */
export class StickyStore implements TlbStore {
  readonly bypass = true;
  readonly combinedHoldHost = true;
  readonly guestPhysical: StickyGuestPhysical = new StickyGuestPhysical();
  readonly #owners = new Map<number, Owner>();
  /** The owner that was asked for last. */
  #last: Owner = this.#own(0, -1);

  /** The entry that translates an address, if there is one. */
  find(low: number, high: number, context: Readonly<TlbContext>): TlbEntry | undefined {
    const owner = this.#owner(context);
    const own = owner.spaces.get(context.pcid);
    return (own === undefined ? undefined : findIn(own, low, high)) ?? findIn(owner.globals, low, high);
  }

  /** Takes in an entry. */
  insert(entry: TlbEntry): void {
    const owner = this.#owner(entry);
    const space = entry.global ? owner.globals : spaceOf(owner.spaces, entry.pcid, SHIFTS);
    const kind = SHIFTS.indexOf(entry.shift as typeof SHIFTS[number]);
    if (entry.shift !== entry.pageShift) space.pieces = true;
    space.maps[kind]!.set(regionNumber(entry.low, entry.high, entry.shift), entry);
  }

  findStructure(low: number, high: number, context: Readonly<TlbContext>): StructureEntry | undefined {
    const space = this.#owner(context).structures.get(context.pcid);
    return space === undefined ? undefined : findLevel(space, low, high);
  }

  /** Takes in a paging-structure entry. */
  insertStructure(entry: StructureEntry): void {
    const space = spaceOf(this.#owner(entry).structures, entry.pcid, LEVELS);
    space.maps[entry.level - 1]!.set(regionNumber(entry.low, entry.high, structureShift(entry.level)), entry);
  }

  drop(selection: Selection): number {
    const { rule, pcid } = selection;
    let dropped = 0;
    for (const owner of this.#owners.values()) {
      if (!selectsOwner(selection, owner.vpid, owner.ep4ta)) continue;
      for (const [own, space] of owner.spaces) {
        if (pcid < 0 || own === pcid) dropped += dropPages(space, selection);
      }
      if (rule.globals) dropped += dropPages(owner.globals, selection);
      if (rule.structures === "none") continue;
      for (const [own, space] of owner.structures) {
        if (pcid >= 0 && own !== pcid) continue;
        if (rule.structures === "all") space.clear();
        else {
          for (const level of LEVELS) {
            space.maps[level - 1]!.delete(
              regionNumber(selection.low, selection.high, structureShift(level)),
            );
          }
        }
      }
    }
    return dropped;
  }

  entries(): readonly TlbEntry[] {
    return this.#sorted().flatMap((owner) => [...inOrder(owner.spaces), owner.globals])
      .flatMap((space) => space.maps.flatMap((map) => [...map.values()]));
  }

  structures(): readonly StructureEntry[] {
    return this.#sorted().flatMap((owner) => inOrder(owner.structures))
      .flatMap((space) => space.maps.flatMap((map) => [...map.values()]));
  }

  #sorted(): readonly Owner[] {
    return [...this.#owners.values()].sort((a, b) => a.vpid - b.vpid || a.ep4ta - b.ep4ta);
  }

  #owner(of: { readonly vpid: number; readonly ep4ta: number }): Owner {
    const last = this.#last;
    if (last.vpid === of.vpid && last.ep4ta === of.ep4ta) return last;
    return this.#last = this.#own(of.vpid, of.ep4ta);
  }

  #own(vpid: number, ep4ta: number): Owner {
    // Unique for tables below 2^49: above, there is no memory that could hold one.
    const key = (ep4ta + 1) * 0x1_0000 + vpid;
    let owner = this.#owners.get(key);
    if (owner === undefined) this.#owners.set(key, owner = new Owner(vpid, ep4ta));
    return owner;
  }
}

/** Unlimited guest-physical mappings, by EP4TA. */
class StickyGuestPhysical implements GuestPhysicalStore {
  readonly #spaces = new Map<number, Space<GuestPhysicalEntry>>();
  readonly #structures = new Map<number, Space<GuestPhysicalStructure>>();

  find(low: number, high: number, ep4ta: number): GuestPhysicalEntry | undefined {
    const space = this.#spaces.get(ep4ta);
    return space === undefined ? undefined : findIn(space, low, high);
  }

  insert(entry: GuestPhysicalEntry): void {
    const kind = SHIFTS.indexOf(entry.shift as typeof SHIFTS[number]);
    spaceOf(this.#spaces, entry.ep4ta, SHIFTS).maps[kind]!
      .set(regionNumber(entry.low, entry.high, entry.shift), entry);
  }

  findStructure(low: number, high: number, ep4ta: number): GuestPhysicalStructure | undefined {
    const space = this.#structures.get(ep4ta);
    return space === undefined ? undefined : findLevel(space, low, high);
  }

  insertStructure(entry: GuestPhysicalStructure): void {
    spaceOf(this.#structures, entry.ep4ta, LEVELS).maps[entry.level - 1]!
      .set(regionNumber(entry.low, entry.high, structureShift(entry.level)), entry);
  }

  drop(selection: Selection): number {
    if (selection.rule.guestPhysical === "none") return 0;
    let dropped = 0;
    for (const [ep4ta, space] of this.#spaces) {
      for (const map of space.maps) {
        for (const [key, e] of map) {
          if (selectsGuestPhysical(selection, ep4ta, e.low, e.high, e.shift) && map.delete(key)) dropped++;
        }
      }
    }
    for (const [ep4ta, space] of this.#structures) {
      for (const map of space.maps) {
        for (const [key, e] of map) {
          if (selectsGuestPhysical(selection, ep4ta, e.low, e.high, structureShift(e.level))) map.delete(key);
        }
      }
    }
    return dropped;
  }

  entries(): readonly GuestPhysicalEntry[] {
    return inOrder(this.#spaces).flatMap((space) => space.maps.flatMap((map) => [...map.values()]));
  }

  structures(): readonly GuestPhysicalStructure[] {
    return inOrder(this.#structures).flatMap((space) => space.maps.flatMap((map) => [...map.values()]));
  }
}

function inOrder<T>(spaces: ReadonlyMap<number, Space<T>>): readonly Space<T>[] {
  return [...spaces].sort(([a], [b]) => a - b).map(([, space]) => space);
}

function dropPages(space: Space<TlbEntry>, selection: Selection): number {
  const { pages } = selection.rule;
  if (pages === "none") return 0;
  if (pages === "all") return space.clear();
  let dropped = 0;
  if (pages === "page" && space.pieces) {
    for (const map of space.maps) {
      for (const [key, entry] of map) if (selectsPage(selection, entry) && map.delete(key)) dropped++;
    }
    return dropped;
  }
  SHIFTS.forEach((shift, kind) => {
    if (space.maps[kind]!.delete(regionNumber(selection.low, selection.high, shift))) dropped++;
  });
  return dropped;
}

function findIn<T>(space: Space<T>, low: number, high: number): T | undefined {
  for (let kind = 0; kind < 4; kind++) {
    const map = space.maps[kind]!;
    if (map.size === 0) continue;
    const found = map.get(regionNumber(low, high, SHIFTS[kind]!));
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The entry that leads to the lowest table. */
function findLevel<T>(space: Space<T>, low: number, high: number): T | undefined {
  for (const level of LEVELS) {
    const map = space.maps[level - 1]!;
    const found = map.size === 0 ? undefined : map.get(regionNumber(low, high, structureShift(level)));
    if (found !== undefined) return found;
  }
  return undefined;
}

function spaceOf<T>(spaces: Map<number, Space<T>>, pcid: number, kinds: readonly unknown[]): Space<T> {
  let space = spaces.get(pcid);
  if (space === undefined) spaces.set(pcid, space = new Space<T>(kinds));
  return space;
}

/** Number of the region of size 2^shift that holds an address; exact, below 2^52. */
function regionNumber(low: number, high: number, shift: number): number {
  if (shift >= 32) return (high >>> 0) >>> (shift - 32);
  return (high >>> 0) * 2 ** (32 - shift) + ((low >>> 0) >>> shift);
}
