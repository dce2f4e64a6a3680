/**
 * Ports for tests and debugging: QEMU's isa-debug-exit at F4H, the Bochs debug console at E9H, and POST codes at 80H.
 *
 * Room: `hw/dev/`; imports bus.ts by type.
 *
 * @module
 */
import type { AccessSize, PortDevice } from "../bus.ts";

/** First of the four ports of the debug exit. */
export const DEBUG_EXIT_PORT = 0xf4;

/** Ends the run: a write of `value` makes the exit status (value << 1) | 1. */
export class DebugExit implements PortDevice {
  readonly portWidth = 4;
  readonly #exit: (status: number) => void;
  /**
   * Makes the device as after power-up.
   *
   * @param exit Ends the run with this status.
   */
  constructor(exit: (status: number) => void) {
    this.#exit = exit;
  }
  /** Reads a register. */
  readPort(): number {
    return 0;
  }
  /** Writes a register. */
  writePort(_port: number, _size: AccessSize, value: number): void {
    this.#exit(((value << 1) | 1) >>> 0);
  }
}

/** Port E9H: what is written appears on the debug console; reading E9H tells that it is there. Ports 80H–8FH but the used ones swallow POST codes. */
export class DebugConsole implements PortDevice {
  readonly portWidth = 1;
  readonly #output: (byte: number) => void;
  /** The last POST code; port 80H is also what old software writes to wait a microsecond. */
  postCode = 0;
  /**
   * Makes the device as after power-up.
   *
   * @param output Takes what is written to port E9H.
   */
  constructor(output: (byte: number) => void) {
    this.#output = output;
  }
  /** Reads a register. */
  readPort(port: number): number {
    return port === 0xe9 ? 0xe9 : this.postCode;
  }
  /** Writes a register. */
  writePort(port: number, _size: AccessSize, value: number): void {
    if (port === 0xe9) this.#output(value);
    else this.postCode = value;
  }
}
