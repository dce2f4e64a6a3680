/**
 * A host kernel with user/'s programs that runs vkernels, with every check on.
 *
 * @module
 */
import { MemoryDisk } from "../../../hw/dev/virtio_blk.ts";
import { Machine, type MachineStop } from "../../../hw/machine.ts";
import { bootKernel } from "../../../kernel/boot.ts";
import type { KernelOptions } from "../../../kernel/kernel.ts";
import { shellQuote } from "../../../lab/cli/args.ts";
import { rootArchives } from "../../../lab/cli/root_archive.ts";
import { type GuestKind, vkernelWords } from "../../../lab/guest/kinds.ts";
import { GuestWatch, runWatched } from "../../../lab/guest/watch.ts";
import { machineLeaks, type MachineUse, machineUse } from "../../../lab/kernel_use.ts";

/** How a run is made. */
export interface GuestRun {
  /** Command lines for the host's shell, one after the other. The first leaves what a first one leaves; what later ones leave is a leak. */
  readonly lines: readonly string[];
  readonly cpus?: number;
  readonly seed?: number;
  /** For the kernels of vkernels. */
  readonly guest?: (kind: string) => Partial<KernelOptions>;
  /** Bound on the run. */
  readonly steps?: number;
}

/** What came of it. */
export interface GuestResult {
  readonly machine: Machine;
  readonly watch: GuestWatch;
  readonly stop: MachineStop;
  readonly console: string;
  /** Exit statuses of the lines. */
  readonly statuses: readonly number[];
  /** Everything that was wrong: stale translations, broken rules, leaks. */
  readonly wrong: readonly string[];
}

const MIB = 1 << 20;

/** A command line that runs a vkernel, and in its shell a command. */
export function vkernelLine(kind: GuestKind, command: string, cpus = 1, memory = 16 * MIB): string {
  return shellQuote(vkernelWords({ kind, memory, cpus, command }));
}

const archives = await rootArchives([]).catch(() => []);

/** Runs. */
export function runGuests(run: GuestRun): GuestResult {
  const bytes: number[] = [], wrong: string[] = [];
  const machine = new Machine({
    memory: 80 * MIB,
    cpus: run.cpus ?? 2,
    seed: run.seed ?? 1,
    tlb: "sticky",
    sanitizer: true,
    gates: true,
    disk: new MemoryDisk(new Uint8Array(64 * MIB)),
    serial: { output: (piece) => bytes.push(...piece) },
  });
  machine.sanitizer!.on((use) =>
    wrong.push(`stale translation: ${use.access} of 0x${use.linear.toString(16)}`)
  );
  const watch = new GuestWatch(machine);
  let clean: MachineUse | undefined;
  const k = watch.host = bootKernel(machine, {
    archives,
    exec: run.lines,
    verbose: false,
    faultReports: false,
    guest: watch.hooks((kind) => ({ faultReports: false, ...run.guest?.(kind) })),
    onCommandEnd(host) {
      const use = machineUse(machine, host);
      if (clean === undefined) clean = use;
      else wrong.push(...machineLeaks(clean, use));
    },
  });
  k.vmMap.vkernelEnable = true;
  const stop = runWatched(watch, 2_000_000, (text) => wrong.push(text), run.steps ?? 60_000_000);
  const console = new TextDecoder().decode(Uint8Array.from(bytes)).replaceAll("\r\n", "\n");
  return { machine, watch, stop, console, statuses: k.procs.statuses, wrong };
}
