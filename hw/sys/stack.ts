/**
 * Frames that the processor itself pushes and pops outside 64-bit mode: event delivery, far transfers through gates, IRET.
 *
 * Room: `hw/sys/`; imports state.ts, mode.ts, segments.ts and the processor. All or nothing: every push is checked and
 * translated before the first is written.
 *
 * @module
 */
import { type Cpu, VECTOR } from "../cpu.ts";
import { S, SEG } from "../state.ts";
import { AR, isCanonical } from "./mode.ts";
import type { Descriptor } from "./segments.ts";

/** A stack: the hidden part of its segment, and the stack pointer. */
export class Stack {
  base = 0;
  limit = 0;
  ar = 0;
  /** ESP or SP, unsigned. */
  pointer = 0;

  /** True when SS.B = 1. */
  get isBig(): boolean {
    return (this.ar & AR.DB) !== 0;
  }

  /** The stack in use. */
  setCurrent(cpu: Cpu): this {
    this.base = cpu.get32(S.SEGBASE + SEG.SS * 8);
    this.limit = cpu.get32(S.SEGLIMIT + SEG.SS * 4);
    this.ar = cpu.get32(S.SEGAR + SEG.SS * 4);
    this.pointer = this.mask(cpu.get32(S.GPR + 4 * 8));
    return this;
  }

  /** A stack with the segment of `d`. */
  setDescriptor(d: Descriptor, pointer: number): this {
    this.base = d.base;
    this.limit = d.limit;
    this.ar = d.ar;
    this.pointer = this.mask(pointer);
    return this;
  }

  /** Reduces an offset to the stack-address size. */
  mask(offset: number): number {
    return this.isBig ? offset >>> 0 : offset & 0xffff;
  }

  /** Whether `bytes` bytes at `offset` lie in the segment. */
  contains(offset: number, bytes: number): boolean {
    if (this.ar & AR.UNUSABLE) return false;
    const last = offset + bytes - 1;
    if ((this.ar & 0xc) === 4) return offset > this.limit && last <= (this.isBig ? 0xffff_ffff : 0xffff);
    return last <= this.limit;
  }

  /** Offset of the item `bytes` further up (or down, if negative) than the stack pointer. */
  at(bytes: number): number {
    return this.mask(this.pointer + bytes);
  }

  /**
   * Pushes `values`, first to last, each `size` bytes. Nothing is written unless all can be. The stack pointer register
   * does not change; `pointer` does.
   *
   * @param code Error code of the #SS when an item lies outside the segment.
   * @param how As in `access.write`.
   */
  push(cpu: Cpu, values: readonly number[], size: 2 | 4, code: number, how: number): void {
    for (let i = 1; i <= values.length; i++) {
      const offset = this.at(-size * i);
      if (!this.contains(offset, size)) cpu.raise(VECTOR.SS, code);
      cpu.access.probe((this.base + offset) >>> 0, 0, size, true, how);
    }
    for (let i = 1; i <= values.length; i++) {
      const linear = (this.base + this.at(-size * i)) >>> 0;
      cpu.access.write(linear, 0, size, size === 2 ? values[i - 1]! & 0xffff : values[i - 1]!, 0, how);
    }
    this.pointer = this.at(-size * values.length);
  }

  /** Reads the item `index` (0 is the top) of items of `size` bytes, unsigned. Raises #SS(0) outside the segment. */
  peek(cpu: Cpu, index: number, size: 2 | 4, skip = 0): number {
    const offset = this.at(index * size + skip);
    if (!this.contains(offset, size)) cpu.raise(VECTOR.SS, 0);
    return cpu.access.read((this.base + offset) >>> 0, 0, size, 0);
  }

  /** Makes `pointer` the stack pointer register; with a 16-bit stack its upper half stays. */
  commit(cpu: Cpu): void {
    const old = cpu.get32(S.GPR + 4 * 8);
    cpu.set32(S.GPR + 4 * 8, this.isBig ? this.pointer : (old & ~0xffff) | (this.pointer & 0xffff));
  }
}

/** The stack pointer that {@link pushLong} computed. */
export const pushed = { low: 0, high: 0 };

/**
 * Writes items of `size` bytes below the 64-bit stack pointer `low`:`high`, all or none, and leaves the new pointer in
 * {@link pushed}; RSP does not change.
 *
 * @param items Lower and upper halves in turn, in the order of the pushes; at most eight items.
 * @param code Error code of the #SS when the stack is not canonical.
 */
export function pushLong(
  cpu: Cpu,
  low: number,
  high: number,
  items: readonly number[],
  size: 2 | 4 | 8,
  code: number,
  how: number,
): void {
  const count = items.length / 2, bytes = count * size;
  const u8 = cpu.memory.u8, host = cpu.base + S.FRAME;
  for (let i = 0; i < count; i++) {
    const to = host + (count - 1 - i) * size;
    for (let byte = 0; byte < size; byte++) {
      u8[to + byte] = items[2 * i + (byte >> 2)]! >>> ((byte & 3) * 8);
    }
  }
  pushed.low = (low - bytes) | 0;
  pushed.high = (high - ((low >>> 0) < bytes ? 1 : 0)) | 0;
  if (!isCanonical(cpu, high) || !isCanonical(cpu, pushed.high)) cpu.raise(VECTOR.SS, code);
  cpu.access.writeBytes(pushed.low, pushed.high, host, bytes, how);
}
