/**
 * The life of a vnode (`kern/vfs_subr.c`, `kern/vfs_lock.c`): made, referenced, cached, taken apart.
 *
 * Room: `kernel/vfs/`; imports vnode, the namecache and the files' objects.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { LK_EXCLUSIVE, LK_RELEASE } from "../lwkt/lock.ts";
import type { Mount } from "./mount.ts";
import { cacheInvalVp } from "./namecache.ts";
import { MAXVNODES_CACHED } from "./vfs_state.ts";
import { vnodePagerRelease } from "./vfs_vm.ts";
import { VBAD, VCACHED, vnLock, Vnode, VnodeOps, VRECLAIMED, vref, type Vtype } from "./vnode.ts";

/** Operations of a vnode that was taken apart (`dead_vnode_vops`): everything fails. */
class DeadOps extends VnodeOps {
  override vopGetattr(_cx: Cx, _vp: Vnode) {
    const never = { sec: 0, nsec: 0 };
    return {
      vaType: VBAD,
      vaMode: 0,
      vaUid: 0,
      vaGid: 0,
      vaNlink: 0,
      vaFsid: 0,
      vaFileid: 0,
      vaSize: 0,
      vaBlocksize: 512,
      vaAtime: never,
      vaMtime: never,
      vaCtime: never,
      vaFlags: 0,
      vaRdev: 0,
      vaBytes: 0,
    };
  }
}

const deadOps = new DeadOps();

/** Makes a vnode for a file system (`getnewvnode`); without references, so cached, until somebody refers to it. */
export function getnewvnode(type: Vtype, mount: Mount, ops: VnodeOps, data: object | undefined): Vnode {
  const vp = new Vnode(type, mount, ops, data);
  mount.mntNvnodelist.add(vp);
  vp.vFlag |= VCACHED;
  mount.mntCached.add(vp);
  return vp;
}

/** Gives a reference back (`vrele`); the last one makes the vnode inactive, and too many cached ones go. */
export function* vrele(cx: Cx, vp: Vnode): Exec<void> {
  kassert(vp.vRefcnt > 0, "vrele: the vnode is not referenced");
  if (vp.vRefcnt > 1) {
    vp.vRefcnt--;
    return;
  }
  // The reference is kept while the vnode becomes inactive, so that nobody else makes it inactive meanwhile.
  if ((vp.vFlag & VRECLAIMED) === 0) yield* vp.vOps.vopInactive(cx, vp);
  if (--vp.vRefcnt > 0) return;
  if (vp.vFlag & VRECLAIMED) return;
  vp.vFlag |= VCACHED;
  vp.vMount.mntCached.add(vp);
  yield* vnlruProc(cx, MAXVNODES_CACHED);
}

/**
 * Takes a vnode apart (`vgone`): its pages go to where the file system keeps them, its names become unresolved. The caller has the only
 * reference. Gives false, and the vnode is as before, when somebody else has got one meanwhile.
 */
export function* vgone(cx: Cx, vp: Vnode): Exec<boolean> {
  if (vp.vFlag & VRECLAIMED) return true;
  do {
    yield* vnLock(cx, vp, LK_EXCLUSIVE);
    yield* vp.vOps.vopReclaim(cx, vp);
    yield* vnLock(cx, vp, LK_RELEASE);
    if (vp.vRefcnt !== 1) return false;
    // Somebody may have come and gone, and left pages.
  } while (vp.vObject !== undefined && vp.vObject.residentPageCount > 0);
  // From here to the end of the object nobody else runs.
  vp.vFlag |= VRECLAIMED;
  cacheInvalVp(cx, vp);
  vp.vOps.vopDetach(cx, vp);
  vp.vMount.mntNvnodelist.delete(vp);
  vp.vMount.mntCached.delete(vp);
  vp.vOps = deadOps;
  vp.vData = undefined;
  vp.vRdev = undefined;
  vp.vType = VBAD;
  yield* vnodePagerRelease(cx, vp);
  return true;
}

/** Takes the oldest cached vnodes apart until at most `keep` are left (`vnlru`). */
export function* vnlruProc(cx: Cx, keep: number): Exec<void> {
  for (;;) {
    const { mountlist } = cx.k.vfs;
    const count = mountlist.reduce((sum, mp) => sum + mp.mntCached.size, 0);
    if (count <= keep) return;
    const vp = oldestCached(mountlist);
    if (vp === undefined) return;
    vref(vp);
    if (yield* vgone(cx, vp)) vp.vRefcnt--;
    else yield* vrele(cx, vp);
  }
}

/** The oldest cached vnode that is not some file system's root. */
function oldestCached(mountlist: readonly Mount[]): Vnode | undefined {
  for (const mp of mountlist) {
    for (const vp of mp.mntCached) if (vp !== mp.mntNcmountpt.ncVp) return vp;
  }
  return undefined;
}

/** Gives up all that is cached and not in use: for the leak check, and before an unmount. */
export function vfsDropCaches(cx: Cx): Exec<void> {
  return vnlruProc(cx, 0);
}
