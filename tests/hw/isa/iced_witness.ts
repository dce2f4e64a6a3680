/**
 * The independent witness of the decoder: compares one instruction as our decoder and as iced-x86 read it.
 *
 * @module
 */
import {
  CpuidFeature,
  Decoder,
  DecoderOptions,
  Instruction,
  MemorySize,
  MemorySizeExt,
  Mnemonic,
  OpKind,
  Register,
  RegisterExt,
} from "iced-x86";
import { decode, isDecoded } from "../../../hw/isa/decode.ts";
import type { CodeMode, Decoded, Operand } from "../../../hw/isa/form.ts";
import { S } from "../../../hw/state.ts";
import { ALL_FEATURES } from "./all_features.ts";

/** What iced knows and this machine deliberately does not offer, by CPUID feature; each row of ours is #UD there. */
const NOT_OFFERED: readonly string[] = [
  // Wider vectors and what needs them: the machine has 128-bit SSE only.
  ...[
    "AVX",
    "AVX2",
    "F16C",
    "FMA",
    "FMA4",
    "AVX_VNNI",
    "AVX_IFMA",
    "AVX_NE_CONVERT",
    "AVX_VNNI_INT8",
    "AVX_VNNI_INT16",
  ],
  ...[
    "AVX512F",
    "AVX512VL",
    "AVX512BW",
    "AVX512CD",
    "AVX512DQ",
    "AVX512ER",
    "AVX512PF",
    "AVX512_FP16",
    "AVX512_BF16",
  ],
  ...["AVX512_4FMAPS", "AVX512_4VNNIW", "AVX512_BITALG", "AVX512_IFMA", "AVX512_VBMI", "AVX512_VBMI2"],
  ...["AVX512_VNNI", "AVX512_VP2INTERSECT", "AVX512_VPOPCNTDQ", "KNC"],
  ...["AMX_BF16", "AMX_TILE", "AMX_INT8", "AMX_FP16", "AMX_COMPLEX"],
  // Cryptography.
  ...[
    "AES",
    "VAES",
    "PCLMULQDQ",
    "VPCLMULQDQ",
    "GFNI",
    "SHA",
    "SHA512",
    "SM3",
    "SM4",
    "KL",
    "AESKLE",
    "WIDE_KL",
  ],
  ...["PADLOCK_ACE", "PADLOCK_PHE", "PADLOCK_PMM", "PADLOCK_RNG", "PADLOCK_GMI", "PADLOCK_UNDOC"],
  // AMD, Cyrix, Centaur.
  ...["XOP", "TBM", "LWP", "D3NOW", "D3NOWEXT", "CYRIX_D3NOW", "SSE4A", "SVM", "SEV_ES", "SEV_SNP", "SKINIT"],
  ...[
    "SKINIT_or_SVM",
    "MONITORX",
    "MCOMMIT",
    "CLZERO",
    "RDPRU",
    "INVLPGB",
    "RMPQUERY",
    "CENTAUR_AIS",
    "CL1INVMB",
  ],
  ...[
    "CYRIX_FPU",
    "CYRIX_SMM",
    "CYRIX_SMINT",
    "CYRIX_SMINT_0F7E",
    "CYRIX_SHR",
    "CYRIX_DDI",
    "CYRIX_EMMI",
    "CYRIX_DMI",
  ],
  // Security and virtualization extensions that no CPU model of ours has.
  ...["CET_IBT", "CET_SS", "MPX", "SGX1", "SMX", "TDX", "SMM", "OSS", "TSE"],
  // Memory and power hints, direct stores, transactional memory, tracing, user interrupts, FRED.
  ...["CLDEMOTE", "PCOMMIT", "WBNOINVD", "MOVDIRI", "MOVDIR64B", "ENQCMD", "PTWRITE", "PREFETCHWT1"],
  ...[
    "PREFETCHITI",
    "RTM",
    "HLE_or_RTM",
    "TSXLDTRK",
    "WAITPKG",
    "SERIALIZE",
    "PCONFIG",
    "UINTR",
    "HRESET",
    "FRED",
  ],
  ...["LKGS", "MSRLIST", "WRMSRNS", "CMPCCXADD", "RAO_INT", "UDBG"],
  // Other processors.
  ...[
    "IA64",
    "UMOV",
    "INTEL8086_ONLY",
    "INTEL286_ONLY",
    "INTEL386_ONLY",
    "INTEL386_A0_ONLY",
    "INTEL486_A_ONLY",
  ],
  ...["MOV_TR"],
];
/** Our rows for opcodes that a feature in {@link NOT_OFFERED} gives another meaning: reserved no-operations, WBNOINVD's. */
const RESERVED_NOPS: ReadonlySet<string> = new Set(["NOP", "PREFETCH", "WBINVD"]);
/** Rows whose 32-bit register iced shows as 64 bits with REX.W; both are written zero-extended from less. */
const NARROW_REGISTER: ReadonlySet<string> = new Set(
  ["EXTRACTPS", "MOVMSKPD", "MOVMSKPS", "PEXTRB", "PEXTRW", "PINSRB", "PINSRW", "PMOVMSKB"],
);
/** Rows that read 16 bits of a register that iced shows in the operand size. */
const SELECTOR_REGISTER: ReadonlySet<string> = new Set(
  ["ARPL", "LAR", "LLDT", "LMSW", "LSL", "LTR", "MOV", "VERR", "VERW"],
);
const notOffered = new Set(NOT_OFFERED.map((name) => CpuidFeature[name as keyof typeof CpuidFeature]));

/** iced's mnemonic by its number. */
const ICED_MNEMONIC = Mnemonic as unknown as Readonly<Record<number, string>>;

const CONDITION = "(O|NO|B|AE|E|NE|BE|A|S|NS|P|NP|L|GE|LE|G)";
/** iced's mnemonics that one of our rows covers beside its own. */
const ALIASES: Readonly<Record<string, RegExp>> = {
  J: new RegExp(`^J${CONDITION}$`),
  SET: new RegExp(`^SET${CONDITION}$`),
  CMOV: new RegExp(`^CMOV${CONDITION}$`),
  JRCXZ: /^J(CX|ECX|RCX)Z$/,
  CBW: /^(CBW|CWDE|CDQE)$/,
  CWD: /^(CWD|CDQ|CQO)$/,
  MOVS: /^MOVS[BWDQ]$/,
  CMPS: /^CMPS[BWDQ]$/,
  STOS: /^STOS[BWDQ]$/,
  LODS: /^LODS[BWDQ]$/,
  SCAS: /^SCAS[BWDQ]$/,
  INS: /^INS[BWD]$/,
  OUTS: /^OUTS[BWD]$/,
  XLAT: /^XLATB$/,
  PUSHA: /^PUSHA[WD]?$/,
  POPA: /^POPA[WD]?$/,
  PUSHF: /^PUSHF[DQ]?$/,
  POPF: /^POPF[DQ]?$/,
  IRET: /^IRET[DQ]?$/,
  SYSRET: /^SYSRETQ$/,
  SYSEXIT: /^SYSEXITQ$/,
  XSAVE: /^XSAVE64$/,
  XSAVEC: /^XSAVEC64$/,
  XSAVEOPT: /^XSAVEOPT64$/,
  XRSTOR: /^XRSTOR64$/,
  FXSAVE: /^FXSAVE64$/,
  FXRSTOR: /^FXRSTOR64$/,
  SHL: /^SAL$/,
  PREFETCH: /^PREFETCH(W|NTA|T0|T1|T2)$/,
  NOP: /^RESERVEDNOP$/,
  PCMPESTRI: /^PCMPESTRI64$/,
  PCMPESTRM: /^PCMPESTRM64$/,
};

const GPR64 = ["RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI"];
const registerOf = new Map<string, number>();
function name(key: string, register: string): void {
  registerOf.set(key, Register[register as keyof typeof Register]);
}
for (let n = 0; n < 16; n++) {
  const at = S.GPR + n * 8;
  const classic = n < 8 ? GPR64[n]!.slice(1) : "";
  name(`64 ${at}`, n < 8 ? GPR64[n]! : `R${n}`);
  name(`32 ${at}`, n < 8 ? `E${classic}` : `R${n}D`);
  name(`16 ${at}`, n < 8 ? classic : `R${n}W`);
  name(`8 ${at}`, n < 4 ? `${classic[0]}L` : n < 8 ? `${classic}L` : `R${n}L`);
  if (n < 4) name(`8 ${at + 1}`, `${classic[0]}H`);
  name(`xmm ${S.XMM + 16 * n}`, `XMM${n}`);
  if (n < 8) name(`mm ${S.FPR + 16 * n}`, `MM${n}`);
  if (n < 8) name(`st ${n}`, `ST${n}`);
  name(`cr ${n}`, `CR${n}`);
  name(`dr ${n}`, `DR${n}`);
}
["ES", "CS", "SS", "DS", "FS", "GS"].forEach((segment, n) => name(`seg ${n}`, segment));

/** iced's register for a register operand of ours. */
function registerNumber(d: Decoded, o: Operand): number | undefined {
  const value = o.slot === "r0" ? d.r0 : o.slot === "r1" ? d.r1 : d.r2;
  return registerOf.get(o.kind === "reg" ? `${o.width} ${value}` : `${o.kind} ${value}`);
}

/** An address register of ours, at the address size. */
function addressRegister(d: Decoded, offset: number): number | undefined {
  if (offset === S.ZERO) return Register.None;
  if (offset === S.RIPPAGE) return d.form.aw === 64 ? Register.RIP : Register.EIP;
  return registerOf.get(`${d.form.aw} ${offset}`);
}

const SEGMENTS = [Register.ES, Register.CS, Register.SS, Register.DS, Register.FS, Register.GS];
const BITS = [16, 32, 64] as const;

/** Compares our decoder with iced on the same bytes. */
export class Witness {
  readonly #instruction = new Instruction();
  readonly #bytes: Uint8Array;
  readonly #decoder: Decoder;
  readonly #mode: CodeMode;

  /** @param bytes Instructions at any offsets, with at least 15 bytes behind each. */
  constructor(bytes: Uint8Array, mode: CodeMode) {
    this.#bytes = bytes;
    this.#mode = mode;
    this.#decoder = new Decoder(BITS[mode], bytes, DecoderOptions.None);
  }

  /** Gives back iced's memory. */
  free(): void {
    this.#decoder.free();
    this.#instruction.free();
  }

  /** What iced reads at `offset`. */
  instructionAt(offset: number): Instruction {
    this.#decoder.position = offset;
    this.#decoder.ip = 0n;
    this.#decoder.decodeOut(this.#instruction);
    return this.#instruction;
  }

  /** How the two readings of the instruction at `offset` differ; undefined if they agree. */
  difference(offset: number): string | undefined {
    const ours = decode(this.#bytes, offset, 15, this.#mode, ALL_FEATURES);
    const theirs = this.instructionAt(offset);
    const isOffered = !theirs.isInvalid && !theirs.cpuidFeatures().some((f) => notOffered.has(f));
    if (!isDecoded(ours)) return isOffered ? `not decoded: ${label(theirs)}` : undefined;
    if (!isOffered) {
      if (!theirs.isInvalid && RESERVED_NOPS.has(ours.form.row.mnemonic)) {
        return ours.length === theirs.length
          ? undefined
          : `reserved NOP: length ${ours.length}, not ${theirs.length}`;
      }
      return `decoded as ${ours.form.row.mnemonic}: ${
        theirs.isInvalid ? "invalid" : "not offered " + label(theirs)
      }`;
    }
    const mnemonic = ICED_MNEMONIC[theirs.mnemonic]!.toUpperCase();
    const row = ours.form.row.mnemonic;
    if (mnemonic !== row && !(ALIASES[row]?.test(mnemonic))) return `mnemonic ${row}: ${mnemonic}`;
    const tag = `${row} "${mnemonic}"`;
    if (ours.length !== theirs.length) return `${tag}: length ${ours.length}, not ${theirs.length}`;
    return operandDifference(ours, theirs, tag);
  }
}

function label(i: Instruction): string {
  const features = [...i.cpuidFeatures()].map((f) => CpuidFeature[f]).join("+");
  return `${ICED_MNEMONIC[i.mnemonic]!.toUpperCase()} (${features})`;
}

/** Our operands must be a subsequence of iced's, and iced's explicit ones must all be there. */
function operandDifference(d: Decoded, i: Instruction, tag: string): string | undefined {
  let at = 0;
  const said: string[] = [];
  for (let op = 0; op < i.opCount; op++) {
    const kind = i.opKind(op);
    const o = d.form.operands[at];
    const why = o === undefined ? "missing" : matches(d, o, i, op, kind);
    if (why === undefined) {
      at++;
      continue;
    }
    said.push(why);
    // Fixed registers and string operands of iced's may be implicit in ours.
    if (kind === OpKind.Memory || kind >= OpKind.NearBranch16 && kind <= OpKind.Immediate32to64) {
      return `${tag} operand ${op}: ${why}`;
    }
  }
  // iced leaves BLENDVPS's XMM0 out.
  while (d.form.operands[at]?.fixed !== undefined && d.form.operands[at]?.kind === "xmm") at++;
  if (at !== d.form.operands.length) return `${tag}: operand ${at} is not iced's (${said.join("; ")})`;
  return undefined;
}

/** Undefined if operand `o` of ours is operand `op` of iced's. */
function matches(d: Decoded, o: Operand, i: Instruction, op: number, kind: number): string | undefined {
  switch (o.kind) {
    case "mem":
      return kind === OpKind.Memory ? memoryDifference(d, o, i) : stringDifference(d, o, i, kind);
    case "imm": {
      if (kind < OpKind.Immediate8 || kind > OpKind.Immediate32to64) return "immediate";
      const value = o.fixed !== undefined
        ? BigInt(o.fixed)
        : o.slot === "imm2"
        ? BigInt(d.r2)
        : BigInt.asUintN(o.width, (BigInt(d.immHigh) << 32n) | BigInt(d.immLow >>> 0));
      const witness = BigInt.asUintN(o.width, i.immediate(op));
      return value === witness ? undefined : `immediate ${value.toString(16)}, not ${witness.toString(16)}`;
    }
    case "rel": {
      if (kind < OpKind.NearBranch16 || kind > OpKind.NearBranch64) return "relative";
      const bits = kind === OpKind.NearBranch16 ? 16 : kind === OpKind.NearBranch32 ? 32 : 64;
      const target = BigInt.asUintN(bits, BigInt(d.immLow) + BigInt(d.length));
      const targetBits = d.form.mode === 2 ? 64 : d.form.w;
      if (targetBits !== bits) return `branch of ${targetBits} bits, not ${bits}`;
      return target === i.nearBranchTarget ? undefined : `target ${target}, not ${i.nearBranchTarget}`;
    }
    case "far": {
      if (kind !== OpKind.FarBranch16 && kind !== OpKind.FarBranch32) return "far pointer";
      const offset = kind === OpKind.FarBranch16 ? i.farBranch16 : i.farBranch32;
      return d.immLow >>> 0 === offset && d.r2 === i.farBranchSelector ? undefined : "far pointer";
    }
    default: {
      if (kind !== OpKind.Register) return "register";
      let register = registerNumber(d, o);
      const isNarrow = o.kind === "reg" && o.width === 32 && NARROW_REGISTER.has(d.form.row.mnemonic);
      if (isNarrow && i.opRegister(op) >= Register.RAX) register = registerNumber(d, { ...o, width: 64 });
      const witness = i.opRegister(op);
      const isSelector = o.kind === "reg" && o.width === 16 && SELECTOR_REGISTER.has(d.form.row.mnemonic);
      if (isSelector && register !== witness && sameNumber(register, witness)) return undefined;
      return register === witness ? undefined : `register ${regName(register)}, not ${regName(witness)}`;
    }
  }
}

/** The two registers are one in different widths. */
function sameNumber(a: number | undefined, b: number): boolean {
  return a !== undefined && RegisterExt.fullRegister(a) === RegisterExt.fullRegister(b);
}

function regName(register: number | undefined): string {
  return register === undefined ? "?" : (Register as unknown as Readonly<Record<number, string>>)[register]!;
}

function memoryDifference(d: Decoded, o: Operand, i: Instruction): string | undefined {
  // XLAT's row says DS:rSI for the sake of the segment; its description adds rBX and AL.
  if (d.form.row.mnemonic === "XLAT") return sameSegment(d, i) ? undefined : "segment";
  const aw = d.form.aw;
  const isAbsolute = o.slot === "imm";
  const base = addressRegister(d, isAbsolute ? S.ZERO : d.base);
  if (base !== i.memoryBase) return `base ${regName(base)}, not ${regName(i.memoryBase)}`;
  const index = addressRegister(d, d.index);
  if (index !== i.memoryIndex) return `index ${regName(index)}, not ${regName(i.memoryIndex)}`;
  if (d.index !== S.ZERO && 1 << d.scale !== i.memoryIndexScale) {
    return `scale ${1 << d.scale}, not ${i.memoryIndexScale}`;
  }
  const raw = isAbsolute ? (BigInt(d.immHigh) << 32n) | BigInt(d.immLow >>> 0) : BigInt(d.disp);
  // iced gives the target of a RIP-relative operand (its IP is 0 here).
  const disp = BigInt.asUintN(aw, d.base === S.RIPPAGE ? raw + BigInt(d.length) : raw);
  const theirs = BigInt.asUintN(aw, i.memoryDisplacement);
  if (disp !== theirs) return `displacement ${disp.toString(16)}, not ${theirs.toString(16)}`;
  if (!sameSegment(d, i)) {
    return `segment ${d.form.segment}, not ${regName(i.memorySegment)}`;
  }
  const slot = d.form.mode === 2 && d.form.segment < 4 ? S.ZERO : S.SEGBASE + 8 * d.form.segment;
  if (d.segment !== slot) return `segment slot ${d.segment}`;
  const bytes = MemorySizeExt.size(i.memorySize);
  if (o.width !== 0 && o.width !== bytes * 8) {
    return `${o.width} bits, not ${bytes * 8} (${
      (MemorySize as unknown as Record<number, string>)[i.memorySize]
    })`;
  }
  return undefined;
}

/** iced shows ES, CS, SS and DS overrides in 64-bit mode, where they say nothing. */
function sameSegment(d: Decoded, i: Instruction): boolean {
  const theirs = i.memorySegment;
  if (d.form.mode === 2 && i.hasSegmentPrefix && theirs !== Register.FS && theirs !== Register.GS) {
    return d.form.segment === 2 || d.form.segment === 3;
  }
  return SEGMENTS[d.form.segment] === theirs;
}

function stringDifference(d: Decoded, o: Operand, i: Instruction, kind: number): string | undefined {
  // MASKMOVQ and MASKMOVDQU have DS:rDI with an override, which our `X` stands for there.
  const last = d.form.row.mnemonic.startsWith("MASKMOV") ? OpKind.MemorySegRDI : OpKind.MemorySegRSI;
  const isSource = kind >= OpKind.MemorySegSI && kind <= last;
  const isDestination = kind >= OpKind.MemoryESDI && kind <= OpKind.MemoryESRDI;
  if (o.fixed === 6 ? !isSource : !isDestination) return "string operand";
  if (o.fixed === 6 && !sameSegment(d, i)) return "string segment";
  const bits = 16 << ((kind - (isSource ? OpKind.MemorySegSI : OpKind.MemoryESDI)) % 3);
  if (bits !== d.form.aw) return `address size ${d.form.aw}, not ${bits}`;
  return o.width === MemorySizeExt.size(i.memorySize) * 8 ? undefined : `${o.width} bits`;
}
