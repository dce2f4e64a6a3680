/**
 * What the tests of paging, TLB, access and sanitizer share: one processor on bare RAM, and a builder of page tables.
 *
 * @module
 */
import { Access } from "../../hw/access.ts";
import type { AccessOptions } from "../../hw/access_options.ts";
import { Bus } from "../../hw/bus.ts";
import { Cpu, FAULT } from "../../hw/cpu.ts";
import { type CpuModel, cpuModels } from "../../hw/cpuid.ts";
import { MachineMemory } from "../../hw/memory.ts";
import { CR0_PG, CR0_WP, CR4_LA57, CR4_PAE, CR4_PSE, EFER_LMA, EFER_NXE } from "../../hw/paging.ts";
import { RAM_BASE, S, SEG } from "../../hw/state.ts";
import { fastContextAddress } from "../../hw/tlb_fast.ts";

/** One processor with RAM, in 64-bit mode with 4-level paging unless told otherwise. */
export class Bench {
  readonly memory: MachineMemory;
  readonly bus: Bus;
  readonly cpu: Cpu;
  readonly access: Access;
  /** Next free physical page. */
  #free = 0x10_000;
  root = 0;

  constructor(
    options: AccessOptions & { readonly model?: CpuModel; readonly id?: number; readonly beside?: Bench } =
      {},
  ) {
    this.memory = options.beside?.memory ?? new MachineMemory(0x40_0000);
    this.bus = options.beside?.bus ?? new Bus(this.memory);
    this.cpu = new Cpu({
      id: options.id ?? 0,
      memory: this.memory,
      bus: this.bus,
      model: options.model ?? cpuModels["icelake"]!,
    });
    this.cpu.access = this.access = new Access(this.cpu, options);
    this.root = options.beside?.root ?? this.page();
    this.cpu.set32(S.CODEMODE, 2);
    this.cpu.set32(S.CR0, 1 | CR0_PG | CR0_WP);
    this.cpu.set32(S.CR4, CR4_PAE);
    this.cpu.set32(S.EFER, EFER_LMA | EFER_NXE);
    this.cpu.set64(S.CR3, BigInt(this.root));
    this.update();
  }

  /** Stores the fast TLB context of the state and empties the fast TLB, as the instructions that change modes do. */
  update(): void {
    this.cpu.set32(S.TLBCTX, fastContextAddress(this.cpu));
    this.access.tlb.flushFast();
  }
  cpl(level: number): void {
    this.cpu.set32(S.CPL, level);
    this.cpu.set32(S.TLBCTX, fastContextAddress(this.cpu));
  }
  cr4(set: number, clear = 0): void {
    this.cpu.set32(S.CR4, (this.cpu.get32(S.CR4) | set) & ~clear);
    this.update();
  }
  cr0(set: number, clear = 0): void {
    this.cpu.set32(S.CR0, (this.cpu.get32(S.CR0) | set) & ~clear);
    this.update();
  }
  /** 32-bit protected mode, flat, with 32-bit or PAE paging. */
  protectedMode(pae: boolean): void {
    this.cpu.set32(S.CODEMODE, 1);
    this.cpu.set32(S.EFER, pae ? EFER_NXE : 0);
    this.cpu.set32(S.CR4, pae ? CR4_PAE : CR4_PSE);
    this.update();
  }
  fiveLevel(): void {
    this.cr4(CR4_LA57);
  }

  /** A fresh, zeroed physical page. */
  page(): number {
    const at = this.#free;
    this.#free += 4096;
    this.memory.u8.fill(0, RAM_BASE + at, RAM_BASE + at + 4096);
    return at;
  }
  peek64(physical: number): bigint {
    return this.memory.u64[(RAM_BASE + physical) / 8]!;
  }
  poke64(physical: number, value: bigint): void {
    this.memory.u64[(RAM_BASE + physical) / 8] = value;
  }
  peek32(physical: number): number {
    return this.memory.u32[(RAM_BASE + physical) / 4]!;
  }
  poke32(physical: number, value: number): void {
    this.memory.i32[(RAM_BASE + physical) / 4] = value;
  }

  /**
   * Maps a page in tables of 8-byte entries, making tables as needed (P W U). Returns the entries' addresses by level.
   *
   * @param bits Bits of the leaf beside its address.
   * @param level Level of the leaf: 1, 2 or 3.
   */
  map(linear: bigint, physical: number, bits: bigint, level = 1): number[] {
    const entries: number[] = [];
    let table = this.root;
    let from = this.cpu.get32(S.CR4) & CR4_LA57 ? 5 : 4;
    if (!(this.cpu.get32(S.EFER) & EFER_LMA)) {
      from = 2;
      const register = S.PDPTE + Number((linear >> 30n) & 3n) * 8;
      if (this.cpu.get64(register) === 0n) this.cpu.set64(register, BigInt(this.page()) | 1n);
      table = Number(this.cpu.get64(register) & ~0xfffn);
    }
    for (let l = from; l > level; l--) {
      const at = table + Number((linear >> BigInt(3 + 9 * l)) & 511n) * 8;
      entries[l] = at;
      if (!(this.peek64(at) & 1n)) this.poke64(at, BigInt(this.page()) | 7n);
      table = Number(this.peek64(at) & 0xf_ffff_ffff_f000n);
    }
    const at = table + Number((linear >> BigInt(3 + 9 * level)) & 511n) * 8;
    entries[level] = at;
    this.poke64(at, BigInt(physical) | bits | (level > 1 ? 0x80n : 0n));
    return entries;
  }

  read(linear: bigint, size: 1 | 2 | 4 | 8 = 4, how = 0): number {
    return this.access.read(Number(linear & 0xffff_ffffn), Number(linear >> 32n), size, how);
  }
  write(linear: bigint, value: number, size: 1 | 2 | 4 | 8 = 4, how = 0): void {
    this.access.write(Number(linear & 0xffff_ffffn), Number(linear >> 32n), size, value, 0, how);
  }
  fetch(linear: bigint): number {
    return this.access.fetchPage(Number(linear & 0xffff_ffffn), Number(linear >> 32n));
  }
  invlpg(linear: bigint): void {
    this.access.tlb.invlpg(Number(linear & 0xffff_ffffn), Number(linear >> 32n));
  }
  /** MOV to CR3. */
  loadCr3(value: bigint): void {
    const low = Number(value & 0xffff_ffffn), high = Number((value >> 32n) & 0x7fff_ffffn);
    this.cpu.set64Halves(S.CR3, low, high);
    this.access.tlb.movCr3(low, high, value >> 63n === 1n);
  }

  /** The fault that `action` raises, or undefined. */
  fault(action: () => void): { vector: number; code: number; cr2: bigint } | undefined {
    try {
      action();
      return undefined;
    } catch (e) {
      if (e !== FAULT) throw e;
      return {
        vector: this.cpu.get32(S.FAULTVECTOR),
        code: this.cpu.get32(S.FAULTCODE) | 0,
        cr2: this.cpu.get64(S.CR2),
      };
    }
  }
  /** As {@link fault}, for the functions that return −1 or an exit code. */
  recorded(): { vector: number; code: number; cr2: bigint } {
    return {
      vector: this.cpu.get32(S.FAULTVECTOR),
      code: this.cpu.get32(S.FAULTCODE) | 0,
      cr2: this.cpu.get64(S.CR2),
    };
  }
  /** A flat segment with these access rights. */
  segment(seg: number, base: bigint, limit: number, ar: number): void {
    this.cpu.set64(S.SEGBASE + seg * 8, base);
    this.cpu.set32(S.SEGLIMIT + seg * 4, limit);
    this.cpu.set32(S.SEGAR + seg * 4, ar);
  }
}

/** Segment numbers, for tests. */
export { SEG };
