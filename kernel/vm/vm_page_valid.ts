/**
 * Which blocks of a page are valid and which dirty; zeroing, copying, taking away its mappings (`sys/vm/vm_page.c`, `vm_page2.h`).
 *
 * Room: `kernel/vm/`; imports pmap/ and vm_page.ts.
 *
 * A page is eight blocks of 512 bytes. `valid`: the block holds the object's data. `dirty`: it differs from the backing store **as far as
 * is known here**; what the hardware's modified bits know comes to light with {@link vmPageTestDirty} or when mappings are taken away.
 *
 * @module
 */
import { gva, PAGE_SIZE } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { physToDmap } from "../platform/layout.ts";
import { pmapCopyPage, pmapZeroPage } from "../pmap/pmap_page.ts";
import { pmapIsModified, pmapPageProtect } from "../pmap/pmap_protect.ts";
import {
  DEV_BSIZE,
  PG_BUSY,
  PG_MAPPED,
  PG_WRITEABLE,
  PG_ZERO,
  VM_PAGE_BITS_ALL,
  type VmPage,
  vmPageDirty,
} from "./vm_page.ts";
import { VM_PROT_NONE, type VmProt } from "./vm_param.ts";

/** The bits of the blocks that `[base, base + size)` touches (`vm_page_bits`); bytes within the page. */
export function vmPageBits(base: number, size: number): number {
  kassert(base >= 0 && size >= 0 && base + size <= PAGE_SIZE, "vm_page_bits: range leaves the page");
  if (size === 0) return 0;
  const first = Math.floor(base / DEV_BSIZE), last = Math.floor((base + size - 1) / DEV_BSIZE);
  return (2 << last) - (1 << first);
}

/** Whether all blocks that the range touches are valid (`vm_page_is_valid`). */
export function vmPageIsValid(m: VmPage, base: number, size: number): boolean {
  const bits = vmPageBits(base, size);
  return m.valid !== 0 && (m.valid & bits) === bits;
}

/** The blocks that the range touches become valid (`vm_page_set_valid`). */
export function vmPageSetValid(m: VmPage, base: number, size: number): void {
  m.valid |= vmPageBits(base, size);
}

/** They become valid and clean (`vm_page_set_validclean`): what a read from the backing store does. */
export function vmPageSetValidclean(m: VmPage, base: number, size: number): void {
  const bits = vmPageBits(base, size);
  m.valid |= bits;
  m.dirty &= ~bits;
}

/** They become valid and dirty (`vm_page_set_validdirty`): what a write to a file does. */
export function vmPageSetValiddirty(cx: Cx, m: VmPage, base: number, size: number): void {
  const bits = vmPageBits(base, size);
  m.valid |= bits;
  m.dirty |= bits;
  if (m.object !== undefined) cx.k.vmPages.objectDirtied(cx, m.object);
}

/** They become clean (`vm_page_clear_dirty`). The hardware's bits are not looked at: write-protect first. */
export function vmPageClearDirty(m: VmPage, base: number, size: number): void {
  m.dirty &= ~vmPageBits(base, size);
}

/** They become invalid (`vm_page_set_invalid`): truncation. */
export function vmPageSetInvalid(m: VmPage, base: number, size: number): void {
  const bits = vmPageBits(base, size);
  m.valid &= ~bits;
  m.dirty &= ~bits;
}

/** Writes zeros to the blocks that are not valid, and makes the whole page valid if asked (`vm_page_zero_invalid`). Precondition: busy. */
export function* vmPageZeroInvalid(cx: Cx, m: VmPage, setvalid: boolean): Exec<void> {
  for (let block = 0; block < PAGE_SIZE / DEV_BSIZE; block++) {
    if (m.valid & (1 << block)) continue;
    const at = gva(physToDmap(cx.k, m.physAddr) + BigInt(block * DEV_BSIZE));
    yield* cx.cpu.zeroBytes(at, DEV_BSIZE);
  }
  if (setvalid) m.valid = VM_PAGE_BITS_ALL;
}

/** Takes in what the hardware's modified bits know (`vm_page_test_dirty`). */
export function* vmPageTestDirty(cx: Cx, m: VmPage): Exec<void> {
  if (m.dirty === VM_PAGE_BITS_ALL || (m.flags & PG_MAPPED) === 0) return;
  if (yield* pmapIsModified(cx, m)) vmPageDirty(cx, m);
}

/**
 * Lowers the rights of every mapping of a page (`vm_page_protect`): VM_PROT_NONE takes them away, VM_PROT_READ makes them read only.
 * Modified bits that go away become `dirty`.
 *
 * Preconditions: the page is busy, so that no mapping can come meanwhile.
 */
export function* vmPageProtect(cx: Cx, m: VmPage, prot: VmProt): Exec<void> {
  kassert((m.flags & PG_BUSY) !== 0, "vm_page_protect: page not busy");
  if (prot === VM_PROT_NONE) {
    if (m.flags & (PG_WRITEABLE | PG_MAPPED)) yield* pmapPageProtect(cx, m, prot);
  } else if (m.flags & PG_WRITEABLE) yield* pmapPageProtect(cx, m, prot);
}

/** Fills a page with zeros (`vm_page_zero_fill`). What PG_ZERO promises is not done again. Precondition: busy or not shared. */
export function* vmPageZeroFill(cx: Cx, m: VmPage): Exec<void> {
  if ((m.flags & PG_ZERO) === 0) yield* pmapZeroPage(cx, m.physAddr);
}

/** Copies a page's bytes (`vm_page_copy`). Precondition: both busy, or else kept from changing. */
export function* vmPageCopy(cx: Cx, from: VmPage, to: VmPage): Exec<void> {
  yield* pmapCopyPage(cx, from.physAddr, to.physAddr);
  to.valid = VM_PAGE_BITS_ALL;
}
