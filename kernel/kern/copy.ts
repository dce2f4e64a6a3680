/**
 * Copying between kernel and user (`copyin`, `copyout`): user addresses only, and a fault that cannot be mended is an answer.
 *
 * Room: `kernel/kern/`; imports the gate's processor and the address layout. A fault on the way is a real one: the processor
 * delivers it to the kernel, whose trap() gives the operation up.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import { type Exec, type GateCpu, OperationAborted } from "../../hw/gates.ts";
import { VM_MAX_USER_ADDRESS } from "../platform/pc64/vmparam.ts";

/** Reads user memory; undefined when it is not all there (EFAULT). */
export function* copyin(
  cpu: GateCpu,
  from: bigint,
  bytes: number,
): Exec<Uint8Array<ArrayBuffer> | undefined> {
  if (from >= VM_MAX_USER_ADDRESS || from + BigInt(bytes) > VM_MAX_USER_ADDRESS) return undefined;
  cpu.mayAbort = true;
  try {
    return yield* cpu.loadBytes(from as Gva, bytes);
  } catch (error) {
    if (error instanceof OperationAborted) return undefined;
    throw error;
  } finally {
    cpu.mayAbort = false;
  }
}
