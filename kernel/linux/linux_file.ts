/**
 * Linux's system calls about files and directories: flags, `struct stat`, `struct statfs` and directory entries are Linux's, what they do is
 * DragonFly's.
 *
 * Room: `kernel/linux/`; imports DragonFly's system calls.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, copyout } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { type File, FREAD, FWRITE, O_FOFFSET } from "../kern/file.ts";
import { fdrop, holdfp, holdvnode } from "../kern/kern_descrip.ts";
import { dofileread, dofilewrite } from "../kern/sys_generic.ts";
import type { Syscall, SyscallArgs, SyscallResult, SyscallTable } from "../kern/sysent.ts";
import { setTimes, type Times } from "../kern/vfs_attr_syscalls.ts";
import { AT_FDCWD, lookPath, withVnode } from "../kern/vfs_path.ts";
import { getnanotime } from "../lwkt/callout.ts";
import type { Mount } from "../vfs/mount.ts";
import { cacheFullpath } from "../vfs/namecache.ts";
import { copyinPath, MAXPATHLEN, NAME_MAX, NLC_FOLLOW } from "../vfs/nlookup.ts";
import { Uio, UIO_READ, UIO_WRITE } from "../vfs/uio.ts";
import { type Dirent, type Timespec, type Vattr, VDIR, type Vnode, VREG, VTTOIF } from "../vfs/vnode.ts";
import { callNative, dirfd, mapped, result, same } from "./linux_native.ts";
import { nativeOpenFlags } from "./linux_fcntl.ts";

const OK: SyscallResult = { value: 0n };
const INVALID: SyscallResult = { error: ERRNO.EINVAL };
const encoder = new TextEncoder();

const AT_SYMLINK_NOFOLLOW = 0x100, AT_REMOVEDIR = 0x200, AT_EACCESS = 0x200, AT_SYMLINK_FOLLOW = 0x400;
const AT_EMPTY_PATH = 0x1000;
/** DragonFly's flags of the same calls. */
const NATIVE_NOFOLLOW = 1, NATIVE_REMOVEDIR = 2, NATIVE_EACCESS = 4, NATIVE_FOLLOW = 8;

// ---- open

const O_CREAT_WRONLY_TRUNC = 0o1101;

// ---- stat

/** Bytes of Linux's `struct stat`. */
const STAT_BYTES = 144;
const STAT_BLOCK = 512;

/** Attributes as Linux's `struct stat`. */
export function encodeLinuxStat(attr: Vattr): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(STAT_BYTES), view = new DataView(bytes.buffer);
  const put = (at: number, value: number) => view.setBigUint64(at, BigInt.asUintN(64, BigInt(value)), true);
  put(0, attr.vaFsid);
  put(8, attr.vaFileid);
  put(16, attr.vaNlink);
  view.setUint32(24, VTTOIF[attr.vaType]! | attr.vaMode, true);
  view.setUint32(28, attr.vaUid, true);
  view.setUint32(32, attr.vaGid, true);
  put(40, attr.vaRdev);
  put(48, attr.vaSize);
  put(56, attr.vaBlocksize);
  put(64, Math.ceil(attr.vaBytes / STAT_BLOCK));
  [attr.vaAtime, attr.vaMtime, attr.vaCtime].forEach(({ sec, nsec }, i) => {
    put(72 + i * 16, sec);
    put(80 + i * 16, nsec);
  });
  return bytes;
}

/** Path argument `i` from descriptor `fd`; the answer goes where argument i + 1 says. */
function* stat(cx: Cx, uap: SyscallArgs, i: number, fd: number, follow: number): Exec<SyscallResult> {
  const nd = yield* lookPath(cx, uap, i, follow, fd);
  if (typeof nd === "number") return { error: nd };
  const bytes = encodeLinuxStat(nd.nlVp!.vOps.vopGetattr(cx, nd.nlVp!));
  return result(yield* copyout(cx, uap.arg(i + 1), bytes));
}

function* fstat(cx: Cx, fd: number, at: bigint): Exec<SyscallResult> {
  const fp = holdfp(cx, fd, 0);
  if (fp === undefined) return { error: ERRNO.EBADF };
  const bytes = encodeLinuxStat(fp.fOps!.foStat(cx, fp));
  yield* fdrop(cx, fp);
  return result(yield* copyout(cx, at, bytes));
}

/** Whether path argument 1 is empty and the flags allow that: the call is about the descriptor itself. */
function* emptyPath(cx: Cx, uap: SyscallArgs, flags: number): Exec<boolean | number> {
  if ((flags & AT_EMPTY_PATH) === 0) return false;
  const path = yield* copyinPath(cx, uap.arg(1));
  return typeof path === "number" ? path : path === "";
}

/** newfstatat(dirfd, path, buf, flags). */
function* newfstatat(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const flags = uap.int(3), fd = dirfd(uap, 0);
  const empty = yield* emptyPath(cx, uap, flags);
  if (typeof empty === "number") return { error: empty };
  if (!empty) return yield* stat(cx, uap, 1, fd, flags & AT_SYMLINK_NOFOLLOW ? 0 : NLC_FOLLOW);
  if (fd !== AT_FDCWD) return yield* fstat(cx, fd, uap.arg(2));
  const { fdCdir } = cx.proc!.pFd!;
  return result(yield* copyout(cx, uap.arg(2), encodeLinuxStat(fdCdir.vOps.vopGetattr(cx, fdCdir))));
}

/** Bytes of Linux's `struct statfs`, and the numbers of file systems that it knows by name. */
const STATFS_BYTES = 120;
const FS_MAGIC: Readonly<Record<string, number>> = { tmpfs: 0x0102_1994, procfs: 0x9fa0, devfs: 0x1373 };

function encodeLinuxStatfs(cx: Cx, mp: Mount): Uint8Array<ArrayBuffer> {
  const { fBsize, fBlocks, fBfree, fFiles, fFfree } = mp.mntOp.vfsStatfs(cx, mp);
  const words = [
    FS_MAGIC[mp.mntOp.vfsName] ?? 0,
    fBsize,
    fBlocks,
    fBfree,
    fBfree,
    fFiles,
    fFfree,
    mp.mntFsid,
  ];
  const bytes = new Uint8Array(STATFS_BYTES), view = new DataView(bytes.buffer);
  [...words, NAME_MAX, fBsize].forEach((word, i) => view.setBigInt64(i * 8, BigInt(Math.floor(word)), true));
  return bytes;
}

function* statfs(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const nd = yield* lookPath(cx, uap, 0, NLC_FOLLOW);
  if (typeof nd === "number") return { error: nd };
  return result(yield* copyout(cx, uap.arg(1), encodeLinuxStatfs(cx, nd.nlVp!.vMount)));
}

function* fstatfs(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const fp = holdvnode(cx, uap.int(0));
  if (typeof fp === "number") return { error: fp };
  const bytes = encodeLinuxStatfs(cx, (fp.fData as Vnode).vMount);
  yield* fdrop(cx, fp);
  return result(yield* copyout(cx, uap.arg(1), bytes));
}

// ---- directories

/** A `struct linux_dirent64`: ino 8, offset of the next 8, length 2, type 1, name. */
function encodeDirent64({ ino, type, name, next }: Dirent): Uint8Array {
  const text = encoder.encode(name);
  const bytes = new Uint8Array((19 + text.length + 1 + 7) & ~7), view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(ino), true);
  view.setBigInt64(8, BigInt(next), true);
  view.setUint16(16, bytes.length, true);
  view.setUint8(18, type);
  bytes.set(text, 19);
  return bytes;
}

function* getdents64(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const fp = holdvnode(cx, uap.int(0));
  if (typeof fp === "number") return { error: fp === ERRNO.EINVAL ? ERRNO.ENOTDIR : fp };
  const got = yield* readEntries(cx, fp, fp.fData as Vnode, uap.arg(1), uap.uint(2));
  yield* fdrop(cx, fp);
  return got;
}

function* readEntries(cx: Cx, fp: File, vp: Vnode, at: bigint, most: number): Exec<SyscallResult> {
  if (vp.vType !== VDIR) return { error: ERRNO.ENOTDIR };
  if ((fp.fFlag & FREAD) === 0) return { error: ERRNO.EBADF };
  const entries = vp.vOps.vopReaddir(cx, vp, fp.fOffset);
  if (typeof entries === "number") return { error: entries };
  const records: number[] = [];
  let next = fp.fOffset;
  for (const entry of entries) {
    const record = encodeDirent64(entry);
    if (records.length + record.length > most) break;
    records.push(...record);
    next = entry.next;
  }
  if (records.length === 0 && entries.length > 0) return INVALID;
  const error = yield* copyout(cx, at, Uint8Array.from(records));
  if (error !== 0) return { error };
  fp.fOffset = next;
  return { value: BigInt(records.length) };
}

/** getcwd(buf, size): gives the length with its zero. */
function* getcwd(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const { fdNcdir, fdNrdir } = cx.proc!.pFd!;
  const path = cacheFullpath(fdNcdir, fdNrdir);
  if (typeof path === "number") return { error: path };
  const bytes = encoder.encode(`${path}\0`);
  if (bytes.length > Math.min(uap.size(1), MAXPATHLEN)) return { error: ERRNO.ERANGE };
  const error = yield* copyout(cx, uap.arg(0), bytes);
  return error !== 0 ? { error } : { value: BigInt(bytes.length) };
}

// ---- sendfile

/** Bytes that go through the kernel at once. */
const SENDFILE_CHUNK = 0x1_0000;
/** Most bytes of one call (`MAX_RW_COUNT`). */
const SENDFILE_MAX = 0x7fff_f000;

/** sendfile(out, in, offset, count): reading and writing in a loop, without the program. `in` must be a regular file. */
function* sendfile(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const offsetp = uap.arg(2), count = Math.min(uap.size(3), SENDFILE_MAX);
  let offset: number | undefined;
  if (offsetp !== 0n) {
    const word = yield* copyin(cx, offsetp, 8);
    if (word === undefined) return { error: ERRNO.EFAULT };
    offset = Number(new DataView(word.buffer).getBigInt64(0, true));
    if (offset < 0 || !Number.isSafeInteger(offset)) return INVALID;
  }
  const from = holdfp(cx, uap.int(1), FREAD);
  if (from === undefined) return { error: ERRNO.EBADF };
  const to = holdfp(cx, uap.int(0), FWRITE);
  const sent = to === undefined
    ? { error: ERRNO.EBADF }
    : (from.fData as Partial<Vnode> | undefined)?.vType !== VREG
    ? INVALID
    : yield* copyFile(cx, to, from, offset, count);
  yield* fdrop(cx, from);
  if (to !== undefined) yield* fdrop(cx, to);
  if ("error" in sent || offset === undefined) return sent;
  const next = new Uint8Array(BigInt64Array.of(BigInt(offset) + sent.value).buffer);
  const error = yield* copyout(cx, offsetp, next);
  return error !== 0 ? { error } : sent;
}

function* copyFile(
  cx: Cx,
  to: File,
  from: File,
  offset: number | undefined,
  count: number,
): Exec<SyscallResult> {
  let done = 0;
  while (done < count) {
    const buffer = new Uint8Array(Math.min(SENDFILE_CHUNK, count - done));
    const uio = Uio.kernel(UIO_READ, (offset ?? 0) + done, buffer);
    const read = yield* dofileread(cx, from, uio, offset === undefined ? 0 : O_FOFFSET);
    if ("error" in read) return done > 0 ? { value: BigInt(done) } : read;
    const got = Number(read.value);
    if (got === 0) break;
    const wrote = yield* dofilewrite(cx, to, Uio.kernel(UIO_WRITE, 0, buffer.subarray(0, got)), 0);
    const put = "error" in wrote ? 0 : Number(wrote.value);
    done += put;
    if (put === got) continue;
    // What was read and not written is to be read again.
    if (offset === undefined) from.fOffset -= got - put;
    return "error" in wrote && done === 0 ? wrote : { value: BigInt(done) };
  }
  return { value: BigInt(done) };
}

// ---- times

const UTIME_NOW = (1n << 30n) - 1n, UTIME_OMIT = (1n << 30n) - 2n;

function* timesOf(cx: Cx, at: bigint): Exec<Times | number> {
  const now = getnanotime(cx);
  if (at === 0n) return { change: { vaAtime: now, vaMtime: now }, now: true };
  const bytes = yield* copyin(cx, at, 32);
  if (bytes === undefined) return ERRNO.EFAULT;
  const view = new DataView(bytes.buffer), times: (Timespec | undefined)[] = [];
  for (const offset of [0, 16]) {
    const sec = view.getBigInt64(offset, true), nsec = view.getBigInt64(offset + 8, true);
    if (nsec === UTIME_NOW) times.push(now);
    else if (nsec === UTIME_OMIT) times.push(undefined);
    else if (nsec < 0n || nsec >= 1_000_000_000n) return ERRNO.EINVAL;
    else times.push({ sec: Number(sec), nsec: Number(nsec) });
  }
  const [vaAtime, vaMtime] = times;
  return {
    change: { ...(vaAtime !== undefined ? { vaAtime } : {}), ...(vaMtime !== undefined ? { vaMtime } : {}) },
    now: false,
  };
}

/** utimensat(dirfd, path, times, flags); no path: the descriptor. */
function* utimensat(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const times = yield* timesOf(cx, uap.arg(2));
  if (typeof times === "number") return { error: times };
  const flags = uap.int(3);
  if (uap.arg(1) !== 0n) {
    const follow = flags & AT_SYMLINK_NOFOLLOW ? 0 : NLC_FOLLOW;
    return yield* withVnode(cx, uap, 1, follow, dirfd(uap, 0), (vp) => setTimes(cx, vp, times));
  }
  const fp = holdvnode(cx, uap.int(0));
  if (typeof fp === "number") return { error: fp };
  const error = yield* setTimes(cx, fp.fData as Vnode, times);
  yield* fdrop(cx, fp);
  return result(error);
}

/** utime(path, times): seconds only. */
function* utime(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const now = getnanotime(cx);
  let times: Times = { change: { vaAtime: now, vaMtime: now }, now: true };
  if (uap.arg(1) !== 0n) {
    const bytes = yield* copyin(cx, uap.arg(1), 16);
    if (bytes === undefined) return { error: ERRNO.EFAULT };
    const view = new DataView(bytes.buffer);
    const at = (offset: number) => ({ sec: Number(view.getBigInt64(offset, true)), nsec: 0 });
    times = { change: { vaAtime: at(0), vaMtime: at(8) }, now: false };
  }
  return yield* withVnode(cx, uap, 0, NLC_FOLLOW, AT_FDCWD, (vp) => setTimes(cx, vp, times));
}

// ---- others

const S_IFMT = 0o170000, S_IFREG = 0o100000;
/** A node without a type is a regular file. */
const nodeMode = (mode: number) => (mode & S_IFMT) === 0 ? mode | S_IFREG : mode;

/** readlink and readlinkat: no room is an error. */
function readlinkat(i: number): Syscall {
  return function* (cx, uap) {
    if (uap.int(i + 2) <= 0) return INVALID;
    const fd = i === 0 ? AT_FDCWD : dirfd(uap, 0);
    return yield* callNative(cx, 527, fd, uap.arg(i), uap.arg(i + 1), uap.int(i + 2));
  };
}

/** fchownat(dirfd, path, uid, gid, flags). */
function* fchownat(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const flags = uap.int(4), empty = yield* emptyPath(cx, uap, flags);
  if (typeof empty === "number") return { error: empty };
  if (empty) return yield* callNative(cx, 123, uap.int(0), uap.int(2), uap.int(3));
  const native = flags & AT_SYMLINK_NOFOLLOW ? NATIVE_NOFOLLOW : 0;
  return yield* callNative(cx, 507, dirfd(uap, 0), uap.arg(1), uap.int(2), uap.int(3), native);
}

/** pread and pwrite: DragonFly's take flags, and −1 for "where the file stands". */
const positioned = (native: number): Syscall =>
  function* (cx, uap) {
    if (uap.long(3) < 0n) return INVALID;
    return yield* callNative(cx, native, uap.int(0), uap.arg(1), uap.arg(2), 0, uap.arg(3));
  };

/** Files stay as they are: advice, write-back of a part. */
function* nothing(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const fp = holdfp(cx, uap.int(0), 0);
  if (fp === undefined) return { error: ERRNO.EBADF };
  yield* fdrop(cx, fp);
  return OK;
}

/** System calls of this file. */
export const linuxFileSyscalls: SyscallTable = [
  same(0, "read", 3, 3),
  same(1, "write", 3, 4),
  mapped(2, "open", 3, 5, (uap) => [uap.arg(0), nativeOpenFlags(uap.int(1)), uap.int(2)]),
  same(3, "close", 1, 6),
  [4, "stat", 2, (cx, uap) => stat(cx, uap, 0, AT_FDCWD, NLC_FOLLOW)],
  [5, "fstat", 2, (cx, uap) => fstat(cx, uap.int(0), uap.arg(1))],
  [6, "lstat", 2, (cx, uap) => stat(cx, uap, 0, AT_FDCWD, 0)],
  mapped(8, "lseek", 3, 199, (uap) => [uap.int(0), 0, uap.arg(1), uap.int(2)]),
  [17, "pread64", 4, positioned(173)],
  [18, "pwrite64", 4, positioned(174)],
  same(19, "readv", 3, 120),
  same(20, "writev", 3, 121),
  same(21, "access", 2, 33),
  [40, "sendfile", 4, sendfile],
  same(74, "fsync", 1, 95),
  same(75, "fdatasync", 1, 95),
  mapped(76, "truncate", 2, 200, (uap) => [uap.arg(0), 0, uap.arg(1)]),
  mapped(77, "ftruncate", 2, 201, (uap) => [uap.int(0), 0, uap.arg(1)]),
  [79, "getcwd", 2, getcwd],
  same(80, "chdir", 1, 12),
  same(81, "fchdir", 1, 13),
  same(82, "rename", 2, 128),
  same(83, "mkdir", 2, 136),
  same(84, "rmdir", 1, 137),
  mapped(85, "creat", 2, 5, (uap) => [uap.arg(0), nativeOpenFlags(O_CREAT_WRONLY_TRUNC), uap.int(1)]),
  // A link at the end is not followed.
  mapped(86, "link", 2, 531, (uap) => [AT_FDCWD, uap.arg(0), AT_FDCWD, uap.arg(1), 0]),
  same(87, "unlink", 1, 10),
  same(88, "symlink", 2, 57),
  [89, "readlink", 3, readlinkat(0)],
  same(90, "chmod", 2, 15),
  same(91, "fchmod", 2, 124),
  same(92, "chown", 3, 16),
  same(93, "fchown", 3, 123),
  same(94, "lchown", 3, 254),
  same(95, "umask", 1, 60),
  [132, "utime", 2, utime],
  mapped(133, "mknod", 3, 14, (uap) => [uap.arg(0), nodeMode(uap.int(1)), uap.uint(2)]),
  [137, "statfs", 2, statfs],
  [138, "fstatfs", 2, fstatfs],
  same(161, "chroot", 1, 61),
  same(162, "sync", 0, 36),
  [217, "getdents64", 3, getdents64],
  [221, "fadvise64", 4, nothing],
  same(235, "utimes", 2, 138),
  mapped(
    257,
    "openat",
    4,
    504,
    (uap) => [dirfd(uap, 0), uap.arg(1), nativeOpenFlags(uap.int(2)), uap.int(3)],
  ),
  mapped(258, "mkdirat", 3, 524, (uap) => [dirfd(uap, 0), uap.arg(1), uap.int(2)]),
  mapped(259, "mknodat", 4, 526, (uap) => [dirfd(uap, 0), uap.arg(1), nodeMode(uap.int(2)), uap.uint(3)]),
  [260, "fchownat", 5, fchownat],
  [262, "newfstatat", 4, newfstatat],
  mapped(
    263,
    "unlinkat",
    3,
    508,
    (uap) => [dirfd(uap, 0), uap.arg(1), uap.int(2) & AT_REMOVEDIR ? NATIVE_REMOVEDIR : 0],
  ),
  mapped(264, "renameat", 4, 523, (uap) => [dirfd(uap, 0), uap.arg(1), dirfd(uap, 2), uap.arg(3)]),
  mapped(265, "linkat", 5, 531, (uap) => [
    dirfd(uap, 0),
    uap.arg(1),
    dirfd(uap, 2),
    uap.arg(3),
    uap.int(4) & AT_SYMLINK_FOLLOW ? NATIVE_FOLLOW : 0,
  ]),
  mapped(266, "symlinkat", 3, 528, (uap) => [uap.arg(0), dirfd(uap, 1), uap.arg(2)]),
  [267, "readlinkat", 4, readlinkat(1)],
  mapped(268, "fchmodat", 3, 506, (uap) => [dirfd(uap, 0), uap.arg(1), uap.int(2), 0]),
  mapped(269, "faccessat", 3, 509, (uap) => [dirfd(uap, 0), uap.arg(1), uap.int(2), 0]),
  [277, "sync_file_range", 4, nothing],
  [280, "utimensat", 4, utimensat],
  [295, "preadv", 4, positioned(289)],
  [296, "pwritev", 4, positioned(290)],
  [316, "renameat2", 5, function* (cx, uap): Exec<SyscallResult> {
    // RENAME_NOREPLACE and RENAME_EXCHANGE: a file system that cannot says EINVAL.
    if (uap.int(4) !== 0) return INVALID;
    return yield* callNative(cx, 523, dirfd(uap, 0), uap.arg(1), dirfd(uap, 2), uap.arg(3));
  }],
  mapped(439, "faccessat2", 4, 509, (uap) => [
    dirfd(uap, 0),
    uap.arg(1),
    uap.int(2),
    uap.int(3) & AT_EACCESS ? NATIVE_EACCESS : 0,
  ]),
];
