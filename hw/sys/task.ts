/**
 * Hardware task switching: JMP, CALL, IRET and interrupts through task gates, with 16- and 32-bit TSSs.
 *
 * Room: `hw/sys/`; imports the processor, segments, stacks, control registers. SDM vol. 3A, "Task Management". In IA-32e mode
 * there is none; the callers raise #GP before they come here.
 *
 * @module
 */
import { type Cpu, FAULT, VECTOR } from "../cpu.ts";
import { RFLAGS, S, SEG } from "../state.ts";
import { storeStatusFlags } from "../flags.ts";
import { REASON, requestExit } from "../vmx/contract.ts";
import { loadCr3, loadPdptes } from "./control_registers.ts";
import { AR, CR0, CR4, setSegment, updateCodeAndStackMode, updateMode, updateTlbContext } from "./mode.ts";
import {
  Descriptor,
  findDescriptor,
  IMPLICIT,
  isNull,
  markAccessed,
  selectorCode,
  setFromDescriptor,
  setNull,
  setVirtual8086Segment,
  writeDescriptorHigh,
} from "./segments.ts";
import { Stack } from "./stack.ts";

/** How a task switch comes about. "gate" is an interrupt or exception through a task gate. */
export type TaskSource = "jump" | "call" | "return" | "gate";

/** Offsets in a 32-bit TSS. */
const TSS32 = { CR3: 0x1c, EIP: 0x20, EFLAGS: 0x24, GPR: 0x28, SEGS: 0x48, LDT: 0x60, TRAP: 0x64 } as const;
/** Offsets in a 16-bit TSS. */
const TSS16 = { IP: 0x0e, FLAGS: 0x10, GPR: 0x12, SEGS: 0x22, LDT: 0x2a } as const;
/** Last byte that each kind must have. */
const TSS32_LIMIT = 0x67, TSS16_LIMIT = 0x2b;
const BUSY = 0x200;
/** RFLAGS bits that a TSS can set. */
const FLAGS_LOADED = 0x003f_7fd5;
const DR6_BT = 0x8000;
/** DR7: local enables, LE. */
const DR7_LOCAL = 0x155;

/** Bits 31:30 of the qualification of a task-switch exit. */
const EXIT_SOURCE: { readonly [source in TaskSource]: number } = { call: 0, return: 1, jump: 2, gate: 3 };

const target = new Descriptor(), outgoing = new Descriptor(), scratch = new Descriptor();
const stack = new Stack();
let switches = 0;

/** Number of task switches that have passed the point of no return, in all machines; only its changes mean something. */
export function taskSwitches(): number {
  return switches;
}

/**
 * Switches to the task whose TSS `selector` names. RIP is what the outgoing task shall resume at.
 *
 * Up to the point of no return faults leave everything unchanged. After it, {@link taskSwitches} has changed, and faults belong
 * to the new task: RIP is its first instruction.
 *
 * @param ext EXT bit of error codes.
 * @param flags RFLAGS image to save.
 * @param errorCode Error code to push on the new task's stack, or −1.
 */
export function switchTask(
  cpu: Cpu,
  selector: number,
  source: TaskSource,
  ext: number,
  flags: number,
  errorCode: number,
): void {
  const d = target, access = cpu.access, code = selectorCode(selector) | ext;
  const wrong = source === "return" ? VECTOR.TS : VECTOR.GP;
  if (selector & 4 || !findDescriptor(cpu, selector, d)) cpu.raise(wrong, code);
  if (d.isSegment || (d.type & 7) !== (source === "return" ? 3 : 1)) cpu.raise(wrong, code);
  if (!d.isPresent) cpu.raise(VECTOR.NP, code);
  const wide = (d.high & 0x800) !== 0;
  const bytes = (wide ? TSS32_LIMIT : TSS16_LIMIT) + 1;
  if (d.limit < bytes - 1) cpu.raise(VECTOR.TS, code);
  // There are no task switches in VMX non-root operation.
  if (cpu.get32(S.VMX_MODE) === 2) {
    requestExit(cpu, REASON.TASK_SWITCH, (selector & 0xffff) | (EXIT_SOURCE[source] << 30));
    throw FAULT;
  }

  // Everything that can still fault in the outgoing task.
  const tss = d.base >>> 0, host = cpu.base + S.VTEMP;
  const oldSelector = cpu.segSel(SEG.TR), oldBase = cpu.get32(S.SEGBASE + SEG.TR * 8);
  const oldWide = (cpu.segAr(SEG.TR) & 8) !== 0;
  if (oldWide) access.probe((oldBase + TSS32.EIP) >>> 0, 0, TSS32.LDT - TSS32.EIP, true, IMPLICIT);
  else access.probe((oldBase + TSS16.IP) >>> 0, 0, TSS16.LDT - TSS16.IP, true, IMPLICIT);
  const nested = source === "call" || source === "gate";
  access.readBytes(tss, 0, host, bytes, IMPLICIT);
  if (nested) access.probe(tss, 0, 2, true, IMPLICIT);
  const leavesOld = !nested && findDescriptor(cpu, oldSelector, outgoing);
  if (leavesOld) writeDescriptorHigh(cpu, outgoing, outgoing.high & ~BUSY);
  if (source !== "return") writeDescriptorHigh(cpu, d, d.high | BUSY);

  saveTask(cpu, oldBase, oldWide, source === "return" ? flags & ~RFLAGS.NT : flags);
  if (nested) access.write(tss, 0, 2, oldSelector, 0, IMPLICIT);

  // The point of no return.
  switches++;
  setFromDescriptor(cpu, SEG.TR, selector, d);
  cpu.set32(S.CR0, cpu.get32(S.CR0) | CR0.TS);
  cpu.set32(S.DR + 7 * 8, cpu.get32(S.DR + 7 * 8) & ~DR7_LOCAL);
  loadTask(cpu, host, wide, nested, ext);
  if (errorCode >= 0) {
    stack.setCurrent(cpu).push(cpu, [errorCode], wide ? 4 : 2, ext, 0);
    stack.commit(cpu);
  }
  if (wide && (cpu.memory.u8[host + TSS32.TRAP]! & 1)) {
    cpu.set32(S.PENDINGDB, cpu.get32(S.PENDINGDB) | DR6_BT);
  }
}

function saveTask(cpu: Cpu, base: number, wide: boolean, flags: number): void {
  const size = wide ? 4 : 2;
  const put = (offset: number, value: number): void =>
    cpu.access.write((base + offset) >>> 0, 0, size, wide ? value : value & 0xffff, 0, IMPLICIT);
  put(wide ? TSS32.EIP : TSS16.IP, cpu.get32(S.RIP));
  put(wide ? TSS32.EFLAGS : TSS16.FLAGS, flags);
  for (let n = 0; n < 8; n++) put((wide ? TSS32.GPR : TSS16.GPR) + n * size, cpu.get32(S.GPR + n * 8));
  const segments = wide ? 6 : 4;
  for (let seg = 0; seg < segments; seg++) {
    // Only the selector's two bytes are written.
    cpu.access.write(
      (base + (wide ? TSS32.SEGS : TSS16.SEGS) + seg * size) >>> 0,
      0,
      2,
      cpu.segSel(seg),
      0,
      IMPLICIT,
    );
  }
}

/** Loads the new task's state from the copy of its TSS at `host`. */
function loadTask(cpu: Cpu, host: number, wide: boolean, nested: boolean, ext: number): void {
  const u16 = cpu.memory.u16, u32 = cpu.memory.u32;
  const field = (offset: number): number => wide ? u32[(host + offset) >>> 2]! : u16[(host + offset) >>> 1]!;
  const selectorAt = (offset: number): number => u16[(host + offset) >>> 1]!;
  const size = wide ? 4 : 2;

  // Registers first: none of this can fault.
  cpu.set64Halves(S.RIP, field(wide ? TSS32.EIP : TSS16.IP), 0);
  let flags = field(wide ? TSS32.EFLAGS : TSS16.FLAGS) & FLAGS_LOADED;
  if (nested) flags |= RFLAGS.NT;
  storeStatusFlags(cpu.memory.i32, cpu.base, flags);
  cpu.set32(S.RFLAGS, (flags & ~0x8d5) | 2);
  for (let n = 0; n < 8; n++) {
    const value = field((wide ? TSS32.GPR : TSS16.GPR) + n * size);
    const high = wide ? 0 : cpu.get32(S.GPR + n * 8) & 0xffff_0000;
    cpu.set64Halves(S.GPR + n * 8, high | value, 0);
  }
  const selectors: number[] = [];
  for (let seg = 0; seg < 6; seg++) {
    selectors.push(wide || seg < 4 ? selectorAt((wide ? TSS32.SEGS : TSS16.SEGS) + seg * size) : 0);
    setSegment(cpu, seg, selectors[seg]!, 0, 0, 0, AR.UNUSABLE);
  }
  const ldt = selectorAt(wide ? TSS32.LDT : TSS16.LDT);
  setSegment(cpu, SEG.LDTR, ldt, 0, 0, 0, AR.UNUSABLE);
  const virtual = (flags & RFLAGS.VM) !== 0;
  const cpl = virtual ? 3 : selectors[SEG.CS]! & 3;
  cpu.set32(S.CPL, cpl);
  updateMode(cpu);
  if (wide && (cpu.get32(S.CR0) & CR0.PG)) {
    const cr3 = u32[(host + TSS32.CR3) >>> 2]!;
    if (cpu.get32(S.CR4) & CR4.PAE) loadPdptes(cpu, cr3);
    loadCr3(cpu, cr3, 0, false);
  }

  loadTaskLdt(cpu, ldt, ext);
  if (virtual) {
    for (let seg = 0; seg < 6; seg++) setVirtual8086Segment(cpu, seg, selectors[seg]!);
  } else {
    loadTaskCode(cpu, selectors[SEG.CS]!, ext);
    loadTaskStack(cpu, selectors[SEG.SS]!, cpl, ext);
    for (const seg of [SEG.DS, SEG.ES, SEG.FS, SEG.GS]) loadTaskData(cpu, seg, selectors[seg]!, cpl, ext);
  }
  updateCodeAndStackMode(cpu);
  updateTlbContext(cpu);
  if (cpu.get32(S.RIP) > cpu.segLimit(SEG.CS)) cpu.raise(VECTOR.GP, ext);
}

function loadTaskLdt(cpu: Cpu, selector: number, ext: number): void {
  if (isNull(selector)) {
    setNull(cpu, SEG.LDTR, selector);
    return;
  }
  const d = scratch, code = selectorCode(selector) | ext;
  if ((selector & 4) || !findDescriptor(cpu, selector, d) || d.isSegment || d.type !== 2 || !d.isPresent) {
    cpu.raise(VECTOR.TS, code);
  }
  setFromDescriptor(cpu, SEG.LDTR, selector, d);
}

function loadTaskCode(cpu: Cpu, selector: number, ext: number): void {
  const d = scratch, code = selectorCode(selector) | ext, rpl = selector & 3;
  if (isNull(selector) || !findDescriptor(cpu, selector, d) || !d.isCode) cpu.raise(VECTOR.TS, code);
  if (d.isConforming ? d.dpl > rpl : d.dpl !== rpl) cpu.raise(VECTOR.TS, code);
  if (!d.isPresent) cpu.raise(VECTOR.NP, code);
  markAccessed(cpu, d);
  setFromDescriptor(cpu, SEG.CS, selector, d);
  updateCodeAndStackMode(cpu);
}

function loadTaskStack(cpu: Cpu, selector: number, cpl: number, ext: number): void {
  const d = scratch, code = selectorCode(selector) | ext;
  if (isNull(selector) || !findDescriptor(cpu, selector, d) || !d.isWritableData) cpu.raise(VECTOR.TS, code);
  if ((selector & 3) !== cpl || d.dpl !== cpl) cpu.raise(VECTOR.TS, code);
  if (!d.isPresent) cpu.raise(VECTOR.SS, code);
  markAccessed(cpu, d);
  setFromDescriptor(cpu, SEG.SS, selector, d);
  updateCodeAndStackMode(cpu);
}

function loadTaskData(cpu: Cpu, seg: number, selector: number, cpl: number, ext: number): void {
  if (isNull(selector)) {
    setNull(cpu, seg, selector);
    return;
  }
  const d = scratch, code = selectorCode(selector) | ext;
  if (!findDescriptor(cpu, selector, d)) cpu.raise(VECTOR.TS, code);
  if (!d.isSegment || (d.isCode && !(d.high & 0x200))) cpu.raise(VECTOR.TS, code);
  if (!(d.isCode && d.isConforming) && (d.dpl < cpl || d.dpl < (selector & 3))) cpu.raise(VECTOR.TS, code);
  if (!d.isPresent) cpu.raise(VECTOR.NP, code);
  markAccessed(cpu, d);
  setFromDescriptor(cpu, seg, selector, d);
}
