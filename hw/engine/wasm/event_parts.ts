/**
 * What the short ways of event delivery and returns are made of (events.ts, events32.ts).
 *
 * Room: `hw/engine/wasm/`; imports expressions.ts and flushes.ts, and the data of state.ts and others.
 *
 * @module
 */
import { CR4_SMAP } from "../../paging.ts";
import { ATTENTION_INTERRUPT, FTLB_CONTEXT_BYTES, FTLB_ENTRIES, FTLB_READ, RFLAGS, S } from "../../state.ts";
import { TRACE } from "../../trace.ts";
import {
  add,
  and,
  any,
  type Body,
  eq,
  eqz,
  type Expr,
  extendU,
  gtU,
  load32,
  load64,
  type Local,
  ne,
  none,
  or,
  popcnt,
  select,
  shl,
  shrU,
  type Value,
  wrap,
  xor,
} from "./expressions.ts";
import { unwatched } from "./flushes.ts";

/** What the delivery of an event gives: TypeScript must do it; done, go on at RIP; done, look at everything afresh. */
export const DELIVERED = { NOT: 0, RESYNC: 1, END: 2 } as const;
/** What a procedure gives: go on, or look at everything afresh (`PROCEDURE_` of builder.ts). */
export const DONE = 0, END = 2;
/** Vectors whose exceptions push an error code: 8, 10 … 14, 17, 21. */
export const WITH_ERROR_CODE = (1 << 8) | (0x1f << 10) | (1 << 17) | (1 << 21);
/** RFLAGS bits that a 32- or 64-bit IRET loads, and at CPL 0 as well; the status flags. */
export const IRET_FLAGS = 0x4dd5 | RFLAGS.RF | RFLAGS.AC | RFLAGS.ID;
export const IRET_FLAGS_CPL0 = RFLAGS.IOPL | RFLAGS.VIF | RFLAGS.VIP;
export const STATUS = 0x8d5;
/** "Unusable" among access rights. */
export const UNUSABLE = 0x1_0000;
export const RSP: number = S.GPR + 4 * 8;

const VMX_NON_ROOT = 2;
const WATCHED = TRACE.exception | TRACE.interrupt | TRACE.fault;

/** Where a function gives up. */
export type GiveUp = (c: Value) => void;

/** Gives up unless this is ordinary code of one mode (S.CODEMODE) that nobody watches. */
export function requireOrdinary(base: Local, mode: 1 | 2, giveUp: GiveUp): void {
  const aux = load32(base, S.AUX);
  giveUp(eqz(unwatched(aux, WATCHED)));
  giveUp(ne(load32(base, S.CODEMODE), mode));
  const odd = or(load32(base, S.STEPPING), and(load32(base, S.DR + 56), 0xff));
  const pending = or(load32(base, S.ACTIVITY), and(load32(base, S.ATTENTION), ~ATTENTION_INTERRUPT));
  giveUp(or(or(odd, pending), or(load32(base, S.PENDINGDB), and(load32(base, S.RFLAGS), RFLAGS.TF))));
  // A guest that nothing waits for: exits on the way are those of faults.
  const waiting = or(
    load32(base, S.ATTENTION),
    or(load32(base, S.VMX_PENDING), and(load32(base, S.BLOCKING), 8)),
  );
  giveUp(and(isGuest(base), ne(waiting, 0)));
}

/** 1 in VMX non-root operation. */
export function isGuest(base: Local): Expr {
  return eq(load32(base, S.VMX_MODE), VMX_NON_ROOT);
}

/** Host address of `bytes` bytes that the fast TLB has in one page, aligned to four. */
export function quick(
  b: Body,
  context: Value,
  linear: Local,
  bytes: number,
  table: number,
  giveUp: GiveUp,
): Local {
  const entry = b.let(add(context, and(wrap(shrU(linear, 8n)), (FTLB_ENTRIES - 1) << 4)));
  giveUp(ne(load64(entry, table), and(add(linear, BigInt(bytes - 1)), -4096n)));
  giveUp(any(wrap(linear), 3));
  return b.let(add(load32(entry, table + 8), wrap(linear)));
}

/** Context of implicit supervisor accesses. */
export function implicitContext(base: Local): Expr {
  const smap = any(load32(base, S.CR4), CR4_SMAP);
  return add(load32(base, S.TLBBANK), select(smap, 2 * FTLB_CONTEXT_BYTES, 0));
}

/** Host address of the descriptor that a selector names in the GDT. */
export function descriptor(b: Body, base: Local, implicit: Local, selector: Local, giveUp: GiveUp): Local {
  giveUp(or(any(selector, 4), none(selector, 0xfff8)));
  const offset = b.let(and(selector, 0xfff8));
  giveUp(gtU(add(offset, 7), and(load32(base, S.GDTR + 8), 0xffff)));
  const linear = b.let(add(load64(base, S.GDTR), extendU(offset)));
  return quick(b, implicit, linear, 8, FTLB_READ, giveUp);
}

/** The whole RFLAGS image (flags.ts). */
export function flagsImage(b: Body, base: Local): Local {
  const cv = b.let(load64(base, S.FCV)), result = b.let(load64(base, S.FRES));
  const high = b.let(wrap(shrU(cv, 62n))), low = b.let(wrap(cv));
  const parity = popcnt(and(xor(wrap(result), shrU(low, 8)), 0xff));
  const flags = b.let(or(load32(base, S.RFLAGS), 2));
  b.set(flags, or(flags, shrU(high, 1)));
  b.set(flags, or(flags, shl(xor(and(parity, 1), 1), 2)));
  b.set(flags, or(flags, shl(and(low, 8), 1)));
  b.set(flags, or(flags, shl(eqz(result), 6)));
  b.set(flags, or(flags, shl(xor(wrap(shrU(result, 63n)), and(low, 1)), 7)));
  return b.let(or(flags, shl(and(xor(high, shrU(high, 1)), 1), 11)));
}

/** Sets the status flags from an image (flags.ts), and the other flags to those of the image. */
export function setFlags(b: Body, base: Local, image: Local): void {
  const carry = and(image, 1), overflow = and(shrU(image, 11), 1), zero = and(shrU(image, 6), 1);
  const top = or(shl(carry, 1), xor(carry, overflow));
  const odd = and(xor(shrU(image, 2), shrU(image, 6)), 1);
  const low = or(or(and(shrU(image, 1), 8), and(shrU(image, 7), 1)), shl(odd, 8));
  b.store64(base, S.FCV, or(extendU(low), shl(extendU(top), 62n)));
  b.store64(base, S.FRES, extendU(xor(zero, 1)));
  b.store32(base, S.RFLAGS, or(and(image, ~STATUS), 2));
}

/** Base, limit and rights of a descriptor with these halves go to a segment register. */
export function setSegment(
  b: Body,
  base: Local,
  seg: number,
  selector: Value,
  low: Local,
  high: Local,
): Local {
  const segBase = or(or(shrU(low, 16), shl(and(high, 0xff), 16)), and(high, 0xff00_0000 | 0));
  const raw = b.let(or(and(low, 0xffff), and(high, 0xf_0000)));
  const limit = b.let(select(any(high, 0x80_0000), or(shl(raw, 12), 0xfff), raw));
  b.store32(base, S.SEGSEL + seg * 4, selector);
  b.store64(base, S.SEGBASE + seg * 8, extendU(segBase));
  b.store32(base, S.SEGLIMIT + seg * 4, limit);
  b.store32(base, S.SEGAR + seg * 4, and(shrU(high, 8), 0xf0ff));
  return limit;
}

/** A null selector makes a segment register unusable. */
export function setNull(b: Body, base: Local, seg: number, selector: Value, rights: Value): void {
  b.store32(base, S.SEGSEL + seg * 4, selector);
  b.store64(base, S.SEGBASE + seg * 8, 0n);
  b.store32(base, S.SEGLIMIT + seg * 4, 0);
  b.store32(base, S.SEGAR + seg * 4, rights);
  b.store64(base, S.SEGRMAX + seg * 8, -1n);
  b.store64(base, S.SEGWMAX + seg * 8, -1n);
}

/** The fast-TLB context of CPL 0 … 2 with these flags. */
export function setSupervisorContext(b: Body, base: Local, flags: Value): void {
  const context = select(
    and(ne(and(load32(base, S.CR4), CR4_SMAP), 0), none(flags, RFLAGS.AC)),
    2 * FTLB_CONTEXT_BYTES,
    0,
  );
  b.store32(base, S.TLBCTX, add(load32(base, S.TLBBANK), context));
}

/** 1 when an interrupt waits that these flags let in. */
export function interrupted(base: Local, flags: Value): Expr {
  const waits = and(load32(base, S.ATTENTION), ATTENTION_INTERRUPT);
  return and(ne(waits, 0), ne(and(flags, RFLAGS.IF), 0));
}
