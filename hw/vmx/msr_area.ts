/**
 * The MSR areas of a VMCS: lists of 16-byte entries (index, reserved, value) that VM entry loads and VM exit stores and loads.
 *
 * Room: `hw/vmx/`; imports the MSRs and the VMCS. SDM vol. 3C, "Loading MSRs", "Saving MSRs".
 *
 * A list longer than IA32_VMX_MISC recommends (512 entries) has undefined results on silicon; here the first entry too many fails.
 *
 * @module
 */
import { type Cpu, FAULT } from "../cpu.ts";
import { MSR, readMsr, writeMsr } from "../msr.ts";
import * as vmcs from "../vmcs.ts";
import type { Field } from "./fields.ts";

const TWO32 = 0x1_0000_0000;
/** Entries that a list may have. */
export const MSR_AREA_MAX = 512;

/** Whether an MSR may stand in no list: FS and GS bases on loads, the APIC's registers, the microcode's. */
function isBarred(index: number, load: boolean): boolean {
  if (index >>> 8 === 8) return true;
  if (index === MSR.BIOS_UPDATE || index === MSR.BIOS_SIGN_ID) return true;
  return load && (index === MSR.FS_BASE || index === MSR.GS_BASE);
}

/** Runs `attempt`; false where it raised #GP. */
function succeeds(attempt: () => void): boolean {
  try {
    attempt();
    return true;
  } catch (error) {
    if (error !== FAULT) throw error;
    return false;
  }
}

/**
 * Loads the MSRs of a list as WRMSR at CPL 0 would.
 *
 * @returns 0, or the number (from 1) of the entry that failed; the ones before it are loaded.
 */
export function loadMsrs(cpu: Cpu, count: Field, address: Field): number {
  const entries = vmcs.get32(cpu, count) >>> 0;
  if (entries === 0) return 0;
  const first = (vmcs.getHigh(cpu, address) >>> 0) * TWO32 + (vmcs.get32(cpu, address) >>> 0);
  for (let i = 0; i < entries; i++) {
    if (i >= MSR_AREA_MAX) return i + 1;
    const word = (offset: number): number => readWord(cpu, first + i * 16 + offset);
    const index = word(0) >>> 0;
    if (word(4) !== 0 || isBarred(index, true)) return i + 1;
    if (!succeeds(() => writeMsr(cpu, index, word(8), word(12)))) return i + 1;
  }
  return 0;
}

/**
 * Stores the MSRs of a list as RDMSR at CPL 0 would read them.
 *
 * @returns 0, or the number (from 1) of the entry that failed.
 */
export function storeMsrs(cpu: Cpu, count: Field, address: Field): number {
  const entries = vmcs.get32(cpu, count) >>> 0;
  if (entries === 0) return 0;
  const first = (vmcs.getHigh(cpu, address) >>> 0) * TWO32 + (vmcs.get32(cpu, address) >>> 0);
  for (let i = 0; i < entries; i++) {
    if (i >= MSR_AREA_MAX) return i + 1;
    const at = first + i * 16, index = readWord(cpu, at) >>> 0;
    if (readWord(cpu, at + 4) !== 0 || isBarred(index, false)) return i + 1;
    let value = 0n;
    if (!succeeds(() => value = readMsr(cpu, index))) return i + 1;
    vmcs.writePhysical32(cpu, (at + 8) | 0, Math.floor((at + 8) / TWO32), Number(value & 0xffff_ffffn) | 0);
    vmcs.writePhysical32(cpu, (at + 12) | 0, Math.floor((at + 12) / TWO32), Number(value >> 32n) | 0);
  }
  return 0;
}

function readWord(cpu: Cpu, address: number): number {
  return vmcs.readPhysical32(cpu, address | 0, Math.floor(address / TWO32));
}
