import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../../hw/address.ts";
import { type BlockStore, MemoryDisk } from "../../../hw/dev/virtio_blk.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../../kernel/context.ts";
import { kthreadCreate, lwktYield } from "../../../kernel/lwkt/thread.ts";
import { tsleep } from "../../../kernel/lwkt/sleep.ts";
import { SWAPBLK_NONE } from "../../../kernel/libkern/blist.ts";
import { physToDmap } from "../../../kernel/platform/layout.ts";
import {
  swpPagerMetaBuild,
  swpPagerMetaCount,
  swpPagerMetaFree,
  swpPagerMetaLookup,
} from "../../../kernel/vm/swap_meta.ts";
import {
  SWAP_BURST_READ,
  swapPagerCopy,
  swapPagerFreespaceAll,
  swapPagerGetpage,
  swapPagerHaspage,
  swapPagerUnswapped,
} from "../../../kernel/vm/swap_pager.ts";
import {
  OBJT_DEFAULT,
  OBJT_SWAP,
  type VmObject,
  vmObjectAllocate,
  vmObjectDrop,
  vmObjectHold,
  vmObjectPipWait,
} from "../../../kernel/vm/vm_object.ts";
import {
  PG_RAM,
  PG_SWAPPED,
  VM_ALLOC_NORMAL,
  VM_PAGE_BITS_ALL,
  type VmPage,
  vmPageActivate,
  vmPageDeactivate,
  vmPageDirty,
  vmPageFree,
  vmPageLookup,
  vmPageLookupBusyTry,
  vmPageLookupBusyWait,
  vmPageSleepBusy,
  vmPageUnqueueNowakeup,
  vmPageWakeup,
} from "../../../kernel/vm/vm_page.ts";
import { vmPageAlloc, vmWaitPfault } from "../../../kernel/vm/vm_page_alloc.ts";
import { vmPageCheck } from "../../../kernel/vm/vm_page_check.ts";
import { vmPageZeroFill } from "../../../kernel/vm/vm_page_valid.ts";
import { vmPageoutFlush } from "../../../kernel/vm/vm_pageout.ts";
import { VM_PAGER_ERROR, VM_PAGER_OK, VM_PAGER_PUT_SYNC } from "../../../kernel/vm/vm_pager.ts";
import { swpPagerGetswapspace } from "../../../kernel/vm/vm_swap.ts";
import { type InKernelOptions, runInKernel } from "../in_kernel.ts";

/** A disk of that many MiB. */
function mib(n: number): MemoryDisk {
  return new MemoryDisk(new Uint8Array(n << 20));
}

/** Runs a body with swap on a disk; pages and swap are consistent afterwards. */
function withSwap(disk: BlockStore, body: (cx: Cx) => Exec<void>, options: InKernelOptions = {}): string {
  return runInKernel({ disk, steps: 100_000_000, ...options }, function* (cx) {
    yield* body(cx);
    assertEquals(vmPageCheck(cx.k), []);
  }).kernel.messages.text;
}

/** What the fault path does with anonymous memory: the page of an object at an index, busy and valid, the object held. */
function* fault(cx: Cx, object: VmObject, index: number): Exec<VmPage | number> {
  for (;;) {
    yield* vmObjectHold(cx, object);
    const { m: found, error } = vmPageLookupBusyTry(cx, object, index, true);
    if (error) {
      yield* vmPageSleepBusy(cx, found!, true, "fault");
      vmObjectDrop(cx, object);
      continue;
    }
    const m = found ?? vmPageAlloc(cx, object, index, VM_ALLOC_NORMAL);
    if (m === undefined) {
      vmObjectDrop(cx, object);
      yield* vmWaitPfault(cx);
      continue;
    }
    // Off the queue: from CACHE anybody could take it, and it is about to be used.
    vmPageUnqueueNowakeup(cx, m);
    if (m.valid === VM_PAGE_BITS_ALL) return m;
    if (!swapPagerHaspage(cx, object, index)) {
      yield* vmPageZeroFill(cx, m);
      m.valid = VM_PAGE_BITS_ALL;
      return m;
    }
    const rv = yield* swapPagerGetpage(cx, object, m);
    if (rv === VM_PAGER_OK) return m;
    vmPageFree(cx, m);
    vmObjectDrop(cx, object);
    return rv;
  }
}
/** Lets go of what {@link fault} gave. */
function release(cx: Cx, object: VmObject, m: VmPage): void {
  vmPageActivate(cx, m);
  vmPageWakeup(cx, m);
  vmObjectDrop(cx, object);
}
/** Writes a number at both ends of a page of an object. */
function* write(cx: Cx, object: VmObject, index: number, value: bigint): Exec<void> {
  const m = yield* fault(cx, object, index);
  assert(typeof m !== "number");
  vmPageDirty(cx, m);
  swapPagerUnswapped(cx, m);
  const at = physToDmap(cx.k, m.physAddr);
  yield* cx.cpu.store64(at, value);
  yield* cx.cpu.store64(gva(at + 4088n), ~value & 0xffff_ffff_ffff_ffffn);
  release(cx, object, m);
}
/** Reads it back, or gives the pager's error. */
function* read(cx: Cx, object: VmObject, index: number): Exec<bigint | number> {
  const m = yield* fault(cx, object, index);
  if (typeof m === "number") return m;
  const at = physToDmap(cx.k, m.physAddr);
  const value = yield* cx.cpu.load64(at), end = yield* cx.cpu.load64(gva(at + 4088n));
  release(cx, object, m);
  assertEquals(end, value === 0n ? end : ~value & 0xffff_ffff_ffff_ffffn, `page ${index} is of two minds`);
  return value;
}
/** Frees an object's pages and blocks. */
function* destroy(cx: Cx, object: VmObject): Exec<void> {
  yield* vmObjectHold(cx, object);
  yield* vmObjectPipWait(cx, object, "destroy");
  for (const { pindex } of [...object.rbMemq]) {
    const m = yield* vmPageLookupBusyWait(cx, object, pindex, true, "destroy");
    if (m !== undefined) vmPageFree(cx, m);
  }
  swapPagerFreespaceAll(cx, object);
  vmObjectDrop(cx, object);
}
/** Writes a page of an object out now and frees it: only swap has it. */
function* pushOut(cx: Cx, object: VmObject, indexes: readonly number[]): Exec<void> {
  yield* vmObjectHold(cx, object);
  const pages: VmPage[] = [];
  for (const index of indexes) pages.push((yield* vmPageLookupBusyWait(cx, object, index, true, "push"))!);
  yield* vmPageoutFlush(cx, pages, VM_PAGER_PUT_SYNC);
  for (const index of indexes) {
    const m = (yield* vmPageLookupBusyWait(cx, object, index, true, "push"))!;
    if (m.dirty === 0) vmPageFree(cx, m);
    else vmPageWakeup(cx, m);
  }
  vmObjectDrop(cx, object);
}
const value = (i: number) => BigInt(i) * 0x1_0001_0001n + 1n;

describe("swap metadata", () => {
  it("holds blocks by index, frees the one that is replaced, and finds all again", () => {
    withSwap(mib(4), function* (cx) {
      const object = vmObjectAllocate(cx, OBJT_DEFAULT, 100_000), free = cx.k.swap.vmSwapSize;
      yield* vmObjectHold(cx, object);
      for (const index of [0, 31, 32, 5000, 99_999]) {
        swpPagerMetaBuild(cx, object, index, swpPagerGetswapspace(cx, object, 1));
      }
      assertEquals([object.type, object.swblockCount, swpPagerMetaCount(object)], [OBJT_SWAP, 4, 5]);
      swpPagerMetaBuild(cx, object, 31, swpPagerGetswapspace(cx, object, 1));
      assertEquals(cx.k.swap.vmSwapSize, free - 5);
      assertEquals(swpPagerMetaLookup(object, 30), SWAPBLK_NONE);
      assertEquals(vmPageCheck(cx.k), []);
      swpPagerMetaFree(cx, object, 31, 2);
      assertEquals([swpPagerMetaLookup(object, 31), swpPagerMetaLookup(object, 32)], [
        SWAPBLK_NONE,
        SWAPBLK_NONE,
      ]);
      assertEquals([object.swblockCount, swpPagerMetaCount(object)], [3, 3]);
      swapPagerFreespaceAll(cx, object);
      assertEquals([object.swblockCount, cx.k.swap.vmSwapSize], [0, free]);
      vmObjectDrop(cx, object);
    });
  });

  it("collapse moves blocks up, except where the upper object has the page", () => {
    withSwap(mib(4), function* (cx) {
      const lower = vmObjectAllocate(cx, OBJT_DEFAULT, 40), upper = vmObjectAllocate(cx, OBJT_DEFAULT, 20);
      const free = cx.k.swap.vmSwapSize;
      for (let i = 0; i < 40; i++) yield* write(cx, lower, i, value(i));
      yield* pushOut(cx, lower, Array.from({ length: 40 }, (_, i) => i));
      yield* write(cx, upper, 3, 33n);
      yield* write(cx, upper, 4, 44n);
      yield* pushOut(cx, upper, [4]);
      yield* vmObjectHold(cx, upper);
      yield* vmObjectHold(cx, lower);
      swapPagerCopy(cx, lower, upper, 10, true);
      vmObjectDrop(cx, lower);
      vmObjectDrop(cx, upper);
      assertEquals([lower.type, lower.swblockCount, swpPagerMetaCount(upper)], [OBJT_DEFAULT, 0, 19]);
      assertEquals(vmPageCheck(cx.k), []);
      for (let i = 0; i < 20; i++) {
        assertEquals(yield* read(cx, upper, i), i === 3 ? 33n : i === 4 ? 44n : value(10 + i));
      }
      yield* destroy(cx, upper);
      assertEquals(cx.k.swap.vmSwapSize, free);
    });
  });
});

describe("the swap pager", () => {
  it("writes a page out, reads it in with its neighbours, and forgets the block when the page changes", () => {
    withSwap(mib(4), function* (cx) {
      const object = vmObjectAllocate(cx, OBJT_DEFAULT, 64), v = cx.k.vmmeter;
      for (let i = 0; i < 20; i++) yield* write(cx, object, i, value(i));
      yield* pushOut(cx, object, Array.from({ length: 20 }, (_, i) => i));
      assertEquals([object.residentPageCount, v.vSwapout, v.vSwappgsout], [0, 1, 20]);
      assertEquals(yield* read(cx, object, 2), value(2));
      yield* vmObjectHold(cx, object);
      yield* vmObjectPipWait(cx, object, "test");
      assertEquals([v.vSwapin, v.vSwappgsin, object.residentPageCount], [
        1,
        SWAP_BURST_READ,
        SWAP_BURST_READ,
      ]);
      const last = vmPageLookup(cx, object, 1 + SWAP_BURST_READ)!;
      assertEquals(last.flags & (PG_RAM | PG_SWAPPED), PG_RAM | PG_SWAPPED);
      assertEquals(last.dirty, 0);
      vmObjectDrop(cx, object);
      yield* write(cx, object, 2, 5n);
      assertEquals(swapPagerHaspage(cx, object, 2), false);
      assertEquals(swapPagerHaspage(cx, object, 3), true);
      yield* destroy(cx, object);
    });
  });

  for (const cpus of [1, 4]) {
    it(`${cpus} CPUs: three threads use twice the RAM, and every page keeps its content`, () => {
      const console = withSwap(mib(48), function* (cx) {
        const threads = 3, pages = 2600, done: number[] = [], v = cx.k.vmmeter;
        const objects = Array.from({ length: threads }, () => vmObjectAllocate(cx, OBJT_DEFAULT, pages));
        for (let t = 0; t < threads; t++) {
          const gd = cx.k.lwkt.gds[t % cx.k.ncpus]!;
          yield* kthreadCreate(
            cx,
            function* (at) {
              const object = objects[t]!;
              for (let i = 0; i < pages; i++) {
                yield* write(at, object, i, value(i * threads + t));
                yield* lwktYield(at);
              }
              for (let i = 0; i < pages; i += 3) yield* write(at, object, i, value(7 + i * threads + t));
              for (let i = 0; i < pages; i++) {
                const want = value((i % 3 === 0 ? 7 : 0) + i * threads + t);
                const got = yield* read(at, object, i);
                assert(got === want, `page ${i} of thread ${t} has ${got}, not ${want}`);
              }
              done.push(t);
            },
            `user${t}`,
            gd,
          );
        }
        while (done.length < threads) yield* tsleep(cx, {}, 0, "threads", 10);
        assert(v.vSwappgsout > 3000, `${v.vSwappgsout} pages went out`);
        assert(v.vSwappgsin > 3000, `${v.vSwappgsin} pages came in`);
        assert(v.vPdwakeups > 0 && v.vDfree > 0);
        assertEquals(vmPageCheck(cx.k), []);
        for (const object of objects) yield* destroy(cx, object);
        assertEquals(cx.k.swap.vmSwapSize, cx.k.swap.vmSwapMax);
      }, { cpus });
      assert(!console.includes("error"), console);
    });
  }

  it("a read error is the reader's alone: others come in, and a later try can succeed", () => {
    let broken = false;
    const disk = Object.assign(mib(4), { fails: (what: string) => broken && what === "read" });
    const console = withSwap(disk, function* (cx) {
      const object = vmObjectAllocate(cx, OBJT_DEFAULT, 64);
      for (let i = 0; i < 16; i++) yield* write(cx, object, i, value(i));
      yield* pushOut(cx, object, Array.from({ length: 16 }, (_, i) => i));
      broken = true;
      assertEquals(yield* read(cx, object, 5), VM_PAGER_ERROR);
      broken = false;
      for (let i = 0; i < 16; i++) assertEquals(yield* read(cx, object, i), value(i));
      yield* destroy(cx, object);
    });
    assert(console.includes("swap_pager: I/O error - pagein failed"), console);
  });

  it("a write error loses nothing: the pages stay dirty, and the blocks are not used again", () => {
    const failed: number[] = [];
    const disk = Object.assign(mib(4), {
      fails: (what: string, offset: number, bytes: number) => {
        const fails = what === "write" && failed.length < 3;
        if (fails) failed.push(offset, bytes);
        return fails;
      },
    });
    const console = withSwap(disk, function* (cx) {
      const object = vmObjectAllocate(cx, OBJT_DEFAULT, 64), { swap } = cx.k, max = swap.vmSwapMax;
      const all = Array.from({ length: 8 }, (_, i) => i);
      for (const i of all) yield* write(cx, object, i, value(i));
      yield* pushOut(cx, object, all);
      assertEquals([object.residentPageCount, swpPagerMetaCount(object)], [8, 0]);
      yield* vmObjectHold(cx, object);
      for (const i of all) assertEquals(vmPageLookup(cx, object, i)!.dirty, VM_PAGE_BITS_ALL);
      vmObjectDrop(cx, object);
      yield* pushOut(cx, object, all);
      yield* pushOut(cx, object, all);
      assertEquals([object.residentPageCount, swpPagerMetaCount(object)], [0, 8]);
      assertEquals([swap.vmSwapBad, swap.vmSwapMax], [16, max - 16]);
      for (const i of all) assertEquals(yield* read(cx, object, i), value(i));
      yield* destroy(cx, object);
    });
    assert(console.includes("pageout failed"), console);
  });

  it("all the time under pressure with a disk that fails now and then, nothing is lost", () => {
    let n = 0;
    const disk = Object.assign(mib(48), {
      // Every 50th write; reads always succeed.
      fails: (what: string) => what === "write" && ++n % 50 === 0,
    });
    withSwap(disk, function* (cx) {
      const pages = 5000, object = vmObjectAllocate(cx, OBJT_DEFAULT, pages);
      for (let i = 0; i < pages; i++) yield* write(cx, object, i, value(i));
      for (let i = 0; i < pages; i++) {
        const got = yield* read(cx, object, i);
        assert(got === value(i), `page ${i} has ${got}`);
      }
      assert(cx.k.swap.vmSwapBad > 0);
      yield* destroy(cx, object);
    });
  });

  it("full: pages stay in memory, dirty, and the flags say so until space is free again", () => {
    withSwap(mib(1), function* (cx) {
      const { swap } = cx.k, object = vmObjectAllocate(cx, OBJT_DEFAULT, 300);
      assertEquals([swap.swapPagerFull, swap.swapPagerAlmostFull], [false, false]);
      for (let i = 0; i < 300; i++) yield* write(cx, object, i, value(i));
      const all = Array.from({ length: 300 }, (_, i) => i);
      for (let i = 0; i < 300; i += 30) yield* pushOut(cx, object, all.slice(i, i + 30));
      assertEquals([swap.vmSwapSize, swap.swapPagerFull, swap.swapPagerAlmostFull], [0, true, true]);
      assertEquals(object.residentPageCount, 300 - swap.vmSwapMax);
      for (let i = 0; i < 300; i++) assertEquals(yield* read(cx, object, i), value(i));
      yield* destroy(cx, object);
      assertEquals([swap.vmSwapSize, swap.swapPagerFull, swap.swapPagerAlmostFull], [
        swap.vmSwapMax,
        false,
        false,
      ]);
    });
  });

  it("no swap on a read-only disk, and none when it is not wanted", () => {
    const console = withSwap(new MemoryDisk(new Uint8Array(1 << 20), { readOnly: true }), function* (cx) {
      assertEquals(cx.k.swap.vmSwapMax, 0);
      yield;
    });
    assert(console.includes("error 30"), console);
    withSwap(mib(1), function* (cx) {
      assertEquals([cx.k.swap.vmSwapMax, cx.k.disk !== undefined], [0, true]);
      yield;
    }, { kernel: { swap: false } });
  });
});

describe("the pageout daemon", () => {
  it("keeps clean pages cached and frees them only when somebody needs the memory", () => {
    withSwap(mib(4), function* (cx) {
      const object = vmObjectAllocate(cx, OBJT_DEFAULT, 4000), v = cx.k.vmmeter;
      // Clean pages of zeros: to make room costs no write.
      for (let i = 0; i < 4000; i++) {
        const m = yield* fault(cx, object, i);
        assert(typeof m !== "number");
        vmPageDeactivate(cx, m);
        vmPageWakeup(cx, m);
        vmObjectDrop(cx, object);
      }
      yield* tsleep(cx, {}, 0, "settle", 50);
      assertEquals(v.vSwapout, 0);
      assert(v.vFreeCount + v.vCacheCount >= v.vFreeTarget, `${v.vFreeCount} free, ${v.vCacheCount} cached`);
      assert(object.residentPageCount > 2000);
      yield* destroy(cx, object);
    });
  });

  it("says so when memory and swap are used up and there is no process to kill, and the kernel stays up", () => {
    const console = withSwap(mib(1), function* (cx) {
      const small = vmObjectAllocate(cx, OBJT_DEFAULT, 1000),
        large = vmObjectAllocate(cx, OBJT_DEFAULT, 3500);
      let written = 0;
      for (let i = 0; i < 1000; i++) yield* write(cx, small, i, value(i));
      yield* kthreadCreate(cx, function* (at) {
        for (; written < 3500; written++) yield* write(at, large, written, value(7 + written));
      }, "writer");
      yield* tsleep(cx, {}, 0, "wait", 1000);
      const stuck = written;
      assert(stuck > 2000 && stuck < 3300, `${stuck} pages`);
      yield* tsleep(cx, {}, 0, "wait", 1000);
      assertEquals(written, stuck, "the writer waits");
      assertEquals(yield* read(cx, small, 999), value(999));
      yield* destroy(cx, small);
      yield* tsleep(cx, {}, 0, "wait", 500);
      assertEquals(written, 3500);
      for (let n = 0; n < 3500; n += 50) assertEquals(yield* read(cx, large, n), value(7 + n));
      yield* destroy(cx, large);
    });
    assert(console.includes("no process to kill"), console);
  });
});
