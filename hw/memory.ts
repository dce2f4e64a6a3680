/**
 * The one linear memory and its typed views (DESIGN 2.1).
 *
 * Room: `hw/`; imports state.ts and address.ts. Layout is in state.ts; who may write what is in the files that do.
 *
 * @module
 */
import {
  CPU_BLOCK_BASE,
  CPU_BLOCK_SIZE,
  CPU_MAX,
  PAGE_FLAGS_BASE,
  PAGE_RAM,
  RAM_BASE,
  RAM_MAX,
} from "./state.ts";

/** The machine's memory: RAM, processor blocks, decoded code. One per machine. */
export class MachineMemory {
  /** What generated code runs on. */
  readonly wasm: WebAssembly.Memory;
  /** Its bytes. */
  readonly buffer: ArrayBuffer;
  /** Bytes. */
  readonly u8: Uint8Array;
  /** 16-bit words. */
  readonly u16: Uint16Array;
  /** Signed 32-bit words. */
  readonly i32: Int32Array;
  /** Unsigned 32-bit words. */
  readonly u32: Uint32Array;
  /** 64-bit words; not for hot paths. */
  readonly u64: BigUint64Array;
  /** Doubles. */
  readonly f64: Float64Array;
  /** Bytes of RAM, from physical address 0 up. */
  readonly ramBytes: number;

  /**
   * Makes memory full of zeros.
   *
   * @param ramBytes Bytes of RAM: a multiple of 64 KiB, at least 1 MiB, at most 3 GiB.
   * @throws {RangeError} when the size does not fit.
   */
  constructor(ramBytes: number) {
    if (!Number.isInteger(ramBytes) || ramBytes < 0x10_0000 || ramBytes % 0x1_0000 !== 0) {
      throw new RangeError(
        `Cannot make RAM of ${ramBytes} bytes: the size must be a multiple of 64 KiB and at least 1 MiB`,
      );
    }
    if (ramBytes > RAM_MAX) {
      throw new RangeError(
        `Cannot make RAM of ${ramBytes} bytes: at most ${RAM_MAX} (3 GiB) fit below the 32-bit device hole`,
      );
    }
    const pages = (RAM_BASE + ramBytes) / 0x1_0000;
    this.wasm = new WebAssembly.Memory({ initial: pages, maximum: pages });
    this.buffer = this.wasm.buffer as ArrayBuffer;
    this.u8 = new Uint8Array(this.buffer);
    this.u16 = new Uint16Array(this.buffer);
    this.i32 = new Int32Array(this.buffer);
    this.u32 = new Uint32Array(this.buffer);
    this.u64 = new BigUint64Array(this.buffer);
    this.f64 = new Float64Array(this.buffer);
    this.ramBytes = ramBytes;
    this.u8.fill(PAGE_RAM, PAGE_FLAGS_BASE, PAGE_FLAGS_BASE + ramBytes / 4096);
  }

  /** Host address of processor `id`'s block. */
  cpuBase(id: number): number {
    if (id < 0 || id >= CPU_MAX) throw new RangeError(`No processor ${id}: a machine has at most ${CPU_MAX}`);
    return CPU_BLOCK_BASE + id * CPU_BLOCK_SIZE;
  }
}
