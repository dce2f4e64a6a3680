/**
 * Expressions over the emitter, for wasm functions that are written by hand: page walks, event delivery. An expression is a value that
 * writes itself when it is used; statements are methods of the function being written.
 *
 * Room: `hw/engine/wasm/`; imports emit.ts.
 *
 * A number stands for an i32 constant, a bigint for an i64 constant. Operands are written left to right, where they stand: a load
 * reads memory at the point of its use.
 *
 * @module
 */
import { CodeWriter, type ModuleWriter, OP, T, type ValueType } from "./emit.ts";

/** A value of a wasm function. */
export interface Expr {
  /** Its type. */
  readonly type: ValueType;
  /** Writes the code that leaves it on the stack. */
  emit(w: CodeWriter): void;
}
/** An expression or a constant. */
export type Value = Expr | number | bigint;

/** A local variable or parameter. */
export class Local implements Expr {
  /** @param index Its number, parameters first. */
  constructor(readonly type: ValueType, readonly index: number) {}
  emit(w: CodeWriter): void {
    w.localGet(this.index);
  }
}

/** The expression of a constant, or the expression itself. */
function expr(value: Value): Expr {
  if (typeof value === "number") return { type: T.i32, emit: (w) => w.i32Const(value) };
  if (typeof value === "bigint") return { type: T.i64, emit: (w) => w.i64Const(value) };
  return value;
}

/** Two operands of one type, with the instruction for i32 or i64. */
function binary(i32: number, i64: number, compares = false): (a: Value, b: Value) => Expr {
  return (a, b) => {
    const x = expr(a), y = expr(b);
    if (x.type !== y.type) throw new Error("Operands of two types");
    return {
      type: compares ? T.i32 : x.type,
      emit(w) {
        x.emit(w);
        y.emit(w);
        w.op(x.type === T.i64 ? i64 : i32);
      },
    };
  };
}

function unary(op: number, type: ValueType): (a: Value) => Expr {
  return (a) => ({
    type,
    emit(w) {
      expr(a).emit(w);
      w.op(op);
    },
  });
}

function loads(op: number, type: ValueType): (address: Value, offset?: number) => Expr {
  return (address, offset = 0) => ({
    type,
    emit(w) {
      expr(address).emit(w);
      w.memory(op, offset);
    },
  });
}

/** Sum. */
export const add = binary(OP.i32_add, OP.i64_add);
/** Difference. */
export const sub = binary(OP.i32_sub, OP.i64_sub);
/** Product. */
export const mul = binary(OP.i32_mul, OP.i64_mul);
/** Bits of both. */
export const and = binary(OP.i32_and, OP.i64_and);
/** Bits of either. */
export const or = binary(OP.i32_or, OP.i64_or);
/** Bits of one of the two. */
export const xor = binary(OP.i32_xor, OP.i64_xor);
/** Left shift. */
export const shl = binary(OP.i32_shl, OP.i64_shl);
/** Right shift, zeros coming in. */
export const shrU = binary(OP.i32_shr_u, OP.i64_shr_u);
/** Right shift, the sign coming in. */
export const shrS = binary(OP.i32_shr_s, OP.i64_shr_s);
/** 1 if equal. */
export const eq = binary(OP.i32_eq, OP.i64_eq, true);
/** 1 if not equal. */
export const ne = binary(OP.i32_ne, OP.i64_ne, true);
/** 1 if less, unsigned. */
export const ltU = binary(OP.i32_lt_u, OP.i64_lt_u, true);
/** 1 if less, signed. */
export const ltS = binary(OP.i32_lt_s, OP.i64_lt_s, true);
/** 1 if greater, signed. */
export const gtS = binary(OP.i32_gt_s, OP.i64_gt_s, true);
/** 1 if greater, unsigned. */
export const gtU = binary(OP.i32_gt_u, OP.i64_gt_u, true);
/** 1 if greater or equal, unsigned. */
export const geU = binary(OP.i32_ge_u, OP.i64_ge_u, true);
/** 1 if greater or equal, signed. */
export const geS = binary(OP.i32_ge_s, OP.i64_ge_s, true);
/** Low half of an i64. */
export const wrap = unary(OP.i32_wrap_i64, T.i32);
/** An i32 as i64, zeros above. */
export const extendU = unary(OP.i64_extend_i32_u, T.i64);
/** An i32 as i64, its sign above. */
export const extendS = unary(OP.i64_extend_i32_s, T.i64);
/** Low byte, word or doubleword of an i64, its sign above. */
export const extend32S = unary(OP.i64_extend32_s, T.i64);
/** Bits that are 1, of an i32. */
export const popcnt = unary(OP.i32_popcnt, T.i32);
/** Zeros below the lowest 1 of an i32. */
export const ctz = unary(OP.i32_ctz, T.i32);
/** 32 bits from memory. */
export const load32 = loads(OP.i32_load, T.i32);
/** A byte from memory, zero-extended to i32. */
export const load8 = loads(OP.i32_load8_u, T.i32);
/** 16 bits from memory, zero-extended to i32. */
export const load16 = loads(OP.i32_load16_u, T.i32);
/** 64 bits from memory. */
export const load64 = loads(OP.i64_load, T.i64);

/** 1 if zero, of an i32 or i64. */
export function eqz(a: Value): Expr {
  const x = expr(a);
  return unary(x.type === T.i64 ? OP.i64_eqz : OP.i32_eqz, T.i32)(x);
}
/** `a` if the i32 `c` is not zero, else `b`; both are computed. */
export function select(c: Value, a: Value, b: Value): Expr {
  const x = expr(a), y = expr(b);
  return {
    type: x.type,
    emit(w) {
      x.emit(w);
      y.emit(w);
      expr(c).emit(w);
      w.op(OP.select);
    },
  };
}
/** An i64 from its halves, i32 each. */
export function join(low: Value, high: Value): Expr {
  return or(extendU(low), shl(extendU(high), 32n));
}
/** The upper half of an i64. */
export function upper(a: Value): Expr {
  return wrap(shrU(a, 32n));
}
/** 1 if any of these bits of `a` is 1. */
export function any(a: Value, bits: number | bigint): Expr {
  const masked = and(a, bits);
  return typeof bits === "bigint" ? ne(masked, 0n) : masked;
}
/** 1 if none of these bits of `a` is 1. */
export function none(a: Value, bits: number | bigint): Expr {
  return eqz(and(a, bits));
}

/** A function of the module that is written, or an import. */
export interface Callee {
  /** Number in the module. */
  readonly index: number;
  /** Type of its result; undefined for none. */
  readonly result: ValueType | undefined;
}
/** A call, as a value. */
export function call(callee: Callee, ...args: Value[]): Expr {
  return {
    type: callee.result ?? T.i32,
    emit(w) {
      for (const arg of args) expr(arg).emit(w);
      w.call(callee.index);
    },
  };
}

/** A function being written. */
export class Body {
  /** Its code. */
  readonly w = new CodeWriter();
  /** Types of its locals. */
  readonly locals: ValueType[] = [];
  /** Its parameters. */
  readonly parameters: readonly Local[];

  constructor(readonly types: readonly ValueType[], readonly result: ValueType | undefined) {
    this.parameters = types.map((type, i) => new Local(type, i));
  }

  /** Parameter `i`. */
  parameter(i: number): Local {
    return this.parameters[i]!;
  }
  /** A new local, holding `value` if that is given. */
  local(type: ValueType, value?: Value): Local {
    this.locals.push(type);
    const local = new Local(type, this.types.length + this.locals.length - 1);
    if (value !== undefined) this.set(local, value);
    return local;
  }
  /** A new local with this value. */
  let(value: Value): Local {
    return this.local(expr(value).type, value);
  }
  /** Assigns. */
  set(local: Local, value: Value): void {
    const x = expr(value);
    if (x.type !== local.type) throw new Error("A value of another type than the local");
    x.emit(this.w);
    this.w.localSet(local.index);
  }
  /** Carries out `then` if `c` is not zero, else `otherwise`. */
  if(c: Value, then: () => void, otherwise?: () => void): void {
    expr(c).emit(this.w);
    this.w.open(OP.if);
    then();
    if (otherwise !== undefined) {
      this.w.op(OP.else);
      otherwise();
    }
    this.w.close();
  }
  /** A block whose end `label` names. */
  block(inside: (label: number) => void): void {
    const label = this.w.open(OP.block);
    inside(label);
    this.w.close();
  }
  /** A loop whose start `label` names. */
  loop(inside: (label: number) => void): void {
    const label = this.w.open(OP.loop);
    inside(label);
    this.w.close();
  }
  /** Branches. */
  br(label: number): void {
    this.w.branch(OP.br, label);
  }
  /** Branches if `c` is not zero. */
  brIf(label: number, c: Value): void {
    expr(c).emit(this.w);
    this.w.branch(OP.br_if, label);
  }
  /** Returns. */
  return(value?: Value): void {
    if (value !== undefined) expr(value).emit(this.w);
    this.w.op(OP.return);
  }
  /** Calls for the effect. */
  call(callee: Callee, ...args: Value[]): void {
    call(callee, ...args).emit(this.w);
    if (callee.result !== undefined) this.w.op(OP.drop);
  }
  #store(op: number, address: Value, offset: number, value: Value): void {
    expr(address).emit(this.w);
    expr(value).emit(this.w);
    this.w.memory(op, offset);
  }
  /** Stores a byte. */
  store8(address: Value, offset: number, value: Value): void {
    this.#store(OP.i32_store8, address, offset, value);
  }
  /** Stores 16 bits. */
  store16(address: Value, offset: number, value: Value): void {
    this.#store(OP.i32_store16, address, offset, value);
  }
  /** Stores 32 bits. */
  store32(address: Value, offset: number, value: Value): void {
    this.#store(OP.i32_store, address, offset, value);
  }
  /** Stores 64 bits. */
  store64(address: Value, offset: number, value: Value): void {
    this.#store(OP.i64_store, address, offset, value);
  }
  /** Copies `bytes` bytes as memmove does. */
  copy(to: Value, from: Value, bytes: Value): void {
    for (const value of [to, from, bytes]) expr(value).emit(this.w);
    this.w.bulkMemory(10, 2);
  }
  /** Fills `bytes` bytes with the low byte of `value`. */
  fill(to: Value, value: Value, bytes: Value): void {
    for (const operand of [to, value, bytes]) expr(operand).emit(this.w);
    this.w.bulkMemory(11, 1);
  }
  /** Adds `n` to a double in memory. */
  count(address: Value, offset: number, n = 1): void {
    const w = this.w;
    expr(address).emit(w);
    expr(address).emit(w);
    w.memory(OP.f64_load, offset);
    w.f64Const(n);
    w.op(OP.f64_add);
    w.memory(OP.f64_store, offset);
  }
  /** Puts the function into the module; the end can't be reached without {@link return} if it has a result. */
  define(module: ModuleWriter, name?: string): Callee {
    if (this.result !== undefined) this.w.op(OP.unreachable);
    this.w.op(OP.end);
    const type = module.type(this.types, this.result === undefined ? [] : [this.result]);
    const index = module.define(type, this.locals, this.w.bytes());
    if (name !== undefined) module.exportFunction(name, index);
    return { index, result: this.result };
  }
}
