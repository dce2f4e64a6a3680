import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { ERRNO } from "../../../kernel/kern/errno.ts";
import { Termios } from "../../../kernel/kern/termios.ts";
import { linuxErrno } from "../../../kernel/linux/linux_errno.ts";
import { linuxOpenFlags, nativeOpenFlags } from "../../../kernel/linux/linux_fcntl.ts";
import { decodeLinuxTermios, encodeLinuxTermios } from "../../../kernel/linux/linux_ioctl.ts";
import {
  encodeLinuxSiginfo,
  linuxSaFlags,
  linuxSignal,
  linuxSigset,
  linuxWaitStatus,
  nativeSaFlags,
  nativeSignal,
  nativeSigset,
} from "../../../kernel/linux/linux_signal.ts";
import { linuxSyscalls } from "../../../kernel/linux/linux_sysvec.ts";
import * as signal from "../../../kernel/proc/signal.ts";

describe("Linux's numbers for DragonFly's", () => {
  it("errors: by name", () => {
    const { EAGAIN, EDEADLK, ENAMETOOLONG, ENOTEMPTY, ELOOP, ENOSYS, ETIMEDOUT, EOVERFLOW, EPIPE } = ERRNO;
    const native = [EAGAIN, EDEADLK, ENAMETOOLONG, ENOTEMPTY, ELOOP, ENOSYS, ETIMEDOUT, EOVERFLOW, EPIPE];
    assertEquals(native.map(linuxErrno), [11, 35, 36, 39, 40, 38, 110, 75, 32]);
  });

  it("errors: every one has a number that Linux has", () => {
    for (const error of Object.values(ERRNO)) {
      if (error > 0) assertEquals(linuxErrno(error) > 0 && linuxErrno(error) < 134, true, `${error}`);
    }
  });

  it("signals: each has one number on either side", () => {
    for (let sig = 1; sig <= signal.NSIG; sig++) assertEquals(linuxSignal(nativeSignal(sig)), sig);
    assertEquals([7, 10, 12, 17, 18, 19, 20, 23, 29, 31].map(nativeSignal), [
      signal.SIGBUS,
      signal.SIGUSR1,
      signal.SIGUSR2,
      signal.SIGCHLD,
      signal.SIGCONT,
      signal.SIGSTOP,
      signal.SIGTSTP,
      signal.SIGURG,
      signal.SIGIO,
      signal.SIGSYS,
    ]);
  });

  it("sets of signals go there and back", () => {
    for (const set of [0n, 1n << 9n, (1n << 64n) - 1n, 0x8000_0000_1234_5678n]) {
      assertEquals(linuxSigset(nativeSigset(set)), set);
    }
    assertEquals(nativeSigset(1n << 9n), signal.sigmask(signal.SIGUSR1));
  });

  it("sa_flags go there and back", () => {
    const all = 0xd800_0007;
    assertEquals(linuxSaFlags(nativeSaFlags(all | 0)), all);
    assertEquals(nativeSaFlags(0x0400_0000), 0);
  });

  it("wait4 statuses: exits as they are, signals by Linux's numbers", () => {
    assertEquals(linuxWaitStatus(3 << 8), 3 << 8);
    assertEquals(linuxWaitStatus(signal.SIGUSR1), 10);
    assertEquals(linuxWaitStatus(signal.SIGTSTP << 8 | 0x7f), 20 << 8 | 0x7f);
    assertEquals(linuxWaitStatus(signal.SIGCONT), 0xffff);
  });

  it("siginfo: a fault has an address where a message has its sender", () => {
    const fault = encodeLinuxSiginfo(signal.siginfo(signal.SIGBUS, { siCode: 2, siAddr: 0x1234n, siPid: 9 }));
    assertEquals([...new Uint32Array(fault.buffer).slice(0, 6)], [7, 0, 2, 0, 0x1234, 0]);
    const sent = encodeLinuxSiginfo(signal.siginfo(signal.SIGUSR2, { siPid: 9, siUid: 5 }));
    assertEquals([...new Uint32Array(sent.buffer).slice(0, 6)], [12, 0, 0, 0, 9, 5]);
    const divide = encodeLinuxSiginfo(signal.siginfo(signal.SIGFPE, { siCode: signal.FPE_INTDIV }));
    assertEquals(new Int32Array(divide.buffer)[2], 1);
  });

  it("open's flags go there and back but for those that only say how to open", () => {
    const flags = 0o1 | 0o2000 | 0o4000;
    assertEquals(linuxOpenFlags(nativeOpenFlags(flags)), flags);
    assertEquals(nativeOpenFlags(0o1101), 0x601);
  });

  it("terminal settings go there and back", () => {
    const before = new Termios(), after = new Termios();
    const bytes = encodeLinuxTermios(before);
    // ICRNL | IXON …, OPOST | ONLCR, CS8 | CREAD …, and ^C first.
    const view = new DataView(bytes.buffer);
    assertEquals(view.getUint32(4, true), 5);
    assertEquals(view.getUint32(8, true) & 0xb0, 0xb0);
    assertEquals(bytes[17], 3);
    after.cIflag = after.cOflag = after.cLflag = 0;
    after.cCc.fill(7, 0, 5);
    decodeLinuxTermios(bytes, after);
    assertEquals(encodeLinuxTermios(after), bytes);
    assertEquals(after.cLflag, before.cLflag);
  });

  it("no number is in the table twice, and all that the C library of a small program needs are there", () => {
    const numbers = linuxSyscalls.map(([number]) => number);
    assertEquals(new Set(numbers).size, numbers.length);
    const needed = [
      0,
      1,
      3,
      9,
      11,
      12,
      13,
      14,
      16,
      21,
      56,
      59,
      61,
      63,
      158,
      202,
      217,
      218,
      231,
      257,
      262,
      302,
      318,
    ];
    assertEquals(needed.filter((number) => !numbers.includes(number)), []);
  });
});
