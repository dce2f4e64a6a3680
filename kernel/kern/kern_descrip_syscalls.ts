/**
 * System calls on descriptors (`kern/kern_descrip.c`): close, dup, fcntl, fstat, flock, pipe.
 *
 * Room: `kernel/kern/`; imports descriptors, locks, pipes.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { F_RDLCK, F_UNLCK, F_WRLCK, lfAdvlock, lfGetblock, type LockfRange } from "../vfs/lockf.ts";
import { Vnode } from "../vfs/vnode.ts";
import { copyin, copyout } from "./copy.ts";
import { ERRNO } from "./errno.ts";
import {
  DTYPE_VNODE,
  FCNTLFLAGS,
  type File,
  FREAD,
  FWRITE,
  O_CLOEXEC,
  O_NONBLOCK,
  SEEK_CUR,
  SEEK_END,
  SEEK_SET,
} from "./file.ts";
import {
  DUP_FIXED,
  DUP_VARIABLE,
  fdLimit,
  fdnode,
  fdrop,
  holdfp,
  kernClose,
  kernDup,
  UF_EXCLOSE,
} from "./kern_descrip.ts";
import { encodeStat } from "./stat.ts";
import { kernPipe } from "./sys_pipe.ts";
import { ERESTART, SYSCALL_OK, type SyscallArgs, type SyscallResult, type SyscallTable } from "./sysent.ts";

const F_DUPFD = 0, F_GETFD = 1, F_SETFD = 2, F_GETFL = 3, F_SETFL = 4, F_GETOWN = 5, F_SETOWN = 6;
const F_GETLK = 7, F_SETLK = 8, F_SETLKW = 9, F_DUP2FD = 10, F_DUPFD_CLOEXEC = 17, F_DUP2FD_CLOEXEC = 18;
const LOCK_SH = 1, LOCK_EX = 2, LOCK_NB = 4, LOCK_UN = 8;
const FD_CLOEXEC = 1;
/** Bytes of a `struct flock`. */
const FLOCK_BYTES = 24;

/** A descriptor, or a negated error number, as a result. */
function dupResult(fd: number): SyscallResult {
  return fd < 0 ? { error: -fd } : { value: BigInt(fd) };
}

function* sysClose(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const error = yield* kernClose(cx, uap.int(0));
  return error !== 0 ? { error } : SYSCALL_OK;
}

function* sysClosefrom(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const first = uap.int(0);
  if (first < 0) return { error: ERRNO.EBADF };
  const { fdFiles } = cx.proc!.pFd!;
  for (let fd = first; fd < fdFiles.length; fd++) if (fdFiles[fd] !== undefined) yield* kernClose(cx, fd);
  return SYSCALL_OK;
}

function* sysDup(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  return dupResult(yield* kernDup(cx, DUP_VARIABLE, uap.int(0), 0));
}

function* sysDup2(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const from = uap.int(0), to = uap.int(1);
  // dup2 of a descriptor to itself changes nothing, not even close-on-exec.
  if (from === to && fdnode(cx.proc!.pFd, from) !== undefined) return { value: BigInt(to) };
  return dupResult(yield* kernDup(cx, DUP_FIXED, from, to));
}

function* sysGetdtablesize(cx: Cx): Exec<SyscallResult> {
  return { value: BigInt(fdLimit(cx, cx.proc!)) };
}

function* sysFstat(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const fp = holdfp(cx, uap.int(0), 0);
  if (fp === undefined) return { error: ERRNO.EBADF };
  const bytes = encodeStat(fp.fOps!.foStat(cx, fp));
  yield* fdrop(cx, fp);
  const error = yield* copyout(cx, uap.arg(1), bytes);
  return error !== 0 ? { error } : SYSCALL_OK;
}

/** fcntl(2) (`kern_fcntl`). */
function* sysFcntl(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const fd = uap.int(0), cmd = uap.int(1), arg = uap.int(2);
  const node = fdnode(cx.proc!.pFd, fd);
  if (node === undefined) return { error: ERRNO.EBADF };
  const { fp } = node;
  switch (cmd) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
      return dupResult(yield* kernDup(cx, DUP_VARIABLE, fd, arg, cmd === F_DUPFD ? 0 : UF_EXCLOSE));
    case F_DUP2FD:
    case F_DUP2FD_CLOEXEC:
      return dupResult(yield* kernDup(cx, DUP_FIXED, fd, arg, cmd === F_DUP2FD ? 0 : UF_EXCLOSE));
    case F_GETFD:
      return { value: node.fileflags & UF_EXCLOSE ? 1n : 0n };
    case F_SETFD:
      node.fileflags = arg & FD_CLOEXEC ? UF_EXCLOSE : 0;
      return SYSCALL_OK;
    case F_GETFL:
      return { value: BigInt((fp.fFlag & ~3) | ((fp.fFlag & 3) - 1)) };
    case F_SETFL:
      fp.fFlag = (fp.fFlag & ~FCNTLFLAGS) | (arg & FCNTLFLAGS);
      return SYSCALL_OK;
    case F_GETOWN:
    case F_SETOWN:
      // No file here sends SIGIO.
      return SYSCALL_OK;
    case F_GETLK:
    case F_SETLK:
    case F_SETLKW: {
      fp.fCount++;
      const error = yield* recordLock(cx, fp, cmd, uap.arg(2));
      yield* fdrop(cx, fp);
      return error !== 0 ? { error } : SYSCALL_OK;
    }
    default:
      return { error: ERRNO.EINVAL };
  }
}

/** What F_GETLK and its like are given (`struct flock`). */
export interface Flock {
  readonly start: number;
  /** 0: to the end of the file. */
  readonly len: number;
  /** Who holds it, for F_GETLK's answer. */
  readonly pid: number;
  /** F_RDLCK, F_UNLCK, F_WRLCK. */
  readonly type: number;
  readonly whence: number;
}

/** Record locks with DragonFly's `struct flock`. */
function* recordLock(cx: Cx, fp: File, cmd: number, at: bigint): Exec<number> {
  const bytes = yield* copyin(cx, at, FLOCK_BYTES);
  if (bytes === undefined) return ERRNO.EFAULT;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const found = yield* kernRecordLock(cx, fp, cmd, {
    start: Number(view.getBigInt64(0, true)),
    len: Number(view.getBigInt64(8, true)),
    pid: view.getInt32(16, true),
    type: view.getInt16(20, true),
    whence: view.getInt16(22, true),
  });
  if (typeof found === "number") return found;
  view.setBigInt64(0, BigInt(found.start), true);
  view.setBigInt64(8, BigInt(found.len), true);
  view.setInt32(16, found.pid, true);
  view.setInt16(20, found.type, true);
  view.setInt16(22, found.whence, true);
  return yield* copyout(cx, at, bytes);
}

/**
 * Record locks (`kern_fcntl`'s part): their owner is the process. `cmd` is F_GETLK, F_SETLK or F_SETLKW.
 *
 * @returns For F_GETLK what is in the way; else 0; or an error number.
 */
export function* kernRecordLock(cx: Cx, fp: File, cmd: number, lock: Flock): Exec<Flock | number> {
  if (fp.fType !== DTYPE_VNODE || !(fp.fData instanceof Vnode)) return ERRNO.EBADF;
  const vp = fp.fData;
  const { type, whence, len } = lock;
  let { start } = lock;
  if (whence === SEEK_CUR) start += fp.fOffset;
  else if (whence === SEEK_END) start += vp.vOps.vopGetattr(cx, vp).vaSize;
  else if (whence !== SEEK_SET) return ERRNO.EINVAL;
  let end = len === 0 ? Infinity : start + len - 1;
  // A negative length names the bytes before the start.
  if (len < 0) [start, end] = [start + len, start - 1];
  if (start < 0) return ERRNO.EINVAL;
  const owner = cx.proc!;
  const wanted: LockfRange = { owner, type, start, end };
  if (type !== F_RDLCK && type !== F_WRLCK && type !== F_UNLCK) return ERRNO.EINVAL;
  if (cmd === F_GETLK) {
    const held = lfGetblock(cx, vp, wanted);
    if (held === undefined) return { ...lock, type: F_UNLCK };
    return {
      start: held.start,
      len: held.end === Infinity ? 0 : held.end - held.start + 1,
      pid: "pPid" in held.owner ? held.owner.pPid as number : -1,
      type: held.type,
      whence: SEEK_SET,
    };
  }
  if (type === F_RDLCK && (fp.fFlag & FREAD) === 0) return ERRNO.EBADF;
  if (type === F_WRLCK && (fp.fFlag & FWRITE) === 0) return ERRNO.EBADF;
  const error = yield* lfAdvlock(cx, vp, wanted, cmd === F_SETLKW);
  return error === ERESTART ? ERRNO.EINTR : error;
}

/** flock on a file that is held: its owner is the open file. */
export function* kernFlock(cx: Cx, fp: File, how: number): Exec<number> {
  if (fp.fType !== DTYPE_VNODE || !(fp.fData instanceof Vnode)) return ERRNO.EOPNOTSUPP;
  const type = how & LOCK_UN ? F_UNLCK : how & LOCK_EX ? F_WRLCK : how & LOCK_SH ? F_RDLCK : 0;
  if (type === 0) return ERRNO.EBADF;
  fp.fHaslock = type !== F_UNLCK;
  const wanted: LockfRange = { owner: fp, type, start: 0, end: Infinity };
  return yield* lfAdvlock(cx, fp.fData, wanted, (how & LOCK_NB) === 0);
}

function* sysFlock(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const fp = holdfp(cx, uap.int(0), 0);
  if (fp === undefined) return { error: ERRNO.EBADF };
  const error = yield* kernFlock(cx, fp, uap.int(1));
  yield* fdrop(cx, fp);
  return error !== 0 ? { error } : SYSCALL_OK;
}

/** pipe(2): the two descriptors come back in RAX and RDX. */
function* sysPipe(cx: Cx): Exec<SyscallResult> {
  const result = yield* kernPipe(cx, 0, 0);
  if ("error" in result) return result;
  return { value: BigInt(result.fds[0]), value2: BigInt(result.fds[1]) };
}

/** pipe2(2): the two descriptors come back in registers too; flags O_CLOEXEC and O_NONBLOCK. */
function* sysPipe2(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const flags = uap.int(1);
  if (flags & ~(O_CLOEXEC | O_NONBLOCK)) return { error: ERRNO.EINVAL };
  const result = yield* kernPipe(cx, flags & O_CLOEXEC ? UF_EXCLOSE : 0, flags & O_NONBLOCK);
  if ("error" in result) return result;
  const words = new Uint8Array(8);
  const view = new DataView(words.buffer);
  result.fds.forEach((fd, i) => view.setInt32(i * 4, fd, true));
  const error = uap.arg(0) === 0n ? 0 : yield* copyout(cx, uap.arg(0), words);
  if (error !== 0) {
    for (const fd of result.fds) yield* kernClose(cx, fd);
    return { error };
  }
  return { value: BigInt(result.fds[0]), value2: BigInt(result.fds[1]) };
}

/** System calls of this file. */
export const kernDescripSyscalls: SyscallTable = [
  [6, "close", 1, sysClose],
  [41, "dup", 1, sysDup],
  [42, "pipe", 0, sysPipe],
  [89, "getdtablesize", 0, sysGetdtablesize],
  [90, "dup2", 2, sysDup2],
  [92, "fcntl", 3, sysFcntl],
  [131, "flock", 2, sysFlock],
  [474, "closefrom", 1, sysClosefrom],
  [476, "fstat", 2, sysFstat],
  [538, "pipe2", 2, sysPipe2],
];
