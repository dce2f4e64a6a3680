/**
 * Gates: TypeScript as machine code (DESIGN 2.5).
 *
 * Room: `hw/`; imports the processor's face and state. Knows no kernel.
 *
 *     GATE n     starts a continuation of the function registered as n: its id goes to R15, execution goes on
 *                with the next instruction, which is a RESUME
 *     RESUME     carries out one step of the continuation whose id is in R15
 *
 * A gate's body is a generator ({@link Exec}). Each `yield` is an instruction boundary: the RESUME has retired, RIP still
 * points at it, and whatever a processor does between two instructions (an interrupt, another processor's turn) happens
 * there. When the body returns, R15 gets the value back that it had at GATE, RAX the result if there is one, and RIP moves past
 * RESUME.
 *
 * An operation that can fault tries at once. If it fails, the step ends as a faulting instruction does: the exception is
 * delivered with RIP at RESUME and the id in R15; whoever handles it may save and restore these as it likes; when that RESUME
 * comes up again, the operation is tried again and the body never knows.
 *
 * What keeps a guest out (numbered, for the tests):
 *
 * 1. An id is 64 bits of a keyed stream; unknown and stale ones are #GP(0).
 * 2. A continuation runs only at the CPL and in the space (CR3 root, EPT root) in which it was last; else #GP(0).
 * 3. A gate is entered only at the CPL and in the world (EPT root) it was registered for, and in its address space if it has one;
 *    else #GP(0). A number that no gate has is #UD.
 * 4. At most {@link CONTINUATIONS_MAX} continuations exist, of which programs and guests have a part, and one space a part of that; the
 *    next GATE is #GP(0).
 * 5. An exception out of a body is the simulated kernel's bug: the machine stops with a panic, the host goes on.
 *
 * Long: a continuation's life and the operations that end its steps are one mechanism.
 *
 * @module
 */
import { type Cpu, FAULT, type Procedures, VECTOR } from "./cpu.ts";
import type { Gva, Hpa } from "./address.ts";
import { GateIds } from "./gate_ids.ts";
import { EXIT_END, EXIT_FAULT, EXIT_RETRY, GATE_PAGE, R, RFLAGS, S } from "./state.ts";
import { isInstructionExitPending } from "./vmx/contract.ts";

/** Most continuations that may exist at once in a machine. */
export const CONTINUATIONS_MAX = 0x1_0000;
/** Most of them that are not the host kernel's (CPL 0, in no guest): it can always be entered. */
export const GUESTS_CONTINUATIONS_MAX = 0xc000;
/** Most of them in one space, the host kernel's apart. */
export const SPACE_CONTINUATIONS_MAX = 0x1000;
/** What stands in the displacement of a RESUME. */
export const RESUME_NUMBER: number = -1;
/** Bytes in a GATE or RESUME. */
export const GATE_BYTES = 7;

/** What a body yields: nothing (an instruction boundary), or the mark of a failed operation; only {@link GateCpu}'s operations yield those. */
export type Step = void | symbol;

/**
 * A computation that may end instructions: the generators that gates are made of. It is used at once, as the operand
 * of `yield*`; keeping one and starting another first is an error, since operations that succeed reuse one object.
 */
export type Exec<T> = Iterable<Step, T, void>;

/** A gate's body. A result goes to RAX. */
export type GateBody = (cpu: GateCpu) => Exec<bigint | number | void>;

/** What a body throws to stop the machine with a message. Anything else that it throws does so too. */
export class KernelPanic extends Error {
  /** For printing. */
  override name: string = "KernelPanic";
}

/** Thrown out of an operation that had faulted and that {@link GateTable.abort} ended. */
export class OperationAborted extends Error {
  /** For printing. */
  override name: string = "OperationAborted";
}

/**
 * Where code runs: the address space, and the world that it is in. A guest's addresses of page tables are its own numbers, so that without the
 * EPT root one guest's space could be taken for another's, or for the host's.
 */
export interface GateSpace {
  /** CR3 without its low 12 bits. */
  readonly root: bigint;
  /** Physical address of the EPT root in force; 0 outside non-root operation, or in it without EPT. */
  readonly ept: number;
}

/** How a gate is registered. */
export interface GateOptions {
  /** For people: shown in panics. */
  readonly name: string;
  /** Privilege level at which the gate may be entered, 0 … 3. */
  readonly cpl: number;
  /** What runs. */
  readonly body: GateBody;
  /** EPT root of the world in which the gate may be entered. Default: 0, the host's. */
  readonly ept?: number;
  /** The only address space in which the gate may be entered, as CR3 has it; default: any. */
  readonly root?: bigint;
  /** The space with whose end the gate ends too ({@link GateTable.dropAddressSpace}); default: none. */
  readonly owner?: GateSpace;
}

/** What a table of gates needs from its machine. */
export interface GateTableOptions {
  /** Words that key the continuations' ids, from the machine's seed. */
  readonly key: readonly number[];
  /**
   * The procedures of the instruction table, for {@link GateCpu.instruction}.
   *
   * @internal
   */
  readonly procedures: Procedures;
  /** Called when a body throws: the machine must stop before the processor's next instruction. */
  readonly onPanic: (cpu: Cpu, error: unknown, gate: string) => void;
}

/** A continuation's life. */
interface Continuation {
  readonly idLow: number;
  readonly idHigh: number;
  readonly gate: GateOptions;
  readonly cpu: GateCpu;
  readonly body: Iterator<Step, bigint | number | void, void>;
  /** R15 at GATE, given back at the end. */
  readonly r15Low: number;
  readonly r15High: number;
  readonly cpl: number;
  /** CR3 without its low 12 bits, the address space it may be resumed in. */
  rootLow: number;
  rootHigh: number;
  /** EPT root of the world it may be resumed in. */
  ept: number;
  /** While a step runs; a second RESUME inside it can only come from a host tool that runs the machine from a body. */
  running: boolean;
}

/** The gates of a machine and their continuations. */
export class GateTable {
  readonly #options: GateTableOptions;
  readonly #gates: (GateOptions | undefined)[] = [];
  /** Numbers whose gates have ended. */
  readonly #freeNumbers: number[] = [];
  /** By the low 53 bits of the id. */
  readonly #continuations = new Map<number, Continuation>();
  readonly #ids: GateIds;
  /** Counters: continuations started, steps carried out. */
  readonly counters = { gateEntries: 0, gateSteps: 0, gateFaults: 0 };

  /** Made by the machine's builder. */
  constructor(options: GateTableOptions) {
    this.#options = options;
    this.#ids = new GateIds(options.key);
  }

  /** Registers a gate; gives the number that GATE names it by. */
  register(gate: GateOptions): number {
    if (!Number.isInteger(gate.cpl) || gate.cpl < 0 || gate.cpl > 3) {
      throw new RangeError(
        `Cannot register gate "${gate.name}": its privilege level is ${gate.cpl}, not 0 to 3`,
      );
    }
    const free = this.#freeNumbers.pop();
    if (free === undefined) return this.#gates.push(gate) - 1;
    this.#gates[free] = gate;
    return free;
  }

  /** Gates that are registered. */
  get registered(): number {
    return this.#gates.length - this.#freeNumbers.length;
  }

  /** The gates that are registered, for people: name, and the space with which one ends. */
  describeGates(): string[] {
    return this.#gates.flatMap((gate) => {
      if (gate === undefined) return [];
      const { owner } = gate;
      const until = owner === undefined
        ? ""
        : ` (until the end of CR3 0x${owner.root.toString(16)}, EPT 0x${owner.ept.toString(16)})`;
      return [gate.name + until];
    });
  }

  /** Continuations that have not ended. */
  get live(): number {
    return this.#continuations.size;
  }

  /** The continuations that have not ended, oldest first, for people: gate, CPL, space. */
  describeLive(): string[] {
    return [...this.#continuations.values()].map((c) =>
      `${c.gate.name} (CPL ${c.cpl}, CR3 0x${rootOf(c.rootLow, c.rootHigh).toString(16)}, EPT 0x${
        c.ept.toString(16)
      })`
    );
  }

  /** Forgets a continuation, as when its thread is gone. Its id is stale from now on. Returns whether there was one. */
  drop(id: bigint): boolean {
    const found = this.#find(Number(id & 0xffff_ffffn), Number(id >> 32n));
    return found !== undefined && this.#continuations.delete(keyOf(found.idLow, found.idHigh));
  }

  /**
   * Forgets every continuation of the address space with this root, as when it is gone and its table pages may become another's, and the
   * gates that it owns.
   *
   * @param root Physical address, as in CR3.
   * @param ept EPT root of its world.
   */
  dropAddressSpace(root: Hpa, ept = 0): void {
    const low = (root & ~0xfff) | 0, high = Math.floor(root / 0x1_0000_0000);
    for (const [key, c] of this.#continuations) {
      // One that is on its way to another space survives this one.
      if (c.cpu.rebindNext) continue;
      if (c.ept === ept && c.rootLow === low && c.rootHigh === high) this.#continuations.delete(key);
    }
    const name = BigInt(root) & ~0xfffn;
    this.#endGates((owner) => owner.ept === ept && owner.root === name);
  }

  /** Forgets every continuation and every owned gate of a world, as when its EPT root is gone and may become another's. */
  dropWorld(ept: Hpa): void {
    for (const [key, c] of this.#continuations) {
      if (c.ept === ept) this.#continuations.delete(key);
    }
    this.#endGates((owner) => owner.ept === ept);
  }

  #endGates(ends: (owner: GateSpace) => boolean): void {
    for (const [number, gate] of this.#gates.entries()) {
      if (gate?.owner === undefined || !ends(gate.owner)) continue;
      this.#gates[number] = undefined;
      this.#freeNumbers.push(number);
    }
  }

  /**
   * Ends the operation that the continuation waits to try again: at its next RESUME the operation throws
   * {@link OperationAborted} inside the body. What `pcb_onfault` is to a kernel in C. Only a continuation that said
   * so ({@link GateCpu.mayAbort}) can be treated like that; returns whether this one was.
   */
  abort(id: bigint): boolean {
    const found = this.#find(Number(id & 0xffff_ffffn), Number(id >> 32n));
    if (found === undefined || !found.cpu.mayAbort) return false;
    found.cpu.abortPending = true;
    return true;
  }

  /**
   * The GATE and RESUME instructions, as the procedure of the UD0 row: `number` is the displacement.
   *
   * @internal
   */
  execute(cpu: Cpu, numberLow: number, numberHigh: number): number {
    if (numberLow === 0xffff_ffff && numberHigh === 0xffff_ffff) return this.#resume(cpu);
    const gate = numberHigh === 0 ? this.#gates[numberLow] : undefined;
    if (gate === undefined) cpu.raise(VECTOR.UD);
    return this.#enter(cpu, gate);
  }

  #enter(cpu: Cpu, gate: GateOptions): number {
    const rootLow = cpu.get32(S.CR3) & ~0xfff, rootHigh = cpu.get32(S.CR3 + 4), ept = worldOf(cpu);
    if (
      cpu.get32(S.CPL) !== gate.cpl || (gate.ept ?? 0) !== ept ||
      (gate.root !== undefined && gate.root !== rootOf(rootLow, rootHigh))
    ) cpu.raise(VECTOR.GP, 0);
    if (!this.#hasRoom(gate.cpl, rootLow, rootHigh, ept)) cpu.raise(VECTOR.GP, 0);
    const ids = this.#ids;
    do ids.draw(); while (this.#continuations.has(keyOf(ids.low, ids.high)));
    const context = new GateCpu(cpu, this, this.#options.procedures);
    const r15 = S.GPR + R.R15 * 8;
    const continuation: Continuation = {
      idLow: ids.low,
      idHigh: ids.high,
      gate,
      cpu: context,
      body: { next: () => start(continuation) },
      r15Low: cpu.get32(r15),
      r15High: cpu.get32(r15 + 4),
      cpl: gate.cpl,
      rootLow,
      rootHigh,
      ept,
      running: false,
    };
    this.#continuations.set(keyOf(ids.low, ids.high), continuation);
    cpu.set64Halves(r15, ids.low, ids.high);
    this.counters.gateEntries++;
    return EXIT_END;
  }

  #resume(cpu: Cpu): number {
    const r15 = S.GPR + R.R15 * 8;
    const c = this.#find(cpu.get32(r15), cpu.get32(r15 + 4));
    if (c === undefined || c.running || c.cpl !== cpu.get32(S.CPL)) cpu.raise(VECTOR.GP, 0);
    if (c.cpu.rebindNext) {
      c.cpu.rebindNext = false;
      bind(c, cpu);
    } else if (
      c.rootLow !== (cpu.get32(S.CR3) & ~0xfff) || c.rootHigh !== cpu.get32(S.CR3 + 4) ||
      c.ept !== worldOf(cpu)
    ) cpu.raise(VECTOR.GP, 0);
    this.counters.gateSteps++;
    const ripLow = cpu.get32(S.RIP), ripHigh = cpu.get32(S.RIP + 4);
    c.running = true;
    c.cpu.cpu = cpu;
    let result: IteratorResult<Step, bigint | number | void>;
    try {
      result = c.body.next();
    } catch (error) {
      this.#continuations.delete(keyOf(c.idLow, c.idHigh));
      this.#options.onPanic(cpu, error, c.gate.name);
      return EXIT_END;
    } finally {
      c.running = false;
    }
    if (c.cpu.rebind) {
      c.cpu.rebind = false;
      bind(c, cpu);
    }
    if (result.done === true) {
      this.#continuations.delete(keyOf(c.idLow, c.idHigh));
      cpu.set64Halves(r15, c.r15Low, c.r15High);
      if (result.value !== undefined) cpu.setGpr(R.RAX, BigInt(result.value));
      return EXIT_END;
    }
    if (typeof result.value === "symbol") {
      this.counters.gateFaults++;
      if (result.value === RETRY) return EXIT_RETRY;
      throw result.value;
    }
    // RIP stands behind RESUME (unless the step moved it); the body is not done, so RESUME comes again.
    if (cpu.get32(S.RIP) === ripLow && cpu.get32(S.RIP + 4) === ripHigh) {
      const low = ripLow - cpu.get32(S.ILEN);
      cpu.set64Halves(S.RIP, low, low < 0 ? ripHigh - 1 : ripHigh);
    }
    return EXIT_END;
  }

  /** Whether one continuation more may start in a space. */
  #hasRoom(cpl: number, rootLow: number, rootHigh: number, ept: number): boolean {
    if (cpl === 0 && ept === 0) return this.#continuations.size < CONTINUATIONS_MAX;
    if (this.#continuations.size < SPACE_CONTINUATIONS_MAX) return true;
    let all = 0, here = 0;
    for (const c of this.#continuations.values()) {
      if (c.cpl === 0 && c.ept === 0) continue;
      all++;
      if (c.rootLow === rootLow && c.rootHigh === rootHigh && c.ept === ept) here++;
    }
    return all < GUESTS_CONTINUATIONS_MAX && here < SPACE_CONTINUATIONS_MAX;
  }

  #find(low: number, high: number): Continuation | undefined {
    const c = this.#continuations.get(keyOf(low, high));
    return c !== undefined && c.idLow === low && c.idHigh === high ? c : undefined;
  }
}

/** A key of the map: an exact number, so that no id is boxed. */
function keyOf(low: number, high: number): number {
  return (high & 0x1f_ffff) * 0x1_0000_0000 + low;
}

/** Binds a continuation to the space that a processor is in. */
function bind(c: Continuation, cpu: Cpu): void {
  c.rootLow = cpu.get32(S.CR3) & ~0xfff;
  c.rootHigh = cpu.get32(S.CR3 + 4);
  c.ept = worldOf(cpu);
}

/** EPT root of the world that a processor is in. */
function worldOf(cpu: Cpu): number {
  if (cpu.get32(S.VMX_EPT) === 0) return 0;
  return ((cpu.get32(S.VMX_EPTP) & ~0xfff) >>> 0) + (cpu.get32(S.VMX_EPTP + 4) >>> 0) * 0x1_0000_0000;
}

/** CR3's address of the root table. */
function rootOf(low: number, high: number): bigint {
  return BigInt(high >>> 0) << 32n | BigInt(low >>> 0);
}

/** First step: makes the generator only now, inside the machine's guard against what a body throws. */
function start(c: Continuation): IteratorResult<Step, bigint | number | void> {
  const iterator = c.gate.body(c.cpu)[Symbol.iterator]();
  (c.body as { next: () => IteratorResult<Step, bigint | number | void> }).next = () => iterator.next();
  return iterator.next();
}

/** A step that ends with EXIT_RETRY. */
const RETRY: unique symbol = Symbol("retry");

const scratch64 = new BigUint64Array(1);
const scratch32 = new Uint32Array(scratch64.buffer);

/** The result of an operation that succeeded at once: an iterable, its iterator and its result in one, made once. */
class Done<T> implements Iterable<Step, T, void>, Iterator<Step, T, void> {
  readonly done = true;
  value: T;
  constructor(value: T) {
    this.value = value;
  }
  [Symbol.iterator](): this {
    return this;
  }
  next(): { done: true; value: T } {
    return this;
  }
}

/** The computation that is over before it begins: what functions give that seldom have to wait, and need no generator when they do not. */
export const NOTHING: Exec<void> = new Done<void>(undefined);

/** Results on their way to the `yield*` that waits for them: it has them before anything else runs. */
const doneNumber = new Done(0), doneBigint = new Done(0n), doneBytes = new Done(new Uint8Array(0));

/** Host address of a page that is always zero (see `CPU_BLOCK_BASE`). */
const ZERO_PAGE = 0x1000;

/** Bytes from an address to the end of its page. */
function pageRest(va: Gva): number {
  return 4096 - Number(va & 0xfffn);
}

/**
 * The processor as a gate's body sees it. Operations on memory go at the current privilege level, through translation, and
 * fault as an instruction would; operations named for instructions are those instructions.
 */
export class GateCpu {
  /** The processor that carries out this step; may be another one after a `yield`. */
  cpu: Cpu;
  /** The table that this continuation is in. */
  readonly gates: GateTable;
  /** Set by the body around operations that may be given up (`pcb_onfault`). */
  mayAbort = false;
  /** Set by {@link GateTable.abort}. */
  abortPending = false;
  /** Tells the table that this step moved to another address space and takes its continuation along. */
  rebind = false;
  /**
   * Tells the table that the next RESUME may come in another space than this step's, and the continuation then belongs there: for a body that
   * asks whoever is above it to be moved. Set right before the call that does it.
   */
  rebindNext = false;
  readonly #procedures: Procedures;

  /** Made by the table, one per continuation. */
  constructor(cpu: Cpu, gates: GateTable, procedures: Procedures) {
    this.cpu = cpu;
    this.gates = gates;
    this.#procedures = procedures;
  }

  /** The space that this step runs in. */
  get space(): GateSpace {
    return {
      root: rootOf(this.cpu.get32(S.CR3) & ~0xfff, this.cpu.get32(S.CR3 + 4)),
      ept: worldOf(this.cpu),
    };
  }

  // ---- memory

  /** Reads a byte. */
  load8(va: Gva): Exec<number> {
    return this.#load(va, 1);
  }
  /** Reads 16 bits. */
  load16(va: Gva): Exec<number> {
    return this.#load(va, 2);
  }
  /** Reads 32 bits, unsigned. */
  load32(va: Gva): Exec<number> {
    return this.#load(va, 4);
  }
  /** Reads 64 bits, unsigned. */
  load64(va: Gva): Exec<bigint> {
    try {
      doneBigint.value = this.#read64(va);
      return doneBigint;
    } catch (error) {
      return this.#again(error, () => this.#read64(va));
    }
  }
  /** Writes a byte. */
  store8(va: Gva, value: number): Exec<void> {
    return this.#store(va, 1, value, 0);
  }
  /** Writes 16 bits. */
  store16(va: Gva, value: number): Exec<void> {
    return this.#store(va, 2, value, 0);
  }
  /** Writes 32 bits. */
  store32(va: Gva, value: number): Exec<void> {
    return this.#store(va, 4, value, 0);
  }
  /** Writes 64 bits. */
  store64(va: Gva, value: bigint): Exec<void> {
    scratch64[0] = value;
    return this.#store(va, 8, scratch32[0]!, scratch32[1]!);
  }
  /** Exchanges 64 bits (`lock xchg`): writes `value`, gives what was there. */
  xchg64(va: Gva, value: bigint): Exec<bigint> {
    return this.#readModifyWrite(va, () => value);
  }
  /** Compares and exchanges 64 bits (`lock cmpxchg`): writes `value` if `expected` is there; gives what was there. */
  cmpxchg64(va: Gva, expected: bigint, value: bigint): Exec<bigint> {
    return this.#readModifyWrite(va, (old) => old === expected ? value : undefined);
  }
  /** Reads `length` bytes into a fresh array, in pieces that end at page borders; each piece is all or nothing. */
  loadBytes(va: Gva, length: number): Exec<Uint8Array<ArrayBuffer>> {
    return this.loadInto(va, new Uint8Array(length));
  }
  /** As {@link loadBytes}, into an array that there is; gives it back. */
  loadInto(va: Gva, out: Uint8Array<ArrayBuffer>): Exec<Uint8Array<ArrayBuffer>> {
    if (out.length === 0 || out.length > pageRest(va)) return this.#loadPieces(va, out);
    try {
      this.#pullInto(va, out, 0, out.length);
      doneBytes.value = out;
      return doneBytes;
    } catch (error) {
      return this.#again(error, () => {
        this.#pullInto(va, out, 0, out.length);
        return out;
      });
    }
  }
  *#loadPieces(va: Gva, out: Uint8Array<ArrayBuffer>): Exec<Uint8Array<ArrayBuffer>> {
    for (let done = 0; done < out.length;) {
      const from = (va + BigInt(done)) as Gva, to = done;
      const piece = Math.min(pageRest(from), out.length - done);
      yield* this.#run(() => this.#pullInto(from, out, to, piece));
      done += piece;
    }
    return out;
  }
  /** Writes bytes, in pieces that end at page borders; each piece is all or nothing. */
  *storeBytes(va: Gva, bytes: Uint8Array): Exec<void> {
    for (let done = 0; done < bytes.length;) {
      const to = (va + BigInt(done)) as Gva;
      const piece = bytes.subarray(done, done + pageRest(to));
      yield* this.#run(() => {
        this.cpu.memory.u8.set(piece, GATE_PAGE);
        this.#push(to, GATE_PAGE, piece.length);
      });
      done += piece.length;
    }
  }
  /** Writes zeros, in pieces that end at page borders. */
  *zeroBytes(va: Gva, length: number): Exec<void> {
    for (let done = 0; done < length;) {
      const to = (va + BigInt(done)) as Gva;
      const piece = Math.min(pageRest(to), length - done);
      yield* this.#run(() => this.#push(to, ZERO_PAGE, piece));
      done += piece;
    }
  }
  /** Copies bytes that do not overlap, in pieces that end at page borders of either side. */
  *copyBytes(to: Gva, from: Gva, length: number): Exec<void> {
    for (let done = 0; done < length;) {
      const target = (to + BigInt(done)) as Gva, source = (from + BigInt(done)) as Gva;
      const piece = Math.min(pageRest(target), pageRest(source), length - done);
      yield* this.#run(() => this.#push(target, this.#pull(source, piece), piece));
      done += piece;
    }
  }

  // ---- registers

  /** General-purpose register `n` (see `R`). */
  gpr(n: number): bigint {
    return this.cpu.gpr(n);
  }
  /** Sets general-purpose register `n`. */
  setGpr(n: number, value: bigint): void {
    this.cpu.setGpr(n, value);
  }

  // ---- instructions

  /**
   * `call target`: pushes the address of this continuation's RESUME and goes on at machine code, which comes back with RET. What it does
   * to R15 and the stack decides which continuation goes on: so threads are switched.
   */
  *call(target: Gva): Exec<void> {
    yield* this.#run(() => {
      const cpu = this.cpu;
      const resume = cpu.rip - BigInt(cpu.get32(S.ILEN));
      const rsp = BigInt.asUintN(64, cpu.gpr(R.RSP) - 8n);
      scratch64[0] = resume;
      const low = scratch32[0]!, high = scratch32[1]!;
      split(rsp as Gva);
      cpu.access.write(scratch32[0]!, scratch32[1]!, 8, low, high);
      cpu.setGpr(R.RSP, rsp);
      cpu.rip = target;
    });
    yield;
  }
  /** Whether RFLAGS.IF is set. */
  get interruptsEnabled(): boolean {
    return (this.cpu.get32(S.RFLAGS) & RFLAGS.IF) !== 0;
  }
  /**
   * Sets or clears RFLAGS.IF, as STI and CLI do at this privilege level; takes effect at the next boundary.
   *
   * @throws {KernelPanic} where the current level is above IOPL: no body asks for that.
   */
  setInterrupts(enabled: boolean): void {
    const { cpu } = this;
    const flags = cpu.get32(S.RFLAGS);
    if (cpu.cpl > ((flags & RFLAGS.IOPL) >>> 12)) this.panic("A body changed RFLAGS.IF where it may not");
    cpu.set32(S.RFLAGS, enabled ? flags | RFLAGS.IF : flags & ~RFLAGS.IF);
  }
  /**
   * Carries out the procedure of a privileged instruction by its name in the instruction table, then ends the step. It
   * faults as that instruction would, with #GP(0) unless CPL = 0.
   */
  *instruction(name: string, ...args: bigint[]): Exec<void> {
    yield* this.perform(name, ...args);
    yield;
  }
  /** As {@link instruction}, but the step goes on: what follows happens in the same instruction boundary. */
  *perform(name: string, ...args: bigint[]): Exec<void> {
    yield* this.#carryOut(name, args);
  }
  /**
   * As {@link perform}, for instructions that cannot fault here: a plain call.
   *
   * @throws {KernelPanic} when it does fault.
   */
  performNow(name: string, ...args: bigint[]): void {
    if (this.cpu.cpl !== 0) this.panic(`${name} was carried out at CPL ${this.cpu.cpl}`);
    this.#now(name, args);
  }
  #now(name: string, args: readonly bigint[]): void {
    const procedure = this.#procedures[name];
    if (procedure === undefined) throw new TypeError(`No procedure is named "${name}"`);
    const { cpu } = this;
    args.forEach((value, i) => cpu.set64(S.ARG + i * 8, BigInt.asUintN(64, value)));
    let exit: number;
    try {
      exit = procedure(cpu);
    } catch (error) {
      if (error === FAULT) this.panic(`${name} faulted where it cannot`);
      throw error;
    }
    if (exit === EXIT_FAULT || exit === EXIT_RETRY) this.panic(`${name} faulted where it cannot`);
  }
  /**
   * `rdtsc`, which any privilege level may execute unless it was told not to.
   *
   * @throws {KernelPanic} when it faults or exits: no kernel here sets CR4.TSD for its own programs.
   */
  rdtsc(): bigint {
    this.#now("rdtsc", []);
    return this.cpu.arg(0);
  }
  /** `mov cr3, value`. The continuation goes along into the new address space. */
  *loadCr3(value: bigint): Exec<void> {
    this.rebind = true;
    yield* this.instruction("writeCr", 3n, value);
  }
  /** `in al, port`. */
  *inb(port: number): Exec<number> {
    const here = yield* this.#carryOut("in", [BigInt(port), 1n]);
    const value = here ? this.cpu.argLow(0) : Number(this.cpu.gpr(R.RAX) & 0xffn);
    yield;
    return value;
  }
  /** `in eax, port`. */
  *inl(port: number): Exec<number> {
    const here = yield* this.#carryOut("in", [BigInt(port), 4n]);
    const value = here ? this.cpu.argLow(0) : Number(this.cpu.gpr(R.RAX) & 0xffff_ffffn);
    yield;
    return value >>> 0;
  }
  /** `out port, al`. */
  *outb(port: number, value: number): Exec<void> {
    yield* this.#carryOut("out", [BigInt(port), 1n, BigInt(value & 0xff)]);
    yield;
  }
  /** `out port, ax`. */
  *outw(port: number, value: number): Exec<void> {
    yield* this.#carryOut("out", [BigInt(port), 2n, BigInt(value & 0xffff)]);
    yield;
  }
  /** `hlt`: the processor stands still until an interrupt that it takes; then the body goes on. */
  *hlt(): Exec<void> {
    yield* this.#carryOut("hlt", []);
    yield;
  }
  /** Result of the instruction that {@link instruction} carried out last in this step: argument slot 0. */
  get result(): bigint {
    return this.cpu.arg(0);
  }

  /** Stops the machine with a message. */
  panic(message: string): never {
    throw new KernelPanic(message);
  }

  // ---- the parts

  /** Host address of a copy, in GATEPAGE, of bytes of one page. */
  #pull(from: Gva, bytes: number): number {
    split(from);
    this.cpu.access.readBytes(scratch32[0]!, scratch32[1]!, GATE_PAGE, bytes);
    return GATE_PAGE;
  }

  #pullInto(from: Gva, out: Uint8Array, to: number, bytes: number): void {
    const at = this.#pull(from, bytes);
    out.set(this.cpu.memory.u8.subarray(at, at + bytes), to);
  }

  #push(to: Gva, host: number, bytes: number): void {
    split(to);
    this.cpu.access.writeBytes(scratch32[0]!, scratch32[1]!, host, bytes);
  }

  #readModifyWrite(va: Gva, change: (old: bigint) => bigint | undefined): Exec<bigint> {
    const attempt = () => {
      split(va);
      const low = scratch32[0]!, high = scratch32[1]!;
      const { access } = this.cpu;
      // A locked access is a write, whatever it finds.
      access.probe(low, high, 8, true);
      const old = this.#read64(va);
      const value = change(old);
      if (value !== undefined) {
        scratch64[0] = value;
        access.write(low, high, 8, scratch32[0]!, scratch32[1]!);
      }
      return old;
    };
    try {
      doneBigint.value = attempt();
      return doneBigint;
    } catch (error) {
      return this.#again(error, attempt);
    }
  }

  #load(va: Gva, size: 1 | 2 | 4): Exec<number> {
    try {
      split(va);
      doneNumber.value = this.cpu.access.read(scratch32[0]!, scratch32[1]!, size) >>> 0;
      return doneNumber;
    } catch (error) {
      return this.#again(error, () => {
        split(va);
        return this.cpu.access.read(scratch32[0]!, scratch32[1]!, size) >>> 0;
      });
    }
  }

  #read64(va: Gva): bigint {
    split(va);
    const access = this.cpu.access;
    scratch32[0] = access.read(scratch32[0]!, scratch32[1]!, 8);
    scratch32[1] = access.high;
    return scratch64[0]!;
  }

  #store(va: Gva, size: 1 | 2 | 4 | 8, low: number, high: number): Exec<void> {
    try {
      split(va);
      this.cpu.access.write(scratch32[0]!, scratch32[1]!, size, low, high);
      return NOTHING;
    } catch (error) {
      return this.#again(error, () => {
        split(va);
        this.cpu.access.write(scratch32[0]!, scratch32[1]!, size, low, high);
      });
    }
  }

  /**
   * Carries out a privileged instruction by its procedure. In VMX non-root operation it may be a VM exit, with instruction length 0: the
   * hypervisor carries the instruction out and resumes the guest where it was, at RESUME, and the body goes on behind it. (A result is then
   * in RAX, as that of IN.)
   *
   * @returns false when a hypervisor has carried it out.
   */
  *#carryOut(name: string, args: readonly bigint[]): Exec<boolean> {
    const procedure = this.#procedures[name];
    if (procedure === undefined) throw new TypeError(`No procedure is named "${name}"`);
    for (;;) {
      const cpu = this.cpu;
      let stopped: Step;
      try {
        if (cpu.cpl !== 0) cpu.raise(VECTOR.GP, 0);
        args.forEach((value, i) => cpu.set64(S.ARG + i * 8, BigInt.asUintN(64, value)));
        const exit = procedure(cpu);
        if (exit !== EXIT_RETRY && exit !== EXIT_FAULT) return true;
        stopped = exit === EXIT_RETRY ? RETRY : FAULT;
      } catch (error) {
        if (typeof error !== "symbol") throw error;
        stopped = error;
      }
      const emulated = stopped === FAULT && isInstructionExitPending(cpu);
      if (emulated) cpu.set32(S.ILEN, 0);
      yield stopped;
      if (emulated) return false;
      this.#abortIfAsked();
    }
  }

  /** @throws {OperationAborted} when the table's owner gave the operation up. */
  #abortIfAsked(): void {
    if (!this.abortPending) return;
    this.abortPending = false;
    throw new OperationAborted("The operation was given up after a fault");
  }

  /** Runs an operation until it succeeds. */
  #run(attempt: () => void): Exec<void> {
    try {
      attempt();
      return NOTHING;
    } catch (error) {
      return this.#again(error, attempt);
    }
  }

  *#again<T>(error: unknown, attempt: () => T): Exec<T> {
    for (;;) {
      if (typeof error !== "symbol") throw error;
      yield error;
      this.#abortIfAsked();
      try {
        return attempt();
      } catch (next) {
        error = next;
      }
    }
  }
}

function split(va: Gva): void {
  scratch64[0] = va;
}

/** The procedure that the row of UD0 calls. On a machine without gates it is #UD. */
export const gateProcedures: Procedures = {
  gate(cpu: Cpu): number {
    const gates = cpu.gates;
    if (gates === undefined) cpu.raise(VECTOR.UD);
    return gates.execute(cpu, cpu.argLow(0), cpu.argHigh(0));
  },
};
