/**
 * What the kernel tells about processes (`struct kinfo_proc`, `sys/kern/kern_kinfo.c`).
 *
 * Room: `kernel/proc/`; reads processes, threads and address spaces.
 *
 * @module
 */
import type { Cx } from "../context.ts";
import type { Thread } from "../lwkt/thread.ts";
import { TDF } from "../lwkt/thread.ts";
import { LSRUN, LSSLEEP, type Lwp, type Proc, SACTIVE, SZOMB } from "./proc.ts";
import { calcru, encodeRusage } from "./rusage.ts";
import { Rusage } from "./resource.ts";
import type { Sigset } from "./signal.ts";
import { StructWriter } from "./struct_writer.ts";

/** `kp_auxflags`: has a controlling terminal; leads its session. */
const KI_CTTY = 1, KI_SLEADER = 2;
const NGROUPS = 16;
/** Pages of a byte count. */
const pages = (bytes: bigint) => Number(bytes >> 12n);

function sigset(w: StructWriter, set: Sigset): void {
  const low = Number(set & 0xffff_ffffn), high = Number(set >> 32n);
  w.u32(low).u32(high).u32(0).u32(0);
}

/** `struct kinfo_proc` of a process; `lp` is the thread that its kp_lwp tells of, a zombie has none. */
export function fillKinfoProc(cx: Cx, p: Proc, lp: Lwp | undefined): Uint8Array<ArrayBuffer> {
  const w = new StructWriter(), cred = p.pUcred, vm = p.pStat === SZOMB ? undefined : p.pVmspace;
  const { pSession: session, pSigacts } = p;
  const tty = session.sTtyp as { readonly tPgrp?: { readonly pgId: number } } | undefined;
  w.u64(p.pPid).u32(p.pFlags).u32(p.pStat).u32(p.pLock).u32(p.pAcflag).u32(0).u64(0);
  sigset(w, p.pSiglist);
  sigset(w, pSigacts.pSigignore);
  sigset(w, pSigacts.pSigcatch);
  w.u32((pSigacts.psNocldwait ? 1 : 0) | (pSigacts.psNocldstop ? 2 : 0));
  w.u64(p.pStart.sec + cx.k.boottime).u64(Math.floor(p.pStart.nsec / 1000)).text(p.pComm, 17);
  w.u32(cred.crUid).u16(cred.crGroups.length);
  for (let i = 0; i < NGROUPS; i++) w.u32(cred.crGroups[i] ?? 0);
  w.u32(cred.crRuid).u32(cred.crSvuid).u32(cred.crRgid).u32(cred.crSvgid);
  w.u32(p.pPid).u32(p.pPptr?.pPid ?? 0).u32(p.pPgrp.pgId).u32(p.pPgrp.pgJobc).u32(session.sSid);
  w.text(session.sLogin, 24);
  w.u32(tty === undefined ? 0xffff_ffff : 0).u32(tty?.tPgrp?.pgId ?? -1).u32(
    tty === undefined ? -1 : session.sSid,
  );
  w.u16(p.pXstat).u32(p.pNthreads).u32(p.pNice).u32(0);
  const resident = vm?.vmPmap.pmStats.residentCount ?? 0;
  w.u64(vm?.vmMap.size ?? 0n).u64(resident).u64(vm?.vmSwrss ?? 0);
  w.u64(pages(vm?.vmTsize ?? 0n)).u64(pages(vm?.vmDsize ?? 0n)).u64(pages(vm?.vmSsize ?? 0n)).u32(resident)
    .u32(0);
  w.bytes(encodeRusage(p.pStat === SZOMB ? p.pRu : calcru(p)), 8).bytes(encodeRusage(p.pCru), 8);
  w.u32((tty !== undefined ? KI_CTTY : 0) | (session.sLeader === p ? KI_SLEADER : 0));
  w.bytes(fillKinfoLwp(lp, lp?.lwpThread, p.pPid, p.pComm), 8);
  return w.u64(0).u32(0).u32(0).finish();
}

/** `struct kinfo_lwp` of a thread. */
function fillKinfoLwp(lp: Lwp | undefined, td: Thread | undefined, pid: number, comm: string): Uint8Array {
  const w = new StructWriter(), ud = lp?.lwpUsdata;
  const sleeping = td !== undefined && (td.tdFlags & TDF.TSLEEPQ) !== 0;
  const stat = lp?.lwpStat ?? (sleeping ? LSSLEEP : LSRUN);
  w.u32(pid).u32(lp?.lwpTid ?? 0).u32(lp === undefined ? 0 : lp.lwpFlags | lp.lwpMpflags).u32(stat);
  w.u32(lp?.lwpLock ?? 0).u32(td?.tdFlags ?? 0).u32(0).u32(ud?.priority ?? 0).u32(td?.tdPri ?? 0).u16(0).u16(
    0,
  );
  w.u64((td?.tdUticks ?? 0) * 10_000).u64((td?.tdSticks ?? 0) * 10_000).u64((td?.tdIticks ?? 0) * 10_000);
  w.u64(ud?.cpticks ?? 0).u32(lp?.lwpPctcpu ?? 0).u32(lp?.lwpSlptime ?? 0);
  w.u32(0).u32(ud?.estcpu ?? 0).u32(td?.tdGd.gdCpuid ?? 0);
  w.bytes(encodeRusage(lp?.lwpRu ?? new Rusage()), 8);
  sigset(w, lp?.lwpSiglist ?? 0n);
  sigset(w, lp?.lwpSigmask ?? 0n);
  return w.u64(sleeping ? 1 : 0).text(sleeping ? td.tdWmesg : "", 9).text(comm, 17).finish();
}

/** The same for a thread of the kernel, which has no process: pid −1 (`fill_kinfo_proc_kthread`). */
export function fillKinfoKthread(cx: Cx, td: Thread, proc0: Proc): Uint8Array<ArrayBuffer> {
  const bytes = fillKinfoProc(cx, proc0, undefined), view = new DataView(bytes.buffer);
  const lwp = fillKinfoLwp(undefined, td, -1, td.tdComm);
  // kp_lwp, kp_ktaddr and kp_spare are the structure's end.
  bytes.set(lwp, bytes.length - 16 - lwp.length);
  view.setBigUint64(bytes.length - 16, 1n, true);
  new Uint8Array(bytes.buffer, KP_COMM, 17).fill(0);
  bytes.set(new TextEncoder().encode(td.tdComm).subarray(0, 16), KP_COMM);
  view.setInt32(KP_PID, -1, true);
  view.setUint32(KP_STAT, SACTIVE, true);
  return bytes;
}

/** Offsets that a kernel thread's structure is changed at. */
const KP_STAT = 12, KP_COMM = 112, KP_PID = 220;
