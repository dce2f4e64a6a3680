/**
 * The VMX-preemption timer: counts down each time bit X of the time-stamp counter changes, X from IA32_VMX_MISC.
 *
 * It is an alarm on the machine's clock, not a counter: so it runs in the HLT state too, costs nothing while the guest runs, and goes off
 * at exactly its tick under every engine. Writing the time-stamp counter does not move it.
 *
 * Room: `hw/vmx/`; imports state.ts, the VMCS and the capability.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { ATTENTION_VMX, S } from "../state.ts";
import * as vmcs from "../vmcs.ts";
import { vmxCapability } from "./capability.ts";
import { F } from "./fields.ts";
import { PENDING } from "./pending.ts";

function rateOf(cpu: Cpu): number {
  return 2 ** vmxCapability(cpu.model).timerRate;
}

/** Starts the timer with the value in the VMCS; 0 goes off at once. */
export function startTimer(cpu: Cpu): void {
  const rate = rateOf(cpu), value = vmcs.get32(cpu, F.PREEMPTION_TIMER_VALUE) >>> 0;
  const end = Math.floor(cpu.now() / rate) + value;
  cpu.memory.f64[(cpu.base + S.VMX_TIMER_END) >>> 3] = end;
  if (value === 0) timerExpired(cpu);
  else cpu.preemptionTimer?.set(end * rate);
}

/** Stops the timer. */
export function stopTimer(cpu: Cpu): void {
  cpu.preemptionTimer?.cancel();
}

/** What the timer has left, as VM exit saves it. */
export function savedTimer(cpu: Cpu): number {
  const end = cpu.memory.f64[(cpu.base + S.VMX_TIMER_END) >>> 3]!;
  return Math.max(0, end - Math.floor(cpu.now() / rateOf(cpu)));
}

/** The timer has reached 0: the run loop takes the exit at the next instruction boundary. */
export function timerExpired(cpu: Cpu): void {
  if (cpu.get32(S.VMX_MODE) !== 2) return;
  cpu.set32(S.VMX_PENDING, cpu.get32(S.VMX_PENDING) | PENDING.TIMER);
  cpu.set32(S.ATTENTION, cpu.get32(S.ATTENTION) | ATTENTION_VMX);
}
