/**
 * The system calls (`init_sysent.c`, `sys_generic.c`): DragonFly's numbers, arguments in RDI RSI RDX R10 R8 R9.
 *
 * Room: `kernel/kern/`; imports exec and copy.
 *
 * @module
 */
import type { Exec, GateCpu } from "../../hw/gates.ts";
import type { Kernel } from "../kernel.ts";
import { cnwrite } from "../platform/pc64/console.ts";
import type { Trapframe } from "../platform/pc64/frame.ts";
import { copyin } from "./copy.ts";
import { ERRNO, type SyscallResult } from "./errno.ts";

/** Numbers of `sys/kern/syscalls.master`. */
export const SYS = { exit: 1, write: 4, getpid: 20 } as const;

/** A system call: the frame it came with, and what it gives. `exit` does not come back to its caller and is not here. */
export type Sysent = (k: Kernel, cpu: GateCpu, frame: Trapframe) => Exec<SyscallResult>;

/** Bytes that write() copies in at once. */
const WRITE_CHUNK_BYTES = 1024;
/** Largest count that write() takes, as `INT_MAX` in DragonFly. */
const COUNT_MAX = 0x7fff_ffffn;

/** write(fd, buf, nbytes): to the console, for 1 and 2. */
function* sysWrite(_k: Kernel, cpu: GateCpu, frame: Trapframe): Exec<SyscallResult> {
  const descriptor = frame.rdi & 0xffff_ffffn, buffer = frame.rsi, count = frame.rdx;
  if (descriptor !== 1n && descriptor !== 2n) return { error: ERRNO.EBADF };
  if (count > COUNT_MAX) return { error: ERRNO.EINVAL };
  let written = 0n;
  while (written < count) {
    const left = count - written;
    const bytes = left < BigInt(WRITE_CHUNK_BYTES) ? Number(left) : WRITE_CHUNK_BYTES;
    const data = yield* copyin(cpu, buffer + written, bytes);
    if (data === undefined) return written > 0n ? { value: written } : { error: ERRNO.EFAULT };
    yield* cnwrite(cpu, cooked(data));
    written += BigInt(bytes);
  }
  return { value: count };
}

/** As a terminal in cooked mode puts it out: a line feed gets its carriage return. */
function cooked(data: Uint8Array): Uint8Array {
  const out: number[] = [];
  for (const byte of data) {
    if (byte === 10) out.push(13);
    out.push(byte);
  }
  return Uint8Array.from(out);
}

function* sysGetpid(k: Kernel): Exec<SyscallResult> {
  return { value: BigInt(k.curproc?.pid ?? 0) };
}

/** System calls by number. */
export const sysent: ReadonlyMap<number, Sysent> = new Map([
  [SYS.write, sysWrite],
  [SYS.getpid, sysGetpid],
]);
