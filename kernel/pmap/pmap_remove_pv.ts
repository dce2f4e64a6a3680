/**
 * Taking one mapping down: its entry (`pmap_remove_pv_pte`) and its place on the page's list (`pmap_remove_pv_page`).
 *
 * Room: `kernel/pmap/`; imports vm_page. Reference: section 5.4.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import {
  PG_MAPPED,
  PG_REFERENCED,
  PG_WRITEABLE,
  physToVmPage,
  type VmPage,
  vmPageDirty,
  vmPageFlagClear,
  vmPageFlagSet,
  vmPageSpinLock,
  vmPageSpinUnlock,
} from "../vm/vm_page.ts";
import { parentPindex, pindexLevel, type Pmap } from "./pmap.ts";
import {
  PG_A_IDX,
  PG_DEVICE_IDX,
  PG_G_IDX,
  PG_M_IDX,
  PG_MANAGED_IDX,
  PG_V_IDX,
  PG_W_IDX,
} from "./pmap_bits.ts";
import { pmapInvalDeinterlock, type PmapInvalInfo, pmapInvalInterlock } from "./pmap_inval.ts";
import { isKernelPte, pteFrame, pvPteLookup, pvVa, unwireTable, vtopte } from "./pmap_pte.ts";
import { type PvEntry, pvGet, pvPut } from "./pv_entry.ts";

/** What an entry that was taken down leaves to its managed page: M becomes dirty, A referenced. Plain: no step without either. */
export function pteHarvest(cx: Cx, pmap: Pmap, pte: bigint, m: VmPage): void {
  const bits = pmap.pmapBits;
  if ((pte & bits[PG_M_IDX]!) !== 0n) vmPageDirty(cx, m);
  if ((pte & bits[PG_A_IDX]!) !== 0n) vmPageFlagSet(m, PG_REFERENCED);
}

/**
 * Removes the entry of a pv, mapping or table, and counts it out of its table page (`pmap_remove_pv_pte`). The pv stays, to be unlinked from
 * its page and freed by the caller.
 *
 * Preconditions: `pv` locked; `parent` its table's pv, locked, or undefined to have it looked up.
 *
 * @param info Invalidate on all CPUs, by interlock; undefined: on this one only (nobody else uses the pmap). Never for tables: they go away
 * only when no CPU has the pmap active.
 */
export function* pmapRemovePvPte(
  cx: Cx,
  pv: PvEntry,
  parent: PvEntry | undefined,
  info: PmapInvalInfo | undefined,
): Exec<void> {
  const pmap = pv.pvPmap;
  kassert(pmap !== undefined, "pmap_remove_pv_pte: pv entry belongs to no pmap");
  const level = pindexLevel(pv.pvPindex);
  const kernel = isKernelPte(cx.k, pmap, pv.pvPindex);
  let got: PvEntry | undefined;
  if (parent === undefined && !kernel && level < 4) {
    parent = got = yield* pvGet(cx, pmap, parentPindex(pv.pvPindex));
    kassert(got !== undefined, "pmap_remove_pv_pte: a mapping has no table");
  }
  if (level === 0) yield* removeMapping(cx, pmap, pv, parent, info);
  else if (parent !== undefined) {
    kassert(info === undefined, "pmap_remove_pv_pte: a table is removed from a pmap in use");
    const slot = pvPteLookup(cx.k, parent, pv.pvPindex);
    const old = yield* cx.cpu.xchg64(slot, 0n);
    kassert(pteFrame(old) === pv.pvM?.physAddr, "pmap_remove_pv_pte: the entry leads to another table");
  }
  if (parent !== undefined) unwireTable(parent.pvM!);
  if (got !== undefined) pvPut(cx, got);
}

function* removeMapping(
  cx: Cx,
  pmap: Pmap,
  pv: PvEntry,
  parent: PvEntry | undefined,
  info: PmapInvalInfo | undefined,
): Exec<void> {
  const va = pvVa(pv), bits = pmap.pmapBits;
  const ptep = parent === undefined ? vtopte(cx, va) : pvPteLookup(cx.k, parent, pv.pvPindex);
  kassert(ptep !== undefined, "pmap_remove_pv_pte: a kernel mapping has no table");
  // Historical bug (4dd1b99459): the page takes over A and M while the hardware can still set them.
  const early = cx.k.bug("attributes-before-inval");
  if (early) pteHarvest(cx, pmap, yield* cx.cpu.load64(ptep), pv.pvM!);
  if (info !== undefined) yield* pmapInvalInterlock(cx, info, pmap, va);
  const pte = yield* cx.cpu.xchg64(ptep, 0n);
  // From here to the end of pteHarvest nothing else runs: whoever looks finds M in the entry or the page dirty, never neither.
  const managed = bits[PG_MANAGED_IDX]! | bits[PG_V_IDX]!;
  kassert(
    (pte & managed) === managed,
    () => `pmap_remove_pv_pte: entry ${pte.toString(16)} of 0x${va.toString(16)} is not managed`,
  );
  const m = (pte & bits[PG_DEVICE_IDX]!) !== 0n ? pv.pvM : physToVmPage(cx.k, pteFrame(pte));
  kassert(m !== undefined && m === pv.pvM, "pmap_remove_pv_pte: the entry maps another page than its pv");
  if (!early) pteHarvest(cx, pmap, pte, m);
  if ((pte & bits[PG_W_IDX]!) !== 0n) pmap.pmStats.wiredCount--;
  if (info !== undefined) yield* pmapInvalDeinterlock(cx, info, pmap);
  else if (pmap.pmActive & cx.gd.gdCpumask) yield* cx.k.platform.invlpg(cx, va, pmap);
  if ((pte & bits[PG_G_IDX]!) !== 0n) yield* cx.k.platform.invlpg(cx, va, pmap);
}

/**
 * Takes a pv off its page's list (`pmap_remove_pv_page`); with the last one the page is not mapped any more. Gives the page.
 *
 * Preconditions: `pv` locked; its entry is gone.
 */
export function* pmapRemovePvPage(cx: Cx, pv: PvEntry): Exec<VmPage> {
  const m = pv.pvM;
  kassert(m !== undefined, "pmap_remove_pv_page: pv entry maps no page");
  yield* vmPageSpinLock(cx, m);
  pv.pvM = undefined;
  m.md.remove(pv);
  if (m.md.pvHead === undefined) vmPageFlagClear(m, PG_MAPPED | PG_WRITEABLE);
  vmPageSpinUnlock(cx, m);
  return m;
}
