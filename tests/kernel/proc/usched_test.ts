import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { lwktSetcpuSelf } from "../../../kernel/lwkt/thread.ts";
import { Lwp } from "../../../kernel/proc/proc.ts";
import { releaseCurproc } from "../../../kernel/proc/usched_dfly.ts";
import { runInKernel } from "../in_kernel.ts";

describe("the user scheduler", () => {
  it("looks for work on every processor, also on those that no program has been on yet", () => {
    runInKernel({ cpus: 4 }, function* (cx) {
      const { gds } = cx.k.lwkt, { pcpu } = cx.k.usched;
      yield* lwktSetcpuSelf(cx, gds[3]!);
      const lp = new Lwp(cx.k.procs.proc0, 1);
      lp.lwpThread = cx.td;
      releaseCurproc(cx, lp);
      pcpu[3]!.uschedcp = lp;
      releaseCurproc(cx, lp);
      assertEquals(pcpu[3]!.uschedcp, undefined);
    });
  });
});
