import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../../hw/address.ts";
import { Sanitizer, type StaleUse } from "../../../hw/sanitizer.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../../kernel/context.ts";
import { kthreadCreate } from "../../../kernel/lwkt/thread.ts";
import { tsleep } from "../../../kernel/lwkt/sleep.ts";
import { pmapKextract, pmapKvtom } from "../../../kernel/pmap/pmap_extract.ts";
import {
  pmapGrowkernel,
  pmapKenter,
  pmapKremove,
  pmapQenter,
  pmapQremove,
} from "../../../kernel/pmap/pmap_kenter.ts";
import { checkInvariants } from "../../../kernel/pmap/invariants.ts";
import { kmemAlloc, kmemFree } from "../../../kernel/vm/vm_kern.ts";
import { runInKernel } from "../in_kernel.ts";
import { freePage, newPage } from "./pmap_fixture.ts";

describe("kernel mappings", () => {
  it("come and go, and every CPU is told", () => {
    const sanitizer = new Sanitizer();
    const stale: StaleUse[] = [];
    sanitizer.on((use) => stale.push(use));
    runInKernel({ tlb: "sticky", sanitizer, cpus: 3 }, function* (cx) {
      const va = yield* kmemAlloc(cx, cx.k.vmKern.kernelMap, 0x3000);
      if (va === undefined) throw new Error("no kernel memory");
      const first = yield* newPage(cx, 1n), second = yield* newPage(cx, 2n);
      const seen: (bigint | undefined)[][] = cx.k.lwkt.gds.map(() => []);
      // Each CPU reads the address whenever the round changes.
      const at = { round: 0, done: 0 };
      const reader = function* (own: Cx): Exec<void> {
        const mine = seen[own.gd.gdCpuid]!;
        for (let round = 0; round < 3; round++) {
          while (at.round < round) yield;
          mine.push(yield* own.cpu.load64(va));
          at.done++;
        }
      };
      for (const gd of cx.k.lwkt.gds) if (gd !== cx.gd) yield* kthreadCreate(cx, reader, "reader", gd);
      const others = cx.k.lwkt.gds.length - 1;
      const wait = function* (done: number): Exec<void> {
        while (at.done < done) yield* tsleep(cx, at, 0, "round", 1);
      };
      yield* wait(others);
      yield* pmapKenter(cx, va, first.physAddr);
      at.round = 1;
      yield* wait(2 * others);
      yield* pmapQenter(cx, va, [second, first]);
      at.round = 2;
      yield* wait(3 * others);
      assertEquals(seen.slice(1), [[0n, 1n, 2n], [0n, 1n, 2n]]);
      assertEquals(yield* pmapKvtom(cx, gva(va + 0x1234n)), first);
      assertEquals(yield* pmapKextract(cx, gva(va + 8n)), second.physAddr + 8);
      yield* pmapQremove(cx, va, 1);
      yield* pmapKremove(cx, gva(va + 0x1000n));
      assertEquals(yield* pmapKextract(cx, va), undefined);
      freePage(cx, first);
      freePage(cx, second);
      assertEquals(checkInvariants(cx), []);
    });
    assertEquals(stale, []);
  });

  it("get tables where there are none (pmap_growkernel)", () => {
    runInKernel({}, function* (cx) {
      const far = gva(cx.k.pmap.virtualStart + 0x50_4000_0000n);
      assertEquals(yield* pmapKextract(cx, far), undefined);
      yield* pmapGrowkernel(cx, far, gva(far + 0x40_0000n));
      const m = yield* newPage(cx, 7n);
      for (const va of [far, gva(far + 0x20_0000n)]) {
        yield* pmapKenter(cx, va, m.physAddr);
        assertEquals(yield* cx.cpu.load64(va), 7n);
        yield* pmapKremove(cx, va);
      }
      freePage(cx, m);
      assertEquals(checkInvariants(cx), []);
    });
  });

  it("are given back by kmem_free", () => {
    runInKernel({}, function* (cx) {
      const free = cx.k.vmmeter.vFreeCount;
      const va = yield* kmemAlloc(cx, cx.k.vmKern.kernelMap, 0x5000);
      if (va === undefined) throw new Error("no kernel memory");
      yield* cx.cpu.store64(gva(va + 0x4ff8n), 1n);
      yield* kmemFree(cx, cx.k.vmKern.kernelMap, va, 0x5000);
      // A page table that the kernel grew stays.
      assertEquals(cx.k.vmmeter.vFreeCount >= free - 1, true);
      assertEquals(checkInvariants(cx), []);
    });
  });
});
