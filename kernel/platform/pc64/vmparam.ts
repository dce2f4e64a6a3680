/**
 * Where things stand in the address space; DragonFly's names and slots (`sys/platform/pc64/include/vmparam.h`, `pmap.h`).
 *
 *     slot   0 … 255   user                     0x0000_0000_0000_0000
 *     slot 256         recursive map            0xFFFF_8000_0000_0000   (not used by this kernel yet, kept free)
 *     slot 384 … 447   direct map               0xFFFF_C000_0000_0000
 *     slot 511         kernel                   0xFFFF_FF80_0000_0000
 *                      image at KERNBASE + 1 M  0xFFFF_FFFF_8000_0000
 *
 * Room: leaf of `kernel/`; imports types.
 *
 * @module
 */
import { type Gva, gva, type Hpa, hpa } from "../../../hw/address.ts";
import type { KernelLayout } from "../layout.ts";

/** First slot of the direct map in the PML4. */
export const DMPML4I = 384;
/** Slot of the kernel in the PML4. */
export const KPML4I = 511;
/** Linear address of physical address 0 in the direct map. */
export const DMAP_MIN_ADDRESS: Gva = gva(0xffff_c000_0000_0000n);
/** Linear address that physical address 0 has in the kernel's own 1-GiB window. */
export const KERNBASE: Gva = gva(0xffff_ffff_8000_0000n);
/** First address of kernel virtual memory (`VM_MIN_KERNEL_ADDRESS`). */
export const VM_MIN_KERNEL_ADDRESS: Gva = gva(0xffff_ff80_0000_0000n);
/** The layout of a kernel on the machine. */
export const PC64_LAYOUT: KernelLayout = {
  dmapMin: DMAP_MIN_ADDRESS,
  kvaMin: VM_MIN_KERNEL_ADDRESS,
  kvaEnd: KERNBASE,
  userLevel: false,
};
/** Physical address at which the kernel's image is loaded. */
export const KERNLOAD: Hpa = hpa(0x10_0000);
/** First address that is not the user's. */
export const VM_MAX_USER_ADDRESS: Gva = gva(0x0000_7fff_ffff_f000n);
/** Top of the user stack. */
export const USRSTACK: Gva = VM_MAX_USER_ADDRESS;
/** Bytes of user stack that exist; below them stands nothing, so that an overflow faults. */
export const USER_STACK_BYTES = 0x4_0000;
/** Bytes of a kernel stack. */
export const KSTACK_BYTES = 0x4000;
/** Physical page that other processors start in (the start-up IPI names it by its number). */
export const MPTRAMPOLINE: Hpa = hpa(0x8000);
/** Linear address of the local APIC's page in the kernel's window. */
export const LAPIC_VA: Gva = gva(0xffff_ffff_fee0_0000n);
/** Linear address of the I/O APIC's page in the kernel's window. */
export const IOAPIC_VA: Gva = gva(0xffff_ffff_fec0_0000n);
/** Physical pages of devices, all of which stand in the kernel's window: virtio block, I/O APIC, local APIC. */
export const DEVICE_PAGES: readonly Hpa[] = [hpa(0xfeb0_0000), hpa(0xfec0_0000), hpa(0xfee0_0000)];

/** Where a device's page stands in the kernel's window. */
export function deviceVa(physical: Hpa): Gva {
  return gva(0xffff_ffff_0000_0000n + BigInt(physical));
}

/** The direct map's address of a physical address (`PHYS_TO_DMAP`). */
export function physToDmap(address: Hpa): Gva {
  return (DMAP_MIN_ADDRESS + BigInt(address)) as Gva;
}

// ---- selectors (`sys/platform/pc64/include/segments.h`)

/** Selectors of the GDT. SYSRET and SYSCALL want kernel code, kernel data and user 32-bit code, user data, user code in a row. */
export const SELECTOR = {
  KCODE: 0x08,
  KDATA: 0x10,
  UCODE32: 0x18 | 3,
  UDATA: 0x20 | 3,
  UCODE: 0x28 | 3,
  TSS: 0x30,
} as const;
/** Bytes of a GDT: six descriptors and the 16-byte one of the TSS. */
export const GDT_BYTES = 0x40;
