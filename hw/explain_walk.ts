/**
 * A page walk told as a record: every entry decoded, and why the access is allowed or refused. Changes nothing, asks no device:
 * for fault reports, the inspector and the sanitizer.
 *
 * It follows the tables of paging.ts (formats, reserved bits, rights) in plain bigints, one level at a time, and is the slow twin of
 * `Walker`; a test compares the two. In VMX non-root operation with EPT both dimensions stand side by side: each entry has the EPT walk of
 * its own address ({@link ExplainedEntry.ept}), and the translation of the linear address has one ({@link WalkExplanation.ept}).
 *
 * Room: `hw/`; imports paging.ts and explain_ept.ts, and cpu.ts by its type.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { describeEptEntry, type EptExplanation, explainEpt } from "./explain_ept.ts";
import { effectiveMemoryType, EPTP, MEMORY_TYPE, memoryTypeName } from "./ept_format.ts";
import {
  ACCESS,
  CR0_WP,
  CR4_PGE,
  CR4_PKE,
  CR4_PSE,
  CR4_SMAP,
  CR4_SMEP,
  EFER_NXE,
  keyDenies,
  PAGING_FORMATS,
  type PagingFeatures,
  type PagingLevel,
  type PagingMode,
  pagingMode,
  PF,
  PTE,
  reservedBits,
  reservedBits4M,
  RIGHT,
  RIGHTS_ALL,
  rightsDeny,
} from "./paging.ts";
import { RAM_BASE, RFLAGS, S } from "./state.ts";

export type { PagingLevel, PagingMode } from "./paging.ts";

/** The access to be explained. Left out: a data read at the current CPL, explicit. */
export interface ExplainedAccess {
  /** Whether it was a write. */
  readonly write?: boolean;
  /** An instruction fetch. */
  readonly fetch?: boolean;
  /** Made by user code; default: CPL = 3. */
  readonly user?: boolean;
  /** An implicit supervisor access (GDT, IDT, TSS …). */
  readonly implicit?: boolean;
  /** Whether SMAP applies to a supervisor access; default: by CR4, RFLAGS.AC and `implicit`. */
  readonly smap?: boolean;
}

/** One paging-structure entry of the path. */
export interface ExplainedEntry {
  /** The SDM's name of an entry of this level. */
  readonly name: PagingLevel["name"];
  /** 1 = page table … 5 = PML5 table. */
  readonly level: number;
  /** Physical address of the entry, guest-physical where EPT translates; −1 for a PDPTE of PAE paging, which is a register. */
  readonly physical: number;
  /** How EPT translates that address; undefined without EPT, and for a register. */
  readonly ept: EptExplanation | undefined;
  /** Index in its table. */
  readonly index: number;
  /** The value read or written. */
  readonly value: bigint;
  /** Bit P. */
  readonly present: boolean;
  /** Whether writes are allowed. */
  readonly writable: boolean;
  /** Whether user code made the access. */
  readonly user: boolean;
  /** Bit XD, where EFER.NXE makes it one. */
  readonly executeDisable: boolean;
  /** Bit A. */
  readonly accessed: boolean;
  /** Bit D of a leaf. */
  readonly dirty: boolean;
  /** Not bound to a PCID. */
  readonly global: boolean;
  /** Maps a page. */
  readonly leaf: boolean;
  /** Reserved bits that are set. */
  readonly reserved: bigint;
  /** Address of the table or page that it leads to. */
  readonly address: number;
}

/** The outcome of the walk. */
export type ExplainedOutcome =
  | {
    readonly kind: "mapped";
    /** Physical address of the byte, host-physical where EPT translates. */
    readonly physical: number;
    /** Its guest-physical address; the same without EPT. */
    readonly guestPhysical: number;
    /** Name of the memory type that the access has in non-root operation with EPT; undefined without. */
    readonly memoryType: string | undefined;
    readonly pageBytes: number;
    readonly writable: boolean;
    readonly user: boolean;
    readonly executable: boolean;
    readonly global: boolean;
    readonly protectionKey: number;
  }
  | { readonly kind: "page fault"; readonly errorCode: number; readonly reason: string }
  | { readonly kind: "not canonical"; readonly reason: string }
  | {
    readonly kind: "EPT violation";
    readonly reason: string;
    /** Exit qualification, without bit 12. */
    readonly qualification: number;
    /** The guest-physical address that EPT refused. */
    readonly guestPhysical: number;
    /** Whether it could become a virtualization exception: bit 63 of the last EPT entry is clear. */
    readonly convertible: boolean;
  }
  | { readonly kind: "EPT misconfiguration"; readonly reason: string; readonly guestPhysical: number };

/** A walk, told. */
export interface WalkExplanation {
  /** The linear address. */
  readonly linear: bigint;
  /** The paging mode. */
  readonly mode: PagingMode;
  /** Entries read, root first. */
  readonly entries: readonly ExplainedEntry[];
  /**
   * How EPT translates the guest-physical address that the tables gave, or that of the entry that it refused; undefined without EPT, and
   * where the guest's tables ended the walk.
   */
  readonly ept: EptExplanation | undefined;
  /** How it ended. */
  readonly outcome: ExplainedOutcome;
}

/**
 * Explains how the tables of the processor translate `linear` now, for this access. The caches are not asked.
 *
 * @param linear A linear address, 64 bits.
 */
export function explainWalk(cpu: Cpu, linear: bigint, access: ExplainedAccess = {}): WalkExplanation {
  const mode = pagingMode(cpu);
  const told = (
    entries: readonly ExplainedEntry[],
    outcome: ExplainedOutcome,
    ept?: EptExplanation,
  ): WalkExplanation => ({ linear, mode, entries, ept, outcome });
  const nested = cpu.get32(S.VMX_EPT) !== 0;
  /** The tables allow the access and lead to `outcome`: what EPT makes of that. */
  const finish = (entries: readonly ExplainedEntry[], outcome: MappedOutcome, rights: number, pat: number) =>
    nested
      ? throughEpt(cpu, told, entries, outcome, accessBits(cpu, access), rights, pat)
      : told(entries, outcome);
  if (mode === "none") {
    const outcome = mapped(Number(linear & 0xffff_ffffn), 2 ** 32, RIGHTS_ALL, false, 0);
    return finish([], outcome, RIGHTS_ALL, -1);
  }
  const width = mode === "5-level" ? 57 : mode === "4-level" ? 48 : 32;
  if (width !== 32 && BigInt.asUintN(64, BigInt.asIntN(width, linear)) !== linear) {
    return told([], { kind: "not canonical", reason: `bits 63:${width - 1} are not all equal` });
  }
  const bits = accessBits(cpu, access);
  const features = cpu.access.features;
  const format = PAGING_FORMATS[mode];
  const pse = mode !== "32-bit" || (cpu.get32(S.CR4) & CR4_PSE) !== 0;
  const entries: ExplainedEntry[] = [];
  let rights = RIGHTS_ALL;
  let table = Number(cpu.get64(S.CR3) & (mode === "32-bit" ? 0xffff_f000n : 0xf_ffff_ffff_f000n));
  for (const level of format.levels) {
    const index = Number((linear >> BigInt(level.shift)) & BigInt((1 << level.indexBits) - 1));
    const inRegister = mode === "PAE" && level.level === 3;
    const physical = inRegister ? -1 : table + index * format.entryBytes;
    const ept = nested && !inRegister ? explainEpt(cpu, physical, tableAccess(cpu)) : undefined;
    if (ept !== undefined && ept.outcome.kind !== "mapped") {
      return told(entries, refusedByEpt(ept, `the EPT walk of the ${level.name}`, 0x80), ept);
    }
    const host = ept?.outcome.kind === "mapped" ? ept.outcome.physical : physical;
    const value = inRegister ? cpu.get64(S.PDPTE + index * 8) : readEntry(cpu, host, format.entryBytes);
    const entry = decode(cpu, mode, level, physical, ept, index, value, features, pse);
    entries.push(entry);
    if (!entry.present) {
      return told(entries, fault(cpu, bits, 0, `${level.name} is not present`));
    }
    if (entry.reserved !== 0n) {
      const text = `${level.name} has reserved bits set: 0x${entry.reserved.toString(16)}`;
      return told(entries, fault(cpu, bits, PF.P | PF.RSVD, text));
    }
    if (!inRegister) {
      rights &= (entry.writable ? RIGHT.W : 0) | (entry.user ? RIGHT.U : 0) |
        (entry.executeDisable ? 0 : RIGHT.X);
    }
    if (!entry.leaf) {
      if (ept !== undefined && !entry.accessed) {
        const refused = flagRefusal(cpu, physical, `setting A in the ${level.name}`);
        if (refused !== undefined) return told(entries, refused.outcome, refused.ept);
      }
      table = entry.address;
      continue;
    }
    const pageBytes = 2 ** level.shift;
    const key = mode === "4-level" || mode === "5-level" ? Number((value >> 59n) & 15n) : 0;
    const cr0 = cpu.get32(S.CR0), cr4 = cpu.get32(S.CR4);
    if (
      width !== 32 && cr4 & CR4_PKE && rights & RIGHT.U && keyDenies(key, bits, cpu.get32(S.PKRU), cr0)
    ) return told(entries, fault(cpu, bits, PF.P | PF.PK, `PKRU denies protection key ${key}`));
    if (rightsDeny(rights, bits, cr0, cr4)) {
      return told(entries, fault(cpu, bits, PF.P, refusal(cpu, rights, bits)));
    }
    if (ept !== undefined && (!entry.accessed || (bits & ACCESS.WRITE && !entry.dirty))) {
      const refused = flagRefusal(cpu, physical, `setting A or D in the ${level.name}`);
      if (refused !== undefined) return told(entries, refused.outcome, refused.ept);
    }
    const offset = Number(linear & BigInt(pageBytes - 1));
    const outcome = mapped(entry.address + offset, pageBytes, rights, entry.global, key);
    const patBit = level.level === 1 ? 7n : 12n;
    const pat = Number((value >> 3n) & 3n) | ((value >> patBit) & 1n ? 4 : 0);
    return finish(entries, outcome, rights, pat);
  }
  throw new Error(`The ${mode} format ends without a leaf`);
}

function decode(
  cpu: Cpu,
  mode: PagingMode,
  level: PagingLevel,
  physical: number,
  ept: EptExplanation | undefined,
  index: number,
  value: bigint,
  features: PagingFeatures,
  pse: boolean,
): ExplainedEntry {
  const low = Number(value & 0xffff_ffffn);
  const leaf = level.leaf === "always" || (level.leaf === "PS" && (low & PTE.PS) !== 0 && pse);
  const present = (low & PTE.P) !== 0;
  const inRegister = physical < 0;
  const nxe = (cpu.get32(S.EFER) & EFER_NXE) !== 0;
  let reserved = 0n, address: number;
  if (mode === "32-bit") {
    if (leaf && level.level === 2) {
      reserved = value & BigInt(reservedBits4M(features));
      address = ((low >>> 13) & 0xff) * 2 ** 32 + ((low & 0xffc0_0000) >>> 0);
    } else address = (low & 0xffff_f000) >>> 0;
  } else {
    const mask = reservedBits(mode, level.level, leaf, features);
    if (!inRegister) reserved = value & (BigInt(mask.high >>> 0) << 32n | BigInt(mask.low >>> 0));
    if (nxe) reserved &= ~(1n << 63n);
    const pageMask = leaf ? ~((1n << BigInt(level.shift)) - 1n) : ~0xfffn;
    address = Number(value & 0xf_ffff_ffff_f000n & pageMask);
  }
  return {
    name: level.name,
    level: level.level,
    physical,
    ept,
    index,
    value,
    present,
    writable: (low & PTE.W) !== 0,
    user: (low & PTE.U) !== 0,
    executeDisable: nxe && value >> 63n === 1n,
    accessed: (low & PTE.A) !== 0,
    dirty: leaf && (low & PTE.D) !== 0,
    global: leaf && (low & PTE.G) !== 0 && (cpu.get32(S.CR4) & CR4_PGE) !== 0,
    leaf,
    reserved: present ? reserved : 0n,
    address,
  };
}

type MappedOutcome = Extract<ExplainedOutcome, { readonly kind: "mapped" }>;

/** What an access to a guest paging-structure entry is to EPT: with accessed and dirty flags for EPT also a write. */
function tableAccess(cpu: Cpu): { readonly read: true; readonly write: boolean } {
  return { read: true, write: (cpu.get32(S.VMX_EPTP) & EPTP.AD) !== 0 };
}

/** Why EPT refuses that a flag be set in an entry that it lets be read; undefined when it does not. */
function flagRefusal(
  cpu: Cpu,
  physical: number,
  what: string,
): { readonly outcome: ExplainedOutcome; readonly ept: EptExplanation } | undefined {
  const ept = explainEpt(cpu, physical, { read: true, write: true });
  return ept.outcome.kind === "mapped" ? undefined : { outcome: refusedByEpt(ept, what, 0x80), ept };
}

/**
 * The outcome of a walk that EPT refused.
 *
 * @param more Bits of the qualification from bit 7 up.
 */
function refusedByEpt(ept: EptExplanation, what: string, more: number): ExplainedOutcome {
  const { outcome, guestPhysical } = ept;
  switch (outcome.kind) {
    case "violation":
      return {
        kind: "EPT violation",
        reason: `${what}: ${outcome.reason}`,
        qualification: outcome.qualification | more,
        guestPhysical,
        convertible: outcome.convertible,
      };
    case "misconfiguration":
      return { kind: "EPT misconfiguration", reason: `${what}: ${outcome.reason}`, guestPhysical };
    case "mapped":
      throw new Error("An EPT walk that succeeds refuses nothing");
  }
}

/** The page that the guest's tables gave goes through EPT. */
function throughEpt(
  cpu: Cpu,
  told: (
    entries: readonly ExplainedEntry[],
    outcome: ExplainedOutcome,
    ept: EptExplanation,
  ) => WalkExplanation,
  entries: readonly ExplainedEntry[],
  outcome: MappedOutcome,
  access: number,
  rights: number,
  patIndex: number,
): WalkExplanation {
  const fetch = (access & ACCESS.FETCH) !== 0, write = (access & ACCESS.WRITE) !== 0;
  const userLinear = (rights & RIGHT.U) !== 0;
  const ept = explainEpt(cpu, outcome.physical, { read: !fetch && !write, write, fetch, userLinear });
  if (ept.outcome.kind !== "mapped") {
    const advanced = cpu.access.eptFeatures.advancedInformation
      ? (userLinear ? 0x200 : 0) | (rights & RIGHT.W ? 0x400 : 0) | (rights & RIGHT.X ? 0 : 0x800)
      : 0;
    return told(entries, refusedByEpt(ept, "the EPT walk of the page", 0x180 | advanced), ept);
  }
  const leaf = ept.entries.at(-1)!;
  const pat = patIndex < 0 ? MEMORY_TYPE.WB : Number((cpu.get64(S.PAT) >> BigInt(patIndex * 8)) & 7n);
  const type = effectiveMemoryType(
    Number((leaf.value >> 3n) & 7n),
    leaf.ignorePat,
    pat,
    (cpu.get32(S.CR0) & 0x4000_0000) !== 0,
  );
  const { physical } = ept.outcome;
  return told(entries, { ...outcome, physical, memoryType: memoryTypeName(type) }, ept);
}

/** An entry in RAM; outside RAM there is nothing: all ones, as the pure walker has it. */
function readEntry(cpu: Cpu, physical: number, bytes: 4 | 8): bigint {
  const { memory, bus } = cpu;
  const word = (at: number) => bus.isPlain(at) ? BigInt(memory.u32[(RAM_BASE + at) >>> 2]!) : 0xffff_ffffn;
  return bytes === 4 ? word(physical) : word(physical) | (word(physical + 4) << 32n);
}

function accessBits(cpu: Cpu, access: ExplainedAccess): number {
  const user = access.user ?? (cpu.cpl === 3 && !access.implicit);
  if (access.fetch) return ACCESS.FETCH | (user ? ACCESS.USER : 0);
  const smap = access.smap ??
    ((cpu.get32(S.CR4) & CR4_SMAP) !== 0 && (access.implicit === true || !(cpu.get32(S.RFLAGS) & RFLAGS.AC)));
  return (access.write ? ACCESS.WRITE : 0) | (user ? ACCESS.USER : smap ? ACCESS.SMAP : 0);
}

function mapped(
  physical: number,
  pageBytes: number,
  rights: number,
  global: boolean,
  protectionKey: number,
): MappedOutcome {
  return {
    kind: "mapped",
    physical,
    guestPhysical: physical,
    memoryType: undefined,
    pageBytes,
    writable: (rights & RIGHT.W) !== 0,
    user: (rights & RIGHT.U) !== 0,
    executable: (rights & RIGHT.X) !== 0,
    global,
    protectionKey,
  };
}

function fault(cpu: Cpu, access: number, refused: number, reason: string): ExplainedOutcome {
  const mode = pagingMode(cpu);
  const reportsFetch = (cpu.get32(S.CR4) & CR4_SMEP) !== 0 ||
    (mode !== "32-bit" && (cpu.get32(S.EFER) & EFER_NXE) !== 0);
  const errorCode = refused | (access & (PF.W | PF.U)) | (access & ACCESS.FETCH && reportsFetch ? PF.I : 0);
  return { kind: "page fault", errorCode, reason };
}

/** Which right is missing, in words. */
function refusal(cpu: Cpu, rights: number, access: number): string {
  const user = (access & ACCESS.USER) !== 0;
  if (user && !(rights & RIGHT.U)) return "user access to a supervisor page";
  if (access & ACCESS.FETCH) {
    if (!user && rights & RIGHT.U && cpu.get32(S.CR4) & CR4_SMEP) {
      return "supervisor fetch from a user page (SMEP)";
    }
    return "fetch from a page with execute disabled";
  }
  if (!user && rights & RIGHT.U && access & ACCESS.SMAP) return "supervisor access to a user page (SMAP)";
  return user || cpu.get32(S.CR0) & CR0_WP ? "write to a read-only page" : "access refused";
}

/** A walk as lines for people: guest entries, beneath each the EPT entries that its address went through, and how it ended. */
export function describeWalk(walk: WalkExplanation): string[] {
  const lines = [`linear address 0x${walk.linear.toString(16)}, ${walk.mode} paging`];
  const eptLines = (ept: EptExplanation | undefined, of: string) => {
    if (ept === undefined) return;
    lines.push(`    ${of} 0x${ept.guestPhysical.toString(16)}:`);
    for (const entry of ept.entries) lines.push(`      ${describeEptEntry(entry)}`);
  };
  for (const entry of walk.entries) {
    eptLines(entry.ept, "guest-physical");
    const at = entry.physical < 0 ? "register" : `0x${entry.physical.toString(16)}`;
    const rights = entry.present
      ? `${entry.writable ? "W" : "-"}${entry.user ? "U" : "-"}${entry.executeDisable ? " XD" : ""}` +
        `${entry.accessed ? " A" : ""}${entry.dirty ? " D" : ""}${entry.leaf ? " page" : " table"} 0x${
          entry.address.toString(16)
        }`
      : "not present";
    const value = entry.value.toString(16).padStart(16, "0");
    lines.push(`  ${entry.name}[${entry.index}] at ${at} = 0x${value} ${rights}`);
  }
  eptLines(walk.ept, "guest-physical");
  const { outcome } = walk;
  if (outcome.kind === "mapped") {
    const type = outcome.memoryType === undefined ? "" : `, memory type ${outcome.memoryType}`;
    lines.push(`  mapped to 0x${outcome.physical.toString(16)}${type}`);
  } else lines.push(`  ${outcome.kind}: ${outcome.reason}`);
  return lines;
}
