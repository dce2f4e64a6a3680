/**
 * Who a process is and belongs to (`sys/kern/kern_prot.c`): numbers, groups, sessions, users; and the TLS area.
 *
 * Room: `kernel/proc/`; imports kern_proc and copy.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, copyinstr, copyout } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { type Syscall, type SyscallArgs, type SyscallResult, type SyscallTable } from "../kern/sysent.ts";
import { enterpgrp, inferior } from "./kern_proc.ts";
import { P_EXEC, P_SUGID, type Proc } from "./proc.ts";
import { isRoot, NGROUPS_MAX, type Ucred } from "./ucred.ts";

const OK: SyscallResult = { value: 0n };
const FAULT: SyscallResult = { error: ERRNO.EFAULT };
const INVALID: SyscallResult = { error: ERRNO.EINVAL };
const PERM: SyscallResult = { error: ERRNO.EPERM };
/** Longest login name, its zero included. */
const MAXLOGNAME = 17;

/** A call that answers a number and needs no more than the current process. */
function answers(value: (cx: Cx, p: Proc) => number): Syscall {
  return function* (cx) {
    return { value: BigInt(value(cx, cx.proc!)) };
  };
}

/** getpgid(pid) (207), getsid(pid) (310): of the current process for 0. */
function ofProcess(value: (p: Proc) => number): Syscall {
  return function* (cx, uap) {
    const pid = uap.int(0);
    const p = pid === 0 ? cx.proc! : cx.k.procs.pfind(pid);
    return p === undefined ? { error: ERRNO.ESRCH } : { value: BigInt(value(p)) };
  };
}

/** setsid() (147). */
function* sysSetsid(cx: Cx): Exec<SyscallResult> {
  const p = cx.proc!;
  if (p.pPgrp.pgId === p.pPid || cx.k.procs.pgfind(p.pPid) !== undefined) return PERM;
  enterpgrp(cx, p, p.pPid, true);
  return { value: BigInt(p.pPid) };
}

/** setpgid(pid, pgid) (82). */
function* sysSetpgid(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const pid = uap.int(0), wanted = uap.int(1), self = cx.proc!, { procs } = cx.k;
  if (wanted < 0) return INVALID;
  const target = pid === 0 || pid === self.pPid ? self : procs.pfind(pid);
  if (target === undefined || !inferior(target, self)) return { error: ERRNO.ESRCH };
  if (target !== self) {
    if (target.pSession !== self.pSession) return PERM;
    if (target.pFlags & P_EXEC) return { error: ERRNO.EACCES };
  }
  if (target.pSession.sLeader === target) return PERM;
  const pgid = wanted === 0 ? target.pPid : wanted;
  if (pgid !== target.pPid) {
    const pgrp = procs.pgfind(pgid);
    if (pgrp === undefined || pgrp.pgSession !== self.pSession) return PERM;
  }
  enterpgrp(cx, target, pgid, false);
  return OK;
}

/** What a call changes of the credentials: EPERM unless root, or each number is one that the process has already. */
function setIds(
  change: (old: Ucred, uap: SyscallArgs) => Partial<Ucred> | undefined,
): Syscall {
  return function* (cx, uap) {
    const p = cx.proc!;
    const next = change(p.pUcred, uap);
    if (next === undefined) return PERM;
    p.pUcred = { ...p.pUcred, ...next };
    p.pFlags |= P_SUGID;
    return OK;
  };
}

/** −1 stands for "as it is". */
function orOld(uap: SyscallArgs, i: number, old: number): number {
  return uap.int(i) === -1 ? old : uap.uint(i);
}

/** setuid(uid) (23): all three for root; a user may only go back to the real or saved one. */
const sysSetuid = setIds((old, uap) => {
  const uid = uap.uint(0);
  if (!isRoot(old) && uid !== old.crRuid && uid !== old.crSvuid) return undefined;
  return { crUid: uid, crRuid: uid, crSvuid: uid };
});
/** seteuid(uid) (183). */
const sysSeteuid = setIds((old, uap) => {
  const uid = uap.uint(0);
  return isRoot(old) || uid === old.crRuid || uid === old.crSvuid ? { crUid: uid } : undefined;
});
/** setgid(gid) (181). */
const sysSetgid = setIds((old, uap) => {
  const gid = uap.uint(0);
  if (!isRoot(old) && gid !== old.crRgid && gid !== old.crSvgid) return undefined;
  return { crGroups: [gid, ...old.crGroups.slice(1)], crRgid: gid, crSvgid: gid };
});
/** setegid(gid) (182). */
const sysSetegid = setIds((old, uap) => {
  const gid = uap.uint(0);
  if (!isRoot(old) && gid !== old.crRgid && gid !== old.crSvgid) return undefined;
  return { crGroups: [gid, ...old.crGroups.slice(1)] };
});
/** setresuid(r, e, s) (311), and setreuid(r, e) (126) with the saved one following. */
const sysSetresuid = setIds((old, uap) => {
  const ids = [orOld(uap, 0, old.crRuid), orOld(uap, 1, old.crUid), orOld(uap, 2, old.crSvuid)] as const;
  const own = [old.crRuid, old.crUid, old.crSvuid];
  if (!isRoot(old) && !ids.every((id) => own.includes(id))) return undefined;
  return { crRuid: ids[0], crUid: ids[1], crSvuid: ids[2] };
});
const sysSetreuid = setIds((old, uap) => {
  const ruid = orOld(uap, 0, old.crRuid), euid = orOld(uap, 1, old.crUid);
  const own = [old.crRuid, old.crUid, old.crSvuid];
  if (!isRoot(old) && !(own.includes(ruid) && own.includes(euid))) return undefined;
  const saved = ruid !== old.crRuid || euid !== old.crRuid ? euid : old.crSvuid;
  return { crRuid: ruid, crUid: euid, crSvuid: saved };
});
/** setresgid(r, e, s) (312), setregid(r, e) (127). */
const sysSetresgid = setIds((old, uap) => {
  const egid = old.crGroups[0]!;
  const ids = [orOld(uap, 0, old.crRgid), orOld(uap, 1, egid), orOld(uap, 2, old.crSvgid)] as const;
  const own = [old.crRgid, egid, old.crSvgid];
  if (!isRoot(old) && !ids.every((id) => own.includes(id))) return undefined;
  return { crRgid: ids[0], crGroups: [ids[1], ...old.crGroups.slice(1)], crSvgid: ids[2] };
});
const sysSetregid = setIds((old, uap) => {
  const rgid = orOld(uap, 0, old.crRgid), egid = orOld(uap, 1, old.crGroups[0]!);
  const own = [old.crRgid, old.crGroups[0]!, old.crSvgid];
  if (!isRoot(old) && !(own.includes(rgid) && own.includes(egid))) return undefined;
  const saved = rgid !== old.crRgid || egid !== old.crRgid ? egid : old.crSvgid;
  return { crRgid: rgid, crGroups: [egid, ...old.crGroups.slice(1)], crSvgid: saved };
});

/** Writes 32-bit words to addresses that are not null. */
function* copyoutInts(
  cx: Cx,
  values: readonly (readonly [at: bigint, value: number])[],
): Exec<SyscallResult> {
  for (const [at, value] of values) {
    if (at === 0n) continue;
    if ((yield* copyout(cx, at, new Uint8Array(Uint32Array.of(value).buffer))) !== 0) return FAULT;
  }
  return OK;
}

/** getresuid(r, e, s) (360). */
function* sysGetresuid(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const { crRuid, crUid, crSvuid } = cx.proc!.pUcred;
  return yield* copyoutInts(cx, [[uap.arg(0), crRuid], [uap.arg(1), crUid], [uap.arg(2), crSvuid]]);
}
/** getresgid(r, e, s) (361). */
function* sysGetresgid(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const { crRgid, crGroups, crSvgid } = cx.proc!.pUcred;
  return yield* copyoutInts(cx, [[uap.arg(0), crRgid], [uap.arg(1), crGroups[0]!], [uap.arg(2), crSvgid]]);
}

/** getgroups(size, set) (79). */
function* sysGetgroups(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const { crGroups } = cx.proc!.pUcred, size = uap.uint(0);
  if (size === 0) return { value: BigInt(crGroups.length) };
  if (size < crGroups.length) return INVALID;
  const bytes = new Uint8Array(Uint32Array.from(crGroups).buffer);
  return (yield* copyout(cx, uap.arg(1), bytes)) === 0 ? { value: BigInt(crGroups.length) } : FAULT;
}
/** setgroups(size, set) (80). */
function* sysSetgroups(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const p = cx.proc!, size = uap.uint(0);
  if (!isRoot(p.pUcred)) return PERM;
  if (size > NGROUPS_MAX) return INVALID;
  const bytes = yield* copyin(cx, uap.arg(1), size * 4);
  if (bytes === undefined) return FAULT;
  const groups = [...new Uint32Array(bytes.buffer)];
  p.pUcred = { ...p.pUcred, crGroups: groups.length === 0 ? [p.pUcred.crGroups[0]!] : groups };
  return OK;
}

/** getlogin(namebuf, namelen) (49). */
function* sysGetlogin(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const name = new TextEncoder().encode(cx.proc!.pSession.sLogin + "\0");
  const room = Math.min(uap.uint(1), MAXLOGNAME);
  return (yield* copyout(cx, uap.arg(0), name.subarray(0, room))) === 0 ? OK : FAULT;
}
/** setlogin(namebuf) (50). */
function* sysSetlogin(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  if (!isRoot(cx.proc!.pUcred)) return PERM;
  const name = yield* copyinstr(cx, uap.arg(0), MAXLOGNAME);
  if (typeof name === "number") return { error: name === ERRNO.ENAMETOOLONG ? ERRNO.EINVAL : name };
  cx.proc!.pSession.sLogin = name;
  return OK;
}

/** set_tls_area(which, info, infosize) (472): 0 is FS, 1 is GS; `struct tls_info` is base (8) and size (4). */
function* sysSetTlsArea(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const which = uap.int(0), { platform } = cx.k;
  if (which !== 0 && which !== 1) return { error: ERRNO.ERANGE };
  if (uap.size(2) < 12) return INVALID;
  const bytes = yield* copyin(cx, uap.arg(1), 12);
  if (bytes === undefined) return FAULT;
  const base = new DataView(bytes.buffer).getBigUint64(0, true);
  // The base is loaded into an MSR, which refuses what is not an address.
  if (base >= cx.proc!.pVmspace!.vmMap.max) return INVALID;
  yield* which === 0 ? platform.setTls(cx, base) : platform.setGsbase(cx, base);
  return OK;
}
/** get_tls_area(which, info, infosize) (473). */
function* sysGetTlsArea(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const which = uap.int(0), { platform } = cx.k;
  if (which !== 0 && which !== 1) return { error: ERRNO.ERANGE };
  if (uap.size(2) < 12) return INVALID;
  const bytes = new Uint8Array(12), view = new DataView(bytes.buffer);
  view.setBigUint64(0, which === 0 ? platform.getTls(cx) : platform.getGsbase(cx), true);
  view.setInt32(8, -1, true);
  return (yield* copyout(cx, uap.arg(1), bytes)) === 0 ? OK : FAULT;
}

/** System calls of this file. */
export const protSyscalls: SyscallTable = [
  [20, "getpid", 0, answers((_cx, p) => p.pPid)],
  [23, "setuid", 1, sysSetuid],
  [24, "getuid", 0, answers((_cx, p) => p.pUcred.crRuid)],
  [25, "geteuid", 0, answers((_cx, p) => p.pUcred.crUid)],
  [39, "getppid", 0, answers((_cx, p) => p.pPptr?.pPid ?? 0)],
  [43, "getegid", 0, answers((_cx, p) => p.pUcred.crGroups[0]!)],
  [47, "getgid", 0, answers((_cx, p) => p.pUcred.crRgid)],
  [49, "getlogin", 2, sysGetlogin],
  [50, "setlogin", 1, sysSetlogin],
  [79, "getgroups", 2, sysGetgroups],
  [80, "setgroups", 2, sysSetgroups],
  [81, "getpgrp", 0, answers((_cx, p) => p.pPgrp.pgId)],
  [82, "setpgid", 2, sysSetpgid],
  [126, "setreuid", 2, sysSetreuid],
  [127, "setregid", 2, sysSetregid],
  [147, "setsid", 0, sysSetsid],
  [181, "setgid", 1, sysSetgid],
  [182, "setegid", 1, sysSetegid],
  [183, "seteuid", 1, sysSeteuid],
  [207, "getpgid", 1, ofProcess((p) => p.pPgrp.pgId)],
  [253, "issetugid", 0, answers((_cx, p) => p.pFlags & P_SUGID ? 1 : 0)],
  [310, "getsid", 1, ofProcess((p) => p.pSession.sSid)],
  [311, "setresuid", 3, sysSetresuid],
  [312, "setresgid", 3, sysSetresgid],
  [360, "getresuid", 3, sysGetresuid],
  [361, "getresgid", 3, sysGetresgid],
  [472, "set_tls_area", 3, sysSetTlsArea],
  [473, "get_tls_area", 3, sysGetTlsArea],
  [496, "lwp_gettid", 0, answers((cx) => cx.lwp!.lwpTid)],
];
