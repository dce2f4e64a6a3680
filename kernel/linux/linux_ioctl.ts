/**
 * Linux's ioctl: requests by Linux's numbers, and Linux's `struct termios` (`sys/emulation/linux/linux_ioctl.c`).
 *
 * Room: `kernel/linux/`; imports DragonFly's terminals.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, copyout } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { type File, FREAD, FWRITE } from "../kern/file.ts";
import { fdrop, holdfp } from "../kern/kern_descrip.ts";
import type { SyscallArgs, SyscallResult, SyscallTable } from "../kern/sysent.ts";
import * as t from "../kern/termios.ts";
import { callNative, result } from "./linux_native.ts";

const TCGETS = 0x5401, TCSETS = 0x5402, TCSETSF = 0x5404, TCSBRK = 0x5409, TCFLSH = 0x540b, TCSBRKP = 0x5425;
/** Requests whose argument is the same. */
const SAME: ReadonlyMap<number, number> = new Map([
  [0x540c, t.TIOCEXCL],
  [0x540d, t.TIOCNXCL],
  [0x540e, t.TIOCSCTTY],
  [0x540f, t.TIOCGPGRP],
  [0x5410, t.TIOCSPGRP],
  [0x5411, t.TIOCOUTQ],
  [0x5412, t.TIOCSTI],
  [0x5413, t.TIOCGWINSZ],
  [0x5414, t.TIOCSWINSZ],
  [0x541b, t.FIONREAD],
  [0x5421, t.FIONBIO],
  [0x5422, t.TIOCNOTTY],
  [0x5429, t.TIOCGSID],
  [0x5450, t.FIONCLEX],
  [0x5451, t.FIOCLEX],
  [0x5452, t.FIOASYNC],
]);
const SYS_IOCTL = 54;

type Bits = readonly (readonly [linux: number, native: number])[];
/** c_iflag: the first nine bits are the same. */
const IFLAG_SAME = 0x1ff;
const IFLAG: Bits = [[0x0400, t.IXON], [0x0800, t.IXANY], [0x1000, t.IXOFF], [0x2000, t.IMAXBEL]];
const OFLAG: Bits = [
  [0x01, t.OPOST],
  [0x04, t.ONLCR],
  [0x08, t.OCRNL],
  [0x10, t.ONOCR],
  [0x20, t.ONLRET],
  [0x1800, t.OXTABS],
];
const LFLAG: Bits = [
  [0x0001, t.ISIG],
  [0x0002, t.ICANON],
  [0x0008, t.ECHO],
  [0x0010, t.ECHOE],
  [0x0020, t.ECHOK],
  [0x0040, t.ECHONL],
  [0x0080, t.NOFLSH],
  [0x0100, t.TOSTOP],
  [0x0200, t.ECHOCTL],
  [0x0400, t.ECHOPRT],
  [0x0800, t.ECHOKE],
  [0x8000, t.IEXTEN],
];
/** c_cflag: CSIZE CSTOPB CREAD PARENB PARODD HUPCL CLOCAL stand four bits higher on DragonFly. The speed is always B38400. */
const CFLAG_MASK = 0xff0, CFLAG_SHIFT = 4, B38400 = 0o17, CBAUD = 0o10017;
/** c_cc: DragonFly's index of each of Linux's; −1: DragonFly has no such one. */
const CC: readonly number[] = [
  t.VINTR,
  t.VQUIT,
  t.VERASE,
  t.VKILL,
  t.VEOF,
  t.VTIME,
  t.VMIN,
  -1,
  t.VSTART,
  t.VSTOP,
  t.VSUSP,
  t.VEOL,
  t.VREPRINT,
  t.VDISCARD,
  t.VWERASE,
  t.VLNEXT,
  t.VEOL2,
];
/** Bytes of the kernel's `struct termios`: four words of flags, c_line, c_cc[19]. */
const LINUX_TERMIOS_BYTES = 36;
const CC_AT = 17;

const toLinux = (flags: number, bits: Bits) =>
  bits.reduce((sum, [linux, native]) => flags & native ? sum | linux : sum, 0);

/** Replaces the bits that both have, and leaves the others as they are. */
function toNative(flags: number, bits: Bits, old: number): number {
  return bits.reduce((sum, [linux, native]) => (flags & linux ? sum | native : sum & ~native) >>> 0, old);
}

/** Settings as Linux's `struct termios`. */
export function encodeLinuxTermios(termios: t.Termios): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(LINUX_TERMIOS_BYTES), view = new DataView(bytes.buffer);
  view.setUint32(0, (termios.cIflag & IFLAG_SAME) | toLinux(termios.cIflag, IFLAG), true);
  view.setUint32(4, toLinux(termios.cOflag, OFLAG), true);
  view.setUint32(8, ((termios.cCflag >>> CFLAG_SHIFT) & CFLAG_MASK) | B38400, true);
  view.setUint32(12, toLinux(termios.cLflag, LFLAG), true);
  CC.forEach((native, i) => {
    const value = native < 0 ? t.POSIX_VDISABLE : termios.cCc[native]!;
    const isCount = native === t.VMIN || native === t.VTIME;
    bytes[CC_AT + i] = value === t.POSIX_VDISABLE && !isCount ? 0 : value;
  });
  return bytes;
}

/** Changes settings to what Linux's `struct termios` says. */
export function decodeLinuxTermios(bytes: Uint8Array, termios: t.Termios): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, LINUX_TERMIOS_BYTES);
  const iflag = view.getUint32(0, true), cflag = view.getUint32(8, true) & ~CBAUD;
  termios.cIflag = toNative(iflag, IFLAG, (termios.cIflag & ~IFLAG_SAME) | (iflag & IFLAG_SAME));
  termios.cOflag = toNative(view.getUint32(4, true), OFLAG, termios.cOflag);
  termios.cCflag = (termios.cCflag & ~(CFLAG_MASK << CFLAG_SHIFT)) | (cflag & CFLAG_MASK) << CFLAG_SHIFT;
  termios.cLflag = toNative(view.getUint32(12, true), LFLAG, termios.cLflag);
  CC.forEach((native, i) => {
    if (native < 0) return;
    const value = bytes[CC_AT + i]!, isCount = native === t.VMIN || native === t.VTIME;
    termios.cCc[native] = value === 0 && !isCount ? t.POSIX_VDISABLE : value;
  });
}

function* tcgets(cx: Cx, fp: File): Exec<t.Termios | number> {
  const data = new Uint8Array(t.TERMIOS_BYTES);
  const error = yield* fp.fOps!.foIoctl(cx, fp, t.TIOCGETA, data);
  if (error !== 0) return error;
  const termios = new t.Termios();
  termios.decode(data);
  return termios;
}

/** Requests about settings and queues. Undefined: another one. */
function* terminal(cx: Cx, fp: File, com: number, arg: bigint): Exec<number | undefined> {
  switch (com) {
    case TCGETS: {
      const termios = yield* tcgets(cx, fp);
      return typeof termios === "number" ? termios : yield* copyout(cx, arg, encodeLinuxTermios(termios));
    }
    case TCSETS:
    case TCSETS + 1:
    case TCSETSF: {
      const termios = yield* tcgets(cx, fp);
      if (typeof termios === "number") return termios;
      const bytes = yield* copyin(cx, arg, LINUX_TERMIOS_BYTES);
      if (bytes === undefined) return ERRNO.EFAULT;
      decodeLinuxTermios(bytes, termios);
      const native = [t.TIOCSETA, t.TIOCSETAW, t.TIOCSETAF][com - TCSETS]!;
      return yield* fp.fOps!.foIoctl(cx, fp, native, termios.encode());
    }
    case TCFLSH: {
      const which = [FREAD, FWRITE, FREAD | FWRITE][Number(arg)];
      if (which === undefined) return ERRNO.EINVAL;
      return yield* fp.fOps!.foIoctl(cx, fp, t.TIOCFLUSH, new Uint8Array(Int32Array.of(which).buffer));
    }
    case TCSBRK:
    case TCSBRKP:
      // There is no line to break; what it waits for has been sent.
      return yield* fp.fOps!.foIoctl(cx, fp, t.TIOCDRAIN, new Uint8Array(8));
    default:
      return undefined;
  }
}

/** ioctl(fd, request, arg). */
function* ioctl(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const com = uap.uint(1), native = SAME.get(com);
  if (native !== undefined) return yield* callNative(cx, SYS_IOCTL, uap.int(0), native, uap.arg(2));
  const fp = holdfp(cx, uap.int(0), 0);
  if (fp === undefined) return { error: ERRNO.EBADF };
  const error = yield* terminal(cx, fp, com, uap.arg(2));
  yield* fdrop(cx, fp);
  return result(error ?? ERRNO.ENOTTY);
}

/** System calls of this file. */
export const linuxIoctlSyscalls: SyscallTable = [[16, "ioctl", 3, ioctl]];
