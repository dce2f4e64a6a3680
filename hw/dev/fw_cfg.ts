/**
 * QEMU's firmware configuration device, I/O-port face: how bare-metal test images written for QEMU learn the number of
 * processors and the size of RAM. Selector at 510H, data at 511H.
 *
 * Room: `hw/dev/`; imports bus.ts by type. QEMU documentation, "QEMU Firmware Configuration (fw_cfg) Device". Left out: the
 * DMA interface (the identification says that there is none) and named files (their directory is empty).
 *
 * @module
 */
import type { AccessSize, PortDevice } from "../bus.ts";

/** Port of the 16-bit selector; data is at the next one. */
export const FW_CFG_PORT = 0x510;
/** Keys of the items that are there. */
export const FW_CFG_KEY = {
  SIGNATURE: 0x00,
  ID: 0x01,
  RAM_SIZE: 0x03,
  NB_CPUS: 0x05,
  MAX_CPUS: 0x0f,
  FILE_DIR: 0x19,
} as const;

/** The device. */
export class FwCfg implements PortDevice {
  readonly portWidth = 2;
  readonly #items: ReadonlyMap<number, readonly number[]>;
  #key = 0;
  #offset = 0;

  /** Makes the device of a machine with so many bytes of RAM and processors. */
  constructor(ramBytes: number, cpus: number) {
    const little = (value: number, bytes: number) =>
      Array.from({ length: bytes }, (_, i) => Math.floor(value / 2 ** (8 * i)) & 0xff);
    this.#items = new Map([
      [FW_CFG_KEY.SIGNATURE, [0x51, 0x45, 0x4d, 0x55]], // "QEMU"
      [FW_CFG_KEY.ID, little(1, 4)],
      [FW_CFG_KEY.RAM_SIZE, little(ramBytes, 8)],
      [FW_CFG_KEY.NB_CPUS, little(cpus, 2)],
      [FW_CFG_KEY.MAX_CPUS, little(cpus, 2)],
      [FW_CFG_KEY.FILE_DIR, little(0, 4)],
    ]);
  }

  /** Reads the next byte of the selected item; 0 behind its end. */
  readPort(port: number, size: AccessSize): number {
    if (port !== FW_CFG_PORT + 1 || size !== 1) return 0xffff_ffff;
    return this.#items.get(this.#key)?.[this.#offset++] ?? 0;
  }
  /** Selects an item. */
  writePort(port: number, size: AccessSize, value: number): void {
    if (port !== FW_CFG_PORT || size !== 2) return;
    this.#key = value & 0xffff;
    this.#offset = 0;
  }
  /** Power-up. */
  reset(): void {
    this.#key = this.#offset = 0;
  }
  /** The state as plain data, for a snapshot. */
  save(): readonly number[] {
    return [this.#key, this.#offset];
  }
  /** Puts a saved state back. */
  load(state: readonly number[]): void {
    this.#key = state[0] ?? 0;
    this.#offset = state[1] ?? 0;
  }
}
