/**
 * The kernel's variables (`sys/kern/kern_sysctl.c`, `kern_mib.c`): the tree of names and numbers, __sysctl and uname.
 *
 * Room: `kernel/proc/`; imports the values' owners as tables of rows.
 *
 * A row is a leaf: its name from the root, its type, its value. Numbers are DragonFly's where programs use them, else they are given
 * out per level from 256 up, in the rows' order. `0.1` … `0.5` are the questions about the tree itself.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, copyout } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { type SyscallArgs, type SyscallResult, type SyscallTable } from "../kern/sysent.ts";
import { sysctlRows } from "./sysctl_rows.ts";
import {
  CTLTYPE_INT,
  CTLTYPE_LONG,
  CTLTYPE_NODE,
  CTLTYPE_OPAQUE,
  CTLTYPE_STRING,
  type SysctlRow,
  type SysctlValue,
} from "./sysctl_types.ts";
import { isRoot } from "./ucred.ts";
import { StructWriter } from "./struct_writer.ts";
import { OSRELEASE, OSTYPE, VERSION } from "./version.ts";

/** Most numbers in a name (`CTL_MAXNAME`). */
const CTL_MAXNAME = 12;
/** Longest value that may be given. */
const NEW_MAX = 4096;
/** oidfmt's flag bits: readable, writable. */
const CTLFLAG_RD = 0x8000_0000, CTLFLAG_WR = 0x4000_0000;

/** A place in the tree. */
interface Oid {
  readonly name: string;
  readonly number: number;
  readonly children: Map<number, Oid>;
  readonly row: SysctlRow | undefined;
}

/** Numbers that programs know. */
const NUMBERS: Readonly<Record<string, number>> = {
  kern: 1,
  vm: 2,
  vfs: 3,
  net: 4,
  debug: 5,
  hw: 6,
  machdep: 7,
  user: 8,
  p1003_1b: 9,
  "kern.ostype": 1,
  "kern.osrelease": 2,
  "kern.osrevision": 3,
  "kern.version": 4,
  "kern.maxvnodes": 5,
  "kern.maxproc": 6,
  "kern.maxfiles": 7,
  "kern.argmax": 8,
  "kern.securelevel": 9,
  "kern.hostname": 10,
  "kern.hostid": 11,
  "kern.clockrate": 12,
  "kern.proc": 14,
  "kern.posix1version": 17,
  "kern.ngroups": 18,
  "kern.job_control": 19,
  "kern.saved_ids": 20,
  "kern.boottime": 21,
  "kern.domainname": 22,
  "kern.osreldate": 24,
  "kern.bootfile": 26,
  "kern.maxfilesperproc": 27,
  "kern.maxprocperuid": 28,
  "kern.ipc": 32,
  "kern.ps_strings": 33,
  "kern.usrstack": 34,
  "kern.proc.all": 0,
  "kern.proc.pid": 1,
  "kern.proc.pgrp": 2,
  "kern.proc.session": 3,
  "kern.proc.tty": 4,
  "kern.proc.uid": 5,
  "kern.proc.ruid": 6,
  "kern.proc.args": 7,
  "vm.vmtotal": 1,
  "vm.loadavg": 2,
  "hw.machine": 1,
  "hw.model": 2,
  "hw.ncpu": 3,
  "hw.byteorder": 4,
  "hw.physmem": 5,
  "hw.usermem": 6,
  "hw.pagesize": 7,
  "hw.floatingpoint": 10,
  "hw.machine_arch": 11,
};

/** First number of places that have none of their own (`OID_AUTO`). */
const OID_AUTO = 256;

/** The tree of some rows. */
export function buildTree(rows: readonly SysctlRow[]): Oid {
  const root: Oid = { name: "", number: 0, children: new Map(), row: undefined };
  for (const row of rows) {
    const parts = row.name.split(".");
    let at = root;
    parts.forEach((part, i) => {
      const path = parts.slice(0, i + 1).join(".");
      let next = [...at.children.values()].find(({ name }) => name === part);
      if (next === undefined) {
        let number = NUMBERS[path] ?? OID_AUTO;
        while (NUMBERS[path] === undefined && at.children.has(number)) number++;
        next = { name: part, number, children: new Map(), row: i === parts.length - 1 ? row : undefined };
        at.children.set(number, next);
      }
      at = next;
    });
  }
  return root;
}

const TREE = buildTree(sysctlRows);

/** Follows numbers as far as they go: the place, and the numbers that are left for a leaf to understand. */
function find(mib: readonly number[]): { readonly oid: Oid; readonly rest: readonly number[] } | undefined {
  let at = TREE;
  for (let i = 0; i < mib.length; i++) {
    if (at.row !== undefined) return { oid: at, rest: mib.slice(i) };
    const next = at.children.get(mib[i]!);
    if (next === undefined) return undefined;
    at = next;
  }
  return { oid: at, rest: [] };
}

/** Numbers of a name; undefined if there is none. */
function nameToMib(name: string): number[] | undefined {
  const mib: number[] = [];
  let at = TREE;
  for (const part of name.split(".").filter((one) => one !== "")) {
    const next = [...at.children.values()].find((child) => child.name === part);
    if (next === undefined) {
      // A leaf that takes arguments: numbers in the name.
      if (at.row?.takesArguments !== true || !/^\d+$/.test(part)) return undefined;
      mib.push(Number(part));
      continue;
    }
    mib.push(next.number);
    at = next;
  }
  return mib.length === 0 ? undefined : mib;
}

/** Leaves in ascending order of their numbers; those that want arguments are not gone through. */
function* leaves(
  at: Oid,
  mib: readonly number[],
): Generator<{ readonly mib: readonly number[]; readonly oid: Oid }> {
  if (at.row !== undefined && at.row.takesArguments !== true) yield { mib, oid: at };
  for (const child of [...at.children.values()].sort((a, b) => a.number - b.number)) {
    yield* leaves(child, [...mib, child.number]);
  }
}

function compare(a: readonly number[], b: readonly number[]): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) if (a[i] !== b[i]) return a[i]! - b[i]!;
  return a.length - b.length;
}

function ints(values: readonly number[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Int32Array.from(values).buffer);
}

/** The questions about the tree (`sysctl.name2oid` and its kin); an error number if there is no answer. */
function meta(mib: readonly number[], given: Uint8Array | undefined): Uint8Array | number {
  const rest = mib.slice(2);
  switch (mib[1]) {
    case 1: {
      const found = find(rest);
      if (found === undefined) return ERRNO.ENOENT;
      const names: string[] = [];
      let at = TREE;
      for (const number of rest.slice(0, rest.length - found.rest.length)) {
        at = at.children.get(number)!;
        names.push(at.name);
      }
      return new TextEncoder().encode([...names, ...found.rest].join(".") + "\0");
    }
    case 2: {
      for (const { mib: leaf } of leaves(TREE, [])) if (compare(leaf, rest) > 0) return ints(leaf);
      return ERRNO.ENOENT;
    }
    case 3: {
      if (given === undefined) return ERRNO.ENOENT;
      const found = nameToMib(new TextDecoder().decode(given).replace(/\0.*$/s, ""));
      return found === undefined ? ERRNO.ENOENT : ints(found);
    }
    case 4:
    case 5: {
      const found = find(rest);
      if (found === undefined) return ERRNO.ENOENT;
      const { row } = found.oid;
      if (mib[1] === 5) return new TextEncoder().encode((row?.description ?? "") + "\0");
      const kind = (row?.type ?? CTLTYPE_NODE) | CTLFLAG_RD | (row?.set === undefined ? 0 : CTLFLAG_WR);
      return new StructWriter().u32(kind >>> 0).text(row?.format ?? FORMATS[row?.type ?? CTLTYPE_NODE]!, 8)
        .finish(1)
        .slice(0, 4 + (row?.format ?? FORMATS[row?.type ?? CTLTYPE_NODE]!).length + 1);
    }
    default:
      return ERRNO.ENOENT;
  }
}

const FORMATS: Readonly<Record<number, string>> = {
  [CTLTYPE_NODE]: "N",
  [CTLTYPE_INT]: "I",
  [CTLTYPE_LONG]: "L",
  [CTLTYPE_STRING]: "A",
  [CTLTYPE_OPAQUE]: "S",
};

function encodeValue(type: number, value: SysctlValue): Uint8Array {
  if (value instanceof Uint8Array) return value;
  if (typeof value === "string") return new TextEncoder().encode(value + "\0");
  const w = new StructWriter();
  return (type === CTLTYPE_LONG ? w.u64(value) : w.u32(value)).finish(4);
}

function decodeValue(type: number, bytes: Uint8Array): SysctlValue | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (type === CTLTYPE_STRING) return new TextDecoder().decode(bytes).replace(/\0.*$/s, "");
  if (type === CTLTYPE_INT) return bytes.length === 4 ? view.getInt32(0, true) : undefined;
  if (type === CTLTYPE_LONG) return bytes.length === 8 ? Number(view.getBigInt64(0, true)) : undefined;
  return bytes;
}

/** __sysctl(name, namelen, old, oldlenp, new, newlen) (202). */
function* sysSysctl(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const count = uap.uint(1), oldp = uap.arg(2), oldlenp = uap.arg(3), newp = uap.arg(4), newlen = uap.size(5);
  if (count < 2 || count > CTL_MAXNAME) return { error: ERRNO.EINVAL };
  const name = yield* copyin(cx, uap.arg(0), count * 4);
  if (name === undefined) return { error: ERRNO.EFAULT };
  const mib = [...new Int32Array(name.buffer)];
  let given: Uint8Array | undefined;
  if (newp !== 0n) {
    if (newlen > NEW_MAX) return { error: ERRNO.EINVAL };
    given = yield* copyin(cx, newp, newlen);
    if (given === undefined) return { error: ERRNO.EFAULT };
  }
  const old = mib[0] === 0 ? meta(mib, given) : access(cx, mib, given);
  if (typeof old === "number") return { error: old };
  return yield* copyoutOld(cx, old, oldp, oldlenp);
}

/** Reads a leaf, and sets it if a value is given. */
function access(cx: Cx, mib: readonly number[], given: Uint8Array | undefined): Uint8Array | number {
  const found = find(mib);
  if (found === undefined) return ERRNO.ENOENT;
  const { row } = found.oid;
  if (row === undefined) return ERRNO.EISDIR;
  if (found.rest.length > 0 && row.takesArguments !== true) return ERRNO.ENOTDIR;
  const value = row.get(cx, found.rest);
  if (value === undefined) return ERRNO.ESRCH;
  const old = encodeValue(row.type, value);
  if (given === undefined) return old;
  if (row.set === undefined) return ERRNO.EPERM;
  if (!isRoot(cx.proc!.pUcred)) return ERRNO.EPERM;
  const next = decodeValue(row.type, given);
  if (next === undefined) return ERRNO.EINVAL;
  const error = row.set(cx, next, found.rest);
  return error === 0 ? old : error;
}

/** Hands a value over: its size if no buffer is given, ENOMEM with what fits if it is too small. */
function* copyoutOld(cx: Cx, value: Uint8Array, oldp: bigint, oldlenp: bigint): Exec<SyscallResult> {
  if (oldlenp === 0n) return { value: 0n };
  const lengthBytes = yield* copyin(cx, oldlenp, 8);
  if (lengthBytes === undefined) return { error: ERRNO.EFAULT };
  const room = new DataView(lengthBytes.buffer).getBigUint64(0, true);
  const fits = oldp === 0n || BigInt(value.length) <= room;
  const part = oldp === 0n ? 0 : fits ? value.length : Number(room);
  if (part > 0 && (yield* copyout(cx, oldp, value.subarray(0, part))) !== 0) return { error: ERRNO.EFAULT };
  const size = new StructWriter().u64(oldp === 0n ? value.length : part).finish();
  if ((yield* copyout(cx, oldlenp, size)) !== 0) return { error: ERRNO.EFAULT };
  return fits ? { value: 0n } : { error: ERRNO.ENOMEM };
}

/** uname(name) (164): five fields of 32 bytes. */
function* sysUname(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const w = new StructWriter();
  for (const field of [OSTYPE, cx.k.hostname, OSRELEASE, VERSION, "x86_64"]) w.text(field, 32);
  return (yield* copyout(cx, uap.arg(0), w.finish(1))) === 0 ? { value: 0n } : { error: ERRNO.EFAULT };
}

/** reboot(how) (55): halts, resets or switches off. */
function* sysReboot(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  if (!isRoot(cx.proc!.pUcred)) return { error: ERRNO.EPERM };
  const { platform } = cx.k, RB_HALT = 0x8, RB_POWEROFF = 0x4000;
  if (uap.int(0) & (RB_HALT | RB_POWEROFF)) yield* platform.powerOff(cx);
  yield* platform.reset(cx);
  return { value: 0n };
}

/** System calls of this file. */
export const sysctlSyscalls: SyscallTable = [
  [55, "reboot", 1, sysReboot],
  [164, "uname", 1, sysUname],
  [202, "__sysctl", 6, sysSysctl],
];
