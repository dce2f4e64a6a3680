/**
 * Historical bugs: races and errors that DragonFly once had, each selectable, so that the sanitizer, the invariants and the model test can be
 * shown to find them. All are off unless asked for.
 *
 * Room: leaf of `kernel/`; imports nothing. `docs/historical-bugs.md` says which witness finds which within how many seeds.
 *
 * @module
 */

/** One historical bug. */
export interface HistoricalBug {
  /** What `--bug` takes. */
  readonly name: string;
  /** Abbreviated id of the commit that fixed it in DragonFly's tree; empty if it never was in a release. */
  readonly commit: string;
  /** When it was fixed: month and year. */
  readonly date: string;
  /** What is wrong while it is on. */
  readonly sentence: string;
  /** What finds it: the sanitizer, an invariant, the model test, a panic. */
  readonly witness: string;
}

/** All of them, in the order of section 20 of the reference. */
export const HISTORICAL_BUGS: readonly HistoricalBug[] = [
  {
    name: "pv-revalidate",
    commit: "5e78aef9c6",
    date: "October 2013",
    sentence:
      "A thread that slept for a pv entry's lock takes the entry for what it looked for, though it may be another's or nobody's by now.",
    witness: "panic or invariant: a mapping without a pv entry, a pv entry without a pmap",
  },
  {
    name: "pv-list-restart",
    commit: "5ee06c6c18",
    date: "January 2017",
    sentence:
      "Write-protecting a page goes on along its list of mappings after the list's lock was dropped, and misses some.",
    witness:
      "invariant: a writable mapping of a page that is not PG_WRITEABLE; model: bytes lost at page-out",
  },
  {
    name: "pmap-skip-cr3",
    commit: "95270b7ecb",
    date: "January 2017",
    sentence:
      "A processor that switches between two threads of one address space leaves pm_active for a moment and keeps its TLB: an invalidation in the gap misses it.",
    witness: "sanitizer: use of a translation that the tables no longer grant",
  },
  {
    name: "vmspace-refs",
    commit: "93f86408bb",
    date: "July 2014",
    sentence:
      "Who only looks at an address space (procfs, ps) does not keep it: its tables and map go while they are being looked at.",
    witness: "panic: a dead address space is used or ended twice",
  },
  {
    name: "fault-page-stale-pte",
    commit: "7a45978d5d",
    date: "November 2017",
    sentence:
      "vm_fault_page copies a page on write for the kernel and leaves the old, read-only mapping: the program does not see what was written.",
    witness:
      "model: a read shows the old bytes; invariant of vmCheck: a mapping of a page that the object chain does not show",
  },
];
