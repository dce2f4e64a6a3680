/**
 * Port access: IOPL, the I/O permission bitmap of the TSS, I/O breakpoints; and the instructions that only look at the processor: CPUID,
 * the time-stamp counter, random numbers, table registers, invalidation.
 *
 * Room: `hw/sys/`; imports the processor, cpuid.ts, debug.ts, mode.ts.
 *
 * @module
 */
import { cpuid } from "../cpuid.ts";
import { type Cpu, type Procedures, VECTOR } from "../cpu.ts";
import { EXIT_END, EXIT_FAULT, EXIT_NONE, RFLAGS, S, SEG } from "../state.ts";
import { afterTransfer } from "./attention.ts";
import { notePortAccess } from "./debug.ts";
import { isCanonical, isCpuCanonical, isLongMode, isProtected } from "./mode.ts";
import { IMPLICIT } from "./segments.ts";
import { readTsc, timeStamp, tsc } from "./time_stamp.ts";
import { isNonRoot, PROC, REASON, requestExit } from "../vmx/contract.ts";
import { exitInvalidation, guestTimeStamp, ioExits, randomExits } from "../vmx/intercepts.ts";

/**
 * Raises #GP(0) unless `size` ports from `port` on may be used: CPL ≤ IOPL, or the TSS's bitmap allows all of them (SDM vol. 1, "I/O
 * Permission Bit Map").
 */
function checkPort(cpu: Cpu, port: number, size: number): void {
  if (!isProtected(cpu)) return;
  const flags = cpu.get32(S.RFLAGS);
  if (!(flags & RFLAGS.VM) && cpu.get32(S.CPL) <= ((flags >>> 12) & 3)) return;
  // Only a 32- or 64-bit TSS has a bitmap. Two bytes of it are read, so that the last one must have a successor.
  const limit = cpu.segLimit(SEG.TR);
  if ((cpu.segAr(SEG.TR) & 8) === 0 || limit < 0x67) cpu.raise(VECTOR.GP, 0);
  const map = readTss(cpu, 0x66);
  const at = map + (port >>> 3);
  if (at + 1 > limit) cpu.raise(VECTOR.GP, 0);
  const denied = (readTss(cpu, at) >>> (port & 7)) & ((1 << size) - 1);
  if (denied !== 0) cpu.raise(VECTOR.GP, 0);
}

/** Two bytes of the TSS. */
function readTss(cpu: Cpu, offset: number): number {
  const base = cpu.get32(S.SEGBASE + SEG.TR * 8), low = (base + offset) >>> 0;
  const high = isLongMode(cpu) ? cpu.get32(S.SEGBASE + SEG.TR * 8 + 4) + (low < base ? 1 : 0) : 0;
  return cpu.access.read(low, high, 2, IMPLICIT);
}

/** Sets descriptor-table register `at` from (limit, base). */
function loadTable(cpu: Cpu, at: number): number {
  const limit = cpu.argLow(0) & 0xffff, low = cpu.argLow(1), high = cpu.argHigh(1);
  if (isLongMode(cpu) && !isCpuCanonical(cpu, high)) return cpu.setFault(VECTOR.GP, 0);
  cpu.set64Halves(at, low, high);
  cpu.set32(at + 8, limit);
  return EXIT_NONE;
}

/** The time-stamp counter as the instruction shows it. */
function setTimeStamp(cpu: Cpu): number {
  readTsc(cpu);
  if (cpu.get32(S.VMX_PROC) & PROC.TSC_OFFSETTING) {
    const value = guestTimeStamp(cpu, timeStamp(cpu));
    cpu.setResult(Number(value & 0xffff_ffffn), Number(value >> 32n));
  } else cpu.setResult(tsc.low, tsc.high);
  return EXIT_NONE;
}

/** Procedures of this file. */
export const ioProcedures: Procedures = {
  /** (port, bytes): the permission check alone, before the memory operand of INS and OUTS. */
  checkPort(cpu) {
    const port = cpu.argLow(0) & 0xffff, size = cpu.argLow(1);
    checkPort(cpu, port, size);
    if (isNonRoot(cpu) && ioExits(cpu, port, size, false, false)) return EXIT_FAULT;
    return EXIT_NONE;
  },
  /** (port, bytes) → value. */
  in(cpu) {
    const port = cpu.argLow(0) & 0xffff, size = cpu.argLow(1) as 1 | 2 | 4;
    checkPort(cpu, port, size);
    if (isNonRoot(cpu) && ioExits(cpu, port, size, true, false)) return EXIT_FAULT;
    notePortAccess(cpu, port, size);
    cpu.setResult(cpu.bus.ioRead(port, size), 0);
    return EXIT_NONE;
  },
  /** (port, bytes, value). */
  out(cpu) {
    const port = cpu.argLow(0) & 0xffff, size = cpu.argLow(1) as 1 | 2 | 4;
    checkPort(cpu, port, size);
    if (isNonRoot(cpu) && ioExits(cpu, port, size, false, true)) return EXIT_FAULT;
    notePortAccess(cpu, port, size);
    cpu.bus.ioWrite(port, size, cpu.argLow(2));
    return afterTransfer(cpu);
  },
  /** As `out`, in the middle of a description. */
  outs(cpu) {
    const port = cpu.argLow(0) & 0xffff, size = cpu.argLow(1) as 1 | 2 | 4;
    notePortAccess(cpu, port, size);
    cpu.bus.ioWrite(port, size, cpu.argLow(2));
    return EXIT_NONE;
  },
  /** (leaf, subleaf) → EAX, EBX, ECX, EDX in the four slots. */
  cpuid(cpu) {
    if (isNonRoot(cpu)) return requestExit(cpu, REASON.CPUID);
    const leaf = cpu.argLow(0) >>> 0;
    const result = cpuid(cpu, leaf, cpu.argLow(1));
    for (let i = 0; i < 4; i++) cpu.set64Halves(S.ARG + i * 8, result[i]!, 0);
    // Leaf 1 leaves the revision of the microcode in IA32_BIOS_SIGN_ID (SDM vol. 3A, "Determining the Signature").
    if (leaf === 1) cpu.set64Halves(S.BIOS_SIGN_ID, 0, cpu.model.microcode);
    return EXIT_NONE;
  },
  rdtsc(cpu) {
    if (cpu.get32(S.VMX_PROC) & PROC.RDTSC) return requestExit(cpu, REASON.RDTSC);
    return setTimeStamp(cpu);
  },
  rdtscp(cpu) {
    if (cpu.get32(S.VMX_PROC) & PROC.RDTSC) return requestExit(cpu, REASON.RDTSCP);
    return setTimeStamp(cpu);
  },
  /** → 64 random bits. */
  rdrand(cpu) {
    if (randomExits(cpu)) return EXIT_FAULT;
    const low = cpu.random32();
    cpu.setResult(low, cpu.random32());
    return EXIT_NONE;
  },
  /** (limit, base). */
  lgdt(cpu) {
    return loadTable(cpu, S.GDTR);
  },
  lidt(cpu) {
    return loadTable(cpu, S.IDTR);
  },
  /** (linear address). */
  invlpg(cpu) {
    const high = cpu.argHigh(0);
    if (cpu.get32(S.VMX_PROC) & PROC.INVLPG) return requestExit(cpu, REASON.INVLPG, cpu.argLow(0), high);
    // In 64-bit mode a non-canonical address makes it a NOP.
    if (isCanonical(cpu, high)) cpu.access.tlb.invlpg(cpu.argLow(0), high);
    return EXIT_NONE;
  },
  /** INVPCID exits with INVLPG. */
  invpcidExit(cpu) {
    return cpu.get32(S.VMX_PROC) & PROC.INVLPG ? exitInvalidation(cpu, REASON.INVPCID, false) : EXIT_NONE;
  },
  /** (type, descriptor's first and second eight bytes). */
  invpcid(cpu) {
    const typeLow = cpu.argLow(0), pcidLow = cpu.argLow(1), pcidHigh = cpu.argHigh(1);
    const low = cpu.argLow(2), high = cpu.argHigh(2);
    const wrong = cpu.argHigh(0) !== 0 || typeLow > 3 || pcidHigh !== 0 || pcidLow > 0xfff ||
      (typeLow < 2 && pcidLow !== 0 && !(cpu.get32(S.CR4) & 0x2_0000)) ||
      (typeLow === 0 && !isCanonical(cpu, high));
    if (wrong) return cpu.setFault(VECTOR.GP, 0);
    cpu.access.tlb.invpcid(typeLow, pcidLow, low, high);
    return EXIT_NONE;
  },
  /** (value): the row has checked CR4.PKE, ECX and EDX. */
  wrpkru(cpu) {
    const value = cpu.argLow(0);
    if (value !== cpu.get32(S.PKRU)) {
      cpu.set32(S.PKRU, value);
      cpu.access.tlb.flushFast();
    }
    return EXIT_END;
  },
};
