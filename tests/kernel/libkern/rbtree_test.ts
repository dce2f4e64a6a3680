import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { Random } from "../../../hw/random.ts";
import { RbTree } from "../../../kernel/libkern/rbtree.ts";

interface Item {
  key: number;
}

describe("the red-black tree", () => {
  it("agrees with a sorted array under random insertions and removals, and keeps its rules", () => {
    const random = new Random(7);
    const tree = new RbTree<Item>((item) => item.key);
    const model = new Map<number, Item>();
    const sorted = () => [...model.keys()].sort((a, b) => a - b);
    for (let step = 0; step < 4000; step++) {
      const key = random.between(0, 159);
      const present = model.get(key);
      if (random.between(0, 1) === 0) {
        const item = { key };
        assertEquals(tree.insert(item), present);
        if (present === undefined) model.set(key, item);
      } else if (present !== undefined) {
        assertEquals(tree.remove({ key }), false, "another item with the key is not the item");
        assertEquals(tree.remove(present), true);
        model.delete(key);
      } else assertEquals(tree.removeKey(key), undefined);
      if (step % 16 === 0) {
        assertEquals(tree.check(), []);
        const keys = sorted();
        assertEquals([...tree].map((item) => item.key), keys);
        assertEquals(tree.size, keys.length);
        const probe = random.between(0, 159);
        assertEquals(tree.find(probe)?.key, keys.find((k) => k === probe));
        assertEquals(tree.lookupGE(probe)?.key, keys.find((k) => k >= probe));
        assertEquals(tree.lookupGT(probe)?.key, keys.find((k) => k > probe));
        assertEquals(tree.lookupLE(probe)?.key, keys.findLast((k) => k <= probe));
        assertEquals(tree.lookupLT(probe)?.key, keys.findLast((k) => k < probe));
        assertEquals([tree.min()?.key, tree.max()?.key], [keys[0], keys.at(-1)]);
      }
    }
  });

  it("can be walked while items come and go", () => {
    const tree = new RbTree<Item>((item) => item.key);
    for (let key = 0; key < 64; key++) tree.insert({ key });
    const seen: number[] = [];
    for (const item of tree.scan(10, 40)) {
      seen.push(item.key);
      tree.remove(item);
      tree.removeKey(item.key + 1);
      if (item.key === 20) tree.insert({ key: 20.5 });
    }
    assertEquals(seen, [10, 12, 14, 16, 18, 20, 20.5, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40]);
    assertEquals(tree.check(), []);
  });

  it("takes bigint keys", () => {
    const tree = new RbTree<{ at: bigint }, bigint>((item) => item.at);
    for (const at of [5n, 1n, 1n << 60n]) tree.insert({ at });
    assertEquals([...tree].map((item) => item.at), [1n, 5n, 1n << 60n]);
    assertEquals(tree.lookupLE(6n)?.at, 5n);
  });
});
