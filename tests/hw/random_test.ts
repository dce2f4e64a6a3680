import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { Random } from "../../hw/random.ts";

describe("the seeded generator", () => {
  const take = (r: Random, n: number) => Array.from({ length: n }, () => r.next());
  it("repeats from the same seed and differs between seeds and streams", () => {
    const words = take(new Random(42), 8);
    assertEquals(take(new Random(42), 8), words);
    assertNotEquals(take(new Random(43), 8), words);
    assertNotEquals(take(new Random(42, 1), 8), words);
    assert(words.every((w) => Number.isInteger(w) && w >= 0 && w < 2 ** 32));
  });
  it("goes on from a saved state", () => {
    const r = new Random(0);
    take(r, 5);
    const state = r.save(), next = take(r, 5);
    r.load(state);
    assertEquals(take(r, 5), next);
  });
  it("draws whole numbers between bounds, evenly enough", () => {
    const r = new Random(7), counts = [0, 0, 0, 0, 0];
    for (let i = 0; i < 5000; i++) counts[r.between(3, 7) - 3]!++;
    assert(counts.every((n) => n > 850 && n < 1150), counts.join());
  });
  it("shuffles to a permutation", () => {
    const items = [0, 1, 2, 3, 4, 5, 6, 7];
    new Random(3).shuffle(items);
    assertNotEquals(items, [0, 1, 2, 3, 4, 5, 6, 7]);
    assertEquals(items.toSorted(), [0, 1, 2, 3, 4, 5, 6, 7]);
  });
});
