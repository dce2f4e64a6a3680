/**
 * The memory map that firmware reports (E820), and the placing of images in it.
 *
 * Room: `hw/boot/`; imports boot_error.ts, the devices' addresses, and the machine's parts by type.
 *
 * @module
 */
import type { Bus } from "../bus.ts";
import type { Cpu } from "../cpu.ts";
import { APIC_DEFAULT_BASE } from "../dev/apic_registers.ts";
import { IOAPIC_BASE } from "../dev/ioapic.ts";
import { BootError } from "./boot_error.ts";

/** What a loader needs of a machine. */
export interface BootTarget {
  /** Physical memory and ports. */
  readonly bus: Bus;
  /** The processors, the bootstrap processor first. */
  readonly cpus: readonly Cpu[];
}

/** Kinds of range in the map, numbered as E820 numbers them. */
export const E820 = { usable: 1, reserved: 2 } as const;

/** One range. */
export interface MemoryRange {
  /** First address. */
  readonly base: number;
  /** Size in bytes. */
  readonly bytes: number;
  /** Type. */
  readonly type: number;
}

/** KiB of conventional memory, below the extended BIOS data area. */
export const LOW_MEMORY_KIB = 639;

/** The map of a machine with `ramBytes` of RAM, sorted. */
export function memoryMap(ramBytes: number): MemoryRange[] {
  const lowEnd = LOW_MEMORY_KIB * 1024;
  const map: MemoryRange[] = [
    { base: 0, bytes: lowEnd, type: E820.usable },
    { base: lowEnd, bytes: 0xa_0000 - lowEnd, type: E820.reserved },
    { base: 0xe_0000, bytes: 0x2_0000, type: E820.reserved },
  ];
  if (ramBytes > 0x10_0000) map.push({ base: 0x10_0000, bytes: ramBytes - 0x10_0000, type: E820.usable });
  map.push(
    { base: IOAPIC_BASE, bytes: 0x1000, type: E820.reserved },
    { base: APIC_DEFAULT_BASE, bytes: 0x1000, type: E820.reserved },
    { base: 0xfffe_0000, bytes: 0x2_0000, type: E820.reserved },
  );
  return map;
}

/**
 * Copies part of an image to its place and clears what follows up to `memoryBytes`.
 *
 * @throws {BootError} when it does not lie in usable RAM.
 */
export function place(
  bus: Bus,
  what: string,
  address: number,
  bytes: Uint8Array,
  memoryBytes = bytes.length,
): void {
  const ram = bus.memory.ramBytes;
  const fits = memoryMap(ram).some((r) =>
    r.type === E820.usable && address >= r.base && address + memoryBytes <= r.base + r.bytes
  );
  if (memoryBytes > 0 && !fits) {
    throw new BootError(
      `${what} needs 0x${address.toString(16)} to 0x${(address + memoryBytes).toString(16)}`,
      `usable RAM there: 0 to 0x9fc00, or 0x100000 to 0x${ram.toString(16)} (a machine with more memory?)`,
    );
  }
  bus.writeRam(address, bytes);
  clear(bus, address + bytes.length, memoryBytes - bytes.length);
}

function clear(bus: Bus, address: number, bytes: number): void {
  const zeros = new Uint8Array(Math.min(bytes, 0x1_0000));
  for (let done = 0; done < bytes; done += zeros.length) {
    bus.writeRam(address + done, zeros.subarray(0, Math.min(zeros.length, bytes - done)));
  }
}

/** `value` rounded up to a multiple of `unit`. */
export function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/** Builds little-endian structures. */
export class Bytes {
  /** The bytes. */
  readonly data: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  /**
   * Makes room for a structure.
   *
   * @param bytes Size; all zero at first.
   */
  constructor(bytes: number) {
    this.data = new Uint8Array(bytes);
    this.#view = new DataView(this.data.buffer);
  }
  /** Puts a byte. */
  u8(at: number, value: number): void {
    this.#view.setUint8(at, value);
  }
  /** Puts 16 bits. */
  u16(at: number, value: number): void {
    this.#view.setUint16(at, value, true);
  }
  /** Puts 32 bits. */
  u32(at: number, value: number): void {
    this.#view.setUint32(at, value, true);
  }
  /** A whole number below 2^53. */
  u64(at: number, value: number): void {
    this.u32(at, value % 0x1_0000_0000);
    this.u32(at + 4, Math.floor(value / 0x1_0000_0000));
  }
}

/**
 * A command line as bytes with its terminating zero.
 *
 * @throws {BootError} when it holds a zero, or more than `max` bytes.
 */
export function commandLine(text: string, max: number): Uint8Array {
  const bytes = new TextEncoder().encode(text);
  if (bytes.includes(0)) throw new BootError("the command line holds a zero byte", "text");
  if (bytes.length > max) throw new BootError(`the command line has ${bytes.length} bytes`, `at most ${max}`);
  const out = new Uint8Array(bytes.length + 1);
  out.set(bytes);
  return out;
}
