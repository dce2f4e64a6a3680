/**
 * The page with the signal trampoline that every program has at the top of its address space (`sigcode`, KERN_SIGTRAMP).
 *
 * Room: `kernel/proc/`; imports objects and pages. Deviation: DragonFly 3.6 copied the code to each program's stack; a page of its own, as
 * later versions have it, lets stacks be not executable.
 *
 * @module
 */
import { gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { physToDmap } from "../platform/layout.ts";
import {
  OBJT_PHYS,
  type VmObject,
  vmObjectAllocate,
  vmObjectDrop,
  vmObjectHold,
  vmObjectReferenceLocked,
} from "../vm/vm_object.ts";
import { vmPageGrab } from "../vm/vm_page_cache.ts";
import {
  VM_ALLOC_NORMAL,
  VM_ALLOC_RETRY,
  VM_PAGE_BITS_ALL,
  vmPageToPhys,
  vmPageWakeup,
  vmPageWire,
} from "../vm/vm_page.ts";
import { SIGCODE } from "./sendsig.ts";
import type { SigtrampState } from "./sigtramp_state.ts";

/** An object with the trampoline's page, with a reference for the caller. Made at the first exec; it stays. */
export function* sigtrampObject(cx: Cx): Exec<VmObject> {
  const state: SigtrampState = cx.k.sigtramp;
  const object = state.object ??= vmObjectAllocate(cx, OBJT_PHYS, 1);
  yield* vmObjectHold(cx, object);
  if (!state.filled) {
    const m = yield* vmPageGrab(cx, object, 0, VM_ALLOC_NORMAL | VM_ALLOC_RETRY);
    kassert(m !== undefined, "sigtramp: no page");
    if (!state.filled) {
      const page = new Uint8Array(4096).fill(0xcc);
      page.set(SIGCODE);
      yield* cx.cpu.storeBytes(gva(physToDmap(cx.k, vmPageToPhys(m))), page);
      m.valid = VM_PAGE_BITS_ALL;
      vmPageWire(cx, m);
      state.filled = true;
    }
    vmPageWakeup(cx, m);
  }
  vmObjectReferenceLocked(cx, object);
  vmObjectDrop(cx, object);
  return object;
}
