/**
 * Event delivery: interrupts, exceptions and software interrupts through the IDT (or the real-mode vector table), and
 * what happens when that fails: double fault and shutdown.
 *
 * Room: `hw/sys/`; imports the processor, segments, stacks, tasks. SDM vol. 3A, "Interrupt and Exception Handling";
 * vol. 2A, "INT n". The path through a 64-bit gate allocates nothing.
 *
 * @module
 */
import { type Cpu, FAULT, type Procedures, VECTOR } from "../cpu.ts";
import * as state from "../state.ts";
import * as vmcs from "../vmcs.ts";
import { EXIT_VECTOR, REASON, requestExit } from "../vmx/contract.ts";
import * as controls from "../vmx/controls.ts";
import { completeExit, exitNow } from "../vmx/exit.ts";
import { F } from "../vmx/fields.ts";
import {
  AR,
  CR0,
  EFER,
  isCanonical,
  isVirtual8086,
  setSegment,
  updateCodeAndStackMode,
  updateTlbContext,
} from "./mode.ts";
import {
  checkStackSegment,
  Descriptor,
  IMPLICIT,
  isNull,
  markAccessed,
  readDescriptor,
  selectorCode,
  setCodeSegment,
  setCodeSegment64,
  setFromDescriptor,
  setNull,
  setRealSegment,
} from "./segments.ts";
import { TRACE } from "../trace.ts";
import { afterTransfer } from "./attention.ts";
import { noteDebugException, settleDebugException } from "./debug_status.ts";
import { quickWords } from "./quick.ts";
import { Stack } from "./stack.ts";
import { redirectInterrupt } from "./vme.ts";
import { switchTask, taskSwitches } from "./task.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const { EXIT_END, EXIT_FAULT, EXIT_RETRY, RFLAGS, S, SEG } = state;
const { EVENT } = controls;

/** What kind of event is delivered: decides RF, the EXT bit, the gate's privilege check and what counts for #DF. */
export type EventKind = "external" | "nmi" | "fault" | "trap" | "software" | "privilegedSoftware";

/** Vectors whose exceptions push an error code: 8, 10 … 14, 17, 21. */
const WITH_ERROR_CODE = (1 << 8) | (0x1f << 10) | (1 << 17) | (1 << 21);
/** Contributory exceptions: 0, 10 … 13, 21. */
const CONTRIBUTORY = 1 | (0xf << 10) | (1 << 21);
/** Page faults: 14, 20. */
const PAGE_FAULTS = (1 << 14) | (1 << 20);

/** ACTIVITY value of a processor that had a triple fault. */
export const ACTIVITY_SHUTDOWN = 2;

const gateCode = new Descriptor(), gateStack = new Descriptor();
const stack = new Stack();

/**
 * Delivers the fault in FAULTVECTOR and FAULTCODE; RIP is that of the faulting instruction.
 */
export function deliverFault(cpu: Cpu): void {
  if (cpu.get32(S.VMX_MODE) === 2) {
    deliverGuestFault(cpu);
    return;
  }
  cpu.set32(S.PENDINGDB, 0);
  deliverEvent(cpu, cpu.get32(S.FAULTVECTOR), "fault", cpu.get32(S.FAULTCODE) | 0);
}

/** The same in VMX non-root operation: the fault may be a VM exit that was asked for, or cause one. */
function deliverGuestFault(cpu: Cpu): void {
  const vector = cpu.get32(S.FAULTVECTOR), code = cpu.get32(S.FAULTCODE) | 0;
  if (vector === EXIT_VECTOR) completeExit(cpu);
  else if (!exceptionExits(cpu, vector, code, "fault")) {
    cpu.set32(S.PENDINGDB, 0);
    deliverEvent(cpu, vector, "fault", code);
    cpu.set32(S.VMX_UNBLOCKED, 0);
  }
}

/** Whether the error code of a page fault makes it match or not match (page-fault error-code mask and match). */
function pageFaultMatches(cpu: Cpu, code: number): boolean {
  return (code & vmcs.get32(cpu, F.PAGE_FAULT_ERROR_CODE_MASK)) ===
    vmcs.get32(cpu, F.PAGE_FAULT_ERROR_CODE_MATCH);
}

/**
 * Looks an exception of a guest up in the exception bitmap, and carries out the VM exit if there is one. If there is none, what waited for
 * that happens now: CR2 and DR6 are written.
 */
function exceptionExits(cpu: Cpu, vector: number, code: number, kind: EventKind): boolean {
  let exits = ((cpu.get32(S.VMX_EXCEPTIONS) >>> vector) & 1) === 1;
  if (vector === VECTOR.PF) exits = exits === pageFaultMatches(cpu, code);
  if (!exits) {
    if (vector === VECTOR.PF) cpu.set64(S.CR2, cpu.get64(S.VMX_LINEAR));
    else if (vector === VECTOR.DB) settleDebugException(cpu);
    return false;
  }
  // There are no error codes in real-address mode.
  const hasCode = isIn(vector, WITH_ERROR_CODE) && (cpu.get32(S.CR0) & CR0.PE) !== 0;
  let low = 0, high = 0, flags = cpu.rflags;
  if (vector === VECTOR.PF) {
    low = cpu.get32(S.VMX_LINEAR);
    high = cpu.get32(S.VMX_LINEAR + 4);
  } else if (vector === VECTOR.DB) low = cpu.get32(S.VMX_DEBUG);
  if (kind === "fault" && (vector !== VECTOR.DB || low & 0x2000)) flags |= RFLAGS.RF;
  cpu.set32(S.VMX_REASON, REASON.EXCEPTION_OR_NMI);
  cpu.set64Halves(S.VMX_QUALIFICATION, low, high);
  const type = EVENT.HARDWARE_EXCEPTION << EVENT.TYPE_SHIFT;
  completeExit(
    cpu,
    vector | type | (hasCode ? EVENT.DELIVER_CODE : 0) | EVENT.VALID,
    hasCode ? code : 0,
    flags,
  );
  return true;
}

/**
 * Delivers an event. RIP is what the handler's frame shall hold. Faults on the way are combined as the SDM says; the third one
 * shuts the processor down (ACTIVITY = 2). Never throws on account of the guest.
 *
 * @param errorCode Error code of a fault; −1 for none.
 */
export function deliverEvent(cpu: Cpu, vector: number, kind: EventKind, errorCode: number): void {
  const i32 = cpu.memory.i32, stepping = (cpu.base + S.STEPPING) >>> 2;
  const was = i32[stepping]!;
  i32[stepping] = 1;
  try {
    deliver(cpu, vector, kind, errorCode);
  } catch (e) {
    if (e !== FAULT) throw e;
    deliverAnother(cpu, vector, kind);
  }
  i32[stepping] = was;
  if (i32[(cpu.base + S.PENDINGDB) >>> 2]! & DR6_BT) deliverPendingDebug(cpu);
}

/** DR6.BT: the debug trap of a task switch. */
const DR6_BT = 0x8000;

/** Delivers the debug trap whose DR6 bits wait in PENDINGDB, if there are any. */
export function deliverPendingDebug(cpu: Cpu): void {
  const pending = cpu.get32(S.PENDINGDB);
  if (pending === 0) return;
  cpu.set32(S.PENDINGDB, 0);
  noteDebugException(cpu, pending);
  if (cpu.get32(S.VMX_MODE) === 2 && exceptionExits(cpu, VECTOR.DB, -1, "trap")) return;
  deliverEvent(cpu, VECTOR.DB, "trap", -1);
}

/**
 * A stack that #AC refuses raises #AC in the delivery of #AC, and so on: benign exceptions never make a double fault, and silicon is stuck
 * for good. Here the attempt is given up after this many, with nothing delivered: the instruction comes again, so that time passes.
 */
const DELIVERIES_MAX = 16;

/** Delivering `vector` raised a fault: delivers that, or a double fault, or shuts down. In VMX non-root operation each step may be a VM exit. */
function deliverAnother(cpu: Cpu, vector: number, kind: EventKind): void {
  let first = kind === "fault" || kind === "trap" ? vector : -1;
  const guest = cpu.get32(S.VMX_MODE) === 2;
  for (let tries = 0; tries < DELIVERIES_MAX; tries++) {
    let second = cpu.get32(S.FAULTVECTOR), code = cpu.get32(S.FAULTCODE) | 0;
    if (second === EXIT_VECTOR) {
      completeExit(cpu);
      return;
    }
    if (guest && exceptionExits(cpu, second, code, "fault")) return;
    const serious = isIn(second, CONTRIBUTORY) || isIn(second, PAGE_FAULTS);
    if (first === VECTOR.DF && serious) {
      if (guest) exitNow(cpu, REASON.TRIPLE_FAULT);
      else cpu.set32(S.ACTIVITY, ACTIVITY_SHUTDOWN);
      return;
    }
    if (
      (isIn(first, CONTRIBUTORY) && isIn(second, CONTRIBUTORY)) || (isIn(first, PAGE_FAULTS) && serious)
    ) {
      second = VECTOR.DF;
      code = 0;
      if (guest) {
        // The events that make a double fault are not told with the exit that it causes.
        cpu.set32(S.VMX_VECTORING, 0);
        if (exceptionExits(cpu, VECTOR.DF, 0, "fault")) return;
      }
    }
    first = second;
    try {
      deliver(cpu, second, "fault", code);
      return;
    } catch (e) {
      if (e !== FAULT) throw e;
    }
  }
}

function isIn(vector: number, set: number): boolean {
  return vector >= 0 && vector < 32 && ((set >>> vector) & 1) !== 0;
}

/** A guest's event is being delivered: what a VM exit on the way says of it. */
function noteDelivery(cpu: Cpu, information: number, code: number, flags: number, injected: boolean): void {
  cpu.set32(S.VMX_VECTORING, information);
  cpu.set32(S.VMX_VECTORING_CODE, code);
  cpu.set32(S.VMX_VECTORING_FLAGS, flags);
  if (!injected) cpu.set32(S.VMX_VECTORING_LENGTH, cpu.get32(S.ILEN));
}

/** Interruption type of each kind of event. */
const TYPES = {
  external: EVENT.EXTERNAL_INTERRUPT,
  nmi: EVENT.NMI,
  fault: EVENT.HARDWARE_EXCEPTION,
  trap: EVENT.HARDWARE_EXCEPTION,
  software: EVENT.SOFTWARE_INTERRUPT,
  privilegedSoftware: EVENT.PRIVILEGED_SOFTWARE_EXCEPTION,
} as const;

/**
 * Delivers one event; raises what its delivery raises.
 *
 * @param type Interruption type, for a VM exit on the way; −1 for that of the kind.
 * @param injection Interruption information of VM entry where it is that that delivers, else 0.
 */
function deliver(
  cpu: Cpu,
  vector: number,
  kind: EventKind,
  errorCode: number,
  type = -1,
  injection = 0,
): void {
  const i32 = cpu.memory.i32, at = cpu.base >>> 2;
  let flags = cpu.rflags;
  const hasCode = injection !== 0
    ? (injection & EVENT.DELIVER_CODE) !== 0
    : kind === "fault" && isIn(vector, WITH_ERROR_CODE) && (i32[at + (S.CR0 >>> 2)]! & CR0.PE) !== 0;
  const code = errorCode < 0 ? 0 : errorCode;
  const guest = i32[at + (S.VMX_MODE >>> 2)] === 2;
  // An injected event pushes RFLAGS as they are.
  if (injection === 0 && kind === "fault") {
    // Not for an instruction breakpoint; the general-detect fault is told by DR6.BD.
    if (vector !== VECTOR.DB || (i32[at + ((S.DR + 6 * 8) >>> 2)]! & 0x2000)) flags |= RFLAGS.RF;
  } else if (injection === 0 && (kind === "software" || kind === "privilegedSoftware")) flags &= ~RFLAGS.RF;
  if (guest) {
    const information = vector | ((type < 0 ? TYPES[kind] : type) << EVENT.TYPE_SHIFT) | EVENT.VALID;
    noteDelivery(cpu, hasCode ? information | EVENT.DELIVER_CODE : information, code, flags, injection !== 0);
  }
  if (cpu.trace.wants & (TRACE.exception | TRACE.interrupt)) tell(cpu, vector, kind, hasCode ? code : -1);

  if (i32[at + (S.EFER >>> 2)]! & EFER.LMA) deliverLong(cpu, vector, kind, flags, hasCode, code);
  else if (i32[at + (S.CR0 >>> 2)]! & CR0.PE) deliverProtected(cpu, vector, kind, flags, hasCode, code);
  else deliverReal(cpu, vector, kind, flags);

  // The event is delivered.
  const blocking = at + (S.BLOCKING >>> 2);
  i32[blocking] = (i32[blocking]! & ~3) | (kind === "nmi" ? 8 : 0);
  i32[at + (S.ACTIVITY >>> 2)] = 0;
  if (guest) i32[at + (S.VMX_VECTORING >>> 2)] = 0;
  if (vector === VECTOR.DB && kind !== "software" && injection === 0) {
    i32[at + ((S.DR + 7 * 8) >>> 2)]! &= ~0x2000;
    i32[at + (S.DEBUGCTL >>> 2)] = 0;
  }
}

/** Tells the listeners that the delivery of an event begins; if it faults, that fault is told next. */
function tell(cpu: Cpu, vector: number, kind: EventKind, errorCode: number): void {
  const { trace } = cpu;
  const base = { cpu: cpu.id, time: cpu.now(), vector, rip: cpu.rip };
  if (kind === "fault" || kind === "trap") {
    if (trace.wants & TRACE.exception) trace.emit({ kind: "exception", ...base, errorCode });
  } else if (trace.wants & TRACE.interrupt) {
    const source = kind === "external" || kind === "nmi" ? kind : "software";
    trace.emit({ kind: "interrupt", ...base, source });
  }
}

// ---- IA-32e mode

function deliverLong(
  cpu: Cpu,
  vector: number,
  kind: EventKind,
  flags: number,
  hasCode: boolean,
  code: number,
): void {
  const i32 = cpu.memory.i32, at = cpu.base >>> 2, access = cpu.access;
  const ext = kind === "software" ? 0 : 1;
  const idtCode = vector * 8 + 2 + ext;

  // The gate.
  if (vector * 16 + 15 > (i32[at + ((S.IDTR + 8) >>> 2)]! & 0xffff)) cpu.raise(VECTOR.GP, idtCode);
  const idt = i32[at + (S.IDTR >>> 2)]!;
  const gateLow = (idt + vector * 16) | 0;
  const gateHigh = i32[at + (S.IDTR >>> 2) + 1]! + ((gateLow >>> 0) < (idt >>> 0) ? 1 : 0);
  let word0: number, word1: number, targetHigh: number;
  const gateWords = quickWords(cpu, gateLow, gateHigh, 16, false, true);
  if (gateWords !== 0) {
    word0 = i32[gateWords]!;
    word1 = i32[gateWords + 1]!;
    targetHigh = i32[gateWords + 2]!;
  } else {
    word0 = access.read(gateLow, gateHigh, 8, IMPLICIT) | 0;
    word1 = access.high | 0;
    const upperLow = (gateLow + 8) | 0;
    targetHigh = access.read(upperLow, gateHigh + ((upperLow >>> 0) < 8 ? 1 : 0), 4, IMPLICIT) | 0;
  }
  const type = (word1 >>> 8) & 0x1f;
  if (type !== 0xe && type !== 0xf) cpu.raise(VECTOR.GP, idtCode);
  const cpl = i32[at + (S.CPL >>> 2)]!;
  if (kind === "software" && ((word1 >>> 13) & 3) < cpl) cpu.raise(VECTOR.GP, idtCode);
  if ((word1 & 0x8000) === 0) cpu.raise(VECTOR.NP, idtCode);

  // The code segment.
  const selector = word0 >>> 16, cs = gateCode;
  if (isNull(selector)) cpu.raise(VECTOR.GP, ext);
  readDescriptor(cpu, selector, cs, VECTOR.GP, ext);
  if (!cs.isCode || cs.dpl > cpl || !cs.isLong || cs.isBig) {
    cpu.raise(VECTOR.GP, selectorCode(selector) | ext);
  }
  if (!cs.isPresent) cpu.raise(VECTOR.NP, selectorCode(selector) | ext);
  const newCpl = cs.isConforming ? cpl : cs.dpl;

  // The stack.
  const ist = word1 & 7;
  const rsp = at + ((S.GPR + 4 * 8) >>> 2);
  const oldLow = i32[rsp]!, oldHigh = i32[rsp + 1]!;
  let low = oldLow, high = oldHigh;
  if (ist !== 0 || newCpl < cpl) {
    const offset = ist !== 0 ? 28 + ist * 8 : 4 + newCpl * 8;
    if (offset + 7 > (i32[at + (S.SEGLIMIT >>> 2) + SEG.TR]! >>> 0)) {
      cpu.raise(VECTOR.TS, selectorCode(i32[at + (S.SEGSEL >>> 2) + SEG.TR]!) | ext);
    }
    const tss = i32[at + (S.SEGBASE >>> 2) + SEG.TR * 2]!;
    const tssLow = (tss + offset) | 0;
    const tssHigh = i32[at + (S.SEGBASE >>> 2) + SEG.TR * 2 + 1]! +
      ((tssLow >>> 0) < (tss >>> 0) ? 1 : 0);
    const tssWords = quickWords(cpu, tssLow, tssHigh, 8, false, true);
    if (tssWords !== 0) {
      low = i32[tssWords]!;
      high = i32[tssWords + 1]!;
    } else {
      low = access.read(tssLow, tssHigh, 8, IMPLICIT) | 0;
      high = access.high | 0;
    }
  }
  low &= ~15;
  const bytes = hasCode ? 48 : 40;
  const frameLow = (low - bytes) | 0;
  const frameHigh = (high - ((low >>> 0) < bytes ? 1 : 0)) | 0;
  if (!isCanonical(cpu, frameHigh) || !isCanonical(cpu, high)) cpu.raise(VECTOR.SS, ext);
  if (!isCanonical(cpu, targetHigh)) cpu.raise(VECTOR.GP, ext);
  markAccessed(cpu, cs);

  // The frame: in place where the stack is at hand, else gathered and written at once.
  const inner = newCpl < cpl;
  const stackWords = quickWords(cpu, frameLow, frameHigh, bytes, true, inner);
  const frame = stackWords !== 0 ? stackWords : at + (S.FRAME >>> 2);
  let f = frame;
  if (hasCode) {
    i32[f] = code;
    i32[f + 1] = 0;
    f += 2;
  }
  i32[f] = i32[at + (S.RIP >>> 2)]!;
  i32[f + 1] = i32[at + (S.RIP >>> 2) + 1]!;
  i32[f + 2] = i32[at + (S.SEGSEL >>> 2) + SEG.CS]!;
  i32[f + 3] = 0;
  i32[f + 4] = flags;
  i32[f + 5] = 0;
  i32[f + 6] = oldLow;
  i32[f + 7] = oldHigh;
  i32[f + 8] = i32[at + (S.SEGSEL >>> 2) + SEG.SS]!;
  i32[f + 9] = 0;
  if (stackWords === 0) {
    const how = inner ? IMPLICIT : 0;
    if ((frameLow & 0xfff) + bytes > 4096) {
      access.writeBytes(frameLow, frameHigh, cpu.base + S.FRAME, bytes, how);
    } else {
      // In one page the first write can fault, the others can't.
      for (let i = 0, word = frame; i < bytes; i += 8, word += 2) {
        access.write(frameLow + i, frameHigh, 8, i32[word]!, i32[word + 1]!, how);
      }
    }
  }

  // Nothing can fault any more.
  i32[rsp] = frameLow;
  i32[rsp + 1] = frameHigh;
  i32[at + (S.RIP >>> 2)] = (word0 & 0xffff) | (word1 & 0xffff_0000);
  i32[at + (S.RIP >>> 2) + 1] = targetHigh;
  setCodeSegment64(cpu, selector, cs, newCpl);
  let cleared = RFLAGS.TF | RFLAGS.NT | RFLAGS.RF | RFLAGS.VM;
  if (type === 0xe) cleared |= RFLAGS.IF;
  i32[at + (S.RFLAGS >>> 2)]! &= ~cleared;
  // The fast-TLB context follows CPL alone: AC stays.
  if (newCpl !== cpl) {
    setNull(cpu, SEG.SS, newCpl);
    updateTlbContext(cpu);
  }
}

// ---- protected mode without IA-32e, virtual-8086 mode

function deliverProtected(
  cpu: Cpu,
  vector: number,
  kind: EventKind,
  flags: number,
  hasCode: boolean,
  code: number,
): void {
  const access = cpu.access, ext = kind === "software" ? 0 : 1, idtCode = vector * 8 + 2 + ext;
  if (vector * 8 + 7 > (cpu.get32(S.IDTR + 8) & 0xffff)) cpu.raise(VECTOR.GP, idtCode);
  const word0 = access.read((cpu.get32(S.IDTR) + vector * 8) >>> 0, 0, 8, IMPLICIT) | 0;
  const word1 = access.high | 0;
  const type = (word1 >>> 8) & 0x1f;
  const isTaskGate = type === 5;
  if (!isTaskGate && (type & 0x16) !== 6) cpu.raise(VECTOR.GP, idtCode);
  const cpl = cpu.get32(S.CPL);
  if (kind === "software" && ((word1 >>> 13) & 3) < cpl) cpu.raise(VECTOR.GP, idtCode);
  if ((word1 & 0x8000) === 0) cpu.raise(VECTOR.NP, idtCode);
  const selector = word0 >>> 16;
  if (isTaskGate) {
    switchTask(cpu, selector, "gate", ext, flags, hasCode ? code : -1);
    return;
  }

  const cs = gateCode;
  if (isNull(selector)) cpu.raise(VECTOR.GP, ext);
  readDescriptor(cpu, selector, cs, VECTOR.GP, ext);
  if (!cs.isCode || cs.dpl > cpl) cpu.raise(VECTOR.GP, selectorCode(selector) | ext);
  if (!cs.isPresent) cpu.raise(VECTOR.NP, selectorCode(selector) | ext);
  const virtual = isVirtual8086(cpu);
  const newCpl = cs.isConforming ? cpl : cs.dpl;
  if (virtual && newCpl !== 0) cpu.raise(VECTOR.GP, selectorCode(selector) | ext);
  const wide = (type & 8) !== 0, size = wide ? 4 : 2;
  const target = wide ? ((word0 & 0xffff) | (word1 & 0xffff_0000)) >>> 0 : word0 & 0xffff;

  const values: number[] = [];
  const inner = newCpl < cpl;
  let ssSelector = 0;
  if (inner) {
    ssSelector = readTssStack(cpu, newCpl, ext, gateStack, stack);
    if (virtual) {
      for (const seg of [SEG.GS, SEG.FS, SEG.DS, SEG.ES]) values.push(cpu.segSel(seg));
    }
    values.push(cpu.segSel(SEG.SS), cpu.get32(S.GPR + 4 * 8));
  } else stack.setCurrent(cpu);
  values.push(flags, cpu.segSel(SEG.CS), cpu.get32(S.RIP));
  if (hasCode) values.push(code);
  if (target > cs.limit) cpu.raise(VECTOR.GP, ext);
  markAccessed(cpu, cs);
  if (inner) markAccessed(cpu, gateStack);
  stack.push(cpu, values, size, inner ? selectorCode(ssSelector) | ext : ext, inner ? IMPLICIT : 0);

  const rflags = cpu.get32(S.RFLAGS);
  let cleared = RFLAGS.TF | RFLAGS.NT | RFLAGS.RF | RFLAGS.VM;
  if ((type & 1) === 0) cleared |= RFLAGS.IF;
  cpu.set32(S.RFLAGS, rflags & ~cleared);
  setCodeSegment(cpu, selector, cs, newCpl);
  if (inner) setFromDescriptor(cpu, SEG.SS, ssSelector, gateStack);
  if (virtual) { for (const seg of [SEG.GS, SEG.FS, SEG.DS, SEG.ES]) setNull(cpu, seg, 0); }
  stack.commit(cpu);
  cpu.set64Halves(S.RIP, target, 0);
  updateCodeAndStackMode(cpu);
  updateTlbContext(cpu);
}

/**
 * The stack of privilege `cpl` in a 16- or 32-bit TSS: checks its segment into `d` and leaves it in `into`.
 *
 * @returns its selector.
 */
export function readTssStack(cpu: Cpu, cpl: number, ext: number, d: Descriptor, into: Stack): number {
  const access = cpu.access;
  const wide = (cpu.segAr(SEG.TR) & 8) !== 0;
  const tss = cpu.get32(S.SEGBASE + SEG.TR * 8);
  const offset = wide ? 4 + cpl * 8 : 2 + cpl * 4;
  const tsCode = selectorCode(cpu.segSel(SEG.TR)) | ext;
  if (offset + (wide ? 5 : 3) > cpu.segLimit(SEG.TR)) cpu.raise(VECTOR.TS, tsCode);
  const pointer = access.read((tss + offset) >>> 0, 0, wide ? 4 : 2, IMPLICIT);
  const selector = access.read((tss + offset + (wide ? 4 : 2)) >>> 0, 0, 2, IMPLICIT);
  if (isNull(selector)) cpu.raise(VECTOR.TS, ext);
  checkStackSegment(cpu, selector, cpl, d, VECTOR.TS, ext);
  into.setDescriptor(d, pointer);
  return selector;
}

// ---- real mode

function deliverReal(cpu: Cpu, vector: number, kind: EventKind, flags: number): void {
  if (vector * 4 + 3 > (cpu.get32(S.IDTR + 8) & 0xffff)) {
    cpu.raise(VECTOR.GP, vector * 8 + 2 + (kind === "software" ? 0 : 1));
  }
  const entry = cpu.access.read((cpu.get32(S.IDTR) + vector * 4) >>> 0, 0, 4, IMPLICIT);
  stack.setCurrent(cpu).push(cpu, [flags & 0xffff, cpu.segSel(SEG.CS), cpu.get32(S.RIP)], 2, 0, 0);
  stack.commit(cpu);
  cpu.set32(S.RFLAGS, cpu.get32(S.RFLAGS) & ~(RFLAGS.IF | RFLAGS.TF | RFLAGS.AC | RFLAGS.RF));
  setRealSegment(cpu, SEG.CS, entry >>> 16);
  cpu.set64Halves(S.RIP, entry & 0xffff, 0);
  updateCodeAndStackMode(cpu);
  updateTlbContext(cpu);
}

// ---- injection by VM entry

/**
 * Delivers the event that VM entry injects; RIP is as loaded. Never intercepted itself; what its delivery raises is handled as always.
 *
 * @param information VM-entry interruption information: valid, checked, and not of type 7.
 * @param code Error code, used if the information says so.
 * @param length Instruction length of a software interrupt or exception.
 */
export function injectEvent(cpu: Cpu, information: number, code: number, length: number): void {
  const vector = information & 0xff, type = (information >>> EVENT.TYPE_SHIFT) & 7;
  const kind: EventKind = type === EVENT.EXTERNAL_INTERRUPT
    ? "external"
    : type === EVENT.NMI
    ? "nmi"
    : type === EVENT.HARDWARE_EXCEPTION
    ? "fault"
    : type === EVENT.PRIVILEGED_SOFTWARE_EXCEPTION
    ? "privilegedSoftware"
    : "software";
  const stepping = cpu.get32(S.STEPPING), ripLow = cpu.get32(S.RIP), ripHigh = cpu.get32(S.RIP + 4);
  cpu.set32(S.STEPPING, 1);
  cpu.set32(S.VMX_VECTORING_LENGTH, length);
  if (type >= EVENT.SOFTWARE_INTERRUPT) {
    // What is pushed is the address behind the instruction that the event stands for.
    const low = (ripLow + length) >>> 0;
    cpu.set64Halves(S.RIP, low, cpu.is64 && low < ripLow ? ripHigh + 1 : ripHigh);
  }
  try {
    if (type !== EVENT.SOFTWARE_INTERRUPT || !redirectInterrupt(cpu, vector)) {
      deliver(cpu, vector, kind, information & EVENT.DELIVER_CODE ? code & 0xffff : -1, type, information);
    }
  } catch (e) {
    if (e !== FAULT) throw e;
    cpu.set64Halves(S.RIP, ripLow, ripHigh);
    deliverAnother(cpu, vector, kind);
  }
  cpu.set32(S.STEPPING, stepping);
}

// ---- INT n, INT3, INTO, INT1

/**
 * Delivers a software event from inside an instruction. Its faults are the instruction's, unless a task switch has taken place.
 *
 * @param type Interruption type.
 */
function software(
  cpu: Cpu,
  vector: number,
  kind: "software" | "privilegedSoftware",
  type: number = TYPES[kind],
): number {
  const begun = taskSwitches(), traced = cpu.get32(S.RFLAGS) & RFLAGS.TF;
  // INT n is no exception; INT3, INTO and INT1 are.
  if (cpu.get32(S.VMX_MODE) === 2 && type !== EVENT.SOFTWARE_INTERRUPT) {
    if ((cpu.get32(S.VMX_EXCEPTIONS) >>> vector) & 1) {
      requestExit(cpu, REASON.EXCEPTION_OR_NMI);
      cpu.set32(S.VMX_INTERRUPTION, vector | (type << EVENT.TYPE_SHIFT) | EVENT.VALID);
      return EXIT_FAULT;
    }
  }
  try {
    deliver(cpu, vector, kind, -1, type);
  } catch (e) {
    // The instruction comes again, and delivers again.
    if (e === FAULT && cpu.get32(S.EXIT) === EXIT_RETRY) cpu.set32(S.VMX_VECTORING, 0);
    if (e !== FAULT || taskSwitches() === begun) throw e;
    deliverFault(cpu);
    return EXIT_END;
  }
  // Delivery clears TF, and there is no trap for the INT itself.
  if (traced) cpu.set32(S.STEPFLAGS, cpu.get32(S.STEPFLAGS) | RFLAGS.TF);
  return taskSwitches() === begun ? afterTransfer(cpu) : afterTaskSwitch(cpu);
}

/** What follows an instruction that switched tasks: the debug trap of the new TSS, if it asks for one. */
export function afterTaskSwitch(cpu: Cpu): number {
  if (cpu.get32(S.PENDINGDB) & DR6_BT) deliverPendingDebug(cpu);
  return EXIT_END;
}

/** Access rights of the flat segments that SYSCALL and friends load. */
const FLAT_DATA = 0x3 | AR.S | AR.P | AR.DB | AR.G;

/** Loads SS with a flat writable data segment of privilege `cpl`. */
export function setFlatStack(cpu: Cpu, selector: number, cpl: number): void {
  setSegment(cpu, SEG.SS, selector, 0, 0, -1, FLAT_DATA | (cpl << 5));
}

/** Procedures of this file. */
export const eventProcedures: Procedures = {
  /** (vector): INT n. */
  int(cpu) {
    const virtual = (cpu.get32(S.RFLAGS) & RFLAGS.VM) !== 0;
    if (virtual && redirectInterrupt(cpu, cpu.argLow(0))) return afterTransfer(cpu);
    return software(cpu, cpu.argLow(0), "software");
  },
  /** INT3 and INTO, which do not look at IOPL: (vector). */
  intFixed(cpu) {
    return software(cpu, cpu.argLow(0), "software", EVENT.SOFTWARE_EXCEPTION);
  },
  /** INT1. */
  int1(cpu) {
    return software(cpu, VECTOR.DB, "privilegedSoftware");
  },
};
