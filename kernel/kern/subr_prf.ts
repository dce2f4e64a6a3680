/**
 * What the kernel says (`sys/kern/subr_prf.c`): to the console and to the message buffer that `dmesg` shows.
 *
 * Room: `kernel/kern/`; imports the context.
 *
 * {@link kprintf} is a plain function: the text is queued, and goes out over the serial port when the next continuation can wait for it
 * (`consoleDrain` of the platform: at the end of a trap, in the idle thread, before a switch).
 *
 * @module
 */
import type { Cx } from "../context.ts";

/** Most characters that the message buffer keeps (`MSGBUF_SIZE`). */
export const MSGBUF_SIZE = 64 * 1024;

/** The message buffer and what waits for the console. */
export class MessageState {
  /** `msgbufp`: what the kernel has said, the oldest cut off. */
  text = "";
  /** Bytes for the console that have not gone out. */
  readonly pending: Uint8Array[] = [];
  /** Whether messages go to the console too, or only to the buffer (`--quiet`). */
  toConsole = true;
}

const encoder = new TextEncoder();

/** Says something: text with line feeds. */
export function kprintf(cx: Cx, text: string): void {
  const { messages } = cx.k;
  messages.text = (messages.text + text).slice(-MSGBUF_SIZE);
  if (messages.toConsole) messages.pending.push(encoder.encode(text.replaceAll("\n", "\r\n")));
}

/** Says something for the buffer alone (`log`): what would disturb at a prompt. */
export function log(cx: Cx, text: string): void {
  const { messages } = cx.k;
  messages.text = (messages.text + text).slice(-MSGBUF_SIZE);
}
