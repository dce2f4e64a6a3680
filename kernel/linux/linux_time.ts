/**
 * Linux's system calls about time and waiting for descriptors: clocks by Linux's numbers, poll and select with signal masks.
 *
 * Room: `kernel/linux/`; imports DragonFly's clocks and polls.
 *
 * Simpler than real: select and its like do not write the time that was left.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, copyout, fuword } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { fdLimit } from "../kern/kern_descrip.ts";
import { dopoll, selectUser } from "../kern/sys_generic.ts";
import type { SyscallArgs, SyscallResult, SyscallTable } from "../kern/sysent.ts";
import { getnanotime, hz, ustick } from "../lwkt/callout.ts";
import { clockGettime, nanosleep1, readItimer, setItimer } from "../proc/kern_time.ts";
import { LWP_OLDMASK } from "../proc/proc.ts";
import { calcru } from "../proc/rusage.ts";
import { SIG_CANTMASK } from "../proc/signal.ts";
import { result, same } from "./linux_native.ts";
import { copyinLinuxSigset } from "./linux_sig.ts";

const INVALID: SyscallResult = { error: ERRNO.EINVAL };
const FAULT: SyscallResult = { error: ERRNO.EFAULT };
/** Longest wait in ticks. */
const TICKS_MAX = 0x7fff_ffff;
const CLK_TCK = 100;

/** Linux's clocks, by number, as DragonFly's: REALTIME MONOTONIC PROCESS_CPUTIME THREAD_CPUTIME MONOTONIC_RAW …_COARSE BOOTTIME. */
const CLOCKS: readonly number[] = [0, 4, 15, 14, 4, 0, 4, 4];
const FIRST_CPU_CLOCK = 2, LAST_CPU_CLOCK = 3;

function words(...values: readonly number[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(BigInt64Array.from(values, (value) => BigInt(Math.floor(value))).buffer);
}

/** Two signed words: seconds and nano- or microseconds. An error number if they are not a time. */
function* copyinTime(cx: Cx, at: bigint, fraction: number): Exec<{ sec: number; sub: number } | number> {
  const bytes = yield* copyin(cx, at, 16);
  if (bytes === undefined) return ERRNO.EFAULT;
  const view = new DataView(bytes.buffer), sub = view.getBigInt64(8, true), sec = view.getBigInt64(0, true);
  return sec < 0n || sub < 0n || sub >= BigInt(fraction)
    ? ERRNO.EINVAL
    : { sec: Number(sec), sub: Number(sub) };
}

function* sysClockGettime(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const clock = CLOCKS[uap.int(0)];
  const now = clock === undefined ? undefined : clockGettime(cx, clock);
  return now === undefined ? INVALID : result(yield* copyout(cx, uap.arg(1), words(now.sec, now.nsec)));
}

function* sysClockGetres(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const number = uap.int(0);
  if (CLOCKS[number] === undefined) return INVALID;
  const tick = number >= FIRST_CPU_CLOCK && number <= LAST_CPU_CLOCK ? ustick * 1000 : 1;
  return uap.arg(1) === 0n ? result(0) : result(yield* copyout(cx, uap.arg(1), words(0, tick)));
}

const TIMER_ABSTIME = 1;

/** clock_nanosleep(clock, flags, request, remain). */
function* clockNanosleep(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const clock = CLOCKS[uap.int(0)], absolute = (uap.int(1) & TIMER_ABSTIME) !== 0;
  if (clock === undefined || uap.int(0) === LAST_CPU_CLOCK) return INVALID;
  const wanted = yield* copyinTime(cx, uap.arg(2), 1e9);
  if (typeof wanted === "number") return { error: wanted };
  let ns = wanted.sec * 1e9 + wanted.sub;
  if (absolute) {
    const now = clockGettime(cx, clock)!;
    ns -= now.sec * 1e9 + now.nsec;
  }
  const { error, left } = yield* nanosleep1(cx, Math.max(0, ns));
  if (error !== 0 && !absolute && uap.arg(3) !== 0n) {
    if ((yield* copyout(cx, uap.arg(3), words(left / 1e9, left % 1e9))) !== 0) return FAULT;
  }
  return result(error);
}

/** time(at). */
function* time(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const { sec } = getnanotime(cx);
  if (uap.arg(0) !== 0n && (yield* copyout(cx, uap.arg(0), words(sec))) !== 0) return FAULT;
  return { value: BigInt(sec) };
}

/** alarm(seconds): gives the seconds that the last one had left, rounded up. */
function* alarm(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const p = cx.proc!, { value } = readItimer(cx, p, 0);
  setItimer(cx, p, 0, uap.uint(0) * 1e6, 0);
  return { value: BigInt(Math.ceil(value / 1e6)) };
}

/** times(buf): in ticks of 10 ms. */
function* times(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const p = cx.proc!, own = calcru(p), tick = 1e6 / CLK_TCK;
  if (uap.arg(0) !== 0n) {
    const used = [own.ruUtime, own.ruStime, p.pCru.ruUtime, p.pCru.ruStime].map((us) => us / tick);
    const error = yield* copyout(cx, uap.arg(0), words(...used));
    if (error !== 0) return { error };
  }
  return { value: BigInt(Math.floor(cx.k.platform.uptimeNs(cx) / (1e9 / CLK_TCK))) };
}

// ---- waiting for descriptors

/** A relative timeout in ticks; undefined: without end. */
function* ticksOf(
  cx: Cx,
  at: bigint,
  fraction: number,
): Exec<{ ticks: number | undefined } | { error: number }> {
  if (at === 0n) return { ticks: undefined };
  const span = yield* copyinTime(cx, at, fraction);
  if (typeof span === "number") return { error: span };
  return { ticks: Math.min(TICKS_MAX, span.sec * hz + Math.ceil(span.sub * hz / fraction)) };
}

/** Another signal mask while the call waits; the old one comes back on the way to user mode. */
function* useMask(cx: Cx, at: bigint, bytes: bigint): Exec<number> {
  if (at === 0n) return 0;
  if (bytes !== 8n) return ERRNO.EINVAL;
  const set = yield* copyinLinuxSigset(cx, at);
  if (set === undefined) return ERRNO.EFAULT;
  const lp = cx.lwp!;
  lp.lwpOldsigmask = lp.lwpSigmask;
  lp.lwpFlags |= LWP_OLDMASK;
  lp.lwpSigmask = set & ~SIG_CANTMASK;
  return 0;
}

/** select(n, in, out, ex, timeval). */
function* select(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const span = yield* ticksOf(cx, uap.arg(4), 1e6);
  if ("error" in span) return span;
  return yield* selectUser(cx, uap.int(0), [uap.arg(1), uap.arg(2), uap.arg(3)], span.ticks);
}

/** pselect6(n, in, out, ex, timespec, {set, size}). */
function* pselect6(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const span = yield* ticksOf(cx, uap.arg(4), 1e9);
  if ("error" in span) return span;
  if (uap.arg(5) !== 0n) {
    const set = yield* fuword(cx, uap.arg(5)), bytes = yield* fuword(cx, uap.arg(5) + 8n);
    if (set === undefined || bytes === undefined) return FAULT;
    const error = yield* useMask(cx, set, bytes);
    if (error !== 0) return { error };
  }
  return yield* selectUser(cx, uap.int(0), [uap.arg(1), uap.arg(2), uap.arg(3)], span.ticks);
}

const POLLFD_BYTES = 8;
/** Linux's POLLWRNORM and POLLWRBAND in DragonFly's numbers: POLLOUT, 0x100. */
const POLLOUT = 4, POLLWRNORM = 0x100, POLLWRBAND = 0x200;

/** Polls an array of `struct pollfd`, which is the same but for two events. */
function* poll(cx: Cx, at: bigint, nfds: number, ticks: number | undefined): Exec<SyscallResult> {
  if (nfds > fdLimit(cx, cx.proc!)) return INVALID;
  const bytes = yield* copyin(cx, at, nfds * POLLFD_BYTES);
  if (bytes === undefined) return FAULT;
  const view = new DataView(bytes.buffer), asked: number[] = [];
  for (let i = 0; i < bytes.length; i += POLLFD_BYTES) {
    const events = view.getInt16(i + 4, true);
    asked.push(events);
    const normal = events & (POLLWRNORM | POLLWRBAND) ? POLLOUT : 0;
    view.setInt16(i + 4, (events & ~(POLLWRNORM | POLLWRBAND)) | normal, true);
  }
  const found = yield* dopoll(cx, bytes, ticks);
  if ("error" in found) return found;
  asked.forEach((events, i) => {
    const revents = view.getInt16(i * POLLFD_BYTES + 6, true);
    const writable = revents & POLLOUT ? events & (POLLOUT | POLLWRNORM | POLLWRBAND) : 0;
    view.setInt16(i * POLLFD_BYTES + 4, events, true);
    view.setInt16(i * POLLFD_BYTES + 6, (revents & ~POLLOUT) | writable, true);
  });
  const error = yield* copyout(cx, at, bytes);
  return error !== 0 ? { error } : { value: BigInt(found.count) };
}

/** poll(fds, n, milliseconds). */
function* sysPoll(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const ms = uap.int(2);
  return yield* poll(cx, uap.arg(0), uap.uint(1), ms < 0 ? undefined : Math.ceil(ms * hz / 1000));
}

/** ppoll(fds, n, timespec, set, size). */
function* ppoll(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const span = yield* ticksOf(cx, uap.arg(2), 1e9);
  if ("error" in span) return span;
  const error = yield* useMask(cx, uap.arg(3), uap.arg(4));
  return error !== 0 ? { error } : yield* poll(cx, uap.arg(0), uap.uint(1), span.ticks);
}

/** System calls of this file. */
export const linuxTimeSyscalls: SyscallTable = [
  [7, "poll", 3, sysPoll],
  [23, "select", 5, select],
  same(35, "nanosleep", 2, 240),
  same(36, "getitimer", 2, 86),
  [37, "alarm", 1, alarm],
  same(38, "setitimer", 3, 83),
  same(96, "gettimeofday", 2, 116),
  [100, "times", 1, times],
  [201, "time", 1, time],
  [228, "clock_gettime", 2, sysClockGettime],
  [229, "clock_getres", 2, sysClockGetres],
  [230, "clock_nanosleep", 4, clockNanosleep],
  [270, "pselect6", 6, pselect6],
  [271, "ppoll", 5, ppoll],
];
