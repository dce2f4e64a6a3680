/**
 * The local APIC's registers: where they stand, which bits they have, which may be read and written in which mode.
 *
 * Room: leaf of `hw/dev/`; imports nothing. SDM vol. 3A, "Local APIC Register Address Map", "x2APIC Register Address Space".
 *
 * @module
 */

/** Register offsets in the xAPIC page; the x2APIC MSR is 800H + offset / 16. */
export const APIC = {
  ID: 0x020,
  VERSION: 0x030,
  TPR: 0x080,
  APR: 0x090,
  PPR: 0x0a0,
  EOI: 0x0b0,
  RRD: 0x0c0,
  LDR: 0x0d0,
  DFR: 0x0e0,
  SVR: 0x0f0,
  ISR: 0x100,
  TMR: 0x180,
  IRR: 0x200,
  ESR: 0x280,
  ICR_LOW: 0x300,
  ICR_HIGH: 0x310,
  LVT_TIMER: 0x320,
  LVT_THERMAL: 0x330,
  LVT_PERFORMANCE: 0x340,
  LVT_LINT0: 0x350,
  LVT_LINT1: 0x360,
  LVT_ERROR: 0x370,
  INITIAL_COUNT: 0x380,
  CURRENT_COUNT: 0x390,
  DIVIDE: 0x3e0,
  SELF_IPI: 0x3f0,
} as const;

/** Bits of the error status register. */
export const APIC_ERROR = {
  sendIllegalVector: 0x20,
  receivedIllegalVector: 0x40,
  illegalRegister: 0x80,
} as const;

/** Where the APIC page stands after reset. */
export const APIC_DEFAULT_BASE = 0xfee0_0000;
/** IA32_APIC_BASE: bootstrap processor, x2APIC mode, global enable. */
export const BASE_BSP = 0x100, BASE_EXTD = 0x400, BASE_EN = 0x800;

/** LVT mask bit. */
export const LVT_MASKED = 0x1_0000;
/** Spurious-interrupt vector register: APIC enabled; EOIs are not broadcast. */
export const SVR_ENABLED = 0x100, SVR_NO_EOI_BROADCAST = 0x1000;
/** Version 15H, six LVT entries, EOI broadcasts can be suppressed. */
export const APIC_VERSION = 0x0105_0015;
/** Writable bits of the LVT entries, in the order of their offsets from LVT_TIMER. */
export const LVT_WRITABLE = [
  0x0007_00ff,
  0x0001_07ff,
  0x0001_07ff,
  0x0001_a7ff,
  0x0001_a7ff,
  0x0001_00ff,
] as const;
/** LVT entries of the pins: level-triggered, remote IRR, active low. */
export const LVT_PIN_TRIGGER_LEVEL = 0x8000, LVT_PIN_REMOTE_IRR = 0x4000, LVT_PIN_LOW = 0x2000;

/** MSR numbers. */
export const IA32_APIC_BASE = 0x1b, IA32_TSC_DEADLINE = 0x6e0;

/** Registers that exist but ignore writes in xAPIC mode. */
export function isReadOnly(offset: number): boolean {
  return offset === APIC.VERSION || offset === APIC.APR || offset === APIC.PPR || offset === APIC.RRD ||
    offset === APIC.CURRENT_COUNT || (offset >= APIC.ISR && offset < APIC.ESR && (offset & 0xf) === 0);
}

/** Registers that can be read. */
export function isDefined(offset: number): boolean {
  if (offset >= APIC.ISR && offset < APIC.ESR) return true;
  if (offset >= APIC.LVT_TIMER && offset <= APIC.CURRENT_COUNT) return true;
  switch (offset) {
    case APIC.ID:
    case APIC.VERSION:
    case APIC.TPR:
    case APIC.PPR:
    case APIC.LDR:
    case APIC.SVR:
    case APIC.ESR:
    case APIC.ICR_LOW:
    case APIC.DIVIDE:
      return true;
  }
  return false;
}

/** Bits of the low half that must be 0 in a WRMSR to an x2APIC register, or undefined when it can't be written. */
export function x2apicReserved(offset: number): number | undefined {
  switch (offset) {
    case APIC.TPR:
    case APIC.SELF_IPI:
      return ~0xff;
    case APIC.EOI:
    case APIC.ESR:
      return ~0;
    case APIC.SVR:
      return ~(0xff | SVR_ENABLED | SVR_NO_EOI_BROADCAST | 0x200);
    case APIC.ICR_LOW:
      return ~0x000c_cfff;
    case APIC.INITIAL_COUNT:
      return 0;
    case APIC.DIVIDE:
      return ~0xb;
  }
  if (offset >= APIC.LVT_TIMER && offset <= APIC.LVT_ERROR) {
    // Delivery status and remote IRR are read-only, not reserved.
    return ~(LVT_WRITABLE[(offset - APIC.LVT_TIMER) >>> 4]! | 0x1000 | LVT_PIN_REMOTE_IRR);
  }
  return undefined;
}
