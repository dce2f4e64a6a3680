/**
 * Where things stand in a vkernel that is a kernel in ring 0: pc64's address space, with RAM elsewhere.
 *
 *     guest-physical   0x0040_0000          the process that it is: what its start still runs on (vkernel64/vmparam.ts)
 *                      0x1_0000_0000        RAM: boot tables, bytes for host calls, words and stacks of host threads
 *                      0x1_0010_0000        image, archives, free memory
 *     linear           as pc64: direct map in slot 384 (of RAM only), kernel in slot 511, image at KERNBASE + 1 MiB
 *
 * Room: leaf of `kernel/platform/`; imports the layouts of pc64 and vkernel64.
 *
 * @module
 */
import { type Gva, gva, type Hpa, hpa } from "../../../hw/address.ts";
import type { KernelLayout } from "../layout.ts";
import { DMAP_MIN_ADDRESS, KERNBASE, KERNLOAD, PC64_LAYOUT } from "../pc64/vmparam.ts";
import { IO_BYTES, STACK_BYTES, VMM_RAM_VA } from "../vkernel64/vmparam.ts";

/** The layout. */
export const RING0_LAYOUT: KernelLayout = PC64_LAYOUT;
/** First byte of RAM. */
export const RAM_START = Number(VMM_RAM_VA);
/** Page tables of the start; other processors and cothreads begin on them, the latter stay. The first page is the root. */
export const BOOT_TABLES: Hpa = hpa(RAM_START);
/** Pages for them: roots, and tables for 2 GiB of RAM twice. */
export const BOOT_TABLE_PAGES = 16;
const IO = RAM_START + 0x1_0000, WORDS = RAM_START + 0x6_0000, STACKS = RAM_START + 0x7_0000;
/** Where the image is put. */
export const IMAGE: Hpa = hpa(RAM_START + KERNLOAD);
/** The image's address in the kernel's own window. */
export const IMAGE_VA: Gva = gva(KERNBASE + BigInt(KERNLOAD));
/** Vector by which the host says that signals have come. */
export const VECTOR_SIGNAL = 0x30;

/** Linear address of RAM that everybody reaches: the direct map's. */
function direct(pa: number): Gva {
  return gva(DMAP_MIN_ADDRESS + BigInt(pa));
}
/** Bytes for the host calls of a host thread. */
export function threadIo(thread: number): Gva {
  return direct(IO + thread * IO_BYTES);
}
/** The word that a cothread sleeps on. */
export function threadWord(thread: number): Gva {
  return direct(WORDS + thread * 64);
}
/** Top of the stack that a host thread begins on. */
export function threadStackTop(thread: number): Gva {
  return direct(STACKS + (thread + 1) * STACK_BYTES);
}
