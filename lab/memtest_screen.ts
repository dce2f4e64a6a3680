/**
 * memtest86+'s screen as far as it draws it on a serial line, and what its status lines say.
 *
 * Room: `lab/`; imports nothing.
 *
 * @module
 */

/** What memtest86+ shows. */
export interface MemtestState {
  /** Completed passes. */
  readonly passes: number;
  /** Errors found so far. */
  readonly errors: number;
  /** Progress of the pass in percent. */
  readonly percent: number;
  /** The test that runs, as displayed. */
  readonly test: string;
}

/** The screen. */
export class MemtestScreen {
  readonly #lines: string[] = Array.from({ length: 25 }, () => " ".repeat(80));
  #row = 0;
  #column = 0;
  #escape: string | undefined;

  /** Draws what came over the line. */
  take(bytes: Iterable<number>): void {
    for (const byte of bytes) this.#draw(byte);
  }

  /** The screen as lines. */
  text(): string {
    return this.#lines.map((line) => line.trimEnd()).join("\n");
  }

  /** What the status lines say. */
  state(): MemtestState {
    const text = this.text();
    const number = (pattern: RegExp) => Number(pattern.exec(text)?.[1] ?? 0);
    return {
      passes: number(/Pass:\s+(\d+)/),
      errors: number(/Errors:\s+(\d+)/),
      percent: number(/Pass\s+(\d+)%/),
      test: /#\d+\s+\[[^\]]*\]?/.exec(text)?.[0] ?? "",
    };
  }

  /** Follows the few VT100 sequences that memtest86+ sends: cursor position, clear, attributes. */
  #draw(byte: number): void {
    const character = String.fromCharCode(byte);
    if (this.#escape !== undefined) {
      this.#escape += character;
      if (!/[A-Za-z]/.test(character)) return;
      const [row, column] = this.#escape.slice(1, -1).split(";").map(Number);
      if (character === "H") {
        this.#row = (row || 1) - 1;
        this.#column = (column || 1) - 1;
      } else if (character === "J") this.#lines.fill(" ".repeat(80));
      this.#escape = undefined;
      return;
    }
    if (byte === 27) this.#escape = "";
    else if (byte === 13) this.#column = 0;
    else if (byte === 10) this.#row++;
    else {
      const line = this.#lines[this.#row];
      if (line !== undefined && this.#column < 80) {
        this.#lines[this.#row] = line.slice(0, this.#column) + character + line.slice(this.#column + 1);
      }
      this.#column++;
    }
  }
}
