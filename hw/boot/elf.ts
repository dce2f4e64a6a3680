/**
 * ELF files, 32- and 64-bit, little-endian: parsed and checked, nothing loaded.
 *
 * Room: `hw/boot/`; imports boot_error.ts only, so that a kernel may use the same parser. System V ABI, "Object Files".
 *
 * @module
 */
import { BootError } from "./boot_error.ts";

/** Segment types that matter here. */
export const PT = { NULL: 0, LOAD: 1, DYNAMIC: 2, INTERP: 3, NOTE: 4, PHDR: 6, TLS: 7 } as const;
/** Segment flags. */
export const PF = { X: 1, W: 2, R: 4 } as const;
/** Machine numbers. */
export const EM = { I386: 3, X86_64: 62 } as const;
/** File types. */
export const ET = { REL: 1, EXEC: 2, DYN: 3, CORE: 4 } as const;

/** One program header. Addresses are bigints; sizes and offsets lie in the file or were checked against 2^53. */
export interface ElfSegment {
  /** Type. */
  readonly type: number;
  /** Flags. */
  readonly flags: number;
  /** Offset in the file. */
  readonly offset: number;
  /** Linear address. */
  readonly virtualAddress: bigint;
  /** Physical address. */
  readonly physicalAddress: bigint;
  /** Bytes in the file. */
  readonly fileBytes: number;
  /** Bytes in memory; those past the file's are zero. */
  readonly memoryBytes: number;
  /** Alignment, a power of two, or 0. */
  readonly align: bigint;
}

/** One section header, its name resolved. */
export interface ElfSection {
  /** Name. */
  readonly name: string;
  /** Type. */
  readonly type: number;
  /** Address in memory. */
  readonly address: bigint;
  /** Offset in the file. */
  readonly offset: number;
  /** Size in bytes. */
  readonly bytes: number;
  /** Index of a section that belongs to it. */
  readonly link: number;
  /** Bytes of an entry, for tables. */
  readonly entryBytes: number;
}

/** A symbol of the symbol table. */
export interface ElfSymbol {
  /** Name. */
  readonly name: string;
  /** Its value, most often an address. */
  readonly value: bigint;
  /** Size. */
  readonly bytes: bigint;
  /** 1 object, 2 function, … */
  readonly type: number;
}

/** A parsed file. */
export interface ElfFile {
  /** 32- or 64-bit. */
  readonly class: 32 | 64;
  /** Type. */
  readonly type: number;
  /** One of {@link EM}. */
  readonly machine: number;
  /** Entry point, a linear address. */
  readonly entry: bigint;
  /** Program headers. */
  readonly segments: readonly ElfSegment[];
  /** Section headers; none if they are missing or broken. */
  readonly sections: readonly ElfSection[];
  /** The whole file. */
  readonly bytes: Uint8Array;
}

/** True if the bytes begin like an ELF file. */
export function isElf(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && bytes[0] === 0x7f && bytes[1] === 0x45 && bytes[2] === 0x4c &&
    bytes[3] === 0x46;
}

/** Reads fields of either class. */
class Reader {
  readonly view: DataView;
  readonly is64: boolean;
  constructor(bytes: Uint8Array, is64: boolean) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.is64 = is64;
  }
  half(at: number): number {
    return this.view.getUint16(at, true);
  }
  word(at: number): number {
    return this.view.getUint32(at, true);
  }
  /** An address or size: 4 or 8 bytes. */
  address(at: number): bigint {
    return this.is64 ? this.view.getBigUint64(at, true) : BigInt(this.view.getUint32(at, true));
  }
}

/**
 * Parses an executable ELF file of x86 (32-bit) or x86-64.
 *
 * @throws {BootError} when it is not one, or a header points outside the file.
 */
export function parseElf(bytes: Uint8Array): ElfFile {
  if (!isElf(bytes)) throw new BootError("it does not begin with 7F 45 4C 46", "an ELF file");
  if (bytes.length < 52) {
    throw new BootError(`the ELF header is cut off at ${bytes.length} bytes`, "52 or 64");
  }
  const elfClass = bytes[4];
  if (elfClass !== 1 && elfClass !== 2) {
    throw new BootError(`the ELF class is ${elfClass}`, "1 (32-bit) or 2 (64-bit)");
  }
  if (bytes[5] !== 1) throw new BootError(`the ELF data encoding is ${bytes[5]}`, "1 (little-endian)");
  if (bytes[6] !== 1) throw new BootError(`the ELF version is ${bytes[6]}`, "1");
  const is64 = elfClass === 2;
  if (is64 && bytes.length < 64) {
    throw new BootError(`the ELF header is cut off at ${bytes.length} bytes`, "64");
  }
  const r = new Reader(bytes, is64);
  const type = r.half(16), machine = r.half(18);
  if (type !== ET.EXEC && type !== ET.DYN) {
    throw new BootError(`the ELF type is ${type}`, "2 (executable) or 3 (position-independent)");
  }
  if (machine !== EM.X86_64 && machine !== EM.I386) {
    throw new BootError(`the ELF machine is ${machine}`, "62 (x86-64) or 3 (x86)");
  }
  const segments = parseSegments(r, bytes.length);
  if (!segments.some((s) => s.type === PT.LOAD)) {
    throw new BootError("it has no PT_LOAD segment", "at least one");
  }
  return {
    class: is64 ? 64 : 32,
    type,
    machine,
    entry: r.address(24),
    segments,
    sections: parseSections(r, bytes),
    bytes,
  };
}

/** The part of the file that a segment takes its bytes from. */
export function segmentBytes(file: ElfFile, segment: ElfSegment): Uint8Array {
  return file.bytes.subarray(segment.offset, segment.offset + segment.fileBytes);
}

/** The symbols of `.symtab`; none if the file is stripped. */
export function elfSymbols(file: ElfFile): ElfSymbol[] {
  const table = file.sections.find((s) => s.type === 2);
  const strings = table === undefined ? undefined : file.sections[table.link];
  if (table === undefined || strings === undefined) return [];
  const r = new Reader(file.bytes, file.class === 64);
  const size = file.class === 64 ? 24 : 16;
  const symbols: ElfSymbol[] = [];
  for (let at = table.offset; at + size <= table.offset + table.bytes; at += size) {
    symbols.push({
      name: stringAt(file.bytes, strings.offset, strings.bytes, r.word(at)),
      value: r.address(file.class === 64 ? at + 8 : at + 4),
      bytes: file.class === 64 ? r.address(at + 16) : BigInt(r.word(at + 8)),
      type: file.bytes[at + (file.class === 64 ? 4 : 12)]! & 0xf,
    });
  }
  return symbols;
}

function parseSegments(r: Reader, fileBytes: number): ElfSegment[] {
  const start = small(r.address(r.is64 ? 32 : 28), "the program header offset");
  const size = r.half(r.is64 ? 54 : 42), count = r.half(r.is64 ? 56 : 44);
  const least = r.is64 ? 56 : 32;
  if (count === 0) throw new BootError("it has no program headers", "at least one PT_LOAD segment");
  if (size < least) throw new BootError(`a program header has ${size} bytes`, `at least ${least}`);
  if (start + size * count > fileBytes) {
    throw new BootError(
      `the program headers end at ${start + size * count}`,
      `at most ${fileBytes} (end of file)`,
    );
  }
  const segments: ElfSegment[] = [];
  for (let i = 0; i < count; i++) {
    const at = start + i * size;
    const segment: ElfSegment = r.is64
      ? {
        type: r.word(at),
        flags: r.word(at + 4),
        offset: small(r.address(at + 8), `the offset of segment ${i}`),
        virtualAddress: r.address(at + 16),
        physicalAddress: r.address(at + 24),
        fileBytes: small(r.address(at + 32), `the file size of segment ${i}`),
        memoryBytes: small(r.address(at + 40), `the memory size of segment ${i}`),
        align: r.address(at + 48),
      }
      : {
        type: r.word(at),
        flags: r.word(at + 24),
        offset: r.word(at + 4),
        virtualAddress: r.address(at + 8),
        physicalAddress: r.address(at + 12),
        fileBytes: r.word(at + 16),
        memoryBytes: r.word(at + 20),
        align: r.address(at + 28),
      };
    checkSegment(segment, i, fileBytes, r.is64);
    segments.push(segment);
  }
  return segments;
}

function checkSegment(s: ElfSegment, index: number, fileBytes: number, is64: boolean): void {
  if (s.type !== PT.LOAD) return;
  if (s.offset + s.fileBytes > fileBytes) {
    throw new BootError(
      `segment ${index} ends at ${s.offset + s.fileBytes} in the file`,
      `at most ${fileBytes} (end of file)`,
    );
  }
  if (s.fileBytes > s.memoryBytes) {
    throw new BootError(
      `segment ${index} has ${s.fileBytes} bytes in the file and ${s.memoryBytes} in memory`,
      "no more in the file than in memory",
    );
  }
  const limit = is64 ? 1n << 64n : 1n << 32n;
  if (s.virtualAddress + BigInt(s.memoryBytes) > limit || s.physicalAddress + BigInt(s.memoryBytes) > limit) {
    throw new BootError(
      `segment ${index} goes round the end of the address space`,
      "an end that is not below its start",
    );
  }
  if (s.align > 1n && (s.align & (s.align - 1n)) !== 0n) {
    throw new BootError(`segment ${index} is aligned to ${s.align}`, "a power of two");
  }
}

/** Section headers serve tools only: a file without them, or with broken ones, is loaded all the same. */
function parseSections(r: Reader, bytes: Uint8Array): ElfSection[] {
  const start = Number(r.address(r.is64 ? 40 : 32));
  const size = r.half(r.is64 ? 58 : 46), count = r.half(r.is64 ? 60 : 48);
  const names = r.half(r.is64 ? 62 : 50);
  if (start === 0 || size < (r.is64 ? 64 : 40) || start + size * count > bytes.length) return [];
  const raw = Array.from({ length: count }, (_, i) => {
    const at = start + i * size;
    return {
      nameOffset: r.word(at),
      type: r.word(at + 4),
      address: r.address(at + (r.is64 ? 16 : 12)),
      offset: Number(r.address(at + (r.is64 ? 24 : 16))),
      bytes: Number(r.address(at + (r.is64 ? 32 : 20))),
      link: r.word(at + (r.is64 ? 40 : 24)),
      entryBytes: Number(r.address(at + (r.is64 ? 56 : 36))),
    };
  });
  // Type 8 (SHT_NOBITS) takes no room in the file.
  if (raw.some((s) => s.type !== 8 && s.offset + s.bytes > bytes.length)) return [];
  const strings = raw[names];
  return raw.map(({ nameOffset, ...rest }) => ({
    ...rest,
    name: strings === undefined ? "" : stringAt(bytes, strings.offset, strings.bytes, nameOffset),
  }));
}

/** Longest name that is read; a table whose strings have no end gives pieces. */
const NAME_MAX = 4096;

function stringAt(bytes: Uint8Array, table: number, size: number, offset: number): string {
  const end = Math.min(table + size, table + offset + NAME_MAX, bytes.length);
  let value = "";
  for (let at = table + offset; at < end && bytes[at] !== 0; at++) value += String.fromCharCode(bytes[at]!);
  return value;
}

function small(value: bigint, what: string): number {
  if (value > 0x1f_ffff_ffff_ffffn) {
    throw new BootError(`${what} is 0x${value.toString(16)}`, "less than 2^53");
  }
  return Number(value);
}
