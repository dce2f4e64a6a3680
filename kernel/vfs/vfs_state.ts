/**
 * What a kernel knows of its file systems; held by Kernel as `k.vfs`.
 *
 * Room: `kernel/vfs/`; imports types, and the state of the locks; Kernel makes it before anything runs.
 *
 * @module
 */
import type { File } from "../kern/file.ts";
import type { Tty } from "../kern/tty.ts";
import type { Cdev } from "./devfs/cdev.ts";
import { LockfState } from "./lockf.ts";
import type { Mount } from "./mount.ts";
import type { Namecache } from "./namecache.ts";
import type { Vnode } from "./vnode.ts";

/** Most vnodes without references that are kept (`kern.maxvnodes`, scaled down). */
export const MAXVNODES_CACHED = 4096;

/** State of the file side of a kernel. */
export class VfsState {
  /** `mountlist`, oldest first; the root file system is first. */
  readonly mountlist: Mount[] = [];
  /** `f_fsid` of the next mount. */
  nextFsid = 1;
  /** `rootnch`: the root's entry; set by vfsMountroot. */
  rootnch!: Namecache;
  /** `rootvnode`. */
  rootvnode!: Vnode;
  /** Negative entries, oldest first (`ncneglist`). */
  readonly ncNeglist: Set<Namecache> = new Set();
  /** Open files (`filehead`); its size is `nfiles`. */
  readonly filehead: Set<File> = new Set();
  /** `kern.maxfiles`. */
  maxfiles = 4096;
  /** Devices by `si_name`, in the order of their making. */
  readonly devices: Map<string, Cdev> = new Map();
  /** Device number of the next device. */
  nextMinor = 0;
  /** The console's terminal; made by cninit of the tty layer. */
  consoleTty: Tty | undefined = undefined;
  /** Advisory locks. */
  readonly lockf: LockfState = new LockfState();
  /** Pipes made so far. */
  pipesMade = 0;
  /** State of /dev/random's generator. */
  randomState: number[] = [0x9e37_79b9, 0x243f_6a88, 0xb7e1_5162, 0xdead_beef];
}
