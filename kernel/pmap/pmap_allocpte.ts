/**
 * Making pv entries with the tables above them (`pmap_allocpte`).
 *
 * Room: `kernel/pmap/`; imports vm_page. Reference: section 5.2.
 *
 * The recursion goes from the child up, in the order in which locks are taken. A table page's `wireCount` is 1 for its own place plus the
 * number of its entries; whoever fills an entry counts it.
 *
 * Left out: `pmap_allocpte_seg` (page tables shared through objects), which DragonFly has off by default (`machdep.pmap_mmu_optimize`).
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import {
  PG_MAPPED,
  PG_WRITEABLE,
  PG_ZERO,
  VM_ALLOC_INTERRUPT,
  VM_ALLOC_NORMAL,
  VM_ALLOC_SYSTEM,
  VM_ALLOC_ZERO,
  VM_PAGE_BITS_ALL,
  type VmPage,
  vmPageFlagClear,
  vmPageFlagSet,
  vmPageSpinLock,
  vmPageSpinUnlock,
  vmPageUnmanage,
  vmPageWakeup,
  vmPageWire,
} from "../vm/vm_page.ts";
import { vmPageAlloc, vmWait } from "../vm/vm_page_alloc.ts";
import { parentPindex, pindexLevel, type Pmap } from "./pmap.ts";
import { PG_A_IDX, PG_M_IDX, PG_RW_IDX, PG_U_IDX, PG_V_IDX } from "./pmap_bits.ts";
import { pmapZeroPage } from "./pmap_page.ts";
import { isKernelPte, pvPteLookup, wireTable } from "./pmap_pte.ts";
import { pvAlloc, type PvEntry, pvPut } from "./pv_entry.ts";

/** What pmap_allocpte gives. */
export interface AllocatedPte {
  /** The pv asked for, locked. */
  readonly pv: PvEntry;
  /** The PT page's pv, locked, if it was asked for and there is one (kernel pages have none). */
  readonly parent: PvEntry | undefined;
}

/** Finds or makes the pv of a mapping and that of its PT page, both locked, with all tables above (`pmap_allocpte` with `pvpp`). */
export function* pmapAllocpte(cx: Cx, pmap: Pmap, pindex: number): Exec<AllocatedPte> {
  kassert(pindexLevel(pindex) === 0, "pmap_allocpte: not a page's pindex");
  const { pv, isnew } = yield* pvAlloc(cx, pmap, pindex);
  if (isKernelPte(cx.k, pmap, pindex)) return { pv, parent: undefined };
  const parent = yield* pmapAllocTable(cx, pmap, parentPindex(pindex));
  if (isnew) wireTable(parent.pvM!);
  return { pv, parent };
}

/** Finds or makes the pv of a table page, locked, with the page installed in its parent. */
export function* pmapAllocTable(cx: Cx, pmap: Pmap, pindex: number): Exec<PvEntry> {
  const { pv, isnew } = yield* pvAlloc(cx, pmap, pindex);
  if (!isnew) {
    kassert(pv.pvM !== undefined, "pmap_allocpte: a table's pv has no page");
    return pv;
  }
  const isRoot = pindexLevel(pindex) === 4;
  const parent = isRoot ? undefined : yield* pmapAllocTable(cx, pmap, parentPindex(pindex));
  const m = yield* allocTablePage(cx, pindex);

  yield* vmPageSpinLock(cx, m);
  pv.pvM = m;
  m.md.insert(pv);
  vmPageFlagSet(m, PG_MAPPED | PG_WRITEABLE);
  vmPageSpinUnlock(cx, m);
  vmPageUnmanage(cx, m);
  if ((m.flags & PG_ZERO) === 0) yield* pmapZeroPage(cx, m.physAddr);
  m.valid = VM_PAGE_BITS_ALL;
  vmPageFlagClear(m, PG_ZERO);
  vmPageWire(cx, m);

  if (parent !== undefined) {
    const slot = pvPteLookup(cx.k, parent, pindex);
    const old = yield* cx.cpu.load64(slot);
    kassert(old === 0n, "pmap_allocpte: the place of a new table is taken");
    wireTable(parent.pvM!);
    yield* cx.cpu.store64(slot, BigInt(m.physAddr) | tableBits(pmap));
  }
  vmPageWakeup(cx, m);
  if (parent !== undefined) pvPut(cx, parent);
  return pv;
}

/** A page for a table: from the last reserves, since who needs it holds pv locks. */
function* allocTablePage(cx: Cx, pindex: number): Exec<VmPage> {
  for (;;) {
    const m = vmPageAlloc(
      cx,
      undefined,
      pindex,
      VM_ALLOC_NORMAL | VM_ALLOC_SYSTEM | VM_ALLOC_INTERRUPT | VM_ALLOC_ZERO,
    );
    if (m !== undefined) return m;
    yield* vmWait(cx);
  }
}

/** Bits of an entry that leads to a table: everything is allowed there, the leaf decides. */
export function tableBits(pmap: Pmap): bigint {
  const bits = pmap.pmapBits;
  return bits[PG_U_IDX]! | bits[PG_RW_IDX]! | bits[PG_V_IDX]! | bits[PG_A_IDX]! | bits[PG_M_IDX]!;
}
