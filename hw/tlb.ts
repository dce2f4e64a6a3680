/**
 * The TLB of one processor: what software can do to it.
 *
 * The builder of the machine chooses what stands behind it: nothing but the fast TLB (`fast`), the sets and ways of a named
 * processor (`geometry`), or everything that may legally be kept (`sticky`). All follow the same rules of invalidation
 * (tlb_rules.ts).
 *
 * The fast TLB in front has no tags: it holds entries of the current PCID and global ones. It has two banks, one for root operation
 * (VPID 0000H) and one for non-root operation, which belongs to one VPID and EPT pointer at a time. A bank survives a VM transition
 * when it comes back into force as it was left: same tags, same control bits that its entries have folded in (see {@link Tlb.leave}).
 *
 * Room: `hw/`; imports the rules and the fast TLB, and cpu.ts by its type. access.ts and translate.ts look up and fill;
 * instructions (sys/) and VMX operation (ept.ts) call the operations.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import * as paging from "./paging.ts";
import { linearOf } from "./paging.ts";
import * as state from "./state.ts";
import { fastContextAddress, FastTlb } from "./tlb_fast.ts";
import {
  INVALIDATION_RULES,
  type InvalidationName,
  NO_EPT,
  type Selection,
  type TlbContext,
  type TlbStore,
  VPID_NONZERO,
} from "./tlb_rules.ts";
import { TRACE } from "./trace.ts";

// Bound here so that the optimiser folds them into the code (see the note in paging.ts).
const { CR4_PCIDE, CR4_PAE, EFER_LMA } = paging;
const { S } = state;

/** The choices of the machine's builder. */
export type TlbChoice = "fast" | "geometry" | "sticky";

/** What entries of a fast TLB bank have folded in, in the words of {@link Tlb.leave}: state fields, and the bits of them that count. */
const FOLDED: readonly (readonly [field: number, mask: number])[] = [
  // First: invvpid() looks for it there.
  [S.VMX_VPID, -1],
  [S.VMX_EPT, -1],
  [S.VMX_EPTP, -1],
  [S.VMX_EPTP + 4, -1],
  // Mode-based execute control.
  [S.VMX_PROC2, 1 << 22],
  [S.VMX_APIC_ACCESS, -1],
  [S.VMX_APIC_ACCESS + 4, -1],
  [S.CR3, -1],
  [S.CR3 + 4, -1],
  // PG, WP.
  [S.CR0, 0x8001_0000 | 0],
  // PSE, PAE, PGE, LA57, PCIDE, SMEP, SMAP, PKE.
  [S.CR4, 0x72_10b0],
  // LMA, NXE.
  [S.EFER, 0xc00],
  [S.PKRU, -1],
];
/** PDPTE registers, which count with PAE paging. */
const PDPTE_WORDS = 8;
const FOLDED_FIELDS = Int32Array.from(FOLDED, ([field]) => field >>> 2);
const FOLDED_MASKS = Int32Array.from(FOLDED, ([, mask]) => mask);
const SIGNATURE_WORDS = FOLDED.length + PDPTE_WORDS;

/** The TLB of one processor. Addresses are 32-bit halves, signed or not. */
export class Tlb {
  /** Fast TLB of root operation, and outside VMX operation. */
  readonly root: FastTlb;
  /** Fast TLB of non-root operation. */
  readonly guest: FastTlb;
  /** The modelled TLB; undefined with the `fast` choice. */
  readonly store: TlbStore | undefined;
  readonly #cpu: Cpu;
  readonly #i32: Int32Array;
  readonly #at: number;
  readonly #context: TlbContext = { vpid: 0, pcid: 0, ep4ta: NO_EPT };
  /** By bank: what its entries had folded in when it was left; the first word says whether it was. */
  readonly #left = [new Int32Array(1 + SIGNATURE_WORDS), new Int32Array(1 + SIGNATURE_WORDS)] as const;
  readonly #now = new Int32Array(1 + SIGNATURE_WORDS);

  /** @param store What is kept behind the fast TLB. */
  constructor(cpu: Cpu, store: TlbStore | undefined) {
    this.#cpu = cpu;
    this.#i32 = cpu.memory.i32;
    this.#at = cpu.base >>> 2;
    this.store = store;
    cpu.set32(S.TLBBANK, cpu.base + S.TLB);
    this.root = new FastTlb(cpu, S.TLB);
    this.guest = new FastTlb(cpu, S.TLBGUEST);
  }

  /** What engines probe: the bank in force. */
  get fast(): FastTlb {
    return this.#i32[this.#at + (S.TLBBANK >>> 2)] === this.#at * 4 + S.TLBGUEST ? this.guest : this.root;
  }

  /** The PCID in force: CR3[11:0] with CR4.PCIDE = 1, else 0. */
  get pcid(): number {
    const i32 = this.#i32, at = this.#at;
    return i32[at + (S.CR4 >>> 2)]! & CR4_PCIDE ? i32[at + (S.CR3 >>> 2)]! & 0xfff : 0;
  }
  /** The VPID in force; 0 in root operation and outside VMX operation. */
  get vpid(): number {
    return this.#i32[this.#at + (S.VMX_VPID >>> 2)]!;
  }
  /** Bits 51:12 of the EPT pointer in force, or −1 while EPT is off. */
  get ep4ta(): number {
    const i32 = this.#i32, at = this.#at;
    if (i32[at + (S.VMX_EPT >>> 2)] === 0) return NO_EPT;
    return ep4taOf(i32[at + (S.VMX_EPTP >>> 2)]!, i32[at + (S.VMX_EPTP >>> 2) + 1]!);
  }
  /** The tags in force; good until the next call. */
  get context(): Readonly<TlbContext> {
    const context = this.#context;
    context.vpid = this.vpid;
    context.pcid = this.pcid;
    context.ep4ta = this.ep4ta;
    return context;
  }

  // ---- operations on the current VPID

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

  /** MOV to CR4 that changes PGE or clears PCIDE, MOV to CR0 that clears PG, INIT; and wherever the SDM is silent. */
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

  /** As {@link flushFast}, of both banks: the memory map has changed. */
  flushFastBanks(): void {
    this.root.flush();
    this.guest.flush();
  }

  /** Power-up and reset, and a machine put back to a snapshot: everything, of all VPIDs and EPT pointers. The root bank is in force unless S.VMX_MODE says non-root. */
  reset(): void {
    this.flushFastBanks();
    this.#left[0]![0] = this.#left[1]![0] = 0;
    this.#apply("reset", -1, 0, 0, { vpid: -1, ep4ta: -1 });
    this.#enterBank();
  }

  // ---- VMX

  /**
   * A VM transition begins: nothing of the processor's context has changed yet. Remembers what the entries of the bank in force have
   * folded in; a bank whose transition was not announced is emptied when it comes back.
   */
  leave(): void {
    this.#sign(this.#left[this.fast === this.guest ? 1 : 0]!);
  }

  /**
   * A VM transition has changed control registers, VMX_MODE, VMX_VPID, VMX_EPT and VMX_EPTP: puts the other bank in force, and
   * invalidates what the transition must ("Operations that Invalidate Cached Mappings": with "enable VPID" = 0, all of VPID 0000H).
   *
   * @param usesVpid The guest's "enable VPID".
   */
  arrive(usesVpid: boolean): void {
    if (!usesVpid) {
      this.flushFastBanks();
      this.#apply("VM transition", -1, 0, 0, { vpid: 0 });
    }
    this.#enterBank();
    const left = this.#left[this.fast === this.guest ? 1 : 0]!, now = this.#now;
    this.#sign(now);
    let same = true;
    for (let i = 0; i <= SIGNATURE_WORDS; i++) same &&= left[i] === now[i];
    left[0] = 0;
    const { fast } = this;
    if (!same) fast.flush();
    fast.dropFetch();
  }

  /** VMFUNC has changed the EPT pointer in force: invalidates nothing, but the fast TLB has no EP4TA. */
  eptpSwitched(): void {
    this.fast.flush();
  }

  /**
   * An EPT violation.
   *
   * @param linear Whether the guest-physical address was the translation of the linear address, and not that of a guest paging-structure entry.
   */
  eptViolation(
    linear: boolean,
    linLow: number,
    linHigh: number,
    gpaLow: number,
    gpaHigh: number,
  ): void {
    if (linear) this.fast.flushPage(linLow, linHigh);
    if (this.store === undefined) return;
    this.#drop(linear ? "EPT violation" : "EPT violation, walk", this.pcid, linLow | 0, linHigh | 0, {
      ep4ta: this.ep4ta,
      gpaLow,
      gpaHigh,
    });
  }

  /** INVEPT, its operands checked by the caller: type 1 of one EPT pointer, 2 of all. */
  invept(type: number, eptpLow: number, eptpHigh: number): void {
    this.guest.flush();
    if (type === 1) this.#apply("INVEPT", -1, 0, 0, { vpid: -1, ep4ta: ep4taOf(eptpLow, eptpHigh) });
    else this.#apply("INVEPT all", -1, 0, 0, { vpid: -1 });
  }

  /** INVVPID, its operands checked by the caller: type 0 one address of a VPID, 1 a VPID, 2 all but 0000H, 3 a VPID but for global translations. */
  invvpid(type: number, vpid: number, low: number, high: number): void {
    const left = this.#left[1];
    const concerned = this.fast === this.guest || left[0] === 0 || type === 2 || left[1] === vpid;
    if (concerned) {
      if (type === 0) this.guest.flushPage(low, high);
      else if (type === 3) this.guest.flushNonGlobal();
      else this.guest.flush();
    }
    switch (type) {
      case 0:
        return this.#apply("INVVPID address", -1, low | 0, high | 0, { vpid });
      case 1:
        return this.#apply("INVVPID", -1, 0, 0, { vpid });
      case 2:
        return this.#apply("INVVPID all", -1, 0, 0, { vpid: VPID_NONZERO });
      default:
        return this.#apply("INVVPID non-global", -1, 0, 0, { vpid });
    }
  }

  // ----

  /** Makes S.TLBBANK and S.TLBCTX follow S.VMX_MODE. */
  #enterBank(): void {
    const cpu = this.#cpu;
    cpu.set32(S.TLBBANK, cpu.base + (cpu.get32(S.VMX_MODE) === 2 ? S.TLBGUEST : S.TLB));
    cpu.set32(S.TLBCTX, fastContextAddress(cpu));
  }

  #sign(into: Int32Array): void {
    const i32 = this.#i32, at = this.#at;
    let n = 1;
    for (; n <= FOLDED_FIELDS.length; n++) into[n] = i32[at + FOLDED_FIELDS[n - 1]!]! & FOLDED_MASKS[n - 1]!;
    const pae = (i32[at + (S.CR4 >>> 2)]! & CR4_PAE) !== 0 && !(i32[at + (S.EFER >>> 2)]! & EFER_LMA);
    for (let i = 0; i < PDPTE_WORDS; i++) into[n++] = pae ? i32[at + (S.PDPTE >>> 2) + i]! : 0;
    into[0] = 1;
  }

  #apply(
    name: InvalidationName,
    pcid: number,
    low: number,
    high: number,
    more: Partial<Selection> = NOTHING_MORE,
  ): void {
    const cpu = this.#cpu;
    cpu.counters.invalidations++;
    const dropped = this.store === undefined ? 0 : this.#drop(name, pcid, low, high, more);
    if (cpu.trace.wants & TRACE.invalidate) {
      const { pages, vpids, ep4tas } = INVALIDATION_RULES[name];
      cpu.trace.emit({
        kind: "invalidate",
        cpu: cpu.id,
        time: cpu.now(),
        operation: name,
        ...(pages === "page" || pages === "address" ? { linear: linearOf(low, high) } : {}),
        ...(pcid >= 0 ? { pcid } : {}),
        ...(vpids === "operand" ? { vpid: more.vpid ?? 0 } : {}),
        ...(ep4tas === "operand" ? { eptp: (more.ep4ta ?? 0) * 4096 } : {}),
        dropped,
      });
    }
  }

  #drop(
    name: InvalidationName,
    pcid: number,
    low: number,
    high: number,
    more: Partial<Selection> = NOTHING_MORE,
  ): number {
    const store = this.store!;
    const rule = INVALIDATION_RULES[name];
    const { vpid = this.vpid, ep4ta = -1, gpaLow = 0, gpaHigh = 0 } = more;
    const selection: Selection = { rule, pcid, low, high, vpid, ep4ta, gpaLow, gpaHigh };
    const dropped = store.drop(selection) + store.guestPhysical.drop(selection);
    this.#cpu.counters.dropped += dropped;
    return dropped;
  }
}

const NOTHING_MORE: Partial<Selection> = {};

/** Bits 51:12 of an EPT pointer as a number. */
function ep4taOf(low: number, high: number): number {
  return (high & 0xf_ffff) * 0x10_0000 + (low >>> 12);
}
