/**
 * What every engine says for one form: the dynamic checks that the row's flags ask for, then the row's description.
 *
 * The checks come in the order of the SDM's priorities: the instruction is not there in this mode (#UD), the unit is
 * off (#UD, #NM), the privilege is missing (#GP(0)).
 *
 * Room: `hw/isa/`; imports the state layout and types.
 *
 * @module
 */
import { RFLAGS, S } from "../state.ts";
import type { Builder } from "./builder.ts";
import type { Form } from "./form.ts";

const UD = 6;
const NM = 7;
const GP = 13;
/** CR0.PE is bit 0. */
const CR0_PE_BIT = 0;
/** RFLAGS.VM is bit 17. */
const RFLAGS_VM_BIT = 31 - Math.clz32(RFLAGS.VM);

const TRAP_WORD = { sse: S.SSETRAP, x87: S.FPUTRAP, mmx: S.MMXTRAP } as const;

/** True for rows that raise #UD in real and virtual-8086 mode: those that say so, and all with a VEX prefix. */
function isProtectedOnly(form: Form): boolean {
  return form.row.flags.protectedOnly === true || form.row.encodings[0]?.startsWith("VEX") === true;
}

/** Describes one instruction of `form` to `b`: prologue and meaning. */
export function describe<I, C, X>(b: Builder<I, C, X>, form: Form): void {
  const { flags, semantic } = form.row;
  if (form.mode !== 2 && isProtectedOnly(form)) {
    const real = b.notC(b.bit(b.state(S.CR0, 64), CR0_PE_BIT));
    const virtual8086 = b.bit(b.state(S.RFLAGS, 32), RFLAGS_VM_BIT);
    b.faultIf(b.orC(real, virtual8086), UD);
  }
  if (flags.trap !== undefined) {
    const vector = b.state(TRAP_WORD[flags.trap], 32);
    b.if(b.ne(vector, b.imm(0)), () => {
      b.faultIf(b.eq(vector, b.imm(UD)), UD);
      b.fault(NM);
    });
  }
  if (flags.cpl0 === true) b.faultIf(b.ne(b.state(S.CPL, 32), b.imm(0)), GP, 0);
  semantic(b, form.operands, form);
}
