/**
 * One hunt for each historical bug: what is done, on how many processors, and within how many seeds it shows.
 *
 * Room: `lab/bugs/`; imports the stage and the acts. `docs/historical-bugs.md` has the measured numbers.
 *
 * @module
 */
import { enterUnmanaged, releaseUnmanaged, storeWhileEvicted, writeBelowStack } from "./direct.ts";
import { mill } from "./mill.ts";
import { type Act, runStage } from "./stage.ts";
import { destroyAtWork, takeAway } from "./vkernel.ts";
import { comeBack, killedInside, lateModified, sameRoot, swapThreads } from "./vmm.ts";

/** How a bug is hunted. */
export interface Hunt {
  readonly bug: string;
  readonly cpus: number;
  readonly act: Act;
  /** Seeds from 1 within which it is found: several times what was measured. */
  readonly seeds: number;
  /** How what is found begins. */
  readonly witness: RegExp;
}

/** Steps that a hunt may take: several times what the longest one takes when nothing is wrong. */
const STEPS = 1_500_000;

/** All hunts, in the order of the table of bugs. */
export const HUNTS: readonly Hunt[] = [
  {
    bug: "pv-revalidate",
    cpus: 4,
    seeds: 20,
    witness: /^(panic: pmap_)/,
    act: mill({
      pages: 2,
      shared: true,
      spaces: [[0, 1], [1, 2], [2, 3], [3, 0]],
      turns: 30,
      work: { write: 4, burst: 2, evict: 8, none: 6, fork: 1 },
    }),
  },
  {
    bug: "pv-list-restart",
    cpus: 4,
    seeds: 20,
    witness: /^(invariant: .*without PG_WRITEABLE)/,
    act: mill({
      pages: 1,
      shared: true,
      spaces: [[0, 1], [1, 2], [2, 3], [3, 0]],
      turns: 25,
      work: { burst: 6, evict: 4, none: 3, check: 1 },
    }),
  },
  {
    bug: "pmap-skip-cr3",
    cpus: 3,
    seeds: 40,
    witness: /^(sanitizer: )/,
    act: mill({
      pages: 1,
      shared: false,
      spaces: [[0, 1, 1, 2, 2]],
      turns: 50,
      work: { burst: 8, protect: 4, yield: 8 },
    }),
  },
  {
    bug: "vmspace-refs",
    cpus: 3,
    seeds: 20,
    witness: /^(panic: vmspace_drop)/,
    act: mill({
      pages: 2,
      shared: false,
      spaces: [[0], [1], [2, 0, 1]],
      turns: 40,
      work: { look: 10, fork: 3 },
    }),
  },
  {
    bug: "fault-page-stale-pte",
    cpus: 3,
    seeds: 5,
    witness: /^(data: )/,
    act: mill({
      pages: 2,
      shared: false,
      spaces: [[0, 1, 2]],
      turns: 25,
      work: { fork: 2, writemem: 6, read: 4 },
    }),
  },
  {
    bug: "pv-association-hold",
    cpus: 3,
    seeds: 10,
    witness: /^(panic: pv_)/,
    act: mill({
      pages: 4,
      shared: true,
      spaces: [[0, 1], [2, 1, 0]],
      turns: 30,
      work: { write: 6, protect: 2, fork: 2, evict: 3, remap: 2 },
    }),
  },
  {
    bug: "inval-mask-order",
    cpus: 3,
    seeds: 60,
    witness: /^(sanitizer: )/,
    act: mill({
      pages: 1,
      shared: true,
      spaces: [[0, 1, 2], [1, 2, 0]],
      turns: 40,
      work: { burst: 8, protect: 5, yield: 5 },
    }),
  },
  {
    bug: "ipi-lost",
    cpus: 3,
    seeds: 60,
    witness: /^(hang: )/,
    act: mill({
      pages: 4,
      shared: true,
      spaces: [[0, 1], [2, 1, 0]],
      turns: 30,
      work: { write: 6, protect: 4, fork: 2, evict: 3, spin: 2 },
    }),
  },
  { bug: "attributes-before-inval", cpus: 2, seeds: 40, witness: /^(data: )/, act: storeWhileEvicted },
  {
    bug: "unmanaged-unlocked",
    cpus: 3,
    seeds: 30,
    witness: /^(invariant: .*wireCount)/,
    act: enterUnmanaged,
  },
  {
    bug: "clear-m-no-inval",
    cpus: 3,
    seeds: 10,
    witness: /^(sanitizer: )/,
    act: mill({
      pages: 2,
      shared: false,
      spaces: [[0, 1, 2]],
      turns: 30,
      work: { write: 4, burst: 6, evict: 6 },
    }),
  },
  {
    bug: "pg-writeable-early",
    cpus: 2,
    seeds: 3,
    witness: /^invariant: /,
    act: mill({
      pages: 2,
      shared: false,
      spaces: [[0], [1]],
      turns: 20,
      work: { write: 4, protect: 4, check: 2 },
    }),
  },
  {
    bug: "remove-pages-unmanaged",
    cpus: 1,
    seeds: 1,
    witness: /^(panic: pmap_release)/,
    act: releaseUnmanaged,
  },
  {
    bug: "fault-page-not-busy",
    cpus: 3,
    seeds: 10,
    witness: /^(data: )/,
    act: mill({
      pages: 1,
      shared: false,
      spaces: [[0, 1, 2]],
      turns: 20,
      work: { writemem: 6, evict: 1, fork: 2, write: 4 },
    }),
  },
  { bug: "fault-page-no-growstack", cpus: 1, seeds: 1, witness: /^(model: )/, act: writeBelowStack },
  { bug: "vpte-inval-race", cpus: 3, seeds: 5, witness: /^(data: a page)/, act: takeAway(400, true) },
  { bug: "vpte-walk-or", cpus: 3, seeds: 30, witness: /^(data: an entry)/, act: takeAway(60, false) },
  { bug: "vmspace-entry-refs", cpus: 3, seeds: 5, witness: /^(panic: vmspace_entry)/, act: destroyAtWork },
  {
    bug: "vmx-loaded-before-clear",
    cpus: 2,
    seeds: 10,
    witness: /^(panic: vmx_vmrun: VMRESUME)/,
    act: swapThreads,
  },
  { bug: "needless-vmclear", cpus: 2, seeds: 5, witness: /^(cost: )/, act: swapThreads },
  { bug: "eptgen-per-thread", cpus: 2, seeds: 3, witness: /^(sanitizer: |data: )/, act: comeBack },
  { bug: "ept-root-reuse", cpus: 1, seeds: 3, witness: /^(sanitizer: |data: )/, act: sameRoot },
  { bug: "vmm-ve-free", cpus: 2, seeds: 3, witness: /^(panic: vkernel_lwp_exit)/, act: killedInside },
  { bug: "sync-addr-2013", cpus: 2, seeds: 10, witness: /^(data: )/, act: lateModified },
  {
    bug: "inval-no-ipi",
    cpus: 3,
    seeds: 5,
    witness: /^(sanitizer: )/,
    act: mill({
      pages: 2,
      shared: false,
      spaces: [[0, 1, 2]],
      turns: 20,
      work: { burst: 4, read: 2, protect: 4 },
    }),
  },
  {
    bug: "fork-no-flush",
    cpus: 3,
    seeds: 10,
    witness: /^(sanitizer: |data: )/,
    act: mill({
      pages: 2,
      shared: false,
      spaces: [[0, 1, 2]],
      turns: 20,
      work: { write: 2, burst: 8, fork: 2 },
    }),
  },
];

/** Runs a hunt once. @param on Whether the bug is. @returns What was found; undefined: nothing. */
export function runHunt(hunt: Hunt, seed: number, on: boolean): string | undefined {
  const { cpus, bug, act } = hunt;
  return runStage({ seed, cpus, bugs: on ? [bug] : [], steps: STEPS }, act);
}
