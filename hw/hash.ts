/**
 * The hash of a machine's final state: 64 bits over the architectural state of every processor, the RAM and the time.
 * Equal for all engines that did the same.
 *
 * Room: `hw/`; imports state.ts and flags.ts. Not cryptographic.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import type { MachineMemory } from "./memory.ts";
import { loadRflags } from "./flags.ts";
import { RAM_BASE, S } from "./state.ts";

/** Fields of a processor's block that are architectural, as [offset, bytes]; the status flags are taken in their normal form. */
const FIELDS: readonly (readonly [offset: number, bytes: number])[] = [
  [S.GPR, 128],
  [S.RIP, 8],
  [S.CPL, 4],
  [S.SEGBASE, 64],
  [S.SEGLIMIT, 32],
  [S.SEGAR, 32],
  [S.SEGSEL, 32],
  [S.GDTR, 12],
  [S.IDTR, 12],
  [S.CR0, 0x308 - 0x220],
  [S.APIC_BASE, 16],
  [S.PKRU, 8],
  [S.FCW, 8],
  [S.FIP, 24],
  [S.RETIRED, 16],
  [S.RANDOM, 16],
  [S.FPR, 384],
  [S.FEATURE_CONTROL, 40],
  [S.MTRR_VAR, 160],
  [S.MTRR_FIX, 88],
  [S.VMX_MODE, S.VMX_REASON - S.VMX_MODE],
  [S.VMX_PENDING, S.VMX_MONITOR + 4 - S.VMX_PENDING],
];

/** Two 32-bit lanes, mixed word by word. */
class Mixer {
  a = 0x9e37_79b9 | 0;
  b = 0x85eb_ca6b | 0;

  word(value: number): void {
    let a = Math.imul(this.a ^ value, 0xcc9e_2d51);
    a = (a << 15) | (a >>> 17);
    this.b = Math.imul(this.b + a, 0x1b87_3593) ^ (this.b >>> 13);
    this.a = (a + this.b) | 0;
  }
  /** A whole number below 2^53. */
  number(value: number): void {
    this.word(value | 0);
    this.word(Math.floor(value / 0x1_0000_0000));
  }
  finish(): string {
    for (let i = 0; i < 4; i++) this.word(i);
    return (this.b >>> 0).toString(16).padStart(8, "0") + (this.a >>> 0).toString(16).padStart(8, "0");
  }
}

/** Hashes processors, RAM and time into 16 hex digits. */
export function stateHash(memory: MachineMemory, cpus: readonly Cpu[], time: number): string {
  const mixer = new Mixer();
  for (const cpu of cpus) hashCpu(mixer, cpu);
  mixer.number(memory.ramBytes);
  hashRam(mixer, memory);
  mixer.number(time);
  return mixer.finish();
}

/** The hash of one processor's architectural state alone. */
export function cpuHash(cpu: Cpu): string {
  const mixer = new Mixer();
  hashCpu(mixer, cpu);
  return mixer.finish();
}

function hashCpu(mixer: Mixer, cpu: Cpu): void {
  const { i32 } = cpu.memory;
  mixer.word(cpu.id);
  for (const [offset, bytes] of FIELDS) {
    const at = (cpu.base + offset) >>> 2;
    for (let i = 0; i < bytes / 4; i++) mixer.word(i32[at + i]!);
  }
  mixer.word(loadRflags(i32, cpu.base));
  mixer.word(cpu.apic.tpr);
}

/** Pages of zeros cost a look and leave no trace; the others are mixed with their number. */
function hashRam(mixer: Mixer, memory: MachineMemory): void {
  const { i32 } = memory;
  const pages = memory.ramBytes / 4096;
  for (let page = 0; page < pages; page++) {
    const at = (RAM_BASE >>> 2) + page * 1024;
    if (isZero(i32, at)) continue;
    mixer.word(page);
    hashPage(mixer, i32, at);
  }
}

function isZero(i32: Int32Array, at: number): boolean {
  for (let i = at; i < at + 1024; i += 8) {
    if (
      (i32[i]! | i32[i + 1]! | i32[i + 2]! | i32[i + 3]! | i32[i + 4]! | i32[i + 5]! | i32[i + 6]! |
        i32[i + 7]!) !== 0
    ) return false;
  }
  return true;
}

function hashPage(mixer: Mixer, i32: Int32Array, at: number): void {
  let { a, b } = mixer;
  for (let i = at; i < at + 1024; i++) {
    a = Math.imul(a ^ i32[i]!, 0xcc9e_2d51);
    a = (a << 15) | (a >>> 17);
    b = Math.imul(b + a, 0x1b87_3593) ^ (b >>> 13);
    a = (a + b) | 0;
  }
  mixer.a = a;
  mixer.b = b;
}
