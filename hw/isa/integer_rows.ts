/**
 * Arithmetic: ADD to CMPXCHG16B, multiplication and division (SDM vol. 1, "General-Purpose Instructions";
 * details under each mnemonic in vol. 2).
 *
 * Room: `hw/isa/`; rows of the instruction table, imports only the row's own vocabulary.
 *
 * Where the SDM leaves flags undefined: multiplications set SF, ZF and PF of the low half and clear AF; divisions
 * leave all flags as they were.
 *
 * @module
 */
import type { Builder, Semantic, Width } from "./builder.ts";
import { type Operand, type Row, row } from "./form.ts";
import { R } from "../state.ts";
import { constant, isZero, sign, widthOf } from "./integer_common.ts";

const DE = 0;
const GP = 13;

/** The nine encodings of ADD and its seven sisters; `n` is the row in the opcode map. */
function classicEncodings(n: number, access: "rw" | "r"): string[] {
  const opcode = (low: number) => (n * 8 + low).toString(16).toUpperCase().padStart(2, "0");
  return [
    `${opcode(0)} /r Eb:${access} Gb`,
    `${opcode(1)} /r Ev:${access} Gv`,
    `${opcode(2)} /r Gb:${access} Eb`,
    `${opcode(3)} /r Gv:${access} Ev`,
    `${opcode(4)} AL:${access} Ib`,
    `${opcode(5)} rAX:${access} Iz`,
    `80 /${n} Eb:${access} Ib`,
    `81 /${n} Ev:${access} Iz`,
    `83 /${n} Ev:${access} Ibs`,
  ];
}

/** ADD, OR, ADC, SBB, AND, SUB, XOR or CMP, with the alias at 82H that 64-bit mode lacks. */
function classic(mnemonic: string, n: number, semantic: Semantic): Row[] {
  const access = mnemonic === "CMP" ? "r" : "rw";
  const lock = mnemonic !== "CMP";
  return [
    row(mnemonic, classicEncodings(n, access), { lock }, semantic),
    row(mnemonic, [`82 /${n} Eb:${access} Ib`], { lock, no64: true }, semantic),
  ];
}

/** AND, OR or XOR. */
function bitwise(operation: "and" | "or" | "xor"): Semantic {
  return (b, o) => {
    const dst = o[0]!, w = widthOf(dst);
    const r = b[operation](b.read(dst), b.read(o[1]!));
    b.flagsLogic(w, r);
    b.write(dst, r);
  };
}

const inc: Semantic = (b, o) => {
  const dst = o[0]!, w = widthOf(dst);
  const r = b.add(w, b.read(dst), b.imm(1));
  b.flagsInc(w, r);
  b.write(dst, r);
};

const dec: Semantic = (b, o) => {
  const dst = o[0]!, w = widthOf(dst);
  const r = b.sub(w, b.read(dst), b.imm(1));
  b.flagsDec(w, r);
  b.write(dst, r);
};

/** ADCX and ADOX: an addition whose carry goes in and out through one flag; all others are untouched. */
function addThrough(flag: "CF" | "OF"): Semantic {
  return (b, o) => {
    const dst = o[0]!, w = widthOf(dst);
    const a = b.read(dst), c = b.read(o[1]!);
    const partial = b.add(w, a, c);
    const r = b.add(w, partial, b.toInt(b.flag(flag)));
    const carry = b.orC(b.ltU(partial, a), b.ltU(r, partial));
    b.setFlags(flag === "CF" ? { CF: carry } : { OF: carry });
    b.write(dst, r);
  };
}

/** Writes a double-width result to AX, DX:AX, EDX:EAX or RDX:RAX. */
function setAccumulatorPair<I, C, X>(b: Builder<I, C, X>, w: Width, low: I, high: I): void {
  if (w === 8) {
    b.setReg(16, R.RAX, b.or(low, b.shl(16, high, b.imm(8))));
  } else {
    b.setReg(w, R.RAX, low);
    b.setReg(w, R.RDX, high);
  }
}

const mul: Semantic = (b, o) => {
  const src = o[0]!, w = widthOf(src);
  const a = b.reg(w, R.RAX), c = b.read(src);
  const product = b.mul(64, a, c);
  const low = b.zx(w, product);
  const high = w === 64 ? b.mulHighU(a, c) : b.zx(w, b.shr(64, product, b.imm(w)));
  const overflow = b.notC(isZero(b, high));
  b.flagsResult(w, low, overflow, overflow);
  setAccumulatorPair(b, w, low, high);
};

/** Low and high half of the signed product, and whether the low half alone does not hold it. */
function signedProduct<I, C, X>(b: Builder<I, C, X>, w: Width, a: I, c: I): { low: I; high: I; overflow: C } {
  if (w === 64) {
    const low = b.mul(64, a, c), high = b.mulHighS(a, c);
    return { low, high, overflow: b.ne(high, b.sar(64, low, b.imm(63))) };
  }
  const product = b.mul(64, b.sx(w, 64, a), b.sx(w, 64, c));
  const low = b.zx(w, product);
  const high = b.zx(w, b.shr(64, product, b.imm(w)));
  return { low, high, overflow: b.ne(b.sx(w, 64, low), product) };
}

const imulWide: Semantic = (b, o) => {
  const src = o[0]!, w = widthOf(src);
  const { low, high, overflow } = signedProduct(b, w, b.reg(w, R.RAX), b.read(src));
  b.flagsResult(w, low, overflow, overflow);
  setAccumulatorPair(b, w, low, high);
};

/** IMUL with two or three operands: the last two are the factors. */
const imul: Semantic = (b, o) => {
  const dst = o[0]!, w = widthOf(dst);
  const factors = o.length === 3 ? [o[1]!, o[2]!] as const : [dst, o[1]!] as const;
  const { low, overflow } = signedProduct(b, w, b.read(factors[0]), b.read(factors[1]));
  b.flagsResult(w, low, overflow, overflow);
  b.write(dst, low);
};

/**
 * Quotient of the 128-bit high:low by a 64-bit divisor: long division with two 32-bit digits (Knuth, The Art of
 * Computer Programming, vol. 2, algorithm D).
 *
 * Preconditions: high < divisor, unsigned, so that the quotient fits.
 */
function divide128<I, C, X>(b: Builder<I, C, X>, high: I, low: I, divisor: I): I {
  const n32 = b.imm(32), digitMax = b.imm(0xffff_ffffn);
  const shift = b.clz(64, divisor);
  const v = b.shl(64, divisor, shift);
  const vHigh = b.shr(64, v, n32), vLow = b.and(v, digitMax);
  const moved = b.shr(64, b.shr(64, low, b.imm(1)), b.sub(64, b.imm(63), shift));
  const u = b.or(b.shl(64, high, shift), moved);
  const uLow = b.shl(64, low, shift);

  /** One quotient digit of rest * 2^32 + next: the estimate from the leading digit is at most two too large. */
  const digit = (rest: I, next: I): I => {
    const q0 = b.divU(rest, vHigh);
    const r0 = b.sub(64, rest, b.mul(64, q0, vHigh));
    const tooLarge = (q: I, r: I): C =>
      b.orC(b.ltU(digitMax, q), b.ltU(b.or(b.shl(64, r, n32), next), b.mul(64, q, vLow)));
    const first = tooLarge(q0, r0);
    const q1 = b.select(first, b.sub(64, q0, b.imm(1)), q0);
    const r1 = b.select(first, b.add(64, r0, vHigh), r0);
    const second = b.andC(b.andC(first, b.leU(r1, digitMax)), tooLarge(q1, r1));
    return b.select(second, b.sub(64, q1, b.imm(1)), q1);
  };

  const nextHigh = b.shr(64, uLow, n32), nextLow = b.and(uLow, digitMax);
  const qHigh = digit(u, nextHigh);
  const rest = b.sub(64, b.or(b.shl(64, u, n32), nextHigh), b.mul(64, qHigh, v));
  const qLow = digit(rest, nextLow);
  return b.or(b.shl(64, qHigh, n32), qLow);
}

/** The dividend of DIV and IDIV below 64 bits, zero-extended: AX, DX:AX or EDX:EAX. */
function narrowDividend<I, C, X>(b: Builder<I, C, X>, w: 8 | 16 | 32): I {
  if (w === 8) return b.reg(16, R.RAX);
  return b.or(b.reg(w, R.RAX), b.shl(64, b.reg(w, R.RDX), b.imm(w)));
}

const div: Semantic = (b, o) => {
  const src = o[0]!, w = widthOf(src);
  const divisor = b.read(src);
  if (w !== 64) {
    b.faultIf(isZero(b, divisor), DE);
    const dividend = narrowDividend(b, w);
    const q = b.divU(dividend, divisor);
    b.faultIf(b.ltU(constant(b, w, -1), q), DE);
    setAccumulatorPair(b, w, q, b.remU(dividend, divisor));
    return;
  }
  const high = b.reg(64, R.RDX), low = b.reg(64, R.RAX);
  // Holds for a divisor of 0 as well.
  b.faultIf(b.leU(divisor, high), DE);
  const quotient = b.variable(b.imm(0));
  b.if(isZero(b, high), () => {
    quotient.set(b.divU(low, divisor));
  }, () => {
    quotient.set(divide128(b, high, low, divisor));
  });
  const q = quotient.get();
  setAccumulatorPair(b, 64, q, b.sub(64, low, b.mul(64, q, divisor)));
};

const idiv: Semantic = (b, o) => {
  const src = o[0]!, w = widthOf(src);
  const signMinimum = b.imm(1n << 63n), minusOne = b.imm(-1n);
  const divisor = b.sx(w, 64, b.read(src));
  b.faultIf(isZero(b, divisor), DE);
  const overflows = (n: typeof divisor) => b.andC(b.eq(n, signMinimum), b.eq(divisor, minusOne));
  if (w !== 64) {
    const dividend = w === 32 ? narrowDividend(b, 32) : b.sx(w === 8 ? 16 : 32, 64, narrowDividend(b, w));
    b.faultIf(overflows(dividend), DE);
    const q = b.divS(dividend, divisor);
    b.faultIf(b.ne(b.sx(w, 64, b.zx(w, q)), q), DE);
    setAccumulatorPair(b, w, b.zx(w, q), b.zx(w, b.remS(dividend, divisor)));
    return;
  }
  const high = b.reg(64, R.RDX), low = b.reg(64, R.RAX);
  const quotient = b.variable(b.imm(0));
  b.if(b.eq(high, b.sar(64, low, b.imm(63))), () => {
    b.faultIf(overflows(low), DE);
    quotient.set(b.divS(low, divisor));
  }, () => {
    const negativeDividend = sign(b, 64, high), negativeDivisor = sign(b, 64, divisor);
    const carry = b.toInt(isZero(b, low));
    const absHigh = b.select(negativeDividend, b.add(64, b.not(64, high), carry), high);
    const absLow = b.select(negativeDividend, b.neg(64, low), low);
    const absDivisor = b.select(negativeDivisor, b.neg(64, divisor), divisor);
    b.faultIf(b.leU(absDivisor, absHigh), DE);
    const absQuotient = divide128(b, absHigh, absLow, absDivisor);
    const negative = b.xorC(negativeDividend, negativeDivisor);
    const largest = b.select(negative, signMinimum, b.imm((1n << 63n) - 1n));
    b.faultIf(b.ltU(largest, absQuotient), DE);
    quotient.set(b.select(negative, b.neg(64, absQuotient), absQuotient));
  });
  const q = quotient.get();
  setAccumulatorPair(b, 64, q, b.sub(64, low, b.mul(64, q, divisor)));
};

const cmpxchg: Semantic = (b, o) => {
  const dst = o[0]!, w = widthOf(dst);
  const a = b.read(dst), replacement = b.read(o[1]!), accumulator = b.reg(w, R.RAX);
  const equal = b.eq(accumulator, a);
  b.flagsSub(w, accumulator, a, b.sub(w, accumulator, a));
  // Memory is written in both cases, as on silicon; a register that differs keeps even its upper half.
  b.if(equal, () => b.write(dst, replacement), () => {
    if (dst.kind === "mem") b.write(dst, a);
    b.setReg(w, R.RAX, a);
  });
};

const cmpxchg8b: Semantic = (b, o) => {
  const dst = o[0]!, n32 = b.imm(32);
  const pair = (high: number, low: number) => b.or(b.shl(64, b.reg(32, high), n32), b.reg(32, low));
  const a = b.read(dst);
  const equal = b.eq(a, pair(R.RDX, R.RAX));
  b.write(dst, b.select(equal, pair(R.RCX, R.RBX), a));
  b.setFlags({ ZF: equal });
  b.if(b.notC(equal), () => {
    b.setReg(32, R.RAX, b.zx(32, a));
    b.setReg(32, R.RDX, b.shr(64, a, n32));
  });
};

/** All 16 bytes in one access each way, so that nothing can come between the halves. */
const cmpxchg16b: Semantic = (b, o, f) => {
  const dst: Operand = o[0]!;
  b.faultIf(b.ne(b.and(b.linear(dst), b.imm(15)), b.imm(0)), GP, 0);
  b.probeWrite(f.segment, b.ea(dst), 64);
  const a = b.readX(dst);
  const low = b.extract(64, a, 0), high = b.extract(64, a, 1);
  const equal = b.andC(b.eq(low, b.reg(64, R.RAX)), b.eq(high, b.reg(64, R.RDX)));
  const newLow = b.select(equal, b.reg(64, R.RBX), low), newHigh = b.select(equal, b.reg(64, R.RCX), high);
  b.writeX(dst, b.insert(64, b.insert(64, a, 0, newLow), 1, newHigh));
  b.setFlags({ ZF: equal });
  b.if(b.notC(equal), () => {
    b.setReg(64, R.RAX, low);
    b.setReg(64, R.RDX, high);
  });
};

/** Arithmetic rows. */
export const integerRows: readonly Row[] = [
  ...classic("ADD", 0, (b, o) => {
    const dst = o[0]!, w = widthOf(dst);
    const a = b.read(dst), c = b.read(o[1]!), r = b.add(w, a, c);
    b.flagsAdd(w, a, c, r);
    b.write(dst, r);
  }),
  ...classic("OR", 1, bitwise("or")),
  ...classic("ADC", 2, (b, o) => {
    const dst = o[0]!, w = widthOf(dst);
    const a = b.read(dst), c = b.read(o[1]!);
    const r = b.add(w, b.add(w, a, c), b.toInt(b.flag("CF")));
    b.flagsAdd(w, a, c, r);
    b.write(dst, r);
  }),
  ...classic("SBB", 3, (b, o) => {
    const dst = o[0]!, w = widthOf(dst);
    const a = b.read(dst), c = b.read(o[1]!);
    const r = b.sub(w, b.sub(w, a, c), b.toInt(b.flag("CF")));
    b.flagsSub(w, a, c, r);
    b.write(dst, r);
  }),
  ...classic("AND", 4, bitwise("and")),
  ...classic("SUB", 5, (b, o) => {
    const dst = o[0]!, w = widthOf(dst);
    const a = b.read(dst), c = b.read(o[1]!), r = b.sub(w, a, c);
    b.flagsSub(w, a, c, r);
    b.write(dst, r);
  }),
  ...classic("XOR", 6, bitwise("xor")),
  ...classic("CMP", 7, (b, o) => {
    const dst = o[0]!, w = widthOf(dst);
    const a = b.read(dst), c = b.read(o[1]!);
    b.flagsSub(w, a, c, b.sub(w, a, c));
  }),
  row(
    "TEST",
    [
      "84 /r Eb Gb",
      "85 /r Ev Gv",
      "A8 AL Ib",
      "A9 rAX Iz",
      "F6 /0 Eb Ib",
      "F6 /1 Eb Ib",
      "F7 /0 Ev Iz",
      "F7 /1 Ev Iz",
    ],
    {},
    (b, o) => b.flagsLogic(widthOf(o[0]!), b.and(b.read(o[0]!), b.read(o[1]!))),
  ),
  row("NOT", ["F6 /2 Eb:rw", "F7 /2 Ev:rw"], { lock: true }, (b, o) => {
    const dst = o[0]!;
    b.write(dst, b.not(widthOf(dst), b.read(dst)));
  }),
  row("NEG", ["F6 /3 Eb:rw", "F7 /3 Ev:rw"], { lock: true }, (b, o) => {
    const dst = o[0]!, w = widthOf(dst);
    const a = b.read(dst), r = b.neg(w, a);
    b.flagsSub(w, b.imm(0), a, r);
    b.write(dst, r);
  }),
  row("INC", ["FE /0 Eb:rw", "FF /0 Ev:rw"], { lock: true }, inc),
  row("INC", ["40 +r Zv:rw"], { no64: true }, inc),
  row("DEC", ["FE /1 Eb:rw", "FF /1 Ev:rw"], { lock: true }, dec),
  row("DEC", ["48 +r Zv:rw"], { no64: true }, dec),
  row("ADCX", ["66 0F 38 F6 /r Gy:rw Ey"], { cpuid: "adx" }, addThrough("CF")),
  row("ADOX", ["F3 0F 38 F6 /r Gy:rw Ey"], { cpuid: "adx" }, addThrough("OF")),
  row("MUL", ["F6 /4 Eb", "F7 /4 Ev"], {}, mul),
  row("IMUL", ["F6 /5 Eb", "F7 /5 Ev"], {}, imulWide),
  row("IMUL", ["0F AF /r Gv:rw Ev", "69 /r Gv:w Ev Iz", "6B /r Gv:w Ev Ibs"], {}, imul),
  row("MULX", ["VEX.L0.F2.0F38 F6 /r Gy:w By:w Ey"], { cpuid: "bmi2", protectedOnly: true }, (b, o) => {
    const w = widthOf(o[0]!);
    const a = b.reg(w, R.RDX), c = b.read(o[2]!);
    const product = b.mul(64, a, c);
    const high = w === 64 ? b.mulHighU(a, c) : b.shr(64, product, b.imm(32));
    // The high half wins where both destinations are one register.
    b.write(o[1]!, b.zx(w, product));
    b.write(o[0]!, high);
  }),
  row("DIV", ["F6 /6 Eb", "F7 /6 Ev"], {}, div),
  row("IDIV", ["F6 /7 Eb", "F7 /7 Ev"], {}, idiv),
  row("CBW", ["98"], {}, (b, _o, f) => {
    const half = f.w === 64 ? 32 : f.w === 32 ? 16 : 8;
    b.setReg(f.w, R.RAX, b.sx(half, f.w, b.reg(half, R.RAX)));
  }),
  row("CWD", ["99"], {}, (b, _o, f) => {
    b.setReg(f.w, R.RDX, b.sar(f.w, b.reg(f.w, R.RAX), b.imm(f.w - 1)));
  }),
  row("XADD", ["0F C0 /r Eb:rw Gb:rw", "0F C1 /r Ev:rw Gv:rw"], { lock: true }, (b, o) => {
    const dst = o[0]!, src = o[1]!, w = widthOf(dst);
    const a = b.read(dst), c = b.read(src), r = b.add(w, a, c);
    b.flagsAdd(w, a, c, r);
    // Memory first, its address may depend on the source; of two names of one register the sum wins.
    if (dst.kind === "mem") b.write(dst, r);
    b.write(src, a);
    if (dst.kind !== "mem") b.write(dst, r);
  }),
  row("CMPXCHG", ["0F B0 /r Eb:rw Gb", "0F B1 /r Ev:rw Gv"], { lock: true }, cmpxchg),
  row("CMPXCHG8B", ["0F C7 /1:mem W0 Mq:rw"], { lock: true, cpuid: "cx8" }, cmpxchg8b),
  row("CMPXCHG16B", ["0F C7 /1:mem W1 Mdq:rw"], { lock: true, cpuid: "cx16" }, cmpxchg16b),
];
