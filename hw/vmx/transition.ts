/**
 * What VM entry and VM exit have in common: which bits of CR0 they load, the segment registers and their fields, the order of the fields.
 *
 * Room: `hw/vmx/`; imports state.ts and the names of the fields.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { S, SEG } from "../state.ts";
import * as vmcs from "../vmcs.ts";
import { F, type Field } from "./fields.ts";

/** Bits of CR0 that neither VM entry nor VM exit changes: ET, CD, NW, 15:6, 17, 28:19. */
const CR0_KEPT = 0x10 | 0x6000_0000 | 0xffc0 | 0x2_0000 | 0x1ff8_0000;

/** CR0 after a transition that loads `field`. */
export function loadedCr0(cpu: Cpu, field: number): number {
  return (cpu.get32(S.CR0) & CR0_KEPT) | (field & ~CR0_KEPT);
}

/** The fields of a guest segment register. */
export interface SegmentFields {
  readonly seg: number;
  readonly selector: Field;
  readonly base: Field;
  readonly limit: Field;
  readonly rights: Field;
}

/** The fields of the guest segment registers. */
export const GUEST_SEGMENTS: readonly SegmentFields[] =
  (["ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR"] as const)
    .map((name) => ({
      seg: SEG[name],
      selector: F[`GUEST_${name}_SELECTOR`],
      base: F[`GUEST_${name}_BASE`],
      limit: F[`GUEST_${name}_LIMIT`],
      rights: F[`GUEST_${name}_ACCESS_RIGHTS`],
    }));

/** Copies a 64-bit field of the block to a field of the VMCS. */
export function save64(cpu: Cpu, at: number, field: Field): void {
  const i32 = cpu.memory.i32, i = (cpu.base + at) >>> 2;
  vmcs.setHalves(cpu, field, i32[i]!, i32[i + 1]!);
}
/** Copies a field of the VMCS to a 64-bit field of the block. */
export function load64(cpu: Cpu, at: number, field: Field): void {
  cpu.set64Halves(at, vmcs.get32(cpu, field), vmcs.getHigh(cpu, field));
}
