/**
 * One processor on flat memory, for tests of descriptions: linear address = offset + segment base = physical address,
 * no paging, no devices. Instructions run on the reference engine, one at a time.
 *
 * @module
 */
import type { Access } from "../../../hw/access.ts";
import { Bus } from "../../../hw/bus.ts";
import { Cpu, type Procedures } from "../../../hw/cpu.ts";
import { cpuModels } from "../../../hw/cpuid.ts";
import { ReferenceEngine } from "../../../hw/engine/reference.ts";
import { storeStatusFlags } from "../../../hw/flags.ts";
import { decode, isDecoded } from "../../../hw/isa/decode.ts";
import type { CodeMode } from "../../../hw/isa/form.ts";
import { integerProcedures } from "../../../hw/isa/integer_proc.ts";
import { MachineMemory } from "../../../hw/memory.ts";
import { EXIT_FAULT, RAM_BASE, RFLAGS_STATUS, S, SEG } from "../../../hw/state.ts";

/** Bytes of RAM; an access above it is a page fault. */
export const RAM_BYTES = 0x10_0000;
/** Where {@link FlatMachine.run} puts code. */
export const CODE = 0x9000;
/** Where tests keep data. */
export const DATA = 0x4000;
/** Where the stack begins. */
export const STACK = 0x7000;

/** Accesses without paging; pages in `readOnly` refuse writes, everything outside RAM is not present. */
class FlatAccess {
  high = 0;
  linLow = 0;
  linHigh = 0;
  readonly readOnly = new Set<number>();
  /** Nothing is cached. */
  readonly tlb = { flushFast(): void {} };
  readonly #cpu: Cpu;
  readonly #view: DataView;

  constructor(cpu: Cpu) {
    this.#cpu = cpu;
    this.#view = new DataView(cpu.memory.buffer, RAM_BASE, RAM_BYTES);
  }

  segment(seg: number, low: number, high: number, bytes: number, _write: boolean): void {
    const vector = seg === SEG.SS ? 12 : 13;
    let linear = (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
    if (!this.#cpu.is64) {
      if (linear + BigInt(bytes) - 1n > BigInt(this.#cpu.segLimit(seg))) this.#cpu.raise(vector, 0);
      linear = BigInt.asUintN(32, linear + this.#cpu.segBase(seg));
    } else {
      if (seg >= SEG.FS) linear = BigInt.asUintN(64, linear + this.#cpu.segBase(seg));
      if (BigInt.asUintN(64, BigInt.asIntN(48, linear)) !== linear) this.#cpu.raise(vector, 0);
    }
    this.linLow = Number(linear & 0xffff_ffffn);
    this.linHigh = Number(linear >> 32n);
  }

  probe(low: number, high: number, bytes: number, write: boolean, _how = 0): void {
    for (const at of [low >>> 0, (low >>> 0) + bytes - 1]) {
      const absent = (high >>> 0) !== 0 || at >= RAM_BYTES;
      if (absent || (write && this.readOnly.has(at >>> 12))) {
        this.#cpu.set64(S.CR2, (BigInt(high >>> 0) << 32n) | BigInt(at));
        this.#cpu.raise(14, (absent ? 0 : 1) | (write ? 2 : 0));
      }
    }
  }

  fetchPage(low: number, _high: number): number {
    return (low & ~0xfff) >>> 0;
  }

  read(low: number, high: number, size: 1 | 2 | 4 | 8, how = 0): number {
    this.probe(low, high, size, false, how);
    const at = low >>> 0;
    if (size === 8) this.high = this.#view.getUint32(at + 4, true);
    if (size === 1) return this.#view.getUint8(at);
    return size === 2 ? this.#view.getUint16(at, true) : this.#view.getUint32(at, true);
  }

  readToWrite(low: number, high: number, size: 1 | 2 | 4 | 8, how = 0): number {
    this.probe(low, high, size, true, how);
    return this.read(low, high, size, how);
  }

  write(low: number, high: number, size: 1 | 2 | 4 | 8, valueLow: number, valueHigh: number, how = 0): void {
    this.probe(low, high, size, true, how);
    const at = low >>> 0;
    if (size === 1) this.#view.setUint8(at, valueLow);
    else if (size === 2) this.#view.setUint16(at, valueLow, true);
    else this.#view.setUint32(at, valueLow, true);
    if (size === 8) this.#view.setUint32(at + 4, valueHigh, true);
  }

  readBytes(low: number, high: number, hostDest: number, bytes: number, how = 0): void {
    this.probe(low, high, bytes, false, how);
    this.#cpu.memory.u8.copyWithin(hostDest, RAM_BASE + (low >>> 0), RAM_BASE + (low >>> 0) + bytes);
  }

  writeBytes(low: number, high: number, hostSource: number, bytes: number, how = 0): void {
    this.probe(low, high, bytes, true, how);
    this.#cpu.memory.u8.copyWithin(RAM_BASE + (low >>> 0), hostSource, hostSource + bytes);
  }
}

/** What {@link FlatMachine.run} gives when a fault ended the run. */
export interface Fault {
  readonly vector: number;
  /** -1 for none. */
  readonly code: number;
}

/** A processor that runs instructions given as hexadecimal. */
export class FlatMachine {
  readonly cpu: Cpu;
  readonly access: FlatAccess;
  readonly engine: ReferenceEngine;
  /** Steps that the last {@link run} took. */
  steps = 0;

  /** @param mode Code mode: 0, 1, 2 for 16-, 32- and 64-bit code (stack of the same size). */
  constructor(mode: CodeMode = 2, procedures: Procedures = integerProcedures) {
    const memory = new MachineMemory(RAM_BYTES);
    this.cpu = new Cpu({ id: 0, memory, bus: new Bus(memory), model: cpuModels["skylake"]! });
    this.access = new FlatAccess(this.cpu);
    this.cpu.access = this.access as unknown as Access;
    this.engine = new ReferenceEngine(procedures);
    this.cpu.set32(S.RFLAGS, 2);
    this.cpu.set32(S.CODEMODE, mode);
    this.cpu.set32(S.STACKMODE, mode);
    this.cpu.set32(S.CR0, 1);
    for (let seg = 0; seg < 6; seg++) {
      this.cpu.set32(S.SEGLIMIT + seg * 4, mode === 0 ? 0xffff : 0xffff_ffff);
    }
    this.flags = 0;
    this.set({ rsp: BigInt(STACK) });
  }

  /** Status flags as an RFLAGS image. */
  get flags(): number {
    return this.cpu.rflags & RFLAGS_STATUS;
  }
  set flags(image: number) {
    storeStatusFlags(this.cpu.memory.i32, this.cpu.base, image);
  }

  /** Sets registers by name. */
  set(registers: Partial<Record<RegisterName, bigint | number>>): this {
    for (const [name, value] of Object.entries(registers)) {
      this.cpu.setGpr(REGISTERS.indexOf(name as RegisterName), BigInt(value));
    }
    return this;
  }
  /** Register by name. */
  get(name: RegisterName): bigint {
    return this.cpu.gpr(REGISTERS.indexOf(name));
  }

  /** Puts bytes at a physical address. */
  poke(address: number, hex: string): this {
    this.cpu.memory.u8.set(Uint8Array.fromHex(hex.replaceAll(" ", "")), RAM_BASE + address);
    return this;
  }
  /** Bytes at a physical address, in hexadecimal. */
  peek(address: number, bytes: number): string {
    return this.cpu.memory.u8.slice(RAM_BASE + address, RAM_BASE + address + bytes).toHex();
  }

  /** One step of the instruction `bytes` at RIP; an EXIT_ code, or a fault. */
  step(bytes: Uint8Array): number | Fault {
    const decoded = decode(
      bytes,
      0,
      bytes.length,
      this.cpu.get32(S.CODEMODE) as CodeMode,
      this.cpu.model.features,
    );
    if (!isDecoded(decoded)) return { vector: decoded, code: -1 };
    const exit = this.engine.step(this.cpu, decoded);
    if (exit !== EXIT_FAULT) return exit;
    return { vector: this.cpu.get32(S.FAULTVECTOR), code: this.cpu.get32(S.FAULTCODE) | 0 };
  }

  /**
   * Runs the one instruction `hex` at `ip`, all iterations if it repeats.
   *
   * @returns The fault, or undefined.
   */
  run(hex: string, ip = CODE): Fault | undefined {
    const bytes = new Uint8Array(24);
    bytes.set(Uint8Array.fromHex(hex.replaceAll(" ", "")));
    this.cpu.rip = BigInt(ip);
    this.steps = 0;
    do {
      const result = this.step(bytes);
      if (typeof result !== "number") return result;
      this.steps++;
    } while (this.cpu.rip === BigInt(ip) && this.steps < 100_000);
    return undefined;
  }
}

const REGISTERS = [
  "rax",
  "rcx",
  "rdx",
  "rbx",
  "rsp",
  "rbp",
  "rsi",
  "rdi",
  "r8",
  "r9",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
] as const;

/** Name of a general-purpose register. */
export type RegisterName = typeof REGISTERS[number];
