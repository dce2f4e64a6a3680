/**
 * Map entries and their reserve (`struct vm_map_entry`; `vm_map_entry_reserve` and its kin of `sys/vm/vm_map.c`).
 *
 * Room: `kernel/vm/`; imports the constants.
 *
 * Who changes a map first reserves the entries that the change can need at most, before locking anything, and gives the rest back after
 * unlocking. In C this keeps the allocation of entries from calling back into the map that is being changed. Here memory for an entry
 * is always there; the count is kept all the same, because needing more entries than reserved shows that an operation clips where it should not.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import { kassert } from "../kern/panic.ts";
import type { VmMap } from "./vm_map.ts";
import type { VmObject } from "./vm_object.ts";
import { VM_INHERIT_DEFAULT, VM_MAPTYPE_NORMAL, VM_PROT_ALL, type VmProt } from "./vm_param.ts";

/** Entries that any one operation needs at most: two clips at each end. */
export const MAP_RESERVE_COUNT = 4;
/** Entries that a processor keeps for later (`MAP_RESERVE_SLOP`). */
export const MAP_RESERVE_SLOP = 32;

/** A range of a map with one object, one protection, one everything (`struct vm_map_entry`). Guarded by the map's lock. */
export class VmMapEntry {
  /** `prev`: the entry below; the header's are the last and the first. */
  prev: VmMapEntry;
  /** `next`: the entry above. */
  next: VmMapEntry;
  /** `start`: first address. */
  start: Gva = 0n as Gva;
  /** `end`: first address behind it. */
  end: Gva = 0n as Gva;
  /** `aux`: bytes a stack may still grow (`avail_ssize`), or the root of a software page table (`master_pde`). */
  aux = 0n;
  /** `object.vm_object`. Undefined until the first fault for anonymous memory. */
  object: VmObject | undefined = undefined;
  /** `object.sub_map`. */
  subMap: VmMap | undefined = undefined;
  /** `offset` into the object, bytes, page aligned. */
  offset = 0;
  /** `eflags`, MAP_ENTRY_*. */
  eflags = 0;
  /** `maptype`, VM_MAPTYPE_*. */
  maptype: number = VM_MAPTYPE_NORMAL;
  /** `protection`. */
  protection: VmProt = VM_PROT_ALL;
  /** `max_protection`: what `protection` may become. */
  maxProtection: VmProt = VM_PROT_ALL;
  /** `inheritance`. */
  inheritance: number = VM_INHERIT_DEFAULT;
  /** `wired_count`: once for mlock (USER_WIRED), and once for each wiring by the kernel. */
  wiredCount = 0;

  /** A list of its own. */
  constructor() {
    this.prev = this;
    this.next = this;
  }

  /** Copies what an entry says of its memory (`*new = *old`), not its place in a list. */
  assign(other: VmMapEntry): void {
    this.start = other.start;
    this.end = other.end;
    this.aux = other.aux;
    this.object = other.object;
    this.subMap = other.subMap;
    this.offset = other.offset;
    this.eflags = other.eflags;
    this.maptype = other.maptype;
    this.protection = other.protection;
    this.maxProtection = other.maxProtection;
    this.inheritance = other.inheritance;
    this.wiredCount = other.wiredCount;
  }
}

/** Entries that an operation may still take: what `int *countp` is in C. */
export interface MapCount {
  /** How many. */
  n: number;
}

/** Reserves entries (`vm_map_entry_reserve`). Give what is left back with {@link vmMapEntryRelease}. */
export function vmMapEntryReserve(count: number): MapCount {
  return { n: count };
}

/** Ends a reservation (`vm_map_entry_release`). */
export function vmMapEntryRelease(count: MapCount): void {
  kassert(count.n >= 0, "vm_map_entry_release: more entries used than reserved");
  count.n = 0;
}
