/**
 * Every x87 encoding, and the state-saving instructions, on both engines from many states: each bit that the instruction
 * leaves must be the same.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { Access } from "../../../hw/access.ts";
import { Bus } from "../../../hw/bus.ts";
import { Cpu } from "../../../hw/cpu.ts";
import { cpuModels } from "../../../hw/cpuid.ts";
import { CodeCache } from "../../../hw/engine/code_cache.ts";
import { Handlers } from "../../../hw/engine/handlers.ts";
import { ReferenceEngine } from "../../../hw/engine/reference.ts";
import { loadStatusFlags, storeStatusFlags } from "../../../hw/flags.ts";
import { decode, isDecoded } from "../../../hw/isa/decode.ts";
import { setAbridgedTags, setWords, writePhysical } from "../../../hw/isa/x87_state.ts";
import { MachineMemory } from "../../../hw/memory.ts";
import { procedures } from "../../../hw/procedures.ts";
import { BIAS_VALUE, EXIT_FAULT, RAM_BASE, S } from "../../../hw/state.ts";
import { updateMode } from "../../../hw/sys/mode.ts";

const CODE = 0x9000, DATA = 0x4000, AREA = 0xb00;
/** The part of the processor's block that is compared besides flags: registers, x87 words and pointers, XMM. */
const COMPARED: readonly (readonly [from: number, bytes: number])[] = [
  [S.GPR, 128],
  [S.RIP, 8],
  [S.XCR0, 8],
  [S.MXCSR, 36],
  [S.FPR, 128],
  [S.XMM, 256],
];

type Next = () => bigint;

/** xorshift64: the same states in every run. */
function generator(seed: bigint): Next {
  let s = seed;
  return () => {
    s = BigInt.asUintN(64, s ^ (s << 13n));
    s ^= s >> 7n;
    s = BigInt.asUintN(64, s ^ (s << 17n));
    return s;
  };
}

class Machine {
  readonly cpu: Cpu;
  readonly #reference: ReferenceEngine | undefined;
  readonly #handlers: Handlers | undefined;
  readonly #code: CodeCache | undefined;

  constructor(kind: "reference" | "wasm") {
    const memory = new MachineMemory(0x10_0000), bus = new Bus(memory);
    this.cpu = new Cpu({ id: 0, memory, bus, model: cpuModels["icelake"]! });
    const { cpu } = this;
    cpu.access = new Access(cpu);
    cpu.set32(S.RFLAGS, 2);
    cpu.set32(S.CR0, 0x33);
    cpu.set32(S.CR4, 0x4_0600);
    cpu.set64Halves(S.BIAS, BIAS_VALUE, 0);
    updateMode(cpu);
    cpu.set32(S.CODEMODE, 2);
    cpu.set32(S.STACKMODE, 2);
    if (kind === "reference") this.#reference = new ReferenceEngine(procedures);
    else {
      this.#handlers = new Handlers(memory, [cpu], procedures);
      this.#code = new CodeCache(memory, [cpu], this.#handlers);
      bus.code = this.#code;
    }
  }

  /** Puts the instruction at `at`, with a jump to itself behind it. */
  place(bytes: Uint8Array, at: number): void {
    const { u8 } = this.cpu.memory;
    u8.set(bytes, RAM_BASE + at);
    u8.set([0xeb, 0xfe], RAM_BASE + at + bytes.length);
  }

  /** Runs the instruction at `at` from the state that `next` draws; gives all that may have changed. */
  run(at: number, next: Next): string {
    const { cpu } = this, { u8 } = cpu.memory;
    this.#fill(next);
    cpu.rip = BigInt(at);
    cpu.set32(S.STEPPING, 1);
    const exit = this.#reference ? this.#stepReference(at) : this.#stepWasm();
    cpu.set32(S.STEPPING, 0);
    const fault = exit === EXIT_FAULT ? `${cpu.get32(S.FAULTVECTOR)}/${cpu.get32(S.FAULTCODE)}` : "none";
    const parts = COMPARED.map(([from, bytes]) => u8.slice(cpu.base + from, cpu.base + from + bytes).toHex());
    const memory = u8.slice(RAM_BASE + DATA, RAM_BASE + DATA + AREA).toHex();
    const flags = loadStatusFlags(cpu.memory.i32, cpu.base);
    return [fault, flags, cpu.get32(S.PKRU), ...parts, memory].join("\n");
  }

  #fill(next: Next): void {
    const { cpu } = this;
    for (let n = 0; n < 16; n++) cpu.setGpr(n, next());
    cpu.setGpr(0, next() & 0x203n);
    cpu.setGpr(1, 0n);
    cpu.setGpr(2, 0n);
    cpu.setGpr(6, BigInt(DATA));
    storeStatusFlags(cpu.memory.i32, cpu.base, Number(next() & 0x8d5n));
    const masks = next() % 3n === 0n ? Number(next() & 0x3fn) : 0x3f;
    const pending = next() % 16n === 0n ? 0x3f : masks;
    setWords(
      cpu,
      masks | Number(next() & 0xf00n),
      Number(next() & 0x7f00n) | (Number(next() & 0x3fn) & pending),
    );
    setAbridgedTags(cpu, next() % 2n === 0n ? 0xff : Number(next() & 0xffn));
    for (let n = 0; n < 8; n++) writePhysical(cpu, n, this.#real(next));
    for (let n = 0; n < 32; n++) cpu.set64(S.XMM + n * 8, next());
    for (const offset of [S.FIP, S.FDP, S.FCS]) cpu.set64(offset, 0n);
    cpu.set32(S.MXCSR, Number(next() & 0xffffn));
    cpu.set32(S.PKRU, 0);
    cpu.set64(S.XCR0, 0x203n);
    const area = cpu.memory.u64, from = (RAM_BASE + DATA) / 8;
    for (let n = 0; n < AREA / 8; n++) area[from + n] = next();
    // Half the time, what XRSTOR and FXRSTOR accept.
    if (next() & 1n) {
      area[from + 3] = next() & 0xffffn;
      area[from + 64] = next() & 0x203n;
      area[from + 65] = 0n;
      area[from + 66] = 0n;
    }
  }

  #real(next: Next): bigint {
    const pick = next() % 8n;
    const exponent = pick === 0n
      ? 0n
      : pick === 1n
      ? 0x7fffn
      : pick < 6n
      ? 0x3ff0n + next() % 64n
      : next() % 0x7fffn;
    const significand = pick === 0n ? next() >> (next() % 64n) : next() | (1n << 63n);
    return (next() & 1n) << 79n | exponent << 64n | significand;
  }

  #stepReference(at: number): number {
    const { cpu } = this;
    const decoded = decode(cpu.memory.u8, RAM_BASE + at, RAM_BASE + at + 15, 2, cpu.model.features);
    return isDecoded(decoded) ? this.#reference!.step(cpu, decoded) : cpu.setFault(decoded);
  }

  #stepWasm(): number {
    const { cpu } = this;
    const record = this.#code!.lookup(cpu);
    if (record <= 0) return EXIT_FAULT;
    const start = this.#code!.stage(cpu, record, 1);
    return this.#handlers!.run(cpu.base, start, 1, cpu.get32(S.TLBCTX), cpu.base + S.NOFETCH);
  }
}

/** All of D8 to DF with memory at [RSI] or a register, and the instructions of fxsave_rows.ts. */
function encodings(): string[] {
  const list = ["9b", "0f01d0", "0f01d1"];
  for (const opcode of ["0fae06", "0fae0e", "0fae26", "0fae2e"]) list.push(opcode, `48${opcode}`);
  for (let opcode = 0xd8; opcode <= 0xdf; opcode++) {
    for (let digit = 0; digit < 8; digit++) {
      const modrm = (digit * 8 + 6).toString(16).padStart(2, "0");
      list.push(opcode.toString(16) + modrm);
      if (digit === 4 || digit === 6) list.push(`66${opcode.toString(16)}${modrm}`);
    }
    for (let modrm = 0xc0; modrm <= 0xff; modrm++) list.push(opcode.toString(16) + modrm.toString(16));
  }
  return list;
}

Deno.test("generated code does what the reference does, for every x87 and XSAVE encoding", () => {
  const reference = new Machine("reference"), wasm = new Machine("wasm");
  let defined = 0, at = CODE;
  encodings().forEach((hex, n) => {
    const bytes = Uint8Array.fromHex(hex);
    reference.place(bytes, at);
    wasm.place(bytes, at);
    for (let round = 0n; round < 3n; round++) {
      const seed = BigInt(n + 1) * 0x9e37_79b9_7f4a_7c15n + round * 0x1234_5677n + 1n &
        0xffff_ffff_ffff_ffffn;
      const expected = reference.run(at, generator(seed));
      assertEquals(wasm.run(at, generator(seed)), expected, `${hex}, round ${round}`);
      if (!expected.startsWith("6/")) defined++;
    }
    at += 16;
    if ((at & 0xfff) > 0xfe0) at = (at + 0x1000) & ~0xfff;
  });
  assert(defined > 1500);
});
