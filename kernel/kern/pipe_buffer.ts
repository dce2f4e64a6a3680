/**
 * The bytes between a writer and a reader (`struct pipe_buffer` of `sys/sys/pipe.h`), for pipes and fifos.
 *
 * Room: `kernel/kern/`; imports sleep and uio.
 *
 * Rules: one reader and one writer move bytes at a time ({@link PipeBuffer.rbusy}, `wbusy`), over their sleeps. A write of at most
 * {@link PIPE_BUF} bytes is in the buffer as a whole or not at all.
 *
 * Deviation: DragonFly keeps the bytes in pageable kernel memory. Here they are in TypeScript, at most {@link PIPE_SIZE} for each
 * direction of each pipe, whose number the limit on open files bounds.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { PCATCH, tsleep, wakeup } from "../lwkt/sleep.ts";
import {
  POLLHUP,
  POLLIN,
  POLLOUT,
  POLLRDNORM,
  type PollWaiter,
  SelInfo,
  selrecord,
  selwakeup,
} from "../vfs/selinfo.ts";
import { type Uio, uiomove } from "../vfs/uio.ts";
import { ERRNO } from "./errno.ts";

/** Bytes that a buffer holds. */
export const PIPE_SIZE = 16384;
/** Largest write that is never torn (`PIPE_BUF`). */
export const PIPE_BUF = 512;
/** Bytes moved at once. */
const CHUNK = 4096;

/** One direction. */
export class PipeBuffer {
  /** The ring; made by the first write. */
  #ring: Uint8Array | undefined;
  /** Index of the oldest byte. */
  #rindex = 0;
  /** Bytes in it. */
  count = 0;
  /** Open ends that read and that write. */
  readers = 0;
  writers = 0;
  /** A reader, a writer is at work. */
  rbusy = false;
  wbusy = false;
  /** What readers, and what writers, sleep on; and those who poll. */
  readonly rsel: SelInfo = new SelInfo();
  readonly wsel: SelInfo = new SelInfo();

  /** Up to `most` of the oldest bytes, which stay. */
  peek(most: number): Uint8Array {
    const n = Math.min(most, this.count, PIPE_SIZE - this.#rindex);
    return this.#ring === undefined ? new Uint8Array(0) : this.#ring.slice(this.#rindex, this.#rindex + n);
  }
  /** Drops the `n` oldest bytes. */
  drop(n: number): void {
    this.#rindex = (this.#rindex + n) % PIPE_SIZE;
    this.count -= n;
    if (this.count === 0) this.#rindex = 0;
  }
  /** Appends bytes; there is room for them. */
  append(bytes: Uint8Array): void {
    const ring = this.#ring ??= new Uint8Array(PIPE_SIZE);
    const at = (this.#rindex + this.count) % PIPE_SIZE;
    const first = bytes.subarray(0, PIPE_SIZE - at);
    ring.set(first, at);
    ring.set(bytes.subarray(first.length), 0);
    this.count += bytes.length;
  }
}

/** Wakes who waits for bytes, or for the other side's end. */
export function wakeReaders(cx: Cx, b: PipeBuffer): void {
  wakeup(cx, b.rsel.waiters);
  selwakeup(cx, b.rsel);
}
/** Wakes who waits for room. */
export function wakeWriters(cx: Cx, b: PipeBuffer): void {
  wakeup(cx, b.wsel.waiters);
  selwakeup(cx, b.wsel);
}

/** Reads what is there; waits for something unless no writer is left (`pipe_read`). */
export function* pipeBufferRead(cx: Cx, b: PipeBuffer, uio: Uio, nonblock: boolean): Exec<number> {
  if (uio.resid === 0) return 0;
  while (b.rbusy) {
    if (nonblock) return ERRNO.EAGAIN;
    const error = yield* tsleep(cx, b.rsel, PCATCH, "piperl", 0);
    if (error !== 0) return error;
  }
  b.rbusy = true;
  const error = yield* readBusy(cx, b, uio, nonblock);
  b.rbusy = false;
  wakeup(cx, b.rsel);
  return error;
}

function* readBusy(cx: Cx, b: PipeBuffer, uio: Uio, nonblock: boolean): Exec<number> {
  const asked = uio.resid;
  for (;;) {
    while (b.count > 0 && uio.resid > 0) {
      const before = uio.resid;
      const error = yield* uiomove(cx, b.peek(Math.min(CHUNK, uio.resid)), uio);
      b.drop(before - uio.resid);
      wakeWriters(cx, b);
      if (error !== 0) return error;
    }
    if (uio.resid < asked || b.writers === 0) return 0;
    if (nonblock) return ERRNO.EAGAIN;
    const error = yield* tsleep(cx, b.rsel.waiters, PCATCH, "piperd", 0);
    if (error !== 0) return error;
  }
}

/** Writes all of it, waiting for room (`pipe_write`). EPIPE when no reader is left. */
export function* pipeBufferWrite(cx: Cx, b: PipeBuffer, uio: Uio, nonblock: boolean): Exec<number> {
  while (b.wbusy) {
    if (nonblock) return ERRNO.EAGAIN;
    const error = yield* tsleep(cx, b.wsel, PCATCH, "pipewl", 0);
    if (error !== 0) return error;
  }
  b.wbusy = true;
  const error = yield* writeBusy(cx, b, uio, nonblock);
  b.wbusy = false;
  wakeup(cx, b.wsel);
  return error;
}

function* writeBusy(cx: Cx, b: PipeBuffer, uio: Uio, nonblock: boolean): Exec<number> {
  const asked = uio.resid;
  const whole = asked <= PIPE_BUF;
  while (uio.resid > 0) {
    if (b.readers === 0) return ERRNO.EPIPE;
    const room = PIPE_SIZE - b.count;
    if (room === 0 || (whole && room < uio.resid)) {
      if (nonblock) return uio.resid < asked ? 0 : ERRNO.EAGAIN;
      const error = yield* tsleep(cx, b.wsel.waiters, PCATCH, "pipewr", 0);
      if (error !== 0) return error;
      continue;
    }
    const bytes = new Uint8Array(Math.min(room, CHUNK, uio.resid));
    const before = uio.resid;
    const error = yield* uiomove(cx, bytes, uio);
    // The copy may have slept; readers only make more room.
    if (!whole || error === 0) b.append(bytes.subarray(0, before - uio.resid));
    wakeReaders(cx, b);
    if (error !== 0) return error;
  }
  return 0;
}

/** POLL* for who reads from `from` and writes to `to`. */
export function pipeBufferPoll(
  from: PipeBuffer | undefined,
  to: PipeBuffer | undefined,
  events: number,
  waiter: PollWaiter | undefined,
): number {
  let revents = 0;
  if (from !== undefined) {
    if (from.count > 0 || from.writers === 0) revents |= events & (POLLIN | POLLRDNORM);
    if (from.writers === 0) revents |= POLLHUP;
    if (revents === 0) selrecord(waiter, from.rsel);
  }
  if (to !== undefined) {
    if (to.readers === 0) revents |= POLLHUP;
    else if (PIPE_SIZE - to.count >= PIPE_BUF) revents |= events & POLLOUT;
    if (revents === 0) selrecord(waiter, to.wsel);
  }
  return revents;
}
