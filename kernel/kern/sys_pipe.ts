/**
 * Pipes (`kern/sys_pipe.c`). As in DragonFly both ends read and write: two buffers, one for each direction.
 *
 * Room: `kernel/kern/`; imports descriptors and buffers.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { getnanotime } from "../lwkt/callout.ts";
import type { Uio } from "../vfs/uio.ts";
import { type Timespec, type Vattr, VFIFO } from "../vfs/vnode.ts";
import { ERRNO } from "./errno.ts";
import {
  DTYPE_PIPE,
  type File,
  type Fileops,
  FREAD,
  FWRITE,
  O_FBLOCKING,
  O_FNONBLOCKING,
  O_NONBLOCK,
} from "./file.ts";
import { falloc, fdalloc, fdrop, fsetfd } from "./kern_descrip.ts";
import {
  PIPE_SIZE,
  PipeBuffer,
  pipeBufferPoll,
  pipeBufferRead,
  pipeBufferWrite,
  wakeReaders,
  wakeWriters,
} from "./pipe_buffer.ts";
import { FIONREAD } from "./termios.ts";

/** One end (`struct pipe`). */
export class Pipe {
  /** What it reads from. */
  readonly from: PipeBuffer;
  /** What it writes to. */
  readonly to: PipeBuffer;
  /** Number for stat. */
  readonly inode: number;
  /** When it was made. */
  readonly ctime: Timespec;

  constructor(from: PipeBuffer, to: PipeBuffer, inode: number, ctime: Timespec) {
    this.from = from;
    this.to = to;
    this.inode = inode;
    this.ctime = ctime;
    from.readers++;
    to.writers++;
  }
}

/** Whether a transfer must not wait. */
export function isNonblocking(fp: File, flags: number): boolean {
  if (flags & O_FBLOCKING) return false;
  return (flags & O_FNONBLOCKING) !== 0 || (fp.fFlag & O_NONBLOCK) !== 0;
}

/** Files that are pipes (`pipeops`). */
const pipeops: Fileops = {
  *foRead(cx: Cx, fp: File, uio: Uio, flags: number): Exec<number> {
    return yield* pipeBufferRead(cx, (fp.fData as Pipe).from, uio, isNonblocking(fp, flags));
  },
  *foWrite(cx: Cx, fp: File, uio: Uio, flags: number): Exec<number> {
    return yield* pipeBufferWrite(cx, (fp.fData as Pipe).to, uio, isNonblocking(fp, flags));
  },
  *foIoctl(_cx: Cx, fp: File, com: number, data: Uint8Array): Exec<number> {
    if (com !== FIONREAD) return ERRNO.ENOTTY;
    new DataView(data.buffer, data.byteOffset).setInt32(0, (fp.fData as Pipe).from.count, true);
    return 0;
  },
  foPoll(_cx, fp, events, waiter): number {
    const { from, to } = fp.fData as Pipe;
    return pipeBufferPoll(from, to, events, waiter);
  },
  foStat(_cx: Cx, fp: File): Vattr {
    const { from, inode, ctime } = fp.fData as Pipe;
    return {
      vaType: VFIFO,
      vaMode: 0o600,
      vaUid: fp.fCred.crUid,
      vaGid: fp.fCred.crGroups[0] ?? 0,
      vaNlink: 1,
      vaFsid: 0,
      vaFileid: inode,
      vaSize: from.count,
      vaBlocksize: PIPE_SIZE,
      vaAtime: ctime,
      vaMtime: ctime,
      vaCtime: ctime,
      vaFlags: 0,
      vaRdev: 0,
      vaBytes: PIPE_SIZE,
    };
  },
  *foClose(cx: Cx, fp: File): Exec<number> {
    const { from, to } = fp.fData as Pipe;
    from.readers--;
    to.writers--;
    fp.fData = undefined;
    wakeReaders(cx, to);
    wakeWriters(cx, to);
    wakeReaders(cx, from);
    wakeWriters(cx, from);
    return 0;
  },
};

/** pipe(2), pipe2(2) (`kern_pipe`): two descriptors, the one to read from first. EMFILE, ENFILE. */
export function* kernPipe(
  cx: Cx,
  fileflags: number,
  fflag: number,
): Exec<{ readonly fds: readonly [number, number] } | { readonly error: number }> {
  const p = cx.proc!;
  const fdp = p.pFd!;
  const fd0 = fdalloc(cx, p, 0);
  if (fd0 === undefined) return { error: ERRNO.EMFILE };
  const fd1 = fdalloc(cx, p, 0);
  if (fd1 === undefined) {
    fsetfd(fdp, undefined, fd0);
    return { error: ERRNO.EMFILE };
  }
  const first = falloc(cx);
  const second = typeof first === "number" ? first : falloc(cx);
  if (typeof second === "number" || typeof first === "number") {
    fsetfd(fdp, undefined, fd0);
    fsetfd(fdp, undefined, fd1);
    if (typeof first !== "number") yield* fdrop(cx, first);
    return { error: ERRNO.ENFILE };
  }
  const there = new PipeBuffer(), back = new PipeBuffer();
  const now = getnanotime(cx);
  const inode = ++cx.k.vfs.pipesMade;
  const ends: readonly (readonly [File, number, Pipe])[] = [
    [first, fd0, new Pipe(there, back, inode, now)],
    [second, fd1, new Pipe(back, there, inode, now)],
  ];
  for (const [fp, fd, pipe] of ends) {
    fp.fType = DTYPE_PIPE;
    fp.fFlag = FREAD | FWRITE | fflag;
    fp.fOps = pipeops;
    fp.fData = pipe;
    fsetfd(fdp, fp, fd, fileflags);
    yield* fdrop(cx, fp);
  }
  return { fds: [fd0, fd1] };
}
