/**
 * Per-processor data (`struct globaldata`, `sys/sys/globaldata.h`), the part that TypeScript keeps; what machine code reaches is in
 * `platform/pc64/globaldata.ts`.
 *
 * Room: `kernel/lwkt/`; imports types only.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { LwktIpiq } from "./ipiq.ts";
import type { LwktCpusync } from "./cpusync.ts";
import type { Thread } from "./thread.ts";

/** `gd_reqflags` (section 2.1 of the reference): bit numbers of DragonFly as masks. */
export const RQF = {
  IPIQ: 1 << 0,
  INTPEND: 1 << 1,
  AST_OWEUPC: 1 << 2,
  AST_SIGNAL: 1 << 3,
  AST_USER_RESCHED: 1 << 4,
  AST_LWKT_RESCHED: 1 << 5,
  TIMER: 1 << 7,
  RUNNING: 1 << 8,
  SPINNING: 1 << 9,
  QUICKRET: 1 << 10,
} as const;
/** What must be looked at before user mode, with interrupts off. */
export const RQF_AST_MASK: number = RQF.AST_OWEUPC | RQF.AST_SIGNAL | RQF.AST_USER_RESCHED |
  RQF.AST_LWKT_RESCHED;
/** What {@link "./thread.ts"} runs when the last critical section ends. */
export const RQF_IDLECHECK_MASK: number = RQF.IPIQ | RQF.INTPEND | RQF.TIMER;

/** One processor. */
export class Globaldata {
  /** `gd_cpuid`. */
  readonly gdCpuid: number;
  /** `gd_cpumask`: own bit. */
  readonly gdCpumask: number;
  /** Linear address of what machine code sees of it. */
  readonly gdPrvspace: Gva;
  /** `gd_curthread`. */
  gdCurthread: Thread;
  /** `gd_idlethread`. */
  readonly gdIdlethread: Thread;
  /** The thread that this processor switched away from, until the one that runs now has looked after it. */
  gdPrevthread: Thread | undefined = undefined;
  /** `gd_tdrunq`: runnable threads of this processor, by falling priority, first come first served. Not the running one. */
  readonly gdTdrunq: Thread[] = [];
  /** `gd_reqflags`. */
  gdReqflags = 0;
  /** `gd_ipiq`: what other processors sent here, by sender. */
  readonly gdIpiq: (LwktIpiq | undefined)[] = [];
  /** `gd_npoll`: an interrupt for the queues is on its way. */
  gdNpoll = false;
  /** `gd_cpusyncq`: rendezvous that this processor has joined and whose master is not done. */
  readonly gdCpusyncq: LwktCpusync[] = [];
  /** `gd_ipending`: interrupts that came in a critical section: numbers of handlers to run. */
  readonly gdIpending: number[] = [];
  /** `gd_intr_nesting_level`: interrupt continuations that run on this processor. */
  gdIntrNestingLevel = 0;
  /** Clock interrupts so far. */
  gdTicks = 0;
  /** Set while the processor is the master of a rendezvous or waits in one. */
  gdSpinning = false;

  /** Made by the platform, once a processor. */
  constructor(cpuid: number, prvspace: Gva, idle: Thread) {
    this.gdCpuid = cpuid;
    this.gdCpumask = 1 << cpuid;
    this.gdPrvspace = prvspace;
    this.gdIdlethread = idle;
    this.gdCurthread = idle;
  }
}
