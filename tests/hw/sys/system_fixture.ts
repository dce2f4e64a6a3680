/**
 * A machine of one processor with descriptor tables, page tables and handlers laid out for tests of system instructions. Code is given
 * as hexadecimal; each handler is a HLT, so that after an event the processor stands still with the frame on its stack.
 *
 * @module
 */
import type { Cpu } from "../../../hw/cpu.ts";
import type { CpuModel } from "../../../hw/cpuid.ts";
import { storeStatusFlags } from "../../../hw/flags.ts";
import { type EngineKind, Machine } from "../../../hw/machine.ts";
import { RAM_BASE, S, SEG } from "../../../hw/state.ts";
import { CR0, CR4, EFER, setSegment, updateMode } from "../../../hw/sys/mode.ts";

/** Where things stand in physical (and linear) memory. */
export const AT = {
  GDT: 0x1000,
  IDT: 0x2000,
  TSS: 0x3000,
  TSS2: 0x3800,
  PML4: 0x4000,
  HANDLERS: 0x8000,
  CODE: 0x1_0000,
  STACK0: 0x1_8000,
  IST1: 0x1_a000,
  RSP0: 0x1_c000,
  USER_CODE: 0x2_0000,
  USER_STACK: 0x2_8000,
  DATA: 0x3_0000,
} as const;

/** Selectors of the descriptors that the fixture makes. */
export const SEL = {
  CODE64: 0x08,
  DATA: 0x10,
  USER_CODE32: 0x1b,
  USER_DATA: 0x23,
  USER_CODE64: 0x2b,
  TSS: 0x30,
  CODE32: 0x40,
  CODE16: 0x48,
  TSS2: 0x50,
  LDT: 0x60,
  GATE: 0x70,
  CONFORMING: 0x80,
  ABSENT: 0x88,
  DATA16: 0x90,
  TASK_GATE: 0x98,
} as const;

/** Flat descriptors: access byte and flags nibble. */
const FLAT: readonly (readonly [selector: number, access: number, flags: number])[] = [
  [SEL.CODE64, 0x9b, 0xa],
  [SEL.DATA, 0x93, 0xc],
  [SEL.USER_CODE32, 0xfb, 0xc],
  [SEL.USER_DATA, 0xf3, 0xc],
  [SEL.USER_CODE64, 0xfb, 0xa],
  [SEL.CODE32, 0x9b, 0xc],
  [SEL.CODE16, 0x9b, 0x0],
  [SEL.CONFORMING, 0x9f, 0xa],
  [SEL.ABSENT, 0x13, 0xc],
  [SEL.DATA16, 0x93, 0x0],
];

export type Mode = "long" | "protected" | "real";

/** A machine for system tests. */
export class SystemFixture {
  readonly machine: Machine;
  readonly cpu: Cpu;
  readonly view: DataView;

  constructor(mode: Mode = "long", engine: EngineKind = "interpreter", model?: CpuModel | string) {
    this.machine = new Machine({
      memory: 0x20_0000,
      engine,
      ...(model === undefined ? {} : { cpuModel: model }),
    });
    this.cpu = this.machine.cpus[0]!;
    this.view = new DataView(this.cpu.memory.buffer, RAM_BASE, 0x20_0000);
    this.cpu.set32(S.ATTENTION, 0);
    if (mode === "real") this.#makeReal();
    else this.#makeProtected(mode);
    this.cpu.setGpr(4, BigInt(AT.STACK0));
    this.cpu.rip = BigInt(AT.CODE);
    if (mode === "real") this.cpu.rip = 0n;
    updateMode(this.cpu);
  }

  #makeReal(): void {
    const { cpu } = this;
    for (let v = 0; v < 256; v++) {
      this.view.setUint32(v * 4, ((AT.HANDLERS >>> 4) << 16) | v, true);
      this.view.setUint8(AT.HANDLERS + v, 0xf4);
    }
    setSegment(cpu, SEG.CS, AT.CODE >>> 4, AT.CODE, 0, 0xffff, 0x93);
    setSegment(cpu, SEG.SS, 0x1000, 0x1_0000, 0, 0xffff, 0x93);
    setSegment(cpu, SEG.DS, AT.DATA >>> 4, AT.DATA, 0, 0xffff, 0x93);
  }

  #makeProtected(mode: Mode): void {
    const { cpu } = this;
    for (const [selector, access, flags] of FLAT) {
      this.descriptor(selector, 0, flags === 0 ? 0xffff : 0xf_ffff, access, flags);
    }
    this.descriptor(SEL.TSS, AT.TSS, 0x2067, 0x8b, 0);
    const long = mode === "long";
    for (let v = 0; v < 256; v++) {
      this.gate(v, SEL.CODE64, AT.HANDLERS + v, long ? 0x8e : 0x8e);
      if (!long) this.gate(v, SEL.CODE32, AT.HANDLERS + v, 0x8e);
      this.view.setUint8(AT.HANDLERS + v, 0xf4);
    }
    if (long) {
      this.view.setUint32(AT.TSS + 4, AT.RSP0, true);
      this.view.setUint32(AT.TSS + 36, AT.IST1, true);
    } else {
      this.view.setUint32(AT.TSS + 4, AT.RSP0, true);
      this.view.setUint32(AT.TSS + 8, SEL.DATA, true);
    }
    this.view.setUint16(AT.TSS + 0x66, 0x68, true);
    cpu.set64(S.GDTR, BigInt(AT.GDT));
    cpu.set32(S.GDTR + 8, 0xfff);
    cpu.set64(S.IDTR, BigInt(AT.IDT));
    cpu.set32(S.IDTR + 8, 0xfff);
    setSegment(cpu, SEG.TR, SEL.TSS, AT.TSS, 0, 0x2067, 0x8b);
    setSegment(cpu, SEG.LDTR, 0, 0, 0, 0, 0x1_0000);
    cpu.set32(S.CR0, CR0.PE | CR0.ET | CR0.NE | CR0.WP);
    if (long) {
      // Identity map of the first GiB with 2-MiB pages, open to user code.
      this.view.setUint32(AT.PML4, (AT.PML4 + 0x1000) | 7, true);
      this.view.setUint32(AT.PML4 + 0x1000, (AT.PML4 + 0x2000) | 7, true);
      this.view.setUint32(AT.PML4 + 0x2000, 0x87, true);
      this.view.setUint32(AT.PML4 + 0x2008, 0x20_0087, true);
      cpu.set32(S.CR3, AT.PML4);
      cpu.set32(S.CR4, CR4.PAE | CR4.OSFXSR);
      cpu.set32(S.EFER, EFER.LME | EFER.LMA | EFER.SCE | EFER.NXE);
      cpu.set32(S.CR0, cpu.get32(S.CR0) | CR0.PG);
    }
    this.setRing(0, mode);
  }

  /** Flat segments of ring 0 or 3; code of the mode's own size. */
  setRing(cpl: 0 | 3, mode: Mode = "long"): this {
    const { cpu } = this;
    const dpl = cpl << 5;
    const long = mode === "long";
    const code = cpl === 0 ? (long ? SEL.CODE64 : SEL.CODE32) : long ? SEL.USER_CODE64 : SEL.USER_CODE32;
    setSegment(cpu, SEG.CS, code, 0, 0, -1, (long ? 0xa09b : 0xc09b) | dpl);
    const data = cpl === 0 ? SEL.DATA : SEL.USER_DATA;
    for (const seg of [SEG.SS, SEG.DS, SEG.ES]) setSegment(cpu, seg, data, 0, 0, -1, 0xc093 | dpl);
    for (const seg of [SEG.FS, SEG.GS]) setSegment(cpu, seg, 0, 0, 0, 0, 0x1_0000);
    cpu.set32(S.CPL, cpl);
    updateMode(cpu);
    return this;
  }

  /** Writes a descriptor. `flags` is the nibble G, D/B, L, AVL. */
  descriptor(selector: number, base: number, limit: number, access: number, flags: number): void {
    const at = AT.GDT + (selector & 0xfff8);
    this.view.setUint32(at, (limit & 0xffff) | (base << 16), true);
    this.view.setUint32(
      at + 4,
      ((base >>> 16) & 0xff) | (access << 8) | (limit & 0xf_0000) | (flags << 20) | (base & 0xff00_0000),
      true,
    );
  }

  /** Writes an IDT gate: 16 bytes in IA-32e mode (`SEL.CODE64`), 8 outside. */
  gate(vector: number, selector: number, offset: number, access: number, ist = 0): void {
    const long = selector === SEL.CODE64 || (this.cpu.get32(S.EFER) & EFER.LMA) !== 0;
    const at = AT.IDT + vector * (long ? 16 : 8);
    this.view.setUint32(at, (offset & 0xffff) | (selector << 16), true);
    this.view.setUint32(at + 4, (offset & 0xffff_0000) | (access << 8) | ist, true);
    if (long) this.view.setBigUint64(at + 8, 0n, true);
  }

  /** Puts code at an address. */
  place(at: number, hex: string): this {
    const bytes = hex.replace(/\s+/g, "").match(/../g) ?? [];
    // Through the bus, which tells whoever has decoded these bytes.
    this.machine.bus.writeRam(at, Uint8Array.from(bytes, (byte) => parseInt(byte, 16)));
    return this;
  }

  /** Places code at `at`, sets RIP there and runs `steps` ticks. */
  run(hex: string, steps: number, at: number = AT.CODE): this {
    this.place(at, hex);
    this.cpu.rip = BigInt(at);
    return this.step(steps);
  }
  /** Runs at most `steps` ticks. */
  step(steps: number): this {
    this.machine.processors[0]!.run(steps);
    return this;
  }

  /** Sets RFLAGS. */
  setFlags(image: number): this {
    storeStatusFlags(this.cpu.memory.i32, this.cpu.base, image);
    this.cpu.set32(S.RFLAGS, (image & ~0x8d5) | 2);
    updateMode(this.cpu);
    return this;
  }

  /** Vector of the handler that the processor halted in, or −1. */
  get caught(): number {
    const rip = Number(this.cpu.rip), base = this.cpu.is64 ? 0 : Number(this.cpu.segBase(SEG.CS));
    const at = rip + base - AT.HANDLERS - 1;
    return this.cpu.get32(S.ACTIVITY) === 1 && at >= 0 && at < 256 ? at : -1;
  }

  /** Item `i` of the stack, of `size` bytes. */
  stack(i: number, size: 2 | 4 | 8 = 8): bigint {
    const sp = this.cpu.gpr(4);
    const at = Number(size === 2 ? (sp & 0xffffn) + this.cpu.segBase(SEG.SS) : sp) + i * size;
    if (size === 8) return this.view.getBigUint64(at, true);
    return BigInt(size === 4 ? this.view.getUint32(at, true) : this.view.getUint16(at, true));
  }
}

/** Runs a test body on both engines. */
export function onBothEngines(body: (engine: EngineKind) => void): void {
  for (const engine of ["reference", "interpreter"] as const) body(engine);
}
