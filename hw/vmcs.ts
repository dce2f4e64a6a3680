/**
 * The virtual-machine control structure as memory: its header, and its fields by encoding.
 *
 * A VMCS region is 4 KiB of guest RAM. All data of a VMCS stands in it, in a layout of ours (vmx/fields.ts), current or not: so VMCLEAR has
 * nothing to write back, a VMCS moves between processors and through copies of its memory as it does on silicon, and the machine's
 * snapshots and hashes have it. Where software has put a region in no RAM at all, accesses go where the bus sends them.
 *
 * Room: `hw/`; imports state.ts, vmx/fields.ts, and cpu.ts by its type. Functions take and give halves; numbers of 32 bits are signed.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import * as state from "./state.ts";
import * as fields from "./vmx/fields.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const { PAGE_FLAGS_BASE, PAGE_RAM, RAM_BASE, S } = state;
const { fieldOffset, fieldWidth } = fields;
const TWO32 = 0x1_0000_0000;

/** Offsets in a VMCS region of what is not a field. */
export const VMCS = {
  /** u32: revision identifier in bits 30:0, shadow-VMCS indicator in bit 31. */
  REVISION: 0,
  /** u32: VMX-abort indicator. */
  ABORT: 4,
  /** u32: launch state: {@link LAUNCHED}, or anything else for clear. */
  LAUNCH: 8,
} as const;

/** Value of the launch state of a VMCS that has been launched. */
export const LAUNCHED = 0x4c41_554e;
/** Bit 31 of the first word: a shadow VMCS. */
export const SHADOW = 0x8000_0000 | 0;

/** Reads 32 bits of physical memory, signed; RAM directly, everything else through the bus. */
export function readPhysical32(cpu: Cpu, low: number, high: number): number {
  const { u8, i32 } = cpu.memory;
  if (high === 0 && (low & 3) === 0 && u8[PAGE_FLAGS_BASE + (low >>> 12)]! & PAGE_RAM) {
    return i32[(RAM_BASE + (low >>> 0)) >>> 2]!;
  }
  return cpu.bus.read((high >>> 0) * TWO32 + (low >>> 0), 4) | 0;
}

/** Writes 32 bits of physical memory. */
export function writePhysical32(cpu: Cpu, low: number, high: number, value: number): void {
  const { u8, i32 } = cpu.memory;
  if (high === 0 && (low & 3) === 0 && u8[PAGE_FLAGS_BASE + (low >>> 12)]! === PAGE_RAM) {
    i32[(RAM_BASE + (low >>> 0)) >>> 2] = value;
  } else cpu.bus.write((high >>> 0) * TWO32 + (low >>> 0), 4, value >>> 0);
}

/** Whether there is a current VMCS. */
export function hasCurrent(cpu: Cpu): boolean {
  return (cpu.get32(S.VMX_POINTER) & cpu.get32(S.VMX_POINTER + 4)) >>> 0 !== 0xffff_ffff;
}

/** Reads 32 bits at an offset of the current VMCS's region. */
export function wordAt(cpu: Cpu, offset: number): number {
  const { i32, u8 } = cpu.memory, at = (cpu.base + S.VMX_POINTER) >>> 2;
  const low = i32[at]!, high = i32[at + 1]!;
  if (high === 0 && u8[PAGE_FLAGS_BASE + (low >>> 12)]! & PAGE_RAM) {
    return i32[(RAM_BASE + (low >>> 0) + offset) >>> 2]!;
  }
  return cpu.bus.read((high >>> 0) * TWO32 + (low >>> 0) + offset, 4) | 0;
}

/** Writes 32 bits at an offset of the current VMCS's region. */
export function setWordAt(cpu: Cpu, offset: number, value: number): void {
  const { i32, u8 } = cpu.memory, at = (cpu.base + S.VMX_POINTER) >>> 2;
  const low = i32[at]!, high = i32[at + 1]!;
  if (high === 0 && u8[PAGE_FLAGS_BASE + (low >>> 12)]! === PAGE_RAM) {
    i32[(RAM_BASE + (low >>> 0) + offset) >>> 2] = value;
  } else cpu.bus.write((high >>> 0) * TWO32 + (low >>> 0) + offset, 4, value >>> 0);
}

/** Lower 32 bits of a field of the current VMCS, signed; a 16-bit field is zero-extended. */
export function get32(cpu: Cpu, encoding: number): number {
  return wordAt(cpu, fieldOffset[encoding]!);
}
/** Upper 32 bits of a 64-bit or natural-width field of the current VMCS, signed. */
export function getHigh(cpu: Cpu, encoding: number): number {
  return wordAt(cpu, fieldOffset[encoding]! + 4);
}
/** A 64-bit or natural-width field of the current VMCS, unsigned; for cold code. */
export function get64(cpu: Cpu, encoding: number): bigint {
  return BigInt(getHigh(cpu, encoding) >>> 0) << 32n | BigInt(get32(cpu, encoding) >>> 0);
}

/** Sets a 16- or 32-bit field of the current VMCS. */
export function set32(cpu: Cpu, encoding: number, value: number): void {
  setWordAt(cpu, fieldOffset[encoding]!, fieldWidth(encoding) === 0 ? value & 0xffff : value);
}
/** Sets a 64-bit or natural-width field of the current VMCS. */
export function setHalves(cpu: Cpu, encoding: number, low: number, high: number): void {
  const offset = fieldOffset[encoding]!;
  setWordAt(cpu, offset, low);
  setWordAt(cpu, offset + 4, high);
}
/** Sets a 64-bit or natural-width field of the current VMCS; for cold code. */
export function set64(cpu: Cpu, encoding: number, value: bigint): void {
  setHalves(cpu, encoding, Number(value & 0xffff_ffffn) | 0, Number((value >> 32n) & 0xffff_ffffn) | 0);
}

/** Physical address of the current VMCS, as a number; meaningless when there is none. */
export function currentAddress(cpu: Cpu): number {
  return cpu.get32(S.VMX_POINTER + 4) * TWO32 + cpu.get32(S.VMX_POINTER);
}
