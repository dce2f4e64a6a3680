/**
 * Looking mappings up without faulting, and mapping ahead of faults (`pmap_extract`, `pmap_fault_page_quick`, `pmap_prefault_ok`,
 * `pmap_mincore`, `pmap_object_init_pt`).
 *
 * Room: `kernel/pmap/`; imports vm_page. Reference: section 5.7.
 *
 * @module
 */
import { type Gva, gva, type Hpa, hpa, PAGE_SIZE } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import type { VmObject } from "../vm/vm_object.ts";
import {
  PG_BUSY,
  PG_FICTITIOUS,
  PG_REFERENCED,
  physToVmPage,
  VM_PAGE_BITS_ALL,
  type VmPage,
  vmPageBusyTry,
  vmPageDeactivate,
  vmPageDirty,
  vmPageHold,
  vmPageWakeup,
} from "../vm/vm_page.ts";
import { vmPageCountMin } from "../vm/vm_page2.ts";
import { PQ_CACHE } from "../vm/vm_pageq.ts";
import {
  MAP_PREFAULT_MADVISE,
  MAP_PREFAULT_PARTIAL,
  MINCORE_INCORE,
  MINCORE_MODIFIED,
  MINCORE_MODIFIED_OTHER,
  MINCORE_REFERENCED,
  MINCORE_REFERENCED_OTHER,
  VM_PROT_READ,
  VM_PROT_WRITE,
  type VmProt,
} from "../vm/vm_param.ts";
import { type Pmap, pmapPtePindex, pmapPtPindex } from "./pmap.ts";
import {
  EPT_PMAP,
  PG_A_IDX,
  PG_M_IDX,
  PG_MANAGED_IDX,
  PG_RW_IDX,
  PG_U_IDX,
  PG_V_IDX,
  TYPE_IDX,
} from "./pmap_bits.ts";
import { pmapEnterQuick } from "./pmap_enter.ts";
import { entryIn, indexAt, isUserVa, pteFrame, vtopte } from "./pmap_pte.ts";
import { pmapIsModified, pmapTsReferenced } from "./pmap_protect.ts";
import { pvDrop, type PvEntry, pvFind, pvGet, pvGetTry, pvPut } from "./pv_entry.ts";

/** Pages beyond which a partial request maps nothing (`MAX_INIT_PT`). */
export const MAX_INIT_PT = 96;
/** Bits of an address within its page. */
const PAGE_OFFSET = 0xfffn;

/**
 * The entry for a user or kernel address, 0n if there is none. For a user address the PT page's pv is held meanwhile, so that the table
 * does not go; the answer is old as soon as it is given, unless the page is wired.
 */
function* readEntry(cx: Cx, pmap: Pmap, va: Gva): Exec<bigint> {
  if (!isUserVa(cx, pmap, va)) {
    const ptep = vtopte(cx, va);
    return ptep === undefined ? 0n : yield* cx.cpu.load64(ptep);
  }
  const pt = yield* pvFind(cx, pmap, pmapPtPindex(va));
  if (pt === undefined) return 0n;
  const entry = pt.pvM === undefined
    ? 0n
    : yield* cx.cpu.load64(entryIn(cx.k, pt.pvM.physAddr, indexAt(va, 1)));
  pvDrop(cx, pt);
  return entry;
}

/** Physical address behind `va`, if it is mapped (`pmap_extract`). For a user address the caller has wired the page. */
export function* pmapExtract(cx: Cx, pmap: Pmap, va: Gva): Exec<Hpa | undefined> {
  const entry = yield* readEntry(cx, pmap, va);
  if ((entry & pmap.pmapBits[PG_V_IDX]!) === 0n) return undefined;
  return hpa(pteFrame(entry) + Number(va & PAGE_OFFSET));
}

/** Physical address of a kernel virtual address that has an entry of its own (`pmap_kextract`); the direct map has none. */
export function pmapKextract(cx: Cx, va: Gva): Exec<Hpa | undefined> {
  return pmapExtract(cx, cx.k.pmap.kernelPmap, va);
}

/** The page mapped at a kernel address by pmap_qenter (`pmap_kvtom`). */
export function* pmapKvtom(cx: Cx, va: Gva): Exec<VmPage | undefined> {
  const pa = yield* pmapKextract(cx, (va & ~PAGE_OFFSET) as Gva);
  return pa === undefined ? undefined : physToVmPage(cx.k, pa);
}

/**
 * The page at `va`, held, if its mapping allows `prot` and nobody has to be waited for (`pmap_fault_page_quick`). For a write the page is
 * dirtied: the caller writes through another mapping.
 *
 * Fails for EPT pmaps (January 2017, `dc039ae0ab`): their entries have no U to test.
 */
export function* pmapFaultPageQuick(cx: Cx, pmap: Pmap, va: Gva, prot: VmProt): Exec<VmPage | undefined> {
  if (pmap.pmapBits[TYPE_IDX] === EPT_PMAP || !isUserVa(cx, pmap, va)) return undefined;
  const pt = yield* pvGet(cx, pmap, pmapPtPindex(va));
  if (pt === undefined) return undefined;
  let m: VmPage | undefined;
  const { pv: pte, busy } = yield* pvGetTry(cx, pmap, pmapPtePindex(va));
  if (pte !== undefined && busy) pvDrop(cx, pte);
  else if (pte !== undefined) {
    m = yield* holdMapped(cx, pmap, pte, entryIn(cx.k, pt.pvM!.physAddr, indexAt(va, 1)), prot);
    pvPut(cx, pte);
  }
  pvPut(cx, pt);
  return m;
}

/** The held page of a locked mapping, if its entry allows `prot`. */
function* holdMapped(cx: Cx, pmap: Pmap, pte: PvEntry, ptep: Gva, prot: VmProt): Exec<VmPage | undefined> {
  const bits = pmap.pmapBits;
  const entry = yield* cx.cpu.load64(ptep);
  const need = bits[PG_V_IDX]! | bits[PG_U_IDX]! | (prot & VM_PROT_WRITE ? bits[PG_RW_IDX]! : 0n);
  if ((entry & need) !== need) return undefined;
  const m = pte.pvM;
  kassert(m !== undefined, "pmap_fault_page_quick: a mapping has no page");
  if (m.flags & PG_FICTITIOUS) return undefined;
  vmPageHold(m);
  if (prot & VM_PROT_WRITE) vmPageDirty(cx, m);
  return m;
}

/** Whether a prefault at `va` can do something: its PT page exists and the entry is empty (`pmap_prefault_ok`). */
export function* pmapPrefaultOk(cx: Cx, pmap: Pmap, va: Gva): Exec<boolean> {
  const pt = yield* pvFind(cx, pmap, pmapPtPindex(va));
  if (pt === undefined) return false;
  const empty = pt.pvM !== undefined &&
    (yield* cx.cpu.load64(entryIn(cx.k, pt.pvM.physAddr, indexAt(va, 1)))) === 0n;
  pvDrop(cx, pt);
  return empty;
}

/**
 * MINCORE_* bits of the mapping at `va`, 0 if there is none (`pmap_mincore`). What this mapping does not know of the page, the page's other
 * mappings are asked for.
 */
export function* pmapMincore(cx: Cx, pmap: Pmap, va: Gva): Exec<number> {
  const bits = pmap.pmapBits;
  const entry = yield* readEntry(cx, pmap, va);
  if ((entry & bits[PG_V_IDX]!) === 0n) return 0;
  let value = MINCORE_INCORE;
  if ((entry & bits[PG_MANAGED_IDX]!) === 0n) return value;
  const m = physToVmPage(cx.k, pteFrame(entry));
  if (m === undefined) return value;
  if ((entry & bits[PG_M_IDX]!) !== 0n) value |= MINCORE_MODIFIED | MINCORE_MODIFIED_OTHER;
  else if (m.dirty !== 0 || (yield* pmapIsModified(cx, m))) value |= MINCORE_MODIFIED_OTHER;
  if ((entry & bits[PG_A_IDX]!) !== 0n) value |= MINCORE_REFERENCED | MINCORE_REFERENCED_OTHER;
  else if ((m.flags & PG_REFERENCED) !== 0 || (yield* pmapTsReferenced(cx, m)) !== 0) {
    value |= MINCORE_REFERENCED_OTHER;
    m.flags |= PG_REFERENCED;
  }
  return value;
}

/**
 * Maps what is resident of an object, read only, so that it need not be faulted in (`pmap_object_init_pt`).
 *
 * Preconditions: the caller holds the object's token, at least shared.
 *
 * @param pindex Object's page for `addr`. @param size Bytes. @param limit MAP_PREFAULT_*: a partial request does nothing when it is for
 * much; madvise's leaves memory alone when there is little.
 */
export function* pmapObjectInitPt(
  cx: Cx,
  pmap: Pmap,
  addr: Gva,
  prot: VmProt,
  object: VmObject,
  pindex: number,
  size: number,
  limit: number,
): Exec<void> {
  if ((prot & VM_PROT_READ) === 0) return;
  let pages = Math.floor(size / PAGE_SIZE);
  if ((limit & MAP_PREFAULT_PARTIAL) !== 0 && pages > MAX_INIT_PT && object.residentPageCount > MAX_INIT_PT) {
    return;
  }
  if (pindex + pages > object.size) {
    if (object.size < pindex) return;
    pages = object.size - pindex;
  }
  // The tree is asked anew each time: entering a mapping may sleep.
  for (let m = object.rbMemq.lookupGE(pindex); m !== undefined && m.pindex < pindex + pages;) {
    const index = m.pindex;
    if ((limit & MAP_PREFAULT_MADVISE) !== 0 && vmPageCountMin(cx.k)) return;
    if (!vmPageBusyTry(cx, m, true)) {
      if (m.valid === VM_PAGE_BITS_ALL && (m.flags & PG_FICTITIOUS) === 0 && m.object === object) {
        // CACHE pages are never mapped.
        if (m.queue - m.pc === PQ_CACHE) vmPageDeactivate(cx, m);
        const va = gva(addr + BigInt((index - pindex) * PAGE_SIZE));
        // What is mapped already may have more rights than this.
        if ((yield* readEntry(cx, pmap, va)) === 0n) yield* pmapEnterQuick(cx, pmap, va, m, prot);
      }
      kassert((m.flags & PG_BUSY) !== 0, "pmap_object_init_pt: the page is not busy any more");
      vmPageWakeup(cx, m);
    }
    m = object.rbMemq.lookupGT(index);
  }
}

/** fork copies no entries (`pmap_copy`): the child faults them in. */
export function pmapCopy(): void {}
