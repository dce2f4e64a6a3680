/**
 * Virtual-8086 mode extensions and protected-mode virtual interrupts (CR4.VME, CR4.PVI): the virtual interrupt flag, and software interrupts
 * that a virtual-8086 program's own vector table takes.
 *
 * Room: `hw/sys/`; imports state.ts, mode.ts, stacks and the processor. SDM vol. 3B, "8086 Emulation". The rows and procedures of CLI, STI,
 * PUSHF, POPF, IRET and INT n come here where IOPL would refuse them, INT n always from virtual-8086 mode.
 *
 * @module
 */
import { type Cpu, type Procedures, VECTOR } from "../cpu.ts";
import { EXIT_NONE, RFLAGS, S, SEG } from "../state.ts";
import { CR4, updateCodeAndStackMode, updateTlbContext } from "./mode.ts";
import { IMPLICIT, setVirtual8086Segment } from "./segments.ts";
import { Stack } from "./stack.ts";

const stack = new Stack();
/** Offset of the I/O map base in a TSS; the redirection bitmap is the 32 bytes below the map. */
const IO_MAP_BASE = 0x66, REDIRECTION_BYTES = 32;

/** Virtual-8086 mode with IOPL < 3. */
export function isRestricted8086(cpu: Cpu): boolean {
  const flags = cpu.get32(S.RFLAGS);
  return (flags & RFLAGS.VM) !== 0 && (flags & RFLAGS.IOPL) !== RFLAGS.IOPL;
}

/** Whether CLI and STI, which IOPL refuses, act on VIF instead. */
function hasVirtualFlag(cpu: Cpu): boolean {
  const cr4 = cpu.get32(S.CR4);
  if (cpu.get32(S.RFLAGS) & RFLAGS.VM) return (cr4 & CR4.VME) !== 0;
  return cpu.get32(S.CPL) === 3 && (cr4 & CR4.PVI) !== 0;
}

/** The 16-bit flags image that a restricted virtual-8086 program pushes: IOPL 3, and VIF in the place of IF. */
function virtualImage(cpu: Cpu): number {
  const flags = cpu.rflags & 0xffff & ~RFLAGS.IF | RFLAGS.IOPL;
  return cpu.get32(S.RFLAGS) & RFLAGS.VIF ? flags | RFLAGS.IF : flags;
}

/** Checks a 16-bit image that a restricted virtual-8086 program pops: #GP(0) without VME, for TF, and for IF while VIP is set. */
export function checkVirtualPop(cpu: Cpu, image: number, w: number): void {
  const pending = (image & RFLAGS.IF) !== 0 && (cpu.get32(S.RFLAGS) & RFLAGS.VIP) !== 0;
  if (w !== 16 || !(cpu.get32(S.CR4) & CR4.VME) || image & RFLAGS.TF || pending) cpu.raise(VECTOR.GP, 0);
}

/** RFLAGS (not the status flags) after a restricted virtual-8086 program has popped `image`: IF goes to VIF. */
export function poppedVirtualFlags(cpu: Cpu, image: number): number {
  const old = cpu.get32(S.RFLAGS), kept = RFLAGS.DF | RFLAGS.NT | RFLAGS.TF;
  const value = (old & ~kept & ~RFLAGS.RF & ~RFLAGS.VIF) | (image & kept);
  return image & RFLAGS.IF ? value | RFLAGS.VIF : value;
}

/**
 * INT n from virtual-8086 mode with CR4.VME: where the TSS's redirection bitmap has a 0 for the vector, the program's own table at linear
 * address 0 takes it.
 *
 * @returns false where the interrupt goes the usual way.
 * @throws {typeof FAULT} with #GP(0) where IOPL refuses it, or what the accesses raise.
 */
export function redirectInterrupt(cpu: Cpu, vector: number): boolean {
  const flags = cpu.get32(S.RFLAGS);
  if (!(flags & RFLAGS.VM)) return false;
  const restricted = isRestricted8086(cpu);
  if (!(cpu.get32(S.CR4) & CR4.VME) || isToMonitor(cpu, vector)) {
    if (restricted) cpu.raise(VECTOR.GP, 0);
    return false;
  }
  const entry = cpu.access.read(vector * 4, 0, 4, 0);
  const image = restricted ? virtualImage(cpu) : cpu.rflags & 0xffff;
  stack.setCurrent(cpu).push(cpu, [image, cpu.segSel(SEG.CS), cpu.get32(S.RIP)], 2, 0, 0);
  stack.commit(cpu);
  cpu.set32(S.RFLAGS, flags & ~(RFLAGS.TF | RFLAGS.RF | (restricted ? RFLAGS.VIF : RFLAGS.IF)));
  setVirtual8086Segment(cpu, SEG.CS, entry >>> 16);
  cpu.set64Halves(S.RIP, entry & 0xffff, 0);
  updateCodeAndStackMode(cpu);
  updateTlbContext(cpu);
  return true;
}

/** The redirection bitmap's bit for `vector`: 1 (or beyond the TSS) is the protected-mode handler. */
function isToMonitor(cpu: Cpu, vector: number): boolean {
  const tss = cpu.get32(S.SEGBASE + SEG.TR * 8), limit = cpu.segLimit(SEG.TR);
  if (!(cpu.segAr(SEG.TR) & 8) || limit < IO_MAP_BASE + 1) return true;
  const map = cpu.access.read((tss + IO_MAP_BASE) >>> 0, 0, 2, IMPLICIT);
  const at = map - REDIRECTION_BYTES + (vector >>> 3);
  if (at < 0 || at > limit) return true;
  return ((cpu.access.read((tss + at) >>> 0, 0, 1, IMPLICIT) >>> (vector & 7)) & 1) === 1;
}

/** Procedures of this file. */
export const vmeProcedures: Procedures = {
  /** CLI that IOPL refuses. */
  cliVirtual(cpu) {
    if (!hasVirtualFlag(cpu)) return cpu.setFault(VECTOR.GP, 0);
    cpu.set32(S.RFLAGS, cpu.get32(S.RFLAGS) & ~RFLAGS.VIF);
    return EXIT_NONE;
  },
  /** STI that IOPL refuses. */
  stiVirtual(cpu) {
    const flags = cpu.get32(S.RFLAGS);
    if (!hasVirtualFlag(cpu) || flags & RFLAGS.VIP) return cpu.setFault(VECTOR.GP, 0);
    cpu.set32(S.RFLAGS, flags | RFLAGS.VIF);
    return EXIT_NONE;
  },
  /** (operand size) → the image that a restricted virtual-8086 program pushes. */
  pushfVirtual(cpu) {
    if (cpu.argLow(0) !== 16 || !(cpu.get32(S.CR4) & CR4.VME)) return cpu.setFault(VECTOR.GP, 0);
    cpu.setResult(virtualImage(cpu), 0);
    return EXIT_NONE;
  },
  /** (image, operand size): checks what a restricted virtual-8086 program pops, before rSP moves. */
  popfVirtual(cpu) {
    checkVirtualPop(cpu, cpu.argLow(0), cpu.argLow(1));
    return EXIT_NONE;
  },
};
