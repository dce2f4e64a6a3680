import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { runSmp } from "./pmap_smp_fixture.ts";

describe("a pmap on several CPUs", () => {
  for (const cpus of [1, 2, 4]) {
    it(`agrees with the model on ${cpus}, and no revoked translation is used`, () => {
      for (const seed of [1, 2, 3]) {
        const { stale, compared } = runSmp({ seed, cpus, operations: 60, threads: 2 });
        assertEquals(stale, [], `seed ${seed}`);
        assert(compared > 50);
      }
    });
  }
});
