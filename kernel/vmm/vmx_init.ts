/**
 * Finding out what the processor can, and VMX operation on and off on all processors (`vmx_init`, `vmx_enable`, `vmx_disable` of
 * `sys/platform/pc64/vmm/vmx.c`; sections 15.2 and 15.3 of the reference).
 *
 * Room: `kernel/vmm/`; imports the instructions, kernel memory and the rendezvous.
 *
 * Deviation: DragonFly enables at the boot; here VMX operation begins with the first process that asks for it, so that a kernel without
 * guests runs as it would on a processor without VMX.
 *
 * @module
 */
import { PAGE_SIZE } from "../../hw/address.ts";
import type { Gva, Hpa } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { log } from "../kern/subr_prf.ts";
import { lwktCpusyncSimple } from "../lwkt/cpusync.ts";
import { ipiqEnqueue } from "../lwkt/ipiq.ts";
import { pmapKextract } from "../pmap/pmap_extract.ts";
import { kmemAlloc } from "../vm/vm_kern.ts";
import type { VmxCapability } from "./vmm_state.ts";
import {
  BASIC_TRUE_CTLS,
  CPUID_VMX,
  CR4_VMXE,
  EPT_CAP,
  FEATURE_CONTROL_LOCK,
  FEATURE_CONTROL_VMXON,
  INVEPT,
  MSR,
  PINBASED,
  PROCBASED,
  PROCBASED2,
  VMENTRY,
  VMEXIT,
} from "./vmx_defs.ts";
import { cpuid, invept, rdmsr, readCr, vmxoff, vmxon, writeCr } from "./vmx_instr.ts";

/** What is wanted of a control word beyond the defaults. */
interface Wanted {
  /** Must be 1. */
  readonly one: number;
  /** 1 where the processor can. */
  readonly likes?: number;
  /** 0 where the processor can, whatever the default. */
  readonly zero?: number;
}

/**
 * A control word (`vmx_set_ctl_setting`): where the processor allows one value only, that; where it allows both, what is wanted, and without a
 * wish the default of the non-TRUE register. Undefined when a bit must be 1 and cannot.
 */
function controlWord(cx: Cx, msr: number, trueMsr: number | undefined, wanted: Wanted): number | undefined {
  const plain = rdmsr(cx, msr);
  const range = trueMsr === undefined ? plain : rdmsr(cx, trueMsr);
  const mustBeOne = Number(range & 0xffff_ffffn), mayBeOne = Number(range >> 32n);
  const defaults = Number(plain & 0xffff_ffffn);
  const { one, likes = 0, zero = 0 } = wanted;
  if ((one & ~mayBeOne) !== 0) return undefined;
  return (mustBeOne | one | (likes & mayBeOne) | (defaults & ~zero)) | 0;
}

/** Asks the processor (`vmx_init`): control words, or why there is no VMM. Any processor answers for all: they are alike. */
export function vmxInit(cx: Cx): VmxCapability | string {
  if ((cpuid(cx, 1)[2] & CPUID_VMX) === 0n) return "VMX is not supported by this CPU";
  const control = rdmsr(cx, MSR.FEATURE_CONTROL), need = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMXON;
  if ((control & need) !== need) return "VMX is not enabled by the BIOS";
  const basic = rdmsr(cx, MSR.VMX_BASIC);
  const hasTrue = (basic & BASIC_TRUE_CTLS) !== 0n;
  const word = (msr: number, trueMsr: number, wanted: Wanted) =>
    controlWord(cx, msr, hasTrue ? trueMsr : undefined, wanted);
  const pinbased = word(MSR.VMX_PINBASED_CTLS, MSR.VMX_TRUE_PINBASED_CTLS, {
    one: PINBASED.EXTINT_EXITING | PINBASED.NMI_EXITING,
  });
  if (pinbased === undefined) return "VMX: external interrupts cannot cause exits";
  const secondary = { one: PROCBASED.ACTIVATE_SECONDARY, likes: PROCBASED.UNCONDITIONAL_IO };
  const procbased = word(MSR.VMX_PROCBASED_CTLS, MSR.VMX_TRUE_PROCBASED_CTLS, secondary);
  // Before the MSR of the secondary controls is read: without them it does not exist (26 January 2014).
  if (procbased === undefined) return "VMX: no secondary processor-based controls";
  const procbasedFull = word(MSR.VMX_PROCBASED_CTLS, MSR.VMX_TRUE_PROCBASED_CTLS, {
    ...secondary,
    likes: PROCBASED.UNCONDITIONAL_IO | PROCBASED.HLT_EXITING | PROCBASED.MOV_DR_EXITING |
      PROCBASED.CR8_LOAD_EXITING | PROCBASED.CR8_STORE_EXITING | PROCBASED.USE_MSR_BITMAPS,
    zero: PROCBASED.CR3_LOAD_EXITING | PROCBASED.CR3_STORE_EXITING,
  });
  const procbased2 = controlWord(cx, MSR.VMX_PROCBASED_CTLS2, undefined, {
    one: PROCBASED2.ENABLE_EPT,
    likes: PROCBASED2.ENABLE_RDTSCP,
  });
  if (procbased2 === undefined) return "VMX: EPT is not supported by this CPU";
  const vmexit = word(MSR.VMX_EXIT_CTLS, MSR.VMX_TRUE_EXIT_CTLS, {
    one: VMEXIT.HOST_64 | VMEXIT.SAVE_EFER | VMEXIT.LOAD_EFER,
  });
  const vmentry = word(MSR.VMX_ENTRY_CTLS, MSR.VMX_TRUE_ENTRY_CTLS, {
    one: VMENTRY.IA32E_GUEST | VMENTRY.LOAD_EFER,
  });
  if (vmexit === undefined || vmentry === undefined) return "VMX: EFER cannot be switched";
  const eptVpidCap = rdmsr(cx, MSR.VMX_EPT_VPID_CAP);
  const eptNeeds = EPT_CAP.PAGE_WALK_4 | EPT_CAP.WRITE_BACK | EPT_CAP.INVEPT | EPT_CAP.INVEPT_SINGLE |
    EPT_CAP.INVEPT_ALL;
  if ((eptVpidCap & eptNeeds) !== eptNeeds) return "VMX: EPT lacks 4-level walks, write back or INVEPT";
  return {
    revision: Number(basic & 0x7fff_ffffn),
    regionSize: Number((basic >> 32n) & 0x1fffn),
    widthAddr: (basic & (1n << 48n)) !== 0n ? 32 : 64,
    pinbased,
    procbased,
    procbasedFull: procbasedFull!,
    procbased2,
    vmexit,
    vmentry,
    eptVpidCap,
    cr0Fixed: [rdmsr(cx, MSR.VMX_CR0_FIXED0), rdmsr(cx, MSR.VMX_CR0_FIXED1)],
    cr4Fixed: [rdmsr(cx, MSR.VMX_CR4_FIXED0), rdmsr(cx, MSR.VMX_CR4_FIXED1)],
    physicalBits: Number(cpuid(cx, 0x8000_0008)[0] & 0xffn),
    hasAd: (eptVpidCap & EPT_CAP.ACCESSED_DIRTY) !== 0n,
  };
}

/** What the processor can; asked once (`vmm_init`). */
export function vmxCapabilityOf(cx: Cx): VmxCapability | undefined {
  const { vmm } = cx.k;
  if (cx.k.platform.name !== "pc64") return undefined;
  if (vmm.capability === undefined) {
    vmm.capability = vmxInit(cx);
    if (typeof vmm.capability === "string") log(cx, `vmm: ${vmm.capability}\n`);
  }
  return typeof vmm.capability === "string" ? undefined : vmm.capability;
}

/** A zeroed page of kernel memory that begins with the revision identifier, for VMXON or a VMCS. */
export function* vmxRegion(cx: Cx, capability: VmxCapability): Exec<{ readonly va: Gva; readonly pa: Hpa }> {
  const page = yield* vmxPage(cx);
  yield* cx.cpu.store32(page.va, capability.revision);
  return page;
}

/** A zeroed page of kernel memory with its physical address. */
export function* vmxPage(cx: Cx): Exec<{ readonly va: Gva; readonly pa: Hpa }> {
  const va = yield* kmemAlloc(cx, cx.k.kernelMap, PAGE_SIZE);
  kassert(va !== undefined, "vmx: kernel_map is full");
  const pa = yield* pmapKextract(cx, va);
  kassert(pa !== undefined, "vmx: a region is not mapped");
  return { va, pa };
}

/** VMX operation on every processor (`vmx_enable`); once it is on, nothing happens. Only with `vmm.capability` known to be good. */
export function* vmxEnable(cx: Cx, capability: VmxCapability): Exec<void> {
  const { vmm, lwkt } = cx.k;
  for (const gd of lwkt.gds) {
    if (vmm.pcpu[gd.gdCpuid] !== undefined) continue;
    const { va, pa } = yield* vmxRegion(cx, capability);
    // Somebody else may have been here while memory was waited for; one region too many is no harm.
    vmm.pcpu[gd.gdCpuid] ??= { vmxonRegion: va, vmxonPa: pa, loadedVmx: undefined, on: false };
  }
  vmm.msrBitmap ??= yield* msrBitmap(cx);
  if (vmm.pcpu.every((pcpu) => pcpu.on)) return;
  yield* lwktCpusyncSimple(cx, lwkt.smpActiveMask, vmxEnableCpu, undefined);
}

/** Where the bits of MSRs C0000000H … C0001FFFH stand in an MSR bitmap: reads, writes (SDM vol. 3C, "MSR-Bitmap Address"). */
const BITMAP_HIGH = [1024, 3072] as const;

/** Full guests read and write the segment bases, which VM entries and exits switch, without exits; all other MSRs exit. */
function* msrBitmap(cx: Cx): Exec<Hpa> {
  const { va, pa } = yield* vmxPage(cx);
  const bits = new Uint8Array(PAGE_SIZE).fill(0xff);
  for (const msr of [MSR.FS_BASE, MSR.GS_BASE, MSR.KERNEL_GS_BASE]) {
    const n = msr & 0x1fff;
    for (const start of BITMAP_HIGH) bits[start + (n >> 3)]! &= ~(1 << (n & 7));
  }
  yield* cx.cpu.storeBytes(va, bits);
  return pa;
}

function vmxEnableCpu(cx: Cx): void {
  const pcpu = cx.k.vmm.pcpu[cx.gd.gdCpuid];
  const { capability } = cx.k.vmm;
  if (pcpu === undefined || pcpu.on || capability === undefined || typeof capability === "string") return;
  const [zero, one] = capability.cr0Fixed;
  writeCr(cx, 0, (readCr(cx, 0) | zero) & one);
  writeCr(cx, 4, (readCr(cx, 4) | capability.cr4Fixed[0] | CR4_VMXE) & capability.cr4Fixed[1]);
  vmxon(cx, pcpu.vmxonPa);
  pcpu.on = true;
}

/**
 * The reverse (`vmx_disable`): each processor leaves VMX operation when it next looks at its messages. Preconditions: no process is in VMM mode. Who
 * enables again comes behind it, as its rendezvous goes through the same queues.
 */
export function vmxDisableLater(cx: Cx): void {
  const { vmm, lwkt } = cx.k;
  kassert(vmm.procs.size === 0, "vmx_disable: a process is in VMM mode");
  for (const gd of lwkt.gds) {
    if (gd === cx.gd) vmxDisableCpu(cx);
    else ipiqEnqueue(cx, gd, vmxDisableCpu, undefined);
  }
}

function vmxDisableCpu(cx: Cx): void {
  const pcpu = cx.k.vmm.pcpu[cx.gd.gdCpuid];
  if (pcpu === undefined || !pcpu.on) return;
  invept(cx, INVEPT.ALL_CONTEXTS, 0n);
  vmxoff(cx);
  writeCr(cx, 4, readCr(cx, 4) & ~CR4_VMXE);
  pcpu.on = false;
}
