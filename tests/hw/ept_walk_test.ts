/**
 * EPT walks: how many references they make and in which order, what they report of a refusal, flags, page-modification logging,
 * virtualization exceptions. Combinations of rights are in ept_rights_test.ts.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { modelEptFeatures } from "../../hw/ept.ts";
import { cpuModels } from "../../hw/cpuid.ts";
import { effectiveMemoryType, isEptPointer, MEMORY_TYPE } from "../../hw/ept_format.ts";
import { describeWalk, explainWalk } from "../../hw/explain_walk.ts";
import { loadPdptes } from "../../hw/paging.ts";
import { S } from "../../hw/state.ts";
import * as vmcs from "../../hw/vmcs.ts";
import { PROC2 } from "../../hw/vmx/contract.ts";
import { F } from "../../hw/vmx/fields.ts";
import { GuestBench, type GuestOptions, RWX, WB } from "./ept_fixture.ts";

const LINEAR = 0x7fff_1234_5000n, DATA = 0x20_0000;

/** A bench whose guest has one page, with all flags set that an access would set. */
function guest(
  options: ConstructorParameters<typeof GuestBench>[0] = {},
  level = 1,
): GuestBench & { entries: number[] } {
  const bench = new GuestBench(options);
  const page = level === 1 ? bench.gpa(DATA) : bench.gpa(0);
  const entries = bench.guestMap(LINEAR, page, 7n, level);
  entries.forEach((at) => bench.poke64(at, bench.peek64(at) | 0x60n));
  if (level === 3) bench.eptMap(bench.gpa(0) + (LINEAR & 0x3fff_f000n), DATA, RWX | WB);
  bench.enter();
  return Object.assign(bench, { entries });
}
/** References of the guest's and of EPT tables since the counters were reset. */
function references(bench: GuestBench): number {
  return bench.cpu.counters.references + bench.cpu.counters.eptReferences;
}

describe("references per walk", () => {
  it("are 24 for four levels over four, in the order of the manual: 20 to EPT, 4 to the guest's tables", () => {
    const bench = guest();
    const order: string[] = [];
    bench.cpu.trace.on(["reference"], (e) => order.push(e.ept === undefined ? `g${e.level}` : `n${e.level}`));
    bench.cpu.counters.reset();
    bench.read(LINEAR);
    assertEquals(references(bench), 24);
    const nested = ["n4", "n3", "n2", "n1"];
    assertEquals(order, [...nested, "g4", ...nested, "g3", ...nested, "g2", ...nested, "g1", ...nested]);
    assertEquals(bench.cpu.counters.references, 4);
    const slots = bench.cpu.counters.eptReferencesBySlot;
    for (let slot = 0; slot <= 4; slot++) {
      for (let level = 1; level <= 4; level++) {
        assertEquals(slots[slot * 6 + level], 1, `slot ${slot} level ${level}`);
      }
    }
  });

  it("are 4 in root operation", () => {
    const bench = new GuestBench();
    bench.map(LINEAR, DATA, 7n);
    bench.read(LINEAR);
    assertEquals([bench.cpu.counters.references, bench.cpu.counters.eptReferences], [4, 0]);
  });

  /** Maps all of the bench's memory in EPT pages of 2 MiB or 1 GiB. */
  function largePages(bench: GuestBench, level: number): void {
    const size = 2 ** (3 + 9 * level);
    for (let at = 0; level > 1 && at < 0x40_0000; at += 0x20_0000) {
      const base = at - at % size;
      bench.eptMap(bench.gpa(base), base, RWX | WB, level);
    }
  }
  // Rows and columns of the reference's table: guest levels read, EPT levels read.
  const TABLE: readonly [guest: string, level: number, five: boolean, counts: readonly number[]][] = [
    ["4-level, 4 KiB", 1, false, [14, 19, 24, 29]],
    ["4-level, 2 MiB", 2, false, [11, 15, 19, 23]],
    ["4-level, 1 GiB", 3, false, [8, 11, 14, 17]],
    ["5-level, 4 KiB", 1, true, [17, 23, 29, 35]],
  ];
  for (const [name, level, five, counts] of TABLE) {
    it(`of a ${name} guest page are ${counts.join(", ")} over EPT pages of 1 GiB, 2 MiB, 4 KiB, and 4 KiB in five levels`, () => {
      counts.forEach((count, column) => {
        const e = column === 3 ? 1 : 3 - column;
        const bench = new GuestBench(column === 3 ? { levels: 5 } : {});
        if (five) bench.fiveLevel();
        largePages(bench, e);
        // The byte that is read lies in the bench's memory, at the beginning of a large page.
        const linear = level === 1 ? LINEAR : LINEAR & ~0x3fff_ffffn;
        const entries = bench.guestMap(linear, level === 1 ? bench.gpa(DATA) : bench.gpa(0), 7n, level);
        if (e === 1) bench.eptMap(bench.gpa(0), 0, RWX | WB);
        entries.forEach((at) => bench.poke64(at, bench.peek64(at) | 0x60n));
        bench.enter();
        bench.cpu.counters.reset();
        bench.read(linear);
        assertEquals(references(bench), count, `EPT leaf level ${e}`);
      });
    });
  }

  it("are the EPT levels alone without guest paging: 4, 3, 2", () => {
    for (const [level, count] of [[1, 4], [2, 3], [3, 2]] as const) {
      const bench = new GuestBench({ offset: 0n });
      largePages(bench, level);
      bench.enter();
      bench.pagingOff();
      bench.cpu.counters.reset();
      bench.read(BigInt(DATA));
      assertEquals(references(bench), count);
    }
  });

  it("are 14 for a PAE guest, whose PDPTEs are registers", () => {
    const bench = new GuestBench();
    bench.enter();
    bench.protectedMode(true);
    const entries = bench.guestMap(0xc123_4000n, bench.gpa(DATA), 7n);
    entries.forEach((at) => bench.poke64(at, bench.peek64(at) | 0x60n));
    bench.cpu.counters.reset();
    bench.read(0xc123_4000n);
    assertEquals(references(bench), 14);
  });

  it("grow by an EPT walk for each flag to be set, without accessed and dirty flags for EPT only", () => {
    for (const [ad, count] of [[false, 24 + 4 * 4], [true, 24]] as const) {
      const bench = new GuestBench({ ad });
      bench.guestMap(LINEAR, bench.gpa(DATA), 7n);
      bench.enter();
      bench.cpu.counters.reset();
      bench.write(LINEAR, 1);
      assertEquals(references(bench), count, `ad ${ad}`);
    }
  });
});

describe("an EPT violation", () => {
  it("reports the addresses, and is an exit with reason 48", () => {
    const bench = guest();
    bench.poke64(bench.eptEntry(bench.gpa(DATA)), 0n);
    assertEquals(bench.outcome(() => bench.read(LINEAR + 0x123n, 1)), {
      kind: "exit",
      reason: 48,
      // Read; linear address valid, its translation; user, writable.
      qualification: 0x1 | 0x180 | 0x600,
      linear: LINEAR + 0x123n,
      physical: bench.gpa(DATA) + 0x123n,
    });
  });

  it("on a guest paging-structure entry has bit 8 clear and the entry's address, as a read, or with A/D a read and a write", () => {
    for (const ad of [false, true]) {
      for (const level of [4, 3, 2, 1]) {
        const bench = guest({ ad });
        const entry = bench.entries[level]!;
        bench.poke64(bench.eptEntry(bench.gpa(entry)), 0n);
        assertEquals(bench.outcome(() => bench.fetch(LINEAR)), {
          kind: "exit",
          reason: 48,
          qualification: (ad ? 3 : 1) | 0x80,
          linear: LINEAR,
          physical: bench.gpa(entry),
        });
      }
    }
  });

  it("while a flag is set is a read and a write: the manual's read-modify-write", () => {
    const bench = guest();
    const entry = bench.entries[1]!;
    bench.poke64(entry, bench.peek64(entry) & ~0x40n);
    const table = bench.eptEntry(bench.gpa(entry));
    bench.poke64(table, bench.peek64(table) & ~2n);
    assertEquals(bench.outcome(() => bench.read(LINEAR)).kind, "done");
    const outcome = bench.outcome(() => bench.write(LINEAR, 1));
    assert(outcome.kind === "exit");
    assertEquals([outcome.reason, outcome.qualification], [48, 3 | 0x28 | 0x80]);
  });

  it("comes after the guest's own page fault, and before it on the way there", () => {
    const bench = guest();
    bench.poke64(bench.eptEntry(bench.gpa(DATA)), 0n);
    bench.poke64(bench.entries[1]!, bench.peek64(bench.entries[1]!) & ~4n);
    bench.cpl(3);
    assertEquals(bench.outcome(() => bench.read(LINEAR)), { kind: "fault", vector: 14, code: 5 });
    bench.poke64(bench.eptEntry(bench.gpa(bench.entries[1]!)), 0n);
    assertEquals(bench.outcome(() => bench.read(LINEAR)).kind, "exit");
  });

  it("of a second page leaves the first page's part of the access undone", () => {
    const bench = guest();
    bench.guestMap(LINEAR + 0x1000n, bench.gpa(DATA + 0x1000), 7n);
    bench.poke64(bench.eptEntry(bench.gpa(DATA + 0x1000)), 0n);
    const outcome = bench.outcome(() => bench.write(LINEAR + 0xffen, -1));
    assert(outcome.kind === "exit");
    assertEquals(outcome.linear, LINEAR + 0x1000n);
    assertEquals(bench.peek32(DATA + 0xffc), 0);
  });

  it("tells mode-based rights in bits 5 and 6, and advanced information only on models that have it", () => {
    for (const modeBased of [false, true]) {
      for (const advanced of [false, true]) {
        const features = { ...modelEptFeatures(cpuModels["icelake"]!), advancedInformation: advanced };
        const bench = guest({ eptFeatures: features, proc2: modeBased ? PROC2.MODE_BASED_EXECUTE : 0 });
        const leaf = bench.eptEntry(bench.gpa(DATA));
        // Readable, executable from supervisor-mode addresses only (LINEAR is a user-mode one); upper entries allow both.
        for (let level = 1; level <= 4; level++) {
          const at = bench.eptEntry(bench.gpa(DATA), level);
          bench.poke64(at, bench.peek64(at) | 0x400n);
        }
        bench.poke64(leaf, (bench.peek64(leaf) & ~0x402n) | 4n);
        const fetched = bench.outcome(() => bench.fetch(LINEAR));
        if (!modeBased) assertEquals(fetched.kind, "done");
        else {
          assert(fetched.kind === "exit");
          assertEquals(fetched.qualification, 4 | 0x28 | 0x180 | (advanced ? 0x600 : 0));
        }
        const written = bench.outcome(() => bench.write(LINEAR, 1));
        assert(written.kind === "exit");
        assertEquals(written.qualification, 2 | 0x28 | 0x180 | (advanced ? 0x600 : 0));
      }
    }
  });

  it("of an address wider than four levels translate has no rights at all", () => {
    const wide = 0x1_0000_0000_0000n;
    const features = { ...modelEptFeatures(cpuModels["icelake"]!), maxPhysicalBits: 52 };
    const bench = guest({ eptFeatures: features, features: { maxPhysicalBits: 52, gigabytePages: true } });
    bench.poke64(bench.entries[1]!, wide | 0x67n);
    const outcome = bench.outcome(() => bench.read(LINEAR));
    assert(outcome.kind === "exit");
    assertEquals([outcome.reason, outcome.qualification & 0x7f, outcome.physical], [48, 1, wide]);
  });

  it("is told to the tracer, and explained in words with both walks side by side", () => {
    const bench = guest();
    bench.poke64(bench.eptEntry(bench.gpa(bench.entries[2]!)), 0n);
    const events: string[] = [];
    bench.cpu.trace.on(
      ["ept"],
      (e) => events.push(`${e.reason} ${e.qualification.toString(16)} ${e.linear?.toString(16)}`),
    );
    const walk = explainWalk(bench.cpu, LINEAR);
    assertEquals(walk.outcome.kind, "EPT violation");
    assertEquals(walk.entries.map((e) => e.name), ["PML4E", "PDPTE"]);
    assertEquals(walk.entries.map((e) => e.ept?.entries.length), [4, 4]);
    const text = describeWalk(walk);
    assert(text.at(-1)!.includes("the EPT walk of the PDE: EPT PTE is not present"), text.at(-1)!);
    bench.outcome(() => bench.read(LINEAR));
    assertEquals(events, [`48 81 ${LINEAR.toString(16)}`]);
  });
});

describe("an EPT misconfiguration", () => {
  it("is an exit with reason 49 and the guest-physical address, before any missing right", () => {
    const bench = guest();
    // A page for which EPT has an upper entry of its own, which allows execution only.
    const far = bench.gpa(DATA) + 0x1_0000_0000n;
    const [, leaf, , upper] = bench.eptMap(far, DATA, RWX | WB);
    bench.poke64(bench.entries[1]!, far | 0x67n);
    bench.poke64(upper!, bench.peek64(upper!) & ~3n);
    bench.poke64(leaf!, bench.peek64(leaf!) & ~1n);
    const outcome = bench.outcome(() => bench.write(LINEAR, 1));
    assert(outcome.kind === "exit");
    assertEquals([outcome.reason, outcome.qualification, outcome.physical], [49, 0, far]);
    const told = explainWalk(bench.cpu, LINEAR, { write: true }).outcome;
    assert(told.kind === "EPT misconfiguration");
    assert(told.reason.includes("write without read"), told.reason);
  });

  it("is never cached, nor is an entry that is not present", () => {
    for (const tlb of ["fast", "sticky", "geometry"] as const) {
      for (const bad of [0n, 2n, RWX | (2n << 3n)]) {
        const bench = guest({ tlb });
        const leaf = bench.eptEntry(bench.gpa(DATA)), good = bench.peek64(leaf);
        bench.poke64(leaf, bad === 0n ? 0n : (good & ~0x3fn) | bad);
        assertEquals(bench.outcome(() => bench.read(LINEAR)).kind, "exit");
        bench.poke64(leaf, good);
        assertEquals(bench.outcome(() => bench.read(LINEAR)).kind, "done", tlb);
      }
    }
  });
});

describe("accessed and dirty flags for EPT", () => {
  const flags = (bench: GuestBench, gpa: bigint) =>
    [4, 3, 2, 1].map((level) => Number((bench.peek64(bench.eptEntry(gpa, level)) >> 8n) & 3n));

  it("are set in the path of the page, D by a write; guest tables count as written", () => {
    const bench = guest({ ad: true });
    bench.read(LINEAR);
    assertEquals(flags(bench, bench.gpa(DATA)), [1, 1, 1, 1]);
    for (const at of bench.entries.filter(Boolean)) assertEquals(flags(bench, bench.gpa(at)).at(-1), 3);
    bench.write(LINEAR, 1);
    assertEquals(flags(bench, bench.gpa(DATA)), [1, 1, 1, 3]);
  });

  it("are left alone without the bit in the EPT pointer, and by an access that is refused", () => {
    const off = guest({ ad: false });
    off.write(LINEAR, 1);
    assertEquals(flags(off, off.gpa(DATA)), [0, 0, 0, 0]);
    const bench = guest({ ad: true });
    const leaf = bench.eptEntry(bench.gpa(DATA));
    bench.poke64(leaf, bench.peek64(leaf) & ~2n);
    bench.outcome(() => bench.write(LINEAR, 1));
    assertEquals(flags(bench, bench.gpa(DATA)).at(-1), 0);
  });

  it("make a write through a mapping that was cached clean walk again, on each TLB choice", () => {
    for (const tlb of ["fast", "sticky", "geometry"] as const) {
      const bench = guest({ ad: true, tlb });
      bench.read(LINEAR);
      bench.write(LINEAR, 1);
      assertEquals(flags(bench, bench.gpa(DATA)).at(-1), 3, tlb);
    }
  });
});

/** A guest with a VMCS, for what reads its fields. */
function withVmcs(proc2: number, options: GuestOptions = {}): ReturnType<typeof guest> {
  const bench = guest({ ...options, proc2 });
  bench.cpu.set64(S.VMX_POINTER, BigInt(bench.page()));
  return bench;
}

describe("page-modification logging", () => {
  function logging(index: number): { bench: ReturnType<typeof guest>; log: number } {
    const bench = withVmcs(PROC2.PML, { ad: true });
    const log = bench.page();
    vmcs.set64(bench.cpu, F.PML_ADDRESS, BigInt(log));
    vmcs.set32(bench.cpu, F.PML_INDEX, index);
    return { bench, log };
  }
  const index = (bench: GuestBench) => vmcs.get32(bench.cpu, F.PML_INDEX) & 0xffff;

  it("logs each page whose D is set, guest tables among them, downwards; once", () => {
    const { bench, log } = logging(511);
    bench.read(LINEAR + 8n);
    // Four tables.
    assertEquals(index(bench), 507);
    bench.write(LINEAR + 8n, 1);
    assertEquals(index(bench), 506);
    assertEquals(bench.peek64(log + 507 * 8), bench.gpa(DATA));
    assertEquals(bench.peek64(log + 511 * 8), bench.gpa(bench.root));
    bench.write(LINEAR + 16n, 1);
    assertEquals(index(bench), 506);
  });

  it("wraps from 0 to FFFFH, and is full then: exit 62, with no flag set and nothing written", () => {
    const { bench } = logging(511);
    bench.read(LINEAR);
    vmcs.set32(bench.cpu, F.PML_INDEX, 0);
    bench.write(LINEAR, 1);
    assertEquals(index(bench), 0xffff);
    bench.guestMap(LINEAR + 0x1000n, bench.gpa(DATA + 0x1000), 0x67n);
    const outcome = bench.outcome(() => bench.write(LINEAR + 0x1000n, 5));
    assert(outcome.kind === "exit");
    assertEquals([outcome.reason, outcome.qualification], [62, 0]);
    assertEquals(bench.peek32(DATA + 0x1000), 0);
    assertEquals(bench.peek64(bench.eptEntry(bench.gpa(DATA + 0x1000))) & 0x300n, 0n);
    assertEquals(index(bench), 0xffff);
  });

  it("looks at the index also when only A would be set, and not when nothing is", () => {
    const { bench } = logging(511);
    bench.read(LINEAR);
    vmcs.set32(bench.cpu, F.PML_INDEX, 600);
    bench.access.tlb.invept(2, 0, 0);
    assertEquals(bench.outcome(() => bench.read(LINEAR)).kind, "done");
    bench.guestMap(LINEAR + 0x1000n, bench.gpa(DATA + 0x1000), 0x67n);
    const outcome = bench.outcome(() => bench.read(LINEAR + 0x1000n));
    assert(outcome.kind === "exit" && outcome.reason === 62);
  });
});

describe("virtualization exceptions", () => {
  function converting(): { bench: ReturnType<typeof guest>; area: number } {
    const bench = withVmcs(PROC2.EPT_VIOLATION_VE);
    const area = bench.page();
    vmcs.set64(bench.cpu, F.VE_INFORMATION_ADDRESS, BigInt(area));
    vmcs.set32(bench.cpu, F.EPTP_INDEX, 0x77);
    bench.poke64(bench.eptEntry(bench.gpa(DATA)), 0n);
    return { bench, area };
  }

  it("take the place of the exit and fill the information area", () => {
    const { bench, area } = converting();
    assertEquals(bench.outcome(() => bench.write(LINEAR + 4n, 1)), { kind: "fault", vector: 20, code: -1 });
    assertEquals([bench.peek32(area), bench.peek32(area + 4)], [48, 0xffff_ffff]);
    assertEquals(bench.peek64(area + 8), 0x782n);
    assertEquals([bench.peek64(area + 16), bench.peek64(area + 24)], [LINEAR + 4n, bench.gpa(DATA) + 4n]);
    assertEquals(bench.peek32(area + 32) & 0xffff, 0x77);
    // Until software clears the second word there is no other.
    assertEquals(bench.outcome(() => bench.read(LINEAR)).kind, "exit");
    bench.poke32(area + 4, 0);
    assertEquals(bench.outcome(() => bench.read(LINEAR)).kind, "fault");
  });

  it("are kept away by bit 63 of the entry where the walk ends, in event delivery, without protection, and for misconfigurations", () => {
    const cases: ((bench: GuestBench) => void)[] = [
      (b) => b.poke64(b.eptEntry(b.gpa(DATA)), 1n << 63n),
      (b) => b.poke64(b.eptEntry(b.gpa(DATA)), BigInt(DATA) | 0x34n | (1n << 63n)),
      (b) => b.cpu.set32(S.VMX_VECTORING, 0x8000_0300),
      (b) => b.poke64(b.eptEntry(b.gpa(DATA)), 2n),
    ];
    for (const change of cases) {
      const { bench } = converting();
      change(bench);
      assertEquals(bench.outcome(() => bench.read(LINEAR)).kind, "exit", `${change}`);
    }
    const { bench } = converting();
    // Bit 63 of a present non-leaf entry is ignored.
    const upper = bench.eptEntry(bench.gpa(DATA), 2);
    bench.poke64(upper, bench.peek64(upper) | (1n << 63n));
    assertEquals(bench.outcome(() => bench.read(LINEAR)).kind, "fault");
  });
});

describe("loads of PDPTE registers", () => {
  it("go through EPT as reads, which need no write permission; a refusal has no linear address", () => {
    const bench = new GuestBench({ ad: true, offset: 0x8000_0000n });
    const table = bench.page();
    bench.enter();
    for (let i = 0; i < 4; i++) bench.poke64(table + i * 8, BigInt(0x1000 * (i + 1)) | 1n);
    const at = bench.eptEntry(bench.gpa(table));
    bench.poke64(at, bench.peek64(at) & ~2n);
    const load = () => {
      assert(loadPdptes(bench.cpu, Number(bench.gpa(table)), bench.access.features));
    };
    assertEquals(bench.outcome(load).kind, "done");
    assertEquals(bench.cpu.get64(S.PDPTE + 16), 0x3001n);
    assertEquals(bench.peek64(at) & 0x300n, 0x100n, "accessed, not dirty");
    bench.poke64(at, 0n);
    bench.access.tlb.invept(2, 0, 0);
    assertEquals(bench.outcome(load), {
      kind: "exit",
      reason: 48,
      qualification: 1,
      linear: 0n,
      physical: bench.gpa(table),
    });
  });
});

describe("a walk into the APIC-access page", () => {
  it("is an APIC access during the execution of an instruction, or during event delivery", () => {
    for (const [vectoring, type] of [[0, 15], [0x8000_0300, 10]]) {
      const bench = guest();
      bench.cpu.set64(S.VMX_APIC_ACCESS, BigInt(bench.entries[2]! & ~0xfff));
      bench.cpu.set32(S.VMX_VECTORING, vectoring!);
      const outcome = bench.outcome(() => bench.read(LINEAR));
      assert(outcome.kind === "exit");
      assertEquals([outcome.reason, outcome.qualification >> 12], [44, type!]);
    }
  });
});

describe("EPT pointers and memory types", () => {
  it("take the types, lengths and flags of the capability, and no reserved bit", () => {
    const cap = 0x0634_0141 | 1 << 14;
    const ok = (value: bigint, c = cap) =>
      isEptPointer(Number(value & 0xffff_ffffn) | 0, Number(value >> 32n) | 0, c, 46);
    assert(ok(0x1000n | 0x1en) && ok(0x1000n | 0x18n) && ok(0x1000n | 0x5en) && ok((1n << 45n) | 0x1en));
    for (
      const bad of [
        0x1fn,
        0x1cn,
        0x16n,
        0x26n,
        0x9en,
        0x11en,
        0x81en,
        (1n << 46n) | 0x1en,
        (1n << 63n) | 0x1en,
      ]
    ) {
      assert(!ok(bad), bad.toString(16));
    }
    assert(!ok(0x5en, cap & ~(1 << 21)), "no accessed and dirty flags");
    assert(ok(0x26n, cap | 0x80), "five levels");
    assert(!ok(0x18n, cap & ~0x100), "no UC");
  });

  it("combine with the PAT unless the leaf ignores it", () => {
    const { UC, WC, WT, WP, WB: WRITE_BACK, UC_MINUS } = MEMORY_TYPE;
    const rows: readonly (readonly [ept: number, pat: number, type: number])[] = [
      [WRITE_BACK, WRITE_BACK, WRITE_BACK],
      [WRITE_BACK, WT, WT],
      [WRITE_BACK, UC_MINUS, UC],
      [WRITE_BACK, WC, WC],
      [UC, WRITE_BACK, UC],
      [UC, WC, WC],
      [WC, UC_MINUS, WC],
      [WC, UC, UC],
      [WC, WRITE_BACK, WC],
      [WT, WRITE_BACK, WT],
      [WT, UC_MINUS, UC],
      [WP, WRITE_BACK, WP],
      [WP, WC, WC],
    ];
    for (const [ept, pat, type] of rows) {
      assertEquals(effectiveMemoryType(ept, false, pat, false), type, `${ept} ${pat}`);
    }
    assertEquals(effectiveMemoryType(WRITE_BACK, true, UC, false), WRITE_BACK);
    assertEquals(effectiveMemoryType(WRITE_BACK, true, UC, true), UC);
    const bench = guest();
    const told = explainWalk(bench.cpu, LINEAR).outcome;
    assert(told.kind === "mapped");
    assertEquals(told.guestPhysical, Number(bench.gpa(DATA)));
    assertEquals(told.physical, DATA);
  });
});
