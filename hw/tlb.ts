/**
 * The TLB of one processor: what software can do to it.
 *
 * The builder of the machine chooses what stands behind it: nothing but the fast TLB (`fast`), the sets and ways of a named
 * processor (`geometry`), or everything that may legally be kept (`sticky`). All follow the same rules of invalidation
 * (tlb_rules.ts). The fast TLB in front has no PCIDs: it holds entries of the current PCID and global ones.
 *
 * Room: `hw/`; imports the rules and the fast TLB, and cpu.ts by its type. access.ts and translate.ts look up and fill;
 * instructions (sys/) call the operations.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { CR4_PCIDE, linearOf } from "./paging.ts";
import { S } from "./state.ts";
import { FastTlb } from "./tlb_fast.ts";
import { INVALIDATION_RULES, type InvalidationName, type TlbStore } from "./tlb_rules.ts";
import { TRACE } from "./trace.ts";

/** The choices of the machine's builder. */
export type TlbChoice = "fast" | "geometry" | "sticky";

/** The TLB of one processor. Addresses are 32-bit halves, signed or not. */
export class Tlb {
  /** What engines probe. */
  readonly fast: FastTlb;
  /** The modelled TLB; undefined with the `fast` choice. */
  readonly store: TlbStore | undefined;
  readonly #cpu: Cpu;

  /** @param store What is kept behind the fast TLB. */
  constructor(cpu: Cpu, store: TlbStore | undefined) {
    this.#cpu = cpu;
    this.store = store;
    this.fast = new FastTlb(cpu);
  }

  /** The PCID in force: CR3[11:0] with CR4.PCIDE = 1, else 0. */
  get pcid(): number {
    return this.#cpu.get32(S.CR4) & CR4_PCIDE ? this.#cpu.get32(S.CR3) & 0xfff : 0;
  }

  /**
   * MOV to CR3 of this value, before or after the register itself changes.
   *
   * @param noInvalidate Bit 63 of the source; only heeded with CR4.PCIDE = 1.
   */
  movCr3(low: number, _high: number, noInvalidate: boolean): void {
    const pcide = (this.#cpu.get32(S.CR4) & CR4_PCIDE) !== 0;
    this.fast.flushNonGlobal();
    if (pcide && noInvalidate) return;
    this.#apply("MOV CR3", pcide ? low & 0xfff : 0, 0, 0);
  }

  /** MOV to CR4 that changes PGE or clears PCIDE, MOV to CR0 that clears PG, INIT, reset; and wherever the SDM is silent. */
  flushAll(): void {
    this.fast.flush();
    this.#apply("everything", -1, 0, 0);
  }

  /** MOV to CR4 that changes PAE or sets SMEP. */
  flushCurrent(): void {
    this.fast.flush();
    this.#apply("current PCID", this.pcid, 0, 0);
  }

  /** Everything but global pages, for all PCIDs (INVPCID type 3). */
  flushNonGlobal(): void {
    this.fast.flushNonGlobal();
    this.#apply("non-global", -1, 0, 0);
  }

  /** INVLPG. A non-canonical address invalidates nothing: the caller leaves it out. */
  invlpg(low: number, high: number): void {
    this.fast.flushPage(low, high);
    this.#apply("INVLPG", this.pcid, low | 0, high | 0);
  }

  /**
   * INVPCID, its operands checked by the caller.
   *
   * @param type 0 one address of a PCID, 1 a PCID, 2 everything, 3 everything but globals.
   */
  invpcid(type: number, pcid: number, low: number, high: number): void {
    const current = pcid === this.pcid;
    switch (type) {
      case 0:
        if (current) this.fast.flushPage(low, high);
        this.#apply("INVPCID address", pcid, low | 0, high | 0);
        break;
      case 1:
        if (current) this.fast.flushNonGlobal();
        this.#apply("INVPCID PCID", pcid, 0, 0);
        break;
      case 2:
        this.flushAll();
        break;
      default:
        this.flushNonGlobal();
    }
  }

  /** What a page fault invalidates: whatever was cached for its address. */
  pageFault(low: number, high: number): void {
    this.fast.flushPage(low, high);
    if (this.store !== undefined) this.#drop("page fault", this.pcid, low | 0, high | 0);
  }

  /**
   * Empties the fast TLB alone. To be called when what an entry grants no longer follows from its tables and context: CR0.WP,
   * CR4.SMEP, SMAP, PKE, PKRU, EFER.NXE, the memory map. It is not an invalidation: the modelled TLB keeps what it has.
   */
  flushFast(): void {
    this.fast.flush();
  }

  #apply(name: InvalidationName, pcid: number, low: number, high: number): void {
    const cpu = this.#cpu;
    cpu.counters.invalidations++;
    const dropped = this.store === undefined ? 0 : this.#drop(name, pcid, low, high);
    if (cpu.trace.wants & TRACE.invalidate) {
      const page = INVALIDATION_RULES[name].pages === "page";
      cpu.trace.emit({
        kind: "invalidate",
        cpu: cpu.id,
        time: cpu.now(),
        operation: name,
        ...(page ? { linear: linearOf(low, high) } : {}),
        ...(pcid >= 0 ? { pcid } : {}),
        dropped,
      });
    }
  }

  #drop(name: InvalidationName, pcid: number, low: number, high: number): number {
    const dropped = this.store!.drop({ rule: INVALIDATION_RULES[name], pcid, low, high });
    this.#cpu.counters.dropped += dropped;
    return dropped;
  }
}
