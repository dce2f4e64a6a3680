/**
 * The translation sanitizer: compares each use of a cached translation with the page tables as they are now. A use that the tables
 * no longer grant is legal for hardware and almost always a bug of the kernel: an invalidation is missing. It is reported with the
 * page, the entry's birth, and the store that should have been followed by an invalidation.
 *
 * "No longer grant" means: a walk now would refuse this very access, or lead to another physical page. A translation narrower than
 * the tables, another page size over the same bytes, and accessed and dirty flags are no cause for a report. The access itself goes
 * on as on hardware, with the stale translation.
 *
 * One sanitizer may serve all processors of a machine: then it knows which of them changed a table. Each entry is reported once for
 * each kind of access.
 *
 * Room: `hw/`; imports paging.ts and explain_walk.ts, and cpu.ts by its type.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { explainWalk, type WalkExplanation } from "./explain_walk.ts";
import { ACCESS, accessKind, CR4_PAE, linearOf, type PagingFeatures, RIGHT, Walker } from "./paging.ts";
import { S } from "./state.ts";
import { type Birth, type StructureEntry, structureShift, type TlbEntry } from "./tlb_rules.ts";
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
  /** The cached entry. */
  readonly entry: {
    readonly linear: bigint;
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
  readonly #walkers = new Map<Cpu, Walker>();
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
  attach(cpu: Cpu, features: PagingFeatures): void {
    this.#cpus.push(cpu);
    this.#walkers.set(cpu, new Walker(cpu, features, { pure: true, storeSlow: () => {} }));
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
    const wide = (cpu.get32(S.CR4) & CR4_PAE) !== 0;
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
      for (const other of this.#cpus) other.access.tlb.fast.dropFetch();
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
    this.#report(cpu, "page", entry, entry.shift, entry.base, entry.global, low, high, access, page);
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
    const shift = structureShift(entry.level);
    this.#report(cpu, "structure", entry, shift, entry.table, false, low, high, access, page);
  }

  #granted(cpu: Cpu, low: number, high: number, access: number, page: number): boolean {
    const walker = this.#walkers.get(cpu)!;
    return walker.walk(low, high, access) < 0 && walker.page === page;
  }

  #report(
    cpu: Cpu,
    cached: "page" | "structure",
    entry: TlbEntry | StructureEntry,
    shift: number,
    physical: number,
    global: boolean,
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
      entry: {
        linear: linearOf(entry.low, entry.high),
        bytes: 2 ** shift,
        physical,
        pcid: entry.pcid,
        global,
        writable: (entry.rights & RIGHT.W) !== 0,
        user: (entry.rights & RIGHT.U) !== 0,
        executable: (entry.rights & RIGHT.X) !== 0,
        birth: entry.birth,
      },
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
  #change(entry: TlbEntry | StructureEntry): TableChange | undefined {
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

function reportBit(access: number): number {
  return access & ACCESS.FETCH ? 4 : access & ACCESS.WRITE ? 2 : 1;
}
