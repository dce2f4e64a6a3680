/**
 * Instructions that cause VM exits: whether they do, and with what qualification and instruction information.
 *
 * Room: `hw/vmx/`; imports the VMCS, contract.ts and at_hand.ts. The procedures of the instructions (hw/sys/, hw/msr.ts) call these
 * before they change anything: a true, or an EXIT_FAULT, means that a VM exit has been asked for. Outside non-root operation all control
 * words read 0, so that one test says "no". SDM vol. 3C, "Instructions That Cause VM Exits", "Basic VM-Exit Information".
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import type { Decoded, Operand } from "../isa/form.ts";
import * as state from "../state.ts";
import * as vmcs from "../vmcs.ts";
import {
  addressSize,
  displacement,
  hasMemory,
  instructionAtHand,
  memoryInformation,
  registerOf,
} from "./at_hand.ts";
import * as contract from "./contract.ts";
import { F } from "./fields.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const { R, S, SEG } = state;
const { PROC, PROC2, REASON, requestExit } = contract;

/** The number of the register that operand `o` of `d` names; of control and debug registers their number. */
function registerNumber(d: Decoded, o: Operand | undefined): number {
  if (o === undefined) return 0;
  const slot = o.slot === "r0" ? d.r0 : o.slot === "r1" ? d.r1 : d.r2;
  return o.kind === "reg" ? registerOf(slot) : slot;
}

/** RIP of the next instruction, as halves. */
function nextRip(cpu: Cpu, advanced: boolean): { low: number; high: number } {
  const low = cpu.get32(S.RIP), high = cpu.get32(S.RIP + 4);
  if (advanced) return { low, high };
  const next = low + cpu.get32(S.ILEN);
  return { low: next >>> 0, high: next > 0xffff_ffff ? high + 1 : high };
}

/** Asks for the exit of an instruction with a memory operand: the qualification is its displacement. `information` is added to the operand's. */
function exitWithOperand(
  cpu: Cpu,
  reason: number,
  advanced: boolean,
  information: (d: Decoded) => number,
): number {
  const d = instructionAtHand(cpu, advanced);
  if (d === undefined) return requestExit(cpu, reason);
  const memory = hasMemory(d);
  const next = nextRip(cpu, advanced);
  const { low, high } = memory ? displacement(d, next.low, next.high) : { low: 0, high: 0 };
  const code = requestExit(cpu, reason, low, high);
  cpu.set32(S.VMX_INSTRUCTION, (memory ? memoryInformation(d) : 0) | information(d));
  return code;
}

/** VMCLEAR, VMPTRLD, VMPTRST, VMXON, XSAVES, XRSTORS: memory operand only. */
export function exitMemoryOperand(cpu: Cpu, reason: number, advanced: boolean): number {
  return exitWithOperand(cpu, reason, advanced, () => 0);
}

/** INVEPT, INVVPID, INVPCID: the register with the type is Reg2. */
export function exitInvalidation(cpu: Cpu, reason: number, advanced: boolean): number {
  return exitWithOperand(cpu, reason, advanced, (d) => registerNumber(d, d.form.operands[0]) << 28);
}

/** VMREAD and VMWRITE: the register with the field's encoding is Reg2. */
export function exitFieldAccess(cpu: Cpu, reason: number, advanced: boolean): number {
  const rm = reason === REASON.VMREAD ? 0 : 1;
  return exitWithOperand(cpu, reason, advanced, (d) => {
    const reg2 = registerNumber(d, d.form.operands[1 - rm]) << 28;
    return hasMemory(d) ? reg2 : reg2 | (registerNumber(d, d.form.operands[rm]) << 3) | (1 << 10);
  });
}

// ---- descriptor tables

const TABLES = ["SGDT", "SIDT", "LGDT", "LIDT"], SELECTORS = ["SLDT", "STR", "LLDT", "LTR"];

/** SGDT, SIDT, LGDT, LIDT, SLDT, STR, LLDT, LTR under descriptor-table exiting: always an exit. */
export function exitDescriptorTable(cpu: Cpu): number {
  const d = instructionAtHand(cpu, false);
  const mnemonic = d?.form.row.mnemonic ?? "";
  const table = TABLES.indexOf(mnemonic);
  if (table >= 0) {
    return exitWithOperand(
      cpu,
      REASON.GDTR_IDTR,
      false,
      (x) => (table << 28) | (x.form.mode !== 2 && x.form.w !== 16 ? 1 << 11 : 0),
    );
  }
  const selector = Math.max(0, SELECTORS.indexOf(mnemonic));
  return exitWithOperand(cpu, REASON.LDTR_TR, false, (x) => {
    const kind = selector << 28;
    return hasMemory(x) ? kind : kind | (registerNumber(x, x.form.operands[0]) << 3) | (1 << 10);
  });
}

// ---- control and debug registers

const ACCESS = { TO: 0, FROM: 1, CLTS: 2, LMSW: 3 } as const;

/** Asks for a control-register exit. */
function exitControlRegister(cpu: Cpu, n: number, access: number, advanced: boolean): number {
  const d = instructionAtHand(cpu, advanced);
  const gpr = d === undefined ? 0 : registerNumber(d, d.form.operands[access === ACCESS.TO ? 1 : 0]);
  return requestExit(cpu, REASON.CR_ACCESS, n | (access << 4) | (gpr << 8));
}

/** Whether writing `low`:`high` to CR0 or CR4 touches a bit that the host owns and whose shadow differs. */
function differsFromShadow(cpu: Cpu, mask: number, shadow: number, low: number, high: number): boolean {
  return (vmcs.get32(cpu, mask) & (low ^ vmcs.get32(cpu, shadow))) !== 0 ||
    (vmcs.getHigh(cpu, mask) & (high ^ vmcs.getHigh(cpu, shadow))) !== 0;
}

/** What a write to CR0 or CR4 really stores: host-owned bits keep their values. */
export function unmasked(cpu: Cpu, n: 0 | 4, low: number): number {
  const mask = vmcs.get32(cpu, n === 0 ? F.CR0_MASK : F.CR4_MASK);
  return (low & ~mask) | (cpu.get32(n === 0 ? S.CR0 : S.CR4) & mask);
}

/** CR0 or CR4 as the guest reads it: host-owned bits from the read shadow. */
export function shadowed(cpu: Cpu, n: 0 | 4): { low: number; high: number } {
  const mask = n === 0 ? F.CR0_MASK : F.CR4_MASK, shadow = n === 0 ? F.CR0_READ_SHADOW : F.CR4_READ_SHADOW;
  const at = n === 0 ? S.CR0 : S.CR4;
  const low = vmcs.get32(cpu, mask), high = vmcs.getHigh(cpu, mask);
  return {
    low: (cpu.get32(at) & ~low) | (vmcs.get32(cpu, shadow) & low),
    high: (cpu.get32(at + 4) & ~high) | (vmcs.getHigh(cpu, shadow) & high),
  };
}

/** MOV to CR0, CR3, CR4 or CR8 in non-root operation: true when it exits. */
export function controlWriteExits(cpu: Cpu, n: number, low: number, high: number): boolean {
  let exits = false;
  if (n === 0) exits = differsFromShadow(cpu, F.CR0_MASK, F.CR0_READ_SHADOW, low, high);
  else if (n === 4) exits = differsFromShadow(cpu, F.CR4_MASK, F.CR4_READ_SHADOW, low, high);
  else if (n === 3) exits = (cpu.get32(S.VMX_PROC) & PROC.CR3_LOAD) !== 0 && !isCr3Target(cpu, low, high);
  else if (n === 8) exits = (cpu.get32(S.VMX_PROC) & PROC.CR8_LOAD) !== 0;
  if (exits) exitControlRegister(cpu, n, ACCESS.TO, true);
  return exits;
}

function isCr3Target(cpu: Cpu, low: number, high: number): boolean {
  const count = Math.min(vmcs.get32(cpu, F.CR3_TARGET_COUNT) >>> 0, 4);
  for (let i = 0; i < count; i++) {
    const field = F.CR3_TARGET_0 + i * 2;
    if (vmcs.get32(cpu, field) === (low | 0) && vmcs.getHigh(cpu, field) === (high | 0)) return true;
  }
  return false;
}

/** MOV from CR3 or CR8 in non-root operation: true when it exits. */
export function controlReadExits(cpu: Cpu, n: number): boolean {
  const bit = n === 3 ? PROC.CR3_STORE : n === 8 ? PROC.CR8_STORE : 0;
  if (!(cpu.get32(S.VMX_PROC) & bit)) return false;
  exitControlRegister(cpu, n, ACCESS.FROM, false);
  return true;
}

/** CLTS in non-root operation. */
export const CLTS = { EXITS: 0, IGNORED: 1, CLEARS: 2 } as const;
const TS = 8;

/** What CLTS does in non-root operation. */
export function cltsOutcome(cpu: Cpu): number {
  if (!(vmcs.get32(cpu, F.CR0_MASK) & TS)) return CLTS.CLEARS;
  if (!(vmcs.get32(cpu, F.CR0_READ_SHADOW) & TS)) return CLTS.IGNORED;
  requestExit(cpu, REASON.CR_ACCESS, ACCESS.CLTS << 4);
  return CLTS.EXITS;
}

/** LMSW in non-root operation: true when it exits. Setting PE, and any change of MP, EM and TS, against the shadow. */
export function lmswExits(cpu: Cpu, source: number): boolean {
  const mask = vmcs.get32(cpu, F.CR0_MASK), shadow = vmcs.get32(cpu, F.CR0_READ_SHADOW);
  const sets = mask & source & ~shadow & 1, changes = mask & (source ^ shadow) & 0xe;
  if ((sets | changes) === 0) return false;
  const d = instructionAtHand(cpu, true);
  const memory = d !== undefined && hasMemory(d);
  if (memory) setLinear(cpu, d);
  requestExit(cpu, REASON.CR_ACCESS, (ACCESS.LMSW << 4) | (memory ? 1 << 6 : 0) | ((source & 0xffff) << 16));
  return true;
}

/** Records the linear address of the memory operand of `d`, where RIP is that of the next instruction. */
function setLinear(cpu: Cpu, d: Decoded): void {
  const base = d.base === S.RIPPAGE ? cpu.rip : cpu.get64(d.base);
  let offset = base + (cpu.get64(d.index) << BigInt(d.scale)) + BigInt(d.disp);
  offset = BigInt.asUintN(d.form.aw, offset);
  const linear = d.form.mode === 2 && d.form.segment < SEG.FS ? offset : offset + cpu.segBase(d.form.segment);
  cpu.set64(S.VMX_LINEAR, BigInt.asUintN(d.form.mode === 2 ? 64 : 32, linear));
}

/** MOV to or from a debug register: true when it exits. That comes before every fault of the instruction. */
export function debugRegisterExits(cpu: Cpu, n: number, from: boolean): boolean {
  if (!(cpu.get32(S.VMX_PROC) & PROC.MOV_DR)) return false;
  const d = instructionAtHand(cpu, !from);
  const gpr = d === undefined ? 0 : registerNumber(d, d.form.operands[from ? 0 : 1]);
  requestExit(cpu, REASON.MOV_DR, (n & 7) | (from ? 1 << 4 : 0) | (gpr << 8));
  return true;
}

// ---- ports

/** Whether an access to `bytes` ports from `port` on exits. */
function portExits(cpu: Cpu, port: number, bytes: number): boolean {
  const proc = cpu.get32(S.VMX_PROC);
  if (!(proc & PROC.IO_BITMAPS)) return (proc & PROC.UNCONDITIONAL_IO) !== 0;
  if (port + bytes > 0x1_0000) return true;
  for (let p = port; p < port + bytes; p++) {
    const bitmap = p < 0x8000 ? F.IO_BITMAP_A : F.IO_BITMAP_B;
    const offset = (p & 0x7fff) >>> 3;
    const word = vmcs.readPhysical32(
      cpu,
      (vmcs.get32(cpu, bitmap) | (offset & ~3)) | 0,
      vmcs.getHigh(cpu, bitmap),
    );
    if ((word >>> (p & 31)) & 1) return true;
  }
  return false;
}

/**
 * IN, OUT, INS, OUTS in non-root operation: true when it exits.
 *
 * @param input Whether the port is read.
 * @param advanced Whether RIP is that of the next instruction.
 */
export function ioExits(cpu: Cpu, port: number, bytes: number, input: boolean, advanced: boolean): boolean {
  if (!portExits(cpu, port, bytes)) return false;
  const d = instructionAtHand(cpu, advanced);
  let low = (bytes - 1) | (port << 16), information = 0;
  const mnemonic = d?.form.row.mnemonic;
  if (mnemonic === "INS") input = true;
  if (d !== undefined && (mnemonic === "INS" || mnemonic === "OUTS")) {
    low |= 1 << 4;
    if (d.form.rep !== 0) low |= 1 << 5;
    information = (addressSize(d) << 7) | (mnemonic === "OUTS" ? Math.max(0, d.form.segment) << 15 : 0);
    const index = cpu.gpr(mnemonic === "INS" ? R.RDI : R.RSI);
    const seg = mnemonic === "INS" ? SEG.ES : Math.max(0, d.form.segment);
    const offset = BigInt.asUintN(d.form.aw, index);
    const flat = d.form.mode === 2 && seg < SEG.FS;
    cpu.set64(
      S.VMX_LINEAR,
      BigInt.asUintN(d.form.mode === 2 ? 64 : 32, flat ? offset : offset + cpu.segBase(seg)),
    );
  } else if (d !== undefined && d.form.operands.some((o) => o.kind === "imm")) low |= 1 << 6;
  requestExit(cpu, REASON.IO, low | (input ? 1 << 3 : 0));
  if (cpu.model.features.has("vmx-ins-outs")) cpu.set32(S.VMX_INSTRUCTION, information);
  return true;
}

// ---- MSRs

/** Whether RDMSR or WRMSR of `index` exits; the exit is asked for. */
export function msrExits(cpu: Cpu, index: number, write: boolean): boolean {
  index >>>= 0;
  let exits = true;
  if (cpu.get32(S.VMX_PROC) & PROC.MSR_BITMAPS) {
    const high = index >= 0xc000_0000, number = high ? index - 0xc000_0000 : index;
    if (number < 0x2000) {
      const offset = (write ? 0x800 : 0) + (high ? 0x400 : 0) + (number >>> 3);
      const word = vmcs.readPhysical32(
        cpu,
        (vmcs.get32(cpu, F.MSR_BITMAPS) | (offset & ~3)) | 0,
        vmcs.getHigh(cpu, F.MSR_BITMAPS),
      );
      exits = ((word >>> (number & 31)) & 1) === 1;
    }
  }
  if (exits) requestExit(cpu, write ? REASON.WRMSR : REASON.RDMSR);
  return exits;
}

// ---- time, random numbers, PAUSE

/** Applies TSC scaling and offsetting to a time-stamp counter value of a guest. */
export function guestTimeStamp(cpu: Cpu, value: bigint): bigint {
  if (!(cpu.get32(S.VMX_PROC) & PROC.TSC_OFFSETTING)) return value;
  let result = value;
  if (cpu.get32(S.VMX_PROC2) & PROC2.TSC_SCALING) {
    result = (result * vmcs.get64(cpu, F.TSC_MULTIPLIER)) >> 48n;
  }
  return BigInt.asUintN(64, result + vmcs.get64(cpu, F.TSC_OFFSET));
}

/** RDRAND and RDSEED: true when it exits. */
export function randomExits(cpu: Cpu): boolean {
  if (!(cpu.get32(S.VMX_PROC2) & (PROC2.RDRAND | PROC2.RDSEED))) return false;
  const d = instructionAtHand(cpu, false);
  if (d === undefined) return false;
  const seed = d.form.row.mnemonic === "RDSEED";
  if (!(cpu.get32(S.VMX_PROC2) & (seed ? PROC2.RDSEED : PROC2.RDRAND))) return false;
  requestExit(cpu, seed ? REASON.RDSEED : REASON.RDRAND);
  const size = d.form.w === 16 ? 0 : d.form.w === 32 ? 1 : 2;
  cpu.set32(S.VMX_INSTRUCTION, (registerNumber(d, d.form.operands[0]) << 3) | (size << 11));
  return true;
}

const NEVER = 2n ** 64n - 1n;

/**
 * PAUSE in non-root operation: true when it exits. PAUSE-loop exiting counts at CPL 0 only: a PAUSE more than the gap after the last one
 * begins a new loop, one more than the window after the first of its loop exits.
 */
export function pauseExits(cpu: Cpu): boolean {
  if (cpu.get32(S.VMX_PROC) & PROC.PAUSE) {
    requestExit(cpu, REASON.PAUSE);
    return true;
  }
  if (!(cpu.get32(S.VMX_PROC2) & PROC2.PAUSE_LOOP) || cpu.get32(S.CPL) !== 0) return false;
  const now = BigInt(cpu.now()), last = cpu.get64(S.VMX_PAUSE_LAST);
  const gap = BigInt(vmcs.get32(cpu, F.PLE_GAP) >>> 0), window = BigInt(vmcs.get32(cpu, F.PLE_WINDOW) >>> 0);
  if (last === NEVER || now - last > gap) {
    cpu.set64(S.VMX_PAUSE_FIRST, now);
    cpu.set64(S.VMX_PAUSE_LAST, now);
    return false;
  }
  if (now - cpu.get64(S.VMX_PAUSE_FIRST) > window) {
    cpu.set64(S.VMX_PAUSE_LAST, NEVER);
    requestExit(cpu, REASON.PAUSE);
    return true;
  }
  cpu.set64(S.VMX_PAUSE_LAST, now);
  return false;
}
