import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { GateCpu } from "../../../hw/gates.ts";
import { boot, type BootOptions } from "../kernel_fixture.ts";
import { linux, runLinux, scratch, text } from "./linux_gate.ts";
import { EXIT_SEVEN, FAULTS, FORK, type LinuxElf, linuxElf, SIGNALS, THREAD } from "./linux_programs.ts";

const SYS = {
  read: 0,
  write: 1,
  open: 2,
  close: 3,
  fstat: 5,
  lseek: 8,
  mmap: 9,
  mprotect: 10,
  munmap: 11,
  brk: 12,
  sigaction: 13,
  sigreturn: 15,
  mremap: 25,
  madvise: 28,
  getpid: 39,
  sendfile: 40,
  uname: 63,
  fcntl: 72,
  mkdir: 83,
  getdents64: 217,
  archPrctl: 158,
  gettid: 186,
  futex: 202,
  pipe2: 293,
  prlimit: 302,
  newfstatat: 262,
} as const;
const EBADF = 9,
  EAGAIN = 11,
  ENOMEM = 12,
  EFAULT = 14,
  ENOTDIR = 20,
  EINVAL = 22,
  ENOSYS = 38,
  ENOTEMPTY = 39;
const EEXIST = 17, EPERM = 1, ETIMEDOUT = 110;

/** Exit status of a program in a file that says so. */
function statusOf(
  code: Uint8Array,
  elf: LinuxElf = { osabi: 3 },
  options: BootOptions = {},
): number | undefined {
  const { stop, statuses } = boot([{ name: "linux", file: linuxElf(code, elf) }], {
    ...options,
    kernel: { faultReports: false },
  });
  assertEquals(stop.reason, "poweroff");
  return statuses[0];
}

describe("Whose a program is", () => {
  it("EI_OSABI 3 is Linux", () => assertEquals(statusOf(EXIT_SEVEN, { osabi: 3 }), 7));
  it("a GNU ABI tag for Linux is Linux", () => assertEquals(statusOf(EXIT_SEVEN, { abiTag: 0 }), 7));
  // 231 does not exist on DragonFly, and UD2 follows.
  it("without either it is DragonFly's", () => assertEquals(statusOf(EXIT_SEVEN, {}), 128 + 4));
  it("a GNU ABI tag for another system is not Linux", () => {
    assertEquals(statusOf(EXIT_SEVEN, { abiTag: 1 }), 128 + 4);
  });
  it("a program that wants an interpreter cannot be executed", () => {
    assertEquals(statusOf(EXIT_SEVEN, { osabi: 3, interpreter: "/lib64/ld-linux-x86-64.so.2" }), 126);
  });
});

describe("Signals, processes and threads of Linux programs", () => {
  for (const cpus of [1, 2]) {
    it(`a handler is entered and left as on Linux, ${cpus} CPU`, () => {
      assertEquals(statusOf(SIGNALS, { osabi: 3 }, { cpus }), 10);
    });
    it(`faults have Linux's signals and codes, ${cpus} CPU`, () => {
      assertEquals(statusOf(FAULTS, { osabi: 3 }, { cpus }), 2);
    });
    it(`clone makes a process whose thread id is in its own memory, ${cpus} CPU`, () => {
      assertEquals(statusOf(FORK, { osabi: 3 }, { cpus }), 42);
    });
    it(`clone makes a thread with TLS, and futexes wait for it, ${cpus} CPU`, () => {
      assertEquals(statusOf(THREAD, { osabi: 3 }, { cpus }), 43);
    });
  }
});

describe("Linux's system calls", () => {
  it("errors come back as negative numbers of Linux", () => {
    const answers: Record<string, number> = {}, wild = 0xffff_8000_0000_0000n;
    const { stop, statuses } = runLinux(function* (u) {
      answers.unknown = yield* linux(u, 999);
      answers.badFile = yield* linux(u, SYS.read, 77, 0, 0);
      answers.wild = yield* linux(u, SYS.open, wild, 0);
      answers.uname = yield* linux(u, SYS.uname, wild);
      answers.sigset = yield* linux(u, SYS.sigaction, 10, 0, 0, 16);
      answers.futexOdd = yield* linux(u, SYS.futex, 0x1001, 0, 0, 0, 0, 0);
      answers.tls = yield* linux(u, SYS.archPrctl, 0x1002, wild);
      answers.mmapNothing = yield* linux(u, SYS.mmap, 0, 0, 3, 0x22, -1, 0);
      answers.mmapType = yield* linux(u, SYS.mmap, 0, 4096, 3, 0x20, -1, 0);
      answers.unmapped = yield* linux(u, SYS.mprotect, 0x7000_0000, 4096, 1);
      answers.notEmpty = yield* linux(u, 84, yield* text(u, scratch(u), "/bin"));
      answers.notDirectory = yield* linux(u, SYS.open, yield* text(u, scratch(u), "/bin/test/x"), 0);
      answers.pid = yield* linux(u, SYS.getpid);
      answers.tid = yield* linux(u, SYS.gettid);
      return 5;
    });
    assertEquals([stop.reason, statuses], ["poweroff", [5]]);
    assertEquals(answers, {
      unknown: -ENOSYS,
      badFile: -EBADF,
      wild: -EFAULT,
      uname: -EFAULT,
      sigset: -EINVAL,
      futexOdd: -EINVAL,
      tls: -EPERM,
      mmapNothing: -EINVAL,
      mmapType: -EINVAL,
      unmapped: -ENOMEM,
      notEmpty: -ENOTEMPTY,
      notDirectory: -ENOTDIR,
      pid: 2,
      tid: 2,
    });
  });

  it("memory: brk to the byte, mappings grow and move with their bytes, MADV_DONTNEED forgets them", () => {
    const seen: Record<string, unknown> = {};
    const { statuses } = runLinux(function* (u: GateCpu) {
      const heap = yield* linux(u, SYS.brk, 0);
      seen.grown = (yield* linux(u, SYS.brk, heap + 12345)) - heap;
      seen.refused = (yield* linux(u, SYS.brk, 0x1000)) - heap;
      const at = yield* linux(u, SYS.mmap, 0, 0x3000, 3, 0x22, -1, 0);
      yield* u.store64(BigInt(at) + 0x2000n as never, 77n);
      // Something stands behind it: it can only move.
      yield* linux(u, SYS.mmap, at + 0x3000, 0x1000, 3, 0x32, -1, 0);
      seen.stays = yield* linux(u, SYS.mremap, at, 0x3000, 0x5000, 0);
      const moved = yield* linux(u, SYS.mremap, at, 0x3000, 0x5000, 1);
      seen.moved = moved !== at && moved > 0;
      seen.kept = yield* u.load64(BigInt(moved) + 0x2000n as never);
      seen.more = yield* u.load64(BigInt(moved) + 0x4000n as never);
      seen.gone = yield* linux(u, SYS.mprotect, at, 0x3000, 3);
      yield* linux(u, SYS.madvise, moved, 0x5000, 4);
      seen.forgotten = yield* u.load64(BigInt(moved) + 0x2000n as never);
      seen.smaller = (yield* linux(u, SYS.mremap, moved, 0x5000, 0x1000, 0)) === moved;
      seen.there = yield* linux(u, SYS.mmap, moved, 0x1000, 3, 0x10_0022, -1, 0);
      seen.unmap = yield* linux(u, SYS.munmap, moved, 0x100000);
      return 0;
    });
    assertEquals(statuses, [0]);
    assertEquals(seen, {
      grown: 12345,
      refused: 12345,
      stays: -ENOMEM,
      moved: true,
      kept: 77n,
      more: 0n,
      gone: -ENOMEM,
      forgotten: 0n,
      smaller: true,
      there: -EEXIST,
      unmap: 0,
    });
  });

  it("files: struct stat, directory entries, pipes that go one way, sendfile, flags", () => {
    const seen: Record<string, unknown> = {};
    const { statuses } = runLinux(function* (u: GateCpu) {
      const name = yield* text(u, scratch(u), "/new"), buffer = scratch(u, 0x1000);
      const fd = yield* linux(u, SYS.open, name, 0o102, 0o640);
      yield* u.storeBytes(buffer, new TextEncoder().encode("0123456789"));
      seen.written = yield* linux(u, SYS.write, fd, buffer, 10);
      seen.flags = yield* linux(u, SYS.fcntl, fd, 3, 0);
      yield* linux(u, SYS.fstat, fd, buffer);
      const stat = new DataView((yield* u.loadBytes(buffer, 144)).buffer);
      seen.stat = [
        stat.getUint32(24, true).toString(8),
        stat.getBigUint64(16, true),
        stat.getBigUint64(48, true),
      ];
      yield* linux(u, SYS.newfstatat, fd, yield* text(u, scratch(u, 0x100), ""), buffer, 0x1000);
      seen.emptyPath = yield* u.load64(buffer + 48n as never);
      const words = scratch(u, 0x200);
      yield* linux(u, SYS.pipe2, words, 0);
      const fds = new Int32Array((yield* u.loadBytes(words, 8)).buffer), [reading, writing] = fds;
      seen.wrongWay = yield* linux(u, SYS.write, reading!, buffer, 1);
      yield* linux(u, SYS.lseek, fd, 4, 0);
      seen.sent = yield* linux(u, SYS.sendfile, writing!, fd, 0, 100);
      seen.read = yield* linux(u, SYS.read, reading!, buffer, 100);
      seen.text = new TextDecoder().decode(yield* u.loadBytes(buffer, 6));
      yield* linux(u, SYS.mkdir, yield* text(u, name, "/dir"), 0o755);
      const dir = yield* linux(u, SYS.open, name, 0o200000);
      seen.dirBytes = yield* linux(u, SYS.getdents64, dir, buffer, 4096);
      const entry = yield* u.loadBytes(buffer, 48);
      seen.dots = [entry[16], entry[18], entry[19], entry[24 + 16], entry[24 + 19], entry[24 + 20]];
      seen.atEnd = yield* linux(u, SYS.getdents64, dir, buffer, 4096);
      return 0;
    });
    assertEquals(statuses, [0]);
    assertEquals(seen, {
      written: 10,
      flags: 2,
      stat: ["100640", 1n, 10n],
      emptyPath: 10n,
      wrongWay: -EBADF,
      sent: 6,
      read: 6,
      text: "456789",
      dirBytes: 48,
      dots: [24, 4, 46, 24, 46, 46],
      atEnd: 0,
    });
  });

  it("futexes: a word that is another is EAGAIN, a time that is over ETIMEDOUT, nobody to wake 0", () => {
    const answers: number[] = [];
    runLinux(function* (u: GateCpu) {
      const word = scratch(u), time = scratch(u, 0x100);
      yield* u.store64(word, 5n);
      yield* u.store64(time, 0n);
      yield* u.store64(time + 8n as never, 20_000_000n);
      answers.push(
        yield* linux(u, SYS.futex, word, 0x80, 4, time, 0, 0),
        yield* linux(u, SYS.futex, word, 0x80, 5, time, 0, 0),
        yield* linux(u, SYS.futex, word, 0x189, 5, time, 0, 0xffff_ffff),
        yield* linux(u, SYS.futex, word, 0x81, 1, 0, 0, 0),
      );
      return 0;
    });
    assertEquals(answers, [-EAGAIN, -ETIMEDOUT, -ETIMEDOUT, 0]);
  });

  it("uname says Linux, limits without end are all ones", () => {
    let system = "", limit = 0n;
    runLinux(function* (u: GateCpu) {
      const at = scratch(u);
      yield* linux(u, SYS.uname, at);
      system = new TextDecoder().decode(yield* u.loadBytes(at, 5));
      yield* linux(u, SYS.prlimit, 0, 9, 0, at);
      limit = yield* u.load64(at);
      return 0;
    });
    assertEquals([system, limit], ["Linux", (1n << 64n) - 1n]);
  });

  it("rt_sigreturn from a stack without a frame is SIGSEGV, and the kernel stays up", () => {
    const { stop, statuses } = runLinux(function* (u: GateCpu) {
      yield* linux(u, SYS.sigreturn);
      return 0;
    });
    assertEquals(stop.reason, "poweroff");
    assert(statuses[0]! > 128, `${statuses[0]}`);
  });
});
