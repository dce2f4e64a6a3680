/**
 * A simulated processor that runs the same sequences: 64-bit mode at CPL 3 over page tables with the region's addresses and
 * rights. Every exception, and the INT3 at the end, goes through the IDT to a HLT of its own.
 *
 * Room: `lab/silicon/`; imports the machine.
 *
 * @module
 */
import { type CpuModel, cpuModels, FEATURES } from "../../hw/cpuid.ts";
import type { Cpu } from "../../hw/cpu.ts";
import { storeStatusFlags } from "../../hw/flags.ts";
import { type EngineKind, Machine } from "../../hw/machine.ts";
import type { Processor } from "../../hw/engine/run.ts";
import { RAM_BASE, RFLAGS_STATUS, S, SEG } from "../../hw/state.ts";
import { CR0, CR4, EFER, setSegment, updateMode } from "../../hw/sys/mode.ts";
import { CODE, CODE_BYTES, DATA, DATA_BYTES, FIXED, FIXED_BYTES, STUBS } from "./layout.ts";
import { SEQUENCE_END } from "./native.ts";
import { type Outcome, REGISTER_WORDS, type Registers, W } from "./state.ts";

/** Physical addresses. The two data pages stand the other way round, so that crossing accesses meet strangers. */
const TABLES = 0x1_0000, GDT = 0x1000, IDT = 0x2000, TSS = 0x3000, HALTS = 0x4000, STACK = 0x6000;
const P_STUBS = 0x8000, P_DATA = [0xb000, 0xa000] as const, P_FIXED = 0xd000, P_CODE = 0x4_0000;
/** Where the kernel's part is mapped, supervisor only. */
const KERNEL = 0x7000_0000;
const PRESENT = 1, WRITABLE = 2, USER = 4;
/** Selectors of the kernel's code, and those that Linux gives a 64-bit process. */
const KERNEL_CS = 0x10, USER_CS = 0x33, USER_SS = 0x2b;
/** Access rights: DPL 3 code with L, DPL 3 data, and no segment at all. */
const AR_CODE = 0xa0fb, AR_DATA = 0xc0f3, AR_NONE = 0x1_0000, AR_TSS = 0x8b;
/** Ticks after which a sequence counts as hanging. */
const BUDGET = 20_000;
const HALTED = 1, BREAKPOINT = 3;
const RF = 0x1_0000;
/** Vectors with an error code. */
const HAS_CODE = new Set([8, 10, 11, 12, 13, 14, 17]);

/** A model with just the features that the host's processor has, as far as we have them. */
export function modelLike(cpuid: (leaf: number, subleaf: number) => readonly number[]): CpuModel {
  const features = new Set<string>();
  for (const [name, [leaf, subleaf, register, bit]] of Object.entries(FEATURES)) {
    if (name !== "la57" && (cpuid(leaf, subleaf)[register]! >>> bit) & 1) features.add(name);
  }
  return { ...cpuModels["skylake"]!, name: "host", features };
}

/** One simulated processor under one engine. */
export class Guest {
  readonly engine: EngineKind;
  readonly #machine: Machine;
  readonly #cpu: Cpu;
  readonly #processor: Processor;
  readonly #codeBytes: Uint8Array;
  readonly #pages: readonly Uint32Array[];
  readonly #registers: Registers = new Uint32Array(REGISTER_WORDS);
  readonly #data = new Uint32Array(DATA_BYTES / 4);

  constructor(engine: EngineKind, model: CpuModel) {
    this.engine = engine;
    this.#machine = new Machine({ memory: 1 << 20, engine, cpuModel: model });
    this.#cpu = this.#machine.cpus[0]!;
    this.#processor = this.#machine.processors[0]!;
    const { buffer } = this.#cpu.memory;
    this.#codeBytes = new Uint8Array(buffer, RAM_BASE + P_CODE, CODE_BYTES);
    this.#pages = P_DATA.map((page) => new Uint32Array(buffer, RAM_BASE + page, 1024));
    this.#map();
    this.#tables();
    const { memory, base } = this.#cpu;
    memory.u8[RAM_BASE + P_STUBS + (SEQUENCE_END - STUBS)] = 0xcc;
    const cpu = this.#cpu;
    cpu.set32(S.CR0, CR0.PE | CR0.MP | CR0.ET | CR0.NE | CR0.WP | CR0.AM | CR0.PG);
    cpu.set32(S.CR4, CR4.PAE | CR4.OSFXSR | CR4.OSXMMEXCPT | CR4.PGE);
    cpu.set32(S.EFER, EFER.SCE | EFER.LME | EFER.LMA | EFER.NXE);
    cpu.set64Halves(S.CR3, TABLES, 0);
    cpu.access.tlb.flushAll();
    memory.u8.fill(0, base + S.FIP, base + S.FDS + 4);
  }

  #physical(address: number): DataView {
    return new DataView(this.#cpu.memory.buffer, RAM_BASE + address);
  }

  /** Page tables: one 4-KiB page at a time. */
  #map(): void {
    let free = TABLES + 0x1000;
    const next = (entry: number): number => {
      const view = this.#physical(entry);
      if (view.getUint32(0, true) === 0) {
        view.setUint32(0, free | PRESENT | WRITABLE | USER, true);
        free += 0x1000;
      }
      return view.getUint32(0, true) & ~0xfff;
    };
    const map = (linear: number, physical: number, bytes: number, rights: number) => {
      for (let at = 0; at < bytes; at += 0x1000) {
        const address = linear + at;
        let table = next(TABLES);
        table = next(table + (address >>> 30) * 8);
        table = next(table + ((address >>> 21) & 511) * 8);
        this.#physical(table + ((address >>> 12) & 511) * 8).setUint32(
          0,
          (physical + at) | rights | PRESENT,
          true,
        );
      }
    };
    map(KERNEL, 0, 0x1_0000, WRITABLE);
    map(STUBS, P_STUBS, 0x1000, USER);
    map(CODE, P_CODE, CODE_BYTES, USER | WRITABLE);
    P_DATA.forEach((page, i) => map(DATA + i * 0x1000, page, 0x1000, USER | WRITABLE));
    map(FIXED, P_FIXED, FIXED_BYTES, USER);
  }

  /** GDT, IDT, TSS, and a HLT for every vector. */
  #tables(): void {
    const cpu = this.#cpu;
    const gdt = this.#physical(GDT);
    gdt.setUint32(KERNEL_CS, 0xffff, true);
    gdt.setUint32(KERNEL_CS + 4, 0x00af_9b00, true);
    const idt = this.#physical(IDT), halts = this.#physical(HALTS);
    for (let vector = 0; vector < 32; vector++) {
      const handler = KERNEL + HALTS + vector;
      halts.setUint8(vector, 0xf4);
      idt.setUint32(vector * 16, (handler & 0xffff) | (KERNEL_CS << 16), true);
      idt.setUint32(vector * 16 + 4, 0xee00 | (handler & 0xffff_0000), true);
    }
    this.#physical(TSS).setUint32(4, KERNEL + STACK + 0x1000, true);
    cpu.set64Halves(S.GDTR, KERNEL + GDT, 0);
    cpu.set32(S.GDTR + 8, 0xff);
    cpu.set64Halves(S.IDTR, KERNEL + IDT, 0);
    cpu.set32(S.IDTR + 8, 0xfff);
    setSegment(cpu, SEG.TR, 0x40, KERNEL + TSS, 0, 0x67, AR_TSS);
    for (const seg of [SEG.DS, SEG.ES, SEG.FS, SEG.GS, SEG.LDTR]) setSegment(cpu, seg, 0, 0, 0, 0, AR_NONE);
  }

  /** Sets the content of the read-only page. */
  setFixed(bytes: Uint8Array): void {
    this.#cpu.memory.u8.set(bytes, RAM_BASE + P_FIXED);
  }

  /** Puts code there that has not been there since the last {@link forget}. */
  write(code: Uint8Array, address: number): void {
    this.#codeBytes.set(code, address - CODE);
  }
  /** Forgets all decoded code. */
  forget(): void {
    this.#machine.code?.flush();
  }

  /** Runs the code at `address`. What is returned holds until the next run. */
  run(address: number, registers: Registers, data: Uint32Array): Outcome {
    this.#load(address, registers);
    this.#pages.forEach((page, i) => page.set(data.subarray(i * 1024, (i + 1) * 1024)));
    this.#processor.run(BUDGET);
    this.#pages.forEach((page, i) => this.#data.set(page, i * 1024));
    return { ending: this.#ending(), registers: this.#registers, data: this.#data };
  }

  #load(address: number, from: Registers): void {
    const cpu = this.#cpu, { u32, i32 } = cpu.memory, at = cpu.base >>> 2;
    for (let i = 0; i < 32; i++) u32[at + (S.GPR >>> 2) + i] = from[i]!;
    for (let i = 0; i < 64; i++) u32[at + (S.XMM >>> 2) + i] = from[W.xmm + i]!;
    const top = (from[W.fsw]! >>> 11) & 7;
    for (let i = 0; i < 8; i++) {
      const register = at + ((S.FPR + 16 * ((top + i) & 7)) >>> 2);
      for (let n = 0; n < 3; n++) u32[register + n] = from[W.st + 3 * i + n]!;
      u32[register + 3] = 0;
    }
    u32[at + (S.FCW >>> 2)] = from[W.fcw]! | (from[W.fsw]! << 16);
    u32[at + (S.FTW >>> 2)] = from[W.ftw]!;
    u32[at + (S.MXCSR >>> 2)] = from[W.mxcsr]!;
    const flags = from[W.flags]!;
    cpu.set32(S.RFLAGS, flags & ~RFLAGS_STATUS);
    storeStatusFlags(i32, cpu.base, flags);
    cpu.set64Halves(S.RIP, address, 0);
    cpu.set32(S.CPL, 3);
    cpu.set32(S.ACTIVITY, 0);
    cpu.set32(S.BLOCKING, 0);
    cpu.set32(S.CR2, 0);
    setSegment(cpu, SEG.CS, USER_CS, 0, 0, 0xffff_ffff, AR_CODE);
    setSegment(cpu, SEG.SS, USER_SS, 0, 0, 0xffff_ffff, AR_DATA);
    updateMode(cpu);
  }

  #ending(): Outcome["ending"] {
    const cpu = this.#cpu, { u32 } = cpu.memory, at = cpu.base >>> 2;
    const to = this.#registers;
    for (let i = 0; i < 32; i++) to[i] = u32[at + (S.GPR >>> 2) + i]!;
    for (let i = 0; i < 64; i++) to[W.xmm + i] = u32[at + (S.XMM >>> 2) + i]!;
    const control = u32[at + (S.FCW >>> 2)]!;
    to[W.fcw] = control & 0xffff;
    to[W.fsw] = control >>> 16;
    to[W.ftw] = u32[at + (S.FTW >>> 2)]! & 0xff;
    to[W.mxcsr] = cpu.get32(S.MXCSR);
    const top = (to[W.fsw]! >>> 11) & 7;
    for (let i = 0; i < 8; i++) {
      const register = at + ((S.FPR + 16 * ((top + i) & 7)) >>> 2);
      to[W.st + 3 * i] = u32[register]!;
      to[W.st + 3 * i + 1] = u32[register + 1]!;
      to[W.st + 3 * i + 2] = u32[register + 2]! & 0xffff;
    }
    if (cpu.get32(S.ACTIVITY) !== HALTED) return { vector: -2, code: 0, rip: cpu.get32(S.RIP), cr2: 0 };
    const vector = cpu.get32(S.RIP) - (KERNEL + HALTS) - 1;
    // What the delivery left: error code, RIP, CS, RFLAGS, RSP, SS.
    let frame = (RAM_BASE + cpu.get32(S.GPR + 32) - KERNEL) >>> 2;
    const code = HAS_CODE.has(vector) ? u32[frame]! : 0;
    if (HAS_CODE.has(vector)) frame += 2;
    const rip = u32[frame]!;
    to[W.flags] = u32[frame + 4]! & ~RF;
    to[8] = u32[frame + 6]!;
    to[9] = u32[frame + 7]!;
    if (vector === BREAKPOINT && rip === SEQUENCE_END + 1) {
      return { vector: -1, code: 0, rip: SEQUENCE_END, cr2: 0 };
    }
    return { vector, code, rip, cr2: vector === 14 ? cpu.get32(S.CR2) : 0 };
  }
}
