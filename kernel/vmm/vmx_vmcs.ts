/**
 * A thread's VMCS: made, moved between processors, given back (`vmx_vminit`, `vmx_vmdestroy`, and what `vmx_vmrun` does before an entry;
 * sections 15.5, 15.6 and 20 no. 12 of the reference).
 *
 * Room: `kernel/vmm/`; imports the instructions, the platform's tables, the rendezvous. Nothing of trap.ts: exit calls it.
 *
 * A VMCS is in one of three states on a processor: active and current, active, inactive. Two processors must never have it active: who takes
 * it elsewhere has it cleared first, on the processor where it is. On its own processor VMPTRLD is enough (October 2016, `e1bcf4167d`).
 *
 * @module
 */
import { gva, PAGE_SIZE } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { FieldName } from "../../hw/vmx/fields.ts";
import type { Cx } from "../context.ts";
import { ktrace } from "../kern/ktr.ts";
import { kassert } from "../kern/panic.ts";
import { lwktCpusyncSimple } from "../lwkt/cpusync.ts";
import { GD } from "../platform/pc64/globaldata.ts";
import type { Pc64 } from "../platform/pc64/pc64.ts";
import { SELECTOR } from "../platform/pc64/vmparam.ts";
import { pmapCr3 } from "../pmap/pmap_switch.ts";
import type { Lwp } from "../proc/proc.ts";
import { kmemFree } from "../vm/vm_kern.ts";
import { type VmmProc, type VmxCapability, VmxFullGuest, VmxThread } from "./vmm_state.ts";
import { INVEPT, MSR, PROCBASED, SEG_AR } from "./vmx_defs.ts";
import { invept, rdmsr, readCr, readEfer, vmclear, vmptrld, vmwrite } from "./vmx_instr.ts";
import { vmxPage, vmxRegion } from "./vmx_init.ts";

/** CR0: PE, MP, ET, NE, WP, PG: what the host's programs have. */
export const GUEST_CR0 = 0x8001_0033n;
/** CR4: PAE, OSFXSR, OSXMMEXCPT. */
export const GUEST_CR4 = 0x620n;
/** EFER: LME, LMA, NXE. SCE is clear: SYSCALL is #UD, and so an exit. */
const GUEST_EFER = 0xd00n;
/** EFER.SCE, which a full guest has. */
const EFER_SCE = 1n;
const ALL_ONES_64 = 0xffff_ffff_ffff_ffffn;
const ALL_EXCEPTIONS = 0xffff_ffffn;
/** Bits of CR0 that a full guest changes itself: MP, EM, TS, WP, AM. */
const FULL_CR0_OWN = 0x5_000en;
/** Bits of CR4 that a full guest changes itself: TSD, DE, PGE. */
const FULL_CR4_OWN = 0x8cn;

/** The segment registers of a guest, by what the field names begin with. */
const USER_SEGMENTS = ["ES", "SS", "DS", "FS", "GS"] as const;

/** Makes a thread's VMCS (`vmx_vminit`): all fields but those of the processor and of each entry. */
export function* vmxThreadCreate(
  cx: Cx,
  lwp: Lwp,
  vp: VmmProc,
  capability: VmxCapability,
  vector = 0,
): Exec<VmxThread> {
  const { va, pa } = yield* vmxRegion(cx, capability);
  const vti = new VmxThread(lwp, vp, va, pa);
  if (vp.full) {
    const area = yield* vmxPage(cx);
    vti.full = new VmxFullGuest(vector, area.va, area.pa);
  }
  lwp.lwpVmm = vti;
  vp.nthreads++;
  cx.k.vmm.threads++;
  // Historical bug ept-root-reuse: a fresh thread takes generation 0 for what this processor has seen.
  if (cx.k.bug("ept-root-reuse")) vti.eptgen[0] = 0;
  const enabled = cx.interruptsEnabled;
  cx.setInterrupts(false);
  vmxMakeCurrent(cx, vti, true);
  writeStatic(cx, vti, capability);
  if (vti.full !== undefined) yield* writeFull(cx, vti, vti.full, capability);
  cx.setInterrupts(enabled);
  return vti;
}

/** The only thread of a process becomes a full guest: its VMCS is made anew. */
export function* vmxThreadReplace(
  cx: Cx,
  lwp: Lwp,
  capability: VmxCapability,
  options: { readonly guestCr3: bigint; readonly vector: number },
): Exec<void> {
  const old = lwp.lwpVmm!, { vp } = old;
  vp.full = true;
  vp.vector = options.vector;
  vp.guestCr3 = options.guestCr3;
  yield* vmxThreadCreate(cx, lwp, vp, capability, options.vector);
  yield* freeThread(cx, old);
}

/** Fields that stay. */
function writeStatic(cx: Cx, vti: VmxThread, capability: VmxCapability): void {
  const write = (field: FieldName, value: bigint | number): void => vmwrite(cx, field, value);
  const pc64 = cx.k.platform as Pc64;
  write("PIN_BASED_CONTROLS", capability.pinbased);
  write(
    "PROCESSOR_BASED_CONTROLS",
    vti.full === undefined ? capability.procbased : capability.procbasedFull,
  );
  write("SECONDARY_CONTROLS", capability.procbased2);
  write("EXIT_CONTROLS", capability.vmexit);
  write("ENTRY_CONTROLS", capability.vmentry);
  write("EPT_POINTER", vti.vp.eptp);
  write("VMCS_LINK_POINTER", ALL_ONES_64);
  write("EXCEPTION_BITMAP", ALL_EXCEPTIONS);
  write("HOST_CR0", readCr(cx, 0));
  // What the thread has in CR3 in the kernel: the kernel's tables, as an EPT root is none; with a twin its own.
  write("HOST_CR3", BigInt(pmapCr3(cx, vti.lwp.lwpVmspace!.vmPmap)));
  write("HOST_CR4", readCr(cx, 4));
  write("HOST_EFER", readEfer(cx));
  write("HOST_CS_SELECTOR", SELECTOR.KCODE);
  for (const name of ["SS", "DS", "ES"] as const) write(`HOST_${name}_SELECTOR`, SELECTOR.KDATA);
  write("HOST_TR_SELECTOR", SELECTOR.TSS);
  write("HOST_RIP", pc64.locore.vmxExit);
  for (const name of USER_SEGMENTS) {
    write(`GUEST_${name}_SELECTOR`, SELECTOR.UDATA);
    write(`GUEST_${name}_ACCESS_RIGHTS`, SEG_AR.DATA_USER);
    // The low twelve bits are not all 1, so G must be 0 and is.
    write(`GUEST_${name}_LIMIT`, 0);
  }
  write("GUEST_CS_SELECTOR", SELECTOR.UCODE);
  write("GUEST_CS_ACCESS_RIGHTS", SEG_AR.CODE_USER);
  write("GUEST_TR_ACCESS_RIGHTS", SEG_AR.TSS_BUSY);
  write("GUEST_LDTR_ACCESS_RIGHTS", SEG_AR.UNUSABLE);
  // Deviation: DragonFly names the host's GDT. With the limits 0 a guest can load no selector but the null one, and INT n is #GP.
  const [zero0, one0] = capability.cr0Fixed, [zero4, one4] = capability.cr4Fixed;
  write("GUEST_CR0", (GUEST_CR0 | zero0) & one0);
  write("GUEST_CR4", (GUEST_CR4 | zero4) & one4);
  write("GUEST_EFER", GUEST_EFER);
  write("GUEST_DR7", 0x400);
}

/** What is different in a guest of ring 0: its segments, its EFER, who owns which bits, and its own MSRs. */
function* writeFull(
  cx: Cx,
  vti: VmxThread,
  full: VmxFullGuest,
  capability: VmxCapability,
): Exec<void> {
  const write = (field: FieldName, value: bigint | number): void => vmwrite(cx, field, value);
  write("GUEST_CS_SELECTOR", SELECTOR.KCODE);
  write("GUEST_CS_ACCESS_RIGHTS", SEG_AR.CODE_KERNEL);
  write("GUEST_CS_LIMIT", 0xffff_ffff);
  for (const name of USER_SEGMENTS) {
    write(`GUEST_${name}_SELECTOR`, name === "FS" || name === "GS" ? 0 : SELECTOR.KDATA);
    write(`GUEST_${name}_ACCESS_RIGHTS`, SEG_AR.DATA_KERNEL);
    write(`GUEST_${name}_LIMIT`, 0xffff_ffff);
  }
  write("GUEST_TR_LIMIT", 0x67);
  write("GUEST_CR3", vti.guestCr3);
  write("GUEST_EFER", GUEST_EFER | EFER_SCE);
  if (capability.procbasedFull & PROCBASED.USE_MSR_BITMAPS) write("MSR_BITMAPS", cx.k.vmm.msrBitmap!);
  // Its exceptions are its own.
  write("EXCEPTION_BITMAP", 0);
  write("CR0_MASK", ~FULL_CR0_OWN);
  write("CR0_READ_SHADOW", GUEST_CR0);
  write("CR4_MASK", ~FULL_CR4_OWN);
  write("CR4_READ_SHADOW", GUEST_CR4);
  // The MSRs that the guest has for itself: loaded at the entry; KERNEL_GS_BASE, which SWAPGS changes, is stored at the exit.
  for (const [i, msr] of FULL_MSRS.entries()) {
    yield* cx.cpu.store64(gva(full.msrArea + BigInt(ENTRY_AREA + i * 16)), BigInt(msr));
    yield* cx.cpu.store64(gva(full.msrArea + BigInt(HOST_AREA + i * 16)), BigInt(msr));
    yield* cx.cpu.store64(gva(full.msrArea + BigInt(HOST_AREA + i * 16 + 8)), rdmsr(cx, msr));
  }
  write("ENTRY_MSR_LOAD_ADDRESS", BigInt(vti.full!.msrAreaPa + ENTRY_AREA));
  write("ENTRY_MSR_LOAD_COUNT", FULL_MSRS.length);
  // The store area is the load area's slot of KERNEL_GS_BASE, the last one.
  write("EXIT_MSR_STORE_ADDRESS", BigInt(full.msrAreaPa + ENTRY_AREA + (FULL_MSRS.length - 1) * 16));
  write("EXIT_MSR_STORE_COUNT", 1);
  write("EXIT_MSR_LOAD_ADDRESS", BigInt(full.msrAreaPa + HOST_AREA));
  write("EXIT_MSR_LOAD_COUNT", FULL_MSRS.length);
}

/** MSRs that a full guest has for itself, in the order of the areas. The last one is stored at each exit. */
export const FULL_MSRS: readonly number[] = [MSR.STAR, MSR.LSTAR, MSR.CSTAR, MSR.SFMASK, MSR.KERNEL_GS_BASE];
/** Offset of the area loaded at entries in the page of MSR areas. */
export const ENTRY_AREA = 0;
/** Offset of the area loaded at exits. */
const HOST_AREA = 0x800;

/** Address of a full guest's own value of an MSR; undefined for one that it does not have for itself. */
export function fullMsrSlot(full: VmxFullGuest, msr: number): bigint | undefined {
  const i = FULL_MSRS.indexOf(msr);
  return i < 0 ? undefined : full.msrArea + BigInt(ENTRY_AREA + i * 16 + 8);
}

/** Makes a VMCS that is active nowhere else current here. Interrupts are off. @param clear It is new, or has been cleared elsewhere. */
function vmxMakeCurrent(cx: Cx, vti: VmxThread, clear: boolean): void {
  const pcpu = cx.k.vmm.pcpu[cx.gd.gdCpuid]!;
  if (clear) {
    vmclear(cx, vti.vmcsPa);
    vti.launched = false;
  }
  vmptrld(cx, vti.vmcsPa);
  vti.activeCpu = cx.gd.gdCpuid;
  pcpu.loadedVmx = vti;
}

/**
 * Brings the thread's VMCS to this processor. Interrupts are off, before and after.
 *
 * @returns false when something had to be waited for: whatever was tested before must be tested again.
 */
export function* vmxLoad(cx: Cx, vti: VmxThread): Exec<boolean> {
  const { vmm } = cx.k;
  const here = cx.gd.gdCpuid, pcpu = vmm.pcpu[here]!;
  if (pcpu.loadedVmx === vti && vti.activeCpu === here && vti.lastCpu === here) return true;
  if (vti.activeCpu >= 0 && vti.activeCpu !== here) {
    // Active on another processor: cleared there.
    const there = vmm.pcpu[vti.activeCpu]!;
    if (cx.k.bug("vmx-loaded-before-clear") && there.loadedVmx !== vti) {
      // Historical bug: as nobody says that it is loaded there, it is taken to be clear.
      vti.activeCpu = -1;
    } else {
      vmm.counters.migrations++;
      cx.setInterrupts(true);
      yield* lwktCpusyncSimple(cx, 1 << vti.activeCpu, vmxClearHere, vti);
      cx.setInterrupts(false);
      return false;
    }
  }
  const old = pcpu.loadedVmx;
  if (
    old !== undefined && old !== vti && (cx.k.bug("needless-vmclear") || cx.k.bug("vmx-loaded-before-clear"))
  ) {
    yield* clearOld(cx, old);
  }
  vmxMakeCurrent(cx, vti, false);
  if (vti.lastCpu !== here) {
    yield* vmxWriteCpu(cx);
    vti.lastCpu = here;
  }
  return true;
}

/**
 * Historical bugs: until October 2016 (`e1bcf4167d`) each VMCS was cleared when another was loaded, which only costs; and until February 2014
 * (`c825189df5`) `loaded_vmx` was reset before the VMCLEAR: another processor that looks in between takes the VMCS to be clear.
 */
function* clearOld(cx: Cx, old: VmxThread): Exec<void> {
  const pcpu = cx.k.vmm.pcpu[cx.gd.gdCpuid]!;
  if (cx.k.bug("vmx-loaded-before-clear")) {
    pcpu.loadedVmx = undefined;
    // Room for the other processor: its thread is still on its way when this one looks for another VMCS.
    for (let i = 0; i < 150; i++) yield* cx.racePoint();
    vmclear(cx, old.vmcsPa);
    if (old.activeCpu === cx.gd.gdCpuid) {
      old.activeCpu = -1;
      old.launched = false;
    }
    return;
  }
  vmxClearHere(cx, old);
}

/** VMCLEAR of a VMCS that is active on this processor. */
function vmxClearHere(cx: Cx, arg: unknown): void {
  const vti = arg as VmxThread;
  if (vti.activeCpu !== cx.gd.gdCpuid) return;
  vmclear(cx, vti.vmcsPa);
  vti.launched = false;
  vti.activeCpu = -1;
  const pcpu = cx.k.vmm.pcpu[cx.gd.gdCpuid]!;
  if (pcpu.loadedVmx === vti) pcpu.loadedVmx = undefined;
}

/** The host-state fields that name this processor's tables, into the current VMCS. */
function* vmxWriteCpu(cx: Cx): Exec<void> {
  const pc64 = cx.k.platform as Pc64;
  const { globaldata } = pc64.tables[cx.gd.gdCpuid]!;
  const word = (offset: number) => cx.cpu.load64(gva(globaldata + BigInt(offset)));
  vmwrite(cx, "HOST_GS_BASE", globaldata);
  vmwrite(cx, "HOST_GDTR_BASE", yield* word(GD.gdtr + 2));
  vmwrite(cx, "HOST_IDTR_BASE", yield* word(GD.idtr + 2));
  vmwrite(cx, "HOST_TR_BASE", yield* word(GD.tss));
}

/** Ends a thread's VMM mode (`vmx_vmdestroy`): its VMCS is cleared where it is active and given back. Nothing for a thread without one. */
export function* vmxThreadDestroy(cx: Cx, lwp: Lwp): Exec<void> {
  const vti = lwp.lwpVmm;
  if (vti === undefined) return;
  lwp.lwpVmm = undefined;
  yield* freeThread(cx, vti);
  const { vp } = vti;
  if (vp.nthreads > 0) return;
  const p = lwp.lwpProc;
  if (p.pVmm === vp) p.pVmm = undefined;
  cx.k.vmm.procs.delete(vp);
  yield* eptDestroy(cx, vp);
}

/** Gives a VMCS back. */
function* freeThread(cx: Cx, vti: VmxThread): Exec<void> {
  if (vti.activeCpu >= 0) yield* lwktCpusyncSimple(cx, 1 << vti.activeCpu, vmxClearHere, vti);
  kassert(vti.activeCpu < 0, "vmx_vmdestroy: the VMCS is still active");
  yield* kmemFree(cx, cx.k.kernelMap, vti.vmcsRegion, PAGE_SIZE);
  if (vti.full !== undefined) yield* kmemFree(cx, cx.k.kernelMap, vti.full.msrArea, PAGE_SIZE);
  cx.k.vmm.threads--;
  vti.vp.nthreads--;
}

/**
 * Nobody runs on an EPT any more: no processor may keep translations under its root's address, which may be another's next (October 2016,
 * `9563660691`); and what of TypeScript ran in that world does not go on.
 */
function* eptDestroy(cx: Cx, vp: VmmProc): Exec<void> {
  cx.cpu.gates.dropWorld(vp.vmmCr3);
  const { vmm, lwkt } = cx.k;
  if (cx.k.bug("ept-root-reuse")) return;
  vmm.counters.inveptsDestroy += vmm.pcpu.filter((pcpu) => pcpu.on).length;
  ktrace(cx, "invept destroy", vp.vmmCr3);
  yield* lwktCpusyncSimple(cx, lwkt.smpActiveMask, inveptHere, vp);
}

function inveptHere(cx: Cx, arg: unknown): void {
  const { eptp } = arg as VmmProc;
  if (cx.k.vmm.pcpu[cx.gd.gdCpuid]?.on === true) invept(cx, INVEPT.SINGLE_CONTEXT, eptp);
}
