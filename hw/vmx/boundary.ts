/**
 * What happens at an instruction boundary of a guest: exits and events in the manual's order of priority.
 *
 * Room: `hw/vmx/`; imports exits, event delivery and APIC virtualization. The run loop asks {@link guestEvent} what is due and has
 * {@link takeGuestEvent} carry it out. SDM vol. 3C, "Other Causes of VM Exits", "Monitor Trap Flag"; vol. 3A, "Priority Among Concurrent
 * Events".
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import * as state from "../state.ts";
import { deliverEvent, deliverPendingDebug } from "../sys/event.ts";
import { acceptVirtualInterrupt, emulateApicWrite, processPostedInterrupts } from "./apic_virtualization.ts";
import * as contract from "./contract.ts";
import * as controls from "./controls.ts";
import { exitNow } from "./exit.ts";
import { pend, PENDING } from "./pending.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const { ATTENTION_INIT, ATTENTION_INTERRUPT, ATTENTION_NMI, ATTENTION_VMX, RFLAGS, S } = state;
const { PIN, PROC, REASON, VMX } = contract;
const { ACTIVITY, BLOCKING, EVENT } = controls;

/** What is due, in order of priority. */
export const DUE = {
  NOTHING: 0,
  APIC_WRITE: 1,
  TPR: 2,
  EOI: 3,
  INIT: 4,
  SIPI: 5,
  MTF: 6,
  DEBUG: 7,
  TIMER: 8,
  NMI_WINDOW: 9,
  NMI: 10,
  INTERRUPT_WINDOW: 11,
  INTERRUPT: 12,
  VIRTUAL_INTERRUPT: 13,
} as const;

/** The highest event that a guest takes before its next instruction. Changes nothing. */
export function guestEvent(cpu: Cpu): number {
  const pending = cpu.get32(S.VMX_PENDING), attention = cpu.get32(S.ATTENTION);
  if (pending & PENDING.APIC_WRITE) return DUE.APIC_WRITE;
  if (pending & PENDING.TPR) return DUE.TPR;
  if (pending & PENDING.EOI) return DUE.EOI;
  const activity = cpu.get32(S.ACTIVITY);
  if (activity === ACTIVITY.WAIT_FOR_SIPI) {
    return attention & ATTENTION_INIT && cpu.apic.sipiVector >= 0 ? DUE.SIPI : DUE.NOTHING;
  }
  if (attention & ATTENTION_INIT && cpu.apic.initPending) return DUE.INIT;
  const blocking = cpu.get32(S.BLOCKING), movSs = (blocking & BLOCKING.MOV_SS) !== 0;
  if (pending & PENDING.MTF && activity !== ACTIVITY.SHUTDOWN) return DUE.MTF;
  if (cpu.get32(S.PENDINGDB) !== 0 && !movSs && activity !== ACTIVITY.SHUTDOWN) return DUE.DEBUG;
  if (pending & PENDING.TIMER) return DUE.TIMER;

  const pin = cpu.get32(S.VMX_PIN), proc = cpu.get32(S.VMX_PROC);
  const shadow = (blocking & (BLOCKING.STI | BLOCKING.MOV_SS)) !== 0;
  if (proc & PROC.NMI_WINDOW && !(blocking & BLOCKING.NMI) && !shadow) return DUE.NMI_WINDOW;
  // With virtual NMIs the blocking bit is that of virtual ones: physical ones are not blocked.
  const nmiBlocked = (blocking & BLOCKING.NMI) !== 0 && !(pin & PIN.VIRTUAL_NMIS);
  if (attention & ATTENTION_NMI && !nmiBlocked && !movSs) return DUE.NMI;
  if (activity === ACTIVITY.SHUTDOWN) return DUE.NOTHING;
  const open = (cpu.get32(S.RFLAGS) & RFLAGS.IF) !== 0 && !shadow;
  if (proc & PROC.INTERRUPT_WINDOW && open) return DUE.INTERRUPT_WINDOW;
  if (
    attention & ATTENTION_INTERRUPT && (pin & PIN.EXTERNAL_INTERRUPT || open) && cpu.apic.pendingVector() >= 0
  ) {
    return DUE.INTERRUPT;
  }
  if (cpu.get32(S.VMX_VIRTUAL_INTERRUPT) !== 0 && open && !(proc & PROC.INTERRUPT_WINDOW)) {
    return DUE.VIRTUAL_INTERRUPT;
  }
  return DUE.NOTHING;
}

function clear(cpu: Cpu, bits: number): void {
  cpu.set32(S.VMX_PENDING, cpu.get32(S.VMX_PENDING) & ~bits);
}

/** Carries out what {@link guestEvent} found. */
export function takeGuestEvent(cpu: Cpu, due: number): void {
  switch (due) {
    case DUE.APIC_WRITE: {
      clear(cpu, PENDING.APIC_WRITE);
      const offset = cpu.get32(S.VMX_APIC_WRITE);
      if (emulateApicWrite(cpu, offset)) exitNow(cpu, REASON.APIC_WRITE, offset);
      break;
    }
    case DUE.TPR:
      exitNow(cpu, REASON.TPR_BELOW_THRESHOLD);
      break;
    case DUE.EOI:
      exitNow(cpu, REASON.VIRTUALIZED_EOI, cpu.get32(S.VMX_PENDING) >>> 24);
      break;
    case DUE.INIT:
      cpu.apic.dropInit();
      exitNow(cpu, REASON.INIT);
      break;
    case DUE.SIPI:
      exitNow(cpu, REASON.SIPI, cpu.apic.takeSipi());
      break;
    case DUE.MTF:
      exitNow(cpu, REASON.MONITOR_TRAP_FLAG);
      break;
    case DUE.DEBUG:
      cpu.set32(S.ACTIVITY, ACTIVITY.ACTIVE);
      deliverPendingDebug(cpu);
      afterDelivery(cpu);
      break;
    case DUE.TIMER:
      exitNow(cpu, REASON.PREEMPTION_TIMER);
      break;
    case DUE.NMI_WINDOW:
      exitNow(cpu, REASON.NMI_WINDOW);
      break;
    case DUE.NMI:
      takeNmi(cpu);
      break;
    case DUE.INTERRUPT_WINDOW:
      exitNow(cpu, REASON.INTERRUPT_WINDOW);
      break;
    case DUE.INTERRUPT:
      takeInterrupt(cpu);
      break;
    case DUE.VIRTUAL_INTERRUPT:
      cpu.set32(S.ACTIVITY, ACTIVITY.ACTIVE);
      deliverEvent(cpu, acceptVirtualInterrupt(cpu), "external", -1);
      afterDelivery(cpu);
      break;
  }
  settle(cpu);
}

function takeNmi(cpu: Cpu): void {
  cpu.apic.takeNmi();
  if (cpu.get32(S.VMX_PIN) & PIN.NMI) {
    exitNow(cpu, REASON.EXCEPTION_OR_NMI, 0, 2 | (EVENT.NMI << EVENT.TYPE_SHIFT) | EVENT.VALID);
    return;
  }
  cpu.set32(S.BLOCKING, cpu.get32(S.BLOCKING) | BLOCKING.NMI);
  cpu.set32(S.ACTIVITY, ACTIVITY.ACTIVE);
  deliverEvent(cpu, 2, "nmi", -1);
  afterDelivery(cpu);
}

function takeInterrupt(cpu: Cpu): void {
  if (!(cpu.get32(S.VMX_PIN) & PIN.EXTERNAL_INTERRUPT)) {
    const vector = cpu.apic.acknowledge();
    cpu.set32(S.ACTIVITY, ACTIVITY.ACTIVE);
    deliverEvent(cpu, vector, "external", -1);
    afterDelivery(cpu);
    return;
  }
  if (!(cpu.get32(S.VMX_EXIT_CONTROLS) & controls.EXIT.ACKNOWLEDGE_INTERRUPT)) {
    exitNow(cpu, REASON.EXTERNAL_INTERRUPT);
    return;
  }
  const vector = cpu.apic.acknowledge();
  if (processPostedInterrupts(cpu, vector)) return;
  exitNow(
    cpu,
    REASON.EXTERNAL_INTERRUPT,
    0,
    vector | (EVENT.EXTERNAL_INTERRUPT << EVENT.TYPE_SHIFT) | EVENT.VALID,
  );
}

/** An event has been delivered, or an instruction completed: with the monitor trap flag that is all the guest may do. */
export function afterDelivery(cpu: Cpu): void {
  if (cpu.get32(S.VMX_PROC) & PROC.MONITOR_TRAP_FLAG) pend(cpu, PENDING.MTF);
}

/** ATTENTION_VMX stays while something may become due by what the guest does: windows, pending exits, a recognised interrupt. */
export function settle(cpu: Cpu): void {
  if (cpu.get32(S.VMX_MODE) !== VMX.NON_ROOT) return;
  const attention = cpu.get32(S.ATTENTION);
  const waits = (cpu.get32(S.VMX_PROC) & (PROC.INTERRUPT_WINDOW | PROC.NMI_WINDOW)) |
    cpu.get32(S.VMX_PENDING) |
    cpu.get32(S.VMX_VIRTUAL_INTERRUPT);
  cpu.set32(S.ATTENTION, waits !== 0 ? attention | ATTENTION_VMX : attention & ~ATTENTION_VMX);
}

/** Whether the monitor trap flag makes every instruction of the guest a step. */
export function stepsForMtf(cpu: Cpu): boolean {
  return (cpu.get32(S.VMX_PROC) & PROC.MONITOR_TRAP_FLAG) !== 0;
}
