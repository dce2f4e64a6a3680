/**
 * `deno task memtest [--image FILE] [--stuck-bit ADDR:BIT:VALUE] [--seed N]`: Debian's unmodified memtest86+ on the machine, one full pass
 * over 32 MiB on the serial console.
 *
 * Exits 0 when the pass ends without an error, 1 when memtest86+ finds one (which is what `--stuck-bit` is for), 2 on a
 * usage error. The image comes from Debian's package memtest86+ and is never in the repository.
 *
 * Room: `lab/`; imports hw's public face.
 *
 * @module
 */
import { loadImage } from "../hw/boot/image.ts";
import type { StuckBit } from "../hw/dev/stuck_bits.ts";
import { Machine, type MachineOptions } from "../hw/machine.ts";
import { MemtestScreen, type MemtestState } from "./memtest_screen.ts";

/** Where the package puts its 64-bit image. */
export const MEMTEST_IMAGES = ["/boot/memtest86+x64.bin", "/boot/memtest86+.bin"] as const;

/** Instructions after which the start screen waits for a key. */
export const START_SCREEN_STEPS = 250_000_000;

/** Which of the images is there, or undefined. */
export function findMemtest(): string | undefined {
  const wanted = Deno.env.get("MEMTEST_IMAGE");
  return [...(wanted ? [wanted] : []), ...MEMTEST_IMAGES].find((path) => {
    try {
      return Deno.statSync(path).isFile;
    } catch {
      return false;
    }
  });
}

/** A machine of 32 MiB with memtest86+ loaded, and its screen as far as the serial line draws it. */
export class Memtest {
  readonly machine: Machine;
  readonly #screen = new MemtestScreen();

  /** @param image The bytes of the image. */
  constructor(
    image: Uint8Array,
    options: MachineOptions = {},
  ) {
    this.machine = new Machine({
      ...options,
      memory: 32 << 20,
      seed: options.seed ?? 1,
      stuckBits: options.stuckBits ?? [],
      serial: { output: (bytes) => this.#screen.take(bytes) },
    });
    loadImage(this.machine, image, { commandLine: "console=ttyS0,115200 nosmp" });
  }

  /** Runs `steps` instructions. */
  run(steps: number): void {
    this.machine.run({ steps });
  }
  /** Presses Enter, which (though the start screen is not on the serial line yet) ends the start screen's countdown of some five thousand million instructions. */
  pressEnter(): void {
    this.machine.serialInput([13]);
  }

  /** The screen as lines. */
  text(): string {
    return this.#screen.text();
  }
  /** What the status lines say. */
  state(): MemtestState {
    return this.#screen.state();
  }
}

/** Parses ADDR:BIT:VALUE. @throws {RangeError} on anything else. */
function parseStuckBit(text: string): StuckBit {
  const [address, bit, value] = text.split(":").map(Number);
  if (
    address === undefined || bit === undefined || !(bit >= 0 && bit < 8) || (value !== 0 && value !== 1) ||
    !Number.isInteger(address)
  ) {
    throw new RangeError(
      `--stuck-bit takes ADDRESS:BIT:VALUE with a bit of 0 to 7 and a value of 0 or 1, not "${text}"`,
    );
  }
  return { address, bit, value };
}

function main(args: readonly string[]): number {
  const option = (name: string) => {
    const at = args.indexOf(name);
    return at < 0 ? undefined : args[at + 1] ?? "";
  };
  const path = option("--image") ?? findMemtest();
  if (path === undefined) {
    console.error(
      `No memtest86+ image: install Debian's package memtest86+, or say where it is with --image or MEMTEST_IMAGE (looked at ${
        MEMTEST_IMAGES.join(", ")
      })`,
    );
    return 2;
  }
  const stuck = option("--stuck-bit");
  let memtest: Memtest;
  try {
    memtest = new Memtest(Deno.readFileSync(path), {
      stuckBits: stuck === undefined ? [] : [parseStuckBit(stuck)],
      seed: Number(option("--seed") ?? 1),
    });
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    return 2;
  }
  let last = "";
  memtest.run(START_SCREEN_STEPS);
  memtest.pressEnter();
  for (;;) {
    memtest.run(200_000_000);
    const { passes, errors, percent, test } = memtest.state();
    const line = `pass ${percent}%, ${test}, errors: ${errors}`;
    if (line !== last) console.log(line);
    last = line;
    if (errors > 0 || passes > 0) {
      console.log(memtest.text());
      console.log(
        `${memtest.machine.instructions} instructions: ${
          errors > 0 ? "memtest86+ found errors" : "a full pass without an error"
        }`,
      );
      return errors > 0 ? 1 : 0;
    }
  }
}

if (import.meta.main) Deno.exit(main(Deno.args));
