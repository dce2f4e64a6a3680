/**
 * Linux's system calls about memory.
 *
 * Room: `kernel/linux/`; imports DragonFly's maps.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { ERRNO } from "../kern/errno.ts";
import type { SyscallArgs, SyscallResult, SyscallTable } from "../kern/sysent.ts";
import { VM_MAX_USER_ADDRESS } from "../platform/pc64/vmparam.ts";
import { type VmMap, vmMapLockRead, vmMapLookupEntry, vmMapUnlockRead } from "../vm/vm_map.ts";
import type { VmMapEntry } from "../vm/vm_map_entry.ts";
import { vmMapFind } from "../vm/vm_map_insert.ts";
import { vmMapCheckProtection } from "../vm/vm_map_protect.ts";
import { vmMapRemove } from "../vm/vm_map_remove.ts";
import { kernMmap } from "../vm/vm_mmap.ts";
import { type VmObject, vmObjectIsAnonymous, vmObjectReferenceQuick } from "../vm/vm_object.ts";
import { vmObjectDeallocate } from "../vm/vm_object_terminate.ts";
import * as vm from "../vm/vm_param.ts";
import { kernObreak } from "../vm/vm_unix.ts";
import { emuldata } from "./linux_emul.ts";
import { callNative, mapped, result, same } from "./linux_native.ts";

const { PAGE_MASK, roundPage, KERN_SUCCESS } = vm;
const INVALID: SyscallResult = { error: ERRNO.EINVAL };
const NOMEM: SyscallResult = { error: ERRNO.ENOMEM };
const OK: SyscallResult = { value: 0n };

const MAP_TYPE = 0xf, MAP_SHARED = 1, MAP_PRIVATE = 2, MAP_SHARED_VALIDATE = 3;
const MAP_FIXED = 0x10, MAP_ANONYMOUS = 0x20, MAP_HUGETLB = 0x4_0000, MAP_FIXED_NOREPLACE = 0x10_0000;

/** mmap(addr, len, prot, flags, fd, offset). MAP_GROWSDOWN, MAP_LOCKED and MAP_POPULATE are taken and do nothing. */
function* mmap(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const given = uap.int(3), type = given & MAP_TYPE, pos = uap.long(5);
  const anonymous = (given & MAP_ANONYMOUS) !== 0;
  if (type !== MAP_SHARED && type !== MAP_PRIVATE && type !== MAP_SHARED_VALIDATE) return INVALID;
  if (pos & PAGE_MASK || given & MAP_HUGETLB) return INVALID;
  let flags = type === MAP_PRIVATE ? vm.MAP_PRIVATE : vm.MAP_SHARED;
  if (anonymous) flags |= vm.MAP_ANON;
  const keep = (given & MAP_FIXED_NOREPLACE) !== 0;
  if (keep) flags |= vm.MAP_TRYFIXED;
  else if (given & MAP_FIXED) flags |= vm.MAP_FIXED;
  const at = yield* kernMmap(cx, cx.proc!.pVmspace!, {
    addr: uap.arg(0),
    len: uap.arg(1),
    prot: uap.int(2),
    flags,
    fd: anonymous ? -1 : uap.int(4),
    pos: anonymous ? 0n : pos,
  });
  if (typeof at === "bigint") return { value: at };
  return { error: keep && at === ERRNO.ENOMEM ? ERRNO.EEXIST : at };
}

/** The pages of a range; undefined: not aligned, or not the user's. */
function pages(start: bigint, len: bigint): { readonly start: bigint; readonly end: bigint } | undefined {
  const end = roundPage(start + len);
  return (start & PAGE_MASK) !== 0n || len > VM_MAX_USER_ADDRESS || end > VM_MAX_USER_ADDRESS
    ? undefined
    : { start, end };
}

/** munmap(addr, len): what is not mapped does not matter. */
function* munmap(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const range = pages(uap.arg(0), uap.arg(1));
  if (range === undefined || uap.arg(1) === 0n) return INVALID;
  yield* vmMapRemove(cx, cx.proc!.pVmspace!.vmMap, range.start, range.end);
  return OK;
}

/** Whether every page of a range is mapped; 0 or the error of Linux's calls that want it so. */
function* mustBeMapped(cx: Cx, start: bigint, len: bigint): Exec<number> {
  if (start & PAGE_MASK) return ERRNO.EINVAL;
  const range = pages(start, len), map = cx.proc!.pVmspace!.vmMap;
  if (range === undefined) return ERRNO.ENOMEM;
  const mapped = yield* vmMapCheckProtection(cx, map, range.start, range.end, vm.VM_PROT_NONE);
  return mapped ? 0 : ERRNO.ENOMEM;
}

/** mprotect(addr, len, prot): if a part is not mapped nothing is changed (Linux changes what stands before it). */
function* mprotect(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const error = yield* mustBeMapped(cx, uap.arg(0), uap.arg(1));
  if (error !== 0) return { error };
  const done = yield* callNative(cx, 74, uap.arg(0), uap.arg(1), uap.int(2) & 7);
  return "error" in done && done.error === ERRNO.EINVAL ? NOMEM : done;
}

/** brk(end): the new end of the heap, or the old one if it stays. */
function* brk(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const p = cx.proc!, emul = emuldata(cx), end = uap.arg(0);
  if (end !== 0n && (yield* kernObreak(cx, p, p.pVmspace!, end)) === 0) emul.brk = end;
  return { value: emul.brk };
}

// ---- mremap

const MREMAP_MAYMOVE = 1, MREMAP_FIXED = 2;

/** A piece of a mapping, with what a new one of the same memory needs. */
interface Piece {
  readonly start: bigint;
  readonly end: bigint;
  readonly object: VmObject | undefined;
  readonly offset: number;
  readonly prot: number;
  readonly max: number;
  readonly inheritance: number;
  readonly cow: number;
  readonly anonymous: boolean;
}

/** Whether nobody but this address space (and copies of it) can see the memory, and no file is behind it. */
function isPrivateAnonymous(entry: VmMapEntry): boolean {
  if (entry.inheritance === vm.VM_INHERIT_SHARE || entry.maptype !== vm.VM_MAPTYPE_NORMAL) return false;
  if (entry.eflags & vm.MAP_ENTRY_STACK) return false;
  for (let object = entry.object; object !== undefined; object = object.backingObject) {
    if (!vmObjectIsAnonymous(object)) return false;
  }
  return true;
}

function pieceOf(entry: VmMapEntry, start: bigint, end: bigint): Piece {
  const from = entry.start > start ? entry.start : start;
  return {
    start: from,
    end: entry.end < end ? entry.end : end,
    object: entry.object,
    offset: entry.offset + Number(from - entry.start),
    prot: entry.protection,
    max: entry.maxProtection,
    inheritance: entry.inheritance,
    cow: entry.eflags & vm.MAP_ENTRY_COW ? vm.MAP_COPY_ON_WRITE : 0,
    anonymous: isPrivateAnonymous(entry),
  };
}

/** The pieces of mappings in a range, in order; holes are left out. With `hold`, each object has a reference more. */
function* piecesOf(cx: Cx, map: VmMap, start: bigint, end: bigint, hold: boolean): Exec<Piece[]> {
  yield* vmMapLockRead(cx, map);
  const found: Piece[] = [];
  const at = vmMapLookupEntry(map, start);
  for (
    let entry = at.found ? at.entry : at.entry.next;
    entry !== map.header && entry.start < end;
    entry = entry.next
  ) {
    const piece = pieceOf(entry, start, end);
    if (hold && piece.object !== undefined) vmObjectReferenceQuick(cx, piece.object);
    found.push(piece);
  }
  yield* vmMapUnlockRead(cx, map);
  return found;
}

/** Bytes that follow a piece in its memory, mapped at `at`; false if there is no room, or if its memory ends there. */
function* extendAt(cx: Cx, map: VmMap, piece: Piece, at: bigint, length: bigint): Exec<boolean> {
  const { object, prot, max, inheritance, anonymous, cow } = piece;
  if (anonymous) {
    return (yield* vmMapFind(cx, map, { addr: at, length, fitit: false, prot, max, inheritance })).addr !==
      undefined;
  }
  if (object === undefined || object.handle === undefined) return false;
  vmObjectReferenceQuick(cx, object);
  const offset = piece.offset + Number(piece.end - piece.start);
  const made = yield* vmMapFind(cx, map, {
    object,
    offset,
    addr: at,
    length,
    fitit: false,
    prot,
    max,
    inheritance,
    cow,
  });
  if (made.addr === undefined) yield* vmObjectDeallocate(cx, object);
  return made.addr !== undefined;
}

/** Whether the pieces lie side by side and are the whole range. */
function covers(pieces: readonly Piece[], start: bigint, end: bigint): boolean {
  let at = start;
  for (const piece of pieces) {
    if (piece.start !== at) return false;
    at = piece.end;
  }
  return at === end;
}

/**
 * mremap(old, old_len, new_len, flags, new): a mapping is made larger or smaller, or goes elsewhere. Its memory is mapped a second time at
 * the new place, and then no more at the old one: no page is copied.
 *
 * Simpler than real: anonymous memory that is shared cannot grow, and an old length of 0 (a second mapping) is EINVAL.
 */
function* mremap(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const old = uap.arg(0), flags = uap.int(3), fixed = (flags & MREMAP_FIXED) !== 0, to = uap.arg(4);
  const from = pages(old, uap.arg(1)), wanted = pages(fixed ? to : 0n, uap.arg(2));
  if (flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED) || (fixed && (flags & MREMAP_MAYMOVE) === 0)) return INVALID;
  if (from === undefined || wanted === undefined || uap.arg(1) === 0n || uap.arg(2) === 0n) return INVALID;
  const oldLength = from.end - from.start, length = wanted.end - wanted.start;
  if (fixed && to < from.end && from.start < wanted.end) return INVALID;
  const map = cx.proc!.pVmspace!.vmMap;
  const moved = oldLength < length ? oldLength : length;
  let held = yield* piecesOf(cx, map, old, old + moved, true);
  if (!covers(held, old, old + moved)) return yield* giveUp(cx, held, ERRNO.EFAULT);
  if (!fixed) {
    const last = held.at(-1)!;
    // One reference more would keep the kernel from making an anonymous object larger.
    if (last.anonymous || length <= oldLength) held = yield* release(cx, held);
    if (length < oldLength) yield* vmMapRemove(cx, map, old + length, from.end);
    if (length <= oldLength || (yield* extendAt(cx, map, last, from.end, length - oldLength))) {
      yield* release(cx, held);
      return { value: old };
    }
    if ((flags & MREMAP_MAYMOVE) === 0) return yield* giveUp(cx, held, ERRNO.ENOMEM);
    if (held.length === 0) held = yield* piecesOf(cx, map, old, old + moved, true);
    if (!covers(held, old, old + moved)) return yield* giveUp(cx, held, ERRNO.EFAULT);
  }
  return yield* move(cx, map, held, { from, moved, length, to: fixed ? to : undefined });
}

/** Gives the references of pieces back; gives no pieces. */
function* release(cx: Cx, pieces: readonly Piece[]): Exec<Piece[]> {
  for (const { object } of pieces) if (object !== undefined) yield* vmObjectDeallocate(cx, object);
  return [];
}

function* giveUp(cx: Cx, pieces: readonly Piece[], error: number): Exec<SyscallResult> {
  yield* release(cx, pieces);
  return { error };
}

/** Where a mapping goes. */
interface Move {
  readonly from: { readonly start: bigint; readonly end: bigint };
  /** Bytes that are there already. */
  readonly moved: bigint;
  readonly length: bigint;
  /** Undefined: anywhere. */
  readonly to: bigint | undefined;
}

/** The moving part of mremap. The pieces' objects have references that are given away here. */
function* move(
  cx: Cx,
  map: VmMap,
  pieces: readonly Piece[],
  { from, moved, length, to }: Move,
): Exec<SyscallResult> {
  // Room for all of it first.
  const room = yield* kernMmap(cx, cx.proc!.pVmspace!, {
    addr: to ?? 0n,
    len: length,
    prot: 0,
    flags: vm.MAP_PRIVATE | vm.MAP_ANON | (to === undefined ? 0 : vm.MAP_FIXED),
    fd: -1,
    pos: 0n,
  });
  if (typeof room === "number") return yield* giveUp(cx, pieces, room);
  for (const [i, piece] of pieces.entries()) {
    const { object, offset, prot, max, inheritance, cow } = piece;
    const there = yield* vmMapFind(cx, map, {
      object,
      offset,
      addr: room + (piece.start - from.start),
      length: piece.end - piece.start,
      fitit: false,
      replace: true,
      prot,
      max,
      inheritance,
      cow,
    });
    if (there.addr !== undefined) continue;
    yield* vmMapRemove(cx, map, room, room + length);
    return yield* giveUp(cx, pieces.slice(i), ERRNO.ENOMEM);
  }
  if (length > moved) {
    yield* vmMapRemove(cx, map, room + moved, room + length);
    if (!(yield* extendAt(cx, map, pieces.at(-1)!, room + moved, length - moved))) {
      yield* vmMapRemove(cx, map, room, room + moved);
      return NOMEM;
    }
  }
  yield* vmMapRemove(cx, map, from.start, from.end);
  return { value: room };
}

// ---- advice

const MADV_DONTNEED = 4;
/** Advice that DragonFly has under the same or another number. */
const ADVICE: ReadonlyMap<number, number> = new Map([
  [0, vm.MADV_NORMAL],
  [1, vm.MADV_RANDOM],
  [2, vm.MADV_SEQUENTIAL],
  [3, vm.MADV_WILLNEED],
  [8, vm.MADV_FREE],
  [16, vm.MADV_NOCORE],
  [17, vm.MADV_CORE],
]);
/** Highest advice that Linux knows. */
const ADVICE_MAX = 25;

/**
 * madvise(addr, len, advice). On Linux MADV_DONTNEED is no advice: private anonymous memory reads as zeros afterwards. Other memory stays
 * as it is (a private mapping of a file keeps what was written to it, which Linux would forget).
 */
function* madvise(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const advice = uap.int(2), range = pages(uap.arg(0), uap.arg(1));
  if (range === undefined || advice < 0 || advice > ADVICE_MAX) return INVALID;
  if (advice !== MADV_DONTNEED) {
    const native = ADVICE.get(advice);
    return native === undefined ? OK : yield* callNative(cx, 75, uap.arg(0), uap.arg(1), native);
  }
  const map = cx.proc!.pVmspace!.vmMap;
  for (const piece of yield* piecesOf(cx, map, range.start, range.end, false)) {
    if (!piece.anonymous) continue;
    const { start, end, prot, max, inheritance } = piece;
    const made = yield* vmMapFind(cx, map, {
      addr: start as Gva,
      length: end - start,
      fitit: false,
      replace: true,
      prot,
      max,
      inheritance,
    });
    if (made.rv !== KERN_SUCCESS) return NOMEM;
  }
  return OK;
}

const MS_ASYNC = 1, MS_INVALIDATE = 2, MS_SYNC = 4;

/** msync(addr, len, flags). */
function* msync(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const flags = uap.int(2), both = MS_ASYNC | MS_SYNC;
  if (flags & ~(both | MS_INVALIDATE) || (flags & both) === both || uap.arg(0) & PAGE_MASK) return INVALID;
  // Length 0 is nothing here, and the whole mapping on DragonFly; and DragonFly does not take both of its flags.
  if (uap.arg(1) === 0n || flags & MS_ASYNC) return OK;
  const done = yield* callNative(
    cx,
    65,
    uap.arg(0),
    uap.arg(1),
    flags & MS_INVALIDATE ? vm.MS_INVALIDATE : 0,
  );
  return "error" in done && done.error === ERRNO.EINVAL ? NOMEM : done;
}

/** mincore(addr, len, vec): DragonFly's byte for each page says more, Linux's only whether it is there. */
function* mincore(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const error = yield* mustBeMapped(cx, uap.arg(0), uap.arg(1));
  return error !== 0 ? { error } : yield* callNative(cx, 78, uap.arg(0), uap.arg(1), uap.arg(2));
}

/** System calls of this file. */
export const linuxMmapSyscalls: SyscallTable = [
  [9, "mmap", 6, mmap],
  [10, "mprotect", 3, mprotect],
  [11, "munmap", 2, munmap],
  [12, "brk", 1, brk],
  [25, "mremap", 5, mremap],
  [26, "msync", 3, msync],
  [27, "mincore", 3, mincore],
  [28, "madvise", 3, madvise],
  same(149, "mlock", 2, 203),
  same(150, "munlock", 2, 204),
  mapped(151, "mlockall", 1, 324, (uap) => [uap.int(0) & 3]),
  [152, "munlockall", 0, function* (cx): Exec<SyscallResult> {
    const done = yield* callNative(cx, 325);
    return "error" in done ? done : result(0);
  }],
];
