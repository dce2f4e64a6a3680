/**
 * The local APIC's timer: one-shot, periodic and TSC-deadline.
 *
 * Room: `hw/dev/`; imports clock.ts by type.
 * SDM vol. 3A, "APIC Timer", "TSC-Deadline Mode".
 *
 * It runs at the core crystal clock that CPUID leaf 15H reports, the same as the TSC: one count, before the
 * divider, is {@link CRYSTAL_TICKS} tick. The current count is not counted but computed from the tick of the next zero.
 *
 * @module
 */
import { type Clock, TICKS_PER_SECOND, type Timer } from "../clock.ts";

/** Frequency of the core crystal clock in Hz; the TSC runs at {@link CRYSTAL_TICKS} times this. */
export const CRYSTAL_HZ: number = TICKS_PER_SECOND;
/** Ticks of the TSC in a period of the core crystal clock: CPUID.15H:EBX / EAX. */
export const CRYSTAL_TICKS = 1;

/** Timer modes, bits 18:17 of the LVT timer register. */
export const TIMER_MODE = { oneShot: 0, periodic: 1, tscDeadline: 2 } as const;

/** What a snapshot keeps. */
export interface ApicTimerState {
  /** Timer mode. */
  readonly mode: number;
  /** Whether the LVT entry is masked. */
  readonly masked: boolean;
  /** Initial count. */
  readonly initial: number;
  /** Divide configuration. */
  readonly divide: number;
  /** Tick of the next zero, or Infinity. */
  readonly expiry: number;
  /** Armed deadline, or 0. */
  readonly deadline: bigint;
}

/** One local APIC's timer. */
export class ApicTimer {
  /** Initial-count register. */
  initial = 0;
  /** Divide configuration register, bits 3, 1, 0. */
  divide = 0;
  readonly #clock: Clock;
  readonly #event: Timer;
  /** Gives the amount by which the processor's TSC is ahead of the clock, modulo 2^64. */
  readonly #tscOffset: () => bigint;
  readonly #expired: () => void;
  #mode = 0;
  #masked = true;
  /** Tick at which the count reaches zero (next), or Infinity when it stands at zero. */
  #expiry = Infinity;
  /** Armed deadline in TSC units, or 0. */
  #deadline = 0n;

  /**
   * Makes a timer at rest.
   *
   * @param expired Called when an interrupt is due (the timer is not masked).
   */
  constructor(clock: Clock, name: string, tscOffset: () => bigint, expired: () => void) {
    this.#clock = clock;
    this.#tscOffset = tscOffset;
    this.#expired = expired;
    this.#event = clock.timer(name, () => this.#fire());
  }

  /** The LVT timer register was written. */
  setMode(mode: number, masked: boolean): void {
    this.#roll();
    if ((mode === TIMER_MODE.tscDeadline) !== (this.#mode === TIMER_MODE.tscDeadline)) {
      this.initial = 0;
      this.#expiry = Infinity;
      this.#deadline = 0n;
    }
    this.#mode = mode;
    this.#masked = masked;
    this.#arm();
  }

  /** The initial-count register was written: starts the count, or stops it with 0. */
  start(initial: number): void {
    if (this.#mode === TIMER_MODE.tscDeadline) return;
    this.initial = initial;
    this.#expiry = initial === 0 ? Infinity : this.#clock.now() + initial * this.#period;
    this.#arm();
  }

  /** The divide configuration register was written; the count goes on from where it stands. */
  setDivide(value: number): void {
    const left = this.current;
    this.divide = value & 0xb;
    if (this.#expiry !== Infinity) this.#expiry = this.#clock.now() + left * this.#period;
    this.#arm();
  }

  /** The current-count register. */
  get current(): number {
    this.#roll();
    if (this.#mode === TIMER_MODE.tscDeadline || this.#expiry === Infinity) return 0;
    return Math.max(0, Math.ceil((this.#expiry - this.#clock.now()) / this.#period));
  }

  /** IA32_TSC_DEADLINE as read. */
  get deadline(): bigint {
    this.#roll();
    return this.#mode === TIMER_MODE.tscDeadline ? this.#deadline : 0n;
  }

  /** IA32_TSC_DEADLINE as written; ignored in the other modes. */
  set deadline(value: bigint) {
    if (this.#mode !== TIMER_MODE.tscDeadline) return;
    this.#deadline = value;
    this.tscChanged();
  }

  /** The processor's TSC jumped: a deadline is now at another tick. */
  tscChanged(): void {
    if (this.#mode !== TIMER_MODE.tscDeadline) return;
    this.#expiry = Infinity;
    if (this.#deadline !== 0n) {
      const now = this.#clock.now();
      const tsc = BigInt.asUintN(64, BigInt(now) + this.#tscOffset());
      // A deadline further away than the clock can count never comes.
      const left = this.#deadline - tsc;
      if (left <= 0n) this.#expiry = now;
      else if (left < 0x10_0000_0000_0000n) this.#expiry = now + Number(left);
    }
    this.#arm();
  }

  /** Power-up, INIT, or the APIC's being disabled. */
  reset(): void {
    this.initial = 0;
    this.divide = 0;
    this.#mode = TIMER_MODE.oneShot;
    this.#masked = true;
    this.#expiry = Infinity;
    this.#deadline = 0n;
    this.#arm();
  }

  /** The state as plain data, for a snapshot. */
  save(): ApicTimerState {
    return {
      mode: this.#mode,
      masked: this.#masked,
      initial: this.initial,
      divide: this.divide,
      expiry: this.#expiry,
      deadline: this.#deadline,
    };
  }
  /** Puts a saved state back; the clock's own load restores the arming. */
  load(state: ApicTimerState): void {
    this.#mode = state.mode;
    this.#masked = state.masked;
    this.initial = state.initial;
    this.divide = state.divide;
    this.#expiry = state.expiry;
    this.#deadline = state.deadline;
  }

  /** Ticks in one count. Divide codes 0 … 7 (bit 3 as bit 2) mean 2, 4, 8, 16, 32, 64, 128, 1. */
  get #period(): number {
    const code = (this.divide & 3) | ((this.divide >>> 1) & 4);
    return CRYSTAL_TICKS * (code === 7 ? 1 : 2 << code);
  }

  /** Accounts for zeros that passed unseen because the timer was masked. */
  #roll(): void {
    const now = this.#clock.now();
    if (this.#expiry > now || this.#event.at !== Infinity) return;
    if (this.#mode === TIMER_MODE.periodic && this.initial !== 0) {
      const round = this.initial * this.#period;
      this.#expiry += Math.ceil((now - this.#expiry + 1) / round) * round;
    } else {
      this.#expiry = Infinity;
      this.#deadline = 0n;
    }
  }

  #arm(): void {
    this.#event.set(this.#masked ? Infinity : this.#expiry);
  }

  #fire(): void {
    if (this.#mode === TIMER_MODE.tscDeadline) {
      // The TSC may have been moved since: then the deadline is still to come.
      this.tscChanged();
      if (this.#expiry > this.#clock.now()) return;
    }
    if (this.#mode === TIMER_MODE.periodic && this.initial !== 0) this.#expiry += this.initial * this.#period;
    else {
      this.#expiry = Infinity;
      this.#deadline = 0n;
    }
    this.#arm();
    this.#expired();
  }
}
