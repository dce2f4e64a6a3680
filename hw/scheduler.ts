/**
 * Who runs, for how long, and what time it is: the deterministic scheduler (DESIGN 2.6).
 *
 * Room: `hw/`; knows the clock, the seeded generator and processors by a small interface.
 *
 * Time passes in rounds. In a round each processor that can run gets one slice of `quantum` instructions, in an order and
 * of a length that the seeded generator draws. The round takes `quantum` ticks in all: the slices share it, one after the
 * other, so that with n slices the clock advances by one tick for n instructions. Thus every processor runs at the full
 * nominal speed over a round, and the clock (and with it the TSC) never runs backwards, whoever looks.
 *
 * Device events fire at exactly their tick: a slice is cut where the next one is due, and when an instruction moves the next
 * one nearer. A processor that halts gives the rest of its slice away but may be woken in it. When all are halted, time jumps
 * to the next event.
 *
 * @module
 */
import type { Clock } from "./clock.ts";
import type { Cpu } from "./cpu.ts";
import type { Random } from "./random.ts";
import { ATTENTION_MACHINE, S } from "./state.ts";

/** A processor as the scheduler sees it; `Processor` of engine/run.ts. */
export interface Runner {
  /** The processor. */
  readonly cpu: Cpu;
  /** False while halted with nothing pending that would wake it. */
  readonly runnable: boolean;
  /** Runs up to `budget` ticks; returns how many. Stops early on HLT, shutdown and ATTENTION_MACHINE. */
  run(budget: number): number;
  /** Ticks so far in the call of `run` that is going on. */
  elapsed(): number;
}

/** Why {@link Scheduler.run} came back. */
export type SchedulerStop = "steps" | "until" | "idle" | "shutdown" | "requested";

/** Bounds of one call. */
export interface RunBounds {
  /** Most instructions, all processors together. */
  readonly steps?: number;
  /** Tick not to pass. */
  readonly untilTick?: number;
  /** Asked between slices; true stops. */
  readonly until?: () => boolean;
}

/** Ticks in a slice of a machine with one processor. */
const SINGLE_QUANTUM = 100_000;
/** Bounds of the quantum of a machine with several processors, unless its builder gives others. */
const QUANTUM: readonly [number, number] = [500, 8_000];
/** Events in a row that wake nobody, after which a halted machine counts as idle for good. */
const FUTILE_EVENTS_MAX = 100_000;
const SHUTDOWN = 2;

/** What a snapshot keeps. */
export interface SchedulerState {
  /** Tick at which the round began. */
  readonly start: number;
  /** Indices of the processors of the round. */
  readonly order: readonly number[];
  /** Which of them is at its turn. */
  readonly position: number;
  /** Instructions of its slice that are done. */
  readonly used: number;
  /** Instructions in a slice. */
  readonly quantum: number;
  /** Instructions so far. */
  readonly instructions: number;
}

/** The scheduler of one machine. */
export class Scheduler {
  /** Instructions carried out by all processors. */
  instructions = 0;
  /** Called before a processor's slice begins. */
  onSlice: ((cpu: Cpu) => void) | null = null;

  readonly #clock: Clock;
  readonly #runners: readonly Runner[];
  readonly #random: Random;
  readonly #quanta: readonly [number, number];
  /** Tick at which the round began. */
  #start = 0;
  /** Indices of the round's runners; empty between rounds. */
  #order: number[] = [];
  #position = 0;
  /** Instructions of the present slice that are done. */
  #used = 0;
  #quantum = 0;
  #running: Runner | null = null;
  /** Tick at which the present call of `run` would end. */
  #sliceEnd = 0;
  #stopRequested = false;
  #futileEvents = 0;

  /**
   * Takes over the clock and the time of the runners' processors.
   *
   * @param quanta Least and most instructions in a slice, where there are several processors.
   */
  constructor(
    clock: Clock,
    runners: readonly Runner[],
    random: Random,
    quanta: readonly [number, number] = QUANTUM,
  ) {
    this.#quanta = quanta;
    this.#clock = clock;
    this.#runners = runners;
    this.#random = random;
    clock.now = () => this.now();
    clock.onEarlier = (at) => {
      if (this.#running !== null && at < this.#sliceEnd) this.#attract(this.#running.cpu);
    };
    for (const runner of runners) runner.cpu.now = clock.now;
  }

  /** The current tick, exact inside an instruction's procedure. */
  now(): number {
    const n = this.#order.length;
    if (n === 0) return this.#start;
    const used = this.#used + (this.#running?.elapsed() ?? 0);
    return this.#start + Math.floor((this.#position * this.#quantum + used) / n);
  }

  /** The processor whose instruction is being carried out, or null. */
  get current(): Cpu | null {
    return this.#running?.cpu ?? null;
  }

  /** Makes {@link run} return before the next instruction. */
  requestStop(): void {
    this.#stopRequested = true;
    if (this.#running !== null) this.#attract(this.#running.cpu);
  }

  /** Runs until something stops it. A later call goes on as if there had been no stop. */
  run(bounds: RunBounds = {}): SchedulerStop {
    const last = this.instructions + (bounds.steps ?? Infinity);
    const untilTick = bounds.untilTick ?? Infinity;
    this.#futileEvents = 0;
    for (;;) {
      this.#clock.advance(this.now());
      if (this.#stopRequested) {
        this.#stopRequested = false;
        return "requested";
      }
      if (
        this.#runners.some((r) =>
          r.cpu.get32(S.ACTIVITY) === SHUTDOWN && !r.runnable && r.cpu.get32(S.VMX_MODE) !== 2
        )
      ) return "shutdown";
      if (this.instructions >= last) return "steps";
      if (this.now() >= untilTick || bounds.until?.()) return "until";
      if (this.#order.length === 0) {
        if (this.#beginRound()) continue;
        if (this.#clock.next === Infinity || this.#futileEvents > FUTILE_EVENTS_MAX) return "idle";
        this.#futileEvents++;
        this.#start = Math.min(Math.max(this.#clock.next, this.#start), untilTick);
        continue;
      }
      this.#slice(last - this.instructions, untilTick);
    }
  }

  /** The state as plain data, for a snapshot. */
  save(): SchedulerState {
    return {
      start: this.#start,
      order: [...this.#order],
      position: this.#position,
      used: this.#used,
      quantum: this.#quantum,
      instructions: this.instructions,
    };
  }
  /** Puts a saved state back. */
  load(state: SchedulerState): void {
    this.#start = state.start;
    this.#order = [...state.order];
    this.#position = state.position;
    this.#used = state.used;
    this.#quantum = state.quantum;
    this.instructions = state.instructions;
    this.#futileEvents = 0;
  }

  /** Draws a round; false if nobody can run. */
  #beginRound(): boolean {
    const order: number[] = [];
    this.#runners.forEach((runner, i) => {
      if (runner.runnable) order.push(i);
    });
    if (order.length === 0) return false;
    if (this.#runners.length === 1) this.#quantum = SINGLE_QUANTUM;
    else {
      this.#quantum = this.#random.between(...this.#quanta);
      this.#random.shuffle(order);
    }
    this.#order = order;
    this.#position = 0;
    this.#used = 0;
    return true;
  }

  /** Instructions of the present slice after which the clock shows at least `tick`. */
  #usedAt(tick: number): number {
    return this.#order.length * (tick - this.#start) - this.#position * this.#quantum;
  }

  /** Carries the present slice on: one call of its runner, or a jump. */
  #slice(stepsLeft: number, untilTick: number): void {
    const runner = this.#runners[this.#order[this.#position]!]!;
    const cut = Math.min(this.#clock.next, untilTick);
    const usedAtCut = cut === Infinity ? Infinity : this.#usedAt(cut);
    if (!runner.runnable || this.#used >= this.#quantum) {
      // Halted: the slice goes on to the next event in it, which may wake this processor. The last one ends the round.
      if (this.#order.length === 1) this.#endRound(this.#used);
      else if (usedAtCut < this.#quantum) this.#used = Math.max(this.#used, usedAtCut);
      else this.#endSlice();
      return;
    }
    const budget = Math.min(this.#quantum - this.#used, stepsLeft, usedAtCut - this.#used);
    const { cpu } = runner;
    cpu.set32(S.ATTENTION, cpu.get32(S.ATTENTION) & ~ATTENTION_MACHINE);
    this.onSlice?.(cpu);
    this.#sliceEnd = this.#start +
      Math.floor((this.#position * this.#quantum + this.#used + budget) / this.#order.length);
    this.#running = runner;
    let done = 0;
    try {
      done = runner.run(budget);
    } finally {
      this.#running = null;
    }
    this.#used += done;
    this.instructions += done;
    if (done > 0) this.#futileEvents = 0;
    // A runner that did nothing though it could must not stop the clock.
    else if (runner.runnable && !(cpu.get32(S.ATTENTION) & ATTENTION_MACHINE)) this.#used++;
  }

  #endSlice(): void {
    this.#used = 0;
    if (++this.#position === this.#order.length) this.#endRound(this.#quantum);
  }

  #endRound(ticks: number): void {
    this.#start += ticks;
    this.#order = [];
    this.#position = 0;
    this.#used = 0;
  }

  #attract(cpu: Cpu): void {
    cpu.set32(S.ATTENTION, cpu.get32(S.ATTENTION) | ATTENTION_MACHINE);
  }
}
