/**
 * What a check of VM entry is: its name, where the manual has it, which fields it looks at, what would satisfy it, and the check itself.
 *
 * Room: `hw/vmx/`; imports the VMCS and the capability of the model. The tables of checks are in checks_controls.ts,
 * checks_host.ts and checks_guest.ts; entry.ts goes through them in order, explain.ts tells which one failed.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import * as vmcs from "../vmcs.ts";
import { type VmxCapability, vmxCapability } from "./capability.ts";
import { PROC, PROC2 } from "./contract.ts";
import { F, type FieldName } from "./fields.ts";

/** One check of VM entry. */
export interface Rule {
  /** Unique name; the tests name it. */
  readonly name: string;
  /** Title of the SDM's section (vol. 3C, "VM Entries"). */
  readonly section: string;
  /** Fields that the check looks at. */
  readonly fields: readonly FieldName[];
  /** What would satisfy it, in words. */
  readonly satisfied: string;
  /** Whether the current VMCS passes. Changes nothing. */
  readonly holds: (c: EntryContext) => boolean;
  /** Exit qualification of the entry failure; 0 if not said. */
  readonly qualification?: number;
}

/** What the checks ask: the VMCS, the controls with inactive words read as 0, and what the model offers. */
export class EntryContext {
  readonly cpu: Cpu;
  readonly capability: VmxCapability;
  readonly features: ReadonlySet<string>;
  /** The control words. */
  pin = 0;
  proc = 0;
  /** Secondary controls, 0 unless activated. */
  proc2 = 0;
  exit = 0;
  entry = 0;
  /** VM-entry interruption-information field. */
  event = 0;

  /** Reads the control words of the processor's current VMCS. */
  constructor(cpu: Cpu) {
    this.cpu = cpu;
    this.capability = vmxCapability(cpu.model);
    this.features = this.capability.features;
    this.read();
  }

  /** Reads the control words again. */
  read(): void {
    const { cpu } = this;
    this.pin = vmcs.get32(cpu, F.PIN_BASED_CONTROLS);
    this.proc = vmcs.get32(cpu, F.PROCESSOR_BASED_CONTROLS);
    this.proc2 = this.proc & PROC.SECONDARY ? vmcs.get32(cpu, F.SECONDARY_CONTROLS) : 0;
    this.exit = vmcs.get32(cpu, F.EXIT_CONTROLS);
    this.entry = vmcs.get32(cpu, F.ENTRY_CONTROLS);
    this.event = vmcs.get32(cpu, F.ENTRY_INTERRUPTION_INFORMATION);
  }

  /** Lower half of a field, signed. */
  low(field: number): number {
    return vmcs.get32(this.cpu, field);
  }
  /** Upper half of a field, signed. */
  high(field: number): number {
    return vmcs.getHigh(this.cpu, field);
  }
  /** True when a 64-bit field has no bit at or above MAXPHYADDR. */
  isPhysical(field: number): boolean {
    return (this.high(field) & (-1 << (this.cpu.model.maxPhysicalBits - 32))) === 0;
  }
  /** True for a physical address whose low `bits` bits are 0. */
  isAligned(field: number, bits: number): boolean {
    return (this.low(field) & ((1 << bits) - 1)) === 0 && this.isPhysical(field);
  }
  /** True for an address that is canonical for the processor. */
  isCanonical(field: number): boolean {
    const high = this.high(field), unused = 64 - this.cpu.model.linearBits;
    return ((high << unused) >> unused) === high;
  }
  /** Secondary control `bit` is in force. */
  has2(bit: number): boolean {
    return (this.proc2 & bit) !== 0;
  }
  /** "Unrestricted guest" is in force. */
  get unrestricted(): boolean {
    return this.has2(PROC2.UNRESTRICTED_GUEST);
  }
  /** An event is to be injected. */
  get injects(): boolean {
    return this.event < 0;
  }
  /** Type of the event to be injected. */
  get eventType(): number {
    return (this.event >>> 8) & 7;
  }
  /** Vector of the event to be injected. */
  get eventVector(): number {
    return this.event & 0xff;
  }
}

/** Makes a rule. */
export function rule(
  section: string,
  name: string,
  fields: readonly FieldName[],
  satisfied: string,
  holds: (c: EntryContext) => boolean,
  qualification = 0,
): Rule {
  return { name, section, fields, satisfied, holds, qualification };
}

/** True when each byte is a memory type that IA32_PAT takes: 0, 1, 4, 5, 6, 7. */
export function isPat(low: number, high: number): boolean {
  for (let shift = 0; shift < 32; shift += 8) {
    for (const half of [low, high]) {
      const type = (half >>> shift) & 0xff;
      if (type > 7 || type === 2 || type === 3) return false;
    }
  }
  return true;
}

/** Whether an MSR area is where it may be: 16-byte aligned, all of it inside the physical address space; an empty one is not looked at. */
export function isMsrArea(c: EntryContext, count: number, address: number): boolean {
  const entries = c.low(count) >>> 0;
  if (entries === 0) return true;
  if (!c.isAligned(address, 4)) return false;
  const last = (c.high(address) >>> 0) * 0x1_0000_0000 + (c.low(address) >>> 0) + entries * 16 - 1;
  return last < 2 ** c.cpu.model.maxPhysicalBits;
}
