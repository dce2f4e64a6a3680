/**
 * Loading RFLAGS as a whole.
 *
 * Room: `hw/sys/`; imports flags.ts, state.ts and the processor's type.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { storeStatusFlags } from "../flags.ts";
import { S } from "../state.ts";

/** Loads RFLAGS as a whole. Bits that do not exist must be clear. */
export function setRflags(cpu: Cpu, flags: number): void {
  storeStatusFlags(cpu.memory.i32, cpu.base, flags);
  cpu.set32(S.RFLAGS, (flags & ~0x8d5) | 2);
}
