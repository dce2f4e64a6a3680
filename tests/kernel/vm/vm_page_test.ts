import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Cx } from "../../../kernel/context.ts";
import { hpa, PAGE_SIZE } from "../../../hw/address.ts";
import type { Exec } from "../../../hw/gates.ts";
import { kthreadCreate } from "../../../kernel/lwkt/thread.ts";
import { tsleep, wakeup } from "../../../kernel/lwkt/sleep.ts";
import {
  OBJT_DEFAULT,
  type VmObject,
  vmObjectAllocate,
  vmObjectDrop,
  vmObjectHold,
} from "../../../kernel/vm/vm_object.ts";
import {
  PG_BUSY,
  PG_ZERO,
  physToVmPage,
  VM_ALLOC_INTERRUPT,
  VM_ALLOC_NORMAL,
  VM_ALLOC_NULL_OK,
  VM_ALLOC_RETRY,
  VM_ALLOC_SYSTEM,
  VM_ALLOC_ZERO,
  VM_PAGE_BITS_ALL,
  type VmPage,
  vmPageActivate,
  vmPageBusyTry,
  vmPageDeactivate,
  vmPageDirty,
  vmPageFree,
  vmPageFreeZero,
  vmPageHold,
  vmPageIoFinish,
  vmPageIoStart,
  vmPageLookup,
  vmPageLookupBusyTry,
  vmPageLookupBusyWait,
  vmPageRename,
  vmPageUnhold,
  vmPageUnwire,
  vmPageWakeup,
  vmPageWire,
} from "../../../kernel/vm/vm_page.ts";
import { vmPageAlloc, vmPageAllocContig, vmWaitPfault } from "../../../kernel/vm/vm_page_alloc.ts";
import { vmPageCache, vmPageGrab, vmPageTryToFree } from "../../../kernel/vm/vm_page_cache.ts";
import {
  vmPageBits,
  vmPageIsValid,
  vmPageSetInvalid,
  vmPageSetValid,
  vmPageSetValiddirty,
  vmPageZeroInvalid,
} from "../../../kernel/vm/vm_page_valid.ts";
import { PQ_ACTIVE, PQ_CACHE, PQ_FREE, PQ_HOLD, PQ_INACTIVE, PQ_NONE } from "../../../kernel/vm/vm_pageq.ts";
import { physToDmap } from "../../../kernel/platform/layout.ts";
import { runInKernel } from "../in_kernel.ts";
import { vmPageCountSevere } from "../../../kernel/vm/vm_page2.ts";
import { vmPageCheck } from "../../../kernel/vm/vm_page_check.ts";

/** Runs a body with an object whose token is held. */
function withObject(body: (cx: Cx, object: VmObject) => Exec<void>, cpus = 1): void {
  runInKernel({ cpus }, function* (cx) {
    const object = vmObjectAllocate(cx, OBJT_DEFAULT, 1000);
    yield* vmObjectHold(cx, object);
    yield* body(cx, object);
    vmObjectDrop(cx, object);
    assertEquals(vmPageCheck(cx.k), []);
  });
}
const kind = (m: VmPage) => m.queue - m.pc;

describe("pages", () => {
  it("exist for all RAM behind the kernel, and the limits follow DragonFly's formulas", () => {
    runInKernel({}, function* (cx) {
      const v = cx.k.vmmeter;
      assert(v.vPageCount > 3000 && v.vPageCount < 4096, `${v.vPageCount} pages of 16 MiB`);
      const min = 64 + Math.floor((v.vPageCount - 1024) / 200);
      assertEquals(
        [v.vFreeMin, v.vFreeReserved, v.vFreeSevere, v.vPageoutFreeMin, v.vInterruptFreeMin],
        [min, (min >> 1) + 7, min >> 1, (min >> 2) + 7, (min >> 3) + 7],
      );
      assertEquals(v.vFreeTarget, 2 * min + v.vFreeReserved);
      assertEquals([v.vCacheMin, v.vCacheMax], [v.vFreeTarget, 2 * v.vFreeTarget]);
      assertEquals(vmPageCheck(cx.k), []);
      yield;
    });
  });

  it("a new page is busy, in its object, of its colour, and findable there alone", () => {
    withObject(function* (cx, object) {
      const other = vmObjectAllocate(cx, OBJT_DEFAULT, 10);
      const m = vmPageAlloc(cx, object, 7, VM_ALLOC_NORMAL)!;
      assertEquals([m.object, m.pindex, m.flags & PG_BUSY, m.valid, kind(m)], [
        object,
        7,
        PG_BUSY,
        0,
        PQ_NONE - m.pc,
      ]);
      assertEquals(m.pc, (7 + object.pgColor) & 255);
      assertEquals(vmPageLookup(cx, object, 7), m);
      assertEquals(physToVmPage(cx.k, m.physAddr), m);
      yield* vmObjectHold(cx, other);
      assertEquals(vmPageLookup(cx, other, 7), undefined);
      vmObjectDrop(cx, other);
      vmPageFree(cx, m);
      assertEquals([object.residentPageCount, kind(m)], [0, PQ_FREE]);
    });
  });

  it("two pages cannot have one index: NULL_OK answers, else it is a panic", () => {
    withObject(function* (cx, object) {
      const m = vmPageAlloc(cx, object, 3, VM_ALLOC_NORMAL)!;
      const free = cx.k.vmmeter.vFreeCount;
      assertEquals(vmPageAlloc(cx, object, 3, VM_ALLOC_NORMAL | VM_ALLOC_NULL_OK), undefined);
      assertEquals(cx.k.vmmeter.vFreeCount, free);
      vmPageFree(cx, m);
      yield;
    });
    assertThrows(
      () =>
        withObject(function* (cx, object) {
          vmPageAlloc(cx, object, 3, VM_ALLOC_NORMAL);
          vmPageAlloc(cx, object, 3, VM_ALLOC_NORMAL);
          yield;
        }),
      Error,
      "a page at index 3",
    );
  });

  it("an object's pages need its token", () => {
    assertThrows(
      () =>
        runInKernel({}, function* (cx) {
          vmPageLookup(cx, vmObjectAllocate(cx, OBJT_DEFAULT, 1), 0);
          yield;
        }),
    );
  });

  it("busy is exclusive; soft busy lets readers pass but not those who ask for also_m_busy", () => {
    withObject(function* (cx, object) {
      const m = vmPageAlloc(cx, object, 0, VM_ALLOC_NORMAL)!;
      assertEquals(vmPageBusyTry(cx, m, false), true);
      assertEquals(vmPageLookupBusyTry(cx, object, 0, false).error, true);
      vmPageIoStart(m);
      vmPageWakeup(cx, m);
      assertEquals(vmPageBusyTry(cx, m, true), true);
      assertEquals(vmPageBusyTry(cx, m, false), false);
      vmPageIoFinish(cx, m);
      vmPageFree(cx, m);
      yield;
    });
  });

  for (const cpus of [1, 4]) {
    it(`${cpus} CPUs: a waiter for a busy page finds that it has gone, and takes the one that came instead`, () => {
      withObject(function* (cx, object) {
        const first = vmPageAlloc(cx, object, 5, VM_ALLOC_NORMAL)!;
        const done = {};
        let found: VmPage | undefined, ended = false;
        yield* kthreadCreate(cx, function* (at) {
          yield* vmObjectHold(at, object);
          found = yield* vmPageLookupBusyWait(at, object, 5, true, "test");
          if (found !== undefined) vmPageWakeup(at, found);
          vmObjectDrop(at, object);
          ended = true;
          wakeup(at, done);
        }, "waiter");
        // Gives the token away: the other thread finds the page busy.
        yield* tsleep(cx, {}, 0, "letgo", 3);
        assertEquals(found, undefined);
        vmPageFree(cx, first);
        const second = vmPageAlloc(cx, object, 5, VM_ALLOC_NORMAL)!;
        vmPageWakeup(cx, second);
        while (!ended) yield* tsleep(cx, done, 0, "done", 10);
        assertEquals(found, second);
        assertEquals(vmPageBusyTry(cx, second, true), false);
        vmPageFree(cx, second);
      }, cpus);
    });
  }

  it("wiring takes a page off its queue, the last unwiring puts it back", () => {
    withObject(function* (cx, object) {
      const m = vmPageAlloc(cx, object, 0, VM_ALLOC_NORMAL)!;
      const wired = cx.k.vmmeter.vWireCount;
      vmPageActivate(cx, m);
      assertEquals([kind(m), m.actCount], [PQ_ACTIVE, 5]);
      vmPageWire(cx, m);
      vmPageWire(cx, m);
      assertEquals([m.queue, cx.k.vmmeter.vWireCount], [PQ_NONE, wired + 1]);
      vmPageActivate(cx, m);
      assertEquals(m.queue, PQ_NONE, "a wired page goes on no queue");
      vmPageUnwire(cx, m, true);
      assertEquals(m.queue, PQ_NONE);
      vmPageUnwire(cx, m, false);
      assertEquals([kind(m), cx.k.vmmeter.vWireCount], [PQ_INACTIVE, wired]);
      vmPageFree(cx, m);
      yield;
    });
  });

  it("a held page that is freed keeps its frame on HOLD until the last hold goes", () => {
    withObject(function* (cx, object) {
      const m = vmPageAlloc(cx, object, 0, VM_ALLOC_NORMAL)!;
      vmPageHold(m);
      vmPageHold(m);
      vmPageFree(cx, m);
      assertEquals([kind(m), m.object, object.residentPageCount], [PQ_HOLD, undefined, 0]);
      vmPageUnhold(cx, m);
      assertEquals(kind(m), PQ_HOLD);
      vmPageUnhold(cx, m);
      assertEquals(kind(m), PQ_FREE);
      yield;
    });
  });

  it("renaming moves a page and makes it dirty", () => {
    withObject(function* (cx, object) {
      const other = vmObjectAllocate(cx, OBJT_DEFAULT, 10);
      yield* vmObjectHold(cx, other);
      const m = vmPageAlloc(cx, object, 4, VM_ALLOC_NORMAL)!;
      m.valid = VM_PAGE_BITS_ALL;
      vmPageRename(cx, m, other, 2);
      assertEquals([vmPageLookup(cx, object, 4), vmPageLookup(cx, other, 2)], [undefined, m]);
      assertEquals([m.dirty, object.residentPageCount, other.residentPageCount], [VM_PAGE_BITS_ALL, 0, 1]);
      vmPageFree(cx, m);
      vmObjectDrop(cx, other);
    });
  });

  it("CACHE takes clean pages only; they are found again, and taken when memory is asked for", () => {
    withObject(function* (cx, object) {
      const clean = vmPageAlloc(cx, object, 0, VM_ALLOC_NORMAL)!,
        dirty = vmPageAlloc(cx, object, 1, VM_ALLOC_NORMAL)!;
      clean.valid = dirty.valid = VM_PAGE_BITS_ALL;
      vmPageDeactivate(cx, clean);
      yield* vmPageCache(cx, clean);
      assertEquals([kind(clean), clean.flags & PG_BUSY], [PQ_CACHE, 0]);
      assertEquals(vmPageLookup(cx, object, 0), clean);
      assertThrows(() => vmPageDirty(cx, clean), Error, "cache");
      vmPageDirty(cx, dirty);
      vmPageWakeup(cx, dirty);
      assertEquals(yield* vmPageTryToFree(cx, dirty), false);
      assertEquals(yield* vmPageTryToFree(cx, clean), true);
      assertEquals(vmPageLookup(cx, object, 0), undefined);
      assertEquals(vmPageBusyTry(cx, dirty, true), false);
      vmPageFree(cx, dirty);
    });
  });

  it("NORMAL stops at the reserve and then recycles CACHE pages, SYSTEM goes deeper, INTERRUPT to the last page", () => {
    runInKernel({ kernel: { swap: false } }, function* (cx) {
      const { vmmeter: v } = cx.k, got: VmPage[] = [];
      const object = vmObjectAllocate(cx, OBJT_DEFAULT, 10);
      yield* vmObjectHold(cx, object);
      const take = (request: number) => {
        const m = vmPageAlloc(cx, undefined, got.length, request);
        if (m !== undefined) got.push(m);
        return m;
      };
      // Nothing here gives up the processor: the daemon cannot run.
      while (v.vFreeCount > v.vFreeReserved) take(VM_ALLOC_NORMAL);
      assertEquals(take(VM_ALLOC_NORMAL), undefined);
      const three = [0, 1, 2].map((i) => vmPageAlloc(cx, object, i, VM_ALLOC_SYSTEM)!);
      for (const cached of three) {
        cached.valid = VM_PAGE_BITS_ALL;
        yield* vmPageCache(cx, cached);
      }
      assertEquals(vmPageAlloc(cx, undefined, 0, VM_ALLOC_SYSTEM), undefined, "not while others can recycle");
      assertEquals(v.vFreeCount, v.vFreeReserved - 3);
      assertEquals(take(VM_ALLOC_NORMAL), undefined, "three are recycled, and that is not enough");
      assertEquals([v.vFreeCount, v.vCacheCount, object.residentPageCount], [v.vFreeReserved, 0, 0]);
      const cached = vmPageAlloc(cx, object, 0, VM_ALLOC_SYSTEM)!;
      cached.valid = VM_PAGE_BITS_ALL;
      yield* vmPageCache(cx, cached);
      vmPageFree(cx, got.pop()!);
      assert(take(VM_ALLOC_NORMAL) !== undefined, "one is recycled, and that is enough");
      assertEquals([v.vFreeCount, v.vCacheCount], [v.vFreeReserved, 0]);
      while (take(VM_ALLOC_SYSTEM));
      assertEquals(v.vFreeCount, v.vInterruptFreeMin);
      while (take(VM_ALLOC_INTERRUPT));
      assertEquals(v.vFreeCount, 0);
      assertEquals(vmPageAlloc(cx, undefined, 0, VM_ALLOC_INTERRUPT), undefined);
      for (const m of got) vmPageFree(cx, m);
      vmObjectDrop(cx, object);
      assertEquals(vmPageCheck(cx.k), []);
    });
  });

  it("who waits after a failed allocation sleeps, also at exactly the reserve, where memory does not count as severely short", () => {
    runInKernel({ kernel: { swap: false } }, function* (cx) {
      const { vmmeter: v } = cx.k, got: VmPage[] = [];
      while (v.vFreeCount > v.vFreeReserved) got.push(vmPageAlloc(cx, undefined, 0, VM_ALLOC_NORMAL)!);
      assertEquals([vmPageAlloc(cx, undefined, 0, VM_ALLOC_NORMAL), vmPageCountSevere(cx.k)], [
        undefined,
        false,
      ]);
      const before = cx.k.ticks;
      yield* vmWaitPfault(cx);
      assert(cx.k.ticks > before, "others could run");
      for (const m of got) vmPageFree(cx, m);
      assertEquals(vmPageCheck(cx.k), []);
    });
  });

  it("zeroed pages go to those who ask for them", () => {
    withObject(function* (cx, object) {
      const m = vmPageAlloc(cx, object, 0, VM_ALLOC_NORMAL)!;
      yield* cx.cpu.zeroBytes(physToDmap(cx.k, m.physAddr), PAGE_SIZE);
      vmPageFreeZero(cx, m);
      const plain = vmPageAlloc(cx, object, 0, VM_ALLOC_NORMAL)!;
      const zero = vmPageAlloc(cx, object, 256, VM_ALLOC_NORMAL | VM_ALLOC_ZERO)!;
      assert(plain !== m);
      assertEquals([zero, zero.flags & PG_ZERO], [m, PG_ZERO]);
      vmPageFree(cx, plain);
      vmPageFree(cx, zero);
    });
  });

  it("grab makes, finds, waits for and zeroes", () => {
    withObject(function* (cx, object) {
      const m = (yield* vmPageGrab(cx, object, 9, VM_ALLOC_NORMAL | VM_ALLOC_ZERO | VM_ALLOC_RETRY))!;
      assertEquals([m.valid, m.pindex], [VM_PAGE_BITS_ALL, 9]);
      const bytes = yield* cx.cpu.loadBytes(physToDmap(cx.k, m.physAddr), PAGE_SIZE);
      assert(bytes.every((byte) => byte === 0));
      assertEquals(yield* vmPageGrab(cx, object, 9, VM_ALLOC_NORMAL), undefined);
      vmPageWakeup(cx, m);
      assertEquals(yield* vmPageGrab(cx, object, 9, VM_ALLOC_NORMAL), m);
      vmPageFree(cx, m);
    });
  });

  it("contiguous pages lie side by side below the limit, or there are none", () => {
    runInKernel({}, function* (cx) {
      const low = hpa(0), high = hpa(16 << 20);
      const run = vmPageAllocContig(cx, { low, high, alignment: 0x10000, pages: 20 })!;
      assertEquals(run.map((m, i) => m.physAddr - i * PAGE_SIZE), run.map(() => run[0]!.physAddr));
      assertEquals(run[0]!.physAddr % 0x10000, 0);
      assertEquals(vmPageAllocContig(cx, { low, high: hpa(0x1000), alignment: 4096, pages: 2 }), undefined);
      for (const m of run) vmPageFree(cx, m);
      assertEquals(vmPageCheck(cx.k), []);
      yield;
    });
  });
});

describe("valid and dirty bits", () => {
  it("stand for blocks of 512 bytes that a range touches", () => {
    assertEquals(vmPageBits(0, 4096), 0xff);
    assertEquals(vmPageBits(0, 1), 1);
    assertEquals(vmPageBits(511, 2), 3);
    assertEquals(vmPageBits(4095, 1), 0x80);
    assertEquals(vmPageBits(100, 0), 0);
    assertThrows(() => vmPageBits(4000, 200), Error);
  });

  it("what is not valid is zeroed, what is stays", () => {
    withObject(function* (cx, object) {
      const m = vmPageAlloc(cx, object, 0, VM_ALLOC_NORMAL)!, at = physToDmap(cx.k, m.physAddr);
      yield* cx.cpu.storeBytes(at, new Uint8Array(PAGE_SIZE).fill(0x5a));
      vmPageSetValid(m, 512, 1024);
      vmPageSetValiddirty(cx, m, 1024, 1);
      assertEquals([m.valid, m.dirty], [6, 4]);
      assertEquals([vmPageIsValid(m, 512, 1024), vmPageIsValid(m, 0, 600)], [true, false]);
      yield* vmPageZeroInvalid(cx, m, true);
      const bytes = yield* cx.cpu.loadBytes(at, PAGE_SIZE);
      assertEquals([bytes[511], bytes[512], bytes[1535], bytes[1536], bytes[4095]], [0, 0x5a, 0x5a, 0, 0]);
      assertEquals(m.valid, VM_PAGE_BITS_ALL);
      vmPageSetInvalid(m, 1024, 3072);
      assertEquals([m.valid, m.dirty], [3, 0]);
      vmPageFree(cx, m);
    });
  });
});
