/**
 * TypeScript programs at ring 3 for tests: each name is a file `/bin/NAME` that runs a function.
 *
 * @module
 */
import type { Gva } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import { R } from "../../../hw/state.ts";
import { userSyscall } from "../../../kernel/proc/user_gate.ts";
import { boot, type Booted, type BootOptions } from "../kernel_fixture.ts";

/** A program: its result is its exit status. */
export type GateProgram = (u: GateCpu) => Exec<number>;

/** Runs `first` (and what it executes) on a booted kernel; the others can be executed by path. */
export function runGates(programs: Readonly<Record<string, GateProgram>>, options: BootOptions = {}): Booted {
  const files = Object.keys(programs).map((name) => ({
    name,
    file: new TextEncoder().encode(`#!gate ${name}\n`),
  }));
  const { kernel, ...machine } = options;
  return boot(files, {
    ...machine,
    kernel: { userGates: programs, commands: [[`/bin/${files[0]!.name}`]], faultReports: false, ...kernel },
  });
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

/** A system call's value, or minus the error number. */
export function* call(u: GateCpu, number: number, ...args: readonly (bigint | number)[]): Exec<number> {
  const { errno, value } = yield* userSyscall(u, number, ...args);
  return errno === 0 ? Number(value) : -errno;
}
