/**
 * Interrupts of a vkernel (`sys/platform/vkernel64/platform/systimer.c`, `machintr.c`): what a signal's handler does, and what waits for the end
 * of a critical section.
 *
 * Room: `kernel/platform/vkernel64/`; imports lwkt, the clock, the host's calls.
 *
 *     SIGALRM   the clock, on processor 0, which tells the others by message
 *     SIGUSR1   another processor has put something into this one's queues
 *     SIGIO     a cothread has something: console input, the end of a disk request
 *
 * @module
 */
import { gva } from "../../../hw/address.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import { ERRNO } from "../../kern/errno.ts";
import { hardclock } from "../../kern/kern_clock.ts";
import { RQF } from "../../lwkt/globaldata.ts";
import { ipiqEnqueue, lwktProcessIpiq } from "../../lwkt/ipiq.ts";
import { USER_GATE_SYSCALL } from "../../proc/user_gate.ts";
import { TF } from "../pc64/frame.ts";
import { SIGALRM, SIGUSR1 } from "./host.ts";
import { runHandlers } from "./devices.ts";
import type { Vcpu, Vkernel64 } from "./vkernel64.ts";

/** Stand in `gd_ipending`. */
const PENDING_TIMER = 1000, PENDING_IO = 1001;
/** Where a signal frame's ucontext has the trap frame (kernel/proc/sendsig.ts). */
const UC_FRAME = 72n;
const CARRY = 1n;
/** Bytes of the SYSCALL instruction. */
const SYSCALL_BYTES = 2n;
const RDI = 7, RDX = 2;

/** A signal that stands for an interrupt. RDI = its number, RDX = the ucontext. */
export function* signalIntr(cx: Cx, platform: Vkernel64): Exec<void> {
  const { cpu } = cx;
  const sig = Number(cpu.gpr(RDI)), uc = cpu.gpr(RDX);
  const gd = cx.gd, vcpu = platform.vcpu(cpu);
  // Before there are threads.
  if (gd === undefined) return;
  cx.k.vmmeter.vIntr++;
  const user = vcpu.inUser;
  if (user) yield* cancelRun(cx, uc);
  const td = gd.gdCurthread;
  if (!user && (!vcpu.intrEnabled || td.tdCritcount > 0)) {
    if (sig === SIGUSR1) gd.gdReqflags |= RQF.IPIQ;
    else {
      gd.gdIpending.push(sig === SIGALRM ? PENDING_TIMER : PENDING_IO);
      gd.gdReqflags |= RQF.INTPEND;
    }
  } else {
    td.tdCritcount++;
    gd.gdIntrNestingLevel++;
    if (sig === SIGUSR1) yield* lwktProcessIpiq(cx);
    else if (sig === SIGALRM) clock(cx, platform);
    else yield* runHandlers(cx, platform);
    gd.gdIntrNestingLevel--;
    td.tdCritcount--;
    yield* platform.flushIpis(cx);
  }
  // An idle processor that is about to sleep on the word must not.
  yield* cpu.store32(gva(vcpu.gd), 1);
}

/**
 * The thread is about to enter guest user mode: it has looked for work, and has not made the call yet. The call then fails with EINTR instead, so
 * that it looks again.
 */
function* cancelRun(cx: Cx, uc: bigint): Exec<void> {
  const { cpu } = cx;
  const at = (offset: number) => gva(uc + UC_FRAME + BigInt(offset));
  if ((yield* cpu.load64(at(TF.rip))) !== USER_GATE_SYSCALL) return;
  yield* cpu.store64(at(TF.rip), USER_GATE_SYSCALL + SYSCALL_BYTES);
  yield* cpu.store64(at(TF.rax), BigInt(ERRNO.EINTR));
  yield* cpu.store64(at(TF.rflags), (yield* cpu.load64(at(TF.rflags))) | CARRY);
}

/** A tick on processor 0, and a message to each of the others. */
function clock(cx: Cx, platform: Vkernel64): void {
  hardclock(cx, platform.vcpu(cx.cpu).inUser);
  for (const gd of cx.k.lwkt.gds) {
    if (gd !== cx.gd) ipiqEnqueue(cx, gd, clockHere, platform.vcpus[gd.gdCpuid]);
  }
}

function clockHere(cx: Cx, arg: unknown): void {
  hardclock(cx, (arg as Vcpu).inUser);
}

/** Runs what was noted in `gd_ipending`; the thread is in a critical section. */
export function* runPending(cx: Cx, platform: Vkernel64): Exec<void> {
  for (;;) {
    const gd = cx.gd;
    const pending = gd.gdIpending.shift();
    if (pending === undefined) return;
    gd.gdIntrNestingLevel++;
    if (pending === PENDING_TIMER) clock(cx, platform);
    else yield* runHandlers(cx, platform);
    gd.gdIntrNestingLevel--;
  }
}
