/**
 * Control and debug registers, MSRs, ports, CPUID, the time-stamp counter, invalidation, protection keys, FS and GS bases: rows of
 * the instruction table (SDM vol. 2). What they do is in hw/sys/, hw/msr.ts and hw/cpuid.ts.
 *
 * What a VMX guest may not do by itself is found out by the procedures; where there is none, the row asks S.VMX_MODE or the controls.
 *
 * Room: `hw/isa/`; imports only the row's own vocabulary.
 *
 * @module
 */
import type { Builder, Semantic, Width } from "./builder.ts";
import { type Form, type Operand, type Row, row } from "./form.ts";
import { R, RFLAGS, S, SEG } from "../state.ts";
import { checkUmip } from "./system_rows.ts";

const UD = 6, GP = 13;
/** Bit numbers in CR4. */
const TSD_BIT = 2, FSGSBASE_BIT = 16, PKE_BIT = 22;
const DF_BIT = Math.log2(RFLAGS.DF);

/** Current privilege level is not 0. */
function isUser<I, C, X>(b: Builder<I, C, X>): C {
  return b.ne(b.state(S.CPL, 32), b.imm(0));
}

/** VMX non-root operation. */
function isGuest<I, C, X>(b: Builder<I, C, X>): C {
  return b.eq(b.state(S.VMX_MODE, 32), b.imm(2));
}
/** A guest whose secondary control `bit` is clear: #UD for the instructions that the control enables. */
function isDisabled<I, C, X>(b: Builder<I, C, X>, bit: number): C {
  return b.andC(isGuest(b), b.notC(b.bit(b.state(S.VMX_PROC2, 32), bit)));
}
/** Bits of the secondary controls. */
const ENABLE_RDTSCP = 3, ENABLE_INVPCID = 12;

/** EDX:EAX. */
function edxEax<I, C, X>(b: Builder<I, C, X>): I {
  return b.or(b.shl(64, b.reg(32, R.RDX), b.imm(32)), b.reg(32, R.RAX));
}
/** EDX:EAX := value. */
function setEdxEax<I, C, X>(b: Builder<I, C, X>, value: I): void {
  b.setReg(32, R.RDX, b.shr(64, value, b.imm(32)));
  b.setReg(32, R.RAX, b.zx(32, value));
}

// ---- control and debug registers

const movFromControl: Semantic = (b, o) =>
  b.write(o[0]!, narrowed(b, o[0]!, b.callResult("readCr", b.registerNumber(o[1]!))));
const movToControl: Semantic = (b, o) => b.callEnd("writeCr", b.registerNumber(o[0]!), b.read(o[1]!));
const movFromDebug: Semantic = (b, o) =>
  b.write(o[0]!, narrowed(b, o[0]!, b.callResult("readDr", b.registerNumber(o[1]!))));
const movToDebug: Semantic = (b, o) => b.callEnd("writeDr", b.registerNumber(o[0]!), b.read(o[1]!));

/** `value` cut to the operand's width. */
function narrowed<I, C, X>(b: Builder<I, C, X>, o: Operand, value: I): I {
  return o.width === 64 ? value : b.zx(o.width as Width, value);
}

// ---- MSRs, time, CPUID

/** RDTSC and RDTSCP: CR4.TSD keeps them for CPL 0. */
function readTimeStamp(aux: boolean): Semantic {
  return (b) => {
    if (aux) b.faultIf(isDisabled(b, ENABLE_RDTSCP), UD);
    b.faultIf(b.andC(b.bit(b.state(S.CR4, 64), TSD_BIT), isUser(b)), GP, 0);
    setEdxEax(b, b.callResult(aux ? "rdtscp" : "rdtsc"));
    if (aux) b.setReg(32, R.RCX, b.state(S.TSC_AUX, 32));
  };
}

const cpuid: Semantic = (b) => {
  b.call("cpuid", b.reg(32, R.RAX), b.reg(32, R.RCX));
  b.setReg(32, R.RAX, b.state(S.ARG, 32));
  b.setReg(32, R.RBX, b.state(S.ARG + 8, 32));
  b.setReg(32, R.RCX, b.state(S.ARG + 16, 32));
  b.setReg(32, R.RDX, b.state(S.ARG + 24, 32));
};

/** MONITOR: a read of the byte at rAX, ECX must be 0. */
const monitor: Semantic = (b, _o, f) => {
  b.faultIf(isUser(b), UD);
  b.call("monitorExit");
  b.faultIf(b.ne(b.reg(32, R.RCX), b.imm(0)), GP, 0);
  b.load(f.segment >= 0 ? f.segment : SEG.DS, b.reg(f.aw, R.RAX), 8);
  b.call("monitorArm");
};

/** MWAIT ends at once, as it may; ECX bit 0 (interrupts break it even if masked) is the one extension. */
const mwait: Semantic = (b) => {
  b.faultIf(isUser(b), UD);
  b.call("mwaitExit");
  b.faultIf(b.ltU(b.imm(1), b.reg(32, R.RCX)), GP, 0);
};

// ---- ports

/** Width of what IN, OUT, INS, OUTS move: a 64-bit operand size counts as 32. */
function portWidth(w: Width): Width {
  return w === 64 ? 32 : w;
}

/** IN: accumulator, port. */
const portIn: Semantic = (b, o) => {
  const w = portWidth(o[0]!.width as Width);
  const value = b.callResult("in", portOf(b, o[1]!), b.imm(w / 8));
  b.setReg(w, R.RAX, b.zx(w, value));
};

const portOut: Semantic = (b, o) => {
  const w = portWidth(o[1]!.width as Width);
  b.callEnd("out", portOf(b, o[0]!), b.imm(w / 8), b.reg(w, R.RAX));
};

/** An immediate port has 8 bits, DX 16. */
function portOf<I, C, X>(b: Builder<I, C, X>, o: Operand): I {
  return o.kind === "imm" ? b.zx(8, b.read(o)) : b.reg(16, R.RDX);
}

/** Moves rSI or rDI past one element. */
function advance<I, C, X>(b: Builder<I, C, X>, f: Form, w: Width, n: number): void {
  const down = b.bit(b.state(S.RFLAGS, 32), DF_BIT);
  const step = b.select(down, b.sub(f.aw, b.imm(0), b.imm(w / 8)), b.imm(w / 8));
  b.setReg(f.aw, n, b.add(f.aw, b.reg(f.aw, n), step));
}

/** One iteration of a repeated INS or OUTS, or the whole of one without prefix. */
function repeat<I, C, X>(b: Builder<I, C, X>, f: Form, element: () => void): void {
  if (f.rep === 0) {
    element();
    return;
  }
  b.if(b.ne(b.reg(f.aw, R.RCX), b.imm(0)), () => {
    element();
    const left = b.sub(f.aw, b.reg(f.aw, R.RCX), b.imm(1));
    b.setReg(f.aw, R.RCX, left);
    b.if(b.ne(left, b.imm(0)), () => b.again());
  });
}

/** INS: the destination must be writable before the port is read. */
const ins: Semantic = (b, o, f) => {
  const w = portWidth(o[0]!.width as Width);
  repeat(b, f, () => {
    const port = b.reg(16, R.RDX), bytes = b.imm(w / 8);
    b.call("checkPort", port, bytes);
    b.probeWrite(SEG.ES, b.reg(f.aw, R.RDI), w);
    const value = b.zx(w, b.callResult("in", port, bytes));
    b.store(SEG.ES, b.reg(f.aw, R.RDI), w, value);
    advance(b, f, w, R.RDI);
  });
};

const outs: Semantic = (b, o, f) => {
  const w = portWidth(o[1]!.width as Width);
  repeat(b, f, () => {
    const port = b.reg(16, R.RDX), bytes = b.imm(w / 8);
    b.call("checkPort", port, bytes);
    const value = b.load(f.segment, b.reg(f.aw, R.RSI), w);
    b.call("outs", port, bytes, value);
    advance(b, f, w, R.RSI);
  });
};

// ---- invalidation, keys, bases

const invpcid: Semantic = (b, o, f) => {
  b.faultIf(isDisabled(b, ENABLE_INVPCID), UD);
  b.faultIf(isUser(b), GP, 0);
  b.call("invpcidExit");
  const type = b.read(o[0]!), ea = b.ea(o[1]!);
  const first = b.load(f.segment, ea, 64), second = b.load(f.segment, b.add(f.aw, ea, b.imm(8)), 64);
  b.callEnd("invpcid", type, first, second);
};

/** RDPKRU and WRPKRU: #UD without CR4.PKE, ECX must be 0. */
function checkKeys<I, C, X>(b: Builder<I, C, X>): void {
  b.faultIf(b.notC(b.bit(b.state(S.CR4, 64), PKE_BIT)), UD);
  b.faultIf(b.ne(b.reg(32, R.RCX), b.imm(0)), GP, 0);
}
const rdpkru: Semantic = (b) => {
  checkKeys(b);
  b.setReg(32, R.RAX, b.state(S.PKRU, 32));
  b.setReg(32, R.RDX, b.imm(0));
};
const wrpkru: Semantic = (b) => {
  checkKeys(b);
  b.faultIf(b.ne(b.reg(32, R.RDX), b.imm(0)), GP, 0);
  b.callEnd("wrpkru", b.reg(32, R.RAX));
};

function readBase(seg: number): Semantic {
  return (b, o) => {
    b.faultIf(b.notC(b.bit(b.state(S.CR4, 64), FSGSBASE_BIT)), UD);
    b.write(o[0]!, b.state(S.SEGBASE + seg * 8, o[0]!.width as Width));
  };
}
function writeBase(seg: number): Semantic {
  return (b, o) => {
    b.faultIf(b.notC(b.bit(b.state(S.CR4, 64), FSGSBASE_BIT)), UD);
    b.call("wrbase", b.imm(seg), b.read(o[0]!));
  };
}

const fsgsbase = { cpuid: "fsgsbase", only64: true } as const;
const privileged = { cpl0: true, ends: true } as const;

/** Rows of control registers, MSRs, ports and the like. */
export const system2Rows: readonly Row[] = [
  row("MOV", ["0F 20 /r Ry:w Cy"], { cpl0: true }, movFromControl),
  row("MOV", ["0F 22 /r Cy:w Ry"], privileged, movToControl),
  // The rows of debug registers check CPL themselves: #UD for DR4 and DR5 under CR4.DE comes first.
  row("MOV", ["0F 21 /r Ry:w Dy"], {}, movFromDebug),
  row("MOV", ["0F 23 /r Dy:w Ry"], { ends: true }, movToDebug),
  row("CLTS", ["0F 06"], privileged, (b) => b.callEnd("clts")),
  row("SMSW", ["0F 01 /4:reg Rv:w", "0F 01 /4:mem Mw:w"], {}, (b, o) => {
    checkUmip(b);
    const cr0 = b.variable(b.state(S.CR0, 64));
    b.if(isGuest(b), () => cr0.set(b.callResult("readCr", b.imm(0))));
    const width = o[0]!.width as Width;
    b.write(o[0]!, width === 64 ? cr0.get() : b.zx(width, cr0.get()));
  }),
  row("LMSW", ["0F 01 /6 Ew"], privileged, (b, o) => b.callEnd("lmsw", b.zx(16, b.read(o[0]!)))),

  row("CPUID", ["0F A2"], {}, cpuid),
  row("RDTSC", ["0F 31"], { cpuid: "tsc" }, readTimeStamp(false)),
  row("RDTSCP", ["0F 01 /F9"], { cpuid: "rdtscp" }, readTimeStamp(true)),
  row("RDPMC", ["0F 33"], { ends: true }, (b) => b.callEnd("rdpmc")),
  row("RDMSR", ["0F 32"], { cpl0: true }, (b) => setEdxEax(b, b.callResult("rdmsr", b.reg(32, R.RCX)))),
  row("WRMSR", ["0F 30"], privileged, (b) => b.callEnd("wrmsr", b.reg(32, R.RCX), edxEax(b))),
  row("MONITOR", ["NP 0F 01 /C8"], { cpuid: "monitor" }, monitor),
  row("MWAIT", ["NP 0F 01 /C9"], { cpuid: "monitor" }, mwait),

  row("IN", ["E4 AL:w Ib", "E5 eAX:w Ib", "EC AL:w DX", "ED eAX:w DX"], {}, portIn),
  row("OUT", ["E6 Ib AL", "E7 Ib eAX", "EE DX AL", "EF DX eAX"], { ends: true }, portOut),
  row("INS", ["6C Yb:none DX", "6D Yz:none DX"], { string: "move", ends: true }, ins),
  row("OUTS", ["6E DX Xb:none", "6F DX Xz:none"], { string: "move", ends: true }, outs),

  row("INVLPG", ["0F 01 /7:mem M:none"], privileged, (b, o) => b.callEnd("invlpg", b.linear(o[0]!))),
  row(
    "INVPCID",
    ["66 0F 38 82 /r:mem Gq Mdq:none"],
    { ends: true, only64: true, cpuid: "invpcid" },
    invpcid,
  ),
  row(
    "INVPCID",
    ["66 0F 38 82 /r:mem Gd Mdq:none"],
    { ends: true, no64: true, protectedOnly: true, cpuid: "invpcid" },
    invpcid,
  ),
  // Caches are not modelled: there is nothing to write back.
  row("INVD", ["0F 08"], { cpl0: true }, (b) => b.call("invd")),
  row("WBINVD", ["0F 09"], { cpl0: true }, (b) => b.call("wbinvd")),

  row("RDPKRU", ["NP 0F 01 /EE"], { cpuid: "pku" }, rdpkru),
  row("WRPKRU", ["NP 0F 01 /EF"], { cpuid: "pku", ends: true }, wrpkru),
  row("RDFSBASE", ["F3 0F AE /0:reg Ry:w"], fsgsbase, readBase(SEG.FS)),
  row("RDGSBASE", ["F3 0F AE /1:reg Ry:w"], fsgsbase, readBase(SEG.GS)),
  row("WRFSBASE", ["F3 0F AE /2:reg Ry"], fsgsbase, writeBase(SEG.FS)),
  row("WRGSBASE", ["F3 0F AE /3:reg Ry"], fsgsbase, writeBase(SEG.GS)),
];
