/**
 * Bits of VM-exit and VM-entry controls, and of interruption information. Execution controls are in contract.ts.
 *
 * Room: `hw/vmx/`; leaf: imports nothing. SDM vol. 3C, "VM-Exit Control Fields", "VM-Entry Control Fields".
 *
 * @module
 */

/** VM-exit controls. */
export const EXIT = {
  SAVE_DEBUG: 1 << 2,
  HOST_64: 1 << 9,
  ACKNOWLEDGE_INTERRUPT: 1 << 15,
  SAVE_PAT: 1 << 18,
  LOAD_PAT: 1 << 19,
  SAVE_EFER: 1 << 20,
  LOAD_EFER: 1 << 21,
  SAVE_PREEMPTION_TIMER: 1 << 22,
} as const;

/** VM-entry controls. */
export const ENTRY = {
  LOAD_DEBUG: 1 << 2,
  IA32E_GUEST: 1 << 9,
  LOAD_PAT: 1 << 14,
  LOAD_EFER: 1 << 15,
} as const;

/** Interruption information: types (bits 10:8), and the other bits. */
export const EVENT = {
  EXTERNAL_INTERRUPT: 0,
  RESERVED: 1,
  NMI: 2,
  HARDWARE_EXCEPTION: 3,
  SOFTWARE_INTERRUPT: 4,
  PRIVILEGED_SOFTWARE_EXCEPTION: 5,
  SOFTWARE_EXCEPTION: 6,
  OTHER: 7,
  TYPE_SHIFT: 8,
  DELIVER_CODE: 1 << 11,
  NMI_UNBLOCKING: 1 << 12,
  VALID: 1 << 31,
} as const;

/** Bits of the guest's interruptibility state. */
export const BLOCKING = { STI: 1, MOV_SS: 2, SMI: 4, NMI: 8 } as const;

/** Activity states. */
export const ACTIVITY = { ACTIVE: 0, HLT: 1, SHUTDOWN: 2, WAIT_FOR_SIPI: 3 } as const;
