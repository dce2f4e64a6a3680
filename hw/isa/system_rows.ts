/**
 * Segment registers, descriptor tables, far transfers, events and flags: rows of the instruction table (SDM vol. 2). What they
 * do is in hw/sys/. Control registers, MSRs, ports and the like are in system2_rows.ts.
 *
 * Room: `hw/isa/`; imports only the row's own vocabulary.
 *
 * @module
 */
import type { Builder, Semantic, Width } from "./builder.ts";
import { type Form, type Operand, type Row, row } from "./form.ts";
import { R, RFLAGS, S, SEG } from "../state.ts";

const UD = 6, GP = 13;
/** Bit numbers in RFLAGS, CR0 and CR4. */
const VM_BIT = 17, CR0_PE_BIT = 0, CR4_UMIP_BIT = 11;
const ends = { ends: true } as const;
const protectedOnly = { protectedOnly: true } as const;

/** Current privilege level. */
function cpl<I, C, X>(b: Builder<I, C, X>): I {
  return b.state(S.CPL, 32);
}
/** RFLAGS.IOPL. */
function iopl<I, C, X>(b: Builder<I, C, X>): I {
  return b.and(b.shr(32, b.state(S.RFLAGS, 32), b.imm(12)), b.imm(3));
}

/** UMIP: outside CPL 0 the instructions that show system registers raise #GP(0). */
export function checkUmip<I, C, X>(b: Builder<I, C, X>): void {
  const forbidden = b.andC(b.bit(b.state(S.CR4, 64), CR4_UMIP_BIT), b.ne(cpl(b), b.imm(0)));
  b.faultIf(forbidden, GP, 0);
}

/** Virtual-8086 mode with IOPL < 3: PUSHF and POPF raise #GP(0). */
function checkVirtual8086Flags<I, C, X>(b: Builder<I, C, X>, f: Form): void {
  if (f.mode === 2) return;
  const virtual = b.bit(b.state(S.RFLAGS, 32), VM_BIT);
  b.faultIf(b.andC(virtual, b.ne(iopl(b), b.imm(3))), GP, 0);
}

// ---- segment registers

const movFromSegment: Semantic = (b, [dst, seg]) => {
  const selector = b.state;
  void selector;
  b.write(dst!, selectorOf(b, seg!));
};

/** Selector of the segment register that `seg` names. */
function selectorOf<I, C, X>(b: Builder<I, C, X>, seg: Operand): I {
  return seg.fixed === undefined
    ? b.callResult("selector", b.registerNumber(seg))
    : b.state(S.SEGSEL + seg.fixed * 4, 16);
}

/** PUSH seg. A 32-bit one moves two bytes and leaves the upper half of the slot as it is (as all recent Intel processors do). */
function pushSegment(seg: number): Semantic {
  return (b, _o, f) => {
    const size = f.w / 8;
    const selector = b.state(S.SEGSEL + seg * 4, 16);
    b.stackStore(f.w === 32 ? 16 : f.w, -size, selector);
    b.stackAdjust(b.imm(-size));
  };
}

function popSegment(seg: number): Semantic {
  return (b, _o, f) => {
    const selector = b.zx(16, b.stackLoad(f.w, 0));
    if (seg === SEG.SS) {
      b.callEnd("popSs", selector, b.imm(f.w / 8));
      return;
    }
    b.call("loadSegment", b.imm(seg), selector);
    b.stackAdjust(b.imm(f.w / 8));
  };
}

/** Reads the far pointer at memory operand `o`: its offset has the operand size. */
function farPointer<I, C, X>(b: Builder<I, C, X>, f: Form, o: Operand): { offset: I; selector: I } {
  const ea = b.ea(o);
  const offset = b.load(f.segment, ea, f.w);
  const selector = b.load(f.segment, b.add(f.aw, ea, b.imm(f.w / 8)), 16);
  return { offset, selector };
}

/** LDS, LES, LSS, LFS, LGS. */
function loadFarPointer(seg: number): Semantic {
  return (b, o, f) => {
    const { offset, selector } = farPointer(b, f, o[1]!);
    b.call("loadSegment", b.imm(seg), selector);
    b.write(o[0]!, offset);
  };
}

// ---- tables

/** SGDT, SIDT: limit, then 4 bytes of base, or 8 in 64-bit mode. */
function storeTable(at: number): Semantic {
  return (b, o, f) => {
    checkUmip(b);
    const w: Width = f.mode === 2 ? 64 : 32;
    const ea = b.ea(o[0]!), second = b.add(f.aw, ea, b.imm(2));
    b.probeWrite(f.segment, second, w);
    b.store(f.segment, ea, 16, b.state(at + 8, 16));
    b.store(f.segment, second, w, b.state(at, w));
  };
}

/** LGDT, LIDT: a 16-bit operand size takes 24 bits of base. */
function loadTable(procedure: string): Semantic {
  return (b, o, f) => {
    const w: Width = f.mode === 2 ? 64 : 32;
    const ea = b.ea(o[0]!);
    const limit = b.load(f.segment, ea, 16);
    const base = b.load(f.segment, b.add(f.aw, ea, b.imm(2)), w);
    const is16 = f.mode !== 2 && f.w === 16;
    b.callEnd(procedure, limit, is16 ? b.and(base, b.imm(0xff_ffff)) : base);
  };
}

/** SLDT, STR: the selector of LDTR or TR. */
function storeSelector(seg: number): Semantic {
  return (b, o) => {
    checkUmip(b);
    b.write(o[0]!, b.state(S.SEGSEL + seg * 4, 16));
  };
}

/** LAR, LSL: the destination changes only when ZF is set. */
function describeSelector(procedure: string): Semantic {
  return (b, o) => {
    const selector = b.zx(16, b.read(o[1]!));
    b.call(procedure, selector);
    const valid = b.ne(b.state(S.ARG + 8, 32), b.imm(0));
    const value = b.state(S.ARG, 32);
    b.if(valid, () => b.write(o[0]!, o[0]!.width === 16 ? b.zx(16, value) : value));
    b.setFlags({ ZF: valid });
  };
}

function verifySelector(procedure: string): Semantic {
  return (b, o) => {
    b.call(procedure, b.zx(16, b.read(o[0]!)));
    b.setFlags({ ZF: b.ne(b.state(S.ARG + 8, 32), b.imm(0)) });
  };
}

/** ARPL: the destination's RPL is raised to the source's. */
const arpl: Semantic = (b, o) => {
  const dst = b.read(o[0]!), src = b.read(o[1]!);
  const rpl = b.and(src, b.imm(3));
  const low = b.ltU(b.and(dst, b.imm(3)), rpl);
  b.if(low, () => b.write(o[0]!, b.or(b.and(dst, b.imm(0xfffc)), rpl)));
  b.setFlags({ ZF: low });
};

// ---- far transfers

function farDirect(procedure: string): Semantic {
  return (b, o, f) => b.callEnd(procedure, b.farSelector(o[0]!), b.read(o[0]!), b.imm(f.w));
}
function farIndirect(procedure: string): Semantic {
  return (b, o, f) => {
    const { offset, selector } = farPointer(b, f, o[0]!);
    b.callEnd(procedure, selector, offset, b.imm(f.w));
  };
}

// ---- flags

/** PUSHF: the image has VM and RF clear. */
const pushf: Semantic = (b, _o, f) => {
  checkVirtual8086Flags(b, f);
  const image = b.and(b.flagsImage(), b.imm(0xfc_ffff));
  b.stackStore(f.w, -f.w / 8, b.zx(f.w, image));
  b.stackAdjust(b.imm(-f.w / 8));
};

const popf: Semantic = (b, _o, f) => {
  checkVirtual8086Flags(b, f);
  const image = b.stackLoad(f.w, 0);
  b.stackAdjust(b.imm(f.w / 8));
  b.callEnd("popf", image, b.imm(f.w));
};

/** CLI: CPL ≤ IOPL; virtual-8086 mode is CPL 3, real mode CPL 0. */
const cli: Semantic = (b) => {
  b.faultIf(b.ltU(iopl(b), cpl(b)), GP, 0);
  b.setState(S.RFLAGS, 32, b.and(b.state(S.RFLAGS, 32), b.imm(~RFLAGS.IF >>> 0)));
};

const sti: Semantic = (b) => {
  b.faultIf(b.ltU(iopl(b), cpl(b)), GP, 0);
  const already = b.bit(b.state(S.RFLAGS, 32), Math.log2(RFLAGS.IF));
  b.if(b.notC(already), () => b.callEnd("sti"));
};

/** CLAC, STAC. */
function setAc(value: 0 | 1): Semantic {
  return (b) => {
    b.faultIf(b.ne(cpl(b), b.imm(0)), UD);
    b.callEnd("setAc", b.imm(value));
  };
}

// ---- system calls

/** SYSRET and SYSEXIT return to 64-bit code with REX.W. */
function exitTo(procedure: string): Semantic {
  return (b, _o, f) => b.callEnd(procedure, b.imm(f.w === 64 ? 64 : 32));
}

/** #UD unless CR0.PE. */
export function requireProtected<I, C, X>(b: Builder<I, C, X>): void {
  b.faultIf(b.notC(b.bit(b.state(S.CR0, 64), CR0_PE_BIT)), UD);
}

/** Rows of segments, transfers, events and flags. */
export const systemRows: readonly Row[] = [
  row("MOV", ["8C /0:reg Rv:w", "8C /0:mem Mw:w"], {}, (b, o) => b.write(o[0]!, b.state(S.SEGSEL, 16))),
  row("MOV", ["8C /1:reg Rv:w", "8C /1:mem Mw:w"], {}, (b, o) => b.write(o[0]!, b.state(S.SEGSEL + 4, 16))),
  row("MOV", ["8C /2:reg Rv:w", "8C /2:mem Mw:w"], {}, (b, o) => b.write(o[0]!, b.state(S.SEGSEL + 8, 16))),
];
