/**
 * Making processes and threads (`sys/kern/kern_fork.c`): fork, vfork, rfork, lwp_create.
 *
 * Room: `kernel/proc/`; imports proc, lwkt, the address spaces and the descriptors, and the trap frame's layout.
 *
 * The child is made complete before anybody can run it: it becomes SACTIVE and its thread is scheduled last.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, suword32 } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { fdcopy, fdfree, fdinit, fdshare } from "../kern/kern_descrip.ts";
import { log } from "../kern/subr_prf.ts";
import { type SyscallArgs, type SyscallResult, type SyscallTable } from "../kern/sysent.ts";
import { getnanouptime } from "../lwkt/callout.ts";
import { tsleep } from "../lwkt/sleep.ts";
import { lwktCreate, lwktSchedule, TDPRI } from "../lwkt/thread.ts";
import { decodeTrapframe, encodeTrapframe, TF_BYTES, type Trapframe } from "../platform/pc64/frame.ts";
import type { UserState } from "../platform/platform.ts";
import { pmapPinit2 } from "../pmap/pmap_pinit.ts";
import { vref } from "../vfs/vnode.ts";
import { vkernelInherit } from "../vm/vm_vmspace_entry.ts";
import { vmspaceFork, vmspaceUnshare } from "../vm/vmspace_fork.ts";
import { vmspaceRef } from "../vm/vmspace.ts";
import { fixjobc, joinpgrp, procAddAllproc, procGetnewpid } from "./kern_proc.ts";
import { Lwp, LWP_MP_WEXIT, MAXPROC, P_CONTROLT, P_PPWAIT, P_SUGID, P_WEXIT, Proc, SACTIVE } from "./proc.ts";
import { Plimit, RLIMIT_NPROC } from "./resource.ts";
import { Sigacts, SIGCHLD } from "./signal.ts";
import { chooseCpu, heuristicForking, resetpriority } from "./usched_dfly.ts";

/** rfork: copy the descriptors. */
export const RFFDG = 1 << 2;
/** rfork: make a process; without it the current one is changed. */
export const RFPROC = 1 << 4;
/** rfork: share the address space. */
export const RFMEM = 1 << 5;
/** rfork: init waits for the child. */
export const RFNOWAIT = 1 << 6;
/** rfork: no descriptors. */
export const RFCFDG = 1 << 12;
/** rfork: accepted; peers that die together are not modelled. */
export const RFTHREAD = 1 << 13;
/** rfork: share the signal actions. */
export const RFSIGSHARE = 1 << 14;
/** The parent sleeps until the child execs or exits (vfork). Not from rfork. */
export const RFPPWAIT: number = 1 << 31;

/** Every flag that rfork takes. */
const RFORK_FLAGS = RFFDG | RFPROC | RFMEM | RFNOWAIT | RFCFDG | RFTHREAD | RFSIGSHARE;
/** Processes that only root may make (the last ten). */
const RESERVED_FOR_ROOT = 10;
/** RFLAGS.CF: a system call failed. */
const CARRY = 1n;

/** What a caller may say of the child beyond the flags. */
export interface Fork1Options {
  /** The child's stack pointer; default: the parent's. */
  readonly stack?: bigint;
  /** Its TLS base; default: the parent's. */
  readonly tls?: bigint;
  /** Signal to the parent when it ends; default SIGCHLD. */
  readonly sigparent?: number;
  /** RDX is in the child what it is in the parent (Linux), not 1. */
  readonly keepRdx?: boolean;
  /** What the child's thread does in the kernel before it enters user mode for the first time. */
  readonly start?: (cx: Cx) => Exec<void>;
  /** Called with the child before it can run. */
  readonly prepare?: (child: Proc, lwp: Lwp) => Exec<void>;
}

/** The current thread's user registers as a child inherits them. */
export function* userState(cx: Cx): Exec<UserState & { readonly frame: Trapframe }> {
  const { platform } = cx.k;
  const frame = decodeTrapframe(yield* cx.cpu.loadBytes(cx.lwp!.lwpMdRegs as Gva, TF_BYTES));
  const fpu = yield* platform.saveFpu(cx);
  return { frame, fpu, tls: platform.getTls(cx) };
}

/**
 * Makes a child process (`fork1`).
 *
 * @param flags RF*, with RFPROC.
 * @returns The child, or EAGAIN: too many processes, of all or of this user.
 */
export function* fork1(cx: Cx, flags: number, options: Fork1Options = {}): Exec<Proc | number> {
  const lp1 = cx.lwp!, p1 = lp1.lwpProc, { procs } = cx.k;
  // Its code runs on page tables of its own: a child in an ordinary address space would be nowhere.
  if (p1.pVmm !== undefined) return ERRNO.EOPNOTSUPP;
  const root = p1.pUcred.crUid === 0;
  if (procs.nprocs >= (root ? MAXPROC : MAXPROC - RESERVED_FOR_ROOT)) {
    log(cx, `maxproc limit exceeded by uid ${p1.pUcred.crUid}, please see tuning(7) and login.conf(5)\n`);
    return ERRNO.EAGAIN;
  }
  if (!root && countUser(cx, p1.pUcred.crRuid) >= p1.pLimit.cur(RLIMIT_NPROC)) return ERRNO.EAGAIN;

  const p2 = new Proc(procGetnewpid(procs));
  copyFields(p1, p2);
  p2.pSigparent = options.sigparent ?? SIGCHLD;
  if (flags & RFSIGSHARE) {
    p2.pSigacts = p1.pSigacts;
    p1.pSigacts.psRefcnt++;
  } else p2.pSigacts = new Sigacts(p1.pSigacts);
  // Known from here on, as SIDL: the number is taken, nobody can do anything with it yet.
  procAddAllproc(procs, p2, flags & RFNOWAIT ? procs.initproc ?? p1 : p1);
  joinpgrp(p2, p1.pPgrp);
  fixjobc(cx, p2, p2.pPgrp, true);
  p2.pFd = flags & RFCFDG ? fdinit(cx) : flags & RFFDG ? fdcopy(cx, p1) : fdshare(cx, p1);
  if (p1.pTextvp !== undefined) {
    p2.pTextvp = p1.pTextvp;
    vref(p1.pTextvp);
  }

  const state = yield* userState(cx);
  if (flags & RFMEM) {
    vmspaceRef(p1.pVmspace!);
    p2.pVmspace = p1.pVmspace;
  } else {
    const vm = yield* vmspaceFork(cx, p1.pVmspace!);
    yield* pmapPinit2(cx, vm.vmPmap);
    p2.pVmspace = vm;
  }
  const lp2 = yield* lwpFork(cx, lp1, p2, {
    frame: childFrame(state.frame, options),
    fpu: state.fpu,
    tls: options.tls ?? state.tls,
  }, options.start);
  vkernelInherit(p1, p2);
  p2.pStart = getnanouptime(cx);
  if (flags & RFPPWAIT) p2.pFlags |= P_PPWAIT;
  if (options.prepare !== undefined) yield* options.prepare(p2, lp2);
  countFork(cx, flags, p2);
  startForkedProc(cx, lp1, p2);
  if (flags & RFPPWAIT) { while (p2.pFlags & P_PPWAIT) yield* tsleep(cx, p2.pToken, 0, "ppwait", 0); }
  return p2;
}

function countUser(cx: Cx, uid: number): number {
  let count = 0;
  for (const p of cx.k.procs.allproc.values()) if (p.pUcred.crRuid === uid) count++;
  return count;
}

/** What fork copies (`p_startcopy` … `p_endcopy`, limits, credentials). */
function copyFields(p1: Proc, p2: Proc): void {
  p2.pFlags = p1.pFlags & (P_SUGID | P_CONTROLT);
  p2.pComm = p1.pComm;
  p2.pArgs = p1.pArgs;
  p2.pUcred = p1.pUcred;
  p2.pLimit = new Plimit(p1.pLimit);
  p2.pNice = p1.pNice;
  p2.pSysent = p1.pSysent;
}

/** The parent's frame with fork's answer in the child: 0, and 1 in RDX, no error. */
function childFrame(frame: Trapframe, { stack, keepRdx }: Fork1Options): Trapframe {
  const child = { ...frame, rax: 0n, rflags: frame.rflags & ~CARRY };
  if (!keepRdx) child.rdx = 1n;
  if (stack !== undefined) child.rsp = stack;
  return child;
}

/** Counters of vm_meter: forks, and the pages that they concern. */
function countFork(cx: Cx, flags: number, p2: Proc): void {
  const { vmmeter } = cx.k;
  const pages = Number(p2.pVmspace!.vmDsize + p2.pVmspace!.vmSsize >> 12n);
  if (flags & RFPPWAIT) {
    vmmeter.vVforks++;
    vmmeter.vVforkpages += pages;
  } else if (flags & RFMEM) {
    vmmeter.vRforks++;
    vmmeter.vRforkpages += pages;
  } else {
    vmmeter.vForks++;
    vmmeter.vForkpages += pages;
  }
}

/** A thread in `p2` that will leave the kernel with these registers (`lwp_fork`), after `start`. Not scheduled yet. */
export function* lwpFork(
  cx: Cx,
  from: Lwp,
  p2: Proc,
  state: UserState & { readonly frame: Trapframe },
  start?: (cx: Cx) => Exec<void>,
): Exec<Lwp> {
  const lp = new Lwp(p2, ++p2.pLasttid);
  lp.lwpSigmask = from.lwpSigmask;
  lp.lwpSigstk = from.lwpSigstk;
  lp.lwpTls = state.tls;
  lp.lwpGsbase = cx.k.platform.getGsbase(cx);
  lp.lwpVmspace = p2.pVmspace;
  lp.lwpUsdata.cpbase = cx.k.ticks;
  heuristicForking(from, lp);
  const td = yield* lwktCreate(cx, start, {
    name: p2.pComm,
    pri: TDPRI.KERN_USER,
    gd: chooseCpu(cx),
    lwp: lp,
  });
  td.tdProc = p2;
  lp.lwpThread = td;
  yield* cx.k.platform.cpuForkLwp(cx, lp, encodeTrapframe(state.frame), state);
  p2.pLwps.set(lp.lwpTid, lp);
  p2.pNthreads++;
  return lp;
}

/** Lets a child run (`start_forked_proc`). */
export function startForkedProc(cx: Cx, lp1: Lwp, p2: Proc): void {
  p2.pStat = SACTIVE;
  resetpriority(lp1);
  for (const lp of p2.pLwps.values()) lwktSchedule(cx, lp.lwpThread!);
}

/** What fork and its kin answer in the parent. */
function answer(child: Proc | number): SyscallResult {
  return typeof child === "number" ? { error: child } : { value: BigInt(child.pPid), value2: 0n };
}

/** fork() (2). */
function* sysFork(cx: Cx): Exec<SyscallResult> {
  return answer(yield* fork1(cx, RFFDG | RFPROC));
}
/** vfork() (66). */
function* sysVfork(cx: Cx): Exec<SyscallResult> {
  return answer(yield* fork1(cx, RFFDG | RFPROC | RFPPWAIT | RFMEM));
}

/** rfork(flags) (251). */
function* sysRfork(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const flags = uap.int(0);
  if (flags & ~RFORK_FLAGS || (flags & (RFFDG | RFCFDG)) === (RFFDG | RFCFDG)) return { error: ERRNO.EINVAL };
  if (flags & RFPROC) return answer(yield* fork1(cx, flags));
  // Changes of the process itself, which do not work when other threads of it run.
  const p = cx.proc!;
  if (flags & RFNOWAIT || p.pNthreads !== 1) return { error: ERRNO.EINVAL };
  if (flags & RFMEM) yield* vmspaceUnshare(cx, p);
  if (flags & RFCFDG) yield* fdfree(cx, p, fdinit(cx));
  else if (flags & RFFDG && p.pFd!.fdRefcnt > 1) yield* fdfree(cx, p, fdcopy(cx, p));
  return { value: 0n, value2: 0n };
}

/** Bytes of `struct lwp_params`: func, arg, stack, tid1, tid2. */
const LWP_PARAMS_BYTES = 40;

/** lwp_create(params) (495): a thread that starts in `func(arg)` on `stack`. */
function* sysLwpCreate(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const bytes = yield* copyin(cx, uap.arg(0), LWP_PARAMS_BYTES);
  if (bytes === undefined) return { error: ERRNO.EFAULT };
  const [func, arg, stack, tid1, tid2] = new BigUint64Array(bytes.buffer);
  // IRETQ to an address that is not canonical would fault in the kernel.
  if (func! >= cx.lwp!.lwpVmspace!.vmMap.max) return { error: ERRNO.EFAULT };
  const state = yield* userState(cx);
  const lp = yield* lwpCreate(cx, {
    frame: {
      ...state.frame,
      rip: func!,
      rdi: arg!,
      // As after a call: the ABI's alignment, and a return address that faults.
      rsp: (stack! & ~0xfn) - 8n,
      rflags: state.frame.rflags & ~CARRY,
      rax: 0n,
    },
    fpu: undefined,
    tls: state.tls,
  });
  if (typeof lp === "number") return { error: lp };
  for (const at of [tid1!, tid2!]) {
    if (at === 0n) continue;
    const error = yield* suword32(cx, at, lp.lwpTid);
    if (error !== 0) {
      yield* discardLwp(cx, lp);
      return { error };
    }
  }
  lwktSchedule(cx, lp.lwpThread!);
  return { value: 0n };
}

/** Makes a thread of the current process; it is not scheduled yet. EAGAIN while the process ends. */
export function* lwpCreate(cx: Cx, state: UserState & { readonly frame: Trapframe }): Exec<Lwp | number> {
  const p = cx.proc!;
  if (p.pFlags & P_WEXIT || cx.lwp!.lwpMpflags & LWP_MP_WEXIT) return ERRNO.EAGAIN;
  if (p.pNthreads >= THREADS_MAX) return ERRNO.EAGAIN;
  for (let i = p.pDeadThreads.length - 1; i >= 0; i--) {
    if (!p.pDeadThreads[i]!.tdAlive) p.pDeadThreads.splice(i, 1);
  }
  const lp = yield* lwpFork(cx, cx.lwp!, p, state);
  lp.lwpSigstk = { ssSp: 0n, ssSize: 0n, ssFlags: 4 };
  return lp;
}

/** Most threads of a process. */
const THREADS_MAX = 1024;

/** A thread that has never run is let run to its end: it finds that it must exit before it reaches user mode. */
export function* discardLwp(cx: Cx, lp: Lwp): Exec<void> {
  lp.lwpMpflags |= LWP_MP_WEXIT;
  lwktSchedule(cx, lp.lwpThread!);
}

/** System calls of this file. */
export const forkSyscalls: SyscallTable = [
  [2, "fork", 0, sysFork],
  [66, "vfork", 0, sysVfork],
  [251, "rfork", 1, sysRfork],
  [495, "lwp_create", 1, sysLwpCreate],
];
