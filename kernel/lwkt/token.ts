/**
 * Tokens (`sys/kern/lwkt_token.c`): soft locks that serialise threads only while they run.
 *
 * Room: `kernel/lwkt/`; imports thread.ts for switching.
 *
 * A thread's tokens are released when it switches out and taken again, all or none, before it runs. So holding one does not protect
 * over a sleep, and everything that it guards is looked at afresh after any call that may block. They may be taken recursively, shared
 * or exclusively, and are released in reverse order.
 *
 * @module
 */
import { type Exec, NOTHING } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert, panic } from "../kern/panic.ts";
import { lwktWaitTokens } from "./thread.ts";
import { dropRef, LwktToken, type LwktTokref, tryRef } from "./tokref.ts";

export { LwktToken, type LwktTokref };

/** On one processor a token that is free is taken without any ado. */
function get(cx: Cx, ref: LwktTokref): Exec<void> {
  const td = cx.td;
  if (cx.k.ncpus > 1 || !tryRef(td, ref)) return race(cx, ref);
  td.tdToks.push(ref);
  return NOTHING;
}

function* race(cx: Cx, ref: LwktTokref): Exec<void> {
  yield* cx.racePoint();
  const td = cx.td;
  if (tryRef(td, ref)) {
    td.tdToks.push(ref);
    return;
  }
  if (!ref.shared && td.tdToks.some((held) => held.tok === ref.tok)) {
    panic(cx, `lwkt_gettoken: "${ref.tok.tDesc}" is held shared by the thread that wants it exclusively`);
  }
  ref.tok.tCollisions++;
  // All tokens go, the new one is among those that the thread needs to run again.
  td.tdToks.push(ref);
  yield* lwktWaitTokens(cx, ref);
}

/** Takes a token exclusively (`lwkt_gettoken`); may switch. */
export function lwktGettoken(cx: Cx, tok: LwktToken): Exec<void> {
  return get(cx, { tok, shared: false });
}

/** Takes a token shared (`lwkt_gettoken_shared`); may switch. */
export function lwktGettokenShared(cx: Cx, tok: LwktToken): Exec<void> {
  return get(cx, { tok, shared: true });
}

/** Takes a token if it is free (`lwkt_trytoken`). */
export function lwktTrytoken(cx: Cx, tok: LwktToken): boolean {
  const ref = { tok, shared: false };
  const td = cx.td;
  if (!tryRef(td, ref)) return false;
  td.tdToks.push(ref);
  return true;
}

/** Releases the token that was taken last (`lwkt_reltoken`). */
export function lwktReltoken(cx: Cx, tok: LwktToken): void {
  const ref = cx.td.tdToks.pop();
  if (ref?.tok !== tok) {
    panic(cx, `lwkt_reltoken: "${tok.tDesc}" is not the token taken last ("${ref?.tok.tDesc ?? "none"}" is)`);
  }
  dropRef(ref);
}

/** Exchanges the order of the two tokens that were taken last (`lwkt_token_swap`), so that the older one can be released first. */
export function lwktTokenSwap(cx: Cx): void {
  const toks = cx.td.tdToks;
  const last = toks.pop(), before = toks.pop();
  kassert(last !== undefined && before !== undefined, "lwkt_token_swap: fewer than two tokens are held");
  toks.push(last!, before!);
}

/** Whether the running thread holds the token, exclusively unless `shared` is enough. */
export function lwktTokenHeld(cx: Cx, tok: LwktToken, shared = false): boolean {
  return cx.td.tdToks.some((ref) => ref.tok === tok && (shared || !ref.shared));
}

/** `ASSERT_LWKT_TOKEN_HELD_EXCL`. */
export function assertToken(cx: Cx, tok: LwktToken): void {
  if (!lwktTokenHeld(cx, tok)) panic(cx, `token "${tok.tDesc}" must be held exclusively here`);
}

/** `ASSERT_LWKT_TOKEN_HELD`: shared will do. */
export function assertTokenHeld(cx: Cx, tok: LwktToken): void {
  if (!lwktTokenHeld(cx, tok, true)) panic(cx, `token "${tok.tDesc}" must be held here`);
}
