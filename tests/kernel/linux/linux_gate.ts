/**
 * TypeScript programs with the Linux personality, for tests: `#!linux-gate NAME`.
 *
 * @module
 */
import type { Gva } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import { R } from "../../../hw/state.ts";
import { USER_GATE_SYSCALL } from "../../../kernel/proc/user_gate.ts";
import { boot, type Booted, type BootOptions } from "../kernel_fixture.ts";

/** Runs a program; its result is its exit status. */
export function runLinux(body: (u: GateCpu) => Exec<number>, options: BootOptions = {}): Booted {
  const file = new TextEncoder().encode("#!linux-gate test\n");
  return boot([{ name: "test", file }], {
    ...options,
    kernel: { userGates: { test: body }, faultReports: false, ...options.kernel },
  });
}

const ARGUMENTS = [R.RDI, R.RSI, R.RDX, R.R10, R.R8, R.R9];

/** A system call: RAX, signed. An error is a small negative number, as Linux has it. */
export function* linux(u: GateCpu, number: number, ...args: readonly (bigint | number)[]): Exec<number> {
  args.forEach((arg, i) => u.setGpr(ARGUMENTS[i]!, BigInt.asUintN(64, BigInt(arg))));
  u.setGpr(R.RAX, BigInt(number));
  yield* u.call(USER_GATE_SYSCALL);
  return Number(BigInt.asIntN(64, u.gpr(R.RAX)));
}

/** Room in the program's memory: below its stack pointer. */
export function scratch(u: GateCpu, at = 0): Gva {
  return ((u.gpr(R.RSP) & ~0xfffn) - 0x4000n + BigInt(at)) as Gva;
}

/** Puts a string with its zero into memory; gives its address. */
export function* text(u: GateCpu, at: Gva, string: string): Exec<Gva> {
  yield* u.storeBytes(at, new TextEncoder().encode(string + "\0"));
  return at;
}
