/**
 * Sleeping on a word of user memory (`sys/kern/kern_umtx.c`): umtx_sleep and umtx_wakeup, and the futex of the Linux personality.
 *
 * Room: `kernel/proc/`; imports the maps, copy and lwkt's sleep.
 *
 * Deviation: DragonFly names a word by its physical address and holds the page while somebody sleeps. Here a word of private memory is
 * named by address space and address, one of shared memory by object and offset: no page need stay where it is.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { fuword32 } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { ERESTART, type SyscallArgs, type SyscallResult, type SyscallTable } from "../kern/sysent.ts";
import { hz } from "../lwkt/callout.ts";
import {
  PCATCH,
  PINTERLOCKED,
  tsleep,
  tsleepInterlock,
  tsleepRemove,
  wakeup,
  wakeupOne,
} from "../lwkt/sleep.ts";
import { guestPhysAddr } from "../vmm/ept_copy.ts";
import { vmMapLockRead, vmMapLookupEntry, vmMapUnlockRead } from "../vm/vm_map.ts";
import { MAP_ENTRY_COW, VM_INHERIT_SHARE, VM_MAPTYPE_NORMAL } from "../vm/vm_param.ts";
import { UmtxIdent } from "./umtx_state.ts";

/** What names a word. */
interface UmtxKey {
  readonly owner: object;
  readonly offset: bigint;
}

/** The name of the word at an address of the current address space. */
function* keyOf(cx: Cx, user: bigint): Exec<UmtxKey> {
  const lp = cx.lwp!, vm = lp.lwpVmspace!, vti = lp.lwpVmm;
  // Under VMM the map has guest-physical addresses. What is not there has been EFAULT before.
  const va = vti === undefined ? user : (yield* guestPhysAddr(cx, vm.vmMap, vti.guestCr3, user)) ?? user;
  yield* vmMapLockRead(cx, vm.vmMap);
  const { found, entry } = vmMapLookupEntry(vm.vmMap, va);
  const { object } = entry;
  // What stands behind an address of a software page table cannot be told from the address: the address itself is the name.
  const shared = found && object !== undefined && entry.maptype === VM_MAPTYPE_NORMAL &&
    (entry.eflags & MAP_ENTRY_COW) === 0 &&
    (entry.inheritance === VM_INHERIT_SHARE || object.handle !== undefined);
  const key = shared
    ? { owner: object, offset: va - entry.start + BigInt(entry.offset) }
    : { owner: vm, offset: va };
  yield* vmMapUnlockRead(cx, vm.vmMap);
  return key;
}

/**
 * Sleeps while the word at `va` is `value` (`sys_umtx_sleep`).
 *
 * @param timoTicks 0: without end.
 * @returns 0 when woken (perhaps for nothing); EBUSY when the word is another; EWOULDBLOCK; EINTR or ERESTART; EFAULT.
 */
export function* umtxSleepWord(cx: Cx, va: bigint, value: number, timoTicks: number): Exec<number> {
  // The first read brings the page in, so that the second one, behind the interlock, does not sleep.
  const before = yield* fuword32(cx, va);
  if (before === undefined) return ERRNO.EFAULT;
  if (before !== value >>> 0) return ERRNO.EBUSY;
  const { owner, offset } = yield* keyOf(cx, va);
  const { idents } = cx.k.umtx;
  let words = idents.get(owner);
  if (words === undefined) idents.set(owner, words = new Map());
  let ident = words.get(offset);
  if (ident === undefined) words.set(offset, ident = new UmtxIdent());
  ident.waiters++;
  try {
    tsleepInterlock(cx, ident, PCATCH);
    const now = yield* fuword32(cx, va);
    if (now !== value >>> 0) {
      tsleepRemove(cx, cx.td);
      return now === undefined ? ERRNO.EFAULT : ERRNO.EBUSY;
    }
    return yield* tsleep(cx, ident, PCATCH | PINTERLOCKED, "umtxsl", timoTicks);
  } finally {
    if (--ident.waiters === 0) {
      words.delete(offset);
      if (words.size === 0) idents.delete(owner);
    }
  }
}

/** Wakes up to `count` sleepers of the word at `va`, all if 0 (`sys_umtx_wakeup`). Gives how many there were. */
export function* umtxWakeWord(cx: Cx, va: bigint, count: number): Exec<number> {
  const { owner, offset } = yield* keyOf(cx, va);
  const ident = cx.k.umtx.idents.get(owner)?.get(offset);
  if (ident === undefined) return 0;
  const { waiters } = ident;
  if (count <= 0 || count >= waiters) {
    wakeup(cx, ident);
    return waiters;
  }
  for (let i = 0; i < count; i++) wakeupOne(cx, ident);
  return count;
}

/** umtx_sleep(ptr, value, timeout) (469); timeout in microseconds. */
function* sysUmtxSleep(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const timeout = uap.int(2);
  if (timeout < 0) return { error: ERRNO.EINVAL };
  if (uap.arg(0) & 3n) return { error: ERRNO.EFAULT };
  const error = yield* umtxSleepWord(cx, uap.arg(0), uap.int(1), Math.ceil(timeout * hz / 1e6));
  if (error === 0) return { value: 0n };
  return { error: error === ERESTART ? ERRNO.EINTR : error };
}

/** umtx_wakeup(ptr, count) (470). */
function* sysUmtxWakeup(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const va = uap.arg(0);
  if (va & 3n || (yield* fuword32(cx, va)) === undefined) return { error: ERRNO.EFAULT };
  yield* umtxWakeWord(cx, va, uap.int(1));
  return { value: 0n };
}

/** System calls of this file. */
export const umtxSyscalls: SyscallTable = [
  [469, "umtx_sleep", 3, sysUmtxSleep],
  [470, "umtx_wakeup", 2, sysUmtxWakeup],
];
