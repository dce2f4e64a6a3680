/**
 * Terminals as programs use them (`kern/tty.c`): read, write, ioctl, poll, and who may (job control).
 *
 * Room: `kernel/kern/`; imports the line discipline, processes and signals.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { PCATCH, tsleep, wakeup } from "../lwkt/sleep.ts";
import { isOrphaned, pgsignal } from "../proc/kern_sig_send.ts";
import { P_CONTROLT, P_PPWAIT, type Proc, type Session } from "../proc/proc.ts";
import { SIGCONT, SIGHUP, sigismember, SIGTTIN, SIGTTOU, SIGWINCH } from "../proc/signal.ts";
import { isRoot } from "../proc/ucred.ts";
import { POLLHUP, POLLIN, POLLOUT, POLLRDNORM, type PollWaiter, selrecord } from "../vfs/selinfo.ts";
import { type Uio, uiomove } from "../vfs/uio.ts";
import { IO_NDELAY } from "../vfs/vnode.ts";
import { ERRNO } from "./errno.ts";
import { FREAD } from "./file.ts";
import * as t from "./termios.ts";
import {
  TS_TTSTOP,
  TS_XCLUDE,
  ttbreakc,
  ttstart,
  ttwakeup,
  type Tty,
  TTY_QUOTE,
  ttyflushRead,
  ttyinput,
  ttyInputFull,
  ttyoutput,
  ttyrestart,
} from "./tty.ts";

/** Ticks in a second. */
const HZ = 100;
/** Bytes of output that are worked on at once. */
const OBUFSIZ = 512;

/** Whether the process is in the background of its controlling terminal (`isbackground`). */
export function isbackground(p: Proc | undefined, tp: Tty): p is Proc {
  return p !== undefined && isctty(p, tp) && p.pPgrp !== tp.tPgrp;
}

/** Whether the terminal is the process's controlling one (`isctty`). */
export function isctty(p: Proc, tp: Tty): boolean {
  return p.pSession === tp.tSession && (p.pFlags & P_CONTROLT) !== 0;
}

/**
 * A background process touches the terminal: its group gets `sig` and the caller tries again. Gives 0 when the call may go on (it ignores
 * or blocks the signal and `ignoredIsFine`), −2 to try again, or an error number.
 */
function* background(cx: Cx, tp: Tty, sig: number, ignoredIsFine: boolean): Exec<number> {
  const { proc: p, lwp } = cx;
  if (p === undefined || lwp === undefined) return 0;
  const deaf = sigismember(p.pSigacts.pSigignore, sig) || sigismember(lwp.lwpSigmask, sig);
  if (deaf && ignoredIsFine) return 0;
  if ((deaf && !ignoredIsFine) || (p.pFlags & P_PPWAIT) !== 0 || isOrphaned(p.pPgrp)) return ERRNO.EIO;
  pgsignal(cx, p.pPgrp, sig);
  const error = yield* tsleep(cx, tp.tRsel, PCATCH, sig === SIGTTIN ? "ttybg2" : "ttybg1", HZ);
  return error !== 0 && error !== ERRNO.EWOULDBLOCK ? error : -2;
}

/** Whether a read would find something. */
function readable(tp: Tty): boolean {
  const { cLflag, cCc } = tp.tTermios;
  if (cLflag & t.ICANON) return tp.tCanq.length > 0;
  const count = tp.tRawq.length + tp.tCanq.length;
  return count > 0 && count >= Math.min(1, cCc[t.VMIN]!);
}

/** read(2) of a terminal (`ttread`): one line with ICANON, else what VMIN and VTIME say. */
export function* ttread(cx: Cx, tp: Tty, uio: Uio, ioflag: number): Exec<number> {
  for (;;) {
    if (isbackground(cx.proc, tp)) {
      const error = yield* background(cx, tp, SIGTTIN, false);
      if (error === -2) continue;
      if (error !== 0) return error;
    }
    const waited = (tp.tTermios.cLflag & t.ICANON) !== 0
      ? yield* waitLine(cx, tp, ioflag)
      : yield* waitRaw(cx, tp, uio, ioflag);
    if (waited === -2) continue;
    if (waited === -1) return 0;
    if (waited !== 0) return waited;
    return yield* drain(cx, tp, uio);
  }
}

/** Waits for a line. 0: there is one; −2: look again; else an error number. */
function* waitLine(cx: Cx, tp: Tty, ioflag: number): Exec<number> {
  if (tp.tCanq.length > 0) return 0;
  if (ioflag & IO_NDELAY) return ERRNO.EAGAIN;
  const error = yield* tsleep(cx, tp, PCATCH, "ttyin", 0);
  return error !== 0 ? error : -2;
}

/** Waits without ICANON. −1: the time is over with nothing to read. */
function* waitRaw(cx: Cx, tp: Tty, uio: Uio, ioflag: number): Exec<number> {
  const min = Math.min(tp.tTermios.cCc[t.VMIN]!, uio.resid);
  const time = tp.tTermios.cCc[t.VTIME]!;
  const count = () => tp.tRawq.length + tp.tCanq.length;
  if (ioflag & IO_NDELAY) return count() > 0 ? 0 : ERRNO.EAGAIN;
  if (min === 0 && time === 0) return count() > 0 ? 0 : -1;
  if (count() >= Math.max(1, min)) return 0;
  // With VMIN the clock starts with the first byte and anew with each one; without, at once.
  const running = time > 0 && (min === 0 || count() > 0);
  const before = count();
  const error = yield* tsleep(cx, tp, PCATCH, "ttyin", running ? time * (HZ / 10) : 0);
  if (error === ERRNO.EWOULDBLOCK) {
    if (count() > before) return -2;
    return count() > 0 ? 0 : -1;
  }
  return error !== 0 ? error : -2;
}

/** Gives the reader what is there: up to the end of a line with ICANON. */
function* drain(cx: Cx, tp: Tty, uio: Uio): Exec<number> {
  const canonical = (tp.tTermios.cLflag & t.ICANON) !== 0;
  if (!canonical && tp.tRawq.length > 0) tp.tCanq.push(...tp.tRawq.splice(0));
  const bytes: number[] = [];
  while (bytes.length < uio.resid && tp.tCanq.length > 0) {
    const c = tp.tCanq.shift()!;
    const special = canonical && (c & TTY_QUOTE) === 0;
    if (special && c === tp.tTermios.cCc[t.VEOF] && c !== t.POSIX_VDISABLE) break;
    bytes.push(c & 0xff);
    if (special && ttbreakc(tp, c)) break;
  }
  if (tp.tUnblock !== undefined && !ttyInputFull(tp)) yield* tp.tUnblock(cx);
  return yield* uiomove(cx, Uint8Array.from(bytes), uio);
}

/** write(2) to a terminal (`ttwrite`). */
export function* ttwrite(cx: Cx, tp: Tty, uio: Uio, ioflag: number): Exec<number> {
  for (;;) {
    if (isbackground(cx.proc, tp) && tp.tTermios.cLflag & t.TOSTOP) {
      const error = yield* background(cx, tp, SIGTTOU, true);
      if (error === -2) continue;
      if (error !== 0) return error;
    }
    if (uio.resid === 0) return 0;
    if (tp.tState & TS_TTSTOP) {
      if (ioflag & IO_NDELAY) return ERRNO.EAGAIN;
      const error = yield* tsleep(cx, tp, PCATCH, "ttyout", 0);
      if (error !== 0) return error;
      continue;
    }
    const bytes = new Uint8Array(Math.min(OBUFSIZ, uio.resid));
    const before = uio.resid;
    const error = yield* uiomove(cx, bytes, uio);
    for (const c of bytes.subarray(0, before - uio.resid)) ttyoutput(tp, c);
    tp.tRocount = 0;
    ttstart(cx, tp);
    yield* cx.k.platform.consoleDrain(cx);
    if (error !== 0) return error;
  }
}

/** POLL* that are there now (`ttykqfilter`). */
export function ttypoll(tp: Tty, events: number, waiter: PollWaiter | undefined): number {
  let revents = events & POLLOUT;
  if (events & (POLLIN | POLLRDNORM)) {
    if (readable(tp)) revents |= events & (POLLIN | POLLRDNORM);
    else selrecord(waiter, tp.tRsel);
  }
  return revents & ~POLLHUP;
}

/** Requests that a background process may not make without being stopped. */
const CHANGING: ReadonlySet<number> = new Set([
  t.TIOCFLUSH,
  t.TIOCSETA,
  t.TIOCSETAF,
  t.TIOCSETAW,
  t.TIOCSPGRP,
  t.TIOCSTAT,
  t.TIOCSTI,
  t.TIOCSWINSZ,
]);

/** ioctl(2) of a terminal (`ttioctl`). */
export function* ttioctl(cx: Cx, tp: Tty, com: number, data: Uint8Array): Exec<number> {
  while (CHANGING.has(com) && isbackground(cx.proc, tp)) {
    const error = yield* background(cx, tp, SIGTTOU, true);
    if (error === 0) break;
    if (error !== -2) return error;
  }
  const error = ttioctlNow(cx, tp, com, data);
  // A flush makes room; new settings may have made what is there readable, or not.
  if (tp.tUnblock !== undefined && !ttyInputFull(tp)) yield* tp.tUnblock(cx);
  return error;
}

function ttioctlNow(cx: Cx, tp: Tty, com: number, data: Uint8Array): number {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const p = cx.proc;
  switch (com) {
    case t.FIONREAD: {
      const canonical = (tp.tTermios.cLflag & t.ICANON) !== 0;
      view.setInt32(0, tp.tCanq.length + (canonical ? 0 : tp.tRawq.length), true);
      return 0;
    }
    case t.TIOCEXCL:
      tp.tState |= TS_XCLUDE;
      return 0;
    case t.TIOCNXCL:
      tp.tState &= ~TS_XCLUDE;
      return 0;
    case t.TIOCFLUSH: {
      const what = view.getInt32(0, true);
      if (what === 0 || what & FREAD) ttyflushRead(tp);
      return 0;
    }
    case t.TIOCGETA:
      data.set(tp.tTermios.encode());
      return 0;
    case t.TIOCSETA:
    case t.TIOCSETAW:
    case t.TIOCSETAF:
      if (com === t.TIOCSETAF) ttyflushRead(tp);
      setTermios(cx, tp, data);
      return 0;
    case t.TIOCGETD:
      view.setInt32(0, 0, true);
      return 0;
    case t.TIOCDRAIN:
      return 0;
    case t.TIOCSTART:
      ttyrestart(cx, tp);
      return 0;
    case t.TIOCSTOP:
      tp.tState |= TS_TTSTOP;
      return 0;
    case t.TIOCOUTQ:
      view.setInt32(0, tp.tEcho.length, true);
      return 0;
    case t.TIOCSTI:
      if (p !== undefined && !isRoot(p.pUcred) && !isctty(p, tp)) return ERRNO.EACCES;
      ttyinput(cx, data[0]!, tp);
      return 0;
    case t.TIOCSTAT:
      return 0;
    case t.TIOCGWINSZ:
      data.set(tp.tWinsize);
      return 0;
    case t.TIOCSWINSZ:
      if (tp.tWinsize.some((byte, i) => byte !== data[i])) {
        tp.tWinsize = Uint8Array.from(data.subarray(0, 8));
        pgsignal(cx, tp.tPgrp, SIGWINCH, true);
      }
      return 0;
    default:
      return p === undefined ? ERRNO.ENOTTY : sessionIoctl(cx, tp, com, view, p);
  }
}

/** New settings. Leaving or entering canonical mode moves what was typed to where the new mode looks for it. */
function setTermios(cx: Cx, tp: Tty, data: Uint8Array): void {
  const before = tp.tTermios.cLflag;
  tp.tTermios.decode(data);
  const after = tp.tTermios.cLflag;
  if ((before ^ after) & t.ICANON) {
    if (after & t.ICANON) {
      // What was typed raw and not read becomes the beginning of a line.
      tp.tRawq = [...tp.tCanq, ...tp.tRawq];
      tp.tCanq = [];
    }
    tp.tRocount = 0;
    ttwakeup(cx, tp);
  }
  if ((tp.tTermios.cIflag & t.IXON) === 0) ttyrestart(cx, tp);
}

function sessionIoctl(cx: Cx, tp: Tty, com: number, view: DataView, p: Proc): number {
  switch (com) {
    case t.TIOCSCTTY: {
      const session = p.pSession;
      if (session.sLeader !== p) return ERRNO.EPERM;
      if ((session.sTtyp !== undefined || tp.tSession !== undefined) && tp.tSession !== session) {
        return ERRNO.EPERM;
      }
      tp.tSession = session;
      tp.tPgrp = p.pPgrp;
      session.sTtyp = tp;
      p.pFlags |= P_CONTROLT;
      return 0;
    }
    case t.TIOCNOTTY:
      if (!isctty(p, tp)) return ERRNO.ENOTTY;
      if (p.pSession.sLeader === p) ttyDisassociate(cx, p.pSession);
      p.pFlags &= ~P_CONTROLT;
      return 0;
    case t.TIOCGSID:
      if (!isctty(p, tp)) return ERRNO.ENOTTY;
      view.setInt32(0, tp.tSession!.sSid, true);
      return 0;
    case t.TIOCGPGRP:
      if (!isctty(p, tp)) return ERRNO.ENOTTY;
      // A group that is gone has a number that none will have.
      view.setInt32(0, tp.tPgrp?.pgId ?? 99999 + 1, true);
      return 0;
    case t.TIOCSPGRP: {
      if (!isctty(p, tp)) return ERRNO.ENOTTY;
      const pgrp = cx.k.procs.pgfind(view.getInt32(0, true));
      if (pgrp === undefined || pgrp.pgSession !== p.pSession) return ERRNO.EPERM;
      tp.tPgrp = pgrp;
      wakeup(cx, tp.tRsel);
      return 0;
    }
    default:
      return ERRNO.ENOTTY;
  }
}

/** The session's terminal is its no more. */
export function ttyDisassociate(cx: Cx, session: Session): void {
  const tp = session.sTtyp as Tty | undefined;
  session.sTtyp = undefined;
  session.sTtyvp = undefined;
  if (tp === undefined || tp.tSession !== session) return;
  tp.tSession = undefined;
  tp.tPgrp = undefined;
  wakeup(cx, tp.tRsel);
}

/**
 * A session's leader exits (part of `exit1`): its foreground group gets SIGHUP and SIGCONT, and the terminal belongs to nobody.
 */
export function ttySessionLeaderExit(cx: Cx, session: Session): void {
  const tp = session.sTtyp as Tty | undefined;
  if (tp !== undefined && tp.tSession === session) {
    pgsignal(cx, tp.tPgrp, SIGHUP, true);
    pgsignal(cx, tp.tPgrp, SIGCONT, true);
  }
  ttyDisassociate(cx, session);
}

/** A process group is being freed: no terminal may go on naming it (part of `pgdelete`). */
export function ttyPgrpGone(pgrp: object, session: Session): void {
  const tp = session.sTtyp as Tty | undefined;
  if (tp !== undefined && tp.tPgrp === pgrp) tp.tPgrp = undefined;
}
