/**
 * A 16550A UART: COM1, the console.
 *
 * Room: `hw/dev/`; imports bus.ts by type. National PC16550D data sheet; ports 3F8H–3FFH, IRQ 4.
 *
 * Deviation: a character takes no time. What is written to THR is on the line at once, so the transmitter is always
 * empty; waiting input moves into the receive FIFO as soon as that is empty, so nothing is ever lost to an overrun but
 * in loopback, where the guest itself is the sender; and the character timeout is due at once.
 *
 * @module
 */
import type { AccessSize, PortDevice } from "../bus.ts";

const LCR_DLAB = 0x80, LCR_BREAK = 0x40;
const MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 0x10;
const LSR_DR = 1, LSR_OE = 2, LSR_BI = 0x10, LSR_THRE = 0x20, LSR_TEMT = 0x40, LSR_FIFO_ERROR = 0x80;
const IER_RX = 1, IER_THRE = 2, IER_LINE = 4, IER_MODEM = 8;
const FCR_ENABLE = 1, FCR_CLEAR_RX = 2;
/** Modem inputs of a terminal that is there: CTS, DSR, DCD. */
const MODEM_PRESENT = 0xb0;
const TRIGGER = [1, 4, 8, 14] as const;

/** What a snapshot keeps. */
export interface UartState {
  /** Registers, in the order of `save`. */
  readonly registers: readonly number[];
  /** Receive FIFO. */
  readonly fifo: readonly number[];
  /** Input that has no room yet. */
  readonly waiting: readonly number[];
}

/** One UART. */
export class Uart16550 implements PortDevice {
  readonly portWidth = 1;
  readonly #output: (byte: number) => void;
  readonly #irq: (level: boolean) => void;
  #ier = 0;
  #fcr = 0;
  #lcr = 3;
  #mcr = 0;
  #scratch = 0;
  #divisor = 1;
  /** Sticky bits of LSR: overrun, break. */
  #errors = 0;
  /** Delta bits of MSR. */
  #deltas = 0;
  /** The transmitter-empty interrupt is due. */
  #emptyPending = false;
  #fifo: number[] = [];
  /** Host input that has no room yet. */
  #waiting: number[] = [];

  /**
   * Makes the device as after power-up.
   *
   * @param output Takes each byte that is sent.
   * @param irq Follows the interrupt line; on a PC it is gated by MCR.OUT2.
   */
  constructor(output: (byte: number) => void, irq: (level: boolean) => void) {
    this.#output = output;
    this.#irq = irq;
  }

  /** Bytes arrive on the line. */
  receive(bytes: Iterable<number>): void {
    for (const byte of bytes) this.#waiting.push(byte & 0xff);
    this.#refill();
    this.#update();
  }

  /** Reads a register. */
  readPort(port: number): number {
    const value = this.#read(port & 7);
    this.#update();
    return value;
  }

  /** Writes a register. */
  writePort(port: number, _size: AccessSize, value: number): void {
    this.#write(port & 7, value);
    this.#update();
  }

  /** Power-up: registers as after a reset. */
  reset(): void {
    this.#ier =
      this.#fcr =
      this.#mcr =
      this.#errors =
      this.#deltas =
        0;
    this.#lcr = 3;
    this.#emptyPending = false;
    this.#fifo = [];
    this.#update();
  }

  /** The state as plain data, for a snapshot. */
  save(): UartState {
    return {
      registers: [
        this.#ier,
        this.#fcr,
        this.#lcr,
        this.#mcr,
        this.#scratch,
        this.#divisor,
        this.#errors,
        this.#deltas,
        this.#emptyPending ? 1 : 0,
      ],
      fifo: [...this.#fifo],
      waiting: [...this.#waiting],
    };
  }
  /** Puts a saved state back. */
  load(state: UartState): void {
    const [ier = 0, fcr = 0, lcr = 0, mcr = 0, scratch = 0, divisor = 0, errors = 0, deltas = 0, empty = 0] =
      state.registers;
    this.#ier = ier;
    this.#fcr = fcr;
    this.#lcr = lcr;
    this.#mcr = mcr;
    this.#scratch = scratch;
    this.#divisor = divisor;
    this.#errors = errors;
    this.#deltas = deltas;
    this.#emptyPending = empty !== 0;
    this.#fifo = [...state.fifo];
    this.#waiting = [...state.waiting];
  }

  get #depth(): number {
    return this.#fcr & FCR_ENABLE ? 16 : 1;
  }
  /** Characters in the FIFO that interrupt. */
  get #trigger(): number {
    return this.#fcr & FCR_ENABLE ? TRIGGER[(this.#fcr >>> 6) & 3]! : 1;
  }
  get #loopback(): boolean {
    return (this.#mcr & MCR_LOOP) !== 0;
  }

  /** Upper half of MSR: the modem inputs, or in loopback the modem outputs. */
  get #modem(): number {
    if (!this.#loopback) return MODEM_PRESENT;
    const m = this.#mcr;
    return (m & MCR_RTS ? 0x10 : 0) | (m & MCR_DTR ? 0x20 : 0) | (m & MCR_OUT1 ? 0x40 : 0) |
      (m & MCR_OUT2 ? 0x80 : 0);
  }

  #read(register: number): number {
    switch (register) {
      case 0: {
        if (this.#lcr & LCR_DLAB) return this.#divisor & 0xff;
        const before = this.#fifo.length;
        const byte = this.#fifo.shift() ?? 0;
        // Between two characters, and when the FIFO falls below its trigger, the interrupt line drops: an edge-triggered
        // controller must see the next one.
        if (before <= 1 || before === this.#trigger) this.#irq(false);
        if (before <= 1) this.#refill();
        return byte;
      }
      case 1:
        return this.#lcr & LCR_DLAB ? this.#divisor >>> 8 : this.#ier;
      case 2: {
        const cause = this.#cause();
        if (cause === 0x02) this.#emptyPending = false;
        return cause | (this.#fcr & FCR_ENABLE ? 0xc0 : 0);
      }
      case 3:
        return this.#lcr;
      case 4:
        return this.#mcr;
      case 5: {
        const value = LSR_THRE | LSR_TEMT | this.#errors | (this.#fifo.length > 0 ? LSR_DR : 0) |
          (this.#errors & LSR_BI && this.#fcr & FCR_ENABLE ? LSR_FIFO_ERROR : 0);
        this.#errors = 0;
        return value;
      }
      case 6: {
        const value = this.#modem | this.#deltas;
        this.#deltas = 0;
        return value;
      }
      default:
        return this.#scratch;
    }
  }

  #write(register: number, value: number): void {
    switch (register) {
      case 0:
        if (this.#lcr & LCR_DLAB) this.#divisor = (this.#divisor & 0xff00) | value;
        else this.#transmit(value);
        return;
      case 1:
        if (this.#lcr & LCR_DLAB) this.#divisor = (this.#divisor & 0xff) | (value << 8);
        else {
          // Enabling the empty interrupt of an empty transmitter raises it.
          if (value & ~this.#ier & IER_THRE) this.#emptyPending = true;
          this.#ier = value & 0x0f;
        }
        return;
      case 2:
        if ((value ^ this.#fcr) & FCR_ENABLE || value & FCR_CLEAR_RX) {
          this.#fifo = [];
          this.#errors = 0;
        }
        this.#fcr = value & FCR_ENABLE ? value & 0xc9 : 0;
        this.#refill();
        return;
      case 3:
        if (this.#loopback && value & ~this.#lcr & LCR_BREAK) {
          this.#loopBack(0);
          this.#errors |= LSR_BI;
        }
        this.#lcr = value;
        return;
      case 4:
        this.#setModemControl(value);
        return;
      case 7:
        this.#scratch = value;
        return;
    }
  }

  #transmit(byte: number): void {
    if (this.#loopback) this.#loopBack(byte);
    else this.#output(byte);
    this.#emptyPending = true;
  }

  /** In loopback the transmitter's output is the receiver's input. */
  #loopBack(byte: number): void {
    if (this.#fifo.length < this.#depth) {
      this.#fifo.push(byte);
      return;
    }
    this.#errors |= LSR_OE;
    // Without a FIFO the new character overwrites the old one; with one it is lost.
    if (this.#depth === 1) this.#fifo[0] = byte;
  }

  #setModemControl(value: number): void {
    const before = this.#modem;
    this.#mcr = value & 0x1f;
    const changed = before ^ this.#modem;
    // CTS, DSR, DCD changed either way; RI only when it went away.
    this.#deltas |= (changed >>> 4) & 0x0b;
    if (changed & 0x40 && before & 0x40) this.#deltas |= 4;
    this.#refill();
  }

  #refill(): void {
    if (this.#loopback) return;
    while (this.#waiting.length > 0 && this.#fifo.length < this.#depth) {
      this.#fifo.push(this.#waiting.shift()!);
    }
  }

  /** Interrupt identification: the cause of highest priority, or 1 for none. */
  #cause(): number {
    if (this.#ier & IER_LINE && this.#errors !== 0) return 0x06;
    if (this.#ier & IER_RX && this.#fifo.length > 0) {
      return this.#fifo.length >= this.#trigger ? 0x04 : 0x0c;
    }
    if (this.#ier & IER_THRE && this.#emptyPending) return 0x02;
    if (this.#ier & IER_MODEM && this.#deltas !== 0) return 0x00;
    return 0x01;
  }

  #update(): void {
    this.#irq(this.#cause() !== 1 && (this.#mcr & MCR_OUT2) !== 0);
  }
}
