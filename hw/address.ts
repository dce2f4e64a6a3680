/**
 * The three kinds of address, and the few conversions between them.
 *
 * Room: leaf of `hw/`; imports nothing. A linear address (`Gva`) is 64 bits wide and therefore a bigint at
 * the public face; on hot paths it travels as two 32-bit halves. Physical addresses are at most 52 bits wide
 * (MAXPHYADDR ≤ 52, SDM vol. 3A, "Paging"), which a JavaScript number holds exactly.
 *
 * @module
 */

/** A linear (virtual) address, 64 bits, canonical or not. SDM vol. 3A, "Linear Address Space". */
export type Gva = bigint & { readonly addressKind: "gva" };
/** A guest-physical address: what a guest's own paging produces. Outside VMX non-root operation it equals an {@link Hpa}. */
export type Gpa = number & { readonly addressKind: "gpa" };
/** A host-physical address: what the machine's physical memory map is indexed by. */
export type Hpa = number & { readonly addressKind: "hpa" };

/** Brands `value` as a linear address, reduced to 64 bits. */
export function gva(value: bigint | number): Gva {
  return BigInt.asUintN(64, BigInt(value)) as Gva;
}

/** Brands `value` as a guest-physical address. The caller vouches for 0 ≤ value < 2^52. */
export function gpa(value: number): Gpa {
  return value as Gpa;
}

/** Brands `value` as a host-physical address. The caller vouches for 0 ≤ value < 2^52. */
export function hpa(value: number): Hpa {
  return value as Hpa;
}

/** Outside VMX non-root operation the guest-physical address is the host-physical one; this is the one place that says so. */
export function rootGpaToHpa(address: Gpa): Hpa {
  return address as number as Hpa;
}

/** Bytes in the smallest page. */
export const PAGE_SIZE = 4096;
/** log2 of {@link PAGE_SIZE}. */
export const PAGE_SHIFT = 12;
