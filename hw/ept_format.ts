/**
 * Extended page tables as data: entry formats, which entries are misconfigured, what an exit qualification says, memory types.
 *
 * Models SDM vol. 3C, "VMX Support for Address Translation" (edition 2024): the EPT pointer, 4- and 5-level EPT, 2-MiB and 1-GiB
 * pages, execute-only, mode-based execute control, accessed and dirty flags. Left out, since no processor model offers them: sub-page
 * permissions, supervisor shadow stacks, guest-paging verification and paging-write (their bits are ignored, as on such a processor).
 *
 * Room: leaf of `hw/`; imports nothing. ept_walk.ts walks what is described here, explain_ept.ts tells it to people, ept.ts has the
 * operations of software.
 *
 * @module
 */

/** Bits of the low half of an EPT entry. */
export const EPTE = {
  /** Data reads allowed. */
  R: 0x1,
  /** Data writes allowed. */
  W: 0x2,
  /** Instruction fetches allowed; with mode-based execute control: from supervisor-mode linear addresses. */
  X: 0x4,
  /** Memory type of a leaf, three bits from bit 3. */
  TYPE: 0x38,
  /** Ignore PAT (leaf). */
  IPAT: 0x40,
  /** Maps a page (in a PDPTE or PDE; ignored in a PTE, reserved above). */
  PS: 0x80,
  /** Accessed, where the EPT pointer enables it. */
  A: 0x100,
  /** Dirty (leaf), where the EPT pointer enables it. */
  D: 0x200,
  /** Instruction fetches from user-mode linear addresses, under mode-based execute control; otherwise ignored. */
  XU: 0x400,
} as const;

/** Bit 63 of an EPT entry, in its upper half: an EPT violation that ends here causes no virtualization exception. */
export const EPTE_SUPPRESS_VE = 0x8000_0000 | 0;

/** Fields of the low half of the EPT pointer. */
export const EPTP = {
  /** Memory type of the EPT paging structures: 0 UC or 6 WB. */
  TYPE: 0x7,
  /** Page-walk length minus one, three bits from bit 3. */
  LENGTH: 0x38,
  /** Enables accessed and dirty flags. */
  AD: 0x40,
} as const;

/** An access to a guest-physical address: which rights it needs ({@link EPTE} R, W, X or XU; several for a read-modify-write). */
export const EPT_NEED = { READ: EPTE.R, WRITE: EPTE.W, FETCH: EPTE.X, FETCH_USER: EPTE.XU } as const;

/** Exit reasons of this room (SDM vol. 3D, "VMX Basic Exit Reasons"). */
export const EPT_EXIT = {
  /** EPT violation. */
  VIOLATION: 48,
  /** EPT misconfiguration. */
  MISCONFIGURATION: 49,
  /** Page-modification log full. */
  PML_FULL: 62,
} as const;

/** Bits of the exit qualification of an EPT violation (SDM vol. 3C, "Exit Qualification for EPT Violations"). */
export const EPT_QUALIFICATION = {
  /** The access was a data read. */
  READ: 0x1,
  /** The access was a data write. */
  WRITE: 0x2,
  /** The access was an instruction fetch. */
  FETCH: 0x4,
  /** The guest-physical address was readable; W, X and (mode-based execute control) user X follow. */
  READABLE: 0x8,
  WRITABLE: 0x10,
  EXECUTABLE: 0x20,
  USER_EXECUTABLE: 0x40,
  /** The guest-linear address field is valid. */
  LINEAR: 0x80,
  /** The access was to the translation of a linear address, not to a guest paging-structure entry. */
  TRANSLATED: 0x100,
  /** Advanced information: the linear address is a user-mode one, read/write, execute-disable. */
  USER: 0x200,
  WRITABLE_LINEAR: 0x400,
  EXECUTE_DISABLE: 0x800,
  /** NMI unblocking due to IRET. */
  NMI_UNBLOCKING: 0x1000,
} as const;

/** Memory types as MTRRs, PAT and EPT encode them. */
export const MEMORY_TYPE = { UC: 0, WC: 1, WT: 4, WP: 5, WB: 6, UC_MINUS: 7 } as const;

/** What the processor model decides about EPT; from IA32_VMX_EPT_VPID_CAP. */
export interface EptFeatures {
  /** MAXPHYADDR in bits. */
  readonly maxPhysicalBits: number;
  /** Entries may allow fetches and no reads (bit 0). */
  readonly executeOnly: boolean;
  /** Page-walk length 5 (bit 7). */
  readonly fiveLevel: boolean;
  /** 2-MiB pages (bit 16). */
  readonly largePages: boolean;
  /** 1-GiB pages (bit 17). */
  readonly hugePages: boolean;
  /** Accessed and dirty flags (bit 21). */
  readonly accessedDirty: boolean;
  /** Advanced information in exit qualifications (bit 22). */
  readonly advancedInformation: boolean;
}

/** Bits of the low half of IA32_VMX_EPT_VPID_CAP that concern EPT (SDM vol. 3D, app. A, "VPID and EPT Capabilities"). */
export const EPT_CAP = {
  EXECUTE_ONLY: 1 << 0,
  WALK_LENGTH_4: 1 << 6,
  WALK_LENGTH_5: 1 << 7,
  UC: 1 << 8,
  WB: 1 << 14,
  PAGES_2M: 1 << 16,
  PAGES_1G: 1 << 17,
  INVEPT: 1 << 20,
  ACCESSED_DIRTY: 1 << 21,
  ADVANCED_INFORMATION: 1 << 22,
  INVEPT_SINGLE: 1 << 25,
  INVEPT_ALL: 1 << 26,
} as const;

/** The features that an IA32_VMX_EPT_VPID_CAP with this low half reports. */
export function eptFeatures(capLow: number, maxPhysicalBits: number): EptFeatures {
  return {
    maxPhysicalBits,
    executeOnly: (capLow & EPT_CAP.EXECUTE_ONLY) !== 0,
    fiveLevel: (capLow & EPT_CAP.WALK_LENGTH_5) !== 0,
    largePages: (capLow & EPT_CAP.PAGES_2M) !== 0,
    hugePages: (capLow & EPT_CAP.PAGES_1G) !== 0,
    accessedDirty: (capLow & EPT_CAP.ACCESSED_DIRTY) !== 0,
    advancedInformation: (capLow & EPT_CAP.ADVANCED_INFORMATION) !== 0,
  };
}

/** Names of EPT entries by level, 1 … 5. */
export const EPT_ENTRY_NAMES = ["", "EPT PTE", "EPT PDE", "EPT PDPTE", "EPT PML4E", "EPT PML5E"] as const;

/** log2 of the size of the page that a leaf of this level (1 … 3) maps. */
export function eptPageShift(level: number): number {
  return 3 + 9 * level;
}

/** Levels of the tables that an EPT pointer with this low half leads to. */
export function eptLevels(eptpLow: number): number {
  return ((eptpLow & EPTP.LENGTH) >>> 3) + 1;
}

/** Whether an entry of this level maps a page. */
export function isEptLeaf(level: number, low: number): boolean {
  return level === 1 || (level < 4 && (low & EPTE.PS) !== 0);
}

/**
 * Reserved bits of a present entry, as two halves: what makes it a misconfiguration when set.
 *
 * @param level 1 = EPT page table … 5 = EPT PML5 table.
 * @param leaf Whether the entry maps a page.
 */
export function eptReservedBits(
  level: number,
  leaf: boolean,
  features: EptFeatures,
): { readonly low: number; readonly high: number } {
  // Bits 51:MAXPHYADDR; 63:52 are ignored or have a meaning.
  const high = -1 << (features.maxPhysicalBits - 32) & 0xf_ffff;
  if (!leaf) {
    // Bits 6:3, and bit 7 where it can't be a page size.
    return { low: level >= 4 ? 0xf8 : 0x78, high };
  }
  if (level === 3) return { low: features.hugePages ? 0x3fff_f000 : EPTE.PS, high };
  if (level === 2) return { low: features.largePages ? 0x1f_f000 : EPTE.PS, high };
  return { low: 0, high };
}

/** Why an entry is misconfigured; the words of SDM vol. 3C, "EPT Misconfigurations". */
export type EptMisconfiguration =
  | "write without read"
  | "execute-only is not supported"
  | "reserved bits are set"
  | "memory type is reserved";

/**
 * Whether the low half of an entry allows anything: an entry that does not is "not present" and its other bits mean nothing.
 *
 * @param present {@link eptPresentMask}.
 */
export function isEptPresent(low: number, present: number): boolean {
  return (low & present) !== 0;
}

/** Bits of which one makes an entry present: R, W, X, and under mode-based execute control user X. */
export function eptPresentMask(modeBased: boolean): number {
  return modeBased ? EPTE.R | EPTE.W | EPTE.X | EPTE.XU : EPTE.R | EPTE.W | EPTE.X;
}

/**
 * The misconfiguration of a present entry, or undefined.
 *
 * Precondition: {@link isEptPresent}.
 */
export function eptMisconfiguration(
  level: number,
  low: number,
  high: number,
  features: EptFeatures,
): EptMisconfiguration | undefined {
  const leaf = isEptLeaf(level, low);
  if ((low & (EPTE.R | EPTE.W)) === EPTE.W) return "write without read";
  if (!(low & (EPTE.R | EPTE.W)) && !features.executeOnly) return "execute-only is not supported";
  const reserved = eptReservedBits(level, leaf, features);
  if ((low & reserved.low) | (high & reserved.high)) return "reserved bits are set";
  if (leaf && !isMemoryType((low & EPTE.TYPE) >>> 3)) return "memory type is reserved";
  return undefined;
}

/** Whether a leaf may have this memory type: UC, WC, WT, WP, WB. */
export function isMemoryType(type: number): boolean {
  return type === 0 || type === 1 || (type >= 4 && type <= 6);
}

/** Name of a memory type. */
export function memoryTypeName(type: number): string {
  return ["UC", "WC", "reserved", "reserved", "WT", "WP", "WB", "UC-"][type & 7]!;
}

/**
 * The memory type of an access in non-root operation (SDM vol. 3C, "Memory Type Used for Translated Guest-Physical Addresses"). The
 * machine has no caches, so that nothing but reports depends on it.
 *
 * @param eptType Type in the EPT leaf.
 * @param patType Type that the guest's PAT gives; WB with CR0.PG = 0.
 * @param cacheDisable CR0.CD.
 */
export function effectiveMemoryType(
  eptType: number,
  ignorePat: boolean,
  patType: number,
  cacheDisable: boolean,
): number {
  if (cacheDisable) return MEMORY_TYPE.UC;
  if (ignorePat) return eptType;
  const { UC, WC, WT, WP, WB, UC_MINUS } = MEMORY_TYPE;
  // SDM vol. 3A, "Effective Page-Level Memory Types", with the EPT type in the place of the MTRR's.
  if (patType === WC) return WC;
  if (patType === UC) return UC;
  if (patType === UC_MINUS) return eptType === WC ? WC : UC;
  if (eptType === UC || eptType === WC) return eptType;
  if (eptType === WB) return patType;
  if (patType === WB) return eptType;
  return eptType === WP && patType === WP ? WP : eptType === WT && patType === WT ? WT : UC;
}

/** Whether an EPT pointer may be used for VM entry or EPTP switching (SDM vol. 3C, "Checks on VMX Controls", EPTP). */
export function isEptPointer(low: number, high: number, capLow: number, maxPhysicalBits: number): boolean {
  const type = low & EPTP.TYPE, length = eptLevels(low);
  if (!(type === 0 && capLow & EPT_CAP.UC) && !(type === 6 && capLow & EPT_CAP.WB)) return false;
  if (
    !(length === 4 && capLow & EPT_CAP.WALK_LENGTH_4) && !(length === 5 && capLow & EPT_CAP.WALK_LENGTH_5)
  ) {
    return false;
  }
  if (low & EPTP.AD && !(capLow & EPT_CAP.ACCESSED_DIRTY)) return false;
  // Bit 7 enables supervisor shadow stacks, which no model offers; 11:8 are reserved.
  return (low & 0xf80) === 0 && (high & (-1 << (maxPhysicalBits - 32))) === 0;
}
