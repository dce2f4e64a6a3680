/**
 * What the parts of VMX say to each other: modes, exit reasons, and how a VM exit is asked for from the depth of an access.
 *
 * A VM exit travels as a fault does: {@link requestExit} records reason, qualification and addresses in the processor's block, and
 * a pending fault whose vector is {@link EXIT_VECTOR}. Whoever asked leaves as with a fault (returns EXIT_FAULT or throws FAULT, nothing
 * changed), and where a fault would be delivered (sys/event.ts) the exit is carried out instead (vmx/exit.ts), with
 * IDT-vectoring information when it was an event's delivery that asked.
 *
 * Room: `hw/vmx/`; leaf: imports state.ts, and cpu.ts by its type.
 *
 * Who does what, with state fields `S.VMX_…`:
 * - vmx/entry.ts and vmx/exit.ts set VMX_MODE, VMX_VPID, VMX_EPT, VMX_EPTP, the PDPTE registers (S.PDPTE) and all control
 *   registers, then call `contextChanged(cpu, entered)` of hw/ept.ts, once a transition; before the first change `contextChanging(cpu)`,
 *   without which the fast TLB is emptied.
 * - hw/ept.ts has what translation does about it: `isValidEptp(model, low, high)`, `invept(cpu, type, eptpLow, eptpHigh)`,
 *   `invvpid(cpu, type, vpid, linLow, linHigh)`, `contextChanged(cpu, entered)`, `eptpSwitched(cpu)`. Operands are checked before.
 * - An EPT violation, misconfiguration or full PML fills VMX_LINEAR and VMX_PHYSICAL ({@link setExitAddresses}), then
 *   {@link requestExit}. Bit 12 of a qualification is added by vmx/exit.ts. #VE asks {@link isDeliveringEvent}.
 * - `loadPdptes` of paging.ts reads through EPT while VMX_EPT is 1; it may throw FAULT with an exit requested.
 * - VMCS fields that translation needs are read and written with vmcs.ts: `vmcs.get32(cpu, F.PML_INDEX)`.
 * - After translation `Access` compares the physical page with VMX_APIC_ACCESS (vmx/apic_access.ts); such a page never enters the fast TLB.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import * as state from "../state.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const { EXIT_FAULT, S } = state;

/** Values of S.VMX_MODE. */
export const VMX = { OFF: 0, ROOT: 1, NON_ROOT: 2 } as const;

/** In S.FAULTVECTOR: not an exception but a VM exit is pending. */
export const EXIT_VECTOR = 0x100;

/** Basic exit reasons (SDM vol. 3D, appendix C). */
export const REASON = {
  EXCEPTION_OR_NMI: 0,
  EXTERNAL_INTERRUPT: 1,
  TRIPLE_FAULT: 2,
  INIT: 3,
  SIPI: 4,
  INTERRUPT_WINDOW: 7,
  NMI_WINDOW: 8,
  TASK_SWITCH: 9,
  CPUID: 10,
  GETSEC: 11,
  HLT: 12,
  INVD: 13,
  INVLPG: 14,
  RDPMC: 15,
  RDTSC: 16,
  VMCALL: 18,
  VMCLEAR: 19,
  VMLAUNCH: 20,
  VMPTRLD: 21,
  VMPTRST: 22,
  VMREAD: 23,
  VMRESUME: 24,
  VMWRITE: 25,
  VMXOFF: 26,
  VMXON: 27,
  CR_ACCESS: 28,
  MOV_DR: 29,
  IO: 30,
  RDMSR: 31,
  WRMSR: 32,
  ENTRY_GUEST_STATE: 33,
  ENTRY_MSR_LOADING: 34,
  MWAIT: 36,
  MONITOR_TRAP_FLAG: 37,
  MONITOR: 39,
  PAUSE: 40,
  ENTRY_MACHINE_CHECK: 41,
  TPR_BELOW_THRESHOLD: 43,
  APIC_ACCESS: 44,
  VIRTUALIZED_EOI: 45,
  GDTR_IDTR: 46,
  LDTR_TR: 47,
  EPT_VIOLATION: 48,
  EPT_MISCONFIGURATION: 49,
  INVEPT: 50,
  RDTSCP: 51,
  PREEMPTION_TIMER: 52,
  INVVPID: 53,
  WBINVD: 54,
  XSETBV: 55,
  APIC_WRITE: 56,
  RDRAND: 57,
  INVPCID: 58,
  VMFUNC: 59,
  ENCLS: 60,
  RDSEED: 61,
  PML_FULL: 62,
  XSAVES: 63,
  XRSTORS: 64,
} as const;

/** Pin-based controls. */
export const PIN = {
  EXTERNAL_INTERRUPT: 1,
  NMI: 1 << 3,
  VIRTUAL_NMIS: 1 << 5,
  PREEMPTION_TIMER: 1 << 6,
  POSTED_INTERRUPTS: 1 << 7,
} as const;

/** Primary processor-based controls. */
export const PROC = {
  INTERRUPT_WINDOW: 1 << 2,
  TSC_OFFSETTING: 1 << 3,
  HLT: 1 << 7,
  INVLPG: 1 << 9,
  MWAIT: 1 << 10,
  RDPMC: 1 << 11,
  RDTSC: 1 << 12,
  CR3_LOAD: 1 << 15,
  CR3_STORE: 1 << 16,
  TERTIARY: 1 << 17,
  CR8_LOAD: 1 << 19,
  CR8_STORE: 1 << 20,
  TPR_SHADOW: 1 << 21,
  NMI_WINDOW: 1 << 22,
  MOV_DR: 1 << 23,
  UNCONDITIONAL_IO: 1 << 24,
  IO_BITMAPS: 1 << 25,
  MONITOR_TRAP_FLAG: 1 << 27,
  MSR_BITMAPS: 1 << 28,
  MONITOR: 1 << 29,
  PAUSE: 1 << 30,
  SECONDARY: 1 << 31,
} as const;

/** Secondary processor-based controls. */
export const PROC2 = {
  VIRTUALIZE_APIC_ACCESSES: 1,
  EPT: 1 << 1,
  DESCRIPTOR_TABLE: 1 << 2,
  RDTSCP: 1 << 3,
  X2APIC: 1 << 4,
  VPID: 1 << 5,
  WBINVD: 1 << 6,
  UNRESTRICTED_GUEST: 1 << 7,
  APIC_REGISTERS: 1 << 8,
  VIRTUAL_INTERRUPTS: 1 << 9,
  PAUSE_LOOP: 1 << 10,
  RDRAND: 1 << 11,
  INVPCID: 1 << 12,
  VM_FUNCTIONS: 1 << 13,
  VMCS_SHADOWING: 1 << 14,
  RDSEED: 1 << 16,
  PML: 1 << 17,
  EPT_VIOLATION_VE: 1 << 18,
  CONCEAL_PT: 1 << 19,
  XSAVES: 1 << 20,
  MODE_BASED_EXECUTE: 1 << 22,
  TSC_SCALING: 1 << 25,
} as const;

/**
 * Asks for a VM exit, in place of a fault. Other fields of the exit that apply are set before (addresses, instruction information).
 *
 * @param reason Basic exit reason, see {@link REASON}.
 * @param low Exit qualification, low half.
 * @param high Its upper half.
 * @returns EXIT_FAULT: the caller returns it, or throws FAULT.
 */
export function requestExit(cpu: Cpu, reason: number, low = 0, high = 0): number {
  cpu.set32(S.VMX_REASON, reason);
  cpu.set32(S.VMX_INTERRUPTION, 0);
  cpu.set64Halves(S.VMX_QUALIFICATION, low, high);
  cpu.setFault(EXIT_VECTOR);
  return EXIT_FAULT;
}

/** Records the guest-linear and the guest-physical address of the exit that is asked for next. */
export function setExitAddresses(
  cpu: Cpu,
  linearLow: number,
  linearHigh: number,
  physicalLow: number,
  physicalHigh: number,
): void {
  cpu.set64Halves(S.VMX_LINEAR, linearLow, linearHigh);
  cpu.set64Halves(S.VMX_PHYSICAL, physicalLow, physicalHigh);
}

/** True in VMX non-root operation. */
export function isNonRoot(cpu: Cpu): boolean {
  return cpu.memory.i32[(cpu.base + S.VMX_MODE) >>> 2] === 2;
}

/** True while an event is being delivered in non-root operation (no #VE then; exits have IDT-vectoring information). */
export function isDeliveringEvent(cpu: Cpu): boolean {
  return cpu.get32(S.VMX_VECTORING) !== 0;
}

/** Whether an exit is pending instead of an exception. */
export function isExitPending(cpu: Cpu): boolean {
  return cpu.get32(S.FAULTVECTOR) === EXIT_VECTOR;
}

/** Whether the pending exit is that of an instruction that a hypervisor carries out in the guest's place, not of an access or an event. */
export function isInstructionExitPending(cpu: Cpu): boolean {
  if (!isExitPending(cpu)) return false;
  const reason = cpu.get32(S.VMX_REASON);
  return reason !== REASON.EPT_VIOLATION && reason !== REASON.EPT_MISCONFIGURATION &&
    reason !== REASON.APIC_ACCESS &&
    reason !== REASON.PML_FULL && reason !== REASON.EXCEPTION_OR_NMI;
}
