/**
 * Debug registers, breakpoints and single-stepping: what the run loop asks before and after an instruction, and what
 * data and port accesses report.
 *
 * Room: `hw/sys/`; imports event delivery and the processor. SDM vol. 3B, "Debug, Branch Profile, TSC …".
 *
 * @module
 */
import { type Cpu, type Procedures, VECTOR } from "../cpu.ts";
import { EXIT_END, EXIT_FAULT, EXIT_NONE, RFLAGS, S, SEG } from "../state.ts";
import { noteDebugException } from "./debug_status.ts";
import { debugRegisterExits } from "../vmx/intercepts.ts";
import { deliverPendingDebug } from "./event.ts";
import { CR4, DR6_RESET, DR7_RESET, updateTlbContext } from "./mode.ts";

const DR6 = S.DR + 6 * 8, DR7 = S.DR + 7 * 8;
/** DR6 bits: B0 … B3, general detect, single-step. */
const DR6_B = 0xf, DR6_BD = 0x2000, DR6_BS = 0x4000;
/** DR6 bits that software can set: B0 … B3, BD, BS, BT. */
const DR6_WRITABLE = 0xe00f;
/** DR7 bits that software can set: enables, LE, GE, GD, the four R/W and LEN fields. */
const DR7_WRITABLE = 0xffff_23ff | 0;
/** DR7: L0 … G3; GD. */
const DR7_ENABLES = 0xff, DR7_GD = 0x2000;
/** R/W field of a breakpoint. */
const RW = { EXECUTE: 0, WRITE: 1, IO: 2, ACCESS: 3 } as const;
const BLOCKED_BY_MOV_SS = 2;
/** Bytes that each LEN field covers. */
const LENGTHS = [1, 2, 8, 4] as const;

/** In S.STEPFLAGS: debug traps of the step wait for the instruction boundary, where something comes before them. */
export const STEP_HOLD = 1;

/** True when instructions must be stepped for the debug registers' sake: a breakpoint is enabled, or a trap is held back. */
export function debugArmed(cpu: Cpu): boolean {
  return ((cpu.get32(DR7) & DR7_ENABLES) | cpu.get32(S.PENDINGDB)) !== 0;
}

/** Whether breakpoint `i` is enabled, locally or globally. */
function isEnabled(dr7: number, i: number): boolean {
  return ((dr7 >>> (i * 2)) & 3) !== 0;
}

/**
 * Looks for an instruction breakpoint at RIP. If there is one, DR6 tells it and the fault #DB is pending: the caller delivers it.
 * The caller has seen that RFLAGS.RF is clear.
 */
export function instructionBreakpoint(cpu: Cpu): boolean {
  const dr7 = cpu.get32(DR7);
  if ((dr7 & DR7_ENABLES) === 0 || (cpu.get32(S.BLOCKING) & BLOCKED_BY_MOV_SS)) return false;
  let low = cpu.get32(S.RIP), high = cpu.get32(S.RIP + 4);
  if (!cpu.is64) {
    low = (low + cpu.get32(S.SEGBASE + SEG.CS * 8)) >>> 0;
    high = 0;
  }
  let hit = 0;
  for (let i = 0; i < 4; i++) {
    if (!isEnabled(dr7, i) || ((dr7 >>> (16 + i * 4)) & 3) !== RW.EXECUTE) continue;
    if (cpu.get32(S.DR + i * 8) === low && cpu.get32(S.DR + i * 8 + 4) === high) hit |= 1 << i;
  }
  if (hit === 0) return false;
  noteDebugException(cpu, hit | cpu.get32(S.PENDINGDB), DR6_B);
  cpu.setFault(VECTOR.DB);
  return true;
}

/**
 * Notes a data access while DR7 enables data breakpoints: the matching bits wait for the end of the instruction. Wired to
 * `access.onDataAccess`.
 */
export function noteDataAccess(cpu: Cpu, low: number, high: number, bytes: number, write: boolean): void {
  const dr7 = cpu.get32(DR7);
  let hit = 0;
  for (let i = 0; i < 4; i++) {
    if (!isEnabled(dr7, i)) continue;
    const rw = (dr7 >>> (16 + i * 4)) & 3;
    if (rw !== RW.ACCESS && !(rw === RW.WRITE && write)) continue;
    if (cpu.get32(S.DR + i * 8 + 4) !== high >>> 0) continue;
    if (overlaps(cpu.get32(S.DR + i * 8), dr7, i, low >>> 0, bytes)) hit |= 1 << i;
  }
  if (hit !== 0) cpu.set32(S.PENDINGDB, cpu.get32(S.PENDINGDB) | hit);
}

/** Notes a port access for I/O breakpoints (CR4.DE = 1). */
export function notePortAccess(cpu: Cpu, port: number, bytes: number): void {
  const dr7 = cpu.get32(DR7);
  if ((dr7 & DR7_ENABLES) === 0 || !(cpu.get32(S.CR4) & CR4.DE)) return;
  let hit = 0;
  for (let i = 0; i < 4; i++) {
    if (!isEnabled(dr7, i) || ((dr7 >>> (16 + i * 4)) & 3) !== RW.IO) continue;
    if (overlaps(cpu.get32(S.DR + i * 8), dr7, i, port, bytes)) hit |= 1 << i;
  }
  if (hit !== 0) cpu.set32(S.PENDINGDB, cpu.get32(S.PENDINGDB) | hit);
}

/** Whether breakpoint `i`, aligned to its length, and the bytes at `at` have a byte in common. */
function overlaps(address: number, dr7: number, i: number, at: number, bytes: number): boolean {
  const length = LENGTHS[(dr7 >>> (18 + i * 4)) & 3]!;
  const first = (address & ~(length - 1)) >>> 0;
  return at < first + length && first < at + bytes;
}

/**
 * What follows a stepped instruction that has completed: RF clears, and the single-step trap and data breakpoints are
 * delivered, unless a MOV SS or POP SS holds them back for one more instruction.
 *
 * @param flagsBefore S.RFLAGS before the instruction.
 * @param blockingBefore S.BLOCKING before it.
 */
export function afterStep(cpu: Cpu, flagsBefore: number, _blockingBefore: number): void {
  const marks = cpu.get32(S.STEPFLAGS);
  if (marks !== 0) cpu.set32(S.STEPFLAGS, 0);
  if ((flagsBefore & RFLAGS.RF) && !(marks & RFLAGS.RF)) {
    cpu.set32(S.RFLAGS, cpu.get32(S.RFLAGS) & ~RFLAGS.RF);
  }
  if (cpu.get32(S.BLOCKING) & BLOCKED_BY_MOV_SS || marks & STEP_HOLD) return;
  let pending = cpu.get32(S.PENDINGDB);
  if ((flagsBefore & RFLAGS.TF) && !(marks & RFLAGS.TF)) pending |= DR6_BS;
  if (pending === 0) return;
  cpu.set32(S.PENDINGDB, pending);
  deliverPendingDebug(cpu);
}

// ---- MOV to and from debug registers

/** The register that `n` names: 4 and 5 are 6 and 7 unless CR4.DE; then they and 8 … 15 do not exist (−1). */
function registerOf(cpu: Cpu, n: number): number {
  if (n === 4 || n === 5) return cpu.get32(S.CR4) & CR4.DE ? -1 : n + 2;
  return n < 8 ? n : -1;
}

/** Checks what MOV DR has in common both ways; the register's number, or −1 with the fault recorded. */
function checkAccess(cpu: Cpu, n: number): number {
  const register = registerOf(cpu, n);
  if (register < 0) {
    cpu.setFault(VECTOR.UD);
    return -1;
  }
  if (cpu.get32(S.CPL) !== 0) {
    cpu.setFault(VECTOR.GP, 0);
    return -1;
  }
  if (cpu.get32(DR7) & DR7_GD) {
    noteDebugException(cpu, DR6_BD);
    cpu.setFault(VECTOR.DB);
    return -1;
  }
  return register;
}

/** Sets DR7 with its fixed bits; the fast-TLB context depends on it. */
export function setDr7(cpu: Cpu, value: number): void {
  cpu.set64Halves(DR7, (value & DR7_WRITABLE) | DR7_RESET, 0);
  cpu.access.onDataAccess ??= (low, high, bytes, write) => noteDataAccess(cpu, low, high, bytes, write);
  updateTlbContext(cpu);
}

/** Procedures of this file. */
export const debugProcedures: Procedures = {
  /** (n) → value. */
  readDr(cpu) {
    if (debugRegisterExits(cpu, cpu.argLow(0), true)) return EXIT_FAULT;
    const register = checkAccess(cpu, cpu.argLow(0));
    if (register < 0) return EXIT_FAULT;
    const at = S.DR + register * 8;
    cpu.setResult(cpu.get32(at), cpu.get32(at + 4));
    return EXIT_NONE;
  },
  /** (n, value). */
  writeDr(cpu) {
    if (debugRegisterExits(cpu, cpu.argLow(0), false)) return EXIT_FAULT;
    const register = checkAccess(cpu, cpu.argLow(0));
    if (register < 0) return EXIT_FAULT;
    const low = cpu.argLow(1), high = cpu.argHigh(1);
    if (register >= 6 && high !== 0) return cpu.setFault(VECTOR.GP, 0);
    if (register === 7) setDr7(cpu, low);
    else if (register === 6) cpu.set64Halves(DR6, (low & DR6_WRITABLE) | DR6_RESET, 0);
    else cpu.set64Halves(S.DR + register * 8, low, high);
    return EXIT_END;
  },
};
