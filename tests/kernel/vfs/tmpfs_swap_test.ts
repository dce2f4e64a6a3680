import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { MemoryDisk } from "../../../hw/dev/virtio_blk.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../../kernel/context.ts";
import { vpToTmpfsNode } from "../../../kernel/vfs/tmpfs/tmpfs.ts";
import { Uio, UIO_WRITE } from "../../../kernel/vfs/uio.ts";
import { vfsDropCaches, vrele } from "../../../kernel/vfs/vfs_subr.ts";
import { vnOpen, vnRdwr, vnReadBytes } from "../../../kernel/vfs/vfs_vnops.ts";
import type { Vnode } from "../../../kernel/vfs/vnode.ts";
import { swapPagerPutpages } from "../../../kernel/vm/swap_pager.ts";
import { type VmObject, vmObjectDrop, vmObjectHold, vmObjectPipAdd } from "../../../kernel/vm/vm_object.ts";
import {
  type VmPage,
  vmPageBusyTry,
  vmPageFree,
  vmPageIoStart,
  vmPageLookup,
  vmPageWakeup,
} from "../../../kernel/vm/vm_page.ts";
import { vmPageCheck } from "../../../kernel/vm/vm_page_check.ts";
import { VM_PAGER_PUT_SYNC } from "../../../kernel/vm/vm_pager.ts";
import { runInKernel } from "../in_kernel.ts";

const PAGES = 4, PAGE = 4096;

function* open(cx: Cx): Exec<Vnode> {
  const vp = yield* vnOpen(cx, "/file", 0x200 | 3, 0o600, undefined);
  assert(typeof vp !== "number", `open: ${vp}`);
  vp.vOpencount--;
  vp.vWritecount--;
  return vp;
}

function* write(cx: Cx, vp: Vnode, page: number, value: number): Exec<void> {
  const uio = Uio.kernel(UIO_WRITE, page * PAGE, new Uint8Array(PAGE).fill(value));
  assertEquals(yield* vnRdwr(cx, vp, uio), { error: 0, resid: 0 });
}

function* read(cx: Cx, vp: Vnode, page: number): Exec<number> {
  const got = yield* vnReadBytes(cx, vp, page * PAGE, PAGE);
  assert(typeof got !== "number", `read: ${got}`);
  assertEquals(new Set(got).size, 1);
  return got[0]!;
}

/** Writes all pages of an anonymous object to swap and frees them. */
function* toSwap(cx: Cx, object: VmObject): Exec<void> {
  yield* vmObjectHold(cx, object);
  const pages: VmPage[] = [];
  for (let m = object.rbMemq.min(); m !== undefined; m = object.rbMemq.lookupGT(m.pindex)) {
    assert(!vmPageBusyTry(cx, m, true));
    vmPageIoStart(m);
    vmPageWakeup(cx, m);
    pages.push(m);
  }
  vmObjectPipAdd(object, pages.length);
  yield* swapPagerPutpages(cx, object, pages, VM_PAGER_PUT_SYNC);
  for (const m of pages) {
    assert(!vmPageBusyTry(cx, m, true));
    vmPageFree(cx, m);
  }
  vmObjectDrop(cx, object);
}

describe("a tmpfs file on swap", () => {
  it("keeps a page that was written after reading its neighbour had taken the older one along", () => {
    const disk = new MemoryDisk(new Uint8Array(4 << 20));
    runInKernel({ disk }, function* (cx) {
      let vp = yield* open(cx);
      for (let page = 0; page < PAGES; page++) yield* write(cx, vp, page, 1 + page);
      yield* vrele(cx, vp);
      yield* vfsDropCaches(cx);
      vp = yield* open(cx);
      const aobj = vpToTmpfsNode(vp).tnAobj!;
      yield* toSwap(cx, aobj);
      assertEquals(yield* read(cx, vp, 1), 2);
      assertEquals(yield* read(cx, vp, 0), 1);
      yield* vmObjectHold(cx, aobj);
      assert(vmPageLookup(cx, aobj, 1) !== undefined, "page 1 was not read along with page 0");
      vmObjectDrop(cx, aobj);
      yield* write(cx, vp, 1, 99);
      yield* vrele(cx, vp);
      yield* vfsDropCaches(cx);
      vp = yield* open(cx);
      for (const [page, value] of [1, 99, 3, 4].entries()) assertEquals(yield* read(cx, vp, page), value);
      yield* vrele(cx, vp);
      assertEquals(vmPageCheck(cx.k), []);
    });
  });
});
