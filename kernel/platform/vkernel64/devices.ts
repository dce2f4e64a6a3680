/**
 * Devices of a vkernel: the console on the host's standard input and output, and handlers of the interrupts that cothreads raise.
 *
 * Room: `kernel/platform/vkernel64/`; imports the host's calls.
 *
 * @module
 */
import { gva } from "../../../hw/address.ts";
import { type Exec, type GateCpu, NOTHING } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import { ERRNO } from "../../kern/errno.ts";
import { host, SYS } from "./host.ts";
import { IO_BYTES } from "./vmparam.ts";

/** An interrupt handler. */
export interface HostIntr {
  readonly irq: number;
  readonly fn: (cx: Cx) => void | Exec<void>;
}

/** Who has handlers. */
export interface IntrHost {
  /** Interrupt handlers. */
  readonly intr: readonly HostIntr[];
  /** Interrupt requests whose devices want to be looked at. */
  readonly irqs: Set<number>;
}

/** Asks the handlers of every device that has something. */
export function* runHandlers(cx: Cx, platform: IntrHost): Exec<void> {
  for (const irq of [...platform.irqs]) {
    platform.irqs.delete(irq);
    for (const handler of platform.intr) {
      if (handler.irq !== irq) continue;
      const running = handler.fn(cx);
      if (running !== undefined) yield* running;
    }
  }
}

/** The console. */
export class HostConsole {
  /** Bytes that were typed and that nobody has taken yet. */
  readonly typed: number[] = [];
  readonly #tty: boolean;
  readonly #io: (u: GateCpu) => bigint;
  /** Bytes are going out: another continuation only adds to the queue. */
  #draining = false;
  #input: ((cx: Cx, byte: number) => void) | undefined;
  #inputFull: () => boolean = () => false;

  /**
   * Made with its platform.
   *
   * @param tty Standard output is a terminal of the host.
   * @param io Bytes for the host calls of the processor that runs.
   */
  constructor(tty: boolean, io: (u: GateCpu) => bigint) {
    this.#tty = tty;
    this.#io = io;
  }

  /** Sends what waits. */
  drain(cx: Cx): Exec<void> {
    return this.#draining || cx.k.messages.pending.length === 0 ? NOTHING : this.#drain(cx);
  }
  *#drain(cx: Cx): Exec<void> {
    const { pending } = cx.k.messages;
    this.#draining = true;
    for (let bytes = pending.shift(); bytes !== undefined; bytes = pending.shift()) {
      yield* this.write(cx.cpu, this.#io(cx.cpu), bytes);
    }
    this.#draining = false;
  }
  /** Writes to the vkernel's standard output; what it does not take is lost, as on a line that nobody listens to. */
  *write(u: GateCpu, io: bigint, bytes: Uint8Array): Exec<void> {
    // A terminal in raw mode wants carriage returns; a file or a pipe does not.
    const out = this.#tty ? bytes : bytes.filter((byte) => byte !== 0x0d);
    for (let at = 0; at < out.length;) {
      const piece = out.subarray(at, at + IO_BYTES);
      yield* u.storeBytes(gva(io), piece);
      const { errno, value } = yield* host(u, SYS.write, 1, io, piece.length);
      if (errno === ERRNO.EINTR) continue;
      if (errno !== 0) return;
      at += Number(value);
    }
  }
  /** Queues and sends bytes. */
  *cnWrite(cx: Cx, bytes: Uint8Array): Exec<void> {
    cx.k.messages.pending.push(bytes);
    while (this.#draining && cx.k.messages.pending.length > 0) yield;
    yield* this.drain(cx);
  }
  /** Who takes bytes typed; while `full` says so they stay here. */
  registerInput(fn: (cx: Cx, byte: number) => void, full: () => boolean = () => false): void {
    this.#input = fn;
    this.#inputFull = full;
  }
  /** Hands over what was typed, as far as there is room. */
  takeInput(cx: Cx): void {
    while (this.typed.length > 0 && this.#input !== undefined && !this.#inputFull()) {
      this.#input(cx, this.typed.shift()!);
    }
  }
}
