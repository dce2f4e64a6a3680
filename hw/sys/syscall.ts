/**
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, and FS and GS bases.
 *
 * Room: `hw/sys/`; imports the processor and mode.ts. SDM vol. 2B. All of it is on hot paths: no allocation.
 *
 * @module
 */
import { type Cpu, type Procedures, VECTOR } from "../cpu.ts";
import * as state from "../state.ts";
import { storeStatusFlags } from "../flags.ts";
import { PROC, REASON, requestExit } from "../vmx/contract.ts";
import { afterTransfer } from "./attention.ts";
import { isRestricted8086, poppedVirtualFlags } from "./vme.ts";
import { deliverPendingDebug } from "./event.ts";
import { AR, CR0, EFER, isCanonical, isLongMode, updateTlbContext } from "./mode.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const { EXIT_END, EXIT_NONE, RFLAGS, S, SEG } = state;

/** Rights of the flat segments that these instructions load, less DPL: accessed, present. */
const FLAT_CODE = 0xb | AR.S | AR.P | AR.G, FLAT_DATA = 0x3 | AR.S | AR.P | AR.G | AR.DB;
/** RFLAGS bits that SYSRET loads from R11: all but RF and VM (and reserved ones). */
const SYSRET_FLAGS = 0x3c_7fd7;
const DR6_BS = 0x4000;

const RCX = (S.GPR + 1 * 8) >>> 2, RDX = (S.GPR + 2 * 8) >>> 2, RSP = (S.GPR + 4 * 8) >>> 2;
const R11 = (S.GPR + 11 * 8) >>> 2, RIP = S.RIP >>> 2, CPL = S.CPL >>> 2, FLAGS = S.RFLAGS >>> 2;

/** Loads CS and SS with flat segments of privilege `cpl`; `long` makes 64-bit code. */
function setFlat(cpu: Cpu, code: number, stack: number, cpl: number, long: boolean): void {
  const i32 = cpu.memory.i32, at = cpu.base >>> 2;
  i32[at + (S.SEGSEL >>> 2) + SEG.CS] = code;
  i32[at + (S.SEGSEL >>> 2) + SEG.SS] = stack;
  const bases = at + (S.SEGBASE >>> 2) + SEG.CS * 2;
  i32[bases] =
    i32[bases + 1] =
    i32[bases + 2] =
    i32[bases + 3] =
      0;
  i32[at + (S.SEGLIMIT >>> 2) + SEG.CS] = i32[at + (S.SEGLIMIT >>> 2) + SEG.SS] = -1;
  i32[at + (S.SEGAR >>> 2) + SEG.CS] = FLAT_CODE | (cpl << 5) | (long ? AR.L : AR.DB);
  i32[at + (S.SEGAR >>> 2) + SEG.SS] = FLAT_DATA | (cpl << 5);
  // Quick limits: the code may be read, the stack read and written, all 4 GiB of them.
  const readable = at + (S.SEGRMAX >>> 2) + SEG.CS * 2, writable = at + (S.SEGWMAX >>> 2) + SEG.CS * 2;
  i32[readable] = i32[readable + 2] = i32[writable + 2] = -1;
  i32[readable + 1] = i32[readable + 3] = i32[writable + 3] = 0;
  i32[writable] = i32[writable + 1] = -1;
  i32[at + CPL] = cpl;
  i32[at + (S.CODEMODE >>> 2)] = i32[at + (S.STACKMODE >>> 2)] = long ? 2 : 1;
}

/**
 * TF after SYSCALL and SYSRET is the new one: cleared it suppresses the trap of the instruction itself, set it traps before the next
 * instruction.
 */
function settleTrace(cpu: Cpu, before: number): number {
  const i32 = cpu.memory.i32, at = cpu.base >>> 2;
  const after = i32[at + FLAGS]!;
  if (((before | after) & RFLAGS.TF) === 0) return afterTransfer(cpu);
  if (!(after & RFLAGS.TF)) i32[at + (S.STEPFLAGS >>> 2)]! |= RFLAGS.TF;
  else if (!(before & RFLAGS.TF)) {
    cpu.set32(S.PENDINGDB, cpu.get32(S.PENDINGDB) | DR6_BS);
    deliverPendingDebug(cpu);
  }
  return EXIT_END;
}

/** Procedures of this file. */
export const syscallProcedures: Procedures = {
  syscall(cpu) {
    const i32 = cpu.memory.i32, at = cpu.base >>> 2;
    // Intel: outside 64-bit mode there is no SYSCALL.
    if (!(i32[at + (S.EFER >>> 2)]! & EFER.SCE) || i32[at + (S.CODEMODE >>> 2)] !== 2) {
      return cpu.setFault(VECTOR.UD);
    }
    const flags = cpu.rflags & ~RFLAGS.RF;
    i32[at + RCX] = i32[at + RIP]!;
    i32[at + RCX + 1] = i32[at + RIP + 1]!;
    i32[at + R11] = flags;
    i32[at + R11 + 1] = 0;
    i32[at + RIP] = i32[at + (S.LSTAR >>> 2)]!;
    i32[at + RIP + 1] = i32[at + (S.LSTAR >>> 2) + 1]!;
    const left = flags & ~i32[at + (S.FMASK >>> 2)]!;
    storeStatusFlags(i32, cpu.base, left);
    i32[at + FLAGS] = (left & ~0x8d5) | 2;
    const star = i32[at + (S.STAR >>> 2) + 1]! & 0xfffc;
    setFlat(cpu, star, star + 8, 0, true);
    updateTlbContext(cpu);
    return settleTrace(cpu, flags);
  },
  /** (operand size): 64 returns to 64-bit code, 32 to compatibility mode. */
  sysret(cpu) {
    const i32 = cpu.memory.i32, at = cpu.base >>> 2;
    if (!(i32[at + (S.EFER >>> 2)]! & EFER.SCE) || i32[at + (S.CODEMODE >>> 2)] !== 2) {
      return cpu.setFault(VECTOR.UD);
    }
    if (i32[at + CPL] !== 0) return cpu.setFault(VECTOR.GP, 0);
    const long = cpu.argLow(0) === 64;
    const low = i32[at + RCX]!, high = i32[at + RCX + 1]!;
    if (long && !isCanonical(cpu, high)) return cpu.setFault(VECTOR.GP, 0);
    const before = i32[at + FLAGS]!;
    i32[at + RIP] = low;
    i32[at + RIP + 1] = long ? high : 0;
    const flags = i32[at + R11]! & SYSRET_FLAGS;
    storeStatusFlags(i32, cpu.base, flags);
    i32[at + FLAGS] = (flags & ~0x8d5) | 2;
    const star = i32[at + (S.STAR >>> 2) + 1]! >>> 16;
    setFlat(cpu, ((star + (long ? 16 : 0)) & 0xffff) | 3, ((star + 8) & 0xffff) | 3, 3, long);
    updateTlbContext(cpu);
    return settleTrace(cpu, before);
  },
  sysenter(cpu) {
    const cs = cpu.get32(S.SYSENTER_CS) & 0xfffc;
    if (!(cpu.get32(S.CR0) & CR0.PE) || cs === 0) return cpu.setFault(VECTOR.GP, 0);
    const i32 = cpu.memory.i32, at = cpu.base >>> 2, long = isLongMode(cpu);
    i32[at + FLAGS]! &= ~(RFLAGS.VM | RFLAGS.IF | RFLAGS.RF);
    i32[at + RSP] = i32[at + (S.SYSENTER_ESP >>> 2)]!;
    i32[at + RSP + 1] = long ? i32[at + (S.SYSENTER_ESP >>> 2) + 1]! : 0;
    i32[at + RIP] = i32[at + (S.SYSENTER_EIP >>> 2)]!;
    i32[at + RIP + 1] = long ? i32[at + (S.SYSENTER_EIP >>> 2) + 1]! : 0;
    setFlat(cpu, cs, cs + 8, 0, long);
    updateTlbContext(cpu);
    return afterTransfer(cpu);
  },
  /** (operand size): 64 returns to 64-bit code. */
  sysexit(cpu) {
    const cs = cpu.get32(S.SYSENTER_CS) & 0xfffc;
    if (!(cpu.get32(S.CR0) & CR0.PE) || cs === 0 || cpu.get32(S.CPL) !== 0) {
      return cpu.setFault(VECTOR.GP, 0);
    }
    const i32 = cpu.memory.i32, at = cpu.base >>> 2;
    const long = cpu.argLow(0) === 64;
    if (long && (!isCanonical(cpu, i32[at + RCX + 1]!) || !isCanonical(cpu, i32[at + RDX + 1]!))) {
      return cpu.setFault(VECTOR.GP, 0);
    }
    i32[at + RSP] = i32[at + RCX]!;
    i32[at + RSP + 1] = long ? i32[at + RCX + 1]! : 0;
    i32[at + RIP] = i32[at + RDX]!;
    i32[at + RIP + 1] = long ? i32[at + RDX + 1]! : 0;
    const code = cs + (long ? 32 : 16);
    setFlat(cpu, (code & 0xffff) | 3, ((code + 8) & 0xffff) | 3, 3, long);
    updateTlbContext(cpu);
    return afterTransfer(cpu);
  },
  /** The row has checked CPL. */
  swapgs(cpu) {
    const i32 = cpu.memory.i32, at = cpu.base >>> 2;
    const base = at + (S.SEGBASE >>> 2) + SEG.GS * 2, kernel = at + (S.KERNEL_GS_BASE >>> 2);
    const low = i32[base]!, high = i32[base + 1]!;
    i32[base] = i32[kernel]!;
    i32[base + 1] = i32[kernel + 1]!;
    i32[kernel] = low;
    i32[kernel + 1] = high;
    return EXIT_NONE;
  },
  /** (seg, value): WRFSBASE, WRGSBASE. The row has checked CR4.FSGSBASE. */
  wrbase(cpu) {
    const high = cpu.argHigh(1);
    if (!isCanonical(cpu, high)) return cpu.setFault(VECTOR.GP, 0);
    cpu.set64Halves(S.SEGBASE + cpu.argLow(0) * 8, cpu.argLow(1), high);
    return EXIT_NONE;
  },
  /** CLAC, STAC: (new AC). */
  setAc(cpu) {
    const flags = cpu.get32(S.RFLAGS);
    cpu.set32(S.RFLAGS, cpu.argLow(0) ? flags | RFLAGS.AC : flags & ~RFLAGS.AC);
    updateTlbContext(cpu);
    return EXIT_NONE;
  },
  /** STI where IF was clear: interrupts come after the next instruction. */
  sti(cpu) {
    cpu.set32(S.RFLAGS, cpu.get32(S.RFLAGS) | RFLAGS.IF);
    cpu.set32(S.BLOCKING, cpu.get32(S.BLOCKING) | 1);
    return EXIT_END;
  },
  hlt(cpu) {
    if (cpu.get32(S.VMX_PROC) & PROC.HLT) return requestExit(cpu, REASON.HLT);
    cpu.set32(S.ACTIVITY, 1);
    return EXIT_END;
  },
  /** (image, operand size): POPF; virtual-8086 mode with IOPL < 3 has been refused, or its image checked. */
  popf(cpu) {
    const i32 = cpu.memory.i32, at = cpu.base >>> 2;
    const old = i32[at + FLAGS]!, cpl = i32[at + CPL]!;
    if (isRestricted8086(cpu)) {
      // Its image has been checked; IF is VIF.
      const image = cpu.argLow(0);
      storeStatusFlags(i32, cpu.base, image);
      i32[at + FLAGS] = (poppedVirtualFlags(cpu, image) & ~0x8d5) | 2;
      return afterTransfer(cpu);
    }
    let mask = cpu.argLow(1) === 16 ? 0x4dd5 : 0x24_4dd5;
    // Virtual-8086 mode is CPL 3: IOPL stays, IF follows (IOPL is 3).
    if (cpl === 0) mask |= RFLAGS.IOPL;
    if (cpl <= ((old >>> 12) & 3)) mask |= RFLAGS.IF;
    let value = (cpu.argLow(0) & mask) | (cpu.rflags & ~mask & ~RFLAGS.RF);
    if (!(old & RFLAGS.VM)) value &= ~(RFLAGS.VIF | RFLAGS.VIP);
    storeStatusFlags(i32, cpu.base, value);
    i32[at + FLAGS] = (value & ~0x8d5) | 2;
    if ((old ^ value) & RFLAGS.AC) updateTlbContext(cpu);
    return afterTransfer(cpu);
  },
};
