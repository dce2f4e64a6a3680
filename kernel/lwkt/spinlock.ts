/**
 * Spinlocks (`sys/kern/kern_spinlock.c`): held for a few instructions, in a critical section, never over a switch.
 *
 * Room: `kernel/lwkt/`; imports the context.
 *
 * @module
 */
import { type Exec, NOTHING } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { panic } from "../kern/panic.ts";
import type { Thread } from "./thread.ts";

/** A spinlock (`struct spinlock`). */
export class Spinlock {
  /** Its name. */
  readonly descr: string;
  /** Who has it exclusively. */
  owner: Thread | undefined = undefined;
  /** How many have it shared. */
  shared = 0;

  /** @param descr Its name. */
  constructor(descr: string) {
    this.descr = descr;
  }
}

/** Takes a spinlock exclusively (`spin_lock`). Enters a critical section. */
export function spinLock(cx: Cx, spin: Spinlock): Exec<void> {
  const td = cx.td;
  if (spin.owner === td) panic(cx, `spin_lock: "${spin.descr}" is held by the thread that wants it`);
  td.tdCritcount++;
  td.tdSpinlocks++;
  // Alone, and in a critical section: nobody has it.
  if (cx.k.ncpus === 1 && spin.owner === undefined && spin.shared === 0) {
    spin.owner = td;
    return NOTHING;
  }
  return waitExclusive(cx, spin, td);
}

function* waitExclusive(cx: Cx, spin: Spinlock, td: Thread): Exec<void> {
  yield* cx.racePoint();
  while (spin.owner !== undefined || spin.shared !== 0) yield* cx.pause();
  spin.owner = td;
}

/** Takes a spinlock shared (`spin_lock_shared`). */
export function spinLockShared(cx: Cx, spin: Spinlock): Exec<void> {
  const td = cx.td;
  td.tdCritcount++;
  td.tdSpinlocks++;
  if (cx.k.ncpus === 1 && spin.owner === undefined) {
    spin.shared++;
    return NOTHING;
  }
  return waitShared(cx, spin);
}

function* waitShared(cx: Cx, spin: Spinlock): Exec<void> {
  yield* cx.racePoint();
  while (spin.owner !== undefined) yield* cx.pause();
  spin.shared++;
}

/** Takes a spinlock if it is free (`spin_trylock`). */
export function spinTrylock(cx: Cx, spin: Spinlock): boolean {
  if (spin.owner !== undefined || spin.shared !== 0) return false;
  const td = cx.td;
  td.tdCritcount++;
  td.tdSpinlocks++;
  spin.owner = td;
  return true;
}

/** Releases a spinlock (`spin_unlock`). What came meanwhile runs at the next end of a critical section, switch or return to user mode. */
export function spinUnlock(cx: Cx, spin: Spinlock): void {
  const td = cx.td;
  if (spin.owner !== td) panic(cx, `spin_unlock: "${spin.descr}" is not held by this thread`);
  spin.owner = undefined;
  td.tdSpinlocks--;
  td.tdCritcount--;
}

/** Releases a shared spinlock (`spin_unlock_shared`). */
export function spinUnlockShared(cx: Cx, spin: Spinlock): void {
  if (spin.shared === 0) panic(cx, `spin_unlock_shared: "${spin.descr}" is not held`);
  const td = cx.td;
  spin.shared--;
  td.tdSpinlocks--;
  td.tdCritcount--;
}
