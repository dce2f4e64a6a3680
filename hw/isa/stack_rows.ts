/**
 * The stack: PUSH, POP, PUSHA, POPA, ENTER, LEAVE (SDM vol. 2). Segment registers and flags on the stack are in
 * system_rows.ts.
 *
 * Two sizes meet here: the operand size (how much moves) and the stack-address size (how wide rSP is): 64 bits in 64-bit
 * mode, else 32 or 16 by SS.B.
 *
 * Room: `hw/isa/`; rows of the instruction table, imports only the row's own vocabulary.
 *
 * @module
 */
import type { Builder, Semantic, Width } from "./builder.ts";
import { type Form, type Row, row } from "./form.ts";
import { R, S, SEG } from "../state.ts";
import { isZero } from "./integer_common.ts";

const push: Semantic = (b, o, f) => {
  const size = f.w / 8;
  b.stackStore(f.w, -size, b.read(o[0]!));
  b.stackAdjust(b.imm(-size));
};

/** POP rSP leaves what was popped: the register is written last. */
const popRegister: Semantic = (b, o, f) => {
  const value = b.stackLoad(f.w, 0);
  b.stackAdjust(b.imm(f.w / 8));
  b.write(o[0]!, value);
};

/** The address of a POP to memory is computed with rSP already incremented. */
const popMemory: Semantic = (b, o, f) => {
  const dst = o[0]!, size = f.w / 8;
  if (dst.kind !== "mem") return popRegister(b, o, f);
  const value = b.stackLoad(f.w, 0);
  const ea = b.ea(dst);
  const offset = b.select(b.baseIs(dst, R.RSP), b.add(f.aw, ea, b.imm(size)), ea);
  b.store(f.segment, offset, f.w, value);
  b.stackAdjust(b.imm(size));
};

/** Registers in the order that PUSHA pushes them. */
const PUSHA_ORDER = [R.RAX, R.RCX, R.RDX, R.RBX, R.RSP, R.RBP, R.RSI, R.RDI] as const;

/** The lowest slot first: if the pushes reach another page it is there that they fault. */
const pushAll: Semantic = (b, _o, f) => {
  const size = f.w / 8;
  for (let i = PUSHA_ORDER.length; i > 0; i--) b.stackStore(f.w, -size * i, b.reg(f.w, PUSHA_ORDER[i - 1]!));
  b.stackAdjust(b.imm(-size * PUSHA_ORDER.length));
};

const popAll: Semantic = (b, _o, f) => {
  const size = f.w / 8, last = PUSHA_ORDER.length - 1;
  const values = PUSHA_ORDER.map((_n, i) => b.stackLoad(f.w, size * (last - i)));
  b.stackAdjust(b.imm(size * PUSHA_ORDER.length));
  PUSHA_ORDER.forEach((n, i) => {
    if (n !== R.RSP) b.setReg(f.w, n, values[i]!);
  });
};

/** `address` cut to the stack-address size. */
function stackAddress<I, C, X>(b: Builder<I, C, X>, f: Form, address: I): I {
  if (f.mode === 2) return address;
  return b.select(isZero(b, b.state(S.STACKMODE, 32)), b.zx(16, address), b.zx(32, address));
}

/**
 * ENTER: builds a stack frame; level L > 0 copies the L - 1 outer frame pointers and adds the new one. A fault leaves
 * the registers unchanged; what it wrote lies below rSP.
 */
const enter: Semantic = (b, o, f) => {
  const w: Width = f.w, size = f.w / 8;
  const bytes = b.zx(16, b.read(o[0]!)), level = b.and(b.read(o[1]!), b.imm(31));
  const sp = stackAddress(b, f, b.reg(64, R.RSP)), bp = stackAddress(b, f, b.reg(64, R.RBP));
  const at = (offset: typeof sp) => stackAddress(b, f, offset);
  const frame = at(b.sub(64, sp, b.imm(size)));
  const pushed = b.mul(64, b.add(64, level, b.imm(1)), b.imm(size));
  const moved = b.add(64, pushed, bytes);
  // The new top must be writable even though nothing is written there.
  b.probeWrite(SEG.SS, at(b.sub(64, sp, moved)), w);
  b.store(SEG.SS, frame, w, b.reg(w, R.RBP));
  b.if(b.notC(isZero(b, level)), () => {
    const done = b.variable(b.imm(size));
    const end = b.mul(64, level, b.imm(size));
    b.while(() => b.ltU(done.get(), end), () => {
      const distance = done.get();
      const outer = b.load(SEG.SS, at(b.sub(64, bp, distance)), w);
      b.store(SEG.SS, at(b.sub(64, frame, distance)), w, outer);
      done.set(b.add(64, distance, b.imm(size)));
    });
    b.store(SEG.SS, at(b.sub(64, frame, end)), w, b.zx(w, frame));
  });
  b.stackAdjust(b.neg(64, moved));
  b.setReg(w, R.RBP, b.zx(w, frame));
};

const leave: Semantic = (b, _o, f) => {
  const bp = stackAddress(b, f, b.reg(64, R.RBP));
  const value = b.load(SEG.SS, bp, f.w);
  b.stackAdjust(b.add(64, b.sub(64, bp, b.reg(64, R.RSP)), b.imm(f.w / 8)));
  b.setReg(f.w, R.RBP, value);
};

/** Rows of the stack. */
export const stackRows: readonly Row[] = [
  row("PUSH", ["50 +r d64 Zv", "FF /6 d64 Ev", "68 d64 Iz", "6A d64 Ibs"], {}, push),
  row("POP", ["58 +r d64 Zv:w"], {}, popRegister),
  row("POP", ["8F /0 d64 Ev:w"], {}, popMemory),
  row("PUSHA", ["60"], { no64: true }, pushAll),
  row("POPA", ["61"], { no64: true }, popAll),
  row("ENTER", ["C8 d64 Iw Ib"], {}, enter),
  row("LEAVE", ["C9 d64"], {}, leave),
];
