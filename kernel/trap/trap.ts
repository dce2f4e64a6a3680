/**
 * What happens when the processor enters the kernel: exceptions, interrupts, system calls, and the way back (`trap.c`).
 *
 * Room: `kernel/trap/`; imports vm_fault, signals, the platform's frame and interrupts, and the report.
 *
 * @module
 */
import { type Gva, gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { ktrace } from "../kern/ktr.ts";
import { kassert, panic } from "../kern/panic.ts";
import { kprintf, log } from "../kern/subr_prf.ts";
import { type SyscallResult, SyscallWords } from "../kern/sysent.ts";
import { RQF, RQF_AST_MASK, RQF_IDLECHECK_MASK } from "../lwkt/globaldata.ts";
import { lwktYield, splz } from "../lwkt/thread.ts";
import { T_FAST_SYSCALL, TF, TF_BYTES } from "../platform/pc64/frame.ts";
import { decodeTrapframe } from "../platform/pc64/frame.ts";
import type { SupervisorPlatform } from "../platform/supervisor.ts";
import { VM_MAX_USER_ADDRESS } from "../platform/pc64/vmparam.ts";
import { procUserret, sigPending, trapsignal } from "../proc/kern_sig.ts";
import { type Lwp, LWP_MP_WEXIT, SSTOP } from "../proc/proc.ts";
import * as signal from "../proc/signal.ts";
import { acquireCurproc } from "../proc/usched_dfly.ts";
import { vmIsBeingKilled } from "../vm/vm_page_alloc.ts";
import { vkernelTrap, vkernelTrapno } from "../vm/vkernel_trap.ts";
import { VM_FAULT_BURST, VM_FAULT_DIRTY, VM_FAULT_NORMAL, vmFault } from "../vm/vm_fault.ts";
import { vmMapLookupEntry } from "../vm/vm_map.ts";
import {
  KERN_FAILURE,
  KERN_INVALID_ADDRESS,
  KERN_SUCCESS,
  VM_MAPTYPE_VPAGETABLE,
  VM_PROT_EXECUTE,
  VM_PROT_READ,
  VM_PROT_WRITE,
  type VmProt,
} from "../vm/vm_param.ts";
import { describeFault, type FaultReport, renderReport } from "./report.ts";

const RDI = 7;
const CARRY = 1n;
/** First vector that is not an exception. */
const FIRST_INTERRUPT = 32;
const NMI = 2, PAGE_FAULT = 14;
/** Page-fault error code (SDM vol. 3A, "Page-Fault Exception"): present, write, instruction fetch. */
const PGEX_P = 1n, PGEX_W = 2n, PGEX_I = 16n;

/** What an exception in user mode is to a program: signal and code, as DragonFly's trap() has it. */
const SIGNALS: Readonly<Record<number, readonly [sig: number, code: number]>> = {
  0: [signal.SIGFPE, signal.FPE_INTDIV],
  1: [signal.SIGTRAP, signal.TRAP_TRACE],
  3: [signal.SIGTRAP, signal.TRAP_BRKPT],
  4: [signal.SIGFPE, signal.FPE_INTOVF],
  5: [signal.SIGFPE, signal.FPE_FLTSUB],
  6: [signal.SIGILL, signal.ILL_ILLOPC],
  7: [signal.SIGILL, signal.ILL_ILLOPC],
  9: [signal.SIGFPE, signal.FPE_FLTINV],
  10: [signal.SIGBUS, signal.BUS_OBJERR],
  11: [signal.SIGBUS, signal.BUS_ADRERR],
  12: [signal.SIGBUS, signal.BUS_OBJERR],
  13: [signal.SIGBUS, signal.BUS_OBJERR],
  16: [signal.SIGFPE, signal.FPE_FLTINV],
  17: [signal.SIGBUS, signal.BUS_ADRALN],
  19: [signal.SIGFPE, signal.FPE_FLTINV],
};

/** Any vector but SYSCALL. RDI = the frame. */
export function* trap(cx: Cx, platform: SupervisorPlatform): Exec<void> {
  const { cpu } = cx;
  const at = cpu.gpr(RDI);
  const vector = yield* cpu.load32(gva(at + BigInt(TF.trapno)));
  const user = ((yield* cpu.load32(gva(at + BigInt(TF.cs)))) & 3) === 3;
  if (vector >= FIRST_INTERRUPT) {
    yield* platform.interrupt(cx, vector, user);
    if (user) {
      cx.lwp!.lwpMdRegs = gva(at);
      yield* userret(cx);
    }
    return;
  }
  if (vector === NMI) {
    kprintf(cx, `cpu${cpu.cpu.id}: NMI\n`);
    return;
  }
  if (user) {
    cpu.setInterrupts(true);
    yield* userTrapAt(cx, gva(at), vector);
    yield* userret(cx);
    return;
  }
  yield* kernelTrap(cx, yield* cpu.loadBytes(gva(at), TF_BYTES), vector);
}

/** The frame of an entry from user mode. */
function entryFrame(cx: Cx, lwp: Lwp, at: bigint): Exec<Uint8Array<ArrayBuffer>> {
  return cx.cpu.loadInto(gva(at), lwp.lwpMdFrame ??= new Uint8Array(TF_BYTES));
}

/** An exception in user mode, with the frame at `at`; interrupts are on. The way back is the caller's. */
export function* userTrapAt(cx: Cx, at: Gva, vector: number): Exec<void> {
  const lwp = cx.lwp!;
  lwp.lwpMdRegs = at;
  yield* userTrap(cx, lwp, yield* entryFrame(cx, lwp, at), vector);
}

/**
 * An exception of a guest of the VMM (kernel/vmm/), its registers in the frame at `at`: the vkernel's affair if code of a guest of its own runs,
 * else a signal. A page fault is never mended here: what the host has to bring in is an EPT violation.
 */
export function* vmmTrap(cx: Cx, at: Gva, vector: number): Exec<void> {
  const lwp = cx.lwp!;
  lwp.lwpMdRegs = at;
  yield* userTrap(cx, lwp, yield* entryFrame(cx, lwp, at), vector, true);
}

/** An exception in user mode: mended, or a signal. @param guest It is a guest's, whose page tables are its own. */
function* userTrap(
  cx: Cx,
  lwp: Lwp,
  bytes: Uint8Array<ArrayBuffer>,
  vector: number,
  guest = false,
): Exec<void> {
  const view = new DataView(bytes.buffer);
  cx.k.vmmeter.vTrap++;
  let sig: number, code: number, addr: bigint;
  if (vector === PAGE_FAULT) {
    addr = view.getBigUint64(TF.addr, true);
    const err = view.getBigUint64(TF.err, true);
    const verdict = guest ? guestVerdict(err) : yield* trapPfault(cx, lwp, addr, err, true);
    if (verdict === undefined) return;
    // What the host has mended the vkernel never sees; what it cannot mend is the vkernel's.
    if (lwp.lwpVkernel?.inGuest) return yield* vkernelTrap(cx, lwp.lwpMdRegs!, vector);
    [sig, code] = verdict;
  } else {
    if (lwp.lwpVkernel?.inGuest) return yield* vkernelTrap(cx, lwp.lwpMdRegs!, vkernelTrapno(vector));
    addr = view.getBigUint64(TF.rip, true);
    [sig, code] = lwp.lwpProc.pSysent?.svTrap?.(vector) ?? SIGNALS[vector] ??
      [signal.SIGILL, signal.ILL_ILLOPC];
  }
  ktrace(cx, "trapsignal", sig, vector);
  const { handler } = lwp.lwpProc.pSigacts.psAction[sig]!;
  // Not when the kernel refused the page because the process has been killed for want of memory.
  if (handler === signal.SIG_DFL && !vmIsBeingKilled(cx)) yield* reportFault(cx, bytes);
  yield* trapsignal(cx, sig, code, addr, vector);
}

/** Signal and code of a page fault that a guest's own tables gave. */
function guestVerdict(err: bigint): readonly [sig: number, code: number] {
  return [signal.SIGSEGV, err & PGEX_P ? signal.SEGV_ACCERR : signal.SEGV_MAPERR];
}

/**
 * A page fault on a user address: undefined if vm_fault has mended it, else signal and code (`trap_pfault`). An access that the mapping
 * allows and its object cannot serve is SIGBUS, as POSIX has it; DragonFly 3.6 has SIGBUS for every protection failure.
 */
function* trapPfault(
  cx: Cx,
  lwp: Lwp,
  addr: bigint,
  err: bigint,
  usermode: boolean,
): Exec<readonly [sig: number, code: number] | undefined> {
  const vmspace = lwp.lwpVmspace;
  ktrace(cx, "pfault", Number(BigInt.asUintN(48, addr) >> 12n), Number(err));
  if (addr >= VM_MAX_USER_ADDRESS || vmspace === undefined) return [signal.SIGSEGV, signal.SEGV_MAPERR];
  const ftype: VmProt = err & PGEX_W ? VM_PROT_WRITE : err & PGEX_I ? VM_PROT_EXECUTE : VM_PROT_READ;
  const va = gva(addr & ~0xfffn);
  const flags = (usermode ? VM_FAULT_BURST : VM_FAULT_NORMAL) |
    (ftype === VM_PROT_WRITE ? VM_FAULT_DIRTY : VM_FAULT_NORMAL);
  const rv = yield* vmFault(cx, vmspace.vmMap, va, ftype, flags);
  switch (rv) {
    case KERN_SUCCESS:
      return undefined;
    case KERN_INVALID_ADDRESS:
      return [signal.SIGSEGV, signal.SEGV_MAPERR];
    case KERN_FAILURE:
      return [signal.SIGBUS, signal.BUS_OBJERR];
    default: {
      const { entry, found } = vmMapLookupEntry(vmspace.vmMap, va);
      // Through a software page table the mapping allows everything, and the table says no.
      const allowed = found && entry.maptype !== VM_MAPTYPE_VPAGETABLE &&
        (entry.protection & ftype) === ftype;
      return allowed ? [signal.SIGBUS, signal.BUS_ADRERR] : [signal.SIGSEGV, signal.SEGV_ACCERR];
    }
  }
}

/** An exception in the kernel: on a user address while it copies it is the user's; anything else is the end. */
function* kernelTrap(cx: Cx, bytes: Uint8Array<ArrayBuffer>, vector: number): Exec<void> {
  const { cpu } = cx;
  const view = new DataView(bytes.buffer);
  const started = cx.k.platform.mycpu(cpu) !== undefined;
  const r15 = view.getBigUint64(TF.r15, true);
  const addr = view.getBigUint64(TF.addr, true);
  const lwp = started ? cx.lwp : undefined;
  if (vector === PAGE_FAULT && lwp !== undefined && addr < VM_MAX_USER_ADDRESS) {
    if (cx.td.tdSpinlocks === 0) {
      // As it was where the fault came from: interrupts as there, and the copy may sleep.
      cpu.setInterrupts((view.getUint32(TF.rflags, true) & 0x200) !== 0);
      const verdict = yield* trapPfault(cx, lwp, addr, view.getBigUint64(TF.err, true), false);
      cpu.setInterrupts(false);
      if (verdict === undefined || cpu.gates.abort(r15)) return;
    }
  } else if (cpu.gates.abort(r15)) return;
  const frame = decodeTrapframe(bytes);
  const report = describeFault(cx, frame);
  cx.k.options.onFault?.(report);
  cx.k.messages.toConsole = true;
  kprintf(cx, renderReport(report));
  panic(cx, `${report.name} in the kernel at 0x${frame.rip.toString(16)}`);
}

/** Tells people of a fault that will end its program. */
function* reportFault(cx: Cx, bytes: Uint8Array<ArrayBuffer>): Exec<void> {
  const { options } = cx.k;
  if (options.faultReports === false && options.onFault === undefined) return;
  const report = describeFault(cx, decodeTrapframe(bytes));
  options.onFault?.(report);
  if (options.faultReports === false) return;
  const disassembly = yield* disassembleReport(cx, report);
  yield* cx.k.platform.cnWrite(
    cx,
    new TextEncoder().encode(renderReport(report, disassembly).replaceAll("\n", "\r\n")),
  );
}

/** Lines of disassembly. The disassembler may have to be loaded first: the step ends, and the host runs on when it is there. */
function* disassembleReport(cx: Cx, report: FaultReport): Exec<readonly string[] | undefined> {
  const find = cx.k.options.disassembler;
  if (find === undefined || report.code.length === 0) return undefined;
  let disassembler = find();
  if (disassembler === undefined) {
    yield;
    disassembler = find();
  } else yield;
  return disassembler?.(report.code, report.rip);
}

/** Where a frame's words are that are the arguments of a system call, in order: RDI RSI RDX R10 R8 R9. */
const ARGUMENTS = [TF.rdi, TF.rsi, TF.rdx, TF.r10, TF.r8, TF.r9].map((offset) => offset / 8);

/** A system call. RDI = the frame. */
export function* syscall2(cx: Cx): Exec<void> {
  const at = gva(cx.cpu.gpr(RDI));
  cx.cpu.setInterrupts(true);
  yield* syscallAt(cx, at);
  yield* userret(cx);
}

/** A system call with the frame at `at`; its answer goes into the frame (`syscall2`). Interrupts are on; the way back is the caller's. */
export function* syscallAt(cx: Cx, at: Gva): Exec<void> {
  const lwp = cx.lwp!;
  lwp.lwpMdRegs = at;
  const bytes = yield* entryFrame(cx, lwp, at);
  const view = new DataView(bytes.buffer);
  const number = view.getUint32(TF.rax, true);
  cx.k.vmmeter.vSyscall++;
  // A guest's system call is its own kernel's.
  if (lwp.lwpVkernel?.inGuest) return yield* vkernelTrap(cx, at, T_FAST_SYSCALL);
  const sysent = lwp.lwpProc.pSysent!;
  const row = sysent.svTable.get(number);
  let args = new SyscallWords(number, new BigUint64Array(bytes.buffer), ARGUMENTS);
  ktrace(cx, "syscall", number, lwp.lwpProc.pPid);
  let result: SyscallResult;
  if (row === undefined) {
    log(
      cx,
      `pid ${lwp.lwpProc.pPid} (${lwp.lwpProc.pComm}): system call ${number} of ${sysent.svName} does not exist\n`,
    );
    result = { error: ERRNO.ENOSYS };
  } else {
    let missing = false;
    if (row[2] > ARGUMENTS.length) {
      const stack = yield* copyin(cx, view.getBigUint64(TF.rsp, true) + 8n, (row[2] - ARGUMENTS.length) * 8);
      missing = stack === undefined;
      const more = new DataView(stack?.buffer ?? new ArrayBuffer(0));
      const words = ARGUMENTS.map((_, i) => args.arg(i));
      for (let i = 0; i < more.byteLength; i += 8) words.push(more.getBigUint64(i, true));
      args = new SyscallWords(number, words);
    }
    result = missing ? { error: ERRNO.EFAULT } : yield* row[3](cx, args);
  }
  const td = cx.td;
  kassert(
    td.tdToks.length === 0,
    () => `system call ${number} kept the token "${td.tdToks.at(-1)?.tok.tDesc}"`,
  );
  kassert(td.tdCritcount === 0, () => `system call ${number} left a critical section open`);
  yield* answer(cx, lwp, view, result);
}

/** Puts a system call's answer where the program looks for it. */
function* answer(cx: Cx, lwp: Lwp, view: DataView, result: SyscallResult): Exec<void> {
  const frame = lwp.lwpMdRegs!;
  const put = (offset: number, value: bigint) =>
    cx.cpu.store64(gva(frame + BigInt(offset)), BigInt.asUintN(64, value));
  const rflags = view.getBigUint64(TF.rflags, true);
  if ("value" in result) {
    yield* put(TF.rax, result.value);
    if (result.value2 !== undefined) yield* put(TF.rdx, result.value2);
    yield* put(TF.rflags, rflags & ~CARRY);
    return;
  }
  switch (result.error) {
    case ERRNO.EJUSTRETURN:
      return;
    case ERRNO.ERESTART:
      // tf_err is the length of the instruction.
      yield* put(TF.rip, view.getBigUint64(TF.rip, true) - view.getBigUint64(TF.err, true));
      return;
    default: {
      const { svErrno, svNegativeErrno } = lwp.lwpProc.pSysent!;
      const error = BigInt(svErrno?.(result.error) ?? result.error);
      yield* put(TF.rax, svNegativeErrno ? -error : error);
      if (!svNegativeErrno) yield* put(TF.rflags, rflags | CARRY);
    }
  }
}

/**
 * The way back to user mode: what others asked for meanwhile comes first (`userret`, and doreti's loop over the ASTs). Ends with
 * interrupts off and nothing asked for.
 */
export function* userret(cx: Cx): Exec<void> {
  const { platform } = cx.k;
  for (;;) {
    cx.setInterrupts(true);
    if (cx.gd.gdReqflags & RQF_IDLECHECK_MASK) yield* splz(cx);
    yield* platform.consoleDrain(cx);
    yield* platform.flushIpis(cx);
    if (cx.gd.gdReqflags & RQF.AST_LWKT_RESCHED) {
      cx.gd.gdReqflags &= ~RQF.AST_LWKT_RESCHED;
      yield* lwktYield(cx);
    }
    cx.gd.gdReqflags &= ~(RQF.AST_SIGNAL | RQF.AST_OWEUPC);
    yield* procUserret(cx);
    yield* acquireCurproc(cx);
    cx.setInterrupts(false);
    yield* platform.flushIpis(cx);
    const gd = cx.gd;
    if ((gd.gdReqflags & (RQF_AST_MASK | RQF_IDLECHECK_MASK)) === 0 && !lwpHasWork(cx.lwp!)) break;
  }
  kassert(cx.td.tdCritcount === 0, "userret: a critical section is open");
}

/** Whether signals, a stop or the end wait for a thread that is about to enter user mode. */
function lwpHasWork(lp: Lwp): boolean {
  return (lp.lwpMpflags & LWP_MP_WEXIT) !== 0 || lp.lwpProc.pStat === SSTOP || sigPending(lp);
}
