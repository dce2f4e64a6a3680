/**
 * An EPT walk told as a record: every entry decoded, and why the access is allowed, a violation or a misconfiguration. Changes nothing,
 * asks no device: for reports of VM exits, the inspector and the sanitizer. explain_walk.ts puts it beside the guest's own walk.
 *
 * It follows ept_format.ts one level at a time in plain bigints, and is the slow twin of `EptWalker`; a test compares the two.
 *
 * Room: `hw/`; imports ept_format.ts, and cpu.ts by its type.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import {
  EPT_ENTRY_NAMES,
  EPTE,
  type EptFeatures,
  eptLevels,
  type EptMisconfiguration,
  eptMisconfiguration,
  EPTP,
  eptPageShift,
  eptPresentMask,
  eptReservedBits,
  isEptLeaf,
  isEptPresent,
  memoryTypeName,
} from "./ept_format.ts";
import { RAM_BASE, S } from "./state.ts";

/** An access to a guest-physical address. Left out: a data read. */
export interface ExplainedEptAccess {
  /** A data read. */
  readonly read?: boolean;
  /** A data write. */
  readonly write?: boolean;
  /** An instruction fetch. */
  readonly fetch?: boolean;
  /** Whether a fetch is from a user-mode linear address; counts under mode-based execute control. */
  readonly userLinear?: boolean;
}

/** What to explain with; left out: what is in force in non-root operation. */
export interface ExplainedEptContext {
  /** EPT pointer. */
  readonly eptp?: bigint;
  /** "Mode-based execute control for EPT". */
  readonly modeBased?: boolean;
}

export type { EptMisconfiguration } from "./ept_format.ts";
/** The SDM's names of EPT entries. */
export type EptEntryName = "EPT PTE" | "EPT PDE" | "EPT PDPTE" | "EPT PML4E" | "EPT PML5E" | "";

/** One EPT entry of the path. */
export interface ExplainedEptEntry {
  /** The SDM's name of an entry of this level. */
  readonly name: EptEntryName;
  /** 1 = EPT page table … 5 = EPT PML5 table. */
  readonly level: number;
  /** Host-physical address of the entry. */
  readonly physical: number;
  /** Index in its table. */
  readonly index: number;
  /** The entry. */
  readonly value: bigint;
  /** Whether any access is allowed; if not, the rest means nothing. */
  readonly present: boolean;
  /** Bit R. */
  readonly readable: boolean;
  /** Bit W. */
  readonly writable: boolean;
  /** Bit X. */
  readonly executable: boolean;
  /** Bit 10 under mode-based execute control, otherwise bit X. */
  readonly userExecutable: boolean;
  /** Maps a page. */
  readonly leaf: boolean;
  /** Memory type of a leaf. */
  readonly memoryType: string | undefined;
  /** Bit IPAT of a leaf. */
  readonly ignorePat: boolean;
  /** Bit A, where the EPT pointer enables it. */
  readonly accessed: boolean;
  /** Bit D of a leaf, where the EPT pointer enables it. */
  readonly dirty: boolean;
  /** Bit 63. */
  readonly suppressVe: boolean;
  /** Reserved bits that are set. */
  readonly reserved: bigint;
  /** Why the entry is misconfigured. */
  readonly misconfiguration: EptMisconfiguration | undefined;
  /** Host-physical address of the table or page that it leads to. */
  readonly address: number;
}

/** How an EPT walk ends. */
export type ExplainedEptOutcome =
  | {
    readonly kind: "mapped";
    /** Host-physical address of the byte. */
    readonly physical: number;
    readonly pageBytes: number;
    /** Name of the memory type in the leaf. */
    readonly memoryType: string;
    readonly ignorePat: boolean;
  }
  | {
    readonly kind: "violation";
    readonly reason: string;
    /** Bits 6:0 of the exit qualification. */
    readonly qualification: number;
    /** Whether it could become a #VE: bit 63 of the last entry is clear. */
    readonly convertible: boolean;
  }
  | { readonly kind: "misconfiguration"; readonly reason: string };

/** An EPT walk, told. */
export interface EptExplanation {
  /** The guest-physical address. */
  readonly guestPhysical: number;
  /** EPT pointer. */
  readonly eptp: bigint;
  /** Levels of the tables. */
  readonly levels: number;
  /** Whether accessed and dirty flags are enabled. */
  readonly accessedDirty: boolean;
  /** Entries read, root first. */
  readonly entries: readonly ExplainedEptEntry[];
  /** How it ended. */
  readonly outcome: ExplainedEptOutcome;
}

/** Explains how EPT translates a guest-physical address now, for this access. The caches are not asked. */
export function explainEpt(
  cpu: Cpu,
  guestPhysical: number,
  access: ExplainedEptAccess = {},
  context: ExplainedEptContext = {},
): EptExplanation {
  const eptp = context.eptp ?? cpu.get64(S.VMX_EPTP);
  const modeBased = context.modeBased ?? (cpu.get32(S.VMX_PROC2) & 1 << 22) !== 0;
  const features = cpu.access.eptFeatures;
  const low = Number(eptp & 0xfffn), levels = eptLevels(low), accessedDirty = (low & EPTP.AD) !== 0;
  const entries: ExplainedEptEntry[] = [];
  const told = (outcome: ExplainedEptOutcome): EptExplanation => ({
    guestPhysical,
    eptp,
    levels,
    accessedDirty,
    entries,
    outcome,
  });
  const wanted = wantedRights(access, modeBased);
  const bits = (access.write ? 2 : 0) | (access.fetch ? 4 : 0) | (access.read || !wanted.other ? 1 : 0);
  const gpa = BigInt(guestPhysical);
  if (levels === 4 && gpa >> 48n !== 0n) {
    return told({
      kind: "violation",
      reason: "the address is wider than four levels of EPT translate",
      qualification: bits,
      convertible: true,
    });
  }
  let rights: number = EPTE.R | EPTE.W | EPTE.X | EPTE.XU;
  let table = Number(eptp & 0xf_ffff_ffff_f000n);
  for (let level = levels; level >= 1; level--) {
    const index = Number((gpa >> BigInt(eptPageShift(level))) & 511n);
    const entry = decode(cpu, level, table + index * 8, index, features, modeBased, accessedDirty);
    entries.push(entry);
    const convertible = !entry.suppressVe;
    if (!entry.present) {
      const reason = `${entry.name} is not present`;
      return told({ kind: "violation", reason, qualification: bits, convertible });
    }
    if (entry.misconfiguration !== undefined) {
      return told({ kind: "misconfiguration", reason: `${entry.name}: ${whyMisconfigured(entry)}` });
    }
    rights &= (entry.readable ? EPTE.R : 0) | (entry.writable ? EPTE.W : 0) |
      (entry.executable ? EPTE.X : 0) |
      (entry.userExecutable ? EPTE.XU : 0);
    if (!entry.leaf) {
      table = entry.address;
      continue;
    }
    const missing = wanted.rights & ~rights;
    if (missing !== 0) {
      const where = entries.filter((e) => lacks(e, missing)).map((e) => e.name).join(", ");
      const qualification = bits | ((rights & 7) << 3) | (modeBased && rights & EPTE.XU ? 0x40 : 0);
      return told({
        kind: "violation",
        reason: `${rightName(missing)} is not allowed by ${where}`,
        qualification,
        convertible,
      });
    }
    const pageBytes = 2 ** eptPageShift(level);
    return told({
      kind: "mapped",
      physical: entry.address + guestPhysical % pageBytes,
      pageBytes,
      memoryType: entry.memoryType!,
      ignorePat: entry.ignorePat,
    });
  }
  throw new Error("An EPT walk ends with a leaf");
}

/** A line for people about an entry: address, value, what it says. */
export function describeEptEntry(entry: ExplainedEptEntry): string {
  const value = `0x${entry.value.toString(16).padStart(16, "0")}`;
  const head = `${entry.name}[${entry.index}] at 0x${entry.physical.toString(16)} = ${value}`;
  if (!entry.present) return `${head} not present`;
  const rights = `${entry.readable ? "R" : "-"}${entry.writable ? "W" : "-"}${entry.executable ? "X" : "-"}`;
  const flags = `${entry.accessed ? " A" : ""}${entry.dirty ? " D" : ""}`;
  const page = entry.leaf ? ` page, ${entry.memoryType}${entry.ignorePat ? ", ignores PAT" : ""}` : " table";
  const wrong = entry.misconfiguration === undefined ? "" : `; misconfigured: ${whyMisconfigured(entry)}`;
  return `${head} ${rights}${flags}${page} 0x${entry.address.toString(16)}${wrong}`;
}

function whyMisconfigured(entry: ExplainedEptEntry): string {
  if (entry.misconfiguration === "reserved bits are set") {
    return `reserved bits are set: 0x${entry.reserved.toString(16)}`;
  }
  if (entry.misconfiguration === "memory type is reserved") {
    return `memory type ${Number((entry.value >> 3n) & 7n)} is reserved`;
  }
  return entry.misconfiguration!;
}

function wantedRights(access: ExplainedEptAccess, modeBased: boolean): { rights: number; other: boolean } {
  let rights = 0;
  if (access.read) rights |= EPTE.R;
  if (access.write) rights |= EPTE.W;
  if (access.fetch) rights |= modeBased && access.userLinear ? EPTE.XU : EPTE.X;
  return rights === 0 ? { rights: EPTE.R, other: false } : { rights, other: true };
}

function lacks(entry: ExplainedEptEntry, rights: number): boolean {
  return ((rights & EPTE.R) !== 0 && !entry.readable) || ((rights & EPTE.W) !== 0 && !entry.writable) ||
    ((rights & EPTE.X) !== 0 && !entry.executable) || ((rights & EPTE.XU) !== 0 && !entry.userExecutable);
}

function rightName(rights: number): string {
  if (rights & EPTE.R) return "reading";
  if (rights & EPTE.W) return "writing";
  return rights & EPTE.XU ? "execution from user-mode addresses" : "execution";
}

function decode(
  cpu: Cpu,
  level: number,
  physical: number,
  index: number,
  features: EptFeatures,
  modeBased: boolean,
  accessedDirty: boolean,
): ExplainedEptEntry {
  const { memory, bus } = cpu;
  const word = (at: number): number => bus.isPlain(at) ? memory.u32[(RAM_BASE + at) >>> 2]! : 0xffff_ffff;
  const low = word(physical) | 0, high = word(physical + 4) | 0;
  const value = (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
  const present = isEptPresent(low, eptPresentMask(modeBased));
  const leaf = isEptLeaf(level, low);
  const mask = eptReservedBits(level, leaf, features);
  const shift = BigInt(leaf ? eptPageShift(level) : 12);
  return {
    name: EPT_ENTRY_NAMES[level]!,
    level,
    physical,
    index,
    value,
    present,
    readable: (low & EPTE.R) !== 0,
    writable: (low & EPTE.W) !== 0,
    executable: (low & EPTE.X) !== 0,
    userExecutable: (low & (modeBased ? EPTE.XU : EPTE.X)) !== 0,
    leaf,
    memoryType: leaf ? memoryTypeName((low & EPTE.TYPE) >>> 3) : undefined,
    ignorePat: leaf && (low & EPTE.IPAT) !== 0,
    accessed: accessedDirty && (low & EPTE.A) !== 0,
    dirty: accessedDirty && leaf && (low & EPTE.D) !== 0,
    suppressVe: high < 0,
    reserved: present ? value & ((BigInt(mask.high >>> 0) << 32n) | BigInt(mask.low >>> 0)) : 0n,
    misconfiguration: present ? eptMisconfiguration(level, low, high, features) : undefined,
    address: Number((value & 0xf_ffff_ffff_f000n) >> shift << shift),
  };
}
