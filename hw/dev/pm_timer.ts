/**
 * The ACPI fixed hardware: PM1 event and control blocks with S5 power-off and the power button, and the PM timer.
 *
 * Room: `hw/dev/`; imports clock.ts and pit8254.ts (clock arithmetic). ACPI specification, "ACPI Hardware Specification".
 *
 * @module
 */
import type { AccessSize, PortDevice } from "../bus.ts";
import type { Clock, Timer } from "../clock.ts";
import { clocksAt, tickOfClock } from "./pit8254.ts";

/** Port of PM1_STS (u16) and PM1_EN (u16). */
export const PM1_EVENT_PORT = 0x600;
/** Port of PM1_CNT (u16). */
export const PM1_CONTROL_PORT = 0x604;
/** Port of the PM timer (u32). */
export const PM_TIMER_PORT = 0x608;
/** Frequency of the PM timer in Hz. */
export const PM_TIMER_HZ = 3_579_545;
/** SLP_TYP value of S5 (soft off), as \_S5 in the DSDT says. */
export const SLEEP_TYPE_S5 = 5;

const TMR_STS = 0x0001, PWRBTN_STS = 0x0100, WAK_STS = 0x8000;
const STATUS_BITS = TMR_STS | 0x20 | PWRBTN_STS | 0x200 | 0x400 | WAK_STS;
const ENABLE_BITS = TMR_STS | 0x20 | PWRBTN_STS | 0x200 | 0x400;
const SCI_EN = 1, SLP_EN = 0x2000;
/** The timer's status bit is set each time that the top bit of the count changes. */
const HALF_ROUND = 0x8000_0000;

/** What a snapshot keeps. */
export interface PmState {
  /** Registers, in the order of `save`. */
  readonly numbers: readonly number[];
}

/** The power-management block. */
export class PowerManagement implements PortDevice {
  readonly portWidth = 4;
  readonly #clock: Clock;
  readonly #irq: (level: boolean) => void;
  readonly #powerOff: () => void;
  readonly #carry: Timer;
  #status = 0;
  #enable = 0;
  #control = SCI_EN;
  /** Half rounds of the timer that the status bit knows of. */
  #halves = 0;

  /**
   * Makes the device as after power-up.
   *
   * @param irq Follows the SCI line.
   * @param powerOff Carries out S5.
   */
  constructor(clock: Clock, irq: (level: boolean) => void, powerOff: () => void) {
    this.#clock = clock;
    this.#irq = irq;
    this.#powerOff = powerOff;
    this.#carry = clock.timer("pm-carry", () => this.#update());
  }

  /** The PM timer's count: 32 bits. */
  get count(): number {
    return clocksAt(this.#clock.now(), PM_TIMER_HZ) % 0x1_0000_0000;
  }

  /** Somebody presses the power button. */
  pressPowerButton(): void {
    this.#status |= PWRBTN_STS;
    this.#update();
  }

  /** Reads a register. */
  readPort(port: number, size: AccessSize): number {
    this.#update();
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.#byte(port - PM1_EVENT_PORT + i) << (8 * i);
    return value;
  }

  /** Writes a register. */
  writePort(port: number, size: AccessSize, value: number): void {
    this.#update();
    for (let i = 0; i < size; i++) this.#writeByte(port - PM1_EVENT_PORT + i, (value >>> (8 * i)) & 0xff);
    this.#update();
    if (this.#control & SLP_EN) {
      this.#control &= ~SLP_EN;
      if (((this.#control >>> 10) & 7) === SLEEP_TYPE_S5) this.#powerOff();
    }
  }

  /** Power-up: registers as after a reset. */
  reset(): void {
    this.#status = this.#enable = 0;
    this.#control = SCI_EN;
    this.#update();
  }

  /** The state as plain data, for a snapshot. */
  save(): PmState {
    return { numbers: [this.#status, this.#enable, this.#control, this.#halves] };
  }
  /** Puts a saved state back. */
  load(state: PmState): void {
    const [status = 0, enable = 0, control = 0, halves = 0] = state.numbers;
    this.#status = status;
    this.#enable = enable;
    this.#control = control;
    this.#halves = halves;
  }

  #byte(offset: number): number {
    switch (offset >>> 1) {
      case 0:
        return (this.#status >>> (8 * (offset & 1))) & 0xff;
      case 1:
        return (this.#enable >>> (8 * (offset & 1))) & 0xff;
      case 2:
        return (this.#control >>> (8 * (offset & 1))) & 0xff;
      case 4:
      case 5:
        return (this.count >>> (8 * (offset & 3))) & 0xff;
      default:
        return 0;
    }
  }

  #writeByte(offset: number, value: number): void {
    const shift = 8 * (offset & 1), lane = 0xff << shift, bits = value << shift;
    switch (offset >>> 1) {
      case 0: // write one to clear
        this.#status &= ~(bits & STATUS_BITS);
        return;
      case 1:
        this.#enable = ((this.#enable & ~lane) | bits) & ENABLE_BITS;
        return;
      case 2:
        // Without an SMI command port the machine is always in ACPI mode.
        this.#control = (this.#control & ~lane) | (bits & 0x3c06) | SCI_EN;
        // Both bytes of one write are in before SLP_EN is looked at.
        if (bits & SLP_EN) this.#control |= SLP_EN;
        return;
    }
  }

  #update(): void {
    const half = Math.floor(clocksAt(this.#clock.now(), PM_TIMER_HZ) / HALF_ROUND);
    if (half !== this.#halves) {
      this.#halves = half;
      this.#status |= TMR_STS;
    }
    this.#irq((this.#status & this.#enable) !== 0);
    const wanted = this.#enable & TMR_STS && !(this.#status & TMR_STS);
    this.#carry.set(wanted ? tickOfClock((half + 1) * HALF_ROUND, PM_TIMER_HZ) : Infinity);
  }
}
