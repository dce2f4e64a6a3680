/**
 * The time-stamp counter: the machine's ticks, and IA32_TSC_ADJUST.
 *
 * Room: `hw/sys/`; imports state.ts and the processor's type.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { S } from "../state.ts";

/** The counter as unsigned halves, after {@link readTsc}. */
export const tsc = { low: 0, high: 0 };

/** Reads the time-stamp counter of `cpu` into {@link tsc}. */
export function readTsc(cpu: Cpu): void {
  const now = cpu.now();
  const low = (now >>> 0) + cpu.get32(S.TSC_ADJUST);
  tsc.low = low >>> 0;
  tsc.high = (Math.floor(now / 0x1_0000_0000) + cpu.get32(S.TSC_ADJUST + 4) + (low > 0xffff_ffff ? 1 : 0)) >>>
    0;
}

/** Value of the time-stamp counter of `cpu`, 64 bits. */
export function timeStamp(cpu: Cpu): bigint {
  readTsc(cpu);
  return (BigInt(tsc.high) << 32n) | BigInt(tsc.low);
}
