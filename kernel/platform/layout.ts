/**
 * Where things stand in a kernel's address space: what differs between a kernel on the machine and one in a process.
 *
 * Room: `kernel/platform/`; imports types. The values are a platform's (pc64/vmparam.ts, vkernel64/vmparam.ts).
 *
 * @module
 */
import type { Gva, Hpa } from "../../hw/address.ts";

/** The layout of a kernel. */
export interface KernelLayout {
  /** Linear address of physical address 0 in the direct map (`DMAP_MIN_ADDRESS`). */
  readonly dmapMin: bigint;
  /** First address of kernel virtual memory (`VM_MIN_KERNEL_ADDRESS`, `KvaStart`). */
  readonly kvaMin: Gva;
  /** End of what kernel_map may give out (`virtual_end`, `KvaEnd`). */
  readonly kvaEnd: Gva;
  /** The kernel itself runs at user level (a vkernel): its own entries have U, as its programs' have. */
  readonly userLevel: boolean;
}

/** The direct map's address of a physical address (`PHYS_TO_DMAP`). */
export function physToDmap(k: { readonly layout: KernelLayout }, address: Hpa): Gva {
  return (k.layout.dmapMin + BigInt(address)) as Gva;
}
