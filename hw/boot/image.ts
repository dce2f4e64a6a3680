/**
 * One door for all images: finds out what an image is and loads it.
 *
 * Room: `hw/boot/`.
 *
 * @module
 */
import { R } from "../state.ts";
import { BootError } from "./boot_error.ts";
import { type ElfFile, isElf, parseElf, PT, segmentBytes } from "./elf.ts";
import { enterLongMode, IDENTITY_TABLES_BYTES, identityTables, loadBootGdt } from "./entry_state.ts";
import { isLinuxImage, loadLinux } from "./linux.ts";
import { type BootTarget, Bytes, commandLine, place } from "./memory_map.ts";
import { type BootModule, findMultibootHeader, loadMultiboot } from "./multiboot.ts";

/** What is handed to an image. */
export interface BootOptions {
  /** Command line. */
  readonly commandLine?: string;
  /** Multiboot only. */
  readonly modules?: readonly BootModule[];
  /** Linux only. */
  readonly initrd?: Uint8Array;
}

/** Kinds of image. */
export type ImageKind = "multiboot" | "linux" | "elf64";

/** Finds out what an image is; undefined if nothing that can be started. */
export function imageKind(image: Uint8Array): ImageKind | undefined {
  if (findMultibootHeader(image) !== undefined) return "multiboot";
  if (isLinuxImage(image)) return "linux";
  if (isElf(image)) return "elf64";
  return undefined;
}

/**
 * Loads an image of any kind and puts the bootstrap processor at its entry.
 *
 * @throws {BootError} when it is none, malformed, or does not fit; or when an option does not go with its kind.
 */
export function loadImage(target: BootTarget, image: Uint8Array, options: BootOptions = {}): ImageKind {
  const kind = imageKind(image);
  const line = options.commandLine === undefined ? {} : { commandLine: options.commandLine };
  if (kind !== "linux" && kind !== undefined && options.initrd !== undefined) {
    throw new BootError(`a ${kind} image takes no initrd`, "a Linux image, or a module instead");
  }
  if (kind !== "multiboot" && kind !== undefined && options.modules?.length) {
    throw new BootError(`a ${kind} image takes no modules`, "a multiboot image, or an initrd instead");
  }
  switch (kind) {
    case "multiboot":
      loadMultiboot(target, image, { ...line, modules: options.modules ?? [] });
      return kind;
    case "linux":
      loadLinux(target, image, {
        ...line,
        ...(options.initrd === undefined ? {} : { initrd: options.initrd }),
      });
      return kind;
    case "elf64":
      loadElf64(target, image, options.commandLine ?? "");
      return kind;
    case undefined:
      throw new BootError(
        "it is neither ELF, multiboot nor a Linux image",
        "one of these (the first bytes are " +
          [...image.subarray(0, 4)].map((b) => b.toString(16).padStart(2, "0")).join(" ") + ")",
      );
  }
}

/** Low memory of the loader: command line, GDT, tables, stack. */
const COMMAND_LINE = 0x2_0000, GDT = 0x6_f000, TABLES = 0x7_0000, STACK = 0x8_0000;
/** Page tables for segments whose virtual addresses are not their physical ones grow from here. */
const EXTRA_TABLES = TABLES + IDENTITY_TABLES_BYTES, EXTRA_TABLES_END = 0x7_f000;

/**
 * Loads a plain 64-bit ELF executable: entered in long mode with the low 4 GiB mapped to themselves, and segments that are linked
 * elsewhere mapped there too. RDI holds the address of the command line, RSI the bytes of RAM.
 *
 * @throws {BootError} when it is malformed or does not fit.
 */
export function loadElf64(target: BootTarget, image: Uint8Array, command: string): void {
  const file = parseElf(image);
  if (file.class !== 64) {
    throw new BootError(
      "it is a 32-bit ELF file without a multiboot header",
      "a multiboot header, or 64 bits",
    );
  }
  const { bus } = target;
  for (const s of file.segments) {
    if (s.type !== PT.LOAD) continue;
    if (s.physicalAddress > 0xffff_ffffn) {
      throw new BootError(
        `a segment is at physical address 0x${s.physicalAddress.toString(16)}`,
        "below 4 GiB",
      );
    }
    const from = Number(s.physicalAddress);
    if (from < STACK && from + s.memoryBytes > COMMAND_LINE) {
      throw new BootError(
        `a segment is at physical addresses 0x${from.toString(16)} to 0x${
          (from + s.memoryBytes).toString(16)
        }`,
        `none from 0x${COMMAND_LINE.toString(16)} to 0x${
          STACK.toString(16)
        }, where command line, tables and stack are`,
      );
    }
    place(bus, "the image", from, segmentBytes(file, s), s.memoryBytes);
  }
  place(bus, "the command line", COMMAND_LINE, commandLine(command, 4096));
  identityTables(bus, TABLES);
  mapSegments(target, file);
  const cpu = target.cpus[0]!;
  enterLongMode(cpu, file.entry, TABLES, STACK);
  loadBootGdt(cpu, bus, GDT, true);
  cpu.setGpr(R.RDI, BigInt(COMMAND_LINE));
  cpu.setGpr(R.RSI, BigInt(bus.memory.ramBytes));
}

/** Maps, page by page, the segments that the identity mapping does not show at their virtual addresses. */
function mapSegments(target: BootTarget, file: ElfFile): void {
  const { bus } = target;
  let next = EXTRA_TABLES;
  for (const s of file.segments) {
    if (s.type !== PT.LOAD || s.virtualAddress === s.physicalAddress || s.memoryBytes === 0) continue;
    if (((s.virtualAddress ^ s.physicalAddress) & 0xfffn) !== 0n) {
      throw new BootError(
        "a segment's virtual and physical address differ within a page",
        "equal low 12 bits",
      );
    }
    const first = s.virtualAddress & ~0xfffn,
      last = (s.virtualAddress + BigInt(s.memoryBytes) - 1n) & ~0xfffn;
    for (let page = first; page <= last; page += 0x1000n) {
      let table = TABLES;
      for (const shift of [39n, 30n, 21n]) {
        const at = table + 8 * Number((page >> shift) & 0x1ffn);
        let entry = bus.read(at, 4);
        if (entry & 0x80 || (entry === 0 && next >= EXTRA_TABLES_END)) {
          throw new BootError(
            `a segment at 0x${s.virtualAddress.toString(16)} can't be mapped`,
            "segments above 4 GiB that need few page tables",
          );
        }
        if (entry === 0) {
          bus.writeRam(next, new Uint8Array(4096));
          entry = next | 3;
          bus.write(at, 4, entry);
          next += 4096;
        }
        table = entry & ~0xfff;
      }
      const physical = Number(s.physicalAddress & ~0xfffn) + Number(page - first);
      const leaf = new Bytes(8);
      leaf.u64(0, physical + 3);
      bus.writeRam(table + 8 * Number((page >> 12n) & 0x1ffn), leaf.data);
    }
  }
}
