/**
 * File descriptors (`kern/kern_descrip.c`): tables of open files, shared or copied by fork, and what close, dup and fcntl do to them.
 *
 * Room: `kernel/kern/`; imports the files' types, vnodes and the namecache. The system calls stand in kern_descrip_syscalls.ts.
 *
 * A running call holds its file ({@link holdfp} … {@link fdrop}), so that another thread's close does not pull it away.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { RLIMIT_NOFILE } from "../proc/resource.ts";
import type { Proc } from "../proc/proc.ts";
import { CRED_ROOT } from "../proc/ucred.ts";
import { lfUnlockAll } from "../vfs/lockf.ts";
import { cacheDrop, cacheHold, type Namecache } from "../vfs/namecache.ts";
import { Vnode, vref } from "../vfs/vnode.ts";
import { vrele } from "../vfs/vfs_subr.ts";
import { ERRNO } from "./errno.ts";
import { DTYPE_VNODE, File } from "./file.ts";
import { kassert } from "./panic.ts";

/** Per-descriptor flag: close at exec. */
export const UF_EXCLOSE = 0x01;

/** One descriptor (`struct fdnode`). */
export interface Fdnode {
  /** `fp`. */
  readonly fp: File;
  /** `fileflags`. */
  fileflags: number;
}

/** A process's table (`struct filedesc`). */
export class Filedesc {
  /** `fd_files`, by descriptor. */
  readonly fdFiles: (Fdnode | undefined)[] = [];
  /** `fd_ncdir`: working directory; held. */
  fdNcdir: Namecache;
  /** `fd_cdir`: its vnode; referenced. */
  fdCdir: Vnode;
  /** `fd_nrdir`: root directory; held. */
  fdNrdir: Namecache;
  /** `fd_rdir`: its vnode; referenced. */
  fdRdir: Vnode;
  /** `fd_cmask`: umask. */
  fdCmask = 0o022;
  /** `fd_refcnt`: processes that share it. */
  fdRefcnt = 1;
  /** Slots that {@link fdalloc} gave out and that have no file yet. */
  readonly fdReserved: Set<number> = new Set();

  /** Takes references to all it is given. */
  constructor(ncdir: Namecache, cdir: Vnode, nrdir: Namecache, rdir: Vnode) {
    this.fdNcdir = cacheHold(ncdir);
    this.fdCdir = cdir;
    this.fdNrdir = cacheHold(nrdir);
    this.fdRdir = rdir;
    vref(cdir);
    vref(rdir);
  }
}

/** Most descriptors that the process may have (`p_fd` limits: RLIMIT_NOFILE and `kern.maxfilesperproc`). */
export function fdLimit(cx: Cx, p: Proc): number {
  return Math.min(p.pLimit.cur(RLIMIT_NOFILE), cx.k.vfs.maxfiles);
}

/** A fresh table for a process that has none, with the root as its directories (`fdinit`). */
export function fdinit(cx: Cx): Filedesc {
  const { rootnch, rootvnode } = cx.k.vfs;
  return new Filedesc(rootnch, rootvnode, rootnch, rootvnode);
}

/** A copy for a child (`fdcopy`): each file gets one more descriptor. */
export function fdcopy(_cx: Cx, p: Proc): Filedesc {
  const from = p.pFd;
  kassert(from !== undefined, "fdcopy: the process has no descriptors");
  const fdp = new Filedesc(from!.fdNcdir, from!.fdCdir, from!.fdNrdir, from!.fdRdir);
  fdp.fdCmask = from!.fdCmask;
  from!.fdFiles.forEach((node, fd) => {
    if (node === undefined) return;
    node.fp.fCount++;
    fdp.fdFiles[fd] = { fp: node.fp, fileflags: node.fileflags };
  });
  return fdp;
}

/** The same table for a child of rfork without RFFDG (`fdshare`). */
export function fdshare(_cx: Cx, p: Proc): Filedesc {
  const fdp = p.pFd!;
  fdp.fdRefcnt++;
  return fdp;
}

/**
 * The process gives its table up, at exit or for another one (`fdfree`): the last user closes everything. `replacement` becomes its table.
 */
export function* fdfree(cx: Cx, p: Proc, replacement?: Filedesc): Exec<void> {
  const fdp = p.pFd;
  p.pFd = replacement;
  if (fdp === undefined || --fdp.fdRefcnt > 0) return;
  for (let fd = 0; fd < fdp.fdFiles.length; fd++) {
    const node = fdp.fdFiles[fd];
    fdp.fdFiles[fd] = undefined;
    if (node !== undefined) yield* closef(cx, node.fp, p);
  }
  cacheDrop(fdp.fdNcdir);
  cacheDrop(fdp.fdNrdir);
  yield* vrele(cx, fdp.fdCdir);
  yield* vrele(cx, fdp.fdRdir);
}

/** exec: closes what is marked for it (`fdcloseexec`). A shared table is unshared first. */
export function* fdcloseexec(cx: Cx, p: Proc): Exec<void> {
  let fdp = p.pFd;
  if (fdp === undefined) return;
  if (fdp.fdRefcnt > 1) {
    yield* fdfree(cx, p, fdcopy(cx, p));
    fdp = p.pFd!;
  }
  for (let fd = 0; fd < fdp.fdFiles.length; fd++) {
    const node = fdp.fdFiles[fd];
    if (node === undefined || (node.fileflags & UF_EXCLOSE) === 0) continue;
    fdp.fdFiles[fd] = undefined;
    yield* closef(cx, node.fp, p);
  }
}

/** Reserves the lowest free descriptor that is at least `want` (`fdalloc`), or gives undefined (EMFILE). */
export function fdalloc(cx: Cx, p: Proc, want: number): number | undefined {
  const fdp = p.pFd!;
  const limit = fdLimit(cx, p);
  for (let fd = want; fd < limit; fd++) {
    if (fdp.fdFiles[fd] === undefined && !fdp.fdReserved.has(fd)) {
      fdp.fdReserved.add(fd);
      return fd;
    }
  }
  return undefined;
}

/** Puts a file at a reserved descriptor, with one more reference (`fsetfd`), or gives the reservation up when there is no file. */
export function fsetfd(fdp: Filedesc, fp: File | undefined, fd: number, fileflags = 0): void {
  fdp.fdReserved.delete(fd);
  if (fp === undefined) return;
  fp.fCount++;
  while (fdp.fdFiles.length < fd) fdp.fdFiles.push(undefined);
  fdp.fdFiles[fd] = { fp, fileflags };
}

/** A new file that no descriptor has yet (`falloc` without one). ENFILE when there are too many. The caller has its one reference. */
export function falloc(cx: Cx): File | number {
  const { vfs } = cx.k;
  if (vfs.filehead.size >= vfs.maxfiles) return ERRNO.ENFILE;
  const fp = new File(cx.proc?.pUcred ?? CRED_ROOT);
  vfs.filehead.add(fp);
  return fp;
}

/** The descriptor's entry, if it is open. */
export function fdnode(fdp: Filedesc | undefined, fd: number): Fdnode | undefined {
  return fd >= 0 ? fdp?.fdFiles[fd] : undefined;
}

/** The file of a descriptor, held, if it is open with all of `flag` (`holdfp`). */
export function holdfp(cx: Cx, fd: number, flag: number): File | undefined {
  const fp = fdnode(cx.proc?.pFd, fd)?.fp;
  if (fp === undefined || (fp.fFlag & flag) !== flag) return undefined;
  fp.fCount++;
  return fp;
}

/** The vnode's file of a descriptor, held (`holdvnode`); EBADF, or EINVAL if it is not a vnode. */
export function holdvnode(cx: Cx, fd: number): File | number {
  const fp = holdfp(cx, fd, 0);
  if (fp === undefined) return ERRNO.EBADF;
  if (fp.fType === DTYPE_VNODE) return fp;
  fp.fCount--;
  return ERRNO.EINVAL;
}

/** Lets a file go; the last one closes it (`fdrop`). */
export function* fdrop(cx: Cx, fp: File): Exec<number> {
  kassert(fp.fCount > 0, "fdrop: the file is not held");
  if (fp.fCount > 1) {
    fp.fCount--;
    return 0;
  }
  if (fp.fHaslock && fp.fData instanceof Vnode) lfUnlockAll(cx, fp.fData, fp);
  const error = fp.fOps !== undefined ? yield* fp.fOps.foClose(cx, fp) : 0;
  if (fp.fNchandle !== undefined) cacheDrop(fp.fNchandle);
  fp.fNchandle = undefined;
  fp.fCount = 0;
  cx.k.vfs.filehead.delete(fp);
  return error;
}

/** A descriptor of `p` is gone (`closef`): its record locks on the file go, and perhaps the file. */
export function* closef(cx: Cx, fp: File, p: Proc | undefined): Exec<number> {
  if (p !== undefined && fp.fType === DTYPE_VNODE && fp.fData instanceof Vnode) lfUnlockAll(cx, fp.fData, p);
  return yield* fdrop(cx, fp);
}

/** close(2) (`kern_close`). */
export function* kernClose(cx: Cx, fd: number): Exec<number> {
  const p = cx.proc!;
  const fdp = p.pFd!;
  const node = fdnode(fdp, fd);
  if (node === undefined) return ERRNO.EBADF;
  fdp.fdFiles[fd] = undefined;
  return yield* closef(cx, node.fp, p);
}

/** `kern_dup` types: any descriptor from `want` up, or exactly `want`. */
export const DUP_VARIABLE = 0;
/** Exactly `want`, which is closed first. */
export const DUP_FIXED = 1;

/** dup, dup2 and F_DUPFD (`kern_dup`). Gives the descriptor, or a negative error number. */
export function* kernDup(cx: Cx, type: number, old: number, want: number, fileflags = 0): Exec<number> {
  const p = cx.proc!;
  const fdp = p.pFd!;
  const limit = fdLimit(cx, p);
  const node = fdnode(fdp, old);
  if (node === undefined) return -ERRNO.EBADF;
  if (type === DUP_FIXED) {
    if (want < 0 || want >= limit) return -ERRNO.EBADF;
    if (want === old) {
      node.fileflags = fileflags;
      return want;
    }
    // A descriptor that another thread's open has reserved and not filled yet.
    if (fdp.fdReserved.has(want)) return -ERRNO.EBUSY;
    const displaced = fdp.fdFiles[want];
    fsetfd(fdp, node.fp, want, fileflags);
    if (displaced !== undefined) yield* closef(cx, displaced.fp, p);
    return want;
  }
  if (want < 0 || want >= limit) return -ERRNO.EINVAL;
  const fd = fdalloc(cx, p, want);
  if (fd === undefined) return -ERRNO.EMFILE;
  fsetfd(fdp, node.fp, fd, fileflags);
  return fd;
}
