/**
 * An address space as the hardware sees it (`struct pmap`), and the names of everything in it.
 *
 * Room: `kernel/pmap/`; the bottom of it: data only. Imports locks, the tree, the formats. Reference: section 4.
 *
 * Where to find what of `sys/platform/pc64/x86_64/pmap.c`:
 *
 *     pmap_pinit.ts      pmap_pinit, pinit2, release, puninit; allocpte in pmap_allocpte.ts
 *     pmap_enter.ts      pmap_enter
 *     pmap_remove.ts     pmap_remove, remove_all, remove_pages
 *     pmap_protect.ts    pmap_protect, page_protect, ts_referenced, is_modified, clear_*
 *     pmap_extract.ts    pmap_extract, fault_page_quick, prefault_ok, mincore, object_init_pt
 *     pmap_kenter.ts     pmap_kenter, qenter, growkernel, kextract; pmap_page.ts: zero_page, copy_page
 *     pmap_switch.ts     pmap_setlwpvm, replacevm, the switch of threads; pmap_inval.ts: the invalidation protocol
 *     pmap_scan.ts, pv_entry.ts, pmap_bits.ts, pmap_bootstrap.ts, invariants.ts
 *
 * The part needs vm_page.ts and nothing above it; vm_page.ts must therefore not import from here, other than md_page.ts (what needs
 * both, like vm_page_protect, stands in a file above).
 *
 * Lock order inside the pmap: pmToken, pv locks bottom up, a page's spinlock, pmSpin.
 *
 * @module
 */
import type { Gva, Hpa } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { RbTree } from "../libkern/rbtree.ts";
import { Spinlock } from "../lwkt/spinlock.ts";
import type { Thread } from "../lwkt/thread.ts";
import { LwktToken } from "../lwkt/token.ts";
import { type PmapFormat, REGULAR_FORMAT } from "./pmap_bits.ts";
import type { PvEntry } from "./pv_entry.ts";

// ---- pindex zones: one number names every entry and table of a pmap, lowest level first

/** Entries of one table. */
export const NPTEPG = 512;
/** PDP pages of a full address space. */
export const NUPDP_TOTAL = 512;
/** PD pages of a full address space. */
export const NUPD_TOTAL: number = 512 * NUPDP_TOTAL;
/** PT pages of a full address space. */
export const NUPT_TOTAL: number = 512 * NUPD_TOTAL;
/** Pages of a full address space. */
export const NUPTE_TOTAL: number = 512 * NUPT_TOTAL;

/** Slot of the recursive map in the PML4. */
export const PML4PML4I = 256;

const PT_BASE = NUPTE_TOTAL;
const PD_BASE = PT_BASE + NUPT_TOTAL;
const PDP_BASE = PD_BASE + NUPD_TOTAL;
const PML4_PINDEX = PDP_BASE + NUPDP_TOTAL;

/** Low 48 bits of an address: what the tables translate. */
const VA_MASK = 0xffff_ffff_ffffn;

/** pindex of the mapping of a page. */
export function pmapPtePindex(va: bigint): number {
  return Number((va & VA_MASK) >> 12n);
}
/** pindex of the PT page for an address. */
export function pmapPtPindex(va: bigint): number {
  return PT_BASE + Number((va & VA_MASK) >> 21n);
}
/** pindex of the PD page for an address. */
export function pmapPdPindex(va: bigint): number {
  return PD_BASE + Number((va & VA_MASK) >> 30n);
}
/** pindex of the PDP page for an address. */
export function pmapPdpPindex(va: bigint): number {
  return PDP_BASE + Number((va & VA_MASK) >> 39n);
}
/** pindex of the PML4 page, the last one. */
export function pmapPml4Pindex(): number {
  return PML4_PINDEX;
}

/** What a pindex names: 0 = a mapping, 1 = a PT page, 2 = PD, 3 = PDP, 4 = the PML4. */
export function pindexLevel(pindex: number): 0 | 1 | 2 | 3 | 4 {
  if (pindex < PT_BASE) return 0;
  if (pindex < PD_BASE) return 1;
  if (pindex < PDP_BASE) return 2;
  return pindex < PML4_PINDEX ? 3 : 4;
}

const LEVEL_BASE = [0, PT_BASE, PD_BASE, PDP_BASE, PML4_PINDEX] as const;
const LEVEL_SHIFT = [12n, 21n, 30n, 39n, 48n] as const;

/** pindex of the table page that holds the entry for `pindex`: of a mapping its PT page, of a PT page its PD page … */
export function parentPindex(pindex: number): number {
  const level = pindexLevel(pindex);
  if (level === 4) throw new RangeError("The PML4 has no parent");
  return LEVEL_BASE[level + 1]! + Math.floor((pindex - LEVEL_BASE[level]) / NPTEPG);
}
/** Index of the entry for `pindex` in its parent. */
export function indexInParent(pindex: number): number {
  return (pindex - LEVEL_BASE[pindexLevel(pindex)]) % NPTEPG;
}
/** First address that `pindex` covers; sign-extended. */
export function pindexToVa(pindex: number): Gva {
  const level = pindexLevel(pindex);
  const low = BigInt(pindex - LEVEL_BASE[level]) << LEVEL_SHIFT[level];
  return BigInt.asUintN(64, BigInt.asIntN(48, low)) as Gva;
}

// ---- struct pmap

/** Copies `bytes` bytes between user and kernel; the hooks of a pmap (`pmap->copyin` and friends). */
export interface PmapUserAccess {
  /** Reads user memory; undefined = EFAULT. */
  readonly copyin: (cx: Cx, uaddr: bigint, bytes: number) => Exec<Uint8Array<ArrayBuffer> | undefined>;
  /** Writes user memory: 0 or EFAULT. */
  readonly copyout: (cx: Cx, uaddr: bigint, bytes: Uint8Array) => Exec<number>;
}

/** An address space. */
export class Pmap {
  /** Direct-map address of the PML4, undefined before pinit. Deviation: DragonFly gives it a KVA page of its own. */
  pmPml4: Gva | undefined;
  /** pv entry of the PML4 page. It stays through pmap_release: a pmap with one can be used again. */
  pmPmlpv: PvEntry | undefined;
  /** Red-black tree of all pv entries, by pindex (`pm_pvroot`). Guarded by pmSpin. */
  readonly pmPvroot = new RbTree<PvEntry>((pv) => pv.pvPindex);
  /** References: SIMPLE pmaps on objects. */
  pmCount = 0;
  /** CPUs that have it loaded: each sets its own bit before CR3 and clears it after. */
  pmActive = 0;
  /**
   * An invalidation is under way and no CPU may become active (`CPUMASK_LOCK`, bit 63 of `pm_active` in 2013; a word of its own since
   * June 2014, `cc694a4adf`).
   */
  pmActiveLock = false;
  /** PMAP_FLAG_SIMPLE, PMAP_EMULATE_AD_BITS, PMAP_HVM. */
  pmFlags = 0;
  /** `pm_stats`: residentCount counts all pv's, table pages too, and unmanaged mappings; wiredCount the entries with W. */
  readonly pmStats = { residentCount: 0, wiredCount: 0 };
  /** The pv that was found last, if it was a table's (`pm_pvhint`). Guarded by pmSpin. */
  pmPvhint: PvEntry | undefined;
  /** Counts insertions and removals in the tree. */
  pmGeneration = 0;
  /** Guards the tree and the taking of holds. */
  readonly pmSpin = new Spinlock("pmapspin");
  /** Serialises scans of ranges, and teardown. */
  readonly pmToken = new LwktToken("pmap_tok");
  /**
   * A second pmap of the same map, kept in step: every mapping that is entered, removed or lowered by its address here is so there. The EPT half of
   * the design "twin" (`hw.vmm.design`); active on a CPU when this one is.
   */
  pmTwin: Pmap | undefined;
  /** Counts invalidations: the EPT run loop compares it before each entry. */
  pmInvgen = 0;

  /** Bits by PG_*_IDX. */
  pmapBits: readonly bigint[] = REGULAR_FORMAT.pmapBits;
  /** Bits by VM_PROT. */
  protectionCodes: readonly bigint[] = REGULAR_FORMAT.protectionCodes;
  /** Bits by PAT_*. */
  pmapCacheBits: readonly bigint[] = REGULAR_FORMAT.pmapCacheBits;
  /** All cache bits. */
  pmapCacheMask: bigint = REGULAR_FORMAT.pmapCacheMask;
  /** User access other than by loading and storing at the user's address; undefined = the `std_*` routines. */
  userAccess: PmapUserAccess | undefined;

  /** Installs a format; only while the pmap has no entries. */
  setFormat(format: PmapFormat): void {
    this.pmapBits = format.pmapBits;
    this.protectionCodes = format.protectionCodes;
    this.pmapCacheBits = format.pmapCacheBits;
    this.pmapCacheMask = format.pmapCacheMask;
  }
}

/** A range of physical memory, `[start, end)`, page aligned. */
export interface PhysRange {
  readonly start: Hpa;
  readonly end: Hpa;
}

/** What the pmap part keeps in a kernel. */
export class PmapState {
  /** The kernel's own (`kernel_pmap`). */
  readonly kernelPmap = new Pmap();
  /** All initialised regular pmaps but the kernel's (`pmap_list`). */
  readonly pmapList = new Set<Pmap>();
  /** Free memory for vm_page_startup (`phys_avail`): what the loader, the image, and pmapBootstrap left. Final after bootstrap. */
  physAvail: PhysRange[] = [];
  /** Bytes of physical memory that the direct map covers. */
  dmapBytes = 0;
  /** Next address of the window for boot's allocations. */
  bootKva = 0n as Gva;
  /** First address of kernel virtual memory that nobody has (`virtual_start`); kmem_init's kernel_map begins here. */
  virtualStart = 0n as Gva;
  /** End of kernel virtual memory (`virtual_end`). */
  virtualEnd = 0n as Gva;
  /** End of the part that has page tables (`kernel_vm_end`). */
  kernelVmEnd = 0n as Gva;
  /** Frames of the kernel's PT pages by pindex; none ever goes away. */
  readonly kernelPts = new Map<number, Hpa>();
  /** Entries of the kernel's slots of the PML4 (direct map, kernel): every regular pmap's root has them. */
  readonly kernelSlots = new Map<number, bigint>();
  /** The pmap in each CPU's CR3 or EPTP; undefined while a kernel thread runs there. A CPU changes its own, with `pmActive`. */
  readonly loaded: (Pmap | undefined)[] = [];
  /** vm_page_startup is done: page tables come from vm_page_alloc, mappings can be managed (`pmap_initialized`). */
  pmapInitialized = false;
  /** pv entries that exist; the leak check reads it. */
  pvCount = 0;
  /** Invalidations by interlock so far (one page or one range each). */
  invalInterlocks = 0;
  /** Flushes of all CPUs so far (`smp_invltlb`). */
  smpInvltlbs = 0;
  /** Freed pv entries (`pvzone`), used again before new ones are made. */
  readonly pvzone: PvEntry[] = [];
  /** With the historical bug pv-association-hold: the pv whose last hold a thread gave back and has not looked at yet. */
  readonly pvDropped: Map<Thread, PvEntry> = new Map();
}
