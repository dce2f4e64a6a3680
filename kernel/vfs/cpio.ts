/**
 * Writing cpio archives: what the kernel takes as its root file system.
 *
 * Room: `kernel/vfs/`; imports nothing. archive.ts reads them.
 *
 * @module
 */

/** One file of an archive. */
export interface ArchiveEntry {
  /** Path without a leading slash. */
  readonly path: string;
  /** File type and permissions, as in `st_mode`. */
  readonly mode: number;
  /** A file's content, or a symbolic link's target. */
  readonly data: Uint8Array;
}

const S_IFMT = 0o170000, S_IFDIR = 0o040000;

/** A cpio archive in the new ASCII format ("070701"). */
export function cpio(entries: readonly ArchiveEntry[]): Uint8Array<ArrayBuffer> {
  const encoder = new TextEncoder();
  const all = [...entries, { path: "TRAILER!!!", mode: 0, data: new Uint8Array(0) }];
  const names = all.map(({ path }) => encoder.encode(path + "\0"));
  const padded = (bytes: number) => Math.ceil(bytes / 4) * 4;
  const total = all.reduce(
    (sum, { data }, i) => sum + padded(110 + names[i]!.length) + padded(data.length),
    0,
  );
  const out = new Uint8Array(total);
  let at = 0;
  all.forEach(({ mode, data }, i) => {
    const name = names[i]!;
    const links = (mode & S_IFMT) === S_IFDIR ? 2 : 1;
    const fields = [i + 1, mode, 0, 0, links, 0, data.length, 0, 0, 0, 0, name.length, 0];
    const header = "070701" + fields.map((value) => value.toString(16).padStart(8, "0")).join("");
    out.set(encoder.encode(header), at);
    out.set(name, at + 110);
    at += padded(110 + name.length);
    out.set(data, at);
    at += padded(data.length);
  });
  return out;
}
