/**
 * Random guests: a small machine full of random bytes that look a little like code, in 16-, 32- or 64-bit mode, with tables
 * that send every exception to more of them. Such a guest faults, changes its own code and its page tables, and does nothing sensible:
 * what engines must agree on is all of it.
 *
 * Room: `lab/agree/`; imports hw's public face.
 *
 * @module
 */
import type { Machine } from "../../hw/machine.ts";
import { Random } from "../../hw/random.ts";
import { RAM_BASE, S, SEG } from "../../hw/state.ts";
import { setSegment, updateMode } from "../../hw/sys/mode.ts";

/** Code modes of a random guest: 0 real mode, 1 flat 32-bit protected mode, 2 64-bit mode with 4-KiB pages, some of them missing. */
export type GuestMode = 0 | 1 | 2;

/** RAM that a random guest needs. */
export const GUEST_BYTES = 4 << 20;

/** Where things are, all below 2 MiB. */
const GDT = 0x600, TSS = 0x700, IDT = 0x2000, TABLES = 0x3000, CODE = 0x8000, CODE_END = 0x10000;
const STACK = 0x1c000, INNER_STACK = 0x1b000, REAL_STACK = 0x4000;
const NOISE_END = 0x20000;

/** Opcode and prefix bytes that are common in real code; half of the code is drawn from them. */
const COMMON = [
  0x01,
  0x03,
  0x29,
  0x2b,
  0x31,
  0x33,
  0x39,
  0x3b,
  0x85,
  0x89,
  0x8b,
  0x88,
  0x8a,
  0x83,
  0xc1,
  0xd1,
  0xd3,
  0x0f,
  0x48,
  0x66,
  0x50,
  0x58,
  0x74,
  0x75,
  0x72,
  0xeb,
  0xff,
  0xf7,
  0x8d,
  0xa4,
  0xab,
  0xf3,
  0x40,
  0x48,
  0xc3,
  0xe8,
  0x6a,
  0x90,
] as const;

/** Fills a fresh machine with the random guest of `seed`; the bootstrap processor stands at its first byte. */
export function loadRandomGuest(machine: Machine, seed: number, mode: GuestMode): void {
  const random = new Random(seed);
  const { u8, buffer } = machine.memory;
  const view = new DataView(buffer);
  const cpu = machine.cpus[0]!;
  const store64 = (address: number, value: bigint) => view.setBigUint64(RAM_BASE + address, value, true);
  const somewhere = () => CODE + (random.next() & 0x7fff);

  for (let a = 0x500; a < NOISE_END; a++) u8[RAM_BASE + a] = random.next() & 0xff;
  for (let a = CODE; a < CODE_END; a++) {
    const draw = random.next();
    if (draw & 1) u8[RAM_BASE + a] = COMMON[(draw >>> 8) % COMMON.length]!;
  }
  for (let i = 0; i < 16; i++) cpu.setGpr(i, BigInt(somewhere()));
  cpu.setGpr(4, BigInt(mode === 0 ? REAL_STACK : STACK));
  for (let i = 0; i < 64; i++) cpu.set32(S.XMM + i * 4, random.next());
  cpu.set32(S.MXCSR, 0x1f80);
  cpu.rip = BigInt(CODE);

  if (mode === 0) {
    for (let i = 0; i < 256; i++) view.setUint32(RAM_BASE + i * 4, somewhere(), true);
    for (const seg of [SEG.ES, SEG.CS, SEG.SS, SEG.DS, SEG.FS, SEG.GS]) {
      setSegment(cpu, seg, 0, 0, 0, 0xffff, 0x93);
    }
    cpu.set64Halves(S.IDTR, 0, 0);
    cpu.set32(S.IDTR + 8, 0x3ff);
    cpu.set32(S.CR4, 0x600);
    updateMode(cpu);
    return;
  }

  const is64 = mode === 2;
  const descriptors = [
    0n,
    is64 ? 0x00af9b000000ffffn : 0x00cf9b000000ffffn, // 08: code
    0x00cf93000000ffffn, // 10: data
    0x00cf9b000000ffffn, // 18: 32-bit code
    0x00cff3000000ffffn, // 20: user data
    is64 ? 0x00affb000000ffffn : 0x00cffb000000ffffn, // 28: user code
    0x0000890007000067n, // 30: TSS
    0n,
  ];
  descriptors.forEach((descriptor, i) => store64(GDT + i * 8, descriptor));
  u8.fill(0, RAM_BASE + TSS, RAM_BASE + TSS + 0x70);
  if (is64) store64(TSS + 4, BigInt(INNER_STACK));
  else {
    view.setUint32(RAM_BASE + TSS + 4, INNER_STACK, true);
    view.setUint16(RAM_BASE + TSS + 8, 0x10, true);
  }
  for (let i = 0; i < 256; i++) {
    const gate = BigInt(somewhere()) | (8n << 16n) | (0xee00n << 32n);
    store64(IDT + i * (is64 ? 16 : 8), gate);
    if (is64) store64(IDT + i * 16 + 8, 0n);
  }
  cpu.set32(S.GDTR, GDT);
  cpu.set32(S.GDTR + 8, descriptors.length * 8 - 1);
  cpu.set32(S.IDTR, IDT);
  cpu.set32(S.IDTR + 8, 0xfff);
  setSegment(cpu, SEG.TR, 0x30, TSS, 0, 0x67, 0x8b);
  if (is64) {
    store64(TABLES, BigInt(TABLES + 0x1007));
    store64(TABLES + 0x1000, BigInt(TABLES + 0x2007));
    store64(TABLES + 0x2000, BigInt(TABLES + 0x3007));
    store64(TABLES + 0x2008, 0x2000e7n);
    for (let i = 0; i < 512; i++) {
      store64(TABLES + 0x3000 + i * 8, i % 37 === 36 ? 0n : BigInt(i * 4096) | 7n);
    }
    cpu.set32(S.CR3, TABLES);
    cpu.set32(S.CR4, 0x620);
    cpu.set32(S.EFER, 0xd01);
    cpu.set32(S.CR0, 0x8000_0033);
  } else {
    cpu.set32(S.CR4, 0x600);
    cpu.set32(S.CR0, 0x33);
  }
  setSegment(cpu, SEG.CS, 8, 0, 0, 0xffff_ffff, is64 ? 0xa09b : 0xc09b);
  for (const seg of [SEG.ES, SEG.SS, SEG.DS, SEG.FS, SEG.GS]) {
    setSegment(cpu, seg, 0x10, 0, 0, 0xffff_ffff, 0xc093);
  }
  updateMode(cpu);
}
