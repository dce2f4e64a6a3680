/**
 * What the VMM part keeps in a kernel, a process and a thread (section 15.2 of the reference).
 *
 * Room: leaf of `kernel/vmm/`; data only, imports types. {@link "../kernel.ts"} and {@link "../proc/proc.ts"} hold it.
 *
 *     VmmState        k.vmm          capability, per-processor regions, counters
 *     VmmProc         p.pVmm         a process in VMM mode: guest CR3 of its kernel, EPT root, who is in non-root operation
 *     VmxThread       lwp.lwpVmm     a thread's VMCS and what the last exit said (`td_vmm`, `struct vmx_thread_info`)
 *
 * @module
 */
import type { Gva, Hpa } from "../../hw/address.ts";
import type { FieldName } from "../../hw/vmx/fields.ts";
import type { Lwp } from "../proc/proc.ts";

/** Which design of section 18's "keeping two vmspaces in sync" is in force. */
export type VmmDesign = "merged" | "twin";
/** How accessed and dirty bits of EPT entries come about. */
export type VmmAdMode = "hardware" | "dragonfly" | "freebsd";

/** What the boot may say of the VMM. */
export interface VmmOptions {
  /** `hw.vmm.enable`. Default: true, where the processor can. */
  readonly enable?: boolean;
  /**
   * `hw.vmm.design`: "merged" is what DragonFly merged: the process has one address space, with EPT tables. "twin" is what the mail of 2013 hoped
   * for: regular tables for the host side and EPT tables for the guest, every change of the map applied to both. Default: merged.
   */
  readonly design?: VmmDesign;
  /** `hw.vmm.ad`. Default: "hardware" where the processor has accessed and dirty flags for EPT, else "dragonfly". */
  readonly ad?: VmmAdMode;
}

/** What `vmx_init` found: control words for each kind of guest, and limits. */
export interface VmxCapability {
  /** VMCS revision identifier. */
  readonly revision: number;
  /** Bytes of a region. */
  readonly regionSize: number;
  /** Physical addresses of regions are limited to this many bits. */
  readonly widthAddr: number;
  /** Pin-based controls. */
  readonly pinbased: number;
  /** Primary processor-based controls. */
  readonly procbased: number;
  /** Primary processor-based controls of a full guest (ring 0). */
  readonly procbasedFull: number;
  /** Secondary processor-based controls. */
  readonly procbased2: number;
  /** VM-exit controls. */
  readonly vmexit: number;
  /** VM-entry controls. */
  readonly vmentry: number;
  /** IA32_VMX_EPT_VPID_CAP. */
  readonly eptVpidCap: bigint;
  /** Bits of CR0 that must be 1 and that may be 1. */
  readonly cr0Fixed: readonly [zero: bigint, one: bigint];
  /** Bits of CR4 that must be 1 and that may be 1. */
  readonly cr4Fixed: readonly [zero: bigint, one: bigint];
  /** Bits of physical addresses, and so of guest-physical ones (MAXPHYADDR). */
  readonly physicalBits: number;
  /** The processor has accessed and dirty flags for EPT. */
  readonly hasAd: boolean;
}

/** A processor's part (`struct vmx_pcpu_info`). */
export interface VmxPcpuInfo {
  /** Kernel address and physical address of its VMXON region. */
  readonly vmxonRegion: Gva;
  readonly vmxonPa: Hpa;
  /** The thread whose VMCS is current on it (`loaded_vmx`). */
  loadedVmx: VmxThread | undefined;
  /** It is in VMX root operation. */
  on: boolean;
}

/** Counts of the VMM part; the lab reads them. All are totals since the boot. */
export class VmmCounters {
  /** VM entries that succeeded. */
  entries = 0;
  /** VM exits, by basic exit reason. */
  readonly exits: number[] = new Array<number>(65).fill(0);
  /** VM exits by exception, by vector. */
  readonly exceptions: number[] = new Array<number>(32).fill(0);
  /** System calls: #UD exits on SYSCALL, VMCALLs of full guests. */
  syscalls = 0;
  /** "Flush my TLB" calls (SYSCALL with RAX = −1). */
  hypercalls = 0;
  /** EPT violations that vm_fault resolved. */
  eptFaults = 0;
  /** EPT violations that set an emulated accessed or dirty bit, without vm_fault. */
  adEmulated = 0;
  /** INVEPT, single context, before an entry. */
  invepts = 0;
  /** INVEPT at the end of an address space, one each processor. */
  inveptsDestroy = 0;
  /** VMCLEARs: all, and those for a migration. */
  vmclears = 0;
  migrations = 0;
  /** VMPTRLDs. */
  vmptrlds = 0;
  /** VMREADs and VMWRITEs. */
  vmreads = 0;
  vmwrites = 0;
  /** vmm_guest_sync_addr calls; processors interrupted for them; entries that had to wait for one. */
  syncAddrs = 0;
  syncIpis = 0;
  syncWaits = 0;
  /** Walks of guest page tables for user copies, and table entries read by them. */
  guestWalks = 0;
  guestWalkRefs = 0;
  /** Copies by way of the process's own addresses, in the design "twin". */
  twinCopies = 0;
  /** Events injected into full guests. */
  injections = 0;
  /** Changes of a map that had to be applied to a second pmap ("twin"). */
  twinUpdates = 0;
}

/** Everything of a kernel. */
export class VmmState {
  /** What `vmx_init` found; undefined before, a text if the machine cannot. */
  capability: VmxCapability | string | undefined = undefined;
  /** `hw.vmm.enable`. */
  enabled = true;
  /** `hw.vmm.design`. */
  design: VmmDesign = "merged";
  /** `hw.vmm.ad`; undefined: as the processor has it. */
  ad: VmmAdMode | undefined = undefined;
  /** Physical address of the MSR bitmap of full guests; set when VMX operation begins. */
  msrBitmap: Hpa | undefined = undefined;
  /** By processor. */
  readonly pcpu: VmxPcpuInfo[] = [];
  /** Processes in VMM mode. */
  readonly procs: Set<VmmProc> = new Set();
  /** Threads with a VMCS. */
  threads = 0;
  readonly counters: VmmCounters = new VmmCounters();

  /** Made with the kernel. */
  constructor(options: VmmOptions = {}) {
    if (options.enable !== undefined) this.enabled = options.enable;
    if (options.design !== undefined) this.design = options.design;
    this.ad = options.ad;
  }
}

/** A process in VMM mode (`struct vmm_proc`, and what `struct proc` has for it). */
export class VmmProc {
  /** Root of the page tables that the vkernel itself runs on: `guest_cr3`, `vkernel_cr3`. */
  guestCr3: bigint;
  /** Physical address of the EPT root (`vmm_cr3`). */
  readonly vmmCr3: Hpa;
  /** EPT pointer, with its attributes. */
  readonly eptp: bigint;
  /** Processors that are in non-root operation for it, or about to be (`p_vmm_cpumask`). */
  cpumask = 0;
  /** Nobody may enter (`CPUMASK_LOCK` in 2013, `p_vmm_cpulock` since 2017). */
  locked = false;
  /** Threads in VMM mode. */
  nthreads = 0;
  /** It is a full guest: its threads begin in ring 0. */
  full: boolean;
  /** Vector of a full guest's virtual interrupt. */
  vector = 0;

  /** Made by vminit of the first thread. */
  constructor(guestCr3: bigint, vmmCr3: Hpa, eptp: bigint, full: boolean) {
    this.guestCr3 = guestCr3;
    this.vmmCr3 = vmmCr3;
    this.eptp = eptp;
    this.full = full;
  }
}

/** What the VMCS said of the last exit. */
export interface VmxExit {
  reason: number;
  qualification: bigint;
  interruption: number;
  interruptionError: number;
  instructionLength: number;
  vectoring: number;
  vectoringError: number;
  guestPhysical: bigint;
  guestLinear: bigint;
}

/** A thread in VMM mode (`struct vmx_thread_info`). */
export class VmxThread {
  readonly lwp: Lwp;
  readonly vp: VmmProc;
  /** Kernel address and physical address of its VMCS region. */
  readonly vmcsRegion: Gva;
  readonly vmcsPa: Hpa;
  /** The VMCS has been launched since its last VMCLEAR. */
  launched = false;
  /** Processor on which the VMCS is active; −1: on none. */
  activeCpu = -1;
  /** Processor whose tables the host-state area names (`last_cpu`). */
  lastCpu = -1;
  /** CR3 of the next entry (`guest_cr3`): the vkernel's, or one of its guests'. */
  guestCr3: bigint;
  /** What of the guest's context the VMCS has; a guest of ring 3 cannot change it. −1: nothing yet. */
  readonly written: { cr3: bigint; fsBase: bigint; gsBase: bigint } = { cr3: -1n, fsBase: -1n, gsBase: -1n };
  /** The interrupt that is taken now has come while the guest ran. */
  interrupted = false;
  /** Generation of the EPT that each processor has seen for this thread; with the historical bug only [0] is used. */
  readonly eptgen: (number | undefined)[] = [];
  /** The last exit. */
  readonly exit: VmxExit = {
    reason: 0,
    qualification: 0n,
    interruption: 0,
    interruptionError: 0,
    instructionLength: 0,
    vectoring: 0,
    vectoringError: 0,
    guestPhysical: 0n,
    guestLinear: 0n,
  };
  /** What of a full guest is kept besides; undefined for a guest of ring 3. */
  full: VmxFullGuest | undefined = undefined;

  /** Made by vminit. */
  constructor(lwp: Lwp, vp: VmmProc, vmcsRegion: Gva, vmcsPa: Hpa) {
    this.lwp = lwp;
    this.vp = vp;
    this.vmcsRegion = vmcsRegion;
    this.vmcsPa = vmcsPa;
    this.guestCr3 = vp.guestCr3;
  }
}

/** What a full guest (ring 0) has besides. */
export class VmxFullGuest {
  /** Vector by which the guest is told that signals have come; 0: it is not told. */
  vector: number;
  /** Signals that have come and that the guest has not asked for (bit n = signal n). */
  signals = 0n;
  /** The vector is to be injected. */
  pending = false;
  /** An exception is to be injected: interruption information, and its error code. */
  exception: { readonly information: number; readonly code: number } | undefined = undefined;
  /** Its CR2: the host has page faults of its own. */
  cr2 = 0n;
  /** Its CR8. */
  cr8 = 0n;
  /** Its CPL at the last exit. */
  cpl = 0;
  /** Kernel address and physical address of the page with the MSR areas. */
  readonly msrArea: Gva;
  readonly msrAreaPa: Hpa;
  /** It has executed HLT and waits for an event. */
  halted = false;
  /** An instruction has been carried out for it: what STI and MOV SS held back may come. */
  unblock = false;
  /** "Interrupt-window exiting" is set in the VMCS. */
  window = false;
  /** Fields as they were at the exit, for those who carry out an instruction. */
  cr0 = 0n;
  cr4 = 0n;
  efer = 0n;
  fsBase = 0n;
  gsBase = 0n;
  /** Fields to be written before the next entry. */
  readonly writes: (readonly [field: FieldName, value: bigint])[] = [];

  /** Made by vminit. */
  constructor(vector: number, msrArea: Gva, msrAreaPa: Hpa) {
    this.vector = vector;
    this.msrArea = msrArea;
    this.msrAreaPa = msrAreaPa;
  }

  /** A signal has come that the process catches: in place of `sendsig`. */
  signal(sig: number): void {
    this.signals |= 1n << BigInt(sig);
    this.pending = this.vector !== 0;
  }
  /** It has executed HLT, and there is nothing to tell it. */
  get sleeps(): boolean {
    return this.halted && !this.pending && this.exception === undefined;
  }
}
