/**
 * Makes random sequences from the instruction table's own encodings.
 *
 * What keeps the host safe: memory operands use only registers that no generated instruction writes (RBX, RBP, RSI, RDI, RSP,
 * R12 … R14 point into the region, R15 is a small index) with small displacements, or fixed addresses in the region;
 * and every instruction is decoded by our own decoder, and dropped if a register operand that it writes is not a scratch register.
 *
 * Room: `lab/silicon/`; imports the instruction table and the decoder.
 *
 * @module
 */
import { type Encoding, NO_PREFIX, parseEncoding, VEX_MAPS } from "../../hw/isa/encoding.ts";
import { decode, isDecoded } from "../../hw/isa/decode.ts";
import type { Decoded } from "../../hw/isa/form.ts";
import { rows } from "../../hw/isa/table.ts";
import { RFLAGS, S } from "../../hw/state.ts";
import { DATA, DATA_BYTES, FIXED, FIXED_BYTES } from "./layout.ts";
import {
  alignmentIsLoose,
  faultsAreLoose,
  orderIsLoose,
  reasonToDrop,
  reasonToExclude,
  settlingCode,
  undefinedFlags,
  x87IsLoose,
} from "./rules.ts";
import { fits, type Item } from "./sequence.ts";
import { REGISTER_WORDS, type Registers, W } from "./state.ts";
import { Chance, integer64, type Pool } from "./values.ts";

/** A sequence with what it begins with. */
export interface Case {
  readonly items: readonly Item[];
  readonly registers: Registers;
  readonly data: Uint32Array<ArrayBuffer>;
}

const RBX = 3, RSP = 4, RBP = 5, RSI = 6, RDI = 7, R15 = 15;
/** Registers that instructions may write. */
const SCRATCH = [0, 1, 2, 8, 9, 10, 11] as const;
/** Byte registers among them: without REX, 4 … 6 are AH, CH, DH. */
const SCRATCH_BYTES = [0, 1, 2, 4, 5, 6] as const;
/** Registers that point into the region. */
const POINTERS = [RBX, RSP, RBP, RSI, RDI, 12, 13, 14] as const;
const SCRATCH_OFFSETS: ReadonlySet<number> = new Set([
  ...SCRATCH.map((n) => S.GPR + 8 * n),
  ...[0, 1, 2].map((n) => S.GPR + 8 * n + 1),
]);
/** Instructions that only compute with an address, or ignore it: any register will do. */
const ADDRESS_ONLY: ReadonlySet<string> = new Set(["LEA", "NOP"]);
/** Bit instructions with a bit offset in a register reach far from their memory operand. */
const BIT_OFFSET: ReadonlySet<string> = new Set(["BT", "BTC", "BTR", "BTS"]);
const PUSHFQ = 0x9c, POPFQ = 0x9d, LOCK = 0xf0, ENTER = 0xc8;
/** Prefixes that say nothing in 64-bit mode: ES, CS, SS, DS; and GS, whose base is 0. */
const EMPTY_PREFIXES = [0x26, 0x2e, 0x36, 0x3e, 0x65] as const;
/** What keeps a quotient from overflowing: xor edx, edx; cqo; movzx eax, al and xor edx, edx. */
const DIVIDENDS = [[0x31, 0xd2], [0x48, 0x99], [0x0f, 0xb6, 0xc0, 0x31, 0xd2]] as const;
/** Most items of a sequence. */
const ITEMS_MAX = 12;

/** Groups of encodings, by how they are chosen. */
interface Groups {
  readonly integer: readonly Encoding[];
  readonly sse: readonly Encoding[];
  readonly x87: readonly Encoding[];
  readonly all: readonly Encoding[];
}

/** Makes cases: each from the seed and its own number alone. */
export class Generator {
  readonly #seed: number;
  readonly #pool: Pool;
  readonly #features: ReadonlySet<string>;
  readonly #groups: Groups;
  readonly #templates: boolean;
  #c = new Chance(0, 0);

  /** @param only Mnemonics to generate, or an empty list for all. */
  constructor(seed: number, pool: Pool, features: ReadonlySet<string>, only: readonly string[] = []) {
    this.#seed = seed;
    this.#pool = pool;
    this.#features = features;
    this.#templates = only.length === 0;
    const all = rows.flatMap((row, i) => row.encodings.map((text) => parseEncoding(row, i, text)))
      .filter((e) => reasonToExclude(e, features) === undefined)
      .filter((e) => only.length === 0 || only.includes(e.row.mnemonic));
    if (all.length === 0) throw new RangeError(`No instruction to generate is called ${only.join(" or ")}`);
    const or = (some: readonly Encoding[]) => some.length > 0 ? some : all;
    this.#groups = {
      all,
      integer: or(all.filter((e) => e.flags.trap === undefined)),
      sse: or(all.filter((e) => e.flags.trap === "sse")),
      x87: or(all.filter((e) => e.flags.trap === "x87" || e.flags.trap === "mmx")),
    };
  }

  /** Number of encodings to choose from. */
  get encodings(): number {
    return this.#groups.all.length;
  }

  /** Case number `n`; `data` is filled with its memory. */
  make(n: number, data: Uint32Array<ArrayBuffer>): Case {
    const c = this.#c = new Chance(this.#seed, n + 2);
    const registers = this.#registers();
    this.#pool.fill(c, data);
    const items: Item[] = [];
    const count = 1 + c.below(c.oneIn(2) ? 4 : ITEMS_MAX);
    const group = c.pick(["integer", "integer", "sse", "sse", "x87", "all"] as const);
    for (let i = 0; i < count; i++) {
      const item = this.#templates && group !== "sse" && c.oneIn(24)
        ? this.#template(i, count)
        : this.#item(c.pick(this.#groups[group]), i, count);
      items.push(item);
    }
    while (!fits(items)) items.pop();
    return { items, registers, data };
  }

  // ---- the state to begin with

  #registers(): Registers {
    const c = this.#c;
    const to: Registers = new Uint32Array(REGISTER_WORDS);
    const put = (n: number, value: number) => {
      to[2 * n] = value;
      to[2 * n + 1] = value < 0 ? 0xffff_ffff : 0;
    };
    for (const n of SCRATCH) this.#pool.quad(c, to, 2 * n);
    for (const n of POINTERS) put(n, this.#pointer());
    put(RSP, DATA + 0x800 + (c.oneIn(2) ? 16 : 8) * c.below(0x100) + (c.oneIn(16) ? c.below(8) : 0));
    put(R15, c.oneIn(2) ? 16 * c.below(8) : c.below(144) - 16);
    to[W.flags] = 0x202 | (c.word() & 0x8d5) | (c.oneIn(8) ? 0x400 : 0) | (c.oneIn(64) ? 0x4_0000 : 0);
    // Rounding, DAZ and FTZ at random; masked exceptions mostly.
    to[W.mxcsr] = (c.word() & 0xe07f) | (c.oneIn(8) ? c.word() & 0x1f80 : 0x1f80);
    if (c.oneIn(2)) to[W.mxcsr] = to[W.mxcsr]! & 0x7fbf;
    to[W.fcw] = 0x40 | (c.word() & 0x1f00) | (c.oneIn(8) ? c.word() & 0x3f : 0x3f);
    let fsw = c.word() & (c.oneIn(32) ? 0x7f7f : 0x7f40 & ~0x40);
    if (fsw & ~to[W.fcw]! & 0x3f) fsw |= 0x8080;
    to[W.fsw] = fsw;
    to[W.ftw] = c.pick([0xff, 0xff, 0, c.word() & 0xff, c.word() & 0xff, 0xff ^ (1 << c.below(8))]);
    for (let i = 0; i < 8; i++) this.#pool.extended(c, to, W.st + 3 * i);
    for (let i = 0; i < 64; i += 2) this.#pool.quad(c, to, W.xmm + i);
    return to;
  }

  /** Mostly in the middle of the data and aligned; sometimes where it hurts. */
  #pointer(): number {
    const c = this.#c;
    if (!c.oneIn(12)) return DATA + 0x400 + 16 * c.below(0x180) + (c.oneIn(10) ? c.below(16) : 0);
    switch (c.below(6)) {
      case 0:
        return DATA + 0x1000 - c.below(40);
      case 1:
        return DATA + DATA_BYTES - c.below(40);
      case 2:
        return DATA + c.below(24) - 8;
      case 3:
        return FIXED + FIXED_BYTES - c.below(40);
      default:
        return FIXED + 16 * c.below(0xf8);
    }
  }

  // ---- one instruction

  #item(e: Encoding, index: number, count: number): Item {
    for (let tries = 0; tries < 200; tries++) {
      const item = this.#try(e, index, count);
      if (item !== undefined) return item;
      // Some encodings are always another row's under our choices; take another one now and then.
      if (tries % 20 === 19) e = this.#c.pick(this.#groups.all);
    }
    throw new Error(`No instruction can be made of the encoding "${e.text}" of ${e.row.mnemonic}`);
  }

  #try(e: Encoding, index: number, count: number): Item | undefined {
    const c = this.#c;
    const { mnemonic } = e.row;
    const isVex = e.map > VEX_MAPS;
    const isBranch = e.operands.some((o) => o.source === "J");
    const isMemory = e.hasModrm && e.modrm < 0 && (e.mod === "mem" || (e.mod === "" && c.oneIn(2)));
    const before: number[] = [];
    const out: number[] = [];

    // Prefixes.
    let has66 = e.prefix === 0x66;
    if (c.oneIn(32)) out.push(c.pick(EMPTY_PREFIXES));
    if (c.oneIn(16) && !(isBranch && e.opcode >= 0xe8)) out.push(0x67);
    const has67 = out.includes(0x67);
    let lock = false;
    if (!isVex) {
      const may66 = !has66 && e.prefix !== NO_PREFIX && !isBranch;
      const likes66 = e.flags.trap === undefined &&
        e.operands.some((o) => /^[vz]?$/.test(o.size) || o.size === "bs");
      if (may66 && (e.operandSize === 16 || c.oneIn(likes66 ? 4 : 48))) {
        has66 = true;
        out.push(0x66);
      }
      if (e.prefix === 0x66) out.push(0x66);
      else if (e.prefix === 0xf2 || e.prefix === 0xf3) out.push(e.prefix);
      if (e.flags.string !== undefined && c.oneIn(2)) {
        out.push(c.pick([0xf2, 0xf3]));
        before.push(0xb9, c.below(c.oneIn(4) ? 24 : 5), 0, 0, 0); // mov ecx, imm32
      }
      lock = e.flags.lock === true && (isMemory ? c.oneIn(8) : c.oneIn(64));
      if (lock) out.push(LOCK);
    }

    // REX or its bits in VEX.
    let rex = c.oneIn(3) ? 0 : c.below(16);
    if (e.rexW >= 0) rex = (rex & 7) | (e.rexW << 3);
    if (e.operandSize === 64) rex |= 8;
    else if (e.operandSize !== 0) rex &= 7;
    else if (c.oneIn(3)) rex |= 8;
    const wide = (rex & 8) !== 0;

    // ModRM, SIB, displacement.
    let modrm = 0;
    const address: number[] = [];
    let relative = -1;
    const hasRex = rex !== 0 || isVex;
    if (e.hasModrm) {
      if (e.modrm >= 0) modrm = e.modrm;
      else {
        let reg = e.digit;
        if (reg < 0) {
          const spec = e.operands.find((o) => "GVPS".includes(o.source));
          reg = spec?.source === "G"
            ? this.#gpr(spec.access !== "r", spec.size === "b" && !hasRex)
            : c.below(16);
          if (isMemory && BIT_OFFSET.has(mnemonic)) reg = R15;
          if (!hasRex && reg > 7) reg &= 7;
          rex = (rex & ~4) | (reg > 7 ? 4 : 0);
        }
        if (!isMemory) {
          const spec = e.operands.find((o) => "EWUQNR".includes(o.source) && o.source.length === 1);
          const isGpr = spec?.source === "E" || spec?.source === "R";
          let rm = isGpr ? this.#gpr(spec.access !== "r", spec.size === "b" && !hasRex) : c.below(16);
          if (!hasRex && rm > 7) rm &= 7;
          rex = (rex & ~1) | (rm > 7 ? 1 : 0);
          modrm = 0xc0 | ((reg & 7) << 3) | (rm & 7);
        } else {
          const wild = ADDRESS_ONLY.has(mnemonic) && c.oneIn(2);
          const isVector = e.flags.trap === "sse" &&
            e.operands.some((o) => o.size === "dq" && "WM".includes(o.source));
          const made = wild ? this.#wildAddress() : this.#address(isVector && !c.oneIn(32));
          rex = (rex & ~3) | made.rex;
          modrm = made.modrm | ((reg & 7) << 3);
          address.push(...made.bytes);
          if (made.relative) relative = 1;
        }
      }
    } else if (e.plusRegister) {
      const spec = e.operands.find((o) => o.source === "Z")!;
      let n = this.#gpr(spec.access !== "r", spec.size === "b" && !hasRex);
      if (!hasRex && n > 7) n &= 7;
      modrm = n & 7;
      rex = (rex & ~1) | (n > 7 ? 1 : 0);
    }

    // Opcode.
    if (isVex) {
      const spec = e.operands.find((o) => o.source === "B");
      const vvvv = spec === undefined ? 0 : this.#gpr(spec.access !== "r", false);
      const pp = e.prefix === 0x66 ? 1 : e.prefix === 0xf3 ? 2 : e.prefix === 0xf2 ? 3 : 0;
      out.push(
        0xc4,
        ((~rex & 7) << 5) | (e.map - VEX_MAPS),
        (wide ? 0x80 : 0) | ((~vvvv & 15) << 3) | pp,
      );
    } else {
      if (rex !== 0 || (hasRex && c.oneIn(2))) out.push(0x40 | rex);
      if (e.map > 0) out.push(0x0f);
      if (e.map > 1) out.push(e.map === 2 ? 0x38 : 0x3a);
    }
    out.push(
      e.plusRegister && !e.hasModrm
        ? (e.opcode & ~7) | modrm
        : e.plusCondition
        ? e.opcode + c.below(16)
        : e.opcode,
    );
    if (e.hasModrm) out.push(modrm);
    if (relative > 0) relative = out.length;
    out.push(...address);

    // Immediates.
    const operandSize = wide || e.force64 ? 64 : has66 && e.prefix !== 0x66 ? 16 : e.default64 ? 64 : 32;
    let shiftCount = -1;
    let jump: Item["jump"];
    for (const o of e.operands) {
      if (o.source === "fixed" && o.kind === "imm") shiftCount = o.fixed;
      if (o.source === "O") {
        const target = this.#target();
        for (let i = 0; i < (has67 ? 4 : 8); i++) out.push(i < 4 ? (target >>> (8 * i)) & 0xff : 0);
      }
      if (o.source === "J") {
        const size = o.size === "b" ? 1 : 4;
        const at = out.length;
        for (let i = 0; i < size; i++) out.push(0);
        jump = {
          at: before.length + at,
          size,
          end: before.length + out.length,
          to: index + 1 + c.below(count - index),
        };
      }
      if (o.source !== "I") continue;
      if (mnemonic === "ENTER") {
        if (o.size === "w") out.push(8 * c.below(12) + (c.oneIn(8) ? c.below(8) : 0), 0);
        else out.push(c.oneIn(2) ? 0 : c.below(40));
        continue;
      }
      const bytes = immediateBytes(o.size, operandSize);
      if (bytes === 1) out.push(shiftCount = c.oneIn(2) ? c.below(72) : c.below(256));
      else {
        const value = integer64(c);
        for (let i = 0; i < bytes; i++) out.push(Number((value >> BigInt(8 * i)) & 0xffn));
      }
    }
    if (isMemory && e.operands.some((o) => o.source === "fixed" && o.kind === "reg" && o.fixed === 1)) {
      shiftCount = -1;
    }
    return this.#check(e, before, out, relative, shiftCount, jump);
  }

  /** Decodes what was made; undefined if it must not run. */
  #check(
    e: Encoding,
    before: readonly number[],
    out: readonly number[],
    relative: number,
    shiftCount: number,
    jump: Item["jump"],
  ): Item | undefined {
    const c = this.#c;
    const bytes = new Uint8Array(16);
    bytes.set(out.slice(0, 16));
    const decoded = decode(bytes, 0, out.length, 2, this.#features);
    const prefix: number[] = [...before];
    let mask = 0, looseX87 = false, looseAlignment = false, looseFaults = false, looseOrder = false;
    let settling: readonly number[] = [];
    if (!isDecoded(decoded)) {
      // Of what is no instruction, only a LOCK that is not allowed is tried.
      if (decoded !== 6 || !out.includes(LOCK) || out.indexOf(LOCK) > 3) return undefined;
    } else {
      const { row } = decoded.form;
      if (decoded.length !== out.length || row.mnemonic !== e.row.mnemonic) return undefined;
      if (!writesAreSafe(decoded) || reasonToDrop(decoded) !== undefined) return undefined;
      const byCl = decoded.form.operands.some((o) => o.kind === "reg" && o.fixed === 1 && o.width === 8) &&
        e.flags.trap === undefined;
      const isDouble = row.mnemonic === "SHLD" || row.mnemonic === "SHRD";
      if (byCl && (isDouble || c.oneIn(4))) {
        // Above 16, a 16-bit double shift's result is undefined.
        shiftCount = decoded.form.w === 16 && isDouble ? c.below(17) : c.below(isDouble ? 64 : 72);
        prefix.push(0xb1, shiftCount); // mov cl, imm8
      } else if (byCl) shiftCount = -1;
      else if (isDouble && decoded.form.w === 16 && (shiftCount & 31) > 16) return undefined;
      if (/^I?DIV$/.test(row.mnemonic) && !c.oneIn(4)) prefix.push(...c.pick(DIVIDENDS));
      mask = undefinedFlags(decoded, shiftCount);
      if (row.mnemonic === "LDMXCSR") {
        if (relative >= 0) return undefined;
        prefix.push(...clearReserved(out, c.oneIn(8) ? 0x1_ffff : 0xffff));
        mask = RFLAGS.AF;
      }
      settling = settlingCode(decoded);
      looseX87 = x87IsLoose(decoded);
      looseAlignment = alignmentIsLoose(decoded);
      looseFaults = faultsAreLoose(decoded);
      looseOrder = orderIsLoose(decoded);
    }
    const skip = prefix.length;
    if (jump !== undefined) jump = { ...jump, at: skip + jump.at, end: skip + jump.end };
    const end = skip + out.length;
    const all = [...prefix, ...out, ...settling, ...(mask === 0 ? [] : this.#defineFlags(mask))];
    return {
      bytes: all,
      undefinedFlags: mask,
      looseX87,
      looseAlignment,
      looseFaults,
      looseOrder,
      ...(relative >= 0 ? { relative: { at: skip + relative, end, target: this.#target() } } : {}),
      ...(jump === undefined ? {} : { jump }),
    };
  }

  /** Makes flags that are undefined defined: by clearing them, or by setting all anew. */
  #defineFlags(mask: number): number[] {
    const c = this.#c;
    if (!c.oneIn(3)) return [0x48, 0x39, 0xc0 | (c.pick([0, 1, 2]) << 3) | c.pick([0, 1, 2])]; // cmp
    const keep = ~mask;
    const imm = [keep & 0xff, (keep >> 8) & 0xff, (keep >> 16) & 0xff, (keep >> 24) & 0xff];
    return [PUSHFQ, 0x48, 0x81, 0x24, 0x24, ...imm, POPFQ]; // and qword [rsp], imm32
  }

  /** A general register to use as an operand. */
  #gpr(isWritten: boolean, isLegacyByte: boolean): number {
    const c = this.#c;
    if (isWritten) return isLegacyByte ? c.pick(SCRATCH_BYTES) : c.pick(SCRATCH);
    return c.oneIn(3) ? c.below(16) : c.pick(SCRATCH);
  }

  /** A fixed address to point an operand at. */
  #target(): number {
    const c = this.#c;
    if (c.oneIn(32)) return this.#pointer();
    return DATA + 16 * c.below(0x1e0) + (c.oneIn(3) ? c.below(16) : 0);
  }

  /**
   * ModRM (without reg), what follows it, and REX.X and REX.B of an operand in the region.
   *
   * @param aligned Make it likely that it is 16-byte aligned.
   */
  #address(aligned: boolean): { modrm: number; bytes: number[]; rex: number; relative: boolean } {
    const c = this.#c;
    const kind = c.below(aligned ? 11 : 16);
    if (kind === 0) return { modrm: 5, bytes: [0, 0, 0, 0], rex: 0, relative: true };
    const scale = c.below(4);
    if (kind === 1) {
      // [disp32], or [r15 * scale + disp32].
      const index = c.oneIn(2) ? 4 : R15;
      return {
        modrm: 4,
        bytes: [(scale << 6) | ((index & 7) << 3) | 5, ...dword(this.#target())],
        rex: index > 7 ? 2 : 0,
        relative: false,
      };
    }
    const base = c.pick(aligned && c.oneIn(2) ? POINTERS.slice(4) : POINTERS);
    const mod = (base & 7) === 5 ? 1 + c.below(2) : c.below(3);
    let disp = c.below(256) - 128;
    if (mod === 2) disp = c.below(0x400) - 0x200;
    if (aligned || !c.oneIn(4)) disp &= ~15;
    const tail = mod === 0 ? [] : mod === 1 ? [disp & 0xff] : dword(disp);
    const rexB = base > 7 ? 1 : 0;
    if ((base & 7) !== 4 && kind < 11) {
      return { modrm: (mod << 6) | (base & 7), bytes: tail, rex: rexB, relative: false };
    }
    const index = c.oneIn(3) ? 4 : R15;
    return {
      modrm: (mod << 6) | 4,
      bytes: [(scale << 6) | ((index & 7) << 3) | (base & 7), ...tail],
      rex: rexB | (index > 7 ? 2 : 0),
      relative: false,
    };
  }

  /** As {@link #address}, with any registers and displacement. */
  #wildAddress(): { modrm: number; bytes: number[]; rex: number; relative: boolean } {
    const c = this.#c;
    const mod = c.below(3), rm = c.below(8), sib = c.below(256);
    const long = mod === 2 || (mod === 0 && (rm === 5 || (rm === 4 && (sib & 7) === 5)));
    return {
      modrm: (mod << 6) | rm,
      bytes: [...(rm === 4 ? [sib] : []), ...(long ? dword(c.word()) : mod === 1 ? [c.below(256)] : [])],
      rex: c.below(4),
      relative: false,
    };
  }

  /** Transfers of control that need more than one instruction to be safe. */
  #template(index: number, count: number): Item {
    const c = this.#c;
    const to = index + 1 + c.below(count - index);
    const item = (bytes: number[], at: number, end: number, size: 1 | 4 = 4): Item => ({
      bytes,
      ...(at > 0 ? { jump: { at, size, end, to } } : {}),
      undefinedFlags: 0,
      looseX87: false,
      looseAlignment: bytes[0] === ENTER,
      looseFaults: bytes[0] === ENTER,
      looseOrder: false,
    });
    switch (c.below(7)) {
      case 6: // enter imm16, imm8; leave
        return item([ENTER, c.below(64), 0, c.oneIn(2) ? 0 : c.below(40), 0xc9], 0, 0);
      case 0: // jmp rel32
        return item([0xe9, 0, 0, 0, 0], 1, 5);
      case 1: // jmp rel8
        return item([0xeb, 0], 1, 2, 1);
      case 2: // call rel32
        return item([0xe8, 0, 0, 0, 0], 1, 5);
      case 3: // mov eax, target; jmp rax
        return item([0xb8, 0, 0, 0, 0, 0xff, 0xe0], 1, -1);
      case 4: // mov eax, target; call rax
        return item([0xb8, 0, 0, 0, 0, 0xff, 0xd0], 1, -1);
      default: { // push target; ret, or ret imm16
        const ret = c.oneIn(2) ? [0xc3] : [0xc2, 8 * c.below(8), 0];
        return item([0x68, 0, 0, 0, 0, ...ret], 1, -1);
      }
    }
  }
}

/** AND dword [mem], imm32 with the memory operand of an LDMXCSR (0F AE /2), prefixes and all. */
function clearReserved(ldmxcsr: readonly number[], mask: number): number[] {
  const opcode = ldmxcsr.indexOf(0xae), modrm = ldmxcsr[opcode + 1]!;
  return [
    ...ldmxcsr.slice(0, opcode - 1),
    0x81,
    (modrm & ~0x38) | (4 << 3),
    ...ldmxcsr.slice(opcode + 2),
    ...dword(mask),
  ];
}

function dword(value: number): number[] {
  return [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, (value >>> 24) & 0xff];
}

function immediateBytes(letter: string, operandSize: number): number {
  switch (letter) {
    case "b":
    case "bs":
      return 1;
    case "w":
      return 2;
    case "d":
      return 4;
    case "q":
      return 8;
    case "v":
      return operandSize / 8;
    default:
      return operandSize === 16 ? 2 : 4;
  }
}

/** True if no register operand that is written is one of those that addresses are made of, or a segment register. */
function writesAreSafe(decoded: Decoded): boolean {
  return decoded.form.operands.every((o) => {
    if (o.access !== "w" && o.access !== "rw") return true;
    if (o.kind === "seg" || o.kind === "cr" || o.kind === "dr") return false;
    if (o.kind !== "reg") return true;
    const offset = o.slot === "r0" ? decoded.r0 : o.slot === "r1" ? decoded.r1 : decoded.r2;
    return SCRATCH_OFFSETS.has(offset);
  });
}
