import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { ERRNO } from "../../../kernel/kern/errno.ts";
import { falloc } from "../../../kernel/kern/kern_descrip.ts";
import {
  PIPE_BUF,
  PIPE_SIZE,
  PipeBuffer,
  pipeBufferRead,
  pipeBufferWrite,
  wakeReaders,
  wakeWriters,
} from "../../../kernel/kern/pipe_buffer.ts";
import { tsleep } from "../../../kernel/lwkt/sleep.ts";
import { kthreadCreate } from "../../../kernel/lwkt/thread.ts";
import { Uio, UIO_READ, UIO_WRITE } from "../../../kernel/vfs/uio.ts";
import { runInKernel } from "../in_kernel.ts";
import { runProgram, SYS, type User } from "./vfs_fixture.ts";
import type { Exec } from "../../../hw/gates.ts";
import { userSyscall } from "../../../kernel/proc/user_gate.ts";

const { EAGAIN, EBADF, EINVAL, EMFILE, ENFILE, ENXIO, EOPNOTSUPP } = ERRNO;
const O_RDWR = 2, O_NONBLOCK = 4, O_CREAT = 0x200, O_CLOEXEC = 0x2_0000;
const F_DUPFD = 0, F_GETFD = 1, F_SETFD = 2, F_GETFL = 3, F_SETFL = 4, F_GETLK = 7, F_SETLK = 8;

/** pipe(2): the two descriptors. */
function* pipe(u: User): Exec<[number, number]> {
  const { value } = yield* userSyscall(u.u, SYS.pipe);
  return [Number(value), Number(u.u.gpr(2))];
}

describe("descriptors", () => {
  it("are the lowest free ones, shared by dup with their offset and flags", () => {
    runProgram({}, function* (u) {
      yield* u.put("/f", "0123456789");
      const fd = yield* u.sys(SYS.open, "/f", O_RDWR);
      assertEquals(fd, 3);
      const other = yield* u.sys(SYS.dup, fd);
      assertEquals(other, 4);
      assertEquals(yield* u.readText(fd, 3), "012");
      assertEquals(yield* u.readText(other, 3), "345");
      assertEquals(yield* u.sys(SYS.close, fd), 0);
      assertEquals(yield* u.sys(SYS.close, fd), -EBADF);
      assertEquals(yield* u.sys(SYS.dup, other), 3);
      assertEquals(yield* u.sys(SYS.dup2, other, 20), 20);
      assertEquals(yield* u.sys(SYS.dup2, other, other), 4);
      assertEquals(yield* u.sys(SYS.dup2, 99, 5), -EBADF);
      assertEquals(yield* u.sys(SYS.dup2, other, -1), -EBADF);
      assertEquals(yield* u.sys(SYS.dup2, other, 1 << 20), -EBADF);
      assertEquals(yield* u.sys(SYS.fcntl, other, F_DUPFD, 10), 10);
      assertEquals(yield* u.sys(SYS.fcntl, other, F_DUPFD, -1), -EINVAL);
      assertEquals(yield* u.sys(SYS.fcntl, other, F_GETFL), O_RDWR);
      yield* u.sys(SYS.fcntl, other, F_SETFL, 8 | O_NONBLOCK);
      assertEquals(yield* u.sys(SYS.fcntl, 20, F_GETFL), O_RDWR | 8 | O_NONBLOCK);
      assertEquals(yield* u.sys(SYS.fcntl, other, 99), -EINVAL);
    });
  });

  it("marked close-on-exec are gone after exec, the others not", () => {
    const { kernel } = runProgram({
      programs: {
        *after(u) {
          assertEquals(yield* u.sys(SYS.fcntl, 5, F_GETFD), -EBADF);
          assertEquals(yield* u.sys(SYS.fcntl, 6, F_GETFD), 0);
          assertEquals(yield* u.readText(6, 4), "kept");
          return 7;
        },
      },
    }, function* (u) {
      yield* u.put("/f", "kept");
      const fd = yield* u.sys(SYS.open, "/f", O_CLOEXEC);
      assertEquals(yield* u.sys(SYS.fcntl, fd, F_GETFD), 1);
      yield* u.sys(SYS.dup2, fd, 5);
      assertEquals(yield* u.sys(SYS.fcntl, 5, F_GETFD), 0);
      yield* u.sys(SYS.fcntl, 5, F_SETFD, 1);
      yield* u.sys(SYS.dup2, fd, 6);
      const path = yield* u.text("/after");
      const argv = new DataView(new ArrayBuffer(16));
      argv.setBigUint64(0, path, true);
      const at = yield* u.bytes(new Uint8Array(argv.buffer));
      assertEquals(yield* u.sys(59, path, at, 0), 0);
    });
    assertEquals(kernel.exitStatus, 7);
  });

  it("run out at the process's limit, files at the system's", () => {
    const { kernel } = runProgram({}, function* (u) {
      const limit = new DataView(new ArrayBuffer(16));
      limit.setBigUint64(0, 10n, true);
      limit.setBigUint64(8, 10n, true);
      assertEquals(yield* u.sys(SYS.setrlimit, 8, new Uint8Array(limit.buffer)), 0);
      for (let fd = 3; fd < 10; fd++) assertEquals(yield* u.sys(SYS.open, "/main", 0), fd);
      assertEquals(yield* u.sys(SYS.open, "/main", 0), -EMFILE);
      assertEquals(yield* u.sys(SYS.dup, 3), -EMFILE);
      assertEquals(yield* u.sys(SYS.pipe), -EMFILE);
      yield* u.sys(SYS.close, 9);
      assertEquals(yield* u.sys(SYS.pipe), -EMFILE);
      assertEquals(yield* u.sys(SYS.dup, 3), 9);
    });
    assertEquals(kernel.vfs.filehead.size, 0);
    runInKernel({}, function* (cx) {
      cx.k.vfs.maxfiles = 0;
      assertEquals(falloc(cx), ENFILE);
    });
  });

  it("cannot be used after close, by any call", () => {
    runProgram({}, function* (u) {
      const at = u.room(512);
      for (
        const [call, ...args] of [
          [SYS.read, at, 1],
          [SYS.write, at, 1],
          [SYS.fstat, at],
          [SYS.fcntl, F_GETFL],
          [SYS.ioctl, 0x4004667f, at],
          [SYS.lseek, 0, 0, 0],
          [SYS.ftruncate, 0, 0],
          [SYS.getdirentries, at, 512, 0],
          [SYS.fchdir],
          [SYS.dup],
          [SYS.close],
        ] as const
      ) {
        assertEquals(yield* u.sys(call, 50, ...args), -EBADF, `call ${call}`);
        assertEquals(yield* u.sys(call, -1, ...args), -EBADF, `call ${call}`);
        assertEquals(yield* u.sys(call, 0x7fff_ffff, ...args), -EBADF, `call ${call}`);
      }
    });
  });
});

describe("a pipe", () => {
  it("brings bytes from end to end, both ways, until the other end is closed", () => {
    runProgram({}, function* (u) {
      const [a, b] = yield* pipe(u);
      assertEquals([a, b], [3, 4]);
      assertEquals(yield* u.write(b, "to a"), 4);
      assertEquals(yield* u.write(a, "to b"), 4);
      assertEquals(yield* u.readText(a, 100), "to a");
      assertEquals(yield* u.readText(b, 100), "to b");
      yield* u.write(b, "last");
      yield* u.sys(SYS.close, b);
      assertEquals(yield* u.readText(a, 100), "last");
      assertEquals(yield* u.readText(a, 100), "");
    });
  });

  it("whose reader is gone ends its writer by SIGPIPE", () => {
    const { kernel } = runProgram({}, function* (u) {
      const [a, b] = yield* pipe(u);
      yield* u.sys(SYS.close, a);
      yield* u.write(b, "nobody listens");
    });
    assertEquals(kernel.exitStatus, 128 + 13);
  });

  it("does not wait with O_NONBLOCK", () => {
    runProgram({}, function* (u) {
      const words = u.room(8);
      assertEquals(yield* u.sys(SYS.pipe2, words, O_NONBLOCK | O_CLOEXEC), 3);
      assertEquals(yield* u.sys(SYS.pipe2, words, 0x1000), -EINVAL);
      assertEquals(yield* u.read(3, 10), -EAGAIN);
      const bytes = new Uint8Array(8192);
      let total = 0;
      for (;;) {
        const n = yield* u.sys(SYS.write, 4, bytes, 8192);
        if (n < 0) {
          assertEquals(n, -EAGAIN);
          break;
        }
        total += n;
      }
      assertEquals(total, PIPE_SIZE);
      assertEquals((yield* u.read(3, 100) as Exec<Uint8Array>).length, 100);
      // Less room than the write is long, which must not be torn.
      assertEquals(yield* u.sys(SYS.write, 4, bytes, 101), -EAGAIN);
      assertEquals(yield* u.sys(SYS.write, 4, bytes, 100), 100);
    });
  });

  it("lets a thread that writes much and one that reads slowly take turns", () => {
    for (const cpus of [1, 2]) {
      runInKernel({ cpus, steps: 400_000_000 }, function* (cx) {
        const b = new PipeBuffer();
        b.readers = b.writers = 1;
        const size = 5 * PIPE_SIZE + 123;
        const sent = Uint8Array.from({ length: size }, (_, i) => (i * 13) & 0xff);
        yield* kthreadCreate(cx, function* (at) {
          assertEquals(yield* pipeBufferWrite(at, b, Uio.kernel(UIO_WRITE, 0, sent), false), 0);
          b.writers = 0;
          wakeReaders(at, b);
          wakeWriters(at, b);
        }, "writer");
        const got: number[] = [];
        for (;;) {
          const piece = new Uint8Array(1000);
          const uio = Uio.kernel(UIO_READ, 0, piece);
          assertEquals(yield* pipeBufferRead(cx, b, uio, false), 0);
          if (uio.resid === 1000) break;
          got.push(...piece.subarray(0, 1000 - uio.resid));
        }
        assertEquals(Uint8Array.from(got), sent);
      });
    }
  });

  it("never tears small writes of several threads", () => {
    runInKernel({ cpus: 2, steps: 400_000_000 }, function* (cx) {
      const b = new PipeBuffer();
      b.readers = 1;
      b.writers = 3;
      for (let id = 1; id <= 3; id++) {
        yield* kthreadCreate(cx, function* (at) {
          for (let i = 0; i < 40; i++) {
            const record = new Uint8Array(PIPE_BUF).fill(id);
            assertEquals(yield* pipeBufferWrite(at, b, Uio.kernel(UIO_WRITE, 0, record), false), 0);
          }
          b.writers--;
          wakeReaders(at, b);
        }, `writer ${id}`);
      }
      const counts = [0, 0, 0, 0];
      const all: number[] = [];
      for (;;) {
        const piece = new Uint8Array(700);
        const uio = Uio.kernel(UIO_READ, 0, piece);
        assertEquals(yield* pipeBufferRead(cx, b, uio, false), 0);
        if (uio.resid === 700) break;
        all.push(...piece.subarray(0, 700 - uio.resid));
        yield* tsleep(cx, {}, 0, "slow", 1);
      }
      for (let at = 0; at < all.length; at += PIPE_BUF) {
        const record = all.slice(at, at + PIPE_BUF);
        assert(record.every((byte) => byte === record[0]), `the record at ${at} is torn`);
        counts[record[0]!]!++;
      }
      assertEquals(counts, [0, 40, 40, 40]);
    });
  });
});

describe("a fifo", () => {
  it("is a pipe with a name", () => {
    runProgram({}, function* (u) {
      assertEquals(yield* u.sys(SYS.mkfifo, "/fifo", 0o600), 0);
      assertEquals(yield* u.sys(SYS.open, "/fifo", 1 | O_NONBLOCK), -ENXIO);
      const r = yield* u.sys(SYS.open, "/fifo", O_NONBLOCK), w = yield* u.sys(SYS.open, "/fifo", 1);
      assert(r > 0 && w > 0);
      assertEquals(yield* u.readText(r, 10), -EAGAIN);
      yield* u.write(w, "through");
      assertEquals(yield* u.readText(r, 10), "through");
      yield* u.sys(SYS.close, w);
      assertEquals(yield* u.readText(r, 10), "");
      assertEquals(((yield* u.stat("/fifo")) as DataView).getUint16(16, true), 0o010600);
    });
  });
});

/** `struct pollfd`s in memory: [fd, events] each. */
function* pollfds(u: User, ...fds: readonly (readonly [number, number])[]) {
  const view = new DataView(new ArrayBuffer(fds.length * 8));
  fds.forEach(([fd, events], i) => {
    view.setInt32(i * 8, fd, true);
    view.setInt16(i * 8 + 4, events, true);
  });
  return yield* u.bytes(new Uint8Array(view.buffer));
}
function* revents(u: User, at: bigint, count: number): Exec<number[]> {
  const view = new DataView((yield* u.u.loadBytes(at as never, count * 8)).buffer);
  return Array.from({ length: count }, (_, i) => view.getInt16(i * 8 + 6, true));
}

describe("poll", () => {
  const POLLIN = 1, POLLOUT = 4, POLLHUP = 0x10, POLLNVAL = 0x20;

  it("tells what is ready, waits for it, and gives up after its time", () => {
    const { kernel } = runProgram({}, function* (u) {
      const [a, b] = yield* pipe(u);
      let at = yield* pollfds(u, [a, POLLIN], [a, POLLOUT], [40, POLLIN], [-1, POLLIN]);
      assertEquals(yield* u.sys(SYS.poll, at, 4, 0), 2);
      assertEquals(yield* revents(u, at, 4), [0, POLLOUT, POLLNVAL, 0]);
      yield* u.write(b, "x");
      at = yield* pollfds(u, [a, POLLIN], [b, POLLIN]);
      assertEquals(yield* u.sys(SYS.poll, at, 2, -1), 1);
      assertEquals(yield* revents(u, at, 2), [POLLIN, 0]);
      yield* u.read(a, 1);
      at = yield* pollfds(u, [a, POLLIN]);
      assertEquals(yield* u.sys(SYS.poll, at, 1, 30), 0);
      yield* u.sys(SYS.close, b);
      assertEquals(yield* u.sys(SYS.poll, at, 1, -1), 1);
      assertEquals(yield* revents(u, at, 1), [POLLIN | POLLHUP]);
      assertEquals(yield* u.sys(SYS.poll, 0x10, 1, 0), -ERRNO.EFAULT);
      assertEquals(yield* u.sys(SYS.poll, at, 1 << 20, 0), -EINVAL);
    });
    assert(kernel.ticks >= 3);
  });
});

describe("select", () => {
  it("replaces the sets by what is ready", () => {
    runProgram({}, function* (u) {
      const [a, b] = yield* pipe(u);
      yield* u.write(b, "x");
      const sets = yield* u.bytes(
        Uint8Array.of(1 << a | 1 << b, 0, 0, 0, 0, 0, 0, 0, 1 << a, 0, 0, 0, 0, 0, 0, 0),
      );
      const now = yield* u.bytes(new Uint8Array(16));
      assertEquals(yield* u.sys(SYS.select, 8, sets, sets + 8n, 0, now), 2);
      const bytes = yield* u.u.loadBytes(sets, 16);
      assertEquals([bytes[0], bytes[8]], [1 << a, 1 << a]);
      yield* u.u.storeBytes(sets, Uint8Array.of(1 << 6));
      assertEquals(yield* u.sys(SYS.select, 8, sets, 0, 0, now), 0);
      assertEquals(yield* u.sys(SYS.select, -1, 0, 0, 0, now), -EINVAL);
      assertEquals(yield* u.sys(SYS.select, 4, 0x10, 0, 0, now), -ERRNO.EFAULT);
      yield* u.u.storeBytes(sets, Uint8Array.of(1 << 2 | 1 << b));
      yield* u.sys(SYS.close, 2);
      assertEquals(yield* u.sys(SYS.select, 8, sets, 0, 0, now), -EBADF);
    });
  });
});

describe("advisory locks", () => {
  const lock = (type: number, start: number, len: number) => {
    const view = new DataView(new ArrayBuffer(24));
    view.setBigInt64(0, BigInt(start), true);
    view.setBigInt64(8, BigInt(len), true);
    view.setInt16(20, type, true);
    return new Uint8Array(view.buffer);
  };

  it("of one process do not hinder it; flocks of two opens hinder each other", () => {
    runProgram({}, function* (u) {
      const a = yield* u.sys(SYS.open, "/f", O_CREAT | O_RDWR, 0o600),
        b = yield* u.sys(SYS.open, "/f", O_RDWR);
      assertEquals(yield* u.sys(SYS.fcntl, a, F_SETLK, yield* u.bytes(lock(3, 0, 10))), 0);
      assertEquals(yield* u.sys(SYS.fcntl, b, F_SETLK, yield* u.bytes(lock(3, 5, 10))), 0);
      const at = yield* u.bytes(lock(3, 0, 0));
      assertEquals(yield* u.sys(SYS.fcntl, b, F_GETLK, at), 0);
      assertEquals(new DataView((yield* u.u.loadBytes(at, 24)).buffer).getInt16(20, true), 2);
      assertEquals(yield* u.sys(SYS.fcntl, a, F_SETLK, yield* u.bytes(lock(9, 0, 1))), -EINVAL);
      const c = yield* u.sys(SYS.open, "/g", O_CREAT | O_RDWR, 0o600),
        d = yield* u.sys(SYS.open, "/g", O_RDWR);
      assertEquals(yield* u.sys(131, c, 2 | 4), 0);
      assertEquals(yield* u.sys(131, d, 1 | 4), -EAGAIN);
      yield* u.sys(SYS.close, c);
      assertEquals(yield* u.sys(131, d, 1 | 4), 0);
      const [p] = yield* pipe(u);
      assertEquals(yield* u.sys(131, p, 2), -EOPNOTSUPP);
    });
  });
});
