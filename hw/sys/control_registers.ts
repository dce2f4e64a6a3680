/**
 * MOV to and from control registers, CLTS, LMSW, and what a change of CR0, CR3, CR4 or IA32_EFER brings with it: checks, IA-32e mode
 * activation, PDPTE loads, invalidation.
 *
 * Room: `hw/sys/`; imports mode.ts, paging.ts (PDPTEs), and the processor. SDM vol. 3A, "Control Registers"; vol. 2B, "MOV".
 *
 * @module
 */
import { type Cpu, type Procedures, VECTOR } from "../cpu.ts";
import { CR4_FEATURES } from "../cr4_features.ts";
import type { CpuModel } from "../cpuid.ts";
import { loadPdptes as loadPdpteRegisters } from "../paging.ts";
import * as state from "../state.ts";
import { readVirtualCr8, writeVirtualCr8 } from "../vmx/apic_virtualization.ts";
import { isNonRoot, PROC, PROC2 } from "../vmx/contract.ts";
import {
  CLTS,
  cltsOutcome,
  controlReadExits,
  controlWriteExits,
  lmswExits,
  shadowed,
  unmasked,
} from "../vmx/intercepts.ts";
import { afterTransfer } from "./attention.ts";
import { AR, CR0, CR4, EFER, updateMode } from "./mode.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const { EXIT_END, EXIT_FAULT, EXIT_NONE, S, SEG } = state;

/** Bits of CR0 that exist; the others are ignored. */
const CR0_WRITABLE = CR0.PE | CR0.MP | CR0.EM | CR0.TS | CR0.NE | CR0.WP | CR0.AM | CR0.NW | CR0.CD | CR0.PG;

/** Bits of CR4 that `model` lets software set. */
export function cr4Mask(model: CpuModel): number {
  let mask = 0;
  for (const [bit, feature] of CR4_FEATURES) if (model.features.has(feature)) mask |= bit;
  return mask;
}

/** Bits of IA32_EFER that `model` lets software set; LMA is read-only. */
export function eferMask(model: CpuModel): number {
  let mask = 0;
  if (model.features.has("syscall")) mask |= EFER.SCE;
  if (model.features.has("lm")) mask |= EFER.LME;
  if (model.features.has("nx")) mask |= EFER.NXE;
  return mask;
}

/** Loads the PDPTEs that `cr3` points to; #GP(0), with nothing changed, when one has a reserved bit set. */
export function loadPdptes(cpu: Cpu, cr3: number): void {
  if (!loadPdpteRegisters(cpu, cr3, cpu.access.features)) cpu.raise(VECTOR.GP, 0);
}

/** True with PAE paging as `cr0`, `cr4`, `efer` have it. */
function isPaePaging(cr0: number, cr4: number, efer: number): boolean {
  return (cr0 & CR0.PG) !== 0 && (cr4 & CR4.PAE) !== 0 && (efer & EFER.LME) === 0;
}

/** Sets CR3 and invalidates; all checks are done, PDPTEs are loaded. */
export function loadCr3(cpu: Cpu, low: number, high: number, noInvalidate: boolean): void {
  cpu.set64Halves(S.CR3, low, high);
  cpu.access.tlb.movCr3(low, high, noInvalidate);
}

/**
 * MOV to CR0. Raises #GP(0) for impossible combinations.
 *
 * @param high Upper half of the source; must be 0.
 */
export function writeCr0(cpu: Cpu, low: number, high: number): void {
  if (high !== 0) cpu.raise(VECTOR.GP, 0);
  const old = cpu.get32(S.CR0) | 0, value = (low & CR0_WRITABLE) | CR0.ET;
  const changed = old ^ value;
  const cr4 = cpu.get32(S.CR4);
  if (cpu.get32(S.VMX_MODE) !== 0 && (fixedCr0(cpu) & ~value) !== 0) cpu.raise(VECTOR.GP, 0);
  let efer = cpu.get32(S.EFER);
  if ((value & CR0.PG) && !(value & CR0.PE)) cpu.raise(VECTOR.GP, 0);
  if ((value & CR0.NW) && !(value & CR0.CD)) cpu.raise(VECTOR.GP, 0);
  if ((changed & CR0.PG) && (efer & EFER.LME)) {
    if (value & CR0.PG) {
      // Activating IA-32e mode.
      if (!(cr4 & CR4.PAE) || (cpu.segAr(SEG.CS) & AR.L)) cpu.raise(VECTOR.GP, 0);
      // A 16-bit TSS cannot stay.
      if ((cpu.segAr(SEG.TR) & 0xd) === 1 && cpu.segSel(SEG.TR) !== 0) cpu.raise(VECTOR.GP, 0);
      efer |= EFER.LMA;
    } else {
      if (cpu.is64) cpu.raise(VECTOR.GP, 0);
      efer &= ~EFER.LMA;
    }
  }
  if ((changed & value & CR0.PG) === 0 && (changed & CR0.PG) && (cr4 & CR4.PCIDE)) cpu.raise(VECTOR.GP, 0);
  if ((changed & (CR0.PG | CR0.CD | CR0.NW)) && isPaePaging(value, cr4, efer)) {
    loadPdptes(cpu, cpu.get32(S.CR3));
  }
  cpu.set32(S.CR0, value);
  cpu.set32(S.EFER, efer);
  if (changed & CR0.PG) cpu.access.tlb.flushAll();
  else if (changed & CR0.WP) cpu.access.tlb.flushFast();
  updateMode(cpu);
}

/** MOV to CR3. In 64-bit mode bit 63 with CR4.PCIDE = 1 asks to invalidate nothing; other bits from MAXPHYADDR up are reserved. */
export function writeCr3(cpu: Cpu, low: number, high: number): void {
  const cr4 = cpu.get32(S.CR4), efer = cpu.get32(S.EFER);
  let noInvalidate = false;
  if ((cr4 & CR4.PCIDE) && high < 0) {
    noInvalidate = true;
    high &= 0x7fff_ffff;
  }
  if (efer & EFER.LMA) {
    if (high & (-1 << (cpu.model.maxPhysicalBits - 32))) cpu.raise(VECTOR.GP, 0);
  } else if (isPaePaging(cpu.get32(S.CR0), cr4, efer)) loadPdptes(cpu, low);
  loadCr3(cpu, low, high, noInvalidate);
}

/** MOV to CR4. */
export function writeCr4(cpu: Cpu, low: number, high: number): void {
  const old = cpu.get32(S.CR4), changed = old ^ low;
  if (high !== 0 || (low & ~cr4Mask(cpu.model))) cpu.raise(VECTOR.GP, 0);
  if (cpu.get32(S.VMX_MODE) !== 0 && !(low & CR4.VMXE)) cpu.raise(VECTOR.GP, 0);
  const efer = cpu.get32(S.EFER), cr0 = cpu.get32(S.CR0);
  if (efer & EFER.LMA) {
    if (!(low & CR4.PAE) || (changed & CR4.LA57)) cpu.raise(VECTOR.GP, 0);
  }
  if (changed & low & CR4.PCIDE) {
    if (!(efer & EFER.LMA) || (cpu.get32(S.CR3) & 0xfff)) cpu.raise(VECTOR.GP, 0);
  }
  if ((changed & (CR4.PAE | CR4.PGE | CR4.PSE | CR4.SMEP)) && isPaePaging(cr0, low, efer)) {
    loadPdptes(cpu, cpu.get32(S.CR3));
  }
  cpu.set32(S.CR4, low);
  const { tlb } = cpu.access;
  if ((changed & (CR4.PGE | CR4.PSE)) || (changed & old & CR4.PCIDE)) tlb.flushAll();
  else if ((changed & CR4.PAE) || (changed & low & CR4.SMEP)) tlb.flushCurrent();
  else if (changed & (CR4.PCIDE | CR4.SMEP | CR4.SMAP | CR4.PKE)) tlb.flushFast();
  updateMode(cpu);
}

/** WRMSR to IA32_EFER. LMA in the source is ignored. */
export function writeEfer(cpu: Cpu, low: number, high: number): void {
  const old = cpu.get32(S.EFER), mask = eferMask(cpu.model);
  if (high !== 0 || (low & ~(mask | EFER.LMA))) cpu.raise(VECTOR.GP, 0);
  const value = (low & mask) | (old & EFER.LMA), changed = old ^ value;
  if ((changed & EFER.LME) && (cpu.get32(S.CR0) & CR0.PG)) cpu.raise(VECTOR.GP, 0);
  cpu.set32(S.EFER, value);
  if (changed & EFER.NXE) cpu.access.tlb.flushAll();
  updateMode(cpu);
}

/** Bits of CR0 that must be 1 in VMX operation: PG, NE, PE; for an unrestricted guest NE alone. */
function fixedCr0(cpu: Cpu): number {
  return cpu.get32(S.VMX_PROC2) & PROC2.UNRESTRICTED_GUEST ? CR0.NE : CR0.PG | CR0.NE | CR0.PE;
}

/** MOV to CR8: the upper four bits of the task priority. */
function writeCr8(cpu: Cpu, low: number, high: number): void {
  if (high !== 0 || (low & ~0xf)) cpu.raise(VECTOR.GP, 0);
  if (cpu.get32(S.VMX_PROC) & PROC.TPR_SHADOW) {
    writeVirtualCr8(cpu, low);
    return;
  }
  cpu.apic.tpr = low << 4;
}

/** True for control registers that exist: 0, 2, 3, 4, and 8 in 64-bit mode. */
function exists(n: number, is64: boolean): boolean {
  return n === 0 || n === 2 || n === 3 || n === 4 || (n === 8 && is64);
}

/** MOV from CR0, CR2, CR3, CR4 or CR8 in non-root operation. */
function readGuestCr(cpu: Cpu, n: number): number {
  if (controlReadExits(cpu, n)) return EXIT_FAULT;
  if (n === 0 || n === 4) {
    const { low, high } = shadowed(cpu, n);
    cpu.setResult(low, high);
  } else if (n === 8) {
    cpu.setResult(cpu.get32(S.VMX_PROC) & PROC.TPR_SHADOW ? readVirtualCr8(cpu) : cpu.apic.tpr >>> 4, 0);
  } else {
    const at = n === 2 ? S.CR2 : S.CR3;
    cpu.setResult(cpu.get32(at), cpu.get32(at + 4));
  }
  return EXIT_NONE;
}

/** Procedures of this file. All are for CPL 0, which the rows check. */
export const controlRegisterProcedures: Procedures = {
  /** (n) → value. */
  readCr(cpu) {
    const n = cpu.argLow(0);
    if (!exists(n, cpu.is64)) return cpu.setFault(VECTOR.UD);
    if (isNonRoot(cpu)) return readGuestCr(cpu, n);
    if (n === 8) cpu.setResult(cpu.apic.tpr >>> 4, 0);
    else {
      const at = n === 0 ? S.CR0 : n === 2 ? S.CR2 : n === 3 ? S.CR3 : S.CR4;
      cpu.setResult(cpu.get32(at), cpu.get32(at + 4));
    }
    return EXIT_NONE;
  },
  /** (n, value). */
  writeCr(cpu) {
    const n = cpu.argLow(0), high = cpu.argHigh(1) | 0;
    let low = cpu.argLow(1) | 0;
    if (isNonRoot(cpu) && exists(n, cpu.is64)) {
      if (controlWriteExits(cpu, n, low, high)) return EXIT_FAULT;
      if (n === 0 || n === 4) low = unmasked(cpu, n, low);
    }
    switch (n) {
      case 3:
        writeCr3(cpu, low, high);
        return EXIT_NONE;
      case 0:
        writeCr0(cpu, low, high);
        return EXIT_END;
      case 2:
        cpu.set64Halves(S.CR2, low, high);
        return EXIT_NONE;
      case 4:
        writeCr4(cpu, low, high);
        return EXIT_END;
      case 8:
        if (!cpu.is64) return cpu.setFault(VECTOR.UD);
        writeCr8(cpu, low, high);
        return afterTransfer(cpu);
      default:
        return cpu.setFault(VECTOR.UD);
    }
  },
  clts(cpu) {
    if (isNonRoot(cpu)) {
      const outcome = cltsOutcome(cpu);
      if (outcome !== CLTS.CLEARS) return outcome === CLTS.EXITS ? EXIT_FAULT : EXIT_NONE;
    }
    cpu.set32(S.CR0, cpu.get32(S.CR0) & ~CR0.TS);
    updateMode(cpu);
    return EXIT_NONE;
  },
  /** (value): PE, MP, EM, TS; PE cannot be cleared. */
  lmsw(cpu) {
    const old = cpu.get32(S.CR0), source = cpu.argLow(0) & 0xffff;
    let value = (old & ~0xe) | (source & 0xf);
    if (isNonRoot(cpu)) {
      if (lmswExits(cpu, source)) return EXIT_FAULT;
      value = unmasked(cpu, 0, value);
    }
    writeCr0(cpu, value | (old & CR0.PE), 0);
    return EXIT_END;
  },
};
