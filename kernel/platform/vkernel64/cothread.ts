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
import type { Vkernel64 } from "./vkernel64.ts";
import { GD_VA, IO_BYTES, IO_VA, STACK_BYTES, STACKS_VA } from "./vmparam.ts";

/** Offset of the words that cothreads sleep on, in the page behind the processors'. */
const WORDS_VA = GD_VA + 16n * 0x1000n;
/** First host thread that is a cothread. */
const FIRST = 16;
/** `struct lwp_params`: func, arg, stack, two places for the number. */
const LWP_PARAMS_BYTES = 40;
/** All signals, for sigprocmask. */
const SIG_SETMASK = 3;

/** One of them. */
export class Cothread {
  readonly #platform: Vkernel64;
  readonly #irq: number;
  /** Which one, 0 … */
  readonly index: number;
  /** What it does. */
  readonly body: (u: GateCpu) => Exec<void>;
  /** The host's number; 0 until it is known. */
  tid = 0;

  /** Made by {@link cothreadCreate}. */
  constructor(platform: Vkernel64, irq: number, index: number, body: (u: GateCpu) => Exec<void>) {
    this.#platform = platform;
    this.#irq = irq;
    this.index = index;
    this.body = body;
  }

  /** Linear address of the word that it sleeps on. */
  get word(): bigint {
    return WORDS_VA + BigInt(this.index * 64);
  }
  /** Its bytes for host calls. */
  get io(): bigint {
    return IO_VA + BigInt((FIRST + this.index) * IO_BYTES);
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
  platform: Vkernel64,
  irq: number,
  body: (u: GateCpu) => Exec<void>,
): Exec<Cothread> {
  const cothread = new Cothread(platform, irq, platform.cothreads.length, body);
  platform.cothreads.push(cothread);
  const old = yield* blockSignals(u, platform.vcpu(u).io);
  const thread = FIRST + cothread.index;
  cothread.tid = yield* lwpCreate(u, platform.vcpu(u).io, platform.locore.cothread, cothread.index, thread);
  yield* setSignals(u, platform.vcpu(u).io, old);
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

/** Starts a host thread at machine code; gives its number. @param thread Which stack it gets. */
export function* lwpCreate(u: GateCpu, io: bigint, func: bigint, arg: number, thread: number): Exec<number> {
  const stack = STACKS_VA + BigInt((thread + 1) * STACK_BYTES);
  const params = new BigUint64Array([func, BigInt(arg), stack, io + BigInt(LWP_PARAMS_BYTES), 0n]);
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
