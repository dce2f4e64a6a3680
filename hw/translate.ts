/**
 * From a linear address to a physical page: modelled TLB, paging-structure caches, walker, and what a page fault leaves behind.
 *
 * A hit that refuses the access faults at once, though the tables may have been widened since: that is what silicon may do, and
 * the fault removes the entry. A write through an entry that records D = 0 walks again and obeys the tables.
 *
 * Room: `hw/`; imports paging, TLB and sanitizer, and cpu.ts by its type. access.ts is its only user.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { VECTOR } from "./cpu.ts";
import * as paging from "./paging.ts";
import {
  accessKind,
  CR4_LA57,
  keyDenies,
  linearOf,
  type PagingFeatures,
  rightsDeny,
  Walker,
} from "./paging.ts";
import type { Sanitizer } from "./sanitizer.ts";
import * as state from "./state.ts";
import type { Tlb } from "./tlb.ts";
import type { StructureEntry, TlbEntry, TlbStore } from "./tlb_rules.ts";
import * as trace from "./trace.ts";

// Bound here so that the optimiser folds them into the code (see the note in paging.ts).
const { ACCESS, CR0_PG, CR4_PAE, CR4_PKE, EFER_LMA, PF, RIGHT } = paging;
const { S } = state;
const { TRACE } = trace;

/** Translates for one processor; results stand in fields until the next translation. */
export class Translator {
  /** Physical address of the 4-KiB page. */
  page = 0;
  /** log2 of the size of the page that the translation comes from (32 without paging). */
  shift = 12;
  /** RIGHT bits of paging.ts. */
  rights = 0;
  /** Protection key. */
  key = 0;
  /** Not bound to a PCID. */
  global = false;
  /** Whether a write may use the translation without another walk. */
  dirty = false;

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
    sanitizer: Sanitizer | undefined,
    storeSlow: (physical: number, value: number) => void,
  ) {
    this.#cpu = cpu;
    this.#tlb = tlb;
    this.#walker = new Walker(cpu, features, { pure: false, storeSlow });
    this.#sanitizer = sanitizer;
    this.#i32 = cpu.memory.i32;
    this.#base = cpu.base;
  }

  /**
   * Translates a canonical linear address for an access (ACCESS bits).
   *
   * @returns −1, or the error code of the page fault that {@link pageFault} would raise.
   */
  translate(low: number, high: number, access: number): number {
    this.#refusedByCache = false;
    const counters = this.#cpu.counters;
    counters.lookups++;
    if (!(this.#i32[(this.#base + S.CR0) >>> 2]! & CR0_PG)) {
      this.#walker.walk(low, high, access);
      return this.#take();
    }
    const store = this.#tlb.store;
    if (store !== undefined) return this.#translateCached(store, low | 0, high | 0, access);
    counters.tlbMisses++;
    if (access & ACCESS.FETCH) counters.fetchMisses++;
    return this.#walked(low, high, access, this.#walker.walk(low, high, access));
  }

  /** Records the page fault of the access: CR2, the pending fault, and the invalidation that comes with it. */
  pageFault(low: number, high: number, errorCode: number): void {
    const cpu = this.#cpu;
    cpu.set64Halves(S.CR2, low, high);
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
    const pcid = this.#tlb.pcid;
    const fetch = (access & ACCESS.FETCH) !== 0;
    const entry = store.find(low, high, pcid, fetch);
    if (entry !== undefined) {
      const refused = this.#refusal(entry.rights, entry.key, access);
      if (refused >= 0) {
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
    const structure = this.#structured() ? store.findStructure(low, high, pcid) : undefined;
    let code: number;
    if (structure === undefined) code = walker.walk(low, high, access);
    else {
      counters.structureHits[structure.level]!++;
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
    if (code >= 0) {
      this.#refusedByCache = structure !== undefined;
      return this.#walked(low, high, access, code);
    }
    this.#walked(low, high, access, code);
    this.#insert(store, low, high, pcid, fetch, structure);
    if (structure !== undefined) this.#sanitizer?.usedStructure(cpu, structure, low, high, access, this.page);
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

  #use(entry: TlbEntry, low: number): void {
    const inside = entry.shift === 12 ? 0 : (low & ((1 << entry.shift) - 1) & ~0xfff) >>> 0;
    this.page = entry.base + inside;
    this.shift = entry.shift;
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
    return -1;
  }

  /** A walk has ended with this code. */
  #walked(low: number, high: number, access: number, code: number): number {
    if (code < 0) this.#take();
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
    pcid: number,
    fetch: boolean,
    from: StructureEntry | undefined,
  ): void {
    const cpu = this.#cpu, walker = this.#walker, sanitizer = this.#sanitizer;
    const birth = sanitizer?.birth(cpu);
    let words: readonly number[] = from?.words ?? [];
    if (this.#structured()) {
      for (let level = walker.startLevel; level > walker.lastLevel; level--) {
        if (sanitizer !== undefined) words = [...words, walker.entryAt(level)];
        const shift = 12 + 9 * (level - 1);
        const structure: StructureEntry = {
          low: shift >= 32 ? 0 : low & (-1 << shift),
          high: shift > 32 ? high & (-1 << (shift - 32)) : high,
          level: level - 1,
          table: walker.tableAt(level - 1),
          rights: walker.rightsAbove(level - 1),
          vpid: 0,
          pcid,
          words,
          birth,
          reported: 0,
        };
        store.insertStructure(structure);
        sanitizer?.track(cpu, words);
      }
    } else if (sanitizer !== undefined && walker.lastLevel < walker.startLevel) {
      words = [...words, walker.entryAt(walker.startLevel)];
    }
    if (sanitizer !== undefined) words = [...words, walker.entryAt(walker.lastLevel)];
    const mask = this.shift === 12 ? 0 : ((1 << this.shift) - 1) & ~0xfff;
    const entry: TlbEntry = {
      low: low & (-1 << this.shift),
      high,
      shift: this.shift,
      pageShift: this.shift,
      base: this.page - ((low & mask) >>> 0),
      rights: this.rights,
      key: this.key,
      global: this.global,
      vpid: 0,
      pcid,
      dirty: this.dirty,
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
      physical: errorCode < 0 ? walker.page : 0,
      pageBytes: errorCode < 0 ? 2 ** walker.shift : 0,
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

/** Whether CR4.LA57 makes linear addresses 57 bits wide. */
export function wideAddresses(cpu: Cpu): boolean {
  return (cpu.get32(S.CR4) & CR4_LA57) !== 0;
}
