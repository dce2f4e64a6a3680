/**
 * Mounted file systems (`sys/sys/mount.h`).
 *
 * Room: `kernel/vfs/`; types only, but for the class that holds them.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import type { Namecache } from "./namecache.ts";
import type { Vnode } from "./vnode.ts";

/** Read only. */
export const MNT_RDONLY = 0x0000_0001;
/** Nothing on it may be executed. */
export const MNT_NOEXEC = 0x0000_0004;
/** Set-id bits do not count. */
export const MNT_NOSUID = 0x0000_0008;
/** The file system is stored here. */
export const MNT_LOCAL = 0x0000_1000;
/** The root file system. */
export const MNT_ROOTFS = 0x0000_4000;
/** Command: change the flags of what is mounted. */
export const MNT_UPDATE = 0x0001_0000;
/** Command: unmount even if it is in use. */
export const MNT_FORCE = 0x0008_0000;
/** Not shown by df. */
export const MNT_IGNORE = 0x0080_0000;
/** Flags that statfs shows. */
export const MNT_VISFLAGMASK: number = MNT_RDONLY | MNT_NOEXEC | MNT_NOSUID | MNT_LOCAL | MNT_ROOTFS |
  MNT_IGNORE;

/** Figures of a file system (`struct statfs`). Sizes in blocks of `fBsize` bytes. */
export interface Statfs {
  readonly fBsize: number;
  readonly fBlocks: number;
  readonly fBfree: number;
  readonly fFiles: number;
  readonly fFfree: number;
}

/** Operations of a file system as a whole (`struct vfsops`). */
export interface VfsOps {
  /** `f_fstypename`. */
  readonly vfsName: string;
  /** Names come and go by themselves: the namecache asks each time. */
  readonly vfsVolatile: boolean;
  /** The root's vnode, not referenced. */
  vfsRoot(cx: Cx, mp: Mount): Vnode;
  /** Figures. */
  vfsStatfs(cx: Cx, mp: Mount): Statfs;
  /** Gives up everything; no vnode of it is referenced any more. */
  vfsUnmount(cx: Cx, mp: Mount): Exec<void>;
}

/** A mounted file system. */
export class Mount {
  /** `mnt_op`. */
  readonly mntOp: VfsOps;
  /** `mnt_flag`: MNT_*. */
  mntFlag: number;
  /** `f_mntfromname`. */
  readonly mntFromname: string;
  /** `f_fsid` and `st_dev`. */
  readonly mntFsid: number;
  /** `mnt_data`: the file system's own. */
  mntData: object | undefined;
  /** `mnt_ncmountpt`: the root's entry. Set by mounting. */
  mntNcmountpt!: Namecache;
  /** `mnt_ncmounton`: the entry that it covers; undefined for the root file system. */
  mntNcmounton: Namecache | undefined = undefined;
  /** Cached vnodes without references, oldest first. */
  readonly mntCached: Set<Vnode> = new Set();
  /** All vnodes (`mnt_nvnodelist`). */
  readonly mntNvnodelist: Set<Vnode> = new Set();

  /** Made by {@link "./vfs_mount.ts"}. */
  constructor(op: VfsOps, flag: number, fromname: string, fsid: number, data: object | undefined) {
    this.mntOp = op;
    this.mntFlag = flag;
    this.mntFromname = fromname;
    this.mntFsid = fsid;
    this.mntData = data;
  }
}
