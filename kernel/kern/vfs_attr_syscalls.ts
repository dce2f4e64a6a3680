/**
 * System calls on files' attributes and positions (`kern/vfs_syscalls.c`, the second half): stat, access, chmod, chown, utimes, truncate, lseek,
 * sync.
 *
 * Room: `kernel/kern/`; imports the file systems' face.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { getnanotime } from "../lwkt/callout.ts";
import { isRoot } from "../proc/ucred.ts";
import { LINK_MAX } from "../vfs/tmpfs/tmpfs.ts";
import { MAXPATHLEN, NAME_MAX, NLC_FOLLOW } from "../vfs/nlookup.ts";
import { vnTruncate, vnWritechk } from "../vfs/vfs_vnops.ts";
import {
  type Timespec,
  type VattrChange,
  VCHR,
  VDIR,
  VEXEC,
  VFIFO,
  vnLock,
  type Vnode,
  VREAD,
  VWRITE,
} from "../vfs/vnode.ts";
import { LK_EXCLUSIVE, LK_RELEASE } from "../lwkt/lock.ts";
import { copyin, copyout } from "./copy.ts";
import { ERRNO } from "./errno.ts";
import { DTYPE_VNODE, FWRITE, SEEK_CUR, SEEK_END, SEEK_SET } from "./file.ts";
import { fdrop, holdfp, holdvnode } from "./kern_descrip.ts";
import { PIPE_BUF } from "./pipe_buffer.ts";
import { encodeStat } from "./stat.ts";
import { SYSCALL_OK, type SyscallArgs, type SyscallResult, type SyscallTable } from "./sysent.ts";
import { TTYHOG } from "./tty.ts";
import { AT_EACCESS, AT_FDCWD, AT_SYMLINK_NOFOLLOW, errorResult, lookPath, withVnode } from "./vfs_path.ts";

/** Whether the last link is followed, by the flags of an -at call. */
const followOf = (flags: number) => flags & AT_SYMLINK_NOFOLLOW ? 0 : NLC_FOLLOW;

/** stat, lstat, fstatat. */
function* stat(cx: Cx, uap: SyscallArgs, i: number, fd: number, follow: number): Exec<SyscallResult> {
  const nd = yield* lookPath(cx, uap, i, follow, fd);
  if (typeof nd === "number") return { error: nd };
  const bytes = encodeStat(nd.nlVp!.vOps.vopGetattr(cx, nd.nlVp!));
  return errorResult(yield* copyout(cx, uap.arg(i + 1), bytes));
}

/** access, eaccess, faccessat: whether the real (or effective) user may. */
function* access(cx: Cx, uap: SyscallArgs, i: number, fd: number, effective: boolean): Exec<SyscallResult> {
  const amode = uap.int(i + 1);
  if (amode & ~7) return { error: ERRNO.EINVAL };
  const nd = yield* lookPath(cx, uap, i, NLC_FOLLOW, fd);
  if (typeof nd === "number") return { error: nd };
  if (amode === 0) return SYSCALL_OK;
  const vp = nd.nlVp!;
  const mode = (amode & 4 ? VREAD : 0) | (amode & 2 ? VWRITE : 0) | (amode & 1 ? VEXEC : 0);
  if (amode & 2) {
    const error = vnWritechk(vp);
    if (error !== 0) return { error };
  }
  const cred = cx.proc!.pUcred;
  const asked = effective
    ? cred
    : { ...cred, crUid: cred.crRuid, crGroups: [cred.crRgid, ...cred.crGroups.slice(1)] };
  return errorResult(vp.vOps.vopAccess(cx, vp, mode, asked));
}

/** Changes attributes by path. */
function* setattrPath(
  cx: Cx,
  uap: SyscallArgs,
  i: number,
  fd: number,
  follow: number,
  change: VattrChange,
): Exec<SyscallResult> {
  return yield* withVnode(
    cx,
    uap,
    i,
    follow,
    fd,
    (vp) => vp.vOps.vopSetattr(cx, vp, change, cx.proc!.pUcred),
  );
}

/** Changes attributes by descriptor. */
function* setattrFd(cx: Cx, fd: number, change: VattrChange): Exec<SyscallResult> {
  const fp = holdvnode(cx, fd);
  if (typeof fp === "number") return { error: fp };
  const vp = fp.fData as Vnode;
  const error = yield* vp.vOps.vopSetattr(cx, vp, change, cx.proc!.pUcred);
  yield* fdrop(cx, fp);
  return errorResult(error);
}

/** Owner and group of a chown; −1 leaves one as it is. */
function ownerOf(uap: SyscallArgs, i: number): VattrChange {
  const uid = uap.int(i), gid = uap.int(i + 1);
  return { ...(uid !== -1 ? { vaUid: uid >>> 0 } : {}), ...(gid !== -1 ? { vaGid: gid >>> 0 } : {}) };
}

const UTIME_NOW = -1n, UTIME_OMIT = -2n;

/** What utimes and its like ask for, and whether it is "now", for which the right to write is enough. */
export interface Times {
  readonly change: VattrChange;
  readonly now: boolean;
}

/** Reads two times, with nanoseconds or microseconds. Address 0: now. */
function* timesOf(cx: Cx, at: bigint, nanoseconds: boolean): Exec<Times | number> {
  const now = getnanotime(cx);
  if (at === 0n) return { change: { vaAtime: now, vaMtime: now }, now: true };
  const bytes = yield* copyin(cx, at, 32);
  if (bytes === undefined) return ERRNO.EFAULT;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const limit = nanoseconds ? 1_000_000_000n : 1_000_000n;
  const times: (Timespec | undefined)[] = [];
  for (const offset of [0, 16]) {
    const sec = view.getBigInt64(offset, true), sub = view.getBigInt64(offset + 8, true);
    if (nanoseconds && sub === UTIME_NOW) times.push(now);
    else if (nanoseconds && sub === UTIME_OMIT) times.push(undefined);
    else if (sub < 0n || sub >= limit) return ERRNO.EINVAL;
    else times.push({ sec: Number(sec), nsec: Number(nanoseconds ? sub : sub * 1000n) });
  }
  const [vaAtime, vaMtime] = times;
  return {
    change: { ...(vaAtime !== undefined ? { vaAtime } : {}), ...(vaMtime !== undefined ? { vaMtime } : {}) },
    now: false,
  };
}

/** Sets times: the owner any, who may write the present. */
export function* setTimes(cx: Cx, vp: Vnode, { change, now }: Times): Exec<number> {
  const cred = cx.proc!.pUcred;
  const owner = isRoot(cred) || vp.vOps.vopGetattr(cx, vp).vaUid === cred.crUid;
  if (!owner && now) {
    const error = vp.vOps.vopAccess(cx, vp, VWRITE, cred);
    if (error !== 0) return error;
    return yield* vp.vOps.vopSetattr(cx, vp, change, { ...cred, crUid: vp.vOps.vopGetattr(cx, vp).vaUid });
  }
  return yield* vp.vOps.vopSetattr(cx, vp, change, cred);
}

function* utimesPath(
  cx: Cx,
  uap: SyscallArgs,
  i: number,
  fd: number,
  follow: number,
  nanoseconds: boolean,
): Exec<SyscallResult> {
  const times = yield* timesOf(cx, uap.arg(i + 1), nanoseconds);
  if (typeof times === "number") return { error: times };
  return yield* withVnode(cx, uap, i, follow, fd, (vp) => setTimes(cx, vp, times));
}

function* utimesFd(cx: Cx, uap: SyscallArgs, nanoseconds: boolean): Exec<SyscallResult> {
  const times = yield* timesOf(cx, uap.arg(1), nanoseconds);
  if (typeof times === "number") return { error: times };
  const fp = holdvnode(cx, uap.int(0));
  if (typeof fp === "number") return { error: fp };
  const error = yield* setTimes(cx, fp.fData as Vnode, times);
  yield* fdrop(cx, fp);
  return errorResult(error);
}

/** A length or offset as a number, if it is exact. */
function exact(value: bigint): number | undefined {
  return value > BigInt(Number.MAX_SAFE_INTEGER) || value < -BigInt(Number.MAX_SAFE_INTEGER)
    ? undefined
    : Number(value);
}

/** truncate(path, pad, length). */
function* sysTruncate(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const length = uap.long(2);
  if (length < 0n) return { error: ERRNO.EINVAL };
  const size = exact(length);
  if (size === undefined) return { error: ERRNO.EFBIG };
  return yield* withVnode(cx, uap, 0, NLC_FOLLOW, AT_FDCWD, function* (vp) {
    if (vp.vType === VDIR) return ERRNO.EISDIR;
    const error = vp.vOps.vopAccess(cx, vp, VWRITE, cx.proc!.pUcred) || vnWritechk(vp);
    return error !== 0 ? error : yield* vnTruncate(cx, vp, size, cx.proc!.pUcred);
  });
}

/** ftruncate(fd, pad, length). */
function* sysFtruncate(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const length = uap.long(2);
  if (length < 0n) return { error: ERRNO.EINVAL };
  const size = exact(length);
  if (size === undefined) return { error: ERRNO.EFBIG };
  const fp = holdvnode(cx, uap.int(0));
  if (typeof fp === "number") return { error: fp };
  const vp = fp.fData as Vnode;
  let error: number = ERRNO.EINVAL;
  if (fp.fFlag & FWRITE && vp.vType !== VDIR) {
    error = vnWritechk(vp) || (yield* vnTruncate(cx, vp, size, cx.proc!.pUcred));
  }
  yield* fdrop(cx, fp);
  return errorResult(error);
}

/** lseek(fd, pad, offset, whence) (`kern_lseek`). */
function* sysLseek(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const fp = holdfp(cx, uap.int(0), 0);
  if (fp === undefined) return { error: ERRNO.EBADF };
  const result = seek(cx, fp, uap.long(2), uap.int(3));
  yield* fdrop(cx, fp);
  return result;
}

function seek(cx: Cx, fp: NonNullable<ReturnType<typeof holdfp>>, by: bigint, whence: number): SyscallResult {
  if (fp.fType !== DTYPE_VNODE) return { error: ERRNO.ESPIPE };
  const vp = fp.fData as Vnode;
  if (vp.vType === VFIFO) return { error: ERRNO.ESPIPE };
  let from = 0;
  if (whence === SEEK_CUR) from = fp.fOffset;
  else if (whence === SEEK_END) from = vp.vOps.vopGetattr(cx, vp).vaSize;
  else if (whence !== SEEK_SET) return { error: ERRNO.EINVAL };
  const to = BigInt(from) + by;
  if (to < 0n) return { error: ERRNO.EINVAL };
  const offset = exact(to);
  if (offset === undefined) return { error: ERRNO.EOVERFLOW };
  fp.fOffset = offset;
  return { value: to };
}

function* sysFsync(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const fp = holdvnode(cx, uap.int(0));
  if (typeof fp === "number") return { error: fp };
  const vp = fp.fData as Vnode;
  yield* vnLock(cx, vp, LK_EXCLUSIVE);
  const error = yield* vp.vOps.vopFsync(cx, vp);
  yield* vnLock(cx, vp, LK_RELEASE);
  yield* fdrop(cx, fp);
  return errorResult(error);
}

/** Everything is in memory, where it stays. */
function* sysSync(): Exec<SyscallResult> {
  return SYSCALL_OK;
}

/** Answers of pathconf by number. */
const PATHCONF: Readonly<Record<number, number>> = {
  1: LINK_MAX,
  2: 255,
  3: TTYHOG,
  4: NAME_MAX,
  5: MAXPATHLEN,
  6: PIPE_BUF,
  7: 1,
  8: 1,
  9: 0xff,
};

function pathconf(vp: Vnode | undefined, name: number): SyscallResult {
  const value = PATHCONF[name];
  const terminalOnly = name === 2 || name === 3 || name === 9;
  if (value === undefined || (terminalOnly && vp?.vType !== VCHR)) return { error: ERRNO.EINVAL };
  return { value: BigInt(value) };
}

function* sysPathconf(cx: Cx, uap: SyscallArgs, follow: number): Exec<SyscallResult> {
  const nd = yield* lookPath(cx, uap, 0, follow);
  return typeof nd === "number" ? { error: nd } : pathconf(nd.nlVp, uap.int(1));
}

function* sysFpathconf(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const fp = holdfp(cx, uap.int(0), 0);
  if (fp === undefined) return { error: ERRNO.EBADF };
  const vp = fp.fType === DTYPE_VNODE ? fp.fData as Vnode : undefined;
  yield* fdrop(cx, fp);
  return pathconf(vp, uap.int(1));
}

const modeOf = (mode: number): VattrChange => ({ vaMode: mode & 0o7777 });

/** System calls of this file. */
export const vfsAttrSyscalls: SyscallTable = [
  [15, "chmod", 2, (cx, uap) => setattrPath(cx, uap, 0, AT_FDCWD, NLC_FOLLOW, modeOf(uap.int(1)))],
  [16, "chown", 3, (cx, uap) => setattrPath(cx, uap, 0, AT_FDCWD, NLC_FOLLOW, ownerOf(uap, 1))],
  [33, "access", 2, (cx, uap) => access(cx, uap, 0, AT_FDCWD, false)],
  [36, "sync", 0, sysSync],
  [95, "fsync", 1, sysFsync],
  [123, "fchown", 3, (cx, uap) => setattrFd(cx, uap.int(0), ownerOf(uap, 1))],
  [124, "fchmod", 2, (cx, uap) => setattrFd(cx, uap.int(0), modeOf(uap.int(1)))],
  [138, "utimes", 2, (cx, uap) => utimesPath(cx, uap, 0, AT_FDCWD, NLC_FOLLOW, false)],
  [191, "pathconf", 2, (cx, uap) => sysPathconf(cx, uap, NLC_FOLLOW)],
  [192, "fpathconf", 2, sysFpathconf],
  [199, "lseek", 4, sysLseek],
  [200, "truncate", 3, sysTruncate],
  [201, "ftruncate", 3, sysFtruncate],
  [206, "futimes", 2, (cx, uap) => utimesFd(cx, uap, false)],
  [254, "lchown", 3, (cx, uap) => setattrPath(cx, uap, 0, AT_FDCWD, 0, ownerOf(uap, 1))],
  [274, "lchmod", 2, (cx, uap) => setattrPath(cx, uap, 0, AT_FDCWD, 0, modeOf(uap.int(1)))],
  [275, "netbsd_lchown", 3, (cx, uap) => setattrPath(cx, uap, 0, AT_FDCWD, 0, ownerOf(uap, 1))],
  [276, "lutimes", 2, (cx, uap) => utimesPath(cx, uap, 0, AT_FDCWD, 0, false)],
  [475, "stat", 2, (cx, uap) => stat(cx, uap, 0, AT_FDCWD, NLC_FOLLOW)],
  [477, "lstat", 2, (cx, uap) => stat(cx, uap, 0, AT_FDCWD, 0)],
  [505, "fstatat", 4, (cx, uap) => stat(cx, uap, 1, uap.int(0), followOf(uap.int(3)))],
  [
    506,
    "fchmodat",
    4,
    (cx, uap) => setattrPath(cx, uap, 1, uap.int(0), followOf(uap.int(3)), modeOf(uap.int(2))),
  ],
  [
    507,
    "fchownat",
    5,
    (cx, uap) => setattrPath(cx, uap, 1, uap.int(0), followOf(uap.int(4)), ownerOf(uap, 2)),
  ],
  [509, "faccessat", 4, (cx, uap) => access(cx, uap, 1, uap.int(0), (uap.int(3) & AT_EACCESS) !== 0)],
  [532, "eaccess", 2, (cx, uap) => access(cx, uap, 0, AT_FDCWD, true)],
  [533, "lpathconf", 2, (cx, uap) => sysPathconf(cx, uap, 0)],
  [539, "utimensat", 4, (cx, uap) => utimesPath(cx, uap, 1, uap.int(0), followOf(uap.int(3)), true)],
  [540, "futimens", 2, (cx, uap) => utimesFd(cx, uap, true)],
];
