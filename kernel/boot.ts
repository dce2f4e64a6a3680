/**
 * The kernel's start as whoever owns a machine sees it: registers the gates, makes the image to load.
 *
 * Room: `kernel/`; the top of it. Imports everything below.
 *
 * @module
 */
import type { Exec, GateCpu, GateTable } from "../hw/gates.ts";
import { Kernel, type KernelOptions } from "./kernel.ts";
import { startNextProgram } from "./kern/kern_exec.ts";
import { buildLocore } from "./platform/pc64/locore.ts";
import { cpuStartup, hammerTime } from "./platform/pc64/machdep.ts";
import { apInit, cpuMpAnnounce } from "./platform/pc64/mp_machdep.ts";
import { syscall2, trap } from "./trap/trap.ts";

/** What must be loaded to start the kernel. */
export interface KernelImage {
  readonly kernel: Kernel;
  /** A multiboot image. */
  readonly image: Uint8Array<ArrayBuffer>;
  /** Multiboot modules: the programs' files. */
  readonly modules: readonly { readonly bytes: Uint8Array; readonly commandLine: string }[];
}

/**
 * Makes a kernel for a machine with these gates and so many processors. Loading {@link KernelImage.image} as a multiboot image and
 * running the machine starts it.
 */
export function makeKernel(gates: GateTable, cpuCount: number, options: KernelOptions): KernelImage {
  const k = new Kernel(options);
  const register = (name: string, body: (cpu: GateCpu) => Exec<bigint | void>) =>
    gates.register({ name, cpl: 0, body });
  k.locore = buildLocore({
    hammerTime: register("hammer_time", (cpu) => hammerTime(k, cpu)),
    miStartup: register("mi_startup", (cpu) => miStartup(k, cpu, cpuCount)),
    apInit: register("ap_init", (cpu) => apInit(k, cpu)),
    trap: register("trap", (cpu) => trap(k, cpu)),
    syscall2: register("syscall2", (cpu) => syscall2(k, cpu)),
  });
  const modules = options.programs.map(({ file, name }) => ({ bytes: file, commandLine: name }));
  return { kernel: k, image: k.locore.image, modules };
}

/** The start on the kernel's own tables: other processors, then the first program. */
function* miStartup(k: Kernel, cpu: GateCpu, cpuCount: number): Exec<void> {
  yield* cpuStartup(k, cpu);
  yield* cpuMpAnnounce(k, cpu, cpuCount);
  yield* startNextProgram(k, cpu);
}
