/**
 * Telling TLBs (`sys/platform/pc64/x86_64/pmap_inval.c`, 2013): the two-stage interlock.
 *
 * Room: `kernel/pmap/`; imports the rendezvous. Reference: section 6.
 *
 * A CPU that has a pmap active may set A and M in an entry at any moment, and uses what its TLB holds. So a live entry is changed only
 * while no such CPU executes user code:
 *
 *     pmapInvalInterlock     lock the pmap's set of CPUs; every CPU of the set is in its IPI handler now; pmInvgen + 1
 *       … the caller changes the entry …
 *     pmapInvalDeinterlock   unlock the set; every CPU of the set, this one too, forgets the translation and goes on
 *
 * Ordering rules (section 6.4):
 *
 *     0 → valid, user                       nothing: nobody caches what is not there
 *     0 → valid, kernel                     interlock (conservative)
 *     valid → 0, other frame, RW → RO       interlock around the change
 *     clear A, or M alone                   atomic, no flush; M alone only when the page is known to be dirty anyway
 *     free a table page                     only when no CPU has the pmap active
 *
 * The set of CPUs is read in the same step in which it is locked, and a CPU that wants to become active meanwhile waits for the unlock
 * (pmap_switch.ts): it cannot be missed, and cannot come late.
 *
 * In a vkernel the kernel below does the rendezvous, in one request after the change: interlock only notes the page. That is enough because entries are
 * changed by exchange, and whoever sets M does it in the entry before he lets anybody write: what the exchange gives is all there will be.
 *
 * The caller holds no spinlock (a CPU that spins for one does not answer); it may hold pv locks. It must not sleep in between.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import {
  LwktCpusync,
  lwktCpusyncDeinterlock,
  lwktCpusyncInterlock,
  lwktCpusyncSimple,
} from "../lwkt/cpusync.ts";
import { lwktProcessIpiq } from "../lwkt/ipiq.ts";
import { critEnter, critExit } from "../lwkt/thread.ts";
import type { Pmap } from "./pmap.ts";

const PAGE = 0x1000n;
/** `pir_va` for everything that is not global. */
export const PIR_ALL = 0xffff_ffff_ffff_ffffn as Gva;

/** An invalidation under way (`struct pmap_inval_info`). */
export class PmapInvalInfo {
  /** `pir_va`: the page, or {@link PIR_ALL}. */
  pirVa: Gva = PIR_ALL;
  /** `pir_cpusync`; set between interlock and deinterlock (PIRF_CPUSYNC). */
  pirCpusync: LwktCpusync | undefined = undefined;
}

/** Runs on every CPU of the set (`pmap_inval_callback`). */
function pmapInvalCallback(cx: Cx, arg: unknown): void {
  const { pirVa } = arg as PmapInvalInfo, { kernelPmap } = cx.k.pmap;
  // Where processors rendezvous themselves these are single instructions, done when they come back.
  if (pirVa === PIR_ALL) cx.k.platform.invltlb(cx, kernelPmap);
  else cx.k.platform.invlpg(cx, pirVa, kernelPmap);
}

/** Begins a series of invalidations: a critical section (`pmap_inval_init`). */
export function pmapInvalInit(cx: Cx): PmapInvalInfo {
  critEnter(cx);
  return new PmapInvalInfo();
}

/** Quiesces every CPU that has the pmap active (`pmap_inval_interlock`). On return the caller may change entries for `va`. */
export function* pmapInvalInterlock(cx: Cx, info: PmapInvalInfo, pmap: Pmap, va: Gva): Exec<void> {
  yield* cx.racePoint();
  if (cx.k.platform.remoteInval !== undefined) {
    kassert(info.pirCpusync === undefined, "pmap_inval_interlock: an interlock is open already");
    info.pirVa = va;
    cx.k.pmap.invalInterlocks++;
    return;
  }
  // Historical bug (cc694a4adf): the set is read first, and then locked. Who joins it in between is missed.
  const early = cx.k.bug("inval-mask-order") ? pmap.pmActive : undefined;
  if (early !== undefined) { for (let i = 0; i < 4; i++) yield* cx.racePoint(); }
  while (pmap.pmActiveLock) {
    // Whoever has the lock may be waiting for this CPU.
    yield* lwktProcessIpiq(cx, false);
    yield* cx.pause();
  }
  // In one step: lock, and read the set.
  pmap.pmActiveLock = true;
  kassert(info.pirCpusync === undefined, "pmap_inval_interlock: an interlock is open already");
  info.pirVa = va;
  let mask = early ?? pmap.pmActive;
  // Not DragonFly's, the simplest mistake: only this CPU forgets the translation.
  if (cx.k.bug("inval-no-ipi")) mask &= cx.gd.gdCpumask;
  info.pirCpusync = new LwktCpusync(mask, pmapInvalCallback, info);
  yield* lwktCpusyncInterlock(cx, info.pirCpusync);
  pmap.pmInvgen++;
  cx.k.pmap.invalInterlocks++;
}

/** Between interlock and deinterlock: flush everything instead of one page (`pmap_inval_invltlb`). */
export function pmapInvalInvltlb(info: PmapInvalInfo): void {
  info.pirVa = PIR_ALL;
}

/** Lets the CPUs go, each through its invalidation (`pmap_inval_deinterlock`). */
export function* pmapInvalDeinterlock(cx: Cx, info: PmapInvalInfo, pmap: Pmap): Exec<void> {
  const remote = cx.k.platform.remoteInval;
  if (remote !== undefined) {
    pmap.pmInvgen++;
    if (info.pirVa === PIR_ALL) yield* remote.all(cx, pmap);
    else yield* remote.range(cx, pmap, info.pirVa, PAGE);
    return;
  }
  const cs = info.pirCpusync;
  kassert(cs !== undefined, "pmap_inval_deinterlock: no interlock is open");
  pmap.pmActiveLock = false;
  yield* lwktCpusyncDeinterlock(cx, cs);
  info.pirCpusync = undefined;
}

/** Ends what {@link pmapInvalInit} began (`pmap_inval_done`). */
export function* pmapInvalDone(cx: Cx, info: PmapInvalInfo): Exec<void> {
  kassert(info.pirCpusync === undefined, "pmap_inval_done: an interlock is open");
  yield* critExit(cx);
}

/**
 * Every CPU forgets all that is not global (`smp_invltlb`). Does not synchronise with changes of entries: for mappings that nobody uses while
 * they change.
 *
 * Deviation: DragonFly has a vector of its own for it (XINVLTLB); here it is a rendezvous.
 */
export function* smpInvltlb(cx: Cx): Exec<void> {
  cx.k.pmap.smpInvltlbs++;
  const remote = cx.k.platform.remoteInval;
  if (remote !== undefined) return yield* remote.all(cx, cx.k.pmap.kernelPmap);
  yield* lwktCpusyncSimple(cx, cx.k.lwkt.smpActiveMask | cx.gd.gdCpumask, invltlbHere, undefined);
}

function invltlbHere(cx: Cx): void {
  cx.k.platform.invltlb(cx, cx.k.pmap.kernelPmap);
}
