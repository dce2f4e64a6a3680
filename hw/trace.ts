/**
 * Trace events: typed, and free of cost while nobody listens.
 *
 * Room: leaf of `hw/`; imports nothing. Whoever has something to tell tests one bit before it builds the event:
 *
 *     if (cpu.trace.wants & TRACE.walk) cpu.trace.emit({ kind: "walk", … });
 *
 * An event says what happened, on which processor and when (instructions retired, as `cpu.now()`); it never
 * changes what happens. Listeners run in the order in which they were added.
 *
 * @module
 */

/** One bit for each kind of event, for {@link Trace.wants}. */
export const TRACE = {
  walk: 1,
  reference: 2,
  fill: 4,
  invalidate: 8,
  fault: 16,
  exception: 32,
  interrupt: 64,
  instruction: 128,
  mmio: 256,
  port: 512,
  machine: 1024,
  stale: 2048,
  ept: 4096,
  vmx: 8192,
} as const;

/** The kinds of event. */
export type TraceKind = keyof typeof TRACE;

/** What every event carries. */
export interface TraceBase {
  /** Processor number. */
  readonly cpu: number;
  /** Instructions retired when it happened. */
  readonly time: number;
}

/** How memory was accessed. */
export type AccessKind = "read" | "write" | "fetch";

/** A page walk ended. */
export interface WalkEvent extends TraceBase {
  /** Discriminates {@link TraceEvent}. */
  readonly kind: "walk";
  /** The linear address. */
  readonly linear: bigint;
  /** Read, write or fetch. */
  readonly access: AccessKind;
  /** Whether user code made the access. */
  readonly user: boolean;
  /** Level of the first entry read (5 … 1), lower than the root's when a paging-structure cache helped. */
  readonly startLevel: number;
  /** Entries read: those of the paging structures of linear addresses. */
  readonly references: number;
  /** Page-fault error code, −1 when the walk found a translation that allows the access, −2 when EPT refused. */
  readonly errorCode: number;
  /** Physical address of the 4-KiB page, when found. */
  readonly physical: number;
  /** Bytes in the page that was found, large pages whole. */
  readonly pageBytes: number;
}

/** A walk read one paging-structure entry. */
export interface ReferenceEvent extends TraceBase {
  /** Discriminates {@link TraceEvent}. */
  readonly kind: "reference";
  /** 1 = page table … 5 = PML5 table. */
  readonly level: number;
  /** Physical address of the entry; guest-physical where EPT translates. */
  readonly physical: number;
  /** The entry as read. */
  readonly value: bigint;
  /** With an entry of an EPT table, what is being translated; without it, the entry is one of the paging structures of linear addresses. */
  readonly ept?: {
    /** Level of the guest paging-structure entry that is wanted; 0 for the translation of a linear address itself. */
    readonly guestLevel: number;
    /** The guest-physical address. */
    readonly guestPhysical: number;
  };
}

/** A translation was put in the modelled TLB. */
export interface FillEvent extends TraceBase {
  /** Discriminates {@link TraceEvent}. */
  readonly kind: "fill";
  /** The linear address. */
  readonly linear: bigint;
  /** The physical address. */
  readonly physical: number;
  /** Bytes in the page. */
  readonly pageBytes: number;
  /** The PCID in force. */
  readonly pcid: number;
  /** Not bound to a PCID. */
  readonly global: boolean;
  /** Whether writes are allowed. */
  readonly writable: boolean;
  /** Whether user code made the access. */
  readonly user: boolean;
  /** Whether fetches are allowed. */
  readonly executable: boolean;
}

/** An operation invalidated translations. */
export interface InvalidateEvent extends TraceBase {
  /** Discriminates {@link TraceEvent}. */
  readonly kind: "invalidate";
  /** The operation: a name of `INVALIDATION_RULES` (tlb_rules.ts). */
  readonly operation: string;
  /** Linear address, for operations on one page. */
  readonly linear?: bigint;
  /** The PCID in force. */
  readonly pcid?: number;
  /** The VPID that was named, for operations of VMX. */
  readonly vpid?: number;
  /** Address of the EPT tables that were named. */
  readonly eptp?: number;
  /** Translations that were removed from the modelled TLB. */
  readonly dropped: number;
}

/** An EPT violation, an EPT misconfiguration or a full page-modification log: a VM exit or a #VE comes of it. */
export interface EptEvent extends TraceBase {
  /** Discriminates {@link TraceEvent}. */
  readonly kind: "ept";
  /** Basic exit reason: 48, 49 or 62. */
  readonly reason: number;
  /** Exit qualification, without bit 12. */
  readonly qualification: number;
  /** The linear address; undefined where there is none. */
  readonly linear: bigint | undefined;
  /** The guest-physical address. */
  readonly guestPhysical: number;
  /** RIP of the instruction at hand. */
  readonly rip: bigint;
  /** True when a cached translation, not the tables, refused the access. */
  readonly cached: boolean;
  /** True when it becomes a virtualization exception. */
  readonly exception: boolean;
}

/** A page fault was raised. */
export interface FaultEvent extends TraceBase {
  /** Discriminates {@link TraceEvent}. */
  readonly kind: "fault";
  /** The linear address. */
  readonly linear: bigint;
  /** Page-fault error code. */
  readonly errorCode: number;
  /** RIP of the instruction at hand. */
  readonly rip: bigint;
  /** True when a cached translation, not the tables, refused the access. */
  readonly cached: boolean;
}

/** An exception is delivered. */
export interface ExceptionEvent extends TraceBase {
  /** Discriminates {@link TraceEvent}. */
  readonly kind: "exception";
  /** Exception or interrupt vector. */
  readonly vector: number;
  /** −1 for none. */
  readonly errorCode: number;
  /** RIP of the instruction at hand. */
  readonly rip: bigint;
}

/** An interrupt is delivered. */
export interface InterruptEvent extends TraceBase {
  /** Discriminates {@link TraceEvent}. */
  readonly kind: "interrupt";
  /** Exception or interrupt vector. */
  readonly vector: number;
  /** Where the interrupt came from. */
  readonly source: "external" | "nmi" | "software";
  /** RIP of the instruction at hand. */
  readonly rip: bigint;
}

/** An instruction is about to be carried out, or an iteration of a repeated one. Listening makes every run one of single instructions. */
export interface InstructionEvent extends TraceBase {
  /** Discriminates {@link TraceEvent}. */
  readonly kind: "instruction";
  /** RIP of the instruction at hand. */
  readonly rip: bigint;
}

/** A memory access reached a device, or nothing. */
export interface MmioEvent extends TraceBase {
  /** Discriminates {@link TraceEvent}. */
  readonly kind: "mmio";
  /** The physical address. */
  readonly physical: number;
  /** Bytes in the access. */
  readonly bytes: number;
  /** Whether it was a write. */
  readonly write: boolean;
  /** The value read or written. */
  readonly value: number;
}

/** A port was accessed. */
export interface PortEvent extends TraceBase {
  /** Discriminates {@link TraceEvent}. */
  readonly kind: "port";
  /** The port. */
  readonly port: number;
  /** Bytes in the access. */
  readonly bytes: number;
  /** Whether it was a write. */
  readonly write: boolean;
  /** The value read or written. */
  readonly value: number;
}

/** Something happened to the machine or a processor as a whole. */
export interface MachineEvent extends TraceBase {
  /** Discriminates {@link TraceEvent}. */
  readonly kind: "machine";
  /** For example "triple fault", "init", "sipi", "debug exit". */
  readonly what: string;
}

/** The translation sanitizer saw a translation used that the tables no longer grant; details come from the sanitizer itself. */
export interface StaleEvent extends TraceBase {
  /** Discriminates {@link TraceEvent}. */
  readonly kind: "stale";
  /** The linear address. */
  readonly linear: bigint;
  /** Read, write or fetch. */
  readonly access: AccessKind;
  /** Physical address of the 4-KiB page that the cached translation gave. */
  readonly physical: number;
  /** RIP of the instruction at hand. */
  readonly rip: bigint;
}

/** A VM entry or VM exit took place, a VMX instruction failed, or a rule refused a VM entry. */
export interface VmxEvent extends TraceBase {
  /** Discriminates {@link TraceEvent}. */
  readonly kind: "vmx";
  /** What happened. */
  readonly what: "entry" | "exit" | "fail" | "refused";
  /** Physical address of the current VMCS; all ones when there is none. */
  readonly vmcs: number;
  /** The guest's RIP; of a failure, that of the instruction. */
  readonly rip: bigint;
  /** Exit reason as in the VMCS; of a failure the error number, 0 for VMfailInvalid. */
  readonly number: number;
  /** Exit qualification. */
  readonly qualification: bigint;
  /** Name of the rule that refused the entry (vmx/explain.ts says all of it). */
  readonly rule?: string;
}

/** Any event. */
export type TraceEvent =
  | WalkEvent
  | ReferenceEvent
  | FillEvent
  | InvalidateEvent
  | FaultEvent
  | ExceptionEvent
  | InterruptEvent
  | InstructionEvent
  | MmioEvent
  | PortEvent
  | MachineEvent
  | StaleEvent
  | EptEvent
  | VmxEvent;

/** The event of one kind. */
export type EventOf<K extends TraceKind> = Extract<TraceEvent, { readonly kind: K }>;

interface Listening {
  readonly kinds: number;
  readonly listener: (event: TraceEvent) => void;
}

/** Where events go: one per machine. */
export class Trace {
  /** Bits ({@link TRACE}) of the kinds that somebody listens to. */
  wants = 0;
  #listening: readonly Listening[] = [];
  /** Words in which generated code reads {@link wants}. */
  readonly #mirrors: { readonly i32: Int32Array; readonly at: number }[] = [];

  /**
   * Keeps `i32[at]` equal to {@link wants}, for generated code; cpu.ts asks for it.
   *
   * @internal
   */
  mirror(i32: Int32Array, at: number): void {
    this.#mirrors.push({ i32, at });
    i32[at] = this.wants;
  }
  /**
   * Ends {@link mirror}.
   *
   * @internal
   */
  unmirror(i32: Int32Array, at: number): void {
    const i = this.#mirrors.findIndex((mirror) => mirror.i32 === i32 && mirror.at === at);
    if (i >= 0) this.#mirrors.splice(i, 1);
  }

  /** Calls `listener` for each event of the given kinds; returns what ends that. */
  on<K extends TraceKind>(kinds: readonly K[], listener: (event: EventOf<K>) => void): () => void {
    let bits = 0;
    for (const kind of kinds) bits |= TRACE[kind];
    const entry: Listening = { kinds: bits, listener: listener as (event: TraceEvent) => void };
    this.#listening = [...this.#listening, entry];
    this.#recount();
    return () => {
      this.#listening = this.#listening.filter((other) => other !== entry);
      this.#recount();
    };
  }

  /** Tells the listeners. Test {@link wants} first. */
  emit(event: TraceEvent): void {
    const bit = TRACE[event.kind];
    for (const { kinds, listener } of this.#listening) if (kinds & bit) listener(event);
  }

  #recount(): void {
    this.wants = this.#listening.reduce((bits, { kinds }) => bits | kinds, 0);
    for (const { i32, at } of this.#mirrors) i32[at] = this.wants;
  }
}
