/**
 * Copying between kernel and user (`copyin`, `copyout`, `copyinstr`, `fuword` …): user addresses only, and a fault that cannot be mended
 * is an answer.
 *
 * Room: `kernel/kern/`; imports the gate's processor and the address layout.
 *
 * As in DragonFly after the 2013 work these are dispatchers: the hooks of the current process's pmap say how its memory is reached
 * (`pmap->copyin` …). The `std_*` ones here go through the address space in force: a fault on the way is a real one, the processor
 * delivers it to the kernel, vm_fault mends it or trap() gives the operation up (`pcb_onfault`).
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import { type Exec, OperationAborted } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import type { PmapUserAccess } from "../pmap/pmap.ts";
import { VM_MAX_USER_ADDRESS } from "../platform/pc64/vmparam.ts";
import { ERRNO } from "./errno.ts";

/** Whether `[from, from + bytes)` is the user's. */
export function inUserSpace(from: bigint, bytes: number): boolean {
  return from >= 0n && from < VM_MAX_USER_ADDRESS && from + BigInt(bytes) <= VM_MAX_USER_ADDRESS;
}

/** Runs an operation that may be given up; undefined if it was. */
function* guarded<T>(cx: Cx, operation: () => Exec<T>): Exec<T | undefined> {
  const { cpu } = cx;
  cpu.mayAbort = true;
  try {
    return yield* operation();
  } catch (error) {
    if (error instanceof OperationAborted) return undefined;
    throw error;
  } finally {
    cpu.mayAbort = false;
  }
}

/** The hooks of an ordinary address space (`std_copyin` …). */
export const stdUserAccess: PmapUserAccess = {
  *copyin(cx, from, bytes) {
    if (!inUserSpace(from, bytes)) return undefined;
    return yield* guarded(cx, () => cx.cpu.loadBytes(from as Gva, bytes));
  },
  *copyout(cx, to, bytes) {
    if (!inUserSpace(to, bytes.length)) return ERRNO.EFAULT;
    const done = yield* guarded(cx, function* () {
      yield* cx.cpu.storeBytes(to as Gva, bytes);
      return true;
    });
    return done === true ? 0 : ERRNO.EFAULT;
  },
};

function accessOf(cx: Cx): PmapUserAccess {
  return cx.proc?.pVmspace?.vmPmap.userAccess ?? stdUserAccess;
}

/** Reads user memory; undefined when it is not all there (EFAULT). */
export function* copyin(cx: Cx, from: bigint, bytes: number): Exec<Uint8Array<ArrayBuffer> | undefined> {
  if (bytes === 0) return new Uint8Array(0);
  return yield* accessOf(cx).copyin(cx, from, bytes);
}

/** Writes user memory; 0 or EFAULT. Bytes before the one that fails have been written. */
export function* copyout(cx: Cx, to: bigint, bytes: Uint8Array): Exec<number> {
  if (bytes.length === 0) return 0;
  return yield* accessOf(cx).copyout(cx, to, bytes);
}

const decoder = new TextDecoder();

/**
 * Reads a string that ends with a zero byte, `max` bytes with it at most (`copyinstr`).
 *
 * @returns The text, UTF-8 decoded; or EFAULT or ENAMETOOLONG.
 */
export function* copyinstr(cx: Cx, from: bigint, max: number): Exec<string | number> {
  const pieces: number[] = [];
  for (let at = from; pieces.length < max;) {
    const piece = Math.min(max - pieces.length, 4096 - Number(at & 0xfffn), 256);
    const bytes = yield* copyin(cx, at, piece);
    if (bytes === undefined) return ERRNO.EFAULT;
    const end = bytes.indexOf(0);
    for (const byte of end < 0 ? bytes : bytes.subarray(0, end)) pieces.push(byte);
    if (end >= 0) return decoder.decode(Uint8Array.from(pieces));
    at += BigInt(piece);
  }
  return ERRNO.ENAMETOOLONG;
}

/** Reads 64 bits of user memory; undefined when they are not there (`fuword`). */
export function* fuword(cx: Cx, from: bigint): Exec<bigint | undefined> {
  const bytes = yield* copyin(cx, from, 8);
  return bytes === undefined ? undefined : new DataView(bytes.buffer).getBigUint64(0, true);
}

/** Reads 32 bits of user memory, unsigned (`fuword32`). */
export function* fuword32(cx: Cx, from: bigint): Exec<number | undefined> {
  const bytes = yield* copyin(cx, from, 4);
  return bytes === undefined ? undefined : new DataView(bytes.buffer).getUint32(0, true);
}

/** Writes 64 bits of user memory; 0 or EFAULT (`suword`). */
export function suword(cx: Cx, to: bigint, value: bigint): Exec<number> {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
  return copyout(cx, to, bytes);
}

/** Writes 32 bits of user memory; 0 or EFAULT (`suword32`). */
export function suword32(cx: Cx, to: bigint, value: number): Exec<number> {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value >>> 0, true);
  return copyout(cx, to, bytes);
}
