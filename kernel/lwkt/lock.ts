/**
 * Sleeping locks (`sys/kern/kern_lock.c`): shared or exclusive, may be held over a sleep.
 *
 * Room: `kernel/lwkt/`; imports sleeping.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { ERRNO } from "../kern/errno.ts";
import { panic } from "../kern/panic.ts";
import { PINTERLOCKED, tsleep, tsleepInterlock, wakeup } from "./sleep.ts";
import type { Thread } from "./thread.ts";

/** What is asked of {@link lockmgr} (`sys/sys/lock.h`). */
export const LK_SHARED = 0x1;
/** The lock for one thread. */
export const LK_EXCLUSIVE = 0x2;
/** From shared to exclusive; another may get it in between. */
export const LK_UPGRADE = 0x3;
/** From shared to exclusive, or EBUSY (and the shared lock gone) if another upgrades too. */
export const LK_EXCLUPGRADE = 0x4;
/** From exclusive to shared. */
export const LK_DOWNGRADE = 0x5;
/** Gives the lock back. */
export const LK_RELEASE = 0x6;
/** Part of the flags that is the request. */
export const LK_TYPE_MASK = 0xf;
/** EBUSY rather than sleep. */
export const LK_NOWAIT = 0x10;
/** ENOLCK after a sleep rather than the lock. */
export const LK_SLEEPFAIL = 0x20;
/** The owner may take an exclusive lock again. */
export const LK_CANRECURSE = 0x40;

/** A lock (`struct lock`). */
export class Lock {
  /** `lk_wmesg`. */
  readonly lkWmesg: string;
  /** The exclusive owner. */
  lkLockholder: Thread | undefined = undefined;
  /** Exclusive uses by the owner. */
  lkExclcount = 0;
  /** Shared uses by thread; the lock of a map may be released by its taker only. */
  readonly lkShared = new Map<Thread, number>();
  /** Threads that wait for an exclusive lock: shared takers that have none yet wait behind them. */
  lkExclreq = 0;
  /** The thread that waits for others' shared locks to upgrade its own. */
  lkUpgrader: Thread | undefined = undefined;

  /** @param wmesg What sleepers on it wait for. */
  constructor(wmesg: string) {
    this.lkWmesg = wmesg;
  }
}

/** How a lock is held, as seen by a thread (`lockstatus`). */
export function lockstatus(
  lk: Lock,
  td: Thread | undefined,
): 0 | typeof LK_SHARED | typeof LK_EXCLUSIVE | "other" {
  if (lk.lkLockholder !== undefined) {
    return td === undefined || lk.lkLockholder === td ? LK_EXCLUSIVE : "other";
  }
  return lk.lkShared.size > 0 ? LK_SHARED : 0;
}

/**
 * Takes, changes or gives back a lock.
 *
 * @returns 0, EBUSY (LK_NOWAIT; LK_EXCLUPGRADE that lost: the shared lock is gone), or ENOLCK (LK_SLEEPFAIL).
 */
export function* lockmgr(cx: Cx, lk: Lock, flags: number): Exec<number> {
  const td = cx.td;
  switch (flags & LK_TYPE_MASK) {
    case LK_SHARED:
      yield* cx.racePoint();
      return yield* acquireShared(cx, lk, td, flags);
    case LK_EXCLUSIVE:
      yield* cx.racePoint();
      return yield* acquireExclusive(cx, lk, td, flags);
    case LK_UPGRADE:
    case LK_EXCLUPGRADE:
      return yield* upgrade(cx, lk, td, flags);
    case LK_DOWNGRADE:
      if (lk.lkLockholder !== td || lk.lkExclcount !== 1) {
        panic(cx, `lockmgr: "${lk.lkWmesg}" is not held exclusively once by the thread that downgrades it`);
      }
      lk.lkLockholder = undefined;
      lk.lkExclcount = 0;
      lk.lkShared.set(td, 1);
      wakeup(cx, lk);
      return 0;
    case LK_RELEASE:
      release(cx, lk, td);
      return 0;
    default:
      return panic(cx, `lockmgr: unknown request ${flags}`);
  }
}

function* wait(cx: Cx, lk: Lock, flags: number): Exec<number> {
  if (flags & LK_NOWAIT) return ERRNO.EBUSY;
  tsleepInterlock(cx, lk);
  yield* tsleep(cx, lk, PINTERLOCKED, lk.lkWmesg, 0);
  return flags & LK_SLEEPFAIL ? ERRNO.ENOLCK : 0;
}

function* acquireShared(cx: Cx, lk: Lock, td: Thread, flags: number): Exec<number> {
  for (;;) {
    if (lk.lkLockholder === td) {
      // As DragonFly: the owner's shared request is another exclusive use.
      lk.lkExclcount++;
      return 0;
    }
    const mine = lk.lkShared.get(td) ?? 0;
    const mustWait = lk.lkLockholder !== undefined ||
      (mine === 0 && (lk.lkExclreq > 0 || lk.lkUpgrader !== undefined));
    if (!mustWait) {
      lk.lkShared.set(td, mine + 1);
      return 0;
    }
    const error = yield* wait(cx, lk, flags);
    if (error !== 0) return error;
  }
}

function* acquireExclusive(cx: Cx, lk: Lock, td: Thread, flags: number): Exec<number> {
  if (lk.lkLockholder === td) {
    if ((flags & LK_CANRECURSE) === 0) panic(cx, `lockmgr: "${lk.lkWmesg}" is locked against its own owner`);
    lk.lkExclcount++;
    return 0;
  }
  if (lk.lkShared.has(td)) {
    panic(cx, `lockmgr: "${lk.lkWmesg}" is held shared by the thread that wants it exclusively`);
  }
  while (lk.lkLockholder !== undefined || lk.lkShared.size > 0 || lk.lkUpgrader !== undefined) {
    lk.lkExclreq++;
    const error = yield* wait(cx, lk, flags);
    lk.lkExclreq--;
    if (error !== 0) {
      // Shared takers may have waited for this request alone.
      wakeup(cx, lk);
      return error;
    }
  }
  lk.lkLockholder = td;
  lk.lkExclcount = 1;
  return 0;
}

function* upgrade(cx: Cx, lk: Lock, td: Thread, flags: number): Exec<number> {
  if (lk.lkLockholder === td) return 0;
  if (lk.lkShared.get(td) !== 1) {
    panic(cx, `lockmgr: "${lk.lkWmesg}" is not held shared once by the thread that upgrades it`);
  }
  if (lk.lkUpgrader !== undefined) {
    release(cx, lk, td);
    if ((flags & LK_TYPE_MASK) === LK_EXCLUPGRADE) return ERRNO.EBUSY;
    return yield* acquireExclusive(cx, lk, td, flags);
  }
  if (lk.lkShared.size > 1 && flags & LK_NOWAIT) {
    release(cx, lk, td);
    return ERRNO.EBUSY;
  }
  lk.lkUpgrader = td;
  while (lk.lkShared.size > 1) yield* wait(cx, lk, 0);
  lk.lkUpgrader = undefined;
  lk.lkShared.delete(td);
  lk.lkLockholder = td;
  lk.lkExclcount = 1;
  return 0;
}

function release(cx: Cx, lk: Lock, td: Thread): void {
  if (lk.lkLockholder !== undefined) {
    if (lk.lkLockholder !== td) {
      panic(
        cx,
        `lockmgr: "${lk.lkWmesg}" is released by "${td.tdComm}" and held by "${lk.lkLockholder.tdComm}"`,
      );
    }
    if (--lk.lkExclcount > 0) return;
    lk.lkLockholder = undefined;
  } else {
    const mine = lk.lkShared.get(td) ?? 0;
    if (mine === 0) {
      panic(cx, `lockmgr: "${lk.lkWmesg}" is released by "${td.tdComm}", which does not hold it`);
    }
    if (mine > 1) {
      lk.lkShared.set(td, mine - 1);
      return;
    }
    lk.lkShared.delete(td);
  }
  wakeup(cx, lk);
}
