/**
 * What each operation must invalidate, as one table (SDM vol. 3A, "Invalidation of TLBs and Paging-Structure Caches"; vol. 3C, "Caching
 * Translation Information"), shared by all TLB choices; and the entries that are invalidated.
 *
 * There are three kinds of cached mapping. *Linear* mappings are made while EPT is off and carry VPID and PCID; *combined* mappings
 * are made through both dimensions of paging and carry VPID, PCID and EP4TA (bits 51:12 of the EPT pointer); *guest-physical* mappings
 * are made of EPT alone and carry only the EP4TA. Linear and combined mappings are {@link TlbEntry} and {@link StructureEntry}, told apart
 * by their EP4TA; guest-physical ones are {@link GuestPhysicalEntry} and {@link GuestPhysicalStructure}.
 *
 * Room: `hw/`; imports nothing. tlb.ts applies the rules, the stores (tlb_sticky.ts, tlb_geometry.ts) hold the entries.
 *
 * @module
 */

/** The EP4TA of a linear mapping: none. */
export const NO_EPT = -1;
/** In {@link Selection}: every VPID but 0000H. */
export const VPID_NONZERO = -2;

/** What an operation must invalidate. More would always be legal. */
export interface InvalidationRule {
  /** Which kinds of mapping tagged with a linear address: linear, combined, or both. */
  readonly kinds: "linear and combined" | "combined";
  /** Of which VPIDs. */
  readonly vpids: "current" | "operand" | "nonzero" | "all";
  /** Combined mappings of which EP4TAs. */
  readonly ep4tas: "all" | "current" | "operand";
  /** Guest-physical mappings of these EP4TAs: none, those used for the guest-physical address at hand, or all. */
  readonly guestPhysical: "none" | "address" | "all";
  /**
   * TLB entries of which linear addresses: of the page of any size in the guest's tables that holds the operand (all pieces of it), those
   * used for the address itself, all, or none.
   */
  readonly pages: "none" | "page" | "address" | "all";
  /** Entries of which PCIDs: the current one, the operation's operand, or all. */
  readonly pcids: "current" | "operand" | "all";
  /** Whether global entries (of any PCID) go as well. */
  readonly globals: boolean;
  /** Paging-structure-cache entries of these PCIDs: those used for the address, all, or none. */
  readonly structures: "none" | "address" | "all";
  /** Where the SDM says so, in words. */
  readonly ref: string;
}

/** "Operations that architecturally invalidate … independent of VMX operation": of the current VPID, whatever the EP4TA. */
const ORDINARY = {
  kinds: "linear and combined",
  vpids: "current",
  ep4tas: "all",
  guestPhysical: "none",
} as const;

/** The operations by name. */
export const INVALIDATION_RULES = {
  "MOV CR3": {
    ...ORDINARY,
    pages: "all",
    pcids: "operand",
    globals: false,
    structures: "all",
    ref: "MOV to CR3 with CR4.PCIDE = 0 (PCID 000H) or with bit 63 of the source clear (PCID = bits 11:0)",
  },
  "everything": {
    ...ORDINARY,
    pages: "all",
    pcids: "all",
    globals: true,
    structures: "all",
    ref: "MOV to CR4 that changes PGE or clears PCIDE; MOV to CR0 that clears PG; INVPCID type 2",
  },
  "current PCID": {
    ...ORDINARY,
    pages: "all",
    pcids: "current",
    globals: true,
    structures: "all",
    ref: "MOV to CR4 that changes PAE or sets SMEP",
  },
  "non-global": {
    ...ORDINARY,
    pages: "all",
    pcids: "all",
    globals: false,
    structures: "all",
    ref: "INVPCID type 3",
  },
  "INVLPG": {
    ...ORDINARY,
    pages: "page",
    pcids: "current",
    globals: true,
    structures: "all",
    ref:
      "INVLPG: the page with the current PCID, globals of any PCID, all structure caches of the current PCID",
  },
  "INVPCID address": {
    ...ORDINARY,
    pages: "page",
    pcids: "operand",
    globals: false,
    structures: "all",
    ref: "INVPCID type 0",
  },
  "INVPCID PCID": {
    ...ORDINARY,
    pages: "all",
    pcids: "operand",
    globals: false,
    structures: "all",
    ref: "INVPCID type 1",
  },
  "page fault": {
    ...ORDINARY,
    pages: "page",
    pcids: "current",
    globals: true,
    structures: "address",
    ref: "a page fault: what refused the access does not refuse it again unless the tables do",
  },
  "reset": {
    kinds: "linear and combined",
    vpids: "all",
    ep4tas: "all",
    guestPhysical: "all",
    pages: "all",
    pcids: "all",
    globals: true,
    structures: "all",
    ref: "power-up and reset",
  },
  "VM transition": {
    kinds: "linear and combined",
    vpids: "operand",
    ep4tas: "all",
    guestPhysical: "none",
    pages: "all",
    pcids: "all",
    globals: true,
    structures: "all",
    ref: 'VM entries and VM exits with "enable VPID" = 0: VPID 0000H, all PCIDs, all EP4TAs',
  },
  "EPT violation": {
    kinds: "combined",
    vpids: "current",
    ep4tas: "current",
    guestPhysical: "address",
    pages: "address",
    pcids: "current",
    globals: true,
    structures: "address",
    ref:
      "an EPT violation: guest-physical mappings for the address, and combined ones if it was the translation of a linear address",
  },
  "EPT violation, walk": {
    kinds: "combined",
    vpids: "current",
    ep4tas: "current",
    guestPhysical: "address",
    pages: "none",
    pcids: "current",
    globals: false,
    structures: "none",
    ref:
      "an EPT violation on a guest paging-structure entry: guest-physical mappings for the address, nothing else",
  },
  "INVVPID address": {
    kinds: "linear and combined",
    vpids: "operand",
    ep4tas: "all",
    guestPhysical: "none",
    pages: "address",
    pcids: "all",
    globals: true,
    structures: "address",
    ref: "INVVPID type 0: the VPID's mappings for the linear address, all PCIDs and EP4TAs, global ones too",
  },
  "INVVPID": {
    kinds: "linear and combined",
    vpids: "operand",
    ep4tas: "all",
    guestPhysical: "none",
    pages: "all",
    pcids: "all",
    globals: true,
    structures: "all",
    ref: "INVVPID type 1: all mappings of the VPID",
  },
  "INVVPID all": {
    kinds: "linear and combined",
    vpids: "nonzero",
    ep4tas: "all",
    guestPhysical: "none",
    pages: "all",
    pcids: "all",
    globals: true,
    structures: "all",
    ref: "INVVPID type 2: all mappings of all VPIDs but 0000H",
  },
  "INVVPID non-global": {
    kinds: "linear and combined",
    vpids: "operand",
    ep4tas: "all",
    guestPhysical: "none",
    pages: "all",
    pcids: "all",
    globals: false,
    structures: "all",
    ref: "INVVPID type 3: all mappings of the VPID but global translations",
  },
  "INVEPT": {
    kinds: "combined",
    vpids: "all",
    ep4tas: "operand",
    guestPhysical: "all",
    pages: "all",
    pcids: "all",
    globals: true,
    structures: "all",
    ref: "INVEPT type 1: guest-physical and combined mappings of the EP4TA, all VPIDs and PCIDs",
  },
  "INVEPT all": {
    kinds: "combined",
    vpids: "all",
    ep4tas: "all",
    guestPhysical: "all",
    pages: "all",
    pcids: "all",
    globals: true,
    structures: "all",
    ref: "INVEPT type 2: guest-physical and combined mappings of all EP4TAs",
  },
} as const satisfies Readonly<Record<string, InvalidationRule>>;

/** The name of an operation that invalidates. */
export type InvalidationName = keyof typeof INVALIDATION_RULES;

/** Where and when a cached translation was made. */
export interface Birth {
  /** Instructions retired, as `cpu.now()`. */
  readonly time: number;
  /** RIP of the instruction at hand. */
  readonly rip: bigint;
  /** What the sanitizer's `context` hook said then. */
  readonly context: unknown;
}

/** What a combined mapping knows of the second dimension. */
export interface GuestSide {
  /** Guest-physical address of what the entry maps, its first byte. */
  readonly physical: number;
  /** Rights in EPT: bits R, W, X and user X of ept_format.ts. */
  readonly rights: number;
  /** Whether bit 63 of the EPT leaf keeps a violation from becoming a #VE. */
  readonly suppressed: boolean;
}

/** Whose mappings are meant, or in force. */
export interface TlbContext {
  /** VPID; 0 in root operation, and outside VMX operation. */
  vpid: number;
  /** PCID; 0 with CR4.PCIDE = 0. */
  pcid: number;
  /** Bits 51:12 of the EPT pointer as a number; {@link NO_EPT} while EPT is off. */
  ep4ta: number;
}

/** A cached linear or combined mapping. Only {@link reported} changes after it was made. */
export interface TlbEntry {
  /** First byte of the page, as 32-bit halves (signed). */
  readonly low: number;
  /** Upper half, signed. */
  readonly high: number;
  /** log2 of the size of what the entry maps: 12, 21, 22 or 30. */
  readonly shift: number;
  /** log2 of the size of the page in the tables, of which the entry may be a piece: INVLPG removes all pieces. */
  readonly pageShift: number;
  /** Physical address of the page's first byte. */
  readonly base: number;
  /** RIGHT bits of paging.ts. */
  readonly rights: number;
  /** Protection key. */
  readonly key: number;
  /** Not bound to a PCID. */
  readonly global: boolean;
  /** Always 0 outside VMX non-root operation. */
  readonly vpid: number;
  /** The PCID in force. */
  readonly pcid: number;
  /** The EP4TA in force; {@link NO_EPT} for a linear mapping. */
  readonly ep4ta: number;
  /** Whether a write may use the entry; if not, it walks again. */
  readonly dirty: boolean;
  /** The second dimension; undefined for a linear mapping. */
  readonly guest: GuestSide | undefined;
  /** Physical addresses of the table entries that were read for it; empty without the sanitizer. */
  readonly words: readonly number[];
  /** Its making; only kept for the sanitizer. */
  readonly birth: Birth | undefined;
  /** Bit set of kinds of access (1 read, 2 write, 4 fetch) already reported as stale. */
  reported: number;
}

/** A cached paging-structure entry: where the table one level below stands, and the rights gathered so far. */
export interface StructureEntry {
  /** Linear address of the region, as halves. */
  readonly low: number;
  /** Upper half, signed. */
  readonly high: number;
  /** Level of the table that it leads to (1 = page table … 4). */
  readonly level: number;
  /** Physical address of that table; guest-physical for a combined mapping. */
  readonly table: number;
  /** Host-physical address of that table, for a combined mapping that holds it; else −1. */
  readonly host: number;
  /** RIGHT bits of paging.ts. */
  readonly rights: number;
  /** Always 0 outside VMX non-root operation. */
  readonly vpid: number;
  /** The PCID in force. */
  readonly pcid: number;
  /** The EP4TA in force; {@link NO_EPT} for a linear mapping. */
  readonly ep4ta: number;
  /** Physical addresses of the table entries that it was made from; empty without the sanitizer. */
  readonly words: readonly number[];
  /** Its making; only kept for the sanitizer. */
  readonly birth: Birth | undefined;
  /** Bit set of kinds of access (1 read, 2 write, 4 fetch) already reported as stale. */
  reported: number;
}

/** A cached guest-physical mapping. Only {@link reported} changes after it was made. */
export interface GuestPhysicalEntry {
  /** First byte of the page, guest-physical, as halves (signed). */
  readonly low: number;
  /** Upper half. */
  readonly high: number;
  /** log2 of the page's size: 12, 21 or 30. */
  readonly shift: number;
  /** Host-physical address of its first byte. */
  readonly base: number;
  /** Rights in EPT: bits R, W, X and user X of ept_format.ts. */
  readonly rights: number;
  /** Whether a write may use the entry; if not, it walks again. */
  readonly dirty: boolean;
  /** Whether bit 63 of the EPT leaf keeps a violation from becoming a #VE. */
  readonly suppressed: boolean;
  /** The EP4TA in force. */
  readonly ep4ta: number;
  /** Physical addresses of the EPT entries that were read for it; empty without the sanitizer. */
  readonly words: readonly number[];
  /** Its making; only kept for the sanitizer. */
  readonly birth: Birth | undefined;
  /** Bit set of kinds of access (1 read, 2 write, 4 fetch) already reported as stale. */
  reported: number;
}

/** A cached EPT paging-structure entry. */
export interface GuestPhysicalStructure {
  /** Guest-physical address of the region, as halves (signed). */
  readonly low: number;
  /** Upper half. */
  readonly high: number;
  /** Level of the EPT table that it leads to (1 … 4). */
  readonly level: number;
  /** Host-physical address of that table. */
  readonly table: number;
  /** Rights in EPT, gathered so far. */
  readonly rights: number;
  /** The EP4TA in force. */
  readonly ep4ta: number;
  /** Physical addresses of the EPT entries that it was made from; empty without the sanitizer. */
  readonly words: readonly number[];
  /** Its making; only kept for the sanitizer. */
  readonly birth: Birth | undefined;
  /** Bit set of kinds of access (1 read, 2 write, 4 fetch) already reported as stale. */
  reported: number;
}

/** What an operation removes: a rule with its operands filled in. */
export interface Selection {
  /** The rule. */
  readonly rule: InvalidationRule;
  /** VPID that the rule speaks of; −1 for all, {@link VPID_NONZERO}. */
  readonly vpid: number;
  /** EP4TA that the rule speaks of; −1 for all. */
  readonly ep4ta: number;
  /** PCID that the rule speaks of; −1 for all. */
  readonly pcid: number;
  /** Guest-physical address, for rules about one: low half, signed. */
  readonly gpaLow: number;
  /** Upper half. */
  readonly gpaHigh: number;
  /** Lower half, signed. */
  readonly low: number;
  /** Upper half, signed. */
  readonly high: number;
}

/** log2 of the region that one entry of the table above `level` covers: 21 for a page table, 30, 39, 48. */
export function structureShift(level: number): number {
  return 12 + 9 * level;
}

/** Whether two linear addresses share bits from `shift` up. */
export function sameRegion(
  low: number,
  high: number,
  otherLow: number,
  otherHigh: number,
  shift: number,
): boolean {
  if (shift < 32) return high === otherHigh && ((low ^ otherLow) >>> shift) === 0;
  return ((high ^ otherHigh) >>> (shift - 32)) === 0;
}

/** Whether the operation is about mappings with this VPID and EP4TA. */
export function selectsOwner(s: Selection, vpid: number, ep4ta: number): boolean {
  if (s.rule.kinds === "combined" && ep4ta === NO_EPT) return false;
  if (s.vpid >= 0 ? vpid !== s.vpid : s.vpid === VPID_NONZERO && vpid === 0) return false;
  return s.ep4ta < 0 || ep4ta === NO_EPT || ep4ta === s.ep4ta;
}

/** Whether the operation removes this linear or combined mapping. */
export function selectsEntry(s: Selection, e: TlbEntry): boolean {
  if (!selectsOwner(s, e.vpid, e.ep4ta)) return false;
  if (e.global) {
    if (!s.rule.globals) return false;
  } else if (s.pcid >= 0 && e.pcid !== s.pcid) return false;
  return selectsPage(s, e);
}

/** Whether the operation names the linear address of this mapping. */
export function selectsPage(s: Selection, e: TlbEntry): boolean {
  switch (s.rule.pages) {
    case "none":
      return false;
    case "all":
      return true;
    case "address":
      return sameRegion(s.low, s.high, e.low, e.high, e.shift);
    case "page":
      return sameRegion(s.low, s.high, e.low, e.high, e.pageShift);
  }
}

/** Whether the operation removes this paging-structure-cache entry. */
export function selectsStructure(s: Selection, e: StructureEntry): boolean {
  if (!selectsOwner(s, e.vpid, e.ep4ta)) return false;
  if (s.pcid >= 0 && e.pcid !== s.pcid) return false;
  if (s.rule.structures === "none") return false;
  return s.rule.structures === "all" || sameRegion(s.low, s.high, e.low, e.high, structureShift(e.level));
}

/** Whether the operation removes guest-physical mappings of this region. */
export function selectsGuestPhysical(
  s: Selection,
  ep4ta: number,
  low: number,
  high: number,
  shift: number,
): boolean {
  if (s.rule.guestPhysical === "none" || (s.ep4ta >= 0 && ep4ta !== s.ep4ta)) return false;
  return s.rule.guestPhysical === "all" || sameRegion(s.gpaLow, s.gpaHigh, low, high, shift);
}

/** What a modelled TLB holds. Lookups take the halves of a linear address, `high` signed. */
export interface TlbStore {
  /** Whether accesses may bypass the store through the fast TLB after it was consulted once. */
  readonly bypass: boolean;
  /** Whether combined paging-structure entries hold the host-physical address of their table (SDM), or the guest-physical one. */
  readonly combinedHoldHost: boolean;
  /** Guest-physical mappings. */
  readonly guestPhysical: GuestPhysicalStore;
  /** The entry that translates an address, if there is one. */
  find(low: number, high: number, context: Readonly<TlbContext>, fetch: boolean): TlbEntry | undefined;
  /** Takes in an entry; `low` is the low half of the address that was asked for, for those who keep pieces. */
  insert(entry: TlbEntry, fetch: boolean, low: number): void;
  /** The entry that leads to the lowest table. */
  findStructure(low: number, high: number, context: Readonly<TlbContext>): StructureEntry | undefined;
  /** Takes in a paging-structure entry. */
  insertStructure(entry: StructureEntry): void;
  /** Removes what the operation selects; returns how many linear and combined mappings that were. */
  drop(selection: Selection): number;
  /** All linear and combined mappings, in a fixed order; for the inspector and tests. */
  entries(): readonly TlbEntry[];
  /** All paging-structure-cache entries. */
  structures(): readonly StructureEntry[];
}

/** What is held of guest-physical mappings. Lookups take the halves of a guest-physical address. */
export interface GuestPhysicalStore {
  /** The entry that translates an address, if there is one. */
  find(low: number, high: number, ep4ta: number): GuestPhysicalEntry | undefined;
  /** Takes in an entry. */
  insert(entry: GuestPhysicalEntry): void;
  /** The entry that leads to the lowest EPT table. */
  findStructure(low: number, high: number, ep4ta: number): GuestPhysicalStructure | undefined;
  /** Takes in an EPT paging-structure entry. */
  insertStructure(entry: GuestPhysicalStructure): void;
  /** Removes what the operation selects; returns how many mappings that were. */
  drop(selection: Selection): number;
  /** All mappings, in a fixed order. */
  entries(): readonly GuestPhysicalEntry[];
  /** All EPT paging-structure entries. */
  structures(): readonly GuestPhysicalStructure[];
}
