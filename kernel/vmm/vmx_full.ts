/**
 * Full guests: a kernel in ring 0 of non-root operation, with its own descriptor tables, page tables and exceptions. Not DragonFly's; the
 * third kind of vkernel (`-d ring0`).
 *
 * Room: `kernel/vmm/`; imports the instructions and the system calls' entry.
 *
 * Rules:
 *
 * 1. Exceptions, page faults, system calls and page-table changes of the guest's programs never leave the guest. What does: memory that the host has
 *    to bring in (EPT), HLT, CPUID, I/O, MSRs that it does not have for itself, CR0 and CR4 bits that it does not own, VMCALL.
 * 2. VMCALL at CPL 0 is a system call of the host: registers, numbers and answers as with SYSCALL, but RCX and R11 stay. At CPL 3 it is #UD.
 * 3. A signal that the process catches is not a frame on a stack: the guest's virtual interrupt vector is injected when RFLAGS.IF lets it, and the
 *    guest asks which signals there were (vmm_guest_ctl(VMM_GUEST_SIGNALS)).
 * 4. Where an exit is handled the VMCS may be current no more: what is to be written into it is noted and written before the next entry.
 *
 * Left out: debug registers (reads give their values after RESET, writes do nothing), performance counters, XSAVE, a local APIC.
 *
 * @module
 */
import { type Gva, gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { FieldName } from "../../hw/vmx/fields.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { kprintf, log } from "../kern/subr_prf.ts";
import { T_FAST_SYSCALL, TF, TF_REGISTERS, type TrapField } from "../platform/pc64/frame.ts";
import { exit1 } from "../proc/kern_exit.ts";
import { SIGABRT } from "../proc/signal.ts";
import { syscallAt } from "../trap/trap.ts";
import type { VmxCapability, VmxFullGuest, VmxThread } from "./vmm_state.ts";
import { EXIT_NAMES, EXIT_REASON, INTR_INFO, MSR, PROCBASED } from "./vmx_defs.ts";
import { readCr, vmread, vmread32, vmwrite, writeCr } from "./vmx_instr.ts";
import { fullMsrSlot, GUEST_CR4 } from "./vmx_vmcs.ts";

const UD = 6, GP = 13;
const RFLAGS_IF = 0x200n;
/** Interruptibility state: blocking by STI, by MOV SS. */
const BLOCKED = 3n;
/** Bits of EFER that a guest may change: SCE and NXE. */
const EFER_OWN = 0x801n;
/** Bits of CR0 that a guest may change by way of an exit: nothing but what it owns; CD and NW are taken and forgotten. */
const CR0_CACHE = 0x6000_0000n;
/** Bits of CR0 that a guest changes itself, and those of CR4; see vmx_vmcs.ts. */
const CR0_OWN = 0x5_000en, CR4_OWN = 0x8cn;
/** Bits of CR4 that a guest may set besides: PSE, MCE, PCE, OSFXSR, OSXMMEXCPT, UMIP, FSGSBASE, SMEP, SMAP. */
const CR4_TAKEN = 0x31_0f50n;
/** CR4.VMXE, which is the host's. */
const CR4_VMXE = 0x2000n;
const VMCALL_BYTES = 3;
/** MSRs that read a constant and take any value: TSC_ADJUST, MISC_ENABLE, PAT. */
const MSR_CONSTANTS: ReadonlyMap<number, bigint> = new Map([
  [0x3b, 0n],
  [0x1a0, 1n],
  [0x277, 0x0007_0406_0007_0406n],
]);

/** Before an entry, the VMCS current, interrupts off: what was noted, CR2, and the event to inject. */
export function vmxFullBeforeEntry(cx: Cx, vti: VmxThread, full: VmxFullGuest, rflags: bigint): void {
  const { exit } = vti;
  for (const [field, value] of full.writes.splice(0)) vmwrite(cx, field, value);
  if (full.unblock) {
    vmwrite(cx, "GUEST_INTERRUPTIBILITY", vmread(cx, "GUEST_INTERRUPTIBILITY") & ~BLOCKED);
    full.unblock = false;
  }
  writeCr(cx, 2, full.cr2);
  if (exit.vectoring < 0) {
    // An event whose delivery an exit interrupted is delivered again.
    inject(cx, exit.vectoring & ~(1 << 12), exit.vectoringError, exit.instructionLength);
    exit.vectoring = 0;
    return setWindow(cx, full, vti, full.pending);
  }
  if (full.exception !== undefined) {
    inject(cx, full.exception.information, full.exception.code, 0);
    full.exception = undefined;
    return setWindow(cx, full, vti, full.pending);
  }
  if (!full.pending) return setWindow(cx, full, vti, false);
  const open = (rflags & RFLAGS_IF) !== 0n && (vmread(cx, "GUEST_INTERRUPTIBILITY") & BLOCKED) === 0n;
  if (!open) return setWindow(cx, full, vti, true);
  full.pending = false;
  full.halted = false;
  cx.k.vmm.counters.injections++;
  inject(cx, INTR_INFO.VALID | INTR_INFO.TYPE_EXT_INTR | full.vector, 0, 0);
  setWindow(cx, full, vti, false);
}

function inject(cx: Cx, information: number, code: number, length: number): void {
  vmwrite(cx, "ENTRY_INTERRUPTION_INFORMATION", information >>> 0);
  if (information & INTR_INFO.DELIVER_CODE) vmwrite(cx, "ENTRY_EXCEPTION_ERROR_CODE", code >>> 0);
  if ((information & INTR_INFO.TYPE) >= INTR_INFO.TYPE_SOFT_INTR) {
    vmwrite(cx, "ENTRY_INSTRUCTION_LENGTH", length >>> 0);
  }
}

/** "Interrupt-window exiting": an exit as soon as the guest lets interrupts come. */
function setWindow(cx: Cx, full: VmxFullGuest, _vti: VmxThread, on: boolean): void {
  if (full.window === on) return;
  full.window = on;
  const controls = vmread32(cx, "PROCESSOR_BASED_CONTROLS");
  const next = on ? controls | PROCBASED.INTERRUPT_WINDOW : controls & ~PROCBASED.INTERRUPT_WINDOW;
  vmwrite(cx, "PROCESSOR_BASED_CONTROLS", next >>> 0);
}

/** After an exit, the VMCS still current: what whoever handles it may need. */
export function vmxFullAfterExit(cx: Cx, vti: VmxThread, full: VmxFullGuest): void {
  full.cr2 = readCr(cx, 2);
  vti.guestCr3 = vmread(cx, "GUEST_CR3");
  full.cpl = (vmread32(cx, "GUEST_SS_ACCESS_RIGHTS") >>> 5) & 3;
  const { exit } = vti, { reason } = exit;
  // An exit while an event was being delivered: it is delivered again.
  exit.vectoring = vmread32(cx, "IDT_VECTORING_INFORMATION");
  if (exit.vectoring < 0) {
    exit.vectoringError = vmread32(cx, "IDT_VECTORING_ERROR_CODE");
    exit.instructionLength = vmread32(cx, "EXIT_INSTRUCTION_LENGTH");
  }
  if (reason === EXIT_REASON.CR_ACCESS) {
    full.cr0 = vmread(cx, "GUEST_CR0");
    full.cr4 = vmread(cx, "GUEST_CR4");
  } else if (reason === EXIT_REASON.RDMSR || reason === EXIT_REASON.WRMSR) {
    full.efer = vmread(cx, "GUEST_EFER");
    full.fsBase = vmread(cx, "GUEST_FS_BASE");
    full.gsBase = vmread(cx, "GUEST_GS_BASE");
  }
}

/** An exception to inject. */
function raise(full: VmxFullGuest, vector: number): void {
  const code = vector === GP ? INTR_INFO.DELIVER_CODE : 0;
  full.exception = { information: INTR_INFO.VALID | INTR_INFO.TYPE_HARD_EXCEPTION | code | vector, code: 0 };
}

/** The instruction that caused the exit has been carried out. */
export function* vmxFullDone(cx: Cx, vti: VmxThread, full: VmxFullGuest, at: Gva): Exec<void> {
  const rip = gva(at + BigInt(TF.rip));
  yield* cx.cpu.store64(rip, (yield* cx.cpu.load64(rip)) + BigInt(vti.exit.instructionLength));
  full.unblock = true;
}

/** Deals with an exit that is not about memory, an interrupt, or CPUID. */
export function* vmxFullExit(cx: Cx, vti: VmxThread, full: VmxFullGuest, at: Gva): Exec<void> {
  const { exit } = vti;
  switch (exit.reason) {
    case EXIT_REASON.EXCEPTION:
      // The bitmap is empty: an NMI.
      kprintf(cx, `cpu${cx.cpu.cpu.id}: NMI\n`);
      return;
    case EXIT_REASON.INTR_WINDOW:
      return;
    case EXIT_REASON.HLT:
      full.halted = true;
      return yield* vmxFullDone(cx, vti, full, at);
    case EXIT_REASON.INVD:
    case EXIT_REASON.WBINVD:
      return yield* vmxFullDone(cx, vti, full, at);
    case EXIT_REASON.VMCALL:
      return full.cpl === 0 ? yield* systemCall(cx, full, at) : raise(full, UD);
    case EXIT_REASON.CR_ACCESS:
      return yield* controlRegister(cx, vti, full, at);
    case EXIT_REASON.MOV_DR:
      // This exit alone comes before the check of the privilege level.
      return full.cpl === 0 ? yield* debugRegister(cx, vti, full, at) : raise(full, GP);
    case EXIT_REASON.RDMSR:
      return yield* readMsr(cx, vti, full, at);
    case EXIT_REASON.WRMSR:
      return yield* writeMsr(cx, vti, full, at);
    case EXIT_REASON.IO:
    case EXIT_REASON.RDPMC:
    case EXIT_REASON.XSETBV:
      return raise(full, GP);
    case EXIT_REASON.TRIPLE_FAULT:
      return yield* vmxFullDies(cx, vti, "triple fault", at);
  }
  const isVmx = (exit.reason >= EXIT_REASON.VMCLEAR && exit.reason <= EXIT_REASON.VMXON) ||
    exit.reason === EXIT_REASON.INVEPT || exit.reason === EXIT_REASON.INVVPID;
  if (isVmx) return raise(full, UD);
  yield* vmxFullDies(cx, vti, EXIT_NAMES[exit.reason] ?? `exit ${exit.reason}`, at);
}

/** The guest cannot go on: told in the log, and the process ends as by SIGABRT. */
export function* vmxFullDies(cx: Cx, vti: VmxThread, what: string, at: Gva): Exec<void> {
  const { pPid, pComm } = vti.lwp.lwpProc;
  const rip = yield* cx.cpu.load64(gva(at + BigInt(TF.rip)));
  log(cx, `vmm: pid ${pPid} (${pComm}): ${what} at 0x${rip.toString(16)}\n`);
  yield* exit1(cx, SIGABRT);
}

/** VMCALL (rule 2). */
function* systemCall(cx: Cx, full: VmxFullGuest, at: Gva): Exec<void> {
  cx.k.vmm.counters.syscalls++;
  const word = (offset: number) => gva(at + BigInt(offset));
  yield* cx.cpu.store64(word(TF.rip), (yield* cx.cpu.load64(word(TF.rip))) + BigInt(VMCALL_BYTES));
  yield* cx.cpu.store64(word(TF.err), BigInt(VMCALL_BYTES));
  yield* cx.cpu.store64(word(TF.trapno), BigInt(T_FAST_SYSCALL));
  full.unblock = true;
  yield* syscallAt(cx, at);
}

/** General-purpose registers by their numbers, as fields of the frame; 4 is RSP. */
const GPRS: readonly TrapField[] = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"];
function gprField(n: number): TrapField {
  return n < 8 ? GPRS[n]! : TF_REGISTERS.find((name) => name === `r${n}`)!;
}
const gprAt = (at: Gva, n: number) => gva(at + BigInt(TF[gprField(n)]));

/** What the processor can; it runs a guest. */
function capabilityOf(cx: Cx): VmxCapability {
  const { capability } = cx.k.vmm;
  kassert(typeof capability === "object", "vmx: no capability");
  return capability;
}

/** MOV to and from control registers, CLTS, LMSW, as far as they exit. */
function* controlRegister(cx: Cx, vti: VmxThread, full: VmxFullGuest, at: Gva): Exec<void> {
  const q = Number(vti.exit.qualification & 0xffff_ffffn);
  const n = q & 15, access = (q >>> 4) & 3, register = gprAt(at, (q >>> 8) & 15);
  const write = (field: FieldName, value: bigint) => full.writes.push([field, value]);
  if (access === 1) {
    if (n === 8) yield* cx.cpu.store64(register, full.cr8);
    else if (n === 3) yield* cx.cpu.store64(register, vti.guestCr3);
    else return raise(full, GP);
    return yield* vmxFullDone(cx, vti, full, at);
  }
  if (access !== 0) {
    // CLTS and LMSW touch bits that the guest owns; LMSW could only set PE, which is set.
    return yield* vmxFullDone(cx, vti, full, at);
  }
  const value = yield* cx.cpu.load64(register);
  if (n === 8) {
    if (value > 15n) return raise(full, GP);
    full.cr8 = value;
  } else if (n === 3) {
    // Only where the processor cannot let the guest do it. There are no PCIDs: bit 63 is reserved like all others beyond the address.
    if (value >> BigInt(capabilityOf(cx).physicalBits) !== 0n) return raise(full, GP);
    vti.guestCr3 = value;
    write("GUEST_CR3", value);
  } else if (n === 0) {
    if (((value ^ full.cr0) & ~(CR0_OWN | CR0_CACHE)) !== 0n) return raise(full, GP);
    write("GUEST_CR0", (full.cr0 & ~CR0_OWN) | (value & CR0_OWN));
    write("CR0_READ_SHADOW", value);
  } else {
    const fixed = full.cr4 & CR4_VMXE;
    const allowed = (GUEST_CR4 | CR4_OWN | CR4_TAKEN) & capabilityOf(cx).cr4Fixed[1];
    if ((value & ~allowed) !== 0n || (value & 0x20n) === 0n) return raise(full, GP);
    write("GUEST_CR4", value | fixed);
    write("CR4_READ_SHADOW", value);
  }
  yield* vmxFullDone(cx, vti, full, at);
}

/** MOV DR: the registers are as after RESET, whatever is written. */
function* debugRegister(cx: Cx, vti: VmxThread, full: VmxFullGuest, at: Gva): Exec<void> {
  const q = Number(vti.exit.qualification & 0xffff_ffffn);
  const n = q & 7, isRead = (q & 16) !== 0;
  if (isRead) {
    const value = n === 7 || n === 5 ? 0x400n : n === 6 || n === 4 ? 0xffff_0ff0n : 0n;
    yield* cx.cpu.store64(gprAt(at, (q >>> 8) & 15), value);
  }
  yield* vmxFullDone(cx, vti, full, at);
}

/** RDMSR of what exits, which is everything. */
function* readMsr(cx: Cx, vti: VmxThread, full: VmxFullGuest, at: Gva): Exec<void> {
  const msr = Number((yield* cx.cpu.load64(gprAt(at, 1))) & 0xffff_ffffn);
  const slot = fullMsrSlot(full, msr);
  let value: bigint | undefined;
  if (slot !== undefined) value = yield* cx.cpu.load64(gva(slot));
  else if (msr === MSR.EFER) value = full.efer;
  else if (msr === MSR.FS_BASE) value = full.fsBase;
  else if (msr === MSR.GS_BASE) value = full.gsBase;
  else value = MSR_CONSTANTS.get(msr);
  if (value === undefined) return raise(full, GP);
  yield* cx.cpu.store64(gprAt(at, 0), value & 0xffff_ffffn);
  yield* cx.cpu.store64(gprAt(at, 2), value >> 32n);
  yield* vmxFullDone(cx, vti, full, at);
}

function isCanonical(value: bigint): boolean {
  return BigInt.asUintN(64, BigInt.asIntN(48, value)) === value;
}

/** WRMSR. What would fault at the next entry is #GP now. */
function* writeMsr(cx: Cx, vti: VmxThread, full: VmxFullGuest, at: Gva): Exec<void> {
  const msr = Number((yield* cx.cpu.load64(gprAt(at, 1))) & 0xffff_ffffn);
  const low = (yield* cx.cpu.load64(gprAt(at, 0))) & 0xffff_ffffn;
  const value = (((yield* cx.cpu.load64(gprAt(at, 2))) & 0xffff_ffffn) << 32n) | low;
  const slot = fullMsrSlot(full, msr);
  const isAddress = msr === MSR.LSTAR || msr === MSR.CSTAR || msr === MSR.KERNEL_GS_BASE ||
    msr === MSR.FS_BASE || msr === MSR.GS_BASE;
  if (isAddress && !isCanonical(value)) return raise(full, GP);
  if (msr === MSR.SFMASK && value >> 32n !== 0n) return raise(full, GP);
  if (slot !== undefined) yield* cx.cpu.store64(gva(slot), value);
  else if (msr === MSR.FS_BASE) full.writes.push(["GUEST_FS_BASE", value]);
  else if (msr === MSR.GS_BASE) full.writes.push(["GUEST_GS_BASE", value]);
  else if (msr === MSR.EFER) {
    // LMA reads as it is; LME cannot change while paging is on.
    if (((value ^ full.efer) & ~(EFER_OWN | 0x400n)) !== 0n) return raise(full, GP);
    full.writes.push(["GUEST_EFER", (full.efer & ~EFER_OWN) | (value & EFER_OWN)]);
  } else if (!MSR_CONSTANTS.has(msr)) return raise(full, GP);
  yield* vmxFullDone(cx, vti, full, at);
}
