/**
 * The MC146818 real-time clock and its CMOS memory.
 *
 * Room: `hw/dev/`; imports clock.ts and pit8254.ts (clock arithmetic). Ports 70H (index; bit 7 is the NMI mask) and 71H.
 *
 * The date at power-up is an option of the machine; from there it advances with the machine's clock. Flags PF and UF are
 * not set by events but found out when register C is read; timers are armed only for enabled interrupts.
 *
 * @module
 */
import type { AccessSize, PortDevice } from "../bus.ts";
import { type Clock, TICKS_PER_SECOND, type Timer } from "../clock.ts";
import { clocksAt, tickOfClock } from "./pit8254.ts";

/** Date at power-up unless an option says otherwise: 2013-07-01 00:00:00 UTC, in seconds since 1970. */
export const RTC_DEFAULT_START = 1_372_636_800;

const RTC_HZ = 32_768;
/** An update takes the last 244 microseconds of each second. */
const UPDATE_TICKS = (TICKS_PER_SECOND / 1e6) * 244;

const B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_BINARY = 0x04, B_24H = 0x02;
const C_IRQF = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10;

/** A date and time of day in UTC. */
export interface CivilTime {
  /** Full year. */
  readonly year: number;
  /** 1 … 12. */
  readonly month: number;
  /** 1 … 31. */
  readonly day: number;
  /** 0 … 23. */
  readonly hour: number;
  /** 0 … 59. */
  readonly minute: number;
  /** 0 … 59. */
  readonly second: number;
  /** 1 = Sunday … 7. */
  readonly weekday: number;
}

/** Date and time of `seconds` since 1970-01-01 00:00 UTC, proleptic Gregorian. */
export function civilTime(seconds: number): CivilTime {
  const days = Math.floor(seconds / 86_400), rest = seconds - days * 86_400;
  // Years are counted from March, so that the leap day is the last day of the year.
  const z = days + 719_468, era = Math.floor(z / 146_097), dayOfEra = z - era * 146_097;
  const yearOfEra = Math.floor(
    (dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36_524) -
      Math.floor(dayOfEra / 146_096)) /
      365,
  );
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const marchMonth = Math.floor((5 * dayOfYear + 2) / 153);
  const month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9;
  return {
    year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0),
    month,
    day: dayOfYear - Math.floor((153 * marchMonth + 2) / 5) + 1,
    hour: Math.floor(rest / 3600),
    minute: Math.floor(rest / 60) % 60,
    second: rest % 60,
    weekday: ((days % 7 + 11) % 7) + 1,
  };
}

/** The inverse of {@link civilTime}; fields out of range carry over. */
export function secondsOf(t: Omit<CivilTime, "weekday">): number {
  const y = t.month <= 2 ? t.year - 1 : t.year, era = Math.floor(y / 400), yearOfEra = y - era * 400;
  const dayOfYear = Math.floor((153 * (t.month > 2 ? t.month - 3 : t.month + 9) + 2) / 5) + t.day - 1;
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  return (era * 146_097 + dayOfEra - 719_468) * 86_400 + t.hour * 3600 + t.minute * 60 + t.second;
}

/** What a snapshot keeps. */
export interface RtcState {
  /** CMOS bytes. */
  readonly cmos: readonly number[];
  /** Registers, in the order of `save`. */
  readonly numbers: readonly number[];
}

/** The clock chip. */
export class Rtc implements PortDevice {
  readonly portWidth = 1;
  readonly #clock: Clock;
  readonly #irq: (level: boolean) => void;
  readonly #periodic: Timer;
  readonly #second: Timer;
  readonly #cmos = new Uint8Array(128);
  #index = 0;
  /** The time is `#base` seconds at tick `#baseTick`, and runs from there unless stopped. */
  #base: number;
  #baseTick = 0;
  /** Tick up to which register C knows everything. */
  #seen = 0;

  /**
   * Makes the device as after power-up.
   *
   * @param start Seconds since 1970 at power-up.
   * @param ramBytes For the memory-size registers.
   * @param irq Follows the interrupt output (IRQ 8).
   */
  constructor(clock: Clock, start: number, ramBytes: number, irq: (level: boolean) => void) {
    this.#clock = clock;
    this.#irq = irq;
    this.#base = start;
    this.#periodic = clock.timer("rtc-periodic", () => this.#wake());
    this.#second = clock.timer("rtc-second", () => this.#wake());
    this.#initCmos(ramBytes);
  }

  /** Reads a register. */
  readPort(port: number): number {
    if ((port & 1) === 0) return 0xff;
    const index = this.#index;
    if (index <= 9 && !(index & 1 && index < 6) || index === 0x32) return this.#timeRegister(index);
    switch (index) {
      case 0x0a:
        return (this.#cmos[0x0a]! & 0x7f) | (this.#updating ? 0x80 : 0);
      case 0x0c: {
        this.#catchUp();
        const value = this.#cmos[0x0c]!;
        this.#cmos[0x0c] = 0;
        this.#irq(false);
        this.#arm();
        return value;
      }
      case 0x0d:
        return 0x80; // RAM and time are valid
    }
    return this.#cmos[index]!;
  }

  /** Writes a register. */
  writePort(port: number, _size: AccessSize, value: number): void {
    if ((port & 1) === 0) {
      this.#index = value & 0x7f;
      return;
    }
    const index = this.#index;
    if (index <= 9 && !(index & 1 && index < 6) || index === 0x32) this.#setTime(index, value);
    else if (index === 0x0a) {
      this.#catchUp();
      const running = this.#running;
      const at = this.#time;
      this.#cmos[0x0a] = value & 0x7f;
      if (running !== this.#running) this.#restartAt(at);
    } else if (index === 0x0b) {
      this.#catchUp();
      const at = this.#time;
      const was = this.#cmos[0x0b]!;
      // Setting SET clears UIE.
      this.#cmos[0x0b] = value & B_SET ? value & ~B_UIE : value;
      if ((was ^ value) & B_SET) this.#restartAt(at);
    } else if (index !== 0x0c && index !== 0x0d) this.#cmos[index] = value;
    this.#wake();
  }

  /** The present time in seconds since 1970. */
  get seconds(): number {
    return this.#time;
  }

  /** The state as plain data, for a snapshot. */
  save(): RtcState {
    return { cmos: [...this.#cmos], numbers: [this.#index, this.#base, this.#baseTick, this.#seen] };
  }
  /** Puts a saved state back. */
  load(state: RtcState): void {
    this.#cmos.set(state.cmos);
    const [index = 0, base = 0, baseTick = 0, seen = 0] = state.numbers;
    this.#index = index;
    this.#base = base;
    this.#baseTick = baseTick;
    this.#seen = seen;
  }

  get #running(): boolean {
    return (this.#cmos[0x0b]! & B_SET) === 0 && (this.#cmos[0x0a]! & 0x70) === 0x20;
  }
  get #time(): number {
    if (!this.#running) return this.#base;
    return this.#base + Math.floor((this.#clock.now() - this.#baseTick) / TICKS_PER_SECOND);
  }
  get #updating(): boolean {
    if (!this.#running) return false;
    const into = (this.#clock.now() - this.#baseTick) % TICKS_PER_SECOND;
    return into >= TICKS_PER_SECOND - UPDATE_TICKS;
  }
  #restartAt(seconds: number): void {
    this.#base = seconds;
    this.#baseTick = this.#clock.now();
  }

  // ---- time and date registers

  #timeRegister(index: number): number {
    const t = civilTime(this.#time);
    switch (index) {
      case 0:
        return this.#encode(t.second);
      case 2:
        return this.#encode(t.minute);
      case 4: {
        if (this.#cmos[0x0b]! & B_24H) return this.#encode(t.hour);
        return this.#encode(t.hour % 12 === 0 ? 12 : t.hour % 12) | (t.hour >= 12 ? 0x80 : 0);
      }
      case 6:
        return this.#encode(t.weekday);
      case 7:
        return this.#encode(t.day);
      case 8:
        return this.#encode(t.month);
      case 9:
        return this.#encode(t.year % 100);
      default:
        return this.#encode(Math.floor(t.year / 100));
    }
  }

  #setTime(index: number, value: number): void {
    const t = { ...civilTime(this.#time) };
    const into = this.#running ? (this.#clock.now() - this.#baseTick) % TICKS_PER_SECOND : 0;
    const n = this.#decode(value);
    switch (index) {
      case 0:
        t.second = n;
        break;
      case 2:
        t.minute = n;
        break;
      case 4:
        t.hour = this.#decodeHour(value);
        break;
      case 7:
        t.day = n;
        break;
      case 8:
        t.month = Math.min(12, Math.max(1, n));
        break;
      case 9:
        t.year = t.year - (t.year % 100) + n;
        break;
      case 0x32:
        t.year = n * 100 + (t.year % 100);
        break;
    }
    this.#base = secondsOf(t);
    this.#baseTick = this.#clock.now() - into;
  }

  #encode(value: number): number {
    return this.#cmos[0x0b]! & B_BINARY ? value : (Math.floor(value / 10) << 4) | (value % 10);
  }
  #decode(value: number): number {
    return this.#cmos[0x0b]! & B_BINARY ? value : (value >>> 4) * 10 + (value & 0xf);
  }
  #decodeHour(value: number): number {
    if (this.#cmos[0x0b]! & B_24H) return this.#decode(value);
    return (this.#decode(value & 0x7f) % 12) + (value & 0x80 ? 12 : 0);
  }

  // ---- interrupts

  /** Period of the periodic interrupt in 32.768 kHz clocks, or 0 when off. */
  get #period(): number {
    const rate = this.#cmos[0x0a]! & 0xf;
    if (rate === 0 || (this.#cmos[0x0a]! & 0x70) !== 0x20) return 0;
    return 1 << ((rate <= 2 ? rate + 7 : rate) - 1);
  }

  /** Sets in register C what has happened since the last look. */
  #catchUp(): void {
    const now = this.#clock.now(), from = this.#seen;
    this.#seen = now;
    let flags = 0;
    const period = this.#period;
    if (period !== 0) {
      const before = Math.floor(clocksAt(from, RTC_HZ) / period);
      if (Math.floor(clocksAt(now, RTC_HZ) / period) !== before) flags |= C_PF;
    }
    if (this.#running) {
      const start = Math.max(from, this.#baseTick);
      const first = Math.floor((start - this.#baseTick) / TICKS_PER_SECOND);
      const last = Math.floor((now - this.#baseTick) / TICKS_PER_SECOND);
      if (last > first) {
        flags |= C_UF;
        // A whole day covers every time of day.
        for (let s = Math.max(first + 1, last - 86_400); s <= last; s++) {
          if (this.#isAlarm(this.#base + s)) {
            flags |= C_AF;
            break;
          }
        }
      }
    }
    this.#cmos[0x0c] = this.#cmos[0x0c]! | flags;
    if (this.#cmos[0x0c]! & this.#cmos[0x0b]! & (C_PF | C_AF | C_UF)) {
      this.#cmos[0x0c] = this.#cmos[0x0c]! | C_IRQF;
    }
  }

  /** Whether an update to this second sets the alarm flag. Alarm values C0H … FFH match everything. */
  #isAlarm(seconds: number): boolean {
    const rest = ((seconds % 86_400) + 86_400) % 86_400;
    const [s, m, h] = [this.#cmos[1]!, this.#cmos[3]!, this.#cmos[5]!];
    return ((s & 0xc0) === 0xc0 || this.#decode(s) === rest % 60) &&
      ((m & 0xc0) === 0xc0 || this.#decode(m) === Math.floor(rest / 60) % 60) &&
      ((h & 0xc0) === 0xc0 || this.#decodeHour(h) === Math.floor(rest / 3600));
  }

  #wake(): void {
    this.#catchUp();
    if (this.#cmos[0x0c]! & C_IRQF) this.#irq(true);
    this.#arm();
  }

  #arm(): void {
    const now = this.#clock.now(), enabled = this.#cmos[0x0b]!;
    const period = this.#period;
    // While the output is up nothing more can be told; reading register C arms again.
    const quiet = (this.#cmos[0x0c]! & C_IRQF) === 0;
    const round = period === 0 ? 0 : Math.floor(clocksAt(now, RTC_HZ) / period) + 1;
    this.#periodic.set(
      quiet && enabled & B_PIE && period !== 0 ? tickOfClock(round * period, RTC_HZ) : Infinity,
    );
    const passed = Math.floor((now - this.#baseTick) / TICKS_PER_SECOND);
    this.#second.set(
      quiet && enabled & (B_UIE | B_AIE) && this.#running
        ? this.#baseTick + (passed + 1) * TICKS_PER_SECOND
        : Infinity,
    );
  }

  #initCmos(ramBytes: number): void {
    const cmos = this.#cmos;
    const put16 = (at: number, value: number) => {
      cmos[at] = value;
      cmos[at + 1] = value >>> 8;
    };
    cmos[0x0a] = 0x26; // 32.768 kHz base, 1024 Hz
    cmos[0x0b] = B_24H;
    cmos[0x14] = 0x06; // equipment: coprocessor, mouse port
    put16(0x15, 639); // base memory in KiB, below the EBDA
    const above1M = Math.min(0xffff, Math.max(0, (ramBytes - 0x10_0000) >>> 10));
    put16(0x17, above1M);
    put16(0x30, above1M);
    put16(0x34, Math.max(0, Math.floor((ramBytes - 0x100_0000) / 0x1_0000)));
  }
}
