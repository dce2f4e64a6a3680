/**
 * The host's terminal as the other end of the serial line.
 *
 * Room: `lab/cli/`; imports nothing of the machine. On a TTY input is raw and Ctrl-A is the escape: Ctrl-A X quits, Ctrl-A Ctrl-A
 * sends one Ctrl-A. Otherwise bytes pass as they are, and Ctrl-C quits.
 *
 * @module
 */

const CTRL_A = 1;
/** Milliseconds to wait at the start for the end of piped input, so that a short one arrives as one piece. */
const PIPE_WAIT_MS = 50;

/** Standard input and output of this process. */
export class Terminal {
  readonly interactive: boolean;
  /** Somebody asked to end: Ctrl-A X or Ctrl-C. */
  quit = false;
  /** No more input will come. */
  ended = false;
  #queue: number[] = [];
  #escape = false;
  #wake: (() => void) | undefined;
  /** The other end of standard output is gone. */
  #broken = false;
  readonly #onSignal = () => {
    this.quit = true;
    this.#wake?.();
  };

  constructor() {
    this.interactive = Deno.stdin.isTerminal();
  }

  /** Takes the terminal over. */
  async open(): Promise<void> {
    if (this.interactive) Deno.stdin.setRaw(true);
    Deno.addSignalListener("SIGINT", this.#onSignal);
    if (Deno.build.os !== "windows") Deno.addSignalListener("SIGTERM", this.#onSignal);
    const reading = this.#read();
    if (!this.interactive) await Promise.race([reading, this.wait(PIPE_WAIT_MS, () => this.ended)]);
  }

  /** Gives the terminal back. */
  close(): void {
    Deno.removeSignalListener("SIGINT", this.#onSignal);
    if (Deno.build.os !== "windows") Deno.removeSignalListener("SIGTERM", this.#onSignal);
    if (this.interactive) Deno.stdin.setRaw(false);
  }

  /** Bytes that came in since the last call. */
  take(): number[] {
    return this.#queue.splice(0);
  }

  /** Bytes that wait for {@link take}. */
  get pending(): number {
    return this.#queue.length;
  }

  /** Waits for input, for the end, or for some milliseconds. */
  async wait(milliseconds: number, enough: () => boolean = () => this.#queue.length > 0): Promise<void> {
    const end = Date.now() + milliseconds;
    while (!enough() && !this.quit) {
      const left = end - Date.now();
      if (left <= 0) return;
      let timer: ReturnType<typeof setTimeout> | undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        if (left !== Infinity) timer = setTimeout(resolve, left);
      });
      this.#wake = undefined;
      clearTimeout(timer);
    }
  }

  /** Writes bytes of the guest to standard output. */
  write(bytes: Uint8Array): void {
    if (this.#broken) return;
    try {
      for (let done = 0; done < bytes.length;) done += Deno.stdout.writeSync(bytes.subarray(done));
    } catch (error) {
      if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
      this.#broken = true;
      this.quit = true;
    }
  }

  /** Writes a line of ours to standard output. */
  line(text: string): void {
    this.write(new TextEncoder().encode(this.#cooked(text) + (this.interactive ? "\r\n" : "\n")));
  }

  /** Writes a line of ours to standard error. */
  note(text: string): void {
    Deno.stderr.writeSync(new TextEncoder().encode(this.#cooked(text) + (this.interactive ? "\r\n" : "\n")));
  }

  #cooked(text: string): string {
    return this.interactive ? text.replaceAll("\n", "\r\n") : text;
  }

  async #read(): Promise<void> {
    const buffer = new Uint8Array(4096);
    for (;;) {
      let n: number | null;
      try {
        n = await Deno.stdin.read(buffer);
      } catch {
        n = null; // a closed standard input is one that has ended
      }
      if (n === null) break;
      for (const byte of buffer.subarray(0, n)) this.#key(byte);
      this.#wake?.();
    }
    this.ended = true;
    this.#wake?.();
  }

  #key(byte: number): void {
    if (!this.interactive) {
      this.#queue.push(byte);
      return;
    }
    if (this.#escape) {
      this.#escape = false;
      if (byte === 0x78 || byte === 0x58) this.quit = true;
      else if (byte === CTRL_A) this.#queue.push(CTRL_A);
    } else if (byte === CTRL_A) this.#escape = true;
    else this.#queue.push(byte);
  }
}
