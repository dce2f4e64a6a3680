/**
 * Filling a tmpfs from an archive in RAM: names and attributes are made, bytes stay where they are.
 *
 * Room: `kernel/vfs/tmpfs/`; imports nodes and archives.
 *
 * @module
 */
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import { type ArchiveEntry, ArchiveError, readArchive } from "../archive.ts";
import { NAME_MAX, nameBytes } from "../nlookup.ts";
import { iftovt, VCHR, VDIR, VLNK, VNON, VREG, type Vtype } from "../vnode.ts";
import {
  tmpfsAllocNode,
  tmpfsDirAttach,
  tmpfsDirDetach,
  tmpfsFreeNode,
  type TmpfsMount,
  type TmpfsNode,
} from "./tmpfs.ts";

/**
 * Adds what an archive has; later ones replace files of earlier ones. Runs before anybody uses the file system.
 *
 * @throws {ArchiveError} when the archive is not one, is cut off, or does not fit.
 */
export function* tmpfsImport(cx: Cx, tm: TmpfsMount, start: number, end: number): Exec<void> {
  const links = new Map<string, TmpfsNode>();
  yield* readArchive(cx, start, end, function* (entry) {
    importEntry(cx, tm, entry, links);
  });
}

function importEntry(cx: Cx, tm: TmpfsMount, entry: ArchiveEntry, links: Map<string, TmpfsNode>): void {
  const parts = partsOf(entry.path);
  const type = iftovt(entry.mode);
  if (parts.length === 0) {
    tm.tmRoot.tnMode = entry.mode & 0o7777;
    return;
  }
  if (type === VNON) return;
  const name = parts.pop()!;
  let dir = tm.tmRoot;
  for (const part of parts) dir = directory(cx, tm, dir, part);
  const old = dir.tnDir.get(name);
  if (type === VDIR) {
    attributes(directory(cx, tm, dir, name), entry);
    return;
  }
  if (old !== undefined) {
    if (old.node.tnType === VDIR) throw new ArchiveError(`"${entry.path}" is a directory already`);
    tmpfsDirDetach(cx, tm, dir, old);
    if (old.node.tnLinks === 0) tmpfsFreeNode(tm, old.node);
  }
  const known = entry.hardlink
    ? find(tm, entry.link)
    : entry.linkKey !== undefined
    ? links.get(entry.linkKey)
    : undefined;
  if (entry.hardlink && known === undefined) throw new ArchiveError(`"${entry.path}" is a link to nothing`);
  const node = known ?? alloc(cx, tm, type, entry.mode, entry.path);
  tmpfsDirAttach(cx, tm, dir, name, node);
  attributes(node, entry);
  if (type === VLNK) {
    node.tnLink = entry.link;
    node.tnSize = new TextEncoder().encode(entry.link).length;
  }
  if (type >= VCHR - 1) node.tnRdev = entry.rdev;
  // Of several names in a cpio archive the last has the bytes.
  if (type === VREG && !entry.hardlink && (known === undefined || entry.bytes > 0)) {
    node.tnSize = entry.bytes;
    node.tnArchive = { pa: entry.pa, bytes: entry.bytes };
  }
  if (entry.linkKey !== undefined) links.set(entry.linkKey, node);
}

/** The names of a path; "." and empty ones left out. */
function partsOf(path: string): string[] {
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  for (const part of parts) {
    if (part === ".." || nameBytes(part) > NAME_MAX) {
      throw new ArchiveError(`"${path}" is no path for a file`);
    }
  }
  return parts;
}

function alloc(cx: Cx, tm: TmpfsMount, type: Vtype, mode: number, path: string): TmpfsNode {
  const node = tmpfsAllocNode(cx, tm, type, mode, 0, 0);
  if (typeof node === "number") throw new ArchiveError(`there is no room for "${path}"`);
  return node;
}

/** The directory of a name; made if it is not there. */
export function directory(cx: Cx, tm: TmpfsMount, dir: TmpfsNode, name: string): TmpfsNode {
  const old = dir.tnDir.get(name);
  if (old !== undefined) {
    if (old.node.tnType !== VDIR) throw new ArchiveError(`"${name}" is no directory`);
    return old.node;
  }
  const node = alloc(cx, tm, VDIR, 0o755, name);
  tmpfsDirAttach(cx, tm, dir, name, node);
  return node;
}

function find(tm: TmpfsMount, path: string): TmpfsNode | undefined {
  let node: TmpfsNode | undefined = tm.tmRoot;
  for (const part of partsOf(path)) node = node?.tnDir.get(part)?.node;
  return node?.tnType === VREG ? node : undefined;
}

function attributes(node: TmpfsNode, { mode, uid, gid, mtime }: ArchiveEntry): void {
  node.tnMode = mode & 0o7777;
  node.tnUid = uid;
  node.tnGid = gid;
  node.tnAtime = node.tnMtime = node.tnCtime = { sec: mtime, nsec: 0 };
}
