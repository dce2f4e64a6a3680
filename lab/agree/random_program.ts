/**
 * Random programs: guests that, unlike the noise of random_guest.ts, go on for as long as they are let. Blocks of random instructions with
 * loops, calls, direct and indirect jumps run from three aliases of the same code pages, at CPL 0 or 3; they fault, single-step, meet
 * breakpoints and interrupts, store into their own and each other's code (through any alias, by string instructions, by the disk's DMA), take
 * pages away from themselves and switch address spaces. Whatever goes wrong leads to a handler that chooses the next block by a generator in
 * memory. With several processors all run the same code. Some run in VMX non-root operation.
 *
 * Room: `lab/agree/`; imports hw's public face and program_code.ts.
 *
 * @module
 */
import type { Cpu } from "../../hw/cpu.ts";
import { MemoryDisk } from "../../hw/dev/virtio_blk.ts";
import type { Machine, MachineOptions } from "../../hw/machine.ts";
import { Random } from "../../hw/random.ts";
import { RAM_BASE, S, SEG } from "../../hw/state.ts";
import { setSegment, updateMode } from "../../hw/sys/mode.ts";
import { becomeGuest } from "./as_guest.ts";
import { Code, randomInstruction, u32, type Writer } from "./program_code.ts";

/** What a seed chooses of a program. */
export interface ProgramKind {
  readonly is64: boolean;
  /** 3 or 0. */
  readonly cpl: 0 | 3;
  readonly paging: "none" | "32-bit" | "PAE" | "4-level";
  /** Processors. */
  readonly cpus: number;
  /** Whether both address spaces have a PCID. */
  readonly pcid: boolean;
  /** Ticks of the APIC timer between interrupts; 0: none. */
  readonly timer: number;
  /** Whether blocks store into code. */
  readonly patches: boolean;
  /** In VMX non-root operation, with this EPT; then there are no interrupts and no disk. */
  readonly ept: undefined | "4K" | "2M";
}

/** RAM of a program's machine. */
export const PROGRAM_BYTES = 2 << 20;

/** Physical (and first linear) addresses. */
const AT = {
  gdt: 0x600,
  tss: 0x1000,
  idt: 0x2000,
  tablesA: 0x3000,
  tablesB: 0xa000,
  device: 0x9000,
  kernel: 0x1_0000,
  table: 0x1_2000,
  state: 0x1_3000,
  kernelStacks: 0x1_4000,
  userStacks: 0x1_8000,
  queue: 0x1_c000,
  jumps: 0x1_d000,
  code: 0x2_0000,
  data: 0x3_0000,
  dataEnd: 0x4_0000,
  pristine: 0x10_0000,
  hypervisor: 0x1e_0000,
} as const;
const CODE_BYTES = AT.data - AT.code;
/** Page tables in the order in which they stand behind `tablesA` and `tablesB`: root, directory pointers, directory, first and second table. */
const LEVEL = { root: 0, pointers: 0x1000, directory: 0x2000, first: 0x3000, second: 0x4000 } as const;
/** Where else the first 2 MiB are mapped: by 4-KiB pages, and by one of 2 MiB (4-KiB pages under 32-bit paging). */
const ALIASES = [0, 0x40_0000, 0x60_0000] as const;
const APIC = 0xfee0_0000, DISK = 0xfeb0_0000;
/** Bytes of one processor's state, which GS points to, and what is where. */
const STATE_BYTES = 0x100;
const GS = {
  random: 0,
  fuel: 4,
  ticks: 0x10,
  toggles: 0x14,
  calls: 0x18,
  kernelStack: 0x20,
  userStack: 0x28,
  faults: 0x40,
};
/** Blocks; a power of two. */
const BLOCKS = 64;
/** Software interrupts: change a page's rights; nothing; choose the next block. */
const INT = { toggle: 0x90, nothing: 0x92, dispatch: 0x93, timer: 0x30, other: 0x31 } as const;
const SECTORS = 64;

/** What the program of a seed is like. */
export function programKind(seed: number): ProgramKind {
  const random = new Random(seed, 0x6b69_6e64);
  const one = (n: number) => random.between(1, n) === 1;
  const is64 = !one(3);
  const paging = is64 ? "4-level" : one(3) ? "none" : one(2) ? "PAE" : "32-bit";
  const kind: ProgramKind = {
    is64,
    cpl: one(2) ? 3 : 0,
    paging,
    cpus: one(3) ? random.between(2, 4) : 1,
    pcid: is64 && one(3),
    timer: one(6) ? 0 : random.between(200, one(2) ? 2000 : 20_000),
    patches: !one(4),
    ept: undefined,
  };
  return one(5) ? { ...kind, cpus: 1, timer: 0, ept: one(2) ? "4K" : "2M" } : kind;
}

/** Options of a machine for the program of a seed: processors, disk, and now and then another TLB or the sanitizer. */
export function programOptions(seed: number): MachineOptions {
  const random = new Random(seed, 0x6f70_7473);
  const { cpus } = programKind(seed);
  const tlb = random.between(0, 9);
  const disk = new Uint8Array(SECTORS * 512);
  for (let i = 0; i < disk.length; i++) disk[i] = random.next() & 1 ? 0x90 : random.next() & 0xff;
  const low = random.between(1, 200);
  return {
    memory: PROGRAM_BYTES,
    cpus,
    seed,
    disk: new MemoryDisk(disk),
    quantum: [low, low + random.between(0, 2000)],
    ...(tlb === 0 ? { tlb: "geometry" } : tlb === 1 ? { tlb: "sticky" } : {}),
    ...(random.between(0, 11) === 0 ? { sanitizer: true } : {}),
  };
}

/** Puts the program of a seed into a machine that {@link programOptions} describes; all processors stand at its beginning. */
export function loadRandomProgram(machine: Machine, seed: number): void {
  const kind = programKind(seed);
  const random = new Random(seed, 0x636f_6465);
  const { u8, buffer } = machine.memory;
  const view = new DataView(buffer, RAM_BASE);
  for (let a = AT.data; a < AT.dataEnd; a++) u8[RAM_BASE + a] = random.next() & 0xff;

  const { code, blocks } = writeBlocks(kind, random);
  u8.set(code.bytes, RAM_BASE + AT.code);
  u8.set(code.bytes, RAM_BASE + AT.pristine);
  const pointer = kind.is64 ? 8 : 4;
  for (let i = 0; i < BLOCKS; i++) {
    const alias = () => kind.paging === "none" ? 0 : ALIASES[random.between(0, 2)]!;
    view.setUint32(AT.table + i * pointer, blocks[i]! + alias(), true);
    view.setUint32(AT.jumps + i * pointer, blocks[random.between(0, BLOCKS - 1)]! + alias(), true);
  }

  const kernel = new Code(AT.kernel, kind.is64);
  const entry = writeKernel(kernel, kind, random);
  if (kernel.bytes.length > AT.table - AT.kernel) throw new Error("the program's kernel is too long");
  u8.set(kernel.bytes, RAM_BASE + AT.kernel);
  writeTables(view, kind, entry, random);
  writeQueue(view);
  machine.cpus.forEach((cpu, id) => setUp(cpu, id, kind, entry, view, random));
  if (kind.ept !== undefined) {
    becomeGuest(machine, { ept: kind.ept, vpid: seed & 1, at: AT.hypervisor, handler: SKIP });
  }
}

/** The exit handler of a program in non-root operation: it goes on behind what made the exit, with other values in RAX, RCX and RDX. */
const SKIP: readonly number[] = [
  ...[0xba, ...u32(0x440c), 0x0f, 0x78, 0xd1], // mov edx, VM-exit instruction length; vmread rcx, rdx
  ...[0xba, ...u32(0x681e), 0x0f, 0x78, 0xd0], // mov edx, GUEST_RIP; vmread rax, rdx
  ...[0x48, 0x01, 0xc8, 0x0f, 0x79, 0xd0], // add rax, rcx; vmwrite rdx, rax
  ...[0x0f, 0x01, 0xc3, 0xf4], // vmresume; hlt
];

// ---- blocks

function absolute(
  code: Code,
  segment: number | undefined,
  opcode: readonly number[],
  reg: number,
  address: number,
  immediate: readonly number[] = [],
): void {
  if (segment !== undefined) code.emit(segment);
  code.modrm({ opcode, reg, rm: { absolute: address }, immediate });
}

/** The blocks, one behind the other without a gap; their addresses. */
function writeBlocks(kind: ProgramKind, random: Random): { code: Code; blocks: readonly number[] } {
  const code = new Code(AT.code, kind.is64);
  const blocks: number[] = [];
  /** Jumps to blocks that are not written yet: where the displacement stands, and which block. */
  const fixups: { readonly at: number; readonly block: number }[] = [];
  /** Addresses of immediates and opcodes that may be overwritten. */
  const sites: { readonly at: number; readonly bytes: 1 | 4 }[] = [];
  const somewhere = () =>
    random.between(0, 5) === 0
      ? random.between(AT.code, AT.data - 16)
      : random.between(AT.data, AT.dataEnd - 16) +
        (kind.paging === "none" ? 0 : ALIASES[random.between(0, 2)]!);
  const writer = (kept: number): Writer => ({ code, random, kept, privileged: kind.cpl === 0, somewhere });
  const someInstructions = (count: number, kept = 0) => {
    const w = writer(kept);
    for (let i = 0; i < count; i++) {
      if (random.between(0, 24) === 0) writeSite(code, random, sites, kept);
      else randomInstruction(w);
    }
  };
  const toBlock = (opcode: readonly number[], block: number) => {
    code.emit(...opcode);
    fixups.push({ at: code.bytes.length, block });
    code.emit(0, 0, 0, 0);
  };
  const anyBlock = () => random.between(0, BLOCKS - 1);
  const condition = () => 0x80 | random.between(0, 15);

  for (let block = 0; block < BLOCKS; block++) {
    blocks.push(code.at);
    const room = AT.code + CODE_BYTES * (block + 1) / BLOCKS - 400;
    // Without a timer nothing else ends a circle of jumps.
    if (random.between(0, 3) > 0 || kind.timer === 0) {
      // Fuel: sub gs:[fuel], 1; js to the dispatcher.
      absolute(code, 0x65, [0x83], 5, GS.fuel, [1]);
      code.emit(0x79, 2, 0xcd, INT.dispatch);
    }
    for (let parts = random.between(1, 5); parts > 0 && code.at < room; parts--) {
      switch (random.between(0, kind.patches ? 9 : 6)) {
        case 0:
        case 1: {
          // A loop counted in ECX, perhaps with a way out or a skip inside.
          code.emit(0xb9, ...u32(random.between(1, random.between(0, 3) === 0 ? 200 : 12)));
          const head = code.at;
          someInstructions(random.between(1, 8), 2);
          if (random.between(0, 2) === 0) {
            code.emit(0x70 | random.between(0, 15), 0);
            const from = code.bytes.length;
            someInstructions(random.between(1, 4), 2);
            const distance = code.bytes.length - from;
            if (distance < 128) code.bytes[from - 1] = distance;
          }
          if (random.between(0, 4) === 0) toBlock([0x0f, condition()], anyBlock());
          code.emit(0xff, 0xc9);
          code.jump([0x0f, 0x85], head);
          break;
        }
        case 2:
          toBlock([0x0f, condition()], anyBlock());
          break;
        case 3:
          toBlock([0xe8], anyBlock());
          break;
        case 4: {
          // An indirect jump or call through the table of jumps.
          const register = [0, 1, 2, 5][random.between(0, 3)]!;
          code.emit(0x83, 0xe0 | register, BLOCKS - 1);
          const field = random.between(0, 1) === 0 ? 0x14 : 0x24;
          code.emit(0xff, field, (kind.is64 ? 0xc5 : 0x85) | (register << 3), ...u32(AT.jumps));
          break;
        }
        case 7:
        case 8:
          patch(kind, code, random, sites);
          break;
        case 9:
          bulkPatch(kind, code, random);
          break;
        default:
          someInstructions(random.between(3, 25));
      }
    }
    switch (random.between(0, 5)) {
      case 0:
        code.emit(0xc3);
        break;
      case 1:
        code.emit(0xcd, INT.dispatch);
        break;
      case 2:
        if (kind.is64 && kind.cpl === 3) code.emit(0x0f, 0x05);
        toBlock([0xe9], anyBlock());
        break;
      default:
        toBlock([0xe9], anyBlock());
    }
  }
  if (code.bytes.length > CODE_BYTES) throw new Error("the program's blocks are too long");
  for (const { at, block } of fixups) {
    const displacement = blocks[block]! - (AT.code + at + 4);
    u32(displacement).forEach((byte, i) => code.bytes[at + i] = byte);
  }
  return { code, blocks };
}

/** An instruction that may be overwritten in part and stays one: MOV with an immediate, or an operation between registers. */
function writeSite(
  code: Code,
  random: Random,
  sites: { readonly at: number; readonly bytes: 1 | 4 }[],
  kept: number,
): void {
  const register = [0, 2, 5].filter((one) => !((kept >>> one) & 1))[random.between(0, 1)] ?? 0;
  if (random.between(0, 1) === 0) {
    code.emit(0xb8 | register);
    sites.push({ at: code.at, bytes: 4 });
    code.emit(...u32(random.next()));
  } else {
    sites.push({ at: code.at, bytes: 1 });
    code.emit(0x01, 0xc0 | (random.between(0, 7) << 3) | register);
  }
}

/** A store into code: into a site, into the next instruction, or seldom anywhere. */
function patch(
  kind: ProgramKind,
  code: Code,
  random: Random,
  sites: readonly { readonly at: number; readonly bytes: 1 | 4 }[],
): void {
  const alias = kind.paging === "none" ? 0 : ALIASES[random.between(0, 2)]!;
  const operation = () => [0x01, 0x09, 0x21, 0x29, 0x31, 0x85, 0x89][random.between(0, 6)]!;
  const storeByte = (address: number, value: number) =>
    absolute(code, undefined, [0xc6], 0, address, [value]);
  switch (random.between(0, 11)) {
    case 0: {
      // Into the operation right behind: its opcode, or (through a register) the immediate of a MOV.
      const length = kind.is64 ? 8 : 7;
      storeByte(code.at + length + alias, operation());
      code.emit(0x01, 0xc0);
      break;
    }
    case 1: {
      const length = kind.is64 ? 7 : 6;
      absolute(code, undefined, [0x89], 2, code.at + length + 1 + alias);
      code.emit(0xb8, ...u32(0x1234));
      break;
    }
    case 2:
      storeByte(random.between(AT.code, AT.data - 1) + alias, random.next());
      break;
    default: {
      if (sites.length === 0) return;
      const site = sites[random.between(0, sites.length - 1)]!;
      if (site.bytes === 1) storeByte(site.at + alias, operation());
      else if (random.between(0, 1) === 0) absolute(code, undefined, [0x89], 0, site.at + alias);
      else absolute(code, undefined, [0xc7], 0, site.at + alias, u32(random.next()));
    }
  }
}

/** Code that comes as a whole: a page as it was at the beginning (REP MOVS), or a sector of the disk (DMA). */
function bulkPatch(kind: ProgramKind, code: Code, random: Random): void {
  const alias = kind.paging === "none" ? 0 : ALIASES[random.between(0, 2)]!;
  if (kind.ept !== undefined || random.between(0, 2) > 0) {
    const bytes = random.between(0, 1) === 0 ? 4096 : random.between(1, 600);
    const from = random.between(0, CODE_BYTES - bytes);
    const offset = bytes === 4096 ? from & ~4095 : from;
    code.emit(0xbe, ...u32(AT.pristine + offset + (kind.paging === "none" ? 0 : ALIASES[2])));
    code.emit(0xbf, ...u32(AT.code + offset + alias));
    code.emit(0xb9, ...u32(bytes === 4096 ? 1024 : bytes), 0xfc, 0xf3, bytes === 4096 ? 0xa5 : 0xa4);
    return;
  }
  const target = random.between(0, 3) === 0 ? AT.data + 0x2000 : AT.code + 512 * random.between(0, 127);
  absolute(code, undefined, [0xc7], 0, AT.queue + 0x100 + 8, u32(random.between(0, SECTORS - 1)));
  absolute(code, undefined, [0xc7], 0, AT.queue + 16, u32(target));
  code.emit(0x66);
  absolute(code, undefined, [0xff], 0, AT.queue + 0x80 + 2);
  code.emit(0xb8, ...u32((DISK + 0x50) | 0), 0xc7, 0x00, 0, 0, 0, 0);
}

// ---- the kernel

/** Addresses in the program's kernel. */
interface Entry {
  /** Where a processor begins. */
  readonly start: readonly number[];
  readonly vectors: readonly number[];
  readonly syscall: number;
}

function writeKernel(code: Code, kind: ProgramKind, random: Random): Entry {
  const { is64 } = kind;
  const entryBytes = is64 || kind.paging === "PAE" ? 8 : 4;
  const wide = is64 ? [0x48] : [];
  const iret = () => code.emit(...wide, 0xcf);
  const gs = (opcode: readonly number[], reg: number, offset: number, immediate: readonly number[] = []) =>
    absolute(code, 0x65, opcode, reg, offset, immediate);
  const store = (address: number, value: number) => {
    code.emit(0xb8, ...u32(address), 0xc7, 0x00, ...u32(value));
  };

  // The dispatcher: the next block by the processor's generator, by IRET to the program's level.
  const dispatch = code.at;
  code.emit(0x65, ...wide);
  absolute(code, undefined, [0x8b], 4, GS.kernelStack);
  gs([0x69], 0, GS.random, u32(1664525));
  code.emit(0x05, ...u32(1013904223));
  gs([0x89], 0, GS.random);
  gs([0xc7], 0, GS.fuel, u32(random.between(3, 400)));
  const alias = kind.paging === "none" ? 0 : ALIASES[random.between(0, 1)]!;
  code.emit(0x89, 0xc6, 0xc1, 0xee, 12, 0x81, 0xe6, ...u32(0x7ff8), 0x81, 0xc6, ...u32(AT.data + 0x4000));
  code.emit(
    0x89,
    0xc7,
    0xc1,
    0xef,
    3,
    0x81,
    0xe7,
    ...u32(0x7fff),
    0x81,
    0xc7,
    ...u32(AT.data + 0x3000 + alias),
  );
  code.emit(0xbb, ...u32(AT.data + 0x7ff8));
  if (is64) {
    code.emit(0x41, 0xbc, ...u32(AT.data + random.between(0x3000, 0xc000)));
    code.emit(0x41, 0xbd, ...u32(AT.data + random.between(0x3000, 0xc000) + ALIASES[2]));
  }
  // Flags: IF, and once in 32 times TF.
  code.emit(0x89, 0xc1, 0xc1, 0xe9, 27, 0x83, 0xf9, 0, 0x0f, 0x94, 0xc1, 0x0f, 0xb6, 0xc9, 0xc1, 0xe1, 8);
  code.emit(0x81, 0xc9, ...u32(0x202));
  code.emit(0xc1, 0xe8, 10, 0x83, 0xe0, BLOCKS - 1);
  const user = kind.cpl === 3;
  if (is64 || user) {
    code.emit(0x6a, user ? 0x23 : 0x10);
    gs([0xff], 6, user ? GS.userStack : GS.kernelStack);
  }
  code.emit(0x51, 0x6a, user ? 0x2b : 0x08);
  code.emit(0xff, 0x34, is64 ? 0xc5 : 0x85, ...u32(AT.table));
  iret();

  const vectors: number[] = Array.from({ length: 256 }, () => dispatch);
  for (let vector = 0; vector < 32; vector++) {
    vectors[vector] = code.at;
    gs([0x83], 0, GS.faults + vector * 4, [1]);
    code.jump([0xe9], dispatch);
  }

  // #DB: goes on, after every eighth without TF.
  vectors[1] = code.at;
  gs([0x83], 0, GS.faults + 4, [1]);
  gs([0xf6], 0, GS.faults + 4, [7]);
  code.emit(0x75, is64 ? 8 : 8);
  code.emit(0x81, 0x64, 0x24, is64 ? 16 : 8, ...u32(~0x100));
  iret();

  // #PF: three times of four the page of code or data is given all rights, and the instruction repeated.
  if (kind.paging !== "none") {
    vectors[14] = code.at;
    gs([0x83], 0, GS.faults + 14 * 4, [1]);
    gs([0xf6], 0, GS.faults + 14 * 4, [3]);
    code.jump([0x0f, 0x84], dispatch);
    code.emit(0x50, 0x52, 0x0f, 0x20, 0xd0, ...wide, 0x89, 0xc2);
    if (is64) {
      code.emit(0x48, 0xc1, 0xea, 32);
      code.jump([0x0f, 0x85], dispatch);
      code.emit(0x89, 0xc2);
    }
    // Page number without the alias of 4-KiB pages; which table.
    code.emit(0xc1, 0xe8, 12, 0x25, ...u32(~0x400), 0x83, 0xe8, AT.code >>> 12);
    code.emit(0x3d, ...u32((AT.dataEnd - AT.code) >>> 12));
    code.jump([0x0f, 0x83], dispatch);
    const scale = entryBytes === 8 ? 0xc5 : 0x85;
    for (const root of [AT.tablesA, AT.tablesB]) {
      for (const level of [LEVEL.first, LEVEL.second]) {
        code.emit(0x80, 0x0c, scale, ...u32(root + level + (AT.code >>> 12) * entryBytes), 7);
      }
    }
    code.emit(
      0x0f,
      0x01,
      0x3a,
      0x5a,
      0x58,
      ...wide,
      0x83,
      0xc4,
      entryBytes === 8 && !is64 ? 4 : is64 ? 8 : 4,
    );
    iret();
  }

  // INT 90H: takes or gives the right to write or the presence of a page, with or without INVLPG; or switches address spaces.
  vectors[INT.toggle] = code.at;
  if (kind.paging === "none") iret();
  else {
    const bytes = entryBytes === 8 ? 3 : 2;
    code.emit(0x50, 0x52);
    gs([0x69], 0, GS.toggles, u32(1664525));
    code.emit(0x05, ...u32(1013904223));
    gs([0x89], 0, GS.toggles);
    code.emit(0x89, 0xc2, 0xc1, 0xea, 16, 0x83, 0xe2, 31, 0x83, 0xc2, AT.code >>> 12);
    // test eax, 40000000H: one of three ways
    code.emit(0xa9, ...u32(0x4000_0000), 0x74, 0);
    const other = code.bytes.length;
    code.emit(
      0x0f,
      0x20,
      0xd8,
      0x35,
      ...u32(AT.tablesA ^ AT.tablesB ^ (kind.pcid ? 3 : 0)),
      0x0f,
      0x22,
      0xd8,
    );
    code.emit(0x5a, 0x58);
    iret();
    code.bytes[other - 1] = code.bytes.length - other;
    // Which bit: P or R/W, by bit 24; which table, by bit 29.
    code.emit(0xc1, 0xe8, 24, 0x83, 0xe0, 0x21, 0xff, 0xc0); // eax = 1, 2, 33 or 34
    code.emit(0xa8, 0x20, 0x75, 0);
    const second = code.bytes.length;
    const scaled = (
      root: number,
      level: number,
    ) => [0x30, 0x04, bytes === 3 ? 0xd5 : 0x95, ...u32(root + level)];
    code.emit(0x24, 3, ...scaled(AT.tablesA, LEVEL.first), ...scaled(AT.tablesB, LEVEL.first));
    code.emit(0xc1, 0xe2, 12, 0x0f, 0x01, 0x3a, 0x5a, 0x58);
    iret();
    code.bytes[second - 1] = code.bytes.length - second;
    // The alias' table, without INVLPG.
    code.emit(0x24, 3, ...scaled(AT.tablesA, LEVEL.second), 0x5a, 0x58);
    iret();
  }
  vectors[INT.nothing] = code.at;
  iret();

  // Interrupts: end of interrupt; the timer's every 64th leads to the dispatcher, so that no loop is for ever.
  vectors[INT.timer] = code.at;
  gs([0x83], 0, GS.ticks, [1]);
  code.emit(0x50);
  store((APIC + 0xb0) | 0, 0);
  gs([0xf6], 0, GS.ticks, [63]);
  code.jump([0x0f, 0x84], dispatch);
  code.emit(0x58);
  iret();
  vectors[INT.other] = code.at;
  code.emit(0x50);
  store((APIC + 0xb0) | 0, 0);
  code.emit(0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0x58);
  iret();

  const syscall = code.at;
  if (is64) {
    gs([0x83], 0, GS.calls, [1]);
    code.emit(0x48, 0x0f, 0x07);
  }

  // The beginning: timer; on the first processor the disk too.
  const start = [0, 1].map((id) => {
    const at = code.at;
    if (kind.ept !== undefined) {
      code.jump([0xe9], dispatch);
      return at;
    }
    store((APIC + 0xf0) | 0, 0x1ff);
    if (kind.timer !== 0) {
      store((APIC + 0x3e0) | 0, 0xb);
      store((APIC + 0x320) | 0, 0x2_0000 | INT.timer);
      store((APIC + 0x380) | 0, kind.timer);
    }
    if (id === 0) {
      const registers = [[0x70, 3], [0x24, 1], [0x20, 1], [0x70, 11], [0x30, 0], [0x38, 4]];
      registers.push([0x80, AT.queue], [0x90, AT.queue + 0x80], [0xa0, AT.queue + 0x180], [0x44, 1], [
        0x70,
        15,
      ]);
      for (const [register, value] of registers) store((DISK + register!) | 0, value!);
    }
    code.jump([0xe9], dispatch);
    return at;
  });
  return { start, vectors, syscall };
}

/** Descriptors of one read request; rings. */
function writeQueue(view: DataView): void {
  const descriptor = (i: number, address: number, length: number, flags: number, next: number) => {
    const at = AT.queue + i * 16;
    view.setUint32(at, address, true);
    view.setUint32(at + 8, length, true);
    view.setUint16(at + 12, flags, true);
    view.setUint16(at + 14, next, true);
  };
  descriptor(0, AT.queue + 0x100, 16, 1, 1);
  descriptor(1, AT.data, 512, 3, 2);
  descriptor(2, AT.queue + 0x140, 1, 2, 0);
}

// ---- tables and processors

function writeTables(view: DataView, kind: ProgramKind, entry: Entry, random: Random): void {
  const { is64 } = kind;
  const store64 = (address: number, value: bigint) => view.setBigUint64(address, value, true);
  for (let i = 0; i < 256; i++) {
    const at = BigInt(entry.vectors[i]!);
    const ist = is64 ? 1n << 32n : 0n;
    store64(
      AT.idt + i * (is64 ? 16 : 8),
      (at & 0xffffn) | (8n << 16n) | ist | (0xee00n << 32n) | (at >> 16n << 48n),
    );
    if (is64) store64(AT.idt + i * 16 + 8, 0n);
  }
  const isLarge = kind.paging === "32-bit";
  for (const root of [AT.tablesA, AT.tablesB]) {
    if (kind.paging === "none") break;
    const isOther = root === AT.tablesB;
    if (isLarge) {
      const put = (address: number, value: number) => view.setUint32(address, value, true);
      put(root, (root + LEVEL.first) | 7);
      put(root + 4, (root + LEVEL.second) | 7);
      put(root + (APIC >>> 22) * 4, 0xfec0_0087);
      put(root + (DISK >>> 22) * 4, 0xfe80_0087);
      for (let i = 0; i < 1024; i++) {
        put(root + LEVEL.first + i * 4, Number(pageEntry(i, kind, isOther)));
        put(root + LEVEL.second + i * 4, ((i & 511) << 12) | 7);
      }
      continue;
    }
    const table = (at: number) => BigInt(root + at) | 7n;
    if (is64) {
      store64(root, table(LEVEL.pointers));
      store64(root + LEVEL.pointers, table(LEVEL.directory));
      store64(root + LEVEL.pointers + 24, BigInt(AT.device) | 7n);
    } else {
      store64(root, BigInt(root + LEVEL.directory) | 1n);
      store64(root + 24, BigInt(AT.device) | 1n);
    }
    store64(root + LEVEL.directory, table(LEVEL.first));
    store64(root + LEVEL.directory + 16, table(LEVEL.second));
    store64(root + LEVEL.directory + 24, 0x87n);
    for (let i = 0; i < 512; i++) {
      store64(root + LEVEL.first + i * 8, pageEntry(i, kind, isOther));
      store64(root + LEVEL.second + i * 8, BigInt(i << 12) | 7n);
    }
  }
  if (!isLarge && kind.paging !== "none") {
    store64(AT.device + ((APIC >>> 21) & 511) * 8, 0xfee0_0087n);
    store64(AT.device + ((DISK >>> 21) & 511) * 8, 0xfea0_0087n);
  }
  view.setUint32(AT.queue + 0x110, random.next(), true);
}

/** Entry of a 4-KiB page of the first mapping: the kernel's, the tables, what the program may write, code, data with some that is missing. */
function pageEntry(page: number, kind: ProgramKind, isOther: boolean): bigint {
  const noExecute = kind.is64 ? 1n << 63n : 0n;
  const at = page << 12;
  if (at >= AT.dataEnd) return 0n;
  if (at < AT.kernel) return BigInt(at) | 3n | noExecute;
  if (at < AT.table) return BigInt(at) | 1n;
  if (at < AT.state) return BigInt(at) | 1n | noExecute;
  if (at < AT.kernelStacks) return BigInt(at) | 7n | noExecute;
  if (at < AT.userStacks) return BigInt(at) | 3n | noExecute;
  if (at < AT.code) return BigInt(at) | 7n | noExecute;
  if (at < AT.data) {
    // In the other address space two pages of code have changed places.
    const there = isOther && (page & 15) >= 14 ? at ^ 0x1000 : at;
    return BigInt(there) | ((page & 15) === 13 ? 5n : 7n);
  }
  const there = isOther ? AT.data | ((at + 0x1000) & 0xffff) : at;
  const rights = (page & 15) === 5 ? 6n : (page & 15) === 9 ? 5n : 7n;
  return BigInt(there) | rights | (page & 1 ? noExecute : 0n);
}

function setUp(cpu: Cpu, id: number, kind: ProgramKind, entry: Entry, view: DataView, random: Random): void {
  const { is64 } = kind;
  const store64 = (address: number, value: bigint) => view.setBigUint64(address, value, true);
  const tss = AT.tss + id * 0x100, state = AT.state + id * STATE_BYTES;
  const top = AT.kernelStacks + (id + 1) * 0x1000;
  const descriptors = [
    0n,
    is64 ? 0x00af9b000000ffffn : 0x00cf9b000000ffffn,
    0x00cf93000000ffffn,
    0x00cffb000000ffffn,
    0x00cff3000000ffffn,
    is64 ? 0x00affb000000ffffn : 0x00cffb000000ffffn,
    0n,
    0n,
  ];
  descriptors.forEach((descriptor, i) => store64(AT.gdt + i * 8, descriptor));
  if (is64) {
    store64(tss + 4, BigInt(top));
    store64(tss + 0x24, BigInt(top));
  } else {
    view.setUint32(tss + 4, top, true);
    view.setUint16(tss + 8, 0x10, true);
  }
  view.setUint16(tss + 0x66, 0x68, true);
  view.setUint32(state + GS.random, random.next(), true);
  view.setUint32(state + GS.toggles, random.next(), true);
  view.setUint32(state + GS.kernelStack, top, true);
  view.setUint32(state + GS.userStack, AT.userStacks + (id + 1) * 0x1000 - 16, true);

  for (let i = 0; i < 64; i++) cpu.set32(S.XMM + i * 4, random.next());
  for (let i = 0; i < 16; i++) cpu.setGpr(i, BigInt(AT.data + (random.next() & 0xffff)));
  cpu.setGpr(4, BigInt(top));
  cpu.set32(S.MXCSR, 0x1f80);
  cpu.set32(S.FCW, 0x37f);
  cpu.rip = BigInt(entry.start[id === 0 ? 0 : 1]!);
  cpu.set32(S.ACTIVITY, 0);
  cpu.set32(S.GDTR, AT.gdt);
  cpu.set32(S.GDTR + 8, descriptors.length * 8 - 1);
  cpu.set32(S.IDTR, AT.idt);
  cpu.set32(S.IDTR + 8, 0xfff);
  setSegment(cpu, SEG.TR, 0x30, tss, 0, 0x67, 0x8b);
  const paged = kind.paging !== "none";
  if (paged) cpu.set32(S.CR3, AT.tablesA | (kind.pcid ? 1 : 0));
  const pae = is64 || kind.paging === "PAE";
  cpu.set32(S.CR4, 0x600 | (pae ? 0x20 : 0) | (paged ? 0x10 : 0) | (kind.pcid ? 0x2_0000 : 0));
  cpu.set32(S.CR0, (paged ? 0x8001_0033 : 0x33) | 0);
  if (kind.paging === "PAE") {
    for (const i of [0, 3]) cpu.set64(S.PDPTE + i * 8, view.getBigUint64(AT.tablesA + i * 8, true));
  }
  if (is64) {
    cpu.set32(S.EFER, 0xd01);
    cpu.set64(S.STAR, 0x001b_0008_0000_0000n);
    cpu.set64(S.LSTAR, BigInt(entry.syscall));
    cpu.set64(S.FMASK, 0n);
  }
  const level = kind.cpl << 5;
  setSegment(cpu, SEG.CS, 8, 0, 0, -1, is64 ? 0xa09b : 0xc09b);
  setSegment(cpu, SEG.SS, 0x10, 0, 0, -1, 0xc093);
  for (const seg of [SEG.ES, SEG.DS, SEG.FS]) {
    setSegment(cpu, seg, kind.cpl === 3 ? 0x23 : 0x10, 0, 0, -1, 0xc093 | level);
  }
  setSegment(cpu, SEG.GS, kind.cpl === 3 ? 0x23 : 0x10, state, 0, -1, 0xc093 | level);
  updateMode(cpu);
}
