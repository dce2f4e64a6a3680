/**
 * What a running kernel consists of: the state that its parts share. No part keeps state of its own outside it.
 *
 * Room: `kernel/`; imports the parts for their state. Who may change a part's state is said there.
 *
 * @module
 */
import type { Exec } from "../hw/gates.ts";
import { KtrState } from "./kern/ktr.ts";
import { MessageState } from "./kern/subr_prf.ts";
import { CalloutState } from "./lwkt/callout.ts";
import { SleepState } from "./lwkt/sleep.ts";
import { LwktState } from "./lwkt/thread.ts";
import type { Cx } from "./context.ts";
import type { BlockDevice } from "./kern/bio.ts";
import type { HistoricalBug } from "./bugs.ts";
import type { KernelLayout } from "./platform/layout.ts";
import type { Platform } from "./platform/platform.ts";
import type { FaultReport } from "./trap/report.ts";
import { PmapState } from "./pmap/pmap.ts";
import type { ImageActivator } from "./proc/imgact.ts";
import { ProcState } from "./proc/proc.ts";
import { SigtrampState } from "./proc/sigtramp_state.ts";
import { UmtxState } from "./proc/umtx_state.ts";
import { UschedState } from "./proc/usched_dfly.ts";
import { VfsState } from "./vfs/vfs_state.ts";
import { type VmmOptions, VmmState } from "./vmm/vmm_state.ts";
import { VkernelState } from "./vm/vkernel_state.ts";
import { VmKernState } from "./vm/vm_kern.ts";
import { type VmMap, VmMapState } from "./vm/vm_map.ts";
import { type VmObject, VmObjectState } from "./vm/vm_object.ts";
import { VmPageState } from "./vm/vm_page.ts";
import { SwapState } from "./vm/vm_swap.ts";
import { VmPagerState } from "./vm/vm_pager.ts";
import { Vmmeter } from "./vm/vmmeter.ts";
import { VmspaceState } from "./vm/vmspace.ts";

/** Turns bytes of machine code into lines for people. */
export type Disassembler = (code: Uint8Array, rip: bigint) => readonly string[];

/** A TypeScript program: what runs at ring 3 when `#!gate NAME` is executed. The result is the exit status. */
export type UserGate = (u: import("../hw/gates.ts").GateCpu) => Exec<number>;

/** How whoever boots a kernel reaches the kernels of the vkernels on it, and of the vkernels on those: for tests and experiments. */
export interface GuestHooks {
  /** Further options for the kernel of a vkernel of a kind (`-d`); they win over what its command line says. */
  readonly options?: (kind: string) => Partial<KernelOptions>;
  /** Told of each such kernel when it is made, before its first step. `pid` is the vkernel's process on the kernel below. */
  readonly onKernel?: (k: Kernel, kind: string, pid: number) => void;
}

/** What the kernel is told by whoever boots it. */
export interface KernelOptions {
  /** The root file system: cpio (newc) archives, each later one laid over those before. */
  readonly archives: readonly Uint8Array[];
  /**
   * Command lines that process 1 runs one after the other with `/bin/sh -c`; without any it runs `/sbin/init`, which gives a shell on the
   * console. The machine is switched off when the last has ended.
   */
  readonly exec?: readonly string[];
  /**
   * Programs that process 1 runs one after the other, instead of {@link exec} and without a shell: the arguments of each, a path first. For
   * archives that have no shell.
   */
  readonly commands?: readonly (readonly string[])[];
  /** Environment of process 1, `NAME=value`. */
  readonly envp?: readonly string[];
  /** Kernel messages on the console at the start (`dmesg`). Default: true. */
  readonly verbose?: boolean;
  /** Historical bugs to be on, by name (bugs.ts). */
  readonly bugs?: readonly string[];
  /** How guests run on VMX (`hw.vmm.*`). */
  readonly vmm?: VmmOptions;
  /** TypeScript programs by name. */
  readonly userGates?: Readonly<Record<string, UserGate>>;
  /**
   * Use the disk for swap. Default: true.
   *
   * @internal
   */
  readonly swap?: boolean;
  /** Disassembles code in fault reports; asked for at the first fault. Without one, reports show bytes. */
  readonly disassembler?: () => Disassembler | undefined;
  /** Show a report on the console of each fault that ends a program. Default: true. */
  readonly faultReports?: boolean;
  /** Told of every fault that ended a program or the kernel. */
  readonly onFault?: (report: FaultReport) => void;
  /** Told of the end of each command that process 1 was given, before the next one starts. */
  readonly onCommandEnd?: (k: Kernel, status: number) => void;
  /** Runs in a kernel thread instead of process 1, when everything is up: for tests and experiments. */
  readonly body?: (cx: Cx) => Exec<void>;
  /** What vkernels on this kernel are told beside their command lines. */
  readonly guest?: GuestHooks;
  /** How to run this again, for panics. */
  readonly reproduce?: string;
}

/** A kernel on one machine. */
export class Kernel {
  /** What it was told. */
  readonly options: KernelOptions;
  /**
   * What it runs on; set by `bootKernel`.
   *
   * @internal
   */
  platform!: Platform;
  /** Where things stand in its address space; the platform's. */
  readonly layout: KernelLayout;
  /** Processors that take part (`ncpus`). */
  ncpus = 1;
  /** Bytes of RAM that the loader reported. */
  memoryBytes = 0;
  /** Clock interrupts of the first processor since the start (`ticks`). */
  ticks = 0;
  /** Seconds since 1970 at the start (`boottime`). */
  boottime = 0;
  /** `kern.hostname`. */
  hostname = "exuvia";
  /** Averages of runnable threads over 1, 5 and 15 minutes. */
  readonly loadavg: [number, number, number] = [0, 0, 0];
  /** By processor: clock ticks in user mode, in user mode of nice programs, in the kernel, in interrupts, idle (`kern.cp_time`). */
  readonly cpTime: [number, number, number, number, number][] = [];
  /** The machine stands still, as it was asked to. */
  halted = false;

  /**
   * Threads and processors.
   *
   * @internal
   */
  readonly lwkt: LwktState = new LwktState();
  /**
   * Who sleeps on what.
   *
   * @internal
   */
  readonly sleep: SleepState = new SleepState();
  /**
   * Timed calls.
   *
   * @internal
   */
  readonly callouts: CalloutState = new CalloutState();
  /**
   * The message buffer.
   *
   * @internal
   */
  readonly messages: MessageState = new MessageState();
  /**
   * The last events.
   *
   * @internal
   */
  readonly ktr: KtrState = new KtrState();
  /** Counters (`vmmeter`, `vmstats`). */
  readonly vmmeter: Vmmeter = new Vmmeter();
  /**
   * Page tables and reverse maps.
   *
   * @internal
   */
  readonly pmap: PmapState = new PmapState();
  /**
   * Physical pages.
   *
   * @internal
   */
  readonly vmPages: VmPageState = new VmPageState();
  /**
   * Swap space.
   *
   * @internal
   */
  readonly swap: SwapState = new SwapState();
  /**
   * Memory objects.
   *
   * @internal
   */
  readonly vmObject: VmObjectState = new VmObjectState();
  /**
   * The kernel's own virtual memory.
   *
   * @internal
   */
  readonly vmKern: VmKernState = new VmKernState();
  /**
   * Address maps.
   *
   * @internal
   */
  readonly vmMap: VmMapState = new VmMapState();
  /**
   * Pagers.
   *
   * @internal
   */
  readonly vmPager: VmPagerState = new VmPagerState();
  /**
   * Address spaces.
   *
   * @internal
   */
  readonly vmspace: VmspaceState = new VmspaceState();
  /**
   * Guests on VMX.
   *
   * @internal
   */
  readonly vmm: VmmState;
  /** Vkernels that run on this kernel. */
  readonly vkernel: VkernelState = new VkernelState();
  /**
   * Processes.
   *
   * @internal
   */
  readonly procs: ProcState = new ProcState();
  /**
   * The user scheduler.
   *
   * @internal
   */
  readonly usched: UschedState = new UschedState();
  /**
   * Threads that wait for words of memory.
   *
   * @internal
   */
  readonly umtx: UmtxState = new UmtxState();
  /** Gates of TypeScript programs by their names. */
  readonly userGateNumbers: Map<string, number> = new Map();
  /**
   * The page of signal trampolines.
   *
   * @internal
   */
  readonly sigtramp: SigtrampState = new SigtrampState();
  /**
   * Image activators that exec asks one after the other (kernel/proc/imgact.ts).
   *
   * @internal
   */
  readonly imageActivators: ImageActivator[] = [];
  /**
   * Files.
   *
   * @internal
   */
  readonly vfs: VfsState = new VfsState();

  /**
   * The disk, if there is one; swap uses the whole of it.
   *
   * @internal
   */
  disk: BlockDevice | undefined;
  /** Where the loader put the archives: physical ranges, in the order of `options.archives`. */
  readonly rootArchives: { readonly start: number; readonly end: number }[] = [];
  /**
   * Called in every clock interrupt on every processor; `user` says where it came from.
   *
   * @internal
   */
  readonly hardclockHooks: ((cx: Cx, user: boolean) => void)[] = [];
  /** Historical bugs that are on. */
  readonly #bugs: ReadonlySet<string>;

  /**
   * Made by `bootKernel`.
   *
   * @throws {RangeError} when a bug is named that is not in the table.
   */
  constructor(options: KernelOptions, bugs: readonly HistoricalBug[], layout: KernelLayout) {
    this.options = options;
    this.vmm = new VmmState(options.vmm);
    this.layout = layout;
    for (const name of options.bugs ?? []) {
      if (!bugs.some((bug) => bug.name === name)) {
        throw new RangeError(
          `There is no historical bug "${name}" (there are ${bugs.map((bug) => bug.name).join(", ")})`,
        );
      }
    }
    this.#bugs = new Set(options.bugs);
  }

  /**
   * `kernel_map`.
   *
   * @internal
   */
  get kernelMap(): VmMap {
    return this.vmKern.kernelMap;
  }

  /**
   * `kernel_object`: the kernel's wired pages.
   *
   * @internal
   */
  get kernelObject(): VmObject {
    return this.vmKern.kernelObject;
  }

  /** Whether a historical bug is on. */
  bug(name: string): boolean {
    return this.#bugs.has(name);
  }

  /** Exit status for the host: that of the last command, or of the shell on the console. */
  get exitStatus(): number {
    return this.procs.exitStatus;
  }
}
