/**
 * The board: every device but the processors, wired up and reset as one.
 *
 * Room: `hw/`; imports `hw/dev/`, the bus and the clock. machine.ts adds processors to it.
 *
 * @module
 */
import type { AccessSize, Bus, MmioDevice } from "./bus.ts";
import type { Clock } from "./clock.ts";
import { acpiTables } from "./dev/acpi.ts";
import { ApicBus } from "./dev/apic_bus.ts";
import { DEBUG_EXIT_PORT, DebugConsole, DebugExit } from "./dev/debug_exit.ts";
import { I8042 } from "./dev/i8042.ts";
import { IoApic, IOAPIC_BASE } from "./dev/ioapic.ts";
import { IRQ, IrqLines } from "./dev/irq.ts";
import { FW_CFG_PORT, FwCfg } from "./dev/fw_cfg.ts";
import { PciPorts } from "./dev/pci.ts";
import { Pic8259 } from "./dev/pic8259.ts";
import { Pit8254 } from "./dev/pit8254.ts";
import { PM1_EVENT_PORT, PowerManagement } from "./dev/pm_timer.ts";
import { Rtc, RTC_DEFAULT_START } from "./dev/rtc.ts";
import { Uart16550 } from "./dev/uart16550.ts";
import { type BlockStore, VIRTIO_BASE, VIRTIO_BYTES, VirtioBlk } from "./dev/virtio_blk.ts";
import { PAGE_ROM } from "./state.ts";

/** What the devices tell the machine. */
export interface BoardEvents {
  /** A byte leaves the serial port. */
  readonly serial: (byte: number) => void;
  /** A byte was written to port E9H. */
  readonly debugConsole: (byte: number) => void;
  /** The debug exit port was written; the status is (value << 1) | 1. */
  readonly exit: (status: number) => void;
  /** The guest asked for a reset. */
  readonly reset: () => void;
  /** The guest switched the machine off. */
  readonly powerOff: () => void;
}

/** What the board is built from. */
export interface BoardParts {
  /** Physical memory and ports. */
  readonly bus: Bus;
  /** The machine's clock. */
  readonly clock: Clock;
  /** Number of processors. */
  readonly cpus: number;
  /** Where the devices tell. */
  readonly events: BoardEvents;
  /** What the disk is kept in; without it there is no disk. */
  readonly disk?: BlockStore | undefined;
  /** Date at power-up, in seconds since 1970. */
  readonly rtcStart?: number | undefined;
}

/** First byte of the area that is read-only once the machine has started. */
const ROM_START = 0xe_0000, ROM_BYTES = 0x2_0000;
/** Where the same bytes appear again, so that the reset vector is in ROM. */
const ROM_ALIAS = 0xfffe_0000;
/** Segment of the extended BIOS data area. */
const EBDA_SEGMENT = 0x9fc0;
/** Address of an IRET that all real-mode vectors point at, at the address where an IBM PC has one. */
const IRET_ADDRESS = 0xf_ff53;

/** The devices of one machine. */
export class Board {
  /** The interrupt message bus. */
  readonly apicBus = new ApicBus();
  /** The I/O APIC. */
  readonly ioapic: IoApic;
  /** The 8259 pair. */
  readonly pic: Pic8259;
  /** The interrupt lines. */
  readonly irq: IrqLines;
  /** The interval timer and port 61H. */
  readonly pit: Pit8254;
  /** The real-time clock. */
  readonly rtc: Rtc;
  /** COM1. */
  readonly serial: Uart16550;
  /** The keyboard controller and port 92H. */
  readonly keyboard: I8042;
  /** ACPI fixed hardware. */
  readonly power: PowerManagement;
  /** PCI configuration ports. */
  readonly pci: PciPorts;
  /** QEMU's configuration ports. */
  readonly fwCfg: FwCfg;
  /** Ports 80H and E9H. */
  readonly debugConsole: DebugConsole;
  /** The disk. */
  readonly disk: VirtioBlk | undefined;
  readonly #bus: Bus;
  readonly #cpus: number;

  /** Makes the devices and puts them on the bus. */
  constructor(parts: BoardParts) {
    const { bus, clock, events } = parts;
    this.#bus = bus;
    this.#cpus = parts.cpus;
    this.ioapic = new IoApic(this.apicBus);
    this.pic = new Pic8259((level) => this.apicBus.setPicOutput(level));
    this.apicBus.pic = this.pic;
    this.irq = new IrqLines(this.pic, this.ioapic);
    const line = (n: number) => (level: boolean) => this.irq.set(n, level);
    this.pit = new Pit8254(clock, line(IRQ.pit));
    this.rtc = new Rtc(clock, parts.rtcStart ?? RTC_DEFAULT_START, bus.memory.ramBytes, line(IRQ.rtc));
    this.serial = new Uart16550(events.serial, line(IRQ.serial1));
    this.keyboard = new I8042(line(IRQ.keyboard), events.reset);
    this.power = new PowerManagement(clock, line(IRQ.sci), events.powerOff);
    this.pci = new PciPorts(events.reset);
    this.fwCfg = new FwCfg(bus.memory.ramBytes, parts.cpus);
    this.debugConsole = new DebugConsole(events.debugConsole);
    if (parts.disk) this.disk = new VirtioBlk(bus, clock, parts.disk, line(IRQ.disk));

    bus.addMmio(IOAPIC_BASE, 0x1000, this.ioapic);
    bus.addMmio(ROM_ALIAS, ROM_BYTES, romAlias(bus));
    if (this.disk) bus.addMmio(VIRTIO_BASE, VIRTIO_BYTES, this.disk);
    for (const first of [0x20, 0xa0, 0x4d0]) bus.addPorts(first, 2, this.pic);
    bus.addPorts(0x40, 4, this.pit);
    bus.addPorts(0x61, 1, this.pit);
    bus.addPorts(0x60, 1, this.keyboard);
    bus.addPorts(0x64, 1, this.keyboard);
    bus.addPorts(0x92, 1, this.keyboard);
    bus.addPorts(0x70, 2, this.rtc);
    bus.addPorts(0x80, 1, this.debugConsole);
    bus.addPorts(0xe9, 1, this.debugConsole);
    bus.addPorts(DEBUG_EXIT_PORT, 4, new DebugExit(events.exit));
    bus.addPorts(0x3f8, 8, this.serial);
    bus.addPorts(PM1_EVENT_PORT, 12, this.power);
    bus.addPorts(0xcf8, 8, this.pci);
    bus.addPorts(FW_CFG_PORT, 2, this.fwCfg);
  }

  /** Does what PC firmware leaves behind: ACPI tables, vectors and data area in low memory, interrupt controllers and timer set up. */
  startFirmware(): void {
    const bus = this.#bus;
    const put = (address: number, ...bytes: number[]) => bus.writeRam(address, Uint8Array.from(bytes));
    for (const { address, bytes } of acpiTables({ cpus: this.#cpus, disk: this.disk !== undefined })) {
      bus.writeRam(address, bytes);
    }
    const vectors = new Uint8Array(1024);
    const offset = IRET_ADDRESS - 0xf_0000;
    for (let i = 0; i < 1024; i += 4) vectors.set([offset & 0xff, offset >>> 8, 0x00, 0xf0], i);
    bus.writeRam(0, vectors);
    put(IRET_ADDRESS, 0xcf);
    // The reset vector: a processor that comes here resets the machine. mov dx, CF9H; mov al, 6; out dx, al; hlt; jmp −3
    put(0xf_fff0, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xf4, 0xeb, 0xfd);
    put(0x400, 0xf8, 0x03); // COM1
    put(0x40e, EBDA_SEGMENT & 0xff, EBDA_SEGMENT >>> 8);
    put(0x410, 0x02, 0x02); // equipment: coprocessor, one serial port
    put(0x413, 639 & 0xff, 639 >>> 8); // KiB of base memory
    put(EBDA_SEGMENT << 4, 1); // KiB of EBDA
    this.pic.initAsFirmware(1 << IRQ.sci | 1 << IRQ.disk);
    this.pit.initAsFirmware();
  }

  /** Makes E0000H … FFFFFH read-only, as it is when an operating system starts. */
  lockRom(): void {
    this.#bus.setPageFlags(ROM_START, ROM_BYTES, PAGE_ROM);
  }

  /** The state as plain data, for a snapshot. */
  save(): BoardState {
    return {
      apicBus: this.apicBus.save(),
      ioapic: this.ioapic.save(),
      pic: this.pic.save(),
      pit: this.pit.save(),
      rtc: this.rtc.save(),
      serial: this.serial.save(),
      keyboard: this.keyboard.save(),
      power: this.power.save(),
      pci: this.pci.save(),
      fwCfg: this.fwCfg.save(),
      disk: this.disk?.save(),
    };
  }

  /** Puts a saved state back. */
  load(state: BoardState): void {
    this.apicBus.load(state.apicBus);
    this.ioapic.load(state.ioapic);
    this.pic.load(state.pic);
    this.pit.load(state.pit);
    this.rtc.load(state.rtc);
    this.serial.load(state.serial);
    this.keyboard.load(state.keyboard);
    this.power.load(state.power);
    this.pci.load(state.pci);
    this.fwCfg.load(state.fwCfg);
    if (state.disk) this.disk?.load(state.disk);
  }
}

/** What a snapshot keeps of the devices: plain data. */
export interface BoardState {
  /** State of `apicBus`. */
  readonly apicBus: ReturnType<ApicBus["save"]>;
  /** State of `ioapic`. */
  readonly ioapic: ReturnType<IoApic["save"]>;
  /** State of `pic`. */
  readonly pic: ReturnType<Pic8259["save"]>;
  /** State of `pit`. */
  readonly pit: ReturnType<Pit8254["save"]>;
  /** State of `rtc`. */
  readonly rtc: ReturnType<Rtc["save"]>;
  /** State of `serial`. */
  readonly serial: ReturnType<Uart16550["save"]>;
  /** State of `keyboard`. */
  readonly keyboard: ReturnType<I8042["save"]>;
  /** State of `power`. */
  readonly power: ReturnType<PowerManagement["save"]>;
  /** State of `pci`. */
  readonly pci: ReturnType<PciPorts["save"]>;
  /** State of `fwCfg`. */
  readonly fwCfg: ReturnType<FwCfg["save"]>;
  /** State of `disk`. */
  readonly disk: ReturnType<VirtioBlk["save"]> | undefined;
}

/** The ROM seen once more just below 4 GiB. */
function romAlias(bus: Bus): MmioDevice {
  return {
    readMmio: (offset: number, size: AccessSize) => bus.read(ROM_START + offset, size),
    writeMmio: () => {},
  };
}
