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
}

/** The live counters of one processor. */
export class Counters implements CounterValues {
  lookups = 0;
  tlbHits = 0;
  firstLevelHits = 0;
  secondLevelHits = 0;
  tlbMisses = 0;
  fetchMisses = 0;
  /** Walks by where they began and ended: index = first level · 8 + last level. The other counters of walks come from these. */
  readonly paths: Float64Array = new Float64Array(48);
  readonly structureHits: Float64Array = new Float64Array(6);
  fills = 0;
  fastFills = 0;
  accessedSet = 0;
  dirtySet = 0;
  invalidations = 0;
  dropped = 0;
  pageFaults = 0;
  cachedFaults = 0;

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
    const { paths: _, ...fields } = this;
    return {
      ...fields,
      walks: this.walks,
      references: this.references,
      referencesByLevel: this.referencesByLevel,
      structureHits: Array.from(this.structureHits),
    };
  }

  /** Sets every counter to zero. */
  reset(): void {
    const { paths, structureHits } = this;
    Object.assign(this, new Counters(), { paths, structureHits });
    paths.fill(0);
    structureHits.fill(0);
  }
}
