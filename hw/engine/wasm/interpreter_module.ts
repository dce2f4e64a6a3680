/**
 * Writes the interpreter: one wasm function that switches over decoded records (DESIGN 2.2), and the small
 * modules of called handlers.
 *
 * Room: `hw/engine/wasm/`; imports the builder and `hw/isa/`. Who decides which forms stand inline, and who writes records, is
 * `hw/engine/code_cache.ts`.
 *
 * The function's shape: a loop around a `br_table` on the record's handler number; every handler falls to its end with
 * `ptr` advanced, or leaves by a shared tail (jump, end, again, fault). Instructions are counted per straight line: records stand one
 * after the other, so the distance from `entry` to `ptr` is the count.
 *
 * @module
 */
import {
  BLOCK_MAX,
  EXIT_BUDGET,
  EXIT_END,
  EXIT_FAULT,
  EXIT_LOOKUP,
  EXIT_STOP,
  FTLB_FETCH,
  REC,
  RECORD_BYTES,
  S,
} from "../../state.ts";
import { describe } from "../../isa/prologue.ts";
import type { Form } from "../../isa/form.ts";
import { CodeWriter, ModuleWriter, OP, T } from "./emit.ts";
import { type Effects, type Exits, P } from "./base.ts";
import { WasmBuilder } from "./builder.ts";

/** Numbers of the handlers that are not instructions. */
export const PSEUDO = {
  /** Calls the handler in the table slot named by the record. */
  called: 0,
  /** Leaves with EXIT_STOP: the end of a run of step records. */
  stop: 1,
  /** Goes to the record in `disp`, uncounted. */
  link: 2,
  /** Leaves with EXIT_LOOKUP at this record's IP: not decoded, or no longer valid. */
  lookup: 3,
  /** Goes on at the first byte of the next page, uncounted. */
  nextPage: 4,
  /** Raises the exception whose vector is in r0, with error code r1 if r2 = 1. */
  exception: 5,
  /** Number of the first instruction handler. */
  first: 6,
} as const;

/** What a called handler returns instead of the next record's address. */
const CALLED = { fault: 0, jump: 1, end: 2, again: 3, resync: 4 } as const;

/** One handler to write: one form, or two fused. */
export interface InlineHandler {
  readonly parts: readonly { readonly form: Form; readonly hasIndex: boolean }[];
  /** The variant whose flags nobody sees. */
  readonly flagsAreDead?: boolean;
}

const RUN_PARAMETERS = 6; // base, ptr, entry, budget, ctx, fetch
const FETCH = 5;
const CALLED_PARAMETERS = [T.i32, T.i32, T.i32, T.i32, T.i32] as const;

/** A module's bytes and the procedures it imports. */
export interface WrittenModule {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly procedures: readonly string[];
  /** What each handler does, in order. */
  readonly effects: readonly Effects[];
}

/** Writes the module with the switch; exports `run(base, ptr, entry, budget, ctx, fetch): exit code`. */
export function writeInterpreter(handlers: readonly InlineHandler[]): WrittenModule {
  // Imports must be known before the function is defined, so the body is written first.
  const module = new ModuleWriter(true);
  const builder = new WasmBuilder(module, RUN_PARAMETERS);
  const calledType = module.type(CALLED_PARAMETERS, [T.i32]);
  const w = new CodeWriter();
  builder.w = w;
  const ip = builder.newLocal(T.i64);
  const target = builder.newLocal(T.i32);
  const slot = builder.newLocal(T.i32);
  builder.reserveLocals();

  const loop = w.open(OP.loop);
  const fault = w.open(OP.block);
  const end = w.open(OP.block);
  const leave = w.open(OP.block);
  const again = w.open(OP.block);
  const jumped = w.open(OP.block);
  const jump = w.open(OP.block);
  const resync = w.open(OP.block);
  const direct = w.open(OP.block);
  const exits: Exits = {
    inline: true,
    fault: (c) => c.branch(OP.br, fault),
    faultIf: (c) => c.branch(OP.br_if, fault),
    jump: (c) => {
      c.localSet(ip);
      c.branch(OP.br, jump);
    },
    jumpDirect: (c) => c.branch(OP.br, direct),
    end: (c) => c.branch(OP.br, end),
    resync: (c) => c.branch(OP.br, resync),
    again: (c) => c.branch(OP.br, again),
    next: (c) => {
      pushNext(c);
      c.localSet(P.ptr);
      c.branch(OP.br, loop);
    },
  };

  const count = PSEUDO.first + handlers.length;
  for (let i = 0; i < count; i++) w.open(OP.block);
  w.localGet(P.ptr);
  w.memory(OP.i32_load16_u, REC.handler);
  w.op(OP.br_table);
  w.u32(count - 1);
  for (let i = 0; i < count; i++) w.u32(i);

  const openHandler = () => w.close();
  // called
  openHandler();
  for (const index of [P.base, P.ptr, P.entry, P.budget, P.ctx]) w.localGet(index);
  w.localGet(P.ptr);
  w.memory(OP.i32_load16_u, REC.rare);
  w.op(OP.call_indirect);
  w.u32(calledType);
  w.u32(0);
  w.localTee(target);
  w.i32Const(CALLED.resync);
  w.op(OP.i32_gt_u);
  w.open(OP.if);
  w.localGet(target);
  w.localSet(P.ptr);
  w.branch(OP.br, loop);
  w.close();
  w.localGet(P.base);
  w.memory(OP.i64_load, S.RIP);
  w.localSet(ip);
  w.localGet(target);
  w.op(OP.br_table);
  w.u32(4);
  for (const label of [fault, jump, end, again, resync]) w.u32(w.depth - label);
  // stop
  openHandler();
  storeRip(w, () => pushRecordIp(w));
  storeRemaining(w, 0);
  w.i32Const(EXIT_STOP);
  w.op(OP.return);
  // link
  openHandler();
  countLine(w, 0);
  w.localGet(P.ptr);
  w.memory(OP.i32_load, REC.disp);
  w.localTee(P.ptr);
  w.localSet(P.entry);
  continueIfBudget(w, loop);
  leaveAtRecord(w, EXIT_BUDGET);
  // lookup
  openHandler();
  storeRip(w, () => pushRecordIp(w));
  storeRemaining(w, 0);
  w.localGet(P.base);
  w.localGet(P.ptr);
  w.memory(OP.i32_store, S.EXITRECORD);
  w.i32Const(EXIT_LOOKUP);
  w.op(OP.return);
  // nextPage
  openHandler();
  countLine(w, 0);
  w.localGet(P.base);
  w.memory(OP.i64_load, S.RIPPAGE);
  w.i64Const(4096n);
  w.op(OP.i64_add);
  w.localSet(ip);
  w.branch(OP.br, jumped);
  // exception
  openHandler();
  w.localGet(P.base);
  w.localGet(P.ptr);
  w.memory(OP.i32_load16_u, REC.r0);
  w.memory(OP.i32_store, S.FAULTVECTOR);
  w.localGet(P.base);
  w.localGet(P.ptr);
  w.memory(OP.i32_load16_u, REC.r1);
  w.i32Const(-1);
  w.localGet(P.ptr);
  w.memory(OP.i32_load16_u, REC.r2);
  w.op(OP.select);
  w.memory(OP.i32_store, S.FAULTCODE);
  w.localGet(P.base);
  w.i32Const(EXIT_FAULT);
  w.memory(OP.i32_store, S.EXIT);
  w.branch(OP.br, fault);

  const effects = handlers.map((handler) => {
    openHandler();
    return writeHandler(builder, w, handler, exits);
  });

  w.close(); // direct: count, follow the link or compute the target
  countLine(w, 1);
  w.localGet(P.ptr);
  w.memory(OP.i32_load, REC.disp);
  w.localTee(target);
  w.open(OP.if);
  w.localGet(target);
  w.localTee(P.ptr);
  w.localSet(P.entry);
  continueIfBudget(w, loop);
  leaveAtRecord(w, EXIT_BUDGET);
  w.close();
  w.localGet(P.base);
  w.memory(OP.i64_load, S.RIPPAGE);
  w.localGet(P.ptr);
  w.memory(OP.i64_load, REC.imm);
  w.op(OP.i64_add);
  w.localSet(ip);
  writeDirectCanonicalCheck(w, ip, fault);
  w.branch(OP.br, jumped);
  w.close(); // resync: count, then a jump in the context that is in force now
  countLine(w, 1);
  w.localGet(P.base);
  w.memory(OP.i32_load, S.CODEMODE);
  w.i32Const(2);
  w.op(OP.i32_ne);
  w.branch(OP.br_if, leave);
  w.localGet(P.base);
  w.memory(OP.i32_load, S.TLBCTX);
  w.localTee(P.ctx);
  w.i32Const(FTLB_FETCH);
  w.op(OP.i32_add);
  w.localSet(FETCH);
  w.localGet(P.base);
  w.memory(OP.i64_load, S.RIP);
  w.localSet(ip);
  w.branch(OP.br, jumped);
  w.close(); // jump: count
  countLine(w, 1);
  w.close(); // jumped: look the IP up
  w.localGet(ip);
  w.i64Const(8n);
  w.op(OP.i64_shr_u);
  w.op(OP.i32_wrap_i64);
  w.i32Const(0x1ff0);
  w.op(OP.i32_and);
  w.localGet(FETCH);
  w.op(OP.i32_add);
  w.localTee(slot);
  w.memory(OP.i64_load);
  w.localGet(ip);
  w.i64Const(-4096n);
  w.op(OP.i64_and);
  w.op(OP.i64_eq);
  w.open(OP.if);
  w.localGet(slot);
  w.memory(OP.i32_load, 8);
  w.localGet(ip);
  w.op(OP.i32_wrap_i64);
  w.i32Const(0xfff);
  w.op(OP.i32_and);
  w.i32Const(2);
  w.op(OP.i32_shl);
  w.op(OP.i32_add);
  w.memory(OP.i32_load);
  w.localTee(target);
  w.open(OP.if);
  w.localGet(P.base);
  w.localGet(ip);
  w.i64Const(-4096n);
  w.op(OP.i64_and);
  w.memory(OP.i64_store, S.RIPPAGE);
  w.localGet(target);
  w.localTee(P.ptr);
  w.localSet(P.entry);
  continueIfBudget(w, loop);
  leaveAtRecord(w, EXIT_BUDGET);
  w.close();
  w.close();
  storeRip(w, () => w.localGet(ip));
  w.localGet(P.base);
  w.localGet(P.budget);
  w.memory(OP.i32_store, S.REMAINING);
  w.localGet(P.base);
  w.i32Const(0);
  w.memory(OP.i32_store, S.EXITRECORD);
  w.i32Const(EXIT_LOOKUP);
  w.op(OP.return);
  w.close(); // again
  countLine(w, 1);
  w.localGet(P.ptr);
  w.localSet(P.entry);
  continueIfBudget(w, loop);
  leaveAtRecord(w, EXIT_BUDGET);
  w.close(); // leave: counted already
  w.localGet(P.base);
  w.localGet(P.budget);
  w.memory(OP.i32_store, S.REMAINING);
  w.i32Const(EXIT_END);
  w.op(OP.return);
  w.close(); // end
  storeRemaining(w, 1);
  w.i32Const(EXIT_END);
  w.op(OP.return);
  w.close(); // fault
  storeRip(w, () => pushRecordIp(w));
  storeRemaining(w, 0);
  w.localGet(P.base);
  w.memory(OP.i32_load, S.EXIT);
  w.op(OP.return);
  w.close(); // loop
  w.op(OP.unreachable);
  w.op(OP.end);

  const runType = module.type([T.i32, T.i32, T.i32, T.i32, T.i32, T.i32], [T.i32]);
  const run = module.define(runType, builder.locals, w.bytes());
  module.exportFunction("run", run);
  return { bytes: module.finish(), procedures: [...builder.procedures], effects };
}

/** Writes a module of called handlers; exports each as its index in `handlers`. */
export function writeCalled(handlers: readonly InlineHandler[]): WrittenModule {
  const module = new ModuleWriter(false);
  const type = module.type(CALLED_PARAMETERS, [T.i32]);
  const procedures = new Set<string>();
  const effects: Effects[] = [];
  const bodies: { locals: WasmBuilder["locals"]; code: Uint8Array }[] = [];
  for (const handler of handlers) {
    const builder = new WasmBuilder(module, CALLED_PARAMETERS.length);
    const w = new CodeWriter();
    const leave = (code: number) => (c: CodeWriter) => {
      c.i32Const(code);
      c.op(OP.return);
    };
    const exits: Exits = {
      inline: false,
      fault: leave(CALLED.fault),
      faultIf: (c) => {
        c.open(OP.if);
        leave(CALLED.fault)(c);
        c.close();
      },
      jump: (c) => {
        c.localSet(ip);
        c.localGet(P.base);
        c.localGet(ip);
        c.memory(OP.i64_store, S.RIP);
        leave(CALLED.jump)(c);
      },
      jumpDirect: (c) => {
        c.localGet(P.base);
        c.localGet(P.base);
        c.memory(OP.i64_load, S.RIPPAGE);
        c.localGet(P.ptr);
        c.memory(OP.i64_load, REC.imm);
        c.op(OP.i64_add);
        c.memory(OP.i64_store, S.RIP);
        leave(CALLED.jump)(c);
      },
      end: leave(CALLED.end),
      resync: leave(CALLED.resync),
      again: leave(CALLED.again),
      next: (c) => {
        pushNext(c);
        c.op(OP.return);
      },
    };
    builder.w = w;
    const ip = builder.newLocal(T.i64);
    builder.reserveLocals();
    effects.push(writeHandler(builder, w, handler, exits));
    w.op(OP.unreachable);
    w.op(OP.end);
    for (const name of builder.procedures) procedures.add(name);
    bodies.push({ locals: builder.locals, code: w.bytes() });
  }
  bodies.forEach((body, i) => module.exportFunction(String(i), module.define(type, body.locals, body.code)));
  return { bytes: module.finish(), procedures: [...procedures], effects };
}

function writeHandler(builder: WasmBuilder, w: CodeWriter, handler: InlineHandler, exits: Exits): Effects {
  builder.forgetFlags();
  handler.parts.forEach((part, i) => {
    if (i === 0) builder.begin(w, part.form, part.hasIndex, exits);
    else {
      pushNext(w);
      w.localSet(P.ptr);
      builder.continueWith(part.form, part.hasIndex, exits);
    }
    builder.flagsAreDead = handler.flagsAreDead === true;
    describe(builder, part.form);
  });
  if (!builder.hasLeft) exits.next(w);
  return builder.effects;
}

function pushNext(w: CodeWriter): void {
  w.localGet(P.ptr);
  w.i32Const(RECORD_BYTES);
  w.op(OP.i32_add);
}
/** Pushes the IP of the record at `ptr`. */
function pushRecordIp(w: CodeWriter): void {
  w.localGet(P.base);
  w.memory(OP.i64_load, S.RIPPAGE);
  w.localGet(P.ptr);
  w.memory(OP.i64_load16_u, REC.pageOffset);
  w.op(OP.i64_add);
}
function storeRip(w: CodeWriter, push: () => void): void {
  w.localGet(P.base);
  push();
  w.memory(OP.i64_store, S.RIP);
}
/** Pushes budget − (records passed) − `extra`. */
function pushRemaining(w: CodeWriter, extra: 0 | 1): void {
  w.localGet(P.budget);
  w.localGet(P.ptr);
  w.localGet(P.entry);
  w.op(OP.i32_sub);
  w.i32Const(5);
  w.op(OP.i32_shr_u);
  w.op(OP.i32_sub);
  if (extra) {
    w.i32Const(extra);
    w.op(OP.i32_sub);
  }
}
function storeRemaining(w: CodeWriter, extra: 0 | 1): void {
  w.localGet(P.base);
  pushRemaining(w, extra);
  w.memory(OP.i32_store, S.REMAINING);
}
/** budget := what is left after the line up to `ptr` (and the instruction at it, if `extra`). */
function countLine(w: CodeWriter, extra: 0 | 1): void {
  pushRemaining(w, extra);
  w.localSet(P.budget);
}
function continueIfBudget(w: CodeWriter, loop: number): void {
  w.localGet(P.budget);
  w.i32Const(BLOCK_MAX);
  w.op(OP.i32_ge_s);
  w.branch(OP.br_if, loop);
}
/** Leaves before the record at `ptr`, which starts a line. */
function leaveAtRecord(w: CodeWriter, code: number): void {
  storeRip(w, () => pushRecordIp(w));
  w.localGet(P.base);
  w.localGet(P.budget);
  w.memory(OP.i32_store, S.REMAINING);
  w.i32Const(code);
  w.op(OP.return);
}
/** A direct jump that leaves the canonical range raises #GP(0) on the jump; within ±2 GiB only bits from 47 up tell. */
function writeDirectCanonicalCheck(w: CodeWriter, ip: number, fault: number): void {
  w.localGet(ip);
  w.localGet(P.base);
  w.memory(OP.i64_load, S.RIPPAGE);
  w.op(OP.i64_xor);
  w.i64Const(47n);
  w.op(OP.i64_shr_u);
  w.op(OP.i64_eqz);
  w.op(OP.i32_eqz);
  w.open(OP.if);
  // Crossing at bit 47 is canonical with 57-bit addresses unless bits 63:56 differ as well.
  w.localGet(ip);
  w.i64Const(56n);
  w.i64Const(47n);
  w.localGet(P.base);
  w.memory(OP.i32_load, S.CR4);
  w.i32Const(1 << 12);
  w.op(OP.i32_and);
  w.op(OP.select);
  w.op(OP.i64_shr_s);
  w.i64Const(1n);
  w.op(OP.i64_add);
  w.i64Const(1n);
  w.op(OP.i64_gt_u);
  w.open(OP.if);
  for (const [offset, value] of [[S.FAULTVECTOR, 13], [S.FAULTCODE, 0], [S.EXIT, EXIT_FAULT]] as const) {
    w.localGet(P.base);
    w.i32Const(value);
    w.memory(OP.i32_store, offset);
  }
  // The line was counted with the jump; give it back.
  w.localGet(P.budget);
  w.i32Const(1);
  w.op(OP.i32_add);
  w.localSet(P.budget);
  w.localGet(P.ptr);
  w.localSet(P.entry);
  w.branch(OP.br, fault);
  w.close();
  w.close();
}
