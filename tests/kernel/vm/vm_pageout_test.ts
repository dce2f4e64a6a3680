import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { MemoryDisk } from "../../../hw/dev/virtio_blk.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../../kernel/context.ts";
import { SWAPBLK_NONE } from "../../../kernel/libkern/blist.ts";
import { swpPagerMetaLookup } from "../../../kernel/vm/swap_meta.ts";
import { vmMapLookupEntry } from "../../../kernel/vm/vm_map.ts";
import { type VmObject, vmObjectDrop, vmObjectHold, vmObjectPipWait } from "../../../kernel/vm/vm_object.ts";
import {
  PG_MAPPED,
  PG_REFERENCED,
  PG_SWAPPED,
  PG_WINATCFLS,
  type VmPage,
  vmPageDeactivate,
  vmPageHold,
  vmPageLookup,
  vmPageUnhold,
} from "../../../kernel/vm/vm_page.ts";
import { vmPageCheck } from "../../../kernel/vm/vm_page_check.ts";
import { pmapClearReference } from "../../../kernel/pmap/pmap_protect.ts";
import {
  makePageoutPass,
  vmPageoutScanActive,
  vmPageoutScanInactive,
} from "../../../kernel/vm/vm_pageout_scan.ts";
import { PQ_ACTIVE, PQ_CACHE, PQ_INACTIVE, PQ_L2_SIZE } from "../../../kernel/vm/vm_pageq.ts";
import type { Vmspace } from "../../../kernel/vm/vmspace.ts";
import { anonymous, inVm, page, peek, poke, type Spaces } from "./vm_fixture.ts";

const kind = (m: VmPage) => m.queue - m.pc;
const NAMES = new Map([[PQ_ACTIVE, "ACTIVE"], [PQ_INACTIVE, "INACTIVE"], [PQ_CACHE, "CACHE"]]);
const where = (pages: readonly VmPage[]) => pages.map((m) => NAMES.get(kind(m)) ?? "NONE");

/** A space with four written pages, and these pages. */
function withPages(
  body: (cx: Cx, pages: VmPage[], object: VmObject, vm: Vmspace, spaces: Spaces) => Exec<void>,
): void {
  inVm(function* (cx, spaces) {
    const vm = yield* spaces.enter(cx);
    yield* anonymous(cx, vm, 0, 4);
    for (let i = 0; i < 4; i++) assert(yield* poke(cx, page(i), BigInt(i) + 100n));
    const object = vmMapLookupEntry(vm.vmMap, page(0)).entry.object!;
    const pages: VmPage[] = [];
    yield* vmObjectHold(cx, object);
    for (let i = 0; i < 4; i++) pages.push(vmPageLookup(cx, object, i)!);
    vmObjectDrop(cx, object);
    yield* body(cx, pages, object, vm, spaces);
    assertEquals(vmPageCheck(cx.k), []);
  }, { disk: new MemoryDisk(new Uint8Array(4 << 20)) });
}
/** Puts pages on INACTIVE as if nobody had used them for a while. */
function* makeOld(cx: Cx, pages: readonly VmPage[]): Exec<void> {
  for (const m of pages) {
    m.flags &= ~PG_REFERENCED;
    yield* pmapClearReference(cx, m);
    vmPageDeactivate(cx, m);
  }
}
/** One pass over all INACTIVE pages; waits for what it writes. */
function* scan(cx: Cx, object: VmObject, pass: number): Exec<number> {
  const p = makePageoutPass(pass);
  let delta = 0;
  for (let color = 0; color < PQ_L2_SIZE; color++) delta += yield* vmPageoutScanInactive(cx, p, color, 100);
  yield* vmObjectHold(cx, object);
  yield* vmObjectPipWait(cx, object, "scan");
  vmObjectDrop(cx, object);
  return delta;
}

describe("the INACTIVE scan", () => {
  it("lets dirty pages go around once before it writes them, then caches them, and they come back from there", () =>
    withPages(function* (cx, pages, object) {
      yield* makeOld(cx, pages);
      assertEquals(yield* scan(cx, object, 0), 0);
      assertEquals(pages.map((m) => m.flags & PG_WINATCFLS), [
        PG_WINATCFLS,
        PG_WINATCFLS,
        PG_WINATCFLS,
        PG_WINATCFLS,
      ]);
      assertEquals(cx.k.vmmeter.vSwapout, 0);
      assert((yield* scan(cx, object, 0)) >= 4);
      assertEquals([cx.k.vmmeter.vSwapout, cx.k.vmmeter.vSwappgsout], [1, 4], "neighbours go in one write");
      assertEquals(pages.map((m) => [m.dirty, m.flags & PG_SWAPPED]), pages.map(() => [0, PG_SWAPPED]));
      yield* scan(cx, object, 0);
      assertEquals(where(pages), ["CACHE", "CACHE", "CACHE", "CACHE"]);
      assertEquals(pages.map((m) => m.flags & PG_MAPPED), [0, 0, 0, 0]);
      assertEquals(yield* peek(cx, page(2)), 102n);
      assertEquals([where(pages)[2], cx.k.vmmeter.vSwapin], ["ACTIVE", 0]);
    }));

  it("finds a page that was used since in the page table, and activates it", () =>
    withPages(function* (cx, pages, object) {
      yield* makeOld(cx, pages);
      assertEquals(yield* peek(cx, page(1)), 101n);
      pages[3]!.flags |= PG_REFERENCED;
      yield* scan(cx, object, 0);
      assertEquals(where(pages), ["INACTIVE", "ACTIVE", "INACTIVE", "ACTIVE"]);
      assert(pages[1]!.actCount > 5 && pages[3]!.actCount > pages[1]!.actCount - 2);
      assertEquals(pages[3]!.flags & PG_REFERENCED, 0);
    }));

  it("a write after the page went out makes swap's copy worthless: the block goes, the page is written anew", () =>
    withPages(function* (cx, pages, object) {
      yield* makeOld(cx, pages);
      yield* scan(cx, object, 1);
      const blk = swpPagerMetaLookup(object, 2);
      assert(blk !== SWAPBLK_NONE);
      assert(yield* poke(cx, page(2), 7n), "the mapping is read only: a write fault");
      assertEquals(pages[2]!.flags & PG_SWAPPED, 0);
      assertEquals(swpPagerMetaLookup(object, 2), SWAPBLK_NONE);
      yield* makeOld(cx, pages);
      yield* scan(cx, object, 1);
      yield* scan(cx, object, 1);
      assertEquals(yield* peek(cx, page(2)), 7n);
      assertEquals(yield* peek(cx, page(3)), 103n);
    }));

  it("a held page stays", () =>
    withPages(function* (cx, pages, object) {
      yield* makeOld(cx, pages);
      vmPageHold(pages[0]!);
      yield* scan(cx, object, 1);
      yield* scan(cx, object, 1);
      assertEquals(where(pages), ["INACTIVE", "CACHE", "CACHE", "CACHE"]);
      vmPageUnhold(cx, pages[0]!);
    }));
});

describe("the ACTIVE scan", () => {
  it("counts a page's use up and down, and deactivates it at nothing", () =>
    withPages(function* (cx, pages, object) {
      const pass = makePageoutPass(0), m = pages[1]!;
      function* scanActive(): Exec<void> {
        // Nothing is wanted at once: pages are not cached from here.
        for (let color = 0; color < PQ_L2_SIZE; color++) yield* vmPageoutScanActive(cx, pass, color, 0, 100);
      }
      yield* scanActive();
      const used = m.actCount;
      assert(used > 5, `${used}`);
      for (let n = 0; n < used - 1; n++) yield* scanActive();
      assertEquals([m.actCount, where([m])[0]], [1, "ACTIVE"]);
      assertEquals(yield* peek(cx, page(1)), 101n);
      yield* scanActive();
      assertEquals([m.actCount > 1, where([m])[0]], [true, "ACTIVE"]);
      while (where([m])[0] === "ACTIVE") yield* scanActive();
      assertEquals([m.actCount, where([m])[0]], [0, "INACTIVE"]);
      assert((m.flags & PG_MAPPED) !== 0, "it is still mapped");
      yield* scan(cx, object, 0);
    }));
});
