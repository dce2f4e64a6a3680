/**
 * Vnodes as open files (`kern/vfs_vnops.c`): open, read, write, close; and how the kernel itself reads a file.
 *
 * Room: `kernel/vfs/`; imports look-ups, vnodes and the files' types.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { ERRNO } from "../kern/errno.ts";
import {
  DTYPE_VNODE,
  type File,
  type Fileops,
  FMASK,
  FREAD,
  FWRITE,
  O_APPEND,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_FAPPEND,
  O_FBLOCKING,
  O_FNONBLOCKING,
  O_FOFFSET,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_TRUNC,
} from "../kern/file.ts";
import { FIONREAD } from "../kern/termios.ts";
import { LK_EXCLUSIVE, LK_RELEASE, LK_SHARED } from "../lwkt/lock.ts";
import { tsleep, wakeup } from "../lwkt/sleep.ts";
import { MNT_NOEXEC, MNT_RDONLY } from "./mount.ts";
import { cacheHold, cacheSetvp, type Namecache } from "./namecache.ts";
import { NLC_CREATE, NLC_FOLLOW, nlookup, nlookupInit } from "./nlookup.ts";
import type { PollWaiter } from "./selinfo.ts";
import { Uio, UIO_READ } from "./uio.ts";
import { vrele } from "./vfs_subr.ts";
import {
  IO_APPEND,
  IO_NDELAY,
  type Vattr,
  VCHR,
  VDIR,
  VEXEC,
  VFIFO,
  VLNK,
  vnLock,
  type Vnode,
  VREAD,
  vref,
  VREG,
  VSOCK,
  VTEXT,
  VWRITE,
} from "./vnode.ts";

/**
 * Opens a file (`vn_open`). `fflag`: FREAD, FWRITE and O_*. On success `fp`, if given, is a file of the vnode, which it has a reference to;
 * without one, the caller has the reference. Gives the vnode or an error number.
 */
export function* vnOpen(
  cx: Cx,
  path: string,
  fflag: number,
  mode: number,
  fp: File | undefined,
  start?: Namecache,
): Exec<Vnode | number> {
  let flags = fflag & (O_CREAT | O_EXCL) || fflag & O_NOFOLLOW ? 0 : NLC_FOLLOW;
  if (fflag & O_CREAT) flags = NLC_CREATE | (fflag & (O_EXCL | O_NOFOLLOW) ? 0 : NLC_FOLLOW);
  const nd = nlookupInit(cx, path, flags, start);
  const { nlCred: cred } = nd;
  let error = nlookup(cx, nd);
  if (error !== 0) return error;
  let truncate = (fflag & O_TRUNC) !== 0;
  let vp = nd.nlVp;
  if (vp === undefined) {
    const dvp = nd.nlDvp!;
    const made = dvp.vOps.vopNcreate(cx, dvp, nd.nlNch.ncName, { vaType: VREG, vaMode: mode }, cred);
    if (typeof made === "number") return made;
    vp = made;
    cacheSetvp(cx, nd.nlNch, vp);
    truncate = false;
  } else {
    if ((fflag & (O_CREAT | O_EXCL)) === (O_CREAT | O_EXCL)) return ERRNO.EEXIST;
    error = mayOpen(cx, vp, fflag, nd.nlCred);
    if (error !== 0) return error;
  }
  vref(vp);
  if (truncate && (vp.vType === VREG || vp.vType === VCHR)) {
    error = vp.vType === VREG ? yield* vnTruncate(cx, vp, 0, cred) : 0;
  }
  if (error === 0) error = yield* vp.vOps.vopOpen(cx, vp, fflag, cred, fp);
  if (error !== 0) {
    yield* vrele(cx, vp);
    return error;
  }
  if (fp !== undefined) {
    fp.fType = DTYPE_VNODE;
    fp.fFlag = fflag & FMASK;
    fp.fOps = vnodeFileops;
    fp.fData = vp;
    fp.fNchandle = cacheHold(nd.nlNch);
  }
  return vp;
}

/** What an existing file says to being opened. */
function mayOpen(cx: Cx, vp: Vnode, fflag: number, cred: Parameters<Vnode["vOps"]["vopAccess"]>[3]): number {
  if (vp.vType === VLNK) return ERRNO.ELOOP;
  if (vp.vType === VSOCK) return ERRNO.EOPNOTSUPP;
  if (fflag & O_DIRECTORY && vp.vType !== VDIR) return ERRNO.ENOTDIR;
  let mode = 0;
  if (fflag & (FWRITE | O_TRUNC)) {
    if (vp.vType === VDIR) return ERRNO.EISDIR;
    const error = vnWritechk(vp);
    if (error !== 0) return error;
    mode |= VWRITE;
  }
  if (fflag & FREAD) mode |= VREAD;
  return mode === 0 ? 0 : vp.vOps.vopAccess(cx, vp, mode, cred);
}

/** Whether a file may be written now (`vn_writechk`): ETXTBSY, EROFS. */
export function vnWritechk(vp: Vnode): number {
  if (vp.vFlag & VTEXT) return ERRNO.ETXTBSY;
  const device = vp.vType === VCHR || vp.vType === VFIFO;
  return !device && vp.vMount.mntFlag & MNT_RDONLY ? ERRNO.EROFS : 0;
}

/** Sets a regular file's size. */
export function* vnTruncate(
  cx: Cx,
  vp: Vnode,
  size: number,
  cred: Parameters<Vnode["vOps"]["vopAccess"]>[3],
): Exec<number> {
  yield* vnLock(cx, vp, LK_EXCLUSIVE);
  const error = yield* vp.vOps.vopSetattr(cx, vp, { vaSize: size }, cred);
  yield* vnLock(cx, vp, LK_RELEASE);
  return error;
}

/**
 * Finds a file to execute (`exec_check_permissions` of `kern/kern_exec.c`): a regular file that may be executed and that nobody has open
 * for writing. Referenced; VTEXT is set. Gives it, or ENOENT, EACCES, ETXTBSY …
 */
export function* vnOpenExec(cx: Cx, path: string): Exec<Vnode | number> {
  const nd = nlookupInit(cx, path, NLC_FOLLOW);
  let error = nlookup(cx, nd);
  if (error !== 0) return error;
  const vp = nd.nlVp!;
  if (vp.vType !== VREG || vp.vMount.mntFlag & MNT_NOEXEC) return ERRNO.EACCES;
  if ((vp.vOps.vopGetattr(cx, vp).vaMode & 0o111) === 0) return ERRNO.EACCES;
  error = vp.vOps.vopAccess(cx, vp, VEXEC, nd.nlCred);
  if (error !== 0) return error;
  if (vp.vWritecount > 0) return ERRNO.ETXTBSY;
  vref(vp);
  vp.vFlag |= VTEXT;
  return vp;
}

/** Reads or writes with the kernel's own buffer (`vn_rdwr`). The vnode is referenced, not locked. Gives the error and the bytes left. */
export function* vnRdwr(
  cx: Cx,
  vp: Vnode,
  uio: Uio,
): Exec<{ readonly error: number; readonly resid: number }> {
  yield* vnLock(cx, vp, uio.rw === UIO_READ ? LK_SHARED : LK_EXCLUSIVE);
  const error = uio.rw === UIO_READ
    ? yield* vp.vOps.vopRead(cx, vp, uio, 0)
    : yield* vp.vOps.vopWrite(cx, vp, uio, 0);
  yield* vnLock(cx, vp, LK_RELEASE);
  return { error, resid: uio.resid };
}

/** Reads up to `length` bytes of a file at an offset. Fewer at its end. Gives an error number if it cannot be read. */
export function* vnReadBytes(cx: Cx, vp: Vnode, offset: number, length: number): Exec<Uint8Array | number> {
  const bytes = new Uint8Array(length);
  const { error, resid } = yield* vnRdwr(cx, vp, Uio.kernel(UIO_READ, offset, bytes));
  return error !== 0 ? error : bytes.subarray(0, length - resid);
}

/** Flags of one transfer: the file's own, overridden by the call's. */
function ioflagOf(fp: File, flags: number): number {
  let ioflag = 0;
  if (flags & O_FBLOCKING) ioflag |= 0;
  else if (flags & O_FNONBLOCKING || fp.fFlag & O_NONBLOCK) ioflag |= IO_NDELAY;
  if (flags & O_FAPPEND || fp.fFlag & O_APPEND) ioflag |= IO_APPEND;
  return ioflag;
}

/** Locks the file's offset (`vn_get_fpf_offset`) and starts the uio there; nothing with O_FOFFSET. */
function* lockOffset(cx: Cx, fp: File, uio: Uio, flags: number): Exec<void> {
  if (flags & O_FOFFSET) return;
  while (fp.fOffsetLocked) yield* tsleep(cx, fp, 0, "fpoff", 0);
  fp.fOffsetLocked = true;
  uio.offset = fp.fOffset;
}

/** Takes the offset over and unlocks it (`vn_set_fpf_offset`). */
function unlockOffset(cx: Cx, fp: File, uio: Uio, flags: number): void {
  if (flags & O_FOFFSET) return;
  fp.fOffset = uio.offset;
  fp.fOffsetLocked = false;
  wakeup(cx, fp);
}

/** Whether reads and writes of the vnode happen at the file's offset, one after the other. Terminals and pipes have none. */
function hasOffset(vp: Vnode): boolean {
  return vp.vType === VREG || vp.vType === VDIR;
}

/** Files that are vnodes (`vnode_fileops`). */
export const vnodeFileops: Fileops = {
  *foRead(cx: Cx, fp: File, uio: Uio, flags: number): Exec<number> {
    const vp = fp.fData as Vnode;
    if (vp.vType === VDIR) return ERRNO.EISDIR;
    if (!hasOffset(vp)) {
      uio.offset = flags & O_FOFFSET ? uio.offset : fp.fOffset;
      const error = yield* vp.vOps.vopRead(cx, vp, uio, ioflagOf(fp, flags));
      if ((flags & O_FOFFSET) === 0) fp.fOffset = uio.offset;
      return error;
    }
    yield* lockOffset(cx, fp, uio, flags);
    yield* vnLock(cx, vp, LK_SHARED);
    const error = yield* vp.vOps.vopRead(cx, vp, uio, ioflagOf(fp, flags));
    yield* vnLock(cx, vp, LK_RELEASE);
    unlockOffset(cx, fp, uio, flags);
    return error;
  },
  *foWrite(cx: Cx, fp: File, uio: Uio, flags: number): Exec<number> {
    const vp = fp.fData as Vnode;
    if (!hasOffset(vp)) {
      uio.offset = flags & O_FOFFSET ? uio.offset : fp.fOffset;
      const error = yield* vp.vOps.vopWrite(cx, vp, uio, ioflagOf(fp, flags));
      if ((flags & O_FOFFSET) === 0) fp.fOffset = uio.offset;
      return error;
    }
    yield* lockOffset(cx, fp, uio, flags);
    yield* vnLock(cx, vp, LK_EXCLUSIVE);
    const error = yield* vp.vOps.vopWrite(cx, vp, uio, ioflagOf(fp, flags));
    yield* vnLock(cx, vp, LK_RELEASE);
    unlockOffset(cx, fp, uio, flags);
    return error;
  },
  *foIoctl(cx: Cx, fp: File, com: number, data: Uint8Array): Exec<number> {
    const vp = fp.fData as Vnode;
    if (com === FIONREAD && hasOffset(vp)) {
      const left = vp.vOps.vopGetattr(cx, vp).vaSize - fp.fOffset;
      new DataView(data.buffer, data.byteOffset).setInt32(0, Math.min(0x7fff_ffff, Math.max(0, left)), true);
      return 0;
    }
    return yield* vp.vOps.vopIoctl(cx, vp, com, data, fp.fFlag);
  },
  foPoll(cx: Cx, fp: File, events: number, waiter: PollWaiter | undefined): number {
    const vp = fp.fData as Vnode;
    return vp.vOps.vopPoll(cx, vp, events, waiter);
  },
  foStat(cx: Cx, fp: File): Vattr {
    const vp = fp.fData as Vnode;
    return vp.vOps.vopGetattr(cx, vp);
  },
  *foClose(cx: Cx, fp: File): Exec<number> {
    const vp = fp.fData as Vnode;
    const error = yield* vp.vOps.vopClose(cx, vp, fp.fFlag);
    fp.fData = undefined;
    yield* vrele(cx, vp);
    return error;
  },
};
