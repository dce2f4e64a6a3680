/**
 * Far RET and IRET in every mode.
 *
 * Room: `hw/sys/`; imports the processor, segments, stacks, tasks. SDM vol. 2, "RET", "IRET/IRETD/IRETQ". IRET in 64-bit
 * mode is a hot path and allocates nothing.
 *
 * @module
 */
import { type Cpu, type Procedures, VECTOR } from "../cpu.ts";
import * as state from "../state.ts";
import { storeStatusFlags } from "../flags.ts";
import { PIN } from "../vmx/contract.ts";
import { afterTransfer } from "./attention.ts";
import {
  CR4,
  isLongMode,
  isProtected,
  isVirtual8086,
  updateCodeAndStackMode,
  updateTlbContext,
} from "./mode.ts";
import {
  checkStackSegment,
  Descriptor,
  dropPrivilegedSegments,
  IMPLICIT,
  isNull,
  markAccessed,
  readDescriptor,
  selectorCode,
  set8086Segment,
  setCodeSegment,
  setCodeSegment64,
  setFromDescriptor,
  setNull,
  setVirtual8086Segment,
} from "./segments.ts";
import { quickWords } from "./quick.ts";
import { Stack } from "./stack.ts";
import { checkVirtualPop, isRestricted8086, poppedVirtualFlags } from "./vme.ts";
import { checkOffset, isLongAndBig, switchTaskFromInstruction } from "./transfer.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const { RFLAGS, S, SEG } = state;

const code = new Descriptor(), stackDescriptor = new Descriptor();
const stack = new Stack();

/** `how` of a stack access: a non-canonical address is #SS(0). */
const STACK = 2;
/** Bits of RFLAGS that any IRET loads, and those that a 32- or 64-bit one loads beside them. */
const IRET_FLAGS = 0x4dd5, IRET_FLAGS_WIDE = RFLAGS.RF | RFLAGS.AC | RFLAGS.ID;
/** What CPL 0 in protected mode loads in a 32- or 64-bit IRET. */
const IRET_FLAGS_CPL0 = RFLAGS.VIF | RFLAGS.VIP;
const BLOCKED_BY_NMI = 8;
const RSP = S.GPR + 4 * 8;

/** Checks the code segment of a return and reads its descriptor into `code`. */
function checkReturnCode(cpu: Cpu, selector: number, cpl: number): void {
  const error = selectorCode(selector), rpl = selector & 3;
  if (error === 0) cpu.raise(VECTOR.GP, 0);
  readDescriptor(cpu, selector, code);
  if (!code.isCode || rpl < cpl || isLongAndBig(cpu, code)) cpu.raise(VECTOR.GP, error);
  if (code.isConforming ? code.dpl > rpl : code.dpl !== rpl) cpu.raise(VECTOR.GP, error);
  if (!code.isPresent) cpu.raise(VECTOR.NP, error);
}

/**
 * Checks the stack segment of a return to privilege `rpl` (`code` is read) and reads its descriptor, unless it is null.
 *
 * @returns false for a null selector, which only 64-bit code below CPL 3 may have.
 */
function checkReturnStack(cpu: Cpu, selector: number, rpl: number): boolean {
  if (isNull(selector)) {
    if (!(isLongMode(cpu) && code.isLong) || rpl === 3 || (selector & 3) !== rpl) cpu.raise(VECTOR.GP, 0);
    return false;
  }
  checkStackSegment(cpu, selector, rpl, stackDescriptor, VECTOR.GP, 0);
  return true;
}

/** Loads what of `image` an IRET of size `w` at privilege `cpl` may change. */
function setReturnFlags(cpu: Cpu, image: number, w: number, cpl: number): void {
  const i32 = cpu.memory.i32, at = (cpu.base + S.RFLAGS) >>> 2;
  const old = i32[at]!;
  let mask = IRET_FLAGS;
  if (w !== 16) mask |= IRET_FLAGS_WIDE;
  if (cpl === 0) mask |= w === 16 || !isProtected(cpu) ? RFLAGS.IOPL : RFLAGS.IOPL | IRET_FLAGS_CPL0;
  if (cpl <= ((old >>> 12) & 3)) mask |= RFLAGS.IF;
  storeStatusFlags(i32, cpu.base, image);
  let value = (image & mask) | (old & ~mask & ~RFLAGS.RF);
  if (value & RFLAGS.RF) {
    // RF says something only while a breakpoint is armed; without one it would just cost a step.
    if ((i32[(cpu.base + S.DR + 7 * 8) >>> 2]! & 0xff) === 0) value &= ~RFLAGS.RF;
    else if (old & RFLAGS.RF) i32[(cpu.base + S.STEPFLAGS) >>> 2]! |= RFLAGS.RF;
  }
  i32[at] = (value & ~0x8d5) | 2;
}

/** IRET in 64-bit mode: always five items of `size` bytes. */
function returnLong(cpu: Cpu, size: 2 | 4 | 8): number {
  const i32 = cpu.memory.i32, at = cpu.base >>> 2, access = cpu.access;
  if (i32[at + (S.RFLAGS >>> 2)]! & RFLAGS.NT) cpu.raise(VECTOR.GP, 0);
  const low = i32[at + (RSP >>> 2)]!, high = i32[at + (RSP >>> 2) + 1]!;
  let ripLow: number, ripHigh = 0, cs: number, flags: number, rspLow: number, rspHigh = 0, ss: number;
  const words = size === 8 ? quickWords(cpu, low, high, 40, false, false) : 0;
  if (words !== 0) {
    ripLow = i32[words]!;
    ripHigh = i32[words + 1]!;
    cs = i32[words + 2]! & 0xffff;
    flags = i32[words + 4]!;
    rspLow = i32[words + 6]!;
    rspHigh = i32[words + 7]!;
    ss = i32[words + 8]! & 0xffff;
  } else {
    ripLow = access.read(low, high, size, STACK) | 0;
    if (size === 8) ripHigh = access.high | 0;
    let item = (low + size) | 0;
    cs = access.read(item, carry(item, low, high), size, STACK) & 0xffff;
    item = (low + 2 * size) | 0;
    flags = access.read(item, carry(item, low, high), size, STACK) | 0;
    item = (low + 3 * size) | 0;
    rspLow = access.read(item, carry(item, low, high), size, STACK) | 0;
    if (size === 8) rspHigh = access.high | 0;
    item = (low + 4 * size) | 0;
    ss = access.read(item, carry(item, low, high), size, STACK) & 0xffff;
  }

  const cpl = i32[at + (S.CPL >>> 2)]!, rpl = cs & 3;
  checkReturnCode(cpu, cs, cpl);
  const hasStack = checkReturnStack(cpu, ss, rpl);
  checkOffset(cpu, code, ripLow, ripHigh);
  markAccessed(cpu, code);
  if (hasStack) markAccessed(cpu, stackDescriptor);

  const oldFlags = i32[at + (S.RFLAGS >>> 2)]!;
  setReturnFlags(cpu, flags, size * 8, cpl);
  const long = code.isLong;
  if (long) setCodeSegment64(cpu, cs, code, rpl);
  else setCodeSegment(cpu, cs, code, rpl);
  if (hasStack) setFromDescriptor(cpu, SEG.SS, ss, stackDescriptor);
  else setNull(cpu, SEG.SS, ss);
  i32[at + (S.RIP >>> 2)] = ripLow;
  i32[at + (S.RIP >>> 2) + 1] = ripHigh;
  i32[at + (RSP >>> 2)] = rspLow;
  i32[at + (RSP >>> 2) + 1] = rspHigh;
  if (rpl !== cpl) dropPrivilegedSegments(cpu, rpl);
  if (!long) updateCodeAndStackMode(cpu);
  if (rpl !== cpl || ((oldFlags ^ i32[at + (S.RFLAGS >>> 2)]!) & RFLAGS.AC) !== 0) updateTlbContext(cpu);
  return afterTransfer(cpu);
}

/** Upper half of the address of an item above low:high whose lower half is `item`. */
function carry(item: number, low: number, high: number): number {
  return item >>> 0 < low >>> 0 ? (high + 1) | 0 : high;
}

/** IRET outside 64-bit mode. */
function returnFromEvent(cpu: Cpu, w: 16 | 32): number {
  const size = w === 16 ? 2 : 4, flagsNow = cpu.get32(S.RFLAGS);
  if (!isProtected(cpu) || isVirtual8086(cpu)) {
    // Virtual-8086 mode without IOPL 3 must trap to the monitor, unless there is a virtual interrupt flag.
    const restricted = isRestricted8086(cpu);
    if (restricted && (w !== 16 || !(cpu.get32(S.CR4) & CR4.VME))) cpu.raise(VECTOR.GP, 0);
    stack.setCurrent(cpu);
    const ip = stack.peek(cpu, 0, size), cs = stack.peek(cpu, 1, size) & 0xffff;
    const image = stack.peek(cpu, 2, size);
    if (ip > cpu.segLimit(SEG.CS)) cpu.raise(VECTOR.GP, 0);
    if (restricted) checkVirtualPop(cpu, image, w);
    stack.pointer = stack.at(3 * size);
    stack.commit(cpu);
    if (restricted) {
      storeStatusFlags(cpu.memory.i32, cpu.base, image);
      cpu.set32(S.RFLAGS, (poppedVirtualFlags(cpu, image) & ~0x8d5) | 2);
    } else setReturnFlags(cpu, image, w, cpu.get32(S.CPL));
    set8086Segment(cpu, SEG.CS, cs);
    return finish(cpu, ip);
  }
  if (flagsNow & RFLAGS.NT) {
    if (isLongMode(cpu)) cpu.raise(VECTOR.GP, 0);
    const link = cpu.access.read(cpu.get32(S.SEGBASE + SEG.TR * 8), 0, 2, IMPLICIT);
    return switchTaskFromInstruction(cpu, link, "return");
  }
  const cpl = cpu.get32(S.CPL);
  stack.setCurrent(cpu);
  const ip = stack.peek(cpu, 0, size),
    cs = stack.peek(cpu, 1, size) & 0xffff,
    image = stack.peek(cpu, 2, size);
  if (w === 32 && (image & RFLAGS.VM) && cpl === 0 && !isLongMode(cpu)) {
    return returnToVirtual8086(cpu, ip, cs, image);
  }
  checkReturnCode(cpu, cs, cpl);
  return completeReturn(cpu, size, 3, 0, cs, ip, cpl, image);
}

/** IRET from CPL 0 to virtual-8086 mode: nine doublewords in all. */
function returnToVirtual8086(cpu: Cpu, ip: number, cs: number, image: number): number {
  const rest: number[] = [];
  for (let i = 3; i < 9; i++) rest.push(stack.peek(cpu, i, 4));
  if (ip > 0xffff) cpu.raise(VECTOR.GP, 0);
  const [sp = 0, ss = 0, es = 0, ds = 0, fs = 0, gs = 0] = rest;
  setReturnFlags(cpu, image, 32, 0);
  cpu.set32(S.RFLAGS, cpu.get32(S.RFLAGS) | RFLAGS.VM);
  cpu.set32(S.CPL, 3);
  setVirtual8086Segment(cpu, SEG.CS, cs);
  setVirtual8086Segment(cpu, SEG.SS, ss & 0xffff);
  setVirtual8086Segment(cpu, SEG.ES, es & 0xffff);
  setVirtual8086Segment(cpu, SEG.DS, ds & 0xffff);
  setVirtual8086Segment(cpu, SEG.FS, fs & 0xffff);
  setVirtual8086Segment(cpu, SEG.GS, gs & 0xffff);
  cpu.set64Halves(RSP, sp, 0);
  return finish(cpu, ip);
}

/**
 * The rest of a far return outside 64-bit mode; `code` and `stack` are read.
 *
 * @param items Items popped so far.
 * @param release Bytes that RET n releases from both stacks.
 * @param image RFLAGS image of an IRET; undefined for RET.
 */
function completeReturn(
  cpu: Cpu,
  size: 2 | 4,
  items: number,
  release: number,
  cs: number,
  ip: number,
  cpl: number,
  image: number | undefined,
): number {
  const rpl = cs & 3;
  if (rpl === cpl) {
    checkOffset(cpu, code, ip, 0);
    markAccessed(cpu, code);
    stack.pointer = stack.at(items * size + release);
    if (image !== undefined) setReturnFlags(cpu, image, size * 8, cpl);
    stack.commit(cpu);
    setCodeSegment(cpu, cs, code, rpl);
    return finish(cpu, ip);
  }
  const sp = stack.peek(cpu, items, size, release);
  const ss = stack.peek(cpu, items + 1, size, release) & 0xffff;
  const hasStack = checkReturnStack(cpu, ss, rpl);
  checkOffset(cpu, code, ip, 0);
  markAccessed(cpu, code);
  if (hasStack) markAccessed(cpu, stackDescriptor);
  if (image !== undefined) setReturnFlags(cpu, image, size * 8, cpl);
  setCodeSegment(cpu, cs, code, rpl);
  if (hasStack) setFromDescriptor(cpu, SEG.SS, ss, stackDescriptor);
  else setNull(cpu, SEG.SS, ss);
  stack.setDescriptor(stackDescriptor, sp + release);
  if (hasStack) stack.commit(cpu);
  else cpu.set64Halves(RSP, sp + release, 0);
  dropPrivilegedSegments(cpu, rpl);
  return finish(cpu, ip);
}

function finish(cpu: Cpu, ip: number): number {
  cpu.set64Halves(S.RIP, ip, 0);
  updateCodeAndStackMode(cpu);
  updateTlbContext(cpu);
  return afterTransfer(cpu);
}

/** Far RET in 64-bit mode. */
function farReturnLong(cpu: Cpu, size: 2 | 4 | 8, release: number): number {
  const access = cpu.access, cpl = cpu.get32(S.CPL);
  const low = cpu.get32(RSP) | 0, high = cpu.get32(RSP + 4) | 0;
  const item = (bytes: number): number => {
    const at = (low + bytes) | 0;
    return access.read(at, carry(at, low, high), size, STACK) | 0;
  };
  const ripLow = item(0), ripHigh = size === 8 ? access.high | 0 : 0;
  const cs = item(size) & 0xffff, rpl = cs & 3;
  checkReturnCode(cpu, cs, cpl);
  let newLow = (low + 2 * size + release) | 0, newHigh = carry(newLow, low, high);
  let ss = 0, hasStack = false;
  if (rpl !== cpl) {
    newLow = item(2 * size + release);
    newHigh = size === 8 ? access.high | 0 : 0;
    ss = item(3 * size + release) & 0xffff;
    hasStack = checkReturnStack(cpu, ss, rpl);
    const top = (newLow + release) | 0;
    newHigh = carry(top, newLow, newHigh);
    newLow = top;
  }
  checkOffset(cpu, code, ripLow, ripHigh);
  markAccessed(cpu, code);
  if (hasStack) markAccessed(cpu, stackDescriptor);
  setCodeSegment(cpu, cs, code, rpl);
  cpu.set64Halves(RSP, newLow, newHigh);
  if (rpl !== cpl) {
    if (hasStack) setFromDescriptor(cpu, SEG.SS, ss, stackDescriptor);
    else setNull(cpu, SEG.SS, ss);
    dropPrivilegedSegments(cpu, rpl);
  }
  cpu.set64Halves(S.RIP, ripLow, ripHigh);
  updateCodeAndStackMode(cpu);
  updateTlbContext(cpu);
  return afterTransfer(cpu);
}

/** Far RET outside 64-bit mode. */
function farReturn(cpu: Cpu, size: 2 | 4, release: number): number {
  stack.setCurrent(cpu);
  const ip = stack.peek(cpu, 0, size), cs = stack.peek(cpu, 1, size) & 0xffff;
  if (!isProtected(cpu) || isVirtual8086(cpu)) {
    if (ip > cpu.segLimit(SEG.CS)) cpu.raise(VECTOR.GP, 0);
    stack.pointer = stack.at(2 * size + release);
    stack.commit(cpu);
    set8086Segment(cpu, SEG.CS, cs);
  } else {
    const cpl = cpu.get32(S.CPL);
    checkReturnCode(cpu, cs, cpl);
    return completeReturn(cpu, size, 2, release, cs, ip, cpl, undefined);
  }
  return finish(cpu, ip);
}

/**
 * IRET in VMX non-root operation unblocks NMIs (virtual ones with "virtual NMIs"; none with "NMI exiting" alone) before it does anything
 * that can fault; a VM exit on the way says so.
 */
function guestIret(cpu: Cpu, w: number): number {
  const pin = cpu.get32(S.VMX_PIN), blocking = cpu.get32(S.BLOCKING);
  if (blocking & BLOCKED_BY_NMI && (!(pin & PIN.NMI) || pin & PIN.VIRTUAL_NMIS)) {
    cpu.set32(S.BLOCKING, blocking & ~BLOCKED_BY_NMI);
    cpu.set32(S.VMX_UNBLOCKED, 1);
  }
  const exit = cpu.is64 ? returnLong(cpu, (w >>> 3) as 2 | 4 | 8) : returnFromEvent(cpu, w as 16 | 32);
  cpu.set32(S.VMX_UNBLOCKED, 0);
  return exit;
}

/** Procedures of this file. */
export const returnProcedures: Procedures = {
  /** (operand size): IRET, IRETD, IRETQ. */
  iret(cpu) {
    const w = cpu.argLow(0);
    const blocking = (cpu.base + S.BLOCKING) >>> 2, i32 = cpu.memory.i32;
    if (i32[(cpu.base + S.VMX_MODE) >>> 2] === 2) return guestIret(cpu, w);
    const exit = cpu.is64 ? returnLong(cpu, (w >>> 3) as 2 | 4 | 8) : returnFromEvent(cpu, w as 16 | 32);
    i32[blocking]! &= ~BLOCKED_BY_NMI;
    return exit;
  },
  /** (operand size, bytes to release): far RET. */
  farReturn(cpu) {
    const size = cpu.argLow(0) >>> 3, release = cpu.argLow(1);
    return cpu.is64 ? farReturnLong(cpu, size as 2 | 4 | 8, release) : farReturn(cpu, size as 2 | 4, release);
  },
};
