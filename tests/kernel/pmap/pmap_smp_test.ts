import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { runComers, runSmp, runTwins } from "./pmap_smp_fixture.ts";

/** First seed that shows something wrong: a stale translation, a rule that does not hold, a panic. */
function found(
  seeds: number,
  run: (seed: number) => { readonly stale: readonly unknown[] },
): string | undefined {
  for (let seed = 1; seed <= seeds; seed++) {
    try {
      if (run(seed).stale.length > 0) return "stale";
    } catch (error) {
      return String(error);
    }
  }
  return undefined;
}

describe("a pmap on several CPUs", () => {
  for (const cpus of [1, 2, 4]) {
    it(`agrees with the model on ${cpus}, and no revoked translation is used`, () => {
      for (const seed of [1, 2, 3]) {
        const { stale, compared } = runSmp({ seed, cpus, operations: 50, threads: 2 });
        assertEquals(stale, [], `seed ${seed}`);
        assert(compared > 20);
      }
    });
  }

  it("makes a CPU that comes in during an invalidation wait for its end", () => {
    for (const seed of [1, 2, 3]) assertEquals(runComers(seed, 30).stale, [], `seed ${seed}`);
  });

  it("misses no invalidation while two of its threads change places", () => {
    for (const seed of [1, 2, 3]) assertEquals(runTwins(seed, 100).stale, [], `seed ${seed}`);
  });
});

describe("a historical bug of the pmap is found", () => {
  it("pmap-skip-cr3, by the sanitizer, within 3 seeds", () => {
    assertEquals(found(3, (seed) => runTwins(seed, 200, ["pmap-skip-cr3"])), "stale");
  });

  it("pv-revalidate, by a panic or an invariant, within 5 seeds", () => {
    const what = found(
      5,
      (seed) => runSmp({ seed, cpus: 3, operations: 60, threads: 3, bugs: ["pv-revalidate"] }),
    );
    assert(what !== undefined && what !== "stale");
  });

  it("pv-list-restart, by an invariant, within 40 seeds", () => {
    const what = found(
      40,
      (seed) => runSmp({ seed, cpus: 3, operations: 60, threads: 3, bugs: ["pv-list-restart"] }),
    );
    assert(what?.includes("PG_WRITEABLE"), what);
  });
});
