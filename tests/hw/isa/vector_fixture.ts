/**
 * One instruction at a time on the reference engine and on generated code, with the same state before, for tests of the
 * vector rows. Memory is flat and unpaged, code is 64-bit.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { Access } from "../../../hw/access.ts";
import { Bus } from "../../../hw/bus.ts";
import { Cpu } from "../../../hw/cpu.ts";
import { cpuModels } from "../../../hw/cpuid.ts";
import { CodeCache } from "../../../hw/engine/code_cache.ts";
import { Handlers } from "../../../hw/engine/handlers.ts";
import { ReferenceEngine } from "../../../hw/engine/reference.ts";
import { loadStatusFlags, storeStatusFlags } from "../../../hw/flags.ts";
import { decode, isDecoded } from "../../../hw/isa/decode.ts";
import { rows } from "../../../hw/isa/table.ts";
import { sseProcedures } from "../../../hw/isa/sse_proc.ts";
import { MachineMemory } from "../../../hw/memory.ts";
import { BIAS_VALUE, EXIT_FAULT, RAM_BASE, S } from "../../../hw/state.ts";
import { updateMode } from "../../../hw/sys/mode.ts";

/** Where the instruction stands, and where RSI and RDI point. */
const CODE = 0x9000;
/** Address of the 64 bytes of memory that instructions use; 16-aligned. */
export const DATA = 0x4000;

/** What an instruction sees and leaves. Vectors are hexadecimal, least significant byte first. */
export interface VectorState {
  /** XMM0, XMM1, XMM2. */
  xmm: [string, string, string];
  /** MM0, MM1, MM2. */
  mm: [bigint, bigint, bigint];
  rax: bigint;
  rcx: bigint;
  rdx: bigint;
  mxcsr: number;
  /** The six status flags as an RFLAGS image. */
  flags: number;
  /** 64 bytes at RSI = RDI. */
  memory: string;
}

/** What {@link VectorMachine.run} gives. */
export interface VectorOutcome extends VectorState {
  /** Vector of the fault, or −1. */
  fault: number;
  /** x87 status and abridged tag word. */
  fsw: number;
  ftw: number;
}

/** A state of zeros with the reset value of MXCSR and zero in every register; `changes` put in. */
export function vectorState(changes: Partial<VectorState> = {}): VectorState {
  const zero = "00".repeat(16);
  return {
    xmm: [zero, zero, zero],
    mm: [0n, 0n, 0n],
    rax: 0n,
    rcx: 0n,
    rdx: 0n,
    mxcsr: 0x1f80,
    flags: 0,
    memory: "00".repeat(64),
    ...changes,
  };
}

/** Engines of the tests. */
export type EngineKind = "reference" | "wasm";

/** A processor with one of the engines. */
export class VectorMachine {
  readonly cpu: Cpu;
  readonly #kind: EngineKind;
  readonly #reference = new ReferenceEngine(sseProcedures);
  readonly #handlers: Handlers | undefined;
  readonly #code: CodeCache | undefined;
  #next = CODE;
  readonly #addresses = new Map<string, number>();

  constructor(kind: EngineKind) {
    this.#kind = kind;
    const memory = new MachineMemory(0x10_0000);
    const bus = new Bus(memory);
    this.cpu = new Cpu({ id: 0, memory, bus, model: cpuModels["skylake"]! });
    this.cpu.access = new Access(this.cpu);
    this.cpu.set32(S.RFLAGS, 2);
    this.cpu.set32(S.CR0, 0x33);
    this.cpu.set32(S.CR4, 0x600);
    this.cpu.set64Halves(S.BIAS, BIAS_VALUE, 0);
    updateMode(this.cpu);
    this.cpu.set32(S.CODEMODE, 2);
    this.cpu.set32(S.STACKMODE, 2);
    if (kind === "wasm") {
      this.#handlers = new Handlers(memory, [this.cpu], anyProcedures());
      this.#code = new CodeCache(memory, [this.cpu], this.#handlers);
      bus.code = this.#code;
    }
  }

  /** Runs one instruction given in hexadecimal from `state`; RSI and RDI are {@link DATA} plus `offset`; `fsw` is the x87 status word before. */
  run(hex: string, state: VectorState, offset = 0, { fsw = 0x3800 } = {}): VectorOutcome {
    const { cpu } = this;
    const { u8 } = cpu.memory;
    const bytes = Uint8Array.fromHex(hex.replaceAll(" ", ""));
    const at = this.#place(hex, bytes);
    state.xmm.forEach((value, n) => u8.set(Uint8Array.fromHex(value), cpu.base + S.XMM + n * 16));
    state.mm.forEach((value, n) => cpu.set64(S.FPR + n * 16, value));
    cpu.setGpr(0, state.rax);
    cpu.setGpr(1, state.rcx);
    cpu.setGpr(2, state.rdx);
    cpu.setGpr(6, BigInt(DATA + offset));
    cpu.setGpr(7, BigInt(DATA + offset));
    cpu.set32(S.MXCSR, state.mxcsr);
    cpu.memory.u16[(cpu.base + S.FSW) >>> 1] = fsw;
    cpu.memory.u16[(cpu.base + S.FTW) >>> 1] = 0;
    storeStatusFlags(cpu.memory.i32, cpu.base, state.flags);
    u8.set(Uint8Array.fromHex(state.memory), RAM_BASE + DATA);
    cpu.rip = BigInt(at);
    cpu.set32(S.STEPPING, 1);
    const exit = this.#kind === "reference" ? this.#stepReference(bytes) : this.#stepWasm();
    cpu.set32(S.STEPPING, 0);
    const fault = exit === EXIT_FAULT ? cpu.get32(S.FAULTVECTOR) : -1;
    if (fault < 0) assertEquals(cpu.rip, BigInt(at + bytes.length), `RIP after ${hex}`);
    return {
      xmm: [0, 1, 2].map((n) =>
        u8.slice(cpu.base + S.XMM + n * 16, cpu.base + S.XMM + n * 16 + 16).toHex()
      ) as [
        string,
        string,
        string,
      ],
      mm: [0, 1, 2].map((n) => cpu.get64(S.FPR + n * 16)) as [bigint, bigint, bigint],
      rax: cpu.gpr(0),
      rcx: cpu.gpr(1),
      rdx: cpu.gpr(2),
      mxcsr: cpu.get32(S.MXCSR),
      flags: loadStatusFlags(cpu.memory.i32, cpu.base),
      memory: u8.slice(RAM_BASE + DATA, RAM_BASE + DATA + 64).toHex(),
      fault,
      fsw: cpu.memory.u16[(cpu.base + S.FSW) >>> 1]!,
      ftw: cpu.memory.u16[(cpu.base + S.FTW) >>> 1]!,
    };
  }

  /** Every instruction text has a place of its own, so that no code ever changes. */
  #place(hex: string, bytes: Uint8Array): number {
    const known = this.#addresses.get(hex);
    if (known !== undefined) return known;
    if (this.#next + 32 > 0xf_0000) throw new Error("Too many different instructions for one machine");
    const at = this.#next;
    this.#next += 16;
    // Never over a page's end, which would need another kind of record.
    if ((at & 0xfff) > 0xfe0) this.#next = (at + 0x1000) & ~0xfff;
    this.#addresses.set(hex, at);
    this.cpu.memory.u8.set(bytes, RAM_BASE + at);
    // A jump to itself ends the straight line, so that nothing behind it is decoded before it is written.
    this.cpu.memory.u8.set([0xeb, 0xfe], RAM_BASE + at + bytes.length);
    return at;
  }

  #stepReference(bytes: Uint8Array): number {
    const padded = new Uint8Array(16);
    padded.set(bytes);
    const decoded = decode(padded, 0, 15, 2, this.cpu.model.features);
    if (!isDecoded(decoded)) return this.cpu.setFault(decoded);
    assertEquals(decoded.length, bytes.length, "length");
    return this.#reference.step(this.cpu, decoded);
  }

  #stepWasm(): number {
    const { cpu } = this;
    const record = this.#code!.lookup(cpu);
    if (record <= 0) return EXIT_FAULT;
    const start = this.#code!.stage(cpu, record, 1);
    const context = cpu.get32(S.TLBCTX);
    return this.#handlers!.run(cpu.base, start, 1, context, cpu.base + S.NOFETCH);
  }
}

/** The SSE procedures; a name that they lack is an error only when it is called. */
function anyProcedures(): typeof sseProcedures {
  return new Proxy(sseProcedures, {
    get: (target, name: string) =>
      target[name] ?? (() => {
        throw new Error(`Procedure ${name} is no vector procedure`);
      }),
  });
}

/** An instruction of one of the vector rows, made from its encoding. */
export interface MadeInstruction {
  readonly mnemonic: string;
  readonly encoding: string;
  readonly hex: string;
  /** It reads or writes memory. */
  readonly memory: boolean;
}

/**
 * Instructions for every encoding of the rows with `trap`: register operands number 1 (reg) and 2 (rm), memory at [RSI],
 * both values of REX.W where it matters, and `imm` as immediate.
 */
export function makeInstructions(trap: "sse" | "mmx", imm: number): MadeInstruction[] {
  const made: MadeInstruction[] = [];
  for (const row of rows) {
    if (row.flags.trap !== trap) continue;
    for (const encoding of row.encodings) {
      const tokens = encoding.split(" ").filter((token) => token !== "NP");
      const wide = tokens.includes("W1")
        ? [true]
        : tokens.some((t) => /^[EG]y/.test(t))
        ? [false, true]
        : [false];
      const rest = tokens.filter((token) => !/^W[01]$/.test(token));
      const prefix = /^(66|F2|F3)$/.test(rest[0]!) ? rest.shift()! : "";
      let opcode = "";
      while (/^[0-9A-F]{2}$/.test(rest[0] ?? "")) opcode += rest.shift()!;
      const modrm = rest[0]?.startsWith("/") ? rest.shift()! : "";
      const [what = "", where = ""] = modrm.slice(1).split(":");
      const hasMemory = where !== "reg" && rest.some((token) => /^[EMWQ]/.test(token));
      const hasRegister = where !== "mem" && !rest.some((token) => /^M/.test(token));
      const last = rest.includes("Ib") ? imm.toString(16).padStart(2, "0") : "";
      for (const w of wide) {
        const head = `${prefix}${w ? "48" : ""}${opcode}`;
        const reg = what === "r" ? 1 : Number(what);
        const add = (mod: number, rm: number) => {
          const byte = modrm === "" ? "" : ((mod << 6) | (reg << 3) | rm).toString(16).padStart(2, "0");
          made.push({ mnemonic: row.mnemonic, encoding, hex: head + byte + last, memory: mod === 0 });
        };
        if (hasRegister || modrm === "") add(3, 2);
        if (hasMemory) add(0, 6);
      }
    }
  }
  return made;
}
