/**
 * The interpreter's handlers: which forms stand in its switch, and the modules of called handlers that are made when a form
 * is first decoded.
 *
 * Room: `hw/engine/`; imports `wasm/` and `hw/isa/`. One instance serves all processors of a machine.
 *
 * @module
 */
import * as state from "../state.ts";
import { type Cpu, FAULT, type Procedures } from "../cpu.ts";
import type { MachineMemory } from "../memory.ts";
import type { Form } from "../isa/form.ts";
import { installPermuteTables } from "../isa/vector.ts";
import { bulkString } from "./bulk.ts";
import { missFunctions } from "./misses.ts";
import { handlerKey, type HandlerPlan, handlerPlan } from "./handler_plan.ts";
import { RECORD_SHIFT } from "./wasm/base.ts";
import { QUICK_PROCEDURES } from "./wasm/misses.ts";
import { PROCEDURE_DONE, PROCEDURE_END, PROCEDURE_FAULT } from "./wasm/builder.ts";
import { type InlineHandler, PSEUDO, writeCalled } from "./wasm/interpreter_module.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const { CPU_BLOCK_BASE, CPU_BLOCK_SIZE, EXIT_END, EXIT_NONE, R, REC, S, SEG, VECTOR_TABLES_BASE } = state;

/** The interpreter of one processor: (ptr, limit, ctx, fetch) → exit code. */
type Run = (ptr: number, limit: number, ctx: number, fetch: number) => number;

/** Most instructions that one entry into the interpreter may be given. */
export const BUDGET_MAX = 0x200_0000;

/** How a form is carried out: the handler number of the record, and for `PSEUDO.called` the slot of the table. */
export interface HandlerRef {
  readonly handler: number;
  readonly rare: number;
}

/** Table slots are added in steps of this many. */
const TABLE_STEP = 1024;
/** A record has 16 bits for the slot. */
const TABLE_MAX = 0x1_0000;

/** Makes and keeps handlers. */
export class Handlers {
  /** Number of called handlers made so far. */
  calledCount = 0;

  readonly #memory: MachineMemory;
  readonly #procedures: Procedures;
  readonly #cpus: readonly Cpu[];
  readonly #table = new WebAssembly.Table({ element: "anyfunc", initial: TABLE_STEP });
  readonly #plan: HandlerPlan;
  /** By processor: its interpreter, once it has run. */
  readonly #runs: (Run | undefined)[] = [];
  /** Called handlers by key. */
  readonly #byKey = new Map<string, HandlerRef>();
  /** By form, and there without and with index register: what #byKey says, without making a key. */
  readonly #byForm = new Map<Form, (HandlerRef | undefined)[]>();
  readonly #pending: { rare: number; handler: InlineHandler }[] = [];
  readonly #imports: Record<string, (...args: number[]) => number | void>;

  constructor(memory: MachineMemory, cpus: readonly Cpu[], procedures: Procedures) {
    this.#memory = memory;
    this.#cpus = cpus;
    this.#procedures = procedures;
    this.#imports = this.#hostFunctions();
    for (const name of QUICK_PROCEDURES) {
      if (procedures[name] !== undefined) this.#imports[`proc:${name}`] = this.#procedure(name);
    }
    Object.assign(this.#imports, missFunctions(memory, cpus, this.#imports));
    installPermuteTables(memory.u8, VECTOR_TABLES_BASE);
    this.#plan = handlerPlan(cpus[0]!.model);
  }

  /**
   * Enters the interpreter of the processor whose block is at `base`, at the record `ptr`, for at most `budget` instructions
   * (no more than {@link BUDGET_MAX}).
   *
   * @returns An exit code.
   */
  run(base: number, ptr: number, budget: number, ctx: number, fetch: number): number {
    const run = this.#runs[((base - CPU_BLOCK_BASE) / CPU_BLOCK_SIZE) | 0] ?? this.#makeRun(base);
    return run(ptr, ptr + (budget << RECORD_SHIFT), ctx, fetch);
  }
  /** Each processor has an interpreter of its own, in which the address of its block is a constant; made when it first runs. */
  #makeRun(base: number): Run {
    const pages = this.#memory.buffer.byteLength / 0x1_0000;
    const { module, procedures } = this.#plan.compiled(pages, base);
    const run = this.#instantiate(module, procedures)["run"] as Run;
    this.#runs[((base - CPU_BLOCK_BASE) / CPU_BLOCK_SIZE) | 0] = run;
    return run;
  }

  /** For a fused handler, the handler of its first instruction alone; for one without flags, that with; otherwise the handler itself. */
  get plain(): Uint16Array {
    return this.#plan.plain;
  }
  /** By handler: TRAIT bits. */
  get traits(): Uint8Array {
    return this.#plan.traits;
  }
  /** By handler: the variant that stores no flags, or the handler itself. */
  get flagless(): Uint16Array {
    return this.#plan.flagless;
  }

  /** The handler of a form. A form met for the first time is only made by {@link flush}, which must come before its record runs. */
  of(form: Form, hasIndex: boolean): HandlerRef {
    let pair = this.#byForm.get(form);
    if (!pair) this.#byForm.set(form, pair = [undefined, undefined]);
    return pair[hasIndex ? 1 : 0] ??= this.#find(form, hasIndex);
  }
  #find(form: Form, hasIndex: boolean): HandlerRef {
    const key = handlerKey(form, hasIndex);
    const inline = this.#plan.byKey.get(key);
    if (inline !== undefined) return { handler: inline, rare: 0 };
    const known = this.#byKey.get(key);
    if (known) return known;
    const rare = this.calledCount++;
    if (rare >= TABLE_MAX) {
      throw new Error("Out of handler slots: the instruction table has more forms than a record can name");
    }
    const ref = { handler: PSEUDO.called, rare };
    this.#byKey.set(key, ref);
    this.#pending.push({ rare, handler: { parts: [{ form, hasIndex }] } });
    return ref;
  }
  /** The handler that does `first` and then `second`, or 0. */
  fused(first: number, second: number): number {
    return this.#plan.fused.get(first * 0x1_0000 + second) ?? 0;
  }
  /** Makes the called handlers asked for since the last call, in one module. */
  flush(): void {
    if (this.#pending.length === 0) return;
    const batch = this.#pending.splice(0);
    const written = writeCalled(batch.map((entry) => entry.handler));
    const exports = this.#instantiate(new WebAssembly.Module(written.bytes), written.procedures);
    batch.forEach((entry, i) => {
      const { rare } = entry;
      while (rare >= this.#table.length) this.#table.grow(TABLE_STEP);
      this.#table.set(rare, exports[String(i)] as CallableFunction);
    });
  }

  /** Slots of the table that regions gave back. */
  readonly #freeSlots: number[] = [];

  /** A slot of the table for a compiled region, or −1 when there are no more. */
  takeSlot(): number {
    const free = this.#freeSlots.pop();
    if (free !== undefined) return free;
    if (this.calledCount >= TABLE_MAX / 2) return -1;
    return this.calledCount++;
  }
  /** Gives a slot back, which nothing names any more. */
  freeSlot(slot: number): void {
    this.#table.set(slot, null);
    this.#freeSlots.push(slot);
  }
  /** Puts a region's function in a slot. */
  fillSlot(slot: number, region: CallableFunction): void {
    while (slot >= this.#table.length) this.#table.grow(TABLE_STEP);
    this.#table.set(slot, region);
  }
  /** Instantiates a module of regions. */
  instantiateRegions(bytes: Uint8Array<ArrayBuffer>, procedures: readonly string[]): WebAssembly.Exports {
    return this.#instantiate(new WebAssembly.Module(bytes), procedures);
  }

  #instantiate(module: WebAssembly.Module, procedures: readonly string[]): WebAssembly.Exports {
    for (const name of procedures) {
      this.#imports[`proc:${name}`] ??= this.#procedure(name);
    }
    const instance = new WebAssembly.Instance(module, {
      m: { memory: this.#memory.wasm, table: this.#table },
      f: this.#imports,
    });
    return instance.exports;
  }

  /** A procedure as wasm sees it; gives one of the PROCEDURE_ codes. */
  #procedure(name: string): (base: number) => number {
    const procedure = this.#procedures[name];
    if (!procedure) throw new Error(`The instruction table names procedure "${name}", which does not exist`);
    const cpus = this.#cpus;
    return (base) => {
      const cpu = cpus[((base - CPU_BLOCK_BASE) / CPU_BLOCK_SIZE) | 0]!;
      try {
        const code = procedure(cpu);
        if (code === EXIT_NONE) return PROCEDURE_DONE;
        if (code === EXIT_END) return PROCEDURE_END;
        cpu.set32(S.EXIT, code);
        return PROCEDURE_FAULT;
      } catch (error) {
        if (error !== FAULT) throw error;
        // Whoever threw has set S.EXIT: EXIT_FAULT by setFault, EXIT_RETRY by an access that needs a step.
        return PROCEDURE_FAULT;
      }
    };
  }

  #hostFunctions(): Record<string, (...args: number[]) => number | void> {
    const cpus = this.#cpus;
    const { i32, u16 } = this.#memory;
    const cpuAt = (base: number) => cpus[((base - CPU_BLOCK_BASE) / CPU_BLOCK_SIZE) | 0]!;
    /** Makes RIP and REMAINING exact for whoever looks during the access. */
    const expose = (base: number, ptr: number, limit: number) => {
      const at = base >>> 2;
      const pageLow = i32[at + (S.RIPPAGE >>> 2)]!;
      const low = pageLow + u16[(ptr + REC.pageOffset) >>> 1]!;
      i32[at + (S.RIP >>> 2)] = low;
      i32[at + (S.RIP >>> 2) + 1] = i32[at + (S.RIPPAGE >>> 2) + 1]! +
        ((low | 0) >>> 0 < pageLow >>> 0 ? 1 : 0);
      i32[at + (S.REMAINING >>> 2)] = (limit - ptr) >> RECORD_SHIFT;
    };
    /** The same for a region, which passes the instruction's offset in its page and what is left. */
    const exposeRegion = (base: number, offset: number, left: number) => {
      const at = base >>> 2;
      const pageLow = i32[at + (S.RIPPAGE >>> 2)]!;
      const low = (pageLow + offset) | 0;
      i32[at + (S.RIP >>> 2)] = low;
      i32[at + (S.RIP >>> 2) + 1] = i32[at + (S.RIPPAGE >>> 2) + 1]! + (low >>> 0 < pageLow >>> 0 ? 1 : 0);
      i32[at + (S.REMAINING >>> 2)] = left;
    };
    /** The segment of an access in 64-bit mode: SS too where the handler, made for all four, says DS. */
    const segmentOfRecord = (ptr: number, seg: number): number => {
      if (seg >= SEG.FS || seg === SEG.SS) return seg;
      const register = u16[(ptr + REC.base) >>> 1]!;
      return register === S.GPR + R.RSP * 8 || register === S.GPR + R.RBP * 8 ? SEG.SS : seg;
    };
    return {
      loadSlow: (base, ptr, limit, low, high, info) => {
        expose(base!, ptr!, limit!);
        return cpuAt(base!).access.loadSlow(low!, high!, info! & 0xff, segmentOfRecord(ptr!, info! >>> 8));
      },
      storeSlow: (base, ptr, limit, low, high, info) => {
        expose(base!, ptr!, limit!);
        const cpu = cpuAt(base!);
        const code = cpu.access.storeSlow(low!, high!, info! & 0xff, segmentOfRecord(ptr!, info! >>> 8));
        if (code !== EXIT_NONE) cpu.set32(S.EXIT, code);
        return code;
      },
      rmwSlow: (base, ptr, limit, low, high, info) => {
        expose(base!, ptr!, limit!);
        return cpuAt(base!).access.rmwSlow(low!, high!, info! & 0xff, segmentOfRecord(ptr!, info! >>> 8));
      },
      spillFlush: (base) => cpuAt(base!).access.spillFlush(),
      segCheck: (base, ptr, limit, offset, seg, info) => {
        expose(base!, ptr!, limit!);
        const cpu = cpuAt(base!);
        const code = cpu.access.segCheck(seg!, offset!, info! & 0xffff, info! >>> 16 !== 0);
        if (code !== EXIT_NONE) cpu.set32(S.EXIT, code);
        return code;
      },
      regionLoad: (base, offset, left, low, high, info) => {
        exposeRegion(base!, offset!, left!);
        return cpuAt(base!).access.loadSlow(low!, high!, info! & 0xff, info! >>> 8);
      },
      regionStore: (base, offset, left, low, high, info) => {
        exposeRegion(base!, offset!, left!);
        const cpu = cpuAt(base!);
        const code = cpu.access.storeSlow(low!, high!, info! & 0xff, info! >>> 8);
        if (code !== EXIT_NONE) cpu.set32(S.EXIT, code);
        return code;
      },
      regionRmw: (base, offset, left, low, high, info) => {
        exposeRegion(base!, offset!, left!);
        return cpuAt(base!).access.rmwSlow(low!, high!, info! & 0xff, info! >>> 8);
      },
      regionSegCheck: (base, offset, left, address, seg, info) => {
        exposeRegion(base!, offset!, left!);
        const cpu = cpuAt(base!);
        const code = cpu.access.segCheck(seg!, address!, info! & 0xffff, info! >>> 16 !== 0);
        if (code !== EXIT_NONE) cpu.set32(S.EXIT, code);
        return code;
      },
      bulk: (base, ptr, limit, info) => bulkString(cpuAt(base!), info!, (limit! - ptr!) >> RECORD_SHIFT),
    };
  }
}
