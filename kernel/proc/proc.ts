/**
 * Processes and their threads (`sys/sys/proc.h`): Proc, Lwp, Pgrp, Session, and the tables that hold them all.
 *
 * Room: `kernel/proc/`; everybody imports these types; imports tokens, signals and limits, everything else as a type.
 *
 *     Session ──── Pgrp ──── Proc ──── Lwp ──── Thread (kernel/lwkt/thread.ts)
 *                              │        └ lwpVmspace   the address space it runs in (a vkernel's thread may be elsewhere)
 *                              └ pVmspace              the process's own
 *
 * Locks: `proc_token` guards the tables and the family links (pPptr, pChildren, pPgrp); a process's own pToken guards the rest of it.
 * Order: proc_token before pToken; a parent's pToken before its child's.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import type { Filedesc } from "../kern/kern_descrip.ts";
import type { SyscallTable } from "../kern/sysent.ts";
import type { Callout } from "../lwkt/callout.ts";
import { TDF, type Thread } from "../lwkt/thread.ts";
import { LwktToken } from "../lwkt/token.ts";
import type { Vnode } from "../vfs/vnode.ts";
import type { VmmProc, VmxThread } from "../vmm/vmm_state.ts";
import type { VkernelLwp, VkernelProc } from "../vm/vkernel_state.ts";
import type { Vmspace } from "../vm/vmspace.ts";
import { Plimit, Rusage } from "./resource.ts";
import { Sigacts, type SigDelivery, type Siginfo, type Sigset } from "./signal.ts";
import { CRED_ROOT, type Ucred } from "./ucred.ts";

export type { Ucred } from "./ucred.ts";

/** Highest process id. */
export const PID_MAX = 99999;
/** Most processes (`maxproc`). */
export const MAXPROC = 1000;
/** Longest pComm (`MAXCOMLEN`). */
export const MAXCOMLEN = 16;

/** `p_stat`: being made by fork. */
export const SIDL = 1;
/** `p_stat`: lives. */
export const SACTIVE = 2;
/** `p_stat`: stopped by a signal. */
export const SSTOP = 3;
/** `p_stat`: has ended and waits for its parent. */
export const SZOMB = 4;

/** `p_stat` values. */
export type ProcStat = typeof SIDL | typeof SACTIVE | typeof SSTOP | typeof SZOMB;

/** `lwp_stat`: runs or can run. */
export const LSRUN = 1;
/** `lwp_stat`: stopped by a signal. */
export const LSSTOP = 2;
/** `lwp_stat`: sleeps. */
export const LSSLEEP = 3;

/** `lwp_stat` values. */
export type LwpStat = typeof LSRUN | typeof LSSTOP | typeof LSSLEEP;

/** `p_flags`: has a controlling terminal. */
export const P_CONTROLT = 0x0002;
/** `p_flags`: the parent waits for exec or exit (vfork). */
export const P_PPWAIT = 0x0010;
/** `p_flags`: had privileges by a set-id file since its last exec. */
export const P_SUGID = 0x0100;
/** `p_flags`: a process of the system: no signals. */
export const P_SYSTEM = 0x0200;
/** `p_flags`: wait4(WUNTRACED) has been told that it stopped. */
export const P_WAITED = 0x1000;
/** `p_flags`: is exiting. */
export const P_WEXIT = 0x2000;
/** `p_flags`: has called exec. */
export const P_EXEC = 0x4000;
/** `p_flags`: continued, and wait4(WCONTINUED) has not been told yet. */
export const P_CONTINUED = 0x8000;
/** `p_flags`: killed by the kernel for want of memory (`P_LOWMEMKILL`). */
export const P_LOWMEMKILL = 0x0100_0000;

/** `lwp_flags`: lwpOldsigmask holds the mask to restore when the next signal is delivered or none is (sigsuspend, pselect). */
export const LWP_OLDMASK = 0x0040;
/** `lwp_flags`: stands on a user scheduler's run queue. */
export const LWP_ONRUNQ = 0x0080;
/** `lwp_mpflags`: must end. */
export const LWP_MP_WEXIT = 0x0100;
/** `lwp_mpflags`: has stopped and is counted in pNstopped. */
export const LWP_MP_WSTOP = 0x0200;
/** `lwp_flags`: has counted out of pNthreads, or is about to. */
export const LWP_WEXITING = 0x0400;

/** Alternate signal stack (`stack_t`). */
export interface Sigstk {
  readonly ssSp: bigint;
  readonly ssSize: bigint;
  readonly ssFlags: number;
}

/** A thread's time slices as its user scheduler counts them (`union usched_data`). */
export class UschedData {
  /** Priority 0 (best) … 127: queue = priority / 4. To begin with: of nice 0. */
  priority = 40;
  /** Run queue that it stands on, if any. */
  rqindex = -1;
  /** Recent use of the processor, 0 … ESTCPUMAX; decays. */
  estcpu = 0;
  /** statclock ticks since its time slice began. */
  rrcount = 0;
  /** Ticks used in the present decay period. */
  cpticks = 0;
  /** ticks at which the present decay period began. */
  cpbase = 0;
  /** Preferred processor: the one it ran on last. */
  qcpu = 0;
}

/** A personality: how system calls and signals look to the program (`struct sysentvec`). */
export interface Sysentvec {
  /** For people: "DragonFly", "Linux". */
  readonly svName: string;
  /** System calls by number. */
  readonly svTable: ReadonlyMap<number, SyscallTable[number]>;
  /** An error number of DragonFly as the program sees it. */
  readonly svErrno?: (error: number) => number;
  /** A signal number of DragonFly as the program sees it. */
  readonly svSignal?: (sig: number) => number;
  /** Signal (DragonFly's number) and code of an exception in user mode, where it is not what DragonFly's trap() has. */
  readonly svTrap?: (vector: number) => readonly [sig: number, code: number] | undefined;
  /** True if errors come back as −errno in RAX and not by the carry flag. */
  readonly svNegativeErrno: boolean;
  /** Number of exit, if it is not 1. */
  readonly svExit?: number;
  /** Builds the frame of a handler on the current thread's user stack; false if the stack does not take it. */
  readonly svSendsig: (cx: Cx, delivery: SigDelivery) => Exec<boolean>;
}

/** A session. */
export class Session {
  /** `s_sid`: pid of the leader that made it. */
  readonly sSid: number;
  /** Leader, until it exits. */
  sLeader: Proc | undefined;
  /** Process groups in it. */
  sCount = 0;
  /** Controlling terminal's vnode, and its tty (an object of F's tty.ts). */
  sTtyvp: Vnode | undefined;
  sTtyp: object | undefined;
  /** setlogin's name. */
  sLogin = "root";

  constructor(sSid: number, leader: Proc | undefined) {
    this.sSid = sSid;
    this.sLeader = leader;
  }
}

/** A process group. */
export class Pgrp {
  readonly pgId: number;
  readonly pgSession: Session;
  readonly pgMembers = new Set<Proc>();
  /** Members whose parent is in another group of the same session: 0 means that the group is orphaned. */
  pgJobc = 0;

  constructor(pgId: number, session: Session) {
    this.pgId = pgId;
    this.pgSession = session;
  }
}

/** A thread of a process, as the process side sees it. */
export class Lwp {
  readonly lwpProc: Proc;
  /** `lwp_tid`: unique in its process, 1 first. */
  readonly lwpTid: number;
  lwpFlags = 0;
  lwpMpflags = 0;
  /** Its kernel thread; set by fork and lwp_create before it can run. */
  lwpThread: Thread | undefined;
  /** Address space it runs in. Own process's pVmspace but for vkernel threads in a guest's space. */
  lwpVmspace: Vmspace | undefined;
  /** Signals sent to this thread alone, not delivered yet. */
  lwpSiglist: Sigset = 0n;
  lwpSigmask: Sigset = 0n;
  lwpOldsigmask: Sigset = 0n;
  lwpSigstk: Sigstk = { ssSp: 0n, ssSize: 0n, ssFlags: 4 };
  /** What is known of the pending signals, by number; the last one wins. */
  readonly lwpSiginfo = new Map<number, Siginfo>();
  /** Linear address of the user trap frame on its kernel stack (`lwp_md.md_regs`). */
  lwpMdRegs: Gva | undefined;
  /**
   * Bytes of that frame as they were at the entry into the kernel that is being served; one buffer, since an lwp enters from user mode
   * once at a time.
   */
  lwpMdFrame: Uint8Array<ArrayBuffer> | undefined;
  /** FS base, the thread's TLS (`td_tls.info[0].base`); the platform loads it when the thread gets a processor. */
  lwpTls = 0n;
  /** GS base of the user. */
  lwpGsbase = 0n;
  /** Address zeroed and woken when the thread ends (Linux CLONE_CHILD_CLEARTID; DragonFly extexit), or 0. */
  lwpClearTid = 0n;
  readonly lwpUsdata = new UschedData();
  readonly lwpRu = new Rusage();
  /** Seconds that it has slept or been stopped, for vm's swapout policy and ps. */
  lwpSlptime = 0;
  /** Recent share of the processor, in 1/2048 (`lwp_pctcpu`). */
  lwpPctcpu = 0;
  /** Held by someone who looks at it (`lwp_lock`): not freed before it is let go. */
  lwpLock = 0;
  /** A vkernel thread's state (`lwp_vkernel`), from its first vmspace_ctl on. */
  lwpVkernel: VkernelLwp | undefined;
  /** It runs in VMX non-root operation (`td_vmm`). */
  lwpVmm: VmxThread | undefined;

  constructor(proc: Proc, tid: number) {
    this.lwpProc = proc;
    this.lwpTid = tid;
  }
  /** `lwp_stat`, as its thread's state and {@link lwpMpflags} say. */
  get lwpStat(): LwpStat {
    if (this.lwpMpflags & LWP_MP_WSTOP) return LSSTOP;
    return this.lwpThread !== undefined && this.lwpThread.tdFlags & TDF.TSLEEPQ ? LSSLEEP : LSRUN;
  }
}

/** Interval timers: [real, virtual, profiling], in microseconds. */
export interface Itimer {
  /** When it runs out: for the real timer the uptime, for the others what is left; 0 = off. */
  value: number;
  /** What it is set to again, or 0. */
  interval: number;
}

/** A process. */
export class Proc {
  readonly pPid: number;
  readonly pToken: LwktToken;
  pStat: ProcStat = SIDL;
  pFlags = 0;
  /** Name of the program, at most {@link MAXCOMLEN} bytes. */
  pComm = "";
  /** Arguments as exec was given them, for ps. */
  pArgs: readonly string[] = [];
  pUcred: Ucred = CRED_ROOT;
  pLimit = new Plimit();
  pNice = 0;
  pSysent: Sysentvec | undefined;

  /** Address space; undefined before fork has made it and after the exit gave it up. */
  pVmspace: Vmspace | undefined;
  /** Open files; undefined for kernel processes and zombies. */
  pFd: Filedesc | undefined;
  /** The executable. */
  pTextvp: Vnode | undefined;

  /** Parent; undefined for process 0 only. */
  pPptr: Proc | undefined;
  readonly pChildren = new Set<Proc>();
  /** Set by enterpgrp, before anybody can find the process. */
  pPgrp!: Pgrp;

  /** Threads by id, in the order of their making. */
  readonly pLwps = new Map<number, Lwp>();
  pNthreads = 0;
  /** Kernel threads of lwps that have ended and may not have left their processor yet. */
  readonly pDeadThreads: Thread[] = [];
  /** Threads that have stopped for SSTOP. */
  pNstopped = 0;
  pLasttid = 0;

  pSigacts = new Sigacts();
  /** Signals to the process, not given to a thread yet. */
  pSiglist: Sigset = 0n;
  /** What is known of them. */
  readonly pSiginfo = new Map<number, Siginfo>();
  /** Signal that the parent gets at exit; 20 (SIGCHLD) but for rfork and clone. */
  pSigparent = 20;
  /** Last signal that stopped it, or exit status as wait4 gives it. */
  pXstat = 0;

  readonly pTimer: readonly [Itimer, Itimer, Itimer] = [
    { value: 0, interval: 0 },
    { value: 0, interval: 0 },
    { value: 0, interval: 0 },
  ];
  /** Callout of the real timer; made when first used. */
  pIthandle: Callout | undefined;

  /** What its ended threads used. The living ones' counts are added when asked. */
  readonly pRu = new Rusage();
  /** What its waited-for children used. */
  readonly pCru = new Rusage();
  /** Uptime at its start. */
  pStart: { readonly sec: number; readonly nsec: number } = { sec: 0, nsec: 0 };
  pAcflag = 0;
  /** A personality's own data (Linux brk and robust lists). */
  pEmuldata: object | undefined;
  /** `p_vkernel`: what a vkernel has of the host; undefined for all others. */
  pVkernel: VkernelProc | undefined;
  /** `p_vmm`: its threads run in VMX non-root operation. */
  pVmm: VmmProc | undefined;
  /** Held by someone who looks at it (`PHOLD`): it is not freed before it is let go. */
  pLock = 0;

  constructor(pid: number) {
    this.pPid = pid;
    this.pToken = new LwktToken(`proc ${pid}`);
  }
  /** `p_session`. */
  get pSession(): Session {
    return this.pPgrp.pgSession;
  }
  /** The only thread, or the first one of several (`ONLY_LWP_IN_PROC` without the assertion). */
  get firstLwp(): Lwp | undefined {
    return this.pLwps.values().next().value;
  }
}

/** All processes, groups and sessions of a kernel (`allproc`, `pidhash`, `pgrphash`). Guarded by {@link procToken}. */
export class ProcState {
  readonly procToken = new LwktToken("proc_token");
  /** Living processes and zombies by pid, in the order of their making. */
  readonly allproc = new Map<number, Proc>();
  readonly pgrps = new Map<number, Pgrp>();
  /** Process 0, which owns the kernel's threads. */
  proc0!: Proc;
  /** Process 1. */
  initproc: Proc | undefined;
  /** The last pid that was given out. */
  nextpid = 0;
  /** forks since boot: sysctl vm.stats.vm.v_forks and friends are in vmmeter; this one feeds the leak check. */
  nprocs = 0;
  /** Statuses of the commands that process 1 was told to run, in their order, as a shell gives them. */
  readonly statuses: number[] = [];
  /** Status with which the machine ends once process 1 has: that of the command or shell that init ran. */
  exitStatus = 0;

  /** Finds a living process (`pfind`); zombies are not found. */
  pfind(pid: number): Proc | undefined {
    const p = this.allproc.get(pid);
    return p === undefined || p.pStat === SZOMB ? undefined : p;
  }
  /** Finds a zombie (`zpfind`). */
  zpfind(pid: number): Proc | undefined {
    const p = this.allproc.get(pid);
    return p?.pStat === SZOMB ? p : undefined;
  }
  /** Finds a group (`pgfind`). */
  pgfind(pgid: number): Pgrp | undefined {
    return this.pgrps.get(pgid);
  }
}
