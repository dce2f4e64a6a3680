/**
 * Repeated string moves and stores by the page, in wasm: REP MOVS and REP STOS of 64-bit code with 64-bit addresses and of 32-bit code
 * with 32-bit ones, upward, in pages that the fast TLB has. What it does is what the description does one element at a time.
 *
 * Room: `hw/engine/wasm/`; imports expressions.ts and state.ts. bulk.ts in `hw/engine/` says the same in TypeScript.
 *
 * @module
 */
import {
  BLOCK_MAX,
  FTLB_ENTRIES,
  FTLB_READ,
  FTLB_WRITE,
  R,
  REC,
  RECORD_BYTES,
  RFLAGS,
  S,
  SEG,
} from "../../state.ts";
import { RECORD_SHIFT } from "./base.ts";
import { type ModuleWriter, T } from "./emit.ts";
import {
  add,
  and,
  any,
  Body,
  ctz,
  eq,
  eqz,
  type Expr,
  extendU,
  geS,
  gtS,
  load16,
  load32,
  load64,
  load8,
  type Local,
  ltS,
  ltU,
  ne,
  select,
  shl,
  shrS,
  shrU,
  sub,
  type Value,
  wrap,
} from "./expressions.ts";

/** Below this many elements the setting up costs more than it saves. */
const WORTHWHILE = 4;
const RAX = S.GPR + R.RAX * 8, RCX = S.GPR + R.RCX * 8, RSI = S.GPR + R.RSI * 8, RDI = S.GPR + R.RDI * 8;
/** `PSEUDO.stop` of interpreter_module.ts, which a test compares. */
export const STOP = 1;
/** Kinds in `bulkInfo` of builder.ts. */
const MOVS = 1;

/**
 * Writes `bulk` (base, ptr, limit, info) → iterations done: as many as can be, but at least one is left for the description, and as many
 * instructions of the slice as the rest of a line may have. `ptr` is the record, or 0 in a region.
 */
export function writeBulk(module: ModuleWriter): void {
  const b = new Body([T.i32, T.i32, T.i32, T.i32], T.i32);
  const [base, ptr, limit, info] = b.parameters as [Local, Local, Local, Local];
  const kind = b.let(and(shrU(info, 20), 3)), wide = b.local(T.i32);
  const form = b.let(and(info, 0x3_0ff0));
  // Code mode and address size: 64-bit with 64, 32-bit with 32.
  b.set(wide, eq(form, (2 << 16) | (64 << 4)));
  b.if(eqz(kind), () => b.return(0));
  b.if(eqz(wide), () => b.if(ne(form, (1 << 16) | (32 << 4)), () => b.return(0)));
  b.if(any(load32(base, S.RFLAGS), RFLAGS.DF), () => b.return(0));
  const segment = b.let(and(shrU(info, 12), 15));
  b.if(wide, () => b.if(geS(segment, SEG.FS), () => b.return(0)));
  const size = b.let(and(info, 15)), log = b.let(ctz(size));
  const mask = b.let(select(wide, -1n, 0xffff_ffffn));
  const segmentAt = b.let(add(base, shl(segment, 3)));
  // Staged alone it is the whole line.
  const alone = eq(load16(ptr, RECORD_BYTES + REC.handler), STOP);
  const left = b.let(sub(shrS(sub(limit, ptr), RECORD_SHIFT), select(alone, 1, 1 + BLOCK_MAX)));
  const total = b.let(0), n = b.local(T.i32), bytes = b.local(T.i32);
  const context = b.let(load32(base, S.TLBCTX));
  const to = b.local(T.i64), from = b.local(T.i64), hostTo = b.local(T.i32), hostFrom = b.local(T.i32);

  b.block((done) => {
    b.loop((again) => {
      const count = b.let(and(load64(base, RCX), mask));
      b.set(n, select(any(count, -1n << 31n), 0x7fff_fffe, sub(wrap(count), 1)));
      b.set(n, least(n, left));
      const inPage = (address: Value) => shrU(sub(4096, and(wrap(address), 0xfff)), log);
      b.set(to, and(load64(base, RDI), mask));
      b.if(eqz(wide), () => b.set(to, and(add(to, load64(base, S.SEGBASE + SEG.ES * 8)), mask)));
      b.set(n, least(n, inPage(to)));
      b.if(eq(kind, MOVS), () => {
        b.set(from, and(load64(base, RSI), mask));
        b.if(eqz(wide), () => b.set(from, and(add(from, load64(segmentAt, S.SEGBASE)), mask)));
        b.set(n, least(n, inPage(from)));
      });
      b.brIf(done, ltS(n, WORTHWHILE));
      b.set(bytes, shl(n, log));
      b.if(eqz(wide), () => {
        const last = (at: number) => add(and(load64(base, at), mask), extendU(sub(bytes, 1)));
        b.brIf(done, gtS(last(RDI), load64(base, S.SEGWMAX + SEG.ES * 8)));
        b.if(eq(kind, MOVS), () => b.brIf(done, gtS(last(RSI), load64(segmentAt, S.SEGRMAX))));
      });
      probe(b, context, to, FTLB_WRITE, hostTo, done);
      b.if(
        eq(kind, MOVS),
        () => {
          probe(b, context, from, FTLB_READ, hostFrom, done);
          const distance = b.let(sub(hostTo, hostFrom));
          // Each element reads what earlier ones wrote: byte by byte that is the same, if the distance is a whole element at least.
          b.if(
            and(ne(distance, 0), ltU(distance, bytes)),
            () => {
              b.brIf(done, ltU(distance, size));
              copyUpward(b, hostTo, hostFrom, bytes);
            },
            () => b.copy(hostTo, hostFrom, bytes),
          );
          b.store64(base, RSI, and(add(load64(base, RSI), extendU(bytes)), mask));
        },
        () => fill(b, base, hostTo, bytes, size),
      );
      b.store64(base, RDI, and(add(load64(base, RDI), extendU(bytes)), mask));
      b.store64(base, RCX, and(sub(load64(base, RCX), extendU(n)), mask));
      b.set(total, add(total, n));
      b.set(left, sub(left, n));
      b.br(again);
    });
  });
  b.return(total);
  b.define(module, "bulk");
}

/** The smaller of two signed numbers. */
function least(a: Local, c: Value): Expr {
  return select(ltS(a, c), a, c);
}

/** Sets `host` to the host address of a linear one that hits the fast TLB, or leaves by `miss`. */
function probe(b: Body, context: Local, linear: Local, table: number, host: Local, miss: number): void {
  const entry = b.let(add(context, and(wrap(shrU(linear, 8n)), (FTLB_ENTRIES - 1) << 4)));
  b.brIf(miss, ne(load64(entry, table), and(linear, -4096n)));
  b.set(host, add(load32(entry, table + 8), wrap(linear)));
}

function copyUpward(b: Body, to: Local, from: Local, bytes: Local): void {
  const at = b.let(to), source = b.let(from), end = b.let(add(to, bytes));
  b.loop((again) => {
    b.store8(at, 0, load8(source));
    b.set(at, add(at, 1));
    b.set(source, add(source, 1));
    b.brIf(again, ltU(at, end));
  });
}

/** Stores the low `size` bytes of RAX over and over. */
function fill(b: Body, base: Local, to: Local, bytes: Local, size: Local): void {
  b.if(
    eq(size, 1),
    () => b.fill(to, load8(base, RAX), bytes),
    () => {
      const at = b.let(to), end = b.let(add(to, bytes)), value = b.let(load64(base, RAX));
      b.loop((again) => {
        b.if(eq(size, 2), () => b.store16(at, 0, wrap(value)), () => {
          b.if(eq(size, 4), () => b.store32(at, 0, wrap(value)), () => b.store64(at, 0, value));
        });
        b.set(at, add(at, size));
        b.brIf(again, ltU(at, end));
      });
    },
  );
}
