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
 *     deliverFault      (base) → DELIVERED of events.ts, for the fault in FAULTVECTOR and FAULTCODE; RIP is the faulting instruction's
 *     bulk              (base, ptr, limit, info) → iterations of a repeated string instruction that are done (bulk.ts)
 *     proc:NAME         (base) → as the procedure of that name, for those of QUICK_PROCEDURES
 *
 * @module
 */
import { EXIT_FAULT, REC, S } from "../../state.ts";
import { RECORD_SHIFT } from "./base.ts";
import { ModuleWriter, T, type ValueType } from "./emit.ts";
import {
  add,
  and,
  Body,
  call,
  type Callee,
  eq,
  extendU,
  join,
  load16,
  load32,
  load64,
  load8,
  type Local,
  shrS,
  sub,
} from "./expressions.ts";
import { writeBulk } from "./bulk.ts";
import { writeEvents } from "./events.ts";
import { writeFlushes, writeFlushProcedures } from "./flushes.ts";
import { PAGE_FAULT, type WalkFeatures, type Walks, writeWalks } from "./walk.ts";

/** What the module imports: the ways in TypeScript, by what they do. Regions have functions of their own, with the same parameters. */
const WAYS = {
  load: ["loadSlow", "regionLoad"],
  store: ["storeSlow", "regionStore"],
  rmw: ["rmwSlow", "regionRmw"],
} as const;
/** Procedures of the instruction table that have a short way here; they are exported under the same names, `proc:NAME`. */
export const QUICK_PROCEDURES = ["invlpg", "writeCr", "int", "iret", "syscall", "sysret"] as const;
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
  const flushes = writeFlushes(module);
  const walks = writeWalks(module, features, flushes.page);
  for (const name of WAYS.load) writeLoad(module, name, walks.read, slow(name));
  for (const name of WAYS.rmw) writeLoad(module, name, walks.write, slow(name));
  for (const name of WAYS.store) writeStore(module, name, walks.write, slow(name));
  writeFetch(module, walks);
  writeFlushProcedures(module, flushes, slow, features.paging.maxPhysicalBits);
  writeEvents(module, slow);
  writeBulk(module);
  return module.finish();
}

/** Makes RIP and REMAINING exact: from a record and the limit, or from what a region passes in their place (handlers.ts). */
function expose(b: Body, region: boolean): void {
  const [base, second, third] = b.parameters as [Local, Local, Local];
  const offset = region ? extendU(second) : extendU(load16(second, REC.pageOffset));
  b.store64(base, S.RIP, add(load64(base, S.RIPPAGE), offset));
  b.store32(base, S.REMAINING, region ? third : shrS(sub(third, second), RECORD_SHIFT));
}

function writeLoad(module: ModuleWriter, name: string, walk: Callee, slow: Callee): void {
  const b = new Body(SLOW, T.i32);
  const [base, , , low, high, info] = b.parameters as [Local, Local, Local, Local, Local, Local];
  const host = b.let(call(walk, base, join(low, high), and(info, 0xff)));
  b.if(eq(host, PAGE_FAULT), () => {
    expose(b, name.startsWith("region"));
    b.return(0);
  });
  b.if(host, () => b.return(host));
  b.return(call(slow, ...b.parameters));
  b.define(module, name);
}

function writeStore(module: ModuleWriter, name: string, walk: Callee, slow: Callee): void {
  const b = new Body(SLOW, T.i32);
  const [base, , , low, high, info] = b.parameters as [Local, Local, Local, Local, Local, Local];
  const bytes = b.let(and(info, 0xff));
  const host = b.let(call(walk, base, join(low, high), bytes));
  b.if(eq(host, PAGE_FAULT), () => {
    expose(b, name.startsWith("region"));
    b.return(EXIT_FAULT);
  });
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
