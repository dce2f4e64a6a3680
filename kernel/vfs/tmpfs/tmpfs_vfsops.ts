/**
 * tmpfs as a file system (`vfs/tmpfs/tmpfs_vfsops.c`).
 *
 * Room: `kernel/vfs/tmpfs/`; imports nodes, vnodes.
 *
 * @module
 */
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import { vmObjectDeallocate } from "../../vm/vm_object_terminate.ts";
import { PAGE_SIZE } from "../../vm/vm_param.ts";
import type { Mount, Statfs, VfsOps } from "../mount.ts";
import { VDIR, type Vnode } from "../vnode.ts";
import { tmpfsAllocNode, TmpfsMount, tmpfsNodesMax, tmpfsPagesMax, vfsToTmpfs } from "./tmpfs.ts";
import { tmpfsAllocVp } from "./tmpfs_vnops.ts";

/** Operations (`tmpfs_vfsops`). */
export const tmpfsVfsops: VfsOps = {
  vfsName: "tmpfs",
  vfsVolatile: false,
  vfsRoot(cx: Cx, mp: Mount): Vnode {
    return tmpfsAllocVp(cx, mp, vfsToTmpfs(mp).tmRoot);
  },
  vfsStatfs(cx: Cx, mp: Mount): Statfs {
    const tm = vfsToTmpfs(mp);
    const blocks = tmpfsPagesMax(cx, tm), files = Math.floor(tmpfsNodesMax(cx, tm));
    return {
      fBsize: PAGE_SIZE,
      fBlocks: blocks,
      fBfree: Math.max(0, blocks - tm.tmPagesUsed),
      fFiles: files,
      fFfree: Math.max(0, files - tm.tmNodesInuse),
    };
  },
  *vfsUnmount(cx: Cx, mp: Mount): Exec<void> {
    for (const node of vfsToTmpfs(mp).tmNodes) {
      const aobj = node.tnAobj;
      node.tnAobj = undefined;
      if (aobj !== undefined) yield* vmObjectDeallocate(cx, aobj);
    }
  },
};

/** Makes the data of a new tmpfs: an empty root directory. @param sizeLimit Pages, 0 for what memory allows. */
export function tmpfsMake(cx: Cx, sizeLimit = 0): TmpfsMount {
  const tm = new TmpfsMount(sizeLimit);
  const root = tmpfsAllocNode(cx, tm, VDIR, 0o755, 0, 0);
  if (typeof root === "number") throw new Error("tmpfs: there is no room for its root");
  root.tnLinks = 2;
  root.tnParent = root;
  tm.tmRoot = root;
  return tm;
}
