/**
 * REP MOVS and REP STOS by the page in wasm do what one element at a time does, and stop where they must.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { missFunctions } from "../../../hw/engine/misses.ts";
import { STOP } from "../../../hw/engine/wasm/bulk.ts";
import { PSEUDO } from "../../../hw/engine/wasm/interpreter_module.ts";
import { Random } from "../../../hw/random.ts";
import { BLOCK_MAX, R, RAM_BASE, S, SEG } from "../../../hw/state.ts";
import { Bench } from "../paging_fixture.ts";

const FIRST = 0x20_0000, PAGES = 8;

/** RSI or RDI, with the segment base outside 64-bit mode. */
function linear(bench: Bench, register: number, seg: number, wide: boolean): bigint {
  const offset = bench.cpu.gpr(register);
  return wide ? offset : (offset + bench.cpu.segBase(seg)) & 0xffff_ffffn;
}

Deno.test("the number of the stop record is known", () => assertEquals(STOP, PSEUDO.stop));

Deno.test("repeated moves and stores in wasm are those of one element at a time", () => {
  const random = new Random(4), below = (n: number) => random.next() % n;
  const one = new Bench(), many = new Bench();
  const bulk = missFunctions(many.memory, [many.cpu], {})["bulk"]!;
  let done = 0, long = 0;
  for (let round = 0; round < 1500; round++) {
    const wide = below(2) === 0, kind = 1 + below(2), size = [1, 2, 4, 8][below(wide ? 4 : 3)]!;
    const seg = below(8) === 0 ? SEG.FS : SEG.DS;
    const esBase = below(2) * 0x1000, limit = below(3) === 0 ? 0x20_2fff : 0xffff_ffff;
    const count = below(4) === 0 ? below(8) : below(9000), remaining = below(3) === 0 ? below(3000) : 100_000;
    const from = FIRST + below(PAGES * 4096),
      to = below(3) === 0 ? from + below(40) - 20 : FIRST + below(PAGES * 4096);
    const direction = below(12) === 0 ? 0x400 : 0, value = BigInt(random.next()) * 0x1_0000_0001n;
    const missing = below(PAGES + 4);
    for (const bench of [one, many]) {
      const { cpu } = bench;
      cpu.set32(S.CODEMODE, wide ? 2 : 1);
      cpu.set32(S.RFLAGS, 2 | direction);
      bench.update();
      for (let page = 0; page < PAGES; page++) {
        bench.map(BigInt(FIRST + page * 4096), FIRST + page * 4096, page === missing ? 0n : 7n);
        if (page !== missing) bench.write(BigInt(FIRST + page * 4096), round + page);
      }
      for (const s of [SEG.ES, SEG.DS, SEG.FS]) {
        bench.segment(s, s === SEG.ES ? BigInt(esBase) : 0n, limit, 0xc093);
        cpu.set64(S.SEGRMAX + s * 8, BigInt(limit));
        cpu.set64(S.SEGWMAX + s * 8, BigInt(limit));
      }
      cpu.setGpr(R.RAX, value);
      cpu.setGpr(R.RCX, BigInt(count));
      cpu.setGpr(R.RSI, BigInt(from));
      cpu.setGpr(R.RDI, BigInt(to - (wide ? 0 : esBase)));
    }
    const info = size | ((wide ? 64 : 32) << 4) | (seg << 12) | ((wide ? 2 : 1) << 16) | (kind << 20);
    const n = bulk(many.cpu.base, 0, remaining << 5, info) as number;
    assert(
      n === 0 || n <= Math.min(count - 1, remaining - 1 - BLOCK_MAX),
      `round ${round}: ${n} of ${count}`,
    );
    if (direction !== 0) assertEquals(n, 0);
    for (let i = 0; i < n; i++) {
      const { cpu } = one;
      const element = kind === 1 ? one.read(linear(one, R.RSI, seg, wide), size as 1 | 2 | 4 | 8) : 0;
      const high = one.access.high;
      const at = linear(one, R.RDI, SEG.ES, wide);
      if (!wide) assert(cpu.gpr(R.RDI) + BigInt(size) - 1n <= BigInt(limit), `round ${round}: limit`);
      if (kind === 1) one.access.write(Number(at), 0, size as 1 | 2 | 4 | 8, element, high);
      else {one.access.write(
          Number(at),
          0,
          size as 1 | 2 | 4 | 8,
          Number(value & 0xffff_ffffn),
          Number(value >> 32n),
        );}
      if (kind === 1) cpu.setGpr(R.RSI, cpu.gpr(R.RSI) + BigInt(size));
      cpu.setGpr(R.RDI, cpu.gpr(R.RDI) + BigInt(size));
      cpu.setGpr(R.RCX, cpu.gpr(R.RCX) - 1n);
    }
    for (const register of [R.RAX, R.RCX, R.RSI, R.RDI]) {
      assertEquals(many.cpu.gpr(register), one.cpu.gpr(register), `round ${round}: register ${register}`);
    }
    for (let i = (RAM_BASE + FIRST) >>> 2; i < (RAM_BASE + FIRST + PAGES * 4096) >>> 2; i++) {
      if (one.memory.i32[i] !== many.memory.i32[i]) {
        throw new Error(`round ${round}: RAM at ${(i * 4 - RAM_BASE).toString(16)}`);
      }
    }
    if (n > 0) done++;
    if (n * size > 4096) long++;
  }
  // The test means nothing unless much is done at once, now and then over several pages.
  assert(done > 400 && long > 100, `${done} rounds, ${long} of more than a page`);
});
