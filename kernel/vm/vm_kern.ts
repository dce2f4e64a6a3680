/**
 * The kernel's own virtual memory (`sys/vm/vm_kern.c`): kernel_map, wired allocations, stacks with a guard page, submaps.
 *
 * Room: `kernel/vm/`; imports maps, objects and pages; knows the kernel's pmap by kenter and growkernel.
 *
 * Wired pages belong to `kernelObject`, each at the index of its address, so that they can be found and freed by the address. They are mapped
 * unmanaged (`pmap_qenter`): nobody looks for the mappings of a page that is never paged out. DragonFly enters them through the fault path
 * (`vm_map_wire`), which comes to the same and needs the fault path for the kernel's first stack.
 *
 * @module
 */
import { type Gva, gva, PAGE_SIZE } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { pmapGrowkernel, pmapQenter, pmapQremove } from "../pmap/pmap_kenter.ts";
import { VmMap, vmMapLock, vmMapLookupEntry, vmMapUnlock } from "./vm_map.ts";
import { MAP_RESERVE_COUNT, vmMapEntryRelease, vmMapEntryReserve } from "./vm_map_entry.ts";
import { type MapInsert, vmMapFindspace, vmMapInsert } from "./vm_map_insert.ts";
import { vmMapRemove } from "./vm_map_remove.ts";
import {
  OBJT_DEFAULT,
  type VmObject,
  vmObjectAllocate,
  vmObjectDrop,
  vmObjectHold,
  vmObjectReferenceQuick,
} from "./vm_object.ts";
import {
  VM_ALLOC_FORCE_ZERO,
  VM_ALLOC_NORMAL,
  VM_ALLOC_RETRY,
  VM_ALLOC_SYSTEM,
  type VmPage,
  vmPageFree,
  vmPageLookupBusyWait,
  vmPageUnwire,
  vmPageWakeup,
  vmPageWire,
} from "./vm_page.ts";
import { vmPageGrab } from "./vm_page_cache.ts";
import { KERN_SUCCESS, MAP_IS_KSTACK, VM_MAPTYPE_SUBMAP, VM_PROT_ALL } from "./vm_param.ts";

/** The kernel's maps. */
export class VmKernState {
  /** `kernel_map`. Set by {@link kmemInit}. */
  kernelMap!: VmMap;
  /** `kernel_object`: the wired pages, by address. */
  kernelObject!: VmObject;
  /** Address of page 0 of `kernelObject`. */
  kernelBase = 0n;
}

/** Makes kernel_map over the kernel's free addresses (`kmem_init`). Preconditions: pages and pmap are up. */
export function kmemInit(cx: Cx): void {
  const { vmKern, pmap } = cx.k;
  const map = new VmMap(pmap.virtualStart, pmap.virtualEnd, pmap.kernelPmap);
  map.systemMap = true;
  vmKern.kernelMap = map;
  vmKern.kernelBase = pmap.virtualStart;
  vmKern.kernelObject = vmObjectAllocate(cx, OBJT_DEFAULT, pagesOf(pmap.virtualEnd - pmap.virtualStart));
}

function pagesOf(bytes: bigint): number {
  return Number((bytes + BigInt(PAGE_SIZE - 1)) >> 12n);
}

/** Takes a range of addresses of a kernel map, with page tables for it. Undefined when there is no room. */
function* allocRange(
  cx: Cx,
  map: VmMap,
  pages: number,
  extra: (at: Gva) => Partial<MapInsert>,
): Exec<Gva | undefined> {
  const length = BigInt(pages * PAGE_SIZE);
  const count = vmMapEntryReserve(MAP_RESERVE_COUNT);
  yield* vmMapLock(cx, map);
  const at = vmMapFindspace(map, map.min, length);
  if (at !== undefined) {
    yield* pmapGrowkernel(cx, at, gva(at + length));
    const rv = yield* vmMapInsert(cx, map, count, {
      start: at,
      end: at + length,
      prot: VM_PROT_ALL,
      max: VM_PROT_ALL,
      ...extra(at),
    });
    kassert(rv === KERN_SUCCESS, () => `kmem_alloc: vm_map_insert answers ${rv}`);
  }
  yield* vmMapUnlock(cx, map);
  vmMapEntryRelease(count);
  return at;
}

/** Maps zeroed wired pages at addresses that {@link allocRange} gave. */
function* fillRange(cx: Cx, start: Gva, pages: number): Exec<void> {
  const { kernelObject, kernelBase } = cx.k.vmKern;
  const first = pagesOf(start - kernelBase);
  for (let i = 0; i < pages; i++) {
    yield* vmObjectHold(cx, kernelObject);
    const request = VM_ALLOC_FORCE_ZERO | VM_ALLOC_NORMAL | VM_ALLOC_SYSTEM | VM_ALLOC_RETRY;
    // With RETRY there is always a page in the end.
    const m = (yield* vmPageGrab(cx, kernelObject, first + i, request)) as VmPage;
    vmPageWire(cx, m);
    yield* pmapQenter(cx, gva(start + BigInt(i * PAGE_SIZE)), [m]);
    vmPageWakeup(cx, m);
    vmObjectDrop(cx, kernelObject);
  }
}

/** Memory of kernelObject for a range: an extra reference, and the offset that belongs to the address. */
function kernelMemory(cx: Cx): (at: Gva) => Partial<MapInsert> {
  const { kernelObject, kernelBase } = cx.k.vmKern;
  return (at) => {
    vmObjectReferenceQuick(cx, kernelObject);
    return { object: kernelObject, offset: Number(at - kernelBase) };
  };
}

/**
 * Allocates wired zeroed memory (`kmem_alloc`): its address, or undefined when the map has no room. Waits for pages.
 *
 * @param map A kernel map, mostly `cx.k.vmKern.kernelMap`. @param bytes Rounded up to pages.
 */
export function* kmemAlloc(cx: Cx, map: VmMap, bytes: number): Exec<Gva | undefined> {
  const pages = Math.ceil(bytes / PAGE_SIZE);
  const at = yield* allocRange(cx, map, pages, kernelMemory(cx));
  if (at !== undefined) yield* fillRange(cx, at, pages);
  return at;
}

/**
 * Allocates a kernel stack (`kmem_alloc_stack`): the lowest address of its `bytes` bytes. The page below them is not mapped: an overflow
 * faults.
 */
export function* kmemAllocStack(cx: Cx, bytes: number): Exec<Gva> {
  const pages = Math.ceil(bytes / PAGE_SIZE);
  const at = yield* allocRange(cx, cx.k.vmKern.kernelMap, pages + 1, (at) => ({
    ...kernelMemory(cx)(at),
    cow: MAP_IS_KSTACK,
  }));
  kassert(at !== undefined, "kmem_alloc_stack: kernel_map is full");
  const stack = gva(at + BigInt(PAGE_SIZE));
  yield* fillRange(cx, stack, pages);
  return stack;
}

/** Gives a stack of {@link kmemAllocStack} back. */
export function* kmemFreeStack(cx: Cx, stack: Gva, bytes: number): Exec<void> {
  const guard = gva(stack - BigInt(PAGE_SIZE));
  yield* kmemFree(cx, cx.k.vmKern.kernelMap, guard, Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE + PAGE_SIZE);
}

/** Takes addresses without memory (`kmem_alloc_nofault`), for whoever enters mappings there. */
export function* kmemAllocNofault(cx: Cx, map: VmMap, bytes: number): Exec<Gva | undefined> {
  return yield* allocRange(cx, map, Math.ceil(bytes / PAGE_SIZE), () => ({}));
}

/** Frees memory or addresses (`kmem_free`): pages, mappings, and the entry. */
export function* kmemFree(cx: Cx, map: VmMap, addr: Gva, bytes: number): Exec<void> {
  const { kernelObject, kernelBase } = cx.k.vmKern;
  const pages = Math.ceil(bytes / PAGE_SIZE), first = pagesOf(addr - kernelBase);
  yield* pmapQremove(cx, addr, pages);
  yield* vmObjectHold(cx, kernelObject);
  for (let i = 0; i < pages; i++) {
    const m = yield* vmPageLookupBusyWait(cx, kernelObject, first + i, true, "kmemfr");
    if (m === undefined) continue;
    vmPageUnwire(cx, m, false);
    vmPageFree(cx, m);
  }
  vmObjectDrop(cx, kernelObject);
  yield* vmMapRemove(cx, map, addr, gva(addr + BigInt(pages * PAGE_SIZE)));
}

/** Makes a map within a map (`kmem_suballoc`): a range of the parent's addresses that is managed on its own. */
export function* kmemSuballoc(cx: Cx, parent: VmMap, bytes: number): Exec<VmMap | undefined> {
  const length = Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
  const at = yield* allocRange(cx, parent, length / PAGE_SIZE, () => ({}));
  if (at === undefined) return undefined;
  const map = new VmMap(at, gva(at + BigInt(length)), cx.k.pmap.kernelPmap);
  map.systemMap = true;
  yield* vmMapLock(cx, parent);
  const { found, entry } = vmMapLookupEntry(parent, at);
  kassert(found && entry.start === at, "kmem_suballoc: the parent's entry is gone");
  entry.maptype = VM_MAPTYPE_SUBMAP;
  entry.subMap = map;
  yield* vmMapUnlock(cx, parent);
  return map;
}
