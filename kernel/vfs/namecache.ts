/**
 * The namecache: the tree of names that look-ups have met (`kern/vfs_cache.c`).
 *
 * Room: `kernel/vfs/`; imports vnode and mount.
 *
 * An entry is *unresolved* (nobody has asked the file system yet, or its vnode was taken apart), *positive* (it has a vnode) or
 * *negative* (the file system said ENOENT). A working directory and the file of a descriptor hold their entry, which is why `..` and
 * getcwd are walks up the tree. DragonFly's `nchandle` is an entry and its mount; here an entry knows its mount.
 *
 * @module
 */
import type { Cx } from "../context.ts";
import { ERRNO } from "../kern/errno.ts";
import type { Mount } from "./mount.ts";
import type { Vnode } from "./vnode.ts";

/** Most negative entries that are kept (`ncnegfactor`'s purpose). */
export const NEGATIVE_MAX = 512;

/** A name (`struct namecache`). */
export class Namecache {
  /** `nc_parent`; undefined for the root of a mount. */
  ncParent: Namecache | undefined;
  /** `nc_name`. */
  ncName: string;
  /** `nc_mount` of the nchandle. */
  readonly ncMount: Mount;
  /** `nc_vp` of a positive entry. */
  ncVp: Vnode | undefined = undefined;
  /** `NCF_UNRESOLVED`. */
  ncUnresolved = true;
  /** `NCF_DESTROYED`: the name was removed; somebody still holds the entry. */
  ncDestroyed = false;
  /** `nc_list`: entries below, by name. */
  readonly ncList: Map<string, Namecache> = new Map();
  /** `NCF_ISMOUNTPT`: what is mounted here. */
  ncMountedHere: Mount | undefined = undefined;
  /** `nc_refs`: holders. */
  ncRefs = 0;

  /** Made by {@link cacheNlookup} and by mounting. */
  constructor(mount: Mount, parent: Namecache | undefined, name: string) {
    this.ncMount = mount;
    this.ncParent = parent;
    this.ncName = name;
  }
}

/** Holds an entry (`cache_hold`). */
export function cacheHold(ncp: Namecache): Namecache {
  ncp.ncRefs++;
  return ncp;
}

/** Lets an entry go (`cache_drop`). */
export function cacheDrop(ncp: Namecache): void {
  ncp.ncRefs--;
  cacheZap(ncp);
}

/** Forgets an entry that says nothing and that nobody holds (`cache_zap`), and then its parents. */
export function cacheZap(ncp: Namecache): void {
  let at: Namecache | undefined = ncp;
  while (
    at !== undefined && at.ncParent !== undefined && at.ncVp === undefined && at.ncRefs === 0 &&
    at.ncList.size === 0 && at.ncMountedHere === undefined
  ) {
    const parent: Namecache = at.ncParent;
    if (parent.ncList.get(at.ncName) === at) parent.ncList.delete(at.ncName);
    at.ncDestroyed = true;
    at = parent;
  }
}

/** Finds or makes the entry for a name in a directory (`cache_nlookup`). It may be unresolved. */
export function cacheNlookup(par: Namecache, name: string): Namecache {
  let ncp = par.ncList.get(name);
  if (ncp === undefined) {
    ncp = new Namecache(par.ncMount, par, name);
    par.ncList.set(name, ncp);
  }
  return ncp;
}

/** Gives an entry its vnode, or says that there is none (`cache_setvp`). */
export function cacheSetvp(cx: Cx, ncp: Namecache, vp: Vnode | undefined): void {
  if (ncp.ncVp !== vp) {
    ncp.ncVp?.vNamecache.delete(ncp);
    ncp.ncVp = vp;
    vp?.vNamecache.add(ncp);
  }
  ncp.ncUnresolved = false;
  const { ncNeglist } = cx.k.vfs;
  ncNeglist.delete(ncp);
  if (vp !== undefined) return;
  ncNeglist.add(ncp);
  if (ncNeglist.size > NEGATIVE_MAX) {
    for (const oldest of ncNeglist) {
      ncNeglist.delete(oldest);
      oldest.ncUnresolved = true;
      cacheZap(oldest);
      break;
    }
  }
}

/** Makes an entry unresolved (`cache_setunresolved`). */
export function cacheSetunresolved(cx: Cx, ncp: Namecache): void {
  ncp.ncVp?.vNamecache.delete(ncp);
  ncp.ncVp = undefined;
  ncp.ncUnresolved = true;
  cx.k.vfs.ncNeglist.delete(ncp);
}

/** Finds out what an entry names (`cache_resolve`). Gives 0, ENOENT or the file system's error. */
export function cacheResolve(cx: Cx, ncp: Namecache): number {
  if (ncp.ncDestroyed) return ERRNO.ENOENT;
  const { ncMount, ncParent } = ncp;
  if (ncParent === undefined) {
    if (ncp.ncVp === undefined) cacheSetvp(cx, ncp, ncMount.mntOp.vfsRoot(cx, ncMount));
    return 0;
  }
  if (!ncp.ncUnresolved && !ncMount.mntOp.vfsVolatile) return ncp.ncVp === undefined ? ERRNO.ENOENT : 0;
  const error = cacheResolve(cx, ncParent);
  if (error !== 0) return error;
  const dvp = ncParent.ncVp!;
  const vp = dvp.vOps.vopNresolve(cx, dvp, ncp.ncName);
  if (typeof vp === "number") {
    if (vp === ERRNO.ENOENT) cacheSetvp(cx, ncp, undefined);
    else cacheSetunresolved(cx, ncp);
    return vp;
  }
  cacheSetvp(cx, ncp, vp);
  return 0;
}

/** A name was removed (`cache_unlink`): whoever holds the entry keeps it, no look-up finds it. */
export function cacheUnlink(cx: Cx, ncp: Namecache): void {
  cacheSetunresolved(cx, ncp);
  if (ncp.ncParent?.ncList.get(ncp.ncName) === ncp) ncp.ncParent.ncList.delete(ncp.ncName);
  ncp.ncDestroyed = true;
}

/** A name was moved (`cache_rename`): `from` takes the place and name of `to`, with everything below it. */
export function cacheRename(cx: Cx, from: Namecache, to: Namecache): void {
  const parent = to.ncParent!;
  const name = to.ncName;
  if (from === to) return;
  cacheUnlink(cx, to);
  if (from.ncParent?.ncList.get(from.ncName) === from) from.ncParent.ncList.delete(from.ncName);
  const old = from.ncParent;
  from.ncParent = parent;
  from.ncName = name;
  parent.ncList.set(name, from);
  if (old !== undefined) cacheZap(old);
}

/** A vnode is being taken apart (`cache_inval_vp`): its entries are unresolved from now on. */
export function cacheInvalVp(cx: Cx, vp: Vnode): void {
  for (const ncp of [...vp.vNamecache]) {
    cacheSetunresolved(cx, ncp);
    cacheZap(ncp);
  }
}

/**
 * The path of an entry as seen from `root` (`cache_fullpath`, `kern_getcwd`), or an error number: ENOENT if the name was removed.
 */
export function cacheFullpath(ncp: Namecache, root: Namecache | undefined): string | number {
  let path = "";
  let at: Namecache | undefined = ncp;
  while (at !== undefined && at !== root) {
    if (at.ncDestroyed) return ERRNO.ENOENT;
    const parent: Namecache | undefined = at.ncParent;
    if (parent === undefined) {
      at = at.ncMount.mntNcmounton;
      continue;
    }
    path = `/${at.ncName}${path}`;
    at = parent;
  }
  return path === "" ? "/" : path;
}
