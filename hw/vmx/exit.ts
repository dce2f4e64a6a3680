/**
 * VM exit: what is recorded, what is saved of the guest, what is loaded of the host; VM-entry failures end here too, and VMX aborts.
 *
 * Room: `hw/vmx/`; imports the VMCS, modes and MSR areas. Who asks for exits is in contract.ts; sys/event.ts and boundary.ts call this.
 * SDM vol. 3C, "VM Exits".
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { contextChanged, contextChanging } from "../ept.ts";
import { loadPdptes } from "../paging.ts";
import * as state from "../state.ts";
import { AR, CR4, EFER, setSegment, updateMode } from "../sys/mode.ts";
import { setRflags } from "../sys/rflags.ts";
import { TRACE } from "../trace.ts";
import * as vmcs from "../vmcs.ts";
import * as contract from "./contract.ts";
import * as controls from "./controls.ts";
import * as fields from "./fields.ts";
import { loadMsrs, storeMsrs } from "./msr_area.ts";
import { savedTimer, stopTimer } from "./preemption_timer.ts";
import { GUEST_SEGMENTS, load64, loadedCr0, save64 } from "./transition.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const { ATTENTION_VMX, RFLAGS, S, SEG } = state;
const { PIN, REASON, VMX } = contract;
const { ACTIVITY, ENTRY, EVENT, EXIT } = controls;
const { F } = fields;

/** VMX-abort indicators. */
export const ABORT = { SAVING_GUEST_MSRS: 1, HOST_PDPTES: 2, LOADING_HOST_MSRS: 4, HOST_NOT_64: 6 } as const;

/** Exit reasons of instructions: the instruction length is valid, and RF is saved as 0. */
const INSTRUCTIONS = new Set<number>([
  REASON.CPUID,
  REASON.GETSEC,
  REASON.HLT,
  REASON.INVD,
  REASON.INVLPG,
  REASON.RDPMC,
  REASON.RDTSC,
  REASON.VMCALL,
  REASON.VMCLEAR,
  REASON.VMLAUNCH,
  REASON.VMPTRLD,
  REASON.VMPTRST,
  REASON.VMREAD,
  REASON.VMRESUME,
  REASON.VMWRITE,
  REASON.VMXOFF,
  REASON.VMXON,
  REASON.CR_ACCESS,
  REASON.MOV_DR,
  REASON.IO,
  REASON.RDMSR,
  REASON.WRMSR,
  REASON.MWAIT,
  REASON.MONITOR,
  REASON.PAUSE,
  REASON.GDTR_IDTR,
  REASON.LDTR_TR,
  REASON.INVEPT,
  REASON.RDTSCP,
  REASON.INVVPID,
  REASON.WBINVD,
  REASON.XSETBV,
  REASON.RDRAND,
  REASON.INVPCID,
  REASON.VMFUNC,
  REASON.RDSEED,
  REASON.XSAVES,
  REASON.XRSTORS,
]);
/** Exits of accesses: RF is saved as 1, unless an event was being delivered. */
const ACCESSES = new Set<number>([
  REASON.APIC_ACCESS,
  REASON.EPT_VIOLATION,
  REASON.EPT_MISCONFIGURATION,
  REASON.PML_FULL,
]);
/** Those whose qualification has bit 12, "NMI unblocking due to IRET". */
const WITH_UNBLOCKING = new Set<number>([REASON.EPT_VIOLATION, REASON.PML_FULL]);
/** Exits that come after an instruction: pending debug exceptions are saved, not cleared. */
const TRAP_LIKE = new Set<number>([
  REASON.INIT,
  REASON.TPR_BELOW_THRESHOLD,
  REASON.VIRTUALIZED_EOI,
  REASON.APIC_WRITE,
  REASON.MONITOR_TRAP_FLAG,
]);
const HAS_PHYSICAL = new Set<number>([REASON.EPT_VIOLATION, REASON.EPT_MISCONFIGURATION]);
/** Exits that write the guest-linear-address field. */
const HAS_LINEAR = new Set<number>([REASON.EPT_VIOLATION, REASON.CR_ACCESS, REASON.IO]);

const BS = 0x4000;
const ENTRY_FAILURE = 1 << 31;
const UNBLOCKING = 1 << 12;

/**
 * Carries out the exit that {@link contract.requestExit} asked for: RIP is that of the instruction (or the next one, for exits between
 * instructions).
 *
 * @param interruption VM-exit interruption information, 0 for none; that of the request if not said.
 * @param code Its error code.
 * @param flags RFLAGS as an event would push them; −1 for RFLAGS as they are.
 */
export function completeExit(
  cpu: Cpu,
  interruption = cpu.get32(S.VMX_INTERRUPTION) | 0,
  code = 0,
  flags = -1,
): void {
  const reason = cpu.get32(S.VMX_REASON);
  recordExit(cpu, reason, interruption, code);
  saveGuest(cpu, reason, interruption, flags);
  if (cpu.trace.wants & TRACE.vmx) tellExit(cpu, reason);
  cpu.transitions.exits++;
  if (storeMsrs(cpu, F.EXIT_MSR_STORE_COUNT, F.EXIT_MSR_STORE_ADDRESS) !== 0) {
    abort(cpu, ABORT.SAVING_GUEST_MSRS);
    return;
  }
  loadHost(cpu, reason === REASON.EXCEPTION_OR_NMI && ((interruption >>> 8) & 7) === EVENT.NMI);
}

/** An exit between instructions, or on an event that is not being delivered: nothing is pending of an earlier one. */
export function exitNow(cpu: Cpu, reason: number, low = 0, interruption = 0, code = 0, flags = -1): void {
  cpu.set32(S.VMX_VECTORING, 0);
  cpu.set32(S.VMX_UNBLOCKED, 0);
  cpu.set32(S.VMX_REASON, reason);
  cpu.set64Halves(S.VMX_QUALIFICATION, low, 0);
  cpu.set32(S.ILEN, 0);
  completeExit(cpu, interruption, code, flags);
}

/** Writes the exit-information fields. */
function recordExit(cpu: Cpu, reason: number, interruption: number, code: number): void {
  const vectoring = cpu.get32(S.VMX_VECTORING) | 0;
  let low = cpu.get32(S.VMX_QUALIFICATION);
  if (cpu.get32(S.VMX_UNBLOCKED) !== 0 && vectoring === 0) {
    if (WITH_UNBLOCKING.has(reason)) low |= UNBLOCKING;
    else if (interruption < 0 && (interruption & 0x7ff) !== ((EVENT.HARDWARE_EXCEPTION << 8) | 8)) {
      interruption |= EVENT.NMI_UNBLOCKING;
    }
  }
  vmcs.set32(cpu, F.EXIT_REASON, reason);
  vmcs.setHalves(cpu, F.EXIT_QUALIFICATION, low, cpu.get32(S.VMX_QUALIFICATION + 4));
  vmcs.set32(cpu, F.EXIT_INTERRUPTION_INFORMATION, interruption);
  if (interruption & EVENT.DELIVER_CODE) vmcs.set32(cpu, F.EXIT_INTERRUPTION_ERROR_CODE, code);
  vmcs.set32(cpu, F.IDT_VECTORING_INFORMATION, vectoring);
  if (vectoring & EVENT.DELIVER_CODE) {
    vmcs.set32(cpu, F.IDT_VECTORING_ERROR_CODE, cpu.get32(S.VMX_VECTORING_CODE));
  }
  const type = (vectoring >>> 8) & 7;
  const software = vectoring < 0 && type >= EVENT.SOFTWARE_INTERRUPT && type <= EVENT.SOFTWARE_EXCEPTION;
  const direct = (interruption >>> 8) & 7;
  const softwareExits = reason === REASON.EXCEPTION_OR_NMI && interruption < 0 &&
    (direct === EVENT.SOFTWARE_EXCEPTION || direct === EVENT.PRIVILEGED_SOFTWARE_EXCEPTION);
  const length = software
    ? cpu.get32(S.VMX_VECTORING_LENGTH)
    : INSTRUCTIONS.has(reason) || softwareExits || (reason === REASON.TASK_SWITCH && vectoring === 0)
    ? cpu.get32(S.ILEN)
    : 0;
  vmcs.set32(cpu, F.EXIT_INSTRUCTION_LENGTH, length);
  vmcs.set32(
    cpu,
    F.EXIT_INSTRUCTION_INFORMATION,
    INSTRUCTIONS.has(reason) ? cpu.get32(S.VMX_INSTRUCTION) : 0,
  );
  if (HAS_LINEAR.has(reason)) save64(cpu, S.VMX_LINEAR, F.GUEST_LINEAR_ADDRESS);
  if (HAS_PHYSICAL.has(reason)) save64(cpu, S.VMX_PHYSICAL, F.GUEST_PHYSICAL_ADDRESS);
  cpu.set32(S.VMX_INSTRUCTION, 0);
  cpu.set64Halves(S.VMX_LINEAR, 0, 0);
}

/** Saves the guest-state area. */
function saveGuest(cpu: Cpu, reason: number, interruption: number, flags: number): void {
  const exit = cpu.get32(S.VMX_EXIT_CONTROLS);
  save64(cpu, S.CR0, F.GUEST_CR0);
  save64(cpu, S.CR3, F.GUEST_CR3);
  save64(cpu, S.CR4, F.GUEST_CR4);
  if (exit & EXIT.SAVE_DEBUG) {
    save64(cpu, S.DR + 7 * 8, F.GUEST_DR7);
    save64(cpu, S.DEBUGCTL, F.GUEST_DEBUGCTL);
  }
  vmcs.set32(cpu, F.GUEST_SYSENTER_CS, cpu.get32(S.SYSENTER_CS));
  save64(cpu, S.SYSENTER_ESP, F.GUEST_SYSENTER_ESP);
  save64(cpu, S.SYSENTER_EIP, F.GUEST_SYSENTER_EIP);
  if (exit & EXIT.SAVE_PAT) save64(cpu, S.PAT, F.GUEST_PAT);
  if (exit & EXIT.SAVE_EFER) save64(cpu, S.EFER, F.GUEST_EFER);
  if (exit & EXIT.SAVE_PREEMPTION_TIMER) vmcs.set32(cpu, F.PREEMPTION_TIMER_VALUE, savedTimer(cpu));
  if (cpu.model.features.has("vmx-store-lma")) {
    const entry = vmcs.get32(cpu, F.ENTRY_CONTROLS) & ~ENTRY.IA32E_GUEST;
    vmcs.set32(cpu, F.ENTRY_CONTROLS, cpu.get32(S.EFER) & EFER.LMA ? entry | ENTRY.IA32E_GUEST : entry);
  }

  for (const { seg, selector, base, limit, rights } of GUEST_SEGMENTS) {
    vmcs.set32(cpu, selector, cpu.segSel(seg));
    save64(cpu, S.SEGBASE + seg * 8, base);
    vmcs.set32(cpu, limit, cpu.segLimit(seg));
    let ar = cpu.segAr(seg);
    if (seg === SEG.SS) ar = (ar & ~AR.DPL) | (cpu.get32(S.CPL) << 5);
    vmcs.set32(cpu, rights, ar);
  }
  save64(cpu, S.GDTR, F.GUEST_GDTR_BASE);
  vmcs.set32(cpu, F.GUEST_GDTR_LIMIT, cpu.get32(S.GDTR + 8) & 0xffff);
  save64(cpu, S.IDTR, F.GUEST_IDTR_BASE);
  vmcs.set32(cpu, F.GUEST_IDTR_LIMIT, cpu.get32(S.IDTR + 8) & 0xffff);

  save64(cpu, S.RIP, F.GUEST_RIP);
  save64(cpu, S.GPR + 4 * 8, F.GUEST_RSP);
  vmcs.setHalves(cpu, F.GUEST_RFLAGS, savedFlags(cpu, reason, flags), 0);

  const blocking = cpu.get32(S.BLOCKING);
  vmcs.set32(cpu, F.GUEST_INTERRUPTIBILITY, blocking);
  vmcs.set32(cpu, F.GUEST_ACTIVITY, cpu.get32(S.ACTIVITY));
  let pending = cpu.get32(S.PENDINGDB);
  const isDebug = reason === REASON.EXCEPTION_OR_NMI &&
    (interruption & 0x7ff) === ((EVENT.HARDWARE_EXCEPTION << 8) | 1);
  if (blocking & controls.BLOCKING.MOV_SS && !isDebug) {
    if (cpu.rflags & RFLAGS.TF && !(cpu.get32(S.DEBUGCTL) & 2)) pending |= BS;
  } else if (!TRAP_LIKE.has(reason)) pending = 0;
  if (pending & 0xf) pending |= 0x1000;
  vmcs.setHalves(cpu, F.GUEST_PENDING_DEBUG, pending & 0x500f, 0);

  if (cpu.get32(S.VMX_EPT) !== 0) {
    for (let n = 0; n < 4; n++) save64(cpu, S.PDPTE + n * 8, (F.GUEST_PDPTE0 + n * 2) as fields.Field);
  }
  vmcs.set32(
    cpu,
    F.ENTRY_INTERRUPTION_INFORMATION,
    vmcs.get32(cpu, F.ENTRY_INTERRUPTION_INFORMATION) & ~EVENT.VALID,
  );
}

/** RFLAGS as saved: RF depends on what the exit is for (SDM vol. 3C, "Saving RIP, RSP, RFLAGS, and SSP"). */
function savedFlags(cpu: Cpu, reason: number, flags: number): number {
  const image = cpu.rflags;
  if (flags !== -1) return flags;
  if (INSTRUCTIONS.has(reason)) return image & ~RFLAGS.RF;
  if (ACCESSES.has(reason)) {
    // During the delivery of an event, as it would have pushed it.
    const isDelivering = (cpu.get32(S.VMX_VECTORING) | 0) < 0;
    const pushed = isDelivering ? cpu.get32(S.VMX_VECTORING_FLAGS) & RFLAGS.RF : RFLAGS.RF;
    return (image & ~RFLAGS.RF) | pushed;
  }
  return image;
}

/** Loads the host-state area and leaves non-root operation. */
function loadHost(cpu: Cpu, blockNmi: boolean): void {
  const exit = vmcs.get32(cpu, F.EXIT_CONTROLS), host64 = (exit & EXIT.HOST_64) !== 0;
  const wasLong = (cpu.get32(S.EFER) & EFER.LMA) !== 0;
  const virtualNmis = (cpu.get32(S.VMX_PIN) & PIN.VIRTUAL_NMIS) !== 0;
  const blocking = virtualNmis ? 0 : cpu.get32(S.BLOCKING) & controls.BLOCKING.NMI;
  contextChanging(cpu);
  leaveGuest(cpu);
  cpu.set32(S.BLOCKING, blockNmi ? controls.BLOCKING.NMI : blocking);

  cpu.set64Halves(S.CR0, loadedCr0(cpu, vmcs.get32(cpu, F.HOST_CR0)), 0);
  load64(cpu, S.CR3, F.HOST_CR3);
  let cr4 = vmcs.get32(cpu, F.HOST_CR4) | CR4.VMXE;
  if (host64) cr4 |= CR4.PAE;
  else cr4 &= ~CR4.PCIDE;
  cpu.set64Halves(S.CR4, cr4, 0);
  cpu.set64Halves(S.DR + 7 * 8, 0x400, 0);
  cpu.set64Halves(S.DEBUGCTL, 0, 0);
  cpu.set64Halves(S.SYSENTER_CS, vmcs.get32(cpu, F.HOST_SYSENTER_CS), 0);
  load64(cpu, S.SYSENTER_ESP, F.HOST_SYSENTER_ESP);
  load64(cpu, S.SYSENTER_EIP, F.HOST_SYSENTER_EIP);
  if (exit & EXIT.LOAD_EFER) load64(cpu, S.EFER, F.HOST_EFER);
  else {
    const efer = cpu.get32(S.EFER) & ~(EFER.LMA | EFER.LME);
    cpu.set32(S.EFER, host64 ? efer | EFER.LMA | EFER.LME : efer);
  }
  if (exit & EXIT.LOAD_PAT) load64(cpu, S.PAT, F.HOST_PAT);

  hostSegment(cpu, SEG.CS, F.HOST_CS_SELECTOR, 0x9b | AR.G | (host64 ? AR.L : AR.DB), 0, 0);
  hostSegment(cpu, SEG.SS, F.HOST_SS_SELECTOR, 0xc093, 0, 0);
  hostSegment(cpu, SEG.DS, F.HOST_DS_SELECTOR, 0xc093, 0, 0);
  hostSegment(cpu, SEG.ES, F.HOST_ES_SELECTOR, 0xc093, 0, 0);
  hostSegment(
    cpu,
    SEG.FS,
    F.HOST_FS_SELECTOR,
    0xc093,
    vmcs.get32(cpu, F.HOST_FS_BASE),
    vmcs.getHigh(cpu, F.HOST_FS_BASE),
  );
  hostSegment(
    cpu,
    SEG.GS,
    F.HOST_GS_SELECTOR,
    0xc093,
    vmcs.get32(cpu, F.HOST_GS_BASE),
    vmcs.getHigh(cpu, F.HOST_GS_BASE),
  );
  const tr = vmcs.get32(cpu, F.HOST_TR_SELECTOR);
  setSegment(cpu, SEG.TR, tr, vmcs.get32(cpu, F.HOST_TR_BASE), vmcs.getHigh(cpu, F.HOST_TR_BASE), 0x67, 0x8b);
  setSegment(cpu, SEG.LDTR, 0, 0, 0, 0, AR.UNUSABLE);
  load64(cpu, S.GDTR, F.HOST_GDTR_BASE);
  cpu.set32(S.GDTR + 8, 0xffff);
  load64(cpu, S.IDTR, F.HOST_IDTR_BASE);
  cpu.set32(S.IDTR + 8, 0xffff);
  cpu.set32(S.CPL, 0);
  load64(cpu, S.RIP, F.HOST_RIP);
  load64(cpu, S.GPR + 4 * 8, F.HOST_RSP);
  setRflags(cpu, 2);

  updateMode(cpu);
  contextChanged(cpu, false);
  if (!host64 && wasLong) return abort(cpu, ABORT.HOST_NOT_64);
  if (!host64 && cr4 & CR4.PAE && !loadPdptes(cpu, cpu.get32(S.CR3), cpu.access.features)) {
    return abort(cpu, ABORT.HOST_PDPTES);
  }
  if (loadMsrs(cpu, F.EXIT_MSR_LOAD_COUNT, F.EXIT_MSR_LOAD_ADDRESS) !== 0) {
    return abort(cpu, ABORT.LOADING_HOST_MSRS);
  }
  cpu.apic.refreshAttention();
}

/** A host segment register: unusable with a null selector (the bases of FS and GS are loaded all the same). */
function hostSegment(
  cpu: Cpu,
  seg: number,
  selector: fields.Field,
  rights: number,
  baseLow: number,
  baseHigh: number,
): void {
  const value = vmcs.get32(cpu, selector) & 0xffff;
  if (value === 0 && seg !== SEG.CS) setSegment(cpu, seg, 0, baseLow, baseHigh, 0, AR.UNUSABLE);
  else setSegment(cpu, seg, value, baseLow, baseHigh, -1, rights);
}

/** Root operation, without anything that only means something for a guest. */
function leaveGuest(cpu: Cpu): void {
  for (let at: number = S.VMX_VPID; at < S.VMX_POINTER; at += 4) cpu.set32(at, 0);
  cpu.set32(S.VMX_MODE, VMX.ROOT);
  cpu.set64Halves(S.VMX_APIC_ACCESS, -1, -1);
  cpu.set64Halves(S.VMX_VIRTUAL_APIC, -1, -1);
  for (let at: number = S.VMX_VECTORING; at <= S.VMX_UNBLOCKED; at += 4) cpu.set32(at, 0);
  cpu.set32(S.VMX_VIRTUAL_INTERRUPT, 0);
  cpu.set32(S.VMX_MONITOR, 0);
  cpu.set32(S.VMX_DEBUG, 0);
  cpu.set32(S.PENDINGDB, 0);
  cpu.set32(S.ACTIVITY, ACTIVITY.ACTIVE);
  cpu.set32(S.ATTENTION, cpu.get32(S.ATTENTION) & ~ATTENTION_VMX);
  stopTimer(cpu);
}

/**
 * A VM entry has failed in its checks of guest state or its MSR loads: only reason and qualification are written, and the host state is
 * loaded.
 */
export function failEntry(cpu: Cpu, reason: number, qualification: number): void {
  vmcs.set32(cpu, F.EXIT_REASON, reason | ENTRY_FAILURE);
  vmcs.setHalves(cpu, F.EXIT_QUALIFICATION, qualification, 0);
  if (cpu.trace.wants & TRACE.vmx) tellExit(cpu, reason | ENTRY_FAILURE);
  cpu.transitions.exits++;
  // What blocked NMIs before the entry still does.
  cpu.set32(S.VMX_PIN, cpu.get32(S.VMX_PIN) & ~PIN.VIRTUAL_NMIS);
  loadHost(cpu, false);
}

/** VMX abort: the indicator goes into the VMCS region, and the processor stands still until RESET. */
function abort(cpu: Cpu, indicator: number): void {
  vmcs.setWordAt(cpu, vmcs.VMCS.ABORT, indicator);
  if (cpu.get32(S.VMX_MODE) === VMX.NON_ROOT) leaveGuest(cpu);
  cpu.set32(S.VMX_ABORTED, indicator);
  cpu.set32(S.ACTIVITY, ACTIVITY.SHUTDOWN);
  updateMode(cpu);
  if (cpu.trace.wants & TRACE.machine) {
    cpu.trace.emit({ kind: "machine", cpu: cpu.id, time: cpu.now(), what: `VMX abort ${indicator}` });
  }
}

function tellExit(cpu: Cpu, reason: number): void {
  cpu.trace.emit({
    kind: "vmx",
    cpu: cpu.id,
    time: cpu.now(),
    what: "exit",
    vmcs: vmcs.currentAddress(cpu),
    rip: vmcs.get64(cpu, F.GUEST_RIP),
    number: reason >>> 0,
    qualification: vmcs.get64(cpu, F.EXIT_QUALIFICATION),
  });
}
