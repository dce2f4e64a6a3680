/**
 * What runs a bench program: our machine with one of its engines, in this process.
 *
 * Room: `bench/`; imports `hw/`. The peers are in peers.ts.
 *
 * @module
 */
import { loadImage } from "../hw/boot/image.ts";
import { type EngineKind, Machine } from "../hw/machine.ts";
import { becomeGuest } from "../lab/agree/as_guest.ts";
import { useHugePages } from "../lab/huge_pages.ts";
import { IMAGES } from "./build.ts";
import { type ClockName, seconds as now } from "./clock.ts";
import { type ImageName, type Program, PROGRAMS } from "./programs.ts";

/** One run of a program. */
export interface RunResult {
  readonly seconds: number;
  /** Check value that the program printed, 16 hex digits. */
  readonly check: string;
  /** Instructions carried out; only our machine says so. */
  readonly instructions?: number;
  /** Hash of the final state; only our machine has one. */
  readonly hash?: string;
}

/** Something that runs bench programs. */
export interface Runner {
  readonly name: string;
  /** For people: version or the like. */
  readonly about: string;
  /** Whether it is a peer, whose time is that of a whole process. */
  readonly isPeer: boolean;
  /** Part of the rounds that is spent warming up, and is not measured; default none: only what comes before the rounds is left out. */
  readonly warmUp?: number;
  run(program: Program, rounds: number): Promise<RunResult>;
  /** Removes what it keeps on disk. */
  close(): Promise<void>;
}

/** The check value in what a program printed. */
export function checkValue(output: string, where: string): string {
  const match = /^check ([0-9a-f]{16})\r?$/m.exec(output);
  if (match === null) {
    throw new Error(`${where} gave no check value; it printed ${JSON.stringify(output.slice(-200))}`);
  }
  return match[1]!;
}

/** What a run on our machine may be told. */
export interface EngineRunOptions {
  readonly seed?: number;
  /** Bytes of RAM, at least 96 MiB; default as for the peers, 256 MiB. */
  readonly memory?: number;
  /** Default: that on the wall. */
  readonly clock?: ClockName;
  /** Whether to compute the hash of the final state. */
  readonly hashed?: boolean;
}

const images = new Map<ImageName, Uint8Array>();
/** What a VMX guest's hypervisor keeps stands above what all programs use but chase64m, which is not run as a guest. */
const HYPERVISOR = 88 << 20;
/** A model that has all of EPT. */
const GUEST_MODEL = "icelake";

/** What stands on the command line of the image: name of the program, rounds. */
export function commandLine({ name, word }: Pick<Program, "name" | "word">, rounds: number): string {
  return `${word ?? name} ${rounds}`;
}

/** Runs a row's program on our machine; the time is that of `Machine.run` alone. */
export async function runOnEngine(
  engine: EngineKind,
  name: string,
  rounds: number,
  options: EngineRunOptions = {},
): Promise<RunResult> {
  const program: Pick<Program, "name" | "word" | "image" | "asGuest"> =
    PROGRAMS.find((one) => one.name === name) ?? { name };
  const imageName = program.image ?? "bench";
  const image = images.get(imageName) ?? await Deno.readFile(IMAGES[imageName]);
  images.set(imageName, image);
  let text = "";
  const machine = new Machine({
    engine,
    memory: options.memory ?? 256 << 20,
    seed: options.seed ?? 1,
    gates: true,
    ...(program.asGuest ? { cpuModel: GUEST_MODEL } : {}),
    serial: { output: (bytes) => text += new TextDecoder().decode(bytes) },
  });
  useHugePages(machine.memory);
  machine.gates!.register({ name: "one", cpl: 0, body: one });
  loadImage(machine, image, { commandLine: commandLine(program, rounds) });
  if (program.asGuest) becomeGuest(machine, { ept: "2M", vpid: 1, at: HYPERVISOR });
  const clock = options.clock ?? "wall";
  const start = now(clock);
  const stop = machine.run();
  const seconds = now(clock) - start;
  const what = `"${name} ${rounds}" on ${engine}`;
  if (stop.reason !== "exit") throw new Error(`${what} ended by ${JSON.stringify(stop)}`);
  return {
    seconds,
    check: checkValue(text, what),
    instructions: machine.instructions,
    ...(options.hashed ? { hash: machine.hash() } : {}),
  };
}

/** Body of the gate that the program `gates` enters. */
function* one(): Generator<undefined, number, void> {
  return 1;
}

/** Our machine with one engine. */
export class EngineRunner implements Runner {
  readonly name: EngineKind;
  readonly about = "this machine";
  readonly isPeer = false;

  readonly #clock: ClockName;

  constructor(name: EngineKind, clock: ClockName) {
    this.name = name;
    this.#clock = clock;
  }

  async run(program: Program, rounds: number): Promise<RunResult> {
    return await runOnEngine(this.name, program.name, rounds, { clock: this.#clock });
  }
  async close(): Promise<void> {}
}
