/**
 * Walking the mappings of a range of addresses (`pmap_scan`).
 *
 * Room: `kernel/pmap/`. Reference: section 5.5.
 *
 * The walk goes from PT page to PT page by the tree, and over the entries in each. Locks are taken against their order, so only tried
 * ({@link pvGetTry}); what fails is waited for with nothing held, and the step is done again. The callback gets an entry with its pv (or none,
 * for an unmanaged page) and its PT page's pv, all locked, so that the entry cannot be taken away, only A and M change.
 *
 * What is entered behind the walk's back is not seen; who needs a range empty keeps others from entering (the map's lock).
 *
 * @module
 */
import { type Gva, gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { spinLockShared, spinUnlockShared } from "../lwkt/spinlock.ts";
import { lwktUserYield } from "../lwkt/thread.ts";
import { lwktGettoken, lwktReltoken } from "../lwkt/token.ts";
import { NPTEPG, pindexToVa, type Pmap, pmapPtePindex, pmapPtPindex } from "./pmap.ts";
import { PG_MANAGED_IDX } from "./pmap_bits.ts";
import { entryIn, indexAt, isUserVa, vtopte } from "./pmap_pte.ts";
import { type PvEntry, pvFind, pvGet, pvGetTry, pvPut, pvWait } from "./pv_entry.ts";

/** An entry that the walk has come to. */
export interface PmapScanEntry {
  /** Its page's address. */
  readonly va: Gva;
  /** Where it is. */
  readonly ptep: Gva;
  /** Its pv, locked; undefined for an unmanaged page. The callback may free it, and then says so. */
  readonly pte: PvEntry | undefined;
  /** Its PT page's pv, locked; undefined for kernel addresses. */
  readonly pt: PvEntry | undefined;
}

/** What is done with each entry. True: the pv has been freed. */
export type PmapScanFunc = (cx: Cx, entry: PmapScanEntry) => Exec<boolean>;

const PAGE = 0x1000n;
/** Bytes that one PT page maps. */
const NBPDR = 0x20_0000n;

/** Calls `func` for every entry in `[sva, eva)` that is there. May sleep. */
export function* pmapScan(cx: Cx, pmap: Pmap, sva: Gva, eva: Gva, func: PmapScanFunc): Exec<void> {
  if (sva >= eva) return;
  kassert(((sva | eva) & 0xfffn) === 0n, "pmap_scan: the range does not consist of pages");
  yield* lwktGettoken(cx, pmap.pmToken);
  if (pmap.pmStats.residentCount !== 0 || pmap === cx.k.pmap.kernelPmap) {
    if (!isUserVa(cx, pmap, sva)) yield* scanKernel(cx, pmap, sva, eva, func);
    else if (sva + PAGE === eva) yield* scanPage(cx, pmap, sva, func);
    else yield* scanUser(cx, pmap, sva, eva, func);
  }
  lwktReltoken(cx, pmap.pmToken);
}

/** One page: its pv and then its table's, in lock order. */
function* scanPage(cx: Cx, pmap: Pmap, va: Gva, func: PmapScanFunc): Exec<void> {
  for (;;) {
    const pte = yield* pvGet(cx, pmap, pmapPtePindex(va));
    const pt = yield* pvGet(cx, pmap, pmapPtPindex(va));
    if (pt === undefined) {
      kassert(pte === undefined, "pmap_scan: a mapping has no table");
      return;
    }
    // Between the two look-ups an entry may have come, with a pv that is not locked here: once more.
    const late = pte === undefined ? yield* pvFind(cx, pmap, pmapPtePindex(va)) : undefined;
    if (late !== undefined) {
      pvPut(cx, pt);
      yield* pvWait(cx, late);
      continue;
    }
    yield* call(cx, pmap, { va, ptep: entryIn(cx.k, pt.pvM!.physAddr, indexAt(va, 1)), pte, pt }, func);
    pvPut(cx, pt);
    return;
  }
}

/** Kernel pages have no pv's above the last level, and tables that never go away. */
function* scanKernel(cx: Cx, pmap: Pmap, sva: Gva, eva: Gva, func: PmapScanFunc): Exec<void> {
  for (let va: bigint = sva; va < eva;) {
    const ptep = vtopte(cx, gva(va));
    if (ptep === undefined) {
      va = (va & ~(NBPDR - 1n)) + NBPDR;
      continue;
    }
    if ((yield* cx.cpu.load64(ptep)) !== 0n) {
      for (;;) {
        const pte = yield* pvGet(cx, pmap, pmapPtePindex(va));
        if (!(yield* call(cx, pmap, { va: gva(va), ptep, pte, pt: undefined }, func))) break;
      }
    }
    va += PAGE;
  }
}

/**
 * Looks at the entry under its locks and calls the callback if there is one. The pv is put unless the callback freed it. True, for kernel
 * addresses only: an insertion raced, the entry has a pv now; look again.
 */
function* call(cx: Cx, pmap: Pmap, entry: PmapScanEntry, func: PmapScanFunc): Exec<boolean> {
  const { pte, ptep, va } = entry;
  const value = yield* cx.cpu.load64(ptep);
  const managed = (value & pmap.pmapBits[PG_MANAGED_IDX]!) !== 0n;
  if (pte === undefined) {
    if (value === 0n) return false;
    if (managed) {
      // With the table locked nobody enters, and a pv goes only after its entry: then the pv is lost.
      kassert(
        entry.pt === undefined,
        () => `pmap_scan: 0x${va.toString(16)} is mapped as managed, but has no pv entry`,
      );
      return true;
    }
    yield* func(cx, entry);
    return false;
  }
  kassert(
    managed,
    () => `pmap_scan: 0x${va.toString(16)} has a pv entry, but its entry is 0x${value.toString(16)}`,
  );
  if (!(yield* func(cx, entry))) pvPut(cx, pte);
  return false;
}

/** A range of user pages: through the tree, from PT page to PT page. Stretches without one cost nothing. */
function* scanUser(cx: Cx, pmap: Pmap, sva: Gva, eva: Gva, func: PmapScanFunc): Exec<void> {
  const last = pmapPtPindex(eva - 1n);
  for (let at: bigint = sva; at < eva;) {
    // The next PT page; its structure is not kept, only its address.
    yield* spinLockShared(cx, pmap.pmSpin);
    const pindex = pmap.pmPvroot.lookupGE(pmapPtPindex(at))?.pvPindex;
    spinUnlockShared(cx, pmap.pmSpin);
    if (pindex === undefined || pindex > last) return;
    const start: bigint = pindexToVa(pindex);
    if (start > at) at = start;
    const next = (at & ~(NBPDR - 1n)) + NBPDR;
    yield* scanTable(cx, pmap, gva(at), gva(next < eva ? next : eva), func);
    at = next;
    yield* lwktUserYield(cx);
  }
}

/** The entries of one PT page, `[sva, eva)`. */
function* scanTable(cx: Cx, pmap: Pmap, sva: Gva, eva: Gva, func: PmapScanFunc): Exec<void> {
  let va: bigint = sva;
  restart: for (;;) {
    const pt = yield* pvGet(cx, pmap, pmapPtPindex(va));
    if (pt === undefined) return;
    const table = pt.pvM!.physAddr;
    // While the PT page's pv is locked nobody enters anything; what is empty now stays so and needs no second look.
    const first = indexAt(gva(va), 1);
    const bytes = yield* cx.cpu.loadBytes(
      entryIn(cx.k, table, first),
      (indexAt(gva(eva - 1n), 1) - first + 1) * 8,
    );
    const words = new BigUint64Array(bytes.buffer);
    kassert(words.length <= NPTEPG, "pmap_scan: the range leaves its table");
    for (let i = 0; i < words.length; i++, va += PAGE) {
      if (words[i] === 0n) continue;
      const { pv: pte, busy } = yield* pvGetTry(cx, pmap, pmapPtePindex(va));
      if (busy) {
        pvPut(cx, pt);
        yield* pvWait(cx, pte!);
        continue restart;
      }
      yield* call(cx, pmap, { va: gva(va), ptep: entryIn(cx.k, table, first + i), pte, pt }, func);
    }
    pvPut(cx, pt);
    return;
  }
}
