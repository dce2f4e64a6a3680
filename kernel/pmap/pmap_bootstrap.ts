/**
 * The kernel's page tables at boot (`pmap_bootstrap`, `create_pagetables`, `pmap_init`).
 *
 * Room: `kernel/pmap/`; imports vm_page for what is asked of it late. Runs on the loader's tables, whose direct map stands where the final
 * one does, so that pages can be reached before and after alike.
 *
 *     slot 256          recursive, in every root
 *     slot 384 …        direct map of all RAM: 2-MiB pages, global, not executable
 *     slot 511          kernel: [kvaMin, + BOOT_KVA_BYTES)   given out here, page by page (pmapBootAlloc)
 *                               [virtualStart, virtualEnd)                  kernel_map's
 *                               [KERNBASE, …)                               image and devices: mapped once, global
 *
 * @module
 */
import { type Gva, gva, type Hpa, hpa, PAGE_SIZE } from "../../hw/address.ts";
import type { Exec, GateCpu } from "../../hw/gates.ts";
import { Cx } from "../context.ts";
import type { Kernel } from "../kernel.ts";
import { physToDmap } from "../platform/layout.ts";
import {
  VM_ALLOC_INTERRUPT,
  VM_ALLOC_SYSTEM,
  vmPageUnmanage,
  vmPageWakeup,
  vmPageWire,
} from "../vm/vm_page.ts";
import { vmPageAlloc } from "../vm/vm_page_alloc.ts";
import { type PhysRange, pmapPtPindex, PML4PML4I } from "./pmap.ts";
import {
  PAT_MSR,
  PG_A_IDX,
  PG_G_IDX,
  PG_M_IDX,
  PG_N_IDX,
  PG_NX_IDX,
  PG_PS_IDX,
  PG_RW_IDX,
  PG_V_IDX,
} from "./pmap_bits.ts";
import { entryIn, indexAt, kernelLevelBit, pteFrame } from "./pmap_pte.ts";

/** Bytes of it that {@link pmapBootAlloc} gives out. */
export const BOOT_KVA_BYTES = 0x400_0000;

const LARGE_PAGE = 0x20_0000;
const PAGE = BigInt(PAGE_SIZE);
/** All processors that there can be: the kernel's pmap is active everywhere. */
const ALL_CPUS = 0xffff;

/** An entry that leads to a table. */
function tableBits(k: Kernel): bigint {
  const bits = k.pmap.kernelPmap.pmapBits;
  return bits[PG_V_IDX]! | bits[PG_RW_IDX]! | bits[PG_A_IDX]! | bits[PG_M_IDX]! | kernelLevelBit(k);
}

/** A mapping of the kernel's own window. */
export interface StaticMapping {
  readonly va: Gva;
  readonly pa: Hpa;
  readonly bytes: number;
  readonly write: boolean;
  readonly execute: boolean;
  readonly uncached?: boolean;
}

/** What pmapBootstrap must know of the machine. */
export interface PmapBootstrapOptions {
  /** Free RAM, ascending: not the image, not modules, not what firmware reserved. */
  readonly available: readonly PhysRange[];
  /** Bytes that the direct map covers, from physical address 0: end of RAM. */
  readonly memoryBytes: number;
  /** Map all RAM at the layout's `dmapMin` in these tables; false where the direct map is another's affair. */
  readonly directMap: boolean;
  /** Where RAM begins, if not at physical address 0: a multiple of 2 MiB. */
  readonly ramStart?: number;
  /** Slots of the root that every address space has too. */
  readonly kernelSlots: readonly number[];
  /** Mappings of the kernel's own window: the image (code read-only, data not executable), devices. */
  readonly static: readonly StaticMapping[];
}

/**
 * Builds the kernel's page tables (`pmap_bootstrap`); leaves `physAvail`, `virtualStart` and `virtualEnd` in `k.pmap`. Gives the root's
 * address, which the platform loads.
 */
export function* pmapBootstrap(k: Kernel, cpu: GateCpu, options: PmapBootstrapOptions): Exec<Hpa> {
  const state = k.pmap;
  state.kernelPmap.setFormat(k.platform.pmapFormat);
  state.physAvail = options.available.map(({ start, end }) => ({
    start: hpa(Math.ceil(start / PAGE_SIZE) * PAGE_SIZE),
    end: hpa(Math.floor(end / PAGE_SIZE) * PAGE_SIZE),
  })).filter(({ start, end }) => start < end);
  state.dmapBytes = Math.ceil(options.memoryBytes / LARGE_PAGE) * LARGE_PAGE;

  const root = yield* bootPage(k, cpu);
  state.kernelPmap.pmPml4 = physToDmap(k, root);
  state.kernelPmap.pmActive = ALL_CPUS;
  yield* cpu.store64(entryIn(k, root, PML4PML4I), BigInt(root) | tableBits(k));
  if (options.directMap) yield* directMap(k, cpu, root, options.ramStart ?? 0);
  for (const mapping of options.static) yield* staticMap(k, cpu, mapping);
  const { kvaMin, kvaEnd } = k.layout;
  yield* bootTable(k, cpu, kvaMin);
  for (const slot of options.kernelSlots) {
    state.kernelSlots.set(slot, yield* cpu.load64(entryIn(k, root, slot)));
  }
  // An unmapped page first, and between all that is given out.
  state.bootKva = gva(kvaMin + PAGE);
  state.virtualStart = gva(kvaMin + BigInt(BOOT_KVA_BYTES));
  state.virtualEnd = kvaEnd;
  state.kernelVmEnd = gva(kvaMin + BigInt(LARGE_PAGE));
  return root;
}

/** All RAM, at the same distance, in large pages. */
function* directMap(k: Kernel, cpu: GateCpu, root: Hpa, start: number): Exec<void> {
  const B = k.pmap.kernelPmap.pmapBits;
  const bits = B[PG_V_IDX]! | B[PG_RW_IDX]! | B[PG_A_IDX]! | B[PG_M_IDX]! | B[PG_PS_IDX]! | B[PG_G_IDX]! |
    B[PG_NX_IDX]!;
  for (let pa = start; pa < k.pmap.dmapBytes; pa += LARGE_PAGE) {
    const va = physToDmap(k, hpa(pa));
    const pd = yield* tableBelow(k, cpu, yield* tableBelow(k, cpu, root, indexAt(va, 4)), indexAt(va, 3));
    yield* cpu.store64(entryIn(k, pd, indexAt(va, 2)), BigInt(pa) | bits);
  }
}

/** Maps a piece of the kernel's own window for good. */
function* staticMap(k: Kernel, cpu: GateCpu, mapping: StaticMapping): Exec<void> {
  const B = k.pmap.kernelPmap.pmapBits;
  const bits = B[PG_V_IDX]! | B[PG_A_IDX]! | B[PG_G_IDX]! |
    (mapping.write ? B[PG_RW_IDX]! | B[PG_M_IDX]! : 0n) |
    (mapping.execute ? 0n : B[PG_NX_IDX]!) | (mapping.uncached ? B[PG_N_IDX]! : 0n);
  for (let offset = 0; offset < mapping.bytes; offset += PAGE_SIZE) {
    const va = gva(mapping.va + BigInt(offset));
    const table = yield* bootTable(k, cpu, va);
    yield* cpu.store64(entryIn(k, table, indexAt(va, 1)), BigInt(mapping.pa + offset) | bits);
  }
}

/** The PT page for a kernel address, made if it is missing. */
function* bootTable(k: Kernel, cpu: GateCpu, va: Gva): Exec<Hpa> {
  const { kernelPts, kernelPmap } = k.pmap;
  const known = kernelPts.get(pmapPtPindex(va));
  if (known !== undefined) return known;
  let table = hpa(Number(kernelPmap.pmPml4! - physToDmap(k, hpa(0))));
  for (let level = 4; level >= 2; level--) table = yield* tableBelow(k, cpu, table, indexAt(va, level));
  kernelPts.set(pmapPtPindex(va), table);
  return table;
}

/** The table that an entry leads to, made if it is missing. */
function* tableBelow(k: Kernel, cpu: GateCpu, table: Hpa, index: number): Exec<Hpa> {
  const at = entryIn(k, table, index);
  const entry = yield* cpu.load64(at);
  if (entry !== 0n) return pteFrame(entry);
  const page = yield* bootPage(k, cpu);
  yield* cpu.store64(at, BigInt(page) | tableBits(k));
  return page;
}

/** A zeroed page that stays the kernel's: from the start of free memory, later from the VM system. */
function* bootPage(k: Kernel, cpu: GateCpu): Exec<Hpa> {
  const page = k.pmap.pmapInitialized ? latePage(new Cx(k, cpu)) : earlyPage(k);
  if (page === undefined) cpu.panic("pmap_bootstrap: there is not enough memory for the kernel");
  yield* cpu.zeroBytes(physToDmap(k, page), PAGE_SIZE);
  return page;
}

function earlyPage(k: Kernel): Hpa | undefined {
  const { physAvail } = k.pmap;
  const first = physAvail[0];
  if (first === undefined) return undefined;
  const start = hpa(first.start + PAGE_SIZE);
  if (start < first.end) physAvail[0] = { start, end: first.end };
  else physAvail.shift();
  return first.start;
}

function latePage(cx: Cx): Hpa | undefined {
  const m = vmPageAlloc(cx, undefined, 0, VM_ALLOC_SYSTEM | VM_ALLOC_INTERRUPT);
  if (m === undefined) return undefined;
  vmPageUnmanage(cx, m);
  vmPageWire(cx, m);
  vmPageWakeup(cx, m);
  return m.physAddr;
}

/**
 * Maps fresh zeroed pages in kernel virtual memory, for good, with an unmapped page before and behind them: what the kernel needs before
 * kernel_map exists, and for processors.
 */
export function* pmapBootAlloc(k: Kernel, cpu: GateCpu, bytes: number): Exec<Gva> {
  const state = k.pmap;
  const start = state.bootKva;
  const end = start + BigInt(Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE);
  if (end >= state.virtualStart) cpu.panic("pmap_boot_alloc: the window for boot's allocations is full");
  state.bootKva = gva(end + PAGE);
  const bits = tableBits(k) | k.pmap.kernelPmap.pmapBits[PG_NX_IDX]!;
  for (let va: bigint = start; va < end; va += PAGE) {
    const table = yield* bootTable(k, cpu, gva(va));
    const page = yield* bootPage(k, cpu);
    yield* cpu.store64(entryIn(k, table, indexAt(gva(va), 1)), BigInt(page) | bits);
  }
  return start;
}

/** IA32_PAT. */
const MSR_PAT = 0x277n;

/**
 * Programs this processor's page-attribute table (`pmap_init_pat`), so that `pmapCacheBits` means what it says. Every processor does it, before
 * it has used a mapping with other attributes than the power-on slots'.
 *
 * Left out: turning the caches off and writing them back around it; this machine has none that software can see.
 */
export function* pmapInitPat(cpu: GateCpu): Exec<void> {
  yield* cpu.perform("wrmsr", MSR_PAT, PAT_MSR);
}

/**
 * The VM system has every page (`pmap_init`, right behind vm_page_startup(k.pmap.physAvail)): table pages come from vm_page_alloc from now
 * on, and mappings can be managed.
 */
export function pmapInit(k: Kernel): void {
  k.pmap.pmapInitialized = true;
}
