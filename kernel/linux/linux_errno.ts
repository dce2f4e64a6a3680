/**
 * Linux's error numbers (`asm-generic/errno.h`) for DragonFly's (`sys/emulation/linux/linux_errno`).
 *
 * Room: `kernel/linux/`; imports DragonFly's numbers.
 *
 * @module
 */
import { ERRNO } from "../kern/errno.ts";

/** Linux's numbers, where they are not DragonFly's. Inside the kernel errors are always DragonFly's. */
export const LINUX_ERRNO = {
  EAGAIN: 11,
  EDEADLK: 35,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ENOTEMPTY: 39,
  ELOOP: 40,
  ETIMEDOUT: 110,
} as const;

/** 1 to 34 are the same in both but 11. */
const SAME = 34;

const TABLE: ReadonlyMap<number, number> = new Map([
  [ERRNO.EDEADLK, LINUX_ERRNO.EDEADLK],
  [ERRNO.EAGAIN, LINUX_ERRNO.EAGAIN],
  [ERRNO.EINPROGRESS, 115],
  [ERRNO.EALREADY, 114],
  [ERRNO.ENOTSOCK, 88],
  [ERRNO.EDESTADDRREQ, 89],
  [ERRNO.EMSGSIZE, 90],
  [ERRNO.EPROTOTYPE, 91],
  [ERRNO.ENOPROTOOPT, 92],
  [ERRNO.EPROTONOSUPPORT, 93],
  [ERRNO.ESOCKTNOSUPPORT, 94],
  [ERRNO.EOPNOTSUPP, 95],
  [ERRNO.EPFNOSUPPORT, 96],
  [ERRNO.EAFNOSUPPORT, 97],
  [ERRNO.EADDRINUSE, 98],
  [ERRNO.EADDRNOTAVAIL, 99],
  [ERRNO.ENETDOWN, 100],
  [ERRNO.ENETUNREACH, 101],
  [ERRNO.ENETRESET, 102],
  [ERRNO.ECONNABORTED, 103],
  [ERRNO.ECONNRESET, 104],
  [ERRNO.ENOBUFS, 105],
  [ERRNO.EISCONN, 106],
  [ERRNO.ENOTCONN, 107],
  [ERRNO.ESHUTDOWN, 108],
  [ERRNO.ETOOMANYREFS, 109],
  [ERRNO.ETIMEDOUT, LINUX_ERRNO.ETIMEDOUT],
  [ERRNO.ECONNREFUSED, 111],
  [ERRNO.ELOOP, LINUX_ERRNO.ELOOP],
  [ERRNO.ENAMETOOLONG, LINUX_ERRNO.ENAMETOOLONG],
  [ERRNO.EHOSTDOWN, 112],
  [ERRNO.EHOSTUNREACH, 113],
  [ERRNO.ENOTEMPTY, LINUX_ERRNO.ENOTEMPTY],
  [ERRNO.EPROCLIM, LINUX_ERRNO.EAGAIN],
  [ERRNO.EUSERS, 87],
  [ERRNO.EDQUOT, 122],
  [ERRNO.ESTALE, 116],
  [ERRNO.EREMOTE, 66],
  [ERRNO.ENOLCK, 37],
  [ERRNO.ENOSYS, LINUX_ERRNO.ENOSYS],
  [ERRNO.EIDRM, 43],
  [ERRNO.ENOMSG, 42],
  [ERRNO.EOVERFLOW, 75],
  [ERRNO.ECANCELED, 125],
  [ERRNO.EILSEQ, 84],
  [ERRNO.ENOATTR, 61],
]);

/** Linux's number for an error of DragonFly; EINVAL for what Linux has nothing like. */
export function linuxErrno(error: number): number {
  return TABLE.get(error) ?? (error > 0 && error <= SAME ? error : ERRNO.EINVAL);
}
