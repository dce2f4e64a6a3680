/**
 * The Linux boot protocol: bzImage and what looks like one (memtest86+), entered in 64-bit mode where the image can, else
 * in 32-bit mode.
 *
 * Room: `hw/boot/`. Linux, Documentation/arch/x86/boot.rst, version 2.15, "64-bit Boot Protocol", "32-bit Boot Protocol".
 *
 * @module
 */
import { RSDP_ADDRESS } from "../dev/acpi.ts";
import { R } from "../state.ts";
import { BootError } from "./boot_error.ts";
import { enterLongMode, enterProtectedMode, identityTables, loadBootGdt } from "./entry_state.ts";
import { type BootTarget, Bytes, commandLine, memoryMap, place, roundUp } from "./memory_map.ts";

/** Offsets in the setup header, which are the same in the zero page. */
const H = {
  setupSectors: 0x1f1,
  bootFlag: 0x1fe,
  jump: 0x200,
  headerEnd: 0x201,
  magic: 0x202,
  version: 0x206,
  loaderType: 0x210,
  loadFlags: 0x211,
  code32Start: 0x214,
  ramdiskImage: 0x218,
  ramdiskSize: 0x21c,
  heapEnd: 0x224,
  commandLine: 0x228,
  initrdMax: 0x22c,
  kernelAlignment: 0x230,
  relocatable: 0x234,
  xloadFlags: 0x236,
  commandLineSize: 0x238,
  prefAddress: 0x258,
  initSize: 0x260,
} as const;
/** Offsets in the zero page that are not in the header. */
const Z = {
  extMemory: 0x02,
  videoPage: 0x04,
  videoMode: 0x06,
  columns: 0x07,
  lines: 0x0e,
  isVga: 0x0f,
} as const;
const Z_POINTS = 0x10, Z_RSDP = 0x70, Z_ALT_MEMORY = 0x1e0, Z_E820_COUNT = 0x1e8, Z_E820 = 0x2d0;
const HEADER_MAGIC = 0x5372_6448; // "HdrS"
const LOADED_HIGH = 1, CAN_USE_HEAP = 0x80, XLF_KERNEL_64 = 1;
/** Loader id "unknown", as the protocol reserves it. */
const LOADER_UNKNOWN = 0xff;

/** Where the loader's own structures stand in low memory. */
const ZERO_PAGE = 0x1_0000, COMMAND_LINE = 0x2_0000, GDT = 0x6_f000, TABLES = 0x7_0000, STACK = 0x8_0000;

/** What is handed to the kernel. */
export interface LinuxOptions {
  /** Command line. */
  readonly commandLine?: string;
  /** Initial RAM disk. */
  readonly initrd?: Uint8Array;
}

/** What the setup header says. */
export interface LinuxHeader {
  /** Protocol version: 0x020c is 2.12. */
  readonly version: number;
  /** Offset of the protected-mode part in the file. */
  readonly kernelOffset: number;
  /** Whether it has the 64-bit entry at 200H. */
  readonly has64BitEntry: boolean;
  /** Where the 32-bit entry wants to be. */
  readonly code32Start: number;
  /** Whether it may be loaded elsewhere. */
  readonly relocatable: boolean;
  /** Alignment of the load address. */
  readonly alignment: number;
  /** Load address that it prefers. */
  readonly prefAddress: number;
  /** Bytes that the kernel needs from its load address. */
  readonly initSize: number;
  /** Bytes of command line without the zero. */
  readonly commandLineMax: number;
  /** Highest address that the initrd may touch. */
  readonly initrdMax: number;
}

/** True if the bytes have the header of a Linux boot image. */
export function isLinuxImage(image: Uint8Array): boolean {
  if (image.length < 0x208) return false;
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  return view.getUint16(H.bootFlag, true) === 0xaa55 && view.getUint32(H.magic, true) === HEADER_MAGIC;
}

/**
 * Reads and checks the setup header.
 *
 * @throws {BootError} when it is not one, or older than 2.06.
 */
export function parseLinuxHeader(image: Uint8Array): LinuxHeader {
  if (!isLinuxImage(image)) {
    throw new BootError("no Linux setup header", 'AA55H at 1FEH and "HdrS" at 202H');
  }
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const version = view.getUint16(H.version, true);
  if (version < 0x0206) {
    throw new BootError(`the boot protocol is ${version >>> 8}.${version & 0xff}`, "2.6 or later");
  }
  if (image.length < 0x268) {
    throw new BootError(`the setup header is cut off at ${image.length} bytes`, "616");
  }
  if (!(view.getUint8(H.loadFlags) & LOADED_HIGH)) {
    throw new BootError("the kernel is a zImage for low memory", "a bzImage (loadflags bit 0)");
  }
  const setupSectors = view.getUint8(H.setupSectors) || 4;
  const kernelOffset = (setupSectors + 1) * 512;
  if (kernelOffset >= image.length) {
    throw new BootError(
      `the kernel begins at ${kernelOffset} in a file of ${image.length} bytes`,
      "a whole image",
    );
  }
  const code32Start = view.getUint32(H.code32Start, true);
  const hasPrefAddress = version >= 0x020a;
  const prefHigh = hasPrefAddress ? view.getUint32(H.prefAddress + 4, true) : 0;
  return {
    version,
    kernelOffset,
    has64BitEntry: version >= 0x020c && (view.getUint16(H.xloadFlags, true) & XLF_KERNEL_64) !== 0,
    code32Start,
    relocatable: view.getUint8(H.relocatable) !== 0,
    alignment: Math.max(1, view.getUint32(H.kernelAlignment, true)),
    prefAddress: hasPrefAddress
      ? prefHigh * 0x1_0000_0000 + view.getUint32(H.prefAddress, true)
      : code32Start,
    initSize: hasPrefAddress ? view.getUint32(H.initSize, true) : 0,
    commandLineMax: view.getUint32(H.commandLineSize, true) || 255,
    initrdMax: view.getUint32(H.initrdMax, true),
  };
}

/**
 * Loads a Linux boot image and puts the bootstrap processor at its entry.
 *
 * @throws {BootError} when it is malformed, or it or the initrd does not fit.
 */
export function loadLinux(target: BootTarget, image: Uint8Array, options: LinuxOptions = {}): void {
  const header = parseLinuxHeader(image);
  const { bus } = target;
  const kernel = image.subarray(header.kernelOffset);
  const need = Math.max(kernel.length, header.initSize);
  const address = loadAddress(header, need, bus.memory.ramBytes);
  if (address < 0x10_0000) {
    throw new BootError(`the kernel would be at 0x${address.toString(16)}`, "an address from 1 MiB on");
  }
  place(bus, "the kernel", address, kernel);
  // What the kernel will want behind its image only has to be there.
  place(bus, "the kernel", address + kernel.length, new Uint8Array(0), need - kernel.length);

  const line = commandLine(options.commandLine ?? "", Math.min(header.commandLineMax, 0xffff));
  place(bus, "the command line", COMMAND_LINE, line);
  const zeroPage = makeZeroPage(image, bus.memory.ramBytes);
  if (options.initrd !== undefined) {
    const at = placeInitrd(target, header, address + need, options.initrd);
    zeroPage.u32(H.ramdiskImage, at);
    zeroPage.u32(H.ramdiskSize, options.initrd.length);
  }
  zeroPage.u32(H.code32Start, address);
  place(bus, "the zero page", ZERO_PAGE, zeroPage.data);

  const cpu = target.cpus[0]!;
  if (header.has64BitEntry) {
    identityTables(bus, TABLES);
    enterLongMode(cpu, BigInt(address + 0x200), TABLES, STACK);
  } else {
    enterProtectedMode(cpu, address);
    cpu.setGpr(R.RSP, BigInt(STACK));
  }
  loadBootGdt(cpu, bus, GDT, header.has64BitEntry);
  cpu.setGpr(R.RSI, BigInt(ZERO_PAGE));
}

/** Where the kernel goes: the address it prefers, or for a relocatable one the first aligned address from there down to 1 MiB that fits. */
function loadAddress(header: LinuxHeader, need: number, ramBytes: number): number {
  const wanted = header.relocatable ? header.prefAddress : header.code32Start;
  if (!header.relocatable || wanted + need <= ramBytes) return wanted;
  return roundUp(0x10_0000, header.alignment);
}

function placeInitrd(target: BootTarget, header: LinuxHeader, from: number, initrd: Uint8Array): number {
  const top = Math.min(target.bus.memory.ramBytes, header.initrdMax + 1);
  const address = Math.floor((top - initrd.length) / 4096) * 4096;
  if (address < from) {
    throw new BootError(
      `an initrd of ${initrd.length} bytes does not fit above the kernel's end at 0x${from.toString(16)}`,
      `that much room below 0x${top.toString(16)} (a machine with more memory?)`,
    );
  }
  place(target.bus, "the initrd", address, initrd);
  return address;
}

/** The zero page (struct boot_params): the image's own header, screen, memory map, ACPI. */
function makeZeroPage(image: Uint8Array, ramBytes: number): Bytes {
  const page = new Bytes(4096);
  // The header ends where the jump at 200H goes.
  const end = Math.min(0x202 + image[H.headerEnd]!, 0x290, image.length);
  page.data.set(image.subarray(H.setupSectors, Math.max(end, H.setupSectors)), H.setupSectors);
  const map = memoryMap(ramBytes);
  const above1M = Math.max(0, ramBytes - 0x10_0000) / 1024;
  page.u16(Z.extMemory, Math.min(0xffff, above1M));
  page.u32(Z_ALT_MEMORY, above1M);
  // An 80 × 25 colour text screen, whose memory is plain RAM.
  page.u16(Z.videoPage, 0);
  page.u8(Z.videoMode, 3);
  page.u8(Z.columns, 80);
  page.u8(Z.lines, 25);
  page.u8(Z.isVga, 1);
  page.u16(Z_POINTS, 16);
  page.u64(Z_RSDP, RSDP_ADDRESS);
  page.u8(Z_E820_COUNT, map.length);
  map.forEach((range, i) => {
    page.u64(Z_E820 + 20 * i, range.base);
    page.u64(Z_E820 + 20 * i + 8, range.bytes);
    page.u32(Z_E820 + 20 * i + 16, range.type);
  });
  page.u8(H.loaderType, LOADER_UNKNOWN);
  page.u8(H.loadFlags, image[H.loadFlags]! | CAN_USE_HEAP);
  page.u16(H.heapEnd, 0xfe00);
  page.u32(H.commandLine, COMMAND_LINE);
  return page;
}
