/**
 * The pmap's rules, recomputed from nothing (`checkInvariants`): tables in RAM, pv trees, pages' lists and counters must tell one story.
 *
 * Room: `kernel/pmap/`; for tests, the lab and `--check`; imports the part's data. Reference: section 4.5.
 *
 *  1. An entry has MANAGED if and only if there is a pv for it, whose page is the one it maps, and which is on that page's list.
 *  2. An entry lies in a PT page with a pv, that one in a PD page with a pv, and so on to the root.
 *  3. `wireCount` of a table page − 1 = the entries in it that are not zero (of a root: the user's).
 *  4. PG_MAPPED is set on a page with mappings, PG_WRITEABLE on one with a writable mapping; neither on a managed page without mappings.
 *  5. (Only hardware changes an entry that nobody has locked, and only A and M: no snapshot shows it; the sanitizer does.)
 *  6. (M becomes `m.dirty` before it disappears: no snapshot shows it; the model test does.) What a snapshot shows: RW is only taken
 *     together with M, so no managed user entry has M without RW; and none maps a page that is free or on CACHE.
 *  7. `residentCount` = pv's of the tree + unmanaged mappings; `wiredCount` = entries with W. After release 1 and 0.
 *  8. The tree is a tree, and each pv in it says so; when nobody is at work, no pv is locked and each has the one hold of its association.
 *  9. A CPU's bit in `pmActive` is set for the pmap that it has loaded, and for no other, but for one that it is loading or leaving now.
 * 10. A root has the kernel's entries in the kernel's slots (an EPT root has none), and no page is two tables.
 *
 * It may be called between any two steps, whatever other CPUs are doing: what is locked is somebody's work in progress and is left out, with
 * the counts that it is part of.
 *
 * @module
 */
import { type Hpa, hpa } from "../../hw/address.ts";
import { type Cx } from "../context.ts";
import type { Kernel } from "../kernel.ts";
import { physToDmap } from "../platform/layout.ts";
import {
  PG_FICTITIOUS,
  PG_MAPPED,
  PG_UNMANAGED,
  PG_WRITEABLE,
  physToVmPage,
  type VmPage,
} from "../vm/vm_page.ts";
import { PQ_CACHE, PQ_FREE } from "../vm/vm_pageq.ts";
import {
  indexInParent,
  NPTEPG,
  parentPindex,
  pindexLevel,
  pindexToVa,
  type Pmap,
  PML4PML4I,
} from "./pmap.ts";
import {
  EPT_PMAP,
  PG_DEVICE_IDX,
  PG_M_IDX,
  PG_MANAGED_IDX,
  PG_RW_IDX,
  PG_U_IDX,
  PG_V_IDX,
  PG_W_IDX,
  TYPE_IDX,
} from "./pmap_bits.ts";
import { isKernelPte, pteFrame } from "./pmap_pte.ts";
import { type PvEntry, pvHolds, pvLocked } from "./pv_entry.ts";

/** Reads 64 bits of RAM at a physical address. */
export type Read64 = (pa: number) => bigint;

/** Entries of a root that are the user's. */
const USER_SLOTS = 256;

/** What is wrong, in words; empty when all rules hold. @param idle Nobody is in the middle of a pmap operation, so no lock excuses anything. */
export function checkInvariants(cx: Cx, idle = false): string[] {
  const read: Read64 = (pa) => {
    const operation = cx.cpu.load64(physToDmap(cx.k, hpa(pa)))[Symbol.iterator]();
    const { done, value } = operation.next();
    if (done !== true) {
      throw new Error(`checkInvariants: RAM at 0x${pa.toString(16)} is not in the direct map`);
    }
    return value;
  };
  return checkInvariantsWith(cx.k, read, idle);
}

/** The same for a machine that stands still. */
export function checkInvariantsWith(k: Kernel, read64: Read64, idle = false): string[] {
  return new Checker(k, read64, idle).run();
}

/** Pages beyond which nothing more is said. */
const FINDINGS_MAX = 50;

class Checker {
  readonly #k: Kernel;
  readonly #read64: Read64;
  readonly #idle: boolean;
  readonly #wrong: string[] = [];
  /** Which table each frame is. */
  readonly #tables = new Map<Hpa, string>();
  /** Pages' mappings that were found in trees. */
  readonly #mappings = new Map<VmPage, Set<PvEntry>>();

  constructor(k: Kernel, read64: Read64, idle: boolean) {
    this.#k = k;
    this.#read64 = read64;
    this.#idle = idle;
  }

  run(): string[] {
    const state = this.#k.pmap;
    if (!state.pmapInitialized) return [];
    const pmaps = new Set([state.kernelPmap, ...state.pmapList]);
    for (const pmap of state.loaded) if (pmap !== undefined) pmaps.add(pmap);
    let n = 0;
    for (const pmap of pmaps) this.#pmap(pmap, pmap === state.kernelPmap ? "kernel_pmap" : `pmap ${n++}`);
    this.#pages(pmaps);
    this.#active(pmaps);
    return this.#wrong;
  }

  #say(text: string): void {
    if (this.#wrong.length < FINDINGS_MAX) this.#wrong.push(text);
  }

  #pmap(pmap: Pmap, name: string): void {
    const pvs = [...pmap.pmPvroot];
    for (const text of pmap.pmPvroot.check()) this.#say(`${name}: pv tree: ${text}`);
    // Somebody is at work here: his pv's, and all counts, are left out.
    const quiet = !pvs.some(pvLocked) && pmap.pmSpin.owner === undefined;
    for (const pv of pvs) this.#pv(pmap, name, pv);
    const counted = { entries: 0, unmanaged: 0, wired: 0 };
    for (const pv of pvs) {
      if (pindexLevel(pv.pvPindex) > 0) this.#table(pmap, name, pv, quiet, counted);
    }
    if (pmap === this.#k.pmap.kernelPmap) this.#kernelEntries(pmap, name, counted);
    if (pmap.pmPmlpv?.pvM !== undefined) this.#root(pmap, name, pmap.pmPmlpv.pvM.physAddr);
    if (!quiet) return;
    const resident = pvs.length + counted.unmanaged;
    if (pmap.pmStats.residentCount !== resident) {
      this.#say(`${name}: residentCount is ${pmap.pmStats.residentCount}, but ${resident} are resident`);
    }
    if (pmap.pmStats.wiredCount !== counted.wired) {
      this.#say(`${name}: wiredCount is ${pmap.pmStats.wiredCount}, but ${counted.wired} entries have W`);
    }
    if (pmap.pmPvhint !== undefined && pmap.pmPvroot.find(pmap.pmPvhint.pvPindex) !== pmap.pmPvhint) {
      this.#say(`${name}: pmPvhint is not in the tree`);
    }
  }

  /** Rules 1, 2 and 8 from the pv's side. */
  #pv(pmap: Pmap, name: string, pv: PvEntry): void {
    const level = pindexLevel(pv.pvPindex);
    const what = `${name}: ${nameOf(pv.pvPindex)}`;
    if (pv.pvPmap !== pmap) this.#say(`${what}: its pv names another pmap`);
    if (this.#idle && (pvLocked(pv) || pvHolds(pv) !== 1)) {
      this.#say(
        `${what}: nobody is at work, but its pv is ${pvLocked(pv) ? "locked" : `held ${pvHolds(pv)} times`}`,
      );
    }
    if (pvLocked(pv)) return;
    const m = pv.pvM;
    if (m === undefined) return this.#say(`${what}: its pv has no page`);
    if (level === 0) {
      let pvs = this.#mappings.get(m);
      if (pvs === undefined) this.#mappings.set(m, pvs = new Set());
      pvs.add(pv);
      if (m.flags & PG_UNMANAGED) this.#say(`${what}: maps an unmanaged page with a pv`);
    } else {
      const before = this.#tables.get(m.physAddr);
      if (before !== undefined) this.#say(`${what}: its page is also the table of ${before}`);
      this.#tables.set(m.physAddr, what);
      const flags = PG_MAPPED | PG_WRITEABLE | PG_UNMANAGED;
      if ((m.flags & flags) !== flags) this.#say(`${what}: table page has flags 0x${m.flags.toString(16)}`);
      if (m.md.pvHead !== pv || m.md.pvCount !== 1) this.#say(`${what}: table page is on the wrong list`);
    }
    if (level === 4 || isKernelPte(this.#k, pmap, pv.pvPindex)) return;
    const parent = pmap.pmPvroot.find(parentPindex(pv.pvPindex));
    if (parent === undefined) return this.#say(`${what}: there is no table above it`);
    if (pvLocked(parent) || parent.pvM === undefined) return;
    const entry = this.#read64(parent.pvM.physAddr + indexInParent(pv.pvPindex) * 8);
    if ((entry & pmap.pmapBits[PG_V_IDX]!) === 0n) {
      return this.#say(`${what}: has a pv, but its entry is ${hex(entry)}`);
    }
    if (pteFrame(entry) !== m.physAddr) {
      this.#say(`${what}: entry ${hex(entry)} leads elsewhere than its pv (${hex(m.physAddr)})`);
    }
    if (level === 0 && (entry & pmap.pmapBits[PG_MANAGED_IDX]!) === 0n) {
      this.#say(`${what}: has a pv, but entry ${hex(entry)} is not MANAGED`);
    }
  }

  /** Rules 1, 2, 3 and 7 from the table's side. */
  #table(
    pmap: Pmap,
    name: string,
    pv: PvEntry,
    quiet: boolean,
    counted: { unmanaged: number; wired: number },
  ): void {
    if (pvLocked(pv) || pv.pvM === undefined) return;
    const level = pindexLevel(pv.pvPindex);
    const end = level === 4 ? USER_SLOTS : NPTEPG;
    let entries = 0;
    for (let i = 0; i < end; i++) {
      const entry = this.#read64(pv.pvM.physAddr + i * 8);
      if (entry === 0n) continue;
      entries++;
      const child = childPindex(pv.pvPindex, i);
      if (level === 1) this.#leaf(pmap, name, child, entry, counted);
      else if (pmap.pmPvroot.find(child) === undefined) {
        this.#say(`${name}: ${nameOf(child)}: entry ${hex(entry)} leads to a table that has no pv`);
      }
    }
    const wired = pv.pvM.wireCount - 1;
    if (quiet && wired !== entries) {
      this.#say(
        `${name}: ${nameOf(pv.pvPindex)}: wireCount − 1 is ${wired}, but ${entries} entries are not zero`,
      );
    }
  }

  #kernelEntries(pmap: Pmap, name: string, counted: { unmanaged: number; wired: number }): void {
    const unmanagedOfUsers = counted.unmanaged;
    for (const [pindex, table] of this.#k.pmap.kernelPts) {
      for (let i = 0; i < NPTEPG; i++) {
        const entry = this.#read64(table + i * 8);
        if (entry !== 0n) this.#leaf(pmap, name, childPindex(pindex, i), entry, counted);
      }
    }
    // kenter and qenter count nothing.
    counted.unmanaged = unmanagedOfUsers;
  }

  /** An entry that maps a page. */
  #leaf(
    pmap: Pmap,
    name: string,
    pindex: number,
    entry: bigint,
    counted: { unmanaged: number; wired: number },
  ): void {
    const bits = pmap.pmapBits;
    const what = `${name}: ${nameOf(pindex)}: entry ${hex(entry)}`;
    const user = !isKernelPte(this.#k, pmap, pindex);
    if ((entry & bits[PG_V_IDX]!) !== bits[PG_V_IDX]!) this.#say(`${what} is not valid and not zero`);
    if (user && (entry & bits[PG_U_IDX]!) !== bits[PG_U_IDX]!) this.#say(`${what} is not the user's`);
    if ((entry & bits[PG_W_IDX]!) !== 0n) counted.wired++;
    const pv = pmap.pmPvroot.find(pindex);
    if ((entry & bits[PG_MANAGED_IDX]!) === 0n) {
      counted.unmanaged++;
      if (pv !== undefined && !pvLocked(pv)) this.#say(`${what} is not MANAGED, but has a pv`);
      return;
    }
    if (pv === undefined) return this.#say(`${what} is MANAGED, but has no pv`);
    if (pvLocked(pv) || pv.pvM === undefined) return;
    const m = (entry & bits[PG_DEVICE_IDX]!) !== 0n ? pv.pvM : physToVmPage(this.#k, pteFrame(entry));
    if (m !== pv.pvM) return this.#say(`${what} maps another page than its pv`);
    const writable = (entry & bits[PG_RW_IDX]!) !== 0n;
    if ((m.flags & PG_MAPPED) === 0) this.#say(`${what} maps a page without PG_MAPPED`);
    if (writable && (m.flags & PG_WRITEABLE) === 0 && !this.#busy(m)) {
      this.#say(`${what} is writable, but the page is without PG_WRITEABLE`);
    }
    if (user && !writable && (entry & bits[PG_M_IDX]!) !== 0n) this.#say(`${what} has M, but not RW`);
    const kind = m.queue - m.pc;
    if (kind === PQ_FREE || (kind === PQ_CACHE && !this.#busy(m))) {
      this.#say(`${what} maps a page that is ${kind === PQ_FREE ? "free" : "on CACHE"}`);
    }
  }

  /** While a page is busy its mappings' rights may be on their way down: the flag goes first. */
  #busy(m: VmPage): boolean {
    return m.busyTd !== undefined;
  }

  /** Rule 10. */
  #root(pmap: Pmap, name: string, root: Hpa): void {
    const regular = pmap.pmapBits[TYPE_IDX] !== EPT_PMAP;
    for (let slot = USER_SLOTS; slot < NPTEPG; slot++) {
      const entry = this.#read64(root + slot * 8);
      if (slot === PML4PML4I && regular) {
        if (pteFrame(entry) !== root) {
          this.#say(`${name}: the recursive slot leads to ${hex(pteFrame(entry))}`);
        }
        continue;
      }
      const expected = regular ? this.#k.pmap.kernelSlots.get(slot) ?? 0n : 0n;
      if (entry !== expected) {
        this.#say(`${name}: slot ${slot} of the root is ${hex(entry)}, not ${hex(expected)}`);
      }
    }
  }

  /** Rules 1 and 4 from the pages' side. */
  #pages(pmaps: ReadonlySet<Pmap>): void {
    for (const m of this.#k.vmPages.vmPageArray) {
      if (m === undefined) continue;
      const what = `page ${hex(m.physAddr)}`;
      const listed = new Set<PvEntry>();
      let locked = false;
      for (let pv = m.md.pvHead; pv !== undefined; pv = pv.pvListNext) {
        listed.add(pv);
        locked ||= pvLocked(pv);
        if (pv.pvM !== m) this.#say(`${what}: a pv on its list maps another page`);
        if (pv.pvPmap === undefined) this.#say(`${what}: a pv on its list belongs to no pmap`);
        else if (pv.pvPmap.pmPvroot.find(pv.pvPindex) !== pv) {
          this.#say(`${what}: a pv on its list is not in its pmap's tree`);
        }
        if (listed.size > m.md.pvCount) break;
      }
      if (listed.size !== m.md.pvCount) this.#say(`${what}: its list is broken`);
      for (const pv of this.#mappings.get(m) ?? []) {
        if (!listed.has(pv)) {
          this.#say(`${what}: ${nameOf(pv.pvPindex)} of ${pmaps.size} pmaps maps it, but is not on its list`);
        }
      }
      if (listed.size > 0) {
        if ((m.flags & PG_MAPPED) === 0) this.#say(`${what}: has mappings, but not PG_MAPPED`);
        if (m.queue - m.pc === PQ_FREE) this.#say(`${what}: is free, but has mappings`);
      } else if (
        !locked && (m.flags & (PG_MAPPED | PG_WRITEABLE)) !== 0 &&
        (m.flags & (PG_UNMANAGED | PG_FICTITIOUS)) === 0
      ) {
        this.#say(`${what}: has no mappings, but flags 0x${m.flags.toString(16)} say so`);
      }
    }
  }

  /** Rule 9. */
  #active(pmaps: ReadonlySet<Pmap>): void {
    const { loaded, kernelPmap } = this.#k.pmap;
    loaded.forEach((pmap, cpu) => {
      if (pmap !== undefined && (pmap.pmActive & (1 << cpu)) === 0 && !this.#k.bug("pmap-skip-cr3")) {
        this.#say(`cpu${cpu} has a pmap loaded whose pmActive is ${pmap.pmActive.toString(2)} (binary)`);
      }
    });
    for (const pmap of pmaps) {
      if (pmap === kernelPmap) continue;
      for (const gd of this.#k.lwkt.gds) {
        const isTwin = loaded[gd.gdCpuid]?.pmTwin === pmap ||
          gd.gdCurthread.tdLwp?.lwpVmspace?.vmPmap.pmTwin === pmap;
        const wants = gd.gdCurthread.tdLwp?.lwpVmspace?.vmPmap === pmap;
        if ((pmap.pmActive & gd.gdCpumask) !== 0 && loaded[gd.gdCpuid] !== pmap && !wants && !isTwin) {
          this.#say(`cpu${gd.gdCpuid} is in pmActive of a pmap that it has not loaded`);
        }
      }
    }
  }
}

/** pindex of entry `index` of a table. */
function childPindex(table: number, index: number): number {
  const level = pindexLevel(table);
  const first = pindexToVa(table);
  return FIRST_CHILD[level - 1]! + Number((first & 0xffff_ffff_ffffn) >> CHILD_SHIFT[level - 1]!) + index;
}
const FIRST_CHILD = [0, 512 ** 4, 512 ** 4 + 512 ** 3, 512 ** 4 + 512 ** 3 + 512 ** 2] as const;
const CHILD_SHIFT = [12n, 21n, 30n, 39n] as const;

const LEVEL_NAMES = ["page", "PT", "PD", "PDP", "PML4"] as const;

function nameOf(pindex: number): string {
  return `${LEVEL_NAMES[pindexLevel(pindex)]} ${hex(pindexToVa(pindex))}`;
}

function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}
