/**
 * The I/O APIC: 24 pins, each with a redirection entry.
 *
 * Room: `hw/dev/`; imports apic_bus.ts and bus.ts. Intel 82093AA data sheet, version 20H with an EOI register.
 *
 * A pin's level here means "asserted": the polarity bit is kept but plays no part, for every source is wired as the ACPI
 * tables say.
 *
 * @module
 */
import type { AccessSize, MmioDevice } from "../bus.ts";
import { type ApicBus, DELIVERY, type EoiListener } from "./apic_bus.ts";

/** Physical address of the register page. */
export const IOAPIC_BASE = 0xfec0_0000;
/** Number of pins. */
export const IOAPIC_PINS = 24;

const REMOTE_IRR = 0x4000, LEVEL = 0x8000, MASKED = 0x1_0000, LOGICAL = 0x800;
/** Writable bits of the low half: vector, delivery, destination mode, polarity, trigger, mask. */
const WRITABLE = 0x0001_afff;

/** What a snapshot keeps. */
export interface IoApicState {
  /** APIC ID. */
  readonly id: number;
  /** Register select. */
  readonly select: number;
  /** Low halves of the redirection entries. */
  readonly low: readonly number[];
  /** High halves of the redirection entries. */
  readonly high: readonly number[];
  /** Levels of the pins. */
  readonly pins: readonly boolean[];
}

/** The machine's I/O APIC. */
export class IoApic implements MmioDevice, EoiListener {
  readonly #bus: ApicBus;
  #id = 0;
  #select = 0;
  readonly #low = new Int32Array(IOAPIC_PINS).fill(MASKED);
  readonly #high = new Int32Array(IOAPIC_PINS);
  readonly #pins: boolean[] = new Array<boolean>(IOAPIC_PINS).fill(false);

  /** Puts the I/O APIC on the bus. */
  constructor(bus: ApicBus) {
    this.#bus = bus;
    bus.eoiListeners.push(this);
  }

  /** Sets the level of a pin. */
  setPin(pin: number, level: boolean): void {
    const rising = level && !this.#pins[pin];
    this.#pins[pin] = level;
    const entry = this.#low[pin]!;
    if (entry & LEVEL) {
      if (level) this.#deliver(pin);
    } else if (rising) this.#deliver(pin);
  }

  /** EOI of a level-triggered vector: its pins may interrupt again, and do if they are still asserted. */
  endOfInterrupt(vector: number): void {
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      const entry = this.#low[pin]!;
      if ((entry & 0xff) !== vector || !(entry & LEVEL) || !(entry & REMOTE_IRR)) continue;
      this.#low[pin] = entry & ~REMOTE_IRR;
      if (this.#pins[pin]) this.#deliver(pin);
    }
  }

  readMmio(offset: number, size: AccessSize): number {
    const register = offset & 0xff & ~3;
    const value = register === 0 ? this.#select : register === 0x10 ? this.#readRegister() : 0;
    return size === 4 ? value : value >>> ((offset & 3) * 8);
  }

  /** Writes a register. */
  writeMmio(offset: number, size: AccessSize, value: number): void {
    switch (offset & 0xff) {
      case 0:
        this.#select = value & 0xff;
        return;
      case 0x10:
        if (size === 4) this.#writeRegister(value);
        return;
      case 0x40:
        this.endOfInterrupt(value & 0xff);
        return;
    }
  }

  /** Power-up: registers as after a reset. */
  reset(): void {
    this.#id = this.#select = 0;
    this.#low.fill(MASKED);
    this.#high.fill(0);
  }

  /** The state as plain data, for a snapshot. */
  save(): IoApicState {
    return {
      id: this.#id,
      select: this.#select,
      low: [...this.#low],
      high: [...this.#high],
      pins: [...this.#pins],
    };
  }
  /** Puts a saved state back. */
  load(state: IoApicState): void {
    this.#id = state.id;
    this.#select = state.select;
    this.#low.set(state.low);
    this.#high.set(state.high);
    for (let pin = 0; pin < IOAPIC_PINS; pin++) this.#pins[pin] = state.pins[pin] ?? false;
  }

  #readRegister(): number {
    const index = this.#select;
    if (index === 0 || index === 2) return this.#id << 24;
    if (index === 1) return 0x20 | ((IOAPIC_PINS - 1) << 16);
    const pin = (index - 0x10) >> 1;
    if (pin < 0 || pin >= IOAPIC_PINS) return 0;
    return index & 1 ? this.#high[pin]! : this.#low[pin]!;
  }

  #writeRegister(value: number): void {
    const index = this.#select;
    if (index === 0) this.#id = (value >>> 24) & 0xf;
    const pin = (index - 0x10) >> 1;
    if (pin < 0 || pin >= IOAPIC_PINS) return;
    if (index & 1) {
      this.#high[pin] = value & 0xff00_0000;
      return;
    }
    const was = this.#low[pin]!;
    let entry = value & WRITABLE;
    // Remote IRR belongs to level-triggered entries only.
    if (entry & LEVEL) entry |= was & REMOTE_IRR;
    this.#low[pin] = entry;
    if ((entry & LEVEL) && this.#pins[pin]) this.#deliver(pin);
  }

  #deliver(pin: number): void {
    const entry = this.#low[pin]!;
    if (entry & MASKED) return;
    const level = (entry & LEVEL) !== 0;
    if (level && (entry & REMOTE_IRR)) return;
    const delivery = (entry >>> 8) & 7;
    if (delivery === DELIVERY.extInt) {
      // The 8259's own acknowledge cycle gives the vector; only the pins of the local APICs carry it here.
      return;
    }
    const fixed = delivery === DELIVERY.fixed || delivery === DELIVERY.lowestPriority;
    if (level && fixed) this.#low[pin] = entry | REMOTE_IRR;
    this.#bus.send({
      vector: entry & 0xff,
      delivery,
      level: level && fixed,
      logical: (entry & LOGICAL) !== 0,
      destination: this.#high[pin]! >>> 24,
      wide: false,
    });
  }
}
