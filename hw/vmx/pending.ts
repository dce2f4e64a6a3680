/**
 * What waits for the next instruction boundary of a guest, as bits of S.VMX_PENDING.
 *
 * Room: `hw/vmx/`; leaf: imports state.ts, and cpu.ts by its type.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { ATTENTION_VMX, S } from "../state.ts";

/** Bits of S.VMX_PENDING. */
export const PENDING = {
  /** An MTF VM exit. */
  MTF: 1,
  /** The preemption timer is at 0. */
  TIMER: 2,
  /** A write to the virtual-APIC page at S.VMX_APIC_WRITE is to be virtualized. */
  APIC_WRITE: 4,
  /** The TPR is below its threshold. */
  TPR: 8,
  /** A virtualized EOI that asks for an exit; its vector is in bits 31:24. */
  EOI: 16,
} as const;

/** Makes the run loop look at `bits` at the next instruction boundary. */
export function pend(cpu: Cpu, bits: number): void {
  cpu.set32(S.VMX_PENDING, cpu.get32(S.VMX_PENDING) | bits);
  cpu.set32(S.ATTENTION, cpu.get32(S.ATTENTION) | ATTENTION_VMX);
}
