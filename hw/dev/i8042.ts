/**
 * The 8042 keyboard controller with a keyboard that nobody types on, and port 92H (fast A20 and reset).
 *
 * Room: `hw/dev/`; imports bus.ts by type. Ports 60H, 64H, 92H; IRQ 1.
 *
 * Deviation: the A20 gate is a bit that software can read back; it does not mask address bit 20. Processors since 2013
 * have no A20M# input either.
 *
 * @module
 */
import type { AccessSize, PortDevice } from "../bus.ts";

const STATUS_FULL = 1, STATUS_SYSTEM = 4, STATUS_COMMAND = 8, STATUS_UNLOCKED = 0x10, STATUS_AUX = 0x20;
const CONFIG_IRQ1 = 1, CONFIG_SYSTEM = 4, CONFIG_KEYBOARD_OFF = 0x10, CONFIG_AUX_OFF = 0x20;
const OUTPUT_RUN = 1, OUTPUT_A20 = 2;

/** What a snapshot keeps. */
export interface I8042State {
  /** Registers, in the order of `save`. */
  readonly numbers: readonly number[];
  /** Bytes that wait for the processor. */
  readonly queue: readonly number[];
}

/** The controller. */
export class I8042 implements PortDevice {
  readonly portWidth = 1;
  readonly #irq: (level: boolean) => void;
  readonly #reset: () => void;
  #config = CONFIG_IRQ1 | CONFIG_SYSTEM;
  #outputPort = OUTPUT_RUN | OUTPUT_A20;
  /** Command that waits for a byte at port 60H, or 0. */
  #command = 0;
  /** Keyboard command that waits for its argument, or 0. */
  #keyboardCommand = 0;
  #lastWasCommand = false;
  /** Bytes for the processor; bit 8 marks those of the auxiliary device. */
  #queue: number[] = [];

  /**
   * Makes the device as after power-up.
   *
   * @param irq Follows IRQ 1.
   * @param reset Resets the machine.
   */
  constructor(irq: (level: boolean) => void, reset: () => void) {
    this.#irq = irq;
    this.#reset = reset;
  }

  /** The A20 gate, as software sees it. */
  get a20(): boolean {
    return (this.#outputPort & OUTPUT_A20) !== 0;
  }

  /** Reads a register. */
  readPort(port: number): number {
    if (port === 0x92) return this.#outputPort & OUTPUT_A20;
    if (port === 0x64) {
      const full = this.#queue.length > 0;
      return (full ? STATUS_FULL | (this.#queue[0]! & 0x100 ? STATUS_AUX : 0) : 0) |
        (this.#config & STATUS_SYSTEM) | (this.#lastWasCommand ? STATUS_COMMAND : 0) | STATUS_UNLOCKED;
    }
    const byte = (this.#queue.shift() ?? 0) & 0xff;
    // The line drops between two bytes, so that an edge-triggered controller sees each.
    this.#irq(false);
    this.#update();
    return byte;
  }

  /** Writes a register. */
  writePort(port: number, _size: AccessSize, value: number): void {
    if (port === 0x92) {
      this.#outputPort = (this.#outputPort & ~OUTPUT_A20) | (value & OUTPUT_A20);
      if (value & 1) this.#reset();
    } else if (port === 0x64) {
      this.#lastWasCommand = true;
      this.#control(value);
    } else {
      this.#lastWasCommand = false;
      this.#data(value);
    }
    this.#update();
  }

  /** Power-up: registers as after a reset. */
  reset(): void {
    this.#config = CONFIG_IRQ1 | CONFIG_SYSTEM;
    this.#outputPort = OUTPUT_RUN | OUTPUT_A20;
    this.#command = this.#keyboardCommand = 0;
    this.#lastWasCommand = false;
    this.#queue = [];
    this.#update();
  }

  /** The state as plain data, for a snapshot. */
  save(): I8042State {
    return {
      numbers: [
        this.#config,
        this.#outputPort,
        this.#command,
        this.#keyboardCommand,
        this.#lastWasCommand ? 1 : 0,
      ],
      queue: [...this.#queue],
    };
  }
  /** Puts a saved state back. */
  load(state: I8042State): void {
    const [config = 0, output = 0, command = 0, keyboard = 0, last = 0] = state.numbers;
    this.#config = config;
    this.#outputPort = output;
    this.#command = command;
    this.#keyboardCommand = keyboard;
    this.#lastWasCommand = last !== 0;
    this.#queue = [...state.queue];
  }

  #control(command: number): void {
    this.#command = 0;
    if (command >= 0xf0) {
      // Pulses output lines 0 … 3 whose bit is 0; line 0 is the processor's reset.
      if ((command & 1) === 0) this.#reset();
      return;
    }
    switch (command) {
      case 0x20:
        this.#queue.push(this.#config);
        return;
      case 0xa7:
        this.#config |= CONFIG_AUX_OFF;
        return;
      case 0xa8:
        this.#config &= ~CONFIG_AUX_OFF;
        return;
      case 0xa9: // no auxiliary device: clock line stuck low
        this.#queue.push(0x01);
        return;
      case 0xaa:
        this.#config |= CONFIG_SYSTEM;
        this.#queue.push(0x55);
        return;
      case 0xab:
        this.#queue.push(0x00);
        return;
      case 0xad:
        this.#config |= CONFIG_KEYBOARD_OFF;
        return;
      case 0xae:
        this.#config &= ~CONFIG_KEYBOARD_OFF;
        return;
      case 0xc0:
        this.#queue.push(0x80);
        return;
      case 0xd0:
        this.#queue.push(this.#outputPort | (this.#queue.length > 0 ? 0x10 : 0));
        return;
      case 0xdd:
        this.#outputPort &= ~OUTPUT_A20;
        return;
      case 0xdf:
        this.#outputPort |= OUTPUT_A20;
        return;
      case 0x60:
      case 0xd1:
      case 0xd2:
      case 0xd3:
      case 0xd4:
        this.#command = command;
        return;
    }
  }

  #data(value: number): void {
    const command = this.#command;
    this.#command = 0;
    switch (command) {
      case 0x60:
        this.#config = value & 0x7f;
        return;
      case 0xd1:
        this.#outputPort = value;
        if ((value & OUTPUT_RUN) === 0) this.#reset();
        return;
      case 0xd2:
        this.#queue.push(value);
        return;
      case 0xd3:
        this.#queue.push(0x100 | value);
        return;
      case 0xd4: // nobody answers on the auxiliary port
        return;
    }
    this.#keyboard(value);
  }

  /** A byte for the keyboard itself. */
  #keyboard(value: number): void {
    // Writing to the keyboard enables its clock.
    this.#config &= ~CONFIG_KEYBOARD_OFF;
    if (this.#keyboardCommand !== 0) {
      // F0 with argument 0 asks for the scan code set.
      this.#queue.push(0xfa);
      if (this.#keyboardCommand === 0xf0 && value === 0) this.#queue.push(0x02);
      this.#keyboardCommand = 0;
      return;
    }
    switch (value) {
      case 0xff:
        this.#queue.push(0xfa, 0xaa);
        return;
      case 0xee:
        this.#queue.push(0xee);
        return;
      case 0xf2:
        this.#queue.push(0xfa, 0xab, 0x83);
        return;
      case 0xed:
      case 0xf0:
      case 0xf3:
        this.#keyboardCommand = value;
        this.#queue.push(0xfa);
        return;
      case 0xf4:
      case 0xf5:
      case 0xf6:
        this.#queue.push(0xfa);
        return;
      default:
        this.#queue.push(0xfe);
    }
  }

  #update(): void {
    // A guest that only writes can't make the queue grow without bound.
    if (this.#queue.length > 16) this.#queue.length = 16;
    const full = this.#queue.length > 0 && (this.#queue[0]! & 0x100) === 0;
    this.#irq(full && (this.#config & CONFIG_IRQ1) !== 0);
  }
}
