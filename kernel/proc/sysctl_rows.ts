/**
 * The leaves of the sysctl tree: kern, vm, hw, machdep (`kern_mib.c`, `vm_meter.c`, `kern_proc.c`).
 *
 * Room: `kernel/proc/`; reads everything.
 *
 * @module
 */
import type { Cx } from "../context.ts";
import { ERRNO } from "../kern/errno.ts";
import { hz, ustick } from "../lwkt/callout.ts";
import { vmmSysctls } from "../vmm/vmm_sysctl.ts";
import { vmSysctls, vmTotal } from "../vm/vm_meter.ts";
import { ARG_MAX } from "./kern_exec.ts";
import { fillKinfoKthread, fillKinfoProc } from "./kinfo.ts";
import { MAXPROC, type Proc } from "./proc.ts";
import { StructWriter } from "./struct_writer.ts";
import {
  CTLTYPE_INT,
  CTLTYPE_LONG,
  CTLTYPE_OPAQUE,
  CTLTYPE_STRING,
  type SysctlRow,
  type SysctlValue,
} from "./sysctl_types.ts";
import { OSRELDATE, OSRELEASE, OSTYPE, VERSION } from "./version.ts";
import { NGROUPS_MAX } from "./ucred.ts";

type Get = (cx: Cx, args: readonly number[]) => SysctlValue | undefined;

const int = (name: string, get: (cx: Cx) => number): SysctlRow => ({ name, type: CTLTYPE_INT, get });
const long = (name: string, get: (cx: Cx) => number): SysctlRow => ({ name, type: CTLTYPE_LONG, get });
const text = (name: string, get: (cx: Cx) => string): SysctlRow => ({ name, type: CTLTYPE_STRING, get });
const struct = (name: string, format: string, get: Get, takesArguments = false): SysctlRow => ({
  name,
  type: CTLTYPE_OPAQUE,
  format: `S,${format}`,
  get,
  takesArguments,
});

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** One structure a process, or with flag 0x10 one a thread. */
function processes(cx: Cx, wanted: (p: Proc) => boolean, threads: boolean): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const p of cx.k.procs.allproc.values()) {
    if (p.pPid === 0 || !wanted(p)) continue;
    const lwps = [...p.pLwps.values()];
    for (const lp of threads && lwps.length > 0 ? lwps : [lwps[0]]) parts.push(fillKinfoProc(cx, p, lp));
  }
  return concat(parts);
}

function kernelThreads(cx: Cx): Uint8Array {
  const { proc0 } = cx.k.procs;
  return concat(
    [...cx.k.lwkt.allThreads].filter((td) => td.tdLwp === undefined).map((td) =>
      fillKinfoKthread(cx, td, proc0)
    ),
  );
}

/** Flag in the third number: one structure a thread. */
const KERN_PROC_FLAG_LWP = 0x10;

const procRows: readonly SysctlRow[] = [
  struct(
    "kern.proc.all",
    "proc",
    (cx) => concat([processes(cx, () => true, false), kernelThreads(cx)]),
    true,
  ),
  struct("kern.proc.all_lwp", "proc", (cx) => concat([processes(cx, () => true, true), kernelThreads(cx)])),
  struct("kern.proc.pid", "proc", (cx, [pid, flags = 0]) => {
    const found = processes(cx, (p) => p.pPid === pid, (flags & KERN_PROC_FLAG_LWP) !== 0);
    return found.length === 0 ? undefined : found;
  }, true),
  struct("kern.proc.pgrp", "proc", (cx, [id]) => processes(cx, (p) => p.pPgrp.pgId === id, false), true),
  struct(
    "kern.proc.session",
    "proc",
    (cx, [id]) => processes(cx, (p) => p.pSession.sSid === id, false),
    true,
  ),
  struct("kern.proc.uid", "proc", (cx, [id]) => processes(cx, (p) => p.pUcred.crUid === id, false), true),
  struct("kern.proc.ruid", "proc", (cx, [id]) => processes(cx, (p) => p.pUcred.crRuid === id, false), true),
  struct("kern.proc.args", "", (cx, [pid]) => {
    const p = cx.k.procs.pfind(pid ?? 0);
    return p === undefined ? undefined : new TextEncoder().encode(p.pArgs.map((arg) => arg + "\0").join(""));
  }, true),
];

/** Clock ticks of all processors: user, nice, system, interrupt, idle (`kern.cp_time`). */
function cpTime(cx: Cx): number[] {
  const sums = [0, 0, 0, 0, 0];
  for (let cpu = 0; cpu < cx.k.lwkt.gds.length; cpu++) {
    cpTimeOf(cx, cpu).forEach((ticks, i) => sums[i]! += ticks);
  }
  return sums;
}

function cpTimeOf(cx: Cx, cpu: number): readonly number[] {
  return cx.k.cpTime[cpu] ?? [0, 0, 0, 0, 0];
}

function cputime(cx: Cx, cpu: number): Uint8Array {
  const w = new StructWriter();
  for (const ticks of cpTimeOf(cx, cpu)) w.u64(ticks * ustick);
  return w.u64(0).u64(0).u64(0).u64(0).text("", 32).finish();
}

const kernRows: readonly SysctlRow[] = [
  text("kern.ostype", () => OSTYPE),
  text("kern.osrelease", () => OSRELEASE),
  int("kern.osrevision", () => 199506),
  text("kern.version", () => VERSION),
  int("kern.osreldate", () => OSRELDATE),
  int("kern.maxproc", () => MAXPROC),
  int("kern.maxprocperuid", () => MAXPROC - 10),
  int("kern.argmax", () => ARG_MAX),
  int("kern.ngroups", () => NGROUPS_MAX),
  int("kern.job_control", () => 1),
  int("kern.saved_ids", () => 1),
  int("kern.posix1version", () => 200112),
  int("kern.maxfiles", (cx) => cx.k.vfs.maxfiles),
  int("kern.maxfilesperproc", () => 4096),
  int("kern.openfiles", (cx) => cx.k.vfs.filehead.size),
  int("kern.nprocs", (cx) => cx.k.procs.nprocs),
  {
    name: "kern.hostname",
    type: CTLTYPE_STRING,
    get: (cx) => cx.k.hostname,
    set(cx, value) {
      if (typeof value !== "string" || value.length > 255) return ERRNO.EINVAL;
      cx.k.hostname = value;
      return 0;
    },
  },
  text("kern.bootfile", () => "/boot/kernel/kernel"),
  struct(
    "kern.boottime",
    "timeval",
    (cx) => new StructWriter().u64(cx.k.boottime).u64(0).finish(),
  ),
  struct(
    "kern.clockrate",
    "clockinfo",
    () => new StructWriter().u32(hz).u32(ustick).u32(0).u32(hz).u32(hz).finish(4),
  ),
  struct("kern.cp_time", "cp_time", (cx) => {
    const w = new StructWriter();
    for (const ticks of cpTime(cx)) w.u64(ticks);
    return w.finish();
  }),
  struct(
    "kern.cputime",
    "kinfo_cputime",
    (cx) => concat(cx.k.lwkt.gds.map((_, cpu) => cputime(cx, cpu))),
  ),
  int("kern.ticks", (cx) => cx.k.ticks),
  text("kern.msgbuf", (cx) => cx.k.messages.text),
  long("kern.usrstack", (cx) => Number(cx.proc!.pVmspace?.vmMinsaddr ?? 0n)),
  ...procRows,
];

/** `struct loadavg`: three averages in 1/2048, and the scale. Kept by {@link "./kern_synch.ts"}. */
function loadavg(cx: Cx): Uint8Array {
  const w = new StructWriter();
  for (const value of cx.k.loadavg) w.u32(Math.round(value * 2048));
  return w.u64(2048).finish();
}

/** Fields of `struct vmstats` and `struct vmmeter` in their order, by the names of their sysctls. */
const VMSTATS =
  ("page_size page_count free_reserved free_target free_min free_count wire_count active_count " +
    "inactive_target inactive_count cache_count cache_min cache_max pageout_free_min interrupt_free_min free_severe")
    .split(" ").map((name) => `vm.stats.vm.v_${name}`);
const VMMETER = [
  ..."swtch trap syscall intr ipi timer soft".split(" ").map((name) => `vm.stats.sys.v_${name}`),
  ...("vm_faults cow_faults cow_optim zfod ozfod swapin swapout swappgsin swappgsout vnodein vnodeout vnodepgsin " +
    "vnodepgsout intrans reactivated pdwakeups pdpages dfree pfree tfree forks vforks rforks exec kthreads forkpages " +
    "vforkpages rforkpages kthreadpages").split(" ").map((name) => `vm.stats.vm.v_${name}`),
];

function counters(cx: Cx, names: readonly string[], bytes: number): Uint8Array {
  const w = new StructWriter();
  for (const wanted of names) w.u32(vmSysctls.find(([name]) => name === wanted)?.[1](cx.k) ?? 0);
  const used = w.finish(4), out = new Uint8Array(bytes);
  out.set(used.subarray(0, bytes));
  return out;
}

function vmtotal(cx: Cx): Uint8Array {
  const { tVm, tRm, tVmshr, tRmshr, tFree } = vmTotal(cx.k);
  let rq = 0, sl = 0;
  for (const p of cx.k.procs.allproc.values()) {
    for (const lp of p.pLwps.values()) lp.lwpStat === 3 ? sl++ : rq++;
  }
  const w = new StructWriter();
  for (const value of [rq, 0, 0, sl, 0, tVm, tVm, tRm, tRm, tVmshr, tVmshr, tRmshr, tRmshr, tFree]) {
    w.u64(value);
  }
  return w.finish();
}

const vmRows: readonly SysctlRow[] = [
  struct("vm.vmtotal", "vmtotal", vmtotal),
  struct("vm.loadavg", "loadavg", loadavg),
  struct("vm.vmstats", "vmstats", (cx) => counters(cx, VMSTATS, 104)),
  struct("vm.vmmeter", "vmmeter", (cx) => counters(cx, VMMETER, 196)),
  long("hw.tsc_frequency", (cx) => cx.k.platform.tscHz),
  {
    ...int("vm.vkernel_enable", (cx) => cx.k.vmMap.vkernelEnable ? 1 : 0),
    description: "Programs may be kernels: MAP_VPAGETABLE and the vmspace calls",
    set(cx, value) {
      if (typeof value !== "number") return ERRNO.EINVAL;
      cx.k.vmMap.vkernelEnable = value !== 0;
      return 0;
    },
  },
  ...vmSysctls.map(([name, value]) => int(name, (cx) => value(cx.k))),
];

const hwRows: readonly SysctlRow[] = [
  text("hw.machine", () => "x86_64"),
  text("hw.machine_arch", () => "x86_64"),
  text("hw.platform", (cx) => cx.k.platform.name),
  text("hw.model", () => "Exuvia simulated processor"),
  int("hw.ncpu", (cx) => cx.k.ncpus),
  int("hw.byteorder", () => 1234),
  long("hw.physmem", (cx) => cx.k.memoryBytes),
  long("hw.usermem", (cx) => cx.k.memoryBytes - cx.k.vmmeter.vWireCount * 4096),
  int("hw.pagesize", () => 4096),
  int("hw.floatingpoint", () => 1),
  long("hw.availpages", (cx) => cx.k.vmmeter.vPageCount),
  ...vmmSysctls,
];

/** Every leaf. */
export const sysctlRows: readonly SysctlRow[] = [...kernRows, ...vmRows, ...hwRows];
