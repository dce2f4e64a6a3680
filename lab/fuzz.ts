/**
 * `deno task fuzz`: a program that makes random system calls with random and nearly right arguments; the kernel stays up and forgets nothing.
 *
 * Room: `lab/`; imports the kernel and the boot archive. The program is user/programs/fuzz.c.
 *
 * @module
 */
import { MemoryDisk } from "../hw/dev/virtio_blk.ts";
import { Machine } from "../hw/machine.ts";
import { bootKernel } from "../kernel/boot.ts";
import type { KernelOptions } from "../kernel/kernel.ts";
import { describeOptions, flag, integer, parseArguments } from "./cli/args.ts";
import { runMain } from "./cli/frontend.ts";
import { rootArchives } from "./cli/root_archive.ts";
import { type GuestKind, guestKind, vkernelWords } from "./guest/kinds.ts";
import { GuestWatch, runWatched } from "./guest/watch.ts";
import {
  kernelLeaks,
  type KernelUse,
  kernelUse,
  machineLeaks,
  type MachineUse,
  machineUse,
} from "./kernel_use.ts";

/** How a run is made. */
export interface FuzzOptions {
  readonly seed: number;
  /** System calls. */
  readonly count: number;
  readonly cpus: number;
  /** Compare every use of a cached translation with the tables, on a TLB that keeps all it may. */
  readonly sanitizer: boolean;
  readonly archives: readonly Uint8Array[];
  /** The program runs in a vkernel of this kind with as many processors. */
  readonly guest?: GuestKind;
}

/** What came of it. */
export interface FuzzResult {
  /** What was wrong, if anything. */
  readonly failure: string | undefined;
  /** What the program and the kernel said. */
  readonly console: string;
}

/** RAM of the kernel that the program runs on. */
const GUEST_MEMORY = 32 << 20;
/** Instructions between two looks at a machine with a vkernel. */
const CHECK_STEPS = 1_000_000;
/** Files that the program leaves behind, and the pages of the programs that ran, are not leaks: a first short run has them already. */
const WARM_UP = 400, GUEST_WARM_UP = 150;

/** Runs. */
export function runFuzz(options: FuzzOptions): FuzzResult {
  const bytes: number[] = [];
  let failure: string | undefined;
  let before: KernelUse | undefined;
  const { guest } = options;
  const machine = new Machine({
    memory: guest === undefined ? GUEST_MEMORY : 3 * GUEST_MEMORY,
    cpus: options.cpus,
    seed: options.seed,
    gates: true,
    tlb: options.sanitizer ? "sticky" : "fast",
    sanitizer: options.sanitizer,
    disk: new MemoryDisk(new Uint8Array(64 << 20)),
    serial: { output: (piece) => bytes.push(...piece) },
  });
  machine.sanitizer?.on((use) => {
    failure ??= `stale translation used: ${use.access} of 0x${use.linear.toString(16)} on cpu${use.cpu}`;
  });
  const quiet = { verbose: false, faultReports: false };
  const watch = new GuestWatch(machine);
  const fuzzed: Partial<KernelOptions> = {
    ...quiet,
    commands: [["/bin/fuzz", "99", String(guest === undefined ? WARM_UP : GUEST_WARM_UP)], [
      "/bin/fuzz",
      String(options.seed),
      String(options.count),
    ]],
    onCommandEnd(k, status) {
      const use = kernelUse(k);
      if (status !== 0) failure ??= `fuzz ended with status ${status}`;
      if (before === undefined) before = use;
      else failure ??= kernelLeaks(before, use)[0];
    },
  };
  const reproduce = `deno task fuzz --seed ${options.seed} --count ${options.count} --cpus ${options.cpus}`;
  const { archives } = options;
  if (guest === undefined) bootKernel(machine, { ...fuzzed, archives, reproduce });
  else {
    let clean: MachineUse | undefined;
    const { cpus } = options;
    const vkernel = vkernelWords({ kind: guest, memory: GUEST_MEMORY, cpus });
    watch.host = bootKernel(machine, {
      ...quiet,
      archives,
      reproduce,
      // The first leaves what a first one leaves: files, folders.
      commands: [vkernel, vkernel],
      guest: watch.hooks(() => clean === undefined ? { ...quiet, commands: [["/bin/hello"]] } : fuzzed),
      onCommandEnd(host, status) {
        if (status !== 0) failure ??= `the vkernel ended with status ${status}`;
        if (clean === undefined) clean = machineUse(machine, host);
        else {failure ??= machineLeaks(clean, machineUse(machine, host)).map((leak) =>
            `on the host: ${leak}`
          )[0];}
      },
    });
    watch.host.vmMap.vkernelEnable = true;
  }
  const stop = guest === undefined
    ? machine.run()
    : runWatched(watch, CHECK_STEPS, (text) => failure ??= text);
  const console = new TextDecoder().decode(Uint8Array.from(bytes)).replaceAll("\r\n", "\n");
  if (stop.reason === "panic") {
    failure ??= `panic: ${stop.error instanceof Error ? stop.error.message : stop.error}`;
  } else if (stop.reason !== "poweroff") failure ??= `the machine stopped by ${stop.reason}`;
  return { failure, console };
}

const specs = {
  count: integer("N", "system calls in all (default 10000)", 1, 1e9),
  seed: integer("S", "seed of the first run (default 1)", 0, 2 ** 32 - 1),
  run: integer("N", "system calls of one boot; then the next seed (default 5000)", 1, 1e9),
  cpus: integer("N", "processors; default: 1 to 4, by the seed", 1, 16),
  guest: guestKind,
  sanitizer: flag("with a sticky TLB and the translation sanitizer"),
  help: flag("show this help"),
} as const;

async function main(args: readonly string[]): Promise<number> {
  const { options } = parseArguments(specs, args);
  if (options.help) {
    console.log(`usage: deno task fuzz [options]\n\n${describeOptions(specs)}`);
    return 0;
  }
  const count = options.count ?? 10_000, perRun = options.run ?? 5000;
  const archives = await rootArchives([]);
  let seed = options.seed ?? 1;
  for (let done = 0; done < count; done += perRun, seed++) {
    const cpus = options.cpus ?? 1 + seed % 4;
    const run = {
      seed,
      cpus,
      count: Math.min(perRun, count - done),
      sanitizer: options.sanitizer ?? false,
      archives,
      ...(options.guest === undefined ? {} : { guest: options.guest }),
    };
    const { failure, console: said } = runFuzz(run);
    if (failure !== undefined) {
      console.log(`${said}\nseed ${seed}, ${cpus} CPUs: ${failure}`);
      console.log(
        `again: deno task fuzz --seed ${seed} --cpus ${cpus} --count ${run.count} --run ${run.count}` +
          (run.guest === undefined ? "" : ` --guest ${run.guest}`) + (run.sanitizer ? " --sanitizer" : ""),
      );
      return 1;
    }
  }
  console.log(
    `fuzz: ${count} system calls from seed ${options.seed ?? 1}, the kernel is up and nothing is left`,
  );
  return 0;
}

if (import.meta.main) await runMain("(deno task fuzz --help shows all options)", () => main(Deno.args));
