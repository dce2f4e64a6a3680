/**
 * Terminals: the line discipline (`kern/tty.c`): what is typed becomes lines, echoes and signals.
 *
 * Room: `kernel/kern/`; imports signals, sleep and the terminal's settings. Reading, writing and ioctl stand in tty_io.ts.
 *
 * Everything here is plain: {@link ttyinput} runs in the interrupt of the console's UART, and one byte is dealt with in one step.
 * Echoes go to the console's output queue, which drains when somebody can wait for the line.
 *
 * Left out: baud rates, modem lines, output flow control by hardware, PARMRK, DSUSP at the reader.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { wakeup } from "../lwkt/sleep.ts";
import { pgsignal } from "../proc/kern_sig_send.ts";
import type { Pgrp, Session } from "../proc/proc.ts";
import { SIGINFO, SIGINT, SIGQUIT, SIGTSTP } from "../proc/signal.ts";
import { SelInfo, selwakeup } from "../vfs/selinfo.ts";
import * as t from "./termios.ts";

/** Most bytes typed ahead (`TTYHOG`). */
export const TTYHOG = 1024;

/** Bytes at which a line that can wait is held up: the rest is for those that are on their way. */
const TTY_HIGHWATER = TTYHOG - 128;

/** `TS_TTSTOP`: output is stopped by ^S. */
export const TS_TTSTOP = 0x0100;
/** `TS_XCLUDE`: exclusive use. */
export const TS_XCLUDE = 0x0080;
/** `TS_LNCH`: the next byte is literal. */
export const TS_LNCH = 0x8000;

/** Set in the queues on bytes that were typed behind ^V: they have no special meaning. */
export const TTY_QUOTE = 0x100;

/** A terminal (`struct tty`). */
export class Tty {
  /** For people. */
  readonly tName: string;
  /** `t_rawq`: the line being typed (or all input, without ICANON), with {@link TTY_QUOTE}. */
  tRawq: number[] = [];
  /** `t_canq`: finished lines. */
  tCanq: number[] = [];
  /** `t_termios`. */
  readonly tTermios: t.Termios = new t.Termios();
  /** `t_pgrp`: foreground process group. */
  tPgrp: Pgrp | undefined = undefined;
  /** `t_session`: whose controlling terminal it is. */
  tSession: Session | undefined = undefined;
  /** `t_state`. */
  tState = 0;
  /** `t_column`: where the cursor stands. */
  tColumn = 0;
  /** `t_rocount`: bytes of tRawq echoed since the last output, so that they can be rubbed out. */
  tRocount = 0;
  /** `t_rocol`: column of the first of them. */
  tRocol = 0;
  /** `t_winsize`: rows, columns, pixels. */
  tWinsize: Uint8Array<ArrayBuffer> = Uint8Array.of(25, 0, 80, 0, 0, 0, 0, 0);
  /** Who polls for reading. */
  readonly tRsel: SelInfo = new SelInfo();
  /** Queues bytes for the line; a plain function. */
  readonly tOutput: (cx: Cx, bytes: Uint8Array) => void;
  /** Tells the line that there is room for input again, if it can be held up (`ttyunblock`). */
  tUnblock: ((cx: Cx) => Exec<void>) | undefined = undefined;
  /** Bytes not handed to {@link tOutput} yet: one interrupt's echoes go out together. */
  tEcho: number[] = [];

  /** Made by the drivers: the console, and tests. */
  constructor(name: string, output: (cx: Cx, bytes: Uint8Array) => void) {
    this.tName = name;
    this.tOutput = output;
  }
}

/** Sends one byte out, with the output settings and the column count (`ttyoutput`). */
export function ttyoutput(tp: Tty, c: number): void {
  const { cOflag } = tp.tTermios;
  const out = tp.tEcho;
  if ((cOflag & t.OPOST) === 0) {
    out.push(c);
    return;
  }
  if (c === 9 && cOflag & t.OXTABS) {
    const blanks = 8 - (tp.tColumn & 7);
    for (let i = 0; i < blanks; i++) out.push(32);
    tp.tColumn += blanks;
    return;
  }
  if (c === 4 && cOflag & t.ONOEOT) return;
  if (c === 10 && cOflag & t.ONLCR) out.push(13);
  else if (c === 13 && cOflag & t.OCRNL) c = 10;
  else if (c === 13 && cOflag & t.ONOCR && tp.tColumn === 0) return;
  out.push(c);
  if (c === 10 || c === 13) {
    if (c === 13 || cOflag & (t.ONLCR | t.ONLRET)) tp.tColumn = 0;
  } else if (c === 8) tp.tColumn = Math.max(0, tp.tColumn - 1);
  else if (c === 9) tp.tColumn = (tp.tColumn + 8) & ~7;
  // The bytes behind the first of a UTF-8 character do not move the cursor.
  else if (c >= 32 && c !== 127 && (c & 0xc0) !== 0x80) tp.tColumn++;
}

/** Hands what {@link ttyoutput} has gathered to the line (`ttstart`). */
export function ttstart(cx: Cx, tp: Tty): void {
  if (tp.tEcho.length === 0 || tp.tState & TS_TTSTOP) return;
  const bytes = Uint8Array.from(tp.tEcho);
  tp.tEcho = [];
  tp.tOutput(cx, bytes);
}

/** Whether `c` is control character `index` of the terminal (`CCEQ`). */
function cceq(tp: Tty, index: number, c: number): boolean {
  const value = tp.tTermios.cCc[index]!;
  return value === c && value !== t.POSIX_VDISABLE;
}

/** Whether `c` ends a line (`TTBREAKC`). */
export function ttbreakc(tp: Tty, c: number): boolean {
  return c === 10 || cceq(tp, t.VEOF, c) || cceq(tp, t.VEOL, c) ||
    (cceq(tp, t.VEOL2, c) && (tp.tTermios.cLflag & t.IEXTEN) !== 0);
}

/** Somebody may have something to read (`ttwakeup`). */
export function ttwakeup(cx: Cx, tp: Tty): void {
  selwakeup(cx, tp.tRsel);
  wakeup(cx, tp.tRawq);
  wakeup(cx, tp);
}

/**
 * Whether the line should hold input back (`ttyblock`, `TS_TBLOCK`): the queues are nearly full, and somebody can read from them. An
 * unfinished line is not a reason: only more input can finish it.
 */
export function ttyInputFull(tp: Tty): boolean {
  const count = tp.tRawq.length + tp.tCanq.length;
  return count >= TTY_HIGHWATER && (tp.tCanq.length > 0 || (tp.tTermios.cLflag & t.ICANON) === 0);
}

/** Throws away what was typed and not read (`ttyflush(FREAD)`). */
export function ttyflushRead(tp: Tty): void {
  tp.tRawq.length = 0;
  tp.tCanq.length = 0;
  tp.tRocount = 0;
  tp.tRocol = 0;
  tp.tState &= ~TS_LNCH;
}

/** Echoes a byte, control characters as ^X (`ttyecho`). */
function ttyecho(tp: Tty, quoted: number): void {
  const { cLflag } = tp.tTermios;
  const c = quoted & 0xff;
  if ((cLflag & t.ECHO) === 0 && ((cLflag & t.ECHONL) === 0 || c !== 10)) return;
  const plain = (c === 9 || c === 10) && (quoted & TTY_QUOTE) === 0;
  if (cLflag & t.ECHOCTL && ((c < 32 && !plain) || c === 127)) {
    ttyoutput(tp, 0x5e);
    ttyoutput(tp, c === 127 ? 0x3f : c + 0x40);
    return;
  }
  ttyoutput(tp, c);
}

/** Columns that a byte of the line took on the screen. */
function width(tp: Tty, quoted: number): number {
  const c = quoted & 0xff;
  if (c >= 0x80 && (c & 0xc0) === 0x80) return 0;
  if (c === 127 || c < 32) return tp.tTermios.cLflag & t.ECHOCTL ? 2 : 0;
  return 1;
}

/** Rubs a byte out on the screen (`ttyrub`). */
function ttyrub(tp: Tty, quoted: number): void {
  const { cLflag, cCc } = tp.tTermios;
  if ((cLflag & t.ECHO) === 0) return;
  if ((cLflag & t.ECHOE) === 0) {
    ttyecho(tp, cCc[t.VERASE]!);
    return;
  }
  if (tp.tRocount === 0) {
    // Something else was printed behind the line: show it again.
    ttyretype(tp);
    return;
  }
  let back = width(tp, quoted);
  if ((quoted & 0xff) === 9 && (quoted & TTY_QUOTE) === 0) {
    let column = tp.tRocol;
    for (const c of tp.tRawq) {
      column = (c & 0xff) === 9 && !(c & TTY_QUOTE) ? (column + 8) & ~7 : column + width(tp, c);
    }
    back = Math.max(0, tp.tColumn - column);
    for (let i = 0; i < back; i++) ttyoutput(tp, 8);
  } else {
    for (let i = 0; i < back; i++) for (const c of [8, 32, 8]) ttyoutput(tp, c);
  }
  tp.tRocount--;
}

/** Shows the line being typed anew (`ttyretype`). */
function ttyretype(tp: Tty): void {
  if (tp.tTermios.cCc[t.VREPRINT] !== t.POSIX_VDISABLE) ttyecho(tp, tp.tTermios.cCc[t.VREPRINT]!);
  ttyoutput(tp, 10);
  for (const c of tp.tCanq) ttyecho(tp, c);
  for (const c of tp.tRawq) ttyecho(tp, c);
  tp.tRocount = tp.tRawq.length;
  tp.tRocol = 0;
}

/** Takes the last character of the line: all bytes of a UTF-8 one. */
function unputc(tp: Tty): number | undefined {
  let c = tp.tRawq.pop();
  while (c !== undefined && (c & 0xc0) === 0x80 && tp.tRawq.length > 0 && tp.tRawq.at(-1)! >= 0x80) {
    c = tp.tRawq.pop();
  }
  return c;
}

function isWord(quoted: number): boolean {
  const c = quoted & 0xff;
  return c !== 32 && c !== 9;
}

/** Signals that a byte means with ISIG. */
const SIGNAL_CHARS: readonly (readonly [index: number, sig: number])[] = [
  [t.VINTR, SIGINT],
  [t.VQUIT, SIGQUIT],
  [t.VSUSP, SIGTSTP],
];

/** A byte was typed (`ttyinput`). */
export function ttyinput(cx: Cx, byte: number, tp: Tty): void {
  ttyinputByte(cx, byte, tp);
  ttstart(cx, tp);
}

function ttyinputByte(cx: Cx, byte: number, tp: Tty): void {
  const { cIflag, cLflag, cCc } = tp.tTermios;
  let c = cIflag & t.ISTRIP ? byte & 0x7f : byte & 0xff;
  const extended = (cLflag & t.IEXTEN) !== 0;
  let restart = (cIflag & t.IXANY) !== 0;
  let quoted = 0;

  if (tp.tState & TS_LNCH) {
    tp.tState &= ~TS_LNCH;
    quoted = TTY_QUOTE;
  } else {
    if (extended && cceq(tp, t.VLNEXT, c)) {
      if (cLflag & t.ECHO) {
        if (cLflag & t.ECHOE) { for (const e of [0x5e, 8]) ttyoutput(tp, e); }
        else ttyecho(tp, c);
      }
      tp.tState |= TS_LNCH;
      return;
    }
    if (cLflag & t.ISIG) {
      const found = SIGNAL_CHARS.find(([index]) => cceq(tp, index, c));
      if (found !== undefined) {
        if ((cLflag & t.NOFLSH) === 0) ttyflushRead(tp);
        ttyecho(tp, c);
        pgsignal(cx, tp.tPgrp, found[1], true);
        tp.tState &= ~TS_TTSTOP;
        return;
      }
    }
    if (cIflag & t.IXON) {
      if (cceq(tp, t.VSTOP, c)) {
        if ((tp.tState & TS_TTSTOP) === 0) {
          ttstart(cx, tp);
          tp.tState |= TS_TTSTOP;
          return;
        }
        if (!cceq(tp, t.VSTART, c)) return;
      }
      if (cceq(tp, t.VSTART, c)) {
        ttyrestart(cx, tp);
        return;
      }
    }
    if (c === 13) {
      if (cIflag & t.IGNCR) return;
      if (cIflag & t.ICRNL) c = 10;
    } else if (c === 10 && cIflag & t.INLCR) c = 13;

    if (cLflag & t.ICANON && ttyedit(cx, tp, c, extended)) {
      if (restart) ttyrestart(cx, tp);
      return;
    }
    restart = restart || false;
  }

  if (tp.tRawq.length + tp.tCanq.length >= TTYHOG) {
    if (cIflag & t.IMAXBEL && tp.tEcho.length < 64) ttyoutput(tp, 7);
    return;
  }
  tp.tRawq.push(c | quoted);
  if ((cLflag & t.ICANON) === 0) {
    ttwakeup(cx, tp);
    ttyecho(tp, c);
  } else if (quoted === 0 && ttbreakc(tp, c)) {
    tp.tRocount = 0;
    tp.tCanq.push(...tp.tRawq.splice(0));
    ttwakeup(cx, tp);
    const column = tp.tColumn;
    ttyecho(tp, c);
    // "^D" is shown and written over.
    if (cCc[t.VEOF] === c && cLflag & t.ECHO) {
      for (let i = tp.tColumn - column; i > 0; i--) ttyoutput(tp, 8);
    }
  } else {
    if (tp.tRocount++ === 0) tp.tRocol = tp.tColumn;
    ttyecho(tp, c | quoted);
  }
  if (restart) ttyrestart(cx, tp);
}

/** Output goes on after ^S. */
export function ttyrestart(cx: Cx, tp: Tty): void {
  if ((tp.tState & TS_TTSTOP) === 0) return;
  tp.tState &= ~TS_TTSTOP;
  wakeup(cx, tp.tEcho);
  wakeup(cx, tp);
  ttstart(cx, tp);
}

/** The editing keys of canonical mode. Returns whether `c` was one. */
function ttyedit(cx: Cx, tp: Tty, c: number, extended: boolean): boolean {
  const { cLflag } = tp.tTermios;
  if (cceq(tp, t.VERASE, c) || (extended && cceq(tp, t.VERASE2, c))) {
    const last = unputc(tp);
    if (last !== undefined) ttyrub(tp, last);
    return true;
  }
  if (cceq(tp, t.VKILL, c)) {
    if (cLflag & t.ECHOKE && tp.tRawq.length === tp.tRocount) {
      for (let last = unputc(tp); last !== undefined; last = unputc(tp)) ttyrub(tp, last);
    } else {
      ttyecho(tp, c);
      if (cLflag & (t.ECHOK | t.ECHOKE)) ttyecho(tp, 10);
      tp.tRawq.length = 0;
      tp.tRocount = 0;
    }
    return true;
  }
  if (!extended) return false;
  if (cceq(tp, t.VWERASE, c)) {
    let last = unputc(tp);
    while (last !== undefined && !isWord(last)) {
      ttyrub(tp, last);
      last = unputc(tp);
    }
    while (last !== undefined && isWord(last)) {
      ttyrub(tp, last);
      last = unputc(tp);
    }
    if (last !== undefined) tp.tRawq.push(last);
    return true;
  }
  if (cceq(tp, t.VREPRINT, c)) {
    ttyretype(tp);
    return true;
  }
  if (cceq(tp, t.VSTATUS, c)) {
    if (cLflag & t.ISIG) pgsignal(cx, tp.tPgrp, SIGINFO, true);
    return true;
  }
  return false;
}
