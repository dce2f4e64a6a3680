/**
 * The x87's registers as its procedures see them: the stack, the three 16-bit words, the pointers; and how an
 * instruction reports exceptions (SDM vol. 1, "x87 FPU Execution Environment" and "x87 FPU Floating-Point Exception Handling").
 *
 * Pointers: FIP and FCS are updated by every instruction but the control ones, FDP and FDS by those of them that have a
 * memory operand. FOP is updated when an unmasked exception is reported, which is what processors with IA32_MISC_ENABLE
 * bit 2 ("fopcode compatibility mode") clear do.
 *
 * An unmasked exception is pending (FSW.ES) until the next waiting instruction, which raises #MF if CR0.NE = 1. Deviation: with
 * CR0.NE = 0 a PC routes FERR# to IRQ 13; this machine has no such wire and behaves as if IGNNE# were asserted: the
 * instruction is carried out.
 *
 * Room: `hw/isa/`; imports softfloat and the state layout; the processor as a type.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { RAM_BASE, S, SEG } from "../state.ts";
import {
  F80,
  FP_ALL,
  FP_DE,
  FP_IE,
  FP_OE,
  FP_UE,
  FP_ZE,
  fpDefaultNaN,
  type FpEnv,
  fpEnv,
  type FpRounding,
} from "./softfloat.ts";

/** Bits of the status word (SDM vol. 1, "x87 FPU Status Register"). */
export const FSW = {
  /** Stack fault. */
  SF: 0x40,
  /** Exception summary: an unmasked exception is pending. */
  ES: 0x80,
  C0: 0x100,
  C1: 0x200,
  C2: 0x400,
  TOP: 0x3800,
  C3: 0x4000,
  /** Busy: mirrors ES. */
  B: 0x8000,
} as const;

/** Control word after FNINIT. */
export const FCW_INIT = 0x37f;
/** Bits of the control word that software can change; bit 6 always reads 1. */
const FCW_WRITABLE = 0x1f3f, FCW_ONES = 0x40;
/** The 80-bit "real indefinite". */
export const INDEFINITE: bigint = fpDefaultNaN(F80);

const MEMORY_16_SHIFT = 1;
const EXPONENT_SHIFT = 64n;

function get16(cpu: Cpu, offset: number): number {
  return cpu.memory.u16[(cpu.base + offset) >>> MEMORY_16_SHIFT]!;
}

function set16(cpu: Cpu, offset: number, value: number): void {
  cpu.memory.u16[(cpu.base + offset) >>> MEMORY_16_SHIFT] = value;
}

/** The control word. */
export function controlWord(cpu: Cpu): number {
  return get16(cpu, S.FCW);
}

/** The status word. */
export function statusWord(cpu: Cpu): number {
  return get16(cpu, S.FSW);
}

/** The abridged tag word: bit i says that physical register i is not empty. */
export function abridgedTags(cpu: Cpu): number {
  return get16(cpu, S.FTW);
}

/** Sets the abridged tag word. */
export function setAbridgedTags(cpu: Cpu, value: number): void {
  set16(cpu, S.FTW, value & 0xff);
}

/** ES and B as the flags in `status` and the masks in `control` have them. */
export function summarized(status: number, control: number): number {
  const pending = status & ~control & FP_ALL;
  return pending ? status | FSW.ES | FSW.B : status & ~(FSW.ES | FSW.B);
}

/** Sets control and status word, with reserved bits and the exception summary as the processor keeps them. */
export function setWords(cpu: Cpu, control: number, status: number): void {
  const kept = (control & FCW_WRITABLE) | FCW_ONES;
  set16(cpu, S.FCW, kept);
  set16(cpu, S.FSW, summarized(status & 0xffff, kept));
}

/** Sets the status word alone. */
export function setStatus(cpu: Cpu, status: number): void {
  set16(cpu, S.FSW, status & 0xffff);
}

/** TOP. */
export function top(cpu: Cpu): number {
  return (get16(cpu, S.FSW) & FSW.TOP) >> 11;
}

function setTop(cpu: Cpu, value: number): void {
  set16(cpu, S.FSW, (get16(cpu, S.FSW) & ~FSW.TOP) | ((value & 7) << 11));
}

/** Moves TOP by `delta` without touching tags. */
export function moveTop(cpu: Cpu, delta: number): void {
  setTop(cpu, top(cpu) + delta);
}

/** True if ST(i) is empty; `i` may be -1 (the register that a push would take). */
export function isEmpty(cpu: Cpu, i: number): boolean {
  return ((get16(cpu, S.FTW) >> ((top(cpu) + i) & 7)) & 1) === 0;
}

/** Physical register `n`, 80 bits. */
export function readPhysical(cpu: Cpu, n: number): bigint {
  const at = S.FPR + n * 16;
  return cpu.get64(at) | (BigInt(get16(cpu, at + 8)) << EXPONENT_SHIFT);
}

/** Sets physical register `n`, 80 bits. */
export function writePhysical(cpu: Cpu, n: number, value: bigint): void {
  const at = S.FPR + n * 16;
  cpu.set64(at, BigInt.asUintN(64, value));
  set16(cpu, at + 8, Number(value >> EXPONENT_SHIFT));
}

/** ST(i), empty or not. */
export function readSt(cpu: Cpu, i: number): bigint {
  return readPhysical(cpu, (top(cpu) + i) & 7);
}

/** Writes ST(i); it is no longer empty. */
export function writeSt(cpu: Cpu, i: number, value: bigint): void {
  const n = (top(cpu) + i) & 7;
  writePhysical(cpu, n, value);
  set16(cpu, S.FTW, get16(cpu, S.FTW) | (1 << n));
}

/** Marks ST(i) empty. */
export function freeSt(cpu: Cpu, i: number): void {
  set16(cpu, S.FTW, get16(cpu, S.FTW) & ~(1 << ((top(cpu) + i) & 7)));
}

/** Pops once. */
export function pop(cpu: Cpu): void {
  freeSt(cpu, 0);
  moveTop(cpu, 1);
}

/** Pushes; the caller has looked whether there is room. */
export function push(cpu: Cpu, value: bigint): void {
  moveTop(cpu, -1);
  writeSt(cpu, 0, value);
}

/** An environment for softfloat from the control word. */
export function environment(cpu: Cpu): FpEnv {
  const control = controlWord(cpu);
  const precision = (control >> 8) & 3;
  const env = fpEnv({ rounding: ((control >> 10) & 3) as FpRounding, masks: control & FP_ALL, c1: false });
  env.precision = precision === 0 ? 24 : precision === 2 ? 53 : 64;
  return env;
}

/** True if `env` reports something unmasked that keeps the operation from having a result (IE, DE, ZE). */
export function isStopped(env: FpEnv): boolean {
  return (env.flags & ~env.masks & (FP_IE | FP_DE | FP_ZE)) !== 0;
}

/** True if `env` reports something unmasked that keeps a result from being stored to memory. */
export function isStoreStopped(env: FpEnv): boolean {
  return (env.flags & ~env.masks & (FP_IE | FP_DE | FP_ZE | FP_OE | FP_UE)) !== 0;
}

/** Enters exception flags (and FSW.SF if it is in them) and C1 into the status word, and the summary. */
export function report(cpu: Cpu, flags: number, c1: boolean): void {
  const before = statusWord(cpu), control = controlWord(cpu);
  const status = summarized((before & ~FSW.C1) | flags | (c1 ? FSW.C1 : 0), control);
  setStatus(cpu, status);
  if (flags & ~control & FP_ALL) recordOpcode(cpu);
}

/** Enters what `env` reports. */
export function reportEnv(cpu: Cpu, env: FpEnv): void {
  report(cpu, env.flags, env.c1 === true);
}

/** Reports a stack overflow or underflow. True if it is masked, so that the indefinite is to be delivered. */
export function stackFault(cpu: Cpu, overflow: boolean): boolean {
  report(cpu, FP_IE | FSW.SF, overflow);
  return (controlWord(cpu) & FP_IE) !== 0;
}

/** Sets condition bits C3, C2, C0 (C1 is cleared). */
export function setConditions(cpu: Cpu, conditions: number): void {
  setStatus(cpu, (statusWord(cpu) & ~(FSW.C0 | FSW.C1 | FSW.C2 | FSW.C3)) | conditions);
}

/** Updates FIP and FCS. */
export function pointInstruction(cpu: Cpu): void {
  cpu.set64(S.FIP, cpu.get64(S.RIP));
  cpu.set32(S.FCS, cpu.segSel(SEG.CS));
}

/** Updates FIP, FCS, FDP and FDS; the operand's effective address stands in argument `at`, its segment number in the next. */
export function pointOperand(cpu: Cpu, at: number): void {
  pointInstruction(cpu);
  cpu.set64(S.FDP, cpu.arg(at));
  cpu.set32(S.FDS, cpu.segSel(cpu.argLow(at + 1)));
}

/** One byte of the running instruction. It has just been fetched, so its page can be. */
function codeByte(cpu: Cpu, at: number): number {
  const linear = cpu.linearRip + BigInt(at);
  const wrapped = cpu.is64 ? BigInt.asUintN(64, linear) : linear & 0xffff_ffffn;
  const page = cpu.access.fetchPage(Number(wrapped & 0xffff_ffffn), Number(wrapped >> 32n));
  if (page < 0 || page >= cpu.memory.ramBytes) return 0;
  return cpu.memory.u8[RAM_BASE + page + Number(wrapped & 0xfffn)]!;
}

const ESCAPE_FIRST = 0xd8, ESCAPE_LAST = 0xdf;

/** FOP: low three bits of the first opcode byte, then the ModRM byte. */
function recordOpcode(cpu: Cpu): void {
  const length = cpu.get32(S.ILEN);
  for (let i = 0; i + 1 < length; i++) {
    const byte = codeByte(cpu, i);
    if (byte >= ESCAPE_FIRST && byte <= ESCAPE_LAST) {
      set16(cpu, S.FOP, ((byte & 7) << 8) | codeByte(cpu, i + 1));
      return;
    }
  }
}
