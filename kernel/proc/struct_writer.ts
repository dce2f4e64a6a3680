/**
 * Writes C structures field by field, aligned as the amd64 ABI has it.
 *
 * Room: leaf of `kernel/proc/`; imports nothing.
 *
 * @module
 */

/** A structure being written. */
export class StructWriter {
  #bytes = new Uint8Array(1024);
  #view = new DataView(this.#bytes.buffer);
  #at = 0;

  #room(size: number, align: number): number {
    const at = Math.ceil(this.#at / align) * align;
    while (at + size > this.#bytes.length) {
      const bytes = new Uint8Array(this.#bytes.length * 2);
      bytes.set(this.#bytes);
      this.#bytes = bytes;
      this.#view = new DataView(bytes.buffer);
    }
    this.#at = at + size;
    return at;
  }
  /** A 16-bit field. */
  u16(value: number): this {
    this.#view.setUint16(this.#room(2, 2), value, true);
    return this;
  }
  /** A 32-bit field, signed or not; more than 32 bits are cut off. */
  u32(value: number): this {
    this.#view.setUint32(this.#room(4, 4), value % 0x1_0000_0000, true);
    return this;
  }
  /** A 64-bit field. */
  u64(value: number | bigint): this {
    const word = typeof value === "bigint" ? value : BigInt(Math.trunc(value));
    this.#view.setBigUint64(this.#room(8, 8), BigInt.asUintN(64, word), true);
    return this;
  }
  /** Text in a field of `size` bytes, cut and ended with a zero. */
  text(value: string, size: number): this {
    const at = this.#room(size, 1);
    this.#bytes.set(new TextEncoder().encode(value).subarray(0, size - 1), at);
    return this;
  }
  /** Bytes at an alignment. */
  bytes(value: Uint8Array, align: number): this {
    const at = this.#room(value.length, align);
    this.#bytes.set(value, at);
    return this;
  }
  /** The structure, its size rounded up to `align`. */
  finish(align = 8): Uint8Array<ArrayBuffer> {
    this.#room(0, align);
    return this.#bytes.slice(0, this.#at);
  }
}
