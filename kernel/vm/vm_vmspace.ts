/**
 * The system calls of vkernels (`sys/vm/vm_vmspace.c`): address spaces for their processes, and running code in them.
 *
 * Room: `kernel/vm/`; imports the calls' inner parts from vm_mmap, the entries, the pmap's switch.
 *
 *     vmspace_create(id, type, data)                    an empty address space that the vkernel calls `id`
 *     vmspace_destroy(id)                               EBUSY while a thread is in it or a call works on it
 *     vmspace_ctl(id, VMSPACE_CTL_RUN, tframe, vframe)  these registers, in that space; comes back by vkernel_trap.ts
 *     vmspace_mmap, _munmap, _mcontrol                  mmap, munmap, mcontrol there
 *     vmspace_pread, _pwrite                            EINVAL: never implemented, in DragonFly either
 *
 * Nothing works unless `vm.vkernel_enable` is on: EOPNOTSUPP. A process that has no address space of this kind gets EINVAL, an id that there is
 * not ENOENT.
 *
 * What a vkernel hands over for the guest's registers is made harmless, not believed: selectors and system flags of RFLAGS are the
 * host's, RIP and the segment bases must be canonical addresses of the lower half, and words of the frame that are not registers
 * stay what they are. A guest that has no business at an address faults there, and the fault is the vkernel's.
 *
 * A vkernel that runs on the VMM (`kernel/vmm/`) makes the same calls; address spaces are then page tables of its own, `id` is the guest CR3, and
 * all but vmspace_ctl do nothing.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { ktrace } from "../kern/ktr.ts";
import {
  EJUSTRETURN,
  SYSCALL_OK,
  type SyscallArgs,
  type SyscallResult,
  type SyscallTable,
} from "../kern/sysent.ts";
import { TF, TF_BYTES } from "../platform/pc64/frame.ts";
import { pmapSetlwpvm } from "../pmap/pmap_switch.ts";
import type { Lwp } from "../proc/proc.ts";
import { PSL_RF, PSL_USERCHANGE, PSL_USERSET } from "../proc/psl.ts";
import { type Vextframe, VEXTFRAME_BYTES, VkernelLwp, type VkernelProc } from "./vkernel_state.ts";
import { kernMadvise, kernMmap, kernMunmap } from "./vm_mmap.ts";
import {
  vkernelFindVmspace,
  vmspaceEntryCreate,
  vmspaceEntryDestroy,
  vmspaceEntryDrop,
} from "./vm_vmspace_entry.ts";
import type { Vmspace } from "./vmspace.ts";

/** `cmd` of vmspace_ctl: run guest code until it traps. */
export const VMSPACE_CTL_RUN = 1;

const { EINVAL, ENOENT, EFAULT, EOPNOTSUPP } = ERRNO;

/** Addresses from here up are not canonical, or not the user's. */
const CANONICAL_LOW_END = 1n << 47n;

/** The vkernel side of the calling process, or why there is none. */
function vkernelOf(cx: Cx): VkernelProc | number {
  if (!cx.k.vmMap.vkernelEnable) return EOPNOTSUPP;
  return cx.proc!.pVkernel ?? EINVAL;
}

/** Whether the calling thread's vkernel runs on the VMM. */
function isVmm(cx: Cx): boolean {
  return cx.k.vkernel.vmm?.isVmm(cx.lwp!) === true;
}

/** vmspace_create(id, type, data) (486). `type` and `data` are not looked at, as in DragonFly. */
function* sysVmspaceCreate(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  if (!cx.k.vmMap.vkernelEnable) return { error: EOPNOTSUPP };
  if (isVmm(cx)) return SYSCALL_OK;
  const error = yield* vmspaceEntryCreate(cx, cx.proc!, uap.arg(0));
  return error === 0 ? SYSCALL_OK : { error };
}

/** vmspace_destroy(id) (487). */
function* sysVmspaceDestroy(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const vkp = vkernelOf(cx);
  if (typeof vkp === "number") return { error: vkp };
  if (isVmm(cx)) return SYSCALL_OK;
  const error = yield* vmspaceEntryDestroy(cx, vkp, uap.arg(0));
  return error === 0 ? SYSCALL_OK : { error };
}

/** vmspace_ctl(id, cmd, tframe, vframe) (488). */
function* sysVmspaceCtl(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const vkp = vkernelOf(cx);
  if (typeof vkp === "number") return { error: vkp };
  if (uap.int(1) !== VMSPACE_CTL_RUN) return { error: EOPNOTSUPP };
  const error = yield* run(cx, vkp, uap.arg(0), uap.arg(2), uap.arg(3));
  return { error: error === 0 ? EJUSTRETURN : error };
}

/** VMSPACE_CTL_RUN: 0, and the way back to user mode leads into the guest; or an error number, and nothing has changed. */
function* run(cx: Cx, vkp: VkernelProc, id: bigint, tframe: bigint, vframe: bigint): Exec<number> {
  const lp = cx.lwp!, at = lp.lwpMdRegs as Gva;
  const vmm = isVmm(cx) ? cx.k.vkernel.vmm : undefined;
  const ve = vkp.root.get(id);
  if (vmm === undefined) {
    if (ve === undefined) return ENOENT;
    // Here, and not behind what sleeps. It is given back where the thread leaves the space.
    ve.refs++;
  }
  const own = yield* cx.cpu.loadBytes(at, TF_BYTES);
  const guest = yield* guestState(cx, own, tframe, vframe);
  let error = typeof guest === "number" ? guest : 0;
  if (error === 0 && vmm !== undefined) error = yield* vmm.enter(cx, lp, id);
  if (error !== 0 || typeof guest === "number") {
    if (vmm === undefined) ve!.refs--;
    return error;
  }
  const { platform, vkernel } = cx.k;
  const vklp = lp.lwpVkernel ??= new VkernelLwp();
  vklp.saveTrapframe = own;
  vklp.saveVextframe = { fsbase: platform.getTls(cx), gsbase: platform.getGsbase(cx) };
  vklp.userTrapframe = tframe;
  vklp.userVextframe = vframe;
  vkernel.runs++;
  ktrace(cx, "vmspace_ctl", Number(BigInt.asUintN(52, id)), lp.lwpProc.pPid);
  if (vmm === undefined) yield* enter(cx, lp, vklp, ve!);
  else vklp.veVmm = id;
  yield* cx.cpu.storeBytes(at, guest.frame);
  const { fsbase, gsbase } = guest.vext;
  if (platform.getGsbase(cx) !== gsbase) yield* platform.setGsbase(cx, gsbase);
  if (platform.getTls(cx) !== fsbase) yield* platform.setTls(cx, fsbase);
  return 0;
}

/** The thread is in the guest's address space from here on. */
function* enter(cx: Cx, lp: Lwp, vklp: VkernelLwp, ve: NonNullable<VkernelLwp["ve"]>): Exec<void> {
  vklp.ve = ve;
  yield* pmapSetlwpvm(cx, lp, ve.vmspace);
}

/** Takes the guest's registers from the vkernel and makes them harmless (`cpu_sanitize_frame`, `cpu_sanitize_tls`); EFAULT, EINVAL. */
function* guestState(
  cx: Cx,
  own: Uint8Array<ArrayBuffer>,
  tframe: bigint,
  vframe: bigint,
): Exec<{ readonly frame: Uint8Array<ArrayBuffer>; readonly vext: Vextframe } | number> {
  const frame = yield* copyin(cx, tframe, TF_BYTES);
  if (frame === undefined) return EFAULT;
  const words = yield* copyin(cx, vframe, VEXTFRAME_BYTES);
  if (words === undefined) return EFAULT;
  const now = new DataView(own.buffer), next = new DataView(frame.buffer), ext = new DataView(words.buffer);
  const vext = { fsbase: ext.getBigUint64(0, true), gsbase: ext.getBigUint64(8, true) };
  // IRETQ and WRMSR fault in the kernel on what is not canonical; a negative GS base would be taken for the kernel's.
  for (const address of [next.getBigUint64(TF.rip, true), vext.fsbase, vext.gsbase]) {
    if (address >= CANONICAL_LOW_END) return EINVAL;
  }
  const rflags = next.getBigUint64(TF.rflags, true) & PSL_USERCHANGE & ~PSL_RF;
  next.setBigUint64(TF.rflags, rflags | PSL_USERSET, true);
  for (const field of ["xflags", "trapno", "addr", "flags", "err", "cs", "ss"] as const) {
    next.setBigUint64(TF[field], now.getBigUint64(TF[field], true), true);
  }
  return { frame, vext };
}

/** Calls `body` with an address space of the vkernel, which stays while it works. On the VMM there is none, and nothing to do. */
function* withVmspace(
  cx: Cx,
  id: bigint,
  body: (vm: Vmspace) => Exec<SyscallResult>,
): Exec<SyscallResult> {
  const vkp = vkernelOf(cx);
  if (typeof vkp === "number") return { error: vkp };
  if (isVmm(cx)) return SYSCALL_OK;
  const ve = vkernelFindVmspace(cx, vkp, id);
  if (ve === undefined) return { error: ENOENT };
  const result = yield* body(ve.vmspace);
  vmspaceEntryDrop(cx, ve);
  return result;
}

/** vmspace_mmap(id, addr, len, prot, flags, fd, offset) (489); the offset stands on the stack. */
function* sysVmspaceMmap(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  return yield* withVmspace(cx, uap.arg(0), function* (vm) {
    const got = yield* kernMmap(cx, vm, {
      addr: uap.arg(1),
      len: uap.arg(2),
      prot: uap.int(3),
      flags: uap.int(4),
      fd: uap.int(5),
      pos: uap.long(6),
    });
    return typeof got === "number" ? { error: got } : { value: got };
  });
}

/** vmspace_munmap(id, addr, len) (490). */
function* sysVmspaceMunmap(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  return yield* withVmspace(cx, uap.arg(0), function* (vm) {
    const error = yield* kernMunmap(cx, vm, uap.arg(1), uap.arg(2));
    return error === 0 ? SYSCALL_OK : { error };
  });
}

/** vmspace_mcontrol(id, addr, len, behav, value) (491). */
function* sysVmspaceMcontrol(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  return yield* withVmspace(cx, uap.arg(0), function* (vm) {
    const error = yield* kernMadvise(cx, vm, uap.arg(1), uap.arg(2), uap.int(3), uap.arg(4));
    return error === 0 ? SYSCALL_OK : { error };
  });
}

/** vmspace_pread (492) and vmspace_pwrite (493): the id is looked up, and then EINVAL. */
function* sysVmspaceIo(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  return yield* withVmspace(cx, uap.arg(0), function* () {
    return { error: EINVAL };
  });
}

/** DragonFly's numbers. */
export const vmVmspaceSyscalls: SyscallTable = [
  [486, "vmspace_create", 3, sysVmspaceCreate],
  [487, "vmspace_destroy", 1, sysVmspaceDestroy],
  [488, "vmspace_ctl", 4, sysVmspaceCtl],
  [489, "vmspace_mmap", 7, sysVmspaceMmap],
  [490, "vmspace_munmap", 3, sysVmspaceMunmap],
  [491, "vmspace_mcontrol", 5, sysVmspaceMcontrol],
  [492, "vmspace_pread", 5, sysVmspaceIo],
  [493, "vmspace_pwrite", 5, sysVmspaceIo],
];
