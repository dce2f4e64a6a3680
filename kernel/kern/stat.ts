/**
 * Attributes and figures as programs see them: `struct stat`, `struct statfs`, `struct statvfs`, `struct dirent` (`sys/sys/stat.h`, `mount.h`,
 * `statvfs.h`, `dirent.h`, x86-64).
 *
 * Room: `kernel/kern/`; imports vnodes and mounts.
 *
 * @module
 */
import type { Cx } from "../context.ts";
import { MNT_VISFLAGMASK, type Mount } from "../vfs/mount.ts";
import { cacheFullpath } from "../vfs/namecache.ts";
import { NAME_MAX } from "../vfs/nlookup.ts";
import { type Dirent, type Vattr, VTTOIF } from "../vfs/vnode.ts";

/** Bytes of a `struct stat`. */
export const STAT_BYTES = 128;
/** Bytes of a `struct statfs`. */
export const STATFS_BYTES = 320;
/** Bytes of a `struct statvfs`. */
export const STATVFS_BYTES = 160;
/** Where d_name begins in a `struct dirent`. */
const DIRENT_NAME = 16;
const STAT_BLOCK = 512;

const encoder = new TextEncoder();

/** `struct stat` of attributes (`vn_stat`). */
export function encodeStat(attr: Vattr): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(STAT_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(attr.vaFileid), true);
  view.setUint32(8, attr.vaNlink, true);
  view.setUint32(12, attr.vaFsid, true);
  view.setUint16(16, VTTOIF[attr.vaType]! | attr.vaMode, true);
  view.setUint32(20, attr.vaUid, true);
  view.setUint32(24, attr.vaGid, true);
  view.setUint32(28, attr.vaRdev, true);
  [attr.vaAtime, attr.vaMtime, attr.vaCtime].forEach(({ sec, nsec }, i) => {
    view.setBigInt64(32 + i * 16, BigInt(sec), true);
    view.setBigInt64(40 + i * 16, BigInt(nsec), true);
  });
  view.setBigInt64(80, BigInt(attr.vaSize), true);
  view.setBigInt64(88, BigInt(Math.ceil(attr.vaBytes / STAT_BLOCK)), true);
  view.setUint32(96, attr.vaBlocksize, true);
  view.setUint32(100, attr.vaFlags, true);
  return bytes;
}

/** Where a file system is mounted, as the current process sees it. */
function mountedOn(cx: Cx, mp: Mount): string {
  const path = cacheFullpath(mp.mntNcmountpt, cx.proc?.pFd?.fdNrdir ?? cx.k.vfs.rootnch);
  return typeof path === "string" ? path : "";
}

/** `struct statfs` of a mount. */
export function encodeStatfs(cx: Cx, mp: Mount): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(STATFS_BYTES);
  const view = new DataView(bytes.buffer);
  const { fBsize, fBlocks, fBfree, fFiles, fFfree } = mp.mntOp.vfsStatfs(cx, mp);
  [0, fBsize, fBsize, fBlocks, fBfree, fBfree, fFiles, fFfree].forEach((value, i) =>
    view.setBigInt64(i * 8, BigInt(value), true)
  );
  view.setInt32(64, mp.mntFsid, true);
  view.setInt32(80, mp.mntFlag & MNT_VISFLAGMASK, true);
  const text = (at: number, most: number, value: string) =>
    bytes.set(encoder.encode(value).subarray(0, most - 1), at);
  text(104, 16, mp.mntOp.vfsName);
  text(120, 80, mountedOn(cx, mp));
  text(218, 80, mp.mntFromname);
  return bytes;
}

/** `struct statvfs` of a mount. */
export function encodeStatvfs(cx: Cx, mp: Mount): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(STATVFS_BYTES);
  const view = new DataView(bytes.buffer);
  const { fBsize, fBlocks, fBfree, fFiles, fFfree } = mp.mntOp.vfsStatfs(cx, mp);
  const flag = mp.mntFlag & 1;
  [fBsize, fBsize, fBlocks, fBfree, fBfree, fFiles, fFfree, fFfree, mp.mntFsid, flag, NAME_MAX].forEach((
    value,
    i,
  ) => view.setBigUint64(i * 8, BigInt(value), true));
  return bytes;
}

/** A `struct dirent` record (`vop_write_dirent`). */
export function encodeDirent({ ino, type, name }: Dirent): Uint8Array<ArrayBuffer> {
  const text = encoder.encode(name);
  const bytes = new Uint8Array((DIRENT_NAME + text.length + 1 + 7) & ~7);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(ino), true);
  view.setUint16(8, text.length, true);
  view.setUint8(10, type);
  bytes.set(text, DIRENT_NAME);
  return bytes;
}
