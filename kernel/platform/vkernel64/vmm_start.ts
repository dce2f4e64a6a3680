/**
 * A vkernel moves into VMX non-root operation (`vkernel64` with VMM; `create_pagetables`, `init.c`): its page tables become real ones.
 *
 * Room: `kernel/platform/vkernel64/`; imports the host's calls.
 *
 * @module
 */
import type { Hpa } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import { HostError } from "./host.ts";

/** Bytes at the start of RAM for the tables that map the process's own addresses. */
export const VMM_RESERVED_BYTES = 0x10_000;

/** Enters. */
export function* enterVmm(_u: GateCpu, _root: Hpa, _base: number, _memory: number): Exec<void> {
  throw new HostError("-d vmm", 45);
}
