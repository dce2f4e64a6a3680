/**
 * Leaving guest user mode (`vkernel_trap`, `vkernel_lwp_exit` of `sys/vm/vm_vmspace.c`, `cpu_vkernel_trap`).
 *
 * Room: `kernel/vm/`; imports the pmap's switch, copy and the frame's layout. Called by trap() for what the host cannot mend, by syscall2() at
 * its entry, before a signal's handler is entered, and by VM exits.
 *
 *     guest code ─ exception, system call, signal ─► vkernel_trap:  1  the thread is in the process's own address space again
 *                                                                   2  the guest's registers are copied out to the vkernel
 *                                                                   3  the vkernel's registers are in the frame; vmspace_ctl gives 0 or EFAULT
 *
 * Between 1 and 2 nothing of the vkernel's memory is touched, so that no copy ever goes to the guest's addresses; and no signal handler
 * and no system call of the host ever runs in a guest's address space.
 *
 * What is left out: DragonFly's PGEX_FPFAULT, by which a vkernel asks that its guest's first use of the FPU faults. FPU and SSE registers belong to the
 * thread, whoever's code it runs; the vkernel saves and restores them itself when it switches between its guests' threads.
 *
 * @module
 */
import { type Gva, gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyout } from "../kern/copy.ts";
import { ktrace } from "../kern/ktr.ts";
import { kassert } from "../kern/panic.ts";
import { TF, TF_BYTES } from "../platform/pc64/frame.ts";
import { pmapSetlwpvm } from "../pmap/pmap_switch.ts";
import type { Lwp } from "../proc/proc.ts";

/**
 * `tf_trapno` of a divide error as vkernels see it (`T_DIVIDE`). Other exceptions have their vector there, system calls T_FAST_SYSCALL; a
 * divide error's vector, 0, would say that only a signal came. (18 is the vector of machine checks, which no program ever sees.)
 * Deviation: DragonFly has T_* numbers of its own for all of them.
 */
export const T_DIVIDE = 18;

/** Makes {@link T_DIVIDE} of vector 0. */
export function vkernelTrapno(vector: number): number {
  return vector === 0 ? T_DIVIDE : vector;
}

const CARRY = 1n;

/**
 * The current thread leaves guest user mode for its vkernel. Afterwards it is about to come back from vmspace_ctl.
 *
 * Preconditions: `lwpVkernel.inGuest`.
 *
 * @param at The frame of the entry from user mode, with the guest's registers, tf_err and tf_addr.
 * @param trapno What the vkernel shall find in tf_trapno: 0 for a signal, T_FAST_SYSCALL, or by {@link vkernelTrapno}.
 */
export function* vkernelTrap(cx: Cx, at: Gva, trapno: number): Exec<void> {
  const lp = cx.lwp!, { vkernel, platform } = cx.k;
  const vklp = lp.lwpVkernel;
  kassert(vklp !== undefined && vklp.inGuest, "vkernel_trap: the thread is not in guest user mode");
  vkernel.traps++;
  vkernel.trapsByNumber.set(trapno, (vkernel.trapsByNumber.get(trapno) ?? 0) + 1);
  ktrace(cx, "vkernel_trap", trapno, lp.lwpProc.pPid);
  yield* switchBack(cx, lp);
  const frame = yield* cx.cpu.loadBytes(at, TF_BYTES);
  new DataView(frame.buffer).setBigUint64(TF.trapno, BigInt(trapno), true);
  const error = yield* copyout(cx, vklp.userTrapframe, frame);
  const own = vklp.saveTrapframe;
  const view = new DataView(own.buffer);
  const rflags = view.getBigUint64(TF.rflags, true);
  view.setBigUint64(TF.rax, BigInt(error), true);
  view.setBigUint64(TF.rflags, error === 0 ? rflags & ~CARRY : rflags | CARRY, true);
  yield* cx.cpu.storeBytes(at, own);
  const { fsbase, gsbase } = vklp.saveVextframe;
  if (platform.getGsbase(cx) !== gsbase) yield* platform.setGsbase(cx, gsbase);
  if (platform.getTls(cx) !== fsbase) yield* platform.setTls(cx, fsbase);
}

/** The thread is in its process's address space again, and out of the guest's for good. */
function* switchBack(cx: Cx, lp: Lwp): Exec<void> {
  const vklp = lp.lwpVkernel!;
  if (vklp.veVmm !== undefined) {
    vklp.veVmm = undefined;
    yield* cx.k.vkernel.vmm!.leave(cx, lp);
  }
  const { ve } = vklp;
  if (ve === undefined) return;
  vklp.ve = undefined;
  yield* pmapSetlwpvm(cx, lp, lp.lwpProc.pVmspace!);
  // Only now may the space be destroyed: this processor had its tables.
  kassert(ve.refs > 0, "vkernel_trap: no reference");
  ve.refs--;
}

/** A signal's handler will be entered: if guest code runs, the vkernel comes back first, with trap number 0. */
export function* vkernelBeforeSignal(cx: Cx): Exec<void> {
  const lp = cx.lwp!;
  if (lp.lwpVkernel?.inGuest) yield* vkernelTrap(cx, gva(lp.lwpMdRegs!), 0);
}

/** The current thread ends, or its process does (`vkernel_lwp_exit`): it is in no guest's space any more. */
export function* vkernelLwpExit(cx: Cx, lp: Lwp): Exec<void> {
  const vklp = lp.lwpVkernel;
  if (vklp === undefined) return;
  if (vklp.veVmm !== undefined && cx.k.bug("vmm-ve-free")) {
    // Historical bug (e1ea8b243e): the vkernel's word is taken for an entry. Here it is at least looked up.
    const ve = lp.lwpProc.pVkernel?.root.get(vklp.veVmm);
    kassert(ve !== undefined && ve.refs > 0, "vkernel_lwp_exit: no reference");
    ve.refs--;
  }
  yield* switchBack(cx, lp);
  lp.lwpVkernel = undefined;
}
