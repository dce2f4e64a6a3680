/**
 * The machine: memory, processors, devices, clock and scheduler, built from options and run.
 *
 * Room: `hw/`; the one place that knows all parts. Nothing in `hw/` imports it.
 *
 * A machine is built switched on and past its firmware: tables in ROM, interrupt controllers set up, the bootstrap
 * processor at the reset vector. A loader (`hw/boot/`) or a kernel then puts an image into memory and the processor
 * at its entry.
 *
 * @module
 */
import { Access } from "./access.ts";
import { Board, type BoardState } from "./board.ts";
import { Bus } from "./bus.ts";
import { Clock, type ClockState, type Timer } from "./clock.ts";
import { Cpu } from "./cpu.ts";
import { type CpuModel, cpuModels, defaultModel } from "./cpuid.ts";
import { LocalApic, type LocalApicState } from "./dev/apic.ts";
import { type StuckBit, StuckBits } from "./dev/stuck_bits.ts";
import type { BlockStore } from "./dev/virtio_blk.ts";
import { CodeCache } from "./engine/code_cache.ts";
import { Handlers } from "./engine/handlers.ts";
import { Regions } from "./engine/compiled/regions.ts";
import { ReferenceEngine } from "./engine/reference.ts";
import { ReferenceStepper } from "./engine/reference_step.ts";
import { type EngineParts, Processor } from "./engine/run.ts";
import { GateTable } from "./gates.ts";
import { stateHash } from "./hash.ts";
import { MachineMemory } from "./memory.ts";
import { procedures } from "./procedures.ts";
import { Random } from "./random.ts";
import { Sanitizer } from "./sanitizer.ts";
import { type RunBounds, Scheduler, type SchedulerState } from "./scheduler.ts";
import { CPU_MAX, RAM_BASE, S } from "./state.ts";
import { setUpAsFirmware } from "./sys/firmware.ts";
import { resetCpu, updateMode } from "./sys/mode.ts";
import { timerExpired } from "./vmx/preemption_timer.ts";
import type { TlbChoice } from "./tlb.ts";
import type { TlbGeometry } from "./tlb_geometry.ts";
import { TRACE, Trace } from "./trace.ts";

/** The engines that a machine can run on. */
export const ENGINES = ["interpreter", "reference", "compiled", "auto"] as const;
/** Name of an engine. */
export type EngineKind = (typeof ENGINES)[number];

/** Bytes that came in over the serial port, and when. */
export interface InputEvent {
  /** Tick at which they arrived. */
  readonly at: number;
  /** The bytes. */
  readonly bytes: readonly number[];
}

/** What a machine is built from; everything has a default. */
export interface MachineOptions {
  /** Bytes of RAM: a multiple of 64 KiB, 1 MiB … 3 GiB. Default: 256 MiB. */
  readonly memory?: number;
  /** Number of processors, 1 … 16. Default: 1. */
  readonly cpus?: number;
  /** A model, or the name of one of `cpuModels`. */
  readonly cpuModel?: CpuModel | string;
  /** How translations are cached. Default: fast. */
  readonly tlb?: TlbChoice;
  /** With `tlb: "geometry"`: sizes, or the name of known ones; default: the CPU model's. */
  readonly geometry?: TlbGeometry | string;
  /** Compare each use of a cached translation with the tables. */
  readonly sanitizer?: boolean | Sanitizer;
  /**
   * `interpreter`; `compiled`: what can be compiled is, before it first runs; `auto`: what is hot; `reference`: the oracle of tests.
   * Default: the interpreter.
   */
  readonly engine?: EngineKind;
  /**
   * With `auto` and `compiled`: lookups at an instruction after which it is compiled. Speed alone depends on it. Default: 1 for
   * `compiled`, 4 for `auto`.
   */
  readonly compileThreshold?: number;
  /** Seed of everything that is chance. Default: 1. */
  readonly seed?: number;
  /**
   * Least and most instructions that a processor carries out before the next one has its turn, where there are several. Small numbers
   * make races likely, and runs slow. Default: [500, 8000].
   */
  readonly quantum?: readonly [number, number];
  /** Whether the gates of DESIGN 2.5 exist; without them their encodings are #UD. Default: false. */
  readonly gates?: boolean;
  /** Takes what the guest sends over the serial port, in pieces. */
  readonly serial?: { readonly output?: (bytes: Uint8Array) => void };
  /** Takes bytes written to port E9H. */
  readonly debugConsole?: (byte: number) => void;
  /** What the disk is kept in; without it there is no disk. */
  readonly disk?: BlockStore;
  /** Date at power-up in seconds since 1970. Default: 2013-07-01. */
  readonly rtcStart?: number;
  /** Faulty RAM. */
  readonly stuckBits?: readonly StuckBit[];
  /** Inputs of an earlier run, to be given again at the same ticks. */
  readonly replay?: readonly InputEvent[];
}

/** Why a machine stopped. */
export type MachineStop =
  /** The guest wrote the debug-exit port; `code` is the exit status. */
  | { readonly reason: "exit"; readonly code: number }
  /** The guest asked for a reset (8042, port 92H, CF9H). */
  | { readonly reason: "reset" }
  /** The guest switched the machine off (ACPI S5). */
  | { readonly reason: "poweroff" }
  /** A processor triple-faulted. */
  | { readonly reason: "shutdown"; readonly cpu: number }
  /** All processors are halted, and no event will ever wake one. Input may. */
  | { readonly reason: "idle" }
  /** The bound on instructions was reached. */
  | { readonly reason: "steps" }
  /** The bound on time was reached, or the condition held. */
  | { readonly reason: "until" }
  /** {@link Machine.interrupt} was called. */
  | { readonly reason: "interrupted" }
  /** The body of a gate threw: the simulated kernel broke its own rule. */
  | { readonly reason: "panic"; readonly cpu: number; readonly error: unknown; readonly gate: string };

/** A copy of a machine between two runs; for bare-metal guests (continuations of gates can't be copied). */
export interface MachineSnapshot {
  /** Pages of RAM that are not all zeros. */
  readonly pages: ReadonlyMap<number, Uint8Array>;
  /** The architectural part of each processor's block. */
  readonly cpus: readonly Uint8Array[];
  /**
   * Local APICs, in the order of the processors.
   *
   * @internal
   */
  readonly apics: readonly LocalApicState[];
  /**
   * Devices.
   *
   * @internal
   */
  readonly board: BoardState;
  /**
   * Armed timers.
   *
   * @internal
   */
  readonly clock: ClockState;
  /**
   * Time, and where the round stands.
   *
   * @internal
   */
  readonly scheduler: SchedulerState;
  /** State of the generator. */
  readonly random: readonly number[];
  /** Inputs whose tick had not come. */
  readonly inputs: readonly InputEvent[];
}

/** {@link MachineOptions.compileThreshold} of `auto`. */
const AUTO_THRESHOLD = 4;
const DEFAULT_MEMORY = 256 * 1024 * 1024;
/** Serial output is handed over in pieces of at most this many bytes, and at the end of each run. */
const OUTPUT_PIECE = 4096;

/** One simulated PC. */
export class Machine {
  /** The memory behind it. */
  readonly memory: MachineMemory;
  /** Physical memory and ports. */
  readonly bus: Bus;
  /**
   * The machine's clock.
   *
   * @internal
   */
  readonly clock: Clock;
  /**
   * The devices.
   *
   * @internal
   */
  readonly board: Board;
  /** The processors, the bootstrap processor first. */
  readonly cpus: readonly Cpu[];
  /**
   * The run loop of each processor.
   *
   * @internal
   */
  readonly processors: readonly Processor[];
  /**
   * Who runs, and what time it is.
   *
   * @internal
   */
  readonly scheduler: Scheduler;
  /**
   * The generator that draws rounds.
   *
   * @internal
   */
  readonly random: Random;
  /** Where all trace events go. */
  readonly trace: Trace = new Trace();
  /** The translation sanitizer, if it is on. */
  readonly sanitizer: Sanitizer | undefined;
  /** The gates, on a machine that has them. */
  readonly gates: GateTable | undefined;
  /** The CPU model of all processors. */
  readonly model: CpuModel;
  /** Name of the engine. */
  readonly engine: EngineKind;
  /** The seed. */
  readonly seed: number;
  /**
   * The faulty RAM, if there is any.
   *
   * @internal
   */
  readonly stuckBits: StuckBits | undefined;
  /**
   * The interpreter's decoded code; undefined on the reference engine.
   *
   * @internal
   */
  readonly code: CodeCache | undefined;
  /**
   * The compiled regions, on an engine that has them.
   *
   * @internal
   */
  readonly regions: Regions | undefined;
  /** Every input so far; given back as `replay` it repeats the run. */
  readonly inputLog: InputEvent[] = [];

  readonly #serialOutput: ((bytes: Uint8Array) => void) | undefined;
  #output: number[] = [];
  /** Inputs whose tick has not come. */
  #inputs: InputEvent[];
  readonly #inputTimer: Timer;
  #stop: MachineStop | null = null;
  #interrupted = false;
  #romLocked = false;

  /**
   * Builds the machine and does what its firmware does.
   *
   * @throws {RangeError} when an option is out of range.
   */
  constructor(options: MachineOptions = {}) {
    const count = options.cpus ?? 1;
    if (!Number.isInteger(count) || count < 1 || count > CPU_MAX) {
      throw new RangeError(`Cannot build a machine with ${count} processors: it can have 1 to ${CPU_MAX}`);
    }
    this.model = modelOf(options.cpuModel);
    this.engine = options.engine ?? "interpreter";
    this.seed = options.seed ?? 1;
    this.random = new Random(this.seed);
    this.memory = new MachineMemory(options.memory ?? DEFAULT_MEMORY);
    this.bus = new Bus(this.memory);
    this.clock = new Clock();
    this.#serialOutput = options.serial?.output;
    this.board = new Board({
      bus: this.bus,
      clock: this.clock,
      cpus: count,
      disk: options.disk,
      rtcStart: options.rtcStart,
      events: {
        serial: (byte) => this.#send(byte),
        debugConsole: options.debugConsole ?? (() => {}),
        exit: (code) => this.#end({ reason: "exit", code }, "debug exit"),
        reset: () => this.#end({ reason: "reset" }, "reset"),
        powerOff: () => this.#end({ reason: "poweroff" }, "power off"),
      },
    });
    this.#inputTimer = this.clock.timer("serial-input", () => this.#input());
    this.sanitizer = options.sanitizer === true ? new Sanitizer() : options.sanitizer || undefined;
    this.cpus = Array.from({ length: count }, (_, id) => this.#makeCpu(id, count, options));
    if (options.gates) this.gates = this.#makeGates();
    const parts = this.#makeEngine(options.compileThreshold);
    this.regions = parts.kind === "interpreter" ? parts.regions : undefined;
    this.code = parts.kind === "interpreter" ? parts.code : undefined;
    this.processors = this.cpus.map((cpu) => new Processor(cpu, parts));
    this.scheduler = new Scheduler(this.clock, this.processors, this.random, options.quantum);
    this.scheduler.onSlice = (cpu) => {
      this.bus.apic = cpu.apic;
    };
    this.bus.apic = this.cpus[0]!.apic;
    this.bus.onAccess = (space, address, bytes, write, value) => {
      if ((this.trace.wants & (space === "mmio" ? TRACE.mmio : TRACE.port)) === 0) return;
      const what = { cpu: this.scheduler.current?.id ?? 0, time: this.now, bytes, write, value };
      if (space === "mmio") this.trace.emit({ kind: "mmio", physical: address, ...what });
      else this.trace.emit({ kind: "port", port: address, ...what });
    };
    for (const cpu of this.cpus) {
      resetCpu(cpu, cpu.id > 0);
      setUpAsFirmware(cpu);
      cpu.seedRandom(this.random.next());
    }
    this.board.startFirmware();
    this.cpus[0]!.apic.enterVirtualWire();
    if (options.stuckBits?.length) this.stuckBits = new StuckBits(this.bus, options.stuckBits);
    this.#inputs = [...(options.replay ?? [])];
    this.inputLog.push(...this.#inputs);
    this.#armInput();
  }

  // ---- running

  /** Runs until something stops the machine. After a final stop it gives that again. */
  run(bounds: RunBounds = {}): MachineStop {
    if (!this.#romLocked) {
      this.#romLocked = true;
      this.board.lockRom();
    }
    if (this.#stop !== null) return this.#stop;
    const why = this.scheduler.run(bounds);
    this.#flushOutput();
    // What the guest did comes before what a bound or the host said.
    if (this.#stop !== null) return this.#stop;
    switch (why) {
      case "requested":
        this.#interrupted = false;
        return { reason: "interrupted" };
      case "shutdown": {
        const cpu = this.cpus.find((c) => c.get32(S.ACTIVITY) === 2)!.id;
        this.#end({ reason: "shutdown", cpu }, "triple fault");
        return this.#stop!;
      }
      default:
        return { reason: why };
    }
  }

  /** Makes the run that is going on, or the next one, stop; it can be taken up again. */
  interrupt(): void {
    if (this.#interrupted) return;
    this.#interrupted = true;
    this.scheduler.requestStop();
  }

  /** Stops the machine for good, as a final event that the host decides. */
  panic(cpu: Cpu, error: unknown, gate: string): void {
    this.#end({ reason: "panic", cpu: cpu.id, error, gate }, "panic");
  }

  /** The present tick. */
  get now(): number {
    return this.scheduler.now();
  }
  /** Instructions carried out by all processors together. */
  get instructions(): number {
    return this.scheduler.instructions;
  }
  /** Whether the machine has come to a final stop. */
  get isFinal(): boolean {
    return this.#stop !== null;
  }

  /** Hash of the present state, 16 hex digits; equal for equal runs on any engine. */
  hash(): string {
    return stateHash(this.memory, this.cpus, this.now);
  }

  // ---- the outside world

  /** Bytes arrive on the serial line, at the next tick. */
  serialInput(bytes: Iterable<number>): void {
    const event: InputEvent = { at: this.now + 1, bytes: [...bytes] };
    this.inputLog.push(event);
    this.#inputs.push(event);
    this.#armInput();
  }

  /** Somebody presses the power button. */
  pressPowerButton(): void {
    this.board.power.pressPowerButton();
  }

  // ---- snapshots

  /**
   * Copies memory and devices. Translations are flushed, here and in {@link restore}, so that both futures are the same.
   *
   * @throws {Error} when a gate's continuation is alive: those can't be copied.
   */
  snapshot(): MachineSnapshot {
    if (this.gates !== undefined && this.gates.live > 0) {
      throw new Error("Cannot take a snapshot: continuations of gates are alive and can't be copied");
    }
    for (const cpu of this.cpus) cpu.access.tlb.reset();
    const pages = new Map<number, Uint8Array>();
    for (let page = 0; page < this.memory.ramBytes / 4096; page++) {
      if (!this.#isZeroPage(page)) pages.set(page, this.#page(page).slice());
    }
    return {
      pages,
      cpus: this.cpus.map((cpu) => this.memory.u8.slice(cpu.base, cpu.base + S.STEP)),
      apics: this.cpus.map((cpu) => cpu.apic.save()),
      board: this.board.save(),
      clock: this.clock.save(),
      scheduler: this.scheduler.save(),
      random: this.random.save(),
      inputs: [...this.#inputs],
    };
  }

  /** Puts a snapshot back that this machine, or one built from the same options, gave. */
  restore(snapshot: MachineSnapshot): void {
    const zeros = new Uint8Array(4096);
    for (let page = 0; page < this.memory.ramBytes / 4096; page++) {
      const bytes = snapshot.pages.get(page);
      if (bytes === undefined && this.#isZeroPage(page)) continue;
      this.#page(page).set(bytes ?? zeros);
    }
    this.code?.flush();
    this.cpus.forEach((cpu, i) => {
      this.memory.u8.set(snapshot.cpus[i]!, cpu.base);
      cpu.apic.load(snapshot.apics[i]!);
    });
    this.scheduler.load(snapshot.scheduler);
    this.board.load(snapshot.board);
    this.clock.load(snapshot.clock);
    this.random.load(snapshot.random);
    this.#inputs = [...snapshot.inputs];
    for (const cpu of this.cpus) {
      cpu.access.tlb.reset();
      updateMode(cpu);
    }
    this.#stop = null;
    this.#output = [];
  }

  // ---- building

  #makeCpu(id: number, count: number, options: MachineOptions): Cpu {
    const cpu = new Cpu({ id, memory: this.memory, bus: this.bus, model: this.model });
    cpu.count = count;
    cpu.trace = this.trace;
    cpu.access = new Access(cpu, {
      ...(options.tlb === undefined ? {} : { tlb: options.tlb }),
      ...(options.geometry === undefined ? {} : { geometry: options.geometry }),
      ...(this.sanitizer === undefined ? {} : { sanitizer: this.sanitizer }),
    });
    cpu.preemptionTimer = this.clock.timer(`vmx${id}`, () => timerExpired(cpu));
    cpu.apic = new LocalApic({
      cpu,
      clock: this.clock,
      bus: this.board.apicBus,
      x2apic: this.model.features.has("x2apic"),
      physicalAddressBits: this.model.maxPhysicalBits,
      pageMoved: (from, to) => this.bus.moveApicPage(from, to),
    });
    return cpu;
  }

  #makeGates(): GateTable {
    const stream = new Random(this.seed, 0x6761_7465);
    const gates = new GateTable({
      key: Array.from({ length: 8 }, () => stream.next()),
      procedures,
      onPanic: (cpu, error, gate) => this.panic(cpu, error, gate),
    });
    for (const cpu of this.cpus) cpu.gates = gates;
    return gates;
  }

  #makeEngine(threshold: number | undefined): EngineParts {
    if (this.engine === "reference") {
      return { kind: "reference", stepper: new ReferenceStepper(new ReferenceEngine(procedures)) };
    }
    const handlers = new Handlers(this.memory, this.cpus, procedures);
    const code = new CodeCache(this.memory, this.cpus, handlers);
    this.bus.code = code;
    if (this.engine === "interpreter") return { kind: "interpreter", handlers, code };
    const regions = new Regions(this.memory, handlers, code, {
      threshold: threshold ?? (this.engine === "compiled" ? 1 : AUTO_THRESHOLD),
    });
    return { kind: "interpreter", handlers, code, regions };
  }

  // ---- the parts

  #end(stop: MachineStop, what: string): void {
    if (this.#stop !== null) return;
    this.#stop = stop;
    if (this.trace.wants & TRACE.machine) {
      this.trace.emit({ kind: "machine", cpu: this.scheduler.current?.id ?? 0, time: this.now, what });
    }
    this.scheduler.requestStop();
  }

  #send(byte: number): void {
    if (this.#serialOutput === undefined) return;
    this.#output.push(byte);
    if (this.#output.length >= OUTPUT_PIECE) this.#flushOutput();
  }
  #flushOutput(): void {
    if (this.#output.length === 0) return;
    const bytes = Uint8Array.from(this.#output);
    this.#output = [];
    this.#serialOutput?.(bytes);
  }

  #armInput(): void {
    this.#inputTimer.set(this.#inputs[0]?.at ?? Infinity);
  }
  #input(): void {
    const now = this.now;
    while (this.#inputs.length > 0 && this.#inputs[0]!.at <= now) {
      this.board.serial.receive(this.#inputs.shift()!.bytes);
    }
    this.#armInput();
  }

  #page(page: number): Uint8Array {
    return this.memory.u8.subarray(RAM_BASE + page * 4096, RAM_BASE + (page + 1) * 4096);
  }
  #isZeroPage(page: number): boolean {
    const at = (RAM_BASE + page * 4096) >>> 2;
    for (let i = at; i < at + 1024; i++) if (this.memory.i32[i] !== 0) return false;
    return true;
  }
}

/** @throws {RangeError} when no model has the name. */
function modelOf(model: CpuModel | string | undefined): CpuModel {
  if (model === undefined) return defaultModel;
  if (typeof model !== "string") return model;
  const found = cpuModels[model];
  if (found === undefined) {
    throw new RangeError(`No CPU model "${model}": there are ${Object.keys(cpuModels).join(", ")}`);
  }
  return found;
}
