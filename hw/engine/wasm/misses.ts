/**
 * The wasm module behind the fast TLB: what handlers and compiled code call when a probe misses. Its functions try the walks of
 * walk.ts and otherwise call the TypeScript of the same name.
 *
 * Room: `hw/engine/wasm/`; imports walk.ts. hw/engine/misses.ts makes an instance of it.
 *
 * Interface (all i32; `f` is what it imports, and what it exports under the same names):
 *
 *     loadSlow, rmwSlow (base, ptr, limit, linLow, linHigh, bytes | seg << 8) → host address, or 0 with S.EXIT set
 *     regionLoad, regionRmw: the same, called by compiled regions
 *     storeSlow, regionStore (the same; the value stands in SPILL) → 0, or nonzero with S.EXIT set
 *     fetchMiss         (base, ipLow, ipHigh) → the record of the instruction there, its page now being in the fetch table; or 0
 *     walkRead, walkWrite (base, linLow, linHigh, bytes) → host address, or 0 when it takes TypeScript: no fault is raised
 *
 * @module
 */
import { S } from "../../state.ts";
import { ModuleWriter, T, type ValueType } from "./emit.ts";
import {
  add,
  and,
  Body,
  call,
  type Callee,
  eq,
  join,
  load32,
  load64,
  load8,
  type Local,
} from "./expressions.ts";
import { writeFlushes, writeFlushProcedures } from "./flushes.ts";
import { type WalkFeatures, type Walks, writeWalks } from "./walk.ts";

/** What the module imports: the ways in TypeScript, by what they do. Regions have functions of their own, with the same parameters. */
const WAYS = {
  load: ["loadSlow", "regionLoad"],
  store: ["storeSlow", "regionStore"],
  rmw: ["rmwSlow", "regionRmw"],
} as const;
/** Procedures of the instruction table that have a short way here; they are exported under the same names, `proc:NAME`. */
export const QUICK_PROCEDURES = ["invlpg", "writeCr"] as const;
/** Names of the functions that the module imports. */
export const MISS_IMPORTS: readonly string[] = Object.values(WAYS).flat();

const SLOW: readonly ValueType[] = [T.i32, T.i32, T.i32, T.i32, T.i32, T.i32];

/** Writes the module for memories of so many pages of 64 KiB. */
export function writeMisses(memoryPages: number, features: WalkFeatures): Uint8Array<ArrayBuffer> {
  const module = new ModuleWriter(false, memoryPages);
  for (const name of MISS_IMPORTS) module.importFunction(name, SLOW, [T.i32]);
  for (const name of QUICK_PROCEDURES) module.importFunction(`proc:${name}`, [T.i32], [T.i32]);
  const slow = (name: string): Callee => ({
    index: module.importFunction(name, name.startsWith("proc:") ? [T.i32] : SLOW, [T.i32]),
    result: T.i32,
  });
  const walks = writeWalks(module, features);
  for (const name of WAYS.load) writeLoad(module, name, walks.read, slow(name));
  for (const name of WAYS.rmw) writeLoad(module, name, walks.write, slow(name));
  for (const name of WAYS.store) writeStore(module, name, walks.write, slow(name));
  writeFetch(module, walks);
  writePlain(module, "walkRead", walks.read);
  writePlain(module, "walkWrite", walks.write);
  const flushes = writeFlushes(module);
  writeFlushProcedures(module, flushes, slow, features.paging.maxPhysicalBits);
  return module.finish();
}

function writeLoad(module: ModuleWriter, name: string, walk: Callee, slow: Callee): void {
  const b = new Body(SLOW, T.i32);
  const [base, , , low, high, info] = b.parameters as [Local, Local, Local, Local, Local, Local];
  const host = b.let(call(walk, base, join(low, high), and(info, 0xff)));
  b.if(host, () => b.return(host));
  b.return(call(slow, ...b.parameters));
  b.define(module, name);
}

function writeStore(module: ModuleWriter, name: string, walk: Callee, slow: Callee): void {
  const b = new Body(SLOW, T.i32);
  const [base, , , low, high, info] = b.parameters as [Local, Local, Local, Local, Local, Local];
  const bytes = b.let(and(info, 0xff));
  const host = b.let(call(walk, base, join(low, high), bytes));
  b.if(host, () => {
    const done = () => b.return(0);
    b.if(eq(bytes, 8), () => {
      b.store64(host, 0, load64(base, S.SPILL));
      done();
    });
    b.if(eq(bytes, 4), () => {
      b.store32(host, 0, load32(base, S.SPILL));
      done();
    });
    b.if(eq(bytes, 16), () => {
      b.store64(host, 0, load64(base, S.SPILL));
      b.store64(host, 8, load64(base, S.SPILL + 8));
      done();
    });
    const from = b.let(add(base, S.SPILL));
    b.loop((again) => {
      b.store8(host, 0, load8(from));
      b.set(host, add(host, 1));
      b.set(from, add(from, 1));
      b.set(bytes, add(bytes, -1));
      b.brIf(again, bytes);
    });
    done();
  });
  b.return(call(slow, ...b.parameters));
  b.define(module, name);
}

function writeFetch(module: ModuleWriter, walks: Walks): void {
  const b = new Body([T.i32, T.i32, T.i32], T.i32);
  b.return(call(walks.fetch, b.parameter(0), join(b.parameter(1), b.parameter(2))));
  b.define(module, "fetchMiss");
}

function writePlain(module: ModuleWriter, name: string, walk: Callee): void {
  const b = new Body([T.i32, T.i32, T.i32, T.i32], T.i32);
  b.return(call(walk, b.parameter(0), join(b.parameter(1), b.parameter(2)), b.parameter(3)));
  b.define(module, name);
}
