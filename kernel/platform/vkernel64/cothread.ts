/**
 * Cothreads (`sys/platform/vkernel64/platform/cothread.c`): threads of the host that wait there on a vkernel's behalf, and interrupt it when something
 * has come.
 *
 * Room: `kernel/platform/vkernel64/`; imports the host's calls. A cothread is no thread of the kernel: it has no Cx and calls nothing of it.
 *
 * @module
 */
import { gva } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import { host, must, SIGIO, SYS } from "./host.ts";

/** `struct lwp_params`: func, arg, stack, two places for the number. */
const LWP_PARAMS_BYTES = 40;
/** All signals, for sigprocmask. */
const SIG_SETMASK = 3;

/** Where a cothread's things stand: linear addresses. */
export interface CothreadMemory {
  /** The word that it sleeps on. */
  readonly word: bigint;
  /** Its bytes for host calls. */
  readonly io: bigint;
  /** Top of its stack. */
  readonly stackTop: bigint;
}

/** What cothreads need of the vkernel that they are in. */
export interface CothreadHost {
  readonly cothreads: Cothread[];
  /** Interrupt requests whose devices want to be looked at. */
  readonly irqs: Set<number>;
  /** Where their machine code begins, as lwp_create wants it. */
  readonly cothreadEntry: bigint;
  /** Where the things of one stand. */
  cothreadMemory(index: number): CothreadMemory;
  /** Bytes for the host calls of the processor that runs. */
  io(u: GateCpu): bigint;
  /** Sends a signal to a virtual processor. */
  kick(u: GateCpu, id: number, sig: number): Exec<void>;
}

/** What a cothread does. */
export type CothreadBody = (u: GateCpu, cothread: Cothread) => Exec<void>;

/** One of them. */
export class Cothread {
  readonly #platform: CothreadHost;
  readonly #irq: number;
  /** Which one, 0 … */
  readonly index: number;
  /** What it does. */
  readonly body: CothreadBody;
  /** Where its things stand. */
  readonly memory: CothreadMemory;
  /** The host's number; 0 until it is known. */
  tid = 0;

  /** Made by {@link cothreadCreate}. */
  constructor(platform: CothreadHost, irq: number, index: number, body: CothreadBody) {
    this.#platform = platform;
    this.#irq = irq;
    this.index = index;
    this.body = body;
    this.memory = platform.cothreadMemory(index);
  }

  /** Linear address of the word that it sleeps on. */
  get word(): bigint {
    return this.memory.word;
  }
  /** Its bytes for host calls. */
  get io(): bigint {
    return this.memory.io;
  }

  /** Interrupts the first processor (`cothread_intr`). */
  *interrupt(u: GateCpu): Exec<void> {
    this.#platform.irqs.add(this.#irq);
    yield* this.#platform.kick(u, 0, SIGIO);
  }
}

/** Makes one; it starts at once, with every signal blocked. */
export function* cothreadCreate(
  u: GateCpu,
  platform: CothreadHost,
  irq: number,
  body: CothreadBody,
): Exec<Cothread> {
  const cothread = new Cothread(platform, irq, platform.cothreads.length, body);
  platform.cothreads.push(cothread);
  const old = yield* blockSignals(u, platform.io(u));
  const { cothreadEntry } = platform, { stackTop } = cothread.memory;
  cothread.tid = yield* lwpCreate(u, platform.io(u), cothreadEntry, cothread.index, stackTop);
  yield* setSignals(u, platform.io(u), old);
  return cothread;
}

/** Blocks every signal of this host thread; gives the mask that was. @param io Bytes for the call. */
export function* blockSignals(u: GateCpu, io: bigint): Exec<bigint> {
  yield* setSignals(u, io, 0xffff_ffff_ffff_ffffn);
  return yield* u.load64(gva(io + 16n));
}

/** Sets this host thread's mask of blocked signals; the one before goes to `io` + 16. */
export function* setSignals(u: GateCpu, io: bigint, mask: bigint): Exec<void> {
  yield* u.storeBytes(gva(io), new Uint8Array(new BigUint64Array([mask, 0n]).buffer));
  yield* must(u, "sigprocmask", SYS.sigprocmask, SIG_SETMASK, io, io + 16n);
}

/** Starts a host thread at machine code; gives its number. */
export function* lwpCreate(
  u: GateCpu,
  io: bigint,
  func: bigint,
  arg: number,
  stackTop: bigint,
): Exec<number> {
  const params = new BigUint64Array([func, BigInt(arg), stackTop, io + BigInt(LWP_PARAMS_BYTES), 0n]);
  yield* u.storeBytes(gva(io), new Uint8Array(params.buffer));
  yield* must(u, "lwp_create", SYS.lwp_create, io);
  return yield* u.load32(gva(io + BigInt(LWP_PARAMS_BYTES)));
}

/** Wakes a cothread (`cothread_signal`). */
export function* cothreadKick(u: GateCpu, cothread: Cothread): Exec<void> {
  yield* u.store32(gva(cothread.word), 1);
  yield* host(u, SYS.umtx_wakeup, cothread.word, 0);
}

/** The cothread itself: sleeps until `ready` (`cothread_wait`). */
export function* cothreadWait(u: GateCpu, cothread: Cothread, ready: () => boolean): Exec<void> {
  for (;;) {
    yield* u.store32(gva(cothread.word), 0);
    if (ready()) return;
    yield* host(u, SYS.umtx_sleep, cothread.word, 0, 0);
  }
}
