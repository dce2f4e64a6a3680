/**
 * Messages between processors (`sys/kern/lwkt_ipiq.c`).
 *
 * Room: `kernel/lwkt/`; imports the context, and the platform for the interrupt itself.
 *
 * A queue belongs to a pair (source, target). The source advances `ip_windex`; the target advances `ip_rindex` before the function
 * runs and `ip_xindex` after it. A message is in the queue at once; the interrupt that announces it goes out at the sender's next
 * {@link "../platform/platform.ts"} `flushIpis`: {@link lwktSendIpiq} does that itself, plain functions (a wakeup in an
 * interrupt) leave it to the end of the interrupt, to the next switch or to the return to user mode.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import type { LwktCpusync } from "./cpusync.ts";
import { type Globaldata, RQF } from "./globaldata.ts";

/** Entries of DragonFly's ring (`MAXCPUFIFO`). The ring here grows where a plain function cannot wait; who can wait keeps to it. */
export const MAXCPUFIFO = 32;

/** What a message runs; it must not sleep. */
export type IpiFunc = (cx: Cx, arg: unknown) => void | Exec<void>;

/** One direction between two processors (`struct lwkt_ipiq`). */
export class LwktIpiq {
  /** Messages that have not been taken, oldest first. */
  readonly messages: { readonly fn: IpiFunc; readonly arg: unknown }[] = [];
  /** `ip_windex`, `ip_rindex`, `ip_xindex`: messages sent, taken, done. */
  ipWindex = 0;
  ipRindex = 0;
  ipXindex = 0;
}

function queueOf(target: Globaldata, source: Globaldata): LwktIpiq {
  return target.gdIpiq[source.gdCpuid] ??= new LwktIpiq();
}

/** Puts a message in the target's queue; its interrupt goes out with the next flush. */
export function ipiqEnqueue(cx: Cx, target: Globaldata, fn: IpiFunc, arg: unknown): void {
  const ipiq = queueOf(target, cx.gd);
  ipiq.messages.push({ fn, arg });
  ipiq.ipWindex++;
  target.gdReqflags |= RQF.IPIQ;
  if (target !== cx.gd && !target.gdNpoll) {
    target.gdNpoll = true;
    cx.k.platform.requestIpi(cx, target);
  }
}

/** Runs `fn` on another processor (`lwkt_send_ipiq`); on this one at once. Waits while the ring is more than half full. */
export function* lwktSendIpiq(cx: Cx, target: Globaldata, fn: IpiFunc, arg: unknown): Exec<void> {
  const gd = cx.gd;
  if (target === gd) {
    const running = fn(cx, arg);
    if (running !== undefined) yield* running;
    return;
  }
  const ipiq = queueOf(target, gd);
  ipiqEnqueue(cx, target, fn, arg);
  cx.k.vmmeter.vIpi++;
  yield* cx.k.platform.flushIpis(cx);
  if (ipiq.messages.length <= MAXCPUFIFO / 2) return;
  cx.td.tdCritcount++;
  while (ipiq.messages.length > MAXCPUFIFO / 4) {
    yield* lwktProcessIpiq(cx, false);
    yield* cx.pause();
  }
  cx.td.tdCritcount--;
}

/** The same for each processor of a mask, in ascending order (`lwkt_send_ipiq_mask`). */
export function* lwktSendIpiqMask(cx: Cx, mask: number, fn: IpiFunc, arg: unknown): Exec<void> {
  for (const gd of cx.k.lwkt.gds) {
    if (mask & gd.gdCpumask) yield* lwktSendIpiq(cx, gd, fn, arg);
  }
}

/**
 * Takes and runs what others have sent here (`lwkt_process_ipiq`). The processor must be in a critical section or in its IPI handler.
 *
 * @param linger Stay until the rendezvous that this processor joined are over; a master of a rendezvous, who waits itself, does not.
 */
export function* lwktProcessIpiq(cx: Cx, linger = true): Exec<void> {
  const gd = cx.gd;
  for (;;) {
    // Before looking: who puts a message in from here on sends an interrupt again. Historical bug: after it.
    const late = cx.k.bug("ipi-lost");
    if (!late) acceptIpis(gd);
    let ran = true;
    while (ran) {
      ran = false;
      for (const ipiq of gd.gdIpiq) {
        const message = ipiq?.messages.shift();
        if (message === undefined) continue;
        ran = true;
        ipiq!.ipRindex++;
        const running = message.fn(cx, message.arg);
        if (running !== undefined) yield* running;
        ipiq!.ipXindex++;
      }
    }
    if (late) {
      yield* cx.racePoint();
      acceptIpis(gd);
    }
    pollCpusync(cx, gd);
    if (gd.gdCpusyncq.length === 0) return;
    if (!linger) {
      gd.gdReqflags |= RQF.IPIQ;
      return;
    }
    yield* cx.pause();
  }
}

/** The requests that there are have been seen: the next one is an interrupt again. */
function acceptIpis(gd: Globaldata): void {
  gd.gdReqflags &= ~RQF.IPIQ;
  gd.gdNpoll = false;
}

/** `lwkt_cpusync_remote2` for every rendezvous that waits here: when the master has let go, runs its function and says so. */
function pollCpusync(cx: Cx, gd: Globaldata): void {
  const waiting: LwktCpusync[] = [];
  for (const cs of gd.gdCpusyncq.splice(0)) {
    if (cs.csMack & gd.gdCpumask) {
      waiting.push(cs);
      continue;
    }
    cs.csFunc?.(cx, cs.csData);
    cs.csMack |= gd.gdCpumask;
  }
  gd.gdCpusyncq.push(...waiting);
}
