/**
 * Running a thread in VMX non-root operation (`vmx_vmrun` of `sys/platform/pc64/vmm/vmx.c`; sections 15.6 and 16.5 of the reference).
 *
 * Room: `kernel/vmm/`; imports the VMCS, the exits, the way to user mode.
 *
 *     userret             what others asked for; may sleep, may change the processor; ends with interrupts off
 *       VMCS here?        no: it is fetched from the processor that has it, and everything from the beginning
 *       may enter?        no: vmm_guest_sync_addr is under way: wait, and everything from the beginning
 *       EPT changed?      INVEPT
 *       entry … exit      one call of machine code
 *     exit                interrupts on; handled; again
 *
 * From `userret` to the entry interrupts are off and nothing is waited for. What comes meanwhile is an external interrupt that is pending at the
 * entry, and that is an immediate exit: there is no window.
 *
 * Why no processor uses an EPT entry that was changed: pmap_inval waits until each processor of `pmActive` is in its IPI handler, thus out of
 * non-root operation; `pmInvgen` is counted up before the change; and before each entry the generation that **this thread has seen on this
 * processor** is compared. (In 2013 it was kept by thread alone: a thread that went away, flushed elsewhere and came back used what its
 * first processor had kept: `9563660691`.)
 *
 * @module
 */
import { gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { ktrace } from "../kern/ktr.ts";
import { panic } from "../kern/panic.ts";
import { PCATCH, tsleep, wakeup } from "../lwkt/sleep.ts";
import { TF } from "../platform/pc64/frame.ts";
import type { Pc64 } from "../platform/pc64/pc64.ts";
import type { Pmap } from "../pmap/pmap.ts";
import { userret } from "../trap/trap.ts";
import type { VmmProc, VmxThread } from "./vmm_state.ts";
import { EXIT_REASON, INTR_INFO, INVEPT } from "./vmx_defs.ts";
import { vmxHandleExit, vmxNonCanonicalRip } from "./vmx_exit.ts";
import { vmxFullAfterExit, vmxFullBeforeEntry } from "./vmx_full.ts";
import { invept, vmread, vmread32, vmwrite, vmxErrorText, vmxInstructionError } from "./vmx_instr.ts";
import { vmxLoad } from "./vmx_vmcs.ts";

const RAX = 0, RSI = 6, RDI = 7;
/** Bits of RFLAGS that a guest of ring 3 can have: the status flags, TF, DF, NT, RF, AC, ID; and IF and bit 1, always. */
const RFLAGS_ALLOWED = 0x25_4dd5n, RFLAGS_ALWAYS = 0x202n;

/**
 * Runs the current thread as a guest (`vmx_vmrun`). Its registers are those of the frame at `lwpMdRegs`. Comes back only when the
 * thread is in VMM mode no more, because its process has become another program.
 */
export function* vmxVmrun(cx: Cx): Exec<void> {
  for (;;) {
    yield* userret(cx);
    const vti = cx.lwp!.lwpVmm;
    if (vti === undefined) return;
    if (vti.full !== undefined && vti.full.sleeps) {
      // HLT: until a signal comes. One that came since userret looked ends the sleep at once.
      cx.setInterrupts(true);
      yield* tsleep(cx, vti.full, PCATCH, "vmhlt", 0);
      continue;
    }
    const at = cx.lwp!.lwpMdRegs!;
    if (!isCanonical(yield* cx.cpu.load64(gva(at + BigInt(TF.rip))))) {
      // Behind an instruction at the end of the lower half: VM entry would fail where the fetch should.
      cx.setInterrupts(true);
      yield* vmxNonCanonicalRip(cx, vti, at);
      continue;
    }
    if (!(yield* vmxLoad(cx, vti))) continue;
    if (!(yield* mayEnter(cx, vti.vp))) continue;
    yield* loadGuest(cx, vti, at);
    checkEpt(cx, vti);
    yield* enter(cx, vti, at);
    yield* readExit(cx, vti, at);
    cx.setInterrupts(true);
    yield* vmxHandleExit(cx, vti, at);
  }
}

/**
 * Sets this processor's bit, so that vmm_guest_sync_addr knows whom to interrupt. If that is under way, waits for its end.
 *
 * @returns false after waiting.
 */
function* mayEnter(cx: Cx, vp: VmmProc): Exec<boolean> {
  vp.cpumask |= cx.gd.gdCpumask;
  yield* cx.racePoint();
  if (!vp.locked) return true;
  leaveMask(cx, vp);
  cx.setInterrupts(true);
  cx.k.vmm.counters.syncWaits++;
  if (vp.locked) yield* tsleep(cx, vp, 0, "vmmsyn", 1);
  return false;
}

function leaveMask(cx: Cx, vp: VmmProc): void {
  vp.cpumask &= ~cx.gd.gdCpumask;
}

/** Lets processors enter again. */
export function vmxUnlock(cx: Cx, vp: VmmProc): void {
  vp.locked = false;
  wakeup(cx, vp);
}

function isCanonical(address: bigint): boolean {
  return BigInt.asUintN(64, BigInt.asIntN(48, address)) === address;
}

/** Registers that the VMCS has, from the frame and the thread. */
function* loadGuest(cx: Cx, vti: VmxThread, at: bigint): Exec<void> {
  const word = (offset: number) => cx.cpu.load64(gva(at + BigInt(offset)));
  vmwrite(cx, "GUEST_RIP", yield* word(TF.rip));
  vmwrite(cx, "GUEST_RSP", yield* word(TF.rsp));
  const rflags = yield* word(TF.rflags);
  if (vti.full !== undefined) {
    vmwrite(cx, "GUEST_RFLAGS", rflags);
    vmxFullBeforeEntry(cx, vti, vti.full, rflags);
  } else {
    vmwrite(cx, "GUEST_RFLAGS", (rflags & RFLAGS_ALLOWED) | RFLAGS_ALWAYS);
    loadContext(cx, vti);
    // Left over from an exit behind STI or MOV SS: the registers may be others' now.
    vmwrite(cx, "GUEST_INTERRUPTIBILITY", 0);
    vmwrite(cx, "GUEST_PENDING_DEBUG", 0);
  }
}

/** CR3 and the segment bases of a guest of ring 3, which cannot change them: written when they are others than before. */
function loadContext(cx: Cx, vti: VmxThread): void {
  const { written, lwp } = vti;
  if (written.cr3 !== vti.guestCr3) vmwrite(cx, "GUEST_CR3", written.cr3 = vti.guestCr3);
  if (written.fsBase !== lwp.lwpTls) vmwrite(cx, "GUEST_FS_BASE", written.fsBase = lwp.lwpTls);
  if (written.gsBase !== lwp.lwpGsbase) vmwrite(cx, "GUEST_GS_BASE", written.gsBase = lwp.lwpGsbase);
}

/** The pmap with the EPT tables. */
function eptPmapOf(vti: VmxThread): Pmap {
  const { vmPmap } = vti.lwp.lwpProc.pVmspace!;
  return vmPmap.pmTwin ?? vmPmap;
}

/** INVEPT if the EPT has changed since this thread last entered from here. */
function checkEpt(cx: Cx, vti: VmxThread): void {
  const { pmInvgen } = eptPmapOf(vti);
  const perThread = cx.k.bug("eptgen-per-thread") || cx.k.bug("ept-root-reuse");
  const slot = perThread ? 0 : cx.gd.gdCpuid;
  if (vti.eptgen[slot] === pmInvgen) return;
  vti.eptgen[slot] = pmInvgen;
  cx.k.vmm.counters.invepts++;
  ktrace(cx, "invept", pmInvgen, cx.gd.gdCpuid);
  invept(cx, INVEPT.SINGLE_CONTEXT, vti.vp.eptp);
}

/** VMLAUNCH or VMRESUME; comes back after the exit, interrupts off, out of the mask. */
function* enter(cx: Cx, vti: VmxThread, at: bigint): Exec<void> {
  const { counters } = cx.k.vmm;
  const pc64 = cx.k.platform as Pc64;
  cx.cpu.setGpr(RDI, at);
  cx.cpu.setGpr(RSI, vti.launched ? 1n : 0n);
  const resumed = vti.launched;
  vti.launched = true;
  counters.entries++;
  ktrace(cx, "vmentry", Number(vti.guestCr3), resumed ? 1 : 0);
  yield* cx.cpu.call(gva(pc64.locore.vmxEnter));
  leaveMask(cx, vti.vp);
  if (cx.cpu.gpr(RAX) === 0n) return;
  vti.launched = resumed;
  panic(cx, `vmx_vmrun: ${vmxErrorText(vmxInstructionError(cx))}`);
}

/** Takes what the VMCS says of the exit, and the guest's registers, before another thread's VMCS can become current here. */
function* readExit(cx: Cx, vti: VmxThread, at: bigint): Exec<void> {
  const { exit } = vti, { counters } = cx.k.vmm;
  const put = (offset: number, value: bigint) => cx.cpu.store64(gva(at + BigInt(offset)), value);
  const raw = vmread32(cx, "EXIT_REASON");
  exit.reason = raw & 0xffff;
  counters.exits[exit.reason] = (counters.exits[exit.reason] ?? 0) + 1;
  exit.qualification = vmread(cx, "EXIT_QUALIFICATION");
  ktrace(cx, "vmexit", exit.reason, Number(exit.qualification & 0xffff_ffffn));
  if (raw < 0) {
    panic(cx, `vmx_vmrun: VM entry failed, reason ${exit.reason}, qualification ${exit.qualification}`);
  }
  if (vti.full !== undefined) vmxFullAfterExit(cx, vti, vti.full);
  const { reason } = exit;
  if (reason === EXIT_REASON.EPT_VIOLATION || reason === EXIT_REASON.EPT_MISCONFIG) {
    exit.guestPhysical = vmread(cx, "GUEST_PHYSICAL_ADDRESS");
    exit.guestLinear = vmread(cx, "GUEST_LINEAR_ADDRESS");
  } else if (reason !== EXIT_REASON.EXT_INTR) {
    exit.instructionLength = vmread32(cx, "EXIT_INSTRUCTION_LENGTH");
  }
  if (reason === EXIT_REASON.EXCEPTION) {
    exit.interruption = vmread32(cx, "EXIT_INTERRUPTION_INFORMATION");
    if (exit.interruption & INTR_INFO.DELIVER_CODE) {
      exit.interruptionError = vmread32(cx, "EXIT_INTERRUPTION_ERROR_CODE");
    }
  }
  yield* put(TF.rip, vmread(cx, "GUEST_RIP"));
  yield* put(TF.rsp, vmread(cx, "GUEST_RSP"));
  yield* put(TF.rflags, vmread(cx, "GUEST_RFLAGS"));
}
