/**
 * ELF64 images (`imgact_elf.c`): decides from the bytes alone what must be mapped where, or why the file cannot run.
 *
 * Room: `kernel/kern/`; imports hw's ELF parser and the address layout. Pure: changes nothing.
 *
 * @module
 */
import { PAGE_SIZE } from "../../hw/address.ts";
import { BootError } from "../../hw/boot/boot_error.ts";
import {
  type ElfFile,
  type ElfSegment as ProgramHeader,
  EM,
  ET,
  parseElf,
  PF,
  PT,
} from "../../hw/boot/elf.ts";
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

/** Reads an ELF64 file; a text says what is wrong with it. */
export function parseElf64(file: Uint8Array): ElfImage | string {
  let elf: ElfFile;
  try {
    elf = parseElf(file);
  } catch (error) {
    if (error instanceof BootError) return `${error.what}; needed: ${error.needed}`;
    throw error;
  }
  if (elf.class !== 64 || elf.machine !== EM.X86_64) return "it is not an ELF64 file for x86-64";
  if (elf.type !== ET.EXEC) return `its type is ${elf.type}, not ${ET.EXEC} (executable at fixed addresses)`;
  const segments: ElfSegment[] = [];
  for (const segment of elf.segments) {
    if (segment.type === PT.INTERP) return "it wants a dynamic linker";
    if (segment.type !== PT.LOAD || segment.memoryBytes === 0) continue;
    const reason = checkSegment(segment);
    if (reason !== undefined) return reason;
    segments.push({
      va: segment.virtualAddress,
      fileOffset: segment.offset,
      fileBytes: segment.fileBytes,
      memoryBytes: segment.memoryBytes,
      write: (segment.flags & PF.W) !== 0,
      execute: (segment.flags & PF.X) !== 0,
    });
  }
  return checkImage(elf.entry, segments);
}

function checkSegment({ virtualAddress: va, memoryBytes }: ProgramHeader): string | undefined {
  const where = `the segment at 0x${va.toString(16)}`;
  if (memoryBytes > PROGRAM_BYTES_MAX) {
    return `${where} wants ${memoryBytes} bytes, more than ${PROGRAM_BYTES_MAX}`;
  }
  if (va + BigInt(memoryBytes) > VM_MAX_USER_ADDRESS) {
    return `${where} is not in the user's part of the address space`;
  }
  if (va < BigInt(PAGE_SIZE)) return `${where} covers address 0`;
  return undefined;
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
