/**
 * Messages and ports (`sys/kern/lwkt_msgport.c`).
 *
 * Room: `kernel/lwkt/`; imports sleeping.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { PINTERLOCKED, tsleep, tsleepInterlock, wakeup } from "./sleep.ts";

/** `ms_flags`. */
export const MSGF_DONE = 1;
/** On a port's queue. */
export const MSGF_QUEUED = 2;

/** A message (`struct lwkt_msg`); subclasses carry the request. */
export class LwktMsg {
  /** `ms_reply_port`: where it comes back. */
  readonly msReplyPort: LwktPort;
  /** `ms_flags`. */
  msFlags = 0;
  /** `ms_error`: the answer. */
  msError = 0;

  /** @param replyPort Where it comes back. */
  constructor(replyPort: LwktPort) {
    this.msReplyPort = replyPort;
  }
}

/** A port that threads take messages from (`struct lwkt_port`). */
export class LwktPort<M extends LwktMsg = LwktMsg> {
  /** What waiters on it wait for. */
  readonly mpName: string;
  /** Messages that have not been taken, oldest first. */
  readonly mpMsgq: M[] = [];

  /** @param name What waiters wait for. */
  constructor(name: string) {
    this.mpName = name;
  }
}

/** Sends a message (`lwkt_sendmsg`). */
export function lwktSendmsg<M extends LwktMsg>(cx: Cx, port: LwktPort<M>, msg: M): void {
  msg.msFlags = (msg.msFlags & ~MSGF_DONE) | MSGF_QUEUED;
  port.mpMsgq.push(msg);
  wakeup(cx, port);
}

/** Takes the oldest message, if there is one (`lwkt_getport`). */
export function lwktGetport<M extends LwktMsg>(port: LwktPort<M>): M | undefined {
  const msg = port.mpMsgq.shift();
  if (msg !== undefined) msg.msFlags &= ~MSGF_QUEUED;
  return msg;
}

/** Waits for a message (`lwkt_waitport`). */
export function* lwktWaitport<M extends LwktMsg>(cx: Cx, port: LwktPort<M>): Exec<M> {
  for (;;) {
    const msg = lwktGetport(port);
    if (msg !== undefined) return msg;
    tsleepInterlock(cx, port);
    yield* tsleep(cx, port, PINTERLOCKED, port.mpName, 0);
  }
}

/** Answers a message (`lwkt_replymsg`): it goes to its reply port. */
export function lwktReplymsg(cx: Cx, msg: LwktMsg, error: number): void {
  msg.msError = error;
  msg.msFlags |= MSGF_DONE;
  msg.msReplyPort.mpMsgq.push(msg);
  wakeup(cx, msg.msReplyPort);
  wakeup(cx, msg);
}

/** Sends a message and waits for the answer (`lwkt_domsg`). */
export function* lwktDomsg<M extends LwktMsg>(cx: Cx, port: LwktPort<M>, msg: M): Exec<number> {
  lwktSendmsg(cx, port, msg);
  while ((msg.msFlags & MSGF_DONE) === 0) {
    tsleepInterlock(cx, msg);
    if (msg.msFlags & MSGF_DONE) break;
    yield* tsleep(cx, msg, PINTERLOCKED, "waitmsg", 0);
  }
  const { mpMsgq } = msg.msReplyPort;
  const at = mpMsgq.indexOf(msg);
  if (at >= 0) mpMsgq.splice(at, 1);
  return msg.msError;
}
