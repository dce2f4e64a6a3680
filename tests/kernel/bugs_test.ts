/** Every historical bug has a hunt that finds it, and finds nothing without it. `deno task bugs` does it with more seeds. */
import { assertEquals, assertMatch } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { HISTORICAL_BUGS } from "../../kernel/bugs.ts";
import { HUNTS, runHunt } from "../../lab/bugs/hunts.ts";

describe("historical bugs", () => {
  it("has one hunt for each", () => {
    assertEquals(HUNTS.map(({ bug }) => bug).toSorted(), HISTORICAL_BUGS.map(({ name }) => name).toSorted());
  });
  for (const hunt of HUNTS) {
    it(`finds ${hunt.bug} within ${hunt.seeds} seeds`, () => {
      let found: string | undefined;
      for (let seed = 1; seed <= hunt.seeds && found === undefined; seed++) found = runHunt(hunt, seed, true);
      assertMatch(found ?? "nothing found", hunt.witness);
    });
    it(`finds nothing without ${hunt.bug}`, () => {
      assertEquals(runHunt(hunt, 1, false), undefined);
    });
  }
});
