/**
 * What happens when the processor enters the kernel: exceptions, interrupts, system calls (`trap.c`).
 *
 * Room: `kernel/trap/`; imports kern, the platform's frame and the report.
 *
 * @module
 */
import { gva } from "../../hw/address.ts";
import type { Exec, GateCpu } from "../../hw/gates.ts";
import type { Kernel } from "../kernel.ts";
import { ERRNO, type SyscallResult } from "../kern/errno.ts";
import { SYS, sysent } from "../kern/init_sysent.ts";
import { exit1 } from "../kern/kern_exec.ts";
import { kprint } from "../platform/pc64/console.ts";
import { decodeTrapframe, TF, TF_BYTES, type Trapframe } from "../platform/pc64/frame.ts";
import { LAPIC_VA } from "../platform/pc64/vmparam.ts";
import { describeFault, type FaultReport, renderReport } from "./report.ts";

const RDI = 7;
const CARRY = 1n;
/** First vector that is not an exception. */
const FIRST_INTERRUPT = 32;
/** The local APIC's spurious vector, which takes no end of interrupt. */
const SPURIOUS = 0xff;
const LAPIC_EOI = 0xb0n;
const NMI = 2;

function* readFrame(cpu: GateCpu): Exec<{ readonly at: bigint; readonly frame: Trapframe }> {
  const at = cpu.gpr(RDI);
  return { at, frame: decodeTrapframe(yield* cpu.loadBytes(gva(at), TF_BYTES)) };
}

/** Any vector but SYSCALL. RDI = the frame. */
export function* trap(k: Kernel, cpu: GateCpu): Exec<void> {
  const { frame } = yield* readFrame(cpu);
  const vector = Number(frame.trapno);
  if (vector >= FIRST_INTERRUPT) return yield* interrupt(cpu, vector);
  if (vector === NMI) return yield* kprint(cpu, `cpu${cpu.cpu.id}: NMI\n`);
  if ((frame.cs & 3n) === 3n) return yield* userFault(k, cpu, frame);

  // The kernel's own fault. While it copies to or from the user that is the user's mistake, and the copy fails.
  if (cpu.gates.abort(frame.r15)) return;
  const report = describeFault(k, cpu, frame);
  yield* kprint(cpu, renderReport(report));
  cpu.panic(`${report.name} in the kernel at 0x${frame.rip.toString(16)}`);
}

function* interrupt(cpu: GateCpu, vector: number): Exec<void> {
  if (vector !== SPURIOUS) yield* cpu.store32(gva(LAPIC_VA + LAPIC_EOI), 0);
}

/** A program did what it may not: says so, ends it, goes on with the next one. */
function* userFault(k: Kernel, cpu: GateCpu, frame: Trapframe): Exec<void> {
  const report = describeFault(k, cpu, frame);
  const disassembly = yield* disassembleReport(k, report);
  k.options.onFault?.(report);
  yield* kprint(cpu, renderReport(report, disassembly));
  yield* exit1(k, cpu, { kind: "fault", report });
}

/** Lines of disassembly. The disassembler may have to be loaded first: the step ends, and the host runs on when it is there. */
function* disassembleReport(k: Kernel, report: FaultReport): Exec<readonly string[] | undefined> {
  const find = k.options.disassembler;
  if (find === undefined || report.code.length === 0) return undefined;
  let disassembler = find();
  if (disassembler === undefined) {
    yield;
    disassembler = find();
  } else yield;
  return disassembler?.(report.code, report.rip);
}

/** A system call. RDI = the frame; its answer goes into the frame. */
export function* syscall2(k: Kernel, cpu: GateCpu): Exec<void> {
  const { at, frame } = yield* readFrame(cpu);
  const number = Number(frame.rax & 0xffff_ffffn);
  if (number === SYS.exit) {
    const status = Number(BigInt.asIntN(32, frame.rdi));
    return yield* exit1(k, cpu, { kind: "exit", status });
  }
  const call = sysent.get(number);
  const result: SyscallResult = call === undefined ? { error: ERRNO.ENOSYS } : yield* call(k, cpu, frame);
  const failed = "error" in result;
  yield* cpu.store64(gva(at + BigInt(TF.rax)), failed ? BigInt(result.error) : result.value);
  const rflags = failed ? frame.rflags | CARRY : frame.rflags & ~CARRY;
  yield* cpu.store64(gva(at + BigInt(TF.rflags)), rflags);
}
