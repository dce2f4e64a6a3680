/**
 * devfs: /dev, the tree of the devices that there are (`vfs/devfs/devfs_vnops.c`, `devfs_vfsops.c`).
 *
 * Room: `kernel/vfs/devfs/`; imports devices and vnodes.
 *
 * Nodes cannot be made or removed here; their owner and mode can be changed.
 *
 * @module
 */
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import { ERRNO } from "../../kern/errno.ts";
import { getnanotime } from "../../lwkt/callout.ts";
import { isRoot, type Ucred } from "../../proc/ucred.ts";
import type { Mount, Statfs, VfsOps } from "../mount.ts";
import { getnewvnode } from "../vfs_subr.ts";
import {
  type Dirent,
  type Timespec,
  type Vattr,
  type VattrChange,
  type VattrNew,
  VCHR,
  VDIR,
  type Vnode,
  VROOT,
  VTTOIF,
} from "../vnode.ts";
import type { Cdev } from "./cdev.ts";
import { SpecOps } from "./spec_vnops.ts";

/** A directory or device (`struct devfs_node`). */
class DevfsNode {
  vnode: Vnode | undefined = undefined;
  mode: number;
  uid: number;
  gid: number;
  /** Directory: its parent; itself for the root. */
  readonly parent: DevfsNode | undefined;
  /** Entries of a directory. */
  readonly entries: Map<string, DevfsNode> = new Map();
  readonly dev: Cdev | undefined;
  readonly ino: number;
  readonly made: Timespec;

  constructor(parent: DevfsNode | undefined, dev: Cdev | undefined, ino: number, made: Timespec) {
    this.parent = parent;
    this.dev = dev;
    this.ino = ino;
    this.made = made;
    this.mode = dev?.siPerms ?? 0o755;
    this.uid = dev?.siUid ?? 0;
    this.gid = dev?.siGid ?? 0;
  }
}

/** A mounted devfs. */
class DevfsMount {
  readonly root: DevfsNode;
  /** Devices that have a node. */
  known = 0;
  nextIno = 3;

  constructor(made: Timespec) {
    this.root = new DevfsNode(undefined, undefined, 2, made);
  }

  /** Adds nodes for devices that were made since the last time. */
  update(cx: Cx): void {
    const { devices } = cx.k.vfs;
    if (devices.size === this.known) return;
    const now = getnanotime(cx);
    for (const [name, dev] of devices) {
      const parts = name.split("/");
      const last = parts.pop()!;
      let dir = this.root;
      for (const part of parts) {
        let next = dir.entries.get(part);
        if (next === undefined) {
          next = new DevfsNode(dir, undefined, this.nextIno++, now);
          dir.entries.set(part, next);
        }
        dir = next;
      }
      if (!dir.entries.has(last)) dir.entries.set(last, new DevfsNode(undefined, dev, this.nextIno++, now));
    }
    this.known = devices.size;
  }
}

function mountOf(vp: Vnode): DevfsMount {
  return vp.vMount.mntData as DevfsMount;
}
function nodeOf(vp: Vnode): DevfsNode {
  return vp.vData as DevfsNode;
}

class DevfsOps extends SpecOps {
  override vopGetattr(_cx: Cx, vp: Vnode): Vattr {
    const node = nodeOf(vp);
    return {
      vaType: vp.vType,
      vaMode: node.mode,
      vaUid: node.uid,
      vaGid: node.gid,
      vaNlink: node.dev === undefined ? 2 : 1,
      vaFsid: vp.vMount.mntFsid,
      vaFileid: node.ino,
      vaSize: 0,
      vaBlocksize: 4096,
      vaAtime: node.made,
      vaMtime: node.made,
      vaCtime: node.made,
      vaFlags: 0,
      vaRdev: node.dev?.siRdev ?? 0,
      vaBytes: 0,
    };
  }
  override *vopSetattr(_cx: Cx, vp: Vnode, change: VattrChange, cred: Ucred): Exec<number> {
    const node = nodeOf(vp);
    const { vaMode, vaUid, vaGid, vaFlags } = change;
    if (vaFlags !== undefined) return ERRNO.EOPNOTSUPP;
    if (!isRoot(cred) && (cred.crUid !== node.uid || vaUid !== undefined || vaGid !== undefined)) {
      return ERRNO.EPERM;
    }
    if (vaMode !== undefined) node.mode = vaMode & 0o7777;
    if (vaUid !== undefined) node.uid = vaUid;
    if (vaGid !== undefined) node.gid = vaGid;
    return 0;
  }
  override vopNresolve(cx: Cx, dvp: Vnode, name: string): Vnode | number {
    mountOf(dvp).update(cx);
    const node = nodeOf(dvp).entries.get(name);
    return node === undefined ? ERRNO.ENOENT : allocVp(dvp.vMount, node);
  }
  override vopNcreate(_cx: Cx, _dvp: Vnode, _name: string, _vap: VattrNew, _cred: Ucred): Vnode | number {
    return ERRNO.EOPNOTSUPP;
  }
  override vopReaddir(cx: Cx, vp: Vnode, offset: number): readonly Dirent[] | number {
    const node = nodeOf(vp);
    if (node.dev !== undefined) return ERRNO.ENOTDIR;
    mountOf(vp).update(cx);
    const all: [string, DevfsNode][] = [[".", node], ["..", node.parent ?? node], ...node.entries];
    return all.map(([name, { ino, dev }], i) => ({
      ino,
      type: VTTOIF[dev === undefined ? VDIR : VCHR]! >> 12,
      name,
      next: i + 1,
    })).slice(Math.max(0, offset));
  }
  override vopDetach(_cx: Cx, vp: Vnode): void {
    nodeOf(vp).vnode = undefined;
  }
}

const devfsOps = new DevfsOps();

function allocVp(mp: Mount, node: DevfsNode): Vnode {
  if (node.vnode !== undefined) return node.vnode;
  const vp = getnewvnode(node.dev === undefined ? VDIR : VCHR, mp, devfsOps, node);
  vp.vRdev = node.dev;
  if (node === (mp.mntData as DevfsMount).root) vp.vFlag |= VROOT;
  node.vnode = vp;
  return vp;
}

/** Operations (`devfs_vfsops`). */
export const devfsVfsops: VfsOps = {
  vfsName: "devfs",
  vfsVolatile: true,
  vfsRoot(_cx: Cx, mp: Mount): Vnode {
    return allocVp(mp, (mp.mntData as DevfsMount).root);
  },
  vfsStatfs(cx: Cx): Statfs {
    const files = cx.k.vfs.devices.size;
    return { fBsize: 512, fBlocks: 2, fBfree: 0, fFiles: files, fFfree: 0 };
  },
  *vfsUnmount(): Exec<void> {},
};

/** Data of a new devfs. */
export function devfsMake(cx: Cx): object {
  return new DevfsMount(getnanotime(cx));
}
