import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { archiveFile, runProgram, SYS, type User } from "./vfs_fixture.ts";
import { ERRNO } from "../../../kernel/kern/errno.ts";
import type { Exec } from "../../../hw/gates.ts";

const {
  EACCES,
  EBUSY,
  EEXIST,
  EINVAL,
  EISDIR,
  ELOOP,
  ENAMETOOLONG,
  ENOENT,
  ENOTDIR,
  ENOTEMPTY,
  EPERM,
  EROFS,
  EXDEV,
} = ERRNO;
const O_CREAT = 0x200, O_EXCL = 0x800, O_TRUNC = 0x400, O_RDWR = 2, O_WRONLY = 1, O_DIRECTORY = 0x0800_0000;
const O_NOFOLLOW = 0x100;

/** The working directory, or the negated error number. */
function* getcwd(u: User): Exec<string | number> {
  const at = u.room(1024);
  const n = yield* u.sys(SYS.getcwd, at, 1024);
  if (n < 0) return n;
  const bytes = yield* u.u.loadBytes(at, 1024);
  return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
}

describe("open", () => {
  it("makes a file only with O_CREAT, and with O_EXCL only if it is not there", () => {
    runProgram({}, function* (u) {
      assertEquals(yield* u.sys(SYS.open, "/a", O_RDWR), -ENOENT);
      assertEquals(yield* u.sys(SYS.open, "/a", O_RDWR | O_CREAT, 0o600), 3);
      assertEquals(yield* u.sys(SYS.open, "/a", O_RDWR | O_CREAT | O_EXCL, 0o600), -EEXIST);
      assertEquals(yield* u.sys(SYS.open, "/a", O_RDWR | O_CREAT, 0o600), 4);
    });
  });

  it("gives the errors of its flags and of the file's type", () => {
    runProgram({}, function* (u) {
      yield* u.put("/file", "x");
      yield* u.sys(SYS.symlink, "/file", "/link");
      assertEquals(yield* u.sys(SYS.open, "/file", 3), -EINVAL);
      assertEquals(yield* u.sys(SYS.open, "/", O_RDWR), -EISDIR);
      assertEquals(yield* u.sys(SYS.open, "/file", O_DIRECTORY), -ENOTDIR);
      assertEquals(yield* u.sys(SYS.open, "/link", O_NOFOLLOW), -ELOOP);
      assertEquals(yield* u.sys(SYS.open, "/file/x", 0), -ENOTDIR);
      assertEquals(yield* u.sys(SYS.open, "", 0), -ENOENT);
      assertEquals(yield* u.sys(SYS.open, "/file/", 0), -ENOTDIR);
      assertEquals(yield* u.sys(SYS.open, 0, 0), -ERRNO.EFAULT);
      assertEquals(yield* u.sys(SYS.open, `/${"n".repeat(256)}`, O_CREAT, 0o600), -ENAMETOOLONG);
      assertEquals(yield* u.sys(SYS.open, `/${"n".repeat(255)}`, O_CREAT, 0o600), 3);
      assertEquals(yield* u.sys(SYS.open, "/n".repeat(600), 0), -ENAMETOOLONG);
    });
  });

  it("with O_TRUNC cuts the file to nothing, and without leaves it", () => {
    runProgram({}, function* (u) {
      yield* u.put("/file", "some text");
      yield* u.sys(SYS.close, yield* u.sys(SYS.open, "/file", O_WRONLY));
      assertEquals(yield* u.get("/file"), "some text");
      yield* u.sys(SYS.close, yield* u.sys(SYS.open, "/file", O_WRONLY | O_TRUNC));
      assertEquals(yield* u.get("/file"), "");
    });
  });

  it("takes the mode less the umask", () => {
    runProgram({}, function* (u) {
      assertEquals(yield* u.sys(SYS.umask, 0o027), 0o022);
      yield* u.put("/file", "x", 0o666);
      assertEquals(((yield* u.stat("/file")) as DataView).getUint16(16, true), 0o100640);
    });
  });

  it("of a relative path begins at the working directory, of openat at the descriptor's", () => {
    runProgram({}, function* (u) {
      yield* u.sys(SYS.mkdir, "/dir", 0o755);
      yield* u.put("/dir/file", "there");
      const dir = yield* u.sys(SYS.open, "/dir", 0);
      assertEquals(yield* u.sys(SYS.open, "file", 0), -ENOENT);
      assertEquals(yield* u.sys(SYS.openat, dir, "file", 0), 4);
      assertEquals(yield* u.sys(SYS.openat, 4, "file", 0), -ENOTDIR);
      assertEquals(yield* u.sys(SYS.openat, 77, "file", 0), -ERRNO.EBADF);
      assertEquals(yield* u.sys(SYS.chdir, "/dir"), 0);
      assertEquals(yield* u.get("file"), "there");
      assertEquals(yield* u.get("./../dir//file"), "there");
    });
  });
});

describe("symbolic links", () => {
  it("are followed inside paths, from where they stand", () => {
    runProgram({}, function* (u) {
      yield* u.sys(SYS.mkdir, "/a", 0o755);
      yield* u.sys(SYS.mkdir, "/a/b", 0o755);
      yield* u.put("/a/b/file", "deep");
      yield* u.sys(SYS.symlink, "b", "/a/rel");
      yield* u.sys(SYS.symlink, "/a/b", "/abs");
      yield* u.sys(SYS.symlink, "rel/file", "/a/end");
      assertEquals(yield* u.get("/a/rel/file"), "deep");
      assertEquals(yield* u.get("/abs/file"), "deep");
      assertEquals(yield* u.get("/a/end"), "deep");
      assertEquals(yield* u.get("/abs/../end"), "deep");
    });
  });

  it("that lead to themselves give ELOOP, to nothing ENOENT", () => {
    runProgram({}, function* (u) {
      yield* u.sys(SYS.symlink, "/two", "/one");
      yield* u.sys(SYS.symlink, "/one", "/two");
      yield* u.sys(SYS.symlink, "/nowhere", "/dangling");
      assertEquals(yield* u.sys(SYS.open, "/one", 0), -ELOOP);
      assertEquals(yield* u.sys(SYS.open, "/dangling", 0), -ENOENT);
      assertEquals(yield* u.put("/dangling", "made"), 4);
      assertEquals(yield* u.get("/nowhere"), "made");
    });
  });

  it("are read by readlink, cut to the buffer and without a zero byte", () => {
    runProgram({}, function* (u) {
      yield* u.sys(SYS.symlink, "target", "/link");
      const at = u.room(16);
      assertEquals(yield* u.sys(SYS.readlink, "/link", at, 16), 6);
      assertEquals(yield* u.sys(SYS.readlink, "/link", at, 3), 3);
      assertEquals(yield* u.sys(SYS.readlink, "/main", at, 16), -EINVAL);
      assertEquals(((yield* u.stat("/link", SYS.lstat)) as DataView).getUint16(16, true), 0o120755);
    });
  });
});

describe("link and unlink", () => {
  it("give one file several names; it goes with the last", () => {
    runProgram({}, function* (u) {
      yield* u.put("/one", "same");
      assertEquals(yield* u.sys(SYS.link, "/one", "/two"), 0);
      const one = (yield* u.stat("/one")) as DataView, two = (yield* u.stat("/two")) as DataView;
      assertEquals(one.getBigUint64(0, true), two.getBigUint64(0, true));
      assertEquals(one.getUint32(8, true), 2);
      assertEquals(yield* u.sys(SYS.unlink, "/one"), 0);
      assertEquals(yield* u.get("/two"), "same");
      assertEquals(yield* u.sys(SYS.open, "/one", 0), -ENOENT);
      assertEquals(((yield* u.stat("/two")) as DataView).getUint32(8, true), 1);
    });
  });

  it("leave an open file its bytes until the last descriptor is closed", () => {
    runProgram({}, function* (u) {
      yield* u.put("/file", "kept");
      const fd = yield* u.sys(SYS.open, "/file", O_RDWR);
      yield* u.sys(SYS.unlink, "/file");
      assertEquals(yield* u.readText(fd, 10), "kept");
      assertEquals(yield* u.write(fd, " and more"), 9);
      yield* u.sys(SYS.lseek, fd, 0, 0, 0);
      assertEquals(yield* u.readText(fd, 100), "kept and more");
    });
  });

  it("refuse directories, what is there, and other file systems", () => {
    runProgram({}, function* (u) {
      yield* u.put("/file", "x");
      yield* u.sys(SYS.mkdir, "/dir", 0o755);
      assertEquals(yield* u.sys(SYS.link, "/dir", "/dir2"), -EPERM);
      assertEquals(yield* u.sys(SYS.link, "/file", "/dir"), -EEXIST);
      assertEquals(yield* u.sys(SYS.link, "/file", "/proc/file"), -EXDEV);
      assertEquals(yield* u.sys(SYS.unlink, "/dir"), -EISDIR);
      assertEquals(yield* u.sys(SYS.unlink, "/none"), -ENOENT);
      assertEquals(yield* u.sys(SYS.unlink, "/proc/meminfo"), -EROFS);
    });
  });
});

describe("directories", () => {
  it("are made, listed in the order of their entries, and removed when empty", () => {
    runProgram({}, function* (u) {
      assertEquals(yield* u.sys(SYS.mkdir, "/d", 0o755), 0);
      assertEquals(yield* u.sys(SYS.mkdir, "/d", 0o755), -EEXIST);
      assertEquals(yield* u.sys(SYS.mkdir, "/none/d", 0o755), -ENOENT);
      assertEquals(yield* u.sys(SYS.mkdir, "/d/sub/", 0o755), 0);
      yield* u.put("/d/file", "x");
      assertEquals(yield* u.list("/d"), [".", "..", "sub", "file"]);
      assertEquals(yield* u.sys(SYS.rmdir, "/d"), -ENOTEMPTY);
      assertEquals(yield* u.sys(SYS.rmdir, "/d/file"), -ENOTDIR);
      assertEquals(yield* u.sys(SYS.rmdir, "/d/."), -EINVAL);
      assertEquals(yield* u.sys(SYS.rmdir, "/d/sub/.."), -ENOTEMPTY);
      assertEquals(yield* u.sys(SYS.rmdir, "/"), -EBUSY);
      assertEquals(yield* u.sys(SYS.rmdir, "/proc"), -EBUSY);
      yield* u.sys(SYS.unlink, "/d/file");
      assertEquals(yield* u.sys(SYS.rmdir, "/d/sub"), 0);
      assertEquals(yield* u.sys(SYS.rmdir, "/d"), 0);
      assertEquals(yield* u.list("/d"), -ENOENT);
    });
  });

  it("can be read in small pieces, and while entries come and go", () => {
    runProgram({}, function* (u) {
      yield* u.sys(SYS.mkdir, "/d", 0o755);
      const made = Array.from({ length: 40 }, (_, i) => `file${i}`);
      for (const name of made) yield* u.put(`/d/${name}`, "");
      assertEquals(yield* u.list("/d", 64), [".", "..", ...made]);
      assertEquals(yield* u.list("/d", 8), -EINVAL);
      const fd = yield* u.sys(SYS.open, "/d", 0);
      const at = u.room(256);
      assertEquals((yield* u.sys(SYS.getdirentries, fd, at, 256, 0)) > 0, true);
      for (const name of made) yield* u.sys(SYS.unlink, `/d/${name}`);
      yield* u.put("/d/late", "");
      const n = yield* u.sys(SYS.getdirentries, fd, at, 256, 0);
      const text = new TextDecoder().decode((yield* u.u.loadBytes(at, n)).subarray(16, 20));
      assertEquals([n, text], [24, "late"]);
    });
  });

  it("count their subdirectories in their links", () => {
    runProgram({}, function* (u) {
      yield* u.sys(SYS.mkdir, "/d", 0o755);
      yield* u.sys(SYS.mkdir, "/d/a", 0o755);
      yield* u.sys(SYS.mkdir, "/d/b", 0o755);
      assertEquals(((yield* u.stat("/d")) as DataView).getUint32(8, true), 4);
      yield* u.sys(SYS.rename, "/d/a", "/a");
      assertEquals(((yield* u.stat("/d")) as DataView).getUint32(8, true), 3);
    });
  });

  it("are known to getcwd by their path, also over mounts, until they are removed", () => {
    runProgram({}, function* (u) {
      assertEquals(yield* getcwd(u), "/");
      yield* u.sys(SYS.mkdir, "/a", 0o755);
      yield* u.sys(SYS.mkdir, "/a/b", 0o755);
      yield* u.sys(SYS.chdir, "/a/b");
      assertEquals(yield* getcwd(u), "/a/b");
      yield* u.sys(SYS.rename, "/a", "/c");
      assertEquals(yield* getcwd(u), "/c/b");
      yield* u.sys(SYS.rmdir, "/c/b");
      assertEquals(yield* getcwd(u), -ENOENT);
      assertEquals(yield* u.put("file", "x"), -ENOENT);
      assertEquals(yield* u.sys(SYS.chdir, ".."), -ENOENT);
      yield* u.sys(SYS.chdir, "/dev/fd");
      assertEquals(yield* getcwd(u), "/dev/fd");
      yield* u.sys(SYS.chdir, "../..");
      assertEquals(yield* getcwd(u), "/");
      assertEquals(yield* u.sys(SYS.chdir, "/main"), -ENOTDIR);
    });
  });
});

describe("rename", () => {
  it("moves files and directories, over what is there", () => {
    runProgram({}, function* (u) {
      yield* u.put("/a", "from");
      yield* u.put("/b", "to");
      assertEquals(yield* u.sys(SYS.rename, "/a", "/b"), 0);
      assertEquals(yield* u.get("/b"), "from");
      assertEquals(yield* u.get("/a"), -ENOENT);
      yield* u.sys(SYS.mkdir, "/d", 0o755);
      yield* u.sys(SYS.mkdir, "/e", 0o755);
      yield* u.put("/d/file", "inside");
      assertEquals(yield* u.sys(SYS.rename, "/d", "/e"), 0);
      assertEquals(yield* u.get("/e/file"), "inside");
    });
  });

  it("refuses what makes no sense", () => {
    runProgram({}, function* (u) {
      yield* u.put("/file", "x");
      yield* u.sys(SYS.mkdir, "/d", 0o755);
      yield* u.sys(SYS.mkdir, "/d/sub", 0o755);
      assertEquals(yield* u.sys(SYS.rename, "/d", "/d/sub/below"), -EINVAL);
      assertEquals(yield* u.sys(SYS.rename, "/file", "/d"), -EISDIR);
      assertEquals(yield* u.sys(SYS.rename, "/d", "/file"), -ENOTDIR);
      assertEquals(yield* u.sys(SYS.rename, "/d/sub", "/d/sub"), 0);
      yield* u.put("/full", "x");
      yield* u.sys(SYS.mkdir, "/e", 0o755);
      assertEquals(yield* u.sys(SYS.rename, "/e", "/d"), -ENOTEMPTY);
      assertEquals(yield* u.sys(SYS.rename, "/e", "/dev/e"), -EXDEV);
      assertEquals(yield* u.sys(SYS.rename, "/dev", "/gone"), -EBUSY);
      assertEquals(yield* u.sys(SYS.rename, "/none", "/some"), -ENOENT);
      assertEquals(yield* u.sys(SYS.rename, "/d/.", "/some"), -EINVAL);
      assertEquals(yield* u.sys(SYS.rename, "/file", "/other/"), -ENOENT);
    });
  });

  it("of two names of one file does nothing", () => {
    runProgram({}, function* (u) {
      yield* u.put("/a", "same");
      yield* u.sys(SYS.link, "/a", "/b");
      assertEquals(yield* u.sys(SYS.rename, "/a", "/b"), 0);
      assertEquals([yield* u.get("/a"), yield* u.get("/b")], ["same", "same"]);
    });
  });
});

describe("rights", () => {
  it("of owner, group and others decide for all but root", () => {
    const files = [archiveFile("etc/secret", "root's", 0o600), archiveFile("etc/open", "all", 0o644)];
    runProgram({ files }, function* (u) {
      yield* u.sys(SYS.mkdir, "/private", 0o700);
      yield* u.put("/private/file", "x");
      yield* u.put("/sticky", "x");
      assertEquals(yield* u.get("/etc/secret"), "root's");
      assertEquals(yield* u.sys(SYS.setuid, 100), 0);
      assertEquals(yield* u.get("/etc/secret"), -EACCES);
      assertEquals(yield* u.get("/etc/open"), "all");
      assertEquals(yield* u.sys(SYS.open, "/etc/open", O_WRONLY), -EACCES);
      assertEquals(yield* u.sys(SYS.open, "/etc/new", O_CREAT, 0o600), -EACCES);
      assertEquals(yield* u.sys(SYS.unlink, "/etc/open"), -EACCES);
      assertEquals(yield* u.get("/private/file"), -EACCES);
      assertEquals(yield* u.sys(SYS.access, "/etc/secret", 4), -EACCES);
      assertEquals(yield* u.sys(SYS.access, "/etc/open", 4), 0);
      assertEquals(yield* u.sys(SYS.access, "/etc/open", 0), 0);
      assertEquals(yield* u.sys(SYS.chmod, "/etc/open", 0o777), -EPERM);
      assertEquals(yield* u.sys(SYS.chown, "/etc/open", 100, -1), -EPERM);
      assertEquals(yield* u.put("/tmp/mine", "mine"), 4);
      assertEquals(yield* u.sys(SYS.chmod, "/tmp/mine", 0o600), 0);
      assertEquals(yield* u.sys(SYS.mount, "tmpfs", "/tmp", 0, 0), -EPERM);
      assertEquals(yield* u.sys(SYS.chroot, "/tmp"), -EPERM);
    });
  });

  it("of a sticky directory let only owners remove", () => {
    runProgram({}, function* (u) {
      yield* u.put("/tmp/roots", "x", 0o666);
      yield* u.sys(SYS.setuid, 100);
      assertEquals(yield* u.sys(SYS.unlink, "/tmp/roots"), -EPERM);
      assertEquals(yield* u.sys(SYS.rename, "/tmp/roots", "/tmp/mine"), -EPERM);
      yield* u.put("/tmp/own", "x");
      assertEquals(yield* u.sys(SYS.unlink, "/tmp/own"), 0);
    });
  });
});

describe("mounts", () => {
  it("cover a directory until they are unmounted", () => {
    runProgram({}, function* (u) {
      yield* u.sys(SYS.mkdir, "/mnt", 0o755);
      yield* u.put("/mnt/below", "covered");
      assertEquals(yield* u.sys(SYS.mount, "tmpfs", "/mnt", 0, 0), 0);
      assertEquals(yield* u.list("/mnt"), [".", ".."]);
      yield* u.put("/mnt/file", "on top");
      const fd = yield* u.sys(SYS.open, "/mnt/file", 0);
      assertEquals(yield* u.sys(SYS.unmount, "/mnt", 0), -EBUSY);
      yield* u.sys(SYS.close, fd);
      assertEquals(yield* u.sys(SYS.unmount, "/mnt", 0), 0);
      assertEquals(yield* u.get("/mnt/below"), "covered");
      assertEquals(yield* u.sys(SYS.unmount, "/mnt", 0), -EINVAL);
      assertEquals(yield* u.sys(SYS.unmount, "/", 0), -EBUSY);
      assertEquals(yield* u.sys(SYS.mount, "ufs", "/mnt", 0, 0), -ERRNO.ENODEV);
    });
  });

  it("can be read only", () => {
    runProgram({}, function* (u) {
      yield* u.put("/tmp/file", "x");
      assertEquals(yield* u.sys(SYS.mount, "tmpfs", "/", 0x10001, 0), 0);
      assertEquals(yield* u.put("/tmp/file", "y"), -EROFS);
      assertEquals(yield* u.sys(SYS.mkdir, "/dir", 0o755), -EROFS);
      assertEquals(yield* u.sys(SYS.unlink, "/tmp/file"), -EROFS);
      assertEquals(yield* u.sys(SYS.truncate, "/tmp/file", 0, 0), -EROFS);
      assertEquals(yield* u.sys(SYS.chmod, "/tmp/file", 0o600), -EROFS);
      assertEquals(yield* u.write(yield* u.sys(SYS.open, "/dev/null", O_WRONLY), "x"), 1);
    });
  });
});

describe("chroot", () => {
  it("makes a directory the root that .. does not leave", () => {
    runProgram({}, function* (u) {
      yield* u.sys(SYS.mkdir, "/jail", 0o755);
      yield* u.put("/jail/file", "inside");
      assertEquals(yield* u.sys(SYS.chroot, "/jail"), 0);
      yield* u.sys(SYS.chdir, "/");
      assertEquals(yield* u.get("/file"), "inside");
      assertEquals(yield* u.get("/../../file"), "inside");
      assertEquals(yield* u.get("/jail/file"), -ENOENT);
      assertEquals(yield* getcwd(u), "/");
    });
  });
});
