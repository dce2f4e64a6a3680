/**
 * Clocks, sleeping and interval timers (`sys/kern/kern_time.c`).
 *
 * Room: `kernel/proc/`; imports lwkt's clock and sleep, and the senders of signals.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, copyout } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { ERESTART, type SyscallArgs, type SyscallResult, type SyscallTable } from "../kern/sysent.ts";
import {
  Callout,
  calloutReset,
  calloutStop,
  getnanotime,
  getnanouptime,
  hz,
  ustick,
} from "../lwkt/callout.ts";
import { PCATCH, tsleep } from "../lwkt/sleep.ts";
import { ksignal } from "./kern_sig_send.ts";
import type { Itimer, Lwp, Proc } from "./proc.ts";
import { calcru } from "./rusage.ts";
import { SIGALRM, SIGPROF, SIGVTALRM } from "./signal.ts";
import { isRoot } from "./ucred.ts";

const OK: SyscallResult = { value: 0n };
const FAULT: SyscallResult = { error: ERRNO.EFAULT };
const INVALID: SyscallResult = { error: ERRNO.EINVAL };

/** Clocks: time of day; time used by the process, user part and all; time since the start; the thread's. */
export const CLOCK_REALTIME = 0;
/** User time of the process. */
export const CLOCK_VIRTUAL = 1;
/** User and system time of the process. */
export const CLOCK_PROF = 2;
/** Time since the start. */
export const CLOCK_MONOTONIC = 4;
/** Time used by the thread. */
export const CLOCK_THREAD_CPUTIME_ID = 14;
/** Time used by the process. */
export const CLOCK_PROCESS_CPUTIME_ID = 15;
/** Variants of the clocks with their own numbers: UPTIME, *_PRECISE, *_FAST, SECOND. */
const REALTIME_LIKE = new Set([CLOCK_REALTIME, 9, 10, 13]);
const MONOTONIC_LIKE = new Set([CLOCK_MONOTONIC, 5, 7, 8, 11, 12]);

/** Bytes of `struct timespec` and of `struct timeval`. */
const TIME_BYTES = 16;
/** Longest sleep in ticks (about 3 years); longer ones are cut and look on. */
const TICKS_MAX = 2 ** 33;

interface Timespec {
  readonly sec: number;
  readonly nsec: number;
}

/** A time of microseconds as a timespec. */
function ofMicroseconds(us: number): Timespec {
  return { sec: Math.floor(us / 1e6), nsec: us % 1e6 * 1000 };
}

/** Two 64-bit words: seconds and nano- or microseconds. */
function encode(sec: number, fraction: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(BigInt64Array.of(BigInt(Math.floor(sec)), BigInt(Math.floor(fraction))).buffer);
}

function* copyinPair(cx: Cx, at: bigint): Exec<readonly [bigint, bigint] | undefined> {
  const bytes = yield* copyin(cx, at, TIME_BYTES);
  if (bytes === undefined) return undefined;
  const view = new DataView(bytes.buffer);
  return [view.getBigInt64(0, true), view.getBigInt64(8, true)];
}

/** What a clock says; undefined: there is no such clock (`kern_clock_gettime`). */
export function clockGettime(cx: Cx, clock: number): Timespec | undefined {
  if (REALTIME_LIKE.has(clock)) return getnanotime(cx);
  if (MONOTONIC_LIKE.has(clock)) return getnanouptime(cx);
  const lp = cx.lwp!, td = cx.td;
  switch (clock) {
    case CLOCK_VIRTUAL:
      return ofMicroseconds(calcru(lp.lwpProc).ruUtime);
    case CLOCK_PROF:
    case CLOCK_PROCESS_CPUTIME_ID: {
      const ru = calcru(lp.lwpProc);
      return ofMicroseconds(ru.ruUtime + ru.ruStime);
    }
    case CLOCK_THREAD_CPUTIME_ID:
      return ofMicroseconds((td.tdUticks + td.tdSticks) * ustick);
    default:
      return undefined;
  }
}

/** clock_gettime(clock, tp) (232). */
function* sysClockGettime(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const now = clockGettime(cx, uap.int(0));
  if (now === undefined) return INVALID;
  return (yield* copyout(cx, uap.arg(1), encode(now.sec, now.nsec))) === 0 ? OK : FAULT;
}

/** clock_getres(clock, tp) (234). */
function* sysClockGetres(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const clock = uap.int(0);
  if (clockGettime(cx, clock) === undefined) return INVALID;
  const exact = REALTIME_LIKE.has(clock) || MONOTONIC_LIKE.has(clock);
  if (uap.arg(1) === 0n) return OK;
  return (yield* copyout(cx, uap.arg(1), encode(0, exact ? 1 : ustick * 1000))) === 0 ? OK : FAULT;
}

/** Sets the time of day. */
function* setTime(cx: Cx, sec: bigint, nsec: bigint): Exec<SyscallResult> {
  if (!isRoot(cx.proc!.pUcred)) return { error: ERRNO.EPERM };
  if (nsec < 0n || nsec >= 1_000_000_000n || sec < 0n || sec > 1n << 40n) return INVALID;
  cx.k.boottime = Number(sec) - getnanouptime(cx).sec;
  return OK;
}

/** clock_settime(clock, tp) (233). */
function* sysClockSettime(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  if (uap.int(0) !== CLOCK_REALTIME) return INVALID;
  const at = yield* copyinPair(cx, uap.arg(1));
  return at === undefined ? FAULT : yield* setTime(cx, at[0], at[1]);
}

/** gettimeofday(tp, tzp) (116). The time zone is UTC. */
function* sysGettimeofday(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const { sec, nsec } = getnanotime(cx);
  if (uap.arg(0) !== 0n && (yield* copyout(cx, uap.arg(0), encode(sec, nsec / 1000))) !== 0) return FAULT;
  if (uap.arg(1) !== 0n && (yield* copyout(cx, uap.arg(1), new Uint8Array(8))) !== 0) return FAULT;
  return OK;
}

/** settimeofday(tv, tzp) (122). */
function* sysSettimeofday(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  if (uap.arg(0) === 0n) return OK;
  const at = yield* copyinPair(cx, uap.arg(0));
  return at === undefined ? FAULT : yield* setTime(cx, at[0], at[1] * 1000n);
}

/** Sleeps for a time (`nanosleep1`): 0 and what was left when a signal ended it, in nanoseconds. */
export function* nanosleep1(cx: Cx, ns: number): Exec<{ readonly error: number; readonly left: number }> {
  const until = cx.k.platform.uptimeNs(cx) + ns;
  for (;;) {
    const left = until - cx.k.platform.uptimeNs(cx);
    if (left <= 0) return { error: 0, left: 0 };
    // One more than it takes: the tick that runs now is not a whole one.
    const ticks = Math.min(TICKS_MAX, Math.ceil(left / (1e9 / hz)));
    const error = yield* tsleep(cx, cx.td, PCATCH, "nanslp", ticks);
    if (error === ERRNO.EINTR || error === ERESTART) {
      return { error: ERRNO.EINTR, left: Math.max(0, until - cx.k.platform.uptimeNs(cx)) };
    }
  }
}

/** nanosleep(rqtp, rmtp) (240). Not restarted after a signal. */
function* sysNanosleep(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const at = yield* copyinPair(cx, uap.arg(0));
  if (at === undefined) return FAULT;
  const [sec, nsec] = at;
  if (sec < 0n || nsec < 0n || nsec >= 1_000_000_000n) return INVALID;
  const { error, left } = yield* nanosleep1(cx, Number(sec) * 1e9 + Number(nsec));
  if (error === 0) return OK;
  if (uap.arg(1) !== 0n) {
    if ((yield* copyout(cx, uap.arg(1), encode(Math.floor(left / 1e9), left % 1e9))) !== 0) return FAULT;
  }
  return { error };
}

// ---- interval timers

const SIGNAL_OF = [SIGALRM, SIGVTALRM, SIGPROF] as const;

/** What a timer has left and its interval, in microseconds. */
export function readItimer(cx: Cx, p: Proc, which: number): Itimer {
  const timer = p.pTimer[which]!;
  if (which !== 0 || timer.value === 0) return { ...timer };
  const now = cx.k.platform.uptimeNs(cx) / 1000;
  return { value: Math.max(1, Math.floor(timer.value - now)), interval: timer.interval };
}

/** Sets a timer (`kern_setitimer`): microseconds until it runs out, 0 to stop it; and what it is set to then. */
export function setItimer(cx: Cx, p: Proc, which: number, value: number, interval: number): void {
  const timer = p.pTimer[which]!;
  timer.interval = interval;
  if (which !== 0) {
    timer.value = value;
    return;
  }
  p.pIthandle ??= new Callout();
  calloutStop(cx, p.pIthandle);
  timer.value = value === 0 ? 0 : cx.k.platform.uptimeNs(cx) / 1000 + value;
  if (value !== 0) arm(cx, p, value);
}

function arm(cx: Cx, p: Proc, us: number): void {
  calloutReset(cx, p.pIthandle!, Math.min(TICKS_MAX, Math.ceil(us / ustick)), (at) => realitexpire(at, p));
}

/** The real timer has run out (`realitexpire`): a signal, and the next time that is still to come. */
function realitexpire(cx: Cx, p: Proc): void {
  const timer = p.pTimer[0];
  if (timer.value === 0) return;
  const now = cx.k.platform.uptimeNs(cx) / 1000;
  if (now < timer.value) return arm(cx, p, timer.value - now);
  ksignal(cx, p, SIGALRM);
  if (timer.interval === 0) {
    timer.value = 0;
    return;
  }
  const missed = Math.floor((now - timer.value) / timer.interval);
  timer.value += (missed + 1) * timer.interval;
  arm(cx, p, timer.value - now);
}

/** One tick of the running process's own timers (part of `hardclock`). */
export function itimerTick(cx: Cx, user: boolean): void {
  const lp: Lwp | undefined = cx.gd.gdCurthread.tdLwp;
  if (lp === undefined) return;
  const { pTimer } = lp.lwpProc;
  if (user) itimerdecr(cx, lp.lwpProc, pTimer[1], SIGVTALRM);
  itimerdecr(cx, lp.lwpProc, pTimer[2], SIGPROF);
}

function itimerdecr(cx: Cx, p: Proc, timer: Itimer, sig: number): void {
  if (timer.value === 0) return;
  timer.value -= ustick;
  if (timer.value > 0) return;
  timer.value = timer.interval === 0 ? 0 : Math.max(1, timer.interval + timer.value);
  ksignal(cx, p, sig);
}

/** Longest interval: 10^8 seconds, as itimerfix has it. */
const ITIMER_MAX = 100_000_000n;

/** Bytes of `struct itimerval`: interval, then value. */
function encodeItimer({ value, interval }: Itimer): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(32);
  bytes.set(encode(interval / 1e6, interval % 1e6));
  bytes.set(encode(value / 1e6, value % 1e6), 16);
  return bytes;
}

/** getitimer(which, itv) (86). */
function* sysGetitimer(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const which = uap.uint(0);
  if (which >= SIGNAL_OF.length) return INVALID;
  const bytes = encodeItimer(readItimer(cx, cx.proc!, which));
  return (yield* copyout(cx, uap.arg(1), bytes)) === 0 ? OK : FAULT;
}

/** setitimer(which, itv, oitv) (83). */
function* sysSetitimer(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const which = uap.uint(0), p = cx.proc!;
  if (which >= SIGNAL_OF.length) return INVALID;
  const old = encodeItimer(readItimer(cx, p, which));
  if (uap.arg(1) !== 0n) {
    const interval = yield* copyinPair(cx, uap.arg(1));
    const value = yield* copyinPair(cx, uap.arg(1) + 16n);
    if (interval === undefined || value === undefined) return FAULT;
    for (const [sec, usec] of [interval, value]) {
      if (sec < 0n || sec > ITIMER_MAX || usec < 0n || usec >= 1_000_000n) return INVALID;
    }
    const us = ([sec, usec]: readonly [bigint, bigint]) => Number(sec) * 1e6 + Number(usec);
    setItimer(cx, p, which, us(value), us(value) === 0 ? 0 : us(interval));
  }
  if (uap.arg(2) !== 0n && (yield* copyout(cx, uap.arg(2), old)) !== 0) return FAULT;
  return OK;
}

/** System calls of this file. */
export const timeSyscalls: SyscallTable = [
  [83, "setitimer", 3, sysSetitimer],
  [86, "getitimer", 2, sysGetitimer],
  [116, "gettimeofday", 2, sysGettimeofday],
  [122, "settimeofday", 2, sysSettimeofday],
  [232, "clock_gettime", 2, sysClockGettime],
  [233, "clock_settime", 2, sysClockSettime],
  [234, "clock_getres", 2, sysClockGetres],
  [240, "nanosleep", 2, sysNanosleep],
];
