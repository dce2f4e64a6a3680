/**
 * A small assembler for the few stubs that must be machine code: entry, vectors, return to user, start of other processors.
 *
 * Room: `kernel/platform/pc64/`; imports the gate encodings of hw. It knows just the instructions that locore.ts uses; everything
 * else in the kernel is TypeScript behind a gate.
 *
 * @module
 */
import { RESUME_NUMBER } from "../../../hw/gates.ts";

/** General-purpose registers by name, as numbers. */
export const REGISTER = {
  rax: 0,
  rcx: 1,
  rdx: 2,
  rbx: 3,
  rsp: 4,
  rbp: 5,
  rsi: 6,
  rdi: 7,
  r8: 8,
  r9: 9,
  r10: 10,
  r11: 11,
  r12: 12,
  r13: 13,
  r14: 14,
  r15: 15,
} as const;

/** The name of a general-purpose register. */
export type RegisterName = keyof typeof REGISTER;

/** Condition codes of the jumps in use. */
const CONDITION = { c: 2, nc: 3, z: 4, nz: 5, s: 8, ns: 9 } as const;

type Fixup = { readonly at: number; readonly label: string; readonly kind: Field; readonly plus: number };

/** How a label's address is stored: relative to the end of the field, physical in 32 bits, linear in 64. */
type Field = "rel32" | "physical32" | "virtual64";

/** Collects the bytes of an image that is loaded at one address and linked at another. */
export class Assembler {
  /** Physical address of the first byte. */
  readonly physicalBase: number;
  /** Linear address of the first byte once paging is on. */
  readonly virtualBase: bigint;
  readonly #bytes: number[] = [];
  readonly #labels = new Map<string, number>();
  readonly #fixups: Fixup[] = [];

  constructor(physicalBase: number, virtualBase: bigint) {
    this.physicalBase = physicalBase;
    this.virtualBase = virtualBase;
  }

  // ---- data and labels

  /** Offset of the next byte. */
  get here(): number {
    return this.#bytes.length;
  }
  /** Names the next byte. */
  label(name: string): this {
    if (this.#labels.has(name)) throw new Error(`Two labels are named "${name}"`);
    this.#labels.set(name, this.here);
    return this;
  }
  /** Appends bytes as they are. */
  db(...bytes: number[]): this {
    for (const byte of bytes) this.#bytes.push(byte & 0xff);
    return this;
  }
  dw(value: number): this {
    return this.db(value, value >>> 8);
  }
  dd(value: number): this {
    return this.db(value, value >>> 8, value >>> 16, value >>> 24);
  }
  dq(value: bigint): this {
    return this.dd(Number(value & 0xffff_ffffn)).dd(Number((value >> 32n) & 0xffff_ffffn));
  }
  /** Appends the address of a label, known at the end, plus a number. */
  address(label: string, kind: Field, plus = 0): this {
    this.#fixups.push({ at: this.here, label, kind, plus });
    return kind === "virtual64" ? this.dq(0n) : this.dd(0);
  }
  align(bytes: number, fill = 0xcc): this {
    while (this.here % bytes !== 0) this.db(fill);
    return this;
  }
  /** Replaces 16 bits. */
  patch16(at: number, value: number): this {
    this.#bytes[at] = value & 0xff;
    this.#bytes[at + 1] = (value >>> 8) & 0xff;
    return this;
  }
  /** Appends zeros. */
  space(bytes: number): this {
    for (let i = 0; i < bytes; i++) this.#bytes.push(0);
    return this;
  }

  /** Offset of a label in the image. */
  offset(label: string): number {
    const at = this.#labels.get(label);
    if (at === undefined) throw new Error(`No label is named "${label}"`);
    return at;
  }
  physical(label: string): number {
    return this.physicalBase + this.offset(label);
  }
  virtual(label: string): bigint {
    return this.virtualBase + BigInt(this.offset(label));
  }

  /** Resolves the labels and gives the image. */
  finish(): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(this.#bytes);
    const view = new DataView(out.buffer);
    for (const { at, label, kind, plus } of this.#fixups) {
      if (kind === "rel32") view.setInt32(at, this.offset(label) - (at + 4) + plus, true);
      else if (kind === "physical32") view.setUint32(at, this.physical(label) + plus, true);
      else view.setBigUint64(at, this.virtual(label) + BigInt(plus), true);
    }
    return out;
  }

  // ---- instructions of all modes

  cli(): this {
    return this.db(0xfa);
  }
  sti(): this {
    return this.db(0xfb);
  }
  hlt(): this {
    return this.db(0xf4);
  }
  cld(): this {
    return this.db(0xfc);
  }
  rdmsr(): this {
    return this.db(0x0f, 0x32);
  }
  wrmsr(): this {
    return this.db(0x0f, 0x30);
  }
  /** `mov r32, imm32`; clears the upper half in 64-bit mode. */
  movImmediate32(register: RegisterName, value: number): this {
    return this.db(0xb8 + low(register)).dd(value);
  }
  /** `mov crN, rax` (eax outside 64-bit mode). */
  movToControl(n: 0 | 3 | 4): this {
    return this.db(0x0f, 0x22, 0xc0 | (n << 3));
  }
  jump(label: string): this {
    return this.db(0xe9).address(label, "rel32");
  }
  jumpIf(condition: keyof typeof CONDITION, label: string): this {
    return this.db(0x0f, 0x80 | CONDITION[condition]).address(label, "rel32");
  }

  // ---- 64-bit mode

  /** `mov r64, imm64`. */
  movImmediate(register: RegisterName, value: bigint): this {
    return this.db(0x48 | high(register), 0xb8 + low(register)).dq(value);
  }
  /** `mov r64, address of label`. */
  movAddress(register: RegisterName, label: string): this {
    return this.db(0x48 | high(register), 0xb8 + low(register)).address(label, "virtual64");
  }
  /** `mov r64, r64`. */
  move(to: RegisterName, from: RegisterName): this {
    return this.db(0x48 | (high(from) << 2) | high(to), 0x89, 0xc0 | (low(from) << 3) | low(to));
  }
  push(register: RegisterName): this {
    return (high(register) ? this.db(0x41) : this).db(0x50 + low(register));
  }
  /** `push imm32`, sign-extended. */
  pushImmediate(value: number): this {
    return this.db(0x68).dd(value);
  }
  /** `mov [rsp + offset], r64`. */
  storeStack(offset: number, register: RegisterName): this {
    return this.db(0x48 | (high(register) << 2), 0x89, 0x84 | (low(register) << 3), 0x24).dd(offset);
  }
  /** `mov r64, [rsp + offset]`. */
  loadStack(register: RegisterName, offset: number): this {
    return this.db(0x48 | (high(register) << 2), 0x8b, 0x84 | (low(register) << 3), 0x24).dd(offset);
  }
  /** `test byte [rsp + offset], mask`. */
  testStack(offset: number, mask: number): this {
    return this.db(0xf6, 0x84, 0x24).dd(offset).db(mask);
  }
  /** `add rsp, n`; negative n subtracts. */
  adjustStack(n: number): this {
    return this.db(0x48, 0x81, 0xc4).dd(n);
  }
  /** `mov gs:[offset], r64`. */
  storeGs(offset: number, register: RegisterName): this {
    return this.db(0x65, 0x48 | (high(register) << 2), 0x89, 0x04 | (low(register) << 3), 0x25).dd(offset);
  }
  /** `mov r64, gs:[offset]`. */
  loadGs(register: RegisterName, offset: number): this {
    return this.db(0x65, 0x48 | (high(register) << 2), 0x8b, 0x04 | (low(register) << 3), 0x25).dd(offset);
  }
  /** `push qword gs:[offset]`. */
  pushGs(offset: number): this {
    return this.db(0x65, 0xff, 0x34, 0x25).dd(offset);
  }
  /** `mov r64, [r64 + disp32]`; the base is not rsp or r12. */
  load(to: RegisterName, base: RegisterName, disp: number): this {
    return this.db(0x48 | (high(to) << 2) | high(base), 0x8b, 0x80 | (low(to) << 3) | low(base)).dd(disp);
  }
  /** `mov [r64 + disp32], r64`; the base is not rsp or r12. */
  store(base: RegisterName, disp: number, from: RegisterName): this {
    return this.db(0x48 | (high(from) << 2) | high(base), 0x89, 0x80 | (low(from) << 3) | low(base)).dd(disp);
  }
  /** `test byte [r64 + disp32], mask`; the base is one of the first eight, not rsp. */
  testByte(base: RegisterName, disp: number, mask: number): this {
    return this.db(0xf6, 0x80 | low(base)).dd(disp).db(mask);
  }
  /** `fxsave64 [r64 + disp32]`; the base is one of the first eight, not rsp. */
  fxsave(base: RegisterName, disp: number): this {
    return this.db(0x48, 0x0f, 0xae, 0x80 | low(base)).dd(disp);
  }
  /** `fxrstor64 [r64 + disp32]`. */
  fxrstor(base: RegisterName, disp: number): this {
    return this.db(0x48, 0x0f, 0xae, 0x88 | low(base)).dd(disp);
  }
  ret(): this {
    return this.db(0xc3);
  }
  /** `mov rax, cr2`. */
  movFromCr2(): this {
    return this.db(0x0f, 0x20, 0xd0);
  }
  swapgs(): this {
    return this.db(0x0f, 0x01, 0xf8);
  }
  iretq(): this {
    return this.db(0x48, 0xcf);
  }
  /** `lgdt [base + disp32]`; the base is not rsp or r12. */
  lgdt(base: RegisterName, disp: number): this {
    return this.db(...prefix(base), 0x0f, 0x01, 0x90 | low(base)).dd(disp);
  }
  /** `lidt [base + disp32]`. */
  lidt(base: RegisterName, disp: number): this {
    return this.db(...prefix(base), 0x0f, 0x01, 0x98 | low(base)).dd(disp);
  }
  /** `ltr ax`. */
  ltr(): this {
    return this.db(0x0f, 0x00, 0xd8);
  }
  /** `wrmsr` of the 64-bit number at [rdi + disp]; uses rax, rcx, rdx. */
  writeMsrFrom(msr: number, disp: number): this {
    return this.movImmediate32("rcx", msr)
      .db(0x8b, 0x87).dd(disp) // mov eax, [rdi + disp]
      .db(0x8b, 0x97).dd(disp + 4) // mov edx, [rdi + disp + 4]
      .wrmsr();
  }

  // ---- gates

  /** `GATE n` and the RESUME behind it: the whole TypeScript function as if it were one long instruction. */
  gate(n: number): this {
    return this.db(0x0f, 0xff, 0x05).dd(n).db(0x0f, 0xff, 0x05).dd(RESUME_NUMBER);
  }
}

function low(register: RegisterName): number {
  return REGISTER[register] & 7;
}
function high(register: RegisterName): number {
  return REGISTER[register] >> 3;
}
function prefix(base: RegisterName): number[] {
  return high(base) ? [0x41] : [];
}
