/**
 * tmpfs: operations on vnodes (`vfs/tmpfs/tmpfs_vnops.c`).
 *
 * Room: `kernel/vfs/tmpfs/`; imports nodes, their pages, and vnodes.
 *
 * @module
 */
import { gva } from "../../../hw/address.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import { ERRNO } from "../../kern/errno.ts";
import { getnanotime } from "../../lwkt/callout.ts";
import { physToDmap } from "../../platform/layout.ts";
import { lwpsignal } from "../../proc/kern_sig_send.ts";
import { RLIMIT_FSIZE } from "../../proc/resource.ts";
import { SIGXFSZ } from "../../proc/signal.ts";
import { groupmember, isRoot, type Ucred } from "../../proc/ucred.ts";
import type { VmPage } from "../../vm/vm_page.ts";
import { PAGE_SIZE } from "../../vm/vm_param.ts";
import { udev2dev } from "../devfs/cdev.ts";
import { SpecOps } from "../devfs/spec_vnops.ts";
import { fifoClose, fifoOpen, fifoPoll, fifoRead, fifoWrite } from "../fifo.ts";
import { MNT_RDONLY } from "../mount.ts";
import type { File } from "../../kern/file.ts";
import type { PollWaiter } from "../selinfo.ts";
import { type Uio, uiomoveDmap } from "../uio.ts";
import { vinitvmio, vnodePagerUse } from "../vfs_vm.ts";
import { getnewvnode, vgone } from "../vfs_subr.ts";
import {
  type Dirent,
  IO_APPEND,
  type Vattr,
  type VattrChange,
  type VattrNew,
  VBLK,
  VCHR,
  VDIR,
  VFIFO,
  VLNK,
  type Vnode,
  vopStdclose,
  vopStdopen,
  VREG,
  VROOT,
  VTTOIF,
} from "../vnode.ts";
import {
  LINK_MAX,
  tmpfsDirAttach,
  tmpfsDirDetach,
  tmpfsFreeNode,
  tmpfsNewNode,
  type TmpfsNode,
  vfsToTmpfs,
  vpToTmpfsNode,
} from "./tmpfs.ts";
import { tmpfsGetpage, tmpfsMovePages, tmpfsPutpages, tmpfsRegResize, tmpfsSizeMax } from "./tmpfs_pages.ts";
import type { Mount } from "../mount.ts";

/** Largest size of a file: offsets are exact numbers. */
export const TMPFS_FILESIZE_MAX = 2 ** 52;

/** The vnode of a node (`tmpfs_alloc_vp`); not referenced. */
export function tmpfsAllocVp(cx: Cx, mp: Mount, node: TmpfsNode): Vnode {
  if (node.tnVnode !== undefined) return node.tnVnode;
  const special = node.tnType === VCHR || node.tnType === VBLK;
  const vp = getnewvnode(node.tnType, mp, tmpfsOps, node);
  if (node.tnType === VREG) vinitvmio(cx, vp, node.tnSize);
  if (special) vp.vRdev = udev2dev(cx.k, node.tnRdev);
  if (node === vfsToTmpfs(mp).tmRoot) vp.vFlag |= VROOT;
  node.tnVnode = vp;
  return vp;
}

/** Operations on all types of nodes; device nodes go on to their driver. */
class TmpfsOps extends SpecOps {
  override vopGetattr(_cx: Cx, vp: Vnode): Vattr {
    const node = vpToTmpfsNode(vp);
    return {
      vaType: node.tnType,
      vaMode: node.tnMode,
      vaUid: node.tnUid,
      vaGid: node.tnGid,
      vaNlink: node.tnLinks,
      vaFsid: vp.vMount.mntFsid,
      vaFileid: node.tnId,
      vaSize: node.tnSize,
      vaBlocksize: PAGE_SIZE,
      vaAtime: node.tnAtime,
      vaMtime: node.tnMtime,
      vaCtime: node.tnCtime,
      vaFlags: node.tnFlags,
      vaRdev: node.tnRdev,
      vaBytes: Math.ceil(node.tnSize / PAGE_SIZE) * PAGE_SIZE,
    };
  }

  override *vopSetattr(cx: Cx, vp: Vnode, change: VattrChange, cred: Ucred): Exec<number> {
    const node = vpToTmpfsNode(vp);
    if (vp.vMount.mntFlag & MNT_RDONLY) return ERRNO.EROFS;
    const error = setattr(cx, node, change, cred);
    if (error !== 0 || change.vaSize === undefined) return error;
    if (node.tnType === VDIR) return ERRNO.EISDIR;
    if (node.tnType !== VREG) return 0;
    if (change.vaSize > TMPFS_FILESIZE_MAX) return ERRNO.EFBIG;
    node.tnMtime = node.tnCtime = getnanotime(cx);
    return change.vaSize === node.tnSize ? 0 : yield* tmpfsRegResize(cx, vp, change.vaSize);
  }

  override *vopOpen(cx: Cx, vp: Vnode, fflag: number, cred: Ucred, fp: File | undefined): Exec<number> {
    if (vp.vType === VCHR || vp.vType === VBLK) return yield* super.vopOpen(cx, vp, fflag, cred, fp);
    if (vp.vType === VFIFO) {
      const error = yield* fifoOpen(cx, vp, fflag);
      if (error !== 0) return error;
    }
    return vopStdopen(vp, fflag);
  }
  override *vopClose(cx: Cx, vp: Vnode, fflag: number): Exec<number> {
    if (vp.vType === VCHR || vp.vType === VBLK) return yield* super.vopClose(cx, vp, fflag);
    if (vp.vType === VFIFO) fifoClose(cx, vp, fflag);
    return vopStdclose(vp, fflag);
  }

  override *vopRead(cx: Cx, vp: Vnode, uio: Uio, ioflag: number): Exec<number> {
    if (vp.vType === VFIFO) return yield* fifoRead(cx, vp, uio, ioflag);
    if (vp.vType !== VREG) return yield* super.vopRead(cx, vp, uio, ioflag);
    const node = vpToTmpfsNode(vp);
    while (uio.resid > 0 && uio.offset < node.tnSize) {
      const within = uio.offset % PAGE_SIZE;
      const n = Math.min(PAGE_SIZE - within, uio.resid, node.tnSize - uio.offset);
      const error = yield* vnodePagerUse(
        cx,
        vp,
        (uio.offset - within) / PAGE_SIZE,
        false,
        movePage(cx, within, n, uio),
      );
      if (error !== 0) return error;
    }
    node.tnAtime = getnanotime(cx);
    return 0;
  }

  override *vopWrite(cx: Cx, vp: Vnode, uio: Uio, ioflag: number): Exec<number> {
    if (vp.vType === VFIFO) return yield* fifoWrite(cx, vp, uio, ioflag);
    if (vp.vType !== VREG) return yield* super.vopWrite(cx, vp, uio, ioflag);
    if (uio.resid === 0) return 0;
    const node = vpToTmpfsNode(vp);
    if (ioflag & IO_APPEND) uio.offset = node.tnSize;
    const end = uio.offset + uio.resid;
    if (end > TMPFS_FILESIZE_MAX) return ERRNO.EFBIG;
    const { proc } = cx;
    if (proc !== undefined && end > proc.pLimit.cur(RLIMIT_FSIZE)) {
      lwpsignal(cx, proc, cx.lwp, SIGXFSZ);
      return ERRNO.EFBIG;
    }
    const before = node.tnSize;
    // What does not fit is not written; what does is.
    const room = Math.min(end, Math.max(before, tmpfsSizeMax(cx, vp)));
    if (room <= uio.offset) return ERRNO.ENOSPC;
    if (room > before) {
      const error = yield* tmpfsRegResize(cx, vp, room);
      if (error !== 0) return error;
    }
    let error = 0;
    while (error === 0 && uio.offset < room && uio.resid > 0) {
      const within = uio.offset % PAGE_SIZE;
      const n = Math.min(PAGE_SIZE - within, uio.resid, room - uio.offset);
      error = yield* vnodePagerUse(
        cx,
        vp,
        (uio.offset - within) / PAGE_SIZE,
        true,
        movePage(cx, within, n, uio),
      );
    }
    // A fault on the way: the file ends where the bytes do.
    if (error !== 0 && node.tnSize > before && uio.offset < node.tnSize) {
      yield* tmpfsRegResize(cx, vp, Math.max(before, uio.offset));
    }
    node.tnMtime = node.tnCtime = getnanotime(cx);
    if (proc !== undefined && !isRoot(proc.pUcred)) node.tnMode &= ~0o6000;
    return error;
  }

  override vopPoll(cx: Cx, vp: Vnode, events: number, waiter: PollWaiter | undefined): number {
    return vp.vType === VFIFO ? fifoPoll(cx, vp, events, waiter) : super.vopPoll(cx, vp, events, waiter);
  }

  override vopReaddir(_cx: Cx, vp: Vnode, offset: number): readonly Dirent[] | number {
    if (vp.vType !== VDIR) return ERRNO.ENOTDIR;
    const node = vpToTmpfsNode(vp);
    const entries: Dirent[] = [];
    const add = (name: string, of: TmpfsNode, next: number) =>
      entries.push({ ino: of.tnId, type: VTTOIF[of.tnType]! >> 12, name, next });
    if (offset <= 0) add(".", node, 1);
    if (offset <= 1) add("..", node.tnParent ?? node, 2);
    for (const { name, node: of, cookie } of node.tnDir.values()) {
      if (cookie >= offset) add(name, of, cookie + 1);
    }
    return entries;
  }

  override vopReadlink(_cx: Cx, vp: Vnode): string | number {
    return vp.vType === VLNK ? vpToTmpfsNode(vp).tnLink : ERRNO.EINVAL;
  }

  override vopNresolve(cx: Cx, dvp: Vnode, name: string): Vnode | number {
    const de = vpToTmpfsNode(dvp).tnDir.get(name);
    return de === undefined ? ERRNO.ENOENT : tmpfsAllocVp(cx, dvp.vMount, de.node);
  }

  override vopNcreate(cx: Cx, dvp: Vnode, name: string, vap: VattrNew, cred: Ucred): Vnode | number {
    const node = make(cx, dvp, name, vap.vaType, vap.vaMode, cred);
    if (typeof node === "number") return node;
    node.tnRdev = vap.vaRdev ?? 0;
    return tmpfsAllocVp(cx, dvp.vMount, node);
  }

  override vopNsymlink(
    cx: Cx,
    dvp: Vnode,
    name: string,
    target: string,
    mode: number,
    cred: Ucred,
  ): Vnode | number {
    const node = make(cx, dvp, name, VLNK, mode, cred);
    if (typeof node === "number") return node;
    node.tnLink = target;
    node.tnSize = new TextEncoder().encode(target).length;
    return tmpfsAllocVp(cx, dvp.vMount, node);
  }

  override vopNlink(cx: Cx, dvp: Vnode, name: string, vp: Vnode): number {
    const dnode = vpToTmpfsNode(dvp), node = vpToTmpfsNode(vp);
    if (node.tnType === VDIR) return ERRNO.EPERM;
    if (node.tnLinks >= LINK_MAX) return ERRNO.EMLINK;
    if (dnode.tnLinks === 0) return ERRNO.ENOENT;
    if (dnode.tnDir.has(name)) return ERRNO.EEXIST;
    tmpfsDirAttach(cx, vfsToTmpfs(dvp.vMount), dnode, name, node);
    return 0;
  }

  override vopNremove(cx: Cx, dvp: Vnode, name: string): number {
    const dnode = vpToTmpfsNode(dvp);
    const de = dnode.tnDir.get(name);
    if (de === undefined) return ERRNO.ENOENT;
    if (de.node.tnType === VDIR) return ERRNO.EISDIR;
    tmpfsDirDetach(cx, vfsToTmpfs(dvp.vMount), dnode, de);
    return 0;
  }

  override vopNrmdir(cx: Cx, dvp: Vnode, name: string): number {
    const dnode = vpToTmpfsNode(dvp);
    const de = dnode.tnDir.get(name);
    if (de === undefined) return ERRNO.ENOENT;
    if (de.node.tnType !== VDIR) return ERRNO.ENOTDIR;
    if (de.node.tnDir.size > 0) return ERRNO.ENOTEMPTY;
    tmpfsDirDetach(cx, vfsToTmpfs(dvp.vMount), dnode, de);
    return 0;
  }

  override vopNrename(cx: Cx, fdvp: Vnode, fname: string, tdvp: Vnode, tname: string): number {
    const tm = vfsToTmpfs(fdvp.vMount);
    const fdnode = vpToTmpfsNode(fdvp), tdnode = vpToTmpfsNode(tdvp);
    const from = fdnode.tnDir.get(fname), to = tdnode.tnDir.get(tname);
    if (from === undefined) return ERRNO.ENOENT;
    if (tdnode.tnLinks === 0) return ERRNO.ENOENT;
    if (to?.node === from.node) return 0;
    const isDir = from.node.tnType === VDIR;
    if (isDir) {
      // A directory cannot become its own descendant.
      for (
        let at: TmpfsNode | undefined = tdnode;
        at !== undefined;
        at = at.tnParent === at ? undefined : at.tnParent
      ) {
        if (at === from.node) return ERRNO.EINVAL;
      }
    }
    if (to !== undefined) {
      const toDir = to.node.tnType === VDIR;
      if (isDir && !toDir) return ERRNO.ENOTDIR;
      if (!isDir && toDir) return ERRNO.EISDIR;
      if (toDir && to.node.tnDir.size > 0) return ERRNO.ENOTEMPTY;
      tmpfsDirDetach(cx, tm, tdnode, to);
    }
    tmpfsDirDetach(cx, tm, fdnode, from);
    tmpfsDirAttach(cx, tm, tdnode, tname, from.node);
    return 0;
  }

  override *vopGetpage(cx: Cx, vp: Vnode, m: VmPage): Exec<number> {
    return yield* tmpfsGetpage(cx, vp, m);
  }
  override *vopPutpages(cx: Cx, vp: Vnode, pages: readonly VmPage[]): Exec<number[]> {
    return yield* tmpfsPutpages(cx, vp, pages);
  }

  override *vopInactive(cx: Cx, vp: Vnode): Exec<void> {
    if (vpToTmpfsNode(vp).tnLinks === 0) yield* vgone(cx, vp);
  }
  override vopReclaim(cx: Cx, vp: Vnode): Exec<void> {
    return tmpfsMovePages(cx, vp);
  }
  override vopDetach(_cx: Cx, vp: Vnode): void {
    const node = vpToTmpfsNode(vp);
    node.tnVnode = undefined;
    if (node.tnLinks === 0) tmpfsFreeNode(vfsToTmpfs(vp.vMount), node);
  }
}

const tmpfsOps = new TmpfsOps();

/** Copies within one page of a file. */
function movePage(cx: Cx, within: number, n: number, uio: Uio): (m: VmPage) => Exec<number> {
  return (m) => uiomoveDmap(cx, gva(physToDmap(cx.k, m.physAddr) + BigInt(within)), n, uio);
}

/** Makes a node with a name in a directory. */
function make(cx: Cx, dvp: Vnode, name: string, type: number, mode: number, cred: Ucred): TmpfsNode | number {
  const dnode = vpToTmpfsNode(dvp);
  if (dvp.vMount.mntFlag & MNT_RDONLY) return ERRNO.EROFS;
  if (dnode.tnLinks === 0) return ERRNO.ENOENT;
  if (dnode.tnDir.has(name)) return ERRNO.EEXIST;
  if (type === VDIR && dnode.tnLinks >= LINK_MAX) return ERRNO.EMLINK;
  const node = tmpfsNewNode(cx, dvp, type, mode, cred);
  if (typeof node === "number") return node;
  tmpfsDirAttach(cx, vfsToTmpfs(dvp.vMount), dnode, name, node);
  return node;
}

/** Owner, mode, times, flags: checks each right, then changes. */
function setattr(cx: Cx, node: TmpfsNode, change: VattrChange, cred: Ucred): number {
  const { vaMode, vaUid, vaGid, vaAtime, vaMtime, vaFlags } = change;
  const root = isRoot(cred), owner = root || cred.crUid === node.tnUid;
  const uid = vaUid ?? node.tnUid, gid = vaGid ?? node.tnGid;
  const chown = vaUid !== undefined || vaGid !== undefined;
  const other = vaMode !== undefined || vaAtime !== undefined || vaMtime !== undefined ||
    vaFlags !== undefined;
  if ((chown || other) && !owner) return ERRNO.EPERM;
  // The owner may give the file to a group of his; only the super-user gives it away.
  if (chown && !root && (uid !== node.tnUid || !groupmember(gid, cred))) return ERRNO.EPERM;
  if (vaMode !== undefined && !root) {
    if (node.tnType !== VDIR && vaMode & 0o1000) return ERRNO.EFTYPE;
    if (vaMode & 0o2000 && !groupmember(node.tnGid, cred)) return ERRNO.EPERM;
  }
  if (!chown && !other) return 0;
  if (chown) {
    node.tnUid = uid;
    node.tnGid = gid;
    if (!root) node.tnMode &= ~0o6000;
  }
  if (vaMode !== undefined) node.tnMode = vaMode & 0o7777;
  if (vaAtime !== undefined) node.tnAtime = vaAtime;
  if (vaMtime !== undefined) node.tnMtime = vaMtime;
  if (vaFlags !== undefined) node.tnFlags = vaFlags;
  node.tnCtime = getnanotime(cx);
  return 0;
}
