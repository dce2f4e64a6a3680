import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../../kernel/context.ts";
import { ERRNO } from "../../../kernel/kern/errno.ts";
import { vmPageCheck } from "../../../kernel/vm/vm_page_check.ts";
import { MemoryDisk } from "../../../hw/dev/virtio_blk.ts";
import { nameToVnode } from "../../../kernel/vfs/nlookup.ts";
import { Uio, UIO_WRITE } from "../../../kernel/vfs/uio.ts";
import { vfsDropCaches, vrele } from "../../../kernel/vfs/vfs_subr.ts";
import { vnOpen, vnRdwr, vnReadBytes, vnTruncate } from "../../../kernel/vfs/vfs_vnops.ts";
import { type Vnode, vref } from "../../../kernel/vfs/vnode.ts";
import { CRED_ROOT } from "../../../kernel/proc/ucred.ts";
import { vpToTmpfsNode } from "../../../kernel/vfs/tmpfs/tmpfs.ts";
import { cpio } from "../../../kernel/vfs/cpio.ts";
import { runInKernel } from "../in_kernel.ts";
import { archiveFile, runProgram, SYS } from "./vfs_fixture.ts";

const { EBADF, EFAULT, EFBIG, EINVAL, ENOSPC, ENXIO, EOVERFLOW, ESPIPE, ETXTBSY } = ERRNO;
const O_CREAT = 0x200, O_RDWR = 2, O_APPEND = 8;
const PAGE = 4096;

/** Bytes that differ from page to page and from offset to offset. */
function pattern(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = i * 31 + (i >> 12) * 7 + seed;
  return bytes;
}

/** A new file, referenced. */
function* make(cx: Cx, path: string): Exec<Vnode> {
  const vp = yield* vnOpen(cx, path, O_CREAT | 3, 0o644, undefined);
  assert(typeof vp !== "number", `open ${path}: error ${vp}`);
  vp.vOpencount--;
  vp.vWritecount--;
  return vp;
}
/** A file that is there, referenced. */
function find(cx: Cx, path: string): Vnode {
  const vp = nameToVnode(cx, path);
  assert(typeof vp !== "number", `${path}: error ${vp}`);
  vref(vp);
  return vp;
}
function* write(cx: Cx, vp: Vnode, offset: number, bytes: Uint8Array): Exec<void> {
  assertEquals(yield* vnRdwr(cx, vp, Uio.kernel(UIO_WRITE, offset, bytes)), { error: 0, resid: 0 });
}

describe("a regular file", () => {
  it("reads back what was written, over page borders, zeros in holes, and nothing behind its end", () => {
    runInKernel({}, function* (cx) {
      const vp = yield* make(cx, "/f");
      yield* write(cx, vp, 3 * PAGE - 10, pattern(20));
      assertEquals(vp.vFilesize, 3 * PAGE + 10);
      const all = yield* vnReadBytes(cx, vp, 0, 10 * PAGE);
      const expected = new Uint8Array(3 * PAGE + 10);
      expected.set(pattern(20), 3 * PAGE - 10);
      assertEquals(all, expected);
      assertEquals(yield* vnReadBytes(cx, vp, 100 * PAGE, 5), new Uint8Array(0));
      yield* vrele(cx, vp);
    });
  });

  it("keeps its bytes when its vnode is taken apart, and all pages are free when it is removed", () => {
    runInKernel({}, function* (cx) {
      yield* vfsDropCaches(cx);
      const free = cx.k.vmmeter.vFreeCount, objects = cx.k.vmObject.objectCount;
      const vp = yield* make(cx, "/f");
      yield* write(cx, vp, 0, pattern(5 * PAGE + 7));
      yield* vrele(cx, vp);
      yield* vfsDropCaches(cx);
      assertEquals(vp.vObject, undefined);
      const again = find(cx, "/f");
      assert(again !== vp);
      assertEquals(yield* vnReadBytes(cx, again, 0, 8 * PAGE), pattern(5 * PAGE + 7));
      // Some pages are in the file's object now, changed, and some still with the node.
      yield* write(cx, again, PAGE, pattern(10, 99));
      yield* vrele(cx, again);
      yield* vfsDropCaches(cx);
      const third = find(cx, "/f");
      const expected = pattern(5 * PAGE + 7);
      expected.set(pattern(10, 99), PAGE);
      assertEquals(yield* vnReadBytes(cx, third, 0, 8 * PAGE), expected);
      const dvp = cx.k.vfs.rootvnode;
      assertEquals(dvp.vOps.vopNremove(cx, dvp, "f"), 0);
      yield* vrele(cx, third);
      yield* vfsDropCaches(cx);
      assertEquals(cx.k.vmmeter.vFreeCount, free);
      assertEquals(cx.k.vmObject.objectCount, objects);
      assertEquals(vmPageCheck(cx.k), []);
    });
  });

  it("that is cut and made longer again has zeros where bytes were", () => {
    runInKernel({}, function* (cx) {
      for (const inObject of [true, false]) {
        const path = inObject ? "/a" : "/b";
        let vp = yield* make(cx, path);
        yield* write(cx, vp, 0, pattern(4 * PAGE));
        if (!inObject) {
          yield* vrele(cx, vp);
          yield* vfsDropCaches(cx);
          vp = find(cx, path);
        }
        assertEquals(yield* vnTruncate(cx, vp, PAGE + 100, CRED_ROOT), 0);
        assertEquals(yield* vnReadBytes(cx, vp, 0, 9 * PAGE), pattern(4 * PAGE).slice(0, PAGE + 100));
        assertEquals(yield* vnTruncate(cx, vp, 3 * PAGE, CRED_ROOT), 0);
        const expected = new Uint8Array(3 * PAGE);
        expected.set(pattern(4 * PAGE).subarray(0, PAGE + 100));
        assertEquals(yield* vnReadBytes(cx, vp, 0, 9 * PAGE), expected);
        yield* vrele(cx, vp);
      }
    });
  });

  it("gets EBADF, EINVAL, EFAULT where they belong, and counts what was moved before a fault", () => {
    runProgram({}, function* (u) {
      yield* u.put("/f", "0123456789");
      const r = yield* u.sys(SYS.open, "/f", 0), w = yield* u.sys(SYS.open, "/f", 1);
      const at = u.room(64);
      assertEquals(yield* u.sys(SYS.read, w, at, 1), -EBADF);
      assertEquals(yield* u.sys(SYS.write, r, at, 1), -EBADF);
      assertEquals(yield* u.sys(SYS.read, 99, at, 1), -EBADF);
      assertEquals(yield* u.sys(SYS.read, -1, at, 1), -EBADF);
      assertEquals(yield* u.sys(SYS.read, r, 0x10, 4), -EFAULT);
      assertEquals(yield* u.sys(SYS.read, r, -4096, 4), -EFAULT);
      assertEquals(yield* u.sys(SYS.read, r, at, -1n), -EINVAL);
      assertEquals(yield* u.sys(SYS.read, r, at, 0), 0);
      assertEquals(yield* u.sys(SYS.write, w, 0x10, 4), -EFAULT);
      assertEquals(yield* u.sys(SYS.lseek, w, 0, 0, 1), 0);
      // The buffer's first page is there, the next is not: the file gets what could be read.
      const page = 0x40_0000n;
      assertEquals(yield* u.sys(SYS.write, w, page + 4086n, 100), -EFAULT);
      assertEquals(((yield* u.stat("/f")) as DataView).getBigInt64(80, true), 10n);
    });
  });

  it("does not grow by a write that failed", () => {
    runProgram({}, function* (u) {
      const fd = yield* u.sys(SYS.open, "/f", O_CREAT | O_RDWR, 0o600);
      assertEquals(yield* u.sys(SYS.write, fd, 0x10, 5000), -EFAULT);
      assertEquals(((yield* u.stat("/f")) as DataView).getBigInt64(80, true), 0n);
    });
  });

  it("moves its offset by lseek, also behind its end, not before its start", () => {
    runProgram({}, function* (u) {
      yield* u.put("/f", "0123456789");
      const fd = yield* u.sys(SYS.open, "/f", O_RDWR);
      assertEquals(yield* u.sys(SYS.lseek, fd, 0, -3, 2), 7);
      assertEquals(yield* u.readText(fd, 10), "789");
      assertEquals(yield* u.sys(SYS.lseek, fd, 0, -5, 1), 5);
      assertEquals(yield* u.readText(fd, 2), "56");
      assertEquals(yield* u.sys(SYS.lseek, fd, 0, -11, 2), -EINVAL);
      assertEquals(yield* u.sys(SYS.lseek, fd, 0, 0, 7), -EINVAL);
      assertEquals(yield* u.sys(SYS.lseek, fd, 0, 1n << 62n, 0), -EOVERFLOW);
      assertEquals(yield* u.sys(SYS.lseek, fd, 0, 20, 0), 20);
      assertEquals(yield* u.readText(fd, 2), "");
      assertEquals(yield* u.write(fd, "x"), 1);
      assertEquals(yield* u.get("/f"), "0123456789" + "\0".repeat(10) + "x");
    });
  });

  it("opened with O_APPEND is written at its end, whoever else writes", () => {
    runProgram({}, function* (u) {
      yield* u.put("/f", "start ");
      const a = yield* u.sys(SYS.open, "/f", O_RDWR | O_APPEND),
        b = yield* u.sys(SYS.open, "/f", O_RDWR | O_APPEND);
      yield* u.write(a, "one ");
      yield* u.write(b, "two ");
      yield* u.write(a, "three");
      assertEquals(yield* u.get("/f"), "start one two three");
    });
  });

  it("is read and written at a position by extpread and extpwrite, and in parts by readv and writev", () => {
    runProgram({}, function* (u) {
      yield* u.put("/f", "0123456789");
      const fd = yield* u.sys(SYS.open, "/f", O_RDWR);
      const at = u.room(16);
      assertEquals(yield* u.sys(SYS.extpread, fd, at, 3, 0, 4), 3);
      assertEquals(new TextDecoder().decode(yield* u.u.loadBytes(at, 3)), "456");
      assertEquals(yield* u.sys(SYS.extpwrite, fd, "AB", 2, 0, 2), 2);
      assertEquals(yield* u.sys(SYS.extpread, fd, at, 3, 0, -5), -EINVAL);
      assertEquals(yield* u.readText(fd, 20), "01AB456789");
      const iov = new DataView(new ArrayBuffer(48));
      const texts = ["one", "", "three"];
      for (const [i, text] of texts.entries()) {
        iov.setBigUint64(i * 16, yield* u.text(text), true);
        iov.setBigUint64(i * 16 + 8, BigInt(text.length), true);
      }
      assertEquals(yield* u.sys(SYS.writev, fd, new Uint8Array(iov.buffer), 3), 8);
      assertEquals(yield* u.get("/f"), "01AB456789onethree");
      assertEquals(yield* u.sys(SYS.writev, fd, new Uint8Array(iov.buffer), 1025), -EINVAL);
      assertEquals(yield* u.sys(SYS.readv, fd, 0x10, 1), -EFAULT);
      const [end] = [yield* u.sys(SYS.pipe)];
      assertEquals(yield* u.sys(SYS.extpread, end, at, 1, 0, 0), -ESPIPE);
      assertEquals(yield* u.sys(SYS.lseek, end, 0, 0, 0), -ESPIPE);
    });
  });

  it("has limits: what the file system has, and what RLIMIT_FSIZE allows", () => {
    const { kernel } = runProgram({ memory: 8 << 20 }, function* (u) {
      const fd = yield* u.sys(SYS.open, "/f", O_CREAT | O_RDWR, 0o600);
      assertEquals(yield* u.sys(SYS.ftruncate, fd, 0, 1n << 40n), -ENOSPC);
      assertEquals(yield* u.sys(SYS.ftruncate, fd, 0, 1n << 60n), -EFBIG);
      assertEquals(yield* u.sys(SYS.ftruncate, fd, 0, -1), -EINVAL);
      assertEquals(yield* u.sys(SYS.truncate, "/dev/null", 0, 5), 0);
      const at = u.room(PAGE);
      let total = 0;
      for (;;) {
        const n = yield* u.sys(SYS.write, fd, at, PAGE - 1);
        if (n < 0) {
          assertEquals(n, -ENOSPC);
          break;
        }
        total += n;
      }
      assertEquals(total % PAGE, 0);
      assert(total > 2 << 20);
      yield* u.sys(SYS.ftruncate, fd, 0, 0);
      yield* u.sys(SYS.lseek, fd, 0, 0, 0);
      assertEquals(yield* u.write(fd, "fits again"), 10);
    });
    assertEquals(vmPageCheck(kernel), []);
  });

  it("that is being executed cannot be written", () => {
    runProgram({}, function* (u) {
      assertEquals(yield* u.sys(SYS.open, "/main", 1), -ETXTBSY);
    });
  });
});

describe("a file of the archive", () => {
  const text = "archive ".repeat(2000);

  it("is read from where the loader put it and costs no memory before", () => {
    const archives = [cpio([archiveFile("f", text)])];
    runInKernel({ kernel: { archives } }, function* (cx) {
      const vp = find(cx, "/f");
      assertEquals(vp.vObject!.residentPageCount, 0);
      const bytes = yield* vnReadBytes(cx, vp, 5000, 100);
      assertEquals(new TextDecoder().decode(bytes as Uint8Array), text.slice(5000, 5100));
      assertEquals(vp.vObject!.residentPageCount, 1);
      yield* vrele(cx, vp);
      yield* vfsDropCaches(cx);
      // Unchanged pages are dropped, not kept.
      assertEquals(vpToTmpfsNode(find(cx, "/f")).tnAobj, undefined);
    });
  });

  it("can be changed, cut and made longer like any other", () => {
    const archives = [cpio([archiveFile("f", text)])];
    runInKernel({ kernel: { archives } }, function* (cx) {
      let vp = find(cx, "/f");
      yield* write(cx, vp, 4090, new TextEncoder().encode("CHANGED"));
      yield* vrele(cx, vp);
      yield* vfsDropCaches(cx);
      vp = find(cx, "/f");
      const changed = text.slice(0, 4090) + "CHANGED" + text.slice(4097);
      assertEquals(new TextDecoder().decode((yield* vnReadBytes(cx, vp, 0, 20000)) as Uint8Array), changed);
      assertEquals(yield* vnTruncate(cx, vp, 9000, CRED_ROOT), 0);
      assertEquals(yield* vnTruncate(cx, vp, 14000, CRED_ROOT), 0);
      yield* vrele(cx, vp);
      yield* vfsDropCaches(cx);
      vp = find(cx, "/f");
      const cut = changed.slice(0, 9000) + "\0".repeat(5000);
      assertEquals(new TextDecoder().decode((yield* vnReadBytes(cx, vp, 0, 20000)) as Uint8Array), cut);
    });
  });
});

describe("files under memory pressure", () => {
  it("go to swap and come back unharmed", () => {
    const disk = new MemoryDisk(new Uint8Array(32 << 20));
    runInKernel({ memory: 8 << 20, disk, steps: 400_000_000 }, function* (cx) {
      const size = 3 << 20, count = 4;
      for (let i = 0; i < count; i++) {
        const vp = yield* make(cx, `/f${i}`);
        yield* write(cx, vp, 0, pattern(size, i));
        yield* vrele(cx, vp);
      }
      assert(cx.k.vmmeter.vSwappgsout > 0, "nothing was paged out");
      for (let round = 0; round < 2; round++) {
        for (let i = 0; i < count; i++) {
          const vp = find(cx, `/f${i}`);
          const back = yield* vnReadBytes(cx, vp, 0, size);
          assert(typeof back !== "number");
          const expected = pattern(size, i);
          let same = 0;
          while (same < size && back[same] === expected[same]) same++;
          assertEquals(same, size);
          yield* vrele(cx, vp);
        }
      }
      for (let i = 0; i < count; i++) {
        const dvp = cx.k.vfs.rootvnode, vp = find(cx, `/f${i}`);
        assertEquals(dvp.vOps.vopNremove(cx, dvp, `f${i}`), 0);
        yield* vrele(cx, vp);
      }
      assertEquals(cx.k.swap.vmSwapSize, cx.k.swap.vmSwapMax);
      assertEquals(vmPageCheck(cx.k), []);
    });
  });
});

describe("devices", () => {
  it("null, zero, full and random do what their names say", () => {
    runProgram({}, function* (u) {
      const nil = yield* u.sys(SYS.open, "/dev/null", O_RDWR);
      assertEquals(yield* u.readText(nil, 10), "");
      assertEquals(yield* u.write(nil, "gone"), 4);
      const zero = yield* u.sys(SYS.open, "/dev/zero", O_RDWR);
      assertEquals(yield* u.read(zero, 9000), new Uint8Array(9000));
      const full = yield* u.sys(SYS.open, "/dev/full", O_RDWR);
      assertEquals(yield* u.write(full, "x"), -ENOSPC);
      const random = yield* u.sys(SYS.open, "/dev/urandom", 0);
      const bytes = (yield* u.read(random, 1000)) as Uint8Array;
      assert(new Set(bytes).size > 200);
      assertEquals(yield* u.sys(SYS.open, "/dev/none", 0), -ERRNO.ENOENT);
      assertEquals(yield* u.sys(SYS.open, "/dev/new", O_CREAT, 0o600), -ERRNO.EOPNOTSUPP);
    });
  });

  it("stdin and fd/N are other names of descriptors", () => {
    runProgram({}, function* (u) {
      yield* u.put("/f", "0123");
      const fd = yield* u.sys(SYS.open, "/f", 0);
      const again = yield* u.sys(SYS.open, `/dev/fd/${fd}`, 0);
      assertEquals(yield* u.readText(again, 2), "01");
      assertEquals(yield* u.readText(fd, 2), "23");
      assertEquals(yield* u.sys(SYS.open, `/dev/fd/${fd}`, O_RDWR), -ERRNO.EACCES);
      assertEquals(yield* u.sys(SYS.open, "/dev/fd/40", 0), -EBADF);
    });
  });

  it("made by mknod go to the same driver", () => {
    runProgram({}, function* (u) {
      const rdev = ((yield* u.stat("/dev/zero")) as DataView).getUint32(28, true);
      assertEquals(yield* u.sys(SYS.mknod, "/z", 0o020666, rdev), 0);
      assertEquals(yield* u.read(yield* u.sys(SYS.open, "/z", 0), 3), new Uint8Array(3));
      assertEquals(yield* u.sys(SYS.mknod, "/none", 0o020666, 9999), 0);
      assertEquals(yield* u.sys(SYS.open, "/none", 0), -ENXIO);
      assertEquals(yield* u.sys(SYS.mknod, "/odd", 0o050666, 0), -EINVAL);
    });
  });
});

describe("procfs", () => {
  it("tells a process of itself and of the machine", () => {
    runProgram({}, function* (u) {
      const pid = yield* u.sys(SYS.getpid);
      assert((yield* u.list("/proc") as Exec<string[]>).includes(`${pid}`));
      const status = yield* u.get("/proc/curproc/status");
      assert(String(status).startsWith(`main ${pid} `), String(status));
      assert(/^0x400000 0x401000 \d+ #\d+ r-x /m.test(String(yield* u.get(`/proc/${pid}/map`))));
      assertEquals(yield* u.get("/proc/curproc/cmdline"), "/main\0");
      assert(/^MemTotal: +\d+ kB$/m.test(String(yield* u.get("/proc/meminfo"))));
      assert(/^v_vm_faults \d+$/m.test(String(yield* u.get("/proc/vmstat"))));
      assertEquals(yield* u.get("/proc/98765/status"), -ERRNO.ENOENT);
      assertEquals(yield* u.get("/proc/007/status"), -ERRNO.ENOENT);
    });
  });
});
