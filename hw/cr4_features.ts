/**
 * Which feature each bit of CR4 needs: for MOV to CR4, and for the bits that VMX lets CR4 have.
 *
 * Room: `hw/`; leaf: imports nothing. SDM vol. 3A, "Control Registers".
 *
 * @module
 */

/** Bit of CR4, and the CPUID feature without which it is reserved. */
export const CR4_FEATURES: readonly (readonly [bit: number, feature: string])[] = [
  [1 << 0, "vme"],
  [1 << 1, "vme"], // PVI
  [1 << 2, "tsc"], // TSD
  [1 << 3, "de"],
  [1 << 4, "pse"],
  [1 << 5, "pae"],
  [1 << 6, "mce"],
  [1 << 7, "pge"],
  [1 << 8, "fpu"], // PCE
  [1 << 9, "fxsr"], // OSFXSR
  [1 << 10, "sse"], // OSXMMEXCPT
  [1 << 11, "umip"],
  [1 << 12, "la57"],
  [1 << 13, "vmx"], // VMXE
  [1 << 16, "fsgsbase"],
  [1 << 17, "pcid"],
  [1 << 18, "xsave"], // OSXSAVE
  [1 << 20, "smep"],
  [1 << 21, "smap"],
  [1 << 22, "pku"], // PKE
];
