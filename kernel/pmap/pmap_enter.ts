/**
 * Entering mappings (`pmap_enter`, `pmap_enter_quick`).
 *
 * Room: `kernel/pmap/`; imports vm_page. Reference: section 5.3.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import type { VmMapEntry } from "../vm/vm_map_entry.ts";
import {
  PG_BUSY,
  PG_FICTITIOUS,
  PG_MAPPED,
  PG_UNMANAGED,
  PG_WRITEABLE,
  type VmPage,
  vmPageFlagSet,
  vmPageSpinLock,
  vmPageSpinUnlock,
} from "../vm/vm_page.ts";
import { VM_PROT_ALL, VM_PROT_EXECUTE, VM_PROT_NOSYNC, VM_PROT_READ, type VmProt } from "../vm/vm_param.ts";
import { type Pmap, pmapPtePindex, pmapPtPindex } from "./pmap.ts";
import { pmapAllocpte, pmapAllocTable } from "./pmap_allocpte.ts";
import {
  PG_A_IDX,
  PG_DEVICE_IDX,
  PG_M_IDX,
  PG_MANAGED_IDX,
  PG_RW_IDX,
  PG_U_IDX,
  PG_V_IDX,
  PG_W_IDX,
} from "./pmap_bits.ts";
import {
  pmapInvalDeinterlock,
  pmapInvalDone,
  type PmapInvalInfo,
  pmapInvalInit,
  pmapInvalInterlock,
} from "./pmap_inval.ts";
import { entryIn, indexAt, isUserVa, kernelLevelBit, vtopte, wireTable } from "./pmap_pte.ts";
import { pmapRemovePvPage, pmapRemovePvPte } from "./pmap_remove_pv.ts";
import { type PvEntry, pvPut } from "./pv_entry.ts";

/**
 * Maps page `m` at `va`, now (`pmap_enter`). A is set in advance; M is not, since the page has not been changed through this mapping.
 *
 * More rights for a page that is mapped already, RO to RW, are a removal and an insertion, with one interlock. 0 → valid needs none for user
 * addresses: another CPU at most faults and looks again.
 *
 * Preconditions: `m` is busied by the caller. Kernel addresses have page tables (`pmap_growkernel`).
 *
 * @param prot VM_PROT_*; with VM_PROT_NOSYNC no other CPU uses the address, and none is told.
 * @param wired Counts in pmStats.wiredCount.
 */
export function* pmapEnter(
  cx: Cx,
  pmap: Pmap,
  va: Gva,
  m: VmPage,
  prot: VmProt,
  wired: boolean,
  _entry?: VmMapEntry,
): Exec<void> {
  yield* enterOne(cx, pmap, va, m, prot, wired);
  if (pmap.pmTwin === undefined) return;
  cx.k.vmm.counters.twinUpdates++;
  yield* enterOne(cx, pmap.pmTwin, va, m, prot, false);
}

function* enterOne(
  cx: Cx,
  pmap: Pmap,
  va: Gva,
  m: VmPage,
  prot: VmProt,
  wired: boolean,
): Exec<void> {
  kassert((m.flags & (PG_BUSY | PG_UNMANAGED)) !== 0, "pmap_enter: page is not busy");
  va = (va & ~0xfffn) as Gva;
  const user = isUserVa(cx, pmap, va);
  const managed = (m.flags & PG_UNMANAGED) === 0;
  kassert(
    user === (pmap !== cx.k.pmap.kernelPmap),
    "pmap_enter: user address in the kernel's pmap, or the reverse",
  );
  let pte: PvEntry | undefined, pt: PvEntry | undefined;
  if (managed) {
    const got = yield* pmapAllocpte(cx, pmap, pmapPtePindex(va));
    pte = got.pv;
    pt = got.parent;
  } else if (user) pt = yield* pmapAllocTable(cx, pmap, pmapPtPindex(va));
  if (!managed && pt !== undefined && cx.k.bug("unmanaged-unlocked")) {
    // Historical bug (76f1911e60): an unmanaged page has no pv of its own, and nothing else keeps two of the same address apart.
    pvPut(cx, pt);
  }
  const ptep = pt === undefined ? vtopte(cx, va) : entryIn(cx.k, pt.pvM!.physAddr, indexAt(va, 1));
  kassert(ptep !== undefined, () => `pmap_enter: kernel address 0x${va.toString(16)} has no page table`);

  const bits = pmap.pmapBits;
  const managedBit = bits[PG_MANAGED_IDX]!;
  const origpte = yield* cx.cpu.load64(ptep);
  if (!managed && cx.k.bug("unmanaged-unlocked")) yield* cx.racePoint();
  kassert(
    origpte === 0n || ((origpte & managedBit) !== 0n) === managed,
    "pmap_enter: a managed mapping meets an unmanaged one",
  );
  let newpte = BigInt(m.physAddr) | pmap.protectionCodes[prot & VM_PROT_ALL]! | bits[PG_V_IDX]! |
    bits[PG_A_IDX]!;
  if (wired) newpte |= bits[PG_W_IDX]!;
  newpte |= user ? bits[PG_U_IDX]! : kernelLevelBit(cx.k);
  if (managed) newpte |= managedBit;
  if (m.flags & PG_FICTITIOUS) newpte |= bits[PG_DEVICE_IDX]!;
  newpte |= pmap.pmapCacheBits[m.patMode]!;

  // Another thread may have come through the same fault.
  if (((origpte ^ newpte) & ~(bits[PG_M_IDX]! | bits[PG_A_IDX]!)) !== 0n) {
    // Historical bug (c50e690bc7): the page is marked first, and the removal of its last mapping unmarks it.
    const early = cx.k.bug("pg-writeable-early");
    if (early && managed && (newpte & bits[PG_RW_IDX]!) !== 0n) vmPageFlagSet(m, PG_WRITEABLE);
    const info = (prot & VM_PROT_NOSYNC) === 0 ? pmapInvalInit(cx) : undefined;
    if (origpte !== 0n) yield* removeOld(cx, { pmap, va, ptep, pte, pt, info });
    yield* link(cx, { pmap, m, pte, pt });
    // Before the mapping exists: vm_page_protect looks at the flag alone.
    if (!early && managed && (newpte & bits[PG_RW_IDX]!) !== 0n) vmPageFlagSet(m, PG_WRITEABLE);
    if (wired) pmap.pmStats.wiredCount++;
    yield* cx.racePoint();
    if (info === undefined || user) {
      yield* cx.cpu.store64(ptep, newpte);
      // NOSYNC for the kernel: this CPU may have the page's last mapping.
      if (!user) yield* cx.k.platform.invlpg(cx, va, pmap);
    } else {
      yield* pmapInvalInterlock(cx, info, pmap, va);
      yield* cx.cpu.store64(ptep, newpte);
      yield* pmapInvalDeinterlock(cx, info, pmap);
    }
    if (info !== undefined) yield* pmapInvalDone(cx, info);
  }
  kassert(!managed || (m.flags & PG_MAPPED) !== 0, "pmap_enter: the page is mapped but not marked so");
  if (pte !== undefined) pvPut(cx, pte);
  if (pt !== undefined && (managed || !cx.k.bug("unmanaged-unlocked"))) pvPut(cx, pt);
}

/** The mapping that stands in the way goes; its place in the table and, if it was managed, its pv stay. */
function* removeOld(
  cx: Cx,
  at: {
    readonly pmap: Pmap;
    readonly va: Gva;
    readonly ptep: Gva;
    readonly pte: PvEntry | undefined;
    readonly pt: PvEntry | undefined;
    readonly info: PmapInvalInfo | undefined;
  },
): Exec<void> {
  const { pmap, va, ptep, pte, pt, info } = at;
  if (pte !== undefined) {
    // The removal counts the entry out of its table, and the new one is in it already.
    if (pt !== undefined) wireTable(pt.pvM!);
    yield* pmapRemovePvPte(cx, pte, pt, info);
    if (pte.pvM !== undefined) yield* pmapRemovePvPage(cx, pte);
    return;
  }
  if (info !== undefined) yield* pmapInvalInterlock(cx, info, pmap, va);
  const old = yield* cx.cpu.xchg64(ptep, 0n);
  if ((old & pmap.pmapBits[PG_W_IDX]!) !== 0n) pmap.pmStats.wiredCount--;
  if (pt !== undefined) pmap.pmStats.residentCount--;
  // The table keeps its count for the new entry: link() counts for it.
  if (pt !== undefined) pt.pvM!.wireCount--;
  if (info !== undefined) yield* pmapInvalDeinterlock(cx, info, pmap);
  else yield* cx.k.platform.invlpg(cx, va, pmap);
}

/** Puts a managed mapping on its page's list; counts an unmanaged one. The entry in the table is still empty. */
function* link(
  cx: Cx,
  { pmap, m, pte, pt }: {
    readonly pmap: Pmap;
    readonly m: VmPage;
    readonly pte: PvEntry | undefined;
    readonly pt: PvEntry | undefined;
  },
): Exec<void> {
  if (pte === undefined) {
    if (pt === undefined) return;
    wireTable(pt.pvM!);
    pmap.pmStats.residentCount++;
    return;
  }
  yield* vmPageSpinLock(cx, m);
  pte.pvM = m;
  m.md.insert(pte);
  vmPageFlagSet(m, PG_MAPPED);
  vmPageSpinUnlock(cx, m);
}

/** Maps a page without WRITE, unwired (`pmap_enter_quick`). The page is busied by the caller. @param prot What the map allows. */
export function pmapEnterQuick(
  cx: Cx,
  pmap: Pmap,
  va: Gva,
  m: VmPage,
  prot: VmProt = VM_PROT_READ | VM_PROT_EXECUTE,
): Exec<void> {
  return pmapEnter(cx, pmap, va, m, prot & (VM_PROT_READ | VM_PROT_EXECUTE), false);
}
