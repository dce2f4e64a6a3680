/** Prices and estimates of `deno task lab vkernel`: complete, with sources, and adding up. */
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { cpuModels } from "../../hw/cpuid.ts";
import { COST_NAMES, generationOf, GENERATIONS, generationsFor } from "../../lab/vkernel/costs.ts";
import { COUNT_NAMES, type CountName, type Counts, perOperation } from "../../lab/vkernel/counts.ts";
import { estimate, PART_NAMES } from "../../lab/vkernel/estimate.ts";
import type { Kind } from "../../lab/vkernel/kinds.ts";
import type { Row } from "../../lab/vkernel/measure.ts";
import { predict } from "../../lab/vkernel/model.ts";

/** Counts with all zeros but some. */
function counts(some: Partial<Record<CountName, number>>, vkernelTraps: Record<string, number> = {}): Counts {
  const totals = Object.fromEntries(COUNT_NAMES.map((name) => [name, some[name] ?? 0]));
  return { totals: totals as Record<CountName, number>, exits: {}, vkernelTraps };
}

function row(
  kind: Kind,
  some: Partial<Record<CountName, number>>,
  vkernelTraps?: Record<string, number>,
): Row {
  return {
    workload: "syscall",
    kind,
    model: "haswell",
    eptAd: true,
    cpus: 1,
    operations: 1,
    counts: counts(some, vkernelTraps),
  };
}

describe("the table of prices", () => {
  it("has every price for every generation, each with a source", () => {
    for (const { name, costs, gigahertz } of GENERATIONS) {
      assertEquals(Object.keys(costs).sort(), Object.keys(COST_NAMES).sort(), name);
      assert(gigahertz > 1);
      for (const { cycles, source } of Object.values(costs)) {
        assert(cycles > 0);
        assert(source.length > 10);
      }
    }
  });
  it("has prices for every CPU model that the machine has", () => {
    for (const model of Object.keys(cpuModels)) assert(generationsFor(model).length > 0, model);
  });
  it("has VM transitions that get cheaper from part to part, until the mitigations", () => {
    const transition = (name: string) => generationOf(name).costs.vmTransition.cycles;
    assert(transition("penryn") > transition("nehalem"));
    assert(transition("nehalem") > transition("haswell"));
    assert(transition("skylake-2018") > transition("skylake"));
  });
  it("refuses a generation that there is not", () => {
    assertThrows(() => generationOf("pentium"), RangeError, "penryn");
  });
});

describe("an estimate", () => {
  const haswell = generationOf("haswell");
  const cycles = (name: keyof typeof COST_NAMES) => haswell.costs[name].cycles;
  const host = row("host", { syscalls: 1, instructions: 80 });

  it("of a null system call on the host is the published 100 ns, and its instructions", () => {
    const { total, parts } = estimate(host, haswell);
    assertAlmostEquals(total, (80 + 350) / 3.4, 1e-9);
    assertEquals(parts.vm + parts.guestKernel, 0);
  });
  it("adds up", () => {
    const all = row("vmm", Object.fromEntries(COUNT_NAMES.map((name, i) => [name, i])));
    const { total, parts } = estimate(all, haswell);
    assertAlmostEquals(total, PART_NAMES.reduce((sum, name) => sum + parts[name], 0), 1e-9);
  });
  it("of a guest has its kernel's work in it", () => {
    const { parts } = estimate(row("vmm", { exits: 2, guestSyscalls: 1 }), haswell);
    assertAlmostEquals(parts.guestKernel, cycles("syscallBody") / 3.4, 1e-9);
    assertAlmostEquals(parts.vm, 2 * (cycles("vmTransition") + cycles("exitBody")) / 3.4, 1e-9);
  });
  it("of a guest in ring 0 has also the transitions that stay inside", () => {
    const { parts } = estimate(row("ring0", { guestSyscalls: 1 }), haswell);
    assertAlmostEquals(parts.guestKernel, (cycles("syscallBody") + cycles("syscallTransition")) / 3.4, 1e-9);
  });
  it("charges a fault that the host only hands on as a call, not as a fault with a zeroed page", () => {
    const handedOn = estimate(row("vpte", { traps: 1 }, { "14": 1 }), haswell).parts.crossings;
    assertAlmostEquals(handedOn, (cycles("faultTransition") + cycles("syscallBody")) / 3.4, 1e-9);
  });
  it("takes a row's own instructions from one processor", () => {
    const busy = { ...row("host", { instructions: 5000 }), cpus: 4 };
    assertAlmostEquals(estimate(busy, haswell, host).parts.program, 80 / 3.4, 1e-9);
  });
});

describe("counts per operation", () => {
  it("are what the longer run has more than the shorter", () => {
    const once = counts({ syscalls: 105, walks: 7 }), twice = counts({ syscalls: 205, walks: 7 });
    const { totals } = perOperation(once, twice, 100);
    assertEquals([totals.syscalls, totals.walks], [1, 0]);
  });
  it("have names of exits that only one run had", () => {
    const exits = (of: Record<string, number>): Counts => ({ ...counts({}), exits: of });
    assertEquals(perOperation(exits({}), exits({ VMCALL: 4 }), 2).exits, { VMCALL: 2 });
  });
});

describe("the model of section 22", () => {
  it("gives a system call two crossings or two exits", () => {
    assertEquals(predict("syscall", "vpte", 1), { crossings: 2, exits: 0, vpteWalks: 0 });
    assertEquals(predict("syscall", "vmm", 1), { crossings: 0, exits: 2, vpteWalks: 0 });
  });
  it("gives a fault on a resident page three crossings and two walks, or two exits", () => {
    assertEquals(predict("zfod", "vpte", 1), { crossings: 3, exits: 0, vpteWalks: 2 });
    assertEquals(predict("zfod", "vmm", 1), { crossings: 0, exits: 2, vpteWalks: 0 });
  });
  it("gives a change of an entry a forced exit for each other virtual processor", () => {
    const exits = (cpus: number) => predict("mprotect", "vmm", cpus)!.exits;
    assertEquals(exits(4) - exits(1), 2 * 3);
  });
});
