/**
 * The machine's clock and its deterministic queue of future events.
 *
 * Room: `hw/`; imports nothing.
 *
 * The unit is the tick: one retired instruction, nominally ten nanoseconds. Devices do not count: they remember when
 * something started and compute from {@link Clock.now} when asked. Only what must interrupt somebody owns a
 * {@link Timer}. Timers fire in order of time; of one tick's timers the one made first fires first. So the order depends
 * neither on the host nor on when a timer was armed, and a replayed input falls where it fell.
 *
 * @module
 */

/**
 * Ticks in a second: the time-stamp counter runs at 100 MHz. An engine carries out a few hundred million instructions a second,
 * so that a guest that waits by the clock does not wait longer than a person would.
 */
export const TICKS_PER_SECOND = 100_000_000;

/** Something that happens at a tick. */
export class Timer {
  /** Name. */
  readonly name: string;
  /** Tick at which it fires, or Infinity. */
  at: number = Infinity;
  readonly #clock: Clock;
  /** What happens then; gets the tick that it was armed for. */
  readonly fire: (at: number) => void;

  /** Use {@link Clock.timer}. */
  constructor(clock: Clock, name: string, fire: (at: number) => void) {
    this.#clock = clock;
    this.name = name;
    this.fire = fire;
  }
  /** Arms the timer for tick `at` (at once if that is past; never if Infinity). Replaces an earlier arming. */
  set(at: number): void {
    this.#clock.arm(this, at);
  }
  /** Disarms the timer. */
  cancel(): void {
    this.#clock.arm(this, Infinity);
  }
}

/** What a snapshot keeps of the clock. */
export interface ClockState {
  /** Names and ticks of all timers. */
  readonly timers: readonly (readonly [name: string, at: number])[];
}

/** One machine's time and timers. */
export class Clock {
  /** Current tick; set by the machine, exact inside an instruction's procedure. */
  now: () => number = () => 0;
  /** Told when the earliest deadline moves nearer, so that a running slice can be cut. */
  onEarlier: ((at: number) => void) | null = null;
  /** Tick of the earliest armed timer, or Infinity. */
  next: number = Infinity;

  readonly #timers: Timer[] = [];

  /** Makes a timer. Names are unique in a machine; they identify timers in snapshots. */
  timer(name: string, fire: (at: number) => void): Timer {
    if (this.#timers.some((t) => t.name === name)) throw new Error(`Two timers are named "${name}"`);
    const timer = new Timer(this, name, fire);
    this.#timers.push(timer);
    return timer;
  }

  /** Arms or (Infinity) disarms a timer. */
  arm(timer: Timer, at: number): void {
    const was = this.next;
    timer.at = at;
    this.#findNext();
    if (this.next < was) this.onEarlier?.(this.next);
  }

  /** Fires every timer whose tick is at or before `now`, in order; a timer may arm itself again. Returns how many fired, at most `limit`. */
  advance(now: number, limit = 10_000): number {
    let fired = 0;
    while (this.next <= now && fired < limit) {
      const timer = this.#earliest()!;
      const at = timer.at;
      timer.at = Infinity;
      this.#findNext();
      timer.fire(at);
      fired++;
    }
    return fired;
  }

  /** The state as plain data, for a snapshot. */
  save(): ClockState {
    return { timers: this.#timers.map((t) => [t.name, t.at] as const) };
  }

  /** Puts a saved state back. */
  load(state: ClockState): void {
    for (const timer of this.#timers) {
      timer.at = state.timers.find(([name]) => name === timer.name)?.[1] ?? Infinity;
    }
    this.#findNext();
  }

  #earliest(): Timer | null {
    let best: Timer | null = null;
    for (const t of this.#timers) if (t.at < (best?.at ?? Infinity)) best = t;
    return best;
  }

  #findNext(): void {
    let next = Infinity;
    for (const t of this.#timers) if (t.at < next) next = t.at;
    this.next = next;
  }
}
