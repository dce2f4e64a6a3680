/**
 * Linux's clone and its kin, the ends of threads and processes, and wait4.
 *
 * Room: `kernel/linux/`; imports DragonFly's fork and exit.
 *
 * Of clone's flags those are understood that make processes (fork, vfork, posix_spawn) and threads of the C library; name spaces, pidfds
 * and tracing are EINVAL. CLONE_FS without CLONE_THREAD is EINVAL unless CLONE_FILES is there too: directories and descriptors are one table.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyout, suword32 } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import type { SyscallArgs, SyscallResult, SyscallTable } from "../kern/sysent.ts";
import { lwktSchedule } from "../lwkt/thread.ts";
import { exit1, kernWait, lwpExit, wExitcode } from "../proc/kern_exit.ts";
import {
  fork1,
  lwpCreate,
  RFFDG,
  RFMEM,
  RFPPWAIT,
  RFPROC,
  RFSIGSHARE,
  userState,
} from "../proc/kern_fork.ts";
import type { Lwp, Proc } from "../proc/proc.ts";
import { writeRusage } from "../proc/rusage.ts";
import { emuldata, LinuxEmuldata, linuxTid } from "./linux_emul.ts";
import { same } from "./linux_native.ts";
import { LINUX_NSIG, linuxWaitStatus, nativeSignal } from "./linux_signal.ts";

const OK: SyscallResult = { value: 0n };
const INVALID: SyscallResult = { error: ERRNO.EINVAL };

const CSIGNAL = 0xff;
const CLONE_VM = 0x100, CLONE_FS = 0x200, CLONE_FILES = 0x400, CLONE_SIGHAND = 0x800, CLONE_VFORK = 0x4000;
const CLONE_THREAD = 0x1_0000, CLONE_SYSVSEM = 0x4_0000, CLONE_SETTLS = 0x8_0000;
const CLONE_PARENT_SETTID = 0x10_0000, CLONE_CHILD_CLEARTID = 0x20_0000, CLONE_DETACHED = 0x40_0000;
const CLONE_UNTRACED = 0x80_0000, CLONE_CHILD_SETTID = 0x100_0000, CLONE_IO = 0x8000_0000;
const KNOWN = CSIGNAL | CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_VFORK | CLONE_THREAD |
  CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | CLONE_DETACHED |
  CLONE_UNTRACED |
  CLONE_CHILD_SETTID | CLONE_IO;
const SIGCHLD = 17;

/** What clone is asked for. */
interface Clone {
  readonly flags: number;
  /** The child's stack pointer; 0: the parent's. */
  readonly stack: bigint;
  readonly parentTid: bigint;
  readonly childTid: bigint;
  readonly tls: bigint;
}

function* kernClone(cx: Cx, what: Clone): Exec<SyscallResult> {
  const { flags, tls } = what;
  if ((flags & ~KNOWN) !== 0) return INVALID;
  if (flags & CLONE_SIGHAND && (flags & CLONE_VM) === 0) return INVALID;
  if (flags & CLONE_THREAD && (flags & CLONE_SIGHAND) === 0) return INVALID;
  if ((flags & (CLONE_THREAD | CLONE_FS | CLONE_FILES)) === CLONE_FS) return INVALID;
  if ((flags & CSIGNAL) > LINUX_NSIG) return INVALID;
  // The base goes into an MSR, which refuses what is not an address.
  if (flags & CLONE_SETTLS && tls >= cx.proc!.pVmspace!.vmMap.max) return { error: ERRNO.EPERM };
  return flags & CLONE_THREAD ? yield* newThread(cx, what) : yield* newProcess(cx, what);
}

function* newThread(cx: Cx, { flags, stack, parentTid, childTid, tls }: Clone): Exec<SyscallResult> {
  emuldata(cx);
  const state = yield* userState(cx);
  const made = yield* lwpCreate(cx, {
    frame: { ...state.frame, rax: 0n, ...(stack !== 0n ? { rsp: stack } : {}) },
    fpu: state.fpu,
    tls: flags & CLONE_SETTLS ? tls : state.tls,
  });
  if (typeof made === "number") return { error: made };
  const tid = linuxTid(cx.proc!, made);
  // As on Linux a bad address is the program's loss.
  if (flags & CLONE_PARENT_SETTID) yield* suword32(cx, parentTid, tid);
  if (flags & CLONE_CHILD_SETTID) yield* suword32(cx, childTid, tid);
  if (flags & CLONE_CHILD_CLEARTID) made.lwpClearTid = childTid;
  lwktSchedule(cx, made.lwpThread!);
  return { value: BigInt(tid) };
}

function* newProcess(cx: Cx, { flags, stack, parentTid, childTid, tls }: Clone): Exec<SyscallResult> {
  const { brk } = emuldata(cx);
  const rf = RFPROC | (flags & CLONE_FILES ? 0 : RFFDG) | (flags & CLONE_VM ? RFMEM : 0) |
    (flags & CLONE_SIGHAND ? RFSIGSHARE : 0) | (flags & CLONE_VFORK ? RFPPWAIT : 0);
  const child = yield* fork1(cx, rf, {
    sigparent: nativeSignal(flags & CSIGNAL),
    keepRdx: true,
    ...(stack !== 0n ? { stack } : {}),
    ...(flags & CLONE_SETTLS ? { tls } : {}),
    *prepare(p: Proc, lp: Lwp): Exec<void> {
      p.pEmuldata = new LinuxEmuldata(lp.lwpTid, brk);
      if (flags & CLONE_PARENT_SETTID) yield* suword32(cx, parentTid, p.pPid);
      if (flags & CLONE_CHILD_CLEARTID) lp.lwpClearTid = childTid;
    },
    // The word is in the child's memory: it writes it itself, before it enters user mode.
    ...(flags & CLONE_CHILD_SETTID
      ? {
        *start(at: Cx): Exec<void> {
          yield* suword32(at, childTid, at.proc!.pPid);
        },
      }
      : {}),
  });
  return typeof child === "number" ? { error: child } : { value: BigInt(child.pPid) };
}

/** clone(flags, stack, parent_tid, child_tid, tls). */
function* clone(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  return yield* kernClone(cx, {
    flags: uap.int(0),
    stack: uap.arg(1),
    parentTid: uap.arg(2),
    childTid: uap.arg(3),
    tls: uap.arg(4),
  });
}

/** fork and vfork: clone with nothing but these flags. */
function plain(flags: number) {
  return (cx: Cx): Exec<SyscallResult> =>
    kernClone(cx, { flags: flags | SIGCHLD, stack: 0n, parentTid: 0n, childTid: 0n, tls: 0n });
}

/** exit(status): the thread ends; with the last one the process. */
function* exit(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  return cx.proc!.pNthreads > 1 ? yield* lwpExit(cx) : yield* exit1(cx, wExitcode(uap.int(0)));
}

/** exit_group(status). */
function* exitGroup(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  return yield* exit1(cx, wExitcode(uap.int(0)));
}

const WNOHANG = 1, WUNTRACED = 2, WCONTINUED = 8;
/** Options about who of the process's threads made which kind of child: here every thread waits for every child. */
const WAIT_KINDS = 0xe000_0000 | 0;

/** wait4(pid, status, options, rusage). */
function* wait4(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const options = uap.int(2) & ~WAIT_KINDS;
  if (options & ~(WNOHANG | WUNTRACED | WCONTINUED)) return INVALID;
  const native = (options & (WNOHANG | WUNTRACED)) | (options & WCONTINUED ? 4 : 0);
  const found = yield* kernWait(cx, uap.int(0), native);
  if (found === 0) return OK;
  if ("error" in found) return found;
  if (uap.arg(1) !== 0n) {
    const word = new Uint8Array(Int32Array.of(linuxWaitStatus(found.status)).buffer);
    const error = yield* copyout(cx, uap.arg(1), word);
    if (error !== 0) return { error };
  }
  if (uap.arg(3) !== 0n) {
    // `struct rusage` is the same in both.
    const error = yield* writeRusage(cx, uap.arg(3), found.rusage);
    if (error !== 0) return { error };
  }
  return { value: BigInt(found.pid) };
}

/** set_tid_address(at): the word that becomes 0 when the thread ends. */
function* setTidAddress(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const lp = cx.lwp!;
  emuldata(cx);
  lp.lwpClearTid = uap.arg(0);
  return { value: BigInt(linuxTid(lp.lwpProc, lp)) };
}

/** gettid(). */
function* gettid(cx: Cx): Exec<SyscallResult> {
  const lp = cx.lwp!;
  return { value: BigInt(linuxTid(lp.lwpProc, lp)) };
}

/** System calls of this file. */
export const linuxForkSyscalls: SyscallTable = [
  [56, "clone", 5, clone],
  [57, "fork", 0, plain(0)],
  [58, "vfork", 0, plain(CLONE_VFORK | CLONE_VM)],
  same(59, "execve", 3, 59),
  [60, "exit", 1, exit],
  [61, "wait4", 4, wait4],
  [186, "gettid", 0, gettid],
  [218, "set_tid_address", 1, setTidAddress],
  [231, "exit_group", 1, exitGroup],
];
