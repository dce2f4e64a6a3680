/**
 * Descriptions of a transfer between the kernel and somebody's memory (`struct uio`, `kern/kern_subr.c`).
 *
 * Room: `kernel/vfs/`; imports copyin and copyout.
 *
 * A transfer goes piece by piece; `resid` says what is left, so that a fault in the middle leaves the count of what was done.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, copyout } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";

/** `uio_rw`: from the kernel to the buffer. */
export const UIO_READ = 0;
/** `uio_rw`: from the buffer to the kernel. */
export const UIO_WRITE = 1;

/** A part of the buffer (`struct iovec`). */
export interface Iovec {
  /** User address. */
  base: bigint;
  /** Bytes. */
  len: number;
}

/** A transfer. */
export class Uio {
  /** `uio_rw`: {@link UIO_READ} or {@link UIO_WRITE}. */
  readonly rw: number;
  /** `uio_offset`: where in the file. Advances. */
  offset: number;
  /** `uio_resid`: bytes left. Falls. */
  resid: number;
  /** User memory (UIO_USERSPACE): parts not done yet; the first one advances. Empty when {@link kbuf} is used. */
  readonly iov: Iovec[];
  /** Kernel memory (UIO_SYSSPACE) instead. */
  readonly kbuf: Uint8Array | undefined;
  /** Bytes of kbuf done. */
  kdone = 0;

  private constructor(rw: number, offset: number, iov: Iovec[], kbuf: Uint8Array | undefined) {
    this.rw = rw;
    this.offset = offset;
    this.iov = iov;
    this.kbuf = kbuf;
    this.resid = kbuf !== undefined ? kbuf.length : iov.reduce((sum, { len }) => sum + len, 0);
  }

  /** To or from user memory. */
  static user(rw: number, offset: number, iov: readonly Iovec[]): Uio {
    return new Uio(rw, offset, iov.map(({ base, len }) => ({ base, len })), undefined);
  }
  /** To or from a buffer of the kernel. */
  static kernel(rw: number, offset: number, kbuf: Uint8Array): Uio {
    return new Uio(rw, offset, [], kbuf);
  }

  /**
   * Length and user address of the next piece of at most `max` bytes; it never crosses a page of the user, so it is there as a whole or not
   * at all.
   */
  piece(max: number): { base: bigint; len: number } {
    if (this.kbuf !== undefined) return { base: 0n, len: Math.min(max, this.resid) };
    while (this.iov.length > 0 && this.iov[0]!.len === 0) this.iov.shift();
    const first = this.iov[0];
    if (first === undefined) return { base: 0n, len: 0 };
    const rest = 4096 - Number(first.base & 0xfffn);
    return { base: first.base, len: Math.min(max, first.len, rest) };
  }

  /** Counts `n` bytes as done. */
  advance(n: number): void {
    this.resid -= n;
    this.offset += n;
    if (this.kbuf !== undefined) this.kdone += n;
    else {
      const first = this.iov[0]!;
      first.base += BigInt(n);
      first.len -= n;
    }
  }
}

/** Moves up to `bytes.length` bytes between a kernel buffer and the uio (`uiomove`). Gives 0 or EFAULT. */
export function* uiomove(cx: Cx, bytes: Uint8Array, uio: Uio): Exec<number> {
  for (let done = 0; done < bytes.length && uio.resid > 0;) {
    const { base, len } = uio.piece(bytes.length - done);
    const part = bytes.subarray(done, done + len);
    if (uio.kbuf !== undefined) {
      if (uio.rw === UIO_READ) uio.kbuf.set(part, uio.kdone);
      else part.set(uio.kbuf.subarray(uio.kdone, uio.kdone + len));
    } else if (uio.rw === UIO_READ) {
      const error = yield* copyout(cx, base, part);
      if (error !== 0) return error;
    } else {
      const data = yield* copyin(cx, base, len);
      if (data === undefined) return ERRNO.EFAULT;
      part.set(data);
    }
    uio.advance(len);
    done += len;
  }
  return 0;
}

/** Moves up to `n` bytes between kernel memory at a linear address (a page in the direct map) and the uio. Gives 0 or EFAULT. */
export function* uiomoveDmap(cx: Cx, va: Gva, n: number, uio: Uio): Exec<number> {
  for (let done = 0; done < n && uio.resid > 0;) {
    const at = (va + BigInt(done)) as Gva;
    const { base, len } = uio.piece(n - done);
    if (uio.kbuf !== undefined) {
      if (uio.rw === UIO_READ) uio.kbuf.set(yield* cx.cpu.loadBytes(at, len), uio.kdone);
      else yield* cx.cpu.storeBytes(at, uio.kbuf.subarray(uio.kdone, uio.kdone + len));
    } else if (uio.rw === UIO_READ) {
      const error = yield* copyout(cx, base, yield* cx.cpu.loadBytes(at, len));
      if (error !== 0) return error;
    } else {
      const data = yield* copyin(cx, base, len);
      if (data === undefined) return ERRNO.EFAULT;
      yield* cx.cpu.storeBytes(at, data);
    }
    uio.advance(len);
    done += len;
  }
  return 0;
}
