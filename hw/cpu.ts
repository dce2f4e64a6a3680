/**
 * One processor: its state as TypeScript sees it, how procedures read arguments and raise faults.
 *
 * Room: `hw/`; knows the memory, the bus, the local APIC and the engines through their types.
 *
 * Every value of a hot path is a pair of signed or unsigned 32-bit halves; bigint accessors are for tests, tools and cold code.
 *
 * @module
 */
import type { MachineMemory } from "./memory.ts";
import type { Access } from "./access.ts";
import type { Bus } from "./bus.ts";
import type { Timer } from "./clock.ts";
import type { LocalApic } from "./dev/apic.ts";
import type { CpuModel } from "./cpuid.ts";
import type { GateTable } from "./gates.ts";
import { AUX, AUX_BASE, AUX_BYTES, EXIT_FAULT, S, SEG } from "./state.ts";
import { loadRflags } from "./flags.ts";
import { Counters } from "./counters.ts";
import { Trace } from "./trace.ts";

/**
 * Thrown by {@link Cpu.raise} (and by `cpu.access`) through TypeScript procedures and caught at the engine's border, which goes
 * on with the code in S.EXIT: EXIT_FAULT (the fault itself is in the processor's block) or EXIT_RETRY.
 */
export const FAULT: unique symbol = Symbol("fault");

/** A named procedure of the instruction table. Returns an EXIT_ code; EXIT_NONE to go on. May throw {@link FAULT} by way of `cpu.raise`. */
export type Procedure = (cpu: Cpu) => number;
/** Procedures by name. */
export type Procedures = Readonly<Record<string, Procedure>>;

/** Exception vectors (SDM vol. 3A, "Exception and Interrupt Vectors"). */
export const VECTOR = {
  DE: 0,
  DB: 1,
  NMI: 2,
  BP: 3,
  OF: 4,
  BR: 5,
  UD: 6,
  NM: 7,
  DF: 8,
  TS: 10,
  NP: 11,
  SS: 12,
  GP: 13,
  PF: 14,
  MF: 16,
  AC: 17,
  MC: 18,
  XM: 19,
  VE: 20,
  CP: 21,
} as const;

/** What a processor is made of. */
export interface CpuParts {
  readonly id: number;
  readonly memory: MachineMemory;
  readonly bus: Bus;
  readonly model: CpuModel;
}

/** One processor. */
export class Cpu {
  /** Number of the processor, 0 for the bootstrap processor; its local APIC id. */
  readonly id: number;
  /** Host address of the processor's block. */
  readonly base: number;
  /** The one linear memory. */
  readonly memory: MachineMemory;
  /** Physical memory map and ports. */
  readonly bus: Bus;
  /** What the processor is: features, sizes, names. */
  readonly model: CpuModel;
  /**
   * Set by the machine's builder, once, before the first instruction.
   *
   * @internal
   */
  access!: Access;
  /** @internal */
  apic!: LocalApic;
  /** The machine's gates (DESIGN 2.5); undefined on a machine without them. */
  gates: GateTable | undefined = undefined;
  /** What this processor counts; always on. */
  readonly counters: Counters;
  /** VM entries that were carried out, VM exits (entry failures among them). */
  readonly transitions: { entries: number; exits: number } = { entries: 0, exits: 0 };
  /** Alarm of the VMX-preemption timer; made by the machine's builder, absent where there is no clock. */
  preemptionTimer: Timer | undefined = undefined;
  #trace: Trace = new Trace();
  /** Processors in the machine (CPUID topology); set by the machine's builder. */
  count = 1;
  /** Current time in instructions, exact inside a procedure; set by the machine. */
  now: () => number = () => 0;

  /** Made by the machine's builder. */
  constructor(parts: CpuParts) {
    this.id = parts.id;
    this.memory = parts.memory;
    this.bus = parts.bus;
    this.model = parts.model;
    this.base = parts.memory.cpuBase(parts.id);
    const { f64 } = this.memory, aux = AUX_BASE + this.id * AUX_BYTES;
    this.memory.i32[(this.base + S.AUX) >>> 2] = aux;
    const cells = (at: number, count: number) => f64.subarray((aux + at) >>> 3, ((aux + at) >>> 3) + count);
    this.counters = new Counters({
      cells: cells(AUX.counters, 16),
      paths: cells(AUX.paths, 48),
      eptPaths: cells(AUX.eptPaths, 6 * 64),
    });
    this.#trace.mirror(this.memory.i32, (aux + AUX.wants) >>> 2);
  }

  /** Where this processor's trace events go; the machine's builder gives all processors the same one. */
  get trace(): Trace {
    return this.#trace;
  }
  set trace(trace: Trace) {
    const { i32 } = this.memory, at = (AUX_BASE + this.id * AUX_BYTES + AUX.wants) >>> 2;
    this.#trace.unmirror(i32, at);
    this.#trace = trace;
    trace.mirror(i32, at);
  }

  // ---- fields of the block

  /** Unsigned 32-bit field at offset `offset` of the block. */
  get32(offset: number): number {
    return this.memory.u32[(this.base + offset) >>> 2]!;
  }
  /** Sets a 32-bit field. */
  set32(offset: number, value: number): void {
    this.memory.i32[(this.base + offset) >>> 2] = value;
  }
  /** 64-bit field; for cold code. */
  get64(offset: number): bigint {
    return this.memory.u64[(this.base + offset) >>> 3]!;
  }
  /** Sets a 64-bit field. */
  set64(offset: number, value: bigint): void {
    this.memory.u64[(this.base + offset) >>> 3] = value;
  }
  /** Both halves of a 64-bit field. */
  set64Halves(offset: number, low: number, high: number): void {
    const i = (this.base + offset) >>> 2;
    this.memory.i32[i] = low;
    this.memory.i32[i + 1] = high;
  }
  /** General-purpose register `n` (see `R`). */
  gpr(n: number): bigint {
    return this.get64(S.GPR + n * 8);
  }
  /** Sets a general-purpose register. */
  setGpr(n: number, value: bigint): void {
    this.set64(S.GPR + n * 8, BigInt.asUintN(64, value));
  }
  /** RIP of the instruction to execute next. */
  get rip(): bigint {
    return this.get64(S.RIP);
  }
  set rip(value: bigint) {
    this.set64(S.RIP, BigInt.asUintN(64, value));
  }
  /** The whole RFLAGS image. */
  get rflags(): number {
    return loadRflags(this.memory.i32, this.base);
  }
  /** Current privilege level. */
  get cpl(): number {
    return this.get32(S.CPL);
  }
  /** Base of a segment register (see `SEG`). */
  segBase(seg: number): bigint {
    return this.get64(S.SEGBASE + seg * 8);
  }
  /** Selector of a segment register. */
  segSel(seg: number): number {
    return this.get32(S.SEGSEL + seg * 4);
  }
  /** Limit of a segment register in bytes, granularity applied. */
  segLimit(seg: number): number {
    return this.get32(S.SEGLIMIT + seg * 4);
  }
  /** Access rights of a segment register, in the VMCS format. */
  segAr(seg: number): number {
    return this.get32(S.SEGAR + seg * 4);
  }
  /** True in 64-bit mode (CS.L = 1 in IA-32e mode). */
  get is64(): boolean {
    return this.get32(S.CODEMODE) === 2;
  }
  /** Linear address of the instruction at RIP; for tools. */
  get linearRip(): bigint {
    return this.is64 ? this.rip : (this.rip + this.segBase(SEG.CS)) & 0xffff_ffffn;
  }

  // ---- arguments of procedures

  /** Low (unsigned) half of argument `i`. */
  argLow(i: number): number {
    return this.memory.u32[(this.base + S.ARG + i * 8) >>> 2]!;
  }
  /** High half of argument `i`. */
  argHigh(i: number): number {
    return this.memory.u32[(this.base + S.ARG + i * 8 + 4) >>> 2]!;
  }
  /** Argument `i`, all 64 bits. */
  arg(i: number): bigint {
    return this.get64(S.ARG + i * 8);
  }
  /** The procedure's result, for `callResult`. */
  setResult(low: number, high: number): void {
    this.set64Halves(S.ARG, low, high);
  }

  // ---- chance

  /** Seeds the generator behind RDRAND and RDSEED; the machine gives each processor its own seed. */
  seedRandom(seed: number): void {
    this.set32(S.RANDOM, seed);
    this.set32(S.RANDOM + 4, 0x9e37_79b9);
    this.set32(S.RANDOM + 8, this.id);
    this.set32(S.RANDOM + 12, 1);
    for (let i = 0; i < 12; i++) this.random32();
  }
  /** Next 32 random bits, unsigned: the "small fast counting" generator sfc32. */
  random32(): number {
    const u32 = this.memory.i32, i = (this.base + S.RANDOM) >>> 2;
    const a = u32[i]!, b = u32[i + 1]!, c = u32[i + 2]!, counter = u32[i + 3]!;
    const result = (a + b + counter) | 0;
    u32[i] = b ^ (b >>> 9);
    u32[i + 1] = (c + (c << 3)) | 0;
    u32[i + 2] = (((c << 21) | (c >>> 11)) + result) | 0;
    u32[i + 3] = (counter + 1) | 0;
    return result >>> 0;
  }

  // ---- faults

  /** Records a fault; returns EXIT_FAULT. The caller returns at once, having changed nothing. */
  setFault(vector: number, errorCode = -1): number {
    this.set32(S.FAULTVECTOR, vector);
    this.set32(S.FAULTCODE, errorCode);
    this.set32(S.EXIT, EXIT_FAULT);
    this.set32(S.EXIT, EXIT_FAULT);
    return EXIT_FAULT;
  }
  /** Records a fault and leaves the procedure. */
  raise(vector: number, errorCode = -1): never {
    this.setFault(vector, errorCode);
    throw FAULT;
  }
}
