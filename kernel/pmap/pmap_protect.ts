/**
 * Taking rights away, and reading and clearing A and M (`pmap_protect`, `pmap_clearbit` and its users).
 *
 * Room: `kernel/pmap/`; imports vm_page. Reference: section 5.6.
 *
 * Left out: `pmap_track_modified`, which exempts the buffer cache's map; this kernel has no such map.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import {
  PG_BUSY,
  PG_FICTITIOUS,
  PG_UNMANAGED,
  PG_WRITEABLE,
  type VmPage,
  vmPageDirty,
  vmPageFlagClear,
  vmPageSpinLock,
  vmPageSpinUnlock,
} from "../vm/vm_page.ts";
import {
  VM_PROT_ALL,
  VM_PROT_EXECUTE,
  VM_PROT_NOSYNC,
  VM_PROT_READ,
  VM_PROT_WRITE,
  type VmProt,
} from "../vm/vm_param.ts";
import type { Pmap } from "./pmap.ts";
import { PG_A_IDX, PG_M_IDX, PG_NX_IDX, PG_RW_IDX, PMAP_AD_IN_RIGHTS } from "./pmap_bits.ts";
import { pmapInvalDeinterlock, pmapInvalDone, pmapInvalInit, pmapInvalInterlock } from "./pmap_inval.ts";
import { pteClearBits, ptepOf, pvVa } from "./pmap_pte.ts";
import { pmapRemove, pmapRemoveAll } from "./pmap_remove.ts";
import { pteHarvest } from "./pmap_remove_pv.ts";
import { pmapScan, type PmapScanEntry } from "./pmap_scan.ts";
import { pvHoldTry, pvLock, pvPut } from "./pv_entry.ts";

/** References that `pmap_ts_referenced` counts before it has seen enough. */
const TS_REFERENCED_MAX = 4;

/**
 * Lowers the rights of the mappings in `[sva, eva)` to `prot` (`pmap_protect`); it never adds any. Without READ they go. A and M of managed
 * pages are transferred and cleared.
 *
 * With VM_PROT_NOSYNC in `prot` no other CPU is told: only for mappings that no other CPU uses.
 *
 * Since 2017 there is NX: a mapping that may no longer be executed gets it here.
 */
export function* pmapProtect(cx: Cx, pmap: Pmap, sva: Gva, eva: Gva, prot: VmProt): Exec<void> {
  if ((prot & VM_PROT_READ) === 0) return yield* pmapRemove(cx, pmap, sva, eva);
  if (pmap.pmTwin !== undefined) {
    cx.k.vmm.counters.twinUpdates++;
    yield* pmapProtect(cx, pmap.pmTwin, sva, eva, prot);
  }
  if ((prot & (VM_PROT_WRITE | VM_PROT_EXECUTE)) === (VM_PROT_WRITE | VM_PROT_EXECUTE)) return;
  const takesWrite = (prot & VM_PROT_WRITE) === 0;
  const set = pmap.protectionCodes[prot & VM_PROT_ALL]! & pmap.pmapBits[PG_NX_IDX]!;
  // Nothing to take: WRITE stays, and the format has no NX.
  if (!takesWrite && set === 0n) return;
  yield* pmapScan(cx, pmap, sva, eva, function* (cx, entry) {
    return yield* protectEntry(cx, pmap, entry, takesWrite, set, (prot & VM_PROT_NOSYNC) === 0);
  });
}

function* protectEntry(
  cx: Cx,
  pmap: Pmap,
  { va, ptep, pte }: PmapScanEntry,
  takesWrite: boolean,
  set: bigint,
  sync: boolean,
): Exec<boolean> {
  const bits = pmap.pmapBits;
  // The hardware adds neither RW nor execution: an entry that lacks what is taken away needs no CPU's attention. Its A and M stay.
  const before = yield* cx.cpu.load64(ptep);
  if ((!takesWrite || (before & bits[PG_RW_IDX]!) === 0n) && (before & set) === set) return false;
  const clear = (takesWrite ? bits[PG_RW_IDX]! : 0n) |
    (pte === undefined ? 0n : bits[PG_A_IDX]! | bits[PG_M_IDX]!);
  const info = sync ? pmapInvalInit(cx) : undefined;
  if (info !== undefined) yield* pmapInvalInterlock(cx, info, pmap, va);
  for (;;) {
    const old = yield* cx.cpu.load64(ptep);
    yield* cx.racePoint();
    if ((yield* cx.cpu.cmpxchg64(ptep, old, (old & ~clear) | set)) !== old) continue;
    if (pte !== undefined) pteHarvest(cx, pmap, old, pte.pvM!);
    break;
  }
  if (info === undefined) {
    // Nobody is told; whoever enters a guest with these tables flushes first.
    pmap.pmInvgen++;
    yield* cx.k.platform.invlpg(cx, va, pmap);
  } else {
    yield* pmapInvalDeinterlock(cx, info, pmap);
    yield* pmapInvalDone(cx, info);
  }
  return false;
}

/**
 * Makes every mapping of a page read only (`pmap_clearbit` of RW). M is cleared with it, atomically, and becomes `m.dirty`.
 *
 * Preconditions: the page is busy.
 */
function* clearWrite(cx: Cx, m: VmPage): Exec<void> {
  vmPageFlagClear(m, PG_WRITEABLE);
  if (!cx.k.pmap.pmapInitialized || (m.flags & PG_FICTITIOUS) !== 0) return;
  yield* vmPageSpinLock(cx, m);
  for (let pv = m.md.pvHead; pv !== undefined;) {
    const pmap = pv.pvPmap;
    kassert(pmap !== undefined, "pmap_clearbit: pv entry on a page's list belongs to no pmap");
    const writable = pmap.pmapBits[PG_RW_IDX]!, modified = pmap.pmapBits[PG_M_IDX]!;
    const ptep = yield* ptepOf(cx, pv, pmap);
    if (((yield* cx.cpu.load64(ptep)) & writable) === 0n) {
      pv = pv.pvListNext;
      continue;
    }
    const locked = pvHoldTry(pv);
    vmPageSpinUnlock(cx, m);
    if (!locked) yield* pvLock(cx, pv);
    if (pv.pvPmap === pmap && pv.pvM === m || cx.k.bug("pv-revalidate")) {
      // Historical bug (c50e690bc7): the entry changes, and no CPU is told.
      const info = cx.k.bug("clear-m-no-inval") ? undefined : pmapInvalInit(cx);
      if (info !== undefined) yield* pmapInvalInterlock(cx, info, pmap, pvVa(pv));
      const old = yield* pteClearBits(cx, ptep, writable | modified);
      if ((old & modified) !== 0n) vmPageDirty(cx, m);
      if (info !== undefined) {
        yield* pmapInvalDeinterlock(cx, info, pmap);
        yield* pmapInvalDone(cx, info);
      }
    }
    pvPut(cx, pv);
    yield* vmPageSpinLock(cx, m);
    // The list may be another one now. Historical bug (5ee06c6c18 and others): go on from where the lock was held last; the mapping there may
    // be gone, and its structure on another page's list.
    pv = cx.k.bug("pv-list-restart") ? pv.pvListNext : m.md.pvHead;
  }
  vmPageSpinUnlock(cx, m);
}

/** Clears A or M in every mapping of a page (`pmap_clearbit`). No TLB is told: the hardware may not set the bit again for a while. */
function* clearFlag(cx: Cx, m: VmPage, index: typeof PG_A_IDX | typeof PG_M_IDX): Exec<void> {
  if (!cx.k.pmap.pmapInitialized || (m.flags & PG_FICTITIOUS) !== 0) return;
  yield* eachMapping(cx, m, function* (pmap, ptep, pte) {
    const bit = pmap.pmapBits[index]!;
    if ((pte & bit) !== 0n) yield* clearHint(cx, m, pmap, ptep, pte, bit);
    return false;
  });
}

/**
 * Clears A or M of one mapping. Where they are rights (PMAP_AD_IN_RIGHTS), A goes only together with M, which becomes `m.dirty`
 * ({@link safeToClearReferenced}); and each processor flushes before it next runs the guest. None is interrupted for it: until then it uses the page
 * without saying so, as with A and M of any other format.
 */
function* clearHint(cx: Cx, m: VmPage, pmap: Pmap, ptep: Gva, pte: bigint, bit: bigint): Exec<void> {
  if ((pmap.pmFlags & PMAP_AD_IN_RIGHTS) === 0) {
    yield* pteClearBits(cx, ptep, bit);
    return;
  }
  const modified = pmap.pmapBits[PG_M_IDX]!;
  const old = yield* pteClearBits(cx, ptep, safeToClearReferenced(pmap, pte) ? bit : bit | modified);
  if (bit !== modified && (old & modified) !== 0n) vmPageDirty(cx, m);
  pmap.pmInvgen++;
}

/** Whether A of an entry may be cleared by itself (`safe_to_clear_referenced` of FreeBSD): not where what stays would be W without R. */
export function safeToClearReferenced(pmap: Pmap, pte: bigint): boolean {
  return (pmap.pmFlags & PMAP_AD_IN_RIGHTS) === 0 || (pte & pmap.pmapBits[PG_M_IDX]!) === 0n;
}

/** Shows each mapping of a page, its spinlock held, until `func` says that it has seen enough. Gives whether it did. */
function* eachMapping(
  cx: Cx,
  m: VmPage,
  func: (pmap: Pmap, ptep: Gva, pte: bigint) => Exec<boolean>,
): Exec<boolean> {
  let enough = false;
  yield* vmPageSpinLock(cx, m);
  for (let pv = m.md.pvHead; pv !== undefined && !enough; pv = pv.pvListNext) {
    const pmap = pv.pvPmap;
    kassert(pmap !== undefined, "pmap: pv entry on a page's list belongs to no pmap");
    const ptep = yield* ptepOf(cx, pv, pmap);
    enough = yield* func(pmap, ptep, yield* cx.cpu.load64(ptep));
  }
  vmPageSpinUnlock(cx, m);
  return enough;
}

/**
 * Lowers the rights of every mapping of a page (`pmap_page_protect`): read only, or none at all.
 *
 * Preconditions: the page is busy.
 */
export function* pmapPageProtect(cx: Cx, m: VmPage, prot: VmProt): Exec<void> {
  kassert((m.flags & (PG_BUSY | PG_UNMANAGED)) !== 0, "pmap_page_protect: page is not busy");
  if (prot & VM_PROT_WRITE) return;
  if (prot & (VM_PROT_READ | VM_PROT_EXECUTE)) yield* clearWrite(cx, m);
  else yield* pmapRemoveAll(cx, m);
}

/** Counts the mappings of a page that have A, clearing it, up to five (`pmap_ts_referenced`). */
export function* pmapTsReferenced(cx: Cx, m: VmPage): Exec<number> {
  if (!cx.k.pmap.pmapInitialized || (m.flags & PG_FICTITIOUS) !== 0) return 0;
  let count = 0;
  yield* eachMapping(cx, m, function* (pmap, ptep, pte) {
    const accessed = pmap.pmapBits[PG_A_IDX]!;
    if ((pte & accessed) !== 0n) {
      yield* clearHint(cx, m, pmap, ptep, pte, accessed);
      count++;
    }
    return count > TS_REFERENCED_MAX;
  });
  return count;
}

/** Whether some mapping of a page has M (`pmap_is_modified`). */
export function* pmapIsModified(cx: Cx, m: VmPage): Exec<boolean> {
  if (!cx.k.pmap.pmapInitialized || (m.flags & PG_FICTITIOUS) !== 0) return false;
  return yield* eachMapping(cx, m, function* (pmap, _ptep, pte) {
    return (pte & pmap.pmapBits[PG_M_IDX]!) !== 0n;
  });
}

/** Clears M in every mapping (`pmap_clear_modify`). Only safe for a page that is known to be dirty, or write-protected at once. */
export function pmapClearModify(cx: Cx, m: VmPage): Exec<void> {
  return clearFlag(cx, m, PG_M_IDX);
}

/** Clears A in every mapping (`pmap_clear_reference`). */
export function pmapClearReference(cx: Cx, m: VmPage): Exec<void> {
  return clearFlag(cx, m, PG_A_IDX);
}
