/**
 * The same guest on two engines, stopped at the same places and compared by hash; a difference is narrowed down to the instruction after which
 * it first shows.
 *
 * Room: `lab/agree/`; imports hw's public face.
 *
 * @module
 */
import type { Cpu } from "../../hw/cpu.ts";
import type { EngineKind, Machine, MachineStop } from "../../hw/machine.ts";
import { RAM_BASE } from "../../hw/state.ts";

/** An engine as it is to run: its name, and for those that compile from how many executions on. */
export interface EngineChoice {
  readonly engine: EngineKind;
  readonly threshold?: number;
}

/** The machine options that an engine choice stands for. */
export function engineOptions({ engine, threshold }: EngineChoice): {
  readonly engine: EngineKind;
  readonly compileThreshold?: number;
} {
  return { engine, ...(threshold === undefined ? {} : { compileThreshold: threshold }) };
}

/** How an engine choice is called in reports. */
export function engineName({ engine, threshold }: EngineChoice): string {
  return threshold === undefined ? engine : `${engine} (threshold ${threshold})`;
}

/** A guest that can be made anew for any engine. */
export interface Guest {
  /** Makes its machine, about to begin. */
  make(engine: EngineChoice): Machine;
  /** Instructions between the stops, in order. */
  readonly stops: readonly number[];
}

/** A place where two engines differ. */
export interface Difference {
  /** Who differs, from whom. */
  readonly engine: string;
  readonly oracle: string;
  /** Both agree after this many steps and not after one more; where the run's stops matter, both agreed at this stop and not at the next. */
  readonly step: number;
  /** Steps to the next stop, when only a run that is cut as this one was shows it; 1 otherwise. */
  readonly steps: number;
  /** The processor that carried the instruction out, on the oracle. */
  readonly cpu: number;
  /** Linear address of that instruction. */
  readonly rip: string;
  /** Bytes at that address (through no page tables). */
  readonly bytes: string;
  /** How both stopped, fields of the processors' blocks and bytes of RAM that differ: place, engine, oracle. */
  readonly differences: readonly string[];
}

const BLOCK_FIELDS_END = 0x900;
const DIFFERENCES_MAX = 40;

/** Runs a guest on both to its last stop; the first difference, or undefined. */
export function compareGuest(
  guest: Guest,
  engine: EngineChoice,
  oracle: EngineChoice,
): Difference | undefined {
  const a = guest.make(engine), b = guest.make(oracle);
  let at = 0;
  for (const [i, steps] of guest.stops.entries()) {
    const stopA = a.run({ steps }), stopB = b.run({ steps });
    if (!agree(a, b, stopA, stopB)) return narrow(guest, engine, oracle, i, at, at + steps);
    at += steps;
    if (stopA.reason !== "steps") return undefined;
  }
  return undefined;
}

function agree(a: Machine, b: Machine, stopA: MachineStop, stopB: MachineStop): boolean {
  return stopA.reason === stopB.reason && a.instructions === b.instructions && a.hash() === b.hash();
}

/** Finds the step in (from, to] at which they part, by halving, each time from the beginning. */
function narrow(
  guest: Guest,
  engine: EngineChoice,
  oracle: EngineChoice,
  stop: number,
  from: number,
  to: number,
): Difference {
  const names = { engine: engineName(engine), oracle: engineName(oracle) };
  // First as the run was, cut at the stops before this one; then, if that shows nothing, in one piece.
  for (const isCut of [true, false]) {
    const runTo = (choice: EngineChoice, step: number) => {
      const machine = guest.make(choice);
      if (isCut) { for (const steps of guest.stops.slice(0, stop)) machine.run({ steps }); }
      const done = isCut ? from : 0;
      return { machine, stop: machine.run({ steps: step - done }) };
    };
    const differs = (step: number) => {
      const a = runTo(engine, step), b = runTo(oracle, step);
      return !agree(a.machine, b.machine, a.stop, b.stop);
    };
    if (!differs(to)) continue;
    let low = from, high = to;
    while (high - low > 1) {
      const middle = low + Math.floor((high - low) / 2);
      if (differs(middle)) high = middle;
      else low = middle;
    }
    const before = low > from || !isCut ? runTo(oracle, low).machine : runTo(oracle, from + 0).machine;
    const cpu = before.scheduler.current ?? before.cpus[0]!;
    const rips = before.cpus.map((one) => one.linearRip);
    const a = runTo(engine, high), b = runTo(oracle, high);
    const mover = b.machine.cpus.find((one, i) => one.linearRip !== rips[i]) ?? b.machine.cpus[cpu.id]!;
    const rip = rips[mover.id]!;
    return {
      ...names,
      step: low,
      steps: 1,
      cpu: mover.id,
      rip: rip.toString(16),
      bytes: bytesAt(before, rip),
      differences: differences(a.machine, b.machine, a.stop, b.stop),
    };
  }
  return {
    ...names,
    step: from,
    steps: to - from,
    cpu: 0,
    rip: "",
    bytes: "",
    differences: ["only in a run that stops as this one did"],
  };
}

function bytesAt(machine: Machine, linear: bigint): string {
  const at = RAM_BASE + Number(linear & 0x1f_ffffn);
  return [...machine.memory.u8.subarray(at, at + 15)].map((byte) => byte.toString(16).padStart(2, "0")).join(
    " ",
  );
}

function differences(a: Machine, b: Machine, stopA: MachineStop, stopB: MachineStop): string[] {
  const found: string[] = [];
  if (stopA.reason !== stopB.reason) found.push(`stop ${stopA.reason} ${stopB.reason}`);
  if (a.instructions !== b.instructions) found.push(`instructions ${a.instructions} ${b.instructions}`);
  if (a.now !== b.now) found.push(`time ${a.now} ${b.now}`);
  a.cpus.forEach((cpu, id) => found.push(...blockDifferences(cpu, b.cpus[id]!)));
  const end = RAM_BASE + a.memory.ramBytes;
  for (let i = RAM_BASE; i < end && found.length < DIFFERENCES_MAX; i++) {
    const x = a.memory.u8[i]!, y = b.memory.u8[i]!;
    if (x !== y) found.push(`ram ${(i - RAM_BASE).toString(16)} ${x.toString(16)} ${y.toString(16)}`);
  }
  return found.slice(0, DIFFERENCES_MAX);
}

function blockDifferences(a: Cpu, b: Cpu): string[] {
  const found: string[] = [];
  for (let offset = 0; offset < BLOCK_FIELDS_END; offset += 4) {
    const x = a.get32(offset) >>> 0, y = b.get32(offset) >>> 0;
    if (x !== y) found.push(`cpu${a.id}+${offset.toString(16)} ${x.toString(16)} ${y.toString(16)}`);
  }
  if (a.rflags !== b.rflags) {
    found.push(`cpu${a.id} rflags ${a.rflags.toString(16)} ${b.rflags.toString(16)}`);
  }
  return found;
}
