import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { RAM_BASE } from "../../../hw/state.ts";
import { Sanitizer, type StaleUse } from "../../../hw/sanitizer.ts";
import { checkInvariantsWith } from "../../../kernel/pmap/invariants.ts";
import { boot, builtProgram, mayRead } from "../kernel_fixture.ts";

describe("programs that hammer on their mappings", { ignore: !mayRead }, () => {
  for (const name of ["mprotsegv", "mmapfile"]) {
    it(`${name}: no revoked translation is used, all rules hold, every pv entry comes back`, () => {
      const stale: StaleUse[] = [];
      const sanitizer = new Sanitizer();
      sanitizer.on((use) => stale.push(use));
      const { machine, kernel, statuses } = boot([builtProgram(name)], { cpus: 2, tlb: "sticky", sanitizer });
      assertEquals(statuses, [0]);
      assertEquals(stale, []);
      const read64 = (pa: number) => machine.memory.u64[(RAM_BASE + pa) / 8]!;
      assertEquals(checkInvariantsWith(kernel, read64, true), []);
      // The roots of address spaces that are kept for the next ones.
      assertEquals(
        kernel.pmap.pvCount - kernel.vmspace.cache.length <= 8,
        true,
        `${kernel.pmap.pvCount} stay`,
      );
    });
  }
});
