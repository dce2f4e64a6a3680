/**
 * The console: the first serial port, polled (`sys/dev/serial/sio`, the part that panics can use).
 *
 * Room: `kernel/platform/pc64/`; imports the gate's processor only.
 *
 * @module
 */
import type { Exec, GateCpu } from "../../../hw/gates.ts";

/** First port of COM1. */
export const COM1 = 0x3f8;
/** Line status: transmitter holding register empty. */
const LSR_THRE = 0x20;
/** Line status: a byte has come. */
export const LSR_DATA_READY = 0x01;
/** Bytes that the transmitter's FIFO takes when it is empty. */
const FIFO_BYTES = 16;
/** Polls for a free transmitter before a byte is sent anyway: a kernel loop has a bound. */
const POLLS_MAX = 1000;

/** Bytes that are taken before the port is set up, at most. */
const EARLY_MAX = 65536;

/**
 * Sets the port to 115200 8N1 without interrupts. Gives the bytes that have come already: switching the FIFOs on throws away what the
 * port holds.
 */
export function* cninit(cpu: GateCpu): Exec<number[]> {
  const early: number[] = [];
  while (early.length < EARLY_MAX && (yield* cpu.inb(COM1 + 5)) & LSR_DATA_READY) {
    early.push(yield* cpu.inb(COM1));
  }
  // The FIFOs at once, before the next byte comes.
  const settings = [[2, 0x05], [1, 0x00], [3, 0x80], [0, 0x01], [1, 0x00], [3, 0x03], [4, 0x03]] as const;
  for (const [register, value] of settings) yield* cpu.outb(COM1 + register, value);
  return early;
}

/** Sends bytes as they are. */
export function* cnwrite(cpu: GateCpu, bytes: Uint8Array): Exec<void> {
  for (let done = 0; done < bytes.length; done += FIFO_BYTES) {
    for (let i = 0; i < POLLS_MAX; i++) {
      if ((yield* cpu.inb(COM1 + 5)) & LSR_THRE) break;
    }
    for (const byte of bytes.subarray(done, done + FIFO_BYTES)) yield* cpu.outb(COM1, byte);
  }
}

const encoder = new TextEncoder();

/** Prints a text, lines ending as a terminal wants them. */
export function* kprint(cpu: GateCpu, text: string): Exec<void> {
  yield* cnwrite(cpu, encoder.encode(text.replaceAll("\n", "\r\n")));
}
