/**
 * Limits, priorities and what was used (`sys/kern/kern_resource.c`, `kern_plimit.c`).
 *
 * Room: `kernel/proc/`; imports proc and copy.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, copyout } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { type SyscallArgs, type SyscallResult, type SyscallTable } from "../kern/sysent.ts";
import type { Proc } from "./proc.ts";
import { RLIM_INFINITY, RLIM_NLIMITS, type Rlimit, RLIMIT_NOFILE } from "./resource.ts";
import { calcru, writeRusage } from "./rusage.ts";
import { isRoot } from "./ucred.ts";
import { resetpriority, uschedYield } from "./usched_dfly.ts";

const OK: SyscallResult = { value: 0n };
const FAULT: SyscallResult = { error: ERRNO.EFAULT };
const INVALID: SyscallResult = { error: ERRNO.EINVAL };

/** `which` of getpriority. */
const PRIO_PROCESS = 0, PRIO_PGRP = 1, PRIO_USER = 2;
/** Nicest and least nice. */
const PRIO_MAX = 20, PRIO_MIN = -20;
/** `who` of getrusage. */
const RUSAGE_SELF = 0, RUSAGE_CHILDREN = -1;
/** Most descriptors of any process (`kern.maxfilesperproc`). */
const MAXFILESPERPROC = 4096n;

/** getrlimit(which, rlp) (194). */
function* sysGetrlimit(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const which = uap.uint(0);
  if (which >= RLIM_NLIMITS) return INVALID;
  const { rlimCur, rlimMax } = cx.proc!.pLimit.plRlimit[which]!;
  const bytes = new Uint8Array(BigInt64Array.of(rlimCur, rlimMax).buffer);
  return (yield* copyout(cx, uap.arg(1), bytes)) === 0 ? OK : FAULT;
}

/** Sets a limit (`kern_setrlimit`): EPERM for more than the hard limit. */
export function kernSetrlimit(p: Proc, which: number, limit: Rlimit): number {
  const old = p.pLimit.plRlimit[which]!;
  const fix = (value: bigint) => value < 0n || value > RLIM_INFINITY ? RLIM_INFINITY : value;
  let rlimCur = fix(limit.rlimCur), rlimMax = fix(limit.rlimMax);
  if (rlimCur > old.rlimMax || rlimMax > old.rlimMax) {
    if (!isRoot(p.pUcred)) return ERRNO.EPERM;
  }
  if (rlimCur > rlimMax) rlimCur = rlimMax;
  if (which === RLIMIT_NOFILE) {
    if (rlimCur > MAXFILESPERPROC) rlimCur = MAXFILESPERPROC;
    if (rlimMax > MAXFILESPERPROC) rlimMax = MAXFILESPERPROC;
  }
  p.pLimit.plRlimit[which] = { rlimCur, rlimMax };
  return 0;
}

/** setrlimit(which, rlp) (195). */
function* sysSetrlimit(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const which = uap.uint(0);
  if (which >= RLIM_NLIMITS) return INVALID;
  const bytes = yield* copyin(cx, uap.arg(1), 16);
  if (bytes === undefined) return FAULT;
  const view = new DataView(bytes.buffer);
  const limit = { rlimCur: view.getBigInt64(0, true), rlimMax: view.getBigInt64(8, true) };
  const error = kernSetrlimit(cx.proc!, which, limit);
  return error === 0 ? OK : { error };
}

/** getrusage(who, rusage) (117). */
function* sysGetrusage(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const who = uap.int(0), p = cx.proc!;
  if (who !== RUSAGE_SELF && who !== RUSAGE_CHILDREN) return INVALID;
  const error = yield* writeRusage(cx, uap.arg(1), who === RUSAGE_SELF ? calcru(p) : p.pCru);
  return error === 0 ? OK : FAULT;
}

/** The processes that a (which, who) means; undefined: `which` makes no sense. */
function selected(cx: Cx, which: number, who: number): Proc[] | undefined {
  const { procs } = cx.k, self = cx.proc!;
  switch (which) {
    case PRIO_PROCESS: {
      const p = who === 0 ? self : procs.pfind(who);
      return p === undefined ? [] : [p];
    }
    case PRIO_PGRP:
      return [...(who === 0 ? self.pPgrp : procs.pgfind(who))?.pgMembers ?? []];
    case PRIO_USER: {
      const uid = who === 0 ? self.pUcred.crUid : who;
      return [...procs.allproc.values()].filter((p) => p.pUcred.crUid === uid && p.pPid !== 0);
    }
    default:
      return undefined;
  }
}

/** getpriority(which, who) (100): the lowest nice value of them. */
function* sysGetpriority(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const processes = selected(cx, uap.int(0), uap.int(1));
  if (processes === undefined) return INVALID;
  if (processes.length === 0) return { error: ERRNO.ESRCH };
  return { value: BigInt(Math.min(...processes.map((p) => p.pNice))) };
}

/** Changes a nice value (`donice`): EPERM for another's process, EACCES for less nice than it was. */
export function donice(cx: Cx, p: Proc, value: number): number {
  const { crUid, crRuid } = cx.proc!.pUcred;
  const to = p.pUcred;
  if (crUid !== 0 && ![crUid, crRuid].some((uid) => uid === to.crUid || uid === to.crRuid)) {
    return ERRNO.EPERM;
  }
  const nice = Math.max(PRIO_MIN, Math.min(PRIO_MAX, value));
  if (nice < p.pNice && crUid !== 0) return ERRNO.EACCES;
  p.pNice = nice;
  for (const lp of p.pLwps.values()) resetpriority(lp);
  return 0;
}

/** setpriority(which, who, prio) (96). */
function* sysSetpriority(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const processes = selected(cx, uap.int(0), uap.int(1));
  if (processes === undefined) return INVALID;
  if (processes.length === 0) return { error: ERRNO.ESRCH };
  for (const p of processes) {
    const error = donice(cx, p, uap.int(2));
    if (error !== 0) return { error };
  }
  return OK;
}

/** sched_yield() (331) and yield() (321). */
function* sysSchedYield(cx: Cx): Exec<SyscallResult> {
  uschedYield(cx);
  return OK;
}

/** sched_get_priority_max(policy) (332) and …_min (333): the policies are FIFO 1, OTHER 2, RR 3. */
function priorityLimit(max: boolean) {
  return function* (_cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
    const policy = uap.int(0);
    if (policy < 1 || policy > 3) return INVALID;
    return { value: BigInt(max ? policy === 2 ? 20 : 31 : policy === 2 ? -20 : 0) };
  };
}

/** System calls of this file. */
export const resourceSyscalls: SyscallTable = [
  [96, "setpriority", 3, sysSetpriority],
  [100, "getpriority", 2, sysGetpriority],
  [117, "getrusage", 2, sysGetrusage],
  [194, "getrlimit", 2, sysGetrlimit],
  [195, "setrlimit", 2, sysSetrlimit],
  [321, "yield", 0, sysSchedYield],
  [331, "sched_yield", 0, sysSchedYield],
  [332, "sched_get_priority_max", 1, priorityLimit(true)],
  [333, "sched_get_priority_min", 1, priorityLimit(false)],
];
