/**
 * The start of the file systems (`kern/vfs_conf.c`: vfs_mountroot), and which ones there are.
 *
 * Room: `kernel/vfs/`; the top of it: imports every file system.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert, panic } from "../kern/panic.ts";
import { kprintf } from "../kern/subr_prf.ts";
import { cninitFinish } from "../kern/tty_cons.ts";
import { OBJT_VNODE } from "../vm/vm_object.ts";
import { vmPagerRegister } from "../vm/vm_pager.ts";
import { vnodePagerOps } from "../vm/vnode_pager.ts";
import { ArchiveError } from "./archive.ts";
import { memDrvinit } from "./devfs/mem.ts";
import { devfsMake, devfsVfsops } from "./devfs/devfs_vnops.ts";
import { MNT_ROOTFS, type Mount, type VfsOps } from "./mount.ts";
import type { Namecache } from "./namecache.ts";
import { NLC_FOLLOW, nlookup, nlookupInit } from "./nlookup.ts";
import { procfsMake, procfsVfsops } from "./procfs/procfs_vnops.ts";
import { directory, tmpfsImport } from "./tmpfs/tmpfs_archive.ts";
import { tmpfsMake, tmpfsVfsops } from "./tmpfs/tmpfs_vfsops.ts";
import { vfsMount } from "./vfs_mount.ts";
import { vref } from "./vnode.ts";

/** A kind of file system (`struct vfsconf`): its operations and how a new one's data is made. */
export interface Vfsconf {
  readonly op: VfsOps;
  /** @param size Limit in pages, 0 for none. */
  readonly make: (cx: Cx, size: number) => object | undefined;
}

/** The file systems by name (`vfs_conf`). */
export const vfsconf: ReadonlyMap<string, Vfsconf> = new Map<string, Vfsconf>([
  ["tmpfs", { op: tmpfsVfsops, make: tmpfsMake }],
  ["devfs", { op: devfsVfsops, make: devfsMake }],
  ["procfs", { op: procfsVfsops, make: procfsMake }],
]);

/** Directories that the kernel itself needs in the root file system. */
const NEEDED: readonly (readonly [name: string, mode: number])[] = [["dev", 0o755], ["proc", 0o555], [
  "tmp",
  0o1777,
]];

/** Brings the file side up: pager, devices, root file system. Once, in a thread, before process 1. */
export function* vfsInit(cx: Cx): Exec<void> {
  vmPagerRegister(cx, OBJT_VNODE, vnodePagerOps);
  memDrvinit(cx.k);
  cninitFinish(cx);
  yield* vfsMountroot(cx);
}

/** Makes the root file system, a tmpfs, fills it from the archives that the loader brought, and mounts /dev and /proc in it. */
export function* vfsMountroot(cx: Cx): Exec<void> {
  const { k } = cx;
  kprintf(cx, `Mounting root from tmpfs, ${k.rootArchives.length} archive(s)\n`);
  const tm = tmpfsMake(cx);
  for (const [i, { start, end }] of k.rootArchives.entries()) {
    try {
      yield* tmpfsImport(cx, tm, start, end);
    } catch (error) {
      if (!(error instanceof ArchiveError)) throw error;
      kprintf(cx, `root: archive ${i + 1}: ${error.message}; what comes before that is used\n`);
    }
  }
  for (const [name, mode] of NEEDED) {
    if (!tm.tmRoot.tnDir.has(name)) directory(cx, tm, tm.tmRoot, name).tnMode = mode;
  }
  const root = vfsMount(cx, {
    op: tmpfsVfsops,
    flag: MNT_ROOTFS,
    fromname: "tmpfs",
    data: tm,
    on: undefined,
  });
  if (typeof root === "number") {
    panic(cx, `vfs_mountroot: the root file system cannot be mounted (error ${root})`);
  }
  k.vfs.rootnch = root.mntNcmountpt;
  k.vfs.rootvnode = root.mntNcmountpt.ncVp!;
  vref(k.vfs.rootvnode);
  mountAt(cx, "devfs", "/dev");
  mountAt(cx, "procfs", "/proc");
}

/** Mounts a file system at a directory of the root file system. */
function mountAt(cx: Cx, type: string, path: string): Mount {
  const { op, make } = vfsconf.get(type)!;
  const nd = nlookupInit(cx, path, NLC_FOLLOW);
  kassert(nlookup(cx, nd) === 0, `vfs_mountroot: there is no ${path}`);
  const on: Namecache = nd.nlNch;
  const mp = vfsMount(cx, { op, flag: 0, fromname: type, data: make(cx, 0), on });
  if (typeof mp === "number") panic(cx, `vfs_mountroot: ${path} cannot be mounted (error ${mp})`);
  return mp;
}
