/**
 * Advisory locks on byte ranges (`kern/kern_lockf.c`): F_SETLK, F_SETLKW, F_GETLK of fcntl (owner: the process) and flock (owner: the
 * open file).
 *
 * Room: `kernel/vfs/`; imports sleep and errno.
 *
 * Left out: the search for deadlocks (EDEADLK); a waiter can be interrupted by a signal.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { ERRNO } from "../kern/errno.ts";
import { PCATCH, tsleep, wakeup } from "../lwkt/sleep.ts";
import type { Vnode } from "./vnode.ts";

/** Shared. */
export const F_RDLCK = 1;
/** None. */
export const F_UNLCK = 2;
/** Exclusive. */
export const F_WRLCK = 3;

/** A lock on bytes from `start` to `end`, both included; `end` is Infinity where it goes to the end of the file, however long. */
export interface LockfRange {
  /** Process or file. */
  readonly owner: object;
  /** F_RDLCK or F_WRLCK. */
  readonly type: number;
  readonly start: number;
  readonly end: number;
}

/** Locks of a file, by vnode; a vnode without locks is not in it. */
export class LockfState {
  /** Locks held. */
  readonly ranges: WeakMap<Vnode, LockfRange[]> = new WeakMap();
}

function rangesOf(cx: Cx, vp: Vnode): LockfRange[] {
  return cx.k.vfs.lockf.ranges.get(vp) ?? [];
}

function overlaps(a: LockfRange, b: { readonly start: number; readonly end: number }): boolean {
  return a.start <= b.end && b.start <= a.end;
}

/** The first lock of somebody else that is in the way (`lf_getblock`). */
export function lfGetblock(cx: Cx, vp: Vnode, wanted: LockfRange): LockfRange | undefined {
  return rangesOf(cx, vp).find((held) =>
    held.owner !== wanted.owner && overlaps(held, wanted) &&
    (held.type === F_WRLCK || wanted.type === F_WRLCK)
  );
}

/** Takes `range` of the owner's locks away and puts `instead` there, if given. */
function replace(cx: Cx, vp: Vnode, range: LockfRange, instead: LockfRange | undefined): void {
  const kept: LockfRange[] = [];
  for (const held of rangesOf(cx, vp)) {
    if (held.owner !== range.owner || !overlaps(held, range)) {
      kept.push(held);
      continue;
    }
    if (held.start < range.start) kept.push({ ...held, end: range.start - 1 });
    if (held.end > range.end) kept.push({ ...held, start: range.end + 1 });
  }
  if (instead !== undefined) kept.push(instead);
  const { ranges } = cx.k.vfs.lockf;
  if (kept.length > 0) ranges.set(vp, kept);
  else ranges.delete(vp);
  wakeup(cx, vp.vNamecache);
}

/** Sets, changes or clears a lock (`lf_setlock`, `lf_clearlock`). EAGAIN if it is in somebody's way and `wait` is false; EINTR. */
export function* lfAdvlock(cx: Cx, vp: Vnode, wanted: LockfRange, wait: boolean): Exec<number> {
  if (wanted.type === F_UNLCK) {
    replace(cx, vp, wanted, undefined);
    return 0;
  }
  while (lfGetblock(cx, vp, wanted) !== undefined) {
    if (!wait) return ERRNO.EAGAIN;
    const error = yield* tsleep(cx, vp.vNamecache, PCATCH, "lockf", 0);
    if (error !== 0) return error;
  }
  replace(cx, vp, wanted, wanted);
  return 0;
}

/** An owner is done with the file: all its locks go. */
export function lfUnlockAll(cx: Cx, vp: Vnode, owner: object): void {
  if (rangesOf(cx, vp).some((held) => held.owner === owner)) {
    replace(cx, vp, { owner, type: F_UNLCK, start: 0, end: Infinity }, undefined);
  }
}
