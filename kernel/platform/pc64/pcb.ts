/**
 * The process control block: what machine code keeps of a thread that does not run (`struct pcb`, `sys/platform/pc64/include/pcb.h`).
 *
 * Room: `kernel/platform/pc64/`; imports nothing. A pcb stands at the top of its thread's kernel stack.
 *
 * @module
 */

/** Byte offsets in a pcb. */
export const PCB = {
  /** u64: stack pointer; the return address of `cpu_heavy_switch` is on top. */
  rsp: 0x00,
  /** u64: the continuation's id. */
  r15: 0x08,
  /** u64: {@link PCB_USER}. */
  flags: 0x10,
  /** u64: what RSP0 of the TSS is while the thread runs. */
  kernelStack: 0x18,
  /** u64 each: the user's segment bases. */
  fsBase: 0x20,
  gsBase: 0x28,
  /** 512 bytes, 16-aligned: x87 and SSE registers in FXSAVE format. */
  fpu: 0x40,
} as const;

/** Bytes of a pcb. */
export const PCB_BYTES = 0x240;
/** The thread goes to user mode: its x87 and SSE registers and segment bases are switched. */
export const PCB_USER = 1;

/** x87 control word and MXCSR of a fresh program: all exceptions masked, 64-bit precision. */
const FCW_INITIAL = 0x37f;
const MXCSR_INITIAL = 0x1f80;
/** MXCSR bits that a program may set. */
const MXCSR_MASK = 0xffff;

/** Clean x87 and SSE registers. */
export function cleanFpu(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(512);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, FCW_INITIAL, true);
  view.setUint32(24, MXCSR_INITIAL, true);
  return bytes;
}

/** Registers that a program gave (a signal frame), made fit for FXRSTOR: reserved MXCSR bits would fault in the kernel. */
export function sanitizeFpu(given: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(512);
  bytes.set(given.subarray(0, 512));
  const view = new DataView(bytes.buffer);
  view.setUint32(24, view.getUint32(24, true) & MXCSR_MASK, true);
  return bytes;
}
