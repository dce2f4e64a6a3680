/**
 * The kernel's start as whoever owns a machine sees it: registers the gates, loads the image.
 *
 * Room: `kernel/`; the top of it. Imports everything below.
 *
 * @module
 */
import { loadMultiboot } from "../hw/boot/multiboot.ts";
import type { Exec, GateCpu } from "../hw/gates.ts";
import type { Machine } from "../hw/machine.ts";
import { Kernel, type KernelOptions } from "./kernel.ts";
import { startNextProgram } from "./kern/kern_exec.ts";
import { buildLocore } from "./platform/pc64/locore.ts";
import { cpuStartup, hammerTime } from "./platform/pc64/machdep.ts";
import { apInit, cpuMpAnnounce } from "./platform/pc64/mp_machdep.ts";
import { syscall2, trap } from "./trap/trap.ts";

/**
 * Makes a kernel and loads it into a machine with gates: running the machine then starts it.
 *
 * @throws {TypeError} when the machine was built without gates.
 * @throws {BootError} when kernel and programs do not fit in its RAM.
 */
export function bootKernel(machine: Machine, options: KernelOptions): Kernel {
  const { gates } = machine;
  if (gates === undefined) {
    throw new TypeError("Cannot boot the kernel: the machine has no gates (build it with gates: true)");
  }
  const k = new Kernel(options);
  const register = (name: string, body: (cpu: GateCpu) => Exec<bigint | void>) =>
    gates.register({ name, cpl: 0, body });
  k.locore = buildLocore({
    hammerTime: register("hammer_time", (cpu) => hammerTime(k, cpu)),
    miStartup: register("mi_startup", (cpu) => miStartup(k, cpu, machine.cpus.length)),
    apInit: register("ap_init", (cpu) => apInit(k, cpu)),
    trap: register("trap", (cpu) => trap(k, cpu)),
    syscall2: register("syscall2", (cpu) => syscall2(k, cpu)),
  });
  const modules = options.programs.map(({ file, name }) => ({ bytes: file, commandLine: name }));
  loadMultiboot(machine, k.locore.image, { modules });
  return k;
}

/** The start on the kernel's own tables: other processors, then the first program. */
function* miStartup(k: Kernel, cpu: GateCpu, cpuCount: number): Exec<void> {
  yield* cpuStartup(k, cpu);
  yield* cpuMpAnnounce(k, cpu, cpuCount);
  yield* startNextProgram(k, cpu);
}
