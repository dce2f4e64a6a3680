/**
 * Per-CPU data that machine code reaches: the head of `struct globaldata`, through the GS base.
 *
 * Room: `kernel/platform/pc64/`; imports nothing.
 *
 * @module
 */

/** Byte offsets in a processor's globaldata. Written before the processor loads them, then only where it says so. */
export const GD = {
  /** Pseudo-descriptor of the GDT: u16 limit, u64 base. */
  gdtr: 0x00,
  /** Pseudo-descriptor of the IDT. */
  idtr: 0x10,
  /** u64: CR4 as this processor runs with. */
  cr4: 0x28,
  /** u64: linear address of this globaldata, the GS base. */
  self: 0x30,
  /** u64: zero, the user's GS base to begin with. */
  zero: 0x38,
  star: 0x40,
  lstar: 0x48,
  sfmask: 0x50,
  /** u64: top of the kernel stack, the same as RSP0 in the TSS. Changes when another thread runs. */
  kernelStack: 0x58,
  /** u64: the user's RSP between SYSCALL and the frame. */
  scratchRsp: 0x60,
  /** u64: `gd_cpuid`. */
  cpuid: 0x68,
  /** u64: linear address of the TSS. */
  tss: 0x70,
} as const;

/** Bytes of globaldata; one page, the rest is free. */
export const GD_BYTES = 0x1000;
