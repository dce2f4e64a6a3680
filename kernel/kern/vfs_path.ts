/**
 * What system calls that take paths have in common: copying the path in, and where a relative one begins.
 *
 * Room: `kernel/kern/`; imports look-ups and descriptors.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import type { Namecache } from "../vfs/namecache.ts";
import { copyinPath, nlookup, type Nlookupdata, nlookupInit } from "../vfs/nlookup.ts";
import { VDIR, Vnode, vref } from "../vfs/vnode.ts";
import { vrele } from "../vfs/vfs_subr.ts";
import { ERRNO } from "./errno.ts";
import { fdnode } from "./kern_descrip.ts";
import { SYSCALL_OK, type SyscallArgs, type SyscallResult } from "./sysent.ts";

/** Instead of a descriptor of openat and its like: the working directory. */
export const AT_FDCWD: number = 0xfffa_fdcd | 0;
/** Do not follow a link at the end. */
export const AT_SYMLINK_NOFOLLOW = 1;
/** unlinkat removes a directory. */
export const AT_REMOVEDIR = 2;
/** faccessat asks for the effective user. */
export const AT_EACCESS = 4;
/** linkat follows a link at the end. */
export const AT_SYMLINK_FOLLOW = 8;

/** 0 or an error as a result. */
export function errorResult(error: number): SyscallResult {
  return error !== 0 ? { error } : SYSCALL_OK;
}

/** Where a relative path begins for a descriptor (`nlookup_init_at`): EBADF, ENOTDIR. Undefined: the working directory. */
export function atStart(cx: Cx, fd: number, path: string): Namecache | number | undefined {
  if (fd === AT_FDCWD || path.startsWith("/")) return undefined;
  const fp = fdnode(cx.proc?.pFd, fd)?.fp;
  if (fp === undefined) return ERRNO.EBADF;
  if (!(fp.fData instanceof Vnode) || fp.fData.vType !== VDIR || fp.fNchandle === undefined) {
    return ERRNO.ENOTDIR;
  }
  return fp.fNchandle;
}

/** Copies path argument `i` in and prepares its look-up from descriptor `fd`. Gives an error number if either fails. */
export function* initPath(
  cx: Cx,
  uap: SyscallArgs,
  i: number,
  flags: number,
  fd: number = AT_FDCWD,
): Exec<Nlookupdata | number> {
  const path = yield* copyinPath(cx, uap.arg(i));
  if (typeof path === "number") return path;
  const start = atStart(cx, fd, path);
  if (typeof start === "number") return start;
  return nlookupInit(cx, path, flags, start);
}

/** The same, and looks it up; gives it or an error number. */
export function* lookPath(
  cx: Cx,
  uap: SyscallArgs,
  i: number,
  flags: number,
  fd: number = AT_FDCWD,
): Exec<Nlookupdata | number> {
  const nd = yield* initPath(cx, uap, i, flags, fd);
  if (typeof nd === "number") return nd;
  const error = nlookup(cx, nd);
  return error !== 0 ? error : nd;
}

/** Runs `body` with the vnode that a path names, referenced. */
export function* withVnode(
  cx: Cx,
  uap: SyscallArgs,
  i: number,
  flags: number,
  fd: number,
  body: (vp: Vnode, nd: Nlookupdata) => Exec<number>,
): Exec<SyscallResult> {
  const nd = yield* lookPath(cx, uap, i, flags, fd);
  if (typeof nd === "number") return { error: nd };
  const vp = nd.nlVp!;
  vref(vp);
  const error = yield* body(vp, nd);
  yield* vrele(cx, vp);
  return errorResult(error);
}
