/**
 * The kernel's own mappings, without pv entries (`pmap_kenter`, `pmap_qenter` and their kin), and its page tables' growth.
 *
 * Room: `kernel/pmap/`; imports vm_page. Reference: sections 5 and 6.
 *
 * @module
 */
import { type Gva, gva, type Hpa } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert, panic } from "../kern/panic.ts";
import {
  VM_ALLOC_INTERRUPT,
  VM_ALLOC_SYSTEM,
  VM_ALLOC_ZERO,
  VM_PAGE_BITS_ALL,
  type VmPage,
  vmPageFree,
  vmPageUnmanage,
  vmPageUnwire,
  vmPageWakeup,
  vmPageWire,
} from "../vm/vm_page.ts";
import { vmPageAlloc } from "../vm/vm_page_alloc.ts";
import { pmapPtPindex } from "./pmap.ts";
import { PG_A_IDX, PG_M_IDX, PG_NX_IDX, PG_PS_IDX, PG_RW_IDX, PG_V_IDX } from "./pmap_bits.ts";
import {
  pmapInvalDeinterlock,
  pmapInvalDone,
  pmapInvalInit,
  pmapInvalInterlock,
  smpInvltlb,
} from "./pmap_inval.ts";
import { pmapZeroPage } from "./pmap_page.ts";
import { entryIn, indexAt, kernelLevelBit, pteFrame, vtopte } from "./pmap_pte.ts";

/** Bytes that one PT page maps. */
const NBPDR = 0x20_0000n;
const PAGE = 0x1000n;

/** Bits of a kernel data mapping. */
function kernelBits(cx: Cx): bigint {
  const bits = cx.k.pmap.kernelPmap.pmapBits;
  return bits[PG_V_IDX]! | bits[PG_RW_IDX]! | bits[PG_A_IDX]! | bits[PG_M_IDX]! | bits[PG_NX_IDX]! |
    kernelLevelBit(cx.k);
}

function entryOf(cx: Cx, va: Gva): Gva {
  const ptep = vtopte(cx, va);
  if (ptep === undefined) panic(cx, `pmap: kernel address 0x${va.toString(16)} has no page table`);
  return ptep;
}

/** Changes a kernel entry with all CPUs told. */
function* setEntry(cx: Cx, va: Gva, value: bigint): Exec<void> {
  const { kernelPmap } = cx.k.pmap;
  const ptep = entryOf(cx, va);
  const info = pmapInvalInit(cx);
  yield* pmapInvalInterlock(cx, info, kernelPmap, va);
  yield* cx.cpu.xchg64(ptep, value);
  yield* pmapInvalDeinterlock(cx, info, kernelPmap);
  yield* pmapInvalDone(cx, info);
}

/** Maps a physical page at a kernel address, read and write, for all CPUs (`pmap_kenter`). */
export function pmapKenter(cx: Cx, va: Gva, pa: Hpa): Exec<void> {
  return setEntry(cx, va, BigInt(pa) | kernelBits(cx));
}

/** The same where only this CPU uses the address (`pmap_kenter_quick`). */
export function* pmapKenterQuick(cx: Cx, va: Gva, pa: Hpa): Exec<void> {
  yield* cx.cpu.xchg64(entryOf(cx, va), BigInt(pa) | kernelBits(cx));
  yield* cx.k.platform.invlpg(cx, va, cx.k.pmap.kernelPmap);
}

/** Unmaps a kernel address for all CPUs (`pmap_kremove`). */
export function pmapKremove(cx: Cx, va: Gva): Exec<void> {
  return setEntry(cx, va, 0n);
}

/** The same where only this CPU used the address (`pmap_kremove_quick`). */
export function* pmapKremoveQuick(cx: Cx, va: Gva): Exec<void> {
  yield* cx.cpu.xchg64(entryOf(cx, va), 0n);
  yield* cx.k.platform.invlpg(cx, va, cx.k.pmap.kernelPmap);
}

/**
 * Maps pages at consecutive kernel addresses (`pmap_qenter`); the caller keeps them from going (busy, wired or held). If something was
 * mapped there, all CPUs forget everything.
 */
export function* pmapQenter(cx: Cx, beg: Gva, pages: readonly VmPage[]): Exec<void> {
  const { kernelPmap } = cx.k.pmap;
  let replaced = false, va: bigint = beg;
  for (const m of pages) {
    const pte = BigInt(m.physAddr) | kernelBits(cx) | kernelPmap.pmapCacheBits[m.patMode]!;
    if ((yield* cx.cpu.xchg64(entryOf(cx, gva(va)), pte)) !== 0n) replaced = true;
    va += PAGE;
  }
  if (replaced) yield* smpInvltlb(cx);
}

/** Unmaps `count` pages that pmap_qenter mapped, on all CPUs (`pmap_qremove`). */
export function* pmapQremove(cx: Cx, beg: Gva, count: number): Exec<void> {
  let removed = false;
  for (let i = 0, va: bigint = beg; i < count; i++, va += PAGE) {
    if ((yield* cx.cpu.xchg64(entryOf(cx, gva(va)), 0n)) !== 0n) removed = true;
  }
  if (removed) yield* smpInvltlb(cx);
}

/** Unmaps them on this CPU alone (`pmap_qremove_quick`): nobody else has used the addresses. */
export function* pmapQremoveQuick(cx: Cx, beg: Gva, count: number): Exec<void> {
  for (let i = 0, va: bigint = beg; i < count; i++, va += PAGE) yield* pmapKremoveQuick(cx, gva(va));
}

/**
 * Makes page tables for the kernel addresses `[kstart, kend)` (`pmap_growkernel`). Called by whoever gives kernel virtual memory out, before
 * anything is mapped there. The tables never go away, and every pmap sees them: all share the kernel's PDP page.
 */
export function* pmapGrowkernel(cx: Cx, kstart: Gva, kend: Gva): Exec<void> {
  const state = cx.k.pmap;
  for (let va: bigint = kstart & ~(NBPDR - 1n); va < kend; va += NBPDR) {
    if (!state.kernelPts.has(pmapPtPindex(va))) yield* growTable(cx, gva(va));
  }
  if (kend > state.kernelVmEnd) state.kernelVmEnd = gva((kend + NBPDR - 1n) & ~(NBPDR - 1n));
}

/** Makes the PT page for `va`, and the PD page above it if that is missing. */
function* growTable(cx: Cx, va: Gva): Exec<void> {
  const state = cx.k.pmap;
  const bits = state.kernelPmap.pmapBits;
  const slot = yield* cx.cpu.load64(gva(state.kernelPmap.pmPml4! + BigInt(indexAt(va, 4) * 8)));
  kassert(slot !== 0n, () => `pmap_growkernel: 0x${va.toString(16)} is not kernel virtual memory`);
  let table = pteFrame(slot);
  for (let level = 3; level >= 2; level--) {
    const at = entryIn(cx.k, table, indexAt(va, level));
    let entry = yield* cx.cpu.load64(at);
    kassert((entry & bits[PG_PS_IDX]!) === 0n, "pmap_growkernel: a large page is in the way");
    if ((entry & bits[PG_V_IDX]!) === 0n) {
      const m = yield* kernelTablePage(cx);
      const value = BigInt(m.physAddr) | kernelTableBits(cx);
      const seen = yield* cx.cpu.cmpxchg64(at, entry, value);
      if (seen === entry) {
        entry = value;
        vmPageWakeup(cx, m);
      } else {
        // Another CPU has made the same table.
        entry = seen;
        vmPageUnwire(cx, m, false);
        vmPageFree(cx, m);
      }
    }
    table = pteFrame(entry);
  }
  state.kernelPts.set(pmapPtPindex(va), table);
}

function kernelTableBits(cx: Cx): bigint {
  const bits = cx.k.pmap.kernelPmap.pmapBits;
  return bits[PG_V_IDX]! | bits[PG_RW_IDX]! | bits[PG_A_IDX]! | bits[PG_M_IDX]! | kernelLevelBit(cx.k);
}

/** A zeroed page, wired and busy, that is to stay the kernel's for ever. */
function* kernelTablePage(cx: Cx): Exec<VmPage> {
  const m = vmPageAlloc(cx, undefined, 0, VM_ALLOC_SYSTEM | VM_ALLOC_INTERRUPT | VM_ALLOC_ZERO);
  if (m === undefined) panic(cx, "pmap_growkernel: no memory to grow the kernel");
  vmPageUnmanage(cx, m);
  vmPageWire(cx, m);
  yield* pmapZeroPage(cx, m.physAddr);
  m.valid = VM_PAGE_BITS_ALL;
  return m;
}
