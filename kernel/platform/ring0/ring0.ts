/**
 * The platform ring0: a vkernel that is a kernel in ring 0 of VMX non-root operation. Processor, page tables, exceptions and system calls are its
 * own, as pc64's; its devices are system calls of the host, made with VMCALL.
 *
 * Room: `kernel/platform/ring0/`; imports the common part of kernels in ring 0, and what vkernels share (vkernel64/).
 *
 * A virtual processor is a thread of the host; GS says which. Memory reaches the host by linear addresses of the direct map.
 *
 * @module
 */
import type { Gva, Hpa } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import * as state from "../../../hw/state.ts";
import type { Cx } from "../../context.ts";
import type { BlockDevice } from "../../kern/bio.ts";
import { panic } from "../../kern/panic.ts";
import type { Kernel } from "../../kernel.ts";
import type { Globaldata } from "../../lwkt/globaldata.ts";
import { physToDmap } from "../layout.ts";
import type { Platform } from "../platform.ts";
import { type CpuTables, SupervisorPlatform } from "../supervisor.ts";
import type { Cothread, CothreadMemory } from "../vkernel64/cothread.ts";
import { HostConsole, type HostIntr } from "../vkernel64/devices.ts";
import { cpuPause, host, IRQ_CONSOLE, must, SIGUSR1, SYS } from "../vkernel64/host.ts";
import { vkdAttach, type VkdHost } from "../vkernel64/vkd.ts";
import { interrupt, runPending } from "./intr.ts";
import type { Ring0Locore } from "./locore.ts";
import { threadIo, threadStackTop, threadWord } from "./vmparam.ts";

const { S } = state;
/** Segment register GS in the machine's order, which is the encodings'. */
const GS_BASE = S.SEGBASE + 5 * 8;
/** First host thread that is a cothread. */
const FIRST_COTHREAD = 16;

/** A virtual processor. */
export class RingCpu {
  /** Its number. */
  readonly id: number;
  /** The host's thread (`td_tid`); 0 until it runs. */
  tid = 0;
  /** Rounds of waiting for another processor. */
  pauses = 0;
  /** While an interrupt is taken: it came in user mode. */
  user = false;

  /** Made at the start. */
  constructor(id: number) {
    this.id = id;
  }

  /** Bytes for host calls. */
  get io(): Gva {
    return threadIo(this.id);
  }
}

/** How it was started. */
export interface Ring0Options {
  /** Processors. */
  readonly ncpus: number;
  /** The host's number of this process. */
  readonly pid: number;
  /** The console is a terminal of the host. */
  readonly tty: boolean;
  /** Bytes of RAM, and the first free physical address. */
  readonly memoryBytes: number;
  readonly free: number;
  /** Bytes of swap; 0: none. */
  readonly swapBytes: number;
  /** Ticks of the time-stamp counter a second. */
  readonly tscHz: number;
  /** Seconds since 1970 at the start. */
  readonly boottime: number;
  /** The signal mask that processor 0 shall have. */
  readonly signalMask: bigint;
  /** Gives the terminal back as it was. */
  readonly restoreTty: (u: GateCpu) => Exec<void>;
}

/** Another kernel around the kernel. */
export class Ring0 extends SupervisorPlatform implements Platform, VkdHost {
  readonly name = "ring0";
  readonly options: Ring0Options;
  /** The machine code; set before the first thread is made. */
  locore!: Ring0Locore;
  readonly vcpus: readonly RingCpu[];
  readonly console: HostConsole;
  readonly intr: HostIntr[] = [];
  readonly irqs: Set<number> = new Set();
  readonly cothreads: Cothread[] = [];
  /** Time-stamp counter at the start. */
  tscStart = 0n;
  /** Numbers of processors by the low half of the address of their globaldata. */
  readonly #numbers = new Map<number, number>();

  /** Made at the vkernel's start. */
  constructor(k: Kernel, options: Ring0Options) {
    super(k);
    this.options = options;
    this.console = new HostConsole(options.tty, (u) => this.io(u));
    this.vcpus = Array.from({ length: options.ncpus }, (_, id) => new RingCpu(id));
  }

  get rtcBoottime(): number {
    return this.options.boottime;
  }
  get tscHz(): number {
    return this.options.tscHz;
  }

  // ---- processors

  /** A processor has got its tables: it can be told by its GS base. */
  noteProcessor(id: number, { globaldata }: CpuTables): void {
    this.#numbers.set(Number(globaldata & 0xffff_ffffn), id);
  }
  /** Number of the processor that runs; undefined before GS has been loaded, and in a cothread. */
  number(cpu: GateCpu): number | undefined {
    return this.#numbers.get(cpu.cpu.get32(GS_BASE) >>> 0);
  }
  mycpu(cpu: GateCpu): Globaldata {
    return this.k.lwkt.gds[this.number(cpu)!]!;
  }
  /** The virtual processor that runs. */
  vcpu(cpu: GateCpu): RingCpu {
    return this.vcpus[this.number(cpu) ?? 0]!;
  }
  io(u: GateCpu): bigint {
    return this.vcpu(u).io;
  }
  get cothreadEntry(): bigint {
    return this.locore.cothread;
  }
  cothreadMemory(index: number): CothreadMemory {
    const thread = FIRST_COTHREAD + index;
    return { word: threadWord(thread), io: threadIo(thread), stackTop: threadStackTop(thread) };
  }

  cpuPause(cx: Cx): Exec<void> {
    return cpuPause(cx.cpu, this.vcpu(cx.cpu));
  }

  // ---- interrupts, time

  interrupt(cx: Cx, vector: number, user: boolean): Exec<void> {
    return interrupt(cx, this, vector, user);
  }
  protected override sendIpi(cx: Cx, id: number): Exec<void> {
    return this.kick(cx.cpu, id, SIGUSR1);
  }
  /** Sends a signal to a virtual processor. */
  *kick(u: GateCpu, id: number, sig: number): Exec<void> {
    yield* must(u, "lwp_kill", SYS.lwp_kill, this.options.pid, this.vcpus[id]!.tid, sig);
  }
  runPending(cx: Cx): Exec<void> {
    return runPending(cx, this);
  }
  uptimeNs(cx: Cx): number {
    return Math.floor(Number(cx.cpu.rdtsc() - this.tscStart) * (1e9 / this.options.tscHz));
  }
  *registerInt(_cx: Cx, irq: number, _name: string, fn: (cx: Cx) => void | Exec<void>): Exec<void> {
    this.intr.push({ irq, fn });
  }

  // ---- console, power

  consoleDrain(cx: Cx): Exec<void> {
    return this.console.drain(cx);
  }
  cnWrite(cx: Cx, bytes: Uint8Array): Exec<void> {
    return this.console.cnWrite(cx, bytes);
  }
  cnRegisterInput(fn: (cx: Cx, byte: number) => void, full?: () => boolean): void {
    this.console.registerInput(fn, full);
  }
  *cnResumeInput(cx: Cx): Exec<void> {
    this.console.takeInput(cx);
  }
  *cnStartInput(cx: Cx): Exec<void> {
    yield* this.registerInt(cx, IRQ_CONSOLE, "vcons", (at) => this.console.takeInput(at));
    this.console.takeInput(cx);
  }
  *powerOff(cx: Cx): Exec<never> {
    yield* this.consoleDrain(cx);
    cx.k.halted = true;
    return yield* this.exit(cx.cpu, cx.k.exitStatus);
  }
  /** As {@link powerOff}: who started the vkernel starts it again if it wants to. */
  *reset(cx: Cx): Exec<never> {
    return yield* this.powerOff(cx);
  }
  /** Ends the process. May be called by a cothread. */
  *exit(u: GateCpu, status: number): Exec<never> {
    yield* this.options.restoreTty(u);
    for (;;) yield* host(u, SYS.exit, status);
  }

  // ---- devices

  attachDisk(cx: Cx): Exec<BlockDevice | undefined> {
    return vkdAttach(cx, this);
  }
  *mapDevice(cx: Cx, physical: Hpa, _bytes: number): Exec<Gva> {
    return panic(cx, `pmap_mapdev: a vkernel has no device at 0x${physical.toString(16)}`);
  }
  /** Linear address of physical memory, for calls that move bytes there. */
  dmap(pa: Hpa): bigint {
    return physToDmap(this.k, pa);
  }
}
