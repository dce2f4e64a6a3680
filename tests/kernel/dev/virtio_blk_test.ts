import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva, hpa, PAGE_SIZE } from "../../../hw/address.ts";
import { type BlockStore, MemoryDisk } from "../../../hw/dev/virtio_blk.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../../kernel/context.ts";
import { VIRTIO_BLK_QUEUE, VIRTIO_BLK_SEGMENTS } from "../../../kernel/dev/virtio_blk.ts";
import { Bio, biowait, type BlockDevice } from "../../../kernel/kern/bio.ts";
import { ERRNO } from "../../../kernel/kern/errno.ts";
import { physToDmap } from "../../../kernel/platform/layout.ts";
import { VM_ALLOC_NORMAL, type VmPage } from "../../../kernel/vm/vm_page.ts";
import { vmPageAlloc } from "../../../kernel/vm/vm_page_alloc.ts";
import { runInKernel } from "../in_kernel.ts";

/** A disk whose sectors hold their number modulo 251. */
function numbered(sectors: number): MemoryDisk {
  return new MemoryDisk(Uint8Array.from({ length: sectors * 512 }, (_, i) => (i >> 9) % 251));
}

/** Runs a body with the kernel's disk on that store; no swap on it. */
function withDisk(disk: BlockStore, body: (cx: Cx, vbd: BlockDevice) => Exec<void>, cpus = 1): string {
  return runInKernel({ disk, cpus, kernel: { swap: false } }, function* (cx) {
    assert(cx.k.disk !== undefined, "the kernel has found the disk");
    yield* body(cx, cx.k.disk);
  }).kernel.messages.text;
}
/** A page of the test's own. */
function page(cx: Cx): VmPage {
  return vmPageAlloc(cx, undefined, 0, VM_ALLOC_NORMAL)!;
}
/** A request for whole pages. */
function request(cmd: "read" | "write", offset: number, pages: readonly VmPage[]): Bio {
  return new Bio(cmd, offset, pages.map(({ physAddr }) => ({ pa: physAddr, bytes: PAGE_SIZE })));
}
/** Carries out a request; gives its errno. */
function* perform(cx: Cx, vbd: BlockDevice, bio: Bio): Exec<number> {
  yield* vbd.strategy(cx, bio);
  return yield* biowait(cx, bio);
}

describe("the disk driver", () => {
  it("finds no disk where there is none", () => {
    runInKernel({}, function* (cx) {
      assertEquals(cx.k.disk, undefined);
      yield;
    });
  });

  it("reads what the disk has and writes what it gets, over several pieces of memory", () => {
    const disk = numbered(100);
    withDisk(disk, function* (cx, vbd) {
      assertEquals([vbd.mediaBytes, vbd.readOnly], [51_200, false]);
      const pages = [page(cx), page(cx), page(cx)];
      assertEquals(yield* perform(cx, vbd, request("read", 8 * 512, pages)), 0);
      for (const [i, m] of pages.entries()) {
        const bytes = yield* cx.cpu.loadBytes(physToDmap(cx.k, m.physAddr), PAGE_SIZE);
        assertEquals([bytes[0], bytes[511], bytes[512], bytes[4095]], [
          8 + 8 * i,
          8 + 8 * i,
          9 + 8 * i,
          15 + 8 * i,
        ]);
      }
      yield* cx.cpu.storeBytes(physToDmap(cx.k, pages[1]!.physAddr), new Uint8Array(PAGE_SIZE).fill(200));
      assertEquals(yield* perform(cx, vbd, request("write", 50 * 512, [pages[1]!])), 0);
      assertEquals(yield* perform(cx, vbd, new Bio("flush", 0, [])), 0);
    });
    assertEquals(
      [disk.data[50 * 512 - 1], disk.data[50 * 512], disk.data[58 * 512 - 1], disk.data[58 * 512]],
      [49, 200, 200, 58],
    );
  });

  for (const cpus of [1, 4]) {
    it(`${cpus} CPUs: carries out more requests at once than it has places`, () => {
      const count = 3 * VIRTIO_BLK_QUEUE;
      withDisk(numbered(8 * count), function* (cx, vbd) {
        const order: number[] = [], bios: Bio[] = [], pages: VmPage[] = [];
        for (let i = 0; i < count; i++) {
          pages.push(page(cx));
          const bio = request("read", i * PAGE_SIZE, [pages[i]!]);
          bio.bioDone = function* () {
            order.push(i);
          };
          bios.push(bio);
          yield* vbd.strategy(cx, bio);
        }
        for (const bio of bios) assertEquals(yield* biowait(cx, bio), 0);
        assertEquals(order.toSorted((a, b) => a - b), bios.map((_, i) => i), "each is told of once");
        for (const [i, m] of pages.entries()) {
          assertEquals(yield* cx.cpu.load8(gva(physToDmap(cx.k, m.physAddr) + 512n)), (8 * i + 1) % 251);
        }
      }, cpus);
    });
  }

  it("answers EIO beyond the end and where the medium is bad, EROFS for writes to a read-only disk, EINVAL for odd sizes", () => {
    const bad = Object.assign(numbered(100), { fails: (_: string, offset: number) => offset === 16 * 512 });
    withDisk(bad, function* (cx, vbd) {
      const m = page(cx);
      assertEquals(yield* perform(cx, vbd, request("read", 96 * 512, [m])), ERRNO.EIO);
      assertEquals(yield* perform(cx, vbd, request("read", 16 * 512, [m])), ERRNO.EIO);
      assertEquals(yield* perform(cx, vbd, request("write", 16 * 512, [m])), ERRNO.EIO);
      assertEquals(yield* perform(cx, vbd, request("read", 8 * 512, [m])), 0);
      assertEquals(yield* perform(cx, vbd, request("read", 100, [m])), ERRNO.EINVAL);
      assertEquals(
        yield* perform(cx, vbd, new Bio("read", 0, [{ pa: m.physAddr, bytes: 100 }])),
        ERRNO.EINVAL,
      );
      const many = new Array<VmPage>(VIRTIO_BLK_SEGMENTS + 1).fill(m);
      assertEquals(yield* perform(cx, vbd, request("read", 0, many)), ERRNO.EINVAL);
    });
    withDisk(new MemoryDisk(new Uint8Array(51_200), { readOnly: true }), function* (cx, vbd) {
      assertEquals(vbd.readOnly, true);
      assertEquals(yield* perform(cx, vbd, request("write", 0, [page(cx)])), ERRNO.EROFS);
      assertEquals(yield* perform(cx, vbd, request("read", 0, [page(cx)])), 0);
    });
  });

  it("fails everything, once and for all, when the rings are destroyed, and the kernel stays up", () => {
    const console = withDisk(numbered(100), function* (cx, vbd) {
      const m = page(cx);
      assertEquals(yield* perform(cx, vbd, request("read", 0, [m])), 0);
      // The queue's address as the device has it cannot be read back; the driver's first page is the lowest that it wired.
      const ring = yield* findRing(cx);
      const bio = request("read", 0, [m]);
      // An available index that is far ahead of what there is.
      yield* vbd.strategy(cx, bio);
      yield* cx.cpu.store16(gva(ring + 16n * BigInt(VIRTIO_BLK_QUEUE) + 2n), 0x7777);
      assertEquals(yield* biowait(cx, bio), ERRNO.EIO);
      assertEquals(yield* perform(cx, vbd, request("read", 0, [m])), ERRNO.EIO);
    });
    assert(console.includes("vbd0: the device needs a reset"), console);
  });
});

/** Linear address of the page with the driver's rings: the one whose available ring has index 1 and whose used ring has index 1. */
function* findRing(cx: Cx): Exec<bigint> {
  for (const m of cx.k.vmPages.vmPageArray) {
    if (m === undefined || m.wireCount === 0) continue;
    const at = physToDmap(cx.k, hpa(m.physAddr));
    const available = yield* cx.cpu.load16(gva(at + 16n * BigInt(VIRTIO_BLK_QUEUE) + 2n));
    const used = yield* cx.cpu.load16(gva(at + 2048n + 2n));
    const indirect = yield* cx.cpu.load16(gva(at + 12n + 16n * 31n));
    const any = yield* cx.cpu.load64(at);
    if (available === 1 && used === 1 && indirect === 0 && any !== 0n) return at;
  }
  throw new Error("The rings are nowhere");
}
