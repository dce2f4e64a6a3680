/**
 * Where everything stands in the address space that the host's processor and the simulated ones share: one region below
 * 2 GiB, so that 32-bit absolute addresses reach it.
 *
 * Room: `lab/silicon/`; imports nothing.
 *
 * @module
 */

/** The region, and its length; what is not named below may not be touched at all. */
export const REGION = 0x3000_0000, REGION_BYTES = 0x100_0000;

/** The control block: what the host's stubs read and write. Two pages. */
export const CONTROL = REGION, CONTROL_BYTES = 0x2000;
/** Offsets in the control block. */
export const C = {
  /** u64 × 16: registers to begin with. */
  gpr: 0,
  /** u64: RFLAGS to begin with. */
  flags: 0x80,
  /** u64: address of the first instruction. */
  entry: 0x88,
  /** u64: 1 when a signal came, 0 when the end was reached. */
  signalled: 0x90,
  /** 512 bytes: the FXSAVE image to begin with. */
  fx: 0x200,
  /** u64 × 16, u64: registers and RFLAGS at the end. */
  outGpr: 0x400,
  outFlags: 0x480,
  /** u64 × 23: general registers as the kernel gives them to a signal handler. */
  context: 0x500,
  /** 512 bytes: the FXSAVE image at the end. */
  outFx: 0x600,
  /** u64: the host's stack pointer; 512 bytes: its FXSAVE image. */
  hostStack: 0x800,
  hostFx: 0xa00,
  /** u64 by signal number: the handlers that the signals had before. */
  previous: 0xc00,
} as const;

/** The stubs' code, one page. */
export const STUBS = REGION + 0x1_0000, STUBS_BYTES = 0x1000;
/** The stack of signal handlers. */
export const SIGNAL_STACK = REGION + 0x2_0000, SIGNAL_STACK_BYTES = 0x2_0000;

/** The sequences' code. Slots are no divisor of a page: some sequences cross into another page. */
export const CODE = REGION + 0x10_0000, CODE_BYTES = 0x2_0000;
/** Bytes of code for one sequence, and how many there are. */
export const SLOT_BYTES = 0x1b8, SLOTS = Math.floor(CODE_BYTES / SLOT_BYTES);

/** Memory that sequences may read and write; nothing on either side. */
export const DATA = REGION + 0x80_0000, DATA_BYTES = 0x2000;
/** A page that they may only read; nothing on either side. */
export const FIXED = REGION + 0x90_0000, FIXED_BYTES = 0x1000;
