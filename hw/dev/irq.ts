/**
 * The interrupt lines of the board: each goes to the 8259 pair and to a pin of the I/O APIC. Line 0 (the 8254)
 * is on pin 2, as the MADT's source override says; every other line is on the pin of its number.
 *
 * Room: `hw/dev/`.
 *
 * @module
 */
import type { IoApic } from "./ioapic.ts";
import type { Pic8259 } from "./pic8259.ts";

/** Who sits on which line. */
export const IRQ = {
  pit: 0,
  keyboard: 1,
  serial1: 4,
  rtc: 8,
  sci: 9,
  disk: 11,
} as const;

/** Pin of the I/O APIC that line 0 is wired to. */
export const PIT_PIN = 2;

/** The board's interrupt lines. */
export class IrqLines {
  readonly #pic: Pic8259;
  readonly #ioapic: IoApic;
  /**
   * Joins the two ends of every line.
   *
   * @param pic One end of each line. @param ioapic The other.
   */
  constructor(pic: Pic8259, ioapic: IoApic) {
    this.#pic = pic;
    this.#ioapic = ioapic;
  }
  /** Sets the level of a line. */
  set(line: number, level: boolean): void {
    this.#pic.setLine(line, level);
    this.#ioapic.setPin(line === IRQ.pit ? PIT_PIN : line, level);
  }
}
