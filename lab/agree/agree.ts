/**
 * `deno task agree [boots]`: the same guests on every engine, stopped at random places, compared by hash with the reference engine. A difference is
 * narrowed down to the instruction after which it first shows, with the fields and bytes that differ.
 *
 *     deno task agree --count 200 --seed 1 --engines compiled,auto --threshold 1
 *     deno task agree --mix programs --seed 17 --count 1 --engines compiled --threshold 1
 *     deno task agree boots --engines interpreter,compiled
 *
 * Room: `lab/agree/`; imports hw's public face.
 *
 * @module
 */
import { type EngineKind, ENGINES, Machine, type MachineOptions } from "../../hw/machine.ts";
import { Random } from "../../hw/random.ts";
import {
  choice,
  describeOptions,
  flag,
  integer,
  type OptionSpec,
  parseArguments,
  UsageError,
} from "../cli/args.ts";
import { agreeBoots, BOOTS } from "./boots.ts";
import {
  compareGuest,
  type Difference,
  type EngineChoice,
  engineName,
  engineOptions,
  type Guest,
} from "./compare.ts";
import { GUEST_BYTES, type GuestMode, loadRandomGuest } from "./random_guest.ts";
import { loadRandomProgram, programKind, programOptions } from "./random_program.ts";

/** A difference on a random guest. */
export interface Disagreement extends Difference {
  readonly seed: number;
  /** Of what kind the guest is. */
  readonly mode: GuestMode | "program";
}

/** Stops of one noise guest, the first half of them close together. */
const STOPS = 40;
/** Instructions of a random program. */
const PROGRAM_STEPS = 150_000;
/** The oracle of the random mixes. */
const REFERENCE: EngineChoice = { engine: "reference" };

/** The noise of `seed` as a guest. */
function noise(seed: number, mode: GuestMode, options: MachineOptions): Guest {
  const random = new Random(seed ^ 0x5555);
  return {
    make(engine) {
      const machine = new Machine({ ...options, memory: GUEST_BYTES, ...engineOptions(engine) });
      loadRandomGuest(machine, seed, mode);
      return machine;
    },
    stops: Array.from({ length: STOPS }, (_, k) => 1 + random.next() % (k < STOPS / 2 ? 40 : 400)),
  };
}

/** Runs one noise guest on two engines; the first disagreement, or undefined. */
export function compareEngines(
  seed: number,
  mode: GuestMode,
  options: MachineOptions = {},
  engine: EngineChoice = { engine: "interpreter" },
  oracle: EngineChoice = REFERENCE,
): Disagreement | undefined {
  const found = compareGuest(noise(seed, mode, options), engine, oracle);
  return found && { seed, mode, ...found };
}

/** How long a random program runs, and how often it is stopped. */
export interface ProgramRun {
  /** Instructions. */
  readonly steps?: number;
  /** Options that go before those of the seed. */
  readonly options?: MachineOptions;
}

/** Runs one random program on two engines; the first disagreement, or undefined. */
export function comparePrograms(
  seed: number,
  engine: EngineChoice,
  oracle: EngineChoice = REFERENCE,
  { steps = PROGRAM_STEPS, options = {} }: ProgramRun = {},
): Disagreement | undefined {
  const random = new Random(seed, 0x7374_6f70);
  const stops: number[] = [];
  // Mostly few and long stretches, so that code becomes hot; between them crowds of short ones.
  for (let at = 0; at < steps;) {
    const high = [8, 60, 150, 700][random.between(0, 3)]!, crowd = random.between(1, high === 8 ? 12 : 60);
    const some = [
      random.between(1, Math.max(1000, steps >> 2)),
      ...Array.from({ length: crowd }, () => random.between(1, high)),
    ];
    stops.push(...some);
    at += some.reduce((sum, one) => sum + one, 0);
  }
  const found = compareGuest(
    {
      make(choice) {
        const machine = new Machine({ ...programOptions(seed), ...options, ...engineOptions(choice) });
        loadRandomProgram(machine, seed);
        return machine;
      },
      stops,
    },
    engine,
    oracle,
  );
  return found && { seed, mode: "program", ...found };
}

// ---- the command

/** A list of engines. */
function engines(help: string): OptionSpec<EngineKind[]> {
  const one = choice(ENGINES, help);
  return { value: "NAME,…", help, parse: (text) => text.split(",").map((word) => one.parse(word)) };
}

const MIXES = ["noise", "programs", "all"] as const;
const TLBS = ["fast", "geometry", "sticky"] as const;
const OPTIONS = {
  count: integer("N", "guests of each kind; default: 100", 0, 1e9),
  seed: integer("S", "seed of the first; default: 1", 0, 2 ** 32),
  engines: engines(`engines to compare; default: ${ENGINES.filter((one) => one !== "reference").join(",")}`),
  threshold: integer("N", "executions after which those that compile do so; default: theirs", 0, 1e9),
  oracle: choice(ENGINES, "whom to compare with; default: reference"),
  mix: choice(MIXES, "noise: random bytes; programs: random programs; default: all"),
  steps: integer("N", `instructions of a random program; default: ${PROGRAM_STEPS}`, 1, 1e9),
  tlb: choice(TLBS, "the TLB of all machines; default: fast, for programs as the seed says"),
  keep: flag("go on after a difference, and say at the end how many there were"),
  boots: { value: "NAME,…", help: `with "boots", which; default: all of ${BOOTS.join(", ")}`, parse: boots },
  help: flag("print this"),
};

function boots(text: string): (typeof BOOTS)[number][] {
  const one = choice(BOOTS, "");
  return text.split(",").map((word) => one.parse(word));
}

/** The command: false on a disagreement. */
async function main(args: readonly string[]): Promise<boolean> {
  const { options, positional, rest } = parseArguments(OPTIONS, args);
  if (options.help) {
    console.log(`deno task agree [boots] [options]\n\n${describeOptions(OPTIONS)}`);
    return true;
  }
  const stray = positional.find((word, i) => i > 0 || word !== "boots") ?? rest[0];
  if (stray !== undefined) throw new UsageError(`"${stray}" is no option`);
  const named = options.engines ?? ENGINES.filter((one) => one !== "reference");
  const choices = named.map((engine): EngineChoice =>
    engine === "interpreter" || engine === "reference" || options.threshold === undefined
      ? { engine }
      : { engine, threshold: options.threshold }
  );
  if (positional[0] === "boots") return await agreeBoots(choices, options.boots ?? BOOTS);

  const oracle: EngineChoice = { engine: options.oracle ?? "reference" };
  const count = options.count ?? 100, seed = options.seed ?? 1, mix = options.mix ?? "all";
  const tlb = options.tlb === undefined ? {} : { tlb: options.tlb };
  let guests = 0, bad = 0;
  for (let i = 0; i < count; i++) {
    const found: (Disagreement | undefined)[] = [];
    for (const engine of choices) {
      if (mix !== "programs") {
        for (const mode of [0, 1, 2] as const) {
          found.push(compareEngines(seed + i, mode, tlb, engine, oracle));
        }
      }
      if (mix !== "noise") {
        const run = { options: tlb, ...(options.steps === undefined ? {} : { steps: options.steps }) };
        found.push(comparePrograms(seed + i, engine, oracle, run));
      }
    }
    guests += found.length;
    for (const one of found) {
      if (one === undefined) continue;
      bad++;
      console.log(
        JSON.stringify(one.mode === "program" ? { ...one, kind: programKind(one.seed) } : one, null, 2),
      );
      if (!options.keep) return false;
    }
  }
  const who = choices.map(engineName).join(", ");
  console.log(
    bad === 0
      ? `${guests} random guests from seed ${seed} on: ${who} and ${engineName(oracle)} agree at every stop`
      : `${bad} of ${guests} random guests from seed ${seed} on: ${who} and ${engineName(oracle)} disagree`,
  );
  return bad === 0;
}

if (import.meta.main) {
  try {
    Deno.exit(await main(Deno.args) ? 0 : 1);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(error.message);
    Deno.exit(2);
  }
}
