/**
 * Numbers of VMX as a kernel has them in its own header (`sys/platform/pc64/vmm/vmx.h`): capability MSRs, controls, exit reasons,
 * interruption information. Encodings of the VMCS's fields are hw's table `F`.
 *
 * Room: leaf of `kernel/vmm/`; imports nothing. SDM vol. 3C, "Virtual-Machine Control Structures", and vol. 3D, appendices A and C.
 *
 * @module
 */

/** MSRs (SDM vol. 3D, appendix A). */
export const MSR = {
  FEATURE_CONTROL: 0x3a,
  VMX_BASIC: 0x480,
  VMX_PINBASED_CTLS: 0x481,
  VMX_PROCBASED_CTLS: 0x482,
  VMX_EXIT_CTLS: 0x483,
  VMX_ENTRY_CTLS: 0x484,
  VMX_CR0_FIXED0: 0x486,
  VMX_CR0_FIXED1: 0x487,
  VMX_CR4_FIXED0: 0x488,
  VMX_CR4_FIXED1: 0x489,
  VMX_PROCBASED_CTLS2: 0x48b,
  VMX_EPT_VPID_CAP: 0x48c,
  VMX_TRUE_PINBASED_CTLS: 0x48d,
  VMX_TRUE_PROCBASED_CTLS: 0x48e,
  VMX_TRUE_EXIT_CTLS: 0x48f,
  VMX_TRUE_ENTRY_CTLS: 0x490,
  EFER: 0xc000_0080,
  STAR: 0xc000_0081,
  LSTAR: 0xc000_0082,
  CSTAR: 0xc000_0083,
  SFMASK: 0xc000_0084,
  FS_BASE: 0xc000_0100,
  GS_BASE: 0xc000_0101,
  KERNEL_GS_BASE: 0xc000_0102,
} as const;

/** CPUID.1:ECX, VMX. */
export const CPUID_VMX = 1n << 5n;
/** IA32_FEATURE_CONTROL: locked, VMXON outside SMX. */
export const FEATURE_CONTROL_LOCK = 1n;
/** IA32_FEATURE_CONTROL: VMXON outside SMX. */
export const FEATURE_CONTROL_VMXON = 4n;
/** IA32_VMX_BASIC: the TRUE capability MSRs exist. */
export const BASIC_TRUE_CTLS = 1n << 55n;
/** CR4.VMXE. */
export const CR4_VMXE = 0x2000n;

/** Pin-based controls. */
export const PINBASED = { EXTINT_EXITING: 1 << 0, NMI_EXITING: 1 << 3 } as const;
/** Primary processor-based controls. */
export const PROCBASED = {
  INTERRUPT_WINDOW: 1 << 2,
  HLT_EXITING: 1 << 7,
  CR3_LOAD_EXITING: 1 << 15,
  CR3_STORE_EXITING: 1 << 16,
  CR8_LOAD_EXITING: 1 << 19,
  CR8_STORE_EXITING: 1 << 20,
  MOV_DR_EXITING: 1 << 23,
  UNCONDITIONAL_IO: 1 << 24,
  USE_MSR_BITMAPS: 1 << 28,
  ACTIVATE_SECONDARY: 1 << 31,
} as const;
/** Secondary processor-based controls. */
export const PROCBASED2 = { ENABLE_EPT: 1 << 1, ENABLE_RDTSCP: 1 << 3, ENABLE_VPID: 1 << 5 } as const;
/** VM-exit controls. */
export const VMEXIT = { HOST_64: 1 << 9, SAVE_EFER: 1 << 20, LOAD_EFER: 1 << 21 } as const;
/** VM-entry controls. */
export const VMENTRY = { IA32E_GUEST: 1 << 9, LOAD_EFER: 1 << 15 } as const;

/** Bits of IA32_VMX_EPT_VPID_CAP. */
export const EPT_CAP = {
  PAGE_WALK_4: 1n << 6n,
  WRITE_BACK: 1n << 14n,
  INVEPT: 1n << 20n,
  ACCESSED_DIRTY: 1n << 21n,
  INVEPT_SINGLE: 1n << 25n,
  INVEPT_ALL: 1n << 26n,
} as const;
/** EPTP: memory type write back, four levels. */
export const EPTP_WB_4 = 6n | (3n << 3n);
/** EPTP: enable accessed and dirty flags. */
export const EPTP_AD = 1n << 6n;

/** INVEPT types. */
export const INVEPT = { SINGLE_CONTEXT: 1n, ALL_CONTEXTS: 2n } as const;

/** Basic exit reasons that the run loop knows. */
export const EXIT_REASON = {
  EXCEPTION: 0,
  EXT_INTR: 1,
  TRIPLE_FAULT: 2,
  INTR_WINDOW: 7,
  CPUID: 10,
  HLT: 12,
  INVD: 13,
  INVLPG: 14,
  RDPMC: 15,
  RDTSC: 16,
  VMCALL: 18,
  VMCLEAR: 19,
  VMXON: 27,
  CR_ACCESS: 28,
  MOV_DR: 29,
  IO: 30,
  RDMSR: 31,
  WRMSR: 32,
  ENTRY_GUEST_STATE: 33,
  EPT_VIOLATION: 48,
  EPT_MISCONFIG: 49,
  INVEPT: 50,
  INVVPID: 53,
  WBINVD: 54,
  XSETBV: 55,
} as const;

/** Names of exit reasons, for people and counters. */
export const EXIT_NAMES: Readonly<Record<number, string>> = {
  0: "exception or NMI",
  1: "external interrupt",
  2: "triple fault",
  7: "interrupt window",
  9: "task switch",
  10: "CPUID",
  12: "HLT",
  13: "INVD",
  14: "INVLPG",
  15: "RDPMC",
  16: "RDTSC",
  18: "VMCALL",
  19: "VMCLEAR",
  20: "VMLAUNCH",
  21: "VMPTRLD",
  22: "VMPTRST",
  23: "VMREAD",
  24: "VMRESUME",
  25: "VMWRITE",
  26: "VMXOFF",
  27: "VMXON",
  28: "control-register access",
  29: "MOV DR",
  30: "I/O instruction",
  31: "RDMSR",
  32: "WRMSR",
  33: "entry failure: guest state",
  34: "entry failure: MSR loading",
  36: "MWAIT",
  39: "MONITOR",
  40: "PAUSE",
  48: "EPT violation",
  49: "EPT misconfiguration",
  50: "INVEPT",
  51: "RDTSCP",
  53: "INVVPID",
  54: "WBINVD",
  55: "XSETBV",
};

/** VM-exit interruption information. */
export const INTR_INFO = {
  VECTOR: 0xff,
  TYPE: 7 << 8,
  TYPE_EXT_INTR: 0,
  TYPE_NMI: 2 << 8,
  TYPE_HARD_EXCEPTION: 3 << 8,
  TYPE_SOFT_INTR: 4 << 8,
  TYPE_PRIV_SOFT_EXCEPTION: 5 << 8,
  TYPE_SOFT_EXCEPTION: 6 << 8,
  DELIVER_CODE: 1 << 11,
  VALID: 1 << 31,
} as const;

/** Exit qualification of an EPT violation. */
export const EPT_QUAL = {
  READ: 1,
  WRITE: 2,
  EXECUTE: 4,
  LINEAR_VALID: 1 << 7,
  FINAL: 1 << 8,
} as const;

/** Guest segment access rights: type, S, DPL 3, present. */
export const SEG_AR = {
  DATA_USER: 3 | (1 << 4) | (3 << 5) | (1 << 7),
  CODE_USER: 11 | (1 << 4) | (3 << 5) | (1 << 7) | (1 << 13),
  DATA_KERNEL: 3 | (1 << 4) | (1 << 7) | (1 << 14) | (1 << 15),
  CODE_KERNEL: 11 | (1 << 4) | (1 << 7) | (1 << 13) | (1 << 15),
  TSS_BUSY: 11 | (1 << 7),
  UNUSABLE: 1 << 16,
} as const;
