/**
 * Where instructions are fetched from: the fetch tables of the fast TLB as both engines use them.
 *
 * Room: `hw/engine/`; imports state.ts and the processor. A translation that is cached here stays in use until something
 * invalidates it, whichever engine runs, so that a guest that forgets an invalidation sees the same under both.
 *
 * An entry's word at +8 is the page's slot table (interpreter; 0 when there is none yet), the word at +12 the physical page plus
 * {@link FETCH_VALID}. Pages that are not RAM have no entry.
 *
 * @module
 */
import * as state from "../state.ts";
import type { Cpu } from "../cpu.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const {
  FTLB_CONTEXT_BYTES,
  FTLB_CONTEXTS,
  FTLB_ENTRIES,
  FTLB_ENTRY_BYTES,
  FTLB_FETCH,
  PAGE_FLAGS_BASE,
  PAGE_RAM,
  S,
} = state;

/** In the word at +12, beside the page's address: there is one (page 0 is a page like others). */
export const FETCH_VALID = 1;
/** {@link fetchEntry}: the fetch faults; the fault is pending. */
export const FETCH_FAULT = -1;
/** {@link fetchEntry}: the page is not RAM; `fetchedPage` has its physical address. */
export const FETCH_NOT_RAM = -2;

/** Physical page of the last {@link fetchEntry}. */
export let fetchedPage = 0;

/**
 * Finds or fills the fetch entry of a linear address; its physical page is in {@link fetchedPage}.
 *
 * @returns The entry's index in words of 32 bits, or {@link FETCH_FAULT} or {@link FETCH_NOT_RAM}.
 */
export function fetchEntry(cpu: Cpu, low: number, high: number): number {
  const { u32, u8 } = cpu.memory;
  const entry = (u32[(cpu.base + S.TLBCTX) >>> 2]! + FTLB_FETCH +
    ((low >>> 12) & (FTLB_ENTRIES - 1)) * FTLB_ENTRY_BYTES) >>> 2;
  if (u32[entry] === (low & ~0xfff) >>> 0 && u32[entry + 1] === high >>> 0) {
    fetchedPage = (u32[entry + 3]! - FETCH_VALID) >>> 0;
    return entry;
  }
  const physical = cpu.access.fetchPage(low, high);
  if (physical < 0) return FETCH_FAULT;
  fetchedPage = physical;
  const page = physical / 4096;
  if (page >= 0x10_0000 || !(u8[PAGE_FLAGS_BASE + page]! & PAGE_RAM)) return FETCH_NOT_RAM;
  cpu.access.fillFetch(low, high, 0);
  u32[entry + 3] = physical + FETCH_VALID;
  return entry;
}

/** Physical address of the page that the fetch table has for a linear address, or −1; changes nothing. */
export function knownFetch(cpu: Cpu, low: number, high: number): number {
  const { u32 } = cpu.memory;
  const entry = (u32[(cpu.base + S.TLBCTX) >>> 2]! + FTLB_FETCH +
    ((low >>> 12) & (FTLB_ENTRIES - 1)) * FTLB_ENTRY_BYTES) >>> 2;
  if (u32[entry] !== (low & ~0xfff) >>> 0 || u32[entry + 1] !== high >>> 0) return -1;
  return (u32[entry + 3]! - FETCH_VALID) >>> 0;
}

/**
 * Makes the fetch entries of a bank of the fast TLB forget their slot tables; the translations stay.
 *
 * @param bank Host address of the bank; default: the one in force.
 */
export function dropSlotTables(cpu: Cpu, bank: number = cpu.get32(S.TLBBANK)): void {
  const { i32 } = cpu.memory;
  for (let context = 0; context < FTLB_CONTEXTS; context++) {
    const first = (bank + context * FTLB_CONTEXT_BYTES + FTLB_FETCH) >>> 2;
    for (let n = 0; n < FTLB_ENTRIES; n++) i32[first + n * (FTLB_ENTRY_BYTES / 4) + 2] = 0;
  }
}
