/**
 * ELF64 images (`imgact_elf.c`): decides from the bytes alone what must be mapped where, or why the file cannot run.
 *
 * Room: `kernel/kern/`; imports the address layout. Pure: changes nothing.
 *
 * @module
 */
import { PAGE_SIZE } from "../../hw/address.ts";
import { VM_MAX_USER_ADDRESS } from "../platform/pc64/vmparam.ts";

/** One loadable segment. */
export interface ElfSegment {
  readonly va: bigint;
  /** Where its bytes stand in the file. */
  readonly fileOffset: number;
  readonly fileBytes: number;
  /** Bytes in memory; what the file does not give is zero. */
  readonly memoryBytes: number;
  readonly write: boolean;
  readonly execute: boolean;
}

/** What exec needs to know of an image. */
export interface ElfImage {
  readonly entry: bigint;
  readonly segments: readonly ElfSegment[];
}

/** Largest program that the kernel takes, all segments together. */
export const PROGRAM_BYTES_MAX = 64 << 20;
const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const PROGRAM_HEADERS_MAX = 64;
const PT_LOAD = 1;
const PT_INTERP = 3;
const PF_X = 1;
const PF_W = 2;

/** Reads an ELF64 file; a text says what is wrong with it. */
export function parseElf64(file: Uint8Array): ElfImage | string {
  if (file.length < HEADER_BYTES) return `the file has ${file.length} bytes, an ELF header ${HEADER_BYTES}`;
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (view.getUint32(0, true) !== 0x464c_457f) return "it does not begin with 7F 45 4C 46 (ELF)";
  if (file[4] !== 2 || file[5] !== 1) return "it is not a 64-bit little-endian ELF file";
  if (view.getUint16(18, true) !== 62) return `its machine is ${view.getUint16(18, true)}, not 62 (x86-64)`;
  if (view.getUint16(16, true) !== 2) return `its type is ${view.getUint16(16, true)}, not 2 (executable)`;
  const count = view.getUint16(56, true);
  const table = view.getBigUint64(32, true);
  if (view.getUint16(54, true) !== PROGRAM_HEADER_BYTES) return "its program headers do not have 56 bytes";
  if (count === 0 || count > PROGRAM_HEADERS_MAX) return `it has ${count} program headers`;
  if (table + BigInt(count * PROGRAM_HEADER_BYTES) > BigInt(file.length)) {
    return "its program headers lie outside the file";
  }
  const segments: ElfSegment[] = [];
  for (let i = 0; i < count; i++) {
    const at = Number(table) + i * PROGRAM_HEADER_BYTES;
    const type = view.getUint32(at, true);
    if (type === PT_INTERP) return "it wants a dynamic linker";
    if (type !== PT_LOAD) continue;
    const segment = parseSegment(view, at, file.length);
    if (typeof segment === "string") return `segment ${i} ${segment}`;
    if (segment.memoryBytes > 0) segments.push(segment);
  }
  return checkImage(view.getBigUint64(24, true), segments);
}

function parseSegment(view: DataView, at: number, fileLength: number): ElfSegment | string {
  const flags = view.getUint32(at + 4, true);
  const offset = view.getBigUint64(at + 8, true);
  const va = view.getBigUint64(at + 16, true);
  const fileBytes = view.getBigUint64(at + 32, true);
  const memoryBytes = view.getBigUint64(at + 40, true);
  if (offset + fileBytes > BigInt(fileLength)) return "reaches beyond the end of the file";
  if (fileBytes > memoryBytes) return "has more bytes in the file than in memory";
  if (memoryBytes > BigInt(PROGRAM_BYTES_MAX)) {
    return `wants ${memoryBytes} bytes, more than ${PROGRAM_BYTES_MAX}`;
  }
  if (va + memoryBytes > VM_MAX_USER_ADDRESS) return "is not in the user's part of the address space";
  if (va < BigInt(PAGE_SIZE)) return "covers address 0";
  return {
    va,
    fileOffset: Number(offset),
    fileBytes: Number(fileBytes),
    memoryBytes: Number(memoryBytes),
    write: (flags & PF_W) !== 0,
    execute: (flags & PF_X) !== 0,
  };
}

function checkImage(entry: bigint, segments: readonly ElfSegment[]): ElfImage | string {
  if (segments.length === 0) return "it has nothing to load";
  const sorted = segments.toSorted((a, b) => (a.va < b.va ? -1 : 1));
  const page = (va: bigint) => va / BigInt(PAGE_SIZE);
  for (let i = 1; i < sorted.length; i++) {
    const before = sorted[i - 1]!, next = sorted[i]!;
    if (page(before.va + BigInt(before.memoryBytes) - 1n) >= page(next.va)) {
      return "two segments share a page";
    }
  }
  const total = sorted.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0);
  if (total > PROGRAM_BYTES_MAX) return `it wants ${total} bytes, more than ${PROGRAM_BYTES_MAX}`;
  const inCode = sorted.some((s) => s.execute && entry >= s.va && entry < s.va + BigInt(s.memoryBytes));
  if (!inCode) return `its entry 0x${entry.toString(16)} is not in an executable segment`;
  return { entry, segments: sorted };
}
