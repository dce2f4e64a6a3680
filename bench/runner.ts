/**
 * What runs a bench program: our machine with one of its engines, in this process.
 *
 * Room: `bench/`; imports `hw/`. The peers are in peers.ts.
 *
 * @module
 */
import { loadImage } from "../hw/boot/image.ts";
import { type EngineKind, Machine } from "../hw/machine.ts";
import { IMAGE } from "./build.ts";
import { type ClockName, seconds as now } from "./clock.ts";

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
  run(program: string, rounds: number): Promise<RunResult>;
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

let image: Uint8Array | undefined;

/** Runs a program on our machine; the time is that of `Machine.run` alone. */
export async function runOnEngine(
  engine: EngineKind,
  program: string,
  rounds: number,
  options: EngineRunOptions = {},
): Promise<RunResult> {
  image ??= await Deno.readFile(IMAGE);
  let text = "";
  const machine = new Machine({
    engine,
    memory: options.memory ?? 256 << 20,
    seed: options.seed ?? 1,
    gates: true,
    serial: { output: (bytes) => text += new TextDecoder().decode(bytes) },
  });
  machine.gates!.register({ name: "one", cpl: 0, body: one });
  loadImage(machine, image, { commandLine: `${program} ${rounds}` });
  const clock = options.clock ?? "wall";
  const start = now(clock);
  const stop = machine.run();
  const seconds = now(clock) - start;
  const what = `"${program} ${rounds}" on ${engine}`;
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

  async run(program: string, rounds: number): Promise<RunResult> {
    return await runOnEngine(this.name, program, rounds, { clock: this.#clock });
  }
  async close(): Promise<void> {}
}
