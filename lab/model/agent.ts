/**
 * The processes of the model test inside the kernel: real ones, made by fork1, whose threads never go to user mode but carry out operations
 * by the kernel's own system calls and by loads and stores at user addresses.
 *
 * Room: `lab/model/`; imports the kernel.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../../kernel/context.ts";
import { copyin, copyout } from "../../kernel/kern/copy.ts";
import { SyscallWords } from "../../kernel/kern/sysent.ts";
import { PINTERLOCKED, tsleep, tsleepInterlock, wakeup } from "../../kernel/lwkt/sleep.ts";
import { fork1, RFFDG, RFMEM, RFPROC } from "../../kernel/proc/kern_fork.ts";
import { prepareUserCode, USER_CODE, userRead, userWrite } from "./user_access.ts";
import type { Op } from "./vm_model.ts";

/** Address of page 0 of the test's part of each address space. */
const BASE = 0x1000_0000n;
/** A page of its own for names. */
const SCRATCH = 0x800_0000n;
/** Where {@link pressure} maps. Another process of the same address space has its own. */
const HOG = 0x2000_0000n;
const PAGE = 4096n;
/** Steps for which a process waits for its next operation before it sleeps. */
const SPIN_STEPS = 60;

const SYS = {
  exit: 1,
  open: 5,
  wait4: 7,
  munmap: 73,
  mprotect: 74,
  madvise: 75,
  mincore: 78,
  msync: 65,
  mlock: 203,
  munlock: 204,
  minherit: 250,
  mmap: 197,
  pread: 173,
  pwrite: 174,
  ftruncate: 201,
} as const;
const MAP = { SHARED: 1, PRIVATE: 2, FIXED: 0x10, ANON: 0x1000 } as const;
const INHERIT = { share: 0, copy: 1, none: 2 } as const;
const ADVICE = { normal: 0, willneed: 3, dontneed: 4, free: 5 } as const;
const O_RDWR_CREAT = 0x0202;

/** What came of an operation. */
export type Outcome =
  | { readonly kind: "done" }
  | { readonly kind: "value"; readonly value: number }
  | { readonly kind: "fault"; readonly error: number };

/** One process of the test. */
export class Agent {
  /** The operation to carry out; undefined while there is none. */
  op: Op | undefined;
  outcome: Outcome | undefined;
  pid = 0;
}

/** All of them, and whoever waits for them. */
export class Agents {
  readonly agents = new Map<number, Agent>();
  /** The driver sleeps on this. */
  readonly done = {};
  readonly files: number;

  constructor(files: number) {
    this.files = files;
  }
}

/** What a process of the test does until it exits. */
export function* agentLoop(cx: Cx, all: Agents, me: Agent): Exec<void> {
  cx.td.tdCritcount = 0;
  for (;;) {
    // Stays on its processor for a while, with its address space loaded and what the TLB holds of it.
    for (let i = 0; i < SPIN_STEPS && me.op === undefined; i++) yield;
    while (me.op === undefined) {
      tsleepInterlock(cx, me);
      yield* tsleep(cx, me, PINTERLOCKED, "agent", 0);
    }
    const { op } = me;
    const outcome = yield* carryOut(cx, all, op);
    me.op = undefined;
    me.outcome = outcome;
    wakeup(cx, all.done);
    if (op.kind === "exit") yield* system(cx, SYS.exit, 0n);
  }
}

/** Makes names and files available in the first process: called once, by its own thread. */
export function* prepareFirst(cx: Cx, all: Agents): Exec<void> {
  const flags = BigInt(MAP.ANON | MAP.PRIVATE | MAP.FIXED);
  yield* must(cx, SYS.mmap, SCRATCH, PAGE, 3n, flags, -1n, 0n, 0n);
  yield* must(cx, SYS.mmap, USER_CODE, PAGE, 7n, flags, -1n, 0n, 0n);
  yield* prepareUserCode(cx);
  for (let file = 0; file < all.files; file++) {
    yield* copyout(cx, SCRATCH, new TextEncoder().encode(`/tmp/model${file}\0`));
    const fd = yield* must(cx, SYS.open, SCRATCH, BigInt(O_RDWR_CREAT), 0o644n);
    if (fd !== BigInt(file)) throw new Error(`The test's file ${file} got descriptor ${fd}`);
  }
}

function* system(cx: Cx, number: number, ...words: bigint[]): Exec<{ value: bigint; error: number }> {
  const row = cx.proc!.pSysent!.svTable.get(number);
  if (row === undefined) throw new Error(`There is no system call ${number}`);
  const result = yield* row[3](cx, new SyscallWords(number, words.map((word) => BigInt.asUintN(64, word))));
  return "value" in result ? { value: result.value, error: 0 } : { value: -1n, error: result.error };
}

function* must(cx: Cx, number: number, ...words: bigint[]): Exec<bigint> {
  const { value, error } = yield* system(cx, number, ...words);
  if (error !== 0) throw new Error(`System call ${number} failed with error ${error}`);
  return value;
}

function bytesOf(value: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true);
  return bytes;
}
function valueOf(bytes: Uint8Array<ArrayBuffer>): number {
  return Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
}

function* carryOut(cx: Cx, all: Agents, op: Op): Exec<Outcome> {
  const at = "page" in op ? BASE + BigInt(op.page) * PAGE : 0n;
  const length = "count" in op ? BigInt(op.count) * PAGE : PAGE;
  const call = function* (number: number, ...words: bigint[]): Exec<Outcome> {
    const { error } = yield* system(cx, number, ...words);
    return error === 0 ? { kind: "done" } : { kind: "fault", error };
  };
  switch (op.kind) {
    case "mmap": {
      const flags = MAP.FIXED | (op.shared ? MAP.SHARED : MAP.PRIVATE) |
        (op.file === undefined ? MAP.ANON : 0);
      const fd = op.file === undefined ? -1n : BigInt(op.file.file);
      const offset = op.file === undefined ? 0n : BigInt(op.file.page) * PAGE;
      return yield* call(SYS.mmap, at, length, BigInt(op.prot), BigInt(flags), fd, 0n, offset);
    }
    case "munmap":
      return yield* call(SYS.munmap, at, length);
    case "mprotect":
      return yield* call(SYS.mprotect, at, length, BigInt(op.prot));
    case "minherit":
      return yield* call(SYS.minherit, at, length, BigInt(INHERIT[op.inherit]));
    case "madvise":
      return yield* call(SYS.madvise, at, length, BigInt(ADVICE[op.advice]));
    case "msync":
      return yield* call(SYS.msync, at, length, 0n);
    case "mlock":
      return yield* call(SYS.mlock, at, length);
    case "munlock":
      return yield* call(SYS.munlock, at, length);
    case "mincore":
      return yield* call(SYS.mincore, at, length, SCRATCH);
    case "read": {
      const words = yield* userRead(cx, at, at + PAGE - 8n);
      if (words === undefined) return { kind: "fault", error: 14 };
      // A page that is half another page's shows as a value that nothing expects.
      return { kind: "value", value: words[0] === words[1] ? Number(words[0]) : -1 };
    }
    case "write": {
      const error = yield* userWrite(cx, at, at + PAGE - 8n, BigInt(op.value));
      return error === 0 ? { kind: "done" } : { kind: "fault", error };
    }
    case "fork": {
      const agent = new Agent();
      const child = yield* fork1(cx, RFPROC | RFFDG | (op.mem ? RFMEM : 0), {
        // deno-lint-ignore require-yield
        *prepare(_proc, lwp) {
          const td = lwp.lwpThread!;
          td.tdFn = (inner: Cx) => agentLoop(inner, all, agent);
          // Everywhere: relatives that share memory run on different processors.
          td.tdGd = cx.k.lwkt.gds[op.child % cx.k.ncpus]!;
        },
      });
      if (typeof child === "number") return { kind: "fault", error: child };
      agent.pid = child.pPid;
      all.agents.set(op.child, agent);
      return { kind: "done" };
    }
    case "exit":
      return { kind: "done" };
    case "pressure":
      return yield* pressure(cx, op.pages);
    case "truncate":
      return yield* call(SYS.ftruncate, BigInt(op.file), 0n, BigInt(op.pages) * PAGE);
    case "pwrite":
      return yield* filePage(cx, op.file, op.page, op.value);
    case "pread":
      return yield* filePage(cx, op.file, op.page, undefined);
  }
}

/** Uses so many pages at once, more than there are, and gives them back: everybody else's go to swap. */
function* pressure(cx: Cx, pages: number): Exec<Outcome> {
  const length = BigInt(pages) * PAGE;
  const { error } = yield* system(
    cx,
    SYS.mmap,
    HOG,
    length,
    3n,
    BigInt(MAP.ANON | MAP.PRIVATE | MAP.FIXED),
    -1n,
    0n,
    0n,
  );
  if (error !== 0) return { kind: "fault", error };
  for (let at = HOG; at < HOG + length; at += PAGE) yield* copyout(cx, at, bytesOf(1));
  yield* system(cx, SYS.munmap, HOG, length);
  return { kind: "done" };
}

/** Reads or writes a whole page of a file by pread and pwrite, by way of the scratch page. */
function* filePage(cx: Cx, file: number, page: number, value: number | undefined): Exec<Outcome> {
  const offset = BigInt(page) * PAGE;
  if (value !== undefined) {
    const bytes = new Uint8Array(4096);
    bytes.set(bytesOf(value), 0);
    bytes.set(bytesOf(value), 4088);
    yield* copyout(cx, SCRATCH, bytes);
    const { error } = yield* system(cx, SYS.pwrite, BigInt(file), SCRATCH, PAGE, 0n, offset);
    return error === 0 ? { kind: "done" } : { kind: "fault", error };
  }
  const { value: count, error } = yield* system(cx, SYS.pread, BigInt(file), SCRATCH, PAGE, 0n, offset);
  if (error !== 0) return { kind: "fault", error };
  if (count < PAGE) return { kind: "fault", error: 0 };
  const bytes = yield* copyin(cx, SCRATCH, 4096);
  if (bytes === undefined) return { kind: "fault", error: 14 };
  const first = valueOf(bytes), last = valueOf(bytes.subarray(4088));
  return { kind: "value", value: first === last ? first : -1 };
}
