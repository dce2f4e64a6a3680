/**
 * Writes the interpreter: one wasm function that switches over decoded records (DESIGN 2.2), and the small
 * modules of called handlers.
 *
 * Room: `hw/engine/wasm/`; imports the builder and `hw/isa/`. Who decides which forms stand inline, and who writes records, is
 * `hw/engine/code_cache.ts`.
 *
 * The function's shape: a loop around a `br_table` on the record's handler number; every handler falls to its end with
 * `ptr` advanced, or leaves by a shared tail (jump, end, again, fault). Instructions are counted per straight line: records stand one
 * after the other, so `limit` − `ptr` (see base.ts) says how many are left, and a jump moves both by the same distance.
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
  SEG,
} from "../../state.ts";
import { describe } from "../../isa/prologue.ts";
import type { Form } from "../../isa/form.ts";
import { CodeWriter, ModuleWriter, OP, T } from "./emit.ts";
import { type Effects, type Exits, P, RECORD_SHIFT } from "./base.ts";
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
  /**
   * Enters a compiled region: table slot in `rare`, number of the entry in r0, instructions that it wants to have left in r1, and
   * in `disp` the address of a copy of the record that stood here, in the lower half of `imm` how far the page is from the region's first.
   */
  region: 6,
  /** Number of the first instruction handler. */
  first: 7,
} as const;

/** What a region returns where it is not an EXIT_ code, with which the interpreter leaves: go on at RIP. */
export const REGION_JUMPED = 0;
/** The same, and privilege or translation may have changed. */
export const REGION_RESYNC = 0x100;

/** What a called handler returns instead of the next record's address. */
const CALLED = { fault: 0, jump: 1, end: 2, again: 3, resync: 4 } as const;

/** One instruction of a handler. */
export interface HandlerPart {
  readonly form: Form;
  readonly hasIndex: boolean;
  /** Nobody sees the flags that it sets: they are not stored. */
  readonly flagsAreDead?: boolean;
}

/** One handler to write: one form, or several fused. */
export interface InlineHandler {
  readonly parts: readonly HandlerPart[];
}

const RUN_PARAMETERS = [T.i32, T.i32, T.i32, T.i32] as const; // ptr, limit, ctx, fetch
const FETCH = 3;
const CALLED_PARAMETERS = [T.i32, T.i32, T.i32, T.i32] as const; // ptr, limit, ctx, base

/** A module's bytes and the procedures it imports. */
export interface WrittenModule {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly procedures: readonly string[];
  /** What each handler does, in order. */
  readonly effects: readonly Effects[];
}

/**
 * Writes the module with the switch; exports `run(ptr, limit, ctx, fetch): exit code`. It is for memories of one size and for the
 * processor whose block is at `base`: V8 checks each access whose address it does not know, against a size that it had better know.
 */
export function writeInterpreter(
  memoryPages: number,
  base: number,
  handlers: readonly InlineHandler[],
): WrittenModule {
  // Imports must be known before the function is defined, so the body is written first.
  const module = new ModuleWriter(true, memoryPages);
  const builder = new WasmBuilder(module, RUN_PARAMETERS.length, base);
  const calledType = module.type(CALLED_PARAMETERS, [T.i32]);
  const w = new CodeWriter();
  builder.w = w;
  const ip = builder.newLocal(T.i64);
  const target = builder.newLocal(T.i32);
  const slot = builder.newLocal(T.i32);
  /** What is left behind the line that was left, in bytes of records. */
  const left = builder.newLocal(T.i32);
  /** The first eight bytes of the record. */
  const head = builder.newLocal(T.i64);
  /** S.CODEMODE, as long as the function runs. */
  const mode = builder.newLocal(T.i32);
  builder.reserveLocals();
  const tails = new Tails(w, base, left);

  tails.load32(S.CODEMODE);
  w.localSet(mode);
  const loop = w.open(OP.loop);
  const end = w.open(OP.block);
  const leave = w.open(OP.block);
  const again = w.open(OP.block);
  const jumped = w.open(OP.block);
  const jump = w.open(OP.block);
  const resync = w.open(OP.block);
  const fault = w.open(OP.block);
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
  w.memory(OP.i64_load, REC.handler);
  w.localTee(head);
  w.op(OP.i32_wrap_i64);
  w.i32Const(0xffff);
  w.op(OP.i32_and);
  w.op(OP.br_table);
  w.u32(count - 1);
  for (let i = 0; i < count; i++) w.u32(i);

  const openHandler = () => w.close();
  // called
  openHandler();
  for (const index of [P.ptr, P.limit, P.ctx]) w.localGet(index);
  w.i32Const(base);
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
  tails.load64(S.RIP);
  w.localSet(ip);
  w.localGet(target);
  w.op(OP.br_table);
  w.u32(4);
  for (const label of [fault, jump, end, again, resync]) w.u32(w.depth - label);
  // stop
  openHandler();
  tails.storeRecordIp();
  tails.storeRemaining(0);
  w.i32Const(EXIT_STOP);
  w.op(OP.return);
  // link
  openHandler();
  tails.count(0);
  w.localGet(P.ptr);
  w.memory(OP.i32_load, REC.disp);
  tails.goOn(loop);
  // lookup
  openHandler();
  tails.storeRecordIp();
  tails.storeRemaining(0);
  tails.store32(S.EXITRECORD, () => w.localGet(P.ptr));
  w.i32Const(EXIT_LOOKUP);
  w.op(OP.return);
  // nextPage
  openHandler();
  tails.count(0);
  tails.load64(S.RIPPAGE);
  w.i64Const(4096n);
  w.op(OP.i64_add);
  w.localSet(ip);
  w.branch(OP.br, jumped);
  // exception
  openHandler();
  tails.store32(S.FAULTVECTOR, () => {
    w.localGet(P.ptr);
    w.memory(OP.i32_load16_u, REC.r0);
  });
  tails.store32(S.FAULTCODE, () => {
    w.localGet(P.ptr);
    w.memory(OP.i32_load16_u, REC.r1);
    w.i32Const(-1);
    w.localGet(P.ptr);
    w.memory(OP.i32_load16_u, REC.r2);
    w.op(OP.select);
  });
  tails.store32(S.EXIT, () => w.i32Const(EXIT_FAULT));
  w.branch(OP.br, fault);
  // region
  openHandler();
  tails.count(0);
  w.localGet(left);
  w.localGet(P.ptr);
  w.memory(OP.i32_load16_u, REC.r1);
  w.i32Const(RECORD_SHIFT);
  w.op(OP.i32_shl);
  w.op(OP.i32_lt_s);
  w.open(OP.if);
  tails.storeRecordIp();
  tails.storeLeft();
  w.i32Const(EXIT_BUDGET);
  w.op(OP.return);
  w.close();
  for (const index of [P.ptr, P.limit, P.ctx]) w.localGet(index);
  w.i32Const(base);
  w.localGet(P.ptr);
  w.memory(OP.i32_load16_u, REC.rare);
  w.op(OP.call_indirect);
  w.u32(calledType);
  w.u32(0);
  w.localTee(target);
  w.open(OP.if);
  w.localGet(target);
  w.i32Const(REGION_RESYNC);
  w.op(OP.i32_eq);
  w.open(OP.if);
  // The tail counts one instruction more, which the region has counted already.
  tails.load32(S.REMAINING);
  w.i32Const(1);
  w.op(OP.i32_add);
  w.i32Const(RECORD_SHIFT);
  w.op(OP.i32_shl);
  w.localSet(P.limit);
  w.i32Const(0);
  w.localSet(P.ptr);
  w.branch(OP.br, resync);
  w.close();
  w.localGet(target);
  w.i32Const(EXIT_FAULT);
  w.op(OP.i32_eq);
  w.open(OP.if);
  tails.load32(S.REMAINING);
  w.i32Const(RECORD_SHIFT);
  w.op(OP.i32_shl);
  w.localSet(P.limit);
  w.i32Const(0);
  w.localSet(P.ptr);
  writeDelivery(module, tails, w, base, resync, end);
  w.close();
  w.localGet(target);
  w.op(OP.return);
  w.close();
  tails.load32(S.REMAINING);
  w.i32Const(RECORD_SHIFT);
  w.op(OP.i32_shl);
  w.localSet(left);
  tails.load64(S.RIP);
  w.localSet(ip);
  w.branch(OP.br, jumped);

  const effects = handlers.map((handler) => {
    openHandler();
    return writeHandler(builder, w, handler, exits, head);
  });

  w.close(); // direct: count, follow the link or compute the target
  tails.count(1);
  w.localGet(P.ptr);
  w.memory(OP.i32_load, REC.disp);
  w.localTee(target);
  w.open(OP.if);
  w.localGet(target);
  tails.goOn(loop);
  w.close();
  tails.load64(S.RIPPAGE);
  w.localGet(P.ptr);
  w.memory(OP.i64_load, REC.imm);
  w.op(OP.i64_add);
  w.localSet(ip);
  writeDirectCanonicalCheck(tails, w, ip, fault);
  w.branch(OP.br, jumped);
  w.close(); // fault: delivered here if it can be, which counts as one instruction; else the run loop does it
  tails.storeRecordIp();
  tails.storeRemaining(0);
  writeDelivery(module, tails, w, base, resync, end);
  tails.load32(S.EXIT);
  w.op(OP.return);
  w.close(); // resync: count, then a jump in the context that is in force now, if records and slot tables are still of the right mode
  tails.count(1);
  tails.load32(S.CODEMODE);
  w.localGet(mode);
  w.op(OP.i32_ne);
  w.branch(OP.br_if, leave);
  tails.load64(S.RIP);
  w.localSet(ip);
  w.localGet(mode);
  w.i32Const(2);
  w.op(OP.i32_ne);
  w.open(OP.if);
  // Outside 64-bit mode: CS flat, as it was.
  tails.load64(S.SEGBASE + SEG.CS * 8);
  w.op(OP.i64_eqz);
  w.op(OP.i32_eqz);
  tails.load32(S.SEGLIMIT + SEG.CS * 4);
  w.i32Const(-1);
  w.op(OP.i32_ne);
  w.op(OP.i32_or);
  w.localGet(FETCH);
  w.i32Const(base + S.NOFETCH);
  w.op(OP.i32_eq);
  w.op(OP.i32_or);
  w.branch(OP.br_if, leave);
  w.localGet(ip);
  w.i64Const(0xffff_ffffn);
  w.op(OP.i64_and);
  w.localSet(ip);
  w.close();
  tails.load32(S.TLBCTX);
  w.localTee(P.ctx);
  w.i32Const(FTLB_FETCH);
  w.op(OP.i32_add);
  w.localSet(FETCH);
  w.branch(OP.br, jumped);
  w.close(); // jump: count
  tails.count(1);
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
  tails.store64(S.RIPPAGE, () => {
    w.localGet(ip);
    w.i64Const(-4096n);
    w.op(OP.i64_and);
  });
  w.localGet(target);
  tails.goOn(loop);
  w.close();
  w.op(OP.else);
  // A page that is not in the fetch table: walked here if its code is decoded. Not with so little left that the slice might end before
  // the instruction: what comes then could keep it from being fetched.
  w.localGet(left);
  w.i32Const(BLOCK_MAX * RECORD_BYTES);
  w.op(OP.i32_ge_s);
  w.open(OP.if);
  w.i32Const(base);
  w.localGet(ip);
  w.op(OP.i32_wrap_i64);
  w.localGet(ip);
  w.i64Const(32n);
  w.op(OP.i64_shr_u);
  w.op(OP.i32_wrap_i64);
  w.call(module.importFunction("fetchMiss", [T.i32, T.i32, T.i32], [T.i32]));
  w.localTee(target);
  w.open(OP.if);
  tails.store64(S.RIPPAGE, () => {
    w.localGet(ip);
    w.i64Const(-4096n);
    w.op(OP.i64_and);
  });
  w.localGet(target);
  tails.goOn(loop);
  w.close();
  w.close();
  w.close();
  tails.store64(S.RIP, () => w.localGet(ip));
  tails.storeLeft();
  tails.store32(S.EXITRECORD, () => w.i32Const(0));
  w.i32Const(EXIT_LOOKUP);
  w.op(OP.return);
  w.close(); // again
  tails.count(1);
  // Staged alone, an instruction may be repeated as long as there is anything left.
  w.localGet(P.ptr);
  w.memory(OP.i32_load16_u, RECORD_BYTES + REC.handler);
  w.i32Const(PSEUDO.stop);
  w.op(OP.i32_eq);
  w.localGet(left);
  w.i32Const(0);
  w.op(OP.i32_gt_s);
  w.op(OP.i32_and);
  w.open(OP.if);
  w.localGet(P.ptr);
  w.localGet(left);
  w.op(OP.i32_add);
  w.localSet(P.limit);
  w.branch(OP.br, loop);
  w.close();
  w.localGet(P.ptr);
  tails.goOn(loop);
  w.close(); // leave: counted already
  tails.storeLeft();
  w.i32Const(EXIT_END);
  w.op(OP.return);
  w.close(); // end
  tails.storeRemaining(1);
  w.i32Const(EXIT_END);
  w.op(OP.return);
  w.close(); // loop
  w.op(OP.unreachable);
  w.op(OP.end);

  const runType = module.type(RUN_PARAMETERS, [T.i32]);
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

function writeHandler(
  builder: WasmBuilder,
  w: CodeWriter,
  handler: InlineHandler,
  exits: Exits,
  head?: number,
): Effects {
  builder.forgetFlags();
  handler.parts.forEach((part, i) => {
    if (i === 0) builder.begin(w, part.form, part.hasIndex, exits, head);
    else {
      pushNext(w);
      w.localSet(P.ptr);
      builder.continueWith(part.form, part.hasIndex, exits);
    }
    builder.flagsAreDead = part.flagsAreDead === true;
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

/** Pieces of the interpreter's tails. */
class Tails {
  readonly #w: CodeWriter;
  readonly #base: number;
  readonly #left: number;

  constructor(w: CodeWriter, base: number, left: number) {
    this.#w = w;
    this.#base = base;
    this.#left = left;
  }

  load32(offset: number): void {
    this.#w.i32Const(this.#base);
    this.#w.memory(OP.i32_load, offset);
  }
  load64(offset: number): void {
    this.#w.i32Const(this.#base);
    this.#w.memory(OP.i64_load, offset);
  }
  store32(offset: number, push: () => void): void {
    this.#w.i32Const(this.#base);
    push();
    this.#w.memory(OP.i32_store, offset);
  }
  store64(offset: number, push: () => void): void {
    this.#w.i32Const(this.#base);
    push();
    this.#w.memory(OP.i64_store, offset);
  }
  /** RIP := IP of the record at `ptr`. */
  storeRecordIp(): void {
    this.store64(S.RIP, () => {
      this.load64(S.RIPPAGE);
      this.#w.localGet(P.ptr);
      this.#w.memory(OP.i64_load16_u, REC.pageOffset);
      this.#w.op(OP.i64_add);
    });
  }
  /** Pushes what is left behind the line up to `ptr` (and the instruction at it, if `extra`), in bytes of records. */
  #pushLeft(extra: 0 | 1): void {
    const w = this.#w;
    w.localGet(P.limit);
    w.localGet(P.ptr);
    w.op(OP.i32_sub);
    if (extra) {
      w.i32Const(RECORD_BYTES);
      w.op(OP.i32_sub);
    }
  }
  /** left := what is left behind the line up to `ptr` (and the instruction at it, if `extra`). */
  count(extra: 0 | 1): void {
    this.#pushLeft(extra);
    this.#w.localSet(this.#left);
  }
  /** REMAINING := instructions left behind the line up to `ptr` (and the instruction at it, if `extra`). */
  storeRemaining(extra: 0 | 1): void {
    this.store32(S.REMAINING, () => {
      this.#pushLeft(extra);
      this.#w.i32Const(RECORD_SHIFT);
      this.#w.op(OP.i32_shr_s);
    });
  }
  /** REMAINING := `left`. */
  storeLeft(): void {
    this.store32(S.REMAINING, () => {
      this.#w.localGet(this.#left);
      this.#w.i32Const(RECORD_SHIFT);
      this.#w.op(OP.i32_shr_s);
    });
  }
  /** Goes on with the record on the stack, which starts a line, if `left` is enough for any line; else leaves before it. */
  goOn(loop: number): void {
    const w = this.#w;
    w.localTee(P.ptr);
    w.localGet(this.#left);
    w.op(OP.i32_add);
    w.localSet(P.limit);
    w.localGet(this.#left);
    w.i32Const(BLOCK_MAX * RECORD_BYTES);
    w.op(OP.i32_ge_s);
    w.branch(OP.br_if, loop);
    this.storeRecordIp();
    this.storeLeft();
    w.i32Const(EXIT_BUDGET);
    w.op(OP.return);
  }
}
/**
 * Delivers the pending fault in wasm if S.EXIT says that there is one, and if it can be (events.ts); RIP and REMAINING are exact. Falls
 * through if not.
 */
function writeDelivery(
  module: ModuleWriter,
  tails: Tails,
  w: CodeWriter,
  base: number,
  resync: number,
  end: number,
): void {
  tails.load32(S.EXIT);
  w.i32Const(EXIT_FAULT);
  w.op(OP.i32_eq);
  w.open(OP.if);
  const not = w.open(OP.block);
  w.i32Const(base);
  w.call(module.importFunction("deliverFault", [T.i32], [T.i32]));
  w.op(OP.br_table);
  w.u32(2);
  // DELIVERED: NOT, RESYNC, END.
  for (const label of [not, resync, end]) w.u32(w.depth - label);
  w.close();
  w.close();
}

/** A direct jump that leaves the canonical range raises #GP(0) on the jump; within ±2 GiB only bits from 47 up tell. */
function writeDirectCanonicalCheck(tails: Tails, w: CodeWriter, ip: number, fault: number): void {
  w.localGet(ip);
  tails.load64(S.RIPPAGE);
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
  tails.load32(S.CR4);
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
    tails.store32(offset, () => w.i32Const(value));
  }
  w.branch(OP.br, fault);
  w.close();
  w.close();
}
