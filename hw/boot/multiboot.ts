/**
 * Multiboot 1: an image with a header in its first 8 KiB, an ELF file (32- or 64-bit) or a flat one with addresses in
 * the header, entered in 32-bit protected mode.
 *
 * Room: `hw/boot/`. Multiboot Specification 0.6.96.
 *
 * @module
 */
import { R } from "../state.ts";
import { BootError } from "./boot_error.ts";
import { type ElfFile, isElf, parseElf, PT, segmentBytes } from "./elf.ts";
import { enterProtectedMode, loadBootGdt } from "./entry_state.ts";
import {
  type BootTarget,
  Bytes,
  commandLine,
  LOW_MEMORY_KIB,
  memoryMap,
  place,
  roundUp,
} from "./memory_map.ts";

const HEADER_MAGIC = 0x1bad_b002;
/** What EAX holds at the entry. */
export const MULTIBOOT_LOADED = 0x2bad_b002;
/** Bytes of the file in which the header must stand. */
const SEARCH_BYTES = 8192;
const FLAG_ADDRESSES = 0x1_0000;
/** Requirements (bits 0 … 15) that are met: page-aligned modules, memory information, a video mode (text is what there is). */
const REQUIREMENTS_MET = 0x7;

const INFO_MEMORY = 1, INFO_COMMAND_LINE = 4, INFO_MODULES = 8, INFO_MAP = 0x40, INFO_LOADER_NAME = 0x200;
/** Where the information stands unless the image is there. */
const INFO_ADDRESS = 0x9000;
/** GDT behind it; a multiboot image must load its own before it loads a segment register. */
const GDT_BYTES = 32;
const COMMAND_LINE_MAX = 4096;

/** The multiboot header. */
export interface MultibootHeader {
  /** Offset in the file. */
  readonly offset: number;
  /** Flags. */
  readonly flags: number;
  /** With flag 16: where the header, the image, its end, the end of bss and the entry are. */
  readonly addresses?: {
    readonly header: number;
    readonly load: number;
    readonly loadEnd: number;
    readonly bssEnd: number;
    readonly entry: number;
  };
}

/** A module: a file that is loaded beside the image. */
export interface BootModule {
  /** Its contents. */
  readonly bytes: Uint8Array;
  /** Its command line, by custom its name and arguments. */
  readonly commandLine?: string;
}

/** What is handed to the image. */
export interface MultibootOptions {
  /** Command line. */
  readonly commandLine?: string;
  /** Files to load beside the image. */
  readonly modules?: readonly BootModule[];
}

/** Looks for a multiboot header: magic, flags and checksum, 4-byte aligned. */
export function findMultibootHeader(image: Uint8Array): MultibootHeader | undefined {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const end = Math.min(image.length, SEARCH_BYTES);
  for (let at = 0; at + 12 <= end; at += 4) {
    if (view.getUint32(at, true) !== HEADER_MAGIC) continue;
    const flags = view.getUint32(at + 4, true);
    if (((HEADER_MAGIC + flags + view.getUint32(at + 8, true)) >>> 0) !== 0) continue;
    if (!(flags & FLAG_ADDRESSES)) return { offset: at, flags };
    if (at + 32 > end) return undefined;
    const word = (i: number) => view.getUint32(at + i, true);
    return {
      offset: at,
      flags,
      addresses: { header: word(12), load: word(16), loadEnd: word(20), bssEnd: word(24), entry: word(28) },
    };
  }
  return undefined;
}

/** A piece of the image in memory. */
interface Piece {
  readonly address: number;
  readonly bytes: Uint8Array;
  readonly memoryBytes: number;
}

/**
 * Loads a multiboot image and puts the bootstrap processor at its entry.
 *
 * @throws {BootError} when it is not one, or does not fit.
 */
export function loadMultiboot(target: BootTarget, image: Uint8Array, options: MultibootOptions = {}): void {
  const header = findMultibootHeader(image);
  if (header === undefined) {
    throw new BootError("no multiboot header in the first 8192 bytes", "1BADB002H with a right checksum");
  }
  const unmet = header.flags & 0xffff & ~REQUIREMENTS_MET;
  if (unmet !== 0) {
    throw new BootError(
      `the multiboot header requires flags 0x${unmet.toString(16)}`,
      "only flags 0, 1 and 2",
    );
  }
  const { pieces, entry } = header.addresses !== undefined || !isElf(image)
    ? flatPieces(header, image)
    : elfPieces(parseElf(image));
  const { bus } = target;
  for (const p of pieces) place(bus, "the image", p.address, p.bytes, p.memoryBytes);

  // Modules follow the image, each on a page of its own.
  let next = pieces.reduce((end, p) => Math.max(end, p.address + p.memoryBytes), 0x10_0000);
  const modules = (options.modules ?? []).map((m) => {
    const address = roundUp(next, 4096);
    place(bus, "a module", address, m.bytes);
    next = address + m.bytes.length;
    return { address, end: next, commandLine: m.commandLine ?? "" };
  });
  const infoBytes = makeInfo(bus.memory.ramBytes, 0, modules, options.commandLine ?? "").length;
  const total = infoBytes + GDT_BYTES;
  const overlaps = pieces.some((p) =>
    p.address < INFO_ADDRESS + total && p.address + p.memoryBytes > INFO_ADDRESS
  );
  const address = overlaps ? roundUp(next, 4096) : INFO_ADDRESS;
  place(
    bus,
    "the multiboot information",
    address,
    makeInfo(bus.memory.ramBytes, address, modules, options.commandLine ?? ""),
    total,
  );

  const cpu = target.cpus[0]!;
  enterProtectedMode(cpu, entry);
  loadBootGdt(cpu, bus, address + infoBytes, false);
  cpu.setGpr(R.RAX, BigInt(MULTIBOOT_LOADED));
  cpu.setGpr(R.RBX, BigInt(address));
}

function flatPieces(header: MultibootHeader, image: Uint8Array): { pieces: Piece[]; entry: number } {
  const a = header.addresses;
  if (a === undefined) {
    throw new BootError("the image is not an ELF file and its header gives no addresses", "either");
  }
  if (a.load > a.header) {
    throw new BootError(
      `the load address 0x${a.load.toString(16)} is above the header's 0x${a.header.toString(16)}`,
      "at most that",
    );
  }
  const from = header.offset - (a.header - a.load);
  if (from < 0) {
    throw new BootError(`the image would begin ${-from} bytes before its file`, "a load address in the file");
  }
  const loadBytes = a.loadEnd === 0 ? image.length - from : a.loadEnd - a.load;
  if (loadBytes < 0 || from + loadBytes > image.length) {
    throw new BootError(
      `the image has ${loadBytes} bytes from offset ${from}`,
      `at most ${image.length - from} (end of file)`,
    );
  }
  const memoryBytes = Math.max(loadBytes, a.bssEnd === 0 ? 0 : a.bssEnd - a.load);
  const piece = { address: a.load, bytes: image.subarray(from, from + loadBytes), memoryBytes };
  return { pieces: [piece], entry: a.entry };
}

function elfPieces(file: ElfFile): { pieces: Piece[]; entry: number } {
  const pieces: Piece[] = [];
  let entry = file.entry;
  for (const s of file.segments) {
    if (s.type !== PT.LOAD) continue;
    if (s.physicalAddress + BigInt(s.memoryBytes) > 0x1_0000_0000n) {
      throw new BootError(
        `a segment is at physical address 0x${s.physicalAddress.toString(16)}`,
        "below 4 GiB",
      );
    }
    pieces.push({
      address: Number(s.physicalAddress),
      bytes: segmentBytes(file, s),
      memoryBytes: s.memoryBytes,
    });
    // The entry is a virtual address; paging is off.
    const into = file.entry - s.virtualAddress;
    if (into >= 0n && into < BigInt(s.memoryBytes)) entry = s.physicalAddress + into;
  }
  if (entry > 0xffff_ffffn) {
    throw new BootError(`the entry is 0x${entry.toString(16)}`, "an address below 4 GiB");
  }
  return { pieces, entry: Number(entry) };
}

interface PlacedModule {
  readonly address: number;
  readonly end: number;
  readonly commandLine: string;
}

/** The information structure and everything that it points to, for the given address. */
function makeInfo(
  ramBytes: number,
  address: number,
  modules: readonly PlacedModule[],
  command: string,
): Uint8Array {
  const map = memoryMap(ramBytes);
  const line = commandLine(command, COMMAND_LINE_MAX);
  const loader = commandLine("Exuvia", 16);
  const names = modules.map((m) => commandLine(m.commandLine, COMMAND_LINE_MAX));
  const moduleList = 120, mapList = moduleList + 16 * modules.length, strings = mapList + 24 * map.length;
  const textBytes = line.length + loader.length + names.reduce((sum, n) => sum + n.length, 0);
  const info = new Bytes(roundUp(strings + textBytes, 16));
  let next = strings;
  const text = (bytes: Uint8Array) => {
    const at = next;
    info.data.set(bytes, at);
    next += bytes.length;
    return address + at;
  };
  info.u32(0, INFO_MEMORY | INFO_COMMAND_LINE | INFO_MODULES | INFO_MAP | INFO_LOADER_NAME);
  info.u32(4, LOW_MEMORY_KIB);
  info.u32(8, Math.max(0, ramBytes - 0x10_0000) / 1024);
  info.u32(16, text(line));
  info.u32(20, modules.length);
  info.u32(24, address + moduleList);
  modules.forEach((m, i) => {
    const at = moduleList + 16 * i;
    info.u32(at, m.address);
    info.u32(at + 4, m.end);
    info.u32(at + 8, text(names[i]!));
  });
  info.u32(44, 24 * map.length);
  info.u32(48, address + mapList);
  map.forEach((range, i) => {
    const at = mapList + 24 * i;
    info.u32(at, 20); // bytes of the entry after this field
    info.u64(at + 4, range.base);
    info.u64(at + 12, range.bytes);
    info.u32(at + 20, range.type);
  });
  info.u32(64, text(loader));
  return info.data;
}
