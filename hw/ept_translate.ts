/**
 * The second dimension of translation: guest-physical to host-physical addresses, through cached guest-physical mappings or an EPT walk;
 * and what comes of a refusal: an EPT violation, a misconfiguration, a full page-modification log, or a virtualization exception.
 *
 * A cached mapping that refuses the access is a violation at once, though the tables may have been widened since: that is what silicon
 * may do, and the violation removes the mapping. A write through a mapping that records D = 0 walks again.
 *
 * Room: `hw/`; imports the EPT walker, the VMX contract and the VMCS, and cpu.ts, sanitizer.ts and tlb.ts by their types.
 * translate.ts and the sanitizer are its users.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { VECTOR } from "./cpu.ts";
import * as format from "./ept_format.ts";
import type { EptFeatures } from "./ept_format.ts";
import { EptWalker, type ModificationLog } from "./ept_walk.ts";
import { linearOf, RIGHT, type SecondDimension } from "./paging.ts";
import type { Sanitizer } from "./sanitizer.ts";
import * as state from "./state.ts";
import type { Tlb } from "./tlb.ts";
import type { GuestPhysicalEntry, GuestPhysicalStore, GuestPhysicalStructure } from "./tlb_rules.ts";
import * as trace from "./trace.ts";
import * as vmcs from "./vmcs.ts";
import { isDeliveringEvent, PROC2, REASON, requestExit, setExitAddresses } from "./vmx/contract.ts";
import { F } from "./vmx/fields.ts";

// Bound here so that the optimiser folds them into the code (see the note in paging.ts).
const { EPT_EXIT, EPT_QUALIFICATION, EPTE } = format;
const { S } = state;
const { TRACE } = trace;
const TWO32 = 0x1_0000_0000;

/** Options of a {@link GuestPhysicalTranslator}. */
export interface GuestPhysicalOptions {
  /** Where mappings are cached; undefined for no cache (and for a pure one). */
  readonly tlb?: Tlb | undefined;
  /** Is told of the use of cached mappings. */
  readonly sanitizer?: Sanitizer | undefined;
  /** Changes nothing, counts nothing, asks no device. */
  readonly pure?: boolean;
  /** Stores flags in an entry that is not in plain RAM. */
  readonly storeSlow?: (physical: number, value: number) => void;
}

/** Translates guest-physical addresses for one processor; results stand in fields until the next translation. */
export class GuestPhysicalTranslator implements SecondDimension {
  /** Host-physical address of the 4-KiB page. */
  page = 0;
  /** log2 of the size of the EPT page: 12, 21 or 30. */
  shift = 12;
  /** Rights in EPT (bits R, W, X, user X of ept_format.ts). */
  rights = 0;
  /** Whether a write needs no further EPT flag. */
  dirty = false;
  /** Whether bit 63 of the entry that the walk ended with keeps a violation from becoming a #VE. */
  suppressed = false;
  /** Physical addresses of EPT entries read since {@link begin}; only kept for the sanitizer. */
  words: number[] = [];

  /** Of the last refusal: basic exit reason. */
  reason = 0;
  /** Of the last refusal: guest-physical address, halves. */
  gpaLow = 0;
  /** Upper half. */
  gpaHigh = 0;
  /** Of the last refusal: rights that the access needed. */
  need = 0;
  /** Of the last refusal: level of the guest paging-structure entry, 0 for the translation of a linear address. */
  slot = 0;
  /** Whether the last refusal came from a cached mapping. */
  cached = false;
  /** For the sanitizer: the linear address that is being translated. */
  linLow = 0;
  /** Upper half. */
  linHigh = 0;

  /** Walks the tables where no mapping is cached. */
  readonly walker: EptWalker;
  readonly #cpu: Cpu;
  readonly #features: EptFeatures;
  readonly #tlb: Tlb | undefined;
  readonly #sanitizer: Sanitizer | undefined;
  readonly #i32: Int32Array;
  readonly #base: number;
  readonly #pure: boolean;

  /** @param features What the processor model says about EPT. */
  constructor(cpu: Cpu, features: EptFeatures, options: GuestPhysicalOptions) {
    this.#cpu = cpu;
    this.#features = features;
    this.#tlb = options.tlb;
    this.#sanitizer = options.sanitizer;
    this.#i32 = cpu.memory.i32;
    this.#base = cpu.base;
    this.#pure = options.pure ?? false;
    this.walker = new EptWalker(cpu, features, {
      pure: this.#pure,
      storeSlow: options.storeSlow ?? (() => {}),
      log: this.#pure ? undefined : new VmcsModificationLog(cpu),
    });
  }

  /** The translation of a linear address begins. */
  begin(low: number, high: number): void {
    this.linLow = low;
    this.linHigh = high;
    this.cached = false;
    if (this.#sanitizer !== undefined) this.words = [];
  }

  /**
   * Translates a guest-physical address.
   *
   * @param need Rights that the access needs (bits of ept_format.ts).
   * @param slot Level of the guest paging-structure entry at the address; 0 when it is the translation of a linear address.
   * @returns false when EPT refuses (or the page is the APIC-access page, which no walk may read): {@link report} says so to the guest's hypervisor.
   */
  translate(low: number, high: number, need: number, slot: number): boolean {
    const store = this.#pure ? undefined : this.#tlb?.store?.guestPhysical;
    const allowed = store === undefined
      ? this.#take(this.walker.walk(low, high, need, slot), low, high, need, slot)
      : this.#translateCached(store, low | 0, high | 0, need, slot);
    return allowed && (slot === 0 || !this.#isApicAccess(low, high, need, slot));
  }

  #translateCached(
    store: GuestPhysicalStore,
    low: number,
    high: number,
    need: number,
    slot: number,
  ): boolean {
    const { counters } = this.#cpu;
    const ep4ta = this.#tlb!.ep4ta;
    const entry = store.find(low, high, ep4ta);
    if (entry !== undefined) {
      if (need & ~entry.rights) {
        this.rights = entry.rights;
        this.suppressed = entry.suppressed;
        this.cached = true;
        return this.#refuse(EPT_EXIT.VIOLATION, low, high, need, slot);
      }
      if (!(need & EPTE.W) || entry.dirty) {
        counters.guestPhysicalHits++;
        const inside = entry.shift === 12 ? 0 : (low & ((1 << entry.shift) - 1) & ~0xfff) >>> 0;
        this.page = entry.base + inside;
        this.shift = entry.shift;
        this.rights = entry.rights;
        this.dirty = entry.dirty;
        this.suppressed = entry.suppressed;
        if (this.#sanitizer !== undefined) {
          this.words.push(...entry.words);
          this.#sanitizer.usedGuestPhysical(this.#cpu, "page", entry, this, low, high, need);
        }
        return true;
      }
    }
    const walker = this.walker;
    const structure = store.findStructure(low, high, ep4ta);
    let reason: number;
    if (structure === undefined) reason = walker.walk(low, high, need, slot);
    else {
      counters.eptStructureHits[structure.level]!++;
      const { level, table, rights } = structure;
      reason = walker.walkFrom(low, high, need, slot, level, table | 0, (table / TWO32) | 0, rights);
      this.cached = reason >= 0;
    }
    if (!this.#take(reason, low, high, need, slot)) return false;
    this.#insert(store, low, high, ep4ta, structure);
    if (structure !== undefined) {
      this.#sanitizer?.usedGuestPhysical(this.#cpu, "structure", structure, this, low, high, need);
    }
    return true;
  }

  /** Takes over what the walk found. */
  #take(reason: number, low: number, high: number, need: number, slot: number): boolean {
    const walker = this.walker;
    this.rights = walker.rights;
    this.suppressed = walker.suppressed;
    if (reason >= 0) return this.#refuse(reason, low, high, need, slot);
    this.page = walker.page;
    this.shift = walker.shift;
    this.dirty = walker.dirty;
    return true;
  }

  #refuse(reason: number, low: number, high: number, need: number, slot: number): boolean {
    this.reason = reason;
    this.gpaLow = low;
    this.gpaHigh = high;
    this.need = need;
    this.slot = slot;
    return false;
  }

  /** Puts what the last walk found into the store: the leaf, and the non-leaf entries on the way. */
  #insert(
    store: GuestPhysicalStore,
    low: number,
    high: number,
    ep4ta: number,
    from: GuestPhysicalStructure | undefined,
  ): void {
    const cpu = this.#cpu, walker = this.walker, sanitizer = this.#sanitizer;
    const birth = sanitizer?.birth(cpu);
    let words: readonly number[] = from?.words ?? [];
    for (let level = walker.startLevel; level > walker.lastLevel; level--) {
      if (sanitizer !== undefined) words = [...words, walker.entryAt(level)];
      const shift = 12 + 9 * (level - 1);
      store.insertStructure({
        low: shift >= 32 ? 0 : low & (-1 << shift),
        high: shift > 32 ? high & (-1 << (shift - 32)) : high,
        level: level - 1,
        table: walker.tableAt(level - 1),
        rights: walker.rightsAbove(level - 1),
        ep4ta,
        words,
        birth,
        reported: 0,
      });
    }
    if (sanitizer !== undefined) {
      words = [...words, walker.entryAt(walker.lastLevel)];
      sanitizer.trackWide(words);
      this.words.push(...words);
    }
    const inside = this.shift === 12 ? 0 : (low & ((1 << this.shift) - 1) & ~0xfff) >>> 0;
    const entry: GuestPhysicalEntry = {
      low: low & (-1 << this.shift),
      high,
      shift: this.shift,
      base: this.page - inside,
      rights: this.rights,
      dirty: this.dirty,
      suppressed: this.suppressed,
      ep4ta,
      words,
      birth,
      reported: 0,
    };
    store.insert(entry);
  }

  /** Walks may not read the APIC-access page: SDM vol. 3C, "Virtualizing Guest-Physical Accesses to the APIC-Access Page". */
  #isApicAccess(low: number, high: number, need: number, slot: number): boolean {
    const i = (this.#base + S.VMX_APIC_ACCESS) >>> 2;
    const apicLow = this.#i32[i]!, apicHigh = this.#i32[i + 1]!;
    if ((apicLow & apicHigh) === -1 || (apicLow >>> 0) + (apicHigh >>> 0) * TWO32 !== this.page) return false;
    this.#refuse(REASON.APIC_ACCESS, low, high, need, slot);
    return true;
  }

  // ---- refusals

  /** The exit qualification of the last EPT violation, without bit 12 (SDM vol. 3C, "Exit Qualification for EPT Violations"). */
  qualification(hasLinear: boolean, linearRights: number): number {
    const q = EPT_QUALIFICATION;
    const { need, rights, slot } = this;
    let value = (need & EPTE.R ? q.READ : 0) | (need & EPTE.W ? q.WRITE : 0) |
      (need & (EPTE.X | EPTE.XU) ? q.FETCH : 0) | ((rights & (EPTE.R | EPTE.W | EPTE.X)) << 3);
    if (this.#i32[(this.#base + S.VMX_PROC2) >>> 2]! & PROC2.MODE_BASED_EXECUTE && rights & EPTE.XU) {
      value |= q.USER_EXECUTABLE;
    }
    if (!hasLinear) return value;
    value |= q.LINEAR;
    if (slot !== 0) return value;
    value |= q.TRANSLATED;
    if (this.#features.advancedInformation) {
      value |= (linearRights & RIGHT.U ? q.USER : 0) | (linearRights & RIGHT.W ? q.WRITABLE_LINEAR : 0) |
        (linearRights & RIGHT.X ? 0 : q.EXECUTE_DISABLE);
    }
    return value;
  }

  /**
   * Turns the last refusal into what the guest or its hypervisor gets: a pending VM exit or a pending #VE, and invalidates what an EPT
   * violation must.
   *
   * @param hasLinear Whether a linear address was being translated (a load of PDPTE registers has none).
   * @param linearRights What the guest's tables grant, where the slot is 0: RIGHT bits of paging.ts.
   */
  report(hasLinear: boolean, linLow: number, linHigh: number, linearRights: number): void {
    const cpu = this.#cpu, { reason, gpaLow, gpaHigh } = this;
    let qualification = 0, exception = false;
    if (reason === EPT_EXIT.VIOLATION) {
      cpu.counters.eptViolations++;
      qualification = this.qualification(hasLinear, linearRights);
      this.#tlb?.eptViolation(hasLinear && this.slot === 0, linLow, linHigh, gpaLow, gpaHigh);
      exception = this.#convertible();
    } else if (reason === REASON.APIC_ACCESS) {
      // Guest-physical access during event delivery, or during the execution of an instruction.
      qualification = (isDeliveringEvent(cpu) ? 10 : 15) << 12;
    }
    if (cpu.trace.wants & TRACE.ept) {
      cpu.trace.emit({
        kind: "ept",
        cpu: cpu.id,
        time: cpu.now(),
        reason,
        qualification,
        linear: hasLinear ? linearOf(linLow, linHigh) : undefined,
        guestPhysical: (gpaHigh >>> 0) * TWO32 + (gpaLow >>> 0),
        rip: cpu.rip,
        cached: this.cached,
        exception,
      });
    }
    if (exception) {
      this.#writeInformation(qualification, linLow, linHigh);
      cpu.setFault(VECTOR.VE);
      return;
    }
    setExitAddresses(cpu, hasLinear ? linLow : 0, hasLinear ? linHigh : 0, gpaLow, gpaHigh);
    requestExit(cpu, reason, qualification, 0);
  }

  /** Whether an EPT violation becomes a virtualization exception (SDM vol. 3C, "Virtualization Exceptions"). */
  #convertible(): boolean {
    const cpu = this.#cpu;
    if (!(this.#i32[(this.#base + S.VMX_PROC2) >>> 2]! & PROC2.EPT_VIOLATION_VE) || this.suppressed) {
      return false;
    }
    if (!(this.#i32[(this.#base + S.CR0) >>> 2]! & 1) || isDeliveringEvent(cpu)) return false;
    const low = vmcs.get32(cpu, F.VE_INFORMATION_ADDRESS), high = vmcs.getHigh(cpu, F.VE_INFORMATION_ADDRESS);
    return vmcs.readPhysical32(cpu, low + 4, high) === 0;
  }

  /** Fills the virtualization-exception information area; its second word says that it is in use. */
  #writeInformation(qualification: number, linLow: number, linHigh: number): void {
    const cpu = this.#cpu;
    const low = vmcs.get32(cpu, F.VE_INFORMATION_ADDRESS), high = vmcs.getHigh(cpu, F.VE_INFORMATION_ADDRESS);
    const words = [
      EPT_EXIT.VIOLATION,
      -1,
      qualification,
      0,
      linLow,
      linHigh,
      this.gpaLow,
      this.gpaHigh,
    ];
    words.forEach((word, i) => vmcs.writePhysical32(cpu, low + i * 4, high, word));
    const last = vmcs.readPhysical32(cpu, low + 32, high);
    vmcs.writePhysical32(cpu, low + 32, high, (last & ~0xffff) | (vmcs.get32(cpu, F.EPTP_INDEX) & 0xffff));
  }
}

/** The page-modification log that the current VMCS names (SDM vol. 3C, "Page-Modification Logging"). */
class VmcsModificationLog implements ModificationLog {
  readonly #cpu: Cpu;
  constructor(cpu: Cpu) {
    this.#cpu = cpu;
  }
  get enabled(): boolean {
    return (this.#cpu.get32(S.VMX_PROC2) & PROC2.PML) !== 0;
  }
  get full(): boolean {
    return (vmcs.get32(this.#cpu, F.PML_INDEX) & 0xffff) > 511;
  }
  append(gpaLow: number, gpaHigh: number): void {
    const cpu = this.#cpu;
    const index = vmcs.get32(cpu, F.PML_INDEX) & 0xffff;
    const low = vmcs.get32(cpu, F.PML_ADDRESS) + index * 8, high = vmcs.getHigh(cpu, F.PML_ADDRESS);
    vmcs.writePhysical32(cpu, low, high, gpaLow);
    vmcs.writePhysical32(cpu, low + 4, high, gpaHigh);
    vmcs.set32(cpu, F.PML_INDEX, (index - 1) & 0xffff);
  }
}
