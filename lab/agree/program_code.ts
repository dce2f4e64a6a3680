/**
 * Machine code for random programs: a buffer that is written to by address, an encoder of ModRM operands, and random instructions of nearly
 * every kind, with operands that mostly make sense.
 *
 * Room: `lab/agree/`; imports the seeded generator. Knows nothing of the machine that runs it: what an opcode means is not its matter.
 *
 * @module
 */
import type { Random } from "../../hw/random.ts";

/** A register by number, or memory: a base register with displacement and index, an address (RIP-relative in 64-bit mode), an absolute address. */
export type Operand =
  | { readonly register: number }
  | { readonly base: number; readonly displacement: number; readonly index?: number; readonly scale?: number }
  | { readonly address: number }
  | { readonly absolute: number };

/** What goes around the opcode of an instruction with a ModRM byte. */
export interface Encoding {
  /** Mandatory prefix 66H, F2H, F3H or none. */
  readonly prefix?: number;
  /** REX.W; only in 64-bit mode. */
  readonly wide?: boolean;
  readonly opcode: readonly number[];
  readonly reg: number;
  readonly rm: Operand;
  /** Bytes of immediate that follow. */
  readonly immediate?: readonly number[];
}

/** Four bytes, little-endian. */
export function u32(value: number): number[] {
  return [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24];
}

/** Code that is being written, from a linear address on. */
export class Code {
  readonly bytes: number[] = [];

  /** @param origin Address of the first byte. @param is64 Whether it is 64-bit code. */
  constructor(readonly origin: number, readonly is64: boolean) {}

  /** Address of the next byte. */
  get at(): number {
    return this.origin + this.bytes.length;
  }

  emit(...bytes: readonly number[]): void {
    for (const byte of bytes) this.bytes.push(byte & 255);
  }

  /** An instruction with ModRM. */
  modrm({ prefix, wide, opcode, reg, rm, immediate = [] }: Encoding): void {
    if (prefix !== undefined) this.emit(prefix);
    const index = "base" in rm ? rm.index : undefined;
    const low = "register" in rm ? rm.register : "base" in rm ? rm.base : 0;
    const rex = (wide ? 8 : 0) | (reg & 8 ? 4 : 0) | ((index ?? 0) & 8 ? 2 : 0) | (low & 8 ? 1 : 0);
    if (rex !== 0 && this.is64) this.emit(0x40 | rex);
    this.emit(...opcode);
    const field = (reg & 7) << 3;
    if ("register" in rm) this.emit(0xc0 | field | (rm.register & 7));
    else if ("address" in rm) {
      this.emit(field | 5);
      // In 64-bit mode relative to the end of the instruction.
      this.emit(...u32(this.is64 ? rm.address - (this.at + 4 + immediate.length) : rm.address));
    } else if ("absolute" in rm) {
      this.emit(...(this.is64 ? [field | 4, 0x25] : [field | 5]), ...u32(rm.absolute));
    } else {
      const isByte = rm.displacement >= -128 && rm.displacement < 128;
      const mod = isByte ? 0x40 : 0x80;
      if (index !== undefined || (rm.base & 7) === 4) {
        this.emit(mod | field | 4, ((rm.scale ?? 0) << 6) | ((index ?? 4) & 7) << 3 | (rm.base & 7));
      } else this.emit(mod | field | (rm.base & 7));
      this.emit(...(isByte ? [rm.displacement] : u32(rm.displacement)));
    }
    this.emit(...immediate);
  }

  /** A jump, call or conditional jump of a 32-bit displacement to an address. */
  jump(opcode: readonly number[], target: number): void {
    this.emit(...opcode);
    this.emit(...u32(target - (this.at + 4)));
  }
}

/** Who writes random instructions. */
export interface Writer {
  readonly code: Code;
  readonly random: Random;
  /** Registers that must keep their value, as a bit set. */
  readonly kept: number;
  /** Whether privileged instructions make sense. */
  readonly privileged: boolean;
  /** An address of data or code to name directly. */
  readonly somewhere: () => number;
}

/** Registers that hold pointers into data, and those that hold numbers. */
const POINTERS = { narrow: [3, 6, 7], wide: [3, 6, 7, 12, 13] } as const;
const NUMBERS = { narrow: [0, 1, 2, 5], wide: [0, 1, 2, 5, 8, 9, 10, 11, 14, 15] } as const;

function pick<T>(random: Random, list: readonly T[]): T {
  return list[random.between(0, list.length - 1)]!;
}

function chance(random: Random, one: number): boolean {
  return random.between(1, one) === 1;
}

/** A register to write: seldom one that holds a pointer, never the stack pointer. */
function destination({ code, random, kept }: Writer): number {
  const set = code.is64 ? "wide" : "narrow";
  for (;;) {
    const found = pick(random, chance(random, 25) ? POINTERS[set] : NUMBERS[set]);
    if (!((kept >>> found) & 1)) return found;
  }
}

function source({ code, random }: Writer): number {
  return random.between(0, code.is64 ? 15 : 7);
}

function memory({ code, random, somewhere }: Writer): Operand {
  if (chance(random, 8)) return { address: somewhere() };
  const displacement = chance(random, 4) ? random.between(-0x1800, 0x1800) : random.between(-128, 127);
  const set = code.is64 ? "wide" : "narrow";
  const base = pick(random, POINTERS[set]);
  if (chance(random, 12)) {
    return { base, displacement, index: pick(random, NUMBERS[set]), scale: random.between(0, 3) };
  }
  return { base, displacement };
}

function bytes(random: Random, count: number): number[] {
  return Array.from({ length: count }, () => random.next() & 255);
}

/** A register or memory to write. */
function target(w: Writer): Operand {
  return chance(w.random, 3) ? memory(w) : { register: destination(w) };
}
/** A register or memory to read. */
function value(w: Writer): Operand {
  return chance(w.random, 3) ? memory(w) : { register: source(w) };
}

/** Operand size: bytes of an immediate, with prefix and REX.W for it. */
function size(w: Writer): { readonly prefix?: number; readonly wide?: boolean; readonly immediate: number } {
  switch (w.random.between(0, 5)) {
    case 0:
      return { prefix: 0x66, immediate: 2 };
    case 1:
    case 2:
      return w.code.is64 ? { wide: true, immediate: 4 } : { immediate: 4 };
    default:
      return { immediate: 4 };
  }
}

/** Opcodes of SSE and MMX behind 0F whose operands are registers or memory of up to 16 bytes, without an immediate. */
const VECTOR: readonly number[] = [
  ...[0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x28, 0x29, 0x2a, 0x2c, 0x2d, 0x2e, 0x2f, 0x50, 0x51],
  ...[0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x5b, 0x5c, 0x5d, 0x5e, 0x5f, 0x60, 0x61, 0x62, 0x63, 0x64],
  ...[0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f, 0x74, 0x75, 0x76, 0x7e, 0x7f, 0xd1],
  ...[0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xe0, 0xe1, 0xe2],
  ...[0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xeb, 0xec, 0xed, 0xee, 0xef, 0xf1, 0xf2, 0xf3, 0xf4],
  ...[0xf5, 0xf6, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe],
];
const VECTOR_IMMEDIATE: readonly number[] = [0x70, 0xc2, 0xc4, 0xc5, 0xc6];

/** Kinds of instruction, with the weight of each. */
const KINDS: readonly (readonly [weight: number, write: (w: Writer) => void])[] = [
  // ALU operation of register and register or memory, both ways, byte or larger.
  [30, (w) => {
    const operation = w.random.between(0, 7) << 3, direction = w.random.between(0, 1);
    const { prefix, wide } = size(w), byte = chance(w.random, 4);
    const encoding = {
      ...(prefix === undefined || byte ? {} : { prefix }),
      ...(wide && !byte ? { wide } : {}),
      opcode: [operation | direction << 1 | (byte ? 0 : 1)],
    };
    if (direction === 0) {
      w.code.modrm({
        ...encoding,
        reg: byte ? w.random.between(0, 3) : source(w),
        rm: byteSafe(w, target(w), byte),
      });
    } else {
      w.code.modrm({
        ...encoding,
        reg: byte ? byteRegister(w) : destination(w),
        rm: byteSafe(w, value(w), byte),
      });
    }
  }],
  // ALU operation with an immediate.
  [14, (w) => {
    const reg = w.random.between(0, 7);
    const { prefix, wide, immediate } = size(w), short = chance(w.random, 2);
    w.code.modrm({
      ...(prefix === undefined ? {} : { prefix }),
      ...(wide ? { wide } : {}),
      opcode: [short ? 0x83 : 0x81],
      reg,
      rm: target(w),
      immediate: bytes(w.random, short ? 1 : immediate),
    });
  }],
  // MOV both ways, MOVZX, MOVSX, LEA, CMOVcc, XCHG, XADD, CMPXCHG.
  [18, (w) => w.code.modrm({ ...prefixed(w), opcode: [0x8b], reg: destination(w), rm: memory(w) })],
  [14, (w) => w.code.modrm({ ...prefixed(w), opcode: [0x89], reg: source(w), rm: target(w) })],
  [4, (w) => w.code.modrm({ opcode: [0x88], reg: w.random.between(0, 3), rm: memory(w) })],
  [6, (w) => {
    const opcode = [0x0f, pick(w.random, [0xb6, 0xb7, 0xbe, 0xbf])];
    w.code.modrm({ ...wideOnly(w), opcode, reg: destination(w), rm: value(w) });
  }],
  [
    3,
    (w) => w.code.is64 && w.code.modrm({ ...wideOnly(w), opcode: [0x63], reg: destination(w), rm: value(w) }),
  ],
  [7, (w) => w.code.modrm({ ...prefixed(w), opcode: [0x8d], reg: destination(w), rm: memory(w) })],
  [5, (w) => {
    w.code.modrm({
      ...prefixed(w),
      opcode: [0x0f, 0x40 | w.random.between(0, 15)],
      reg: destination(w),
      rm: value(w),
    });
  }],
  [
    3,
    (w) =>
      w.code.modrm({
        opcode: [0x0f, 0x90 | w.random.between(0, 15)],
        reg: 0,
        rm: byteSafe(w, target(w), true),
      }),
  ],
  [3, (w) => {
    const opcode = pick(w.random, [[0x87], [0x0f, 0xc1], [0x0f, 0xb1]]);
    const locked = chance(w.random, 3);
    const rm = locked ? memory(w) : target(w);
    if (locked) w.code.emit(0xf0);
    w.code.modrm({ ...prefixed(w), opcode, reg: destination(w), rm });
  }],
  [2, (w) => {
    if (chance(w.random, 2)) w.code.emit(0xf0);
    w.code.modrm({
      ...prefixed(w),
      opcode: [pick(w.random, [0x01, 0x09, 0x21, 0x29, 0x31])],
      reg: source(w),
      rm: memory(w),
    });
  }],
  [1, (w) => {
    const wide = w.code.is64 && chance(w.random, 2);
    if (((w.kept >>> 2) | w.kept) & 1) return;
    w.code.modrm({ ...(wide ? { wide } : {}), opcode: [0x0f, 0xc7], reg: 1, rm: memory(w) });
  }],
  // Shifts and rotations.
  [10, (w) => {
    const opcode = pick(w.random, [0xc1, 0xd1, 0xd3]);
    const immediate = opcode === 0xc1 ? bytes(w.random, 1) : [];
    w.code.modrm({ ...prefixed(w), opcode: [opcode], reg: w.random.between(0, 7), rm: target(w), immediate });
  }],
  [3, (w) => {
    const opcode = pick(w.random, [0xc0, 0xd0, 0xd2]);
    const immediate = opcode === 0xc0 ? bytes(w.random, 1) : [];
    w.code.modrm({
      opcode: [opcode],
      reg: w.random.between(0, 7),
      rm: byteSafe(w, target(w), true),
      immediate,
    });
  }],
  [3, (w) => {
    const opcode = pick(w.random, [0xa4, 0xa5, 0xac, 0xad]);
    const immediate = opcode & 1 ? [] : bytes(w.random, 1);
    w.code.modrm({ ...prefixed(w), opcode: [0x0f, opcode], reg: source(w), rm: target(w), immediate });
  }],
  // TEST, NOT, NEG, MUL, IMUL, DIV, IDIV; INC, DEC.
  [8, (w) => {
    const reg = w.random.between(0, 7);
    if (reg >= 4 && (w.kept & 5) !== 0) return;
    const { prefix, wide, immediate } = size(w);
    w.code.modrm({
      ...(prefix === undefined ? {} : { prefix }),
      ...(wide ? { wide } : {}),
      opcode: [0xf7],
      reg,
      rm: reg === 2 || reg === 3 ? target(w) : value(w),
      immediate: reg < 2 ? bytes(w.random, immediate) : [],
    });
  }],
  [6, (w) => w.code.modrm({ ...prefixed(w), opcode: [0xff], reg: w.random.between(0, 1), rm: target(w) })],
  [5, (w) => w.code.modrm({ ...prefixed(w), opcode: [0x85], reg: source(w), rm: value(w) })],
  [4, (w) => w.code.modrm({ ...prefixed(w), opcode: [0x0f, 0xaf], reg: destination(w), rm: value(w) })],
  [
    2,
    (w) => w.code.modrm({ opcode: [0x6b], reg: destination(w), rm: value(w), immediate: bytes(w.random, 1) }),
  ],
  // Bits.
  [4, (w) => {
    const opcode = [0x0f, pick(w.random, [0xbc, 0xbd])];
    if (chance(w.random, 4)) w.code.emit(0xf3);
    w.code.modrm({ ...wideOnly(w), opcode, reg: destination(w), rm: value(w) });
  }],
  [3, (w) => {
    w.code.modrm({
      ...prefixed(w),
      opcode: [0x0f, 0xba],
      reg: w.random.between(4, 7),
      rm: target(w),
      immediate: bytes(w.random, 1),
    });
  }],
  [2, (w) => {
    w.code.modrm({
      ...wideOnly(w),
      opcode: [0x0f, pick(w.random, [0xa3, 0xab, 0xb3, 0xbb])],
      reg: source(w),
      rm: target(w),
    });
  }],
  [2, (w) => {
    const register = destination(w);
    const rex = (register & 8 ? 1 : 0) | (chance(w.random, 2) ? 8 : 0);
    if (rex !== 0 && w.code.is64) w.code.emit(0x40 | rex);
    w.code.emit(0x0f, 0xc8 | (register & 7));
  }],
  // One byte: CBW CWD, flags, LAHF SAHF, XLAT.
  [5, (w) => {
    const all = [0x98, 0x99, 0xf5, 0xf8, 0xf9, 0xfc, 0x9f, 0x9e, 0xd7, 0x90];
    const opcode = pick(w.random, all);
    if (w.kept & 5 && [0x98, 0x99, 0x9f, 0xd7].includes(opcode)) return;
    if (w.code.is64 && chance(w.random, 3)) w.code.emit(0x48);
    w.code.emit(opcode);
  }],
  [1, (w) => w.code.emit(0xfd)],
  // The stack.
  [8, (w) => {
    if (chance(w.random, 2)) {
      const register = source(w);
      if (register & 8) w.code.emit(0x41);
      w.code.emit(0x50 | (register & 7));
    } else {
      const register = destination(w);
      if (register & 8) w.code.emit(0x41);
      w.code.emit(0x58 | (register & 7));
    }
  }],
  [1, (w) => w.code.emit(0x9c)],
  [1, (w) => w.code.emit(...(chance(w.random, 2) ? [0x6a, w.random.next()] : [0x68, ...bytes(w.random, 4)]))],
  [1, (w) => w.code.modrm({ opcode: [0xff], reg: 6, rm: value(w) })],
  // String instructions, alone and repeated a few times.
  [5, (w) => {
    const opcode = pick(w.random, [0xa4, 0xa5, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf, 0xa6, 0xa7]);
    if (w.kept & 0b1100_0011) return;
    const repeated = chance(w.random, 2);
    if (repeated) w.code.emit(0xb9, ...u32(w.random.between(0, chance(w.random, 6) ? 3000 : 20)));
    if (chance(w.random, 5)) w.code.emit(0x66);
    if (repeated) w.code.emit(pick(w.random, [0xf3, 0xf2]));
    if (w.code.is64 && chance(w.random, 3)) w.code.emit(0x48);
    w.code.emit(opcode);
  }],
  // SSE and MMX; x87.
  [22, (w) => {
    const immediate = chance(w.random, 10);
    w.code.modrm({
      ...mandatory(w),
      ...wideOnly(w),
      opcode: [0x0f, pick(w.random, immediate ? VECTOR_IMMEDIATE : VECTOR)],
      // The field may name an XMM register or a general one, which may be one to keep.
      reg: destination(w),
      rm: chance(w.random, 3) ? memory(w) : { register: destination(w) },
      immediate: immediate ? bytes(w.random, 1) : [],
    });
  }],
  [4, (w) => {
    if (chance(w.random, 2)) {
      w.code.modrm({ opcode: [0xd8 | w.random.between(0, 7)], reg: w.random.between(0, 7), rm: memory(w) });
    } else w.code.emit(0xd8 | w.random.between(0, 7), 0xc0 | w.random.between(0, 63));
  }],
  // What asks the machine: CPUID, RDTSC, and what traps: INT3, INT, INTO, UD2, BOUND-like noise.
  [1, (w) => w.kept & 0b1111 ? undefined : w.code.emit(...pick(w.random, [[0x0f, 0xa2], [0x0f, 0x31]]))],
  [
    1,
    (w) =>
      w.code.emit(
        ...pick(w.random, [[0xcc], [0xcd, 0x92], [0xcd, 0x90], [0xcd, 0x90], [0x0f, 0x0b], [0xce], [0xf1]]),
      ),
  ],
  // Segment overrides that change nothing, useless prefixes.
  [2, (w) => w.code.emit(pick(w.random, [0x26, 0x36, 0x3e]))],
  [1, (w) => w.code.emit(...bytes(w.random, w.random.between(1, 6)))],
  // Privileged.
  [3, (w) => {
    if (!w.privileged) return;
    switch (w.random.between(0, 7)) {
      case 0:
      case 1:
        return w.code.modrm({ opcode: [0x0f, 0x01], reg: 7, rm: memory(w) }); // INVLPG
      case 2:
        if (w.kept & 1) return;
        return w.code.emit(0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8); // mov eax, cr3; mov cr3, eax
      case 3:
        return w.code.emit(0xfa);
      case 4:
        return w.code.emit(0xfb);
      case 5:
        return w.code.emit(0x0f, 0x09);
      case 6:
        return w.code.emit(0x0f, 0x23, 0xc0 | (w.random.between(0, 3) << 3) | 3); // mov drN, ebx
      default:
        return w.code.emit(0x0f, 0x21, 0xf8 & ~(w.kept & 1 ? 0x38 : 0)); // mov eax, dr7
    }
  }],
];
const TOTAL = KINDS.reduce((sum, [weight]) => sum + weight, 0);

/** One of AL, CL, DL, BL that may be written; they need no REX. */
function byteRegister({ random, kept }: Writer): number {
  const free = [0, 1, 2, 3].filter((register) => !((kept >>> register) & 1));
  return pick(random, free);
}
/** An operand, of a byte instruction if so said. */
function byteSafe(w: Writer, operand: Operand, byte: boolean): Operand {
  return byte && "register" in operand ? { register: byteRegister(w) } : operand;
}
function prefixed(w: Writer): { readonly prefix?: number; readonly wide?: boolean } {
  const { prefix, wide } = size(w);
  return { ...(prefix === undefined ? {} : { prefix }), ...(wide ? { wide } : {}) };
}
function wideOnly(w: Writer): { readonly wide?: boolean } {
  return w.code.is64 && chance(w.random, 2) ? { wide: true } : {};
}
function mandatory(w: Writer): { readonly prefix?: number } {
  const prefix = pick(w.random, [undefined, 0x66, 0x66, 0xf2, 0xf3]);
  return prefix === undefined ? {} : { prefix };
}
/** Writes one random instruction (sometimes two that belong together, sometimes none). */
export function randomInstruction(w: Writer): void {
  let at = w.random.between(0, TOTAL - 1);
  for (const [weight, write] of KINDS) {
    if ((at -= weight) < 0) {
      write(w);
      return;
    }
  }
}
