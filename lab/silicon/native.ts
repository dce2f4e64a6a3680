/**
 * This host's own processor, through Deno's FFI: maps the region of layout.ts, puts machine code of our own there (a way in,
 * a way out, a signal handler), and runs sequences in this process.
 *
 * Room: `lab/silicon/`; needs `--allow-ffi`. x86-64 Linux only.
 *
 * @module
 */
import {
  C,
  CODE,
  CODE_BYTES,
  CONTROL,
  CONTROL_BYTES,
  DATA,
  DATA_BYTES,
  FIXED,
  FIXED_BYTES,
} from "./layout.ts";
import { REGION, REGION_BYTES, SIGNAL_STACK, SIGNAL_STACK_BYTES, STUBS, STUBS_BYTES } from "./layout.ts";
import { fromFx, type Outcome, REGISTER_WORDS, type Registers, toFx, W } from "./state.ts";

const LIBC = {
  mmap: { parameters: ["u64", "u64", "i32", "i32", "i32", "i64"], result: "u64" },
  munmap: { parameters: ["u64", "u64"], result: "i32" },
  mprotect: { parameters: ["u64", "u64", "i32"], result: "i32" },
  sigaction: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  pthread_sigmask: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  sigaltstack: { parameters: ["buffer", "buffer"], result: "i32" },
} as const;

const PROT = { NONE: 0, READ: 1, WRITE: 2, EXEC: 4 } as const;
/** MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MAP_FIXED_NOREPLACE. */
const MAP = 0x2 | 0x20 | 0x4000 | 0x10_0000;
/** SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV. */
const SIGNALS = [4, 5, 7, 8, 11] as const;
/** SA_SIGINFO, SA_ONSTACK, SA_NODEFER. */
const SA_FLAGS = 4 | 0x0800_0000 | 0x4000_0000;
const SIG_SETMASK = 2, SIGSET_BYTES = 128;
const SIGACTION_BYTES = 152, STACK_T_BYTES = 24;
/** Offsets in struct ucontext: the general registers, and in it RSP, RIP and EFL; the pointer to the FXSAVE image. */
const UC_GREGS = 40, UC_RSP = 0xa0, UC_RIP = 0xa8, UC_EFL = 0xb0, UC_FPREGS = 0xe0;
/** The order of the kernel's general registers, by register number; then RIP, flags, error code, vector, CR2. */
const CONTEXT_OF = [13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7] as const;
const CONTEXT_RIP = 16, CONTEXT_FLAGS = 17, CONTEXT_ERR = 19, CONTEXT_TRAP = 20, CONTEXT_CR2 = 22;
/** RFLAGS with nothing but what is always set, and IF. */
const PLAIN_FLAGS = 0x202;

/** True where {@link HostProcessor} can be made. */
export function hostIsSupported(): boolean {
  return Deno.build.os === "linux" && Deno.build.arch === "x86_64";
}

/** Bytes of machine code under construction. */
class Code {
  readonly bytes: number[] = [];
  get here(): number {
    return STUBS + this.bytes.length;
  }
  emit(...bytes: number[]): void {
    this.bytes.push(...bytes);
  }
  imm32(value: number): void {
    for (let i = 0; i < 4; i++) this.bytes.push((value >>> (8 * i)) & 0xff);
  }
  /** An instruction with ModRM.reg `reg` on an absolute address. */
  absolute(opcode: readonly number[], reg: number, address: number, wide = true): void {
    if (wide || reg > 7) this.emit((wide ? 0x48 : 0x40) | (reg > 7 ? 4 : 0));
    this.emit(...opcode, 4 | ((reg & 7) << 3), 0x25);
    this.imm32(address);
  }
  /** MOV of register `reg` to, or from, [rdx + disp32]. */
  contextMove(opcode: number, reg: number, disp: number): void {
    this.emit(0x48, opcode, 0x82 | (reg << 3));
    this.imm32(disp);
  }
  /** REP MOVSQ of `count` to `to`. */
  copy(to: number, count: number): void {
    this.emit(0xbf);
    this.imm32(to);
    this.emit(0xb9);
    this.imm32(count);
    this.emit(0xf3, 0x48, 0xa5);
  }
}

const RSP = 4, LOAD = [0x8b], STORE = [0x89], FXSAVE = [0x0f, 0xae], FXRSTOR = 1;

/** The stubs: code, and the addresses of its parts. */
function makeStubs(): { bytes: Uint8Array; enter: number; end: number; handler: number } {
  const code = new Code();
  const at = (offset: number) => CONTROL + offset;
  // In: keep what the caller's code needs, load everything, go.
  const enter = code.here;
  code.emit(0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57); // push rbx rbp r12 … r15
  code.absolute(STORE, RSP, at(C.hostStack));
  code.absolute(FXSAVE, 0, at(C.hostFx));
  code.absolute(FXSAVE, FXRSTOR, at(C.fx));
  code.absolute([0xff], 6, at(C.flags), false); // push
  code.emit(0x9d); // popfq
  for (let n = 0; n < 16; n++) code.absolute(LOAD, n, at(C.gpr + 8 * n));
  code.absolute([0xff], 4, at(C.entry), false); // jmp
  // Out: keep everything.
  const end = code.here;
  for (let n = 0; n < 16; n++) code.absolute(STORE, n, at(C.outGpr + 8 * n));
  code.absolute(LOAD, RSP, at(C.hostStack));
  code.emit(0x9c); // pushfq
  code.absolute([0x8f], 0, at(C.outFlags), false); // pop
  code.absolute(FXSAVE, 0, at(C.outFx));
  code.emit(0x31, 0xc0); // xor eax, eax
  code.absolute(STORE, 0, at(C.signalled));
  // Back to the caller, with its own flags (DF clear) and control words.
  const leave = code.here;
  code.emit(0x68);
  code.imm32(PLAIN_FLAGS);
  code.emit(0x9d); // popfq
  code.absolute(FXSAVE, FXRSTOR, at(C.hostFx));
  code.emit(0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b); // pop r15 … r12 rbp rbx
  code.emit(0x31, 0xc0, 0xc3); // xor eax, eax; ret
  // The signal handler (edi: signal, rdx: ucontext). What did not happen in a sequence (but in another thread) goes to whoever
  // had the signal before.
  const handler = code.here;
  code.contextMove(0x8b, 0, UC_RIP);
  code.emit(0x48, 0x2d); // sub rax, CODE
  code.imm32(CODE);
  code.emit(0x48, 0x3d); // cmp rax, CODE_BYTES
  code.imm32(CODE_BYTES);
  code.emit(0x72, 7); // jb
  code.emit(0xff, 0x24, 0xfd); // jmp [previous + rdi * 8]
  code.imm32(at(C.previous));
  // Ours: keep the context, and have the kernel return to `leave`.
  code.emit(0x48, 0x8d, 0x72, UC_GREGS); // lea rsi, [rdx + 40]
  code.copy(at(C.context), 23);
  code.contextMove(0x8b, 6, UC_FPREGS); // mov rsi, [rdx + fpregs]
  code.copy(at(C.outFx), 64);
  code.emit(0xb8); // mov eax, 1
  code.imm32(1);
  code.absolute(STORE, 0, at(C.signalled));
  code.absolute(LOAD, 0, at(C.hostStack));
  code.contextMove(0x89, 0, UC_RSP);
  code.emit(0xb8);
  code.imm32(leave);
  code.contextMove(0x89, 0, UC_RIP);
  code.emit(0xb8);
  code.imm32(PLAIN_FLAGS);
  code.contextMove(0x89, 0, UC_EFL);
  code.emit(0xc3);
  if (code.bytes.length > 0x800) throw new Error("The stubs have outgrown their half page");
  return { bytes: Uint8Array.from(code.bytes), enter, end, handler };
}

/** CPUID (leaf in the first register slot, subleaf in the second), results into the first four. A leaf function of its own. */
function cpuidBytes(): Uint8Array {
  const code = new Code();
  code.emit(0x53); // push rbx
  code.absolute(LOAD, 0, CONTROL + C.gpr, false);
  code.absolute(LOAD, 1, CONTROL + C.gpr + 8, false);
  code.emit(0x0f, 0xa2);
  code.absolute(STORE, 0, CONTROL + C.outGpr, false);
  code.absolute(STORE, 3, CONTROL + C.outGpr + 8, false);
  code.absolute(STORE, 1, CONTROL + C.outGpr + 16, false);
  code.absolute(STORE, 2, CONTROL + C.outGpr + 24, false);
  code.emit(0x5b, 0xc3);
  return Uint8Array.from(code.bytes);
}
const CPUID_AT = 0x800;

const STUB_CODE = makeStubs();
/** Where a sequence jumps to when it is through: the host leaves, a simulated processor finds INT3. */
export const SEQUENCE_END = STUB_CODE.end;

/** Runs sequences on the processor that this process runs on. */
export class HostProcessor {
  readonly #libc = Deno.dlopen("libc.so.6", LIBC);
  readonly #enter: () => void;
  readonly #cpuid: () => void;
  readonly #control: Uint32Array;
  readonly #code: Uint8Array;
  readonly #data: Uint32Array;
  readonly #fixed: Uint8Array;
  readonly #outData = new Uint32Array(DATA_BYTES / 4);
  readonly #outRegisters: Registers = new Uint32Array(REGISTER_WORDS);
  readonly #ours = new Uint8Array(SIGACTION_BYTES);
  readonly #before = SIGNALS.map(() => new Uint8Array(SIGACTION_BYTES));
  /** All signals but ours: a handler of somebody else's would find a sequence's stack pointer. */
  readonly #others = new Uint8Array(SIGSET_BYTES).fill(0xff);
  readonly #maskBefore = new Uint8Array(SIGSET_BYTES);
  readonly #ourStack = new Uint8Array(STACK_T_BYTES);
  readonly #stackBefore = new Uint8Array(STACK_T_BYTES);

  /** @throws {Error} when the region's addresses are taken. */
  constructor() {
    const { mmap } = this.#libc.symbols;
    if (Number(mmap(BigInt(REGION), BigInt(REGION_BYTES), PROT.NONE, MAP, -1, 0n)) !== REGION) {
      this.#libc.close();
      throw new Error(`Cannot map ${REGION_BYTES} bytes at ${REGION.toString(16)}: something else is there`);
    }
    this.#protect(CONTROL, CONTROL_BYTES, PROT.READ | PROT.WRITE);
    this.#protect(STUBS, STUBS_BYTES, PROT.READ | PROT.WRITE);
    this.#protect(SIGNAL_STACK, SIGNAL_STACK_BYTES, PROT.READ | PROT.WRITE);
    this.#protect(CODE, CODE_BYTES, PROT.READ | PROT.WRITE | PROT.EXEC);
    this.#protect(DATA, DATA_BYTES, PROT.READ | PROT.WRITE);
    this.#protect(FIXED, FIXED_BYTES, PROT.READ | PROT.WRITE);
    const stubs = bytesAt(STUBS, STUBS_BYTES);
    stubs.set(STUB_CODE.bytes);
    stubs.set(cpuidBytes(), CPUID_AT);
    this.#protect(STUBS, STUBS_BYTES, PROT.READ | PROT.EXEC);
    this.#control = new Uint32Array(bytesAt(CONTROL, CONTROL_BYTES).buffer);
    this.#code = bytesAt(CODE, CODE_BYTES);
    this.#data = new Uint32Array(bytesAt(DATA, DATA_BYTES).buffer);
    this.#fixed = bytesAt(FIXED, FIXED_BYTES);
    this.#enter = functionAt(STUB_CODE.enter);
    this.#cpuid = functionAt(STUBS + CPUID_AT);
    const action = new DataView(this.#ours.buffer);
    action.setBigUint64(0, BigInt(STUB_CODE.handler), true);
    action.setInt32(136, SA_FLAGS, true);
    for (const signal of SIGNALS) this.#others[(signal - 1) >> 3]! &= ~(1 << ((signal - 1) & 7));
    const stack = new DataView(this.#ourStack.buffer);
    stack.setBigUint64(0, BigInt(SIGNAL_STACK), true);
    stack.setBigUint64(16, BigInt(SIGNAL_STACK_BYTES), true);
  }

  #protect(address: number, bytes: number, rights: number): void {
    if (this.#libc.symbols.mprotect(BigInt(address), BigInt(bytes), rights) !== 0) {
      throw new Error(`Cannot set the rights of the memory at ${address.toString(16)}`);
    }
  }

  /** EAX, EBX, ECX, EDX of a CPUID leaf. */
  cpuid(leaf: number, subleaf: number): readonly [number, number, number, number] {
    this.#control[C.gpr / 4] = leaf;
    this.#control[C.gpr / 4 + 2] = subleaf;
    this.#cpuid();
    const at = C.outGpr / 4;
    return [this.#control[at]!, this.#control[at + 2]!, this.#control[at + 4]!, this.#control[at + 6]!];
  }

  /** Sets the content of the read-only page; it is then present and not writable. */
  setFixed(bytes: Uint8Array): void {
    this.#protect(FIXED, FIXED_BYTES, PROT.READ | PROT.WRITE);
    this.#fixed.set(bytes);
    this.#protect(FIXED, FIXED_BYTES, PROT.READ);
  }

  /** Takes the signals over while `body` runs sequences. */
  withSignals(body: () => void): void {
    const { sigaction, sigaltstack, pthread_sigmask } = this.#libc.symbols;
    pthread_sigmask(SIG_SETMASK, this.#others, this.#maskBefore);
    sigaltstack(this.#ourStack, this.#stackBefore);
    SIGNALS.forEach((signal, i) => {
      const before = this.#before[i]!;
      sigaction(signal, this.#ours, before);
      new Uint8Array(this.#control.buffer).set(before.subarray(0, 8), C.previous + 8 * signal);
    });
    try {
      body();
    } finally {
      SIGNALS.forEach((signal, i) => sigaction(signal, this.#before[i]!, new Uint8Array(SIGACTION_BYTES)));
      sigaltstack(this.#stackBefore, new Uint8Array(STACK_T_BYTES));
      pthread_sigmask(SIG_SETMASK, this.#maskBefore, new Uint8Array(SIGSET_BYTES));
    }
  }

  /** Runs `code` at `address`; only inside {@link withSignals}. What is returned holds until the next run. */
  run(code: Uint8Array, address: number, registers: Registers, data: Uint32Array): Outcome {
    this.#code.set(code, address - CODE);
    this.#data.set(data);
    const control = this.#control;
    control.set(registers.subarray(0, 32), C.gpr / 4);
    control[C.flags / 4] = registers[W.flags]!;
    control[C.entry / 4] = address;
    toFx(registers, control, C.fx / 4);
    this.#enter();
    this.#outData.set(this.#data);
    const out = this.#outRegisters;
    fromFx(control, C.outFx / 4, out);
    if (control[C.signalled / 4] === 0) {
      out.set(control.subarray(C.outGpr / 4, C.outGpr / 4 + 32));
      out[W.flags] = control[C.outFlags / 4]!;
      const ending = { vector: -1, code: 0, rip: SEQUENCE_END, cr2: 0 };
      return { ending, registers: out, data: this.#outData };
    }
    const at = C.context / 4;
    for (let n = 0; n < 16; n++) {
      out[2 * n] = control[at + 2 * CONTEXT_OF[n]!]!;
      out[2 * n + 1] = control[at + 2 * CONTEXT_OF[n]! + 1]!;
    }
    out[W.flags] = control[at + 2 * CONTEXT_FLAGS]!;
    const vector = control[at + 2 * CONTEXT_TRAP]!;
    return {
      ending: {
        vector,
        code: control[at + 2 * CONTEXT_ERR]!,
        rip: control[at + 2 * CONTEXT_RIP]!,
        cr2: vector === 14 ? control[at + 2 * CONTEXT_CR2]! : 0,
      },
      registers: out,
      data: this.#outData,
    };
  }

  /** Gives the region back. No sequence may be run any more. */
  close(): void {
    this.#libc.symbols.munmap(BigInt(REGION), BigInt(REGION_BYTES));
    this.#libc.close();
  }
}

const STUB = { parameters: [], result: "void" } as const;

function pointerTo<T>(address: number): Deno.PointerObject<T> {
  return Deno.UnsafePointer.create<T>(BigInt(address))!;
}
function bytesAt(address: number, bytes: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointerTo(address), bytes));
}
function functionAt(address: number): () => void {
  const f = new Deno.UnsafeFnPointer(pointerTo<typeof STUB>(address), STUB);
  return () => f.call();
}
