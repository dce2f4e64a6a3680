/**
 * `deno task soak`: vkernels under load on one machine, for as long as one likes, with every check on: sticky TLB, sanitizer, the invariants of the host's
 * and of every guest's kernel, what the host has made of software page tables, and what the programs say themselves.
 *
 * Room: `lab/`; imports the kernel and the boot archive.
 *
 * @module
 */
import { MemoryDisk } from "../hw/dev/virtio_blk.ts";
import { Machine } from "../hw/machine.ts";
import { bootKernel } from "../kernel/boot.ts";
import {
  describeOptions,
  flag,
  integer,
  type OptionSpec,
  parseArguments,
  shellQuote,
  UsageError,
} from "./cli/args.ts";
import { runMain } from "./cli/frontend.ts";
import { rootArchives } from "./cli/root_archive.ts";
import { GUEST_KINDS, type GuestKind, vkernelWords } from "./guest/kinds.ts";
import { GuestWatch, runWatched } from "./guest/watch.ts";

/** How a run is made. */
export interface SoakOptions {
  readonly seed: number;
  /** Processors of the machine. */
  readonly cpus: number;
  /** A vkernel of each of these kinds runs. */
  readonly guests: readonly GuestKind[];
  /** Processors of each. */
  readonly guestCpus: number;
  /** Instructions in all. */
  readonly steps: number;
  /** Instructions between two looks. */
  readonly checkEvery: number;
  readonly archives: readonly Uint8Array[];
  /** Told after every look. */
  readonly onProgress?: (instructions: number) => void;
}

/** What came of it. */
export interface SoakResult {
  /** What was wrong first, if anything. */
  readonly failure: string | undefined;
  /** Instructions carried out. */
  readonly instructions: number;
  /** Hash of the machine's state at the end. */
  readonly hash: string;
  /** Host mappings of software page tables that were compared. */
  readonly compared: number;
  /** The last that was printed. */
  readonly console: string;
}

/** RAM of a vkernel, and of the machine beside. */
const GUEST_MEMORY = 24 << 20, HOST_MEMORY = 64 << 20;
/** Characters that are kept of what is printed. */
const CONSOLE_MAX = 20_000;
/** What a vkernel does until the end: programs that check themselves. The number is its own. */
const LOAD = (number: number) =>
  `n=${number}; while :; do n=$((n+2)); ` +
  [
    "forkcow 2 2 8",
    "thrhammer 3 8 3",
    "mprotsegv 32 40",
    "mmapfile 16",
    "escape 2 $n",
    "thrfork",
    "fuzz $n 150",
    "stackgrow 40",
    "proctest",
  ].map((command) => `${command} || echo SOAK: WRONG: ${command.split(" ")[0]}`).join("; ") + "; done";

/** Runs. */
export function runSoak(options: SoakOptions): SoakResult {
  let failure: string | undefined, console = "";
  const fail = (text: string) => {
    failure ??= text;
  };
  const decoder = new TextDecoder();
  const machine = new Machine({
    memory: HOST_MEMORY + options.guests.length * GUEST_MEMORY,
    cpus: options.cpus,
    seed: options.seed,
    tlb: "sticky",
    sanitizer: true,
    gates: true,
    disk: new MemoryDisk(new Uint8Array(128 << 20)),
    serial: {
      output(piece) {
        console = (console + decoder.decode(Uint8Array.from(piece), { stream: true })).slice(-CONSOLE_MAX);
        if (console.includes("WRONG")) fail("a program says that something is wrong");
        if (console.includes("panic")) fail("a kernel panicked");
      },
    },
  });
  machine.sanitizer?.on((use) =>
    fail(`stale translation used: ${use.access} of 0x${use.linear.toString(16)} on cpu${use.cpu}`)
  );
  const watch = new GuestWatch(machine);
  const vkernels = options.guests.map((kind, i) =>
    shellQuote(
      vkernelWords({ kind, memory: GUEST_MEMORY, cpus: options.guestCpus, command: LOAD(i) }),
    )
  );
  watch.host = bootKernel(machine, {
    archives: options.archives,
    exec: [
      `${vkernels.map((line) => `${line} &`).join(" ")} wait; echo SOAK: WRONG: the vkernels have ended`,
    ],
    verbose: false,
    faultReports: false,
    guest: watch.hooks(() => ({ faultReports: false })),
  });
  watch.host.vmMap.vkernelEnable = true;
  for (let done = 0; done < options.steps && failure === undefined; done += options.checkEvery) {
    const most = Math.min(options.checkEvery, options.steps - done);
    const stop = runWatched(watch, most, fail, most);
    if (stop.reason === "panic") {
      fail(`panic: ${stop.error instanceof Error ? stop.error.stack : stop.error}`);
    } else if (stop.reason !== "steps") fail(`the machine stopped by ${stop.reason}`);
    options.onProgress?.(machine.instructions);
  }
  return {
    failure,
    instructions: machine.instructions,
    hash: machine.hash(),
    compared: watch.compared,
    console: console.replaceAll("\r\n", "\n"),
  };
}

const kinds: OptionSpec<readonly GuestKind[]> = {
  value: "KINDS",
  help: `one vkernel each of these kinds, separated by commas: ${GUEST_KINDS.join(" ")} (default vpte,vmm)`,
  parse: (list) =>
    list.split(",").map((word) => {
      const kind = GUEST_KINDS.find((one) => one === word);
      if (kind === undefined) throw new UsageError(`no kind "${word}"; there are ${GUEST_KINDS.join(", ")}`);
      return kind;
    }),
};

const specs = {
  steps: integer("N", "instructions (default 20000000)", 1, 1e12),
  seed: integer("S", "seed of the machine (default 1)", 0, 2 ** 32 - 1),
  cpus: integer("N", "processors of the machine (default 4)", 1, 16),
  guests: kinds,
  "guest-cpus": integer("N", "processors of each vkernel (default 4)", 1, 8),
  "check-every": integer("N", "instructions between two looks (default 2000000)", 1000, 1e12),
  quiet: flag("no progress"),
  console: flag("show at the end what the programs said last"),
  help: flag("show this help"),
} as const;

async function main(args: readonly string[]): Promise<number> {
  const { options } = parseArguments(specs, args);
  if (options.help) {
    console.log(`usage: deno task soak [options]\n\n${describeOptions(specs)}`);
    return 0;
  }
  const started = performance.now();
  const result = runSoak({
    seed: options.seed ?? 1,
    cpus: options.cpus ?? 4,
    guests: options.guests ?? ["vpte", "vmm"],
    guestCpus: options["guest-cpus"] ?? 4,
    steps: options.steps ?? 20_000_000,
    checkEvery: options["check-every"] ?? 2_000_000,
    archives: await rootArchives([]),
    onProgress: (instructions) => {
      if (options.quiet) return;
      const seconds = Math.round((performance.now() - started) / 1000);
      console.log(`soak: ${instructions.toLocaleString("en-US")} instructions, ${seconds} s`);
    },
  });
  if (result.failure !== undefined) {
    console.log(`${result.console}\nseed ${options.seed ?? 1}: ${result.failure}`);
    console.log(`again: deno task soak ${shellQuote(args)}`);
    return 1;
  }
  if (options.console) console.log(result.console);
  console.log(
    `soak: ${
      result.instructions.toLocaleString("en-US")
    } instructions, ${result.compared} mappings compared, ` +
      `nothing wrong; hash ${result.hash}`,
  );
  return 0;
}

if (import.meta.main) await runMain("(deno task soak --help shows all options)", () => main(Deno.args));
