/**
 * The trap frame: what the vectors push, in DragonFly's order (`struct trapframe` of `sys/cpu/x86_64/include/frame.h`).
 *
 * Room: `kernel/platform/pc64/`; imports nothing.
 *
 *     tf_rdi … tf_r15   by the stub           tf_xflags  1 = the stub swapped GS
 *     tf_trapno         by the vector         tf_addr    CR2
 *     tf_flags          by the vector: 0
 *     tf_err            by the processor, or 0
 *     tf_rip … tf_ss    by the processor
 *
 * @module
 */

/** Byte offsets in a trap frame. */
export const TF = {
  rdi: 0x00,
  rsi: 0x08,
  rdx: 0x10,
  rcx: 0x18,
  r8: 0x20,
  r9: 0x28,
  rax: 0x30,
  rbx: 0x38,
  rbp: 0x40,
  r10: 0x48,
  r11: 0x50,
  r12: 0x58,
  r13: 0x60,
  r14: 0x68,
  r15: 0x70,
  xflags: 0x78,
  trapno: 0x80,
  addr: 0x88,
  flags: 0x90,
  err: 0x98,
  rip: 0xa0,
  cs: 0xa8,
  rflags: 0xb0,
  rsp: 0xb8,
  ss: 0xc0,
} as const;

/** Bytes of a trap frame. */
export const TF_BYTES = 0xc8;
/** Bytes of the part that the stub stores by itself. */
export const TF_SAVED_BYTES = TF.trapno;
/** Fields that are registers, in the order of the frame. */
export const TF_REGISTERS = [
  "rdi",
  "rsi",
  "rdx",
  "rcx",
  "r8",
  "r9",
  "rax",
  "rbx",
  "rbp",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
] as const;

/** A trap frame's fields. */
export type TrapField = keyof typeof TF;

/** A trap frame read out of memory. */
export type Trapframe = { -readonly [field in TrapField]: bigint };

/** `tf_trapno` of a system call (`T_FAST_SYSCALL`). */
export const T_FAST_SYSCALL = 0x100;

/** Reads a frame out of its bytes. */
export function decodeTrapframe(bytes: Uint8Array<ArrayBuffer>): Trapframe {
  const view = new DataView(bytes.buffer, bytes.byteOffset, TF_BYTES);
  const frame: Partial<Trapframe> = {};
  for (const [name, offset] of Object.entries(TF)) frame[name as TrapField] = view.getBigUint64(offset, true);
  return frame as Trapframe;
}

/** The bytes of a frame; fields that are not given are zero. */
export function encodeTrapframe(frame: Partial<Trapframe>): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(TF_BYTES);
  const view = new DataView(bytes.buffer);
  for (const [name, value] of Object.entries(frame)) {
    view.setBigUint64(TF[name as TrapField], BigInt.asUintN(64, value), true);
  }
  return bytes;
}
