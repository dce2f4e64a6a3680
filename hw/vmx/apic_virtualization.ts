/**
 * APIC virtualization: the virtual-APIC page, TPR shadow, virtual interrupts and their delivery, accesses to the APIC-access page and
 * to x2APIC MSRs, posted interrupts.
 *
 * Room: `hw/vmx/`; imports the VMCS and contract.ts. SDM vol. 3C, "APIC Virtualization and Virtual Interrupts". The run loop
 * (boundary.ts) carries out what is trap-like; access.ts and the MSR and CR8 procedures ask what an access means.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import * as state from "../state.ts";
import * as vmcs from "../vmcs.ts";
import * as contract from "./contract.ts";
import { F } from "./fields.ts";
import { pend, PENDING } from "./pending.ts";

const { S } = state;
const { PIN, PROC, PROC2, REASON } = contract;

/** Offsets in the virtual-APIC page (those of the xAPIC's registers). */
const V = {
  TPR: 0x80,
  PPR: 0xa0,
  EOI: 0xb0,
  ISR: 0x100,
  IRR: 0x200,
  ICR_LOW: 0x300,
  ICR_HIGH: 0x310,
  SELF_IPI: 0x3f0,
} as const;

function readRegister(cpu: Cpu, offset: number): number {
  return vmcs.readPhysical32(
    cpu,
    (cpu.get32(S.VMX_VIRTUAL_APIC) | offset) | 0,
    cpu.get32(S.VMX_VIRTUAL_APIC + 4),
  );
}
function writeRegister(cpu: Cpu, offset: number, value: number): void {
  vmcs.writePhysical32(
    cpu,
    (cpu.get32(S.VMX_VIRTUAL_APIC) | offset) | 0,
    cpu.get32(S.VMX_VIRTUAL_APIC + 4),
    value,
  );
}

function has(cpu: Cpu, bit: number): boolean {
  return (cpu.get32(S.VMX_PROC2) & bit) !== 0;
}
/** True while the guest's TPR is that of the virtual-APIC page. */
export function shadowsTpr(cpu: Cpu): boolean {
  return (cpu.get32(S.VMX_PROC) & PROC.TPR_SHADOW) !== 0;
}

// ---- vector sets in the page: bit v mod 32 of the word at base + 16 · (v / 32)

function setVector(cpu: Cpu, base: number, vector: number): void {
  const at = base + (vector >>> 5) * 16;
  writeRegister(cpu, at, readRegister(cpu, at) | (1 << (vector & 31)));
}
function clearVector(cpu: Cpu, base: number, vector: number): void {
  const at = base + (vector >>> 5) * 16;
  writeRegister(cpu, at, readRegister(cpu, at) & ~(1 << (vector & 31)));
}
/** The highest vector of a set, 0 for none. */
function highestVector(cpu: Cpu, base: number): number {
  for (let i = 7; i >= 0; i--) {
    const word = readRegister(cpu, base + i * 16);
    if (word !== 0) return i * 32 + 31 - Math.clz32(word);
  }
  return 0;
}

/** Requesting virtual interrupt (RVI) and servicing virtual interrupt (SVI). */
function rvi(cpu: Cpu): number {
  return vmcs.get32(cpu, F.GUEST_INTERRUPT_STATUS) & 0xff;
}
function svi(cpu: Cpu): number {
  return (vmcs.get32(cpu, F.GUEST_INTERRUPT_STATUS) >>> 8) & 0xff;
}
function setStatus(cpu: Cpu, requesting: number, servicing: number): void {
  vmcs.set32(cpu, F.GUEST_INTERRUPT_STATUS, requesting | (servicing << 8));
}

// ---- virtual interrupts

/** PPR virtualization. */
function virtualizePpr(cpu: Cpu): void {
  const tpr = readRegister(cpu, V.TPR) & 0xff, servicing = svi(cpu);
  writeRegister(cpu, V.PPR, tpr >>> 4 >= servicing >>> 4 ? tpr : servicing & 0xf0);
}

/** Evaluation of pending virtual interrupts. */
function evaluate(cpu: Cpu): void {
  const window = (cpu.get32(S.VMX_PROC) & PROC.INTERRUPT_WINDOW) !== 0;
  const recognised = !window && rvi(cpu) >>> 4 > (readRegister(cpu, V.PPR) & 0xff) >>> 4;
  cpu.set32(S.VMX_VIRTUAL_INTERRUPT, recognised ? 1 : 0);
  if (recognised) pend(cpu, 0);
}

/** TPR virtualization: the guest has written VTPR. */
function virtualizeTpr(cpu: Cpu): void {
  if (has(cpu, PROC2.VIRTUAL_INTERRUPTS)) {
    virtualizePpr(cpu);
    evaluate(cpu);
  } else if (isBelowThreshold(cpu)) pend(cpu, PENDING.TPR);
}

function isBelowThreshold(cpu: Cpu): boolean {
  return ((readRegister(cpu, V.TPR) >>> 4) & 0xf) < (vmcs.get32(cpu, F.TPR_THRESHOLD) & 0xf);
}

/** EOI virtualization: may ask for a trap-like exit. */
function virtualizeEoi(cpu: Cpu): void {
  const vector = svi(cpu);
  clearVector(cpu, V.ISR, vector);
  setStatus(cpu, rvi(cpu), highestVector(cpu, V.ISR));
  virtualizePpr(cpu);
  const half = vector & 32 ? vmcs.getHigh : vmcs.get32;
  const bitmap = half(cpu, F.EOI_EXIT_BITMAP_0 + (vector >>> 6) * 2);
  if ((bitmap >>> (vector & 31)) & 1) pend(cpu, PENDING.EOI | (vector << 24));
  else evaluate(cpu);
}

/** Self-IPI virtualization. */
function virtualizeSelfIpi(cpu: Cpu, vector: number): void {
  setVector(cpu, V.IRR, vector);
  setStatus(cpu, Math.max(rvi(cpu), vector), svi(cpu));
  evaluate(cpu);
}

/** VM entry: recognises what is pending, or finds the TPR below its threshold. */
export function startVirtualApic(cpu: Cpu): void {
  if (!shadowsTpr(cpu)) return;
  if (has(cpu, PROC2.VIRTUAL_INTERRUPTS)) {
    virtualizePpr(cpu);
    evaluate(cpu);
  } else if (has(cpu, PROC2.VIRTUALIZE_APIC_ACCESSES) && isBelowThreshold(cpu)) pend(cpu, PENDING.TPR);
}

/** Virtual-interrupt delivery up to the IDT: the interrupt is in service now. Returns its vector. */
export function acceptVirtualInterrupt(cpu: Cpu): number {
  const vector = rvi(cpu);
  setVector(cpu, V.ISR, vector);
  writeRegister(cpu, V.PPR, vector & 0xf0);
  clearVector(cpu, V.IRR, vector);
  setStatus(cpu, highestVector(cpu, V.IRR), vector);
  cpu.set32(S.VMX_VIRTUAL_INTERRUPT, 0);
  return vector;
}

/** Bit of the posted-interrupt descriptor: outstanding notification. */
const ON_WORD = 32;

/**
 * Posted-interrupt processing, if `vector` is the notification vector: the requests in the descriptor go to VIRR. The interrupt has been
 * acknowledged; this ends it.
 *
 * @returns false when `vector` is another one.
 */
export function processPostedInterrupts(cpu: Cpu, vector: number): boolean {
  if (!(cpu.get32(S.VMX_PIN) & PIN.POSTED_INTERRUPTS)) return false;
  if (vector !== (vmcs.get32(cpu, F.POSTED_INTERRUPT_VECTOR) & 0xff)) return false;
  const low = vmcs.get32(cpu, F.POSTED_INTERRUPT_DESCRIPTOR),
    high = vmcs.getHigh(cpu, F.POSTED_INTERRUPT_DESCRIPTOR);
  vmcs.writePhysical32(
    cpu,
    low + ON_WORD,
    high,
    vmcs.readPhysical32(cpu, low + ON_WORD, high) & ~1,
  );
  cpu.apic.eoi();
  let highest = -1;
  for (let i = 0; i < 8; i++) {
    const requests = vmcs.readPhysical32(cpu, low + i * 4, high);
    if (requests === 0) continue;
    vmcs.writePhysical32(cpu, low + i * 4, high, 0);
    const at = V.IRR + i * 16;
    writeRegister(cpu, at, readRegister(cpu, at) | requests);
    highest = i * 32 + 31 - Math.clz32(requests);
  }
  if (highest >= 0) setStatus(cpu, Math.max(rvi(cpu), highest), svi(cpu));
  evaluate(cpu);
  return true;
}

// ---- accesses to the APIC-access page

/** Offsets that APIC-register virtualization lets be read, and (less ID, version and the read-only ones) written, by bits of offset / 16. */
const READABLE = offsets([
  0x020,
  0x030,
  0x080,
  0x0b0,
  0x0d0,
  0x0e0,
  0x0f0,
  ...range(0x100, 0x280),
  0x280,
  0x300,
  0x310,
  ...range(0x320, 0x390),
  0x3e0,
]);
const WRITABLE = offsets([
  0x020,
  0x080,
  0x0b0,
  0x0d0,
  0x0e0,
  0x0f0,
  0x280,
  0x300,
  0x310,
  ...range(0x320, 0x390),
  0x3e0,
]);

function range(from: number, to: number): number[] {
  return Array.from({ length: (to - from) / 16 }, (_, i) => from + i * 16);
}
function offsets(list: readonly number[]): ReadonlySet<number> {
  return new Set(list);
}

/** Access types in the qualification of an APIC-access exit. */
const ACCESS = { READ: 0, WRITE: 1, FETCH: 2, EVENT: 3 } as const;

/**
 * An access to the APIC-access page by way of a linear address.
 *
 * @returns Where the bytes are, in the virtual-APIC page; or −1 with an APIC-access VM exit asked for.
 */
export function apicAccess(cpu: Cpu, offset: number, bytes: number, write: boolean, fetch = false): number {
  const type = fetch
    ? ACCESS.FETCH
    : contract.isDeliveringEvent(cpu)
    ? ACCESS.EVENT
    : write
    ? ACCESS.WRITE
    : ACCESS.READ;
  const page = offset & 0xff0;
  const plain = !fetch && type !== ACCESS.EVENT && shadowsTpr(cpu) && (offset & 0xc) === 0 &&
    (offset & 3) + bytes <= 4;
  if (!plain || !(write ? isWritable(cpu, page) : isReadable(cpu, page))) {
    contract.requestExit(cpu, REASON.APIC_ACCESS, (offset & 0xfff) | (type << 12));
    return -1;
  }
  return cpu.get32(S.VMX_VIRTUAL_APIC + 4) * 0x1_0000_0000 + cpu.get32(S.VMX_VIRTUAL_APIC) + offset;
}

function isReadable(cpu: Cpu, page: number): boolean {
  return page === V.TPR || (has(cpu, PROC2.APIC_REGISTERS) && READABLE.has(page));
}
function isWritable(cpu: Cpu, page: number): boolean {
  if (page === V.TPR) return true;
  if (has(cpu, PROC2.APIC_REGISTERS)) return WRITABLE.has(page);
  return has(cpu, PROC2.VIRTUAL_INTERRUPTS) && (page === V.EOI || page === V.ICR_LOW);
}

/** A write to the virtual-APIC page has been carried out: APIC-write emulation follows the instruction. */
export function noteApicWrite(cpu: Cpu, offset: number): void {
  cpu.set32(S.VMX_APIC_WRITE, offset & 0xfff);
  pend(cpu, PENDING.APIC_WRITE);
}

/** Bits of VICR_LO that must be clear for a self-IPI, and the value of what must not. */
const SELF_IPI_MASK = 0xfff0_0000 | 0xc_0000 | 0x3_0000 | 0xa000 | 0x700, SELF_IPI_VALUE = 0x4_0000;

/**
 * APIC-write emulation.
 *
 * @returns true when it asks for an APIC-write VM exit, whose qualification is the offset.
 */
export function emulateApicWrite(cpu: Cpu, offset: number): boolean {
  const virtualInterrupts = has(cpu, PROC2.VIRTUAL_INTERRUPTS);
  switch (offset & 0xff0) {
    case V.TPR:
      writeRegister(cpu, V.TPR, readRegister(cpu, V.TPR) & 0xff);
      virtualizeTpr(cpu);
      return false;
    case V.EOI:
      if (!virtualInterrupts) return true;
      writeRegister(cpu, V.EOI, 0);
      virtualizeEoi(cpu);
      return false;
    case V.ICR_LOW: {
      const command = readRegister(cpu, V.ICR_LOW);
      if (!virtualInterrupts || (command & SELF_IPI_MASK) !== SELF_IPI_VALUE || (command & 0xf0) === 0) {
        return true;
      }
      virtualizeSelfIpi(cpu, command & 0xff);
      return false;
    }
    case V.ICR_HIGH:
      writeRegister(cpu, V.ICR_HIGH, readRegister(cpu, V.ICR_HIGH) & 0xff00_0000);
      return false;
    default:
      return true;
  }
}

// ---- CR8 and x2APIC MSRs

/** CR8 of a guest with a TPR shadow. */
export function readVirtualCr8(cpu: Cpu): number {
  return (readRegister(cpu, V.TPR) >>> 4) & 0xf;
}
/** MOV to CR8 of a guest with a TPR shadow. */
export function writeVirtualCr8(cpu: Cpu, value: number): void {
  writeRegister(cpu, V.TPR, (value & 0xf) << 4);
  virtualizeTpr(cpu);
}

/** Result of {@link readVirtualMsr}. */
export const virtualMsr = { low: 0, high: 0 };

/** RDMSR of 800H … 8FFH in a guest: true when the virtual-APIC page answers, in {@link virtualMsr}. */
export function readVirtualMsr(cpu: Cpu, index: number): boolean {
  if (!has(cpu, PROC2.X2APIC) || !shadowsTpr(cpu)) return false;
  const offset = (index & 0xff) << 4;
  if (offset !== V.TPR && !has(cpu, PROC2.APIC_REGISTERS)) return false;
  virtualMsr.low = readRegister(cpu, offset);
  virtualMsr.high = readRegister(cpu, offset + 4);
  return true;
}

/** Outcome of {@link writeVirtualMsr}. */
export const WRITE = { NOT_VIRTUAL: 0, DONE: 1, FAULT: 2 } as const;

/** WRMSR to 800H … 8FFH in a guest: TPR, and with virtual-interrupt delivery EOI and self-IPI. */
export function writeVirtualMsr(cpu: Cpu, index: number, low: number, high: number): number {
  if (!has(cpu, PROC2.X2APIC) || !shadowsTpr(cpu)) return WRITE.NOT_VIRTUAL;
  const offset = (index & 0xff) << 4, virtualInterrupts = has(cpu, PROC2.VIRTUAL_INTERRUPTS);
  if (offset === V.TPR) {
    if (high !== 0 || (low & ~0xff) !== 0) return WRITE.FAULT;
    writeRegister(cpu, V.TPR, low);
    writeRegister(cpu, V.TPR + 4, 0);
    virtualizeTpr(cpu);
    return WRITE.DONE;
  }
  if (!virtualInterrupts) return WRITE.NOT_VIRTUAL;
  if (offset === V.EOI) {
    if ((low | high) !== 0) return WRITE.FAULT;
    writeRegister(cpu, V.EOI, 0);
    writeRegister(cpu, V.EOI + 4, 0);
    virtualizeEoi(cpu);
    return WRITE.DONE;
  }
  if (offset === V.SELF_IPI) {
    if (high !== 0 || (low & ~0xff) !== 0) return WRITE.FAULT;
    writeRegister(cpu, V.SELF_IPI, low);
    writeRegister(cpu, V.SELF_IPI + 4, 0);
    if ((low & 0xf0) === 0) noteApicWrite(cpu, V.SELF_IPI);
    else virtualizeSelfIpi(cpu, low);
    return WRITE.DONE;
  }
  return WRITE.NOT_VIRTUAL;
}
