/**
 * Finding and changing entries of page tables (`pmap_pte`, `vtopte`, `pv_pte_lookup`, and the atomic operations on entries).
 *
 * Room: `kernel/pmap/`; imports the direct map. All tables are reached through the direct map, never through the recursive slot: EPT
 * tables are in nobody's CR3.
 *
 * @module
 */
import { type Gva, type Hpa, hpa } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import type { Kernel } from "../kernel.ts";
import { kassert } from "../kern/panic.ts";
import { VM_MAX_USER_ADDRESS } from "../platform/pc64/vmparam.ts";
import { physToDmap } from "../platform/layout.ts";
import type { VmPage } from "../vm/vm_page.ts";
import { indexInParent, NPTEPG, pindexLevel, type Pmap, pmapPtPindex } from "./pmap.ts";
import { PG_FRAME, PG_PS_IDX, PG_U_IDX, PG_V_IDX } from "./pmap_bits.ts";
import type { PvEntry } from "./pv_entry.ts";

/** Bytes of an entry. */
const PTE_BYTES = 8;

/** Whether an address of a pmap is the user's: has tables with pv entries. In a vkernel the kernel's addresses are no greater ones than the users'. */
export function isUserVa(cx: Cx, pmap: Pmap, va: Gva): boolean {
  return pmap !== cx.k.pmap.kernelPmap && va < VM_MAX_USER_ADDRESS;
}

/** Address of entry `index` of the table in a frame. */
export function entryIn(k: Kernel, table: Hpa, index: number): Gva {
  return (physToDmap(k, table) + BigInt(index * PTE_BYTES)) as Gva;
}

/** Address of the entry that names `pindex` in its parent's page (`pv_pte_lookup`). */
export function pvPteLookup(k: Kernel, parent: PvEntry, pindex: number): Gva {
  kassert(parent.pvM !== undefined, "pv_pte_lookup: the table has no page");
  return entryIn(k, parent.pvM.physAddr, indexInParent(pindex));
}

/** U, where the kernel itself runs at user level; else nothing. */
export function kernelLevelBit(k: Kernel): bigint {
  return k.layout.userLevel ? k.pmap.kernelPmap.pmapBits[PG_U_IDX]! : 0n;
}

/** Frame of an entry. */
export function pteFrame(pte: bigint): Hpa {
  return hpa(Number(pte & PG_FRAME));
}

/** Index of `va` in its table of a level, 1 = PT. */
export function indexAt(va: Gva, level: number): number {
  return Number((va >> BigInt(12 + 9 * (level - 1))) & BigInt(NPTEPG - 1));
}

/** Address of a kernel page's entry (`vtopte`); undefined where kernel virtual memory has no tables yet. */
export function vtopte(cx: Cx, va: Gva): Gva | undefined {
  const table = cx.k.pmap.kernelPts.get(pmapPtPindex(va));
  return table === undefined ? undefined : entryIn(cx.k, table, indexAt(va, 1));
}

/**
 * Address of the 4-KiB entry for `va` by walking the tables (`pmap_pte`); undefined where a table is missing or a large page is in the way.
 * The caller knows why the tables do not go away meanwhile: a pv entry of the address that is on a page's list, or the current
 * address space.
 */
export function* pmapPte(cx: Cx, pmap: Pmap, va: Gva): Exec<Gva | undefined> {
  if (pmap === cx.k.pmap.kernelPmap) return vtopte(cx, va);
  if (pmap.pmPml4 === undefined) return undefined;
  const valid = pmap.pmapBits[PG_V_IDX]!, large = pmap.pmapBits[PG_PS_IDX]!;
  let at = (pmap.pmPml4 + BigInt(indexAt(va, 4) * PTE_BYTES)) as Gva;
  for (let level = 3; level >= 1; level--) {
    const entry = yield* cx.cpu.load64(at);
    if ((entry & valid) === 0n || (level < 3 && (entry & large) !== 0n)) return undefined;
    at = entryIn(cx.k, pteFrame(entry), indexAt(va, level));
  }
  return at;
}

/** The entry of a managed mapping: it exists as long as the pv is on its page's list. */
export function* ptepOf(cx: Cx, pv: PvEntry, pmap: Pmap): Exec<Gva> {
  const ptep = yield* pmapPte(cx, pmap, pvVa(pv));
  kassert(ptep !== undefined, "pmap: a mapping has a pv entry but no page table");
  return ptep;
}

/** Address of a terminal pv's page. */
export function pvVa(pv: PvEntry): Gva {
  return pteVa(pv.pvPindex);
}

/** Address of the page with this pindex; sign-extended. */
function pteVa(pindex: number): Gva {
  return BigInt.asUintN(64, BigInt.asIntN(48, BigInt(pindex) << 12n)) as Gva;
}

/** Whether a pindex of a pmap is that of a kernel page: no table of it has a pv. */
export function isKernelPte(k: Kernel, pmap: Pmap, pindex: number): boolean {
  return pmap === k.pmap.kernelPmap && pindexLevel(pindex) === 0;
}

/** Clears bits of an entry in one step (`atomic_clear_long`); gives what was there. */
export function* pteClearBits(cx: Cx, ptep: Gva, bits: bigint): Exec<bigint> {
  for (let old = yield* cx.cpu.load64(ptep);;) {
    const seen = yield* cx.cpu.cmpxchg64(ptep, old, old & ~bits);
    if (seen === old) return old;
    old = seen;
  }
}

/** Counts an entry more in a table page (`vm_page_wire_quick`). */
export function wireTable(m: VmPage): void {
  m.wireCount++;
}

/** Counts an entry less (`vm_page_unwire_quick`): the one for its own place in its parent stays. */
export function unwireTable(m: VmPage): void {
  m.wireCount--;
  kassert(m.wireCount > 0, "pmap: a table page has more entries removed than it had");
}
