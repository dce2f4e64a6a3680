/**
 * What is cached in VMX non-root operation, under which tags, and what each operation removes: SDM vol. 3C, "Caching Translation
 * Information". The sticky TLB keeps everything that need not go; the other choices at most that.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { CR0_WP, CR4_PCIDE, CR4_PGE } from "../../hw/paging.ts";
import { FTLB_READ, S } from "../../hw/state.ts";
import { CONTEXT } from "../../hw/tlb_fast.ts";
import type { TlbChoice } from "../../hw/tlb.ts";
import { GuestBench, RWX, WB } from "./ept_fixture.ts";

const OLD = 0x20_0000, NEW = 0x21_0000;
const PAGE = 0x40_0000n, OTHER = 0x40_1000n, GLOBAL = 0x50_0000n;
const P = 7n, G = 0x100n;

/** What one translation is, among the mappings of {@link prepare}. */
interface Mapping {
  readonly name: string;
  readonly vpid: number;
  readonly pcid: bigint;
  /** Which of the two EPT roots; undefined for a linear mapping of root operation. */
  readonly ept: 0 | 1 | undefined;
  readonly page: bigint;
}

const MAPPINGS: readonly Mapping[] = [
  { name: "root PAGE", vpid: 0, pcid: 5n, ept: undefined, page: PAGE },
  { name: "root GLOBAL", vpid: 0, pcid: 5n, ept: undefined, page: GLOBAL },
  { name: "1/5/A PAGE", vpid: 1, pcid: 5n, ept: 0, page: PAGE },
  { name: "1/5/A OTHER", vpid: 1, pcid: 5n, ept: 0, page: OTHER },
  { name: "1/5/A GLOBAL", vpid: 1, pcid: 5n, ept: 0, page: GLOBAL },
  { name: "1/6/A PAGE", vpid: 1, pcid: 6n, ept: 0, page: PAGE },
  { name: "1/5/B PAGE", vpid: 1, pcid: 5n, ept: 1, page: PAGE },
  { name: "2/5/A PAGE", vpid: 2, pcid: 5n, ept: 0, page: PAGE },
  { name: "2/5/A GLOBAL", vpid: 2, pcid: 5n, ept: 0, page: GLOBAL },
];

interface Prepared {
  readonly bench: GuestBench;
  readonly pointers: readonly bigint[];
  readonly hostRoot: bigint;
}

/** Goes where a mapping is in force. */
function visit({ bench, pointers, hostRoot }: Prepared, mapping: Mapping): void {
  const { cpu } = bench;
  if (cpu.get32(S.VMX_MODE) === 2) bench.leave();
  if (mapping.ept === undefined) cpu.set64(S.CR3, hostRoot | mapping.pcid);
  else {
    bench.vpid = mapping.vpid;
    bench.eptp = pointers[mapping.ept]!;
    bench.enter(bench.gpa(bench.root) | mapping.pcid);
  }
  bench.update();
}

/** All mappings are cached; then the tables of both dimensions lead elsewhere, without an invalidation. */
function prepare(tlb: TlbChoice): Prepared {
  const bench = new GuestBench({ tlb });
  bench.cr4(CR4_PCIDE | CR4_PGE);
  // Root operation has tables of its own; the guest's are shared by both VPIDs and PCIDs.
  const hostRoot = bench.page(), guestRoot = bench.root;
  bench.root = hostRoot;
  const leaves = [[PAGE, P], [GLOBAL, P | G]].map(([page, bits]) => bench.map(page!, OLD, bits!)[1]!);
  bench.root = guestRoot;
  for (const [page, bits] of [[PAGE, P], [OTHER, P], [GLOBAL, P | G]]) {
    leaves.push(bench.guestMap(page!, bench.gpa(OLD), bits!)[1]!);
  }
  const second = bench.page();
  for (let page = 0x10_000; page < 0x40_0000; page += 4096) {
    bench.eptMap(bench.gpa(page), page, RWX | WB, 1, second);
  }
  const prepared = { bench, pointers: [bench.eptp, bench.pointerTo(second)], hostRoot: BigInt(hostRoot) };
  for (const mapping of MAPPINGS) {
    visit(prepared, mapping);
    bench.read(mapping.page);
  }
  bench.leave();
  for (const leaf of leaves) {
    const value = bench.peek64(leaf);
    bench.poke64(leaf, (value & 0xfffn) | (value >> 32n ? bench.gpa(NEW) : BigInt(NEW)));
  }
  bench.poke32(OLD, 1);
  bench.poke32(NEW, 2);
  return prepared;
}

/** Names of the mappings through which the old page is still read. */
function kept(prepared: Prepared): string[] {
  return MAPPINGS.filter((mapping) => {
    visit(prepared, mapping);
    return prepared.bench.read(mapping.page) === 1;
  }).map((m) => m.name);
}

/** Each operation, where it is carried out, and the mappings that must go. */
const OPERATIONS: Readonly<
  Record<
    string,
    { readonly at: string; readonly run: (p: Prepared) => void; readonly gone: readonly string[] }
  >
> = {
  "INVVPID 0": {
    at: "root PAGE",
    run: ({ bench }) => bench.access.tlb.invvpid(0, 1, Number(PAGE) + 5, 0),
    gone: ["1/5/A PAGE", "1/6/A PAGE", "1/5/B PAGE"],
  },
  "INVVPID 0 of a global page": {
    at: "root PAGE",
    run: ({ bench }) => bench.access.tlb.invvpid(0, 1, Number(GLOBAL), 0),
    gone: ["1/5/A GLOBAL"],
  },
  "INVVPID 1": {
    at: "root PAGE",
    run: ({ bench }) => bench.access.tlb.invvpid(1, 1, 0, 0),
    gone: ["1/5/A PAGE", "1/5/A OTHER", "1/5/A GLOBAL", "1/6/A PAGE", "1/5/B PAGE"],
  },
  "INVVPID 2": {
    at: "root PAGE",
    run: ({ bench }) => bench.access.tlb.invvpid(2, 0, 0, 0),
    gone: MAPPINGS.filter((m) => m.vpid !== 0).map((m) => m.name),
  },
  "INVVPID 3": {
    at: "root PAGE",
    run: ({ bench }) => bench.access.tlb.invvpid(3, 1, 0, 0),
    gone: ["1/5/A PAGE", "1/5/A OTHER", "1/6/A PAGE", "1/5/B PAGE"],
  },
  "INVEPT 1": {
    at: "root PAGE",
    run: ({ bench, pointers }) => bench.access.tlb.invept(1, Number(pointers[0]! & 0xffff_ffffn), 0),
    gone: ["1/5/A PAGE", "1/5/A OTHER", "1/5/A GLOBAL", "1/6/A PAGE", "2/5/A PAGE", "2/5/A GLOBAL"],
  },
  "INVEPT 2": {
    at: "root PAGE",
    run: ({ bench }) => bench.access.tlb.invept(2, 0, 0),
    gone: MAPPINGS.filter((m) => m.ept !== undefined).map((m) => m.name),
  },
  "INVLPG in the guest": {
    at: "1/5/A PAGE",
    run: ({ bench }) => bench.invlpg(PAGE),
    // All EP4TAs of the current VPID and PCID.
    gone: ["1/5/A PAGE", "1/5/B PAGE"],
  },
  "INVLPG in root operation": {
    at: "root PAGE",
    run: ({ bench }) => bench.invlpg(PAGE),
    gone: ["root PAGE"],
  },
  "MOV CR3 in the guest": {
    at: "1/5/A PAGE",
    run: ({ bench }) => bench.loadCr3(bench.cpu.get64(S.CR3)),
    gone: ["1/5/A PAGE", "1/5/A OTHER", "1/5/B PAGE"],
  },
  "MOV CR3 in root operation": {
    at: "root PAGE",
    run: ({ bench }) => bench.loadCr3(bench.cpu.get64(S.CR3)),
    gone: ["root PAGE"],
  },
  "MOV CR4.PGE in the guest": {
    at: "1/5/A PAGE",
    run: ({ bench }) => bench.access.tlb.flushAll(),
    gone: ["1/5/A PAGE", "1/5/A OTHER", "1/5/A GLOBAL", "1/6/A PAGE", "1/5/B PAGE"],
  },
  "INVPCID 1 in the guest": {
    at: "1/5/A PAGE",
    run: ({ bench }) => bench.access.tlb.invpcid(1, 6, 0, 0),
    gone: ["1/6/A PAGE"],
  },
  "INVPCID 2 in the guest": {
    at: "1/5/A PAGE",
    run: ({ bench }) => bench.access.tlb.invpcid(2, 0, 0, 0),
    gone: ["1/5/A PAGE", "1/5/A OTHER", "1/5/A GLOBAL", "1/6/A PAGE", "1/5/B PAGE"],
  },
  "INVPCID 3 in root operation": {
    at: "root PAGE",
    run: ({ bench }) => bench.access.tlb.invpcid(3, 0, 0, 0),
    gone: ["root PAGE"],
  },
  "page fault in the guest": {
    at: "1/5/A PAGE",
    run: ({ bench }) => bench.access.translator.pageFault(Number(PAGE), 0, 0),
    gone: ["1/5/A PAGE", "1/5/B PAGE"],
  },
  "EPT violation of a page": {
    at: "1/5/A PAGE",
    run: ({ bench }) => {
      const gpa = bench.gpa(OLD);
      bench.access.tlb.eptViolation(true, Number(PAGE), 0, Number(gpa & 0xffff_ffffn), Number(gpa >> 32n));
    },
    gone: ["1/5/A PAGE"],
  },
  "EPT violation of a table": {
    at: "1/5/A PAGE",
    run: ({ bench }) => {
      const gpa = bench.gpa(bench.root);
      bench.access.tlb.eptViolation(false, Number(PAGE), 0, Number(gpa & 0xffff_ffffn), Number(gpa >> 32n));
    },
    gone: [],
  },
  "VM transitions with VPIDs": {
    at: "1/5/A PAGE",
    run: ({ bench }) => {
      bench.leave();
      bench.enter();
      bench.leave();
    },
    gone: [],
  },
  "VM transition without VPIDs": {
    at: "root PAGE",
    run: ({ bench }) => {
      bench.vpid = 0;
      bench.enter();
      bench.leave();
    },
    gone: ["root PAGE", "root GLOBAL"],
  },
  "EPTP switching": { at: "1/5/A PAGE", run: ({ bench }) => bench.access.tlb.eptpSwitched(), gone: [] },
  "reset": {
    at: "root PAGE",
    run: ({ bench }) => bench.access.tlb.reset(),
    gone: MAPPINGS.map((m) => m.name),
  },
};

describe("cached mappings", () => {
  for (const [name, { at, run, gone }] of Object.entries(OPERATIONS)) {
    const where = MAPPINGS.find((m) => m.name === at)!;
    it(`${name} removes exactly what it must from the sticky TLB`, () => {
      const prepared = prepare("sticky");
      visit(prepared, where);
      run(prepared);
      assertEquals(kept(prepared), MAPPINGS.map((m) => m.name).filter((n) => !gone.includes(n)));
    });
    it(`${name} removes at least that from the others`, () => {
      for (const tlb of ["geometry", "fast"] as const) {
        const prepared = prepare(tlb);
        visit(prepared, where);
        run(prepared);
        for (const n of kept(prepared)) assert(!gone.includes(n), `${tlb} kept ${n}`);
      }
    });
  }

  it("that are linear and combined are not taken for each other, nor those of two EPT pointers", () => {
    const prepared = prepare("sticky"), { bench } = prepared;
    const entries = bench.access.tlb.store!.entries();
    assertEquals(entries.filter((e) => e.ep4ta < 0).length, 2);
    assertEquals(entries.length, MAPPINGS.length);
    assertEquals(
      new Set(entries.map((e) => `${e.vpid} ${e.global ? "" : e.pcid} ${e.ep4ta} ${e.low}`)).size,
      entries.length,
    );
  });

  it("of the guest-physical kind have no VPID: another VPID finds them, INVVPID leaves them, INVEPT does not", () => {
    for (const [operation, walks] of [["none", 0], ["INVVPID", 0], ["INVEPT", 1]] as const) {
      const bench = new GuestBench({ tlb: "sticky" });
      const linear = bench.guestMap(PAGE, bench.gpa(OLD), P);
      bench.guestMap(OTHER, bench.gpa(OLD), P);
      bench.enter();
      bench.read(PAGE);
      bench.read(OTHER);
      bench.leave();
      const { tlb } = bench.access;
      if (operation === "INVVPID") tlb.invvpid(2, 0, 0, 0);
      if (operation === "INVEPT") tlb.invept(2, 0, 0);
      bench.vpid = 2;
      bench.enter();
      bench.cpu.counters.reset();
      bench.read(PAGE);
      assertEquals(bench.cpu.counters.eptWalks > 0, walks > 0, operation);
      assertEquals(bench.cpu.counters.references, 4, "combined mappings do have a VPID");
      assert(linear[1] !== undefined);
    }
  });
});

describe("a large guest page over small EPT pages", () => {
  const LARGE = 0x60_0000n;
  /** Pieces of the page are cached: what the store holds of it. */
  function fractured(): { bench: GuestBench; pieces: () => number } {
    const bench = new GuestBench({ tlb: "sticky" });
    bench.guestMap(LARGE, bench.gpa(0x20_0000), P, 2);
    bench.enter();
    for (let i = 0; i < 4; i++) bench.read(LARGE + BigInt(i) * 0x1000n);
    return {
      bench,
      pieces: () =>
        bench.access.tlb.store!.entries().filter((e) => e.pageShift === 21 && e.shift === 12).length,
    };
  }

  it("is cached in pieces; INVLPG of any of its addresses removes all of them, as software knows the page", () => {
    const { bench, pieces } = fractured();
    assertEquals(pieces(), 4);
    bench.invlpg(LARGE + 0x12_3456n);
    assertEquals(pieces(), 0);
  });

  it("loses by an EPT violation and by INVVPID 0 only what translates the address", () => {
    const { bench, pieces } = fractured();
    const gpa = bench.gpa(0x20_1000);
    bench.access.tlb.eptViolation(
      true,
      Number(LARGE) + 0x1000,
      0,
      Number(gpa & 0xffff_ffffn),
      Number(gpa >> 32n),
    );
    assertEquals(pieces(), 3);
    bench.access.tlb.invvpid(0, 1, Number(LARGE), 0);
    assertEquals(pieces(), 2);
  });

  it("is removed whole from the fast TLB, too", () => {
    const bench = new GuestBench();
    const entry = bench.guestMap(LARGE, bench.gpa(0x20_0000), P, 2)[2]!;
    bench.enter();
    for (let i = 0; i < 4; i++) bench.read(LARGE + BigInt(i) * 0x1000n);
    bench.poke64(entry, 0n);
    bench.invlpg(LARGE + 0x12_3456n);
    for (let i = 0; i < 4; i++) {
      assertEquals(bench.outcome(() => bench.read(LARGE + BigInt(i) * 0x1000n)).kind, "fault");
    }
  });
});

describe("the fast TLB and VM transitions", () => {
  const used = (bench: GuestBench) => [
    bench.access.tlb.root.count(CONTEXT.SUPERVISOR, FTLB_READ),
    bench.access.tlb.guest.count(CONTEXT.SUPERVISOR, FTLB_READ),
  ];
  function warm(options: ConstructorParameters<typeof GuestBench>[0] = {}): GuestBench {
    const bench = new GuestBench(options);
    const hostRoot = bench.page(), guestRoot = bench.root;
    bench.cpu.set64(S.CR3, BigInt(hostRoot));
    bench.root = hostRoot;
    bench.map(PAGE, OLD, P);
    bench.root = guestRoot;
    bench.guestMap(PAGE, bench.gpa(NEW), P);
    bench.guestMap(OTHER, bench.gpa(NEW), P);
    bench.poke32(OLD, 1);
    bench.poke32(NEW, 2);
    assertEquals(bench.read(PAGE), 1);
    bench.enter(bench.gpa(guestRoot));
    assertEquals(bench.read(PAGE), 2);
    bench.read(OTHER);
    return bench;
  }

  it("with VPIDs both banks keep what they have", () => {
    const bench = warm();
    assertEquals(used(bench), [1, 2]);
    for (let i = 0; i < 3; i++) {
      bench.leave();
      bench.cpu.counters.reset();
      assertEquals(bench.read(PAGE), 1);
      bench.enter();
      assertEquals(bench.read(PAGE), 2);
      assertEquals(bench.cpu.counters.lookups, 0, "no access left the fast TLB");
    }
    assertEquals(used(bench), [1, 2]);
  });

  it("without VPIDs a transition empties them", () => {
    const bench = warm({ vpid: 0 });
    assertEquals(used(bench), [0, 2]);
    bench.leave();
    assertEquals(used(bench), [0, 0]);
  });

  it("another VPID, another EPT pointer, and control bits that entries have folded in empty the guest's bank", () => {
    const changes: ((bench: GuestBench) => void)[] = [
      (b) => b.vpid = 2,
      (b) => b.eptp ^= 0x40n,
      (b) => b.cpu.set32(S.CR0, b.cpu.get32(S.CR0) ^ CR0_WP),
      (b) => b.cpu.set32(S.PKRU, 4),
    ];
    for (const change of changes) {
      const bench = warm();
      bench.leave();
      change(bench);
      bench.enter();
      assertEquals(used(bench)[1], 0, `${change}`);
    }
  });

  it("a change of control bits in one kind of operation leaves the other's bank", () => {
    const bench = warm();
    bench.leave();
    bench.cr0(0, CR0_WP);
    bench.cr0(CR0_WP);
    assertEquals(used(bench), [0, 2]);
  });

  it("INVEPT and INVVPID in root operation reach the guest's bank", () => {
    const operations: ((bench: GuestBench) => void)[] = [
      (b) => b.access.tlb.invept(1, Number(b.eptp), 0),
      (b) => b.access.tlb.invept(2, 0, 0),
      (b) => b.access.tlb.invvpid(1, 1, 0, 0),
      (b) => b.access.tlb.invvpid(2, 0, 0, 0),
      (b) => b.access.tlb.invvpid(3, 1, 0, 0),
    ];
    for (const operation of operations) {
      const bench = warm();
      bench.leave();
      operation(bench);
      assertEquals(used(bench), [1, 0], `${operation}`);
    }
    const bench = warm();
    bench.leave();
    bench.access.tlb.invvpid(0, 1, Number(PAGE), 0);
    assertEquals(used(bench), [1, 1]);
    bench.access.tlb.invvpid(1, 2, 0, 0);
    assertEquals(used(bench), [1, 1], "another VPID");
  });
});
