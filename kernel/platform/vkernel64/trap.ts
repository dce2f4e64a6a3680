/**
 * Entering and leaving guest user mode (`go_user`, `user_trap`, `kern_trap` of `sys/platform/vkernel64/x86_64/trap.c`).
 *
 * Room: `kernel/platform/vkernel64/`; imports the kernel's trap code and the host's calls.
 *
 * A thread of a process loops here for ever: the host runs its registers in its address space until something happens, and the answer to
 * vmspace_ctl is what happened.
 *
 * @module
 */
import { gva } from "../../../hw/address.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import { ERRNO } from "../../kern/errno.ts";
import { panic } from "../../kern/panic.ts";
import { syscallAt, userret, userTrapAt } from "../../trap/trap.ts";
import { T_DIVIDE } from "../../vm/vkernel_trap.ts";
import { VMSPACE_CTL_RUN } from "../../vm/vm_vmspace.ts";
import { T_FAST_SYSCALL, TF } from "../pc64/frame.ts";
import { PCB } from "../pc64/pcb.ts";
import { errorName, host, SYS } from "./host.ts";
import type { Vkernel64 } from "./vkernel64.ts";

const RDI = 7;

/** Runs the current thread's program (`go_user`). */
export function* goUser(cx: Cx, platform: Vkernel64): Exec<never> {
  for (;;) {
    const trapno = yield* runUser(cx, platform);
    const frame = gva(cx.lwp!.lwpMdRegs!);
    if (trapno === T_FAST_SYSCALL) yield* syscallAt(cx, frame);
    else if (trapno !== 0) yield* userTrapAt(cx, frame, trapno === T_DIVIDE ? 0 : trapno);
  }
}

/** Runs it until something happens, which is in the frame; gives its tf_trapno, 0 for a signal. */
export function* runUser(cx: Cx, platform: Vkernel64): Exec<number> {
  const { cpu } = cx;
  yield* userret(cx);
  const lwp = cx.lwp!, frame = gva(lwp.lwpMdRegs!);
  const vext = gva(cx.td.tdPcb + BigInt(PCB.fsBase));
  yield* cpu.store64(vext, lwp.lwpTls);
  yield* cpu.store64(gva(vext + 8n), lwp.lwpGsbase);
  const id = platform.idOf(lwp.lwpVmspace!.vmPmap);
  const vcpu = platform.vcpu(cpu);
  // Nothing ends the step between here and the call: a signal finds the one or the other.
  vcpu.inUser = true;
  const { errno } = yield* host(cpu, SYS.vmspace_ctl, id, VMSPACE_CTL_RUN, frame, vext);
  vcpu.inUser = false;
  vcpu.intrEnabled = true;
  if (errno === ERRNO.EINTR) return 0;
  if (errno !== 0) panic(cx, `go_user: vmspace_ctl: ${errorName(errno)}`);
  return Number(yield* cpu.load64(gva(frame + BigInt(TF.trapno))));
}

/** A signal for what the vkernel did itself: there is nothing that it could have meant to do. RDI = its number, RCX = the address. */
export function* signalFault(cx: Cx): Exec<void> {
  const sig = cx.cpu.gpr(RDI), at = cx.cpu.gpr(1);
  panic(cx, `signal ${sig} in the vkernel, at address 0x${at.toString(16)}`);
}
