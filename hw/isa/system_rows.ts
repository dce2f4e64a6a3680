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
import { RFLAGS, S, SEG } from "../state.ts";

const UD = 6, GP = 13;
/** Bit numbers in RFLAGS and CR4. */
const VM_BIT = 17, CR4_UMIP_BIT = 11;
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

/** Virtual-8086 mode with IOPL < 3: PUSHF and POPF have the virtual interrupt flag, or raise #GP(0) (hw/sys/vme.ts). */
function isRestricted8086<I, C, X>(b: Builder<I, C, X>): C {
  return b.andC(b.bit(b.state(S.RFLAGS, 32), VM_BIT), b.ne(iopl(b), b.imm(3)));
}

// ---- segment registers

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

/** "Descriptor-table exiting" of a VMX guest: secondary control 2. */
function checkTableExit<I, C, X>(b: Builder<I, C, X>): void {
  b.if(b.bit(b.state(S.VMX_PROC2, 32), 2), () => b.call("exitDescriptorTable"));
}

/** SGDT, SIDT: limit, then 4 bytes of base, or 8 in 64-bit mode. */
function storeTable(at: number): Semantic {
  return (b, o, f) => {
    checkUmip(b);
    checkTableExit(b);
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
    checkTableExit(b);
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
    checkTableExit(b);
    b.write(o[0]!, b.state(S.SEGSEL + seg * 4, 16));
  };
}

/** LLDT, LTR. */
function loadSelector(procedure: string): Semantic {
  return (b, o) => {
    checkTableExit(b);
    b.call(procedure, b.zx(16, b.read(o[0]!)));
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
  const image = b.variable(b.and(b.flagsImage(), b.imm(0xfc_ffff)));
  if (f.mode !== 2) {
    b.if(isRestricted8086(b), () => image.set(b.callResult("pushfVirtual", b.imm(f.w))));
  }
  b.stackStore(f.w, -f.w / 8, b.zx(f.w, image.get()));
  b.stackAdjust(b.imm(-f.w / 8));
};

const popf: Semantic = (b, _o, f) => {
  const image = b.stackLoad(f.w, 0);
  if (f.mode !== 2) b.if(isRestricted8086(b), () => b.call("popfVirtual", image, b.imm(f.w)));
  b.stackAdjust(b.imm(f.w / 8));
  b.callEnd("popf", image, b.imm(f.w));
};

/** CLI: CPL ≤ IOPL; virtual-8086 mode is CPL 3, real mode CPL 0. */
const cli: Semantic = (b) => {
  b.if(
    b.ltU(iopl(b), cpl(b)),
    () => b.call("cliVirtual"),
    () => b.setState(S.RFLAGS, 32, b.and(b.state(S.RFLAGS, 32), b.imm(~RFLAGS.IF >>> 0))),
  );
};

const sti: Semantic = (b) => {
  b.if(b.ltU(iopl(b), cpl(b)), () => b.call("stiVirtual"), () => {
    const already = b.bit(b.state(S.RFLAGS, 32), Math.log2(RFLAGS.IF));
    b.if(b.notC(already), () => b.callEnd("sti"));
  });
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

/** Names of the segment registers that instructions name, by number. */
const NAMES = ["ES", "CS", "SS", "DS", "FS", "GS"] as const;

/** MOV to and from each segment register; MOV CS and numbers 6 and 7 do not exist. */
const movRows: readonly Row[] = NAMES.flatMap((name, seg) => {
  const from = row(
    "MOV",
    [`8C /${seg}:reg Rv:w ${name}:none`, `8C /${seg}:mem Mw:w ${name}:none`],
    {},
    (b, o) => b.write(o[0]!, b.state(S.SEGSEL + seg * 4, 16)),
  );
  if (seg === SEG.CS) return [from];
  const to: Semantic = seg === SEG.SS
    ? (b, o) => b.callEnd("movSs", b.zx(16, b.read(o[1]!)))
    : (b, o) => b.call("loadSegment", b.imm(seg), b.zx(16, b.read(o[1]!)));
  return [from, row("MOV", [`8E /${seg} ${name}:none Ew`], seg === SEG.SS ? ends : {}, to)];
});

/** Rows of segments, transfers, events and flags. */
export const systemRows: readonly Row[] = [
  ...movRows,
  row("PUSH", ["06"], { no64: true }, pushSegment(SEG.ES)),
  row("PUSH", ["0E"], { no64: true }, pushSegment(SEG.CS)),
  row("PUSH", ["16"], { no64: true }, pushSegment(SEG.SS)),
  row("PUSH", ["1E"], { no64: true }, pushSegment(SEG.DS)),
  row("PUSH", ["0F A0 d64"], {}, pushSegment(SEG.FS)),
  row("PUSH", ["0F A8 d64"], {}, pushSegment(SEG.GS)),
  row("POP", ["07"], { no64: true }, popSegment(SEG.ES)),
  row("POP", ["17"], { no64: true, ends: true }, popSegment(SEG.SS)),
  row("POP", ["1F"], { no64: true }, popSegment(SEG.DS)),
  row("POP", ["0F A1 d64"], {}, popSegment(SEG.FS)),
  row("POP", ["0F A9 d64"], {}, popSegment(SEG.GS)),
  row("LES", ["C4 /r:mem Gv:w Mp:none"], { no64: true }, loadFarPointer(SEG.ES)),
  row("LDS", ["C5 /r:mem Gv:w Mp:none"], { no64: true }, loadFarPointer(SEG.DS)),
  row("LSS", ["0F B2 /r:mem Gv:w Mp:none"], {}, loadFarPointer(SEG.SS)),
  row("LFS", ["0F B4 /r:mem Gv:w Mp:none"], {}, loadFarPointer(SEG.FS)),
  row("LGS", ["0F B5 /r:mem Gv:w Mp:none"], {}, loadFarPointer(SEG.GS)),

  row("SGDT", ["0F 01 /0:mem Ms:none"], {}, storeTable(S.GDTR)),
  row("SIDT", ["0F 01 /1:mem Ms:none"], {}, storeTable(S.IDTR)),
  row("LGDT", ["0F 01 /2:mem Ms:none"], { cpl0: true, ends: true }, loadTable("lgdt")),
  row("LIDT", ["0F 01 /3:mem Ms:none"], { cpl0: true, ends: true }, loadTable("lidt")),
  row("SLDT", ["0F 00 /0:reg Rv:w", "0F 00 /0:mem Mw:w"], protectedOnly, storeSelector(SEG.LDTR)),
  row("STR", ["0F 00 /1:reg Rv:w", "0F 00 /1:mem Mw:w"], protectedOnly, storeSelector(SEG.TR)),
  row(
    "LLDT",
    ["0F 00 /2 Ew"],
    { cpl0: true, protectedOnly: true },
    loadSelector("lldt"),
  ),
  row(
    "LTR",
    ["0F 00 /3 Ew"],
    { cpl0: true, protectedOnly: true },
    loadSelector("ltr"),
  ),
  row("VERR", ["0F 00 /4 Ew"], protectedOnly, verifySelector("verr")),
  row("VERW", ["0F 00 /5 Ew"], protectedOnly, verifySelector("verw")),
  row("LAR", ["0F 02 /r Gv:w Ew"], protectedOnly, describeSelector("lar")),
  row("LSL", ["0F 03 /r Gv:w Ew"], protectedOnly, describeSelector("lsl")),
  row("ARPL", ["63 /r Ew:rw Gw"], { no64: true, protectedOnly: true }, arpl),

  row("CALL", ["9A Ap"], { no64: true, ends: true }, farDirect("farCall")),
  row("JMP", ["EA Ap"], { no64: true, ends: true }, farDirect("farJump")),
  row("CALL", ["FF /3:mem Mp:none"], ends, farIndirect("farCall")),
  row("JMP", ["FF /5:mem Mp:none"], ends, farIndirect("farJump")),
  row("RETF", ["CB"], ends, (b, _o, f) => b.callEnd("farReturn", b.imm(f.w), b.imm(0))),
  row("RETF", ["CA Iw"], ends, (b, o, f) => b.callEnd("farReturn", b.imm(f.w), b.zx(16, b.read(o[0]!)))),
  row("IRET", ["CF"], ends, (b, _o, f) => b.callEnd("iret", b.imm(f.w))),
  row("INT", ["CD Ib"], ends, (b, o) => b.callEnd("int", b.zx(8, b.read(o[0]!)))),
  row("INT3", ["CC"], ends, (b) => b.callEnd("intFixed", b.imm(3))),
  row(
    "INTO",
    ["CE"],
    { no64: true, ends: true },
    (b) => b.if(b.flag("OF"), () => b.callEnd("intFixed", b.imm(4))),
  ),
  row("INT1", ["F1"], ends, (b) => b.callEnd("int1")),

  row("SYSCALL", ["0F 05"], { cpuid: "syscall", ends: true }, (b) => b.callEnd("syscall")),
  row("SYSRET", ["0F 07"], { cpuid: "syscall", ends: true }, exitTo("sysret")),
  row("SYSENTER", ["0F 34"], { cpuid: "sep", ends: true }, (b) => b.callEnd("sysenter")),
  row("SYSEXIT", ["0F 35"], { cpuid: "sep", ends: true }, exitTo("sysexit")),
  row(
    "SWAPGS",
    ["0F 01 /F8"],
    { cpl0: true, only64: true },
    (b) => b.call("swapgs"),
  ),

  row("PUSHF", ["9C d64"], {}, pushf),
  row("POPF", ["9D d64"], ends, popf),
  row("CLI", ["FA"], {}, cli),
  row("STI", ["FB"], ends, sti),
  row("CLAC", ["NP 0F 01 /CA"], { cpuid: "smap", ends: true }, setAc(0)),
  row("STAC", ["NP 0F 01 /CB"], { cpuid: "smap", ends: true }, setAc(1)),
  row("HLT", ["F4"], { cpl0: true, ends: true }, (b) => b.callEnd("hlt")),
];
