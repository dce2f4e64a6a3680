/**
 * The instruction that is about to cause a VM exit, decoded once more: registers, displacement and segment of its operands, for the
 * qualification and the instruction information. Exits with such information are rare enough for that.
 *
 * Room: `hw/vmx/`; imports the decoder. SDM vol. 3C, "Information for VM Exits Due to Instruction Execution".
 *
 * @module
 */
import { type Cpu, FAULT } from "../cpu.ts";
import { decode, INSTRUCTION_BYTES_MAX, isDecoded } from "../isa/decode.ts";
import type { CodeMode, Decoded } from "../isa/form.ts";
import { RAM_BASE, S, SEG } from "../state.ts";

const bytes = new Uint8Array(INSTRUCTION_BYTES_MAX);
const TWO32 = 0x1_0000_0000;

/**
 * Decodes the instruction at hand.
 *
 * @param advanced Whether RIP is that of the next instruction already.
 * @returns undefined where its bytes no longer are what was executed (changed code, or a gate's step).
 */
export function instructionAtHand(cpu: Cpu, advanced: boolean): Decoded | undefined {
  const mode = cpu.get32(S.CODEMODE) as CodeMode;
  let low = cpu.get32(S.RIP), high = cpu.get32(S.RIP + 4);
  if (advanced) {
    const length = cpu.get32(S.ILEN);
    if (low < length) high--;
    low = (low - length) >>> 0;
  }
  if (mode !== 2) {
    low = (low + cpu.get32(S.SEGBASE + SEG.CS * 8)) >>> 0;
    high = 0;
  }
  const pending = [S.FAULTVECTOR, S.FAULTCODE, S.EXIT, S.VMX_REASON].map((at) => cpu.get32(at));
  let available = 0;
  while (available < INSTRUCTION_BYTES_MAX) {
    const at = low + available, atHigh = at >= TWO32 ? high + 1 : high;
    const page = fetch(cpu, at >>> 0, atHigh | 0);
    if (page < 0) break;
    const inPage = Math.min(4096 - (at & 0xfff), INSTRUCTION_BYTES_MAX - available);
    for (let i = 0; i < inPage; i++) bytes[available++] = readByte(cpu, page + (at & 0xfff) + i);
    const decoded = decode(bytes, 0, available, mode, cpu.model.features);
    if (isDecoded(decoded)) return decoded;
  }
  [S.FAULTVECTOR, S.FAULTCODE, S.EXIT, S.VMX_REASON].forEach((at, i) => cpu.set32(at, pending[i]!));
  return undefined;
}

function fetch(cpu: Cpu, low: number, high: number): number {
  try {
    return cpu.access.fetchPage(low | 0, high);
  } catch (error) {
    if (error !== FAULT) throw error;
    return -1;
  }
}

function readByte(cpu: Cpu, physical: number): number {
  return physical + 1 <= cpu.memory.ramBytes ? cpu.memory.u8[RAM_BASE + physical]! : 0;
}

/** Number of the register at a byte offset of the block. */
export function registerOf(offset: number): number {
  return (offset - S.GPR) >>> 3;
}

/** The operand of `d` that is memory, or undefined. */
export function hasMemory(d: Decoded): boolean {
  return d.form.operands.some((o) => o.kind === "mem");
}

/** Address size as instruction information has it: 0, 1, 2 for 16, 32, 64 bits. */
export function addressSize(d: Decoded): number {
  return d.form.aw === 16 ? 0 : d.form.aw === 32 ? 1 : 2;
}

/** Bits 31:0 of the instruction information that describe the memory operand: scale, address size, segment, index, base. */
export function memoryInformation(d: Decoded): number {
  const noIndex = d.index === S.ZERO, noBase = d.base === S.ZERO || d.base === S.RIPPAGE;
  return d.scale | (addressSize(d) << 7) | (Math.max(0, d.form.segment) << 15) |
    (noIndex ? 1 << 22 : registerOf(d.index) << 18) | (noBase ? 1 << 27 : registerOf(d.base) << 23);
}

/**
 * The displacement as an exit qualification: sign-extended, and for RIP-relative addresses with the next RIP added.
 *
 * @param nextLow RIP of the next instruction.
 * @param nextHigh Its upper half.
 */
export function displacement(d: Decoded, nextLow: number, nextHigh: number): { low: number; high: number } {
  let low = d.disp | 0, high = d.disp >> 31;
  if (d.base === S.RIPPAGE) {
    const sum = (d.disp >>> 0) + (nextLow >>> 0);
    low = sum | 0;
    high = (high + nextHigh + (sum >= TWO32 ? 1 : 0)) | 0;
  }
  if (d.form.aw === 32) high = 0;
  else if (d.form.aw === 16) {
    low &= 0xffff;
    high = 0;
  }
  return { low, high };
}
