import { assertEquals } from "@std/assert";
import { headsOf, type Part, structure } from "../../../hw/engine/compiled/structure.ts";

/** Parts as text: nodes in order, loops in brackets with their heads before a colon. */
function shown(parts: readonly Part[]): string {
  return parts.map((part) => part.isLoop ? `[${part.heads.join()}: ${shown(part.inner)}]` : part.nodes[0]!)
    .join(" ");
}

Deno.test("blocks without loops are written in an order in which all branches go forward", () => {
  assertEquals(shown(structure([[1, 2], [3], [3], []], new Set([0]))), "0 2 1 3");
});

Deno.test("a loop has its head first, an inner loop is inside", () => {
  // 0 → 1 → 2 → 2, 2 → 1, 1 → 3
  assertEquals(shown(structure([[1], [2, 3], [2, 1], []], new Set([0]))), "0 [1: 1 [2: 2]] 3");
});

Deno.test("a loop that is entered in two places has two heads", () => {
  const parts = structure([[1, 2], [2], [1]], new Set([0]));
  assertEquals([...headsOf(parts)].sort(), [1, 2]);
  assertEquals(parts.length, 2);
});

Deno.test("an entry inside a loop is one of its heads", () => {
  const parts = structure([[1], [2], [0]], new Set([0, 2]));
  assertEquals([...headsOf(parts)].sort(), [0, 2]);
});

Deno.test("the first part of a loop with one head holds the head", () => {
  const parts = structure([[1], [2, 4], [3], [1, 2], []], new Set([0]));
  const check = (list: readonly Part[]) => {
    for (const part of list) {
      if (!part.isLoop) continue;
      if (part.heads.length === 1) assertEquals(part.inner[0]!.nodes.includes(part.heads[0]!), true);
      check(part.inner);
    }
  };
  check(parts);
});
