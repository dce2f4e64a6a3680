/**
 * Memory as instructions see it: linear accesses of procedures and engines, segment checks, instruction fetch.
 *
 * An access goes: fast TLB (probed here too: INT and IRET live on it) → translate.ts → physical memory. All that can fault comes
 * first: an access that crosses pages translates both before it commits. Plain RAM is served at once; what has side effects that
 * a block of decoded instructions may not have in its middle (a device, a store into decoded code) is only carried out while the
 * run loop steps single instructions (S.STEPPING), otherwise the answer is EXIT_RETRY and nothing has happened.
 *
 * Addresses and values are 32-bit halves, signed or unsigned; no BigInt here.
 *
 * Room: `hw/`; imports translation and TLB, the bus and cpu.ts by their types (and {@link FAULT}).
 *
 * @module
 */
import { type AccessOptions, pagingFeatures, storeFor } from "./access_options.ts";
import type { Bus, CodeWatch } from "./bus.ts";
import { type Cpu, FAULT, VECTOR } from "./cpu.ts";
import type { EptFeatures } from "./ept_format.ts";
import { modelEptFeatures } from "./ept.ts";
import * as paging from "./paging.ts";
import { isCanonical, type PagingFeatures } from "./paging.ts";
import { Sanitizer } from "./sanitizer.ts";
import * as state from "./state.ts";
import { PhysicalBytes } from "./physical.ts";
import { Tlb } from "./tlb.ts";
import * as tlbFast from "./tlb_fast.ts";
import { alignmentChecked, dataBreakpoints, fastContextAddress, FTLB_HELD } from "./tlb_fast.ts";
import { Translator } from "./translate.ts";
import { apicAccess, noteApicWrite } from "./vmx/apic_virtualization.ts";

// Bound here so that the optimiser folds them into the code (see the note in paging.ts).
const { ACCESS, CR4_LA57, CR4_SMAP } = paging;
const {
  AUX,
  EXIT_FAULT,
  EXIT_NONE,
  EXIT_RETRY,
  FTLB_CONTEXT_BYTES,
  FTLB_ENTRIES,
  FTLB_ENTRY_BYTES,
  FTLB_FETCH,
  FTLB_READ,
  FTLB_WRITE,
  PAGE_CODE,
  PAGE_RAM,
  PAGE_WATCH,
  RAM_BASE,
  RFLAGS,
  S,
  SEG,
} = state;
const { CONTEXT } = tlbFast;

/** How a procedure accesses memory: a set of these bits. */
export const HOW = {
  /** An explicit access at the current CPL. */
  EXPLICIT: 0,
  /** An implicit supervisor access: GDT, LDT, IDT, TSS, pushes on a ring switch. */
  IMPLICIT: 1,
  /** A stack reference: a non-canonical address gives #SS(0) instead of #GP(0). */
  STACK: 2,
} as const;

const IMPLICIT = HOW.IMPLICIT, STACK = HOW.STACK;

const TWO32 = 0x1_0000_0000;
/** Offset in a bank of the fast TLB of the first context whose data tables stay empty. */
const CHECKED_FROM = CONTEXT.SUPERVISOR_CHECKED * FTLB_CONTEXT_BYTES;
/** Access rights of a segment: unusable, present, code or data; see `AR` in sys/mode.ts. */
const AR_UNUSABLE = 0x1_0000, AR_PRESENT = 0x80, AR_S = 0x10, AR_DB = 0x4000;

/** Memory of one processor as its instructions see it. */
export class Access {
  /** Upper half of the last {@link read} of 8 bytes. */
  high = 0;
  /** Linear address that {@link segment} computed. */
  linLow = 0;
  /** Upper half of {@link linLow}. */
  linHigh = 0;
  /** What translations are kept. */
  readonly tlb: Tlb;
  /** What an access goes through when the fast TLB does not serve it. */
  readonly translator: Translator;
  /** Compares uses of cached translations with the tables, if the builder asked for it. */
  readonly sanitizer: Sanitizer | undefined;
  /** What the CPU model says about paging. */
  readonly features: PagingFeatures;
  /** What the CPU model says about EPT. */
  readonly eptFeatures: EptFeatures;
  /** Told of each explicit or implicit data access that is going to happen while DR7 enables data breakpoints (sys/debug.ts). */
  onDataAccess: ((linLow: number, linHigh: number, bytes: number, write: boolean) => void) | undefined;

  readonly #cpu: Cpu;
  readonly #bus: Bus;
  readonly #base: number;
  readonly #u8: Uint8Array;
  readonly #i32: Int32Array;
  readonly #u32: Uint32Array;
  readonly #view: DataView;
  readonly #physical: PhysicalBytes;
  /** Whether data translations may enter the fast TLB. */
  readonly #bypass: boolean;

  // The access at hand, after #locate: physical addresses of its first byte and of its second page.
  #at = 0;
  #at2 = 0;
  /** Bytes on the first page if the access crosses into a second one, else 0. */
  #split = 0;
  /** Offset in the APIC-access page of a store that is virtualized, else −1. */
  #apicOffset = -1;
  // The same of the store that waits in SPILL.
  #spillApic = -1;
  #spillAt = 0;
  #spillAt2 = 0;
  #spillSplit = 0;
  // What the last fetchPage found, for fillFetch.
  #fetchLow = 1;
  #fetchHigh = 0;
  #fetchShift = 12;
  #fetchGlobal = false;

  /** @throws {RangeError} when the geometry is unknown. */
  constructor(cpu: Cpu, options: AccessOptions = {}) {
    this.#cpu = cpu;
    this.#bus = cpu.bus;
    this.#base = cpu.base;
    const { memory } = cpu;
    this.#u8 = memory.u8;
    this.#i32 = memory.i32;
    this.#u32 = memory.u32;
    this.#view = new DataView(memory.buffer);
    this.features = options.features ?? pagingFeatures(cpu.model);
    this.eptFeatures = options.eptFeatures ?? modelEptFeatures(cpu.model);
    this.sanitizer = options.sanitizer === true ? new Sanitizer() : options.sanitizer || undefined;
    this.#physical = new PhysicalBytes(cpu, this.sanitizer);
    const store = storeFor(cpu, options, this.sanitizer !== undefined);
    this.tlb = new Tlb(cpu, store);
    this.sanitizer?.attach(cpu, this.features, this.eptFeatures);
    this.translator = new Translator(
      cpu,
      this.tlb,
      this.features,
      this.eptFeatures,
      this.sanitizer,
      // A table entry's flags, where the walker can't store them itself.
      (physical, value) => cpu.bus.write(physical, 4, value),
    );
    this.#bypass = this.sanitizer === undefined && (store === undefined || store.bypass);
    // Generated code walks and fills where nobody looks at what it does.
    memory.i32[(cpu.get32(S.AUX) + AUX.walks) >>> 2] = store === undefined && this.sanitizer === undefined
      ? 1
      : 0;
    cpu.set32(S.TLBCTX, fastContextAddress(cpu));
    const { mapChanged } = cpu.bus;
    cpu.bus.mapChanged = () => {
      mapChanged?.();
      this.tlb.flushFastBanks();
    };
  }

  /** Where decoded code stands, for stores; the bus knows it. */
  get code(): CodeWatch | undefined {
    return this.#bus.code ?? undefined;
  }
  set code(watch: CodeWatch | undefined) {
    this.#bus.code = watch ?? null;
  }

  // ---- for procedures: faults are thrown

  /**
   * Reads 1, 2, 4 or 8 bytes; the unsigned low half, the upper half of 8 bytes in {@link high}.
   *
   * @throws {typeof FAULT} with the fault (or EXIT_RETRY) recorded in the processor's block.
   */
  read(linLow: number, linHigh: number, size: 1 | 2 | 4 | 8, how = 0): number {
    const i32 = this.#i32;
    const context = how & IMPLICIT ? this.#implicitContext() : i32[(this.#base + S.TLBCTX) >>> 2]!;
    const e = (context + FTLB_READ + ((linLow >>> 12) & (FTLB_ENTRIES - 1)) * FTLB_ENTRY_BYTES) >>> 2;
    let host: number;
    if (i32[e] === ((linLow + size - 1) & ~0xfff) && i32[e + 1] === (linHigh | 0)) {
      host = (i32[e + 2]! + linLow) >>> 0;
    } else {
      host = this.#loadable(linLow, linHigh, size, how);
      if (host === 0) throw FAULT;
    }
    switch (size) {
      case 1:
        return this.#u8[host]!;
      case 2:
        return this.#view.getUint16(host, true);
      case 4:
        return (host & 3) === 0 ? this.#u32[host >>> 2]! : this.#view.getUint32(host, true);
      default:
        if ((host & 3) === 0) {
          this.high = this.#u32[(host >>> 2) + 1]!;
          return this.#u32[host >>> 2]!;
        }
        this.high = this.#view.getUint32(host + 4, true);
        return this.#view.getUint32(host, true);
    }
  }

  /**
   * Writes the low 1, 2, 4 or 8 bytes of a value.
   *
   * @throws {typeof FAULT} as {@link read}; nothing is written then.
   */
  write(
    linLow: number,
    linHigh: number,
    size: 1 | 2 | 4 | 8,
    valueLow: number,
    valueHigh: number,
    how = 0,
  ): void {
    const i32 = this.#i32;
    const context = how & IMPLICIT ? this.#implicitContext() : i32[(this.#base + S.TLBCTX) >>> 2]!;
    const e = (context + FTLB_WRITE + ((linLow >>> 12) & (FTLB_ENTRIES - 1)) * FTLB_ENTRY_BYTES) >>> 2;
    if (i32[e] === ((linLow + size - 1) & ~0xfff) && i32[e + 1] === (linHigh | 0)) {
      this.#physical.putValue((i32[e + 2]! + linLow) >>> 0, size, valueLow, valueHigh);
      return;
    }
    const spill = this.#base + S.SPILL;
    this.#physical.putValue(spill, size, valueLow, valueHigh);
    if (this.#store(linLow, linHigh, spill, size, how) !== EXIT_NONE) throw FAULT;
  }

  /**
   * Reads 1, 2, 4 or 8 bytes that will be written: through the translation for writes, as a read-modify-write does. Result as of {@link read}.
   *
   * @throws {typeof FAULT} as {@link read}.
   */
  readToWrite(linLow: number, linHigh: number, size: 1 | 2 | 4 | 8, how = 0): number {
    if (this.#check(linLow, linHigh, size, true, how) !== EXIT_NONE) throw FAULT;
    const spill = this.#base + S.SPILL, first = this.#split || size;
    this.#physical.get(this.#at, spill, first);
    if (first !== size) this.#physical.get(this.#at2, spill + first, size - first);
    this.high = size === 8 ? this.#view.getUint32(spill + 4, true) : 0;
    return size === 1
      ? this.#u8[spill]!
      : size === 2
      ? this.#view.getUint16(spill, true)
      : this.#view.getUint32(spill, true);
  }

  /**
   * Makes sure that `bytes` bytes may be read or written, without doing so.
   *
   * @throws {typeof FAULT} as {@link read}.
   */
  probe(linLow: number, linHigh: number, bytes: number, write: boolean, how = 0): void {
    if (bytes > 4096) this.#probeAll(linLow, linHigh, bytes, write, how);
    else if (this.#check(linLow, linHigh, bytes, write, how) !== EXIT_NONE) throw FAULT;
  }

  /**
   * Reads `bytes` bytes to a host address; all pages are translated first.
   *
   * @throws {typeof FAULT} as {@link read}.
   */
  readBytes(linLow: number, linHigh: number, hostDest: number, bytes: number, how = 0): void {
    if (bytes <= 0) return;
    if (bytes > 4096) {
      this.#probeAll(linLow, linHigh, bytes, false, how);
      for (let done = 0; done < bytes; done += 4096) {
        const at = (linLow >>> 0) + done, high = (linHigh + (at >= TWO32 ? 1 : 0)) | 0;
        this.readBytes(at | 0, high, hostDest + done, Math.min(4096, bytes - done), how);
      }
      return;
    }
    if (!this.#locate(linLow, linHigh, bytes, false, how) || this.#mustStep(bytes)) throw FAULT;
    const first = this.#split || bytes;
    this.#physical.get(this.#at, hostDest, first);
    if (first !== bytes) this.#physical.get(this.#at2, hostDest + first, bytes - first);
  }

  /**
   * Writes `bytes` bytes from a host address, or none.
   *
   * @throws {typeof FAULT} as {@link read}.
   */
  writeBytes(linLow: number, linHigh: number, hostSource: number, bytes: number, how = 0): void {
    if (bytes <= 0) return;
    if (bytes > 4096) {
      this.#probeAll(linLow, linHigh, bytes, true, how);
      for (let done = 0; done < bytes; done += 4096) {
        const at = (linLow >>> 0) + done, high = (linHigh + (at >= TWO32 ? 1 : 0)) | 0;
        this.writeBytes(at | 0, high, hostSource + done, Math.min(4096, bytes - done), how);
      }
      return;
    }
    if (this.#store(linLow, linHigh, hostSource, bytes, how) !== EXIT_NONE) throw FAULT;
  }

  /**
   * Checks an access of `bytes` bytes at segment `seg`, offset `offset`: usable, type and limit outside 64-bit mode, canonical in it.
   * The linear address is left in {@link linLow} and {@link linHigh}.
   *
   * @throws {typeof FAULT} with #GP(0), or #SS(0) for SS.
   */
  segment(seg: number, offsetLow: number, offsetHigh: number, bytes: number, write: boolean): void {
    const i32 = this.#i32, s = this.#base;
    if (i32[(s + S.CODEMODE) >>> 2] !== 2) {
      if (this.segCheck(seg, offsetLow, bytes, write) !== EXIT_NONE) throw FAULT;
      this.linLow = (offsetLow + i32[(s + S.SEGBASE + seg * 8) >>> 2]!) >>> 0;
      this.linHigh = 0;
      return;
    }
    let low = offsetLow >>> 0, high = offsetHigh;
    if (seg === SEG.FS || seg === SEG.GS) {
      const i = (s + S.SEGBASE + seg * 8) >>> 2;
      const sum = low + this.#u32[i]!;
      high = high + i32[i + 1]! + (sum >= TWO32 ? 1 : 0);
      low = sum >>> 0;
    }
    this.linLow = low;
    this.linHigh = high >>> 0;
    if (!this.#canonical(low, high | 0, bytes, seg === SEG.SS ? STACK : 0)) throw FAULT;
  }

  /** Reads physical memory, unsigned; devices answer too. */
  readPhysical(address: number, size: 1 | 2 | 4): number {
    return this.#bus.read(address, size);
  }

  /** Writes physical memory. */
  writePhysical(address: number, size: 1 | 2 | 4, value: number): void {
    this.sanitizer?.stored(this.#cpu, address, size);
    this.#bus.write(address, size, value);
  }

  /**
   * Host-physical address at which the bytes of a guest-physical one are read where EPT translates: for loads of PDPTE registers.
   *
   * @throws {typeof FAULT} with a VM exit (or #VE) pending.
   */
  guestPhysicalRead(low: number, high: number): number {
    return this.translator.readGuestPhysical(low, high, 3);
  }

  // ---- for engines: nothing is thrown

  /**
   * Host address at which `bytes` bytes (at most 64) stand in a row, or 0 with S.EXIT set to EXIT_FAULT or EXIT_RETRY.
   *
   * @param seg Segment number, for the exception that a non-canonical address gives.
   */
  loadSlow(linLow: number, linHigh: number, bytes: number, seg: number): number {
    return this.#loadable(linLow, linHigh, bytes, seg === SEG.SS ? STACK : 0);
  }

  /** Stores `bytes` bytes (at most 64) that stand in S.SPILL. Returns EXIT_NONE, or EXIT_FAULT or EXIT_RETRY with nothing stored. */
  storeSlow(linLow: number, linHigh: number, bytes: number, seg: number): number {
    return this.#store(linLow, linHigh, this.#base + S.SPILL, bytes, seg === SEG.SS ? STACK : 0);
  }

  /** Whether `bytes` bytes may be written: EXIT_NONE, EXIT_FAULT or EXIT_RETRY. Changes nothing but accessed and dirty flags. */
  probeSlow(linLow: number, linHigh: number, bytes: number, seg: number): number {
    return this.#check(linLow, linHigh, bytes, true, seg === SEG.SS ? STACK : 0);
  }

  /**
   * Host address of `bytes` bytes to be read and then written in place, or 0 with S.EXIT set. Where the bytes can't be touched in
   * place the address is S.SPILL's and S.SPILLSIZE is not 0: then the engine calls {@link spillFlush} after it has written.
   */
  rmwSlow(linLow: number, linHigh: number, bytes: number, seg: number): number {
    if (!this.#locate(linLow, linHigh, bytes, true, seg === SEG.SS ? STACK : 0)) return 0;
    if (this.#split === 0 && this.#apicOffset < 0) {
      const flags = this.#physical.flags(this.#at);
      if (
        flags === PAGE_RAM || (flags === (PAGE_RAM | PAGE_CODE) && !this.#physical.hitsCode(this.#at, bytes))
      ) {
        this.sanitizer?.stored(this.#cpu, this.#at, bytes);
        return RAM_BASE + this.#at;
      }
    }
    if (this.#mustStepToWrite(bytes)) return 0;
    const spill = this.#base + S.SPILL, first = this.#split || bytes;
    this.#physical.get(this.#at, spill, first);
    if (first !== bytes) this.#physical.get(this.#at2, spill + first, bytes - first);
    this.#i32[(this.#base + S.SPILLSIZE) >>> 2] = bytes;
    this.#cpu.set64Halves(S.SPILLADDR, linLow, linHigh);
    this.#spillAt = this.#at;
    this.#spillAt2 = this.#at2;
    this.#spillSplit = this.#split;
    this.#spillApic = this.#apicOffset;
    return spill;
  }

  /** Carries out the store that waits in S.SPILL after {@link rmwSlow}; nothing if none does. */
  spillFlush(): void {
    const at = (this.#base + S.SPILLSIZE) >>> 2;
    const bytes = this.#i32[at]!;
    if (bytes === 0) return;
    this.#i32[at] = 0;
    const spill = this.#base + S.SPILL, first = this.#spillSplit || bytes;
    this.#physical.put(this.#spillAt, spill, first);
    if (first !== bytes) this.#physical.put(this.#spillAt2, spill + first, bytes - first);
    if (this.#spillApic >= 0) noteApicWrite(this.#cpu, this.#spillApic);
  }

  /** Segment check outside 64-bit mode (in it: always EXIT_NONE). EXIT_FAULT: #GP(0), or #SS(0) for SS, is recorded. */
  segCheck(seg: number, offset: number, bytes: number, write: boolean | number): number {
    const s = this.#base, i32 = this.#i32;
    if (i32[(s + S.CODEMODE) >>> 2] === 2) return EXIT_NONE;
    const ar = i32[(s + S.SEGAR + seg * 4) >>> 2]!;
    const limit = this.#u32[(s + S.SEGLIMIT + seg * 4) >>> 2]!;
    const start = offset >>> 0, last = start + bytes - 1;
    let allowed = (ar & (AR_UNUSABLE | AR_PRESENT | AR_S)) === (AR_PRESENT | AR_S);
    if (ar & 8) allowed &&= !write && (ar & 2) !== 0;
    else if (write) allowed &&= (ar & 2) !== 0;
    if ((ar & 0xc) === 4) allowed &&= start > limit && last <= (ar & AR_DB ? 0xffff_ffff : 0xffff);
    else allowed &&= last <= limit;
    return allowed ? EXIT_NONE : this.#cpu.setFault(seg === SEG.SS ? VECTOR.SS : VECTOR.GP, 0);
  }

  // ---- instruction fetch

  /**
   * Translates for an instruction fetch at the current CPL.
   *
   * @returns The physical address of the page (which need not be RAM), or −1 with the fault recorded.
   */
  fetchPage(linLow: number, linHigh: number): number {
    const cpu = this.#cpu, i32 = this.#i32, s = this.#base;
    if (!isCanonical(linHigh, (i32[(s + S.CR4) >>> 2]! & CR4_LA57) !== 0)) {
      cpu.setFault(VECTOR.GP, 0);
      return -1;
    }
    const access = i32[(s + S.CPL) >>> 2] === 3 ? ACCESS.FETCH | ACCESS.USER : ACCESS.FETCH;
    const translator = this.translator;
    const code = translator.translate(linLow, linHigh, access);
    if (code !== -1) {
      translator.refuse(linLow, linHigh, code);
      return -1;
    }
    if (i32[(s + S.VMX_MODE) >>> 2] === 2 && this.#isApicPage(translator.page)) {
      apicAccess(cpu, linLow & 0xfff, 1, false, true);
      return -1;
    }
    this.#fetchLow = linLow & ~0xfff;
    this.#fetchHigh = linHigh | 0;
    this.#fetchShift = translator.shift;
    this.#fetchGlobal = translator.global;
    return translator.page;
  }

  /**
   * Puts the page of the last {@link fetchPage} in the fetch table of the context in force. Where translations are counted or
   * checked (`geometry`, sanitizer) the fetch tables hold one entry in all, so that each change of page is seen.
   *
   * @param slotTable What the engine wants to find there: the address of the page's slot table.
   */
  fillFetch(linLow: number, linHigh: number, slotTable: number): void {
    if ((linLow & ~0xfff) !== this.#fetchLow || (linHigh | 0) !== this.#fetchHigh) return;
    const context = this.#i32[(this.#base + S.TLBCTX) >>> 2]!;
    const { fast } = this.tlb;
    if (this.#bypass) {
      fast.fill(context, FTLB_FETCH, linLow, linHigh | 0, slotTable, this.#fetchShift, this.#fetchGlobal);
    } else fast.fillOnlyFetch(context, linLow, linHigh | 0, slotTable, this.#fetchShift, this.#fetchGlobal);
  }

  // ---- the access at hand

  /** Translates an access, both pages of one that crosses; false with the fault recorded. Fills the fast TLB. */
  #locate(linLow: number, linHigh: number, bytes: number, write: boolean, how: number): boolean {
    this.#apicOffset = -1;
    // What the fast TLB holds is used here too, so that a translation lasts as long whichever way an engine takes.
    const context = how & IMPLICIT ? this.#implicitContext() : this.#i32[(this.#base + S.TLBCTX) >>> 2]!;
    const e = (context + (write ? FTLB_WRITE : FTLB_READ) +
      ((linLow >>> 12) & (FTLB_ENTRIES - 1)) * FTLB_ENTRY_BYTES) >>> 2;
    if (
      (this.#i32[e]! & ~FTLB_HELD) === ((linLow + bytes - 1) & ~0xfff) && this.#i32[e + 1] === (linHigh | 0)
    ) {
      this.#at = ((this.#i32[e + 2]! + linLow) >>> 0) - RAM_BASE;
      this.#split = 0;
      return true;
    }
    if (!this.#canonical(linLow, linHigh | 0, bytes, how)) return false;
    const i32 = this.#i32, s = this.#base;
    let access = write ? ACCESS.WRITE : ACCESS.READ;
    if (how & IMPLICIT) {
      if (i32[(s + S.CR4) >>> 2]! & CR4_SMAP) access |= ACCESS.SMAP;
    } else if (i32[(s + S.CPL) >>> 2] === 3) access |= ACCESS.USER;
    else if (i32[(s + S.CR4) >>> 2]! & CR4_SMAP && !(i32[(s + S.RFLAGS) >>> 2]! & RFLAGS.AC)) {
      access |= ACCESS.SMAP;
    }
    const translator = this.translator;
    const code = translator.translate(linLow, linHigh, access);
    if (code !== -1) {
      translator.refuse(linLow, linHigh, code);
      return false;
    }
    const inPage = linLow & 0xfff;
    this.#at = translator.page + inPage;
    this.#split = 0;
    if (i32[(s + S.VMX_MODE) >>> 2] === 2 && this.#isApicPage(translator.page)) {
      return this.#locateApic(inPage, bytes, write);
    }
    if (this.#bypass) this.#fill(linLow, linHigh | 0, access, how);
    if (inPage + bytes > 4096) {
      const nextLow = (linLow & ~0xfff) + 4096;
      const wraps = (nextLow | 0) === 0 && i32[(s + S.CODEMODE) >>> 2] === 2;
      const nextHigh = wraps ? (linHigh + 1) | 0 : linHigh | 0;
      const nextCode = translator.translate(nextLow | 0, nextHigh, access);
      if (nextCode !== -1) {
        translator.refuse(nextLow | 0, nextHigh, nextCode);
        return false;
      }
      if (i32[(s + S.VMX_MODE) >>> 2] === 2 && this.#isApicPage(translator.page)) {
        // No access that crosses pages is virtualized: this asks for the exit.
        return this.#locateApic(0, 8, write);
      }
      this.#at2 = translator.page;
      this.#split = 4096 - inPage;
    }
    if (i32[(s + S.RFLAGS) >>> 2]! & RFLAGS.AC && !(how & IMPLICIT) && alignmentChecked(this.#cpu)) {
      if (linLow & (alignmentOf(bytes) - 1)) {
        this.#cpu.setFault(VECTOR.AC, 0);
        return false;
      }
    }
    const dr7 = i32[(s + S.DR + 56) >>> 2]!;
    if (dr7 & 0xff && this.onDataAccess !== undefined && dataBreakpoints(dr7)) {
      this.onDataAccess(linLow, linHigh, bytes, write);
    }
    return true;
  }

  /** Whether a physical page is the APIC-access page of the VMX guest that runs. It never enters the fast TLB. */
  #isApicPage(page: number): boolean {
    const at = (this.#base + S.VMX_APIC_ACCESS) >>> 2;
    return this.#i32[at + 1] !== -1 && this.#u32[at + 1]! * TWO32 + this.#u32[at]! === page;
  }

  /** An access to the APIC-access page: its bytes are in the virtual-APIC page, or it is a VM exit (false). */
  #locateApic(offset: number, bytes: number, write: boolean): boolean {
    const at = apicAccess(this.#cpu, offset, bytes, write);
    if (at < 0) return false;
    this.#at = at;
    if (write) this.#apicOffset = offset;
    return true;
  }

  /** Puts the translation at hand in the fast TLB, if its page and the state of the processor let it. */
  #fill(linLow: number, linHigh: number, access: number, how: number): void {
    const context = how & IMPLICIT ? this.#implicitContext() : this.#i32[(this.#base + S.TLBCTX) >>> 2]!;
    if (context - this.#i32[(this.#base + S.TLBBANK) >>> 2]! >= CHECKED_FROM) return;
    const translator = this.translator, { page, shift, global } = translator;
    const flags = this.#physical.flags(page);
    if ((flags & (PAGE_RAM | PAGE_WATCH)) !== PAGE_RAM) return;
    const value = (RAM_BASE + page - (linLow & ~0xfff)) | 0;
    const { fast } = this.tlb;
    this.#cpu.counters.fastFills++;
    // The kind of access at hand takes its entry; the other kind only one that nobody uses. So a copy whose source and
    // destination have equal indices keeps both.
    const write = (access & ACCESS.WRITE) !== 0;
    if (!write || !fast.isTaken(context, FTLB_READ, linLow, linHigh)) {
      fast.fill(context, FTLB_READ, linLow, linHigh, value, shift, global);
    }
    if ((flags & ~PAGE_CODE) !== PAGE_RAM) return;
    if (write || (!fast.isTaken(context, FTLB_WRITE, linLow, linHigh) && translator.grantsWrite(access))) {
      fast.fill(context, FTLB_WRITE, linLow, linHigh, value, shift, global, flags !== PAGE_RAM);
    }
  }

  #implicitContext(): number {
    const i32 = this.#i32, s = this.#base;
    const dr7 = i32[(s + S.DR + 56) >>> 2]!;
    const context = dr7 & 0xff && dataBreakpoints(dr7)
      ? CONTEXT.SUPERVISOR_CHECKED
      : i32[(s + S.CR4) >>> 2]! & CR4_SMAP
      ? CONTEXT.SUPERVISOR_SMAP
      : CONTEXT.SUPERVISOR;
    return i32[(s + S.TLBBANK) >>> 2]! + context * FTLB_CONTEXT_BYTES;
  }

  /** False, with #GP(0) or #SS(0) recorded, when a byte of the access is not canonical. */
  #canonical(linLow: number, linHigh: number, bytes: number, how: number): boolean {
    const la57 = (this.#i32[(this.#base + S.CR4) >>> 2]! & CR4_LA57) !== 0;
    let good = isCanonical(linHigh, la57);
    if (good && (linLow >>> 0) + bytes > TWO32 && this.#i32[(this.#base + S.CODEMODE) >>> 2] === 2) {
      good = isCanonical(linHigh + 1, la57);
    }
    if (!good) this.#cpu.setFault(how & STACK ? VECTOR.SS : VECTOR.GP, 0);
    return good;
  }

  /** True, with EXIT_RETRY set, when a read of the located bytes would reach a device and may not now. */
  #mustStep(bytes: number): boolean {
    let plain = (this.#physical.flags(this.#at) & PAGE_RAM) !== 0;
    if (this.#split !== 0 && this.#split < bytes) {
      plain &&= (this.#physical.flags(this.#at2) & PAGE_RAM) !== 0;
    }
    return !plain && this.#retry();
  }

  #mustStepToWrite(bytes: number): boolean {
    const first = this.#split || bytes;
    let defer = this.#apicOffset >= 0 || this.#physical.defersWrite(this.#at, first);
    if (first !== bytes) defer ||= this.#physical.defersWrite(this.#at2, bytes - first);
    return defer && this.#retry();
  }

  #retry(): boolean {
    if (this.#i32[(this.#base + S.STEPPING) >>> 2] !== 0) return false;
    this.#i32[(this.#base + S.EXIT) >>> 2] = EXIT_RETRY;
    return true;
  }

  #loadable(linLow: number, linHigh: number, bytes: number, how: number): number {
    if (!this.#locate(linLow, linHigh, bytes, false, how)) return 0;
    if (this.#split === 0 && this.#physical.flags(this.#at) & PAGE_RAM) return RAM_BASE + this.#at;
    if (this.#mustStep(bytes)) return 0;
    const spill = this.#base + S.SPILL, first = this.#split || bytes;
    this.#physical.get(this.#at, spill, first);
    if (first !== bytes) this.#physical.get(this.#at2, spill + first, bytes - first);
    return spill;
  }

  #check(linLow: number, linHigh: number, bytes: number, write: boolean, how: number): number {
    if (!this.#locate(linLow, linHigh, bytes, write, how)) return EXIT_FAULT;
    return (write ? this.#mustStepToWrite(bytes) : this.#mustStep(bytes)) ? EXIT_RETRY : EXIT_NONE;
  }

  /** Probes a block of any size, in pieces that cross at most one page border each. */
  #probeAll(linLow: number, linHigh: number, bytes: number, write: boolean, how: number): void {
    for (let done = 0; done < bytes; done += 4096) {
      const at = (linLow >>> 0) + done, high = (linHigh + (at >= TWO32 ? 1 : 0)) | 0;
      const piece = Math.min(4096, bytes - done);
      if (this.#check(at | 0, high, piece, write, how) !== EXIT_NONE) throw FAULT;
    }
  }

  #store(linLow: number, linHigh: number, hostSource: number, bytes: number, how: number): number {
    if (!this.#locate(linLow, linHigh, bytes, true, how)) return EXIT_FAULT;
    if (this.#mustStepToWrite(bytes)) return EXIT_RETRY;
    const first = this.#split || bytes;
    const at2 = this.#at2;
    this.#physical.put(this.#at, hostSource, first);
    if (first !== bytes) this.#physical.put(at2, hostSource + first, bytes - first);
    if (this.#apicOffset >= 0) noteApicWrite(this.#cpu, this.#apicOffset);
    return EXIT_NONE;
  }
}

/** Alignment that #AC asks for (SDM vol. 3A, "Alignment Requirements by Data Type"). */
function alignmentOf(bytes: number): number {
  if (bytes === 2 || bytes === 4 || bytes === 8 || bytes === 16) return bytes;
  return bytes === 10 ? 8 : bytes === 6 ? 4 : 1;
}
