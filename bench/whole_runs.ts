/**
 * The whole runs of the bench: systems from their start to a place that can be seen on the serial line, on this machine and on QEMU, as times
 * between those places.
 *
 * Room: `bench/`; imports the machine, the kernel, the lab, the clocks.
 *
 * @module
 */
import { loadImage } from "../hw/boot/image.ts";
import { type EngineKind, Machine } from "../hw/machine.ts";
import { bootKernel } from "../kernel/boot.ts";
import { cpio } from "../kernel/vfs/cpio.ts";
import { findMemtest, Memtest, START_SCREEN_STEPS } from "../lab/memtest.ts";
import { MemtestScreen } from "../lab/memtest_screen.ts";
import { type ClockName, processSeconds, seconds as now, timeCommand } from "./clock.ts";

/** Seconds from the start to each named place, in order; and what must be equal for all who run the same. */
export interface WholeRun {
  readonly marks: readonly { readonly name: string; readonly seconds: number }[];
  readonly check: string;
  /** Instructions; only our machine says so. */
  readonly instructions?: number;
}

/** What a run is told. */
export interface WholeOptions {
  readonly clock: ClockName;
  /** Seconds after which a run is given up. */
  readonly limit: number;
  /** Megabytes of text that the BusyBox workload works on. */
  readonly megabytes: number;
}

/** One system. */
export interface WholeSystem {
  readonly name: string;
  readonly about: string;
  /** Why it can't be run here; undefined if it can. */
  missing(): Promise<string | undefined>;
  onEngine(engine: EngineKind, options: WholeOptions): Promise<WholeRun>;
  /** Absent where QEMU can't run it. */
  onQemu?(options: WholeOptions): Promise<WholeRun>;
}

/** Debian's busybox-static, and who names a Linux kernel. */
const BUSYBOX = "/usr/bin/busybox";
const LINUX_VARIABLE = "EXUVIA_LINUX";
const MEMORY = 512 << 20;
/** Instructions between looks at the serial output. */
const PIECE = 2_000_000;
/** Stand before and behind each part of the workload. */
const MARK = /^@(\w+)\r?$/gm;
/** Keys that take memtest86+ from its start screen into the test. */
const ENTER = Uint8Array.of(13);

/**
 * The workload, the same everywhere: a text of so many megabytes is made, then sorted, hashed, compressed, and summed up. Before each part and
 * behind the last stands a line with a mark.
 */
function workload(megabytes: number): string {
  return [
    "cd /tmp",
    "awk 'BEGIN { x = 12345; for (n = 0; n < 38000; n++) { x = (x * 16807) % 2147483647; print x, n % 97, \"page map\" x % 1009 } }' > part",
    `i=0; while [ $i -lt ${megabytes} ]; do sed "s/^/$i/" part; i=$((i + 1)); done > text`,
    "echo @sort; sort text | sha256sum",
    "echo @sha256sum; sha256sum < text",
    "echo @gzip; gzip -c text | sha256sum",
    "echo @awk; awk '{ s += $1; n[$2]++ } END { print s; for (k in n) print k, n[k] }' text | sort | sha256sum",
    "echo @end",
  ].join("; ");
}
const WORKLOAD_MARKS = ["sort", "sha256sum", "gzip", "awk", "end"];

/** Follows serial output: notes when each mark comes, and all lines of hashes. */
class Follower {
  readonly marks: { name: string; seconds: number }[] = [];
  text = "";
  readonly #decoder = new TextDecoder();

  constructor(readonly clock: () => number) {}

  take(bytes: Uint8Array): void {
    this.text += this.#decoder.decode(bytes, { stream: true });
    const seconds = this.clock();
    const seen = [...this.text.matchAll(MARK)];
    for (const match of seen.slice(this.marks.length)) this.marks.push({ name: match[1]!, seconds });
  }
  get isDone(): boolean {
    return this.marks.at(-1)?.name === "end";
  }
  /** The hashes that were printed. */
  get check(): string {
    return [...this.text.matchAll(/^([0-9a-f]{64}) {2}-\r?$/gm)].map((match) => match[1]!.slice(0, 8)).join(
      " ",
    );
  }
}

/** Runs a machine until `isDone`. */
function runMachine(machine: Machine, isDone: () => boolean, clock: () => number, limit: number): void {
  for (;;) {
    const stop = machine.run({ steps: PIECE });
    if (isDone()) return;
    if (stop.reason !== "steps") throw new Error(`the machine ended by ${JSON.stringify(stop)}`);
    if (clock() > limit) throw new Error(`not done within ${limit} seconds`);
  }
}

/** Runs QEMU until `isDone`, looking at what comes over the serial line. */
async function runQemu(
  args: readonly string[],
  options: WholeOptions,
  take: (bytes: Uint8Array, seconds: number) => boolean,
  typed?: Uint8Array,
): Promise<void> {
  const process = new Deno.Command("qemu-system-x86_64", {
    args: [
      "-accel",
      "tcg",
      "-display",
      "none",
      "-monitor",
      "none",
      "-serial",
      "stdio",
      "-no-reboot",
      "-nic",
      "none",
      ...args,
    ],
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const clock = processSeconds(options.clock, process.pid);
  const writer = process.stdin.getWriter();
  // Keys before the start screen is there are lost, those behind it do nothing.
  const keys = typed === undefined
    ? undefined
    : setInterval(() => void writer.write(typed).catch(() => {}), 500);
  const giveUp = setTimeout(() => process.kill(), options.limit * 1000);
  let isDone = false;
  try {
    for await (const bytes of process.stdout) {
      if ((isDone = take(bytes, clock()))) break;
    }
  } finally {
    clearInterval(keys);
    clearTimeout(giveUp);
    try {
      process.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
    await process.status;
    await writer.abort().catch(() => {});
  }
  if (!isDone) throw new Error(`QEMU ended or was not done within ${options.limit} seconds`);
}

async function missingFile(path: string | undefined, what: string): Promise<string | undefined> {
  if (path === undefined) return what;
  try {
    await Deno.stat(path);
    return undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return `${path} is not there: ${what}`;
    throw error;
  }
}

const directory = (path: string) => ({ path, mode: 0o040755, data: new Uint8Array(0) });

async function busyboxFile(): Promise<{ path: string; mode: number; data: Uint8Array }> {
  return { path: "bin/busybox", mode: 0o100755, data: await Deno.readFile(BUSYBOX) };
}

/** Times since `start` on our clock. */
function stopwatch(clock: ClockName): () => number {
  const start = now(clock);
  return () => now(clock) - start;
}

/** Only the parts between the marks: how long each took. */
function partsOf({ marks, check }: { readonly marks: WholeRun["marks"]; readonly check: string }): WholeRun {
  return {
    marks: WORKLOAD_MARKS.slice(0, -1).map((name, i) => ({
      name,
      seconds: marks[i + 1]!.seconds - marks[i]!.seconds,
    })),
    check,
  };
}

/** A Linux kernel, with the workload as its init. */
async function linuxFiles(
  megabytes: number,
): Promise<{ readonly kernel: string; readonly initrd: Uint8Array<ArrayBuffer> }> {
  const init = `#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
exec >/dev/ttyS0 2>&1
/bin/busybox --install -s /bin
export PATH=/bin
${workload(megabytes)}
poweroff -f
`;
  const initrd = cpio([
    ...["bin", "dev", "tmp"].map(directory),
    await busyboxFile(),
    { path: "init", mode: 0o100755, data: new TextEncoder().encode(init) },
  ]);
  return { kernel: Deno.env.get(LINUX_VARIABLE)!, initrd };
}
const LINUX_LINE = "console=ttyS0 cryptomgr.notests quiet";

async function linuxOnQemu(options: WholeOptions): Promise<Follower> {
  const { kernel, initrd } = await linuxFiles(options.megabytes);
  const file = await Deno.makeTempFile();
  try {
    await Deno.writeFile(file, initrd);
    let at = 0;
    const follower = new Follower(() => at);
    await runQemu(
      ["-m", "512", "-kernel", kernel, "-initrd", file, "-append", LINUX_LINE],
      options,
      (bytes, seconds) => {
        at = seconds;
        follower.take(bytes);
        return follower.isDone;
      },
    );
    return follower;
  } finally {
    await Deno.remove(file);
  }
}

/** The systems. */
export const SYSTEMS: readonly WholeSystem[] = [
  {
    name: "boot",
    about: "deno task boot: from the start of Deno to the end of a first shell command",
    missing: () => Promise.resolve(undefined),
    async onEngine(engine, { clock, limit }) {
      // A process of its own: what was compiled for one engine would be warm for the next.
      const script = decodeURIComponent(new URL("../lab/cli/boot.ts", import.meta.url).pathname);
      const args = ["run", "-A", "--quiet", script, "--engine", engine, "--exec", "echo prompt"];
      const seconds = await timeCommand(clock, Deno.execPath(), args, {}, limit * 1000);
      if (seconds > 0.9 * limit) throw new Error(`not done within ${limit} seconds`);
      return { marks: [{ name: "boot", seconds }], check: "" };
    },
  },
  {
    name: "busybox",
    about: "BusyBox on the TypeScript kernel; on QEMU on Linux",
    missing: () => missingFile(BUSYBOX, "Debian package busybox-static"),
    async onEngine(engine, { clock, limit, megabytes }) {
      const archives = [cpio([...["bin", "tmp"].map(directory), await busyboxFile()])];
      const time = stopwatch(clock);
      const follower = new Follower(time);
      const machine = new Machine({
        engine,
        gates: true,
        memory: MEMORY,
        serial: { output: (bytes) => follower.take(bytes) },
      });
      const commands = [["/bin/busybox", "sh", "-c", workload(megabytes)]];
      bootKernel(machine, { archives, commands, verbose: false });
      runMachine(machine, () => follower.isDone, time, limit);
      return { ...partsOf(follower), instructions: machine.instructions };
    },
    async onQemu(options) {
      if (Deno.env.get(LINUX_VARIABLE) === undefined) {
        throw new Error(
          `no Linux kernel to run it on: name one with ${LINUX_VARIABLE} (docs/running-linux.md)`,
        );
      }
      return partsOf(await linuxOnQemu(options));
    },
  },
  {
    name: "linux",
    about: "a Linux kernel from power-up to user space, and BusyBox on it",
    missing: async () =>
      await missingFile(
        Deno.env.get(LINUX_VARIABLE),
        `name a kernel with ${LINUX_VARIABLE} (docs/running-linux.md)`,
      ) ??
        await missingFile(BUSYBOX, "Debian package busybox-static"),
    async onEngine(engine, { clock, limit, megabytes }) {
      const { kernel, initrd } = await linuxFiles(megabytes);
      const image = await Deno.readFile(kernel);
      const time = stopwatch(clock);
      const follower = new Follower(time);
      const machine = new Machine({
        engine,
        memory: MEMORY,
        serial: { output: (bytes) => follower.take(bytes) },
      });
      loadImage(machine, image, { commandLine: LINUX_LINE, initrd });
      runMachine(machine, () => follower.isDone, time, limit);
      return { ...wholeOf(follower), instructions: machine.instructions };
    },
    onQemu: async (options) => wholeOf(await linuxOnQemu(options)),
  },
  {
    name: "memtest",
    about: "a full pass of memtest86+ over 32 MiB",
    missing: () => missingFile(findMemtest(), "Debian package memtest86+"),
    async onEngine(engine, { clock, limit }) {
      const image = await Deno.readFile(findMemtest()!);
      const time = stopwatch(clock);
      const memtest = new Memtest(image, { engine });
      memtest.run(START_SCREEN_STEPS);
      memtest.pressEnter();
      for (;;) {
        memtest.run(PIECE * 10);
        const { passes, errors, percent } = memtest.state();
        if (errors > 0) throw new Error("memtest86+ found errors");
        if (passes > 0) break;
        if (time() > limit) throw new Error(`at ${percent} percent after ${limit} seconds`);
      }
      const { instructions } = memtest.machine;
      return { marks: [{ name: "memtest", seconds: time() }], check: "", instructions };
    },
    async onQemu(options) {
      const screen = new MemtestScreen();
      let seconds = 0;
      const args = ["-m", "32", "-kernel", findMemtest()!, "-append", "console=ttyS0,115200 nosmp"];
      await runQemu(args, options, (bytes, at) => {
        screen.take(bytes);
        seconds = at;
        return screen.state().passes > 0;
      }, ENTER);
      return { marks: [{ name: "memtest", seconds }], check: "" };
    },
  },
];

/** From the start to user space's first mark, and the parts behind it. */
function wholeOf(follower: Follower): WholeRun {
  const parts = partsOf(follower);
  return {
    marks: [{ name: "boot", seconds: follower.marks[0]!.seconds }, ...parts.marks],
    check: parts.check,
  };
}
