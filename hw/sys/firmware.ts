/**
 * What firmware leaves behind in a processor: caches on, and memory types in the MTRRs. Memory types have no effect on this
 * machine, but operating systems read them, and leave the PAT alone where the MTRRs are off.
 *
 * Room: `hw/sys/`; imports state.ts and mode.ts, and the processor's type.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { RAM_MAX, S } from "../state.ts";
import { CR0 } from "./mode.ts";

/** Memory types (SDM vol. 3A, "Memory Types That Can Be Encoded in MTRRs"). */
const UNCACHEABLE = 0, WRITE_PROTECTED = 5, WRITE_BACK = 6;
/** IA32_MTRR_DEF_TYPE: MTRRs and fixed ranges enabled. PHYSMASK: range valid. */
const ENABLED = 0xc00, VALID = 0x800;
/** Types of the fixed ranges, in the order of the registers: RAM to 9FFFFH, screen memory, ROM from C0000H. */
const FIXED = [WRITE_BACK, WRITE_BACK, UNCACHEABLE, ...Array.from({ length: 8 }, () => WRITE_PROTECTED)];

/** Sets up a processor that has just been reset. */
export function setUpAsFirmware(cpu: Cpu): void {
  cpu.set32(S.CR0, cpu.get32(S.CR0) & ~(CR0.CD | CR0.NW));
  // VMX may be used outside SMX, and nobody may change that any more.
  if (cpu.model.features.has("vmx")) cpu.set64Halves(S.FEATURE_CONTROL, 5, 0);
  if (!cpu.model.features.has("mtrr")) return;
  cpu.set64Halves(S.MTRR_DEF_TYPE, ENABLED | WRITE_BACK, 0);
  FIXED.forEach((type, i) => cpu.set64Halves(S.MTRR_FIX + i * 8, type * 0x0101_0101, type * 0x0101_0101));
  // One range: from the end of what can be RAM to 4 GiB there are devices.
  const high = 2 ** (cpu.model.maxPhysicalBits - 32) - 1;
  cpu.set64Halves(S.MTRR_VAR, RAM_MAX | UNCACHEABLE, 0);
  cpu.set64Halves(S.MTRR_VAR + 8, RAM_MAX | VALID, high);
}
