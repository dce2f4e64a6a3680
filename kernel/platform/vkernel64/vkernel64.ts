/**
 * The platform vkernel64: what the kernel asks of what it runs on, made of a host kernel's system calls (`sys/platform/vkernel64`).
 *
 * Room: `kernel/platform/vkernel64/`; imports the host's calls, pmap and lwkt. What is common to all platforms' threads: ../threads.ts.
 *
 * A virtual processor is a thread of the host; FS says which. Interrupts are signals: a handler that finds them masked, or the thread in a
 * critical section, leaves a note. Masking is a word of TypeScript and not of the host (in DragonFly `cpu_disable_intr` blocks signals, one
 * system call each time, and critical sections do what is done here).
 *
 * @module
 */
import { type Gva, gva, type Hpa, hpa } from "../../../hw/address.ts";
import { type Exec, type GateCpu, NOTHING } from "../../../hw/gates.ts";
import * as state from "../../../hw/state.ts";
import type { Cx } from "../../context.ts";
import type { BlockDevice } from "../../kern/bio.ts";
import { panic } from "../../kern/panic.ts";
import type { Kernel } from "../../kernel.ts";
import { type Globaldata, RQF_IDLECHECK_MASK } from "../../lwkt/globaldata.ts";
import type { Thread } from "../../lwkt/thread.ts";
import type { Pmap } from "../../pmap/pmap.ts";
import { PG_RW_IDX, PG_U_IDX, PG_V_IDX, VPTE_FORMAT } from "../../pmap/pmap_bits.ts";
import { physToDmap } from "../layout.ts";
import type { Platform, RemoteInval } from "../platform.ts";
import { ThreadPlatform } from "../threads.ts";
import { VM_MAX_USER_ADDRESS } from "../pc64/vmparam.ts";
import {
  cpuPause,
  host,
  IRQ_CONSOLE,
  MADV_INVAL,
  MADV_SETMAP,
  MAP_FIXED,
  MAP_SHARED,
  MAP_VPAGETABLE,
  must,
  PROT_ALL,
  SIGUSR1,
  SYS,
} from "./host.ts";
import type { Cothread, CothreadMemory } from "./cothread.ts";
import { HostConsole, type HostIntr } from "./devices.ts";
import { runPending } from "./intr.ts";
import type { VkLocore } from "./locore.ts";
import { vkernelUserAccess } from "./user_access.ts";
import { GD_VA, IO_BYTES, IO_VA, KVA_END, KVA_START, stackTop } from "./vmparam.ts";
import { vkdAttach, type VkdHost } from "./vkd.ts";

const { S } = state;
/** Segment register FS in the machine's order, which is the encodings'. */
const FS_BASE = S.SEGBASE + 4 * 8;
const GD_LOW = Number(GD_VA);

/** First address of a process of a vkernel. */
const USER_START = 0x1000n;
const USER_BYTES = VM_MAX_USER_ADDRESS - USER_START;
const PAGE = 0x1000n;
/** Microseconds after which an idle processor looks again, wanted or not. */
const IDLE_USEC = 1_000_000;
/** System call number of the "forget my translations" hypercall: any SYSCALL leaves the guest, this one asks for nothing else. */
const HYPERCALL = -1;
/** SYSCALL numbers are 32 bits of RAX, the hypercall is told by all 64. */
const FLUSH_WORDS = 0x800n;

/** The words that cothreads sleep on, in the page behind the processors'. */
const WORDS_VA = GD_VA + 16n * 0x1000n;
/** First host thread that is a cothread. */
const FIRST_COTHREAD = 16;

/** How a vkernel's page tables are walked: by the host's fault code, or by VMX. */
export type VkernelMode = "vpte" | "vmm";

/** A virtual processor. */
export class Vcpu {
  /** Its number. */
  readonly id: number;
  /** The host's thread (`td_tid`); 0 until it runs. */
  tid = 0;
  /** Rounds of waiting for another processor. */
  pauses = 0;
  /** Interrupts may come. */
  intrEnabled = false;
  /** Between userret and the return of vmspace_ctl: guest user mode, as far as the vkernel can tell. */
  inUser = false;

  /** Made at the start. */
  constructor(id: number) {
    this.id = id;
  }

  /** Linear address of its globaldata page. */
  get gd(): bigint {
    return GD_VA + BigInt(this.id) * PAGE;
  }
  /** Bytes for host calls. */
  get io(): bigint {
    return IO_VA + BigInt(this.id * IO_BYTES);
  }
}

/** How a vkernel was started. */
export interface Vkernel64Options {
  readonly mode: VkernelMode;
  /** Processors. */
  readonly ncpus: number;
  /** File descriptor of the memory image; −1 on the VMM. */
  readonly memFd: number;
  /** The host's number of this process. */
  readonly pid: number;
  /** The console is a terminal of the host. */
  readonly tty: boolean;
  /** Bytes of swap; 0: none. */
  readonly swapBytes: number;
  /** Ticks of the time-stamp counter a second. */
  readonly tscHz: number;
  /** Gives the terminal back as it was. */
  readonly restoreTty: (u: GateCpu) => Exec<void>;
}

/** A host process under the kernel. */
export class Vkernel64 extends ThreadPlatform implements Platform, VkdHost {
  readonly name = "vkernel64";
  readonly options: Vkernel64Options;
  /** The machine code; set before the first thread is made. */
  locore!: VkLocore;
  readonly vcpus: readonly Vcpu[];
  /** Interrupt handlers. */
  readonly intr: HostIntr[] = [];
  /** Interrupt requests whose devices want to be looked at. */
  readonly irqs: Set<number> = new Set();
  /** Stacks of the idle threads, by processor. */
  readonly idleStacks: Gva[] = [];
  rtcBoottime = 0;
  get tscHz(): number {
    return this.options.tscHz;
  }
  /** Time-stamp counter at the start. */
  tscStart = 0n;
  /** Its cothreads. */
  readonly cothreads: Cothread[] = [];
  readonly console: HostConsole;
  readonly #ipiWanted: number[] = [];

  /** Made at the vkernel's start. */
  constructor(k: Kernel, options: Vkernel64Options) {
    super(k);
    this.options = options;
    this.console = new HostConsole(options.tty, (u) => this.io(u));
    this.vcpus = Array.from({ length: options.ncpus }, (_, id) => new Vcpu(id));
  }

  // ---- processors and threads

  mycpu(cpu: GateCpu): Globaldata {
    return this.k.lwkt.gds[(cpu.cpu.get32(FS_BASE) - GD_LOW) >>> 12]!;
  }
  /** The virtual processor that runs. */
  vcpu(cpu: GateCpu): Vcpu {
    return this.vcpus[(cpu.cpu.get32(FS_BASE) - GD_LOW) >>> 12]!;
  }
  io(u: GateCpu): bigint {
    return this.vcpu(u).io;
  }
  get cothreadEntry(): bigint {
    return this.locore.cothread;
  }
  cothreadMemory(index: number): CothreadMemory {
    const thread = FIRST_COTHREAD + index;
    return {
      word: WORDS_VA + BigInt(index * 64),
      io: IO_VA + BigInt(thread * IO_BYTES),
      stackTop: stackTop(thread),
    };
  }
  protected override idleStackTop(id: number): Gva {
    return this.idleStacks[id]!;
  }
  switchedFrom(_cx: Cx, _from: Thread): void {}

  interruptsEnabled(cx: Cx): boolean {
    return this.vcpu(cx.cpu).intrEnabled;
  }
  setInterrupts(cx: Cx, enabled: boolean): void {
    this.vcpu(cx.cpu).intrEnabled = enabled;
  }

  cpuPause(cx: Cx): Exec<void> {
    return cpuPause(cx.cpu, this.vcpu(cx.cpu));
  }

  /** Sleeps on the globaldata's first word (`cpu_idle`): whoever brings work changes it, before the sleep or in it. */
  *cpuHalt(cx: Cx): Exec<void> {
    const vcpu = this.vcpu(cx.cpu);
    yield* cx.cpu.store32(gva(vcpu.gd), 0);
    const gd = cx.gd;
    vcpu.intrEnabled = true;
    if (gd.gdReqflags & RQF_IDLECHECK_MASK || gd.gdTdrunq.length > 0) return;
    yield* host(cx.cpu, SYS.umtx_sleep, vcpu.gd, 0, IDLE_USEC);
  }

  // ---- user registers

  *setTls(cx: Cx, base: bigint): Exec<void> {
    cx.lwp!.lwpTls = base;
  }
  getTls(cx: Cx): bigint {
    return cx.lwp!.lwpTls;
  }
  *setGsbase(cx: Cx, base: bigint): Exec<void> {
    cx.lwp!.lwpGsbase = base;
  }
  getGsbase(cx: Cx): bigint {
    return cx.lwp!.lwpGsbase;
  }

  // ---- translation

  readonly pmapFormat = VPTE_FORMAT;
  readonly userAccess = vkernelUserAccess;

  /** Address spaces are changed by vmspace_ctl alone; the kernel's own is always in force. */
  loadCr3(_cx: Cx, _root: Hpa): Exec<void> {
    return NOTHING;
  }
  cr3(cx: Cx): Hpa {
    return hpa(Number(cx.cpu.space.root));
  }
  invlpg(cx: Cx, va: Gva, pmap: Pmap): Exec<void> {
    return this.remoteInval.range(cx, pmap, va, PAGE);
  }
  invltlb(cx: Cx, pmap: Pmap): Exec<void> {
    return this.remoteInval.all(cx, pmap);
  }
  get remoteInval(): RemoteInval {
    return this.options.mode === "vpte" ? this.#byMcontrol : this.#bySync;
  }
  /** Software page tables: the host removes what it has made of them (section 13.4 of the reference). */
  readonly #byMcontrol: RemoteInval = {
    range: (cx, pmap, va, bytes) => this.#inval(cx, pmap, va, bytes),
    all: (cx, pmap) =>
      pmap === cx.k.pmap.kernelPmap
        ? this.#inval(cx, pmap, KVA_START, KVA_END - KVA_START)
        : this.#inval(cx, pmap, USER_START, USER_BYTES),
  };
  *#inval(cx: Cx, pmap: Pmap, va: bigint, bytes: bigint): Exec<void> {
    if (pmap === cx.k.pmap.kernelPmap) {
      yield* must(cx.cpu, "mcontrol(MADV_INVAL)", SYS.mcontrol, va, bytes, MADV_INVAL, 0);
    } else {
      const what = "vmspace_mcontrol(MADV_INVAL)";
      yield* must(cx.cpu, what, SYS.vmspace_mcontrol, this.idOf(pmap), va, bytes, MADV_INVAL, 0);
    }
  }
  /** On the VMM every way out of the guest forgets linear translations; for other processors the host is asked (section 17.4). */
  readonly #bySync: RemoteInval = {
    range: (cx, pmap) => this.#sync(cx, pmap),
    all: (cx, pmap) => this.#sync(cx, pmap),
  };
  *#sync(cx: Cx, pmap: Pmap): Exec<void> {
    const active = pmap === cx.k.pmap.kernelPmap ? cx.k.lwkt.smpActiveMask : pmap.pmActive;
    if ((active & ~cx.gd.gdCpumask) === 0) {
      yield* host(cx.cpu, HYPERCALL);
      return;
    }
    const words = this.vcpu(cx.cpu).gd + FLUSH_WORDS;
    yield* must(cx.cpu, "vmm_guest_sync_addr", SYS.vmm_guest_sync_addr, words, words + 8n);
  }

  /** What the host calls the address space of a pmap: the physical address of its root. */
  idOf(pmap: Pmap): bigint {
    return BigInt(pmap.pmPmlpv!.pvM!.physAddr);
  }
  *cpuVmspaceAlloc(cx: Cx, pmap: Pmap): Exec<void> {
    if (this.options.mode === "vmm") return;
    const id = this.idOf(pmap), u = cx.cpu;
    const bits = pmap.pmapBits;
    yield* must(u, "vmspace_create", SYS.vmspace_create, id, 0, 0);
    const flags = MAP_SHARED | MAP_VPAGETABLE | MAP_FIXED;
    const { memFd } = this.options;
    yield* must(
      u,
      "vmspace_mmap",
      SYS.vmspace_mmap,
      id,
      USER_START,
      USER_BYTES,
      PROT_ALL,
      flags,
      memFd,
      USER_START,
    );
    const root = id | bits[PG_V_IDX]! | bits[PG_RW_IDX]! | bits[PG_U_IDX]!;
    const what = "vmspace_mcontrol(MADV_SETMAP)";
    yield* must(u, what, SYS.vmspace_mcontrol, id, USER_START, USER_BYTES, MADV_SETMAP, root);
  }
  *cpuVmspaceFree(cx: Cx, pmap: Pmap): Exec<void> {
    const id = this.idOf(pmap);
    if (this.options.mode === "vmm") cx.cpu.gates.dropAddressSpace(hpa(Number(id)), cx.cpu.space.ept);
    else yield* must(cx.cpu, "vmspace_destroy", SYS.vmspace_destroy, id);
  }

  // ---- interrupts

  requestIpi(cx: Cx, target: Globaldata): void {
    const me = cx.gd.gdCpuid;
    this.#ipiWanted[me] = (this.#ipiWanted[me] ?? 0) | target.gdCpumask;
  }
  flushIpis(cx: Cx): Exec<void> {
    return this.#ipiWanted[cx.gd.gdCpuid] ? this.#sendIpis(cx) : NOTHING;
  }
  *#sendIpis(cx: Cx): Exec<void> {
    for (;;) {
      const me = cx.gd.gdCpuid, mask = this.#ipiWanted[me] ?? 0;
      if (mask === 0) return;
      const id = 31 - Math.clz32(mask);
      this.#ipiWanted[me] = mask & ~(1 << id);
      yield* this.kick(cx.cpu, id, SIGUSR1);
    }
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
  /** Ends the process. */
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
