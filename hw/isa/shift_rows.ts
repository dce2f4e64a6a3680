/**
 * Shifts and rotations (SDM vol. 2: SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD, and the BMI2 forms).
 *
 * The count is masked to 5 bits (6 for 64-bit operands). A masked count of 0 leaves the flags alone; a 32-bit
 * destination register is zero-extended all the same.
 *
 * Where the SDM leaves flags undefined: OF for counts above 1 follows the rule for count 1 applied to the last step;
 * AF is 0 after a shift.
 *
 * Room: `hw/isa/`; rows of the instruction table, imports only the row's own vocabulary.
 *
 * @module
 */
import type { Builder, Semantic, Width } from "./builder.ts";
import { type Operand, type Row, row } from "./form.ts";
import { isZero, sign, widthOf } from "./integer_common.ts";

/** Does the work for a count of at least 1: returns the result and sets flags. */
type Step = <I, C, X>(b: Builder<I, C, X>, w: Width, a: I, count: I) => I;

const countMask = (w: Width): number => w === 64 ? 63 : 31;

/** Writes back for a masked count of 0, which matters only where writing clears the upper half of a register. */
function keep<I, C, X>(b: Builder<I, C, X>, dst: Operand, a: I): void {
  if (dst.kind === "reg" && dst.width === 32) b.write(dst, a);
}

/** The group's encodings by 1 (no question whether the count is 0) and by immediate or CL. */
function group(mnemonic: string, n: string, step: Step): Row[] {
  const byOne: Semantic = (b, o) => {
    const dst = o[0]!, w = widthOf(dst);
    b.write(dst, step(b, w, b.read(dst), b.imm(1)));
  };
  const byCount: Semantic = (b, o) => {
    const dst = o[0]!, w = widthOf(dst);
    const a = b.read(dst);
    const count = b.and(b.read(o[1]!), b.imm(countMask(w)));
    b.if(isZero(b, count), () => keep(b, dst, a), () => b.write(dst, step(b, w, a, count)));
  };
  return [
    row(mnemonic, [`D0 ${n} Eb:rw 1`, `D1 ${n} Ev:rw 1`], {}, byOne),
    row(
      mnemonic,
      [
        `C0 ${n} Eb:rw Ib`,
        `C1 ${n} Ev:rw Ib`,
        `D2 ${n} Eb:rw CL`,
        `D3 ${n} Ev:rw CL`,
      ],
      {},
      byCount,
    ),
  ];
}

/** All but the last step, so that what the last step shifts out can be seen. */
function beforeLast<I, C, X>(b: Builder<I, C, X>, count: I): I {
  return b.sub(64, count, b.imm(1));
}

const shl: Step = (b, w, a, count) => {
  const before = b.shl(w, a, beforeLast(b, count));
  const r = b.shl(w, before, b.imm(1));
  const out = sign(b, w, before);
  b.flagsResult(w, r, out, b.xorC(out, sign(b, w, r)));
  return r;
};

const shr: Step = (b, w, a, count) => {
  const before = b.shr(w, a, beforeLast(b, count));
  const r = b.shr(w, before, b.imm(1));
  b.flagsResult(w, r, b.bit(before, 0), sign(b, w, before));
  return r;
};

const sar: Step = (b, w, a, count) => {
  const before = b.sar(w, a, beforeLast(b, count));
  const r = b.sar(w, before, b.imm(1));
  b.flagsResult(w, r, b.bit(before, 0), b.always(false));
  return r;
};

const rol: Step = (b, w, a, count) => {
  const r = b.rotl(w, a, b.and(count, b.imm(w - 1)));
  const cf = b.bit(r, 0);
  b.setFlags({ CF: cf, OF: b.xorC(cf, sign(b, w, r)) });
  return r;
};

const ror: Step = (b, w, a, count) => {
  const r = b.rotr(w, a, b.and(count, b.imm(w - 1)));
  const cf = sign(b, w, r);
  b.setFlags({ CF: cf, OF: b.xorC(cf, b.bit(r, w - 2)) });
  return r;
};

/** The count of a rotation through carry: 9 and 17 positions come round again. Gives 0 ... w. */
function carryCount<I, C, X>(b: Builder<I, C, X>, w: Width, count: I): I {
  return w === 8 || w === 16 ? b.remU(count, b.imm(w + 1)) : count;
}

/** RCL and RCR; `rotate` gets a count of 1 ... w. */
function rotateThroughCarry(
  rotate: <I, C, X>(b: Builder<I, C, X>, w: Width, a: I, count: I, carry: I) => { r: I; out: C; of: C },
): Step {
  return (b, w, a, masked) => {
    const count = carryCount(b, w, masked);
    const result = b.variable(a);
    b.if(b.notC(isZero(b, count)), () => {
      const { r, out, of } = rotate(b, w, a, count, b.toInt(b.flag("CF")));
      b.setFlags({ CF: out, OF: of });
      result.set(r);
    });
    return result.get();
  };
}

const rcl = rotateThroughCarry((b, w, a, count, carry) => {
  const one = b.imm(1), rest = b.sub(64, b.imm(w), count);
  const r = b.or(
    b.or(b.shl(w, a, count), b.shl(w, carry, b.sub(64, count, one))),
    b.shr(w, b.shr(w, a, one), rest),
  );
  const out = b.bit(b.shr(w, a, rest), 0);
  return { r, out, of: b.xorC(out, sign(b, w, r)) };
});

const rcr = rotateThroughCarry((b, w, a, count, carry) => {
  const one = b.imm(1), rest = b.sub(64, b.imm(w), count);
  const r = b.or(b.or(b.shr(w, a, count), b.shl(w, carry, rest)), b.shl(w, b.shl(w, a, one), rest));
  const out = b.bit(b.shr(w, a, b.sub(64, count, one)), 0);
  return { r, out, of: b.xorC(sign(b, w, r), b.bit(r, w - 2)) };
});

/** One double shift by a count of at least 1: the w-bit result and the last bit shifted out. */
type Funnel = <I, C, X>(
  b: Builder<I, C, X>,
  w: Width,
  a: I,
  filler: I,
  count: I,
) => { r: I; out: C };

/** SHLD. A 16-bit operand moves through destination:source:source, 48 bits; `near` are the upper 32. */
const funnelLeft: Funnel = (b, w, a, filler, count) => {
  const n16 = b.imm(16), whole: Width = w === 16 ? 32 : w;
  const near = w === 16 ? b.or(b.shl(32, a, n16), filler) : a;
  const far = w === 16 ? b.shl(32, filler, n16) : filler;
  const rest = b.sub(64, b.imm(whole), count);
  const r = b.or(b.shl(whole, near, count), b.shr(whole, far, rest));
  const out = sign(b, whole, b.shl(whole, near, beforeLast(b, count)));
  return { r: w === 16 ? b.shr(32, r, n16) : r, out };
};

/** SHRD. A 16-bit operand moves through source:source:destination; `near` are the lower 32 bits. */
const funnelRight: Funnel = (b, w, a, filler, count) => {
  const whole: Width = w === 16 ? 32 : w;
  const near = w === 16 ? b.or(b.shl(32, filler, b.imm(16)), a) : a;
  // With 16 bits this is the upper source, which stands above bit 31.
  const far = filler;
  const rest = b.sub(64, b.imm(whole), count);
  const r = b.or(b.shr(whole, near, count), b.shl(whole, far, rest));
  const out = b.bit(b.shr(whole, near, beforeLast(b, count)), 0);
  return { r: w === 16 ? b.zx(16, r) : r, out };
};

/** SHLD and SHRD. The 16-bit result for counts above 16 is undefined in the SDM; this is AMD's. */
function doubleShift(funnel: Funnel): Semantic {
  return (b, o) => {
    const dst = o[0]!, w = widthOf(dst);
    const a = b.read(dst), filler = b.read(o[1]!);
    const count = b.and(b.read(o[2]!), b.imm(countMask(w)));
    b.if(isZero(b, count), () => keep(b, dst, a), () => {
      const { r, out } = funnel(b, w, a, filler, count);
      // Defined for a count of 1: the sign changed.
      b.flagsResult(w, r, out, b.xorC(sign(b, w, a), sign(b, w, r)));
      b.write(dst, r);
    });
  };
}

/** SHLX, SHRX, SARX: no flags. */
function flagless(operation: "shl" | "shr" | "sar"): Semantic {
  return (b, o) => {
    const w = widthOf(o[0]!);
    const a = b.read(o[1]!), count = b.and(b.read(o[2]!), b.imm(countMask(w)));
    b.write(o[0]!, b[operation](w, a, count));
  };
}

/** Shift and rotate rows. */
export const shiftRows: readonly Row[] = [
  ...group("ROL", "/0", rol),
  ...group("ROR", "/1", ror),
  ...group("RCL", "/2", rcl),
  ...group("RCR", "/3", rcr),
  ...group("SHL", "/4", shl),
  ...group("SHR", "/5", shr),
  ...group("SHL", "/6", shl),
  ...group("SAR", "/7", sar),
  row("SHLD", ["0F A4 /r Ev:rw Gv Ib", "0F A5 /r Ev:rw Gv CL"], {}, doubleShift(funnelLeft)),
  row("SHRD", ["0F AC /r Ev:rw Gv Ib", "0F AD /r Ev:rw Gv CL"], {}, doubleShift(funnelRight)),
  row("SHLX", ["VEX.L0.66.0F38 F7 /r Gy:w Ey By"], { cpuid: "bmi2", protectedOnly: true }, flagless("shl")),
  row("SARX", ["VEX.L0.F3.0F38 F7 /r Gy:w Ey By"], { cpuid: "bmi2", protectedOnly: true }, flagless("sar")),
  row("SHRX", ["VEX.L0.F2.0F38 F7 /r Gy:w Ey By"], { cpuid: "bmi2", protectedOnly: true }, flagless("shr")),
  row("RORX", ["VEX.L0.F2.0F3A F0 /r Gy:w Ey Ib"], {
    cpuid: "bmi2",
    protectedOnly: true,
  }, (b, o) => {
    const w = widthOf(o[0]!);
    b.write(o[0]!, b.rotr(w, b.read(o[1]!), b.and(b.read(o[2]!), b.imm(w - 1))));
  }),
];
