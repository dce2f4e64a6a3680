/**
 * The EPT walker: from a guest-physical to a host-physical address through the tables that the EPT pointer in force names.
 *
 * Entry by entry it finds what is not present or misconfigured; rights are judged when all levels are read, so that a misconfigured
 * lower entry comes before a right that an upper one lacks (SDM vol. 3C, "EPT Translation Mechanism", "EPT-Induced VM Exits").
 * Accessed and dirty flags are set only by a walk that succeeds, in all its entries at once, after page-modification logging had
 * room ("Accessed and Dirty Flags for EPT", "Page-Modification Logging"). As everywhere in the machine, nothing happens between the
 * read of an entry and the store of its flags.
 *
 * Results stand in fields until the next walk; nothing is allocated. A `pure` walker changes nothing and asks no device.
 *
 * Room: `hw/`; imports ept_format.ts, state.ts, trace.ts, and cpu.ts by its type. Knows no cache: ept_translate.ts does.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import * as format from "./ept_format.ts";
import { type EptFeatures, eptReservedBits } from "./ept_format.ts";
import * as state from "./state.ts";
import * as trace from "./trace.ts";

// Bound here so that the optimiser folds them into the code (see the note in paging.ts).
const { EPT_EXIT, EPTE, EPTE_SUPPRESS_VE, EPTP } = format;
const { PAGE_FLAGS_BASE, PAGE_RAM, RAM_BASE, S } = state;
const { TRACE } = trace;

const TWO32 = 0x1_0000_0000;
/** Rights bits of an entry. */
const RIGHTS = EPTE.R | EPTE.W | EPTE.X | EPTE.XU;

/** The page-modification log of a processor, as far as the walker needs it. */
export interface ModificationLog {
  /** Whether "enable PML" is 1. */
  readonly enabled: boolean;
  /** Whether the log has no room: the PML index is above 511. */
  readonly full: boolean;
  /** Writes a guest-physical address (its low 12 bits cleared) and moves the index. */
  append(gpaLow: number, gpaHigh: number): void;
}

/** Options of an {@link EptWalker}. */
export interface EptWalkerOptions {
  /** Changes nothing, counts nothing, tells nothing. */
  readonly pure: boolean;
  /** Stores the low half of an entry that is not in plain RAM. */
  readonly storeSlow: (physical: number, value: number) => void;
  /** Undefined: the machine has no page-modification logging. */
  readonly log?: ModificationLog | undefined;
}

/** Walks the EPT of one processor. */
export class EptWalker {
  /** Host-physical address of the 4-KiB page that holds the guest-physical address. */
  page = 0;
  /** log2 of the size of the page found: 12, 21 or 30. */
  shift = 12;
  /** AND of the rights ({@link EPTE} R, W, X, XU) of all entries read; 0 when the last one is not present. XU is X without mode-based control. */
  rights = 0;
  /** Whether a write needs no further flag: the leaf's D is set, or the EPT pointer enables none. */
  dirty = false;
  /** Bits of the leaf, low half. */
  leaf = 0;
  /** Whether bit 63 of the entry where the walk ended keeps an EPT violation from becoming a #VE. */
  suppressed = false;
  /** Level of the first entry read. */
  startLevel = 0;
  /** Level of the last entry read. */
  lastLevel = 0;

  readonly #cpu: Cpu;
  readonly #pure: boolean;
  readonly #storeSlow: (physical: number, value: number) => void;
  readonly #log: ModificationLog | undefined;
  readonly #executeOnly: boolean;
  readonly #i32: Int32Array;
  readonly #u8: Uint8Array;
  readonly #base: number;
  /** Index (level·2 + leaf)·2: reserved low and high half. */
  readonly #reserved = new Int32Array(6 * 4);
  /** By level (times 4), of the last walk: address of the entry (low, high), its low half as read, rights gathered above it. */
  readonly #path = new Int32Array(6 * 4);

  /** @param features What the processor model says about EPT. */
  constructor(cpu: Cpu, features: EptFeatures, options: EptWalkerOptions) {
    this.#cpu = cpu;
    this.#pure = options.pure;
    this.#storeSlow = options.storeSlow;
    this.#log = options.log;
    this.#executeOnly = features.executeOnly;
    this.#i32 = cpu.memory.i32;
    this.#u8 = cpu.memory.u8;
    this.#base = cpu.base;
    for (let level = 1; level <= 5; level++) {
      for (const leaf of [false, true]) {
        const { low, high } = eptReservedBits(level, leaf, features);
        this.#reserved[level * 4 + (leaf ? 2 : 0)] = low;
        this.#reserved[level * 4 + (leaf ? 3 : 1)] = high;
      }
    }
  }

  /** Entries that the last walk read. */
  get references(): number {
    return this.startLevel === 0 ? 0 : this.startLevel - this.lastLevel + 1;
  }
  /** Host-physical address of the table that the last walk indexed at `level`. */
  tableAt(level: number): number {
    return this.#path[level * 4 + 1]! * TWO32 + ((this.#path[level * 4]! & ~0xfff) >>> 0);
  }
  /** Host-physical address of the entry that the last walk read at `level`. */
  entryAt(level: number): number {
    return this.#path[level * 4 + 1]! * TWO32 + (this.#path[level * 4]! >>> 0);
  }
  /** Rights that the last walk gathered above the entry of `level`. */
  rightsAbove(level: number): number {
    return this.#path[level * 4 + 3]!;
  }

  /**
   * Walks from the root of the EPT pointer in force.
   *
   * @param low Guest-physical address, low half.
   * @param high Its upper half.
   * @param need Rights that the access needs ({@link EPTE} bits).
   * @param slot For reports: the guest level whose entry is wanted, 0 for the translation of a linear address.
   * @returns −1 when the access is allowed, else the basic exit reason: 48, 49 or 62.
   */
  walk(low: number, high: number, need: number, slot: number): number {
    const i = (this.#base + S.VMX_EPTP) >>> 2;
    const eptp = this.#i32[i]!;
    const levels = ((eptp & EPTP.LENGTH) >>> 3) + 1;
    if (levels === 4 && high >>> 16 !== 0) {
      // Wider than four levels can translate: "EPT Translation Mechanism". There is no entry to look at.
      this.startLevel = this.lastLevel = 0;
      this.rights = 0;
      this.suppressed = false;
      return EPT_EXIT.VIOLATION;
    }
    return this.walkFrom(low, high, need, slot, levels, eptp & ~0xfff, this.#i32[i + 1]!, RIGHTS);
  }

  /**
   * As {@link walk}, from a table that is known already (a cached guest-physical paging-structure entry).
   *
   * @param from Level of the entries in the table.
   * @param fromLow Host-physical address of the table, low half.
   * @param fromHigh Its upper half.
   * @param above Rights gathered above it.
   */
  walkFrom(
    low: number,
    high: number,
    need: number,
    slot: number,
    from: number,
    fromLow: number,
    fromHigh: number,
    above: number,
  ): number {
    const i32 = this.#i32, path = this.#path, reserved = this.#reserved;
    const modeBased = (i32[(this.#base + S.VMX_PROC2) >>> 2]! & MODE_BASED) !== 0;
    const present = modeBased ? RIGHTS : RIGHTS & ~EPTE.XU;
    const traced = !this.#pure && (this.#cpu.trace.wants & TRACE.reference) !== 0;
    let level = from | 0, tableLow = fromLow | 0, tableHigh = fromHigh | 0, rights = above | 0;
    let entryLow = 0, entryHigh = 0, at = 0, reason = -1;
    for (;;) {
      at = (tableLow + indexAt(level, low, high) * 8) | 0;
      path[level * 4] = at;
      path[level * 4 + 1] = tableHigh;
      path[level * 4 + 3] = rights;
      const word = this.#word(at, tableHigh);
      if (word >= 0) {
        entryLow = i32[word]!;
        entryHigh = i32[word + 1]!;
      } else {
        entryLow = this.#readSlow(at, tableHigh);
        entryHigh = this.#readSlow((at + 4) | 0, tableHigh);
      }
      path[level * 4 + 2] = entryLow;
      if (traced) this.#trace(slot, level, at, tableHigh, entryLow, entryHigh, low, high);
      if (!(entryLow & present)) {
        rights = 0;
        reason = EPT_EXIT.VIOLATION;
        break;
      }
      const leaf = level === 1 || (level < 4 && (entryLow & EPTE.PS) !== 0);
      const r = level * 4 + (leaf ? 2 : 0);
      if (
        (entryLow & (EPTE.R | EPTE.W)) === EPTE.W || (!(entryLow & EPTE.R) && !this.#executeOnly) ||
        ((entryLow & reserved[r]!) | (entryHigh & reserved[r + 1]!)) !== 0 ||
        (leaf && BAD_TYPES >>> ((entryLow & EPTE.TYPE) >>> 3) & 1)
      ) {
        reason = EPT_EXIT.MISCONFIGURATION;
        break;
      }
      // Without mode-based control bit 10 is ignored, and bit 2 is for all fetches.
      rights &= modeBased ? entryLow : entryLow & EPTE.X ? entryLow | EPTE.XU : entryLow & ~EPTE.XU;
      if (leaf) break;
      tableLow = entryLow & ~0xfff;
      tableHigh = entryHigh & 0xf_ffff;
      level = (level - 1) | 0;
    }
    this.startLevel = from;
    this.lastLevel = level;
    this.rights = rights;
    this.suppressed = (entryHigh & EPTE_SUPPRESS_VE) !== 0;
    if (!this.#pure) this.#cpu.counters.countEptWalk(slot, from, level);
    if (reason < 0 && need & ~rights) reason = EPT_EXIT.VIOLATION;
    if (reason >= 0) return reason;
    this.leaf = entryLow;
    this.shift = level === 1 ? 12 : level === 2 ? 21 : 30;
    const inside = level === 1 ? 0 : level === 2 ? 0x1f_f000 : 0x3fff_f000;
    this.page = (entryHigh & 0xf_ffff) * TWO32 + (((entryLow & ~(inside | 0xfff)) | (low & inside)) >>> 0);
    return this.#setFlags(from, level, need, low, high);
  }

  /** Sets A in all entries of the path, and on a write D in the leaf, where the EPT pointer enables that. Returns −1, or 62 with nothing set. */
  #setFlags(from: number, last: number, need: number, gpaLow: number, gpaHigh: number): number {
    this.dirty = true;
    if (!(this.#i32[(this.#base + S.VMX_EPTP) >>> 2]! & EPTP.AD)) return -1;
    const path = this.#path;
    const leaf = path[last * 4 + 2]!;
    const dirties = (need & EPTE.W) !== 0 && !(leaf & EPTE.D);
    this.dirty = (leaf & EPTE.D) !== 0 || dirties;
    if (this.#pure) return -1;
    let wanting = dirties;
    for (let level = from; level >= last; level--) wanting ||= !(path[level * 4 + 2]! & EPTE.A);
    if (!wanting) return -1;
    const log = this.#log;
    const logged = log !== undefined && log.enabled;
    if (logged && log.full) return EPT_EXIT.PML_FULL;
    const { counters } = this.#cpu;
    for (let level = from; level >= last; level--) {
      const entry = path[level * 4 + 2]!;
      const flags = entry | EPTE.A | (level === last && dirties ? EPTE.D : 0);
      if (flags === entry) continue;
      if (!(entry & EPTE.A)) counters.eptAccessedSet++;
      path[level * 4 + 2] = flags;
      this.#store(path[level * 4]!, path[level * 4 + 1]!, flags);
    }
    if (dirties) {
      counters.eptDirtySet++;
      if (logged) log.append(gpaLow & ~0xfff, gpaHigh);
    }
    return -1;
  }

  /** Index in the 32-bit view of memory of an entry in RAM, or −1. */
  #word(low: number, high: number): number {
    return high === 0 && this.#u8[PAGE_FLAGS_BASE + (low >>> 12)]! & PAGE_RAM ? (RAM_BASE + low) >>> 2 : -1;
  }

  /** A word that is not in RAM. A pure walk asks no device: to it there is nothing there. */
  #readSlow(at: number, high: number): number {
    return this.#pure ? -1 : this.#cpu.bus.read(high * TWO32 + (at >>> 0), 4) | 0;
  }

  #store(at: number, high: number, value: number): void {
    const word = this.#word(at, high);
    if (word >= 0 && this.#u8[PAGE_FLAGS_BASE + (at >>> 12)] === PAGE_RAM) this.#i32[word] = value;
    else this.#storeSlow(high * TWO32 + (at >>> 0), value);
  }

  #trace(
    slot: number,
    level: number,
    at: number,
    high: number,
    entryLow: number,
    entryHigh: number,
    gpaLow: number,
    gpaHigh: number,
  ): void {
    const cpu = this.#cpu;
    cpu.trace.emit({
      kind: "reference",
      cpu: cpu.id,
      time: cpu.now(),
      level,
      physical: high * TWO32 + (at >>> 0),
      value: (BigInt(entryHigh >>> 0) << 32n) | BigInt(entryLow >>> 0),
      ept: { guestLevel: slot, guestPhysical: (gpaHigh >>> 0) * TWO32 + (gpaLow >>> 0) },
    });
  }
}

/** "Mode-based execute control for EPT" among the secondary controls. */
const MODE_BASED = 1 << 22;
/** Memory types that do not exist, as bits: 2, 3 and 7. */
const BAD_TYPES = 1 << 2 | 1 << 3 | 1 << 7;

/** Index into the table of `level`. */
function indexAt(level: number, low: number, high: number): number {
  switch (level) {
    case 1:
      return (low >>> 12) & 511;
    case 2:
      return (low >>> 21) & 511;
    case 3:
      return ((low >>> 30) | (high << 2)) & 511;
    case 4:
      return (high >>> 7) & 511;
    default:
      return (high >>> 16) & 511;
  }
}
