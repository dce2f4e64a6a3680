/**
 * Guests on the processor's virtual machine extensions: the generic layer (`sys/platform/pc64/vmm/vmm.c`, `sys/kern/sys_vmm.c`; sections 15.2,
 * 15.4, 15.5 and 15.8 of the reference).
 *
 * Room: `kernel/vmm/`; imports Intel's part (vmx_*.ts), the system calls' types, copy.
 *
 *     vmm_guest_ctl(VMM_GUEST_RUN, options)   (534)  the process goes on in non-root operation at CPL 3
 *     vmm_guest_sync_addr(dst, src)           (535)  a word is changed while no processor runs the guest
 *
 * A guest is the process itself: its guest-physical addresses are the process's addresses, its linear addresses are what its own page tables
 * make of them; a SYSCALL is still a system call of the host. README.md has the interface.
 *
 * @module
 */
import { type Gva, gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, copyout } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { ktrace } from "../kern/ktr.ts";
import { kassert } from "../kern/panic.ts";
import {
  EJUSTRETURN,
  SYSCALL_OK,
  type SyscallArgs,
  type SyscallResult,
  type SyscallTable,
} from "../kern/sysent.ts";
import { lwktProcessIpiq, lwktSendIpiqMask } from "../lwkt/ipiq.ts";
import { tsleep } from "../lwkt/sleep.ts";
import { critEnter, critExit } from "../lwkt/thread.ts";
import { decodeTrapframe, encodeTrapframe, TF, TF_BYTES, type Trapframe } from "../platform/pc64/frame.ts";
import { SELECTOR } from "../platform/pc64/vmparam.ts";
import { Pmap } from "../pmap/pmap.ts";
import { PMAP_EMULATE_AD_BITS } from "../pmap/pmap_bits.ts";
import { eptPmapAdInRights, pmapPinit, pmapPinit2, vmxEptPmapPinit } from "../pmap/pmap_pinit.ts";
import { pmapReplacevm } from "../pmap/pmap_switch.ts";
import type { Lwp, Proc } from "../proc/proc.ts";
import type { VkernelVmm } from "../vm/vkernel_state.ts";
import { PAGE_SIZE } from "../vm/vm_param.ts";
import { vmspaceFork } from "../vm/vmspace_fork.ts";
import { vmspaceRel } from "../vm/vmspace.ts";
import { eptSwap64, eptUserAccess, twinUserAccess } from "./ept_copy.ts";
import { type VmmAdMode, VmmProc, type VmxCapability } from "./vmm_state.ts";
import { EPTP_AD, EPTP_WB_4 } from "./vmx_defs.ts";
import { vmxCapabilityOf, vmxEnable } from "./vmx_init.ts";
import { vmxUnlock, vmxVmrun } from "./vmx_run.ts";
import { vmxThreadCreate, vmxThreadReplace } from "./vmx_vmcs.ts";

/** `op` of vmm_guest_ctl: run. */
export const VMM_GUEST_RUN = 1;
/** `op` of vmm_guest_ctl, not DragonFly's: which signals have come for this full guest since it asked last, bit n = signal n. */
export const VMM_GUEST_SIGNALS = 2;

/** Where things stand in `struct vmm_guest_options`. */
export const VMM_OPTIONS = {
  /** u64: root of the page tables to begin with, a guest-physical address. */
  guestCr3: 0,
  /** u64: not looked at. */
  vmmCr3: 8,
  /** u64: guest-physical address of the end of the memory that takes the place of the stack; see {@link sysVmmGuestCtl}. */
  newStack: 16,
  /** A trap frame: not looked at, DragonFly's kernel has it there meanwhile. */
  tf: 24,
  /** u8: this is the process's first thread. */
  master: 24 + TF_BYTES,
  /** u8, not DragonFly's: 0 = ring 3, 1 = a full guest. */
  kind: 25 + TF_BYTES,
  /** u8, not DragonFly's: vector of a full guest's virtual interrupt. */
  vector: 26 + TF_BYTES,
} as const;
/** Bytes of `struct vmm_guest_options`. */
export const VMM_OPTIONS_BYTES = 232;
/** `kind`: guest code of ring 3, a vkernel as in DragonFly. */
export const VMM_KIND_USER = 0;
/** `kind`: a kernel in ring 0. */
export const VMM_KIND_FULL = 1;

/** Guest-physical addresses end here: what four levels of EPT with one PDP page translate (512 GiB). */
const GPA_END = 1n << 39n;
/** Most pages of stack that move. */
const STACK_PAGES_MAX = 512;
const PAGE = BigInt(PAGE_SIZE);

/** The VMM if it is there and on. */
function vmmOf(cx: Cx): VmxCapability | undefined {
  return cx.k.vmm.enabled ? vmxCapabilityOf(cx) : undefined;
}

/** `hw.vmm.ad` as it is in force. */
export function vmmAdMode(cx: Cx, capability: VmxCapability): VmmAdMode {
  const wanted = cx.k.vmm.ad;
  if (wanted === "hardware" || wanted === undefined) return capability.hasAd ? "hardware" : "dragonfly";
  return wanted;
}

/**
 * vmm_guest_ctl(op, options) (534). The process goes on behind the call in non-root operation: RAX = 0, carry clear, the same registers, the same
 * RSP, on the page tables at `guest_cr3`. Of the stack, everything from the page of RSP to the end of the address space has been copied to the
 * same distance below `new_stack`; the tables are expected to map it at its old address. (Guest-physical addresses end at 512 GiB.)
 *
 * Preconditions of a caller: `vm.vkernel_enable`; one thread; page tables, stack and code below 512 GiB.
 */
function* sysVmmGuestCtl(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const lp = cx.lwp!, p = lp.lwpProc;
  if (!cx.k.vmMap.vkernelEnable) return { error: ERRNO.EOPNOTSUPP };
  if (uap.int(0) === VMM_GUEST_SIGNALS) return takeSignals(lp);
  if (uap.int(0) !== VMM_GUEST_RUN) return { error: ERRNO.EINVAL };
  const bytes = yield* copyin(cx, uap.arg(1), VMM_OPTIONS_BYTES);
  if (bytes === undefined) return { error: ERRNO.EFAULT };
  const capability = vmmOf(cx);
  if (capability === undefined) return { error: ERRNO.ENODEV };
  const view = new DataView(bytes.buffer);
  const word = (at: number) => view.getBigUint64(at, true);
  const options = {
    guestCr3: word(VMM_OPTIONS.guestCr3),
    newStack: word(VMM_OPTIONS.newStack),
    kind: view.getUint8(VMM_OPTIONS.kind),
    vector: view.getUint8(VMM_OPTIONS.vector),
  };
  const full = options.kind === VMM_KIND_FULL;
  // A guest of ring 3 may become a full one; everything else that is in VMM mode stays what it is.
  const promoted = full && p.pVmm?.full === false;
  if (p.pVmm !== undefined && !promoted) return { error: ERRNO.EBUSY };
  const frame = decodeTrapframe(bytes.slice(VMM_OPTIONS.tf, VMM_OPTIONS.tf + TF_BYTES));
  if (full && !isFullStart(frame)) return { error: ERRNO.EINVAL };
  if (view.getUint8(VMM_OPTIONS.master) === 0 || p.pNthreads !== 1 || p.pVmspace!.vmRefcnt !== 1) {
    return { error: ERRNO.EINVAL };
  }
  if (options.kind > VMM_KIND_FULL || !isGuestCr3(capability, options.guestCr3)) {
    return { error: ERRNO.EINVAL };
  }
  const at = lp.lwpMdRegs as Gva;
  if (!promoted) {
    const error = yield* moveStack(cx, p, lp, options.newStack);
    if (error !== 0) return { error };
    yield* vmxEnable(cx, capability);
    yield* vminitMaster(cx, p, capability, options);
    yield* vmxThreadCreate(cx, lp, p.pVmm!, capability, options.vector);
  } else {
    yield* vmxThreadReplace(cx, lp, capability, options);
  }
  if (full) {
    yield* cx.cpu.storeBytes(
      at,
      encodeTrapframe({ ...frame, xflags: 1n, cs: BigInt(SELECTOR.UCODE), ss: BigInt(SELECTOR.UDATA) }),
    );
    if (promoted) return { error: EJUSTRETURN };
    yield* vmxVmrun(cx);
    return { error: EJUSTRETURN };
  }
  // As a system call that succeeds returns.
  const rflags = gva(at + BigInt(TF.rflags));
  yield* cx.cpu.store64(gva(at + BigInt(TF.rax)), 0n);
  yield* cx.cpu.store64(rflags, (yield* cx.cpu.load64(rflags)) & ~1n);
  yield* vmxVmrun(cx);
  return { error: EJUSTRETURN };
}

/** Whether a full guest can begin with these registers: VM entry takes them. RFLAGS is bit 1 alone. */
function isFullStart(frame: Trapframe): boolean {
  return BigInt.asUintN(64, BigInt.asIntN(48, frame.rip)) === frame.rip && frame.rflags === 2n;
}

/** VMM_GUEST_SIGNALS. */
function takeSignals(lp: Lwp): SyscallResult {
  const full = lp.lwpVmm?.full;
  if (full === undefined) return { error: ERRNO.EINVAL };
  const value = full.signals;
  full.signals = 0n;
  return { value };
}

/** Whether a word can be the guest's CR3: the address of a page below 512 GiB, and nothing else. */
function isGuestCr3(capability: VmxCapability, word: bigint): boolean {
  return word < GPA_END && word >> BigInt(capability.physicalBits) === 0n && (word & 0xfffn) === 0n;
}

/** Copies the stack, and the trampoline of signals above it, to where guest-physical addresses reach. 0, EINVAL, EFAULT. */
function* moveStack(cx: Cx, p: Proc, lp: Lwp, newStack: bigint): Exec<number> {
  const top = p.pVmspace!.vmMap.max;
  const rsp = yield* cx.cpu.load64(gva(lp.lwpMdRegs! + BigInt(TF.rsp)));
  if (newStack === 0n) return 0;
  const bottom = rsp & ~(PAGE - 1n);
  if (newStack > GPA_END || (newStack & (PAGE - 1n)) !== 0n) return ERRNO.EINVAL;
  // A stack that is low enough stays where it is.
  if (bottom < GPA_END) return 0;
  if (bottom > top || (top - bottom) / PAGE > BigInt(STACK_PAGES_MAX) || newStack < top - bottom) {
    return ERRNO.EINVAL;
  }
  for (let at = top - PAGE; at >= bottom; at -= PAGE) {
    const page = yield* copyin(cx, at, PAGE_SIZE);
    if (page === undefined) return ERRNO.EFAULT;
    const error = yield* copyout(cx, newStack - (top - at), page);
    if (error !== 0) return error;
  }
  return 0;
}

/** The process's address space becomes one with EPT tables, which are empty (`vmx_vminit_master`). */
function* vminitMaster(
  cx: Cx,
  p: Proc,
  capability: VmxCapability,
  options: { readonly guestCr3: bigint; readonly kind: number; readonly vector: number },
): Exec<void> {
  const ad = vmmAdMode(cx, capability);
  const ept = cx.k.vmm.design === "merged" ? yield* mergedPmap(cx, p, ad) : yield* twinPmap(cx, p, ad);
  const root = ept.pmPmlpv!.pvM!.physAddr;
  const eptp = BigInt(root) | EPTP_WB_4 | (ad === "hardware" ? EPTP_AD : 0n);
  const vp = new VmmProc(options.guestCr3, root, eptp, options.kind === VMM_KIND_FULL);
  vp.vector = options.vector;
  p.pVmm = vp;
  p.pVmspace!.vmGuestCr3 = options.guestCr3;
  if (p.pVkernel !== undefined) p.pVkernel.vkernelCr3 = options.guestCr3;
  cx.k.vmm.procs.add(vp);
  cx.k.vkernel.vmm = vkernelVmm;
  ktrace(cx, "vminit", p.pPid, root);
}

/** What DragonFly merged: a copy of the address space, whose tables are EPT tables, takes the place of the old one. */
function* mergedPmap(cx: Cx, p: Proc, ad: VmmAdMode): Exec<Pmap> {
  const old = p.pVmspace!;
  const vm = yield* vmspaceFork(cx, old);
  yield* makeEpt(cx, vm.vmPmap, ad);
  vm.vmPmap.userAccess = eptUserAccess;
  yield* pmapReplacevm(cx, p, vm);
  yield* vmspaceRel(cx, old);
  return vm.vmPmap;
}

/**
 * What the mail of 2013 hoped for: the address space and its tables stay for the host side, and EPT tables for the guest are kept in step with
 * them. User copies go by the process's own addresses wherever the guest's tables are the identity (below 512 GiB, where DragonFly's vkernel has it
 * so; section 17.1).
 */
function* twinPmap(cx: Cx, p: Proc, ad: VmmAdMode): Exec<Pmap> {
  const pmap = p.pVmspace!.vmPmap, twin = new Pmap();
  yield* pmapPinit(cx, twin);
  yield* makeEpt(cx, twin, ad);
  // The fault code looks at the pmap of the running thread's map (section 16.4, no. 3).
  pmap.pmFlags |= twin.pmFlags & PMAP_EMULATE_AD_BITS;
  pmap.userAccess = twinUserAccess;
  twin.pmActive = pmap.pmActive;
  pmap.pmTwin = twin;
  return twin;
}

function* makeEpt(cx: Cx, pmap: Pmap, ad: VmmAdMode): Exec<void> {
  yield* vmxEptPmapPinit(cx, pmap, ad === "dragonfly");
  if (ad === "freebsd") eptPmapAdInRights(pmap);
  if (cx.k.bug("ept-root-reuse")) pmap.pmInvgen = 0;
  yield* pmapPinit2(cx, pmap);
}

/** An lwp of a process in VMM mode enters user mode for the first time (`vmx_vm_lwp_return`): what `userret` is to others. */
export function* vmmLwpReturn(cx: Cx): Exec<void> {
  const lp = cx.lwp!, vp = lp.lwpProc.pVmm;
  const capability = vmxCapabilityOf(cx);
  kassert(vp !== undefined && capability !== undefined, "vmm_lwp_return: no VMM");
  yield* vmxThreadCreate(cx, lp, vp, capability, vp.vector);
  yield* vmxVmrun(cx);
}

/** What vmspace_ctl does of a vkernel on the VMM (section 17.3). */
export const vkernelVmm: VkernelVmm = {
  isVmm: (lp) => lp.lwpVmm !== undefined,
  *enter(cx, lp, id) {
    const capability = vmxCapabilityOf(cx);
    if (
      capability === undefined || !isGuestCr3(capability, id) || lp.lwpVmm === undefined ||
      lp.lwpVmm.full !== undefined
    ) {
      return ERRNO.EINVAL;
    }
    lp.lwpVmm.guestCr3 = id;
    return yield* ok();
  },
  *leave(_cx, lp) {
    if (lp.lwpVmm !== undefined) lp.lwpVmm.guestCr3 = lp.lwpVmm.vp.guestCr3;
    yield* ok();
  },
};
function* ok(): Exec<number> {
  return 0;
}

/** No processor runs code of this process's guest until {@link vmxUnlock}. Waits for another who has done the same. */
function* quiesce(cx: Cx, vp: VmmProc): Exec<void> {
  while (vp.locked) yield* tsleep(cx, vp, 0, "vmmlck", 1);
  vp.locked = true;
  critEnter(cx);
  const others = vp.cpumask & ~cx.gd.gdCpumask;
  if (others !== 0) {
    for (let mask = others; mask !== 0; mask &= mask - 1) cx.k.vmm.counters.syncIpis++;
    yield* lwktSendIpiqMask(cx, others, () => {}, undefined);
  }
  while ((vp.cpumask & ~cx.gd.gdCpumask) !== 0) {
    yield* lwktProcessIpiq(cx, false);
    yield;
  }
  yield* critExit(cx);
}

/**
 * vmm_guest_sync_addr(dst, src) (535), with the meaning of 2017: the words at the two addresses are exchanged, `v = *src; *src = swap(dst, v)`,
 * while no processor runs code of the guest; all linear and combined translations of the guest are gone afterwards. dst = 0: those of the
 * calling processor are gone; its exit has done it.
 */
function* sysVmmGuestSyncAddr(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const lp = cx.lwp!, vp = lp.lwpProc.pVmm;
  const dst = uap.arg(0), src = uap.arg(1);
  if (vp === undefined) return { error: ERRNO.EINVAL };
  cx.k.vmm.counters.syncAddrs++;
  ktrace(cx, "sync_addr", Number(dst & 0xffff_ffff_ffffn), vp.cpumask);
  if (dst === 0n) return SYSCALL_OK;
  if ((dst & 7n) !== 0n) return { error: ERRNO.EINVAL };
  yield* quiesce(cx, vp);
  const result = yield* exchange(cx, dst, src);
  const { vmPmap } = lp.lwpProc.pVmspace!;
  // As in 2017. No guest-physical translation has changed: the exits have flushed all that this call is about.
  (vmPmap.pmTwin ?? vmPmap).pmInvgen++;
  vmxUnlock(cx, vp);
  return result === 0 ? SYSCALL_OK : { error: result };
}

/** The exchange; EFAULT. */
function* exchange(cx: Cx, dst: bigint, src: bigint): Exec<number> {
  const bytes = yield* copyin(cx, src, 8);
  if (bytes === undefined) return ERRNO.EFAULT;
  const view = new DataView(bytes.buffer);
  const old = yield* eptSwap64(cx, dst, view.getBigUint64(0, true));
  if (old === undefined) return ERRNO.EFAULT;
  // Historical: in 2013 the old word was not given back, and what the processor had set in it last was lost.
  if (cx.k.bug("sync-addr-2013")) return 0;
  view.setBigUint64(0, old, true);
  return yield* copyout(cx, src, bytes);
}

/** System calls of this file. */
export const vmmSyscalls: SyscallTable = [
  [534, "vmm_guest_ctl", 2, sysVmmGuestCtl],
  [535, "vmm_guest_sync_addr", 2, sysVmmGuestSyncAddr],
];
