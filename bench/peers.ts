/**
 * The peers that bench programs run on for comparison: QEMU's TCG and Bochs, as Debian packages them, and v86 from npm. Each run is a process.
 *
 * Room: `bench/`; imports runner.ts and the clocks. v86 itself is only imported by its process, v86_process.ts.
 *
 * @module
 */
import { IMAGES } from "./build.ts";
import { type ClockName, timeCommand } from "./clock.ts";
import type { Program } from "./programs.ts";
import { checkValue, commandLine, type Runner, type RunResult } from "./runner.ts";

/** Names of the peers. */
export const PEERS = ["qemu", "v86", "bochs"] as const;
/** Name of a peer. */
export type PeerName = (typeof PEERS)[number];

/** No run of a peer takes longer than this; one that does is ended. */
const TIME_LIMIT_MS = 120_000;

/** Bochs' ROMs and GRUB's modules where Debian puts them. */
const BOCHS_BIOS = "/usr/share/bochs/BIOS-bochs-latest";
const BOCHS_VGA_BIOS = "/usr/share/vgabios/vgabios.bin";
const GRUB_MODULES = "/usr/lib/grub/i386-pc";

/** A peer, or in words why it can't be had. */
export async function openPeer(name: PeerName, clock: ClockName): Promise<Runner | string> {
  switch (name) {
    case "qemu":
      return await Qemu.open(clock);
    case "v86":
      return await V86.open(clock);
    case "bochs":
      return await Bochs.open(clock);
  }
}

/** What a command prints; undefined when there is no such command. */
async function output(command: string, args: readonly string[]): Promise<string | undefined> {
  try {
    const { stdout, stderr } = await new Deno.Command(command, { args: [...args], stdin: "null" }).output();
    return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Path of the image of a program. */
function pathOf({ image }: Program): string {
  return decodeURIComponent(IMAGES[image ?? "bench"].pathname);
}

class Qemu implements Runner {
  readonly name = "qemu";
  readonly isPeer = true;
  readonly #serial: string;
  private constructor(readonly clock: ClockName, readonly about: string, readonly directory: string) {
    this.#serial = `${directory}/serial`;
  }

  static async open(clock: ClockName): Promise<Qemu | string> {
    const version = await output("qemu-system-x86_64", ["--version"]);
    if (version === undefined) return "qemu-system-x86_64 is not installed (Debian package qemu-system-x86)";
    return new Qemu(
      clock,
      `${version.split("\n")[0]!.replace("emulator version ", "")}, -accel tcg`,
      await Deno.makeTempDir(),
    );
  }

  async run(program: Program, rounds: number): Promise<RunResult> {
    const seconds = await timeCommand(
      this.clock,
      "qemu-system-x86_64",
      [
        ...["-accel", "tcg", "-m", "256", "-display", "none", "-no-reboot", "-nic", "none"],
        ...["-serial", `file:${this.#serial}`, "-device", "isa-debug-exit,iobase=0xf4,iosize=4"],
        ...["-kernel", pathOf(program), "-append", commandLine(program, rounds)],
      ],
      {},
      TIME_LIMIT_MS,
    );
    const text = await Deno.readTextFile(this.#serial);
    return { seconds, check: checkValue(text, `"${program.name} ${rounds}" on QEMU`) };
  }
  async close(): Promise<void> {
    await Deno.remove(this.directory, { recursive: true });
  }
}

/** The package as deno.json names it. */
const V86_PACKAGE = "npm:v86@0.5.462";

class V86 implements Runner {
  readonly name = "v86";
  readonly isPeer = true;
  /** It interprets for up to half a second before it compiles; ours is measured with all that it takes, v86 without. */
  readonly warmUp = 0.3;
  readonly #serial: string;
  private constructor(
    readonly clock: ClockName,
    readonly about: string,
    readonly wasm: string,
    readonly directory: string,
  ) {
    this.#serial = `${directory}/serial`;
  }

  static async open(clock: ClockName): Promise<V86 | string> {
    // The package's wasm file is no module that could be imported; Deno says where it keeps the package.
    const said = await output(Deno.execPath(), ["info", "--json", V86_PACKAGE]) ?? "";
    const path = /"localPath": "([^"]*\/v86\/[^"]+)"/.exec(said)?.[1];
    const wasm = `${path}/build/v86.wasm`;
    if (!await exists(wasm)) return `${V86_PACKAGE} is not to be had: run "deno cache bench/v86_process.ts"`;
    return new V86(clock, `${V86_PACKAGE} on Deno ${Deno.version.deno}`, wasm, await Deno.makeTempDir());
  }

  async run(program: Program, rounds: number): Promise<RunResult> {
    const script = decodeURIComponent(new URL("v86_process.ts", import.meta.url).pathname);
    const seconds = await timeCommand(
      this.clock,
      Deno.execPath(),
      [
        "run",
        "-A",
        "--quiet",
        script,
        this.wasm,
        pathOf(program),
        commandLine(program, rounds),
        this.#serial,
      ],
      {},
      TIME_LIMIT_MS,
    );
    const text = await Deno.readTextFile(this.#serial);
    return { seconds, check: checkValue(text, `"${program.name} ${rounds}" on v86`) };
  }
  async close(): Promise<void> {
    await Deno.remove(this.directory, { recursive: true });
  }
}

class Bochs implements Runner {
  readonly name = "bochs";
  readonly isPeer = true;
  /** A CD whose grub.cfg has the command line padded to a fixed length, so that it can be changed in place. */
  #disc: { readonly bytes: Uint8Array; readonly at: number } | undefined;
  private constructor(
    readonly clock: ClockName,
    readonly about: string,
    readonly command: string,
    readonly directory: string,
  ) {}

  static async open(clock: ClockName): Promise<Bochs | string> {
    // Debian's /usr/bin/bochs is a shell script around bochs-bin.
    let command = "bochs-bin";
    let help = await output(command, ["--help"]);
    if (help === undefined) help = await output(command = "bochs", ["--help"]);
    if (help === undefined) {
      return "bochs is not installed (Debian packages bochs, bochs-term, bochsbios, vgabios)";
    }
    for (const rom of [BOCHS_BIOS, BOCHS_VGA_BIOS]) {
      if (!await exists(rom)) return `bochs has no ROM ${rom} (Debian packages bochsbios, vgabios)`;
    }
    if (await output("grub-mkrescue", ["--version"]) === undefined || !await exists(GRUB_MODULES)) {
      return "bochs needs a CD to start from, and grub-mkrescue for i386-pc is not installed (Debian packages grub-pc-bin, " +
        "grub-common, xorriso, mtools)";
    }
    const version = /Bochs x86 Emulator (\S+)/.exec(help)?.[1] ?? "of unknown version";
    return new Bochs(clock, `Bochs ${version}`, command, await Deno.makeTempDir());
  }

  async run(program: Program, rounds: number): Promise<RunResult> {
    const { bytes, at } = this.#disc ??= await this.#makeDisc();
    bytes.set(new TextEncoder().encode(commandLine(program, rounds).padEnd(PLACE.length)), at);
    await Deno.writeFile(`${this.directory}/bench.iso`, bytes);
    const seconds = await timeCommand(
      this.clock,
      this.command,
      [
        ...["-q", "-f", `${this.directory}/bochsrc`, "-rc", `${this.directory}/continue`],
      ],
      { TERM: "xterm" },
      TIME_LIMIT_MS,
    );
    const text = await Deno.readTextFile(`${this.directory}/serial`);
    return { seconds, check: checkValue(text, `"${program.name} ${rounds}" on Bochs`) };
  }
  async close(): Promise<void> {
    await Deno.remove(this.directory, { recursive: true });
  }

  async #makeDisc(): Promise<{ bytes: Uint8Array; at: number }> {
    const { directory } = this;
    await Deno.mkdir(`${directory}/cd/boot/grub`, { recursive: true });
    await Deno.copyFile(IMAGES.bench, `${directory}/cd/boot/bench.elf`);
    await Deno.writeTextFile(
      `${directory}/cd/boot/grub/grub.cfg`,
      `multiboot /boot/bench.elf ${PLACE}\nboot\n`,
    );
    const iso = `${directory}/bench.iso`;
    const said = await output("grub-mkrescue", [
      ...[
        "-d",
        GRUB_MODULES,
        "--install-modules=multiboot normal boot",
        "--fonts=",
        "--locales=",
        "--themes=",
      ],
      ...["--compress=no", "-o", iso, `${directory}/cd`],
    ]);
    if (!await exists(iso)) throw new Error(`grub-mkrescue made no CD: ${said}`);
    await Deno.writeTextFile(`${directory}/bochsrc`, bochsrc(directory));
    // Debian builds Bochs with its debugger, which waits for a command.
    await Deno.writeTextFile(`${directory}/continue`, "continue\n");
    const bytes = await Deno.readFile(iso);
    const at = find(bytes, new TextEncoder().encode(PLACE));
    if (at < 0) throw new Error("grub-mkrescue made a CD in which grub.cfg is not to be found");
    return { bytes, at };
  }
}

/** Stands for the command line in grub.cfg. */
const PLACE = "PROGRAM-AND-ROUNDS".padEnd(40, ".");

/** Bochs as it comes, without sound, network or a screen; RAM as our machine has it. */
function bochsrc(directory: string): string {
  return `
display_library: term
megs: 256
romimage: file=${BOCHS_BIOS}
vgaromimage: file=${BOCHS_VGA_BIOS}
ata0-master: type=cdrom, path=${directory}/bench.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=${directory}/serial
log: ${directory}/log
cpu: model=corei7_haswell_4770, count=1, ips=4000000
clock: sync=none
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
`;
}

function find(bytes: Uint8Array, what: Uint8Array): number {
  for (let at = bytes.indexOf(what[0]!); at >= 0; at = bytes.indexOf(what[0]!, at + 1)) {
    if (what.every((byte, i) => bytes[at + i] === byte)) return at;
  }
  return -1;
}
