/**
 * The states in which boot protocols hand a processor over: flat 32-bit protected mode, and long mode over identity-mapped tables.
 *
 * Room: `hw/boot/`; imports `hw/sys/mode.ts`.
 *
 * @module
 */
import type { Bus } from "../bus.ts";
import type { Cpu } from "../cpu.ts";
import { R, S, SEG } from "../state.ts";
import { setSegment, updateMode } from "../sys/mode.ts";
import { Bytes } from "./memory_map.ts";

/** Selectors that the Linux boot protocol asks for (`__BOOT_CS`, `__BOOT_DS`). */
export const BOOT_CS = 0x10, BOOT_DS = 0x18;

/** Access rights: present, ring 0, accessed; code execute/read, data read/write; granularity, size. */
const CODE32 = 0xc09b, CODE64 = 0xa09b, DATA32 = 0xc093;
const CR0_PE = 1, CR0_ET = 0x10, CR0_PG = 0x8000_0000;
const CR4_PAE = 0x20;
const EFER_LME = 0x100, EFER_LMA = 0x400;
/** Paging-structure entry: present, writable; large page. */
const ENTRY = 3, LARGE = 0x80;

/** Writes a GDT with the boot selectors at `address` and loads GDTR. */
export function loadBootGdt(cpu: Cpu, bus: Bus, address: number, is64: boolean): void {
  const gdt = new Bytes(32);
  gdt.u32(0x10, 0x0000_ffff);
  gdt.u32(0x14, is64 ? 0x00af_9b00 : 0x00cf_9b00);
  gdt.u32(0x18, 0x0000_ffff);
  gdt.u32(0x1c, 0x00cf_9300);
  bus.writeRam(address, gdt.data);
  cpu.set64Halves(S.GDTR, address, 0);
  cpu.set32(S.GDTR + 8, 31);
}

function clearRegisters(cpu: Cpu): void {
  for (let n = 0; n < 16; n++) cpu.set64Halves(S.GPR + n * 8, 0, 0);
  cpu.set32(S.RFLAGS, 2);
  cpu.set32(S.CPL, 0);
  cpu.set64Halves(S.FRES, 1, 0);
  cpu.set64Halves(S.FCV, 0, 0);
  cpu.set64Halves(S.IDTR, 0, 0);
  cpu.set32(S.IDTR + 8, 0);
}

function flatSegments(cpu: Cpu, code: number): void {
  setSegment(cpu, SEG.CS, BOOT_CS, 0, 0, 0xffff_ffff, code);
  for (const seg of [SEG.DS, SEG.ES, SEG.SS, SEG.FS, SEG.GS]) {
    setSegment(cpu, seg, BOOT_DS, 0, 0, 0xffff_ffff, DATA32);
  }
}

/** 32-bit protected mode, paging off, flat segments, interrupts off, at `entry`. General registers are 0. */
export function enterProtectedMode(cpu: Cpu, entry: number): void {
  clearRegisters(cpu);
  cpu.set64Halves(S.CR0, CR0_PE | CR0_ET, 0);
  cpu.set64Halves(S.CR4, 0, 0);
  cpu.set64Halves(S.EFER, 0, 0);
  flatSegments(cpu, CODE32);
  cpu.set64Halves(S.RIP, entry, 0);
  cpu.access.tlb.flushAll();
  updateMode(cpu);
}

/** Long mode at `entry` with the tables at `root`; flat segments, interrupts off. General registers are 0. */
export function enterLongMode(cpu: Cpu, entry: bigint, root: number, stack: number): void {
  clearRegisters(cpu);
  cpu.set64Halves(S.CR0, CR0_PE | CR0_ET | CR0_PG, 0);
  cpu.set64Halves(S.CR3, root, 0);
  cpu.set64Halves(S.CR4, CR4_PAE, 0);
  cpu.set64Halves(S.EFER, EFER_LME | EFER_LMA, 0);
  flatSegments(cpu, CODE64);
  cpu.setGpr(R.RSP, BigInt(stack));
  cpu.rip = entry;
  cpu.access.tlb.flushAll();
  updateMode(cpu);
}

/** Bytes that {@link identityTables} writes: a PML4, a PDPT, four page directories. */
export const IDENTITY_TABLES_BYTES = 6 * 4096;

/** Writes tables at `address` that map the low 4 GiB to themselves with 2-MiB pages. */
export function identityTables(bus: Bus, address: number): void {
  const tables = new Bytes(IDENTITY_TABLES_BYTES);
  tables.u64(0, address + 0x1000 + ENTRY);
  for (let i = 0; i < 4; i++) tables.u64(0x1000 + 8 * i, address + 0x2000 + i * 0x1000 + ENTRY);
  for (let i = 0; i < 2048; i++) tables.u64(0x2000 + 8 * i, i * 0x20_0000 + ENTRY + LARGE);
  bus.writeRam(address, tables.data);
}
