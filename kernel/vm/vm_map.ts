/**
 * Address maps: the structure, its lock and its entries' order (`struct vm_map`, `sys/vm/vm_map.c`).
 *
 * Room: `kernel/vm/`; imports lwkt and the entries. What is done with maps stands beside this file: `vm_map_insert.ts` (insert, find,
 * stacks), `vm_map_clip.ts` (clip, simplify), `vm_map_protect.ts` (protect, inherit, madvise), `vm_map_wire.ts`, `vm_map_remove.ts`,
 * `vm_map_lookup.ts`, and address spaces in `vmspace.ts`.
 *
 * Rules:
 *
 * 1. Entries are in one circular list by ascending address, `header` being its sentinel, and in a tree by start; they never overlap.
 * 2. They change only with the map's lock held exclusively; they may be read with it held shared.
 * 3. Each exclusive acquisition counts `timestamp` up. Who lets the lock go in the middle of something (a fault during I/O) compares
 *    timestamps afterwards and starts again if they differ. Equal timestamps mean that no entry has changed.
 * 4. `size` is the sum of the entries' sizes, `nentries` their number.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { RbTree } from "../libkern/rbtree.ts";
import {
  LK_DOWNGRADE,
  LK_EXCLUPGRADE,
  LK_EXCLUSIVE,
  LK_NOWAIT,
  LK_RELEASE,
  LK_SHARED,
  Lock,
  lockmgr,
} from "../lwkt/lock.ts";
import { LwktToken } from "../lwkt/token.ts";
import type { Pmap } from "../pmap/pmap.ts";
import type { Proc } from "../proc/proc.ts";
import { type MapCount, VmMapEntry } from "./vm_map_entry.ts";
import type { VmMapIlock } from "./vm_map_interlock.ts";
import type { Vmspace } from "./vmspace.ts";

/** `flags`: mappings made from now on are wired (mlockall MCL_FUTURE). */
export const MAP_WIREFUTURE = 1;

/** An address map (`struct vm_map`). */
export class VmMap {
  /** `header`: sentinel of the list; its start and end are the map's limits. */
  readonly header: VmMapEntry = new VmMapEntry();
  /** `rb_root`: the entries by start. */
  readonly rbRoot: RbTree<VmMapEntry, bigint> = new RbTree<VmMapEntry, bigint>((entry) => entry.start);
  /** `lock`. */
  readonly lock: Lock = new Lock("vm_maplk");
  /** `token`: held by faults and by whoever changes the map, over the lock. */
  readonly token: LwktToken = new LwktToken("vm_map");
  /** `nentries`. */
  nentries = 0;
  /** `size`: bytes that are mapped. */
  size = 0n;
  /** `system_map`: the kernel's. */
  systemMap = false;
  /** `hint`: where a lookup succeeded last. */
  hint: VmMapEntry;
  /** `first_free`: the entry before the first gap, or one below it. */
  firstFree: VmMapEntry;
  /** `timestamp`: see rule 3. */
  timestamp = 0;
  /** `flags`: MAP_WIREFUTURE. */
  flags = 0;
  /** `ilock_base`: ranges in use (vm_map_interlock.ts). */
  readonly ilocks: Set<VmMapIlock> = new Set();
  /** `pmap`. */
  pmap: Pmap;

  /**
   * @param min First address of the map.
   * @param max First address behind it.
   */
  constructor(min: Gva, max: Gva, pmap: Pmap) {
    this.header.start = min;
    this.header.end = max;
    this.hint = this.header;
    this.firstFree = this.header;
    this.pmap = pmap;
  }

  /** `vm_map_min`. */
  get min(): Gva {
    return this.header.start;
  }
  /** `vm_map_max`. */
  get max(): Gva {
    return this.header.end;
  }

  /** The entries, lowest first. Not to be used over a boundary. */
  *entries(): Generator<VmMapEntry, void, void> {
    for (let entry = this.header.next; entry !== this.header; entry = entry.next) yield entry;
  }
}

/** What the map code keeps for a kernel. */
export class VmMapState {
  /** Entries in maps and between them, for the leak check. */
  entryCount = 0;
  /** Address spaces that exist. */
  vmspaceCount = 0;
  /** `vm.vkernel_enable`: programs may be kernels (MAP_VPAGETABLE, the vmspace calls). */
  vkernelEnable = false;
  /**
   * `vm_map_growstack`, as faults know it: growing may wire, wiring faults, so the files cannot import each other. Entered by
   * `vm_init.ts`.
   */
  growstack: (cx: Cx, p: Proc, vm: Vmspace, addr: bigint) => Exec<number> = () => {
    throw new Error("vm_fault: the VM system has not been started");
  };
}

// ---- lock

/** `vm_map_lock`: exclusively, and the timestamp counts. */
export function* vmMapLock(cx: Cx, map: VmMap): Exec<void> {
  yield* lockmgr(cx, map.lock, LK_EXCLUSIVE);
  map.timestamp++;
}
/** `vm_map_lock_read`. */
export function* vmMapLockRead(cx: Cx, map: VmMap): Exec<void> {
  yield* lockmgr(cx, map.lock, LK_SHARED);
}
/** `vm_map_lock_read_try`: whether it was had at once. */
export function* vmMapLockReadTry(cx: Cx, map: VmMap): Exec<boolean> {
  return (yield* lockmgr(cx, map.lock, LK_SHARED | LK_NOWAIT)) === 0;
}
/**
 * `vm_map_lock_upgrade`: from shared to exclusive. True: nobody came between. False: the lock has been lost, and the caller must look
 * everything up again.
 */
export function* vmMapLockUpgrade(cx: Cx, map: VmMap): Exec<boolean> {
  if ((yield* lockmgr(cx, map.lock, LK_EXCLUPGRADE)) !== 0) return false;
  map.timestamp++;
  return true;
}
/** `vm_map_lock_downgrade`: from exclusive to shared. */
export function* vmMapLockDowngrade(cx: Cx, map: VmMap): Exec<void> {
  yield* lockmgr(cx, map.lock, LK_DOWNGRADE);
}
/** `vm_map_unlock`. */
export function* vmMapUnlock(cx: Cx, map: VmMap): Exec<void> {
  yield* lockmgr(cx, map.lock, LK_RELEASE);
}
/** `vm_map_unlock_read`. */
export function* vmMapUnlockRead(cx: Cx, map: VmMap): Exec<void> {
  yield* lockmgr(cx, map.lock, LK_RELEASE);
}

// ---- entries

/** Takes an entry from the reserve (`vm_map_entry_create`). */
export function vmMapEntryCreate(cx: Cx, count: MapCount): VmMapEntry {
  count.n--;
  kassert(count.n >= 0, "vm_map_entry_create: no entry is reserved");
  cx.k.vmMap.entryCount++;
  return new VmMapEntry();
}

/** Gives an entry back (`vm_map_entry_dispose`). */
export function vmMapEntryDispose(cx: Cx, count: MapCount): void {
  count.n++;
  cx.k.vmMap.entryCount--;
}

/** Puts an entry behind `after` (`vm_map_entry_link`). */
export function vmMapEntryLink(map: VmMap, after: VmMapEntry, entry: VmMapEntry): void {
  map.nentries++;
  entry.prev = after;
  entry.next = after.next;
  entry.next.prev = entry;
  after.next = entry;
  if (map.rbRoot.insert(entry) !== undefined) throw new Error("vm_map_entry_link: dup addr in map");
}

/** Takes an entry out (`vm_map_entry_unlink`). */
export function vmMapEntryUnlink(map: VmMap, entry: VmMapEntry): void {
  kassert(
    (entry.eflags & 0x100) === 0,
    "vm_map_entry_unlink: attempt to mess with a locked entry",
  );
  entry.next.prev = entry.prev;
  entry.prev.next = entry.next;
  map.rbRoot.remove(entry);
  map.nentries--;
}

/** What {@link vmMapLookupEntry} found. */
export interface FoundEntry {
  /** An entry contains the address. */
  readonly found: boolean;
  /** The entry, or else the last one below the address (the header if there is none). */
  readonly entry: VmMapEntry;
}

/** The entry that contains an address, or the one below it (`vm_map_lookup_entry`). The map is locked. */
export function vmMapLookupEntry(map: VmMap, address: bigint): FoundEntry {
  const entry = map.rbRoot.lookupLE(address);
  if (entry === undefined) return { found: false, entry: map.header };
  if (address < entry.end) {
    map.hint = entry;
    return { found: true, entry };
  }
  return { found: false, entry };
}

/** Asserts what the header says of a map (rules 1 and 4); in words what does not hold. For tests and the model. */
export function vmMapCheck(map: VmMap): string[] {
  const wrong: string[] = [];
  let at = map.min as bigint;
  let size = 0n;
  let count = 0;
  for (const entry of map.entries()) {
    const where = `entry 0x${entry.start.toString(16)}..0x${entry.end.toString(16)}`;
    if (entry.start < at || entry.end <= entry.start || entry.end > map.max) {
      wrong.push(`${where} overlaps or is out of range`);
    }
    if (entry.next.prev !== entry || entry.prev.next !== entry) {
      wrong.push(`${where} is not linked both ways`);
    }
    if (map.rbRoot.find(entry.start) !== entry) wrong.push(`${where} is not in the tree`);
    if (entry.object !== undefined && entry.object.refCount <= 0) {
      wrong.push(`${where} uses an object without references`);
    }
    if ((entry.eflags & 0x0c) === 0x08) wrong.push(`${where} is NEEDS_COPY but not COW`);
    at = entry.end;
    size += entry.end - entry.start;
    count++;
  }
  if (size !== map.size) {
    wrong.push(`size is 0x${map.size.toString(16)}, the entries say 0x${size.toString(16)}`);
  }
  if (count !== map.nentries || count !== map.rbRoot.size) {
    wrong.push(`nentries ${map.nentries}, tree ${map.rbRoot.size}, list ${count}`);
  }
  return wrong;
}
