/**
 * Terminal settings and requests (`sys/sys/termios.h`, `ttycom.h`, `filio.h`).
 *
 * Room: leaf of `kernel/kern/`; imports nothing.
 *
 * @module
 */

/** Indices of c_cc. */
export const VEOF = 0;
export const VEOL = 1;
export const VEOL2 = 2;
export const VERASE = 3;
export const VWERASE = 4;
export const VKILL = 5;
export const VREPRINT = 6;
export const VERASE2 = 7;
export const VINTR = 8;
export const VQUIT = 9;
export const VSUSP = 10;
export const VDSUSP = 11;
export const VSTART = 12;
export const VSTOP = 13;
export const VLNEXT = 14;
export const VDISCARD = 15;
export const VMIN = 16;
export const VTIME = 17;
export const VSTATUS = 18;
/** How many there are. */
export const NCCS = 20;
/** A control character that is switched off. */
export const POSIX_VDISABLE = 0xff;

/** c_iflag. */
export const ISTRIP = 0x0020;
export const INLCR = 0x0040;
export const IGNCR = 0x0080;
export const ICRNL = 0x0100;
export const IXON = 0x0200;
export const IXOFF = 0x0400;
export const IXANY = 0x0800;
export const IMAXBEL = 0x2000;
export const BRKINT = 0x0002;

/** c_oflag. */
export const OPOST = 0x01;
export const ONLCR = 0x02;
export const OXTABS = 0x04;
export const ONOEOT = 0x08;
export const OCRNL = 0x10;
export const ONOCR = 0x20;
export const ONLRET = 0x40;

/** c_cflag. */
export const CS8 = 0x0300;
export const CREAD = 0x0800;
export const HUPCL = 0x4000;
export const CLOCAL = 0x8000;

/** c_lflag. */
export const ECHOKE = 0x0001;
export const ECHOE = 0x0002;
export const ECHOK = 0x0004;
export const ECHO = 0x0008;
export const ECHONL = 0x0010;
export const ECHOPRT = 0x0020;
export const ECHOCTL = 0x0040;
export const ISIG = 0x0080;
export const ICANON = 0x0100;
export const ALTWERASE = 0x0200;
export const IEXTEN = 0x0400;
export const TOSTOP = 0x0040_0000;
export const NOKERNINFO = 0x0200_0000;
export const NOFLSH = 0x8000_0000;

/** Bytes of a `struct termios`. */
export const TERMIOS_BYTES = 44;

/** `struct termios`. */
export class Termios {
  cIflag = BRKINT | ICRNL | IMAXBEL | IXON | IXANY;
  cOflag = OPOST | ONLCR;
  cCflag = CREAD | CS8 | HUPCL | CLOCAL;
  cLflag = ECHO | ICANON | ISIG | IEXTEN | ECHOE | ECHOKE | ECHOCTL;
  /** ttydefchars: ^D, -, -, DEL, ^W, ^U, ^R, ^H, ^C, ^\, ^Z, ^Y, ^Q, ^S, ^V, ^O, 1, 0, ^T. */
  readonly cCc: Uint8Array = Uint8Array.of(
    4,
    0xff,
    0xff,
    0x7f,
    0x17,
    0x15,
    0x12,
    8,
    3,
    0x1c,
    0x1a,
    0x19,
    0x11,
    0x13,
    0x16,
    0x0f,
    1,
    0,
    0x14,
    0xff,
  );
  cIspeed = 115200;
  cOspeed = 115200;

  /** As it stands in user memory. */
  encode(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(TERMIOS_BYTES);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, this.cIflag, true);
    view.setUint32(4, this.cOflag, true);
    view.setUint32(8, this.cCflag, true);
    view.setUint32(12, this.cLflag, true);
    bytes.set(this.cCc, 16);
    view.setUint32(36, this.cIspeed, true);
    view.setUint32(40, this.cOspeed, true);
    return bytes;
  }
  /** Takes over what stands in user memory. */
  decode(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, TERMIOS_BYTES);
    this.cIflag = view.getUint32(0, true);
    this.cOflag = view.getUint32(4, true);
    this.cCflag = view.getUint32(8, true);
    this.cLflag = view.getUint32(12, true);
    this.cCc.set(bytes.subarray(16, 16 + NCCS));
    this.cIspeed = view.getUint32(36, true);
    this.cOspeed = view.getUint32(40, true);
  }
}

/** The request takes no argument. */
export const IOC_VOID = 0x2000_0000;
/** The argument is copied out. */
export const IOC_OUT = 0x4000_0000;
/** The argument is copied in. */
export const IOC_IN = 0x8000_0000;

/** `_IOC`: direction, group, number, bytes of the argument. */
export function ioc(direction: number, group: string, number: number, bytes: number): number {
  return (direction | ((bytes & 0x1fff) << 16) | (group.charCodeAt(0) << 8) | number) >>> 0;
}
/** Bytes of the argument (`IOCPARM_LEN`). */
export function iocparmLen(com: number): number {
  return (com >>> 16) & 0x1fff;
}

const io = (group: string, number: number) => ioc(IOC_VOID, group, number, 0);
const ior = (group: string, number: number, bytes: number) => ioc(IOC_OUT, group, number, bytes);
const iow = (group: string, number: number, bytes: number) => ioc(IOC_IN, group, number, bytes);

/** Close on exec. */
export const FIOCLEX: number = io("f", 1);
/** Do not close on exec. */
export const FIONCLEX: number = io("f", 2);
/** Bytes that can be read. */
export const FIONREAD: number = ior("f", 127, 4);
/** Set or clear O_NONBLOCK. */
export const FIONBIO: number = iow("f", 126, 4);
/** Set or clear O_ASYNC. */
export const FIOASYNC: number = iow("f", 125, 4);
export const TIOCEXCL: number = io("t", 13);
export const TIOCNXCL: number = io("t", 14);
export const TIOCFLUSH: number = iow("t", 16, 4);
export const TIOCGETA: number = ior("t", 19, TERMIOS_BYTES);
export const TIOCSETA: number = iow("t", 20, TERMIOS_BYTES);
export const TIOCSETAW: number = iow("t", 21, TERMIOS_BYTES);
export const TIOCSETAF: number = iow("t", 22, TERMIOS_BYTES);
export const TIOCGETD: number = ior("t", 26, 4);
export const TIOCDRAIN: number = io("t", 94);
export const TIOCSCTTY: number = io("t", 97);
export const TIOCGSID: number = ior("t", 99, 4);
export const TIOCSTAT: number = io("t", 101);
export const TIOCSWINSZ: number = iow("t", 103, 8);
export const TIOCGWINSZ: number = ior("t", 104, 8);
export const TIOCSTART: number = io("t", 110);
export const TIOCSTOP: number = io("t", 111);
export const TIOCNOTTY: number = io("t", 113);
export const TIOCSTI: number = iow("t", 114, 1);
export const TIOCOUTQ: number = ior("t", 115, 4);
export const TIOCSPGRP: number = iow("t", 118, 4);
export const TIOCGPGRP: number = ior("t", 119, 4);
