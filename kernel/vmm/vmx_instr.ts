/**
 * The VMX instructions and the others that the VMM needs, as plain functions (`sys/platform/pc64/vmm/vmx_instr.h`).
 *
 * Room: `kernel/vmm/`; imports the numbers. All are carried out at CPL 0 in root operation and cannot fault there: a failure that software can
 * cause (VMfail) is an answer.
 *
 * @module
 */
import type { Hpa } from "../../hw/address.ts";
import { F, type FieldName } from "../../hw/vmx/fields.ts";
import { S } from "../../hw/state.ts";
import type { Cx } from "../context.ts";
import { panic } from "../kern/panic.ts";
import { MSR } from "./vmx_defs.ts";

/** RFLAGS after VMfailInvalid and VMfailValid. */
const CF = 1, ZF = 0x40;
/** What VM-instruction errors mean (SDM vol. 3C, "VM Instruction Error Numbers"). */
const ERRORS: Readonly<Record<number, string>> = {
  2: "VMCLEAR with an invalid address",
  3: "VMCLEAR with the VMXON pointer",
  4: "VMLAUNCH with a VMCS that is not clear",
  5: "VMRESUME with a VMCS that is not launched",
  7: "VM entry with invalid control fields",
  8: "VM entry with invalid host-state fields",
  9: "VMPTRLD with an invalid address",
  10: "VMPTRLD with the VMXON pointer",
  11: "VMPTRLD with a wrong revision identifier",
  12: "VMREAD or VMWRITE of a field that there is not",
  13: "VMWRITE to a read-only field",
  15: "VMXON in VMX root operation",
  26: "VM entry with events blocked by MOV SS",
  28: "invalid operand of INVEPT or INVVPID",
};

/** Text of a VM-instruction error. */
export function vmxErrorText(error: number): string {
  return ERRORS[error] ?? `VM-instruction error ${error}`;
}

/** Carries one out; panics on VMfail: the caller knows that it must succeed. */
function must(cx: Cx, name: string, ...args: bigint[]): void {
  cx.cpu.performNow(name, ...args);
  const flags = cx.cpu.cpu.rflags;
  if (flags & CF) panic(cx, `${name.toUpperCase()}: VMfailInvalid`);
  if (flags & ZF) panic(cx, `${name.toUpperCase()}: ${vmxErrorText(vmxInstructionError(cx))}`);
}

/** VMXON with the region at `pa`. */
export function vmxon(cx: Cx, pa: Hpa): void {
  cx.cpu.performNow("vmxonPrologue");
  must(cx, "vmxon", BigInt(pa));
}
/** VMXOFF. */
export function vmxoff(cx: Cx): void {
  must(cx, "vmxoff");
}
/** VMCLEAR of the VMCS at `pa`: inactive, not current, not launched. */
export function vmclear(cx: Cx, pa: Hpa): void {
  cx.k.vmm.counters.vmclears++;
  must(cx, "vmclear", BigInt(pa));
}
/** VMPTRLD: the VMCS at `pa` is active and current. */
export function vmptrld(cx: Cx, pa: Hpa): void {
  cx.k.vmm.counters.vmptrlds++;
  must(cx, "vmptrld", BigInt(pa));
}
/** VMWRITE of a field of the current VMCS. */
export function vmwrite(cx: Cx, field: FieldName, value: bigint | number): void {
  cx.k.vmm.counters.vmwrites++;
  must(cx, "vmwrite", BigInt(F[field]), BigInt(value));
}
/** VMREAD of a field of the current VMCS, unsigned. */
export function vmread(cx: Cx, field: FieldName): bigint {
  cx.k.vmm.counters.vmreads++;
  cx.cpu.performNow("vmread", BigInt(F[field]));
  const { cpu } = cx.cpu;
  if (cpu.argLow(1) !== 0) panic(cx, `VMREAD of ${field}: ${vmxErrorText(cpu.argLow(1))}`);
  return cpu.arg(0);
}
/** VMREAD of a field of 32 bits or less, as a signed number. */
export function vmread32(cx: Cx, field: FieldName): number {
  return Number(BigInt.asIntN(32, vmread(cx, field)));
}
/** The VM-instruction error of the current VMCS. */
export function vmxInstructionError(cx: Cx): number {
  return vmread32(cx, "INSTRUCTION_ERROR");
}
/** INVEPT. @param type Of `INVEPT`. */
export function invept(cx: Cx, type: bigint, eptp: bigint): void {
  must(cx, "invept", type, eptp, 0n);
}

/** CPUID: EAX, EBX, ECX, EDX. */
export function cpuid(cx: Cx, leaf: number, subleaf = 0): readonly [bigint, bigint, bigint, bigint] {
  cx.cpu.performNow("cpuid", BigInt(leaf >>> 0), BigInt(subleaf >>> 0));
  const { cpu } = cx.cpu;
  return [cpu.arg(0), cpu.arg(1), cpu.arg(2), cpu.arg(3)];
}
/** RDMSR of a register that exists. */
export function rdmsr(cx: Cx, msr: number): bigint {
  cx.cpu.performNow("rdmsr", BigInt(msr));
  return cx.cpu.result;
}
/** EFER as it is. */
export function readEfer(cx: Cx): bigint {
  return rdmsr(cx, MSR.EFER);
}
/** `mov rax, crN`. */
export function readCr(cx: Cx, n: 0 | 2 | 3 | 4): bigint {
  cx.cpu.performNow("readCr", BigInt(n));
  return cx.cpu.result;
}
/** `mov crN, rax`; not CR3, which carries the continuation along. */
export function writeCr(cx: Cx, n: 0 | 2 | 4, value: bigint): void {
  cx.cpu.performNow("writeCr", BigInt(n), value);
}
/** Whether the processor at hand is in VMX operation. */
export function inVmxOperation(cx: Cx): boolean {
  return cx.cpu.cpu.get32(S.VMX_MODE) !== 0;
}
