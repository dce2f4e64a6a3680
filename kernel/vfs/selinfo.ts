/**
 * Waiting for one of several files to become ready (`sys/sys/event.h`'s `struct kqinfo`, here in the older form of `selrecord` and
 * `selwakeup`).
 *
 * Room: `kernel/vfs/`; imports wakeup.
 *
 * Deviation: DragonFly 3.6 builds select and poll on kqueue. Only poll and select are here, so a file keeps the set of those who wait.
 *
 * @module
 */
import type { Cx } from "../context.ts";
import { wakeup } from "../lwkt/sleep.ts";

/** Events of poll(2) (`sys/sys/poll.h`). */
export const POLLIN = 0x0001;
/** Urgent data. */
export const POLLPRI = 0x0002;
/** Writing does not block. */
export const POLLOUT = 0x0004;
/** An error; always reported. */
export const POLLERR = 0x0008;
/** The other side is gone; always reported. */
export const POLLHUP = 0x0010;
/** Not an open descriptor; always reported. */
export const POLLNVAL = 0x0020;
/** As POLLIN. */
export const POLLRDNORM = 0x0040;
/** As POLLOUT. */
export const POLLWRNORM: number = POLLOUT;
/** As POLLPRI. */
export const POLLRDBAND = 0x0080;
/** Writing urgent data. */
export const POLLWRBAND = 0x0100;

/** One running poll or select. It is also what the thread sleeps on. */
export class PollWaiter {
  readonly #infos = new Set<SelInfo>();

  /** Registers it. */
  record(info: SelInfo): void {
    info.waiters.add(this);
    this.#infos.add(info);
  }
  /** Takes it off all lists. */
  clear(): void {
    for (const info of this.#infos) info.waiters.delete(this);
    this.#infos.clear();
  }
}

/** What a file keeps for those who wait for it. */
export class SelInfo {
  /** Who waits. */
  readonly waiters: Set<PollWaiter> = new Set();
}

/** Registers a waiter if there is one (`selrecord`). */
export function selrecord(waiter: PollWaiter | undefined, info: SelInfo): void {
  waiter?.record(info);
}

/** Something that somebody may wait for has happened (`selwakeup`, `KNOTE`). */
export function selwakeup(cx: Cx, info: SelInfo): void {
  for (const waiter of info.waiters) wakeup(cx, waiter);
}
