/**
 * Software page tables (`vm_fault_vpagetable` of `sys/vm/vm_fault.c`): a mapping whose object holds page tables, in the format of
 * {@link VPTE_FORMAT}, that say which page of the object stands where.
 *
 * Room: `kernel/vm/`; imports vm_fault_object and the formats.
 *
 *     entry.aux   the root, an entry like all others (MADV_SETMAP): frame of the top table, V, RW, U; with PS no table at all, but
 *                 the object from that frame on
 *     frame       offset in the object
 *     index       from the address's offset in the object, entry.offset + (va − entry.start), 36 bits of page number, 9 a level. (So a
 *                 mapping at VA is given the file offset VA if its tables are to be indexed by addresses.)
 *
 * Every entry on the way must allow the access, the root too: V; for writing RW; for executing not NX; and where the root has U, U.
 * (DragonFly's walk does not look at U. A vkernel's own tables are installed without it in the root.) A is set in every entry that is used, and M
 * as well on the way of a write.
 *
 * The mapping that a read fault enters is read only, so that the first write comes here and sets M; unless the last entry says RW and M
 * already (2017).
 *
 * Setting the bits is one compare-and-set that looks at V and RW again (2017). The vkernel, or another processor's walk, changes entries at any
 * time; in 2013 the entry was read and the bits ORed in afterwards, into one that had perhaps been cleared in between (bug
 * "vpte-walk-or").
 *
 * Between the walk and pmap_enter the vkernel may clear an entry and call MADV_INVAL, which would find nothing to remove yet. The fault has
 * the page's address interlocked from before the walk until after pmap_enter, and MADV_INVAL waits ({@link vmMapInterlock};
 * `fc531fbc3f`, February 2017; bug "vpte-inval-race").
 *
 * @module
 */
import { type Gva, gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { ktrace } from "../kern/ktr.ts";
import { kassert } from "../kern/panic.ts";
import { physToDmap } from "../platform/layout.ts";
import {
  PG_A_IDX,
  PG_FRAME,
  PG_M_IDX,
  PG_NX_IDX,
  PG_PS_IDX,
  PG_RW_IDX,
  PG_U_IDX,
  PG_V_IDX,
  VPTE_FORMAT,
} from "../pmap/pmap_bits.ts";
import { faultLeave, type Faultstate, type SharedChoice, vmFaultObject } from "./vm_fault_object.ts";
import { vmMapInterlock } from "./vm_map_interlock.ts";
import { PG_REFERENCED, vmPageActivate, vmPageDirty, vmPageFlagSet, vmPageWakeup } from "./vm_page.ts";
import {
  KERN_INVALID_ADDRESS,
  KERN_PROTECTION_FAILURE,
  KERN_SUCCESS,
  PAGE_SIZE,
  VM_MAPTYPE_VPAGETABLE,
  VM_PROT_EXECUTE,
  VM_PROT_READ,
  VM_PROT_WRITE,
  type VmProt,
} from "./vm_param.ts";

const { pmapBits } = VPTE_FORMAT;
const V = pmapBits[PG_V_IDX]!, RW = pmapBits[PG_RW_IDX]!, U = pmapBits[PG_U_IDX]!;
const A = pmapBits[PG_A_IDX]!, M = pmapBits[PG_M_IDX]!, PS = pmapBits[PG_PS_IDX]!;
const NX = pmapBits[PG_NX_IDX]!;

/** Bits of a page number that one table translates (`VPTE_PAGE_BITS`). */
const VPTE_PAGE_BITS = 9;
/** Bits that all four levels translate. */
const VPTE_BITS = 4 * VPTE_PAGE_BITS;
const VPTE_BYTES = 8;

/** Keeps MADV_INVAL of the page away until the fault is over; before {@link vmFaultVpagetable}, with the map locked shared. */
export function* vpteInterlock(cx: Cx, fs: Faultstate, va: Gva): Exec<void> {
  const { map } = fs;
  if (fs.entry?.maptype !== VM_MAPTYPE_VPAGETABLE || map === undefined) return;
  if (cx.k.bug("vpte-inval-race")) return;
  fs.ilock = yield* vmMapInterlock(cx, map, va, gva(va + BigInt(PAGE_SIZE)));
}

/**
 * Walks the software page table of the fault's entry.
 *
 * Preconditions: `faultEnter`, {@link vpteInterlock}.
 *
 * @param firstPindex The page's number in the mapping, as the lookup gave it.
 * @param faultType What was tried.
 * @returns KERN_SUCCESS: `fs.vptePindex` is the object's page, `fs.vpteProt` what its mapping may have at most, all is still held. Others:
 *   everything has been given up. KERN_INVALID_ADDRESS: an entry is not valid; KERN_PROTECTION_FAILURE: an entry does not allow it, or
 *   names what the object does not have.
 */
export function* vmFaultVpagetable(
  cx: Cx,
  fs: Faultstate,
  firstPindex: number,
  faultType: VmProt,
  choice: SharedChoice,
): Exec<number> {
  const { vkernel } = cx.k;
  const root = fs.entry!.aux;
  const writing = (faultType & VM_PROT_WRITE) !== 0, executing = (faultType & VM_PROT_EXECUTE) !== 0;
  const need = V | (root & U) | (writing ? RW : 0n);
  vkernel.vpteWalks++;
  let rights = RW, noExecute = 0n;
  let vpte = root, shift = VPTE_BITS;
  for (;;) {
    if ((vpte & need) !== need || (executing && (vpte & NX) !== 0n)) {
      vkernel.vpteFailures++;
      ktrace(cx, "vpte_fail", firstPindex, shift);
      yield* faultLeave(cx, fs);
      return (vpte & V) === 0n ? KERN_INVALID_ADDRESS : KERN_PROTECTION_FAILURE;
    }
    rights &= vpte;
    noExecute |= vpte & NX;
    if (shift === 0 || (vpte & PS) !== 0n) break;
    shift -= VPTE_PAGE_BITS;
    const rv = yield* vmFaultObject(cx, fs, frameOf(vpte), VM_PROT_READ | VM_PROT_WRITE, choice);
    if (rv !== KERN_SUCCESS) return rv;
    const { m } = fs;
    kassert(
      m !== undefined && fs.object === fs.firstObject,
      "vm_fault_vpagetable: no page, or not the top object's",
    );
    const slot = Math.floor(firstPindex / 2 ** shift) % 2 ** VPTE_PAGE_BITS;
    const at = gva(physToDmap(cx.k, m.physAddr) + BigInt(slot * VPTE_BYTES));
    vkernel.vpteReferences++;
    const seen = yield* cx.cpu.load64(at);
    vpte = yield* setBits(cx, at, seen, need, A | (writing ? M : 0n));
    if (vpte !== seen) {
      vkernel.vpteSets++;
      vmPageDirty(cx, m);
    }
    vmPageFlagSet(m, PG_REFERENCED);
    vmPageActivate(cx, m);
    fs.m = undefined;
    vmPageWakeup(cx, m);
  }
  fs.vptePindex = frameOf(vpte) + firstPindex % 2 ** shift;
  fs.vpteProt = VM_PROT_READ | (rights !== 0n ? VM_PROT_WRITE : 0) | (noExecute === 0n ? VM_PROT_EXECUTE : 0);
  // A root alone has no M to be set by a first write.
  fs.vpteModified = (vpte & M) !== 0n || shift === VPTE_BITS;
  ktrace(cx, "vpte_walk", firstPindex, fs.vptePindex);
  return KERN_SUCCESS;
}

function frameOf(vpte: bigint): number {
  return Number(vpte & PG_FRAME) / PAGE_SIZE;
}

/** Sets bits in an entry that still allows the access; gives the entry as it is then. */
function* setBits(cx: Cx, at: Gva, first: bigint, need: bigint, bits: bigint): Exec<bigint> {
  let vpte = first;
  while ((vpte & need) === need && (vpte & bits) !== bits) {
    yield* cx.racePoint();
    // 2013: `atomic_set_long`, whatever the entry is by now.
    if (cx.k.bug("vpte-walk-or")) {
      yield* cx.cpu.store64(at, (yield* cx.cpu.load64(at)) | bits);
      return vpte | bits;
    }
    const seen = yield* cx.cpu.cmpxchg64(at, vpte, vpte | bits);
    if (seen === vpte) return vpte | bits;
    vpte = seen;
  }
  return vpte;
}
