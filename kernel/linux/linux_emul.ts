/**
 * What a Linux process has beside what every process has (`sys/emulation/linux/linux_emuldata`): thread ids, the break, robust lists.
 *
 * Room: `kernel/linux/`; imports processes.
 *
 * @module
 */
import type { Cx } from "../context.ts";
import type { Lwp, Proc } from "../proc/proc.ts";
import { heapEnd } from "../vm/vm_unix.ts";
import type { Vmspace } from "../vm/vmspace.ts";

/** Kept at `pEmuldata`; made at the first call that needs it, when there is one thread still. */
export class LinuxEmuldata {
  /** `lwpTid` of the thread whose Linux id is the process's. */
  readonly leader: number;
  /** What brk gave last: unlike DragonFly's it need not be at a page's boundary. */
  brk: bigint;
  /** Robust lists by `lwpTid`, for get_robust_list. Nobody walks them: a mutex whose owner ends stays locked. */
  readonly robust: Map<number, bigint> = new Map();

  /** A program's at its start, or a child's with its parent's break. */
  constructor(leader: number, brk: bigint) {
    this.leader = leader;
    this.brk = brk;
  }
}

/** The current process's. */
export function emuldata(cx: Cx): LinuxEmuldata {
  const p = cx.proc!;
  if (p.pEmuldata instanceof LinuxEmuldata) return p.pEmuldata;
  const made = new LinuxEmuldata(cx.lwp!.lwpTid, heapEnd(p.pVmspace as Vmspace));
  p.pEmuldata = made;
  return made;
}

/** More than any pid: thread ids above it are pid + n · TID_STEP. */
const TID_STEP = 1 << 17;

/** A thread's id as Linux programs see it: unique in the system, and the leader's is the process's. */
export function linuxTid(p: Proc, lp: Lwp): number {
  const leader = p.pEmuldata instanceof LinuxEmuldata ? p.pEmuldata.leader : p.firstLwp?.lwpTid ?? 1;
  return lp.lwpTid === leader ? p.pPid : p.pPid + lp.lwpTid * TID_STEP;
}

/** Finds a thread by its id. */
export function linuxTfind(cx: Cx, tid: number): { readonly p: Proc; readonly lp: Lwp } | undefined {
  const p = cx.k.procs.pfind(tid % TID_STEP);
  if (p === undefined) return undefined;
  for (const lp of p.pLwps.values()) if (linuxTid(p, lp) === tid) return { p, lp };
  return undefined;
}
