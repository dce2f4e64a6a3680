/**
 * A vkernel's start (`sys/platform/vkernel64/platform/init.c`): a program of the host that becomes a kernel.
 *
 * Room: `kernel/platform/vkernel64/`; the top of it. Imports the kernel's start, the parts of this folder.
 *
 *     arguments ─ RAM ─ archives ─ page tables ─ (VMM: non-root operation) ─ gates and machine code ─ processors ─ init_main
 *
 * @module
 */
import { gva, hpa } from "../../../hw/address.ts";
import { type Exec, type GateCpu, KernelPanic } from "../../../hw/gates.ts";
import { HISTORICAL_BUGS } from "../../bugs.ts";
import { Cx } from "../../context.ts";
import { initMain, initMemory } from "../../kern/init_main.ts";
import { panicText } from "../../kern/kern_shutdown.ts";
import { kprintf } from "../../kern/subr_prf.ts";
import { Kernel, type KernelOptions, type UserGate } from "../../kernel.ts";
import { cpuJoin } from "../../lwkt/cpu_join.ts";
import { hz } from "../../lwkt/callout.ts";
import { kthreadCreate, lwktExit, lwktIdle, lwktSwitchReturn } from "../../lwkt/thread.ts";
import { PG_RW_IDX, PG_V_IDX, VPTE_FORMAT } from "../../pmap/pmap_bits.ts";
import { pmapBootAlloc, pmapBootstrap } from "../../pmap/pmap_bootstrap.ts";
import { OSRELEASE } from "../../proc/version.ts";
import { PCB_BYTES } from "../pc64/pcb.ts";
import { KSTACK_BYTES } from "../pc64/vmparam.ts";
import { blockSignals, cothreadCreate, lwpCreate, setSignals } from "./cothread.ts";
import {
  host,
  HostError,
  IRQ_CONSOLE,
  MADV_SETMAP,
  MAP_ANON,
  MAP_FIXED,
  MAP_SHARED,
  MAP_VPAGETABLE,
  must,
  PROT_ALL,
  putString,
  SIGALRM,
  SIGIO,
  SIGUSR1,
  SYS,
} from "./host.ts";
import { signalIntr } from "./intr.ts";
import { buildVkLocore } from "./locore.ts";
import { parseVkernelArgs, USAGE, type VkernelArgs } from "./options.ts";
import { goUser, signalFault } from "./trap.ts";
import { rawTty, setTty } from "./tty.ts";
import { Vkernel64, type VkernelMode } from "./vkernel64.ts";
import { enterVmm } from "./vmm_start.ts";
import {
  DMAP_VA,
  GD_VA,
  HOST_THREADS_MAX,
  IO_BYTES,
  IO_VA,
  KVA_END,
  KVA_START,
  LOCORE_VA,
  STACK_BYTES,
  STACKS_VA,
  VMM_LAYOUT,
  VMM_RAM_VA,
  VPTE_LAYOUT,
} from "./vmparam.ts";

const RSP = 4, RDI = 7;
const PAGE = 0x1000;
const O_RDONLY = 0, O_RDWR = 2, O_CREAT = 0x0200, O_EXCL = 0x0800;
const MAP_PRIVATE = 0x0002;
const CLOCK_REALTIME = 0, ITIMER_REAL = 0;
const SA_SIGINFO = 0x40;
/** Signals for what the vkernel itself does wrong: ILL, FPE, BUS, SEGV. */
const FAULT_SIGNALS = [4, 8, 10, 11];
const EX_USAGE = 64, EX_FAILED = 1;
/** Byte that ends the input of a console. */
const CTRL_D = 0x04;
/** Pages of globaldata: the processors', and one for cothreads. */
const GD_PAGES = 17;
/** Archives of the kernel below, as devices. */
const ARCHIVE_DEVICES = 8;

/** What a vkernel takes over from the kernel that it runs on. */
export type VkernelEnvironment = Pick<KernelOptions, "bugs" | "userGates" | "disassembler" | "vmm">;

/** Options of a kernel with the program `vkernel` among its TypeScript programs; a vkernel has it too. */
export function withVkernel(options: KernelOptions): KernelOptions {
  const { bugs, disassembler, vmm } = options;
  const userGates: Record<string, UserGate> = {
    ...options.userGates,
    vkernel: (u) =>
      vkernelMain(u, {
        ...(bugs === undefined ? {} : { bugs }),
        ...(disassembler === undefined ? {} : { disassembler }),
        ...(vmm === undefined ? {} : { vmm }),
        userGates,
      }),
  };
  return { ...options, userGates };
}

/** The program `vkernel`: comes back only if it could not start. The result is the exit status. */
export function* vkernelMain(u: GateCpu, environment: VkernelEnvironment): Exec<number> {
  const args = parseVkernelArgs((yield* programArguments(u)).slice(1));
  try {
    yield* mapFixed(u, GD_VA, GD_PAGES * PAGE);
    yield* mapFixed(u, IO_VA, HOST_THREADS_MAX * IO_BYTES);
    if (typeof args === "string") {
      yield* complain(u, `vkernel: ${args}\n${USAGE}`);
      return EX_USAGE;
    }
    return yield* start(u, args, environment);
  } catch (error) {
    // Whatever it is, it is this program's affair and nobody else's.
    const why = error instanceof HostError
      ? error.message
      : `${error instanceof Error ? error.stack : error}`;
    yield* complain(u, `vkernel: ${why}\n`);
    return EX_FAILED;
  }
}

/** The words that the program was started with. */
function* programArguments(u: GateCpu): Exec<string[]> {
  const sp = u.gpr(RSP), argc = Number(yield* u.load64(gva(sp)));
  const words: string[] = [];
  for (let i = 0; i < argc; i++) {
    const bytes: number[] = [];
    for (let at = yield* u.load64(gva(sp + BigInt(8 + i * 8)));; at++) {
      const byte = yield* u.load8(gva(at));
      if (byte === 0) break;
      bytes.push(byte);
    }
    words.push(new TextDecoder().decode(Uint8Array.from(bytes)));
  }
  return words;
}

/** Says something on standard error. */
function* complain(u: GateCpu, text: string): Exec<void> {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length; at += IO_BYTES) {
    const piece = bytes.subarray(at, at + IO_BYTES);
    yield* u.storeBytes(gva(IO_VA), piece);
    yield* host(u, SYS.write, 2, IO_VA, piece.length);
  }
}

/** Anonymous memory at a place of its own. */
function* mapFixed(u: GateCpu, va: bigint, bytes: number): Exec<void> {
  yield* must(u, "mmap", SYS.mmap, va, bytes, PROT_ALL, MAP_ANON | MAP_PRIVATE | MAP_FIXED, -1, 0, 0);
}

/** Everything. */
function* start(u: GateCpu, args: VkernelArgs, environment: VkernelEnvironment): Exec<number> {
  if (args.mode === "ring0") {
    yield* complain(u, "vkernel: -d ring0: not here\n");
    return EX_USAGE;
  }
  const mode: VkernelMode = args.mode;
  const vmm = mode === "vmm";
  yield* mapFixed(u, LOCORE_VA, PAGE);
  yield* mapFixed(u, STACKS_VA, HOST_THREADS_MAX * STACK_BYTES);
  const pid = Number(yield* must(u, "getpid", SYS.getpid));
  for (const directory of ["/var", "/var/vkernel"]) {
    yield* host(u, SYS.mkdir, yield* putString(u, IO_VA, directory), 0o700);
  }
  const memFd = vmm ? yield* anonymousRam(u, args.memory) : yield* imageRam(u, args.memory, pid);
  const old = yield* rawTty(u, IO_VA);
  const k = new Kernel(
    {
      ...environment,
      archives: [],
      verbose: args.verbose,
      ...(args.command === undefined ? {} : { exec: [args.command] }),
    },
    HISTORICAL_BUGS,
    vmm ? VMM_LAYOUT : VPTE_LAYOUT,
  );
  const platform: Vkernel64 = new Vkernel64(k, {
    mode,
    ncpus: args.ncpus,
    memFd,
    pid,
    tty: old !== undefined,
    swapBytes: args.swap,
    tscHz: yield* tscFrequency(u),
    *restoreTty(at): Exec<void> {
      if (old !== undefined) yield* setTty(at, platform.vcpu(at).io, old);
    },
  });
  k.platform = platform;
  k.messages.toConsole = args.verbose;
  const base = vmm ? Number(VMM_RAM_VA) : 0;
  k.memoryBytes = args.memory;
  // A root at 0 would be hard to tell from none.
  const free = yield* loadArchives(k, u, base + PAGE, base + args.memory, args);
  const root = yield* pmapBootstrap(k, u, {
    available: [{ start: hpa(free), end: hpa(base + args.memory) }],
    memoryBytes: args.memory,
    directMap: false,
    kernelSlots: [],
    static: [],
  });
  if (vmm) yield* enterVmm(u, root, base, args.memory);
  else {
    const bits = VPTE_FORMAT.pmapBits;
    const map = BigInt(root) | bits[PG_V_IDX]! | bits[PG_RW_IDX]!;
    const what = "mcontrol(MADV_SETMAP)";
    yield* must(u, what, SYS.mcontrol, KVA_START, KVA_END - KVA_START, MADV_SETMAP, map);
  }
  yield* registerGates(k, platform, u);
  yield* bootProcessor(k, platform, u);
  return 0;
}

/** RAM as a file (`init_sys_memory`): without a name, so that it goes with the process. Gives its descriptor. */
function* imageRam(u: GateCpu, bytes: number, pid: number): Exec<number> {
  const io = IO_VA;
  const path = `/var/vkernel/memimg.${String(pid).padStart(6, "0")}`;
  const fd = yield* must(u, path, SYS.open, yield* putString(u, io, path), O_RDWR | O_CREAT | O_EXCL, 0o600);
  yield* must(u, path, SYS.unlink, io);
  yield* must(u, `${path}: ${bytes >>> 20} MiB`, SYS.ftruncate, fd, 0, bytes);
  yield* must(u, "mmap of RAM", SYS.mmap, DMAP_VA, bytes, PROT_ALL, MAP_SHARED | MAP_FIXED, fd, 0, 0);
  const flags = MAP_SHARED | MAP_FIXED | MAP_VPAGETABLE;
  // Refused unless vm.vkernel_enable is on.
  const what = "mmap(MAP_VPAGETABLE) (is the sysctl vm.vkernel_enable 1?)";
  yield* must(u, what, SYS.mmap, KVA_START, KVA_END - KVA_START, PROT_ALL, flags, fd, 0, KVA_START);
  return Number(fd);
}

/** RAM as memory of the process. */
function* anonymousRam(u: GateCpu, bytes: number): Exec<number> {
  const flags = MAP_ANON | MAP_SHARED | MAP_FIXED;
  yield* must(u, "mmap of RAM", SYS.mmap, VMM_RAM_VA, bytes, PROT_ALL, flags, -1, 0, 0);
  return -1;
}

/** Reads the archives of the root file system to the start of RAM; gives the first free address behind them. */
function* loadArchives(k: Kernel, u: GateCpu, from: number, end: number, args: VkernelArgs): Exec<number> {
  let at = from;
  const own = args.roots.length === 0;
  const paths = own ? Array.from({ length: ARCHIVE_DEVICES }, (_, i) => `/dev/md${i}`) : args.roots;
  for (const path of paths) {
    const opened = yield* host(u, SYS.open, yield* putString(u, IO_VA, path), O_RDONLY, 0);
    if (opened.errno !== 0) {
      if (own && at > from) break;
      throw new HostError(path, opened.errno);
    }
    const start = at;
    for (;;) {
      const room = Math.min(end - at, 1 << 20);
      if (room === 0) throw new HostError(`${path} does not fit in ${args.memory >>> 20} MiB`, 12);
      const to = k.layout.dmapMin + BigInt(at);
      const n = Number(yield* must(u, path, SYS.read, opened.value, to, room));
      if (n === 0) break;
      at += n;
    }
    yield* host(u, SYS.close, opened.value);
    k.rootArchives.push({ start, end: at });
    at = Math.ceil(at / PAGE) * PAGE;
  }
  return at;
}

/** `hw.tsc_frequency` of the host. */
function* tscFrequency(u: GateCpu): Exec<number> {
  const name = new TextEncoder().encode("hw.tsc_frequency");
  const mib = IO_VA, length = IO_VA + 64n, out = IO_VA + 128n, text = IO_VA + 256n;
  yield* u.storeBytes(gva(mib), new Uint8Array(new Uint32Array([0, 3]).buffer));
  yield* u.store64(gva(length), 64n);
  yield* u.storeBytes(gva(text), name);
  yield* must(u, "sysctl name2oid", SYS.__sysctl, mib, 2, out, length, text, name.length);
  const words = Number(yield* u.load64(gva(length))) / 4;
  yield* u.store64(gva(length), 8n);
  yield* must(u, "sysctl hw.tsc_frequency", SYS.__sysctl, out, words, text, length, 0, 0);
  return Number(yield* u.load64(gva(text)));
}

/** Gates of this vkernel, entered in its own space only and gone with it, and the machine code that enters them. */
function* registerGates(k: Kernel, platform: Vkernel64, u: GateCpu): Exec<void> {
  const space = u.space;
  const register = (name: string, body: (cx: Cx) => Exec<void>) =>
    u.gates.register({
      name: `vkernel ${name}`,
      cpl: 3,
      root: space.root,
      ept: space.ept,
      owner: space,
      body: (cpu) => guarded(new Cx(k, cpu), platform, body),
    });
  platform.locore = buildVkLocore({
    intr: register("signal", (cx) => signalIntr(cx, platform)),
    fault: register("fault", (cx) => signalFault(cx)),
    lwktTrampoline: register("lwkt_trampoline", (cx) => lwktTrampoline(cx, platform)),
    apInit: register("ap_init", (cx) => apInit(cx, platform)),
    cothread: register("cothread", (cx) => {
      const cothread = platform.cothreads[Number(cx.cpu.gpr(RDI))]!;
      return cothread.body(cx.cpu);
    }),
  });
  yield* u.storeBytes(gva(LOCORE_VA), platform.locore.image);
  const { intr, fault } = platform.locore;
  const blocked = [SIGALRM, SIGIO, SIGUSR1].reduce((mask, sig) => mask | (1n << BigInt(sig - 1)), 0n);
  for (const sig of [SIGALRM, SIGIO, SIGUSR1]) yield* sigaction(u, sig, intr, blocked);
  for (const sig of FAULT_SIGNALS) yield* sigaction(u, sig, fault, blocked);
}

function* sigaction(u: GateCpu, sig: number, handler: bigint, mask: bigint): Exec<void> {
  const bytes = new Uint8Array(28), view = new DataView(bytes.buffer);
  view.setBigUint64(0, handler, true);
  view.setInt32(8, SA_SIGINFO, true);
  view.setBigUint64(12, mask, true);
  yield* u.storeBytes(gva(IO_VA), bytes);
  yield* must(u, "sigaction", SYS.sigaction, sig, IO_VA, 0);
}

/** Runs a body; what it throws ends the vkernel with a message, and nothing else. */
function* guarded(cx: Cx, platform: Vkernel64, body: (cx: Cx) => Exec<void>): Exec<void> {
  try {
    yield* body(cx);
  } catch (error) {
    cx.cpu.mayAbort = false;
    const text = error instanceof KernelPanic || error instanceof Error ? error : new Error(String(error));
    yield* complain(cx.cpu, panicText(cx, text));
    yield* platform.exit(cx.cpu, EX_FAILED);
  }
}

/** First TypeScript of a thread. */
function* lwktTrampoline(cx: Cx, platform: Vkernel64): Exec<void> {
  lwktSwitchReturn(cx);
  const td = cx.td;
  td.tdCritcount = 0;
  cx.setInterrupts(true);
  if (td.tdFn !== undefined) yield* td.tdFn(cx);
  if (td.tdLwp !== undefined) yield* goUser(cx, platform);
  yield* lwktExit(cx);
}

/** The first processor becomes its idle thread; the others follow; and then the kernel is a kernel. */
function* bootProcessor(k: Kernel, platform: Vkernel64, u: GateCpu): Exec<void> {
  platform.tscStart = u.rdtsc();
  yield* u.store64(gva(IO_VA), 0n);
  yield* must(u, "clock_gettime", SYS.clock_gettime, CLOCK_REALTIME, IO_VA);
  platform.rtcBoottime = k.boottime = Number(yield* u.load64(gva(IO_VA)));
  // Until there is a clock, nothing may come.
  const mask = yield* blockSignals(u, IO_VA);
  const cx = new Cx(k, u);
  yield* guarded(cx, platform, function* () {
    yield* becomeProcessor(cx, platform, 0);
    kprintf(cx, `Exuvia ${OSRELEASE}: a vkernel (${platform.options.mode})\n`);
    kprintf(cx, `real memory  = ${k.memoryBytes} (${k.memoryBytes >>> 20} MB)\n`);
    initMemory(cx);
    yield* startOthers(cx, platform);
    yield* setSignals(u, platform.vcpus[0]!.io, mask);
    yield* startClock(u, platform);
    yield* cothreadCreate(u, platform, IRQ_CONSOLE, (at) => readConsole(at, platform));
    yield* kthreadCreate(cx, initMain, "swapper");
    yield* lwktIdle(cx);
  });
}

/** The running host thread is a processor from now on, and the running continuation its idle thread. */
function* becomeProcessor(cx: Cx, platform: Vkernel64, id: number): Exec<void> {
  const { cpu } = cx, vcpu = platform.vcpus[id]!;
  yield* cpu.storeBytes(gva(vcpu.io), new Uint8Array(new BigUint64Array([vcpu.gd, 0xffff_ffffn]).buffer));
  yield* must(cpu, "set_tls_area", SYS.set_tls_area, 0, vcpu.io, 16);
  vcpu.tid = Number(yield* must(cpu, "lwp_gettid", SYS.lwp_gettid));
  if (platform.idleStacks[id] === undefined) yield* idleStack(cx, platform, id);
  const pcb = platform.idleStacks[id]!, kstack = gva(pcb - BigInt(KSTACK_BYTES - PCB_BYTES));
  yield* platform.initIdlePcb(cx, id);
  cpuJoin(cx.k, id, { globaldata: gva(vcpu.gd), kstack, pcb });
}

/** A pcb for an idle thread, on a stack that only it has: the thread itself runs on the host thread's. */
function* idleStack(cx: Cx, platform: Vkernel64, id: number): Exec<void> {
  const kstack = yield* pmapBootAlloc(cx.k, cx.cpu, KSTACK_BYTES);
  platform.idleStacks[id] = gva(kstack + BigInt(KSTACK_BYTES - PCB_BYTES));
}

/** Starts the other processors, one after the other. */
function* startOthers(cx: Cx, platform: Vkernel64): Exec<void> {
  const { k, cpu } = cx;
  for (let id = 1; id < platform.options.ncpus; id++) {
    yield* idleStack(cx, platform, id);
    yield* lwpCreate(cpu, platform.vcpus[0]!.io, platform.locore.apInit, id, id);
    while (k.lwkt.gds[id] === undefined) yield;
  }
  k.ncpus = k.lwkt.gds.length;
  if (k.ncpus > 1) kprintf(cx, `SMP: ${k.ncpus} CPUs\n`);
}

/** First TypeScript on another processor, every signal blocked. RDI = its number. */
function* apInit(cx: Cx, platform: Vkernel64): Exec<void> {
  const id = Number(cx.cpu.gpr(RDI)), vcpu = platform.vcpus[id]!;
  yield* becomeProcessor(cx, platform, id);
  // The clock and devices are the first processor's.
  const mask = [SIGALRM, SIGIO].reduce((blocked, sig) => blocked | (1n << BigInt(sig - 1)), 0n);
  yield* setSignals(cx.cpu, vcpu.io, mask);
  yield* lwktIdle(cx);
}

/** SIGALRM `hz` times a second. */
function* startClock(u: GateCpu, platform: Vkernel64): Exec<void> {
  const { io } = platform.vcpus[0]!, usec = BigInt(1_000_000 / hz);
  yield* u.storeBytes(gva(io), new Uint8Array(new BigUint64Array([0n, usec, 0n, usec]).buffer));
  yield* must(u, "setitimer", SYS.setitimer, ITIMER_REAL, io, 0);
}

/** The cothread of the console: reads standard input; its end is an end of file for whoever reads the console. */
function* readConsole(u: GateCpu, platform: Vkernel64): Exec<void> {
  const cothread = platform.cothreads[0]!;
  for (;;) {
    const { errno, value } = yield* host(u, SYS.read, 0, cothread.io, 512);
    const n = errno === 0 ? Number(value) : 0;
    const bytes = n > 0 ? yield* u.loadBytes(gva(cothread.io), n) : Uint8Array.of(CTRL_D);
    platform.typed.push(...bytes);
    yield* cothread.interrupt(u);
    if (n === 0) { for (;;) yield* host(u, SYS.umtx_sleep, cothread.word, 0, 0); }
  }
}
