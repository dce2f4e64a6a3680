/**
 * What processes have used, and `struct rusage` in user memory.
 *
 * Room: `kernel/proc/`; imports proc and copy. Times are what the clock's ticks saw (10 ms each).
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyout } from "../kern/copy.ts";
import { ustick } from "../lwkt/callout.ts";
import type { Lwp, Proc } from "./proc.ts";
import { Rusage } from "./resource.ts";

/** Bytes of `struct rusage`. */
export const RUSAGE_BYTES = 144;

/** Adds a thread's times and switches to `ru`, and the process's resident set as it is now. */
export function procRusage(p: Proc, ru: Rusage, lp: Lwp): void {
  const td = lp.lwpThread;
  if (td !== undefined) {
    ru.ruUtime += td.tdUticks * ustick;
    ru.ruStime += (td.tdSticks + td.tdIticks) * ustick;
    ru.ruNvcsw += td.tdVcsw;
    ru.ruNivcsw += td.tdIvcsw;
  }
  const resident = p.pVmspace?.vmPmap.pmStats.residentCount ?? 0;
  ru.ruMaxrss = Math.max(ru.ruMaxrss, resident * 4);
}

/** What a process has used so far: its ended threads and its living ones (`calcru_proc`). */
export function calcru(p: Proc): Rusage {
  const ru = new Rusage();
  ru.add(p.pRu);
  for (const lp of p.pLwps.values()) {
    ru.add(lp.lwpRu);
    procRusage(p, ru, lp);
  }
  return ru;
}

/** The bytes of a `struct rusage`. */
export function encodeRusage(ru: Rusage): Uint8Array<ArrayBuffer> {
  const words = [
    Math.floor(ru.ruUtime / 1e6),
    ru.ruUtime % 1e6,
    Math.floor(ru.ruStime / 1e6),
    ru.ruStime % 1e6,
    ru.ruMaxrss,
    0,
    0,
    0,
    ru.ruMinflt,
    ru.ruMajflt,
    ru.ruNswap,
    ru.ruInblock,
    ru.ruOublock,
    0,
    0,
    ru.ruNsignals,
    ru.ruNvcsw,
    ru.ruNivcsw,
  ];
  return new Uint8Array(BigUint64Array.from(words, (word) => BigInt(Math.floor(word))).buffer);
}

/** Writes a `struct rusage` into user memory; 0 or EFAULT. */
export function writeRusage(cx: Cx, at: bigint, ru: Rusage): Exec<number> {
  return copyout(cx, at, encodeRusage(ru));
}
