/**
 * Mounting and unmounting (`kern/vfs_mount.c`, the work of `mount(2)`).
 *
 * Room: `kernel/vfs/`; imports the namecache and the life of vnodes.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { ERRNO } from "../kern/errno.ts";
import { kassert } from "../kern/panic.ts";
import { MNT_LOCAL, Mount, type VfsOps } from "./mount.ts";
import { cacheHold, cacheResolve, Namecache } from "./namecache.ts";
import { vgone, vrele } from "./vfs_subr.ts";
import { VDIR, vref } from "./vnode.ts";

/** How a file system is mounted. */
export interface MountOptions {
  readonly op: VfsOps;
  readonly flag: number;
  /** `f_mntfromname`. */
  readonly fromname: string;
  readonly data: object | undefined;
  /** The entry that it covers; undefined for the root file system. */
  readonly on: Namecache | undefined;
}

/** Mounts a file system. Gives the mount, or EBUSY, ENOTDIR. */
export function vfsMount(cx: Cx, options: MountOptions): Mount | number {
  const { vfs } = cx.k;
  const { on } = options;
  if (on !== undefined) {
    const error = cacheResolve(cx, on);
    if (error !== 0) return error;
    if (on.ncVp!.vType !== VDIR) return ERRNO.ENOTDIR;
    if (on.ncMountedHere !== undefined) return ERRNO.EBUSY;
  }
  const mp = new Mount(options.op, options.flag | MNT_LOCAL, options.fromname, vfs.nextFsid++, options.data);
  mp.mntNcmountpt = cacheHold(new Namecache(mp, undefined, ""));
  if (on !== undefined) {
    mp.mntNcmounton = cacheHold(on);
    on.ncMountedHere = mp;
    vref(on.ncVp!);
  }
  vfs.mountlist.push(mp);
  const error = cacheResolve(cx, mp.mntNcmountpt);
  kassert(error === 0, "vfs_mount: the root cannot be resolved");
  // The root's vnode stays while it is mounted.
  vref(mp.mntNcmountpt.ncVp!);
  return mp;
}

/** Unmounts (`dounmount`). EBUSY while a vnode of it is in use, or something is mounted in it. */
export function* vfsUnmount(cx: Cx, mp: Mount): Exec<number> {
  const { vfs } = cx.k;
  const on = mp.mntNcmounton;
  if (on === undefined) return ERRNO.EBUSY;
  const root = mp.mntNcmountpt.ncVp!;
  const inUse = () =>
    vfs.mountlist.some((other) => other.mntNcmounton?.ncMount === mp) ||
    [...mp.mntNvnodelist].some((vp) => vp.vRefcnt > (vp === root ? 1 : 0));
  if (inUse()) return ERRNO.EBUSY;
  for (;;) {
    const [vp] = [...mp.mntNvnodelist].filter((other) => other !== root);
    if (vp === undefined) break;
    vref(vp);
    if (!(yield* vgone(cx, vp))) {
      yield* vrele(cx, vp);
      return ERRNO.EBUSY;
    }
    vp.vRefcnt--;
    if (inUse()) return ERRNO.EBUSY;
  }
  // From here to its end nobody can find the mount any more.
  vfs.mountlist.splice(vfs.mountlist.indexOf(mp), 1);
  on.ncMountedHere = undefined;
  on.ncRefs--;
  yield* vgone(cx, root);
  yield* mp.mntOp.vfsUnmount(cx, mp);
  if (on.ncVp !== undefined) yield* vrele(cx, on.ncVp);
  return 0;
}
