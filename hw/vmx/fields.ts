/**
 * The fields of the VMCS: encodings, names, and the feature without which a field does not exist (SDM vol. 3D, appendix B).
 *
 * An encoding says what the field is: bit 0 selects the upper half of a 64-bit field, bits 9:1 are the index, 11:10 the type (control,
 * read-only data, guest state, host state), 14:13 the width (16, 64, 32 bits, natural).
 *
 * Room: `hw/vmx/`; imports nothing but the names of the features.
 *
 * @module
 */
import type { VmxFeature } from "./features.ts";

/** Encodings by name. 64-bit fields have the encoding of full access. */
export const F = {
  VPID: 0x0000,
  POSTED_INTERRUPT_VECTOR: 0x0002,
  EPTP_INDEX: 0x0004,
  GUEST_ES_SELECTOR: 0x0800,
  GUEST_CS_SELECTOR: 0x0802,
  GUEST_SS_SELECTOR: 0x0804,
  GUEST_DS_SELECTOR: 0x0806,
  GUEST_FS_SELECTOR: 0x0808,
  GUEST_GS_SELECTOR: 0x080a,
  GUEST_LDTR_SELECTOR: 0x080c,
  GUEST_TR_SELECTOR: 0x080e,
  GUEST_INTERRUPT_STATUS: 0x0810,
  PML_INDEX: 0x0812,
  HOST_ES_SELECTOR: 0x0c00,
  HOST_CS_SELECTOR: 0x0c02,
  HOST_SS_SELECTOR: 0x0c04,
  HOST_DS_SELECTOR: 0x0c06,
  HOST_FS_SELECTOR: 0x0c08,
  HOST_GS_SELECTOR: 0x0c0a,
  HOST_TR_SELECTOR: 0x0c0c,
  IO_BITMAP_A: 0x2000,
  IO_BITMAP_B: 0x2002,
  MSR_BITMAPS: 0x2004,
  EXIT_MSR_STORE_ADDRESS: 0x2006,
  EXIT_MSR_LOAD_ADDRESS: 0x2008,
  ENTRY_MSR_LOAD_ADDRESS: 0x200a,
  EXECUTIVE_VMCS_POINTER: 0x200c,
  PML_ADDRESS: 0x200e,
  TSC_OFFSET: 0x2010,
  VIRTUAL_APIC_ADDRESS: 0x2012,
  APIC_ACCESS_ADDRESS: 0x2014,
  POSTED_INTERRUPT_DESCRIPTOR: 0x2016,
  VM_FUNCTION_CONTROLS: 0x2018,
  EPT_POINTER: 0x201a,
  EOI_EXIT_BITMAP_0: 0x201c,
  EOI_EXIT_BITMAP_1: 0x201e,
  EOI_EXIT_BITMAP_2: 0x2020,
  EOI_EXIT_BITMAP_3: 0x2022,
  EPTP_LIST_ADDRESS: 0x2024,
  VMREAD_BITMAP: 0x2026,
  VMWRITE_BITMAP: 0x2028,
  VE_INFORMATION_ADDRESS: 0x202a,
  XSS_EXITING_BITMAP: 0x202c,
  TSC_MULTIPLIER: 0x2032,
  GUEST_PHYSICAL_ADDRESS: 0x2400,
  VMCS_LINK_POINTER: 0x2800,
  GUEST_DEBUGCTL: 0x2802,
  GUEST_PAT: 0x2804,
  GUEST_EFER: 0x2806,
  GUEST_PDPTE0: 0x280a,
  GUEST_PDPTE1: 0x280c,
  GUEST_PDPTE2: 0x280e,
  GUEST_PDPTE3: 0x2810,
  HOST_PAT: 0x2c00,
  HOST_EFER: 0x2c02,
  PIN_BASED_CONTROLS: 0x4000,
  PROCESSOR_BASED_CONTROLS: 0x4002,
  EXCEPTION_BITMAP: 0x4004,
  PAGE_FAULT_ERROR_CODE_MASK: 0x4006,
  PAGE_FAULT_ERROR_CODE_MATCH: 0x4008,
  CR3_TARGET_COUNT: 0x400a,
  EXIT_CONTROLS: 0x400c,
  EXIT_MSR_STORE_COUNT: 0x400e,
  EXIT_MSR_LOAD_COUNT: 0x4010,
  ENTRY_CONTROLS: 0x4012,
  ENTRY_MSR_LOAD_COUNT: 0x4014,
  ENTRY_INTERRUPTION_INFORMATION: 0x4016,
  ENTRY_EXCEPTION_ERROR_CODE: 0x4018,
  ENTRY_INSTRUCTION_LENGTH: 0x401a,
  TPR_THRESHOLD: 0x401c,
  SECONDARY_CONTROLS: 0x401e,
  PLE_GAP: 0x4020,
  PLE_WINDOW: 0x4022,
  INSTRUCTION_ERROR: 0x4400,
  EXIT_REASON: 0x4402,
  EXIT_INTERRUPTION_INFORMATION: 0x4404,
  EXIT_INTERRUPTION_ERROR_CODE: 0x4406,
  IDT_VECTORING_INFORMATION: 0x4408,
  IDT_VECTORING_ERROR_CODE: 0x440a,
  EXIT_INSTRUCTION_LENGTH: 0x440c,
  EXIT_INSTRUCTION_INFORMATION: 0x440e,
  GUEST_ES_LIMIT: 0x4800,
  GUEST_CS_LIMIT: 0x4802,
  GUEST_SS_LIMIT: 0x4804,
  GUEST_DS_LIMIT: 0x4806,
  GUEST_FS_LIMIT: 0x4808,
  GUEST_GS_LIMIT: 0x480a,
  GUEST_LDTR_LIMIT: 0x480c,
  GUEST_TR_LIMIT: 0x480e,
  GUEST_GDTR_LIMIT: 0x4810,
  GUEST_IDTR_LIMIT: 0x4812,
  GUEST_ES_ACCESS_RIGHTS: 0x4814,
  GUEST_CS_ACCESS_RIGHTS: 0x4816,
  GUEST_SS_ACCESS_RIGHTS: 0x4818,
  GUEST_DS_ACCESS_RIGHTS: 0x481a,
  GUEST_FS_ACCESS_RIGHTS: 0x481c,
  GUEST_GS_ACCESS_RIGHTS: 0x481e,
  GUEST_LDTR_ACCESS_RIGHTS: 0x4820,
  GUEST_TR_ACCESS_RIGHTS: 0x4822,
  GUEST_INTERRUPTIBILITY: 0x4824,
  GUEST_ACTIVITY: 0x4826,
  GUEST_SMBASE: 0x4828,
  GUEST_SYSENTER_CS: 0x482a,
  PREEMPTION_TIMER_VALUE: 0x482e,
  HOST_SYSENTER_CS: 0x4c00,
  CR0_MASK: 0x6000,
  CR4_MASK: 0x6002,
  CR0_READ_SHADOW: 0x6004,
  CR4_READ_SHADOW: 0x6006,
  CR3_TARGET_0: 0x6008,
  CR3_TARGET_1: 0x600a,
  CR3_TARGET_2: 0x600c,
  CR3_TARGET_3: 0x600e,
  EXIT_QUALIFICATION: 0x6400,
  IO_RCX: 0x6402,
  IO_RSI: 0x6404,
  IO_RDI: 0x6406,
  IO_RIP: 0x6408,
  GUEST_LINEAR_ADDRESS: 0x640a,
  GUEST_CR0: 0x6800,
  GUEST_CR3: 0x6802,
  GUEST_CR4: 0x6804,
  GUEST_ES_BASE: 0x6806,
  GUEST_CS_BASE: 0x6808,
  GUEST_SS_BASE: 0x680a,
  GUEST_DS_BASE: 0x680c,
  GUEST_FS_BASE: 0x680e,
  GUEST_GS_BASE: 0x6810,
  GUEST_LDTR_BASE: 0x6812,
  GUEST_TR_BASE: 0x6814,
  GUEST_GDTR_BASE: 0x6816,
  GUEST_IDTR_BASE: 0x6818,
  GUEST_DR7: 0x681a,
  GUEST_RSP: 0x681c,
  GUEST_RIP: 0x681e,
  GUEST_RFLAGS: 0x6820,
  GUEST_PENDING_DEBUG: 0x6822,
  GUEST_SYSENTER_ESP: 0x6824,
  GUEST_SYSENTER_EIP: 0x6826,
  HOST_CR0: 0x6c00,
  HOST_CR3: 0x6c02,
  HOST_CR4: 0x6c04,
  HOST_FS_BASE: 0x6c06,
  HOST_GS_BASE: 0x6c08,
  HOST_TR_BASE: 0x6c0a,
  HOST_GDTR_BASE: 0x6c0c,
  HOST_IDTR_BASE: 0x6c0e,
  HOST_SYSENTER_ESP: 0x6c10,
  HOST_SYSENTER_EIP: 0x6c12,
  HOST_RSP: 0x6c14,
  HOST_RIP: 0x6c16,
} as const;

/** Name of a field. */
export type FieldName = keyof typeof F;
/** Encoding of a field. */
export type Field = typeof F[FieldName];

/** Type of a field: bits 11:10 of its encoding. */
export const FIELD_TYPE = { CONTROL: 0, READ_ONLY: 1, GUEST: 2, HOST: 3 } as const;
/** Width of a field: bits 14:13 of its encoding. */
export const FIELD_WIDTH = { W16: 0, W64: 1, W32: 2, NATURAL: 3 } as const;

/** The field's {@link FIELD_TYPE}. */
export function fieldType(encoding: number): number {
  return (encoding >>> 10) & 3;
}
/** The field's {@link FIELD_WIDTH}. */
export function fieldWidth(encoding: number): number {
  return (encoding >>> 13) & 3;
}

/** Fields that exist only with one of these features; all others always do. */
const NEEDS: { readonly [name in FieldName]?: readonly VmxFeature[] } = {
  VPID: ["vmx-vpid"],
  POSTED_INTERRUPT_VECTOR: ["vmx-posted-intr"],
  EPTP_INDEX: ["vmx-ept-violation-ve"],
  GUEST_INTERRUPT_STATUS: ["vmx-vintr-delivery"],
  PML_INDEX: ["vmx-pml"],
  MSR_BITMAPS: ["vmx-msr-bitmap"],
  PML_ADDRESS: ["vmx-pml"],
  VIRTUAL_APIC_ADDRESS: ["vmx-flexpriority"],
  TPR_THRESHOLD: ["vmx-flexpriority"],
  APIC_ACCESS_ADDRESS: ["vmx-apic-access"],
  POSTED_INTERRUPT_DESCRIPTOR: ["vmx-posted-intr"],
  VM_FUNCTION_CONTROLS: ["vmx-vmfunc"],
  EPT_POINTER: ["vmx-ept"],
  EOI_EXIT_BITMAP_0: ["vmx-vintr-delivery"],
  EOI_EXIT_BITMAP_1: ["vmx-vintr-delivery"],
  EOI_EXIT_BITMAP_2: ["vmx-vintr-delivery"],
  EOI_EXIT_BITMAP_3: ["vmx-vintr-delivery"],
  EPTP_LIST_ADDRESS: ["vmx-eptp-switching"],
  VMREAD_BITMAP: ["vmx-shadow-vmcs"],
  VMWRITE_BITMAP: ["vmx-shadow-vmcs"],
  VE_INFORMATION_ADDRESS: ["vmx-ept-violation-ve"],
  XSS_EXITING_BITMAP: ["vmx-xsaves"],
  TSC_MULTIPLIER: ["vmx-tsc-scaling"],
  GUEST_PHYSICAL_ADDRESS: ["vmx-ept"],
  GUEST_PAT: ["vmx-entry-load-pat", "vmx-exit-save-pat"],
  GUEST_EFER: ["vmx-entry-load-efer", "vmx-exit-save-efer"],
  GUEST_PDPTE0: ["vmx-ept"],
  GUEST_PDPTE1: ["vmx-ept"],
  GUEST_PDPTE2: ["vmx-ept"],
  GUEST_PDPTE3: ["vmx-ept"],
  HOST_PAT: ["vmx-exit-load-pat"],
  HOST_EFER: ["vmx-exit-load-efer"],
  SECONDARY_CONTROLS: ["vmx-secondary-ctls"],
  PLE_GAP: ["vmx-ple"],
  PLE_WINDOW: ["vmx-ple"],
  PREEMPTION_TIMER_VALUE: ["vmx-preemption-timer"],
};

/** All fields in the order of their encodings. */
export const fieldNames: readonly FieldName[] = (Object.keys(F) as FieldName[]).sort((a, b) => F[a] - F[b]);

const names = new Map<number, FieldName>(fieldNames.map((name) => [F[name], name]));

/** Name of the field with this encoding (bit 0 is not looked at). */
export function fieldName(encoding: number): FieldName | undefined {
  return names.get(encoding & ~1);
}

/** Whether a processor with these features has the field. */
export function fieldExists(name: FieldName, features: ReadonlySet<string>): boolean {
  const needs = NEEDS[name];
  return needs === undefined || needs.some((feature) => features.has(feature));
}

/** Bytes of a field's place in the region, whatever its width. */
const FIELD_BYTES = 8;
/** First byte of the fields in a VMCS region; before it stand revision, abort indicator and launch state. */
const FIRST_FIELD = 16;

/**
 * By encoding (bit 0 clear): where the field stands in a VMCS region, in bytes from its beginning; 0 where there is no field. The
 * layout is ours, and the same for all models.
 */
export const fieldOffset: Uint16Array = new Uint16Array(0x8000);
fieldNames.forEach((name, i) => {
  fieldOffset[F[name]] = FIRST_FIELD + i * FIELD_BYTES;
});
