import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { Random } from "../../../hw/random.ts";
import { Blist, BLIST_MAX_ALLOC, SWAPBLK_NONE } from "../../../kernel/libkern/blist.ts";

/** A map whose blocks are all free. */
function freeBlist(blocks: number): Blist {
  const blist = new Blist(blocks);
  blist.release(0, blocks);
  return blist;
}

describe("Blist", () => {
  it("has no free block when it is made", () => {
    const blist = new Blist(100);
    assertEquals(blist.free, 0);
    assertEquals(blist.alloc(1), SWAPBLK_NONE);
  });

  it("gives the lowest run that fits", () => {
    const blist = freeBlist(2000);
    assertEquals(blist.alloc(32), 0);
    assertEquals(blist.alloc(5), 32);
    assertEquals(blist.alloc(30), 64, "a run does not cross a leaf's border");
    assertEquals(blist.alloc(27), 37, "what was passed by is still found");
    assertEquals(blist.free, 2000 - 94);
  });

  it("finds a run again after a part was too fragmented and then freed", () => {
    const blist = freeBlist(64);
    for (let i = 0; i < 64; i++) assertEquals(blist.alloc(1), i);
    for (let i = 0; i < 64; i += 2) blist.release(i, 1);
    assertEquals(blist.alloc(2), SWAPBLK_NONE);
    blist.release(33, 1);
    assertEquals(blist.alloc(3), 32);
    assertEquals(blist.free, 30);
  });

  it("refuses sizes that no leaf has, blocks that do not exist, and freeing twice", () => {
    const blist = freeBlist(50);
    assertThrows(() => blist.alloc(0), RangeError);
    assertThrows(() => blist.alloc(BLIST_MAX_ALLOC + 1), RangeError);
    assertThrows(() => blist.release(49, 2), RangeError);
    assertThrows(() => blist.release(3, 1), RangeError);
  });

  it("does not give blocks beyond its end", () => {
    const blist = freeBlist(33);
    assertEquals(blist.alloc(32), 0);
    assertEquals(blist.alloc(2), SWAPBLK_NONE);
    assertEquals(blist.alloc(1), 32);
    assertEquals(blist.alloc(1), SWAPBLK_NONE);
  });

  it("fill() takes blocks out of use and counts those that were free", () => {
    const blist = freeBlist(700);
    assertEquals(blist.alloc(4), 0);
    assertEquals(blist.fill(0, 600), 596);
    assertEquals(blist.free, 100);
    assertEquals(blist.alloc(8), 600);
  });

  it("agrees with a list of booleans under random operations", () => {
    const random = new Random(7), blocks = 1500;
    const blist = freeBlist(blocks), isFree = new Array<boolean>(blocks).fill(true);
    const runs: [number, number][] = [];
    for (let step = 0; step < 4000; step++) {
      if (runs.length > 0 && random.between(0, 4) < 2) {
        const [at, n] = runs.splice(random.between(0, runs.length - 1), 1)[0]!;
        blist.release(at, n);
        isFree.fill(true, at, at + n);
      } else {
        const n = random.between(1, 32), at = blist.alloc(n);
        const fits = (from: number) =>
          from % 32 + n <= 32 && from + n <= blocks && isFree.slice(from, from + n).every(Boolean);
        const lowest = isFree.findIndex((_, from) => fits(from));
        assertEquals(at, lowest === -1 ? SWAPBLK_NONE : lowest, `step ${step}: a run of ${n}`);
        if (at === SWAPBLK_NONE) continue;
        isFree.fill(false, at, at + n);
        runs.push([at, n]);
      }
      assert(blist.free === isFree.filter(Boolean).length);
    }
  });
});
