/**
 * What the rows of the general-purpose instructions share: operand widths and constants that depend on them.
 *
 * Room: `hw/isa/`; imports only types.
 *
 * @module
 */
import type { Builder, Width } from "./builder.ts";
import type { Operand } from "./form.ts";

/** Width in bits of a general-purpose operand. Precondition: the operand's encoding letter gives it 8, 16, 32 or 64 bits. */
export function widthOf(o: Operand): Width {
  return o.width as Width;
}

/** The constant `value` modulo 2^w. */
export function constant<I, C, X>(b: Builder<I, C, X>, w: number, value: number | bigint): I {
  return b.imm(BigInt.asUintN(w, BigInt(value)));
}

/** The sign bit of a w-bit value. */
export function sign<I, C, X>(b: Builder<I, C, X>, w: number, value: I): C {
  return b.bit(value, w - 1);
}

/** A w-bit value is zero. */
export function isZero<I, C, X>(b: Builder<I, C, X>, value: I): C {
  return b.eq(value, b.imm(0));
}
