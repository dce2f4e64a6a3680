/**
 * The 8254 programmable interval timer: three counters, all six modes, latches and read-back; and the system control
 * port 61H, which gates counter 2 and shows its output.
 *
 * Room: `hw/dev/`; imports clock.ts. Intel 8254 data sheet; ports 40H–43H, 61H.
 *
 * The input clock is 1.193182 MHz. Nothing is counted: a counter remembers the input clock at which it was loaded
 * and computes count and output from the present one. Only counter 0, whose output is IRQ 0, arms a timer for
 * its next edge.
 *
 * @module
 */
import type { AccessSize, PortDevice } from "../bus.ts";
import { type Clock, TICKS_PER_SECOND, type Timer } from "../clock.ts";

/** Input clock in Hz. */
export const PIT_HZ = 1_193_182;

/** Whole periods of a clock of `hz` that have passed at `tick`. Exact for all ticks below 2^53. */
export function clocksAt(tick: number, hz: number): number {
  const seconds = Math.floor(tick / TICKS_PER_SECOND);
  return seconds * hz + Math.floor(((tick - seconds * TICKS_PER_SECOND) * hz) / TICKS_PER_SECOND);
}

/** First tick at which {@link clocksAt} gives `clocks`. */
export function tickOfClock(clocks: number, hz: number): number {
  const seconds = Math.floor(clocks / hz);
  return seconds * TICKS_PER_SECOND + Math.ceil(((clocks - seconds * hz) * TICKS_PER_SECOND) / hz);
}

/** What a snapshot keeps of a counter. */
export type CounterState = Readonly<Record<string, number>>;

/** One of the three counters; times are in input clocks. */
class Counter {
  mode = 0;
  bcd = 0;
  /** 1 = low byte, 2 = high byte, 3 = low then high. */
  access = 3;
  /** Count as written, 0 meaning the largest; −1 until a whole count was written. */
  reload = -1;
  /** First byte of a two-byte write waits here; −1 when none does. */
  writeLow = -1;
  /** Next byte of a two-byte read is the high one. */
  readHigh = 0;
  /** Latched count, or −1. */
  latch = -1;
  /** Latched status, or −1. */
  status = -1;
  gate = 1;
  /** Clock of the load that the present count dates from; −1 while none. */
  start = -1;
  /** Number of clocks counted before the gate went low (modes 0 and 4); −1 while it runs. */
  held = -1;
  /** Clock at which the gate went low, for periodic modes: the count stands there. */
  stopped = -1;
  /** Count in force (a new one waits for the end of the period in modes 2 and 3). */
  count = 0;
  /** Count that takes over at the end of the period, or −1. */
  next = -1;
  /** Clock at which `next` was written. */
  written = 0;

  /** Whether the counter is periodic: modes 2 and 3. */
  get periodic(): boolean {
    return this.mode === 2 || this.mode === 3;
  }
  get modulus(): number {
    return this.bcd ? 10_000 : 0x1_0000;
  }

  setControl(value: number): void {
    this.mode = (value >>> 1) & 7;
    if (this.mode > 5) this.mode -= 4;
    this.bcd = value & 1;
    this.access = (value >>> 4) & 3;
    this.reload =
      this.writeLow =
      this.latch =
      this.status =
      this.start =
      this.held =
      this.stopped =
      this.next =
        -1;
    this.readHigh = 0;
    this.count = 0;
  }

  /** A byte of a count was written. */
  write(value: number, now: number): void {
    if (this.access === 1) this.loadCount(value, now);
    else if (this.access === 2) this.loadCount(value << 8, now);
    else if (this.writeLow < 0) {
      this.writeLow = value;
      // In mode 0 the first byte stops the count.
      if (this.mode === 0 && this.start >= 0) {
        this.held = Math.max(0, this.elapsed(now));
        this.start = -1;
      }
    } else {
      const low = this.writeLow;
      this.writeLow = -1;
      this.loadCount(low | (value << 8), now);
    }
  }

  /** A whole count was written. */
  loadCount(value: number, now: number): void {
    let count = value & 0xffff;
    if (this.bcd) count = fromBcd(count);
    if (count === 0) count = this.modulus;
    const first = this.reload < 0;
    this.reload = count;
    this.settle(now);
    switch (this.mode) {
      case 0:
      case 4:
        this.count = count;
        this.held = this.gate ? -1 : 0;
        // The clock pulse that loads the counter does not count it down.
        this.start = now + 1;
        break;
      case 2:
      case 3:
        if (first || this.start < 0) {
          this.count = count;
          this.start = now + 1;
          if (!this.gate) this.stopped = now;
        } else {
          this.next = count;
          this.written = now;
        }
        break;
      default: // 1 and 5 wait for a rising gate
        this.next = count;
    }
  }

  setGate(level: number, now: number): void {
    if (level === this.gate) return;
    this.settle(now);
    this.gate = level;
    if (this.reload < 0) return;
    switch (this.mode) {
      case 0:
      case 4:
        if (level) {
          if (this.held >= 0) this.start = now - this.held;
          this.held = -1;
        } else if (this.start >= 0) this.held = Math.max(0, this.elapsed(now));
        break;
      case 2:
      case 3:
        if (level) {
          this.count = this.next >= 0 ? this.next : this.count;
          this.next = -1;
          this.start = now + 1;
          this.stopped = -1;
        } else this.stopped = now;
        break;
      default:
        if (level) {
          this.count = this.reload;
          this.next = -1;
          this.start = now + 1;
        }
    }
  }

  /** A periodic counter takes a new count over at the end of the period during which it was written. */
  settle(now: number): void {
    if (!this.periodic || this.next < 0 || this.start < 0 || this.stopped >= 0) return;
    const periods = Math.max(0, Math.floor((this.written - this.start) / this.count)) + 1;
    const boundary = this.start + periods * this.count;
    if (now < boundary) return;
    this.start = boundary;
    this.count = this.next;
    this.next = -1;
  }

  /** Clocks counted since the load. */
  elapsed(now: number): number {
    if (this.held >= 0) return this.held;
    if (this.start < 0) return 0;
    return (this.stopped >= 0 ? this.stopped : now) - this.start;
  }

  /** The counting element, as read. */
  value(now: number): number {
    this.settle(now);
    if (this.start < 0 && this.held < 0) return this.reload < 0 ? 0 : this.encode(this.count);
    const passed = Math.max(0, this.elapsed(now));
    if (this.mode === 2) return this.encode(this.count - (passed % this.count));
    if (this.mode === 3) {
      const half = Math.ceil(this.count / 2), phase = passed % this.count;
      const even = this.count & ~1;
      const into = phase < half ? phase : phase - half;
      return this.encode(Math.max(2, even - 2 * into));
    }
    return this.encode(((this.count - passed) % this.modulus + this.modulus) % this.modulus);
  }

  encode(count: number): number {
    const value = count % this.modulus;
    return this.bcd ? toBcd(value) : value;
  }

  /** The OUT pin. */
  out(now: number): number {
    this.settle(now);
    const started = this.start >= 0 || this.held >= 0;
    const passed = started ? this.elapsed(now) : -1;
    switch (this.mode) {
      case 0:
        return started && passed >= this.count ? 1 : 0;
      case 1:
        return started && passed < this.count ? 0 : 1;
      case 2:
        if (!started || this.stopped >= 0 || passed < 0) return 1;
        return passed % this.count === this.count - 1 ? 0 : 1;
      case 3:
        if (!started || this.stopped >= 0 || passed < 0) return 1;
        return passed % this.count < Math.ceil(this.count / 2) ? 1 : 0;
      default: // 4 and 5: a strobe of one clock
        return started && passed === this.count ? 0 : 1;
    }
  }

  /** Clock of the next change of OUT after `now`, or Infinity. */
  nextEdge(now: number): number {
    this.settle(now);
    if (this.start < 0 || this.held >= 0 || this.stopped >= 0) return Infinity;
    const passed = now - this.start;
    switch (this.mode) {
      case 0:
      case 1:
        return passed < this.count ? this.start + this.count : Infinity;
      case 2:
      case 3: {
        const turn = this.mode === 2 ? this.count - 1 : Math.ceil(this.count / 2);
        const period = Math.max(0, Math.floor(passed / this.count)), phase = passed - period * this.count;
        const base = this.start + period * this.count;
        if (phase < turn) return base + turn;
        return base + this.count;
      }
      default:
        if (passed < this.count) return this.start + this.count;
        return passed === this.count ? this.start + this.count + 1 : Infinity;
    }
  }

  /** Status byte of the read-back command: OUT, null count, access, mode, BCD. */
  statusByte(now: number): number {
    const nullCount = this.reload < 0 || this.next >= 0 || (this.start > now && this.held < 0) ? 0x40 : 0;
    return (this.out(now) << 7) | nullCount | (this.access << 4) | (this.mode << 1) | this.bcd;
  }

  read(now: number): number {
    if (this.status >= 0) {
      const status = this.status;
      this.status = -1;
      return status;
    }
    const value = this.latch >= 0 ? this.latch : this.value(now);
    if (this.access === 3 && !this.readHigh) {
      this.readHigh = 1;
      return value & 0xff;
    }
    this.readHigh = 0;
    this.latch = -1;
    return this.access === 1 ? value & 0xff : value >>> 8;
  }

  save(): CounterState {
    const {
      mode,
      bcd,
      access,
      reload,
      writeLow,
      readHigh,
      latch,
      status,
      gate,
      start,
      held,
      stopped,
      count,
    } = this;
    const { next, written } = this;
    return {
      ...{ mode, bcd, access, reload, writeLow, readHigh, latch, status, gate, start, held, stopped, count },
      ...{ next, written },
    };
  }
  restore(state: CounterState): void {
    Object.assign(this, state);
  }
}

/** What a snapshot keeps. */
export interface PitState {
  /** The three counters. */
  readonly counters: readonly CounterState[];
  /** Port 61H. */
  readonly control: number;
}

/** The timer chip with port 61H. */
export class Pit8254 implements PortDevice {
  readonly portWidth = 1;
  readonly #clock: Clock;
  readonly #edge: Timer;
  readonly #outputChanged: (level: boolean) => void;
  readonly #counters = [new Counter(), new Counter(), new Counter()] as const;
  /** Writable bits of port 61H: gate 2, speaker, and two parity-check enables. */
  #control = 0;
  #output = false;

  /**
   * Makes the device as after power-up.
   *
   * @param outputChanged Follows OUT of counter 0.
   */
  constructor(clock: Clock, outputChanged: (level: boolean) => void) {
    this.#clock = clock;
    this.#outputChanged = outputChanged;
    this.#edge = clock.timer("pit0", () => this.#follow());
    this.#counters[2].gate = 0;
  }

  /** Reads a register. */
  readPort(port: number): number {
    const now = this.#now;
    if (port === 0x61) {
      // Bit 4 is the RAM refresh toggle, which changes every 15 microseconds.
      const refresh = Math.floor(this.#clock.now() / 15_000) & 1;
      return this.#control | (refresh << 4) | (this.#counters[2].out(now) << 5);
    }
    if (port === 0x43) return 0xff;
    return this.#counter(port & 3).read(now);
  }

  /** Writes a register. */
  writePort(port: number, _size: AccessSize, value: number): void {
    const now = this.#now;
    if (port === 0x61) {
      this.#control = value & 0x0f;
      this.#counters[2].setGate(value & 1, now);
    } else if (port === 0x43) this.#writeControl(value, now);
    else this.#counter(port & 3).write(value, now);
    this.#follow();
  }

  /** Power-up: registers as after a reset. */
  reset(): void {
    for (const c of this.#counters) c.setControl(0x30);
    this.#control = 0;
    this.#counters[2].gate = 0;
    this.#follow();
  }

  /** Leaves the chip as PC firmware does: counter 0 divides by 65536 (18.2 Hz, mode 3), counter 1 refreshes. */
  initAsFirmware(): void {
    const now = this.#now;
    this.#writeControl(0x36, now);
    this.#counters[0].loadCount(0, now);
    this.#writeControl(0x54, now);
    this.#counters[1].loadCount(18, now);
    this.#follow();
  }

  /** The state as plain data, for a snapshot. */
  save(): PitState {
    return { counters: this.#counters.map((c) => c.save()), control: this.#control };
  }
  /** Puts a saved state back. */
  load(state: PitState): void {
    this.#counters.forEach((c, i) => c.restore(state.counters[i]!));
    this.#control = state.control;
    this.#output = this.#counters[0].out(this.#now) !== 0;
  }

  get #now(): number {
    return clocksAt(this.#clock.now(), PIT_HZ);
  }
  #counter(index: number): Counter {
    return this.#counters[index === 0 ? 0 : index === 1 ? 1 : 2];
  }

  #writeControl(value: number, now: number): void {
    const select = value >>> 6;
    if (select === 3) {
      // Read-back: bits 1 … 3 select counters; bit 5 low latches counts, bit 4 low status.
      for (let i = 0; i < 3; i++) {
        if (!(value & (2 << i))) continue;
        const c = this.#counter(i);
        if (!(value & 0x20) && c.latch < 0) c.latch = c.value(now);
        if (!(value & 0x10) && c.status < 0) c.status = c.statusByte(now);
      }
      return;
    }
    const c = this.#counter(select);
    if ((value & 0x30) === 0) {
      if (c.latch < 0) {
        c.latch = c.value(now);
        c.readHigh = 0;
      }
    } else c.setControl(value);
  }

  /** Passes OUT of counter 0 on and arms the timer for its next edge. */
  #follow(): void {
    const now = this.#now, c = this.#counters[0];
    const output = c.out(now) !== 0;
    if (output !== this.#output) {
      this.#output = output;
      this.#outputChanged(output);
    }
    const edge = c.nextEdge(now);
    this.#edge.set(edge === Infinity ? Infinity : tickOfClock(edge, PIT_HZ));
  }
}

function fromBcd(value: number): number {
  return (value & 0xf) + ((value >>> 4) & 0xf) * 10 + ((value >>> 8) & 0xf) * 100 +
    ((value >>> 12) & 0xf) * 1000;
}
function toBcd(value: number): number {
  return (value % 10) | (Math.floor(value / 10) % 10 << 4) | (Math.floor(value / 100) % 10 << 8) |
    (Math.floor(value / 1000) % 10 << 12);
}
