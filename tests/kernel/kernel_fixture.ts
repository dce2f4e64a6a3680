/**
 * A booted kernel for tests: programs in, console text and ends out.
 *
 * @module
 */
import { Machine, type MachineOptions, type MachineStop } from "../../hw/machine.ts";
import { bootKernel } from "../../kernel/boot.ts";
import type { Kernel, KernelOptions, Program } from "../../kernel/kernel.ts";

/** What came of a boot. */
export interface Booted {
  readonly machine: Machine;
  readonly kernel: Kernel;
  readonly stop: MachineStop;
  /** What was printed, line feeds only. */
  readonly console: string;
}

/** Boots a kernel on a small machine and runs it to its end; `prepare` sees the machine before it runs. */
export function boot(
  programs: readonly Program[],
  options: MachineOptions & {
    kernel?: Partial<KernelOptions>;
    prepare?: (machine: Machine, kernel: Kernel) => void;
  } = {},
): Booted {
  const { kernel: kernelOptions, prepare, ...machineOptions } = options;
  const bytes: number[] = [];
  const machine = new Machine({
    memory: 16 << 20,
    gates: true,
    serial: { output: (piece) => bytes.push(...piece) },
    ...machineOptions,
  });
  const kernel = bootKernel(machine, { programs, verbose: false, ...kernelOptions });
  prepare?.(machine, kernel);
  const stop = machine.run({ steps: 20_000_000 });
  const console = new TextDecoder().decode(Uint8Array.from(bytes)).replaceAll("\r\n", "\n");
  return { machine, kernel, stop, console };
}

/** A program of user/bin. */
export function builtProgram(name: string, extra: Partial<Program> = {}): Program {
  return { name, file: Deno.readFileSync(new URL(`../../user/bin/${name}`, import.meta.url)), ...extra };
}

/** Whether user/bin may be read: without the permission the tests that need it are ignored. */
export const mayRead: boolean =
  Deno.permissions.querySync({ name: "read", path: new URL("../../user/bin", import.meta.url) }).state ===
    "granted";

if (!mayRead) console.log("tests/kernel: no permission to read user/bin; the tests that need it are ignored");
