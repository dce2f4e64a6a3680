/** `deno task lab vkernel` on the host kernel: its counts are exact, however few operations there are. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { type CountName, crossings } from "../../lab/vkernel/counts.ts";
import { measurementArchives, planGroups, renderModel, reportOf } from "../../lab/vkernel/experiment.ts";
import { measureRow, modelOf, type Row, RowError } from "../../lab/vkernel/measure.ts";
import { compareWithModel } from "../../lab/vkernel/model.ts";
import { renderTable } from "../../lab/vkernel/table.ts";
import { workloadOf, WORKLOADS } from "../../lab/vkernel/workloads.ts";
import { mayRead } from "../kernel/kernel_fixture.ts";

const { archives } = mayRead ? await measurementArchives() : { archives: [] };

/** A row of few operations. */
function row(name: string, cpus = 1, count = 10): Row {
  const workload = { ...workloadOf(name), count, countSmp: count };
  return measureRow({ workload }, { kind: "host", model: "haswell", cpus, archives });
}

/** Counts of a row that are not 0, of those that do not depend on the TLB's geometry. */
function whole(of: Row): Partial<Record<CountName, number>> {
  const names: readonly CountName[] = [
    "syscalls",
    "traps",
    "exits",
    "vkernelTraps",
    "guestSyscalls",
    "vpteWalks",
    "pageFaults",
    "invlpg",
    "cr3Loads",
    "ipis",
    "switches",
  ];
  return Object.fromEntries(
    names.map((name) => [name, of.counts.totals[name]]).filter(([, value]) => value !== 0),
  );
}

describe("an operation of vkbench on the host kernel", { ignore: !mayRead }, () => {
  it("syscall: one crossing and nothing else", () => {
    const measured = row("syscall");
    assertEquals(whole(measured), { syscalls: 1 });
    assertEquals(measured.counts.totals.references, 0);
  });
  it("zfod: one fault, which brings one page", () => {
    assertEquals(whole(row("zfod")), { traps: 1, pageFaults: 1 });
  });
  it("cow: one fault, and one translation to forget", () => {
    assertEquals(whole(row("cow")), { traps: 1, pageFaults: 1, invlpg: 1 });
  });
  it("forkexec: fork, execve, exit, wait4; the faults of a program that starts", () => {
    const { totals } = row("forkexec", 1, 2).counts;
    assertEquals([totals.syscalls, totals.traps], [4, 6]);
  });
  it("pingpong: a write and a read of each, and the pipe's switches", () => {
    const { totals } = row("pingpong").counts;
    assertEquals([totals.syscalls, totals.traps, totals.switches], [4, 0, 6]);
  });
  it("switch: to another address space and back", () => {
    assertEquals(whole(row("switch")), { syscalls: 2, cr3Loads: 2, switches: 2 });
  });
  it("mprotect: two calls and a fault, two changes of the entry", () => {
    assertEquals(whole(row("mprotect")), { syscalls: 2, traps: 1, pageFaults: 1, invlpg: 2 });
  });
  it("mprotect on 2 processors: both changes reach the other one by an IPI", () => {
    assertEquals(whole(row("mprotect", 2, 3)), { syscalls: 2, traps: 1, pageFaults: 1, invlpg: 4, ipis: 2 });
  });
  it("chase: nothing but walks, where memory is larger than the TLB", () => {
    const { totals } = row("chase", 1, 2000).counts;
    assertEquals([totals.syscalls, totals.traps], [0, 0]);
    assert(totals.walks > 0.3 && totals.walks < 0.8);
  });
});

describe("a row", { ignore: !mayRead }, () => {
  it("comes out again exactly the same", () => {
    assertEquals(row("forkexec", 1, 2), row("forkexec", 1, 2));
  });
  it("is found where the model expects it", () => {
    const rows = ["syscall", "zfod", "cow", "mprotect"].map((name) => row(name));
    for (const { predicted, found, row } of compareWithModel(rows)) {
      assertEquals(found, predicted, row.workload);
    }
    assertEquals(renderModel(rows).split("\n").length, rows.length + 1);
    const table = renderTable(rows).split("\n");
    assertEquals(table.length, rows.length + 1);
    assert(table[1]!.startsWith("syscall"));
    const report = JSON.parse(reportOf(rows, 1));
    assertEquals(report.rows.length, rows.length);
    assertEquals(report.rows[0].estimates[0].generation, "haswell");
    assertEquals(crossings(rows[0]!.counts), 1);
  });
  it("that cannot be is said to be missing, with what was on the console", () => {
    const workload = { ...workloadOf("syscall"), name: "nonsense" };
    assertThrows(
      () => measureRow({ workload }, { kind: "host", model: "haswell", cpus: 1, archives }),
      RowError,
      "no such work",
    );
  });
});

describe("the plan of a measurement", () => {
  it("has no guests on VMX where a model has no EPT", () => {
    const plan = planGroups(WORKLOADS, ["host", "vpte", "vmm", "ring0"], ["penryn"], [1]);
    assertEquals([...new Set(plan.map(({ place }) => place.kind))], ["host", "vpte"]);
  });
  it("has more processors on the last model only, and only where they do something", () => {
    const plan = planGroups(WORKLOADS, ["host"], ["nehalem", "haswell"], [1, 4]).filter(({ place }) =>
      place.cpus > 1
    );
    assertEquals(new Set(plan.map(({ place }) => place.model)), new Set(["haswell"]));
    assertEquals(plan.some(({ jobs }) => jobs.some(({ workload }) => workload.single)), false);
  });
  it("knows models whose EPT flags were taken away", () => {
    assertEquals(modelOf("haswell-noad").features.has("vmx-ept-ad"), false);
    assertEquals(modelOf("haswell-noad").features.has("vmx-ept"), true);
    assertThrows(() => modelOf("pentium-noad"), RangeError);
  });
});
