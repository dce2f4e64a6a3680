/**
 * The console as a device (`kern/tty_cons.c`, `kern/tty_tty.c`): /dev/console and, for each process its own, /dev/tty.
 *
 * Room: `kernel/kern/`; imports the terminal, devices and the platform's console.
 *
 * @module
 */
import type { Cx } from "../context.ts";
import type { DevOps } from "../vfs/devfs/cdev.ts";
import { makeDev } from "../vfs/devfs/cdev.ts";
import { P_CONTROLT } from "../proc/proc.ts";
import { isRoot } from "../proc/ucred.ts";
import { ERRNO } from "./errno.ts";
import { TS_XCLUDE, Tty, ttyinput, ttyInputFull } from "./tty.ts";
import { ttioctl, ttread, ttwrite, ttypoll } from "./tty_io.ts";

/** Operations of a device that is a terminal; `find` says which one it is for the caller. */
function ttyOps(find: (cx: Cx) => Tty | undefined): DevOps {
  return {
    dOpen(cx) {
      const tp = find(cx);
      if (tp === undefined) return ERRNO.ENXIO;
      const root = cx.proc === undefined || isRoot(cx.proc.pUcred);
      return tp.tState & TS_XCLUDE && !root ? ERRNO.EBUSY : 0;
    },
    *dRead(cx, _dev, uio, ioflag) {
      const tp = find(cx);
      return tp === undefined ? ERRNO.EIO : yield* ttread(cx, tp, uio, ioflag);
    },
    *dWrite(cx, _dev, uio, ioflag) {
      const tp = find(cx);
      return tp === undefined ? ERRNO.EIO : yield* ttwrite(cx, tp, uio, ioflag);
    },
    *dIoctl(cx, _dev, com, data) {
      const tp = find(cx);
      return tp === undefined ? ERRNO.EIO : yield* ttioctl(cx, tp, com, data);
    },
    dPoll(cx, _dev, events, waiter) {
      const tp = find(cx);
      return tp === undefined ? 0 : ttypoll(tp, events, waiter);
    },
  };
}

/** The controlling terminal of the current process, if it has one (`cttyvp`). */
function ctty(cx: Cx): Tty | undefined {
  const p = cx.proc;
  if (p === undefined || (p.pFlags & P_CONTROLT) === 0) return undefined;
  return p.pSession.sTtyp as Tty | undefined;
}

/** Makes the console's terminal and its devices, and takes what is typed (`cninit_finish`). */
export function cninitFinish(cx: Cx): Tty {
  const { k } = cx;
  const tp = new Tty("console", (at, bytes) => {
    at.k.messages.pending.push(bytes);
  });
  k.vfs.consoleTty = tp;
  makeDev(k, "console", { ops: ttyOps((at) => at.k.vfs.consoleTty), perms: 0o600, drv1: tp });
  makeDev(k, "tty", { ops: ttyOps(ctty), perms: 0o666 });
  tp.tUnblock = (at) => at.k.platform.cnResumeInput(at);
  k.platform.cnRegisterInput((at, byte) => ttyinput(at, byte, tp), () => ttyInputFull(tp));
  return tp;
}
