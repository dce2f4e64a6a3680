/**
 * Memory as instructions see it: sizes, crossing pages, segments, canonical addresses, alignment, devices, ROM, decoded code.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { HOW } from "../../hw/access.ts";
import type { CodeWatch, MmioDevice } from "../../hw/bus.ts";
import { VECTOR } from "../../hw/cpu.ts";
import { CR0_AM, CR0_PG, CR4_LA57, CR4_SMAP } from "../../hw/paging.ts";
import {
  EXIT_FAULT,
  EXIT_NONE,
  EXIT_RETRY,
  PAGE_CODE,
  PAGE_ROM,
  PAGE_WATCH,
  RFLAGS,
  S,
} from "../../hw/state.ts";
import { Bench, SEG } from "./paging_fixture.ts";

const RAM = 0x20_0000, PAGE = 0x40_0000n, NEXT = 0x40_1000n;

/** A device that keeps what it is told. */
class Echo implements MmioDevice {
  readonly log: string[] = [];
  readMmio(offset: number, size: number): number {
    this.log.push(`r${size}@${offset}`);
    return 0x1111_1111 * (offset / 4 + 1);
  }
  writeMmio(offset: number, size: number, value: number): void {
    this.log.push(`w${size}@${offset}=${value.toString(16)}`);
  }
}

/** Decoded code in one range. */
class Watch implements CodeWatch {
  readonly dropped: [number, number][] = [];
  constructor(readonly from: number, readonly to: number) {}
  overlaps(physical: number, bytes: number): boolean {
    return physical < this.to && this.from < physical + bytes;
  }
  invalidate(physical: number, bytes: number): void {
    this.dropped.push([physical, bytes]);
  }
}

function twoPages(bits = 7n): Bench {
  const bench = new Bench();
  bench.map(PAGE, RAM, bits);
  bench.map(NEXT, RAM + 0x8000, bits);
  return bench;
}

describe("read and write", () => {
  it("carry 1, 2, 4 and 8 bytes at any alignment, first slowly and then through the fast TLB", () => {
    const bench = twoPages();
    for (let round = 0; round < 2; round++) {
      for (let offset = 0n; offset < 9n; offset++) {
        for (const size of [1, 2, 4, 8] as const) {
          bench.access.write(Number(PAGE + offset), 0, size, 0x8070_6050, 0xc0b0_a090, 0);
          const low = bench.access.read(Number(PAGE + offset), 0, size);
          const want = size === 1 ? 0x50 : size === 2 ? 0x6050 : 0x8070_6050;
          assertEquals([low, size === 8 ? bench.access.high : 0], [want, size === 8 ? 0xc0b0_a090 : 0]);
        }
      }
    }
  });

  it("write no byte more than asked", () => {
    const bench = twoPages();
    for (const size of [1, 2, 4, 8] as const) {
      bench.poke64(RAM, 0n);
      bench.poke64(RAM + 8, 0n);
      bench.access.write(Number(PAGE) + 3, 0, size, -1, -1, 0);
      const bytes = bench.peek64(RAM) | (bench.peek64(RAM + 8) << 64n);
      assertEquals(bytes, ((1n << BigInt(8 * size)) - 1n) << 24n);
    }
  });

  it("cross pages that are not neighbours in physical memory", () => {
    const bench = twoPages();
    bench.write(NEXT - 3n, 0x4433_2211);
    assertEquals(bench.peek32(RAM + 0xffc) >>> 8, 0x33_2211);
    assertEquals(bench.peek32(RAM + 0x8000), 0x44);
    assertEquals(bench.read(NEXT - 3n), 0x4433_2211);
    assertEquals([bench.read(NEXT - 6n, 8), bench.access.high], [0x1100_0000, 0x44_3322]);
  });

  it("write nothing when the second page refuses, and name its first byte in CR2", () => {
    const bench = twoPages();
    bench.map(NEXT, RAM + 0x8000, 5n);
    bench.poke32(RAM + 0xffc, 0x5555_5555);
    assertEquals(bench.fault(() => bench.write(NEXT - 2n, 0)), { vector: VECTOR.PF, code: 3, cr2: NEXT });
    assertEquals(bench.peek32(RAM + 0xffc), 0x5555_5555);
    const unmapped = new Bench();
    unmapped.map(PAGE, RAM, 7n);
    assertEquals(unmapped.fault(() => unmapped.read(NEXT - 1n, 2)), {
      vector: VECTOR.PF,
      code: 0,
      cr2: NEXT,
    });
    assertEquals(unmapped.fault(() => unmapped.read(0x40_3123n))?.cr2, 0x40_3123n);
  });

  it("tell user accesses from supervisor ones, and implicit ones from both", () => {
    const bench = twoPages(3n);
    bench.cpl(3);
    assertEquals(bench.fault(() => bench.read(PAGE)), { vector: VECTOR.PF, code: 5, cr2: PAGE });
    assertEquals(bench.fault(() => bench.write(PAGE, 1)), { vector: VECTOR.PF, code: 7, cr2: PAGE });
    assertEquals(bench.fault(() => bench.read(PAGE, 4, HOW.IMPLICIT)), undefined);
    assertEquals(bench.fault(() => bench.write(PAGE, 1, 4, HOW.IMPLICIT)), undefined);
    bench.map(PAGE, RAM, 5n);
    bench.invlpg(PAGE);
    assertEquals(
      bench.fault(() => bench.write(PAGE, 1, 4, HOW.IMPLICIT))?.code,
      3,
      "U = 0: not a user access",
    );
    bench.cr4(CR4_SMAP);
    assertEquals(bench.fault(() => bench.read(PAGE)), undefined);
    assertEquals(bench.fault(() => bench.read(PAGE, 4, HOW.IMPLICIT))?.code, 1);
  });
});

describe("non-canonical addresses", () => {
  it("give #GP(0), for stack references #SS(0), for any byte of the access", () => {
    const bench = twoPages();
    for (const [how, vector] of [[0, VECTOR.GP], [HOW.STACK, VECTOR.SS], [3, VECTOR.SS]] as const) {
      for (
        const linear of [0x8000_0000_0000n, 0xffff_7fff_ffff_fff0n, 0x0001_0000_0000_0000n, 0x7fff_ffff_fffdn]
      ) {
        const fault = bench.fault(() => bench.read(linear, 4, how));
        assertEquals([fault?.vector, fault?.code], [vector, 0], linear.toString(16));
      }
    }
    assertEquals(bench.fault(() => bench.read(0x7fff_ffff_fffcn))?.vector, VECTOR.PF);
    bench.cr4(CR4_LA57);
    assertEquals(bench.fault(() => bench.read(0x8000_0000_0000n))?.vector, VECTOR.PF);
    assertEquals(bench.fault(() => bench.read(0x0100_0000_0000_0000n))?.vector, VECTOR.GP);
  });

  it("of a fetch give #GP(0)", () => {
    const bench = twoPages();
    assertEquals(bench.fetch(0x8000_0000_0000n), -1);
    assertEquals([bench.recorded().vector, bench.recorded().code], [VECTOR.GP, 0]);
  });

  it("do not exist outside 64-bit mode: a crossing access wraps at 4 GiB", () => {
    const bench = new Bench();
    bench.protectedMode(true);
    bench.map(0xffff_f000n, RAM, 7n);
    bench.map(0n, RAM + 0x1000, 7n);
    bench.poke32(RAM + 0xffc, 0x2211_0000);
    bench.poke32(RAM + 0x1000, 0x0000_4433);
    assertEquals(bench.access.read(0xffff_fffe | 0, 0, 4), 0x4433_2211);
  });
});

describe("probe", () => {
  it("faults as the access would, and sets A and D but no data", () => {
    const bench = twoPages();
    const leaf = bench.map(NEXT, RAM, 5n)[1]!;
    const { access } = bench;
    assertEquals(bench.fault(() => access.probe(Number(PAGE), 0, 0x1000, true)), undefined);
    assertEquals(bench.fault(() => access.probe(Number(PAGE), 0, 0x1001, true))?.code, 3);
    assertEquals(bench.fault(() => access.probe(Number(PAGE), 0, 0x1001, false)), undefined);
    assertEquals(bench.peek64(leaf) & 0x60n, 0x20n);
    assertEquals(access.probeSlow(Number(NEXT), 0, 4, SEG.DS), EXIT_FAULT);
    assertEquals(access.probeSlow(Number(PAGE), 0, 4, SEG.DS), EXIT_NONE);
  });
});

describe("blocks of bytes", () => {
  it("go to and from a host address, across pages", () => {
    const bench = twoPages();
    const host = bench.cpu.base + S.VTEMP;
    const { u8 } = bench.memory;
    for (let i = 0; i < 200; i++) u8[host + i] = i;
    bench.access.writeBytes(Number(NEXT) - 100, 0, host, 200);
    u8.fill(0, host, host + 200);
    bench.access.readBytes(Number(NEXT) - 100, 0, host, 200);
    for (let i = 0; i < 200; i++) assertEquals(u8[host + i], i);
  });

  it("may span many pages", () => {
    const bench = new Bench();
    for (let i = 0; i < 8; i++) {
      bench.map(PAGE + BigInt(i) * 0x1000n, RAM + (7 - i) * 0x1000, i === 5 ? 5n : 7n);
    }
    const { u8 } = bench.memory, { access } = bench, host = 0x400_0000 + 0x30_0000;
    for (let i = 0; i < 0x4800; i++) u8[host + i] = i * 7;
    access.writeBytes(Number(PAGE) + 0x100, 0, host, 0x4800);
    access.readBytes(Number(PAGE) + 0x100, 0, host + 0x8000, 0x4800);
    assertEquals(u8.subarray(host, host + 0x4800), u8.subarray(host + 0x8000, host + 0xc800));
    u8.fill(0, host, host + 0x6000);
    assertEquals(
      bench.fault(() => access.writeBytes(Number(PAGE) + 0x100, 0, host, 0x5000))?.cr2,
      PAGE + 0x5000n,
    );
    access.readBytes(Number(PAGE) + 0x100, 0, host, 0x4800);
    assertEquals(
      u8.subarray(host, host + 0x4800),
      u8.subarray(host + 0x8000, host + 0xc800),
      "nothing was written",
    );
  });

  it("are written whole or not at all", () => {
    const bench = twoPages();
    bench.map(NEXT, RAM + 0x8000, 5n);
    const host = bench.cpu.base + S.VTEMP;
    bench.memory.u8.fill(0xaa, host, host + 16);
    assertEquals(bench.fault(() => bench.access.writeBytes(Number(NEXT) - 8, 0, host, 16))?.cr2, NEXT);
    assertEquals(bench.peek64(RAM + 0xff8), 0n);
  });
});

describe("segment", () => {
  const DATA = 0x93,
    CODE_READABLE = 0x9b,
    CODE_ONLY = 0x99,
    READ_ONLY = 0x91,
    DOWN = 0x97,
    UNUSABLE = 0x1_0000;

  function segmented(base: bigint, limit: number, ar: number, seg: number = SEG.DS): Bench {
    const bench = new Bench();
    bench.protectedMode(false);
    bench.segment(seg, base, limit, ar);
    return bench;
  }

  it("adds the base and wraps at 4 GiB outside 64-bit mode", () => {
    const bench = segmented(0xffff_0000n, 0xffff_ffff, DATA);
    bench.access.segment(SEG.DS, 0x1_2345, 0, 4, true);
    assertEquals([bench.access.linLow, bench.access.linHigh], [0x2345, 0]);
  });

  it("checks limit, type and presence, with #SS for SS", () => {
    const cases: [ar: number, limit: number, offset: number, bytes: number, write: boolean, good: boolean][] =
      [
        [DATA, 0xfff, 0xffc, 4, true, true],
        [DATA, 0xfff, 0xffd, 4, false, false],
        [DATA, 0xffff_ffff, 0xffff_fffe, 4, false, false],
        [READ_ONLY, 0xfff, 0, 4, false, true],
        [READ_ONLY, 0xfff, 0, 4, true, false],
        [CODE_READABLE, 0xfff, 0, 4, false, true],
        [CODE_READABLE, 0xfff, 0, 4, true, false],
        [CODE_ONLY, 0xfff, 0, 4, false, false],
        [DATA | UNUSABLE, 0xfff, 0, 4, false, false],
        [DATA & ~0x80, 0xfff, 0, 4, false, false],
        [DOWN, 0xfff, 0xfff, 4, false, false],
        [DOWN, 0xfff, 0x1000, 4, true, true],
        [DOWN, 0xfff, 0xfffe, 2, true, true],
        [DOWN, 0xfff, 0xfffe, 4, true, false],
        [DOWN | 0x4000, 0xfff, 0xffff_fffc, 4, true, true],
      ];
    for (const [ar, limit, offset, bytes, write, good] of cases) {
      for (const [seg, vector] of [[SEG.DS, VECTOR.GP], [SEG.SS, VECTOR.SS]] as const) {
        const bench = segmented(0n, limit, ar, seg);
        const text = `${ar.toString(16)} ${offset.toString(16)} ${bytes} ${write}`;
        const fault = bench.fault(() => bench.access.segment(seg, offset, 0, bytes, write));
        assertEquals(fault === undefined, good, text);
        if (fault !== undefined) assertEquals([fault.vector, fault.code], [vector, 0]);
        assertEquals(
          bench.access.segCheck(seg, offset | 0, bytes, write),
          good ? EXIT_NONE : EXIT_FAULT,
          text,
        );
      }
    }
  });

  it("in 64-bit mode adds FS and GS bases alone and checks nothing but canonicality", () => {
    const bench = new Bench();
    bench.segment(SEG.DS, 0x1000n, 0, UNUSABLE);
    bench.segment(SEG.GS, 0xffff_8000_ffff_f000n, 0, UNUSABLE);
    const { access } = bench;
    access.segment(SEG.DS, 0x10, 0, 4, true);
    assertEquals([access.linLow, access.linHigh], [0x10, 0]);
    access.segment(SEG.GS, 0x2000, 0, 4, true);
    assertEquals([access.linLow, access.linHigh], [0x1000, 0xffff_8001]);
    assertEquals(bench.fault(() => access.segment(SEG.GS, 0, 0x7fff_0000, 4, true))?.vector, VECTOR.GP);
    assertEquals(bench.fault(() => access.segment(SEG.SS, 0, 0x8000, 4, true))?.vector, VECTOR.SS);
    assertEquals(access.segCheck(SEG.DS, 0, 4, true), EXIT_NONE);
  });
});

describe("alignment checks", () => {
  it("concern explicit accesses at CPL 3 with AM and AC, after page faults", () => {
    const bench = twoPages();
    bench.cr0(CR0_AM);
    bench.cpu.set32(S.RFLAGS, 2 | RFLAGS.AC);
    bench.read(PAGE + 1n);
    bench.cpl(3);
    bench.update();
    assertEquals(bench.fault(() => bench.read(PAGE + 1n)), { vector: VECTOR.AC, code: 0, cr2: 0n });
    assertEquals(bench.fault(() => bench.write(PAGE + 4n, 1, 8))?.vector, VECTOR.AC);
    for (const size of [1, 2, 4, 8] as const) {
      assertEquals(bench.fault(() => bench.read(PAGE + 8n, size)), undefined);
    }
    assertEquals(bench.fault(() => bench.read(PAGE + 1n, 1)), undefined);
    assertEquals(bench.fault(() => bench.read(PAGE + 1n, 4, HOW.IMPLICIT)), undefined);
    assertEquals(bench.fault(() => bench.read(0x50_0001n))?.vector, VECTOR.PF);
    bench.cpu.set32(S.RFLAGS, 2);
    assertEquals(bench.fault(() => bench.read(PAGE + 1n)), undefined);
  });
});

describe("data breakpoints", () => {
  it("are told each data access while DR7 enables one, and none otherwise", () => {
    const bench = twoPages();
    const seen: string[] = [];
    bench.access.onDataAccess = (low, _high, bytes, write) =>
      seen.push(`${low.toString(16)} ${bytes} ${write}`);
    bench.read(PAGE);
    bench.cpu.set64(S.DR + 56, 0x0003_0401n);
    bench.update();
    for (let i = 0; i < 2; i++) {
      bench.read(PAGE + 4n);
      bench.write(PAGE + 8n, 1, 2);
      bench.read(PAGE + 12n, 1, HOW.IMPLICIT);
    }
    const once = ["400004 4 false", "400008 2 true", "40000c 1 false"];
    assertEquals(seen, [...once, ...once]);
  });
});

describe("devices", () => {
  function withDevice(): { bench: Bench; echo: Echo } {
    const bench = new Bench();
    const echo = new Echo();
    bench.bus.addMmio(0xfee0_0000, 0x1000, echo);
    bench.map(PAGE, 0xfee0_0000, 7n);
    bench.map(NEXT, RAM, 7n);
    return { bench, echo };
  }

  it("are only reached by a stepped instruction; before that nothing happens", () => {
    const { bench, echo } = withDevice();
    const { access, cpu } = bench;
    assert(bench.fault(() => bench.read(PAGE)) !== undefined);
    assertEquals(cpu.get32(S.EXIT), EXIT_RETRY);
    assert(bench.fault(() => bench.write(PAGE, 1)) !== undefined);
    assert(bench.fault(() => access.probe(Number(PAGE), 0, 4, true)) !== undefined);
    assertEquals(access.loadSlow(Number(PAGE), 0, 4, SEG.DS), 0);
    assertEquals(cpu.get32(S.EXIT), EXIT_RETRY);
    assertEquals(access.rmwSlow(Number(PAGE), 0, 4, SEG.DS), 0);
    assertEquals(access.storeSlow(Number(PAGE), 0, 4, SEG.DS), EXIT_RETRY);
    assertEquals(echo.log, []);
    cpu.set32(S.STEPPING, 1);
    assertEquals(bench.read(PAGE + 4n), 0x2222_2222);
    bench.write(PAGE + 8n, 0x1234_5678);
    assertEquals(bench.read(PAGE, 8), 0x1111_1111);
    assertEquals(access.high, 0x2222_2222);
    bench.write(PAGE + 1n, 0xab, 1);
    assertEquals(echo.log, ["r4@4", "w4@8=12345678", "r4@0", "r4@4", "w1@1=ab"]);
  });

  it("are read and then written by a read-modify-write", () => {
    const { bench, echo } = withDevice();
    bench.cpu.set32(S.STEPPING, 1);
    const host = bench.access.rmwSlow(Number(PAGE), 0, 4, SEG.DS);
    assertEquals(host, bench.cpu.base + S.SPILL);
    assertEquals(bench.cpu.get32(S.SPILLSIZE), 4);
    bench.memory.u32[host / 4]! += 1;
    bench.access.spillFlush();
    bench.access.spillFlush();
    assertEquals(echo.log, ["r4@0", "w4@0=11111112"]);
  });

  it("never enter the fast TLB", () => {
    const { bench } = withDevice();
    bench.cpu.set32(S.STEPPING, 1);
    bench.read(PAGE);
    assertEquals(bench.access.tlb.fast.count(0, 0), 0);
  });

  it("take their part of an access that crosses into RAM", () => {
    const { bench, echo } = withDevice();
    bench.cpu.set32(S.STEPPING, 1);
    bench.write(NEXT - 2n, 0x4433_2211);
    assertEquals(echo.log, ["w2@4094=2211"]);
    assertEquals(bench.peek32(RAM), 0x4433);
  });

  it("that are not there read as all ones", () => {
    const bench = new Bench();
    bench.cpu.set32(S.STEPPING, 1);
    bench.map(PAGE, 0x9_0000_0000, 7n);
    assertEquals(bench.read(PAGE), 0xffff_ffff);
    bench.write(PAGE, 1);
    assertEquals(bench.read(PAGE, 1), 0xff);
  });
});

describe("ROM", () => {
  it("reads as memory and drops every kind of store", () => {
    const bench = twoPages();
    bench.poke32(RAM, 0x55);
    bench.bus.setPageFlags(RAM, 1, PAGE_ROM);
    bench.write(PAGE, 0x66);
    const host = bench.access.rmwSlow(Number(PAGE), 0, 4, SEG.DS);
    assertEquals(bench.memory.u32[host / 4], 0x55);
    bench.memory.u32[host / 4] = 0x77;
    bench.access.spillFlush();
    assertEquals([bench.read(PAGE), bench.peek32(RAM)], [0x55, 0x55]);
    bench.write(PAGE, 0x66);
    assertEquals(bench.peek32(RAM), 0x55, "after the read has filled the fast TLB too");
  });
});

describe("decoded code", () => {
  it("is hit by a store only in a stepped instruction, and is then forgotten", () => {
    const bench = twoPages();
    const watch = new Watch(RAM + 0x100, RAM + 0x110);
    bench.access.code = watch;
    bench.bus.setPageFlags(RAM, 1, PAGE_CODE);
    bench.write(PAGE + 0xfcn, 1);
    bench.write(PAGE + 0x110n, 1);
    assertEquals(watch.dropped, []);
    assert(bench.fault(() => bench.write(PAGE + 0xfdn, 1)) !== undefined);
    assertEquals([bench.cpu.get32(S.EXIT), bench.peek32(RAM + 0x100)], [EXIT_RETRY, 0]);
    assertEquals(bench.access.rmwSlow(Number(PAGE) + 0x108, 0, 4, SEG.DS), 0);
    assertEquals(bench.access.rmwSlow(Number(PAGE) + 0x120, 0, 4, SEG.DS) >= 0x400_0000, true, "in place");
    bench.cpu.set32(S.STEPPING, 1);
    bench.write(PAGE + 0xfdn, 0x0100_0000);
    assertEquals(watch.dropped, [[RAM + 0xfd, 4]]);
    assertEquals(bench.peek32(RAM + 0x100) & 0xff, 1);
    const host = bench.access.rmwSlow(Number(PAGE) + 0x108, 0, 4, SEG.DS);
    bench.memory.u32[host / 4] = 9;
    bench.access.spillFlush();
    assertEquals(watch.dropped[1], [RAM + 0x108, 4]);
    assertEquals(bench.peek32(RAM + 0x108), 9);
  });
});

describe("watched pages", () => {
  it("tell every store after it happened", () => {
    const bench = twoPages();
    const seen: [number, number, number][] = [];
    bench.bus.watchStore = (at, bytes) => seen.push([at, bytes, bench.peek32(RAM)]);
    bench.bus.setPageFlags(RAM, 1, PAGE_WATCH);
    for (const value of [1, 2]) bench.write(PAGE, value);
    const host = bench.access.rmwSlow(Number(PAGE), 0, 4, SEG.DS);
    bench.memory.u32[host / 4] = 3;
    bench.access.spillFlush();
    assertEquals(seen, [[RAM, 4, 1], [RAM, 4, 2], [RAM, 4, 3]]);
  });
});

describe("engines' entry points", () => {
  it("loadSlow gathers what crosses pages; storeSlow takes its bytes from SPILL", () => {
    const bench = twoPages();
    const { access, cpu, memory } = bench;
    const spill = cpu.base + S.SPILL;
    for (let i = 0; i < 16; i++) memory.u8[spill + i] = i + 1;
    assertEquals(access.storeSlow(Number(NEXT) - 5, 0, 16, SEG.DS), EXIT_NONE);
    memory.u8.fill(0, spill, spill + 16);
    const host = access.loadSlow(Number(NEXT) - 5, 0, 16, SEG.DS);
    assertEquals(host, spill);
    for (let i = 0; i < 16; i++) assertEquals(memory.u8[host + i], i + 1);
    assertEquals(access.loadSlow(Number(PAGE) + 8, 0, 8, SEG.DS), 0x400_0000 + RAM + 8);
  });

  it("leave the fault in the block and name the segment's exception", () => {
    const bench = twoPages();
    assertEquals(bench.access.loadSlow(0, 0x8000, 8, SEG.SS), 0);
    assertEquals([bench.recorded().vector, bench.cpu.get32(S.EXIT)], [VECTOR.SS, EXIT_FAULT]);
    assertEquals(bench.access.storeSlow(0, 0x8000, 8, SEG.DS), EXIT_FAULT);
    assertEquals(bench.recorded().vector, VECTOR.GP);
    assertEquals(bench.access.rmwSlow(0x123, 0x70, 8, SEG.DS), 0);
    assertEquals(bench.recorded(), { vector: VECTOR.PF, code: 2, cr2: 0x70_0000_0123n });
  });

  it("a read-modify-write that crosses pages is written back by spillFlush, whole", () => {
    const bench = twoPages();
    bench.write(NEXT - 2n, 0x0000_ffff);
    const host = bench.access.rmwSlow(Number(NEXT) - 2, 0, 4, SEG.DS);
    assertEquals(host, bench.cpu.base + S.SPILL);
    bench.memory.u32[host / 4]! += 1;
    bench.access.spillFlush();
    assertEquals(bench.read(NEXT - 2n), 0x1_0000);
  });
});

describe("without paging", () => {
  it("linear addresses are physical", () => {
    const bench = new Bench();
    bench.cr0(0, CR0_PG);
    bench.cpu.set32(S.EFER, 0);
    bench.cpu.set32(S.CODEMODE, 1);
    bench.write(0x20_0004n, 77);
    assertEquals([bench.peek32(0x20_0004), bench.read(0x20_0004n)], [77, 77]);
    assertEquals(bench.cpu.counters.walks, 0);
  });
});
