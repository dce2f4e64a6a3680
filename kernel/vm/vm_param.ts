/**
 * Numbers that every part of the VM system shares: results, protections, inheritance, advice (`sys/vm/vm_param.h`, `sys/vm/vm.h`,
 * `sys/sys/mman.h`).
 *
 * Room: leaf of `kernel/vm/`; imports the address types.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";

// ---- results of VM functions (sys/vm/vm_param.h)

/** It worked. */
export const KERN_SUCCESS = 0;
/** No mapping at the address. */
export const KERN_INVALID_ADDRESS = 1;
/** The mapping does not allow the access. */
export const KERN_PROTECTION_FAILURE = 2;
/** No room in the map. */
export const KERN_NO_SPACE = 3;
/** An argument makes no sense. */
export const KERN_INVALID_ARGUMENT = 4;
/** The data cannot be had. */
export const KERN_FAILURE = 5;
/** Out of something that more of would help. */
export const KERN_RESOURCE_SHORTAGE = 6;
/** There is no such entry. */
export const KERN_NOT_RECEIVER = 7;
/** The caller has no right to it. */
export const KERN_NO_ACCESS = 8;
/** Everything was let go; start again. Internal to the fault path. */
export const KERN_TRY_AGAIN = 9;

// ---- protections (`vm_prot_t`, sys/vm/vm.h)

/** Bits of VM_PROT_*. */
export type VmProt = number;
/** No access. */
export const VM_PROT_NONE: VmProt = 0;
/** May be read. */
export const VM_PROT_READ: VmProt = 1;
/** May be written. */
export const VM_PROT_WRITE: VmProt = 2;
/** May be executed. */
export const VM_PROT_EXECUTE: VmProt = 4;
/** For lookups: write to a copy although the mapping says read only (debuggers, wiring). */
export const VM_PROT_OVERRIDE_WRITE: VmProt = 8;
/** For pmap_enter: no other processor uses the mapping, so none need be told. */
export const VM_PROT_NOSYNC: VmProt = 0x10;
/** All that a program may ask for. */
export const VM_PROT_ALL: VmProt = 7;
/** Read and write. */
export const VM_PROT_RW: VmProt = 3;
/** Default protection of anonymous memory. */
export const VM_PROT_DEFAULT: VmProt = 7;

// ---- inheritance (`vm_inherit_t`)

/** The child shares the memory. */
export const VM_INHERIT_SHARE = 0;
/** The child gets a copy. */
export const VM_INHERIT_COPY = 1;
/** The child has nothing there. */
export const VM_INHERIT_NONE = 2;
/** What mappings have unless somebody says otherwise. */
export const VM_INHERIT_DEFAULT: number = VM_INHERIT_COPY;

// ---- kinds of map entries (`vm_maptype_t`)

/** No kind. */
export const VM_MAPTYPE_UNSPECIFIED = 0;
/** An object. */
export const VM_MAPTYPE_NORMAL = 1;
/** An object seen through a software page table (MAP_VPAGETABLE). */
export const VM_MAPTYPE_VPAGETABLE = 2;
/** Another map. */
export const VM_MAPTYPE_SUBMAP = 3;

// ---- eflags of a map entry (sys/vm/vm_map.h)

/** The syncer leaves its pages alone. */
export const MAP_ENTRY_NOSYNC = 0x0001;
/** Grows downwards into `aux` bytes of reserved space. */
export const MAP_ENTRY_STACK = 0x0002;
/** A private mapping. */
export const MAP_ENTRY_COW = 0x0004;
/** A private mapping whose shadow object does not exist yet. */
export const MAP_ENTRY_NEEDS_COPY = 0x0008;
/** A fault here is a bug. */
export const MAP_ENTRY_NOFAULT = 0x0010;
/** Wired by mlock. */
export const MAP_ENTRY_USER_WIRED = 0x0020;
/** Mask of the access pattern. */
export const MAP_ENTRY_BEHAV_MASK = 0x00c0;
/** Access pattern: nothing known. */
export const MAP_ENTRY_BEHAV_NORMAL = 0x0000;
/** Access pattern: ascending. */
export const MAP_ENTRY_BEHAV_SEQUENTIAL = 0x0040;
/** Access pattern: random. */
export const MAP_ENTRY_BEHAV_RANDOM = 0x0080;
/** Somebody let go of the map's lock but not of this entry. */
export const MAP_ENTRY_IN_TRANSITION = 0x0100;
/** Somebody sleeps until the entry is out of transition. */
export const MAP_ENTRY_NEEDS_WAKEUP = 0x0200;
/** Not part of a core file. */
export const MAP_ENTRY_NOCOREDUMP = 0x0400;
/** A kernel stack with its guard page. */
export const MAP_ENTRY_KSTACK = 0x0800;

// ---- `cow` argument of vm_map_insert (MAP_*, sys/vm/vm_map.h)

/** Make it a private mapping that has no shadow yet. */
export const MAP_COPY_ON_WRITE = 0x0002;
/** Entry flag NOFAULT. */
export const MAP_NOFAULT = 0x0004;
/** Map what is resident at once. */
export const MAP_PREFAULT = 0x0008;
/** The same, but not if it would be much. */
export const MAP_PREFAULT_PARTIAL = 0x0010;
/** Entry flag NOSYNC. */
export const MAP_DISABLE_SYNCER = 0x0020;
/** The entry is a stack. */
export const MAP_IS_STACK = 0x0040;
/** The entry is a kernel stack. */
export const MAP_IS_KSTACK = 0x0080;
/** Entry flag NOCOREDUMP. */
export const MAP_DISABLE_COREDUMP = 0x0100;
/** Map resident pages with relaxed checks (madvise WILLNEED). */
export const MAP_PREFAULT_MADVISE = 0x0200;
/** The map is not the current process's. */
export const MAP_PREFAULT_RELOCK = 0x0400;

// ---- advice (`MADV_*`, sys/sys/mman.h)

/** Nothing known. */
export const MADV_NORMAL = 0;
/** Random access. */
export const MADV_RANDOM = 1;
/** Ascending access. */
export const MADV_SEQUENTIAL = 2;
/** Will be used. */
export const MADV_WILLNEED = 3;
/** Will not be used. */
export const MADV_DONTNEED = 4;
/** Content may be forgotten. */
export const MADV_FREE = 5;
/** Do not sync. */
export const MADV_NOSYNC = 6;
/** Sync as usual. */
export const MADV_AUTOSYNC = 7;
/** Leave out of core files. */
export const MADV_NOCORE = 8;
/** Include in core files. */
export const MADV_CORE = 9;
/** Drop the translations made from a software page table. */
export const MADV_INVAL = 10;
/** Set the root of a software page table. */
export const MADV_SETMAP = 11;

// ---- flags of mmap (MAP_*, sys/sys/mman.h)

/** Changes are seen by all. */
export const MAP_SHARED = 0x0001;
/** Changes are private. */
export const MAP_PRIVATE = 0x0002;
/** At this address or not at all. */
export const MAP_FIXED = 0x0010;
/** Accepted, without meaning. */
export const MAP_RENAME = 0x0020;
/** Accepted, without meaning. */
export const MAP_NORESERVE = 0x0040;
/** Child shares (old). */
export const MAP_INHERIT = 0x0080;
/** Not for forks. */
export const MAP_NOEXTEND = 0x0100;
/** Semaphores live there. */
export const MAP_HASSEMAPHORE = 0x0200;
/** A stack that grows down. */
export const MAP_STACK = 0x0400;
/** No sync to disk by the syncer. */
export const MAP_NOSYNC = 0x0800;
/** No file behind it. */
export const MAP_ANON = 0x1000;
/** A software page table interprets the object. */
export const MAP_VPAGETABLE = 0x2000;
/** At this address, and only if nothing is there. */
export const MAP_TRYFIXED = 0x10000;
/** Leave it out of core files. */
export const MAP_NOCORE = 0x20000;
/** Size is aligned to the segment. */
export const MAP_SIZEALIGN = 0x40000;

/** msync: start writing. */
export const MS_ASYNC = 1;
/** msync: drop cached data. */
export const MS_INVALIDATE = 2;
/** msync: write and wait (the default, 0). */
export const MS_SYNC = 0;

/** mlockall: what is mapped now. */
export const MCL_CURRENT = 1;
/** mlockall: what will be mapped. */
export const MCL_FUTURE = 2;

/** mincore: in core. */
export const MINCORE_INCORE = 0x1;
/** mincore: this process has used it. */
export const MINCORE_REFERENCED = 0x2;
/** mincore: this process has changed it. */
export const MINCORE_MODIFIED = 0x4;
/** mincore: somebody has used it. */
export const MINCORE_REFERENCED_OTHER = 0x8;
/** mincore: somebody has changed it. */
export const MINCORE_MODIFIED_OTHER = 0x10;
/** mincore: part of a large page. */
export const MINCORE_SUPER = 0x20;

// ---- sizes and rounding

/** log2 of the bytes in a page. */
export const PAGE_SHIFT = 12;
/** Bytes in a page. */
export const PAGE_SIZE = 4096;
/** Bits of an address within its page. */
export const PAGE_MASK = 4095n;

/** Address rounded down to its page (`trunc_page`). */
export function truncPage(va: bigint): Gva {
  return (va & ~PAGE_MASK) as Gva;
}
/** Address rounded up to a page (`round_page`). Not wrapped: 2^64 stays 2^64. */
export function roundPage(va: bigint): Gva {
  return ((va + PAGE_MASK) & ~PAGE_MASK) as Gva;
}
/** Pages in a byte range whose ends are page aligned (`atop`). */
export function atop(bytes: bigint): number {
  return Number(bytes >> 12n);
}
/** Page index of a byte offset (`OFF_TO_IDX`). */
export function offToIdx(offset: number): number {
  return Math.floor(offset / PAGE_SIZE);
}
/** Byte offset of a page index (`IDX_TO_OFF`). */
export function idxToOff(pindex: number): number {
  return pindex * PAGE_SIZE;
}
