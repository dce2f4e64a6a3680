/**
 * A booted kernel for tests: programs in, console text and exit statuses out.
 *
 * @module
 */
import { Machine, type MachineOptions, type MachineStop } from "../../hw/machine.ts";
import { bootKernel } from "../../kernel/boot.ts";
import type { Kernel, KernelOptions } from "../../kernel/kernel.ts";
import type { FaultReport } from "../../kernel/trap/report.ts";
import { cpio } from "../../kernel/vfs/cpio.ts";

/** A program to run. */
export interface Program {
  readonly name: string;
  readonly file: Uint8Array;
  /** Arguments; default: its path alone. */
  readonly argv?: readonly string[];
}

/** What came of a boot. */
export interface Booted {
  readonly machine: Machine;
  readonly kernel: Kernel;
  readonly stop: MachineStop;
  /** What was printed, line feeds only. */
  readonly console: string;
  /** Exit statuses of the programs, 128 + signal where one ended them. */
  readonly statuses: readonly number[];
  /** Faults that ended programs. */
  readonly faults: readonly FaultReport[];
}

/** Options of {@link boot}: the machine's, and the kernel's under `kernel`. */
export type BootOptions = MachineOptions & {
  readonly kernel?: Partial<KernelOptions>;
  /** Sees the machine before it runs. */
  readonly prepare?: (machine: Machine, kernel: Kernel) => void;
  /** Bound on the run. Default: 100 million. */
  readonly steps?: number;
};

/** Boots a kernel on a small machine with an archive of these programs in /bin, runs each, and runs the machine to its end. */
export function boot(programs: readonly Program[], options: BootOptions = {}): Booted {
  const { kernel: kernelOptions, prepare, steps, ...machineOptions } = options;
  const bytes: number[] = [];
  const faults: FaultReport[] = [];
  const machine = new Machine({
    memory: 16 << 20,
    gates: true,
    serial: { output: (piece) => bytes.push(...piece) },
    ...machineOptions,
  });
  const files = new Map(programs.map(({ name, file }) => [name, file]));
  const archive = cpio([
    { path: "bin", mode: 0o040755, data: new Uint8Array(0) },
    ...[...files].map(([name, data]) => ({ path: `bin/${name}`, mode: 0o100755, data })),
  ]);
  const kernel = bootKernel(machine, {
    archives: [archive],
    commands: programs.map(({ name, argv }) => [`/bin/${name}`, ...argv?.slice(1) ?? []]),
    verbose: false,
    onFault: (report) => faults.push(report),
    ...kernelOptions,
  });
  prepare?.(machine, kernel);
  const stop = machine.run({ steps: steps ?? 100_000_000 });
  const console = new TextDecoder().decode(Uint8Array.from(bytes)).replaceAll("\r\n", "\n");
  return { machine, kernel, stop, console, statuses: kernel.procs.statuses, faults };
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
