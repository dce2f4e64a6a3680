/**
 * futex and the robust lists: DragonFly's sleeping on words, with Linux's numbers.
 *
 * Room: `kernel/linux/`; imports kern_umtx.
 *
 * Simpler than real: bit sets are not kept with the sleepers, so that a wake-up with some bits wakes everybody; and who would be requeued is
 * woken. Both are wake-ups for nothing, which every user of a futex must expect. FUTEX_WAKE_OP and the priority-inheriting kind are
 * ENOSYS; robust lists are remembered and not walked.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, copyout, fuword32 } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { ERESTART, type SyscallArgs, type SyscallResult, type SyscallTable } from "../kern/sysent.ts";
import { getnanotime, hz } from "../lwkt/callout.ts";
import { umtxSleepWord, umtxWakeWord } from "../proc/kern_umtx.ts";
import { emuldata, linuxTfind } from "./linux_emul.ts";
import { result } from "./linux_native.ts";

const INVALID: SyscallResult = { error: ERRNO.EINVAL };
const FAULT: SyscallResult = { error: ERRNO.EFAULT };
const NOSYS: SyscallResult = { error: ERRNO.ENOSYS };

const WAIT = 0, WAKE = 1, REQUEUE = 3, CMP_REQUEUE = 4, WAIT_BITSET = 9, WAKE_BITSET = 10;
const PRIVATE_FLAG = 0x80, CLOCK_REALTIME_FLAG = 0x100;
const MATCH_ANY = 0xffff_ffff;
/** Longest wait in ticks that is not cut. */
const TICKS_MAX = 2 ** 40;

/** Ticks until a timeout: relative for WAIT, a time of its clock for WAIT_BITSET. An error number if it is none. */
function* ticksOf(
  cx: Cx,
  at: bigint,
  absolute: boolean,
  realtime: boolean,
): Exec<number | { error: number }> {
  if (at === 0n) return 0;
  const bytes = yield* copyin(cx, at, 16);
  if (bytes === undefined) return { error: ERRNO.EFAULT };
  const view = new DataView(bytes.buffer);
  const sec = view.getBigInt64(0, true), nsec = view.getBigInt64(8, true);
  if (sec < 0n || nsec < 0n || nsec >= 1_000_000_000n) return { error: ERRNO.EINVAL };
  let left = Number(sec) * 1e9 + Number(nsec);
  if (absolute) {
    const now = getnanotime(cx);
    left -= realtime ? now.sec * 1e9 + now.nsec : cx.k.platform.uptimeNs(cx);
  }
  return left <= 0 ? { error: ERRNO.ETIMEDOUT } : Math.min(TICKS_MAX, Math.ceil(left * hz / 1e9));
}

/** Sleeps while the word is `value`. */
function* wait(
  cx: Cx,
  va: bigint,
  value: number,
  timeout: bigint,
  absolute: boolean,
  realtime: boolean,
): Exec<number> {
  const ticks = yield* ticksOf(cx, timeout, absolute, realtime);
  if (typeof ticks !== "number") {
    if (ticks.error !== ERRNO.ETIMEDOUT) return ticks.error;
    // The word is looked at first.
    const now = yield* fuword32(cx, va);
    return now === undefined ? ERRNO.EFAULT : now !== value >>> 0 ? ERRNO.EAGAIN : ERRNO.ETIMEDOUT;
  }
  const error = yield* umtxSleepWord(cx, va, value, ticks);
  switch (error) {
    case ERRNO.EBUSY:
      return ERRNO.EAGAIN;
    case ERRNO.EWOULDBLOCK:
      return ERRNO.ETIMEDOUT;
    // Done again from the beginning only where no time is lost by it.
    case ERESTART:
      return ticks === 0 || absolute ? ERESTART : ERRNO.EINTR;
    default:
      return error;
  }
}

/** futex(uaddr, op, val, timeout or val2, uaddr2, val3). */
function* futex(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const va = uap.arg(0), op = uap.int(1), value = uap.int(2), value3 = uap.uint(5);
  const command = op & ~(PRIVATE_FLAG | CLOCK_REALTIME_FLAG), realtime = (op & CLOCK_REALTIME_FLAG) !== 0;
  if (realtime && command !== WAIT && command !== WAIT_BITSET) return NOSYS;
  if (va & 3n) return INVALID;
  switch (command) {
    case WAIT:
      return result(yield* wait(cx, va, value, uap.arg(3), false, realtime));
    case WAIT_BITSET:
      return value3 === 0 ? INVALID : result(yield* wait(cx, va, value, uap.arg(3), true, realtime));
    case WAKE_BITSET:
      if (value3 === 0) return INVALID;
      return yield* wake(cx, va, value3 === MATCH_ANY ? value : 0x7fff_ffff);
    case WAKE:
      return yield* wake(cx, va, value);
    case CMP_REQUEUE: {
      const now = yield* fuword32(cx, va);
      if (now === undefined) return FAULT;
      if (now !== value3) return { error: ERRNO.EAGAIN };
      return yield* wake(cx, va, 0x7fff_ffff);
    }
    case REQUEUE:
      return yield* wake(cx, va, 0x7fff_ffff);
    default:
      return NOSYS;
  }
}

/** Wakes up to `count`; Linux takes 0 for 1. */
function* wake(cx: Cx, va: bigint, count: number): Exec<SyscallResult> {
  if (va >= cx.proc!.pVmspace!.vmMap.max) return FAULT;
  return { value: BigInt(yield* umtxWakeWord(cx, va, Math.max(1, count))) };
}

/** Bytes of `struct robust_list_head`. */
const ROBUST_HEAD_BYTES = 24n;

/** set_robust_list(head, len). */
function* setRobustList(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  if (uap.arg(1) !== ROBUST_HEAD_BYTES) return INVALID;
  emuldata(cx).robust.set(cx.lwp!.lwpTid, uap.arg(0));
  return result(0);
}

/** get_robust_list(tid, head, len): of the own process's threads. */
function* getRobustList(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const tid = uap.int(0), found = tid === 0 ? { p: cx.proc!, lp: cx.lwp! } : linuxTfind(cx, tid);
  if (found === undefined) return { error: ERRNO.ESRCH };
  if (found.p !== cx.proc) return { error: ERRNO.EPERM };
  const head = emuldata(cx).robust.get(found.lp.lwpTid) ?? 0n;
  const words: readonly (readonly [bigint, bigint])[] = [[uap.arg(2), ROBUST_HEAD_BYTES], [uap.arg(1), head]];
  for (const [at, word] of words) {
    const error = yield* copyout(cx, at, new Uint8Array(BigUint64Array.of(word).buffer));
    if (error !== 0) return { error };
  }
  return result(0);
}

/** System calls of this file. */
export const linuxFutexSyscalls: SyscallTable = [
  [202, "futex", 6, futex],
  [273, "set_robust_list", 2, setRobustList],
  [274, "get_robust_list", 3, getRobustList],
];
