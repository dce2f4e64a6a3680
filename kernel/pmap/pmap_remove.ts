/**
 * Removing mappings: of a range of addresses (`pmap_remove`, `pmap_remove_pages`), of a page (`pmap_remove_all`).
 *
 * Room: `kernel/pmap/`; imports vm_page. Reference: section 5.4.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import {
  PG_BUSY,
  PG_MAPPED,
  PG_UNMANAGED,
  PG_WRITEABLE,
  type VmPage,
  vmPageFlagClear,
  vmPageSpinLock,
  vmPageSpinUnlock,
} from "../vm/vm_page.ts";
import type { Pmap } from "./pmap.ts";
import { PG_W_IDX } from "./pmap_bits.ts";
import {
  pmapInvalDeinterlock,
  pmapInvalDone,
  type PmapInvalInfo,
  pmapInvalInit,
  pmapInvalInterlock,
} from "./pmap_inval.ts";
import { unwireTable } from "./pmap_pte.ts";
import { pmapRemovePvPage, pmapRemovePvPte } from "./pmap_remove_pv.ts";
import { pmapScan, type PmapScanEntry } from "./pmap_scan.ts";
import { pvFree, pvHoldTry, pvLock, pvPut } from "./pv_entry.ts";

/** Takes down what the scan has come to (`pmap_remove_callback`). Without `info` only this CPU forgets it. */
function* removeEntry(
  cx: Cx,
  pmap: Pmap,
  { va, ptep, pte, pt }: PmapScanEntry,
  info: PmapInvalInfo | undefined,
): Exec<boolean> {
  if (pte !== undefined) {
    yield* pmapRemovePvPte(cx, pte, pt, info);
    yield* pmapRemovePvPage(cx, pte);
    yield* pvFree(cx, pte);
    return true;
  }
  // An unmanaged page: nobody asks for its A and M.
  if (info !== undefined) yield* pmapInvalInterlock(cx, info, pmap, va);
  const old = yield* cx.cpu.xchg64(ptep, 0n);
  if ((old & pmap.pmapBits[PG_W_IDX]!) !== 0n) pmap.pmStats.wiredCount--;
  if (pt !== undefined) pmap.pmStats.residentCount--;
  if (info !== undefined) yield* pmapInvalDeinterlock(cx, info, pmap);
  else yield* cx.k.platform.invlpg(cx, va, pmap);
  if (pt !== undefined) unwireTable(pt.pvM!);
  return false;
}

/** Removes the mappings of `[sva, eva)` (`pmap_remove`). May sleep. */
export function* pmapRemove(cx: Cx, pmap: Pmap, sva: Gva, eva: Gva): Exec<void> {
  if (pmap.pmTwin !== undefined) {
    cx.k.vmm.counters.twinUpdates++;
    yield* pmapRemove(cx, pmap.pmTwin, sva, eva);
  }
  yield* pmapScan(cx, pmap, sva, eva, function* (cx, entry) {
    const info = pmapInvalInit(cx);
    const freed = yield* removeEntry(cx, pmap, entry, info);
    yield* pmapInvalDone(cx, info);
    return freed;
  });
}

/**
 * Removes them when the address space ends (`pmap_remove_pages`): nobody else uses it any more, so no CPU is told, and this one forgets
 * everything once at the end. Should other CPUs have the pmap active, it is {@link pmapRemove}.
 */
export function* pmapRemovePages(cx: Cx, pmap: Pmap, sva: Gva, eva: Gva): Exec<void> {
  if ((pmap.pmActive & ~cx.gd.gdCpumask) !== 0) return yield* pmapRemove(cx, pmap, sva, eva);
  yield* pmapScan(cx, pmap, sva, eva, function* (cx, entry) {
    // Historical bug (c50e690bc7): only what has a pv goes.
    if (entry.pte === undefined && cx.k.bug("remove-pages-unmanaged")) return false;
    return yield* removeEntry(cx, pmap, entry, undefined);
  });
  // Whoever enters a guest with these tables flushes first.
  pmap.pmInvgen++;
  yield* cx.k.platform.invltlb(cx, pmap);
  if (pmap.pmTwin !== undefined) yield* pmapRemovePages(cx, pmap.pmTwin, sva, eva);
}

/**
 * Removes every mapping of a page (`pmap_remove_all`). Afterwards it is neither mapped nor writable, and M of its mappings is in
 * `m.dirty`.
 *
 * Preconditions: the page is busy, so that no mapping comes while others go.
 */
export function* pmapRemoveAll(cx: Cx, m: VmPage): Exec<void> {
  if (!cx.k.pmap.pmapInitialized) return;
  kassert((m.flags & (PG_BUSY | PG_UNMANAGED)) !== 0, "pmap_remove_all: page is not busy");
  yield* vmPageSpinLock(cx, m);
  for (let pv = m.md.pvHead; pv !== undefined; pv = m.md.pvHead) {
    kassert(pv.pvM === m, "pmap_remove_all: pv entry on a page's list maps another page");
    const locked = pvHoldTry(pv);
    vmPageSpinUnlock(cx, m);
    if (!locked) {
      yield* pvLock(cx, pv);
      // Whoever had it may have removed the mapping, and the structure may be another mapping's by now.
      if (pv.pvM !== m && !cx.k.bug("pv-revalidate")) {
        pvPut(cx, pv);
        yield* vmPageSpinLock(cx, m);
        continue;
      }
    }
    const info = pmapInvalInit(cx);
    yield* pmapRemovePvPte(cx, pv, undefined, info);
    yield* pmapInvalDone(cx, info);
    yield* pmapRemovePvPage(cx, pv);
    yield* pvFree(cx, pv);
    yield* vmPageSpinLock(cx, m);
  }
  vmPageFlagClear(m, PG_MAPPED | PG_WRITEABLE);
  vmPageSpinUnlock(cx, m);
}
