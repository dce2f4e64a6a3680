/**
 * Faults injected into RAM: bits that are stuck at 0 or 1. The page is watched, and after each store the bit is put back.
 *
 * Room: `hw/dev/`; imports the bus by its type, and state.ts.
 *
 * @module
 */
import type { Bus } from "../bus.ts";
import { PAGE_WATCH, RAM_BASE } from "../state.ts";

/** One stuck bit. */
export interface StuckBit {
  /** Physical address of the byte. */
  readonly address: number;
  /** Bit 0 … 7 of the byte. */
  readonly bit: number;
  /** What it always reads as. */
  readonly value: 0 | 1;
}

/** The stuck bits of a machine. */
export class StuckBits {
  /** Stores that a stuck bit changed. */
  hits = 0;
  readonly #bus: Bus;
  readonly #bits: readonly StuckBit[];

  /**
   * Makes the bits stick from now on.
   *
   * @throws {RangeError} when a bit is not in RAM.
   */
  constructor(bus: Bus, bits: readonly StuckBit[]) {
    for (const { address, bit } of bits) {
      if (!Number.isInteger(address) || address < 0 || address >= bus.memory.ramBytes) {
        throw new RangeError(`Cannot make a bit stick at 0x${address.toString(16)}: no RAM is there`);
      }
      if (!Number.isInteger(bit) || bit < 0 || bit > 7) {
        throw new RangeError(`Cannot make bit ${bit} stick: a byte has bits 0 to 7`);
      }
    }
    this.#bus = bus;
    this.#bits = [...bits].sort((a, b) => a.address - b.address);
    for (const { address } of bits) bus.setPageFlags(address, 1, PAGE_WATCH);
    this.stored(0, bus.memory.ramBytes);
    this.hits = 0;
    const next = bus.watchStore;
    bus.watchStore = (physical, bytes) => {
      this.stored(physical, bytes);
      next?.(physical, bytes);
    };
  }

  /** Puts the stuck bits of [physical, physical + bytes) back. */
  stored(physical: number, bytes: number): void {
    const { u8 } = this.#bus.memory;
    for (const { address, bit, value } of this.#bits) {
      if (address < physical || address >= physical + bytes) continue;
      const was = u8[RAM_BASE + address]!;
      const now = value ? was | (1 << bit) : was & ~(1 << bit);
      if (now !== was) {
        u8[RAM_BASE + address] = now;
        this.hits++;
      }
    }
  }
}
