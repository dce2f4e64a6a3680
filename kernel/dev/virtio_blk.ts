/**
 * Driver of a virtio block device on the virtio-mmio transport (`sys/dev/virtual/virtio/block`, version 2 of the transport).
 *
 * Room: `kernel/dev/`; imports pages for the rings, interrupts by the platform. Virtio 1.2, "Virtio Over MMIO", "Split Virtqueues", "Block
 * Device".
 *
 *     strategy ──► slot: header, table of pieces, status ──► available ring ──► notify
 *     interrupt: acknowledge, wake ──► thread: used ring ──► slot free, biodone
 *
 * A request is one descriptor in the queue that points to a table of its own (indirect), so a request of any size takes one place. The memory of
 * the slots is taken at the start: a request needs none, so that the pageout daemon can write when there is no page left.
 *
 * What the device writes is believed as far as it is checked: an id that is out of range or not in use, or DEVICE_NEEDS_RESET, ends the device: all
 * its requests fail with EIO, and so do later ones.
 *
 * @module
 */
import { type Gva, gva, type Hpa, hpa, PAGE_SIZE } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { type Bio, biodone, type BlockDevice } from "../kern/bio.ts";
import { ERRNO } from "../kern/errno.ts";
import { kprintf } from "../kern/subr_prf.ts";
import { PINTERLOCKED, tsleep, tsleepInterlock, wakeup, wakeupOne } from "../lwkt/sleep.ts";
import { kthreadCreate, lwktSetpri, TDPRI } from "../lwkt/thread.ts";
import { physToDmap } from "../platform/layout.ts";
import {
  VM_ALLOC_NORMAL,
  VM_ALLOC_SYSTEM,
  type VmPage,
  vmPageUnmanage,
  vmPageWakeup,
  vmPageWire,
} from "../vm/vm_page.ts";
import { vmPageAlloc } from "../vm/vm_page_alloc.ts";

/** Where the board has the device's registers, and its interrupt request. */
const VIRTIO_BASE = hpa(0xfeb0_0000);
const VIRTIO_BYTES = 0x200;
const VIRTIO_IRQ = 11;

/** Registers: byte offsets ("MMIO Device Register Layout"). */
const REG = {
  magic: 0x000,
  version: 0x004,
  deviceId: 0x008,
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
  driverLow: 0x090,
  deviceLow: 0x0a0,
  config: 0x100,
} as const;
const MAGIC = 0x7472_6976;
const DEVICE_BLOCK = 2;
/** Device status. */
const ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 0x40, FAILED = 0x80;
/** Features, lower word: read only, flush, indirect tables; upper word: version 1. */
const FEATURE_RO = 1 << 5, FEATURE_FLUSH = 1 << 9, FEATURE_INDIRECT = 1 << 28, FEATURE_VERSION_1 = 1;
/** Descriptor flags. */
const DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4;
/** Request types. */
const REQUEST_TYPE = { read: 0, write: 1, flush: 4 } as const;

/** Requests that may be on their way: a power of two. */
export const VIRTIO_BLK_QUEUE = 32;
/** Bytes of a slot: header (16), status (1, padded to 16), table of descriptors. */
const SLOT_BYTES = 2048;
const STATUS_AT = 16, TABLE_AT = 32;
/** Pieces of memory in a request: the table without the ones of header and status. */
export const VIRTIO_BLK_SEGMENTS: number = Math.floor((SLOT_BYTES - TABLE_AT) / 16) - 2;
/** Where the rings stand in their page: descriptors at 0, then available, then used. */
const AVAIL_AT = 16 * VIRTIO_BLK_QUEUE;
const USED_AT = 2048;

/** The disk. */
export class VirtioBlk implements BlockDevice {
  readonly name: string;
  readonly mediaBytes: number;
  readonly sectorBytes = 512;
  readonly readOnly: boolean;
  /** Writes can be made durable. */
  readonly #flush: boolean;
  /** Linear address of the registers. */
  readonly #regs: Gva;
  /** Linear address of the rings' page. */
  readonly #ring: Gva;
  /** Physical addresses of the slots. */
  readonly #slots: readonly Hpa[];
  /** Requests on their way, by slot. */
  readonly #running: (Bio | undefined)[];
  /** Slots without a request; the one used last first. */
  readonly #free: number[];
  /** What waits for a slot sleeps on this; the thread sleeps on the device itself. */
  readonly #slotIdent: object = {};
  /** Requests put into the available ring so far, and taken out of the used ring. */
  #available = 0;
  #used = 0;
  /** The interrupt came since the thread last looked. */
  #pending = false;
  /** The device does not work any more. */
  #dead = false;

  /** Made by {@link virtioBlkAttach}. */
  constructor(options: {
    readonly name: string;
    readonly mediaBytes: number;
    readonly readOnly: boolean;
    readonly flush: boolean;
    readonly regs: Gva;
    readonly ring: Gva;
    readonly slots: readonly Hpa[];
  }) {
    this.name = options.name;
    this.mediaBytes = options.mediaBytes;
    this.readOnly = options.readOnly;
    this.#flush = options.flush;
    this.#regs = options.regs;
    this.#ring = options.ring;
    this.#slots = options.slots;
    this.#running = options.slots.map(() => undefined);
    this.#free = options.slots.map((_, i) => i).reverse();
  }

  /** Requests on their way. */
  get outstanding(): number {
    return this.#slots.length - this.#free.length;
  }

  /** Starts a request; sleeps only while all slots are taken. */
  *strategy(cx: Cx, bio: Bio): Exec<void> {
    const error = this.#refuse(bio);
    if (error !== undefined) {
      bio.bError = error;
      return yield* biodone(cx, bio);
    }
    if (bio.bCmd === "flush" && !this.#flush) return yield* biodone(cx, bio);
    while (this.#free.length === 0) {
      tsleepInterlock(cx, this.#slotIdent, 0);
      yield* tsleep(cx, this.#slotIdent, PINTERLOCKED, "vbdslot", 0);
    }
    if (this.#dead) {
      bio.bError = ERRNO.EIO;
      return yield* biodone(cx, bio);
    }
    const slot = this.#free.pop()!;
    this.#running[slot] = bio;
    yield* this.#fill(cx, slot, bio);
    yield* this.#put(cx, slot);
  }

  /** Why a request cannot be carried out: its errno. */
  #refuse(bio: Bio): number | undefined {
    const { bytes, bioOffset, segments } = bio;
    if (this.#dead) return ERRNO.EIO;
    if (bio.bCmd === "flush") return undefined;
    if (bytes === 0 || bytes % this.sectorBytes !== 0 || bioOffset % this.sectorBytes !== 0) {
      return ERRNO.EINVAL;
    }
    if (segments.length > VIRTIO_BLK_SEGMENTS || bioOffset < 0) return ERRNO.EINVAL;
    if (bioOffset + bytes > this.mediaBytes) return ERRNO.EIO;
    return bio.bCmd === "write" && this.readOnly ? ERRNO.EROFS : undefined;
  }

  /** Writes header and table of a request. */
  *#fill(cx: Cx, slot: number, bio: Bio): Exec<void> {
    const at = this.#slots[slot]!;
    const image = new DataView(new ArrayBuffer(TABLE_AT + 16 * (bio.segments.length + 2)));
    image.setUint32(0, REQUEST_TYPE[bio.bCmd], true);
    const sector = bio.bioOffset / 512;
    image.setUint32(8, sector >>> 0, true);
    image.setUint32(12, Math.floor(sector / 0x1_0000_0000), true);
    // Any other value than the device's own, so that an answer that was not written is not taken for a good one.
    image.setUint8(STATUS_AT, 0xff);
    let n = 0;
    const piece = (pa: number, bytes: number, flags: number) => {
      const d = TABLE_AT + 16 * n++;
      image.setUint32(d, pa >>> 0, true);
      image.setUint32(d + 4, Math.floor(pa / 0x1_0000_0000), true);
      image.setUint32(d + 8, bytes, true);
      image.setUint16(d + 12, flags, true);
      image.setUint16(d + 14, flags & DESC_NEXT ? n : 0, true);
    };
    piece(at, 16, DESC_NEXT);
    const data = bio.bCmd === "read" ? DESC_NEXT | DESC_WRITE : DESC_NEXT;
    for (const { pa, bytes } of bio.segments) piece(pa, bytes, data);
    piece(at + STATUS_AT, 1, DESC_WRITE);
    yield* cx.cpu.storeBytes(physToDmap(cx.k, at), new Uint8Array(image.buffer));
    const descriptor = new DataView(new ArrayBuffer(16));
    descriptor.setUint32(0, (at + TABLE_AT) >>> 0, true);
    descriptor.setUint32(4, Math.floor((at + TABLE_AT) / 0x1_0000_0000), true);
    descriptor.setUint32(8, 16 * n, true);
    descriptor.setUint16(12, DESC_INDIRECT, true);
    yield* cx.cpu.storeBytes(this.#at(16 * slot), new Uint8Array(descriptor.buffer));
  }

  /** Puts a slot into the available ring and tells the device. The index goes last: what it covers must stand there before. */
  *#put(cx: Cx, slot: number): Exec<void> {
    const index = this.#available++;
    yield* cx.cpu.store16(this.#at(AVAIL_AT + 4 + 2 * (index % VIRTIO_BLK_QUEUE)), slot);
    yield* cx.cpu.store16(this.#at(AVAIL_AT + 2), this.#available & 0xffff);
    yield* this.#store(cx, REG.queueNotify, 0);
  }

  /** The interrupt: silences the device and wakes the thread. */
  *interrupt(cx: Cx): Exec<void> {
    const status = yield* this.#load(cx, REG.interruptStatus);
    if (status === 0) return;
    yield* this.#store(cx, REG.interruptAck, status);
    this.#pending = true;
    wakeup(cx, this);
  }

  /** The interrupt thread: ends requests. */
  *thread(cx: Cx): Exec<void> {
    lwktSetpri(cx, cx.td, TDPRI.INT_MED);
    for (;;) {
      while (!this.#pending) {
        tsleepInterlock(cx, this, 0);
        yield* tsleep(cx, this, PINTERLOCKED, "vbdint", 0);
      }
      this.#pending = false;
      yield* this.#finish(cx);
    }
  }

  /** Ends what stands in the used ring. */
  *#finish(cx: Cx): Exec<void> {
    while (!this.#dead) {
      const used = yield* cx.cpu.load16(this.#at(USED_AT + 2));
      if (used === (this.#used & 0xffff)) break;
      const element = USED_AT + 4 + 8 * (this.#used++ % VIRTIO_BLK_QUEUE);
      const slot = yield* cx.cpu.load32(this.#at(element));
      const bio = this.#running[slot];
      if (bio === undefined) return yield* this.#die(cx, `answers a request ${slot} that there is not`);
      const status = yield* cx.cpu.load8(physToDmap(cx.k, hpa(this.#slots[slot]! + STATUS_AT)));
      bio.bError = status === 0 ? 0 : ERRNO.EIO;
      bio.bResid = status === 0 ? 0 : bio.bytes;
      this.#release(cx, slot);
      yield* biodone(cx, bio);
    }
    if ((yield* this.#load(cx, REG.status)) & NEEDS_RESET) yield* this.#die(cx, "needs a reset");
  }

  #release(cx: Cx, slot: number): void {
    this.#running[slot] = undefined;
    this.#free.push(slot);
    wakeupOne(cx, this.#slotIdent);
  }

  /** The device is of no more use: everything fails. */
  *#die(cx: Cx, why: string): Exec<void> {
    if (this.#dead) return;
    this.#dead = true;
    kprintf(cx, `${this.name}: the device ${why}; its requests fail from now on\n`);
    // No more writing into memory that is not the device's any longer.
    yield* this.#store(cx, REG.status, 0);
    for (const [slot, bio] of this.#running.entries()) {
      if (bio === undefined) continue;
      bio.bError = ERRNO.EIO;
      this.#release(cx, slot);
      yield* biodone(cx, bio);
    }
  }

  /** Linear address of a byte of the rings' page. */
  #at(offset: number): Gva {
    return gva(this.#ring + BigInt(offset));
  }
  #load(cx: Cx, register: number): Exec<number> {
    return cx.cpu.load32(gva(this.#regs + BigInt(register)));
  }
  #store(cx: Cx, register: number, value: number): Exec<void> {
    return cx.cpu.store32(gva(this.#regs + BigInt(register)), value);
  }
}

/** Looks for the device and starts it (`vtblk_attach`); `cx.k.disk` is it from then on. Undefined when there is none, or none that works. */
export function* virtioBlkAttach(cx: Cx): Exec<VirtioBlk | undefined> {
  const regs = yield* cx.k.platform.mapDevice(cx, VIRTIO_BASE, VIRTIO_BYTES);
  const at = (register: number) => gva(regs + BigInt(register));
  const load = (register: number) => cx.cpu.load32(at(register));
  const store = (register: number, value: number) => cx.cpu.store32(at(register), value >>> 0);
  if ((yield* load(REG.magic)) !== MAGIC || (yield* load(REG.version)) !== 2) return undefined;
  if ((yield* load(REG.deviceId)) !== DEVICE_BLOCK) return undefined;
  yield* store(REG.status, 0);
  yield* store(REG.status, ACKNOWLEDGE);
  yield* store(REG.status, ACKNOWLEDGE | DRIVER);

  yield* store(REG.deviceFeaturesSelect, 0);
  const offered = yield* load(REG.deviceFeatures);
  yield* store(REG.deviceFeaturesSelect, 1);
  const offeredHigh = yield* load(REG.deviceFeatures);
  if ((offered & FEATURE_INDIRECT) === 0 || (offeredHigh & FEATURE_VERSION_1) === 0) {
    return yield* fail(cx, store, "lacks a feature that the driver needs");
  }
  const wanted = offered & (FEATURE_RO | FEATURE_FLUSH | FEATURE_INDIRECT);
  yield* store(REG.driverFeaturesSelect, 0);
  yield* store(REG.driverFeatures, wanted);
  yield* store(REG.driverFeaturesSelect, 1);
  yield* store(REG.driverFeatures, FEATURE_VERSION_1);
  yield* store(REG.status, ACKNOWLEDGE | DRIVER | FEATURES_OK);
  if (((yield* load(REG.status)) & FEATURES_OK) === 0) {
    return yield* fail(cx, store, "refuses the driver's features");
  }

  yield* store(REG.queueSelect, 0);
  if ((yield* load(REG.queueNumMax)) < VIRTIO_BLK_QUEUE) {
    return yield* fail(cx, store, "has too small a queue");
  }
  const ring = yield* takePage(cx);
  if (ring === undefined) return yield* fail(cx, store, "gets no memory");
  const slots: Hpa[] = [];
  while (slots.length < VIRTIO_BLK_QUEUE) {
    const page = yield* takePage(cx);
    if (page === undefined) return yield* fail(cx, store, "gets no memory");
    for (let offset = 0; offset < PAGE_SIZE; offset += SLOT_BYTES) slots.push(hpa(page + offset));
  }
  yield* store(REG.queueNum, VIRTIO_BLK_QUEUE);
  const parts = [[REG.descLow, 0], [REG.driverLow, AVAIL_AT], [REG.deviceLow, USED_AT]] as const;
  for (const [register, offset] of parts) {
    yield* store(register, (ring + offset) >>> 0);
    yield* store(register + 4, Math.floor((ring + offset) / 0x1_0000_0000));
  }
  yield* store(REG.queueReady, 1);

  const sectors = (yield* load(REG.config)) + (yield* load(REG.config + 4)) * 0x1_0000_0000;
  const disk = new VirtioBlk({
    name: "vbd0",
    mediaBytes: sectors * 512,
    readOnly: (offered & FEATURE_RO) !== 0,
    flush: (offered & FEATURE_FLUSH) !== 0,
    regs,
    ring: physToDmap(cx.k, ring),
    slots,
  });
  yield* kthreadCreate(cx, (cx) => disk.thread(cx), "ithread vbd0");
  yield* cx.k.platform.registerInt(cx, VIRTIO_IRQ, "vbd0", (cx) => disk.interrupt(cx));
  yield* store(REG.status, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
  cx.k.disk = disk;
  const mib = (disk.mediaBytes / 0x10_0000).toFixed(1);
  kprintf(
    cx,
    `vbd0: virtio block device, ${mib} MiB, irq ${VIRTIO_IRQ}${disk.readOnly ? ", read only" : ""}\n`,
  );
  return disk;
}

function* fail(
  cx: Cx,
  store: (register: number, value: number) => Exec<void>,
  why: string,
): Exec<undefined> {
  kprintf(cx, `vbd0: the device ${why}\n`);
  yield* store(REG.status, FAILED);
  return undefined;
}

/** A zeroed page that stays the driver's. */
function* takePage(cx: Cx): Exec<Hpa | undefined> {
  const m: VmPage | undefined = vmPageAlloc(cx, undefined, 0, VM_ALLOC_NORMAL | VM_ALLOC_SYSTEM);
  if (m === undefined) return undefined;
  vmPageUnmanage(cx, m);
  vmPageWire(cx, m);
  vmPageWakeup(cx, m);
  yield* cx.cpu.zeroBytes(physToDmap(cx.k, m.physAddr), PAGE_SIZE);
  return m.physAddr;
}
