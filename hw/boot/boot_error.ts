/**
 * What goes wrong when an image is loaded.
 *
 * Room: leaf of `hw/boot/`; imports nothing.
 *
 * @module
 */

/** An image can't be started. The message says what is wrong with it and what would be right. */
export class BootError extends Error {
  /** Name of the class. */
  override name = "BootError";
  /** What was found. */
  readonly what: string;
  /** What was needed instead. */
  readonly needed: string;
  /**
   * Says what is wrong and what would be right.
   *
   * @param what What was found. @param needed What would be right.
   */
  constructor(what: string, needed: string) {
    super(`Cannot start the image: ${what}; needed: ${needed}`);
    this.what = what;
    this.needed = needed;
  }
}
