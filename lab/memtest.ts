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
import { Machine } from "../hw/machine.ts";

/** Where the package puts its 64-bit image. */
export const MEMTEST_IMAGES = ["/boot/memtest86+x64.bin", "/boot/memtest86+.bin"] as const;

/** Instructions after which the start screen waits for a key. */
export const START_SCREEN_STEPS = 250_000_000;

/** What memtest86+ shows. */
export interface MemtestState {
  /** Completed passes. */
  readonly passes: number;
  /** Errors found so far. */
  readonly errors: number;
  /** Progress of the pass in percent. */
  readonly percent: number;
  /** The test that runs, as displayed. */
  readonly test: string;
}

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
  readonly #screen: string[] = Array.from({ length: 25 }, () => " ".repeat(80));
  #row = 0;
  #column = 0;
  #escape: string | undefined;

  /** @param image The bytes of the image. */
  constructor(
    image: Uint8Array,
    options: { readonly stuckBits?: readonly StuckBit[]; readonly seed?: number } = {},
  ) {
    this.machine = new Machine({
      memory: 32 << 20,
      seed: options.seed ?? 1,
      stuckBits: options.stuckBits ?? [],
      serial: { output: (bytes) => bytes.forEach((byte) => this.#draw(byte)) },
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
    return this.#screen.map((line) => line.trimEnd()).join("\n");
  }

  /** What the status lines say. */
  state(): MemtestState {
    const text = this.text();
    const number = (pattern: RegExp) => Number(pattern.exec(text)?.[1] ?? 0);
    return {
      passes: number(/Pass:\s+(\d+)/),
      errors: number(/Errors:\s+(\d+)/),
      percent: number(/Pass\s+(\d+)%/),
      test: /#\d+\s+\[[^\]]*\]?/.exec(text)?.[0] ?? "",
    };
  }

  /** Follows the few VT100 sequences that memtest86+ sends: cursor position, clear, attributes. */
  #draw(byte: number): void {
    const character = String.fromCharCode(byte);
    if (this.#escape !== undefined) {
      this.#escape += character;
      if (!/[A-Za-z]/.test(character)) return;
      const [row, column] = this.#escape.slice(1, -1).split(";").map(Number);
      if (character === "H") {
        this.#row = (row || 1) - 1;
        this.#column = (column || 1) - 1;
      } else if (character === "J") this.#screen.fill(" ".repeat(80));
      this.#escape = undefined;
      return;
    }
    if (byte === 27) this.#escape = "";
    else if (byte === 13) this.#column = 0;
    else if (byte === 10) this.#row++;
    else {
      const line = this.#screen[this.#row];
      if (line !== undefined && this.#column < 80) {
        this.#screen[this.#row] = line.slice(0, this.#column) + character + line.slice(this.#column + 1);
      }
      this.#column++;
    }
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
