/**
 * Full guests: kernels in ring 0 of non-root operation.
 *
 * Room: `kernel/vmm/`.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { panic } from "../kern/panic.ts";
import type { VmxFullGuest, VmxThread } from "./vmm_state.ts";

/** Before an entry. */
export function* vmxFullBeforeEntry(_cx: Cx, _vti: VmxThread, _full: VmxFullGuest): Exec<boolean> {
  yield;
  return true;
}
/** After an exit. */
export function vmxFullAfterExit(_cx: Cx, _vti: VmxThread, _full: VmxFullGuest): void {}
/** An exit. */
export function* vmxFullExit(cx: Cx, _vti: VmxThread, _full: VmxFullGuest, _at: Gva): Exec<void> {
  yield;
  panic(cx, "no full guests yet");
}
