/**
 * The EPT walk in wasm: what ept_walk.ts does in the common case, and nothing otherwise.
 *
 * It walks 4 levels of EPT that stand in RAM below 4 GiB, for an access that every entry allows, and sets accessed and dirty flags as
 * ept_walk.ts does, with the same counts. In every other case (no right, a misconfiguration, execute-only entries, 5 levels, a full or
 * to-be-written page-modification log, tables that are not plain RAM) it gives up, having changed nothing.
 *
 * Room: `hw/engine/wasm/`; imports expressions.ts, state.ts, ept_format.ts.
 *
 * @module
 */
import { COUNTER } from "../../counters.ts";
import { EPTE, type EptFeatures, EPTP, eptReservedBits } from "../../ept_format.ts";
import { AUX, PAGE_FLAGS_BASE, PAGE_RAM, RAM_BASE, S } from "../../state.ts";
import { type ModuleWriter, T } from "./emit.ts";
import {
  add,
  and,
  any,
  Body,
  type Callee,
  eq,
  eqz,
  extendU,
  load32,
  load64,
  load8,
  type Local,
  ne,
  none,
  or,
  shl,
  shrU,
  type Value,
  wrap,
  xor,
} from "./expressions.ts";

/** What {@link writeEptWalk} gives where it gives up. */
export const EPT_GAVE_UP = -1n;
/** Bits beside the page in the result of {@link writeEptWalk}: a write needs no further flag, and EPT lets it. */
export const EPT_WRITABLE = 1n;

/** "Mode-based execute control for EPT" and "enable PML" among the secondary controls. */
const MODE_BASED = 1 << 22, PML = 1 << 17;
/** Memory types that do not exist, as bits: 2, 3 and 7. */
const BAD_TYPES = 1 << 2 | 1 << 3 | 1 << 7;
const A = EPTE.A, D = EPTE.D;

/** What must be 0 in an entry besides R, which must be 1: reserved bits, and addresses from 4 GiB up. */
function mustBeZero(level: number, leaf: boolean, features: EptFeatures): bigint {
  const { low, high } = eptReservedBits(level, leaf, features);
  return (BigInt((high | 0xf_ffff) >>> 0) << 32n) | BigInt(low >>> 0);
}

/**
 * Writes the function (base, aux, guest-physical address, need, slot, order) → host-physical address of the 4-KiB page with
 * {@link EPT_WRITABLE}, or {@link EPT_GAVE_UP}. The walk is counted; where the count stands is left in `AUX.undo` at index `order`.
 */
export function writeEptWalk(module: ModuleWriter, features: EptFeatures): Callee {
  const b = new Body([T.i32, T.i32, T.i32, T.i32, T.i32, T.i32], T.i64);
  const [base, aux, gpa, need, slot, order] = b.parameters as [Local, Local, Local, Local, Local, Local];
  const giveUp = () => b.return(EPT_GAVE_UP);
  const eptp = b.let(load32(base, S.VMX_EPTP));
  // Four levels, with tables below 4 GiB.
  b.if(or(ne(and(eptp, EPTP.LENGTH), 3 << 3), load32(base, S.VMX_EPTP + 4)), giveUp);
  const proc2 = b.let(load32(base, S.VMX_PROC2));
  const table = b.let(and(eptp, -4096));
  const rights = b.let(EPTE.R | EPTE.W | EPTE.X | EPTE.XU);
  const entries = [0, 1, 2, 3, 4].map(() => b.local(T.i32));
  const places = [0, 1, 2, 3, 4].map(() => b.local(T.i32));
  const entry = b.local(T.i64), level = b.local(T.i32), inside = b.local(T.i32);
  /** AND of the accessed flags of the path. */
  const accessed = b.let(A);
  b.block((leaf) => {
    for (let n = 4; n >= 1; n--) {
      const at = places[n]!, low = entries[n]!;
      const index = n === 4 ? 0 : shl(and(shrU(gpa, 12 + 9 * (n - 1)), 511), 3);
      b.set(at, n === 4 ? table : add(table, index));
      b.if(none(load8(shrU(at, 12), PAGE_FLAGS_BASE), PAGE_RAM), giveUp);
      b.set(entry, load64(at, RAM_BASE));
      b.set(low, wrap(entry));
      // Without mode-based control bit 10 is ignored, and bit 2 is for all fetches.
      b.set(
        rights,
        and(
          rights,
          or(
            and(low, EPTE.R | EPTE.W | EPTE.X),
            and(EPTE.XU, shl(and(low, EPTE.X), 8)),
          ),
        ),
      );
      b.if(any(proc2, MODE_BASED), () => {
        // Then bit 10 is a right of its own: such a walk is left to TypeScript unless both kinds of fetch are treated alike.
        b.if(any(xor(low, shrU(low, 8)), EPTE.X), giveUp);
      });
      b.set(accessed, and(accessed, low));
      const takeLeaf = () => {
        const zero = mustBeZero(n, true, features);
        b.if(ne(and(entry, zero | 1n), 1n), giveUp);
        b.if(any(shrU(BAD_TYPES, and(shrU(low, 3), 7)), 1), giveUp);
        b.set(level, n);
        b.set(inside, n === 1 ? 0 : n === 2 ? 0x1f_f000 : 0x3fff_f000);
      };
      if (n === 1) {
        takeLeaf();
        continue;
      }
      if (n < 4) {
        b.if(any(low, EPTE.PS), () => {
          takeLeaf();
          b.br(leaf);
        });
      }
      b.if(ne(and(entry, mustBeZero(n, false, features) | 1n), 1n), giveUp);
      b.set(table, and(low, -4096));
    }
  });
  b.if(ne(and(need, rights), need), giveUp);
  const leafLow = b.let(wrap(entry));
  // EPT_WRITABLE: W, and D set or flags off.
  const writable = b.let(and(shrU(rights, 1), 1));
  b.if(any(eptp, EPTP.AD), () => {
    const wanted = b.let(or(A, shl(and(need, EPTE.W), 8)));
    b.set(accessed, and(accessed, A));
    b.if(or(eqz(accessed), any(and(wanted, xor(leafLow, -1)), D)), () => {
      b.if(any(proc2, PML), giveUp);
      forEachLevel(b, level, places, (at) => {
        b.if(ne(load8(shrU(at, 12), PAGE_FLAGS_BASE), PAGE_RAM), giveUp);
      });
      forEachLevel(b, level, places, (at, n) => {
        const low = entries[n]!;
        b.if(none(low, A), () => {
          b.count(aux, AUX.counters + 8 * COUNTER.eptAccessedSet);
          b.store32(at, RAM_BASE, or(low, A));
        });
      });
      b.if(any(and(wanted, xor(leafLow, -1)), D), () => {
        b.count(aux, AUX.counters + 8 * COUNTER.eptDirtySet);
        forLeaf(b, level, places, (at) => b.store32(at, RAM_BASE, or(leafLow, A | D)));
        b.set(leafLow, or(leafLow, D));
      });
    });
    b.set(writable, and(writable, shrU(leafLow, 9)));
  });
  const cell = b.let(add(aux, shl(add(add(shl(slot, 6), 4 * 8), level), 3)));
  b.count(cell, AUX.eptPaths);
  b.store32(add(aux, shl(order, 2)), AUX.undo, cell);
  const page = or(and(leafLow, xor(or(inside, 0xfff), -1)), and(gpa, inside));
  b.return(or(extendU(page), extendU(writable)));
  return b.define(module);
}

/** Writes code for each level of the path, from the root to the leaf's level. */
function forEachLevel(
  b: Body,
  level: Value,
  places: readonly Local[],
  what: (at: Local, level: number) => void,
): void {
  b.block((done) => {
    for (let n = 4; n >= 1; n--) {
      what(places[n]!, n);
      if (n > 1) b.brIf(done, eq(level, n));
    }
  });
}

function forLeaf(b: Body, level: Value, places: readonly Local[], what: (at: Local) => void): void {
  for (let n = 3; n >= 1; n--) b.if(eq(level, n), () => what(places[n]!));
}

/** Takes back what `order` EPT walks have counted. */
export function writeUndo(b: Body, aux: Local, order: Local): void {
  b.loop((again) => {
    b.if(order, () => {
      b.set(order, add(order, -1));
      b.count(load32(add(aux, shl(order, 2)), AUX.undo), AUX.eptPaths, -1);
      b.br(again);
    });
  });
}
