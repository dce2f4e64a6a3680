/**
 * What the kernel asks of what it runs on (`sys/platform/*`): pc64 on the machine, vkernel64 on the system calls of a host kernel.
 *
 * Room: `kernel/platform/`; imports types only. vm/, pmap/, lwkt/, proc/ and vfs/ do not know which platform they are on.
 *
 * @module
 */
import type { Gva, Hpa } from "../../hw/address.ts";
import type { Exec, GateCpu } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import type { BlockDevice } from "../kern/bio.ts";
import type { Globaldata } from "../lwkt/globaldata.ts";
import type { Thread } from "../lwkt/thread.ts";
import type { Pmap, PmapUserAccess } from "../pmap/pmap.ts";
import type { PmapFormat } from "../pmap/pmap_bits.ts";
import type { Lwp } from "../proc/proc.ts";

/** Registers of a user thread besides its trap frame. */
export interface UserState {
  /** 512 bytes in FXSAVE format; undefined: clean registers. */
  readonly fpu: Uint8Array<ArrayBuffer> | undefined;
  /** FS base: thread-local storage. */
  readonly tls: bigint;
}

/**
 * Telling all processors of changed entries by one request to whoever owns the translations: the entry is changed first, then everybody
 * forgets it. The kernel below does the rendezvous.
 */
export interface RemoteInval {
  /** Nobody uses an older translation of `[va, va + bytes)` of a pmap when this comes back. */
  range(cx: Cx, pmap: Pmap, va: Gva, bytes: bigint): Exec<void>;
  /** The same for everything of a pmap. */
  all(cx: Cx, pmap: Pmap): Exec<void>;
}

/** The platform of a kernel. */
export interface Platform {
  /** `pc64` or `vkernel64`. */
  readonly name: string;

  // ---- processors and threads

  /** Kernel memory comes from kernel_map by now, not from the boot allocator: set by whoever brought it up. */
  kmemReady: boolean;

  /** `mycpu` of whoever runs on this processor. */
  mycpu(cpu: GateCpu): Globaldata;
  /** A kernel stack with a pcb at its top and an unmapped page below it. */
  allocKstack(cx: Cx): Exec<{ readonly pcb: Gva; readonly kstack: Gva }>;
  /** Kernel stacks that are kept for the next threads. */
  readonly kstacksCached: number;
  /** Takes the stack of a thread that has ended back. */
  freeKstack(cx: Cx, td: Thread): Exec<void>;
  /** Writes a new thread's first registers: its first switch enters the trampoline (`cpu_set_thread_handler`). */
  cpuInitThread(cx: Cx, td: Thread): Exec<void>;
  /** Gives a thread that has not run a frame to leave the kernel by (`cpu_fork`, `cpu_prepare_lwp`). */
  cpuForkLwp(cx: Cx, lwp: Lwp, frame: Uint8Array, state: UserState): Exec<void>;
  /**
   * Machine code of a switch (`cpu_heavy_switch`): comes back in the context of `to`'s last call of it. Activates `to`'s address space.
   * Interrupts are off.
   */
  cpuSwitch(cx: Cx, from: Thread, to: Thread): Exec<void>;
  /** The rest of a switch, on the new thread: the old one's address space is not active here any more. */
  switchedFrom(cx: Cx, from: Thread): void;
  /** Whether interrupts may come (`RFLAGS.IF`, or what stands for it). */
  interruptsEnabled(cx: Cx): boolean;
  /** Lets interrupts come or not (`cpu_enable_intr`, `cpu_disable_intr`). */
  setInterrupts(cx: Cx, enabled: boolean): void;
  /**
   * What belongs to a round of waiting for another processor besides an instruction boundary (`cpu_pause`): where processors are threads of a
   * kernel below, others run now and then.
   */
  cpuPause(cx: Cx): Exec<void>;
  /** `sti; hlt`. Interrupts are off before and on after. */
  cpuHalt(cx: Cx): Exec<void>;

  // ---- user registers of the current thread

  /** Where the current lwp's trap frame is. */
  frameOf(cx: Cx): Gva;
  /** x87 and SSE registers as they are now (FXSAVE format). */
  saveFpu(cx: Cx): Exec<Uint8Array<ArrayBuffer>>;
  /** Loads them; what a program may not set (reserved MXCSR bits) is masked out. Undefined: clean registers. */
  restoreFpu(cx: Cx, fpu: Uint8Array | undefined): Exec<void>;
  /** FS base of the current lwp. */
  setTls(cx: Cx, base: bigint): Exec<void>;
  /** FS base of the current lwp. */
  getTls(cx: Cx): bigint;
  /** GS base of the current lwp. */
  setGsbase(cx: Cx, base: bigint): Exec<void>;
  /** GS base of the current lwp. */
  getGsbase(cx: Cx): bigint;

  // ---- translation

  /** Format of page tables here. */
  readonly pmapFormat: PmapFormat;
  /** How the memory of a process is reached, if not by its addresses in the address space in force. */
  readonly userAccess: PmapUserAccess | undefined;
  /** Loads a page-table root and carries the running continuation along (`load_cr3`). */
  loadCr3(cx: Cx, root: Hpa): Exec<void>;
  /** Root in force here. */
  cr3(cx: Cx): Hpa;
  /** Forgets one page's translation on this processor (`cpu_invlpg`); of the kernel's or the current address space. */
  invlpg(cx: Cx, va: Gva, pmap: Pmap): Exec<void>;
  /** Forgets all but global translations on this processor (`cpu_invltlb`). */
  invltlb(cx: Cx, pmap: Pmap): Exec<void>;
  /** How all processors are told that entries have changed, if not by the rendezvous of pmap_inval.ts. */
  readonly remoteInval: RemoteInval | undefined;
  /** A pmap has got its root page (`cpu_vmspace_alloc`). */
  cpuVmspaceAlloc(cx: Cx, pmap: Pmap): Exec<void>;
  /** A pmap gives up its entries; its root may be used by another address space afterwards (`cpu_vmspace_free`). */
  cpuVmspaceFree(cx: Cx, pmap: Pmap): Exec<void>;

  // ---- interrupts between processors, time

  /** Notes that a processor is to be interrupted for its queues. */
  requestIpi(cx: Cx, target: Globaldata): void;
  /** Sends what {@link requestIpi} noted. */
  flushIpis(cx: Cx): Exec<void>;
  /** Runs the interrupt handlers that were kept waiting by a critical section. */
  runPending(cx: Cx): Exec<void>;
  /** Nanoseconds since power-up. */
  uptimeNs(cx: Cx): number;
  /** Ticks of the time-stamp counter a second. */
  readonly tscHz: number;
  /** Seconds since 1970 at power-up, from the real-time clock. */
  readonly rtcBoottime: number;

  // ---- console, power

  /** Sends what waits for the console. */
  consoleDrain(cx: Cx): Exec<void>;
  /** Queues and sends bytes (`cnputc`); line feeds as they are. */
  cnWrite(cx: Cx, bytes: Uint8Array): Exec<void>;
  /**
   * Who takes bytes typed at the console; runs in an interrupt. While `full` says so, bytes stay where they come from, until
   * {@link cnResumeInput}.
   */
  cnRegisterInput(fn: (cx: Cx, byte: number) => void, full?: () => boolean): void;
  /** There is room for bytes again. */
  cnResumeInput(cx: Cx): Exec<void>;
  /** Lets the console's input interrupt through; what has been typed before is handed over. */
  cnStartInput(cx: Cx): Exec<void>;
  /** Switches off; does not come back. */
  powerOff(cx: Cx): Exec<never>;
  /** Starts the machine anew; does not come back. */
  reset(cx: Cx): Exec<never>;

  // ---- devices

  /** Finds the disk, if there is one. */
  attachDisk(cx: Cx): Exec<BlockDevice | undefined>;
  /** Registers an interrupt handler for an ISA interrupt request and lets it through (`register_int`). The handler must not sleep. */
  registerInt(cx: Cx, irq: number, name: string, fn: (cx: Cx) => void | Exec<void>): Exec<void>;
  /** Linear address at which a device's registers stand: an uncached kernel mapping (`pmap_mapdev`). */
  mapDevice(cx: Cx, physical: Hpa, bytes: number): Exec<Gva>;
}
