/**
 * Page tables of an address space: the thin beginning of `sys/platform/pc64/x86_64/pmap.c`.
 *
 * Room: `kernel/pmap/`; imports the page allocator and the direct map. Tables are bytes in RAM, written through the direct map;
 * which pages they occupy is remembered here so that {@link pmapRelease} can give them back.
 *
 * @module
 */
import { type Gva, type Hpa, hpa, PAGE_SIZE } from "../../hw/address.ts";
import type { Exec, GateCpu } from "../../hw/gates.ts";
import { physToDmap } from "../platform/pc64/vmparam.ts";
import { vmPageAllocZero, type VmPages } from "../vm/vm_page.ts";

/** What a mapping allows, with `VM_PROT`'s names. A mapping that is there can always be read. */
export interface Protection {
  readonly write: boolean;
  readonly execute: boolean;
  readonly user: boolean;
}

/** Bits of a long-mode table entry by the names of `pmap_bits` (SDM vol. 3A, "4-Level Paging and 5-Level Paging"). */
const BITS = {
  valid: 0x1n,
  readWrite: 0x2n,
  user: 0x4n,
  accessed: 0x20n,
  modified: 0x40n,
  pageSize: 0x80n,
  global: 0x100n,
  noExecute: 1n << 63n,
} as const;
const FRAME = 0x000f_ffff_ffff_f000n;

/** Bytes of a page that one entry of the second level maps. */
const LARGE_PAGE = 0x20_0000;

/** An address space. */
export class Pmap {
  /** Physical address of the PML4, what CR3 takes. */
  readonly pml4: Hpa;
  /** Table pages of this pmap alone, the PML4 included; not those shared with the kernel. */
  readonly tables: Hpa[];

  constructor(pml4: Hpa) {
    this.pml4 = pml4;
    this.tables = [pml4];
  }
}

/** Thrown inside the kernel when page tables cannot get a page; whoever builds an address space catches it. */
export class OutOfPages extends Error {
  override name = "OutOfPages";
}

/** A page of zeros for a table. */
function* tablePage(cpu: GateCpu, pages: VmPages): Exec<Hpa> {
  const page = yield* vmPageAllocZero(cpu, pages);
  if (page === undefined) throw new OutOfPages("No page is left for a page table");
  return page;
}

/** Makes an empty address space (`pmap_pinit`) that shares slots from `shared` up with `kernel`, if given. */
export function* pmapPinit(
  cpu: GateCpu,
  pages: VmPages,
  kernel: { readonly pmap: Pmap; readonly slots: readonly number[] } | undefined,
): Exec<Pmap> {
  const pmap = new Pmap(yield* tablePage(cpu, pages));
  if (kernel !== undefined) {
    for (const slot of kernel.slots) {
      const entry = yield* cpu.load64(entryAddress(kernel.pmap.pml4, slot));
      yield* cpu.store64(entryAddress(pmap.pml4, slot), entry);
    }
  }
  return pmap;
}

/** Maps one 4-KiB page (`pmap_enter`). The page must not be mapped at `va` yet, so that no translation can be stale. */
export function* pmapEnter(
  cpu: GateCpu,
  pages: VmPages,
  pmap: Pmap,
  mapping: {
    readonly va: Gva;
    readonly pa: Hpa;
    readonly protection: Protection;
    readonly uncached?: boolean;
  },
): Exec<void> {
  const { va, pa, protection } = mapping;
  const table = yield* tableFor(cpu, pages, pmap, va, 1, protection.user);
  const entry = BigInt(pa) | leafBits(protection) | (mapping.uncached ? 0x18n : 0n);
  yield* cpu.store64(entryAddress(table, indexAt(va, 1)), entry);
}

/** Maps one 2-MiB page. */
export function* pmapEnterLarge(
  cpu: GateCpu,
  pages: VmPages,
  pmap: Pmap,
  mapping: { readonly va: Gva; readonly pa: Hpa; readonly protection: Protection },
): Exec<void> {
  const { va, pa, protection } = mapping;
  if (pa % LARGE_PAGE !== 0) throw new RangeError("A large page must be aligned to its size");
  const table = yield* tableFor(cpu, pages, pmap, va, 2, protection.user);
  yield* cpu.store64(
    entryAddress(table, indexAt(va, 2)),
    BigInt(pa) | leafBits(protection) | BITS.pageSize,
  );
}

/** Frees the tables (`pmap_release`). No processor may have the pmap active. */
export function pmapRelease(pages: VmPages, pmap: Pmap): void {
  // The root last, so that the next address space gets it again: nothing may depend on roots being fresh.
  for (const table of pmap.tables.splice(0).reverse()) pages.release(table);
}

/** The table of a level that maps `va`; missing ones on the way are made. */
function* tableFor(
  cpu: GateCpu,
  pages: VmPages,
  pmap: Pmap,
  va: Gva,
  level: number,
  user: boolean,
): Exec<Hpa> {
  let table = pmap.pml4;
  for (let at = 4; at > level; at--) {
    const address = entryAddress(table, indexAt(va, at));
    const entry = yield* cpu.load64(address);
    if (entry & BITS.valid) {
      if (entry & BITS.pageSize) throw new Error("A large page is in the way");
      table = hpa(Number(entry & FRAME));
      continue;
    }
    const page = yield* tablePage(cpu, pages);
    pmap.tables.push(page);
    const bits = BITS.valid | BITS.readWrite | BITS.accessed | BITS.modified | (user ? BITS.user : 0n);
    yield* cpu.store64(address, BigInt(page) | bits);
    table = page;
  }
  return table;
}

function leafBits({ write, execute, user }: Protection): bigint {
  return BITS.valid | BITS.accessed | (write ? BITS.readWrite | BITS.modified : 0n) |
    (user ? BITS.user : BITS.global) | (execute ? 0n : BITS.noExecute);
}

function entryAddress(table: Hpa, index: number): Gva {
  return physToDmap(hpa(table + index * 8));
}

/** Index of `va` in its table of a level, 1 = page table. */
function indexAt(va: Gva, level: number): number {
  return Number((va >> BigInt(12 + 9 * (level - 1))) & 0x1ffn);
}

/** Pages that `bytes` bytes from `va` on touch. */
export function pagesOf(va: Gva, bytes: number): number {
  const first = Number(va & BigInt(PAGE_SIZE - 1));
  return Math.ceil((first + bytes) / PAGE_SIZE);
}
