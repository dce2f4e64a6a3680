/**
 * Life cycle of a pmap (`pmap_pinit`, `pmap_pinit2`, `pmap_release`, `pmap_puninit`), and the change of its format to EPT.
 *
 * Room: `kernel/pmap/`; imports vm_page. Reference: section 5.1.
 *
 *     pmapPinit ─ pmapPinit2 ─ … in use … ─ pmapRelease ─┬─ pmapPinit …      with the PML4 page it kept
 *                                                         └─ pmapPuninit      gives that back too
 *
 * @module
 */
import { type Gva, gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import type { Kernel } from "../kernel.ts";
import { kassert } from "../kern/panic.ts";
import { spinLock, spinUnlock } from "../lwkt/spinlock.ts";
import { lwktGettoken, lwktReltoken } from "../lwkt/token.ts";
import { physToDmap } from "../platform/layout.ts";
import {
  PG_MAPPED,
  PG_UNMANAGED,
  PG_WRITEABLE,
  vmPageBusyWait,
  vmPageFree,
  vmPageUnwire,
} from "../vm/vm_page.ts";
import { pindexLevel, type Pmap, pmapPml4Pindex, PML4PML4I } from "./pmap.ts";
import { pmapAllocTable } from "./pmap_allocpte.ts";
import {
  EPT_AD_FORMAT,
  EPT_FORMAT,
  EPT_PMAP,
  PG_A_IDX,
  PG_M_IDX,
  PG_RW_IDX,
  PG_V_IDX,
  PMAP_AD_IN_RIGHTS,
  PMAP_EMULATE_AD_BITS,
  PMAP_FLAG_SIMPLE,
  PMAP_HVM,
  TYPE_IDX,
} from "./pmap_bits.ts";
import { entryIn } from "./pmap_pte.ts";
import { pmapRemovePvPage, pmapRemovePvPte } from "./pmap_remove_pv.ts";
import { type PvEntry, pvFree, pvHoldTry, pvLock, pvPut } from "./pv_entry.ts";

/** First entry of a root page that is not the user's. */
const USER_SLOTS = 256;
/** Bytes of a root page from there on. */
const KERNEL_HALF_BYTES = 2048;

/** Gives a pmap the format and the user access of the platform (`pmap_pinit_defaults`). */
function pmapPinitDefaults(k: Kernel, pmap: Pmap): void {
  pmap.setFormat(k.platform.pmapFormat);
  pmap.userAccess = k.platform.userAccess;
}

/** Initialises what every pmap has (`pmap_pinit_simple`): one reference, active nowhere, the regular format. */
export function pmapPinitSimple(cx: Cx, pmap: Pmap): void {
  kassert(pmap.pmActive === 0, "pmap_pinit: a CPU has the pmap active");
  pmap.pmCount = 1;
  pmap.pmActiveLock = false;
  pmap.pmFlags = PMAP_FLAG_SIMPLE;
  pmap.pmStats.wiredCount = 0;
  pmapPinitDefaults(cx.k, pmap);
}

/**
 * Initialises the pmap of an address space (`pmap_pinit`): its root page, with the kernel in the upper half. A root page that
 * {@link pmapRelease} kept is used again, but not one that was EPT's: without the kernel's entries it must never get into CR3.
 */
export function* pmapPinit(cx: Cx, pmap: Pmap): Exec<void> {
  if (pmap.pmPmlpv !== undefined && pmap.pmapBits[TYPE_IDX] === EPT_PMAP) yield* pmapPuninit(cx, pmap);
  pmapPinitSimple(cx, pmap);
  pmap.pmFlags &= ~PMAP_FLAG_SIMPLE;
  if (pmap.pmPmlpv === undefined) {
    const pv = yield* pmapAllocTable(cx, pmap, pmapPml4Pindex());
    const root = pv.pvM!.physAddr;
    for (const [slot, entry] of cx.k.pmap.kernelSlots) {
      yield* cx.cpu.store64(entryIn(cx.k, root, slot), entry);
    }
    const bits = pmap.pmapBits;
    const recursive = bits[PG_V_IDX]! | bits[PG_RW_IDX]! | bits[PG_A_IDX]! | bits[PG_M_IDX]!;
    yield* cx.cpu.store64(entryIn(cx.k, root, PML4PML4I), BigInt(root) | recursive);
    pmap.pmPml4 = physToDmap(cx.k, root);
    pmap.pmPmlpv = pv;
    pvPut(cx, pv);
  }
  yield* cx.k.platform.cpuVmspaceAlloc(cx, pmap);
  const { flags } = pmap.pmPmlpv!.pvM!;
  kassert(
    (flags & PG_MAPPED) !== 0 && (flags & PG_WRITEABLE) !== 0,
    "pmap_pinit: the root page is not marked mapped",
  );
  kassert(pmap.pmStats.residentCount === 1 && pmap.pmPvroot.size === 1, "pmap_pinit: the pmap is not empty");
}

/** The vmspace is complete (`pmap_pinit2`): the kernel's growth reaches the pmap from now on. */
export function* pmapPinit2(cx: Cx, pmap: Pmap): Exec<void> {
  // The list is changed in one step; DragonFly's pmap_spin would never be found taken.
  yield* cx.racePoint();
  cx.k.pmap.pmapList.add(pmap);
}

/**
 * Frees all but the root page (`pmap_release`).
 *
 * Preconditions: no CPU has the pmap active, so that no TLB and no paging-structure cache has anything of it; its unmanaged mappings have
 * been removed.
 */
export function* pmapRelease(cx: Cx, pmap: Pmap): Exec<void> {
  kassert(
    pmap.pmActive === 0,
    `pmap_release: CPUs ${pmap.pmActive.toString(2)} (binary) have the pmap active`,
  );
  cx.k.pmap.pmapList.delete(pmap);
  const root = pmap.pmPmlpv;
  kassert(root !== undefined, "pmap_release: the pmap has no root page");
  yield* cx.k.platform.cpuVmspaceFree(cx, pmap);
  yield* lwktGettoken(cx, pmap.pmToken);
  // Lowest pindex first: mappings before their tables, tables before the tables above them.
  for (;;) {
    yield* spinLock(cx, pmap.pmSpin);
    const pv = pmap.pmPvroot.min()!;
    const locked = pv === root || pvHoldTry(pv);
    spinUnlock(cx, pmap.pmSpin);
    if (pv === root) break;
    if (!locked) {
      yield* pvLock(cx, pv);
      if (pv.pvPmap !== pmap) {
        pvPut(cx, pv);
        continue;
      }
    }
    yield* pmapReleasePv(cx, pv);
  }
  lwktReltoken(cx, pmap.pmToken);
  // A format's entries are gone now; the root page of EPT tables is recognised by the format that stays (pmap_pinit).
  kassert(pmap.pmStats.residentCount === 1, `pmap_release: ${pmap.pmStats.residentCount} residents stay`);
  kassert(pmap.pmStats.wiredCount === 0, `pmap_release: ${pmap.pmStats.wiredCount} wired mappings stay`);
  kassert(root.pvM!.wireCount === 1, "pmap_release: the root page has user entries");
}

/** Takes one pv down, mapping or table (`pmap_release_pv`). Preconditions: locked; everything below it is gone. */
function* pmapReleasePv(cx: Cx, pv: PvEntry): Exec<void> {
  const isMapping = pindexLevel(pv.pvPindex) === 0;
  yield* pmapRemovePvPte(cx, pv, undefined, undefined);
  const m = yield* pmapRemovePvPage(cx, pv);
  yield* pvFree(cx, pv);
  if (isMapping) return;
  yield* vmPageBusyWait(cx, m, false, "pmaprl");
  kassert(m.wireCount === 1, `pmap_release: a table page still has ${m.wireCount - 1} entries`);
  kassert((m.flags & PG_UNMANAGED) !== 0, "pmap_release: a table page is managed");
  vmPageUnwire(cx, m, false);
  vmPageFree(cx, m);
}

/** Frees the root page (`pmap_puninit`). The pmap has been released. */
export function* pmapPuninit(cx: Cx, pmap: Pmap): Exec<void> {
  const pv = pmap.pmPmlpv;
  if (pv === undefined) return;
  kassert(pmap.pmActive === 0, "pmap_puninit: a CPU has the pmap active");
  yield* spinLock(cx, pmap.pmSpin);
  const locked = pvHoldTry(pv);
  spinUnlock(cx, pmap.pmSpin);
  kassert(locked, "pmap_puninit: somebody has the root's pv locked");
  const m = pv.pvM!;
  yield* pmapRemovePvPage(cx, pv);
  yield* pvFree(cx, pv);
  pmap.pmPmlpv = undefined;
  pmap.pmPml4 = undefined;
  yield* vmPageBusyWait(cx, m, false, "pmapun");
  kassert(m.wireCount === 1, "pmap_puninit: the root page has entries");
  vmPageUnwire(cx, m, false);
  vmPageFree(cx, m);
}

/**
 * Has an empty EPT pmap keep accessed and dirty information as FreeBSD does (EPT_AD_FORMAT). Preconditions: {@link vmxEptPmapPinit}, with
 * emulateAd = false.
 */
export function eptPmapAdInRights(pmap: Pmap): void {
  kassert(pmap.pmStats.residentCount === 1, "ept_pmap_ad: the pmap has mappings");
  pmap.setFormat(EPT_AD_FORMAT);
  pmap.pmFlags |= PMAP_AD_IN_RIGHTS;
}

/**
 * Turns an empty pmap into an EPT (`vmx_ept_pmap_pinit` and what `vmx_vminit` does with it): other bits, other user access, and a root page
 * without the kernel's half. It is never loaded into CR3 from now on.
 *
 * @param emulateAd The processor sets no A and D bits in EPT entries.
 */
export function* vmxEptPmapPinit(cx: Cx, pmap: Pmap, emulateAd: boolean): Exec<void> {
  kassert(pmap.pmStats.residentCount === 1, "vmx_ept_pmap_pinit: the pmap has mappings of the other format");
  kassert(pmap.pmActive === 0, "vmx_ept_pmap_pinit: the pmap is in a CPU's CR3");
  pmap.setFormat(EPT_FORMAT);
  pmap.pmFlags |= PMAP_HVM | (emulateAd ? PMAP_EMULATE_AD_BITS : 0);
  const upper: Gva = gva(entryIn(cx.k, pmap.pmPmlpv!.pvM!.physAddr, USER_SLOTS));
  yield* cx.cpu.zeroBytes(upper, KERNEL_HALF_BYTES);
}
