/**
 * Runs a machine for somebody at a terminal: in pieces, so that input, Ctrl-C and bounds are looked at in between.
 *
 * Room: `lab/cli/`; imports the machine. With a person at the terminal an idle machine sleeps, and its clock goes no faster than
 * the wall's; otherwise time jumps to the next event.
 *
 * @module
 */
import { TICKS_PER_SECOND } from "../../hw/clock.ts";
import type { EngineKind, Machine, MachineStop } from "../../hw/machine.ts";
import { RFLAGS, S } from "../../hw/state.ts";
import type { Until } from "./machine_options.ts";
import type { Terminal } from "./terminal.ts";
import { setImmediate } from "node:timers";

/** Instructions of a piece, by engine: some 20 to 100 ms. */
const PIECE: Readonly<Record<EngineKind, number>> = {
  interpreter: 10_000_000,
  reference: 30_000,
  compiled: 10_000_000,
  auto: 10_000_000,
};
/** Instructions of a piece while a text is waited for: what follows it is not carried out, whatever the engine. */
const PIECE_WATCHED = 10_000;
/** With a person at the terminal, a piece also ends after so many ticks (10 ms of the machine). */
const INTERACTIVE_TICKS = TICKS_PER_SECOND / 100;
const TICKS_PER_MS = TICKS_PER_SECOND / 1000;
/** So many pieces in a row a guest must have waited before it is told that input has ended: a kernel that measures its clock waits too. */
const IDLE_PIECES = 3;
/** Longest sleep of an idle machine, milliseconds. */
const SLEEP_MAX_MS = 50;

/** How a run ended. */
export type DriveEnd = MachineStop | { readonly reason: "quit" };

/** Bounds and hooks of a run. */
export interface DriveOptions {
  readonly until?: Until | undefined;
  readonly steps?: number | undefined;
  /** What the guest gets whenever it waits after input has ended: a terminal's end of file (Ctrl-D). Default: nothing. */
  readonly endOfInput?: readonly number[];
  /** Whether somebody in the guest reads now: only then the end of input is told. Default: always. */
  readonly readsInput?: () => boolean;
  /** Called when the machine was interrupted from inside; the run goes on after it. */
  readonly onInterrupted?: () => Promise<void>;
}

/** Runs the machine until it stops, a bound is reached, or somebody quits. */
export async function drive(
  machine: Machine,
  terminal: Terminal,
  output: SerialTap,
  options: DriveOptions,
): Promise<DriveEnd> {
  const { until, steps } = options;
  const limit = steps ?? Infinity;
  const lastTick = until?.kind === "tick" ? until.tick : Infinity;
  const endOfInput = options.endOfInput;
  /** How often the guest was told that input has ended: each time it gets twice as long before the next. */
  let ends = 0;
  let idlePieces = 0;
  const piece = until?.kind === "text" ? PIECE_WATCHED : PIECE[machine.engine];
  for (;;) {
    if (terminal.quit) return { reason: "quit" };
    const input = terminal.take();
    if (input.length > 0) machine.serialInput(input);
    const ending = terminal.ended && endOfInput !== undefined;
    const before = { tick: machine.now, instructions: machine.instructions };
    if (before.instructions >= limit && !machine.isFinal) return { reason: "steps" };
    const stop = machine.run({
      steps: Math.min(limit - before.instructions, piece),
      untilTick: Math.min(
        lastTick,
        terminal.interactive || ending ? before.tick + INTERACTIVE_TICKS * 2 ** ends : Infinity,
      ),
    });
    switch (stop.reason) {
      case "steps":
        break;
      case "until":
        if (machine.now >= lastTick) return stop;
        break;
      case "interrupted":
        await options.onInterrupted?.();
        break;
      case "idle":
        if (haltedForGood(machine) || (terminal.ended && !terminal.interactive)) return stop;
        await terminal.wait(Infinity, () => terminal.ended || terminal.pending > 0);
        continue;
      default:
        return stop;
    }
    idlePieces = ending && mostlyIdle(machine, before) ? idlePieces + 1 : 0;
    if (idlePieces >= IDLE_PIECES && (options.readsInput?.() ?? true)) {
      machine.serialInput(endOfInput!);
      idlePieces = 0;
      ends++;
    }
    if (output.found) return { reason: "until" };
    await breathe();
    if (terminal.interactive) await sleepIfIdle(machine, terminal, before);
  }
}

/** Whether the guest waited in the last piece: what it has to read has been read. */
function mostlyIdle(
  machine: Machine,
  before: { readonly tick: number; readonly instructions: number },
): boolean {
  const ticks = machine.now - before.tick;
  return (machine.instructions - before.instructions) / machine.cpus.length < ticks / 10;
}

/** No processor would take an interrupt ever again: all are halted with interrupts off. */
function haltedForGood(machine: Machine): boolean {
  return machine.cpus.every((cpu) => cpu.get32(S.ACTIVITY) !== 0 && (cpu.get32(S.RFLAGS) & RFLAGS.IF) === 0);
}

/** Lets promises of input and signals be fulfilled. */
function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => resolve()));
}

/** The share of the piece in which nothing was carried out is slept away. */
async function sleepIfIdle(
  machine: Machine,
  terminal: Terminal,
  before: { readonly tick: number; readonly instructions: number },
): Promise<void> {
  const ticks = machine.now - before.tick;
  const busy = (machine.instructions - before.instructions) / machine.cpus.length;
  const idle = Math.min((ticks - busy) / TICKS_PER_MS, SLEEP_MAX_MS);
  if (idle >= 1) await terminal.wait(idle);
}

/** Passes the guest's output on and remembers enough of it to look for a text. */
export class SerialTap {
  readonly #to: (bytes: Uint8Array) => void;
  readonly #looked: string | undefined;
  readonly #decoder = new TextDecoder("latin1");
  #tail = "";
  #found = false;
  /** The last byte that the guest sent, or a line feed before the first. */
  last = 10;

  /** @param text The text to look for, if any. */
  constructor(to: (bytes: Uint8Array) => void, text: string | undefined) {
    this.#to = to;
    // The guest's bytes are compared as bytes: what UTF-8 makes of the text, one character a byte.
    this.#looked = text === undefined ? undefined : this.#decoder.decode(new TextEncoder().encode(text));
  }

  /** Takes a piece of output. */
  take(bytes: Uint8Array): void {
    this.#to(bytes);
    this.last = bytes.at(-1) ?? this.last;
    if (this.#looked === undefined || this.#found) return;
    this.#tail += this.#decoder.decode(bytes);
    this.#found = this.#tail.includes(this.#looked);
    this.#tail = this.#tail.slice(-this.#looked.length);
  }

  /** Whether the text has been there. */
  get found(): boolean {
    return this.#found;
  }
}
