/**
 * TypeScript programs as processes: `#!gate NAME` runs `k.options.userGates[NAME]` at ring 3 (DESIGN 2.5).
 *
 * Room: `kernel/proc/`; imports exec and the maps. The program's address space holds one page of machine code:
 *
 *     0x40_0000   GATE n; RESUME     the program: its result is the exit status
 *     0x40_000e   mov edi, eax; mov eax, SYS_exit; syscall; ud2
 *     0x40_0040   syscall; ret       what {@link userSyscall} calls
 *
 * A program sees the processor as hw/gates.ts gives it at privilege level 3: it touches only its own memory, and page faults, signals and
 * time slices come as to any program. It cannot fork: a continuation belongs to one address space.
 *
 * @module
 */
import { type Gva, gva } from "../../hw/address.ts";
import { type Exec, type GateCpu, RESUME_NUMBER } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyout } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { kernelRoot } from "../pmap/pmap_switch.ts";
import { vmMapFind } from "../vm/vm_map_insert.ts";
import { vmMapProtect } from "../vm/vm_map_protect.ts";
import { KERN_SUCCESS, VM_PROT_ALL, VM_PROT_EXECUTE, VM_PROT_READ, VM_PROT_RW } from "../vm/vm_param.ts";
import { type ImageActivator, NOT_MINE } from "./imgact.ts";
import { execNewVmspace } from "./kern_exec.ts";
import type { Sysentvec } from "./proc.ts";

/** Where the page with the machine code stands. */
export const USER_GATE_PAGE = 0x40_0000n;
/** `syscall; ret` in it. */
export const USER_GATE_SYSCALL: Gva = gva(USER_GATE_PAGE + 0x40n);

const RAX = 0, RDX = 2, RSP = 4, RSI = 6, RDI = 7, R8 = 8, R9 = 9, R10 = 10;
const CARRY = 1;
const PAGE_SIZE = 4096n;
/** DragonFly's number of exit. */
const SYS_EXIT = 1;

/**
 * An activator for them, with the personality that they have.
 *
 * @param word What stands behind `#!`: another one for each personality.
 */
export function userGateActivator(sysent: Sysentvec, word = "gate"): ImageActivator {
  return function* (cx, imgp) {
    const line = /^#!(\S+)[ \t]+(\S+)[ \t]*\n/.exec(new TextDecoder().decode(imgp.header.subarray(0, 128)));
    if (line === null || line[1] !== word) return NOT_MINE;
    const name = line[2]!, body = cx.k.options.userGates?.[name];
    if (body === undefined) return ERRNO.ENOEXEC;
    const number = gateNumber(cx, name, body);
    let error = yield* execNewVmspace(cx, imgp);
    if (error !== 0) return error;
    const { vmMap: map } = cx.proc!.pVmspace!;
    const mapped = yield* vmMapFind(cx, map, {
      addr: USER_GATE_PAGE,
      length: PAGE_SIZE,
      fitit: false,
      prot: VM_PROT_RW,
      max: VM_PROT_ALL,
    });
    if (mapped.rv !== KERN_SUCCESS) return ERRNO.ENOMEM;
    error = yield* copyout(cx, USER_GATE_PAGE, code(number, sysent.svExit ?? SYS_EXIT));
    if (error !== 0) return error;
    const end = gva(USER_GATE_PAGE + PAGE_SIZE);
    yield* vmMapProtect(cx, map, gva(USER_GATE_PAGE), end, VM_PROT_READ | VM_PROT_EXECUTE, false);
    const vm = cx.proc!.pVmspace!;
    vm.vmTaddr = vm.vmDaddr = gva(USER_GATE_PAGE);
    vm.vmTsize = vm.vmDsize = PAGE_SIZE;
    imgp.entry = USER_GATE_PAGE;
    imgp.sysent = sysent;
    imgp.aux = [];
    return 0;
  };
}

/** The gate that runs a program: registered once a name. */
function gateNumber(cx: Cx, name: string, body: (u: GateCpu) => Exec<number>): number {
  const { userGateNumbers } = cx.k;
  const known = userGateNumbers.get(name);
  if (known !== undefined) return known;
  // A vkernel's gates end with it; they are entered in the world that its processes run in. One in ring 0 ends with that world.
  const space = cx.cpu.space, { cpl } = cx.cpu.cpu, guest = cpl === 3 || space.ept !== 0;
  const owner = cpl === 3 ? space : { root: BigInt(kernelRoot(cx)), ept: space.ept };
  const number = cx.cpu.gates.register({
    name: `user program ${name}`,
    cpl: 3,
    body,
    ept: space.ept,
    ...(guest ? { owner } : {}),
  });
  userGateNumbers.set(name, number);
  return number;
}

function code(number: number, exit: number): Uint8Array {
  const bytes = new Uint8Array(0x43), view = new DataView(bytes.buffer);
  bytes.set([0x0f, 0xff, 0x05, 0, 0, 0, 0, 0x0f, 0xff, 0x05]);
  view.setUint32(3, number, true);
  view.setInt32(10, RESUME_NUMBER, true);
  bytes.set([0x89, 0xc7, 0xb8, exit, 0, 0, 0, 0x0f, 0x05, 0x0f, 0x0b], 14);
  bytes.set([0x0f, 0x05, 0xc3], 0x40);
  return bytes;
}

/** What a system call answered to a TypeScript program. */
export interface UserSyscallResult {
  /** 0, or the error number. */
  readonly errno: number;
  /** RAX, signed. */
  readonly value: bigint;
}

/** Makes a system call from a TypeScript program: up to six arguments in registers, the others on its stack. */
export function userSyscall(
  u: GateCpu,
  number: number,
  ...args: readonly (bigint | number)[]
): Exec<UserSyscallResult> {
  return syscallThrough(u, USER_GATE_SYSCALL, number, args);
}

/** As {@link userSyscall}, by other machine code: an instruction that asks the kernel, and `ret`. */
export function* syscallThrough(
  u: GateCpu,
  code: Gva,
  number: number,
  args: readonly (bigint | number)[],
): Exec<UserSyscallResult> {
  const registers = [RDI, RSI, RDX, R10, R8, R9];
  const words = args.map((arg) => BigInt.asUintN(64, BigInt(arg)));
  const onStack = words.slice(registers.length), rsp = u.gpr(RSP);
  if (onStack.length > 0) {
    // Behind the return address of the call.
    const at = rsp - BigInt(onStack.length + 1 & ~1) * 8n;
    for (const [i, word] of onStack.entries()) yield* u.store64(gva(at + BigInt(i * 8)), word);
    u.setGpr(RSP, at);
  }
  words.slice(0, registers.length).forEach((word, i) => u.setGpr(registers[i]!, word));
  u.setGpr(RAX, BigInt(number));
  yield* u.call(code);
  if (onStack.length > 0) u.setGpr(RSP, rsp);
  const failed = (u.cpu.rflags & CARRY) !== 0;
  const value = BigInt.asIntN(64, u.gpr(RAX));
  return failed ? { errno: Number(value), value: -1n } : { errno: 0, value };
}
