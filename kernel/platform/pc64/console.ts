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

/** Modem control: the receiver is off the line. */
const MCR_LOOPBACK = 0x13;
/** Bytes that a receiver can hold. */
const EARLY_MAX = 16;

/**
 * Sets the port to 115200 8N1 without interrupts. Gives the bytes that the receiver holds already: switching the FIFOs on throws them away.
 * Meanwhile it is off the line, so that no others come in between.
 */
export function* cninit(cpu: GateCpu): Exec<number[]> {
  yield* cpu.outb(COM1 + 4, MCR_LOOPBACK);
  const early: number[] = [];
  while (early.length < EARLY_MAX && (yield* cpu.inb(COM1 + 5)) & LSR_DATA_READY) {
    early.push(yield* cpu.inb(COM1));
  }
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
