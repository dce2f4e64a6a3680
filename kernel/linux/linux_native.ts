/**
 * DragonFly's system calls as the Linux ones use them: by number, with other words for arguments.
 *
 * Room: `kernel/linux/`; imports DragonFly's table.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { sysent } from "../kern/init_sysent.ts";
import {
  type Syscall,
  type SyscallArgs,
  type SyscallResult,
  SyscallWords,
  type Sysent,
} from "../kern/sysent.ts";
import { AT_FDCWD } from "../kern/vfs_path.ts";

const functions: ReadonlyMap<number, Syscall> = new Map(sysent.map((row) => [row[0], row[3]]));

/** DragonFly's system call with this number. @throws {TypeError} when there is none. */
function nativeCall(number: number): Syscall {
  const fn = functions.get(number);
  if (fn === undefined) throw new TypeError(`DragonFly has no system call ${number}`);
  return fn;
}

/** A second value goes into RDX, which a Linux call must leave alone. */
function firstOnly(result: SyscallResult): SyscallResult {
  return "value" in result && result.value2 !== undefined ? { value: result.value } : result;
}

/** Calls DragonFly's `number` with these arguments. */
export function* callNative(
  cx: Cx,
  number: number,
  ...words: readonly (bigint | number)[]
): Exec<SyscallResult> {
  const args = words.map((word) => BigInt.asUintN(64, BigInt(word)));
  return firstOnly(yield* nativeCall(number)(cx, new SyscallWords(number, args)));
}

/** A row that is DragonFly's `native` under Linux's number, arguments as they are. */
export function same(number: number, name: string, nargs: number, native: number): Sysent {
  const fn = nativeCall(native);
  return [number, name, nargs, function* (cx, uap) {
    return firstOnly(yield* fn(cx, uap));
  }];
}

/** A row that is DragonFly's `native` with the arguments that `words` makes of Linux's. */
export function mapped(
  number: number,
  name: string,
  nargs: number,
  native: number,
  words: (uap: SyscallArgs) => readonly (bigint | number)[],
): Sysent {
  nativeCall(native);
  return [number, name, nargs, (cx, uap) => callNative(cx, native, ...words(uap))];
}

/** Instead of a directory's descriptor: the working directory. */
const LINUX_AT_FDCWD = -100;

/** Argument `i`, a directory's descriptor, as DragonFly has it. */
export function dirfd(uap: SyscallArgs, i: number): number {
  const fd = uap.int(i);
  return fd === LINUX_AT_FDCWD ? AT_FDCWD : fd;
}

/** 0, or an error. */
export function result(error: number): SyscallResult {
  return error === 0 ? { value: 0n } : { error };
}
