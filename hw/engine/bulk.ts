/**
 * Repeated string moves and stores by the page: many iterations of REP MOVS or REP STOS at once where all of them
 * are plain RAM. What it does is what the description does one element at a time; tests run both.
 *
 * Room: `hw/engine/`; imports state.ts and cpu.ts.
 *
 * @module
 */
import * as state from "../state.ts";
import type { Cpu } from "../cpu.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const { BLOCK_MAX, FTLB_ENTRIES, FTLB_READ, FTLB_WRITE, R, RFLAGS, S, SEG } = state;

/** Below this many elements the setting up costs more than it saves. */
const WORTHWHILE = 4;

/**
 * Does many iterations at once and leaves at least one for the description, and as many instructions of the slice as the rest of a
 * line may have: the line goes on behind the last iteration without another look at the slice.
 *
 * @param info Width, address size, segment, code mode and kind as `bulkInfo` of the builder packs them.
 * @param remaining Instructions left in the slice.
 * @returns The iterations done; registers and memory are as after that many.
 */
export function bulkString(cpu: Cpu, info: number, remaining: number): number {
  const kind = (info >>> 20) & 3;
  const aw = (info >>> 4) & 0xff;
  const mode = (info >>> 16) & 3;
  if (kind === 0 || mode !== 2 || aw !== 64) return 0;
  const { memory, base } = cpu;
  const { i32, u32 } = memory;
  if (u32[(base + S.RFLAGS) >>> 2]! & RFLAGS.DF) return 0;
  const count = (base + S.GPR + R.RCX * 8) >>> 2;
  const countLow = u32[count]!, countHigh = u32[count + 1]!;
  const wanted = countHigh !== 0 ? 0x7fff_ffff : countLow;
  const size = info & 15;
  const segment = (info >>> 12) & 15;
  const destination = (base + S.GPR + R.RDI * 8) >>> 2;
  const source = (base + S.GPR + R.RSI * 8) >>> 2;
  const toLow = u32[destination]!;
  let n = Math.min(wanted - 1, remaining - 1 - BLOCK_MAX, ((4096 - (toLow & 0xfff)) / size) | 0);
  let fromLow = 0, fromHigh = 0;
  if (kind === 1) {
    if (segment === SEG.FS || segment === SEG.GS) return 0;
    fromLow = u32[source]!;
    fromHigh = u32[source + 1]!;
    n = Math.min(n, ((4096 - (fromLow & 0xfff)) / size) | 0);
  }
  if (n < WORTHWHILE) return 0;
  const to = fastAddress(cpu, toLow, u32[destination + 1]!, FTLB_WRITE);
  if (to === 0) return 0;
  const bytes = n * size;
  if (kind === 1) {
    const from = fastAddress(cpu, fromLow, fromHigh, FTLB_READ);
    if (from === 0) return 0;
    if (to > from && to < from + bytes) {
      // Each element reads what earlier ones wrote. Byte by byte that is the same, if the distance is a whole element at least.
      if (to - from < size) return 0;
      for (let i = 0; i < bytes; i++) memory.u8[to + i] = memory.u8[from + i]!;
    } else {
      memory.u8.copyWithin(to, from, from + bytes);
    }
    advance(i32, u32, source, bytes);
  } else {
    fill(cpu, to, bytes, size);
  }
  advance(i32, u32, destination, bytes);
  const left = countLow - n;
  i32[count] = left;
  if (left < 0) i32[count + 1] = countHigh - 1;
  return n;
}

/** Host address of a linear address that hits the fast TLB in force, or 0. */
function fastAddress(cpu: Cpu, low: number, high: number, table: number): number {
  const { u32 } = cpu.memory;
  const entry = (cpu.get32(S.TLBCTX) + table + ((low >>> 12) & (FTLB_ENTRIES - 1)) * 16) >>> 2;
  if (u32[entry] !== (low & ~0xfff) >>> 0 || u32[entry + 1] !== high >>> 0) return 0;
  return (u32[entry + 2]! + low) >>> 0;
}

function advance(i32: Int32Array, u32: Uint32Array, at: number, bytes: number): void {
  const sum = u32[at]! + bytes;
  i32[at] = sum;
  if (sum > 0xffff_ffff) i32[at + 1] = i32[at + 1]! + 1;
}

function fill(cpu: Cpu, to: number, bytes: number, size: number): void {
  const { memory } = cpu;
  const rax = cpu.base + S.GPR + R.RAX * 8;
  if (size === 1) {
    memory.u8.fill(memory.u8[rax]!, to, to + bytes);
    return;
  }
  memory.u8.copyWithin(to, rax, rax + size);
  for (let done = size; done < bytes; done *= 2) {
    memory.u8.copyWithin(to + done, to, to + Math.min(done, bytes - done));
  }
}
