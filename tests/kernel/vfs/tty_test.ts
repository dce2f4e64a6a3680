import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../../kernel/context.ts";
import { ERRNO } from "../../../kernel/kern/errno.ts";
import * as t from "../../../kernel/kern/termios.ts";
import { Tty, ttyinput } from "../../../kernel/kern/tty.ts";
import { ttioctl, ttread, ttwrite, ttypoll } from "../../../kernel/kern/tty_io.ts";
import { kthreadCreate } from "../../../kernel/lwkt/thread.ts";
import { tsleep } from "../../../kernel/lwkt/sleep.ts";
import { Uio, UIO_READ, UIO_WRITE } from "../../../kernel/vfs/uio.ts";
import { IO_NDELAY } from "../../../kernel/vfs/vnode.ts";
import { runInKernel } from "../in_kernel.ts";
import { runProgram, SYS } from "./vfs_fixture.ts";

const encoder = new TextEncoder(), decoder = new TextDecoder();

/** A terminal whose line ends in a string. */
class Line {
  readonly cx: Cx;
  out = "";
  readonly tp: Tty = new Tty("test", (_cx, bytes) => {
    this.out += decoder.decode(bytes);
  });

  constructor(cx: Cx) {
    this.cx = cx;
  }
  /** Types; control characters as ^X. */
  type(text: string): void {
    const plain = text.replace(
      /\^([@-_?])/g,
      (_, c: string) => c === "?" ? "\x7f" : String.fromCharCode(c.charCodeAt(0) & 31),
    );
    for (const byte of encoder.encode(plain)) ttyinput(this.cx, byte, this.tp);
  }
  /** Reads without waiting: text, or an error number. */
  *read(bytes = 100, flags = IO_NDELAY): Exec<string | number> {
    const buffer = new Uint8Array(bytes);
    const uio = Uio.kernel(UIO_READ, 0, buffer);
    const error = yield* ttread(this.cx, this.tp, uio, flags);
    return error !== 0 ? error : decoder.decode(buffer.subarray(0, bytes - uio.resid));
  }
  /** What was sent since the last time. */
  sent(): string {
    const { out } = this;
    this.out = "";
    return out;
  }
}

function withLine(body: (line: Line) => Exec<void>): void {
  runInKernel({}, function* (cx) {
    yield* body(new Line(cx));
  });
}

describe("canonical input", () => {
  it("gives a line when it is finished, at most one with each read", () => {
    withLine(function* (line) {
      line.type("one");
      assertEquals(yield* line.read(), ERRNO.EAGAIN);
      line.type("\rtwo\n");
      assertEquals(yield* line.read(), "one\n");
      assertEquals(yield* line.read(2), "tw");
      assertEquals(yield* line.read(), "o\n");
      assertEquals(yield* line.read(), ERRNO.EAGAIN);
    });
  });

  it("echoes what is typed, control characters as two", () => {
    withLine(function* (line) {
      line.type("a^Bc\n");
      assertEquals(line.sent(), "a^Bc\r\n");
    });
  });

  it("is edited: erase, word erase, kill, and these keys typed literally", () => {
    withLine(function* (line) {
      line.type("abx^?c\n");
      assertEquals(line.sent(), "abx\b \bc\r\n");
      assertEquals(yield* line.read(), "abc\n");
      line.type("one two  ^Wthree\n");
      assertEquals(yield* line.read(), "one three\n");
      line.type("wrong^Uright\n");
      assertEquals(yield* line.read(), "right\n");
      line.type("^?^?^W^Uempty\n");
      assertEquals(yield* line.read(), "empty\n");
      line.type("x^V^?y\n");
      assertEquals(yield* line.read(), "x\x7fy\n");
      line.type("é^?ü\n");
      assertEquals(yield* line.read(), "ü\n");
    });
  });

  it("rubs a tab out to where it began", () => {
    withLine(function* (line) {
      line.type("ab\t");
      line.sent();
      line.type("^?");
      assertEquals(line.sent(), "\b".repeat(6));
    });
  });

  it("ends at ^D: after text without a line feed, at once as end of file", () => {
    withLine(function* (line) {
      line.type("text^D");
      assertEquals(yield* line.read(), "text");
      line.type("^D");
      assertEquals(yield* line.read(), "");
      assertEquals(yield* line.read(), ERRNO.EAGAIN);
      line.type("^V^D\n");
      assertEquals(yield* line.read(), "\x04\n");
    });
  });

  it("takes no more than its queue holds, and says so by a bell", () => {
    withLine(function* (line) {
      line.type("x".repeat(2000));
      assertEquals(line.sent(), "x".repeat(1024) + "\x07".repeat(976));
      line.type("^?\n");
      assertEquals((yield* line.read(4000)) as string, "x".repeat(1023) + "\n");
    });
  });

  it("wakes a reader that waits", () => {
    withLine(function* (line) {
      yield* kthreadCreate(line.cx, function* (cx) {
        yield* tsleep(cx, {}, 0, "typing", 2);
        for (const byte of encoder.encode("late\n")) ttyinput(cx, byte, line.tp);
      }, "typist");
      assertEquals(yield* line.read(100, 0), "late\n");
    });
  });
});

describe("raw input", () => {
  const raw = (line: Line, min: number, time: number) => {
    line.tp.tTermios.cLflag &= ~(t.ICANON | t.ECHO | t.ISIG);
    line.tp.tTermios.cCc[t.VMIN] = min;
    line.tp.tTermios.cCc[t.VTIME] = time;
  };

  it("gives each byte as it comes", () => {
    withLine(function* (line) {
      raw(line, 1, 0);
      line.type("a^C^?");
      assertEquals(yield* line.read(), "a\x03\x7f");
      assertEquals(line.sent(), "");
    });
  });

  it("waits for VMIN bytes, or VTIME tenths of a second", () => {
    withLine(function* (line) {
      raw(line, 0, 0);
      assertEquals(yield* line.read(100, 0), "");
      raw(line, 0, 1);
      const before = line.cx.k.ticks;
      assertEquals(yield* line.read(100, 0), "");
      assertEquals(line.cx.k.ticks - before >= 10, true);
      raw(line, 3, 0);
      yield* kthreadCreate(line.cx, function* (cx) {
        for (const c of "abcd") {
          yield* tsleep(cx, {}, 0, "typing", 1);
          ttyinput(cx, c.charCodeAt(0), line.tp);
        }
      }, "typist");
      assertEquals(yield* line.read(100, 0), "abc");
    });
  });

  it("finds what was typed before the terminal became raw", () => {
    withLine(function* (line) {
      line.type("ab");
      const data = line.tp.tTermios.encode();
      new DataView(data.buffer).setUint32(12, 0, true);
      assertEquals(yield* ttioctl(line.cx, line.tp, t.TIOCSETA, data), 0);
      assertEquals(yield* line.read(), "ab");
      line.type("cd");
      assertEquals(yield* ttioctl(line.cx, line.tp, t.TIOCSETAF, new t.Termios().encode()), 0);
      line.type("e\n");
      assertEquals(yield* line.read(), "e\n");
    });
  });
});

describe("output", () => {
  it("sends a carriage return with each line feed, unless told not to", () => {
    withLine(function* (line) {
      const write = (text: string) =>
        ttwrite(line.cx, line.tp, Uio.kernel(UIO_WRITE, 0, encoder.encode(text)), 0);
      assertEquals(yield* write("a\nb\tc\n"), 0);
      assertEquals(line.sent(), "a\r\nb\tc\r\n");
      line.tp.tTermios.cOflag |= t.OXTABS;
      yield* write("b\tc");
      assertEquals(line.sent(), "b       c");
      line.tp.tTermios.cOflag = 0;
      yield* write("\n\t");
      assertEquals(line.sent(), "\n\t");
    });
  });

  it("stops at ^S and goes on at ^Q", () => {
    withLine(function* (line) {
      line.type("^S");
      const uio = Uio.kernel(UIO_WRITE, 0, encoder.encode("held"));
      assertEquals(yield* ttwrite(line.cx, line.tp, uio, IO_NDELAY), ERRNO.EAGAIN);
      line.type("^Q");
      assertEquals(yield* ttwrite(line.cx, line.tp, uio, 0), 0);
      assertEquals(line.sent(), "held");
    });
  });
});

describe("ioctls", () => {
  it("keep the window's size and count what can be read", () => {
    withLine(function* (line) {
      const { cx, tp } = line;
      const size = Uint8Array.of(50, 0, 132, 0, 0, 0, 0, 0);
      assertEquals(yield* ttioctl(cx, tp, t.TIOCSWINSZ, size), 0);
      const back = new Uint8Array(8);
      yield* ttioctl(cx, tp, t.TIOCGWINSZ, back);
      assertEquals(back, size);
      line.type("12345\n");
      const count = new Uint8Array(4);
      yield* ttioctl(cx, tp, t.FIONREAD, count);
      assertEquals(count[0], 6);
      assertEquals(ttypoll(tp, 5, undefined), 5);
      yield* ttioctl(cx, tp, t.TIOCFLUSH, Uint8Array.of(1, 0, 0, 0));
      assertEquals(ttypoll(tp, 5, undefined), 4);
      assertEquals(yield* ttioctl(cx, tp, 0x1234, count), ERRNO.ENOTTY);
    });
  });

  it("have BSD's numbers", () => {
    assertEquals([t.TIOCGETA, t.TIOCSETA, t.TIOCGPGRP, t.TIOCSPGRP, t.TIOCSCTTY, t.TIOCGWINSZ, t.FIONREAD], [
      0x402c7413,
      0x802c7414,
      0x40047477,
      0x80047476,
      0x20007461,
      0x40087468,
      0x4004667f,
    ]);
  });
});

describe("the console", () => {
  it("brings typed lines to a program, and is its controlling terminal", () => {
    const { console } = runProgram({ input: "hello\r" }, function* (u) {
      assertEquals(yield* u.readText(0, 100), "hello\n");
      const at = u.room(8);
      const pid = yield* u.sys(SYS.getpid);
      assertEquals(yield* u.sys(SYS.ioctl, 0, t.TIOCGPGRP, at), 0);
      assertEquals(yield* u.u.load32(at), pid);
      const tty = yield* u.sys(SYS.open, "/dev/tty", 2);
      assertEquals(yield* u.write(tty, "answer\n"), 7);
      assertEquals(yield* u.sys(SYS.ioctl, tty, t.TIOCSPGRP, new Uint8Array([99, 0, 0, 0])), -ERRNO.EPERM);
      assertEquals(yield* u.sys(SYS.lseek, tty, 0, 0, 0), 0);
    });
    assertEquals(console, "hello\nanswer\n");
  });

  it("holds the line up when more is typed than it can keep, and loses nothing", () => {
    const lines = Array.from({ length: 300 }, (_, i) => `line number ${i}\n`);
    runProgram({ input: lines.join("") }, function* (u) {
      for (const line of lines) assertEquals(yield* u.readText(0, 100), line);
    });
  });

  it("ends a program by ^C and by ^\\", () => {
    for (const [typed, status] of [["\x03", 130], ["\x1c", 131]] as const) {
      const { kernel, console } = runProgram({ inputAfter: ["ready", typed] }, function* (u) {
        yield* u.write(1, "ready ");
        yield* u.readText(0, 100);
      });
      assertEquals(kernel.exitStatus, status);
      assertEquals(console, typed === "\x03" ? "ready ^C" : "ready ^\\");
    }
  });
});
