/**
 * Rows of the x87: all of D8 to DF, and FWAIT. Descriptions are thin: they look for a pending exception, read memory
 * operands of up to 64 bits, and call the procedure (x87_proc.ts) that does the work.
 *
 * Undocumented encodings that processors carry out (aliases such as DC D0+i, FFREEP, FNENI) are here under the names that
 * disassemblers give them.
 *
 * Where the SDM calls a condition code undefined, what silicon leaves was taken. One known difference between vendors stays:
 * FCOMI and its like clear C1, as the SDM says; AMD processors keep it.
 *
 * Room: `hw/isa/`; imports the state layout, the names in x87_arith.ts, and types.
 *
 * @module
 */
import { R, RFLAGS, S } from "../state.ts";
import type { Builder, Semantic, Width } from "./builder.ts";
import type { Row, RowFlags } from "./form.ts";
import { row } from "./form.ts";
import { ARITHMETIC, type ArithmeticName, type MemoryForm } from "./x87_arith.ts";
import type { StoreForm } from "./x87_move.ts";

const X87: RowFlags = { trap: "x87", cpuid: "fpu" };
const X87_CMOV: RowFlags = { trap: "x87", cpuid: "cmov" };
const X87_SSE3: RowFlags = { trap: "x87", cpuid: "sse3" };

const NM = 7;
/** CR0.MP and CR0.TS. */
const CR0_MP_TS = 0xa;
/** FSW.ES is bit 7. */
const ES_BIT = 7;
const bitOf = (mask: number) => 31 - Math.clz32(mask);

/** What every waiting instruction begins with: a pending unmasked exception is raised first. */
function wait<I, C, X>(b: Builder<I, C, X>): void {
  b.if(b.bit(b.state(S.FSW, 16), ES_BIT), () => b.call("x87_pending"));
}

/** A waiting instruction without operands, or with constant arguments. */
function plain(procedure: string, ...args: number[]): Semantic {
  return (b) => {
    wait(b);
    b.call(procedure, ...args.map((n) => b.imm(n)));
  };
}

/** A waiting instruction on ST(i): the register's number, then constant arguments. */
function onRegister(procedure: string, ...args: number[]): Semantic {
  return (b, [sti]) => {
    wait(b);
    b.call(procedure, b.read(sti!), ...args.map((n) => b.imm(n)));
  };
}

/** A waiting instruction that reads memory: the bits, the effective address, the segment, then constant arguments. */
function onValue(procedure: string, ...args: number[]): Semantic {
  return (b, [source]) => {
    wait(b);
    const value = b.read(source!);
    b.call(procedure, value, b.ea(source!), b.segmentOf(source!), ...args.map((n) => b.imm(n)));
  };
}

/** A waiting instruction whose procedure accesses memory itself: effective address, segment, constant arguments. */
function onAddress(procedure: string, ...args: number[]): Semantic {
  return (b, [target]) => {
    wait(b);
    b.call(procedure, b.ea(target!), b.segmentOf(target!), ...args.map((n) => b.imm(n)));
  };
}

/** An environment image: effective address, segment, and whether the operand size gives the 32-bit layout. */
function onEnvironment(procedure: string, waits: boolean): Semantic {
  return (b, [target], f) => {
    if (waits) wait(b);
    b.call(procedure, b.ea(target!), b.segmentOf(target!), b.imm(f.w === 16 ? 0 : 1));
  };
}

const MEMORY_LETTER: Readonly<Record<MemoryForm, string>> = {
  f32: "Md",
  f64: "Mq",
  i16: "Mw",
  i32: "Md",
  i64: "Mq",
};

/** ModRM.reg of D8 /n and its like. For DC and DE with a register, subtraction and division stand reversed. */
const DIGIT: Readonly<Record<ArithmeticName, number>> = { add: 0, mul: 1, sub: 4, subr: 5, div: 6, divr: 7 };
const SWAPPED: Readonly<Record<ArithmeticName, number>> = {
  add: 0,
  mul: 1,
  sub: 5,
  subr: 4,
  div: 7,
  divr: 6,
};

function arithmeticRows(name: ArithmeticName): Row[] {
  const upper = name.toUpperCase(), digit = DIGIT[name], swapped = SWAPPED[name];
  return [
    row(`F${upper}`, [`D8 /${digit} Md`], X87, onValue(`x87_${name}_f32`)),
    row(`F${upper}`, [`DC /${digit} Mq`], X87, onValue(`x87_${name}_f64`)),
    row(`FI${upper}`, [`DA /${digit} Md`], X87, onValue(`x87_${name}_i32`)),
    row(`FI${upper}`, [`DE /${digit} Mw`], X87, onValue(`x87_${name}_i16`)),
    row(`F${upper}`, [`D8 /${digit}:reg STi`], X87, onRegister(`x87_${name}`, 0, 0)),
    row(`F${upper}`, [`DC /${swapped}:reg STi:rw`], X87, onRegister(`x87_${name}`, 1, 0)),
    row(`F${upper}P`, [`DE /${swapped}:reg STi:rw`], X87, onRegister(`x87_${name}`, 1, 1)),
  ];
}

const compareRows: Row[] = [
  row("FCOM", ["D8 /2 Md"], X87, onValue("x87_com_f32", 0)),
  row("FCOMP", ["D8 /3 Md"], X87, onValue("x87_com_f32", 1)),
  row("FCOM", ["DC /2 Mq"], X87, onValue("x87_com_f64", 0)),
  row("FCOMP", ["DC /3 Mq"], X87, onValue("x87_com_f64", 1)),
  row("FICOM", ["DA /2 Md"], X87, onValue("x87_com_i32", 0)),
  row("FICOMP", ["DA /3 Md"], X87, onValue("x87_com_i32", 1)),
  row("FICOM", ["DE /2 Mw"], X87, onValue("x87_com_i16", 0)),
  row("FICOMP", ["DE /3 Mw"], X87, onValue("x87_com_i16", 1)),
  row("FCOM", ["D8 /2:reg STi", "DC /2:reg STi"], X87, onRegister("x87_com", 0)),
  row("FCOMP", ["D8 /3:reg STi", "DC /3:reg STi", "DE /2:reg STi"], X87, onRegister("x87_com", 1)),
  row("FCOMPP", ["DE /D9"], X87, plain("x87_com", 1, 2)),
  row("FUCOM", ["DD /4:reg STi"], X87, onRegister("x87_ucom", 0)),
  row("FUCOMP", ["DD /5:reg STi"], X87, onRegister("x87_ucom", 1)),
  row("FUCOMPP", ["DA /E9"], X87, plain("x87_ucom", 1, 2)),
];

/** FCOMI and its like: OF, SF and AF are cleared. */
function compareFlags(quiet: boolean, pops: number): Semantic {
  return (b, [sti]) => {
    wait(b);
    const flags = b.variable(b.callResult("x87_comi", b.read(sti!), b.imm(quiet ? 1 : 0), b.imm(pops)));
    b.setFlags({
      ZF: b.bit(flags.get(), bitOf(RFLAGS.ZF)),
      PF: b.bit(flags.get(), bitOf(RFLAGS.PF)),
      CF: b.bit(flags.get(), bitOf(RFLAGS.CF)),
      OF: b.always(false),
      SF: b.always(false),
      AF: b.always(false),
    });
  };
}

/** Condition codes (as in Jcc) of FCMOVcc. */
const CC_B = 2, CC_E = 4, CC_BE = 6, CC_P = 10, CC_NOT = 1;

function conditionalMove(cc: number): Semantic {
  return (b, [sti]) => {
    wait(b);
    b.call("x87_cmov", b.read(sti!), b.toInt(b.condition(cc)));
  };
}

const flagRows: Row[] = [
  row("FCOMI", ["DB /6:reg STi"], X87_CMOV, compareFlags(false, 0)),
  row("FCOMIP", ["DF /6:reg STi"], X87_CMOV, compareFlags(false, 1)),
  row("FUCOMI", ["DB /5:reg STi"], X87_CMOV, compareFlags(true, 0)),
  row("FUCOMIP", ["DF /5:reg STi"], X87_CMOV, compareFlags(true, 1)),
  row("FCMOVB", ["DA /0:reg STi"], X87_CMOV, conditionalMove(CC_B)),
  row("FCMOVE", ["DA /1:reg STi"], X87_CMOV, conditionalMove(CC_E)),
  row("FCMOVBE", ["DA /2:reg STi"], X87_CMOV, conditionalMove(CC_BE)),
  row("FCMOVU", ["DA /3:reg STi"], X87_CMOV, conditionalMove(CC_P)),
  row("FCMOVNB", ["DB /0:reg STi"], X87_CMOV, conditionalMove(CC_B | CC_NOT)),
  row("FCMOVNE", ["DB /1:reg STi"], X87_CMOV, conditionalMove(CC_E | CC_NOT)),
  row("FCMOVNBE", ["DB /2:reg STi"], X87_CMOV, conditionalMove(CC_BE | CC_NOT)),
  row("FCMOVNU", ["DB /3:reg STi"], X87_CMOV, conditionalMove(CC_P | CC_NOT)),
];

function load(mnemonic: string, encoding: string, form: MemoryForm): Row {
  return row(mnemonic, [`${encoding} ${MEMORY_LETTER[form]}`], X87, onValue(`x87_ld_${form}`));
}

function store(mnemonic: string, encoding: string, form: StoreForm, pops: number): Row {
  const flags = mnemonic === "FISTTP" ? X87_SSE3 : X87;
  return row(mnemonic, [encoding], flags, onAddress(`x87_st_${form}`, pops));
}

const moveRows: Row[] = [
  load("FLD", "D9 /0", "f32"),
  load("FLD", "DD /0", "f64"),
  row("FLD", ["DB /5 Mt"], X87, onAddress("x87_ld_f80")),
  row("FLD", ["D9 /0:reg STi"], X87, onRegister("x87_ld")),
  load("FILD", "DF /0", "i16"),
  load("FILD", "DB /0", "i32"),
  load("FILD", "DF /5", "i64"),
  row("FBLD", ["DF /4 Mt"], X87, onAddress("x87_ld_bcd")),
  store("FST", "D9 /2 Md:w", "f32", 0),
  store("FST", "DD /2 Mq:w", "f64", 0),
  store("FSTP", "D9 /3 Md:w", "f32", 1),
  store("FSTP", "DD /3 Mq:w", "f64", 1),
  store("FSTP", "DB /7 Mt:w", "f80", 1),
  store("FIST", "DF /2 Mw:w", "i16", 0),
  store("FIST", "DB /2 Md:w", "i32", 0),
  store("FISTP", "DF /3 Mw:w", "i16", 1),
  store("FISTP", "DB /3 Md:w", "i32", 1),
  store("FISTP", "DF /7 Mq:w", "i64", 1),
  store("FISTTP", "DF /1 Mw:w", "t16", 1),
  store("FISTTP", "DB /1 Md:w", "t32", 1),
  store("FISTTP", "DD /1 Mq:w", "t64", 1),
  store("FBSTP", "DF /6 Mt:w", "bcd", 1),
  row("FST", ["DD /2:reg STi:w"], X87, onRegister("x87_st", 0)),
  row("FSTP", ["DD /3:reg STi:w", "DF /2:reg STi:w", "DF /3:reg STi:w"], X87, onRegister("x87_st", 1)),
  row("FSTPNCE", ["D9 /3:reg STi:w"], X87, onRegister("x87_st_nce")),
  row("FXCH", ["D9 /1:reg STi:rw", "DD /1:reg STi:rw", "DF /1:reg STi:rw"], X87, onRegister("x87_xch")),
  row("FFREE", ["DD /0:reg STi:w"], X87, onRegister("x87_free", 0)),
  row("FFREEP", ["DF /0:reg STi:w"], X87, onRegister("x87_free", 1)),
];

/** D9 with a whole ModRM byte: mnemonic, byte, procedure. */
const PLAIN: readonly (readonly [mnemonic: string, modrm: string, procedure: string])[] = [
  ["FNOP", "D0", "x87_nop"],
  ["FCHS", "E0", "x87_chs"],
  ["FABS", "E1", "x87_abs"],
  ["FTST", "E4", "x87_tst"],
  ["FXAM", "E5", "x87_xam"],
  ["FLD1", "E8", "x87_ld1"],
  ["FLDL2T", "E9", "x87_ldl2t"],
  ["FLDL2E", "EA", "x87_ldl2e"],
  ["FLDPI", "EB", "x87_ldpi"],
  ["FLDLG2", "EC", "x87_ldlg2"],
  ["FLDLN2", "ED", "x87_ldln2"],
  ["FLDZ", "EE", "x87_ldz"],
  ["F2XM1", "F0", "x87_2xm1"],
  ["FYL2X", "F1", "x87_yl2x"],
  ["FPTAN", "F2", "x87_ptan"],
  ["FPATAN", "F3", "x87_patan"],
  ["FXTRACT", "F4", "x87_xtract"],
  ["FPREM1", "F5", "x87_prem1"],
  ["FDECSTP", "F6", "x87_decstp"],
  ["FINCSTP", "F7", "x87_incstp"],
  ["FPREM", "F8", "x87_prem"],
  ["FYL2XP1", "F9", "x87_yl2xp1"],
  ["FSQRT", "FA", "x87_sqrt"],
  ["FSINCOS", "FB", "x87_sincos"],
  ["FRNDINT", "FC", "x87_rndint"],
  ["FSCALE", "FD", "x87_scale"],
  ["FSIN", "FE", "x87_sin"],
  ["FCOS", "FF", "x87_cos"],
];

/** Writes one of the 16-bit words to an operand. */
function storeWord(offset: number): Semantic {
  return (b, [target]) => b.write(target!, b.state(offset, 16));
}

const AX_WIDTH: Width = 16;

const controlRows: Row[] = [
  row("FLDENV", ["D9 /4 M"], X87, onEnvironment("x87_ldenv", true)),
  row("FNSTENV", ["D9 /6 M"], X87, onEnvironment("x87_stenv", false)),
  row("FRSTOR", ["DD /4 M"], X87, onEnvironment("x87_rstor", true)),
  row("FNSAVE", ["DD /6 M"], X87, onEnvironment("x87_save", false)),
  row("FLDCW", ["D9 /5 Mw"], X87, (b, [source]) => {
    wait(b);
    b.call("x87_ldcw", b.read(source!));
  }),
  row("FNSTCW", ["D9 /7 Mw:w"], X87, storeWord(S.FCW)),
  row("FNSTSW", ["DD /7 Mw:w"], X87, storeWord(S.FSW)),
  row("FNSTSW", ["DF /E0"], X87, (b) => b.setReg(AX_WIDTH, R.RAX, b.state(S.FSW, 16))),
  row("FNCLEX", ["DB /E2"], X87, (b) => b.call("x87_clex")),
  row("FNINIT", ["DB /E3"], X87, (b) => b.call("x87_init")),
  // No-operations since the 387.
  row("FNENI", ["DB /E0"], X87, () => {}),
  row("FNDISI", ["DB /E1"], X87, () => {}),
  row("FNSETPM", ["DB /E4"], X87, () => {}),
  row("WAIT", ["9B"], { cpuid: "fpu" }, (b) => {
    const monitored = b.and(b.state(S.CR0, 64), b.imm(CR0_MP_TS));
    b.faultIf(b.eq(monitored, b.imm(CR0_MP_TS)), NM);
    wait(b);
  }),
];

/** All rows of the x87. */
export const x87Rows: readonly Row[] = [
  ...ARITHMETIC.flatMap(arithmeticRows),
  ...compareRows,
  ...flagRows,
  ...moveRows,
  ...PLAIN.map(([mnemonic, modrm, procedure]) => row(mnemonic, [`D9 /${modrm}`], X87, plain(procedure))),
  ...controlRows,
];
