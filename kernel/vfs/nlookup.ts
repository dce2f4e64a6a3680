/**
 * From a path to a file (`kern/vfs_nlookup.c`).
 *
 * Room: `kernel/vfs/`; imports the namecache.
 *
 * {@link nlookup} is a plain function: a path is followed within one step. Its answers (`nlVp`, `nlDvp`, `nlNch`) are not
 * referenced: who goes on over a boundary calls `vref` or `cacheHold` first.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyinstr } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { CRED_ROOT, type Ucred } from "../proc/ucred.ts";
import { MNT_RDONLY } from "./mount.ts";
import { cacheNlookup, cacheResolve, cacheZap, type Namecache } from "./namecache.ts";
import { VDIR, VEXEC, VLNK, type Vnode, VWRITE } from "./vnode.ts";

/** Longest path, the zero byte included (`MAXPATHLEN`). */
export const MAXPATHLEN = 1024;
/** Longest name (`NAME_MAX`). */
export const NAME_MAX = 255;
/** Most symbolic links in one look-up (`MAXSYMLINKS`). */
export const MAXSYMLINKS = 32;

/** Follow a symbolic link at the end. */
export const NLC_FOLLOW = 0x0000_0001;
/** The name will be made; it need not exist, its directory must be writable then. */
export const NLC_CREATE = 0x0000_0040;
/** The name will be removed. */
export const NLC_DELETE = 0x0000_0080;
/** The name is what will be renamed. */
export const NLC_RENAME_SRC = 0x0000_0200;
/** The name is what it will be renamed to; it need not exist. */
export const NLC_RENAME_DST = 0x0000_0400;
/** Trailing slashes are all right although nothing is there: a directory will be made. */
export const NLC_WILLBEDIR = 0x0001_0000;

/** A look-up (`struct nlookupdata`). */
export class Nlookupdata {
  /** `nl_path`. */
  readonly nlPath: string;
  /** NLC_*. */
  readonly nlFlags: number;
  /** `nl_cred`. */
  readonly nlCred: Ucred;
  /** Where relative paths begin. */
  readonly nlStart: Namecache;
  /** `nl_rootnch`: where absolute ones do, and what `..` does not leave. */
  readonly nlRootnch: Namecache;
  /** Result: entry of the last name. */
  nlNch!: Namecache;
  /** Result: what it names; undefined if it does not exist yet. */
  nlVp: Vnode | undefined = undefined;
  /** Result: the directory it is in (`nl_dvp`); undefined where the path has no last name ("/", "..", ".") . */
  nlDvp: Vnode | undefined = undefined;
  /** Result: last component was "." or "..", so that nothing can be made, removed or renamed by it. */
  nlDots: "" | "." | ".." = "";

  /** See {@link nlookupInit}. */
  constructor(path: string, flags: number, cred: Ucred, start: Namecache, root: Namecache) {
    this.nlPath = path;
    this.nlFlags = flags;
    this.nlCred = cred;
    this.nlStart = start;
    this.nlRootnch = root;
  }
}

/** Prepares a look-up of a kernel string (`nlookup_init`): as the current process sees it, or as the kernel does if there is none. */
export function nlookupInit(cx: Cx, path: string, flags: number, start?: Namecache): Nlookupdata {
  const p = cx.proc;
  const fdp = p?.pFd;
  const root = fdp?.fdNrdir ?? cx.k.vfs.rootnch;
  return new Nlookupdata(path, flags, p?.pUcred ?? CRED_ROOT, start ?? fdp?.fdNcdir ?? root, root);
}

/** Copies a path in from the user. Gives it, or EFAULT, ENAMETOOLONG. */
export function copyinPath(cx: Cx, upath: bigint): Exec<string | number> {
  return copyinstr(cx, upath, MAXPATHLEN);
}

const encoder = new TextEncoder();

/** Bytes of a name as it is stored. */
export function nameBytes(name: string): number {
  return name.length * 3 <= NAME_MAX ? name.length : encoder.encode(name).length;
}

/** The root of what is mounted on an entry, through several mounts (`nl_flags`' mount crossing). */
function crossMounts(ncp: Namecache): Namecache {
  let at = ncp;
  while (at.ncMountedHere !== undefined) at = at.ncMountedHere.mntNcmountpt;
  return at;
}

/** The entry above one, out of mounts, not above `root`. */
function parentOf(ncp: Namecache, root: Namecache): Namecache {
  let at = ncp;
  while (at !== root && at.ncParent === undefined && at.ncMount.mntNcmounton !== undefined) {
    at = at.ncMount.mntNcmounton;
  }
  return at === root ? at : at.ncParent ?? at;
}

/**
 * Follows the path (`nlookup`). Gives 0 or ENOENT, ENOTDIR, EACCES, ELOOP, ENAMETOOLONG, EROFS; the results are in `nd`.
 */
export function nlookup(cx: Cx, nd: Nlookupdata): number {
  const { nlCred: cred, nlFlags: flags, nlRootnch: root } = nd;
  let path = nd.nlPath;
  if (path === "") return ERRNO.ENOENT;
  let at = crossMounts(path.startsWith("/") ? root : nd.nlStart);
  let links = 0;
  for (;;) {
    let start = 0;
    while (path[start] === "/") start++;
    let error = cacheResolve(cx, at);
    if (error !== 0) return error;
    const dvp = at.ncVp!;
    if (start === path.length) {
      nd.nlNch = at;
      nd.nlVp = dvp;
      nd.nlDvp = undefined;
      return 0;
    }
    if (dvp.vType !== VDIR) return ERRNO.ENOTDIR;
    error = dvp.vOps.vopAccess(cx, dvp, VEXEC, cred);
    if (error !== 0) return error;
    let end = path.indexOf("/", start);
    if (end < 0) end = path.length;
    const name = path.slice(start, end);
    let rest = end;
    while (path[rest] === "/") rest++;
    const last = rest === path.length;
    const slashes = rest > end;
    if (name === "." || name === "..") {
      at = name === "." ? at : crossMounts(parentOf(at, root));
      if (last) {
        error = cacheResolve(cx, at);
        if (error !== 0) return error;
        nd.nlNch = at;
        nd.nlVp = at.ncVp;
        nd.nlDvp = undefined;
        nd.nlDots = name;
        return 0;
      }
      path = path.slice(rest);
      continue;
    }
    if (nameBytes(name) > NAME_MAX) return ERRNO.ENAMETOOLONG;
    const child = cacheNlookup(at, name);
    error = cacheResolve(cx, child);
    if (error !== 0 && error !== ERRNO.ENOENT) {
      cacheZap(child);
      return error;
    }
    const vp = child.ncVp;
    if (vp !== undefined && vp.vType === VLNK && (!last || slashes || (flags & NLC_FOLLOW) !== 0)) {
      if (++links > MAXSYMLINKS) return ERRNO.ELOOP;
      const target = vp.vOps.vopReadlink(cx, vp);
      if (typeof target === "number") return target;
      if (target === "") return ERRNO.ENOENT;
      const joined = last && !slashes ? target : `${target}/${path.slice(rest)}`;
      if (joined.length >= MAXPATHLEN) return ERRNO.ENAMETOOLONG;
      if (joined.startsWith("/")) at = crossMounts(root);
      path = joined;
      continue;
    }
    if (!last) {
      if (vp === undefined) return ERRNO.ENOENT;
      at = crossMounts(child);
      path = path.slice(rest);
      continue;
    }
    return lastName(cx, nd, dvp, child, slashes);
  }
}

/** The checks of the path's last name. */
function lastName(cx: Cx, nd: Nlookupdata, dvp: Vnode, child: Namecache, slashes: boolean): number {
  const { nlFlags: flags, nlCred: cred } = nd;
  const vp = child.ncVp;
  const making = (flags & (NLC_CREATE | NLC_RENAME_DST)) !== 0;
  if (vp === undefined) {
    if (!making) return ERRNO.ENOENT;
    if (slashes && (flags & NLC_WILLBEDIR) === 0) return ERRNO.ENOENT;
  } else if (slashes && vp.vType !== VDIR) {
    return ERRNO.ENOTDIR;
  }
  const changes = (flags & (NLC_DELETE | NLC_RENAME_SRC | NLC_RENAME_DST)) !== 0 ||
    (making && vp === undefined);
  if (changes) {
    if (dvp.vMount.mntFlag & MNT_RDONLY) return ERRNO.EROFS;
    const error = dvp.vOps.vopAccess(cx, dvp, VWRITE, cred);
    if (error !== 0) return error;
    if (vp !== undefined) {
      const sticky = checkSticky(cx, dvp, vp, cred);
      if (sticky !== 0) return sticky;
    }
  }
  const removing = (flags & (NLC_DELETE | NLC_RENAME_SRC | NLC_RENAME_DST)) !== 0;
  nd.nlNch = removing ? child : crossMounts(child);
  nd.nlVp = vp;
  if (nd.nlNch !== child) {
    const error = cacheResolve(cx, nd.nlNch);
    if (error !== 0) return error;
    nd.nlVp = nd.nlNch.ncVp;
  }
  nd.nlDvp = dvp;
  return 0;
}

/** In a directory with the sticky bit only the owner of the file or of the directory removes (`naccess`). */
function checkSticky(cx: Cx, dvp: Vnode, vp: Vnode, cred: Ucred): number {
  if (cred.crUid === 0) return 0;
  const dir = dvp.vOps.vopGetattr(cx, dvp);
  if ((dir.vaMode & 0o1000) === 0 || dir.vaUid === cred.crUid) return 0;
  return vp.vOps.vopGetattr(cx, vp).vaUid === cred.crUid ? 0 : ERRNO.EPERM;
}

/** Looks a path up, following links. Gives the vnode (not referenced) or an error number. */
export function nameToVnode(cx: Cx, path: string, start?: Namecache): Vnode | number {
  const nd = nlookupInit(cx, path, NLC_FOLLOW, start);
  const error = nlookup(cx, nd);
  return error !== 0 ? error : nd.nlVp!;
}
