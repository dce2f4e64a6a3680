/**
 * The compiled regions of a machine: when code is compiled, where it is entered, when it goes.
 *
 * Room: `hw/engine/compiled/`; imports the code cache and the handlers by their types, the graph and the writer. One per machine;
 * processors share regions, which belong to physical pages and a code mode, so that neither address spaces nor VM transitions matter.
 *
 * A region is entered through decoded records: the interpreter meets a record whose handler is `PSEUDO.region` and calls. What takes
 * a record back (a store into code, by whomever) takes the region back first. No region is ever on the way while that happens: stores into
 * decoded code are stepped, and procedures, which may do anything, are not part of regions.
 *
 * When to compile is decided from counts of the run loop's lookups alone, so that a run repeats; and it changes nothing that a guest
 * can see.
 *
 * @module
 */
import * as state from "../../state.ts";
import type { Cpu } from "../../cpu.ts";
import type { MachineMemory } from "../../memory.ts";
import type { CodeMode } from "../../isa/form.ts";
import type { CodeCache, RegionWatch } from "../code_cache.ts";
import { fetchedPage, knownFetch } from "../fetch.ts";
import type { Handlers } from "../handlers.ts";
import { HOST_FUNCTIONS } from "../wasm/base.ts";
import { ModuleWriter, T } from "../wasm/emit.ts";
import { PSEUDO } from "../wasm/interpreter_module.ts";
import { MISSES, RegionBuilder } from "./builder.ts";
import { buildGraph, coverage, type Graph, Natures } from "./graph.ts";
import { ENTRIES_MAX, writeRegion } from "./region_code.ts";

const { REC, RECORD_BYTES, S, SEG } = state;

/** How regions are made and kept. */
export interface RegionOptions {
  /** Lookups at an instruction after which it is compiled; 1 compiles everything that can be. */
  readonly threshold: number;
  /** Bytes of wasm code that are kept; the oldest regions go first. Default: 16 MiB. */
  readonly bytesMax?: number;
}

/** What regions count; nothing that a guest can see. */
export interface RegionCounts {
  /** Regions compiled, and taken back because their code changed, or to be compiled anew with more entries, or for want of room. */
  compiled: number;
  changed: number;
  rebuilt: number;
  evicted: number;
  /** Bytes of wasm code at present. */
  bytes: number;
  /** Guest instructions compiled, each time anew. */
  instructions: number;
  /** By reason and mnemonic: instructions met while compiling that were left to the interpreter. */
  readonly refused: Map<string, number>;
}

/** A page of a region. */
interface Part {
  readonly page: Page;
  /** Counted from the region's first page, in linear addresses. */
  readonly number: number;
  readonly covers: Uint32Array;
  readonly entryMap: number;
}

/** A compiled region. */
export interface Region {
  readonly graph: Graph;
  readonly parts: readonly Part[];
  readonly slot: number;
  readonly bytes: number;
  /** By offset of a block in a loop: offset of the loop's head. */
  readonly loopHeads: ReadonlyMap<number, number>;
  /** Records that lead here. */
  readonly records: number[];
}

/** A page of which code is compiled. */
interface Page {
  readonly physical: number;
  readonly mode: CodeMode;
  /** Regions that have instructions here. */
  readonly regions: Set<Region>;
  /** Regions compiled from here so far, and their instructions. */
  compiled: number;
  instructions: number;
  /** Times that code changed. */
  changed: number;
  /** Tick before which nothing is compiled here again. */
  notBefore: number;
}

/** Most guest instructions of a region. */
const INSTRUCTIONS_MAX = 500;
/** Most pages of a region, and how far it looks for them. */
const PAGES_MAX = 4, PAGES_AWAY_MAX = 4096;
/** Regions of a page are compiled together as often as this; later ones stand alone. */
const REBUILDS_MAX = 12;
/** Guest instructions compiled from a page, and changes of its code, before it waits; each such number more it waits twice as long, this many doublings at most. */
const COMPILED_FREE = 16_384, COMPILED_STEP = 1024, CHANGED_FREE = 2, DOUBLINGS_MAX = 16;
/**
 * Guest instructions that may be compiled before any has been executed, and how many more for each {@link SAMPLE} that has: so that a
 * guest that never executes the same code for long can't make the host compile for long. A guest instruction costs as
 * much to compile as some thousands to interpret.
 */
const CREDIT_MAX = 40_000, CREDIT_PER_SAMPLE = 6;
/** Instructions after which the run loop gets a look at what is executed, so that it can count. */
export const SAMPLE = 4096;
/** What one compilation may take of the code cache's arena. */
const ROOM = 0x4_0000;
const ENTRY_MAP_BYTES = 4096;
const BYTES_MAX = 16 << 20;
/** Counts that are kept; more are forgotten. */
const COUNTS_MAX = 0x1_0000;

/** See the module's comment. */
export class Regions implements RegionWatch {
  readonly counts: RegionCounts = {
    compiled: 0,
    changed: 0,
    rebuilt: 0,
    evicted: 0,
    bytes: 0,
    instructions: 0,
    refused: new Map(),
  };

  readonly #memory: MachineMemory;
  readonly #handlers: Handlers;
  readonly #code: CodeCache;
  readonly #threshold: number;
  readonly #bytesMax: number;
  /** By mode × 2^20 + page number. */
  readonly #pages = new Map<number, Page>();
  /** In the order in which they were made. */
  readonly #all = new Set<Region>();
  /** Lookups by record. */
  readonly #lookups = new Map<number, number>();
  readonly #natures = new Natures();
  readonly #freeMaps: number[] = [];
  #credit = CREDIT_MAX;

  constructor(memory: MachineMemory, handlers: Handlers, code: CodeCache, options: RegionOptions) {
    this.#memory = memory;
    this.#handlers = handlers;
    this.#code = code;
    this.#threshold = Math.max(1, options.threshold);
    this.#bytesMax = options.bytesMax ?? BYTES_MAX;
    code.regions = this;
  }

  /**
   * The run loop is about to enter the interpreter at `record`, which the code cache has just found for the processor's RIP.
   *
   * @param arrived Control came here by itself, by a jump: not because a slice ended, or an instruction was carried out alone.
   * @returns Instructions that it may be given before the next look: less than `left` where there is something to count.
   */
  visit(cpu: Cpu, record: number, left: number, arrived: boolean): number {
    const { u16 } = this.#memory;
    const handler = u16[record >>> 1]!;
    if (handler === PSEUDO.region) return left;
    if (handler !== PSEUDO.called && handler < PSEUDO.first) return left;
    if (!arrived && this.#threshold > 1) return Math.min(left, SAMPLE);
    this.#credit = Math.min(this.#credit + CREDIT_PER_SAMPLE, CREDIT_MAX);
    const count = (this.#lookups.get(record) ?? 0) + 1;
    if (count < this.#threshold) {
      if (this.#lookups.size > COUNTS_MAX) this.#lookups.clear();
      this.#lookups.set(record, count);
      return Math.min(left, SAMPLE);
    }
    this.#lookups.delete(record);
    const mode = cpu.get32(S.CODEMODE) as CodeMode;
    if (mode !== 0) this.#compile(cpu, fetchedPage, mode, u16[(record + REC.pageOffset) >>> 1]!);
    return u16[record >>> 1] === PSEUDO.region ? left : Math.min(left, SAMPLE);
  }

  /** The regions that there are, oldest first; for tests and people. */
  all(): Iterable<Region> {
    return this.#all;
  }

  // ---- compiling

  #page(physical: number, mode: CodeMode): Page {
    const key = mode * 0x10_0000 + physical / 4096;
    let page = this.#pages.get(key);
    if (page === undefined) {
      page = { physical, mode, regions: new Set(), compiled: 0, instructions: 0, changed: 0, notBefore: 0 };
      this.#pages.set(key, page);
    }
    return page;
  }

  #compile(cpu: Cpu, physical: number, mode: CodeMode, arrived: number): void {
    let offset = arrived;
    const page = this.#page(physical, mode);
    if (cpu.now() < page.notBefore || this.#credit < 0) return;
    // In the midst of a block: its region will be entered at the next jump.
    for (const region of page.regions) {
      const part = region.parts.find((one) => one.page === page)!;
      if (
        part.covers[offset >>> 5]! & (1 << (offset & 31)) &&
        !region.graph.blocks.has(part.number * 4096 + offset)
      ) return;
      // In a loop: its head is the better entry, and the next jump there is not far.
      const head = region.loopHeads.get(part.number * 4096 + offset);
      if (head === undefined || head >> 12 !== part.number) continue;
      if (region.graph.entries.has(head)) return;
      offset = head & 0xfff;
      break;
    }
    if (this.#code.room < ROOM) {
      this.#code.flush();
      return;
    }
    const pages = new RegionPages(cpu, mode, physical);
    const known = (at: number) => this.#code.known(pages.of(at >> 12), mode, at & 0xfff) !== 0;
    // With what is compiled in this page already, so that jumps between the two stay inside.
    const old: Region[] = [];
    const entries = new Set<number>([offset]);
    let size = 0;
    for (const region of page.regions) {
      if (page.compiled >= REBUILDS_MAX && !covered(region, page, offset)) continue;
      const distance = region.parts.find((part) => part.page === page)!.number;
      if ((size += region.graph.instructions) > INSTRUCTIONS_MAX / 2) break;
      if (region.parts.some((part) => pages.of(part.number - distance) !== part.page.physical)) continue;
      old.push(region);
      for (const entry of region.graph.entries) entries.add(entry - distance * 4096);
    }
    if (entries.size > ENTRIES_MAX / 2) {
      old.length = 0;
      entries.clear();
      entries.add(offset);
    }
    const graph = buildGraph({
      bytes: this.#memory.u8,
      page: (number) => pages.of(number),
      mode,
      features: cpu.model.features,
      entries: [...entries],
      instructionsMax: INSTRUCTIONS_MAX,
      wanted: this.#threshold === 1 ? (at) => at >> 12 === 0 || known(at) : known,
    }, this.#natures);
    if (graph === undefined || !graph.entries.has(offset) || graph.blocks.size > ENTRIES_MAX - 1) {
      if (graph !== undefined) page.notBefore = cpu.now() + SAMPLE * 16;
      return;
    }
    const records = this.#decode(cpu, pages, mode, graph);
    if (records === undefined) return;
    const slot = this.#handlers.takeSlot();
    if (slot < 0) return;
    for (const region of old) {
      this.#drop(region);
      this.counts.rebuilt++;
    }
    this.#install(pages, mode, graph, records, slot);
    page.compiled++;
    if (this.#threshold > 1) this.#credit -= graph.instructions;
    page.instructions += graph.instructions;
    const doublings = Math.max(
      Math.floor((page.instructions - COMPILED_FREE) / COMPILED_STEP),
      page.changed - CHANGED_FREE,
    );
    if (doublings >= 0) page.notBefore = cpu.now() + SAMPLE * 2 ** Math.min(doublings, DOUBLINGS_MAX);
    for (const reason of graph.refused) {
      this.counts.refused.set(reason, (this.counts.refused.get(reason) ?? 0) + 1);
    }
    this.#evict();
  }

  /** Sees to it that every instruction has its record, by which a store to it is noticed; gives those of the entries. */
  #decode(cpu: Cpu, pages: RegionPages, mode: CodeMode, graph: Graph): Map<number, number> | undefined {
    const records = new Map<number, number>();
    for (const block of graph.blocks.values()) {
      const physical = pages.of(block.offset >> 12);
      for (const step of block.steps) {
        const record = this.#code.ensure(cpu, physical, mode, step.offset & 0xfff);
        if (record === 0) return undefined;
        if (graph.entries.has(step.offset)) records.set(step.offset, record);
      }
    }
    return records;
  }

  #install(
    pages: RegionPages,
    mode: CodeMode,
    graph: Graph,
    records: ReadonlyMap<number, number>,
    slot: number,
  ): void {
    const { u8, u16 } = this.#memory;
    const numbers = new Set([...graph.blocks.keys()].map((offset) => offset >> 12));
    const parts: Part[] = [...numbers].map((number) => {
      const entryMap = this.#freeMaps.pop() ?? this.#code.take(ENTRY_MAP_BYTES);
      u8.fill(0, entryMap, entryMap + ENTRY_MAP_BYTES);
      return { page: this.#page(pages.of(number), mode), number, covers: coverage(graph, number), entryMap };
    });
    const module = new ModuleWriter(false, this.#memory.buffer.byteLength / 0x1_0000);
    const importHost = (name: string) => {
      const { parameters, result } = HOST_FUNCTIONS[name]!;
      module.importFunction(name, Array.from({ length: parameters }, () => T.i32), result ? [T.i32] : []);
    };
    for (const name of [...MISSES, "regionSegCheck", "spillFlush", "bulk"]) importHost(name);
    for (const name of graph.procedures) module.importFunction(`proc:${name}`, [T.i32], [T.i32]);
    const functions = RegionBuilder.moduleFunctions(module);
    const written = writeRegion(
      module,
      graph,
      mode,
      parts.map(({ number, page, entryMap }) => ({ number, physical: page.physical, entryMap })),
      functions,
    );
    module.exportFunction("0", written.index);
    const exports = this.#handlers.instantiateRegions(module.finish(), graph.procedures);
    this.#handlers.fillSlot(slot, exports["0"] as CallableFunction);
    const region: Region = {
      graph,
      parts,
      slot,
      bytes: written.bytes,
      loopHeads: written.loopHeads,
      records: [],
    };
    for (const entry of written.entries) {
      const { entryMap } = parts.find((part) => part.number === entry.offset >> 12)!;
      u8[entryMap + (entry.offset & 0xfff)] = entry.number + 1;
      const record = records.get(entry.offset)!;
      // Another region of the page has it.
      if (u16[record >>> 1] === PSEUDO.region) continue;
      this.#code.enterRegion(
        record,
        this.#code.take(RECORD_BYTES),
        slot,
        entry.number,
        entry.needs,
        entry.offset & ~0xfff,
      );
      region.records.push(record);
    }
    for (const { page } of parts) page.regions.add(region);
    this.#all.add(region);
    this.counts.compiled++;
    this.counts.bytes += region.bytes;
    this.counts.instructions += graph.instructions;
  }

  #evict(): void {
    for (const region of this.#all) {
      if (this.counts.bytes <= this.#bytesMax) return;
      this.#drop(region);
      this.counts.evicted++;
    }
  }

  #drop(region: Region): void {
    for (const record of region.records) this.#code.leaveRegion(record);
    this.#handlers.freeSlot(region.slot);
    for (const { page, entryMap } of region.parts) {
      this.#freeMaps.push(entryMap);
      page.regions.delete(region);
    }
    this.#all.delete(region);
    this.counts.bytes -= region.bytes;
  }

  // ---- code goes

  /** @inheritDoc */
  dropAt(physical: number, bytes: number): void {
    for (let at = physical, rest = bytes; rest > 0;) {
      const offset = at % 4096, here = Math.min(rest, 4096 - offset);
      for (const mode of [1, 2]) {
        const page = this.#pages.get(mode * 0x10_0000 + (at - offset) / 4096);
        if (page === undefined) continue;
        for (const region of [...page.regions]) {
          const { covers } = region.parts.find((part) => part.page === page)!;
          if (!overlaps(covers, offset, here)) continue;
          this.#drop(region);
          this.counts.changed++;
          page.changed++;
        }
      }
      at += here;
      rest -= here;
    }
  }
  /** @inheritDoc */
  dropAll(): void {
    for (const region of [...this.#all]) this.#drop(region);
    this.#pages.clear();
    this.#lookups.clear();
    this.#freeMaps.length = 0;
  }
}

/** The pages that a region may have, by their distance from the first one: as the fetch table knows them, without looking further. */
class RegionPages {
  readonly #known = new Map<number, number>();
  readonly #cpu: Cpu;
  readonly #low: number;
  readonly #high: number;
  readonly #isWide: boolean;
  readonly #isFlat: boolean;

  constructor(cpu: Cpu, mode: CodeMode, physical: number) {
    this.#cpu = cpu;
    this.#isWide = mode === 2;
    this.#low = cpu.get32(S.RIP) & ~0xfff;
    this.#high = this.#isWide ? cpu.get32(S.RIP + 4) : 0;
    this.#isFlat = this.#isWide || (cpu.segBase(SEG.CS) === 0n && cpu.segLimit(SEG.CS) === 0xffff_ffff);
    this.#known.set(0, physical);
  }

  /** Physical address of a page, or −1. */
  of(number: number): number {
    const known = this.#known.get(number);
    if (known !== undefined) return known;
    if (!this.#isFlat || this.#known.size >= PAGES_MAX || Math.abs(number) > PAGES_AWAY_MAX) return -1;
    const sum = (this.#low >>> 0) + number * 4096;
    const carry = Math.floor(sum / 0x1_0000_0000);
    if (carry !== 0 && !this.#isWide) return -1;
    const physical = knownFetch(this.#cpu, sum | 0, (this.#high + carry) | 0);
    // The same page twice would have two places in the region.
    if (physical < 0 || [...this.#known.values()].includes(physical)) return -1;
    this.#known.set(number, physical);
    return physical;
  }
}

function covered(region: Region, page: Page, offset: number): boolean {
  const part = region.parts.find((one) => one.page === page)!;
  return region.graph.blocks.has(part.number * 4096 + offset);
}

function overlaps(bits: Uint32Array, offset: number, bytes: number): boolean {
  for (let i = offset; i < offset + bytes; i++) if (bits[i >>> 5]! & (1 << (i & 31))) return true;
  return false;
}
