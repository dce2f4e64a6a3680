/**
 * The local APIC and the I/O APIC as the kernel drives them (`lapic.c`, `ioapic.c`).
 *
 * Room: `kernel/platform/pc64/`; imports the layout. SDM vol. 3A, "Advanced Programmable Interrupt Controller".
 *
 * @module
 */
import { type Gva, gva } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import { IOAPIC_VA, LAPIC_VA } from "./vmparam.ts";

/** Vectors (`intr_machdep.h`): ISA interrupt requests from IDT_OFFSET on, then the local ones. */
export const VECTOR_ISA = 0x20;
/** Clock interrupt of each processor. */
export const VECTOR_TIMER = 0xef;
/** Messages from other processors. */
export const VECTOR_IPIQ = 0xf1;
/** Spurious; takes no end of interrupt. */
export const VECTOR_SPURIOUS = 0xff;
/** ISA interrupt requests. */
export const ISA_IRQS = 16;

/** Register offsets. */
const LAPIC = {
  EOI: 0xb0,
  SVR: 0xf0,
  ICR_LOW: 0x300,
  ICR_HIGH: 0x310,
  LVT_TIMER: 0x320,
  INITIAL_COUNT: 0x380,
  CURRENT_COUNT: 0x390,
  DIVIDE: 0x3e0,
} as const;
const SVR_ENABLE = 0x100;
const LVT_MASKED = 0x1_0000;
const LVT_PERIODIC = 0x2_0000;
/** Divide by 1. */
const DIVIDE_1 = 0xb;
/** Fixed delivery, level assert. */
const ICR_FIXED = 0x4000;
/** INIT, and start-up with the vector = page number. */
export const ICR_INIT = 0x4500;
export const ICR_STARTUP = 0x4600;

function lapic(register: number): Gva {
  return gva(LAPIC_VA + BigInt(register));
}

/** Switches this processor's local APIC on. */
export function lapicInit(cpu: GateCpu): Exec<void> {
  return cpu.store32(lapic(LAPIC.SVR), SVR_ENABLE | VECTOR_SPURIOUS);
}

/** Ends the interrupt in service. */
export function lapicEoi(cpu: GateCpu): Exec<void> {
  return cpu.store32(lapic(LAPIC.EOI), 0);
}

/** Sends an interrupt command to the processor with a local APIC id. */
export function* lapicIpi(cpu: GateCpu, apicId: number, command: number): Exec<void> {
  yield* cpu.store32(lapic(LAPIC.ICR_HIGH), apicId << 24);
  yield* cpu.store32(lapic(LAPIC.ICR_LOW), command);
}

/** Sends a fixed interrupt. */
export function lapicFixedIpi(cpu: GateCpu, apicId: number, vector: number): Exec<void> {
  return lapicIpi(cpu, apicId, ICR_FIXED | vector);
}

/** Starts the timer: once, or periodically. */
export function* lapicTimerStart(cpu: GateCpu, count: number, periodic: boolean): Exec<void> {
  yield* cpu.store32(lapic(LAPIC.DIVIDE), DIVIDE_1);
  yield* cpu.store32(lapic(LAPIC.LVT_TIMER), VECTOR_TIMER | (periodic ? LVT_PERIODIC : 0));
  yield* cpu.store32(lapic(LAPIC.INITIAL_COUNT), count);
}

/** Stops the timer. */
export function* lapicTimerStop(cpu: GateCpu): Exec<void> {
  yield* cpu.store32(lapic(LAPIC.LVT_TIMER), LVT_MASKED | VECTOR_TIMER);
  yield* cpu.store32(lapic(LAPIC.INITIAL_COUNT), 0);
}

const IOAPIC_SELECT = 0x00, IOAPIC_WINDOW = 0x10;
const IOAPIC_REDIRECTION = 0x10;

/** Lets an ISA interrupt request through, edge-triggered, to the first processor. */
export function* ioapicEnable(cpu: GateCpu, irq: number): Exec<void> {
  const write = function* (register: number, value: number): Exec<void> {
    yield* cpu.store32(gva(IOAPIC_VA + BigInt(IOAPIC_SELECT)), register);
    yield* cpu.store32(gva(IOAPIC_VA + BigInt(IOAPIC_WINDOW)), value);
  };
  yield* write(IOAPIC_REDIRECTION + irq * 2 + 1, 0);
  yield* write(IOAPIC_REDIRECTION + irq * 2, VECTOR_ISA + irq);
}
