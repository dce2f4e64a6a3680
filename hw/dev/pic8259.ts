/**
 * The pair of 8259A interrupt controllers of a PC, with the edge/level control registers of the chipset.
 *
 * Room: `hw/dev/`; imports bus.ts by type. Intel 8259A data sheet; ports 20H–21H, A0H–A1H, 4D0H–4D1H.
 *
 * @module
 */
import type { AccessSize, PortDevice } from "../bus.ts";

/** What a snapshot keeps of one chip. */
export type Pic8259State = Readonly<Record<string, number>>;

/** One 8259A. */
class Chip {
  readonly isMaster: boolean;
  /** Inputs that exist only as edges may not be made level-triggered: writable bits of ELCR. */
  readonly elcrMask: number;
  lines = 0;
  irr = 0;
  isr = 0;
  imr = 0;
  elcr = 0;
  base = 0;
  /** Input with the lowest priority. */
  lowest = 7;
  /** Initialisation word expected next: 0 none, 2, 3, 4. */
  expect = 0;
  needsIcw4 = 0;
  single = 0;
  levelMode = 0;
  autoEoi = 0;
  rotateOnAutoEoi = 0;
  specialMask = 0;
  specialFullyNested = 0;
  readIsr = 0;
  poll = 0;

  constructor(isMaster: boolean) {
    this.isMaster = isMaster;
    this.elcrMask = isMaster ? 0xf8 : 0xde;
  }

  reset(): void {
    this.irr =
      this.isr =
      this.imr =
      this.base =
      this.expect =
      this.needsIcw4 =
      this.single =
        0;
    this.levelMode =
      this.autoEoi =
      this.rotateOnAutoEoi =
      this.specialMask =
      this.specialFullyNested =
        0;
    this.readIsr = this.poll = this.elcr = 0;
    this.lowest = 7;
  }

  setLine(line: number, level: boolean): void {
    const bit = 1 << line;
    if (level) {
      if (this.isLevel(bit) || !(this.lines & bit)) this.irr |= bit;
      this.lines |= bit;
    } else {
      // The request must stay up until it is acknowledged, or the acknowledge finds nothing (spurious IRQ 7).
      this.irr &= ~bit;
      this.lines &= ~bit;
    }
  }

  /** Input that the chip would announce now, or −1. */
  request(): number {
    const wanted = this.irr & ~this.imr;
    if (wanted === 0) return -1;
    const request = this.#first(wanted);
    let serving = this.isr;
    // Special mask: an input in service that is masked holds nobody back.
    if (this.specialMask) serving &= ~this.imr;
    // Special fully nested: further requests of the slave get through while one of it is in service.
    if (this.isMaster && this.specialFullyNested) serving &= ~4;
    if (serving !== 0 && this.#rank(this.#first(serving)) <= this.#rank(request)) return -1;
    return request;
  }

  acknowledge(line: number): void {
    const bit = 1 << line;
    if (!this.isLevel(bit)) this.irr &= ~bit;
    if (this.autoEoi) {
      if (this.rotateOnAutoEoi) this.lowest = line;
    } else this.isr |= bit;
  }

  /** First initialisation word. */
  startInit(value: number): void {
    this.levelMode = (value >>> 3) & 1;
    this.single = (value >>> 1) & 1;
    this.needsIcw4 = value & 1;
    this.imr = this.isr = 0;
    this.irr = 0;
    for (let i = 0; i < 8; i++) if (this.lines & this.isLevelMask() & (1 << i)) this.irr |= 1 << i;
    this.lowest = 7;
    this.specialMask = this.readIsr = this.poll = 0;
    this.autoEoi = this.rotateOnAutoEoi = this.specialFullyNested = 0;
    this.expect = 2;
  }

  writeData(value: number): void {
    switch (this.expect) {
      case 2:
        this.base = value & 0xf8;
        this.expect = this.single ? (this.needsIcw4 ? 4 : 0) : 3;
        return;
      case 3:
        // The wiring of the cascade is fixed on a PC: the slave is on input 2.
        this.expect = this.needsIcw4 ? 4 : 0;
        return;
      case 4:
        this.autoEoi = (value >>> 1) & 1;
        this.specialFullyNested = (value >>> 4) & 1;
        this.expect = 0;
        return;
    }
    this.imr = value;
  }

  /** Second operation command word: EOIs and priority rotation. */
  operate(value: number): void {
    const line = value & 7, command = value >>> 5;
    switch (command) {
      case 1: // non-specific EOI
      case 5: { // and rotate
        const serving = this.specialMask ? this.isr & ~this.imr : this.isr;
        if (serving === 0) return;
        const done = this.#first(serving);
        this.isr &= ~(1 << done);
        if (command === 5) this.lowest = done;
        return;
      }
      case 3: // specific EOI
      case 7: // and rotate
        this.isr &= ~(1 << line);
        if (command === 7) this.lowest = line;
        return;
      case 6: // set priority
        this.lowest = line;
        return;
      case 4: // rotate in automatic EOI mode
        this.rotateOnAutoEoi = 1;
        return;
      case 0:
        this.rotateOnAutoEoi = 0;
        return;
    }
  }

  /** Third operation command word: special mask, poll, which register to read. */
  command(value: number): void {
    if (value & 0x40) this.specialMask = (value >>> 5) & 1;
    if (value & 4) this.poll = 1;
    else if (value & 2) this.readIsr = value & 1;
  }

  isLevel(bit: number): boolean {
    return (this.isLevelMask() & bit) !== 0;
  }
  isLevelMask(): number {
    return this.levelMode ? 0xff : this.elcr;
  }

  save(): Pic8259State {
    const { lines, irr, isr, imr, elcr, base, lowest, expect, needsIcw4, single, levelMode, autoEoi } = this;
    const { rotateOnAutoEoi, specialMask, specialFullyNested, readIsr, poll } = this;
    return {
      ...{ lines, irr, isr, imr, elcr, base, lowest, expect, needsIcw4, single, levelMode, autoEoi },
      ...{ rotateOnAutoEoi, specialMask, specialFullyNested, readIsr, poll },
    };
  }
  load(state: Pic8259State): void {
    Object.assign(this, state);
  }

  /** Rank of an input: 0 is the highest priority. */
  #rank(line: number): number {
    return (line - this.lowest - 1) & 7;
  }
  /** The input of highest priority in a nonzero set. */
  #first(set: number): number {
    for (let i = 1; i <= 8; i++) {
      const line = (this.lowest + i) & 7;
      if (set & (1 << line)) return line;
    }
    return -1;
  }
}

/** Both chips, as the sixteen interrupt lines of a PC and one output. */
export class Pic8259 implements PortDevice {
  readonly portWidth = 1;
  readonly #master = new Chip(true);
  readonly #slave = new Chip(false);
  readonly #outputChanged: (level: boolean) => void;
  #output = false;

  /**
   * Makes the device as after power-up.
   *
   * @param outputChanged Follows the INTR output.
   */
  constructor(outputChanged: (level: boolean) => void) {
    this.#outputChanged = outputChanged;
  }

  /** The INTR output. */
  get output(): boolean {
    return this.#output;
  }

  /** Sets the level of line 0 … 15; line 2 is the cascade and has no source. */
  setLine(line: number, level: boolean): void {
    if (line === 2) return;
    if (line < 8) this.#master.setLine(line, level);
    else this.#slave.setLine(line - 8, level);
    this.#update();
  }

  /** Vector that an acknowledge would give now. */
  peek(): number {
    const line = this.#master.request();
    if (line < 0) return this.#master.base + 7;
    if (line !== 2) return this.#master.base + line;
    const second = this.#slave.request();
    return this.#slave.base + (second < 0 ? 7 : second);
  }

  /** The processor's interrupt acknowledge cycle: gives the vector. With nothing to announce it is spurious: IRQ 7. */
  acknowledge(): number {
    const vector = this.peek();
    const line = this.#master.request();
    if (line >= 0) {
      if (line === 2) {
        const second = this.#slave.request();
        if (second >= 0) this.#slave.acknowledge(second);
      }
      this.#master.acknowledge(line);
      this.#update();
    }
    return vector;
  }

  /** Reads a register. */
  readPort(port: number): number {
    if (port === 0x4d0) return this.#master.elcr;
    if (port === 0x4d1) return this.#slave.elcr;
    const chip = port < 0x80 ? this.#master : this.#slave;
    if (chip.poll) {
      chip.poll = 0;
      const line = chip.request();
      if (line < 0) return 0;
      chip.acknowledge(line);
      this.#update();
      return 0x80 | line;
    }
    if (port & 1) return chip.imr;
    return chip.readIsr ? chip.isr : chip.irr;
  }

  /** Writes a register. */
  writePort(port: number, _size: AccessSize, value: number): void {
    if (port === 0x4d0 || port === 0x4d1) {
      const chip = port === 0x4d0 ? this.#master : this.#slave;
      chip.elcr = value & chip.elcrMask;
      chip.irr |= chip.lines & chip.elcr;
    } else {
      const chip = port < 0x80 ? this.#master : this.#slave;
      if (port & 1) chip.writeData(value);
      else if (value & 0x10) chip.startInit(value);
      else if (value & 8) chip.command(value);
      else chip.operate(value);
    }
    this.#update();
  }

  /** Power-up. The input lines keep their levels. */
  reset(): void {
    this.#master.reset();
    this.#slave.reset();
    this.#update();
  }

  /** Leaves the chips as PC firmware does: vectors 08H and 70H, all lines masked, `levelLines` level-triggered. */
  initAsFirmware(levelLines: number): void {
    for (const [chip, base] of [[this.#master, 0x08], [this.#slave, 0x70]] as const) {
      chip.startInit(0x11);
      chip.writeData(base);
      chip.writeData(0);
      chip.writeData(1);
      chip.imr = 0xff;
    }
    this.#master.imr = 0xfb;
    this.#master.elcr = levelLines & 0xf8;
    this.#slave.elcr = (levelLines >>> 8) & 0xde;
    this.#update();
  }

  /** The state as plain data, for a snapshot. */
  save(): readonly Pic8259State[] {
    return [this.#master.save(), this.#slave.save()];
  }
  /** Puts a saved state back. */
  load(state: readonly Pic8259State[]): void {
    this.#master.load(state[0]!);
    this.#slave.load(state[1]!);
    this.#update();
  }

  #update(): void {
    const cascade = this.#slave.request() >= 0;
    // After one slave interrupt is acknowledged the next one must make a fresh edge on the master.
    if (!cascade) this.#master.setLine(2, false);
    else {
      this.#master.irr |= 4;
      this.#master.lines |= 4;
    }
    const output = this.#master.request() >= 0;
    if (output !== this.#output) {
      this.#output = output;
      this.#outputChanged(output);
    }
  }
}
