/**
 * Archives as the loader left them in RAM: cpio ("newc") and ustar, entry by entry.
 *
 * Room: `kernel/vfs/`; imports nothing of it. Reads through the direct map; says where each file's bytes stand, and copies none.
 *
 * An archive comes from outside: every number in it is checked against the archive's end.
 *
 * @module
 */
import { type Hpa, hpa } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { physToDmap } from "../platform/layout.ts";

/** One entry. */
export interface ArchiveEntry {
  /** Path as it stands there. */
  readonly path: string;
  /** Type and permission bits, `S_IFMT` included. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Seconds since 1970. */
  readonly mtime: number;
  /** Where the bytes stand. */
  readonly pa: number;
  readonly bytes: number;
  /** Target of a symbolic link, or of a hard link (then `hardlink`). */
  readonly link: string;
  readonly hardlink: boolean;
  /** Names with the same key are one file; undefined for files with one name. */
  readonly linkKey: string | undefined;
  /** Device number of a device. */
  readonly rdev: number;
}

/** What is wrong with an archive; whoever reads it says so. */
export class ArchiveError extends Error {
  override name = "ArchiveError";
}

const decoder = new TextDecoder();

function* bytesAt(cx: Cx, pa: number, length: number, end: number): Exec<Uint8Array> {
  if (length < 0 || pa + length > end) {
    throw new ArchiveError(`it ends at 0x${pa.toString(16)}, within an entry`);
  }
  return yield* cx.cpu.loadBytes(physToDmap(cx.k, hpa(pa)), length);
}

/** Text up to the first zero byte. */
function text(bytes: Uint8Array): string {
  const zero = bytes.indexOf(0);
  return decoder.decode(zero < 0 ? bytes : bytes.subarray(0, zero));
}

/** Reads an archive of either kind and hands each entry on. @throws {ArchiveError} when it is not one, or is cut off. */
export function* readArchive(
  cx: Cx,
  start: Hpa | number,
  end: number,
  each: (entry: ArchiveEntry) => Exec<void>,
): Exec<void> {
  const magic = text(yield* bytesAt(cx, start, 6, end));
  if (magic === "070701" || magic === "070702") yield* readCpio(cx, start, end, each);
  else if (text(yield* bytesAt(cx, start + 257, 5, end)) === "ustar") yield* readTar(cx, start, end, each);
  else throw new ArchiveError("it is neither cpio (newc) nor ustar");
}

const CPIO_HEADER = 110;
const round4 = (n: number) => Math.ceil(n / 4) * 4;

function* readCpio(
  cx: Cx,
  start: number,
  end: number,
  each: (entry: ArchiveEntry) => Exec<void>,
): Exec<void> {
  for (let at = start;;) {
    const header = text(yield* bytesAt(cx, at, CPIO_HEADER, end));
    if (!/^07070[12][0-9a-fA-F]{104}$/.test(header)) {
      throw new ArchiveError(`no entry begins at 0x${at.toString(16)}`);
    }
    const field = (n: number) => parseInt(header.slice(6 + n * 8, 14 + n * 8), 16);
    const nameBytes = field(11), bytes = field(6);
    const path = text(yield* bytesAt(cx, at + CPIO_HEADER, nameBytes, end));
    if (path === "TRAILER!!!") return;
    const data = start + round4(at - start + CPIO_HEADER + nameBytes);
    if (data + bytes > end) throw new ArchiveError(`"${path}" is longer than the archive`);
    const mode = field(1);
    const isLink = (mode & 0o170000) === 0o120000;
    const target = isLink ? decoder.decode(yield* bytesAt(cx, data, bytes, end)) : "";
    yield* each({
      path,
      mode,
      uid: field(2),
      gid: field(3),
      mtime: field(5),
      pa: data,
      bytes: isLink ? 0 : bytes,
      link: target,
      hardlink: false,
      linkKey: field(4) > 1 && (mode & 0o170000) === 0o100000
        ? `${field(7)}:${field(8)}:${field(0)}`
        : undefined,
      rdev: (field(9) << 8) | field(10),
    });
    at = data + round4(bytes);
    yield;
  }
}

const BLOCK = 512;
/** `S_IFMT` bits by ustar type. */
const TAR_TYPES: Readonly<Record<string, number>> = {
  "0": 0o100000,
  "\0": 0o100000,
  "7": 0o100000,
  "1": 0o100000,
  "2": 0o120000,
  "3": 0o020000,
  "4": 0o060000,
  "5": 0o040000,
  "6": 0o010000,
};

function octal(bytes: Uint8Array): number {
  // GNU's form for numbers that eleven digits cannot hold.
  if (bytes[0]! & 0x80) return bytes.subarray(1).reduce((n, byte) => n * 256 + byte, 0);
  const digits = text(bytes).trim();
  return digits === "" ? 0 : parseInt(digits, 8);
}

function* readTar(cx: Cx, start: number, end: number, each: (entry: ArchiveEntry) => Exec<void>): Exec<void> {
  let longName: string | undefined, longLink: string | undefined;
  for (let at = start; at + BLOCK <= end;) {
    const h = yield* bytesAt(cx, at, BLOCK, end);
    if (h.every((byte) => byte === 0)) return;
    const sum = h.reduce((total, byte, i) => total + (i >= 148 && i < 156 ? 32 : byte), 0);
    if (octal(h.subarray(148, 156)) !== sum) {
      throw new ArchiveError(`the header at 0x${at.toString(16)} has a wrong checksum`);
    }
    const bytes = octal(h.subarray(124, 136));
    const data = at + BLOCK;
    if (!Number.isSafeInteger(bytes) || data + bytes > end) {
      throw new ArchiveError(`the entry at 0x${at.toString(16)} is longer than the archive`);
    }
    const type = String.fromCharCode(h[156]!);
    const next = data + Math.ceil(bytes / BLOCK) * BLOCK;
    if (type === "L" || type === "K") {
      const name = text(yield* bytesAt(cx, data, bytes, end));
      if (type === "L") longName = name;
      else longLink = name;
    } else if (type === "x") {
      const pax = paxRecords(yield* bytesAt(cx, data, bytes, end));
      longName = pax.get("path") ?? longName;
      longLink = pax.get("linkpath") ?? longLink;
    } else if (TAR_TYPES[type] !== undefined) {
      const prefix = text(h.subarray(345, 500));
      const name = text(h.subarray(0, 100));
      yield* each({
        path: longName ?? (prefix === "" ? name : `${prefix}/${name}`),
        mode: TAR_TYPES[type]! | (octal(h.subarray(100, 108)) & 0o7777),
        uid: octal(h.subarray(108, 116)),
        gid: octal(h.subarray(116, 124)),
        mtime: octal(h.subarray(136, 148)),
        pa: data,
        bytes: "07\0".includes(type) ? bytes : 0,
        link: longLink ?? text(h.subarray(157, 257)),
        hardlink: type === "1",
        linkKey: undefined,
        rdev: (octal(h.subarray(329, 337)) << 8) | octal(h.subarray(337, 345)),
      });
      longName = longLink = undefined;
    }
    at = next;
    yield;
  }
}

/** Records of a pax header: "LENGTH KEY=VALUE\n". */
function paxRecords(bytes: Uint8Array): Map<string, string> {
  const records = new Map<string, string>();
  for (let at = 0; at < bytes.length;) {
    const space = bytes.indexOf(32, at);
    const length = space < 0 ? NaN : parseInt(decoder.decode(bytes.subarray(at, space)), 10);
    if (!(length > 0)) break;
    const record = decoder.decode(bytes.subarray(space + 1, at + length - 1));
    const equals = record.indexOf("=");
    if (equals > 0) records.set(record.slice(0, equals), record.slice(equals + 1));
    at += length;
  }
  return records;
}
