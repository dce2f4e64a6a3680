/** `deno task lab vkernel` inside vkernels: the counts are those of the model that was derived from DragonFly's sources (section 22). */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { measurementArchives } from "../../lab/vkernel/experiment.ts";
import type { Kind } from "../../lab/vkernel/kinds.ts";
import { measureRows, type Row } from "../../lab/vkernel/measure.ts";
import { compareWithModel } from "../../lab/vkernel/model.ts";
import { workloadOf } from "../../lab/vkernel/workloads.ts";
import { mayRead } from "../kernel/kernel_fixture.ts";

const { archives } = mayRead ? await measurementArchives() : { archives: [] };

/** Rows of few operations in a guest whose memory is not used up beforehand, which would take longer than all the rest. */
function rows(kind: Kind, model = "haswell"): ReadonlyMap<string, Row> {
  const found = new Map<string, Row>();
  const jobs = ["syscall", "fresh", "mprotect"].map((name) => ({
    workload: { ...workloadOf(name), count: 8, cold: true },
  }));
  measureRows(jobs, { kind, model, cpus: 1, archives }, (row) => found.set(row.workload, row));
  return found;
}

/** A clock tick of the guest in one of the runs. */
const NOISE = 0.5;

describe("in a vkernel", { ignore: !mayRead }, () => {
  for (const kind of ["vpte", "vmm"] as const) {
    it(`${kind}: system call, fault and change of an entry cost what the model says`, () => {
      const found = rows(kind);
      assertEquals([...found.keys()].sort(), ["fresh", "mprotect", "syscall"]);
      for (const { predicted, found: counted, row } of compareWithModel([...found.values()])) {
        for (const name of ["crossings", "exits", "vpteWalks"] as const) {
          assert(
            Math.abs(counted[name] - predicted[name]) < NOISE,
            `${row.workload} ${name}: ${counted[name]}, and the model says ${predicted[name]}`,
          );
        }
      }
    });
  }
  it("ring0: a system call and a fault do not leave it", () => {
    const found = rows("ring0");
    const { totals } = found.get("syscall")!.counts;
    assertEquals([totals.exits, totals.syscalls, totals.traps, totals.guestSyscalls], [0, 0, 0, 1]);
    // The first use of the page, and nothing else.
    assert(Math.abs(found.get("fresh")!.counts.totals.exits - 1) < NOISE);
    assert(found.get("mprotect")!.counts.totals.exits < NOISE);
  });
  it("vmm, without accessed and dirty flags in EPT: no exit more, as long as the host does not look at them", () => {
    const exits = (model: string) => rows("vmm", model).get("fresh")!.counts.totals.exits;
    assert(Math.abs(exits("haswell-noad") - exits("haswell")) < NOISE);
  });
});
