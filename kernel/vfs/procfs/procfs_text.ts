/**
 * What the files of /proc say (`vfs/procfs/procfs_status.c`, `procfs_map.c`).
 *
 * Room: `kernel/vfs/procfs/`; imports processes and maps. Each text is made in one step, so that it is of one moment and needs no lock.
 *
 * @module
 */
import type { Cx } from "../../context.ts";
import { getnanouptime } from "../../lwkt/callout.ts";
import { calcru } from "../../proc/rusage.ts";
import { LSRUN, LSSLEEP, P_CONTROLT, type Proc, SSTOP, SZOMB } from "../../proc/proc.ts";
import { vmSysctls, vmTotal } from "../../vm/vm_meter.ts";
import {
  MAP_ENTRY_COW,
  MAP_ENTRY_NEEDS_COPY,
  VM_PROT_EXECUTE,
  VM_PROT_READ,
  VM_PROT_WRITE,
} from "../../vm/vm_param.ts";
import {
  OBJT_DEFAULT,
  OBJT_DEVICE,
  OBJT_PHYS,
  OBJT_SWAP,
  OBJT_VNODE,
  type VmObject,
} from "../../vm/vm_object.ts";
import { cacheFullpath } from "../namecache.ts";
import { Vnode } from "../vnode.ts";

/** The path by which a vnode is known, if it is. */
export function vnodePath(cx: Cx, vp: Vnode | undefined): string | undefined {
  for (const ncp of vp?.vNamecache ?? []) {
    const path = cacheFullpath(ncp, cx.k.vfs.rootnch);
    if (typeof path === "string") return path;
  }
  return undefined;
}

/** Letter of a process's state, as ps shows it. */
export function procState(p: Proc): string {
  if (p.pStat === SZOMB) return "Z";
  if (p.pStat === SSTOP) return "T";
  const lp = p.firstLwp;
  if (lp === undefined) return "I";
  if (lp.lwpStat === LSRUN && (lp.lwpThread?.tdWmesg ?? "") === "") return "R";
  return lp.lwpStat === LSRUN || lp.lwpStat === LSSLEEP ? "S" : "T";
}

const time = (us: number) => `${Math.floor(us / 1e6)},${Math.floor(us % 1e6)}`;

/** PID/status: one line, as DragonFly has it, the waiting channel behind the times. */
export function statusText(_cx: Cx, p: Proc): string {
  const ru = calcru(p);
  const cred = p.pUcred;
  const flags = [p.pFlags & P_CONTROLT ? "ctty" : "", p.pSession.sLeader === p ? "sldr" : ""].filter((s) =>
    s !== ""
  );
  const wmesg = p.firstLwp?.lwpThread?.tdWmesg ?? "";
  return [
    p.pComm === "" ? "?" : p.pComm.replaceAll(" ", "\\040"),
    p.pPid,
    p.pPptr?.pPid ?? 0,
    p.pPgrp.pgId,
    p.pSession.sSid,
    p.pFlags & P_CONTROLT ? "console" : "-1,-1",
    flags.length > 0 ? flags.join(",") : "noflags",
    `${p.pStart.sec},${Math.floor(p.pStart.nsec / 1000)}`,
    time(ru.ruUtime),
    time(ru.ruStime),
    wmesg === "" ? "nochan" : wmesg,
    cred.crUid,
    cred.crRuid,
    [cred.crRgid, ...cred.crGroups].join(","),
    "-",
  ].join(" ") + "\n";
}

const TYPE_NAMES: Readonly<Record<number, string>> = {
  [OBJT_DEFAULT]: "default",
  [OBJT_SWAP]: "swap",
  [OBJT_VNODE]: "vnode",
  [OBJT_DEVICE]: "device",
  [OBJT_PHYS]: "phys",
};

/** PID/map: a line for each entry of its address space: start, end, resident pages, object, rights, references, shadows, flags, type, path. */
export function mapText(cx: Cx, p: Proc): string {
  let text = "";
  for (const entry of p.pVmspace?.vmMap.entries() ?? []) {
    const { object, protection: prot, eflags } = entry;
    let at: VmObject | undefined = object;
    while (at?.backingObject !== undefined) at = at.backingObject;
    const vp = at?.type === OBJT_VNODE && at.handle instanceof Vnode ? at.handle : undefined;
    const rights = (prot & VM_PROT_READ ? "r" : "-") + (prot & VM_PROT_WRITE ? "w" : "-") +
      (prot & VM_PROT_EXECUTE ? "x" : "-");
    text += [
      `0x${entry.start.toString(16)}`,
      `0x${entry.end.toString(16)}`,
      object?.residentPageCount ?? 0,
      object === undefined ? "0" : `#${object.id}`,
      rights,
      object?.refCount ?? 0,
      object?.shadowCount ?? 0,
      `0x${(object?.flags ?? 0).toString(16)}`,
      eflags & MAP_ENTRY_COW ? "COW" : "NCOW",
      eflags & MAP_ENTRY_NEEDS_COPY ? "NC" : "NNC",
      object === undefined ? "none" : TYPE_NAMES[object.type] ?? "dead",
      vnodePath(cx, vp) ?? "-",
    ].join(" ") + "\n";
  }
  return text;
}

/** PID/cmdline: the arguments, each with a zero byte behind it. */
export function cmdlineText(p: Proc): string {
  return p.pArgs.length > 0 ? p.pArgs.map((arg) => `${arg}\0`).join("") : `${p.pComm}\0`;
}

/** meminfo: sizes in kilobytes, one a line. */
export function meminfoText(cx: Cx): string {
  const { vmmeter: v, swap } = cx.k;
  const kb = (pages: number) => `${pages * 4} kB`;
  const total = vmTotal(cx.k);
  const rows: readonly (readonly [string, number])[] = [
    ["MemTotal", v.vPageCount],
    ["MemFree", v.vFreeCount],
    ["Cached", v.vCacheCount],
    ["Active", v.vActiveCount],
    ["Inactive", v.vInactiveCount],
    ["Wired", v.vWireCount],
    ["Objects", total.tRm],
    ["SwapTotal", swap.vmSwapMax],
    ["SwapFree", swap.vmSwapSize],
  ];
  return rows.map(([name, pages]) => `${`${name}:`.padEnd(12)}${kb(pages).padStart(14)}\n`).join("");
}

/** vmstat: the counters by their sysctl names. */
export function vmstatText(cx: Cx): string {
  return vmSysctls.map(([name, value]) => `${name.split(".").at(-1)} ${value(cx.k)}\n`).join("");
}

/** uptime: seconds since the start. */
export function uptimeText(cx: Cx): string {
  const { sec, nsec } = getnanouptime(cx);
  return `${sec}.${String(Math.floor(nsec / 1e7)).padStart(2, "0")} 0.00\n`;
}

/** mounts: device, directory, type, options. */
export function mountsText(cx: Cx): string {
  return cx.k.vfs.mountlist.map((mp) => {
    const on = cacheFullpath(mp.mntNcmountpt, cx.k.vfs.rootnch);
    return `${mp.mntFromname} ${typeof on === "string" ? on : "?"} ${mp.mntOp.vfsName} ${
      mp.mntFlag & 1 ? "ro" : "rw"
    } 0 0\n`;
  }).join("");
}
