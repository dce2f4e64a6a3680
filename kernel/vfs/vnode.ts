/**
 * The vnode: what every file, directory and device is to the rest of the kernel (`sys/sys/vnode.h`, `kern/vfs_subr.c`,
 * `kern/vfs_lock.c`).
 *
 * Room: `kernel/vfs/`; imports lwkt's locks; everything else as types.
 *
 * A vnode is **referenced** (`vref`, `vrele`: descriptors, working directories, mappings, running look-ups) or **cached**: without
 * references but still known to its file system, with its pages. The last `vrele` calls `vopInactive`; `vgone` (`vopReclaim`) takes it
 * apart for good: for a file that has no name any more, or when too many are cached.
 *
 * Deviation: directories live in TypeScript and never wait for a disk, so every operation on names (resolve, create, remove,
 * rename …) is a plain function: atomic between two boundaries. The locks that DragonFly takes on namecache entries and
 * directories have nothing left to protect and are not modelled. `v_lock` protects a regular file's size and bytes.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { ERRNO } from "../kern/errno.ts";
import { type File, FWRITE } from "../kern/file.ts";
import { Lock, lockmgr } from "../lwkt/lock.ts";
import type { Ucred } from "../proc/ucred.ts";
import type { VmObject } from "../vm/vm_object.ts";
import type { VmPage } from "../vm/vm_page.ts";
import { VM_PAGER_FAIL } from "../vm/vm_pager.ts";
import type { Cdev } from "./devfs/cdev.ts";
import type { Mount } from "./mount.ts";
import type { Namecache } from "./namecache.ts";
import type { PollWaiter } from "./selinfo.ts";
import type { Uio } from "./uio.ts";

/** `enum vtype`. */
export const VNON = 0;
export const VREG = 1;
export const VDIR = 2;
export const VBLK = 3;
export const VCHR = 4;
export const VLNK = 5;
export const VSOCK = 6;
export const VFIFO = 7;
export const VBAD = 8;

/** A value of `enum vtype`. */
export type Vtype = number;

/** `v_flag`: root of its file system. */
export const VROOT = 0x0000_0001;
/** `v_flag`: being executed; nobody may open it for writing (ETXTBSY). */
export const VTEXT = 0x0000_0002;
/** `v_flag`: `vgone` is taking or has taken it apart. */
export const VRECLAIMED = 0x0000_0100;
/** `v_flag`: without references and on the list of cached vnodes. */
export const VCACHED = 0x0008_0000;

/** `S_IFMT` bits by vtype. */
export const VTTOIF: readonly number[] = [
  0,
  0o100000,
  0o040000,
  0o060000,
  0o020000,
  0o120000,
  0o140000,
  0o010000,
  0,
];

/** vtype by `S_IFMT` bits. */
export function iftovt(mode: number): Vtype {
  const found = VTTOIF.indexOf(mode & 0o170000);
  return found > 0 ? found : VNON;
}

/** A point in time (`struct timespec`), seconds since 1970. */
export interface Timespec {
  readonly sec: number;
  readonly nsec: number;
}

/** Attributes (`struct vattr`). */
export interface Vattr {
  vaType: Vtype;
  /** Permission bits, 07777. */
  vaMode: number;
  vaUid: number;
  vaGid: number;
  vaNlink: number;
  /** Device number of the file system. */
  vaFsid: number;
  vaFileid: number;
  /** Bytes. */
  vaSize: number;
  vaBlocksize: number;
  vaAtime: Timespec;
  vaMtime: Timespec;
  vaCtime: Timespec;
  /** `st_flags`. */
  vaFlags: number;
  /** Device number of a device node, else 0. */
  vaRdev: number;
  /** Bytes of storage that it uses. */
  vaBytes: number;
}

/** What `vopSetattr` is asked to change; what is absent stays (`VNOVAL`). */
export type VattrChange = Partial<
  Pick<Vattr, "vaMode" | "vaUid" | "vaGid" | "vaSize" | "vaAtime" | "vaMtime" | "vaFlags">
>;

/** What a new node is made of. */
export interface VattrNew {
  readonly vaType: Vtype;
  readonly vaMode: number;
  /** For VCHR and VBLK. */
  readonly vaRdev?: number;
}

/** ioflag: append. */
export const IO_APPEND = 0x0002;
/** ioflag: synchronous. */
export const IO_SYNC = 0x0004;
/** ioflag: do not wait (`IO_NDELAY`). */
export const IO_NDELAY = 0x0010;

/** Access modes for {@link VnodeOps.vopAccess}. */
export const VEXEC = 0o100;
export const VWRITE = 0o200;
export const VREAD = 0o400;

/** A directory entry as `vopReaddir` gives it. */
export interface Dirent {
  readonly ino: number;
  /** `DT_*`: `S_IFMT` bits shifted right by 12. */
  readonly type: number;
  readonly name: string;
  /** Offset to ask for what follows this entry. */
  readonly next: number;
}

const { EOPNOTSUPP, ENOTDIR, EROFS, EINVAL, ENOTTY, EPERM, EACCES } = ERRNO;

/**
 * Operations of a file system on its vnodes (`struct vop_ops`), with what happens where it has none (`vop_default`). Names of an operation
 * on names begin with `n` as in DragonFly. Numbers returned are error numbers, 0 for success.
 */
export class VnodeOps {
  /** Attributes. */
  vopGetattr(_cx: Cx, vp: Vnode): Vattr {
    throw new TypeError(`A vnode of type ${vp.vType} has no attributes`);
  }
  /** Changes attributes; rights are checked here. Truncation needs the vnode's lock, exclusively. */
  *vopSetattr(_cx: Cx, _vp: Vnode, _change: VattrChange, _cred: Ucred): Exec<number> {
    return EPERM;
  }
  /** Whether `cred` may access it in the ways of `mode` (VREAD, VWRITE, VEXEC). */
  vopAccess(cx: Cx, vp: Vnode, mode: number, cred: Ucred): number {
    return vaccess(this.vopGetattr(cx, vp), mode, cred);
  }
  /** Told of an open; `fp` is the file that is being made, if it is for a descriptor. */
  *vopOpen(_cx: Cx, vp: Vnode, fflag: number, _cred: Ucred, _fp: File | undefined): Exec<number> {
    return vopStdopen(vp, fflag);
  }
  /** Told of a close. */
  *vopClose(_cx: Cx, vp: Vnode, fflag: number): Exec<number> {
    return vopStdclose(vp, fflag);
  }
  /** Reads at `uio.offset`. Regular files: with the lock held, shared or exclusively. */
  *vopRead(_cx: Cx, _vp: Vnode, _uio: Uio, _ioflag: number): Exec<number> {
    return EOPNOTSUPP;
  }
  /** Writes at `uio.offset`, or at the end with IO_APPEND. Regular files: with the lock held exclusively. */
  *vopWrite(_cx: Cx, _vp: Vnode, _uio: Uio, _ioflag: number): Exec<number> {
    return EOPNOTSUPP;
  }
  /** Device control; `data` holds the argument copied in and is copied out by the caller. */
  *vopIoctl(_cx: Cx, _vp: Vnode, _com: number, _data: Uint8Array, _fflag: number): Exec<number> {
    return ENOTTY;
  }
  /** Which of `events` (POLL*) are there now; registers `waiter` for those that are not. */
  vopPoll(_cx: Cx, _vp: Vnode, events: number, _waiter: PollWaiter | undefined): number {
    return events & 0x45;
  }
  /** Entries of a directory from `offset` on, "." and ".." first. An empty list is the end. */
  vopReaddir(_cx: Cx, _vp: Vnode, _offset: number): readonly Dirent[] | number {
    return ENOTDIR;
  }
  /** Where a symbolic link points. */
  vopReadlink(_cx: Cx, _vp: Vnode): string | number {
    return EINVAL;
  }
  /** Writes what is dirty to where it stays. */
  *vopFsync(_cx: Cx, _vp: Vnode): Exec<number> {
    return 0;
  }

  /** Finds a name in a directory; ENOENT. Never "." or "..". The vnode is not referenced. */
  vopNresolve(_cx: Cx, _dvp: Vnode, _name: string): Vnode | number {
    return ENOTDIR;
  }
  /** The directory above, if the file system knows better than the namecache. */
  vopNlookupdotdot(_cx: Cx, _dvp: Vnode): Vnode | number {
    return EOPNOTSUPP;
  }
  /** Makes a regular file, a device node, a fifo or a directory, by `vap.vaType`. */
  vopNcreate(_cx: Cx, _dvp: Vnode, _name: string, _vap: VattrNew, _cred: Ucred): Vnode | number {
    return EROFS;
  }
  /** Makes a symbolic link. */
  vopNsymlink(
    _cx: Cx,
    _dvp: Vnode,
    _name: string,
    _target: string,
    _mode: number,
    _cred: Ucred,
  ): Vnode | number {
    return EROFS;
  }
  /** Gives `vp` another name. */
  vopNlink(_cx: Cx, _dvp: Vnode, _name: string, _vp: Vnode): number {
    return EROFS;
  }
  /** Removes a name that is not a directory's. */
  vopNremove(_cx: Cx, _dvp: Vnode, _name: string): number {
    return EROFS;
  }
  /** Removes an empty directory. */
  vopNrmdir(_cx: Cx, _dvp: Vnode, _name: string): number {
    return EROFS;
  }
  /** Moves a name, over another if there is one. Both in one file system. */
  vopNrename(_cx: Cx, _fdvp: Vnode, _fname: string, _tdvp: Vnode, _tname: string): number {
    return EROFS;
  }

  /**
   * Fills a page of the file (`VOP_GETPAGES`): `m` is busy and belongs to the vnode's object. Gives VM_PAGER_*. Called by the vnode pager.
   */
  *vopGetpage(_cx: Cx, _vp: Vnode, _m: VmPage): Exec<number> {
    return VM_PAGER_FAIL;
  }
  /** Takes dirty pages off the object's hands (`VOP_PUTPAGES`), each busy; gives VM_PAGER_* for each. */
  *vopPutpages(_cx: Cx, _vp: Vnode, pages: readonly VmPage[], _sync: boolean): Exec<number[]> {
    return pages.map(() => VM_PAGER_FAIL);
  }

  /** The last reference is gone. */
  *vopInactive(_cx: Cx, _vp: Vnode): Exec<void> {}
  /**
   * The vnode shall be taken apart (first half of `VOP_RECLAIM`): its pages go to where the file system keeps them. It may sleep, and
   * somebody may find and use the vnode meanwhile; then nothing else happens to it.
   */
  *vopReclaim(_cx: Cx, _vp: Vnode): Exec<void> {}
  /** The vnode is taken apart now (second half): the file system forgets it. */
  vopDetach(_cx: Cx, _vp: Vnode): void {}
}

/** A file (`struct vnode`). */
export class Vnode {
  /** `v_type`. VBAD once it has been taken apart. */
  vType: Vtype;
  /** `v_mount`. */
  readonly vMount: Mount;
  /** `v_ops`: replaced by dead operations when the vnode is taken apart. */
  vOps: VnodeOps;
  /** `v_data`: what the file system keeps for it; its class is the file system's affair. */
  vData: object | undefined;
  /** `v_object`: its pages; made by {@link vinitvmio}, so only regular files have one. Set and cleared by the vnode pager. */
  vObject: VmObject | undefined = undefined;
  /** `v_filesize`: bytes; kept by the file system of a regular file. */
  vFilesize = 0;
  /** References ({@link vref}). */
  vRefcnt = 0;
  /** `v_opencount`: opens not closed yet. */
  vOpencount = 0;
  /** `v_writecount`: those of them that may write. */
  vWritecount = 0;
  /** `v_flag`: VROOT … */
  vFlag = 0;
  /** `v_lock`. */
  readonly vLock: Lock = new Lock("vnode");
  /** `v_rdev` of a device node. */
  vRdev: Cdev | undefined = undefined;
  /** `v_fifoinfo` and the like. */
  vFifo: object | undefined = undefined;
  /** `v_namecache`: names under which it is cached. */
  readonly vNamecache: Set<Namecache> = new Set();

  /** Made by file systems ({@link "./vfs_subr.ts"}, getnewvnode). */
  constructor(type: Vtype, mount: Mount, ops: VnodeOps, data: object | undefined) {
    this.vType = type;
    this.vMount = mount;
    this.vOps = ops;
    this.vData = data;
  }
}

/** Counts an open (`vop_stdopen`). */
export function vopStdopen(vp: Vnode, fflag: number): number {
  vp.vOpencount++;
  if (fflag & FWRITE) vp.vWritecount++;
  return 0;
}

/** Counts a close (`vop_stdclose`). */
export function vopStdclose(vp: Vnode, fflag: number): number {
  vp.vOpencount--;
  if (fflag & FWRITE) vp.vWritecount--;
  return 0;
}

/** Takes a reference (`vref`). A cached vnode comes off the list of cached ones. */
export function vref(vp: Vnode): void {
  vp.vRefcnt++;
  if (vp.vFlag & VCACHED) {
    vp.vFlag &= ~VCACHED;
    vp.vMount.mntCached.delete(vp);
  }
}

/** Locks or unlocks a vnode (`vn_lock`, `VOP_LOCK`): LK_SHARED, LK_EXCLUSIVE, LK_RELEASE. Gives what lockmgr gives. */
export function vnLock(cx: Cx, vp: Vnode, flags: number): Exec<number> {
  return lockmgr(cx, vp.vLock, flags);
}

/** `vaccess` (`kern/vfs_subr.c`): owner, group or others decide, and the super-user may all but execute what nobody may. */
export function vaccess(attr: Vattr, mode: number, cred: Ucred): number {
  const { vaMode } = attr;
  if (cred.crUid === 0) {
    const executable = attr.vaType === VDIR || (vaMode & 0o111) !== 0;
    return (mode & VEXEC) !== 0 && !executable ? EACCES : 0;
  }
  const shift = attr.vaUid === cred.crUid ? 0 : cred.crGroups.includes(attr.vaGid) ? 3 : 6;
  const granted = (vaMode << shift) & 0o700;
  return (mode & ~granted) === 0 ? 0 : EACCES;
}
