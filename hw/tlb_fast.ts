/**
 * The fast TLB: direct-mapped tables in the processor's block that engines probe with one compare (layout in state.ts).
 *
 * An entry grants one kind of access from one context, so that permission and page are one comparison. There are five
 * contexts (see {@link fastContext}); data tables of the last two stay empty on purpose. What stands here may only be what the
 * modelled TLB (tlb.ts) could hold; entries carry no PCID, so that a change of PCID empties the tables.
 *
 * A processor has two such banks, one for root operation and one for VMX non-root operation; S.TLBBANK says which is in force. A VM
 * transition changes that and S.TLBCTX, nothing else, when VPIDs let both keep what they have (tlb.ts).
 *
 * Flushes are as cheap as what was filled: the indices of used entries are kept in a list. Entries that come from large pages
 * are remembered by region, so that INVLPG looks for other pieces of a large page only where there are any.
 *
 * Room: `hw/`; imports state.ts, paging.ts (control-register bits), and cpu.ts by its type.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import * as paging from "./paging.ts";
import * as state from "./state.ts";
import { AUX, FTLB_CONTEXTS, FTLB_READ, FTLB_WRITE, KEEP_BYTES, RAM_BASE } from "./state.ts";

// Bound here so that the optimiser folds them into the code (see the note in paging.ts).
const { CR0_AM, CR4_SMAP } = paging;
const {
  FTLB_CONTEXT_BYTES,
  FTLB_EMPTY,
  FTLB_ENTRIES,
  FTLB_ENTRY_BYTES,
  FTLB_FETCH,
  FTLB_TABLE_BYTES,
  KEEP,
  RFLAGS,
  S,
} = state;

/** Contexts, in the order of the block. */
export const CONTEXT = {
  SUPERVISOR: 0,
  USER: 1,
  /** Supervisor under SMAP with AC = 0: user pages are out of reach. */
  SUPERVISOR_SMAP: 2,
  /** Supervisor while data accesses must be looked at (data breakpoints). */
  SUPERVISOR_CHECKED: 3,
  /** User while data accesses must be looked at (alignment checks, data breakpoints). */
  USER_CHECKED: 4,
} as const;

const TABLES = FTLB_CONTEXTS * 3;
const ENTRIES = TABLES * FTLB_ENTRIES;
/**
 * Bit in the tag of a write entry whose page holds decoded code: no engine's compare hits it, but the translation stays as long as
 * it would without code there, so that what is cached does not depend on the engine.
 */
export const FTLB_HELD = 1;
/** Slots of the filters of large-page regions. */
const REGION_FILTER = 256;
/** Multiplier of the regions' hash, 2^32 over the golden ratio: addresses that differ in few bits differ in the product's top eight. */
export const REGION_HASH_FACTOR = 0x9e37_79b1 | 0;
const HASH_FACTOR = REGION_HASH_FACTOR;
/** Word offsets in what is kept of a bank. */
const LISTED = KEEP.listed >>> 2, USED_TABLES = KEEP.usedTables >>> 2;
const LARGE_SIZES = KEEP.largeSizes >>> 2, ONLY_FETCH = KEEP.onlyFetch >>> 2;

/** Whether DR7 enables a breakpoint on data (R/W field 01 or 11 with its L or G bit). */
export function dataBreakpoints(dr7: number): boolean {
  if ((dr7 & 0xff) === 0) return false;
  for (let i = 0; i < 4; i++) {
    if ((dr7 >>> (2 * i)) & 3 && (dr7 >>> (16 + 4 * i)) & 1) return true;
  }
  return false;
}

/** Whether alignment of explicit data accesses is checked (SDM vol. 3A, "Alignment Check Exception"): CPL = 3, CR0.AM, RFLAGS.AC. */
export function alignmentChecked(cpu: Cpu): boolean {
  return cpu.get32(S.CPL) === 3 && (cpu.get32(S.RFLAGS) & RFLAGS.AC) !== 0 &&
    (cpu.get32(S.CR0) & CR0_AM) !== 0;
}

/** Number of the fast TLB context that explicit accesses of the current state use. */
export function fastContext(cpu: Cpu): number {
  const checked = dataBreakpoints(cpu.get32(S.DR + 56));
  if (cpu.get32(S.CPL) === 3) return checked || alignmentChecked(cpu) ? CONTEXT.USER_CHECKED : CONTEXT.USER;
  if (checked) return CONTEXT.SUPERVISOR_CHECKED;
  return cpu.get32(S.CR4) & CR4_SMAP && !(cpu.get32(S.RFLAGS) & RFLAGS.AC)
    ? CONTEXT.SUPERVISOR_SMAP
    : CONTEXT.SUPERVISOR;
}

/** Host address of {@link fastContext}: the value of S.TLBCTX. `updateMode` (sys/mode.ts) stores it after every change that matters. */
export function fastContextAddress(cpu: Cpu): number {
  return cpu.get32(S.TLBBANK) + fastContext(cpu) * FTLB_CONTEXT_BYTES;
}

/** One bank of the fast TLB of one processor. */
export class FastTlb {
  readonly #i32: Int32Array;
  /** Word index of the first entry. */
  readonly #first: number;
  /** Word index of what is kept of the bank: `KEEP` in state.ts, which says what the following are. Generated code fills too. */
  readonly #keep: number;
  readonly #list: Uint16Array;
  readonly #state: Uint8Array;
  readonly #regions: Uint8Array;

  /**
   * Empties the tables of the bank.
   *
   * @param bank Offset of the bank in the processor's block: S.TLB or S.TLBGUEST.
   */
  constructor(cpu: Cpu, bank: number = S.TLB) {
    const { memory } = cpu;
    this.#i32 = memory.i32;
    this.#first = (cpu.base + bank) >>> 2;
    this.#i32.fill(FTLB_EMPTY | 0, this.#first, this.#first + (ENTRIES * FTLB_ENTRY_BYTES) / 4);
    const keep = cpu.get32(S.AUX) + AUX.keep + (bank === S.TLB ? 0 : KEEP_BYTES);
    memory.u8.fill(0, keep, keep + KEEP_BYTES);
    this.#keep = keep >>> 2;
    this.#list = new Uint16Array(memory.buffer, keep + KEEP.list, ENTRIES);
    this.#state = new Uint8Array(memory.buffer, keep + KEEP.state, ENTRIES);
    this.#regions = new Uint8Array(memory.buffer, keep + KEEP.regions, 3 * REGION_FILTER);
  }

  /**
   * Puts an entry in a table.
   *
   * @param context Host address of the context.
   * @param table FTLB_READ, FTLB_WRITE or FTLB_FETCH.
   * @param value What stands at +8 of the entry.
   * @param shift log2 of the size of the page that the translation comes from.
   * @param held Whether engines must not hit the entry, see {@link FTLB_HELD}.
   */
  fill(
    context: number,
    table: number,
    low: number,
    high: number,
    value: number,
    shift: number,
    global: boolean,
    held = false,
  ): void {
    const i = (context + table + ((low >>> 12) & (FTLB_ENTRIES - 1)) * FTLB_ENTRY_BYTES) >>> 2;
    const i32 = this.#i32;
    i32[i] = held ? (low & ~0xfff) | FTLB_HELD : low & ~0xfff;
    i32[i + 1] = high;
    i32[i + 2] = value;
    const n = (i - this.#first) >>> 2;
    const keep = this.#keep;
    if (this.#state[n] === 0) this.#list[i32[keep + LISTED]!++] = n;
    let state = global ? 3 : 1;
    if (shift !== 12) {
      const size = sizeClass(shift);
      state |= 4 << size;
      this.#regions[size * REGION_FILTER + regionHash(low, high, shift)] = 1;
      i32[keep + LARGE_SIZES]! |= 1 << size;
    }
    i32[keep + USED_TABLES]! |= 1 << ((n / FTLB_ENTRIES) | 0);
    this.#state[n] = state;
  }

  /** Whether the entry that the address would take holds another page. */
  isTaken(context: number, table: number, low: number, high: number): boolean {
    const i = (context + table + ((low >>> 12) & (FTLB_ENTRIES - 1)) * FTLB_ENTRY_BYTES) >>> 2;
    const i32 = this.#i32, tag = i32[i]!;
    return tag !== (FTLB_EMPTY | 0) && ((tag & ~FTLB_HELD) !== (low & ~0xfff) || i32[i + 1] !== (high | 0));
  }

  /** As {@link fill} of a fetch table, keeping at most one fetch entry in all: the smallest that an engine can run with. */
  fillOnlyFetch(
    context: number,
    low: number,
    high: number,
    value: number,
    shift: number,
    global: boolean,
  ): void {
    this.dropFetch();
    this.fill(context, FTLB_FETCH, low, high, value, shift, global);
    const i = (context + FTLB_FETCH + ((low >>> 12) & (FTLB_ENTRIES - 1)) * FTLB_ENTRY_BYTES) >>> 2;
    this.#i32[this.#keep + ONLY_FETCH] = ((i - this.#first) >>> 2) + 1;
  }

  /** Empties what {@link fillOnlyFetch} filled. */
  dropFetch(): void {
    const at = this.#keep + ONLY_FETCH, only = this.#i32[at]!;
    if (only !== 0) this.#clear(only - 1);
    this.#i32[at] = 0;
  }

  /** Empties all tables. */
  flush(): void {
    const list = this.#list, state = this.#state, i32 = this.#i32, first = this.#first, keep = this.#keep;
    const listed = i32[keep + LISTED]!;
    for (let k = 0; k < listed; k++) {
      const n = list[k]!;
      const i = first + n * 4;
      i32[i] = FTLB_EMPTY | 0;
      i32[i + 1] = FTLB_EMPTY | 0;
      state[n] = 0;
    }
    i32[keep + LISTED] = i32[keep + USED_TABLES] = i32[keep + ONLY_FETCH] = 0;
    if (i32[keep + LARGE_SIZES] !== 0) this.#forgetRegions();
  }

  /** Drops all entries but those of global pages. */
  flushNonGlobal(): void {
    const list = this.#list, state = this.#state, i32 = this.#i32, first = this.#first, keep = this.#keep;
    const listed = i32[keep + LISTED]!;
    let kept = 0;
    for (let k = 0; k < listed; k++) {
      const n = list[k]!;
      if (state[n]! & 2) {
        list[kept++] = n;
        continue;
      }
      const i = first + n * 4;
      i32[i] = FTLB_EMPTY | 0;
      i32[i + 1] = FTLB_EMPTY | 0;
      state[n] = 0;
    }
    i32[keep + LISTED] = kept;
    if (kept === 0 && i32[keep + LARGE_SIZES] !== 0) this.#forgetRegions();
  }

  /** Drops every entry of the page of any size that holds the linear address. */
  flushPage(low: number, high: number): void {
    const i32 = this.#i32;
    const page = low & ~0xfff, top = high | 0;
    const first = this.#first + ((low >>> 12) & (FTLB_ENTRIES - 1)) * 4;
    for (let used = i32[this.#keep + USED_TABLES]!; used !== 0; used &= used - 1) {
      const i = first + (31 - Math.clz32(used & -used)) * (FTLB_TABLE_BYTES >>> 2);
      if ((i32[i]! & ~FTLB_HELD) === page && i32[i + 1] === top) {
        i32[i] = FTLB_EMPTY | 0;
        i32[i + 1] = FTLB_EMPTY | 0;
      }
    }
    if (i32[this.#keep + LARGE_SIZES] !== 0) this.#flushRegions(low, high);
  }

  /** Holds back the write entries of a physical page: decoded code has come to stand in it. */
  dropWrite(physicalPage: number): void {
    const i32 = this.#i32, host = (RAM_BASE + physicalPage) | 0;
    const listed = i32[this.#keep + LISTED]!;
    for (let k = 0; k < listed; k++) {
      const n = this.#list[k]!;
      if (((n / FTLB_ENTRIES) | 0) % 3 !== FTLB_WRITE / FTLB_TABLE_BYTES) continue;
      const i = this.#first + n * 4;
      if (((i32[i]! + i32[i + 2]!) | 0) === host && (i32[i]! & 0xfff) === 0) i32[i]! |= FTLB_HELD;
    }
  }

  /** How many entries are in use in a table of a context number; for tests and the inspector. */
  count(context: number, table: typeof FTLB_READ | typeof FTLB_WRITE | typeof FTLB_FETCH): number {
    let used = 0;
    const from = this.#first + (context * FTLB_CONTEXT_BYTES + table) / 4;
    for (let e = 0; e < FTLB_ENTRIES; e++) {
      if ((this.#i32[from + e * 4]! & 0xfff) === 0) used++;
    }
    return used;
  }

  #forgetRegions(): void {
    this.#regions.fill(0);
    this.#i32[this.#keep + LARGE_SIZES] = 0;
  }

  #clear(n: number): void {
    const i = this.#first + n * 4;
    this.#i32[i] = FTLB_EMPTY | 0;
    this.#i32[i + 1] = FTLB_EMPTY | 0;
  }

  /** Drops the pieces of large pages that hold the address, if their region was ever filled. */
  #flushRegions(low: number, high: number): void {
    const i32 = this.#i32;
    const largeSizes = i32[this.#keep + LARGE_SIZES]!, listed = i32[this.#keep + LISTED]!;
    for (let size = 0; size < 3; size++) {
      if (!(largeSizes & (1 << size))) continue;
      const shift = size === 0 ? 21 : size === 1 ? 22 : 30;
      if (this.#regions[size * REGION_FILTER + regionHash(low, high, shift)] === 0) continue;
      const mask = -1 << shift;
      for (let k = 0; k < listed; k++) {
        const n = this.#list[k]!;
        if (!(this.#state[n]! & (4 << size))) continue;
        const i = this.#first + n * 4;
        if (((i32[i]! ^ low) & mask) === 0 && i32[i + 1] === (high | 0)) this.#clear(n);
      }
    }
  }
}

function sizeClass(shift: number): number {
  return shift === 21 ? 0 : shift === 22 ? 1 : 2;
}

function regionHash(low: number, high: number, shift: number): number {
  const region = (low >>> shift) | (high << (32 - shift));
  return Math.imul(region, HASH_FACTOR) >>> 24;
}

/** Holds back the write entries of a physical page on all these processors; for the code cache, when the page gets PAGE_CODE. */
export function dropWrite(cpus: Iterable<Cpu>, physicalPage: number): void {
  for (const cpu of cpus) {
    cpu.access.tlb.root.dropWrite(physicalPage);
    cpu.access.tlb.guest.dropWrite(physicalPage);
  }
}
