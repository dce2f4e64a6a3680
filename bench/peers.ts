/**
 * The peers that bench programs run on for comparison: QEMU's TCG and Bochs, as Debian packages them. Each run is a process.
 *
 * Room: `bench/`; imports runner.ts and the clocks.
 *
 * @module
 */
import { IMAGE } from "./build.ts";
import { type ClockName, timeCommand } from "./clock.ts";
import { checkValue, type Runner, type RunResult } from "./runner.ts";

/** Names of the peers. */
export const PEERS = ["qemu", "bochs"] as const;
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
  return name === "qemu" ? await Qemu.open(clock) : await Bochs.open(clock);
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

  async run(program: string, rounds: number): Promise<RunResult> {
    const seconds = await timeCommand(
      this.clock,
      "qemu-system-x86_64",
      [
        ...["-accel", "tcg", "-m", "256", "-display", "none", "-no-reboot", "-nic", "none"],
        ...["-serial", `file:${this.#serial}`, "-device", "isa-debug-exit,iobase=0xf4,iosize=4"],
        ...["-kernel", decodeURIComponent(IMAGE.pathname), "-append", `${program} ${rounds}`],
      ],
      {},
      TIME_LIMIT_MS,
    );
    const text = await Deno.readTextFile(this.#serial);
    return { seconds, check: checkValue(text, `"${program} ${rounds}" on QEMU`) };
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

  async run(program: string, rounds: number): Promise<RunResult> {
    const { bytes, at } = this.#disc ??= await this.#makeDisc();
    bytes.set(new TextEncoder().encode(`${program} ${rounds}`.padEnd(PLACE.length)), at);
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
    return { seconds, check: checkValue(text, `"${program} ${rounds}" on Bochs`) };
  }
  async close(): Promise<void> {
    await Deno.remove(this.directory, { recursive: true });
  }

  async #makeDisc(): Promise<{ bytes: Uint8Array; at: number }> {
    const { directory } = this;
    await Deno.mkdir(`${directory}/cd/boot/grub`, { recursive: true });
    await Deno.copyFile(IMAGE, `${directory}/cd/boot/bench.elf`);
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
