/**
 * The interpreter's handlers: which forms stand in its switch, and the modules of called handlers that are made when a form
 * is first decoded.
 *
 * Room: `hw/engine/`; imports `wasm/` and `hw/isa/`. One instance serves all processors of a machine.
 *
 * @module
 */
import { CPU_BLOCK_BASE, CPU_BLOCK_SIZE, EXIT_END, EXIT_NONE, REC, S, VECTOR_TABLES_BASE } from "../state.ts";
import { type Cpu, FAULT, type Procedures } from "../cpu.ts";
import type { MachineMemory } from "../memory.ts";
import type { Form } from "../isa/form.ts";
import { installPermuteTables } from "../isa/vector.ts";
import { bulkString } from "./bulk.ts";
import { inlineForms } from "./inline_forms.ts";
import { type InlineHandler, PSEUDO, writeCalled, writeInterpreter, type WrittenModule } from "./wasm/interpreter_module.ts";

/** The interpreter's entry: (base, ptr, entry, budget, ctx, fetch) → exit code. */
export type Run = (base: number, ptr: number, entry: number, budget: number, ctx: number, fetch: number) => number;

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
  readonly run: Run;
  /** For a fused handler, the handler of its first instruction alone; otherwise the handler itself. */
  readonly plain: Uint16Array;
  /** Number of called handlers made so far. */
  calledCount = 0;

  readonly #memory: MachineMemory;
  readonly #procedures: Procedures;
  readonly #cpus: readonly Cpu[];
  readonly #table = new WebAssembly.Table({ element: "anyfunc", initial: TABLE_STEP });
  readonly #byForm = new Map<string, HandlerRef>();
  readonly #fused = new Map<number, number>();
  readonly #pending: { key: string; handler: InlineHandler }[] = [];
  readonly #imports: Record<string, (...args: number[]) => number | void>;

  constructor(memory: MachineMemory, cpus: readonly Cpu[], procedures: Procedures) {
    this.#memory = memory;
    this.#cpus = cpus;
    this.#procedures = procedures;
    this.#imports = this.#hostFunctions();
    installPermuteTables(memory.u8, VECTOR_TABLES_BASE);
    const { singles, pairs } = inlineForms(cpus[0]!.model);
    const handlers: InlineHandler[] = singles.map((part) => ({ parts: [part] }));
    singles.forEach((part, i) => {
      this.#byForm.set(keyOf(part.form, part.hasIndex), { handler: PSEUDO.first + i, rare: 0 });
    });
    this.plain = new Uint16Array(PSEUDO.first + singles.length + pairs.length);
    for (let i = 0; i < PSEUDO.first + singles.length; i++) this.plain[i] = i;
    for (const [a, b] of pairs) {
      const first = this.#byForm.get(keyOf(a.form, a.hasIndex))!.handler;
      const second = this.#byForm.get(keyOf(b.form, b.hasIndex))!.handler;
      this.plain[PSEUDO.first + handlers.length] = first;
      this.#fused.set(first * 0x1_0000 + second, PSEUDO.first + handlers.length);
      handlers.push({ parts: [a, b] });
    }
    const written = writeInterpreter(pagesOf(memory), handlers);
    this.run = this.#instantiate(written)["run"] as Run;
  }

  /** The handler of a form. A form met for the first time is only made by {@link flush}, which must come before its record runs. */
  of(form: Form, hasIndex: boolean): HandlerRef {
    const key = keyOf(form, hasIndex);
    const known = this.#byForm.get(key);
    if (known) return known;
    const rare = this.calledCount++;
    if (rare >= TABLE_MAX) throw new Error("Out of handler slots: the instruction table has more forms than a record can name");
    const ref = { handler: PSEUDO.called, rare };
    this.#byForm.set(key, ref);
    this.#pending.push({ key, handler: { parts: [{ form, hasIndex }] } });
    return ref;
  }
  /** The handler that does `first` and then `second`, or 0. */
  fused(first: number, second: number): number {
    return this.#fused.get(first * 0x1_0000 + second) ?? 0;
  }
  /** Makes the called handlers asked for since the last call, in one module. */
  flush(): void {
    if (this.#pending.length === 0) return;
    const batch = this.#pending.splice(0);
    const exports = this.#instantiate(writeCalled(pagesOf(this.#memory), batch.map((entry) => entry.handler)));
    batch.forEach((entry, i) => {
      const { rare } = this.#byForm.get(entry.key)!;
      while (rare >= this.#table.length) this.#table.grow(TABLE_STEP);
      this.#table.set(rare, exports[String(i)] as CallableFunction);
    });
  }

  #instantiate(written: WrittenModule): WebAssembly.Exports {
    for (const name of written.procedures) {
      this.#imports[`proc:${name}`] ??= this.#procedure(name);
    }
    const module = new WebAssembly.Module(written.bytes);
    const instance = new WebAssembly.Instance(module, {
      m: { memory: this.#memory.wasm, table: this.#table },
      f: this.#imports,
    });
    return instance.exports;
  }

  /** A procedure as wasm sees it: 0 to go on, 1 with the exit code in S.EXIT. */
  #procedure(name: string): (base: number) => number {
    const procedure = this.#procedures[name];
    if (!procedure) throw new Error(`The instruction table names procedure "${name}", which does not exist`);
    const cpus = this.#cpus;
    return (base) => {
      const cpu = cpus[((base - CPU_BLOCK_BASE) / CPU_BLOCK_SIZE) | 0]!;
      try {
        const code = procedure(cpu);
        if (code === EXIT_NONE || code === EXIT_END) return 0;
        cpu.set32(S.EXIT, code);
        return 1;
      } catch (error) {
        if (error !== FAULT) throw error;
        // Whoever threw has set S.EXIT: EXIT_FAULT by setFault, EXIT_RETRY by an access that needs a step.
        return 1;
      }
    };
  }

  #hostFunctions(): Record<string, (...args: number[]) => number | void> {
    const cpus = this.#cpus;
    const { i32, u16 } = this.#memory;
    const cpuAt = (base: number) => cpus[((base - CPU_BLOCK_BASE) / CPU_BLOCK_SIZE) | 0]!;
    /** Makes RIP and REMAINING exact for whoever looks during the access. */
    const expose = (base: number, ptr: number, entry: number, budget: number) => {
      const at = base >>> 2;
      const pageLow = i32[at + (S.RIPPAGE >>> 2)]!;
      const low = pageLow + u16[(ptr + REC.pageOffset) >>> 1]!;
      i32[at + (S.RIP >>> 2)] = low;
      i32[at + (S.RIP >>> 2) + 1] = i32[at + (S.RIPPAGE >>> 2) + 1]! +
        ((low | 0) >>> 0 < pageLow >>> 0 ? 1 : 0);
      i32[at + (S.REMAINING >>> 2)] = budget - ((ptr - entry) >>> 5);
    };
    return {
      loadSlow: (base, ptr, entry, budget, low, high, info) => {
        expose(base!, ptr!, entry!, budget!);
        return cpuAt(base!).access.loadSlow(low!, high!, info! & 0xff, info! >>> 8);
      },
      storeSlow: (base, ptr, entry, budget, low, high, info) => {
        expose(base!, ptr!, entry!, budget!);
        const cpu = cpuAt(base!);
        const code = cpu.access.storeSlow(low!, high!, info! & 0xff, info! >>> 8);
        if (code !== EXIT_NONE) cpu.set32(S.EXIT, code);
        return code;
      },
      rmwSlow: (base, ptr, entry, budget, low, high, info) => {
        expose(base!, ptr!, entry!, budget!);
        return cpuAt(base!).access.rmwSlow(low!, high!, info! & 0xff, info! >>> 8);
      },
      spillFlush: (base) => cpuAt(base!).access.spillFlush(),
      segCheck: (base, ptr, entry, budget, offset, seg, info) => {
        expose(base!, ptr!, entry!, budget!);
        const cpu = cpuAt(base!);
        const code = cpu.access.segCheck(seg!, offset!, info! & 0xffff, info! >>> 16 !== 0);
        if (code !== EXIT_NONE) cpu.set32(S.EXIT, code);
        return code;
      },
      bulk: (base, ptr, entry, budget, info) =>
        bulkString(cpuAt(base!), info!, budget! - ((ptr! - entry!) >>> 5)),
    };
  }
}

function keyOf(form: Form, hasIndex: boolean): string {
  return hasIndex ? `${form.key}|i` : form.key;
}

/** Declared size of the imported memory: the smallest that every machine has. */
function pagesOf(memory: MachineMemory): number {
  return memory.buffer.byteLength / 0x1_0000;
}
