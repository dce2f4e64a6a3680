/**
 * Stacks: mappings that grow downwards (`vm_map_stack`, `vm_map_growstack` of `sys/vm/vm_map.c`).
 *
 * Room: `kernel/vm/`; imports maps.
 *
 *     addrbos                     start                end
 *        │◄────── aux ────────────►│◄──── mapped ──────►│
 *        reserved by findspace only: a mapping at a fixed address may take it, which limits the growth
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import type { Proc } from "../proc/proc.ts";
import { RLIMIT_STACK } from "../proc/resource.ts";
import {
  MAP_WIREFUTURE,
  type VmMap,
  vmMapLock,
  vmMapLockRead,
  vmMapLockUpgrade,
  vmMapLookupEntry,
  vmMapUnlock,
} from "./vm_map.ts";
import { MAP_RESERVE_COUNT, type VmMapEntry, vmMapEntryRelease, vmMapEntryReserve } from "./vm_map_entry.ts";
import { vmMapFindspace, vmMapInsert } from "./vm_map_insert.ts";
import { vmMapUnwire } from "./vm_map_wire.ts";
import {
  KERN_NO_SPACE,
  KERN_SUCCESS,
  MAP_ENTRY_STACK,
  MAP_ENTRY_USER_WIRED,
  MAP_FIXED,
  MAP_IS_STACK,
  MAP_STACK,
  MAP_TRYFIXED,
  PAGE_SIZE,
  type VmProt,
} from "./vm_param.ts";
import type { MapAt } from "./vm_map_insert.ts";
import type { Vmspace } from "./vmspace.ts";

/** Bytes by which a stack grows at least (`sgrowsiz`). */
export const SGROWSIZ = 0x2_0000n;

/** Maps a stack of up to `maxSsize` bytes from `addrbos` up (`vm_map_stack`): at first only its top {@link SGROWSIZ} bytes exist. */
export function* vmMapStack(
  cx: Cx,
  map: VmMap,
  addrbos: bigint,
  maxSsize: bigint,
  flags: number,
  prot: VmProt,
  max: VmProt,
  cow = 0,
): Exec<MapAt> {
  const count = vmMapEntryReserve(MAP_RESERVE_COUNT);
  const init = maxSsize < SGROWSIZ ? maxSsize : SGROWSIZ;
  yield* vmMapLock(cx, map);
  let at: bigint | undefined = addrbos;
  if ((flags & (MAP_FIXED | MAP_TRYFIXED)) === 0) {
    at = vmMapFindspace(map, addrbos, maxSsize, undefined, flags | MAP_STACK);
  }
  let rv = KERN_NO_SPACE;
  if (at !== undefined) {
    const { found, entry: prev } = vmMapLookupEntry(map, at);
    const room = !found && (prev.next === map.header || prev.next.start >= at + maxSsize);
    if (room) {
      rv = yield* vmMapInsert(cx, map, count, {
        start: at + maxSsize - init,
        end: at + maxSsize,
        prot,
        max,
        cow: cow | MAP_IS_STACK,
      });
      // A stack is never joined to what is below it, so the new entry is prev's next.
      if (rv === KERN_SUCCESS) prev.next.aux = maxSsize - init;
    }
  }
  yield* vmMapUnlock(cx, map);
  vmMapEntryRelease(count);
  return rv === KERN_SUCCESS ? { rv, addr: at as Gva } : { rv, addr: undefined };
}

/**
 * Grows the stack above `addr` down to it, if there is one with room (`vm_map_growstack`).
 *
 * @returns KERN_SUCCESS also when there is nothing to grow: the caller looks again. KERN_NO_SPACE: the stack is as large as it may be.
 */
export function* vmMapGrowstack(cx: Cx, p: Proc, vm: Vmspace, addr: bigint): Exec<number> {
  const map = vm.vmMap;
  const count = vmMapEntryReserve(MAP_RESERVE_COUNT);
  let exclusive = false;
  let rv: number;
  for (;;) {
    if (exclusive) yield* vmMapLock(cx, map);
    else yield* vmMapLockRead(cx, map);
    const { found, entry: prev } = vmMapLookupEntry(map, addr);
    const stack = prev.next;
    const none = found || stack === map.header || (stack.eflags & MAP_ENTRY_STACK) === 0 || stack.aux < 1n ||
      addr >= stack.start || addr < stack.start - stack.aux;
    if (none) {
      rv = KERN_SUCCESS;
      break;
    }
    if (!exclusive && !(yield* vmMapLockUpgrade(cx, map))) {
      // The lock is lost, and with it what has been found.
      exclusive = true;
      continue;
    }
    rv = yield* grow(cx, p, vm, prev, stack, addr);
    break;
  }
  const wire = rv === KERN_SUCCESS ? wiredFrom(map, addr) : undefined;
  yield* vmMapUnlock(cx, map);
  vmMapEntryRelease(count);
  if (wire !== undefined) yield* vmMapUnwire(cx, map, wire.start, wire.end, false);
  return rv;

  /** The piece that must be wired as the rest of the stack is. */
  function wiredFrom(map: VmMap, at: bigint): { start: bigint; end: bigint } | undefined {
    const { found, entry } = vmMapLookupEntry(map, at);
    if (!found || entry.wiredCount !== 0 || (entry.eflags & MAP_ENTRY_STACK) === 0) return undefined;
    const above = entry.next;
    const stackWired = above !== map.header && above.start === entry.end &&
      (above.eflags & MAP_ENTRY_USER_WIRED) !== 0;
    return stackWired || (map.flags & MAP_WIREFUTURE) !== 0
      ? { start: entry.start, end: entry.end }
      : undefined;
  }

  function* grow(
    cx: Cx,
    p: Proc,
    vm: Vmspace,
    prev: VmMapEntry,
    stack: VmMapEntry,
    addr: bigint,
  ): Exec<number> {
    const page = BigInt(PAGE_SIZE);
    const bottom = prev === map.header ? map.min : prev.end;
    const least = roundup(stack.start - addr, page);
    if (least > stack.aux) return KERN_NO_SPACE;
    if (least > stack.start - bottom) {
      // Something has been mapped into the reserve: this is how far it goes from now on.
      stack.aux = stack.start - bottom;
      return KERN_NO_SPACE;
    }
    const procstack = addr >= vm.vmMaxsaddr && addr < vm.vmMinsaddr;
    const limit = p.pLimit.plRlimit[RLIMIT_STACK]!.rlimCur;
    if (procstack && vm.vmSsize + least > limit) return KERN_NO_SPACE;
    let amount = roundup(least, SGROWSIZ);
    if (amount > stack.aux) amount = stack.aux;
    if (procstack && vm.vmSsize + amount > limit) amount = (limit - vm.vmSsize) & ~(page - 1n);
    if (amount > stack.start - bottom) amount = stack.start - bottom;
    const start = stack.start - amount;
    const rv = yield* vmMapInsert(cx, map, count, {
      start,
      end: stack.start,
      prot: stack.protection,
      max: stack.maxProtection,
      cow: MAP_IS_STACK,
    });
    if (rv !== KERN_SUCCESS) return rv;
    const fresh = stack.prev;
    fresh.inheritance = stack.inheritance;
    fresh.aux = stack.aux - amount;
    stack.aux = 0n;
    if (procstack) vm.vmSsize += amount;
    return KERN_SUCCESS;
  }
}

function roundup(value: bigint, to: bigint): bigint {
  return ((value + to - 1n) / to) * to;
}
