/**
 * Looks for vkbench's marks on the serial line: the moments between which its operations are counted.
 *
 * Room: `lab/vkernel/`; imports nothing. The line is watched byte by byte as the bytes leave the kernel, so that a mark is seen in the very
 * step in which it is sent, before the program that wrote it goes on.
 *
 * @module
 */

/** What vkbench says. */
export interface Mark {
  readonly workload: string;
  readonly count: number;
  readonly what: "begin" | "end";
}

/** At the end of a line: the first bytes on the port may be the baud rate's. */
const MARK = /vkbench (\w+) (\d+) (begin|end)$/;

/** Gathers lines. */
export class MarkReader {
  readonly #onMark: (mark: Mark) => void;
  #line = "";
  /** All that was written, line feeds only. */
  text = "";

  /** @param onMark Called with each mark, in the step that sends the end of its line. */
  constructor(onMark: (mark: Mark) => void) {
    this.#onMark = onMark;
  }

  /** Takes a byte that was sent. */
  take(byte: number): void {
    const char = String.fromCharCode(byte);
    if (char === "\r") return;
    this.text += char;
    if (char !== "\n") {
      this.#line += char;
      return;
    }
    const match = MARK.exec(this.#line);
    this.#line = "";
    if (match === null) return;
    this.#onMark({ workload: match[1]!, count: Number(match[2]), what: match[3] as "begin" | "end" });
  }
}
