/**
 * Error numbers as DragonFly has them (`sys/sys/errno.h`).
 *
 * Room: leaf of `kernel/`; imports nothing.
 *
 * @module
 */

/** Error numbers. */
export const ERRNO = {
  E2BIG: 7,
  ENOEXEC: 8,
  EBADF: 9,
  ENOMEM: 12,
  EFAULT: 14,
  EINVAL: 22,
  ENOSYS: 78,
} as const;

/** What a system call gives: a value, or an error number. */
export type SyscallResult = { readonly value: bigint } | { readonly error: number };
