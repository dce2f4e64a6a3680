/**
 * Where things stand in a vkernel (`sys/platform/vkernel64`): in the process that it is, and in its kernel virtual memory.
 *
 *     process   0x0040_0000            the host's page for TypeScript programs: GATE, `syscall; ret`
 *               0x0050_0000            machine code of locore.ts
 *               0x0060_0000            per-processor pages; FS points at them (globaldata)
 *               0x0070_0000            bytes on their way to and from the host's system calls, per processor
 *               0x0080_0000            stacks of the processors and of cothreads
 *               0x2000_0000            VMM: what takes the place of the stack, and tables for the process's own addresses
 *               0x1_0000_0000          VMM: RAM; physical = process address (GPAs must lie below 512 GiB)
 *     kernel    0x80_0000_0000         KVA: slot 1 of the PML4, 512 GiB (`KvaStart`, `KvaEnd`)
 *               0x200_0000_0000        without VMM: the direct map, a plain mapping of the memory image
 *
 * Room: leaf of `kernel/platform/`; imports types.
 *
 * @module
 */
import { type Gva, gva } from "../../../hw/address.ts";
import type { KernelLayout } from "../layout.ts";
import { KERNBASE, KERNLOAD } from "../pc64/vmparam.ts";

/** Machine code of the vkernel. */
export const LOCORE_VA = 0x50_0000n;
/** Pages of the processors' globaldata; the first word is what an idle processor sleeps on. */
export const GD_VA = 0x60_0000n;
/** Bytes for system calls, {@link IO_BYTES} a thread of the host. */
export const IO_VA = 0x70_0000n;
/** See {@link IO_VA}. */
export const IO_BYTES = 0x4000;
/** Stacks for host threads that run no thread of the kernel yet. */
export const STACKS_VA = 0x80_0000n;
/** Bytes of each. */
export const STACK_BYTES = 0x4000;
/** Top of a host thread's. */
export function stackTop(thread: number): bigint {
  return STACKS_VA + BigInt((thread + 1) * STACK_BYTES);
}
/** Host threads of a vkernel: 16 processors and the cothreads. */
export const HOST_THREADS_MAX = 20;
/** A kernel in ring 0: `vmcall; ret`, the first bytes of its image. */
export const HYPERCALL_VA: Gva = gva(KERNBASE + BigInt(KERNLOAD));
/** First and last address of kernel virtual memory (`KvaStart`, `KvaEnd`). */
export const KVA_START: Gva = gva(0x80_0000_0000n);
/** See {@link KVA_START}. */
export const KVA_END: Gva = gva(0x100_0000_0000n);
/** Where the memory image is mapped as it is. */
export const DMAP_VA = 0x200_0000_0000n;
/** Where RAM is in a vkernel on the VMM. */
export const VMM_RAM_VA = 0x1_0000_0000n;

/** What takes the place of the process's stack there: 2 MiB, and tables behind it. */
export const VMM_STACK_VA = 0x2000_0000n;
/** See {@link VMM_STACK_VA}. */
export const VMM_TABLES_VA = 0x2020_0000n;

/** The layout on software page tables: physical addresses are offsets in the memory image. */
export const VPTE_LAYOUT: KernelLayout = {
  dmapMin: DMAP_VA,
  kvaMin: KVA_START,
  kvaEnd: KVA_END,
  userLevel: true,
};
/** The layout on the VMM: physical addresses are the process's. */
export const VMM_LAYOUT: KernelLayout = { dmapMin: 0n, kvaMin: KVA_START, kvaEnd: KVA_END, userLevel: true };
