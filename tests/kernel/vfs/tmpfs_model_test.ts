import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { MemoryDisk } from "../../../hw/dev/virtio_blk.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../../kernel/context.ts";
import { tsleep, wakeup } from "../../../kernel/lwkt/sleep.ts";
import { kthreadCreate } from "../../../kernel/lwkt/thread.ts";
import { CRED_ROOT } from "../../../kernel/proc/ucred.ts";
import { cacheUnlink } from "../../../kernel/vfs/namecache.ts";
import { NLC_DELETE, nlookup, nlookupInit } from "../../../kernel/vfs/nlookup.ts";
import { vfsToTmpfs } from "../../../kernel/vfs/tmpfs/tmpfs.ts";
import { Uio, UIO_WRITE } from "../../../kernel/vfs/uio.ts";
import { vfsDropCaches, vrele } from "../../../kernel/vfs/vfs_subr.ts";
import { vnOpen, vnRdwr, vnReadBytes, vnTruncate } from "../../../kernel/vfs/vfs_vnops.ts";
import type { Vnode } from "../../../kernel/vfs/vnode.ts";
import { vmPageCheck } from "../../../kernel/vm/vm_page_check.ts";
import { cpio } from "../../../kernel/vfs/cpio.ts";
import { runInKernel } from "../in_kernel.ts";
import { archiveFile } from "./vfs_fixture.ts";

/** A small generator of chance (mulberry32). */
function chance(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

/** The model of a file: its bytes. */
class Model {
  bytes: Uint8Array;
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }
  resize(size: number): void {
    const next = new Uint8Array(size);
    next.set(this.bytes.subarray(0, size));
    this.bytes = next;
  }
}

function* open(cx: Cx, path: string): Exec<Vnode> {
  const vp = yield* vnOpen(cx, path, 0x200 | 3, 0o600, undefined);
  assert(typeof vp !== "number", `open: ${vp}`);
  vp.vOpencount--;
  vp.vWritecount--;
  return vp;
}

function* unlink(cx: Cx, path: string): Exec<void> {
  const vp = yield* open(cx, path);
  const nd = nlookupInit(cx, path, NLC_DELETE);
  assertEquals(nlookup(cx, nd), 0);
  const dvp = nd.nlDvp!;
  assertEquals(dvp.vOps.vopNremove(cx, dvp, nd.nlNch.ncName), 0);
  cacheUnlink(cx, nd.nlNch);
  yield* vrele(cx, vp);
}

/** Operations of each thread. */
const OPERATIONS = 120;
/** Files grow to about this. */
const SIZE_MAX = 1_000_000;

/** One thread: its own files, and what they should hold. */
function* worker(cx: Cx, id: number, ops: number, seed: number, archived: Uint8Array): Exec<void> {
  const random = chance(seed * 16 + id);
  const models = [new Model(archived.slice()), new Model(new Uint8Array(0)), new Model(new Uint8Array(0))];
  for (let op = 0; op < ops; op++) {
    const which = random(models.length), model = models[which]!;
    const path = `/w${id}-${which}`;
    const what = random(20);
    if (what === 0) {
      yield* vfsDropCaches(cx);
      continue;
    }
    if (what === 1) {
      yield* unlink(cx, path);
      model.bytes = new Uint8Array(0);
      continue;
    }
    const vp = yield* open(cx, path);
    if (what < 8) {
      const offset = random(SIZE_MAX), data = new Uint8Array(1 + random(30_000));
      for (let i = 0; i < data.length; i++) data[i] = i * 7 + op;
      const done = yield* vnRdwr(cx, vp, Uio.kernel(UIO_WRITE, offset, data));
      assertEquals(done, { error: 0, resid: 0 });
      if (offset + data.length > model.bytes.length) model.resize(offset + data.length);
      model.bytes.set(data, offset);
    } else if (what < 11) {
      const size = random(SIZE_MAX);
      assertEquals(yield* vnTruncate(cx, vp, size, CRED_ROOT), 0);
      model.resize(size);
    } else {
      const offset = random(SIZE_MAX), length = random(60_000);
      const got = yield* vnReadBytes(cx, vp, offset, length);
      assert(typeof got !== "number", `read: ${got}`);
      const expected = model.bytes.subarray(offset, offset + length);
      assertEquals(got.length, expected.length, `${path} operation ${op}`);
      let same = 0;
      while (same < got.length && got[same] === expected[same]) same++;
      assert(same === got.length, `${path} operation ${op}: differs at ${offset + same}`);
    }
    assertEquals(vp.vFilesize, model.bytes.length);
    yield* vrele(cx, vp);
  }
  for (let which = 0; which < models.length; which++) {
    yield* unlink(cx, `/w${id}-${which}`);
  }
}

describe("tmpfs against a model of bytes", () => {
  for (const [cpus, seed] of [[1, 1], [2, 2], [3, 3]] as const) {
    it(`holds with ${cpus} processors, three threads, memory too small and everything removed at the end (seed ${seed})`, () => {
      const archived = new Uint8Array(50_000).map((_, i) => i >> 3);
      const archives = [cpio([1, 2, 3].map((id) => archiveFile(`w${id}-0`, archived)))];
      const disk = new MemoryDisk(new Uint8Array(16 << 20));
      runInKernel(
        { cpus, seed, disk, memory: 4 << 20, steps: 600_000_000, kernel: { archives } },
        function* (cx) {
          const { k } = cx;
          yield* vfsDropCaches(cx);
          const objects = k.vmObject.objectCount, tm = vfsToTmpfs(k.vfs.rootvnode.vMount);
          let running = 3;
          const failures: unknown[] = [];
          for (let id = 1; id <= 3; id++) {
            yield* kthreadCreate(cx, function* (at) {
              try {
                yield* worker(at, id, OPERATIONS, seed, archived);
              } catch (error) {
                failures.push(error);
              }
              if (--running === 0) wakeup(at, failures);
            }, `worker ${id}`);
          }
          while (running > 0) yield* tsleep(cx, failures, 0, "workers", 100);
          if (failures.length > 0) throw failures[0];
          yield* vfsDropCaches(cx);
          assertEquals(k.vmObject.objectCount, objects);
          assertEquals(tm.tmPagesUsed, 0);
          assertEquals(k.swap.vmSwapSize, k.swap.vmSwapMax);
          assertEquals(vmPageCheck(k), []);
        },
      );
    });
  }
});
