/**
 * Whether an engine may go on after an instruction that changed flow, flags or interruptibility.
 *
 * Room: `hw/sys/`; imports state.ts and the processor's type.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import * as state from "../state.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const { ATTENTION_INTERRUPT, EXIT_END, EXIT_NONE, RFLAGS, S } = state;

/**
 * EXIT_NONE, unless something asks to be looked at first: single-step, RF, a shadow, an interrupt that RFLAGS.IF lets in, another
 * attention, a processor that stopped.
 */
export function afterTransfer(cpu: Cpu): number {
  const i32 = cpu.memory.i32, at = cpu.base >>> 2;
  const flags = i32[at + (S.RFLAGS >>> 2)]!;
  let attention = i32[at + (S.ATTENTION >>> 2)]!;
  // A guest's external interrupts may cause VM exits whatever IF is.
  if (!(flags & RFLAGS.IF) && !(i32[at + (S.VMX_PIN >>> 2)]! & 1)) attention &= ~ATTENTION_INTERRUPT;
  return (attention | (flags & (RFLAGS.TF | RFLAGS.RF)) | i32[at + (S.ACTIVITY >>> 2)]!) === 0
    ? EXIT_NONE
    : EXIT_END;
}
