/**
 * Far JMP and CALL: to code segments, through call gates with their stack switches, to tasks.
 *
 * Room: `hw/sys/`; imports the processor, segments, stacks, tasks. SDM vol. 2, "JMP", "CALL"; vol. 3A, "Privilege Level Checking When
 * Transferring Program Control". Returns are in return.ts.
 *
 * @module
 */
import { type Cpu, FAULT, type Procedures, VECTOR } from "../cpu.ts";
import { EXIT_END, S, SEG } from "../state.ts";
import { afterTransfer } from "./attention.ts";
import { afterTaskSwitch, deliverFault, readTssStack } from "./event.ts";
import {
  isCanonical,
  isLongMode,
  isRealOrVirtual8086,
  updateCodeAndStackMode,
  updateTlbContext,
} from "./mode.ts";
import {
  Descriptor,
  IMPLICIT,
  isNull,
  markAccessed,
  readDescriptor,
  readUpperDescriptor,
  selectorCode,
  set8086Segment,
  setCodeSegment,
  setFromDescriptor,
  setNull,
} from "./segments.ts";
import { pushed, pushLong, Stack } from "./stack.ts";
import { switchTask, type TaskSource, taskSwitches } from "./task.ts";

const gate = new Descriptor(), code = new Descriptor(), inner = new Descriptor();
const stack = new Stack(), innerStack = new Stack();

/** System descriptor types. */
const TYPE = { TSS16: 1, CALL_GATE16: 4, TASK_GATE: 5, TSS32: 9, CALL_GATE: 12 } as const;

/** #GP(0) unless offset `low`:`high` can be executed in the segment `d`. */
export function checkOffset(cpu: Cpu, d: Descriptor, low: number, high: number): void {
  const ok = isLongMode(cpu) && d.isLong ? isCanonical(cpu, high) : high === 0 && low >>> 0 <= d.limit;
  if (!ok) cpu.raise(VECTOR.GP, 0);
}

/** True for the descriptor that IA-32e mode does not allow: L and D both set. */
export function isLongAndBig(cpu: Cpu, d: Descriptor): boolean {
  return d.isLong && d.isBig && isLongMode(cpu);
}

/** A task switch from inside an instruction: faults of the new task are delivered in it, not in the instruction. */
export function switchTaskFromInstruction(cpu: Cpu, selector: number, source: TaskSource): number {
  const begun = taskSwitches();
  try {
    switchTask(cpu, selector, source, 0, cpu.rflags, -1);
  } catch (e) {
    if (e !== FAULT || taskSwitches() === begun) throw e;
    deliverFault(cpu);
    return EXIT_END;
  }
  return afterTaskSwitch(cpu);
}

/** Far JMP (`call` false) or CALL to selector:offset with operand size `w`. RIP is the return address. */
function transfer(cpu: Cpu, selector: number, low: number, high: number, w: number, call: boolean): number {
  if (w === 16) low &= 0xffff;
  if (w !== 64) high = 0;
  if (isRealOrVirtual8086(cpu)) {
    // The limit of CS is not changed by the load.
    const limit = cpu.get32(S.SEGLIMIT + SEG.CS * 4);
    if (low >>> 0 > limit) cpu.raise(VECTOR.GP, 0);
    if (call) pushReturn(cpu, w);
    set8086Segment(cpu, SEG.CS, selector);
    return finish(cpu, low, 0);
  }
  if (isNull(selector)) cpu.raise(VECTOR.GP, 0);
  const error = selectorCode(selector), cpl = cpu.get32(S.CPL), rpl = selector & 3;
  readDescriptor(cpu, selector, gate);
  if (gate.isSegment) {
    const d = gate;
    if (!d.isCode || isLongAndBig(cpu, d)) cpu.raise(VECTOR.GP, error);
    if (d.isConforming ? d.dpl > cpl : rpl > cpl || d.dpl !== cpl) cpu.raise(VECTOR.GP, error);
    if (!d.isPresent) cpu.raise(VECTOR.NP, error);
    checkOffset(cpu, d, low, high);
    markAccessed(cpu, d);
    if (call) pushReturn(cpu, w);
    setCodeSegment(cpu, selector, d, cpl);
    return finish(cpu, low, high);
  }

  const type = gate.type, long = isLongMode(cpu);
  const known = long
    ? type === TYPE.CALL_GATE
    : type === TYPE.CALL_GATE || type === TYPE.CALL_GATE16 || type === TYPE.TASK_GATE ||
      type === TYPE.TSS16 || type === TYPE.TSS32;
  if (!known || gate.dpl < cpl || rpl > gate.dpl) cpu.raise(VECTOR.GP, error);
  if (type === TYPE.TSS16 || type === TYPE.TSS32) {
    return switchTaskFromInstruction(cpu, selector, call ? "call" : "jump");
  }
  if (!gate.isPresent) cpu.raise(VECTOR.NP, error);
  if (type === TYPE.TASK_GATE) {
    return switchTaskFromInstruction(cpu, gate.low >>> 16, call ? "call" : "jump");
  }
  return throughCallGate(cpu, type, call);
}

/** Goes through the call gate in `gate`. */
function throughCallGate(cpu: Cpu, type: number, call: boolean): number {
  const long = isLongMode(cpu), cpl = cpu.get32(S.CPL);
  if (!readUpperDescriptor(cpu, gate)) cpu.raise(VECTOR.GP, selectorCode(gate.selector));
  const selector = gate.low >>> 16, error = selectorCode(selector);
  const low = type === TYPE.CALL_GATE16 ? gate.low & 0xffff : (gate.low & 0xffff) | (gate.high & 0xffff_0000);
  const high = long ? gate.upper : 0, parameters = gate.high & 31;
  if (isNull(selector)) cpu.raise(VECTOR.GP, 0);
  readDescriptor(cpu, selector, code);
  if (!code.isCode || code.dpl > cpl) cpu.raise(VECTOR.GP, error);
  if (!call && !code.isConforming && code.dpl !== cpl) cpu.raise(VECTOR.GP, error);
  if (long && (!code.isLong || code.isBig)) cpu.raise(VECTOR.GP, error);
  if (!code.isPresent) cpu.raise(VECTOR.NP, error);
  const newCpl = code.isConforming ? cpl : code.dpl;
  checkOffset(cpu, code, low, high);
  markAccessed(cpu, code);
  if (call) {
    if (newCpl === cpl) pushReturn(cpu, long ? 64 : type === TYPE.CALL_GATE16 ? 16 : 32);
    else if (long) switchToInnerLong(cpu, newCpl);
    else switchToInner(cpu, newCpl, type === TYPE.CALL_GATE16 ? 2 : 4, parameters);
  }
  setCodeSegment(cpu, selector, code, newCpl);
  if (newCpl !== cpl && long) setNull(cpu, SEG.SS, newCpl);
  return finish(cpu, low, high);
}

/** Pushes CS and RIP on the stack in use, `w` bits each. */
function pushReturn(cpu: Cpu, w: number): void {
  const cs = cpu.segSel(SEG.CS), size = (w >>> 3) as 2 | 4 | 8;
  if (cpu.is64) {
    const rsp = S.GPR + 4 * 8;
    const items = [cs, 0, cpu.get32(S.RIP), cpu.get32(S.RIP + 4)];
    pushLong(cpu, cpu.get32(rsp) | 0, cpu.get32(rsp + 4) | 0, items, size, 0, 0);
    cpu.set64Halves(rsp, pushed.low, pushed.high);
    return;
  }
  if (size === 8) {
    // A 64-bit call gate from compatibility mode at the same privilege: eight-byte items, and RSP is 64 bits wide from here.
    const rsp = S.GPR + 4 * 8;
    pushLong(cpu, cpu.get32(rsp) | 0, 0, [cs, 0, cpu.get32(S.RIP), 0], 8, 0, 0);
    cpu.set64Halves(rsp, pushed.low, pushed.high);
    return;
  }
  stack.setCurrent(cpu).push(cpu, [cs, cpu.get32(S.RIP)], size, 0, 0);
  stack.commit(cpu);
}

/** Stack switch of a 64-bit call gate: RSPn of the TSS, SS null. */
function switchToInnerLong(cpu: Cpu, cpl: number): void {
  const offset = 4 + cpl * 8;
  if (offset + 7 > cpu.segLimit(SEG.TR)) cpu.raise(VECTOR.TS, selectorCode(cpu.segSel(SEG.TR)));
  const base = cpu.get32(S.SEGBASE + SEG.TR * 8), tss = (base + offset) | 0;
  const tssHigh = (cpu.get32(S.SEGBASE + SEG.TR * 8 + 4) + (tss >>> 0 < base ? 1 : 0)) | 0;
  const low = cpu.access.read(tss, tssHigh, 8, IMPLICIT) | 0, high = cpu.access.high | 0;
  const rsp = S.GPR + 4 * 8;
  const items = [
    cpu.segSel(SEG.SS),
    0,
    cpu.get32(rsp),
    cpu.get32(rsp + 4),
    cpu.segSel(SEG.CS),
    0,
    cpu.get32(S.RIP),
    cpu.get32(S.RIP + 4),
  ];
  pushLong(cpu, low, high, items, 8, 0, IMPLICIT);
  cpu.set64Halves(rsp, pushed.low, pushed.high);
}

/** Stack switch of a 16- or 32-bit call gate, with its parameters copied. */
function switchToInner(cpu: Cpu, cpl: number, size: 2 | 4, parameters: number): void {
  const ss = readTssStack(cpu, cpl, 0, inner, innerStack);
  stack.setCurrent(cpu);
  const values = [cpu.segSel(SEG.SS), cpu.get32(S.GPR + 4 * 8)];
  for (let i = parameters - 1; i >= 0; i--) values.push(stack.peek(cpu, i, size));
  values.push(cpu.segSel(SEG.CS), cpu.get32(S.RIP));
  markAccessed(cpu, inner);
  innerStack.push(cpu, values, size, selectorCode(ss), IMPLICIT);
  setFromDescriptor(cpu, SEG.SS, ss, inner);
  innerStack.commit(cpu);
}

/** RIP and modes after CS has been loaded. */
function finish(cpu: Cpu, low: number, high: number): number {
  cpu.set64Halves(S.RIP, low, high);
  updateCodeAndStackMode(cpu);
  updateTlbContext(cpu);
  return afterTransfer(cpu);
}

/** Procedures of this file. */
export const transferProcedures: Procedures = {
  /** (selector, offset, operand size). */
  farJump(cpu) {
    return transfer(cpu, cpu.argLow(0) & 0xffff, cpu.argLow(1) | 0, cpu.argHigh(1) | 0, cpu.argLow(2), false);
  },
  /** (selector, offset, operand size). */
  farCall(cpu) {
    return transfer(cpu, cpu.argLow(0) & 0xffff, cpu.argLow(1) | 0, cpu.argHigh(1) | 0, cpu.argLow(2), true);
  },
};
