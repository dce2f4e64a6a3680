/**
 * mmap and its family, as system calls (`sys/vm/vm_mmap.c`).
 *
 * Room: `kernel/vm/`; imports maps, files. What brk does is in `vm_unix.ts`.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyout } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { DTYPE_VNODE, FREAD, FWRITE } from "../kern/file.ts";
import { fdrop, holdfp } from "../kern/kern_descrip.ts";
import { SYSCALL_OK, type SyscallArgs, type SyscallResult, type SyscallTable } from "../kern/sysent.ts";
import { VM_MAX_USER_ADDRESS } from "../platform/pc64/vmparam.ts";
import { pmapMincore } from "../pmap/pmap_extract.ts";
import { RLIMIT_VMEM } from "../proc/resource.ts";
import { VCHR, type Vnode, VREG } from "../vfs/vnode.ts";
import { MAP_WIREFUTURE, type VmMap, vmMapLockRead, vmMapLookupEntry, vmMapUnlockRead } from "./vm_map.ts";
import type { VmMapEntry } from "./vm_map_entry.ts";
import { vmMapFind } from "./vm_map_insert.ts";
import { vmMapCheckProtection, vmMapInherit, vmMapMadvise, vmMapProtect } from "./vm_map_protect.ts";
import { vmMapClean, vmMapRemove } from "./vm_map_remove.ts";
import { vmMapStack } from "./vm_map_stack.ts";
import { mayWireFuture, vmMapUnwire } from "./vm_map_wire.ts";
import { OBJT_VNODE, type VmObject, vmObjectDrop, vmObjectHold, vmObjectHoldShared } from "./vm_object.ts";
import { vmObjectDeallocate } from "./vm_object_terminate.ts";
import { PG_REFERENCED, vmPageLookup } from "./vm_page.ts";
import {
  KERN_FAILURE,
  KERN_INVALID_ADDRESS,
  KERN_NO_SPACE,
  KERN_PROTECTION_FAILURE,
  KERN_SUCCESS,
  MADV_SETMAP,
  MAP_ANON,
  MAP_COPY_ON_WRITE,
  MAP_DISABLE_COREDUMP,
  MAP_DISABLE_SYNCER,
  MAP_FIXED,
  MAP_INHERIT,
  MAP_NOCORE,
  MAP_NOSYNC,
  MAP_PREFAULT_PARTIAL,
  MAP_SHARED,
  MAP_STACK,
  MAP_TRYFIXED,
  MAP_VPAGETABLE,
  MCL_CURRENT,
  MCL_FUTURE,
  MINCORE_INCORE,
  MINCORE_MODIFIED_OTHER,
  MINCORE_REFERENCED_OTHER,
  MS_ASYNC,
  MS_INVALIDATE,
  offToIdx,
  PAGE_MASK,
  PAGE_SIZE,
  roundPage,
  truncPage,
  VM_INHERIT_SHARE,
  VM_MAPTYPE_NORMAL,
  VM_MAPTYPE_VPAGETABLE,
  VM_PROT_ALL,
  VM_PROT_EXECUTE,
  VM_PROT_NONE,
  VM_PROT_READ,
  VM_PROT_RW,
  VM_PROT_WRITE,
  type VmProt,
} from "./vm_param.ts";
import { VM_MAXDSIZ } from "./vm_unix.ts";
import { vnodePagerReference } from "./vnode_pager.ts";
import type { Vmspace } from "./vmspace.ts";

const { EACCES, EAGAIN, EBADF, EFAULT, EINVAL, EIO, ENOMEM, EPERM, EOPNOTSUPP } = ERRNO;

/** Largest file offset that can be mapped: page indexes must stay exact. */
const OFFSET_MAX = 1n << 52n;
/** Alignment of large mappings whose address is the kernel's choice: a page-table page covers this much. */
const SEG_SIZE = 0x20_0000n;
/** Most entries in a map, times the processes that share it (`max_proc_mmap`). */
const MAX_PROC_MMAP = 65530;
/** Bytes of vector that mincore copies out at once. */
const MINCORE_CHUNK = 4096;

function err(error: number): SyscallResult {
  return error === 0 ? SYSCALL_OK : { error };
}

function vmspaceOf(cx: Cx): Vmspace {
  const vm = cx.proc?.pVmspace;
  if (vm === undefined) throw new Error("A system call without an address space");
  return vm;
}

/** A page-aligned user range. */
interface Range {
  readonly start: bigint;
  readonly end: bigint;
}

/** The pages that `[addr, addr + len)` touches; undefined if that wraps, or leaves the user's part. */
function userRange(addr: bigint, len: bigint): Range | undefined {
  const end = addr + len;
  if (end > VM_MAX_USER_ADDRESS || roundPage(end) > VM_MAX_USER_ADDRESS) return undefined;
  return { start: truncPage(addr), end: roundPage(end) };
}

// ---- mmap

/** What is mapped. */
interface Mapping {
  readonly addr: bigint;
  readonly size: bigint;
  readonly prot: VmProt;
  readonly maxprot: VmProt;
  readonly flags: number;
  /** A regular file; undefined: anonymous memory. */
  readonly vp: Vnode | undefined;
  /** Bytes into the file, page aligned. */
  readonly foff: number;
}

function* sysMmap(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const got = yield* kernMmap(cx, vmspaceOf(cx), {
    addr: uap.arg(0),
    len: uap.arg(1),
    prot: uap.int(2),
    flags: uap.int(3),
    fd: uap.int(4),
    pos: uap.long(6),
  });
  return typeof got === "number" ? { error: got } : { value: got };
}

/** Arguments of mmap as they come from the program. */
export interface MmapArgs {
  /** Address wanted. */
  readonly addr: bigint;
  /** Bytes. */
  readonly len: bigint;
  /** PROT_*, which are VM_PROT_*. */
  readonly prot: number;
  /** MAP_*. */
  readonly flags: number;
  /** Descriptor, −1 for none. */
  readonly fd: number;
  /** Offset in the file, signed. */
  readonly pos: bigint;
}

/** mmap (`kern_mmap`): the address, or an error number. */
export function* kernMmap(cx: Cx, vm: Vmspace, args: MmapArgs): Exec<bigint | number> {
  const { len, fd } = args;
  const prot = args.prot & VM_PROT_ALL;
  let { flags, pos, addr } = args;
  if ((flags & MAP_ANON) !== 0 && (fd !== -1 || pos !== 0n)) return EINVAL;
  if (len === 0n) return EINVAL;
  if (flags & MAP_STACK) {
    if (fd !== -1 || (prot & VM_PROT_RW) !== VM_PROT_RW) return EINVAL;
    flags |= MAP_ANON;
    pos = 0n;
  }
  if (flags & MAP_VPAGETABLE) {
    if (!cx.k.vmMap.vkernelEnable) return EOPNOTSUPP;
    if ((flags & MAP_STACK) !== 0 || (prot & VM_PROT_RW) !== VM_PROT_RW) return EINVAL;
  }
  if (pos < 0n || ((flags & MAP_ANON) === 0 && pos + len > OFFSET_MAX)) return EINVAL;
  const pageoff = pos & PAGE_MASK;
  const size = roundPage(len + pageoff);
  if (size > VM_MAX_USER_ADDRESS) return (flags & (MAP_FIXED | MAP_TRYFIXED)) !== 0 ? EINVAL : ENOMEM;
  if (flags & (MAP_FIXED | MAP_TRYFIXED)) {
    addr -= pageoff;
    if ((addr & PAGE_MASK) !== 0n || addr < vm.vmMap.min || addr + size > VM_MAX_USER_ADDRESS) {
      return EINVAL;
    }
  } else {
    addr = mapHint(vm, addr);
    if (addr + size > VM_MAX_USER_ADDRESS) addr = vm.vmMap.min;
  }
  if (vm.vmMap.nentries >= MAX_PROC_MMAP * vm.vmRefcnt) return ENOMEM;
  const what = { addr, size, prot, maxprot: VM_PROT_ALL, flags, vp: undefined, foff: Number(pos - pageoff) };
  const at = flags & MAP_ANON
    ? yield* vmMmap(cx, vm, { ...what, foff: 0 })
    : yield* mmapFile(cx, vm, what, fd);
  return typeof at === "number" ? at : at + pageoff;
}

/**
 * Where the search for room begins (`vm_map_hint`): above what brk may grow into, unless the program wants something else that is not in
 * there.
 */
function mapHint(vm: Vmspace, addr: bigint): bigint {
  const heapEnd = roundPage(vm.vmDaddr + VM_MAXDSIZ);
  if (addr === 0n || (addr >= roundPage(vm.vmTaddr) && addr < heapEnd)) return heapEnd;
  return roundPage(addr);
}

/** The part of mmap that looks at the file. */
function* mmapFile(cx: Cx, vm: Vmspace, what: Mapping, fd: number): Exec<bigint | number> {
  const fp = holdfp(cx, fd, 0);
  if (fp === undefined) return EBADF;
  const rights = fp.fType === DTYPE_VNODE ? fileRights(cx, fp.fData as Vnode, fp.fFlag, what) : EINVAL;
  const at = typeof rights === "number" ? rights : yield* vmMmap(cx, vm, rights);
  // The mapping has a reference of its own to the file.
  yield* fdrop(cx, fp);
  return at;
}

/** What may be mapped of an open file, or an error number. */
function fileRights(cx: Cx, vp: Vnode, fflag: number, what: Mapping): Mapping | number {
  const { prot, flags } = what;
  if (vp.vType === VCHR) {
    // /dev/zero is another name for anonymous memory; no other device has memory to map.
    if (vp.vRdev?.siOps.dMmapZero !== true) return EINVAL;
    return { ...what, flags: flags | MAP_ANON, vp: undefined, foff: 0 };
  }
  if (vp.vType !== VREG || vp.vObject === undefined) return EINVAL;
  let maxprot = VM_PROT_EXECUTE;
  if (fflag & FREAD) maxprot |= VM_PROT_READ;
  else if (prot & VM_PROT_READ) return EACCES;
  // A private mapping is written to in memory only. A shared one needs what the open file allows.
  if ((flags & MAP_SHARED) === 0 || (fflag & FWRITE) !== 0) maxprot |= VM_PROT_WRITE;
  else if (prot & VM_PROT_WRITE) return EACCES;
  const unlinked = vp.vOps.vopGetattr(cx, vp).vaNlink === 0;
  return { ...what, maxprot, vp, flags: unlinked ? flags | MAP_NOSYNC : flags };
}

/** Maps a file or anonymous memory (`vm_mmap`): the address, or an error number. */
export function* vmMmap(cx: Cx, vm: Vmspace, what: Mapping): Exec<bigint | number> {
  const { addr, size, prot, maxprot, flags, vp, foff } = what;
  const map = vm.vmMap;
  const limit = cx.proc?.pLimit.plRlimit[RLIMIT_VMEM]?.rlimCur;
  if (limit !== undefined && map.size + size > limit) return ENOMEM;
  const fixed = (flags & (MAP_FIXED | MAP_TRYFIXED)) !== 0;
  let object: VmObject | undefined;
  let cow = 0;
  if (vp !== undefined) {
    object = vnodePagerReference(cx, vp);
    if (object === undefined) return EINVAL;
    cow = MAP_PREFAULT_PARTIAL;
    if ((flags & MAP_SHARED) === 0) cow |= MAP_COPY_ON_WRITE;
  }
  if (flags & MAP_NOSYNC) cow |= MAP_DISABLE_SYNCER;
  if (flags & MAP_NOCORE) cow |= MAP_DISABLE_COREDUMP;
  if (!mayWireFuture(cx, map, size)) {
    if (object !== undefined) yield* vmObjectDeallocate(cx, object);
    return ENOMEM;
  }
  const replace = fixed && (flags & MAP_TRYFIXED) === 0;
  let at;
  if (flags & MAP_STACK) {
    if (replace) yield* vmMapRemove(cx, map, addr, addr + size);
    at = yield* vmMapStack(cx, map, addr, size, flags, prot, maxprot, cow);
  } else {
    at = yield* vmMapFind(cx, map, {
      object,
      offset: foff,
      addr,
      length: size,
      align: !fixed && (size & (SEG_SIZE - 1n)) === 0n ? SEG_SIZE : BigInt(PAGE_SIZE),
      fitit: !fixed,
      replace,
      maptype: (flags & MAP_VPAGETABLE) !== 0 ? VM_MAPTYPE_VPAGETABLE : VM_MAPTYPE_NORMAL,
      prot,
      max: maxprot,
      cow,
      // Shared memory is shared with children too.
      ...((flags & (MAP_SHARED | MAP_INHERIT)) !== 0 ? { inheritance: VM_INHERIT_SHARE } : {}),
    });
  }
  if (at.addr === undefined) {
    if (object !== undefined) yield* vmObjectDeallocate(cx, object);
    return errnoOf(at.rv);
  }
  if (map.flags & MAP_WIREFUTURE) yield* vmMapUnwire(cx, map, at.addr, at.addr + size, false);
  return at.addr;
}

/** The error number of a KERN_*, for mmap. */
function errnoOf(rv: number): number {
  switch (rv) {
    case KERN_SUCCESS:
      return 0;
    case KERN_INVALID_ADDRESS:
    case KERN_NO_SPACE:
      return ENOMEM;
    case KERN_PROTECTION_FAILURE:
      return EACCES;
    default:
      return EINVAL;
  }
}

// ---- the others

function* sysMunmap(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  return err(yield* kernMunmap(cx, vmspaceOf(cx), uap.arg(0), uap.arg(1)));
}

/** munmap of an address space: 0 or EINVAL. */
export function* kernMunmap(cx: Cx, vm: Vmspace, addr: bigint, len: bigint): Exec<number> {
  const { vmMap: map } = vm;
  const range = userRange(addr, len);
  if (range === undefined) return EINVAL;
  const { start, end } = range;
  if (len === 0n && (addr & PAGE_MASK) === 0n) return 0;
  // As DragonFly documents: some part of the range not mapped is an error.
  if (!(yield* vmMapCheckProtection(cx, map, start, end, VM_PROT_NONE))) return EINVAL;
  yield* vmMapRemove(cx, map, start, end);
  return 0;
}

function* sysMprotect(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const range = userRange(uap.arg(0), uap.arg(1));
  if (range === undefined) return { error: EINVAL };
  const rv = yield* vmMapProtect(
    cx,
    vmspaceOf(cx).vmMap,
    range.start,
    range.end,
    uap.int(2) & VM_PROT_ALL,
    false,
  );
  return err(rv === KERN_SUCCESS ? 0 : rv === KERN_PROTECTION_FAILURE ? EACCES : EINVAL);
}

function* sysMinherit(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const range = userRange(uap.arg(0), uap.arg(1));
  if (range === undefined) return { error: EINVAL };
  const rv = yield* vmMapInherit(cx, vmspaceOf(cx).vmMap, range.start, range.end, uap.int(2));
  return err(rv === KERN_SUCCESS ? 0 : EINVAL);
}

function* sysMadvise(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  return err(yield* kernMadvise(cx, vmspaceOf(cx), uap.arg(0), uap.arg(1), uap.int(2), 0n));
}

function* sysMcontrol(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  return err(yield* kernMadvise(cx, vmspaceOf(cx), uap.arg(0), uap.arg(1), uap.int(2), uap.arg(3)));
}

/**
 * madvise and mcontrol of an address space: 0 or EINVAL.
 *
 * @param behav MADV_*.
 * @param value Of MADV_SETMAP: the root of the software page table.
 */
export function* kernMadvise(
  cx: Cx,
  vm: Vmspace,
  addr: bigint,
  len: bigint,
  behav: number,
  value: bigint,
): Exec<number> {
  const range = userRange(addr, len);
  if (behav < 0 || behav > MADV_SETMAP || range === undefined) return EINVAL;
  const rv = yield* vmMapMadvise(cx, vm.vmMap, range.start, range.end, behav, value);
  return rv === KERN_SUCCESS ? 0 : EINVAL;
}

function* sysMsync(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const map = vmspaceOf(cx).vmMap;
  const flags = uap.int(2);
  const both = MS_ASYNC | MS_INVALIDATE;
  let range = userRange(uap.arg(0), uap.arg(1));
  if ((flags & both) === both || (flags & ~both) !== 0 || range === undefined) return { error: EINVAL };
  if (uap.arg(1) === 0n) {
    // Length 0 means the whole mapping that contains the address.
    yield* vmMapLockRead(cx, map);
    const { found, entry } = vmMapLookupEntry(map, range.start);
    const { start, end } = entry;
    yield* vmMapUnlockRead(cx, map);
    if (!found) return { error: EINVAL };
    range = { start, end };
  }
  const rv = yield* vmMapClean(
    cx,
    map,
    range.start,
    range.end,
    (flags & MS_ASYNC) === 0,
    (flags & MS_INVALIDATE) !== 0,
  );
  return err(rv === KERN_SUCCESS ? 0 : rv === KERN_FAILURE ? EIO : EINVAL);
}

function* sysMlock(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const range = userRange(uap.arg(0), uap.arg(1));
  if (range === undefined) return { error: EINVAL };
  const pages = Number((range.end - range.start) / BigInt(PAGE_SIZE));
  if (pages + cx.k.vmmeter.vWireCount > cx.k.vmPages.vmPageMaxWired) return { error: EAGAIN };
  if (cx.proc?.pUcred.crUid !== 0) return { error: EPERM };
  if (pages === 0) return SYSCALL_OK;
  const rv = yield* vmMapUnwire(cx, vmspaceOf(cx).vmMap, range.start, range.end, false);
  return err(rv === KERN_SUCCESS ? 0 : ENOMEM);
}

function* sysMunlock(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const range = userRange(uap.arg(0), uap.arg(1));
  if (range === undefined) return { error: EINVAL };
  if (cx.proc?.pUcred.crUid !== 0) return { error: EPERM };
  if (range.start === range.end) return SYSCALL_OK;
  const rv = yield* vmMapUnwire(cx, vmspaceOf(cx).vmMap, range.start, range.end, true);
  return err(rv === KERN_SUCCESS ? 0 : ENOMEM);
}

/** What is mapped now, as ranges. */
function* mappedRanges(cx: Cx, map: VmMap): Exec<Range[]> {
  yield* vmMapLockRead(cx, map);
  const ranges = [...map.entries()].map(({ start, end }) => ({ start, end }));
  yield* vmMapUnlockRead(cx, map);
  return ranges;
}

function* sysMlockall(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const how = uap.int(0);
  const { vmMap: map } = vmspaceOf(cx);
  if (how === 0 || (how & ~(MCL_CURRENT | MCL_FUTURE)) !== 0) return { error: EINVAL };
  if (cx.proc?.pUcred.crUid !== 0) return { error: EPERM };
  if (how & MCL_CURRENT) {
    const ranges = yield* mappedRanges(cx, map);
    const pages = Number(ranges.reduce((sum, { start, end }) => sum + end - start, 0n) / BigInt(PAGE_SIZE));
    if (pages + cx.k.vmmeter.vWireCount > cx.k.vmPages.vmPageMaxWired) return { error: EAGAIN };
    for (const { start, end } of ranges) {
      const rv = yield* vmMapUnwire(cx, map, start, end, false);
      if (rv !== KERN_SUCCESS) return { error: ENOMEM };
    }
  }
  if (how & MCL_FUTURE) map.flags |= MAP_WIREFUTURE;
  return SYSCALL_OK;
}

function* sysMunlockall(cx: Cx, _uap: SyscallArgs): Exec<SyscallResult> {
  const { vmMap: map } = vmspaceOf(cx);
  map.flags &= ~MAP_WIREFUTURE;
  for (const { start, end } of yield* mappedRanges(cx, map)) yield* vmMapUnwire(cx, map, start, end, true);
  return SYSCALL_OK;
}

/** mincore: a byte for each page, 0 where nothing is mapped. */
function* sysMincore(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const { vmMap: map } = vmspaceOf(cx);
  const range = userRange(uap.arg(0), uap.arg(1));
  if (range === undefined) return { error: EINVAL };
  let to = uap.arg(2);
  const step = BigInt(MINCORE_CHUNK * PAGE_SIZE);
  for (let at = range.start; at < range.end; at += step) {
    const end = at + step < range.end ? at + step : range.end;
    const vector = new Uint8Array(Number((end - at) / BigInt(PAGE_SIZE)));
    yield* vmMapLockRead(cx, map);
    let { found, entry } = vmMapLookupEntry(map, at);
    if (!found) entry = entry.next;
    for (; entry !== map.header && entry.start < end; entry = entry.next) {
      yield* mincoreEntry(cx, map, entry, at, end, vector);
    }
    // copyout may fault: the map must be free.
    yield* vmMapUnlockRead(cx, map);
    if ((yield* copyout(cx, to, vector)) !== 0) return { error: EFAULT };
    to += BigInt(vector.length);
  }
  return SYSCALL_OK;
}

function* mincoreEntry(
  cx: Cx,
  map: VmMap,
  entry: VmMapEntry,
  base: bigint,
  limit: bigint,
  vector: Uint8Array,
): Exec<void> {
  const { object } = entry;
  if (object === undefined) return;
  const from = entry.start < base ? base : entry.start;
  const to = entry.end > limit ? limit : entry.end;
  if (object.type === OBJT_VNODE) yield* vmObjectHoldShared(cx, object);
  else yield* vmObjectHold(cx, object);
  for (let va = from; va < to; va += BigInt(PAGE_SIZE)) {
    let info = yield* pmapMincore(cx, map.pmap, va as Gva);
    if (info === 0) {
      const m = vmPageLookup(cx, object, offToIdx(entry.offset + Number(va - entry.start)));
      if (m !== undefined && m.valid !== 0) {
        info = MINCORE_INCORE | (m.dirty !== 0 ? MINCORE_MODIFIED_OTHER : 0) |
          ((m.flags & PG_REFERENCED) !== 0 ? MINCORE_REFERENCED_OTHER : 0);
      }
    }
    vector[Number((va - base) / BigInt(PAGE_SIZE))] = info;
  }
  vmObjectDrop(cx, object);
}

/** DragonFly's numbers. */
export const vmMmapSyscalls: SyscallTable = [
  [65, "msync", 3, sysMsync],
  [73, "munmap", 2, sysMunmap],
  [74, "mprotect", 3, sysMprotect],
  [75, "madvise", 3, sysMadvise],
  [78, "mincore", 3, sysMincore],
  [197, "mmap", 7, sysMmap],
  [203, "mlock", 2, sysMlock],
  [204, "munlock", 2, sysMunlock],
  [250, "minherit", 3, sysMinherit],
  [324, "mlockall", 1, sysMlockall],
  [325, "munlockall", 0, sysMunlockall],
  [485, "mcontrol", 4, sysMcontrol],
];
