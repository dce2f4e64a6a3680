/**
 * Linux's system calls about who one is, what the machine is, limits, and the thread's own registers.
 *
 * Room: `kernel/linux/`; imports processes.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, copyinstr, copyout, suword } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import type { SyscallArgs, SyscallResult, SyscallTable } from "../kern/sysent.ts";
import { getnanouptime } from "../lwkt/callout.ts";
import { canSignal } from "../proc/sig_syscalls.ts";
import { kernSetrlimit } from "../proc/kern_resource.ts";
import { MAXCOMLEN, type Proc } from "../proc/proc.ts";
import * as limits from "../proc/resource.ts";
import { readRandom } from "../vfs/devfs/mem.ts";
import { linuxTfind } from "./linux_emul.ts";
import { callNative, result, same } from "./linux_native.ts";

const OK: SyscallResult = { value: 0n };
const INVALID: SyscallResult = { error: ERRNO.EINVAL };
const FAULT: SyscallResult = { error: ERRNO.EFAULT };
const encoder = new TextEncoder();

/** What programs are told: the C library looks for a kernel that is new enough. */
const LINUX_RELEASE = "6.1.0-exuvia", LINUX_VERSION = "#1 SMP Exuvia (simulated)";
/** Bytes of each of the six texts of `struct new_utsname`. */
const UTSNAME_TEXT = 65;

function* uname(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const texts = ["Linux", cx.k.hostname, LINUX_RELEASE, LINUX_VERSION, "x86_64", "(none)"];
  const bytes = new Uint8Array(texts.length * UTSNAME_TEXT);
  texts.forEach((text, i) => bytes.set(encoder.encode(text).subarray(0, UTSNAME_TEXT - 1), i * UTSNAME_TEXT));
  return result(yield* copyout(cx, uap.arg(0), bytes));
}

/** Bytes of `struct sysinfo`. */
const SYSINFO_BYTES = 112;

function* sysinfo(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const { vmmeter, procs } = cx.k, page = 4096;
  const bytes = new Uint8Array(SYSINFO_BYTES), view = new DataView(bytes.buffer);
  const put = (at: number, value: number) =>
    view.setBigUint64(at, BigInt(Math.max(0, Math.floor(value))), true);
  put(0, getnanouptime(cx).sec);
  put(32, vmmeter.vPageCount * page);
  put(40, vmmeter.vFreeCount * page);
  view.setUint16(80, procs.nprocs, true);
  view.setUint32(104, 1, true);
  return result(yield* copyout(cx, uap.arg(0), bytes));
}

// ---- limits

/** Linux's resources, by number, as DragonFly's; −1: no such limit here. */
const RESOURCES: readonly number[] = [
  limits.RLIMIT_CPU,
  limits.RLIMIT_FSIZE,
  limits.RLIMIT_DATA,
  limits.RLIMIT_STACK,
  limits.RLIMIT_CORE,
  limits.RLIMIT_RSS,
  limits.RLIMIT_NPROC,
  limits.RLIMIT_NOFILE,
  limits.RLIMIT_MEMLOCK,
  limits.RLIMIT_VMEM,
  ...[-1, -1, -1, -1, -1, -1],
];
const LINUX_RLIM_INFINITY = (1n << 64n) - 1n;

function linuxLimit(value: bigint): bigint {
  return value >= limits.RLIM_INFINITY ? LINUX_RLIM_INFINITY : value;
}

/** prlimit(p, resource, new, old). */
function* kernPrlimit(cx: Cx, p: Proc, number: number, next: bigint, old: bigint): Exec<SyscallResult> {
  const which = RESOURCES[number];
  if (which === undefined) return INVALID;
  const { rlimCur, rlimMax } = p.pLimit.plRlimit[which] ??
    { rlimCur: limits.RLIM_INFINITY, rlimMax: limits.RLIM_INFINITY };
  if (next !== 0n) {
    const bytes = yield* copyin(cx, next, 16);
    if (bytes === undefined) return FAULT;
    const [cur, max] = new BigUint64Array(bytes.buffer);
    if (cur! > max!) return INVALID;
    const native = (value: bigint) => value > limits.RLIM_INFINITY ? limits.RLIM_INFINITY : value;
    const error = which < 0 ? 0 : kernSetrlimit(p, which, { rlimCur: native(cur!), rlimMax: native(max!) });
    if (error !== 0) return { error };
  }
  if (old === 0n) return OK;
  const bytes = new Uint8Array(BigUint64Array.of(linuxLimit(rlimCur), linuxLimit(rlimMax)).buffer);
  return result(yield* copyout(cx, old, bytes));
}

function* prlimit64(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const pid = uap.int(0), p = pid === 0 ? cx.proc! : cx.k.procs.pfind(pid);
  if (p === undefined) return { error: ERRNO.ESRCH };
  if (p !== cx.proc && !canSignal(cx.proc!, p, 0)) return { error: ERRNO.EPERM };
  return yield* kernPrlimit(cx, p, uap.int(1), uap.arg(2), uap.arg(3));
}

/** getpriority(which, who): 20 − nice, so that no answer is negative. */
function* getpriority(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const got = yield* callNative(cx, 100, uap.int(0), uap.int(1));
  return "error" in got ? got : { value: 20n - got.value };
}

// ---- the thread

const PR_SET_PDEATHSIG = 1, PR_GET_DUMPABLE = 3, PR_SET_DUMPABLE = 4, PR_SET_NAME = 15, PR_GET_NAME = 16;
const PR_NAME_BYTES = 16;

/** prctl(option, arg): the thread's name; the signal at the parent's death is taken and never sent. */
function* prctl(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const { td } = cx;
  switch (uap.int(0)) {
    case PR_SET_PDEATHSIG:
    case PR_SET_DUMPABLE:
      return OK;
    case PR_GET_DUMPABLE:
      return { value: 1n };
    case PR_SET_NAME: {
      const name = yield* copyinstr(cx, uap.arg(1), PR_NAME_BYTES);
      if (typeof name === "number" && name !== ERRNO.ENAMETOOLONG) return { error: name };
      if (typeof name === "string") cx.td.tdComm = name.slice(0, MAXCOMLEN);
      return OK;
    }
    case PR_GET_NAME: {
      const bytes = new Uint8Array(PR_NAME_BYTES);
      bytes.set(encoder.encode(td.tdComm).subarray(0, PR_NAME_BYTES - 1));
      return result(yield* copyout(cx, uap.arg(1), bytes));
    }
    default:
      return INVALID;
  }
}

const ARCH_SET_GS = 0x1001, ARCH_SET_FS = 0x1002, ARCH_GET_FS = 0x1003, ARCH_GET_GS = 0x1004;

/** arch_prctl(code, address): the bases of FS and GS. */
function* archPrctl(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const code = uap.int(0), address = uap.arg(1), { platform } = cx.k;
  switch (code) {
    case ARCH_SET_FS:
    case ARCH_SET_GS:
      // The base is loaded into an MSR, which refuses what is not an address.
      if (address >= cx.proc!.pVmspace!.vmMap.max) return { error: ERRNO.EPERM };
      yield* code === ARCH_SET_FS ? platform.setTls(cx, address) : platform.setGsbase(cx, address);
      return OK;
    case ARCH_GET_FS:
      return result(yield* suword(cx, address, platform.getTls(cx)));
    case ARCH_GET_GS:
      return result(yield* suword(cx, address, platform.getGsbase(cx)));
    default:
      return INVALID;
  }
}

/** Bytes that getrandom makes at once. */
const RANDOM_CHUNK = 4096;
/** Most bytes of one getrandom. */
const RANDOM_MAX = 32 << 20;

function* getrandom(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  if (uap.int(2) & ~7) return INVALID;
  const count = Math.min(uap.size(1), RANDOM_MAX);
  for (let done = 0; done < count; done += RANDOM_CHUNK) {
    const bytes = new Uint8Array(Math.min(RANDOM_CHUNK, count - done));
    readRandom(cx.k, bytes);
    if ((yield* copyout(cx, uap.arg(0) + BigInt(done), bytes)) !== 0) return FAULT;
    // A long answer must not hold the processor.
    yield;
  }
  return { value: BigInt(count) };
}

/** Bytes of the processor mask that the kernel writes. */
const CPUSET_BYTES = 8;

/** sched_getaffinity(tid, bytes, mask): every thread may run everywhere. */
function* schedGetaffinity(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const tid = uap.int(0), bytes = uap.uint(1);
  if (bytes < CPUSET_BYTES || bytes % 8 !== 0) return INVALID;
  if (tid !== 0 && linuxTfind(cx, tid) === undefined) return { error: ERRNO.ESRCH };
  const error = yield* suword(cx, uap.arg(2), (1n << BigInt(cx.k.ncpus)) - 1n);
  return error !== 0 ? { error } : { value: BigInt(CPUSET_BYTES) };
}

/** getcpu(cpu, node). */
function* getcpu(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const numbers = [cx.gd.gdCpuid, 0];
  for (const [i, number] of numbers.entries()) {
    if (uap.arg(i) === 0n) continue;
    const error = yield* copyout(cx, uap.arg(i), new Uint8Array(Uint32Array.of(number).buffer));
    if (error !== 0) return { error };
  }
  return OK;
}

/** Calls that programs try first and have another way for: ENOSYS without a line in the log. */
function* absent(): Exec<SyscallResult> {
  return { error: ERRNO.ENOSYS };
}

/** System calls of this file. */
export const linuxMiscSyscalls: SyscallTable = [
  same(24, "sched_yield", 0, 331),
  same(39, "getpid", 0, 20),
  [63, "uname", 1, uname],
  [97, "getrlimit", 2, (cx, uap) => kernPrlimit(cx, cx.proc!, uap.int(0), 0n, uap.arg(1))],
  same(98, "getrusage", 2, 117),
  [99, "sysinfo", 1, sysinfo],
  same(102, "getuid", 0, 24),
  same(104, "getgid", 0, 47),
  same(105, "setuid", 1, 23),
  same(106, "setgid", 1, 181),
  same(107, "geteuid", 0, 25),
  same(108, "getegid", 0, 43),
  same(109, "setpgid", 2, 82),
  same(110, "getppid", 0, 39),
  same(111, "getpgrp", 0, 81),
  same(112, "setsid", 0, 147),
  same(113, "setreuid", 2, 126),
  same(114, "setregid", 2, 127),
  same(115, "getgroups", 2, 79),
  same(116, "setgroups", 2, 80),
  same(117, "setresuid", 3, 311),
  same(118, "getresuid", 3, 360),
  same(119, "setresgid", 3, 312),
  same(120, "getresgid", 3, 361),
  same(121, "getpgid", 1, 207),
  same(124, "getsid", 1, 310),
  [140, "getpriority", 2, getpriority],
  same(141, "setpriority", 3, 96),
  [157, "prctl", 5, prctl],
  [158, "arch_prctl", 2, archPrctl],
  [160, "setrlimit", 2, (cx, uap) => kernPrlimit(cx, cx.proc!, uap.int(0), uap.arg(1), 0n)],
  [204, "sched_getaffinity", 3, schedGetaffinity],
  [302, "prlimit64", 4, prlimit64],
  [309, "getcpu", 3, getcpu],
  [318, "getrandom", 3, getrandom],
  [324, "membarrier", 3, absent],
  [332, "statx", 5, absent],
  [334, "rseq", 4, absent],
  [435, "clone3", 2, absent],
  [436, "close_range", 3, absent],
  [437, "openat2", 4, absent],
];
