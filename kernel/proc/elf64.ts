/**
 * ELF64 headers as exec reads them (`sys/kern/imgact_elf.c`): decides from the bytes of the first page alone, changes nothing.
 *
 * Room: leaf of `kernel/proc/`; imports nothing. Everything in the file may be a lie: each number is checked before it is used.
 *
 * @module
 */

/** Segment types. */
export const PT_LOAD = 1;
/** Path of a dynamic linker. */
export const PT_INTERP = 3;
/** Notes. */
export const PT_NOTE = 4;
/** The program headers themselves. */
export const PT_PHDR = 6;
/** Segment flags. */
export const PF_X = 1;
/** Writable. */
export const PF_W = 2;
/** Readable. */
export const PF_R = 4;
/** e_type: at fixed addresses. */
export const ET_EXEC = 2;
/** e_type: position independent. */
export const ET_DYN = 3;
/** EI_OSABI of Linux programs that say so. */
export const ELFOSABI_LINUX = 3;

const EM_X86_64 = 62;
const PHDR_BYTES = 56;
const PAGE = 4096n;

/** A segment that is loaded. Addresses are unslid. */
export interface LoadSegment {
  readonly va: bigint;
  readonly offset: number;
  readonly fileBytes: number;
  readonly memoryBytes: bigint;
  readonly flags: number;
}

/** What exec needs to know of a file. */
export interface Elf64Image {
  readonly type: number;
  readonly osabi: number;
  readonly entry: bigint;
  readonly segments: readonly LoadSegment[];
  /** Lowest and highest address, page rounded. */
  readonly low: bigint;
  readonly high: bigint;
  /** Address of the program headers in memory, if a segment contains them. */
  readonly phdr: bigint;
  readonly phnum: number;
  /** Path of the dynamic linker that it wants. */
  readonly interp: string | undefined;
  /** Names and types of its notes, with the first word of the description: `GNU 1 0`. */
  readonly notes: readonly { readonly name: string; readonly type: number; readonly word: number }[];
}

/** Whether the bytes begin like an ELF file. */
export function isElf(header: Uint8Array): boolean {
  return header.length >= 4 && header[0] === 0x7f && header[1] === 0x45 && header[2] === 0x4c &&
    header[3] === 0x46;
}

/**
 * Reads the headers. Undefined: not a file that can be executed here (ENOEXEC).
 *
 * @param header The first page of the file, which must contain the program headers.
 * @param fileSize Bytes of the file: no segment may go past its end.
 * @param limit First address that a program may not have.
 */
export function parseElf64(header: Uint8Array, fileSize: number, limit: bigint): Elf64Image | undefined {
  if (!isElf(header) || header.length < 64) return undefined;
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  if (header[4] !== 2 || header[5] !== 1 || header[6] !== 1) return undefined;
  const type = view.getUint16(16, true);
  if ((type !== ET_EXEC && type !== ET_DYN) || view.getUint16(18, true) !== EM_X86_64) return undefined;
  const phoff = Number(view.getBigUint64(32, true)), phnum = view.getUint16(56, true);
  if (view.getUint16(54, true) !== PHDR_BYTES || phnum === 0) return undefined;
  if (phoff + phnum * PHDR_BYTES > header.length) return undefined;
  const segments: LoadSegment[] = [];
  let phdr = 0n, interp: string | undefined;
  let notes: Elf64Image["notes"] = [];
  for (let i = 0; i < phnum; i++) {
    const at = phoff + i * PHDR_BYTES;
    const kind = view.getUint32(at, true), flags = view.getUint32(at + 4, true);
    const offset = Number(view.getBigUint64(at + 8, true)), va = view.getBigUint64(at + 16, true);
    const fileBytes = Number(view.getBigUint64(at + 32, true)),
      memoryBytes = view.getBigUint64(at + 40, true);
    if (kind === PT_INTERP) {
      const bytes = header.subarray(offset, offset + fileBytes);
      if (bytes.length !== fileBytes || fileBytes < 2 || fileBytes > 1024) return undefined;
      interp = new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
    } else if (kind === PT_NOTE) {
      notes = [...notes, ...parseNotes(header.subarray(offset, offset + fileBytes))];
    }
    if (kind !== PT_LOAD || memoryBytes === 0n) continue;
    if (BigInt(fileBytes) > memoryBytes || offset + fileBytes > fileSize) return undefined;
    if (va + memoryBytes > limit || va + memoryBytes < va) return undefined;
    // Page number in the file and in memory must agree, or no page of it can be mapped.
    if ((BigInt(offset) & (PAGE - 1n)) !== (va & (PAGE - 1n))) return undefined;
    segments.push({ va, offset, fileBytes, memoryBytes, flags });
    if (offset <= phoff && phoff + phnum * PHDR_BYTES <= offset + fileBytes) {
      phdr = va + BigInt(phoff - offset);
    }
  }
  if (!sane(segments, type)) return undefined;
  const low = segments[0]!.va & -PAGE;
  const high = segments.reduce((most, s) => s.va + s.memoryBytes > most ? s.va + s.memoryBytes : most, 0n);
  const entry = view.getBigUint64(24, true);
  if (entry < low || entry >= high) return undefined;
  return {
    type,
    osabi: header[7]!,
    entry,
    segments,
    low,
    high: (high + PAGE - 1n) & -PAGE,
    phdr,
    phnum,
    interp,
    notes,
  };
}

/** Ascending, no two in one page, nothing at address 0 of a program at fixed addresses. */
function sane(segments: readonly LoadSegment[], type: number): boolean {
  if (segments.length === 0) return false;
  if (type === ET_EXEC && segments[0]!.va < PAGE) return false;
  for (let i = 1; i < segments.length; i++) {
    const before = segments[i - 1]!, next = segments[i]!;
    if ((before.va + before.memoryBytes - 1n) / PAGE >= next.va / PAGE) return false;
  }
  return true;
}

function parseNotes(bytes: Uint8Array): { name: string; type: number; word: number }[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const notes: { name: string; type: number; word: number }[] = [];
  for (let at = 0; at + 12 <= bytes.length && notes.length < 16;) {
    const nameBytes = view.getUint32(at, true), descBytes = view.getUint32(at + 4, true);
    const type = view.getUint32(at + 8, true);
    const desc = at + 12 + (nameBytes + 3 & ~3);
    if (nameBytes > 64 || descBytes > 4096 || desc + descBytes > bytes.length) break;
    const name = String.fromCharCode(...bytes.subarray(at + 12, at + 12 + Math.max(0, nameBytes - 1)));
    notes.push({ name, type, word: descBytes >= 4 ? view.getUint32(desc, true) : 0 });
    at = desc + (descBytes + 3 & ~3);
  }
  return notes;
}
