/**
 * Where a kernel keeps the trampoline's object ({@link "./sigtramp.ts"}).
 *
 * Room: leaf of `kernel/proc/`; imports types.
 *
 * @module
 */
import type { VmObject } from "../vm/vm_object.ts";

/** The trampoline of a kernel. */
export class SigtrampState {
  /** One page; made at the first exec. */
  object: VmObject | undefined = undefined;
  /** The page has its code. */
  filled = false;
}
