/**
 * Delivery of events and IRETD in wasm for 32-bit protected mode without a change of privilege: the common case of event.ts and return.ts
 * of hw/sys/, which are asked whenever anything is unusual.
 *
 * Here: 32-bit code before and after on a 32-bit stack, gates and segments in the GDT with their accessed bits set, tables and stack that
 * the fast TLB has. Given up, with nothing changed: other privileges, 16-bit gates and segments, task gates, virtual-8086 mode,
 * compatibility mode, and what events.ts leaves as well.
 *
 * Room: `hw/engine/wasm/`; imports expressions.ts and event_parts.ts, and the data of state.ts and paging.ts.
 *
 * @module
 */
import { CR0_AM, EFER_LMA } from "../../paging.ts";
import { FTLB_CONTEXT_BYTES, FTLB_READ, FTLB_WRITE, RFLAGS, S, SEG } from "../../state.ts";
import { type ModuleWriter, T } from "./emit.ts";
import {
  add,
  and,
  any,
  Body,
  type Callee,
  eq,
  eqz,
  extendU,
  gtS,
  gtU,
  load32,
  load64,
  type Local,
  ltU,
  ne,
  none,
  or,
  select,
  shl,
  shrU,
  sub,
  xor,
} from "./expressions.ts";
import {
  DELIVERED,
  descriptor,
  flagsImage,
  type GiveUp,
  implicitContext,
  interrupted,
  IRET_FLAGS,
  IRET_FLAGS_CPL0,
  isGuest,
  quick,
  requireOrdinary,
  RSP,
  setFlags,
  setSegment,
  setSupervisorContext,
  STATUS,
  WITH_ERROR_CODE,
} from "./event_parts.ts";

/** Descriptor bits that are compared, and those of accessed, non-conforming, present 32-bit code, DPL left out. */
const CODE_BITS = 0x60_fd00, CODE_32 = 0x40_9900;

/** Gives up outside 32-bit protected mode with a 32-bit stack. */
function requireProtected(base: Local, giveUp: GiveUp): void {
  requireOrdinary(base, 1, giveUp);
  giveUp(or(and(load32(base, S.EFER), EFER_LMA), and(load32(base, S.RFLAGS), RFLAGS.VM)));
  giveUp(or(none(load32(base, S.CR0), 1), ne(load32(base, S.STACKMODE), 1)));
}

/** Loads CS with 32-bit code. */
function setCode(b: Body, base: Local, selector: Local, cpl: Local, low: Local, high: Local): void {
  const limit = setSegment(b, base, SEG.CS, or(and(selector, 0xfffc), cpl), low, high);
  b.store64(base, S.SEGRMAX + SEG.CS * 8, select(any(high, 0x200), extendU(limit), -1n));
  b.store64(base, S.SEGWMAX + SEG.CS * 8, -1n);
}

/** Limit in bytes of a descriptor with these halves. */
function limitOf(b: Body, low: Local, high: Local): Local {
  const raw = b.let(or(and(low, 0xffff), and(high, 0xf_0000)));
  return b.let(select(any(high, 0x80_0000), or(shl(raw, 12), 0xfff), raw));
}

/** (base, vector, software, error code) → {@link DELIVERED}. */
export function writeDeliver32(module: ModuleWriter): Callee {
  const b = new Body([T.i32, T.i32, T.i32, T.i32], T.i32);
  const [base, vector, software, code] = b.parameters as [Local, Local, Local, Local];
  b.block((out) => {
    const giveUp: GiveUp = (c) => b.brIf(out, c);
    requireProtected(base, giveUp);
    giveUp(eq(vector, 1));
    // A guest's exceptions may be VM exits.
    giveUp(and(isGuest(base), eqz(software)));
    giveUp(gtU(add(shl(vector, 3), 7), and(load32(base, S.IDTR + 8), 0xffff)));
    const implicit = b.let(implicitContext(base));
    const gateAt = b.let(add(load64(base, S.IDTR), extendU(shl(vector, 3))));
    const gate = quick(b, implicit, gateAt, 8, FTLB_READ, giveUp);
    const word0 = b.let(load32(gate)), word1 = b.let(load32(gate, 4));
    // A present 32-bit interrupt or trap gate.
    giveUp(ne(and(word1, 0x9e00), 0x8e00));
    const cpl = b.let(load32(base, S.CPL));
    b.if(software, () => giveUp(ltU(and(shrU(word1, 13), 3), cpl)));
    const selector = b.let(shrU(word0, 16));
    const cs = descriptor(b, base, implicit, selector, giveUp);
    const csLow = b.let(load32(cs)), csHigh = b.let(load32(cs, 4));
    giveUp(ne(and(csHigh, CODE_BITS), or(CODE_32, shl(cpl, 13))));
    const target = b.let(or(and(word0, 0xffff), and(word1, 0xffff_0000 | 0)));
    giveUp(gtU(target, limitOf(b, csLow, csHigh)));

    // Room for an error code in any case; the frame begins above it if there is none.
    const esp = b.let(load32(base, RSP));
    giveUp(ltU(esp, 16));
    giveUp(gtS(extendU(sub(esp, 1)), load64(base, S.SEGWMAX + SEG.SS * 8)));
    const at = b.let(extendU(add(load32(base, S.SEGBASE + SEG.SS * 8), sub(esp, 16))));
    const frame = quick(b, load32(base, S.TLBCTX), at, 16, FTLB_WRITE, giveUp);

    // Nothing can fault any more.
    const hasCode = and(and(eqz(software), ltU(vector, 32)), and(shrU(WITH_ERROR_CODE, and(vector, 31)), 1));
    const flags = flagsImage(b, base);
    b.if(software, () => b.set(flags, and(flags, ~RFLAGS.RF)), () => b.set(flags, or(flags, RFLAGS.RF)));
    const pointer = b.let(sub(esp, 12));
    b.if(hasCode, () => {
      b.store32(frame, 0, code);
      b.set(pointer, sub(esp, 16));
    });
    b.store32(frame, 4, load32(base, S.RIP));
    b.store32(frame, 8, load32(base, S.SEGSEL + SEG.CS * 4));
    b.store32(frame, 12, flags);
    b.store32(base, RSP, pointer);
    b.store64(base, S.RIP, extendU(target));
    setCode(b, base, selector, cpl, csLow, csHigh);
    const left = b.let(and(load32(base, S.RFLAGS), ~(RFLAGS.TF | RFLAGS.NT | RFLAGS.RF | RFLAGS.VM)));
    b.if(none(word1, 0x100), () => b.set(left, and(left, ~RFLAGS.IF)));
    b.store32(base, S.RFLAGS, left);
    b.store32(base, S.BLOCKING, and(load32(base, S.BLOCKING), ~3));
    b.store32(base, S.VMX_VECTORING, 0);
    b.return(select(interrupted(base, left), DELIVERED.END, DELIVERED.RESYNC));
  });
  b.return(DELIVERED.NOT);
  return b.define(module);
}

/** (base) → {@link DELIVERED}: IRETD. */
export function writeIret32(module: ModuleWriter): Callee {
  const b = new Body([T.i32], T.i32);
  const base = b.parameter(0);
  b.block((out) => {
    const giveUp: GiveUp = (c) => b.brIf(out, c);
    giveUp(ne(load32(base, S.ARG), 32));
    requireProtected(base, giveUp);
    const old = b.let(load32(base, S.RFLAGS));
    giveUp(any(old, RFLAGS.NT));
    const esp = b.let(load32(base, RSP));
    giveUp(gtU(esp, -12));
    giveUp(gtS(extendU(add(esp, 11)), load64(base, S.SEGRMAX + SEG.SS * 8)));
    const at = b.let(extendU(add(load32(base, S.SEGBASE + SEG.SS * 8), esp)));
    const words = quick(b, load32(base, S.TLBCTX), at, 12, FTLB_READ, giveUp);
    const eip = b.let(load32(words)), selector = b.let(and(load32(words, 4), 0xffff));
    const image = b.let(load32(words, 8)), cpl = b.let(load32(base, S.CPL));
    giveUp(or(any(image, RFLAGS.VM), ne(and(selector, 3), cpl)));
    const cs = descriptor(b, base, b.let(implicitContext(base)), selector, giveUp);
    const csLow = b.let(load32(cs)), csHigh = b.let(load32(cs, 4));
    giveUp(ne(and(csHigh, CODE_BITS), or(CODE_32, shl(cpl, 13))));
    giveUp(gtU(eip, limitOf(b, csLow, csHigh)));
    const mask = b.let(IRET_FLAGS);
    b.if(eqz(cpl), () => b.set(mask, or(mask, IRET_FLAGS_CPL0)));
    b.if(eqz(gtU(cpl, and(shrU(old, 12), 3))), () => b.set(mask, or(mask, RFLAGS.IF)));
    // No breakpoint is armed: RF would say nothing.
    const flags = b.let(and(or(and(image, mask), and(old, xor(mask, -1))), ~RFLAGS.RF));
    giveUp(any(flags, RFLAGS.TF));
    giveUp(and(and(eq(cpl, 3), ne(and(flags, RFLAGS.AC), 0)), ne(and(load32(base, S.CR0), CR0_AM), 0)));

    setFlags(b, base, b.let(or(and(flags, ~STATUS), and(image, STATUS))));
    b.store32(base, RSP, add(esp, 12));
    setCode(b, base, selector, cpl, csLow, csHigh);
    b.store64(base, S.RIP, extendU(eip));
    b.if(
      eq(cpl, 3),
      () => b.store32(base, S.TLBCTX, add(load32(base, S.TLBBANK), FTLB_CONTEXT_BYTES)),
      () => setSupervisorContext(b, base, flags),
    );
    b.store32(base, S.BLOCKING, and(load32(base, S.BLOCKING), ~8));
    b.store32(base, S.VMX_UNBLOCKED, 0);
    b.return(select(interrupted(base, flags), DELIVERED.END, DELIVERED.RESYNC));
  });
  b.return(DELIVERED.NOT);
  return b.define(module);
}
