/**
 * Start of a vkernel that is a kernel in ring 0. The program is the boot loader of its own memory: it puts boot tables, archives and the image
 * there, moves into VMX non-root operation, and then lets the host begin anew at the image's start, in ring 0.
 *
 * Room: `kernel/platform/ring0/`; the top of it. Imports the kernel's start, pc64's processor tables, the parts of this folder.
 *
 *     process, ring 3     RAM ─ archives ─ boot tables ─ VMM_GUEST_RUN (kind 0): now there is an EPT root, which gates belong to
 *     guest, ring 3       gates ─ image ─ VMM_GUEST_RUN (kind 1)
 *     guest, ring 0       start -> hammer_time ─ cpu_init -> mi_startup ─ other processors ─ init_main
 *
 * @module
 */
import { gva, hpa } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import { HISTORICAL_BUGS } from "../../bugs.ts";
import { Cx } from "../../context.ts";
import { initMain, initMemory } from "../../kern/init_main.ts";
import { kprintf } from "../../kern/subr_prf.ts";
import { Kernel } from "../../kernel.ts";
import { cpuJoin } from "../../lwkt/cpu_join.ts";
import { kthreadCreate, lwktExit, lwktIdle, lwktSwitchReturn } from "../../lwkt/thread.ts";
import { pmapBootstrap } from "../../pmap/pmap_bootstrap.ts";
import { OSRELEASE } from "../../proc/version.ts";
import { syscall2, trap, userret } from "../../trap/trap.ts";
import {
  VMM_GUEST_RUN,
  VMM_KIND_FULL,
  VMM_KIND_USER,
  VMM_OPTIONS,
  VMM_OPTIONS_BYTES,
} from "../../vmm/vmm.ts";
import { encodeTrapframe } from "../pc64/frame.ts";
import { cpuProtections, cpuSetup } from "../pc64/machdep.ts";
import { DMPML4I, KPML4I } from "../pc64/vmparam.ts";
import { blockSignals, cothreadCreate, lwpCreate, setSignals } from "../vkernel64/cothread.ts";
import { host, HostError, IRQ_CONSOLE, must, SIGALRM, SIGIO, SIGUSR1, SYS } from "../vkernel64/host.ts";
import {
  anonymousRam,
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
} from "../vkernel64/loader.ts";
import type { VkernelArgs } from "../vkernel64/options.ts";
import { rawTty, setTty } from "../vkernel64/tty.ts";
import { HOST_THREADS_MAX, IO_VA, STACK_BYTES, STACKS_VA, stackTop } from "../vkernel64/vmparam.ts";
import { buildBootTables } from "./boot_tables.ts";
import { buildRing0Locore, type Ring0Gates } from "./locore.ts";
import { Ring0 } from "./ring0.ts";
import {
  BOOT_TABLES,
  IMAGE,
  IMAGE_VA,
  RAM_START,
  RING0_LAYOUT,
  threadStackTop,
  VECTOR_SIGNAL,
} from "./vmparam.ts";

const PAGE = 0x1000;
const RSP = 4, RDI = 7;
/** Bytes that the image may take. */
const IMAGE_BYTES = 0x1_0000;
/** Any handler but "default" and "ignored": the host never calls it. */
const CAUGHT = 0x1000n;

/** Everything, in the process. Comes back only if it could not start. */
export function* startRing0(u: GateCpu, args: VkernelArgs, environment: VkernelEnvironment): Exec<number> {
  yield* mapFixed(u, STACKS_VA, HOST_THREADS_MAX * STACK_BYTES);
  const pid = Number(yield* must(u, "getpid", SYS.getpid));
  yield* makeDirectory(u);
  yield* anonymousRam(u, args.memory);
  const old = yield* rawTty(u, IO_VA);
  const k = new Kernel(
    {
      ...environment,
      archives: [],
      verbose: args.verbose,
      ...(args.command === undefined ? {} : { exec: [args.command] }),
      ...environment.guest?.options?.("ring0"),
    },
    HISTORICAL_BUGS,
    RING0_LAYOUT,
  );
  const end = RAM_START + args.memory;
  const free = yield* loadArchives(k, u, IMAGE + IMAGE_BYTES, end, args, 0n);
  const platform: Ring0 = new Ring0(k, {
    ncpus: args.ncpus,
    pid,
    tty: old !== undefined,
    memoryBytes: args.memory,
    free,
    swapBytes: args.swap,
    tscHz: yield* tscFrequency(u),
    boottime: yield* hostBoottime(u, IO_VA),
    signalMask: yield* catchSignals(u),
    *restoreTty(at): Exec<void> {
      if (old !== undefined) yield* setTty(at, platform.io(at), old);
    },
  });
  k.platform = platform;
  k.messages.toConsole = k.options.verbose !== false;
  k.memoryBytes = args.memory;
  k.boottime = platform.rtcBoottime;
  environment.guest?.onKernel?.(k, "ring0", pid);
  yield* buildBootTables(u, args.memory);
  // The stack of the process is out of a guest's reach.
  u.setGpr(RSP, stackTop(0));
  // Nothing may fault between `rebindNext` and the call.
  yield* u.store64(gva(stackTop(0) - 8n), 0n);
  yield* guestRun(u, VMM_KIND_USER);
  platform.locore = buildRing0Locore(registerGates(k, platform, u));
  yield* u.storeBytes(gva(IMAGE), platform.locore.image);
  yield* guestRun(u, VMM_KIND_FULL, platform.locore.start);
  return 0;
}

/** The signals that stand for interrupts are caught, and blocked for now; gives the mask that was. */
function* catchSignals(u: GateCpu): Exec<bigint> {
  const mask = yield* blockSignals(u, IO_VA);
  for (const sig of [SIGALRM, SIGIO, SIGUSR1]) yield* sigaction(u, sig, CAUGHT, 0n);
  return mask;
}

/** vmm_guest_ctl(VMM_GUEST_RUN). @param start Where a kernel in ring 0 begins. */
function* guestRun(u: GateCpu, kind: number, start = 0n): Exec<void> {
  const options = gva(IO_VA), at = (field: number) => gva(IO_VA + BigInt(field));
  yield* u.zeroBytes(options, VMM_OPTIONS_BYTES);
  yield* u.store64(at(VMM_OPTIONS.guestCr3), BigInt(BOOT_TABLES));
  const frame = encodeTrapframe({ rip: start, rsp: threadStackTop(0), rflags: 2n });
  yield* u.storeBytes(at(VMM_OPTIONS.tf), frame);
  yield* u.store8(at(VMM_OPTIONS.master), 1);
  yield* u.store8(at(VMM_OPTIONS.kind), kind);
  yield* u.store8(at(VMM_OPTIONS.vector), VECTOR_SIGNAL);
  // This continuation goes along into the new world, and ends with it.
  u.rebindNext = kind === VMM_KIND_USER;
  const { errno } = yield* host(u, SYS.vmm_guest_ctl, VMM_GUEST_RUN, options);
  if (errno !== 0) throw new HostError("vmm_guest_ctl (no VMX with EPT on this processor?)", errno);
}

/** Gates of this vkernel, entered in ring 0 of its own world only and gone with that. */
function registerGates(k: Kernel, platform: Ring0, u: GateCpu): Ring0Gates {
  const owner = u.space;
  const register = (name: string, body: (cx: Cx) => Exec<bigint | void>) =>
    u.gates.register({
      name: `vkernel ${name}`,
      cpl: 0,
      ept: owner.ept,
      owner,
      body: (cpu) => guarded(new Cx(k, cpu), platform, body),
    });
  return {
    hammerTime: register("hammer_time", (cx) => hammerTime(k, platform, cx.cpu)),
    miStartup: register("mi_startup", (cx) => miStartup(cx, platform)),
    apInit: register("ap_init", (cx) => apInit(cx, platform)),
    trap: register("trap", (cx) => trap(cx, platform)),
    syscall2: register("syscall2", (cx) => syscall2(cx)),
    lwktTrampoline: register("lwkt_trampoline", (cx) => lwktTrampoline(cx)),
    cothread: u.gates.register({
      name: "vkernel cothread",
      cpl: 0,
      ept: owner.ept,
      owner,
      body(cpu) {
        const cothread = platform.cothreads[Number(cpu.gpr(RDI))]!;
        const process = {
          io: () => cothread.io,
          exit: (at: GateCpu, status: number) => platform.exit(at, status),
        };
        return guarded(new Cx(k, cpu), process, () => cothread.body(cpu, cothread));
      },
    }),
  };
}

/** First TypeScript in ring 0: the kernel's own tables. Gives the address of the boot processor's globaldata. */
function* hammerTime(k: Kernel, platform: Ring0, cpu: GateCpu): Exec<bigint> {
  const end = RAM_START + platform.options.memoryBytes;
  const { textBytes, image, kernelPml4 } = platform.locore;
  const part = (from: number, to: number, write: boolean) => ({
    va: gva(IMAGE_VA + BigInt(from)),
    pa: hpa(IMAGE + from),
    bytes: to - from,
    write,
    execute: !write,
  });
  const pml4 = yield* pmapBootstrap(k, cpu, {
    available: [{ start: hpa(platform.options.free), end: hpa(end) }],
    memoryBytes: end,
    directMap: true,
    ramStart: RAM_START,
    kernelSlots: [DMPML4I, KPML4I],
    static: [part(0, textBytes, false), part(textBytes, Math.ceil(image.length / PAGE) * PAGE, true)],
  });
  yield* cpu.loadCr3(BigInt(pml4));
  yield* cpu.store64(gva(kernelPml4), BigInt(pml4));
  const tables = yield* cpuSetup(k, platform, cpu, 0);
  platform.noteProcessor(0, tables);
  return tables.globaldata;
}

/** The start on the kernel's own tables; becomes the first processor's idle thread. */
function* miStartup(cx: Cx, platform: Ring0): Exec<void> {
  const { k, cpu } = cx, { io } = platform.vcpus[0]!;
  platform.tscStart = cpu.rdtsc();
  yield* becomeProcessor(cx, platform, 0);
  kprintf(cx, `Exuvia ${OSRELEASE}: a vkernel (ring0)\n`);
  kprintf(cx, `  Protections in force: ${yield* cpuProtections(platform, cpu)}\n`);
  kprintf(cx, `real memory  = ${k.memoryBytes} (${k.memoryBytes >>> 20} MB)\n`);
  initMemory(cx);
  yield* startOthers(cx, platform);
  yield* setSignals(cpu, io, platform.options.signalMask);
  yield* startClock(cpu, io);
  yield* cothreadCreate(
    cpu,
    platform,
    IRQ_CONSOLE,
    (at, me) => readConsole(at, me, platform.console.typed),
  );
  yield* kthreadCreate(cx, initMain, "swapper");
  yield* lwktIdle(cx);
}

/** The running continuation is a processor's idle thread from now on. */
function* becomeProcessor(cx: Cx, platform: Ring0, id: number): Exec<void> {
  platform.vcpus[id]!.tid = Number(yield* must(cx.cpu, "lwp_gettid", SYS.lwp_gettid));
  const { globaldata, kstack, stackTop: pcb } = platform.tables[id]!;
  yield* platform.initIdlePcb(cx, id);
  cpuJoin(cx.k, id, { globaldata, kstack, pcb });
}

/** Starts the other processors, one after the other; every signal is blocked here, and so in them. */
function* startOthers(cx: Cx, platform: Ring0): Exec<void> {
  const { k, cpu } = cx, { apGlobaldata, apStart } = platform.locore;
  for (let id = 1; id < platform.options.ncpus; id++) {
    const tables = yield* cpuSetup(k, platform, cpu, id);
    platform.noteProcessor(id, tables);
    yield* cpu.store64(gva(apGlobaldata), tables.globaldata);
    yield* lwpCreate(cpu, platform.vcpus[0]!.io, apStart, id, threadStackTop(id));
    while (k.lwkt.gds[id] === undefined) yield* cx.pause();
  }
  k.ncpus = k.lwkt.gds.length;
  if (k.ncpus > 1) kprintf(cx, `SMP: ${k.ncpus} CPUs\n`);
}

/** First TypeScript on another processor. */
function* apInit(cx: Cx, platform: Ring0): Exec<void> {
  const id = platform.number(cx.cpu)!;
  yield* becomeProcessor(cx, platform, id);
  // Invalidations of kernel mappings reach this processor from now on; what it missed before must not stay.
  yield* platform.invltlb(cx, cx.k.pmap.kernelPmap);
  // The clock and devices are the first processor's.
  const mask = [SIGALRM, SIGIO].reduce((blocked, sig) => blocked | (1n << BigInt(sig - 1)), 0n);
  yield* setSignals(cx.cpu, platform.vcpus[id]!.io, mask);
  yield* lwktIdle(cx);
}

/** First TypeScript of a thread. */
function* lwktTrampoline(cx: Cx): Exec<void> {
  lwktSwitchReturn(cx);
  const td = cx.td;
  td.tdCritcount = 0;
  cx.setInterrupts(true);
  if (td.tdFn !== undefined) yield* td.tdFn(cx);
  // The function of an lwp has made the frame that it enters user mode with.
  if (td.tdLwp !== undefined) return yield* userret(cx);
  yield* lwktExit(cx);
}
