/**
 * A virtio block device on the virtio-mmio transport (version 2), with one split virtqueue.
 *
 * Room: `hw/dev/`; imports bus.ts and clock.ts. Virtio 1.2, sections "Virtio Over MMIO", "Split Virtqueues", "Block Device".
 *
 * A notification does not act at once: a request takes {@link REQUEST_TICKS} before it is carried out and the interrupt comes, as
 * on a machine where a disk takes time. Everything in the rings is the guest's word and believed only as far as checked; a ring
 * that makes no sense sets DEVICE_NEEDS_RESET and stops the queue.
 *
 * @module
 */
import type { AccessSize, Bus, MmioDevice } from "../bus.ts";
import type { Clock, Timer } from "../clock.ts";

/** Physical address of the register block. */
export const VIRTIO_BASE = 0xfeb0_0000;
/** Bytes of the register block. */
export const VIRTIO_BYTES = 0x200;
/** Ticks from notification to completion. */
export const REQUEST_TICKS = 20_000;
/** Bytes in a sector. */
export const SECTOR_BYTES = 512;

/** Most bytes that one request may move. */
const REQUEST_BYTES_MAX = 64 * 1024 * 1024;
const QUEUE_MAX = 256;
const REG = {
  magic: 0x000,
  version: 0x004,
  deviceId: 0x008,
  vendorId: 0x00c,
  deviceFeatures: 0x010,
  deviceFeaturesSelect: 0x014,
  driverFeatures: 0x020,
  driverFeaturesSelect: 0x024,
  queueSelect: 0x030,
  queueNumMax: 0x034,
  queueNum: 0x038,
  queueReady: 0x044,
  queueNotify: 0x050,
  interruptStatus: 0x060,
  interruptAck: 0x064,
  status: 0x070,
  descLow: 0x080,
  descHigh: 0x084,
  driverLow: 0x090,
  driverHigh: 0x094,
  deviceLow: 0x0a0,
  deviceHigh: 0x0a4,
  configGeneration: 0x0fc,
  config: 0x100,
} as const;

const STATUS_FEATURES_OK = 8, STATUS_DRIVER_OK = 4, STATUS_NEEDS_RESET = 0x40;
const FEATURE_SEG_MAX = 1 << 2, FEATURE_RO = 1 << 5, FEATURE_BLK_SIZE = 1 << 6, FEATURE_FLUSH = 1 << 9;
const FEATURE_INDIRECT = 1 << 28;
/** In the upper word: VIRTIO_F_VERSION_1. */
const FEATURE_VERSION_1 = 1;
const DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4;
const REQUEST_IN = 0, REQUEST_OUT = 1, REQUEST_FLUSH = 4, REQUEST_GET_ID = 8;
const RESULT_OK = 0, RESULT_ERROR = 1, RESULT_UNSUPPORTED = 2;

/** What a disk image is kept in. Offsets and sizes are in bytes, within [0, bytes). */
export interface BlockStore {
  /** Size: a multiple of 512. */
  readonly bytes: number;
  /** Whether writes fail. */
  readonly readOnly: boolean;
  /** Name that GET_ID gives, at most 20 characters. */
  readonly id: string;
  /** Whether a request meets a bad place of the medium: then it is answered with an error, and nothing of it is carried out. */
  fails?(request: "read" | "write", offset: number, bytes: number): boolean;
  /** Reads bytes. */
  read(offset: number, into: Uint8Array): void;
  /** Writes bytes. */
  write(offset: number, data: Uint8Array): void;
  /** Makes writes durable. */
  flush(): void;
}

/** A disk in the host's memory. */
export class MemoryDisk implements BlockStore {
  /** Whether writes fail. */
  readonly readOnly: boolean;
  readonly id: string;
  /** The disk's contents. */
  readonly data: Uint8Array;

  /**
   * Makes a disk of these bytes; writes change them.
   *
   * @throws {RangeError} when the size is not a multiple of 512 bytes.
   */
  constructor(data: Uint8Array, options: { readonly readOnly?: boolean; readonly id?: string } = {}) {
    if (data.length % SECTOR_BYTES !== 0) {
      throw new RangeError(`Cannot make a disk of ${data.length} bytes: the size must be a multiple of 512`);
    }
    this.data = data;
    this.readOnly = options.readOnly ?? false;
    this.id = options.id ?? "exuvia-disk";
  }
  get bytes(): number {
    return this.data.length;
  }
  /** Reads bytes. */
  read(offset: number, into: Uint8Array): void {
    into.set(this.data.subarray(offset, offset + into.length));
  }
  /** Writes bytes. */
  write(offset: number, data: Uint8Array): void {
    this.data.set(data, offset);
  }
  flush(): void {}
}

interface Descriptor {
  readonly address: number;
  readonly length: number;
  readonly flags: number;
  readonly next: number;
}

/** What a snapshot keeps; the disk's contents are not part of it. */
export interface VirtioState {
  /** Registers, in the order of `save`. */
  readonly numbers: readonly number[];
}

/** The device. */
export class VirtioBlk implements MmioDevice {
  /** Counters: requests completed, bytes moved. */
  readonly counters = { requests: 0, bytesRead: 0, bytesWritten: 0 };
  readonly #bus: Bus;
  readonly #disk: BlockStore;
  readonly #irq: (level: boolean) => void;
  readonly #timer: Timer;
  readonly #clock: Clock;

  #featuresSelect = 0;
  #driverFeaturesSelect = 0;
  #driverLow = 0;
  #driverHigh = 0;
  #queueSelect = 0;
  #queueNum = 0;
  #queueReady = 0;
  #interruptStatus = 0;
  #status = 0;
  readonly #desc = [0, 0];
  readonly #driver = [0, 0];
  readonly #device = [0, 0];
  #lastAvailable = 0;

  /**
   * Makes a disk of these bytes; writes change them.
   *
   * @param irq Follows the interrupt line.
   */
  constructor(bus: Bus, clock: Clock, disk: BlockStore, irq: (level: boolean) => void) {
    this.#bus = bus;
    this.#clock = clock;
    this.#disk = disk;
    this.#irq = irq;
    this.#timer = clock.timer("virtio-blk", () => this.#serve());
  }

  readMmio(offset: number, size: AccessSize): number {
    if (offset >= REG.config) return this.#config(offset - REG.config, size);
    return size === 4 && (offset & 3) === 0 ? this.#read(offset) : 0;
  }

  /** Writes a register. */
  writeMmio(offset: number, size: AccessSize, value: number): void {
    if (size === 4 && (offset & 3) === 0 && offset < REG.config) this.#write(offset, value);
  }

  /** Power-up: registers as after a reset. */
  reset(): void {
    this.#timer.cancel();
    this.#featuresSelect =
      this.#driverFeaturesSelect =
      this.#driverLow =
      this.#driverHigh =
        0;
    this.#queueSelect =
      this.#queueNum =
      this.#queueReady =
      this.#interruptStatus =
      this.#status =
        0;
    this.#lastAvailable = 0;
    for (const pair of [this.#desc, this.#driver, this.#device]) pair.fill(0);
    this.#irq(false);
  }

  /** The state as plain data, for a snapshot. */
  save(): VirtioState {
    return {
      numbers: [
        this.#featuresSelect,
        this.#driverFeaturesSelect,
        this.#driverLow,
        this.#driverHigh,
        this.#queueSelect,
        this.#queueNum,
        this.#queueReady,
        this.#interruptStatus,
        this.#status,
        this.#lastAvailable,
        ...this.#desc,
        ...this.#driver,
        ...this.#device,
      ],
    };
  }
  /** Puts a saved state back. */
  load(state: VirtioState): void {
    const n = state.numbers;
    const at = (i: number) => n[i] ?? 0;
    this.#featuresSelect = at(0);
    this.#driverFeaturesSelect = at(1);
    this.#driverLow = at(2);
    this.#driverHigh = at(3);
    this.#queueSelect = at(4);
    this.#queueNum = at(5);
    this.#queueReady = at(6);
    this.#interruptStatus = at(7);
    this.#status = at(8);
    this.#lastAvailable = at(9);
    [this.#desc, this.#driver, this.#device].forEach((pair, i) => {
      pair[0] = at(10 + 2 * i);
      pair[1] = at(11 + 2 * i);
    });
  }

  // ---- registers

  get #featuresLow(): number {
    return FEATURE_SEG_MAX | FEATURE_BLK_SIZE | FEATURE_FLUSH | FEATURE_INDIRECT |
      (this.#disk.readOnly ? FEATURE_RO : 0);
  }

  #read(offset: number): number {
    switch (offset) {
      case REG.magic:
        return 0x7472_6976; // "virt"
      case REG.version:
        return 2;
      case REG.deviceId:
        return 2; // block device
      case REG.vendorId:
        return 0x5558_4556;
      case REG.deviceFeatures:
        return this.#featuresSelect === 0
          ? this.#featuresLow
          : this.#featuresSelect === 1
          ? FEATURE_VERSION_1
          : 0;
      case REG.queueNumMax:
        return this.#queueSelect === 0 ? QUEUE_MAX : 0;
      case REG.queueReady:
        return this.#queueSelect === 0 ? this.#queueReady : 0;
      case REG.interruptStatus:
        return this.#interruptStatus;
      case REG.status:
        return this.#status;
      default:
        return 0;
    }
  }

  #write(offset: number, value: number): void {
    switch (offset) {
      case REG.deviceFeaturesSelect:
        this.#featuresSelect = value;
        return;
      case REG.driverFeaturesSelect:
        this.#driverFeaturesSelect = value;
        return;
      case REG.driverFeatures:
        if (this.#driverFeaturesSelect === 0) this.#driverLow = value | 0;
        else if (this.#driverFeaturesSelect === 1) this.#driverHigh = value | 0;
        return;
      case REG.queueSelect:
        this.#queueSelect = value;
        return;
      case REG.queueNotify:
        if (value === 0 && this.#timer.at === Infinity) this.#timer.set(this.#clock.now() + REQUEST_TICKS);
        return;
      case REG.interruptAck:
        this.#interruptStatus &= ~value;
        if (this.#interruptStatus === 0) this.#irq(false);
        return;
      case REG.status:
        this.#setStatus(value);
        return;
    }
    if (this.#queueSelect !== 0) return;
    switch (offset) {
      case REG.queueNum:
        this.#queueNum = value;
        return;
      case REG.queueReady:
        if ((value & 1) !== 0 && !isQueueSize(this.#queueNum)) this.#needsReset();
        else {
          this.#queueReady = value & 1;
          if (!this.#queueReady) this.#lastAvailable = 0;
        }
        return;
      case REG.descLow:
      case REG.descHigh:
        this.#desc[(offset - REG.descLow) >>> 2] = value;
        return;
      case REG.driverLow:
      case REG.driverHigh:
        this.#driver[(offset - REG.driverLow) >>> 2] = value;
        return;
      case REG.deviceLow:
      case REG.deviceHigh:
        this.#device[(offset - REG.deviceLow) >>> 2] = value;
        return;
    }
  }

  #setStatus(value: number): void {
    if (value === 0) {
      this.reset();
      return;
    }
    let status = value & 0xff;
    // Features that were not offered, or no VERSION_1, are refused by leaving FEATURES_OK clear.
    const refused = (this.#driverLow & ~this.#featuresLow) !== 0 || this.#driverHigh !== FEATURE_VERSION_1;
    if (status & STATUS_FEATURES_OK && !(this.#status & STATUS_FEATURES_OK) && refused) {
      status &= ~STATUS_FEATURES_OK;
    }
    this.#status = status | (this.#status & STATUS_NEEDS_RESET);
  }

  /** Configuration space: capacity in sectors (u64), size_max, seg_max, geometry, blk_size. */
  #config(offset: number, size: AccessSize): number {
    const bytes = new DataView(new ArrayBuffer(64));
    const sectors = this.#disk.bytes / SECTOR_BYTES;
    bytes.setUint32(0, sectors % 0x1_0000_0000, true);
    bytes.setUint32(4, Math.floor(sectors / 0x1_0000_0000), true);
    bytes.setUint32(12, QUEUE_MAX - 2, true);
    bytes.setUint32(20, SECTOR_BYTES, true);
    let value = 0;
    for (let i = 0; i < size && offset + i < 64; i++) value |= bytes.getUint8(offset + i) << (8 * i);
    return value;
  }

  // ---- the queue

  #needsReset(): void {
    this.#status |= STATUS_NEEDS_RESET;
    this.#interrupt(2);
  }
  #interrupt(bit: number): void {
    this.#interruptStatus |= bit;
    this.#irq(true);
  }

  /** Carries out everything in the available ring. */
  #serve(): void {
    if (!this.#queueReady || !(this.#status & STATUS_DRIVER_OK) || this.#status & STATUS_NEEDS_RESET) return;
    const driver = address(this.#driver), device = address(this.#device), size = this.#queueNum;
    const available = this.#bus.read(driver + 2, 2);
    let left = (available - this.#lastAvailable) & 0xffff;
    if (left > size) return this.#needsReset();
    let used = this.#bus.read(device + 2, 2);
    const any = left > 0;
    for (; left > 0; left--) {
      const head = this.#bus.read(driver + 4 + 2 * (this.#lastAvailable % size), 2);
      this.#lastAvailable = (this.#lastAvailable + 1) & 0xffff;
      const chain = this.#chain(head);
      if (chain === null) return this.#needsReset();
      const written = this.#request(chain);
      const element = new DataView(new ArrayBuffer(8));
      element.setUint32(0, head, true);
      element.setUint32(4, written, true);
      this.#bus.writeRam(device + 4 + 8 * (used % size), new Uint8Array(element.buffer));
      used = (used + 1) & 0xffff;
      this.#bus.writeRam(device + 2, Uint8Array.of(used & 0xff, used >>> 8));
    }
    // VIRTQ_AVAIL_F_NO_INTERRUPT
    if (any && !(this.#bus.read(driver, 2) & 1)) this.#interrupt(1);
  }

  #descriptor(table: number, index: number): Descriptor {
    const at = table + 16 * index;
    return {
      address: this.#bus.read(at, 4) + this.#bus.read(at + 4, 4) * 0x1_0000_0000,
      length: this.#bus.read(at + 8, 4),
      flags: this.#bus.read(at + 12, 2),
      next: this.#bus.read(at + 14, 2),
    };
  }

  /** The descriptors of a chain, or null if it makes no sense: too long, a bad index, indirect tables in the wrong place. */
  #chain(head: number): Descriptor[] | null {
    let table = address(this.#desc), size = this.#queueNum, index = head;
    const chain: Descriptor[] = [];
    let indirect = false;
    // A chain can't have more elements than the queue, or than its indirect table (at most as many here).
    for (let steps = 0; steps <= QUEUE_MAX; steps++) {
      if (index >= size) return null;
      const d = this.#descriptor(table, index);
      if (d.flags & DESC_INDIRECT) {
        if (indirect || d.flags & DESC_NEXT || d.length === 0 || d.length % 16 !== 0) return null;
        indirect = true;
        table = d.address;
        size = Math.min(d.length / 16, QUEUE_MAX);
        index = 0;
        continue;
      }
      chain.push(d);
      if (!(d.flags & DESC_NEXT)) return chain;
      index = d.next;
    }
    return null;
  }

  /** Carries out one request; returns the bytes written into its buffers. */
  #request(chain: readonly Descriptor[]): number {
    const readable = chain.filter((d) => !(d.flags & DESC_WRITE));
    const writable = chain.filter((d) => (d.flags & DESC_WRITE) !== 0);
    const header = new DataView(this.#gather(readable, 0, 16).buffer);
    const room = total(writable);
    // Without a byte for the result there is no way to answer.
    if (room < 1) return 0;
    const outBytes = total(readable) - 16;
    const sector = header.getUint32(8, true) + header.getUint32(12, true) * 0x1_0000_0000;
    const start = sector * SECTOR_BYTES;
    let result = RESULT_OK, written = 0;
    switch (outBytes < 0 ? -1 : header.getUint32(0, true)) {
      case REQUEST_IN: {
        const wanted = room - 1;
        if (!this.#inside(start, wanted) || this.#disk.fails?.("read", start, wanted)) result = RESULT_ERROR;
        else {
          const data = new Uint8Array(wanted);
          this.#disk.read(start, data);
          this.#scatter(writable, 0, data);
          written = wanted;
          this.counters.bytesRead += wanted;
        }
        break;
      }
      case REQUEST_OUT:
        if (
          !this.#inside(start, outBytes) || this.#disk.readOnly ||
          this.#disk.fails?.("write", start, outBytes)
        ) result = RESULT_ERROR;
        else {
          this.#disk.write(start, this.#gather(readable, 16, outBytes));
          this.counters.bytesWritten += outBytes;
        }
        break;
      case REQUEST_FLUSH:
        this.#disk.flush();
        break;
      case REQUEST_GET_ID: {
        const id = new Uint8Array(Math.min(20, room - 1));
        for (let i = 0; i < id.length; i++) id[i] = this.#disk.id.charCodeAt(i) & 0x7f;
        this.#scatter(writable, 0, id);
        written = id.length;
        break;
      }
      default:
        result = outBytes < 0 ? RESULT_ERROR : RESULT_UNSUPPORTED;
    }
    this.#scatter(writable, room - 1, Uint8Array.of(result));
    this.counters.requests++;
    return written + 1;
  }

  /** Whether a transfer is whole sectors on the disk, and of a size that the host can hold. */
  #inside(start: number, bytes: number): boolean {
    return bytes % SECTOR_BYTES === 0 && bytes <= REQUEST_BYTES_MAX && start + bytes <= this.#disk.bytes;
  }

  #gather(list: readonly Descriptor[], skip: number, bytes: number): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(bytes);
    let done = 0;
    for (const d of list) {
      const from = Math.min(skip, d.length);
      skip -= from;
      const piece = Math.min(d.length - from, bytes - done);
      if (piece > 0) out.set(this.#bus.readRam(d.address + from, piece), done);
      done += Math.max(0, piece);
    }
    return out;
  }

  #scatter(list: readonly Descriptor[], skip: number, data: Uint8Array): void {
    let done = 0;
    for (const d of list) {
      const from = Math.min(skip, d.length);
      skip -= from;
      const piece = Math.min(d.length - from, data.length - done);
      if (piece > 0) this.#bus.writeRam(d.address + from, data.subarray(done, done + piece));
      done += Math.max(0, piece);
    }
  }
}

function address(pair: readonly number[]): number {
  return (pair[0]! >>> 0) + (pair[1]! >>> 0) * 0x1_0000_0000;
}
function total(list: readonly Descriptor[]): number {
  return list.reduce((sum, d) => sum + d.length, 0);
}
function isQueueSize(n: number): boolean {
  return n > 0 && n <= QUEUE_MAX && (n & (n - 1)) === 0;
}
