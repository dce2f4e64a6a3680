/**
 * procfs: /proc (`vfs/procfs/procfs_vnops.c`): a directory for each process, `curproc`, and files about the whole machine.
 *
 * Room: `kernel/vfs/procfs/`; imports vnodes and processes.
 *
 * @module
 */
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import { ERRNO } from "../../kern/errno.ts";
import { getnanotime } from "../../lwkt/callout.ts";
import type { Proc } from "../../proc/proc.ts";
import type { Mount, Statfs, VfsOps } from "../mount.ts";
import { type Uio, uiomove } from "../uio.ts";
import { getnewvnode } from "../vfs_subr.ts";
import {
  type Dirent,
  type Vattr,
  VDIR,
  VLNK,
  type Vnode,
  VnodeOps,
  VREG,
  VROOT,
  VTTOIF,
  type Vtype,
} from "../vnode.ts";
import {
  cmdlineText,
  mapText,
  meminfoText,
  mountsText,
  statusText,
  uptimeText,
  vmstatText,
  vnodePath,
} from "./procfs_text.ts";

/** A file that is made anew at each read. */
interface Row {
  readonly name: string;
  readonly type: Vtype;
  readonly mode: number;
  /** Content of a file, target of a link. `p` is there in a process's directory. */
  readonly text: (cx: Cx, p: Proc) => string | number;
}

/** In a process's directory. */
const PROC_FILES: readonly Row[] = [
  { name: "status", type: VREG, mode: 0o444, text: statusText },
  { name: "map", type: VREG, mode: 0o400, text: mapText },
  { name: "cmdline", type: VREG, mode: 0o444, text: (_cx, p) => cmdlineText(p) },
  { name: "file", type: VLNK, mode: 0o555, text: (cx, p) => vnodePath(cx, p.pTextvp) ?? "unknown" },
  // The same by Linux's name: static shells execute themselves by it.
  { name: "exe", type: VLNK, mode: 0o777, text: (cx, p) => vnodePath(cx, p.pTextvp) ?? "unknown" },
];

/** In /proc itself. */
const ROOT_FILES: readonly Row[] = [
  {
    name: "curproc",
    type: VLNK,
    mode: 0o555,
    text: (cx) => cx.proc === undefined ? ERRNO.ENOENT : `${cx.proc.pPid}`,
  },
  {
    name: "self",
    type: VLNK,
    mode: 0o555,
    text: (cx) => cx.proc === undefined ? ERRNO.ENOENT : `${cx.proc.pPid}`,
  },
  { name: "meminfo", type: VREG, mode: 0o444, text: meminfoText },
  { name: "vmstat", type: VREG, mode: 0o444, text: vmstatText },
  { name: "uptime", type: VREG, mode: 0o444, text: uptimeText },
  { name: "mounts", type: VREG, mode: 0o444, text: mountsText },
];

/** `struct pfsnode`. */
class Pfsnode {
  readonly key: string;
  /** 0 in /proc itself. */
  readonly pid: number;
  /** Undefined for directories. */
  readonly row: Row | undefined;
  readonly ino: number;

  constructor(key: string, pid: number, row: Row | undefined, ino: number) {
    this.key = key;
    this.pid = pid;
    this.row = row;
    this.ino = ino;
  }
}

/** A mounted procfs: vnodes by key, "pid/name". */
type PfsMount = Map<string, Vnode>;

function nodeOf(vp: Vnode): Pfsnode {
  return vp.vData as Pfsnode;
}

/** Numbers of nodes: stable while the process lives. */
function inoOf(pid: number, row: Row | undefined): number {
  const index = row === undefined ? 0 : 1 + (pid === 0 ? ROOT_FILES : PROC_FILES).indexOf(row);
  return 2 + pid * 16 + index;
}

function allocVp(mp: Mount, pid: number, row: Row | undefined): Vnode {
  const vnodes = mp.mntData as PfsMount;
  const key = `${pid}/${row?.name ?? ""}`;
  let vp = vnodes.get(key);
  if (vp === undefined) {
    vp = getnewvnode(row?.type ?? VDIR, mp, procfsOps, new Pfsnode(key, pid, row, inoOf(pid, row)));
    if (pid === 0 && row === undefined) vp.vFlag |= VROOT;
    vnodes.set(key, vp);
  }
  return vp;
}

/** The process of a node; undefined once it is gone. */
function procOf(cx: Cx, node: Pfsnode): Proc | undefined {
  return node.pid === 0 ? undefined : cx.k.procs.pfind(node.pid);
}

/** Processes of /proc, zombies not. */
function listed(cx: Cx): Proc[] {
  return [...cx.k.procs.allproc.keys()].flatMap((pid) => pid === 0 ? [] : cx.k.procs.pfind(pid) ?? []);
}

const encoder = new TextEncoder();

class ProcfsOps extends VnodeOps {
  override vopGetattr(cx: Cx, vp: Vnode): Vattr {
    const node = nodeOf(vp);
    const cred = procOf(cx, node)?.pUcred;
    const now = getnanotime(cx);
    return {
      vaType: vp.vType,
      vaMode: node.row?.mode ?? 0o555,
      vaUid: cred?.crUid ?? 0,
      vaGid: cred?.crGroups[0] ?? 0,
      vaNlink: node.row === undefined ? 2 : 1,
      vaFsid: vp.vMount.mntFsid,
      vaFileid: node.ino,
      vaSize: 0,
      vaBlocksize: 4096,
      vaAtime: now,
      vaMtime: now,
      vaCtime: now,
      vaFlags: 0,
      vaRdev: 0,
      vaBytes: 0,
    };
  }
  override *vopRead(cx: Cx, vp: Vnode, uio: Uio, _ioflag: number): Exec<number> {
    const node = nodeOf(vp);
    if (node.row?.type !== VREG) return ERRNO.EINVAL;
    const p = procOf(cx, node);
    if (node.pid !== 0 && p === undefined) return ERRNO.ESRCH;
    const text = node.row.text(cx, p!);
    if (typeof text === "number") return text;
    const bytes = encoder.encode(text);
    return uio.offset >= bytes.length ? 0 : yield* uiomove(cx, bytes.slice(uio.offset), uio);
  }
  override vopReadlink(cx: Cx, vp: Vnode): string | number {
    const node = nodeOf(vp);
    if (node.row?.type !== VLNK) return ERRNO.EINVAL;
    const p = procOf(cx, node);
    if (node.pid !== 0 && p === undefined) return ERRNO.ENOENT;
    return node.row.text(cx, p!);
  }
  override vopNresolve(cx: Cx, dvp: Vnode, name: string): Vnode | number {
    const dir = nodeOf(dvp);
    if (dir.row !== undefined) return ERRNO.ENOTDIR;
    if (dir.pid === 0) {
      if (/^[1-9][0-9]*$/.test(name)) {
        const p = cx.k.procs.pfind(Number(name));
        return p === undefined ? ERRNO.ENOENT : allocVp(dvp.vMount, p.pPid, undefined);
      }
      const row = ROOT_FILES.find((file) => file.name === name);
      return row === undefined ? ERRNO.ENOENT : allocVp(dvp.vMount, 0, row);
    }
    if (procOf(cx, dir) === undefined) return ERRNO.ENOENT;
    const row = PROC_FILES.find((file) => file.name === name);
    return row === undefined ? ERRNO.ENOENT : allocVp(dvp.vMount, dir.pid, row);
  }
  override vopReaddir(cx: Cx, vp: Vnode, offset: number): readonly Dirent[] | number {
    const dir = nodeOf(vp);
    if (dir.row !== undefined) return ERRNO.ENOTDIR;
    const entries: Dirent[] = [];
    const add = (name: string, ino: number, type: Vtype, cookie: number) => {
      if (cookie >= offset) entries.push({ ino, type: VTTOIF[type]! >> 12, name, next: cookie + 1 });
    };
    add(".", dir.ino, VDIR, 0);
    add("..", 2, VDIR, 1);
    const rows = dir.pid === 0 ? ROOT_FILES : PROC_FILES;
    rows.forEach((row, i) => add(row.name, inoOf(dir.pid, row), row.type, 2 + i));
    // Processes have their pid in their offset, so that those that come and go do not move the others.
    if (dir.pid === 0) {
      for (const { pPid } of listed(cx).sort((a, b) => a.pPid - b.pPid)) {
        add(`${pPid}`, inoOf(pPid, undefined), VDIR, 16 + pPid);
      }
    }
    return entries;
  }
  override *vopInactive(_cx: Cx, _vp: Vnode): Exec<void> {}
  override vopDetach(_cx: Cx, vp: Vnode): void {
    (vp.vMount.mntData as PfsMount).delete(nodeOf(vp).key);
  }
}

const procfsOps = new ProcfsOps();

/** Operations (`procfs_vfsops`). */
export const procfsVfsops: VfsOps = {
  vfsName: "procfs",
  vfsVolatile: true,
  vfsRoot(_cx: Cx, mp: Mount): Vnode {
    return allocVp(mp, 0, undefined);
  },
  vfsStatfs(cx: Cx): Statfs {
    const files = cx.k.procs.allproc.size;
    return { fBsize: 4096, fBlocks: 1, fBfree: 0, fFiles: files, fFfree: 0 };
  },
  *vfsUnmount(): Exec<void> {},
};

/** Data of a new procfs. */
export function procfsMake(): object {
  return new Map<string, Vnode>();
}
