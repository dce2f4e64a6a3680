/**
 * How a process of the model test reads and writes its memory. A kernel that has user addresses in its own space loads and stores there. A
 * vkernel at ring 3 reaches them by way of its direct map, which says nothing about the tables that the host walks; so its processes go to user mode and do it
 * with machine code, and what faults there is mended as ever.
 *
 * Room: `lab/model/`; imports the kernel.
 *
 * @module
 */
import { gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../../kernel/context.ts";
import { copyin, copyout } from "../../kernel/kern/copy.ts";
import { T_FAST_SYSCALL, TF } from "../../kernel/platform/pc64/frame.ts";
import { runUser } from "../../kernel/platform/vkernel64/trap.ts";
import { Vkernel64 } from "../../kernel/platform/vkernel64/vkernel64.ts";
import { vmFault } from "../../kernel/vm/vm_fault.ts";
import { VM_FAULT_DIRTY, VM_FAULT_NORMAL } from "../../kernel/vm/vm_fault_object.ts";
import { KERN_SUCCESS, VM_PROT_EXECUTE, VM_PROT_READ, VM_PROT_WRITE } from "../../kernel/vm/vm_param.ts";

/** The page of the machine code; writable and executable. */
export const USER_CODE = 0x700_0000n;
const EFAULT = 14, PAGE_FAULT = 14;
const PGEX_W = 2n, PGEX_I = 0x10n;
const PAGE = 4096n;

/** `mov rax, [rdi]; mov rdx, [rsi]; syscall`, and with stores of RAX at +16. */
const CODE = Uint8Array.of(
  ...[0x48, 0x8b, 0x07, 0x48, 0x8b, 0x16, 0x0f, 0x05, 0, 0, 0, 0, 0, 0, 0, 0],
  ...[0x48, 0x89, 0x07, 0x48, 0x89, 0x06, 0x0f, 0x05],
);
const LOAD = USER_CODE, STORE = USER_CODE + 16n;

/** Puts the code there; its children inherit it. */
export function* prepareUserCode(cx: Cx): Exec<void> {
  yield* copyout(cx, USER_CODE, CODE);
}

/** The words at two addresses; undefined if one cannot be read. */
export function* userRead(
  cx: Cx,
  first: bigint,
  second: bigint,
): Exec<readonly [bigint, bigint] | undefined> {
  const { platform } = cx.k;
  if (platform instanceof Vkernel64) return yield* inUserMode(cx, platform, LOAD, first, second, 0n);
  const words: bigint[] = [];
  for (const at of [first, second]) {
    const bytes = yield* copyin(cx, at, 8);
    if (bytes === undefined) return undefined;
    words.push(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  }
  return [words[0]!, words[1]!];
}

/** Stores a word at two addresses; 0 or EFAULT. */
export function* userWrite(cx: Cx, first: bigint, second: bigint, value: bigint): Exec<number> {
  const { platform } = cx.k;
  if (platform instanceof Vkernel64) {
    return (yield* inUserMode(cx, platform, STORE, first, second, value)) === undefined ? EFAULT : 0;
  }
  const bytes = new Uint8Array(new BigUint64Array([value]).buffer);
  return (yield* copyout(cx, first, bytes)) || (yield* copyout(cx, second, bytes));
}

/** Runs the code up to its SYSCALL; RAX and RDX then. Undefined: a fault that nothing mends. */
function* inUserMode(
  cx: Cx,
  platform: Vkernel64,
  rip: bigint,
  rdi: bigint,
  rsi: bigint,
  rax: bigint,
): Exec<readonly [bigint, bigint] | undefined> {
  const { cpu } = cx, lwp = cx.lwp!;
  const frame = lwp.lwpMdRegs!, at = (field: number) => gva(frame + BigInt(field));
  for (const [field, value] of [[TF.rip, rip], [TF.rdi, rdi], [TF.rsi, rsi], [TF.rax, rax]] as const) {
    yield* cpu.store64(at(field), value);
  }
  for (;;) {
    const trapno = yield* runUser(cx, platform);
    if (trapno === 0) continue;
    if (trapno === T_FAST_SYSCALL) return [yield* cpu.load64(at(TF.rax)), yield* cpu.load64(at(TF.rdx))];
    if (trapno !== PAGE_FAULT) throw new Error(`The code of the test ended with trap ${trapno}`);
    const addr = yield* cpu.load64(at(TF.addr)), err = yield* cpu.load64(at(TF.err));
    const type = err & PGEX_W ? VM_PROT_WRITE : err & PGEX_I ? VM_PROT_EXECUTE : VM_PROT_READ;
    const flags = type === VM_PROT_WRITE ? VM_FAULT_DIRTY : VM_FAULT_NORMAL;
    const rv = yield* vmFault(cx, lwp.lwpVmspace!.vmMap, gva(addr & ~(PAGE - 1n)), type, flags);
    if (rv !== KERN_SUCCESS) return undefined;
  }
}
