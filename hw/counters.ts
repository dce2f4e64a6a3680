/**
 * What a processor counts about translation: always on, a plain number each, cheap enough for the hottest paths.
 *
 * Room: `hw/`; imports nothing. The lab and the tests read {@link Counters.snapshot}; units are events.
 *
 * @module
 */

/** Counters as a plain record that survives JSON. */
export interface CounterValues {
  /** Accesses that the fast TLB did not serve. */
  readonly lookups: number;
  /** Lookups that the modelled TLB served (any level); always 0 with the `fast` choice. */
  readonly tlbHits: number;
  /** Lookups served by the first-level TLBs (`geometry` only). */
  readonly firstLevelHits: number;
  /** Lookups served by the second-level TLB (`geometry` only). */
  readonly secondLevelHits: number;
  /** Lookups that needed a page walk. */
  readonly tlbMisses: number;
  /** Of these, for instruction fetches. */
  readonly fetchMisses: number;
  /** Page walks, those of accesses that then faulted included. */
  readonly walks: number;
  /** Walks that began below the root, from a paging-structure cache, by the level they began at (index 1 … 4). */
  readonly structureHits: ArrayLike<number>;
  /** Paging-structure entries read by walks. */
  readonly references: number;
  /** The same by level: index 1 = page table … 5 = PML5 table. */
  readonly referencesByLevel: ArrayLike<number>;
  /** Translations put in the modelled TLB. */
  readonly fills: number;
  /** Translations put in the fast TLB. */
  readonly fastFills: number;
  /** Accessed flags set in memory. */
  readonly accessedSet: number;
  /** Dirty flags set in memory. */
  readonly dirtySet: number;
  /** Operations that invalidate translations (page faults not counted). */
  readonly invalidations: number;
  /** Translations that such operations (and page faults) removed from the modelled TLB. */
  readonly dropped: number;
  /** Page faults raised. */
  readonly pageFaults: number;
  /** Of these, raised on the word of a cached entry, without reading the whole path in memory. */
  readonly cachedFaults: number;
  /** EPT walks, those that then failed included. */
  readonly eptWalks: number;
  /** EPT entries read. */
  readonly eptReferences: number;
  /** The same by slot (index = level of the guest paging-structure entry that was wanted, 0 the translation of a linear address) and EPT level: index = slot · 6 + level. */
  readonly eptReferencesBySlot: ArrayLike<number>;
  /** Guest-physical addresses that a cached guest-physical mapping served. */
  readonly guestPhysicalHits: number;
  /** EPT walks that began below the root, by the level they began at. */
  readonly eptStructureHits: ArrayLike<number>;
  /** EPT accessed flags set in memory. */
  readonly eptAccessedSet: number;
  /** EPT dirty flags set in memory. */
  readonly eptDirtySet: number;
  /** EPT violations, virtualization exceptions included. */
  readonly eptViolations: number;
}

/** Cells of the counters that generated code counts too (`AUX.counters` in state.ts). */
export const COUNTER = {
  lookups: 0,
  tlbMisses: 1,
  fetchMisses: 2,
  fastFills: 3,
  accessedSet: 4,
  dirtySet: 5,
  eptAccessedSet: 6,
  eptDirtySet: 7,
  invalidations: 8,
  pageFaults: 9,
} as const;

/** Where counters that generated code counts too stand: cells, and walks by path. */
export interface CounterCells {
  /** By {@link COUNTER}. */
  readonly cells: Float64Array;
  /** 48 numbers. */
  readonly paths: Float64Array;
  /** 384 numbers. */
  readonly eptPaths: Float64Array;
}

/** The live counters of one processor. */
export class Counters implements CounterValues {
  tlbHits = 0;
  firstLevelHits = 0;
  secondLevelHits = 0;
  readonly structureHits: Float64Array = new Float64Array(6);
  fills = 0;
  dropped = 0;
  cachedFaults = 0;
  guestPhysicalHits = 0;
  readonly eptStructureHits: Float64Array = new Float64Array(6);
  eptViolations = 0;
  /** Walks by where they began and ended: index = first level · 8 + last level. The other counters of walks come from these. */
  readonly paths: Float64Array;
  /** EPT walks by slot, first and last level: index = slot · 64 + first · 8 + last; first and last are 0 where no entry was read. */
  readonly eptPaths: Float64Array;
  readonly #cells: Float64Array;

  /**
   * Made by the machine's builder.
   *
   * @param shared What generated code counts too.
   */
  constructor(shared: CounterCells) {
    this.#cells = shared.cells;
    this.paths = shared.paths;
    this.eptPaths = shared.eptPaths;
  }

  get lookups(): number {
    return this.#cells[0]!;
  }
  set lookups(count: number) {
    this.#cells[0] = count;
  }
  get tlbMisses(): number {
    return this.#cells[1]!;
  }
  set tlbMisses(count: number) {
    this.#cells[1] = count;
  }
  get fetchMisses(): number {
    return this.#cells[2]!;
  }
  set fetchMisses(count: number) {
    this.#cells[2] = count;
  }
  get fastFills(): number {
    return this.#cells[3]!;
  }
  set fastFills(count: number) {
    this.#cells[3] = count;
  }
  get accessedSet(): number {
    return this.#cells[4]!;
  }
  set accessedSet(count: number) {
    this.#cells[4] = count;
  }
  get dirtySet(): number {
    return this.#cells[5]!;
  }
  set dirtySet(count: number) {
    this.#cells[5] = count;
  }
  get eptAccessedSet(): number {
    return this.#cells[6]!;
  }
  set eptAccessedSet(count: number) {
    this.#cells[6] = count;
  }
  get eptDirtySet(): number {
    return this.#cells[7]!;
  }
  set eptDirtySet(count: number) {
    this.#cells[7] = count;
  }
  get invalidations(): number {
    return this.#cells[8]!;
  }
  set invalidations(count: number) {
    this.#cells[8] = count;
  }
  get pageFaults(): number {
    return this.#cells[9]!;
  }
  set pageFaults(count: number) {
    this.#cells[9] = count;
  }

  /** Counts an EPT walk by its path. */
  countEptWalk(slot: number, startLevel: number, lastLevel: number): void {
    this.eptPaths[slot * 64 + startLevel * 8 + lastLevel]!++;
  }
  get eptWalks(): number {
    return this.eptPaths.reduce((sum, n) => sum + n, 0);
  }
  get eptReferences(): number {
    return this.eptReferencesBySlot.reduce((sum, n) => sum + n, 0);
  }
  get eptReferencesBySlot(): number[] {
    const by = Array.from({ length: 36 }, () => 0);
    this.eptPaths.forEach((n, path) => {
      if (n === 0) return;
      const slot = path >>> 6;
      for (let level = path & 7; level > 0 && level <= ((path >>> 3) & 7); level++) {
        by[slot * 6 + level]! += n;
      }
    });
    return by;
  }

  get walks(): number {
    return this.paths.reduce((sum, n) => sum + n, 0);
  }
  get references(): number {
    return this.referencesByLevel.reduce((sum, n) => sum + n, 0);
  }
  get referencesByLevel(): number[] {
    const by = [0, 0, 0, 0, 0, 0];
    this.paths.forEach((n, path) => {
      // Path 0 is a walk that a PDPTE register ended: no entry was read from memory.
      for (let level = path & 7; level > 0 && level <= path >>> 3; level++) by[level]! += n;
    });
    return by;
  }

  /** A copy that no longer changes. */
  snapshot(): CounterValues {
    const { paths: _, eptPaths: _ept, ...fields } = this;
    return {
      ...fields,
      lookups: this.lookups,
      tlbMisses: this.tlbMisses,
      fetchMisses: this.fetchMisses,
      fastFills: this.fastFills,
      accessedSet: this.accessedSet,
      dirtySet: this.dirtySet,
      eptAccessedSet: this.eptAccessedSet,
      eptDirtySet: this.eptDirtySet,
      invalidations: this.invalidations,
      pageFaults: this.pageFaults,
      walks: this.walks,
      references: this.references,
      referencesByLevel: this.referencesByLevel,
      structureHits: Array.from(this.structureHits),
      eptWalks: this.eptWalks,
      eptReferences: this.eptReferences,
      eptReferencesBySlot: this.eptReferencesBySlot,
      eptStructureHits: Array.from(this.eptStructureHits),
    };
  }

  /** Sets every counter to zero. */
  reset(): void {
    this.tlbHits = this.firstLevelHits = this.secondLevelHits = 0;
    this.fills =
      this.dropped =
      this.cachedFaults =
      this.guestPhysicalHits =
      this.eptViolations =
        0;
    for (
      const counts of [this.#cells, this.paths, this.eptPaths, this.structureHits, this.eptStructureHits]
    ) {
      counts.fill(0);
    }
  }
}
