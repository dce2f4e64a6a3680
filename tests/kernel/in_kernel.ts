/**
 * Code that runs inside a booted kernel: a body in a kernel thread, on a small machine.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import { Machine, type MachineOptions, type MachineStop } from "../../hw/machine.ts";
import { bootKernel } from "../../kernel/boot.ts";
import type { Cx } from "../../kernel/context.ts";
import type { Kernel, KernelOptions } from "../../kernel/kernel.ts";

/** What came of it. */
export interface InKernel {
  readonly machine: Machine;
  readonly kernel: Kernel;
  readonly stop: MachineStop;
  /** What the console said, line feeds only. */
  readonly console: string;
}

/** Options: the machine's, and the kernel's under `kernel`. `steps` bounds the run. */
export type InKernelOptions = MachineOptions & {
  readonly kernel?: Partial<KernelOptions>;
  readonly steps?: number;
};

/** Boots a kernel and runs `body` in a kernel thread once everything is up; the machine switches itself off after it. */
export function runInKernel(options: InKernelOptions, body: (cx: Cx) => Exec<void>): InKernel {
  const { kernel: kernelOptions, steps, ...machineOptions } = options;
  const bytes: number[] = [];
  const machine = new Machine({
    memory: 16 << 20,
    gates: true,
    serial: { output: (piece) => bytes.push(...piece) },
    ...machineOptions,
  });
  const kernel = bootKernel(machine, { archives: [], verbose: false, ...kernelOptions, body });
  const stop = machine.run({ steps: steps ?? 50_000_000 });
  const console = new TextDecoder().decode(Uint8Array.from(bytes)).replaceAll("\r\n", "\n");
  if (stop.reason === "panic") throw stop.error;
  if (stop.reason !== "poweroff") throw new Error(`The machine stopped by ${stop.reason}: ${console}`);
  return { machine, kernel, stop, console };
}
