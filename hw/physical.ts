/**
 * Physical bytes as an access of one processor finds them: RAM, ROM, decoded code, watched pages, devices.
 *
 * Room: `hw/`; imports state.ts, and cpu.ts, bus.ts and sanitizer.ts by their types. access.ts is its user.
 *
 * @module
 */
import type { Bus } from "./bus.ts";
import type { Cpu } from "./cpu.ts";
import type { Sanitizer } from "./sanitizer.ts";
import * as state from "./state.ts";

// Bound here so that the optimiser folds them into the code (see the note in paging.ts).
const { PAGE_CODE, PAGE_FLAGS_BASE, PAGE_RAM, PAGE_ROM, RAM_BASE } = state;
const TWO32 = 0x1_0000_0000;

/** Physical memory, for the accesses of one processor. Except where it says so, ranges stay inside one page. */
export class PhysicalBytes {
  readonly #cpu: Cpu;
  readonly #bus: Bus;
  readonly #sanitizer: Sanitizer | undefined;
  readonly #u8: Uint8Array;
  readonly #i32: Int32Array;
  readonly #view: DataView;

  /** @param sanitizer Is told of every store. */
  constructor(cpu: Cpu, sanitizer: Sanitizer | undefined) {
    this.#cpu = cpu;
    this.#bus = cpu.bus;
    this.#sanitizer = sanitizer;
    this.#u8 = cpu.memory.u8;
    this.#i32 = cpu.memory.i32;
    this.#view = new DataView(cpu.memory.buffer);
  }

  /** Page flags of the page that holds a physical address; 0 above 4 GiB. */
  flags(physical: number): number {
    return physical < TWO32 ? this.#u8[PAGE_FLAGS_BASE + (physical >>> 12)]! : 0;
  }

  /** Whether decoded code overlaps these bytes. */
  hitsCode(physical: number, bytes: number): boolean {
    const code = this.#bus.code;
    return code !== null && code.overlaps(physical, bytes);
  }

  /** Whether a store to these bytes of one page may only happen in a stepped instruction. */
  defersWrite(physical: number, bytes: number): boolean {
    const flags = this.flags(physical);
    if (!(flags & PAGE_RAM)) return true;
    return (flags & (PAGE_CODE | PAGE_ROM)) === PAGE_CODE && this.hitsCode(physical, bytes);
  }

  /** Copies bytes of one page to a host address; a device is read in pieces of at most 4 bytes. */
  get(physical: number, hostDest: number, bytes: number): void {
    if (this.flags(physical) & PAGE_RAM) {
      this.#copy(hostDest, RAM_BASE + physical, bytes);
      return;
    }
    for (let done = 0; done < bytes;) {
      const left = bytes - done;
      const size = left >= 4 ? 4 : left >= 2 ? 2 : 1;
      const value = this.#bus.read(physical + done, size);
      if (size === 4) this.#view.setUint32(hostDest + done, value, true);
      else if (size === 2) this.#view.setUint16(hostDest + done, value, true);
      else this.#u8[hostDest + done] = value;
      done += size;
    }
  }

  /** Copies bytes from a host address to one page; honours ROM, decoded code and watched pages. */
  put(physical: number, hostSource: number, bytes: number): void {
    this.#sanitizer?.stored(this.#cpu, physical, bytes);
    const flags = this.flags(physical);
    if (flags & PAGE_RAM) {
      if (flags & PAGE_ROM) return;
      this.#copy(RAM_BASE + physical, hostSource, bytes);
      if (flags !== PAGE_RAM) this.#bus.afterStore(physical, bytes);
      return;
    }
    for (let done = 0; done < bytes;) {
      const left = bytes - done;
      const size = left >= 4 ? 4 : left >= 2 ? 2 : 1;
      const value = size === 4
        ? this.#view.getUint32(hostSource + done, true)
        : size === 2
        ? this.#view.getUint16(hostSource + done, true)
        : this.#u8[hostSource + done]!;
      this.#bus.write(physical + done, size, value);
      done += size;
    }
  }

  #copy(to: number, from: number, bytes: number): void {
    const u8 = this.#u8;
    if (bytes > 16) u8.copyWithin(to, from, from + bytes);
    else for (let i = 0; i < bytes; i++) u8[to + i] = u8[from + i]!;
  }

  /** Stores a value at a host address, of any alignment. */
  putValue(host: number, size: 1 | 2 | 4 | 8, low: number, high: number): void {
    switch (size) {
      case 1:
        this.#u8[host] = low;
        break;
      case 2:
        this.#view.setUint16(host, low, true);
        break;
      case 4:
        if ((host & 3) === 0) this.#i32[host >>> 2] = low;
        else this.#view.setInt32(host, low, true);
        break;
      default:
        if ((host & 3) === 0) {
          this.#i32[host >>> 2] = low;
          this.#i32[(host >>> 2) + 1] = high;
        } else {
          this.#view.setInt32(host, low, true);
          this.#view.setInt32(host + 4, high, true);
        }
    }
  }
}
