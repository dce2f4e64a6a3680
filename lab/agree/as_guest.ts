/**
 * A machine's processor made a VMX guest, as it stands: VMX operation is entered, a VMCS takes over the state, and the processor goes on in
 * non-root operation with controls that ask for as few exits as there can be. The host that an exit leads to is one HLT.
 *
 * For comparisons of the same code in and outside non-root operation, and for measurements. No time passes in the guest's making.
 *
 * Room: `lab/agree/`; imports hw's public face and the VMCS.
 *
 * @module
 */
import type { Cpu } from "../../hw/cpu.ts";
import type { Machine } from "../../hw/machine.ts";
import { RAM_BASE, S, SEG } from "../../hw/state.ts";
import { setSegment, updateMode } from "../../hw/sys/mode.ts";
import * as vmcs from "../../hw/vmcs.ts";
import { vmxCapability } from "../../hw/vmx/capability.ts";
import { PROC, PROC2, VMX } from "../../hw/vmx/contract.ts";
import { ENTRY, EXIT } from "../../hw/vmx/controls.ts";
import { vmEntry } from "../../hw/vmx/entry.ts";
import { F } from "../../hw/vmx/fields.ts";
import { GUEST_SEGMENTS, save64 } from "../../hw/vmx/transition.ts";

/** What kind of guest it shall be. */
export interface GuestKind {
  /** Pages of EPT (an identity map of all but the hypervisor's memory), "off", or none made: the caller's EPT pointer. */
  readonly ept: "off" | "4K" | "2M" | { readonly pointer: bigint };
  /** VPID; 0 for "enable VPID" = 0. */
  readonly vpid: number;
  /** Accessed and dirty flags for EPT. */
  readonly accessedDirty?: boolean;
  /** With EPT of 4-KiB pages: leave all RAM below {@link at} out of the map, for the caller to map (see {@link eptEntry}). */
  readonly absent?: boolean;
  /** Physical address of the first of {@link HYPERVISOR_BYTES} bytes that the guest does not use. */
  readonly at: number;
  /** Code of the host's exit handler; default a HLT. */
  readonly handler?: readonly number[];
}

/** Bytes that {@link becomeGuest} needs. */
export const HYPERVISOR_BYTES = 0x2_0000;
/** Offsets in them. */
const AT = {
  VMXON: 0,
  VMCS: 0x1000,
  MSR_BITMAP: 0x2000,
  TABLES: 0x3000,
  CODE: 0x6000,
  STACK: 0x8000,
  EPT: 0x8000,
} as const;
/** IA-32e mode with SYSCALL, LME, LMA and NXE. */
const HOST_EFER = 0xd01, HOST_CR0 = 0x8000_0031, HOST_CR4 = 0x2620;

/**
 * Makes `machine`'s bootstrap processor a guest. Guest and host CR4.VMXE is 1 and hidden from the guest by mask and shadow; so is CR0.NE.
 *
 * @throws {Error} when VM entry fails.
 */
export function becomeGuest(machine: Machine, kind: GuestKind): void {
  const cpu = machine.cpus[0]!, { at } = kind;
  const capability = vmxCapability(cpu.model);
  const view = new DataView(machine.memory.buffer, RAM_BASE);
  view.setUint32(at + AT.VMXON, capability.revision, true);
  view.setUint32(at + AT.VMCS, capability.revision, true);
  machine.memory.u8.set(kind.handler ?? [0xf4], RAM_BASE + at + AT.CODE);
  // The host's tables: the first GiB in one page.
  view.setUint32(at + AT.TABLES, (at + AT.TABLES + 0x1000) | 3, true);
  view.setUint32(at + AT.TABLES + 0x1000, 0x83, true);

  const guestCr0 = (cpu.get32(S.CR0) | 0x20) | 0, guestCr4 = cpu.get32(S.CR4) | 0x2000;
  const efer = cpu.get32(S.EFER), rflags = cpu.rflags;
  cpu.set32(S.CR0, guestCr0);
  cpu.set32(S.CR4, guestCr4);
  cpu.set32(S.VMX_MODE, VMX.ROOT);
  cpu.set64(S.VMX_ON_POINTER, BigInt(at + AT.VMXON));
  cpu.set64(S.VMX_POINTER, BigInt(at + AT.VMCS));

  const set = (field: number, value: number | bigint) =>
    vmcs.set64(cpu, field, BigInt.asUintN(64, BigInt(value)));
  const set32 = (field: number, value: number) => vmcs.set32(cpu, field, value);
  const usesEpt = kind.ept !== "off";
  // ---- controls
  set32(F.PIN_BASED_CONTROLS, capability.pin.trueMustBeOne);
  set32(
    F.PROCESSOR_BASED_CONTROLS,
    capability.proc.trueMustBeOne | PROC.SECONDARY | PROC.MSR_BITMAPS | PROC.TSC_OFFSETTING,
  );
  set32(
    F.SECONDARY_CONTROLS,
    capability.proc2.trueMustBeOne | (usesEpt ? PROC2.EPT | PROC2.UNRESTRICTED_GUEST : 0) |
      (kind.vpid === 0 ? 0 : PROC2.VPID) |
      (capability.proc2.mayBeOne & (PROC2.RDTSCP | PROC2.INVPCID | PROC2.XSAVES)),
  );
  set32(
    F.EXIT_CONTROLS,
    capability.exit.trueMustBeOne | EXIT.HOST_64 | EXIT.LOAD_EFER | EXIT.SAVE_EFER | EXIT.SAVE_DEBUG,
  );
  set32(
    F.ENTRY_CONTROLS,
    capability.entry.trueMustBeOne | ENTRY.LOAD_EFER | ENTRY.LOAD_DEBUG |
      (efer & 0x400 ? ENTRY.IA32E_GUEST : 0),
  );
  set(F.MSR_BITMAPS, at + AT.MSR_BITMAP);
  set32(F.VPID, kind.vpid);
  set(F.VMCS_LINK_POINTER, -1);
  set(F.CR0_MASK, 0x20);
  set(F.CR0_READ_SHADOW, 0x20);
  set(F.CR4_MASK, 0x2000);
  set(F.CR4_READ_SHADOW, 0);
  if (usesEpt) {
    set(F.EPT_POINTER, typeof kind.ept === "object" ? kind.ept.pointer : identityEpt(machine, kind));
  }

  // ---- guest state: the processor's own
  save64(cpu, S.CR0, F.GUEST_CR0);
  save64(cpu, S.CR3, F.GUEST_CR3);
  save64(cpu, S.CR4, F.GUEST_CR4);
  save64(cpu, S.EFER, F.GUEST_EFER);
  save64(cpu, S.DR + 7 * 8, F.GUEST_DR7);
  save64(cpu, S.DEBUGCTL, F.GUEST_DEBUGCTL);
  set32(F.GUEST_SYSENTER_CS, cpu.get32(S.SYSENTER_CS));
  save64(cpu, S.SYSENTER_ESP, F.GUEST_SYSENTER_ESP);
  save64(cpu, S.SYSENTER_EIP, F.GUEST_SYSENTER_EIP);
  for (let n = 0; n < 4; n++) save64(cpu, S.PDPTE + n * 8, F.GUEST_PDPTE0 + n * 2 as typeof F.GUEST_PDPTE0);
  for (const { seg, selector, base, limit, rights } of GUEST_SEGMENTS) {
    set32(selector, cpu.segSel(seg));
    save64(cpu, S.SEGBASE + seg * 8, base);
    set32(limit, cpu.segLimit(seg));
    set32(rights, cpu.segAr(seg));
  }
  save64(cpu, S.GDTR, F.GUEST_GDTR_BASE);
  set32(F.GUEST_GDTR_LIMIT, cpu.get32(S.GDTR + 8));
  save64(cpu, S.IDTR, F.GUEST_IDTR_BASE);
  set32(F.GUEST_IDTR_LIMIT, cpu.get32(S.IDTR + 8));
  save64(cpu, S.RIP, F.GUEST_RIP);
  save64(cpu, S.GPR + 4 * 8, F.GUEST_RSP);
  set(F.GUEST_RFLAGS, rflags);
  set32(F.GUEST_INTERRUPTIBILITY, cpu.get32(S.BLOCKING));
  set32(F.GUEST_ACTIVITY, cpu.get32(S.ACTIVITY));

  // ---- host state
  set(F.HOST_CR0, HOST_CR0);
  set(F.HOST_CR3, at + AT.TABLES);
  set(F.HOST_CR4, HOST_CR4);
  set(F.HOST_EFER, HOST_EFER);
  set32(F.HOST_CS_SELECTOR, 8);
  set32(F.HOST_TR_SELECTOR, 0x30);
  set(F.HOST_RIP, at + AT.CODE);
  set(F.HOST_RSP, at + AT.STACK);

  // ---- the host that executes VMLAUNCH; CD and NW stay what they are
  cpu.set32(S.CR0, (HOST_CR0 | (guestCr0 & 0x6000_0000)) | 0);
  cpu.set32(S.CR3, at + AT.TABLES);
  cpu.set32(S.CR4, HOST_CR4);
  cpu.set32(S.EFER, HOST_EFER);
  setSegment(cpu, SEG.CS, 8, 0, 0, -1, 0xa09b);
  cpu.set32(S.CPL, 0);
  updateMode(cpu);
  const error = vmEntry(cpu);
  if (error !== 0 || cpu.get32(S.VMX_MODE) !== VMX.NON_ROOT) {
    const reason = vmcs.get32(cpu, F.EXIT_REASON), qualification = vmcs.get64(cpu, F.EXIT_QUALIFICATION);
    throw new Error(
      `VM entry failed: error ${error}, exit reason ${reason & 0xffff}, qualification ${qualification}`,
    );
  }
}

/** An identity map by EPT of 4 GiB, without the hypervisor's own memory. Returns the EPT pointer. */
function identityEpt(machine: Machine, kind: GuestKind): bigint {
  const { at } = kind;
  const view = new DataView(machine.memory.buffer, RAM_BASE);
  let next = at + AT.EPT;
  const table = () => {
    const made = next;
    next += 4096;
    if (next > at + HYPERVISOR_BYTES) throw new Error("The hypervisor's memory is too small for its EPT");
    return made;
  };
  const root = table(), pdpt = table(), directory = table();
  const put = (entry: number, value: number) => view.setBigUint64(entry, BigInt(value), true);
  put(root, pdpt | 7);
  put(pdpt, directory | 7);
  for (let i = 1; i < 4; i++) put(pdpt + i * 8, i * 0x4000_0000 + 0xb7);
  for (let i = 0; i < 512; i++) {
    const base = i * 0x20_0000, owned = at >= base && at < base + 0x20_0000;
    if (base < machine.memory.ramBytes && (kind.ept === "4K" || owned)) {
      const pages = table();
      put(directory + i * 8, pages | 7);
      for (let p = 0; p < 512; p++) {
        const page = base + p * 4096;
        if (page < at ? !kind.absent : page >= at + HYPERVISOR_BYTES) put(pages + p * 8, page + 0x37);
      }
    } else put(directory + i * 8, base + 0xb7);
  }
  return BigInt(root) | 0x1en | (kind.accessedDirty ? 0x40n : 0n);
}

/** Physical address of the EPT entry of a page of RAM below the hypervisor, where EPT has 4-KiB pages. */
export function eptEntry(kind: GuestKind, page: number): number {
  return kind.at + AT.EPT + (3 + Math.floor(page / 0x20_0000)) * 4096 +
    Math.floor(page % 0x20_0000 / 4096) * 8;
}

/** What code can see of a processor, field by field: equal in and outside non-root operation, but for what the masks hide. */
export function visibleState(cpu: Cpu): Map<string, bigint> {
  const state = new Map<string, bigint>();
  const words = (name: string, offset: number, count: number) => {
    for (let i = 0; i < count; i++) state.set(`${name}${i}`, cpu.get64(offset + i * 8));
  };
  words("gpr", S.GPR, 16);
  words("rip", S.RIP, 1);
  state.set("rflags", BigInt(cpu.rflags));
  words("base", S.SEGBASE, 8);
  words("limit", S.SEGLIMIT, 4);
  words("rights", S.SEGAR, 4);
  words("selector", S.SEGSEL, 4);
  words("gdtr", S.GDTR, 1);
  words("idtr", S.IDTR, 1);
  state.set("cpl", BigInt(cpu.cpl));
  state.set("cr0", cpu.get64(S.CR0) | 0x20n);
  state.set("cr4", cpu.get64(S.CR4) & ~0x2000n);
  for (
    const name of [
      "CR2",
      "CR3",
      "XCR0",
      "EFER",
      "STAR",
      "LSTAR",
      "CSTAR",
      "FMASK",
      "KERNEL_GS_BASE",
      "TSC_AUX",
      "PAT",
    ] as const
  ) {
    words(name, S[name], 1);
  }
  words("dr", S.DR, 8);
  words("fpu", S.FCW, 4);
  words("registers", S.FPR, 48);
  state.set("activity", BigInt(cpu.get32(S.ACTIVITY)));
  state.set("blocking", BigInt(cpu.get32(S.BLOCKING)));
  return state;
}
