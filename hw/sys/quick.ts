/**
 * One probe of the fast TLB for a few neighbouring words, for the paths that event delivery, IRET and segment loads take all the
 * time. A miss says nothing: the caller then goes through access.ts, which translates, faults and fills.
 *
 * Room: `hw/sys/`; imports state.ts and the processor's type.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import * as state from "../state.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const { FTLB_CONTEXT_BYTES, FTLB_ENTRIES, FTLB_ENTRY_BYTES, FTLB_READ, FTLB_WRITE, S } = state;

const CR4_SMAP = 0x20_0000;
/** Offset of the context of supervisor accesses under SMAP. */
const SMAP_CONTEXT = 2 * FTLB_CONTEXT_BYTES;

/**
 * Index in `memory.i32` of `bytes` bytes of plain RAM at a linear address, or 0 when the fast TLB does not have them in one page, they
 * are not aligned to four bytes, or breakpoints may be armed.
 *
 * @param implicit Whether this is an implicit supervisor access rather than an explicit one at the current CPL.
 */
export function quickWords(
  cpu: Cpu,
  low: number,
  high: number,
  bytes: number,
  write: boolean,
  implicit: boolean,
): number {
  const i32 = cpu.memory.i32, at = cpu.base >>> 2;
  if ((low & 3) !== 0 || (i32[at + ((S.DR + 56) >>> 2)]! & 0xff) !== 0) return 0;
  let context = i32[at + (S.TLBCTX >>> 2)]!;
  if (implicit) {
    context = i32[at + (S.TLBBANK >>> 2)]! + (i32[at + (S.CR4 >>> 2)]! & CR4_SMAP ? SMAP_CONTEXT : 0);
  }
  const slot = ((low >>> 12) & (FTLB_ENTRIES - 1)) * FTLB_ENTRY_BYTES;
  const entry = (context + (write ? FTLB_WRITE : FTLB_READ) + slot) >>> 2;
  if (i32[entry] !== ((low + bytes - 1) & ~0xfff) || i32[entry + 1] !== (high | 0)) return 0;
  return ((i32[entry + 2]! + low) >>> 0) >>> 2;
}
