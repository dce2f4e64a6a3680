/**
 * Where the hunts for historical bugs take place: a booted kernel with a sticky TLB and the sanitizer, processes pinned to processors whose
 * threads stay in the kernel, and one list of what was seen to be wrong.
 *
 * Room: `lab/bugs/`; imports the kernel.
 *
 * @module
 */
import { MemoryDisk } from "../../hw/dev/virtio_blk.ts";
import type { Exec } from "../../hw/gates.ts";
import { Machine } from "../../hw/machine.ts";
import { Random } from "../../hw/random.ts";
import { bootKernel } from "../../kernel/boot.ts";
import type { Cx } from "../../kernel/context.ts";
import { SyscallWords } from "../../kernel/kern/sysent.ts";
import { tsleep } from "../../kernel/lwkt/sleep.ts";
import { lwktYield } from "../../kernel/lwkt/thread.ts";
import { checkInvariants } from "../../kernel/pmap/invariants.ts";
import { newProcess } from "../../kernel/proc/init.ts";
import { exit1, kernWait } from "../../kernel/proc/kern_exit.ts";
import { fork1, RFFDG, RFMEM, RFPROC } from "../../kernel/proc/kern_fork.ts";
import { Proc } from "../../kernel/proc/proc.ts";

/** How a hunt is staged. */
export interface StageOptions {
  readonly seed: number;
  readonly cpus: number;
  /** Historical bugs that are on. */
  readonly bugs: readonly string[];
  /** Steps after which the hunt should long be over. */
  readonly steps: number;
}

/** What the first process of a hunt does; it ends when all is over. */
export type Act = (cx: Cx, stage: Stage) => Exec<void>;

/** One hunt under way. */
export class Stage {
  /** Everything random comes from here. */
  readonly random: Random;
  readonly options: StageOptions;
  #failure: string | undefined;
  #met = 0;
  /** The first process has ended. */
  over = false;

  constructor(options: StageOptions) {
    this.options = options;
    this.random = new Random(options.seed);
  }

  /** What was wrong first. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /** Something is wrong: the acts should come to an end. */
  fail(text: string): void {
    this.#failure ??= text;
  }

  /** Checks the pmap's invariants, whatever others are doing. */
  check(cx: Cx): void {
    const wrong = checkInvariants(cx);
    if (wrong.length > 0) this.fail(`invariant: ${wrong[0]}`);
  }

  /** Waits until so many processes have come here, so that none has done its work before the others exist. */
  *meet(cx: Cx, processes: number): Exec<void> {
    this.#met++;
    yield* this.until(cx, () => this.#met >= processes);
  }

  /** Waits for something without sleeping, or until something has been seen to be wrong. */
  *until(cx: Cx, holds: () => boolean): Exec<void> {
    while (!holds() && this.#failure === undefined) {
      yield;
      yield* lwktYield(cx);
    }
  }

  /** A number from 0 to n − 1. */
  below(n: number): number {
    return this.random.next() % n;
  }

  /**
   * Makes a child of the current process on a processor.
   *
   * @param how "share" its memory, or have a "copy".
   * @returns Its number.
   */
  *child(cx: Cx, how: "share" | "copy", cpu: number, body: (cx: Cx) => Exec<void>): Exec<number> {
    const made = yield* fork1(cx, RFPROC | RFFDG | (how === "share" ? RFMEM : 0), {
      *prepare(_proc, lwp) {
        const td = lwp.lwpThread!;
        td.tdFn = function* (inner: Cx) {
          inner.td.tdCritcount = 0;
          yield* body(inner);
          yield* exit1(inner, 0);
        };
        td.tdGd = cx.k.lwkt.gds[cpu % cx.k.ncpus]!;
      },
    });
    if (typeof made === "number") throw new Error(`fork failed with error ${made}`);
    return made.pPid;
  }
}

/** Waits for the children of the current process, or one of them. */
export function* waitFor(cx: Cx, pid = -1): Exec<void> {
  for (;;) {
    const found = yield* kernWait(cx, pid, 0);
    if (found !== 0 && ("error" in found || pid !== -1)) return;
  }
}

/** A system call of the current process; its error number, 0 for success. */
export function* system(cx: Cx, number: number, ...words: bigint[]): Exec<number> {
  const row = cx.proc!.pSysent!.svTable.get(number);
  if (row === undefined) throw new Error(`There is no system call ${number}`);
  const result = yield* row[3](cx, new SyscallWords(number, words.map((word) => BigInt.asUintN(64, word))));
  return "value" in result ? 0 : result.error;
}

/** The processes that there are, as their numbers ascend. */
export function allProcesses(cx: Cx): Proc[] {
  return [...cx.k.procs.allproc.values()];
}

/** Runs a hunt; gives what was found, or undefined. */
export function runStage(options: StageOptions, act: Act): string | undefined {
  const stage = new Stage(options);
  const machine = new Machine({
    memory: 16 << 20,
    cpus: options.cpus,
    tlb: "sticky",
    sanitizer: true,
    seed: options.seed,
    // The kernel's code is few steps, and all that matters happens between two of them.
    quantum: [1, 24],
    gates: true,
    disk: new MemoryDisk(new Uint8Array(16 << 20)),
  });
  machine.sanitizer?.on((use) =>
    stage.fail(
      `sanitizer: stale translation used: ${use.access} of 0x${use.linear.toString(16)} on cpu${use.cpu}`,
    )
  );
  bootKernel(machine, {
    archives: [],
    verbose: false,
    faultReports: false,
    bugs: options.bugs,
    *body(cx) {
      yield* newProcess(cx, "hunt", function* (inner: Cx) {
        inner.td.tdCritcount = 0;
        yield* act(inner, stage);
        stage.over = true;
        // Its parent is no process: nobody waits for it.
        yield* exit1(inner, 0);
      }, undefined);
      while (!stage.over && stage.failure === undefined) {
        yield* tsleep(cx, stage, 0, "hunt", 2);
      }
      stage.check(cx);
    },
  });
  const stop = machine.run({ steps: options.steps });
  if (stop.reason === "panic") {
    stage.fail(`panic: ${stop.error instanceof Error ? stop.error.message : stop.error}`);
  } else if (stop.reason === "steps") stage.fail(`hang: not over after ${options.steps} steps`);
  else if (stop.reason !== "poweroff") stage.fail(`the machine stopped by ${stop.reason}`);
  return stage.failure;
}
