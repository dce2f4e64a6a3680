/**
 * The ACPI tables that describe the machine: RSDP, RSDT, XSDT, FADT, FACS, MADT, DSDT.
 *
 * Room: `hw/dev/`; imports the devices' addresses. ACPI specification 6.4, "ACPI Software Programming Model".
 *
 * The tables stand in the F segment, which is read-only once the machine starts; the FACS, which software writes, is in the
 * extended BIOS data area.
 *
 * @module
 */
import { APIC_DEFAULT_BASE } from "./apic_registers.ts";
import { type Aml, device, eisaId, integer, io, irqNoFlags, levelInterrupt, memory32Fixed } from "./aml.ts";
import { name, pack, resources, scope, text } from "./aml.ts";
import { IOAPIC_BASE } from "./ioapic.ts";
import { IRQ, PIT_PIN } from "./irq.ts";
import { RESET_PORT, RESET_VALUE } from "./pci.ts";
import { PM1_CONTROL_PORT, PM1_EVENT_PORT, PM_TIMER_PORT, SLEEP_TYPE_S5 } from "./pm_timer.ts";
import { VIRTIO_BASE, VIRTIO_BYTES } from "./virtio_blk.ts";

/** Where the RSDP stands: found by scanning E0000H … FFFFFH at 16-byte steps. */
export const RSDP_ADDRESS = 0xf_0000;
const TABLES_ADDRESS = 0xf_0040;
/** The FACS, 64-byte aligned, in RAM that the memory map calls reserved. */
export const FACS_ADDRESS = 0x9_fc40;

/** What the tables say of the machine. */
export interface AcpiOptions {
  /** Number of processors. */
  readonly cpus: number;
  /** Whether there is a disk. */
  readonly disk: boolean;
}

/** A table and its address. */
export interface PlacedTable {
  /** Physical address. */
  readonly address: number;
  /** Its bytes. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Makes all tables, each at its place. */
export function acpiTables(options: AcpiOptions): PlacedTable[] {
  const placed: PlacedTable[] = [];
  let next = TABLES_ADDRESS;
  const place = (bytes: Uint8Array<ArrayBuffer>) => {
    const address = next;
    placed.push({ address, bytes });
    next = (next + bytes.length + 15) & ~15;
    return address;
  };
  const dsdt = place(table("DSDT", 2, dsdtBody(options)));
  const fadt = place(table("FACP", 6, fadtBody(dsdt)));
  const madt = place(table("APIC", 5, madtBody(options.cpus)));
  const rsdt = place(table("RSDT", 1, [...word32(fadt), ...word32(madt)]));
  const xsdt = place(table("XSDT", 1, [...word64(fadt), ...word64(madt)]));
  placed.push({ address: RSDP_ADDRESS, bytes: rsdp(rsdt, xsdt) });
  placed.push({ address: FACS_ADDRESS, bytes: facs() });
  return placed;
}

/** Makes the bytes of [from, to) add up to 0 modulo 256 by setting the byte at `at`. */
function fixChecksum(bytes: Uint8Array, from: number, to: number, at: number): void {
  bytes[at] = 0;
  let sum = 0;
  for (let i = from; i < to; i++) sum += bytes[i]!;
  bytes[at] = -sum;
}

/** A system description table: the 36-byte header and a body. */
function table(signature: string, revision: number, body: readonly number[]): Uint8Array<ArrayBuffer> {
  const bytes = Uint8Array.from([
    ...ascii(signature, 4),
    ...word32(36 + body.length),
    revision,
    0,
    ...ascii("EXUVIA", 6),
    ...ascii("EXUVIAPC", 8),
    ...word32(1),
    ...ascii("EXUV", 4),
    ...word32(1),
    ...body,
  ]);
  fixChecksum(bytes, 0, bytes.length, 9);
  return bytes;
}

function rsdp(rsdt: number, xsdt: number): Uint8Array<ArrayBuffer> {
  const bytes = Uint8Array.from([
    ...ascii("RSD PTR ", 8),
    0,
    ...ascii("EXUVIA", 6),
    2,
    ...word32(rsdt),
    ...word32(36),
    ...word64(xsdt),
    0,
    0,
    0,
    0,
  ]);
  fixChecksum(bytes, 0, 20, 8);
  fixChecksum(bytes, 0, 36, 32);
  return bytes;
}

function facs(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(64);
  bytes.set([...ascii("FACS", 4), ...word32(64)]);
  bytes[32] = 2; // version
  return bytes;
}

/** Processors, I/O APIC, the override of line 0, the level-triggered lines, NMI on LINT1. */
function madtBody(cpus: number): number[] {
  const body = [...word32(APIC_DEFAULT_BASE), ...word32(1)]; // PCAT_COMPAT: there is an 8259 pair
  for (let id = 0; id < cpus; id++) body.push(0, 8, id, id, ...word32(1));
  body.push(1, 12, 0, 0, ...word32(IOAPIC_BASE), ...word32(0));
  body.push(2, 10, 0, IRQ.pit, ...word32(PIT_PIN), 0, 0);
  // Flags: polarity active high (01), trigger level (11).
  for (const line of [IRQ.sci, IRQ.disk]) body.push(2, 10, 0, line, ...word32(line), 0x0d, 0);
  body.push(4, 6, 0xff, 0, 0, 1);
  return body;
}

/** A generic address structure in the port space. */
function portAddress(bits: number, access: number, port: number): number[] {
  return [1, bits, 0, access, ...word64(port)];
}

function fadtBody(dsdt: number): number[] {
  const none = new Array<number>(12).fill(0);
  // WBINVD, C1, no sleep button, no RTC wake status, a 32-bit timer (TMR_VAL_EXT), a reset register. The power button
  // is fixed hardware, which is a clear bit 4.
  const flags = 1 << 0 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 10;
  // Legacy devices and an 8042 are there; no VGA adapter answers, no message-signalled interrupts.
  const bootFlags = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3;
  return [
    ...word32(FACS_ADDRESS),
    ...word32(dsdt),
    0, // reserved
    1, // preferred profile: desktop
    ...word16(IRQ.sci),
    ...word32(0), // no SMI command port: always in ACPI mode
    0,
    0,
    0,
    0,
    ...word32(PM1_EVENT_PORT),
    ...word32(0),
    ...word32(PM1_CONTROL_PORT),
    ...word32(0),
    ...word32(0),
    ...word32(PM_TIMER_PORT),
    ...word32(0),
    ...word32(0),
    4, // PM1_EVT_LEN
    2, // PM1_CNT_LEN
    0,
    4, // PM_TMR_LEN
    0,
    0,
    0,
    0,
    ...word16(0xffff), // C2 and C3 are not there
    ...word16(0xffff),
    ...word16(0),
    ...word16(0),
    0,
    0,
    0, // day alarm
    0, // month alarm
    0x32, // century register of the CMOS
    ...word16(bootFlags),
    0,
    ...word32(flags),
    ...portAddress(8, 1, RESET_PORT),
    RESET_VALUE,
    ...word16(0),
    3, // minor version
    ...word64(FACS_ADDRESS),
    ...word64(dsdt),
    ...portAddress(32, 2, PM1_EVENT_PORT),
    ...none,
    ...portAddress(16, 2, PM1_CONTROL_PORT),
    ...none,
    ...none,
    ...portAddress(32, 3, PM_TIMER_PORT),
    ...none,
    ...none,
    ...none, // sleep control
    ...none, // sleep status
    ...ascii("EXUVIA", 8), // hypervisor vendor identity
  ];
}

function dsdtBody(options: AcpiOptions): number[] {
  const devices: Aml[] = [
    device("COM1", [
      name("_HID", eisaId("PNP0501")),
      name("_UID", integer(1)),
      name("_CRS", resources([io(0x3f8, 8), irqNoFlags(IRQ.serial1)])),
    ]),
    device("RTC0", [
      name("_HID", eisaId("PNP0B00")),
      name("_CRS", resources([io(0x70, 2), irqNoFlags(IRQ.rtc)])),
    ]),
    device("TIMR", [
      name("_HID", eisaId("PNP0100")),
      name("_CRS", resources([io(0x40, 4), irqNoFlags(IRQ.pit)])),
    ]),
    device("KBD0", [
      name("_HID", eisaId("PNP0303")),
      name("_CRS", resources([io(0x60, 1), io(0x64, 1), irqNoFlags(IRQ.keyboard)])),
    ]),
  ];
  if (options.disk) {
    devices.push(device("VIO0", [
      name("_HID", text("LNRO0005")),
      name("_UID", integer(0)),
      name("_CCA", integer(1)),
      name("_CRS", resources([memory32Fixed(VIRTIO_BASE, VIRTIO_BYTES), levelInterrupt(IRQ.disk)])),
    ]));
  }
  const s5 = pack([integer(SLEEP_TYPE_S5), integer(SLEEP_TYPE_S5), integer(0), integer(0)]);
  return [...scope("\\_SB", devices), ...name("\\_S5", s5)];
}

function ascii(value: string, width: number): number[] {
  return [...value.padEnd(width, " ")].slice(0, width).map((c) => c.charCodeAt(0));
}
function word16(value: number): number[] {
  return [value & 0xff, value >>> 8];
}
function word32(value: number): number[] {
  return [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24];
}
function word64(value: number): number[] {
  return [...word32(value), 0, 0, 0, 0];
}
