/**
 * Linux's system calls about descriptors: dup, pipe, fcntl; and the flags of open.
 *
 * Room: `kernel/linux/`; imports DragonFly's descriptors.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, copyout } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import * as file from "../kern/file.ts";
import { DUP_FIXED, fdnode, fdrop, holdfp, kernClose, kernDup, UF_EXCLOSE } from "../kern/kern_descrip.ts";
import { kernRecordLock } from "../kern/kern_descrip_syscalls.ts";
import { kernPipe } from "../kern/sys_pipe.ts";
import type { SyscallArgs, SyscallResult, SyscallTable } from "../kern/sysent.ts";
import { callNative, result, same } from "./linux_native.ts";

const OK: SyscallResult = { value: 0n };
const INVALID: SyscallResult = { error: ERRNO.EINVAL };

const O_NONBLOCK = 0o4000, O_CLOEXEC = 0o2000000;
/** Flags of open. O_PATH, O_NOATIME, O_TMPFILE and O_LARGEFILE have no counterpart; the first opens for reading. */
const OPEN_FLAGS: readonly (readonly [linux: number, native: number])[] = [
  [0o100, file.O_CREAT],
  [0o200, file.O_EXCL],
  [0o400, file.O_NOCTTY],
  [0o1000, file.O_TRUNC],
  [0o2000, file.O_APPEND],
  [O_NONBLOCK, file.O_NONBLOCK],
  [0o10000, file.O_FSYNC],
  [0o20000, file.O_ASYNC],
  [0o40000, file.O_DIRECT],
  [0o200000, file.O_DIRECTORY],
  [0o400000, file.O_NOFOLLOW],
  [O_CLOEXEC, file.O_CLOEXEC],
];

/** open's flags as DragonFly's. */
export function nativeOpenFlags(flags: number): number {
  return OPEN_FLAGS.reduce(
    (sum, [linux, native]) => flags & linux ? sum | native : sum,
    flags & file.O_ACCMODE,
  );
}
/** What F_GETFL gives, as Linux's. */
export function linuxOpenFlags(flags: number): number {
  return OPEN_FLAGS.reduce(
    (sum, [linux, native]) => flags & native ? sum | linux : sum,
    flags & file.O_ACCMODE,
  );
}

function descriptor(fd: number): SyscallResult {
  return fd < 0 ? { error: -fd } : { value: BigInt(fd) };
}

/** dup3(old, new, flags): unlike dup2 not for one and the same. */
function* dup3(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const old = uap.int(0), wanted = uap.int(1), flags = uap.int(2);
  if (flags & ~O_CLOEXEC || old === wanted) return INVALID;
  return descriptor(yield* kernDup(cx, DUP_FIXED, old, wanted, flags & O_CLOEXEC ? UF_EXCLOSE : 0));
}

/** pipe(fds) and pipe2(fds, flags). DragonFly's pipes go both ways; these do not. */
function* pipe2(cx: Cx, at: bigint, flags: number): Exec<SyscallResult> {
  if (flags & ~(O_CLOEXEC | O_NONBLOCK | 0o40000)) return INVALID;
  const made = yield* kernPipe(
    cx,
    flags & O_CLOEXEC ? UF_EXCLOSE : 0,
    flags & O_NONBLOCK ? file.O_NONBLOCK : 0,
  );
  if ("error" in made) return made;
  const [reading, writing] = made.fds, { pFd } = cx.proc!;
  fdnode(pFd, reading)!.fp.fFlag &= ~file.FWRITE;
  fdnode(pFd, writing)!.fp.fFlag &= ~file.FREAD;
  const error = yield* copyout(cx, at, new Uint8Array(Int32Array.of(reading, writing).buffer));
  if (error === 0) return OK;
  for (const fd of made.fds) yield* kernClose(cx, fd);
  return { error };
}

const F_DUPFD = 0, F_GETFD = 1, F_SETFD = 2, F_GETFL = 3, F_SETFL = 4, F_GETLK = 5, F_SETLK = 6, F_SETLKW = 7;
const F_SETOWN = 8, F_GETOWN = 9, F_DUPFD_CLOEXEC = 1030, F_SETPIPE_SZ = 1031, F_GETPIPE_SZ = 1032;
/** DragonFly's fcntl and its commands. */
const SYS_FCNTL = 92,
  NATIVE_F_DUPFD_CLOEXEC = 17,
  NATIVE_F_GETOWN = 5,
  NATIVE_F_SETOWN = 6,
  NATIVE_F_GETLK = 7;
/** Bytes in a pipe, as F_GETPIPE_SZ gives them. */
const PIPE_BYTES = 65536n;

/** fcntl(fd, cmd, arg). */
function* fcntl(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const fd = uap.int(0), cmd = uap.int(1);
  switch (cmd) {
    case F_DUPFD:
    case F_GETFD:
    case F_SETFD:
      return yield* callNative(cx, SYS_FCNTL, fd, cmd, uap.int(2));
    case F_DUPFD_CLOEXEC:
      return yield* callNative(cx, SYS_FCNTL, fd, NATIVE_F_DUPFD_CLOEXEC, uap.int(2));
    case F_GETFL: {
      const got = yield* callNative(cx, SYS_FCNTL, fd, F_GETFL, 0);
      return "error" in got ? got : { value: BigInt(linuxOpenFlags(Number(got.value))) };
    }
    case F_SETFL:
      return yield* callNative(cx, SYS_FCNTL, fd, F_SETFL, nativeOpenFlags(uap.int(2)));
    case F_GETOWN:
    case F_SETOWN:
      return yield* callNative(
        cx,
        SYS_FCNTL,
        fd,
        cmd === F_GETOWN ? NATIVE_F_GETOWN : NATIVE_F_SETOWN,
        uap.int(2),
      );
    case F_SETPIPE_SZ:
    case F_GETPIPE_SZ:
      return fdnode(cx.proc!.pFd, fd) === undefined ? { error: ERRNO.EBADF } : { value: PIPE_BYTES };
    case F_GETLK:
    case F_SETLK:
    case F_SETLKW: {
      const fp = holdfp(cx, fd, 0);
      if (fp === undefined) return { error: ERRNO.EBADF };
      const error = yield* recordLock(cx, fp, cmd, uap.arg(2));
      yield* fdrop(cx, fp);
      return result(error);
    }
    default:
      return fdnode(cx.proc!.pFd, fd) === undefined ? { error: ERRNO.EBADF } : INVALID;
  }
}

/** Bytes of Linux's `struct flock`: type 2, whence 2, start 8, len 16, pid 24. */
const FLOCK_BYTES = 32;
/** F_RDLCK, F_WRLCK, F_UNLCK by Linux's numbers, in DragonFly's. */
const LOCK_TYPES: readonly number[] = [1, 3, 2];

function* recordLock(cx: Cx, fp: file.File, cmd: number, at: bigint): Exec<number> {
  const bytes = yield* copyin(cx, at, FLOCK_BYTES);
  if (bytes === undefined) return ERRNO.EFAULT;
  const view = new DataView(bytes.buffer);
  const found = yield* kernRecordLock(cx, fp, cmd - F_GETLK + NATIVE_F_GETLK, {
    start: Number(view.getBigInt64(8, true)),
    len: Number(view.getBigInt64(16, true)),
    pid: view.getInt32(24, true),
    type: LOCK_TYPES[view.getUint16(0, true)] ?? 0,
    whence: view.getInt16(2, true),
  });
  if (typeof found === "number") return found;
  view.setInt16(0, LOCK_TYPES.indexOf(found.type), true);
  view.setInt16(2, found.whence, true);
  view.setBigInt64(8, BigInt(found.start), true);
  view.setBigInt64(16, BigInt(found.len), true);
  view.setInt32(24, found.pid, true);
  return yield* copyout(cx, at, bytes);
}

/** System calls of this file. */
export const linuxFcntlSyscalls: SyscallTable = [
  [22, "pipe", 1, (cx, uap) => pipe2(cx, uap.arg(0), 0)],
  same(32, "dup", 1, 41),
  same(33, "dup2", 2, 90),
  [72, "fcntl", 3, fcntl],
  same(73, "flock", 2, 131),
  [292, "dup3", 3, dup3],
  [293, "pipe2", 2, (cx, uap) => pipe2(cx, uap.arg(0), uap.int(1))],
];
