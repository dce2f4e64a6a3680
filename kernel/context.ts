/**
 * Who runs: what `mycpu`, `curthread` and `curproc` are in C. Every kernel function that needs to know takes a {@link Cx} first.
 *
 * Room: `kernel/`; imports types, and the computation that does nothing.
 *
 * A Cx belongs to one continuation (a thread's kernel code, or an interrupt's) and follows it over processors: what it answers may
 * change at every boundary, so nobody keeps `cx.gd` over one.
 *
 * @module
 */
import { type Exec, type GateCpu, NOTHING } from "../hw/gates.ts";
import type { Kernel } from "./kernel.ts";
import type { Globaldata } from "./lwkt/globaldata.ts";
import type { Thread } from "./lwkt/thread.ts";
import type { Lwp, Proc } from "./proc/proc.ts";

/** The running continuation as the kernel sees it. */
export class Cx {
  /** The kernel that runs. */
  readonly k: Kernel;
  /** The processor as this continuation uses it. */
  readonly cpu: GateCpu;

  /** Made by the gates of the platform. */
  constructor(k: Kernel, cpu: GateCpu) {
    this.k = k;
    this.cpu = cpu;
  }

  /**
   * `mycpu`: this processor's globaldata.
   *
   * @internal
   */
  get gd(): Globaldata {
    return this.k.platform.mycpu(this.cpu);
  }
  /**
   * `curthread`.
   *
   * @internal
   */
  get td(): Thread {
    return this.gd.gdCurthread;
  }
  /**
   * The current thread's lwp, if it has one.
   *
   * @internal
   */
  get lwp(): Lwp | undefined {
    return this.gd.gdCurthread.tdLwp;
  }
  /**
   * `curproc`, if the thread belongs to a process.
   *
   * @internal
   */
  get proc(): Proc | undefined {
    return this.gd.gdCurthread.tdProc;
  }

  /**
   * Whether interrupts may come.
   *
   * @internal
   */
  get interruptsEnabled(): boolean {
    return this.k.platform.interruptsEnabled(this);
  }
  /**
   * Lets interrupts come or not.
   *
   * @internal
   */
  setInterrupts(enabled: boolean): void {
    this.k.platform.setInterrupts(this, enabled);
  }

  /** A round of waiting for another processor (`cpu_pause`): a boundary. Interrupts may be off, the thread in a critical section. */
  pause(): Exec<void> {
    return pause(this);
  }
  /** A boundary where real processors race with each other: on one processor nothing happens. */
  racePoint(): Exec<void> {
    return this.k.ncpus > 1 ? boundary() : NOTHING;
  }
}

function* boundary(): Exec<void> {
  yield;
}
function* pause(cx: Cx): Exec<void> {
  yield;
  yield* cx.k.platform.cpuPause(cx);
}
