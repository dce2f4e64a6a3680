/**
 * What a system call is (`sys/sys/sysent.h`): its arguments, its answer, and the rows that owners give to init_sysent.
 *
 * Room: leaf of `kernel/`; imports types only.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";

/**
 * What a system call gives: a value for RAX (and one for RDX), or an error number. Beside DragonFly's numbers there are
 * ERESTART (−1: run the call again once the signal has been handled) and EJUSTRETURN (−2: the frame is as it shall be, touch nothing).
 */
export type SyscallResult =
  | { readonly value: bigint; readonly value2?: bigint }
  | { readonly error: number };

/** `ERESTART`: the system call is carried out again after the signal's handler. */
export const ERESTART = -1;
/** `EJUSTRETURN`: return to user mode with the frame as it stands. */
export const EJUSTRETURN = -2;

/** The answer 0, made once. */
export const SYSCALL_OK: SyscallResult = { value: 0n };

/** The registers of the amd64 convention: RDI RSI RDX R10 R8 R9 of the frame; further words stand on the user's stack. */
export interface SyscallArgs {
  /** The call's number. */
  readonly number: number;
  /** Argument `i` (0 first), all 64 bits, unsigned. */
  arg(i: number): bigint;
  /** Argument `i` as a C `int`. */
  int(i: number): number;
  /** Argument `i` as a C `unsigned int`. */
  uint(i: number): number;
  /**
   * Argument `i` as a `size_t` in a number. Above 2^53 it is a number that is as large but not exact, so that any limit check
   * refuses it.
   */
  size(i: number): number;
  /** Argument `i` as a C `long`, signed. */
  long(i: number): bigint;
}

/** A system call. */
export type Syscall = (cx: Cx, uap: SyscallArgs) => Exec<SyscallResult>;

/** One row of `syscalls.master`: number, name, count of arguments, function. */
export type Sysent = readonly [number: number, name: string, nargs: number, fn: Syscall];

/** What an owner of system calls exports. */
export type SyscallTable = readonly Sysent[];

/** Arguments from up to eight 64-bit words. */
export class SyscallWords implements SyscallArgs {
  readonly number: number;
  readonly #words: ArrayLike<bigint>;
  readonly #order: readonly number[] | undefined;

  /**
   * @param words Unsigned; missing ones are 0.
   * @param order Where each argument is in them; default: one after the other. The registers of a frame stand in an order of their own.
   */
  constructor(number: number, words: ArrayLike<bigint>, order?: readonly number[]) {
    this.number = number;
    this.#words = words;
    this.#order = order;
  }
  arg(i: number): bigint {
    const at = this.#order === undefined ? i : this.#order[i];
    return (at === undefined ? undefined : this.#words[at]) ?? 0n;
  }
  int(i: number): number {
    return Number(BigInt.asIntN(32, this.arg(i)));
  }
  uint(i: number): number {
    return Number(this.arg(i) & 0xffff_ffffn);
  }
  size(i: number): number {
    return Number(this.arg(i));
  }
  long(i: number): bigint {
    return BigInt.asIntN(64, this.arg(i));
  }
}
