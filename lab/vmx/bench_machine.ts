/**
 * A machine in VMX root operation with a valid VMCS for a 64-bit guest, set up from TypeScript: what the fuzzer starts from, and whoever
 * wants to look at a VM entry without writing a hypervisor.
 *
 * Room: `lab/vmx/`; imports hw's public face and the VMCS.
 *
 * @module
 */
import type { Cpu } from "../../hw/cpu.ts";
import { type EngineKind, Machine, type MachineOptions } from "../../hw/machine.ts";
import { RAM_BASE, S, SEG } from "../../hw/state.ts";
import { CR0, CR4, EFER, setSegment, updateMode } from "../../hw/sys/mode.ts";
import * as vmcs from "../../hw/vmcs.ts";
import { vmxCapability } from "../../hw/vmx/capability.ts";
import { VMX } from "../../hw/vmx/contract.ts";
import { ENTRY, EXIT } from "../../hw/vmx/controls.ts";
import { F, type FieldName, fieldNames, fieldWidth } from "../../hw/vmx/fields.ts";

/** Where things stand in the first MiB. */
export const PLACES = {
  GDT: 0x1000,
  IDT: 0x2000,
  TSS: 0x3000,
  TABLES: 0x4000,
  HANDLERS: 0x8000,
  HOST_CODE: 0x9000,
  HOST_STACK: 0xb000,
  GUEST_CODE: 0xc000,
  GUEST_STACK: 0xf000,
  VMXON: 0x1_0000,
  VMCS: 0x1_1000,
  /** Seven pages that pointers of the VMCS may name: bitmaps, virtual-APIC page, MSR areas, EPT. */
  PAGES: 0x1_2000,
} as const;

/** The machine and its one processor. */
export interface VmxBench {
  readonly machine: Machine;
  readonly cpu: Cpu;
  /** RAM. */
  readonly view: DataView;
}

const CODE = 8, DATA = 0x10, TSS = 0x18;

/** Builds the machine. Its VMCS is valid: VMLAUNCH enters a guest at {@link PLACES.GUEST_CODE}. */
export function vmxBench(engine: EngineKind = "interpreter", options: MachineOptions = {}): VmxBench {
  const machine = new Machine({ memory: 1 << 20, cpuModel: "icelake", ...options, engine });
  const cpu = machine.cpus[0]!;
  const view = new DataView(machine.memory.buffer, RAM_BASE, 1 << 20);
  cpu.set32(S.ATTENTION, 0);
  const descriptor = (selector: number, low: number, high: number) => {
    view.setUint32(PLACES.GDT + selector, low, true);
    view.setUint32(PLACES.GDT + selector + 4, high, true);
  };
  descriptor(CODE, 0xffff, 0x00af_9b00);
  descriptor(DATA, 0xffff, 0x00cf_9300);
  descriptor(TSS, (PLACES.TSS << 16) | 0x67, 0x8b00);
  for (let v = 0; v < 256; v++) {
    view.setUint32(PLACES.IDT + v * 16, (PLACES.HANDLERS + v) | (CODE << 16), true);
    view.setUint32(PLACES.IDT + v * 16 + 4, 0x8e00, true);
    view.setUint8(PLACES.HANDLERS + v, 0xf4);
  }
  view.setUint32(PLACES.TABLES, (PLACES.TABLES + 0x1000) | 7, true);
  view.setUint32(PLACES.TABLES + 0x1000, (PLACES.TABLES + 0x2000) | 7, true);
  view.setUint32(PLACES.TABLES + 0x2000, 0x87, true);
  view.setUint8(PLACES.HOST_CODE, 0xf4);
  cpu.set64(S.GDTR, BigInt(PLACES.GDT));
  cpu.set32(S.GDTR + 8, 0xff);
  cpu.set64(S.IDTR, BigInt(PLACES.IDT));
  cpu.set32(S.IDTR + 8, 0xfff);
  setSegment(cpu, SEG.CS, CODE, 0, 0, -1, 0xa09b);
  for (const seg of [SEG.SS, SEG.DS, SEG.ES]) setSegment(cpu, seg, DATA, 0, 0, -1, 0xc093);
  for (const seg of [SEG.FS, SEG.GS, SEG.LDTR]) setSegment(cpu, seg, 0, 0, 0, 0, 0x1_0000);
  setSegment(cpu, SEG.TR, TSS, PLACES.TSS, 0, 0x67, 0x8b);
  cpu.set32(S.CR3, PLACES.TABLES);
  cpu.set32(S.CR4, CR4.PAE | CR4.OSFXSR | CR4.VMXE);
  cpu.set32(S.EFER, EFER.LME | EFER.LMA | EFER.SCE | EFER.NXE);
  cpu.set32(S.CR0, CR0.PE | CR0.ET | CR0.NE | CR0.WP | CR0.PG);
  cpu.set32(S.CPL, 0);
  updateMode(cpu);
  cpu.access.tlb.flushAll();
  enterRoot(cpu, view);
  fillVmcs(cpu);
  return { machine, cpu, view };
}

/** What VMXON, VMCLEAR and VMPTRLD leave behind. */
function enterRoot(cpu: Cpu, view: DataView): void {
  const { revision } = vmxCapability(cpu.model);
  view.setUint32(PLACES.VMXON, revision, true);
  view.setUint32(PLACES.VMCS, revision, true);
  cpu.set32(S.VMX_MODE, VMX.ROOT);
  cpu.set64(S.VMX_ON_POINTER, BigInt(PLACES.VMXON));
  cpu.set64(S.VMX_POINTER, BigInt(PLACES.VMCS));
  cpu.set64Halves(S.VMX_APIC_ACCESS, -1, -1);
  cpu.set64Halves(S.VMX_VIRTUAL_APIC, -1, -1);
}

/** Sets a field of the current VMCS, whatever its width. */
export function setField(cpu: Cpu, name: FieldName, value: bigint | number): void {
  const wide = BigInt.asUintN(64, BigInt(value)), width = fieldWidth(F[name]);
  if (width === 0 || width === 2) vmcs.set32(cpu, F[name], Number(BigInt.asIntN(32, wide)));
  else vmcs.set64(cpu, F[name], wide);
}

/** Makes the current VMCS valid. */
function fillVmcs(cpu: Cpu): void {
  const c = vmxCapability(cpu.model);
  for (const name of fieldNames) setField(cpu, name, 0);
  setField(cpu, "VMCS_LINK_POINTER", -1);
  setField(cpu, "PIN_BASED_CONTROLS", c.pin.mustBeOne);
  setField(cpu, "PROCESSOR_BASED_CONTROLS", c.proc.trueMustBeOne);
  setField(cpu, "EXIT_CONTROLS", c.exit.mustBeOne | EXIT.HOST_64);
  setField(cpu, "ENTRY_CONTROLS", c.entry.mustBeOne | ENTRY.IA32E_GUEST);
  for (const who of ["GUEST", "HOST"] as const) {
    setField(cpu, `${who}_CR0`, cpu.get64(S.CR0));
    setField(cpu, `${who}_CR3`, cpu.get64(S.CR3));
    setField(cpu, `${who}_CR4`, cpu.get64(S.CR4));
    setField(cpu, `${who}_EFER`, cpu.get64(S.EFER));
    setField(cpu, `${who}_PAT`, cpu.get64(S.PAT));
    setField(cpu, `${who}_CS_SELECTOR`, CODE);
    for (const name of ["SS", "DS", "ES"] as const) setField(cpu, `${who}_${name}_SELECTOR`, DATA);
    setField(cpu, `${who}_TR_SELECTOR`, TSS);
    setField(cpu, `${who}_TR_BASE`, PLACES.TSS);
    setField(cpu, `${who}_GDTR_BASE`, PLACES.GDT);
    setField(cpu, `${who}_IDTR_BASE`, PLACES.IDT);
  }
  setField(cpu, "HOST_RIP", PLACES.HOST_CODE);
  setField(cpu, "HOST_RSP", PLACES.HOST_STACK);
  setField(cpu, "GUEST_RIP", PLACES.GUEST_CODE);
  setField(cpu, "GUEST_RSP", PLACES.GUEST_STACK);
  setField(cpu, "GUEST_RFLAGS", 2);
  setField(cpu, "GUEST_DR7", 0x400);
  for (const name of ["CS", "SS", "DS", "ES", "FS", "GS"] as const) {
    setField(cpu, `GUEST_${name}_LIMIT`, 0xffff_ffff);
    setField(cpu, `GUEST_${name}_ACCESS_RIGHTS`, name === "CS" ? 0xa09b : 0xc093);
  }
  for (const name of ["FS", "GS", "LDTR"] as const) setField(cpu, `GUEST_${name}_ACCESS_RIGHTS`, 0x1_0000);
  setField(cpu, "GUEST_TR_LIMIT", 0x67);
  setField(cpu, "GUEST_TR_ACCESS_RIGHTS", 0x8b);
  setField(cpu, "GUEST_GDTR_LIMIT", 0xff);
  setField(cpu, "GUEST_IDTR_LIMIT", 0xfff);
}
