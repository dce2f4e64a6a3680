/**
 * A plain model of address translation in VMX non-root operation, written from the text of the SDM (vol. 3A, "Paging"; vol. 3C, "The
 * Extended Page Table Mechanism") on bigints. It shares no code with the machine: imports nothing.
 *
 * Where the manual leaves a choice, it has the machine's: accessed flags of upper guest entries are set as the walk passes; the flags of
 * the guest's leaf are set before the page's own address goes through EPT; EPT flags are set only by a translation that succeeds.
 *
 * @module
 */

/** Physical memory by 8-byte words. */
export interface ModelMemory {
  read(physical: bigint): bigint;
  write(physical: bigint, value: bigint): void;
}

/** What the control registers and the processor say. */
export interface ModelState {
  readonly paging: "none" | "32-bit" | "PAE" | "4-level" | "5-level";
  readonly cr3: bigint;
  readonly pdptes: readonly bigint[];
  readonly wp: boolean;
  readonly smep: boolean;
  /** SMAP is on and nothing overrides it for this access. */
  readonly smap: boolean;
  readonly nxe: boolean;
  readonly maxPhysical: number;
  readonly ept: {
    readonly root: bigint;
    readonly levels: number;
    readonly ad: boolean;
    readonly modeBased: boolean;
    readonly executeOnly: boolean;
    readonly advanced: boolean;
  };
}

/** One access. */
export interface ModelAccess {
  readonly kind: "read" | "write" | "fetch";
  readonly user: boolean;
}

/** How it ends. */
export type ModelOutcome =
  | { readonly kind: "mapped"; readonly physical: bigint }
  | { readonly kind: "page fault"; readonly code: number }
  | { readonly kind: "violation"; readonly qualification: number; readonly guestPhysical: bigint }
  | { readonly kind: "misconfiguration"; readonly guestPhysical: bigint };

/** Ends a translation early. */
class Ends extends Error {
  readonly outcome: ModelOutcome;
  constructor(outcome: ModelOutcome) {
    super(outcome.kind);
    this.outcome = outcome;
  }
}

/** Bit `n` of a value. */
const bit = (value: bigint, n: number): boolean => (value >> BigInt(n) & 1n) === 1n;
/** Bits `from` … `to` of a value, in place. */
const field = (value: bigint, to: number, from: number): bigint =>
  value & (((1n << BigInt(to - from + 1)) - 1n) << BigInt(from));

/** Translates; flags are set in `memory`. */
export function translate(
  memory: ModelMemory,
  state: ModelState,
  linear: bigint,
  access: ModelAccess,
): ModelOutcome {
  try {
    return { kind: "mapped", physical: linearToPhysical(memory, state, linear, access) };
  } catch (e) {
    if (e instanceof Ends) return e.outcome;
    throw e;
  }
}

/** What an access is to EPT, and what its exit qualification says of the linear address. */
interface GuestPhysicalAccess {
  readonly read: boolean;
  readonly write: boolean;
  readonly fetch: boolean;
  /** The linear address is a user-mode one. */
  readonly userLinear: boolean;
  /** Bits 11:7 of the exit qualification. */
  readonly linearBits: number;
}

function guestToHost(
  memory: ModelMemory,
  state: ModelState,
  guestPhysical: bigint,
  access: GuestPhysicalAccess,
): bigint {
  const { ept } = state;
  const used: { at: bigint; value: bigint }[] = [];
  const anyRight = (value: bigint) =>
    bit(value, 0) || bit(value, 1) || bit(value, 2) || (ept.modeBased && bit(value, 10));
  const violation = (allowed: (n: number) => boolean): never => {
    let qualification = access.linearBits;
    if (access.read) qualification |= 1;
    if (access.write) qualification |= 2;
    if (access.fetch) qualification |= 4;
    if (allowed(0)) qualification |= 8;
    if (allowed(1)) qualification |= 0x10;
    if (allowed(2)) qualification |= 0x20;
    if (ept.modeBased && allowed(10)) qualification |= 0x40;
    throw new Ends({ kind: "violation", qualification, guestPhysical });
  };
  if (ept.levels === 4 && guestPhysical >> 48n !== 0n) violation(() => false);
  let table = ept.root, page = 0n;
  for (let level = ept.levels; level >= 1; level--) {
    const at = table + ((guestPhysical >> BigInt(12 + 9 * (level - 1))) & 511n) * 8n;
    const value = memory.read(at);
    if (!anyRight(value)) violation(() => false);
    used.push({ at, value });
    const maps = level === 1 || (level <= 3 && bit(value, 7));
    let wrong = false;
    // Bits 1:0 are 10b.
    if (!bit(value, 0) && bit(value, 1)) wrong = true;
    // Execute-only translations where they are not supported.
    if (!ept.executeOnly && !bit(value, 0) && !bit(value, 1)) wrong = true;
    // Reserved bits.
    if (field(value, 51, state.maxPhysical) !== 0n) wrong = true;
    if (!maps && field(value, 6, 3) !== 0n) wrong = true;
    if (level >= 4 && bit(value, 7)) wrong = true;
    if (maps && level === 3 && field(value, 29, 12) !== 0n) wrong = true;
    if (maps && level === 2 && field(value, 20, 12) !== 0n) wrong = true;
    // Memory types 2, 3 and 7 do not exist.
    if (maps && [2n, 3n, 7n].includes(field(value, 5, 3) >> 3n)) wrong = true;
    if (wrong) throw new Ends({ kind: "misconfiguration", guestPhysical });
    if (maps) {
      const size = BigInt(12 + 9 * (level - 1));
      page = (field(value, 51, 12) >> size << size) + (guestPhysical & ((1n << size) - 1n));
      break;
    }
    table = field(value, 51, 12);
  }
  const allowed = (n: number) => used.every(({ value }) => bit(value, n));
  if (access.read && !allowed(0)) violation(allowed);
  if (access.write && !allowed(1)) violation(allowed);
  if (access.fetch && !allowed(ept.modeBased && access.userLinear ? 10 : 2)) violation(allowed);
  if (ept.ad) {
    used.forEach(({ at, value }, i) => {
      const leaf = i === used.length - 1;
      memory.write(at, value | 0x100n | (leaf && access.write ? 0x200n : 0n));
    });
  }
  return page;
}

/** A guest paging-structure entry: where it is in host memory, and its value. */
interface GuestEntry {
  readonly guest: bigint;
  readonly host: bigint;
  value: bigint;
}

function linearToPhysical(
  memory: ModelMemory,
  state: ModelState,
  linear: bigint,
  access: ModelAccess,
): bigint {
  const { ept, paging } = state;
  const pageFault = (present: boolean, reserved: boolean): never => {
    let code = 0;
    if (present) code |= 1;
    if (access.kind === "write") code |= 2;
    if (access.user) code |= 4;
    if (reserved) code |= 8;
    if (access.kind === "fetch" && (state.smep || (paging !== "32-bit" && state.nxe))) code |= 0x10;
    throw new Ends({ kind: "page fault", code });
  };
  /** Bits 11:7 of the qualification for the final translation. */
  const advanced = (user: boolean, writable: boolean, executeDisable: boolean): number =>
    0x180 | (ept.advanced ? (user ? 0x200 : 0) | (writable ? 0x400 : 0) | (executeDisable ? 0x800 : 0) : 0);
  const finally_ = (guestPhysical: bigint, user: boolean, writable: boolean, xd: boolean): bigint =>
    guestToHost(memory, state, guestPhysical, {
      read: access.kind === "read",
      write: access.kind === "write",
      fetch: access.kind === "fetch",
      userLinear: user,
      linearBits: advanced(user, writable, xd),
    });
  if (paging === "none") return finally_(linear, true, true, false);

  const wide = paging !== "32-bit";
  const load = (guest: bigint): GuestEntry => {
    // With accessed and dirty flags for EPT, accesses to guest paging-structure entries are writes.
    const host = guestToHost(memory, state, guest, {
      read: true,
      write: ept.ad,
      fetch: false,
      userLinear: false,
      linearBits: 0x80,
    });
    const word = memory.read(host & ~7n);
    return { guest, host, value: wide ? word : (word >> (host % 8n * 8n)) & 0xffff_ffffn };
  };
  const setFlags = (entry: GuestEntry, flags: bigint): void => {
    if ((entry.value & flags) === flags) return;
    if (!ept.ad) {
      guestToHost(memory, state, entry.guest, {
        read: true,
        write: true,
        fetch: false,
        userLinear: false,
        linearBits: 0x80,
      });
    }
    entry.value |= flags;
    const word = memory.read(entry.host & ~7n);
    memory.write(entry.host & ~7n, word | (flags << (wide ? 0n : entry.host % 8n * 8n)));
  };

  const levels = paging === "5-level" ? 5 : paging === "4-level" ? 4 : 2;
  let user = true, writable = true, xd = false;
  let table: bigint;
  if (paging === "PAE") {
    const pdpte = state.pdptes[Number(linear >> 30n) & 3]!;
    if (!bit(pdpte, 0)) pageFault(false, false);
    table = field(pdpte, 51, 12);
  } else table = wide ? field(state.cr3, 51, 12) : field(state.cr3, 31, 12);

  for (let level = levels; level >= 1; level--) {
    const shift = wide ? 12 + 9 * (level - 1) : 12 + 10 * (level - 1);
    const index = (linear >> BigInt(shift)) & (wide ? 511n : 1023n);
    const entry = load(table + index * (wide ? 8n : 4n));
    const { value } = entry;
    if (!bit(value, 0)) pageFault(false, false);
    const maps = level === 1 || (level <= 3 && bit(value, 7));
    let reserved = false;
    if (wide) {
      if (field(value, 51, state.maxPhysical) !== 0n) reserved = true;
      if (level >= 4 && bit(value, 7)) reserved = true;
      if (maps && level === 3 && field(value, 29, 13) !== 0n) reserved = true;
      if (maps && level === 2 && field(value, 20, 13) !== 0n) reserved = true;
      if (bit(value, 63) && !state.nxe) reserved = true;
      if (paging === "PAE" && field(value, 62, 52) !== 0n) reserved = true;
    } else if (maps && level === 2) {
      const wideBits = Math.min(40, state.maxPhysical) - 32;
      if (field(value, 21, 13 + wideBits) !== 0n) reserved = true;
    }
    if (reserved) pageFault(true, true);
    user &&= bit(value, 2);
    writable &&= bit(value, 1);
    xd ||= wide && bit(value, 63);
    if (!maps) {
      setFlags(entry, 0x20n);
      table = wide ? field(value, 51, 12) : field(value, 31, 12);
      continue;
    }
    let denied: boolean;
    if (access.user) {
      denied = !user || (access.kind === "write" && !writable) || (access.kind === "fetch" && xd);
    } else if (access.kind === "fetch") denied = xd || (user && state.smep);
    else denied = (user && state.smap) || (access.kind === "write" && state.wp && !writable);
    if (denied) pageFault(true, false);
    setFlags(entry, access.kind === "write" ? 0x60n : 0x20n);
    const low = linear & ((1n << BigInt(shift)) - 1n);
    const page = wide
      ? field(value, 51, shift)
      : level === 1
      ? field(value, 31, 12)
      : field(value, 31, 22) | (field(value, 20, 13) >> 13n << 32n);
    return finally_(page + low, user, writable, xd);
  }
  throw new Error("a walk ends with a leaf");
}
