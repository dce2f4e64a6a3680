/**
 * Formats of page-table entries as data: `pmap_bits`, protection codes and cache vectors (reference, section 3).
 *
 * Room: `kernel/pmap/`; leaf, imports nothing. Here, and nowhere else, stand the bit numbers of page-table entries.
 *
 * DragonFly's GSoC work of 2013 made the pmap read each `PG_*` bit from an array in the pmap, so that one implementation drives
 * ordinary tables and EPT. The NX index came in 2017; it is here from the beginning.
 *
 *       63   62…53   52     51 … 12   11     10      9       8   7    6   5   4     3     2   1    0
 *     ┌────┬───────┬──────┬─────────┬──────┬───────┬───────┬───┬────┬───┬───┬─────┬─────┬───┬────┬───┐
 *     │ NX │       │      │  frame  │DEVICE│MANAGED│WIRED W│ G │PS/ │ M │ A │ PCD │ PWT │ U │ RW │ V │ regular
 *     │    │       │      │         │      │       │       │   │PAT │   │   │     │     │   │    │   │
 *     ├────┼───────┼──────┼─────────┼──────┼───────┼───────┼───┼────┼───┼───┴─────┴─────┼───┼────┼───┤
 *     │    │       │DEVICE│  frame  │MANA- │WIRED W│   M   │ A │ PS │ignore│ memory type │ X │  W │ R │ EPT: V = R|X
 *     │    │       │      │         │GED   │       │       │   │    │ PAT  │  (bits 5…3) │   │    │   │
 *     └────┴───────┴──────┴─────────┴──────┴───────┴───────┴───┴────┴──────┴─────────────┴───┴────┴───┘
 *
 * A table is good only for entries that were written under it: nothing converts entries.
 *
 * @module
 */

// ---- indices into pmapBits

/** Kind of the pmap; not a bit. */
export const TYPE_IDX = 0;
/** Valid. */
export const PG_V_IDX = 1;
/** Writable. */
export const PG_RW_IDX = 2;
/** User. */
export const PG_U_IDX = 3;
/** Accessed. */
export const PG_A_IDX = 4;
/** Modified. */
export const PG_M_IDX = 5;
/** Large page. */
export const PG_PS_IDX = 6;
/** Global. */
export const PG_G_IDX = 7;
/** Wired; software's. */
export const PG_W_IDX = 8;
/** Has a pv entry; software's. */
export const PG_MANAGED_IDX = 9;
/** Maps a fictitious page, whose VmPage cannot be found by its frame; software's. */
export const PG_DEVICE_IDX = 10;
/** Uncacheable. */
export const PG_N_IDX = 11;
/** No execute (2017). */
export const PG_NX_IDX = 12;
/** Length of pmapBits. */
export const PG_BITS_SIZE = 13;

/** `pmapBits[TYPE_IDX]`: tables that CR3 can point at. */
export const REGULAR_PMAP = 0n;
/** `pmapBits[TYPE_IDX]`: tables that an EPTP points at. */
export const EPT_PMAP = 1n;
/** `pmapBits[TYPE_IDX]`: tables of a vkernel, which its host's fault code walks, or (VMM) the hardware under EPT. */
export const VPTE_PMAP = 2n;

/** Frame of an entry, in every format: bits 51…12. Higher bits may be software's. */
export const PG_FRAME = 0x000f_ffff_ffff_f000n;

// ---- memory types (`m->patMode`), architectural codes (SDM vol. 3A, "Memory Types")

/** UC. */
export const PAT_UNCACHEABLE = 0;
/** WC. */
export const PAT_WRITE_COMBINING = 1;
/** WT. */
export const PAT_WRITE_THROUGH = 4;
/** WP. */
export const PAT_WRITE_PROTECTED = 5;
/** WB. */
export const PAT_WRITE_BACK = 6;
/** UC-: uncacheable unless an MTRR says write combining. */
export const PAT_UNCACHED = 7;
/** Length of pmapCacheBits. */
export const PAT_INDEX_SIZE = 8;

/** `pmFlags`: has no tables of its own above the PD level; belongs to an object. */
export const PMAP_FLAG_SIMPLE = 0x1;
/** `pmFlags`: the hardware sets neither A nor M; the fault code emulates them. */
export const PMAP_EMULATE_AD_BITS = 0x2;
/** `pmFlags`: belongs to a virtual machine (2016). */
export const PMAP_HVM = 0x4;
/**
 * `pmFlags`, not DragonFly's: A and M are rights that the hardware sees ({@link EPT_AD_FORMAT}). Clearing one takes a right away: the next entry
 * must flush, and A is not cleared while M is set (W without R is a misconfiguration).
 */
export const PMAP_AD_IN_RIGHTS = 0x100;

/** Everything about a page-table format. */
export interface PmapFormat {
  /** Bits by PG_*_IDX. */
  readonly pmapBits: readonly bigint[];
  /** Bits by VM_PROT_READ | WRITE | EXECUTE. */
  readonly protectionCodes: readonly bigint[];
  /** Bits of a 4-KiB leaf by PAT_*. */
  readonly pmapCacheBits: readonly bigint[];
  /** All bits that pmapCacheBits uses. */
  readonly pmapCacheMask: bigint;
}

/** VM_PROT_WRITE and VM_PROT_EXECUTE, the indices' bits. */
const PROT_WRITE = 2, PROT_EXECUTE = 4;

/** `x86_64_protection_init`: WRITE gives RW, no EXECUTE gives NX (as 2017; in 2013 there was no NX). */
function protectionCodes(bits: readonly bigint[]): readonly bigint[] {
  return Array.from(
    { length: 8 },
    (_, prot) => (prot & PROT_WRITE ? bits[PG_RW_IDX]! : 0n) | (prot & PROT_EXECUTE ? 0n : bits[PG_NX_IDX]!),
  );
}

const PWT = 0x08n, PCD = 0x10n, PTE_PAT = 0x80n;

const REGULAR_BITS: readonly bigint[] = [
  REGULAR_PMAP,
  0x001n, // V
  0x002n, // RW
  0x004n, // U
  0x020n, // A
  0x040n, // M
  0x080n, // PS
  0x100n, // G
  0x200n, // W, AVAIL1
  0x400n, // MANAGED, AVAIL2
  0x800n, // DEVICE, AVAIL3
  PWT | PCD, // N
  1n << 63n, // NX
];

/** Ordinary long-mode tables (SDM vol. 3A, "4-Level Paging"), with a PAT as {@link PAT_MSR} programs it. */
export const REGULAR_FORMAT: PmapFormat = {
  pmapBits: REGULAR_BITS,
  protectionCodes: protectionCodes(REGULAR_BITS),
  //             UC         WC             -   -   WT   WP       WB  UC-
  pmapCacheBits: [PCD | PWT, PTE_PAT | PWT, 0n, 0n, PWT, PTE_PAT, 0n, PCD],
  pmapCacheMask: PWT | PCD | PTE_PAT,
};

/**
 * IA32_PAT as `pmap_init_pat` leaves it: slots 0…3 as at power-on (WB WT UC- UC), slot 4 = WP, slot 5 = WC, 6 and 7 as at power-on.
 */
export const PAT_MSR = 0x0007_0105_0007_0406n;

const EPT_IGNORE_PAT = 0x40n;
const eptMemoryType = (type: number) => EPT_IGNORE_PAT | (BigInt(type) << 3n);

const EPT_BITS: readonly bigint[] = [
  EPT_PMAP,
  0x005n, // V = READ | EXECUTE: XWR of a valid leaf is 101 or 111, never the illegal 010 and 110
  0x002n, // RW = WRITE
  0x000n, // U: EPT has none; tests of it must look at the type first
  0x100n, // A
  0x200n, // M
  0x080n, // PS
  0x000n, // G
  0x400n, // W
  0x800n, // MANAGED
  1n << 52n, // DEVICE
  EPT_IGNORE_PAT, // N: type UC
  0x000n, // NX: EPT has the opposite, X, which V includes
];

/** EPT (SDM vol. 3C, "The Extended Page Table Mechanism"), as `vmx_ept_pmap_pinit` installs it. UC- is UC: EPT has no such type. */
export const EPT_FORMAT: PmapFormat = {
  pmapBits: EPT_BITS,
  protectionCodes: protectionCodes(EPT_BITS),
  pmapCacheBits: [
    eptMemoryType(0),
    eptMemoryType(1),
    0n,
    0n,
    eptMemoryType(4),
    eptMemoryType(5),
    eptMemoryType(6),
    EPT_IGNORE_PAT,
  ],
  pmapCacheMask: 0x78n,
};

const EPT_AD_BITS: readonly bigint[] = [
  EPT_PMAP,
  1n << 52n, // V; software's
  1n << 53n, // RW; software's
  0x000n, // U
  0x005n, // A = READ | EXECUTE: a page whose A is clear is not there for the hardware, and the next access says so
  0x002n, // M = WRITE: a page whose M is clear is read only for the hardware
  0x080n, // PS
  0x000n, // G
  0x400n, // W
  0x800n, // MANAGED
  1n << 54n, // DEVICE
  EPT_IGNORE_PAT, // N
  0x000n, // NX
];

/**
 * EPT for processors without accessed and dirty flags, as FreeBSD has it (section 19 of the reference): the rights that the hardware sees are
 * A and M, what is allowed stands in bits of software. {@link PMAP_AD_IN_RIGHTS} goes with it.
 *
 * Deviation: FreeBSD's A is READ alone, and an entry that is executable without being readable needs a processor that can; here READ and EXECUTE go
 * together, as in V of {@link EPT_FORMAT}.
 */
export const EPT_AD_FORMAT: PmapFormat = {
  pmapBits: EPT_AD_BITS,
  protectionCodes: protectionCodes(EPT_AD_BITS),
  pmapCacheBits: EPT_FORMAT.pmapCacheBits,
  pmapCacheMask: EPT_FORMAT.pmapCacheMask,
};

const VPTE_BITS: readonly bigint[] = [
  VPTE_PMAP,
  0x001n, // V
  0x002n, // RW
  0x004n, // U
  0x020n, // A
  0x040n, // M
  0x080n, // PS
  0x100n, // G
  0x200n, // W, VPTE_WIRED
  0x400n, // MANAGED
  0x800n, // DEVICE: a vkernel has no device memory; the place is kept
  0x000n, // N
  1n << 63n, // NX
];

/**
 * Page tables of a vkernel (`sys/sys/vkernel.h`, with the bits of the Summer of Code work, which are the hardware's: VMX walks the same
 * tables). Frames are offsets in the vkernel's memory. No memory types: all is ordinary memory of a process.
 *
 * Deviation: NX is the hardware's bit 63; in 2017 it became 0x800, which no processor understands, when VMM was off by default.
 */
export const VPTE_FORMAT: PmapFormat = {
  pmapBits: VPTE_BITS,
  protectionCodes: protectionCodes(VPTE_BITS),
  pmapCacheBits: [0n, 0n, 0n, 0n, 0n, 0n, 0n, 0n],
  pmapCacheMask: 0n,
};
