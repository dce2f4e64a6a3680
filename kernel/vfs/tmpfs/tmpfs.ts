/**
 * tmpfs: a file system in memory (`vfs/tmpfs/tmpfs.h`, `tmpfs_subr.c`): nodes, directories and the limits.
 *
 * Room: `kernel/vfs/tmpfs/`; imports vnodes. Directories and attributes are TypeScript; the bytes of files are pages
 * ({@link "./tmpfs_pages.ts"}).
 *
 * A page of a file is in one of these places, looked for in this order (what a later one still has of it, because swap was read ahead, is
 * older or the same):
 *
 * 1. the vnode's object (what read, write and mmap use);
 * 2. the node's anonymous object `tnAobj`, in memory or on swap: pages that are not as the archive has them, while no vnode or too little
 *    memory is there for them;
 * 3. the archive that the root file system came from, as long as nobody has changed that page: bytes in RAM that are not copied before
 *    somebody reads them;
 * 4. nowhere: zeros.
 *
 * @module
 */
import type { Cx } from "../../context.ts";
import { ERRNO } from "../../kern/errno.ts";
import { getnanotime } from "../../lwkt/callout.ts";
import type { Ucred } from "../../proc/ucred.ts";
import type { VmObject } from "../../vm/vm_object.ts";
import type { Mount } from "../mount.ts";
import { PAGE_SIZE } from "../../vm/vm_param.ts";
import { type Timespec, VDIR, type Vnode, type Vtype } from "../vnode.ts";

/** Most names of one file (`LINK_MAX`). */
export const LINK_MAX = 32767;
/** Bytes of memory for each node that is allowed, as DragonFly counts (`TMPFS_MAX nodes`). */
const BYTES_PER_NODE = 1024;
/** Bytes of a directory entry in a directory's size. */
const DIRENT_BYTES = 32;

/** A directory entry (`struct tmpfs_dirent`). */
export interface TmpfsDirent {
  readonly name: string;
  readonly node: TmpfsNode;
  /** `td_cookie`: place in the directory, rising. */
  readonly cookie: number;
}

/** Bytes of an archive: where they stand in RAM. */
export interface ArchiveBytes {
  /** Physical address. */
  readonly pa: number;
  /** How many of them are still the file's: falls when the file is cut, never rises. */
  bytes: number;
}

/** A node (`struct tmpfs_node`). */
export class TmpfsNode {
  /** `tn_type`. */
  readonly tnType: Vtype;
  /** `tn_id`: inode number. */
  readonly tnId: number;
  tnMode: number;
  tnUid: number;
  tnGid: number;
  /** `tn_links`: names; a directory also counts itself and its subdirectories. */
  tnLinks = 0;
  tnSize = 0;
  tnFlags = 0;
  tnAtime: Timespec;
  tnMtime: Timespec;
  tnCtime: Timespec;
  /** `tn_vnode`. */
  tnVnode: Vnode | undefined = undefined;
  /** Directory: entries in the order of their making. */
  readonly tnDir: Map<string, TmpfsDirent> = new Map();
  /** Directory: cookie of the next entry. */
  tnNextcookie = 2;
  /** `tn_parent` of a directory; itself for the root. */
  tnParent: TmpfsNode | undefined = undefined;
  /** Symbolic link: its target. */
  tnLink = "";
  /** Device node: its number. */
  tnRdev = 0;
  /** Regular file: bytes of the archive. */
  tnArchive: ArchiveBytes | undefined = undefined;
  /** `tn_reg.tn_aobj`. */
  tnAobj: VmObject | undefined = undefined;
  /** Pages that count against the limit (`tn_reg.tn_aobj_pages`). */
  tnPages = 0;

  /** See {@link tmpfsAllocNode}. */
  constructor(type: Vtype, id: number, mode: number, uid: number, gid: number, now: Timespec) {
    this.tnType = type;
    this.tnId = id;
    this.tnMode = mode;
    this.tnUid = uid;
    this.tnGid = gid;
    this.tnAtime = this.tnMtime = this.tnCtime = now;
  }
}

/** A mounted tmpfs (`struct tmpfs_mount`). */
export class TmpfsMount {
  /** `tm_root`. */
  tmRoot!: TmpfsNode;
  /** `tm_nodes_inuse`: nodes and names. */
  tmNodesInuse = 0;
  /** `tm_pages_used`. */
  tmPagesUsed = 0;
  /** Inode number of the next node. */
  tmNextid = 2;
  /** Nodes by number, while they exist: for the unmount. */
  readonly tmNodes: Set<TmpfsNode> = new Set();
  /** `tm_pages_max` given at the mount, 0 for what memory allows. */
  readonly tmSizeLimit: number;

  constructor(sizeLimit: number) {
    this.tmSizeLimit = sizeLimit;
  }
}

/** The tmpfs of a mount. */
export function vfsToTmpfs(mp: Mount): TmpfsMount {
  return mp.mntData as TmpfsMount;
}
/** The node of a vnode. */
export function vpToTmpfsNode(vp: Vnode): TmpfsNode {
  return vp.vData as TmpfsNode;
}

/** `tm_pages_max`: half of memory and all swap, unless the mount says less. */
export function tmpfsPagesMax(cx: Cx, tm: TmpfsMount): number {
  const most = Math.floor(cx.k.vmmeter.vPageCount / 2) + cx.k.swap.vmSwapMax;
  return tm.tmSizeLimit > 0 ? Math.min(most, tm.tmSizeLimit) : most;
}
/** `tm_nodes_max`. */
export function tmpfsNodesMax(cx: Cx, tm: TmpfsMount): number {
  return 3 + tmpfsPagesMax(cx, tm) * (PAGE_SIZE / BYTES_PER_NODE);
}

/** Makes a node without a name (`tmpfs_alloc_node`). ENOSPC when there are too many. */
export function tmpfsAllocNode(
  cx: Cx,
  tm: TmpfsMount,
  type: Vtype,
  mode: number,
  uid: number,
  gid: number,
): TmpfsNode | number {
  if (tm.tmNodesInuse >= tmpfsNodesMax(cx, tm)) return ERRNO.ENOSPC;
  const node = new TmpfsNode(type, tm.tmNextid++, mode & 0o7777, uid, gid, getnanotime(cx));
  tm.tmNodesInuse++;
  tm.tmNodes.add(node);
  return node;
}

/** Forgets a node that has neither name nor vnode (`tmpfs_free_node`); its pages are gone already. */
export function tmpfsFreeNode(tm: TmpfsMount, node: TmpfsNode): void {
  if (!tm.tmNodes.delete(node)) return;
  tm.tmNodesInuse--;
  tm.tmPagesUsed -= node.tnPages;
  node.tnPages = 0;
}

/** Gives a node a name (`tmpfs_dir_attach`). The name is not there yet. */
export function tmpfsDirAttach(
  cx: Cx,
  tm: TmpfsMount,
  dnode: TmpfsNode,
  name: string,
  node: TmpfsNode,
): void {
  dnode.tnDir.set(name, { name, node, cookie: dnode.tnNextcookie++ });
  tm.tmNodesInuse++;
  node.tnLinks++;
  if (node.tnType === VDIR) {
    node.tnParent = dnode;
    node.tnLinks++;
    dnode.tnLinks++;
  }
  dirChanged(cx, dnode);
  node.tnCtime = getnanotime(cx);
}

/** Takes a name away (`tmpfs_dir_detach`). The node stays; whoever calls sees to it when it has no name left. */
export function tmpfsDirDetach(cx: Cx, tm: TmpfsMount, dnode: TmpfsNode, de: TmpfsDirent): void {
  dnode.tnDir.delete(de.name);
  tm.tmNodesInuse--;
  const { node } = de;
  node.tnLinks--;
  if (node.tnType === VDIR) {
    node.tnLinks--;
    dnode.tnLinks--;
    node.tnParent = undefined;
  }
  dirChanged(cx, dnode);
  node.tnCtime = getnanotime(cx);
}

function dirChanged(cx: Cx, dnode: TmpfsNode): void {
  dnode.tnSize = dnode.tnDir.size * DIRENT_BYTES;
  dnode.tnMtime = dnode.tnCtime = getnanotime(cx);
}

/** Owner and group of what `cred` makes in a directory: BSD gives the directory's group. */
export function tmpfsNewNode(
  cx: Cx,
  dvp: Vnode,
  type: Vtype,
  mode: number,
  cred: Ucred,
): TmpfsNode | number {
  const tm = vfsToTmpfs(dvp.vMount);
  const node = tmpfsAllocNode(cx, tm, type, mode, cred.crUid, vpToTmpfsNode(dvp).tnGid);
  return node;
}
