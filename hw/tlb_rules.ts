/**
 * What each operation must invalidate, as one table (SDM vol. 3A, "Invalidation of TLBs and Paging-Structure Caches"),
 * shared by all TLB choices; and the entries that are invalidated.
 *
 * Room: `hw/`; imports nothing. tlb.ts applies the rules, the stores (tlb_sticky.ts, tlb_geometry.ts) hold the entries.
 *
 * @module
 */

/** What an operation must invalidate. More would always be legal. */
export interface InvalidationRule {
  /** TLB entries of which linear addresses: of the page of any size that holds the operand, or all. */
  readonly pages: "page" | "all";
  /** Entries of which PCIDs: the current one, the operation's operand, or all. */
  readonly pcids: "current" | "operand" | "all";
  /** Whether global entries (of any PCID) go as well. */
  readonly globals: boolean;
  /** Paging-structure-cache entries of these PCIDs: those used for the address, or all. */
  readonly structures: "address" | "all";
  /** Where the SDM says so, in words. */
  readonly ref: string;
}

/** The operations by name. */
export const INVALIDATION_RULES = {
  "MOV CR3": {
    pages: "all",
    pcids: "operand",
    globals: false,
    structures: "all",
    ref: "MOV to CR3 with CR4.PCIDE = 0 (PCID 000H) or with bit 63 of the source clear (PCID = bits 11:0)",
  },
  "everything": {
    pages: "all",
    pcids: "all",
    globals: true,
    structures: "all",
    ref: "MOV to CR4 that changes PGE or clears PCIDE; MOV to CR0 that clears PG; INVPCID type 2; reset",
  },
  "current PCID": {
    pages: "all",
    pcids: "current",
    globals: true,
    structures: "all",
    ref: "MOV to CR4 that changes PAE or sets SMEP",
  },
  "non-global": {
    pages: "all",
    pcids: "all",
    globals: false,
    structures: "all",
    ref: "INVPCID type 3",
  },
  "INVLPG": {
    pages: "page",
    pcids: "current",
    globals: true,
    structures: "all",
    ref:
      "INVLPG: the page with the current PCID, globals of any PCID, all structure caches of the current PCID",
  },
  "INVPCID address": {
    pages: "page",
    pcids: "operand",
    globals: false,
    structures: "all",
    ref: "INVPCID type 0",
  },
  "INVPCID PCID": {
    pages: "all",
    pcids: "operand",
    globals: false,
    structures: "all",
    ref: "INVPCID type 1",
  },
  "page fault": {
    pages: "page",
    pcids: "current",
    globals: true,
    structures: "address",
    ref: "a page fault: what refused the access does not refuse it again unless the tables do",
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

/** A cached linear mapping. Only {@link reported} changes after it was made. */
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
  /** Whether a write may use the entry; if not, it walks again. */
  readonly dirty: boolean;
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
  /** Physical address of that table. */
  readonly table: number;
  /** RIGHT bits of paging.ts. */
  readonly rights: number;
  /** Always 0 outside VMX non-root operation. */
  readonly vpid: number;
  /** The PCID in force. */
  readonly pcid: number;
  /** Physical addresses of the table entries that it was made from; empty without the sanitizer. */
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
  /** PCID that the rule speaks of; −1 for all. */
  readonly pcid: number;
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

/** Whether the operation removes this linear mapping. */
export function selectsEntry(s: Selection, e: TlbEntry): boolean {
  if (e.global) {
    if (!s.rule.globals) return false;
  } else if (s.pcid >= 0 && e.pcid !== s.pcid) return false;
  return s.rule.pages === "all" || sameRegion(s.low, s.high, e.low, e.high, e.pageShift);
}

/** Whether the operation removes this paging-structure-cache entry. */
export function selectsStructure(s: Selection, e: StructureEntry): boolean {
  if (s.pcid >= 0 && e.pcid !== s.pcid) return false;
  return s.rule.structures === "all" || sameRegion(s.low, s.high, e.low, e.high, structureShift(e.level));
}

/** What a modelled TLB holds. Lookups take the halves of a linear address, `high` signed. */
export interface TlbStore {
  /** Whether accesses may bypass the store through the fast TLB after it was consulted once. */
  readonly bypass: boolean;
  /** The entry that translates an address, if there is one. */
  find(low: number, high: number, pcid: number, fetch: boolean): TlbEntry | undefined;
  /** Takes in an entry; `low` is the low half of the address that was asked for, for those who keep pieces. */
  insert(entry: TlbEntry, fetch: boolean, low: number): void;
  /** The entry that leads to the lowest table. */
  findStructure(low: number, high: number, pcid: number): StructureEntry | undefined;
  /** Takes in a paging-structure entry. */
  insertStructure(entry: StructureEntry): void;
  /** Removes what the operation selects; returns how many linear mappings that were. */
  drop(selection: Selection): number;
  /** All linear mappings, in a fixed order; for the inspector and tests. */
  entries(): readonly TlbEntry[];
  /** All paging-structure-cache entries. */
  structures(): readonly StructureEntry[];
}
