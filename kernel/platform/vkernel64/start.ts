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
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import { HISTORICAL_BUGS } from "../../bugs.ts";
import { Cx } from "../../context.ts";
import { ERRNO } from "../../kern/errno.ts";
import { initMain, initMemory } from "../../kern/init_main.ts";
import { kprintf } from "../../kern/subr_prf.ts";
import { Kernel, type KernelOptions, type UserGate } from "../../kernel.ts";
import { cpuJoin } from "../../lwkt/cpu_join.ts";
import { kthreadCreate, lwktExit, lwktIdle, lwktSwitchReturn } from "../../lwkt/thread.ts";
import { PG_RW_IDX, PG_V_IDX, VPTE_FORMAT } from "../../pmap/pmap_bits.ts";
import { pmapBootAlloc, pmapBootstrap } from "../../pmap/pmap_bootstrap.ts";
import { OSRELEASE } from "../../proc/version.ts";
import { PCB_BYTES } from "../pc64/pcb.ts";
import { KSTACK_BYTES } from "../pc64/vmparam.ts";
import { startRing0 } from "../ring0/start.ts";
import { blockSignals, cothreadCreate, lwpCreate, setSignals } from "./cothread.ts";
import {
  HostError,
  IRQ_CONSOLE,
  MADV_SETMAP,
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
import {
  anonymousRam,
  complain,
  EX_FAILED,
  guarded,
  hostBoottime,
  loadArchives,
  makeDirectory,
  mapFixed,
  readConsole,
  sigaction,
  startClock,
  tscFrequency,
  type VkernelEnvironment,
} from "./loader.ts";
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
  stackTop,
  VMM_LAYOUT,
  VMM_RAM_VA,
  VPTE_LAYOUT,
} from "./vmparam.ts";

const RSP = 4, RDI = 7;
const PAGE = 0x1000;
const O_RDWR = 2, O_CREAT = 0x0200, O_EXCL = 0x0800;
/** Signals for what the vkernel itself does wrong: ILL, FPE, BUS, SEGV. */
const FAULT_SIGNALS = [4, 8, 10, 11];
/** More than exec lets through. */
const ARGUMENTS_MAX = 1024, ARGUMENT_BYTES_MAX = 256 * 1024;
const EX_USAGE = 64;
/** Pages of globaldata: the processors', and one for cothreads. */
const GD_PAGES = 17;

/** Options of a kernel with the program `vkernel` among its TypeScript programs; a vkernel has it too. */
export function withVkernel(options: KernelOptions): KernelOptions {
  const { bugs, disassembler, vmm, guest } = options;
  const userGates: Record<string, UserGate> = {
    ...options.userGates,
    vkernel: (u) =>
      vkernelMain(u, {
        ...(bugs === undefined ? {} : { bugs }),
        ...(disassembler === undefined ? {} : { disassembler }),
        ...(vmm === undefined ? {} : { vmm }),
        ...(guest === undefined ? {} : { guest }),
        userGates,
      }),
  };
  return { ...options, userGates };
}

/** The program `vkernel`: comes back only if it could not start. The result is the exit status. */
export function* vkernelMain(u: GateCpu, environment: VkernelEnvironment): Exec<number> {
  try {
    const args = parseVkernelArgs((yield* programArguments(u)).slice(1));
    yield* mapFixed(u, GD_VA, GD_PAGES * PAGE);
    yield* mapFixed(u, IO_VA, HOST_THREADS_MAX * IO_BYTES);
    if (typeof args === "string") {
      yield* complain(u, IO_VA, `vkernel: ${args}\n${USAGE}`);
      return EX_USAGE;
    }
    return yield* start(u, args, environment);
  } catch (error) {
    // Whatever it is, it is this program's affair and nobody else's.
    const why = error instanceof HostError
      ? error.message
      : `${error instanceof Error ? error.stack : error}`;
    yield* complain(u, IO_VA, `vkernel: ${why}\n`);
    return EX_FAILED;
  }
}

/**
 * The words that the program was started with. Any program may enter this gate with any stack: what is no list of arguments has an end all the
 * same.
 */
function* programArguments(u: GateCpu): Exec<string[]> {
  const sp = u.gpr(RSP), argc = Number(yield* u.load64(gva(sp)));
  const words: string[] = [];
  if (argc > ARGUMENTS_MAX) throw new HostError(`${argc} arguments`, ERRNO.E2BIG);
  for (let i = 0, room = ARGUMENT_BYTES_MAX; i < argc; i++) {
    const bytes: number[] = [];
    for (let at = yield* u.load64(gva(sp + BigInt(8 + i * 8)));; at++) {
      if (--room < 0) throw new HostError("arguments", ERRNO.E2BIG);
      const byte = yield* u.load8(gva(at));
      if (byte === 0) break;
      bytes.push(byte);
    }
    words.push(new TextDecoder().decode(Uint8Array.from(bytes)));
  }
  return words;
}

/** Everything. */
function* start(u: GateCpu, args: VkernelArgs, environment: VkernelEnvironment): Exec<number> {
  if (args.mode === "ring0") {
    return yield* startRing0(u, args, environment);
  }
  const mode: VkernelMode = args.mode;
  const vmm = mode === "vmm";
  yield* mapFixed(u, LOCORE_VA, PAGE);
  yield* mapFixed(u, STACKS_VA, HOST_THREADS_MAX * STACK_BYTES);
  const pid = Number(yield* must(u, "getpid", SYS.getpid));
  yield* makeDirectory(u);
  const memFd = vmm ? -1 : yield* imageRam(u, args.memory, pid);
  if (vmm) yield* anonymousRam(u, args.memory);
  const old = yield* rawTty(u, IO_VA);
  const k = new Kernel(
    {
      ...environment,
      archives: [],
      verbose: args.verbose,
      ...(args.command === undefined ? {} : { exec: [args.command] }),
      ...environment.guest?.options?.(mode),
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
      if (old !== undefined) yield* setTty(at, platform.io(at), old);
    },
  });
  k.platform = platform;
  k.messages.toConsole = k.options.verbose !== false;
  environment.guest?.onKernel?.(k, mode, pid);
  const base = vmm ? Number(VMM_RAM_VA) : 0;
  k.memoryBytes = args.memory;
  // A root at 0 would be hard to tell from none.
  const free = yield* loadArchives(k, u, base + PAGE, base + args.memory, args, k.layout.dmapMin);
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
      return cothread.body(cx.cpu, cothread);
    }),
  });
  yield* u.storeBytes(gva(LOCORE_VA), platform.locore.image);
  const { intr, fault } = platform.locore;
  const blocked = [SIGALRM, SIGIO, SIGUSR1].reduce((mask, sig) => mask | (1n << BigInt(sig - 1)), 0n);
  for (const sig of [SIGALRM, SIGIO, SIGUSR1]) yield* sigaction(u, sig, intr, blocked);
  for (const sig of FAULT_SIGNALS) yield* sigaction(u, sig, fault, blocked);
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
  platform.rtcBoottime = k.boottime = yield* hostBoottime(u, IO_VA);
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
    yield* startClock(u, platform.vcpus[0]!.io);
    yield* cothreadCreate(u, platform, IRQ_CONSOLE, (at, me) => readConsole(at, me, platform.console.typed));
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
    yield* lwpCreate(cpu, platform.vcpus[0]!.io, platform.locore.apInit, id, stackTop(id));
    while (k.lwkt.gds[id] === undefined) yield* cx.pause();
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
