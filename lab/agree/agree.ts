/**
 * `deno task agree --count N --seed S`: the same random guests on every engine, stopped at random places, compared by hash. A
 * difference is narrowed down to the instruction after which it first shows, with the fields and bytes that differ.
 *
 * Room: `lab/agree/`; imports hw's public face.
 *
 * @module
 */
import { type EngineKind, Machine, type MachineOptions } from "../../hw/machine.ts";
import { Random } from "../../hw/random.ts";
import { RAM_BASE } from "../../hw/state.ts";
import { GUEST_BYTES, type GuestMode, loadRandomGuest } from "./random_guest.ts";

/** A place where two engines differ. */
export interface Disagreement {
  readonly seed: number;
  readonly mode: GuestMode;
  /** Both agree after this many steps and not after one more. */
  readonly step: number;
  /** Linear address of the instruction executed there, on the reference engine. */
  readonly rip: string;
  /** Its bytes. */
  readonly bytes: string;
  /** Fields of the processor's block and bytes of RAM that differ: place, interpreter, reference. */
  readonly differences: readonly string[];
}

/** Stops of one guest, the first half of them close together. */
const STOPS = 40;
const BLOCK_FIELDS_END = 0x900;

/** Runs one guest on both engines; the first disagreement, or undefined. */
export function compareEngines(
  seed: number,
  mode: GuestMode,
  options: MachineOptions = {},
): Disagreement | undefined {
  const make = (engine: EngineKind) => {
    const machine = new Machine({ ...options, memory: GUEST_BYTES, engine });
    loadRandomGuest(machine, seed, mode);
    return machine;
  };
  const interpreter = make("interpreter"), reference = make("reference");
  const random = new Random(seed ^ 0x5555);
  let at = 0;
  for (let k = 0; k < STOPS; k++) {
    const steps = 1 + random.next() % (k < STOPS / 2 ? 40 : 400);
    const a = interpreter.run({ steps }), b = reference.run({ steps });
    if (a.reason !== b.reason || interpreter.hash() !== reference.hash()) {
      return narrow(make, seed, mode, at, at + steps);
    }
    at += steps;
    if (a.reason !== "steps") return undefined;
  }
  return undefined;
}

/** Finds the step in (from, to] at which the engines part, each time from the start, so that lines run as they did. */
function narrow(
  make: (engine: EngineKind) => Machine,
  seed: number,
  mode: GuestMode,
  from: number,
  to: number,
): Disagreement {
  const reference = make("reference");
  if (from > 0) reference.run({ steps: from });
  for (let step = from; step < to; step++) {
    const cpu = reference.cpus[0]!;
    const linear = Number(cpu.linearRip & 0x3f_ffffn);
    const bytes = [...reference.memory.u8.subarray(RAM_BASE + linear, RAM_BASE + linear + 15)]
      .map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const rip = cpu.linearRip.toString(16);
    reference.run({ steps: 1 });
    const interpreter = make("interpreter");
    interpreter.run({ steps: step + 1 });
    if (interpreter.hash() === reference.hash()) continue;
    const differences: string[] = [];
    const other = interpreter.cpus[0]!;
    for (let offset = 0; offset < BLOCK_FIELDS_END; offset += 4) {
      const x = other.get32(offset), y = cpu.get32(offset);
      if (x !== y) differences.push(`block+${offset.toString(16)} ${x.toString(16)} ${y.toString(16)}`);
    }
    for (let i = RAM_BASE; i < RAM_BASE + GUEST_BYTES && differences.length < 40; i++) {
      const x = interpreter.memory.u8[i]!, y = reference.memory.u8[i]!;
      if (x !== y) differences.push(`ram ${(i - RAM_BASE).toString(16)} ${x.toString(16)} ${y.toString(16)}`);
    }
    return { seed, mode, step, rip, bytes, differences };
  }
  return { seed, mode, step: to, rip: "", bytes: "", differences: ["only in a run that stops elsewhere"] };
}

/** The command: exits 1 on the first disagreement. */
function main(args: readonly string[]): number {
  const value = (name: string, fallback: number) => {
    const at = args.indexOf(name);
    const number = at < 0 ? fallback : Number(args[at + 1]);
    if (!Number.isInteger(number) || number < 0) throw new RangeError(`${name} takes a whole number`);
    return number;
  };
  const count = value("--count", 100), seed = value("--seed", 1);
  for (let i = 0; i < count; i++) {
    for (const mode of [0, 1, 2] as const) {
      const found = compareEngines(seed + i, mode);
      if (found) {
        console.log(JSON.stringify(found, null, 2));
        return 1;
      }
    }
  }
  console.log(
    `${3 * count} random guests from seed ${seed} on: interpreter and reference agree at every stop`,
  );
  return 0;
}

if (import.meta.main) Deno.exit(main(Deno.args));
