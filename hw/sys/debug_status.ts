/**
 * Why a debug exception comes. DR6 says it, but not before it is known that the exception is delivered: in VMX non-root operation it may
 * cause a VM exit, which leaves DR6 alone and has the bits in its qualification.
 *
 * Room: `hw/sys/`; imports state.ts and the processor's type.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { S } from "../state.ts";

const DR6 = S.DR + 6 * 8;
/** DR6 bits that a debug exception can set: B0 … B3, BD, BS, BT. */
const DR6_BITS = 0xe00f;

/**
 * A debug exception is coming for these DR6 bits.
 *
 * @param cleared Bits of DR6 that it clears first.
 */
export function noteDebugException(cpu: Cpu, bits: number, cleared = 0): void {
  bits &= DR6_BITS;
  if (cpu.get32(S.VMX_MODE) === 2) cpu.set32(S.VMX_DEBUG, bits);
  else cpu.set32(DR6, (cpu.get32(DR6) & ~cleared) | bits);
}

/** The debug exception of a guest is delivered after all. */
export function settleDebugException(cpu: Cpu): void {
  const bits = cpu.get32(S.VMX_DEBUG);
  if (bits === 0) return;
  cpu.set32(DR6, cpu.get32(DR6) | bits);
  cpu.set32(S.VMX_DEBUG, 0);
}
