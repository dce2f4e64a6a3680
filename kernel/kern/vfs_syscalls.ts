/**
 * System calls on names (`kern/vfs_syscalls.c`): open, link, unlink, rename, directories, working directory, mounts.
 *
 * Room: `kernel/kern/`; imports the file systems' face. Attributes are in vfs_attr_syscalls.ts.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { isRoot } from "../proc/ucred.ts";
import { MNT_NOEXEC, MNT_NOSUID, MNT_RDONLY, MNT_UPDATE, type Mount } from "../vfs/mount.ts";
import {
  cacheDrop,
  cacheFullpath,
  cacheHold,
  cacheRename,
  cacheSetvp,
  cacheUnlink,
  type Namecache,
} from "../vfs/namecache.ts";
import {
  copyinPath,
  MAXPATHLEN,
  NLC_CREATE,
  NLC_DELETE,
  NLC_FOLLOW,
  NLC_RENAME_DST,
  NLC_RENAME_SRC,
  NLC_WILLBEDIR,
  nlookup,
} from "../vfs/nlookup.ts";
import { vfsMount, vfsUnmount } from "../vfs/vfs_mount.ts";
import { vnOpen } from "../vfs/vfs_vnops.ts";
import { vrele } from "../vfs/vfs_subr.ts";
import {
  type Dirent,
  iftovt,
  VBLK,
  VCHR,
  VDIR,
  VEXEC,
  VFIFO,
  VLNK,
  Vnode,
  vref,
  VREG,
  VROOT,
} from "../vfs/vnode.ts";
import { vfsconf } from "../vfs/vfs_conf.ts";
import { copyinstr, copyout } from "./copy.ts";
import { ERRNO } from "./errno.ts";
import { FREAD, O_ACCMODE, O_CLOEXEC, O_EXLOCK, O_NONBLOCK, O_SHLOCK } from "./file.ts";
import {
  DUP_VARIABLE,
  falloc,
  fdalloc,
  fdnode,
  fdrop,
  fsetfd,
  holdvnode,
  kernDup,
  UF_EXCLOSE,
} from "./kern_descrip.ts";
import { kernFlock } from "./kern_descrip_syscalls.ts";
import { encodeDirent, encodeStatfs, encodeStatvfs, STATFS_BYTES } from "./stat.ts";
import { SYSCALL_OK, type SyscallArgs, type SyscallResult, type SyscallTable } from "./sysent.ts";
import {
  AT_FDCWD,
  AT_REMOVEDIR,
  AT_SYMLINK_FOLLOW,
  atStart,
  errorResult,
  initPath,
  lookPath,
} from "./vfs_path.ts";

const encoder = new TextEncoder();

/** Opens a path for the current process (`kern_open`). Gives the descriptor or an error. `flags` are open's. */
export function* kernOpen(
  cx: Cx,
  path: string,
  flags: number,
  mode: number,
  start?: Namecache,
): Exec<SyscallResult> {
  const p = cx.proc!;
  const fdp = p.pFd!;
  if ((flags & O_ACCMODE) === O_ACCMODE) return { error: ERRNO.EINVAL };
  const fflag = (flags & ~O_ACCMODE) | ((flags & O_ACCMODE) + 1);
  const fp = falloc(cx);
  if (typeof fp === "number") return { error: fp };
  const fd = fdalloc(cx, p, 0);
  if (fd === undefined) {
    yield* fdrop(cx, fp);
    return { error: ERRNO.EMFILE };
  }
  const perms = mode & ~fdp.fdCmask & 0o7777 & ~0o1000;
  const vp = yield* vnOpen(cx, path, fflag, perms, fp, start);
  if (typeof vp === "number") {
    fsetfd(fdp, undefined, fd);
    yield* fdrop(cx, fp);
    return { error: vp };
  }
  const dupfd = vp.vRdev?.siDupfd;
  if (dupfd !== undefined) {
    // /dev/fd/N and /dev/stdin are other names for open descriptors.
    fsetfd(fdp, undefined, fd);
    yield* fdrop(cx, fp);
    return yield* dupfdopen(cx, dupfd, fflag);
  }
  if (flags & (O_EXLOCK | O_SHLOCK)) {
    const how = (flags & O_EXLOCK ? 2 : 1) | (flags & O_NONBLOCK ? 4 : 0);
    const error = yield* kernFlock(cx, fp, how);
    if (error !== 0) {
      fsetfd(fdp, undefined, fd);
      yield* fdrop(cx, fp);
      return { error };
    }
  }
  fsetfd(fdp, fp, fd, flags & O_CLOEXEC ? UF_EXCLOSE : 0);
  yield* fdrop(cx, fp);
  return { value: BigInt(fd) };
}

/** Opening a name of a descriptor: a dup, if that was opened for as much (`dupfdopen`). */
function* dupfdopen(cx: Cx, fd: number, fflag: number): Exec<SyscallResult> {
  const node = fdnode(cx.proc!.pFd, fd);
  if (node === undefined) return { error: ERRNO.EBADF };
  if ((fflag & 3 & ~node.fp.fFlag) !== 0) return { error: ERRNO.EACCES };
  const made = yield* kernDup(cx, DUP_VARIABLE, fd, 0);
  return made < 0 ? { error: -made } : { value: BigInt(made) };
}

function* sysOpen(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const path = yield* copyinPath(cx, uap.arg(0));
  return typeof path === "number" ? { error: path } : yield* kernOpen(cx, path, uap.int(1), uap.int(2));
}

function* sysOpenat(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const path = yield* copyinPath(cx, uap.arg(1));
  if (typeof path === "number") return { error: path };
  const start = atStart(cx, uap.int(0), path);
  return typeof start === "number"
    ? { error: start }
    : yield* kernOpen(cx, path, uap.int(2), uap.int(3), start);
}

// ---- making names

/** Makes a directory, fifo or device node (`kern_mkdir`, `kern_mknod`). */
function* make(
  cx: Cx,
  uap: SyscallArgs,
  i: number,
  fd: number,
  mode: number,
  rdev: number,
): Exec<SyscallResult> {
  const type = iftovt(mode);
  const flags = NLC_CREATE | (type === VDIR ? NLC_WILLBEDIR : 0);
  const nd = yield* lookPath(cx, uap, i, flags, fd);
  if (typeof nd === "number") return { error: nd };
  if (nd.nlVp !== undefined) return { error: ERRNO.EEXIST };
  const dvp = nd.nlDvp!;
  const vaMode = mode & 0o7777 & ~cx.proc!.pFd!.fdCmask;
  const vp = dvp.vOps.vopNcreate(cx, dvp, nd.nlNch.ncName, { vaType: type, vaMode, vaRdev: rdev }, nd.nlCred);
  if (typeof vp === "number") return { error: vp };
  cacheSetvp(cx, nd.nlNch, vp);
  return SYSCALL_OK;
}

const S_IFDIR = 0o040000, S_IFIFO = 0o010000;

function* mknod(cx: Cx, uap: SyscallArgs, i: number, fd: number): Exec<SyscallResult> {
  const mode = uap.uint(i + 1), rdev = uap.uint(i + 2);
  const type = iftovt(mode);
  if (type !== VFIFO && type !== VREG) {
    if (!isRoot(cx.proc!.pUcred)) return { error: ERRNO.EPERM };
    if (type !== VCHR && type !== VBLK) return { error: ERRNO.EINVAL };
  }
  return yield* make(cx, uap, i, fd, mode, rdev);
}

/** Gives a file another name (`kern_link`). */
function* link(
  cx: Cx,
  uap: SyscallArgs,
  from: readonly [number, number, number],
  to: readonly [number, number],
) {
  const [fromArg, fromFd, follow] = from;
  const source = yield* initPath(cx, uap, fromArg, follow, fromFd);
  if (typeof source === "number") return { error: source };
  const target = yield* initPath(cx, uap, to[0], NLC_CREATE, to[1]);
  if (typeof target === "number") return { error: target };
  // Both paths are in; from here on nothing comes between.
  let error = nlookup(cx, source);
  if (error === 0) error = nlookup(cx, target);
  if (error !== 0) return { error };
  const vp = source.nlVp!;
  if (vp.vType === VDIR) return { error: ERRNO.EPERM };
  if (target.nlVp !== undefined) return { error: ERRNO.EEXIST };
  const dvp = target.nlDvp!;
  if (dvp.vMount !== vp.vMount) return { error: ERRNO.EXDEV };
  error = dvp.vOps.vopNlink(cx, dvp, target.nlNch.ncName, vp);
  if (error === 0) cacheSetvp(cx, target.nlNch, vp);
  return errorResult(error);
}

/** Makes a symbolic link (`kern_symlink`). */
function* symlink(cx: Cx, uap: SyscallArgs, i: number, fd: number): Exec<SyscallResult> {
  const target = yield* copyinPath(cx, uap.arg(0));
  if (typeof target === "number") return { error: target };
  const nd = yield* lookPath(cx, uap, i, NLC_CREATE, fd);
  if (typeof nd === "number") return { error: nd };
  if (nd.nlVp !== undefined) return { error: ERRNO.EEXIST };
  const dvp = nd.nlDvp!;
  const mode = 0o777 & ~cx.proc!.pFd!.fdCmask;
  const vp = dvp.vOps.vopNsymlink(cx, dvp, nd.nlNch.ncName, target, mode, nd.nlCred);
  if (typeof vp === "number") return { error: vp };
  cacheSetvp(cx, nd.nlNch, vp);
  return SYSCALL_OK;
}

// ---- removing and moving

/** Whether something is mounted on the entry, or it is the root of a mount. */
function isMountpoint(ncp: Namecache, vp: Vnode): boolean {
  return ncp.ncMountedHere !== undefined || (vp.vFlag & VROOT) !== 0;
}

/** Removes a name (`kern_unlink`, `kern_rmdir`). */
function* remove(cx: Cx, uap: SyscallArgs, i: number, fd: number, directory: boolean): Exec<SyscallResult> {
  const nd = yield* lookPath(cx, uap, i, NLC_DELETE, fd);
  if (typeof nd === "number") return { error: nd };
  const vp = nd.nlVp!, dvp = nd.nlDvp;
  if (directory && vp.vType !== VDIR) return { error: ERRNO.ENOTDIR };
  if (!directory && vp.vType === VDIR) return { error: ERRNO.EISDIR };
  if (nd.nlDots === ".") return { error: ERRNO.EINVAL };
  if (nd.nlDots === "..") return { error: ERRNO.ENOTEMPTY };
  if (dvp === undefined || isMountpoint(nd.nlNch, vp)) return { error: ERRNO.EBUSY };
  vref(vp);
  const name = nd.nlNch.ncName;
  const error = directory ? dvp.vOps.vopNrmdir(cx, dvp, name) : dvp.vOps.vopNremove(cx, dvp, name);
  if (error === 0) cacheUnlink(cx, nd.nlNch);
  // Without a name and without users the file goes here.
  yield* vrele(cx, vp);
  return errorResult(error);
}

/** Moves a name (`kern_rename`). */
function* rename(
  cx: Cx,
  uap: SyscallArgs,
  fromFd: number,
  from: number,
  toFd: number,
  to: number,
): Exec<SyscallResult> {
  const source = yield* initPath(cx, uap, from, NLC_RENAME_SRC, fromFd);
  if (typeof source === "number") return { error: source };
  const target = yield* initPath(cx, uap, to, NLC_RENAME_DST | NLC_WILLBEDIR, toFd);
  if (typeof target === "number") return { error: target };
  // Both paths are in; from here on nothing comes between.
  let error = nlookup(cx, source);
  if (error === 0) error = nlookup(cx, target);
  if (error !== 0) return { error };
  if (source.nlDots !== "" || target.nlDots !== "") return { error: ERRNO.EINVAL };
  const fdvp = source.nlDvp, tdvp = target.nlDvp, vp = source.nlVp!, tvp = target.nlVp;
  if (fdvp === undefined || isMountpoint(source.nlNch, vp)) return { error: ERRNO.EBUSY };
  if (tdvp === undefined || (tvp !== undefined && isMountpoint(target.nlNch, tvp))) {
    return { error: ERRNO.EBUSY };
  }
  if (fdvp.vMount !== tdvp.vMount) return { error: ERRNO.EXDEV };
  if (vp === tvp) return SYSCALL_OK;
  // "name/" is all right for a directory only.
  if (tvp === undefined && vp.vType !== VDIR && target.nlPath.endsWith("/")) return { error: ERRNO.ENOENT };
  if (tvp !== undefined) vref(tvp);
  error = fdvp.vOps.vopNrename(cx, fdvp, source.nlNch.ncName, tdvp, target.nlNch.ncName);
  if (error === 0) cacheRename(cx, source.nlNch, target.nlNch);
  if (tvp !== undefined) yield* vrele(cx, tvp);
  return errorResult(error);
}

// ---- directories

/** Changes to a directory that is referenced by the look-up's result (`kern_chdir`). */
function* changeTo(cx: Cx, ncp: Namecache, vp: Vnode, root: boolean): Exec<SyscallResult> {
  if (vp.vType !== VDIR) return { error: ERRNO.ENOTDIR };
  const error = vp.vOps.vopAccess(cx, vp, VEXEC, cx.proc!.pUcred);
  if (error !== 0) return { error };
  const fdp = cx.proc!.pFd!;
  vref(vp);
  cacheHold(ncp);
  const [oldNcp, oldVp] = root ? [fdp.fdNrdir, fdp.fdRdir] : [fdp.fdNcdir, fdp.fdCdir];
  if (root) {
    fdp.fdNrdir = ncp;
    fdp.fdRdir = vp;
  } else {
    fdp.fdNcdir = ncp;
    fdp.fdCdir = vp;
  }
  cacheDrop(oldNcp);
  yield* vrele(cx, oldVp);
  return SYSCALL_OK;
}

function* sysChdir(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const nd = yield* lookPath(cx, uap, 0, NLC_FOLLOW);
  return typeof nd === "number" ? { error: nd } : yield* changeTo(cx, nd.nlNch, nd.nlVp!, false);
}

function* sysFchdir(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const fp = holdvnode(cx, uap.int(0));
  if (typeof fp === "number") return { error: fp === ERRNO.EINVAL ? ERRNO.ENOTDIR : fp };
  const result = yield* changeTo(cx, fp.fNchandle!, fp.fData as Vnode, false);
  yield* fdrop(cx, fp);
  return result;
}

function* sysChroot(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  if (!isRoot(cx.proc!.pUcred)) return { error: ERRNO.EPERM };
  const nd = yield* lookPath(cx, uap, 0, NLC_FOLLOW);
  return typeof nd === "number" ? { error: nd } : yield* changeTo(cx, nd.nlNch, nd.nlVp!, true);
}

/** __getcwd(buf, bytes). */
function* sysGetcwd(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const most = Math.min(uap.uint(1), MAXPATHLEN);
  if (most < 2) return { error: ERRNO.EINVAL };
  const { fdNcdir, fdNrdir } = cx.proc!.pFd!;
  const path = cacheFullpath(fdNcdir, fdNrdir);
  if (typeof path === "number") return { error: path };
  const bytes = encoder.encode(`${path}\0`);
  if (bytes.length > most) return { error: ERRNO.ERANGE };
  return errorResult(yield* copyout(cx, uap.arg(0), bytes));
}

/** getdirentries(fd, buf, count, basep), getdents. */
function* getdirentries(cx: Cx, uap: SyscallArgs, withBase: boolean): Exec<SyscallResult> {
  const fp = holdvnode(cx, uap.int(0));
  if (typeof fp === "number") return { error: fp };
  const result = yield* readEntries(cx, fp.fData as Vnode, fp, uap, withBase);
  yield* fdrop(cx, fp);
  return result;
}

function* readEntries(
  cx: Cx,
  vp: Vnode,
  fp: Exclude<ReturnType<typeof holdvnode>, number>,
  uap: SyscallArgs,
  withBase: boolean,
): Exec<SyscallResult> {
  if ((fp.fFlag & FREAD) === 0) return { error: ERRNO.EBADF };
  if (vp.vType !== VDIR) return { error: ERRNO.EINVAL };
  const most = withBase ? uap.uint(2) : uap.size(2);
  const base = fp.fOffset;
  const entries = vp.vOps.vopReaddir(cx, vp, base);
  if (typeof entries === "number") return { error: entries };
  const packed = packEntries(entries, most);
  if (packed === undefined) return { error: ERRNO.EINVAL };
  const error = packed.bytes.length > 0 ? yield* copyout(cx, uap.arg(1), packed.bytes) : 0;
  if (error !== 0) return { error };
  if (packed.next !== undefined) fp.fOffset = packed.next;
  if (withBase && uap.arg(3) !== 0n) {
    const word = new Uint8Array(8);
    new DataView(word.buffer).setBigInt64(0, BigInt(base), true);
    const failed = yield* copyout(cx, uap.arg(3), word);
    if (failed !== 0) return { error: failed };
  }
  return { value: BigInt(packed.bytes.length) };
}

/** As many records as fit. Undefined when not even the first does. */
function packEntries(
  entries: readonly Dirent[],
  most: number,
): { readonly bytes: Uint8Array; readonly next: number | undefined } | undefined {
  const records: Uint8Array[] = [];
  let total = 0;
  let next: number | undefined;
  for (const entry of entries) {
    const record = encodeDirent(entry);
    if (total + record.length > most) break;
    records.push(record);
    total += record.length;
    next = entry.next;
  }
  if (records.length === 0 && entries.length > 0) return undefined;
  const bytes = new Uint8Array(total);
  let at = 0;
  for (const record of records) {
    bytes.set(record, at);
    at += record.length;
  }
  return { bytes, next };
}

function* readlink(cx: Cx, uap: SyscallArgs, i: number, fd: number): Exec<SyscallResult> {
  const nd = yield* lookPath(cx, uap, i, 0, fd);
  if (typeof nd === "number") return { error: nd };
  const vp = nd.nlVp!;
  if (vp.vType !== VLNK) return { error: ERRNO.EINVAL };
  const target = vp.vOps.vopReadlink(cx, vp);
  if (typeof target === "number") return { error: target };
  const bytes = encoder.encode(target).subarray(0, uap.size(i + 2));
  const error = bytes.length > 0 ? yield* copyout(cx, uap.arg(i + 1), bytes) : 0;
  return error !== 0 ? { error } : { value: BigInt(bytes.length) };
}

function* sysUmask(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const fdp = cx.proc!.pFd!;
  const old = fdp.fdCmask;
  fdp.fdCmask = uap.int(0) & 0o777;
  return { value: BigInt(old) };
}

// ---- mounts

/** Longest type name, the zero byte included (`MFSNAMELEN`). */
const MFSNAMELEN = 16;

function* sysMount(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  if (!isRoot(cx.proc!.pUcred)) return { error: ERRNO.EPERM };
  const type = yield* copyinstr(cx, uap.arg(0), MFSNAMELEN);
  if (typeof type === "number") return { error: type };
  const nd = yield* lookPath(cx, uap, 1, NLC_FOLLOW);
  if (typeof nd === "number") return { error: nd };
  const flags = uap.int(2), kept = MNT_RDONLY | MNT_NOEXEC | MNT_NOSUID;
  if (flags & MNT_UPDATE) {
    if ((nd.nlVp!.vFlag & VROOT) === 0) return { error: ERRNO.EINVAL };
    const mp = nd.nlVp!.vMount;
    mp.mntFlag = (mp.mntFlag & ~kept) | (flags & kept);
    return SYSCALL_OK;
  }
  if (nd.nlVp!.vType !== VDIR) return { error: ERRNO.ENOTDIR };
  const conf = vfsconf.get(type);
  if (conf === undefined) return { error: ERRNO.ENODEV };
  const mp = vfsMount(cx, {
    op: conf.op,
    flag: flags & kept,
    fromname: type,
    data: conf.make(cx, 0),
    on: nd.nlNch,
  });
  return typeof mp === "number" ? { error: mp } : SYSCALL_OK;
}

function* sysUnmount(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  if (!isRoot(cx.proc!.pUcred)) return { error: ERRNO.EPERM };
  const nd = yield* lookPath(cx, uap, 0, NLC_FOLLOW);
  if (typeof nd === "number") return { error: nd };
  if ((nd.nlVp!.vFlag & VROOT) === 0) return { error: ERRNO.EINVAL };
  return errorResult(yield* vfsUnmount(cx, nd.nlVp!.vMount));
}

type Encoder = (cx: Cx, mp: Mount) => Uint8Array;

const statfsOf = (encode: Encoder) =>
  function* (cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
    const nd = yield* lookPath(cx, uap, 0, NLC_FOLLOW);
    if (typeof nd === "number") return { error: nd };
    return errorResult(yield* copyout(cx, uap.arg(1), encode(cx, nd.nlVp!.vMount)));
  };

const fstatfsOf = (encode: Encoder) =>
  function* (cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
    const fp = holdvnode(cx, uap.int(0));
    if (typeof fp === "number") return { error: fp };
    const bytes = encode(cx, (fp.fData as Vnode).vMount);
    yield* fdrop(cx, fp);
    return errorResult(yield* copyout(cx, uap.arg(1), bytes));
  };

/** getfsstat(buf, bytes, flags): as many as fit; how many there are if buf is 0. */
function* sysGetfsstat(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const { mountlist } = cx.k.vfs;
  if (uap.arg(0) === 0n) return { value: BigInt(mountlist.length) };
  const records = mountlist.slice(0, Math.floor(Math.max(0, Number(uap.long(1))) / STATFS_BYTES)).map((mp) =>
    encodeStatfs(cx, mp)
  );
  for (const [i, record] of records.entries()) {
    const error = yield* copyout(cx, uap.arg(0) + BigInt(i * STATFS_BYTES), record);
    if (error !== 0) return { error };
  }
  return { value: BigInt(records.length) };
}

/** System calls of this file. */
export const vfsSyscalls: SyscallTable = [
  [5, "open", 3, sysOpen],
  [9, "link", 2, (cx, uap) => link(cx, uap, [0, AT_FDCWD, NLC_FOLLOW], [1, AT_FDCWD])],
  [10, "unlink", 1, (cx, uap) => remove(cx, uap, 0, AT_FDCWD, false)],
  [12, "chdir", 1, sysChdir],
  [13, "fchdir", 1, sysFchdir],
  [14, "mknod", 3, (cx, uap) => mknod(cx, uap, 0, AT_FDCWD)],
  [18, "getfsstat", 3, sysGetfsstat],
  [21, "mount", 4, sysMount],
  [22, "unmount", 2, sysUnmount],
  [57, "symlink", 2, (cx, uap) => symlink(cx, uap, 1, AT_FDCWD)],
  [58, "readlink", 3, (cx, uap) => readlink(cx, uap, 0, AT_FDCWD)],
  [60, "umask", 1, sysUmask],
  [61, "chroot", 1, sysChroot],
  [128, "rename", 2, (cx, uap) => rename(cx, uap, AT_FDCWD, 0, AT_FDCWD, 1)],
  [132, "mkfifo", 2, (cx, uap) => make(cx, uap, 0, AT_FDCWD, (uap.int(1) & 0o7777) | S_IFIFO, 0)],
  [136, "mkdir", 2, (cx, uap) => make(cx, uap, 0, AT_FDCWD, (uap.int(1) & 0o7777) | S_IFDIR, 0)],
  [137, "rmdir", 1, (cx, uap) => remove(cx, uap, 0, AT_FDCWD, true)],
  [157, "statfs", 2, statfsOf(encodeStatfs)],
  [158, "fstatfs", 2, fstatfsOf(encodeStatfs)],
  [326, "__getcwd", 2, sysGetcwd],
  [479, "getdirentries", 4, (cx, uap) => getdirentries(cx, uap, true)],
  [480, "getdents", 3, (cx, uap) => getdirentries(cx, uap, false)],
  [500, "statvfs", 2, statfsOf(encodeStatvfs)],
  [501, "fstatvfs", 2, fstatfsOf(encodeStatvfs)],
  [504, "openat", 4, sysOpenat],
  [508, "unlinkat", 3, (cx, uap) => remove(cx, uap, 1, uap.int(0), (uap.int(2) & AT_REMOVEDIR) !== 0)],
  [523, "renameat", 4, (cx, uap) => rename(cx, uap, uap.int(0), 1, uap.int(2), 3)],
  [524, "mkdirat", 3, (cx, uap) => make(cx, uap, 1, uap.int(0), (uap.int(2) & 0o7777) | S_IFDIR, 0)],
  [525, "mkfifoat", 3, (cx, uap) => make(cx, uap, 1, uap.int(0), (uap.int(2) & 0o7777) | S_IFIFO, 0)],
  [526, "mknodat", 4, (cx, uap) => mknod(cx, uap, 1, uap.int(0))],
  [527, "readlinkat", 4, (cx, uap) => readlink(cx, uap, 1, uap.int(0))],
  [528, "symlinkat", 3, (cx, uap) => symlink(cx, uap, 2, uap.int(1))],
  [
    531,
    "linkat",
    5,
    (cx, uap) =>
      link(cx, uap, [1, uap.int(0), uap.int(4) & AT_SYMLINK_FOLLOW ? NLC_FOLLOW : 0], [3, uap.int(2)]),
  ],
];
