/**
 * What a token is, and who has it: the part of tokens that does not switch. The rest is in token.ts.
 *
 * Room: leaf of `kernel/lwkt/`; imports types.
 *
 * @module
 */
import type { Thread } from "./thread.ts";

/** One use of a token by a thread (`struct lwkt_tokref`). */
export interface LwktTokref {
  readonly tok: LwktToken;
  readonly shared: boolean;
}

/** A token (`struct lwkt_token`). */
export class LwktToken {
  /** `t_desc`: its name. */
  readonly tDesc: string;
  /** The thread that has it exclusively. */
  tOwner: Thread | undefined = undefined;
  /** Exclusive uses by the owner. */
  tExclusive = 0;
  /** Shared uses by all threads, those of an exclusive owner among them. */
  tShared = 0;
  /** `t_collisions`: times that it was not free. */
  tCollisions = 0;

  /** @param desc Its name. */
  constructor(desc: string) {
    this.tDesc = desc;
  }
}

/** Takes one token if it is free. */
export function tryRef(td: Thread, { tok, shared }: LwktTokref): boolean {
  if (shared) {
    if (tok.tOwner !== undefined && tok.tOwner !== td) return false;
    tok.tShared++;
    return true;
  }
  if (tok.tOwner === td) {
    tok.tExclusive++;
    return true;
  }
  if (tok.tOwner !== undefined || tok.tShared !== 0) return false;
  tok.tOwner = td;
  tok.tExclusive = 1;
  return true;
}

/** Gives one use back. */
export function dropRef({ tok, shared }: LwktTokref): void {
  if (shared) tok.tShared--;
  else if (--tok.tExclusive === 0) tok.tOwner = undefined;
}

/** Gives a thread all tokens that it needs, or none; whether it has them. */
export function lwktGetalltokens(td: Thread): boolean {
  const refs = td.tdToks;
  for (let i = 0; i < refs.length; i++) {
    if (tryRef(td, refs[i]!)) continue;
    refs[i]!.tok.tCollisions++;
    while (--i >= 0) dropRef(refs[i]!);
    return false;
  }
  return true;
}

/** Takes a thread's tokens away while it does not run. */
export function lwktRelalltokens(td: Thread): void {
  for (let i = td.tdToks.length - 1; i >= 0; i--) dropRef(td.tdToks[i]!);
}
