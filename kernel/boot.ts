/**
 * The kernel's start as whoever owns a machine sees it: registers the gates, loads the image.
 *
 * Room: `kernel/`; the top of it. Imports everything below.
 *
 * @module
 */
import { loadMultiboot } from "../hw/boot/multiboot.ts";
import type { Exec } from "../hw/gates.ts";
import type { Machine } from "../hw/machine.ts";
import { HISTORICAL_BUGS } from "./bugs.ts";
import { Cx } from "./context.ts";
import { Kernel, type KernelOptions } from "./kernel.ts";
import { initMain, initMemory } from "./kern/init_main.ts";
import { panicText } from "./kern/kern_shutdown.ts";
import { kprintf } from "./kern/subr_prf.ts";
import { kthreadCreate, lwktExit, lwktIdle, lwktSwitchReturn } from "./lwkt/thread.ts";
import { calibrate, readRtc } from "./platform/pc64/clock.ts";
import { lapicInit, lapicTimerStart } from "./platform/pc64/lapic.ts";
import { buildLocore } from "./platform/pc64/locore.ts";
import { cpuProtections, hammerTime } from "./platform/pc64/machdep.ts";
import { apInit, becomeIdleThread, cpuMpAnnounce } from "./platform/pc64/mp_machdep.ts";
import { Pc64 } from "./platform/pc64/pc64.ts";
import { hz } from "./lwkt/callout.ts";
import { PC64_LAYOUT } from "./platform/pc64/vmparam.ts";
import { withVkernel } from "./platform/vkernel64/start.ts";
import { OSRELEASE } from "./proc/version.ts";
import { syscall2, trap, userret } from "./trap/trap.ts";
import { vmmLwpReturn } from "./vmm/vmm.ts";

/**
 * Makes a kernel and loads it into a machine with gates: running the machine then starts it.
 *
 * @throws {TypeError} when the machine was built without gates.
 * @throws {RangeError} when an option names a historical bug that there is not.
 * @throws {BootError} when kernel and archives do not fit in its RAM.
 */
export function bootKernel(machine: Machine, options: KernelOptions): Kernel {
  const { gates } = machine;
  if (gates === undefined) {
    throw new TypeError("Cannot boot the kernel: the machine has no gates (build it with gates: true)");
  }
  const k = new Kernel(withVkernel(options), HISTORICAL_BUGS, PC64_LAYOUT);
  k.messages.toConsole = options.verbose !== false;
  let pc64: Pc64;
  const register = (name: string, body: (cx: Cx) => Exec<bigint | void>) =>
    gates.register({ name, cpl: 0, body: (cpu) => guarded(new Cx(k, cpu), () => pc64, body) });
  const locore = buildLocore({
    hammerTime: register("hammer_time", (cx) => hammerTime(k, pc64, cx.cpu)),
    miStartup: register("mi_startup", (cx) => miStartup(cx, pc64, machine.cpus.length)),
    apInit: register("ap_init", (cx) => apStart(cx, pc64)),
    trap: register("trap", (cx) => trap(cx, pc64)),
    syscall2: register("syscall2", (cx) => syscall2(cx)),
    lwktTrampoline: register("lwkt_trampoline", (cx) => lwktTrampoline(cx)),
  });
  k.platform = pc64 = new Pc64(k, locore);
  const modules = options.archives.map((bytes, i) => ({ bytes, commandLine: `archive${i}` }));
  loadMultiboot(machine, locore.image, { modules });
  return k;
}

/** Runs a body; what it throws is told on the console before it stops the machine. */
function* guarded(
  cx: Cx,
  pc64: () => Pc64,
  body: (cx: Cx) => Exec<bigint | void>,
): Exec<bigint | void> {
  try {
    return yield* body(cx);
  } catch (error) {
    cx.cpu.mayAbort = false;
    cx.k.procs.exitStatus = 1;
    yield* pc64().cnPanic(cx, panicText(cx, error));
    throw error;
  }
}

/** The start on the kernel's own tables; becomes the boot processor's idle thread. */
function* miStartup(cx: Cx, pc64: Pc64, cpuCount: number): Exec<void> {
  const { k, cpu } = cx;
  yield* lapicInit(cpu);
  pc64.rates = yield* calibrate(cpu);
  pc64.rtcBoottime = k.boottime = yield* readRtc(cpu);
  yield* pc64.initIdlePcb(cx, 0);
  becomeIdleThread(cx, pc64, 0);
  announce(cx, pc64, yield* cpuProtections(pc64, cpu));
  initMemory(cx);
  yield* cpuMpAnnounce(cx, pc64, cpuCount);
  yield* startClock(cx, pc64);
  yield* kthreadCreate(cx, initMain, "swapper");
  yield* lwktIdle(cx);
}

function announce(cx: Cx, pc64: Pc64, protections: string): void {
  const { k, cpu } = cx;
  const { model } = cpu.cpu;
  const mib = (bytes: number) => Math.floor(bytes / 0x10_0000);
  kprintf(cx, `Exuvia ${OSRELEASE}: DragonFly's virtual memory in TypeScript\n`);
  kprintf(cx, `TSC clock: ${pc64.rates.tscHz} Hz\n`);
  kprintf(cx, `CPU: ${model.brand} (${(pc64.rates.tscHz / 1e6).toFixed(2)}-MHz 64-bit CPU)\n`);
  kprintf(cx, `  Protections in force: ${protections}\n`);
  kprintf(cx, `real memory  = ${k.memoryBytes} (${mib(k.memoryBytes)} MB)\n`);
}

function* apStart(cx: Cx, pc64: Pc64): Exec<void> {
  yield* apInit(cx, pc64);
  yield* startClock(cx, pc64);
  yield* lwktIdle(cx);
}

/** The periodic clock interrupt of this processor. */
function startClock(cx: Cx, pc64: Pc64): Exec<void> {
  return lapicTimerStart(cx.cpu, Math.floor(pc64.rates.lapicHz / hz), true);
}

/** First TypeScript of a thread. */
function* lwktTrampoline(cx: Cx): Exec<void> {
  lwktSwitchReturn(cx);
  const td = cx.td;
  td.tdCritcount = 0;
  cx.setInterrupts(true);
  if (td.tdFn !== undefined) yield* td.tdFn(cx);
  // The function of an lwp has made the frame that it enters user mode with.
  if (td.tdLwp !== undefined) {
    return td.tdProc?.pVmm === undefined ? yield* userret(cx) : yield* vmmLwpReturn(cx);
  }
  yield* lwktExit(cx);
}
