/** What the machine does for each operation of the kernel: exact counts, the same in every run. */
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import {
  type CountName,
  type Counts,
  KERNEL_ROWS,
  type KernelBenchOptions,
  measureKernel,
} from "../../bench/kernel_rows.ts";
import { mayRead } from "./kernel_fixture.ts";

/** Counts per operation of some rows, each with so many operations. */
async function counts(
  operations: Readonly<Record<string, number>>,
  options: Partial<KernelBenchOptions> = {},
): Promise<Readonly<Record<string, Counts>>> {
  const rows = Object.entries(operations).map(([name, count]) => ({
    ...KERNEL_ROWS.find((row) => row.name === name)!,
    count,
    countSmp: count,
  }));
  const figures = await measureKernel(rows, { cpus: 1, runs: 1, clock: "wall", swaps: false, ...options });
  return Object.fromEntries(figures.map((figure) => [figure.row.name, figure.counts]));
}

/** A clock interrupt more or less between the two runs that are compared. */
const NOISE = 0.1;

function assertCounts(found: Counts, expected: Partial<Counts>): void {
  for (const [name, value] of Object.entries(expected)) {
    assertAlmostEquals(found[name as CountName], value, NOISE, name);
  }
}

const OPERATIONS = { syscall: 2000, zfod: 1000, cow: 300, mmap: 200, fork: 40, forkexec: 20, pingpong: 300 };
const found = mayRead ? await counts(OPERATIONS) : {};

describe("one operation, on one processor", { ignore: !mayRead }, () => {
  it("a system call: one step of its gate, and nothing of the memory system", () => {
    assertCounts(found.syscall!, {
      steps: 1,
      faults: 0,
      walks: 0,
      references: 0,
      invalidations: 0,
      ipis: 0,
      switches: 0,
    });
  });
  it("zero-fill: a fault brings its page and four neighbours", () => {
    assertCounts(found.zfod!, { faults: 0.2, ipis: 0, switches: 0 });
  });
  it("copy-on-write: a fault and an invalidation for each page", () => {
    assertCounts(found.cow!, { faults: 1, invalidations: 1, ipis: 0, switches: 0 });
  });
  it("mmap, a write, munmap: a fault, and an invalidation for each of the four pages that it brought", () => {
    assertCounts(found.mmap!, { faults: 1, invalidations: 4, ipis: 0, switches: 0 });
  });
  it("fork: the stack and the data of both are copied when they are written", () => {
    assertCounts(found.fork!, { faults: 4, switches: 4, ipis: 0 });
  });
  it("fork and exec: the faults of fork, and those of a program that starts", () => {
    assertCounts(found.forkexec!, { faults: 9, switches: 4, ipis: 0 });
  });
  it("a byte there and back: no fault", () => {
    assertCounts(found.pingpong!, { faults: 0, ipis: 0 });
  });
  it("counts again exactly the same", async () => {
    const once = () => counts({ cow: 50, fork: 5 });
    assertEquals(await once(), await once());
  });
});

describe("one operation, on several processors", { ignore: !mayRead }, () => {
  for (const cpus of [2, 4]) {
    it(`${cpus}: a right is taken away by one IPI to each other one, and forgotten on all`, async () => {
      const { mprotect } = await counts({ mprotect: 8 }, { cpus });
      // Once for mprotect, once for the fault that follows: it exchanges the entry.
      assertEquals([mprotect!.ipis, mprotect!.invalidations], [2 * (cpus - 1), 2 * cpus]);
      assertEquals(mprotect!.faults, 1);
    });
  }
  it("4: what one thread does by itself needs no IPI", async () => {
    const { zfod, cow, mmap } = await counts({ zfod: 500, cow: 200, mmap: 100 }, { cpus: 4 });
    for (const row of [zfod!, cow!, mmap!]) assertCounts(row, { ipis: 0 });
  });
});

describe("one operation, with more pages than memory", { ignore: !mayRead }, () => {
  it("each page that is read comes from the disk, and three of four without a fault of their own", async () => {
    const { swapin } = await counts({ swapin: 6144 }, { swaps: true });
    assertCounts(swapin!, { pagesIn: 1 });
    assertAlmostEquals(swapin!.faults, 0.25, 0.1);
  });
});
