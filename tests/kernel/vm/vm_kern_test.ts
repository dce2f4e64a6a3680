import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva, PAGE_SIZE } from "../../../hw/address.ts";
import { pmapKextract } from "../../../kernel/pmap/pmap_extract.ts";
import {
  kmemAlloc,
  kmemAllocNofault,
  kmemAllocStack,
  kmemFree,
  kmemFreeStack,
  kmemSuballoc,
} from "../../../kernel/vm/vm_kern.ts";
import { vmMapCheck } from "../../../kernel/vm/vm_map.ts";
import { vmPageCheck } from "../../../kernel/vm/vm_page_check.ts";
import { runInKernel } from "../in_kernel.ts";

describe("kernel memory", () => {
  it("is zeroed, wired, mapped page by page, and comes back when it is freed", () => {
    runInKernel({}, function* (cx) {
      const { kernelMap } = cx.k.vmKern, v = cx.k.vmmeter;
      // The first allocation may need a page table that stays.
      const first = (yield* kmemAlloc(cx, kernelMap, 1))!;
      yield* kmemFree(cx, kernelMap, first, 1);
      const before = [v.vFreeCount, v.vWireCount, kernelMap.size];
      const at = (yield* kmemAlloc(cx, kernelMap, 3 * PAGE_SIZE + 1))!;
      assertEquals(before[1]! as number + 4, v.vWireCount);
      const bytes = yield* cx.cpu.loadBytes(at, 4 * PAGE_SIZE);
      assert(bytes.every((byte) => byte === 0));
      yield* cx.cpu.storeBytes(at, bytes.fill(9));
      assertEquals(vmMapCheck(kernelMap), []);
      assertEquals(vmPageCheck(cx.k), []);
      yield* kmemFree(cx, kernelMap, at, 3 * PAGE_SIZE + 1);
      assertEquals([v.vFreeCount, v.vWireCount, kernelMap.size], before);
      assertEquals(yield* pmapKextract(cx, at), undefined);
      const again = (yield* kmemAlloc(cx, kernelMap, PAGE_SIZE))!;
      assertEquals(yield* cx.cpu.load64(again), 0n);
      yield* kmemFree(cx, kernelMap, again, PAGE_SIZE);
      assertEquals(vmPageCheck(cx.k), []);
    });
  });

  it("a stack has an unmapped page below it", () => {
    runInKernel({}, function* (cx) {
      const size = cx.k.vmKern.kernelMap.size;
      const stack = yield* kmemAllocStack(cx, 4 * PAGE_SIZE),
        other = yield* kmemAllocStack(cx, 4 * PAGE_SIZE);
      for (const at of [stack, other]) {
        assertEquals(yield* pmapKextract(cx, gva(at - 1n)), undefined);
        for (let i = 0; i < 4; i++) {
          assert((yield* pmapKextract(cx, gva(at + BigInt(i * PAGE_SIZE)))) !== undefined);
        }
      }
      yield* kmemFreeStack(cx, stack, 4 * PAGE_SIZE);
      yield* kmemFreeStack(cx, other, 4 * PAGE_SIZE);
      assertEquals(cx.k.vmKern.kernelMap.size, size);
      assertEquals(vmPageCheck(cx.k), []);
    });
  });

  it("a submap gives out its own range, and says so when it is full", () => {
    runInKernel({}, function* (cx) {
      const map = (yield* kmemSuballoc(cx, cx.k.vmKern.kernelMap, 4 * PAGE_SIZE))!;
      const a = (yield* kmemAlloc(cx, map, 2 * PAGE_SIZE))!,
        b = (yield* kmemAllocNofault(cx, map, 2 * PAGE_SIZE))!;
      assertEquals([a, b], [map.min, gva(map.min + 0x2000n)]);
      assertEquals(yield* pmapKextract(cx, b), undefined);
      assertEquals(yield* kmemAlloc(cx, map, 1), undefined);
      yield* kmemFree(cx, map, a, 2 * PAGE_SIZE);
      assertEquals(yield* kmemAlloc(cx, map, 2 * PAGE_SIZE), a);
      assertEquals(vmPageCheck(cx.k), []);
    });
  });
});
