/**
 * PCI configuration ports CF8H–CFFH with a host bridge and no other device behind them, and the reset control register at CF9H.
 *
 * Room: `hw/dev/`; imports bus.ts by type. PCI Local Bus specification, "Configuration Mechanism #1".
 *
 * @module
 */
import type { AccessSize, PortDevice } from "../bus.ts";

/** Port of the reset control register; the FADT names it too. */
export const RESET_PORT = 0xcf9;
/** Value that resets the machine there: hard reset, now. */
export const RESET_VALUE = 0x06;

/** CONFIG_ADDRESS: configuration space enabled; bus, device and function; register. */
const ENABLE = 0x8000_0000, FUNCTION = 0x00ff_ff00, REGISTER = 0xfc;
/** The host bridge's header, which is all that it has: vendor and device of the i440FX, class "host bridge". Read-only. */
const HOST_BRIDGE = new Map([[0x00, 0x1237_8086], [0x08, 0x0600_0002]]);

/** The host bridge's ports. */
export class PciPorts implements PortDevice {
  readonly portWidth = 4;
  readonly #reset: () => void;
  #address = 0;
  #resetControl = 0;

  /**
   * Makes the device as after power-up.
   *
   * @param reset Resets the machine.
   */
  constructor(reset: () => void) {
    this.#reset = reset;
  }

  /** Reads a register. */
  readPort(port: number, size: AccessSize): number {
    if (port === 0xcf8 && size === 4) return this.#address;
    if (port === RESET_PORT && size === 1) return this.#resetControl;
    if (port >= 0xcfc) return this.#configuration(port & 3);
    return 0xffff_ffff;
  }

  /** Writes a register. */
  writePort(port: number, size: AccessSize, value: number): void {
    if (port === 0xcf8 && size === 4) this.#address = value & 0x80ff_fffc;
    else if (port === RESET_PORT && size === 1) {
      // The reset happens when bit 2 goes from 0 to 1.
      const rises = (value & ~this.#resetControl & 4) !== 0;
      this.#resetControl = value & 0x0e;
      if (rises) this.#reset();
    }
  }

  /** A read of CONFIG_DATA from this byte on: all ones where no device answers. */
  #configuration(byte: number): number {
    if (!(this.#address & ENABLE)) return 0xffff_ffff;
    if (this.#address & FUNCTION) return 0xffff_ffff;
    return (HOST_BRIDGE.get(this.#address & REGISTER) ?? 0) >>> (8 * byte);
  }

  /** Power-up: registers as after a reset. */
  reset(): void {
    this.#address = this.#resetControl = 0;
  }
  /** The state as plain data, for a snapshot. */
  save(): readonly number[] {
    return [this.#address, this.#resetControl];
  }
  /** Puts a saved state back. */
  load(state: readonly number[]): void {
    this.#address = state[0] ?? 0;
    this.#resetControl = state[1] ?? 0;
  }
}
