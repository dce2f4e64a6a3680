/**
 * What the clock keeps about processes: times by kind, averages, time limits (`statclock`, `loadav`, `schedcpu` of `sys/kern/kern_synch.c`).
 *
 * Room: `kernel/proc/`; a hook of the clock interrupt ({@link "../kern/kern_clock.ts"}).
 *
 * @module
 */
import type { Cx } from "../context.ts";
import { hz, ustick } from "../lwkt/callout.ts";
import { ksignal } from "./kern_sig_send.ts";
import { itimerTick } from "./kern_time.ts";
import { LSRUN, LSSLEEP, type Proc } from "./proc.ts";
import { RLIMIT_CPU } from "./resource.ts";
import { SIGKILL, SIGXCPU } from "./signal.ts";

/** Ticks between two samples of the load: 5 seconds. */
const LOAD_TICKS = 5 * hz;
/** Weights of a new sample in the averages of 1, 5 and 15 minutes. */
const WEIGHTS = [1 - Math.exp(-1 / 12), 1 - Math.exp(-1 / 60), 1 - Math.exp(-1 / 180)] as const;

/** One clock tick on one processor. */
export function statclock(cx: Cx, user: boolean): void {
  const { k, gd } = cx, td = gd.gdCurthread, p = td.tdProc;
  const times = k.cpTime[gd.gdCpuid] ??= [0, 0, 0, 0, 0];
  if (user) times[p !== undefined && p.pNice > 0 ? 1 : 0]++;
  else if (td === gd.gdIdlethread) times[4]++;
  else times[2]++;
  itimerTick(cx, user);
  if (gd.gdCpuid !== 0) return;
  if (k.ticks % hz === 0) everySecond(cx);
  if (k.ticks % LOAD_TICKS === 0) loadav(cx);
}

function loadav(cx: Cx): void {
  let runnable = 0;
  for (const p of cx.k.procs.allproc.values()) {
    for (const lp of p.pLwps.values()) if (lp.lwpStat === LSRUN) runnable++;
  }
  WEIGHTS.forEach((weight, i) => cx.k.loadavg[i]! += weight * (runnable - cx.k.loadavg[i]!));
}

function everySecond(cx: Cx): void {
  for (const p of cx.k.procs.allproc.values()) {
    for (const lp of p.pLwps.values()) {
      if (lp.lwpStat === LSSLEEP) lp.lwpSlptime++;
      else lp.lwpSlptime = 0;
    }
    cpuLimit(cx, p);
  }
}

/** RLIMIT_CPU: SIGXCPU each second over the soft limit, SIGKILL at the hard one. */
function cpuLimit(cx: Cx, p: Proc): void {
  const limit = p.pLimit.cur(RLIMIT_CPU);
  if (limit === Infinity) return;
  let ticks = 0;
  for (const { lwpThread: td } of p.pLwps.values()) ticks += (td?.tdUticks ?? 0) + (td?.tdSticks ?? 0);
  const seconds = ((p.pRu.ruUtime + p.pRu.ruStime) + ticks * ustick) / 1e6;
  if (seconds < limit) return;
  ksignal(cx, p, seconds >= Number(p.pLimit.plRlimit[RLIMIT_CPU]!.rlimMax) ? SIGKILL : SIGXCPU);
}
