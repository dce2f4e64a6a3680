/**
 * The page tables of every paging mode, as data, and the walker that reads them.
 *
 * Models SDM vol. 3A, chapter "Paging" (edition 2024): no paging, 32-bit paging (with PSE and PSE-36), PAE paging,
 * 4-level and 5-level paging; access rights, protection keys, reserved bits, accessed and dirty flags, error codes.
 *
 * One generic loop walks all formats of 8-byte entries, driven by {@link PAGING_FORMATS} and by reserved-bit masks that are
 * computed once from the processor's features; 32-bit paging has its own short loop. The walker keeps its results in
 * fields and allocates nothing: a 4-level walk is some 45 ns.
 *
 * In VMX non-root operation with EPT the addresses in CR3 and in the entries are guest-physical: the walker has each translated by
 * its {@link SecondDimension} before it reads or sets flags there, and at last the address of the page itself.
 *
 * Room: `hw/`; imports state.ts, trace.ts, and cpu.ts by its type. Knows no TLB: tlb.ts keeps what walks find.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { PAGE_FLAGS_BASE, PAGE_RAM, RAM_BASE, S } from "./state.ts";
import { type AccessKind, TRACE } from "./trace.ts";

// ---- Entry bits (the same in all formats; SDM vol. 3A, tables of paging-structure entries) -----------------

/** Bits of the low half of a paging-structure entry. */
export const PTE = {
  /** Present. */
  P: 0x1,
  /** Writes allowed. */
  W: 0x2,
  /** User-mode accesses allowed. */
  U: 0x4,
  /** Page-level write-through. */
  PWT: 0x8,
  /** Page-level cache disable. */
  PCD: 0x10,
  /** Accessed: set before the first use of the entry. */
  A: 0x20,
  /** Dirty: set before the first write through a leaf entry. */
  D: 0x40,
  /** Page size: this entry maps a page (PDE, PDPTE). In a page-table entry the same bit is PAT. */
  PS: 0x80,
  /** Global: not bound to a PCID (leaf entries, CR4.PGE). */
  G: 0x100,
} as const;

/** Bits of CR0, CR4 and EFER (low halves) that translation depends on. */
export const CR0_WP = 0x1_0000;
/** CR0.AM. */
export const CR0_AM = 0x4_0000;
/** CR0.PG, as a signed number. */
export const CR0_PG = 0x8000_0000 | 0;
/** CR4.PSE. */
export const CR4_PSE = 0x10;
/** CR4.PAE. */
export const CR4_PAE = 0x20;
/** CR4.PGE. */
export const CR4_PGE = 0x80;
/** CR4.LA57. */
export const CR4_LA57 = 0x1000;
/** CR4.PCIDE. */
export const CR4_PCIDE = 0x2_0000;
/** CR4.SMEP. */
export const CR4_SMEP = 0x10_0000;
/** CR4.SMAP. */
export const CR4_SMAP = 0x20_0000;
/** CR4.PKE. */
export const CR4_PKE = 0x40_0000;
/** EFER.LMA. */
export const EFER_LMA = 0x400;
/** EFER.NXE. */
export const EFER_NXE = 0x800;

/** Bits of a page-fault error code (SDM vol. 3A, "Page-Fault Exceptions"). */
export const PF = {
  /** The translation was present: a protection violation or a reserved bit. */
  P: 0x1,
  W: 0x2,
  U: 0x4,
  RSVD: 0x8,
  /** Instruction fetch (only reported with SMEP or NX in force). */
  I: 0x10,
  /** Protection key. */
  PK: 0x20,
} as const;

/**
 * What an access is, as the walker takes it: the bits W, U and I of the error code it would have, and
 * {@link ACCESS.SMAP} when it is a supervisor access to data that SMAP keeps out of user pages.
 */
export const ACCESS = { READ: 0, WRITE: PF.W, USER: PF.U, FETCH: PF.I, SMAP: 0x100 } as const;

/** Rights of a translation: W and U as in an entry, X = the page may be executed. */
export const RIGHT = { W: 2, U: 4, X: 0x10 } as const;
/** All rights. */
export const RIGHTS_ALL = RIGHT.W | RIGHT.U | RIGHT.X;

// ---- Formats ---------------------------------------------------------------------------------------------

/** The paging modes. */
export type PagingMode = "none" | "32-bit" | "PAE" | "4-level" | "5-level";

/** One level of a format. */
export interface PagingLevel {
  /** The SDM's name of an entry of this level. */
  readonly name: "PML5E" | "PML4E" | "PDPTE" | "PDE" | "PTE";
  /** 1 = page table … 5 = PML5 table. */
  readonly level: number;
  /** Lowest linear-address bit of the index. */
  readonly shift: number;
  /** Bits of the index. */
  readonly indexBits: number;
  /** Whether an entry may map a page: always, never, or when its PS bit is set. */
  readonly leaf: "always" | "never" | "PS";
}

/** The table format of a paging mode, root first. */
export interface PagingFormat {
  /** The paging mode. */
  readonly mode: PagingMode;
  /** Bytes of a table entry. */
  readonly entryBytes: 4 | 8;
  /** Levels, root first. */
  readonly levels: readonly PagingLevel[];
}

const pte: PagingLevel = { name: "PTE", level: 1, shift: 12, indexBits: 9, leaf: "always" };
const pde: PagingLevel = { name: "PDE", level: 2, shift: 21, indexBits: 9, leaf: "PS" };
const pdpte: PagingLevel = { name: "PDPTE", level: 3, shift: 30, indexBits: 9, leaf: "PS" };
const pml4e: PagingLevel = { name: "PML4E", level: 4, shift: 39, indexBits: 9, leaf: "never" };
const pml5e: PagingLevel = { name: "PML5E", level: 5, shift: 48, indexBits: 9, leaf: "never" };

/** The formats (SDM vol. 3A, "Hierarchical Paging Structures: an Overview"). The PDPTEs of PAE paging stand in registers. */
export const PAGING_FORMATS: Readonly<Record<PagingMode, PagingFormat>> = {
  "none": { mode: "none", entryBytes: 8, levels: [] },
  "32-bit": {
    mode: "32-bit",
    entryBytes: 4,
    levels: [{ ...pde, shift: 22, indexBits: 10 }, { ...pte, indexBits: 10 }],
  },
  "PAE": { mode: "PAE", entryBytes: 8, levels: [{ ...pdpte, indexBits: 2, leaf: "never" }, pde, pte] },
  "4-level": { mode: "4-level", entryBytes: 8, levels: [pml4e, pdpte, pde, pte] },
  "5-level": { mode: "5-level", entryBytes: 8, levels: [pml5e, pml4e, pdpte, pde, pte] },
};

/** What a walk gives when EPT refused it: neither a translation nor a page fault. The second dimension knows why. */
export const REFUSED_BY_EPT = -2;

/** The second dimension of a walk: guest-physical to host-physical addresses (ept_translate.ts). Results stand in fields. */
export interface SecondDimension {
  /** Host-physical address of the 4-KiB page. */
  readonly page: number;
  /**
   * Translates a guest-physical address.
   *
   * @param need Rights in EPT that the access needs: 1 read, 2 write, 4 fetch, 400H fetch from a user-mode linear address.
   * @param slot Level of the guest paging-structure entry at the address; 0 when it is the translation of a linear address.
   * @returns false when EPT refuses.
   */
  translate(low: number, high: number, need: number, slot: number): boolean;
}

/** What the processor model decides about paging. */
export interface PagingFeatures {
  /** MAXPHYADDR: physical-address width in bits, 36 … 52 (CPUID 80000008H). */
  readonly maxPhysicalBits: number;
  /** 1-GiB pages (CPUID 80000001H EDX bit 26). */
  readonly gigabytePages: boolean;
}

/** The paging mode in force (SDM vol. 3A, "Paging-Mode Enabling"). */
export function pagingMode(cpu: Cpu): PagingMode {
  if (!(cpu.get32(S.CR0) & CR0_PG)) return "none";
  const cr4 = cpu.get32(S.CR4);
  if (!(cr4 & CR4_PAE)) return "32-bit";
  if (!(cpu.get32(S.EFER) & EFER_LMA)) return "PAE";
  return cr4 & CR4_LA57 ? "5-level" : "4-level";
}

/**
 * Reserved bits of one entry of 8 bytes as two halves; `leaf`: the entry maps a page.
 * Bit 63 counts as reserved: the caller takes it out when EFER.NXE = 1.
 */
export function reservedBits(
  mode: PagingMode,
  level: number,
  leaf: boolean,
  features: PagingFeatures,
): { readonly low: number; readonly high: number } {
  // Physical-address bits that do not exist, up to bit 51; PAE paging reserves bits 62:52 as well.
  let high = -1 << (features.maxPhysicalBits - 32) & 0xf_ffff;
  if (mode === "PAE") high |= 0x7ff0_0000;
  high |= 0x8000_0000;
  let low = 0;
  if (level >= 4) low = PTE.PS;
  else if (leaf && level === 3) low = features.gigabytePages ? 0x3fff_e000 : PTE.PS;
  else if (leaf && level === 2) low = 0x001f_e000;
  return { low, high };
}

/** Reserved bits of a 4-MiB PDE of 32-bit paging with PSE-36: bits 20:13 are address bits 39:32, as far as these exist. */
export function reservedBits4M(features: PagingFeatures): number {
  const extra = Math.min(40, features.maxPhysicalBits) - 32;
  return 0x003f_e000 & ~(((1 << extra) - 1) << 13);
}

/** Whether rights refuse an access, protection keys left aside (SDM vol. 3A, "Determination of Access Rights"). */
export function rightsDeny(rights: number, access: number, cr0: number, cr4: number): boolean {
  let needed = access & (W | U | X);
  if (!(access & USER)) {
    if (!(cr0 & WP)) needed &= ~W;
    if (rights & U) {
      if (access & FETCH) {
        if (cr4 & SMEP) return true;
      } else if (access & SMAP) return true;
    }
  }
  return (needed & ~rights) !== 0;
}

/**
 * Whether PKRU refuses a data access to a user page with protection key `key` (SDM vol. 3A, "Protection Keys").
 *
 * Preconditions: 4- or 5-level paging, CR4.PKE = 1, the page's rights include U.
 */
export function keyDenies(key: number, access: number, pkru: number, cr0: number): boolean {
  if (access & FETCH) return false;
  const bits = (pkru >>> (2 * key)) & 3;
  if (bits & 1) return true;
  return (bits & 2) !== 0 && (access & WRITE) !== 0 && ((access & USER) !== 0 || (cr0 & WP) !== 0);
}

/** Whether a linear address is canonical; `la57`: CR4.LA57 = 1. Halves, `high` signed or unsigned. */
export function isCanonical(high: number, la57: boolean): boolean {
  const h = high | 0;
  return la57 ? h >> 24 === h >> 31 : h >> 15 === h >> 31;
}

/** The name of an access for people. */
export function accessKind(access: number): AccessKind {
  return access & ACCESS.FETCH ? "fetch" : access & ACCESS.WRITE ? "write" : "read";
}

/** A linear address from its halves; for events and reports. */
export function linearOf(low: number, high: number): bigint {
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}

const TWO32 = 0x1_0000_0000;

// What the hot functions below use of the tables above and of state.ts, as constants of this module: an imported or exported
// constant is a load and two checks at each use, one of these is folded into the code (measured: 42 against 83 ns a walk).
const RAM = RAM_BASE, FLAGS = PAGE_FLAGS_BASE, RAM_PAGE = PAGE_RAM, TRACE_REFERENCE = TRACE.reference;
const AT_CR0 = S.CR0, AT_CR3 = S.CR3, AT_CR4 = S.CR4, AT_EFER = S.EFER, AT_PKRU = S.PKRU;
const { P, A, D, PS, G } = PTE, { RSVD, PK } = PF, { W, U, X } = RIGHT;
const { WRITE, USER, FETCH, SMAP } = ACCESS;
const WP = CR0_WP, PAE = CR4_PAE, PGE = CR4_PGE, LA57 = CR4_LA57, SMEP = CR4_SMEP, PKE = CR4_PKE;
const LMA = EFER_LMA, NXE = EFER_NXE, ALL = RIGHTS_ALL, REFUSED = REFUSED_BY_EPT;
const AT_EPT = S.VMX_EPT, AT_EPTP = S.VMX_EPTP, AT_PROC2 = S.VMX_PROC2;
/** Rights in EPT, "enable accessed and dirty flags" in the EPT pointer, "mode-based execute control" among the secondary controls. */
const EPT_R = 1, EPT_W = 2, EPT_X = 4, EPT_XU = 0x400, EPTP_AD = 0x40, MODE_BASED = 1 << 22;

/**
 * Rights in EPT that an access to the translation of a linear address needs.
 *
 * @param rights {@link RIGHT} bits of the linear address: U makes it a user-mode one.
 */
export function eptNeed(access: number, rights: number, proc2: number): number {
  if (access & FETCH) return proc2 & MODE_BASED && rights & U ? EPT_XU : EPT_X;
  return access & WRITE ? EPT_W : EPT_R;
}

/**
 * Walks the page tables of one processor. Results stand in fields until the next walk.
 *
 * A `pure` walker changes nothing: no accessed or dirty flag, no counter, no event.
 */
export class Walker {
  /** Physical address of the 4-KiB page that holds the linear address (inside a large page if there is one). */
  page = 0;
  /** Its guest-physical address, where EPT translates. */
  guestPage = 0;
  /** Host-physical address of the table that {@link walkFrom} begins at, when it is known; −1 for EPT to find it. Goes back to −1 by itself. */
  fromHost = -1;
  /** log2 of the size of the page found: 12, 21, 22 or 30 (32 without paging). */
  shift = 12;
  /** {@link RIGHT} bits over all levels. */
  rights = 0;
  /** Not bound to a PCID. */
  global = false;
  /** Whether the leaf entry's D flag is set (in a pure walk: would be). */
  dirty = false;
  /** Protection key of the leaf. */
  key = 0;
  /** Level of the first entry read; 0 when none was (no paging, or a PDPTE register that is not present). */
  startLevel = 0;
  /** Level of the last entry read: the leaf, or where the walk failed. */
  lastLevel = 0;

  readonly #paths: Float64Array;
  /** By level (times 4), of the last walk: address of the entry (low, high half), rights gathered above it. */
  readonly #path = new Int32Array(6 * 4);
  /** By level: host-physical address of the entry, where EPT translates. */
  readonly #hosts = new Float64Array(6);

  readonly #second: SecondDimension | undefined;
  readonly #cpu: Cpu;
  readonly #pure: boolean;
  readonly #storeSlow: (physical: number, value: number) => void;
  readonly #i32: Int32Array;
  readonly #u8: Uint8Array;
  readonly #base: number;
  /** Index (level·2 + leaf)·2: reserved low and high half, bit 63 not among them. */
  readonly #reservedLong: Int32Array;
  readonly #reservedPae: Int32Array;
  readonly #reserved4M: number;

  /**
   * @param storeSlow Stores the low half of an entry that is not in plain RAM (ROM, decoded code, watched, or no RAM at all).
   */
  constructor(
    cpu: Cpu,
    features: PagingFeatures,
    options: {
      readonly pure: boolean;
      readonly storeSlow: (physical: number, value: number) => void;
      /** Without it, a processor on which EPT never translates. */
      readonly second?: SecondDimension | undefined;
    },
  ) {
    this.#second = options.second;
    this.#cpu = cpu;
    this.#pure = options.pure;
    this.#storeSlow = options.storeSlow;
    this.#i32 = cpu.memory.i32;
    this.#u8 = cpu.memory.u8;
    this.#base = cpu.base;
    this.#paths = cpu.counters.paths;
    this.#reservedLong = reservedTable("4-level", features);
    this.#reservedPae = reservedTable("PAE", features);
    this.#reserved4M = reservedBits4M(features);
  }

  /** Entries that the last walk read from memory. */
  get references(): number {
    return this.startLevel === 0 ? 0 : this.startLevel - this.lastLevel + 1;
  }
  /** Physical address of the table that the last walk indexed at `level` (a PDPTE of PAE paging is a register and has none). */
  tableAt(level: number): number {
    return this.#path[level * 4 + 1]! * TWO32 + ((this.#path[level * 4]! & ~0xfff) >>> 0);
  }
  /** Physical address of the entry that the last walk read at `level`. */
  entryAt(level: number): number {
    return this.#path[level * 4 + 1]! * TWO32 + (this.#path[level * 4]! >>> 0);
  }
  /** Rights that the last walk gathered above the entry of `level`. */
  rightsAbove(level: number): number {
    return this.#path[level * 4 + 2]!;
  }
  /** As {@link entryAt}, host-physical where EPT translates. */
  hostEntryAt(level: number): number {
    return this.#i32[(this.#base + AT_EPT) >>> 2] === 0 ? this.entryAt(level) : this.#hosts[level]!;
  }
  /** As {@link tableAt}, host-physical where EPT translates. */
  hostTableAt(level: number): number {
    const at = this.hostEntryAt(level);
    return at - at % 4096;
  }

  /**
   * Where the word of a table entry stands, as an index into the 32-bit view of memory; −1 when it is not in RAM.
   *
   * @param low Physical address, low half.
   * @param high Its upper half.
   */
  #entryWord(low: number, high: number): number {
    return high === 0 && this.#u8[FLAGS + (low >>> 12)]! & RAM_PAGE ? (RAM + low) >>> 2 : -1;
  }

  /**
   * Walks from the root for an access ({@link ACCESS} bits) to a canonical linear address.
   *
   * @returns −1 when the access is allowed (all result fields are set; A and D are set in memory), {@link REFUSED_BY_EPT}, else the error
   * code of the page fault.
   */
  walk(low: number, high: number, access: number): number {
    const i32 = this.#i32, s = this.#base;
    if (i32[(s + AT_CR0) >>> 2]! >= 0) return this.#identity(low, access);
    const cr4 = i32[(s + AT_CR4) >>> 2]!;
    if (!(cr4 & PAE)) return this.#walk32(low, access);
    if (!(i32[(s + AT_EFER) >>> 2]! & LMA)) return this.#walkPae(low, access);
    const rootLow = i32[(s + AT_CR3) >>> 2]! & ~0xfff, rootHigh = i32[(s + AT_CR3 + 4) >>> 2]! & 0xf_ffff;
    return this.walkFrom(low, high, access, cr4 & LA57 ? 5 : 4, rootLow, rootHigh, ALL);
  }

  /**
   * As {@link walk}, from a table that is known already (a paging-structure cache's hit): 4-, 5-level and PAE paging.
   *
   * @param level Level of the entries in the table.
   * @param fromLow Physical address of the table, low half.
   * @param fromHigh Its upper half.
   * @param above Rights gathered above it.
   */
  walkFrom(
    linLow: number,
    linHigh: number,
    kind: number,
    from: number,
    fromLow: number,
    fromHigh: number,
    above: number,
  ): number {
    const i32 = this.#i32, s = this.#base | 0, path = this.#path;
    const low = linLow | 0, high = linHigh | 0, access = kind | 0;
    const efer = i32[(s + AT_EFER) >>> 2]!;
    const reserved = efer & LMA ? this.#reservedLong : this.#reservedPae;
    const traced = !this.#pure && (this.#cpu.trace.wants & TRACE_REFERENCE) !== 0;
    const nested = i32[(s + AT_EPT) >>> 2] === 0 ? undefined : this.#second;
    let level = from | 0, tableLow = fromLow | 0, tableHigh = fromHigh | 0, rights = above | 0;
    let entryLow = 0, entryHigh = 0, word = 0, at = 0, refused = -1, hostLow = 0, hostHigh = 0;
    for (;;) {
      at = (tableLow + indexAt(level, low, high) * 8) | 0;
      path[level * 4] = at;
      path[level * 4 + 1] = tableHigh;
      path[level * 4 + 2] = rights;
      hostLow = at;
      hostHigh = tableHigh;
      if (nested !== undefined) {
        if (!this.#locate(nested, level, at, tableHigh)) return this.#refuse(from, level + 1);
        hostLow = this.#hostLow | 0;
        hostHigh = this.#hostHigh | 0;
      }
      word = this.#entryWord(hostLow, hostHigh) | 0;
      if (word >= 0) {
        entryLow = i32[word]!;
        entryHigh = i32[word + 1]!;
      } else {
        entryLow = this.#readSlow(hostLow, hostHigh) | 0;
        entryHigh = this.#readSlow(hostLow + 4, hostHigh) | 0;
      }
      if (traced) this.#traceReference(level, at, tableHigh, entryLow, entryHigh);
      if (!(entryLow & P)) {
        refused = 0;
        break;
      }
      const leaf = level === 1 || (level < 4 && (entryLow & PS) !== 0);
      const r = level * 4 + (leaf ? 2 : 0);
      if ((entryLow & reserved[r]!) | (entryHigh & reserved[r + 1]!)) {
        refused = P | RSVD;
        break;
      }
      if (entryHigh < 0) {
        if (!(efer & NXE)) {
          refused = P | RSVD;
          break;
        }
        rights &= ~X;
      }
      rights &= entryLow | X;
      if (leaf) break;
      if (!(entryLow & A)) {
        if (nested !== undefined && !this.#writable(nested, level, at, tableHigh)) {
          return this.#refuse(from, level);
        }
        this.#setFlags(word, hostLow, hostHigh, entryLow, A);
      }
      tableLow = entryLow & ~0xfff;
      tableHigh = entryHigh & 0xf_ffff;
      level = (level - 1) | 0;
    }
    this.startLevel = from;
    this.lastLevel = level;
    this.#count(from, level);
    if (refused >= 0) return this.errorCode(access, refused);
    const cr0 = i32[(s + AT_CR0) >>> 2]!, cr4 = i32[(s + AT_CR4) >>> 2]!;
    const key = efer & LMA ? (entryHigh >>> 27) & 15 : 0;
    this.rights = rights;
    this.key = key;
    if (rightsDeny(rights, access, cr0, cr4)) refused = P;
    if (cr4 & PKE && rights & U && efer & LMA && keyDenies(key, access, i32[(s + AT_PKRU) >>> 2]!, cr0)) {
      refused = P | PK;
    }
    if (refused >= 0) return this.errorCode(access, refused);
    this.shift = level === 1 ? 12 : level === 2 ? 21 : 30;
    const inside = level === 1 ? 0 : level === 2 ? 0x1f_f000 : 0x3fff_f000;
    this.#setPage((entryLow & ~(inside | 0xfff)) | (low & inside), entryHigh & 0xf_ffff);
    if (nested !== undefined && (access & WRITE ? A | D : A) & ~entryLow) {
      if (!this.#writable(nested, level, at, tableHigh)) return REFUSED;
    }
    this.#leafFlags(word, hostLow, hostHigh, entryLow, access, cr4);
    return nested === undefined ? -1 : this.#final(nested, low, access);
  }

  /** 32-bit paging: two levels of 4-byte entries, 4-MiB pages with CR4.PSE. */
  #walk32(low: number, access: number): number {
    const i32 = this.#i32, s = this.#base;
    const cr0 = i32[(s + S.CR0) >>> 2]!, cr4 = i32[(s + S.CR4) >>> 2]!;
    const nested = i32[(s + AT_EPT) >>> 2] === 0 ? undefined : this.#second;
    this.startLevel = 2;
    this.key = 0;
    let at = ((i32[(s + S.CR3) >>> 2]! & ~0xfff) + (low >>> 22) * 4) | 0;
    if (nested !== undefined && !this.#locate(nested, 2, at, 0)) return this.#refuse(2, 3);
    let entry = this.#read32(2, at, RIGHTS_ALL, nested);
    let rights = (entry & (RIGHT.W | RIGHT.U)) | RIGHT.X;
    let refused = entry & PTE.P ? -1 : 0;
    if (refused < 0 && entry & PTE.PS && cr4 & CR4_PSE) {
      if (entry & this.#reserved4M) refused = PF.P | PF.RSVD;
      this.shift = 22;
      this.#setPage((entry & ~0x3f_ffff) | (low & 0x3f_f000), (entry >>> 13) & 0xff);
      this.lastLevel = 2;
    } else if (refused < 0) {
      if (!(entry & PTE.A)) {
        if (nested !== undefined && !this.#writable(nested, 2, at, 0)) return this.#refuse(2, 2);
        this.#setFlags32(nested, at, entry, PTE.A);
      }
      at = ((entry & ~0xfff) + ((low >>> 12) & 0x3ff) * 4) | 0;
      if (nested !== undefined && !this.#locate(nested, 1, at, 0)) return this.#refuse(2, 2);
      entry = this.#read32(1, at, rights, nested);
      if (!(entry & PTE.P)) refused = 0;
      rights &= entry | RIGHT.X;
      this.shift = 12;
      this.#setPage(entry & ~0xfff, 0);
      this.lastLevel = 1;
    } else this.lastLevel = 2;
    this.#count(2, this.lastLevel);
    this.rights = rights;
    if (refused < 0 && rightsDeny(rights, access, cr0, cr4)) refused = PF.P;
    if (refused >= 0) return this.errorCode(access, refused);
    if (nested === undefined) {
      this.#leafFlags(this.#entryWord(at, 0), at, 0, entry, access, cr4);
      return -1;
    }
    if ((access & WRITE ? A | D : A) & ~entry && !this.#writable(nested, this.lastLevel, at, 0)) {
      return REFUSED;
    }
    this.#leafFlags(
      this.#entryWord(this.#hostLow, this.#hostHigh),
      this.#hostLow,
      this.#hostHigh,
      entry,
      access,
      cr4,
    );
    return this.#final(nested, low, access);
  }

  /** PAE paging: the PDPTE comes from its register; it carries no rights and no accessed flag. */
  #walkPae(low: number, access: number): number {
    const i = (this.#base + S.PDPTE + (low >>> 30) * 8) >>> 2;
    const entryLow = this.#i32[i]!;
    if (!(entryLow & PTE.P)) {
      this.startLevel = 0;
      this.lastLevel = 1;
      this.#count(0, 0);
      return this.errorCode(access, 0);
    }
    return this.walkFrom(low, 0, access, 2, entryLow & ~0xfff, this.#i32[i + 1]! & 0xf_ffff, RIGHTS_ALL);
  }

  #identity(low: number, access: number): number {
    this.#setPage(low & ~0xfff, 0);
    this.shift = 32;
    this.rights = RIGHTS_ALL;
    this.global = false;
    this.dirty = true;
    this.key = 0;
    this.startLevel = this.lastLevel = 0;
    const nested = this.#i32[(this.#base + AT_EPT) >>> 2] === 0 ? undefined : this.#second;
    return nested === undefined ? -1 : this.#final(nested, low, access);
  }

  // ---- the second dimension

  /** Low and upper half of the host-physical address of the entry that {@link #locate} found. */
  #hostLow = 0;
  #hostHigh = 0;

  /** Has the guest-physical address of an entry translated; false when EPT refuses. */
  #locate(nested: SecondDimension, level: number, at: number, high: number): boolean {
    let page = this.fromHost;
    this.fromHost = -1;
    if (page < 0) {
      // With accessed and dirty flags for EPT, any access to a guest paging-structure entry counts as a write.
      const need = this.#i32[(this.#base + AT_EPTP) >>> 2]! & EPTP_AD ? EPT_R | EPT_W : EPT_R;
      if (!nested.translate(at, high, need, level)) return false;
      page = nested.page;
    }
    const host = page + (at & 0xfff);
    this.#hosts[level] = host;
    this.#hostLow = host | 0;
    this.#hostHigh = (host / TWO32) | 0;
    return true;
  }

  /** Whether EPT lets a flag be set in an entry that was read; without accessed and dirty flags for EPT this is an access of its own. */
  #writable(nested: SecondDimension, level: number, at: number, high: number): boolean {
    if (this.#i32[(this.#base + AT_EPTP) >>> 2]! & EPTP_AD) return true;
    return nested.translate(at, high, EPT_R | EPT_W, level);
  }

  /** The guest's tables allow the access: translates the guest-physical address that they gave. */
  #final(nested: SecondDimension, low: number, access: number): number {
    this.guestPage = this.page;
    const need = eptNeed(access, this.rights, this.#i32[(this.#base + AT_PROC2) >>> 2]!);
    const gpaLow = (this.page | 0) | (low & 0xfff);
    if (!nested.translate(gpaLow, (this.page / TWO32) | 0, need, 0)) return REFUSED;
    this.page = nested.page;
    return -1;
  }

  /** EPT refuses the walk after the entry of `last` was read (one above `from` when none was). */
  #refuse(from: number, last: number): number {
    this.fromHost = -1;
    this.startLevel = last > from ? 0 : from;
    this.lastLevel = last > from ? 1 : last;
    this.#count(this.startLevel, this.startLevel === 0 ? 0 : last);
    return REFUSED;
  }

  /** As {@link #setFlags}, in an entry of 32-bit paging. */
  #setFlags32(nested: SecondDimension | undefined, at: number, entry: number, flags: number): void {
    const low = nested === undefined ? at : this.#hostLow, high = nested === undefined ? 0 : this.#hostHigh;
    this.#setFlags(this.#entryWord(low, high), low, high, entry, flags);
  }

  #setPage(low: number, high: number): void {
    this.page = high === 0 ? low >>> 0 : high * TWO32 + (low >>> 0);
  }

  /** Sets A, and on a write D, in the leaf of an allowed access. */
  #leafFlags(word: number, at: number, high: number, entryLow: number, access: number, cr4: number): void {
    const want = access & WRITE ? A | D : A;
    if (want & ~entryLow) this.#setFlags(word, at, high, entryLow, want);
    this.dirty = ((entryLow | want) & D) !== 0;
    this.global = (entryLow & G) !== 0 && (cr4 & PGE) !== 0;
  }

  /**
   * Sets flags in an entry. Silicon does this as a locked read-modify-write that starts over when the entry has
   * changed; here no other processor runs between the read of the entry and this store, so it is one by construction.
   */
  #setFlags(word: number, at: number, high: number, entryLow: number, flags: number): void {
    if (this.#pure) return;
    const counters = this.#cpu.counters;
    if (flags & ~entryLow & A) counters.accessedSet++;
    if (flags & ~entryLow & D) counters.dirtySet++;
    if (word >= 0 && this.#u8[FLAGS + (at >>> 12)] === RAM_PAGE) this.#i32[word] = entryLow | flags;
    else this.#storeSlow(high * TWO32 + (at >>> 0), entryLow | flags);
  }

  /** The error code of a fault: what was refused (P, RSVD, PK bits), and what the access was. */
  errorCode(access: number, refused: number): number {
    let code = refused | (access & (PF.W | PF.U));
    if (access & ACCESS.FETCH) {
      const i32 = this.#i32, s = this.#base, cr4 = i32[(s + S.CR4) >>> 2]!;
      if (cr4 & CR4_SMEP || (cr4 & CR4_PAE && i32[(s + S.EFER) >>> 2]! & EFER_NXE)) code |= PF.I;
    }
    return code;
  }

  /** Counts a walk by its path; what the counters say about walks and references comes from that. */
  #count(startLevel: number, lastLevel: number): void {
    if (!this.#pure) this.#paths[startLevel * 8 + lastLevel]!++;
  }

  #read32(level: number, at: number, above: number, nested: SecondDimension | undefined): number {
    this.#path[level * 4] = at;
    this.#path[level * 4 + 1] = 0;
    this.#path[level * 4 + 2] = above;
    const low = nested === undefined ? at : this.#hostLow, high = nested === undefined ? 0 : this.#hostHigh;
    const word = this.#entryWord(low, high);
    const value = word >= 0 ? this.#i32[word]! : this.#readSlow(low, high);
    if (!this.#pure && this.#cpu.trace.wants & TRACE.reference) this.#traceReference(level, at, 0, value, 0);
    return value;
  }

  /** A word that is not in RAM. A pure walk asks no device: to it there is nothing there. */
  #readSlow(at: number, high: number): number {
    return this.#pure ? -1 : this.#cpu.bus.read(high * TWO32 + (at >>> 0), 4) | 0;
  }

  #traceReference(level: number, at: number, high: number, entryLow: number, entryHigh: number): void {
    const cpu = this.#cpu;
    cpu.trace.emit({
      kind: "reference",
      cpu: cpu.id,
      time: cpu.now(),
      level,
      physical: high * TWO32 + (at >>> 0),
      value: linearOf(entryLow, entryHigh),
    });
  }
}

/** Index into the table of `level` of a linear address, formats of 8-byte entries. PAE's level 3 is not asked for. */
function indexAt(level: number, low: number, high: number): number {
  switch (level) {
    case 1:
      return (low >>> 12) & 511;
    case 2:
      return (low >>> 21) & 511;
    case 3:
      return ((low >>> 30) | (high << 2)) & 511;
    case 4:
      return (high >>> 7) & 511;
    default:
      return (high >>> 16) & 511;
  }
}

function reservedTable(mode: PagingMode, features: PagingFeatures): Int32Array {
  const table = new Int32Array(6 * 4);
  for (let level = 1; level <= 5; level++) {
    for (const leaf of [false, true]) {
      const { low, high } = reservedBits(mode, level, leaf, features);
      table[level * 4 + (leaf ? 2 : 0)] = low;
      table[level * 4 + (leaf ? 3 : 1)] = high & 0x7fff_ffff;
    }
  }
  return table;
}

/**
 * Loads the four PDPTEs of PAE paging from where `cr3Low` points (SDM vol. 3A, "PDPTE Registers"): for MOV to CR3, and MOV to CR0
 * or CR4 that changes CD, NW, PG, PAE, PGE, PSE or SMEP.
 *
 * Where EPT translates, `cr3Low` is guest-physical: the loads are reads with no linear address, which EPT may refuse.
 *
 * @returns false when a present PDPTE has a reserved bit set: the instruction raises #GP(0) and nothing has changed.
 * @throws {typeof FAULT} with a VM exit (or #VE) pending when EPT refuses.
 */
export function loadPdptes(cpu: Cpu, cr3Low: number, features: PagingFeatures): boolean {
  const guest = (cr3Low & ~0x1f) >>> 0;
  const at = cpu.get32(S.VMX_EPT) === 0 ? guest : cpu.access.guestPhysicalRead(guest, 0);
  const words: number[] = [];
  const reservedHigh = -1 << (features.maxPhysicalBits - 32);
  for (let i = 0; i < 4; i++) {
    const low = cpu.bus.read(at + i * 8, 4) | 0, high = cpu.bus.read(at + i * 8 + 4, 4) | 0;
    if (low & PTE.P && ((low & 0x1e6) | (high & reservedHigh)) !== 0) return false;
    words.push(low, high);
  }
  for (let i = 0; i < 4; i++) cpu.set64Halves(S.PDPTE + i * 8, words[2 * i]!, words[2 * i + 1]!);
  return true;
}
