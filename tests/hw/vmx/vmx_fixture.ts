/**
 * A machine in VMX root operation with a valid VMCS for a 64-bit guest that shares the host's page and descriptor tables, for tests of
 * VMX. Guest code is given as hexadecimal; the host's exit handler is a HLT, so that after a VM exit the processor stands still there.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { Cpu } from "../../../hw/cpu.ts";
import { type CpuModel, cpuModels, customModel } from "../../../hw/cpuid.ts";
import type { EngineKind } from "../../../hw/machine.ts";
import { S } from "../../../hw/state.ts";
import { CR4, updateMode } from "../../../hw/sys/mode.ts";
import * as vmcs from "../../../hw/vmcs.ts";
import { type VmxCapability, vmxCapability } from "../../../hw/vmx/capability.ts";
import { ENTRY, EXIT } from "../../../hw/vmx/controls.ts";
import { F, type FieldName, fieldWidth } from "../../../hw/vmx/fields.ts";
import { AT, SEL, SystemFixture } from "../sys/system_fixture.ts";

/** Where the regions of VMX stand, beside what {@link AT} says. */
export const VM = {
  VMXON: 0x4_0000,
  VMCS: 0x4_1000,
  VMCS2: 0x4_2000,
  IO_A: 0x4_3000,
  IO_B: 0x4_4000,
  MSR: 0x4_5000,
  VIRTUAL_APIC: 0x4_6000,
  APIC_ACCESS: 0x4_7000,
  POSTED: 0x4_8000,
  AREA: 0x4_9000,
  LIST: 0x4_a000,
  EXTRA: 0x4_b000,
  EPT: 0x5_0000,
  EXIT: 0x6_0000,
  GUEST: 0x7_0000,
  GUEST_STACK: 0x7_8000,
} as const;

/** A model with all that any model offers. */
export const everything: CpuModel = customModel(cpuModels["icelake"]!, { name: "everything" });

/** A machine for VMX tests. */
export class VmxFixture extends SystemFixture {
  readonly capability: VmxCapability;

  constructor(model: CpuModel | string = everything, engine: EngineKind = "interpreter") {
    super("long", engine, model);
    const { cpu } = this;
    this.capability = vmxCapability(cpu.model);
    cpu.set32(S.CR4, cpu.get32(S.CR4) | CR4.VMXE);
    updateMode(cpu);
    this.place(VM.EXIT, "f4");
    this.view.setUint32(VM.VMXON, this.capability.revision, true);
    this.view.setUint32(VM.VMCS, this.capability.revision, true);
    this.view.setUint32(VM.VMCS2, this.capability.revision, true);
  }

  /** Executes VMXON, VMCLEAR and VMPTRLD as instructions and fills a valid VMCS. */
  start(): this {
    this.view.setBigUint64(AT.DATA, BigInt(VM.VMXON), true);
    this.view.setBigUint64(AT.DATA + 8, BigInt(VM.VMCS), true);
    // vmxon [30000h]; vmclear [30008h]; vmptrld [30008h]
    this.run("f30fc7342500000300 660fc7342508000300 0fc7342508000300", 3);
    assertEquals(this.cpu.get32(S.VMX_MODE), 1, "VMXON did not work");
    this.fill();
    return this;
  }

  /** Makes the current VMCS valid. */
  fill(): void {
    const { cpu, capability } = this;
    for (const name of Object.keys(F) as FieldName[]) {
      if (F[name] < 0x6800 || F[name] >= 0x6c00) this.set(name, 0n);
    }
    this.set("VMCS_LINK_POINTER", 0xffff_ffff_ffff_ffffn);
    this.set("PIN_BASED_CONTROLS", capability.pin.mustBeOne);
    this.set("PROCESSOR_BASED_CONTROLS", capability.proc.trueMustBeOne);
    this.set("EXIT_CONTROLS", capability.exit.mustBeOne | EXIT.HOST_64);
    this.set("ENTRY_CONTROLS", capability.entry.mustBeOne | ENTRY.IA32E_GUEST);
    for (const who of ["GUEST", "HOST"] as const) {
      this.set(`${who}_CR0`, cpu.get64(S.CR0));
      this.set(`${who}_CR3`, cpu.get64(S.CR3));
      this.set(`${who}_CR4`, cpu.get64(S.CR4));
      this.set(`${who}_CS_SELECTOR`, SEL.CODE64);
      for (const name of ["SS", "DS", "ES"] as const) this.set(`${who}_${name}_SELECTOR`, SEL.DATA);
      this.set(`${who}_TR_SELECTOR`, SEL.TSS);
      this.set(`${who}_TR_BASE`, AT.TSS);
      this.set(`${who}_GDTR_BASE`, AT.GDT);
      this.set(`${who}_IDTR_BASE`, AT.IDT);
    }
    this.set("HOST_RIP", VM.EXIT);
    this.set("HOST_RSP", AT.STACK0);
    this.set("GUEST_RIP", VM.GUEST);
    this.set("GUEST_RSP", VM.GUEST_STACK);
    this.set("GUEST_RFLAGS", 2);
    this.set("GUEST_DR7", 0x400);
    for (const name of ["CS", "SS", "DS", "ES", "FS", "GS"] as const) {
      this.set(`GUEST_${name}_BASE`, 0);
      this.set(`GUEST_${name}_LIMIT`, 0xffff_ffff);
      this.set(`GUEST_${name}_ACCESS_RIGHTS`, name === "CS" ? 0xa09b : 0xc093);
    }
    for (const name of ["FS", "GS"] as const) this.set(`GUEST_${name}_ACCESS_RIGHTS`, 0x1_0000);
    this.set("GUEST_TR_LIMIT", 0x2067);
    this.set("GUEST_TR_ACCESS_RIGHTS", 0x8b);
    this.set("GUEST_LDTR_ACCESS_RIGHTS", 0x1_0000);
    this.set("GUEST_GDTR_LIMIT", 0xfff);
    this.set("GUEST_IDTR_LIMIT", 0xfff);
    if (capability.features.has("vmx-exit-load-efer")) {
      this.set("HOST_EFER", cpu.get64(S.EFER));
      this.set("GUEST_EFER", cpu.get64(S.EFER));
    }
    for (const name of ["HOST_PAT", "GUEST_PAT"] as const) this.set(name, cpu.get64(S.PAT));
  }

  /** Sets a field of the current VMCS, whatever its width, as software of its own would. */
  set(name: FieldName, value: bigint | number): this {
    const wide = BigInt.asUintN(64, BigInt(value));
    const width = fieldWidth(F[name]);
    if (width === 0 || width === 2) vmcs.set32(this.cpu, F[name], Number(BigInt.asIntN(32, wide)));
    else vmcs.set64(this.cpu, F[name], wide);
    return this;
  }
  /** A field of the current VMCS, unsigned. */
  get(name: FieldName): bigint {
    const width = fieldWidth(F[name]);
    return width === 0 || width === 2
      ? BigInt(vmcs.get32(this.cpu, F[name]) >>> 0)
      : vmcs.get64(this.cpu, F[name]);
  }
  /** Sets bits of a control field. */
  or(name: FieldName, bits: number): this {
    return this.set(name, this.get(name) | BigInt(bits >>> 0));
  }
  /** Clears bits of a control field. */
  clear(name: FieldName, bits: number): this {
    return this.set(name, this.get(name) & ~BigInt(bits >>> 0));
  }
  /** Activates secondary controls. */
  secondary(bits: number): this {
    return this.or("PROCESSOR_BASED_CONTROLS", 0x8000_0000).or("SECONDARY_CONTROLS", bits);
  }

  /** Executes one VMLAUNCH (or VMRESUME). */
  enter(resume = false): this {
    return this.run(resume ? "0f01c3" : "0f01c2", 1);
  }
  /** Puts guest code in place, enters, and runs up to `steps` ticks or until the host halts. */
  guest(hex: string, steps = 100): this {
    this.place(VM.GUEST, hex);
    this.enter();
    return this.step(steps);
  }
  /** Runs the guest again from where it left. */
  resume(steps = 100): this {
    this.cpu.set32(S.ACTIVITY, 0);
    this.enter(true);
    return this.step(steps);
  }

  /** The exit reason, all 32 bits. */
  get reason(): number {
    return Number(this.get("EXIT_REASON"));
  }
  /** The exit qualification. */
  get qualification(): bigint {
    return this.get("EXIT_QUALIFICATION");
  }
  /** How the last VMX instruction ended: "ok", "invalid", or the error number. */
  get status(): "ok" | "invalid" | number {
    const flags = this.cpu.rflags;
    if (flags & 1) return "invalid";
    return flags & 0x40 ? Number(this.get("INSTRUCTION_ERROR")) : "ok";
  }
  /** Asserts that the last thing that happened is a VM exit with this reason. */
  exited(reason: number, qualification?: bigint | number): this {
    assertEquals({ reason: this.reason, mode: this.cpu.get32(S.VMX_MODE) }, { reason, mode: 1 });
    if (qualification !== undefined) assertEquals(this.qualification, BigInt(qualification), "qualification");
    return this;
  }
}

/** True while `cpu` is a guest. */
export function isGuest(cpu: Cpu): boolean {
  return cpu.get32(S.VMX_MODE) === 2;
}
