import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../../hw/address.ts";
import { ERRNO } from "../../../kernel/kern/errno.ts";
import { archiveFile, type Ran, runProgram, SYS, type User } from "./vfs_fixture.ts";
import type { Exec } from "../../../hw/gates.ts";

const PROT_READ = 1, PROT_WRITE = 2, MAP_SHARED = 1, MAP_PRIVATE = 2;
const O_CREAT = 0x200, O_RDWR = 2;
const PAGE = 4096;

/** Maps a file; the address or a negated error number. */
function mmap(
  u: User,
  fd: number,
  bytes: number,
  flags: number,
  prot = PROT_READ | PROT_WRITE,
): Exec<number> {
  return u.sys(SYS.mmap, 0, bytes, prot, flags, fd, 0, 0);
}

function* text(u: User, at: number, bytes: number): Exec<string> {
  return new TextDecoder().decode(yield* u.u.loadBytes(gva(BigInt(at)), bytes));
}

function* store(u: User, at: number, value: string): Exec<void> {
  yield* u.u.storeBytes(gva(BigInt(at)), new TextEncoder().encode(value));
}

/** Nothing is left of what a program mapped. */
function noMappingLeft({ kernel }: Ran): void {
  for (const object of kernel.vmObject.objectList) {
    assert(
      object.handle === undefined || object.refCount === 0,
      `object ${object.id} has ${object.refCount} references`,
    );
  }
}

describe("a file that is mapped shared", () => {
  it("is the same bytes for memory, read and write", () => {
    noMappingLeft(runProgram({}, function* (u) {
      yield* u.put("/f", "0123456789");
      const fd = yield* u.sys(SYS.open, "/f", O_RDWR);
      const at = yield* mmap(u, fd, PAGE, MAP_SHARED);
      assert(at > 0);
      assertEquals(yield* text(u, at, 12), "0123456789\0\0");
      yield* store(u, at + 2, "AB");
      assertEquals(yield* u.get("/f"), "01AB456789");
      yield* u.sys(SYS.extpwrite, fd, "xyz", 3, 0, 5);
      assertEquals(yield* text(u, at, 10), "01AB4xyz89");
      const again = yield* mmap(u, fd, PAGE, MAP_SHARED);
      yield* store(u, again, "!");
      assertEquals(yield* text(u, at, 1), "!");
    }));
  });

  it("keeps what was stored when the mapping, the descriptor and the vnode are gone", () => {
    noMappingLeft(runProgram({}, function* (u) {
      const fd = yield* u.sys(SYS.open, "/f", O_CREAT | O_RDWR, 0o600);
      yield* u.sys(SYS.ftruncate, fd, 0, 3 * PAGE);
      const at = yield* mmap(u, fd, 3 * PAGE, MAP_SHARED);
      yield* u.sys(SYS.close, fd);
      yield* store(u, at + PAGE, "by memory");
      yield* u.sys(SYS.munmap, at, 3 * PAGE);
      assertEquals((yield* u.get("/f") as Exec<string>).slice(PAGE, PAGE + 9), "by memory");
    }));
  });

  it("may be the buffer of a write to itself and of a read from itself", () => {
    runProgram({}, function* (u) {
      yield* u.put("/f", "abcdefgh");
      const fd = yield* u.sys(SYS.open, "/f", O_RDWR);
      const at = yield* mmap(u, fd, PAGE, MAP_SHARED);
      assertEquals(yield* u.sys(SYS.extpwrite, fd, at, 4, 0, 4), 4);
      assertEquals(yield* u.get("/f"), "abcdabcd");
      assertEquals(yield* u.sys(SYS.extpread, fd, at + 2, 2, 0, 0), 2);
      assertEquals(yield* u.get("/f"), "abababcd");
    });
  });

  it("must have been opened for writing if it is to be written", () => {
    runProgram({}, function* (u) {
      yield* u.put("/f", "text");
      const fd = yield* u.sys(SYS.open, "/f", 0);
      assertEquals(yield* mmap(u, fd, PAGE, MAP_SHARED), -ERRNO.EACCES);
      assert((yield* mmap(u, fd, PAGE, MAP_SHARED, PROT_READ)) > 0);
      assert((yield* mmap(u, fd, PAGE, MAP_PRIVATE)) > 0);
    });
  });

  it("loses its pages and shows zeros when it is cut, and a touch behind its end is a signal", () => {
    const signal = runProgram({
      programs: {
        *behind(u) {
          const fd = yield* u.sys(SYS.open, "/f", O_RDWR);
          const at = yield* mmap(u, fd, 3 * PAGE, MAP_SHARED);
          yield* store(u, at + 2 * PAGE, "there");
          yield* u.sys(SYS.ftruncate, fd, 0, PAGE + 3);
          assertEquals(yield* text(u, at + PAGE, 6), "efg\0\0\0");
          assertEquals(yield* u.write(1, "before\n"), 7);
          yield* text(u, at + 2 * PAGE, 1);
          yield* u.write(1, "after\n");
        },
      },
      kernel: { commands: [["/main"], ["/behind"]] },
    }, function* (u) {
      yield* u.put("/f", "x".repeat(PAGE) + "efghij" + "x".repeat(2 * PAGE));
    });
    assert(signal.console.includes("before"));
    assert(!signal.console.includes("after"));
    assert([128 + 10, 128 + 11].includes(signal.kernel.exitStatus), `status ${signal.kernel.exitStatus}`);
    noMappingLeft(signal);
  });
});

describe("a file that is mapped private", () => {
  it("shows the file until it is stored to, and then keeps its own", () => {
    noMappingLeft(runProgram({ files: [archiveFile("f", "from the archive")] }, function* (u) {
      const fd = yield* u.sys(SYS.open, "/f", O_RDWR);
      const at = yield* mmap(u, fd, PAGE, MAP_PRIVATE);
      yield* u.sys(SYS.extpwrite, fd, "F", 1, 0, 0);
      assertEquals(yield* text(u, at, 16), "From the archive");
      yield* store(u, at + 9, "private");
      assertEquals(yield* text(u, at, 16), "From the private");
      assertEquals(yield* u.get("/f"), "From the archive");
      yield* u.sys(SYS.extpwrite, fd, "f", 1, 0, 0);
      assertEquals(yield* text(u, at, 16), "From the private");
    }));
  });

  it("keeps a removed file alive", () => {
    noMappingLeft(runProgram({}, function* (u) {
      yield* u.put("/f", "still here");
      const fd = yield* u.sys(SYS.open, "/f", 0);
      const at = yield* mmap(u, fd, PAGE, MAP_PRIVATE, PROT_READ);
      yield* u.sys(SYS.close, fd);
      yield* u.sys(SYS.unlink, "/f");
      assertEquals(yield* text(u, at, 10), "still here");
    }));
  });
});

describe("what cannot be mapped", () => {
  it("gives ENODEV, EBADF or EINVAL; /dev/zero gives memory", () => {
    runProgram({}, function* (u) {
      const dir = yield* u.sys(SYS.open, "/", 0), nil = yield* u.sys(SYS.open, "/dev/null", O_RDWR);
      const pipe = yield* u.sys(SYS.pipe), zero = yield* u.sys(SYS.open, "/dev/zero", O_RDWR);
      assert((yield* mmap(u, dir, PAGE, MAP_PRIVATE)) < 0);
      assert((yield* mmap(u, nil, PAGE, MAP_PRIVATE)) < 0);
      assert((yield* mmap(u, pipe, PAGE, MAP_PRIVATE)) < 0);
      assertEquals(yield* mmap(u, 99, PAGE, MAP_PRIVATE), -ERRNO.EBADF);
      const at = yield* mmap(u, zero, PAGE, MAP_PRIVATE);
      assert(at > 0, `mmap of /dev/zero: ${at}`);
      assertEquals(yield* text(u, at, 3), "\0\0\0");
      yield* store(u, at, "own");
    });
  });
});
