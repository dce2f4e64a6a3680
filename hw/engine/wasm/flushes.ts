/**
 * Small invalidations of the fast TLB in wasm: INVLPG, MOV to CR3, and what a page fault invalidates. They do what tlb_fast.ts and the
 * procedures of hw/sys/ do where there is no modelled TLB, and give up otherwise, having changed nothing.
 *
 * Room: `hw/engine/wasm/`; imports expressions.ts, and the data of state.ts and others.
 *
 * @module
 */
import { COUNTER } from "../../counters.ts";
import { CR4_LA57, CR4_PAE, CR4_PCIDE, EFER_LMA } from "../../paging.ts";
import {
  AUX,
  FTLB_CONTEXTS,
  FTLB_EMPTY,
  FTLB_ENTRIES,
  FTLB_TABLE_BYTES,
  KEEP,
  KEEP_BYTES,
  S,
} from "../../state.ts";
import { REGION_HASH_FACTOR } from "../../tlb_fast.ts";
import { TRACE } from "../../trace.ts";
import { PROC } from "../../vmx/contract.ts";
import { type ModuleWriter, T } from "./emit.ts";
import {
  add,
  and,
  any,
  Body,
  call,
  type Callee,
  ctz,
  eq,
  eqz,
  type Expr,
  load16,
  load32,
  load64,
  load8,
  type Local,
  ltU,
  mul,
  ne,
  select,
  shl,
  shrS,
  shrU,
  sub,
  type Value,
  wrap,
} from "./expressions.ts";

const EMPTY = BigInt.asIntN(64, (BigInt(FTLB_EMPTY) << 32n) | BigInt(FTLB_EMPTY));

/** 1 when the modelled TLB is the fast one alone and nobody listens to `kinds`. */
export function unwatched(aux: Value, kinds: number): Expr {
  return eq(and(load64(aux, AUX.wants), (1n << 32n) | BigInt(kinds)), 1n << 32n);
}

/** 1 when a linear address is canonical. */
export function canonical(base: Value, linear: Local): Expr {
  const unused = select(any(load32(base, S.CR4), CR4_LA57), 7n, 16n);
  return eq(shrS(shl(linear, unused), unused), linear);
}

/** Where what is kept of the bank in force stands. */
function keepOf(base: Value, aux: Value): Expr {
  const guest = eq(load32(base, S.TLBBANK), add(base, S.TLBGUEST));
  return add(aux, select(guest, AUX.keep + KEEP_BYTES, AUX.keep));
}

/** (base, aux, linear) → 1 when every entry of the page was dropped, 0 (nothing changed) when pieces of a large page may be among them. */
export function writeFlushPage(module: ModuleWriter): Callee {
  const b = new Body([T.i32, T.i32, T.i64], T.i32);
  const [base, aux, linear] = b.parameters as [Local, Local, Local];
  const keep = b.let(keepOf(base, aux)), sizes = b.let(load32(keep, KEEP.largeSizes));
  b.if(sizes, () => {
    [21, 22, 30].forEach((shift, size) => {
      const region = wrap(shrU(linear, BigInt(shift)));
      const hash = shrU(mul(region, REGION_HASH_FACTOR), 24);
      const known = load8(add(keep, hash), KEEP.regions + 256 * size);
      b.if(and(shrU(sizes, size), known), () => b.return(0));
    });
  });
  const used = b.let(load32(keep, KEEP.usedTables));
  const index = and(wrap(shrU(linear, 8n)), (FTLB_ENTRIES - 1) << 4);
  const first = b.let(add(load32(base, S.TLBBANK), index));
  const page = b.let(and(linear, -4096n));
  b.loop((again) => {
    b.if(used, () => {
      const entry = b.let(add(first, mul(ctz(used), FTLB_TABLE_BYTES)));
      b.if(eq(and(load64(entry), -2n), page), () => b.store64(entry, 0, EMPTY));
      b.set(used, and(used, sub(used, 1)));
      b.br(again);
    });
  });
  b.return(1);
  return b.define(module);
}

/** (base, aux): `FastTlb.flushNonGlobal` of the bank in force. */
export function writeFlushNonGlobal(module: ModuleWriter): Callee {
  const b = new Body([T.i32, T.i32], undefined);
  const [base, aux] = b.parameters as [Local, Local];
  const keep = b.let(keepOf(base, aux)), bank = b.let(load32(base, S.TLBBANK));
  const end = b.let(add(keep, shl(load32(keep, KEEP.listed), 1)));
  const from = b.let(keep), to = b.let(keep);
  const n = b.local(T.i32), state = b.local(T.i32), entry = b.local(T.i32);
  b.loop((again) => {
    b.if(ltU(from, end), () => {
      b.set(n, load16(from, KEEP.list));
      b.set(from, add(from, 2));
      b.set(state, add(keep, n));
      b.if(
        any(load8(state, KEEP.state), 2),
        () => {
          b.store16(to, KEEP.list, n);
          b.set(to, add(to, 2));
        },
        () => {
          b.set(entry, add(bank, shl(n, 4)));
          b.store64(entry, 0, EMPTY);
          b.store8(state, KEEP.state, 0);
        },
      );
      b.br(again);
    });
  });
  b.store32(keep, KEEP.listed, shrU(sub(to, keep), 1));
  b.if(and(eq(to, keep), ne(load32(keep, KEEP.largeSizes), 0)), () => {
    for (let at = 0; at < 3 * 256; at += 8) b.store64(keep, KEEP.regions + at, 0n);
    b.store32(keep, KEEP.largeSizes, 0);
  });
  return b.define(module);
}

/** What {@link writeFlushProcedures} stands on. */
export interface Flushes {
  readonly page: Callee;
  readonly nonGlobal: Callee;
}

/** Writes the flushes themselves. */
export function writeFlushes(module: ModuleWriter): Flushes {
  if (FTLB_CONTEXTS * 3 > 32) throw new Error("More tables than bits");
  return { page: writeFlushPage(module), nonGlobal: writeFlushNonGlobal(module) };
}

/**
 * Writes the procedures `invlpg` and `writeCr` (of CR3): (base) → 0 when they are done, as the imported ones of the same names.
 *
 * @param slow The procedures in TypeScript.
 * @param physicalBits MAXPHYADDR.
 */
export function writeFlushProcedures(
  module: ModuleWriter,
  flushes: Flushes,
  slow: (name: string) => Callee,
  physicalBits: number,
): void {
  writeInvlpg(module, flushes, slow("proc:invlpg"));
  writeMovCr3(module, flushes, slow("proc:writeCr"), physicalBits);
}

function writeInvlpg(module: ModuleWriter, flushes: Flushes, slow: Callee): void {
  const b = new Body([T.i32], T.i32);
  const base = b.parameter(0), aux = b.let(load32(base, S.AUX));
  const linear = b.let(load64(base, S.ARG));
  b.block((giveUp) => {
    b.brIf(giveUp, eqz(unwatched(aux, TRACE.invalidate)));
    b.brIf(giveUp, any(load32(base, S.VMX_PROC), PROC.INVLPG));
    b.brIf(giveUp, eqz(canonical(base, linear)));
    b.brIf(giveUp, eqz(call(flushes.page, base, aux, linear)));
    b.count(aux, AUX.counters + 8 * COUNTER.invalidations);
    b.return(0);
  });
  b.return(call(slow, base));
  b.define(module, "proc:invlpg");
}

function writeMovCr3(module: ModuleWriter, flushes: Flushes, slow: Callee, physicalBits: number): void {
  const b = new Body([T.i32], T.i32);
  const base = b.parameter(0), aux = b.let(load32(base, S.AUX));
  const value = b.let(load64(base, S.ARG + 8)), cr4 = b.let(load32(base, S.CR4));
  b.block((giveUp) => {
    b.brIf(giveUp, ne(load32(base, S.ARG), 3));
    b.brIf(giveUp, eqz(unwatched(aux, TRACE.invalidate)));
    b.brIf(giveUp, any(load32(base, S.VMX_PROC), PROC.CR3_LOAD));
    // PAE paging loads PDPTEs.
    const long = any(load32(base, S.EFER), EFER_LMA);
    b.brIf(giveUp, and(ne(and(cr4, CR4_PAE), 0), eqz(long)));
    const keeps = b.let(0);
    b.if(any(cr4, CR4_PCIDE), () => {
      b.set(keeps, wrap(shrU(value, 63n)));
      b.set(value, and(value, (1n << 63n) - 1n));
    });
    b.brIf(
      giveUp,
      and(ne(and(load32(base, S.EFER), EFER_LMA), 0), ne(shrU(value, BigInt(physicalBits)), 0n)),
    );
    b.store64(base, S.CR3, value);
    b.call(flushes.nonGlobal, base, aux);
    b.if(eqz(keeps), () => b.count(aux, AUX.counters + 8 * COUNTER.invalidations));
    b.return(0);
  });
  b.return(call(slow, base));
  b.define(module, "proc:writeCr");
}
