/**
 * Accessed and dirty bits where the processor has none for EPT, FreeBSD's way (`pmap_emulate_accessed_dirty`; section 19 of the reference).
 *
 * Room: `kernel/vmm/`; imports the pmap's tables.
 *
 * Three ways, by `hw.vmm.ad`:
 *
 *     hardware    EPTP bit 6: the processor sets bits 8 and 9. It treats walks of guest tables as writes to them
 *     dragonfly   pages are mapped read only until they are written to, and then are dirty (vm_fault); nobody learns of accesses
 *     freebsd     the rights that the processor sees are A and M (EPT_AD_FORMAT): an access to a page without A, or a write to one without M, is an EPT
 *                 violation, which sets the bit here and needs no vm_fault
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import type { Pmap } from "../pmap/pmap.ts";
import { PG_A_IDX, PG_M_IDX, PG_RW_IDX, PG_V_IDX, PMAP_AD_IN_RIGHTS } from "../pmap/pmap_bits.ts";
import { pmapPte } from "../pmap/pmap_pte.ts";
import { VM_PROT_WRITE, type VmProt } from "../vm/vm_param.ts";

/**
 * Sets A, and M for a write, in the entry of a page that allows the access.
 *
 * @returns false where the entry does not allow it, or the pmap is of another kind: vm_fault must see to it.
 */
export function* eptEmulateAccessedDirty(cx: Cx, pmap: Pmap, va: Gva, type: VmProt): Exec<boolean> {
  if ((pmap.pmFlags & PMAP_AD_IN_RIGHTS) === 0) return false;
  const bits = pmap.pmapBits, write = (type & VM_PROT_WRITE) !== 0;
  // Tables stay as long as a processor has the pmap active, as this one has.
  const ptep = yield* pmapPte(cx, pmap, va);
  if (ptep === undefined) return false;
  const need = bits[PG_V_IDX]! | (write ? bits[PG_RW_IDX]! : 0n);
  const set = bits[PG_A_IDX]! | (write ? bits[PG_M_IDX]! : 0n);
  for (let old = yield* cx.cpu.load64(ptep);;) {
    if ((old & need) !== need) return false;
    const seen = yield* cx.cpu.cmpxchg64(ptep, old, old | set);
    if (seen === old) return true;
    old = seen;
  }
}
