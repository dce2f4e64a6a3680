import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { MemoryDisk } from "../../../hw/dev/virtio_blk.ts";
import type { Kernel } from "../../../kernel/kernel.ts";
import { vmPageCheck } from "../../../kernel/vm/vm_page_check.ts";
import { boot, type Booted, type BootOptions, builtProgram, mayRead } from "../kernel_fixture.ts";

/** A disk of that many MiB; `fails` says which requests do. */
function mib(n: number, fails: (what: string, offset: number) => boolean = () => false): MemoryDisk {
  return Object.assign(new MemoryDisk(new Uint8Array(n << 20)), { fails });
}

/** Runs swapthrash with these arguments (MiB, processes, rounds), then hello, on 16 MiB of RAM. */
function thrash(argv: readonly number[], options: BootOptions): Booted {
  const programs = [
    builtProgram("swapthrash", { argv: ["swapthrash", ...argv.map(String)] }),
    builtProgram("hello"),
  ];
  const booted = boot(programs, { steps: 400_000_000, ...options });
  assertEquals(booted.stop.reason, "poweroff", booted.console);
  assertEquals(booted.statuses[1], 0, `what runs afterwards: ${booted.console}`);
  return booted;
}
/** Nothing of the processes is left in memory or on swap. */
function assertClean(kernel: Kernel): void {
  assertEquals(vmPageCheck(kernel), []);
  assertEquals([kernel.swap.vmSwapAnonUse, kernel.swap.vmSwapSize], [0, kernel.swap.vmSwapMax]);
}

describe("processes that use more memory than there is", { ignore: !mayRead }, () => {
  for (const cpus of [1, 3]) {
    it(`${cpus} CPUs: keep their data`, () => {
      const { kernel, console, statuses } = thrash(cpus === 1 ? [24, 3, 1] : [20, 3, 0], {
        cpus,
        disk: mib(48),
      });
      assertEquals(statuses[0], 0, console);
      assert(kernel.vmmeter.vSwappgsout > 500 && kernel.vmmeter.vSwappgsin > 500, console);
      assertClean(kernel);
    });
  }

  it("keep their data on a disk that fails one write in thirty", () => {
    let n = 0;
    const disk = mib(48, (what) => what === "write" && ++n % 30 === 0);
    const { kernel, console, statuses } = thrash([24, 2, 0], { disk });
    assertEquals(statuses[0], 0, console);
    assert(kernel.swap.vmSwapBad > 0);
    assertClean(kernel);
  });

  it("end by a signal when a page cannot be read back, and nobody else does", () => {
    let n = 0;
    const disk = mib(48, (what) => what === "read" && ++n === 20);
    const { kernel, console, statuses } = thrash([24, 2, 0], { disk });
    assertEquals(statuses[0], 1, console);
    assertEquals(console.match(/ended by signal \d+/g), ["ended by signal 10"], console);
    assert(kernel.messages.text.includes("swap_pager: I/O error - pagein failed"));
    assertClean(kernel);
  });

  it("without swap: the largest is killed, the console says so, and the other goes on", () => {
    const { kernel, console, statuses, faults } = thrash([20, 2, 1], {});
    assertEquals(statuses[0], 1, console);
    assertEquals(console.match(/ended by signal \d+/g), ["ended by signal 9"], console);
    assertEquals(kernel.vmmeter.vOomkills, 1);
    assert(/pid \d+ \(swapthrash\), uid 0, was killed: out of swap space/.test(kernel.messages.text));
    assertEquals(faults, []);
    assertClean(kernel);
  });

  it("with too little swap: the same, when that is full", () => {
    const { kernel, console } = thrash([28, 3, 1], { disk: mib(4) });
    assert(kernel.vmmeter.vOomkills >= 1, console);
    assert(kernel.vmmeter.vSwappgsout > 500);
    assertClean(kernel);
  });
});
