/**
 * A small WebAssembly emitter: bytes of function bodies and of modules, nothing more.
 *
 * Room: `hw/engine/wasm/`; imports state.ts. Encodings are those of the WebAssembly core specification, "Binary Format".
 *
 * @module
 */
import { RAM_BASE } from "../../state.ts";

/** Value types. */
export const T = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b, void: 0x40 } as const;
/** A value type's code. */
export type ValueType = 0x7f | 0x7e | 0x7d | 0x7c | 0x7b;

/** One-byte instruction codes. */
export const OP = {
  unreachable: 0x00,
  block: 0x02,
  loop: 0x03,
  if: 0x04,
  else: 0x05,
  end: 0x0b,
  br: 0x0c,
  br_if: 0x0d,
  br_table: 0x0e,
  return: 0x0f,
  call: 0x10,
  call_indirect: 0x11,
  drop: 0x1a,
  select: 0x1b,
  local_get: 0x20,
  local_set: 0x21,
  local_tee: 0x22,
  i32_load: 0x28,
  i64_load: 0x29,
  f32_load: 0x2a,
  f64_load: 0x2b,
  i32_load8_u: 0x2d,
  i32_load16_u: 0x2f,
  i64_load8_s: 0x30,
  i64_load8_u: 0x31,
  i64_load16_s: 0x32,
  i64_load16_u: 0x33,
  i64_load32_s: 0x34,
  i64_load32_u: 0x35,
  i32_store: 0x36,
  i64_store: 0x37,
  f32_store: 0x38,
  f64_store: 0x39,
  i32_store8: 0x3a,
  i32_store16: 0x3b,
  i64_store8: 0x3c,
  i64_store16: 0x3d,
  i64_store32: 0x3e,
  i32_const: 0x41,
  i64_const: 0x42,
  f64_const: 0x44,
  i32_eqz: 0x45,
  i32_eq: 0x46,
  i32_ne: 0x47,
  i32_lt_s: 0x48,
  i32_lt_u: 0x49,
  i32_gt_s: 0x4a,
  i32_gt_u: 0x4b,
  i32_le_s: 0x4c,
  i32_le_u: 0x4d,
  i32_ge_s: 0x4e,
  i32_ge_u: 0x4f,
  i64_eqz: 0x50,
  i64_eq: 0x51,
  i64_ne: 0x52,
  i64_lt_s: 0x53,
  i64_lt_u: 0x54,
  i64_gt_s: 0x55,
  i64_gt_u: 0x56,
  i64_le_s: 0x57,
  i64_le_u: 0x58,
  i64_ge_s: 0x59,
  i64_ge_u: 0x5a,
  f32_eq: 0x5b,
  f32_ne: 0x5c,
  f32_lt: 0x5d,
  f32_gt: 0x5e,
  f32_le: 0x5f,
  f32_ge: 0x60,
  f64_eq: 0x61,
  f64_ne: 0x62,
  f64_lt: 0x63,
  f64_gt: 0x64,
  f64_le: 0x65,
  f64_ge: 0x66,
  i32_clz: 0x67,
  i32_ctz: 0x68,
  i32_popcnt: 0x69,
  i32_add: 0x6a,
  i32_sub: 0x6b,
  i32_mul: 0x6c,
  i32_and: 0x71,
  i32_or: 0x72,
  i32_xor: 0x73,
  i32_shl: 0x74,
  i32_shr_s: 0x75,
  i32_shr_u: 0x76,
  i32_rotl: 0x77,
  i32_rotr: 0x78,
  i64_clz: 0x79,
  i64_ctz: 0x7a,
  i64_popcnt: 0x7b,
  i64_add: 0x7c,
  i64_sub: 0x7d,
  i64_mul: 0x7e,
  i64_div_s: 0x7f,
  i64_div_u: 0x80,
  i64_rem_s: 0x81,
  i64_rem_u: 0x82,
  i64_and: 0x83,
  i64_or: 0x84,
  i64_xor: 0x85,
  i64_shl: 0x86,
  i64_shr_s: 0x87,
  i64_shr_u: 0x88,
  i64_rotl: 0x89,
  i64_rotr: 0x8a,
  f32_abs: 0x8b,
  f32_neg: 0x8c,
  f32_sqrt: 0x91,
  f32_add: 0x92,
  f32_sub: 0x93,
  f32_mul: 0x94,
  f32_div: 0x95,
  f64_abs: 0x99,
  f64_neg: 0x9a,
  f64_sqrt: 0x9f,
  f64_add: 0xa0,
  f64_sub: 0xa1,
  f64_mul: 0xa2,
  f64_div: 0xa3,
  i32_wrap_i64: 0xa7,
  i64_extend_i32_s: 0xac,
  i64_extend_i32_u: 0xad,
  i64_reinterpret_f64: 0xbd,
  i32_reinterpret_f32: 0xbc,
  f32_reinterpret_i32: 0xbe,
  f64_reinterpret_i64: 0xbf,
  i64_extend8_s: 0xc2,
  i64_extend16_s: 0xc3,
  i64_extend32_s: 0xc4,
} as const;

/** Pages of 64 KiB in the smallest memory. */
const MEMORY_PAGES_MIN = RAM_BASE / 0x1_0000;
/** Pages of 64 KiB in a 4-GiB memory. */
const MEMORY_PAGES_MAX = 0x1_0000;
/** Alignment hint (log2) by load and store opcode; a hint only, accesses may be unaligned. */
const NO_ALIGN = 0;

/** Writes one function body, or any other run of bytes. */
export class CodeWriter {
  #bytes = new Uint8Array(1024);
  #length = 0;
  /** Nesting depth of blocks, for {@link branch}. */
  depth = 0;

  get length(): number {
    return this.#length;
  }
  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }
  byte(value: number): void {
    if (this.#length === this.#bytes.length) {
      const larger = new Uint8Array(this.#bytes.length * 2);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes[this.#length++] = value;
  }
  append(bytes: Uint8Array): void {
    const end = this.#length + bytes.length;
    if (end > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(end, this.#bytes.length * 2));
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes.set(bytes, this.#length);
    this.#length = end;
  }
  /** Unsigned LEB128 of a number below 2^32. */
  u32(value: number): void {
    let rest = value >>> 0;
    while (rest >= 0x80) {
      this.byte((rest & 0x7f) | 0x80);
      rest >>>= 7;
    }
    this.byte(rest);
  }
  /** Signed LEB128 of a 32-bit number. */
  s32(value: number): void {
    let rest = value | 0;
    for (;;) {
      const low = rest & 0x7f;
      rest >>= 7;
      if ((rest === 0 && !(low & 0x40)) || (rest === -1 && (low & 0x40))) {
        this.byte(low);
        return;
      }
      this.byte(low | 0x80);
    }
  }
  /** Signed LEB128 of a 64-bit number. */
  s64(value: bigint): void {
    let rest = BigInt.asIntN(64, value);
    if (rest >= -0x4000_0000n && rest < 0x4000_0000n) return this.s32(Number(rest));
    for (;;) {
      const low = Number(rest & 0x7fn);
      rest >>= 7n;
      if ((rest === 0n && !(low & 0x40)) || (rest === -1n && (low & 0x40))) {
        this.byte(low);
        return;
      }
      this.byte(low | 0x80);
    }
  }
  op(code: number): void {
    this.byte(code);
  }
  /** A 128-bit SIMD instruction (prefix FDH). */
  simd(code: number): void {
    this.byte(0xfd);
    this.u32(code);
  }
  i32Const(value: number): void {
    this.byte(OP.i32_const);
    this.s32(value);
  }
  i64Const(value: bigint): void {
    this.byte(OP.i64_const);
    this.s64(value);
  }
  f64Const(value: number): void {
    this.byte(OP.f64_const);
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setFloat64(0, value, true);
    this.append(bytes);
  }
  v128Const(low: bigint, high: bigint): void {
    this.simd(12);
    for (const half of [low, high]) {
      for (let i = 0n; i < 64n; i += 8n) this.byte(Number((half >> i) & 0xffn));
    }
  }
  localGet(index: number): void {
    this.byte(OP.local_get);
    this.u32(index);
  }
  localSet(index: number): void {
    this.byte(OP.local_set);
    this.u32(index);
  }
  localTee(index: number): void {
    this.byte(OP.local_tee);
    this.u32(index);
  }
  /** A load or store with a constant offset. */
  memory(code: number, offset = 0): void {
    this.byte(code);
    this.u32(NO_ALIGN);
    this.u32(offset);
  }
  /** A SIMD load or store (v128.load = 0, v128.store = 11, v128.load32_zero = 92, v128.load64_zero = 93). */
  simdMemory(code: number, offset = 0): void {
    this.simd(code);
    this.u32(NO_ALIGN);
    this.u32(offset);
  }
  /** memory.copy = 10, memory.fill = 11, with their memory indices, all 0. */
  bulkMemory(code: 10 | 11, memories: 1 | 2): void {
    this.byte(0xfc);
    this.u32(code);
    for (let i = 0; i < memories; i++) this.byte(0);
  }
  call(index: number): void {
    this.byte(OP.call);
    this.u32(index);
  }
  /** Opens a block; returns its label. */
  open(code: 0x02 | 0x03 | 0x04, type: number = T.void): number {
    this.byte(code);
    this.byte(type);
    return ++this.depth;
  }
  close(): void {
    this.byte(OP.end);
    this.depth--;
  }
  /** `br` or `br_if` to a label that {@link open} gave. */
  branch(code: 0x0c | 0x0d, label: number): void {
    this.byte(code);
    this.u32(this.depth - label);
  }
}

/** A function of a module being written. */
interface FunctionBody {
  readonly type: number;
  readonly locals: readonly ValueType[];
  readonly code: Uint8Array;
}

/** Writes a module: imports of one memory, one table and functions; defined functions; exports. */
export class ModuleWriter {
  readonly #types: string[] = [];
  readonly #typeBytes: Uint8Array[] = [];
  readonly #imports: { name: string; type: number }[] = [];
  readonly #functions: FunctionBody[] = [];
  readonly #exports: { name: string; index: number }[] = [];
  /** @param memoryPages Size of the memory that it imports, in pages of 64 KiB; without it any memory will do, at a price in speed. */
  constructor(
    readonly importsTable: boolean,
    readonly memoryPages?: number,
  ) {}

  /** Index of a function type. */
  type(parameters: readonly ValueType[], results: readonly ValueType[]): number {
    const key = `${parameters.join()}>${results.join()}`;
    const known = this.#types.indexOf(key);
    if (known >= 0) return known;
    this.#types.push(key);
    this.#typeBytes.push(
      Uint8Array.of(0x60, parameters.length, ...parameters, results.length, ...results),
    );
    return this.#types.length - 1;
  }
  /** Imports function `name`; all imports come before the first {@link define}. */
  importFunction(name: string, parameters: readonly ValueType[], results: readonly ValueType[]): number {
    const known = this.#imports.findIndex((entry) => entry.name === name);
    if (known >= 0) return known;
    if (this.#functions.length > 0) throw new Error(`Import of ${name} after a definition`);
    this.#imports.push({ name, type: this.type(parameters, results) });
    return this.#imports.length - 1;
  }
  /** Defines a function; `code` ends with its `end`. */
  define(type: number, locals: readonly ValueType[], code: Uint8Array): number {
    this.#functions.push({ type, locals, code });
    return this.#imports.length + this.#functions.length - 1;
  }
  exportFunction(name: string, index: number): void {
    this.#exports.push({ name, index });
  }

  /** The module's bytes. */
  finish(): Uint8Array<ArrayBuffer> {
    const out = new CodeWriter();
    out.append(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0));
    section(out, 1, (w) => {
      w.u32(this.#typeBytes.length);
      for (const bytes of this.#typeBytes) w.append(bytes);
    });
    section(out, 2, (w) => {
      w.u32(this.#imports.length + 1 + (this.importsTable ? 1 : 0));
      name(w, "m");
      name(w, "memory");
      w.byte(2);
      w.byte(1);
      w.u32(this.memoryPages ?? MEMORY_PAGES_MIN);
      w.u32(this.memoryPages ?? MEMORY_PAGES_MAX);
      if (this.importsTable) {
        name(w, "m");
        name(w, "table");
        w.append(Uint8Array.of(1, 0x70, 0));
        w.u32(0);
      }
      for (const entry of this.#imports) {
        name(w, "f");
        name(w, entry.name);
        w.byte(0);
        w.u32(entry.type);
      }
    });
    section(out, 3, (w) => {
      w.u32(this.#functions.length);
      for (const body of this.#functions) w.u32(body.type);
    });
    section(out, 7, (w) => {
      w.u32(this.#exports.length);
      for (const entry of this.#exports) {
        name(w, entry.name);
        w.byte(0);
        w.u32(entry.index);
      }
    });
    section(out, 10, (w) => {
      w.u32(this.#functions.length);
      for (const body of this.#functions) {
        const inner = new CodeWriter();
        writeLocals(inner, body.locals);
        inner.append(body.code);
        w.u32(inner.length);
        w.append(inner.bytes());
      }
    });
    return out.bytes().slice();
  }
}

function section(out: CodeWriter, id: number, fill: (w: CodeWriter) => void): void {
  const inner = new CodeWriter();
  fill(inner);
  out.byte(id);
  out.u32(inner.length);
  out.append(inner.bytes());
}

function name(w: CodeWriter, text: string): void {
  w.u32(text.length);
  for (let i = 0; i < text.length; i++) w.byte(text.charCodeAt(i));
}

function writeLocals(w: CodeWriter, locals: readonly ValueType[]): void {
  const runs: { type: ValueType; count: number }[] = [];
  for (const type of locals) {
    const last = runs[runs.length - 1];
    if (last && last.type === type) last.count++;
    else runs.push({ type, count: 1 });
  }
  w.u32(runs.length);
  for (const run of runs) {
    w.u32(run.count);
    w.byte(run.type);
  }
}
