/**
 * The physical memory map and the port space: RAM first, then the accessing processor's local APIC page, then
 * device regions, then nothing (reads give all ones, writes vanish).
 *
 * Room: `hw/`; imports state.ts, and memory.ts by its type. Devices register themselves here and are not known.
 *
 * RAM is what the page flags say is RAM (`PAGE_RAM`). Engines and `access.ts` touch such pages directly as long as no
 * other flag stands in the way; everything else comes through {@link Bus.read} and {@link Bus.write}, which are
 * complete: they honour ROM, decoded code and watched pages.
 *
 * @module
 */
import type { MachineMemory } from "./memory.ts";
import { PAGE_CODE, PAGE_FLAGS_BASE, PAGE_RAM, PAGE_ROM, PAGE_WATCH, RAM_BASE } from "./state.ts";

/** Bytes in one access. */
export type AccessSize = 1 | 2 | 4;

/** A memory-mapped device. Offsets count from the region's base; values are unsigned. */
export interface MmioDevice {
  /** Reads `size` bytes at `offset`. Need not mask the result: the bus does. */
  readMmio(offset: number, size: AccessSize): number;
  /** Writes a register. */
  writeMmio(offset: number, size: AccessSize, value: number): void;
}

/** A device in the port space. An access wider than `portWidth` arrives as single bytes. */
export interface PortDevice {
  /** Widest access that the device takes in one piece. */
  readonly portWidth: AccessSize;
  /** Reads a register. */
  readPort(port: number, size: AccessSize): number;
  /** Writes a register. */
  writePort(port: number, size: AccessSize, value: number): void;
}

/** The local APIC as the bus sees it: a page that only its own processor reaches. */
export interface ApicPage extends MmioDevice {
  /** Physical address of the page, or −1 when it is not mapped (disabled, or x2APIC mode). */
  readonly mmioBase: number;
}

/** What knows where decoded code stands; the code cache. */
export interface CodeWatch {
  /** Whether any decoded instruction overlaps these bytes. */
  overlaps(physical: number, bytes: number): boolean;
  /** Forgets every decoded instruction that overlaps these bytes. */
  invalidate(physical: number, bytes: number): void;
}

interface Region {
  readonly base: number;
  readonly bytes: number;
  readonly device: MmioDevice;
}

/** The physical address space and the ports of one machine. */
export class Bus {
  /** The memory behind it. */
  readonly memory: MachineMemory;
  /**
   * Local APIC of the processor that is running; the scheduler sets it before each slice.
   *
   * @internal
   */
  apic: ApicPage | null = null;
  /**
   * The code cache, if the engine has one.
   *
   * @internal
   */
  code: CodeWatch | null = null;
  /** Called after any store to a page flagged PAGE_WATCH, with the bytes already in RAM. */
  watchStore: ((physical: number, bytes: number) => void) | null = null;
  /** Called after page flags changed in a way that cached translations must not outlive. */
  mapChanged: (() => void) | null = null;
  /** Told of every access that is not plain memory, for tracing: `space` is "mmio" or "port". Null while nobody listens. */
  onAccess:
    | ((space: "mmio" | "port", address: number, bytes: AccessSize, write: boolean, value: number) => void)
    | null = null;
  /** Counters: accesses that reached a device or nothing. */
  readonly counters = { mmioReads: 0, mmioWrites: 0, portReads: 0, portWrites: 0 };

  readonly #regions: Region[] = [];
  readonly #portDevices: PortDevice[] = [];
  /** Index into the device list plus one, per port. */
  readonly #portMap = new Uint8Array(0x1_0000);
  /** RAM pages hidden under a relocated local APIC page: number of APICs per page. */
  readonly #overlays = new Map<number, number>();

  /**
   * Makes an address space with nothing but RAM.
   *
   * @param memory The memory that RAM is in.
   */
  constructor(memory: MachineMemory) {
    this.memory = memory;
  }

  // ---- the map

  /**
   * Puts a device at [base, base + bytes).
   *
   * @throws {RangeError} when the region overlaps another one or RAM.
   */
  addMmio(base: number, bytes: number, device: MmioDevice): void {
    if (base < this.memory.ramBytes) {
      throw new RangeError(`Cannot map a device at 0x${base.toString(16)}: RAM is there`);
    }
    for (const r of this.#regions) {
      if (base < r.base + r.bytes && r.base < base + bytes) {
        throw new RangeError(`Cannot map a device at 0x${base.toString(16)}: another device is there`);
      }
    }
    this.#regions.push({ base, bytes, device });
  }

  /**
   * Puts a device at ports first … first + count − 1.
   *
   * @throws {RangeError} when one of the ports is taken.
   */
  addPorts(first: number, count: number, device: PortDevice): void {
    let index = this.#portDevices.indexOf(device);
    if (index < 0) index = this.#portDevices.push(device) - 1;
    for (let port = first; port < first + count; port++) {
      if (this.#portMap[port] !== 0) {
        throw new RangeError(`Cannot map port 0x${port.toString(16)}: another device is there`);
      }
      this.#portMap[port] = index + 1;
    }
  }

  /** Page flags of the page that holds `physical`; 0 outside RAM. */
  pageFlags(physical: number): number {
    return physical < this.memory.ramBytes
      ? this.memory.u8[PAGE_FLAGS_BASE + Math.floor(physical / 4096)]!
      : 0;
  }
  /** Sets flags of the pages of [physical, physical + bytes) that are RAM, and tells {@link mapChanged}. */
  setPageFlags(physical: number, bytes: number, flags: number): void {
    const end = Math.min(physical + bytes, this.memory.ramBytes);
    for (let page = Math.floor(physical / 4096); page * 4096 < end; page++) {
      this.memory.u8[PAGE_FLAGS_BASE + page] = this.memory.u8[PAGE_FLAGS_BASE + page]! | flags;
    }
    this.mapChanged?.();
  }
  /** Clears flags of the pages of [physical, physical + bytes) that are RAM, and tells {@link mapChanged}. */
  clearPageFlags(physical: number, bytes: number, flags: number): void {
    const end = Math.min(physical + bytes, this.memory.ramBytes);
    for (let page = Math.floor(physical / 4096); page * 4096 < end; page++) {
      this.memory.u8[PAGE_FLAGS_BASE + page] = this.memory.u8[PAGE_FLAGS_BASE + page]! & ~flags;
    }
    this.mapChanged?.();
  }
  /** A local APIC page moved from `from` to `to` (−1: none). A RAM page under it stops being plain. */
  moveApicPage(from: number, to: number): void {
    if (from === to) return;
    if (from >= 0 && from < this.memory.ramBytes) {
      const left = (this.#overlays.get(from) ?? 1) - 1;
      if (left === 0) {
        this.#overlays.delete(from);
        this.setPageFlags(from, 4096, PAGE_RAM);
      } else this.#overlays.set(from, left);
    }
    if (to >= 0 && to < this.memory.ramBytes) {
      this.#overlays.set(to, (this.#overlays.get(to) ?? 0) + 1);
      this.clearPageFlags(to, 4096, PAGE_RAM);
    }
    this.mapChanged?.();
  }

  /** True where RAM (or ROM) stands, that is, where a read has no side effect. */
  isPlain(address: number): boolean {
    return address < this.memory.ramBytes &&
      (this.memory.u8[PAGE_FLAGS_BASE + (address >>> 12)]! & PAGE_RAM) !== 0;
  }
  /** True where a store is an ordinary store into RAM and nobody wants to know about it. */
  isPlainWritable(address: number): boolean {
    return address < this.memory.ramBytes &&
      (this.memory.u8[PAGE_FLAGS_BASE + (address >>> 12)]! &
          (PAGE_RAM | PAGE_ROM | PAGE_CODE | PAGE_WATCH)) ===
        PAGE_RAM;
  }

  // ---- physical accesses

  /** Reads `size` bytes at a physical address, unsigned. Alignment is free. */
  read(address: number, size: AccessSize): number {
    if ((address & 0xfff) + size > 4096) return this.#readSplit(address, size);
    if (this.isPlain(address)) return this.#readRam(address, size);
    return this.#readDevice(address, size);
  }

  /** Writes the low `size` bytes of `value` at a physical address. Alignment is free. */
  write(address: number, size: AccessSize, value: number): void {
    if ((address & 0xfff) + size > 4096) {
      for (let i = 0; i < size; i++) this.write(address + i, 1, (value >>> (i * 8)) & 0xff);
      return;
    }
    if (this.isPlain(address)) {
      if (this.pageFlags(address) & PAGE_ROM) return;
      this.#writeRam(address, size, value);
      this.afterStore(address, size);
    } else this.#writeDevice(address, size, value);
  }

  /** To be called after a store of any size into RAM: drops decoded code that it hit, tells the watcher. Must not cross a page. */
  afterStore(physical: number, bytes: number): void {
    const flags = this.pageFlags(physical);
    if (flags & PAGE_WATCH) this.watchStore?.(physical, bytes);
    if ((flags & PAGE_CODE) && this.code?.overlaps(physical, bytes)) this.code.invalidate(physical, bytes);
  }

  /** A device's or loader's store into RAM (DMA). What falls on ROM or outside RAM is dropped. */
  writeRam(physical: number, bytes: Uint8Array): void {
    let done = 0;
    while (done < bytes.length) {
      const at = physical + done;
      const piece = Math.min(bytes.length - done, 4096 - (at & 0xfff));
      if (at < this.memory.ramBytes && !(this.pageFlags(at) & PAGE_ROM)) {
        this.memory.u8.set(bytes.subarray(done, done + piece), RAM_BASE + at);
        this.afterStore(at, piece);
      }
      done += piece;
    }
  }

  /** A device's read of RAM (DMA), into a fresh array. Outside RAM all bytes are 0xFF. */
  readRam(physical: number, bytes: number): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(bytes).fill(0xff);
    const inside = Math.max(0, Math.min(bytes, this.memory.ramBytes - physical));
    out.set(this.memory.u8.subarray(RAM_BASE + physical, RAM_BASE + physical + inside));
    return out;
  }

  // ---- ports

  /** Reads a port; a port that nobody owns gives all ones. */
  ioRead(port: number, size: AccessSize): number {
    this.counters.portReads++;
    const value = this.#portRead(port, size);
    this.onAccess?.("port", port & 0xffff, size, false, value);
    return value;
  }

  #portRead(port: number, size: AccessSize): number {
    const index = this.#portMap[port & 0xffff]!;
    if (index !== 0) {
      const device = this.#portDevices[index - 1]!;
      if (size <= device.portWidth) return (device.readPort(port, size) & mask(size)) >>> 0;
    }
    if (size === 1) return 0xff;
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.#portByte((port + i) & 0xffff) << (i * 8);
    return value >>> 0;
  }

  /** Writes a port; a write to a port that nobody owns vanishes. */
  ioWrite(port: number, size: AccessSize, value: number): void {
    this.counters.portWrites++;
    this.onAccess?.("port", port & 0xffff, size, true, value >>> 0);
    const index = this.#portMap[port & 0xffff]!;
    if (index !== 0) {
      const device = this.#portDevices[index - 1]!;
      if (size <= device.portWidth) {
        device.writePort(port, size, (value & mask(size)) >>> 0);
        return;
      }
    }
    if (size === 1) return;
    for (let i = 0; i < size; i++) {
      const at = (port + i) & 0xffff;
      const owner = this.#portMap[at]!;
      if (owner !== 0) this.#portDevices[owner - 1]!.writePort(at, 1, (value >>> (i * 8)) & 0xff);
    }
  }

  // ---- the parts

  #portByte(port: number): number {
    const owner = this.#portMap[port]!;
    return owner === 0 ? 0xff : this.#portDevices[owner - 1]!.readPort(port, 1) & 0xff;
  }

  #readSplit(address: number, size: AccessSize): number {
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.read(address + i, 1) << (i * 8);
    return value >>> 0;
  }

  #readRam(address: number, size: AccessSize): number {
    const host = RAM_BASE + address, u8 = this.memory.u8;
    if (size === 1) return u8[host]!;
    if (size === 2) return u8[host]! | (u8[host + 1]! << 8);
    if ((host & 3) === 0) return this.memory.u32[host >>> 2]!;
    return (u8[host]! | (u8[host + 1]! << 8) | (u8[host + 2]! << 16) | (u8[host + 3]! << 24)) >>> 0;
  }

  #writeRam(address: number, size: AccessSize, value: number): void {
    const host = RAM_BASE + address, u8 = this.memory.u8;
    if (size === 4 && (host & 3) === 0) {
      this.memory.i32[host >>> 2] = value;
      return;
    }
    u8[host] = value;
    if (size >= 2) u8[host + 1] = value >>> 8;
    if (size === 4) {
      u8[host + 2] = value >>> 16;
      u8[host + 3] = value >>> 24;
    }
  }

  #readDevice(address: number, size: AccessSize): number {
    this.counters.mmioReads++;
    const value = this.#readRegion(address, size);
    this.onAccess?.("mmio", address, size, false, value);
    return value;
  }

  #readRegion(address: number, size: AccessSize): number {
    const apic = this.apic;
    if (apic !== null && apic.mmioBase >= 0 && address >= apic.mmioBase && address < apic.mmioBase + 4096) {
      return (apic.readMmio(address - apic.mmioBase, size) & mask(size)) >>> 0;
    }
    for (const r of this.#regions) {
      if (address >= r.base && address < r.base + r.bytes) {
        return (r.device.readMmio(address - r.base, size) & mask(size)) >>> 0;
      }
    }
    if (address < this.memory.ramBytes) return this.#readRam(address, size);
    return mask(size) >>> 0;
  }

  #writeDevice(address: number, size: AccessSize, value: number): void {
    this.counters.mmioWrites++;
    const masked = (value & mask(size)) >>> 0;
    this.onAccess?.("mmio", address, size, true, masked);
    const apic = this.apic;
    if (apic !== null && apic.mmioBase >= 0 && address >= apic.mmioBase && address < apic.mmioBase + 4096) {
      apic.writeMmio(address - apic.mmioBase, size, masked);
      return;
    }
    for (const r of this.#regions) {
      if (address >= r.base && address < r.base + r.bytes) {
        r.device.writeMmio(address - r.base, size, masked);
        return;
      }
    }
    if (address < this.memory.ramBytes) {
      this.#writeRam(address, size, value);
      this.afterStore(address, size);
    }
  }
}

/** All ones in `size` bytes, as a signed 32-bit number. */
function mask(size: AccessSize): number {
  return size === 4 ? -1 : (1 << (size * 8)) - 1;
}
