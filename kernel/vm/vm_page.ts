/**
 * Physical pages: which are free. The thin beginning of `sys/vm/vm_page.c`: no queues, no objects yet.
 *
 * Room: `kernel/vm/`; imports the address types, and reaches pages through the direct map.
 *
 * @module
 */
import { type Hpa, hpa, PAGE_SIZE } from "../../hw/address.ts";
import type { Exec, GateCpu } from "../../hw/gates.ts";
import { physToDmap } from "../platform/pc64/vmparam.ts";

/** A range of physical memory, `[start, end)`. */
export interface PhysRange {
  readonly start: number;
  readonly end: number;
}

/** The free pages of the machine. A page is free or has one owner, who frees it. */
export class VmPages {
  /** Pages freed before, taken first; the newest last. */
  readonly #freed: Hpa[] = [];
  readonly #ranges: PhysRange[];
  #range = 0;
  #next: number;
  #free: number;
  /** Pages there were at the start. */
  readonly total: number;

  /** @param ranges `phys_avail`: free ranges, ascending; rounded inwards to whole pages. */
  constructor(ranges: readonly PhysRange[]) {
    this.#ranges = ranges.map(({ start, end }) => ({
      start: Math.ceil(start / PAGE_SIZE) * PAGE_SIZE,
      end: Math.floor(end / PAGE_SIZE) * PAGE_SIZE,
    })).filter(({ start, end }) => start < end);
    this.#next = this.#ranges[0]?.start ?? 0;
    this.total = this.#ranges.reduce((sum, { start, end }) => sum + (end - start) / PAGE_SIZE, 0);
    this.#free = this.total;
  }

  /** Pages that are free now. */
  get free(): number {
    return this.#free;
  }

  /** Takes a page with unknown content, or undefined when none is left. */
  allocate(): Hpa | undefined {
    const freed = this.#freed.pop();
    if (freed !== undefined) {
      this.#free--;
      return freed;
    }
    let range = this.#ranges[this.#range];
    if (range !== undefined && this.#next >= range.end) {
      range = this.#ranges[++this.#range];
      if (range !== undefined) this.#next = range.start;
    }
    if (range === undefined) return undefined;
    const page = hpa(this.#next);
    this.#next += PAGE_SIZE;
    this.#free--;
    return page;
  }

  /** Gives a page back. */
  release(page: Hpa): void {
    this.#freed.push(page);
    this.#free++;
  }
}

const ZEROES = new Uint8Array(PAGE_SIZE);

/** Takes a page full of zeros, or undefined when none is left. */
export function* vmPageAllocZero(cpu: GateCpu, pages: VmPages): Exec<Hpa | undefined> {
  const page = pages.allocate();
  if (page !== undefined) yield* cpu.storeBytes(physToDmap(page), ZEROES);
  return page;
}
