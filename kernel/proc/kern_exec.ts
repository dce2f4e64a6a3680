/**
 * execve (`sys/kern/kern_exec.c`): a file becomes the current process's program.
 *
 * Room: `kernel/proc/`; imports files, address spaces, descriptors. What a file is, is decided by the activators (imgact.ts).
 *
 * Until {@link execNewVmspace} nothing has changed and any error is the caller's; behind it there is no program to return to, and a
 * failure ends the process with SIGABRT.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, copyinstr, copyout } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { fdcloseexec } from "../kern/kern_descrip.ts";
import { EJUSTRETURN, type SyscallArgs, type SyscallResult, type SyscallTable } from "../kern/sysent.ts";
import { calloutStop } from "../lwkt/callout.ts";
import { decodeTrapframe, encodeTrapframe, TF_BYTES } from "../platform/pc64/frame.ts";
import { pmapRemovePages } from "../pmap/pmap_remove.ts";
import { MAXPATHLEN } from "../vfs/nlookup.ts";
import { vrele } from "../vfs/vfs_subr.ts";
import { vnOpenExec, vnReadBytes } from "../vfs/vfs_vnops.ts";
import { type Vnode, VTEXT } from "../vfs/vnode.ts";
import { vmMapLock, vmMapLookupEntry, vmMapUnlock } from "../vm/vm_map.ts";
import { MAP_RESERVE_COUNT, vmMapEntryRelease, vmMapEntryReserve } from "../vm/vm_map_entry.ts";
import { vmMapInsert } from "../vm/vm_map_insert.ts";
import { vmMapRemove } from "../vm/vm_map_remove.ts";
import { vmMapStack } from "../vm/vm_map_stack.ts";
import {
  KERN_SUCCESS,
  MAP_FIXED,
  VM_INHERIT_SHARE,
  VM_PROT_ALL,
  VM_PROT_EXECUTE,
  VM_PROT_READ,
  VM_PROT_RW,
} from "../vm/vm_param.ts";
import { vkernelExit } from "../vm/vm_vmspace_entry.ts";
import { vmspaceExec } from "../vm/vmspace.ts";
import { vmxThreadDestroy } from "../vmm/vmx_vmcs.ts";
import { ImageParams, NOT_MINE } from "./imgact.ts";
import { exit1, killalllwps, lwpExit, releaseParent } from "./kern_exit.ts";
import { MAXCOMLEN, P_EXEC, P_SUGID, P_WEXIT, type Proc } from "./proc.ts";
import { PSL_USERSET } from "./psl.ts";
import { RLIM_INFINITY, RLIMIT_STACK } from "./resource.ts";
import { SIGABRT, Sigacts } from "./signal.ts";
import { sigtrampObject } from "./sigtramp.ts";

/** Most bytes of arguments and environment, zero bytes included (`ARG_MAX`). */
export const ARG_MAX = 0x4_0000;
/** Largest stack (`maxssiz`). */
export const MAXSSIZ: bigint = 512n << 20n;
/** Bytes of `struct ps_strings`. */
const PS_STRINGS_BYTES = 32n;
const PAGE_SIZE = 4096;

/** What is to be executed, in kernel memory. */
export interface ExecArgs {
  readonly path: string;
  readonly argv: readonly Uint8Array[];
  readonly envv: readonly Uint8Array[];
}

/**
 * Replaces the current process's program (`kern_execve`).
 *
 * @returns 0: the frame is the new program's; or an error number, and nothing has changed.
 */
export function* kernExecve(cx: Cx, args: ExecArgs): Exec<number> {
  const p = cx.proc!;
  // Of two threads that change everything only one goes on.
  if (p.pFlags & P_WEXIT) return yield* lwpExit(cx);
  const opened = yield* openImage(cx, args.path);
  if (typeof opened === "number") return opened;
  const imgp = new ImageParams(args.path, opened.vp, opened.header, [...args.argv], args.envv);
  let error = yield* activate(cx, imgp);
  if (error === 0 && imgp.interpreted) {
    // The interpreter, once: it is not looked up again for an interpreter of its own.
    yield* closeImage(cx, imgp.vp);
    const interpreter = yield* openImage(cx, imgp.path);
    if (typeof interpreter === "number") return interpreter;
    imgp.vp = interpreter.vp;
    imgp.header = interpreter.header;
    error = yield* activate(cx, imgp);
  }
  if (error === 0) error = yield* finish(cx, p, imgp);
  if (error === 0) return 0;
  yield* closeImage(cx, imgp.vp);
  if (imgp.vmspaceDestroyed) return yield* exit1(cx, SIGABRT);
  return error;
}

function* openImage(
  cx: Cx,
  path: string,
): Exec<{ readonly vp: Vnode; readonly header: Uint8Array } | number> {
  const vp = yield* vnOpenExec(cx, path);
  if (typeof vp === "number") return vp;
  const header = yield* vnReadBytes(cx, vp, 0, PAGE_SIZE);
  if (typeof header !== "number") return { vp, header };
  yield* closeImage(cx, vp);
  return header;
}

/** Lets go of a file that is not executed after all. */
function* closeImage(cx: Cx, vp: Vnode): Exec<void> {
  if (vp.vObject === undefined || vp.vObject.refCount === 0) vp.vFlag &= ~VTEXT;
  yield* vrele(cx, vp);
}

/** Asks the activators; ENOEXEC if none knows the file. */
function* activate(cx: Cx, imgp: ImageParams): Exec<number> {
  for (const activator of cx.k.imageActivators) {
    const error = yield* activator(cx, imgp);
    if (error !== NOT_MINE) return error;
  }
  return ERRNO.ENOEXEC;
}

/** The rest, when the image is mapped: stack, registers, and what of the process does not outlive an exec. */
function* finish(cx: Cx, p: Proc, imgp: ImageParams): Exec<number> {
  const lp = cx.lwp!;
  const stack = yield* copyoutStrings(cx, imgp);
  if (stack === undefined) return ERRNO.EFAULT;
  yield* fdcloseexec(cx, p);
  if (p.pSigacts.psRefcnt > 1) {
    p.pSigacts.psRefcnt--;
    p.pSigacts = new Sigacts(p.pSigacts);
  }
  p.pSigacts.execsigs();
  lp.lwpSigstk = { ssSp: 0n, ssSize: 0n, ssFlags: 4 };
  lp.lwpClearTid = 0n;
  p.pEmuldata = undefined;
  for (const timer of p.pTimer.slice(1)) timer.value = timer.interval = 0;
  if (p.pIthandle !== undefined && p.pTimer[0].value === 0) calloutStop(cx, p.pIthandle);
  setIds(cx, p, imgp);
  const old = p.pTextvp;
  p.pTextvp = imgp.vp;
  if (old !== undefined) yield* vrele(cx, old);
  p.pComm = imgp.path.slice(imgp.path.lastIndexOf("/") + 1).slice(0, MAXCOMLEN);
  cx.td.tdComm = p.pComm;
  p.pArgs = imgp.argv.map((arg) => new TextDecoder().decode(arg));
  p.pSysent = imgp.sysent;
  p.pFlags |= P_EXEC;
  releaseParent(cx, p);
  yield* execSetregs(cx, imgp.entry, stack);
  return 0;
}

/** Set-user-id and set-group-id files (`exec_fail` part on credentials). */
function setIds(cx: Cx, p: Proc, imgp: ImageParams): void {
  const attr = imgp.vp.vOps.vopGetattr(cx, imgp.vp), cred = p.pUcred;
  const setuid = (attr.vaMode & 0o4000) !== 0, setgid = (attr.vaMode & 0o2000) !== 0;
  p.pFlags &= ~P_SUGID;
  const crUid = setuid ? attr.vaUid : cred.crUid;
  const gid = setgid ? attr.vaGid : cred.crGroups[0]!;
  if (crUid !== cred.crUid || gid !== cred.crGroups[0]) p.pFlags |= P_SUGID;
  p.pUcred = { ...cred, crUid, crSvuid: crUid, crGroups: [gid, ...cred.crGroups.slice(1)], crSvgid: gid };
}

/**
 * The point of no return (`exec_new_vmspace`): the process's other threads end, its address space becomes an empty one with a stack and the
 * signal trampoline.
 *
 * @returns 0 or ENOMEM.
 */
export function* execNewVmspace(cx: Cx, imgp: ImageParams): Exec<number> {
  const p = cx.proc!;
  yield* killalllwps(cx, true);
  imgp.vmspaceDestroyed = true;
  // The address spaces of a vkernel's processes are no business of the new program.
  yield* vkernelExit(cx, p);
  let vm = p.pVmspace!;
  const vmm = p.pVmm !== undefined;
  yield* vmxThreadDestroy(cx, cx.lwp!);
  // The tables of VMM mode are no process's that is in none.
  if (vm.vmRefcnt === 1 && !vmm) {
    yield* pmapRemovePages(cx, vm.vmPmap, vm.vmMap.min, vm.vmMap.max);
    yield* vmMapRemove(cx, vm.vmMap, vm.vmMap.min, vm.vmMap.max);
  } else {
    yield* vmspaceExec(cx, p);
    vm = p.pVmspace!;
  }
  const map = vm.vmMap;
  map.flags = 0;
  vm.vmTsize = vm.vmDsize = 0n;
  vm.vmTaddr = vm.vmDaddr = 0n as Gva;
  const top = map.max - BigInt(PAGE_SIZE);
  const code = yield* sigtrampObject(cx);
  const count = vmMapEntryReserve(MAP_RESERVE_COUNT);
  yield* vmMapLock(cx, map);
  const rv = yield* vmMapInsert(cx, map, count, {
    object: code,
    start: top,
    end: map.max,
    prot: VM_PROT_READ | VM_PROT_EXECUTE,
    max: VM_PROT_READ | VM_PROT_EXECUTE,
  });
  vmMapLookupEntry(map, top).entry.inheritance = VM_INHERIT_SHARE;
  yield* vmMapUnlock(cx, map);
  vmMapEntryRelease(count);
  if (rv !== KERN_SUCCESS) return ERRNO.ENOMEM;
  const limit = p.pLimit.plRlimit[RLIMIT_STACK]!.rlimMax;
  const size = limit >= RLIM_INFINITY || limit > MAXSSIZ ? MAXSSIZ : limit & ~0xfffn;
  if (size === 0n) return ERRNO.ENOMEM;
  const mapped = yield* vmMapStack(cx, map, top - size, size, MAP_FIXED, VM_PROT_RW, VM_PROT_ALL);
  if (mapped.rv !== KERN_SUCCESS) return ERRNO.ENOMEM;
  vm.vmMaxsaddr = (top - size) as Gva;
  vm.vmMinsaddr = top as Gva;
  vm.vmSsize = 0x2_0000n;
  return 0;
}

/**
 * Writes strings and vectors to the top of the stack (`exec_copyout_strings`, `elf_fixup`). Upwards from what RSP will be:
 *
 *     argc   argv[] 0   envp[] 0   auxv[] 0,0   …   auxiliary bytes   strings   ps_strings
 *
 * @returns The stack pointer, 16-byte aligned; undefined if the stack does not take it.
 */
function* copyoutStrings(cx: Cx, imgp: ImageParams): Exec<bigint | undefined> {
  const { argv, envv, aux } = imgp;
  const top = cx.proc!.pVmspace!.vmMinsaddr;
  let at = top - PS_STRINGS_BYTES;
  const pieces: { readonly at: bigint; readonly bytes: Uint8Array }[] = [];
  const place = (bytes: Uint8Array, zero: boolean): bigint => {
    at -= BigInt(bytes.length + (zero ? 1 : 0));
    pieces.push({ at, bytes });
    return at;
  };
  const place16 = (bytes: Uint8Array): bigint => {
    at = (at - BigInt(bytes.length)) & ~15n;
    pieces.push({ at, bytes });
    return at;
  };
  // The last string goes highest, so that they stand in their order, arguments first.
  const envp = envv.toReversed().map((string) => place(string, true)).reverse();
  const argp = argv.toReversed().map((string) => place(string, true)).reverse();
  const auxv = aux.flatMap((
    { type, value },
  ) => [BigInt(type), typeof value === "bigint" ? value : place16(value)]);
  const vectors = [BigInt(argv.length), ...argp, 0n, ...envp, 0n, ...auxv, 0n, 0n];
  const rsp = (at - BigInt(vectors.length * 8)) & ~15n;

  const image = new Uint8Array(Number(top - rsp)), view = new DataView(image.buffer);
  vectors.forEach((word, i) => view.setBigUint64(i * 8, word, true));
  for (const piece of pieces) image.set(piece.bytes, Number(piece.at - rsp));
  const ps = image.length - Number(PS_STRINGS_BYTES);
  view.setBigUint64(ps, rsp + 8n, true);
  view.setInt32(ps + 8, argv.length, true);
  view.setBigUint64(ps + 16, rsp + BigInt(8 * (argv.length + 2)), true);
  view.setInt32(ps + 24, envv.length, true);
  return (yield* copyout(cx, rsp, image)) === 0 ? rsp : undefined;
}

/** Registers of a program at its start (`exec_setregs`): all zero but RIP, RSP and RDI, which points at argc. */
function* execSetregs(cx: Cx, entry: bigint, stack: bigint): Exec<void> {
  const at = cx.lwp!.lwpMdRegs as Gva, { platform } = cx.k;
  const now = decodeTrapframe(yield* cx.cpu.loadBytes(at, TF_BYTES));
  const frame = encodeTrapframe({
    rip: entry,
    rsp: stack,
    rdi: stack,
    rflags: PSL_USERSET,
    cs: now.cs,
    ss: now.ss,
    xflags: now.xflags,
  });
  yield* cx.cpu.storeBytes(at, frame);
  yield* platform.setTls(cx, 0n);
  yield* platform.setGsbase(cx, 0n);
  yield* platform.restoreFpu(cx, undefined);
}

// ---- the system call

/** A string's bytes without its zero; undefined: EFAULT; null: longer than `max`. */
function* copyinBytes(cx: Cx, from: bigint, max: number): Exec<Uint8Array | undefined | null> {
  const pieces: Uint8Array[] = [];
  for (let total = 0, at = from; total < max;) {
    // Never past the page that the string is known to reach.
    const room = Math.min(PAGE_SIZE - Number(at & 0xfffn), 256);
    const piece = yield* copyin(cx, at, room);
    if (piece === undefined) return undefined;
    const zero = piece.indexOf(0);
    pieces.push(zero < 0 ? piece : piece.subarray(0, zero));
    total += pieces.at(-1)!.length;
    if (zero >= 0) return total < max ? concat(pieces, total) : null;
    at += BigInt(room);
  }
  return null;
}

function concat(pieces: readonly Uint8Array[], total: number): Uint8Array {
  const out = new Uint8Array(total);
  let at = 0;
  for (const piece of pieces) {
    out.set(piece, at);
    at += piece.length;
  }
  return out;
}

/** Copies a vector of strings in; an error number if it cannot. `budget` is what is left of ARG_MAX. */
function* copyinVector(cx: Cx, from: bigint, budget: { left: number }): Exec<Uint8Array[] | number> {
  const strings: Uint8Array[] = [];
  if (from === 0n) return strings;
  for (let at = from;; at += 8n) {
    const word = yield* copyin(cx, at, 8);
    if (word === undefined) return ERRNO.EFAULT;
    const pointer = new DataView(word.buffer).getBigUint64(0, true);
    if (pointer === 0n) return strings;
    budget.left -= 8;
    if (budget.left <= 0) return ERRNO.E2BIG;
    const string = yield* copyinBytes(cx, pointer, budget.left);
    if (string === undefined) return ERRNO.EFAULT;
    if (string === null) return ERRNO.E2BIG;
    budget.left -= string.length + 1;
    strings.push(string);
  }
}

/** Copies in what execve is given. */
export function* copyinExecArgs(cx: Cx, path: bigint, argv: bigint, envv: bigint): Exec<ExecArgs | number> {
  const name = yield* copyinstr(cx, path, MAXPATHLEN);
  if (typeof name === "number") return name;
  if (argv === 0n) return ERRNO.EFAULT;
  const budget = { left: ARG_MAX };
  const args = yield* copyinVector(cx, argv, budget);
  if (typeof args === "number") return args;
  const env = yield* copyinVector(cx, envv, budget);
  return typeof env === "number" ? env : { path: name, argv: args, envv: env };
}

/** execve(path, argv, envp) (59). */
function* sysExecve(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const args = yield* copyinExecArgs(cx, uap.arg(0), uap.arg(1), uap.arg(2));
  if (typeof args === "number") return { error: args };
  const error = yield* kernExecve(cx, args);
  return { error: error === 0 ? EJUSTRETURN : error };
}

/** System calls of this file. */
export const execSyscalls: SyscallTable = [[59, "execve", 3, sysExecve]];
