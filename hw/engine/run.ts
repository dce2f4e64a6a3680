/**
 * The run loop of one processor: what happens between instructions (events, faults, single steps), and the engine that carries
 * the instructions out.
 *
 * Room: `hw/engine/`; imports `hw/sys/` (delivery), the engines and the processor. The machine's scheduler calls {@link Processor.run}.
 *
 * Time: an instruction that completes counts one tick, an iteration of a repeated string instruction too; delivering an
 * exception or interrupt counts one as well, so that no guest can spend forever without time passing. The count is the same
 * under every engine, and a slice ends at exactly the instruction that the scheduler said.
 *
 * @module
 */
import * as state from "../state.ts";
import type { Cpu } from "../cpu.ts";
import { deliverEvent, deliverFault } from "../sys/event.ts";
import { afterStep, debugArmed, instructionBreakpoint, STEP_HOLD } from "../sys/debug.ts";
import { initCpu, startCpu } from "../sys/mode.ts";
import { type CodeCache, LOOKUP_FAULT, LOOKUP_STEP } from "./code_cache.ts";
import { TRACE } from "../trace.ts";
import { dropSlotTables } from "./fetch.ts";
import { BUDGET_MAX, type Handlers } from "./handlers.ts";
import { afterDelivery, DUE, guestEvent, settle, stepsForMtf, takeGuestEvent } from "../vmx/boundary.ts";
import type { ReferenceStepper } from "./reference_step.ts";
import type { Regions } from "./compiled/regions.ts";
import { PSEUDO } from "./wasm/interpreter_module.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const {
  ATTENTION_INIT,
  ATTENTION_INTERRUPT,
  ATTENTION_MACHINE,
  ATTENTION_NMI,
  BIAS_VALUE,
  BLOCK_MAX,
  EXIT_BUDGET,
  EXIT_END,
  EXIT_FAULT,
  EXIT_LOOKUP,
  EXIT_NONE,
  EXIT_RETRY,
  EXIT_STOP,
  FTLB_FETCH,
  FTLB_TABLE_BYTES,
  REC,
  RFLAGS,
  S,
  SEG,
} = state;

/** Activity states (as in the VMCS). */
const HALTED = 1, SHUTDOWN = 2, WAIT_FOR_SIPI = 3;
/** Blocking bits. */
const BLOCKING_STI = 1, BLOCKING_MOV_SS = 2, BLOCKING_NMI = 8;

/** VMX non-root operation. */
const NON_ROOT = 2;
/** Bits of S.VMX_PENDING that are exits behind an instruction: MTF, APIC write, TPR, EOI. */
const TRAP_LIKE = 1 | 4 | 8 | 16;
const DR6_BS = 0x4000;

/** What carries instructions out. */
export type EngineParts =
  | {
    readonly kind: "interpreter";
    readonly handlers: Handlers;
    readonly code: CodeCache;
    /** Compiled regions, on an engine that has them. */
    readonly regions?: Regions;
  }
  | { readonly kind: "reference"; readonly stepper: ReferenceStepper };

/** One processor's run loop. */
export class Processor {
  readonly cpu: Cpu;
  readonly #engine: EngineParts;
  readonly #regions: Regions | undefined;
  readonly #i32: Int32Array;
  readonly #u16: Uint16Array;
  readonly #at: number;
  /** Ticks of the current slice that are done, not counting those of the engine's run that is going on. */
  #done = 0;
  /** Budget of the engine's run that is going on; with S.REMAINING it says how far that is. */
  #given = 0;
  /** Code mode for which the fetch tables were filled, by bank of the fast TLB: root, non-root operation. */
  readonly #modes = [-1, -1];
  /** The engine's last run ended at a jump's target. */
  #arrived = false;
  /** When the last `instruction` event was. */
  #told = -1;
  /** Low half of the RIP from which records were staged last. */
  #staged = 0;

  constructor(cpu: Cpu, engine: EngineParts) {
    this.cpu = cpu;
    this.#engine = engine;
    this.#regions = engine.kind === "interpreter" ? engine.regions : undefined;
    this.#i32 = cpu.memory.i32;
    this.#u16 = cpu.memory.u16;
    this.#at = cpu.base >>> 2;
    this.#i32.fill(-1, (cpu.base + S.NOFETCH) >>> 2, (cpu.base + S.NOFETCH + FTLB_TABLE_BYTES) >>> 2);
    cpu.set64Halves(S.BIAS, BIAS_VALUE, 0);
    cpu.set32(S.REMAINING, 0);
  }

  #get(offset: number): number {
    return this.#i32[this.#at + (offset >>> 2)]!;
  }

  /** Ticks of the current slice so far; exact inside a procedure. 0 between slices. */
  elapsed(): number {
    return this.#done + this.#given - this.#get(S.REMAINING);
  }

  /** False while the processor is halted (or shut down, or waits for SIPI) and nothing that would wake it is pending. */
  get runnable(): boolean {
    const activity = this.#get(S.ACTIVITY);
    if (activity === 0) return true;
    if (this.#get(S.VMX_ABORTED) !== 0) return false;
    if (this.#get(S.VMX_MODE) === NON_ROOT) return guestEvent(this.cpu) !== DUE.NOTHING;
    const attention = this.#get(S.ATTENTION);
    if (attention & ATTENTION_INIT && this.#get(S.VMX_MODE) === 0) return true;
    if (activity !== HALTED) return false;
    return (attention & ATTENTION_NMI) !== 0 && !(this.#get(S.BLOCKING) & BLOCKING_NMI) ||
      (attention & ATTENTION_INTERRUPT) !== 0 && (this.#get(S.RFLAGS) & RFLAGS.IF) !== 0;
  }

  /**
   * Runs up to `budget` ticks. Stops early when the processor halts or shuts down, and when ATTENTION_MACHINE is set (the
   * caller clears it).
   *
   * @returns Ticks used.
   */
  run(budget: number): number {
    this.#done = 0;
    this.#given = 0;
    this.#setRemaining(0);
    const { cpu } = this;
    while (this.#done < budget) {
      const attention = this.#get(S.ATTENTION);
      if (attention !== 0) {
        if (attention & ATTENTION_MACHINE) break;
        if (this.#attend(attention)) {
          this.#done++;
          continue;
        }
      }
      if (this.#get(S.ACTIVITY) !== 0) break;
      if (this.#engine.kind === "reference") this.#runReference(this.#engine.stepper);
      else this.#runInterpreter(this.#engine.handlers, this.#engine.code, budget - this.#done);
    }
    const used = this.#done;
    cpu.set64(S.RETIRED, cpu.get64(S.RETIRED) + BigInt(used));
    this.#done = 0;
    return used;
  }

  #setRemaining(value: number): void {
    this.#i32[this.#at + (S.REMAINING >>> 2)] = value;
  }

  /** Takes one event if one can be taken now; true if it did. */
  #attend(attention: number): boolean {
    const { cpu } = this;
    if (this.#get(S.VMX_MODE) === NON_ROOT) return this.#attendGuest();
    // VMX root operation blocks INIT: it stays pending. A start-up IPI is lost.
    if (attention & ATTENTION_INIT && this.#get(S.VMX_MODE) !== 0) {
      if (cpu.apic.sipiVector >= 0) cpu.apic.takeSipi();
    } else if (attention & ATTENTION_INIT) {
      if (cpu.apic.initPending) {
        cpu.apic.acceptInit();
        initCpu(cpu);
        return true;
      }
      const vector = cpu.apic.takeSipi();
      if (vector >= 0 && this.#get(S.ACTIVITY) === WAIT_FOR_SIPI) {
        startCpu(cpu, vector);
        return true;
      }
    }
    const activity = this.#get(S.ACTIVITY);
    if (activity === SHUTDOWN || activity === WAIT_FOR_SIPI) return false;
    const blocking = this.#get(S.BLOCKING);
    if (attention & ATTENTION_NMI && !(blocking & (BLOCKING_NMI | BLOCKING_MOV_SS))) {
      cpu.apic.takeNmi();
      cpu.set32(S.BLOCKING, blocking | BLOCKING_NMI);
      cpu.set32(S.ACTIVITY, 0);
      deliverEvent(cpu, 2, "nmi", -1);
      return true;
    }
    if (
      attention & ATTENTION_INTERRUPT && this.#get(S.RFLAGS) & RFLAGS.IF &&
      !(blocking & (BLOCKING_STI | BLOCKING_MOV_SS))
    ) {
      if (cpu.apic.pendingVector() < 0) {
        cpu.apic.refreshAttention();
        return false;
      }
      const vector = cpu.apic.acknowledge();
      cpu.set32(S.ACTIVITY, 0);
      deliverEvent(cpu, vector, "external", -1);
      return true;
    }
    return false;
  }

  /** The same for a VMX guest, whose events may be VM exits. */
  #attendGuest(): boolean {
    const { cpu } = this;
    const due = guestEvent(cpu);
    if (due === DUE.NOTHING) {
      settle(cpu);
      if (this.#get(S.ATTENTION) & ATTENTION_INTERRUPT) cpu.apic.refreshAttention();
      return false;
    }
    takeGuestEvent(cpu, due);
    return true;
  }

  /** True when the next instruction must be looked at on its own. */
  #mustStep(): boolean {
    if (stepsForMtf(this.cpu)) return true;
    return (this.#get(S.RFLAGS) & RFLAGS.TF) !== 0 ||
      (this.#get(S.BLOCKING) & (BLOCKING_STI | BLOCKING_MOV_SS)) !== 0 || debugArmed(this.cpu);
  }

  /** Whether somebody wants to hear of each instruction. */
  get #traced(): boolean {
    return (this.cpu.trace.wants & TRACE.instruction) !== 0;
  }
  /** Tells of the instruction at hand, once. */
  #tell(): void {
    const { cpu } = this;
    const time = cpu.now();
    if (time === this.#told) return;
    this.#told = time;
    cpu.trace.emit({ kind: "instruction", cpu: cpu.id, time, rip: cpu.rip });
  }

  #fault(): void {
    this.#done++;
    deliverFault(this.cpu);
    if (this.#get(S.VMX_MODE) === NON_ROOT) afterDelivery(this.cpu);
  }

  /** What follows a stepped instruction that has completed: shadows end, RF clears, traps are taken. */
  #stepped(flagsBefore: number, blockingBefore: number): void {
    const { cpu } = this;
    if (cpu.get32(S.STEPFLAGS) >>> 31 !== 0) {
      // A VM entry: flags, shadows and traps are the guest's now.
      cpu.set32(S.STEPFLAGS, 0);
      return;
    }
    const shadows = blockingBefore & (BLOCKING_STI | BLOCKING_MOV_SS);
    if (shadows !== 0) {
      const now = cpu.get32(S.BLOCKING);
      // A shadow lasts one instruction, also when that one would begin another of its kind (STI after STI).
      cpu.set32(S.BLOCKING, now & ~shadows);
    }
    if (cpu.get32(S.VMX_MODE) === NON_ROOT) this.#guestStepped(flagsBefore);
    afterStep(cpu, flagsBefore, blockingBefore);
  }

  /** A guest's instruction has completed: a trap-like exit comes before its debug trap, which then is saved as pending. */
  #guestStepped(flagsBefore: number): void {
    const { cpu } = this;
    afterDelivery(cpu);
    const pending = this.#get(S.VMX_PENDING);
    if ((pending & TRAP_LIKE) === 0) return;
    const single = (flagsBefore & RFLAGS.TF) !== 0 && (cpu.get32(S.STEPFLAGS) & RFLAGS.TF) === 0;
    if (single && !(cpu.get32(S.BLOCKING) & BLOCKING_MOV_SS)) {
      cpu.set32(S.PENDINGDB, cpu.get32(S.PENDINGDB) | DR6_BS);
    }
    // What waits in PENDINGDB is delivered (or saved) at the boundary, behind the exit.
    cpu.set32(S.STEPFLAGS, cpu.get32(S.STEPFLAGS) | RFLAGS.TF | STEP_HOLD);
  }

  // ---- reference

  #runReference(stepper: ReferenceStepper): void {
    const { cpu } = this;
    const flags = cpu.get32(S.RFLAGS), blocking = cpu.get32(S.BLOCKING);
    const special = (flags & RFLAGS.RF) !== 0 || this.#mustStep();
    if (this.#traced) this.#tell();
    if (special && !(flags & RFLAGS.RF) && instructionBreakpoint(cpu)) return this.#fault();
    if (special) cpu.set32(S.STEPFLAGS, 0);
    this.#given = 1;
    this.#setRemaining(1);
    cpu.set32(S.STEPPING, 1);
    const code = stepper.step(cpu);
    cpu.set32(S.STEPPING, 0);
    this.#given = 0;
    this.#setRemaining(0);
    if (code === EXIT_FAULT) return this.#fault();
    this.#done++;
    if (special) this.#stepped(flags, blocking);
  }

  // ---- interpreter

  #runInterpreter(handlers: Handlers, code: CodeCache, left: number): void {
    const { cpu } = this;
    const i32 = this.#i32, at = this.#at;
    const mode = i32[at + (S.CODEMODE >>> 2)]!;
    const bank = i32[at + (S.TLBBANK >>> 2)]! === cpu.base + S.TLBGUEST ? 1 : 0;
    if (mode !== this.#modes[bank]) {
      // Slot tables are of one code mode, fetch entries do not say of which.
      dropSlotTables(cpu);
      this.#modes[bank] = mode;
    }
    if (this.#traced) {
      this.#tell();
      left = 1;
    }
    const record = code.lookup(cpu);
    const from = i32[at + (S.EXITRECORD >>> 2)]!;
    if (from !== 0) {
      i32[at + (S.EXITRECORD >>> 2)] = 0;
      if (record > 0) code.patch(from, record);
    }
    if (record === LOOKUP_FAULT) return this.#fault();
    const flags = i32[at + (S.RFLAGS >>> 2)]!;
    if (flags & RFLAGS.RF || this.#mustStep()) return this.#step(handlers, code, record);
    if (record === LOOKUP_STEP) {
      return this.#finish(this.#enter(handlers, cpu.base + S.STEP, 1), handlers, code);
    }
    if (left >= BLOCK_MAX) {
      if (this.#regions !== undefined) {
        const given = this.#regions.visit(cpu, record, left, this.#arrived);
        // Where a region's entry wants more than is left, its instructions are interpreted.
        const u16 = this.#u16;
        if (u16[record >>> 1] !== PSEUDO.region || u16[(record + REC.r1) >>> 1]! <= left) {
          const exit = this.#enter(handlers, record, given);
          this.#arrived = exit === EXIT_BUDGET;
          return this.#finish(exit, handlers, code);
        }
      } else return this.#finish(this.#enter(handlers, record, left), handlers, code);
    }
    this.#arrived = false;
    // An instruction that comes again repeats itself: alone it may go on to the end of the slice.
    const rip = i32[at + (S.RIP >>> 2)]!, count = rip === this.#staged ? 1 : left;
    this.#staged = rip;
    this.#finish(this.#enter(handlers, code.stage(cpu, record, count), left), handlers, code);
  }

  /** Runs the engine from `record` and accounts for what it did. */
  #enter(handlers: Handlers, record: number, left: number): number {
    const budget = Math.min(left, BUDGET_MAX);
    const { base } = this.cpu;
    const i32 = this.#i32, at = this.#at;
    const context = i32[at + (S.TLBCTX >>> 2)]!;
    const isFlat = i32[at + (S.CODEMODE >>> 2)] === 2 ||
      (i32[at + ((S.SEGBASE + SEG.CS * 8) >>> 2)] === 0 &&
        i32[at + ((S.SEGLIMIT + SEG.CS * 4) >>> 2)] === -1);
    this.#given = budget;
    this.#setRemaining(budget);
    const exit = handlers.run(
      base,
      record,
      budget,
      context,
      isFlat ? context + FTLB_FETCH : base + S.NOFETCH,
    );
    this.#done += budget - i32[at + (S.REMAINING >>> 2)]!;
    this.#given = 0;
    this.#setRemaining(0);
    if (i32[at + (S.CODEMODE >>> 2)] !== 2) i32[at + (S.RIP >>> 2) + 1] = 0;
    return exit;
  }

  #finish(exit: number, handlers: Handlers, code: CodeCache): void {
    switch (exit) {
      case EXIT_FAULT:
        return this.#fault();
      case EXIT_RETRY:
        return this.#retry(handlers, code);
      case EXIT_NONE:
      case EXIT_BUDGET:
      case EXIT_LOOKUP:
      case EXIT_END:
      case EXIT_STOP:
        return;
      default:
        throw new Error(`The interpreter left with code ${exit}, which it has not`);
    }
  }

  /** Carries out, alone, an instruction whose access is not plain. */
  #retry(handlers: Handlers, code: CodeCache): void {
    const { cpu } = this;
    const record = code.lookup(cpu);
    if (record === LOOKUP_FAULT) return this.#fault();
    const start = record === LOOKUP_STEP ? cpu.base + S.STEP : code.stage(cpu, record, 1);
    cpu.set32(S.STEPPING, 1);
    const exit = this.#enter(handlers, start, 1);
    cpu.set32(S.STEPPING, 0);
    if (exit === EXIT_FAULT) this.#fault();
  }

  /** Carries out one instruction with all that single-stepping asks for. */
  #step(handlers: Handlers, code: CodeCache, record: number): void {
    const { cpu } = this;
    const flags = cpu.get32(S.RFLAGS), blocking = cpu.get32(S.BLOCKING);
    if (!(flags & RFLAGS.RF) && instructionBreakpoint(cpu)) return this.#fault();
    const start = record === LOOKUP_STEP ? cpu.base + S.STEP : code.stage(cpu, record, 1);
    cpu.set32(S.STEPFLAGS, 0);
    cpu.set32(S.STEPPING, 1);
    const before = this.#done;
    const exit = this.#enter(handlers, start, 1);
    cpu.set32(S.STEPPING, 0);
    if (exit === EXIT_FAULT) return this.#fault();
    // A link or a page's end in between used no instruction: the step is still to come.
    if (this.#done === before) return;
    this.#stepped(flags, blocking);
  }
}
