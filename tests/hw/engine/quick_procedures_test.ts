/**
 * The procedures that have a short way in wasm (INT n, IRET, SYSCALL, SYSRET, INVLPG, MOV to CR3, delivery of a fault) leave the same
 * state as the TypeScript ones, for random tables, gates, segments, stacks and flags.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { FAULT } from "../../../hw/cpu.ts";
import { missFunctions } from "../../../hw/engine/misses.ts";
import { PROCEDURE_DONE, PROCEDURE_END, PROCEDURE_FAULT } from "../../../hw/engine/wasm/builder.ts";
import { DELIVERED } from "../../../hw/engine/wasm/event_parts.ts";
import { QUICK_PROCEDURES } from "../../../hw/engine/wasm/misses.ts";
import { CR0_AM, CR4_PCIDE, CR4_PGE, CR4_SMAP } from "../../../hw/paging.ts";
import { procedures } from "../../../hw/procedures.ts";
import { Random } from "../../../hw/random.ts";
import { EXIT_END, EXIT_NONE, RFLAGS, S, SEG } from "../../../hw/state.ts";
import { deliverFault } from "../../../hw/sys/event.ts";
import { updateMode } from "../../../hw/sys/mode.ts";
import { Bench } from "../paging_fixture.ts";

const GDT = 0x20_0000, IDT = 0x20_1000, TSS = 0x20_2000, STACK = 0x20_3000, OTHER_STACK = 0x20_4000;

/** A procedure of TypeScript as an engine calls it. */
function typescript(bench: Bench, name: string): number {
  const { cpu } = bench;
  if (name === "deliverFault") {
    deliverFault(cpu);
    return 0;
  }
  try {
    const code = procedures[name]!(cpu);
    if (code === EXIT_NONE) return PROCEDURE_DONE;
    if (code === EXIT_END) return PROCEDURE_END;
    cpu.set32(S.EXIT, code);
    return PROCEDURE_FAULT;
  } catch (e) {
    if (e !== FAULT) throw e;
    return PROCEDURE_FAULT;
  }
}

/** A bench on which the wasm ways stand in front; says how often TypeScript was asked. */
function wasm(bench: Bench): { call(name: string): number; asked: () => number } {
  let asked = 0;
  const slow = Object.fromEntries(
    QUICK_PROCEDURES.map((name) => [`proc:${name}`, () => {
      asked++;
      return typescript(bench, name);
    }]),
  );
  const functions = missFunctions(bench.memory, [bench.cpu], slow);
  return {
    asked: () => asked,
    call(name) {
      if (name !== "deliverFault") return functions[`proc:${name}`]!(bench.cpu.base) as number;
      if (functions[name]!(bench.cpu.base) === DELIVERED.NOT) {
        asked++;
        typescript(bench, name);
      }
      return 0;
    },
  };
}

/** Low and high half of a descriptor. */
function descriptor(type: number, dpl: number, flags: number, base = 0, limit = 0xf_ffff): [number, number] {
  return [
    (limit & 0xffff) | (base << 16),
    ((base >>> 16) & 0xff) | (type << 8) | (dpl << 13) | (limit & 0xf_0000) | (flags << 20) |
    (base & 0xff00_0000),
  ];
}

function setUp(next: () => number, inner: boolean, wide: boolean, guest: boolean): (bench: Bench) => void {
  const below = (n: number) => next() % n, one = (n: number) => below(n) === 0;
  // In two of three rounds nothing is out of the ordinary.
  const strange = one(3), odd = (n: number) => strange && one(n);
  const pick = <T>(from: readonly T[]): T => from[below(from.length)]!;
  // 64-bit code and data for the rings 0 … 3, now and then with something wrong.
  const words: number[] = [0, 0];
  for (let i = 1; i < 16; i++) {
    const code = i % 2 === 1, dpl = ((i - 1) >>> 1) & 3;
    let type = code ? 0x9b : 0x93, flags = code && wide ? 0xa : 0xc;
    if (odd(8)) type = pick([0x9a, 0x9f, 0x1b, 0x92, 0x97, 0x91, 0x83, 0x9b]);
    if (odd(12)) flags = pick([0xc, 0xe, 0x8, 0x2]);
    words.push(...descriptor(type, dpl, flags, one(6) ? 0x1234_5000 : 0, one(4) ? 0x1_1234 : 0xf_ffff));
  }
  const cpl = inner && !odd(2) ? 0 : pick([0, 0, 3, 3, 1, 2]);
  const gates: number[] = [];
  for (let v = 0; v < 40; v++) {
    const selector = (1 + 2 * (odd(2) ? below(4) : wide ? 0 : cpl)) * 8 + (one(6) ? below(4) : 0);
    const type = odd(8) ? pick([5, 0xc, 0x6, 0xe]) : pick([0xe, 0xf]);
    const target = 0x40_0000 + v * 16;
    const ist = one(4) ? below(8) : 0;
    gates.push(
      (target & 0xffff) | (selector << 16),
      ist | (type << 8) | ((odd(2) ? below(4) : 3) << 13) | (odd(12) ? 0 : 0x8000) | (target & 0xffff_0000),
      ...(wide ? [odd(12) ? 0x1_0000 : pick([0, 0xffff_8000 | 0]), 0] : []),
    );
  }
  const stackAt =
    () => [pick([STACK, OTHER_STACK]) + (odd(6) ? below(64) : 0x800 + below(16) * (one(3) ? 1 : 8)), 0];
  const tss: number[] = [0];
  for (let i = 0; i < 12; i++) tss.push(...(odd(16) ? [0, 0x1_0000] : stackAt()));
  const rsp = stackAt();
  const cs = (1 + 2 * cpl) * 8 | cpl;
  const ring = !wide && !odd(4) ? cpl : Math.max(cpl, pick([cpl, 3, 3, odd(2) ? 0 : cpl]));
  const frame = [
    0x40_0000 + below(0x1000),
    odd(12) ? 0x1_0000 : 0,
    (odd(10) ? below(64) : (1 + 2 * ring) * 8) | (odd(12) ? below(4) : ring),
    0,
    next(),
    0,
    rsp[0]!,
    0,
    odd(6) ? below(64) : (odd(6) && ring < 3) ? ring : (2 + 2 * ring) * 8 | ring,
    0,
  ];
  if (!odd(2)) frame[4]! &= 0xed5 | RFLAGS.IF;
  frame[4]! &= ~RFLAGS.TF | (odd(8) ? RFLAGS.TF : 0);
  const flags = 2 | (one(3) ? RFLAGS.IF : 0) | (odd(3) ? RFLAGS.AC : 0) | (odd(16) ? RFLAGS.NT : 0) |
    (below(4) << 12) | (odd(20) ? RFLAGS.TF : 0) | (one(8) ? RFLAGS.RF : 0);
  const cr4 = 0x20 | (odd(3) ? CR4_SMAP : 0) | (one(3) ? CR4_PGE : 0) | (one(3) ? CR4_PCIDE : 0);
  const status = [next(), next(), next() & (one(2) ? 0x109 : 8), next() & 0xc000_0000];
  const arg = next(), am = one(2) ? CR0_AM : 0, attention = odd(8) ? pick([1, 2, 8]) : 0;
  const segments = Array.from({ length: 4 }, () => pick([0x93 | (below(4) << 5), 0x1_0000, 0x9f, 0xf3]));
  const msr = [odd(3) ? next() : next() & 0xed5, next(), next()];
  const limits = [odd(8) ? 0x37 : 0xff, odd(8) ? 0x1f : 0xfff, odd(10) ? 0x20 : 0x67];
  const warm = odd(8) ? below(32) : 31;
  if (!wide) frame.splice(0, frame.length, frame[0]!, frame[2]!, frame[4]! & ~(odd(4) ? 0 : RFLAGS.VM));
  const pin = odd(2) ? below(64) : 1, blocking = odd(3) ? 8 : 0;
  return (bench) => {
    const { cpu, memory } = bench;
    const put = (at: number, values: readonly number[]) =>
      values.forEach((value, i) => bench.poke32(at + i * 4, value));
    put(GDT, words);
    put(IDT, gates);
    put(TSS, tss);
    put(rsp[0]! & ~3, frame);
    cpu.set32(S.CR0, (cpu.get32(S.CR0) & ~CR0_AM) | 1 | am);
    cpu.set32(S.CR4, wide ? cr4 : cr4 & ~CR4_PCIDE);
    cpu.set32(S.EFER, wide ? 0xd01 : 0x801);
    cpu.set32(S.CPL, cpl);
    cpu.set64Halves(S.GDTR, GDT, 0);
    cpu.set32(S.GDTR + 8, limits[0]!);
    cpu.set64Halves(S.IDTR, IDT, 0);
    cpu.set32(S.IDTR + 8, limits[1]!);
    bench.segment(SEG.TR, BigInt(TSS), limits[2]!, 0x8b);
    bench.segment(SEG.CS, 0n, 0xffff_ffff, (wide ? 0xa09b : 0xc09b) | (cpl << 5));
    bench.segment(SEG.SS, 0n, 0xffff_ffff, 0xc093 | (cpl << 5));
    [SEG.ES, SEG.DS, SEG.FS, SEG.GS].forEach((seg, i) => bench.segment(seg, 0x1000n, 0xffff, segments[i]!));
    cpu.set32(S.SEGSEL + SEG.CS * 4, cs);
    cpu.set32(S.SEGSEL + SEG.SS * 4, cs + 8);
    cpu.set32(S.RFLAGS, flags);
    status.forEach((value, i) => memory.i32[((cpu.base + S.FRES) >>> 2) + i] = value);
    cpu.set64Halves(S.GPR + 4 * 8, rsp[0]!, rsp[1]!);
    cpu.set64Halves(S.GPR + 8, 0x40_0000 + (arg & 0xfff), (arg & 0xff) === 0 ? 0x1_0000 : 0);
    cpu.set64Halves(S.GPR + 11 * 8, msr[0]!, 0);
    cpu.set64Halves(S.STAR, 0, msr[1]!);
    cpu.set64Halves(S.LSTAR, 0x40_0123, 0xffff_8000);
    cpu.set64Halves(S.FMASK, msr[2]! & 0x4_7fd7, 0);
    cpu.set64Halves(S.RIP, 0x40_0020, 0);
    cpu.set32(S.ATTENTION, attention);
    if (guest) {
      cpu.set32(S.VMX_MODE, 2);
      cpu.set32(S.VMX_PIN, pin);
      cpu.set32(S.BLOCKING, blocking);
    }
    updateMode(cpu);
    bench.access.tlb.flushFast();
    // What the fast TLB has of the tables and stacks.
    const now = cpu.get32(S.CPL);
    for (const ring of [0, now]) {
      bench.cpl(ring);
      [GDT, IDT, TSS, STACK, OTHER_STACK].forEach((page, i) => {
        if ((warm >>> i) & 1) {
          bench.fault(() => bench.access.write(page + 0xff8, 0, 4, 0, 0, ring === now ? 0 : 1));
        }
      });
    }
    updateMode(cpu);
  };
}

function make(wide: boolean): Bench {
  const bench = new Bench();
  if (!wide) bench.protectedMode(true);
  for (let page = 0x20_0000; page < 0x20_8000; page += 4096) bench.map(BigInt(page), page, 7n);
  if (wide) bench.map(0x8000_0000n, 0, 0x187n, 2);
  return bench;
}

function assertSame(a: Bench, b: Bench, whole: boolean, what: string): void {
  // What is told with a VM exit in the middle of a delivery: left over when there is none.
  const told: readonly number[] = [S.VMX_VECTORING_CODE, S.VMX_VECTORING_LENGTH, S.VMX_VECTORING_FLAGS];
  const difference = (from: number, to: number) => {
    for (let i = from >>> 2; i < to >>> 2; i++) {
      const at = i * 4 - a.cpu.base;
      // Scratch: the frame that TypeScript gathers, and SPILL.
      if ((at >= S.FRAME && at < S.FRAME + 64) || (at >= S.SPILL && at < S.SPILL + 64)) continue;
      if (told.includes(at)) continue;
      if (a.memory.i32[i] !== b.memory.i32[i]) {
        throw new Error(
          `${what}: ${(i * 4).toString(16)}: ${a.memory.u32[i]!.toString(16)}, TypeScript ${
            b.memory.u32[i]!.toString(16)
          }`,
        );
      }
    }
  };
  difference(a.cpu.base, a.cpu.base + (whole ? 0x4_0000 : 0x1000));
  difference(0x400_0000 + 0x20_0000, 0x400_0000 + 0x20_8000);
  assertEquals(a.cpu.counters.snapshot(), b.cpu.counters.snapshot(), what);
}

describe("procedures with a short way in wasm", () => {
  const names = ["int", "deliverFault", "iret", "syscall", "sysret", "invlpg", "writeCr"];
  const cases: (readonly [name: string, mode: "64-bit" | "32-bit" | "guest"])[] = [
    ...names.map((name) => [name, "64-bit"] as const),
    ...["int", "deliverFault", "iret"].map((name) => [name, "32-bit"] as const),
    ...["int", "iret", "syscall", "sysret", "invlpg", "writeCr"].map((name) => [name, "guest"] as const),
  ];
  for (const [name, mode] of cases) {
    const wide = mode !== "32-bit";
    it(`${name}, ${mode}: the same as in TypeScript`, () => {
      const random = new Random(name.length * 7 + name.charCodeAt(0)), next = () => random.next() | 0;
      const a = make(wide), b = make(wide);
      const quick = wasm(a);
      const rounds = 1000;
      for (let n = 0; n < rounds; n++) {
        const prepare = setUp(() => next() >>> 0, name === "sysret", wide, mode === "guest");
        const args = name === "int"
          ? [(next() >>> 0) % 41, 0]
          : name === "iret"
          ? [(n % 16 === 0) === wide ? 32 : 64, 0]
          : name === "sysret"
          ? [n % 16 === 0 ? 32 : 64, 0]
          : name === "writeCr"
          ? [n % 8 === 0 ? 2 : 3, 0]
          : [n % 3 === 0 ? 0x8000_0000 : GDT + (n % 5) * 4096, n % 16 === 0 ? 0x1_0000 : 0];
        const fault = [[14, (next() >>> 0) % 8], [13, 0], [0, -1], [6, -1], [1, -1], [17, 0], [
          8,
          0,
        ]][(next() >>> 0) % 7]!;
        const results = [a, b].map((bench) => {
          prepare(bench);
          const { cpu } = bench;
          cpu.set64Halves(S.ARG, args[0]!, args[1]!);
          cpu.set64Halves(
            S.ARG + 8,
            bench.root | (cpu.get32(S.CR4) & CR4_PCIDE ? n % 3 : 0),
            n % 9 === 0 ? 1 << 31 : 0,
          );
          cpu.set32(S.FAULTVECTOR, fault[0]!);
          cpu.set32(S.FAULTCODE, fault[1]!);
          cpu.set32(S.EXIT, 3);
          if (wide && n % 4 === 0) bench.fault(() => bench.read(0x8000_1000n));
          return bench === a ? quick.call(name) : typescript(bench, name);
        });
        assertEquals(results[0], results[1], `${name}, round ${n}`);
        assertSame(a, b, n % 64 === 63, `${name}, round ${n}`);
      }
      // The test means nothing unless wasm does a good part of it.
      assert(quick.asked() < rounds * 0.7, `TypeScript was asked ${quick.asked()} times of ${rounds}`);
    });
  }
});
