/**
 * read, write and their like, ioctl, select, poll (`kern/sys_generic.c`).
 *
 * Room: `kernel/kern/`; imports descriptors, uio, signals.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { hz } from "../lwkt/callout.ts";
import { PCATCH, PINTERLOCKED, tsleep, tsleepInterlock } from "../lwkt/sleep.ts";
import { lwpsignal } from "../proc/kern_sig_send.ts";
import { LWP_OLDMASK } from "../proc/proc.ts";
import { SIG_CANTMASK, SIGPIPE } from "../proc/signal.ts";
import { POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, PollWaiter } from "../vfs/selinfo.ts";
import { type Iovec, Uio, UIO_READ, UIO_WRITE } from "../vfs/uio.ts";
import { copyin, copyout, fuword } from "./copy.ts";
import { ERRNO } from "./errno.ts";
import { DTYPE_VNODE, type File, FREAD, FWRITE, O_ASYNC, O_FOFFSET, O_NONBLOCK } from "./file.ts";
import { fdLimit, fdnode, fdrop, holdfp, UF_EXCLOSE } from "./kern_descrip.ts";
import {
  ERESTART,
  type Syscall,
  SYSCALL_OK,
  type SyscallArgs,
  type SyscallResult,
  type SyscallTable,
} from "./sysent.ts";
import { FIOASYNC, FIOCLEX, FIONBIO, FIONCLEX, IOC_IN, IOC_OUT, IOC_VOID, iocparmLen } from "./termios.ts";

/** Most parts of a readv (`UIO_MAXIOV`). */
export const UIO_MAXIOV = 1024;
/** Largest count that is not refused (`SSIZE_MAX`). */
const SSIZE_MAX = 0x7fff_ffff_ffff_ffffn;
/** Counts are cut to this, far above what memory holds, so that they are exact as numbers. */
const COUNT_CUT = 2 ** 50;
/** Largest argument of an ioctl (`IOCPARM_MAX`). */
const IOCPARM_MAX = 4096;
/** Most descriptors of a select (`FD_SETSIZE`). */
const FD_SETSIZE = 1024;

/** Whether an error only means "not all of it" when something has been moved already. */
function isInterruption(error: number): boolean {
  return error === ERRNO.EINTR || error === ERESTART || error === ERRNO.EAGAIN;
}

/** read (`dofileread`) of a file that is held; gives the count or an error. */
export function* dofileread(cx: Cx, fp: File, uio: Uio, flags: number): Exec<SyscallResult> {
  const count = uio.resid;
  let error = yield* fp.fOps!.foRead(cx, fp, uio, flags);
  if (error !== 0 && uio.resid !== count && isInterruption(error)) error = 0;
  return error !== 0 ? { error } : { value: BigInt(count - uio.resid) };
}

/** write (`dofilewrite`) of a file that is held; SIGPIPE when nobody will read it. */
export function* dofilewrite(cx: Cx, fp: File, uio: Uio, flags: number): Exec<SyscallResult> {
  const count = uio.resid;
  let error = yield* fp.fOps!.foWrite(cx, fp, uio, flags);
  if (error !== 0 && uio.resid !== count && isInterruption(error)) error = 0;
  if (error === ERRNO.EPIPE && cx.proc !== undefined) lwpsignal(cx, cx.proc, cx.lwp, SIGPIPE);
  return error !== 0 ? { error } : { value: BigInt(count - uio.resid) };
}

/** Copies the parts of a readv in (`iovec_copyin`). EINVAL for too many, or for too many bytes. */
export function* iovecCopyin(cx: Cx, at: bigint, count: number): Exec<Iovec[] | number> {
  if (count > UIO_MAXIOV) return ERRNO.EINVAL;
  const bytes = count === 0 ? new Uint8Array(0) : yield* copyin(cx, at, count * 16);
  if (bytes === undefined) return ERRNO.EFAULT;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  let total = 0n;
  const iov: Iovec[] = [];
  for (let i = 0; i < count; i++) {
    const base = view.getBigUint64(i * 16, true), len = view.getBigUint64(i * 16 + 8, true);
    total += len;
    if (len > SSIZE_MAX || total > SSIZE_MAX) return ERRNO.EINVAL;
    iov.push({ base, len: Math.min(Number(len), COUNT_CUT) });
  }
  return iov;
}

/** One transfer on a descriptor. */
function* transfer(
  cx: Cx,
  rw: number,
  fd: number,
  iov: readonly Iovec[],
  flags: number,
  offset: number,
): Exec<SyscallResult> {
  const fp = holdfp(cx, fd, rw === UIO_READ ? FREAD : FWRITE);
  if (fp === undefined) return { error: ERRNO.EBADF };
  const uio = Uio.user(rw, offset, iov);
  const result = rw === UIO_READ
    ? yield* dofileread(cx, fp, uio, flags)
    : yield* dofilewrite(cx, fp, uio, flags);
  yield* fdrop(cx, fp);
  return result;
}

/** The single part of read, write, pread, pwrite; EINVAL for a negative count. */
function onePart(base: bigint, count: bigint): readonly Iovec[] | undefined {
  return count > SSIZE_MAX ? undefined : [{ base, len: Math.min(Number(count), COUNT_CUT) }];
}

const simple = (rw: number): Syscall =>
  function* (cx, uap) {
    const iov = onePart(uap.arg(1), uap.arg(2));
    return iov === undefined ? { error: ERRNO.EINVAL } : yield* transfer(cx, rw, uap.int(0), iov, 0, 0);
  };

const vectored = (rw: number): Syscall =>
  function* (cx, uap) {
    const iov = yield* iovecCopyin(cx, uap.arg(1), uap.uint(2));
    return typeof iov === "number" ? { error: iov } : yield* transfer(cx, rw, uap.int(0), iov, 0, 0);
  };

/** Flags and offset of extpread and its like: offset −1 means "where the file stands". */
function* positioned(
  cx: Cx,
  rw: number,
  fd: number,
  iov: readonly Iovec[],
  flags: number,
  offset: bigint,
): Exec<SyscallResult> {
  if (offset === -1n) return yield* transfer(cx, rw, fd, iov, flags & ~O_FOFFSET, 0);
  if (offset < 0n) return { error: ERRNO.EINVAL };
  if (offset > BigInt(Number.MAX_SAFE_INTEGER)) return { error: ERRNO.EOVERFLOW };
  const fp = fdnode(cx.proc?.pFd, fd)?.fp;
  // A pipe has no positions.
  if (fp?.fOps !== undefined && fp.fType !== DTYPE_VNODE) return { error: ERRNO.ESPIPE };
  return yield* transfer(cx, rw, fd, iov, flags | O_FOFFSET, Number(offset));
}

const extp = (rw: number): Syscall =>
  function* (cx, uap) {
    const iov = onePart(uap.arg(1), uap.arg(2));
    if (iov === undefined) return { error: ERRNO.EINVAL };
    return yield* positioned(cx, rw, uap.int(0), iov, uap.int(3), uap.long(4));
  };
const extpv = (rw: number): Syscall =>
  function* (cx, uap) {
    const iov = yield* iovecCopyin(cx, uap.arg(1), uap.uint(2));
    if (typeof iov === "number") return { error: iov };
    return yield* positioned(cx, rw, uap.int(0), iov, uap.int(3), uap.long(4));
  };

/** ioctl(2) (`mapped_ioctl`): the request's number says how many bytes go in and come out. */
function* sysIoctl(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const fd = uap.int(0), com = uap.uint(1), at = uap.arg(2);
  const fp = holdfp(cx, fd, 0);
  if (fp === undefined) return { error: ERRNO.EBADF };
  const error = (fp.fFlag & (FREAD | FWRITE)) === 0 ? ERRNO.EBADF : yield* ioctlHeld(cx, fp, fd, com, at);
  yield* fdrop(cx, fp);
  return error !== 0 ? { error } : SYSCALL_OK;
}

function* ioctlHeld(cx: Cx, fp: File, fd: number, com: number, at: bigint): Exec<number> {
  const node = fdnode(cx.proc?.pFd, fd);
  if (com === FIOCLEX || com === FIONCLEX) {
    if (node !== undefined) node.fileflags = com === FIOCLEX ? UF_EXCLOSE : 0;
    return 0;
  }
  const bytes = iocparmLen(com);
  if (bytes > IOCPARM_MAX) return ERRNO.ENOTTY;
  let data: Uint8Array = new Uint8Array(Math.max(8, bytes));
  if (com & IOC_IN && bytes > 0) {
    const given = yield* copyin(cx, at, bytes);
    if (given === undefined) return ERRNO.EFAULT;
    data.set(given);
  } else if (com & IOC_VOID) {
    data = new Uint8Array(8);
    new DataView(data.buffer).setBigUint64(0, at, true);
  }
  if (com === FIONBIO || com === FIOASYNC) {
    const bit = com === FIONBIO ? O_NONBLOCK : O_ASYNC;
    const on = new DataView(data.buffer).getInt32(0, true) !== 0;
    fp.fFlag = on ? fp.fFlag | bit : fp.fFlag & ~bit;
    return 0;
  }
  const error = yield* fp.fOps!.foIoctl(cx, fp, com, data);
  if (error !== 0 || (com & IOC_OUT) === 0 || bytes === 0) return error;
  return yield* copyout(cx, at, data.subarray(0, bytes));
}

/**
 * Scans until something is ready or the time is over: the loop of select and poll.
 *
 * @param ticks How long to wait; undefined: without end; 0: not at all.
 * @param scan Gives how many are ready, and registers the waiter with those that are not.
 */
export function* pollLoop(
  cx: Cx,
  ticks: number | undefined,
  scan: (waiter: PollWaiter) => number,
): Exec<{ readonly count: number } | { readonly error: number }> {
  const end = ticks === undefined ? undefined : cx.k.ticks + ticks;
  const waiter = new PollWaiter();
  try {
    for (;;) {
      const count = scan(waiter);
      if (count > 0) return { count };
      const left = end === undefined ? 0 : end - cx.k.ticks;
      if (end !== undefined && left <= 0) return { count: 0 };
      tsleepInterlock(cx, waiter, PCATCH);
      const error = yield* tsleep(cx, waiter, PCATCH | PINTERLOCKED, "select", left);
      // Neither is carried out again: the time that has passed would not count.
      if (error === ERESTART || error === ERRNO.EINTR) return { error: ERRNO.EINTR };
      waiter.clear();
    }
  } finally {
    waiter.clear();
  }
}

/** What is ready of a descriptor: POLL*, POLLNVAL if it is not open. */
function pollFd(cx: Cx, fd: number, events: number, waiter: PollWaiter): number {
  const fp = fdnode(cx.proc?.pFd, fd)?.fp;
  if (fp?.fOps === undefined) return POLLNVAL;
  return fp.fOps.foPoll(cx, fp, events, waiter) & (events | POLLERR | POLLHUP);
}

const POLLFD_BYTES = 8;

/** poll(2). */
function* sysPoll(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const at = uap.arg(0), nfds = uap.uint(1), timeout = uap.int(2);
  const p = cx.proc!;
  if (nfds > Math.max(FD_SETSIZE, fdLimit(cx, p))) return { error: ERRNO.EINVAL };
  const bytes = nfds === 0 ? new Uint8Array(0) : yield* copyin(cx, at, nfds * POLLFD_BYTES);
  if (bytes === undefined) return { error: ERRNO.EFAULT };
  const ticks = timeout < 0 ? undefined : Math.ceil((timeout * hz) / 1000);
  const result = yield* dopoll(cx, bytes, ticks);
  if ("error" in result) return result;
  const error = nfds === 0 ? 0 : yield* copyout(cx, at, bytes);
  return error !== 0 ? { error } : { value: BigInt(result.count) };
}

/** poll on an array of `struct pollfd` in kernel memory, whose revents are filled in. */
export function dopoll(
  cx: Cx,
  fds: Uint8Array,
  ticks: number | undefined,
): Exec<{ readonly count: number } | { readonly error: number }> {
  const view = new DataView(fds.buffer, fds.byteOffset, fds.byteLength);
  return pollLoop(cx, ticks, (waiter) => {
    let count = 0;
    for (let i = 0; i < fds.byteLength; i += POLLFD_BYTES) {
      const fd = view.getInt32(i, true);
      const revents = fd < 0 ? 0 : pollFd(cx, fd, view.getInt16(i + 4, true), waiter);
      view.setInt16(i + 6, revents, true);
      if (revents !== 0) count++;
    }
    return count;
  });
}

/** What each of select's three sets asks for, and what counts as an answer. */
const SELECT_SETS: readonly (readonly [ask: number, answer: number])[] = [
  [POLLIN, POLLIN | POLLHUP | POLLERR],
  [POLLOUT, POLLOUT | POLLERR | POLLHUP],
  [POLLPRI, POLLPRI],
];

/** select on three bit sets in kernel memory, which are replaced by what is ready (`doselect`). EBADF for a descriptor that is not open. */
export function* doselect(
  cx: Cx,
  nd: number,
  sets: (Uint8Array | undefined)[],
  ticks: number | undefined,
): Exec<{ readonly count: number } | { readonly error: number }> {
  const out = sets.map((set) => set === undefined ? undefined : new Uint8Array(set.length));
  const fdp = cx.proc?.pFd;
  for (const set of sets) {
    for (let fd = 0; set !== undefined && fd < nd; fd++) {
      if (set[fd >> 3]! & (1 << (fd & 7)) && fdnode(fdp, fd) === undefined) return { error: ERRNO.EBADF };
    }
  }
  const result = yield* pollLoop(cx, ticks, (waiter) => {
    let count = 0;
    out.forEach((set) => set?.fill(0));
    sets.forEach((set, which) => {
      const [ask, answer] = SELECT_SETS[which]!;
      for (let fd = 0; set !== undefined && fd < nd; fd++) {
        if ((set[fd >> 3]! & (1 << (fd & 7))) === 0) continue;
        if ((pollFd(cx, fd, ask, waiter) & answer) === 0) continue;
        out[which]![fd >> 3]! |= 1 << (fd & 7);
        count++;
      }
    });
    return count;
  });
  if (!("error" in result)) sets.forEach((set, i) => set?.set(out[i]!));
  return result;
}

/** select(2). */
function* sysSelect(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  let ticks: number | undefined;
  if (uap.arg(4) !== 0n) {
    const tv = yield* copyin(cx, uap.arg(4), 16);
    if (tv === undefined) return { error: ERRNO.EFAULT };
    const view = new DataView(tv.buffer, tv.byteOffset);
    const sec = view.getBigInt64(0, true), usec = view.getBigInt64(8, true);
    if (sec < 0n || usec < 0n || usec >= 1_000_000n) return { error: ERRNO.EINVAL };
    ticks = Math.min(0x7fff_ffff, Number(sec) * hz + Math.ceil((Number(usec) * hz) / 1e6));
  }
  return yield* selectUser(cx, uap.int(0), [uap.arg(1), uap.arg(2), uap.arg(3)], ticks);
}

/** select with sets in user memory. */
export function* selectUser(
  cx: Cx,
  count: number,
  at: readonly bigint[],
  ticks: number | undefined,
): Exec<SyscallResult> {
  if (count < 0) return { error: ERRNO.EINVAL };
  const nd = Math.min(count, FD_SETSIZE, Math.max(cx.proc!.pFd!.fdFiles.length, 0));
  // Sets are arrays of 64-bit words.
  const bytes = Math.ceil(nd / 64) * 8;
  const sets: (Uint8Array | undefined)[] = [];
  for (const address of at) {
    const set = address === 0n || bytes === 0 ? undefined : yield* copyin(cx, address, bytes);
    if (address !== 0n && bytes > 0 && set === undefined) return { error: ERRNO.EFAULT };
    sets.push(set);
  }
  const result = yield* doselect(cx, nd, sets, ticks);
  if ("error" in result) return result;
  for (const [i, set] of sets.entries()) {
    if (set === undefined) continue;
    const error = yield* copyout(cx, at[i]!, set);
    if (error !== 0) return { error };
  }
  return { value: BigInt(result.count) };
}

/** pselect(2): select with nanoseconds, and with another signal mask meanwhile. */
function* sysPselect(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  let ticks: number | undefined;
  if (uap.arg(4) !== 0n) {
    const ts = yield* copyin(cx, uap.arg(4), 16);
    if (ts === undefined) return { error: ERRNO.EFAULT };
    const view = new DataView(ts.buffer, ts.byteOffset);
    const sec = view.getBigInt64(0, true), nsec = view.getBigInt64(8, true);
    if (sec < 0n || nsec < 0n || nsec >= 1_000_000_000n) return { error: ERRNO.EINVAL };
    ticks = Math.min(0x7fff_ffff, Number(sec) * hz + Math.ceil((Number(nsec) * hz) / 1e9));
  }
  if (uap.arg(5) !== 0n) {
    const set = yield* fuword(cx, uap.arg(5));
    if (set === undefined) return { error: ERRNO.EFAULT };
    // The old mask comes back on the way to user mode, behind the handler of a signal that ends the wait.
    const lp = cx.lwp!;
    lp.lwpOldsigmask = lp.lwpSigmask;
    lp.lwpFlags |= LWP_OLDMASK;
    lp.lwpSigmask = set & ~SIG_CANTMASK;
  }
  return yield* selectUser(cx, uap.int(0), [uap.arg(1), uap.arg(2), uap.arg(3)], ticks);
}

/** System calls of this file. */
export const sysGenericSyscalls: SyscallTable = [
  [3, "read", 3, simple(UIO_READ)],
  [4, "write", 3, simple(UIO_WRITE)],
  [54, "ioctl", 3, sysIoctl],
  [93, "select", 5, sysSelect],
  [120, "readv", 3, vectored(UIO_READ)],
  [121, "writev", 3, vectored(UIO_WRITE)],
  [173, "extpread", 5, extp(UIO_READ)],
  [174, "extpwrite", 5, extp(UIO_WRITE)],
  [209, "poll", 3, sysPoll],
  [289, "extpreadv", 5, extpv(UIO_READ)],
  [290, "extpwritev", 5, extpv(UIO_WRITE)],
  [499, "pselect", 6, sysPselect],
];
