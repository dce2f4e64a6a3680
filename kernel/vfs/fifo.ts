/**
 * Named pipes (`vfs/fifofs/fifo_vnops.c`): a fifo's vnode has one buffer for all that have it open.
 *
 * Room: `kernel/vfs/`; imports the pipes' buffer.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { ERRNO } from "../kern/errno.ts";
import { FREAD, FWRITE, O_NONBLOCK } from "../kern/file.ts";
import {
  PipeBuffer,
  pipeBufferPoll,
  pipeBufferRead,
  pipeBufferWrite,
  wakeReaders,
  wakeWriters,
} from "../kern/pipe_buffer.ts";
import { PCATCH, tsleep, wakeup } from "../lwkt/sleep.ts";
import type { PollWaiter } from "./selinfo.ts";
import type { Uio } from "./uio.ts";
import { IO_NDELAY, type Vnode } from "./vnode.ts";

/** What a fifo's vnode keeps (`struct fifoinfo`): the buffer, and opens so far, so that an open whose partner has come and gone sees it. */
class Fifoinfo {
  readonly buffer: PipeBuffer = new PipeBuffer();
  readopens = 0;
  writeopens = 0;
}

function infoOf(vp: Vnode): Fifoinfo {
  vp.vFifo ??= new Fifoinfo();
  return vp.vFifo as Fifoinfo;
}

/** open(2) of a fifo: waits for the other side, unless told not to. ENXIO when nobody reads. */
export function* fifoOpen(cx: Cx, vp: Vnode, fflag: number): Exec<number> {
  const fip = infoOf(vp), { buffer: b } = fip;
  const nonblock = (fflag & O_NONBLOCK) !== 0;
  if ((fflag & (FREAD | FWRITE)) === FWRITE && nonblock && b.readers === 0) return ERRNO.ENXIO;
  if (fflag & FREAD) {
    b.readers++;
    fip.readopens++;
  }
  if (fflag & FWRITE) {
    b.writers++;
    fip.writeopens++;
  }
  wakeup(cx, fip);
  if (nonblock || (fflag & (FREAD | FWRITE)) === (FREAD | FWRITE)) return 0;
  const reads = (fflag & FREAD) !== 0;
  const seen = reads ? fip.writeopens : fip.readopens;
  while ((reads ? b.writers : b.readers) === 0 && (reads ? fip.writeopens : fip.readopens) === seen) {
    const error = yield* tsleep(cx, fip, PCATCH, reads ? "fifoor" : "fifoow", 0);
    if (error !== 0) {
      fifoClose(cx, vp, fflag);
      return error;
    }
  }
  return 0;
}

/** close(2) of a fifo. */
export function fifoClose(cx: Cx, vp: Vnode, fflag: number): void {
  const { buffer: b } = infoOf(vp);
  if (fflag & FREAD) b.readers--;
  if (fflag & FWRITE) b.writers--;
  if (b.readers === 0 && b.writers === 0) b.drop(b.count);
  wakeReaders(cx, b);
  wakeWriters(cx, b);
}

/** read(2) of a fifo. */
export function fifoRead(cx: Cx, vp: Vnode, uio: Uio, ioflag: number): Exec<number> {
  return pipeBufferRead(cx, infoOf(vp).buffer, uio, (ioflag & IO_NDELAY) !== 0);
}
/** write(2) to a fifo. */
export function fifoWrite(cx: Cx, vp: Vnode, uio: Uio, ioflag: number): Exec<number> {
  return pipeBufferWrite(cx, infoOf(vp).buffer, uio, (ioflag & IO_NDELAY) !== 0);
}
/** POLL* of a fifo. */
export function fifoPoll(_cx: Cx, vp: Vnode, events: number, waiter: PollWaiter | undefined): number {
  const { buffer } = infoOf(vp);
  return pipeBufferPoll(buffer, buffer, events, waiter);
}
