/**
 * The x87's control instructions and environment images: FNINIT, FNCLEX, FLDCW, FNSTENV, FLDENV, FNSAVE, FRSTOR, FWAIT's check
 * (SDM vol. 1, "x87 FPU State": the four layouts of the environment).
 *
 * Room: `hw/isa/`; imports x87_state and x87_move; the processor as a type.
 *
 * @module
 */
import { type Cpu, type Procedure, VECTOR } from "../cpu.ts";
import { EXIT_NONE, RFLAGS, S } from "../state.ts";
import { F80, FP_ALL, fpUnpack } from "./softfloat.ts";
import {
  abridgedTags,
  controlWord,
  FCW_INIT,
  FSW,
  readPhysical,
  setAbridgedTags,
  setStatus,
  setWords,
  statusWord,
  top,
  writePhysical,
} from "./x87_state.ts";
import { gather, scatter } from "./x87_move.ts";

const CR0_PE = 1, CR0_NE = 0x20;
const REGISTER_BYTES = 10, REGISTERS = 8;

/** Two-bit tags (SDM vol. 1, "x87 FPU Tag Word"). */
const TAG = { valid: 0, zero: 1, special: 2, empty: 3 } as const;

function tagOf(value: bigint): number {
  const kind = fpUnpack(F80, value).kind;
  return kind === "normal" ? TAG.valid : kind === "zero" ? TAG.zero : TAG.special;
}

/** The full tag word, two bits for each physical register, made from the abridged one and the contents. */
export function fullTags(cpu: Cpu): number {
  const abridged = abridgedTags(cpu);
  let tags = 0;
  for (let n = 0; n < REGISTERS; n++) {
    const tag = (abridged >> n) & 1 ? tagOf(readPhysical(cpu, n)) : TAG.empty;
    tags |= tag << (2 * n);
  }
  return tags;
}

function setFullTags(cpu: Cpu, tags: number): void {
  let abridged = 0;
  for (let n = 0; n < REGISTERS; n++) if (((tags >> (2 * n)) & 3) !== TAG.empty) abridged |= 1 << n;
  setAbridgedTags(cpu, abridged);
}

/** Puts the x87 in its state after FNINIT. Registers keep their contents, empty. */
export function initialize(cpu: Cpu): void {
  setWords(cpu, FCW_INIT, 0);
  setAbridgedTags(cpu, 0);
  setPointers(cpu, { opcode: 0, ip: 0n, cs: 0, dp: 0n, ds: 0 });
}

interface Pointers {
  readonly opcode: number;
  readonly ip: bigint;
  readonly cs: number;
  readonly dp: bigint;
  readonly ds: number;
}

function setPointers(cpu: Cpu, { opcode, ip, cs, dp, ds }: Pointers): void {
  cpu.memory.u16[(cpu.base + S.FOP) >>> 1] = opcode & 0x7ff;
  cpu.set64(S.FIP, ip);
  cpu.set32(S.FCS, cs);
  cpu.set64(S.FDP, dp);
  cpu.set32(S.FDS, ds);
}

function opcodeOf(cpu: Cpu): number {
  return cpu.memory.u16[(cpu.base + S.FOP) >>> 1]! & 0x7ff;
}

/** Real-address and virtual-8086 mode use layouts of their own. */
function isRealLayout(cpu: Cpu): boolean {
  return (cpu.get32(S.CR0) & CR0_PE) === 0 || (cpu.get32(S.RFLAGS) & RFLAGS.VM) !== 0;
}

/** Bytes of the environment: seven fields of 2 or 4 bytes. */
function environmentBytes(wide: boolean): number {
  return wide ? 28 : 14;
}

/** The seven fields of the environment image. */
function environmentFields(cpu: Cpu, wide: boolean): readonly number[] {
  const ip = Number(cpu.get64(S.FIP) & 0xffff_ffffn), dp = Number(cpu.get64(S.FDP) & 0xffff_ffffn);
  const cs = cpu.get32(S.FCS), ds = cpu.get32(S.FDS), opcode = opcodeOf(cpu);
  const words = [controlWord(cpu), statusWord(cpu), fullTags(cpu)];
  if (isRealLayout(cpu)) {
    const linearIp = (cs * 16 + ip) >>> 0, linearDp = (ds * 16 + dp) >>> 0;
    const highMask = wide ? 0xffff : 0xf;
    return [
      ...words,
      linearIp & 0xffff,
      (((linearIp >>> 16) & highMask) << 12) | opcode,
      linearDp & 0xffff,
      ((linearDp >>> 16) & highMask) << 12,
    ];
  }
  return [...words, ip, wide ? cs | (opcode << 16) : cs, dp, ds];
}

/** Writes the environment image at VTEMP. Unused upper halves of the 32-bit layouts are all ones, as silicon has them for the words. */
function placeEnvironment(cpu: Cpu, wide: boolean): void {
  const at = cpu.base + S.VTEMP;
  environmentFields(cpu, wide).forEach((field, n) => {
    const upperOnes = n < 3 || n === 6 || (isRealLayout(cpu) && (n === 3 || n === 5));
    if (wide) cpu.memory.i32[(at >>> 2) + n] = upperOnes && field <= 0xffff ? field | 0xffff_0000 : field;
    else cpu.memory.u16[(at >>> 1) + n] = field;
  });
}

/** Loads control, status, tags and pointers from the image at VTEMP. */
function takeEnvironment(cpu: Cpu, wide: boolean): void {
  const at = cpu.base + S.VTEMP;
  const field = (n: number) => wide ? cpu.memory.u32[(at >>> 2) + n]! : cpu.memory.u16[(at >>> 1) + n]!;
  const word = (n: number) => field(n) & 0xffff;
  setWords(cpu, word(0), word(1));
  setFullTags(cpu, word(2));
  if (isRealLayout(cpu)) {
    const highMask = wide ? 0xffff : 0xf;
    const high = (n: number) => ((field(n) >>> 12) & highMask) * 0x1_0000;
    setPointers(cpu, {
      opcode: field(4) & 0x7ff,
      ip: BigInt(word(3) + high(4)),
      cs: 0,
      dp: BigInt(word(5) + high(6)),
      ds: 0,
    });
    return;
  }
  setPointers(cpu, {
    opcode: wide ? field(4) >>> 16 : opcodeOf(cpu),
    ip: BigInt(field(3)),
    cs: word(4),
    dp: BigInt(field(5)),
    ds: word(6),
  });
}

/** FNSTENV: saves, then masks all exceptions. Arguments: effective address, segment, 1 if 32-bit. */
function storeEnvironment(cpu: Cpu): number {
  const wide = cpu.argLow(2) !== 0;
  placeEnvironment(cpu, wide);
  scatter(cpu, environmentBytes(wide));
  setWords(cpu, controlWord(cpu) | FP_ALL, statusWord(cpu));
  return EXIT_NONE;
}

/** FLDENV. Arguments as for FNSTENV. */
function loadEnvironment(cpu: Cpu): number {
  const wide = cpu.argLow(2) !== 0;
  gather(cpu, environmentBytes(wide));
  takeEnvironment(cpu, wide);
  return EXIT_NONE;
}

/** FNSAVE: environment, then ST(0) to ST(7); then FNINIT. Arguments as for FNSTENV. */
function save(cpu: Cpu): number {
  const wide = cpu.argLow(2) !== 0, head = environmentBytes(wide);
  placeEnvironment(cpu, wide);
  const { u8 } = cpu.memory, at = cpu.base + S.VTEMP + head;
  for (let i = 0; i < REGISTERS; i++) {
    const from = cpu.base + S.FPR + ((top(cpu) + i) & 7) * 16;
    u8.copyWithin(at + i * REGISTER_BYTES, from, from + REGISTER_BYTES);
  }
  scatter(cpu, head + REGISTERS * REGISTER_BYTES);
  initialize(cpu);
  return EXIT_NONE;
}

/** FRSTOR. Arguments as for FNSTENV. */
function restore(cpu: Cpu): number {
  const wide = cpu.argLow(2) !== 0, head = environmentBytes(wide);
  gather(cpu, head + REGISTERS * REGISTER_BYTES);
  takeEnvironment(cpu, wide);
  const { u8 } = cpu.memory, at = cpu.base + S.VTEMP + head;
  for (let i = 0; i < REGISTERS; i++) {
    let value = 0n;
    for (let n = REGISTER_BYTES - 1; n >= 0; n--) {
      value = (value << 8n) | BigInt(u8[at + i * REGISTER_BYTES + n]!);
    }
    writePhysical(cpu, (top(cpu) + i) & 7, value);
  }
  return EXIT_NONE;
}

/** FLDCW. Argument: the control word. */
function loadControl(cpu: Cpu): number {
  setWords(cpu, cpu.argLow(0), statusWord(cpu));
  return EXIT_NONE;
}

/** FNCLEX. */
function clearExceptions(cpu: Cpu): number {
  setStatus(cpu, statusWord(cpu) & ~(FP_ALL | FSW.SF | FSW.ES | FSW.B));
  return EXIT_NONE;
}

/** FNINIT. */
function init(cpu: Cpu): number {
  initialize(cpu);
  return EXIT_NONE;
}

/** What a waiting instruction does while FSW.ES is set: #MF if CR0.NE = 1 (see x87_state.ts for NE = 0). */
function pending(cpu: Cpu): number {
  if (cpu.get32(S.CR0) & CR0_NE) cpu.raise(VECTOR.MF);
  return EXIT_NONE;
}

/** Procedures of this file, by name. */
export const x87EnvironmentProcedures: Readonly<Record<string, Procedure>> = {
  x87_pending: pending,
  x87_ldcw: loadControl,
  x87_clex: clearExceptions,
  x87_init: init,
  x87_stenv: storeEnvironment,
  x87_ldenv: loadEnvironment,
  x87_save: save,
  x87_rstor: restore,
};
