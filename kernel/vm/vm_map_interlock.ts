/**
 * Ranges of a map that somebody has for himself for a while (`vm_map_interlock`, `vm_map_deinterlock` of `sys/vm/vm_map.c`, February 2017).
 *
 * Room: `kernel/vm/`; imports sleeping.
 *
 * Faults through software page tables and MADV_INVAL both hold the map's lock shared. What keeps an invalidation from falling between a
 * fault's walk and its pmap_enter is this: who has a range interlocked excludes everybody else who wants part of it.
 *
 * Whoever waits here may hold the map's lock shared, and no object or page; so does whoever has a range and waits for a page. A fault that
 * gives up the map's lock gives up its range too before it waits for anything else.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { PINTERLOCKED, tsleep, tsleepInterlock, wakeup } from "../lwkt/sleep.ts";
import type { VmMap } from "./vm_map.ts";

/** A range in use (`struct vm_map_ilock`). */
export interface VmMapIlock {
  /** First address. */
  readonly start: bigint;
  /** First address behind it. */
  readonly end: bigint;
  /** Somebody sleeps on it (`ILOCK_WAITING`). */
  waiting: boolean;
}

/** Waits until nobody has any of `[start, end)` and takes it. Not recursive. */
export function* vmMapInterlock(cx: Cx, map: VmMap, start: bigint, end: bigint): Exec<VmMapIlock> {
  for (;;) {
    let other: VmMapIlock | undefined;
    for (const held of map.ilocks) if (held.start < end && start < held.end) other = held;
    if (other === undefined) break;
    cx.k.vkernel.interlockWaits++;
    other.waiting = true;
    tsleepInterlock(cx, other, 0);
    yield* tsleep(cx, other, PINTERLOCKED, "vmilk", 0);
  }
  const ilock: VmMapIlock = { start, end, waiting: false };
  map.ilocks.add(ilock);
  return ilock;
}

/** Gives a range back. */
export function vmMapDeinterlock(cx: Cx, map: VmMap, ilock: VmMapIlock): void {
  map.ilocks.delete(ilock);
  if (ilock.waiting) wakeup(cx, ilock);
}
