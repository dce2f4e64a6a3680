/**
 * Mapping the neighbours of a page that faulted (`vm_prefault` of `sys/vm/vm_fault.c`), so that they do not fault one by one.
 *
 * Room: `kernel/vm/`; imports objects, pages, pmap. Nothing here waits for I/O or for somebody else's page: what cannot be had at once is
 * left for a fault of its own.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { pmapEnter } from "../pmap/pmap_enter.ts";
import { pmapPrefaultOk } from "../pmap/pmap_extract.ts";
import type { Pmap } from "../pmap/pmap.ts";
import type { VmMapEntry } from "./vm_map_entry.ts";
import {
  OBJT_DEFAULT,
  OBJT_VNODE,
  type VmObject,
  vmObjectChainAcquire,
  vmObjectChainRelease,
  vmObjectDrop,
  vmObjectHold,
  vmObjectHoldShared,
} from "./vm_object.ts";
import {
  PG_FICTITIOUS,
  PG_ZERO,
  VM_ALLOC_NORMAL,
  VM_ALLOC_NULL_OK,
  VM_ALLOC_ZERO,
  VM_PAGE_BITS_ALL,
  type VmPage,
  vmPageActivate,
  vmPageDeactivate,
  vmPageDirty,
  vmPageFlagClear,
  vmPageLookupBusyTry,
  vmPageWakeup,
} from "./vm_page.ts";
import { vmPageCountMin } from "./vm_page2.ts";
import { vmPageAlloc } from "./vm_page_alloc.ts";
import { vmPageZeroFill } from "./vm_page_valid.ts";
import { PQ_CACHE } from "./vm_pageq.ts";
import {
  MAP_ENTRY_NEEDS_COPY,
  offToIdx,
  PAGE_SIZE,
  VM_MAPTYPE_NORMAL,
  VM_PROT_READ,
  VM_PROT_WRITE,
  type VmProt,
} from "./vm_param.ts";

/** Neighbours that are tried, half of them on each side (`vm_prefault_pages`). */
export const VM_PREFAULT_PAGES = 8;

/**
 * Maps what is resident around `address`, alternating between above and below, until something is mapped already on that side.
 *
 * Preconditions: the map is locked shared, with `entry` in it; no object of the fault is held any more.
 *
 * @param prot Rights that the faulting page was mapped with.
 * @param writing The fault was a write: zero pages may be made for neighbours too.
 */
export function* vmPrefault(
  cx: Cx,
  pmap: Pmap,
  address: Gva,
  entry: VmMapEntry,
  prot: VmProt,
  writing: boolean,
): Exec<void> {
  const { object } = entry;
  // Software page tables say themselves what is where; and other spaces than the thread's own are not warmed up.
  if (entry.maptype !== VM_MAPTYPE_NORMAL || object === undefined || (prot & VM_PROT_READ) === 0) return;
  if (cx.lwp?.lwpVmspace?.vmPmap !== pmap) return;
  const page = BigInt(PAGE_SIZE);
  const file = object.type === OBJT_VNODE;
  if (file) yield* vmObjectHoldShared(cx, object);
  else yield* vmObjectHold(cx, object);
  yield* vmObjectChainAcquire(cx, object, file);
  const open = [true, true];
  for (let i = 0; i < VM_PREFAULT_PAGES && (open[0] || open[1]); i++) {
    const side = i & 1;
    if (!open[side]) continue;
    const distance = page * BigInt((i >> 1) + 1);
    const at = side === 0 ? address + distance : address - distance;
    if (at < entry.start || at >= entry.end || !(yield* pmapPrefaultOk(cx, pmap, at as Gva))) {
      open[side] = false;
      continue;
    }
    const pindex = offToIdx(entry.offset + Number(at - entry.start));
    const got = yield* neighbour(cx, object, pindex, entry, prot, writing && !file);
    if (got === undefined) continue;
    yield* pmapEnter(cx, pmap, at as Gva, got.m, got.prot, false, entry);
    vmPageWakeup(cx, got.m);
  }
  vmObjectChainRelease(cx, object);
  vmObjectDrop(cx, object);
}

/** A page to map and the rights it may have; busy. Undefined if there is none to be had at once. */
function* neighbour(
  cx: Cx,
  top: VmObject,
  index: number,
  entry: VmMapEntry,
  prot: VmProt,
  mayMake: boolean,
): Exec<{ m: VmPage; prot: VmProt } | undefined> {
  let rights = (entry.eflags & MAP_ENTRY_NEEDS_COPY) !== 0 ? prot & ~VM_PROT_WRITE : prot;
  let object = top;
  let pindex = index;
  let result: VmPage | undefined;
  // Beside the top object one more is held, without its chain lock: only resident pages are looked at, in one step after the hold.
  for (;;) {
    const { m, error } = vmPageLookupBusyTry(cx, object, pindex, true);
    if (m !== undefined) {
      result = error ? undefined : m;
      break;
    }
    const next: VmObject | undefined = object.backingObject;
    // Swap and files may have pages that are not resident; their pagers are not asked.
    if (object.type !== OBJT_DEFAULT) break;
    if (next === undefined) {
      if (mayMake && (rights & VM_PROT_WRITE) !== 0 && !vmPageCountMin(cx.k) && object === top) {
        result = yield* makeZero(cx, top, index);
      }
      break;
    }
    // A page at the top that is all that is missing: going further is a fault's affair.
    if (object !== top) break;
    pindex += offToIdx(object.backingObjectOffset);
    if (next.type === OBJT_VNODE) yield* vmObjectHoldShared(cx, next);
    else yield* vmObjectHold(cx, next);
    object = next;
    rights &= ~VM_PROT_WRITE;
  }
  const usable = result !== undefined && result.valid === VM_PAGE_BITS_ALL &&
    (result.flags & PG_FICTITIOUS) === 0;
  if (result !== undefined && usable) {
    if (result.queue - result.pc === PQ_CACHE) vmPageDeactivate(cx, result);
    if ((rights & VM_PROT_WRITE) !== 0 && result.object !== undefined) {
      cx.k.vmPages.objectDirtied(cx, result.object);
    }
  } else if (result !== undefined) {
    vmPageWakeup(cx, result);
  }
  if (object !== top) vmObjectDrop(cx, object);
  return result !== undefined && usable ? { m: result, prot: rights } : undefined;
}

/** A page of zeros in the top object, which is anonymous and shadows nothing. */
function* makeZero(cx: Cx, object: VmObject, pindex: number): Exec<VmPage | undefined> {
  if (pindex >= object.size) return undefined;
  const m = vmPageAlloc(cx, object, pindex, VM_ALLOC_NORMAL | VM_ALLOC_ZERO | VM_ALLOC_NULL_OK);
  if (m === undefined) return undefined;
  cx.k.vmmeter.vZfod++;
  if (m.flags & PG_ZERO) cx.k.vmmeter.vOzfod++;
  yield* vmPageZeroFill(cx, m);
  vmPageFlagClear(m, PG_ZERO);
  m.valid = VM_PAGE_BITS_ALL;
  vmPageDirty(cx, m);
  vmPageActivate(cx, m);
  return m;
}
