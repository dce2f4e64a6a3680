/**
 * VM entry: checks in the manual's order, guest state, MSR loads, event injection, and what follows at once.
 *
 * Room: `hw/vmx/`; imports the tables of checks, the VMCS, event delivery. instructions.ts calls {@link vmEntry}. SDM vol. 3C, "VM Entries".
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { contextChanged, contextChanging } from "../ept.ts";
import * as state from "../state.ts";
import { setDr7 } from "../sys/debug.ts";
import { injectEvent } from "../sys/event.ts";
import { AR, CR0, CR4, EFER, setSegment, updateMode } from "../sys/mode.ts";
import { setRflags } from "../sys/rflags.ts";
import { TRACE } from "../trace.ts";
import * as vmcs from "../vmcs.ts";
import { startVirtualApic } from "./apic_virtualization.ts";
import { EntryContext, type Rule } from "./check.ts";
import { firstFailure, notePassed, passesAgain } from "./entry_checks.ts";
import { controlRules } from "./checks_controls.ts";
import { guestRules } from "./checks_guest.ts";
import { hostRules } from "./checks_host.ts";
import { PIN, PROC, PROC2, REASON, VMX } from "./contract.ts";
import { ACTIVITY, BLOCKING, ENTRY, EVENT } from "./controls.ts";
import { failEntry } from "./exit.ts";
import { F, type Field } from "./fields.ts";
import { loadMsrs } from "./msr_area.ts";
import { pend, PENDING } from "./pending.ts";
import { startTimer } from "./preemption_timer.ts";
import { GUEST_SEGMENTS, load64, loadedCr0 } from "./transition.ts";

const { S, SEG } = state;

/** VM-instruction errors of the checks. */
const INVALID_CONTROLS = 7, INVALID_HOST = 8;
/** Pending debug exceptions that make a #DB: an enabled breakpoint, a single step. */
const PENDING_TRAPS = 0x5000, PENDING_BITS = 0x400f;
/** In S.STEPFLAGS: the instruction was a VM transition; nothing of its own step is left to do. */
const STEP_TRANSITION = 1 << 31;

const contexts = new WeakMap<Cpu, EntryContext>();

/** What the checks ask, for the current VMCS of `cpu`. */
export function entryContext(cpu: Cpu): EntryContext {
  let found = contexts.get(cpu);
  if (found === undefined) contexts.set(cpu, found = new EntryContext(cpu));
  else found.read();
  return found;
}

/**
 * VM entry with the current VMCS, whose launch state fits. RIP is that of the next instruction.
 *
 * @returns 0 when the processor goes on from what is in the VMCS (as guest, or as host after an entry failure), else the
 * VM-instruction error, with nothing changed.
 */
export function vmEntry(cpu: Cpu): number {
  const c = entryContext(cpu);
  cpu.set32(S.STEPFLAGS, STEP_TRANSITION);
  if (!passesAgain(cpu, c)) {
    const error = checkAll(cpu, c);
    if (error !== 0) return error > 0 ? error : 0;
    notePassed(cpu);
  }
  return carryOut(cpu, c);
}

/** Asks all rules in order: 0 when all hold, −1 when the entry has failed as an exit, or the VM-instruction error. */
function checkAll(cpu: Cpu, c: EntryContext): number {
  const wrongControl = firstFailure(controlRules, c);
  if (wrongControl !== undefined) return instructionFails(cpu, wrongControl, INVALID_CONTROLS);
  const wrongHost = firstFailure(hostRules, c);
  if (wrongHost !== undefined) return instructionFails(cpu, wrongHost, INVALID_HOST);
  const failed = firstFailure(guestRules, c);
  if (failed === undefined) return 0;
  // An entry that fails here is a transition, too: what it invalidates goes by this VMCS.
  cpu.set32(S.TLBVPID, c.has2(PROC2.VPID) ? vmcs.get32(cpu, F.VPID) & 0xffff : 0);
  refused(cpu, failed, REASON.ENTRY_GUEST_STATE);
  failEntry(cpu, REASON.ENTRY_GUEST_STATE, failed.qualification ?? 0);
  return -1;
}

/** The entry itself, with the checks behind it. */
function carryOut(cpu: Cpu, c: EntryContext): number {
  cpu.set32(S.TLBVPID, c.has2(PROC2.VPID) ? vmcs.get32(cpu, F.VPID) & 0xffff : 0);
  if (cpu.get32(S.VMX_MACHINE_CHECK) !== 0) {
    cpu.set32(S.VMX_MACHINE_CHECK, 0);
    failEntry(cpu, REASON.ENTRY_MACHINE_CHECK, 0);
    return 0;
  }
  const hostBlocking = cpu.get32(S.BLOCKING);
  loadGuest(cpu, c);
  const entry = loadMsrs(cpu, F.ENTRY_MSR_LOAD_COUNT, F.ENTRY_MSR_LOAD_ADDRESS);
  if (entry !== 0) {
    cpu.set32(S.BLOCKING, hostBlocking);
    failEntry(cpu, REASON.ENTRY_MSR_LOADING, entry);
    return 0;
  }
  vmcs.setWordAt(cpu, vmcs.VMCS.LAUNCH, vmcs.LAUNCHED);
  cpu.transitions.entries++;
  if (cpu.trace.wants & TRACE.vmx) tellEntry(cpu);
  begin(cpu, c);
  return 0;
}

/** Loads the guest-state area. */
function loadGuest(cpu: Cpu, c: EntryContext): void {
  const ia32e = (c.entry & ENTRY.IA32E_GUEST) !== 0;
  contextChanging(cpu);
  enterGuest(cpu, c);

  const cr0 = loadedCr0(cpu, vmcs.get32(cpu, F.GUEST_CR0));
  cpu.set64Halves(S.CR0, cr0, 0);
  load64(cpu, S.CR3, F.GUEST_CR3);
  const cr4 = vmcs.get32(cpu, F.GUEST_CR4);
  cpu.set64Halves(S.CR4, cr4, 0);
  if (c.entry & ENTRY.LOAD_DEBUG) load64(cpu, S.DEBUGCTL, F.GUEST_DEBUGCTL);
  cpu.set64Halves(S.SYSENTER_CS, vmcs.get32(cpu, F.GUEST_SYSENTER_CS), 0);
  load64(cpu, S.SYSENTER_ESP, F.GUEST_SYSENTER_ESP);
  load64(cpu, S.SYSENTER_EIP, F.GUEST_SYSENTER_EIP);
  if (c.entry & ENTRY.LOAD_EFER) load64(cpu, S.EFER, F.GUEST_EFER);
  else {
    let efer = cpu.get32(S.EFER) & ~EFER.LMA;
    if (ia32e) efer |= EFER.LMA;
    if (cr0 & CR0.PG) efer = ia32e ? efer | EFER.LME : efer & ~EFER.LME;
    cpu.set32(S.EFER, efer);
  }
  if (c.entry & ENTRY.LOAD_PAT) load64(cpu, S.PAT, F.GUEST_PAT);

  for (const { seg, selector, base, limit, rights } of GUEST_SEGMENTS) {
    setSegment(
      cpu,
      seg,
      vmcs.get32(cpu, selector) & 0xffff,
      vmcs.get32(cpu, base),
      vmcs.getHigh(cpu, base),
      vmcs.get32(cpu, limit),
      vmcs.get32(cpu, rights) & 0x1_f0ff,
    );
  }
  cpu.set32(S.CPL, (cpu.segAr(SEG.SS) & AR.DPL) >>> 5);
  load64(cpu, S.GDTR, F.GUEST_GDTR_BASE);
  cpu.set32(S.GDTR + 8, vmcs.get32(cpu, F.GUEST_GDTR_LIMIT) & 0xffff);
  load64(cpu, S.IDTR, F.GUEST_IDTR_BASE);
  cpu.set32(S.IDTR + 8, vmcs.get32(cpu, F.GUEST_IDTR_LIMIT) & 0xffff);
  load64(cpu, S.RIP, F.GUEST_RIP);
  load64(cpu, S.GPR + 4 * 8, F.GUEST_RSP);
  setRflags(cpu, vmcs.get32(cpu, F.GUEST_RFLAGS));

  if (cr0 & CR0.PG && cr4 & CR4.PAE && !ia32e) loadPdptes(cpu, c);
  cpu.set32(
    S.BLOCKING,
    vmcs.get32(cpu, F.GUEST_INTERRUPTIBILITY) & (BLOCKING.STI | BLOCKING.MOV_SS | BLOCKING.NMI),
  );
  cpu.set32(S.ACTIVITY, vmcs.get32(cpu, F.GUEST_ACTIVITY));
  const pending = vmcs.get32(cpu, F.GUEST_PENDING_DEBUG);
  cpu.set32(S.PENDINGDB, pending & PENDING_TRAPS ? (pending & PENDING_BITS) | (pending & 0x1000) : 0);
  if (c.entry & ENTRY.LOAD_DEBUG) setDr7(cpu, vmcs.get32(cpu, F.GUEST_DR7));
  updateMode(cpu);
  contextChanged(cpu, true);
}

/** PDPTEs come from the VMCS with EPT, else from memory; they have been checked. */
function loadPdptes(cpu: Cpu, c: EntryContext): void {
  const cr3 = vmcs.get32(cpu, F.GUEST_CR3) & ~0x1f;
  for (let n = 0; n < 4; n++) {
    if (c.has2(PROC2.EPT)) load64(cpu, S.PDPTE + n * 8, (F.GUEST_PDPTE0 + n * 2) as Field);
    else {
      const low = vmcs.readPhysical32(cpu, cr3 + n * 8, 0),
        high = vmcs.readPhysical32(cpu, cr3 + n * 8 + 4, 0);
      cpu.set64Halves(S.PDPTE + n * 8, low, high);
    }
  }
}

/** Non-root operation: the controls come into force. */
function enterGuest(cpu: Cpu, c: EntryContext): void {
  cpu.set32(S.VMX_MODE, VMX.NON_ROOT);
  cpu.set32(S.VMX_PIN, c.pin);
  cpu.set32(S.VMX_PROC, c.proc);
  cpu.set32(S.VMX_PROC2, c.proc2);
  cpu.set32(S.VMX_EXIT_CONTROLS, c.exit);
  cpu.set32(S.VMX_ENTRY_CONTROLS, c.entry);
  cpu.set32(S.VMX_EXCEPTIONS, vmcs.get32(cpu, F.EXCEPTION_BITMAP));
  cpu.set32(S.VMX_FUNCTIONS, c.has2(PROC2.VM_FUNCTIONS) ? vmcs.get32(cpu, F.VM_FUNCTION_CONTROLS) : 0);
  cpu.set32(S.VMX_VPID, c.has2(PROC2.VPID) ? vmcs.get32(cpu, F.VPID) & 0xffff : 0);
  cpu.set32(S.VMX_EPT, c.has2(PROC2.EPT) ? 1 : 0);
  if (c.has2(PROC2.EPT)) load64(cpu, S.VMX_EPTP, F.EPT_POINTER);
  else cpu.set64Halves(S.VMX_EPTP, 0, 0);
  if (c.has2(PROC2.VIRTUALIZE_APIC_ACCESSES)) load64(cpu, S.VMX_APIC_ACCESS, F.APIC_ACCESS_ADDRESS);
  else cpu.set64Halves(S.VMX_APIC_ACCESS, -1, -1);
  if (c.proc & PROC.TPR_SHADOW) load64(cpu, S.VMX_VIRTUAL_APIC, F.VIRTUAL_APIC_ADDRESS);
  else cpu.set64Halves(S.VMX_VIRTUAL_APIC, -1, -1);
  for (
    const at of [
      S.VMX_VECTORING,
      S.VMX_PENDING,
      S.VMX_UNBLOCKED,
      S.VMX_VIRTUAL_INTERRUPT,
      S.VMX_DEBUG,
      S.VMX_MONITOR,
    ]
  ) {
    cpu.set32(at, 0);
  }
  // All ones: no PAUSE yet.
  cpu.set64Halves(S.VMX_PAUSE_LAST, -1, -1);
}

/** What happens between the loading of the guest and its first instruction. */
function begin(cpu: Cpu, c: EntryContext): void {
  if (c.pin & PIN.PREEMPTION_TIMER) startTimer(cpu);
  startVirtualApic(cpu);
  if (c.proc & (PROC.INTERRUPT_WINDOW | PROC.NMI_WINDOW) || cpu.get32(S.PENDINGDB) !== 0) pend(cpu, 0);
  if (!c.injects) return;
  if (c.eventType === EVENT.OTHER) {
    pend(cpu, PENDING.MTF);
    return;
  }
  // Only a software interrupt or exception right behind a MOV SS keeps the debug exceptions that wait.
  const software = c.eventType === EVENT.SOFTWARE_INTERRUPT || c.eventType === EVENT.SOFTWARE_EXCEPTION;
  const keeps = software && (cpu.get32(S.BLOCKING) & BLOCKING.MOV_SS) !== 0;
  if (!keeps) cpu.set32(S.PENDINGDB, 0);
  injectEvent(
    cpu,
    c.event,
    vmcs.get32(cpu, F.ENTRY_EXCEPTION_ERROR_CODE),
    vmcs.get32(cpu, F.ENTRY_INSTRUCTION_LENGTH),
  );
  if (cpu.get32(S.VMX_MODE) !== VMX.NON_ROOT) return;
  if (cpu.get32(S.ACTIVITY) === ACTIVITY.ACTIVE && c.proc & PROC.MONITOR_TRAP_FLAG) pend(cpu, PENDING.MTF);
}

/** Makes the next VM entry of `cpu` that passes its checks fail on a machine check (exit reason 41); for fault injection. */
export function machineCheckAtEntry(cpu: Cpu): void {
  cpu.set32(S.VMX_MACHINE_CHECK, 1);
}

/** A VMfail: the instruction is one like others, also for a single step. */
function instructionFails(cpu: Cpu, rule: Rule, error: number): number {
  cpu.set32(S.STEPFLAGS, 0);
  return refused(cpu, rule, error);
}

/** Tells the tracer which rule was broken; returns `number`. */
function refused(cpu: Cpu, rule: Rule, number: number): number {
  if (cpu.trace.wants & TRACE.vmx) {
    cpu.trace.emit({
      kind: "vmx",
      cpu: cpu.id,
      time: cpu.now(),
      what: "refused",
      vmcs: vmcs.currentAddress(cpu),
      rip: cpu.rip,
      number,
      qualification: BigInt(rule.qualification ?? 0),
      rule: rule.name,
    });
  }
  return number;
}

function tellEntry(cpu: Cpu): void {
  cpu.trace.emit({
    kind: "vmx",
    cpu: cpu.id,
    time: cpu.now(),
    what: "entry",
    vmcs: vmcs.currentAddress(cpu),
    rip: cpu.rip,
    number: 0,
    qualification: 0n,
  });
}
