/**
 * A booted kernel with all of user/ on it, for tests of programs: commands in, console text, statuses and leaks out.
 *
 * @module
 */
import { MemoryDisk } from "../../../hw/dev/virtio_blk.ts";
import { Machine, type MachineOptions } from "../../../hw/machine.ts";
import { bootKernel } from "../../../kernel/boot.ts";
import { cpio } from "../../../kernel/vfs/cpio.ts";
import { userArchive } from "../../../lab/cli/root_archive.ts";
import { kernelLeaks, type KernelUse, kernelUse } from "../../../lab/kernel_use.ts";
import { mayRead } from "../kernel_fixture.ts";

const TICKS_A_SECOND = 100_000_000;
const encoder = new TextEncoder();
const archive = mayRead ? await userArchive() : new Uint8Array(0);

/** What came of a run. */
export interface UserRun {
  /** What was printed, line feeds only. */
  readonly console: string;
  /** Exit status of each command, 128 + signal where one ended it. */
  readonly statuses: readonly number[];
  /** What the commands left in use that was not before the last one. */
  readonly leaks: readonly string[];
  /** Uses of revoked translations. */
  readonly stale: readonly string[];
  readonly stop: string;
}

/** Options of {@link run}. */
export type RunOptions = MachineOptions & {
  /** Files laid over the root, by path. */
  readonly files?: Readonly<Record<string, string>>;
  /** MiB of swap. Default: no disk. */
  readonly swap?: number;
  /** Historical bugs to bring back. */
  readonly bugs?: readonly string[];
  /** What is typed, and at which second of the machine's time. */
  readonly typed?: readonly (readonly [second: number, text: string])[];
};

/**
 * Boots, runs each command with the shell, and switches off; with no commands, /sbin/init and its shell run. A first command that
 * nobody sees reads every program and /t: that files have memory objects from then on is no leak of the others.
 */
export function run(commands: readonly string[], options: RunOptions = {}): UserRun {
  const { files, swap, typed, bugs, ...machineOptions } = options;
  const bytes: number[] = [];
  const stale: string[] = [];
  let before: KernelUse | undefined;
  let leaks: string[] = [];
  const machine = new Machine({
    memory: 32 << 20,
    gates: true,
    ...(swap === undefined ? {} : { disk: new MemoryDisk(new Uint8Array(swap << 20)) }),
    ...(typed === undefined ? {} : {
      replay: typed.map(([second, text]) => ({
        at: second * TICKS_A_SECOND,
        bytes: [...encoder.encode(text)],
      })),
    }),
    ...machineOptions,
    serial: { output: (piece) => bytes.push(...piece) },
  });
  machine.sanitizer?.on((use) =>
    stale.push(`${use.access} of 0x${use.linear.toString(16)} on cpu${use.cpu}`)
  );
  const laid = Object.entries(files ?? {}).map(([path, text]) => ({
    path,
    mode: 0o100755,
    data: encoder.encode(text),
  }));
  const kernel = bootKernel(machine, {
    archives: laid.length > 0 ? [archive, cpio(laid)] : [archive],
    ...(commands.length === 0 ? {} : {
      commands: ["cat /bin/* /t/* >/dev/null 2>&1; mkdir /tmp/a; rmdir /tmp/a", ...commands].map((
        command,
      ) => ["/bin/sh", "-c", command]),
    }),
    verbose: false,
    faultReports: false,
    bugs: bugs ?? [],
    onCommandEnd(k) {
      const use = kernelUse(k);
      if (before === undefined) before = use;
      else leaks = kernelLeaks(before, use);
    },
  });
  const stop = machine.run({ steps: 2_000_000_000 });
  const console = new TextDecoder().decode(Uint8Array.from(bytes)).replaceAll("\r\n", "\n");
  const statuses = commands.length === 0 ? [kernel.exitStatus] : kernel.procs.statuses.slice(1);
  return { console, statuses, leaks, stale, stop: stop.reason };
}

export { mayRead };
