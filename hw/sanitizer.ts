/**
 * The translation sanitizer: compares each use of a cached translation with the page tables as they are now. A use that the tables
 * no longer grant is legal for hardware and almost always a bug of the kernel: an invalidation is missing. It is reported with the
 * page, the entry's birth, and the store that should have been followed by an invalidation.
 *
 * "No longer grant" means: a walk now would refuse this very access, or lead to another physical page. A translation narrower than
 * the tables, another page size over the same bytes, and accessed and dirty flags are no cause for a report. The access itself goes
 * on as on hardware, with the stale translation.
 *
 * All three kinds of cached mapping are watched: linear ones against the page tables, combined ones against the page tables and EPT, and
 * guest-physical ones, which a walk uses on its way, against EPT.
 *
 * One sanitizer may serve all processors of a machine: then it knows which of them changed a table. Each entry is reported once for
 * each kind of access.
 *
 * Room: `hw/`; imports paging.ts, ept_translate.ts (the second dimension) and explain_walk.ts, and cpu.ts by its type.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { EPTE, type EptFeatures } from "./ept_format.ts";
import { GuestPhysicalTranslator } from "./ept_translate.ts";
import { explainWalk, type WalkExplanation } from "./explain_walk.ts";
import { ACCESS, accessKind, CR4_PAE, linearOf, type PagingFeatures, RIGHT, Walker } from "./paging.ts";
import { S } from "./state.ts";
import {
  type Birth,
  type GuestPhysicalEntry,
  type GuestPhysicalStructure,
  NO_EPT,
  type StructureEntry,
  structureShift,
  type TlbEntry,
} from "./tlb_rules.ts";
import { type AccessKind, TRACE } from "./trace.ts";

/** A store that hit a paging-structure entry behind a cached translation. */
export interface TableChange {
  /** Physical address and bytes of the store. */
  readonly physical: number;
  /** Bytes in the access. */
  readonly bytes: number;
  /** Processor that stored, or −1 for a device or the host. */
  readonly cpu: number;
  /** Instructions retired. */
  readonly time: number;
  /** RIP of the instruction at hand. */
  readonly rip: bigint;
  /** What {@link Sanitizer.context} said. */
  readonly context: unknown;
}

/** The kinds of cached mapping (SDM vol. 3C, "Information That May Be Cached"). */
export type MappingKind = "linear" | "combined" | "guest-physical";

/** One use of a translation that the tables no longer grant. */
export interface StaleUse {
  /** Processor number. */
  readonly cpu: number;
  /** Instructions retired. */
  readonly time: number;
  /** RIP of the instruction at hand. */
  readonly rip: bigint;
  /** What {@link Sanitizer.context} said. */
  readonly context: unknown;
  /** The linear address. */
  readonly linear: bigint;
  /** Read, write or fetch. */
  readonly access: AccessKind;
  /** Whether user code made the access. */
  readonly user: boolean;
  /** Where the access went: physical address of the 4-KiB page. */
  readonly physical: number;
  /** What was cached: a linear mapping, or a paging-structure entry that a walk began from. */
  readonly cached: "page" | "structure";
  /** Which of the three kinds of mapping that was. */
  readonly mapping: MappingKind;
  /** The cached entry. */
  readonly entry: {
    /** Linear address of its first byte; guest-physical for a guest-physical mapping. */
    readonly linear: bigint;
    /** VPID; 0 for a guest-physical mapping, which has none. */
    readonly vpid: number;
    /** Address of the EPT tables; undefined for a linear mapping. */
    readonly eptp: number | undefined;
    readonly bytes: number;
    /** Physical address of the page, or of the table that the structure entry leads to. */
    readonly physical: number;
    readonly pcid: number;
    readonly global: boolean;
    readonly writable: boolean;
    readonly user: boolean;
    readonly executable: boolean;
    readonly birth: Birth | undefined;
  };
  /** The latest store since the entry's birth to one of the table entries that it was made from; undefined if none was seen. */
  readonly change: TableChange | undefined;
  /** What the tables say now. */
  readonly tables: WalkExplanation;
}

/** Watches the use of cached translations. */
export class Sanitizer {
  /** Uses reported so far. */
  count = 0;
  /** Says where software is: a stack, a continuation. What it returns is kept in births and changes. */
  context: (cpu: Cpu) => unknown = () => undefined;

  readonly #listeners = new Set<(use: StaleUse) => void>();
  readonly #cpus: Cpu[] = [];
  readonly #walkers = new Map<Cpu, { readonly walker: Walker; readonly second: GuestPhysicalTranslator }>();
  /** Last store to each tracked 4-byte word (by physical address / 4); undefined while there was none. */
  readonly #words = new Map<number, TableChange | undefined>();
  /** Physical pages that hold tracked words. */
  readonly #pages = new Set<number>();

  /** Calls `listener` for each report; returns what ends that. */
  on(listener: (use: StaleUse) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /**
   * Makes a processor known; access.ts does it.
   *
   * @internal
   */
  attach(cpu: Cpu, features: PagingFeatures, ept: EptFeatures): void {
    this.#cpus.push(cpu);
    const second = new GuestPhysicalTranslator(cpu, ept, { pure: true });
    this.#walkers.set(cpu, {
      walker: new Walker(cpu, features, { pure: true, storeSlow: () => {}, second }),
      second,
    });
  }

  /**
   * The birth certificate of an entry made now.
   *
   * @internal
   */
  birth(cpu: Cpu): Birth {
    return { time: cpu.now(), rip: cpu.rip, context: this.context(cpu) };
  }

  /**
   * From now on remembers stores to the table entries that this entry was made from.
   *
   * @internal
   */
  track(cpu: Cpu, words: readonly number[]): void {
    this.#track(words, (cpu.get32(S.CR4) & CR4_PAE) !== 0);
  }

  /**
   * As {@link track}, for EPT entries.
   *
   * @internal
   */
  trackWide(words: readonly number[]): void {
    this.#track(words, true);
  }

  #track(words: readonly number[], wide: boolean): void {
    for (const at of words) {
      this.#pages.add(Math.floor(at / 4096));
      if (!this.#words.has(at / 4)) this.#words.set(at / 4, undefined);
      if (wide && !this.#words.has(at / 4 + 1)) this.#words.set(at / 4 + 1, undefined);
    }
  }

  /**
   * To be told of every store to physical memory: by access.ts, by devices that write RAM, by hosts that do (without `cpu`).
   *
   * @internal
   */
  stored(cpu: Cpu | undefined, physical: number, bytes: number): void {
    if (!this.#pages.has(Math.floor(physical / 4096))) return;
    const end = physical + bytes;
    for (let word = Math.floor(physical / 4); word * 4 < end; word++) {
      if (!this.#words.has(word)) continue;
      this.#words.set(word, {
        physical,
        bytes,
        cpu: cpu?.id ?? -1,
        time: cpu?.now() ?? 0,
        rip: cpu?.rip ?? 0n,
        context: cpu === undefined ? undefined : this.context(cpu),
      });
      // Code fetches are only compared when an engine asks for a page: make them ask.
      for (const other of this.#cpus) {
        other.access.tlb.root.dropFetch();
        other.access.tlb.guest.dropFetch();
      }
    }
  }

  /**
   * A cached linear mapping is used: `page` is the 4-KiB page that it gives.
   *
   * @internal
   */
  used(cpu: Cpu, entry: TlbEntry, low: number, high: number, access: number, page: number): void {
    if (entry.reported & reportBit(access) || this.#granted(cpu, low, high, access, page)) return;
    entry.reported |= reportBit(access);
    this.#report(
      cpu,
      "page",
      linearFacts(entry, entry.shift, entry.base, entry.global),
      entry,
      low,
      high,
      access,
      page,
    );
  }

  /**
   * A walk that began from a cached paging-structure entry has led to `page`.
   *
   * @internal
   */
  usedStructure(
    cpu: Cpu,
    entry: StructureEntry,
    low: number,
    high: number,
    access: number,
    page: number,
  ): void {
    if (entry.reported & reportBit(access) || this.#granted(cpu, low, high, access, page)) return;
    entry.reported |= reportBit(access);
    const facts = linearFacts(
      entry,
      structureShift(entry.level),
      entry.host < 0 ? entry.table : entry.host,
      false,
    );
    this.#report(cpu, "structure", facts, entry, low, high, access, page);
  }

  /**
   * A cached guest-physical mapping, or a walk that began from a cached EPT paging-structure entry, has led to `found.page`.
   *
   * @param low Guest-physical address, low half.
   * @param high Its upper half.
   * @param need Rights in EPT that the access needs.
   * @internal
   */
  usedGuestPhysical(
    cpu: Cpu,
    cached: "page" | "structure",
    entry: GuestPhysicalEntry | GuestPhysicalStructure,
    found: { readonly page: number; readonly linLow: number; readonly linHigh: number },
    low: number,
    high: number,
    need: number,
  ): void {
    const access = need & (EPTE.X | EPTE.XU) ? ACCESS.FETCH : need & EPTE.W ? ACCESS.WRITE : ACCESS.READ;
    if (entry.reported & reportBit(access)) return;
    const { second } = this.#walkers.get(cpu)!;
    if (second.translate(low, high, need, 0) && second.page === found.page) return;
    entry.reported |= reportBit(access);
    const facts: EntryFacts = {
      mapping: "guest-physical",
      linear: linearOf(entry.low, entry.high),
      vpid: 0,
      eptp: entry.ep4ta * 4096,
      bytes: 2 ** ("base" in entry ? entry.shift : structureShift(entry.level)),
      physical: "base" in entry ? entry.base : entry.table,
      pcid: 0,
      global: false,
      writable: (entry.rights & EPTE.W) !== 0,
      user: true,
      executable: (entry.rights & (EPTE.X | EPTE.XU)) !== 0,
    };
    this.#report(cpu, cached, facts, entry, found.linLow, found.linHigh, access, found.page);
  }

  #granted(cpu: Cpu, low: number, high: number, access: number, page: number): boolean {
    const { walker } = this.#walkers.get(cpu)!;
    return walker.walk(low, high, access) === -1 && walker.page === page;
  }

  #report(
    cpu: Cpu,
    cached: "page" | "structure",
    { mapping, ...facts }: EntryFacts,
    entry: CachedEntry,
    low: number,
    high: number,
    access: number,
    page: number,
  ): void {
    this.count++;
    const linear = linearOf(low, high), rip = cpu.rip, time = cpu.now();
    const user = (access & ACCESS.USER) !== 0, kind = accessKind(access);
    if (cpu.trace.wants & TRACE.stale) {
      cpu.trace.emit({ kind: "stale", cpu: cpu.id, time, linear, access: kind, physical: page, rip });
    }
    if (this.#listeners.size === 0) return;
    const use: StaleUse = {
      cpu: cpu.id,
      time,
      rip,
      context: this.context(cpu),
      linear,
      access: kind,
      user,
      physical: page,
      cached,
      mapping,
      entry: { ...facts, birth: entry.birth },
      change: this.#change(entry),
      tables: explainWalk(cpu, linear, {
        write: (access & ACCESS.WRITE) !== 0,
        fetch: (access & ACCESS.FETCH) !== 0,
        user,
        smap: (access & ACCESS.SMAP) !== 0,
      }),
    };
    for (const listener of this.#listeners) listener(use);
  }

  /** The latest store to one of the entry's words that came after its birth. */
  #change(entry: CachedEntry): TableChange | undefined {
    let latest: TableChange | undefined;
    for (const at of entry.words) {
      for (const word of [at / 4, at / 4 + 1]) {
        const change = this.#words.get(word);
        if (change === undefined || change.time < (entry.birth?.time ?? 0)) continue;
        if (latest === undefined || change.time >= latest.time) latest = change;
      }
    }
    return latest;
  }
}

/** What all cached entries have. */
type CachedEntry = TlbEntry | StructureEntry | GuestPhysicalEntry | GuestPhysicalStructure;
/** What a report says of an entry, beside its birth. */
type EntryFacts = Omit<StaleUse["entry"], "birth"> & { readonly mapping: MappingKind };

function linearFacts(
  entry: TlbEntry | StructureEntry,
  shift: number,
  physical: number,
  global: boolean,
): EntryFacts {
  const combined = entry.ep4ta !== NO_EPT;
  return {
    mapping: combined ? "combined" : "linear",
    linear: linearOf(entry.low, entry.high),
    vpid: entry.vpid,
    eptp: combined ? entry.ep4ta * 4096 : undefined,
    bytes: 2 ** shift,
    physical,
    pcid: entry.pcid,
    global,
    writable: (entry.rights & RIGHT.W) !== 0,
    user: (entry.rights & RIGHT.U) !== 0,
    executable: (entry.rights & RIGHT.X) !== 0,
  };
}

function reportBit(access: number): number {
  return access & ACCESS.FETCH ? 4 : access & ACCESS.WRITE ? 2 : 1;
}
