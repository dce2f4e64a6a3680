/**
 * From a linear address to a physical page: modelled TLB, paging-structure caches, walker, and what a page fault leaves behind.
 *
 * A hit that refuses the access faults at once, though the tables may have been widened since: that is what silicon may do, and
 * the fault removes the entry. A write through an entry that records D = 0 walks again and obeys the tables.
 *
 * Where EPT translates, what is kept are combined mappings: the guest's rights, and those in EPT beside them. The guest's refusal comes
 * first (a page fault), then EPT's (a VM exit or #VE, ept_translate.ts). With CR0.PG = 0 there are no combined mappings, guest-physical ones serve.
 *
 * Room: `hw/`; imports paging, EPT, TLB and sanitizer, and cpu.ts by its type. access.ts is its only user.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { FAULT, VECTOR } from "./cpu.ts";
import * as format from "./ept_format.ts";
import type { EptFeatures } from "./ept_format.ts";
import { GuestPhysicalTranslator } from "./ept_translate.ts";
import * as paging from "./paging.ts";
import {
  accessKind,
  CR4_LA57,
  eptNeed,
  keyDenies,
  linearOf,
  type PagingFeatures,
  rightsDeny,
  Walker,
} from "./paging.ts";
import type { Sanitizer } from "./sanitizer.ts";
import * as state from "./state.ts";
import type { Tlb } from "./tlb.ts";
import * as rules from "./tlb_rules.ts";
import type { GuestSide, StructureEntry, TlbContext, TlbEntry, TlbStore } from "./tlb_rules.ts";
import * as trace from "./trace.ts";

// Bound here so that the optimiser folds them into the code (see the note in paging.ts).
const { ACCESS, CR0_PG, CR4_PAE, CR4_PKE, EFER_LMA, PF, REFUSED_BY_EPT, RIGHT } = paging;
const { EPT_EXIT, EPTE } = format;
const { NO_EPT } = rules;
const { S } = state;
const { TRACE } = trace;
const TWO32 = 0x1_0000_0000;

/** Translates for one processor; results stand in fields until the next translation. */
export class Translator {
  /** Physical address of the 4-KiB page. */
  page = 0;
  /** log2 of the size of the page that the translation comes from in the paging structures of linear addresses (32 without paging). */
  shift = 12;
  /** RIGHT bits of paging.ts. */
  rights = 0;
  /** Protection key. */
  key = 0;
  /** Not bound to a PCID. */
  global = false;
  /** Whether a write may use the translation without another walk. */
  dirty = false;

  /** The second dimension. */
  readonly guestPhysical: GuestPhysicalTranslator;

  readonly #cpu: Cpu;
  readonly #tlb: Tlb;
  readonly #walker: Walker;
  readonly #sanitizer: Sanitizer | undefined;
  readonly #i32: Int32Array;
  readonly #base: number;
  /** Whether the last refusal came from a cached entry. */
  #refusedByCache = false;

  /** @param storeSlow Stores flags in a table entry that is not in plain RAM. */
  constructor(
    cpu: Cpu,
    tlb: Tlb,
    features: PagingFeatures,
    ept: EptFeatures,
    sanitizer: Sanitizer | undefined,
    storeSlow: (physical: number, value: number) => void,
  ) {
    this.#cpu = cpu;
    this.#tlb = tlb;
    this.guestPhysical = new GuestPhysicalTranslator(cpu, ept, { tlb, sanitizer, storeSlow });
    this.#walker = new Walker(cpu, features, { pure: false, storeSlow, second: this.guestPhysical });
    this.#sanitizer = sanitizer;
    this.#i32 = cpu.memory.i32;
    this.#base = cpu.base;
  }

  /**
   * Translates a canonical linear address for an access (ACCESS bits).
   *
   * @returns −1, or what {@link refuse} is to be told: the error code of a page fault, or REFUSED_BY_EPT.
   */
  translate(low: number, high: number, access: number): number {
    this.#refusedByCache = false;
    const counters = this.#cpu.counters;
    counters.lookups++;
    if (this.#i32[(this.#base + S.VMX_EPT) >>> 2] !== 0) {
      this.guestPhysical.begin(low, high);
      this.#refused = -1;
    }
    if (!(this.#i32[(this.#base + S.CR0) >>> 2]! & CR0_PG)) {
      const code = this.#walker.walk(low, high, access);
      return code < -1 ? code : this.#take();
    }
    const store = this.#tlb.store;
    if (store !== undefined) return this.#translateCached(store, low | 0, high | 0, access);
    counters.tlbMisses++;
    if (access & ACCESS.FETCH) counters.fetchMisses++;
    return this.#walked(low, high, access, this.#walker.walk(low, high, access));
  }

  /** Records what comes of a refused access: a page fault, or what EPT has refused. `code` is what {@link translate} gave. */
  refuse(low: number, high: number, code: number): void {
    if (code >= 0) this.pageFault(low, high, code);
    else this.guestPhysical.report(true, low, high, this.#refusedRights());
  }

  /**
   * Records the page fault of the access: CR2, the pending fault, and the invalidation that comes with it. In VMX non-root operation the
   * address goes to S.VMX_LINEAR: CR2 gets it when the fault is delivered and does not exit.
   */
  pageFault(low: number, high: number, errorCode: number): void {
    const cpu = this.#cpu;
    // In non-root operation CR2 waits until it is known that the fault does not cause a VM exit (sys/event.ts).
    cpu.set64Halves(cpu.get32(S.VMX_MODE) === 2 ? S.VMX_LINEAR : S.CR2, low, high);
    cpu.setFault(VECTOR.PF, errorCode);
    cpu.counters.pageFaults++;
    if (this.#refusedByCache) cpu.counters.cachedFaults++;
    this.#tlb.pageFault(low, high);
    if (cpu.trace.wants & TRACE.fault) {
      cpu.trace.emit({
        kind: "fault",
        cpu: cpu.id,
        time: cpu.now(),
        linear: linearOf(low, high),
        errorCode,
        rip: cpu.rip,
        cached: this.#refusedByCache,
      });
    }
  }

  /** Whether the current translation would let a write by the same party through without a walk. */
  grantsWrite(access: number): boolean {
    const i32 = this.#i32, s = this.#base;
    const cr0 = i32[(s + S.CR0) >>> 2]!, cr4 = i32[(s + S.CR4) >>> 2]!;
    const write = access | ACCESS.WRITE;
    return this.dirty && !rightsDeny(this.rights, write, cr0, cr4) &&
      !(cr4 & CR4_PKE && this.rights & RIGHT.U && this.#long() &&
        keyDenies(this.key, write, i32[(s + S.PKRU) >>> 2]!, cr0));
  }

  #translateCached(store: TlbStore, low: number, high: number, access: number): number {
    const cpu = this.#cpu, counters = cpu.counters;
    const context = this.#tlb.context;
    const fetch = (access & ACCESS.FETCH) !== 0;
    const entry = store.find(low, high, context, fetch);
    if (entry !== undefined) {
      let refused = this.#refusal(entry.rights, entry.key, access);
      if (refused < 0 && entry.guest !== undefined) {
        refused = this.#eptRefusal(entry, entry.guest, low, access);
      }
      if (refused !== -1) {
        counters.tlbHits++;
        this.#refusedByCache = true;
        return refused;
      }
      if (!(access & ACCESS.WRITE) || entry.dirty) {
        counters.tlbHits++;
        this.#use(entry, low);
        this.#sanitizer?.used(cpu, entry, low, high, access, this.page);
        return -1;
      }
    }
    counters.tlbMisses++;
    if (fetch) counters.fetchMisses++;
    const walker = this.#walker;
    const structure = this.#structured() ? store.findStructure(low, high, context) : undefined;
    const reports = this.#sanitizer?.count;
    let code: number;
    if (structure === undefined) code = walker.walk(low, high, access);
    else {
      counters.structureHits[structure.level]!++;
      walker.fromHost = structure.host;
      if (this.#sanitizer !== undefined) this.guestPhysical.words.push(...structure.words);
      code = walker.walkFrom(
        low,
        high,
        access,
        structure.level,
        structure.table | 0,
        Math.floor(structure.table / 0x1_0000_0000),
        structure.rights,
      );
    }
    if (code !== -1) {
      this.#refusedByCache = structure !== undefined;
      return this.#walked(low, high, access, code);
    }
    this.#walked(low, high, access, code);
    this.#insert(store, low, high, context, fetch, structure);
    // A stale guest-physical mapping on the way has been reported already.
    if (structure !== undefined && this.#sanitizer?.count === reports) {
      this.#sanitizer?.usedStructure(cpu, structure, low, high, access, this.page);
    }
    return -1;
  }

  /** Error code of the fault that a cached entry causes, or −1. */
  #refusal(rights: number, key: number, access: number): number {
    const i32 = this.#i32, s = this.#base;
    const cr0 = i32[(s + S.CR0) >>> 2]!, cr4 = i32[(s + S.CR4) >>> 2]!;
    let refused = rightsDeny(rights, access, cr0, cr4) ? PF.P : 0;
    if (
      cr4 & CR4_PKE && rights & RIGHT.U && this.#long() &&
      keyDenies(key, access, i32[(s + S.PKRU) >>> 2]!, cr0)
    ) refused = PF.P | PF.PK;
    return refused === 0 ? -1 : this.#walker.errorCode(access, refused);
  }

  /** REFUSED_BY_EPT when the EPT rights of a combined mapping refuse the access, else −1. */
  #eptRefusal(entry: TlbEntry, guest: GuestSide, low: number, access: number): number {
    const need = eptNeed(access, entry.rights, this.#i32[(this.#base + S.VMX_PROC2) >>> 2]!);
    if (!(need & ~guest.rights)) return -1;
    const second = this.guestPhysical;
    const physical = guest.physical + ((low & ((1 << entry.shift) - 1)) >>> 0);
    second.reason = EPT_EXIT.VIOLATION;
    second.gpaLow = physical | 0;
    second.gpaHigh = (physical / TWO32) | 0;
    second.need = need;
    second.slot = 0;
    second.rights = guest.rights;
    second.suppressed = guest.suppressed;
    second.cached = true;
    this.#refused = entry.rights;
    return REFUSED_BY_EPT;
  }

  /** RIGHT bits of the linear address whose translation EPT refused; −1: those that the walker has. */
  #refused = -1;

  #refusedRights(): number {
    const rights = this.#refused < 0 ? this.#walker.rights : this.#refused;
    this.#refused = -1;
    return rights;
  }

  /** Host-physical address of the word at a guest-physical one that is read without a linear address; throws FAULT when EPT refuses. */
  readGuestPhysical(low: number, high: number, slot: number): number {
    const second = this.guestPhysical;
    second.begin(0, 0);
    if (!second.translate(low, high, EPTE.R, slot)) {
      second.report(false, 0, 0, 0);
      throw FAULT;
    }
    return second.page + (low & 0xfff);
  }

  #use(entry: TlbEntry, low: number): void {
    const inside = entry.shift === 12 ? 0 : (low & ((1 << entry.shift) - 1) & ~0xfff) >>> 0;
    this.page = entry.base + inside;
    this.shift = entry.pageShift;
    this.rights = entry.rights;
    this.key = entry.key;
    this.global = entry.global;
    this.dirty = entry.dirty;
  }

  /** Takes over what the walk found. */
  #take(): number {
    const walker = this.#walker;
    this.page = walker.page;
    this.shift = walker.shift;
    this.rights = walker.rights;
    this.key = walker.key;
    this.global = walker.global;
    this.dirty = walker.dirty;
    if (this.#i32[(this.#base + S.VMX_EPT) >>> 2] !== 0) {
      const second = this.guestPhysical;
      this.dirty &&= second.dirty && (second.rights & EPTE.W) !== 0;
    }
    return -1;
  }

  /** A walk has ended with this code. */
  #walked(low: number, high: number, access: number, code: number): number {
    if (code === -1) this.#take();
    if (this.#cpu.trace.wants & TRACE.walk) this.#traceWalk(low, high, access, code);
    return code;
  }

  /** Whether the format in force has cached structure entries: those of 8-byte entries. */
  #structured(): boolean {
    return (this.#i32[(this.#base + S.CR4) >>> 2]! & CR4_PAE) !== 0;
  }

  #long(): boolean {
    return (this.#i32[(this.#base + S.EFER) >>> 2]! & EFER_LMA) !== 0;
  }

  /** Puts what the last walk found into the store: the leaf, and the non-leaf entries on the way. */
  #insert(
    store: TlbStore,
    low: number,
    high: number,
    { vpid, pcid, ep4ta }: Readonly<TlbContext>,
    fetch: boolean,
    from: StructureEntry | undefined,
  ): void {
    const cpu = this.#cpu, walker = this.#walker, sanitizer = this.#sanitizer;
    const birth = sanitizer?.birth(cpu);
    const combined = ep4ta !== NO_EPT, second = this.guestPhysical;
    // The EPT entries of a walk are not told apart by guest level: each combined entry is taken to depend on all of them.
    const eptWords = combined ? second.words : NO_WORDS;
    let words: readonly number[] = from?.words ?? NO_WORDS;
    if (this.#structured()) {
      for (let level = walker.startLevel; level > walker.lastLevel; level--) {
        if (sanitizer !== undefined) words = [...words, walker.hostEntryAt(level)];
        const shift = 12 + 9 * (level - 1);
        const structure: StructureEntry = {
          low: shift >= 32 ? 0 : low & (-1 << shift),
          high: shift > 32 ? high & (-1 << (shift - 32)) : high,
          level: level - 1,
          table: walker.tableAt(level - 1),
          host: combined && store.combinedHoldHost ? walker.hostTableAt(level - 1) : -1,
          rights: walker.rightsAbove(level - 1),
          vpid,
          pcid,
          ep4ta,
          words: combined ? [...words, ...eptWords] : words,
          birth,
          reported: 0,
        };
        store.insertStructure(structure);
        sanitizer?.track(cpu, words);
      }
    } else if (sanitizer !== undefined && walker.lastLevel < walker.startLevel) {
      words = [...words, walker.hostEntryAt(walker.startLevel)];
    }
    if (sanitizer !== undefined) words = [...words, walker.hostEntryAt(walker.lastLevel), ...eptWords];
    // Of two sizes the smaller one is what the entry maps; INVLPG still goes by the guest's.
    const shift = combined ? Math.min(this.shift, second.shift) : this.shift;
    const mask = shift === 12 ? 0 : ((1 << shift) - 1) & ~0xfff;
    const inside = (low & mask) >>> 0;
    const entry: TlbEntry = {
      low: low & (-1 << shift),
      high,
      shift,
      pageShift: this.shift,
      base: this.page - inside,
      rights: this.rights,
      key: this.key,
      global: this.global,
      vpid,
      pcid,
      ep4ta,
      dirty: this.dirty,
      guest: combined
        ? { physical: walker.guestPage - inside, rights: second.rights, suppressed: second.suppressed }
        : undefined,
      words,
      birth,
      reported: 0,
    };
    store.insert(entry, fetch, low);
    sanitizer?.track(cpu, words);
    cpu.counters.fills++;
    if (cpu.trace.wants & TRACE.fill) this.#traceFill(entry);
  }

  #traceWalk(low: number, high: number, access: number, errorCode: number): void {
    const cpu = this.#cpu, walker = this.#walker;
    cpu.trace.emit({
      kind: "walk",
      cpu: cpu.id,
      time: cpu.now(),
      linear: linearOf(low, high),
      access: accessKind(access),
      user: (access & ACCESS.USER) !== 0,
      startLevel: walker.startLevel,
      references: walker.references,
      errorCode,
      physical: errorCode === -1 ? walker.page : 0,
      pageBytes: errorCode === -1 ? 2 ** walker.shift : 0,
    });
  }

  #traceFill(entry: TlbEntry): void {
    const cpu = this.#cpu;
    cpu.trace.emit({
      kind: "fill",
      cpu: cpu.id,
      time: cpu.now(),
      linear: linearOf(entry.low, entry.high),
      physical: entry.base,
      pageBytes: 2 ** entry.shift,
      pcid: entry.pcid,
      global: entry.global,
      writable: (entry.rights & RIGHT.W) !== 0,
      user: (entry.rights & RIGHT.U) !== 0,
      executable: (entry.rights & RIGHT.X) !== 0,
    });
  }
}

const NO_WORDS: readonly number[] = [];

/** Whether CR4.LA57 makes linear addresses 57 bits wide. */
export function wideAddresses(cpu: Cpu): boolean {
  return (cpu.get32(S.CR4) & CR4_LA57) !== 0;
}
