/**
 * What happens when the fast TLB misses, in wasm: page walks in one and two dimensions, and the refill of the fast TLB.
 *
 * A walk here does what access.ts, translate.ts and paging.ts do, entry by entry, with the same flags set in memory, the same counts and
 * the same entries filled, for an access that is allowed and lies in one page of RAM. In every other case it gives up: it has changed
 * nothing that the walk in TypeScript, which then does it all again, would not do in the same order (accessed flags of upper levels,
 * which are counted once). Plain page faults outside VMX non-root operation are recorded here too. Left to TypeScript are: other faults, devices, ROM and decoded code that is stored to, tables
 * that are not in plain RAM below 4 GiB, the modelled TLBs and the sanitizer, listeners to walks, protection keys that restrict,
 * breakpoints and alignment checks, the APIC-access page, page-modification logging, PAE paging, accesses that cross pages.
 *
 * Room: `hw/engine/wasm/`; imports expressions.ts, walk_ept.ts, and the data of state.ts, paging.ts, ept_format.ts.
 *
 * @module
 */
import { COUNTER } from "../../counters.ts";
import type { EptFeatures } from "../../ept_format.ts";
import {
  CR0_PG,
  CR0_WP,
  CR4_LA57,
  CR4_PGE,
  CR4_PKE,
  CR4_PSE,
  CR4_SMAP,
  CR4_SMEP,
  EFER_LMA,
  EFER_NXE,
  type PagingFeatures,
  PTE,
  reservedBits,
  reservedBits4M,
} from "../../paging.ts";
import {
  AUX,
  CODE_TABLES_BASE,
  CODE_TABLES_STRIDE,
  EXIT_FAULT,
  FTLB_CONTEXT_BYTES,
  FTLB_ENTRIES,
  FTLB_FETCH,
  FTLB_READ,
  FTLB_WRITE,
  KEEP,
  KEEP_BYTES,
  PAGE_CODE,
  PAGE_FLAGS_BASE,
  PAGE_RAM,
  PAGE_WATCH,
  RAM_BASE,
  RFLAGS,
  S,
  SEG,
} from "../../state.ts";
import { REGION_HASH_FACTOR } from "../../tlb_fast.ts";
import { TRACE } from "../../trace.ts";
import { type ModuleWriter, OP, T } from "./emit.ts";
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
  extendU,
  geU,
  gtU,
  load32,
  load64,
  load8,
  type Local,
  mul,
  ne,
  none,
  or,
  select,
  shl,
  shrS,
  shrU,
  sub,
  type Value,
  wrap,
  xor,
} from "./expressions.ts";
import { EPT_GAVE_UP, EPT_WRITABLE, writeEptWalk, writeUndo } from "./walk_ept.ts";

/** What a walker is for. */
export interface WalkFeatures {
  /** What the processor model says about paging. */
  readonly paging: PagingFeatures;
  /** What it says about EPT. */
  readonly ept: EptFeatures;
}

/** The functions that {@link writeWalks} defines. All addresses in memory are i32, linear addresses i64. */
export interface Walks {
  /** (base, linear, bytes) → host address of bytes that may be read; 0; or {@link PAGE_FAULT}. */
  readonly read: Callee;
  /** (base, linear, bytes) → host address of bytes that may be written; 0; or {@link PAGE_FAULT}. */
  readonly write: Callee;
  /** (base, IP) → the record of 64-bit code, or of 32-bit code in a flat CS, at the IP, in a page that is now in the fetch table; or 0. */
  readonly fetch: Callee;
}

/** What a walk gives when the access raises a page fault: it is recorded (S.EXIT, CR2), and what it invalidates is gone. RIP is not stored. */
export const PAGE_FAULT = 1;

type Kind = "read" | "write" | "fetch";

/** Listeners to one of these see every walk: TypeScript does it. */
const WALK_EVENTS = TRACE.walk | TRACE.reference | TRACE.ept | TRACE.fault;
/** Offset in a bank of the first context whose data tables stay empty. */
const CHECKED_FROM = 3 * FTLB_CONTEXT_BYTES;
const { P, W, U, A, D, PS, G } = PTE;
const NX = 1n << 63n;
/** Address bits of an entry from 4 GiB up. */
const ABOVE = 0xf_ffff_0000_0000n;

/** Bits that must be 0 in an entry of 4- or 5-level paging, bit 63 left aside: reserved ones, and addresses from 4 GiB up. */
function mustBeZero(level: number, leaf: boolean, features: PagingFeatures): bigint {
  const { low, high } = reservedBits("4-level", level, leaf, features);
  return ABOVE | (BigInt((high & 0x7fff_ffff) >>> 0) << 32n) | BigInt(low >>> 0);
}

/** Writes the walks into a module. */
export function writeWalks(module: ModuleWriter, features: WalkFeatures, flushPage: Callee): Walks {
  const fill = writeFill(module), ept = writeEptWalk(module, features.ept);
  const parts = { module, features, fill, ept, flushPage };
  const both = (kind: Kind) => writeWalk(parts, kind, writeWalk(parts, kind));
  return { read: both("read"), write: both("write"), fetch: both("fetch") };
}

interface Parts {
  readonly module: ModuleWriter;
  readonly features: WalkFeatures;
  readonly fill: Callee;
  readonly ept: Callee;
  readonly flushPage: Callee;
}

/** The entry of a fast-TLB table for a linear address, as an address. */
export function entryOf(table: Value, linear: Value): Expr {
  return add(table, and(wrap(shrU(linear, 8n)), (FTLB_ENTRIES - 1) << 4));
}

/** (base, aux, entry, linear, value, shift, global, held): `FastTlb.fill` of tlb_fast.ts. */
function writeFill(module: ModuleWriter): Callee {
  const b = new Body([T.i32, T.i32, T.i32, T.i64, T.i32, T.i32, T.i32, T.i32], undefined);
  const [base, aux, entry, linear, value, shift, global, held] = b.parameters as [
    Local,
    Local,
    Local,
    Local,
    Local,
    Local,
    Local,
    Local,
  ];
  b.store64(entry, 0, or(and(linear, -4096n), extendU(held)));
  b.store32(entry, 8, value);
  const bank = b.let(load32(base, S.TLBBANK));
  const keep = b.let(add(aux, select(eq(bank, add(base, S.TLBGUEST)), AUX.keep + KEEP_BYTES, AUX.keep)));
  const n = b.let(shrU(sub(entry, bank), 4));
  const at = b.let(add(keep, n));
  b.if(eqz(load8(at, KEEP.state)), () => {
    const listed = b.let(load32(keep, KEEP.listed));
    b.store16(add(keep, shl(listed, 1)), KEEP.list, n);
    b.store32(keep, KEEP.listed, add(listed, 1));
    b.store32(keep, KEEP.usedTables, or(load32(keep, KEEP.usedTables), shl(1, shrU(n, 9))));
  });
  const state = b.let(or(1, shl(global, 1)));
  b.if(ne(shift, 12), () => {
    const size = b.let(select(eq(shift, 21), 0, select(eq(shift, 22), 1, 2)));
    b.set(state, or(state, shl(4, size)));
    const region = wrap(shrU(linear, extendU(shift)));
    const hash = shrU(mul(region, REGION_HASH_FACTOR), 24);
    b.store8(add(add(keep, shl(size, 8)), hash), KEEP.regions, 1);
    b.store32(keep, KEEP.largeSizes, or(load32(keep, KEEP.largeSizes), shl(1, size)));
  });
  b.store8(at, KEEP.state, state);
  return b.define(module);
}

/** Locals that the parts of a walk share. */
interface Walk {
  readonly b: Body;
  readonly kind: Kind;
  readonly base: Local;
  readonly aux: Local;
  readonly linear: Local;
  /** Linear address, low half. */
  readonly low: Local;
  readonly cr4: Local;
  readonly efer: Local;
  readonly user: Local;
  /** Whether EPT translates: a function of its own. */
  readonly nested: boolean;
  /** EPT walks counted so far. */
  readonly order: Local;
  /** Gives up. */
  giveUp(): void;
  /** Refuses the access: a page fault with this bit P in its error code. `path` says how far the walk came. */
  refuse(present: 0 | 1): void;
  /** Physical address of the leaf entry, host-physical where EPT translates, and page flags there. */
  readonly at: Local;
  readonly flags: Local;
  /** The leaf entry. */
  readonly entry: Local;
  /** AND of all entries. */
  readonly both: Local;
  /** OR of all entries. */
  readonly either: Local;
  readonly shift: Local;
  /** Index of the walk's path in the counters, times 8. */
  readonly path: Local;
  /** Guest-physical address of the leaf entry. */
  readonly guestAt: Local;
  /** Level of the leaf. */
  readonly level: Local;
}

/** @param second The walk in two dimensions; undefined: this is it. */
function writeWalk(parts: Parts, kind: Kind, second?: Callee): Callee {
  const b = new Body(kind === "fetch" ? [T.i32, T.i64] : [T.i32, T.i64, T.i32], T.i32);
  const base = b.parameter(0), linear = b.parameter(1);
  if (second !== undefined) b.if(load32(base, S.VMX_EPT), () => b.return(call(second, ...b.parameters)));
  const aux = b.let(load32(base, S.AUX)), order = b.let(0);
  b.if(ne(and(load64(aux, AUX.wants), (1n << 32n) | BigInt(WALK_EVENTS)), 1n << 32n), () => b.return(0));
  const low = b.let(wrap(linear));
  if (kind !== "fetch") b.if(gtU(add(and(low, 0xfff), b.parameter(2)), 4096), () => b.return(0));
  // Paging is on, and nobody looks at each data access.
  const cr0 = b.let(load32(base, S.CR0)), context = b.let(load32(base, S.TLBCTX));
  b.if(none(cr0, CR0_PG), () => b.return(0));
  if (kind === "fetch") {
    // 16-bit code never; 32-bit code where CS is flat.
    const mode = b.let(load32(base, S.CODEMODE));
    b.if(ne(mode, 2), () => {
      const bounded = ne(load32(base, S.SEGLIMIT + SEG.CS * 4), -1);
      b.if(or(or(eqz(mode), ne(load64(base, S.SEGBASE + SEG.CS * 8), 0n)), bounded), () => b.return(0));
    });
  } else b.if(geU(sub(context, load32(base, S.TLBBANK)), CHECKED_FROM), () => b.return(0));
  const table = kind === "read" ? FTLB_READ : kind === "write" ? FTLB_WRITE : FTLB_FETCH;
  const slot = b.let(entryOf(context, linear));
  if (kind !== "read") {
    // A page with decoded code is held back, a fetch entry may have no record: no walk is needed.
    b.if(eq(and(load64(slot, table), -2n), and(linear, -4096n)), () => b.return(0));
  }
  const cr4 = b.let(load32(base, S.CR4)), efer = b.let(load32(base, S.EFER));
  const user = b.let(eq(load32(base, S.CPL), 3));
  const failed = b.w.open(OP.block), refused = b.w.open(OP.block);
  const code = b.local(T.i32);
  const walk: Walk = {
    b,
    kind,
    base,
    aux,
    linear,
    low,
    cr4,
    efer,
    user,
    nested: second === undefined,
    order,
    giveUp: () => b.br(failed),
    refuse: (present) => {
      if (kind !== "fetch") b.set(code, present);
      b.br(kind === "fetch" ? failed : refused);
    },
    at: b.local(T.i32),
    flags: b.local(T.i32),
    entry: b.local(T.i64),
    both: b.let(-1n),
    either: b.let(0n),
    shift: b.local(T.i32),
    path: b.local(T.i32),
    guestAt: b.local(T.i32),
    level: b.local(T.i32),
  };
  if (walk.nested) {
    b.if(none(efer, EFER_LMA), () => b.return(0));
    writeLongTables(walk, parts);
  } else {
    b.if(
      any(efer, EFER_LMA),
      () => writeLongTables(walk, parts),
      () => writeTables32(walk, parts.features.paging),
    );
  }
  writeRights(walk, cr0);
  writeResult(walk, parts, cr0, slot);
  b.w.close();
  if (kind !== "fetch") writePageFault(walk, parts, code);
  b.w.close();
  if (walk.nested) writeUndo(b, aux, order);
  b.return(0);
  return b.define(parts.module);
}

/** Reads an entry: `at` is its guest-physical address. Leaves walk.at, walk.flags and walk.entry. */
function readEntry(walk: Walk, parts: Parts, level: number, at: Value): void {
  const { b, base, aux } = walk;
  if (!walk.nested) b.set(walk.at, at);
  else {
    b.set(walk.guestAt, at);
    // With accessed and dirty flags for EPT, any access to a guest paging-structure entry counts as a write.
    const need = or(1, and(shrU(load32(base, S.VMX_EPTP), 5), 2));
    const host = b.let(call(parts.ept, base, aux, walk.guestAt, need, level, walk.order));
    b.if(eq(host, EPT_GAVE_UP), walk.giveUp);
    b.set(walk.order, add(walk.order, 1));
    b.set(host, and(host, -4096n));
    b.if(eq(host, load64(base, S.VMX_APIC_ACCESS)), walk.giveUp);
    b.set(walk.at, or(wrap(host), and(walk.guestAt, 0xfff)));
  }
  b.set(walk.flags, load8(shrU(walk.at, 12), PAGE_FLAGS_BASE));
  b.if(none(walk.flags, PAGE_RAM), walk.giveUp);
  b.set(walk.entry, load64(walk.at, RAM_BASE));
}

/** Before a flag is set in the entry at hand: without flags for EPT this is a write of its own. */
function makeWritable(walk: Walk, parts: Parts, level: Value): void {
  const { b, base, aux } = walk;
  b.if(ne(walk.flags, PAGE_RAM), walk.giveUp);
  if (walk.nested) {
    b.if(none(load32(base, S.VMX_EPTP), 0x40), () => {
      // Its count stays when the walk gives up later: the flag is set by then, and is not set again.
      const host = call(parts.ept, base, aux, walk.guestAt, 3, level, walk.order);
      b.if(eq(host, EPT_GAVE_UP), walk.giveUp);
    });
  }
}

/** The tables of 4- and 5-level paging; the leaf is in the walk's locals afterwards. */
function writeLongTables(walk: Walk, parts: Parts): void {
  const { b, base, aux, entry, linear, low } = walk;
  const { paging } = parts.features;
  const la57 = b.let(any(walk.cr4, CR4_LA57));
  const unused = b.let(select(la57, 7n, 16n));
  b.if(ne(shrS(shl(linear, unused), unused), linear), () => b.return(0));
  const root = b.let(load64(base, S.CR3));
  b.if(any(root, ABOVE), () => b.return(0));
  const table = b.let(and(wrap(root), -4096));
  // Bit 63 is reserved without NXE.
  const nxe = b.let(select(any(walk.efer, EFER_NXE), 0n, NX));
  const gather = () => {
    b.set(walk.both, and(walk.both, entry));
    b.set(walk.either, or(walk.either, entry));
  };
  const check = (level: number, leaf: boolean) => {
    const zero = mustBeZero(level, leaf, paging);
    b.if(ne(and(entry, or(nxe, zero | 1n)), 1n), () => {
      b.if(none(wrap(entry), P), () => {
        b.set(walk.path, or(walk.path, level << 3));
        walk.refuse(0);
      });
      walk.giveUp();
    });
  };
  const upperLevel = (level: number) => {
    check(level, false);
    gather();
    b.if(none(wrap(entry), A), () => {
      makeWritable(walk, parts, level);
      b.count(aux, AUX.counters + 8 * COUNTER.accessedSet);
      b.store32(walk.at, RAM_BASE, or(wrap(entry), A));
    });
    b.set(table, and(wrap(entry), -4096));
  };
  b.set(walk.path, (4 * 8) << 3);
  b.if(la57, () => {
    b.set(walk.path, (5 * 8) << 3);
    readEntry(walk, parts, 5, add(table, and(wrap(shrU(linear, 45n)), 511 << 3)));
    upperLevel(5);
  });
  b.block((done) => {
    for (let level = 4; level >= 1; level--) {
      const shift = 12 + 9 * (level - 1);
      const index = shift >= 32
        ? and(wrap(shrU(linear, BigInt(shift - 3))), 511 << 3)
        : level === 3
        ? and(wrap(shrU(linear, 27n)), 511 << 3)
        : and(shrU(low, shift - 3), 511 << 3);
      readEntry(walk, parts, level, add(table, index));
      const leaf = () => {
        check(level, true);
        gather();
        b.set(walk.shift, shift);
        b.set(walk.level, level);
        b.set(walk.path, or(walk.path, level << 3));
      };
      if (level === 1) leaf();
      else {
        if (level < 4) {
          b.if(eq(and(wrap(entry), PS | P), PS | P), () => {
            leaf();
            b.br(done);
          });
        }
        upperLevel(level);
      }
    }
  });
}

/** The tables of 32-bit paging, in one dimension; the entry is widened so that what follows is the same. */
function writeTables32(walk: Walk, features: PagingFeatures): void {
  const { b, base, aux, entry, low } = walk;
  // PAE paging and two dimensions are left to TypeScript.
  b.if(any(walk.cr4, 0x20), () => b.return(0));
  const read = (level: number, at: Value) => {
    b.set(walk.path, (2 * 8 + level) << 3);
    b.set(walk.at, at);
    b.set(walk.flags, load8(shrU(walk.at, 12), PAGE_FLAGS_BASE));
    b.if(none(walk.flags, PAGE_RAM), walk.giveUp);
    b.set(entry, extendU(load32(walk.at, RAM_BASE)));
    b.if(none(wrap(entry), P), () => walk.refuse(0));
    b.set(walk.both, and(walk.both, entry));
  };
  read(2, add(and(load32(base, S.CR3), -4096), shl(shrU(low, 22), 2)));
  b.if(
    and(wrap(entry), select(any(walk.cr4, CR4_PSE), PS, 0)),
    () => {
      // Bits 20:13 are address bits 39:32, or reserved.
      b.if(any(wrap(entry), reservedBits4M(features) | 0x1f_e000), walk.giveUp);
      b.set(walk.shift, 22);
    },
    () => {
      b.if(none(wrap(entry), A), () => {
        b.if(ne(walk.flags, PAGE_RAM), walk.giveUp);
        b.count(aux, AUX.counters + 8 * COUNTER.accessedSet);
        b.store32(walk.at, RAM_BASE, or(wrap(entry), A));
      });
      read(1, add(and(wrap(entry), -4096), and(shrU(low, 10), 1023 << 2)));
      b.set(walk.shift, 12);
    },
  );
}

/** Gives up unless the rights allow the access. */
function writeRights(walk: Walk, cr0: Local): void {
  const { b, base, user, cr4, kind } = walk;
  const rights = b.let(wrap(walk.both));
  if (kind === "fetch") b.if(any(walk.either, NX), walk.giveUp);
  // A refusal by a protection key comes with a code of its own.
  const refuse = () => {
    b.if(any(cr4, CR4_PKE), walk.giveUp);
    walk.refuse(1);
  };
  b.if(
    user,
    () => b.if(none(rights, U), refuse),
    () => {
      b.if(any(rights, U), () => {
        if (kind === "fetch") b.if(any(cr4, CR4_SMEP), walk.giveUp);
        else {
          b.if(any(cr4, CR4_SMAP), () => b.if(none(load32(base, S.RFLAGS), RFLAGS.AC), refuse));
        }
      });
    },
  );
  if (kind === "write") {
    b.if(none(rights, W), () => {
      b.if(user, refuse);
      b.if(any(cr0, CR0_WP), refuse);
    });
  }
  if (kind !== "fetch") {
    // Protection keys: those that restrict nothing may be used here.
    b.if(any(cr4, CR4_PKE), () => {
      b.if(and(ne(and(rights, U), 0), ne(and(walk.efer, EFER_LMA), 0)), () => {
        const bits = shl(and(wrap(shrU(walk.entry, 59n)), 15), 1);
        b.if(any(shrU(load32(base, S.PKRU), bits), 3), walk.giveUp);
      });
    });
  }
}

/** A page fault in root operation or outside VMX operation, as `Translator.pageFault` records it; otherwise falls through to giving up. */
function writePageFault(walk: Walk, parts: Parts, present: Local): void {
  const { b, base, aux, linear, kind } = walk;
  b.if(ne(load32(base, S.VMX_MODE), 2), () => {
    b.if(call(parts.flushPage, base, aux, linear), () => {
      b.count(aux, AUX.counters + 8 * COUNTER.lookups);
      b.count(aux, AUX.counters + 8 * COUNTER.tlbMisses);
      b.count(add(aux, walk.path), AUX.paths);
      b.count(aux, AUX.counters + 8 * COUNTER.pageFaults);
      b.store64(base, S.CR2, linear);
      b.store32(base, S.FAULTVECTOR, 14);
      const code = or(or(present, shl(walk.user, 2)), kind === "write" ? 2 : 0);
      b.store32(base, S.FAULTCODE, code);
      b.store32(base, S.EXIT, EXIT_FAULT);
      b.return(PAGE_FAULT);
    });
  });
}

/** Flags of the leaf, the second dimension of the page itself, the fill, the counts, the answer. */
function writeResult(walk: Walk, parts: Parts, cr0: Local, slot: Local): void {
  const { b, base, aux, entry, low, kind, linear } = walk;
  const leaf = b.let(wrap(entry));
  const inside = b.let(and(sub(shl(1, walk.shift), 1), -4096));
  const page = b.let(or(and(leaf, xor(or(inside, 0xfff), -1)), and(low, inside)));
  const pageFlags = b.local(T.i32);
  const checkPage = () => {
    b.set(pageFlags, load8(shrU(page, 12), PAGE_FLAGS_BASE));
    if (kind === "read") b.if(ne(and(pageFlags, PAGE_RAM | PAGE_WATCH), PAGE_RAM), walk.giveUp);
    else if (kind === "write") b.if(ne(pageFlags, PAGE_RAM), walk.giveUp);
    else b.if(none(pageFlags, PAGE_RAM), walk.giveUp);
  };
  const record = kind === "fetch" ? b.local(T.i32) : undefined;
  const codeTable = kind === "fetch" ? b.local(T.i32) : undefined;
  const findRecord = () => {
    if (record === undefined || codeTable === undefined) return;
    const tables = mul(load32(base, S.CODEMODE), CODE_TABLES_STRIDE);
    b.set(codeTable, load32(add(shl(shrU(page, 12), 2), tables), CODE_TABLES_BASE));
    b.if(eqz(codeTable), walk.giveUp);
    b.set(record, load32(add(codeTable, shl(and(low, 0xfff), 2))));
    b.if(eqz(record), walk.giveUp);
  };
  if (!walk.nested) {
    checkPage();
    findRecord();
  }
  // Non-root operation: the APIC-access page never gets into the fast TLB.
  const checkApic = () => b.if(eq(extendU(page), load64(base, S.VMX_APIC_ACCESS)), walk.giveUp);
  if (!walk.nested) b.if(eq(load32(base, S.VMX_MODE), 2), checkApic);
  const want = kind === "write" ? A | D : A;
  b.if(any(xor(leaf, -1), want), () => {
    makeWritable(walk, parts, walk.level);
    b.if(none(leaf, A), () => b.count(aux, AUX.counters + 8 * COUNTER.accessedSet));
    if (kind === "write") {
      b.if(none(leaf, D), () => b.count(aux, AUX.counters + 8 * COUNTER.dirtySet));
    }
    b.set(leaf, or(leaf, want));
    b.store32(walk.at, RAM_BASE, leaf);
  });
  const dirty = b.let(shrU(and(leaf, D), ctz(D)));
  if (walk.nested) {
    let need: Value = kind === "read" ? 1 : kind === "write" ? 2 : 4;
    if (kind === "fetch") {
      const proc2 = load32(base, S.VMX_PROC2);
      need = select(and(any(walk.both, BigInt(U)), shrU(and(proc2, 1 << 22), 22)), 0x400, 4);
    }
    const gpa = or(page, and(low, 0xfff));
    const host = b.let(call(parts.ept, base, aux, gpa, need, 0, walk.order));
    b.if(eq(host, EPT_GAVE_UP), walk.giveUp);
    b.set(walk.order, add(walk.order, 1));
    b.set(dirty, and(dirty, wrap(and(host, EPT_WRITABLE))));
    b.set(page, and(wrap(host), -4096));
    checkPage();
    findRecord();
    checkApic();
  }
  b.count(aux, AUX.counters + 8 * COUNTER.lookups);
  b.count(aux, AUX.counters + 8 * COUNTER.tlbMisses);
  b.count(add(aux, walk.path), AUX.paths);
  const global = b.let(select(any(walk.cr4, CR4_PGE), shrU(and(leaf, G), 8), 0));
  if (record !== undefined && codeTable !== undefined) {
    b.count(aux, AUX.counters + 8 * COUNTER.fetchMisses);
    const entryAt = b.let(add(slot, FTLB_FETCH));
    b.call(parts.fill, base, aux, entryAt, linear, codeTable, walk.shift, global, 0);
    b.store32(entryAt, 12, or(page, 1));
    b.return(record);
    return;
  }
  b.count(aux, AUX.counters + 8 * COUNTER.fastFills);
  const value = b.let(sub(add(page, RAM_BASE), and(low, -4096)));
  const fill = (table: number, held: Value) =>
    b.call(parts.fill, base, aux, add(slot, table), linear, value, walk.shift, global, held);
  /** Whether the table's entry does not hold another page. */
  const isFree = (table: number): Expr => {
    const tag = load64(slot, table);
    return or(eq(wrap(tag), -1), eq(and(tag, -2n), and(linear, -4096n)));
  };
  if (kind === "write") {
    b.if(isFree(FTLB_READ), () => fill(FTLB_READ, 0));
    fill(FTLB_WRITE, 0);
  } else {
    fill(FTLB_READ, 0);
    b.if(eq(and(pageFlags, ~PAGE_CODE & 0xff), PAGE_RAM), () => {
      // The rights of a write, D being set.
      const free = and(eqz(walk.user), none(cr0, CR0_WP));
      const granted = or(any(walk.both, BigInt(W)), free);
      b.if(and(dirty, granted), () => {
        b.if(isFree(FTLB_WRITE), () => fill(FTLB_WRITE, ne(pageFlags, PAGE_RAM)));
      });
    });
  }
  b.return(add(value, low));
}
